//! What the engines ask the kernel of a descriptor: small calls, by instruction.
//!
//! Floor 8. Uses: `sys::syscall6`. Used by: the engines of `interpose`.
//!
//! Nothing that these say is relied on later. Numbers are closed and used again where no hook sees
//! it (`fclose`, raw calls, libc's own), and a socket's timeouts or flags may be changed by another
//! process that has it, too: a remembered answer would be a wrong one some day. `recall` keeps the
//! most usual of them, and trusts that for so short a time that being wrong is a delay.
//!
//! Rejected: to rely on a table of classes, flags and timeouts by descriptor, or by open file. It
//! would need every `socket`, `dup`, `setsockopt` and `close` to be seen.

#![expect(unsafe_code, reason = "system calls by instruction")]
//! # Safety
//!
//! Each call gives the kernel pointers to live memory of the size that it writes.

use std::{
    mem::MaybeUninit,
    os::fd::{BorrowedFd, RawFd},
    time::Duration,
};

use libc::{c_int, c_long};
use rustix::io::Errno;

use super::early;
use crate::{hub::io::Direction, sys::syscall6};

/// A number as the kernel takes it.
pub(super) fn word(number: impl Into<i64>) -> usize {
    number.into() as usize
}

/// Makes a system call; `errno` stays as it was.
///
/// # Safety
///
/// Whatever it does to memory and descriptors must be right for the caller: it is the kernel's own
/// contract, with pointers that the kernel checks before it uses them.
#[inline(always)]
pub(super) unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    let result = unsafe { syscall6(number as usize, arguments) };
    if (-4095..0).contains(&result) {
        return Err(Errno::from_raw_os_error(-result as i32));
    }
    Ok(result as usize)
}

/// What a descriptor is, as far as waiting goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Takes `MSG_DONTWAIT`.
    Socket,
    /// A pipe, with a name or without.
    Pipe,
    /// Files, folders and block devices: always ready, and slow only as disks are.
    File,
    /// Terminals and other devices, eventfds, timers, and what has no type.
    Other,
}

/// What `fd` is, and by which number its file is known among those of its kind.
pub(super) fn kind_of(fd: RawFd) -> Result<(Kind, u64), Errno> {
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    let at = stat.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes one `stat`, for which there is room.
    unsafe { call(libc::SYS_fstat, [word(fd), at, 0, 0, 0, 0]) }?;
    // SAFETY: zeroed before, and written now: any bytes are a `stat`.
    let stat = unsafe { stat.assume_init() };
    let kind = match stat.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => Kind::Socket,
        libc::S_IFIFO => Kind::Pipe,
        libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK | libc::S_IFLNK => Kind::File,
        _ => Kind::Other,
    };
    Ok((kind, stat.st_ino))
}

/// The status flags of the open file (`F_GETFL`).
pub(super) fn status_flags(fd: RawFd) -> Result<c_int, Errno> {
    let arguments = [word(fd), word(libc::F_GETFL), 0, 0, 0, 0];
    // SAFETY: no memory is touched.
    unsafe { call(libc::SYS_fcntl, arguments) }.map(|flags| flags as c_int)
}

/// Sets or clears `O_NONBLOCK`, and no other flag.
pub(super) fn set_nonblocking(fd: RawFd, on: bool) -> Result<(), Errno> {
    let on = c_int::from(on);
    let at = (&raw const on).expose_provenance();
    // SAFETY: the kernel reads one int.
    unsafe { call(libc::SYS_ioctl, [word(fd), libc::FIONBIO as usize, at, 0, 0, 0]) }.map(drop)
}

/// Sets all status flags that can be set (`F_SETFL`).
pub(super) fn set_status_flags(fd: RawFd, flags: c_int) -> Result<(), Errno> {
    let arguments = [word(fd), word(libc::F_SETFL), word(flags), 0, 0, 0];
    // SAFETY: no memory is touched.
    unsafe { call(libc::SYS_fcntl, arguments) }.map(drop)
}

