//! Mutexes of libc's.
//!
//! Floor 8. Uses: `wait`, `layout`, `next`. Used by: the names that `interpose!()` defines,
//! `condition`. See `locks` for how.
//!
//! Recursive and error-checking mutexes exclude two virtual threads as they exclude two threads,
//! for libc finds another thread number in each one's control block.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`); a mutex is one, hence valid for `layout`.

use libc::{
    EBUSY, ENOTSUP, ETIMEDOUT, PTHREAD_MUTEX_ERRORCHECK, c_int, clockid_t, pthread_mutex_t,
    timespec,
};

use super::{
    attempt_until,
    layout::{INHERITS, KIND_MASK, PROTECTS, ROBUST, SHARED, mutex_kind, mutex_owner},
};
use crate::{
    hub::guest::GUEST_TIDS,
    interpose::{
        next,
        wait::{Limit, Waiter, released},
    },
};

/// How often a mutex is tried whose holder has not said yet who it is: it is about to.
const LOOKS: u32 = 100;

/// pthread_mutex_lock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_mutex_lock(mutex) };
    };
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_mutex_lock(mutex) }
    };
    // SAFETY: HOOK-1.
    unsafe { lock(waiter, mutex, Limit::Never, real) }
}

/// pthread_mutex_timedlock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_timedlock(
    mutex: *mut pthread_mutex_t,
    deadline: *const timespec,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_mutex_timedlock(mutex, deadline) };
    };
    // SAFETY: HOOK-1.
    let limit = Limit::at(libc::CLOCK_REALTIME, unsafe { *deadline });
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_mutex_timedlock(mutex, deadline) }
    };
    // SAFETY: HOOK-1.
    unsafe { lock(waiter, mutex, limit, real) }
}

/// pthread_mutex_clocklock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_clocklock(
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_mutex_clocklock(mutex, clock, deadline) };
    };
    // SAFETY: HOOK-1.
    let limit = Limit::at(clock, unsafe { *deadline });
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_mutex_clocklock(mutex, clock, deadline) }
    };
    // SAFETY: HOOK-1.
    unsafe { lock(waiter, mutex, limit, real) }
}

/// pthread_mutex_trylock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int {
    match Waiter::here() {
        // SAFETY: HOOK-1.
        Some(Waiter::Guest(_)) if !unsafe { is_for_guests(mutex) } => ENOTSUP,
        // SAFETY: HOOK-1.
        _ => unsafe { next::pthread_mutex_trylock(mutex) },
    }
}

/// pthread_mutex_unlock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::pthread_mutex_unlock(mutex) };
    released(mutex.addr(), 1); // LOCK-2: a number.
    result
}

/// Whether a virtual thread can hold it: the kernel keeps some by OS thread.
///
/// # Safety
///
/// `mutex` is one.
unsafe fn is_for_guests(mutex: *const pthread_mutex_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { mutex_kind(mutex) }.is_none_or(|kind| kind & (ROBUST | INHERITS | PROTECTS) == 0)
}

/// What an attempt came to.
enum Attempt {
    /// This is what libc says.
    Done(c_int),
    /// libc must do it.
    Real,
}

/// Locks a mutex for who must not wait in libc while a virtual thread holds it. `real` is what libc
/// does with the same arguments.
///
/// # Safety
///
/// `mutex` is one.
pub(super) unsafe fn lock(
    waiter: Waiter,
    mutex: *mut pthread_mutex_t,
    limit: Limit,
    real: impl Fn() -> c_int,
) -> c_int {
    // SAFETY: the caller's promise.
    if waiter.is_guest() && !unsafe { is_for_guests(mutex) } {
        return ENOTSUP;
    }
    // SAFETY: the caller's promise.
    let result = unsafe { next::pthread_mutex_trylock(mutex) };
    if result != EBUSY {
        return result;
    }
    // SAFETY: the caller's promise.
    let is_shared = unsafe { mutex_kind(mutex) }.is_none_or(|kind| kind & SHARED != 0);
    // SAFETY: the caller's promise.
    let attempt = || unsafe { attempt(waiter.tid(), mutex) };
    let late = || Attempt::Done(ETIMEDOUT);
    let stuck = || Attempt::Real;
    match attempt_until(waiter, mutex.addr(), limit, is_shared, attempt, late, stuck) {
        Attempt::Done(result) => result,
        Attempt::Real => real(),
    }
}

/// Tries to lock it. `None`: it is held by somebody who must be let run.
///
/// # Safety
///
/// `mutex` is one.
unsafe fn attempt(tid: i32, mutex: *mut pthread_mutex_t) -> Option<Attempt> {
    for _ in 0..LOOKS {
        // SAFETY: the caller's promise.
        let result = unsafe { next::pthread_mutex_trylock(mutex) };
        if result != EBUSY {
            return Some(Attempt::Done(result));
        }
        // SAFETY: the caller's promise.
        match unsafe { mutex_owner(mutex, tid) } {
            // It has been got, or let go, a moment ago.
            Some(0) => rustix::thread::sched_yield(),
            // One that checks says that it is held by the caller; any other waits for ever.
            // SAFETY: the caller's promise.
            Some(owner) if owner == tid && unsafe { is_checking(mutex) } => {
                return Some(Attempt::Real);
            }
            Some(owner) if GUEST_TIDS.contains(&owner) || owner == own_thread() => return None,
            _ => return Some(Attempt::Real), // LOCK-1
        }
    }
    Some(Attempt::Real)
}

/// The number of the OS thread. Who holds a mutex in its name is a greenlet, or the hub that waits
/// below: it cannot go on while the caller runs.
fn own_thread() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}

/// Whether it says so when its holder locks it again.
///
/// # Safety
///
/// `mutex` is one.
unsafe fn is_checking(mutex: *const pthread_mutex_t) -> bool {
    // SAFETY: the caller's promise.
    let kind = unsafe { mutex_kind(mutex) };
    kind.is_some_and(|kind| kind & KIND_MASK == PTHREAD_MUTEX_ERRORCHECK as u32)
}
