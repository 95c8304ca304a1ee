//! What a thread is inside of, so that a signal handler on it does not wait for it.
//!
//! Floor 8. Uses: nothing. Used by: `queue`.
//!
//! sem_post(3) may be called in a signal handler, which may interrupt the very thread that holds
//! the latch of the shard it needs. Whoever holds one has said so here; a handler that finds it
//! said leaves a note instead, and whom it interrupted acts on it.
//!
//! # Invariants
//!
//! - `INSIDE-1` A handler runs on the thread-locals of the code that it interrupts, be it a virtual
//!   thread's own or the hub's. So what that code has said here, the handler reads.

use std::{
    cell::Cell,
    sync::atomic::{Ordering, compiler_fence},
};

thread_local! {
    /// The address of what this thread is inside of, or 0. No destructor: hooks are called at any
    /// time of a thread's life.
    static INSIDE: Cell<usize> = const { Cell::new(0) };
}

/// While it lives, this thread is inside of something.
pub(super) struct Inside {
    /// What it was inside of before: a handler may interrupt one and enter another.
    before: usize,
}

impl Inside {
    /// Says that this thread enters what has this address. `None` when it is inside of it already.
    #[inline]
    pub(super) fn enter(address: usize) -> Option<Inside> {
        let before = INSIDE.replace(address);
        if before == address {
            return None;
        }
        compiler_fence(Ordering::SeqCst); // As a handler on this thread sees it.
        Some(Inside { before })
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        INSIDE.set(self.before);
        compiler_fence(Ordering::SeqCst);
    }
}
