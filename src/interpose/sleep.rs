//! Sleeping, and giving way: clock_nanosleep(2), nanosleep(2), usleep(3), sleep(3), sched_yield(2).
//!
//! Floor 8. Uses: `call`, `kernel`, `next`. Used by: the names that `interpose!()` defines.
//!
//! Nanoseconds are kept, and a deadline is computed once. A kill, and a `timeout` around it, end a
//! sleep as a signal would, with nothing left to sleep: who sleeps for what is left then sleeps for
//! nothing, and who asks for nothing is done. A sleep until a point of time is over then, too:
//! with `EINTR` it would be begun again for ever.
//!
//! The time of day and the time since boot may be set, or go on while the machine is suspended.
//! Who sleeps until a point of theirs looks at the clock now and then.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`). Times are read and written here as the kernel
//! would.

use std::time::Duration;

use libc::{CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_TAI, TIMER_ABSTIME};
use rustix::io::Errno;

use super::{
    __c::{c_int, c_uint, clockid_t, timespec, useconds_t},
    call,
    early::Word,
    kernel, next,
};
use crate::hub::guest::{Guest, guest};

/// How often a clock that may be set is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// clock_nanosleep(2): returns its error.
pub unsafe extern "C-unwind" fn clock_nanosleep(
    clock: clockid_t,
    flags: c_int,
    time: *const timespec,
    rest: *mut timespec,
) -> c_int {
    let known = matches!(clock, CLOCK_MONOTONIC | CLOCK_REALTIME | CLOCK_BOOTTIME | CLOCK_TAI);
    let Some(guest) = guest().filter(|_| known && !time.is_null()) else {
        // SAFETY: HOOK-1.
        return unsafe { next::clock_nanosleep(clock, flags, time, rest) };
    };
    // SAFETY: HOOK-1: not null, so a time.
    let asked = unsafe { time.read_unaligned() };
    let slept = match kernel::duration(asked) {
        Ok(asked) if flags & TIMER_ABSTIME != 0 => {
            sleep_until(guest, clock, asked);
            Ok(())
        }
        Ok(asked) => sleep_for(guest, asked),
        Err(error) => Err(error),
    };
    match slept {
        Ok(()) => 0,
        Err(error) => {
            if error == Errno::INTR && !rest.is_null() {
                // SAFETY: HOOK-1: not null, so a place for a time.
                unsafe { rest.write_unaligned(kernel::timespec_of(Duration::ZERO)) };
            }
            error.raw_os_error()
        }
    }
}

/// nanosleep(2).
pub unsafe extern "C-unwind" fn nanosleep(time: *const timespec, rest: *mut timespec) -> c_int {
    if guest().is_none() || time.is_null() {
        // SAFETY: HOOK-1.
        return unsafe { next::nanosleep(time, rest) };
    }
    // SAFETY: HOOK-1.
    match unsafe { clock_nanosleep(CLOCK_MONOTONIC, 0, time, rest) } {
        0 => 0,
        error => kernel::fail(Errno::from_raw_os_error(error)) as c_int,
    }
}

/// usleep(3).
pub unsafe extern "C-unwind" fn usleep(microseconds: useconds_t) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::usleep(microseconds) };
    };
    match sleep_for(guest, Duration::from_micros(microseconds.into())) {
        Ok(()) => 0,
        Err(error) => kernel::fail(error) as c_int,
    }
}

/// sleep(3): the seconds that are left.
pub unsafe extern "C-unwind" fn sleep(seconds: c_uint) -> c_uint {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::sleep(seconds) };
    };
    let _ = sleep_for(guest, Duration::from_secs(seconds.into()));
    0
}

/// thrd_sleep(3): -1 for a signal.
pub unsafe extern "C-unwind" fn thrd_sleep(time: *const timespec, rest: *mut timespec) -> c_int {
    if guest().is_none() {
        // SAFETY: HOOK-1.
        return unsafe { next::thrd_sleep(time, rest) };
    }
    // SAFETY: HOOK-1.
    match unsafe { clock_nanosleep(CLOCK_MONOTONIC, 0, time, rest) } {
        0 => 0,
        libc::EINTR => -1,
        _ => -2,
    }
}

/// sched_yield(2).
pub unsafe extern "C-unwind" fn sched_yield() -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::sched_yield() };
    };
    guest.yield_now();
    0
}

/// thrd_yield(3).
pub unsafe extern "C-unwind" fn thrd_yield() {
    match guest() {
        Some(guest) => guest.yield_now(),
        // SAFETY: HOOK-1.
        None => unsafe { next::thrd_yield() },
    }
}

/// Sleeps for a while; for none at all, it gives way.
fn sleep_for(guest: Guest, time: Duration) -> Result<(), Errno> {
    if time.is_zero() {
        guest.yield_now();
        return Ok(());
    }
    call::sleep(guest, guest.now() + time).map_err(|_| Errno::INTR)
}

/// Sleeps until `clock` says `point`.
fn sleep_until(guest: Guest, clock: clockid_t, point: Duration) {
    loop {
        let left = point.saturating_sub(time_of(clock));
        let step = if clock == CLOCK_MONOTONIC { left } else { left.min(LOOK_EVERY) };
        if sleep_for(guest, step).is_err() || step == left {
            return;
        }
    }
}

/// What `clock` says.
fn time_of(clock: clockid_t) -> Duration {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    let arguments = [clock.word(), (&raw mut time).word(), 0, 0, 0, 0];
    // SAFETY: the kernel writes one timespec, which is live.
    let _ = unsafe { kernel::call(libc::SYS_clock_gettime, arguments) };
    kernel::duration(time).unwrap_or_default()
}
