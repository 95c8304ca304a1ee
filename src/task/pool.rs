//! [`Pool`]: many calls at a time, but not too many.
//!
//! Floor 7. Uses: `hub` (groups, scopes), `slots`. Used by: users.

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    panic::Location,
    rc::Rc,
    time::Duration,
};

use super::{
    imap::Imap,
    slots::{Slots, Taken},
};
use crate::{
    Builder, Failure, Greenlet, JoinError,
    hub::{Group, Hub, Member},
    scope,
    time::Deadline,
    try_scope,
};

/// A group of greenlets that has room for so many at a time.
///
/// Shape: a handle; clones are of the same pool. A greenlet has its place until it has ended.
/// Places are given first come, first served; one that was given to a waiter that dies meanwhile
/// goes to the next. A pool of size 0 lets nobody in.
///
/// | | begins calls | gives results |
/// |---|---|---|
/// | [`spawn`](Self::spawn) | one, when there is room | by its handle |
/// | [`apply`](Self::apply) | one, when there is room | when it has ended |
/// | [`map`](Self::map) | as there is room; they may borrow | all at once, in order; fails with the first error |
/// | [`imap`](Self::imap) | some ahead of who iterates | one by one, in order |
/// | [`imap_unordered`](Self::imap_unordered) | some ahead of who iterates | one by one, as they end |
///
/// A greenlet of the pool that itself asks it for `apply`, `map` or `imap` while there is no room
/// makes the call itself, in its own place: it would wait for itself.
///
/// # Examples
///
/// ```
/// use greenloop::{sleep, task::Pool, testing};
/// use std::time::Duration;
/// testing::run(|| {
///     let pool = Pool::new(2);
///     for _ in 0..10 {
///         pool.spawn(|| sleep(Duration::from_secs(1))); // waits when two are at work
///     }
///     pool.join();
/// });
/// ```
///
/// # Source
///
/// gevent `pool.Pool`; tokio `Sender::reserve` for the places.
#[derive(Clone)]
pub struct Pool {
    group: Group,
    slots: Rc<Slots>,
    size: usize,
}

/// A place in a [`Pool`] that is kept for a greenlet: given back when dropped.
#[must_use = "the place is given back when it is dropped"]
pub struct PoolSlot {
    taken: Taken,
    group: Group,
}

impl PoolSlot {
    /// Spawns a greenlet in this place, as [`spawn`](crate::spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> Greenlet<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let spawned = self.spawn_with(Builder::new(), f);
        spawned.unwrap_or_else(|error| panic!("task::Pool: {error}"))
    }

    /// As [`spawn`](Self::spawn), with a name or a stack size.
    ///
    /// # Errors
    ///
    /// As [`Builder::spawn`].
    #[track_caller]
    pub fn spawn_with<F, T>(self, builder: Builder, f: F) -> io::Result<Greenlet<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let PoolSlot { taken, group } = self;
        group.spawn_holding(builder, Location::caller(), f, taken)
    }
}

/// What a call of a scope holds until it has ended: its place, and its membership.
struct Seat {
    _taken: Taken,
    _member: Member,
}

impl Pool {
    /// A pool for so many greenlets at a time.
    pub fn new(size: usize) -> Pool {
        Pool { group: Group::new(), slots: Slots::new(size), size }
    }

