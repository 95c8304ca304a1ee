//! Broadcasts and watched values: who gets what, in three styles, and what the slow and the dead
//! miss.

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        mpsc::{RecvError as Ended, RecvTimeoutError, SendError},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use crate::support::{Trace, assert_ends, block_on, poll};
use greenloop::{
    reactor, run, sleep, spawn,
    sync::{
        broadcast::{self, RecvError, TryRecvError},
        watch,
    },
    testing, timeout, wait_for_deferred, wait_for_future, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

// ---- broadcast --------------------------------------------------------------------------------

#[test]
fn every_receiver_gets_every_value_from_when_it_was_made_until_the_end() {
    run(|| {
        let (sender, mut first) = broadcast::channel(4);
        assert_eq!(sender.send(1), Ok(1));
        let mut second = sender.subscribe();
        assert_eq!(sender.send(2), Ok(2));
        let mut third = second.resubscribe();
        assert_eq!(sender.receiver_count(), 3);
        assert_eq!(
            format!("{sender:?} {first:?}"),
            "Sender { values: 2, receivers: 3 } Receiver { behind: 2 }"
        );
        drop(sender);
        assert_eq!((first.recv(), first.recv()), (Ok(1), Ok(2)));
        assert_eq!(first.recv(), Err(RecvError::Closed));
        assert_eq!((second.try_recv(), second.try_recv()), (Ok(2), Err(TryRecvError::Closed)));
        assert_eq!(third.recv(), Err(RecvError::Closed));
    });
}

#[test]
fn one_that_lags_is_told_once_how_many_it_missed_and_goes_on_with_the_oldest() {
    run(|| {
        let (sender, mut slow) = broadcast::channel(3);
        let mut fast = sender.subscribe();
        for n in 0..5 {
            sender.send(n).unwrap();
            assert_eq!(fast.try_recv(), Ok(n));
        }
        assert_eq!(slow.recv(), Err(RecvError::Lagged(2)));
        let rest: Vec<_> = std::iter::from_fn(|| slow.try_recv().ok()).collect();
        assert_eq!(rest, [2, 3, 4]);
        assert_eq!(slow.try_recv(), Err(TryRecvError::Empty));
        (5..9).for_each(|n| assert_eq!(sender.send(n), Ok(2)));
        assert_eq!(slow.try_recv(), Err(TryRecvError::Lagged(1)));
        assert_eq!(slow.recv(), Ok(6));
        assert_eq!(fast.recv(), Err(RecvError::Lagged(1)));
    });
}

#[test]
fn a_value_is_kept_until_all_have_it_and_the_last_one_gets_it_itself() {
    run(|| {
        let (sender, mut first) = broadcast::channel(8);
        let (mut second, third) = (sender.subscribe(), sender.subscribe());
        let value = Rc::new(());
        sender.send(Rc::clone(&value)).unwrap();
        sender.send(Rc::clone(&value)).unwrap();
        assert_eq!(Rc::strong_count(&value), 3);
        let _mine = first.recv().unwrap();
        assert_eq!(Rc::strong_count(&value), 4, "a copy");
        drop(third);
        let _its = second.recv().unwrap();
        assert_eq!(Rc::strong_count(&value), 4, "the value itself");
        drop(first);
        assert_eq!(Rc::strong_count(&value), 4);
        drop(second);
        assert_eq!(Rc::strong_count(&value), 3, "nobody is to get the other one");
        assert_eq!(sender.send(Rc::clone(&value)), Err(SendError(value)));
    });
}

#[test]
fn a_value_is_cloned_for_all_but_the_last_to_get_it() {
    #[derive(Debug)]
    struct Counted(Rc<Cell<usize>>);
    impl Clone for Counted {
        fn clone(&self) -> Counted {
            self.0.set(self.0.get() + 1);
            Counted(Rc::clone(&self.0))
        }
    }
    let clones = Rc::new(Cell::new(0));
    let (sender, mut first) = broadcast::channel(1);
    let mut receivers = [sender.subscribe(), sender.subscribe()];
    sender.send(Counted(Rc::clone(&clones))).unwrap();
    receivers.iter_mut().for_each(|receiver| assert!(receiver.try_recv().is_ok()));
    assert_eq!(clones.get(), 2);
    assert!(first.try_recv().is_ok());
    assert_eq!(clones.get(), 2);
}

#[test]
fn receivers_in_every_style_wait_and_are_told_in_the_order_of_their_coming() {
    let trace = Trace::default();
    testing::run(|| {
        let (sender, mut first) = broadcast::channel(2);
        let (second, mut third) = (sender.subscribe(), sender.subscribe());
        let noted = trace.clone();
        let blocks = spawn(move || noted.add(format_args!("first: {:?}", first.recv())));
        yield_now();
        let noted = trace.clone();
        let fires = second.recv_deferred().and_then(move |(got, second)| {
            noted.add(format_args!("second: {got:?}"));
            second.recv_deferred()
        });
        let noted = trace.clone();
        let awaits = spawn(move || {
            let got = wait_for_future(third.recv_async());
            noted.add(format_args!("third: {got:?}"));
            third
        });
        yield_now();
        sender.send('a').unwrap();
        blocks.join().unwrap();
        let mut third = awaits.join().unwrap();
        assert_eq!(trace.taken(), ["first: Ok('a')", "second: Ok('a')", "third: Ok('a')"]);
        assert_eq!(third.recv_timeout(SECOND), Err(TryRecvError::Empty));
        drop(sender);
        assert_eq!(wait_for_deferred(fires).unwrap().0, Err(RecvError::Closed));
        assert_eq!(third.recv_timeout(SECOND), Err(TryRecvError::Closed));
    });
}

/// What it was told of is still there for it, or for nobody.
#[test]
fn a_receive_that_dies_has_received_nothing() {
    testing::run(|| {
        let (sender, receiver) = broadcast::channel(4);
        let receiver = Rc::new(std::cell::RefCell::new(receiver));
        let theirs = Rc::clone(&receiver);
        let killed = spawn(move || theirs.borrow_mut().recv());
        yield_now();
        killed.kill();
        sender.send(1).unwrap();
        let _ = killed.join();
        let mut receiver = Rc::into_inner(receiver).unwrap().into_inner();
        // A wake that was given may win: then the killed one has got it.
        let left = receiver.try_recv();
        assert!(matches!(left, Ok(1) | Err(TryRecvError::Empty)), "{left:?}");

        let mut dies = receiver.recv_async();
        assert!(poll(&mut dies, Waker::noop()).is_pending());
        sender.send(2).unwrap();
        drop(dies);
        assert_eq!(receiver.recv(), Ok(2));
        assert!(timeout(SECOND, || receiver.recv()).is_err());
        sender.send(3).unwrap();
        assert_eq!(receiver.recv(), Ok(3));

        let cancelled = receiver.recv_deferred();
        cancelled.cancel();
        assert!(wait_for_deferred(cancelled).unwrap_err().is_cancelled());
        assert_eq!(sender.receiver_count(), 0, "it was the Deferred's");
    });
}

#[test]
fn slow_hubs_threads_and_another_executor_hear_the_same() {
    const VALUES: usize = 500;
    assert_ends(|| {
        let (sender, first) = broadcast::channel::<usize>(VALUES);
        let hears = |mut next: Box<dyn FnMut() -> Result<usize, RecvError> + '_>| {
            let heard: Vec<_> = std::iter::from_fn(|| next().ok()).collect();
            assert_eq!(heard, (0..VALUES).collect::<Vec<_>>());
        };
        thread::scope(|threads| {
            let mut receiver = first;
            threads.spawn(move || hears(Box::new(|| receiver.recv())));
            let mut receiver = sender.subscribe();
            threads.spawn(move || hears(Box::new(|| block_on(receiver.recv_async()))));
            let receiver = sender.subscribe();
            threads.spawn(move || {
                run(|| {
                    let mut kept = Some(receiver);
                    hears(Box::new(|| {
                        let receiver = kept.take().unwrap();
                        let (got, receiver) = wait_for_deferred(receiver.recv_deferred()).unwrap();
                        kept = Some(receiver);
                        got
                    }));
                });
            });
            let mut receiver = sender.subscribe();
            threads.spawn(move || run(|| hears(Box::new(|| receiver.recv()))));
            for n in 0..VALUES {
                assert_eq!(sender.send(n), Ok(4));
            }
            drop(sender);
        });
    });
}

