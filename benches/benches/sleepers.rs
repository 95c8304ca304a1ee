//! 100,000 green threads that sleep 0 to 100 ms at once: the processor time of each.
//!
//! `cargo bench --bench sleepers`
//!
//! Processor time of the whole process (`CLOCK_PROCESS_CPUTIME_ID`), so a runtime gains nothing by
//! a second thread, and waiting costs nothing. Included: starting each green thread, its sleep,
//! joining it. Excluded: starting the runtime. `cold` is the first time, with every stack and
//! timer to be allocated and touched; `warm` is the same again in the same runtime.
//!
//! Each measurement is a process of its own, so that none inherits the heap or the threads of
//! another. may has 20,000 sleepers: each of its stacks is two mappings, and the kernel's
//! `vm.max_map_count` ends 100,000 of them. Its figure is still for one sleeper.

use std::env;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use greenloop_benches::os;
use greenloop_benches::report::{Entry, Limit, ROUNDS, Table, is_for_real};
use greenloop_benches::runtimes::{greenloop, may, naps, tokio};

/// A third of tokio.
const LIMITS: [Limit; 1] = [Limit { peer: "tokio", ratio: 1.0 / 3.0 }];

/// Who sleeps, and how many at once.
const CONTENDERS: [(&str, usize); 3] =
    [("greenloop", 100_000), ("tokio", 100_000), ("may", 20_000)];

/// Sleeps differ by multiples of this. tokio's timer is as coarse as the second; with the first
/// nearly every sleeper has a deadline of its own.
const GRAINS: [(&str, Duration); 2] = [
    ("any microsecond", Duration::from_micros(1)),
    ("whole milliseconds", Duration::from_millis(1)),
];

/// The longest sleep.
const LONGEST: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    os::pin_to_core(0).expect("core 0 is ours");
    if let Some(position) = env::args().position(|argument| argument == "--one") {
        let words: Vec<String> = env::args().skip(position + 1).collect();
        return measure_here(&words);
    }
    println!("{}", os::machine());
    let rounds = if is_for_real() { ROUNDS } else { 1 };
    for (grain_name, grain) in GRAINS {
        let mut tables = ["cold", "warm"].map(|state| Table {
            title: format!("sleeper, {grain_name}, {state}"),
            entries: CONTENDERS
                .iter()
                .map(|(name, _)| Entry { name: (*name).to_owned(), rounds_ns: Vec::new() })
                .collect(),
        });
        for round in 0..rounds {
            eprint!("\r{grain_name}: round {} of {rounds} ", round + 1);
            for turn in 0..CONTENDERS.len() {
                let index = (round + turn) % CONTENDERS.len();
                let (name, count) = CONTENDERS[index];
                let costs = measure_elsewhere(name, count, grain);
                for (table, cost) in tables.iter_mut().zip(costs) {
                    table.entries[index].rounds_ns.push(cost / count as f64);
                }
            }
        }
        eprintln!();
        tables.iter().for_each(|table| table.print(&LIMITS));
    }
    ExitCode::SUCCESS
}

/// Runs this program again for one contender and returns what it says: the processor time of all
/// sleepers in nanoseconds, cold and warm.
fn measure_elsewhere(name: &str, count: usize, grain: Duration) -> [f64; 2] {
    let output = Command::new(env::current_exe().expect("this program has a path"))
        .args(["--one", name, &count.to_string(), &grain.as_micros().to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts again");
    assert!(output.status.success(), "{name} with {count} sleepers: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text.split_whitespace().map(|word| word.parse().expect("a number"));
    [(); 2].map(|()| figures.next().expect("two numbers"))
}

/// Measures the contender, count and grain that `words` name, and prints two figures.
fn measure_here(words: &[String]) -> ExitCode {
    let [name, count, grain_us] = words else {
        return ExitCode::FAILURE;
    };
    let (Ok(count), Ok(grain_us)) = (count.parse(), grain_us.parse()) else {
        return ExitCode::FAILURE;
    };
    let naps = naps(count, LONGEST, Duration::from_micros(grain_us));
    let costs = match name.as_str() {
        "greenloop" => greenloop::sleepers(naps),
        "tokio" => tokio::sleepers(&naps),
        "may" => may::sleepers(naps),
        _ => return ExitCode::FAILURE,
    };
    println!("{} {}", costs[0].as_nanos(), costs[1].as_nanos());
    ExitCode::SUCCESS
}
