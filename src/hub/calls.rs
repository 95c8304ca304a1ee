//! What the reactor calls: timers, messages from other threads, links, readers and writers.
//!
//! Floor 4. Uses: `spawn`, `park`. Used by: users, by [`reactor`]; `join`, for links.
//!
//! # Contract
//!
//! Calls run on *callback greenlets*, one after another in the order of their coming, so each may
//! block: then its greenlet is simply parked, and the next call is taken by another one. A few idle
//! callback greenlets are kept.
//!
//! # Source
//!
//! Twisted `IReactorTime`, `IReactorThreads`, `IReactorFDSet`; geventreactor's `Stream`, one
//! greenlet a reader.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    error::Error,
    fmt,
    os::fd::{AsFd, AsRawFd, RawFd},
    panic::Location,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::{
    Hub, NotSend,
    control::{Ctl, Kill, Role},
    io,
    park::{CannotPark, Mode, Wait, WaitOn, Wake},
    spawn, unwind,
};
use crate::{
    reactor::{Direction, Inbox},
    time::{Deadline, Key},
};

/// Something for the reactor to call.
pub(super) type Call = Box<dyn FnOnce()>;

/// What other threads send.
pub(crate) enum Message {
    /// A wait is over.
    Wake(Wake),
    /// Call this.
    Call(Box<dyn FnOnce() + Send>),
    /// Answer this: no code of the user's, and it must not park.
    Ask(Box<dyn FnOnce(&Hub) + Send>),
    /// End the run.
    Stop,
}

/// How many callback greenlets without work are kept.
const IDLE_MAX: usize = 8;

/// The calls that are due, and who runs them.
#[derive(Default)]
pub(super) struct Calls {
    due: RefCell<VecDeque<Call>>,
    /// Parked callback greenlets without work.
    idle: RefCell<Vec<Wake>>,
    /// Whether a callback greenlet is on its way that will take the next call.
    coming: Cell<bool>,
    /// Whether a call is being made right now, and has not parked.
    busy: Cell<bool>,
    /// Calls that came too late to be made, to be dropped at the end.
    doomed: RefCell<Vec<Call>>,
    delayed: RefCell<DelayedTable>,
    watched: RefCell<Vec<Watched>>,
}

#[derive(Default)]
struct DelayedTable {
    slots: Vec<Option<Rc<Delayed>>>,
    free: Vec<u32>,
    next_id: u64,
}

struct Delayed {
    /// The number of its hub.
    hub: u64,
    call: Cell<Option<Call>>,
    fate: Cell<DelayedFate>,
    deadline: Cell<Deadline>,
    key: Cell<Option<Key>>,
    slot: Cell<u32>,
    id: Cell<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DelayedFate {
    Active,
    Called,
    Cancelled,
}

/// A reader or writer: a greenlet that waits and calls, again and again.
struct Watched {
    fd: RawFd,
    direction: Direction,
    state: Rc<WatchState>,
    greenlet: spawn::GreenletRef,
}

#[derive(Default)]
struct WatchState {
    removed: Cell<bool>,
    /// Whether it waits, and is not in the midst of a call.
    waiting: Cell<bool>,
}

impl Calls {
    /// A timer has fired: what is to be called.
    pub(super) fn fire_delayed(&self, slot: u32, id: u64) -> Option<Call> {
        let delayed = self.take_delayed(slot, id)?;
        delayed.fate.set(DelayedFate::Called);
        delayed.call.take()
    }

    fn take_delayed(&self, slot: u32, id: u64) -> Option<Rc<Delayed>> {
        let mut table = self.delayed.borrow_mut();
        let entry = table.slots.get_mut(slot as usize)?;
        let delayed = entry.take_if(|delayed| delayed.id.get() == id)?;
        table.free.push(slot);
        Some(delayed)
    }

    fn add_delayed(&self, delayed: &Rc<Delayed>) {
        let mut table = self.delayed.borrow_mut();
        table.next_id += 1;
        delayed.id.set(table.next_id);
        let slot = table.free.pop().unwrap_or_else(|| {
            table.slots.push(None);
            (table.slots.len() - 1) as u32
        });
        delayed.slot.set(slot);
        table.slots[slot as usize] = Some(Rc::clone(delayed));
    }

