//! A broadcast: every receiver gets every value that is sent while it is there.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Invariants
//!
//! - `BROADCAST-1` Values are numbered; the ring has those from `first` on, without gaps. A
//!   receiver has the number of the one that it is to get next: one below `first` tells how many it
//!   missed.
//! - `BROADCAST-2` Each value knows how many receivers are still to get it. They get them in order,
//!   so one that nobody is to get any more is the oldest: it leaves the ring at once.
//! - `BROADCAST-3` Who waits is granted no value, but that it need not wait. It takes the value
//!   when it runs, so one that died has taken nothing.
//!
//! # Source
//!
//! tokio `sync/broadcast.rs`.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, mpsc::SendError},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    channel::give_way,
    lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait_on},
};
use crate::{deferred::Deferred, hub::park::WaitOn};

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// No value is left, and no sender.
    Closed,
    /// So many values were overwritten before this receiver came to them. The next is the oldest
    /// that is there.
    Lagged(u64),
}

/// Why nothing was received at once, or in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TryRecvError {
    /// No value is there.
    Empty,
    /// As [`RecvError::Closed`].
    Closed,
    /// As [`RecvError::Lagged`].
    Lagged(u64),
}

/// What one who wants the value of a number gets.
pub(super) enum Grant<T> {
    /// The value.
    Next(Arc<T>),
    /// So many are gone.
    Lagged(u64),
    /// Neither values nor senders are left.
    Ended,
    /// It was waited for; something else is granted now (`BROADCAST-3`).
    Ready,
}

/// A value on its way.
struct Slot<T> {
    value: Arc<T>,
    /// How many receivers are still to get it.
    left: usize,
}

/// The rule: the last so many values.
pub(super) struct Ring<T> {
    slots: VecDeque<Slot<T>>,
    capacity: usize,
    /// The number of the oldest value that is there, or of the next that comes.
    first: u64,
    senders: usize,
    receivers: usize,
}

impl<T> Ring<T> {
    /// The number of the next value that comes.
    fn next(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    fn pop(&mut self) -> Option<Arc<T>> {
        let oldest = self.slots.pop_front()?;
        self.first += 1;
        Some(oldest.value)
    }

    /// A receiver that was to get `next` goes. Gives what nobody is to get any more.
    fn leave(&mut self, next: u64) -> Vec<Arc<T>> {
        self.receivers -= 1;
        let seen = next.saturating_sub(self.first) as usize;
        self.slots.iter_mut().skip(seen).for_each(|slot| slot.left -= 1);
        let mut gone = Vec::new();
        while self.slots.front().is_some_and(|slot| slot.left == 0) {
            gone.extend(self.pop());
        }
        gone
    }
}

impl<T> Rule for Ring<T> {
    type Ask = u64;
    type Grant = Grant<T>;

    fn enter(&mut self, _: &mut LineOf<Self>, next: u64) -> Result<Grant<T>, u64> {
        let Some(at) = next.checked_sub(self.first) else {
            return Ok(Grant::Lagged(self.first - next));
        };
        let Some(slot) = self.slots.get_mut(at as usize) else {
            return if self.senders == 0 { Ok(Grant::Ended) } else { Err(next) };
        };
        slot.left -= 1;
        if slot.left > 0 {
            return Ok(Grant::Next(Arc::clone(&slot.value)));
        }
        debug_assert_eq!(at, 0, "BROADCAST-2");
        self.pop().map(Grant::Next).ok_or(next)
    }

    fn take_back(&mut self, _: &mut LineOf<Self>, _: Grant<T>) -> Option<Grant<T>> {
        None
    }

    fn serve(&mut self, _: &mut LineOf<Self>) {}

    fn waits_on(_: &u64) -> WaitOn {
        WaitOn::Message
    }
}

/// What both ends share.
struct Channel<T> {
    lane: Lane<Ring<T>>,
}

impl<T> Primitive for Channel<T> {
    type Rule = Ring<T>;

