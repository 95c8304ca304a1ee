//! Deferreds for greenlets and futures, and greenlets as Deferreds.
//!
//! Floor 7. Uses: `hub::park`, `deferred`.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::{Future, IntoFuture},
    panic::Location,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use super::task::Task;
use crate::{
    Deferred, Elapsed, Failure, Greenlet, JoinError, Killed,
    deferred::{Arrival, CancelHandle, mark_waited},
    hub::{
        Hub,
        park::{Interrupt, Mode, Wait, WaitOn},
        waker::KeptWaker,
    },
    time::Deadline,
};

/// Parks the current greenlet until `deferred` has fired, and returns its result.
///
/// Shape: a Deferred that has fired gives its result at once. It is taken by value: nobody else can
/// wait for it.
///
/// # Errors
///
/// The Failure that it fired with. Where the caller cannot be suspended (outside
/// [`run`](crate::run), in a `Waker`, on the hub's own stack): a Failure that says so, at once, and
/// the Deferred is cancelled. [`Killed`] where a kill cannot unwind.
///
/// # Panics
///
/// Never.
///
/// # Cancellation
///
/// Cancellation point: always. A kill or an elapsed [`timeout`](crate::timeout) cancels the
/// Deferred and unwinds; if the Deferred fails later all the same, that is reported. Inside
/// [`shield`](crate::shield) the Deferred is not cancelled, and its late failure is reported too.
///
/// # Examples
///
/// ```
/// use greenloop::{Deferred, Failure};
/// use std::time::Duration;
/// let answer: Result<i32, Failure> = greenloop::run(|| {
///     let (resolver, deferred) = Deferred::new();
///     greenloop::reactor().call_later(Duration::from_millis(1), move || resolver.callback(41));
///     greenloop::wait_for_deferred(deferred.add_callback(|n| Ok(n + 1)))
/// });
/// assert_eq!(answer.ok(), Some(42));
/// ```
///
/// # Source
///
/// geventreactor `waitForDeferred`; Twisted `blockingCallFromThread`.
#[track_caller]
pub fn wait_for_deferred<T: 'static>(deferred: Deferred<T>) -> Result<T, Failure> {
    let mut result = wait_until(deferred, |_| Deadline::NEVER);
    mark_waited(&mut result, Location::caller());
    result
}

/// As [`wait_for_deferred`], but gives up after `limit`.
///
/// # Errors
///
/// As [`wait_for_deferred`]; and [`Elapsed`] after `limit`: then the Deferred was cancelled. If its
/// canceller gave a value or an error of its own, that counts instead.
///
/// # Cancellation
///
/// As [`wait_for_deferred`].
#[track_caller]
pub fn wait_for_deferred_timeout<T: 'static>(
    deferred: Deferred<T>,
    limit: Duration,
) -> Result<T, Failure> {
    let mut result = wait_until(deferred, |hub| hub.deadline_in(limit));
    mark_waited(&mut result, Location::caller());
    result
}

/// Cancels a Deferred if the wait for it does not even begin.
struct CancelUnlessTaken<T: 'static>(Option<Deferred<T>>);

impl<T: 'static> Drop for CancelUnlessTaken<T> {
    fn drop(&mut self) {
        if let Some(deferred) = &self.0 {
            deferred.cancel();
        }
    }
}

/// A wait that was begun. Cancels what it waits for if it is left by an unwind.
struct Waiting<'h> {
    wait: Option<Wait<'h>>,
    handle: CancelHandle,
}

impl Waiting<'_> {
    /// The wait has ended in order. Cancels if asked to: the wait itself is over then, for the
    /// canceller may wait for something else.
    fn end(mut self, cancel: bool) {
        let handle = std::mem::take(&mut self.handle);
        self.wait = None;
        if cancel {
            handle.cancel();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.wait = None;
        self.handle.cancel();
    }
}

fn wait_until<T: 'static>(
    deferred: Deferred<T>,
    deadline: impl FnOnce(&Hub) -> Deadline,
) -> Result<T, Failure> {
    let mut held = CancelUnlessTaken(Some(deferred));
    let hub = Hub::to_park();
    if let Ok(hub) = hub {
        hub.checkpoint(Mode::Infallible);
    }
    let deferred = match held.0.take().expect("put there above").try_take() {
        Ok(result) => return result,
        Err(deferred) => deferred,
    };
    held.0 = Some(deferred);
    let begun = hub.and_then(|hub| Ok((deadline(hub), Wait::begin(hub, WaitOn::Deferred)?)));
    let (deadline, wait) = begun.map_err(Failure::new)?;
    let wake = wait.wake();
    let arrival = Arrival::new("a Deferred whose waiter was killed or timed out", move || {
        if let Some(hub) = Hub::current() {
            hub.wake(wake); // stale and harmless if the waiter has gone
        }
    });
    let deferred = held.0.take().expect("put there above");
    let handle = deferred.arrive(Rc::clone(&arrival));
    let waiting = Waiting { wait: Some(wait), handle };
    let parked = match &waiting.wait {
        Some(wait) => wait.park(deadline, Mode::Fallible),
        None => Ok(()),
    };
    waiting.end(parked == Err(Interrupt::TimedOut));
    let result = arrival.take();
    match (parked, result) {
        (Ok(()), Some(result)) => result,
        (Err(Interrupt::TimedOut), Some(Ok(value))) => Ok(value),
        (Err(Interrupt::TimedOut), Some(Err(failure))) if !failure.is_cancelled() => Err(failure),
        (Err(Interrupt::TimedOut), _) => Err(Failure::new(Elapsed::new())),
        (Err(Interrupt::Killed), Some(result)) => result,
        (Err(Interrupt::Killed), None) => Err(Failure::new(Killed::of_current())),
        (Ok(()), None) => unreachable!("woken by the arrival, which has the result first"),
    }
}

