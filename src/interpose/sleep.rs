//! Sleeping and yielding.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{c_int, c_uint, clockid_t, timespec, useconds_t},
    next,
};

/// clock_nanosleep(2).
pub unsafe extern "C-unwind" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    rest: *mut timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::clock_nanosleep(clock, flags, time, rest) }
}

/// nanosleep(2).
pub unsafe extern "C-unwind" fn nanosleep(time: *const timespec, rest: *mut timespec) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::nanosleep(time, rest) }
}

/// usleep(3).
pub unsafe extern "C-unwind" fn usleep(microseconds: useconds_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::usleep(microseconds) }
}

/// sleep(3).
pub unsafe extern "C-unwind" fn sleep(seconds: c_uint) -> c_uint {
    // SAFETY: HOOK-1.
    unsafe { next::sleep(seconds) }
}

/// thrd_sleep(3).
pub unsafe extern "C-unwind" fn thrd_sleep(time: *const timespec, rest: *mut timespec) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::thrd_sleep(time, rest) }
}

/// sched_yield(2).
pub unsafe extern "C-unwind" fn sched_yield() -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sched_yield() }
}

/// thrd_yield(3).
pub unsafe extern "C-unwind" fn thrd_yield() {
    // SAFETY: HOOK-1.
    unsafe { next::thrd_yield() }
}
