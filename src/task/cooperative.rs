//! [`CooperativeTask`]: one iterator of a cooperator, and how it ends.
//!
//! Floor 7. Uses: `deferred`. Used by: `cooperator`.
//!
//! # States
//!
//! ```text
//! ready ──step──▶ ready (at the back) ──▶ …
//!   │  ▲            │ gives a Deferred, pause
//!   │  └──(no pause is left)── paused
//!   └──▶ ended: the iterator is through, or gave an error; stop; the cooperator's or the run's end
//! ```

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    rc::{Rc, Weak},
    sync::Arc,
};

use super::cooperator::Turns;
use crate::{Cancelled, Deferred, Failure, Resolver, deferred::CancelHandle};

/// An iterator that a [`Cooperator`](super::Cooperator) runs: to pause it, to stop it, to be told
/// of its end. Dropping it changes nothing; its clones are the same task.
///
/// # Examples
///
/// ```
/// use greenloop::{task::{TaskEnded, cooperate}, testing, wait_for_deferred};
/// testing::run(|| {
///     let task = cooperate(std::iter::repeat(()));
///     let done = task.when_done();
///     assert!(task.stop().is_ok());
///     let failure = wait_for_deferred(done).unwrap_err();
///     assert!(matches!(failure.downcast_ref(), Some(TaskEnded::Stopped)));
///     assert!(task.stop().is_err());
/// });
/// ```
///
/// # Source
///
/// Twisted `task.CooperativeTask`.
#[derive(Clone)]
pub struct CooperativeTask {
    task: Rc<Task>,
}

/// How a [`CooperativeTask`] has ended.
#[derive(Debug, Clone)]
pub enum TaskEnded {
    /// Its iterator is through.
    Done,
    /// A step failed, or a Deferred that it gave.
    Failed(Arc<Failure>),
    /// By [`stop`](CooperativeTask::stop).
    Stopped,
    /// By [`Cooperator::stop`](super::Cooperator::stop).
    CooperatorStopped,
    /// Its run has ended, or its cooperator's greenlet was killed by one of its steps.
    Cancelled,
}

/// Keeps a [`CooperativeTask`] from making steps until it is dropped. Pauses add up.
#[must_use = "a pause ends when its guard is dropped"]
pub struct TaskPause {
    task: Rc<Task>,
}

impl CooperativeTask {
    pub(super) fn new(task: Rc<Task>) -> CooperativeTask {
        CooperativeTask { task }
    }

    /// Gives a Deferred that fires when the task has ended: as often as it is asked, also
    /// afterwards.
    ///
    /// Shape: callbacks run on the cooperator's greenlet, or in whoever stops the task; one that
    /// blocks holds up the cooperator's other tasks.
    ///
    /// # Errors
    ///
    /// The Deferred fails with [`TaskEnded`] unless the iterator is through; with [`Cancelled`]
    /// when the run has ended first.
    ///
    /// # Source
    ///
    /// Twisted `CooperativeTask.whenDone`.
    pub fn when_done(&self) -> Deferred<()> {
        self.task.when_done()
    }

    /// Makes no more steps until the guard is dropped. One that is under way is made to its end.
    ///
    /// # Errors
    ///
    /// How it has ended, if it has.
    pub fn pause(&self) -> Result<TaskPause, TaskEnded> {
        self.check()?;
        self.task.hold();
        Ok(TaskPause { task: Rc::clone(&self.task) })
    }

    /// Ends the task, and cancels a Deferred that it waits for. Its iterator is dropped.
    ///
    /// # Errors
    ///
    /// How it has ended, if it has.
    pub fn stop(&self) -> Result<(), TaskEnded> {
        self.check()?;
        self.task.finish(Err(Reason::Stopped));
        Ok(())
    }

    /// How it has ended, if it has.
    pub fn ended(&self) -> Option<TaskEnded> {
        self.check().err()
    }

    fn check(&self) -> Result<(), TaskEnded> {
        self.task.end.borrow().clone().map_or(Ok(()), Err)
    }
}

impl Drop for TaskPause {
    fn drop(&mut self) {
        self.task.release();
    }
}

/// Why a task ends before its iterator is through.
pub(super) enum Reason {
    Failed(Failure),
    Stopped,
    CooperatorStopped,
    Cancelled,
}

