//! A barrier: so many wait for one another, and go on together.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Invariants
//!
//! - `BARRIER-1` Those who wait are fewer than the barrier lets through at once. `waiting` is how
//!   many stand in line: it grows when one joins, and shrinks when one leaves without a grant.
//!
//! # Source
//!
//! std `Barrier`; Python `threading.Barrier` for its limits, without what "broken" means there.

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

/// The rule: all at once, when the last one comes.
pub(super) struct Gate {
    /// How many go on together; at least 1.
    size: usize,
    waiting: usize,
}

impl Rule for Gate {
    type Ask = ();
    type Grant = BarrierWaitResult;

    fn enter(&mut self, line: &mut LineOf<Self>, (): ()) -> Result<BarrierWaitResult, ()> {
        if self.waiting + 1 < self.size {
            return Err(());
        }
        line.serve(|()| Some(BarrierWaitResult { is_leader: false }));
        self.waiting = 0;
        Ok(BarrierWaitResult { is_leader: true })
    }

    fn joined(&mut self) {
        self.waiting += 1;
    }

    /// The others have gone on: they cannot be called back, nor can another take its part.
    fn take_back(
        &mut self,
        _: &mut LineOf<Self>,
        _: BarrierWaitResult,
    ) -> Option<BarrierWaitResult> {
        None
    }

    fn serve(&mut self, _: &mut LineOf<Self>) {
        self.waiting -= 1;
    }

    fn waits_on((): &()) -> WaitOn {
        WaitOn::Barrier
    }
}

/// A place where so many wait for one another, again and again.
///
/// Shape: as [`std::sync::Barrier`]. Who waits is let on when as many are there as it was made for;
/// then it is empty again. One that is killed, timed out, cancelled or dropped while it waits is
/// there no more: its place is free for another, and nobody goes on for it.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::Barrier};
/// use std::rc::Rc;
/// run(|| {
///     let barrier = Rc::new(Barrier::new(3));
///     let runners: Vec<_> = (0..3)
///         .map(|_| {
///             let barrier = Rc::clone(&barrier);
///             spawn(move || barrier.wait().is_leader())
///         })
///         .collect();
///     let lead = runners.into_iter().map(|runner| runner.join().unwrap());
///     assert_eq!(lead.filter(|leads| *leads).count(), 1);
/// });
/// ```
pub struct Barrier {
    lane: Lane<Gate>,
}

impl Primitive for Barrier {
    type Rule = Gate;

    fn lane(&self) -> &Lane<Gate> {
        &self.lane
    }
}

/// What a wait at a [`Barrier`] comes to.
#[derive(Debug)]
pub struct BarrierWaitResult {
    is_leader: bool,
}

/// The future of [`Barrier::wait_async`]. Dropped, it is not waited for.
#[must_use = "futures do nothing unless awaited"]
pub struct WaitBarrier<'a>(Passing<&'a Barrier>);

impl Barrier {
    /// Makes a barrier that lets `size` on at once; 0 is as 1.
    pub const fn new(size: usize) -> Barrier {
        let size = if size == 0 { 1 } else { size };
        Barrier { lane: Lane::new(Gate { size, waiting: 0 }) }
    }

    /// Waits until as many are there as it was made for.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread. The last to come is the leader
    /// and does not wait.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel it counts no more, unless the others have gone on.
    /// Infallible: where a kill cannot unwind, the wait goes on.
    #[track_caller]
    pub fn wait(&self) -> BarrierWaitResult {
        match wait(self, (), Limit::Never, "Barrier::wait") {
            Ok(result) => result,
            Err(()) => unreachable!("a wait without a limit ends with a grant"),
        }
    }

    /// As [`wait`](Self::wait), but gives up after `limit`: then `None`, and it counts no more.
    #[track_caller]
    pub fn wait_timeout(&self, limit: Duration) -> Option<BarrierWaitResult> {
        wait(self, (), Limit::After(limit), "Barrier::wait_timeout").ok()
    }

    /// Lets all go on, if nobody but the caller was missing. Never waits.
    pub fn try_wait(&self) -> Option<BarrierWaitResult> {
        self.lane.attempt(()).ok()
    }

    /// Gives a Deferred that is one of those who wait, and fires when they go on: at once if it was
    /// the last, else in a call of this thread's reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait.
    ///
    /// # Cancellation
    ///
    /// Cancelled, it counts no more.
    pub fn wait_deferred(self: &Arc<Self>) -> Deferred<BarrierWaitResult> {
        defer(Arc::clone(self), (), |_, result| result)
    }

    /// Gives a future that is one of those who wait, from its first poll on.
    pub fn wait_async(&self) -> WaitBarrier<'_> {
        WaitBarrier(Passing::new(self, ()))
    }
}

impl BarrierWaitResult {
    /// Whether this was the last to come: one of those who went on together.
    pub fn is_leader(&self) -> bool {
        self.is_leader
    }
}

impl Future for WaitBarrier<'_> {
    type Output = BarrierWaitResult;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<BarrierWaitResult> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, waiting) = self.lane.with(|gate, _| (gate.size, gate.waiting));
        f.debug_struct("Barrier").field("size", &size).field("waiting", &waiting).finish()
    }
}

impl fmt::Debug for WaitBarrier<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitBarrier").field(&self.0).finish()
    }
}
