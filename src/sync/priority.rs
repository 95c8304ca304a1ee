//! A channel out of which the least value comes first.
//!
//! Floor 5. Uses: `semaphore`. Used by: users.
//!
//! Two semaphores do the waiting: one has a permit for each value that there is room for, the other
//! one for each that is there. So the order of values, which is code of others, never runs under
//! the lock of a line, and is asked when a receiver runs, not when it is let on.
//!
//! # Invariants
//!
//! - `PRIORITY-1` Permits for items that are free, granted or held are as many as there are values,
//!   until the last sender goes: then there are `MANY` more, so that nobody waits any longer, and a
//!   permit without a value tells of the end. Likewise for room, when the last receiver goes.
//! - `PRIORITY-2` The lock of the values is held while they are compared and moved. To park in a
//!   comparison panics.
//!
//! # Source
//!
//! gevent `queue.py` `PriorityQueue`; std `BinaryHeap`, which has the greatest first.

use std::{
    cmp::Ordering,
    collections::BinaryHeap,
    fmt,
    future::Future,
    mem,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError},
    },
    task::{Context, Poll},
    time::Duration,
};

use super::{
    channel::give_way,
    semaphore::{Acquire, Permit, Semaphore},
};
use crate::{
    deferred::{Deferred, Failure},
    hub::Hub,
};

/// More permits than anybody will wait for; a few times of it can still be added up.
const MANY: usize = usize::MAX / 4;

/// A value on its way, with its number: of equal ones, the first to come is the first to go.
struct Entry<T> {
    value: T,
    number: u64,
}

/// What is on its way, and who may still come.
struct Values<T> {
    heap: BinaryHeap<Entry<T>>,
    /// How many values have come.
    number: u64,
    senders: usize,
    receivers: usize,
}

/// What both ends share.
struct Channel<T> {
    room: Arc<Semaphore>,
    items: Arc<Semaphore>,
    values: Mutex<Values<T>>,
}

impl<T> Channel<T> {
    fn with<R>(&self, f: impl FnOnce(&mut Values<T>) -> R) -> R {
        let _no_park = Hub::current().map(Hub::forbid_park); // PRIORITY-2
        f(&mut self.values.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Adds a permit when it is dropped. A value is in the heap, or out of it, also when the order has
/// panicked meanwhile (`PRIORITY-1`).
struct Added<'a>(&'a Semaphore);

impl Drop for Added<'_> {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

impl<T: Ord> Channel<T> {
    /// Puts a value into room that was acquired for it; gives it back if no receiver is left.
    fn put<S>(&self, value: T, room: Permit<S>) -> Result<(), T>
    where
        S: Deref<Target = Semaphore>,
    {
        // One that is not used goes when the lock is free: that may call a Waker.
        let (mut room, mut added) = (Some(room), None);
        self.with(|values| {
            if values.receivers == 0 {
                return Err(value);
            }
            values.number += 1;
            let _ = room.take().map(Permit::forget);
            added = Some(Added(&self.items));
            values.heap.push(Entry { value, number: values.number });
            Ok(())
        })
    }

    /// Takes the least value. `None`: no value is left, and no sender.
    fn take<S: Deref<Target = Semaphore>>(&self, item: Permit<S>) -> Option<T> {
        let (mut item, mut added) = (Some(item), None);
        let entry = self.with(|values| {
            if !values.heap.is_empty() {
                let _ = item.take().map(Permit::forget);
                added = Some(Added(&self.room));
            }
            values.heap.pop()
        });
        Some(entry?.value)
    }
}

/// Makes a channel with room for `bound` values, of which the least comes out first, and of equal
/// ones the first that went in.
///
/// Shape: both ends may be cloned, shared and sent to other threads. Who waits is served first
/// come, first served; also who waits for room, whatever its value. For the greatest first, send
/// [`Reverse`](std::cmp::Reverse)d values.
///
/// The order of values must neither park nor use the channel. If it panics, a value that was sent
/// is in the channel, one that was to be received is lost, and the order of the rest is not
/// specified.
///
/// # Panics
///
/// If `bound` is 0.
///
/// # Examples
///
/// ```
/// use greenloop::{run, sync::priority};
/// run(|| {
///     let (sender, receiver) = priority::channel(8);
///     for job in [(2, "sweep"), (1, "cook"), (2, "dust")] {
///         sender.send(job).unwrap();
///     }
///     drop(sender);
///     let jobs: Vec<_> = receiver.iter().map(|(_, job)| job).collect();
///     assert_eq!(jobs, ["cook", "dust", "sweep"]);
/// });
/// ```
///
/// # Source
///
/// gevent `PriorityQueue`.
pub fn channel<T: Ord>(bound: usize) -> (Sender<T>, Receiver<T>) {
    assert!(bound > 0, "greenloop::sync::priority::channel: 0 is no room for any value");
    let values = Values { heap: BinaryHeap::new(), number: 0, senders: 1, receivers: 1 };
    let channel = Arc::new(Channel {
        room: Arc::new(Semaphore::new(bound.min(MANY))),
        items: Arc::new(Semaphore::new(0)),
        values: Mutex::new(values),
    });
    (Sender { channel: Arc::clone(&channel) }, Receiver { channel })
}

/// Makes a priority channel with room for any number of values: sending never waits.
pub fn unbounded<T: Ord>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

/// The end that values are put into, as [`sync::Sender`](super::Sender).
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The end that values are taken from, as [`sync::Receiver`](super::Receiver), the least one first.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
}

/// The future of [`Sender::send_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sending<'a, T> {
    channel: &'a Channel<T>,
    room: Acquire<'a>,
    /// None once it was sent.
    value: Option<T>,
}

/// The future of [`Receiver::recv_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Receiving<'a, T> {
    channel: &'a Channel<T>,
    item: Acquire<'a>,
}

