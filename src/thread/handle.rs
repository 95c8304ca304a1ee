//! Handles: of a thread that runs, to wake it; of one that was spawned, to wait for its end.
//!
//! Floor 8. Uses: `sync::Event`. Used by: `spawn`, `scope`, users.

use std::{
    any::Any,
    cell::OnceCell,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use crate::{
    ReactorHandle,
    hub::{
        Hub, Message,
        guest::{self, Awaited, Guest},
    },
    reactor::Inbox,
    sync::Event,
};

/// A thread, virtual or not: to name it, and to wake it from [`park`].
///
/// # Source
///
/// [`std::thread::Thread`].
#[derive(Clone)]
pub struct Thread(Arc<Identity>);

struct Identity {
    name: Option<Box<str>>,
    /// Set while an `unpark` has not been used up. Boxed, since it is most of what a thread would
    /// take, and most never need it.
    token: OnceLock<Box<Event>>,
}

impl Identity {
    fn token(&self) -> &Event {
        self.token.get_or_init(Box::default)
    }
}

thread_local! {
    /// Who runs on these thread-locals, once somebody has asked.
    static CURRENT: OnceCell<Thread> = const { OnceCell::new() };
}

impl Thread {
    pub(super) fn new(name: Option<Box<str>>) -> Thread {
        Thread(Arc::new(Identity { name, token: OnceLock::new() }))
    }

    /// Makes it the one that [`current`] returns on these thread-locals.
    pub(super) fn enter(&self) {
        CURRENT.with(|current| drop(current.set(self.clone())));
    }

    /// Its name, if it was given one.
    pub fn name(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    /// Wakes it from [`park`], now or when it next calls that. From any thread.
    pub fn unpark(&self) {
        self.0.token().set();
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Thread").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The thread that calls this: a virtual thread, or the OS thread (which all its greenlets share).
///
/// # Panics
///
/// In a destructor of a thread-local that runs after this one's.
///
/// # Source
///
/// [`std::thread::current`].
pub fn current() -> Thread {
    CURRENT.with(|current| {
        let unnamed = || Thread::new(std::thread::current().name().map(Box::from));
        current.get_or_init(unnamed).clone()
    })
}

/// Waits until somebody calls [`Thread::unpark`] for the caller, or has since it last waited. May
/// return without a reason.
///
/// # Cancellation
///
/// Cancellation point: always. Infallible: where a kill cannot unwind, it waits on.
///
/// # Source
///
/// [`std::thread::park`].
pub fn park() {
    let current = current();
    current.0.token().wait();
    current.0.token().clear();
}

/// As [`park`], for `limit` at most.
///
/// # Source
///
/// [`std::thread::park_timeout`].
pub fn park_timeout(limit: Duration) {
    let current = current();
    current.0.token().wait_timeout(limit);
    current.0.token().clear();
}

/// Puts the caller to sleep: a virtual thread or a greenlet parks, an OS thread blocks.
///
/// # Cancellation
///
/// Cancellation point: always, on a hub. Infallible: where a kill cannot unwind, it sleeps on.
///
/// # Source
///
/// [`std::thread::sleep`].
pub fn sleep(duration: Duration) {
    match Hub::of_caller() {
        Some(_) => crate::sleep(duration),
        None => std::thread::sleep(duration),
    }
}

/// Lets others run: of the hub, or on an OS thread those of the processor.
///
/// # Cancellation
///
/// Cancellation point: always, on a hub.
///
/// # Source
///
/// [`std::thread::yield_now`].
pub fn yield_now() {
    match Hub::of_caller() {
        Some(_) => crate::yield_now(),
        None => std::thread::yield_now(),
    }
}

/// How a thread is asked to end.
#[derive(Clone)]
pub(super) enum Killer {
    /// A guest, by its number.
    Guest(Arc<Inbox<Message>>, (u32, u64)),
    /// An OS thread, by the reactor that runs on it, once it does.
    Thread(Arc<Switch>),
}

/// Where an OS thread leaves its reactor, and others that it is to end.
#[derive(Default)]
pub(super) struct Switch {
    reactor: OnceLock<ReactorHandle>,
    is_off: Mutex<bool>,
}

impl Switch {
    /// The thread has begun; it ends at once if it was asked to before.
    pub(super) fn begin(&self, reactor: ReactorHandle) {
        let is_off = self.is_off.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_off {
            let _ = reactor.stop();
        }
        let _ = self.reactor.set(reactor);
    }

    fn turn_off(&self) {
        *self.is_off.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(reactor) = self.reactor.get() {
            let _ = reactor.stop();
        }
    }
}

impl Killer {
    pub(super) fn kill(&self) {
        match self {
            Killer::Thread(switch) => switch.turn_off(),
            Killer::Guest(inbox, number) => {
                let (number, same) = (*number, |hub: &&Hub| Arc::ptr_eq(hub.inbox(), inbox));
                if let Some(hub) = Hub::current().filter(same) {
                    hub.kill_guest(number);
                } else if let Some(guest) = guest::guest().filter(|guest| same(&guest.hub())) {
                    guest.enter(|hub| hub.kill_guest(number));
                } else {
                    // It fails when that hub has ended, and its guests with it.
                    let ask = Message::Ask(Box::new(move |hub| hub.kill_guest(number)));
                    let _ = inbox.push(ask);
                }
            }
        }
    }
}

/// What a thread leaves behind, for whoever joins it.
pub(super) struct Outcome<T> {
    result: Mutex<Option<std::thread::Result<T>>>,
    ended: Event,
}

impl<T> Outcome<T> {
    pub(super) fn new() -> Outcome<T> {
        Outcome { result: Mutex::new(None), ended: Event::new() }
    }

    /// Says what became of it, once.
    pub(super) fn set(&self, result: std::thread::Result<T>) {
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        self.ended.set();
    }

    pub(super) fn is_set(&self) -> bool {
        self.ended.is_set()
    }

    fn wait(&self) -> std::thread::Result<T> {
        self.ended.wait();
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
        result.expect("a thread is joined once, and has ended")
    }
}

impl<T> Awaited for Outcome<T> {
    /// What has ended is not changed: only its last steps are not done.
    fn frozen(&self) {
        if !self.is_set() {
            self.set(Err(killed()));
        }
    }
}

/// What both kinds of handle have.
pub(super) struct Joint<T> {
    pub(super) thread: Thread,
    pub(super) outcome: Arc<Outcome<T>>,
    pub(super) killer: Killer,
}

impl<T> Joint<T> {
    pub(super) fn join(self) -> std::thread::Result<T> {
        self.outcome.wait()
    }
}

/// A virtual thread that was spawned: to wait for its end. Dropping it detaches the thread.
///
/// # Source
///
/// [`std::thread::JoinHandle`]. Differs: [`kill`](Self::kill).
pub struct JoinHandle<T>(pub(super) Joint<T>);

impl<T> JoinHandle<T> {
    /// Waits for the thread's end, and that of its thread-locals' destructors.
    ///
    /// # Errors
    ///
    /// What it panicked with. [`Killed`](crate::Killed) when it was killed.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. The thread goes on.
    pub fn join(self) -> std::thread::Result<T> {
        self.0.join()
    }

    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.0.thread
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.0.outcome.is_set()
    }

    /// Asks it to end: see [the module](crate::thread#cancellation). From any thread.
    pub fn kill(&self) {
        self.0.killer.kill();
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("thread", self.thread())
            .field("is_finished", &self.is_finished())
            .finish()
    }
}

/// What becomes of a thread that was killed.
pub(super) fn killed() -> Box<dyn Any + Send> {
    Box::new(crate::Killed::plain())
}

/// The hub of the caller, and the guest that the caller is.
pub(super) fn caller() -> Option<(&'static Hub, Option<Guest>)> {
    Hub::current().map(|hub| (hub, None)).or_else(|| {
        let guest = guest::guest()?;
        Some((guest.hub(), Some(guest)))
    })
}
