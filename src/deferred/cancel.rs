//! What acts on a chain from the side: [`CancelHandle`] and [`PauseGuard`].

use super::chain::{self, Chain, Step};
use super::stage::Open;
use std::fmt;
use std::rc::{Rc, Weak};

/// Cancels a Deferred later, even when it was consumed by a chain or a waiter.
///
/// It acts on the whole chain, as [`Deferred::cancel`](super::Deferred::cancel) does: what is
/// cancelled is whatever the chain waits for at that time. It keeps nothing alive, and does nothing
/// once the chain has its result or is gone.
#[derive(Clone, Default)]
pub struct CancelHandle {
    /// The chain; none if it had its result when the handle was made.
    chain: Option<Weak<dyn Chain>>,
}

impl CancelHandle {
    pub(super) fn new(chain: &Rc<dyn Chain>) -> CancelHandle {
        CancelHandle { chain: Some(Rc::downgrade(chain)) }
    }

    /// Makes a handle that does nothing.
    pub(super) fn inert() -> CancelHandle {
        CancelHandle { chain: None }
    }

    /// What a cancellation of several has to do for this one, if anything.
    pub(super) fn step(&self, unless_fired: Option<&Rc<dyn Chain>>) -> Option<Step> {
        let chain = self.chain.clone()?;
        Some(Step::Cancel { chain, unless_fired: unless_fired.cloned() })
    }

    /// Cancels whatever the chain waits for; does nothing when it waits for nothing.
    ///
    /// # Panics
    /// As [`Resolver::callback`](super::Resolver::callback): a kill goes on, nothing else.
    pub fn cancel(&self) {
        if let Some(chain) = self.chain.as_ref().and_then(Weak::upgrade) {
            chain::cancel(chain);
        }
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.chain.as_ref().and_then(Weak::upgrade) {
            Some(chain) => write!(f, "CancelHandle({:p})", chain::address(&chain)),
            None => f.write_str("CancelHandle(gone)"),
        }
    }
}

/// Keeps back the result of a Deferred until it is dropped.
///
/// Made by [`Deferred::pause`](super::Deferred::pause). Dropping it runs what it kept back. Each
/// pause has its own guard, so an `unpause` without a `pause` cannot be written. Forgotten
/// (`std::mem::forget`), it keeps the result back for ever.
#[must_use = "a pause ends when its guard is dropped"]
pub struct PauseGuard {
    /// The chain that is paused.
    chain: Rc<dyn Chain>,
    /// The gate that it is paused at.
    gate: Rc<dyn Open>,
}

impl PauseGuard {
    pub(super) fn new(chain: Rc<dyn Chain>, gate: Rc<dyn Open>) -> PauseGuard {
        PauseGuard { chain, gate }
    }
}

impl Drop for PauseGuard {
    fn drop(&mut self) {
        Rc::clone(&self.gate).open(Rc::clone(&self.chain));
    }
}

impl fmt::Debug for PauseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PauseGuard({:p})", chain::address(&self.chain))
    }
}
