//! Waiting for several Deferreds, all of them: [`DeferredList`] and [`gather_results`].

use super::end::Deferred;
use super::failure::Failure;
use super::nested::Inside;
use super::several::{Late, Rule, Verdict, several};
use std::error::Error;
use std::fmt;
use std::ops::ControlFlow;

/// Several Deferreds that become one, which fires when all of them have fired.
///
/// Shape: [`into_deferred`](Self::into_deferred) makes the one, whose value has the result of each
/// in the order of the list. It fails only if it was asked to
/// ([`fire_on_one_errback`](Self::fire_on_one_errback)). An empty list fires at once.
///
/// # Cancellation
/// Cancelling the one cancels each member that has not fired, in the order of the list. It then
/// fires when they have ended, with what they came to.
///
/// # Examples
/// ```
/// use greenloop::{Deferred, DeferredList, ListResult};
/// let (resolver, slow) = Deferred::new();
/// let both = DeferredList::new([slow, Deferred::fail(std::io::Error::other("no disk"))]);
/// let checked = both.into_deferred().add_callback(|result| {
///     let ListResult::All(results) = result else { unreachable!("nothing else was asked for") };
///     assert_eq!(results[0].as_ref().ok(), Some(&7));
///     assert_eq!(results[1].as_ref().unwrap_err().to_string(), "no disk");
///     Ok(())
/// });
/// resolver.callback(7);
/// # assert!(format!("{checked:?}").contains("a value"));
/// ```
/// # Source
/// Twisted's `DeferredList`. Differs: it takes its members, so that their failures are in its
/// result and are not reported besides; an empty one fires in every case; it is a builder, and the
/// flags are methods.
#[must_use = "the list waits for nothing before `into_deferred`"]
pub struct DeferredList<T: 'static> {
    /// The members.
    deferreds: Vec<Deferred<T>>,
    /// What it is asked for.
    flags: Flags,
}

/// What a list is asked for.
#[derive(Clone, Copy, Debug)]
struct Flags {
    /// The first value is the result.
    fires_on_one_callback: bool,
    /// The first failure is the result.
    fires_on_one_errback: bool,
    /// What becomes of failures that are in no result.
    late: Late,
}

/// What a [`DeferredList`] comes to.
#[derive(Debug)]
pub enum ListResult<T> {
    /// The results of all members, in the order of the list.
    All(Vec<Result<T, Failure>>),
    /// The first value, if the list was to fire on one callback.
    One {
        /// The member's place in the list, from 0.
        index: usize,
        /// Its value.
        value: T,
    },
}

impl<T: 'static> DeferredList<T> {
    /// Makes a list of these members.
    pub fn new(deferreds: impl IntoIterator<Item = Deferred<T>>) -> DeferredList<T> {
        let flags =
            Flags { fires_on_one_callback: false, fires_on_one_errback: false, late: Late::Report };
        DeferredList { deferreds: deferreds.into_iter().collect(), flags }
    }

    /// Has it fire as soon as one member has a value, with [`ListResult::One`]. If all of them
    /// fail, it fires with [`ListResult::All`]. The other members go on.
    pub fn fire_on_one_callback(mut self) -> DeferredList<T> {
        self.flags.fires_on_one_callback = true;
        self
    }

    /// Has it fail as soon as one member fails, with [`FirstError`], or with
    /// [`Cancelled`](super::Cancelled) if that member was cancelled. The other members go on.
    pub fn fire_on_one_errback(mut self) -> DeferredList<T> {
        self.flags.fires_on_one_errback = true;
        self
    }

    /// Drops the failures that are in no result: of members that fail after the list has fired, or
    /// before the one that it fired with. They are reported otherwise.
    pub fn consume_errors(mut self) -> DeferredList<T> {
        self.flags.late = Late::Drop;
        self
    }

    /// Makes the Deferred that fires when the list does.
    #[track_caller]
    pub fn into_deferred(self) -> Deferred<ListResult<T>> {
        let results = none_for_each(&self.deferreds);
        several(self.deferreds, self.flags.late, All { flags: self.flags, results })
    }
}

impl<T: 'static> fmt::Debug for DeferredList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredList")
            .field("deferreds", &self.deferreds)
            .field("flags", &self.flags)
            .finish()
    }
}

