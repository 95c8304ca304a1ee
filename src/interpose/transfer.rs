//! Calls that move bytes from one descriptor to another: sendfile(2), splice(2), tee(2),
//! vmsplice(2), copy_file_range(2).
//!
//! Floor 8. Uses: `send`, `call`, `kernel`, `next`. Used by: the names that `interpose!()`
//! defines.
//!
//! Between pipes and files the kernel has a flag for one call, `SPLICE_F_NONBLOCK`. It says nothing
//! to a socket, which goes by the flags of its open file: there the call is made in a window
//! (`window`). Rejected: to copy through a buffer; what the pipe has given and the socket does not
//! take would be lost. From a file, which has an offset, no more is taken than was sent, so
//! sendfile(2) does copy. A copy between files never waits, but for the disk.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name, which checks every pointer. Buffers are this file's own.

use std::{os::fd::RawFd, ptr};

use libc::SPLICE_F_NONBLOCK;
use rustix::io::Errno;

use super::{
    __c::{c_int, c_uint, iovec, loff_t, off_t, off64_t, size_t, ssize_t},
    call::{Call, events_of},
    early::Word,
    kernel::{self, Kind, answer, on},
    next, send,
};
use crate::hub::{
    guest::{Guest, guest},
    io::Direction::{self, Read, Write},
};

/// Bytes that are copied at a time: what a pipe holds.
const CHUNK: usize = 64 * 1024;

/// sendfile(2).
pub unsafe extern "C-unwind" fn sendfile(
    output: c_int,
    input: c_int,
    offset: *mut off_t,
    count: size_t,
) -> ssize_t {
    let waits = |guest: &Guest| {
        let _ = guest;
        matches!(kernel::kind_of(output), Ok((Kind::Socket | Kind::Pipe, _)))
    };
    let Some(guest) = guest().filter(waits) else {
        // SAFETY: HOOK-1.
        return unsafe { next::sendfile(output, input, offset, count) };
    };
    // SAFETY: HOOK-1.
    answer(unsafe { copy_file(guest, output, input, offset, count) })
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
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::splice(input, input_offset, output, output_offset, length, flags) };
    };
    let kinds = (kernel::kind_of(input), kernel::kind_of(output));
    let (Ok((from, _)), Ok((to, _))) = kinds else { return kernel::fail(Errno::BADF) };
    let rest = [input_offset.word(), output.word(), output_offset.word(), length];
    let [a, b, c, d] = rest;
    let attempt = || {
        let flags = flags | SPLICE_F_NONBLOCK;
        // SAFETY: HOOK-1.
        unsafe { on(input, libc::SYS_splice, [a, b, c, d, flags.word()]) }
    };
    answer(match (from, to) {
        (Kind::Socket, Kind::Pipe) => {
            by_windows(guest, (input, Read), (output, Write), flags, attempt)
        }
        (Kind::Pipe, Kind::Socket) => {
            by_windows(guest, (output, Write), (input, Read), flags, attempt)
        }
        _ => between_pipes(guest, (input, from), (output, to), flags, attempt),
    })
}

/// tee(2).
pub unsafe extern "C-unwind" fn tee(
    input: c_int,
    output: c_int,
    length: size_t,
    flags: c_uint,
) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::tee(input, output, length, flags) };
    };
    let rest = [output.word(), length, (flags | SPLICE_F_NONBLOCK).word(), 0, 0];
    // SAFETY: HOOK-1.
    let attempt = || unsafe { on(input, libc::SYS_tee, rest) };
    answer(between_pipes(guest, (input, Kind::Pipe), (output, Kind::Pipe), flags, attempt))
}

/// vmsplice(2).
pub unsafe extern "C-unwind" fn vmsplice(
    fd: c_int,
    parts: *const iovec,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::vmsplice(fd, parts, count, flags) };
    };
    let rest = [parts.word(), count, (flags | SPLICE_F_NONBLOCK).word(), 0, 0];
    // SAFETY: HOOK-1.
    let attempt = || unsafe { on(fd, libc::SYS_vmsplice, rest) };
    let reads =
        kernel::status_flags(fd).is_ok_and(|flags| flags & libc::O_ACCMODE == libc::O_RDONLY);
    let (input, output) = if reads { (Kind::Pipe, Kind::File) } else { (Kind::File, Kind::Pipe) };
    answer(between_pipes(guest, (fd, input), (fd, output), flags, attempt))
}

