//! Locks, events and channels, beside tokio's, may's and std's.
//!
//! `cargo bench --bench sync`
//!
//! Excluded: starting the runtimes and the green threads, ending them. What each operation is
//! stands in `src/sync/mod.rs`. The cooperative budgets, tokio's and ours, both of 128 operations,
//! are spent inside.

use greenloop_benches::os;
use greenloop_benches::report::{Contender, Limit, OURS, Table, is_for_real, measure_with};
use greenloop_benches::runtimes::tokio::Drivers;
use greenloop_benches::stats::Median;
use greenloop_benches::sync::{greenloop, may, std, tokio};

/// What there and back between two greenlets may cost, in nanoseconds.
const ROUND_TRIP_NS_MAX: f64 = 80.0;

/// A job of tokio's, with and without its drivers.
macro_rules! tokios {
    ($job:ident) => {
        [
            Contender { name: "tokio", run: |count| tokio::$job(Drivers::All, count) },
            Contender {
                name: "tokio without drivers",
                run: |count| tokio::$job(Drivers::None, count),
            },
        ]
    };
}

/// A contender with one way to do it.
fn plain(name: &'static str, run: fn(u64) -> ::std::time::Duration) -> Contender {
    Contender { name, run }
}

/// Measures `contenders`, and holds ours to `ratio` of each of `peers`.
fn contest(
    title: &str,
    operations: u64,
    contenders: &[Contender],
    ratio: f64,
    peers: &[&'static str],
) -> Option<Table> {
    measure_with(&format!("sync/{title}"), contenders);
    let limits: Vec<Limit> = peers.iter().map(|&peer| Limit { peer, ratio }).collect();
    is_for_real().then(|| {
        let table = Table::contest(title, contenders, operations);
        table.print(&limits);
        table
    })
}

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    let [tokio, tokio_without] = tokios!(round_trips);
    let trips =
        [plain(OURS, greenloop::round_trips), tokio, tokio_without, plain("may", may::round_trips)];
    let table = contest(
        "there and back",
        300_000,
        &trips,
        0.25,
        &["tokio", "tokio without drivers", "may"],
    );
    if let Some(table) = table {
        let Median { value, low, high } = Median::of(&table.entries[0].rounds_ns);
        let verdict = if value <= ROUND_TRIP_NS_MAX { "within" } else { "OVER" };
        println!(
            "there and back: {value:.1} ns ({low:.1} to {high:.1}), limit {ROUND_TRIP_NS_MAX:.0}: \
             {verdict}"
        );
    }
    let [tokio, tokio_without] = tokios!(stream);
    let streams = [plain(OURS, greenloop::stream), tokio, tokio_without];
    contest("an item of a stream", 1_000_000, &streams, 0.5, &["tokio", "tokio without drivers"]);
    let locks = [
        plain(OURS, greenloop::uncontended),
        plain("std", std::uncontended),
        plain("tokio", tokio::uncontended),
        plain("may", may::uncontended),
    ];
    contest("a lock", 3_000_000, &locks, 1.0, &["std"]);
    let [tokio, tokio_without] = tokios!(hand_overs);
    let overs = [plain(OURS, greenloop::hand_overs), tokio, tokio_without];
    contest("a hand-over", 500_000, &overs, 0.2, &["tokio", "tokio without drivers"]);
    let [tokio, tokio_without] = tokios!(wakes);
    let wakes = [plain(OURS, greenloop::wakes), tokio, tokio_without];
    contest("a wake of 1,000", 500_000, &wakes, 0.5, &["tokio", "tokio without drivers"]);
    let trips = [
        plain(OURS, greenloop::round_trips_between_threads),
        plain("tokio", tokio::round_trips_between_threads),
    ];
    contest("there and back between threads", 20_000, &trips, 1.0, &["tokio"]);
    let streams = [
        plain(OURS, greenloop::stream_between_threads),
        plain("tokio", tokio::stream_between_threads),
    ];
    contest("an item of a stream between threads", 300_000, &streams, 1.0, &["tokio"]);
}
