//! The census: what of a hub's is alive, so that a test can tell what its program left behind.
//!
//! Floor 4. Uses: all of `hub`. Used by: `testing`.

use std::fmt;

use super::{
    Hub,
    control::{Ctl, Role},
    park::WaitOn,
    report::Backtraces,
};

/// What is alive of a hub, but for its main greenlet, whoever asks, and what it keeps for later
/// use. All of it is zero when a program has cleaned up after itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    /// One line each.
    greenlets: Vec<String>,
    /// Places in lists: what they are, and how many.
    counts: [(&'static str, usize); 7],
    /// Handles, wakers and answers that are owed.
    held_by_threads: usize,
}

impl Census {
    /// Whether nothing is alive.
    pub(crate) fn is_clear(&self) -> bool {
        self.is_clear_but_for_threads() && self.held_by_threads == 0
    }

    /// Whether nothing is, but what other threads may be about to let go of.
    pub(crate) fn is_clear_but_for_threads(&self) -> bool {
        self.greenlets.is_empty() && self.counts.iter().all(|(_, count)| *count == 0)
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut apart = "";
        let held = ("handle(s) or waker(s)", self.held_by_threads);
        let counts = self.counts.iter().chain([&held]);
        for (what, count) in counts.filter(|(_, count)| *count > 0) {
            write!(f, "{apart}{count} {what}")?;
            apart = ", ";
        }
        for greenlet in &self.greenlets {
            write!(f, "{apart}{greenlet}")?;
            apart = ", ";
        }
        Ok(())
    }
}

impl Hub {
    /// Counts what is alive.
    pub(crate) fn census(&self) -> Census {
        let is_left = |ctl: &Ctl| {
            let idle = ctl.waits_on.get() == WaitOn::Idle;
            !idle && ctl.birth().role != Role::Main && self.current.get() != Some(*ctl)
        };
        let left: Vec<u64> = self.all().iter().filter(|ctl| is_left(ctl)).map(Ctl::id).collect();
        let report = (!left.is_empty()).then(|| self.report(Backtraces::AsAsked));
        let parked = report.iter().flat_map(|report| report.parked());
        let greenlets = parked.filter(|parked| left.contains(&parked.id));
        let stacks: usize = self.pools.borrow().iter().map(|pool| pool.used()).sum();
        let own_timers = usize::from(self.trimming.get()) + self.fate.shutdown_timers_count.get();
        Census {
            greenlets: greenlets.map(ToString::to_string).collect(),
            counts: [
                ("stack(s) that no greenlet has", stacks.abs_diff(self.live())),
                ("timer(s)", self.reactor.timers_count() - own_timers),
                ("wait(s) for a descriptor", self.reactor.sources().waiting()),
                ("kept waker(s)", self.kept.count()),
                ("delayed or reserved call(s)", self.calls.count()),
                ("wait(s) that other threads may end", self.outside_waits.get()),
                ("answer(s) owed by a thread", usize::from(self.reactor.is_owed())),
            ],
            held_by_threads: self.inbox().handles_count(),
        }
    }
}
