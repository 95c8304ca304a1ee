//! A semaphore: so many permits, handed out first come first served.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Invariants
//!
//! - `SEM-1` Permits that are free, granted or held add up to `all`: what the semaphore was made
//!   with and what was added, less what was forgotten. So giving back cannot overflow.
//! - `SEM-2` While somebody waits, nobody who comes later is served, also not for fewer permits.
//!
//! # Source
//!
//! gevent `lock.py`, tokio `batch_semaphore.rs`: fair, many at once. Twisted `DeferredSemaphore`,
//! which recurses when it hands over.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use super::lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait};
use crate::{deferred::Deferred, hub::park::WaitOn};

/// The rule: so many are free.
pub(super) struct Permits {
    free: usize,
    /// With those that are granted or held (`SEM-1`).
    all: usize,
}

impl Rule for Permits {
    type Ask = usize;
    type Grant = usize;

    #[inline]
    fn enter(&mut self, line: &mut LineOf<Self>, ask: usize) -> Result<usize, usize> {
        if line.is_empty() && ask <= self.free {
            self.free -= ask;
            return Ok(ask);
        }
        Err(ask)
    }

    fn take_back(&mut self, line: &mut LineOf<Self>, grant: usize) -> Option<usize> {
        self.free += grant;
        self.serve(line);
        None
    }

    fn serve(&mut self, line: &mut LineOf<Self>) {
        line.serve(|&ask| {
            self.free = self.free.checked_sub(ask)?;
            Some(ask)
        });
    }

    fn waits_on(_: &usize) -> WaitOn {
        WaitOn::Permits
    }
}

/// A number of permits, for greenlets, futures, Deferreds and OS threads of any hub.
///
/// Shape: fair. Who comes first is served first, also if it wants many and those behind want few. A
/// permit that is given back is handed over: nobody who comes later can take it. One that was
/// handed to a waiter that is killed, timed out, cancelled or dropped goes to the next.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::Semaphore};
/// use std::rc::Rc;
/// run(|| {
///     let tables = Rc::new(Semaphore::new(2));
///     for _guest in 0..10 {
///         let tables = Rc::clone(&tables);
///         spawn(move || {
///             let _table = tables.acquire(); // two at a time
///             greenloop::yield_now();
///         });
///     }
/// });
/// ```
pub struct Semaphore {
    lane: Lane<Permits>,
}

impl Primitive for Semaphore {
    type Rule = Permits;

    fn lane(&self) -> &Lane<Permits> {
        &self.lane
    }
}

/// Permits of a semaphore, given back when dropped.
///
/// `S` is how it holds its semaphore: `&Semaphore`, or `Arc<Semaphore>`. It may be sent to other
/// threads and dropped there.
#[must_use = "the permits are given back when it is dropped"]
pub struct Permit<S: Deref<Target = Semaphore>> {
    semaphore: S,
    count: usize,
}

/// The future of [`Semaphore::acquire_async`]. Dropped, it leaves the line.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a>(Passing<&'a Semaphore>);

impl Semaphore {
    /// Makes a semaphore of so many permits; 0 is useful with [`add_permits`](Self::add_permits).
    pub const fn new(permits: usize) -> Semaphore {
        Semaphore { lane: Lane::new(Permits { free: permits, all: permits }) }
    }

    /// Waits for a permit.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing is held. Infallible: where a kill cannot
    /// unwind, the wait goes on.
    #[track_caller]
    pub fn acquire(&self) -> Permit<&Semaphore> {
        self.acquire_many(1)
    }

    /// Waits for `count` permits at once.
    ///
    /// Shape: for more than there will ever be it waits for ever, and so do those behind.
    ///
    /// # Panics, Cancellation
    ///
    /// As [`acquire`](Self::acquire).
    #[track_caller]
    pub fn acquire_many(&self, count: usize) -> Permit<&Semaphore> {
        match wait(self, count, Limit::Never, "Semaphore::acquire") {
            Ok(count) => Permit { semaphore: self, count },
            Err(_) => unreachable!("a wait without a limit ends with a grant"),
        }
    }

    /// As [`acquire`](Self::acquire), but gives up after `limit`: then `None`.
    #[track_caller]
    pub fn acquire_timeout(&self, limit: Duration) -> Option<Permit<&Semaphore>> {
        self.acquire_many_timeout(1, limit)
    }

    /// As [`acquire_many`](Self::acquire_many), but gives up after `limit`: then `None`.
    #[track_caller]
    pub fn acquire_many_timeout(
        &self,
        count: usize,
        limit: Duration,
    ) -> Option<Permit<&Semaphore>> {
        let granted = wait(self, count, Limit::After(limit), "Semaphore::acquire_timeout");
        granted.ok().map(|count| Permit { semaphore: self, count })
    }

    /// Takes a permit if one is free and nobody waits. Never waits.
    pub fn try_acquire(&self) -> Option<Permit<&Semaphore>> {
        self.try_acquire_many(1)
    }

    /// Takes `count` permits if they are free and nobody waits. Never waits.
    pub fn try_acquire_many(&self, count: usize) -> Option<Permit<&Semaphore>> {
        self.lane.attempt(count).ok().map(|count| Permit { semaphore: self, count })
    }

    /// Gives a Deferred that fires with `count` permits.
    ///
    /// Shape: it has fired when it is returned if they are free. Else it is fired by a call of this
    /// thread's reactor, so its callbacks may block, and any number of Deferreds take turns without
    /// nesting. Permits that it fires with while nobody has it are given back.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait.
    ///
    /// # Cancellation
    ///
    /// Cancelling it leaves the line.
    pub fn acquire_deferred(self: &Arc<Self>, count: usize) -> Deferred<Permit<Arc<Semaphore>>> {
        defer(Arc::clone(self), count, |semaphore, count| Permit { semaphore, count })
    }

    /// Gives a future of `count` permits. It joins the line when it is first polled.
    pub fn acquire_async(&self, count: usize) -> Acquire<'_> {
        Acquire(Passing::new(self, count))
    }

    /// Adds permits, from any thread.
    ///
    /// # Panics
    ///
    /// When there are more than `usize::MAX` of them, those that are held included.
    pub fn add_permits(&self, count: usize) {
        let added = self.lane.with(|permits, line| {
            permits.all = permits.all.checked_add(count)?;
            permits.take_back(line, count);
            Some(())
        });
        added.expect("greenloop::sync::Semaphore::add_permits: more permits than usize::MAX");
    }

    /// How many are free. By the time it is looked at, it may be another number.
    pub fn available_permits(&self) -> usize {
        self.lane.with(|permits, _| permits.free)
    }
}

impl<S: Deref<Target = Semaphore>> Permit<S> {
    /// How many permits it is.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Keeps the permits for ever: the semaphore has that many fewer.
    pub fn forget(mut self) {
        let count = std::mem::take(&mut self.count);
        self.semaphore.lane.with(|permits, _| permits.all -= count);
    }
}

impl<S: Deref<Target = Semaphore>> Drop for Permit<S> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.semaphore.lane.release(self.count);
        }
    }
}

impl<'a> Future for Acquire<'a> {
    type Output = Permit<&'a Semaphore>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let semaphore = self.0.primitive();
        Pin::new(&mut self.0).poll(cx).map(|count| Permit { semaphore, count })
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, waiting) = self.lane.with(|permits, line| (permits.free, line.len()));
        f.debug_struct("Semaphore").field("free", &free).field("waiting", &waiting).finish()
    }
}

impl<S: Deref<Target = Semaphore>> fmt::Debug for Permit<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("count", &self.count).finish_non_exhaustive()
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acquire").field(&self.0).finish()
    }
}
