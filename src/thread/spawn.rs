//! Spawning: a guest on a block of its own, or an OS thread with a reactor of its own.
//!
//! Floor 8. Uses: `block`, `layout`, `handle`. Used by: `scope`, users.
//!
//! # Invariants
//!
//! - `VTHREAD-1` A guest's code runs on its block's base, and nothing else does.
//! - `VTHREAD-2` Its closure is consumed, its destructors have run, and its result lies in the
//!   outcome before the outcome says that it has ended.

#![expect(unsafe_code, reason = "closures that borrow, bases of blocks")]
//! # Safety
//!
//! `spawn_unchecked` hands its caller's promise on; a block's base is used under `BLOCK-1`.

use std::{
    any::Any,
    cell::RefCell,
    fmt, io, mem,
    panic::{AssertUnwindSafe, Location, catch_unwind},
    sync::Arc,
};

use super::{
    block::Block,
    handle::{JoinHandle, Joint, Killer, Outcome, Switch, Thread, caller, killed},
    layout::{Layout, layout},
};
use crate::{
    RunError,
    hub::{Hub, guest::Host, is_kill, park::CannotPark, shield, try_run},
};

/// Spawns a virtual thread: `f` runs on thread-locals of its own, on this OS thread, when the
/// caller next lets go.
///
/// Shape: as [`std::thread::spawn`]. Dropping the handle detaches the thread; when the
/// [`run`](crate::run) of its hub ends, it is killed.
///
/// # Panics
///
/// Outside [`run`](crate::run), and when there is no memory: [`Builder::spawn`] returns an error
/// instead.
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Examples
///
/// ```
/// use std::cell::Cell;
/// thread_local! { static MINE: Cell<u32> = const { Cell::new(0) } }
/// greenloop::run(|| {
///     MINE.set(1);
///     let theirs = greenloop::thread::spawn(|| MINE.get()).join().unwrap();
///     assert_eq!((MINE.get(), theirs), (1, 0));
/// });
/// ```
///
/// # Source
///
/// [`std::thread::spawn`].
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let spawned = Builder::new().spawn(f);
    spawned.unwrap_or_else(|error| panic!("greenloop::thread::spawn: {error}"))
}

/// Spawns virtual threads with a name or another stack size.
///
/// # Source
///
/// [`std::thread::Builder`].
#[derive(Debug, Default)]
#[must_use = "must eventually spawn the thread"]
pub struct Builder {
    name: Option<Box<str>>,
    stack_size: Option<usize>,
}

impl Builder {
    /// A thread without a name, on a stack of the default size.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Names it: for [`Thread::name`], in reports, and when its stack overflows.
    pub fn name(mut self, name: String) -> Builder {
        self.name = Some(name.into());
        self
    }

    /// Sets the size of its stack.
    ///
    /// Units: bytes of address space, as [`greenloop::Builder`](crate::Builder::stack_size); 256
    /// KiB by default.
    pub fn stack_size(mut self, bytes: usize) -> Builder {
        self.stack_size = Some(bytes);
        self
    }

    /// Spawns `f`, as [`spawn`].
    ///
    /// # Errors
    ///
    /// `OutOfMemory` when there is no stack, and no memory for thread-locals; outside
    /// [`run`](crate::run), an error that says so.
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: both are 'static.
        let joint = unsafe { self.spawn_unchecked(f, ()) };
        joint.map(JoinHandle)
    }

    /// As [`spawn`](Self::spawn), for a closure that borrows. `last` is told whether the thread
    /// panicked and that nobody will join it, and dropped when all else of the thread is gone.
    ///
    /// # Safety
    ///
    /// What `f` and `T` borrow must outlive `last`.
    #[track_caller]
    pub(super) unsafe fn spawn_unchecked<F, T, L>(self, f: F, last: L) -> io::Result<Joint<T>>
    where
        F: FnOnce() -> T + Send,
        T: Send,
        L: Last,
    {
        let place = Location::caller();
        let (hub, guest) = caller().ok_or(CannotPark::OutsideRun)?;
        let thread = Thread::new(self.name.clone());
        let outcome = Arc::new(Outcome::new());
        let body = Body { f, outcome: Arc::clone(&outcome), thread: thread.clone(), last };
        let Ok(layout) = layout() else {
            // SAFETY: the caller's promise.
            let killer = unsafe { self.spawn_os_thread(body) }?;
            return Ok(Joint { thread, outcome, killer });
        };
        let Builder { name, stack_size } = self;
        let awaited = Arc::downgrade(&outcome);
        let spawn = |hub: &Hub| {
            // SAFETY: the caller's promise.
            unsafe {
                hub.spawn_guest(name, stack_size, place, L::BORROWS, awaited, move |host| {
                    body.run_as_guest(&host, layout);
                })
            }
        };
        let number = match guest {
            Some(guest) => guest.enter(spawn),
            None => spawn(hub),
        }?;
        Ok(Joint { thread, outcome, killer: Killer::Guest(Arc::clone(hub.inbox()), number) })
    }

    /// Starts an OS thread, with a reactor on which all calls of this crate work.
    ///
    /// # Safety
    ///
    /// As [`spawn_unchecked`](Self::spawn_unchecked).
    unsafe fn spawn_os_thread<F, T, L>(self, body: Body<F, T, L>) -> io::Result<Killer>
    where
        F: FnOnce() -> T + Send,
        T: Send,
        L: Last,
    {
        let switch = Arc::new(Switch::default());
        let begun = Arc::clone(&switch);
        let Builder { name, stack_size } = self;
        let mut builder = std::thread::Builder::new();
        if let Some(name) = name {
            builder = builder.name(name.into());
        }
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        // SAFETY: the caller's promise.
        let begin = move || unsafe { body.run_as_thread(&begun) };
        // SAFETY: the same.
        unsafe { builder.spawn_unchecked(begin) }?;
        Ok(Killer::Thread(switch))
    }
}

