//! A lock for moments: taken by one atomic operation, let go by a plain store.
//!
//! Floor 0. Uses: nothing. Used by: `sync::lane`, `interpose::queue`.
//!
//! It is held for a few steps that never block (`LANE-1`, `QUEUE-3`), so who finds it held waits
//! for it by spinning, and soon lets other threads run, since its holder may have been put off the
//! processor. std's lock has to ask when it is let go whether somebody sleeps, which costs a second
//! atomic operation: half of all that a channel does. And it waits by a name of libc's, which a
//! higher floor interposes.
//!
//! # Invariants
//!
//! - `LATCH-1` At most one `Held` exists: one is made only by who has changed `is_held` from false
//!   to true, and nothing but its drop changes it back.

#![expect(unsafe_code, reason = "a lock lends what it holds")]
//! # Safety
//!
//! The cell is touched through a `Held` (`LATCH-1`).

use std::{
    cell::UnsafeCell,
    hint,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicBool, Ordering},
};

/// Looks before others are let run, each twice as far apart as the one before.
const SPINS: u32 = 6;

/// Looks before the thread sleeps between two of them: where threads have priorities, the holder
/// may be one that letting others run does not reach.
const LOOKS: u32 = 100;

/// How long it sleeps then.
const NAP_NS: i64 = 50_000;

/// A value that one thread at a time may touch, for moments.
pub(crate) struct Latch<T> {
    is_held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: Thread A changes the value through a `Held` and drops it (a release); thread B then takes
// the latch (an acquire) and sees the changes, and A has no reference any more (LATCH-1). So the
// value goes from thread to thread, for which `T: Send` is what is needed; two never have it at
// once, so `T: Sync` is not.
unsafe impl<T: Send> Sync for Latch<T> {}

/// The value, while the latch is held. Dropped, in an unwind too, it lets go. It stays on its
/// thread.
pub(crate) struct Held<'a, T>(&'a Latch<T>, PhantomData<*mut T>);

impl<T> Latch<T> {
    pub(crate) const fn new(value: T) -> Latch<T> {
        Latch { is_held: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Takes the latch, when nobody else has it. Who has it must not come back here.
    #[inline(always)]
    pub(crate) fn hold(&self) -> Held<'_, T> {
        if self.is_held.swap(true, Ordering::Acquire) {
            self.contend();
        }
        Held(self, PhantomData) // INVARIANT: LATCH-1: we have just changed `is_held`.
    }

    /// Makes it a new one, which nobody holds. What it held is forgotten, not dropped.
    ///
    /// # Safety
    ///
    /// Nobody uses it, or ever will go on to use it: in the child of a fork, whose holder is not
    /// there.
    pub(crate) unsafe fn renew(&self, value: T) {
        // SAFETY: nobody else refers to the value: the caller's promise.
        unsafe { self.value.get().write(value) };
        self.is_held.store(false, Ordering::Release); // INVARIANT: LATCH-1: no `Held` is left.
    }

    /// Takes the latch from somebody who has it.
    #[cold]
    fn contend(&self) {
        for look in 0.. {
            if !self.is_held.load(Ordering::Relaxed) && !self.is_held.swap(true, Ordering::Acquire)
            {
                return;
            }
            match look {
                ..SPINS => (0..1 << look).for_each(|_| hint::spin_loop()),
                SPINS..LOOKS => rustix::thread::sched_yield(),
                _ => {
                    let nap = rustix::time::Timespec { tv_sec: 0, tv_nsec: NAP_NS };
                    let _ = rustix::thread::nanosleep(&nap);
                }
            }
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: this is the only `Held` (LATCH-1), so the only `&mut` is one borrowed from it.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; it is borrowed mutably, so no reference of it exists.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.is_held.store(false, Ordering::Release);
    }
}
