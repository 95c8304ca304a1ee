//! A primitive's lock, line and rule, and the three styles in which one waits for it.
//!
//! Floor 5. Uses: `latch`, `line`, `signal`, `hub::park`, `deferred`. Used by: every primitive.
//!
//! # Contract
//!
//! A primitive is a [`Rule`]: what may be granted at once, and what becomes of a grant whose owner
//! died. All else is here, once: to wait as a greenlet, as an OS thread, as a Deferred, as a
//! future; to be killed, timed out, cancelled, dropped.
//!
//! # Invariants
//!
//! - `LANE-1` The lock is held for a few steps that call nothing of the user's and never block, and
//!   wake nobody but greenlets of this very thread, which go to its run queue. So it is a short
//!   wait for a thread, and nothing for a hub.
//! - `LANE-2` A `Place`, or a `Waiting`, that is dropped leaves the line, on every way out. If it
//!   had been granted something, that is given back to the rule, which serves whoever is next.
//! - `LANE-3` A grant is a hand-over: nobody runs in it. Greenlets go to the run queue, Deferreds
//!   are fired by calls of their hub, so a hundred thousand of them do not nest.
//!
//! # Threads
//!
//! Everything is `Send` and `Sync` if what is passed through it is.

#![expect(unsafe_code, reason = "a greenlet that waits lends the line its frame")]
//! # Safety
//!
//! The frame of `park` outlives its place in the line (`LANE-2`).

use std::{
    cell::Cell,
    fmt,
    future::Future,
    mem,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    line::{Key, Line},
    signal::{Parker, Signal},
};
use crate::{
    deferred::Deferred,
    hub::{
        Hub, Outside,
        guest::{self, Enlisted},
        park::{CannotPark, Mode, Wait, WaitOn},
    },
    latch::{Held, Latch},
    time::Deadline,
};

/// What a waiter asks for, and what it is granted.
pub(super) type LineOf<R> = Line<<R as Rule>::Ask, <R as Rule>::Grant>;

/// What tells one primitive from another. Called under the lock (`LANE-1`).
pub(super) trait Rule {
    /// What one who comes wants.
    type Ask;
    /// What it gets.
    type Grant;

    /// Grants at once what is asked for, if that is fair; else hands the ask back.
    fn enter(&mut self, line: &mut LineOf<Self>, ask: Self::Ask) -> Result<Self::Grant, Self::Ask>;

    /// Takes back a grant whose owner died, and serves the next. What is left of it is dropped when
    /// the lock is free.
    fn take_back(&mut self, line: &mut LineOf<Self>, grant: Self::Grant) -> Option<Self::Grant>;

    /// Somebody has left the line without a grant, who may have kept others from being served.
    fn serve(&mut self, line: &mut LineOf<Self>);

    /// Somebody has joined the line: it was not served when it entered.
    #[inline]
    fn joined(&mut self) {}

    /// What reports say of a greenlet that waits.
    fn waits_on(ask: &Self::Ask) -> WaitOn;

    /// Whether another thread may end a wait that begins now, as far as can be known.
    fn is_open(&self) -> bool {
        true
    }
}

/// Something that has a lane.
pub(super) trait Primitive {
    /// Its rule.
    type Rule: Rule;

    fn lane(&self) -> &Lane<Self::Rule>;
}

/// What is behind the lock.
struct Inner<R: Rule> {
    rule: R,
    line: LineOf<R>,
}

/// A rule and its line, behind one lock.
pub(super) struct Lane<R: Rule>(Latch<Inner<R>>);

/// A waiter's place in the line. Dropped, it is left (`LANE-2`).
struct Place<P: Deref<Target: Primitive>> {
    primitive: P,
    /// None once the place is given up.
    key: Option<Key>,
}

type AskOf<P> = <<<P as Deref>::Target as Primitive>::Rule as Rule>::Ask;
type GrantOf<P> = <<<P as Deref>::Target as Primitive>::Rule as Rule>::Grant;

impl<R: Rule> Lane<R> {
    pub(super) const fn new(rule: R) -> Lane<R> {
        Lane(Latch::new(Inner { rule, line: Line::new() }))
    }

