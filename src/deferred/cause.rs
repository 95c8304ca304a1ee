//! Causes: what an errback was handling when it came to another failure.
//!
//! Upstream the new error replaces the old one, which nobody hears of any more. Here the old one
//! becomes the [`cause`](Failure::cause) of the new one, as Python's `__context__` is. No errback
//! has to do anything for it: before a part of a chain runs on a failure, it gives that failure a
//! [`Grave`]. If the failure is dropped meanwhile, its body goes there, and if the part then comes
//! to another failure, that one gets the body. A failure that is passed on, kept, or made the
//! source of another error is not dropped, and is nobody's cause.
//!
//! # Invariants
//! - FAIL-2: a failure that is dropped while a part of a chain handles it is the cause of what that
//!   part fails with; it is lost only if the part comes to a value.
//! - FAIL-3: a failure has at most [`CAUSES_MAX`] causes, the newest, so that retrying for ever
//!   does not grow, and nothing that walks or drops them is deep.

use super::failure::{Body, Failure};
use super::nested;
use super::unwinds::{Caught, catch};
use std::any::Any;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// How many causes a failure keeps: more than a person reads.
pub(super) const CAUSES_MAX: usize = 16;

/// Where the body of a failure goes that is dropped while it is handled. It has locks and counts
/// that cross threads because a Failure does; they are never waited for.
#[derive(Clone, Default)]
pub(super) struct Grave(Arc<Plot>);

/// What a grave and its copies share.
#[derive(Default)]
struct Plot(Mutex<Option<Body>>);

impl Plot {
    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Plot {
    fn drop(&mut self) {
        if let Some(body) = self.take() {
            nested::drop_flat(body);
        }
    }
}

impl Grave {
    /// Tells whether there may be a [`Handled`] that looks into it, beside the failure's own.
    pub(super) fn is_watched(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Puts a body there. Without a [`Handled`] that looks into it, it is dropped with the grave.
    pub(super) fn bury(&self, body: Body) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
    }

    fn unearth(&self) -> Option<Failure> {
        self.0.take().map(Failure::from_body)
    }
}

/// A failure that a part of a chain is about to handle.
pub(super) struct Handled(Option<Grave>);

impl Handled {
    /// Remembers the failure that this input is, if it is one.
    #[inline]
    pub(super) fn of<T>(input: &mut Result<T, Failure>) -> Handled {
        Handled(input.as_mut().err().map(Failure::grave))
    }

    /// Tells whether it is a value that is handled.
    #[inline]
    pub(super) fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Makes the failure the cause of what handling it came to, if it was dropped for it (FAIL-2).
    ///
    /// What is dropped for good is dropped here, after the errback: the destructor of an error is
    /// user code, whose panic is reported, and whose kill is handed to `keep_kill`.
    #[inline]
    pub(super) fn name_in<U>(
        self,
        result: Result<U, Failure>,
        keep_kill: impl FnOnce(Box<dyn Any + Send>),
    ) -> Result<U, Failure> {
        match self.0 {
            Some(grave) => name(&grave, result, keep_kill),
            None => result,
        }
    }
}

/// Looks into a grave (see [`Handled::name_in`]).
#[cold]
fn name<U>(
    grave: &Grave,
    mut result: Result<U, Failure>,
    keep_kill: impl FnOnce(Box<dyn Any + Send>),
) -> Result<U, Failure> {
    let dropped = match (grave.unearth(), &mut result) {
        (Some(cause), Err(failure)) => add(failure, cause),
        (cause, _) => cause,
    };
    match catch(|| drop(dropped)) {
        Ok(()) => {}
        Err(Caught::Panic(failure)) => failure.report_unhandled("the destructor of an error"),
        Err(Caught::Kill(kill)) => keep_kill(kill),
    }
    result
}

/// Makes `cause` the last cause of `failure`, and gives what is one too many.
fn add(failure: &mut Failure, cause: Failure) -> Option<Failure> {
    last_of(failure).cause = Some(cause);
    last_of(failure).cause.take()
}

/// The last of a failure and its causes, or the last that is kept.
fn last_of(mut failure: &mut Failure) -> &mut Body {
    for _ in 0..CAUSES_MAX {
        if failure.cause().is_none() {
            break;
        }
        failure = failure.body_mut().cause.as_mut().expect("looked at above");
    }
    failure.body_mut()
}

/// The causes of a failure, the nearest first.
pub(super) fn causes_of(failure: &Failure) -> impl Iterator<Item = &Failure> {
    std::iter::successors(failure.cause(), |failure| failure.cause())
}

/// Makes an error of a text and of what was handled when it came up.
pub(super) fn raised(
    text: String,
    cause: Box<dyn Error + Send + Sync>,
) -> Box<dyn Error + Send + Sync> {
    Box::new(Raised { text, cause })
}

/// A failure with a cause, as an error.
#[derive(Debug)]
struct Raised {
    /// The failure and its sources, in one line.
    text: String,
    /// What was handled.
    cause: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Raised {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}
