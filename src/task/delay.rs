//! [`defer_later`]: a call in the future as a Deferred.
//!
//! Floor 7. Uses: the reactor's delayed calls, `deferred`.

use std::{cell::Cell, rc::Rc, time::Duration};

use crate::{Deferred, DelayedCall, Failure, reactor};

/// Calls `f` once, after `delay`; the Deferred fires with what it returns.
///
/// Shape: `f` runs on a callback greenlet, so it may block.
///
/// # Errors
///
/// The Deferred fails with the error of `f`, or with its panic.
///
/// # Panics
///
/// Outside [`run`](crate::run).
///
/// # Cancellation
///
/// Cancellation point: never. Cancelling the Deferred takes the call back: `f` is dropped at once.
/// What was not called when the run ends is dropped with it.
///
/// # Examples
///
/// ```
/// use greenloop::{task::defer_later, testing, wait_for_deferred};
/// use std::time::Duration;
/// testing::run(|| {
///     let answer = defer_later(Duration::from_secs(3600), || Ok(6 * 7));
///     assert_eq!(wait_for_deferred(answer).ok(), Some(42));
/// });
/// ```
///
/// # Source
///
/// Twisted `task.deferLater`.
#[track_caller]
pub fn defer_later<T: 'static>(
    delay: Duration,
    f: impl FnOnce() -> Result<T, Failure> + 'static,
) -> Deferred<T> {
    let slot: Rc<Cell<Option<DelayedCall>>> = Rc::default();
    let cancelled = Rc::clone(&slot);
    let (resolver, deferred) = Deferred::with_canceller(move |_| {
        if let Some(call) = cancelled.take() {
            let _ = call.cancel(); // It is active: had it been made, this would not be asked.
        }
    });
    slot.set(Some(reactor().call_later(delay, move || resolver.callback(()))));
    deferred.add_callback(|()| f())
}
