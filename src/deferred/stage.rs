//! The parts of a chain behind its source: [`Stage`], [`Tail`], [`Arrival`] and [`Gate`].
//!
//! Each is one allocation that holds its input, its user code and, if a Deferred ends there, its
//! outlet. A value moves from outlet to input and is never boxed.

use super::cause::Handled;
use super::chain::{self, Chain, Firing, Outlet, Output, Receive, Run};
use super::debug;
use super::end::Deferred;
use super::failure::Failure;
use super::unwinds::catch;
use std::cell::Cell;
use std::mem;
use std::rc::Rc;

/// What a stage's user code came to.
pub(super) enum Outcome<U: 'static> {
    /// A result.
    Now(Result<U, Failure>),
    /// A Deferred to wait for.
    Wait(Deferred<U>),
}

/// Code that runs once, until it does, and its input once that is there. One option around both:
/// so they share the space that says what is there.
struct Body<T, F>(Cell<Option<Loading<T, F>>>);

/// Code, and its input once that is there.
type Loading<T, F> = (F, Option<Result<T, Failure>>);

impl<T, F> Body<T, F> {
    fn new(code: F) -> Body<T, F> {
        Body(Cell::new(Some((code, None))))
    }

    /// Stores the input.
    #[inline]
    fn load(&self, input: Result<T, Failure>) {
        let Some((code, before)) = self.0.take() else { return };
        debug_assert!(before.is_none(), "CHAIN-1: loaded twice, by an outlet that delivers once");
        // What is replaced is nothing: there is no drop, and no call to find that out.
        mem::forget(before);
        mem::forget(self.0.replace(Some((code, Some(input)))));
    }

    /// Takes code and input out.
    #[inline]
    fn unload(&self) -> Option<(F, Result<T, Failure>)> {
        let (code, input) = self.0.take()?;
        debug_assert!(input.is_some(), "CHAIN-1: run without input");
        Some((code, input?))
    }
}

/// A callback, from a `T` to a `U`.
pub(super) struct Stage<T, U, F> {
    /// The callback and its input.
    body: Body<T, F>,
    /// Where its result goes.
    outlet: Outlet<U>,
}

impl<T, U, F> Stage<T, U, F>
where
    T: 'static,
    U: 'static,
    F: FnOnce(Result<T, Failure>) -> Outcome<U> + 'static,
{
    pub(super) fn new(apply: F) -> Rc<Self> {
        Rc::new(Stage { body: Body::new(apply), outlet: Outlet::new() })
    }
}

impl<T, U, F> Receive<T> for Stage<T, U, F>
where
    T: 'static,
    U: 'static,
    F: FnOnce(Result<T, Failure>) -> Outcome<U> + 'static,
{
    #[inline]
    fn load(self: Rc<Self>, input: Result<T, Failure>) -> Rc<dyn Run> {
        self.body.load(input);
        self
    }
}

impl<T, U, F> Run for Stage<T, U, F>
where
    T: 'static,
    U: 'static,
    F: FnOnce(Result<T, Failure>) -> Outcome<U> + 'static,
{
    fn run(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>> {
        let (apply, mut input) = self.body.unload()?;
        let handled = Handled::of(&mut input);
        let result = match catch(|| apply(input)) {
            Ok(Outcome::Now(result)) => result,
            Ok(Outcome::Wait(inner)) => match inner.try_take() {
                Ok(result) => result,
                Err(inner) => return wait_for(inner, handled, self, firing),
            },
            Err(caught) => Err(firing.failure_of(caught)),
        };
        let mut result = handled.name_in(result, |kill| firing.keep_kill(kill));
        debug::mark(&mut result, &*firing.chain);
        self.outlet.deliver(result)
    }
}

impl<T, U, F> Output<U> for Stage<T, U, F> {
    fn outlet(&self) -> &Outlet<U> {
        &self.outlet
    }
}

/// Makes `outer`, a stage of the chain that is running, wait for `inner`'s result (D14).
///
/// The end of `inner` is consumed by a [`Tail`] which, when it runs, moves the loop from the inner
/// chain back to the outer one: however many chains wait for one another, one loop runs them all.
pub(super) fn wait_for<U: 'static>(
    inner: Deferred<U>,
    handled: Handled,
    outer: Rc<dyn Output<U>>,
    firing: &mut Firing,
) -> Option<Rc<dyn Run>> {
    let (inner_chain, inner_end) = inner.into_link();
    if chain::is_same(&inner_chain, &firing.chain) {
        let failure = Failure::msg("a callback returned the Deferred that waits for it (D19)");
        let result = handled.name_in(Err(failure), |kill| firing.keep_kill(kill));
        return outer.outlet().deliver(result);
    }
    firing.chain.head().set_inner(Some(Rc::downgrade(&inner_chain)));
    let outer_chain = Rc::clone(&firing.chain);
    let tail = Tail::new(move |result, firing: &mut Firing| {
        outer_chain.head().set_inner(None);
        firing.chain = outer_chain;
        let result = handled.name_in(result, |kill| firing.keep_kill(kill));
        outer.outlet().deliver(result)
    });
    inner_end.outlet().attach(tail)
}