    /// How many calls are reserved, or wait for their time.
    pub(super) fn count(&self) -> usize {
        self.delayed.borrow().slots.iter().flatten().count()
    }

    /// Drops everything that was to be called. Returns whether there was anything.
    pub(super) fn clear(&self) -> bool {
        let delayed = std::mem::take(&mut *self.delayed.borrow_mut()).slots;
        let delayed = delayed.into_iter().flatten().filter_map(|delayed| {
            delayed.fate.set(DelayedFate::Cancelled);
            delayed.call.take()
        });
        let calls = self.due.take().into_iter().chain(self.doomed.take()).chain(delayed);
        let calls: Vec<Call> = calls.collect();
        let found = !calls.is_empty();
        calls.into_iter().for_each(drop_call);
        self.watched.borrow_mut().clear();
        self.idle.borrow_mut().clear();
        found
    }
}

impl Hub {
    /// Reserves a call without a time: it is made once the hub is woken with the [`Wake`]. What it
    /// is comes with [`DelayedCall::fill`], before the caller lets others run.
    pub(crate) fn reserve_call(&self) -> (Wake, DelayedCall) {
        let delayed = Rc::new(Delayed::new(self, None, Deadline::NEVER));
        self.calls.add_delayed(&delayed);
        let wake = Wake::Granted { slot: delayed.slot.get(), id: delayed.id.get() };
        (wake, DelayedCall { delayed })
    }
}

/// Drops a call that is not made any more: user code, on the hub's own stack.
fn drop_call(call: Call) {
    if let Err(payload) = unwind::catch(|| drop(call)) {
        let text = unwind::message_of(&*payload);
        crate::report::unhandled("the destructor of a call that was not made", &text, &());
        crate::report::discard(payload);
    }
}

impl Hub {
    /// Has `call` called soon, after what is due already.
    pub(super) fn call_soon(&self, call: Call) {
        self.calls.due.borrow_mut().push_back(call);
        // In the midst of a call, its greenlet takes the next one too, unless it parks: then the
        // loop sees to it.
        if !self.calls.busy.get() {
            self.dispatch_calls();
        }
    }

    /// As `call_soon`, for calls that are not made any more once main has ended.
    pub(super) fn call_if_running(&self, call: Call) {
        if self.is_ending() {
            // Not dropped here: that is user code, and this may be a turn of the reactor.
            self.calls.doomed.borrow_mut().push(call);
        } else {
            self.call_soon(call);
        }
    }

    /// Sees that a callback greenlet is on its way when there is something to call.
    #[inline]
    pub(super) fn dispatch_calls(&self) {
        if !self.calls.coming.get() && !self.calls.due.borrow().is_empty() {
            self.send_for_callback();
        }
    }

