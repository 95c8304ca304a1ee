//! Channels: values from many to many, with room for so many, for none, or for any number.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Invariants
//!
//! - `CHANNEL-1` Those who wait are all receivers, or all senders: a receiver waits only while
//!   there is no value and no sender waits, a sender only while there is no room and no receiver
//!   waits.
//! - `CHANNEL-2` Values come out in the order in which they went in, or in which their senders
//!   joined the line. One that was handed to a receiver that died is older than all that never
//!   were: it goes to the next receiver, or to the front, behind those that were handed out before
//!   it. Those are counted, so `returned` has the numbers of as many of the first values.
//!
//! # Source
//!
//! std `mpsc`, gevent `queue.py` (`Queue`, `Channel`), Twisted `DeferredQueue`.

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc,
        mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError},
    },
    task::{Context, Poll},
    time::Duration,
};

use super::lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait_on};
use crate::{
    deferred::{Deferred, Failure},
    hub::{Hub, park::WaitOn},
};

/// What one who comes wants.
pub(super) enum Ask<T> {
    Send(T),
    Receive,
}

/// What it gets.
pub(super) enum Grant<T> {
    /// The value was taken.
    Sent,
    /// No receiver is left.
    Refused(T),
    /// A value; and its number, where the receiver had to wait for it (`CHANNEL-2`).
    Received(T, u64),
    /// No sender is left, and no value.
    Ended,
}

/// The rule: what is on its way, and who may still come.
pub(super) struct Flow<T> {
    values: VecDeque<T>,
    /// The numbers of the first of them, which have come back: in order.
    returned: VecDeque<u64>,
    /// How many were handed to receivers that waited.
    handed: u64,
    /// How many values may be on their way.
    bound: usize,
    senders: usize,
    receivers: usize,
}

impl<T> Flow<T> {
    #[inline(always)]
    fn send(&mut self, line: &mut LineOf<Self>, value: T) -> Result<Grant<T>, Ask<T>> {
        if self.receivers == 0 {
            return Ok(Grant::Refused(value));
        }
        if matches!(line.first(), Some(Ask::Receive)) {
            self.handed += 1;
            line.grant(|_| Grant::Received(value, self.handed));
        } else if self.values.len() < self.bound {
            self.values.push_back(value);
        } else {
            return Err(Ask::Send(value));
        }
        Ok(Grant::Sent)
    }

    #[inline(always)]
    fn receive(&mut self, line: &mut LineOf<Self>) -> Result<Grant<T>, Ask<T>> {
        if let Some(value) = self.values.pop_front() {
            self.returned.pop_front();
            if !line.is_empty()
                && self.values.len() < self.bound
                && let Some(next) = Self::take_over(line)
            {
                self.values.push_back(next);
            }
            return Ok(Grant::Received(value, 0));
        }
        if line.is_empty() && self.senders > 0 {
            return Err(Ask::Receive);
        }
        match Self::take_over(line) {
            Some(value) => Ok(Grant::Received(value, 0)),
            None if self.senders == 0 => Ok(Grant::Ended),
            None => Err(Ask::Receive),
        }
    }

    /// Takes the value of the first sender in line, if there is one.
    fn take_over(line: &mut LineOf<Self>) -> Option<T> {
        let mut taken = None;
        if matches!(line.first(), Some(Ask::Send(_))) {
            line.grant(|ask| {
                if let Ask::Send(value) = ask {
                    taken = Some(value);
                }
                Grant::Sent
            });
        }
        taken
    }
}

impl<T> Rule for Flow<T> {
    type Ask = Ask<T>;
    type Grant = Grant<T>;

    #[inline(always)]
    fn enter(&mut self, line: &mut LineOf<Self>, ask: Ask<T>) -> Result<Grant<T>, Ask<T>> {
        match ask {
            Ask::Send(value) => self.send(line, value),
            Ask::Receive => self.receive(line),
        }
    }

