//! Counters: what a hub has done, and what it has.
//!
//! Floor 4. Uses: what the hub counts anyway. Used by: users.

use std::{io, time::Duration};

use super::{Hub, Reactor, ReactorHandle, control::State};

/// Counters of one reactor.
///
/// What is counted is counted anyway: they cost nothing until they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// How many turns the reactor has made: an idle one makes none.
    pub turns: u64,
    /// How many times a greenlet was resumed.
    pub switches: u64,
    /// How many times another thread had to wake the reactor by a system call.
    pub wakes: u64,
    /// Greenlets that are alive, those included that run what the reactor calls.
    pub greenlets: usize,
    /// Those of them that are parked.
    pub parked: usize,
    /// Those that are to run: woken, yielded or new.
    pub ready: usize,
    /// Those that are to be started by a timer.
    pub delayed: usize,
    /// Stacks in use or promised: one for each greenlet.
    pub stacks: usize,
    /// The most that ever were, each size counted for itself.
    pub stacks_max: usize,
    /// Timers that are set.
    pub timers: usize,
    /// How late a timer has fired at most: how long the loop was held up, or the machine busy.
    pub timer_lag_max: Duration,
    /// Waits for a descriptor.
    pub io_waits: usize,
}

impl Reactor {
    /// What the reactor has done, and what it has.
    ///
    /// Shape: looks at each greenlet, so it takes time in proportion.
    ///
    /// # Examples
    ///
    /// ```
    /// let metrics = greenloop::run(|| {
    ///     greenloop::spawn(|| greenloop::sleep(std::time::Duration::from_secs(3600)));
    ///     greenloop::yield_now();
    ///     greenloop::reactor().metrics()
    /// });
    /// assert_eq!((metrics.greenlets, metrics.parked, metrics.timers), (2, 1, 1));
    /// ```
    pub fn metrics(&self) -> Metrics {
        self.hub().metrics()
    }

    /// Sets for how long a greenlet may keep this thread before a watchdog, which is a thread of
    /// its own, says so on standard error; `None` for ever. 1 second in debug builds if not set,
    /// and `None` in others.
    ///
    /// Shape: a report for each time, with the greenlet's name, its backtrace, and what to use
    /// instead; none for a reactor that is idle, a process that was stopped, or a thread that was
    /// not given the processor. Limits below 100 ms may name greenlets that are merely slow.
    ///
    /// The watchdog asks the thread by SIGURG where it is. The signal's handler is there for that
    /// moment only, and never if the program has one of its own; the report then has neither name
    /// nor backtrace. A system call of the greenlet's may fail with `EINTR`. There are backtraces
    /// on x86_64 only.
    ///
    /// # Errors
    ///
    /// No thread could be started.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// greenloop::run(|| greenloop::reactor().set_watchdog(None))
    /// # }
    /// ```
    ///
    /// A report:
    ///
    /// ```text
    /// greenloop: greenlet #2 'parser' (spawned at src/main.rs:12:9) has not let go of thread
    /// 'main' for 1.0 s, and nobody else runs there. It computes: call yield_if_due in its loops, …
    ///     server::parse at src/parse.rs:41:13
    ///     server::main::{{closure}}::{{closure}} at src/main.rs:12:20
    /// ```
    ///
    /// # Source
    ///
    /// gevent `max_blocking_time`, which is 0.1 s.
    pub fn set_watchdog(&self, limit: Option<Duration>) -> io::Result<()> {
        self.hub().pulse.set_limit(limit);
        match limit {
            Some(_) => super::watchdog::wake(),
            None => Ok(()),
        }
    }
}

impl ReactorHandle {
    /// As [`Reactor::metrics`], from any thread, which it blocks until the reactor has answered.
    ///
    /// # Errors
    ///
    /// As [`dump`](Self::dump).
    pub fn metrics(&self, limit: Duration) -> io::Result<Metrics> {
        super::dump::ask(&self.inbox, limit, Hub::metrics)
    }
}

impl Hub {
    fn metrics(&self) -> Metrics {
        let all = self.all();
        let count =
            |states: &[State]| all.iter().filter(|ctl| states.contains(&ctl.state.get())).count();
        let stacks = self
            .pools
            .borrow()
            .iter()
            .map(|pool| pool.in_use())
            .fold((0, 0), |(sum, sum_max), (in_use, max)| (sum + in_use, sum_max + max));
        Metrics {
            turns: self.reactor.turns(),
            switches: self.beats.count(),
            wakes: self.inbox().wakes_count(),
            greenlets: all.len(),
            parked: count(&[State::Parked]),
            ready: count(&[State::New, State::Ready, State::Yielded]),
            delayed: count(&[State::Delayed]),
            stacks: stacks.0,
            stacks_max: stacks.1,
            timers: self.reactor.timers_count(),
            timer_lag_max: self.reactor.timer_lag_max(),
            io_waits: self.reactor.sources().waiting(),
        }
    }
}
