//! Calls that give bytes out: send(2), sendto(2), sendmsg(2), sendmmsg(2), write(2), writev(2).
//!
//! Floor 8. Uses: `call`, `kernel`, `parts`, `window`, `next`. Used by: the names that
//! `interpose!()` defines; `transfer`.
//!
//! Descriptors are tried without blocking as in `receive`. A blocking write is a promise that all
//! is written: these go on until it is, so long as nothing fails; what was written before counts
//! for more than what ended it.
//!
//! Writing to descriptors 0 to 2 suspends nobody, unless it is a socket: they are written to while
//! the locks of `stdout` are held, and by what prints panics.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name, which checks every pointer. What is read here, the kernel has read before.

use std::{mem::MaybeUninit, os::fd::RawFd, ptr};

use libc::{MSG_DONTWAIT, MSG_FASTOPEN, MSG_NOSIGNAL};
use rustix::io::Errno;

pub use super::transfer::{copy_file_range, sendfile, splice, tee, vmsplice};
use super::{
    __c::{c_int, c_uint, c_void, iovec, mmsghdr, msghdr, size_t, sockaddr, socklen_t, ssize_t},
    call::Call,
    descriptors,
    early::Word,
    kernel::{self, Kind, answer, on},
    next,
    parts::{LENGTH_MAX, PARTS_MAX, Parts, bytes_of},
    window,
};
use crate::hub::{
    guest::{Guest, guest},
    io::Direction::Write,
};

/// The last of the descriptors that a program prints to.
const STDERR: RawFd = 2;

/// send(2).
pub unsafe extern "C-unwind" fn send(
    fd: c_int,
    buffer: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, flags, Write, || unsafe {
            next::send(fd, buffer, length, flags)
        });
    };
    // SAFETY: HOOK-1.
    answer(unsafe { give(guest, fd, buffer, length, flags, ptr::null(), 0) })
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
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, flags, Write, || unsafe {
            next::sendto(fd, buffer, length, flags, address, address_length)
        });
    };
    // SAFETY: HOOK-1.
    answer(unsafe { give(guest, fd, buffer, length, flags, address, address_length) })
}

/// sendmsg(2).
pub unsafe extern "C-unwind" fn sendmsg(
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, flags, Write, || unsafe { next::sendmsg(fd, message, flags) });
    };
    let result = Call::begin(guest, fd).and_then(|mut call| {
        // SAFETY: HOOK-1.
        unsafe { give_message(&mut call, message, flags) }
    });
    answer(result)
}

/// sendmmsg(2).
pub unsafe extern "C-unwind" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        let next = || unsafe { next::sendmmsg(fd, messages, count, flags) } as isize;
        return window::outside(fd, flags, Write, next) as c_int;
    };
    // SAFETY: HOOK-1.
    answer(unsafe { give_messages(guest, fd, messages, count, flags) }) as c_int
}

/// write(2).
pub unsafe extern "C-unwind" fn write(fd: c_int, buffer: *const c_void, length: size_t) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, 0, Write, || unsafe { next::write(fd, buffer, length) });
    };
    if descriptors::was_socket(fd) {
        // SAFETY: HOOK-1; write(2) on a socket is send(2) without flags.
        match unsafe { give(guest, fd, buffer, length, 0, ptr::null(), 0) } {
            // It names another file by now; and a file never waits, nor fails because of a kill.
            Err(Errno::NOTSOCK | Errno::CANCELED | Errno::TIMEDOUT)
                if kernel::kind_of(fd).is_ok_and(|(kind, _)| kind != Kind::Socket) =>
            {
                descriptors::note_socket(fd, false);
            }
            done => return answer(done),
        }
    }
    let part = iovec { iov_base: buffer.cast_mut(), iov_len: length };
    // SAFETY: HOOK-1: one part, which is the caller's buffer.
    answer(unsafe { give_out(guest, fd, &raw const part, 1) })
}

/// writev(2).
pub unsafe extern "C-unwind" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return window::outside(fd, 0, Write, || unsafe { next::writev(fd, parts, count) });
    };
    match usize::try_from(count) {
        // No datagram, unlike write(2): that is for the kernel to say, which does not wait.
        // SAFETY: HOOK-1.
        Ok(count) if count <= PARTS_MAX && unsafe { bytes_of(parts, count) } == 0 => {
            // SAFETY: HOOK-1.
            unsafe { next::writev(fd, parts, count as c_int) }
        }
        // SAFETY: HOOK-1.
        Ok(count) if count <= PARTS_MAX => answer(unsafe { give_out(guest, fd, parts, count) }),
        _ => kernel::fail(Errno::INVAL),
    }
}

