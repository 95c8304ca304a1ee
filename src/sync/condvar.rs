//! A condition variable: who holds a mutex lets it go, waits to be notified, and locks it again.
//!
//! Floor 5. Uses: `lane`, `mutex`. Used by: users.
//!
//! # Source
//!
//! std `Condvar`, with which it shares everything but spurious wakeups: there are none.

use std::{
    fmt,
    future::{Future, poll_fn},
    ops::Deref,
    pin::Pin,
    sync::{Arc, LockResult, PoisonError},
    time::{Duration, Instant},
};

use super::{
    lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait_having},
    mutex::{MutexGuard, OwnedMutexGuard},
};
use crate::{
    deferred::Deferred,
    hub::{Hub, park::WaitOn},
};

/// The rule: nobody is served but by a notification.
pub(super) struct Notices;

/// A notification.
pub(super) enum Notice {
    /// It is one waiter's; if that one dies, the next one's.
    One,
    /// Each that waited has its own: it is for none who came later.
    All,
}

/// A notification of a waiter that has not locked the mutex again. If it dies, it is given back.
struct Noticed<C: Deref<Target = Condvar>>(C, Option<Notice>);

impl Rule for Notices {
    type Ask = ();
    type Grant = Notice;

    fn enter(&mut self, _: &mut LineOf<Self>, (): ()) -> Result<Notice, ()> {
        Err(())
    }

    fn take_back(&mut self, line: &mut LineOf<Self>, notice: Notice) -> Option<Notice> {
        match notice {
            Notice::One if !line.is_empty() => line.grant(|()| Notice::One),
            Notice::One | Notice::All => {}
        }
        None
    }

    fn serve(&mut self, _: &mut LineOf<Self>) {}

    fn waits_on(_: &()) -> WaitOn {
        WaitOn::Condition
    }
}

/// A condition variable.
///
/// Shape: used with one mutex at a time. Who is notified waits longest; a notification of one whose
/// waiter was killed or timed out before it had the mutex again goes to the next.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::{Condvar, Mutex}};
/// use std::rc::Rc;
/// run(|| {
///     let pair = Rc::new((Mutex::new(false), Condvar::new()));
///     let theirs = Rc::clone(&pair);
///     let waiter = spawn(move || {
///         let ready = theirs.0.lock().unwrap();
///         *theirs.1.wait_while(ready, |ready| !*ready).unwrap()
///     });
///     greenloop::yield_now();
///     *pair.0.lock().unwrap() = true;
///     pair.1.notify_one();
///     assert!(waiter.join().unwrap());
/// });
/// ```
pub struct Condvar {
    lane: Lane<Notices>,
}

impl Primitive for Condvar {
    type Rule = Notices;

    fn lane(&self) -> &Lane<Notices> {
        &self.lane
    }
}

impl Condvar {
    /// Makes a condition variable that nobody waits for.
    pub const fn new() -> Condvar {
        Condvar { lane: Lane::new(Notices) }
    }

