//! Poison: whether an unwind has left what a lock protects half changed.
//!
//! Floor 5. Used by: `mutex`, `rwlock`.
//!
//! An unwind is its greenlet's, not the thread's, where others may be unwinding: see
//! [`is_unwinding`].
//!
//! # Source
//!
//! std `sync/poison.rs`.

use std::sync::{
    LockResult, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::hub::is_unwinding;

/// The flag of a lock.
pub(super) struct Poison(AtomicBool);

/// What a guard remembers of the moment when it was made.
pub(super) struct Witness {
    was_unwinding: bool,
}

impl Witness {
    #[inline]
    pub(super) fn new() -> Witness {
        Witness { was_unwinding: is_unwinding() }
    }
}

impl Poison {
    pub(super) const fn none() -> Poison {
        Poison(AtomicBool::new(false))
    }

    #[inline]
    pub(super) fn is_there(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Poisons the lock if an unwind ends the guard that began since.
    #[inline]
    pub(super) fn mark(&self, witness: &Witness) {
        if !witness.was_unwinding && is_unwinding() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Gives `access`, in an error if the lock was found poisoned.
#[inline]
pub(super) fn tell<G>(is_poisoned: bool, access: G) -> LockResult<G> {
    if is_poisoned { Err(PoisonError::new(access)) } else { Ok(access) }
}