/// Turns a greenlet into a Deferred, which fires when the greenlet has ended.
///
/// Shape: the greenlet's value becomes the Deferred's. Callbacks run on a callback greenlet, so
/// they may block. Cancelling the Deferred kills the greenlet, and fires the Deferred with
/// [`Cancelled`](crate::Cancelled).
///
/// # Errors
///
/// The Deferred fails with [`Cancelled`](crate::Cancelled) when the greenlet was killed, with
/// [`Killed`] when that was for a reason, and with the panic (its message, place and backtrace)
/// when it panicked.
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Source
///
/// geventreactor `waitForGreenlet`, where a kill is a success and a cancel does nothing.
#[track_caller]
pub fn wait_for_greenlet<T: 'static>(greenlet: Greenlet<T>) -> Deferred<T> {
    if greenlet.is_finished() {
        return Deferred::from_result(greenlet.take_result().map_err(JoinError::into_failure));
    }
    let target = greenlet.as_ref();
    let (resolver, deferred) = Deferred::with_canceller(move |_| target.kill());
    greenlet.on_end(move |greenlet| {
        // After a cancel nobody listens: a panic of the dying greenlet is then reported by its
        // handle.
        if !resolver.is_cancelled() {
            resolver.fire(greenlet.take_result().map_err(JoinError::into_failure));
        }
    });
    deferred
}

/// The future that a [`Deferred`] becomes when it is awaited. Dropping it cancels the Deferred.
#[must_use = "dropping it cancels the Deferred"]
pub struct DeferredFuture<T: 'static> {
    state: Rc<Observed<T>>,
    handle: CancelHandle,
    /// Where it is awaited.
    place: &'static Location<'static>,
}

/// What the future and the end of the chain share.
struct Observed<T: 'static> {
    result: Cell<Option<Result<T, Failure>>>,
    waker: RefCell<Option<KeptWaker>>,
    /// The block that awaits it, and what it is known by there.
    awaiter: Cell<Option<(Rc<Task>, u64)>>,
    left: Cell<bool>,
}

impl<T: 'static> Observed<T> {
    /// Nobody awaits it any more.
    fn strike(&self) {
        if let Some((task, key)) = self.awaiter.take() {
            task.strike(key);
        }
    }
}

impl<T: 'static> IntoFuture for Deferred<T> {
    type Output = Result<T, Failure>;
    type IntoFuture = DeferredFuture<T>;

    #[track_caller]
    fn into_future(self) -> DeferredFuture<T> {
        let state = Rc::new(Observed {
            result: Cell::new(None),
            waker: RefCell::new(None),
            awaiter: Cell::new(None),
            left: Cell::new(false),
        });
        let filled = Rc::clone(&state);
        let handle = self.observe(move |result| match result {
            Err(failure) if filled.left.get() => {
                failure.report_unhandled("a Deferred whose future was dropped");
            }
            result => {
                filled.result.set(Some(result));
                filled.strike();
                let waker = filled.waker.borrow_mut().take();
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        });
        DeferredFuture { state, handle, place: Location::caller() }
    }
}

impl<T: 'static> Future for DeferredFuture<T> {
    type Output = Result<T, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.take() {
            return Poll::Ready(result);
        }
        // Cloning and dropping a waker may run code of others: no borrow is held meanwhile.
        let new = KeptWaker::keep(cx.waker());
        let old = self.state.waker.borrow_mut().replace(new);
        drop(old);
        if self.is_to_be_cancelled() {
            self.handle.cancel();
        }
        self.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T: 'static> DeferredFuture<T> {
    /// The result, if it is there.
    fn take(&self) -> Option<Result<T, Failure>> {
        let mut result = self.state.result.take()?;
        mark_waited(&mut result, self.place);
        Some(result)
    }

    /// Tells the block that awaits it. Returns whether a cancel of that one is to reach it.
    fn is_to_be_cancelled(&self) -> bool {
        let task = Task::current();
        let before = self.state.awaiter.take();
        match (task, before) {
            (Some(task), Some((same, key))) if Rc::ptr_eq(&task, &same) => {
                self.state.awaiter.set(Some((same, key)));
                false
            }
            (task, before) => {
                self.state.awaiter.set(before);
                self.state.strike();
                let Some(task) = task else { return false };
                let (key, cancelled) = task.enlist(self.handle.clone());
                self.state.awaiter.set(Some((task, key)));
                cancelled
            }
        }
    }
}

impl<T: 'static> Drop for DeferredFuture<T> {
    fn drop(&mut self) {
        self.state.left.set(true);
        self.state.strike();
        self.handle.cancel();
        if let Some(Err(failure)) = self.state.result.take() {
            failure.report_unhandled("a Deferred whose future was dropped");
        }
    }
}

impl<T: 'static> fmt::Debug for DeferredFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeferredFuture").field("handle", &self.handle).finish_non_exhaustive()
    }
}
