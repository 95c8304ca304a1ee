//! [`Cooperator`]: iterators that are run by turns, a step at a time.
//!
//! Floor 7. Uses: `hub::park`, `cooperative`.
//!
//! A cooperator runs its tasks on one greenlet, its *driver*, which is there as long as there are
//! tasks. When all of them are paused it is parked.
//!
//! # Invariants
//!
//! - `COOP-1` A task is in `tasks` from its making to its end, and in `ready` at most once: if it
//!   is not paused, or has not been looked at since.
//! - `COOP-2` While there are tasks there is a driver; when it ends, however it does, they have
//!   all ended. So no task outlives its run. In the child of a fork the driver is gone without an
//!   end, and its tasks with it: `disown`.
//! - `COOP-3` Nothing of a cooperator is borrowed while a step or a callback runs: both may add,
//!   pause and stop tasks, and stop the cooperator.
//!
//! # Source
//!
//! Twisted `task.Cooperator`. Mended: `stop` ends every task, the paused ones at once too; a
//! Deferred that fails after its task was stopped ends nothing twice.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    rc::Rc,
    time::Duration,
};

use super::{
    Step,
    cooperative::{CooperativeTask, Reason, Task},
};
use crate::{
    Builder, Deferred,
    hub::{
        Hub,
        park::{Mode, Wait, WaitOn, Wake},
    },
    time::Deadline,
    yield_now,
};

/// How long the tasks of a cooperator run before everybody else does, if nothing else was set.
const SLICE_DEFAULT: Duration = Duration::from_millis(10);

thread_local! {
    /// The cooperator of [`cooperate`] and [`coiterate`]. It has tasks only during a run (COOP-2).
    static COOPERATOR: Cooperator = Cooperator::new();
}

/// Runs an iterator step by step, by turns with all others, on the cooperator of this thread.
///
/// # Panics
///
/// As [`Cooperator::cooperate`].
///
/// # Source
///
/// Twisted `task.cooperate`.
#[track_caller]
pub fn cooperate<I>(steps: I) -> CooperativeTask
where
    I: IntoIterator<Item: Step + 'static, IntoIter: 'static>,
{
    COOPERATOR.with(Cooperator::clone).cooperate(steps)
}

/// As [`cooperate`], for those who only want to know when it has ended.
///
/// # Panics
///
/// As [`Cooperator::cooperate`].
///
/// # Source
///
/// Twisted `task.coiterate`.
#[track_caller]
pub fn coiterate<I>(steps: I) -> Deferred<()>
where
    I: IntoIterator<Item: Step + 'static, IntoIter: 'static>,
{
    COOPERATOR.with(Cooperator::clone).coiterate(steps)
}

/// Runs any number of iterators by turns, one step each, so that long computations share a thread
/// with everybody else.
///
/// Shape: after each slice of time the other greenlets run, and the turns go on where they were. An
/// item of an iterator is `()`, a `Result`, or a Deferred; its task waits for a Deferred, the
/// others do not. A step that blocks holds up the other tasks of its cooperator, and nobody else:
/// to wait, let it give a Deferred.
///
/// Its clones are the same cooperator. Most programs need only [`cooperate`]; and where each
/// computation is straight-line code, a greenlet with [`yield_if_due`](crate::yield_if_due) is
/// simpler.
///
/// # Examples
///
/// ```
/// use greenloop::{task::Cooperator, testing, wait_for_deferred};
/// use std::{cell::RefCell, rc::Rc};
/// testing::run(|| {
///     let trace = Rc::new(RefCell::new(String::new()));
///     let steps = |name: char| {
///         let trace = Rc::clone(&trace);
///         (0..3).map(move |_| trace.borrow_mut().push(name))
///     };
///     let cooperator = Cooperator::new();
///     let (a, b) = (cooperator.coiterate(steps('a')), cooperator.coiterate(steps('b')));
///     wait_for_deferred(a).and(wait_for_deferred(b)).unwrap();
///     assert_eq!(*trace.borrow(), "ababab");
/// });
/// ```
///
/// # Source
///
/// Twisted `task.Cooperator`.
#[derive(Clone)]
pub struct Cooperator {
    turns: Rc<Turns>,
}

/// Whether a cooperator makes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not until `start`.
    Held,
    Running,
    /// Never again.
    Stopped,
}

