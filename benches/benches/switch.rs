//! Resume and suspend: into a coroutine and back, with no scheduler. The floor under every yield.
//!
//! `cargo bench --bench switch`
//!
//! Excluded: allocating a stack, starting and ending a coroutine. One coroutine: it and its
//! stack stay in the first-level cache. greenloop alone has no switch without its scheduler: its
//! figure is a `yield_now` between two greenlets, with the run queue and its share of the poller.
//!
//! Beside nanoseconds, the instructions of a pair, loop included, which are the same on a busy
//! machine: valgrind counts them (Debian: `apt install valgrind`).
#![expect(unsafe_code, reason = "the context crate and C's contexts have no safe calls")]

use std::cell::Cell;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::{Duration, Instant};

use context::stack::ProtectedFixedSizeStack;
use context::{Context, Transfer};
use corosensei::{Coroutine, CoroutineResult};
use generator::Gn;
use greenloop_benches::report::{self, Contender, Table, is_for_real};
use greenloop_benches::{instructions, os, runtimes};

const CONTENDERS: [Contender; 5] = [
    Contender { name: report::OURS, run: |yields| runtimes::greenloop::yield_now(2, yields) },
    Contender { name: "corosensei", run: corosensei },
    Contender { name: "context", run: context },
    Contender { name: "generator", run: generator },
    Contender { name: "swapcontext", run: swapcontext },
];

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    if instructions::is_counting(&CONTENDERS) {
        return;
    }
    report::measure_with("switch", &CONTENDERS);
    if is_for_real() {
        Table::contest("resume + suspend", &CONTENDERS, 2_000_000).print(&[]);
        instructions::print("resume + suspend", &CONTENDERS);
    }
}

/// Switches in and out of a corosensei coroutine, as greenloop does: nothing goes in or out.
fn corosensei(switches: u64) -> Duration {
    let mut coroutine = Coroutine::new(|yielder, ()| {
        while !black_box(false) {
            yielder.suspend(());
        }
    });
    let start = Instant::now();
    for _ in 0..switches {
        let result = coroutine.resume(());
        debug_assert!(matches!(result, CoroutineResult::Yield(())));
    }
    let time = start.elapsed();
    coroutine.force_unwind();
    time
}

/// Switches in and out of a bare Boost context.
fn context(switches: u64) -> Duration {
    extern "C" fn back_at_once(mut transfer: Transfer) -> ! {
        loop {
            // SAFETY: the context is the one that just resumed this one, and is resumed once.
            transfer = unsafe { transfer.context.resume(0) };
        }
    }
    let stack = ProtectedFixedSizeStack::default();
    // SAFETY: the stack outlives the context, which is abandoned at the end and owns nothing.
    let mut context = unsafe { Context::new(&stack, back_at_once) };
    let start = Instant::now();
    for _ in 0..switches {
        // SAFETY: this context was suspended by its own `resume` and is resumed once.
        context = unsafe { context.resume(0) }.context;
    }
    start.elapsed()
}

/// Switches in and out of a generator, as may does.
fn generator(switches: u64) -> Duration {
    let mut generator = Gn::<()>::new_scoped(|mut scope| {
        while !black_box(false) {
            scope.yield_(());
        }
        generator::done!()
    });
    let start = Instant::now();
    for _ in 0..switches {
        black_box(generator.resume());
    }
    start.elapsed()
}

/// Switches in and out of one of C's contexts, which are saved and restored with the signal mask:
/// two system calls a pair.
fn swapcontext(switches: u64) -> Duration {
    thread_local! {
        /// The resumer and the coroutine: `makecontext` hands over nothing but ints.
        static PAIR: Cell<[*mut libc::ucontext_t; 2]> = const { Cell::new([ptr::null_mut(); 2]) };
    }
    extern "C" fn back_at_once() {
        let [resumer, own] = PAIR.get();
        loop {
            // SAFETY: both outlive the coroutine, and the resumer was saved when it came here.
            unsafe { libc::swapcontext(own, resumer) };
        }
    }
    let mut stack = vec![0u8; 64 << 10];
    let [mut resumer, mut own] = [const { MaybeUninit::<libc::ucontext_t>::zeroed() }; 2];
    let (resumer, own) = (resumer.as_mut_ptr(), own.as_mut_ptr());
    PAIR.set([resumer, own]);
    // SAFETY: room for a context.
    unsafe { libc::getcontext(own) };
    let place =
        libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the context is ours, and nobody looks at it now.
    unsafe { (*own).uc_stack = place };
    // SAFETY: `getcontext` has filled it in, and its stack is mapped until this function returns.
    unsafe { libc::makecontext(own, back_at_once, 0) };
    let start = Instant::now();
    for _ in 0..switches {
        // SAFETY: the coroutine was made above or saved itself; it is abandoned at the end, and
        // owns nothing.
        unsafe { libc::swapcontext(resumer, own) };
    }
    start.elapsed()
}
