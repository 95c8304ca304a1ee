//! What `asm-notes/x86_64.md` says of our own layer's cost, which only this floor can see.
//!
//! Instructions are counted by the processor: with the trap flag set, it raises SIGTRAP after each
//! instruction. So they are what really ran, wherever the compiler has put it.

#![expect(unsafe_code, reason = "the trap flag, and a signal handler that counts")]
//! # Safety
//!
//! The handler adds one to an atomic, on the alternate signal stack. The flag is set in one thread
//! and cleared again before anything else happens.

use std::{
    arch::asm,
    io::Write as _,
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicUsize, Ordering},
};

use corosensei::{Coroutine as Switch, Yielder};

use super::{Coroutine, Stack, coroutine, pool, take};

/// What our layer may add to a pair: six instructions, and more where nothing is optimised.
const OURS_MAX: usize = if cfg!(debug_assertions) { 24 } else { 6 };

static STEPS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_step(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// How many instructions this thread executes for `f`, and a few more.
fn steps(f: impl FnOnce()) -> usize {
    let before = STEPS.load(Ordering::Relaxed);
    // SAFETY: sets a flag, for whose consequence the caller installed a handler; the stack is
    // balanced.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
    f();
    // SAFETY: clears it again.
    unsafe { asm!("pushfq", "and qword ptr [rsp], -0x101", "popfq") };
    STEPS.load(Ordering::Relaxed) - before
}

/// Instructions for each of the rounds that `f` is asked for: a quarter of what four more cost.
fn steps_a_round(mut f: impl FnMut(usize)) -> usize {
    let few = steps(|| f(2));
    (steps(|| f(6)) - few) / 4
}

#[inline(never)]
fn bare_rounds(switch: &mut Switch<(), (), (), Stack>, rounds: usize) {
    for _ in 0..rounds {
        switch.resume(());
    }
}

#[inline(never)]
fn our_rounds(coroutine: &mut Coroutine, rounds: usize) {
    for _ in 0..rounds {
        coroutine.resume();
    }
}

/// The claim of `x86_64.md`: our layer adds six instructions at most to what corosensei executes.
#[test]
fn a_resume_and_suspend_of_ours_cost_what_those_of_corosensei_cost() {
    // SAFETY: all-zero is a valid `sigaction` of C.
    let mut action = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    let handler: extern "C" fn(_, _, _) = on_step;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: `on_step` has the signature that SA_SIGINFO asks for, and is async-signal-safe.
    unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };

    let mut pool = pool();
    let mut bare = Switch::with_stack(take(&mut pool), |yielder: &Yielder<(), ()>, ()| {
        loop {
            yielder.suspend(());
        }
    });
    let mut ours = coroutine(&mut pool, |suspender| {
        loop {
            suspender.suspend();
        }
    });
    bare_rounds(&mut bare, 1);
    our_rounds(&mut ours, 1);
    let bare_each = steps_a_round(|rounds| bare_rounds(&mut bare, rounds));
    let ours_each = steps_a_round(|rounds| our_rounds(&mut ours, rounds));
    std::mem::forget((bare, ours, pool)); // both are suspended for ever
    if bare_each < 16 {
        let text = "SKIPPED: this machine does not trap after each instruction";
        let _ = writeln!(std::io::stderr(), "{text}");
        return;
    }
    println!("executed for a pair, loops included: {bare_each} bare, {ours_each} ours");
    assert!(ours_each <= bare_each + OURS_MAX, "{ours_each} ours, {bare_each} bare");
}
