//! A wait group: who waits goes on when all the work that was given out is done.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Source
//!
//! Go `sync.WaitGroup`, crossbeam `wait_group.rs`, gevent `queue.py` (`JoinableQueue.join`,
//! `task_done`). Differs: what is done is a value, so nobody can say "done" too often, nor forget
//! it when it is killed.

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

/// The rule: all, when nothing is left to do.
pub(super) struct Left {
    works: usize,
}

impl Rule for Left {
    type Ask = ();
    type Grant = ();

    fn enter(&mut self, _: &mut LineOf<Self>, (): ()) -> Result<(), ()> {
        if self.works == 0 { Ok(()) } else { Err(()) }
    }

    fn take_back(&mut self, _: &mut LineOf<Self>, (): ()) -> Option<()> {
        None
    }

    fn serve(&mut self, line: &mut LineOf<Self>) {
        line.serve(|()| (self.works == 0).then_some(()));
    }

    fn waits_on((): &()) -> WaitOn {
        WaitOn::Work
    }
}

/// What the group and its works share.
struct Shared {
    lane: Lane<Left>,
}

impl Primitive for Shared {
    type Rule = Left;

    fn lane(&self) -> &Lane<Left> {
        &self.lane
    }
}

/// Waits for work to be done, by whatever greenlets, threads, Deferreds and futures.
///
/// Shape: [`add`](Self::add) gives a [`Work`], which whoever does the work drops when it is done,
/// or when it dies. Who waits goes on at the moment when none is left, also if another is added
/// before it runs. A clone is the same group.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::WaitGroup};
/// run(|| {
///     let group = WaitGroup::new();
///     for n in 0..3 {
///         let work = group.add();
///         spawn(move || {
///             greenloop::yield_now();
///             println!("{n} is done");
///             drop(work);
///         });
///     }
///     group.wait();
/// });
/// ```
///
/// With a channel it is a queue that can be joined: what is on its way counts, too.
/// ```
/// use greenloop::{run, spawn, sync::{WaitGroup, unbounded}};
/// run(|| {
///     let (group, (sender, receiver)) = (WaitGroup::new(), unbounded());
///     for _worker in 0..2 {
///         let receiver = receiver.clone();
///         spawn(move || {
///             for (job, _work) in &receiver {
///                 println!("working on {job}"); // done when `_work` is dropped
///             }
///         });
///     }
///     for job in ["a", "b", "c"] {
///         sender.send((job, group.add())).unwrap();
///     }
///     group.wait();
///     assert!(receiver.try_recv().is_err());
/// });
/// ```
#[derive(Clone)]
pub struct WaitGroup {
    shared: Arc<Shared>,
}

/// A piece of work that a [`WaitGroup`] waits for: done when it is dropped, on whatever thread.
#[must_use = "the work is done when it is dropped"]
pub struct Work {
    shared: Arc<Shared>,
}

/// The future of [`WaitGroup::wait_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitWork<'a>(Passing<&'a Shared>);

impl WaitGroup {
    /// Makes a group that has nothing to wait for.
    pub fn new() -> WaitGroup {
        WaitGroup { shared: Arc::new(Shared { lane: Lane::new(Left { works: 0 }) }) }
    }

    /// Adds a piece of work.
    pub fn add(&self) -> Work {
        self.shared.lane.with(|left, _| left.works += 1);
        Work { shared: Arc::clone(&self.shared) }
    }

    /// How many pieces of work are left.
    pub fn left(&self) -> usize {
        self.shared.lane.with(|left, _| left.works)
    }

    /// Waits until no work is left.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. Infallible: where a kill cannot unwind, the wait goes on.
    ///
    /// # Source
    ///
    /// gevent `JoinableQueue.join`.
    #[track_caller]
    pub fn wait(&self) {
        let _ = wait(&*self.shared, (), Limit::Never, "WaitGroup::wait");
    }

    /// As [`wait`](Self::wait), but gives up after `limit`. Returns whether all was done.
    #[track_caller]
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        wait(&*self.shared, (), Limit::After(limit), "WaitGroup::wait_timeout").is_ok()
    }

    /// Gives a Deferred that fires when no work is left: at once if there is none, else in a call
    /// of this thread's reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait.
    pub fn wait_deferred(&self) -> Deferred<()> {
        defer(Arc::clone(&self.shared), (), |_, ()| ())
    }

    /// Gives a future that is ready when no work is left.
    pub fn wait_async(&self) -> WaitWork<'_> {
        WaitWork(Passing::new(&self.shared, ()))
    }
}

impl Default for WaitGroup {
    fn default() -> WaitGroup {
        WaitGroup::new()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.shared.lane.with(|left, line| {
            left.works -= 1;
            left.serve(line);
        });
    }
}

impl Future for WaitWork<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (works, waiting) = self.shared.lane.with(|left, line| (left.works, line.len()));
        f.debug_struct("WaitGroup").field("left", &works).field("waiting", &waiting).finish()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").finish_non_exhaustive()
    }
}

impl fmt::Debug for WaitWork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitWork").field(&self.0).finish()
    }
}