impl<T: Ord> Sender<T> {
    /// Puts a value in, and waits until there is room for it.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// The value, when no receiver is left.
    ///
    /// # Panics
    ///
    /// With what the order of values panics with; on the hub's own stack, if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the value was not sent, and is dropped. Infallible as
    /// to kills: where one cannot unwind, the wait goes on.
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        give_way();
        self.channel.put(value, self.channel.room.acquire()).map_err(SendError)
    }

    /// As [`send`](Self::send), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// The value: `Full` when there was no room in time, `Disconnected` when no receiver is left.
    #[track_caller]
    pub fn send_timeout(&self, value: T, limit: Duration) -> Result<(), TrySendError<T>> {
        give_way();
        self.send_into(self.channel.room.acquire_timeout(limit), value)
    }

    /// Puts a value in if there is room. Never waits.
    ///
    /// # Errors
    ///
    /// The value: `Full` when there is no room, `Disconnected` when no receiver is left.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        self.send_into(self.channel.room.try_acquire(), value)
    }

    fn send_into(&self, room: Option<Permit<&Semaphore>>, value: T) -> Result<(), TrySendError<T>> {
        match room {
            Some(room) => self.channel.put(value, room).map_err(TrySendError::Disconnected),
            None => Err(TrySendError::Full(value)),
        }
    }

    /// Gives a future that puts a value in. Dropped, it drops the value, if it was not sent.
    pub fn send_async(&self, value: T) -> Sending<'_, T> {
        let room = self.channel.room.acquire_async(1);
        Sending { channel: &self.channel, room, value: Some(value) }
    }

    /// Gives a Deferred that fires when the value is in, or with the value when no receiver is
    /// left. As [`sync::Sender::send_deferred`](super::Sender::send_deferred).
    pub fn send_deferred(&self, value: T) -> Deferred<Result<(), SendError<T>>>
    where
        T: 'static,
    {
        let sender = self.clone();
        let room = self.channel.room.acquire_deferred(1);
        room.add_callback(move |room| Ok(sender.channel.put(value, room).map_err(SendError)))
    }
}

impl<T: Ord> Receiver<T> {
    /// Takes the least value out, and waits until there is one.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// When no value is left, and no sender.
    ///
    /// # Panics
    ///
    /// With what the order of values panics with; on the hub's own stack, if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel no value was taken. Infallible as to kills: where one
    /// cannot unwind, the wait goes on.
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        give_way();
        self.channel.take(self.channel.items.acquire()).ok_or(RecvError)
    }

    /// As [`recv`](Self::recv), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// `Timeout` when no value came in time, `Disconnected` when none will.
    #[track_caller]
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        give_way();
        match self.channel.items.acquire_timeout(limit) {
            Some(item) => self.channel.take(item).ok_or(RecvTimeoutError::Disconnected),
            None => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Takes the least value out if there is one. Never waits.
    ///
    /// # Errors
    ///
    /// `Empty` when there is none, `Disconnected` when none will come.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.channel.items.try_acquire() {
            Some(item) => self.channel.take(item).ok_or(TryRecvError::Disconnected),
            None => Err(TryRecvError::Empty),
        }
    }

    /// Gives a future that takes the least value out, as it is when the future is ready.
    pub fn recv_async(&self) -> Receiving<'_, T> {
        Receiving { channel: &self.channel, item: self.channel.items.acquire_async(1) }
    }

    /// Gives a Deferred that fires with the least value. As
    /// [`sync::Receiver::recv_deferred`](super::Receiver::recv_deferred).
    pub fn recv_deferred(&self) -> Deferred<T>
    where
        T: 'static,
    {
        let receiver = self.clone();
        let item = self.channel.items.acquire_deferred(1);
        item.add_callback(move |item| {
            receiver.channel.take(item).ok_or_else(|| Failure::new(RecvError))
        })
    }

    /// Receives until no value is left, and no sender; each step waits as [`recv`](Self::recv).
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }
}

impl<T: Ord> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.room).poll(cx).map(|room| {
            let value = self.value.take().expect("a future was polled after it was ready");
            self.channel.put(value, room).map_err(SendError)
        })
    }
}

/// The value moves in and out: nothing in here is pinned.
impl<T> Unpin for Sending<'_, T> {}

impl<T: Ord> Future for Receiving<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.item).poll(cx).map(|item| self.channel.take(item).ok_or(RecvError))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.with(|values| values.senders += 1);
        Sender { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.with(|values| values.receivers += 1);
        Receiver { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let left = self.channel.with(|values| {
            values.senders -= 1;
            values.senders
        });
        if left == 0 {
            self.channel.items.add_permits(MANY);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let gone = self.channel.with(|values| {
            values.receivers -= 1;
            (values.receivers == 0).then(|| mem::take(&mut values.heap))
        });
        if gone.is_some() {
            self.channel.room.add_permits(MANY);
        }
    }
}

impl<T: Ord> Ord for Entry<T> {
    /// The heap has the greatest first: that is the least value here, and the oldest.
    fn cmp(&self, other: &Entry<T>) -> Ordering {
        other.value.cmp(&self.value).then(other.number.cmp(&self.number))
    }
}

impl<T: Ord> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Entry<T>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Ord> PartialEq for Entry<T> {
    fn eq(&self, other: &Entry<T>) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T: Ord> Eq for Entry<T> {}

impl<T> Channel<T> {
    fn show(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.with(|values| values.heap.len());
        f.debug_struct(name).field("values", &values).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.show("Sender", f)
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.show("Receiver", f)
    }
}

impl<T> fmt::Debug for Sending<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sending").field(&self.room).finish()
    }
}

impl<T> fmt::Debug for Receiving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiving").field(&self.item).finish()
    }
}