/// What a cooperator, its driver and its tasks share.
pub(super) struct Turns {
    slice: Cell<Duration>,
    phase: Cell<Phase>,
    /// Those that have not ended, by number: in the order of their making.
    tasks: RefCell<BTreeMap<u64, Rc<Task>>>,
    next_id: Cell<u64>,
    /// Those that are to make a step, the next one first.
    ready: RefCell<VecDeque<Rc<Task>>>,
    /// The number of the hub that has the driver, if there is one.
    driver: Cell<Option<u64>>,
    /// The driver, while it is parked.
    waiter: Cell<Option<Wake>>,
}

impl Cooperator {
    /// A cooperator without tasks.
    #[must_use]
    pub fn new() -> Cooperator {
        let turns = Turns {
            slice: Cell::new(SLICE_DEFAULT),
            phase: Cell::new(Phase::Running),
            tasks: RefCell::default(),
            next_id: Cell::new(0),
            ready: RefCell::default(),
            driver: Cell::new(None),
            waiter: Cell::new(None),
        };
        Cooperator { turns: Rc::new(turns) }
    }

    /// Sets how long its tasks run before everybody else does. A step is never interrupted.
    ///
    /// Units: 10 ms if not set; zero is one step. In virtual time, where none passes while code
    /// runs, a slice is always one step.
    #[must_use]
    pub fn slice(self, slice: Duration) -> Cooperator {
        self.turns.slice.set(slice);
        self
    }

    /// Makes no step until [`start`](Self::start) is called.
    #[must_use]
    pub fn held(self) -> Cooperator {
        self.turns.phase.set(Phase::Held);
        self
    }

    /// Begins, if it is [`held`](Self::held).
    pub fn start(&self) {
        if self.turns.phase.get() == Phase::Held {
            self.turns.phase.set(Phase::Running);
            self.turns.look_again();
        }
    }

    /// Runs an iterator as one more task.
    ///
    /// Shape: its first step is made soon. It is dropped when it has ended, or is stopped. On a
    /// cooperator that was [stopped](Self::stop), it is dropped without a step.
    ///
    /// # Panics
    ///
    /// As [`spawn`](crate::spawn).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    #[track_caller]
    pub fn cooperate<I>(&self, steps: I) -> CooperativeTask
    where
        I: IntoIterator<Item: Step + 'static, IntoIter: 'static>,
    {
        CooperativeTask::new(self.add(steps, None))
    }

    /// As [`cooperate`](Self::cooperate), for those who only want to know when it has ended.
    ///
    /// # Errors
    ///
    /// The Deferred fails with the error that the iterator gave, with its panic, or with the
    /// failure of a Deferred that it gave; and with [`TaskEnded`](super::TaskEnded) when the
    /// cooperator is stopped.
    ///
    /// # Panics
    ///
    /// As [`spawn`](crate::spawn).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never. Cancelling the Deferred stops the task.
    #[track_caller]
    pub fn coiterate<I>(&self, steps: I) -> Deferred<()>
    where
        I: IntoIterator<Item: Step + 'static, IntoIter: 'static>,
    {
        let slot: Rc<Cell<Option<Rc<Task>>>> = Rc::default();
        let cancelled = Rc::clone(&slot);
        let (resolver, deferred) = Deferred::with_canceller(move |_| {
            if let Some(task) = cancelled.take() {
                task.finish(Err(Reason::Cancelled));
            }
        });
        let task = self.add(steps, Some(resolver));
        slot.set(Some(task));
        deferred
    }

    /// Ends every task, the paused ones too, and takes no more.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never, but callbacks of those who wait for the tasks run in here. A kill
    /// or timeout of one that blocks goes on when all tasks have ended.
    pub fn stop(&self) {
        self.turns.phase.set(Phase::Stopped);
        self.turns.end_all(|| Reason::CooperatorStopped);
        drop(self.turns.ready.take());
    }

    /// Whether it makes turns: it was not stopped, and is not held.
    pub fn is_running(&self) -> bool {
        self.turns.phase.get() == Phase::Running
    }