/// The steps of a task.
type Steps = Box<dyn Iterator<Item = Deferred<()>>>;

/// What a task's handles and its cooperator share.
pub(super) struct Task {
    id: u64,
    turns: Weak<Turns>,
    /// Its iterator; out while it makes a step, gone when the task has ended.
    steps: Cell<Option<Steps>>,
    /// Whether it is in its cooperator's queue.
    pub(super) is_queued: Cell<bool>,
    /// How many pauses there are, that of a Deferred included.
    pauses: Cell<u32>,
    /// The Deferred that it waits for.
    awaited: Cell<Option<CancelHandle>>,
    end: RefCell<Option<TaskEnded>>,
    /// Who has it from `coiterate`, and gets the failure itself.
    owner: Cell<Option<Resolver<()>>>,
    /// Who asked by `when_done`.
    listeners: RefCell<Vec<Resolver<()>>>,
    /// Whether somebody was told how it ended.
    is_told: Cell<bool>,
}

impl Task {
    pub(super) fn new(
        id: u64,
        turns: &Rc<Turns>,
        steps: Steps,
        owner: Option<Resolver<()>>,
    ) -> Rc<Task> {
        Rc::new(Task {
            id,
            turns: Rc::downgrade(turns),
            steps: Cell::new(Some(steps)),
            is_queued: Cell::new(false),
            pauses: Cell::new(0),
            awaited: Cell::new(None),
            end: RefCell::new(None),
            owner: Cell::new(owner),
            listeners: RefCell::default(),
            is_told: Cell::new(false),
        })
    }

    /// Makes one step, unless the task is paused or has ended.
    pub(super) fn step(self: &Rc<Task>) {
        if self.pauses.get() > 0 {
            return;
        }
        let Some(steps) = self.steps.take() else { return };
        // As a callback, so that a panic becomes a Failure, and a kill goes on.
        let stepped = Deferred::succeed(steps).add_callback(|mut steps| {
            let item = steps.next();
            Ok((steps, item))
        });
        match stepped.try_take() {
            Ok(Ok((steps, item))) if self.has_ended() => {
                discard(steps);
                if let Some(deferred) = item {
                    deferred.cancel();
                    self.ignore(deferred);
                }
            }
            Ok(Ok((steps, Some(deferred)))) => {
                self.steps.set(Some(steps));
                self.wait_for(deferred);
            }
            Ok(Ok((steps, None))) => {
                discard(steps);
                self.finish(Ok(()));
            }
            Ok(Err(failure)) if self.has_ended() => failure.report_unhandled(LATE),
            Ok(Err(failure)) => self.finish(Err(Reason::Failed(failure))),
            Err(_) => unreachable!("a callback on a result has run when it was added"),
        }
    }

    /// Goes on when `deferred` has fired.
    fn wait_for(self: &Rc<Task>, deferred: Deferred<()>) {
        match deferred.try_take() {
            Ok(Ok(())) => self.queue(),
            Ok(Err(failure)) => self.finish(Err(Reason::Failed(failure))),
            Err(deferred) => {
                self.hold();
                let task = Rc::clone(self);
                self.awaited.set(Some(deferred.observe(move |result| task.answered(result))));
            }
        }
    }

    /// The Deferred that it waited for has fired, perhaps after the task has ended.
    fn answered(self: &Rc<Task>, result: Result<(), Failure>) {
        drop(self.awaited.take());
        match result {
            Ok(()) => self.release(),
            Err(failure) if self.has_ended() => failure.report_unhandled(LATE),
            Err(failure) => self.finish(Err(Reason::Failed(failure))),
        }
    }

    /// Has the late failure of a Deferred that nobody waits for reported.
    fn ignore(self: &Rc<Task>, deferred: Deferred<()>) {
        let task = Rc::clone(self);
        deferred.observe(move |result| task.answered(result));
    }

    fn hold(&self) {
        self.pauses.set(self.pauses.get() + 1);
    }

    fn release(self: &Rc<Task>) {
        self.pauses.set(self.pauses.get().saturating_sub(1));
        if self.pauses.get() == 0 {
            self.queue();
        }
    }

    fn queue(self: &Rc<Task>) {
        if let Some(turns) = self.turns.upgrade().filter(|_| !self.has_ended()) {
            turns.queue(self);
        }
    }