    /// Does something under the lock, and tells those whom it concerns when the lock is free.
    #[inline(always)]
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut R, &mut LineOf<R>) -> T) -> T {
        let mut held = self.0.hold();
        let Inner { rule, line } = &mut *held;
        let value = f(rule, line);
        let_go(held);
        value
    }

    /// Grants at once what is asked for, or hands the ask back. Never blocks.
    #[inline]
    pub(super) fn attempt(&self, ask: R::Ask) -> Result<R::Grant, R::Ask> {
        self.with(|rule, line| rule.enter(line, ask))
    }

    /// Gives a grant back.
    #[inline]
    pub(super) fn release(&self, grant: R::Grant) {
        let rest = self.with(|rule, line| rule.take_back(line, grant));
        drop(rest);
    }

    /// Tries again under the lock, so that nothing is missed, and joins the line.
    fn join(&self, ask: R::Ask, signal: Signal) -> Result<R::Grant, (Key, bool)> {
        self.with(|rule, line| match rule.enter(line, ask) {
            Ok(grant) => {
                line.discard(signal);
                Ok(grant)
            }
            Err(ask) => {
                rule.joined();
                Err((line.join(ask, signal), rule.is_open()))
            }
        })
    }
}

/// Lets go of the lock, and then tells those who are to be told.
#[inline(always)]
fn let_go<R: Rule>(held: Held<'_, Inner<R>>) {
    #[cold]
    fn tell<R: Rule>(mut held: Held<'_, Inner<R>>) {
        let due = held.line.take_due();
        drop(held);
        due.give();
    }
    if held.line.has_due() {
        tell(held);
    }
}

impl<P: Deref<Target: Primitive>> Place<P> {
    /// Takes what was granted. `None`: nothing was yet.
    fn collect(&mut self) -> Option<GrantOf<P>> {
        let key = self.key.take()?;
        match self.primitive.lane().with(|_, line| line.collect(key)) {
            Ok(grant) => Some(grant),
            Err(key) => {
                self.key = Some(key);
                None
            }
        }
    }

    /// Takes what was granted, or sees to it that `signal` is given when something is.
    fn renew(&mut self, signal: Signal) -> Option<GrantOf<P>> {
        let key = self.key.take().expect("a future was polled after it was ready");
        let mut signal = Some(signal);
        let collected = self.primitive.lane().with(|_, line| {
            line.collect(key).inspect_err(|key| {
                if let Some(signal) = signal.take() {
                    line.renew(key, signal);
                }
            })
        });
        match collected {
            Ok(grant) => Some(grant),
            Err(key) => {
                self.key = Some(key);
                None
            }
        }
    }

    /// Gives the place up: what was granted counts, else the ask is handed back.
    #[cold]
    fn leave(mut self) -> Result<GrantOf<P>, AskOf<P>> {
        let key = self.key.take().expect("a place is left once");
        self.primitive.lane().with(|rule, line| match line.leave(key) {
            Err(grant) => Ok(grant),
            Ok(ask) => {
                rule.serve(line);
                Err(ask)
            }
        })
    }
}

impl<P: Deref<Target: Primitive>> Drop for Place<P> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let rest = self.primitive.lane().with(|rule, line| match line.leave(key) {
            Ok(ask) => {
                rule.serve(line);
                (Some(ask), None)
            }
            Err(grant) => (None, rule.take_back(line, grant)),
        });
        drop(rest);
    }
}

/// When a wait is to end at the latest: known to a hub's clock, or to a thread's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Limit {
    Never,
    After(Duration),
}

/// Waits in blocking style: parks the greenlet, or blocks the OS thread. `name` is who asks, for
/// panics. `Err`: the limit has passed.
#[inline(always)]
#[track_caller]
pub(super) fn wait<P: Primitive + ?Sized>(
    primitive: &P,
    ask: <P::Rule as Rule>::Ask,
    limit: Limit,
    name: &str,
) -> Result<<P::Rule as Rule>::Grant, <P::Rule as Rule>::Ask> {
    wait_on(Hub::current(), primitive, ask, limit, name)
}

/// As [`wait`], for a caller that knows its hub.
#[inline(always)]
#[track_caller]
pub(super) fn wait_on<P: Primitive + ?Sized>(
    hub: Option<&Hub>,
    primitive: &P,
    ask: <P::Rule as Rule>::Ask,
    limit: Limit,
    name: &str,
) -> Result<<P::Rule as Rule>::Grant, <P::Rule as Rule>::Ask> {
    match hub {
        Some(hub) => {
            hub.checkpoint(Mode::Infallible);
            park(hub, primitive, ask, limit, name, || ())
        }
        None => match primitive.lane().attempt(ask) {
            Ok(grant) => Ok(grant),
            Err(ask) => block(primitive, ask, limit, || ()),
        },
    }
}

