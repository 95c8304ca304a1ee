//! Semaphores, mutexes, events, channels: fair, in three styles, across hubs and threads; and
//! nothing that was handed over is lost.

use std::{
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    pin::pin,
    rc::Rc,
    sync::{
        Arc, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use crate::support::{Trace, assert_ends, in_a_process_of_its_own, poll, reports_of};
use greenloop::{
    Cancelled, Deferred, RunError, reactor, run, scope, shield, sleep, spawn,
    sync::{
        Condvar, Event, Mutex, OnceCell, Receiver, RecvError, RecvTimeoutError, Semaphore,
        SendError, TryRecvError, TrySendError, channel, unbounded,
    },
    testing, timeout, try_run, wait_for_deferred, wait_for_future, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Counts how often it was called.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// ---- Semaphore --------------------------------------------------------------------------------

/// gevent `test__semaphore.py` `test_fair_or_hangs` (S1).
#[test]
fn permits_go_to_greenlets_in_the_order_of_their_coming() {
    let trace = Trace::default();
    testing::run(|| {
        let semaphore = Rc::new(Semaphore::new(1));
        let held = semaphore.acquire();
        scope(|scope| {
            for n in 0..4 {
                let (semaphore, trace) = (Rc::clone(&semaphore), trace.clone());
                scope.spawn(move || {
                    let _permit = semaphore.acquire();
                    trace.add(n);
                    sleep(SECOND);
                });
            }
            yield_now();
            drop(held);
            assert!(semaphore.try_acquire().is_none(), "it was handed over");
            assert_eq!(semaphore.available_permits(), 0);
        });
        assert_eq!(semaphore.available_permits(), 1);
    });
    assert_eq!(trace.taken(), ["0", "1", "2", "3"]);
}

#[test]
fn who_wants_many_permits_is_not_overtaken_by_who_wants_one() {
    let trace = Trace::default();
    testing::run(|| {
        let semaphore = Rc::new(Semaphore::new(3));
        let held = semaphore.acquire_many(2);
        let (first, noted) = (Rc::clone(&semaphore), trace.clone());
        let many = spawn(move || noted.add(first.acquire_many(3).count()));
        let (second, noted) = (Rc::clone(&semaphore), trace.clone());
        let one = spawn(move || noted.add(second.acquire().count()));
        yield_now();
        assert!(semaphore.try_acquire().is_none(), "one is free, but others wait");
        assert_eq!(trace.taken(), Vec::<String>::new());
        drop(held);
        many.join().unwrap();
        one.join().unwrap();
        assert_eq!(trace.taken(), ["3", "1"]);
    });
}

#[test]
fn when_who_wants_many_gives_up_those_behind_are_served() {
    testing::run(|| {
        let semaphore = Rc::new(Semaphore::new(2));
        let _held = semaphore.acquire();
        let (first, second) = (Rc::clone(&semaphore), Rc::clone(&semaphore));
        let many = spawn(move || first.acquire_many_timeout(2, SECOND).is_some());
        yield_now();
        let one = spawn(move || second.acquire_timeout(HOUR).is_some());
        assert!(!many.join().unwrap());
        assert!(one.join().unwrap(), "it waited behind the one that gave up");
        assert!(reactor().now().duration_since(greenloop::Deadline::ZERO) < 2 * SECOND);
    });
}

/// gevent `test__queue.py` `test_two_waiters_one_dies`, `test_waiters_that_cancel` (Q1).
#[test]
fn a_permit_that_was_handed_to_a_waiter_that_dies_goes_to_the_next() {
    testing::run(|| {
        let semaphore = Arc::new(Semaphore::new(1));
        let held = semaphore.acquire();
        let waiter = |semaphore: &Arc<Semaphore>| {
            let semaphore = Arc::clone(semaphore);
            spawn(move || drop(semaphore.acquire()))
        };
        // Killed before it is handed over.
        let killed = waiter(&semaphore);
        yield_now();
        killed.kill();
        yield_now();
        // Handed over to a future that is never polled again, a Deferred that is cancelled, a
        // greenlet; in this order.
        let counts = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&counts));
        let mut future = semaphore.acquire_async(1);
        assert!(poll(&mut future, &waker).is_pending());
        let deferred = semaphore.acquire_deferred(1);
        let last = waiter(&semaphore);
        yield_now();
        drop(held);
        assert_eq!(counts.0.load(Ordering::SeqCst), 1, "the future has it");
        drop(future);
        deferred.cancel();
        drop(deferred.add_both(|result| {
            assert!(result.is_err_and(|failure| failure.is::<Cancelled>()));
            Ok(())
        }));
        last.join().unwrap();
        assert!(killed.join().unwrap_err().is_killed());
        assert_eq!(semaphore.available_permits(), 1);
    });
}

/// The kill comes first, the grant before the greenlet has run: it leaves, and the grant goes on.
/// With the grant first, the permit is its own, and the kill comes at the next wait.
#[test]
fn a_kill_and_a_grant_at_once_lose_no_permit_in_either_order() {
    for kill_first in [true, false] {
        testing::run(|| {
            let semaphore = Rc::new(Semaphore::new(1));
            let held = semaphore.acquire();
            let took = Rc::new(Cell::new(false));
            let (first, flag) = (Rc::clone(&semaphore), Rc::clone(&took));
            let dying = spawn(move || {
                let _permit = first.acquire();
                flag.set(true);
                sleep(HOUR);
            });
            let second = Rc::clone(&semaphore);
            yield_now();
            let next = spawn(move || drop(second.acquire()));
            yield_now();
            if kill_first {
                dying.kill();
            }
            drop(held);
            if !kill_first {
                dying.kill();
            }
            assert!(dying.join().unwrap_err().is_killed());
            next.join().unwrap();
            assert_eq!(semaphore.available_permits(), 1);
            assert!(took.get(), "a wake that was given wins");
        });
    }
}

#[test]
fn a_grant_wins_over_a_limit_that_passes_in_the_same_turn() {
    testing::run(|| {
        let semaphore = Rc::new(Semaphore::new(0));
        let (adds, waits) = (Rc::clone(&semaphore), Rc::clone(&semaphore));
        let adder = spawn(move || {
            sleep(SECOND);
            adds.add_permits(1);
        });
        let waiter = spawn(move || waits.acquire_timeout(SECOND).is_some());
        assert!(waiter.join().unwrap(), "both were due, and the permit came before it ran");
        adder.join().unwrap();
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn a_permit_can_be_forgotten_and_added() {
    let semaphore = Semaphore::new(2);
    semaphore.acquire().forget();
    assert_eq!(semaphore.available_permits(), 1);
    semaphore.add_permits(3);
    let all = semaphore.try_acquire_many(4).unwrap();
    assert!(semaphore.try_acquire().is_none());
    assert_eq!(format!("{semaphore:?}"), "Semaphore { free: 0, waiting: 0 }");
    drop(all);
    assert_eq!(semaphore.available_permits(), 4);
}

#[test]
fn permits_that_are_too_many_are_refused_when_they_are_added_not_when_one_is_given_back() {
    let semaphore = Semaphore::new(1);
    let permit = semaphore.acquire();
    let added = panic::catch_unwind(AssertUnwindSafe(|| semaphore.add_permits(usize::MAX)));
    assert!(added.is_err());
    drop(permit);
    assert_eq!(semaphore.available_permits(), 1);
    semaphore.acquire().forget();
    semaphore.add_permits(usize::MAX);
    assert_eq!(semaphore.available_permits(), usize::MAX);
}

// ---- Mutex ------------------------------------------------------------------------------------

/// D66: Twisted's DeferredLock stops after 124 and stays locked.
#[test]
fn a_hundred_thousand_synchronous_deferred_waiters_all_run() {
    const WAITERS: usize = 100_000;
    assert_ends(|| {
        run(|| {
            let mutex = Arc::new(Mutex::new(0));
            let held = mutex.lock().unwrap();
            for _ in 0..WAITERS {
                drop(mutex.lock_deferred().add_callback(|guard| {
                    *guard.unwrap() += 1;
                    Ok(())
                }));
            }
            drop(held);
            let last = mutex.lock_deferred();
            let count = wait_for_deferred(last.add_callback(|guard| Ok(*guard.unwrap())));
            assert_eq!(count.unwrap(), WAITERS);
        });
    });
}

/// D65: `cancelLockBeforeAcquired`, `cancelLockAfterAcquired`.
#[test]
fn cancelling_a_deferred_lock_leaves_the_line_and_does_nothing_once_it_has_it() {
    run(|| {
        let mutex = Arc::new(Mutex::new(()));
        let had = mutex.lock_deferred();
        had.cancel();
        let guard = wait_for_deferred(had).unwrap().unwrap();
        let waits = mutex.lock_deferred();
        waits.cancel();
        assert!(wait_for_deferred(waits).unwrap_err().is_cancelled());
        drop(guard);
        assert!(mutex.try_lock().is_ok());
    });
}

#[test]
fn a_deferred_lock_cancelled_between_grant_and_firing_goes_to_the_next() {
    run(|| {
        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let first = mutex.lock_deferred();
        let second = mutex.lock_deferred();
        drop(held);
        first.cancel();
        assert!(wait_for_deferred(second).is_ok());
        assert!(wait_for_deferred(first).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_deferred_that_would_wait_fails_outside_a_run() {
    let mutex = Arc::new(Mutex::new(1));
    let ready = mutex.lock_deferred();
    let (_, reports) = reports_of(|| drop(mutex.lock_deferred()));
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("outside a reactor"), "{reports:?}");
    drop(ready);
    assert_eq!(*mutex.try_lock().unwrap(), 1);
}

#[test]
fn callbacks_that_got_a_lock_may_block() {
    testing::run(|| {
        let mutex = Arc::new(Mutex::new(Vec::new()));
        let held = mutex.lock().unwrap();
        let all: Vec<_> = (0..3)
            .map(|n| {
                mutex.lock_deferred().add_callback(move |guard| {
                    let mut guard = guard.unwrap();
                    sleep(SECOND);
                    guard.push(n);
                    Ok(())
                })
            })
            .collect();
        drop(held);
        for deferred in all {
            wait_for_deferred(deferred).unwrap();
        }
        assert_eq!(*mutex.lock().unwrap(), [0, 1, 2]);
    });
}

#[test]
fn main_that_locks_what_it_holds_is_told_that_it_would_wait_for_ever() {
    let ended = try_run(|| {
        let mutex = Mutex::new(());
        let _held = mutex.lock().unwrap();
        let _again = mutex.lock();
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    assert_eq!(report.parked()[0].waits_on, "a mutex to be free");
}

#[test]
fn main_that_waits_for_the_deferred_of_a_lock_that_it_holds_is_told_so_too() {
    let ended = try_run(|| {
        let mutex = Arc::new(Mutex::new(()));
        let _held = mutex.lock().unwrap();
        let _ = wait_for_deferred(mutex.lock_deferred());
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))));
}

#[test]
fn main_waits_on_for_what_another_thread_may_give() {
    assert_ends(|| {
        let (mutex, event) = (Arc::new(Mutex::new(0)), Arc::new(Event::new()));
        let (theirs, set) = (Arc::clone(&mutex), Arc::clone(&event));
        let locked = Arc::new(Event::new());
        let told = Arc::clone(&locked);
        let thread = thread::spawn(move || {
            let mut guard = theirs.lock().unwrap();
            told.set();
            set.wait();
            *guard = 1;
        });
        locked.wait();
        run(|| {
            let (waits, set) = (Arc::clone(&mutex), Arc::clone(&event));
            let greenlet = spawn(move || *waits.lock().unwrap());
            yield_now();
            set.set();
            assert_eq!(greenlet.join().unwrap(), 1);
            assert_eq!(*mutex.lock().unwrap(), 1);
        });
        thread.join().unwrap();
    });
}

#[test]
fn a_panic_and_a_kill_poison_what_is_held_and_an_unwind_from_before_does_not() {
    testing::run(|| {
        let mutex = Rc::new(Mutex::new(1));
        let taken = Rc::clone(&mutex);
        let killed = spawn(move || {
            let _guard = taken.lock().unwrap();
            sleep(HOUR);
        });
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(mutex.is_poisoned());
        assert_eq!(**mutex.lock().unwrap_err().get_ref(), 1);
        assert!(matches!(mutex.try_lock(), Err(TryLockError::Poisoned(_))));
        mutex.clear_poison();
        assert!(mutex.lock().is_ok());

        let caught = panic::catch_unwind(AssertUnwindSafe(|| {
            let _guard = mutex.lock().unwrap();
            panic::resume_unwind(Box::new("a panic"));
        }));
        assert!(caught.is_err() && mutex.is_poisoned());
        mutex.clear_poison();

        struct Locks(Rc<Mutex<i32>>);
        impl Drop for Locks {
            fn drop(&mut self) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let locks = Locks(Rc::clone(&mutex));
        let _ = panic::catch_unwind(AssertUnwindSafe(move || {
            let _locks = locks;
            panic::resume_unwind(Box::new("another"));
        }));
        assert_eq!(*mutex.lock().unwrap(), 2, "the guard was made and dropped in the unwind");
    });
}

/// SOUND-8: one greenlet parks in the midst of an unwind; another lets a guard go meanwhile.
#[test]
fn a_guard_is_not_poisoned_by_the_unwind_of_another_greenlet() {
    testing::run(|| {
        struct Sleeps;
        impl Drop for Sleeps {
            fn drop(&mut self) {
                sleep(SECOND);
            }
        }
        let mutex = Mutex::new(());
        let unwinds = spawn(|| {
            let _sleeps = Sleeps;
            sleep(HOUR);
        });
        yield_now();
        unwinds.kill();
        yield_now();
        drop(mutex.lock().unwrap());
        assert!(!mutex.is_poisoned());
        assert!(unwinds.join().is_err());
    });
}

#[test]
fn a_lock_inside_a_shield_is_waited_for_and_the_kill_comes_after() {
    testing::run(|| {
        let mutex = Rc::new(Mutex::new(0));
        let held = mutex.lock().unwrap();
        let theirs = Rc::clone(&mutex);
        let greenlet = spawn(move || {
            shield(|| *theirs.lock().unwrap() += 1);
            sleep(HOUR);
        });
        yield_now();
        greenlet.kill();
        yield_now();
        drop(held);
        assert!(greenlet.join().unwrap_err().is_killed());
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn a_timeout_around_a_lock_unwinds_out_of_it_and_a_limit_hands_an_error_back() {
    testing::run(|| {
        let mutex = Mutex::new(());
        let held = mutex.lock().unwrap();
        assert!(timeout(SECOND, || drop(mutex.lock())).is_err());
        assert!(matches!(mutex.lock_timeout(SECOND), Err(TryLockError::WouldBlock)));
        assert!(matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        assert!(!mutex.is_poisoned());
        assert!(mutex.lock_timeout(Duration::ZERO).is_ok());
    });
}

#[test]
fn a_lock_of_unsized_things_and_what_is_inside() {
    let mut mutex: Box<Mutex<[i32]>> = Box::new(Mutex::new([1, 2, 3]));
    mutex.get_mut().unwrap()[0] = 5;
    mutex.lock().unwrap()[1] = 6;
    assert_eq!(format!("{mutex:?}"), "Mutex { value: [5, 6, 3], poisoned: false, .. }");
    assert_eq!(Mutex::new(7).into_inner().unwrap(), 7);
}

#[test]
#[should_panic(expected = "Mutex::lock: blocking call on the hub's own stack")]
fn a_lock_on_the_hubs_own_stack_panics_rather_than_stop_the_hub() {
    struct Locks(Arc<Mutex<()>>, Arc<std::sync::Mutex<Option<Box<dyn std::any::Any + Send>>>>);
    impl Wake for Locks {
        fn wake(self: Arc<Self>) {
            let caught = panic::catch_unwind(AssertUnwindSafe(|| drop(self.0.lock())));
            *self.1.lock().unwrap() = caught.err();
        }
    }
    let seen = Arc::new(std::sync::Mutex::new(None));
    let mutex = Arc::new(Mutex::new(()));
    let waker = Waker::from(Arc::new(Locks(Arc::clone(&mutex), Arc::clone(&seen))));
    run(|| {
        let _held = mutex.lock().unwrap();
        // A foreign waker is called by the loop when a source is ready.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut stream = greenloop::net::TcpStream::from(listener.accept().unwrap().0);
        let mut buf = [0];
        let mut context = Context::from_waker(&waker);
        assert!(stream.poll_read(&mut context, &mut buf).is_pending());
        drop(peer);
        while seen.lock().unwrap().is_none() {
            sleep(Duration::from_millis(1));
        }
    });
    let payload = seen.lock().unwrap().take().unwrap();
    panic::resume_unwind(payload);
}

// ---- Event ------------------------------------------------------------------------------------

/// gevent `test__event.py` `TestEvent_SetThenClear` (E1, E2).
#[test]
fn an_event_that_is_set_and_cleared_lets_all_go_on_that_waited() {
    let trace = Trace::default();
    testing::run(|| {
        let event = Arc::new(Event::new());
        let waiters: Vec<_> = (0..3)
            .map(|n| {
                let (event, trace) = (Arc::clone(&event), trace.clone());
                spawn(move || {
                    event.wait();
                    trace.add(n);
                })
            })
            .collect();
        let future = pin!(event.wait_async());
        let mut future = future;
        assert!(poll(&mut future, Waker::noop()).is_pending());
        let deferred = event.wait_deferred();
        yield_now();
        event.set();
        event.clear();
        assert!(poll(&mut future, Waker::noop()).is_ready());
        wait_for_deferred(deferred).unwrap();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert!(!event.wait_timeout(SECOND), "who comes later waits");
        assert_eq!(trace.taken(), ["0", "1", "2"]);
    });
}

/// gevent `test__event.py` `test_wait_while_notifying` (E1).
#[test]
fn who_comes_to_an_event_while_others_are_told_is_not_forgotten() {
    struct Comes(&'static Event, std::sync::Mutex<Option<greenloop::sync::WaitEvent<'static>>>);
    impl Wake for Comes {
        fn wake(self: Arc<Self>) {
            self.0.clear();
            let mut comes = self.0.wait_async();
            assert!(poll(&mut comes, Waker::noop()).is_pending());
            *self.1.lock().unwrap() = Some(comes);
        }
    }
    let event: &'static Event = Box::leak(Box::default());
    let comes = Arc::new(Comes(event, std::sync::Mutex::default()));
    let (mut first, mut second) = (event.wait_async(), event.wait_async());
    assert!(poll(&mut first, &Waker::from(Arc::clone(&comes))).is_pending());
    assert!(poll(&mut second, Waker::noop()).is_pending());
    event.set();
    assert!(poll(&mut first, Waker::noop()).is_ready());
    assert!(poll(&mut second, Waker::noop()).is_ready());
    let mut late = comes.1.lock().unwrap().take().unwrap();
    assert!(poll(&mut late, Waker::noop()).is_pending(), "it came after it was cleared");
    event.set();
    assert!(poll(&mut late, Waker::noop()).is_ready());
}

#[test]
fn an_event_that_is_set_holds_nobody_up() {
    run(|| {
        let event = Arc::new(Event::new());
        event.set();
        event.wait();
        assert!(event.is_set() && event.wait_timeout(Duration::ZERO));
        wait_for_future(event.wait_async());
        assert_eq!(wait_for_deferred(event.wait_deferred()).ok(), Some(()));
    });
}

#[test]
fn a_panicking_waker_does_not_keep_the_next_from_being_told() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic::resume_unwind(Box::new("a waker"));
        }
    }
    let event = Event::new();
    let counts = Arc::new(Count::default());
    let (mut first, mut second) = (event.wait_async(), event.wait_async());
    assert!(poll(&mut first, &Waker::from(Arc::new(Panics))).is_pending());
    assert!(poll(&mut second, &Waker::from(Arc::clone(&counts))).is_pending());
    let ((), reports) = reports_of(|| event.set());
    assert_eq!(counts.0.load(Ordering::SeqCst), 1);
    assert_eq!(reports.len(), 1);
}

/// It would end the wait that the greenlet has begun.
#[test]
fn a_waker_cannot_park_the_greenlet_that_lets_a_lock_go() {
    struct Parks;
    impl Wake for Parks {
        fn wake(self: Arc<Self>) {
            sleep(SECOND);
        }
    }
    let pair: &'static (Mutex<()>, Condvar) = Box::leak(Box::default());
    let (passed, reports) = reports_of(|| {
        testing::run(|| {
            let guard = pair.0.lock().unwrap();
            let mut next = pair.0.lock_async();
            assert!(poll(&mut next, &Waker::from(Arc::new(Parks))).is_pending());
            spawn(move || {
                sleep(3 * SECOND);
                drop(next);
                pair.1.notify_one();
            });
            let before = reactor().now();
            drop(pair.1.wait(guard));
            reactor().now().duration_since(before)
        })
    });
    assert_eq!(passed, 3 * SECOND);
    assert_eq!(reports.len(), 1);
    assert!(reports[0].contains("suspension is forbidden"), "{reports:?}");
}

/// A future that moves to another task is woken there, and no more where it was.
#[test]
fn a_future_is_woken_by_the_waker_of_its_last_poll() {
    let event = Event::new();
    let (old, new) = (Arc::new(Count::default()), Arc::new(Count::default()));
    let mut future = event.wait_async();
    assert!(poll(&mut future, &Waker::from(Arc::clone(&old))).is_pending());
    assert!(poll(&mut future, &Waker::from(Arc::clone(&new))).is_pending());
    assert_eq!(Arc::strong_count(&old), 1, "the old waker is dropped");
    event.set();
    assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 1));
}

// ---- Across threads ---------------------------------------------------------------------------

/// What threads of both kinds, and every style, do to one mutex, semaphore and event; some of them
/// give up. In the end everything is free and every change has been made once.
#[test]
fn slow_all_styles_on_several_hubs_and_threads_share_one_mutex_and_lose_nothing() {
    const ROUNDS: usize = 300;
    assert_ends(|| {
        let mutex = Arc::new(Mutex::new(0_usize));
        let semaphore = Arc::new(Semaphore::new(2));
        let inside = Arc::new(AtomicUsize::new(0));
        let done = Arc::new(AtomicUsize::new(0));
        let (hubs, threads) = (3, 3);
        let work = {
            let (mutex, semaphore) = (Arc::clone(&mutex), Arc::clone(&semaphore));
            let (inside, done) = (Arc::clone(&inside), Arc::clone(&done));
            move || {
                let permit = semaphore.acquire();
                assert!(inside.fetch_add(1, Ordering::SeqCst) < 2);
                *mutex.lock().unwrap() += 1;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(permit);
                done.fetch_add(1, Ordering::SeqCst);
            }
        };
        let on_hub = {
            let (mutex, semaphore) = (Arc::clone(&mutex), Arc::clone(&semaphore));
            let (done, work) = (Arc::clone(&done), work.clone());
            move || {
                run(|| {
                    let blocking: Vec<_> = (0..4)
                        .map(|_| {
                            let work = work.clone();
                            spawn(move || (0..ROUNDS / 4).for_each(|_| work()))
                        })
                        .collect();
                    for round in 0..ROUNDS {
                        let (counts, dying) = (Arc::clone(&done), Arc::clone(&semaphore));
                        // One that is killed while it waits, or holds.
                        let killed = spawn(move || {
                            let _permit = dying.acquire();
                            yield_now();
                        });
                        let deferred = mutex.lock_deferred();
                        if round % 3 == 0 {
                            yield_now();
                            deferred.cancel();
                        }
                        let finished = deferred.add_both(move |result| {
                            if let Ok(guard) = result {
                                *guard.unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
                                counts.fetch_add(1, Ordering::SeqCst);
                            }
                            Ok(())
                        });
                        killed.kill();
                        // A future that may be dropped with the grant in it.
                        let mut lost = mutex.lock_async();
                        let _ = poll(&mut lost, Waker::noop()).is_ready();
                        drop(lost);
                        wait_for_future(async {
                            *mutex.lock_async().await.unwrap() += 1;
                        });
                        done.fetch_add(1, Ordering::SeqCst);
                        wait_for_deferred(finished).unwrap();
                    }
                    blocking.into_iter().for_each(|greenlet| greenlet.join().unwrap());
                });
            }
        };
        let mut all: Vec<thread::JoinHandle<()>> =
            (0..hubs).map(|_| thread::spawn(on_hub.clone())).collect();
        for _ in 0..threads {
            let (work, semaphore) = (work.clone(), Arc::clone(&semaphore));
            all.push(thread::spawn(move || {
                for _ in 0..ROUNDS {
                    work();
                    drop(semaphore.acquire_many_timeout(2, Duration::from_micros(20)));
                }
            }));
        }
        all.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(semaphore.available_permits(), 2);
        let sum = *mutex.try_lock().expect("nobody holds it, and no grant was lost");
        assert_eq!(sum, done.load(Ordering::SeqCst));
        assert_eq!(format!("{semaphore:?}"), "Semaphore { free: 2, waiting: 0 }");
    });
}

#[test]
fn a_hub_that_ends_while_it_waits_leaves_the_line_to_other_threads() {
    assert_ends(|| {
        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let theirs = Arc::clone(&mutex);
        let deferreds = thread::spawn(move || {
            run(|| {
                let (blocks, kept) = (Arc::clone(&theirs), RefCell::new(Vec::new()));
                drop(spawn(move || drop(blocks.lock())));
                kept.borrow_mut().push(theirs.lock_deferred().add_both(|result| {
                    assert!(result.is_err(), "it was abandoned");
                    Ok(())
                }));
                let forgotten: Deferred<()> = theirs.lock_deferred().add_both(|_| Ok(()));
                drop(forgotten);
                yield_now();
            });
        });
        deferreds.join().unwrap();
        drop(held);
        assert!(mutex.try_lock().is_ok());
    });
}

/// What it is granted while the run ends must not wait for the end of those that wait behind it.
#[test]
fn a_deferred_that_is_granted_while_the_run_ends_does_not_hold_up_those_behind_it() {
    struct Locks(Arc<Mutex<u8>>);
    impl Drop for Locks {
        fn drop(&mut self) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }
    let test =
        "sync::a_deferred_that_is_granted_while_the_run_ends_does_not_hold_up_those_behind_it";
    in_a_process_of_its_own(test, || {
        let mutex = Arc::new(Mutex::new(0));
        run(|| {
            reactor().set_shutdown_deadline(SECOND);
            let (holds, behind) = (Arc::clone(&mutex), Locks(Arc::clone(&mutex)));
            drop(spawn(move || {
                let _guard = holds.lock().unwrap();
                sleep(HOUR);
            }));
            yield_now();
            drop(mutex.lock_deferred());
            drop(spawn(move || {
                let _behind = behind;
                sleep(HOUR);
            }));
            yield_now();
        });
        mutex.clear_poison(); // by the one that was killed while it held it
        assert_eq!(*mutex.try_lock().unwrap(), 1);
    });
}

// ---- Channels ---------------------------------------------------------------------------------

#[test]
fn a_channel_without_room_hands_each_value_over() {
    let trace = Trace::default();
    testing::run(|| {
        let (sender, receiver) = channel(0);
        assert_eq!(sender.try_send(0), Err(TrySendError::Full(0)));
        let noted = trace.clone();
        let sends = spawn(move || {
            for n in 1..=2 {
                noted.add(format_args!("sends {n}"));
                sender.send(n).unwrap();
            }
        });
        yield_now();
        for n in receiver.iter() {
            trace.add(format_args!("got {n}"));
            sleep(SECOND);
        }
        sends.join().unwrap();
    });
    assert_eq!(trace.taken(), ["sends 1", "got 1", "sends 2", "got 2"]);
}

#[test]
fn a_full_channel_holds_its_senders_up_in_order() {
    testing::run(|| {
        let (sender, receiver) = channel(2);
        for n in 0..5 {
            let sender = sender.clone();
            drop(spawn(move || sender.send(n).unwrap()));
        }
        drop(sender);
        yield_now();
        assert_eq!(format!("{receiver:?}"), "Receiver { values: 2, waiting: 3 }");
        assert_eq!(receiver.try_recv(), Ok(0));
        assert_eq!(format!("{receiver:?}"), "Receiver { values: 2, waiting: 2 }");
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(receiver.recv(), Err(RecvError));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn receivers_are_served_in_the_order_of_their_coming() {
    let trace = Trace::default();
    run(|| {
        let (sender, receiver) = unbounded();
        let all: Vec<_> = (0..3)
            .map(|n| {
                let (receiver, trace) = (receiver.clone(), trace.clone());
                spawn(move || trace.add(format_args!("{n}: {}", receiver.recv().unwrap())))
            })
            .collect();
        yield_now();
        "abc".chars().for_each(|c| sender.send(c).unwrap());
        all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
    });
    assert_eq!(trace.taken(), ["0: a", "1: b", "2: c"]);
}

/// gevent `test__queue.py` `test_two_waiters_one_dies`, `test_two_bogus_waiters` (Q1); Twisted
/// `cancelQueueAfterGet` (D67).
#[test]
fn a_value_that_was_handed_to_a_receiver_that_dies_goes_to_the_next_or_to_the_front() {
    run(|| {
        let (sender, receiver) = unbounded();
        let mut dies = receiver.recv_async();
        assert!(poll(&mut dies, Waker::noop()).is_pending());
        let served = receiver.recv_deferred();
        let lives = receiver.recv_deferred();
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(dies); // its 1 goes to the one that waits
        assert_eq!(wait_for_deferred(lives).unwrap(), 1);
        assert_eq!(wait_for_deferred(served).unwrap(), 2);

        let mut dies = receiver.recv_async();
        assert!(poll(&mut dies, Waker::noop()).is_pending());
        sender.send(3).unwrap();
        sender.send(4).unwrap();
        drop(dies);
        assert_eq!(receiver.try_recv(), Ok(3), "it is older than what is there");
        assert_eq!(receiver.try_recv(), Ok(4));
    });
}

#[test]
fn values_that_were_handed_to_several_receivers_that_die_keep_their_order() {
    run(|| {
        for back in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let (sender, receiver) = unbounded();
            let mut dying = [const { None }; 3];
            for dies in &mut dying {
                let future = dies.insert(receiver.recv_async());
                assert!(poll(future, Waker::noop()).is_pending());
            }
            (1..=4).for_each(|n| sender.send(n).unwrap());
            back.into_iter().for_each(|dies| dying[dies] = None);
            drop(sender);
            assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3, 4], "{back:?}");
        }
    });
}

/// gevent `test__queue.py` `test_senders_that_die` (Q1).
#[test]
fn a_sender_that_dies_in_line_takes_its_value_along_and_one_that_was_served_does_not() {
    testing::run(|| {
        let (sender, receiver) = channel(0);
        let theirs = sender.clone();
        let killed = spawn(move || theirs.send(1));
        yield_now();
        killed.kill();
        assert!(killed.join().is_err());
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        let refused = sender.send_timeout(2, SECOND);
        assert_eq!(refused, Err(TrySendError::Full(2)));
        let mut sending = sender.send_async(3);
        assert!(poll(&mut sending, Waker::noop()).is_pending());
        assert_eq!(receiver.recv(), Ok(3));
        drop(sending);
        assert_eq!(receiver.recv_timeout(SECOND), Err(RecvTimeoutError::Timeout));
        let deferred = sender.send_deferred(4);
        deferred.cancel();
        assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    });
}

#[test]
fn senders_get_their_values_back_when_the_last_receiver_goes() {
    run(|| {
        let (sender, receiver) = channel(1);
        let left = Rc::new(());
        sender.send(Rc::clone(&left)).unwrap();
        let theirs = sender.clone();
        let blocked = spawn(move || theirs.send(Rc::new(())));
        let deferred = sender.send_deferred(Rc::new(()));
        yield_now();
        let another = receiver.clone();
        drop(receiver);
        yield_now();
        assert!(!blocked.is_finished());
        drop(another);
        assert_eq!(Rc::strong_count(&left), 1, "what was on its way is dropped");
        assert_eq!(blocked.join().unwrap(), Err(SendError(Rc::new(()))));
        assert_eq!(wait_for_deferred(deferred).unwrap(), Err(SendError(Rc::new(()))));
        assert!(matches!(sender.try_send(Rc::new(())), Err(TrySendError::Disconnected(_))));
    });
}

#[test]
fn receivers_in_every_style_are_told_when_the_last_sender_goes() {
    run(|| {
        let (sender, receiver) = channel::<u8>(0);
        let theirs = receiver.clone();
        let blocked = spawn(move || theirs.recv());
        let deferred = receiver.recv_deferred();
        let mut future = receiver.recv_async();
        assert!(poll(&mut future, Waker::noop()).is_pending());
        yield_now();
        drop(sender);
        assert_eq!(blocked.join().unwrap(), Err(RecvError));
        assert!(wait_for_deferred(deferred).unwrap_err().is::<RecvError>());
        assert_eq!(poll(&mut future, Waker::noop()), Poll::Ready(Err(RecvError)));
        assert_eq!(receiver.recv_timeout(SECOND), Err(RecvTimeoutError::Disconnected));
    });
}

#[test]
fn a_receiver_that_was_told_of_the_end_gets_what_a_dead_one_was_handed() {
    testing::run(|| {
        let (sender, receiver) = channel(1);
        let mut dies = receiver.recv_async();
        assert!(poll(&mut dies, Waker::noop()).is_pending());
        let theirs = receiver.clone();
        let next = spawn(move || theirs.iter().collect::<Vec<_>>());
        yield_now();
        sender.send(1).unwrap();
        drop(sender);
        drop(dies);
        assert_eq!(next.join().unwrap(), [1]);
        assert_eq!(receiver.recv(), Err(RecvError));
    });
}

#[test]
fn another_thread_fires_a_deferred() {
    assert_ends(|| {
        let answer = run(|| {
            let (sender, receiver) = channel(1);
            let answer = receiver.recv_deferred().add_callback(|n| Ok(n + 1));
            drop(receiver); // the Deferred is one
            let thread = thread::spawn(move || sender.send(41).unwrap());
            let answer = wait_for_deferred(answer);
            thread.join().unwrap();
            answer
        });
        assert_eq!(answer.ok(), Some(42));
    });
}

#[test]
fn a_greenlet_whose_channel_is_never_empty_lets_the_others_run() {
    run(|| {
        let (sender, receiver) = unbounded();
        let stop = Rc::new(Cell::new(false));
        let flag = Rc::clone(&stop);
        drop(spawn(move || flag.set(true)));
        while !stop.get() {
            sender.send(()).unwrap();
            receiver.recv().unwrap();
        }
    });
}

/// Every style on both ends, on hubs and threads; some receivers give up. Each value comes out
/// once, and those of one sender in order, as far as one receiver sees them.
#[test]
fn slow_values_from_many_to_many_come_out_once_each() {
    const VALUES: usize = 400;
    for bound in [0, 1, 7, usize::MAX] {
        assert_ends(move || {
            let (sender, receiver) = channel::<(usize, usize)>(bound);
            let mut threads = Vec::new();
            for n in 0..2 {
                let sender = sender.clone();
                threads.push(thread::spawn(move || {
                    (0..VALUES).for_each(|v| sender.send((n, v)).unwrap());
                }));
            }
            let on_hub = sender.clone();
            threads.push(thread::spawn(move || {
                run(|| {
                    let blocking = on_hub.clone();
                    let blocking =
                        spawn(move || (0..VALUES).for_each(|v| blocking.send((4, v)).unwrap()));
                    wait_for_future(async {
                        for v in 0..VALUES {
                            on_hub.send_async((5, v)).await.unwrap();
                        }
                    });
                    for v in 0..VALUES {
                        wait_for_deferred(on_hub.send_deferred((6, v))).unwrap().unwrap();
                    }
                    blocking.join().unwrap();
                });
            }));
            drop(sender);
            let mut receivers = Vec::new();
            for n in 0..2 {
                let receiver = receiver.clone();
                receivers.push(thread::spawn(move || match n {
                    0 => receiver.iter().collect::<Vec<_>>(),
                    _ => run(|| receive_in_every_style(&receiver)),
                }));
            }
            drop(receiver);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let mut all = Vec::new();
            for receiver in receivers {
                all.extend(receiver.join().unwrap());
            }
            all.sort_unstable();
            let expected: Vec<_> = [0, 1, 4, 5, 6]
                .into_iter()
                .flat_map(|n| (0..VALUES).map(move |v| (n, v)))
                .collect();
            assert_eq!(all, expected);
        });
    }
}

/// Receives until the end; by turns in blocking style, with a limit, as a Deferred that may be
/// cancelled, and as a future that may be dropped with the value in it.
fn receive_in_every_style(receiver: &Receiver<(usize, usize)>) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    for turn in 0.. {
        match turn % 4 {
            0 => match receiver.recv() {
                Ok(value) => all.push(value),
                Err(RecvError) => break,
            },
            1 => all.extend(receiver.recv_timeout(Duration::from_micros(10))),
            2 => {
                let deferred = receiver.recv_deferred();
                if turn % 8 == 2 {
                    yield_now();
                    deferred.cancel();
                }
                all.extend(wait_for_deferred(deferred));
            }
            _ => {
                let mut future = receiver.recv_async();
                if let Poll::Ready(value) = poll(&mut future, Waker::noop()) {
                    all.extend(value);
                }
            }
        }
    }
    all
}

// ---- OnceCell ---------------------------------------------------------------------------------

/// gevent `test__event.py` `TestAsyncResultCrossThread` (E3).
#[test]
fn a_value_that_is_set_once_reaches_all_who_wait_in_any_style() {
    assert_ends(|| {
        run(|| {
            let cell = Arc::new(OnceCell::new());
            let waits = Arc::clone(&cell);
            let greenlet = spawn(move || *waits.wait());
            let deferred = cell.wait_deferred();
            let waits = Arc::clone(&cell);
            let thread = thread::spawn(move || *waits.wait());
            yield_now();
            assert_eq!(cell.wait_timeout(Duration::from_micros(1)), None);
            let sets = Arc::clone(&cell);
            let setter = thread::spawn(move || sets.set(7));
            assert_eq!(*wait_for_future(cell.wait_async()), 7);
            assert_eq!(greenlet.join().unwrap(), 7);
            assert_eq!(wait_for_deferred(deferred).unwrap(), 7);
            assert_eq!(thread.join().unwrap(), 7);
            setter.join().unwrap().unwrap();
            assert_eq!(cell.set(8), Err(8));
            assert_eq!(cell.get(), Some(&7));
        });
    });
}

#[test]
fn a_value_is_computed_once_while_others_wait_and_again_if_that_fails() {
    testing::run(|| {
        let (cell, computed) = (Rc::new(OnceCell::new()), Rc::new(Cell::new(0)));
        let computes = Rc::clone(&cell);
        let killed = spawn(move || {
            computes.get_or_init(|| {
                sleep(HOUR);
                1
            });
        });
        yield_now();
        let others: Vec<_> = (2..5)
            .map(|n| {
                let (cell, computed) = (Rc::clone(&cell), Rc::clone(&computed));
                spawn(move || {
                    *cell.get_or_init(|| {
                        computed.set(computed.get() + 1);
                        sleep(SECOND);
                        n
                    })
                })
            })
            .collect();
        yield_now();
        killed.kill();
        assert!(killed.join().is_err());
        for other in others {
            assert_eq!(other.join().unwrap(), 2);
        }
        assert_eq!(computed.get(), 1);
    });
}

#[test]
fn a_cell_that_is_computed_by_itself_is_found_to_wait_for_ever() {
    let ended = try_run(|| {
        let cell = OnceCell::new();
        cell.get_or_init(|| *cell.get_or_init(|| 1));
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
}

// ---- Condvar ----------------------------------------------------------------------------------

#[test]
fn a_notification_reaches_who_waits_longest_and_all_of_them_all() {
    let trace = Trace::default();
    testing::run(|| {
        let pair = Rc::new((Mutex::new(()), Condvar::new()));
        let all: Vec<_> = (0..4)
            .map(|n| {
                let (pair, trace) = (Rc::clone(&pair), trace.clone());
                spawn(move || {
                    let guard = pair.0.lock().unwrap();
                    let _guard = pair.1.wait(guard).unwrap();
                    trace.add(n);
                })
            })
            .collect();
        pair.1.notify_one(); // nobody waits yet: it is not remembered
        yield_now();
        assert!(pair.0.try_lock().is_ok(), "who waits has let it go");
        assert_eq!(format!("{:?}", pair.1), "Condvar { waiting: 4 }");
        pair.1.notify_one();
        sleep(SECOND);
        assert_eq!(trace.taken(), ["0"]);
        pair.1.notify_all();
        all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
        assert_eq!(trace.taken(), ["1", "2", "3"]);
    });
}

#[test]
fn a_notification_for_a_waiter_that_was_killed_first_goes_to_the_next() {
    testing::run(|| {
        let pair = Rc::new((Mutex::new(0), Condvar::new()));
        let waiter = || {
            let pair = Rc::clone(&pair);
            spawn(move || drop(pair.1.wait(pair.0.lock().unwrap())))
        };
        let (killed, next) = (waiter(), waiter());
        yield_now();
        killed.kill();
        yield_now();
        pair.1.notify_one();
        next.join().unwrap();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(!pair.0.is_poisoned(), "it did not hold the mutex when it was killed");
        // A kill that is there already is noticed when the mutex is free again.
        let theirs = Rc::clone(&pair);
        let killed = spawn(move || {
            let guard = theirs.0.lock().unwrap();
            greenloop::current().kill();
            drop(theirs.1.wait(guard));
        });
        assert!(killed.join().unwrap_err().is_killed());
        assert!(!pair.0.is_poisoned());
        let guard = pair.0.lock().unwrap();
        let (guard, notified) = pair.1.wait_timeout(guard, SECOND).unwrap();
        assert!(!notified && pair.0.try_lock().is_err());
        drop(guard);
    });
}

#[test]
fn a_thread_and_a_greenlet_wait_for_one_anothers_notifications() {
    assert_ends(|| {
        let pair = Arc::new((Mutex::new(0), Condvar::new()));
        let theirs = Arc::clone(&pair);
        let step = |pair: &(Mutex<i32>, Condvar), odd: i32| {
            for _ in 0..200 {
                let turn = pair.0.lock().unwrap();
                let mut turn = pair.1.wait_while(turn, |turn| *turn % 2 != odd).unwrap();
                *turn += 1;
                drop(turn);
                pair.1.notify_one();
            }
        };
        let thread = thread::spawn(move || step(&theirs, 1));
        run(|| step(&pair, 0));
        thread.join().unwrap();
        assert_eq!(*pair.0.lock().unwrap(), 400);
    });
}

/// asyncio's `Condition` lost it here until Python 3.13.
#[test]
fn a_notification_for_a_waiter_that_is_killed_while_it_locks_again_goes_to_the_next() {
    testing::run(|| {
        let pair = Rc::new((Mutex::new(()), Condvar::new()));
        let waiter = || {
            let pair = Rc::clone(&pair);
            spawn(move || drop(pair.1.wait(pair.0.lock().unwrap())))
        };
        let (killed, next) = (waiter(), waiter());
        yield_now();
        let guard = pair.0.lock().unwrap();
        pair.1.notify_one();
        yield_now(); // it has the notification, and waits for the mutex
        killed.kill();
        yield_now();
        drop(guard);
        assert!(killed.join().unwrap_err().is_killed());
        assert!(matches!(timeout(SECOND, || next.join()), Ok(Ok(()))));
    });
}

#[test]
fn a_notification_of_all_does_not_go_on_to_one_who_came_later() {
    testing::run(|| {
        let pair = Rc::new((Mutex::new(()), Condvar::new()));
        let theirs = Rc::clone(&pair);
        let killed = spawn(move || drop(theirs.1.wait(theirs.0.lock().unwrap())));
        yield_now();
        let guard = pair.0.lock().unwrap();
        let theirs = Rc::clone(&pair);
        let ahead = spawn(move || drop(theirs.0.lock()));
        yield_now();
        pair.1.notify_all();
        yield_now(); // it waits for the mutex, behind the other
        killed.kill();
        let (_guard, notified) = pair.1.wait_timeout(guard, SECOND).unwrap();
        assert!(!notified);
        assert!(killed.join().unwrap_err().is_killed());
        ahead.join().unwrap();
    });
}
