//! Figures set beside one another: rounds in which every contender runs once, then medians,
//! ratios and the limits that they are held to.
//!
//! A machine drifts: clocks, neighbours, page placement. So the contenders take turns within each
//! round, and a ratio is taken within a round, between neighbours in time, and never between two
//! medians that were measured minutes apart.

use std::fmt;
use std::time::Duration;

use criterion::Criterion;

use crate::stats::Median;

/// Rounds of an interleaved contest: enough for an interval that leaves out a sample at each end.
pub const ROUNDS: usize = 15;

/// The name of the contender that the limits are about.
pub const OURS: &str = "greenloop";

/// Something to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// As it appears in tables.
    pub name: &'static str,
    /// Does the operation as often as it is told and returns the time that took.
    pub run: fn(operations: u64) -> Duration,
}

/// At most how many times the cost of `peer` ours may be.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// The contender ours is compared with.
    pub peer: &'static str,
    /// The largest ratio allowed.
    pub ratio: f64,
}

/// What one contender cost, in nanoseconds an operation, round by round.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it appears in tables.
    pub name: String,
    /// One figure for each round; every entry of a table has as many.
    pub rounds_ns: Vec<f64>,
}

/// What several contenders cost in the same rounds.
#[derive(Clone, Debug)]
pub struct Table {
    /// What was done and counted.
    pub title: String,
    /// In the order they are printed.
    pub entries: Vec<Entry>,
}

impl Table {
    /// Runs `contenders` in turn, [`ROUNDS`] times, each for `operations`.
    ///
    /// The order turns by one with every round, so that none always follows the same neighbour.
    #[must_use]
    pub fn contest(title: &str, contenders: &[Contender], operations: u64) -> Self {
        let mut entries: Vec<Entry> = contenders
            .iter()
            .map(|contender| Entry { name: contender.name.to_owned(), rounds_ns: Vec::new() })
            .collect();
        for contender in contenders {
            (contender.run)(operations / 10 + 1);
        }
        for round in 0..ROUNDS {
            for turn in 0..contenders.len() {
                let index = (round + turn) % contenders.len();
                let time = (contenders[index].run)(operations);
                entries[index].rounds_ns.push(time.as_nanos() as f64 / operations as f64);
            }
        }
        Self { title: title.to_owned(), entries }
    }

    /// Returns the ratio of `ours` to `peer`, taken round by round, if both are in the table.
    #[must_use]
    pub fn ratio(&self, ours: &str, peer: &str) -> Option<Median> {
        let rounds_of = |name: &str| Some(&self.entries.iter().find(|e| e.name == name)?.rounds_ns);
        let ratios: Vec<f64> =
            rounds_of(ours)?.iter().zip(rounds_of(peer)?).map(|(a, b)| a / b).collect();
        (!ratios.is_empty()).then(|| Median::of(&ratios))
    }

    /// Prints the table, and how it keeps the limits.
    pub fn print(&self, limits: &[Limit]) {
        println!("\n{self}");
        self.print_verdicts(limits);
    }

    /// Prints for each limit the ratio that it is about.
    pub fn print_verdicts(&self, limits: &[Limit]) {
        self.print_verdicts_of(OURS, limits);
    }

    /// The same for limits of another contender than [`OURS`].
    pub fn print_verdicts_of(&self, ours: &str, limits: &[Limit]) {
        for limit in limits {
            let Some(ratio) = self.ratio(ours, limit.peer) else {
                continue;
            };
            let verdict = if ratio.value <= limit.ratio { "within" } else { "OVER" };
            println!(
                "{ours} / {}: {:.3} ({:.3} to {:.3}), limit {:.3}: {verdict}",
                limit.peer, ratio.value, ratio.low, ratio.high, limit.ratio
            );
        }
    }

    /// Returns what `ours` costs above `peer`, in nanoseconds, taken round by round, if both are in
    /// the table.
    #[must_use]
    pub fn difference_ns(&self, ours: &str, peer: &str) -> Option<Median> {
        let rounds_of = |name: &str| Some(&self.entries.iter().find(|e| e.name == name)?.rounds_ns);
        let differences: Vec<f64> =
            rounds_of(ours)?.iter().zip(rounds_of(peer)?).map(|(a, b)| a - b).collect();
        (!differences.is_empty()).then(|| Median::of(&differences))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| {} | ns, median | 95 % interval | {OURS} / it |", self.title)?;
        writeln!(f, "|---|---|---|---|")?;
        for entry in &self.entries {
            let Median { value, low, high } = Median::of(&entry.rounds_ns);
            let ratio = self
                .ratio(OURS, &entry.name)
                .filter(|_| entry.name != OURS)
                .map_or_else(|| "–".to_owned(), |ratio| format!("{:.3}", ratio.value));
            writeln!(f, "| {} | {value:.1} | {low:.1} to {high:.1} | {ratio} |", entry.name)?;
        }
        Ok(())
    }
}

/// Measures each of `contenders` with criterion, which also tells what changed since last time.
///
/// # Panics
/// When criterion cannot make sense of the command line.
pub fn measure_with(group: &str, contenders: &[Contender]) {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    let mut group = criterion.benchmark_group(group);
    for contender in contenders {
        group.bench_function(contender.name, |bencher| bencher.iter_custom(contender.run));
    }
    group.finish();
    criterion.final_summary();
}

/// Whether `cargo bench` started this program: it then says `--bench`. `cargo test --benches`
/// does not, and wants to know only that nothing breaks.
#[must_use]
pub fn is_for_real() -> bool {
    std::env::args().any(|argument| argument == "--bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let entry = |name: &str, rounds_ns: &[f64]| Entry {
            name: name.to_owned(),
            rounds_ns: rounds_ns.to_vec(),
        };
        // The machine became ten times slower in the last round, and the ratio does not notice.
        let table = Table {
            title: String::new(),
            entries: vec![entry(OURS, &[1.0, 1.0, 10.0]), entry("peer", &[2.0, 2.0, 20.0])],
        };
        assert_eq!(table.ratio(OURS, "peer"), Some(Median { value: 0.5, low: 0.5, high: 0.5 }));
    }

    #[test]
    fn a_difference_is_taken_within_a_round() {
        let entry = |name: &str, rounds_ns: &[f64]| Entry {
            name: name.to_owned(),
            rounds_ns: rounds_ns.to_vec(),
        };
        // The machine drifts by 10, and the difference does not notice.
        let table = Table {
            title: String::new(),
            entries: vec![entry(OURS, &[5.0, 12.0, 15.0]), entry("peer", &[3.0, 10.0, 13.0])],
        };
        let two = Median { value: 2.0, low: 2.0, high: 2.0 };
        assert_eq!(table.difference_ns(OURS, "peer"), Some(two));
    }
}
