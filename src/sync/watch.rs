//! A watched value: the newest is all that counts, and who watches is told that it is another.
//!
//! Floor 5. Uses: `lane`. Used by: users.
//!
//! # Invariants
//!
//! - `WATCH-1` Who waits has seen the version that is there. So each new one concerns all of them.
//!
//! # Source
//!
//! tokio `sync/watch.rs`. Differs: a look is an `Arc` of the value and holds up nobody, where
//! tokio's is a lock; so a modification makes a copy, and nothing here can deadlock.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvError, RecvTimeoutError, SendError},
    },
    task::{Context, Poll},
    time::Duration,
};

use super::lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait};
use crate::{
    deferred::{Deferred, Failure},
    hub::park::WaitOn,
};

/// What one who has seen a version gets.
pub(super) enum Grant {
    /// There is another: this one.
    Changed(u64),
    /// No sender is left.
    Ended,
}

/// The rule: a value, and how many there were before it.
pub(super) struct Newest<T> {
    value: Arc<T>,
    version: u64,
    senders: usize,
    receivers: usize,
}

impl<T> Newest<T> {
    /// Puts another value in, and gives the old one.
    fn replace(&mut self, line: &mut LineOf<Self>, value: Arc<T>) -> Arc<T> {
        self.version += 1;
        line.serve(|_| Some(Grant::Changed(self.version)));
        std::mem::replace(&mut self.value, value)
    }
}

impl<T> Rule for Newest<T> {
    type Ask = u64;
    type Grant = Grant;

    fn enter(&mut self, _: &mut LineOf<Self>, seen: u64) -> Result<Grant, u64> {
        match seen {
            seen if seen != self.version => Ok(Grant::Changed(self.version)),
            _ if self.senders == 0 => Ok(Grant::Ended),
            seen => Err(seen),
        }
    }

    fn take_back(&mut self, _: &mut LineOf<Self>, _: Grant) -> Option<Grant> {
        None
    }

    fn serve(&mut self, _: &mut LineOf<Self>) {}

    fn waits_on(_: &u64) -> WaitOn {
        WaitOn::Change
    }
}

/// What both ends share.
struct Channel<T> {
    lane: Lane<Newest<T>>,
}

impl<T> Channel<T> {
    /// The value, and its version.
    fn newest(&self) -> (Arc<T>, u64) {
        self.lane.with(|newest, _| (Arc::clone(&newest.value), newest.version))
    }

    /// Makes a receiver that has seen `seen`, or all that was sent so far.
    fn subscribe(self: &Arc<Self>, seen: Option<u64>) -> Receiver<T> {
        let version = self.lane.with(|newest, _| {
            newest.receivers += 1;
            newest.version
        });
        let seen = AtomicU64::new(seen.unwrap_or(version));
        Receiver { watcher: Arc::new(Watcher { channel: Arc::clone(self), seen }) }
    }
}

impl<T> Primitive for Channel<T> {
    type Rule = Newest<T>;

    fn lane(&self) -> &Lane<Newest<T>> {
        &self.lane
    }
}

/// One receiver, shared with its Deferreds.
struct Watcher<T> {
    channel: Arc<Channel<T>>,
    /// The newest version that it has seen.
    seen: AtomicU64,
}

impl<T> Watcher<T> {
    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// What comes of a wait.
    fn changed(&self, grant: Grant) -> Result<(), RecvError> {
        match grant {
            Grant::Changed(version) => {
                self.seen.fetch_max(version, Ordering::Relaxed);
                Ok(())
            }
            Grant::Ended => Err(RecvError),
        }
    }
}

/// Makes a value that is sent to and watched from anywhere, in any style.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::watch};
/// run(|| {
///     let (sender, receiver) = watch::channel("starting");
///     let waits = spawn(move || *receiver.wait_for(|state| *state == "up").unwrap());
///     greenloop::yield_now();
///     sender.send("up").unwrap();
///     assert_eq!(waits.join().unwrap(), "up");
/// });
/// ```
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let newest = Newest { value: Arc::new(value), version: 0, senders: 1, receivers: 0 };
    let channel = Arc::new(Channel { lane: Lane::new(newest) });
    let receiver = channel.subscribe(None);
    (Sender { channel }, receiver)
}

