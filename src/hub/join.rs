//! Handles: how a greenlet's result reaches whoever joins it, and what is reported if nobody does.
//!
//! Floor 4. Uses: `park`. Used by: `spawn`, `scope`, `bridge`.
//!
//! The handle and the greenlet share one allocation, made when it is spawned. The result lies in
//! it when the greenlet has ended. Whoever drops the last reference with a result still inside
//! reports it: a panic, or an `Err`, that nobody joined is reported exactly once.
//!
//! # Source
//!
//! std `JoinHandle`; gevent `Greenlet.link`, without its double reports.

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    fmt,
    panic::Location,
    rc::Rc,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    Hub, Killed,
    completed::Ended,
    control::Ctl,
    park::{Mode, Wait, WaitOn, Wake},
    unwind::{self, PanicNote},
};
use crate::{Cancelled, Failure, report, time::Deadline};

/// Reports what a waker has panicked with: nobody else hears of it, for the hook only notes what a
/// greenlet panics with.
#[cold]
fn report_waker(payload: Box<dyn Any + Send>) {
    if unwind::is_kill(&*payload) {
        return;
    }
    let note = unwind::here().and_then(unwind::take_note);
    let error = JoinError::from_payload(payload, note);
    report::unhandled("a Waker", &error, &());
    report::discard(error);
}

/// A greenlet's handle: to wait for its result, to kill it, to be told of its end.
///
/// Dropping it detaches the greenlet, as with [`std::thread::JoinHandle`]. It stays on its thread,
/// as its greenlet does:
///
/// ```compile_fail
/// fn sendable<T: Send>() {}
/// sendable::<greenloop::Greenlet<()>>();
/// ```
///
/// # Source
///
/// gevent `Greenlet`; std `JoinHandle`.
pub struct Greenlet<T> {
    /// What it shares with the greenlet, whatever closure that runs.
    pub(super) packet: Rc<dyn Joinable<T>>,
}

/// Whatever has a [`Join`]: hides the closure's type from the handle.
pub(super) trait Joinable<T> {
    /// The shared state.
    fn join(&self) -> &Join<T>;
}

/// How a greenlet ended, as told to a [`link`](Greenlet::link).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// Its closure returned.
    Returned,
    /// It was killed.
    Killed(Killed),
    /// It panicked, with this message.
    Panicked(String),
}

/// Why a greenlet has no result.
#[derive(Debug)]
pub enum JoinError {
    /// It was killed.
    Killed(Killed),
    /// It panicked.
    Panicked(Panic),
}

/// A panic that ended a greenlet: its payload, and what is known of where it happened.
pub struct Panic(Box<PanicParts>);

struct PanicParts {
    payload: Payload,
    message: String,
    place: Option<String>,
    backtrace: Option<Backtrace>,
}

/// A payload is `Send` but need not be `Sync`, and an error has to be both. Nobody can reach it
/// through a shared reference: the lock is never taken, and tells the compiler so.
struct Payload(Mutex<Box<dyn Any + Send>>);

impl Payload {
    fn new(payload: Box<dyn Any + Send>) -> Payload {
        Payload(Mutex::new(payload))
    }

    fn into_inner(self) -> Box<dyn Any + Send> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom the end makes ready. One at most, because the handle that waits is not shared.
#[derive(Default)]
pub(super) enum Waiter {
    #[default]
    None,
    Wake(Wake),
    Call(Box<dyn FnOnce()>),
    /// A set of them, and the key by which it knows this one.
    Set(Rc<Ended>, u32),
}

/// A function that is to be told of the end of a greenlet: given by [`Greenlet::link`].
///
/// Dropping it changes nothing: the function is still called.
///
/// # Source
///
/// gevent `Greenlet.unlink`, which asks for the function itself.
pub struct Link(Rc<dyn Linked>);

/// A function that may be taken back: hides its type.
trait Linked {
    /// Calls it, unless it was called or taken back.
    fn call(&self, ending: &Ending);
    /// Takes it back. Returns whether it was there.
    fn unlink(&self) -> bool;
    /// Whether it is still to be called.
    fn is_linked(&self) -> bool;
}

/// The function, until it is called or taken back.
struct LinkedFn<F>(RefCell<Option<F>>);

impl<F: FnOnce(&Ending)> Linked for LinkedFn<F> {
    fn call(&self, ending: &Ending) {
        let f = self.0.take();
        if let Some(f) = f {
            f(ending);
        }
    }

