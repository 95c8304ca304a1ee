//! Virtual threads: giving way, and starting one that does nothing and waiting for it.
//!
//! `cargo bench --bench threads`
//!
//! As `yield` and `spawn` do for greenlets. std's threads start at most 100 at a time.

use greenloop_benches::os;
use greenloop_benches::report::{self, Contender, Limit, Table, is_for_real};
use greenloop_benches::runtimes::tokio::Drivers;
use greenloop_benches::runtimes::{threads, tokio};

/// Half of tokio's `yield_now`.
const YIELD_LIMITS: [Limit; 2] =
    [Limit { peer: "tokio", ratio: 0.5 }, Limit { peer: "tokio without drivers", ratio: 0.5 }];

/// As tokio's tasks, and a fiftieth of std's threads.
const SPAWN_LIMITS: [Limit; 2] =
    [Limit { peer: "tokio", ratio: 1.0 }, Limit { peer: "OS threads", ratio: 0.02 }];

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    yields::<2>();
    yields::<1_000>();
    spawns::<1>();
    spawns::<100>();
}

fn yields<const COUNT: usize>() {
    let contenders = [
        Contender { name: report::OURS, run: |yields| threads::yield_now(COUNT, yields) },
        Contender { name: "tokio", run: |yields| tokio::yield_now(Drivers::All, COUNT, yields) },
        Contender {
            name: "tokio without drivers",
            run: |yields| tokio::yield_now(Drivers::None, COUNT, yields),
        },
    ];
    report::measure_with(&format!("threads/yield/{COUNT}"), &contenders);
    if is_for_real() {
        let title = format!("yield_now, {COUNT} virtual threads");
        Table::contest(&title, &contenders, 200_000).print(&YIELD_LIMITS);
    }
}

fn spawns<const WIDTH: usize>() {
    let contenders = [
        Contender { name: report::OURS, run: |spawns| threads::spawn_and_join(WIDTH, spawns) },
        Contender {
            name: "tokio",
            run: |spawns| tokio::spawn_and_join(Drivers::All, WIDTH, spawns),
        },
        Contender { name: "OS threads", run: |spawns| threads::spawn_and_join_os(WIDTH, spawns) },
    ];
    report::measure_with(&format!("threads/spawn/{WIDTH}"), &contenders);
    if is_for_real() {
        let title = format!("spawn + join, {WIDTH} virtual threads at a time");
        Table::contest(&title, &contenders, 2_000).print(&SPAWN_LIMITS);
    }
}
