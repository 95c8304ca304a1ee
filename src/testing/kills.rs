//! The kill harness: a scenario, run once for every place at which a greenlet could be cut short.
//!
//! Floor 9. Uses: `hub::Director`, `seeds`, `nothing_left`.

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Range,
    panic::resume_unwind,
    rc::Rc,
    time::Duration,
};

use super::{
    assert_nothing_left,
    seeds::{Shuffle, attempt, chosen, hint},
};
use crate::{
    Elapsed, Greenlet, JoinError,
    hub::{Cut, Director},
    reactor, spawn, timeout, yield_now,
};

/// Suspensions of a target at most: more mean that it never ends.
const SUSPENSIONS_MAX: u32 = 10_000;

/// The limit that is made to elapse early. Longer than any scenario, in virtual time: 68 years.
const LIMIT: Duration = Duration::from_secs(1 << 31);

/// Runs `scenario` again and again, and cuts its [`target`](Case::target) short in each run at
/// another place: by a kill and by a timeout, as soon as it has suspended and when it is about to
/// go on, at its first suspension, at its second, and so on to its last.
///
/// Shape: the scenario is the main greenlet of a run in virtual time. It sets up, spawns the target
/// and what else it needs, and asserts what has to be true afterwards: nothing is lost, no lock is
/// held. A wait that nothing can end fails by itself, and so does what is left behind
/// ([`assert_nothing_left`]). Two more runs leave the target alone, and kill it before it has
/// begun. Returns how many suspensions there were.
///
/// # Panics
///
/// When the scenario panics, or leaves something behind, in any run; the text tells which. When the
/// target never suspends: then there is nothing to see.
///
/// # Examples
///
/// Whoever dies in line for a permit, or with it, must not take it along:
///
/// ```
/// use greenloop::{sync::Semaphore, testing, yield_now};
/// use std::rc::Rc;
/// let suspensions = testing::kill_everywhere(|case| {
///     let tables = Rc::new(Semaphore::new(1));
///     let taken = tables.acquire();
///     let shared = Rc::clone(&tables);
///     let guest = case.target(move || {
///         let _table = shared.acquire(); // suspends here,
///         yield_now(); // and here
///     });
///     yield_now();
///     drop(taken);
///     let was_cut_short = guest.join().is_none();
///     assert_eq!(tables.available_permits(), 1, "{case:?}, {was_cut_short}");
/// });
/// assert_eq!(suspensions, 2);
/// ```
///
/// # Source
///
/// The exhaustive crash points of SQLite's and TigerBeetle's tests.
pub fn kill_everywhere(scenario: impl Fn(&Case)) -> u32 {
    KillEverywhere::new().run(scenario)
}

/// [`kill_everywhere`], with more to say.
#[derive(Debug, Clone, Default)]
#[must_use = "it tries nothing until `run` is called"]
pub struct KillEverywhere {
    seeds: Option<Range<u64>>,
    counts_descriptors: bool,
}

impl KillEverywhere {
    /// As [`kill_everywhere`] does it.
    pub fn new() -> KillEverywhere {
        KillEverywhere::default()
    }

    /// All of it once for each seed, in an order that the seed decides, as
    /// [`seeds()`](super::seeds()) has it.
    pub fn seeds(mut self, seeds: Range<u64>) -> KillEverywhere {
        self.seeds = Some(seeds);
        self
    }

    /// Has the process's open descriptors counted too, before and after each run: only where nobody
    /// else opens any meanwhile, so in a process of its own and not beside other tests. There is no
    /// watchdog then.
    pub fn count_descriptors(mut self) -> KillEverywhere {
        self.counts_descriptors = true;
        self
    }

    /// As [`kill_everywhere`].
    ///
    /// # Panics
    ///
    /// As [`kill_everywhere`].
    pub fn run(&self, scenario: impl Fn(&Case)) -> u32 {
        if self.counts_descriptors {
            // What the first run of a process opens for good is not the scenario's.
            super::run(|| {
                stop_watchdog();
                yield_now();
            });
        }
        match &self.seeds {
            None => self.run_in_order(None, &scenario),
            Some(seeds) => {
                let each = chosen(seeds.clone());
                each.map(|seed| self.run_in_order(Some(seed), &scenario)).max().unwrap_or(0)
            }
        }
    }

    fn run_in_order(&self, seed: Option<u64>, scenario: &impl Fn(&Case)) -> u32 {
        self.run_case(seed, None, scenario);
        let unbegun = Plan { at: 0, moment: Moment::Resuming, cut: Cut::Kill };
        self.run_case(seed, Some(unbegun), scenario);
        for at in 1..=SUSPENSIONS_MAX {
            let mut reached = false;
            for moment in [Moment::Suspended, Moment::Resuming] {
                for cut in [Cut::Kill, Cut::Elapse] {
                    reached |= self.run_case(seed, Some(Plan { at, moment, cut }), scenario);
                }
            }
            if !reached {
                assert!(
                    at > 1,
                    "greenloop::testing::kill_everywhere: the target never suspends, so there is \
                     no place to cut it short"
                );
                return at - 1;
            }
        }
        panic!(
            "greenloop::testing::kill_everywhere: the target suspends {SUSPENSIONS_MAX} times, and \
             has not ended; give it less to do"
        );
    }

