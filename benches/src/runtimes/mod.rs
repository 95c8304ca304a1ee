//! The same small jobs, given to each runtime.
//!
//! Each module has the same functions, and each does what a user of that runtime would write:
//!
//! - `yield_now(green_threads, yields)`: that many run together and yield, by turns, `yields`
//!   times altogether.
//! - `spawn_and_join(width, spawns)`: starts green threads that do nothing, `width` at a time, and
//!   waits for each.
//! - `sleepers(naps)`: starts one green thread for each nap, and waits until all have slept.
//!
//! The first two return wall time (one core, nothing to wait for: it is processor time); the last
//! returns processor time. Starting and ending the runtime is never counted.

pub mod greenloop;
pub mod may;
pub mod threads;
pub mod tokio;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Turns that each green thread takes at least, so that what happens at either end of a lap
/// (two clock readings, two counters) is lost in it.
const TURNS_MIN: u64 = 500;

/// A measured lap that several green threads run together: from the moment the first begins its
/// turns until the last has ended them.
#[derive(Debug)]
struct Lap {
    /// How many run.
    count: usize,
    /// How many have begun.
    begun: AtomicUsize,
    /// How many have ended.
    ended: AtomicUsize,
    /// When the first began.
    first_began: OnceLock<Instant>,
    /// When the last ended.
    last_ended: OnceLock<Instant>,
}

impl Lap {
    /// Makes a lap for `count` green threads.
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Self {
            count,
            begun: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            first_began: OnceLock::new(),
            last_ended: OnceLock::new(),
        })
    }

    /// Is called by each before its first turn.
    fn begin(&self) {
        if self.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first_began.get_or_init(Instant::now);
        }
    }

    /// Is called by each after its last turn.
    fn end(&self) {
        if self.ended.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            self.last_ended.get_or_init(Instant::now);
        }
    }

    /// Returns how long the lap took.
    ///
    /// # Panics
    /// When it is not over.
    fn time(&self) -> Duration {
        let (began, ended) = (self.first_began.get(), self.last_ended.get());
        ended.expect("all have ended").duration_since(*began.expect("one has begun"))
    }
}

/// Returns how many turns each of `green_threads` takes to make up at least `yields`.
fn turns_each(green_threads: usize, yields: u64) -> u64 {
    yields.div_ceil(green_threads as u64).max(TURNS_MIN)
}

/// Returns the time for `wanted` operations when `done` of them took `time`.
pub(crate) fn scale(time: Duration, wanted: u64, done: u64) -> Duration {
    Duration::from_nanos((time.as_nanos() as f64 * wanted as f64 / done as f64) as u64)
}

/// Returns `count` times to sleep between nothing and `longest`, whole multiples of `grain`; the
/// same ones every time.
#[must_use]
pub fn naps(count: usize, longest: Duration, grain: Duration) -> Vec<Duration> {
    let choices = (longest.as_nanos() / grain.as_nanos()) as u64 + 1;
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..count)
        .map(|_| {
            // Xorshift: any generator would do that has no pattern a timer wheel could like.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            grain * ((state >> 32) % choices) as u32
        })
        .collect()
}
