//! Scopes: greenlets that borrow from the one that spawned them.
//!
//! Floor 4. Uses: `spawn`, `park`. Used by: users, `try_scope`, `task`.
//!
//! # Invariants
//!
//! - `SCOPE-1` [`scope`] returns or unwinds only after every child has ended: the wait at its end
//!   neither unwinds nor gives up, and the body's own unwind is caught before it; between the two
//!   no code of the user's runs, nor any destructor. Nothing that a child borrows (`'env`,
//!   `'scope`) can end before that, because it outlives the call. (SOUND-5)
//! - `SCOPE-2` A child counts as ended only after its closure, its result if nobody can take it,
//!   and all their destructors are done.
//!
//! # Source
//!
//! `std::thread::scope`, rayon `scope/mod.rs`; trio nurseries for killing the siblings.

#![expect(unsafe_code, reason = "children borrow")]
//! # Safety
//!
//! The one unsafe call extends the lifetime of a child's closure; `SCOPE-1` is its proof.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    fmt,
    marker::PhantomData,
    panic::Location,
    rc::Rc,
    time::Duration,
};

use super::{
    Hub, NotSend,
    control::Ctl,
    join::{Greenlet, JoinError},
    park::{Mode, Wait, WaitOn, Wake},
    spawn::{Builder, GreenletRef},
    timeout,
    try_scope::end_body,
    unwind,
};
use crate::{Failure, time::Deadline};

/// Spawns greenlets that may borrow what outlives the scope; see [`scope`].
pub struct Scope<'scope, 'env: 'scope> {
    pub(super) state: Rc<State>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
    thread: NotSend,
}

#[derive(Default)]
pub(super) struct State {
    /// Children that have not ended.
    running: Cell<usize>,
    children: RefCell<Vec<GreenletRef>>,
    /// Who waits for the last child.
    waiter: Cell<Option<Wake>>,
    /// The first panic of a child that nobody joined, and what the hook noted of it.
    panic: Cell<Option<JoinError>>,
    /// Whether the children were killed: then so are those that come.
    pub(super) killed: Cell<bool>,
    /// The body, if a child's failure is to end it, while it runs: its greenlet, and the number of
    /// its frame.
    pub(super) body: Cell<Option<(Ctl, u64)>>,
    /// When whoever opened it is timed out, and kills its children.
    deadline: Option<Deadline>,
}

/// The handle of a greenlet in a scope.
pub struct ScopedGreenlet<'scope, T> {
    greenlet: Greenlet<Option<T>>,
    panic: Rc<Cell<Option<JoinError>>>,
    joined: Rc<Cell<bool>>,
    scope: PhantomData<&'scope mut &'scope ()>,
}

/// Runs `f`, which may spawn greenlets that borrow local variables; returns when all have ended.
///
/// Shape: the children end before `scope` returns, whatever happens:
/// * `f` returns: `scope` waits for the children.
/// * `f` panics, or is killed or timed out: the children are killed, `scope` waits for them, and
///   the unwind goes on.
/// * A child panics: its siblings are killed, and `scope` panics with the child's payload, unless
///   somebody was waiting for the child in [`join`](ScopedGreenlet::join).
///
/// A limit to the whole, children and all: `timeout(limit, || scope(…))`. Children whose first
/// error ends the others, and the body too: [`try_scope`](crate::try_scope).
///
/// # Panics
///
/// Outside [`run`](crate::run), and as said above.
///
/// # Cancellation
///
/// Cancellation point: never by itself. A kill or timeout that comes while it waits for its
/// children kills them, and unwinds once they have ended. A child that swallows its kill holds it
/// up.
///
/// # Examples
///
/// ```
/// greenloop::run(|| {
///     let mut words = vec!["green", "loop"];
///     let mut lengths = [0, 0];
///     greenloop::scope(|s| {
///         for (word, length) in words.iter().zip(&mut lengths) {
///             s.spawn(move || *length = word.len());
///         }
///     });
///     words.clear();
///     assert_eq!(lengths, [5, 4]);
/// });
/// ```
///
/// # Source
///
/// [`std::thread::scope`]; trio nurseries.
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let (hub, ctl) = begin("scope");
    let scope = Scope::new();
    let result = unwind::catch(|| f(&scope));
    scope.state.end(hub, ctl, result)
}

/// The hub and the greenlet on which a scope begins.
#[track_caller]
pub(super) fn begin(name: &str) -> (&'static Hub, Ctl) {
    let here = Hub::to_park().and_then(|hub| Ok((hub, hub.may_park()?)));
    match here {
        Ok(here) => here,
        Err(why) => panic!("greenloop::{name}: {why}"),
    }
}

/// Reports the panic of a child that can reach nobody, because another one does.
fn report(panic: &JoinError) {
    crate::report::unhandled("a greenlet of a scope", panic, &());
}

