//! Locks of libc's, as C libraries call them.

#![expect(unsafe_code, reason = "C's functions")]

use std::{
    cell::UnsafeCell,
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering},
        mpsc,
    },
    thread as os,
    time::{Duration, Instant},
};

use greenloop::{run, thread};
use libc::{c_int, clockid_t, timespec};

use crate::{
    locks::{Gate, Trace, settle},
    of::Of,
    support::assert_ends,
};

unsafe extern "C" {
    fn pthread_mutex_clocklock(
        mutex: *mut libc::pthread_mutex_t,
        clock: clockid_t,
        deadline: *const timespec,
    ) -> c_int;
    fn pthread_cond_clockwait(
        condition: *mut libc::pthread_cond_t,
        mutex: *mut libc::pthread_mutex_t,
        clock: clockid_t,
        deadline: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_clockrdlock(
        lock: *mut libc::pthread_rwlock_t,
        clock: clockid_t,
        deadline: *const timespec,
    ) -> c_int;
    fn pthread_rwlock_timedwrlock(
        lock: *mut libc::pthread_rwlock_t,
        deadline: *const timespec,
    ) -> c_int;
    fn sem_clockwait(
        semaphore: *mut libc::sem_t,
        clock: clockid_t,
        deadline: *const timespec,
    ) -> c_int;
    fn pthread_once(once: *mut c_int, routine: extern "C" fn()) -> c_int;
    fn pthread_mutexattr_setprotocol(
        attributes: *mut libc::pthread_mutexattr_t,
        protocol: c_int,
    ) -> c_int;
}

impl<T> Of<T> {
    /// Made by a function that gives 0.
    fn new(make: impl FnOnce(*mut T) -> c_int) -> Of<T> {
        let made = Of::zeroed();
        assert_eq!(make(made.get()), 0);
        made
    }
}

type Mutex = Of<libc::pthread_mutex_t>;

impl Mutex {
    fn with(set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> c_int) -> Mutex {
        // SAFETY: a fresh one.
        let attributes = Of::new(|it| unsafe { libc::pthread_mutexattr_init(it) });
        assert_eq!(set(attributes.get()), 0);
        // SAFETY: a fresh one, and attributes that were made.
        Of::new(|it| unsafe { libc::pthread_mutex_init(it, attributes.get()) })
    }

    fn of_kind(kind: c_int) -> Mutex {
        // SAFETY: fresh attributes.
        Mutex::with(|it| unsafe { libc::pthread_mutexattr_settype(it, kind) })
    }

    fn lock(self) -> c_int {
        // SAFETY: a mutex.
        unsafe { libc::pthread_mutex_lock(self.get()) }
    }

    fn try_lock(self) -> c_int {
        // SAFETY: a mutex.
        unsafe { libc::pthread_mutex_trylock(self.get()) }
    }

    fn unlock(self) -> c_int {
        // SAFETY: a mutex.
        unsafe { libc::pthread_mutex_unlock(self.get()) }
    }
}

/// So many milliseconds from now on, by this clock.
fn after(clock: clockid_t, ms: i64) -> timespec {
    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it is written.
    unsafe { libc::clock_gettime(clock, &mut now) };
    let ns = now.tv_nsec + ms * 1_000_000;
    timespec { tv_sec: now.tv_sec + ns / 1_000_000_000, tv_nsec: ns % 1_000_000_000 }
}

/// A time that is none.
const BAD: timespec = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };

/// Takes something on a virtual thread, keeps it across a suspension, and gives it back; meanwhile
/// another virtual thread wants it, and gets it afterwards.
fn excludes(take: impl Fn() + Clone + Send + 'static, give: impl Fn() + Clone + Send + 'static) {
    assert_ends(move || {
        run(|| {
            let (trace, let_go) = (Trace::default(), Gate::default());
            let (seen, wait, take_it, give_it) =
                (trace.clone(), let_go.clone(), take.clone(), give.clone());
            let first = thread::spawn(move || {
                take_it();
                seen.add("held");
                wait.wait();
                seen.add("let go");
                give_it();
            });
            let seen = trace.clone();
            let second = thread::spawn(move || {
                take();
                seen.add("got");
                give();
            });
            settle();
            assert_eq!(trace.taken(), ["held"]);
            let_go.open();
            second.join().unwrap();
            first.join().unwrap();
            assert_eq!(trace.taken(), ["let go", "got"]);
        });
    });
}

