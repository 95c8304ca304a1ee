//! [`LoopingCall`]: a function that is called at regular times.
//!
//! Floor 7. Uses: `hub::park`, the bridge.
//!
//! # States
//!
//! ```text
//! LoopingCall ──start, start_later──▶ waiting ◀──────────────▶ in a call, or in its Deferred
//!      ▲                                 │ stop, reset: woken        │ stop: once it is done
//!      └──────── the Deferred ◀──────────┴──────(stopped)────────────┤
//!                the Deferred fails ◀────────(failure, panic)────────┘
//! ```
//!
//! The loop is a greenlet that waits, calls, and waits for the result. So calls cannot overlap, and
//! what is killed or fails ends it in the way of any greenlet.
//!
//! # Source
//!
//! Twisted `task.LoopingCall`.

use std::{cell::Cell, fmt, rc::Rc, time::Duration};

use super::Step;
use crate::{
    Builder, Deferred, Failure,
    hub::{
        Hub,
        park::{Mode, Wait, WaitOn, Wake},
    },
    time::Deadline,
    wait_for_deferred, wait_for_greenlet,
};

/// A function that is to be called again and again, at regular times.
///
/// The times are on a grid: the start, and each whole number of intervals after it. A call that
/// takes long, or comes late, does not move the grid. Points of the grid that pass meanwhile are
/// skipped, and never made up for. Two calls never overlap: the next is planned when the last has
/// returned, and the Deferred that it returned, if it did, has fired.
///
/// Starting it consumes it, so it cannot run twice at a time; the Deferred gives it back.
///
/// # Examples
///
/// ```
/// use greenloop::{Failure, sleep, task::LoopingCall, testing, wait_for_deferred};
/// use std::{cell::Cell, rc::Rc, time::Duration};
/// const SECOND: Duration = Duration::from_secs(1);
/// # fn main() -> Result<(), Failure> {
/// testing::run(|| {
///     let ticks = Rc::new(Cell::new(0));
///     let count = Rc::clone(&ticks);
///     let (looping, done) = LoopingCall::new(move || count.set(count.get() + 1)).start(SECOND);
///     sleep(10 * SECOND + SECOND / 2);
///     looping.stop();
///     let again = wait_for_deferred(done)?;
///     assert_eq!(ticks.get(), 11); // at 0, 1, 2 … 10
///     drop(again.start(SECOND));
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// Twisted `task.LoopingCall`. Differs: the first call is made soon and not inside `start`; times
/// are whole nanoseconds; cancelling the Deferred ends the loop.
pub struct LoopingCall {
    call: Box<dyn FnMut(u64) -> Deferred<()>>,
}

/// Stops and moves a [`LoopingCall`] that was started. Dropping it changes nothing.
#[derive(Clone)]
pub struct Looping {
    state: Rc<State>,
}

impl LoopingCall {
    /// Makes one of a function that returns nothing, a `Result`, or a Deferred that the next call
    /// waits for. It runs on a greenlet, so it may also block.
    pub fn new<S: Step>(mut f: impl FnMut() -> S + 'static) -> LoopingCall {
        LoopingCall::with_count(move |_| f())
    }

    /// As [`new`](Self::new), of a function that is told how many points of the grid have passed
    /// since its last call: 1 if it was not late.
    ///
    /// # Source
    ///
    /// Twisted `LoopingCall.withCount`.
    pub fn with_count<S: Step>(mut f: impl FnMut(u64) -> S + 'static) -> LoopingCall {
        LoopingCall { call: Box::new(move |count| f(count).into_deferred()) }
    }

    /// Starts the calls: the first one soon, the next at each `interval` from now on.
    ///
    /// Shape: the Deferred fires with this `LoopingCall` when it was stopped. With an interval of
    /// zero, it is called once in each turn of the reactor, and lets everybody else run in between.
    ///
    /// # Errors
    ///
    /// The Deferred fails, and no more calls are made, with the first error that the function
    /// returns, with its panic, or with the failure of a Deferred that it returned.
    ///
    /// # Panics
    ///
    /// As [`spawn`](crate::spawn).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never. Cancelling the Deferred ends the loop at once, and cancels a
    /// Deferred that it waits for. So does the end of the run; that is reported to nobody.
    #[track_caller]
    pub fn start(self, interval: Duration) -> (Looping, Deferred<LoopingCall>) {
        self.start_with(interval, 0)
    }

    /// As [`start`](Self::start), but the first call is made after one `interval`.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    ///
    /// # Source
    ///
    /// Twisted `start(interval, now=False)`.
    #[track_caller]
    pub fn start_later(self, interval: Duration) -> (Looping, Deferred<LoopingCall>) {
        self.start_with(interval, 1)
    }

