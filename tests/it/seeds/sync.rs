//! What holds of the newer primitives in whatever order greenlets run, with kills between.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::{
        Arc, PoisonError, TryLockError,
        mpsc::{RecvTimeoutError, TryRecvError, TrySendError},
    },
};

use greenloop::{
    sleep, spawn,
    sync::{
        Barrier, Condvar, Mutex, RwLock, RwLockWriteGuard, WaitGroup, broadcast, priority, watch,
    },
    testing::{assert_nothing_left, seeds},
    wait_for_deferred, wait_for_future, yield_now,
};

use super::{Counted, SECOND, crowd, kill_some, orders, pause};

#[test]
fn many_read_or_one_writes_and_nobody_afterwards() {
    seeds(orders(), |random| {
        let lock = Arc::new(RwLock::new(()));
        let shared = Arc::clone(&lock);
        let (readers, writers) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let users = crowd(random, 6, move |_, random| {
            let read = || {
                let _one = Counted::new(&readers, 1);
                assert_eq!(writers.get(), 0, "somebody writes");
                pause(random);
            };
            let write = || {
                let _one = Counted::new(&writers, 1);
                assert_eq!((readers.get(), writers.get()), (0, 1), "it is not alone");
                pause(random);
            };
            for _ in 0..3 {
                match random.below(8) {
                    0 => {
                        let _held = shared.read();
                        read();
                    }
                    1 => {
                        let held = shared.write().unwrap_or_else(PoisonError::into_inner);
                        write();
                        let _held = RwLockWriteGuard::downgrade(held);
                        read();
                    }
                    2 => match shared.read_timeout(SECOND / 2) {
                        Err(TryLockError::WouldBlock) => {}
                        _held => read(),
                    },
                    3 => match shared.write_timeout(SECOND / 2) {
                        Err(TryLockError::WouldBlock) => {}
                        _held => write(),
                    },
                    4 => {
                        let _held = wait_for_deferred(shared.read_deferred()).unwrap();
                        read();
                    }
                    5 => {
                        let _held = wait_for_deferred(shared.write_deferred()).unwrap();
                        write();
                    }
                    6 => {
                        let _held = wait_for_future(shared.read_async());
                        read();
                    }
                    _ => {
                        let _held = wait_for_future(shared.write_async());
                        write();
                    }
                }
            }
        });
        kill_some(random, users);
        assert_nothing_left();
        lock.clear_poison();
        assert!(lock.try_write().is_ok());
    });
}

/// Each round has three of those who came, one of them its leader. Whoever died counts no more,
/// unless the others had gone on with it.
#[test]
fn a_barrier_lets_three_go_on_at_once() {
    seeds(orders(), |random| {
        let barrier = Arc::new(Barrier::new(3));
        let came = Rc::new(Cell::new(0));
        let went = Rc::new(Cell::new(0));
        let led = Rc::new(Cell::new(0));
        let (shared, arrivals) = (Arc::clone(&barrier), Rc::clone(&came));
        let (departures, leaders) = (Rc::clone(&went), Rc::clone(&led));
        let pass = Rc::new(move |style: usize| {
            arrivals.set(arrivals.get() + 1);
            let result = match style {
                0 => shared.wait_timeout(SECOND),
                1 => Some(wait_for_deferred(shared.wait_deferred()).unwrap()),
                2 => Some(wait_for_future(shared.wait_async())),
                _ => Some(shared.wait()),
            };
            let Some(result) = result else { return };
            departures.set(departures.get() + 1);
            leaders.set(leaders.get() + u32::from(result.is_leader()));
            assert!(departures.get() <= arrivals.get() / 3 * 3, "it went on alone");
        });
        let theirs = Rc::clone(&pass);
        let users = crowd(random, 7, move |_, random| {
            pause(random);
            theirs(random.below(4));
        });
        // Those who are missing in the last round come late, and give up when nobody is there.
        let is_over = Rc::new(Cell::new(false));
        let extras = [(); 2].map(|()| {
            let (over, pass) = (Rc::clone(&is_over), Rc::clone(&pass));
            spawn(move || {
                while !over.get() {
                    pass(0);
                }
            })
        });
        let lived = kill_some(random, users).len();
        is_over.set(true);
        extras.into_iter().for_each(|extra| extra.join().unwrap());
        assert_nothing_left();
        let died = 7 - lived;
        let rounds = (went.get() + died).div_ceil(3);
        assert!(went.get() <= 3 * rounds && led.get() as usize <= rounds, "{went:?} {led:?}");
        assert!(led.get() as usize + died >= went.get() / 3, "{led:?} led {went:?}");
        let alone = [(); 2].map(|()| {
            let barrier = Arc::clone(&barrier);
            spawn(move || barrier.wait_timeout(SECOND).is_some())
        });
        assert_eq!(alone.map(|one| one.join().unwrap()), [false; 2], "somebody is counted still");
    });
}

