//! The chain: what one Resolver fires, as untyped links, and the loop that runs them.
//!
//! Twisted has one object per chain, with a list of callbacks that each change the type of its
//! result. Here each callback is a [`Stage`](super::stage::Stage), typed on both sides, and the
//! parts of a chain know each other only through the traits of this file, so that one loop,
//! [`drive`], runs them all without recursion and without boxing a value: a stage moves its result
//! into the next stage, and hands that one back to the loop.

use super::debug;
use super::failure::Failure;
use super::unwinds::{Caught, Unwinds};
use std::any::Any;
use std::cell::Cell;
use std::mem;
use std::rc::{Rc, Weak};

/// Something with its input in place, ready to run once.
pub(super) trait Run {
    /// Runs user code on the input, moves the result on, and gives who is next, if anybody can run.
    fn run(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>>;
}

/// Something that consumes a `T`: what an outlet leads to.
pub(super) trait Receive<T> {
    /// Stores the input and gives itself back, ready to run.
    fn load(self: Rc<Self>, input: Result<T, Failure>) -> Rc<dyn Run>;
}

/// Something whose end is a `Deferred<T>`.
pub(super) trait Output<T> {
    /// The outlet of this end.
    fn outlet(&self) -> &Outlet<T>;
}

/// The head of a chain: the one thing that all its stages, ends and handles share.
pub(super) trait Chain {
    /// The state of the chain.
    fn head(&self) -> &Head;
    /// Cancels the source, which is unfired: calls the canceller, fires if that did not, and gives
    /// who is to run then. Where the source is other chains, has `firing` cancel them next.
    fn cancel_source(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>>;
}

/// Whether a chain's source has fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    /// Neither fired nor cancelled.
    Unfired,
    /// Its canceller is running; a fire still counts.
    Cancelling,
    /// Fired by its Resolver, its canceller or a cancel. A later fire is swallowed.
    Fired,
}

/// The untyped state of a chain.
pub(super) struct Head {
    /// Whether the source has fired.
    source: Cell<Source>,
    /// The chain that a stage of this one waits for. Weak: that one owns this one, for it continues
    /// it (CHAIN-4).
    inner: Cell<Option<Weak<dyn Chain>>>,
    /// Whether debug mode has noted it (DEBUG-1).
    noted: Cell<bool>,
}

impl Head {
    pub(super) fn new(source: Source) -> Head {
        Head { source: Cell::new(source), inner: Cell::new(None), noted: Cell::new(false) }
    }

    pub(super) fn is_noted(&self) -> bool {
        self.noted.get()
    }

    pub(super) fn set_noted(&self, noted: bool) {
        self.noted.set(noted);
    }

    pub(super) fn source(&self) -> Source {
        self.source.get()
    }

    pub(super) fn set_source(&self, source: Source) {
        self.source.set(source);
    }

    /// Says which chain a stage of this one waits for from now on, or that none does any more.
    pub(super) fn set_inner(&self, inner: Option<Weak<dyn Chain>>) {
        self.inner.set(inner);
    }

    /// Gives the chain that a stage of this one waits for.
    pub(super) fn inner(&self) -> Option<Rc<dyn Chain>> {
        let inner = self.inner.take();
        let found = inner.as_ref().and_then(Weak::upgrade);
        self.inner.set(inner);
        found
    }
}

impl Drop for Head {
    #[inline]
    fn drop(&mut self) {
        if self.noted.get() {
            debug::forget(self);
        }
    }
}

/// The address of a chain's head: what `Debug` names it by.
pub(super) fn address(chain: &Rc<dyn Chain>) -> *const () {
    Rc::as_ptr(chain).cast()
}

/// Tells whether both are one chain. By address alone: a vtable may have copies.
pub(super) fn is_same(one: &Rc<dyn Chain>, other: &Rc<dyn Chain>) -> bool {
    address(one) == address(other)
}

/// What a part of a chain does with its result.
pub(super) struct Outlet<T>(Cell<Out<T>>);

/// The states of an outlet (drawn in the module's header).
enum Out<T> {
    /// No result yet, and nobody to give it to; or given away.
    Open,
    /// Somebody to give it to.
    Next(Rc<dyn Receive<T>>),
    /// A result that nobody has taken.
    Held(Kept<T>),
}

impl<T> Outlet<T> {
    pub(super) fn new() -> Outlet<T> {
        Outlet(Cell::new(Out::Open))
    }