/// As [`wait`], but notices no kill before it parks, and calls `joined` when the place in line is
/// taken: for a rule that grants nothing at once.
#[track_caller]
pub(super) fn wait_having<P: Primitive + ?Sized>(
    primitive: &P,
    ask: <P::Rule as Rule>::Ask,
    limit: Limit,
    name: &str,
    joined: impl FnOnce(),
) -> Result<<P::Rule as Rule>::Grant, <P::Rule as Rule>::Ask> {
    match Hub::current() {
        // A kill is noticed when it parks: `joined` may have to let go of something before.
        Some(hub) => park(hub, primitive, ask, limit, name, joined),
        None => block(primitive, ask, limit, joined),
    }
}

/// Inlined up to the user's frame, as all that parks: see `Hub::switch_out`.
#[inline(always)]
#[track_caller]
fn park<P: Primitive + ?Sized>(
    hub: &Hub,
    primitive: &P,
    ask: <P::Rule as Rule>::Ask,
    limit: Limit,
    name: &str,
    joined: impl FnOnce(),
) -> Result<<P::Rule as Rule>::Grant, <P::Rule as Rule>::Ask> {
    let frame = Cell::new(None);
    let waiting = Waiting { primitive, key: Cell::new(None), frame: &frame };
    let mut held = primitive.lane().0.hold();
    let Inner { rule, line } = &mut *held;
    let ask = match rule.enter(line, ask) {
        Ok(grant) => {
            let_go(held);
            return Ok(grant);
        }
        Err(ask) => ask,
    };
    let wait = match Wait::begin(hub, P::Rule::waits_on(&ask)) {
        Ok(wait) => wait,
        Err(why) => {
            let_go(held);
            refuse(name, why);
        }
    };
    // SAFETY: `frame` is not moved while `waiting` borrows it, and ends after `waiting`, which
    // leaves the line when it is dropped, on every way out (LANE-2).
    waiting.key.set(Some(unsafe { line.join_parking(ask, hub, wait.ticket(), &frame) }));
    rule.joined();
    let is_open = rule.is_open();
    let_go(held);
    let _outside = is_open.then(|| hub.count_outside());
    joined();
    let deadline = match limit {
        Limit::Never => Deadline::NEVER,
        Limit::After(limit) => hub.deadline_in(limit),
    };
    let leave = || waiting.leave_for_ever();
    let enlisted = Enlisted::new(&leave);
    let listed = wait.enlist(&enlisted);
    // Whether it was woken, or its time is over: what was granted counts.
    let _ = wait.park(deadline, Mode::Infallible);
    drop(listed);
    waiting.end()
}

#[cold]
#[track_caller]
fn refuse(name: &str, why: CannotPark) -> ! {
    panic!("greenloop::sync::{name}: {why}")
}

/// A greenlet that waits: its place, and its frame, where its grant may be instead. Dropped, it
/// leaves both (`LANE-2`).
struct Waiting<'a, P: Primitive + ?Sized> {
    primitive: &'a P,
    /// None before it has joined the line, and once the wait has ended.
    key: Cell<Option<Key>>,
    frame: &'a Cell<Option<<P::Rule as Rule>::Grant>>,
}

impl<'a, P: Primitive + ?Sized> Waiting<'a, P> {
    /// Ends the wait: what was granted counts, else the ask is handed back.
    #[inline(always)]
    fn end(self) -> Result<<P::Rule as Rule>::Grant, <P::Rule as Rule>::Ask> {
        match self.frame.take() {
            Some(grant) => {
                self.key.set(None); // The place is nobody's.
                Ok(grant)
            }
            None => self.place().leave(),
        }
    }

    /// Its place in the line, where a greenlet of the same hub has granted nothing.
    fn place(&self) -> Place<&'a P> {
        Place { primitive: self.primitive, key: self.key.take() }
    }

    #[cold]
    fn give_up(&self) {
        match self.frame.take() {
            Some(grant) => self.primitive.lane().release(grant),
            None => drop(self.place()),
        }
    }

    /// As its drop, for a greenlet that never goes on. What would be dropped stays as it is: this
    /// is no place for code of the user's.
    #[cold]
    fn leave_for_ever(&self) {
        let (grant, key) = (self.frame.take(), self.key.take());
        let rest = self.primitive.lane().with(|rule, line| {
            let left = match (grant, key) {
                (Some(grant), _) => Err(grant),
                (None, Some(key)) => line.leave(key),
                (None, None) => return (None, None),
            };
            match left {
                Ok(ask) => {
                    rule.serve(line);
                    (Some(ask), None)
                }
                Err(grant) => (None, rule.take_back(line, grant)),
            }
        });
        mem::forget(rest);
    }
}