#[test]
fn nobody_goes_on_before_the_work_is_done() {
    seeds(orders(), |random| {
        let group = Rc::new(WaitGroup::new());
        let shared = Rc::clone(&group);
        let workers = crowd(random, 4, move |_, random| {
            let _work = shared.add();
            pause(random);
            let _more = shared.add();
            pause(random);
        });
        let (theirs, left) = (Rc::clone(&group), group.add());
        let done = Rc::new(Cell::new(false));
        let seen = Rc::clone(&done);
        let waiters = crowd(random, 4, move |_, random| {
            pause(random);
            match random.below(4) {
                0 => theirs.wait(),
                1 => wait_for_deferred(theirs.wait_deferred()).unwrap(),
                2 => wait_for_future(theirs.wait_async()),
                _ => while !theirs.wait_timeout(SECOND / 3) {},
            }
            assert!(seen.get(), "too early");
        });
        kill_some(random, workers);
        done.set(true);
        assert_eq!(group.left(), 1, "what the dead had to do is done");
        drop(left);
        kill_some(random, waiters);
        assert_nothing_left();
    });
}

/// Each receiver gets all values in order, but for those that it is told it missed.
#[test]
fn what_is_broadcast_reaches_everybody_or_they_are_told() {
    seeds(orders(), |random| {
        let (sender, receiver) = broadcast::channel(3);
        let total = 8_u64;
        let mut receivers = vec![receiver];
        receivers.extend([(); 3].map(|()| sender.subscribe()));
        let receivers = RefCell::new(receivers);
        let listeners = crowd(random, 4, move |_, random| {
            let mut receiver = receivers.borrow_mut().pop().expect("there is one for each");
            let mut next = 0;
            loop {
                let received = match random.below(4) {
                    0 => receiver.recv(),
                    1 => match receiver.recv_timeout(SECOND / 3) {
                        Err(broadcast::TryRecvError::Empty) => continue,
                        Err(broadcast::TryRecvError::Lagged(missed)) => {
                            Err(broadcast::RecvError::Lagged(missed))
                        }
                        ended => ended.map_err(|_| broadcast::RecvError::Closed),
                    },
                    2 => {
                        let (received, back) = wait_for_deferred(receiver.recv_deferred()).unwrap();
                        receiver = back;
                        received
                    }
                    _ => wait_for_future(receiver.recv_async()),
                };
                match received {
                    Ok(value) => {
                        assert_eq!(value, next);
                        next += 1;
                    }
                    Err(broadcast::RecvError::Lagged(missed)) => next += missed,
                    Err(broadcast::RecvError::Closed) => break,
                }
                pause(random);
            }
            assert_eq!(next, total, "the end is missing");
        });
        pause(random);
        for value in 0..total {
            let _ = sender.send(value); // nobody may be left
            pause(random);
        }
        drop(sender);
        kill_some(random, listeners);
        assert_nothing_left();
    });
}

#[test]
fn whoever_watches_sees_the_last_value_and_none_twice() {
    seeds(orders(), |random| {
        let (sender, receiver) = watch::channel(0);
        let last = 6;
        let watchers = crowd(random, 4, move |_, random| {
            let receiver = receiver.clone();
            let mut seen = 0;
            loop {
                let changed = match random.below(4) {
                    0 => receiver.changed().is_ok(),
                    1 => match receiver.changed_timeout(SECOND / 3) {
                        Err(RecvTimeoutError::Timeout) => continue,
                        ended => ended.is_ok(),
                    },
                    2 => wait_for_deferred(receiver.changed_deferred()).is_ok(),
                    _ => wait_for_future(receiver.changed_async()).is_ok(),
                };
                if !changed {
                    return assert_eq!(seen, last, "the last one is missing");
                }
                let value = *receiver.borrow_and_update();
                assert!(value > seen, "{value} after {seen}");
                seen = value;
                pause(random);
            }
        });
        for value in 1..=last {
            pause(random);
            let _ = sender.send(value); // nobody may be left
        }
        drop(sender);
        kill_some(random, watchers);
        assert_nothing_left();
    });
}

