//! Calls that take bytes in: recv(2), recvfrom(2), recvmsg(2), recvmmsg(2), read(2), readv(2).
//!
//! Floor 8. Uses: `call`, `kernel`, `parts`, `window`, `next`. Used by: the names that
//! `interpose!()` defines; `transfer`.
//!
//! # How each kind is tried without blocking
//!
//! | descriptor | try |
//! |---|---|
//! | socket | `MSG_DONTWAIT`, also for read(2): no call more than without hooks |
//! | pipe, eventfd, timer | `preadv2` with `RWF_NOWAIT` |
//! | pipe with a name | `O_NONBLOCK` for one call (`window`) |
//! | terminal and what else can be polled | poll(2), then read: it is ready |
//! | file | plainly: it is always ready |
//!
//! On TCP it is not tried at all if the last receive has left nothing (`recall`).
//!
//! What `MSG_WAITALL` promises is kept by trying for the rest. `MSG_OOB` and `MSG_ERRQUEUE` never
//! wait in the kernel either.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name, which checks every pointer. What is read here, the kernel has read before.

use std::{mem::MaybeUninit, os::fd::RawFd, ptr};

use libc::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, MSG_PEEK, MSG_WAITALL, MSG_WAITFORONE};
use rustix::io::Errno;

use super::{
    __c::{
        c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t,
        timespec,
    },
    call::Call,
    descriptors,
    early::Word,
    kernel::{self, Kind, answer, on},
    next,
    parts::{PARTS_MAX, Parts, bytes_of},
    window,
};
use crate::hub::{
    guest::{Guest, guest},
    io::Direction::Read,
};

/// Flags with which the kernel never waits.
const NEVER_WAITS: c_int = MSG_DONTWAIT | MSG_OOB | MSG_ERRQUEUE;

/// recv(2).
pub unsafe extern "C-unwind" fn recv(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, flags, Read, || unsafe {
            next::recv(fd, buffer, length, flags)
        });
    };
    // SAFETY: HOOK-1.
    answer(unsafe { receive(guest, fd, buffer, length, flags, ptr::null_mut(), ptr::null_mut()) })
}

/// recv(2), of programs that were built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __recv_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
) -> ssize_t {
    if length > room {
        // SAFETY: HOOK-1.
        return unsafe { next::__recv_chk(fd, buffer, length, room, flags) };
    }
    // SAFETY: HOOK-1; the length was checked.
    unsafe { recv(fd, buffer, length, flags) }
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
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, flags, Read, || unsafe {
            next::recvfrom(fd, buffer, length, flags, address, address_length)
        });
    };
    // SAFETY: HOOK-1.
    answer(unsafe { receive(guest, fd, buffer, length, flags, address, address_length) })
}

/// recvfrom(2), of programs that were built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __recvfrom_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> ssize_t {
    if guest().is_none() || length > room {
        // SAFETY: HOOK-1.
        return unsafe {
            next::__recvfrom_chk(fd, buffer, length, room, flags, address, address_length)
        };
    }
    // SAFETY: HOOK-1; the length was checked.
    unsafe { recvfrom(fd, buffer, length, flags, address, address_length) }
}

/// recvmsg(2).
pub unsafe extern "C-unwind" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, flags, Read, || unsafe { next::recvmsg(fd, message, flags) });
    };
    // SAFETY: HOOK-1.
    answer(unsafe { receive_message(guest, fd, message, flags) })
}

/// recvmmsg(2).
pub unsafe extern "C-unwind" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        let next = || unsafe { next::recvmmsg(fd, messages, count, flags, timeout) } as isize;
        return window::outside(fd, flags, Read, next) as c_int;
    };
    // SAFETY: HOOK-1.
    answer(unsafe { receive_messages(guest, fd, messages, count, flags, timeout) }) as c_int
}

/// read(2).
pub unsafe extern "C-unwind" fn read(fd: c_int, buffer: *mut c_void, length: size_t) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, 0, Read, || unsafe { next::read(fd, buffer, length) });
    };
    if descriptors::was_socket(fd) && length > 0 {
        // SAFETY: HOOK-1; read(2) on a socket is recv(2) without flags.
        match unsafe { receive(guest, fd, buffer, length, 0, ptr::null_mut(), ptr::null_mut()) } {
            // It names another file by now; and a file never waits, nor fails because of a kill.
            Err(Errno::NOTSOCK | Errno::CANCELED | Errno::TIMEDOUT)
                if kernel::kind_of(fd).is_ok_and(|(kind, _)| kind != Kind::Socket) =>
            {
                descriptors::note_socket(fd, false);
            }
            done => return answer(done),
        }
    }
    let part = iovec { iov_base: buffer, iov_len: length };
    // SAFETY: HOOK-1: one part, which is the caller's buffer.
    answer(unsafe { take_in(guest, fd, &raw const part, 1) })
}

