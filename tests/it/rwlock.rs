//! Reader-writer locks: fair, in three styles, across hubs and threads; and no grant is lost.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    rc::Rc,
    sync::{
        Arc, TryLockError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use crate::support::{Trace, assert_ends, block_on, poll};
use greenloop::{
    Cancelled, RunError, run, scope, sleep, spawn,
    sync::{Event, RwLock, RwLockWriteGuard},
    testing, timeout, try_run, wait_for_deferred, wait_for_future, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Spawns who locks `lock` to read (`r`) or write (`w`), notes it, and holds it for a second.
fn holder(lock: &Rc<RwLock<()>>, trace: &Trace, way: char) -> greenloop::Greenlet<()> {
    let (lock, trace) = (Rc::clone(lock), trace.clone());
    spawn(move || match way {
        'r' => {
            let _guard = lock.read().unwrap();
            trace.add(way);
            sleep(SECOND);
        }
        _ => {
            let _guard = lock.write().unwrap();
            trace.add(way);
            sleep(SECOND);
        }
    })
}

#[test]
fn any_number_may_read_at_once_and_a_writer_is_alone() {
    run(|| {
        let lock = RwLock::new(5);
        let (first, second) = (lock.read().unwrap(), lock.try_read().unwrap());
        assert_eq!(*first + *second, 10);
        assert!(matches!(lock.try_write(), Err(TryLockError::WouldBlock)));
        drop(first);
        assert!(lock.try_write().is_err());
        drop(second);
        let mut writer = lock.write().unwrap();
        *writer += 1;
        assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)));
        assert!(lock.try_write().is_err());
        assert_eq!(format!("{lock:?}"), "RwLock { value: <locked>, poisoned: false, .. }");
        drop(writer);
        assert_eq!(*lock.try_read().unwrap(), 6);
    });
}

