//! Resume and suspend: into a coroutine and back, with no scheduler. The floor under every yield.
//!
//! `cargo bench --bench switch`
//!
//! Excluded: allocating a stack, starting and ending a coroutine. One coroutine: it and its
//! stack stay in the first-level cache.
#![expect(unsafe_code, reason = "the context crate has no safe calls")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use context::stack::ProtectedFixedSizeStack;
use context::{Context, Transfer};
use corosensei::{Coroutine, CoroutineResult};
use generator::Gn;
use greenloop_benches::os;
use greenloop_benches::report::{self, Contender, Table, is_for_real};

/// Baselines only: greenloop's own switch has no name outside its crate, and is corosensei's.
const CONTENDERS: [Contender; 3] = [
    Contender { name: "corosensei", run: corosensei },
    Contender { name: "context", run: context },
    Contender { name: "generator", run: generator },
];

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    report::measure_with("switch", &CONTENDERS);
    if is_for_real() {
        Table::contest("resume + suspend", &CONTENDERS, 2_000_000).print(&[]);
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
