//! OS threads, seen from a guest.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{Start, c_char, c_int, c_void, clockid_t, pthread_attr_t, pthread_t, timespec},
    next,
};

/// pthread_create(3).
pub unsafe extern "C-unwind" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    start: Start,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_create(thread, attributes, start, argument) }
}

/// pthread_join(3).
pub unsafe extern "C-unwind" fn pthread_join(thread: pthread_t, value: *mut *mut c_void) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_join(thread, value) }
}

/// pthread_timedjoin_np(3).
pub unsafe extern "C-unwind" fn pthread_timedjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_timedjoin_np(thread, value, deadline) }
}

/// pthread_clockjoin_np(3).
pub unsafe extern "C-unwind" fn pthread_clockjoin_np(
    thread: pthread_t,
    value: *mut *mut c_void,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_clockjoin_np(thread, value, clock, deadline) }
}

/// thrd_join(3).
pub unsafe extern "C-unwind" fn thrd_join(thread: pthread_t, value: *mut c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::thrd_join(thread, value) }
}

/// pthread_exit(3).
pub unsafe extern "C-unwind" fn pthread_exit(value: *mut c_void) -> ! {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_exit(value) }
}

/// pthread_getattr_np(3).
pub unsafe extern "C-unwind" fn pthread_getattr_np(
    thread: pthread_t,
    attributes: *mut pthread_attr_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_getattr_np(thread, attributes) }
}

/// dlerror(3).
pub unsafe extern "C-unwind" fn dlerror() -> *mut c_char {
    // SAFETY: HOOK-1.
    unsafe { next::dlerror() }
}
