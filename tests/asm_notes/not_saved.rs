//! Lock 5, the other way round: what a switch does not save goes from one greenlet to the next.
//!
//! These tests assert what is so, not what would be nice: when one of them fails, a page is wrong.

use std::ptr;

use greenloop::{run, spawn, yield_now};

use here::thread_pointer;

/// Has one greenlet `set` something and yield, and another `get` it meanwhile; then `reset`s it.
/// What the other one had before, and what it got.
fn seen_by_the_next<T>(set: fn(), get: fn() -> T, reset: fn()) -> (T, T)
where
    T: 'static,
{
    run(|| {
        let before = get();
        let one = spawn(move || {
            set();
            yield_now();
            reset();
        });
        let other = spawn(get);
        let after = other.join().unwrap();
        one.join().unwrap();
        (before, after)
    })
}

/// Blocks or unblocks SIGUSR2 for this thread; whether it was blocked before.
fn mask(how: libc::c_int, signal: libc::c_int) -> bool {
    let mut sets = [std::mem::MaybeUninit::<libc::sigset_t>::zeroed(); 2];
    let [new, old] = &mut sets;
    // SAFETY: a valid place for a set.
    unsafe { libc::sigemptyset(new.as_mut_ptr()) };
    if signal != 0 {
        // SAFETY: a set that was made empty above, and the number of a signal.
        unsafe { libc::sigaddset(new.as_mut_ptr(), signal) };
    }
    // SAFETY: a set to read and a place to write.
    unsafe { libc::pthread_sigmask(how, new.as_ptr(), old.as_mut_ptr()) };
    // SAFETY: the set was written by the call above.
    unsafe { libc::sigismember(old.as_ptr(), libc::SIGUSR2) == 1 }
}

#[test]
fn the_signal_mask_of_one_greenlet_is_that_of_the_next() {
    let (before, after) = seen_by_the_next(
        || _ = mask(libc::SIG_BLOCK, libc::SIGUSR2),
        || mask(libc::SIG_BLOCK, 0),
        || _ = mask(libc::SIG_UNBLOCK, libc::SIGUSR2),
    );
    assert_eq!((before, after), (false, true), "the mask is the thread's");
}

fn errno_place() -> *mut i32 {
    // SAFETY: it has no preconditions.
    unsafe { libc::__errno_location() }
}

fn errno() -> i32 {
    // SAFETY: a live variable of this thread.
    unsafe { errno_place().read() }
}

fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { errno_place().write(value) };
}

#[test]
fn the_errno_of_one_greenlet_is_that_of_the_next() {
    let seen = seen_by_the_next(|| set_errno(libc::EXDEV), errno, || set_errno(0));
    assert_eq!(seen.1, libc::EXDEV, "errno is the thread's");
    assert_ne!(seen.0, seen.1);
}

#[test]
fn greenlets_have_the_thread_pointer_of_their_thread() {
    let outside = thread_pointer();
    let (before, after) = seen_by_the_next(|| (), thread_pointer, || ());
    assert_eq!((before, after), (outside, outside));
}

/// Where the alternate signal stack is.
fn signal_stack() -> usize {
    let mut old = std::mem::MaybeUninit::<libc::stack_t>::zeroed();
    // SAFETY: a null new stack asks only.
    unsafe { libc::sigaltstack(ptr::null(), old.as_mut_ptr()) };
    // SAFETY: zeroed at first and filled in: both are valid for this C struct.
    unsafe { old.assume_init() }.ss_sp.addr()
}

#[test]
fn greenlets_share_the_signal_stack_of_their_thread() {
    let (before, after) = seen_by_the_next(|| (), signal_stack, || ());
    assert_ne!(before, 0);
    assert_eq!(before, after);
}

#[cfg(target_arch = "x86_64")]
mod here {
    use std::arch::asm;

    use super::{run, seen_by_the_next};

    fn mxcsr() -> u32 {
        let mut value = 0u32;
        // SAFETY: stores four bytes to a live variable.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
        value
    }