    fn unlink(&self) -> bool {
        let f = self.0.take();
        f.is_some()
    }

    fn is_linked(&self) -> bool {
        self.0.borrow().is_some()
    }
}

impl Link {
    fn new(f: impl FnOnce(&Ending) + 'static) -> Link {
        Link(Rc::new(LinkedFn(RefCell::new(Some(f)))))
    }

    /// Takes the function back and drops it. Returns whether it had still been to be called.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn unlink(self) -> bool {
        self.0.unlink()
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("linked", &self.0.is_linked()).finish()
    }
}

/// What the handle and its greenlet share: one allocation, small, because a million may exist.
pub(super) struct Join<T> {
    pub(super) id: u64,
    pub(super) birth: &'static Location<'static>,
    pub(super) name: Option<Rc<str>>,
    pub(super) slot: u32,
    /// Which pool its stack is from.
    pub(super) pool: u16,
    finished: Cell<bool>,
    waiter: Cell<Waiter>,
    #[expect(clippy::box_collection, reason = "one word in each of a million, not three")]
    links: Cell<Option<Box<Vec<Link>>>>,
    /// What to say of a result that nobody took; `None` for one that needs no word.
    describe: fn(&T) -> Option<String>,
    result: Cell<Option<Result<T, JoinError>>>,
}

impl<T> Join<T> {
    pub(super) fn new(
        id: u64,
        slot: u32,
        birth: &'static Location<'static>,
        name: Option<Rc<str>>,
        pool: u16,
        describe: fn(&T) -> Option<String>,
    ) -> Join<T> {
        Join {
            id,
            birth,
            name,
            slot,
            finished: Cell::new(false),
            waiter: Cell::default(),
            links: Cell::new(None),
            describe,
            result: Cell::new(None),
            pool,
        }
    }

    /// Stores the result and tells everybody who watches.
    #[inline]
    pub(super) fn finish(&self, hub: &Hub, result: Result<T, JoinError>) {
        self.result.set(Some(result));
        self.finished.set(true);
        match self.waiter.take() {
            Waiter::None => {}
            Waiter::Wake(wake) => hub.wake(wake),
            Waiter::Set(ended, key) => ended.add(Some(hub), key),
            // A waker is code of others, and may panic.
            Waiter::Call(wake) => unwind::catch(wake).unwrap_or_else(report_waker),
        }
        if let Some(links) = self.links.take() {
            let ending = Rc::new(self.ending());
            for link in *links {
                let ending = Rc::clone(&ending);
                hub.call_soon(Box::new(move || link.0.call(&ending)));
            }
        }
    }

    /// How it ended, once it has, and as long as the result was not taken.
    fn ending(&self) -> Ending {
        let result = self.result.take();
        let ending = match &result {
            None | Some(Ok(_)) => Ending::Returned,
            Some(Err(JoinError::Killed(killed))) => Ending::Killed(killed.clone()),
            Some(Err(JoinError::Panicked(panic))) => Ending::Panicked(panic.message().to_owned()),
        };
        self.result.set(result);
        ending
    }

    #[inline]
    pub(super) fn is_finished(&self) -> bool {
        self.finished.get()
    }

    #[inline]
    pub(super) fn take(&self) -> Option<Result<T, JoinError>> {
        self.result.take()
    }

    fn link(&self, link: &Link) {
        let mut links = self.links.take().unwrap_or_default();
        if links.len() == links.capacity() {
            links.retain(|link| link.0.is_linked()); // Those taken back must not pile up.
        }
        links.push(Link(Rc::clone(&link.0)));
        self.links.set(Some(links));
    }

    /// Parks until the greenlet has ended.
    #[inline(always)]
    pub(super) fn wait(&self, deadline: Deadline) -> Result<(), std::io::Error> {
        let hub = Hub::to_park();
        if let Ok(hub) = hub {
            hub.checkpoint(Mode::Infallible);
        }
        if self.is_finished() {
            return Ok(());
        }
        /// Runs on every way out, the unwind of a kill included.
        struct Unwatch<'a>(&'a Cell<Waiter>);
        impl Drop for Unwatch<'_> {
            fn drop(&mut self) {
                self.0.set(Waiter::None);
            }
        }
        let wait = Wait::begin(hub?, WaitOn::Join(self.slot))?;
        self.waiter.set(Waiter::Wake(wait.wake()));
        let _unwatch = Unwatch(&self.waiter);
        Ok(wait.park(deadline, Mode::Infallible)?)
    }

    fn kill_as(&self, killed: Killed) {
        if !self.is_finished()
            && let Some(hub) = Hub::current()
            && let Some(ctl) = hub.find(self.slot, self.id)
        {
            hub.kill_as(ctl, killed);
        }
    }
}