    #[track_caller]
    fn add<I>(&self, steps: I, owner: Option<crate::Resolver<()>>) -> Rc<Task>
    where
        I: IntoIterator<Item: Step + 'static, IntoIter: 'static>,
    {
        let turns = &self.turns;
        let steps = Box::new(steps.into_iter().map(Step::into_deferred));
        let id = turns.next_id.get();
        turns.next_id.set(id + 1);
        let task = Task::new(id, turns, steps, owner);
        if turns.phase.get() == Phase::Stopped {
            task.finish(Err(Reason::CooperatorStopped));
            return task;
        }
        let here = Hub::current().map(Hub::number);
        if turns.driver.get().is_some_and(|hub| Some(hub) != here) {
            turns.disown();
        }
        turns.tasks.borrow_mut().insert(id, Rc::clone(&task));
        turns.queue(&task);
        if turns.driver.get().is_none() {
            turns.driver.set(here);
            let driver = Driver(Rc::clone(turns));
            let spawned = Builder::new().name("cooperator").spawn(move || driver.drive());
            spawned.unwrap_or_else(|error| panic!("Cooperator::cooperate: {error}"));
        }
        task
    }
}

impl Turns {
    /// Has a task make a step in its turn, after all others that are ready.
    pub(super) fn queue(&self, task: &Rc<Task>) {
        if !task.is_queued.replace(true) {
            self.ready.borrow_mut().push_back(Rc::clone(task));
            self.look_again();
        }
    }

    /// Forgets what another hub has, of which a fork has left a copy here: nothing of that goes on
    /// in the child, nor is it dropped there.
    #[cold]
    fn disown(&self) {
        self.driver.set(None);
        self.waiter.set(None);
        mem::forget((self.tasks.take(), self.ready.take()));
    }

    /// Forgets a task that has ended.
    pub(super) fn remove(&self, id: u64) {
        let removed = self.tasks.borrow_mut().remove(&id);
        drop(removed);
        if self.tasks.borrow().is_empty() {
            self.look_again(); // The driver ends.
        }
    }

    /// Ends every task. If a kill or timeout unwinds out of a callback, the rest end meanwhile.
    fn end_all(&self, reason: fn() -> Reason) {
        struct Rest(std::vec::IntoIter<Rc<Task>>, fn() -> Reason);
        impl Rest {
            fn end(&mut self) {
                for task in self.0.by_ref() {
                    task.finish(Err(self.1()));
                }
            }
        }
        impl Drop for Rest {
            fn drop(&mut self) {
                self.end();
            }
        }
        let tasks: Vec<Rc<Task>> = self.tasks.borrow().values().cloned().collect();
        Rest(tasks.into_iter(), reason).end();
    }

    /// Has the driver look at what has changed.
    fn look_again(&self) {
        if let (Some(hub), Some(wake)) = (Hub::current(), self.waiter.take()) {
            hub.wake(wake);
        }
    }

    /// The task whose turn it is.
    fn next(&self) -> Option<Rc<Task>> {
        if self.phase.get() != Phase::Running {
            return None;
        }
        let task = self.ready.borrow_mut().pop_front()?;
        task.is_queued.set(false);
        Some(task)
    }
}

/// The greenlet that makes the steps, or is to be.
struct Driver(Rc<Turns>);

impl Driver {
    fn drive(self) {
        let hub = Hub::current().expect("a greenlet runs on a hub");
        let turns = &*self.0;
        while !turns.tasks.borrow().is_empty() {
            let mut began = hub.reactor.clock_now();
            while let Some(task) = turns.next() {
                task.step();
                let is_over = hub.reactor.clock_now() >= began.saturating_add(turns.slice.get());
                if is_over || !hub.time_passes_in_code() {
                    yield_now();
                    began = hub.reactor.clock_now();
                }
            }
            let count = turns.tasks.borrow().len();
            if count > 0 {
                let wait = Wait::begin(hub, WaitOn::Tasks(count as u32));
                let wait = wait.expect("it runs on a greenlet of its own");
                turns.waiter.set(Some(wait.wake()));
                let _ = wait.park(Deadline::NEVER, Mode::Infallible);
                turns.waiter.set(None);
            }
        }
    }
}

impl Drop for Driver {
    /// COOP-2: by now there are no tasks, unless the driver was killed, as it is when the run ends.
    fn drop(&mut self) {
        self.0.driver.set(None);
        self.0.waiter.set(None);
        // All who are in it end here, or have: the next driver is not to look at them.
        let _ready = self.0.ready.take();
        self.0.end_all(|| Reason::Cancelled);
    }
}

impl Default for Cooperator {
    fn default() -> Cooperator {
        Cooperator::new()
    }
}

impl fmt::Debug for Cooperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cooperator")
            .field("phase", &self.turns.phase.get())
            .field("tasks", &self.turns.tasks.borrow().len())
            .finish_non_exhaustive()
    }
}