#[test]
fn mutexes_of_all_kinds_exclude_virtual_threads_of_one_os_thread() {
    for kind in [
        libc::PTHREAD_MUTEX_NORMAL,
        libc::PTHREAD_MUTEX_RECURSIVE,
        libc::PTHREAD_MUTEX_ERRORCHECK,
        3, // PTHREAD_MUTEX_ADAPTIVE_NP
    ] {
        let mutex = Mutex::of_kind(kind);
        excludes(move || assert_eq!(mutex.lock(), 0), move || assert_eq!(mutex.unlock(), 0));
    }
}

#[test]
fn the_kinds_of_mutexes_keep_their_ways() {
    assert_ends(|| {
        run(|| {
            let recursive = Mutex::of_kind(libc::PTHREAD_MUTEX_RECURSIVE);
            let checking = Mutex::of_kind(libc::PTHREAD_MUTEX_ERRORCHECK);
            let let_go = Gate::default();
            let wait = let_go.clone();
            let first = thread::spawn(move || {
                assert_eq!([recursive.lock(), recursive.lock(), recursive.try_lock()], [0; 3]);
                assert_eq!([checking.lock(), checking.lock()], [0, libc::EDEADLK]);
                wait.wait();
                assert_eq!([recursive.unlock(), recursive.unlock(), recursive.unlock()], [0; 3]);
                assert_eq!([recursive.unlock(), checking.unlock()], [libc::EPERM, 0]);
            });
            settle();
            let second = thread::spawn(move || {
                let results = [recursive.try_lock(), recursive.unlock()];
                assert_eq!(results, [libc::EBUSY, libc::EPERM]);
                assert_eq!([checking.try_lock(), checking.unlock()], [libc::EBUSY, libc::EPERM]);
            });
            second.join().unwrap();
            let_go.open();
            first.join().unwrap();
        });
    });
}

#[test]
fn locks_that_the_kernel_keeps_by_thread_are_refused() {
    assert_ends(|| {
        run(|| {
            // SAFETY: fresh attributes.
            let inherits = Mutex::with(|it| unsafe { pthread_mutexattr_setprotocol(it, 1) });
            // SAFETY: fresh attributes.
            let robust = Mutex::with(|it| unsafe {
                libc::pthread_mutexattr_setrobust(it, libc::PTHREAD_MUTEX_ROBUST)
            });
            let locks = thread::spawn(move || {
                for mutex in [inherits, robust] {
                    assert_eq!([mutex.lock(), mutex.try_lock()], [libc::ENOTSUP; 2]);
                }
            });
            locks.join().unwrap();
            for mutex in [inherits, robust] {
                assert_eq!([mutex.lock(), mutex.unlock()], [0; 2]);
            }
        });
    });
}

#[test]
fn a_greenlet_gets_a_mutex_that_a_suspended_virtual_thread_holds() {
    assert_ends(|| {
        run(|| {
            let mutex = Mutex::of_kind(libc::PTHREAD_MUTEX_NORMAL);
            let (trace, let_go) = (Trace::default(), Gate::default());
            let (seen, wait) = (trace.clone(), let_go.clone());
            let first = thread::spawn(move || {
                assert_eq!(mutex.lock(), 0);
                wait.wait();
                seen.add("let go");
                assert_eq!(mutex.unlock(), 0);
            });
            settle();
            let second = thread::spawn(move || let_go.open());
            assert_eq!(mutex.lock(), 0);
            assert_eq!(trace.taken(), ["let go"]);
            assert_eq!(mutex.unlock(), 0);
            first.join().unwrap();
            second.join().unwrap();
        });
    });
}

