//! Servers beside one another: the processor time of each per request.
//!
//! # Contract
//! A round starts every server anew, one after the other, opens the connections, warms up, and
//! then reads the server's processor-time clock before and after the requests that count, both
//! times with nothing under way. So neither starting nor accepting is counted, and the luck of
//! one process (where its pages lie) is that of one round only. The order turns with every round
//! and is reversed in every other one, so that none always has the same neighbour.
//!
//! The one that the others are measured by runs twice in a round. How far it is from itself says
//! how much of any other ratio is noise.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::load::{Load, Talk};
use super::server::Server;
use super::{LOAD_CORE, strace};
use crate::os;
use crate::report::{Entry, Limit, Table};
use crate::stats::Median;

/// Servers that are to be compared, and how.
#[derive(Debug)]
pub struct Contest {
    /// By the name they have in tables, and the program that each is.
    pub servers: &'static [(&'static str, &'static str)],
    /// The name of the one that the others are measured by.
    pub base: &'static str,
    /// What is said to each.
    pub talk: fn() -> Talk,
    /// The limits for this many connections, each with the name of the server that must keep it.
    pub limits: fn(connections: usize) -> Vec<(&'static str, Limit)>,
}

/// What to measure, as the command line says it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What to compare.
    pub contest: &'static Contest,
    /// How many connections at once, one table for each.
    pub connections: Vec<usize>,
    /// Rounds; every server runs once in each.
    pub rounds: usize,
    /// Requests that count, in each run of a server.
    pub requests: u64,
    /// Which servers take part, by name; all when empty.
    pub servers: Vec<String>,
    /// Where to put every single figure.
    pub json: Option<PathBuf>,
    /// Count system calls instead of time.
    pub strace: bool,
}

impl Settings {
    /// Everything as usual.
    #[must_use]
    pub fn of(contest: &'static Contest) -> Self {
        Self {
            contest,
            connections: vec![100, 1_000],
            rounds: 21,
            requests: 30_000,
            servers: Vec::new(),
            json: None,
            strace: false,
        }
    }

    /// Reads the command line.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn parse(
        contest: &'static Contest,
        arguments: impl Iterator<Item = String>,
    ) -> io::Result<Self> {
        let mut settings = Self::of(contest);
        let mut arguments = arguments.peekable();
        while let Some(option) = arguments.next() {
            let wrong = |_| io::Error::other(format!("{option} takes a number"));
            let mut value = || {
                let value = arguments.next();
                value.ok_or_else(|| io::Error::other(format!("{option} takes a value")))
            };
            match option.as_str() {
                "--connections" => {
                    let counts = value()?;
                    settings.connections = counts
                        .split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>()
                        .map_err(wrong)?;
                }
                "--rounds" => settings.rounds = value()?.parse().map_err(wrong)?,
                "--requests" => settings.requests = value()?.parse().map_err(wrong)?,
                "--servers" => {
                    settings.servers = value()?.split(',').map(str::to_owned).collect();
                }
                "--json" => settings.json = Some(value()?.into()),
                "--strace" => settings.strace = true,
                other => return Err(io::Error::other(format!("unknown option {other}"))),
            }
        }
        if settings.rounds == 0 || settings.requests == 0 {
            return Err(io::Error::other("at least one round and one request"));
        }
        Ok(settings)
    }

    /// Returns the servers that take part.
    fn servers(&self) -> Vec<(&'static str, &'static str)> {
        let takes_part =
            |name: &str| self.servers.is_empty() || self.servers.iter().any(|s| s == name);
        self.contest.servers.iter().copied().filter(|(name, _)| takes_part(name)).collect()
    }
}

/// What one run of a server took for the requests that count.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Its processor time.
    cpu: Duration,
    /// Time on the wall.
    wall: Duration,
}

/// What one server took, round by round.
struct Runs {
    /// As it appears in tables.
    name: &'static str,
    /// The program that it is.
    program: &'static str,
    /// One for each round.
    rounds: Vec<Run>,
}

impl Runs {
    /// The processor time of each of `requests`, round by round.
    fn entry(&self, requests: u64) -> Entry {
        let per_request = |run: &Run| run.cpu.as_nanos() as f64 / requests as f64;
        Entry {
            name: self.name.to_owned(),
            rounds_ns: self.rounds.iter().map(per_request).collect(),
        }
    }
}

