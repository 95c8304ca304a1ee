//! [`Failure`]: an error or a panic that travels down an errback chain.
//!
//! One pointer wide, so that a `Result<T, Failure>` is hardly larger than `T`. It is `Send` and
//! `Sync`: a failure may be the one thing of a Deferred that leaves its thread.
//!
//! It is not a `std::error::Error` itself, so that every error converts into it by `?` (a type
//! cannot have both); it converts into a `Box<dyn Error + Send + Sync>` instead.

use super::cause::{self, Grave};
use super::debug::Trail;
use super::nested;
use super::unwinds::Unwinds;
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// An error travelling down an errback chain: an error value, or a panic that was caught.
///
/// Any error converts into it, so `?` works in callbacks:
/// ```
/// # use greenloop::Deferred;
/// let number = Deferred::succeed("17").add_callback(|text| Ok(text.parse::<u32>()?));
/// # drop(number);
/// ```
/// `Display` writes one line: the error, its sources, and what was being handled when it came up
/// ([`cause`](Self::cause)). `Debug` adds the place and the backtrace, where there are any, and
/// what [debug mode](crate::set_debugging) noted. A backtrace is taken of an error when
/// `RUST_BACKTRACE` asks for it.
///
/// # Source
/// `twisted.python.failure.Failure`. Its `check` is [`is`](Self::is), its `trap` is
/// [`downcast`](Self::downcast) with `?`; Python's `__context__` is [`cause`](Self::cause).
pub struct Failure(Box<Inner>);

/// What a Failure points to.
struct Inner {
    /// What went wrong; none once that was taken out.
    body: Option<Body>,
    /// Where the body goes when the Failure is dropped, if an errback is at work on it (FAIL-2).
    grave: Option<Grave>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(body) = self.take_to_drop() {
            nested::drop_flat(body);
        }
    }
}

impl Inner {
    /// Takes the body out, to be dropped; or gives it to the errback that is at work on it.
    fn take_to_drop(&mut self) -> Option<Body> {
        let body = self.body.take()?;
        match self.grave.take() {
            Some(grave) if grave.is_watched() => {
                grave.bury(body);
                None
            }
            _ => Some(body),
        }
    }
}

/// What a Failure is, without its box.
pub(super) struct Body {
    /// The error or the panic.
    kind: Kind,
    /// Whether somebody was told of it, so that its drop reports nothing (FAIL-1).
    is_reported: AtomicBool,
    /// What an errback was handling when it came to this.
    pub(super) cause: Option<Failure>,
    /// What debug mode noted about the Deferred that it came from.
    trail: Option<Box<Trail>>,
}

impl Body {
    /// Gives the error, if it is an `E`.
    pub(super) fn error_mut<E: Error + 'static>(&mut self) -> Option<&mut E> {
        match &mut self.kind {
            Kind::Error { error, .. } => error.downcast_mut(),
            Kind::Panic { .. } => None,
        }
    }
}

/// Why nobody ever finds a Failure without its body: who takes that, takes the Failure.
const TAKEN: &str = "the body of a Failure is taken by consuming it";

/// What went wrong.
enum Kind {
    /// An error value.
    Error {
        /// The value.
        error: Box<dyn Error + Send + Sync>,
        /// Where it became a Failure; disabled unless the environment asks for backtraces.
        backtrace: Backtrace,
    },
    /// A panic that a callback, a canceller or a greenlet ended with.
    Panic {
        /// The payload's text.
        message: String,
        /// `file:line:column`, if the panic hook noted it.
        place: Option<String>,
        /// The backtrace as text, if the panic hook took it.
        backtrace: Option<String>,
        /// The payload, kept for whoever goes on panicking. A payload is `Send` but need not be
        /// `Sync`: the lock makes it so, and is never waited for.
        payload: Mutex<Box<dyn Any + Send>>,
    },
}