/// read(2), of programs that were built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __read_chk(
    fd: c_int,
    buffer: *mut c_void,
    length: size_t,
    room: size_t,
) -> ssize_t {
    if length > room {
        // SAFETY: HOOK-1.
        return unsafe { next::__read_chk(fd, buffer, length, room) };
    }
    // SAFETY: HOOK-1; the length was checked.
    unsafe { read(fd, buffer, length) }
}

/// readv(2).
pub unsafe extern "C-unwind" fn readv(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, 0, Read, || unsafe { next::readv(fd, parts, count) });
    };
    match usize::try_from(count) {
        // SAFETY: HOOK-1.
        Ok(count) if count <= PARTS_MAX => answer(unsafe { take_in(guest, fd, parts, count) }),
        _ => kernel::fail(Errno::INVAL),
    }
}

/// Receives from a socket.
///
/// # Safety
///
/// As recvfrom(2).
pub(super) unsafe fn receive(
    guest: Guest,
    fd: RawFd,
    buffer: *mut c_void,
    length: usize,
    flags: c_int,
    address: *mut sockaddr,
    address_length: *mut socklen_t,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    let mut got = 0;
    let is_plain = flags == 0 && length > 0;
    if is_plain {
        call.wait_if_drained()?;
    }
    loop {
        let turn = guest.turn(); // Before it is tried: an event that comes later is told later.
        let (at, room) = (buffer.wrapping_byte_add(got), length - got);
        let try_flags = flags & !MSG_WAITALL | MSG_DONTWAIT;
        let rest = [at.word(), room, try_flags.word(), address.word(), address_length.word()];
        // SAFETY: the caller's promise; `at` and what follows are part of its buffer.
        match unsafe { on(fd, libc::SYS_recvfrom, rest) } {
            Ok(more) if !goes_on(fd, flags, got + more, length, more) => {
                if is_plain && 0 < more && more < room {
                    guest.note_drained(fd, turn);
                }
                return call.done(got, Ok(more));
            }
            Ok(more) if flags & MSG_PEEK != 0 => {
                // It is there still: no event tells that there is more.
                if is_at_end(fd) || call.wait_paused(Read).is_err() {
                    return call.done(0, Ok(more));
                }
            }
            Ok(more) => got += call.moved(more),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if flags & NEVER_WAITS == 0 => {
                let waited = if is_plain { call.wait_to_receive(turn) } else { call.wait(Read) };
                if let Err(error) = waited {
                    return call.done(got, Err(error));
                }
            }
            Err(error) => return call.done(got, Err(error)),
        }
    }
}

/// Whether `MSG_WAITALL` wants more than there is so far.
fn goes_on(fd: RawFd, flags: c_int, got: usize, length: usize, last: usize) -> bool {
    flags & MSG_WAITALL != 0
        && flags & NEVER_WAITS == 0
        && last != 0
        && got < length
        && kernel::is_stream(fd)
}

/// Whether nothing more will come.
fn is_at_end(fd: RawFd) -> bool {
    let end = libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR | libc::POLLNVAL;
    kernel::readiness(fd, libc::POLLRDHUP) & end != 0
}

