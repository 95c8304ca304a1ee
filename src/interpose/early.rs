//! What stands in for libc until the next definitions are known: bare system calls.
//!
//! Floor 8. Uses: `sys::raw`. Used by: `next`.
//!
//! Called by constructors of libraries, which run before the program's own, so by few programs; and
//! where a libc lacks a call that the kernel has.

#![expect(unsafe_code, reason = "system calls")]
//! # Safety
//!
//! Whoever calls these keeps the contract of the manual page; the kernel's is the same, but for
//! what libc does in between, which is done here. errno is the thread's own word.

use std::{
    mem::size_of,
    process::abort,
    ptr::{null, null_mut},
};

use super::__c::*;
use crate::sys::syscall6;

/// Bytes in the kernel's set of signals.
pub(super) const SIGSET_SIZE: usize = 8;

/// What thrd_join(3) says that is not more precise.
pub(super) const THRD_ERROR: c_int = 2;

pub(super) use libc::{EAI_SYSTEM, ENOSYS};

/// An argument, as the kernel takes it.
pub(super) trait Word {
    fn word(self) -> usize;
}

macro_rules! words {
    ($($number:ty)*) => {
        $(impl Word for $number {
            fn word(self) -> usize {
                // Sign-extended if it has a sign, as C does.
                self as usize
            }
        })*
    };
}
words! { i32 u32 i64 u64 usize }

impl<T> Word for *const T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

impl<T> Word for *mut T {
    fn word(self) -> usize {
        self.expose_provenance()
    }
}

/// What a function of libc returns, made of what the kernel says.
pub(super) trait Returned {
    fn from_kernel(result: isize) -> Self;
}

impl Returned for isize {
    fn from_kernel(result: isize) -> isize {
        result
    }
}

impl Returned for i32 {
    fn from_kernel(result: isize) -> i32 {
        result as i32
    }
}

impl Returned for i64 {
    fn from_kernel(result: isize) -> i64 {
        result as i64
    }
}

/// Sets errno.
pub(super) fn set_errno(errno: c_int) {
    // SAFETY: it gives the address of the thread's own errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else writes there.
    unsafe { place.write(errno) };
}

/// errno.
pub(super) fn errno() -> c_int {
    // SAFETY: it gives the address of the thread's own errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { place.read() }
}

/// Turns what the kernel says into a result and errno.
pub(super) fn returned<R: Returned>(result: isize) -> R {
    if (-4095..0).contains(&result) {
        set_errno(-result as c_int);
        return R::from_kernel(-1);
    }
    R::from_kernel(result)
}

/// -1, because the function is not there.
pub(super) fn missing() -> c_int {
    set_errno(ENOSYS);
    -1
}

/// What getaddrinfo(3) says that is not there.
pub(super) fn no_resolver() -> c_int {
    set_errno(ENOSYS);
    EAI_SYSTEM
}

/// A thread that wants to end, on a libc that cannot end threads.
pub(super) fn no_way_out() -> ! {
    abort()
}

/// The length of a buffer, if it has room for it; otherwise the end, as in code that was built with
/// `_FORTIFY_SOURCE`.
pub(super) fn checked(length: size_t, room: size_t) -> size_t {
    if length > room {
        abort();
    }
    length
}

/// As `checked`, for an array of `pollfd`.
pub(super) fn checked_fds(count: nfds_t, room: size_t) -> nfds_t {
    if room / size_of::<pollfd>() < count as usize {
        abort();
    }
    count
}

/// Makes the system call `number`.
///
/// # Safety
///
/// Whatever it demands of its arguments.
pub(super) unsafe fn kernel(number: c_long, arguments: &[usize]) -> isize {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    // SAFETY: the caller's promise.
    unsafe { syscall6(number as usize, all) }
}

macro_rules! kernel {
    ($number:ident $(, $argument:expr)* $(,)?) => {{
        let arguments = [$(Word::word($argument)),*];
        // SAFETY: what the caller was given is passed on, or is a local of this call.
        unsafe { kernel(libc::$number, &arguments) }
    }};
}

/// A copy of what is pointed to, if anything is: the kernel writes the time that is left there.
///
/// # Safety
///
/// Null, or valid for a read.
unsafe fn copied<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: the caller's promise.
    unsafe { from.as_ref() }.copied()
}

/// A pointer to what is in `place`, or null.
fn pointer<T>(place: &mut Option<T>) -> *mut T {
    place.as_mut().map_or(null_mut(), |value| value)
}

/// syscall(2).
pub(super) unsafe fn early_syscall(number: c_long, arguments: [c_long; 6]) -> c_long {
    // SAFETY: the caller's promise.
    returned(unsafe { syscall6(number as usize, arguments.map(|word| word as usize)) })
}

