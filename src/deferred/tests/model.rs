//! Random programs against a plain model of Twisted's rules.
//!
//! A program uses a few Deferreds by number: adds callbacks, fires, cancels, pauses and chains, and
//! its callbacks do the same from inside. The model is what `defer.py` does, with lists and flags
//! and recursion. Both note each call of a callback with what it got; the notes must be equal after
//! every step, and the results at the end.
//!
//! Some things differ on purpose, and the programs and the model go round them: a pause here holds
//! back what is added after it, so a program pauses only where no callback is pending; a Deferred
//! that is returned while a callback of its own runs is waited for, where upstream takes what that
//! callback was given; one that returns itself fails, and there are no longer circles: each waits
//! for those of higher numbers only.

use super::super::{Abandoned, CancelHandle, Cancelled, Deferred, Failure, PauseGuard, Resolver};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::borrow::Borrow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// How many Deferreds a program uses: few, so that they meet often.
const COUNT: usize = 3;

/// A value, or the text of an error.
type Res = Result<u8, String>;

/// Which line a callback is on.
#[derive(Clone, Copy, Debug)]
enum Line {
    Callback,
    Errback,
    Both,
}

/// What a callback does, besides noting what it got.
#[derive(Clone, Copy, Debug)]
enum Does {
    Returns(u8),
    Raises(u8),
    Passes,
    /// Returns the Deferred of that number, if it is there.
    Waits(usize),
    Fires(usize, u8),
    Cancels(usize),
    AddsTo(usize),
}

/// A step of a program.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(usize, Line, Does),
    Fire(usize, u8),
    Fail(usize, u8),
    Abandon(usize),
    Cancel(usize),
    Pause(usize),
    Unpause(usize),
    Chain(usize, usize),
}

fn error(number: u8) -> String {
    format!("error {number}")
}

const ITSELF: &str = "a callback returned the Deferred that waits for it (D19)";

// ---- the model: Twisted's rules ----------------------------------------------------------------

#[derive(Clone, Debug)]
enum Entry {
    User {
        id: String,
        line: Line,
        does: Does,
    },
    /// Goes on with one that waits for this one.
    Continue(usize),
    /// Fires another one: `chainDeferred`.
    ChainTo(usize),
}

/// A Deferred as upstream has it.
#[derive(Default, Debug)]
struct Plain {
    called: bool,
    result: Option<Res>,
    callbacks: VecDeque<Entry>,
    paused_count: usize,
    running: bool,
    waits_for: Option<usize>,
    /// What the program still has of it.
    has_end: bool,
    has_resolver: bool,
    has_handle: bool,
}

struct Model {
    all: Vec<Plain>,
    notes: Vec<String>,
}

impl Model {
    fn new(handles: [bool; COUNT]) -> Model {
        let plain = |has_handle| Plain {
            has_end: true,
            has_resolver: true,
            has_handle,
            ..Plain::default()
        };
        Model { all: handles.into_iter().map(plain).collect(), notes: Vec::new() }
    }

    fn start(&mut self, d: usize, result: Res) {
        if !self.all[d].called {
            self.all[d].called = true;
            self.all[d].result = Some(result);
            self.run(d);
        }
    }

    fn cancel(&mut self, d: usize) {
        match self.all[d].waits_for {
            _ if !self.all[d].called => self.start(d, Err(Cancelled.to_string())),
            Some(inner) => self.cancel(inner),
            None => {}
        }
    }

    fn is_fired(&self, d: usize) -> bool {
        let plain = &self.all[d];
        plain.result.is_some() && plain.paused_count == 0 && !plain.running
    }

    fn run(&mut self, d: usize) {
        while self.is_fired(d)
            && let Some(entry) = self.all[d].callbacks.pop_front()
        {
            let result = self.all[d].result.clone().expect("it has fired");
            self.all[d].running = true;
            let waits = self.call(d, entry, result);
            self.all[d].running = false;
            match waits {
                Some(inner) if inner == d => self.all[d].result = Some(Err(ITSELF.to_owned())),
                Some(inner) if self.is_fired(inner) && self.all[inner].callbacks.is_empty() => {
                    self.all[d].result = self.all[inner].result.take();
                }
                Some(inner) => {
                    self.all[d].paused_count += 1;
                    self.all[d].waits_for = Some(inner);
                    self.all[inner].callbacks.push_back(Entry::Continue(d));
                }
                None => {}
            }
        }
    }

