//! [`Deferred`]: the typed end of a chain, or a result that is there already.

use super::cancel::{CancelHandle, PauseGuard};
use super::cause::Handled;
use super::chain::{self, Chain, Firing, Kept, Output, Run, Source};
use super::debug;
use super::failure::Failure;
use super::resolver::{self, Cancelling, Origin, Resolver};
use super::stage::{self, Arrival, Gate, Outcome, Stage, Tail};
use super::unwinds::{Caught, catch};
use std::cell::Cell;
use std::fmt;
use std::mem;
use std::panic::Location;
use std::rc::Rc;

/// A result that may come later, and the callbacks that will have it.
///
/// Each `add_…` consumes the Deferred and gives the one that stands for the result of the callback
/// just added: a chain is written in one expression, changes its type from step to step, and has
/// one end, so that two consumers of one result cannot be written.
/// ```
/// # use greenloop::{Deferred, Failure};
/// let (resolver, deferred) = Deferred::<&str>::new();
/// let port = deferred
///     .add_callback(|text| Ok(text.parse::<u16>()?))
///     .add_errback(|failure: Failure| if failure.is_cancelled() { Err(failure) } else { Ok(80) });
/// resolver.callback("eighty"); // both run in here
/// # assert!(port.is_fired());
/// ```
/// Callbacks run synchronously in whoever fires the chain, or, when the result is there already, in
/// whoever adds them. A callback that panics passes a [`Failure`] to the next errback.
///
/// A Deferred that is dropped leaves its callbacks to run all the same. If its result is a failure,
/// or becomes one later, that is *unhandled* and reported (see
/// [`set_unhandled_hook`](crate::report::set_unhandled_hook)), unless it is a cancellation.
///
/// It stays on its thread:
/// ```compile_fail,E0277
/// # use greenloop::Deferred;
/// let deferred = Deferred::succeed(1);
/// std::thread::spawn(move || drop(deferred)); // `Rc` cannot be sent
/// ```
pub struct Deferred<T: 'static> {
    /// A cell, for what takes `&self` may have to move a result into a chain (`promote`).
    state: Cell<State<T>>,
}

/// What a Deferred is.
enum State<T> {
    /// A result, and no chain: needs no allocation.
    Ready(Kept<T>),
    /// The end of a chain: its head, and the part whose outlet is the end.
    Linked(Rc<dyn Chain>, Rc<dyn Output<T>>),
}

impl<T> State<T> {
    /// What a method leaves here while it is at work on the state, which is never while user code
    /// runs. Not a variant: it would make every Deferred larger.
    fn vacant() -> State<T> {
        State::Ready(Kept::nothing())
    }
}