impl Failure {
    /// Makes a Failure of an error. Of a [`JoinError`](crate::JoinError), as
    /// [`into_failure`](crate::JoinError::into_failure) does: a panic stays a panic.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Failure {
        let mut error = Some(error);
        if let Some(failure) = Unwinds::take_failure(&mut error) {
            return failure;
        }
        let error = error.expect("it tells of no unwind, so it was left");
        Failure::of(Box::new(error), Backtrace::capture())
    }

    /// Makes a Failure of a text alone.
    pub fn msg(message: impl fmt::Display) -> Failure {
        Failure::of(message.to_string().into(), Backtrace::capture())
    }

    /// Makes a Failure of a panic's payload.
    ///
    /// Shape: `place` is `file:line:column`, `backtrace` the text of one; a panic hook knows both.
    pub fn from_panic(
        payload: Box<dyn Any + Send>,
        place: Option<String>,
        backtrace: Option<String>,
    ) -> Failure {
        let message = match payload.downcast_ref::<&'static str>() {
            Some(text) => (*text).to_owned(),
            None => match payload.downcast_ref::<String>() {
                Some(text) => text.clone(),
                None => "a payload that is not text".to_owned(),
            },
        };
        let payload = Mutex::new(payload);
        Failure::from_kind(Kind::Panic { message, place, backtrace, payload })
    }

    /// Makes the Failure of a cancelled wait. No backtrace: it is asked for, not an accident.
    pub(crate) fn cancelled() -> Failure {
        Failure::of(Box::new(Cancelled), Backtrace::disabled())
    }

    /// Makes the Failure of a Resolver that was dropped unfired.
    pub(crate) fn abandoned() -> Failure {
        Failure::of(Box::new(Abandoned), Backtrace::disabled())
    }

    fn of(error: Box<dyn Error + Send + Sync>, backtrace: Backtrace) -> Failure {
        Failure::from_kind(Kind::Error { error, backtrace })
    }

    fn from_kind(kind: Kind) -> Failure {
        Failure::from_body(Body {
            kind,
            is_reported: AtomicBool::new(false),
            cause: None,
            trail: None,
        })
    }

    pub(super) fn from_body(body: Body) -> Failure {
        Failure(Box::new(Inner { body: Some(body), grave: None }))
    }

    fn body(&self) -> &Body {
        self.0.body.as_ref().expect(TAKEN)
    }

    pub(super) fn body_mut(&mut self) -> &mut Body {
        self.0.body.as_mut().expect(TAKEN)
    }

    fn into_body(mut self) -> Body {
        self.0.body.take().expect(TAKEN)
    }

    /// Takes the body out of a failure that is about to be dropped, unless an errback has it then.
    pub(super) fn take_to_drop(&mut self) -> Option<Body> {
        self.0.take_to_drop()
    }

    /// Gives the place where this body goes when it is dropped, making it first if there is none.
    pub(super) fn grave(&mut self) -> Grave {
        self.0.grave.get_or_insert_default().clone()
    }

    /// Gives what an errback was handling when it came to this failure: when it returned another
    /// error than it was given, or panicked. It has a cause in its turn; the last 16 are kept.
    pub fn cause(&self) -> Option<&Failure> {
        self.body().cause.as_ref()
    }

    /// Gives the error, unless it is a panic.
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.body().kind {
            Kind::Error { error, .. } => Some(&**error),
            Kind::Panic { .. } => None,
        }
    }

    /// Gives the error, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match &self.body().kind {
            Kind::Error { error, .. } => error.downcast_ref(),
            Kind::Panic { .. } => None,
        }
    }

    /// Takes the error out, if it is an `E`.
    ///
    /// # Errors
    /// The Failure itself when it is something else: in an errback, `?` passes it on.
    /// ```
    /// # use greenloop::Deferred;
    /// # use std::num::ParseIntError;
    /// let port = Deferred::succeed("eighty").add_callback(|text| Ok(text.parse::<u16>()?));
    /// let port = port.add_errback(|failure| {
    ///     let error = failure.downcast::<ParseIntError>()?;
    ///     println!("{error}: 80 it is");
    ///     Ok(80)
    /// });
    /// # assert!(format!("{port:?}").contains("a value"));
    /// ```
    #[doc(alias = "trap")]
    pub fn downcast<E: Error + 'static>(self) -> Result<E, Failure> {
        if !self.is::<E>() {
            return Err(self);
        }
        let mut body = self.into_body();
        body.kind = match body.kind {
            Kind::Error { error, backtrace } => match error.downcast() {
                Ok(error) => return Ok(*error),
                Err(error) => Kind::Error { error, backtrace },
            },
            panic @ Kind::Panic { .. } => panic,
        };
        Err(Failure::from_body(body))
    }

    /// Tells whether the error is an `E`.
    #[doc(alias = "check")]
    pub fn is<E: Error + 'static>(&self) -> bool {
        self.downcast_ref::<E>().is_some()
    }

    /// Tells whether this is a cancellation: [`Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.is::<Cancelled>()
    }

    /// Gives the text of the panic, if it is one.
    pub fn panic_message(&self) -> Option<&str> {
        match &self.body().kind {
            Kind::Panic { message, .. } => Some(message),
            Kind::Error { .. } => None,
        }
    }

    /// Gives the place of the panic, `file:line:column`, if it is one and the place was noted.
    pub fn place(&self) -> Option<&str> {
        match &self.body().kind {
            Kind::Panic { place, .. } => place.as_deref(),
            Kind::Error { .. } => None,
        }
    }

    /// Gives the backtrace, if one was taken: of where the panic was raised, or of where the error
    /// became a Failure.
    pub fn backtrace(&self) -> Option<&dyn fmt::Display> {
        match &self.body().kind {
            Kind::Error { backtrace, .. } => {
                (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace)
            }
            Kind::Panic { backtrace, .. } => backtrace.as_ref().map(|text| text as _),
        }
    }

    /// Takes the payload of the panic out, for `std::panic::resume_unwind`.
    ///
    /// # Errors
    /// The Failure itself when it is not a panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, Failure> {
        if self.error().is_some() {
            return Err(self);
        }
        let mut body = self.into_body();
        body.kind = match body.kind {
            Kind::Panic { payload, .. } => {
                return Ok(payload.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()));
            }
            error @ Kind::Error { .. } => error,
        };
        Err(Failure::from_body(body))
    }

    /// Notes where the Deferred was made and fired, unless that of another is noted already.
    pub(super) fn note(&mut self, trail: Trail) {
        self.body_mut().trail.get_or_insert_with(|| Box::new(trail));
    }

    /// Notes where it came out of a wait.
    #[cold]
    pub(super) fn note_wait(&mut self, place: &'static Location<'static>) {
        self.body_mut().trail.get_or_insert_default().add_wait(place);
    }

    /// Reports it unless somebody was told already, or it is a cancellation (FAIL-1).
    pub(crate) fn report_unhandled(&self, what: &str) {
        if !self.is_cancelled() && !self.body().is_reported.swap(true, Ordering::Relaxed) {
            crate::report::unhandled(what, &Reported(self), self);
        }
    }
}

