//! Sending: send(2) and its kin, write(2), and what moves bytes between descriptors.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{
        c_int, c_uint, c_void, iovec, loff_t, mmsghdr, msghdr, off_t, off64_t, size_t, sockaddr,
        socklen_t, ssize_t,
    },
    next,
};

/// send(2).
pub unsafe extern "C-unwind" fn send(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::send(fd, buffer, length, flags) }
}

/// sendto(2).
pub unsafe extern "C-unwind" fn sendto(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::sendto(fd, buffer, length, flags, address, address_length) }
}

/// sendmsg(2).
pub unsafe extern "C-unwind" fn sendmsg(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::sendmsg(fd, message, flags) }
}

/// sendmmsg(2).
pub unsafe extern "C-unwind" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sendmmsg(fd, messages, count, flags) }
}

/// write(2).
pub unsafe extern "C-unwind" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::write(fd, buffer, length) }
}

/// writev(2).
pub unsafe extern "C-unwind" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::writev(fd, parts, count) }
}

/// sendfile(2).
pub unsafe extern "C-unwind" fn sendfile(
    output: c_int,
    input: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::sendfile(output, input, offset, count) }
}

/// splice(2).
pub unsafe extern "C-unwind" fn splice(
    input: c_int,
    input_offset: *mut loff_t,
    output: c_int,
    output_offset: *mut loff_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::splice(input, input_offset, output, output_offset, length, flags) }
}

/// tee(2).
pub unsafe extern "C-unwind" fn tee(
    input: c_int,
    output: c_int,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::tee(input, output, length, flags) }
}

/// vmsplice(2).
pub unsafe extern "C-unwind" fn vmsplice(
    fd: c_int,
    parts: *const iovec,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::vmsplice(fd, parts, count, flags) }
}

/// copy_file_range(2).
pub unsafe extern "C-unwind" fn copy_file_range(
    input: c_int,
    input_offset: *mut off64_t,
    output: c_int,
    output_offset: *mut off64_t,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: HOOK-1.
    unsafe { next::copy_file_range(input, input_offset, output, output_offset, length, flags) }
}