/// Does what `settings` say and prints tables; progress goes to standard error.
///
/// # Errors
/// When a server cannot be started, does not end, or does not reply what it should.
pub fn compare(settings: &Settings) -> io::Result<()> {
    os::raise_descriptor_limit()?;
    println!("{}", os::machine());
    if settings.strace {
        return strace::count_all(&settings.servers(), &(settings.contest.talk)());
    }
    os::pin_to_core(LOAD_CORE)?;
    let mut json = format!(
        "{{\"machine\": {:?}, \"requests\": {}, \"runs\": [",
        os::machine(),
        settings.requests,
    );
    for (index, &connections) in settings.connections.iter().enumerate() {
        let all = measure(settings, connections)?;
        print(settings, &all, connections);
        for (position, runs) in all.iter().enumerate() {
            json.push_str(if index + position == 0 { "\n" } else { ",\n" });
            push_json(&mut json, runs, connections);
        }
    }
    json.push_str("\n]}\n");
    settings.json.as_ref().map_or(Ok(()), |path| fs::write(path, json))
}

/// Returns what a request costs each server of `settings`, round by round, with that many
/// connections. The calling thread becomes the load's.
///
/// # Errors
/// As [`compare`].
pub fn entries(settings: &Settings, connections: usize) -> io::Result<Vec<Entry>> {
    os::raise_descriptor_limit()?;
    os::pin_to_core(LOAD_CORE)?;
    let all = measure(settings, connections)?;
    Ok(all.iter().map(|runs| runs.entry(settings.requests)).collect())
}

/// Runs every round with that many connections.
fn measure(settings: &Settings, connections: usize) -> io::Result<Vec<Runs>> {
    let mut all: Vec<Runs> = settings
        .servers()
        .into_iter()
        .map(|(name, program)| Runs { name, program, rounds: Vec::new() })
        .collect();
    for round in 0..settings.rounds {
        eprint!("\r{connections} connections: round {} of {} ", round + 1, settings.rounds);
        let mut order: Vec<usize> = (0..all.len()).collect();
        order.rotate_left(round % all.len().max(1));
        if round % 2 == 1 {
            order.reverse();
        }
        for index in order {
            let run = measure_once(settings, all[index].program, connections)?;
            all[index].rounds.push(run);
        }
    }
    eprintln!();
    Ok(all)
}

/// Starts a server, warms it up, and measures it.
fn measure_once(settings: &Settings, program: &str, connections: usize) -> io::Result<Run> {
    let requests = settings.requests;
    let server = Server::start(program, &[])?;
    let mut load = Load::connect(server.address(), connections, &(settings.contest.talk)())?;
    // Every connection has been served several times before it counts.
    load.run((requests / 10).max(4 * connections as u64))?;
    let before = server.cpu()?;
    let wall = load.run(requests)?;
    let cpu = server.cpu()? - before;
    drop(load);
    server.stop()?;
    Ok(Run { cpu, wall })
}

/// Prints one table, and how the limits are kept.
fn print(settings: &Settings, all: &[Runs], connections: usize) {
    let (requests, base) = (settings.requests, settings.contest.base);
    let table = Table {
        title: format!("{connections} connections"),
        entries: all.iter().map(|runs| runs.entry(requests)).collect(),
    };
    println!(
        "\n| {connections} connections | CPU ns per request | 95 % interval | of {base} | \
         95 % interval | core busy | requests/s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (runs, entry) in all.iter().zip(&table.entries) {
        let cpu = Median::of(&entry.rounds_ns);
        let busy: Vec<f64> =
            runs.rounds.iter().map(|run| run.cpu.div_duration_f64(run.wall)).collect();
        let rate: Vec<f64> =
            runs.rounds.iter().map(|run| requests as f64 / run.wall.as_secs_f64()).collect();
        let ratio = table.ratio(&entry.name, base).filter(|_| entry.name != base).map_or_else(
            || "– | –".to_owned(),
            |ratio| format!("{:.3} | {:.3} to {:.3}", ratio.value, ratio.low, ratio.high),
        );
        println!(
            "| {} | {:.0} | {:.0} to {:.0} | {ratio} | {:.0} % | {:.0} |",
            entry.name,
            cpu.value,
            cpu.low,
            cpu.high,
            100.0 * Median::of(&busy).value,
            Median::of(&rate).value,
        );
    }
    println!();
    for (name, limit) in (settings.contest.limits)(connections) {
        table.print_verdicts_of(name, &[limit]);
    }
}

/// Adds one server's rounds as a JSON object.
fn push_json(json: &mut String, runs: &Runs, connections: usize) {
    let list = |time: fn(&Run) -> Duration| {
        let all: Vec<String> =
            runs.rounds.iter().map(|run| time(run).as_nanos().to_string()).collect();
        all.join(", ")
    };
    write!(
        json,
        "{{\"server\": {:?}, \"connections\": {connections}, \"cpu_ns\": [{}], \"wall_ns\": [{}]}}",
        runs.name,
        list(|run| run.cpu),
        list(|run| run.wall),
    )
    .expect("a string takes everything");
}