    #[cold]
    #[expect(unsafe_code, reason = "spawns a greenlet that borrows nothing")]
    fn send_for_callback(&self) {
        self.calls.coming.set(true);
        let idle = self.calls.idle.borrow_mut().pop();
        if let Some(wake) = idle {
            self.wake(wake);
            return;
        }
        // SAFETY: the body borrows nothing and does not unwind: `run_calls` catches, and aborts
        // otherwise.
        let spawned =
            unsafe { self.spawn_bare(Role::Callback, "callback", Location::caller(), run_calls) };
        if let Err(error) = spawned {
            // The calls stay due; a greenlet that ends gives its stack back, and we come again.
            self.calls.coming.set(false);
            crate::report::unhandled("a function for the reactor to call", &error, &());
        }
    }
}

/// The body of a callback greenlet.
fn run_calls(ctl: Ctl) {
    let abort = spawn::AbortOnUnwind;
    let hub = Hub::current().expect("a greenlet runs on a hub");
    while make_calls(hub, ctl) {}
    std::mem::forget(abort);
}

/// Makes the calls that are due, and waits for more. Returns whether to go on.
fn make_calls(hub: &Hub, ctl: Ctl) -> bool {
    // Those that are added meanwhile come after what else is ready then.
    let due = hub.calls.due.borrow().len();
    for _ in 0..due {
        let Some(call) = hub.calls.due.borrow_mut().pop_front() else { break };
        // Whoever kills this call by its number shall not hit the next one.
        ctl.renumber(hub.draw_id());
        // If the call parks, the loop of the hub sees more calls and nobody coming.
        hub.calls.coming.set(false);
        hub.calls.busy.set(true);
        spawn::run_call(ctl, call);
        hub.calls.busy.set(false);
        ctl.renumber(hub.draw_id());
        if ctl.kill.get() != Kill::None && !hub.is_ending() {
            return false; // The kill was for that call. Others take the rest.
        }
    }
    if !hub.calls.due.borrow().is_empty() {
        hub.calls.coming.set(true);
        hub.requeue(ctl);
        return true;
    }
    hub.calls.coming.set(false);
    if hub.is_ending() || hub.calls.idle.borrow().len() >= IDLE_MAX {
        return false;
    }
    let wait = Wait::begin(hub, WaitOn::Idle).expect("a callback greenlet can park");
    hub.calls.idle.borrow_mut().push(wait.wake());
    let parked = unwind::catch(|| wait.park(Deadline::NEVER, Mode::Fallible));
    let woken = matches!(parked, Ok(Ok(())));
    if !woken {
        hub.calls.idle.borrow_mut().retain(|idle| *idle != wait.wake());
    }
    woken
}

/// This thread's reactor, as Twisted users know it: timers, calls, readers, writers.
///
/// A handle; it may be kept, but serves only the [`run`](crate::run) that it was asked in. What it
/// is told to call runs on callback greenlets, and may block.
#[derive(Debug, Clone)]
pub struct Reactor {
    run: u64,
    thread: NotSend,
}

/// The reactor of this thread.
///
/// # Panics
///
/// Outside [`run`](crate::run).
///
/// # Source
///
/// `twisted.internet.reactor`, which is one for the whole process.
#[track_caller]
pub fn reactor() -> Reactor {
    match Hub::current() {
        Some(hub) => Reactor { run: hub.fate.run_id(), thread: NotSend::default() },
        None => panic!("greenloop::reactor: {}", CannotPark::no_hub()),
    }
}

impl Reactor {
    #[track_caller]
    pub(super) fn hub(&self) -> &'static Hub {
        match Hub::current().filter(|hub| hub.fate.run_id() == self.run) {
            Some(hub) => hub,
            None => panic!("greenloop::Reactor: the run that this handle belongs to has ended"),
        }
    }

    /// The time on this reactor's clock: what deadlines are counted on. Reads the clock.
    pub fn now(&self) -> Deadline {
        self.hub().reactor.fresh_now()
    }

    /// Calls `f` once, after `delay`.
    ///
    /// Shape: the handle may be dropped; the call stays. Calls of the same time run in the order
    /// in which they were made.
    ///
    /// # Panics
    ///
    /// When the run has ended.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never. What was not called when [`run`](crate::run) ends is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::{cell::Cell, rc::Rc, time::Duration};
    /// let called = Rc::new(Cell::new(false));
    /// let flag = Rc::clone(&called);
    /// greenloop::run(move || {
    ///     let call = greenloop::reactor().call_later(Duration::from_millis(1), move ||
    ///     flag.set(true)); assert!(call.active());
    ///     greenloop::sleep(Duration::from_millis(5));
    ///     assert!(!call.active());
    /// });
    /// assert!(called.get());
    /// ```
    ///
    /// # Source
    ///
    /// Twisted `IReactorTime.callLater`.
    pub fn call_later(&self, delay: Duration, f: impl FnOnce() + 'static) -> DelayedCall {
        let hub = self.hub();
        let delayed = Rc::new(Delayed::new(hub, Some(Box::new(f)), hub.deadline_in(delay)));
        hub.calls.add_delayed(&delayed);
        delayed.arm(hub);
        DelayedCall { delayed }
    }

    /// Calls `f` soon: in the next turn of the loop, after what is due already.
    ///
    /// # Source
    ///
    /// Twisted `IReactorCore.callWhenRunning`; here the reactor always runs.
    pub fn call_when_running(&self, f: impl FnOnce() + 'static) {
        self.hub().call_if_running(Box::new(f));
    }