impl State {
    /// Ends the scope whose body has ended with `result`: waits for the children, and goes on with
    /// whatever unwinds.
    pub(super) fn end<T>(
        &self,
        hub: &'static Hub,
        ctl: Ctl,
        result: Result<T, Box<dyn Any + Send>>,
    ) -> T {
        if result.is_err() {
            self.kill_all();
        }
        let interrupted = self.wait(hub, ctl);
        let panic = self.panic.take();
        match (result, panic) {
            (Err(payload), panic) => {
                if let Some(panic) = panic {
                    report(&panic);
                }
                unwind::rethrow(Some(ctl), payload)
            }
            (Ok(_), Some(panic)) => panic.rethrow(ctl),
            (Ok(value), None) => {
                if interrupted {
                    hub.checkpoint(Mode::Infallible);
                }
                value
            }
        }
    }

    /// Ends the children, and the body, if it is one that is to be ended.
    pub(super) fn end_all(&self) {
        self.kill_all();
        if let (Some(hub), Some((ctl, frame))) = (Hub::current(), self.body.get()) {
            end_body(hub, ctl, frame);
        }
    }

    /// Runs a child, which has the deadline of the scope.
    fn begin<T>(&self, f: impl FnOnce() -> T) -> T {
        timeout::inherit(self.deadline);
        f()
    }

    pub(super) fn kill_all(&self) {
        self.killed.set(true);
        for child in self.children.borrow().iter() {
            child.kill();
        }
    }

    /// Remembers a child; forgets those that have ended, so that a scope may live for long.
    fn add(&self, child: GreenletRef) {
        let mut children = self.children.borrow_mut();
        if children.len() > 2 * self.running.get() + 16 {
            children.retain(|child| !child.is_finished());
        }
        children.push(child);
    }

    /// Waits for every child, whatever comes (`SCOPE-1`). Returns whether a kill or timeout came,
    /// which is still to unwind.
    fn wait(&self, hub: &'static Hub, ctl: Ctl) -> bool {
        let mut mode = Mode::Noticing;
        while self.running.get() > 0 {
            let wait = Wait::begin(hub, WaitOn::Scope(self.running.get() as u32));
            let wait = wait.expect("a scope began on a greenlet that can park");
            self.waiter.set(Some(wait.wake()));
            let parked = wait.park(Deadline::NEVER, mode);
            self.waiter.set(None);
            if parked.is_err() {
                mode = Mode::Uninterruptible;
                self.kill_all();
            }
        }
        debug_assert_eq!(hub.may_park(), Ok(ctl));
        mode == Mode::Uninterruptible
    }

    fn child_panicked(
        &self,
        payload: Box<dyn Any + Send>,
        joined: &Cell<bool>,
        out: &Cell<Option<JoinError>>,
    ) {
        let note = unwind::here().and_then(unwind::take_note);
        let panic = JoinError::from_payload(payload, note);
        if joined.get() {
            out.set(Some(panic));
            return;
        }
        self.end_all();
        match self.panic.take() {
            None => self.panic.set(Some(panic)),
            Some(first) => {
                self.panic.set(Some(first));
                report(&panic);
            }
        }
    }
}

/// Counts a child as ended when the last thing of it is dropped (`SCOPE-2`).
struct Ended(Rc<State>);

impl Drop for Ended {
    fn drop(&mut self) {
        let state = &self.0;
        state.running.set(state.running.get() - 1);
        if state.running.get() == 0
            && let (Some(hub), Some(wake)) = (Hub::current(), state.waiter.get())
        {
            hub.wake(wake);
        }
    }
}

impl<'scope, 'env> Scope<'scope, 'env> {
    pub(super) fn new() -> Scope<'scope, 'env> {
        Scope {
            state: Rc::new(State { deadline: Some(timeout::deadline()), ..State::default() }),
            scope: PhantomData,
            env: PhantomData,
            thread: NotSend::default(),
        }
    }

