//! tokio's `current_thread` runtime, on the caller's thread.
//!
//! It is measured as applications have it, with its drivers enabled, and without them: a runtime
//! that can neither sleep nor read is less to compare with, but the faster of the two.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::yield_now as give_way;
use tokio::time::sleep;

use super::{Lap, scale, turns_each};
use crate::os;

/// Whether the runtime has its timer and its poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drivers {
    /// `enable_all`.
    All,
    /// Tasks only.
    None,
}

/// Builds a runtime.
pub(crate) fn runtime(drivers: Drivers) -> Runtime {
    let mut builder = Builder::new_current_thread();
    if drivers == Drivers::All {
        builder.enable_all();
    }
    builder.build().expect("a runtime starts")
}

/// Times `yields` of `green_threads` tasks.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn yield_now(drivers: Drivers, green_threads: usize, yields: u64) -> Duration {
    let turns = turns_each(green_threads, yields);
    let lap = Lap::new(green_threads);
    runtime(drivers).block_on(async {
        let all: Vec<_> = (0..green_threads)
            .map(|_| {
                let lap = Arc::clone(&lap);
                tokio::spawn(async move {
                    give_way().await;
                    lap.begin();
                    for _ in 0..turns {
                        give_way().await;
                    }
                    lap.end();
                })
            })
            .collect();
        for each in all {
            each.await.expect("the task ended");
        }
    });
    scale(lap.time(), yields, turns * green_threads as u64)
}

/// Times `spawns` tasks that do nothing, started and joined `width` at a time.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn spawn_and_join(drivers: Drivers, width: usize, spawns: u64) -> Duration {
    let batches = spawns.div_ceil(width as u64);
    let time = runtime(drivers).block_on(async {
        let mut all = Vec::with_capacity(width);
        let mut start = Instant::now();
        for batch in 0..=batches {
            all.extend((0..width).map(|_| tokio::spawn(async {})));
            for each in all.drain(..) {
                each.await.expect("the task ended");
            }
            if batch == 0 {
                start = Instant::now();
            }
        }
        start.elapsed()
    });
    scale(time, spawns, batches * width as u64)
}

/// Returns the processor time that sleeping each of `naps` at once takes, the first time and the
/// second.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn sleepers(naps: &[Duration]) -> [Duration; 2] {
    let runtime = runtime(Drivers::All);
    [(); 2].map(|()| {
        runtime.block_on(async {
            let start = os::process_cpu();
            let all: Vec<_> = naps.iter().map(|&nap| tokio::spawn(sleep(nap))).collect();
            for each in all {
                each.await.expect("the task ended");
            }
            os::process_cpu() - start
        })
    })
}
