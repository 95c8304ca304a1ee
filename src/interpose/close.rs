//! Calls that change what a number means, or how its file behaves: close(2), dup2(2), fcntl(2),
//! ioctl(2) and their kind.
//!
//! Floor 8. Uses: `descriptors`, `recall`, `window`, `call`, `next`. Used by: the names that
//! `interpose!()` defines.
//!
//! Whoever closes a number, on whatever thread, first wakes those who wait for it. Nothing needs to
//! be known of what opens or duplicates one: the kernel is asked when it matters. What changes a
//! mode, or an option by which a receive waits, makes void what is remembered (`recall`).
//! `shutdown` is reported by the kernel to those who wait.
//!
//! None of these wait, so none fails because of a kill: what is closed is closed. The exceptions
//! are locks on files (`F_SETLKW`, `F_OFD_SETLKW`), which are tried again and again; not to let one
//! go.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name, which checks every pointer.

use std::ptr;

use libc::{
    F_GETFL, F_OFD_SETLK, F_OFD_SETLKW, F_SETFL, F_SETLK, F_SETLKW, FIOASYNC, FIONBIO, O_NONBLOCK,
};

use super::{
    __c::{c_int, c_long, c_uint, c_ulong, c_void, socklen_t},
    descriptors,
    early::Word,
    flock::again_and_again,
    kernel::{TCP_ULP, answer, on},
    next, recall, window,
};
use crate::hub::guest::{guest, guests_alive};

/// close(2).
pub unsafe extern "C-unwind" fn close(fd: c_int) -> c_int {
    if guests_alive() == 0 {
        // SAFETY: HOOK-1.
        return uncounted(unsafe { next::close(fd) });
    }
    let uncancelled = Uncancelled::begin();
    let closing = descriptors::begin_close(fd);
    // SAFETY: HOOK-1.
    let closed = unsafe { next::close(fd) };
    drop(closing);
    drop(uncancelled);
    closed
}

/// What a call has given that may have closed a number whose age is not counted, since there are no
/// guests: what a hub remembers is void.
fn uncounted(given: c_int) -> c_int {
    recall::changed();
    given
}

/// While it lives, this thread is not cancelled: close(2) is a point of cancellation, and the frame
/// above has something to drop (`HOOK-2`).
struct Uncancelled(c_int);

impl Uncancelled {
    fn begin() -> Uncancelled {
        let mut before = 0;
        // SAFETY: a live place for what it was.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut before) };
        Uncancelled(before)
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        // SAFETY: null: what it is now is not asked for.
        unsafe { pthread_setcancelstate(self.0, ptr::null_mut()) };
    }
}

unsafe extern "C" {
    /// glibc's, which the libc crate lacks.
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE`.
const CANCEL_DISABLE: c_int = 1;

/// close_range(2).
pub unsafe extern "C-unwind" fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    if guests_alive() == 0 || flags as c_uint & libc::CLOSE_RANGE_CLOEXEC != 0 {
        // SAFETY: HOOK-1.
        return uncounted(unsafe { next::close_range(first, last, flags) });
    }
    let closing = descriptors::begin_close_range(first, last);
    // SAFETY: HOOK-1.
    let closed = unsafe { next::close_range(first, last, flags) };
    drop(closing);
    closed
}

/// closefrom(3).
pub unsafe extern "C-unwind" fn closefrom(first: c_int) {
    if guests_alive() == 0 {
        // SAFETY: HOOK-1.
        unsafe { next::closefrom(first) };
        return recall::changed();
    }
    let closing = descriptors::begin_close_range(first.max(0) as c_uint, c_uint::MAX);
    // SAFETY: HOOK-1.
    unsafe { next::closefrom(first) };
    drop(closing);
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
    if guests_alive() == 0 || old == new {
        // SAFETY: HOOK-1.
        return uncounted(unsafe { next::dup2(old, new) });
    }
    let closing = descriptors::begin_close(new);
    // SAFETY: HOOK-1.
    let done = unsafe { next::dup2(old, new) };
    drop(closing);
    done
}

/// dup3(2).
pub unsafe extern "C-unwind" fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    if guests_alive() == 0 || old == new {
        // SAFETY: HOOK-1.
        return uncounted(unsafe { next::dup3(old, new, flags) });
    }
    let closing = descriptors::begin_close(new);
    // SAFETY: HOOK-1.
    let done = unsafe { next::dup3(old, new, flags) };
    drop(closing);
    done
}

/// fcntl(2).
pub unsafe extern "C-unwind" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    // SAFETY: HOOK-1.
    let next = || unsafe { next::fcntl(fd, command, argument) };
    if command == F_GETFL {
        return match next() {
            // It may be that of a window, of another process too.
            flags if flags != -1 && flags & O_NONBLOCK != 0 => window::users_flags(fd, next),
            flags => flags,
        };
    }
    if command == F_SETFL {
        let set = if guests_alive() == 0 { next() } else { window::truly(fd, next) };
        recall::changed();
        return set;
    }
    if guests_alive() == 0 {
        return next();
    }
    match command {
        F_SETLKW | F_OFD_SETLKW => match guest() {
            // SAFETY: HOOK-1: a lock of the caller's.
            Some(guest) if !unsafe { lets_go(argument) } => {
                let command = if command == F_SETLKW { F_SETLK } else { F_OFD_SETLK };
                let rest = [command.word(), argument.word(), 0, 0, 0];
                answer(again_and_again(guest, fd, || {
                    // SAFETY: HOOK-1: the same lock, but for the wait.
                    unsafe { on(fd, libc::SYS_fcntl, rest) }
                })) as c_int
            }
            _ => next(),
        },
        _ => next(),
    }
}

/// Whether an argument of `F_SETLKW` is of a lock that is let go: that never waits.
///
/// # Safety
///
/// A pointer to such a lock, or null.
unsafe fn lets_go(argument: c_long) -> bool {
    let lock: *const libc::flock = ptr::with_exposed_provenance(argument as usize);
    // SAFETY: the caller's promise; C's may lie unaligned.
    !lock.is_null() && i32::from(unsafe { lock.read_unaligned() }.l_type) == libc::F_UNLCK
}

/// ioctl(2).
pub unsafe extern "C-unwind" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // SAFETY: HOOK-1.
    let next = || unsafe { next::ioctl(fd, request, argument) };
    if request != FIONBIO && request != FIOASYNC {
        return next();
    }
    let set = if guests_alive() != 0 { window::truly(fd, next) } else { next() };
    recall::changed();
    set
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
    let set = unsafe { next::setsockopt(fd, level, name, option, length) };
    if changes_receives(level, name) {
        recall::changed();
    }
    set
}

/// Whether an option is one by which a receive waits otherwise: its timeout, in both its layouts,
/// and what stands between TCP and the reader.
fn changes_receives(level: c_int, name: c_int) -> bool {
    /// With 64 bits for the seconds, where it is another one.
    const SO_RCVTIMEO_NEW: c_int = 66;
    match level {
        libc::SOL_SOCKET => name == libc::SO_RCVTIMEO || name == SO_RCVTIMEO_NEW,
        libc::IPPROTO_TCP => name == TCP_ULP,
        _ => false,
    }
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