    pub(super) fn holding(result: Result<T, Failure>) -> Outlet<T> {
        Outlet(Cell::new(Out::Held(Kept::new(result))))
    }

    /// Gives the result to whoever is next, or holds it.
    #[inline]
    pub(super) fn deliver(&self, result: Result<T, Failure>) -> Option<Rc<dyn Run>> {
        match self.0.replace(Out::Open) {
            Out::Next(next) => Some(next.load(result)),
            // `Held` cannot be: a part of a chain runs once (CHAIN-1).
            Out::Open | Out::Held(_) => {
                self.0.set(Out::Held(Kept::new(result)));
                None
            }
        }
    }

    /// Gives the result that is held to `next`, which is then ready to run, or remembers `next`.
    pub(super) fn attach(&self, next: Rc<dyn Receive<T>>) -> Option<Rc<dyn Run>> {
        match self.take() {
            Some(result) => Some(next.load(result)),
            None => {
                // What it replaces is `Open`: there is nothing to drop, and no call to find out.
                mem::forget(self.0.replace(Out::Next(next)));
                None
            }
        }
    }

    /// Takes the result that is held.
    pub(super) fn take(&self) -> Option<Result<T, Failure>> {
        match self.0.replace(Out::Open) {
            Out::Held(kept) => Some(kept.into_result()),
            Out::Open => None,
            next @ Out::Next(_) => {
                self.0.set(next);
                None
            }
        }
    }

    /// Tells whether a result is held.
    pub(super) fn is_holding(&self) -> bool {
        self.look(|out| matches!(out, Out::Held(_)))
    }

    /// Tells whether there is somebody to give a result to.
    pub(super) fn has_next(&self) -> bool {
        self.look(|out| matches!(out, Out::Next(_)))
    }

    /// Gives the text of the failure that is held.
    pub(super) fn failure_text(&self) -> Option<String> {
        self.look(|out| match out {
            Out::Held(kept) => kept.failure().map(Failure::to_string),
            Out::Open | Out::Next(_) => None,
        })
    }

    /// Takes the state out for a look. `look` runs no code that could reach this outlet but the
    /// `Display` of an error, which finds it open, and may panic.
    fn look<R>(&self, look: impl FnOnce(&Out<T>) -> R) -> R {
        let looked_at = LookedAt { out: self.0.replace(Out::Open), outlet: self };
        look(&looked_at.out)
    }
}

/// A state that was taken out for a look. Its drop puts it back.
struct LookedAt<'o, T> {
    out: Out<T>,
    outlet: &'o Outlet<T>,
}

impl<T> Drop for LookedAt<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // What it replaces is `Open`: there is nothing to drop, and no call to find out.
        mem::forget(self.outlet.0.replace(mem::replace(&mut self.out, Out::Open)));
    }
}

/// A result that waits for somebody to take it; dropped untaken, a failure is reported (FAIL-1).
pub(super) struct Kept<T>(Option<Result<T, Failure>>);

/// Why nobody ever finds a result taken: who takes it, takes what keeps it.
const TAKEN: &str = "a kept result is taken by consuming what keeps it";

impl<T> Kept<T> {
    #[inline]
    pub(super) fn new(result: Result<T, Failure>) -> Kept<T> {
        Kept(Some(result))
    }

    /// Nothing, to leave in the place of what was moved away.
    #[inline]
    pub(super) fn nothing() -> Kept<T> {
        Kept(None)
    }

    #[inline]
    pub(super) fn into_result(mut self) -> Result<T, Failure> {
        self.0.take().expect(TAKEN)
    }

    /// Gives the failure, if it is one.
    pub(super) fn failure(&self) -> Option<&Failure> {
        self.0.as_ref().and_then(|result| result.as_ref().err())
    }
}

impl<T> Drop for Kept<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(failure) = self.failure() {
            report_lost::<T>(failure);
        }
    }
}

/// Reports a failure that a `Deferred<T>` was dropped with.
#[cold]
fn report_lost<T>(failure: &Failure) {
    failure.report_unhandled(&format!("Deferred<{}>", std::any::type_name::<T>()));
}

/// One run of [`drive`]: what its stages need to know and leave behind.
pub(super) struct Firing {
    /// The chain whose stages are running now.
    pub(super) chain: Rc<dyn Chain>,
    /// The first kill that unwound out of user code, to be resumed at the end.
    kill: Option<Box<dyn Any + Send>>,
    /// What is to be done once nobody can run, the last one first.
    steps: Vec<Step>,
}