/// The end that changes the value. When the last one has gone, receivers are told so once they have
/// seen the last value.
pub struct Sender<T> {
    channel: Arc<Channel<T>>,
}

/// The end that looks at the value, and waits for another. It remembers the newest that it has
/// seen; so does its clone, for itself.
pub struct Receiver<T> {
    watcher: Arc<Watcher<T>>,
}

/// The future of [`Receiver::changed_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Changing<'a, T>(&'a Watcher<T>, Passing<&'a Channel<T>>);

impl<T> Sender<T> {
    /// Replaces the value, and tells all receivers. Never waits.
    ///
    /// # Errors
    ///
    /// The value, when no receiver is left.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        let value = Arc::new(value);
        let sent = self.channel.lane.with(|newest, line| match newest.receivers {
            0 => Err(value),
            _ => Ok(newest.replace(line, value)),
        });
        match sent {
            Ok(_old) => Ok(()),
            Err(value) => Err(SendError(Arc::into_inner(value).expect("it was not shared"))),
        }
    }

    /// Replaces the value, whether or not there are receivers, and gives the old one.
    pub fn send_replace(&self, value: T) -> Arc<T> {
        let value = Arc::new(value);
        self.channel.lane.with(|newest, line| newest.replace(line, value))
    }

    /// Changes a copy of the value, and sends that if `modify` says that it did. Never waits.
    /// Returns whether it was sent; receivers there need not be.
    ///
    /// Shape: `modify` is called again, with the newest value, if somebody else has sent one
    /// meanwhile; it may block.
    ///
    /// # Source
    ///
    /// tokio `send_if_modified`, std `AtomicUsize::fetch_update`.
    pub fn send_if_modified(&self, mut modify: impl FnMut(&mut T) -> bool) -> bool
    where
        T: Clone,
    {
        loop {
            let (before, version) = self.channel.newest();
            let mut value = T::clone(&before);
            if !modify(&mut value) {
                return false;
            }
            let value = Arc::new(value);
            let sent = self.channel.lane.with(|newest, line| match newest.version {
                now if now == version => Ok(newest.replace(line, value)),
                _ => Err(value),
            });
            if sent.is_ok() {
                return true;
            }
        }
    }

    /// Changes a copy of the value, and sends that: see
    /// [`send_if_modified`](Self::send_if_modified).
    pub fn send_modify(&self, mut modify: impl FnMut(&mut T))
    where
        T: Clone,
    {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// The value as it is now. Never waits.
    pub fn borrow(&self) -> Arc<T> {
        self.channel.newest().0
    }

    /// Makes a receiver, which has seen what was sent so far.
    pub fn subscribe(&self) -> Receiver<T> {
        self.channel.subscribe(None)
    }

    /// How many receivers there are.
    pub fn receiver_count(&self) -> usize {
        self.channel.lane.with(|newest, _| newest.receivers)
    }
}

impl<T> Receiver<T> {
    /// The value as it is now. Never waits, and holds nobody up. It does not count as seen.
    pub fn borrow(&self) -> Arc<T> {
        self.watcher.channel.newest().0
    }

    /// The value as it is now, which then counts as seen. Never waits.
    pub fn borrow_and_update(&self) -> Arc<T> {
        self.look().0
    }