/// copy_file_range(2): files alone.
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

/// Does `attempt`, which does not block, until it moves something: waits for the pipe that is not
/// ready.
fn between_pipes(
    guest: Guest,
    (input, from): (RawFd, Kind),
    (output, to): (RawFd, Kind),
    flags: c_uint,
    attempt: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut reading = Call::begin(guest, input)?;
    let mut writing = Call::begin(guest, output)?;
    loop {
        match attempt() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if flags & SPLICE_F_NONBLOCK == 0 => {
                let is_empty = from == Kind::Pipe && kernel::readiness(input, libc::POLLIN) == 0;
                if is_empty || to != Kind::Pipe {
                    reading.wait(Read)?;
                } else {
                    writing.wait(Write)?;
                }
            }
            done => return reading.done(0, done),
        }
    }
}

/// Does `attempt`, which does not block for the pipe, until it moves something, with windows in
/// which it does not block for the socket either.
fn by_windows(
    guest: Guest,
    (socket, socket_way): (RawFd, Direction),
    (pipe, pipe_way): (RawFd, Direction),
    flags: c_uint,
    attempt: impl Fn() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    let mut at_socket = Call::begin(guest, socket)?;
    let mut at_pipe = Call::begin(guest, pipe)?;
    loop {
        match at_socket.in_unmarked_window(socket_way, &attempt)? {
            (_, Err(Errno::INTR)) => {}
            (never_waits, Err(Errno::AGAIN)) if flags & SPLICE_F_NONBLOCK == 0 => {
                if kernel::readiness(pipe, events_of(pipe_way)) == 0 {
                    at_pipe.wait(pipe_way)?;
                } else if never_waits {
                    return Err(Errno::AGAIN);
                } else {
                    at_socket.wait_blocking(socket_way)?;
                }
            }
            (_, done) => return at_socket.done(0, done),
        }
    }
}

/// Sends part of a file: reads at its offset, and moves that on by what was sent.
///
/// # Safety
///
/// As sendfile(2).
unsafe fn copy_file(
    guest: Guest,
    output: RawFd,
    input: RawFd,
    offset: *mut off_t,
    count: usize,
) -> Result<usize, Errno> {
    let _ = Call::begin(guest, output)?;
    let mut place = if offset.is_null() {
        // SAFETY: no memory is touched.
        unsafe { on(input, libc::SYS_lseek, [0, libc::SEEK_CUR.word(), 0, 0, 0]) }?
    } else {
        // SAFETY: the caller's promise: not null, so an offset.
        unsafe { offset.read_unaligned() }.word()
    };
    let mut buffer = vec![0u8; count.min(CHUNK)];
    let mut moved = 0;
    let result = loop {
        let room = buffer.len().min(count - moved);
        let at = buffer.as_mut_ptr();
        // SAFETY: our own buffer, of that length.
        match unsafe { on(input, libc::SYS_pread64, [at.word(), room, place, 0, 0]) } {
            Ok(0) => break Ok(moved),
            Ok(got) => {
                // SAFETY: as above: the part of it that was filled.
                let sent = unsafe { send::write(output, at.cast(), got) };
                let Ok(sent) = usize::try_from(sent) else { break Err(kernel::errno()) };
                moved += sent;
                place += sent;
                if sent < got || moved == count {
                    break Ok(moved);
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => break Err(error),
        }
    };
    if offset.is_null() {
        // SAFETY: no memory is touched.
        let _ = unsafe { on(input, libc::SYS_lseek, [place, libc::SEEK_SET.word(), 0, 0, 0]) };
    } else {
        // SAFETY: the caller's promise; sendfile(2) writes there.
        unsafe { ptr::write_unaligned(offset, place as off_t) };
    }
    if moved > 0 { Ok(moved) } else { result }
}
