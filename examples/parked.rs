//! What a parked greenlet costs, or a parked virtual thread: starts N of them, lets all wait for
//! one pipe, measures, closes the pipe, and lets all end.
//!
//! Run:    `cargo run --release --example parked -- 1000000`
//!         `cargo run --release --example parked -- 100000 threads`
//! Poke:   a million greenlets reserve 256 GiB of address space and use 5 GiB of memory, with the
//!         default `vm.max_map_count`. Before Linux 6.13, about 32,000 are the limit.
//! Prints: progress on standard error; as its last line, on standard output, one JSON object:
//!
//! ```text
//! {"greenlets":1000000,"spawn_ns_each":4215,"rss_kib_each":4.291,"page_tables_kib_each":0.502,
//!  "mappings":37,"finish_ns_each":422}                                           (in one line)
//! ```
//!
//! `spawn_ns_each` is from the call of `spawn` until it is parked: nearly all of it is the
//! kernel's, for one fresh page. `finish_ns_each` is from the wake to the end. `mappings` are the
//! whole process's. For virtual threads it says `"threads"`, and `"static_tls_kib"`: the size of
//! the thread-locals that the C library allocates for each thread of this program, which
//! `rss_kib_each` contains.

use std::{
    env, fs, io,
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use greenloop::{Builder, Deadline, thread, wait_readable, yield_now};

/// What is to park.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Greenlets,
    Threads,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let count = args.first().and_then(|count| count.parse().ok()).filter(|count| *count > 0);
    let kind = match args.get(1).map(String::as_str) {
        None => Some(Kind::Greenlets),
        Some("threads") => Some(Kind::Threads),
        Some(_) => None,
    };
    let (Some(count), Some(kind), ..=2) = (count, kind, args.len()) else {
        eprintln!(
            "usage: parked N [threads]    starts N greenlets, or virtual threads: at least 1"
        );
        return ExitCode::from(2);
    };
    match greenloop::run(|| measure(kind, count)) {
        Ok(json) => println!("{json}"),
        Err(error) => {
            eprintln!("parked: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Parks and frees `count` of them; returns the line of JSON.
pub(crate) fn measure(kind: Kind, count: usize) -> io::Result<String> {
    let what = if kind == Kind::Threads { "threads" } else { "greenlets" };
    if kind == Kind::Threads && thread::support() != thread::Support::Virtual {
        return Err(io::Error::other(thread::support().to_string()));
    }
    let (reader, writer) = io::pipe()?;
    let (reader, parked) = (Arc::new(reader), Arc::new(AtomicUsize::new(0)));
    let (rss_before, tables_before) = (status("VmRSS")?, status("VmPTE")?);

    eprintln!("starting {count} {what} ...");
    let begun = Instant::now();
    for _ in 0..count {
        let (reader, parked) = (Arc::clone(&reader), Arc::clone(&parked));
        let wait = move || {
            parked.fetch_add(1, Relaxed);
            let woken = wait_readable(reader.as_fd(), Deadline::NEVER); // here it waits
            parked.fetch_sub(1, Relaxed);
            woken
        };
        // Nobody joins it: the counter says when all have ended.
        match kind {
            Kind::Greenlets => drop(Builder::new().spawn(wait)?),
            Kind::Threads => drop(thread::Builder::new().spawn(wait)?),
        }
    }
    while parked.load(Relaxed) < count {
        yield_now();
    }
    let spawn_ns = begun.elapsed().as_nanos();
    let rss = status("VmRSS")?.saturating_sub(rss_before);
    let tables = status("VmPTE")?.saturating_sub(tables_before);
    let mappings = fs::read_to_string("/proc/self/maps")?.lines().count();

    eprintln!("all are parked; waking them ...");
    let begun = Instant::now();
    drop(writer); // The one event that all wait for: the end of the pipe.
    while parked.load(Relaxed) > 0 {
        yield_now();
    }
    let finish_ns = begun.elapsed().as_nanos();
    eprintln!("all have ended");

    let each = |total: u128| total / count as u128;
    let kib_each = |total: u64| total as f64 / count as f64;
    let tls = match kind {
        Kind::Greenlets => String::new(),
        Kind::Threads => format!("\"static_tls_kib\":{:.3},", static_tls_bytes()? as f64 / 1024.0),
    };
    Ok(format!(
        "{{\"{what}\":{count},\"spawn_ns_each\":{},\"rss_kib_each\":{:.3},{tls}\
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

/// What glibc allocates for the thread-locals of a thread and its control block.
#[expect(unsafe_code, reason = "the loader tells it by a function only")]
fn static_tls_bytes() -> io::Result<usize> {
    type Tell = unsafe extern "C" fn(*mut usize, *mut usize);
    // SAFETY: looks for a name.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"_dl_get_tls_static_info".as_ptr()) };
    if found.is_null() {
        return Err(io::Error::other("the loader has no _dl_get_tls_static_info"));
    }
    // SAFETY: the loader's function of that name has this type.
    let tell = unsafe { std::mem::transmute::<*mut libc::c_void, Tell>(found) };
    let (mut size, mut alignment) = (0, 0);
    // SAFETY: it writes two numbers, for which there is room.
    unsafe { tell(&raw mut size, &raw mut alignment) };
    Ok(size)
}