impl<T: 'static> Deferred<T> {
    /// Makes an unfired Deferred and the Resolver that fires it.
    #[track_caller]
    pub fn new() -> (Resolver<T>, Deferred<T>) {
        resolver::ends(Origin::unfired())
    }

    /// Makes an unfired Deferred whose cancellation calls `canceller`.
    ///
    /// Shape: called at most once, and dropped unused when the Deferred fires. It stops the work,
    /// and may fire the Deferred through what it is handed, or let the producer fire its Resolver;
    /// otherwise the Deferred gets `Cancelled` when it returns, or the panic it ended with.
    /// ```
    /// # use greenloop::Deferred;
    /// let (resolver, deferred) = Deferred::with_canceller(|stop| stop.callback("nothing"));
    /// deferred.cancel();
    /// assert!(resolver.is_cancelled());
    /// # drop((resolver, deferred));
    /// ```
    #[track_caller]
    pub fn with_canceller(
        canceller: impl FnOnce(Cancelling<'_, T>) + 'static,
    ) -> (Resolver<T>, Deferred<T>) {
        resolver::ends(Origin::with_canceller(canceller))
    }

    /// Makes a Deferred that has this value.
    #[inline]
    pub fn succeed(value: T) -> Deferred<T> {
        Deferred::from_result(Ok(value))
    }

    /// Makes a Deferred that has this error.
    #[track_caller]
    pub fn fail(failure: impl Into<Failure>) -> Deferred<T> {
        Deferred::from_result(Err(failure.into()))
    }

    /// Makes a Deferred that has this result.
    #[inline]
    #[track_caller]
    pub fn from_result(mut result: Result<T, Failure>) -> Deferred<T> {
        debug::mark_born(&mut result);
        Deferred::ready(result)
    }

    /// Makes a Deferred that has this result, without a trail.
    #[inline]
    pub(super) fn ready(result: Result<T, Failure>) -> Deferred<T> {
        Deferred { state: Cell::new(State::Ready(Kept::new(result))) }
    }

    /// Adds a callback: `callback` gets the value, and what it returns goes on. A failure passes it
    /// by.
    pub fn add_callback<U: 'static>(
        self,
        callback: impl FnOnce(T) -> Result<U, Failure> + 'static,
    ) -> Deferred<U> {
        self.stage(move |result| Outcome::Now(result.and_then(callback)))
    }

    /// Adds a callback that returns a Deferred: the chain goes on with that one's result, when it
    /// is there.
    pub fn and_then<U: 'static>(
        self,
        callback: impl FnOnce(T) -> Deferred<U> + 'static,
    ) -> Deferred<U> {
        self.stage(move |result| match result {
            Ok(value) => Outcome::Wait(callback(value)),
            Err(failure) => Outcome::Now(Err(failure)),
        })
    }

    /// Adds an errback: `errback` gets the failure, and what it returns goes on, a value back on
    /// the callback line. A value passes it by.
    pub fn add_errback(
        self,
        errback: impl FnOnce(Failure) -> Result<T, Failure> + 'static,
    ) -> Deferred<T> {
        self.stage(move |result| Outcome::Now(result.or_else(errback)))
    }

    /// Adds an errback that returns a Deferred: the chain goes on with that one's result.
    pub fn or_else(self, errback: impl FnOnce(Failure) -> Deferred<T> + 'static) -> Deferred<T> {
        self.stage(move |result| match result {
            Ok(value) => Outcome::Now(Ok(value)),
            Err(failure) => Outcome::Wait(errback(failure)),
        })
    }

    /// Adds a callback and an errback on one level: exactly one of them is called, and a failure of
    /// the callback does not reach this errback.
    pub fn add_callbacks<U: 'static>(
        self,
        callback: impl FnOnce(T) -> Result<U, Failure> + 'static,
        errback: impl FnOnce(Failure) -> Result<U, Failure> + 'static,
    ) -> Deferred<U> {
        self.stage(move |result| match result {
            Ok(value) => Outcome::Now(callback(value)),
            Err(failure) => Outcome::Now(errback(failure)),
        })
    }

    /// Adds what is called with the result, of either kind: for clean-up.
    pub fn add_both<U: 'static>(
        self,
        both: impl FnOnce(Result<T, Failure>) -> Result<U, Failure> + 'static,
    ) -> Deferred<U> {
        self.stage(move |result| Outcome::Now(both(result)))
    }

    /// Adds what is called with the result, of either kind, and returns a Deferred: the chain goes
    /// on with that one's result.
    pub fn then<U: 'static>(
        self,
        both: impl FnOnce(Result<T, Failure>) -> Deferred<U> + 'static,
    ) -> Deferred<U> {
        self.stage(move |result| Outcome::Wait(both(result)))
    }

    /// Fires another Deferred with this one's result, when it is there.
    ///
    /// Unlike a callback that fires it, a row of these of any length runs without recursion. A
    /// cancellation of the other one is not forwarded to this one; a late result is then swallowed.
    /// # Source
    /// Twisted's `chainDeferred`.
    #[track_caller]
    pub fn chain_deferred(self, resolver: Resolver<T>) {
        let Some(origin) = resolver.into_origin() else {
            return;
        };
        if debug::is_on() {
            debug::note_fired(origin.head(), Location::caller());
        }
        let target: Rc<dyn Chain> = origin.clone();
        if self.chain().is_some_and(|chain| chain::is_same(&chain, &target)) {
            return origin.fire(Err(Failure::msg("a Deferred was chained to itself")));
        }
        self.continue_in(target, move |result, firing| origin.begin(result, firing));
    }

    /// Cancels whatever this Deferred waits for.
    ///
    /// Unfired: its canceller is called, and it gets `Cancelled` unless that fires something else.
    /// Waiting for an inner Deferred that a callback returned: that one is cancelled, and so on.
    /// Otherwise nothing. It is a request: an errback may turn `Cancelled` into a value.
    /// # Panics
    /// As [`Resolver::callback`]: a kill goes on, nothing else.
    pub fn cancel(&self) {
        if let Some(chain) = self.chain() {
            chain::cancel(chain);
        }
    }

    /// Makes a handle that can cancel later, when this Deferred has been consumed.
    pub fn canceller(&self) -> CancelHandle {
        CancelHandle::new(&self.promote().0)
    }

    /// Keeps the result back until the guard is dropped: callbacks added from now on wait, those
    /// added before do not. Pauses add up.
    pub fn pause(&self) -> PauseGuard {
        let (chain, end) = self.promote();
        let gate = Gate::new();
        if let Some(next) = end.outlet().attach(gate.clone()) {
            chain::drive(Rc::clone(&chain), next);
        }
        self.state.set(State::Linked(Rc::clone(&chain), gate.clone()));
        PauseGuard::new(chain, gate)
    }

    /// Tells whether the result is there: a callback added now would run at once.
    pub fn is_fired(&self) -> bool {
        self.look(|state| match state {
            State::Ready(_) => true,
            State::Linked(_, end) => end.outlet().is_holding(),
        })
    }

    /// Takes the result if it is there, else gives the Deferred back.
    #[inline]
    pub(crate) fn try_take(self) -> Result<Result<T, Failure>, Deferred<T>> {
        match self.state.into_inner() {
            State::Ready(kept) => Ok(kept.into_result()),
            State::Linked(chain, end) => match end.outlet().take() {
                Some(result) => Ok(result),
                None => Err(Deferred::linked(chain, end)),
            },
        }
    }

    /// Makes a handle of what there is: of nothing, if there is no chain.
    pub(super) fn member(&self) -> CancelHandle {
        self.chain().as_ref().map_or_else(CancelHandle::inert, CancelHandle::new)
    }

    /// Ends the chain with `observer`, which is called once with the final result.
    ///
    /// Shape: what `observer` does with a failure is its own affair: none is reported here, but for
    /// a panic of `observer` itself.
    pub(crate) fn observe(
        self,
        observer: impl FnOnce(Result<T, Failure>) + 'static,
    ) -> CancelHandle {
        let handle = self.member();
        drop(self.stage(move |result| {
            observer(result);
            Outcome::Now(Ok(()))
        }));
        handle
    }

    /// Ends the chain with `arrival`, which keeps its result and wakes whoever waits for it.
    #[inline]
    pub(crate) fn arrive<F: Fn() + 'static>(self, arrival: Rc<Arrival<T, F>>) -> CancelHandle {
        let (chain, end) = self.into_link();
        let handle = CancelHandle::new(&chain);
        if let Some(next) = end.outlet().attach(arrival) {
            chain::drive(chain, next);
        }
        handle
    }

    /// Ends the chain with `code` of this floor, which continues `target` with its result.
    pub(super) fn continue_in(
        self,
        target: Rc<dyn Chain>,
        code: impl FnOnce(Result<T, Failure>, &mut Firing) -> Option<Rc<dyn Run>> + 'static,
    ) {
        let (chain, end) = match self.state.into_inner() {
            State::Ready(kept) => {
                let result = kept.into_result();
                return chain::drive_from(target, |firing| code(result, firing));
            }
            State::Linked(chain, end) => (chain, end),
        };
        let tail = Tail::new(move |result, firing: &mut Firing| {
            firing.chain = target;
            code(result, firing)
        });
        if let Some(next) = end.outlet().attach(tail) {
            chain::drive(chain, next);
        }
    }

    pub(super) fn linked(chain: Rc<dyn Chain>, end: Rc<dyn Output<T>>) -> Deferred<T> {
        Deferred { state: Cell::new(State::Linked(chain, end)) }
    }

    /// Gives head and end, making a chain first if there is none.
    pub(super) fn into_link(self) -> (Rc<dyn Chain>, Rc<dyn Output<T>>) {
        match self.state.into_inner() {
            State::Linked(chain, end) => (chain, end),
            State::Ready(kept) => {
                let origin = Origin::fired(kept.into_result());
                (Rc::clone(&origin) as Rc<dyn Chain>, origin)
            }
        }
    }

    /// Gives head and end, and turns a bare result into a chain first, so that others can share it.
    fn promote(&self) -> (Rc<dyn Chain>, Rc<dyn Output<T>>) {
        let state = Cell::new(self.state.replace(State::vacant()));
        let (chain, end) = Deferred { state }.into_link();
        self.state.set(State::Linked(Rc::clone(&chain), Rc::clone(&end)));
        (chain, end)
    }

    /// Adds a part: every `add_…` ends here. Runs it at once if the result is there (D3).
    ///
    /// The parts of the state are moved one by one: moving it as a whole costs more than all the
    /// rest but the allocation, for it would be read wide where it was just written narrow.
    fn stage<U, F>(self, apply: F) -> Deferred<U>
    where
        U: 'static,
        F: FnOnce(Result<T, Failure>) -> Outcome<U> + 'static,
    {
        let (chain, end) = match self.state.into_inner() {
            State::Ready(kept) => return run_now(kept.into_result(), apply),
            State::Linked(chain, end) => (chain, end),
        };
        // With a handle about, the chain has to go on although it has its result, so that the
        // handle reaches what it waits for next. Without one it has served its time.
        if Rc::weak_count(&chain) == 0
            && let Some(result) = end.outlet().take()
        {
            return run_now(result, apply);
        }
        let stage = Stage::new(apply);
        if let Some(next) = end.outlet().attach(stage.clone()) {
            chain::drive(Rc::clone(&chain), next);
        }
        Deferred::linked(chain, stage)
    }

    /// Gives the head, if there is a chain.
    pub(super) fn chain(&self) -> Option<Rc<dyn Chain>> {
        self.look(|state| match state {
            State::Linked(chain, _) => Some(Rc::clone(chain)),
            State::Ready(_) => None,
        })
    }

    /// Tells whether there may be handles to its chain.
    fn has_handles(&self) -> bool {
        self.look(|state| match state {
            State::Linked(chain, _) => Rc::weak_count(chain) > 0,
            State::Ready(_) => false,
        })
    }

    /// Takes the state out for a look. `look` runs no code that could reach this Deferred.
    fn look<R>(&self, look: impl FnOnce(&State<T>) -> R) -> R {
        let state = self.state.replace(State::vacant());
        let answer = look(&state);
        // What it replaces is vacant: there is nothing to drop, and no call to find that out.
        mem::forget(self.state.replace(state));
        answer
    }
}

