//! greenloop: everything inside one `run`, on the caller's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenloop::{run, sleep, spawn, yield_now as give_way};

use super::{Lap, scale, turns_each};
use crate::os;

/// Times `yields` of `green_threads` greenlets.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn yield_now(green_threads: usize, yields: u64) -> Duration {
    let turns = turns_each(green_threads, yields);
    let lap = Lap::new(green_threads);
    let laps = Arc::clone(&lap);
    run(move || {
        let all: Vec<_> = (0..green_threads)
            .map(|_| {
                let lap = Arc::clone(&laps);
                spawn(move || {
                    // Every stack is warm and every greenlet runnable before the lap begins.
                    give_way();
                    lap.begin();
                    for _ in 0..turns {
                        give_way();
                    }
                    lap.end();
                })
            })
            .collect();
        for each in all {
            each.join().expect("the greenlet ended");
        }
    });
    scale(lap.time(), yields, turns * green_threads as u64)
}

/// Times `spawns` greenlets that do nothing, started and joined `width` at a time.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn spawn_and_join(width: usize, spawns: u64) -> Duration {
    let batches = spawns.div_ceil(width as u64);
    let time = run(move || {
        let mut all = Vec::with_capacity(width);
        let mut batch = || {
            all.extend((0..width).map(|_| spawn(|| ())));
            for each in all.drain(..) {
                each.join().expect("the greenlet ended");
            }
        };
        // The first batch maps and touches the stacks that the others reuse.
        batch();
        let start = Instant::now();
        (0..batches).for_each(|_| batch());
        start.elapsed()
    });
    scale(time, spawns, batches * width as u64)
}

/// Returns the processor time that sleeping each of `naps` at once takes: the first time, when
/// everything must be allocated, and the second.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn sleepers(naps: Vec<Duration>) -> [Duration; 2] {
    run(move || {
        [(); 2].map(|()| {
            let start = os::process_cpu();
            let all: Vec<_> = naps.iter().map(|&nap| spawn(move || sleep(nap))).collect();
            for each in all {
                each.join().expect("the greenlet ended");
            }
            os::process_cpu() - start
        })
    })
}
