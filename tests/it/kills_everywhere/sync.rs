//! The newer primitives of `sync` under the kill harness: locks to read, meeting points, values for
//! many, values in order.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, PoisonError},
};

use greenloop::{
    sleep, spawn,
    sync::{
        Barrier, Condvar, Mutex, OwnedRwLockWriteGuard, RwLock, RwLockWriteGuard, WaitGroup,
        broadcast, priority, watch,
    },
    testing::Case,
    wait_for_deferred, wait_for_future, yield_now,
};

use super::{SECOND, everywhere};

/// Nobody is beside a writer, whoever dies; and nobody has the lock afterwards.
#[test]
fn reading_and_writing_under_a_lock_in_three_styles() {
    let suspensions = everywhere(|case| {
        let lock = Arc::new(RwLock::new(0));
        let held = lock.write().unwrap();
        let shared = Arc::clone(&lock);
        let target = case.target(move || {
            // It counts up what it writes, and down again: it is 0 for whoever reads.
            let write = |number: &mut i32| {
                *number += 1;
                sleep(SECOND);
                *number -= 1;
            };
            let read = |number: &i32| {
                assert_eq!(*number, 0);
                sleep(SECOND);
                assert_eq!(*number, 0);
            };
            read(&shared.read().unwrap());
            read(&wait_for_deferred(shared.read_deferred()).unwrap().unwrap());
            read(&wait_for_future(shared.read_async()).unwrap());
            let mut guard = shared.write().unwrap();
            write(&mut guard);
            read(&RwLockWriteGuard::downgrade(guard));
            let mut owned = wait_for_deferred(shared.write_deferred()).unwrap().unwrap();
            write(&mut owned);
            read(&OwnedRwLockWriteGuard::downgrade(owned));
            write(&mut wait_for_future(shared.write_async()).unwrap());
        });
        let rivals = [false, true].map(|writes| {
            let lock = Arc::clone(&lock);
            spawn(move || {
                for _ in 0..6 {
                    if writes {
                        // What the target left in it is its own affair.
                        *lock.write().unwrap_or_else(PoisonError::into_inner) = 0;
                    } else {
                        drop(lock.read());
                    }
                    sleep(SECOND / 3);
                }
            })
        });
        yield_now();
        drop(held);
        let ended = target.join();
        rivals.into_iter().for_each(|rival| rival.join().unwrap());
        assert!(ended.is_none() || !lock.is_poisoned());
        lock.clear_poison();
        assert!(lock.try_write().is_ok(), "nobody holds it");
    });
    assert!(suspensions >= 10, "{suspensions}");
}

/// Whoever dies in front of a barrier counts no more: another one takes its place, and each round
/// has three of them, and one leader.
#[test]
fn meeting_at_a_barrier_in_three_styles() {
    const ROUNDS: u32 = 3;
    let suspensions = everywhere(|case| {
        let barrier = Arc::new(Barrier::new(3));
        let leaders = Rc::new(Cell::new(0));
        let (shared, led) = (Arc::clone(&barrier), Rc::clone(&leaders));
        let count = |led: &Cell<u32>, is_leader| led.set(led.get() + u32::from(is_leader));
        let target = case.target(move || {
            count(&led, shared.wait().is_leader());
            count(&led, wait_for_deferred(shared.wait_deferred()).unwrap().is_leader());
            count(&led, wait_for_future(shared.wait_async()).is_leader());
        });
        let others = [1, 2].map(|place| {
            let (barrier, led) = (Arc::clone(&barrier), Rc::clone(&leaders));
            spawn(move || {
                for _ in 0..ROUNDS {
                    sleep(SECOND * place);
                    count(&led, barrier.wait().is_leader());
                }
            })
        });
        let lived = target.join().is_some();
        while !others.iter().all(|other| other.is_finished()) {
            if let Some(result) = barrier.wait_timeout(SECOND) {
                count(&leaders, result.is_leader());
            }
        }
        // A leader that died on its way tells nobody.
        let led = leaders.get();
        assert!(led == ROUNDS || (!lived && led == ROUNDS - 1), "{led}");
        let two = [(); 2].map(|()| {
            let barrier = Arc::clone(&barrier);
            spawn(move || barrier.wait_timeout(SECOND).is_some())
        });
        assert_eq!(two.map(|one| one.join().unwrap()), [false; 2], "somebody is counted still");
    });
    assert!(suspensions >= 3, "{suspensions}");
}

