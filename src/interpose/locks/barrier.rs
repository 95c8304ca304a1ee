//! pthread_barrier_wait(3), pthread_barrier_destroy(3).
//!
//! Floor 8. Uses: `wait`, `layout`, `next`. Used by: the names that `interpose!()` defines.
//!
//! A barrier cannot be tried. Who must not wait in libc does here what libc does, on the barrier's
//! own words, so that threads which wait in libc count it and are counted:
//!
//! ```text
//! entered += 1; mine = entered          round: how many may leave, a multiple of count
//! if a round is full: round = the multiple below `mine`, and all are woken
//! while round < mine: wait
//! left += 1; who is the last that the numbers can count begins them anew
//! ```
//!
//! Whoever has called libc wakes those who wait here, since it may have been the last to come.
//!
//! # Source
//!
//! glibc `nptl/pthread_barrier_wait.c`, `pthread_barrier_destroy.c`.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`). The words of a barrier are changed by atomic
//! accesses alone, here as in libc, and are where `layout` has seen them.

use std::{
    ptr,
    sync::atomic::{AtomicU32, Ordering, fence},
};

use libc::{PTHREAD_BARRIER_SERIAL_THREAD, c_int, c_long, pthread_barrier_t};

use super::layout::{self, Barrier};
use crate::interpose::{
    next,
    wait::{ANY, At, Limit, Waited, Waiter, released, wake},
};

/// The numbers begin anew before they pass this.
const ENTERED_MAX: u32 = u32::MAX / 2;

/// pthread_barrier_wait(3).
pub unsafe extern "C-unwind" fn pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int {
    if let Some(waiter) = Waiter::here()
        && waiter.can_wait()
        // SAFETY: HOOK-1.
        && let Some(words) = unsafe { layout::barrier(barrier) }
    {
        return wait(waiter, &words);
    }
    // SAFETY: HOOK-1.
    let result = unsafe { next::pthread_barrier_wait(barrier) };
    released(barrier.addr(), usize::MAX); // LOCK-2: a number.
    result
}

/// pthread_barrier_destroy(3). libc waits there until all who have come have left, of whom some may
/// be virtual threads of this thread.
pub unsafe extern "C-unwind" fn pthread_barrier_destroy(barrier: *mut pthread_barrier_t) -> c_int {
    if let Some(waiter) = Waiter::here()
        && waiter.can_wait()
        // SAFETY: HOOK-1.
        && let Some(words) = unsafe { layout::barrier(barrier) }
    {
        let Barrier { entered, left, .. } = words;
        let all_left = || left.load(Ordering::Acquire) == entered.load(Ordering::Acquire);
        wait_for(waiter, &words, all_left);
    }
    // SAFETY: HOOK-1.
    unsafe { next::pthread_barrier_destroy(barrier) }
}

/// Waits until `is_over`.
fn wait_for(waiter: Waiter, words: &Barrier<'_>, is_over: impl Fn() -> bool) {
    let address = ptr::from_ref(words.entered).addr();
    let at = At { address, bits: ANY, limit: Limit::Never, is_shared: words.is_shared };
    while !is_over() {
        if waiter.wait(at, &mut || is_over()) == Waited::Cannot {
            rustix::thread::sched_yield();
        }
    }
}

/// What libc's function does.
fn wait(waiter: Waiter, words: &Barrier<'_>) -> c_int {
    let Barrier { entered, round, count, left, .. } = *words;
    let threshold = ENTERED_MAX - ENTERED_MAX % count;
    let mine = loop {
        let mine = entered.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        if mine <= threshold {
            break mine;
        }
        // The numbers are about to begin anew.
        wait_for(waiter, words, || entered.load(Ordering::Relaxed) <= threshold);
    };
    let mut now = round.load(Ordering::Relaxed);
    while now + count <= mine {
        let full = mine - mine % count;
        match round.compare_exchange(now, full, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => {
                wake_all(words, round);
                break;
            }
            Err(other) => now = other,
        }
    }
    wait_for(waiter, words, || mine <= round.load(Ordering::Relaxed));
    fence(Ordering::Acquire);
    let address = ptr::from_ref(entered).addr();
    if left.fetch_add(1, Ordering::Release) + 1 == threshold {
        fence(Ordering::Acquire);
        round.store(0, Ordering::Relaxed);
        left.store(0, Ordering::Relaxed);
        entered.store(0, Ordering::Release);
        wake_all(words, entered);
    } else {
        released(address, usize::MAX); // Who destroys it waits for this. LOCK-2: a number.
    }
    if mine.is_multiple_of(count) { PTHREAD_BARRIER_SERIAL_THREAD } else { 0 }
}

/// Wakes all who wait for a word of it, in libc and here.
fn wake_all(words: &Barrier<'_>, word: &AtomicU32) {
    let private = if words.is_shared { 0 } else { libc::FUTEX_PRIVATE_FLAG };
    let operation = c_long::from(libc::FUTEX_WAKE | private);
    let address = ptr::from_ref(word).expose_provenance() as c_long;
    // SAFETY: wakes whoever waits at an address; looks at no memory.
    unsafe {
        next::syscall(libc::SYS_futex, address, operation, c_long::from(c_int::MAX), 0, 0, 0);
    }
    wake(ptr::from_ref(words.entered).addr(), ANY, usize::MAX);
}
