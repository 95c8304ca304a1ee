//! What a parked greenlet costs: starts N of them, lets all wait for one pipe, measures, closes the
//! pipe, and lets all end.
//!
//! Run:    `cargo run --release --example parked -- 1000000`
//! Poke:   a million reserve 256 GiB of address space and use 5 GiB of memory, with the default
//!         `vm.max_map_count`. Before Linux 6.13, about 32,000 are the limit.
//! Prints: progress on standard error; as its last line, on standard output, one JSON object:
//!
//! ```text
//! {"greenlets":1000000,"spawn_ns_each":4215,"rss_kib_each":4.291,"page_tables_kib_each":0.502,
//!  "mappings":37,"finish_ns_each":422}                                           (in one line)
//! ```
//!
//! `spawn_ns_each` is from the call of `spawn` until it is parked: nearly all of it is the
//! kernel's, for one fresh page. `finish_ns_each` is from the wake to the end. `mappings` are the
//! whole process's.

use std::{cell::Cell, env, fs, io, os::fd::AsFd, process::ExitCode, rc::Rc, time::Instant};

use greenloop::{Builder, Deadline, wait_readable, yield_now};

fn main() -> ExitCode {
    let count = env::args().nth(1).and_then(|count| count.parse::<usize>().ok());
    let Some(count) = count.filter(|count| *count > 0 && env::args().len() == 2) else {
        eprintln!("usage: parked N    starts N greenlets, N at least 1: parked 100000");
        return ExitCode::from(2);
    };
    match greenloop::run(|| measure(count)) {
        Ok(json) => println!("{json}"),
        Err(error) => {
            eprintln!("parked: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Parks and frees `count` greenlets; returns the line of JSON.
pub(crate) fn measure(count: usize) -> io::Result<String> {
    let (reader, writer) = io::pipe()?;
    let (reader, parked) = (Rc::new(reader), Rc::new(Cell::new(0)));
    let (rss_before, tables_before) = (status("VmRSS")?, status("VmPTE")?);

    eprintln!("starting {count} greenlets ...");
    let begun = Instant::now();
    for _ in 0..count {
        let (reader, parked) = (Rc::clone(&reader), Rc::clone(&parked));
        let greenlet = Builder::new().spawn(move || {
            parked.set(parked.get() + 1);
            let woken = wait_readable(reader.as_fd(), Deadline::NEVER); // here it waits
            parked.set(parked.get() - 1);
            woken
        })?;
        drop(greenlet); // Nobody joins it: the counter says when all have ended.
    }
    while parked.get() < count {
        yield_now();
    }
    let spawn_ns = begun.elapsed().as_nanos();
    let rss = status("VmRSS")?.saturating_sub(rss_before);
    let tables = status("VmPTE")?.saturating_sub(tables_before);
    let mappings = fs::read_to_string("/proc/self/maps")?.lines().count();

    eprintln!("all are parked; waking them ...");
    let begun = Instant::now();
    drop(writer); // The one event that all wait for: the end of the pipe.
    while parked.get() > 0 {
        yield_now();
    }
    let finish_ns = begun.elapsed().as_nanos();
    eprintln!("all have ended");

    let each = |total: u128| total / count as u128;
    let kib_each = |total: u64| total as f64 / count as f64;
    Ok(format!(
        "{{\"greenlets\":{count},\"spawn_ns_each\":{},\"rss_kib_each\":{:.3},\
         \"page_tables_kib_each\":{:.3},\"mappings\":{mappings},\"finish_ns_each\":{}}}",
        each(spawn_ns),
        kib_each(rss),
        kib_each(tables),
        each(finish_ns),
    ))
}

/// A figure of this process, in KiB; see proc_pid_status(5).
fn status(key: &str) -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc/self/status has no {key}")))
}
