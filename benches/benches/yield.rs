//! Giving way: `yield_now` with 2 and with 1,000 green threads that do nothing else.
//!
//! `cargo bench --bench yield`
//!
//! Excluded: starting the runtime, starting the green threads (each has yielded once before the
//! clock starts), ending them. Included: whatever the runtime does between turns, such as looking
//! at its poller now and then.

use greenloop_benches::os;
use greenloop_benches::report::{self, Contender, Limit, Table, is_for_real};
use greenloop_benches::runtimes::tokio::Drivers;
use greenloop_benches::runtimes::{greenloop, may, tokio};

/// A fifth of any peer.
const LIMITS: [Limit; 3] = [
    Limit { peer: "tokio", ratio: 0.2 },
    Limit { peer: "tokio without drivers", ratio: 0.2 },
    Limit { peer: "may", ratio: 0.2 },
];

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    bench::<2>();
    bench::<1_000>();
}

/// Measures with that many green threads.
fn bench<const COUNT: usize>() {
    let contenders = [
        Contender { name: "greenloop", run: |yields| greenloop::yield_now(COUNT, yields) },
        Contender { name: "tokio", run: |yields| tokio::yield_now(Drivers::All, COUNT, yields) },
        Contender {
            name: "tokio without drivers",
            run: |yields| tokio::yield_now(Drivers::None, COUNT, yields),
        },
        Contender { name: "may", run: |yields| may::yield_now(COUNT, yields) },
    ];
    report::measure_with(&format!("yield/{COUNT}"), &contenders);
    if is_for_real() {
        Table::contest(&format!("yield_now, {COUNT}"), &contenders, 500_000).print(&LIMITS);
    }
}