    /// Calls `f` whenever `source` is readable, until [`remove_reader`](Self::remove_reader).
    ///
    /// Shape: level-triggered: it is called again as long as there is something to read. It is not
    /// called again while it runs; if it blocks, only this reader waits. If it panics, that is
    /// reported, and it is called no more. The reactor keeps `source` until it is removed. A second
    /// reader for the same descriptor replaces the first.
    ///
    /// # Errors
    ///
    /// `PermissionDenied` for files that cannot be polled (regular files), and when there is no
    /// stack for a greenlet.
    ///
    /// # Source
    ///
    /// Twisted `IReactorFDSet.addReader`.
    #[track_caller]
    pub fn add_reader<S>(&self, source: S, f: impl FnMut(&S) + 'static) -> std::io::Result<()>
    where
        S: AsFd + 'static,
    {
        self.watch(source, Direction::Read, Location::caller(), f)
    }

    /// As [`add_reader`](Self::add_reader), for writing.
    ///
    /// # Errors
    ///
    /// As [`add_reader`](Self::add_reader).
    #[track_caller]
    pub fn add_writer<S>(&self, source: S, f: impl FnMut(&S) + 'static) -> std::io::Result<()>
    where
        S: AsFd + 'static,
    {
        self.watch(source, Direction::Write, Location::caller(), f)
    }

    /// Stops calling a reader, at once, also for an event that was seen already. A call that is
    /// being made is made to its end. Returns whether there was one.
    pub fn remove_reader(&self, fd: &impl AsRawFd) -> bool {
        self.unwatch(fd.as_raw_fd(), Direction::Read)
    }

    /// As [`remove_reader`](Self::remove_reader), for a writer.
    pub fn remove_writer(&self, fd: &impl AsRawFd) -> bool {
        self.unwatch(fd.as_raw_fd(), Direction::Write)
    }

    /// Removes all readers and writers; returns how many there were.
    pub fn remove_all(&self) -> usize {
        let all = self.hub().calls.watched.take();
        all.iter().for_each(Watched::remove);
        all.len()
    }

    /// Ends the run: main is killed, and [`run`](crate::run) panics with
    /// [`RunError::Stopped`](crate::RunError), which [`try_run`](crate::try_run) returns.
    ///
    /// Shape: returns at once. If main ends with a value all the same, the run returns it.
    ///
    /// # Source
    ///
    /// Twisted `IReactorCore.stop`.
    pub fn stop(&self) {
        self.hub().stop();
    }

    /// A handle for other threads.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle::new(Arc::clone(self.hub().inbox()))
    }

    /// How long greenlets that do not end when they are killed hold up the end of the run, before
    /// the process is aborted with a list of them. 10 seconds if not set.
    pub fn set_shutdown_deadline(&self, limit: Duration) {
        self.hub().fate.set_shutdown_limit(limit);
    }

    /// How many turns the reactor has made: an idle one makes none.
    pub fn turns_count(&self) -> u64 {
        self.hub().reactor.turns()
    }

    /// How many times another thread had to wake the reactor by a system call.
    pub fn wakes_count(&self) -> u64 {
        self.hub().inbox().wakes_count()
    }

    fn watch<S>(
        &self,
        source: S,
        direction: Direction,
        place: &'static Location<'static>,
        mut f: impl FnMut(&S) + 'static,
    ) -> std::io::Result<()>
    where
        S: AsFd + 'static,
    {
        let hub = self.hub();
        let fd = source.as_fd().as_raw_fd();
        hub.reactor.register_foreign(source.as_fd(), &mut |waiter| hub.wake(waiter))?;
        self.unwatch(fd, direction);
        let state = Rc::new(WatchState::default());
        let watch = Rc::clone(&state);
        let name = if direction == Direction::Read { "reader" } else { "writer" };
        let reader = move || {
            let _listed = Listed(Rc::clone(&watch));
            while !watch.removed.get() {
                watch.waiting.set(true);
                let waited = io::wait_for(source.as_fd(), direction, Deadline::NEVER);
                watch.waiting.set(false);
                match waited {
                    _ if watch.removed.get() => break,
                    Ok(()) => f(&source),
                    Err(error) => {
                        crate::report::unhandled("a reader or writer", &error, &());
                        break;
                    }
                }
            }
        };
        let greenlet = crate::Builder::new().name(name).spawn_at(place, reader)?;
        let greenlet = greenlet.as_ref();
        hub.calls.watched.borrow_mut().push(Watched { fd, direction, state, greenlet });
        Ok(())
    }

    fn unwatch(&self, fd: RawFd, direction: Direction) -> bool {
        let mut watched = self.hub().calls.watched.borrow_mut();
        let Some(place) = watched.iter().position(|w| w.fd == fd && w.direction == direction)
        else {
            return false;
        };
        let found = watched.swap_remove(place);
        drop(watched);
        found.remove();
        true
    }
}

/// Takes a reader off the list when its greenlet ends, by a panic in its function too.
struct Listed(Rc<WatchState>);

impl Drop for Listed {
    fn drop(&mut self) {
        if let Some(hub) = Hub::current() {
            hub.calls.watched.borrow_mut().retain(|w| !Rc::ptr_eq(&w.state, &self.0));
        }
    }
}

impl Watched {
    fn remove(&self) {
        self.state.removed.set(true);
        // A call that is being made, perhaps by the caller itself, is made to its end.
        if self.state.waiting.get() {
            self.greenlet.kill();
        }
    }
}

/// A call that was scheduled by [`Reactor::call_later`].
#[derive(Clone)]
pub struct DelayedCall {
    delayed: Rc<Delayed>,
}

/// Why a delayed call cannot be changed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DelayedCallError {
    /// It was called.
    AlreadyCalled,
    /// It was cancelled, or its run has ended.
    AlreadyCancelled,
}