    fn take_back(&mut self, line: &mut LineOf<Self>, grant: Grant<T>) -> Option<Grant<T>> {
        match grant {
            Grant::Received(value, number) if matches!(line.first(), Some(Ask::Receive)) => {
                line.grant(|_| Grant::Received(value, number));
                None
            }
            Grant::Received(value, number) if self.receivers > 0 => {
                let place = self.returned.partition_point(|before| *before < number);
                self.returned.insert(place, number);
                self.values.insert(place, value);
                None
            }
            rest => Some(rest),
        }
    }

    fn serve(&mut self, _: &mut LineOf<Self>) {}

    fn waits_on(ask: &Ask<T>) -> WaitOn {
        match ask {
            Ask::Send(_) => WaitOn::Room,
            Ask::Receive => WaitOn::Message,
        }
    }
}

/// What both ends share.
struct Channel<T> {
    lane: Lane<Flow<T>>,
}

impl<T> Channel<T> {
    /// What comes of a wait to receive. `None`: no value is left, and no sender.
    #[inline(always)]
    fn received(&self, grant: Grant<T>) -> Option<T> {
        match grant {
            Grant::Received(value, _) => Some(value),
            _ => self.returned(),
        }
    }

    /// A value that a dead receiver was handed and that has come back since the end was told.
    #[cold]
    fn returned(&self) -> Option<T> {
        match self.lane.attempt(Ask::Receive) {
            Ok(Grant::Received(value, _)) => Some(value),
            _ => None,
        }
    }
}

impl<T> Primitive for Channel<T> {
    type Rule = Flow<T>;

    fn lane(&self) -> &Lane<Flow<T>> {
        &self.lane
    }
}

/// Makes a channel with room for `bound` values. With none, each send waits for its receive.
///
/// Shape: both ends may be cloned, shared and sent to other threads. Values come out in order. Who
/// waits is served first come, first served; a value that was handed to a receiver that was killed,
/// timed out, cancelled or dropped goes to the next one.
///
/// # Examples
///
/// ```
/// use greenloop::{run, sync::channel};
/// let (sender, receiver) = channel(1);
/// let thread = std::thread::spawn(move || {
///     for n in 0..3 {
///         sender.send(n).unwrap(); // blocks the thread while the channel is full
///     }
/// });
/// let all: Vec<i32> = run(|| receiver.iter().collect()); // parks the greenlet while it is empty
/// assert_eq!(all, [0, 1, 2]);
/// thread.join().unwrap();
/// ```
///
/// A Deferred that another thread fires:
/// ```
/// use greenloop::{run, sync::channel, wait_for_deferred};
/// let answer = run(|| {
///     let (sender, receiver) = channel(1);
///     std::thread::spawn(move || sender.send(41));
///     wait_for_deferred(receiver.recv_deferred().add_callback(|n| Ok(n + 1)))
/// });
/// assert_eq!(answer.ok(), Some(42));
/// ```
///
/// # Source
///
/// std `mpsc::sync_channel`; gevent `Queue`, where 0 means without bound.
pub fn channel<T>(bound: usize) -> (Sender<T>, Receiver<T>) {
    let (values, returned) = (VecDeque::new(), VecDeque::new());
    let flow = Flow { values, returned, handed: 0, bound, senders: 1, receivers: 1 };
    let channel = Arc::new(Channel { lane: Lane::new(flow) });
    (Sender { channel: Arc::clone(&channel) }, Receiver { channel })
}

/// Makes a channel with room for any number of values: sending never waits.
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    channel(usize::MAX)
}

/// The end of a channel that values are put into. When the last one has gone, receivers are told so
/// once they have taken what is left.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The end of a channel that values are taken from; each goes to one receiver. When the last one
/// has gone, senders get their values back.
pub struct Receiver<T> {
    channel: Arc<Channel<T>>,
}