    fn has_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    fn when_done(&self) -> Deferred<()> {
        if let Some(end) = &*self.end.borrow() {
            self.is_told.set(true);
            return Deferred::from_result(end.result());
        }
        let (resolver, deferred) = Deferred::new();
        let mut listeners = self.listeners.take();
        if listeners.len() == listeners.capacity() {
            listeners.retain(|listener| !listener.is_cancelled()); // They must not pile up.
        }
        listeners.push(resolver);
        self.listeners.replace(listeners);
        deferred
    }

    /// Ends the task, once, and tells everybody who asked.
    pub(super) fn finish(&self, result: Result<(), Reason>) {
        if self.has_ended() {
            return;
        }
        let owner = self.owner.take();
        let (end, owned) = TaskEnded::from(result, owner.is_some());
        self.end.replace(Some(end.clone()));
        if let Some(turns) = self.turns.upgrade() {
            turns.remove(self.id);
        }
        let (owner, listeners) = (owner.map(|owner| (owner, owned)), self.listeners.take());
        Leaving { task: self, end, owner, listeners: listeners.into_iter() }.leave();
    }
}

/// What is still to be done for a task that has ended. All of it is user code: if a kill or timeout
/// unwinds out of one part, the rest is done meanwhile, so that everybody is told.
struct Leaving<'a> {
    task: &'a Task,
    end: TaskEnded,
    owner: Option<(Resolver<()>, Result<(), Failure>)>,
    listeners: std::vec::IntoIter<Resolver<()>>,
}

impl Leaving<'_> {
    /// Does each part once.
    fn leave(&mut self) {
        if let Some(steps) = self.task.steps.take() {
            discard(steps);
        }
        if let Some(awaited) = self.task.awaited.take() {
            awaited.cancel();
        }
        if let Some((owner, owned)) = self.owner.take() {
            self.task.is_told.set(true);
            owner.fire(owned);
        }
        for listener in self.listeners.by_ref() {
            self.task.is_told.set(true);
            listener.fire(self.end.result());
        }
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// What a failure is called that comes when nobody waits for it any more.
const LATE: &str = "a step of a cooperative task that has ended";

/// Drops user code where a panic of its destructor must not unwind: it is reported.
fn discard<T: 'static>(value: T) {
    drop(Deferred::succeed(value).add_callback(|value| {
        drop(value);
        Ok(())
    }));
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(TaskEnded::Failed(failure)) = self.end.get_mut()
            && !self.is_told.get()
        {
            failure.report_unhandled("a cooperative task");
        }
    }
}

impl TaskEnded {
    /// The end for everybody, and the result for an owner, who alone gets the failure itself.
    fn from(result: Result<(), Reason>, is_owned: bool) -> (TaskEnded, Result<(), Failure>) {
        let end = match result {
            Ok(()) => TaskEnded::Done,
            Err(Reason::Failed(failure)) if is_owned => return (TaskEnded::Stopped, Err(failure)),
            Err(Reason::Failed(failure)) => TaskEnded::Failed(Arc::new(failure)),
            Err(Reason::Stopped) => TaskEnded::Stopped,
            Err(Reason::CooperatorStopped) => TaskEnded::CooperatorStopped,
            Err(Reason::Cancelled) => TaskEnded::Cancelled,
        };
        let result = end.result();
        (end, result)
    }

    /// What whoever waits for the end gets.
    fn result(&self) -> Result<(), Failure> {
        match self {
            TaskEnded::Done => Ok(()),
            TaskEnded::Cancelled => Err(Failure::new(Cancelled)),
            ended => Err(Failure::new(ended.clone())),
        }
    }
}

impl fmt::Display for TaskEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskEnded::Done => f.write_str("the cooperative task is done"),
            TaskEnded::Failed(failure) => write!(f, "the cooperative task failed: {failure}"),
            TaskEnded::Stopped => f.write_str("the cooperative task was stopped"),
            TaskEnded::CooperatorStopped => f.write_str("the cooperator of the task was stopped"),
            TaskEnded::Cancelled => f.write_str("the run of the cooperative task has ended"),
        }
    }
}

impl Error for TaskEnded {}

impl fmt::Debug for CooperativeTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CooperativeTask")
            .field("pauses", &self.task.pauses.get())
            .field("ended", &self.ended())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TaskPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPause").field("pauses", &self.task.pauses.get()).finish_non_exhaustive()
    }
}
