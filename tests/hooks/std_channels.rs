//! What std promises of `mpsc`, on virtual threads. Std's own tests were the list of behaviours.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{
            Receiver, RecvError, RecvTimeoutError, SendError, Sender, SyncSender, TryRecvError,
            TrySendError, channel, sync_channel,
        },
    },
    thread as os,
    time::{Duration, Instant},
};

use crate::sides::{Others, with_others};

const MOMENT: Duration = Duration::from_millis(10);

/// A sender of either kind of channel.
#[derive(Clone)]
enum Sends<T> {
    Unbounded(Sender<T>),
    Bounded(SyncSender<T>),
}

impl<T> Sends<T> {
    fn send(&self, item: T) -> Result<(), SendError<T>> {
        match self {
            Sends::Unbounded(sender) => sender.send(item),
            Sends::Bounded(sender) => sender.send(item),
        }
    }
}

/// Runs `f` with others of both kinds and with each kind of channel: without a bound, and with
/// bounds that hold so many.
fn with_channels(f: fn(Others, Option<usize>)) {
    with_others(move |others| {
        for bound in [None, Some(0), Some(1), Some(3)] {
            f(others, bound);
        }
    });
}

fn open<T>(bound: Option<usize>) -> (Sends<T>, Receiver<T>) {
    match bound {
        None => {
            let (sender, receiver) = channel();
            (Sends::Unbounded(sender), receiver)
        }
        Some(bound) => {
            let (sender, receiver) = sync_channel(bound);
            (Sends::Bounded(sender), receiver)
        }
    }
}

#[test]
fn an_item_goes_from_one_to_another() {
    with_channels(|others, bound| {
        let (sender, receiver) = open(bound);
        let sends = others.spawn(move || sender.send(Box::new(7)));
        assert_eq!(*receiver.recv().unwrap(), 7);
        assert!(sends.value().is_ok());
        assert_eq!(receiver.recv(), Err(RecvError));
        let (sender, receiver) = open(bound);
        let receives = others.spawn(move || receiver.recv());
        sender.send(8).unwrap();
        assert_eq!(receives.value(), Ok(8));
    });
}

#[test]
fn who_waits_is_told_that_the_other_end_has_gone() {
    with_channels(|others, bound| {
        let (sender, receiver) = open::<u32>(bound);
        let second = sender.clone();
        let waits = others.spawn(move || receiver.recv());
        os::yield_now();
        drop(sender);
        os::yield_now();
        drop(second);
        assert_eq!(waits.value(), Err(RecvError));
        if let Some(bound) = bound {
            let (sender, receiver) = sync_channel(bound);
            (0..bound).for_each(|n| sender.send(n).unwrap());
            let waits = others.spawn(move || sender.send(99));
            os::yield_now();
            drop(receiver);
            assert_eq!(waits.value(), Err(SendError(99)));
        }
    });
}

#[test]
fn after_the_receiver_has_gone_what_is_sent_comes_back() {
    with_channels(|others, bound| {
        let (sender, receiver) = open(bound);
        others.spawn(move || drop(receiver)).value();
        for n in 0..3 {
            assert_eq!(sender.send(n), Err(SendError(n)));
        }
        if let Sends::Bounded(sender) = &sender {
            assert_eq!(sender.try_send(4), Err(TrySendError::Disconnected(4)));
        }
    });
}

#[test]
fn what_was_sent_outlives_its_senders() {
    with_others(|others| {
        for bound in [None, Some(5)] {
            let (sender, receiver) = open(bound);
            let sends = others.spawn(move || (0..5).for_each(|n| sender.send(n).unwrap()));
            sends.value();
            assert_eq!(receiver.try_recv(), Ok(0));
            assert_eq!(receiver.try_iter().take(2).collect::<Vec<_>>(), [1, 2]);
            assert_eq!(receiver.recv_timeout(MOMENT), Ok(3));
            assert_eq!(receiver.recv(), Ok(4));
            assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
            assert_eq!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Disconnected));
            assert_eq!(receiver.recv(), Err(RecvError));
        }
    });
}

/// Counts how many of it there are.
struct Item(Arc<AtomicUsize>);

