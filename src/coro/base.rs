//! The thread-local base: what tells the code that runs whose thread-locals are its own.
//!
//! Floor 0. Uses: nothing. Used by: `hub::guest`, `thread`.
//!
//! On x86_64 it is the FS base, on aarch64 `tpidr_el0`: compilers address every thread-local, and
//! the C library its `errno` and all else of a thread, relative to it. [`call_on`] runs a function
//! with another base. Nothing else in the crate changes it, and the switch between coroutines knows
//! nothing of it: whoever suspends has gone back to its thread's own base before.
//!
//! # Invariants
//!
//! - `BASE-1` The base is changed, the function called, and the base changed back in one block of
//!   assembly. What the compiler has computed of thread-locals around it is true before and after;
//!   what is called is compiled apart. So no address of a thread-local is used on another base.
//! - `BASE-2` Nothing unwinds through that block.

#![expect(unsafe_code, reason = "inline assembly")]
//! # Safety
//!
//! `BASE-1` is in the text of the assembly; `BASE-2` is the caller's to keep.

use std::ffi::c_void;

/// The base that this code runs on.
#[inline]
pub(crate) fn current() -> usize {
    let base: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the C library keeps a pointer to its control block in that block's first word, which
    // is what the ABI has all code read that takes a thread-local's address.
    unsafe {
        std::arch::asm!("mov {}, fs:[0]", out(reg) base,
            options(pure, readonly, nostack, preserves_flags));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register that every thread may read.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) base,
            options(nomem, nostack, preserves_flags));
    }
    base
}

/// Calls `f(data)` with the thread-local base `base`.
///
/// Not inlined: its frame is where backtraces show that the base changes.
///
/// # Safety
///
/// `base` is a control block of the C library's that may be used by this OS thread now: its own, or
/// one made by `_dl_allocate_tls` and filled in. On x86_64 the processor and the kernel allow
/// `wrfsbase`. `f` may be called with `data`, on this stack, and does not unwind (`BASE-2`).
#[inline(never)]
pub(crate) unsafe fn call_on(base: usize, f: extern "C" fn(*mut c_void), data: *mut c_void) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: BASE-1. rbx and r12 are saved by the callee, so they keep the old base across the
    // call; the compiler aligns the stack for a block that is not `nostack`, and keeps nothing
    // below the stack pointer. The caller vouches for the rest.
    unsafe {
        std::arch::asm!(
            "rdfsbase r12",
            "wrfsbase {base}",
            "call {f}",
            "wrfsbase r12",
            base = in(reg) base,
            f = in(reg) f,
            in("rdi") data,
            out("r12") _,
            clobber_abi("C"),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above, with x20 in place of r12.
    unsafe {
        std::arch::asm!(
            "mrs x20, tpidr_el0",
            "msr tpidr_el0, {base}",
            "blr {f}",
            "msr tpidr_el0, x20",
            base = in(reg) base,
            f = in(reg) f,
            in("x0") data,
            out("x20") _,
            clobber_abi("C"),
        );
    }
}
