//! What tells the time, and how time passes on it while nothing runs.
//!
//! Floor 1. Uses: `deadline`. Used by: `reactor` (one clock each), `testing` (virtual ones).
//! Knows nothing of: timers that are filed.
//!
//! # Contract
//! - `CLOCK-1` [`Clock::now`] never goes back. A wheel survives it, but `due` would then be
//!   something that can stop being true.
//!
//! # Source
//! clock_gettime(2); Twisted's `IReactorTime.seconds`; trio's `Clock`, whose
//! `deadline_to_sleep_time` asks a clock the same question.

use std::{fmt, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::Deadline;

/// Tells the time to a hub.
///
/// An implementor must never go back in time (CLOCK-1) and should cost nanoseconds: it is read
/// once in every turn of the reactor and once for every `_timeout` call.
pub(crate) trait Clock {
    /// Returns the present, as the deadline that becomes due at this moment.
    fn now(&self) -> Deadline;

    /// Tells how the time until a deadline passes while nothing runs.
    fn passing(&self) -> Passing {
        Passing::ByItself
    }

    /// Makes `deadline` the present, unless it is past. Called by a reactor that has nothing left
    /// to do before `deadline`, where time passes in jumps; and where it passes by hand, when main
    /// waits for it and cannot be unwound.
    fn jump_to(&self, deadline: Deadline) {
        let _ = deadline;
    }
}

/// How time passes while nothing runs, and a reactor waits for its next deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passing {
    /// By itself: the reactor sleeps until the deadline.
    ByItself,
    /// In jumps: the reactor looks once for what has happened outside, and then moves the clock to
    /// the deadline.
    InJumps {
        /// How long it waits for descriptors and other threads before each jump, if any are waited
        /// for. In real time.
        patience: Duration,
    },
    /// By hand: not at all until somebody who runs moves the clock. No deadline can end a wait.
    /// When nobody else could ever run, main is unwound; if it cannot be, time jumps.
    ByHand,
}

/// The clock of the machine: `CLOCK_MONOTONIC`.
///
/// Its zero is the kernel's own (about the time of boot), not the creation of this value: so all
/// system clocks agree, and a deadline may be sent to another thread's hub. It does not count
/// suspended time and is not set by anybody.
#[derive(Clone, Copy, Default)]
pub(crate) struct SystemClock {
    /// Made by [`SystemClock::new`] only, so that fields may come.
    _private: (),
}

impl SystemClock {
    /// Makes a clock; all of them show the same time.
    #[must_use]
    pub(crate) const fn new() -> Self {
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
}

impl fmt::Debug for SystemClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SystemClock({:?})", self.now())
    }
}