#[test]
#[should_panic(expected = "no room for any value")]
fn a_broadcast_without_room_is_refused() {
    drop(broadcast::channel::<u8>(0));
}

// ---- watch ------------------------------------------------------------------------------------

#[test]
fn a_watched_value_is_looked_at_without_waiting_and_a_change_is_told_once() {
    run(|| {
        let (sender, receiver) = watch::channel(1);
        assert_eq!((*receiver.borrow(), receiver.has_changed()), (1, Ok(false)));
        sender.send(2).unwrap();
        sender.send(3).unwrap();
        let copy = receiver.clone();
        assert_eq!((*receiver.borrow(), receiver.has_changed()), (3, Ok(true)));
        receiver.changed().unwrap();
        assert_eq!(receiver.has_changed(), Ok(false), "two values are one change");
        assert_eq!(copy.has_changed(), Ok(true), "each remembers for itself");
        assert_eq!(*copy.borrow_and_update(), 3);
        assert_eq!(copy.has_changed(), Ok(false));
        assert_eq!(sender.subscribe().has_changed(), Ok(false));
        let held = receiver.borrow();
        sender.send(4).unwrap();
        assert_eq!((*held, *sender.borrow()), (3, 4), "who looks holds up nobody");
        drop(sender);
        assert_eq!(receiver.changed(), Ok(()), "the last value was not seen");
        assert_eq!(receiver.changed(), Err(Ended));
        assert_eq!(receiver.has_changed(), Err(Ended));
        assert_eq!(receiver.wait_for(|n| *n == 4).as_deref(), Ok(&4));
        assert_eq!(receiver.wait_for(|n| *n == 5), Err(Ended));
    });
}

