//! An event: set or not; who waits goes on when it is set.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Source
//!
//! gevent `event.py`, Python `threading.Event`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait};
use crate::{deferred::Deferred, hub::park::WaitOn};

/// The rule: all or nobody.
pub(super) struct Flag {
    is_set: bool,
}

impl Rule for Flag {
    type Ask = ();
    type Grant = ();

    #[inline(always)]
    fn enter(&mut self, _: &mut LineOf<Self>, (): ()) -> Result<(), ()> {
        if self.is_set { Ok(()) } else { Err(()) }
    }

    fn take_back(&mut self, _: &mut LineOf<Self>, (): ()) -> Option<()> {
        None
    }

    fn serve(&mut self, line: &mut LineOf<Self>) {
        line.serve(|()| self.is_set.then_some(()));
    }

    fn waits_on(_: &()) -> WaitOn {
        WaitOn::Event
    }
}

/// Something that happens: set by one, waited for by many, in any style, on any thread.
///
/// Shape: setting it lets all go on that wait at that moment, in the order of their coming, also if
/// it is cleared before they run.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::Event};
/// use std::sync::Arc;
/// let event = Arc::new(Event::new());
/// let setter = Arc::clone(&event);
/// let thread = std::thread::spawn(move || setter.set());
/// run(|| event.wait());
/// thread.join().unwrap();
/// ```
pub struct Event {
    lane: Lane<Flag>,
}

impl Primitive for Event {
    type Rule = Flag;

    fn lane(&self) -> &Lane<Flag> {
        &self.lane
    }
}

/// The future of [`Event::wait_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitEvent<'a>(Passing<&'a Event>);

impl Event {
    /// Makes an event that is not set.
    pub const fn new() -> Event {
        Event { lane: Lane::new(Flag { is_set: false }) }
    }

    /// Sets it: whoever waits goes on, and whoever comes need not wait.
    pub fn set(&self) {
        self.lane.with(|flag, line| {
            flag.is_set = true;
            flag.serve(line);
        });
    }

    /// Clears it: whoever comes waits. Those who were let go on are not held back.
    pub fn clear(&self) {
        self.lane.with(|flag, _| flag.is_set = false);
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        self.lane.with(|flag, _| flag.is_set)
    }

    /// Waits until it is set.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Panics
    ///
    /// On the hub's own stack, if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. Infallible: where a kill cannot unwind, the wait goes on.
    #[inline(always)]
    #[track_caller]
    pub fn wait(&self) {
        let _ = wait(self, (), Limit::Never, "Event::wait");
    }

    /// As [`wait`](Self::wait), but gives up after `limit`. Returns whether it was set, then or
    /// meanwhile.
    #[track_caller]
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        wait(self, (), Limit::After(limit), "Event::wait_timeout").is_ok()
    }

    /// Gives a Deferred that fires when it is set: at once if it is, else in a call of this
    /// thread's reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait.
    pub fn wait_deferred(self: &Arc<Self>) -> Deferred<()> {
        defer(Arc::clone(self), (), |_, ()| ())
    }

    /// Gives a future that is ready when it is set.
    pub fn wait_async(&self) -> WaitEvent<'_> {
        WaitEvent(Passing::new(self, ()))
    }
}

impl Default for Event {
    fn default() -> Event {
        Event::new()
    }
}

impl Future for WaitEvent<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (is_set, waiting) = self.lane.with(|flag, line| (flag.is_set, line.len()));
        f.debug_struct("Event").field("is_set", &is_set).field("waiting", &waiting).finish()
    }
}

impl fmt::Debug for WaitEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitEvent").field(&self.0).finish()
    }
}
