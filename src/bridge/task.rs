//! Async blocks as Deferreds: what Twisted's `inlineCallbacks` does for generators.
//!
//! Floor 7. Uses: `future`, `deferred`, greenlets. Used by: `Deferred::from_future`; `deferred`, to
//! tell which Deferreds a block awaits.
//!
//! # Contract: what a cancel of the Deferred does to the block
//!
//! | the block | a cancel |
//! |---|---|
//! | awaits Deferreds (one, or several at once: `join!`) | cancels those, at once. What they give is what the block sees: it may catch [`Cancelled`](crate::Cancelled) and go on |
//! | awaits something else: a greenlet, a future of another crate | drops the block. There is nothing in such a wait that a cancel could be given to |
//! | runs, or is about to: it was not polled yet, or what it awaits is there | is kept, and does one of the above to what it awaits next |
//! | has parked inside its poll, in a call of this crate | kills its greenlet: calls that can fail fail with [`Killed`](crate::Killed), and the block is dropped when its poll is over |
//! | has ended | nothing |
//!
//! Each cancel is one request, and the next one reaches what is awaited then. The Deferred fires
//! when the block has ended, with what it ended with: its own result if it caught the cancellation.
//!
//! # Source
//!
//! Twisted `inlineCallbacks`, `_cancellableInlineCallbacks`; asyncio `Task.cancel`, for the block
//! that runs. Differs: what cannot be cancelled is dropped.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
};

use super::future::drive;
use crate::{
    CancelHandle, Deferred, Failure, Greenlet, GreenletRef, JoinError, Resolver,
    hub::{
        Hub,
        park::{CannotPark, WaitOn},
        waker::Shared,
    },
};

/// A block that runs as a Deferred.
pub(super) struct Task {
    /// Who runs it.
    greenlet: OnceCell<GreenletRef>,
    /// What wakes it.
    shared: Arc<Shared>,
    /// The Deferreds that it awaits at this moment, by the order of their coming.
    awaited: RefCell<BTreeMap<u64, CancelHandle>>,
    next_key: Cell<u64>,
    /// A cancel has come and has reached nothing yet.
    cancel: Cell<bool>,
    /// Whether it is being polled; it may have parked meanwhile.
    polled: Cell<bool>,
}

impl Task {
    /// The block that the current greenlet runs, if it is one.
    pub(super) fn current() -> Option<Rc<Task>> {
        Hub::current()?.keepsake()?.downcast().ok()
    }

    /// Notes that a Deferred is awaited. Returns its key, and whether a cancel has waited for it.
    pub(super) fn enlist(&self, handle: CancelHandle) -> (u64, bool) {
        let key = self.next_key.get();
        self.next_key.set(key + 1);
        self.awaited.borrow_mut().insert(key, handle);
        (key, self.cancel.take())
    }

    /// Notes that a Deferred is awaited no more.
    pub(super) fn strike(&self, key: u64) {
        self.awaited.borrow_mut().remove(&key);
    }

    /// A cancel of the Deferred: see the table above.
    fn cancel(self: &Rc<Task>) {
        // User code runs in there: nothing is borrowed meanwhile.
        let awaited: Vec<CancelHandle> = self.awaited.borrow().values().cloned().collect();
        if !awaited.is_empty() {
            return awaited.iter().for_each(CancelHandle::cancel);
        }
        let runs = || Task::current().is_some_and(|task| Rc::ptr_eq(&task, self));
        if self.polled.get() && !runs() {
            return self.greenlet.get().expect("it has begun").kill();
        }
        self.cancel.set(true);
        self.shared.wake();
    }

    /// Runs the block on the current greenlet.
    fn run<T, E>(self: Rc<Task>, block: impl Future<Output = Result<T, E>>) -> Result<T, Failure>
    where
        E: Into<Failure>,
    {
        let hub = Hub::current().expect("a greenlet runs on a hub");
        hub.set_keepsake(Rc::clone(&self) as Rc<_>);
        let polled = |now| self.polled.set(now);
        // It was awake when the cancel came, and awaits nothing that could be given it.
        let is_over = || self.cancel.get() && self.awaited.borrow().is_empty();
        match drive(hub, &self.shared, WaitOn::Future, pin!(block), polled, is_over) {
            Some(result) => result.map_err(Into::into),
            None => Err(Failure::cancelled()),
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("greenlet", &self.greenlet)
            .field("awaited", &self.awaited.borrow().len())
            .finish_non_exhaustive()
    }
}

/// What a canceller fires, so that the chain asks the block, and waits for its answer.
#[derive(Debug)]
struct Asked;

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cancellation is under way")
    }
}

