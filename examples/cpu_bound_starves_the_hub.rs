//! A limitation: a greenlet that computes stops all others of its thread. What the watchdog says of
//! it, and two ways to let the others run.
//!
//! Run:    `cargo run --example cpu_bound_starves_the_hub`
//! Poke:   `cargo run --example cpu_bound_starves_the_hub 5` computes for 5 seconds each time
//! Prints: how often a greenlet that should run every 20 ms did; before the first line, on standard
//!         error, what the watchdog says:
//!
//! ```text
//! greenloop: greenlet #3 'cruncher' (spawned at examples/cpu_bound_starves_the_hub.rs:79:52) has
//! not let go of thread 'main' for 1.0 s, and nobody else runs there. It computes: call
//! yield_if_due in its loops, or do it on a thread of its own and send the result by a channel …
//!     cpu_bound_starves_the_hub::compute at examples/cpu_bound_starves_the_hub.rs:94:13
//!     …
//! it just computes:            2.0 s of computing, the other one ran   0 times
//! it calls yield_if_due:       2.0 s of computing, the other one ran  98 times
//! an OS thread does it:        2.0 s of computing, the other one ran  99 times
//! ```

use std::{
    cell::Cell,
    env,
    hint::black_box,
    io,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{Builder, reactor, sleep, spawn, sync::channel, yield_if_due};

/// How often the other greenlet should run.
const BEAT: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let seconds = env::args().nth(1).map_or(Ok(2.0), |text| text.parse());
    let Ok(Ok(work)) = seconds.map(Duration::try_from_secs_f64) else {
        eprintln!("usage: cpu_bound_starves_the_hub [SECONDS]");
        return ExitCode::from(2);
    };
    let done = greenloop::run(|| {
        reactor().set_watchdog(Some(Duration::from_secs(1)))?; // in release builds it is off
        for (name, way) in WAYS {
            let (beats, seconds) = (beats_while(way, work)?, work.as_secs_f64());
            println!("{name:<28} {seconds:.1} s of computing, the other one ran {beats:>3} times");
        }
        io::Result::Ok(())
    });
    if let Err(error) = done {
        eprintln!("cpu_bound_starves_the_hub: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Does the work, for so long, and gives what came of it.
type Way = fn(Duration) -> u64;

pub(crate) const WAYS: [(&str, Way); 3] = [
    ("it just computes:", |work| compute(work, || ())),
    ("it calls yield_if_due:", |work| compute(work, yield_if_due)),
    ("an OS thread does it:", |work| {
        let (sender, receiver) = channel(1);
        std::thread::spawn(move || sender.send(compute(work, || ())));
        receiver.recv().unwrap_or(0) // parks this greenlet, not the thread
    }),
];

/// How often another greenlet ran while one did the work.
pub(crate) fn beats_while(way: Way, work: Duration) -> io::Result<u32> {
    let beats = Rc::new(Cell::new(0));
    let shared = Rc::clone(&beats);
    let heart = spawn(move || {
        loop {
            sleep(BEAT);
            shared.set(shared.get() + 1);
        }
    });
    let cruncher = Builder::new().name("cruncher").spawn(move || {
        black_box(way(work));
        beats.get()
    })?;
    let beats = cruncher.join().map_err(io::Error::other);
    heart.kill();
    beats
}

/// Computes for `work`, and says after each step that it is one further.
fn compute(work: Duration, mut step: impl FnMut()) -> u64 {
    let begun = Instant::now();
    let mut number = 1u64;
    while begun.elapsed() < work {
        for _ in 0..1000 {
            number = black_box(number.wrapping_mul(6_364_136_223_846_793_005) ^ (number >> 7));
        }
        step();
    }
    number
}
