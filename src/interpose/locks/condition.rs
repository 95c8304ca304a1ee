//! Condition variables of libc's.
//!
//! Floor 8. Uses: `wait`, `mutex`, `layout`, `next`. Used by: the names that `interpose!()`
//! defines.
//!
//! Who waits here is in our own line at the condition's address before it lets go of the mutex, and
//! libc knows nothing of it. So a signal goes to both: one of those who wait in libc, one of ours.
//! "At least one" is what a signal unblocks, and neither sort can starve the other.
//!
//! Of a condition for several processes, signals of others do not come here: such a wait ends after
//! 10 ms for no reason, which conditions may.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`). The caller holds the mutex.

use libc::{EINVAL, ETIMEDOUT, c_int, clockid_t, pthread_cond_t, pthread_mutex_t, timespec};

use super::{
    layout,
    mutex::{lock, pthread_mutex_unlock},
};
use crate::interpose::{
    next,
    wait::{ANY, At, Limit, Waited, Waiter, signalled},
};

/// pthread_cond_wait(3).
pub unsafe extern "C-unwind" fn pthread_cond_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_cond_wait(condition, mutex) };
    };
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_cond_wait(condition, mutex) }
    };
    // SAFETY: HOOK-1.
    unsafe { wait(waiter, condition, mutex, |_| Limit::Never, real) }
}

/// pthread_cond_timedwait(3).
pub unsafe extern "C-unwind" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    deadline: *const timespec,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_cond_timedwait(condition, mutex, deadline) };
    };
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_cond_timedwait(condition, mutex, deadline) }
    };
    // SAFETY: HOOK-1.
    let time = unsafe { *deadline };
    // SAFETY: HOOK-1.
    unsafe { wait(waiter, condition, mutex, |clock| Limit::at(clock, time), real) }
}

/// pthread_cond_clockwait(3).
pub unsafe extern "C-unwind" fn pthread_cond_clockwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    let Some(waiter) = Waiter::here() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pthread_cond_clockwait(condition, mutex, clock, deadline) };
    };
    let real = || {
        // SAFETY: HOOK-1.
        unsafe { next::pthread_cond_clockwait(condition, mutex, clock, deadline) }
    };
    // SAFETY: HOOK-1.
    let limit = Limit::at(clock, unsafe { *deadline });
    // SAFETY: HOOK-1.
    unsafe { wait(waiter, condition, mutex, |_| limit, real) }
}

/// pthread_cond_signal(3).
pub unsafe extern "C-unwind" fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::pthread_cond_signal(condition) };
    // Whoever changed what is waited for has held the mutex since the waiter let go of it, in line
    // already; or is too early, with or without us.
    signalled(condition.addr(), 1);
    result
}

/// pthread_cond_broadcast(3).
pub unsafe extern "C-unwind" fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::pthread_cond_broadcast(condition) };
    signalled(condition.addr(), usize::MAX);
    result
}

/// Waits for a signal. `real` is what libc does with the same arguments.
///
/// # Safety
///
/// The contract of pthread_cond_wait(3).
unsafe fn wait(
    waiter: Waiter,
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    limit: impl FnOnce(clockid_t) -> Limit,
    real: impl FnOnce() -> c_int,
) -> c_int {
    if !waiter.can_wait() {
        return real();
    }
    // SAFETY: the caller's promise.
    let Some(made) = (unsafe { layout::condition(condition) }) else { return real() };
    let limit = limit(made.clock);
    if matches!(limit, Limit::Invalid) {
        return EINVAL;
    }
    let relock = || {
        let real = || {
            // SAFETY: HOOK-1.
            unsafe { next::pthread_mutex_lock(mutex) }
        };
        // SAFETY: HOOK-1.
        unsafe { lock(waiter, mutex, Limit::Never, real) }
    };
    let address = condition.addr();
    let until = if made.is_shared { limit.or_next_look() } else { limit };
    let at = At { address, bits: ANY, limit: until, is_shared: false };
    // What letting go of the mutex came to: it is let go once, when the caller is in line.
    let mut unlocked = None;
    let waited = waiter.wait(at, &mut || {
        // SAFETY: the caller holds it.
        let result = *unlocked.get_or_insert_with(|| unsafe { pthread_mutex_unlock(mutex) });
        result != 0
    });
    match (unlocked, waited) {
        // It could not be put in line, and has let go of nothing.
        (None, _) => real(),
        (Some(0), _) => match (relock(), waited) {
            (0, Waited::TimedOut) if limit.has_passed() => ETIMEDOUT,
            (result, _) => result,
        },
        (Some(error), _) => error,
    }
}