    /// Calls an entry, which sets the result; or gives the Deferred that is to be waited for.
    fn call(&mut self, d: usize, entry: Entry, result: Res) -> Option<usize> {
        let (id, line, does) = match entry {
            Entry::Continue(outer) => {
                self.all[outer].result = Some(result);
                self.all[outer].waits_for = None;
                self.all[outer].paused_count -= 1;
                self.run(outer);
                return None;
            }
            Entry::ChainTo(target) => {
                self.start(target, result);
                return None;
            }
            Entry::User { id, line, does } => (id, line, does),
        };
        match (line, &result) {
            (Line::Callback, Err(_)) | (Line::Errback, Ok(_)) => return None,
            _ => self.notes.push(format!("{id} got {result:?}")),
        }
        match does {
            Does::Returns(value) => self.all[d].result = Some(Ok(value)),
            Does::Raises(number) => self.all[d].result = Some(Err(error(number))),
            Does::Passes => {}
            Does::Waits(inner) if self.all[inner].has_end => {
                self.all[inner].has_end = false;
                return Some(inner);
            }
            Does::Waits(_) => {}
            Does::Fires(other, value) => self.fire(other, Ok(value)),
            Does::Cancels(other) if self.all[other].has_handle => self.cancel(other),
            Does::Cancels(_) => {}
            Does::AddsTo(other) => self.add(other, format!("{id}+"), Line::Both, Does::Passes),
        }
        None
    }

    fn fire(&mut self, d: usize, result: Res) {
        if std::mem::take(&mut self.all[d].has_resolver) {
            self.start(d, result);
        }
    }

    fn add(&mut self, d: usize, id: String, line: Line, does: Does) {
        if std::mem::take(&mut self.all[d].has_end) {
            self.all[d].callbacks.push_back(Entry::User { id, line, does });
            self.run(d);
            self.all[d].has_end = true;
        }
    }

    /// Tells whether a pause now is the same here and there.
    fn may_pause(&self, d: usize) -> bool {
        self.all[d].has_end && self.all[d].callbacks.is_empty()
    }

    fn may_chain(&self, d: usize, target: usize) -> bool {
        self.all[d].has_end && self.all[target].has_resolver
    }

    fn step(&mut self, number: usize, step: Step) {
        match step {
            Step::Add(d, line, does) => self.add(d, number.to_string(), line, does),
            Step::Fire(d, value) => self.fire(d, Ok(value)),
            Step::Fail(d, number) => self.fire(d, Err(error(number))),
            Step::Abandon(d) => self.fire(d, Err(Abandoned.to_string())),
            Step::Cancel(d) if self.all[d].has_handle => self.cancel(d),
            Step::Cancel(_) => {}
            Step::Pause(d) => self.all[d].paused_count += 1,
            Step::Unpause(d) => {
                self.all[d].paused_count -= 1;
                self.run(d);
            }
            Step::Chain(d, target) => {
                self.all[d].has_end = false;
                self.all[target].has_resolver = false;
                self.all[d].callbacks.push_back(Entry::ChainTo(target));
                self.run(d);
            }
        }
    }
}

// ---- the same with Deferreds -------------------------------------------------------------------

#[derive(Default)]
struct Slot {
    resolver: Option<Resolver<u8>>,
    end: Option<Deferred<u8>>,
    handle: Option<CancelHandle>,
    pauses: Vec<PauseGuard>,
}

struct World {
    slots: RefCell<Vec<Slot>>,
    notes: RefCell<Vec<String>>,
}

/// The error itself, without what was handled when it came up: upstream knows no causes.
fn plain(result: Result<u8, impl Borrow<Failure>>) -> Res {
    result.map_err(|failure| failure.borrow().error().expect("no panics").to_string())
}

impl World {
    fn new(handles: [bool; COUNT]) -> Rc<World> {
        let slots = handles.into_iter().map(|has_handle| {
            let (resolver, end) = Deferred::new();
            let handle = has_handle.then(|| end.canceller());
            Slot { resolver: Some(resolver), end: Some(end), handle, pauses: Vec::new() }
        });
        Rc::new(World { slots: RefCell::new(slots.collect()), notes: RefCell::default() })
    }

    /// Changes a slot. Nothing is borrowed any more when this returns.
    fn at<R>(&self, d: usize, change: impl FnOnce(&mut Slot) -> R) -> R {
        change(&mut self.slots.borrow_mut()[d])
    }

    fn fire(&self, d: usize, result: Result<u8, Failure>) {
        if let Some(resolver) = self.at(d, |slot| slot.resolver.take()) {
            resolver.fire(result);
        }
    }

    fn cancel(&self, d: usize) {
        if let Some(handle) = self.at(d, |slot| slot.handle.clone()) {
            handle.cancel();
        }
    }

    fn add(self: &Rc<Self>, d: usize, id: String, line: Line, does: Does) {
        let Some(end) = self.at(d, |slot| slot.end.take()) else { return };
        let world = Rc::clone(self);
        let call = move |result: Result<u8, Failure>| -> Result<Deferred<u8>, Result<u8, Failure>> {
            let shown = plain(result.as_ref().copied());
            world.notes.borrow_mut().push(format!("{id} got {shown:?}"));
            match does {
                Does::Returns(value) => return Err(Ok(value)),
                Does::Raises(number) => return Err(Err(Failure::msg(error(number)))),
                Does::Waits(inner) => {
                    if let Some(inner) = world.at(inner, |slot| slot.end.take()) {
                        return Ok(inner);
                    }
                }
                Does::Passes => {}
                Does::Fires(other, value) => world.fire(other, Ok(value)),
                Does::Cancels(other) => world.cancel(other),
                Does::AddsTo(other) => {
                    world.add(other, format!("{id}+"), Line::Both, Does::Passes);
                }
            }
            Err(result)
        };
        let later = |outcome: Result<Deferred<u8>, Result<u8, Failure>>| match outcome {
            Ok(inner) => inner,
            Err(result) => Deferred::from_result(result),
        };
        let end = match line {
            Line::Callback => end.and_then(move |value| later(call(Ok(value)))),
            Line::Errback => end.or_else(move |failure| later(call(Err(failure)))),
            Line::Both => end.then(move |result| later(call(result))),
        };
        self.at(d, |slot| slot.end = Some(end));
    }