    /// Lets the mutex go, waits to be notified, and locks it again.
    ///
    /// Shape: from the moment at which the mutex is free, a notification is not missed. Parks the
    /// greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// The guard in an error, if the mutex is poisoned.
    ///
    /// # Panics
    ///
    /// On the hub's own stack.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the mutex is not held. Infallible: where a kill cannot
    /// unwind, the wait goes on.
    #[track_caller]
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_for(guard, Limit::Never).0
    }

    /// As [`wait`](Self::wait), again and again until `condition` is false; it is not waited for if
    /// it is false already.
    #[track_caller]
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<MutexGuard<'a, T>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait`](Self::wait), but waits for a notification no longer than `limit`. Returns
    /// whether one came.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_timeout<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        match self.wait_for(guard, Limit::After(limit)) {
            (Ok(guard), notified) => Ok((guard, notified)),
            (Err(poisoned), notified) => Err(PoisonError::new((poisoned.into_inner(), notified))),
        }
    }

    /// As [`wait_while`](Self::wait_while), but waits no longer than `limit` for all together.
    /// Returns whether the condition is false.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    #[track_caller]
    pub fn wait_timeout_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let now = || Hub::current().map(|hub| hub.reactor.fresh_now());
        let begin = (now(), Instant::now());
        loop {
            if !condition(&mut guard) {
                return Ok((guard, true));
            }
            let passed = match (begin.0, now()) {
                (Some(begin), Some(now)) => now.duration_since(begin),
                _ => begin.1.elapsed(),
            };
            if passed >= limit {
                return Ok((guard, false));
            }
            match self.wait_for(guard, Limit::After(limit - passed)) {
                (Ok(again), _) => guard = again,
                (Err(poisoned), _) => return Err(PoisonError::new((poisoned.into_inner(), false))),
            }
        }
    }

    #[track_caller]
    fn wait_for<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
        limit: Limit,
    ) -> (LockResult<MutexGuard<'a, T>>, bool) {
        let mutex = guard.mutex();
        let notice = wait_having(self, (), limit, "Condvar::wait", || drop(guard)).ok();
        let noticed = Noticed(self, notice);
        let locked = mutex.lock();
        (locked, noticed.use_up())
    }

    /// Gives a Deferred that waits as [`wait`](Self::wait), and fires with the lock.
    ///
    /// Shape: the mutex has been let go when it is returned. It is fired by a call of this thread's
    /// reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run). The value of a poisoned mutex comes in an error
    /// inside.
    ///
    /// # Cancellation
    ///
    /// Cancelling it leaves the line; a notification that it has goes to the next.
    pub fn wait_deferred<T: ?Sized + 'static>(
        self: &Arc<Self>,
        guard: OwnedMutexGuard<T>,
    ) -> Deferred<LockResult<OwnedMutexGuard<T>>> {
        let mutex = guard.shared_mutex();
        let noticed = defer(Arc::clone(self), (), |condvar, notice| Noticed(condvar, Some(notice)));
        drop(guard); // Not before it stands in line.
        noticed.and_then(move |noticed| {
            mutex.lock_deferred().add_callback(move |locked| {
                noticed.use_up();
                Ok(locked)
            })
        })
    }

    /// Waits as [`wait`](Self::wait), in `async` code.
    ///
    /// Shape: the mutex is let go by the first poll.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    ///
    /// Dropped, it leaves the line; a notification that it has goes to the next.
    pub async fn wait_async<'a, T: ?Sized>(
        &self,
        guard: MutexGuard<'a, T>,
    ) -> LockResult<MutexGuard<'a, T>> {
        let mutex = guard.mutex();
        let (mut wait, mut guard) = (Passing::new(self, ()), Some(guard));
        let notice = poll_fn(|cx| {
            let polled = Pin::new(&mut wait).poll(cx);
            guard = None; // Not before it stands in line.
            polled
        })
        .await;
        let noticed = Noticed(self, Some(notice));
        let locked = mutex.lock_async().await;
        noticed.use_up();
        locked
    }

    /// Lets the one go on that waits longest, if anybody waits.
    pub fn notify_one(&self) {
        self.lane.release(Notice::One);
    }

    /// Lets all go on that wait, in the order of their coming.
    pub fn notify_all(&self) {
        self.lane.with(|_, line| line.serve(|()| Some(Notice::All)));
    }
}

impl<C: Deref<Target = Condvar>> Noticed<C> {
    /// The mutex is locked again: the notification was used. Returns whether there was one.
    fn use_up(mut self) -> bool {
        self.1.take().is_some()
    }
}

impl<C: Deref<Target = Condvar>> Drop for Noticed<C> {
    fn drop(&mut self) {
        if let Some(notice) = self.1.take() {
            self.0.lane.release(notice);
        }
    }
}

impl Default for Condvar {
    fn default() -> Condvar {
        Condvar::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.lane.with(|_, line| line.len());
        f.debug_struct("Condvar").field("waiting", &waiting).finish()
    }
}
