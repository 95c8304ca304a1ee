//! Time limits of Deferreds, which know no clock themselves.
//!
//! Floor 7. Uses: `hub`'s delayed calls, `deferred`. Used by: users.
//!
//! # States
//!
//! ```text
//! Running ──the time has elapsed: cancels──▶ Elapsed ──the result arrives──▶ Over, converted
//!    └──────────the result arrives──▶ Over: the timer is removed
//! ```
//!
//! The timer's call and the result may be due in the same turn. The state, not the timer, says
//! which came first: a call that finds `Over` must not cancel what the chain waits for later
//! (`BRIDGE-9`).

use std::{cell::Cell, rc::Rc, time::Duration};

use crate::{Deferred, Elapsed, Failure, hub::Hub, reactor};

/// How far a time limit has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limit {
    /// Neither the time nor the result.
    Running,
    /// The time came first.
    Elapsed,
    /// The result is there.
    Over,
}

impl<T: 'static> Deferred<T> {
    /// Limits the time that this Deferred takes: after `limit` it is cancelled, and fails with
    /// [`Elapsed`].
    ///
    /// Shape: covers what was added before, not what is added after. The limit cancels as
    /// [`cancel`](Self::cancel) does: an inner Deferred, too, that a callback waits for. A
    /// canceller that fires a value or an error of its own, and an errback before the limit that
    /// makes something else of the cancellation, have their way: only
    /// [`Cancelled`](crate::Cancelled) becomes [`Elapsed`], and only if the limit caused it. The
    /// timer is removed when the result comes first, or a cancellation. Canceller and callbacks run
    /// on a callback greenlet then, and may block.
    ///
    /// Units: `limit` counts from this call, on the reactor's clock.
    ///
    /// # Errors
    ///
    /// The Deferred fails with [`Elapsed`] after `limit`. Outside [`run`](crate::run), where
    /// nothing keeps time, it is cancelled at once, and fails with an error that says so, unless it
    /// has fired. A limit whose run has ended does not elapse any more.
    ///
    /// Like any cancellation, that of the limit reaches what is waited for at that time. If that is
    /// nothing, because a callback is parked or the Deferred is [paused](Self::pause), it cancels
    /// nothing, and what a callback returns later has no limit: give that one its own.
    ///
    /// # Panics
    ///
    /// Never.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenloop::{Deferred, Elapsed, wait_for_deferred};
    /// use std::time::Duration;
    /// greenloop::run(|| {
    ///     let (_resolver, deferred) = Deferred::<u32>::new();
    ///     let late = wait_for_deferred(deferred.add_timeout(Duration::from_millis(1)));
    ///     assert!(late.is_err_and(|failure| failure.is::<Elapsed>()));
    /// });
    /// ```
    ///
    /// # Source
    ///
    /// Twisted `Deferred.addTimeout`, which is handed a clock.
    #[track_caller]
    pub fn add_timeout(self, limit: Duration) -> Deferred<T> {
        self.add_timeout_with(limit, |result| match result {
            Err(failure) if failure.is_cancelled() => Err(Failure::new(Elapsed::new())),
            result => result,
        })
    }

    /// As [`add_timeout`](Self::add_timeout), with a function that says what a result comes to that
    /// arrives because the time has elapsed, or after it.
    ///
    /// Shape: `on_elapsed` gets that result, of either kind: [`Cancelled`](crate::Cancelled) unless
    /// a canceller or an errback made something else of it. It is not called when the result or
    /// another cancellation comes first.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenloop::{Deferred, wait_for_deferred};
    /// use std::time::Duration;
    /// greenloop::run(|| {
    ///     let (_resolver, deferred) = Deferred::<&str>::new();
    ///     let limit = Duration::from_millis(1);
    ///     let page = deferred.add_timeout_with(limit, |late| late.or(Ok("an older copy")));
    ///     assert_eq!(wait_for_deferred(page).ok(), Some("an older copy"));
    /// });
    /// ```
    ///
    /// # Source
    ///
    /// Twisted `addTimeout(…, onTimeoutCancel)`.
    #[track_caller]
    pub fn add_timeout_with(
        self,
        limit: Duration,
        on_elapsed: impl FnOnce(Result<T, Failure>) -> Result<T, Failure> + 'static,
    ) -> Deferred<T> {
        if self.is_fired() {
            return self;
        }
        if Hub::current().is_none() {
            self.cancel();
            return Deferred::fail(Failure::msg(OUTSIDE_RUN));
        }
        let state = Rc::new(Cell::new(Limit::Running));
        let (handle, of_timer) = (self.canceller(), Rc::clone(&state));
        let timer = reactor().call_later(limit, move || {
            if of_timer.get() == Limit::Running {
                of_timer.set(Limit::Elapsed);
                handle.cancel();
            }
        });
        self.add_both(move |result| match state.replace(Limit::Over) {
            Limit::Elapsed => on_elapsed(result),
            Limit::Running | Limit::Over => {
                // An error says that it was called in this very turn, or that its run has ended.
                let _ = timer.cancel();
                result
            }
        })
    }
}

/// What a Deferred with a time limit fails with where there is no clock.
const OUTSIDE_RUN: &str = "a time limit outside a reactor: no greenloop reactor runs on this \
                           thread to keep time; set it inside greenloop::run";
