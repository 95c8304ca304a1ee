//! Waiting for several descriptors: poll(2), select(2), epoll_wait(2).
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval},
    next,
};

/// poll(2).
pub unsafe extern "C-unwind" fn poll(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::poll(fds, count, timeout_ms) }
}

/// poll(2) of code that was built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout_ms: c_int,
    room: size_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::__poll_chk(fds, count, timeout_ms, room) }
}

/// ppoll(2).
pub unsafe extern "C-unwind" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::ppoll(fds, count, timeout, mask) }
}

/// ppoll(2) of code that was built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::__ppoll_chk(fds, count, timeout, mask, room) }
}

/// select(2).
pub unsafe extern "C-unwind" fn select(
    count: c_int,
    readable: *mut fd_set,
    writable: *mut fd_set,
    exceptional: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::select(count, readable, writable, exceptional, timeout) }
}

/// pselect(2).
pub unsafe extern "C-unwind" fn pselect(
    count: c_int,
    readable: *mut fd_set,
    writable: *mut fd_set,
    exceptional: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pselect(count, readable, writable, exceptional, timeout, mask) }
}

/// epoll_wait(2).
pub unsafe extern "C-unwind" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout_ms: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::epoll_wait(epoll, events, count, timeout_ms) }
}

/// epoll_pwait(2).
pub unsafe extern "C-unwind" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout_ms: c_int,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::epoll_pwait(epoll, events, count, timeout_ms, mask) }
}

/// epoll_pwait2(2).
pub unsafe extern "C-unwind" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::epoll_pwait2(epoll, events, count, timeout, mask) }
}
