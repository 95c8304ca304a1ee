//! Many greenlets waited for at once: whoever ends first comes first.
//!
//! Floor 4. Uses: `join`, `park`. Used by: users, `task`.
//!
//! A greenlet of a wait set holds a share of the set's list, and puts its key there when it ends:
//! so a wait for a thousand costs no helper greenlet and no scan, only a word in each.
//!
//! # Invariants
//!
//! - `SET-1` A greenlet's place for its waiter names a set exactly while the set has its handle.
//!   Whatever takes a handle out (it is given, the set is dropped, the rest is taken) clears it.
//!
//! # Source
//!
//! gevent `iwait`, `joinall`, `killall`; Python `concurrent.futures.as_completed`; tokio `JoinSet`.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    fmt,
    rc::Rc,
    time::Duration,
};

use super::{
    Elapsed, Hub, Killed,
    join::{Greenlet, Waiter},
    park::{Mode, Wait, WaitOn, Wake},
};
use crate::{Failure, time::Deadline};

/// Waits for any number of greenlets, and gives their handles as they end.
///
/// Shape: an iterator, whose `next` parks until another one has ended. The handle that it gives is
/// of one that has ended: [`join`](Greenlet::join) gives its result at once. Those that have ended
/// already come first, in the order in which they are passed.
///
/// What gevent has options for are std's adaptors here: `take(n)` waits for `n` of them; and
/// `map(Greenlet::join).collect::<Result<Vec<_>, _>>()` ends at the first one that was killed or
/// has panicked. Each for a time: [`next_timeout`](AsCompleted::next_timeout), or
/// [`timeout`](crate::timeout) around it all.
///
/// # Cancellation
///
/// Cancellation point: never. That is for `next`.
///
/// # Examples
///
/// ```
/// use greenloop::{as_completed, sleep, spawn, testing};
/// use std::time::Duration;
/// testing::run(|| {
///     let sleepers = [30, 10, 20].map(|seconds| {
///         spawn(move || {
///             sleep(Duration::from_secs(seconds));
///             seconds
///         })
///     });
///     let slept: Result<Vec<u64>, _> = as_completed(sleepers).map(|g| g.join()).collect();
///     assert_eq!(slept.unwrap(), [10, 20, 30]);
/// });
/// ```
///
/// # Source
///
/// gevent `iwait`; Python `as_completed`.
pub fn as_completed<T>(greenlets: impl IntoIterator<Item = Greenlet<T>>) -> AsCompleted<T> {
    let mut set = AsCompleted { waited: Vec::new(), free: Vec::new(), ended: Rc::default() };
    greenlets.into_iter().for_each(|greenlet| set.push(greenlet));
    set
}

/// Parks until all of `greenlets` have ended, and returns them in the order of their ends.
///
/// # Panics, Cancellation
///
/// As [`AsCompleted::next`](AsCompleted#method.next).
///
/// # Source
///
/// gevent `joinall`.
#[track_caller]
pub fn joinall<T>(greenlets: impl IntoIterator<Item = Greenlet<T>>) -> Vec<Greenlet<T>> {
    as_completed(greenlets).collect()
}

/// As [`joinall`], but gives up after `limit`.
///
/// Shape: those that have ended, in the order of their ends, and those that have not.
///
/// # Panics, Cancellation
///
/// As [`joinall`].
#[track_caller]
pub fn joinall_timeout<T>(
    greenlets: impl IntoIterator<Item = Greenlet<T>>,
    limit: Duration,
) -> (Vec<Greenlet<T>>, Vec<Greenlet<T>>) {
    as_completed(greenlets).end_by(limit)
}

/// Kills all of `greenlets` and parks until they have ended; returns them in the order of their
/// ends.
///
/// Shape: some may have a value all the same, if they had ended before or needed no further
/// cancellation point. To kill without waiting: `greenlets.iter().for_each(Greenlet::kill)`.
///
/// # Panics, Cancellation
///
/// As [`joinall`]. On cancel all have been asked to end.
///
/// # Source
///
/// gevent `killall`.
#[track_caller]
pub fn killall<T>(greenlets: impl IntoIterator<Item = Greenlet<T>>) -> Vec<Greenlet<T>> {
    let set = as_completed(greenlets);
    set.kill();
    set.collect()
}

/// As [`killall`], but waits no longer than `limit`.
///
/// Shape: those that have ended, in the order of their ends, and those that hold their kill up.
///
/// # Panics, Cancellation
///
/// As [`killall`].
#[track_caller]
pub fn killall_timeout<T>(
    greenlets: impl IntoIterator<Item = Greenlet<T>>,
    limit: Duration,
) -> (Vec<Greenlet<T>>, Vec<Greenlet<T>>) {
    let set = as_completed(greenlets);
    set.kill();
    set.end_by(limit)
}

/// Greenlets that are waited for, given as they end: see [`as_completed`].
///
/// Dropping it detaches those that are left, as dropping their handles does.
#[must_use = "dropping it detaches the greenlets"]
pub struct AsCompleted<T> {
    /// Those that were not given yet, by key.
    waited: Vec<Option<Greenlet<T>>>,
    /// Keys that are nobody's.
    free: Vec<u32>,
    ended: Rc<Ended>,
}

