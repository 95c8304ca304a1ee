//! Locks that wait by futex(2): std's, parking_lot's, crossbeam's; and futex(2) itself.

use std::{
    io::Write,
    sync::{
        Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, TryRecvError},
    },
    thread as os,
    time::{Duration, Instant},
};

use greenloop::{run, spawn, sync::Event, thread, yield_now};

use crate::support::assert_ends;

/// Who did what, in order, on any thread.
#[derive(Clone, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<&'static str>>>);

impl Trace {
    pub(crate) fn add(&self, what: &'static str) {
        self.0.lock().unwrap().push(what);
    }

    pub(crate) fn taken(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// What somebody waits for until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Event>);

impl Gate {
    pub(crate) fn wait(&self) {
        self.0.wait();
    }

    pub(crate) fn open(&self) {
        self.0.set();
    }

    pub(crate) fn close(&self) {
        self.0.clear();
    }
}

/// Lets all virtual threads of this hub run until they wait. From a greenlet.
pub(crate) fn settle() {
    for _ in 0..10 {
        yield_now();
    }
}

/// A virtual thread that takes what `take` gives, keeps it until `let_go`, and drops it.
fn holder<G>(
    trace: &Trace,
    let_go: &Gate,
    take: impl FnOnce() -> G + Send + 'static,
) -> thread::JoinHandle<()> {
    let (trace, let_go) = (trace.clone(), let_go.clone());
    thread::spawn(move || {
        let held = take();
        trace.add("held");
        let_go.wait();
        trace.add("let go");
        drop(held);
    })
}

/// A mutex that lives as long as the process, so that its guard may be kept by anybody.
fn mutex() -> &'static Mutex<u32> {
    Box::leak(Box::default())
}

#[test]
fn a_mutex_that_is_held_across_a_suspension_excludes_another_virtual_thread() {
    assert_ends(|| {
        run(|| {
            let (trace, let_go, mutex) = (Trace::default(), Gate::default(), mutex());
            let first = holder(&trace, &let_go, || mutex.lock().unwrap());
            let seen = trace.clone();
            let second = thread::spawn(move || {
                seen.add("wants");
                *mutex.lock().unwrap() += 1;
                seen.add("got");
            });
            settle();
            assert_eq!(trace.taken(), ["held", "wants"]);
            let_go.open();
            first.join().unwrap();
            second.join().unwrap();
            assert_eq!(trace.taken(), ["let go", "got"]);
        });
    });
}

#[test]
fn a_greenlet_gets_a_mutex_that_a_suspended_virtual_thread_holds() {
    assert_ends(|| {
        run(|| {
            let (trace, mutex) = (Trace::default(), mutex());
            let (other, seen) = (Gate::default(), trace.clone());
            let told = other.clone();
            // Who lets go is let go by another virtual thread: so a hub that waits runs both.
            let first = holder(&trace, &other, || mutex.lock().unwrap());
            settle();
            let second = thread::spawn(move || {
                seen.add("tells");
                told.open();
            });
            let others = trace.clone();
            let greenlet = spawn(move || others.add("a greenlet"));
            *mutex.lock().unwrap() += 1;
            trace.add("got");
            // Only virtual threads have run.
            assert_eq!(trace.taken(), ["held", "tells", "let go", "got"]);
            greenlet.join().unwrap();
            first.join().unwrap();
            second.join().unwrap();
        });
    });
}

#[test]
fn a_virtual_thread_of_another_hub_gets_a_mutex() {
    assert_ends(|| {
        let (wants, wanted) = mpsc::channel();
        let mutex = mutex();
        let other = run(|| {
            let (trace, let_go) = (Trace::default(), Gate::default());
            let first = holder(&trace, &let_go, || mutex.lock().unwrap());
            settle();
            let other = os::spawn(move || {
                run(|| {
                    let second = thread::spawn(move || {
                        wants.send(()).unwrap();
                        *mutex.lock().unwrap() += 1;
                    });
                    second.join().unwrap();
                });
            });
            // The main greenlet's thread is stopped, as by any channel.
            wanted.recv().unwrap();
            let_go.open();
            first.join().unwrap();
            other
        });
        other.join().unwrap();
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn an_os_thread_gets_a_mutex_that_a_virtual_thread_holds() {
    assert_ends(|| {
        let mutex = mutex();
        let other = run(|| {
            let (trace, let_go) = (Trace::default(), Gate::default());
            let first = holder(&trace, &let_go, || mutex.lock().unwrap());
            settle();
            let (wants, wanted) = mpsc::channel();
            let other = os::spawn(move || {
                wants.send(()).unwrap();
                *mutex.lock().unwrap() += 1;
            });
            wanted.recv().unwrap();
            let_go.open();
            first.join().unwrap();
            other
        });
        other.join().unwrap();
        assert_eq!(*mutex.lock().unwrap(), 1);
    });
}

#[test]
fn a_virtual_thread_waits_for_an_os_thread_and_its_hub_goes_on() {
    assert_ends(|| {
        let mutex = mutex();
        let (has, had) = mpsc::channel();
        let (let_go, is_let_go) = mpsc::channel::<()>();
        let other = os::spawn(move || {
            let _held = mutex.lock().unwrap();
            has.send(()).unwrap();
            is_let_go.recv().unwrap();
        });
        had.recv().unwrap();
        run(|| {
            let waits = thread::spawn(move || *mutex.lock().unwrap() += 1);
            settle();
            assert!(!waits.is_finished());
            // That this runs at all is the point: the one who is waited for waits for it.
            thread::spawn(move || let_go.send(()).unwrap()).join().unwrap();
            waits.join().unwrap();
        });
        other.join().unwrap();
    });
}

#[test]
fn many_virtual_threads_take_turns_with_a_mutex() {
    const EACH: u32 = 20;
    assert_ends(|| {
        run(|| {
            let mutex = mutex();
            let threads: Vec<_> = (0..20)
                .map(|_| {
                    thread::spawn(move || {
                        for _ in 0..EACH {
                            let mut held = mutex.lock().unwrap();
                            let before = *held;
                            thread::yield_now();
                            *held = before + 1;
                        }
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(*mutex.lock().unwrap(), 20 * EACH);
        });
    });
}

#[test]
fn a_condition_wakes_one_or_all_and_ends_by_its_time() {
    assert_ends(|| {
        run(|| {
            let shared = Arc::new((Mutex::new(0), Condvar::new()));
            let trace = Trace::default();
            let wait = |name: &'static str| {
                let (shared, trace) = (Arc::clone(&shared), trace.clone());
                thread::spawn(move || {
                    let mut left = shared.0.lock().unwrap();
                    while *left == 0 {
                        left = shared.1.wait(left).unwrap();
                    }
                    *left -= 1;
                    trace.add(name);
                })
            };
            let threads = [wait("a"), wait("b"), wait("c")];
            settle();
            *shared.0.lock().unwrap() = 1;
            shared.1.notify_one();
            settle();
            assert_eq!(trace.taken(), ["a"]);
            // From another thread.
            let theirs = Arc::clone(&shared);
            os::spawn(move || {
                *theirs.0.lock().unwrap() = 2;
                theirs.1.notify_all();
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(trace.taken(), ["b", "c"]);
            let limit = Duration::from_millis(5);
            let waits = thread::spawn(move || {
                let begun = Instant::now();
                let waited = shared.1.wait_timeout(shared.0.lock().unwrap(), limit).unwrap();
                assert!(waited.1.timed_out());
                begun.elapsed()
            });
            assert!(waits.join().unwrap() >= limit);
        });
    });
}

#[test]
fn readers_share_and_a_writer_waits_for_them() {
    assert_ends(|| {
        run(|| {
            let (trace, let_go) = (Trace::default(), Gate::default());
            let lock: &'static RwLock<u32> = Box::leak(Box::default());
            let first = holder(&trace, &let_go, || lock.read().unwrap());
            let second = holder(&trace, &let_go, || lock.read().unwrap());
            settle();
            assert_eq!(trace.taken(), ["held", "held"]);
            let seen = trace.clone();
            let writer = thread::spawn(move || {
                *lock.write().unwrap() += 1;
                seen.add("written");
            });
            settle();
            assert_eq!(trace.taken(), [""; 0]);
            let_go.open();
            writer.join().unwrap();
            assert_eq!(trace.taken(), ["let go", "let go", "written"]);
            first.join().unwrap();
            second.join().unwrap();
        });
    });
}

#[test]
fn an_initialiser_that_suspends_is_waited_for_by_virtual_threads_and_greenlets() {
    static LET_GO: LazyLock<Gate> = LazyLock::new(Gate::default);
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    static VALUE: LazyLock<u32> = LazyLock::new(|| {
        BEGUN.fetch_add(1, Ordering::Relaxed);
        LET_GO.wait();
        7
    });
    assert_ends(|| {
        run(|| {
            LazyLock::force(&LET_GO);
            let first = thread::spawn(|| *VALUE);
            let second = thread::spawn(|| *VALUE);
            settle();
            assert_eq!(BEGUN.load(Ordering::Relaxed), 1);
            // It lets go only when the greenlet below is already waiting, in the same call.
            let third = thread::spawn(|| LET_GO.open());
            assert_eq!(*VALUE, 7);
            assert_eq!(BEGUN.load(Ordering::Relaxed), 1);
            assert_eq!(first.join().unwrap() + second.join().unwrap(), 14);
            third.join().unwrap();
        });
    });
}

#[test]
fn once_and_once_lock_are_waited_for() {
    assert_ends(|| {
        run(|| {
            let shared = Arc::new((Once::new(), OnceLock::new(), Gate::default()));
            let theirs = Arc::clone(&shared);
            let first = thread::spawn(move || {
                theirs.0.call_once(|| theirs.2.wait());
                theirs.2.close();
                *theirs.1.get_or_init(|| {
                    theirs.2.wait();
                    1
                })
            });
            settle();
            let theirs = Arc::clone(&shared);
            let second = thread::spawn(move || {
                theirs.0.call_once(|| unreachable!("somebody else does it"));
                *theirs.1.get_or_init(|| unreachable!("somebody else does it"))
            });
            settle();
            shared.2.open();
            settle();
            assert!(shared.0.is_completed() && shared.1.get().is_none());
            shared.2.open();
            assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 1));
        });
    });
}

#[test]
fn a_barrier_lets_virtual_threads_and_os_threads_go_together() {
    assert_ends(|| {
        let barrier = Arc::new(Barrier::new(4));
        let theirs = Arc::clone(&barrier);
        let other = os::spawn(move || theirs.wait().is_leader());
        let leaders: usize = run(|| {
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let barrier = Arc::clone(&barrier);
                    thread::spawn(move || barrier.wait().is_leader())
                })
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(leaders + usize::from(other.join().unwrap()), 1);
    });
}

#[test]
fn channels_of_std_park_both_ends() {
    assert_ends(|| {
        run(|| {
            for bound in [0, 1, 3] {
                let (sender, receiver) = mpsc::sync_channel(bound);
                let sends = thread::spawn(move || (0..20).for_each(|n| sender.send(n).unwrap()));
                let receives = thread::spawn(move || receiver.iter().collect::<Vec<u32>>());
                sends.join().unwrap();
                assert_eq!(receives.join().unwrap(), (0..20).collect::<Vec<_>>());
            }
            let (sender, receiver) = mpsc::channel::<u32>();
            let is_late = Gate::default();
            let late = is_late.clone();
            let waits = thread::spawn(move || {
                assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
                let limit = Duration::from_millis(2);
                assert_eq!(receiver.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
                late.open();
                receiver.recv()
            });
            is_late.wait();
            settle();
            os::spawn(move || sender.send(5).unwrap());
            assert_eq!(waits.join().unwrap(), Ok(5));
        });
    });
}

#[test]
fn std_parks_a_virtual_thread_and_any_thread_unparks_it() {
    assert_ends(|| {
        run(|| {
            let (tells, told) = mpsc::channel();
            let is_time = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&is_time);
            let parks = thread::spawn(move || {
                for _ in 0..2 {
                    tells.send(os::current()).unwrap();
                    while !seen.swap(false, Ordering::Acquire) {
                        os::park();
                    }
                }
                os::park_timeout(Duration::from_millis(1));
            });
            let unparks = thread::spawn(move || {
                let parked = told.recv().unwrap();
                is_time.store(true, Ordering::Release);
                parked.unpark();
                let parked = told.recv().unwrap();
                os::spawn(move || {
                    is_time.store(true, Ordering::Release);
                    parked.unpark();
                });
            });
            parks.join().unwrap();
            unparks.join().unwrap();
        });
    });
}

#[test]
fn an_os_thread_is_unparked_by_a_virtual_thread() {
    assert_ends(|| {
        let is_time = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_time);
        let parks = os::spawn(move || {
            while !seen.load(Ordering::Acquire) {
                os::park();
            }
        });
        let parked = parks.thread().clone();
        run(|| {
            let unparks = thread::spawn(move || {
                is_time.store(true, Ordering::Release);
                parked.unpark();
            });
            unparks.join().unwrap();
        });
        parks.join().unwrap();
    });
}

#[test]
fn parking_lot_parks_its_waiters() {
    assert_ends(|| {
        run(|| {
            let shared = Arc::new((
                parking_lot::Mutex::new(0),
                parking_lot::Condvar::new(),
                parking_lot::RwLock::new(0),
            ));
            let threads: Vec<_> = (0..10)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        for _ in 0..10 {
                            let mut held = shared.0.lock();
                            let before = *held;
                            thread::yield_now();
                            *held = before + 1;
                            drop(held);
                            let mut held = shared.2.write();
                            let before = *held;
                            thread::yield_now();
                            *held = before + 1;
                        }
                        shared.1.notify_all();
                    })
                })
                .collect();
            let theirs = Arc::clone(&shared);
            let waits = thread::spawn(move || {
                let mut held = theirs.0.lock();
                while *held < 100 {
                    theirs.1.wait_for(&mut held, Duration::from_secs(10));
                }
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            waits.join().unwrap();
            assert_eq!((*shared.0.lock(), *shared.2.read()), (100, 100));
        });
    });
}

#[test]
fn channels_of_crossbeam_park_both_ends() {
    assert_ends(|| {
        run(|| {
            let (sender, receiver) = crossbeam_channel::bounded(1);
            let sends = thread::spawn(move || (0..50).for_each(|n| sender.send(n).unwrap()));
            let receives = thread::spawn(move || receiver.iter().sum::<u32>());
            sends.join().unwrap();
            assert_eq!(receives.join().unwrap(), 1225);
            let (sender, receiver) = crossbeam_channel::bounded(0);
            let receives = thread::spawn(move || receiver.recv());
            settle();
            os::spawn(move || sender.send(3).unwrap());
            assert_eq!(receives.join().unwrap(), Ok(3));
        });
    });
}

#[test]
fn stdout_is_locked_by_one_virtual_thread_at_a_time() {
    assert_ends(|| {
        run(|| {
            let (trace, let_go) = (Trace::default(), Gate::default());
            let (seen, wait) = (trace.clone(), let_go.clone());
            let first = thread::spawn(move || {
                let mut held = std::io::stdout().lock();
                seen.add("held");
                wait.wait();
                held.flush().unwrap();
                seen.add("let go");
            });
            settle();
            let seen = trace.clone();
            let second = thread::spawn(move || {
                drop(std::io::stdout().lock());
                seen.add("second");
            });
            settle();
            assert_eq!(trace.taken(), ["held"]);
            let third = thread::spawn(move || let_go.open());
            // A greenlet, too.
            drop(std::io::stdout().lock());
            second.join().unwrap();
            assert_eq!(trace.taken(), ["let go", "second"]);
            first.join().unwrap();
            third.join().unwrap();
        });
    });
}

#[test]
fn os_threads_are_spawned_and_scoped_by_a_virtual_thread() {
    assert_ends(|| {
        run(|| {
            let ticks = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&ticks);
            let scopes = thread::spawn(move || {
                let (sender, receiver) = mpsc::channel();
                let sum = os::scope(|scope| {
                    // They end when another virtual thread has run meanwhile.
                    let waits = scope.spawn(move || receiver.recv().unwrap());
                    let other = scope.spawn(|| 2);
                    while seen.load(Ordering::Relaxed) == 0 {
                        thread::yield_now();
                    }
                    sender.send(1).unwrap();
                    waits.join().unwrap() + other.join().unwrap()
                });
                assert_eq!(sum, 3);
            });
            let tick = thread::spawn(move || ticks.fetch_add(1, Ordering::Relaxed));
            tick.join().unwrap();
            scopes.join().unwrap();
        });
    });
}

#[test]
fn a_kill_waits_until_the_lock_is_got_and_the_dump_says_why() {
    assert_ends(|| {
        run(|| {
            let (trace, let_go, mutex) = (Trace::default(), Gate::default(), mutex());
            let first = holder(&trace, &let_go, || mutex.lock().unwrap());
            settle();
            let waits = thread::spawn(move || {
                *mutex.lock().unwrap() += 1;
                thread::sleep(Duration::from_secs(1000));
            });
            settle();
            waits.kill();
            settle();
            assert!(!waits.is_finished());
            let dump = greenloop::dump().to_string();
            assert!(dump.contains("no kill ends this wait"), "{dump}");
            let_go.open();
            assert!(waits.join().is_err());
            assert_eq!(*mutex.lock().unwrap(), 1);
            first.join().unwrap();
        });
    });
}

/// Everybody at the same locks for a while: several hubs, their virtual threads and greenlets, and
/// plain threads. That it ends is what is tested, and that nobody is inside together.
#[test]
fn slow_everybody_takes_turns_with_the_same_locks() {
    const FOR: Duration = Duration::from_secs(2);
    struct Shared {
        std: Mutex<u64>,
        lot: parking_lot::Mutex<u64>,
        changed: Condvar,
        inside: AtomicU32,
        is_over: AtomicBool,
    }
    /// Takes both until it is over, giving way inside. Returns how often.
    fn take(shared: &Shared, give_way: impl Fn()) -> u64 {
        let mut count = 0;
        while !shared.is_over.load(Ordering::Relaxed) {
            let mut held = shared.std.lock().unwrap();
            assert_eq!(shared.inside.fetch_add(1, Ordering::Relaxed), 0, "two are inside");
            give_way();
            *held += 1;
            shared.inside.fetch_sub(1, Ordering::Relaxed);
            if count % 7 == 3 {
                let limit = Duration::from_micros(300);
                drop(shared.changed.wait_timeout(held, limit).unwrap());
            } else {
                drop(held);
                shared.changed.notify_one();
            }
            let mut held = shared.lot.lock();
            let before = *held;
            give_way();
            *held = before + 1;
            count += 1;
        }
        count
    }
    assert_ends(|| {
        let shared = Arc::new(Shared {
            std: Mutex::default(),
            lot: parking_lot::Mutex::default(),
            changed: Condvar::new(),
            inside: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
        });
        let hubs = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            os::spawn(move || {
                run(|| {
                    let threads: Vec<_> = (0..4)
                        .map(|_| {
                            let shared = Arc::clone(&shared);
                            thread::spawn(move || take(&shared, thread::yield_now))
                        })
                        .collect();
                    let own = Arc::clone(&shared);
                    let greenlet = spawn(move || take(&own, || ()));
                    let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
                    sum + greenlet.join().unwrap()
                })
            })
        });
        let threads = [(); 2].map(|()| {
            let shared = Arc::clone(&shared);
            os::spawn(move || take(&shared, os::yield_now))
        });
        let begun = Instant::now();
        while begun.elapsed() < FOR {
            os::yield_now();
            os::park_timeout(Duration::from_millis(50));
        }
        shared.is_over.store(true, Ordering::Relaxed);
        let counts = hubs.into_iter().chain(threads).map(|thread| thread.join().unwrap());
        let counts: Vec<u64> = counts.collect();
        assert!(counts.iter().all(|count| *count > 0), "somebody starves: {counts:?}");
        assert_eq!(*shared.lot.lock(), counts.iter().sum::<u64>());
    });
}
