//! Semaphores of libc's.
//!
//! Floor 8. Uses: `wait`, `layout`, `next`. Used by: the names that `interpose!()` defines. See
//! `locks` for how.
//!
//! A semaphore belongs to nobody, so who is refused parks. sem_post(3) may be called in a signal
//! handler, which is why `queue` and `inside` are as they are.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`); a semaphore is one, hence valid for `layout`.

use libc::{EAGAIN, ETIMEDOUT, c_int, clockid_t, sem_t, timespec};

use super::{attempt_until, layout::is_semaphore_shared};
use crate::interpose::{
    early::{errno, set_errno},
    next,
    wait::{Limit, Waiter, released},
};

/// sem_wait(3).
pub unsafe extern "C-unwind" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::sem_wait(semaphore) };
    };
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::sem_wait(semaphore) }
    };
    // SAFETY: HOOK-1.
    unsafe { take(waiter, semaphore, Limit::Never, real) }
}

/// sem_timedwait(3).
pub unsafe extern "C-unwind" fn sem_timedwait(
    semaphore: *mut sem_t,
    deadline: *const timespec,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::sem_timedwait(semaphore, deadline) };
    };
    // SAFETY: HOOK-1.
    let limit = Limit::at(libc::CLOCK_REALTIME, unsafe { *deadline });
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::sem_timedwait(semaphore, deadline) }
    };
    // SAFETY: HOOK-1.
    unsafe { take(waiter, semaphore, limit, real) }
}

/// sem_clockwait(3).
pub unsafe extern "C-unwind" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::sem_clockwait(semaphore, clock, deadline) };
    };
    // SAFETY: HOOK-1.
    let limit = Limit::at(clock, unsafe { *deadline });
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::sem_clockwait(semaphore, clock, deadline) }
    };
    // SAFETY: HOOK-1.
    unsafe { take(waiter, semaphore, limit, real) }
}

/// sem_trywait(3).
pub unsafe extern "C-unwind" fn sem_trywait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sem_trywait(semaphore) }
}

/// sem_post(3).
pub unsafe extern "C-unwind" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::sem_post(semaphore) };
    released(semaphore.addr(), 1); // LOCK-2: a number.
    result
}

/// Takes one, for who must not wait in libc. `real` is what libc does with the same arguments.
///
/// # Safety
///
/// `semaphore` is one.
unsafe fn take(
    waiter: Waiter,
    semaphore: *mut sem_t,
    limit: Limit,
    real: impl Fn() -> c_int,
) -> c_int {
    let before = errno();
    // SAFETY: the caller's promise.
    let attempt = || match unsafe { next::sem_trywait(semaphore) } {
        0 => Some(0),
        _ if errno() == EAGAIN => None,
        error => Some(error),
    };
    let result = attempt().unwrap_or_else(|| {
        // SAFETY: the caller's promise.
        let is_shared = unsafe { is_semaphore_shared(semaphore) };
        let late = || {
            set_errno(ETIMEDOUT);
            -1
        };
        attempt_until(waiter, semaphore.addr(), limit, is_shared, attempt, late, real)
    });
    if result == 0 {
        set_errno(before);
    }
    result
}
