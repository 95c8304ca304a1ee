//! What a function may return that is called again and again.
//!
//! Floor 7. Uses: `deferred`. Used by: `looping`, `cooperator`.

use crate::{Deferred, Failure};

/// The result of one call of a [`LoopingCall`](super::LoopingCall), or of one step of a
/// [`CooperativeTask`](super::CooperativeTask): nothing, a `Result`, or a Deferred to wait for
/// before the next.
///
/// # Source
///
/// Twisted `maybeDeferred`, which finds out when it runs.
pub trait Step: sealed::Sealed {
    /// Makes it a Deferred; one that has fired, if there is nothing to wait for.
    fn into_deferred(self) -> Deferred<()>;
}

impl Step for () {
    fn into_deferred(self) -> Deferred<()> {
        Deferred::succeed(())
    }
}

impl<E: Into<Failure>> Step for Result<(), E> {
    fn into_deferred(self) -> Deferred<()> {
        Deferred::from_result(self.map_err(Into::into))
    }
}

impl Step for Deferred<()> {
    fn into_deferred(self) -> Deferred<()> {
        self
    }
}

/// Keeps the trait to the three: more may come without breaking anybody.
mod sealed {
    /// Implemented here only.
    pub trait Sealed {}
    impl Sealed for () {}
    impl<E: Into<crate::Failure>> Sealed for Result<(), E> {}
    impl Sealed for crate::Deferred<()> {}
}
