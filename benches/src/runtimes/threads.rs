//! Threads: greenloop's virtual ones, and std's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use greenloop::thread;

use super::{Lap, scale, turns_each};

/// Times `yields` of `count` virtual threads.
///
/// # Panics
/// When a thread does.
#[must_use]
pub fn yield_now(count: usize, yields: u64) -> Duration {
    let turns = turns_each(count, yields);
    let lap = Lap::new(count);
    let laps = Arc::clone(&lap);
    greenloop::run(move || {
        let all: Vec<_> = (0..count)
            .map(|_| {
                let lap = Arc::clone(&laps);
                thread::spawn(move || {
                    // Every stack is warm and every thread runnable before the lap begins.
                    thread::yield_now();
                    lap.begin();
                    for _ in 0..turns {
                        thread::yield_now();
                    }
                    lap.end();
                })
            })
            .collect();
        for each in all {
            each.join().expect("the thread ended");
        }
    });
    scale(lap.time(), yields, turns * count as u64)
}

/// Times `spawns` virtual threads that do nothing, started and joined `width` at a time.
///
/// # Panics
/// When a thread does.
#[must_use]
pub fn spawn_and_join(width: usize, spawns: u64) -> Duration {
    let batches = spawns.div_ceil(width as u64);
    let time = greenloop::run(move || {
        let mut all = Vec::with_capacity(width);
        let mut batch = || {
            all.extend((0..width).map(|_| thread::spawn(|| ())));
            for each in all.drain(..) {
                each.join().expect("the thread ended");
            }
        };
        // The first batch makes the stacks and blocks that the others reuse.
        batch();
        let start = Instant::now();
        (0..batches).for_each(|_| batch());
        start.elapsed()
    });
    scale(time, spawns, batches * width as u64)
}

/// The same of OS threads.
///
/// # Panics
/// When a thread does.
#[must_use]
pub fn spawn_and_join_os(width: usize, spawns: u64) -> Duration {
    let batches = spawns.div_ceil(width as u64);
    let mut all = Vec::with_capacity(width);
    let start = Instant::now();
    for _ in 0..batches {
        all.extend((0..width).map(|_| std::thread::spawn(|| ())));
        for each in all.drain(..) {
            each.join().expect("the thread ended");
        }
    }
    scale(start.elapsed(), spawns, batches * width as u64)
}