/// Each value that a `send` accepted is received once, and what a sender died with at most once.
/// Who receives alone gets the least of what is there.
#[test]
fn values_in_order_are_neither_lost_nor_doubled() {
    for bound in [1, 3, usize::MAX] {
        seeds(orders(), |random| {
            let (sender, receiver) = priority::channel(bound);
            let sent = Rc::new(RefCell::new(Vec::new()));
            let got = Rc::new(RefCell::new(Vec::new()));
            let (accepted, sink, shared) = (Rc::clone(&sent), Rc::clone(&got), receiver.clone());
            let takers = crowd(random, 2, move |_, random| {
                loop {
                    let item = match random.below(4) {
                        0 => shared.recv().ok(),
                        1 => match shared.recv_timeout(SECOND / 3) {
                            Err(RecvTimeoutError::Timeout) => continue,
                            ended => ended.ok(),
                        },
                        2 => wait_for_future(shared.recv_async()).ok(),
                        _ => match shared.try_recv() {
                            Err(TryRecvError::Empty) => {
                                sleep(SECOND / 5);
                                continue;
                            }
                            ended => ended.ok(),
                        },
                    };
                    match item {
                        Some(item) => sink.borrow_mut().push(item),
                        None => return,
                    }
                    pause(random);
                }
            });
            let feeders = crowd(random, 3, move |place, random| {
                let sender = sender.clone();
                for number in 0..4 {
                    let item = (random.below(3), place, number);
                    let was_sent = match random.below(5) {
                        0 => sender.send(item).is_ok(),
                        1 => sender.send_timeout(item, SECOND / 3).is_ok(),
                        2 => wait_for_future(sender.send_async(item)).is_ok(),
                        3 => wait_for_deferred(sender.send_deferred(item)).unwrap().is_ok(),
                        _ => match sender.try_send(item) {
                            Ok(()) => true,
                            Err(TrySendError::Full(_)) => false,
                            Err(error) => panic!("{error}"),
                        },
                    };
                    if was_sent {
                        accepted.borrow_mut().push(item);
                    }
                    pause(random);
                }
            });
            kill_some(random, feeders);
            kill_some(random, takers);
            let rest = Vec::from_iter(receiver.iter());
            assert!(rest.is_sorted(), "{rest:?}");
            got.borrow_mut().extend(rest);
            assert_nothing_left();
            let (sent, got) = (sent.take(), got.take());
            let once: BTreeSet<_> = got.iter().copied().collect();
            assert_eq!(once.len(), got.len(), "doubled: {got:?}");
            assert!(sent.iter().all(|item| once.contains(item)), "lost: {sent:?} {got:?}");
        });
    }
}

/// As many are let through as were notified and lived, in whatever style they wait.
#[test]
fn a_notification_wakes_one_who_lives_in_any_style() {
    seeds(orders(), |random| {
        let shared = Rc::new((Arc::new(Mutex::new(0)), Arc::new(Condvar::new())));
        let used = Rc::clone(&shared);
        let waiters = crowd(random, 4, move |_, random| {
            let (mutex, condvar) = &*used;
            match random.below(3) {
                0 => {
                    let items = mutex.lock().unwrap_or_else(PoisonError::into_inner);
                    let items = condvar.wait_while(items, |items| *items == 0);
                    *items.unwrap_or_else(PoisonError::into_inner) -= 1;
                }
                1 => {
                    let items = wait_for_deferred(mutex.lock_deferred()).unwrap();
                    let mut items = items.unwrap_or_else(PoisonError::into_inner);
                    while *items == 0 {
                        let notified = wait_for_deferred(condvar.wait_deferred(items)).unwrap();
                        items = notified.unwrap_or_else(PoisonError::into_inner);
                    }
                    *items -= 1;
                }
                _ => wait_for_future(async {
                    let items = mutex.lock_async().await;
                    let mut items = items.unwrap_or_else(PoisonError::into_inner);
                    while *items == 0 {
                        let notified = condvar.wait_async(items).await;
                        items = notified.unwrap_or_else(PoisonError::into_inner);
                    }
                    *items -= 1;
                }),
            }
            pause(random);
        });
        let giver = Rc::clone(&shared);
        let giver = spawn(move || {
            for _ in 0..4 {
                *giver.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                giver.1.notify_one();
                yield_now();
            }
        });
        kill_some(random, waiters); // Nobody waits for ever: there are as many items as waiters.
        giver.join().unwrap();
        assert_nothing_left();
    });
}