    /// Spawns a greenlet that may borrow.
    ///
    /// # Panics
    ///
    /// When there is no memory for a stack: [`spawn_with`](Self::spawn_with) returns an error.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedGreenlet<'scope, T>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        let spawned = self.spawn_with(Builder::new(), f);
        spawned.unwrap_or_else(|error| panic!("Scope::spawn: {error}"))
    }

    /// As [`spawn`](Self::spawn), with a name or a stack size.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` when no stack can be mapped.
    #[track_caller]
    pub fn spawn_with<F, T>(
        &'scope self,
        builder: Builder,
        f: F,
    ) -> std::io::Result<ScopedGreenlet<'scope, T>>
    where
        F: FnOnce() -> T + 'scope,
        T: 'scope,
    {
        self.spawn_child(builder, Location::caller(), move || Some(f()))
    }

    /// As `spawn_with`, for a closure that gives no value if it has told the scope why.
    pub(super) fn spawn_child<F, T>(
        &'scope self,
        builder: Builder,
        place: &'static Location<'static>,
        f: F,
    ) -> std::io::Result<ScopedGreenlet<'scope, T>>
    where
        F: FnOnce() -> Option<T> + 'scope,
        T: 'scope,
    {
        let ended = Ended(Rc::clone(&self.state));
        self.state.running.set(self.state.running.get() + 1);
        let panic = Rc::new(Cell::new(None));
        let joined = Rc::new(Cell::new(false));
        let (panic_out, is_joined) = (Rc::clone(&panic), Rc::clone(&joined));
        let state = Rc::clone(&self.state);
        let body = move || match unwind::catch(|| state.begin(f)) {
            Ok(value) => value,
            Err(payload) if unwind::is_kill(&*payload) => unwind::rethrow(unwind::here(), payload),
            Err(payload) => {
                state.child_panicked(payload, &is_joined, &panic_out);
                None
            }
        };
        // SAFETY: the greenlet ends before the scope is left (SCOPE-1), and 'scope, which bounds
        // all that `f` and `T` borrow, outlives the scope. The result lies in the join state, which
        // the handle shares: the handle is bound by 'scope too, and if it is leaked the result is
        // leaked with it, unread. `ended` is dropped after all of them (SCOPE-2).
        let spawned = unsafe { builder.spawn_unchecked(place, body, ended) };
        let greenlet = spawned?;
        let child = greenlet.as_ref();
        if self.state.killed.get() {
            child.kill();
        }
        self.state.add(child);
        Ok(ScopedGreenlet { greenlet, panic, joined, scope: PhantomData })
    }
}

/// A join under way: gives the child back to its scope if it is left without its end, and reports
/// the panic that nobody is told of if it is left with that.
struct Joining<'a>(&'a Cell<bool>, &'a Cell<Option<JoinError>>);

impl<'a> Joining<'a> {
    fn begin(joined: &'a Cell<bool>, panic: &'a Cell<Option<JoinError>>) -> Joining<'a> {
        joined.set(true);
        Joining(joined, panic)
    }
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        self.0.set(false);
        if let Some(panic) = self.1.take() {
            report(&panic);
        }
    }
}

/// What a child has come to, that was being joined.
fn outcome<T>(
    joined: Result<Option<T>, JoinError>,
    panic: &Cell<Option<JoinError>>,
) -> Result<T, JoinError> {
    // What ended the child may be meant for the joiner too: that comes before the child's error,
    // which is of no use to one that is ending.
    if !matches!(joined, Ok(Some(_)))
        && let Some(hub) = Hub::current()
    {
        hub.checkpoint(Mode::Infallible);
    }
    joined?.ok_or_else(|| panic.take().unwrap_or_else(JoinError::told_to_scope))
}

impl<T> ScopedGreenlet<'_, T> {
    /// Parks until the child has ended, and returns its result.
    ///
    /// Shape: a panic that happens while the child is being joined reaches the joiner, and not the
    /// scope. One that happened before has been given to the scope: its siblings are killed.
    ///
    /// # Errors
    ///
    /// As [`Greenlet::join`].
    ///
    /// # Cancellation
    ///
    /// As [`Greenlet::join`]; and a kill of the caller, or the end of its scope's body, unwinds
    /// before an error of the child is returned, for it is mostly the cause of that.
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        let joining = Joining::begin(&self.joined, &self.panic);
        let outcome = outcome(self.greenlet.join(), &self.panic);
        std::mem::forget(joining);
        outcome
    }

    /// As [`join`](Self::join), but gives up after `limit` and hands the handle back.
    ///
    /// # Errors
    ///
    /// `Err(self)` when the child has not ended in time; it goes on, and its panic is the scope's
    /// again.
    #[track_caller]
    pub fn join_timeout(self, limit: Duration) -> Result<Result<T, JoinError>, Self> {
        let joining = Joining::begin(&self.joined, &self.panic);
        match self.greenlet.join_timeout(limit) {
            Ok(joined) => {
                let outcome = outcome(joined, &self.panic);
                std::mem::forget(joining);
                Ok(outcome)
            }
            Err(greenlet) => {
                drop(joining);
                Err(ScopedGreenlet { greenlet, ..self })
            }
        }
    }

    /// The child without its result: a reference that may be cloned, and outlives the scope.
    pub fn as_ref(&self) -> GreenletRef {
        self.greenlet.as_ref()
    }

    /// Asks the child to end, as [`Greenlet::kill`].
    pub fn kill(&self) {
        self.greenlet.kill();
    }

    /// Asks the child to end for a reason, as [`Greenlet::kill_with`].
    pub fn kill_with(&self, reason: impl Into<Failure>) {
        self.greenlet.kill_with(reason);
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.greenlet.is_finished()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.state.running.get()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedGreenlet<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedGreenlet").field(&self.greenlet).finish()
    }
}
