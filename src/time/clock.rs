//! What tells the time, and how exact a timer on it has to be.
//!
//! Floor 1. Uses: `deadline`. Used by: `reactor` (one clock each), `testing` (a virtual one).
//! Knows nothing of: timers that are filed.
//!
//! # Contract
//! - `CLOCK-1` [`Clock::now`] never goes back. A wheel survives it, but `due` would then be
//!   something that can stop being true.
//! - `CLOCK-2` [`Clock::slack`] is added, never subtracted: with [`round_up`] it makes a timer late
//!   by less than the slack, and early never.
//!
//! # Source
//! clock_gettime(2); timerslack in prctl(2), which does in the kernel, for a whole thread, what
//! slack does here for each timer in proportion to its length.

use std::fmt;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Deadline;

/// Waits shorter than this are kept to the nanosecond: whoever asks for microseconds measures
/// something, and so few of them can be pending at once that merging them saves nothing.
const EXACT_WAIT_NS_MAX: u64 = 1 << 13;
/// The slack is at most this part of the wait: 1.6 % later is what nobody notices in a timeout.
const SLACK_PART: u64 = 64;
/// The longest slack, 1.05 ms: then all long timers together cause at most 954 wakeups a second,
/// and no timer, however long, is later than the millisecond that `epoll_wait` used to cost.
const SLACK_NS_MAX: u64 = 1 << 20;

/// Tells the time to a hub.
///
/// An implementor must never go back in time (CLOCK-1) and should cost nanoseconds: it is read
/// once in every turn of the reactor and once for every `_timeout` call.
pub trait Clock {
    /// Returns the present, as the deadline that becomes due at this moment.
    fn now(&self) -> Deadline;

    /// Returns by how much a timer of the length `wait` may be late, so that near ones can share a
    /// wakeup.
    ///
    /// Zero by default: every timer keeps its own nanosecond, as a virtual clock must have it, on
    /// which a wakeup costs nothing and a trace has to be exact.
    fn slack(&self, wait: Duration) -> Duration {
        let _ = wait;
        Duration::ZERO
    }
}

/// The clock of the machine: `CLOCK_MONOTONIC`.
///
/// Its zero is the kernel's own (about the time of boot), not the creation of this value: so all
/// system clocks agree, and a deadline may be sent to another thread's hub. It does not count
/// suspended time and is not set by anybody.
#[derive(Clone, Copy, Default)]
pub struct SystemClock {
    /// Made by [`SystemClock::new`] only, so that fields may come.
    _private: (),
}

impl SystemClock {
    /// Makes a clock; all of them show the same time.
    #[must_use]
    pub const fn new() -> Self {
        Self { _private: () }
    }
}

impl Clock for SystemClock {
    /// Reads `CLOCK_MONOTONIC`, through the vDSO where there is one: no system call, no libc name.
    #[inline]
    fn now(&self) -> Deadline {
        let time = clock_gettime(ClockId::Monotonic);
        // Neither is ever negative on this clock; saturating is cheaper to read than to prove.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Deadline::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    /// Returns the largest power of two nanoseconds that is at most a 64th of `wait`, at most
    /// 2^20 ns (1.05 ms); zero for waits under 2^13 ns (8.2 us).
    ///
    /// A power of two, so that the multiples of a long slack are multiples of every shorter one
    /// too: timers of all lengths then meet in the same wakeups.
    #[inline]
    fn slack(&self, wait: Duration) -> Duration {
        let wait_ns = Deadline::ZERO.saturating_add(wait).as_nanos();
        if wait_ns < EXACT_WAIT_NS_MAX {
            return Duration::ZERO;
        }
        // At least 2^7 here, so the logarithm exists.
        let part_ns = (wait_ns / SLACK_PART).min(SLACK_NS_MAX);
        Duration::from_nanos(1 << part_ns.ilog2())
    }
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemClock({:?})", self.now())
    }
}

/// Returns the first multiple of `slack` that is not before `deadline`.
///
/// Shape: unchanged for a slack of zero, for [`Deadline::NEVER`], and where the multiple would be
/// `NEVER` or beyond: a timer that was to come at the end of time still comes.
/// Units: multiples count from the clock's zero, so that deadlines computed at different times
/// meet (CLOCK-2).
#[must_use]
#[inline]
pub(crate) fn round_up(deadline: Deadline, slack: Duration) -> Deadline {
    let slack_ns = Deadline::ZERO.saturating_add(slack).as_nanos();
    let nanos = deadline.as_nanos();
    let rounded = if slack_ns.is_power_of_two() {
        // What `SystemClock` gives, and a mask is worth ten divisions.
        nanos.checked_add(slack_ns - 1).map(|sum| sum & !(slack_ns - 1))
    } else {
        // `None` for zero, too.
        nanos.checked_next_multiple_of(slack_ns)
    };
    match rounded {
        Some(u64::MAX) | None => deadline,
        Some(rounded) => Deadline::from_nanos(rounded),
    }
}
