//! Accepting connections.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{c_int, sockaddr, socklen_t},
    next,
};

/// accept(2).
pub unsafe extern "C-unwind" fn accept(
    fd: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::accept(fd, address, address_length) }
}

/// accept4(2).
pub unsafe extern "C-unwind" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::accept4(fd, address, address_length, flags) }
}