impl<T> Drop for Join<T> {
    fn drop(&mut self) {
        let message = match self.result.take() {
            None | Some(Err(JoinError::Killed(_))) => return,
            Some(Ok(value)) => match (self.describe)(&value) {
                None => return,
                Some(error) => format!("returned an error that nobody joined: {error}"),
            },
            Some(Err(JoinError::Panicked(panic))) => panic.to_string(),
        };
        let name = self.name.as_deref().map(|n| format!(" '{n}'")).unwrap_or_default();
        let what = format!("greenlet #{}{name} (spawned at {})", self.id, self.birth);
        report::unhandled(&what, &message, &());
    }
}

impl<T> Greenlet<T> {
    /// Parks until the greenlet has ended, and returns its result.
    ///
    /// # Errors
    ///
    /// [`JoinError::Killed`] when it was killed, [`JoinError::Panicked`] when it panicked.
    ///
    /// # Panics
    ///
    /// When it has not ended and the caller cannot park: outside [`run`](crate::run), or on the
    /// hub's own stack.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the handle is dropped and the greenlet goes on,
    /// detached. Infallible as to kills: where one cannot unwind, the wait goes on.
    ///
    /// # Source
    ///
    /// std `JoinHandle::join`; gevent `Greenlet.get`.
    #[inline]
    #[track_caller]
    pub fn join(self) -> Result<T, JoinError> {
        if let Err(error) = self.packet.join().wait(Deadline::NEVER) {
            panic!("Greenlet::join: {error}");
        }
        self.packet
            .join()
            .take()
            .expect("a greenlet that has ended leaves its result to its only handle")
    }