    /// Parks until there is room, and spawns a greenlet, as [`spawn`](crate::spawn).
    ///
    /// # Panics
    ///
    /// When it would have to wait and cannot park; and as [`spawn`](crate::spawn).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing was spawned. Infallible: where a kill cannot
    /// unwind, the wait goes on.
    #[track_caller]
    pub fn spawn<F, T>(&self, f: F) -> Greenlet<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.reserve().spawn(f)
    }

    /// Parks until there is room, and keeps the place: for what should not begin before (to accept
    /// a connection, say), and for greenlets with a name.
    ///
    /// # Panics, Cancellation
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn reserve(&self) -> PoolSlot {
        let taken = self.slots.take(Deadline::NEVER);
        self.slot(taken.expect("a wait without a limit ends with a place"))
    }

    /// As [`reserve`](Self::reserve), but gives up after `limit`: then `None`.
    #[track_caller]
    pub fn reserve_timeout(&self, limit: Duration) -> Option<PoolSlot> {
        let deadline = Hub::current().map_or(Deadline::NEVER, |hub| hub.deadline_in(limit));
        self.slots.take(deadline).map(|taken| self.slot(taken))
    }

    /// Takes a place if there is room. Never parks.
    pub fn try_reserve(&self) -> Option<PoolSlot> {
        self.try_take().map(|taken| self.slot(taken))
    }

    pub(super) fn try_take(&self) -> Option<Taken> {
        self.slots.try_take()
    }

    fn slot(&self, taken: Taken) -> PoolSlot {
        PoolSlot { taken, group: self.group.clone() }
    }

    /// A place for a call that the caller waits for. `None`: there is no room, and the caller has
    /// a place itself, in which it is to make the call.
    #[track_caller]
    pub(super) fn take_or_lend(&self) -> Option<Taken> {
        match self.slots.try_take() {
            None if self.group.has_current() => None,
            None => self.slots.take(Deadline::NEVER),
            taken => taken,
        }
    }

    /// Calls `f` on a greenlet of the pool when there is room, and parks until it has returned.
    ///
    /// Shape: `f` may borrow.
    ///
    /// # Errors
    ///
    /// As [`Greenlet::join`].
    ///
    /// # Panics
    ///
    /// Outside [`run`](crate::run).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the call is killed, and this unwinds once it has
    /// ended.
    ///
    /// # Source
    ///
    /// gevent `Pool.apply`.
    #[track_caller]
    pub fn apply<F, T>(&self, f: F) -> Result<T, JoinError>
    where
        F: FnOnce() -> T,
    {
        let Some(taken) = self.take_or_lend() else { return JoinError::catch(f) };
        let member = self.group.admit();
        let key = member.key();
        let seat = Seat { _taken: taken, _member: member };
        scope(|s| {
            let call = s.spawn(move || {
                let _seat = seat;
                f()
            });
            self.group.enlist(key, call.as_ref());
            call.join()
        })
    }

    /// Calls `f` with each of `items`, as there is room, and returns the results in the order of
    /// the items.
    ///
    /// Shape: items, results and `f` may borrow. `items` is asked for the next one on the calling
    /// greenlet, when there is room for it: an endless iterator of work is fine until something
    /// fails. As with [`try_scope`], all calls have ended when this returns, whatever happens:
    /// * A call fails: the others are killed, no more are made, and its error is returned. If
    ///   others fail as well, the first in time counts.
    /// * A call panics, or `items` does: the same, and this panics with its payload.
    /// * The caller is killed or timed out: all calls are killed, and the unwind goes on.
    ///
    /// # Errors
    ///
    /// The first error of `f`.
    ///
    /// # Panics
    ///
    /// Outside [`run`](crate::run). With what `f` or `items` panics with; and when a call was
    /// killed by anybody else, so that a result is missing: then no more are made.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: whenever it waits for room or for a call to end. On cancel as said
    /// above.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenloop::{Deadline, Failure, reactor, sleep, task::Pool, testing};
    /// use std::time::Duration;
    /// # fn main() -> Result<(), Failure> {
    /// testing::run(|| {
    ///     let lengths = Pool::new(2).map(["a", "few", "words"], |word| {
    ///         sleep(Duration::from_secs(60)); // as if it asked somebody
    ///         Ok::<_, Failure>(word.len())
    ///     })?;
    ///     assert_eq!(lengths, [1, 3, 5]);
    ///     assert_eq!(reactor().now(), Deadline::ZERO + Duration::from_secs(120));
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Source
    ///
    /// gevent `Pool.map`; what Twisted's `Cooperator` is mostly used for.
    #[track_caller]
    pub fn map<I, T, E, F>(&self, items: I, f: F) -> Result<Vec<T>, E>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> Result<T, E>,
    {
        let results: RefCell<Vec<Option<T>>> = RefCell::default();
        let has_hole = Cell::new(false);
        try_scope(|s| {
            let mut items = items.into_iter();
            loop {
                let taken = self.take_or_lend();
                // One has failed or was killed. (A shield may hold the end of this body back.)
                if has_hole.get() {
                    break;
                }
                let Some(item) = items.next() else { break };
                let Some(taken) = taken else {
                    let value = f(item)?;
                    results.borrow_mut().push(Some(value));
                    continue;
                };
                let member = self.group.admit();
                let key = member.key();
                let seat = Seat { _taken: taken, _member: member };
                let place = results.borrow().len();
                results.borrow_mut().push(None);
                let (f, results, hole) = (&f, &results, Hole(&has_hole));
                let call = s.spawn(move || {
                    let _seat = seat;
                    let hole = hole;
                    let value = f(item)?;
                    results.borrow_mut()[place] = Some(value);
                    hole.fill();
                    Ok(())
                });
                self.group.enlist(key, call.as_ref());
            }
            Ok(())
        })?;
        let results: Option<Vec<T>> = results.into_inner().into_iter().collect();
        Ok(results.expect("task::Pool::map: a call was killed before it had a result"))
    }

    /// Gives an iterator that calls `f` with each of `items`, some ahead, and gives the results in
    /// the order of the items.
    ///
    /// Shape: nothing begins before it is asked for the first result. From then on there are, with
    /// each result that is taken, at most as many calls under way or waiting to be taken as the
    /// pool has places: who is slow to take holds `items` up. `items` is asked by whoever iterates,
    /// and may borrow; `f` and what it is called with may not.
    ///
    /// A call that panics or is killed is an error in its place, and the others go on. A panic of
    /// `items` comes when all results of the items before it were given.
    ///
    /// Dropped, it kills the calls whose results were not taken; [`join`](Self::join) waits for
    /// them too.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenloop::{sleep, task::Pool, testing};
    /// use std::time::Duration;
    /// testing::run(|| {
    ///     let squares = Pool::new(8).imap(1.., |n: u64| {
    ///         sleep(Duration::from_secs(10 / n));
    ///         n * n
    ///     });
    ///     let first: Vec<u64> = squares.take(4).map(|square| square.unwrap()).collect();
    ///     assert_eq!(first, [1, 4, 9, 16]);
    /// });
    /// ```
    ///
    /// # Source
    ///
    /// gevent `Pool.imap`, whose own greenlet runs ahead without bound unless `maxsize` is given;
    /// `futures` `buffered`.
    pub fn imap<I, F, U>(&self, items: I, f: F) -> Imap<I::IntoIter, F, U>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> U + 'static,
    {
        Imap::in_order(self, items.into_iter(), f)
    }

    /// As [`imap`](Self::imap), but gives the results as the calls end.
    ///
    /// # Source
    ///
    /// gevent `Pool.imap_unordered`; `futures` `buffer_unordered`.
    pub fn imap_unordered<I, F, U>(&self, items: I, f: F) -> Imap<I::IntoIter, F, U>
    where
        I: IntoIterator,
        F: Fn(I::Item) -> U + 'static,
    {
        Imap::as_they_end(self, items.into_iter(), f)
    }

    /// Parks until the pool is empty, as [`Group::join`]; whoever waits for room may come after.
    ///
    /// # Panics, Cancellation
    ///
    /// As [`Group::join`].
    #[track_caller]
    pub fn join(&self) {
        self.group.join();
    }

    /// As [`join`](Self::join), but gives up after `limit`. Returns whether the pool was empty.
    #[track_caller]
    pub fn join_timeout(&self, limit: Duration) -> bool {
        self.group.join_timeout(limit)
    }

    /// Asks all to end, those that come until the pool is empty too, as [`Group::kill`].
    pub fn kill(&self) {
        self.group.kill();
    }

    /// Asks all to end for a reason, as [`Group::kill_with`].
    pub fn kill_with(&self, reason: impl Into<Failure>) {
        self.group.kill_with(reason);
    }

    /// For how many greenlets it has room in all.
    pub fn size(&self) -> usize {
        self.size
    }

    /// For how many more it has room now.
    pub fn free(&self) -> usize {
        self.slots.free()
    }

    /// How many greenlets it has.
    pub fn len(&self) -> usize {
        self.group.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// Spawns a greenlet in a place that was taken.
    #[track_caller]
    pub(super) fn spawn_in<F, T>(&self, taken: Taken, f: F) -> Greenlet<T>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        self.slot(taken).spawn(f)
    }
}

/// Says so if a call ends without a result.
struct Hole<'a>(&'a Cell<bool>);

impl Hole<'_> {
    fn fill(self) {
        std::mem::forget(self);
    }
}

impl Drop for Hole<'_> {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .field("free", &self.free())
            .field("members", &self.group)
            .finish()
    }
}

impl fmt::Debug for PoolSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolSlot").finish_non_exhaustive()
    }
}