#[test]
fn waiting_for_work_to_be_done_in_three_styles() {
    let suspensions = everywhere(|case| {
        let group = Rc::new(WaitGroup::new());
        let (own, theirs) = (group.add(), Rc::clone(&group));
        let done = Rc::new(Cell::new(0));
        let seen = Rc::clone(&done);
        let work = [1, 2, 3].map(|number| {
            let (work, done) = (Rc::new(WaitGroup::new()), Rc::clone(&done));
            let one = work.add();
            spawn(move || {
                sleep(SECOND * number);
                done.set(done.get() + 1);
                drop(one);
            });
            work
        });
        let target = case.target(move || {
            let _own = own;
            work[0].wait();
            assert!(seen.get() >= 1);
            wait_for_deferred(work[1].wait_deferred()).unwrap();
            assert!(seen.get() >= 2);
            wait_for_future(work[2].wait_async());
            assert!(seen.get() >= 3);
            assert!(!theirs.wait_timeout(SECOND), "it waits for itself");
        });
        group.wait(); // whatever becomes of the target
        assert_eq!(group.left(), 0);
        let lived = target.join().is_some();
        assert!(!lived || done.get() == 3);
        sleep(3 * SECOND);
    });
    assert_eq!(suspensions, 4);
}

/// A receiver that is cut short has received nothing: whoever goes on with it gets it.
#[test]
fn receiving_what_is_broadcast() {
    const ITEMS: u32 = 6;
    let suspensions = everywhere(|case| {
        let (sender, receiver) = broadcast::channel(ITEMS as usize);
        let receiver = Rc::new(RefCell::new(receiver));
        let got = Rc::new(RefCell::new(Vec::new()));
        let (taken, sink) = (Rc::clone(&receiver), Rc::clone(&got));
        let target = case.target(move || {
            for _ in 0..ITEMS / 3 {
                let item = taken.borrow_mut().recv().unwrap();
                sink.borrow_mut().push(item);
                let item = wait_for_future(taken.borrow_mut().recv_async()).unwrap();
                sink.borrow_mut().push(item);
                if let Ok(item) = taken.borrow_mut().recv_timeout(SECOND / 2) {
                    sink.borrow_mut().push(item);
                }
            }
        });
        let feeder = spawn(move || {
            for item in 0..ITEMS {
                assert!(sender.send(item).is_ok());
                sleep(SECOND / 3 * (item % 3));
            }
        });
        target.join();
        while let Ok(item) = receiver.borrow_mut().recv() {
            got.borrow_mut().push(item);
        }
        feeder.join().unwrap();
        assert_eq!(*got.borrow(), Vec::from_iter(0..ITEMS), "all of them, in their order");
    });
    assert!(suspensions >= 4, "{suspensions}");
}

/// What a Deferred waits with goes with it: no value is kept for a receiver that has gone.
#[test]
fn receiving_what_is_broadcast_by_deferreds() {
    everywhere(|case| {
        let (sender, receiver) = broadcast::channel(2);
        let alive = Rc::new(());
        let target = case.target(move || {
            let (first, receiver) = wait_for_deferred(receiver.recv_deferred()).unwrap();
            let (second, _receiver) = wait_for_deferred(receiver.recv_deferred()).unwrap();
            (first.unwrap(), second.unwrap())
        });
        yield_now();
        let _ = sender.send(Rc::clone(&alive)); // nobody is there, once the target has died
        sleep(SECOND);
        let _ = sender.send(Rc::clone(&alive));
        drop(target.join());
        sleep(SECOND);
        assert_eq!(sender.receiver_count(), 0);
        assert_eq!(Rc::strong_count(&alive), 1, "a value is kept for nobody");
    });
}