#[test]
fn all_who_watch_are_told_in_every_style_and_of_the_end_too() {
    for sends in [true, false] {
        testing::run(|| {
            let (sender, receiver) = watch::channel(0);
            let theirs = receiver.clone();
            let blocks = spawn(move || theirs.changed());
            let deferred = receiver.changed_deferred();
            let mut future = receiver.changed_async();
            assert!(poll(&mut future, Waker::noop()).is_pending());
            yield_now();
            assert_eq!(receiver.changed_timeout(SECOND), Err(RecvTimeoutError::Timeout));
            assert!(timeout(SECOND, || receiver.changed()).is_err());
            if sends {
                sender.send(1).unwrap();
            } else {
                drop(sender);
            }
            let expected = if sends { Ok(()) } else { Err(Ended) };
            assert_eq!(blocks.join().unwrap(), expected);
            assert_eq!(poll(&mut future, Waker::noop()), Poll::Ready(expected));
            assert_eq!(wait_for_deferred(deferred).is_ok(), sends);
        });
    }
}

#[test]
fn a_modification_counts_only_if_it_says_so_and_is_made_anew_if_another_came_between() {
    run(|| {
        let (sender, receiver) = watch::channel(vec![1]);
        assert!(!sender.send_if_modified(|value| {
            value.push(9);
            false
        }));
        assert_eq!((*receiver.borrow()).len(), 1);
        assert_eq!(receiver.has_changed(), Ok(false));
        let calls = Cell::new(0);
        sender.send_modify(|value| {
            calls.set(calls.get() + 1);
            if calls.get() == 1 {
                sender.send(vec![7, 8]).unwrap();
            }
            value.push(2);
        });
        assert_eq!((calls.get(), &*receiver.borrow()), (2, &vec![7, 8, 2]));
        assert_eq!(*sender.send_replace(vec![]), [7, 8, 2]);
        assert_eq!(sender.receiver_count(), 1);
        receiver.borrow_and_update();
        let waits = receiver.changed_deferred();
        drop(receiver);
        assert_eq!(sender.receiver_count(), 1, "the Deferred is the receiver");
        waits.cancel();
        assert!(wait_for_deferred(waits).unwrap_err().is_cancelled());
        assert_eq!(sender.receiver_count(), 0);
        assert_eq!(sender.send(vec![3]), Err(SendError(vec![3])));
        assert!(sender.borrow().is_empty());
        sender.send_modify(|value| value.push(4));
        assert_eq!(*sender.borrow(), [4]);
    });
}

#[test]
fn a_condition_is_waited_for_on_the_newest_values_and_may_block() {
    testing::run(|| {
        let (sender, receiver) = watch::channel(0);
        let looks = receiver.clone();
        let before = reactor().now();
        let waits = spawn(move || {
            *looks
                .wait_for(|n| {
                    sleep(SECOND);
                    *n >= 3
                })
                .unwrap()
        });
        let awaits = spawn(move || {
            wait_for_future(async { *receiver.wait_for_async(|n| *n == 2).await.unwrap() })
        });
        for n in 1..=3 {
            sleep(SECOND / 4);
            sender.send(n).unwrap();
        }
        assert_eq!(waits.join().unwrap(), 3);
        assert_eq!(reactor().now().duration_since(before), 2 * SECOND, "0 and 3 were looked at");
        assert_eq!(awaits.join().unwrap(), 2);
    });
}

#[test]
fn slow_watchers_on_hubs_and_threads_all_see_the_last_value_of_many() {
    const WRITES: usize = 300;
    assert_ends(|| {
        let (sender, receiver) = watch::channel(0);
        let last = move |n: &usize| *n == 3 * WRITES;
        let sender = Arc::new(sender);
        thread::scope(|threads| {
            for _ in 0..2 {
                let receiver = receiver.clone();
                threads.spawn(move || receiver.wait_for(last).unwrap());
                let receiver = sender.subscribe();
                threads.spawn(move || block_on(receiver.wait_for_async(last)).unwrap());
            }
            for _ in 0..3 {
                let (receiver, sender) = (receiver.clone(), Arc::clone(&sender));
                threads.spawn(move || {
                    run(|| {
                        let waits = spawn(move || *receiver.wait_for(last).unwrap());
                        for _ in 0..WRITES {
                            sender.send_modify(|n| *n += 1);
                            yield_now();
                        }
                        assert_eq!(waits.join().unwrap(), 3 * WRITES);
                    });
                });
            }
        });
        assert_eq!(*sender.borrow(), 3 * WRITES);
    });
}
