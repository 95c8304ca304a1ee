//! accept(2) and accept4(2).
//!
//! Floor 8. Uses: `call`, `window`, `next`. Used by: the names that `interpose!()` defines.
//!
//! There is no flag for one call, and being told that a listener is ready does not mean that the
//! connection is still there: another process may have accepted it. So each try has a window.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name, which checks every pointer.

use std::time::Instant;

use rustix::io::Errno;

use super::{
    __c::{c_int, sockaddr, socklen_t},
    call::Call,
    early::Word,
    kernel::{self, answer, on},
    next, window,
};
use crate::hub::{
    guest::{Guest, guest},
    io::Direction::Read,
};

/// accept(2).
pub unsafe extern "C-unwind" fn accept(
    fd: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> c_int {
    // SAFETY: HOOK-1; accept(2) is accept4(2) without flags.
    let next = || unsafe { next::accept(fd, address, address_length) };
    match guest() {
        // SAFETY: HOOK-1.
        Some(guest) => unsafe { take(guest, fd, address, address_length, 0) },
        None => pass_through(fd, next),
    }
}

/// accept4(2).
pub unsafe extern "C-unwind" fn accept4(
    fd: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    // SAFETY: HOOK-1.
    let next = || unsafe { next::accept4(fd, address, address_length, flags) };
    match guest() {
        // SAFETY: HOOK-1.
        Some(guest) => unsafe { take(guest, fd, address, address_length, flags) },
        None => pass_through(fd, next),
    }
}

/// Accepts on a virtual thread.
///
/// # Safety
///
/// As accept4(2).
unsafe fn take(
    guest: Guest,
    fd: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
    flags: c_int,
) -> c_int {
    let rest = [address.word(), address_length.word(), flags.word(), 0, 0];
    let accepted = Call::begin(guest, fd).and_then(|mut call| {
        // SAFETY: the caller's promise.
        call.by_windows(Read, || unsafe { on(fd, libc::SYS_accept4, rest) })
    });
    answer(accepted) as c_int
}

/// Accepts on an OS thread, while virtual threads, of other processes perhaps, may have a window
/// open: whether it began in one is asked when it has failed.
#[inline]
fn pass_through(fd: c_int, next: impl Fn() -> c_int) -> c_int {
    let begun = Instant::now();
    loop {
        let accepted = next();
        if accepted >= 0
            || kernel::errno() != Errno::AGAIN
            || !window::was_in_one(fd, Read, Some(begun))
        {
            return accepted;
        }
    }
}