/// Sends on a socket: all of it, if it is in blocking mode.
///
/// # Safety
///
/// As sendto(2).
pub(super) unsafe fn give(
    guest: Guest,
    fd: RawFd,
    buffer: *const c_void,
    length: usize,
    flags: c_int,
    address: *const sockaddr,
    address_length: socklen_t,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    let (mut sent, length) = (0, length.min(LENGTH_MAX));
    let mut flags = flags;
    loop {
        let (at, left) = (buffer.wrapping_byte_add(sent), length - sent);
        let try_flags = flags | MSG_DONTWAIT | quiet_after(sent);
        let rest = [at.word(), left, try_flags.word(), address.word(), address_length.word()];
        // SAFETY: the caller's promise; `at` and what follows are part of its buffer.
        match unsafe { on(fd, libc::SYS_sendto, rest) } {
            Ok(more) if more == left || flags & MSG_DONTWAIT != 0 => {
                return call.done(sent, Ok(more));
            }
            Ok(more) => {
                sent += call.moved(more);
                flags &= !MSG_FASTOPEN;
            }
            Err(Errno::INTR) => {}
            Err(error @ (Errno::AGAIN | Errno::INPROGRESS)) if flags & MSG_DONTWAIT == 0 => {
                if let Err(ended) = wait_for(&mut call, error) {
                    return call.done(sent, Err(ended));
                }
                flags = without_connect(flags, error);
            }
            Err(error) => return call.done(sent, Err(error)),
        }
    }
}

/// Waits for what has just said `error`: room, or a connection that it has begun
/// (`MSG_FASTOPEN`, `TCP_FASTOPEN_CONNECT`). If the user wants no wait, or no longer one, that is
/// the answer.
#[cold]
fn wait_for(call: &mut Call, error: Errno) -> Result<(), Errno> {
    call.wait(Write).map_err(|ended| if ended == Errno::AGAIN { error } else { ended })
}

/// The flags of the next try, which is not to begin another connection.
fn without_connect(flags: c_int, error: Errno) -> c_int {
    if error == Errno::INPROGRESS { flags & !MSG_FASTOPEN } else { flags }
}

/// A call that has sent something says so; only the next one is worth a SIGPIPE.
fn quiet_after(sent: usize) -> c_int {
    if sent > 0 { MSG_NOSIGNAL } else { 0 }
}

/// Sends a message: all of it, if the socket is in blocking mode.
///
/// # Safety
///
/// As sendmsg(2).
unsafe fn give_message(
    call: &mut Call,
    message: *const msghdr,
    mut flags: c_int,
) -> Result<usize, Errno> {
    loop {
        let rest = [message.word(), (flags | MSG_DONTWAIT).word(), 0, 0, 0];
        // SAFETY: the caller's promise.
        match unsafe { on(call.fd, libc::SYS_sendmsg, rest) } {
            Ok(sent) if flags & MSG_DONTWAIT != 0 => return call.done(0, Ok(sent)),
            Ok(sent) => {
                // SAFETY: the caller's promise; the kernel has just read it.
                let more = unsafe { give_rest(call, message, flags & !MSG_FASTOPEN, sent) };
                return call.done(sent, more);
            }
            Err(Errno::INTR) => {}
            Err(error @ (Errno::AGAIN | Errno::INPROGRESS)) if flags & MSG_DONTWAIT == 0 => {
                wait_for(call, error)?;
                flags = without_connect(flags, error);
            }
            Err(error) => return call.done(0, Err(error)),
        }
    }
}

/// Sends what is left of a message after `sent` bytes, if anything is; what came beside the bytes
/// went with the first ones. That is right for what sockets send beside bytes. It is not for TLS in
/// the kernel: if that takes a part of a record other than data, the rest goes as data.
///
/// # Safety
///
/// `message` is what the kernel has just sent.
unsafe fn give_rest(
    call: &mut Call,
    message: *const msghdr,
    flags: c_int,
    sent: usize,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let mut header = unsafe { message.read_unaligned() };
    // SAFETY: the caller's promise: the kernel has read the array.
    if sent >= unsafe { bytes_of(header.msg_iov, header.msg_iovlen) } {
        return Ok(0);
    }
    // SAFETY: as above.
    let mut parts = unsafe { Parts::after(header.msg_iov, header.msg_iovlen, sent) };
    (header.msg_control, header.msg_controllen) = (ptr::null_mut(), 0);
    let mut more = 0;
    while parts.bytes() > 0 {
        (header.msg_iov, header.msg_iovlen) = parts.left();
        let try_flags = flags | MSG_DONTWAIT | MSG_NOSIGNAL;
        let rest = [(&raw const header).word(), try_flags.word(), 0, 0, 0];
        // SAFETY: our header, whose parts are the rest of the caller's.
        match unsafe { on(call.fd, libc::SYS_sendmsg, rest) } {
            Ok(bytes) => {
                more += call.moved(bytes);
                parts.advance(bytes);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if let Err(error) = call.wait(Write) {
                    return call.done(more, Err(error));
                }
            }
            Err(error) => return call.done(more, Err(error)),
        }
    }
    Ok(more)
}

