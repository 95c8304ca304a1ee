//! Time slices: how code that computes lets others run, without asking the clock each time.
//!
//! Floor 4. Uses: `timeout`. Used by: users, `task`.
//!
//! A loop calls [`yield_if_due`] in each iteration. Nearly all calls count one down. When the count
//! is used up the clock is read, and the next count is set by how fast the last one went: doubled
//! while counts are short beside the slice, and begun anew when they are not. So a loop that slows
//! down overruns its slice by `STRIDE_MAX` iterations at most, once.
//!
//! # Source
//!
//! Twisted's `Cooperator`, whose slice is 10 ms for all tasks together; tokio `consume_budget`,
//! which counts calls.

use std::{cell::Cell, time::Duration};

use super::{Hub, control::Ctl, timeout::here_or_guest, yield_now};
use crate::time::{Deadline, Passing};

/// How long a greenlet may compute while others wait. A yield with its poll costs less than a
/// thousandth of it.
const SLICE: Duration = Duration::from_millis(1);

/// Calls between two readings of the clock at most: reading it costs as much as a few of them.
const STRIDE_MAX: u32 = 32;

/// A count that takes less than this is doubled.
const STRIDE_SHORT: Duration = Duration::from_micros(16);

/// The slice that is under way: one for the hub, since one greenlet runs at a time.
#[derive(Debug)]
pub(super) struct Slices {
    /// Whose it is; nobody's after a yield.
    whose: Cell<Option<Ctl>>,
    /// Calls until the clock is read.
    left: Cell<u32>,
    /// Of how many.
    stride: Cell<u32>,
    /// When it began.
    began: Cell<Deadline>,
    /// When the clock was last read.
    read: Cell<Deadline>,
}

impl Default for Slices {
    fn default() -> Slices {
        Slices {
            whose: Cell::new(None),
            left: Cell::new(0),
            stride: Cell::new(0),
            began: Cell::new(Deadline::ZERO),
            read: Cell::new(Deadline::ZERO),
        }
    }
}

/// Lets the other greenlets run if the current one has computed for long enough: to be called in
/// each iteration of a loop that computes.
///
/// Shape: yields once a slice, and otherwise returns at once. A slice begins with the first call
/// after a yield, or when another greenlet has called this.
/// Units: a slice is 1 ms, a call a few nanoseconds. In virtual time, where none passes while code
/// runs, each call yields: then the order does not depend on how fast the machine is.
///
/// # Panics
///
/// Outside [`run`](crate::run), and on the hub's own stack.
///
/// # Cancellation
///
/// Cancellation point: when it yields, as [`yield_now`]. In between nobody else runs who could
/// kill; an elapsed [`timeout`](crate::timeout) is noticed at the end of the slice.
///
/// # Examples
///
/// ```
/// let sum = greenloop::run(|| {
///     let mut sum = 0u64;
///     for n in 0..1_000_000 {
///         sum = sum.wrapping_mul(31).wrapping_add(n);
///         greenloop::yield_if_due();
///     }
///     sum
/// });
/// # assert_ne!(sum, 0);
/// ```
#[inline]
#[track_caller]
pub fn yield_if_due() {
    let (hub, ctl) = here_or_guest("yield_if_due");
    let slices = &hub.slices;
    let left = slices.left.get();
    if left > 0 && slices.whose.get() == Some(ctl) {
        slices.left.set(left - 1);
        return;
    }
    if hub.is_slice_over(ctl) {
        yield_now();
    }
}

impl Hub {
    /// Counts an operation that may be served without waiting; lets others run after so many.
    #[inline]
    pub(crate) fn spend_slice(&self) {
        let Ok(ctl) = self.may_park() else { return };
        match self.slice.get() {
            0 => self.end_slice(ctl),
            left => self.slice.set(left - 1),
        }
    }

    #[cold]
    fn end_slice(&self, ctl: Ctl) {
        self.requeue(ctl);
    }

    /// Reads the clock. Ends the slice if it is over; otherwise begins one, or the next count.
    #[cold]
    fn is_slice_over(&self, ctl: Ctl) -> bool {
        let slices = &self.slices;
        if !self.time_passes_in_code() {
            return true;
        }
        let now = self.reactor.clock_now();
        let mine = slices.whose.get() == Some(ctl);
        let began = if mine { slices.began.get() } else { now };
        if now.duration_since(began) >= SLICE {
            slices.whose.set(None);
            slices.left.set(0);
            return true;
        }
        let is_short = now.duration_since(slices.read.get()) < STRIDE_SHORT;
        let stride = if mine && is_short { (slices.stride.get() * 2).min(STRIDE_MAX) } else { 1 };
        slices.whose.set(Some(ctl));
        slices.left.set(stride);
        slices.stride.set(stride);
        slices.began.set(began);
        slices.read.set(now);
        false
    }

    /// Whether time passes while code runs. Where it does not, a slice is one step.
    pub(crate) fn time_passes_in_code(&self) -> bool {
        self.reactor.passing() == Passing::ByItself
    }
}