/// This thread's hub. Where a greenlet is served without waiting, others must run all the same.
#[inline(always)]
pub(super) fn give_way() -> Option<&'static Hub> {
    Hub::current().inspect(|hub| hub.spend_slice())
}

impl<T> Sender<T> {
    /// Puts a value in, and waits until there is room for it.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread. In a channel without room it
    /// waits until a receiver has the value.
    ///
    /// # Errors
    ///
    /// The value, when no receiver is left.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the value was not sent, and is dropped; unless another
    /// thread took it before it could know. Infallible as to kills: where one cannot unwind, the
    /// wait goes on.
    #[inline(always)]
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        match wait_on(give_way(), &*self.channel, Ask::Send(value), Limit::Never, "Sender::send") {
            Ok(Grant::Refused(value)) => Err(SendError(value)),
            _ => Ok(()),
        }
    }

    /// As [`send`](Self::send), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// The value: `Full` when there was no room in time, `Disconnected` when no receiver is left.
    #[track_caller]
    pub fn send_timeout(&self, value: T, limit: Duration) -> Result<(), TrySendError<T>> {
        let limit = Limit::After(limit);
        sent(wait_on(give_way(), &*self.channel, Ask::Send(value), limit, "Sender::send_timeout"))
    }

    /// Puts a value in if there is room, or a receiver that waits. Never waits.
    ///
    /// # Errors
    ///
    /// The value: `Full` when there is no room, `Disconnected` when no receiver is left.
    pub fn try_send(&self, value: T) -> Result<(), TrySendError<T>> {
        sent(self.channel.lane.attempt(Ask::Send(value)))
    }

    /// Gives a future that puts a value in. Dropped, it drops the value, if it was not taken yet.
    pub fn send_async(&self, value: T) -> Sending<'_, T> {
        Sending(Passing::new(&self.channel, Ask::Send(value)))
    }
}

/// What comes of a send that may give up.
fn sent<T>(result: Result<Grant<T>, Ask<T>>) -> Result<(), TrySendError<T>> {
    match result {
        Ok(Grant::Refused(value)) => Err(TrySendError::Disconnected(value)),
        Err(Ask::Send(value)) => Err(TrySendError::Full(value)),
        _ => Ok(()),
    }
}

impl<T: 'static> Sender<T> {
    /// Gives a Deferred that fires when the value was taken, or with the value when no receiver is
    /// left.
    ///
    /// Shape: it has fired when it is returned if there is room. Else it is fired by a call of this
    /// thread's reactor.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait; the value is dropped then.
    ///
    /// # Cancellation
    ///
    /// Cancelling it drops the value, if it was not taken yet.
    pub fn send_deferred(&self, value: T) -> Deferred<Result<(), SendError<T>>> {
        let sender = self.clone();
        defer(Arc::clone(&self.channel), Ask::Send(value), move |_, grant| {
            let _sender = sender;
            match grant {
                Grant::Refused(value) => Err(SendError(value)),
                _ => Ok(()),
            }
        })
    }
}

impl<T> Receiver<T> {
    /// Takes a value out, and waits until there is one.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// When no value is left, and no sender.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel no value was taken. Infallible as to kills: where one
    /// cannot unwind, the wait goes on.
    #[inline(always)]
    #[track_caller]
    pub fn recv(&self) -> Result<T, RecvError> {
        match wait_on(give_way(), &*self.channel, Ask::Receive, Limit::Never, "Receiver::recv") {
            Ok(grant) => self.channel.received(grant).ok_or(RecvError),
            Err(_) => Err(RecvError),
        }
    }