/// Takes a record lock on the last byte that a file could have, or lets it go; never waits.
pub(super) fn lock_record(fd: RawFd, kind: c_int) -> Result<(), Errno> {
    let lock = libc::flock {
        l_type: kind as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: libc::off_t::MAX - 1,
        l_len: 1,
        l_pid: 0,
    };
    let at = (&raw const lock).expose_provenance();
    // SAFETY: the kernel reads one lock.
    unsafe { call(libc::SYS_fcntl, [word(fd), word(libc::F_SETLK), at, 0, 0, 0]) }.map(drop)
}

/// An option of `SOL_SOCKET` that is a `T`.
fn socket_option<T: Copy>(fd: RawFd, option: c_int, mut value: T) -> Result<T, Errno> {
    let mut size = size_of::<T>() as libc::socklen_t;
    let (at, size_at) = (&raw mut value, &raw mut size);
    let (level, option) = (word(libc::SOL_SOCKET), word(option));
    let arguments = [word(fd), level, option, at.expose_provenance(), size_at.expose_provenance()];
    let [a, b, c, d, e] = arguments;
    // SAFETY: the kernel writes at most `size` bytes to `value` and the size to `size`; options
    // asked for here are plain numbers.
    unsafe { call(libc::SYS_getsockopt, [a, b, c, d, e, 0]) }?;
    Ok(value)
}

/// The timeout that the user has set for this direction (`SO_RCVTIMEO`, `SO_SNDTIMEO`); `None`
/// where there is none, and for what is no socket.
pub(super) fn socket_timeout(fd: RawFd, direction: Direction) -> Option<Duration> {
    let option = match direction {
        Direction::Read => libc::SO_RCVTIMEO,
        Direction::Write => libc::SO_SNDTIMEO,
    };
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let set = socket_option(fd, option, none).ok()?;
    let timeout = Duration::new(set.tv_sec.max(0) as u64, set.tv_usec as u32 * 1000);
    (!timeout.is_zero()).then_some(timeout)
}

/// Whether a receive may be followed by another one for the rest of the same bytes.
pub(super) fn is_stream(fd: RawFd) -> bool {
    socket_option(fd, libc::SO_TYPE, 0) == Ok(libc::SOCK_STREAM)
}

/// Whether it is a socket of a kind that has connections: others never wait to connect.
pub(super) fn is_connected_kind(fd: RawFd) -> bool {
    matches!(socket_option(fd, libc::SO_TYPE, 0), Ok(libc::SOCK_STREAM | libc::SOCK_SEQPACKET))
}

/// Whether it is a TCP socket, whose bytes nobody in the kernel makes records of (TLS).
pub(super) fn is_plain_tcp(fd: RawFd) -> bool {
    let (mut name, mut size) = ([0u8; 16], 16 as libc::socklen_t);
    let at = name.as_mut_ptr().expose_provenance();
    let size_at = (&raw mut size).expose_provenance();
    let arguments = [word(fd), word(libc::IPPROTO_TCP), word(TCP_ULP), at, size_at, 0];
    // SAFETY: the kernel writes at most 16 bytes of a name, and its length.
    let asked = unsafe { call(libc::SYS_getsockopt, arguments) };
    asked.is_ok() && size == 0
}

/// What stands between TCP and who reads: an option of TCP's alone.
pub(super) const TCP_ULP: c_int = 31;

/// What poll(2) says of `fd` at once.
pub(super) fn readiness(fd: RawFd, events: i16) -> i16 {
    let mut one = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one live `pollfd`, and a timeout of zero.
    match unsafe { poll_now(&raw mut one, 1, std::ptr::null()) } {
        Ok(_) => one.revents,
        Err(_) => libc::POLLERR,
    }
}

