//! Coroutines: a stack plus saved registers, resumed and suspended, with no scheduler in sight.
//!
//! Floor 0. Uses: corosensei, and nothing else names it. Used by: `hub`. Knows nothing of:
//! greenlets, reactors, time.
//!
//! # Contract
//!
//! A [`Coroutine`] runs one closure on one [`Stack`]. [`Coroutine::resume`] enters it and returns
//! when the closure suspends or ends; [`Suspender::suspend`] leaves it. `Input`, `Yield` and
//! `Return` are `()` so that nothing but the two stack pointers crosses (16 instructions a round
//! trip on `x86_64`); what the two sides have to say goes through memory that both can reach.
//!
//! The closure must not unwind out of the coroutine: the floor above catches at its root.
//!
//! # States
//!
//! ```text
//! new ──resume──▶ running ──suspend──▶ suspended
//!                   ▲ └──closure ends──▶ done ──into_stack──▶ (the stack, for the next one)
//!                   └────────resume────────┘ (from suspended)
//! ```
//!
//! # Invariants
//!
//! - `CORO-1` A coroutine is resumed only by the thread that made it: neither type is `Send`.
//! - `CORO-2` A stack is given back only by [`Coroutine::into_stack`], which demands `done`: while
//!   a frame is alive on it, nobody else can hold it.
//! - `CORO-3` A suspended coroutine is never dropped by this crate. Dropping one would make
//!   corosensei unwind it by force, without the hub knowing; the hub resumes it with a kill
//!   instead.
//!
//! # Source
//!
//! corosensei `coroutine.rs`; generator-rs for the control block at the top of its own stack.

pub(crate) mod base;
mod float;
mod guard;
mod overflow;
mod pool;
mod snapshot;
mod stack;
#[cfg(test)]
mod tests;

pub(crate) use float::FloatControl;
pub(crate) use overflow::{AltStack, call_replaced, catch_overflows, stack_around};
pub(crate) use pool::StackPool;
pub(crate) use snapshot::{Registers, Snapshot};
pub(crate) use stack::{GUARD_BYTES, HEAD_BYTES, Label, STACK_BYTES_DEFAULT, Stack};

use corosensei::{Coroutine as Switch, CoroutineResult, Yielder};

/// Closures up to this size are moved onto the new stack; larger ones are boxed first, because
/// corosensei refuses more than 1 KiB and a parked coroutine should stay within one page.
const INLINE_CLOSURE_BYTES_MAX: usize = 512;

/// A closure on a stack of its own, entered by [`resume`](Self::resume).
///
/// ```compile_fail
/// fn sendable<T: Send>() {}
/// sendable::<greenloop::Greenlet<()>>(); // and so is whatever owns a coroutine
/// ```
pub(crate) struct Coroutine {
    switch: Switch<(), (), (), Stack>,
}

impl Coroutine {
    /// Puts `body` at the bottom of `stack`, ready to be resumed.
    ///
    /// Shape: `body` may be of any size. It gets the [`Suspender`] by which it leaves.
    ///
    /// # Safety
    ///
    /// 1. What `body` borrows must outlive the coroutine's end: `'static` is not asked for here,
    ///    because the hub's main greenlet and scoped greenlets borrow.
    /// 2. `body` must not unwind.
    #[expect(unsafe_code, reason = "lifetimes end here: the floor above vouches for them")]
    pub(crate) unsafe fn new<F: FnOnce(&Suspender)>(stack: Stack, body: F) -> Coroutine {
        let switch = if size_of::<F>() > INLINE_CLOSURE_BYTES_MAX {
            let body = Box::new(body);
            // SAFETY: the caller's obligation (1) is exactly what this asks for.
            unsafe {
                Switch::with_stack_unchecked(stack, move |y: &Yielder<(), ()>, ()| {
                    body(Suspender::from_yielder(y));
                })
            }
        } else {
            // SAFETY: as above, the caller's obligation (1).
            unsafe {
                Switch::with_stack_unchecked(stack, move |y: &Yielder<(), ()>, ()| {
                    body(Suspender::from_yielder(y));
                })
            }
        };
        Coroutine { switch }
    }

    /// Enters the coroutine; returns when it suspends (`false`) or has ended (`true`).
    #[inline(always)]
    pub(crate) fn resume(&mut self) -> bool {
        matches!(self.switch.resume(()), CoroutineResult::Return(()))
    }

    /// Gives the stack of an ended coroutine back.
    ///
    /// # Panics
    ///
    /// When the coroutine has not ended (`CORO-2`).
    pub(crate) fn into_stack(self) -> Stack {
        self.switch.into_stack()
    }
}

/// Tells the processor that the cache line at `address` will be needed soon. Any address will do.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(unsafe_code, reason = "an intrinsic that takes a pointer")]
        // SAFETY: a prefetch reads nothing and never faults, whatever the address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(address.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The inner end of a [`Coroutine`]: what its closure leaves by.
#[repr(transparent)]
pub(crate) struct Suspender(Yielder<(), ()>);

impl Suspender {
    #[expect(unsafe_code, reason = "a transparent wrapper keeps corosensei's name in one file")]
    fn from_yielder(yielder: &Yielder<(), ()>) -> &Suspender {
        // SAFETY: `Suspender` is `repr(transparent)` over `Yielder<(), ()>`, so a reference to one
        // is a valid reference to the other, with the same lifetime.
        unsafe { &*std::ptr::from_ref(yielder).cast::<Suspender>() }
    }

    /// Leaves the coroutine; returns when it is resumed.
    #[inline(always)]
    pub(crate) fn suspend(&self) {
        self.0.suspend(());
    }
}