impl Error for Asked {}

/// Where the Resolver is that the end of the block fires: each cancel puts another one there.
type Seat<T> = Cell<Option<Resolver<T>>>;

/// A Deferred that the seat's Resolver fires, and whose cancel is handed on to the block.
fn ask_when_cancelled<T: 'static>(task: Rc<Task>, seat: Weak<Seat<T>>) -> Deferred<T> {
    let (resolver, deferred) = Deferred::with_canceller(|cancelling| cancelling.errback(Asked));
    if let Some(seat) = seat.upgrade() {
        seat.set(Some(resolver));
    }
    deferred.or_else(move |failure| match failure.is::<Asked>() {
        false => Deferred::fail(failure),
        true => {
            let answer = ask_when_cancelled(Rc::clone(&task), seat);
            task.cancel();
            answer
        }
    })
}

impl<T: 'static> Deferred<T> {
    /// Turns a future into a Deferred: it runs on a greenlet of its own, and fires the Deferred.
    ///
    /// Shape: an `async` block in here is what a generator is in Twisted's `inlineCallbacks`: it
    /// awaits Deferreds, greenlets and futures, and is a Deferred to the outside. The future needs
    /// no `Send`. It is first polled when the caller has let others run.
    ///
    /// # Errors
    ///
    /// The Deferred fails with the future's error; with its panic; with an error that says so
    /// outside [`run`](crate::run), or when there is no stack.
    ///
    /// # Cancellation
    ///
    /// Cancelling the Deferred cancels the Deferreds that the block awaits at that moment. The
    /// block may catch [`Cancelled`](crate::Cancelled) and go on: its result counts, and a second
    /// cancel reaches what it awaits then. A block that awaits anything else is dropped, and the
    /// Deferred fails with `Cancelled`. It fires when the block has ended, not before. A cancel
    /// that finds the block at work reaches what it awaits next.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenloop::{Deferred, Failure, wait_for_deferred};
    /// greenloop::run(|| {
    ///     let (_resolver, question) = Deferred::<u32>::new();
    ///     let answer = Deferred::from_future(async {
    ///         match question.await {
    ///             Err(failure) if failure.is_cancelled() => Ok::<_, Failure>(42),
    ///             answer => answer,
    ///         }
    ///     });
    ///     answer.cancel();
    ///     assert_eq!(wait_for_deferred(answer).ok(), Some(42));
    /// });
    /// ```
    ///
    /// # Source
    ///
    /// Twisted `inlineCallbacks`, `Deferred.fromCoroutine`, `Deferred.fromFuture`.
    #[track_caller]
    pub fn from_future<F, E>(future: F) -> Deferred<T>
    where
        F: Future<Output = Result<T, E>> + 'static,
        E: Into<Failure> + 'static,
    {
        let Some(hub) = Hub::current() else { return Deferred::fail(CannotPark::no_hub()) };
        let task = Rc::new(Task {
            greenlet: OnceCell::new(),
            shared: Shared::new(hub),
            awaited: RefCell::default(),
            next_key: Cell::new(0),
            cancel: Cell::new(false),
            polled: Cell::new(false),
        });
        let own = Rc::clone(&task);
        let greenlet = match crate::Builder::new().spawn(move || own.run(future)) {
            Err(error) => return Deferred::fail(error),
            Ok(greenlet) => greenlet,
        };
        task.greenlet.set(greenlet.as_ref()).expect("it is set once");
        let seat = Rc::new(Seat::default());
        let deferred = ask_when_cancelled(task, Rc::downgrade(&seat));
        greenlet.on_end(move |greenlet| fire(seat.take(), greenlet));
        deferred
    }
}

/// Gives what the block has ended with to whoever has the Deferred.
fn fire<T: 'static>(resolver: Option<Resolver<T>>, ended: Greenlet<Result<T, Failure>>) {
    let result = ended.take_result().map_err(JoinError::into_failure).flatten();
    resolver.expect("the seat is taken until the end").fire(result);
}