    /// As [`recv`](Self::recv), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// `Timeout` when no value came in time, `Disconnected` when none will.
    #[track_caller]
    pub fn recv_timeout(&self, limit: Duration) -> Result<T, RecvTimeoutError> {
        let limit = Limit::After(limit);
        match wait_on(give_way(), &*self.channel, Ask::Receive, limit, "Receiver::recv_timeout") {
            Ok(grant) => self.channel.received(grant).ok_or(RecvTimeoutError::Disconnected),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Takes a value out if there is one, or a sender that waits. Never waits.
    ///
    /// # Errors
    ///
    /// `Empty` when there is none, `Disconnected` when none will come.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        match self.channel.lane.attempt(Ask::Receive) {
            Ok(Grant::Received(value, _)) => Ok(value),
            Ok(_) => Err(TryRecvError::Disconnected),
            Err(_) => Err(TryRecvError::Empty),
        }
    }

    /// Gives a future that takes a value out. Dropped, it leaves the line; a value that it was
    /// handed goes to the next receiver.
    pub fn recv_async(&self) -> Receiving<'_, T> {
        Receiving(Passing::new(&self.channel, Ask::Receive))
    }

    /// Receives until no value is left, and no sender; each step waits as [`recv`](Self::recv).
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(self)
    }
}

impl<T: 'static> Receiver<T> {
    /// Gives a Deferred that fires with a value: one that is there, or the next that comes, from
    /// whatever thread.
    ///
    /// Shape: it has fired when it is returned if a value is there. Else it is fired by a call of
    /// this thread's reactor. It counts as a receiver: this one may be dropped.
    ///
    /// # Errors
    ///
    /// It fails with [`RecvError`] when no value is left, and no sender; and outside
    /// [`run`](crate::run), if it would have to wait.
    ///
    /// # Cancellation
    ///
    /// Cancelling it leaves the line.
    ///
    /// # Source
    ///
    /// Twisted `DeferredQueue.get`.
    pub fn recv_deferred(&self) -> Deferred<T> {
        let receiver = self.clone();
        let received = defer(Arc::clone(&self.channel), Ask::Receive, move |channel, grant| {
            let _receiver = receiver;
            channel.received(grant).ok_or(RecvError)
        });
        received.add_callback(|received| received.map_err(Failure::new))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.lane.with(|flow, _| flow.senders += 1);
        Sender { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.channel.lane.with(|flow, _| flow.receivers += 1);
        Receiver { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.lane.with(|flow, line| {
            flow.senders -= 1;
            while flow.senders == 0 && matches!(line.first(), Some(Ask::Receive)) {
                line.grant(|_| Grant::Ended);
            }
        });
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let left = self.channel.lane.with(|flow, line| {
            flow.receivers -= 1;
            if flow.receivers > 0 {
                return VecDeque::new();
            }
            while matches!(line.first(), Some(Ask::Send(_))) {
                line.grant(|ask| match ask {
                    Ask::Send(value) => Grant::Refused(value),
                    Ask::Receive => Grant::Ended,
                });
            }
            mem::take(&mut flow.values)
        });
        drop(left); // Code of others, so not under the lock.
    }
}

/// The values of a receiver, one after another: see [`Receiver::iter`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Iter<'a, T>(&'a Receiver<T>);

impl<T> Iterator for Iter<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The future of [`Sender::send_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sending<'a, T>(Passing<&'a Channel<T>>);

/// The future of [`Receiver::recv_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Receiving<'a, T>(Passing<&'a Channel<T>>);

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|grant| match grant {
            Grant::Refused(value) => Err(SendError(value)),
            _ => Ok(()),
        })
    }
}

impl<T> Future for Receiving<'_, T> {
    type Output = Result<T, RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let channel = self.0.primitive();
        Pin::new(&mut self.0).poll(cx).map(|grant| channel.received(grant).ok_or(RecvError))
    }
}

impl<T> Channel<T> {
    fn show(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (values, waiting) = self.lane.with(|flow, line| (flow.values.len(), line.len()));
        f.debug_struct(name).field("values", &values).field("waiting", &waiting).finish()
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
        f.debug_tuple("Sending").field(&self.0).finish()
    }
}

impl<T> fmt::Debug for Receiving<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiving").field(&self.0).finish()
    }
}