/// A change that a receiver did not hear of is one for whoever goes on with it.
#[test]
fn watching_a_value() {
    const LAST: u32 = 5;
    let suspensions = everywhere(|case| {
        let (sender, receiver) = watch::channel(0);
        let receiver = Rc::new(receiver);
        let newest = Rc::new(Cell::new(0));
        let (watcher, seen) = (Rc::clone(&receiver), Rc::clone(&newest));
        let note = |seen: &Cell<u32>, value: u32| {
            assert!(value >= seen.get(), "it went back to {value} from {}", seen.get());
            seen.set(value);
        };
        let target = case.target(move || {
            watcher.changed().unwrap();
            note(&seen, *watcher.borrow());
            wait_for_future(watcher.changed_async()).unwrap();
            note(&seen, *watcher.borrow());
            note(&seen, *watcher.wait_for(|value| *value > 3).unwrap());
            note(&seen, *wait_for_future(watcher.wait_for_async(|value| *value == LAST)).unwrap());
        });
        let feeder = spawn(move || {
            for value in 1..=LAST {
                sleep(SECOND);
                sender.send(value).unwrap();
                yield_now();
            }
        });
        target.join();
        while receiver.changed().is_ok() {
            note(&newest, *receiver.borrow());
        }
        feeder.join().unwrap();
        assert_eq!(newest.get(), LAST);
    });
    assert!(suspensions >= 4, "{suspensions}");
}

#[test]
fn watching_a_value_by_deferreds() {
    everywhere(|case| {
        let (sender, receiver) = watch::channel(0);
        let target = case.target(move || {
            for value in 1..=2 {
                wait_for_deferred(receiver.changed_deferred()).unwrap();
                assert_eq!(*receiver.borrow(), value);
            }
        });
        for value in 1..=2 {
            sleep(SECOND);
            let _ = sender.send(value); // nobody is there, once the target has died
        }
        target.join();
        sleep(SECOND);
        assert_eq!(sender.receiver_count(), 0);
    });
}

/// What was sent is received once, or still there: whichever end is cut short.
#[test]
fn sending_and_receiving_in_order_of_value() {
    const ITEMS: u32 = 6;
    for bound in [1, 3, usize::MAX] {
        let receiving = everywhere(|case| {
            let (sender, receiver) = priority::channel(bound);
            let got = Rc::new(RefCell::new(Vec::new()));
            let (taken, sink) = (receiver.clone(), Rc::clone(&got));
            let target = case.target(move || {
                while let Ok(item) = taken.recv() {
                    sink.borrow_mut().push(item);
                    let Ok(item) = wait_for_future(taken.recv_async()) else { return };
                    sink.borrow_mut().push(item);
                }
            });
            let feeder = spawn(move || {
                for item in 0..ITEMS {
                    sender.send((item + 3) % ITEMS).unwrap();
                    yield_now();
                }
            });
            target.join();
            got.borrow_mut().extend(receiver.iter());
            feeder.join().unwrap();
            let mut got = got.take();
            got.sort_unstable();
            assert_eq!(got, Vec::from_iter(0..ITEMS), "each of them once");
        });
        assert!(receiving >= 3, "{bound}: {receiving}");
        if bound == usize::MAX {
            continue; // Sending never waits.
        }
        let sending = everywhere(|case| {
            let (sender, receiver) = priority::channel(bound);
            let sent = Rc::new(Cell::new(0));
            let count = Rc::clone(&sent);
            let target = case.target(move || {
                for item in 0..ITEMS {
                    match item % 3 {
                        0 => sender.send(item).unwrap(),
                        1 => wait_for_future(sender.send_async(item)).unwrap(),
                        _ => wait_for_deferred(sender.send_deferred(item)).unwrap().unwrap(),
                    }
                    count.set(item + 1);
                }
            });
            let mut got = Vec::new();
            while let Ok(item) = receiver.recv() {
                got.push(item);
                yield_now();
            }
            target.join();
            got.sort_unstable();
            let sure = got.len() as u32;
            assert_eq!(got, Vec::from_iter(0..sure), "a prefix");
            // What was put in while its sender died has arrived, and nobody told it.
            assert!(sure == sent.get() || sure == sent.get() + 1, "{sure} {}", sent.get());
        });
        assert!(sending >= 1, "{bound}: {sending}");
    }
}

