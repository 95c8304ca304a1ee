//! Connecting.
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

/// connect(2).
pub unsafe extern "C-unwind" fn connect(
    fd: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::connect(fd, address, address_length) }
}