/// Polls without waiting, with `mask` as the thread's signals if there is one.
///
/// # Safety
///
/// As poll(2) and ppoll(2): `fds` is the caller's, `mask` null or eight bytes.
pub(super) unsafe fn poll_now(
    fds: *mut libc::pollfd,
    count: usize,
    mask: *const libc::sigset_t,
) -> Result<usize, Errno> {
    let mut zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let at = (&raw mut zero).expose_provenance();
    let (fds, mask) = (fds.expose_provenance(), mask.expose_provenance());
    // SAFETY: the caller's promise; the kernel may write the rest of the time to `zero`.
    unsafe { call(libc::SYS_ppoll, [fds, count, at, mask, SIGNALS_BYTES, 0]) }
}

/// The size of the kernel's set of signals.
pub(super) const SIGNALS_BYTES: usize = 8;

/// Blocks this OS thread until one of `fds` is ready: for a child that has no other way (`marked`).
/// `None` waits for ever.
pub(super) fn poll_for_real(
    fds: &mut [libc::pollfd],
    limit: Option<Duration>,
) -> Result<usize, Errno> {
    let mut limit = limit.map(timespec_of);
    let limit = limit.as_mut().map_or(0, |limit| (&raw mut *limit).expose_provenance());
    let at = fds.as_mut_ptr().expose_provenance();
    // SAFETY: live `pollfd`s, and a live timespec or null.
    unsafe { call(libc::SYS_ppoll, [at, fds.len(), limit, 0, SIGNALS_BYTES, 0]) }
}

/// This process, asked anew: the child of a vfork shares all memory with its parent.
pub(super) fn process() -> i32 {
    // SAFETY: no memory is touched.
    unsafe { call(libc::SYS_getpid, [0; 6]) }.map_or(-1, |pid| pid as i32)
}

/// `fd` for rustix, for one call.
///
/// # Safety
///
/// It is passed to a system call and not kept: whether it is open is for the kernel to say.
pub(super) unsafe fn borrowed<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: rustix hands the number to the kernel; the caller's promise for the rest.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A time of the user's.
pub(super) fn duration(time: libc::timespec) -> Result<Duration, Errno> {
    let seconds = u64::try_from(time.tv_sec).map_err(|_| Errno::INVAL)?;
    match u32::try_from(time.tv_nsec) {
        Ok(nanoseconds) if nanoseconds < 1_000_000_000 => Ok(Duration::new(seconds, nanoseconds)),
        _ => Err(Errno::INVAL),
    }
}

/// The same the other way round.
pub(super) fn timespec_of(time: Duration) -> libc::timespec {
    let tv_sec = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    libc::timespec { tv_sec, tv_nsec: time.subsec_nanos().into() }
}

/// Gives a hooked call its result as libc does: -1 and `errno`, or a number, and `errno` as before.
#[inline(always)]
pub(super) fn answer(result: Result<usize, Errno>) -> isize {
    match result {
        Ok(number) => number as isize,
        Err(error) => fail(error),
    }
}

/// Sets `errno` and returns -1. Last of all in a hooked call.
#[cold]
pub(super) fn fail(error: Errno) -> isize {
    set_errno(error);
    -1
}

/// Sets `errno` of whoever runs on this base.
pub(super) fn set_errno(error: Errno) {
    early::set_errno(error.raw_os_error());
}

/// `errno` of whoever runs on this base.
pub(super) fn errno() -> Errno {
    // SAFETY: libc's own, for the thread-local base that is current here.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: it is a live int.
    Errno::from_raw_os_error(unsafe { place.read() })
}

/// A system call on `fd` whose other arguments are the user's own.
///
/// # Safety
///
/// As [`call`].
#[inline(always)]
pub(super) unsafe fn on(fd: RawFd, number: c_long, rest: [usize; 5]) -> Result<usize, Errno> {
    let [a, b, c, d, e] = rest;
    // SAFETY: the caller's promise.
    unsafe { call(number, [word(fd), a, b, c, d, e]) }
}