impl Item {
    fn new(count: &Arc<AtomicUsize>) -> Item {
        count.fetch_add(1, Ordering::SeqCst);
        Item(Arc::clone(count))
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Also if both ends go at once, on two threads.
#[test]
fn what_nobody_receives_is_dropped() {
    with_others(|others| {
        let count = Arc::new(AtomicUsize::new(0));
        for bound in [None, Some(40)] {
            for _ in 0..40 {
                let (sender, receiver) = open(bound);
                (0..3).for_each(|_| assert!(sender.send(Item::new(&count)).is_ok()));
                let item = Item::new(&count);
                let sends = others.spawn(move || drop(sender.send(item)));
                drop(receiver);
                sends.value();
                assert_eq!(count.load(Ordering::SeqCst), 0);
            }
        }
    });
}

#[test]
fn all_items_of_many_senders_come_and_those_of_each_in_order() {
    with_channels(|others, bound| {
        const SENDERS: usize = 5;
        const ITEMS: usize = 60;
        let (sender, receiver) = open(bound);
        let senders: Vec<_> = (0..SENDERS)
            .map(|who| {
                let sender = sender.clone();
                others.spawn(move || (0..ITEMS).for_each(|n| sender.send((who, n)).unwrap()))
            })
            .collect();
        drop(sender);
        let mut next = [0; SENDERS];
        for (who, n) in &receiver {
            assert_eq!(next[who], n);
            next[who] += 1;
        }
        assert_eq!(next, [ITEMS; SENDERS]);
        senders.into_iter().for_each(|sender| sender.value());
    });
}

/// The receiver is on another thread, and has no patience: most of its waits end without an item.
#[test]
fn a_receiver_without_patience_misses_nothing() {
    with_channels(|others, bound| {
        const SENDERS: u32 = 4;
        const ITEMS: u32 = 40;
        let (sender, receiver) = open(bound);
        let receives = others.spawn(move || {
            let (mut count, mut limit) = (0, Duration::ZERO);
            loop {
                match receiver.recv_timeout(limit) {
                    Ok(()) => count += 1,
                    Err(RecvTimeoutError::Timeout) => limit += Duration::from_micros(1),
                    Err(RecvTimeoutError::Disconnected) => return count,
                }
            }
        });
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let sender = sender.clone();
                others.spawn(move || {
                    for n in 0..ITEMS {
                        sender.send(()).unwrap();
                        if n % 8 == 0 {
                            os::sleep(Duration::from_micros(50));
                        }
                    }
                })
            })
            .collect();
        drop(sender);
        senders.into_iter().for_each(|sender| sender.value());
        assert_eq!(receives.value(), SENDERS * ITEMS);
    });
}

#[test]
fn a_limit_is_waited_for_and_no_longer_than_needed() {
    with_channels(|others, bound| {
        let (sender, receiver) = open(bound);
        let begun = Instant::now();
        assert_eq!(receiver.recv_timeout(MOMENT), Err(RecvTimeoutError::Timeout));
        assert!(begun.elapsed() >= MOMENT);
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        let sends = others.spawn(move || {
            os::yield_now();
            sender.send(1).unwrap();
            os::yield_now();
        });
        // For ever, and too long for any clock.
        assert_eq!(receiver.recv_timeout(Duration::MAX), Ok(1));
        assert_eq!(
            receiver.recv_timeout(Duration::from_secs(1 << 40)),
            Err(RecvTimeoutError::Disconnected)
        );
        sends.value();
    });
}

#[test]
fn who_only_tries_is_told_why_not() {
    with_others(|others| {
        let (sender, receiver) = sync_channel(1);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!(receiver.try_recv(), Ok(1));
        // Without room: only while somebody waits.
        let (sender, receiver) = sync_channel(0);
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        let waits = others.spawn(move || receiver.recv().unwrap());
        let mut refused = 0;
        while sender.try_send(2).is_err() {
            refused += 1;
            os::yield_now();
        }
        assert_eq!(waits.value(), 2, "after {refused} refusals");
        assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
    });
}

/// `send` returns when the item has been taken, or has a place.
#[test]
fn a_bounded_channel_holds_its_senders_up() {
    with_others(|others| {
        for bound in 0..3 {
            let (sender, receiver) = sync_channel(bound);
            let sent = Arc::new(AtomicUsize::new(0));
            let counts = Arc::clone(&sent);
            let sends = others.spawn(move || {
                for n in 0..10 {
                    sender.send(n).unwrap();
                    counts.fetch_add(1, Ordering::SeqCst);
                }
            });
            for n in 0..10 {
                os::yield_now();
                assert!(sent.load(Ordering::SeqCst) <= n + bound, "no more than have a place");
                assert_eq!(receiver.recv(), Ok(n));
            }
            sends.value();
        }
    });
}

/// The items of a channel are channels: of each, a part.
#[test]
fn channels_go_through_channels() {
    with_channels(|others, bound| {
        let (sender, receiver) = open::<Receiver<u32>>(bound);
        let sums = others.spawn(move || receiver.iter().flat_map(|inner| inner.into_iter()).sum());
        for n in 1..=5 {
            let (inner, receiver) = channel();
            sender.send(receiver).unwrap();
            (0..n).for_each(|n| inner.send(n).unwrap());
        }
        drop(sender);
        let sum: u32 = sums.value();
        assert_eq!(sum, (1..=5).map(|n| n * (n - 1) / 2).sum());
    });
}

/// Ends that are made, cloned and dropped on threads of their own, many times.
#[test]
fn ends_come_and_go_on_any_thread() {
    with_channels(|others, bound| {
        for _ in 0..15 {
            let (sender, receiver) = open(bound);
            let one = sender.clone();
            let sends = others.spawn(move || {
                let inner = one.clone();
                let other = others.spawn(move || inner.send(1).unwrap());
                one.send(2).unwrap();
                other.value();
            });
            drop(sender);
            let receives = others.spawn(move || receiver.iter().sum::<u32>());
            sends.value();
            assert_eq!(receives.value(), 3);
        }
    });
}