    /// As [`join`](Self::join), but gives up after `limit` and hands the handle back.
    ///
    /// # Errors
    ///
    /// `Err(self)` when the greenlet has not ended in time; it goes on.
    ///
    /// # Panics
    ///
    /// As [`join`](Self::join).
    ///
    /// # Cancellation
    ///
    /// As [`join`](Self::join).
    #[track_caller]
    pub fn join_timeout(self, limit: Duration) -> Result<Result<T, JoinError>, Greenlet<T>> {
        let deadline = Hub::current().map_or(Deadline::NEVER, |hub| hub.deadline_in(limit));
        match self.packet.join().wait(deadline) {
            Ok(()) => {
                Ok(self.packet.join().take().expect("the result of a greenlet that has ended"))
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(self),
            Err(error) => panic!("Greenlet::join_timeout: {error}"),
        }
    }

    /// Asks the greenlet to end: it unwinds from its current or next cancellation point.
    ///
    /// Shape: returns at once. What happens depends on where the greenlet is:
    ///
    /// | the greenlet | then |
    /// |---|---|
    /// | was never started | its closure never runs, but is dropped on its own stack; links are told |
    /// | is parked | it is made ready, and unwinds out of the call it is parked in |
    /// | is the caller itself | it unwinds at its next cancellation point |
    /// | is unwinding already | fallible calls that would wait fail with [`Killed`]; it ends anyway |
    /// | is in [`shield`](crate::shield) | fallible calls that would wait fail with [`Killed`], others go on; it unwinds at its first cancellation point outside |
    /// | swallowed an earlier kill | it is raised again at every cancellation point |
    /// | has ended, or was killed before | nothing |
    ///
    /// May be called from anywhere on the thread: from the greenlet's own children, from callbacks,
    /// in destructors.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    ///
    /// # Source
    ///
    /// gevent `Greenlet.kill(block=False)`; to wait as well, [`join`](Self::join) it, or
    /// [`join_timeout`](Self::join_timeout).
    pub fn kill(&self) {
        self.kill_as(Killed::plain());
    }

    /// As [`kill`](Self::kill), and says why: whoever is told of the kill is told the reason.
    ///
    /// Shape: any error is a reason, and `Failure::msg` makes one of a text. It is in the
    /// [`Killed`] that the joiner gets, in the [`Ending`] that links get, and in the errors of the
    /// greenlet's own calls that fail because a kill cannot unwind: so a greenlet that waits inside
    /// [`shield`](crate::shield), in calls that can fail, gets it there and may say it to a client
    /// before it ends. The first kill counts, with its reason or without; later ones change
    /// nothing.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    ///
    /// # Source
    ///
    /// gevent `Greenlet.kill(exception)` and `throw`. There the target may catch it and live;
    /// here a kill stays.
    pub fn kill_with(&self, reason: impl Into<Failure>) {
        self.kill_as(Killed::because(reason));
    }

    /// Calls `f` once when the greenlet has ended; soon, if it has ended already.
    ///
    /// Shape: `f` runs on a callback greenlet, so it may block. Links run in the order in which
    /// they were made. A panic in one is reported and stops no other. What it gives takes `f` back;
    /// a link may so take back a later one.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    ///
    /// # Source
    ///
    /// gevent `Greenlet.link`.
    pub fn link(&self, f: impl FnOnce(&Ending) + 'static) -> Link {
        let link = Link::new(f);
        if !self.is_finished() {
            self.packet.join().link(&link);
            return link;
        }
        let ending = self.packet.join().ending();
        match Hub::current() {
            Some(hub) => {
                let linked = Rc::clone(&link.0);
                hub.call_soon(Box::new(move || linked.call(&ending)));
            }
            None => link.0.call(&ending),
        }
        link
    }

    /// Calls `f` with the handle when the greenlet has ended, on a callback greenlet.
    pub(crate) fn on_end(self, f: impl FnOnce(Greenlet<T>) + 'static)
    where
        T: 'static,
    {
        let packet = Rc::clone(&self.packet);
        packet.join().link(&Link::new(move |_| f(self)));
    }

    /// Calls `wake` on the greenlet's own stack when it has ended, in place of what was set before.
    /// It must not park.
    pub(crate) fn on_finish(&self, wake: Option<Box<dyn FnOnce()>>) {
        self.watch(wake.map_or(Waiter::None, Waiter::Call));
    }

    /// Parks until it has ended; the handle stays. As [`join`](Self::join) otherwise.
    #[track_caller]
    pub(crate) fn wait(&self) {
        if let Err(error) = self.packet.join().wait(Deadline::NEVER) {
            panic!("greenloop: waiting for a greenlet: {error}");
        }
    }

    /// Has `waiter` told of the end, in place of what was set before.
    pub(super) fn watch(&self, waiter: Waiter) {
        self.packet.join().waiter.set(waiter);
    }

    /// Asks it to end.
    pub(super) fn kill_as(&self, killed: Killed) {
        self.packet.join().kill_as(killed);
    }

    /// The result of a greenlet that has ended. No cancellation point.
    pub(crate) fn take_result(self) -> Result<T, JoinError> {
        self.packet.join().take().expect("a greenlet that has ended has left its result")
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.packet.join().is_finished()
    }

    /// Its number: unique in its reactor, and never reused there.
    pub fn id(&self) -> u64 {
        self.packet.join().id
    }

    /// The name that its [`Builder`](crate::Builder) gave it.
    pub fn name(&self) -> Option<&str> {
        self.packet.join().name.as_deref()
    }

    /// Where it was spawned.
    pub fn birth(&self) -> &'static Location<'static> {
        self.packet.join().birth
    }
}

impl<T> fmt::Debug for Greenlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Greenlet")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("birth", &format_args!("{}", self.birth()))
            .field("finished", &self.is_finished())
            .finish()
    }
}

impl JoinError {
    /// Sorts a caught payload: a kill, or a panic with what the hook noted of it.
    pub(super) fn from_payload(
        payload: Box<dyn Any + Send>,
        note: Option<Box<PanicNote>>,
    ) -> JoinError {
        if unwind::is_kill(&*payload) {
            return JoinError::Killed(Killed::of_current());
        }
        let message = unwind::message_of(&*payload);
        let note = note.filter(|note| note.is_of(&message));
        let (place, backtrace) = note.map_or((None, None), |n| (n.place, n.backtrace));
        let payload = Payload::new(payload);
        JoinError::Panicked(Panic(Box::new(PanicParts { payload, message, place, backtrace })))
    }

    /// Runs `f`. Its panic becomes an error, as if a greenlet had panicked; a kill goes on.
    pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, JoinError> {
        unwind::catch(f).map_err(|payload| {
            let ctl = unwind::here();
            if unwind::is_kill(&*payload) {
                unwind::rethrow(ctl, payload)
            }
            JoinError::from_payload(payload, ctl.and_then(unwind::take_note))
        })
    }

