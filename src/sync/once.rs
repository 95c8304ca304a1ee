//! A value that comes once, and is waited for.
//!
//! Floor 5. Uses: `event`, `mutex`. Used by: users.
//!
//! # Source
//!
//! std `OnceLock`, gevent `AsyncResult`.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    event::{Event, WaitEvent},
    lane::{Primitive, defer},
    mutex::Mutex,
};
use crate::deferred::Deferred;

/// A value that is set once, and waited for by many, in any style, on any thread.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::OnceCell};
/// use std::rc::Rc;
/// run(|| {
///     let answer = Rc::new(OnceCell::new());
///     let asked = Rc::clone(&answer);
///     let waiter = spawn(move || *asked.wait() + 1);
///     greenloop::yield_now();
///     answer.set(41).unwrap();
///     assert_eq!(waiter.join().unwrap(), 42);
/// });
/// ```
pub struct OnceCell<T> {
    value: OnceLock<T>,
    is_there: Event,
    /// Held by whoever computes the value.
    computing: Mutex<()>,
}

impl<T> Primitive for OnceCell<T> {
    type Rule = <Event as Primitive>::Rule;

    fn lane(&self) -> &super::lane::Lane<Self::Rule> {
        self.is_there.lane()
    }
}

/// The future of [`OnceCell::wait_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitOnce<'a, T>(&'a OnceCell<T>, WaitEvent<'a>);

impl<T> OnceCell<T> {
    /// Makes a cell without a value.
    pub const fn new() -> OnceCell<T> {
        OnceCell { value: OnceLock::new(), is_there: Event::new(), computing: Mutex::new(()) }
    }

    /// Sets the value: whoever waits goes on.
    ///
    /// # Errors
    ///
    /// The value, if there is one already.
    pub fn set(&self, value: T) -> Result<(), T> {
        self.value.set(value)?;
        self.is_there.set();
        Ok(())
    }

    /// The value, if it is there. Never waits.
    pub fn get(&self) -> Option<&T> {
        self.value.get()
    }

    /// The value, if it is there; to be changed.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        self.value.get_mut()
    }

    /// Takes the value out, if it is there.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Waits for the value.
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
    #[track_caller]
    pub fn wait(&self) -> &T {
        self.is_there.wait();
        self.there()
    }

    /// As [`wait`](Self::wait), but gives up after `limit`: then `None`.
    #[track_caller]
    pub fn wait_timeout(&self, limit: Duration) -> Option<&T> {
        self.is_there.wait_timeout(limit).then(|| self.there())
    }

    /// The value, computed by `f` if it is not there.
    ///
    /// Shape: `f` runs in the caller, and may block; others that come meanwhile wait for it, one at
    /// a time. If it panics or is killed, the next one computes. A value that was set meanwhile
    /// counts, and that of `f` is dropped.
    ///
    /// # Panics
    ///
    /// With what `f` panics with; as [`wait`](Self::wait).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always, unless the value is there.
    #[track_caller]
    pub fn get_or_init(&self, f: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        // Poison says that another one failed to compute: nothing is half changed.
        let _computing = self.computing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get().is_none() {
            drop(self.set(f()));
        }
        self.there()
    }

    /// Gives a Deferred that fires with a copy of the value: at once if it is there, else in a call
    /// of this thread's reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait.
    pub fn wait_deferred(self: &Arc<Self>) -> Deferred<T>
    where
        T: Clone + 'static,
    {
        defer(Arc::clone(self), (), |cell, ()| cell.there().clone())
    }

    /// Gives a future of the value.
    pub fn wait_async(&self) -> WaitOnce<'_, T> {
        WaitOnce(self, self.is_there.wait_async())
    }

    /// The value, which was set before the event.
    fn there(&self) -> &T {
        self.value.get().expect("the value is set before the event is")
    }
}

impl<T> Default for OnceCell<T> {
    fn default() -> OnceCell<T> {
        OnceCell::new()
    }
}

impl<'a, T> Future for WaitOnce<'a, T> {
    type Output = &'a T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<&'a T> {
        let cell = self.0;
        Pin::new(&mut self.1).poll(cx).map(|()| cell.there())
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnceCell").field(&self.get()).finish()
    }
}

impl<T> fmt::Debug for WaitOnce<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WaitOnce").field(&self.1).finish()
    }
}
