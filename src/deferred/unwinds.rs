//! Unwinds out of user code: which of them are panics, and which are kills that must go on.
//!
//! A callback that panics ends as a [`Failure`] for the next errback. But upper floors unwind
//! greenlets on purpose, and such a *kill* that passes through a callback belongs to the greenlet,
//! not to the chain. This floor cannot know their payloads, so it asks through [`Unwinds`], which
//! they install. Until then nothing is a kill, and panics have neither place nor backtrace.
//! An unwind may also come as an error, from whoever waited for its greenlet: as a Failure it is
//! again what it was.

use super::failure::Failure;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

/// What the floors above know about unwinds, installed once for the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwinds {
    /// Tells whether the payload is a kill, or any other unwind that nobody may swallow.
    pub(crate) is_kill: fn(&(dyn Any + Send)) -> bool,
    /// Goes on with a kill; or drops it and returns, if the greenlet is unwinding already: then it
    /// has what the kill wanted, and a second unwind out of a destructor would abort the process.
    pub(crate) resume_kill: fn(Box<dyn Any + Send>),
    /// Takes what the panic hook noted about the panic that was just caught on this thread.
    pub(crate) panic_details: fn() -> PanicDetails,
    /// Takes an error that tells of an unwind, and gives the Failure that it is; given an
    /// `Option` of any other error, it leaves that alone.
    pub(crate) take_failure: fn(&mut dyn Any) -> Option<Failure>,
}

/// What a panic hook notes about a panic.
#[derive(Debug, Default)]
pub(crate) struct PanicDetails {
    /// `file:line:column`.
    pub(crate) place: Option<String>,
    /// A backtrace, as text.
    pub(crate) backtrace: Option<String>,
}

/// The answers of the floors above, once they gave them.
static UNWINDS: OnceLock<Unwinds> = OnceLock::new();

/// The answers before that.
const UNKNOWN: Unwinds = Unwinds {
    is_kill: |_| false,
    resume_kill: |kill| {
        if !std::thread::panicking() {
            std::panic::resume_unwind(kill);
        }
    },
    panic_details: PanicDetails::default,
    take_failure: |_| None,
};

#[cfg(test)]
thread_local! {
    /// Lets a test give this thread's answers without touching those of others.
    pub(super) static UNWINDS_OF_TEST: std::cell::Cell<Option<Unwinds>> =
        const { std::cell::Cell::new(None) };
}

impl Unwinds {
    /// Installs the answers, for all threads. The first call counts; later ones change nothing.
    pub(crate) fn install(self) {
        let _ = UNWINDS.set(self);
    }

    /// Goes on with a kill, as the floors above say.
    pub(super) fn resume(kill: Box<dyn Any + Send>) {
        (Unwinds::installed().resume_kill)(kill);
    }

    /// Takes the error out, if it tells of an unwind.
    pub(super) fn take_failure<E: 'static>(error: &mut Option<E>) -> Option<Failure> {
        (Unwinds::installed().take_failure)(error)
    }

    fn installed() -> Unwinds {
        #[cfg(test)]
        if let Some(unwinds) = UNWINDS_OF_TEST.get() {
            return unwinds;
        }
        UNWINDS.get().copied().unwrap_or(UNKNOWN)
    }
}

/// How user code unwound.
pub(super) enum Caught {
    /// By a panic: a failure like any other.
    Panic(Failure),
    /// By a kill: to be resumed with this payload.
    Kill(Box<dyn Any + Send>),
}

impl Caught {
    /// Sorts a payload. Cold: nearly no call unwinds.
    #[cold]
    fn sort(payload: Box<dyn Any + Send>) -> Caught {
        let unwinds = Unwinds::installed();
        if (unwinds.is_kill)(&*payload) {
            return Caught::Kill(payload);
        }
        let PanicDetails { place, backtrace } = (unwinds.panic_details)();
        Caught::Panic(Failure::from_panic(payload, place, backtrace))
    }
}

/// Runs user code and catches its unwind.
#[inline]
pub(super) fn catch<R>(user: impl FnOnce() -> R) -> Result<R, Caught> {
    // Unwind safety: what user code shared and left half changed is the user's own, as in any
    // `Drop` that an unwind runs; what this floor shares is consistent before each call (CHAIN-2).
    catch_unwind(AssertUnwindSafe(user)).map_err(Caught::sort)
}
