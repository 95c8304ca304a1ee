//! Seeded schedules: the same program, in many orders.
//!
//! Floor 9. Uses: `hub::Director`, `random`.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

use super::{JumpingClock, Random};
use crate::{
    RunError,
    hub::{Cut, Director, message_of, try_run_on},
};

/// What names the one seed to try.
const VARIABLE: &str = "GREENLOOP_SEED";

/// Runs who is ready in an order that a seed decides.
#[derive(Debug)]
pub(super) struct Shuffle(Random);

impl Shuffle {
    pub(super) fn new(seed: u64) -> Shuffle {
        // Not the stream that the program draws from.
        Shuffle(Random::new(!seed))
    }
}

impl Director for Shuffle {
    fn choose(&self, ready: usize) -> usize {
        self.0.below(ready)
    }

    fn resumes(&self, _: u64) -> Option<Cut> {
        None
    }

    fn suspended(&self, _: u64, _: String) -> Option<Cut> {
        None
    }
}

/// Runs `f` once for each seed as [`testing::run`](super::run) does, but in an order that the seed
/// decides: whenever several greenlets are ready, any of them may be the next to run.
///
/// Shape: what a program may rely on whatever happens holds for each seed; what merely happens to
/// be so today (who was spawned first runs first) does not. `f` may draw from its [`Random`], which
/// has the same seed, to decide what to do. The same seed gives the same run, as far as all that it
/// waits for is in it. The environment variable `GREENLOOP_SEED`, if there is one, names the one
/// seed to try in place of `seeds`.
///
/// # Panics
///
/// At the first seed with which `f` panics, or has no value as [`greenloop::run`](crate::run) says;
/// the text tells the seed.
///
/// # Examples
///
/// Two greenlets add one, each in two steps with a pause between them; in some order, one addition
/// is lost:
///
/// ```should_panic
/// use greenloop::{spawn, testing, yield_now};
/// use std::{cell::Cell, rc::Rc};
/// testing::seeds(0..100, |_| {
///     let sum = Rc::new(Cell::new(0));
///     let adders = [Rc::clone(&sum), Rc::clone(&sum)].map(|sum| {
///         spawn(move || {
///             yield_now();
///             let before = sum.get();
///             yield_now();
///             sum.set(before + 1);
///         })
///     });
///     adders.into_iter().for_each(|adder| adder.join().unwrap());
///     assert_eq!(sum.get(), 2);
/// });
/// ```
///
/// # Source
///
/// FoundationDB's simulation; loom and shuttle, for threads; trio, which shuffles every batch.
pub fn seeds(seeds: Range<u64>, f: impl Fn(&Random)) {
    for seed in chosen(seeds) {
        let random = Random::new(seed);
        let ended = attempt(Rc::new(Shuffle::new(seed)), || f(&random));
        if let Err(text) = ended {
            panic!("greenloop::testing::seeds{}: {text}", hint(seed));
        }
    }
}

/// What tells a seed that has failed, and how to try it again.
pub(super) fn hint(seed: u64) -> String {
    format!(", with seed {seed} ({VARIABLE}={seed} repeats it)")
}

/// `seeds`, or the one that the environment names.
///
/// # Panics
///
/// When it names none.
pub(super) fn chosen(seeds: Range<u64>) -> Range<u64> {
    match std::env::var(VARIABLE) {
        Err(_) => seeds,
        Ok(text) => {
            let seed: u64 = text.parse().unwrap_or_else(|_| {
                panic!("{VARIABLE}={text}: no number; set it to the seed that a failure named")
            });
            seed..seed + 1
        }
    }
}

/// Runs `f` in virtual time as `director` says. Gives the text of a panic, or of what else went
/// wrong.
pub(super) fn attempt(director: Rc<dyn Director>, f: impl FnOnce()) -> Result<(), String> {
    let clock = Box::new(JumpingClock::new());
    let run = AssertUnwindSafe(|| try_run_on(clock, Some(director), f));
    match catch_unwind(run) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ RunError::Unavailable(_))) => panic!("greenloop::testing: {error}"),
        Ok(Err(error)) => Err(error.to_string()),
        Err(payload) => Err(message_of(&*payload)),
    }
}