    fn set_mxcsr(value: u32) {
        // SAFETY: only ever the value that was there, with another direction of rounding: no
        // exception is unmasked, and the tests compute nothing with it.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly)) };
    }

    /// The direction of rounding: bits 13 and 14.
    const MXCSR_ROUNDING: u32 = 3 << 13;

    #[test]
    fn the_rounding_of_one_greenlet_is_that_of_the_next() {
        let (before, after) = seen_by_the_next(
            || set_mxcsr(mxcsr() | MXCSR_ROUNDING),
            || mxcsr() & MXCSR_ROUNDING,
            || set_mxcsr(mxcsr() & !MXCSR_ROUNDING),
        );
        assert_eq!((before, after), (0, MXCSR_ROUNDING), "MXCSR is not switched");
    }

    fn x87_control() -> u16 {
        let mut value = 0u16;
        // SAFETY: stores two bytes to a live variable.
        unsafe { asm!("fnstcw [{}]", in(reg) &raw mut value, options(nostack)) };
        value
    }

    fn set_x87_control(value: u16) {
        // SAFETY: as `set_mxcsr`: the value that was there, with another precision.
        unsafe { asm!("fldcw [{}]", in(reg) &raw const value, options(nostack, readonly)) };
    }

    /// The precision: bits 8 and 9, both set for 64 bits.
    const X87_PRECISION: u16 = 3 << 8;

    #[test]
    fn the_x87_precision_of_one_greenlet_is_that_of_the_next() {
        let (before, after) = seen_by_the_next(
            || set_x87_control(x87_control() & !X87_PRECISION),
            || x87_control() & X87_PRECISION,
            || set_x87_control(x87_control() | X87_PRECISION),
        );
        assert_eq!((before, after), (X87_PRECISION, 0), "the x87 control word is not switched");
    }

    pub(super) fn thread_pointer() -> usize {
        let value: usize;
        // SAFETY: the first word of the thread's block is its own address, by the ABI for
        // thread-local storage.
        unsafe {
            asm!("mov {}, fs:[0]", out(reg) value, options(nostack, readonly, preserves_flags))
        };
        value
    }

    /// The shadow stack pointer; 0 where there is none, for then the instruction does nothing.
    fn shadow_stack_pointer() -> u64 {
        let value: u64;
        // SAFETY: `rdsspq rax` reads a register; without shadow stacks it is a `nop`.
        unsafe {
            asm!("rdsspq rax", inlateout("rax") 0u64 => value, options(nostack, nomem));
        }
        value
    }

    #[test]
    fn no_shadow_stack_is_in_use_while_greenlets_run() {
        assert_eq!(run(shadow_stack_pointer), 0, "the first switch back would have faulted");
    }
}

#[cfg(target_arch = "aarch64")]
mod here {
    use std::arch::asm;

    use super::seen_by_the_next;

    fn fpcr() -> u64 {
        let value: u64;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, fpcr", out(reg) value, options(nostack, nomem)) };
        value
    }

    fn set_fpcr(value: u64) {
        // SAFETY: only ever the value that was there, with another direction of rounding: no
        // exception is unmasked, and the tests compute nothing with it.
        unsafe { asm!("msr fpcr, {}", in(reg) value, options(nostack, nomem)) };
    }

    /// The direction of rounding: bits 22 and 23.
    const FPCR_ROUNDING: u64 = 3 << 22;

    #[test]
    fn the_rounding_of_one_greenlet_is_that_of_the_next() {
        let (before, after) = seen_by_the_next(
            || set_fpcr(fpcr() | FPCR_ROUNDING),
            || fpcr() & FPCR_ROUNDING,
            || set_fpcr(fpcr() & !FPCR_ROUNDING),
        );
        assert_eq!((before, after), (0, FPCR_ROUNDING), "FPCR is not switched");
    }

    pub(super) fn thread_pointer() -> usize {
        let value: usize;
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) value, options(nostack, nomem)) };
        value
    }
}