    /// Whether the value is another than the newest that was seen. Never waits.
    ///
    /// # Errors
    ///
    /// When it is not, and no sender is left.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        match self.watcher.channel.lane.attempt(self.watcher.seen()) {
            Ok(Grant::Changed(_)) => Ok(true),
            Ok(Grant::Ended) => Err(RecvError),
            Err(_) => Ok(false),
        }
    }

    /// Waits until the value is another than the newest that was seen; then it counts as seen.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread. Values that came one after
    /// the other are one change.
    ///
    /// # Errors
    ///
    /// When no sender is left, and the last value was seen.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing counts as seen. Infallible as to kills: where
    /// one cannot unwind, the wait goes on.
    #[track_caller]
    pub fn changed(&self) -> Result<(), RecvError> {
        self.changed_since(self.watcher.seen())
    }

    /// As [`changed`](Self::changed), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// `Timeout` after `limit`, `Disconnected` when no sender is left.
    #[track_caller]
    pub fn changed_timeout(&self, limit: Duration) -> Result<(), RecvTimeoutError> {
        let (watcher, limit) = (&*self.watcher, Limit::After(limit));
        match wait(&*watcher.channel, watcher.seen(), limit, "watch::Receiver::changed_timeout") {
            Ok(grant) => Ok(watcher.changed(grant)?),
            Err(_) => Err(RecvTimeoutError::Timeout),
        }
    }

    /// Gives a future that waits as [`changed`](Self::changed).
    pub fn changed_async(&self) -> Changing<'_, T> {
        let watcher = &*self.watcher;
        Changing(watcher, Passing::new(&watcher.channel, watcher.seen()))
    }

    /// Waits for a value for which `condition` is true: the one that is there, or one that comes.
    /// It counts as seen.
    ///
    /// Shape: `condition` may block. It sees the newest value each time, not every one.
    ///
    /// # Errors, Panics, Cancellation
    ///
    /// As [`changed`](Self::changed).
    #[track_caller]
    pub fn wait_for(&self, mut condition: impl FnMut(&T) -> bool) -> Result<Arc<T>, RecvError> {
        loop {
            let (value, version) = self.look();
            if condition(&value) {
                return Ok(value);
            }
            // Not what the receiver has seen: others may use it, too.
            self.changed_since(version)?;
        }
    }

    /// As [`wait_for`](Self::wait_for), in `async` code.
    ///
    /// # Errors
    ///
    /// As [`changed`](Self::changed).
    pub async fn wait_for_async(
        &self,
        mut condition: impl FnMut(&T) -> bool,
    ) -> Result<Arc<T>, RecvError> {
        loop {
            let (value, version) = self.look();
            if condition(&value) {
                return Ok(value);
            }
            let watcher = &*self.watcher;
            Changing(watcher, Passing::new(&watcher.channel, version)).await?;
        }
    }

    /// The value, which counts as seen, and its version.
    fn look(&self) -> (Arc<T>, u64) {
        let (value, version) = self.watcher.channel.newest();
        self.watcher.seen.fetch_max(version, Ordering::Relaxed);
        (value, version)
    }

    #[track_caller]
    fn changed_since(&self, version: u64) -> Result<(), RecvError> {
        let watcher = &*self.watcher;
        match wait(&*watcher.channel, version, Limit::Never, "watch::Receiver::changed") {
            Ok(grant) => watcher.changed(grant),
            Err(_) => unreachable!("a wait without a limit ends with a grant"),
        }
    }
}

impl<T: 'static> Receiver<T> {
    /// Gives a Deferred that waits as [`changed`](Self::changed).
    ///
    /// Shape: it has fired when it is returned if the value was not seen. Else it is fired by a
    /// call of this thread's reactor. It counts as this receiver, which may be dropped.
    ///
    /// # Errors
    ///
    /// It fails with [`RecvError`] when no sender is left; and outside [`run`](crate::run), if it
    /// would have to wait.
    pub fn changed_deferred(&self) -> Deferred<()> {
        let watcher = Arc::clone(&self.watcher);
        let channel = Arc::clone(&watcher.channel);
        let changed = defer(channel, watcher.seen(), move |_, grant| watcher.changed(grant));
        changed.add_callback(|changed| changed.map_err(Failure::new))
    }
}

impl<T> Future for Changing<'_, T> {
    type Output = Result<(), RecvError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let watcher = self.0;
        Pin::new(&mut self.1).poll(cx).map(|grant| watcher.changed(grant))
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.channel.lane.with(|newest, _| newest.senders += 1);
        Sender { channel: Arc::clone(&self.channel) }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        self.watcher.channel.subscribe(Some(self.watcher.seen()))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.channel.lane.with(|newest, line| {
            newest.senders -= 1;
            line.serve(|_| (newest.senders == 0).then_some(Grant::Ended));
        });
    }
}

impl<T> Drop for Watcher<T> {
    fn drop(&mut self) {
        self.channel.lane.with(|newest, _| newest.receivers -= 1);
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("value", &self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("value", &self.borrow()).finish()
    }
}

impl<T> fmt::Debug for Changing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Changing").field(&self.1).finish()
    }
}
