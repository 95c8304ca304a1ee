//! What a thread is inside of, so that a signal handler on it does not wait for it.
//!
//! Floor 8. Uses: nothing. Used by: `queue`, `wait`.
//!
//! sem_post(3) may be called in a signal handler, which may interrupt the very thread that holds
//! the latch of the shard it needs. Whoever holds one has said so here; a handler that finds it
//! said leaves a note instead, and whom it interrupted acts on it. A handler may itself be inside
//! of something when another one interrupts it, so what each is inside of is kept.
//!
//! # Invariants
//!
//! - `INSIDE-1` A handler runs on the thread-locals of the code that it interrupts, be it a virtual
//!   thread's own or the hub's. So what that code has said here, the handler reads.
//! - `INSIDE-2` What is said lies in the frame of `within`, from before `INSIDE` points to it until
//!   `INSIDE` points to what was said before. A handler that interrupts this undoes what it does.

#![expect(unsafe_code, reason = "a list through the frames of those who are inside")]
//! # Safety
//!
//! The list is followed on the thread-locals that it belongs to: `INSIDE-2`.

use std::{
    cell::Cell,
    ptr,
    sync::atomic::{Ordering, compiler_fence},
};

thread_local! {
    /// What this thread is inside of, the innermost first, or null. No destructor: hooks are called
    /// at any time of a thread's life.
    static INSIDE: Cell<*const Inside> = const { Cell::new(ptr::null()) };
}

/// What a thread is inside of.
struct Inside {
    address: usize,
    outer: *const Inside,
}

/// Runs `f`, while this thread is inside of what has this address. `None` when it is already.
#[inline]
pub(super) fn within<R>(address: usize, f: impl FnOnce() -> R) -> Option<R> {
    let outer = INSIDE.get();
    let mut at = outer;
    // SAFETY: null, or in a frame below this one (INSIDE-2).
    while let Some(inside) = unsafe { at.as_ref() } {
        if inside.address == address {
            return None;
        }
        at = inside.outer;
    }
    let here = Inside { address, outer };
    compiler_fence(Ordering::SeqCst); // As a handler on this thread sees it.
    INSIDE.set(&raw const here);
    compiler_fence(Ordering::SeqCst);
    let _leave = Leave(outer);
    Some(f())
}

/// Says that this thread is out again, when it is dropped.
struct Leave(*const Inside);

impl Drop for Leave {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        INSIDE.set(self.0);
        compiler_fence(Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::within;

    #[test]
    fn what_a_handler_was_inside_of_does_not_hide_what_it_interrupted() {
        let found = within(1, || within(2, || (within(1, || ()), within(2, || ()))));
        assert_eq!(found, Some(Some((None, None))));
        assert_eq!(within(1, || ()), Some(()));
    }
}
