//! What std promises of its locks, conditions, cells and barriers, on virtual threads. Std's own
//! tests were the list of behaviours.

use std::{
    sync::{
        Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock, RwLockWriteGuard,
        TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread as os,
    time::{Duration, Instant},
};

use crate::sides::{fail, failed, with_others};

const MOMENT: Duration = Duration::from_millis(10);

/// Counts when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_mutex_excludes_all_others() {
    with_others(|others| {
        const TIMES: u32 = 200;
        let mutex = Arc::new(Mutex::new(0));
        let adds: Vec<_> = (0..4)
            .map(|_| {
                let mutex = Arc::clone(&mutex);
                others.spawn(move || {
                    for n in 0..TIMES {
                        let mut held = mutex.lock().unwrap();
                        let before = *held;
                        if n % 16 == 0 {
                            os::yield_now();
                        }
                        *held = before + 1;
                    }
                })
            })
            .collect();
        adds.into_iter().for_each(|add| add.value());
        assert_eq!(*mutex.lock().unwrap(), 4 * TIMES);
    });
}

#[test]
fn a_mutex_that_is_held_is_not_got_by_a_try() {
    with_others(|others| {
        let mutex = Arc::new(Mutex::new(1));
        let held = mutex.lock().unwrap();
        let other = Arc::clone(&mutex);
        let tries = others.spawn(move || matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        assert!(tries.value());
        drop(held);
        assert_eq!(*mutex.try_lock().unwrap(), 1);
    });
}

#[test]
fn a_panic_poisons_a_mutex_until_it_is_cleared() {
    with_others(|others| {
        let mutex = Arc::new(Mutex::new(1));
        let other = Arc::clone(&mutex);
        let panics = others.spawn(move || {
            let mut held = other.lock().unwrap();
            *held = 2;
            os::yield_now();
            fail();
        });
        // Whoever waits is told, too.
        let other = Arc::clone(&mutex);
        let waits = others.spawn(move || {
            while !other.is_poisoned() {
                os::yield_now();
            }
            other.lock().is_err()
        });
        assert!(panics.join().is_err());
        assert!(waits.value() && mutex.is_poisoned());
        assert_eq!(*mutex.lock().unwrap_err().into_inner(), 2);
        assert!(matches!(mutex.try_lock(), Err(TryLockError::Poisoned(_))));
        mutex.clear_poison();
        assert_eq!(*mutex.lock().unwrap(), 2);
        // A lock that is taken and let go of during an unwind is not poisoned by it.
        struct Locks(Arc<Mutex<u32>>);
        impl Drop for Locks {
            fn drop(&mut self) {
                assert!(os::panicking());
                os::yield_now();
                *self.0.lock().unwrap() += 1;
            }
        }
        let locks = Locks(Arc::clone(&mutex));
        let panics = others.spawn(move || {
            let _locks = locks;
            fail();
        });
        assert!(panics.join().is_err());
        assert_eq!(*mutex.lock().unwrap(), 3);
    });
}

#[test]
fn a_mutex_gives_its_value_up() {
    with_others(|others| {
        let count = Arc::new(AtomicUsize::new(0));
        let mutex = Mutex::new(Dropped(Arc::clone(&count)));
        let taken = mutex.into_inner().unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 0);
        drop(taken);
        assert_eq!(count.load(Ordering::SeqCst), 1);
        let mutex = Arc::new(Mutex::new(String::from("old")));
        let other = Arc::clone(&mutex);
        let panics = others.spawn(move || {
            let _held = other.lock().unwrap();
            fail();
        });
        assert!(panics.join().is_err());
        let mut mutex = Arc::into_inner(mutex).unwrap();
        assert_eq!(*mutex.get_mut().unwrap_err().into_inner(), "old");
        assert_eq!(mutex.into_inner().unwrap_err().into_inner(), "old");
    });
}

#[test]
fn locks_are_taken_inside_of_locks() {
    with_others(|others| {
        let inner = Arc::new(Mutex::new(1));
        let outer = Arc::new(Mutex::new(Arc::clone(&inner)));
        let other = Arc::clone(&outer);
        let adds = others.spawn(move || {
            let outer = other.lock().unwrap();
            os::yield_now();
            *outer.lock().unwrap() += 1;
        });
        os::yield_now();
        drop(outer.lock().unwrap());
        adds.value();
        assert_eq!(*inner.lock().unwrap(), 2);
    });
}

