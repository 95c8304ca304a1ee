//! Waiting until nobody else runs: what moves a clock by hand, and tests that look at the result.
//!
//! Floor 4. Uses: `park`. Used by: `run`, `testing`.
//!
//! # Source
//!
//! trio `testing.wait_all_tasks_blocked`.

use super::{
    Hub,
    park::{Mode, Wait, WaitOn, Wake},
    timeout::here,
};
use crate::time::Deadline;

/// Parks the current greenlet until every other one is parked, nothing is due, and nothing has
/// arrived; `name` is who asks, for panics. See [`testing::settle`](crate::testing::settle).
#[track_caller]
pub(crate) fn settle(name: &str) {
    /// Leaves the list on every way out, the unwind of a kill included.
    struct Listed<'h>(&'h Hub, Wake);
    impl Drop for Listed<'_> {
        fn drop(&mut self) {
            self.0.quiet.borrow_mut().retain(|wake| *wake != self.1);
        }
    }
    let (hub, _) = here(name);
    hub.checkpoint(Mode::Infallible);
    let wait = Wait::begin(hub, WaitOn::Quiet).expect("checked above");
    hub.quiet.borrow_mut().push(wait.wake());
    let _listed = Listed(hub, wait.wake());
    let _ = wait.park(Deadline::NEVER, Mode::Infallible);
}

impl Hub {
    /// Nothing is ready: wakes those who wait for that, in the order of their coming, unless the
    /// reactor has something after all. Returns whether anybody is ready now.
    pub(super) fn wake_the_quiet(&self) -> bool {
        if self.quiet.borrow().is_empty() {
            return false;
        }
        // An error will come again, in the turn that the loop makes next.
        let _ = self.turn(false);
        self.dispatch_calls();
        if self.ready.is_empty() && !self.kept.has_due() && !self.reactor.is_owed() {
            self.quiet.take().into_iter().for_each(|wake| self.wake(wake));
        }
        !self.ready.is_empty() || self.kept.has_due()
    }
}
