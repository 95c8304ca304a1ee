//! [`Failure`]: an error or a panic that travels down an errback chain.
//!
//! One pointer wide, so that a `Result<T, Failure>` is hardly larger than `T`. It is `Send` and
//! `Sync`: a failure may be the one thing of a Deferred that leaves its thread.
//!
//! It is not a `std::error::Error` itself, so that every error converts into it by `?` (a type
//! cannot have both); it converts into a `Box<dyn Error + Send + Sync>` instead.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt;
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
/// `Display` writes one line, the error and its causes; `Debug` adds the place and the backtrace,
/// where there are any. A backtrace is taken of an error when `RUST_BACKTRACE` asks for it.
pub struct Failure(Box<Inner>);

/// What a Failure points to.
struct Inner {
    /// The error or the panic.
    kind: Kind,
    /// Whether somebody was told of it, so that its drop reports nothing (FAIL-1).
    reported: AtomicBool,
}

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
    /// Makes a Failure of an error.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Failure {
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
        Failure(Box::new(Inner { kind, reported: AtomicBool::new(false) }))
    }

    /// Gives the error, unless it is a panic.
    pub fn error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.0.kind {
            Kind::Error { error, .. } => Some(&**error),
            Kind::Panic { .. } => None,
        }
    }

    /// Gives the error, if it is an `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match &self.0.kind {
            Kind::Error { error, .. } => error.downcast_ref(),
            Kind::Panic { .. } => None,
        }
    }

    /// Takes the error out, if it is an `E`.
    ///
    /// # Errors
    /// The Failure itself when it is something else.
    pub fn downcast<E: Error + 'static>(self) -> Result<E, Failure> {
        if !self.is::<E>() {
            return Err(self);
        }
        let Inner { kind, reported } = *self.0;
        match kind {
            Kind::Error { error, backtrace } => match error.downcast() {
                Ok(error) => Ok(*error),
                Err(error) => Err(Failure::of(error, backtrace)),
            },
            kind @ Kind::Panic { .. } => Err(Failure(Box::new(Inner { kind, reported }))),
        }
    }

    /// Tells whether the error is an `E`.
    pub fn is<E: Error + 'static>(&self) -> bool {
        self.downcast_ref::<E>().is_some()
    }

    /// Tells whether this is a cancellation: [`Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        self.is::<Cancelled>()
    }

    /// Gives the text of the panic, if it is one.
    pub fn panic_message(&self) -> Option<&str> {
        match &self.0.kind {
            Kind::Panic { message, .. } => Some(message),
            Kind::Error { .. } => None,
        }
    }

    /// Gives the place of the panic, `file:line:column`, if it is one and the place was noted.
    pub fn place(&self) -> Option<&str> {
        match &self.0.kind {
            Kind::Panic { place, .. } => place.as_deref(),
            Kind::Error { .. } => None,
        }
    }

    /// Takes the payload of the panic out, for `std::panic::resume_unwind`.
    ///
    /// # Errors
    /// The Failure itself when it is not a panic.
    pub fn into_panic(self) -> Result<Box<dyn Any + Send>, Failure> {
        let Inner { kind, reported } = *self.0;
        match kind {
            Kind::Panic { payload, .. } => {
                Ok(payload.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()))
            }
            kind @ Kind::Error { .. } => Err(Failure(Box::new(Inner { kind, reported }))),
        }
    }

    /// Reports it unless somebody was told already, or it is a cancellation (FAIL-1).
    pub(crate) fn report_unhandled(&self, what: &str) {
        if !self.is_cancelled() && !self.0.reported.swap(true, Ordering::Relaxed) {
            crate::report::unhandled(what, &Reported(self), self);
        }
    }
}

/// The text of a report: one line, with the place of a panic. The backtrace is for `Debug`: the
/// default panic hook has printed that of a panic already.
struct Reported<'a>(&'a Failure);

impl fmt::Display for Reported<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match self.0.place() {
            Some(place) => write!(f, ", at {place}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
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
        match &self.0.kind {
            Kind::Error { backtrace, .. } if backtrace.status() == BacktraceStatus::Captured => {
                write!(f, "\n{backtrace}")?;
            }
            Kind::Panic { backtrace: Some(backtrace), .. } => write!(f, "\n{backtrace}")?,
            Kind::Error { .. } | Kind::Panic { .. } => {}
        }
        f.write_str(")")
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error)
    }
}

impl From<Failure> for Box<dyn Error + Send + Sync> {
    fn from(failure: Failure) -> Self {
        match *failure.0 {
            Inner { kind: Kind::Error { error, .. }, .. } => error,
            Inner { kind: Kind::Panic { message, .. }, .. } => {
                format!("panicked: {message}").into()
            }
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