impl DelayedCall {
    /// Says what a reserved call is.
    pub(crate) fn fill(&self, call: Box<dyn FnOnce()>) {
        self.delayed.call.set(Some(call));
    }

    /// Cancels the call.
    ///
    /// # Errors
    ///
    /// When it was called or cancelled before.
    pub fn cancel(&self) -> Result<(), DelayedCallError> {
        let hub = self.delayed.check()?;
        self.delayed.fate.set(DelayedFate::Cancelled);
        if let Some(key) = self.delayed.key.take() {
            hub.reactor.cancel_timer(key);
        }
        hub.calls.take_delayed(self.delayed.slot.get(), self.delayed.id.get());
        drop(self.delayed.call.take());
        Ok(())
    }

    /// Has it called `from_now` from now on, instead of when it was to be.
    ///
    /// # Errors
    ///
    /// When it was called or cancelled before.
    pub fn reset(&self, from_now: Duration) -> Result<(), DelayedCallError> {
        let hub = self.delayed.check()?;
        self.delayed.move_to(hub, hub.deadline_in(from_now));
        Ok(())
    }

    /// Has it called `extra` later than it was to be.
    ///
    /// # Errors
    ///
    /// When it was called or cancelled before.
    pub fn delay(&self, extra: Duration) -> Result<(), DelayedCallError> {
        let hub = self.delayed.check()?;
        self.delayed.move_to(hub, self.delayed.deadline.get().saturating_add(extra));
        Ok(())
    }

    /// Whether it is still to be called.
    pub fn active(&self) -> bool {
        self.delayed.check().is_ok()
    }

    /// When it is, or was, to be called, on the reactor's clock.
    pub fn time(&self) -> Deadline {
        self.delayed.deadline.get()
    }
}

impl Delayed {
    fn new(hub: &Hub, call: Option<Call>, deadline: Deadline) -> Delayed {
        Delayed {
            hub: hub.number(),
            call: Cell::new(call),
            fate: Cell::new(DelayedFate::Active),
            deadline: Cell::new(deadline),
            key: Cell::new(None),
            slot: Cell::new(0),
            id: Cell::new(0),
        }
    }