impl Firing {
    /// Turns an unwind into the failure that the chain sees, and remembers a kill (CHAIN-3): the
    /// first, for the thread can unwind with one only.
    #[cold]
    pub(super) fn failure_of(&mut self, caught: Caught) -> Failure {
        match caught {
            Caught::Panic(failure) => failure,
            Caught::Kill(payload) => {
                self.keep_kill(payload);
                Failure::cancelled()
            }
        }
    }

    /// Remembers a kill that unwound out of user code, to be resumed at the end.
    #[cold]
    pub(super) fn keep_kill(&mut self, kill: Box<dyn Any + Send>) {
        self.kill.get_or_insert(kill);
    }

    /// Has `step` done before those that are there already.
    pub(super) fn add_step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Does a step, and gives who is to run then.
    #[cold]
    fn perform(&mut self, step: Step) -> Option<Rc<dyn Run>> {
        match step {
            Step::Cancel { unless_fired: Some(whole), .. }
                if whole.head().source() == Source::Fired =>
            {
                None
            }
            Step::Cancel { chain, .. } => self.cancel_source_of(chain.upgrade()?),
            Step::Reopen(chain) => {
                if chain.head().source() == Source::Cancelling {
                    chain.head().set_source(Source::Unfired);
                }
                None
            }
            Step::Run(part) => Some(part),
        }
    }

    /// Cancels the source that a chain waits for, if it waits for one.
    fn cancel_source_of(&mut self, chain: Rc<dyn Chain>) -> Option<Rc<dyn Run>> {
        let source = source_of(chain)?;
        self.chain = Rc::clone(&source);
        source.cancel_source(self)
    }
}

/// Runs `first` and all that follow from it, each at most once, in order; never recursive.
///
/// # Panics
/// Resumes the first kill that unwound out of a stage, after everything ran (CHAIN-3).
pub(super) fn drive(chain: Rc<dyn Chain>, first: Rc<dyn Run>) {
    drive_from(chain, |_| Some(first));
}

/// As [`drive`], from what `start` gives.
#[inline]
pub(super) fn drive_from(
    chain: Rc<dyn Chain>,
    start: impl FnOnce(&mut Firing) -> Option<Rc<dyn Run>>,
) {
    let mut firing = Firing { chain, kill: None, steps: Vec::new() };
    let mut next = start(&mut firing);
    loop {
        while let Some(part) = next {
            next = part.run(&mut firing);
        }
        let Some(step) = firing.steps.pop() else { break };
        next = firing.perform(step);
    }
    if let Some(kill) = firing.kill {
        resume_kill(kill);
    }
}

/// Lets a kill go on, unless the greenlet unwinds already.
#[cold]
pub(super) fn resume_kill(kill: Box<dyn Any + Send>) {
    Unwinds::resume(kill);
}

/// What is still to be done by a run of [`drive`].
pub(super) enum Step {
    /// Cancel what a chain waits for.
    Cancel {
        /// The chain.
        chain: Weak<dyn Chain>,
        /// Somebody who wants that only as long as it has not fired itself.
        unless_fired: Option<Rc<dyn Chain>>,
    },
    /// The members of a chain have been cancelled: it may be cancelled again.
    Reopen(Rc<dyn Chain>),
    /// Go on with a part that has its input.
    Run(Rc<dyn Run>),
}

/// Cancels whatever the chain waits for: its source, or, through as many chains as wait for one
/// another, the source of the innermost (D27). Iterative; does nothing when nothing is waited for.
///
/// # Panics
/// Resumes the first kill that unwound out of a canceller, after all of them were called.
pub(super) fn cancel(chain: Rc<dyn Chain>) {
    drive_from(Rc::clone(&chain), |firing| firing.cancel_source_of(chain));
}

/// Finds the chain whose unfired source a chain waits for.
fn source_of(mut chain: Rc<dyn Chain>) -> Option<Rc<dyn Chain>> {
    // Chains that wait for one another in a circle have no source to cancel, and the walk must end
    // there too: `mark` is a chain met earlier, moved up at each power of two (Brent's way).
    let mut mark = Rc::clone(&chain);
    let mut steps_count: usize = 0;
    loop {
        match chain.head().source() {
            Source::Unfired => return Some(chain),
            Source::Cancelling => return None,
            Source::Fired => {}
        }
        chain = chain.head().inner()?;
        if is_same(&chain, &mark) {
            return None;
        }
        steps_count += 1;
        if steps_count.is_power_of_two() {
            mark = Rc::clone(&chain);
        }
    }
}
