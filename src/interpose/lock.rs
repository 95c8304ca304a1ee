//! A lock for a few instructions, which knows who has it.
//!
//! Floor 8. Uses: atomics, sched_yield(2) by instruction. Used by: `descriptors`, `window`.
//!
//! Hooked calls are made in places where no other lock will do: in signal handlers, before a
//! thread-local can be made, and while an allocator's lock is held. So it is a word, and whoever
//! finds it taken by its own thread (a signal handler that came in between) is told so and goes on
//! without what it protects.
//!
//! # Invariants
//!
//! - `OWNED-1` Nobody suspends, allocates, takes another lock or runs code of others while it holds
//!   one. So it is free again after a bounded number of instructions and of system calls that do
//!   not block.
//! - `OWNED-2` At most one [`Held`] of a lock exists.

#![expect(unsafe_code, reason = "a cell that a word guards")]
//! # Safety
//!
//! What the lock protects is touched through [`Held`] alone (`OWNED-2`).

use std::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Looks at a taken lock before the processor is given away.
const SPINS: u32 = 64;

thread_local! {
    /// Its address names whoever runs on this thread-local base. No destructor: no code runs to
    /// make it.
    static HERE: u8 = const { 0 };
}

/// A value that one thread at a time may touch.
pub(super) struct Owned<T> {
    /// Who has it: an address of [`HERE`], or zero.
    owner: AtomicUsize,
    value: UnsafeCell<T>,
}

// SAFETY: thread A that has it and thread B that wants it: the owner word lets one in at a time
// (OWNED-2), and hands over with Acquire and Release; the value itself may change threads.
unsafe impl<T: Send> Sync for Owned<T> {}

impl<T> Owned<T> {
    pub(super) const fn new(value: T) -> Owned<T> {
        Owned { owner: AtomicUsize::new(0), value: UnsafeCell::new(value) }
    }

    /// Takes the lock; `None` if this very thread has it already.
    pub(super) fn take(&self) -> Option<Held<'_, T>> {
        let me = HERE.with(|here| std::ptr::from_ref(here).addr());
        let mut spins = 0;
        loop {
            match self.owner.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Held(self)),
                Err(owner) if owner == me => return None,
                Err(_) if spins < SPINS => {
                    spins += 1;
                    std::hint::spin_loop();
                }
                Err(_) => rustix::thread::sched_yield(),
            }
        }
    }

    /// Makes it free, whoever had it: in the child of a fork, where nobody else is.
    pub(super) fn release_in_child(&self) {
        self.owner.store(0, Ordering::Release);
    }
}

/// The lock is held (`OWNED-2`).
pub(super) struct Held<'a, T>(&'a Owned<T>);

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: OWNED-2: nobody else touches it until this is dropped.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: OWNED-2, and `self` is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.owner.store(0, Ordering::Release);
    }
}
