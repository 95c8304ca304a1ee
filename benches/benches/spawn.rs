//! Starting a green thread that does nothing, and waiting for it.
//!
//! `cargo bench --bench spawn`
//!
//! One at a time, and 1,000 started before the first is waited for. Excluded: starting the
//! runtime, and the first batch, which allocates the stacks or tasks that the others reuse.

use greenloop_benches::os;
use greenloop_benches::report::{self, Contender, Limit, Table, is_for_real};
use greenloop_benches::runtimes::tokio::Drivers;
use greenloop_benches::runtimes::{greenloop, may, tokio};

/// A quarter of tokio, with and without its drivers.
const LIMITS: [Limit; 2] =
    [Limit { peer: "tokio", ratio: 0.25 }, Limit { peer: "tokio without drivers", ratio: 0.25 }];

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    bench::<1>();
    bench::<1_000>();
}

/// Measures with that many started at a time.
fn bench<const WIDTH: usize>() {
    let contenders = [
        Contender { name: "greenloop", run: |spawns| greenloop::spawn_and_join(WIDTH, spawns) },
        Contender {
            name: "tokio",
            run: |spawns| tokio::spawn_and_join(Drivers::All, WIDTH, spawns),
        },
        Contender {
            name: "tokio without drivers",
            run: |spawns| tokio::spawn_and_join(Drivers::None, WIDTH, spawns),
        },
        Contender { name: "may", run: |spawns| may::spawn_and_join(WIDTH, spawns) },
    ];
    report::measure_with(&format!("spawn/{WIDTH}"), &contenders);
    if is_for_real() {
        let title = format!("spawn + join, {WIDTH} at a time");
        Table::contest(&title, &contenders, 100_000).print(&LIMITS);
    }
}
