//! Calling what may or may not return a Deferred: [`maybe_deferred`] and [`execute`].

use super::end::{Deferred, failure_of, run_now};
use super::failure::Failure;
use super::stage::Outcome;
use super::unwinds::catch;

/// What can become a Deferred: one itself, or the result of something that did not have to wait.
///
/// # Source
/// What Twisted's `maybeDeferred` tells apart at run time; named as std's `IntoFuture`.
pub trait IntoDeferred {
    /// What the Deferred has.
    type Output: 'static;

    /// Turns it into a Deferred.
    fn into_deferred(self) -> Deferred<Self::Output>;
}

impl<T: 'static> IntoDeferred for Deferred<T> {
    type Output = T;

    fn into_deferred(self) -> Deferred<T> {
        self
    }
}

impl<T: 'static, E: Into<Failure>> IntoDeferred for Result<T, E> {
    type Output = T;

    fn into_deferred(self) -> Deferred<T> {
        Deferred::ready(self.map_err(Into::into)) // made in here, which is no place to tell
    }
}

/// Calls a function that may return a Deferred, or have its result at once; either way there is a
/// Deferred then.
///
/// Shape: a Deferred is passed on as it is.
/// # Errors
/// The Deferred fails with the error that `f` returns, or with its panic.
/// # Panics
/// Never; but a kill goes on.
/// # Examples
/// ```
/// use greenloop::{Deferred, maybe_deferred};
/// let parsed = maybe_deferred(|| "17".parse::<u32>());
/// let passed_on = maybe_deferred(|| parsed);
/// # assert!(format!("{passed_on:?}").contains("a value"));
/// ```
/// # Source
/// Twisted's `maybeDeferred`.
pub fn maybe_deferred<R: IntoDeferred>(f: impl FnOnce() -> R) -> Deferred<R::Output> {
    catch(|| f().into_deferred()).unwrap_or_else(|caught| Deferred::ready(Err(failure_of(caught))))
}

/// Calls a function, and makes a Deferred of its value or its panic.
///
/// # Errors
/// The Deferred fails with the panic of `f`.
/// # Panics
/// Never; but a kill goes on.
/// # Examples
/// ```
/// let caught = greenloop::execute(|| [1, 2, 3].iter().position(|&n| n == 4).expect("a four"));
/// # let caught = caught.add_errback(|failure| {
/// #     assert_eq!(failure.panic_message(), Some("a four"));
/// #     Ok(0)
/// # });
/// # assert!(format!("{caught:?}").contains("a value"));
/// ```
/// # Source
/// Twisted's `execute`. What can fail by an error is for [`maybe_deferred`].
pub fn execute<T: 'static>(f: impl FnOnce() -> T) -> Deferred<T> {
    run_now(Ok(()), |_| Outcome::Now(Ok(f())))
}
