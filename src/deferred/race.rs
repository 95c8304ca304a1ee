//! Waiting for one of several Deferreds: [`race`] and [`first`].

use super::end::Deferred;
use super::failure::Failure;
use super::list::FirstError;
use super::nested::Inside;
use super::several::{Late, Rule, Verdict, several};
use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;

/// Waits for the first of several Deferreds that has a value, and cancels the others.
///
/// Shape: gives that one's place among `deferreds`, from 0, and its value. What becomes of the
/// others is dropped, but a panic (of a canceller, say) is reported.
/// # Errors
/// [`FailureGroup`], with the failure of each, when all of them fail; at once when there are none.
/// [`Cancelled`](super::Cancelled) when all of them were cancelled.
/// # Cancellation
/// Cancelling it cancels all of them; a value that one of them then comes to wins all the same.
/// # Examples
/// ```
/// use greenloop::{Deferred, race};
/// let (slow_resolver, slow) = Deferred::new();
/// let (fast_resolver, fast) = Deferred::new();
/// let won = race([slow, fast]);
/// fast_resolver.callback("mirror");
/// assert!(slow_resolver.is_cancelled());
/// # let won = won.add_callback(|won| { assert_eq!(won, (1, "mirror")); Ok(()) });
/// # assert!(format!("{won:?}").contains("a value"));
/// ```
/// # Source
/// Twisted's `race`, where an empty one waits for ever, and a cancelled one fails with the group.
#[track_caller]
pub fn race<T: 'static>(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Deferred<(usize, T)> {
    let deferreds: Vec<_> = deferreds.into_iter().collect();
    let failures = deferreds.iter().map(|_| None).collect();
    several(deferreds, Late::ReportPanics, FirstValue(failures))
}

/// Waits for the first of several Deferreds that fires, and cancels the others.
///
/// Shape: gives that one's place among `deferreds`, from 0, and its value. What becomes of the
/// others is dropped, but a panic is reported.
/// # Errors
/// [`FirstError`] when the first that fires fails, or [`Cancelled`](super::Cancelled) if it was
/// cancelled. An empty [`FailureGroup`], at once, when there are none.
/// # Cancellation
/// Cancelling it cancels all of them; the first of them that ends is then the result.
/// # Examples
/// ```
/// use greenloop::{Deferred, FirstError, first};
/// let (resolver, slow) = Deferred::<u32>::new();
/// let failed = first([slow, Deferred::fail(std::io::Error::other("no disk"))]);
/// assert!(resolver.is_cancelled());
/// let failed = failed.add_errback(|failure| Ok((failure.downcast::<FirstError>()?.index, 0)));
/// # let failed = failed.add_callback(|failed| { assert_eq!(failed, (1, 0)); Ok(()) });
/// # assert!(format!("{failed:?}").contains("a value"));
/// ```
/// # Source
/// Ours: Twisted's `DeferredList` with both `fireOn…` flags, which lets the others go on.
#[track_caller]
pub fn first<T: 'static>(deferreds: impl IntoIterator<Item = Deferred<T>>) -> Deferred<(usize, T)> {
    several(deferreds.into_iter().collect(), Late::ReportPanics, FirstResult)
}

/// The rule of [`race`]: the failures that are there.
struct FirstValue(Vec<Option<Failure>>);

impl<T: 'static> Rule<T> for FirstValue {
    type Output = (usize, T);
    const CANCELS_REST: bool = true;

    fn take(mut self, index: usize, result: Result<T, Failure>) -> Verdict<Self, (usize, T)> {
        match result {
            Ok(value) => {
                self.0.into_iter().flatten().for_each(|failure| Late::ReportPanics.take(failure));
                ControlFlow::Break(Ok((index, value)))
            }
            Err(failure) => {
                self.0[index] = Some(failure);
                ControlFlow::Continue(self)
            }
        }
    }

    fn end(self) -> Result<(usize, T), Failure> {
        Err(FailureGroup::of(self.0.into_iter().flatten().collect()))
    }
}

/// The rule of [`first`].
struct FirstResult;

impl<T: 'static> Rule<T> for FirstResult {
    type Output = (usize, T);
    const CANCELS_REST: bool = true;

    fn take(self, index: usize, result: Result<T, Failure>) -> Verdict<Self, (usize, T)> {
        ControlFlow::Break(match result {
            Ok(value) => Ok((index, value)),
            Err(failure) => Err(FirstError::of(index, failure)),
        })
    }

    fn end(self) -> Result<(usize, T), Failure> {
        Err(FailureGroup::of(Vec::new()))
    }
}

/// The error of a [`race`] that nobody won.
#[derive(Debug)]
#[non_exhaustive]
pub struct FailureGroup {
    /// What each failed with, in their order; empty when there was nobody.
    pub failures: Vec<Failure>,
}

/// How many failures of a group its text names: more than a person reads in one line.
const NAMED_MAX: usize = 3;

impl FailureGroup {
    /// Cancellations alone stay one cancellation, so that nobody reports it.
    fn of(mut failures: Vec<Failure>) -> Failure {
        match failures.iter().all(Failure::is_cancelled) {
            true => failures.pop().unwrap_or_else(|| Failure::new(FailureGroup { failures })),
            false => Failure::new(FailureGroup { failures }),
        }
    }
}

impl fmt::Display for FailureGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.failures.len();
        if count == 0 {
            return f.write_str("there was no Deferred to wait for");
        }
        write!(f, "all {count} failed")?;
        for (index, failure) in self.failures.iter().enumerate().take(NAMED_MAX) {
            let separator = if index == 0 { ": " } else { "; " };
            write!(f, "{separator}{}", Inside(failure))?;
        }
        match count.saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl Error for FailureGroup {}