/// The text of a report: one line, with the place of a panic and what debug mode noted. Backtraces
/// are for `Debug`: the default panic hook has printed that of a panic already.
struct Reported<'a>(&'a Failure);

impl fmt::Display for Reported<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        if let Some(place) = self.0.place() {
            write!(f, ", at {place}")?;
        }
        match &self.0.body().trail {
            Some(trail) => write!(f, "; {trail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.body().kind.fmt(f)?;
        for cause in cause::causes_of(self) {
            write!(f, "; while handling: {}", cause.body().kind)?;
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Panic { message, .. } => write!(f, "panicked: {message}"),
            Kind::Error { error, .. } => {
                write!(f, "{error}")?;
                let mut source = error.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Failure({}", Reported(self))?;
        if let Some(backtrace) = self.backtrace() {
            write!(f, "\n{backtrace}")?;
        }
        if let Some(trail) = &self.body().trail {
            trail.write_backtraces(f)?;
        }
        f.write_str(")")
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error)
    }
}

/// The error itself, or the text of the panic. With a [`cause`](Failure::cause): a text of this
/// one, whose `source` is the cause, converted in the same way.
impl From<Failure> for Box<dyn Error + Send + Sync> {
    fn from(failure: Failure) -> Self {
        let Body { kind, cause, .. } = failure.into_body();
        match (cause, kind) {
            (Some(cause), kind) => cause::raised(kind.to_string(), cause.into()),
            (None, Kind::Error { error, .. }) => error,
            (None, kind) => kind.to_string().into(),
        }
    }
}

/// The error of a Deferred that was cancelled before it had its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cancelled before it had a result; ask again if it is still wanted")
    }
}

impl Error for Cancelled {}

/// The error of a Deferred whose Resolver was dropped unfired: its result can never come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Abandoned;

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("abandoned: its Resolver was dropped unfired; keep it until it can be fired")
    }
}

impl Error for Abandoned {}