#[test]
fn one_who_is_notified_wakes_and_all_do() {
    with_others(|others| {
        type Shared = (Mutex<(usize, usize)>, Condvar);
        // How many wait, and how many may go.
        let shared: Arc<Shared> = Arc::default();
        let waits: Vec<_> = (0..6)
            .map(|_| {
                let shared = Arc::clone(&shared);
                others.spawn(move || {
                    let mut held = shared.0.lock().unwrap();
                    held.0 += 1;
                    while held.1 == 0 {
                        held = shared.1.wait(held).unwrap();
                    }
                    held.1 -= 1;
                    held.0 -= 1;
                })
            })
            .collect();
        let until = |waiting: usize| {
            while shared.0.lock().unwrap().0 != waiting {
                os::yield_now();
            }
        };
        until(6);
        for left in (4..6).rev() {
            shared.0.lock().unwrap().1 = 1;
            shared.1.notify_one();
            until(left);
        }
        shared.0.lock().unwrap().1 = 4;
        shared.1.notify_all();
        waits.into_iter().for_each(|wait| wait.value());
        // A notice that nobody waits for is nobody's.
        shared.1.notify_one();
        let held = shared.0.lock().unwrap();
        let (held, result) = shared.1.wait_timeout(held, MOMENT).unwrap();
        assert!(result.timed_out());
        assert_eq!(*held, (0, 0));
    });
}

#[test]
fn a_condition_is_waited_for_until_it_holds_or_time_is_over() {
    with_others(|others| {
        let shared = Arc::new((Mutex::new(0), Condvar::new()));
        let other = Arc::clone(&shared);
        let counts = others.spawn(move || {
            for _ in 0..5 {
                os::yield_now();
                *other.0.lock().unwrap() += 1;
                other.1.notify_all();
            }
        });
        let (mutex, changed) = &*shared;
        let held = changed.wait_while(mutex.lock().unwrap(), |count| *count < 2).unwrap();
        assert!(*held >= 2);
        let waited = changed.wait_timeout_while(held, Duration::MAX, |count| *count < 5).unwrap();
        assert_eq!((*waited.0, waited.1.timed_out()), (5, false));
        let begun = Instant::now();
        let waited = changed.wait_timeout_while(waited.0, MOMENT, |_| true).unwrap();
        assert!(waited.1.timed_out() && begun.elapsed() >= MOMENT);
        let waited = changed.wait_timeout_while(waited.0, Duration::ZERO, |_| false).unwrap();
        assert!(!waited.1.timed_out());
        drop(waited);
        counts.value();
    });
}

#[test]
fn whoever_waits_for_a_condition_is_told_of_poison() {
    with_others(|others| {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let other = Arc::clone(&shared);
        let held = shared.0.lock().unwrap();
        let panics = others.spawn(move || {
            let _held = other.0.lock().unwrap();
            other.1.notify_one();
            fail();
        });
        let poisoned = shared.1.wait_while(held, |is_over| !*is_over);
        assert!(!*poisoned.unwrap_err().into_inner());
        assert!(panics.join().is_err());
    });
}