#[test]
fn an_os_thread_and_a_virtual_thread_take_turns_with_a_mutex() {
    assert_ends(|| {
        let mutex = Mutex::of_kind(libc::PTHREAD_MUTEX_NORMAL);
        let count = Arc::new(AtomicU32::new(0));
        let add = move |count: &AtomicU32, give_way: fn()| {
            for _ in 0..200 {
                assert_eq!(mutex.lock(), 0);
                let before = count.load(Ordering::Relaxed);
                give_way();
                count.store(before + 1, Ordering::Relaxed);
                assert_eq!(mutex.unlock(), 0);
            }
        };
        let theirs = Arc::clone(&count);
        let other = os::spawn(move || add(&theirs, os::yield_now));
        run(|| {
            let threads = [(); 2].map(|()| {
                let count = Arc::clone(&count);
                thread::spawn(move || add(&count, thread::yield_now))
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        other.join().unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 600);
    });
}

#[test]
fn a_mutex_is_waited_for_no_longer_than_was_said() {
    assert_ends(|| {
        run(|| {
            let mutex = Mutex::of_kind(libc::PTHREAD_MUTEX_NORMAL);
            let let_go = Gate::default();
            let wait = let_go.clone();
            let first = thread::spawn(move || {
                assert_eq!(mutex.lock(), 0);
                wait.wait();
                assert_eq!(mutex.unlock(), 0);
            });
            settle();
            let timed = move |time: timespec| {
                // SAFETY: a mutex and a time.
                unsafe { libc::pthread_mutex_timedlock(mutex.get(), &time) }
            };
            let clocked = move |clock, time: timespec| {
                // SAFETY: as above.
                unsafe { pthread_mutex_clocklock(mutex.get(), clock, &time) }
            };
            let tries = move || {
                let begun = Instant::now();
                let results = [
                    timed(after(libc::CLOCK_REALTIME, 2)),
                    clocked(libc::CLOCK_MONOTONIC, after(libc::CLOCK_MONOTONIC, 2)),
                ];
                assert_eq!(results, [libc::ETIMEDOUT; 2]);
                assert!(begun.elapsed() >= Duration::from_millis(3));
                assert_eq!(timed(BAD), libc::EINVAL);
            };
            thread::spawn(tries).join().unwrap();
            // A greenlet, too.
            tries();
            let gets = thread::spawn(move || {
                assert_eq!(timed(after(libc::CLOCK_REALTIME, 10_000)), 0);
                assert_eq!(mutex.unlock(), 0);
            });
            settle();
            let_go.open();
            gets.join().unwrap();
            first.join().unwrap();
        });
    });
}

#[derive(Clone, Copy)]
struct Condition(Of<libc::pthread_cond_t>, Mutex);

impl Condition {
    fn new(clock: clockid_t, processes: c_int) -> Condition {
        // SAFETY: a fresh one.
        let attributes = Of::new(|it| unsafe { libc::pthread_condattr_init(it) });
        // SAFETY: made just now.
        unsafe { libc::pthread_condattr_setclock(attributes.get(), clock) };
        // SAFETY: as above.
        unsafe { libc::pthread_condattr_setpshared(attributes.get(), processes) };
        // SAFETY: a fresh one, and attributes that were made.
        let condition = Of::new(|it| unsafe { libc::pthread_cond_init(it, attributes.get()) });
        Condition(condition, Mutex::of_kind(libc::PTHREAD_MUTEX_ERRORCHECK))
    }

    fn wait(self) -> c_int {
        // SAFETY: a condition, and a mutex that the caller holds.
        unsafe { libc::pthread_cond_wait(self.0.get(), self.1.get()) }
    }

    fn timed_wait(self, time: timespec) -> c_int {
        // SAFETY: as above.
        unsafe { libc::pthread_cond_timedwait(self.0.get(), self.1.get(), &time) }
    }

    fn signal(self) {
        // SAFETY: a condition.
        assert_eq!(unsafe { libc::pthread_cond_signal(self.0.get()) }, 0);
    }

    fn broadcast(self) {
        // SAFETY: a condition.
        assert_eq!(unsafe { libc::pthread_cond_broadcast(self.0.get()) }, 0);
    }
}

#[test]
fn a_condition_reaches_virtual_threads_and_plain_ones() {
    assert_ends(|| {
        let condition = Condition::new(libc::CLOCK_MONOTONIC, 0);
        let left = Arc::new(AtomicI32::new(0));
        let take = {
            let left = Arc::clone(&left);
            move || {
                assert_eq!(condition.1.lock(), 0);
                while left.load(Ordering::Relaxed) == 0 {
                    assert_eq!(condition.wait(), 0);
                }
                left.fetch_sub(1, Ordering::Relaxed);
                assert_eq!(condition.1.unlock(), 0);
            }
        };
        let others = [take.clone(), take.clone()].map(os::spawn);
        let give = move |count, tell: fn(Condition)| {
            assert_eq!(condition.1.lock(), 0);
            left.fetch_add(count, Ordering::Relaxed);
            assert_eq!(condition.1.unlock(), 0);
            tell(condition);
        };
        run(|| {
            let threads = [(); 4].map(|()| thread::spawn(take.clone()));
            settle();
            give(1, Condition::signal); // By a greenlet.
            settle();
            let give_one = give.clone();
            thread::spawn(move || give_one(1, Condition::signal)).join().unwrap();
            let give_all = give.clone();
            os::spawn(move || give_all(4, Condition::broadcast));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        others.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_greenlet_waits_for_a_condition_that_a_virtual_thread_signals() {
    assert_ends(|| {
        run(|| {
            let condition = Condition::new(libc::CLOCK_MONOTONIC, 0);
            let is_time = Arc::new(AtomicBool::new(false));
            let tells = Arc::clone(&is_time);
            assert_eq!(condition.1.lock(), 0);
            let signals = thread::spawn(move || {
                // It waits for the greenlet to let go of the mutex, which it does as it waits.
                assert_eq!(condition.1.lock(), 0);
                tells.store(true, Ordering::Relaxed);
                condition.signal();
                assert_eq!(condition.1.unlock(), 0);
            });
            settle();
            while !is_time.load(Ordering::Relaxed) {
                assert_eq!(condition.wait(), 0);
            }
            assert_eq!(condition.1.unlock(), 0);
            signals.join().unwrap();
        });
    });
}

#[test]
fn a_condition_is_waited_for_by_its_own_clock() {
    assert_ends(|| {
        run(|| {
            let waits = thread::spawn(|| {
                for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
                    let condition = Condition::new(clock, 0);
                    assert_eq!(condition.wait(), libc::EPERM, "the mutex is not held");
                    assert_eq!(condition.1.lock(), 0);
                    let begun = Instant::now();
                    assert_eq!(condition.timed_wait(after(clock, 2)), libc::ETIMEDOUT);
                    let time = after(libc::CLOCK_MONOTONIC, 2);
                    let (condition_at, mutex) = (condition.0.get(), condition.1.get());
                    // SAFETY: a condition, its mutex, and a time.
                    let clocked = unsafe {
                        pthread_cond_clockwait(condition_at, mutex, libc::CLOCK_MONOTONIC, &time)
                    };
                    assert_eq!(clocked, libc::ETIMEDOUT);
                    assert!(begun.elapsed() >= Duration::from_millis(3));
                    assert_eq!(condition.timed_wait(BAD), libc::EINVAL);
                    // It holds the mutex again.
                    assert_eq!(condition.1.unlock(), 0);
                }
            });
            waits.join().unwrap();
        });
    });
}

type Lock = Of<libc::pthread_rwlock_t>;

impl Lock {
    fn shared_by(processes: c_int) -> Lock {
        // SAFETY: a fresh one.
        let attributes = Of::new(|it| unsafe { libc::pthread_rwlockattr_init(it) });
        // SAFETY: made just now.
        unsafe { libc::pthread_rwlockattr_setpshared(attributes.get(), processes) };
        // SAFETY: a fresh one, and attributes that were made.
        Of::new(|it| unsafe { libc::pthread_rwlock_init(it, attributes.get()) })
    }

    fn read(self) -> c_int {
        // SAFETY: a lock.
        unsafe { libc::pthread_rwlock_rdlock(self.get()) }
    }

    fn write(self) -> c_int {
        // SAFETY: a lock.
        unsafe { libc::pthread_rwlock_wrlock(self.get()) }
    }

    fn unlock(self) -> c_int {
        // SAFETY: a lock.
        unsafe { libc::pthread_rwlock_unlock(self.get()) }
    }
}

#[test]
fn readers_and_writers_exclude_one_another() {
    let lock = Lock::shared_by(0);
    excludes(move || assert_eq!(lock.write(), 0), move || assert_eq!(lock.unlock(), 0));
    assert_ends(move || {
        run(|| {
            let (trace, let_go) = (Trace::default(), Gate::default());
            let reader = |wait: Gate| {
                let seen = trace.clone();
                move || {
                    assert_eq!(lock.read(), 0);
                    seen.add("reads");
                    wait.wait();
                    seen.add("let go");
                    assert_eq!(lock.unlock(), 0);
                }
            };
            let readers = [(); 2].map(|()| thread::spawn(reader(let_go.clone())));
            settle();
            assert_eq!(trace.taken(), ["reads", "reads"]);
            let seen = trace.clone();
            let writer = thread::spawn(move || {
                assert_eq!(lock.write(), 0);
                seen.add("writes");
                assert_eq!(lock.write(), libc::EDEADLK);
                assert_eq!(lock.unlock(), 0);
            });
            settle();
            let time = after(libc::CLOCK_MONOTONIC, 2);
            let other = thread::spawn(move || {
                // SAFETY: a lock and a time. Readers do not exclude one another.
                let result =
                    unsafe { pthread_rwlock_clockrdlock(lock.get(), libc::CLOCK_MONOTONIC, &time) };
                assert_eq!([result, lock.unlock()], [0; 2]);
                // SAFETY: a lock and a time.
                unsafe { pthread_rwlock_timedwrlock(lock.get(), &after(libc::CLOCK_REALTIME, 2)) }
            });
            assert_eq!(other.join().unwrap(), libc::ETIMEDOUT);
            let third = thread::spawn(move || let_go.open());
            // The greenlet lets all of them run: it comes when the lock is free, or after.
            assert_eq!(lock.write(), 0);
            assert_eq!(lock.unlock(), 0);
            writer.join().unwrap();
            assert_eq!(trace.taken(), ["let go", "let go", "writes"]);
            readers.into_iter().for_each(|thread| thread.join().unwrap());
            third.join().unwrap();
        });
    });
}

type Semaphore = Of<libc::sem_t>;

impl Semaphore {
    fn with(value: u32, processes: c_int) -> Semaphore {
        // SAFETY: a fresh one.
        Of::new(|it| unsafe { libc::sem_init(it, processes, value) })
    }

    fn wait(self) -> c_int {
        // SAFETY: a semaphore.
        unsafe { libc::sem_wait(self.get()) }
    }

    fn post(self) {
        // SAFETY: a semaphore.
        assert_eq!(unsafe { libc::sem_post(self.get()) }, 0);
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

#[test]
fn semaphores_count_for_virtual_threads_greenlets_and_os_threads() {
    let semaphore = Semaphore::with(1, 0);
    excludes(move || assert_eq!(semaphore.wait(), 0), move || semaphore.post());
    assert_ends(|| {
        let semaphore = Semaphore::with(0, 0);
        let other = os::spawn(move || semaphore.wait());
        run(|| {
            let threads = [(); 3].map(|()| thread::spawn(move || semaphore.wait()));
            settle();
            os::spawn(move || semaphore.post());
            let posts = thread::spawn(move || (0..4).for_each(|_| semaphore.post()));
            assert_eq!(semaphore.wait(), 0);
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 0));
            posts.join().unwrap();
            let semaphore = Semaphore::with(0, 0);
            let waits = thread::spawn(move || {
                let begun = Instant::now();
                let time = after(libc::CLOCK_REALTIME, 2);
                // SAFETY: a semaphore and a time.
                let timed = unsafe { libc::sem_timedwait(semaphore.get(), &time) };
                assert_eq!((timed, errno()), (-1, libc::ETIMEDOUT));
                let time = after(libc::CLOCK_MONOTONIC, 2);
                // SAFETY: as above.
                let clocked =
                    unsafe { sem_clockwait(semaphore.get(), libc::CLOCK_MONOTONIC, &time) };
                assert_eq!((clocked, errno()), (-1, libc::ETIMEDOUT));
                assert!(begun.elapsed() >= Duration::from_millis(3));
                // SAFETY: as above.
                let bad = unsafe { libc::sem_timedwait(semaphore.get(), &BAD) };
                assert_eq!((bad, errno()), (-1, libc::EINVAL));
            });
            waits.join().unwrap();
        });
        assert_eq!(other.join().unwrap(), 0);
    });
}

/// sem_post(3) is allowed in a handler, which may interrupt whoever is in the midst of a wait or a
/// wake for the same semaphore, and hold the latch that it needs.
#[test]
fn slow_a_semaphore_is_posted_by_a_signal_handler_at_any_moment() {
    static SEMAPHORE: AtomicPtr<libc::sem_t> = AtomicPtr::new(ptr::null_mut());
    static POSTED: AtomicU32 = AtomicU32::new(0);
    extern "C" fn post(_: c_int) {
        // SAFETY: a semaphore, since the handler is installed later.
        unsafe { libc::sem_post(SEMAPHORE.load(Ordering::Relaxed)) };
        POSTED.fetch_add(1, Ordering::Relaxed);
    }
    const ROUNDS: u32 = 3000;
    assert_ends(|| {
        let semaphore = Semaphore::with(0, 0);
        SEMAPHORE.store(semaphore.get(), Ordering::Relaxed);
        // SAFETY: the handler does what a handler may.
        unsafe { libc::signal(libc::SIGUSR2, post as *const () as libc::sighandler_t) };
        // SAFETY: no argument.
        let target = unsafe { libc::pthread_self() };
        let is_over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_over);
        let interrupts = os::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                // SAFETY: that thread runs until this one has ended.
                unsafe { libc::pthread_kill(target, libc::SIGUSR2) };
                os::yield_now();
            }
        });
        run(|| {
            let threads = [(); 3].map(|()| {
                thread::spawn(move || {
                    for _ in 0..ROUNDS {
                        assert_eq!(semaphore.wait(), 0);
                        thread::yield_now();
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        is_over.store(true, Ordering::Relaxed);
        interrupts.join().unwrap();
        assert!(POSTED.load(Ordering::Relaxed) >= 3 * ROUNDS);
    });
}

#[test]
fn what_is_done_once_is_waited_for() {
    static ONCE: Control = Control(UnsafeCell::new(0));
    static RUNS: AtomicU32 = AtomicU32::new(0);
    static LET_GO: std::sync::OnceLock<Gate> = std::sync::OnceLock::new();
    struct Control(UnsafeCell<c_int>);
    // SAFETY: libc changes it by atomic accesses.
    unsafe impl Sync for Control {}
    extern "C" fn routine() {
        RUNS.fetch_add(1, Ordering::Relaxed);
        LET_GO.get().unwrap().wait();
        RUNS.fetch_add(1, Ordering::Relaxed);
    }
    fn once() -> u32 {
        // SAFETY: a control word that was 0.
        assert_eq!(unsafe { pthread_once(ONCE.0.get(), routine) }, 0);
        RUNS.load(Ordering::Relaxed)
    }
    assert_ends(|| {
        run(|| {
            LET_GO.get_or_init(Gate::default);
            let threads = [(); 2].map(|()| thread::spawn(once));
            settle();
            assert_eq!(RUNS.load(Ordering::Relaxed), 1);
            let lets_go = thread::spawn(|| LET_GO.get().unwrap().open());
            assert_eq!(once(), 2); // A greenlet.
            threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 2));
            lets_go.join().unwrap();
            assert_eq!(once(), 2);
        });
    });
}

#[test]
fn a_barrier_counts_virtual_threads_greenlets_and_os_threads_alike() {
    const ROUNDS: u32 = 50;
    assert_ends(|| {
        // SAFETY: a fresh one.
        let barrier: Of<libc::pthread_barrier_t> =
            Of::new(|it| unsafe { libc::pthread_barrier_init(it, ptr::null(), 5) });
        let arrived = Arc::new(AtomicU32::new(0));
        let go = {
            let arrived = Arc::clone(&arrived);
            move || {
                let mut serial = 0;
                for round in 1..=ROUNDS {
                    arrived.fetch_add(1, Ordering::Relaxed);
                    // SAFETY: a barrier.
                    let result = unsafe { libc::pthread_barrier_wait(barrier.get()) };
                    assert!(arrived.load(Ordering::Relaxed) >= 5 * round, "some were left behind");
                    serial += u32::from(result == libc::PTHREAD_BARRIER_SERIAL_THREAD);
                }
                serial
            }
        };
        let others = [go.clone(), go.clone()].map(os::spawn);
        let ours: u32 = run(|| {
            let threads = [(); 2].map(|()| thread::spawn(go.clone()));
            go() + threads.map(|thread| thread.join().unwrap()).iter().sum::<u32>()
        });
        let theirs: u32 = others.map(|thread| thread.join().unwrap()).iter().sum();
        assert_eq!(ours + theirs, ROUNDS, "one of each round is told that it was the last");
        // SAFETY: a barrier that nobody waits at.
        assert_eq!(unsafe { libc::pthread_barrier_destroy(barrier.get()) }, 0);
    });
}

/// libc's own function waits until all have left, be they virtual threads of this thread.
#[test]
fn who_was_the_last_at_a_barrier_may_destroy_it_at_once() {
    assert_ends(|| {
        // SAFETY: a fresh one.
        let barrier: Of<libc::pthread_barrier_t> =
            Of::new(|it| unsafe { libc::pthread_barrier_init(it, ptr::null(), 2) });
        let go = move || {
            // SAFETY: a barrier.
            let result = unsafe { libc::pthread_barrier_wait(barrier.get()) };
            let is_last = result == libc::PTHREAD_BARRIER_SERIAL_THREAD;
            if is_last {
                // SAFETY: a barrier that nobody waits at.
                assert_eq!(unsafe { libc::pthread_barrier_destroy(barrier.get()) }, 0);
            }
            is_last
        };
        let were_last = run(|| {
            let threads = [go, go].map(thread::spawn);
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(were_last.iter().filter(|is_last| **is_last).count(), 1);
    });
}

/// libc's own function of that name, as another process would call it: it passes no hook.
fn unhooked(name: &std::ffi::CStr) -> unsafe extern "C" fn(*mut libc::c_void) -> c_int {
    // SAFETY: looks for a name.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null());
    // SAFETY: all that are asked for here take one pointer and give a number.
    unsafe { std::mem::transmute(found) }
}

#[test]
fn what_other_processes_let_go_is_noticed() {
    assert_ends(|| {
        // SAFETY: fresh attributes.
        let mutex = Mutex::with(|it| unsafe {
            libc::pthread_mutexattr_setpshared(it, libc::PTHREAD_PROCESS_SHARED)
        });
        let lock = Lock::shared_by(libc::PTHREAD_PROCESS_SHARED);
        let semaphore = Semaphore::with(0, 1);
        let condition = Condition::new(libc::CLOCK_REALTIME, libc::PTHREAD_PROCESS_SHARED);
        let is_time = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_time);
        run(|| {
            let let_go = Gate::default();
            let wait = let_go.clone();
            let holds = thread::spawn(move || {
                assert_eq!([mutex.lock(), lock.write()], [0; 2]);
                wait.wait();
                // SAFETY: of the kind that each takes, and held by this thread.
                unsafe { unhooked(c"pthread_mutex_unlock")(mutex.get().cast()) };
                // SAFETY: as above.
                unsafe { unhooked(c"pthread_rwlock_unlock")(lock.get().cast()) };
                // SAFETY: as above.
                unsafe { unhooked(c"sem_post")(semaphore.get().cast()) };
                is_time.store(true, Ordering::Relaxed);
                // SAFETY: as above.
                unsafe { unhooked(c"pthread_cond_signal")(condition.0.get().cast()) };
            });
            settle();
            let (tells, told) = mpsc::channel();
            let waits: [Box<dyn FnOnce() -> c_int + Send>; 4] = [
                Box::new(move || mutex.lock()),
                Box::new(move || lock.read()),
                Box::new(move || semaphore.wait()),
                Box::new(move || {
                    assert_eq!(condition.1.lock(), 0);
                    while !seen.load(Ordering::Relaxed) {
                        assert_eq!(condition.wait(), 0);
                    }
                    condition.1.unlock()
                }),
            ];
            for wait in waits {
                let tells = tells.clone();
                thread::spawn(move || tells.send(wait()).unwrap());
            }
            settle();
            assert!(told.try_recv().is_err());
            let_go.open();
            drop(tells);
            let told = thread::spawn(move || told.iter().collect::<Vec<_>>());
            assert_eq!(told.join().unwrap(), [0; 4]);
            holds.join().unwrap();
        });
    });
}

/// Its holder runs, so it is waited for as any thread waits: parking inside an allocator, whose
/// mutex this could be, would stop the hub's own allocations for ever.
#[test]
fn a_mutex_that_an_os_thread_holds_is_waited_for_in_libc() {
    assert_ends(|| {
        let mutex = Mutex::of_kind(libc::PTHREAD_MUTEX_NORMAL);
        let (has, had) = mpsc::channel();
        let (asks, asked) = mpsc::channel::<()>();
        let other = os::spawn(move || {
            assert_eq!(mutex.lock(), 0);
            has.send(()).unwrap();
            asked.recv().unwrap();
            assert_eq!(mutex.unlock(), 0);
        });
        had.recv().unwrap();
        run(|| {
            let trace = Trace::default();
            let seen = trace.clone();
            let locks = thread::spawn(move || {
                asks.send(()).unwrap();
                assert_eq!(mutex.lock(), 0);
                seen.add("got");
                assert_eq!(mutex.unlock(), 0);
            });
            let seen = trace.clone();
            let other = thread::spawn(move || seen.add("another"));
            locks.join().unwrap();
            other.join().unwrap();
            assert_eq!(trace.taken(), ["got", "another"]);
        });
        other.join().unwrap();
    });
}