    fn step(self: &Rc<Self>, number: usize, step: Step) {
        match step {
            Step::Add(d, line, does) => self.add(d, number.to_string(), line, does),
            Step::Fire(d, value) => self.fire(d, Ok(value)),
            Step::Fail(d, number) => self.fire(d, Err(Failure::msg(error(number)))),
            Step::Abandon(d) => drop(self.at(d, |slot| slot.resolver.take())),
            Step::Cancel(d) => self.cancel(d),
            Step::Pause(d) => self.at(d, |slot| {
                let pause = slot.end.as_ref().expect("the model has it").pause();
                slot.pauses.push(pause);
            }),
            Step::Unpause(d) => drop(self.at(d, |slot| slot.pauses.pop())),
            Step::Chain(d, target) => {
                let end = self.at(d, |slot| slot.end.take()).expect("the model has it");
                let resolver = self.at(target, |slot| slot.resolver.take());
                end.chain_deferred(resolver.expect("the model has it"));
            }
        }
    }
}

// ---- programs ----------------------------------------------------------------------------------

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = 0..COUNT;
    let line = prop_oneof![Just(Line::Callback), Just(Line::Errback), Just(Line::Both)];
    let does = prop_oneof![
        any::<u8>().prop_map(Does::Returns),
        any::<u8>().prop_map(Does::Raises),
        Just(Does::Passes),
        which.clone().prop_map(Does::Waits),
        which.clone().prop_map(Does::Waits),
        (which.clone(), any::<u8>()).prop_map(|(d, value)| Does::Fires(d, value)),
        which.clone().prop_map(Does::Cancels),
        which.clone().prop_map(Does::AddsTo),
    ];
    let step = prop_oneof![
        8 => (which.clone(), line, does).prop_map(|(d, line, does)| Step::Add(d, line, does)),
        3 => (which.clone(), any::<u8>()).prop_map(|(d, value)| Step::Fire(d, value)),
        1 => (which.clone(), any::<u8>()).prop_map(|(d, number)| Step::Fail(d, number)),
        1 => which.clone().prop_map(Step::Abandon),
        3 => which.clone().prop_map(Step::Cancel),
        2 => which.clone().prop_map(Step::Pause),
        2 => which.clone().prop_map(Step::Unpause),
        1 => (which.clone(), which).prop_map(|(d, target)| Step::Chain(d, target)),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// More of them: `PROPTEST_CASES=100000 cargo test --lib model`.
    #[test]
    fn slow_random_programs_behave_as_twisteds_rules_say(
        steps in steps(),
        handles in any::<[bool; COUNT]>(),
    ) {
        let mut outcome = Ok(());
        super::reports_of(|| outcome = compare(steps, handles));
        outcome?;
    }
}

/// Runs a program in both worlds.
fn compare(steps: Vec<Step>, handles: [bool; COUNT]) -> Result<(), TestCaseError> {
    let (mut model, world) = (Model::new(handles), World::new(handles));
    let mut pauses_counts = [0; COUNT];
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Pause(d) if !model.may_pause(d) => continue,
            Step::Unpause(d) if pauses_counts[d] == 0 => continue,
            Step::Chain(d, target) if d <= target || !model.may_chain(d, target) => continue,
            Step::Add(d, _, Does::Waits(inner)) if inner < d => continue,
            Step::Pause(d) => pauses_counts[d] += 1,
            Step::Unpause(d) => pauses_counts[d] -= 1,
            _ => {}
        }
        model.step(number, step);
        world.step(number, step);
        prop_assert_eq!(&*world.notes.borrow(), &model.notes);
    }
    for d in 0..COUNT {
        let end = world.at(d, |slot| slot.end.take());
        prop_assert_eq!(end.is_some(), model.all[d].has_end);
        let Some(end) = end else { continue };
        prop_assert_eq!(end.is_fired(), model.is_fired(d), "{:?}", end);
        let expected = model.is_fired(d).then(|| model.all[d].result.take()).flatten();
        prop_assert_eq!(end.try_take().ok().map(plain), expected);
    }
    // A callback that never ran owns the world, and the world owns it.
    let slots = (0..COUNT).map(|_| Slot::default()).collect();
    drop(world.slots.replace(slots));
    Ok(())
}
