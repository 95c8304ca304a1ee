//! The system calls of each echo server per request, exactly.
//!
//! `strace -c` counts a whole life. Two lives that differ in nothing but the number of requests
//! are subtracted, so that starting, accepting and ending fall out.
//!
//! The requests come in waves, one on each connection, and between two waves the server has time
//! to fall asleep: strace makes it so slow that otherwise the next request would always be there
//! when it looks. With one connection the count is exact. With more, a wait is shared by the
//! requests that came meanwhile, and how many that are is a matter of timing; receives and sends
//! are exact still.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io;
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::Duration;

use super::load::{Load, Talk};
use super::server::Server;
use crate::report::OURS;

/// Connections, and the requests of the shorter and the longer life.
const PLANS: [(usize, [u64; 2]); 2] = [(1, [200, 2_200]), (100, [1_000, 11_000])];

/// Between two waves. A call that strace watches takes some ten microseconds.
const PAUSE: Duration = Duration::from_micros(500);

/// Fewer calls per request than this are none: a timer's tick, once in the longer life.
const NEGLIGIBLE: f64 = 0.001;

/// System calls that do the same work under several names.
const KINDS: [(&str, &[&str]); 3] = [
    ("wait", &["epoll_wait", "epoll_pwait", "epoll_pwait2"]),
    ("receive", &["recvfrom", "recvmsg", "read", "readv"]),
    ("send", &["sendto", "sendmsg", "write", "writev"]),
];

/// Calls per request, by kind or by name.
type Calls = BTreeMap<String, f64>;

/// Counts for each of `servers`, pairs of a name and a program, while `talk` is said to it, and
/// prints a table for each number of connections.
///
/// # Errors
/// When a server cannot be started, or does not reply what it should.
pub fn count_all(servers: &[(&str, &str)], talk: &Talk) -> io::Result<()> {
    let version = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        println!("\nstrace is not installed: no system calls were counted");
        return Ok(());
    }
    for (connections, lives) in PLANS {
        let mut columns: Vec<(&str, Calls)> = Vec::new();
        for &(name, program) in servers.iter().filter(|(name, _)| *name != "bare again") {
            eprint!("\rstrace, {connections} connection(s): {name:<12}");
            columns.push((name, per_request(program, connections, lives, talk)?));
        }
        eprintln!();
        print(connections, &columns);
    }
    Ok(())
}

/// Returns how often `program` makes each call for one request.
fn per_request(
    program: &str,
    connections: usize,
    lives: [u64; 2],
    talk: &Talk,
) -> io::Result<Calls> {
    let shorter = count(program, connections, lives[0], talk)?;
    let mut calls = Calls::new();
    for (name, longer) in count(program, connections, lives[1], talk)? {
        let more = longer as f64 - *shorter.get(&name).unwrap_or(&0) as f64;
        let kind = KINDS.iter().find(|(_, names)| names.contains(&name.as_str()));
        let name = kind.map_or(name, |(kind, _)| (*kind).to_owned());
        *calls.entry(name).or_default() += more / (lives[1] - lives[0]) as f64;
    }
    calls.retain(|_, count| count.abs() >= NEGLIGIBLE);
    Ok(calls)
}

/// Runs `program` under strace for `requests` and returns how often it made each call.
fn count(
    program: &str,
    connections: usize,
    requests: u64,
    talk: &Talk,
) -> io::Result<BTreeMap<String, u64>> {
    let path = env::temp_dir().join(format!("greenloop-strace-{}.txt", process::id()));
    let wrapper = ["strace", "-f", "-c", "-o", &path.to_string_lossy()].map(str::to_owned);
    let server = Server::start(program, &wrapper)?;
    let mut load = Load::connect(server.address(), connections, talk)?;
    for _ in 0..requests / connections as u64 {
        thread::sleep(PAUSE);
        load.run(connections as u64)?;
    }
    server.stop()?;
    let text = fs::read_to_string(&path)?;
    fs::remove_file(&path)?;
    Ok(parse(&text))
}

/// Reads the summary of `strace -c`: `% time, seconds, usecs/call, calls, [errors,] syscall`.
fn parse(summary: &str) -> BTreeMap<String, u64> {
    summary
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, calls) = (words.last()?, words.get(3)?.parse().ok()?);
            (*name != "total").then(|| ((*name).to_owned(), calls))
        })
        .collect()
}

/// Prints one table, and whether ours makes the bare loop's calls.
fn print(connections: usize, columns: &[(&str, Calls)]) {
    print!("\n| calls per request, {connections} connection(s) |");
    columns.iter().for_each(|(name, _)| print!(" {name} |"));
    println!("\n|---|{}", "---|".repeat(columns.len()));
    let rows: BTreeSet<&String> = columns.iter().flat_map(|(_, calls)| calls.keys()).collect();
    for row in rows {
        print!("| {row} |");
        for (_, calls) in columns {
            print!(" {:.3} |", calls.get(row).unwrap_or(&0.0));
        }
        println!();
    }
    print!("| all |");
    columns.iter().for_each(|(_, calls)| print!(" {:.3} |", calls.values().sum::<f64>()));
    println!();
    let of = |wanted: &str| Some(&columns.iter().find(|(name, _)| *name == wanted)?.1);
    if let (Some(ours), Some(bare)) = (of(OURS), of("bare")) {
        let differs = |row: &&String| {
            let count = |calls: &Calls| calls.get(*row).copied().unwrap_or_default();
            let timed = connections > 1 && *row == "wait";
            !timed && (count(ours) - count(bare)).abs() >= 2.0 * NEGLIGIBLE
        };
        let different: Vec<&String> = ours.keys().chain(bare.keys()).filter(differs).collect();
        if different.is_empty() {
            println!("\n{OURS} makes the calls of the bare loop");
        } else {
            println!("\n{OURS} differs from the bare loop in {different:?}: OVER");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_read_with_and_without_errors() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 53.57    0.000015           5         3         1 recvfrom
 46.43    0.000013           6         2           sendto
------ ----------- ----------- --------- --------- ----------------
100.00    0.000028           5         5         1 total
";
        let expected = [("recvfrom".to_owned(), 3), ("sendto".to_owned(), 2)];
        assert_eq!(parse(summary), BTreeMap::from(expected));
    }
}