    #[track_caller]
    fn start_with(mut self, interval: Duration, counted: u64) -> (Looping, Deferred<LoopingCall>) {
        let now = Hub::current().map_or(Deadline::ZERO, |hub| hub.reactor.fresh_now());
        let state = Rc::new(State {
            interval,
            start: Cell::new(now),
            planned: Cell::new(now),
            counted: Cell::new(counted),
            is_running: Cell::new(true),
            waiter: Cell::new(None),
        });
        let ended = Ended(Rc::clone(&state));
        let greenlet = Builder::new().name("looping call").spawn(move || {
            while let Some(count) = ended.0.next_tick() {
                let state = Rc::clone(&ended.0);
                let called = (self.call)(count).add_both(move |result| {
                    state.plan();
                    result
                });
                wait_for_deferred(called)?;
            }
            Ok(self)
        });
        let greenlet = greenlet.unwrap_or_else(|error| panic!("LoopingCall::start: {error}"));
        let done = wait_for_greenlet(greenlet).add_callback(|ended: Result<_, Failure>| ended);
        (Looping { state }, done)
    }
}

impl Looping {
    /// Ends the loop: no more calls are made. Returns whether it was running.
    ///
    /// Shape: the Deferred of [`start`](LoopingCall::start) fires soon; if a call is under way, or
    /// a Deferred that it returned, only when that is done. It is not cancelled.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn stop(&self) -> bool {
        let was_running = self.state.is_running.replace(false);
        self.state.look_again();
        was_running
    }

    /// Begins a new grid now: the next call is made after one interval. Returns whether the loop
    /// was running; otherwise nothing changes.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn reset(&self) -> bool {
        if let Some(hub) = Hub::current().filter(|_| self.is_running()) {
            let now = hub.reactor.fresh_now();
            self.state.start.set(now);
            self.state.planned.set(now);
            self.state.counted.set(1);
            self.state.look_again();
        }
        self.is_running()
    }

    /// Whether more calls are to be made.
    pub fn is_running(&self) -> bool {
        self.state.is_running.get()
    }

    /// The time between two calls.
    pub fn interval(&self) -> Duration {
        self.state.interval
    }
}

/// What the loop and its handles share.
struct State {
    interval: Duration,
    /// Where the grid begins.
    start: Cell<Deadline>,
    /// When the next call was planned: it is for the first point after this, however late the loop
    /// comes to wait for it.
    planned: Cell<Deadline>,
    /// How many points of the grid were called for or skipped, the start included.
    counted: Cell<u64>,
    is_running: Cell<bool>,
    /// The loop, while it waits for a point of the grid.
    waiter: Cell<Option<Wake>>,
}

impl State {
    /// Parks until the next call is due. Returns how many points of the grid it is for, or none if
    /// the loop was stopped.
    fn next_tick(&self) -> Option<u64> {
        let hub = Hub::to_park().expect("it runs on a greenlet of its own");
        while self.is_running.get() {
            let next = match self.counted.get() {
                0 => self.start.get(),
                _ => self.next_after(self.planned.get()),
            };
            let wait = Wait::begin(hub, WaitOn::Sleep).expect("checked above");
            self.waiter.set(Some(wait.wake()));
            let _ = wait.park(next, Mode::Infallible);
            self.waiter.set(None);
            // A stop or a reset has ended the wait, perhaps when its time had already passed.
            let passed = self.passed(hub.reactor.now());
            let count = passed.saturating_sub(self.counted.get());
            let is_due = count > 0 || self.interval.is_zero();
            if is_due && self.is_running.get() {
                self.counted.set(passed);
                return Some(count.max(1));
            }
        }
        None
    }

    /// A call is done: the next one is for the first point after now.
    fn plan(&self) {
        if let Some(hub) = Hub::current() {
            self.planned.set(hub.reactor.fresh_now());
        }
    }

    /// How many points of the grid are not after `now`.
    fn passed(&self, now: Deadline) -> u64 {
        let elapsed = now.duration_since(self.start.get()).as_nanos();
        let whole = elapsed.checked_div(self.interval.as_nanos()).unwrap_or(0);
        // Not more than 64 bits: nor were there in `elapsed`.
        (whole + 1) as u64
    }

    /// The first point of the grid after `now`.
    fn next_after(&self, now: Deadline) -> Deadline {
        let points = self.passed(now);
        let interval = u64::try_from(self.interval.as_nanos()).unwrap_or(u64::MAX);
        let nanos = interval.saturating_mul(points);
        self.start.get().saturating_add(Duration::from_nanos(nanos)).max(now)
    }

    /// Has the loop look at what has changed.
    fn look_again(&self) {
        if let (Some(hub), Some(wake)) = (Hub::current(), self.waiter.take()) {
            hub.wake(wake);
        }
    }
}

/// Says that the loop has ended, however it did.
struct Ended(Rc<State>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.is_running.set(false);
    }
}

impl fmt::Debug for LoopingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopingCall").finish_non_exhaustive()
    }
}

impl fmt::Debug for Looping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Looping")
            .field("interval", &self.interval())
            .field("is_running", &self.is_running())
            .finish()
    }
}
