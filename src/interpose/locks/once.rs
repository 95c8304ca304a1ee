//! pthread_once(3).
//!
//! Floor 8. Uses: `wait`, `next`. Used by: `c11`, the names that `interpose!()`
//! defines.
//!
//! Whether the routine runs, or has run, is told by the lowest bits of the control word. While it
//! runs, whoever may not wait in libc waits here; else libc does it all. Who has called libc says
//! when the routine has ended. If an exception of C++'s leaves it, or a cancellation, nobody does,
//! since nothing may be done in a frame that is unwound so (`HOOK-2`): the word is looked at again
//! every 10 ms.
//!
//! # Source
//!
//! glibc `nptl/pthread_once.c`, `pthreadP.h`.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

use crate::interpose::{
    __c::Routine,
    next,
    wait::{ANY, At, Limit, Waited, Waiter, wake},
};

/// The bits of the control word that say how far it is.
const STATE: c_int = 3;
/// The routine runs.
const IN_PROGRESS: c_int = 1;
/// It has run.
const DONE: c_int = 2;

/// pthread_once(3).
pub unsafe extern "C-unwind" fn pthread_once(once: *mut c_int, routine: Routine) -> c_int {
    // SAFETY: HOOK-1.
    if unsafe { wait_while_it_runs(once) } {
        return 0;
    }
    // SAFETY: HOOK-1.
    let result = unsafe { next::pthread_once(once, routine) };
    wake(once.addr(), ANY, usize::MAX);
    result
}

/// Waits while the routine runs, for who must not do so in libc. Returns whether it has run.
///
/// # Safety
///
/// `once` is a control word of pthread_once(3).
pub(super) unsafe fn wait_while_it_runs(once: *mut c_int) -> bool {
    // SAFETY: the caller's promise: valid, aligned, and changed by atomic accesses alone.
    let state = || unsafe { AtomicI32::from_ptr(once) }.load(Ordering::Acquire) & STATE;
    if state() == DONE {
        return true;
    }
    if let Some(waiter) = Waiter::here() {
        let address = once.addr();
        let at = At { address, bits: ANY, limit: Limit::Never, is_shared: true };
        while state() == IN_PROGRESS {
            if waiter.wait(at, &mut || state() != IN_PROGRESS) == Waited::Cannot {
                break;
            }
        }
    }
    false
}