/// Waits for the values of several Deferreds, or for the first failure of one.
///
/// Shape: the values are in the order of `deferreds`; none give an empty list at once.
/// # Errors
/// [`FirstError`], or [`Cancelled`](super::Cancelled) if the first that failed was cancelled. The
/// others go on, and their failures are reported; a [`DeferredList`] can also drop them.
/// # Cancellation
/// Cancelling it cancels each member that has not fired, in the order of the list.
/// # Examples
/// ```
/// use greenloop::{Deferred, gather_results};
/// let sum = gather_results((1..=3).map(Deferred::succeed))
///     .add_callback(|numbers| Ok(numbers.iter().sum::<i32>()));
/// # let sum = sum.add_callback(|sum| { assert_eq!(sum, 6); Ok(()) });
/// # assert!(format!("{sum:?}").contains("a value"));
/// ```
/// # Source
/// Twisted's `gatherResults`.
#[track_caller]
pub fn gather_results<T: 'static>(
    deferreds: impl IntoIterator<Item = Deferred<T>>,
) -> Deferred<Vec<T>> {
    let deferreds: Vec<_> = deferreds.into_iter().collect();
    let values = none_for_each(&deferreds);
    several(deferreds, Late::Report, Values(values))
}

fn none_for_each<T: 'static, R>(deferreds: &[Deferred<T>]) -> Vec<Option<R>> {
    deferreds.iter().map(|_| None).collect()
}

/// The rule of a [`DeferredList`].
struct All<T> {
    /// What it is asked for.
    flags: Flags,
    /// The results that are there.
    results: Vec<Option<Result<T, Failure>>>,
}

impl<T: 'static> Rule<T> for All<T> {
    type Output = ListResult<T>;
    const CANCELS_REST: bool = false;

    fn take(mut self, index: usize, result: Result<T, Failure>) -> Verdict<Self, ListResult<T>> {
        match result {
            Ok(value) if self.flags.fires_on_one_callback => {
                let failures = self.results.into_iter().flatten().filter_map(Result::err);
                failures.for_each(|failure| self.flags.late.take(failure));
                ControlFlow::Break(Ok(ListResult::One { index, value }))
            }
            Err(failure) if self.flags.fires_on_one_errback => {
                ControlFlow::Break(Err(FirstError::of(index, failure)))
            }
            result => {
                self.results[index] = Some(result);
                ControlFlow::Continue(self)
            }
        }
    }

    fn end(self) -> Result<ListResult<T>, Failure> {
        Ok(ListResult::All(self.results.into_iter().flatten().collect()))
    }
}

/// The rule of [`gather_results`]: the values that are there.
struct Values<T>(Vec<Option<T>>);

impl<T: 'static> Rule<T> for Values<T> {
    type Output = Vec<T>;
    const CANCELS_REST: bool = false;

    fn take(mut self, index: usize, result: Result<T, Failure>) -> Verdict<Self, Vec<T>> {
        match result {
            Ok(value) => {
                self.0[index] = Some(value);
                ControlFlow::Continue(self)
            }
            Err(failure) => ControlFlow::Break(Err(FirstError::of(index, failure))),
        }
    }

    fn end(self) -> Result<Vec<T>, Failure> {
        Ok(self.0.into_iter().flatten().collect())
    }
}

/// The error of several Deferreds of which one failed first.
#[derive(Debug)]
#[non_exhaustive]
pub struct FirstError {
    /// The place of that one among them, from 0.
    pub index: usize,
    /// What it failed with.
    pub failure: Failure,
}

impl FirstError {
    /// A cancellation stays what it is, so that nobody reports it.
    pub(super) fn of(index: usize, failure: Failure) -> Failure {
        if failure.is_cancelled() { failure } else { Failure::new(FirstError { index, failure }) }
    }
}

impl fmt::Display for FirstError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Deferred at {} failed first", self.index)?;
        match self.source() {
            Some(_) => Ok(()),
            None => write!(f, ": {}", Inside(&self.failure)),
        }
    }
}

impl Error for FirstError {
    /// The error; none where it is a panic or has a cause, which the text of this one then tells.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let error = self.failure.error().filter(|_| self.failure.cause().is_none());
        error.map(|error| error as &(dyn Error + 'static))
    }
}
