//! Virtual threads, OS threads and several hubs at everything that blocks, all by chance: locks,
//! channels, sockets, pipes, `poll`, sleeps, child processes, forks and libraries; with kills,
//! timeouts and closes from other threads.
//!
//! `tests/soak.sh SECONDS [SEED]` runs it; as one test among others it soaks for a second. A round
//! is a handful of *scenes* (`locks`, `channels`, `streams`, `waits`, `processes`), each of a few
//! *parties* that wait for one another. Chance decides who plays on which thread. What a scene
//! moves about it counts, and nothing may be lost. A scene is calm, and must then go as written, or
//! some of its parties are killed, and it must end all the same.
//!
//! After a round nothing of it is alive: no virtual thread, no thread-local, no descriptor; memory
//! does not grow from round to round. If for long nobody has made a step, somebody was not woken:
//! then a dump is printed and the process aborts (`watch`).
//!
//! Each round has a seed. Every third round is one hub in virtual time, in an order that the seed
//! decides: that one is repeated exactly. The rest have several hubs, and OS threads.

#![expect(unsafe_code, reason = "libc's calls, as C makes them")]

mod channels;
mod locks;
mod processes;
mod stage;
mod streams;
mod waits;
mod watch;

use std::{
    env, fs,
    sync::atomic::Ordering,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use greenloop::{interpose, testing::Random, thread};

greenloop::interpose!();

/// Rounds before memory is first measured: caches and pools have grown by then.
const WARM_UP_ROUNDS: u64 = 30;

/// By how much memory may grow after that, over any number of rounds: what is resident, and what
/// is mapped, of which a stack that is lost takes more.
const RESIDENT_GROWTH_KIB_MAX: u64 = 4 * 1024;
const MAPPED_GROWTH_KIB_MAX: u64 = 64 * 1024;

fn main() {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}: no number")))
    };
    let limit = Duration::from_secs(number("GREENLOOP_SOAK_SECONDS").unwrap_or(1));
    let only = number("GREENLOOP_SEED");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let first = only.unwrap_or(now.as_nanos() as u64 >> 10);
    assert_eq!(thread::support(), thread::Support::Virtual);
    interpose::is_active().expect("it says `interpose!()`");
    println!("virtual threads soak for {} s, from seed {first}", limit.as_secs());
    // Each arena of glibc's maps 64 MiB, when threads happen to meet: so they come early.
    // SAFETY: it takes two numbers.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    // With the feature `tokio`, its runtime starts here, and stays.
    greenloop::run(|| greenloop::wait_for_future(async {}));
    watch::begin();

    let begun = Instant::now();
    let (mut told, mut memory, mut open) = (begun, None, None);
    for count in 0.. {
        let seed = first.wrapping_add(count);
        watch::SEED.store(seed, Ordering::Relaxed);
        stage::round(&Random::new(seed));
        assert_eq!(processes::LOCALS.load(Ordering::Relaxed), 0, "thread-locals were left");
        // Threads of the crate's own in the background open some in the first rounds.
        if count >= WARM_UP_ROUNDS / 3 {
            let before = *open.get_or_insert_with(open_descriptors);
            assert!(comes_true(|| open_descriptors() <= before), "descriptors: {:?}", list_open());
        }
        if count >= WARM_UP_ROUNDS {
            let (resident, mapped) = (status_kib("VmRSS:"), status_kib("VmSize:"));
            let before = *memory.get_or_insert((resident, mapped));
            let grown = resident.saturating_sub(before.0);
            assert!(grown <= RESIDENT_GROWTH_KIB_MAX, "{grown} KiB more are resident");
            let grown = mapped.saturating_sub(before.1);
            assert!(grown <= MAPPED_GROWTH_KIB_MAX, "{grown} KiB more are mapped");
        }
        let is_over = only.is_some() || begun.elapsed() >= limit;
        if is_over || told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            println!(
                "{} s, {} rounds, {} steps, {} KiB resident, {} KiB mapped",
                begun.elapsed().as_secs(),
                count + 1,
                watch::steps(),
                status_kib("VmRSS:"),
                status_kib("VmSize:"),
            );
        }
        if is_over {
            return;
        }
    }
}

/// Whether `is_true` becomes true while threads that have been told to end do so.
fn comes_true(mut is_true: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !is_true() {
        if begun.elapsed() > Duration::from_secs(5) {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux lists them").count()
}

/// What each open descriptor is.
fn list_open() -> Vec<String> {
    let entries = fs::read_dir("/proc/self/fd").expect("Linux lists them");
    let files = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    files.map(|file| file.display().to_string()).collect()
}

/// What the kernel tells of this process's memory.
fn status_kib(what: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}
