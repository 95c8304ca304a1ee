//! A clock that jumps over the time in which nothing happens.
//!
//! Floor 9. Uses: `time::Clock`. The jumps are made in `reactor/passing.rs`, whose rules say when.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::unwrap;
use crate::{
    RunError,
    hub::try_run_on,
    time::{Clock, Deadline, Passing},
};

/// How long descriptors and other threads are waited for before a jump, if nothing else was set.
///
/// What was written to a socket of the same machine can nearly always be read at once. On a loaded
/// machine the kernel may hand it over a little later.
pub(super) const PATIENCE_DEFAULT: Duration = Duration::from_millis(1);

/// Virtual time that jumps: it stands still while anything runs, and goes to the next deadline when
/// everything is parked.
///
/// Its clones show the same time. It may be used for one run after another, and goes on where it
/// was. See the [module](super) for when to use it, and what it does not change.
#[derive(Clone, Debug)]
pub struct JumpingClock {
    now: Rc<Cell<Deadline>>,
    patience: Duration,
}

impl JumpingClock {
    /// A clock at [`Deadline::ZERO`].
    #[must_use]
    pub fn new() -> JumpingClock {
        JumpingClock { now: Rc::new(Cell::new(Deadline::ZERO)), patience: PATIENCE_DEFAULT }
    }

    /// The time that it shows.
    #[must_use]
    pub fn now(&self) -> Deadline {
        self.now.get()
    }

    /// Sets how long, in real time, the reactor waits for descriptors and other threads before each
    /// jump.
    ///
    /// Shape: it waits only while a greenlet waits for a descriptor, or another thread has a handle
    /// or a waker of the run; and goes on at once when something comes. Zero is enough for
    /// deadlines alone. Raise it when peers outside of the program answer within a virtual time
    /// limit: it is the longest that they may take.
    /// Units: 1 ms if not set.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> JumpingClock {
        self.patience = patience;
        self
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
        try_run_on(Box::new(self.clone()), None, f)
    }
}

impl Default for JumpingClock {
    fn default() -> JumpingClock {
        JumpingClock::new()
    }
}

impl Clock for JumpingClock {
    fn now(&self) -> Deadline {
        JumpingClock::now(self)
    }

    fn passing(&self) -> Passing {
        Passing::InJumps { patience: self.patience }
    }

    fn jump_to(&self, deadline: Deadline) {
        self.now.set(self.now.get().max(deadline));
    }
}