#[test]
fn receiving_in_order_of_value_by_deferreds() {
    everywhere(|case| {
        let (sender, receiver) = priority::channel(2);
        let taken = receiver.clone();
        let target = case.target(move || {
            let first = wait_for_deferred(taken.recv_deferred()).unwrap();
            let second = wait_for_deferred(taken.recv_deferred()).unwrap();
            (first, second)
        });
        yield_now();
        sender.send(1).unwrap();
        sleep(SECOND);
        sender.send(2).unwrap();
        drop(sender);
        let ended = target.join();
        let left: Vec<u32> = receiver.iter().collect();
        match ended {
            Some(both) => assert_eq!((both, left.len()), ((1, 2), 0)),
            // It may have died of what had arrived, but of no more than that.
            None => assert!(left == [1, 2] || left == [2] || left.is_empty(), "{left:?}"),
        }
    });
}

/// A notification of a waiter that dies goes to the next one, in whatever style they wait.
#[test]
fn waiting_for_a_condition_by_deferreds_and_futures() {
    /// Waits once, as the number says, and then takes one, if there is one.
    fn take(style: u32, shared: &(Arc<Mutex<u32>>, Arc<Condvar>)) -> u32 {
        let (mutex, condvar) = shared;
        let is_empty = |items: &mut u32| *items == 0;
        if style == 0 {
            let items = mutex.lock().unwrap_or_else(PoisonError::into_inner);
            let items = condvar.wait_while(items, is_empty);
            *items.unwrap_or_else(PoisonError::into_inner) -= 1;
        } else if style == 1 {
            let items = wait_for_deferred(mutex.lock_deferred()).unwrap();
            let mut items = items.unwrap_or_else(PoisonError::into_inner);
            while *items == 0 {
                let notified = wait_for_deferred(condvar.wait_deferred(items)).unwrap();
                items = notified.unwrap_or_else(PoisonError::into_inner);
            }
            *items -= 1;
        } else {
            wait_for_future(async {
                let mut items = mutex.lock_async().await.unwrap_or_else(PoisonError::into_inner);
                while *items == 0 {
                    let notified = condvar.wait_async(items).await;
                    items = notified.unwrap_or_else(PoisonError::into_inner);
                }
                *items -= 1;
            });
        }
        1
    }
    for style in 0..3 {
        let scenario = |case: &Case| {
            let shared = (Arc::new(Mutex::new(0)), Arc::new(Condvar::new()));
            let theirs = shared.clone();
            let target = case.target(move || take(style, &theirs));
            let others = [0, 1, 2].map(|style| {
                let shared = shared.clone();
                spawn(move || take(style, &shared))
            });
            yield_now();
            for _ in 0..4 {
                *shared.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                shared.1.notify_one();
                yield_now();
            }
            let others: u32 = others.into_iter().map(|other| other.join().unwrap()).sum();
            let taken = target.join().unwrap_or(0) + others;
            let left = *shared.0.lock().unwrap_or_else(PoisonError::into_inner);
            assert_eq!(left, 4 - taken);
        };
        assert!(everywhere(scenario) >= 1);
    }
}
