//! The life of a descriptor number: close(2), dup(2), fcntl(2), ioctl(2), socket options.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{c_int, c_long, c_uint, c_ulong, c_void, socklen_t},
    next,
};

/// close(2).
pub unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::close(fd) }
}

/// close_range(2).
pub unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::close_range(first, last, flags) }
}

/// closefrom(3).
pub unsafe extern "C-unwind" fn closefrom(first: c_int) {
    // SAFETY: HOOK-1.
    unsafe { next::closefrom(first) }
}

/// shutdown(2).
pub unsafe extern "C-unwind" fn shutdown(fd: c_int, how: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::shutdown(fd, how) }
}

/// dup(2).
pub unsafe extern "C-unwind" fn dup(fd: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::dup(fd) }
}

/// dup2(2).
pub unsafe extern "C-unwind" fn dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::dup2(old, new) }
}

/// dup3(2).
pub unsafe extern "C-unwind" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::dup3(old, new, flags) }
}

/// fcntl(2).
pub unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::fcntl(fd, command, argument) }
}

/// ioctl(2).
pub unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::ioctl(fd, request, argument) }
}

/// setsockopt(2).
pub unsafe extern "C-unwind" fn setsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    option: *const c_void,
    length: socklen_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::setsockopt(fd, level, name, option, length) }
}

/// getsockopt(2).
pub unsafe extern "C-unwind" fn getsockopt(
    fd: c_int,
    level: c_int,
    name: c_int,
    option: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::getsockopt(fd, level, name, option, length) }
}
