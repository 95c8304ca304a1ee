//! Futures for greenlets, and greenlets as futures.
//!
//! Floor 7. Uses: `hub::park`, `hub::waker`.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use super::select::{Arm, Cover, End, Selected, wait};
use crate::{
    Elapsed, Greenlet, JoinError,
    hub::{
        Hub, guest,
        park::{Mode, Wait, WaitOn},
        waker::{KeptWaker, OwnWaker, Shared},
    },
    shield, sleep_async,
    sync::Event,
    time::Deadline,
};

/// Parks the current greenlet until `future` is ready, and returns its output.
///
/// Shape: the future is polled on this greenlet's stack and needs neither `Send` nor `'static`. Its
/// waker may be called on any thread. A future that wakes itself at once lets the other greenlets
/// run before it is polled again. While it is polled it may call what parks: then this greenlet
/// parks. If it blocks its thread, every greenlet of the thread waits.
///
/// With the feature `tokio`, it is polled inside a tokio runtime (the caller's, if the thread is in
/// one; else one that all share, on a thread in the background), so that futures of `tokio::net`
/// and `tokio::time`, and of crates that use them, work as they are. The caller's must be driven by
/// another thread: inside of `block_on` of a `current_thread` runtime (`#[tokio::main]` of that
/// flavor) nobody drives it while greenlets run, and its sockets and timers never come.
///
/// # Panics
///
/// Where the caller cannot be suspended: outside [`run`](crate::run), in a `Waker`, on the hub's
/// own stack. With whatever the future panics with.
///
/// # Cancellation
///
/// Cancellation point: always. A kill or an elapsed [`timeout`](crate::timeout) drops the future
/// and unwinds, between two polls: while it is polled it is shielded. Infallible: where a kill
/// cannot unwind, the wait goes on.
///
/// # Examples
///
/// ```
/// let n = greenloop::run(|| greenloop::wait_for_future(async { 6 * 7 }));
/// assert_eq!(n, 42);
/// ```
///
/// # Source
///
/// `futures::executor::block_on`, which blocks the thread.
#[track_caller]
pub fn wait_for_future<F: Future>(future: F) -> F::Output {
    if guest::guest().is_some() && Hub::current().is_none() {
        return drive_as_guest(pin!(future));
    }
    let hub = Hub::to_park().unwrap_or_else(|why| panic!("greenloop::wait_for_future: {why}"));
    let shared = Shared::lend(hub);
    let output = drive(hub, &shared, WaitOn::Future, pin!(future), |_| (), || false);
    output.expect("it is never given up")
}

/// As [`wait_for_future`], but gives up after `limit`: then the future is dropped. One that is to
/// live on is passed as `&mut`, or [pinned](std::pin::pin).
///
/// Shape: a future that is ready counts, however late.
///
/// # Errors
///
/// [`Elapsed`] after `limit`.
///
/// # Panics, Cancellation
///
/// As [`wait_for_future`].
#[track_caller]
pub fn wait_for_future_timeout<F: Future>(
    future: F,
    limit: Duration,
) -> Result<F::Output, Elapsed> {
    let cover = Cover::new();
    let (future, time) = (pin!(future), pin!(sleep_async(limit)));
    match wait(&cover, Arm::new(future, true, Arm::new(time, true, End))) {
        Selected::This(output) => Ok(output),
        Selected::Later(_) => Err(Elapsed::new()),
    }
}

/// Polls `future` on the current greenlet until it is ready, or until `is_over` says after a poll
/// that it is given up. `on` is for reports. `polled` is told when a poll begins and when it has
/// ended.
pub(super) fn drive<F: Future>(
    hub: &'static Hub,
    shared: &Arc<Shared>,
    on: WaitOn,
    mut future: Pin<&mut F>,
    polled: impl Fn(bool),
    is_over: impl Fn() -> bool,
) -> Option<F::Output> {
    let waker = OwnWaker::new(shared);
    let mut context = Context::from_waker(&waker);
    #[cfg(feature = "tokio")]
    let mut lodges = true;
    loop {
        hub.checkpoint(Mode::Infallible);
        // Before each poll: meanwhile the thread may have left a runtime that was the user's.
        #[cfg(feature = "tokio")]
        if lodges {
            lodges = super::tokio::enter(hub);
        }
        shared.take_wake();
        polled(true);
        let poll = shield(|| future.as_mut().poll(&mut context));
        polled(false);
        if let Poll::Ready(output) = poll {
            return Some(output);
        }
        if is_over() {
            return None;
        }
        wait_for_wake(hub, shared, on);
    }
}

/// Polls `future` in the code of a guest, whose thread-locals it may use, until it is ready.
fn drive_as_guest<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    struct Bell(Event);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.set();
        }
    }
    let bell = Arc::new(Bell(Event::new()));
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    loop {
        // What is woken from here on is polled again.
        bell.0.clear();
        if let Poll::Ready(output) = shield(|| future.as_mut().poll(&mut context)) {
            return output;
        }
        bell.0.wait();
    }
}

/// Parks until a waker was called; lets others run if one was called already.
fn wait_for_wake(hub: &'static Hub, shared: &Arc<Shared>, on: WaitOn) {
    /// Ends the wait for the wakers, on every way out.
    struct Retract<'a>(&'a Shared);
    impl Drop for Retract<'_> {
        fn drop(&mut self) {
            self.0.retract();
        }
    }
    let wait = Wait::begin(hub, on).expect("it could park a moment ago");
    let _retract = Retract(shared);
    if shared.publish(wait.wake()) {
        drop(wait);
        crate::yield_now();
        return;
    }
    let _ = wait.park(Deadline::NEVER, Mode::Infallible);
}

/// The future that a [`Greenlet`] becomes when it is awaited.
///
/// Dropping it detaches the greenlet, as dropping its handle does.
#[must_use = "dropping it detaches the greenlet"]
pub struct GreenletFuture<T> {
    greenlet: Option<Greenlet<T>>,
}

impl<T> IntoFuture for Greenlet<T> {
    type Output = Result<T, JoinError>;
    type IntoFuture = GreenletFuture<T>;

    fn into_future(self) -> GreenletFuture<T> {
        GreenletFuture { greenlet: Some(self) }
    }
}

impl<T> Unpin for GreenletFuture<T> {}

impl<T> Future for GreenletFuture<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const OVER: &str = "a GreenletFuture was polled after it was ready";
        let greenlet = self.greenlet.as_ref().expect(OVER);
        if !greenlet.is_finished() {
            // Cloning it is code of others: if it has parked, the greenlet may have ended.
            let waker = KeptWaker::keep(cx.waker());
            if !greenlet.is_finished() {
                greenlet.on_finish(Some(Box::new(|| waker.wake())));
                return Poll::Pending;
            }
        }
        Poll::Ready(self.greenlet.take().expect(OVER).take_result())
    }
}

impl<T> Drop for GreenletFuture<T> {
    fn drop(&mut self) {
        if let Some(greenlet) = &self.greenlet {
            greenlet.on_finish(None);
        }
    }
}

impl<T> fmt::Debug for GreenletFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GreenletFuture").field(&self.greenlet).finish()
    }
}