    fn lane(&self) -> &Lane<Ring<T>> {
        &self.lane
    }
}

/// Makes a broadcast of which each receiver may be `capacity` values behind.
///
/// Shape: sending never waits. One that is further behind is told how many values it missed. A
/// value is kept until every receiver has got it or it is overwritten, and cloned for all but the
/// last.
///
/// # Panics
///
/// If `capacity` is 0.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::broadcast};
/// run(|| {
///     let (sender, mut receiver) = broadcast::channel(16);
///     let mut other = sender.subscribe();
///     let hears = spawn(move || (other.recv(), other.recv()));
///     sender.send("tick").unwrap();
///     assert_eq!(receiver.recv(), Ok("tick"));
///     drop(sender);
///     assert_eq!(hears.join().unwrap(), (Ok("tick"), Err(broadcast::RecvError::Closed)));
/// });
/// ```
///
/// # Source
///
/// tokio `broadcast::channel`. Differs: `capacity` is exact.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "greenloop::sync::broadcast::channel: 0 is no room for any value");
    let slots = VecDeque::new();
    let ring = Ring { slots, capacity, first: 0, senders: 1, receivers: 1 };
    let channel = Arc::new(Channel { lane: Lane::new(ring) });
    (Sender { channel: Arc::clone(&channel) }, Receiver { channel, next: 0 })
}

/// The end that values are put into. When the last one has gone, receivers are told so once they
/// have got what is left.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The end that gets every value that is sent while it is there.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
    /// The number of the value that it is to get next (`BROADCAST-1`).
    next: u64,
}

/// The future of [`Receiver::recv_async`]. Dropped, it has received nothing.
#[must_use = "futures do nothing unless awaited"]
pub struct Receiving<'a, T>(&'a mut Receiver<T>, Passing<Arc<Channel<T>>>);

impl<T> Sender<T> {
    /// Sends a value to all receivers. Never waits. Returns how many they are.
    ///
    /// # Errors
    ///
    /// The value, when there is none.
    pub fn send(&self, value: T) -> Result<usize, SendError<T>> {
        let value = Arc::new(value);
        let sent = self.channel.lane.with(|ring, line| {
            if ring.receivers == 0 {
                return Err(value);
            }
            let old = if ring.slots.len() == ring.capacity { ring.pop() } else { None };
            ring.slots.push_back(Slot { value, left: ring.receivers });
            line.serve(|_| Some(Grant::Ready));
            Ok((ring.receivers, old))
        });
        match sent {
            Ok((receivers, _old)) => Ok(receivers),
            Err(value) => Err(SendError(Arc::into_inner(value).expect("it was not shared"))),
        }
    }

    /// Makes a receiver, which gets what is sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        self.channel.subscribe()
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.channel.lane.with(|ring, _| ring.receivers)
    }
}

impl<T> Channel<T> {
    fn subscribe(self: &Arc<Self>) -> Receiver<T> {
        let next = self.lane.with(|ring, _| {
            ring.receivers += 1;
            ring.next()
        });
        Receiver { channel: Arc::clone(self), next }
    }
}

impl<T> Receiver<T> {
    /// Makes another receiver, which gets what is sent from now on.
    pub fn resubscribe(&self) -> Receiver<T> {
        self.channel.subscribe()
    }
}