/// Runs a callback on a result that is there, without a chain. A Deferred that it returns stands
/// for itself, unless there are handles to it: what is added after the callback is none of theirs.
pub(super) fn run_now<T, U, F>(mut result: Result<T, Failure>, apply: F) -> Deferred<U>
where
    U: 'static,
    F: FnOnce(Result<T, Failure>) -> Outcome<U>,
{
    let handled = Handled::of(&mut result);
    let result = match catch(|| apply(result)) {
        Ok(Outcome::Now(result)) => result,
        Ok(Outcome::Wait(inner)) if handled.is_nothing() && !inner.has_handles() => return inner,
        Ok(Outcome::Wait(inner)) => match inner.try_take() {
            Ok(result) => result,
            Err(inner) => return wait_apart(handled, inner),
        },
        Err(caught) => Err(failure_of(caught)),
    };
    Deferred::ready(handled.name_in(result, chain::resume_kill))
}

/// Gives the failure that a call without a chain ended with. A kill goes on instead.
#[cold]
pub(super) fn failure_of(caught: Caught) -> Failure {
    match caught {
        Caught::Panic(failure) => failure,
        Caught::Kill(kill) => {
            chain::resume_kill(kill);
            Failure::cancelled()
        }
    }
}

/// Makes a chain that waits for `inner`, apart from it: to name in its failure what was handled,
/// and out of reach of the handles to `inner`.
#[cold]
fn wait_apart<T: 'static>(handled: Handled, inner: Deferred<T>) -> Deferred<T> {
    let origin = Origin::passed();
    let outer: Rc<dyn Output<T>> = origin.clone();
    let chain: Rc<dyn Chain> = origin;
    let end = Rc::clone(&outer);
    chain::drive_from(Rc::clone(&chain), |firing| stage::wait_for(inner, handled, outer, firing));
    Deferred::linked(chain, end)
}

