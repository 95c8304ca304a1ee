//! may with one worker and its default features. The worker is a thread of its own, on the same
//! core; what is measured is started from a coroutine, so that no other thread takes part.

use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use may::coroutine::{sleep, yield_now as give_way};
use may::go;

use super::{Lap, scale, turns_each};
use crate::os;

/// Coroutines, with stacks, that may keeps for reuse: as many as any bench here starts at once.
const POOL_CAPACITY: usize = 20_000;

/// Sets may up as the benches want it. Its first use in a process starts its threads, and what is
/// set after that has no effect.
fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        may::config().set_workers(1).set_pool_capacity(POOL_CAPACITY);
    });
}

/// Runs `f` in a coroutine and waits for it.
pub(crate) fn run<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    configure();
    go!(f).join().expect("the coroutine ended")
}

/// Times `yields` of `green_threads` coroutines.
///
/// # Panics
/// When a coroutine does.
#[must_use]
pub fn yield_now(green_threads: usize, yields: u64) -> Duration {
    let turns = turns_each(green_threads, yields);
    let lap = Lap::new(green_threads);
    let laps = Arc::clone(&lap);
    run(move || {
        let all: Vec<_> = (0..green_threads)
            .map(|_| {
                let lap = Arc::clone(&laps);
                go!(move || {
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
            each.join().expect("the coroutine ended");
        }
    });
    scale(lap.time(), yields, turns * green_threads as u64)
}

/// Times `spawns` coroutines that do nothing, started and joined `width` at a time.
///
/// # Panics
/// When a coroutine does.
#[must_use]
pub fn spawn_and_join(width: usize, spawns: u64) -> Duration {
    let batches = spawns.div_ceil(width as u64);
    let time = run(move || {
        let mut all = Vec::with_capacity(width);
        let mut batch = || {
            all.extend((0..width).map(|_| go!(|| ())));
            for each in all.drain(..) {
                each.join().expect("the coroutine ended");
            }
        };
        batch();
        let start = Instant::now();
        (0..batches).for_each(|_| batch());
        start.elapsed()
    });
    scale(time, spawns, batches * width as u64)
}

/// Returns the processor time that sleeping each of `naps` at once takes, the first time and the
/// second.
///
/// # Panics
/// When a coroutine does.
#[must_use]
pub fn sleepers(naps: Vec<Duration>) -> [Duration; 2] {
    run(move || {
        [(); 2].map(|()| {
            let start = os::process_cpu();
            let all: Vec<_> = naps.iter().map(|&nap| go!(move || sleep(nap))).collect();
            for each in all {
                each.join().expect("the coroutine ended");
            }
            os::process_cpu() - start
        })
    })
}