    /// Goes on with a panic in the current greenlet.
    pub(crate) fn resume(self) -> ! {
        match unwind::here() {
            Some(ctl) => self.rethrow(ctl),
            None => panic!("{self}"),
        }
    }

    /// Goes on with a panic in the greenlet `ctl`, which takes over what the hook noted of it.
    pub(super) fn rethrow(self, ctl: Ctl) -> ! {
        match self {
            JoinError::Killed(_) => unwind::raise(ctl, unwind::Payload::Kill),
            JoinError::Panicked(Panic(parts)) => {
                let PanicParts { payload, message, place, backtrace } = *parts;
                let note =
                    PanicNote { message, place, backtrace, printed: false, was_unwinding: false };
                ctl.rare(|rare| rare.panic = Some(Box::new(note)));
                unwind::rethrow(Some(ctl), payload.into_inner())
            }
        }
    }

    /// The error of a child whose failure was given to its scope before anybody joined it.
    pub(super) fn told_to_scope() -> JoinError {
        let message = "what it failed with was given to its scope";
        JoinError::from_payload(Box::new(message), None)
    }

    /// The error as a [`Failure`]: [`Cancelled`] for a kill, [`Killed`] for one with a reason, the
    /// panic for a panic. So does `?` where a Failure is to be returned.
    ///
    /// ```
    /// use greenloop::{Failure, run, spawn};
    /// fn counted() -> Result<usize, Failure> {
    ///     let lines = spawn(|| std::fs::read_to_string("Cargo.toml")).join()??;
    ///     Ok(lines.len())
    /// }
    /// run(|| assert!(counted().is_ok()));
    /// ```
    pub fn into_failure(self) -> Failure {
        match self {
            JoinError::Killed(killed) if killed.reason().is_some() => Failure::new(killed),
            JoinError::Killed(_) => Failure::new(Cancelled),
            JoinError::Panicked(Panic(parts)) => {
                let PanicParts { payload, place, backtrace, .. } = *parts;
                let backtrace = backtrace.map(|backtrace| backtrace.to_string());
                Failure::from_panic(payload.into_inner(), place, backtrace)
            }
        }
    }

    /// Takes the error that a place for one may have in it: for [`Failure::new`], which knows
    /// nothing of this type.
    pub(super) fn take_failure(place: &mut dyn Any) -> Option<Failure> {
        let error = place.downcast_mut::<Option<JoinError>>()?.take();
        error.map(JoinError::into_failure)
    }

    /// How it was killed, if it was.
    pub fn killed(&self) -> Option<&Killed> {
        match self {
            JoinError::Killed(killed) => Some(killed),
            JoinError::Panicked(_) => None,
        }
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        matches!(self, JoinError::Killed(_))
    }

    /// The panic, if it was one.
    pub fn panic(&self) -> Option<&Panic> {
        match self {
            JoinError::Killed(_) => None,
            JoinError::Panicked(panic) => Some(panic),
        }
    }

    /// The panic's payload, to be raised again with [`std::panic::resume_unwind`], if it was one.
    ///
    /// # Errors
    ///
    /// Gives the error back if the greenlet was killed.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, JoinError> {
        match self {
            JoinError::Killed(_) => Err(self),
            JoinError::Panicked(panic) => Ok(panic.0.payload.into_inner()),
        }
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinError::Killed(killed) => killed.fmt(f),
            JoinError::Panicked(panic) => panic.fmt(f),
        }
    }
}

impl std::error::Error for JoinError {}

impl Panic {
    /// The panic's message.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where it panicked, as `file:line:column`, if this crate's panic hook saw it.
    pub fn place(&self) -> Option<&str> {
        self.0.place.as_deref()
    }

    /// The backtrace of the panic; captured when `RUST_BACKTRACE` says so.
    pub fn backtrace(&self) -> Option<&Backtrace> {
        self.0.backtrace.as_ref()
    }
}

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked")?;
        if let Some(place) = self.place() {
            write!(f, " at {place}")?;
        }
        write!(f, ": {}", self.message())?;
        match self.backtrace() {
            Some(trace) if trace.status() == std::backtrace::BacktraceStatus::Captured => {
                write!(f, "\n{trace}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Panic")
            .field("message", &self.message())
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}