impl<T: 'static> fmt::Debug for Deferred<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Shown { state: self.state.replace(State::vacant()), of: self };
        let state = match &shown.state {
            State::Ready(kept) => match kept.failure() {
                Some(failure) => format!("failed: {failure}"),
                None => "has a value".to_owned(),
            },
            State::Linked(chain, end) => describe(chain, &**end),
        };
        drop(shown);
        write!(f, "Deferred<{}>({state})", std::any::type_name::<T>())
    }
}

/// A state while it is shown: its drop puts it back, for the text of an error may panic.
struct Shown<'d, T: 'static> {
    state: State<T>,
    of: &'d Deferred<T>,
}

impl<T: 'static> Drop for Shown<'_, T> {
    fn drop(&mut self) {
        self.of.state.set(mem::replace(&mut self.state, State::vacant()));
    }
}

/// Describes a chain: where its head is, and what it waits for.
fn describe<T>(chain: &Rc<dyn Chain>, end: &dyn Output<T>) -> String {
    let state = if let Some(failure) = end.outlet().failure_text() {
        format!("failed: {failure}")
    } else if end.outlet().is_holding() {
        "has a value".to_owned()
    } else if let Some(inner) = chain.head().inner() {
        format!("waits for the one at {:p}", chain::address(&inner))
    } else {
        match chain.head().source() {
            Source::Unfired => "unfired".to_owned(),
            Source::Cancelling => "being cancelled".to_owned(),
            Source::Fired => "running or paused".to_owned(),
        }
    };
    let place = chain::address(chain);
    match debug::trail_of(chain.head()) {
        Some(trail) => format!("{state}, at {place:p}, {trail}"),
        None => format!("{state}, at {place:p}"),
    }
}