impl<T: Clone> Receiver<T> {
    /// Waits for the next value.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// `Lagged`, once, when values were missed: receive again. `Closed` when no value is left, and
    /// no sender.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel no value was received. Infallible as to kills: where
    /// one cannot unwind, the wait goes on.
    #[track_caller]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        let hub = give_way();
        match wait_on(hub, &*self.channel, self.next, Limit::Never, "broadcast::Receiver::recv") {
            Ok(grant) => self.received(grant),
            Err(_) => unreachable!("a wait without a limit ends with a grant"),
        }
    }

    /// As [`recv`](Self::recv), but gives up after `limit`: then it is `Empty`.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); `Empty` when no value came in time.
    #[track_caller]
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<T, TryRecvError> {
        let (hub, limit) = (give_way(), Limit::After(limit));
        match wait_on(hub, &*self.channel, self.next, limit, "broadcast::Receiver::recv_timeout") {
            Ok(grant) => Ok(self.received(grant)?),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// Gives the next value, if it is there. Never waits.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv); `Empty` when no value is there.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        match self.channel.lane.attempt(self.next) {
            Ok(grant) => Ok(self.received(grant)?),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// Gives a future of the next value.
    pub fn recv_async(&mut self) -> Receiving<'_, T> {
        let wait = Passing::new(Arc::clone(&self.channel), self.next);
        Receiving(self, wait)
    }

    /// Gives a Deferred that fires with what came of it, and with the receiver, which it takes for
    /// so long: two that wait for the same value cannot be written.
    ///
    /// Shape: it has fired when it is returned if a value is there. Else it is fired by a call of
    /// this thread's reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait; the receiver is dropped
    /// then.
    ///
    /// # Cancellation
    ///
    /// Cancelling it drops the receiver.
    pub fn recv_deferred(mut self) -> Deferred<(Result<T, RecvError>, Receiver<T>)>
    where
        T: 'static,
    {
        let channel = Arc::clone(&self.channel);
        defer(channel, self.next, move |_, grant| (self.received(grant), self))
    }

    fn received(&mut self, grant: Grant<T>) -> Result<T, RecvError> {
        let grant = match grant {
            Grant::Ready => self.channel.lane.attempt(self.next).ok(),
            grant => Some(grant),
        };
        match grant.expect("BROADCAST-3: it is the only one that receives by this number") {
            Grant::Next(value) => {
                self.next += 1;
                Ok(Arc::try_unwrap(value).unwrap_or_else(|value| T::clone(&value)))
            }
            Grant::Lagged(missed) => {
                self.next += missed;
                Err(RecvError::Lagged(missed))
            }
            Grant::Ended | Grant::Ready => Err(RecvError::Closed),
        }
    }
}

impl<T: Clone> Future for Receiving<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Receiving(receiver, wait) = &mut *self;
        Pin::new(wait).poll(cx).map(|grant| receiver.received(grant))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.lane.with(|ring, _| ring.senders += 1);
        Sender { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.lane.with(|ring, line| {
            ring.senders -= 1;
            line.serve(|_| (ring.senders == 0).then_some(Grant::Ready));
        });
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        // Dropping values is code of others, so not under the lock.
        drop(self.channel.lane.with(|ring, _| ring.leave(self.next)));
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecvError::Closed => f.write_str("receiving on a closed broadcast"),
            RecvError::Lagged(missed) => write!(f, "{missed} value(s) of a broadcast were missed"),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TryRecvError::Empty => f.write_str("receiving on an empty broadcast"),
            TryRecvError::Closed => RecvError::Closed.fmt(f),
            TryRecvError::Lagged(missed) => RecvError::Lagged(missed).fmt(f),
        }
    }
}

impl std::error::Error for RecvError {}

impl std::error::Error for TryRecvError {}

impl From<RecvError> for TryRecvError {
    fn from(error: RecvError) -> TryRecvError {
        match error {
            RecvError::Closed => TryRecvError::Closed,
            RecvError::Lagged(missed) => TryRecvError::Lagged(missed),
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (values, receivers) =
            self.channel.lane.with(|ring, _| (ring.slots.len(), ring.receivers));
        f.debug_struct("Sender").field("values", &values).field("receivers", &receivers).finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let behind = self.channel.lane.with(|ring, _| ring.next() - self.next);
        f.debug_struct("Receiver").field("behind", &behind).finish()
    }
}

impl<T> fmt::Debug for Receiving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiving").field(&self.1).finish()
    }
}
