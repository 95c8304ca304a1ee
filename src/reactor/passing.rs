//! Turns on a clock that does not pass by itself: when time jumps, and when it must not.
//!
//! Floor 3. Uses: the poller, the wheel, the clock's [`Passing`]. Used by: `reactor`.
//!
//! # Contract
//!
//! When nothing runs, a reactor whose clock passes in jumps does the first of these that applies:
//!
//! 1. **An OS thread owes an answer** ([`Owed`]): it sleeps until something happens. Time stands
//!    still, as if the answer took none.
//! 2. **A timer is set** by anybody but the floor above: it looks for events and messages, for as
//!    long as the clock's patience says if any can come, and jumps to the next deadline when there
//!    are none. Exactly there: nothing is rounded, and no wakeups are merged.
//! 3. **Only timers of the floor above are set**, which serve the program and are not part of it:
//!    it sleeps until the next of them in reality, and jumps to it when nothing has come.
//! 4. **No timer is set**: it sleeps until something happens.
//!
//! Where time passes by hand, it sleeps until something happens, unless a timer is due. Only the
//! floor above lets it [`jump`](Core::jump): when nobody is left who could move it.
//!
//! # Source
//!
//! trio `MockClock` and its `autojump_threshold`; tokio `time::pause`; Twisted `task.Clock`.

use std::{cell::Cell, io, rc::Rc, time::Duration};

use super::{Core, Sink};
use crate::time::Passing;

/// An answer that an OS thread owes to a reactor, until it is dropped: whoever waits for it holds
/// it. No clock jumps meanwhile.
#[derive(Debug)]
pub(crate) struct Owed(Rc<Cell<u32>>);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<W: Copy + PartialEq, M: Send> Core<W, M> {
    /// Notes that an OS thread owes an answer.
    pub(crate) fn owe(&self) -> Owed {
        self.owed.set(self.owed.get() + 1);
        Owed(Rc::clone(&self.owed))
    }

    /// Whether an OS thread owes an answer.
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.get() > 0
    }

    /// How time passes here while nothing runs.
    pub(crate) fn passing(&self) -> Passing {
        self.clock.passing()
    }

    /// Moves the clock to the next deadline. Returns whether there is one.
    pub(crate) fn jump(&self) -> bool {
        let next = self.timers.borrow_mut().next_deadline();
        next.inspect(|next| self.clock.jump_to(*next)).is_some()
    }

    /// Step 1 of a turn that may block, as numbered above.
    #[cold]
    pub(super) fn poll_and_jump(&self, sink: &impl Sink<W, M>) -> io::Result<()> {
        let now = self.clock.now();
        let next = self.timers.borrow_mut().next_deadline();
        let (timeout, target) = match (self.clock.passing(), next) {
            (_, Some(next)) if next <= now => (Some(Duration::ZERO), None),
            (Passing::InJumps { patience }, Some(next)) if !self.is_owed() => {
                let has_users = self.timers_count() > sink.own_timers_count();
                let can_come = self.sources.borrow().waiting() > 0 || self.inbox.has_handles();
                let timeout = match (has_users, can_come) {
                    (false, _) => next.duration_since(now),
                    (true, true) => patience,
                    (true, false) => Duration::ZERO,
                };
                (Some(timeout), Some(next))
            }
            _ => (None, None),
        };
        let events = self.wait(timeout, sink)?;
        if let Some(target) = target
            && events == 0
            && self.inbox.is_quiet()
        {
            self.clock.jump_to(target);
        }
        Ok(())
    }
}