    /// Returns whether the target was cut short.
    fn run_case(&self, seed: Option<u64>, plan: Option<Plan>, scenario: &impl Fn(&Case)) -> bool {
        let shuffle = seed.map(Shuffle::new);
        let case = Rc::new(Case { plan, shuffle, ..Case::default() });
        let before = self.counts_descriptors.then(count_descriptors);
        let ended = attempt(Rc::clone(&case) as _, || {
            if self.counts_descriptors {
                stop_watchdog();
            }
            scenario(&case);
            assert!(case.target.get() > 0, "the scenario has no target: spawn it by Case::target");
            assert_nothing_left();
        });
        let seed = seed.map(hint).unwrap_or_default();
        if let Err(text) = ended {
            panic!("greenloop::testing::kill_everywhere: {case}{seed}: {text}");
        }
        let after = self.counts_descriptors.then(count_descriptors);
        assert_eq!(
            before, after,
            "greenloop::testing::kill_everywhere: descriptors open before and after: {case}{seed}"
        );
        case.was_cut.get()
    }
}

/// Where descriptors are counted, the watchdog must not open files to name who is slow, on a thread
/// of its own.
fn stop_watchdog() {
    reactor().set_watchdog(None).expect("to stop it needs nothing");
}

/// How many descriptors the process has open.
fn count_descriptors() -> usize {
    let open = std::fs::read_dir("/dev/fd").expect("the system lists open descriptors");
    open.count()
}

/// When a target is cut short, beside one of its suspensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// As soon as it has suspended: nobody has seen it wait.
    Suspended,
    /// When it is about to go on: it was woken, perhaps granted what it waited for.
    Resuming,
}

/// Where and how. `at` counts suspensions; 0 is before it has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    at: u32,
    moment: Moment,
    cut: Cut,
}

/// One run of a scenario: what [`kill_everywhere`] gives it.
#[derive(Default)]
pub struct Case {
    plan: Option<Plan>,
    shuffle: Option<Shuffle>,
    /// The target's number; 0 before it is spawned.
    target: Cell<u64>,
    /// How often it has suspended.
    suspensions: Cell<u32>,
    /// What for, last.
    waits_on: RefCell<String>,
    was_cut: Cell<bool>,
}

impl Case {
    /// Spawns the greenlet that is to be cut short. Once a run.
    ///
    /// # Panics
    ///
    /// The second time; and as [`spawn`].
    #[track_caller]
    pub fn target<T: 'static>(&self, f: impl FnOnce() -> T + 'static) -> Target<T> {
        assert_eq!(self.target.get(), 0, "greenloop::testing::Case: a scenario has one target");
        let greenlet = match self.plan {
            Some(Plan { cut: Cut::Elapse, .. }) => spawn(move || timeout(LIMIT, f)),
            _ => spawn(move || Ok(f())),
        };
        self.target.set(greenlet.id());
        Target(greenlet)
    }

    fn cut(&self, id: u64, moment: Moment) -> Option<Cut> {
        let plan = self.plan.filter(|plan| {
            id == self.target.get()
                && (plan.at, plan.moment) == (self.suspensions.get(), moment)
                && !self.was_cut.get()
        })?;
        self.was_cut.set(true);
        Some(plan.cut)
    }
}

impl Director for Case {
    fn choose(&self, ready: usize) -> usize {
        self.shuffle.as_ref().map_or(0, |shuffle| shuffle.choose(ready))
    }

    fn resumes(&self, id: u64) -> Option<Cut> {
        self.cut(id, Moment::Resuming)
    }

    fn suspended(&self, id: u64, waits_on: String) -> Option<Cut> {
        if id == self.target.get() && !self.was_cut.get() {
            self.suspensions.set(self.suspensions.get() + 1);
            *self.waits_on.borrow_mut() = waits_on;
        }
        self.cut(id, Moment::Suspended)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(Plan { at, moment, cut }) = self.plan else {
            return f.write_str("with the target left alone");
        };
        let how = match cut {
            Cut::Kill => "killed",
            Cut::Elapse => "timed out",
        };
        let waits_on = self.waits_on.borrow();
        match moment {
            Moment::Resuming if at == 0 => write!(f, "with the target {how} before it began"),
            Moment::Resuming => {
                write!(f, "with the target {how} after its suspension {at} (for {waits_on})")
            }
            Moment::Suspended => {
                write!(f, "with the target {how} in its suspension {at} (for {waits_on})")
            }
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({self})")
    }
}

/// The greenlet of a [`Case`] that is cut short.
#[derive(Debug)]
pub struct Target<T>(Greenlet<Result<T, Elapsed>>);

impl<T> Target<T> {
    /// Parks until it has ended, and returns its value. `None`: it was cut short.
    ///
    /// # Panics
    ///
    /// When it has panicked, with its payload; and as [`Greenlet::join`].
    ///
    /// # Cancellation
    ///
    /// As [`Greenlet::join`].
    #[track_caller]
    pub fn join(self) -> Option<T> {
        match self.0.join().map_err(JoinError::try_into_panic) {
            Ok(ended) => ended.ok(),
            Err(Err(_killed)) => None,
            Err(Ok(panic)) => resume_unwind(panic),
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