    fn check(&self) -> Result<&'static Hub, DelayedCallError> {
        match self.fate.get() {
            DelayedFate::Called => Err(DelayedCallError::AlreadyCalled),
            DelayedFate::Cancelled => Err(DelayedCallError::AlreadyCancelled),
            // An active call is in the table of its hub, which cancels all when it ends. In the
            // child of a fork that of the parent is gone, and there may be another one.
            DelayedFate::Active => {
                let hub = Hub::current().filter(|hub| hub.number() == self.hub);
                hub.ok_or(DelayedCallError::AlreadyCancelled)
            }
        }
    }

    fn arm(&self, hub: &Hub) {
        let wake = Wake::Call { slot: self.slot.get(), id: self.id.get() };
        let deadline = self.deadline.get();
        self.key.set((!deadline.is_never()).then(|| hub.reactor.add_timer(deadline, wake)));
    }

    fn move_to(&self, hub: &Hub, deadline: Deadline) {
        self.deadline.set(deadline);
        match self.key.get() {
            Some(key) if !deadline.is_never() && hub.reactor.reset_timer(key, deadline) => {}
            key => {
                if let Some(key) = key {
                    hub.reactor.cancel_timer(key);
                }
                self.arm(hub);
            }
        }
    }
}

impl fmt::Debug for DelayedCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedCall")
            .field("time", &self.time())
            .field("fate", &self.delayed.fate.get())
            .finish()
    }
}

impl fmt::Display for DelayedCallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DelayedCallError::AlreadyCalled => "the delayed call was made already",
            DelayedCallError::AlreadyCancelled => "the delayed call was cancelled already",
        })
    }
}

impl Error for DelayedCallError {}

/// A reactor, as other threads reach it.
///
/// While one exists that no greenlet of the reactor drops, somebody may still call in: then a main
/// greenlet that waits for nothing else is not reported as waiting for ever.
pub struct ReactorHandle {
    pub(super) inbox: Arc<Inbox<Message>>,
}

/// The reactor has ended: nobody will call what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped(pub(super) ());

impl ReactorHandle {
    fn new(inbox: Arc<Inbox<Message>>) -> ReactorHandle {
        inbox.add_handle();
        ReactorHandle { inbox }
    }

    /// Has `f` called on the reactor's thread, on a callback greenlet: it may block there.
    ///
    /// Shape: returns at once; calls of one thread are made in their order.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when the run has ended; `f` is dropped.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never. What was not called when the run ends is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// greenloop::run(|| {
    ///     let handle = greenloop::reactor().handle();
    ///     let main = std::thread::current().id();
    ///     let thread = std::thread::spawn(move || {
    ///         handle.call_from_thread(move || assert_eq!(std::thread::current().id(), main))
    ///     });
    ///     while !thread.is_finished() {
    ///         greenloop::yield_now();
    ///     }
    ///     assert!(thread.join().unwrap().is_ok());
    /// });
    /// ```
    ///
    /// # Source
    ///
    /// Twisted `IReactorFromThreads.callFromThread`, which queues silently for ever after the end.
    pub fn call_from_thread(&self, f: impl FnOnce() + Send + 'static) -> Result<(), Stopped> {
        self.inbox.push(Message::Call(Box::new(f))).map_err(|_| Stopped(()))
    }

    /// Spawns a greenlet on the reactor's thread, detached.
    ///
    /// # Errors
    ///
    /// [`Stopped`] when the run has ended; `f` is dropped.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Result<(), Stopped>
    where
        F: FnOnce() -> T + Send + 'static,
        T: 'static,
    {
        let place = Location::caller();
        self.call_from_thread(move || drop(spawn::spawn_at(place, f)))
    }

    /// Ends the run, as [`Reactor::stop`].
    ///
    /// # Errors
    ///
    /// [`Stopped`] when it has ended already.
    pub fn stop(&self) -> Result<(), Stopped> {
        self.inbox.push(Message::Stop).map_err(|_| Stopped(()))
    }
}

impl Clone for ReactorHandle {
    fn clone(&self) -> ReactorHandle {
        ReactorHandle::new(Arc::clone(&self.inbox))
    }
}

impl Drop for ReactorHandle {
    fn drop(&mut self) {
        self.inbox.drop_handle();
    }
}

impl fmt::Debug for ReactorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReactorHandle").finish_non_exhaustive()
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the reactor has ended: nothing can be called on it any more")
    }
}

impl Error for Stopped {}
