//! Priority channels: order, room, and nothing lost.

use std::{
    cmp::Reverse,
    panic::{self, AssertUnwindSafe},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use crate::support::{assert_ends, block_on, poll};
use greenloop::{
    run, sleep, spawn,
    sync::{
        Event, RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError,
        priority::{channel, unbounded},
    },
    testing, timeout, wait_for_deferred, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

/// gevent `test__queue.py` `TestPriorityQueue` (Q3).
#[test]
fn the_least_comes_first_and_of_equal_ones_the_first_that_went_in() {
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
    struct Job(u8);
    let (sender, receiver) = unbounded();
    let named = [(2, "a"), (1, "b"), (2, "c"), (1, "d"), (0, "e"), (2, "f")];
    for (n, name) in named {
        // Names are not compared: that is what `Ordered` is for.
        sender.send(Ordered(Job(n), name)).unwrap();
    }
    drop(sender);
    let names: String = receiver.iter().map(|job| job.1).collect();
    assert_eq!(names, "ebdacf");

    let (sender, receiver) = unbounded();
    [3, 1, 2].into_iter().for_each(|n| sender.send(Reverse(n)).unwrap());
    assert_eq!(receiver.try_recv(), Ok(Reverse(3)));
}

/// A value that is ordered by its first part only.
#[derive(Debug, Clone)]
struct Ordered<K, V>(K, V);

impl<K: Ord, V> Ord for Ordered<K, V> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K: Ord, V> PartialOrd for Ordered<K, V> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K: Ord, V> PartialEq for Ordered<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl<K: Ord, V> Eq for Ordered<K, V> {}

#[test]
fn a_full_one_holds_senders_up_in_every_style_and_gives_values_back() {
    testing::run(|| {
        let (sender, receiver) = channel(1);
        sender.send(5).unwrap();
        assert_eq!(sender.try_send(1), Err(TrySendError::Full(1)));
        assert_eq!(sender.send_timeout(1, SECOND), Err(TrySendError::Full(1)));
        assert!(timeout(SECOND, || sender.send(1)).is_err());
        let theirs = sender.clone();
        let blocks = spawn(move || theirs.send(4));
        yield_now();
        let fires = sender.send_deferred(3);
        let mut future = sender.send_async(2);
        assert!(poll(&mut future, Waker::noop()).is_pending());
        for expected in [5, 4, 3] {
            assert_eq!(receiver.recv(), Ok(expected), "who waits for room comes in turn");
            yield_now();
        }
        assert_eq!(blocks.join().unwrap(), Ok(()));
        assert_eq!(wait_for_deferred(fires).unwrap(), Ok(()));
        assert_eq!(poll(&mut future, Waker::noop()), Poll::Ready(Ok(())));
        let theirs = sender.clone();
        let blocks = spawn(move || theirs.send(7));
        let fires = sender.send_deferred(8);
        yield_now();
        drop(receiver);
        assert_eq!(blocks.join().unwrap(), Err(SendError(7)));
        assert_eq!(wait_for_deferred(fires).unwrap(), Err(SendError(8)));
        assert_eq!(sender.try_send(9), Err(TrySendError::Disconnected(9)));
        assert_eq!(sender.send(9), Err(SendError(9)));
    });
}

#[test]
fn receivers_in_every_style_wait_and_are_told_of_the_end() {
    testing::run(|| {
        let (sender, receiver) = unbounded();
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(receiver.recv_timeout(SECOND), Err(RecvTimeoutError::Timeout));
        assert!(timeout(SECOND, || receiver.recv()).is_err());
        let theirs = receiver.clone();
        let blocks = spawn(move || theirs.iter().collect::<Vec<_>>());
        yield_now();
        let fires = receiver.recv_deferred();
        let mut future = receiver.recv_async();
        assert!(poll(&mut future, Waker::noop()).is_pending());
        [3, 2, 1].into_iter().for_each(|n| sender.send(n).unwrap());
        assert_eq!(poll(&mut future, Waker::noop()), Poll::Ready(Ok(1)), "it ran first");
        assert_eq!(wait_for_deferred(fires).unwrap(), 3);
        let fires = receiver.recv_deferred();
        sender.send(4).unwrap();
        drop(sender);
        assert_eq!(blocks.join().unwrap(), [2, 4], "it had come again before");
        assert!(wait_for_deferred(fires).unwrap_err().is::<RecvError>());
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(receiver.recv_timeout(SECOND), Err(RecvTimeoutError::Disconnected));
        assert!(wait_for_deferred(receiver.recv_deferred()).unwrap_err().is::<RecvError>());
    });
}

/// Q1, for values and for room.
#[test]
fn what_was_granted_to_one_that_dies_goes_to_the_next() {
    testing::run(|| {
        let (sender, receiver) = channel(1);
        let mut dies = receiver.recv_async();
        assert!(poll(&mut dies, Waker::noop()).is_pending());
        let cancelled = receiver.recv_deferred();
        let theirs = receiver.clone();
        let killed = spawn(move || theirs.recv());
        yield_now();
        let last = receiver.recv_deferred();
        killed.kill();
        sender.send(1).unwrap();
        drop(dies);
        cancelled.cancel();
        assert_eq!(wait_for_deferred(last).unwrap(), 1);
        assert!(killed.join().unwrap_err().is_killed());
        assert!(wait_for_deferred(cancelled).unwrap_err().is_cancelled());

        sender.send(1).unwrap();
        let mut dies = sender.send_async(2);
        assert!(poll(&mut dies, Waker::noop()).is_pending());
        let last = sender.send_deferred(3);
        assert_eq!(receiver.recv(), Ok(1));
        drop(dies);
        assert_eq!(wait_for_deferred(last).unwrap(), Ok(()));
        assert_eq!(receiver.recv(), Ok(3));
        assert_eq!(format!("{receiver:?}"), "Receiver { values: 0, .. }");
    });
}

#[test]
fn an_order_that_parks_panics_rather_than_hold_the_channel() {
    #[derive(Debug)]
    struct Parks;
    impl Ord for Parks {
        fn cmp(&self, _: &Parks) -> std::cmp::Ordering {
            yield_now();
            std::cmp::Ordering::Equal
        }
    }
    impl PartialOrd for Parks {
        fn partial_cmp(&self, other: &Parks) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    impl PartialEq for Parks {
        fn eq(&self, _: &Parks) -> bool {
            true
        }
    }
    impl Eq for Parks {}
    run(|| {
        let (sender, receiver) = unbounded();
        sender.send(Parks).unwrap();
        let sent = panic::catch_unwind(AssertUnwindSafe(|| sender.send(Parks)));
        assert!(sent.is_err());
        assert!(receiver.try_recv().is_ok(), "the channel can be used");
    });
}

#[test]
fn an_order_that_panics_leaves_neither_too_many_permits_nor_too_few() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    #[derive(Debug, PartialEq, Eq)]
    struct Panics;
    impl Ord for Panics {
        fn cmp(&self, _: &Panics) -> std::cmp::Ordering {
            assert!(!PANICS.load(Relaxed), "no order");
            std::cmp::Ordering::Equal
        }
    }
    impl PartialOrd for Panics {
        fn partial_cmp(&self, other: &Panics) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    fn panics<T>(f: impl FnOnce() -> T) {
        PANICS.store(true, Relaxed);
        assert!(panic::catch_unwind(AssertUnwindSafe(f)).is_err());
        PANICS.store(false, Relaxed);
    }
    let (sender, receiver) = channel(3);
    for _round in 0..3 {
        sender.try_send(Panics).unwrap();
        sender.try_send(Panics).unwrap();
        panics(|| sender.try_send(Panics));
        assert_eq!(sender.try_send(Panics), Err(TrySendError::Full(Panics)), "it is in there");
        panics(|| receiver.try_recv());
        assert_eq!(receiver.try_recv(), Ok(Panics));
        assert_eq!(receiver.try_recv(), Ok(Panics));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "one is lost");
    }
}

/// It would let others run, who want the lock that is held for the comparison.
#[test]
fn a_swallowed_kill_is_not_raised_again_in_an_order() {
    static SET: Event = Event::new();
    #[derive(Debug, PartialEq, Eq)]
    struct Looks;
    impl Ord for Looks {
        fn cmp(&self, _: &Looks) -> std::cmp::Ordering {
            SET.wait();
            std::cmp::Ordering::Equal
        }
    }
    impl PartialOrd for Looks {
        fn partial_cmp(&self, other: &Looks) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    assert_ends(|| {
        run(|| {
            SET.set();
            let (sender, receiver) = unbounded();
            sender.send(Looks).unwrap();
            let theirs = sender.clone();
            let dies = spawn(move || {
                assert!(panic::catch_unwind(|| sleep(3600 * SECOND)).is_err());
                theirs.try_send(Looks).unwrap();
                yield_now();
            });
            yield_now();
            dies.kill();
            yield_now();
            sender.try_send(Looks).unwrap();
            assert!(dies.join().unwrap_err().is_killed());
            drop(sender);
            assert_eq!(receiver.iter().count(), 3);
        });
    });
}

#[test]
fn slow_values_from_many_to_many_come_out_once_each() {
    const VALUES: usize = 300;
    for bound in [1, 7, usize::MAX] {
        assert_ends(move || {
            let (sender, receiver) = channel(bound);
            let mut all = thread::scope(|threads| {
                let sends = sender.clone();
                threads.spawn(move || (0..VALUES).for_each(|n| sends.send(n).unwrap()));
                let sends = sender.clone();
                threads.spawn(move || {
                    block_on(async {
                        for n in VALUES..2 * VALUES {
                            sends.send_async(n).await.unwrap();
                        }
                    });
                });
                threads.spawn(move || {
                    run(|| {
                        for n in 2 * VALUES..3 * VALUES {
                            wait_for_deferred(sender.send_deferred(n)).unwrap().unwrap();
                        }
                    });
                });
                let receives = receiver.clone();
                let first = threads.spawn(move || receives.iter().collect::<Vec<_>>());
                let second = threads.spawn(move || {
                    run(|| {
                        let mut got = Vec::new();
                        for turn in 0.. {
                            match turn % 3 {
                                0 => match receiver.recv() {
                                    Ok(value) => got.push(value),
                                    Err(RecvError) => break,
                                },
                                1 => {
                                    let deferred = receiver.recv_deferred();
                                    yield_now();
                                    deferred.cancel();
                                    got.extend(wait_for_deferred(deferred));
                                }
                                _ => {
                                    let mut future = receiver.recv_async();
                                    if let Poll::Ready(value) = poll(&mut future, Waker::noop()) {
                                        got.extend(value);
                                    }
                                }
                            }
                        }
                        got
                    })
                });
                let mut all = first.join().unwrap();
                all.extend(second.join().unwrap());
                all
            });
            all.sort_unstable();
            assert_eq!(all, (0..3 * VALUES).collect::<Vec<_>>());
        });
    }
}

#[test]
#[should_panic(expected = "no room for any value")]
fn a_priority_channel_without_room_is_refused() {
    drop(channel::<u8>(0));
}