/// Sends several messages: as many at once as the socket takes.
///
/// # Safety
///
/// As sendmmsg(2).
unsafe fn give_messages(
    guest: Guest,
    fd: RawFd,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> Result<usize, Errno> {
    let mut call = Call::begin(guest, fd)?;
    let (mut sent, count) = (0, count.min(PARTS_MAX as c_uint) as usize);
    loop {
        let at = messages.wrapping_add(sent);
        let rest = [at.word(), count - sent, (flags | MSG_DONTWAIT).word(), 0, 0];
        // SAFETY: the caller's promise: the rest of its array.
        match unsafe { on(fd, libc::SYS_sendmmsg, rest) } {
            Ok(0) => return call.done(sent, Ok(0)),
            Ok(more) if flags & MSG_DONTWAIT != 0 => return call.done(sent, Ok(more)),
            Ok(more) => {
                // The last may have been sent in part: on a stream.
                sent += more;
                let last = messages.wrapping_add(sent - 1);
                // SAFETY: the kernel has just read and written this one.
                let mut header = unsafe { last.read_unaligned() };
                let bytes = header.msg_len as usize;
                // SAFETY: as above, for its parts.
                let rest = unsafe { give_rest(&mut call, &raw const header.msg_hdr, flags, bytes) };
                header.msg_len += rest.unwrap_or(0) as c_uint;
                // SAFETY: the kernel wrote there.
                unsafe { last.write_unaligned(header) };
                if sent == count || rest.is_err() {
                    return call.done(0, Ok(sent));
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if flags & MSG_DONTWAIT == 0 => {
                if let Err(error) = call.wait(Write) {
                    return call.done(sent, Err(error));
                }
            }
            Err(error) => return call.done(sent, Err(error)),
        }
    }
}

/// Writes to whatever `fd` is.
///
/// # Safety
///
/// As writev(2), with at most `PARTS_MAX` parts.
unsafe fn give_out(
    guest: Guest,
    fd: RawFd,
    parts: *const iovec,
    count: usize,
) -> Result<usize, Errno> {
    let (kind, _) = kernel::kind_of(fd)?;
    // SAFETY: the caller's promise.
    let plainly = || unsafe { on(fd, libc::SYS_writev, [parts.word(), count, 0, 0, 0]) };
    match kind {
        Kind::Socket => {
            descriptors::note_socket(fd, true);
            let mut call = Call::begin(guest, fd)?;
            // SAFETY: an all-zero header is one without anything.
            let mut message: msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            (message.msg_iov, message.msg_iovlen) = (parts.cast_mut(), count);
            // SAFETY: our header, with the caller's parts.
            unsafe { give_message(&mut call, &raw const message, 0) }
        }
        Kind::File => plainly(),
        Kind::Pipe | Kind::Other if fd <= STDERR => plainly(),
        Kind::Pipe => {
            let mut call = Call::begin(guest, fd)?;
            // SAFETY: the caller's promise.
            unsafe { give_to_pipe(&mut call, parts, count) }
        }
        Kind::Other => Call::begin(guest, fd)?.when_ready(Write, plainly),
    }
}

/// Writes to a pipe: all of it, if it is in blocking mode. What fits a page is written in one.
///
/// # Safety
///
/// As writev(2), with at most `PARTS_MAX` parts.
unsafe fn give_to_pipe(call: &mut Call, parts: *const iovec, count: usize) -> Result<usize, Errno> {
    let (mut written, mut by_windows) = (0, false);
    let mut rest: Option<Parts> = None;
    loop {
        let (at, left) = rest.as_mut().map_or((parts, count), |rest| {
            let (at, left) = rest.left();
            (at.cast_const(), left)
        });
        let done = if by_windows {
            let fd = call.fd;
            // SAFETY: the caller's promise: its parts, or what is left of them.
            let plainly = || unsafe { on(fd, libc::SYS_writev, [at.word(), left, 0, 0, 0]) };
            call.in_window(Write, plainly)?.1
        } else {
            let now = libc::RWF_NOWAIT as usize;
            // SAFETY: as above; at the file's own position, the offset -1.
            unsafe {
                on(call.fd, libc::SYS_pwritev2, [at.word(), left, usize::MAX, usize::MAX, now])
            }
        };
        match done {
            Ok(more) => {
                written += call.moved(more);
                // SAFETY: the caller's promise; the kernel has read the array.
                if rest.is_none() && more >= unsafe { bytes_of(parts, count) } {
                    return call.done(written, Ok(0));
                }
                let rest = match rest.take() {
                    // SAFETY: the caller's promise; the kernel has read the array.
                    None => rest.insert(unsafe { Parts::after(parts, count, more) }),
                    Some(old) => {
                        let rest = rest.insert(old);
                        rest.advance(more);
                        rest
                    }
                };
                if rest.bytes() == 0 {
                    return call.done(written, Ok(0));
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if let Err(error) = call.wait(Write) {
                    return call.done(written, Err(error));
                }
            }
            Err(Errno::OPNOTSUPP) if !by_windows => by_windows = true,
            Err(error) => return call.done(written, Err(error)),
        }
    }
}