/// The last part of a chain, which ends in no Deferred: what continues another chain.
pub(super) struct Tail<T, F> {
    /// The code and its input.
    body: Body<T, F>,
}

impl<T, F> Tail<T, F>
where
    T: 'static,
    F: FnOnce(Result<T, Failure>, &mut Firing) -> Option<Rc<dyn Run>> + 'static,
{
    /// Makes a tail of `code`, which is this floor's own and never unwinds.
    pub(super) fn new(code: F) -> Rc<Self> {
        Rc::new(Tail { body: Body::new(code) })
    }
}

impl<T, F> Receive<T> for Tail<T, F>
where
    T: 'static,
    F: FnOnce(Result<T, Failure>, &mut Firing) -> Option<Rc<dyn Run>> + 'static,
{
    fn load(self: Rc<Self>, input: Result<T, Failure>) -> Rc<dyn Run> {
        self.body.load(input);
        self
    }
}

impl<T, F> Run for Tail<T, F>
where
    T: 'static,
    F: FnOnce(Result<T, Failure>, &mut Firing) -> Option<Rc<dyn Run>> + 'static,
{
    fn run(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>> {
        let (code, input) = self.body.unload()?;
        drop(self);
        code(input, firing)
    }
}

/// The last part of a chain whose result somebody waits for in place: the result stays in here, and
/// one allocation is all that a wait needs.
pub(crate) struct Arrival<T, F> {
    /// The result, until it is taken.
    result: Cell<Option<Result<T, Failure>>>,
    /// Wakes whoever waits. The crate's own: it never unwinds.
    wake: F,
    /// What a failure is reported as that nobody took.
    what: &'static str,
}

impl<T: 'static, F: Fn() + 'static> Arrival<T, F> {
    pub(crate) fn new(what: &'static str, wake: F) -> Rc<Self> {
        Rc::new(Arrival { result: Cell::new(None), wake, what })
    }

    /// Takes the result, if it is there.
    pub(crate) fn take(&self) -> Option<Result<T, Failure>> {
        self.result.take()
    }
}

impl<T: 'static, F: Fn() + 'static> Receive<T> for Arrival<T, F> {
    fn load(self: Rc<Self>, input: Result<T, Failure>) -> Rc<dyn Run> {
        self.result.set(Some(input));
        self
    }
}

impl<T: 'static, F: Fn() + 'static> Run for Arrival<T, F> {
    fn run(self: Rc<Self>, _: &mut Firing) -> Option<Rc<dyn Run>> {
        (self.wake)();
        None
    }
}

impl<T, F> Drop for Arrival<T, F> {
    fn drop(&mut self) {
        if let Some(Err(failure)) = self.result.take() {
            failure.report_unhandled(self.what);
        }
    }
}

/// A pause: keeps a result back while it is closed (D11).
pub(super) struct Gate<T> {
    /// The result that is kept back.
    input: Cell<Option<Result<T, Failure>>>,
    /// Whether it keeps results back.
    closed: Cell<bool>,
    /// Where the result goes once it is open.
    outlet: Outlet<T>,
}

impl<T: 'static> Gate<T> {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Gate { input: Cell::new(None), closed: Cell::new(true), outlet: Outlet::new() })
    }
}

/// A gate without its type, for the guard that opens it.
pub(super) trait Open {
    /// Opens the gate of `chain` and runs what it kept back.
    fn open(self: Rc<Self>, chain: Rc<dyn Chain>);
}

impl<T: 'static> Open for Gate<T> {
    fn open(self: Rc<Self>, chain: Rc<dyn Chain>) {
        self.closed.set(false);
        if let Some(result) = self.input.take()
            && let Some(next) = self.outlet.deliver(result)
        {
            chain::drive(chain, next);
        }
    }
}

impl<T: 'static> Receive<T> for Gate<T> {
    fn load(self: Rc<Self>, input: Result<T, Failure>) -> Rc<dyn Run> {
        self.input.set(Some(input));
        self
    }
}

impl<T: 'static> Run for Gate<T> {
    fn run(self: Rc<Self>, _: &mut Firing) -> Option<Rc<dyn Run>> {
        if self.closed.get() {
            return None;
        }
        self.outlet.deliver(self.input.take()?)
    }
}

impl<T> Output<T> for Gate<T> {
    fn outlet(&self) -> &Outlet<T> {
        &self.outlet
    }
}