/// poll(2), which not every processor has.
pub(super) unsafe fn early_poll(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
    let ms = c_long::from(timeout_ms);
    let mut timeout =
        (ms >= 0).then(|| timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 });
    returned(kernel!(SYS_ppoll, fds, count, pointer(&mut timeout), 0, SIGSET_SIZE))
}

/// ppoll(2).
pub(super) unsafe fn early_ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut timeout = unsafe { copied(timeout) };
    returned(kernel!(SYS_ppoll, fds, count, pointer(&mut timeout), mask, SIGSET_SIZE))
}

/// select(2), which not every processor has. It says how much time is left.
pub(super) unsafe fn early_select(
    count: c_int,
    readable: *mut fd_set,
    writable: *mut fd_set,
    exceptional: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    // SAFETY: the caller's promise.
    let given = unsafe { copied(timeout) };
    if given.is_some_and(|given| given.tv_sec < 0 || given.tv_usec < 0) {
        set_errno(libc::EINVAL);
        return -1;
    }
    let mut left = given.map(|given| timespec {
        tv_sec: given.tv_sec.saturating_add(given.tv_usec / 1_000_000),
        tv_nsec: given.tv_usec % 1_000_000 * 1000,
    });
    let all = [count.word(), readable.word(), writable.word(), exceptional.word()];
    let result = kernel!(SYS_pselect6, all[0], all[1], all[2], all[3], pointer(&mut left), 0);
    if let Some(left) = left {
        let left = timeval { tv_sec: left.tv_sec, tv_usec: left.tv_nsec / 1000 };
        // SAFETY: not null, for a time was read there; the caller lets it be written.
        unsafe { timeout.write(left) };
    }
    returned(result)
}

/// pselect(2).
pub(super) unsafe fn early_pselect(
    count: c_int,
    readable: *mut fd_set,
    writable: *mut fd_set,
    exceptional: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    // SAFETY: the caller's promise.
    let mut timeout = unsafe { copied(timeout) };
    let mask = [mask.word(), SIGSET_SIZE];
    let all = [count.word(), readable.word(), writable.word(), exceptional.word()];
    let pair = (&raw const mask).word();
    returned(kernel!(SYS_pselect6, all[0], all[1], all[2], all[3], pointer(&mut timeout), pair))
}

/// clock_nanosleep(2), which returns its error.
pub(super) unsafe fn early_clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    rest: *mut timespec,
) -> c_int {
    -(kernel!(SYS_clock_nanosleep, clock, flags, time, rest) as c_int)
}

/// usleep(3).
pub(super) unsafe fn early_usleep(microseconds: useconds_t) -> c_int {
    let us = c_long::from(microseconds);
    let time = timespec { tv_sec: us / 1_000_000, tv_nsec: us % 1_000_000 * 1000 };
    returned(kernel!(SYS_nanosleep, &raw const time, 0))
}

/// sleep(3): the seconds that are left when a signal came.
pub(super) unsafe fn early_sleep(seconds: c_uint) -> c_uint {
    let mut time = timespec { tv_sec: c_long::from(seconds), tv_nsec: 0 };
    let place = &raw mut time;
    if kernel!(SYS_nanosleep, place, place) == 0 {
        return 0;
    }
    time.tv_sec as c_uint
}

/// thrd_sleep(3).
pub(super) unsafe fn early_thrd_sleep(time: *const timespec, rest: *mut timespec) -> c_int {
    match -(kernel!(SYS_nanosleep, time, rest) as c_int) {
        0 => 0,
        libc::EINTR => -1,
        _ => -2,
    }
}

/// thrd_yield(3).
pub(super) unsafe fn early_thrd_yield() {
    let _ = kernel!(SYS_sched_yield);
}

/// dup2(2), which not every processor has.
pub(super) unsafe fn early_dup2(old: c_int, new: c_int) -> c_int {
    if old != new {
        return returned(kernel!(SYS_dup3, old, new, 0));
    }
    match kernel!(SYS_fcntl, old, libc::F_GETFD, 0) {
        flags if flags >= 0 => old,
        error => returned(error),
    }
}

/// epoll_create(2), which not every processor has.
pub(super) unsafe fn early_epoll_create(size: c_int) -> c_int {
    if size <= 0 {
        set_errno(libc::EINVAL);
        return -1;
    }
    returned(kernel!(SYS_epoll_create1, 0))
}

/// closefrom(3).
pub(super) unsafe fn early_closefrom(first: c_int) {
    let _ = kernel!(SYS_close_range, first.max(0), c_uint::MAX, 0);
}

/// No address, because the function is not there.
pub(super) fn nowhere<T>() -> *mut T {
    set_errno(ENOSYS);
    null::<T>().cast_mut()
}
