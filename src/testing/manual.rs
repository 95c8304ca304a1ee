//! A clock that is moved by hand.
//!
//! Floor 9. Uses: `time::Clock`, `hub::settle`.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::{jumping::PATIENCE_DEFAULT, unwrap};
use crate::{
    RunError,
    hub::{settle, try_run_on},
    time::{Clock, Deadline, Passing},
};

/// Virtual time that is moved by hand: it stands still until somebody who runs calls
/// [`advance`](Self::advance).
///
/// Its clones show the same time. It may be used for one run after another, and goes on where it
/// was. When the main greenlet has ended, time passes in jumps, so that those who are killed then
/// may wait in their destructors.
///
/// A main greenlet that waits for a deadline itself waits for ever, and is told so. If it cannot be
/// unwound, since it unwinds already, or is in a [`shield`](crate::shield), time jumps to the next
/// deadline instead.
#[derive(Clone, Debug)]
pub struct ManualClock {
    time: Rc<Time>,
}

#[derive(Debug)]
struct Time {
    now: Cell<Deadline>,
    /// Whether the run is over but for its end.
    is_ending: Cell<bool>,
}

impl ManualClock {
    /// A clock at [`Deadline::ZERO`].
    #[must_use]
    pub fn new() -> ManualClock {
        let time = Time { now: Cell::new(Deadline::ZERO), is_ending: Cell::new(false) };
        ManualClock { time: Rc::new(time) }
    }

    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> Deadline {
        self.time.now.get()
    }

    /// Moves the clock on by `step`, then runs what is due, in the order of its deadlines, and what
    /// that sets off, until all but the caller are parked.
    ///
    /// Shape: the time is set first, so whoever was due on the way sees the end of the step. What
    /// is scheduled meanwhile for no later than that runs too. A panic of what runs reaches whoever
    /// it would have reached without this call; the rest still runs.
    ///
    /// # Panics
    ///
    /// Outside [`run`](Self::run), and on the hub's own stack.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the time is set. Infallible: where a kill cannot
    /// unwind, it stays pending.
    ///
    /// # Source
    ///
    /// Twisted `task.Clock.advance`, out of which an exception of a call unwinds, and leaves the
    /// rest undone.
    #[track_caller]
    pub fn advance(&self, step: Duration) {
        self.jump_to(self.now().saturating_add(step));
        settle("testing::ManualClock::advance");
    }

    /// Advances by each of `steps`.
    ///
    /// # Panics
    ///
    /// As [`advance`](Self::advance).
    ///
    /// # Cancellation
    ///
    /// As [`advance`](Self::advance).
    ///
    /// # Source
    ///
    /// Twisted `task.Clock.pump`.
    #[track_caller]
    pub fn pump(&self, steps: impl IntoIterator<Item = Duration>) {
        for step in steps {
            self.advance(step);
        }
    }

    /// Runs `f` as [`greenloop::run`](crate::run) does, on this clock.
    ///
    /// # Panics
    ///
    /// As [`greenloop::run`](crate::run).
    #[track_caller]
    pub fn run<T>(&self, f: impl FnOnce() -> T) -> T {
        unwrap(self.try_run(f))
    }

    /// Runs `f` as [`greenloop::try_run`](crate::try_run) does, on this clock.
    ///
    /// # Errors
    ///
    /// As [`greenloop::try_run`](crate::try_run).
    ///
    /// # Panics
    ///
    /// As [`greenloop::try_run`](crate::try_run).
    #[track_caller]
    pub fn try_run<T>(&self, f: impl FnOnce() -> T) -> Result<T, RunError> {
        /// Lets time pass when main has ended, by an unwind too.
        struct Ending<'a>(&'a Cell<bool>);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                self.0.set(true);
            }
        }
        let is_ending = &self.time.is_ending;
        is_ending.set(false);
        try_run_on(Box::new(self.clone()), None, move || {
            let _ending = Ending(is_ending);
            f()
        })
    }
}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Deadline {
        ManualClock::now(self)
    }

    fn passing(&self) -> Passing {
        match self.time.is_ending.get() {
            false => Passing::ByHand,
            true => Passing::InJumps { patience: PATIENCE_DEFAULT },
        }
    }

    fn jump_to(&self, deadline: Deadline) {
        self.time.now.set(self.now().max(deadline));
    }
}