/// Who comes to read while a writer waits waits behind it; those behind one another read together.
#[test]
fn a_writer_is_not_starved_and_readers_that_wait_together_go_on_together() {
    let trace = Trace::default();
    testing::run(|| {
        let lock = Rc::new(RwLock::new(()));
        let reader = lock.read().unwrap();
        let all: Vec<_> = "wrrwr".chars().map(|way| holder(&lock, &trace, way)).collect();
        yield_now();
        assert!(matches!(lock.try_read(), Err(TryLockError::WouldBlock)), "a writer waits");
        assert_eq!(trace.taken(), Vec::<String>::new());
        drop(reader);
        let half = SECOND / 2;
        for expected in [&["w"][..], &["r", "r"], &["w"], &["r"]] {
            sleep(half);
            assert_eq!(trace.taken(), expected);
            sleep(half);
        }
        all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn when_a_writer_in_line_gives_up_the_readers_behind_it_go_on_at_once() {
    testing::run(|| {
        for how in ["limit", "kill", "future", "Deferred"] {
            let lock = Arc::new(RwLock::new(()));
            let held = lock.read().unwrap();
            let theirs = Arc::clone(&lock);
            let writer = spawn(move || match how {
                "limit" => assert!(theirs.write_timeout(SECOND).is_err()),
                "kill" => drop(theirs.write()),
                "future" => {
                    let mut future = theirs.write_async();
                    assert!(poll(&mut future, Waker::noop()).is_pending());
                    sleep(SECOND);
                }
                _ => {
                    let deferred = theirs.write_deferred();
                    sleep(SECOND);
                    deferred.cancel();
                    assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
                }
            });
            yield_now();
            let read = Rc::new(Cell::new(0));
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let (lock, read) = (Arc::clone(&lock), Rc::clone(&read));
                    spawn(move || {
                        let _guard = lock.read().unwrap();
                        read.set(read.get() + 1);
                        sleep(HOUR);
                    })
                })
                .collect();
            sleep(SECOND / 2);
            assert_eq!(read.get(), 0, "{how}");
            if how == "kill" {
                writer.kill();
            }
            sleep(SECOND);
            assert_eq!(read.get(), 2, "{how}");
            assert!(writer.is_finished());
            drop(held);
            readers.iter().for_each(|reader| reader.kill());
            readers.into_iter().for_each(|reader| assert!(reader.join().is_err()));
            assert!(lock.try_write().is_ok(), "{how}");
        }
    });
}

/// Each was granted the lock, and dies before it has noticed.
#[test]
fn a_lock_that_was_handed_to_a_waiter_that_dies_goes_to_the_next() {
    run(|| {
        let lock = Arc::new(RwLock::new(()));
        let held = lock.write().unwrap();
        let mut reads = lock.read_async();
        assert!(poll(&mut reads, Waker::noop()).is_pending());
        let cancelled = lock.read_deferred();
        let mut writes = lock.write_async();
        assert!(poll(&mut writes, Waker::noop()).is_pending());
        let fires = lock.write_deferred();
        let theirs = Arc::clone(&lock);
        let last = spawn(move || drop(theirs.read().unwrap()));
        yield_now();
        drop(held); // both who read have it
        drop(reads);
        cancelled.cancel();
        let failure = wait_for_deferred(cancelled).unwrap_err();
        assert!(failure.is::<Cancelled>());
        drop(writes); // it had it then
        let guard = wait_for_deferred(fires).unwrap().unwrap();
        assert!(lock.try_read().is_err());
        drop(guard);
        last.join().unwrap();
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn a_kill_and_a_grant_at_once_lose_no_lock_in_either_order() {
    for (way, kill_first) in [('r', true), ('r', false), ('w', true), ('w', false)] {
        let trace = Trace::default();
        testing::run(|| {
            let lock = Rc::new(RwLock::new(()));
            let held = lock.write().unwrap();
            let dying = holder(&lock, &trace, way);
            yield_now();
            let next = holder(&lock, &trace, 'w');
            yield_now();
            if kill_first {
                dying.kill();
            }
            drop(held);
            if !kill_first {
                dying.kill();
            }
            assert!(dying.join().unwrap_err().is_killed());
            lock.clear_poison();
            let _ = next.join(); // it may have met the poison
            lock.clear_poison();
            assert!(lock.try_write().is_ok());
        });
    }
}

#[test]
fn a_hundred_thousand_synchronous_deferred_readers_and_writers_all_run() {
    const WAITERS: usize = 100_000;
    assert_ends(|| {
        run(|| {
            let lock = Arc::new(RwLock::new(0));
            let reads = Rc::new(Cell::new(0));
            let held = lock.write().unwrap();
            for n in 0..WAITERS {
                let reads = Rc::clone(&reads);
                if n % 4 == 0 {
                    drop(lock.read_deferred().add_callback(move |guard| {
                        assert_eq!(*guard.unwrap(), n - reads.get());
                        reads.set(reads.get() + 1);
                        Ok(())
                    }));
                } else {
                    drop(lock.write_deferred().add_callback(|guard| {
                        *guard.unwrap() += 1;
                        Ok(())
                    }));
                }
            }
            drop(held);
            let last = lock.write_deferred();
            let count = wait_for_deferred(last.add_callback(|guard| Ok(*guard.unwrap()))).unwrap();
            assert_eq!((count, reads.get()), (WAITERS / 4 * 3, WAITERS / 4));
        });
    });
}

#[test]
fn downgrading_lets_readers_that_are_first_in_line_on_and_keeps_writers_out() {
    let trace = Trace::default();
    testing::run(|| {
        let lock = Rc::new(RwLock::new(()));
        let writes = lock.write().unwrap();
        let all: Vec<_> = "rwr".chars().map(|way| holder(&lock, &trace, way)).collect();
        yield_now();
        let reads = RwLockWriteGuard::downgrade(writes);
        sleep(10 * SECOND);
        assert_eq!(trace.taken(), ["r"], "who stands behind a writer waits for it");
        drop(reads);
        all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
        assert_eq!(trace.taken(), ["w", "r"]);
        let reads = RwLockWriteGuard::downgrade(lock.write().unwrap());
        assert!(lock.try_read().is_ok() && lock.try_write().is_err());
        drop(reads);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn an_unwind_that_writes_poisons_and_one_that_reads_does_not() {
    testing::run(|| {
        let lock = Rc::new(RwLock::new(1));
        let killed = |f: fn(&RwLock<i32>)| {
            let lock = Rc::clone(&lock);
            let greenlet = spawn(move || f(&lock));
            yield_now();
            greenlet.kill();
            assert!(greenlet.join().unwrap_err().is_killed());
        };
        killed(|lock| {
            let _guard = lock.read().unwrap();
            sleep(HOUR);
        });
        assert!(!lock.is_poisoned());
        killed(|lock| {
            let _guard = RwLockWriteGuard::downgrade(lock.write().unwrap());
            sleep(HOUR);
        });
        assert!(!lock.is_poisoned(), "it reads by now");
        killed(|lock| {
            let _guard = lock.write().unwrap();
            sleep(HOUR);
        });
        assert!(lock.is_poisoned());
        assert_eq!(**lock.read().unwrap_err().get_ref(), 1);
        assert_eq!(**lock.write().unwrap_err().get_ref(), 1);
        assert!(matches!(lock.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(lock.try_write(), Err(TryLockError::Poisoned(_))));
        assert!(wait_for_deferred(Arc::new(RwLock::new(())).read_deferred()).unwrap().is_ok());
        lock.clear_poison();
        assert!(lock.write().is_ok());
        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.write().unwrap();
            panic::resume_unwind(Box::new("a panic"));
        }));
        assert!(caught.is_err() && lock.is_poisoned());
    });
}

#[test]
fn a_timeout_around_a_lock_unwinds_out_of_it_and_a_limit_hands_an_error_back() {
    testing::run(|| {
        let lock = RwLock::new(());
        let held = lock.write().unwrap();
        assert!(timeout(SECOND, || drop(lock.read())).is_err());
        assert!(timeout(SECOND, || drop(lock.write())).is_err());
        assert!(matches!(lock.read_timeout(SECOND), Err(TryLockError::WouldBlock)));
        assert!(matches!(lock.write_timeout(SECOND), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(!lock.is_poisoned());
        assert!(lock.read_timeout(Duration::ZERO).is_ok());
        assert!(lock.write_timeout(Duration::ZERO).is_ok());
    });
}

#[test]
fn main_that_waits_for_itself_is_told_that_it_would_wait_for_ever() {
    let waits = [(true, "a lock, to write"), (false, "a lock, to read")];
    for (reads_first, what) in waits {
        let ended = try_run(|| {
            let lock = RwLock::new(());
            let _first = reads_first.then(|| lock.read());
            let _second = lock.write();
            let _third = lock.read();
        });
        let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
        assert_eq!(report.parked()[0].waits_on, what);
    }
}

#[test]
fn main_waits_on_for_a_lock_that_another_thread_holds() {
    assert_ends(|| {
        let (lock, held, go) = (RwLock::new(0), Event::new(), Event::new());
        thread::scope(|threads| {
            threads.spawn(|| {
                let mut guard = lock.write().unwrap();
                held.set();
                go.wait();
                *guard = 1;
            });
            held.wait();
            run(|| {
                scope(|scope| {
                    let reads = scope.spawn(|| *lock.read().unwrap());
                    yield_now();
                    go.set();
                    assert_eq!(reads.join().unwrap(), 1);
                });
                assert_eq!(*lock.write().unwrap(), 1);
            });
        });
    });
}

#[test]
fn futures_of_another_executor_and_threads_take_turns_with_greenlets() {
    assert_ends(|| {
        let lock = Arc::new(RwLock::new(0));
        let rounds = 200;
        thread::scope(|threads| {
            threads.spawn(|| {
                block_on(async {
                    for _ in 0..rounds {
                        *lock.write_async().await.unwrap() += 1;
                        let _ = *lock.read_async().await.unwrap();
                    }
                });
            });
            threads.spawn(|| {
                for _ in 0..rounds {
                    *lock.write().unwrap() += 1;
                }
            });
            run(|| {
                for _ in 0..rounds {
                    *lock.write().unwrap() += 1;
                    wait_for_future(async { *lock.write_async().await.unwrap() += 1 });
                }
            });
        });
        assert_eq!(*lock.try_read().unwrap(), 4 * rounds);
    });
}

#[test]
fn a_hub_that_ends_while_it_waits_leaves_the_line_to_others() {
    assert_ends(|| {
        let lock = Arc::new(RwLock::new(()));
        let held = lock.write().unwrap();
        let theirs = Arc::clone(&lock);
        thread::spawn(move || {
            run(|| {
                let blocks = Arc::clone(&theirs);
                drop(spawn(move || drop(blocks.read())));
                drop(theirs.write_deferred().add_both(|_| Ok(())));
                drop(theirs.read_deferred().add_both(|_| Ok(())));
                yield_now();
            });
        })
        .join()
        .unwrap();
        drop(held);
        assert!(lock.try_write().is_ok());
    });
}

#[test]
fn what_is_inside_can_be_unsized_and_taken_out() {
    let mut lock: Box<RwLock<[i32]>> = Box::new(RwLock::new([1, 2, 3]));
    lock.get_mut().unwrap()[0] = 5;
    lock.write().unwrap()[1] = 6;
    assert_eq!(format!("{lock:?}"), "RwLock { value: [5, 6, 3], poisoned: false, .. }");
    assert_eq!(format!("{:?}", lock.read().unwrap()), "[5, 6, 3]");
    assert_eq!(RwLock::new(7).into_inner().unwrap(), 7);
}

/// What threads of both kinds, and every style, do to one lock; some of them give up. Nobody meets
/// a writer, and in the end it is free, and every change has been made once.
#[test]
fn slow_all_styles_on_several_hubs_and_threads_share_one_lock_and_lose_nothing() {
    const ROUNDS: usize = 200;
    struct Watched {
        value: usize,
        readers: AtomicUsize,
        has_writer: AtomicBool,
    }
    impl Watched {
        fn read(&self) {
            self.readers.fetch_add(1, Ordering::SeqCst);
            assert!(!self.has_writer.load(Ordering::SeqCst));
            self.readers.fetch_sub(1, Ordering::SeqCst);
        }
        fn write(&mut self) {
            assert!(!self.has_writer.swap(true, Ordering::SeqCst));
            assert_eq!(self.readers.load(Ordering::SeqCst), 0);
            self.value += 1;
            self.has_writer.store(false, Ordering::SeqCst);
        }
    }
    assert_ends(|| {
        let lock = Arc::new(RwLock::new(Watched {
            value: 0,
            readers: AtomicUsize::new(0),
            has_writer: AtomicBool::new(false),
        }));
        let writes = Arc::new(AtomicUsize::new(0));
        let on_thread = {
            let (lock, writes) = (Arc::clone(&lock), Arc::clone(&writes));
            move || {
                for round in 0..ROUNDS {
                    lock.read().unwrap().read();
                    let mut guard = lock.write().unwrap();
                    guard.write();
                    writes.fetch_add(1, Ordering::SeqCst);
                    if round % 2 == 0 {
                        RwLockWriteGuard::downgrade(guard).read();
                    } else {
                        drop(guard);
                    }
                    drop(lock.write_timeout(Duration::from_micros(20)));
                }
            }
        };
        let on_hub = {
            let (lock, writes, blocking) =
                (Arc::clone(&lock), Arc::clone(&writes), on_thread.clone());
            move || {
                run(|| {
                    let blocking = spawn(blocking);
                    for round in 0..ROUNDS {
                        let dies = Arc::clone(&lock);
                        let killed = spawn(move || drop(dies.write()));
                        let reads = lock.read_deferred();
                        let counts = Arc::clone(&writes);
                        let wrote = lock.write_deferred().add_callback(move |guard| {
                            guard.unwrap().write();
                            counts.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        });
                        yield_now();
                        if round % 3 == 0 {
                            wrote.cancel();
                        }
                        killed.kill();
                        let mut lost = lock.read_async();
                        if let Poll::Ready(guard) = poll(&mut lost, Waker::noop()) {
                            guard.unwrap().read();
                        }
                        drop(lost);
                        wait_for_deferred(reads.add_callback(|guard| {
                            guard.unwrap().read();
                            Ok(())
                        }))
                        .unwrap();
                        let _ = wait_for_deferred(wrote);
                        wait_for_future(async {
                            lock.write_async().await.unwrap().write();
                            writes.fetch_add(1, Ordering::SeqCst);
                        });
                    }
                    blocking.join().unwrap();
                });
            }
        };
        let mut all = Vec::new();
        for _ in 0..2 {
            all.push(thread::spawn(on_hub.clone()));
            all.push(thread::spawn(on_thread.clone()));
        }
        all.into_iter().for_each(|thread| thread.join().unwrap());
        let value = lock.try_write().expect("nobody holds it, and no grant was lost").value;
        assert_eq!(value, writes.load(Ordering::SeqCst));
    });
}