/// What a set and its greenlets share.
#[derive(Default)]
pub(super) struct Ended {
    /// The keys of those that have ended, in that order.
    keys: RefCell<VecDeque<u32>>,
    /// Who waits for one.
    waiter: Cell<Option<Wake>>,
}

impl Ended {
    /// The greenlet with this key has ended. `hub` is there unless it had before.
    pub(super) fn add(&self, hub: Option<&Hub>, key: u32) {
        self.keys.borrow_mut().push_back(key);
        if let (Some(hub), Some(wake)) = (hub, self.waiter.take()) {
            hub.wake(wake);
        }
    }
}

impl<T> AsCompleted<T> {
    /// Waits for one more.
    pub fn push(&mut self, greenlet: Greenlet<T>) {
        let key = self.free.pop().unwrap_or_else(|| {
            self.waited.push(None);
            u32::try_from(self.waited.len() - 1).expect("fewer than 2^32 greenlets")
        });
        if greenlet.is_finished() {
            self.ended.add(None, key);
        } else {
            greenlet.watch(Waiter::Set(Rc::clone(&self.ended), key));
        }
        self.waited[key as usize] = Some(greenlet);
    }

    /// Gives one that has ended, if there is any. Never parks.
    pub fn try_next(&mut self) -> Option<Greenlet<T>> {
        let key = self.ended.keys.borrow_mut().pop_front()?;
        self.free.push(key);
        self.waited[key as usize].take()
    }

    /// As `next`, but gives up after `limit`; those that are left stay in the set.
    ///
    /// # Errors
    ///
    /// [`Elapsed`] when none has ended in time.
    ///
    /// # Panics, Cancellation
    ///
    /// As [`next`](#method.next).
    #[track_caller]
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<Greenlet<T>>, Elapsed> {
        self.wait(Hub::current().map_or(Deadline::NEVER, |hub| hub.deadline_in(limit)))
    }

    /// Asks all that are left to end, as [`Greenlet::kill`]. They are still to be waited for.
    pub fn kill(&self) {
        self.kill_as(&Killed::plain());
    }

    /// Asks all that are left to end for a reason, which they share, as [`Greenlet::kill_with`].
    pub fn kill_with(&self, reason: impl Into<Failure>) {
        self.kill_as(&Killed::because(reason));
    }

    fn kill_as(&self, killed: &Killed) {
        self.waited.iter().flatten().for_each(|greenlet| greenlet.kill_as(killed.clone()));
    }

    /// Gives up waiting, and gives those back that were not given yet.
    pub fn into_rest(mut self) -> Vec<Greenlet<T>> {
        self.take_rest().collect()
    }

    /// How many were not given yet.
    pub fn len(&self) -> usize {
        self.waited.len() - self.free.len()
    }

    /// Whether all were given.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_rest(&mut self) -> impl Iterator<Item = Greenlet<T>> + use<T> {
        let rest = std::mem::take(&mut self.waited).into_iter().flatten();
        rest.inspect(|greenlet| greenlet.watch(Waiter::None))
    }

    #[track_caller]
    fn end_by(mut self, limit: Duration) -> (Vec<Greenlet<T>>, Vec<Greenlet<T>>) {
        let deadline = Hub::current().map_or(Deadline::NEVER, |hub| hub.deadline_in(limit));
        let mut ended = Vec::new();
        while let Ok(Some(greenlet)) = self.wait(deadline) {
            ended.push(greenlet);
        }
        (ended, self.into_rest())
    }

    /// Parks until one has ended. `None` when none is left.
    #[track_caller]
    fn wait(&mut self, deadline: Deadline) -> Result<Option<Greenlet<T>>, Elapsed> {
        /// Runs on every way out, the unwind of a kill included.
        struct Unwatch<'a>(&'a Cell<Option<Wake>>);
        impl Drop for Unwatch<'_> {
            fn drop(&mut self) {
                self.0.set(None);
            }
        }
        let hub = Hub::to_park();
        if let Ok(hub) = hub {
            hub.checkpoint(Mode::Infallible);
        }
        if !self.ended.keys.borrow().is_empty() || self.is_empty() {
            return Ok(self.try_next());
        }
        let hub = hub.unwrap_or_else(|why| panic!("greenloop::as_completed: {why}"));
        let wait = Wait::begin(hub, WaitOn::Greenlets(self.len() as u32)).expect("checked above");
        self.ended.waiter.set(Some(wait.wake()));
        let unwatch = Unwatch(&self.ended.waiter);
        let _ = wait.park(deadline, Mode::Infallible);
        drop(unwatch);
        // Whether it was woken, or its time is over: one that has ended counts.
        self.try_next().map(Some).ok_or(Elapsed::new())
    }
}

impl<T> Iterator for AsCompleted<T> {
    type Item = Greenlet<T>;

    /// Parks until another one has ended; `None` when all were given.
    ///
    /// # Panics
    ///
    /// When none has ended and the caller cannot park: outside [`run`](crate::run), or on the hub's
    /// own stack.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the set is as it was: whoever drops it detaches those
    /// that are left. Infallible as to kills: where one cannot unwind, the wait goes on.
    #[track_caller]
    fn next(&mut self) -> Option<Greenlet<T>> {
        self.wait(Deadline::NEVER).expect("a wait without a limit ends with a greenlet")
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl<T> Drop for AsCompleted<T> {
    fn drop(&mut self) {
        self.take_rest().for_each(drop);
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.waited.iter().flatten()).finish()
    }
}