/// Receives a message.
///
/// # Safety
///
/// As recvmsg(2).
unsafe fn receive_message(
    guest: Guest,
    fd: RawFd,
    message: *mut msghdr,
    flags: c_int,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    loop {
        let rest = [message.word(), (flags & !MSG_WAITALL | MSG_DONTWAIT).word(), 0, 0, 0];
        // What the kernel is told of room, it overwrites with what it used.
        // SAFETY: the caller's promise.
        match unsafe { on(fd, libc::SYS_recvmsg, rest) } {
            Ok(got) if flags & MSG_WAITALL == 0 || flags & MSG_PEEK != 0 => {
                return call.done(0, Ok(got));
            }
            Ok(got) => {
                // SAFETY: the caller's promise: the kernel has just read and written it.
                let more = unsafe { receive_rest(&mut call, message, flags, got) };
                return call.done(got, more);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if flags & NEVER_WAITS == 0 => call.wait(Read)?,
            Err(error) => return call.done(0, Err(error)),
        }
    }
}

/// After `got` bytes, what `MSG_WAITALL` wants of a message. Anything beside bytes ends it.
///
/// # Safety
///
/// `message` is what the kernel has just received into.
unsafe fn receive_rest(
    call: &mut Call,
    message: *mut msghdr,
    flags: c_int,
    got: usize,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let header = unsafe { message.read_unaligned() };
    if header.msg_controllen != 0 {
        return Ok(0);
    }
    // SAFETY: the caller's promise: the kernel has read the array.
    let mut parts = unsafe { Parts::after(header.msg_iov, header.msg_iovlen, got) };
    let mut more = 0;
    while goes_on(call.fd, flags, 0, parts.bytes(), got) {
        let (at, count) = parts.left();
        // SAFETY: an all-zero header is one without anything.
        let mut rest: msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        (rest.msg_iov, rest.msg_iovlen) = (at, count);
        let arguments = [(&raw mut rest).word(), MSG_DONTWAIT.word(), 0, 0, 0];
        // SAFETY: our header, whose parts are the rest of the caller's.
        match unsafe { on(call.fd, libc::SYS_recvmsg, arguments) } {
            Ok(0) => break,
            Ok(bytes) => {
                more += call.moved(bytes);
                parts.advance(bytes);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if call.wait(Read).is_ok() => {}
            Err(_) => break,
        }
    }
    Ok(more)
}

/// Receives several messages. A timeout is looked at after each of them, as the kernel does; but a
/// wait for the next one ends when it is over.
///
/// # Safety
///
/// As recvmmsg(2).
unsafe fn receive_messages(
    guest: Guest,
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    let begun = guest.now();
    let limit = match ptr::NonNull::new(timeout) {
        None => None,
        // SAFETY: the caller's promise: not null, so a timespec.
        Some(timeout) => Some(kernel::duration(unsafe { timeout.read_unaligned() })?),
    };
    let (mut got, count) = (0, count.min(PARTS_MAX as c_uint) as usize);
    let result = loop {
        let at = messages.wrapping_add(got);
        let try_flags = flags & !(MSG_WAITALL | MSG_WAITFORONE) | MSG_DONTWAIT;
        let rest = [at.word(), count - got, try_flags.word(), 0, 0];
        // SAFETY: the caller's promise: the rest of its array.
        match unsafe { on(fd, libc::SYS_recvmmsg, rest) } {
            Ok(more) => {
                got += call.moved(more);
                let is_late = limit.is_some_and(|limit| guest.now() >= begun + limit);
                if got == count || more == 0 || flags & MSG_WAITFORONE != 0 || is_late {
                    break call.done(0, Ok(got));
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if flags & NEVER_WAITS == 0 => {
                if got > 0
                    && let Some(limit) = limit
                {
                    call.limit_to(Read, begun + limit);
                }
                if let Err(error) = call.wait(Read) {
                    break call.done(got, Err(error));
                }
            }
            Err(error) => break call.done(got, Err(error)),
        }
    };
    if let Some(limit) = limit {
        let left = limit.saturating_sub(guest.now().duration_since(begun));
        // SAFETY: the caller's promise: it is not null, and the kernel writes there, too.
        unsafe { timeout.write_unaligned(kernel::timespec_of(left)) };
    }
    result
}

/// Reads from whatever `fd` is.
///
/// # Safety
///
/// As readv(2), with at most `PARTS_MAX` parts.
unsafe fn take_in(
    guest: Guest,
    fd: RawFd,
    parts: *const iovec,
    count: usize,
) -> Result<usize, Errno> {
    let (kind, _) = kernel::kind_of(fd)?;
    // SAFETY: the caller's promise, for all of them.
    let plainly = || unsafe { on(fd, libc::SYS_readv, [parts.word(), count, 0, 0, 0]) };
    match kind {
        Kind::Socket => {
            descriptors::note_socket(fd, true);
            // SAFETY: the caller's promise.
            unsafe { take_from_socket(guest, fd, parts, count) }
        }
        Kind::File => plainly(),
        Kind::Pipe | Kind::Other => {
            let mut call = Call::begin(guest, fd)?;
            let now = libc::RWF_NOWAIT as usize;
            // At the file's own position, which the offset -1 stands for in both its halves.
            let rest = [parts.word(), count, usize::MAX, usize::MAX, now];
            loop {
                // SAFETY: the caller's promise.
                match unsafe { on(fd, libc::SYS_preadv2, rest) } {
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => call.wait(Read)?,
                    Err(Errno::OPNOTSUPP) if kind == Kind::Pipe => {
                        return call.by_windows(Read, plainly);
                    }
                    Err(Errno::OPNOTSUPP) => return call.when_ready(Read, plainly),
                    done => return call.done(0, done),
                }
            }
        }
    }
}

/// Reads from a socket; anything else is `ENOTSOCK`.
///
/// # Safety
///
/// As readv(2), with at most `PARTS_MAX` parts.
unsafe fn take_from_socket(
    guest: Guest,
    fd: RawFd,
    parts: *const iovec,
    count: usize,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    // As read(2) has it, nothing is always there, and takes nothing: no datagram, no error.
    // SAFETY: the caller's promise.
    if unsafe { bytes_of(parts, count) } == 0 {
        return call.done(0, Ok(0));
    }
    // SAFETY: an all-zero header is one without anything.
    let mut message: msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    (message.msg_iov, message.msg_iovlen) = (parts.cast_mut(), count);
    loop {
        let rest = [(&raw mut message).word(), MSG_DONTWAIT.word(), 0, 0, 0];
        // SAFETY: our header, with the caller's parts.
        match unsafe { on(fd, libc::SYS_recvmsg, rest) } {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => call.wait(Read)?,
            done => return call.done(0, done),
        }
    }
}