#[test]
fn readers_share_a_lock_and_a_writer_has_it_alone() {
    with_others(|others| {
        let lock = Arc::new(RwLock::new(0));
        let inside = Arc::new(AtomicUsize::new(0));
        let writes: Vec<_> = (0..2)
            .map(|_| {
                let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
                others.spawn(move || {
                    for _ in 0..50 {
                        let mut held = lock.write().unwrap();
                        assert_eq!(inside.load(Ordering::SeqCst), 0);
                        let before = *held;
                        *held = -1;
                        os::yield_now();
                        *held = before + 1;
                    }
                })
            })
            .collect();
        let reads: Vec<_> = (0..4)
            .map(|_| {
                let (lock, inside) = (Arc::clone(&lock), Arc::clone(&inside));
                others.spawn(move || {
                    for _ in 0..50 {
                        let held = lock.read().unwrap();
                        inside.fetch_add(1, Ordering::SeqCst);
                        os::yield_now();
                        assert!(*held >= 0, "a writer is inside");
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        writes.into_iter().chain(reads).for_each(|thread| thread.value());
        assert_eq!(*lock.read().unwrap(), 100);
        // Two at once, and then a writer must wait.
        let both = (lock.read().unwrap(), lock.read().unwrap());
        let other = Arc::clone(&lock);
        let tries = others.spawn(move || (other.try_read().is_ok(), other.try_write().is_err()));
        assert_eq!(tries.value(), (true, true));
        drop(both);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn a_writer_becomes_a_reader_and_nobody_writes_between() {
    with_others(|others| {
        let lock = Arc::new(RwLock::new(0));
        let mut held = lock.write().unwrap();
        let other = Arc::clone(&lock);
        let writes = others.spawn(move || *other.write().unwrap() += 10);
        os::yield_now();
        *held += 1;
        let held = RwLockWriteGuard::downgrade(held);
        os::yield_now();
        assert_eq!(*held, 1);
        drop(held);
        writes.value();
        assert_eq!(*lock.read().unwrap(), 11);
    });
}

#[test]
fn a_panic_of_a_writer_poisons_and_that_of_a_reader_does_not() {
    with_others(|others| {
        let lock = Arc::new(RwLock::new(1));
        let other = Arc::clone(&lock);
        let reads = others.spawn(move || {
            let _held = other.read().unwrap();
            fail();
        });
        assert!(reads.join().is_err());
        assert_eq!(*lock.read().unwrap(), 1);
        let other = Arc::clone(&lock);
        let writes = others.spawn(move || {
            let _held = other.write().unwrap();
            fail();
        });
        assert!(writes.join().is_err());
        assert!(lock.read().is_err() && lock.write().is_err() && lock.is_poisoned());
        lock.clear_poison();
        *lock.write().unwrap() += 1;
        let mut lock = Arc::into_inner(lock).unwrap();
        *lock.get_mut().unwrap() += 1;
        assert_eq!(lock.into_inner().unwrap(), 3);
    });
}

#[test]
fn many_come_at_once_and_one_does_it() {
    with_others(|others| {
        let shared = Arc::new((Once::new(), AtomicUsize::new(0)));
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let shared = Arc::clone(&shared);
                others.spawn(move || {
                    let (once, count) = &*shared;
                    once.call_once(|| {
                        os::yield_now();
                        os::sleep(Duration::from_millis(1));
                        count.fetch_add(1, Ordering::SeqCst);
                    });
                    assert!(once.is_completed());
                    count.load(Ordering::SeqCst)
                })
            })
            .collect();
        let other = Arc::clone(&shared);
        let waits = others.spawn(move || other.0.wait());
        assert!(calls.into_iter().all(|call| call.value() == 1));
        waits.value();
    });
}

#[test]
fn what_panics_once_poisons_until_it_is_forced() {
    with_others(|others| {
        let once = Arc::new(Once::new());
        let other = Arc::clone(&once);
        let panics = others.spawn(move || {
            other.call_once(|| {
                os::yield_now();
                fail();
            });
        });
        assert!(panics.join().is_err());
        assert!(!once.is_completed());
        let caught = std::panic::catch_unwind(|| once.call_once(|| {}));
        assert!(caught.is_err(), "it is poisoned");
        // Another one comes while it is forced, and waits for that.
        let (began, begun) = mpsc::channel();
        let (finish, finished) = mpsc::channel::<()>();
        let other = Arc::clone(&once);
        let forces = others.spawn(move || {
            other.call_once_force(|state| {
                assert!(state.is_poisoned());
                began.send(()).unwrap();
                finished.recv().unwrap();
            });
        });
        begun.recv().unwrap();
        let other = Arc::clone(&once);
        let waits = others.spawn(move || {
            let mut has_run = false;
            other.call_once_force(|_| has_run = true);
            has_run
        });
        os::yield_now();
        finish.send(()).unwrap();
        forces.value();
        assert!(!waits.value());
        once.call_once(|| unreachable!("it is done"));
    });
}

#[test]
fn a_cell_is_set_once_by_whoever_comes_first() {
    with_others(|others| {
        let cell = Arc::new(OnceLock::new());
        assert_eq!(cell.get(), None);
        let sets: Vec<_> = (0..6)
            .map(|n| {
                let cell = Arc::clone(&cell);
                others.spawn(move || {
                    let found = *cell.get_or_init(|| {
                        os::yield_now();
                        n
                    });
                    (found == n, found, cell.set(99).is_err())
                })
            })
            .collect();
        let other = Arc::clone(&cell);
        let waits = others.spawn(move || *other.wait());
        let ends: Vec<_> = sets.into_iter().map(|set| set.value()).collect();
        assert_eq!(ends.iter().filter(|(is_first, ..)| *is_first).count(), 1);
        let value = *cell.get().unwrap();
        assert!(ends.iter().all(|(_, found, refused)| *found == value && *refused));
        assert_eq!(waits.value(), value);
    });
}

#[test]
fn a_cell_whose_maker_panics_stays_empty_for_the_next() {
    with_others(|others| {
        let cell = Arc::new(OnceLock::new());
        let other = Arc::clone(&cell);
        let (began, begun) = mpsc::channel();
        let panics = others.spawn(move || {
            other.get_or_init(|| {
                began.send(()).unwrap();
                os::yield_now();
                fail()
            });
        });
        begun.recv().unwrap();
        let other = Arc::clone(&cell);
        let makes = others.spawn(move || {
            while other.get().is_none() {
                let made = std::panic::catch_unwind(|| *other.get_or_init(|| 5));
                assert_eq!(made.ok(), Some(5));
            }
        });
        assert!(panics.join().is_err());
        makes.value();
        assert_eq!(cell.get(), Some(&5));
        let count = Arc::new(AtomicUsize::new(0));
        let cell = OnceLock::from(Dropped(Arc::clone(&count)));
        assert!(cell.set(Dropped(Arc::clone(&count))).is_err());
        assert_eq!(count.load(Ordering::SeqCst), 1);
        drop(cell.into_inner());
        assert_eq!(count.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_lazy_value_is_made_by_the_first_who_looks() {
    with_others(|others| {
        let made = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&made);
        let lazy = Arc::new(LazyLock::new(move || {
            os::yield_now();
            counts.fetch_add(1, Ordering::SeqCst);
            vec![1, 2, 3]
        }));
        let looks: Vec<_> = (0..6)
            .map(|_| {
                let lazy = Arc::clone(&lazy);
                others.spawn(move || lazy.iter().sum::<u32>())
            })
            .collect();
        assert!(looks.into_iter().all(|look| look.value() == 6));
        assert_eq!(made.load(Ordering::SeqCst), 1);
        // One that panicked is of no use to anybody.
        let lazy: Arc<LazyLock<u32>> = Arc::new(LazyLock::new(|| fail()));
        failed(|| **lazy);
        let other = Arc::clone(&lazy);
        assert!(others.spawn(move || **other).join().is_err());
    });
}

#[test]
fn a_barrier_lets_go_when_all_have_come_and_of_each_time_one_leads() {
    with_others(|others| {
        const COUNT: usize = 5;
        let barrier = Arc::new(Barrier::new(COUNT));
        let has_come = Arc::new(AtomicUsize::new(0));
        let waits: Vec<_> = (1..COUNT)
            .map(|_| {
                let (barrier, has_come) = (Arc::clone(&barrier), Arc::clone(&has_come));
                others.spawn(move || {
                    let mut leads = 0;
                    for time in 1..=4 {
                        has_come.fetch_add(1, Ordering::SeqCst);
                        leads += usize::from(barrier.wait().is_leader());
                        assert!(has_come.load(Ordering::SeqCst) >= time * COUNT);
                    }
                    leads
                })
            })
            .collect();
        let mut leads = 0;
        for time in 1..=4 {
            while has_come.load(Ordering::SeqCst) < time * COUNT - 1 {
                os::yield_now();
            }
            has_come.fetch_add(1, Ordering::SeqCst);
            leads += usize::from(barrier.wait().is_leader());
        }
        leads += waits.into_iter().map(|wait| wait.value()).sum::<usize>();
        assert_eq!(leads, 4);
        assert!(Barrier::new(1).wait().is_leader());
        assert!(Barrier::new(0).wait().is_leader());
    });
}

/// A guard that is dropped by an unwind lets the next one in.
#[test]
fn an_unwind_lets_go_of_what_it_held() {
    with_others(|others| {
        let lock = Arc::new(RwLock::new(()));
        let seen = Arc::new(AtomicBool::new(false));
        let (other, sees) = (Arc::clone(&lock), Arc::clone(&seen));
        let read = lock.read().unwrap();
        let waits = others.spawn(move || {
            drop(other.write().unwrap());
            sees.store(true, Ordering::SeqCst);
        });
        os::yield_now();
        assert!(!seen.load(Ordering::SeqCst));
        failed(move || {
            let _read = read;
            fail()
        });
        waits.value();
        assert!(seen.load(Ordering::SeqCst));
    });
}