impl<P: Primitive + ?Sized> Drop for Waiting<'_, P> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.key.get_mut().is_some() {
            self.give_up();
        }
    }
}

#[cold]
fn block<P: Primitive + ?Sized>(
    primitive: &P,
    ask: <P::Rule as Rule>::Ask,
    limit: Limit,
    joined: impl FnOnce(),
) -> Result<<P::Rule as Rule>::Grant, <P::Rule as Rule>::Ask> {
    if let Some(guest) = guest::guest() {
        return guest.enter(|hub| park(hub, primitive, ask, limit, "wait", joined));
    }
    let deadline = match limit {
        Limit::Never => None,
        Limit::After(limit) => Instant::now().checked_add(limit),
    };
    let parker = Arc::new(Parker::default());
    let signal = Signal::Thread(Arc::clone(&parker));
    let (key, _) = match primitive.lane().join(ask, signal) {
        Ok(grant) => return Ok(grant),
        Err(joined) => joined,
    };
    let place = Place { primitive, key: Some(key) };
    joined();
    parker.park(deadline);
    place.leave()
}

/// Waits as a Deferred, which fires with what `finish` makes of the grant: in a call of this
/// thread's hub, unless the grant was there at once.
pub(super) fn defer<P, T>(
    primitive: P,
    ask: AskOf<P>,
    finish: impl FnOnce(P, GrantOf<P>) -> T + 'static,
) -> Deferred<T>
where
    P: Deref<Target: Primitive> + Clone + 'static,
    T: 'static,
{
    let ask = match primitive.lane().attempt(ask) {
        Ok(grant) => return Deferred::succeed(finish(primitive, grant)),
        Err(ask) => ask,
    };
    let Some(hub) = Hub::current() else { return Deferred::fail(CannotPark::no_hub()) };
    let (wake, call) = hub.reserve_call();
    let (key, is_open) = match primitive.lane().join(ask, Signal::hub(hub, wake)) {
        Ok(grant) => {
            let _ = call.cancel();
            return Deferred::succeed(finish(primitive, grant));
        }
        Err(joined) => joined,
    };
    let mut place = Place { primitive: primitive.clone(), key: Some(key) };
    let outside = is_open.then(|| Outside::new(hub));
    let cancelled = call.clone();
    let (resolver, deferred) = Deferred::with_canceller(move |_| {
        // It drops the place, unless the call is due: then it finds that nobody wants it.
        let _ = cancelled.cancel();
    });
    call.fill(Box::new(move || {
        drop(outside);
        if !resolver.is_cancelled()
            && let Some(grant) = place.collect()
        {
            resolver.callback(finish(primitive, grant));
        }
    }));
    deferred
}

/// Waits as a future. Dropped, it leaves the line.
pub(super) struct Passing<P: Deref<Target: Primitive>> {
    primitive: P,
    ask: Option<AskOf<P>>,
    place: Option<Place<P>>,
}

/// The ask is a value that moves in and out: nothing in here is pinned.
impl<P: Deref<Target: Primitive>> Unpin for Passing<P> {}

impl<P: Deref<Target: Primitive> + Clone> Passing<P> {
    pub(super) fn new(primitive: P, ask: AskOf<P>) -> Passing<P> {
        Passing { primitive, ask: Some(ask), place: None }
    }

    /// What it waits for.
    pub(super) fn primitive(&self) -> P {
        self.primitive.clone()
    }
}

impl<P: Deref<Target: Primitive> + Clone> Future for Passing<P> {
    type Output = GrantOf<P>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<GrantOf<P>> {
        let this = &mut *self;
        // Cloning and dropping a waker is code of others: the lock is free meanwhile.
        let signal = Signal::Waker(cx.waker().clone());
        if let Some(place) = &mut this.place {
            return match place.renew(signal) {
                Some(grant) => Poll::Ready(grant),
                None => Poll::Pending,
            };
        }
        let ask = this.ask.take().expect("a future was polled after it was ready");
        match this.primitive.lane().join(ask, signal) {
            Ok(grant) => Poll::Ready(grant),
            Err((key, _)) => {
                this.place = Some(Place { primitive: this.primitive.clone(), key: Some(key) });
                Poll::Pending
            }
        }
    }
}

impl<P: Deref<Target: Primitive>> fmt::Debug for Passing<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passing").field("waits", &self.place.is_some()).finish_non_exhaustive()
    }
}