/// What is told of a thread's end when all else of it is gone.
pub(super) trait Last: Send {
    /// Whether the thread borrows, so that it must never be frozen.
    const BORROWS: bool;
    /// It has panicked.
    fn panicked(&self) {}
}

impl Last for () {
    const BORROWS: bool = false;
}

/// What a thread is to do.
struct Body<F, T, L> {
    f: F,
    outcome: Arc<Outcome<T>>,
    thread: Thread,
    last: L,
}

impl<F, T, L> Body<F, T, L>
where
    F: FnOnce() -> T + Send,
    T: Send,
    L: Last,
{
    /// In the hub, on the guest's stack.
    fn run_as_guest(self, host: &Host, layout: &'static Layout) {
        let Body { f, outcome, thread, last } = self;
        let (mut f, mut result) = (Some(f), None);
        if host.is_killed() {
            result = Some(Err(killed()));
        } else {
            Block::with(layout, &mut |block| match block {
                // SAFETY: the block is ours, made for this OS thread (BLOCK-1), and fresh, so
                // `SEAT` is null on it; a layout exists only where bases may be changed (LAYOUT-1).
                Ok(block) => unsafe {
                    host.host(block.base(), block.tid(), || {
                        Block::begin(layout);
                        thread.enter();
                        let f = f.take();
                        result = f.map(|f| catch_unwind(AssertUnwindSafe(f)));
                        // Joiners see what the destructors do, and no kill disturbs them.
                        shield(|| Block::end(layout));
                    });
                },
                Err(error) => result = Some(Err(Box::new(error.to_string()))),
            });
        }
        // One that has not run.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(f)));
        let result = dropped.and_then(|()| result.expect("it has run")).map_err(without_kill);
        end(outcome, result, last);
    }

    /// On an OS thread of its own. What this says of its end, it says when its thread-locals are
    /// gone.
    ///
    /// # Safety
    ///
    /// What `T` and `L` borrow outlives `last`.
    unsafe fn run_as_thread(self, switch: &Switch) {
        let Body { f, outcome, thread, last } = self;
        // The first thread-local of a thread is the last to go.
        AT_END.with(|_| ());
        thread.enter();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            try_run(|| {
                switch.begin(crate::reactor().handle());
                f()
            })
        }));
        let result = match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(RunError::Stopped | RunError::Killed(_))) => Err(killed()),
            Ok(Err(error)) => Err(Box::new(error.to_string()) as Box<dyn Any + Send>),
            Err(payload) => Err(payload),
        };
        let at_end: Box<dyn FnOnce() + '_> = Box::new(move || end(outcome, result, last));
        // SAFETY: what it borrows outlives `last` (the caller's promise), which goes last of what
        // is in it, or never.
        let at_end = unsafe { mem::transmute::<Box<dyn FnOnce() + '_>, Box<dyn FnOnce()>>(at_end) };
        AT_END.with(|place| place.borrow_mut().0 = Some(at_end));
    }
}

/// What is done when an OS thread has no thread-locals left.
struct AtEnd(Option<Box<dyn FnOnce()>>);

thread_local! {
    static AT_END: RefCell<AtEnd> = const { RefCell::new(AtEnd(None)) };
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(end) = self.0.take() {
            end();
        }
    }
}

/// The end of a thread. The result may borrow, and nobody may want it: our share of it goes before
/// `last` does.
///
/// INVARIANT: VTHREAD-2.
fn end<T, L: Last>(outcome: Arc<Outcome<T>>, result: std::thread::Result<T>, last: L) {
    if result.as_ref().is_err_and(|payload| is_panic(&**payload)) {
        last.panicked();
    }
    outcome.set(result);
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(outcome)));
    if dropped.is_err() {
        last.panicked();
    }
    drop(last);
}

/// Whether this is a panic, and not what a kill leaves.
pub(super) fn is_panic(payload: &(dyn Any + Send)) -> bool {
    !payload.is::<crate::Killed>()
}

/// What a joiner is told in place of our own payload.
fn without_kill(payload: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
    if is_kill(&*payload) { killed() } else { payload }
}

impl<F, T, L> fmt::Debug for Body<F, T, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("thread", &self.thread).finish_non_exhaustive()
    }
}
