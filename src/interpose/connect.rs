//! connect(2).
//!
//! Floor 8. Uses: `call`, `window`, `next`. Used by: the names that `interpose!()` defines.
//!
//! The first try starts the connection, in a window. When the socket is writable the same call is
//! made again: it gives the result that a blocking one would have given, and leaves the socket in
//! the state that it would have left. (`SO_ERROR` gives the error, but not the state.)

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
    io::Direction::Write,
};

/// connect(2).
pub unsafe extern "C-unwind" fn connect(
    fd: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return pass_through(fd, || unsafe { next::connect(fd, address, address_length) });
    };
    // SAFETY: HOOK-1.
    answer(unsafe { reach(guest, fd, address, address_length) }) as c_int
}

/// Connects on an OS thread. What began while a virtual thread had a window open is waited for by
/// the same call, made again.
#[inline]
fn pass_through(fd: c_int, next: impl Fn() -> c_int) -> c_int {
    let begun = Instant::now();
    let mut has_begun = false;
    loop {
        let connected = next();
        if connected >= 0 {
            return connected;
        }
        match kernel::errno() {
            Errno::ISCONN if has_begun => return 0,
            Errno::INPROGRESS | Errno::ALREADY | Errno::AGAIN
                if kernel::is_connected_kind(fd) && window::was_in_one(fd, Write, Some(begun)) =>
            {
                has_begun = true;
            }
            _ => return connected,
        }
    }
}

/// Connects on a virtual thread.
///
/// # Safety
///
/// As connect(2).
unsafe fn reach(
    guest: Guest,
    fd: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    let rest = [address.word(), address_length.word(), 0, 0, 0];
    // SAFETY: the caller's promise.
    let attempt = || unsafe { on(fd, libc::SYS_connect, rest) };
    let mut has_begun = false;
    loop {
        let (is_nonblocking, done) = call.in_window(Write, attempt)?;
        match done {
            Err(Errno::ISCONN) if has_begun => return call.done(0, Ok(0)),
            Err(Errno::INPROGRESS | Errno::ALREADY) if !is_nonblocking => {
                has_begun = true;
                match call.wait_blocking(Write) {
                    Err(Errno::AGAIN) => return Err(Errno::INPROGRESS),
                    waited => waited?,
                }
            }
            // A local listener's queue is full, and nothing tells when it is not.
            Err(Errno::AGAIN) if !is_nonblocking && kernel::is_connected_kind(fd) => {
                call.wait_paused(Write)?;
            }
            Err(Errno::INTR) => {}
            done => return call.done(0, done),
        }
    }
}
