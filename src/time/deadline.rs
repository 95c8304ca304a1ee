//! A point on a clock, in nanoseconds.
//!
//! Floor 1. Uses: nothing. Used by: everything that waits. Knows nothing of: which clock it is on.
//!
//! # Contract
//! Arithmetic saturates and never panics: a caller may add any `Duration` to any deadline, and
//! what lies beyond the 584 years that 64 bits hold is [`Deadline::NEVER`], which nothing moves.
//!
//! # Source
//! libdill's `deadline` arguments and trio's `fail_at`: absolute points compose, timeouts do not.
//! Unlike `std::time::Instant` a deadline can be made from a number, which a virtual clock needs.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
const MILLISECOND_NS: u64 = 1_000_000;

/// A point on a clock: when something is due.
///
/// Units: nanoseconds since the zero of the clock that it was computed from: `CLOCK_MONOTONIC`, or
/// a virtual one of [`testing`](crate::testing). Deadlines of different clocks compare, but the
/// answer means nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(
    /// Nanoseconds since the clock's zero; `u64::MAX` is "never".
    u64,
);

impl Deadline {
    /// The deadline that does not come: later than every other one.
    pub const NEVER: Self = Self(u64::MAX);
    /// The clock's own zero: earlier than or equal to every other deadline, so always due.
    pub const ZERO: Self = Self(0);

    /// Makes a deadline of the nanoseconds since the clock's zero; `u64::MAX` gives
    /// [`NEVER`](Self::NEVER).
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the clock's zero; `u64::MAX` for [`NEVER`](Self::NEVER).
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Tells whether this is [`NEVER`](Self::NEVER).
    #[must_use]
    pub const fn is_never(self) -> bool {
        self.0 == u64::MAX
    }

    /// Returns the point `wait` later; [`NEVER`](Self::NEVER) when that is beyond the range.
    ///
    /// `NEVER` stays `NEVER`, so a computed deadline needs no case for "no deadline". The `+`
    /// operator does the same.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub const fn saturating_add(self, wait: Duration) -> Self {
        // In 64 bits throughout: this runs for every timeout, and `Duration::as_nanos` is 128 wide.
        let seconds = wait.as_secs().saturating_mul(SECOND_NS);
        let wait_ns = seconds.saturating_add(wait.subsec_nanos() as u64);
        Self(self.0.saturating_add(wait_ns))
    }

    /// Returns the time from `earlier` to this point; zero when `earlier` is later.
    ///
    /// From any point to [`NEVER`](Self::NEVER) it is merely long: ask [`is_never`](Self::is_never)
    /// first where "for ever" has a spelling of its own.
    #[must_use]
    pub const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The same as [`Deadline::saturating_add`].
impl Add<Duration> for Deadline {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        self.saturating_add(wait)
    }
}

/// Seconds with three decimals, or nine where three would hide something: `Deadline(1.250s)`,
/// `Deadline(1.250000001s)`, `Deadline(never)`.
impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, rest) = (self.0 / SECOND_NS, self.0 % SECOND_NS);
        if self.is_never() {
            f.write_str("Deadline(never)")
        } else if rest.is_multiple_of(MILLISECOND_NS) {
            write!(f, "Deadline({seconds}.{:03}s)", rest / MILLISECOND_NS)
        } else {
            write!(f, "Deadline({seconds}.{rest:09}s)")
        }
    }
}
