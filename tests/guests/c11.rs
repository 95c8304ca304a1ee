//! What <threads.h> has, on virtual threads.

use std::{
    ffi::{c_int, c_void},
    ptr::null_mut,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use greenloop::{run, sync::Event, thread};

use crate::{c::settle, of::Of, support::assert_ends};

type Mutex = Of<libc::pthread_mutex_t>;
type Condition = Of<libc::pthread_cond_t>;

unsafe extern "C" {
    fn mtx_init(mutex: *mut libc::pthread_mutex_t, kind: c_int) -> c_int;
    fn mtx_lock(mutex: *mut libc::pthread_mutex_t) -> c_int;
    fn mtx_trylock(mutex: *mut libc::pthread_mutex_t) -> c_int;
    fn mtx_timedlock(mutex: *mut libc::pthread_mutex_t, until: *const libc::timespec) -> c_int;
    fn mtx_unlock(mutex: *mut libc::pthread_mutex_t) -> c_int;
    fn cnd_init(condition: *mut libc::pthread_cond_t) -> c_int;
    fn cnd_wait(condition: *mut libc::pthread_cond_t, mutex: *mut libc::pthread_mutex_t) -> c_int;
    fn cnd_timedwait(
        condition: *mut libc::pthread_cond_t,
        mutex: *mut libc::pthread_mutex_t,
        until: *const libc::timespec,
    ) -> c_int;
    fn cnd_signal(condition: *mut libc::pthread_cond_t) -> c_int;
    fn cnd_broadcast(condition: *mut libc::pthread_cond_t) -> c_int;
    fn call_once(once: *mut c_int, routine: extern "C" fn());
    fn thrd_create(
        thread: *mut libc::pthread_t,
        start: extern "C" fn(*mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn thrd_join(thread: libc::pthread_t, value: *mut c_int) -> c_int;
}

unsafe extern "C-unwind" {
    fn thrd_exit(value: c_int) -> !;
}

const SUCCESS: c_int = 0;
const BUSY: c_int = 1;
const TIMED_OUT: c_int = 4;

const PAST: libc::timespec = libc::timespec { tv_sec: 1, tv_nsec: 0 };

fn mutex() -> Mutex {
    let mutex = Mutex::zeroed();
    // SAFETY: room for a plain one.
    assert_eq!(unsafe { mtx_init(mutex.get(), 0) }, SUCCESS);
    mutex
}

#[test]
fn a_mutex_of_c11_is_waited_for() {
    assert_ends(|| {
        run(|| {
            let (mutex, lets_go) = (mutex(), Arc::new(Event::new()));
            let is_let_go = Arc::clone(&lets_go);
            let first = thread::spawn(move || {
                // SAFETY: a mutex.
                assert_eq!(unsafe { mtx_lock(mutex.get()) }, SUCCESS);
                is_let_go.wait();
                // SAFETY: it is held here.
                assert_eq!(unsafe { mtx_unlock(mutex.get()) }, SUCCESS);
            });
            settle();
            let second = thread::spawn(move || {
                // SAFETY: a mutex.
                let tried = unsafe { mtx_trylock(mutex.get()) };
                // SAFETY: a mutex, and a time.
                let timed = unsafe { mtx_timedlock(mutex.get(), &PAST) };
                // SAFETY: a mutex.
                let locked = unsafe { mtx_lock(mutex.get()) };
                // SAFETY: it is held here.
                (tried, timed, locked, unsafe { mtx_unlock(mutex.get()) })
            });
            settle();
            assert!(!second.is_finished());
            lets_go.set();
            first.join().unwrap();
            assert_eq!(second.join().unwrap(), (BUSY, TIMED_OUT, SUCCESS, SUCCESS));
        });
    });
}

#[test]
fn a_condition_of_c11_is_waited_for() {
    assert_ends(|| {
        run(|| {
            let (mutex, condition) = (mutex(), Condition::zeroed());
            // SAFETY: room for one.
            assert_eq!(unsafe { cnd_init(condition.get()) }, SUCCESS);
            let is_time = Arc::new(AtomicBool::new(false));
            let waits: Vec<_> = (0..3)
                .map(|_| {
                    let is_time = Arc::clone(&is_time);
                    thread::spawn(move || {
                        // SAFETY: a mutex.
                        assert_eq!(unsafe { mtx_lock(mutex.get()) }, SUCCESS);
                        // SAFETY: a condition, a mutex that is held, a time.
                        let timed = unsafe { cnd_timedwait(condition.get(), mutex.get(), &PAST) };
                        while !is_time.load(Ordering::Relaxed) {
                            // SAFETY: a condition, and a mutex that is held.
                            assert_eq!(unsafe { cnd_wait(condition.get(), mutex.get()) }, SUCCESS);
                        }
                        // SAFETY: it is held here.
                        assert_eq!(unsafe { mtx_unlock(mutex.get()) }, SUCCESS);
                        timed
                    })
                })
                .collect();
            settle();
            thread::run(|| is_time.store(true, Ordering::Relaxed));
            // SAFETY: a condition.
            assert_eq!(unsafe { cnd_signal(condition.get()) }, SUCCESS);
            settle();
            let left = waits.iter().filter(|thread| !thread.is_finished()).count();
            assert_eq!(left, 2);
            // SAFETY: as above.
            assert_eq!(unsafe { cnd_broadcast(condition.get()) }, SUCCESS);
            waits.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), TIMED_OUT));
        });
    });
}

#[test]
fn what_is_called_once_is_waited_for() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn routine() {
        thread::yield_now();
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    assert_ends(|| {
        run(|| {
            let once: Of<c_int> = Of::zeroed();
            let callers = [(); 3].map(|()| {
                thread::spawn(move || {
                    // SAFETY: zero, as <threads.h> has it.
                    unsafe { call_once(once.get(), routine) };
                    CALLS.load(Ordering::Relaxed)
                })
            });
            callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap(), 1));
        });
    });
}

#[test]
fn a_thread_of_c11_is_created_and_joined_and_a_virtual_one_exits() {
    extern "C" fn start(argument: *mut c_void) -> c_int {
        argument.addr() as c_int + 1
    }
    assert_ends(|| {
        run(|| {
            let value = thread::run(|| {
                let (mut os_thread, mut value) = (0, 0);
                let argument = null_mut::<c_void>().wrapping_byte_add(4);
                // SAFETY: room for a handle; the function takes what it is given.
                let made = unsafe { thrd_create(&raw mut os_thread, start, argument) };
                assert_eq!(made, SUCCESS);
                // SAFETY: it has not been joined.
                assert_eq!(unsafe { thrd_join(os_thread, &raw mut value) }, SUCCESS);
                value
            });
            assert_eq!(value, 5);
            let exits = thread::spawn(|| {
                // SAFETY: what is in these frames is dropped.
                unsafe { thrd_exit(3) };
            });
            assert!(exits.join().is_err());
        });
    });
}
