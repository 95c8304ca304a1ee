//! Receiving: recv(2) and its kin, and read(2).
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{
        c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t,
        timespec,
    },
    next,
};

/// recv(2).
pub unsafe extern "C-unwind" fn recv(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::recv(fd, buffer, length, flags) }
}

/// recv(2) of code that was built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::__recv_chk(fd, buffer, length, room, flags) }
}

/// recvfrom(2).
pub unsafe extern "C-unwind" fn recvfrom(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::recvfrom(fd, buffer, length, flags, address, address_length) }
}

/// recvfrom(2) of code that was built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::__recvfrom_chk(fd, buffer, length, room, flags, address, address_length) }
}

/// recvmsg(2).
pub unsafe extern "C-unwind" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::recvmsg(fd, message, flags) }
}

/// recvmmsg(2).
pub unsafe extern "C-unwind" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::recvmmsg(fd, messages, count, flags, timeout) }
}

/// read(2).
pub unsafe extern "C-unwind" fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::read(fd, buffer, length) }
}

/// read(2) of code that was built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::__read_chk(fd, buffer, length, room) }
}

/// readv(2).
pub unsafe extern "C-unwind" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::readv(fd, parts, count) }
}
