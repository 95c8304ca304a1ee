//! Virtual threads that are frozen at the end of their run leave nobody waiting.

use std::{
    fs,
    hint::spin_loop,
    sync::{PoisonError, mpsc},
    thread as os,
    time::{Duration, Instant},
};

use greenloop::{reactor, run, shield, sync, thread, yield_now};

use crate::{
    c::{Mutex, Semaphore, settle},
    support::assert_ends,
};

/// How long the end of a run may take, and a little more.
const LIMIT: Duration = Duration::from_millis(20);
const MORE: Duration = Duration::from_millis(40);

/// More greenlets than a hub resumes before it looks at its timers.
const MANY: usize = 300;

/// Lets go of something when it is dropped.
struct Held<F: FnMut()>(F);

impl<F: FnMut()> Drop for Held<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Keeps the thread until time is over.
fn compute() {
    let begun = Instant::now();
    while begun.elapsed() < MORE {
        spin_loop();
    }
}

/// Returns when this thread of the process sleeps.
fn wait_until_asleep(tid: rustix::thread::Pid) {
    let path = format!("/proc/self/task/{tid}/stat");
    while !fs::read_to_string(&path).unwrap().contains(") S ") {
        os::yield_now();
    }
}

/// A run ends with a virtual thread in it which was woken, since it was the first to wait for what
/// `take` takes, and then frozen before it could run. `second` begins a wait of somebody else,
/// who comes after it, and gets it.
fn freezes_the_first<G>(
    take: impl Fn() -> G + Copy + Send + 'static,
    second: impl FnOnce() -> os::JoinHandle<()> + Send + 'static,
) {
    assert_ends(move || {
        let second = run(move || {
            reactor().set_shutdown_deadline(LIMIT);
            // They are killed in this order, and run in it: who lets go, so many that time is over
            // before the last one's turn comes, and the last one.
            thread::spawn(move || {
                let held = take();
                let _late = Held(compute);
                let _held = held;
                thread::sleep(Duration::MAX);
            });
            (0..MANY).for_each(|_| drop(thread::spawn(|| thread::sleep(Duration::MAX))));
            thread::spawn(move || {
                let _held = shield(take);
                unreachable!("it is frozen");
            });
            settle();
            second()
        });
        second.join().unwrap();
    });
}

/// An OS thread that waits for what `take` takes, and sleeps.
fn sleeper<G>(take: impl Fn() -> G + Send + 'static) -> os::JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let sleeper = os::spawn(move || {
        tell.send(rustix::thread::gettid()).unwrap();
        drop(take());
    });
    wait_until_asleep(told.recv().unwrap());
    sleeper
}

/// A virtual thread of another hub that waits for what `take` takes.
fn parker<G>(take: impl Fn() -> G + Send + 'static) -> os::JoinHandle<()> {
    let (tell, told) = mpsc::channel();
    let other = os::spawn(move || {
        run(|| {
            let waits = thread::spawn(move || drop(take()));
            settle();
            assert!(!waits.is_finished());
            tell.send(()).unwrap();
            waits.join().unwrap();
        });
    });
    told.recv().unwrap();
    other
}

#[test]
fn who_was_woken_and_is_frozen_passes_a_futex_on() {
    fn take() -> impl Fn() -> std::sync::MutexGuard<'static, ()> + Copy + Send {
        let mutex: &'static std::sync::Mutex<()> = Box::leak(Box::default());
        move || mutex.lock().unwrap_or_else(PoisonError::into_inner) // By a kill.
    }
    let lock = take();
    freezes_the_first(lock, move || parker(lock));
    let lock = take();
    freezes_the_first(lock, move || sleeper(lock));
}

#[test]
fn who_was_woken_and_is_frozen_passes_a_lock_of_libcs_on() {
    let mutex = Mutex::new();
    let lock = move || {
        mutex.lock();
        Held(move || mutex.unlock())
    };
    freezes_the_first(lock, move || parker(lock));
    let semaphore = Semaphore::new(1);
    let lock = move || {
        semaphore.wait();
        Held(move || semaphore.post())
    };
    freezes_the_first(lock, move || parker(lock));
}

#[test]
fn who_was_granted_and_is_frozen_passes_a_lock_of_ours_on() {
    fn take() -> impl Fn() -> sync::MutexGuard<'static, ()> + Copy + Send {
        let mutex: &'static sync::Mutex<()> = Box::leak(Box::new(sync::Mutex::new(())));
        move || mutex.lock().unwrap_or_else(PoisonError::into_inner) // By a kill.
    }
    let lock = take();
    freezes_the_first(lock, move || parker(lock));
    let lock = take();
    freezes_the_first(lock, move || sleeper(lock));
}

/// One that waits is taken out of line when it is frozen: a wake that comes later goes to another.
#[test]
fn who_is_frozen_is_in_no_line() {
    assert_ends(|| {
        let mutex: &'static std::sync::Mutex<()> = Box::leak(Box::default());
        let held = mutex.lock().unwrap();
        // A reactor inside of a virtual thread, whose own are frozen with it: nobody reads what is
        // sent to it, and nobody says that it has ended.
        let (tell, told) = mpsc::channel();
        let frozen = os::spawn(move || {
            run(move || {
                reactor().set_shutdown_deadline(LIMIT);
                thread::spawn(move || {
                    run(move || {
                        let inner = thread::spawn(move || drop(mutex.lock().unwrap()));
                        settle();
                        tell.send(inner).unwrap();
                        shield(|| sync::Event::new().wait());
                    });
                });
                for _ in 0..100 {
                    yield_now();
                }
            });
        });
        let inner = told.recv().unwrap();
        frozen.join().unwrap();
        assert!(inner.join().unwrap_err().is::<greenloop::Killed>());
        let next = parker(move || mutex.lock().unwrap());
        drop(held);
        next.join().unwrap();
    });
}

/// Whether all of these, which an OS thread joins, were killed.
fn are_killed<T>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) -> bool {
    let mut ends = threads.into_iter().map(thread::JoinHandle::join);
    ends.all(|end| end.is_err_and(|payload| payload.is::<greenloop::Killed>()))
}

#[test]
fn who_is_frozen_before_it_begins_is_joined() {
    assert_ends(|| {
        let (tell, told) = mpsc::channel();
        let joins = os::spawn(move || are_killed(told));
        run(move || {
            reactor().set_shutdown_deadline(LIMIT);
            thread::spawn(move || {
                // Time is over when these are spawned, and before the turn of the first comes.
                let _late = Held(|| {
                    compute();
                    (0..3).for_each(|_| tell.send(thread::spawn(|| ())).unwrap());
                });
                thread::sleep(Duration::MAX);
            });
            (0..MANY).for_each(|_| drop(thread::spawn(|| thread::sleep(Duration::MAX))));
            settle();
        });
        assert!(joins.join().unwrap());
    });
}

/// Waits for ever when it is dropped.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        shield(|| sync::Event::new().wait());
    }
}

#[test]
fn who_is_frozen_in_the_destructor_of_what_it_has_captured_is_joined() {
    assert_ends(|| {
        let (tell, told) = mpsc::channel();
        let joins = os::spawn(move || are_killed(told));
        run(move || {
            reactor().set_shutdown_deadline(LIMIT);
            thread::spawn(move || {
                // It is spawned in a run that ends, so it is killed before it begins.
                let _late = Held(|| {
                    let stays = Stays;
                    tell.send(thread::spawn(move || drop(stays))).unwrap();
                });
                thread::sleep(Duration::MAX);
            });
            settle();
        });
        assert!(joins.join().unwrap());
    });
}
