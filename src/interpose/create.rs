//! Calls that make descriptors.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{c_char, c_int, c_uint, sigset_t},
    next,
};

/// socket(2).
pub unsafe extern "C-unwind" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::socket(domain, kind, protocol) }
}

/// socketpair(2).
pub unsafe extern "C-unwind" fn socketpair(
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    pair: *mut c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::socketpair(domain, kind, protocol, pair) }
}

/// pipe(2).
pub unsafe extern "C-unwind" fn pipe(pair: *mut c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pipe(pair) }
}

/// pipe2(2).
pub unsafe extern "C-unwind" fn pipe2(pair: *mut c_int, flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pipe2(pair, flags) }
}

/// eventfd(2).
pub unsafe extern "C-unwind" fn eventfd(value: c_uint, flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::eventfd(value, flags) }
}

/// timerfd_create(2).
pub unsafe extern "C-unwind" fn timerfd_create(clock: c_int, flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::timerfd_create(clock, flags) }
}

/// signalfd(2).
pub unsafe extern "C-unwind" fn signalfd(fd: c_int, mask: *const sigset_t, flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::signalfd(fd, mask, flags) }
}

/// inotify_init(2).
pub unsafe extern "C-unwind" fn inotify_init() -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::inotify_init() }
}

/// inotify_init1(2).
pub unsafe extern "C-unwind" fn inotify_init1(flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::inotify_init1(flags) }
}

/// epoll_create(2).
pub unsafe extern "C-unwind" fn epoll_create(size: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::epoll_create(size) }
}

/// epoll_create1(2).
pub unsafe extern "C-unwind" fn epoll_create1(flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::epoll_create1(flags) }
}

/// memfd_create(2).
pub unsafe extern "C-unwind" fn memfd_create(name: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::memfd_create(name, flags) }
}
