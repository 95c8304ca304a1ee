//! A lock with std's shape, which many hold to read, or one to write.
//!
//! Floor 5. Uses: `lane`, `home`, `poison`. Used by: users.
//!
//! # Invariants
//!
//! - `RW-1` While a write guard exists, it is the only guard. Guards are made only from grants of
//!   the rule, one each, and give them back when they are dropped.
//! - `RW-2` A guard stays on its thread, which is what `home` stands on.
//! - `RW-3` While somebody waits, nobody who comes later is served: a writer is not kept waiting by
//!   readers that come and go. Readers that stand in line one behind the other go on together.
//!
//! # Source
//!
//! std `RwLock`, tokio `rwlock.rs` (fair, `downgrade`).

#![expect(unsafe_code, reason = "a lock lends what it holds")]
//! # Safety
//!
//! The cell is touched through a guard (`RW-1`) or through `&mut`.

use std::{
    cell::UnsafeCell,
    fmt,
    future::Future,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::{Arc, LockResult, TryLockError, TryLockResult},
    task::{Context, Poll},
    time::Duration,
};

use super::{
    home::{Asker, Home, asker},
    lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait},
    poison::{Poison, Witness, tell},
};
use crate::{deferred::Deferred, hub::park::WaitOn};

/// What one wants to do, and may do once it is granted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

/// The rule: any number to read, or one to write.
pub(super) struct Sharing {
    readers: usize,
    is_written: bool,
    /// Who has touched it (`RW-2`).
    home: Home,
}

impl Sharing {
    /// Grants it if those who hold it leave room (`RW-1`).
    fn admit(&mut self, way: Way) -> Option<Way> {
        match way {
            _ if self.is_written => return None,
            // Guards that were forgotten count. Too many to count: then it is never free again.
            Way::Read => self.readers = self.readers.checked_add(1)?,
            Way::Write if self.readers > 0 => return None,
            Way::Write => self.is_written = true,
        }
        Some(way)
    }

    /// Makes of the writer a reader, beside whom others may read.
    fn downgrade(&mut self, line: &mut LineOf<Self>) {
        (self.is_written, self.readers) = (false, 1);
        self.serve(line);
    }
}

impl Rule for Sharing {
    type Ask = (Way, Asker);
    type Grant = Way;

    fn enter(&mut self, line: &mut LineOf<Self>, ask: Self::Ask) -> Result<Way, Self::Ask> {
        self.home.touch(ask.1);
        let admitted = if line.is_empty() { self.admit(ask.0) } else { None };
        admitted.ok_or(ask)
    }

    fn take_back(&mut self, line: &mut LineOf<Self>, way: Way) -> Option<Way> {
        match way {
            Way::Read => self.readers -= 1,
            Way::Write => self.is_written = false,
        }
        self.serve(line);
        None
    }

    fn serve(&mut self, line: &mut LineOf<Self>) {
        line.serve(|&(way, _)| self.admit(way));
    }

    fn waits_on(&(way, _): &Self::Ask) -> WaitOn {
        match way {
            Way::Read => WaitOn::LockToRead,
            Way::Write => WaitOn::LockToWrite,
        }
    }

    fn is_open(&self) -> bool {
        self.home.is_open()
    }
}

/// A value that many may read at once, or one may change.
///
/// Shape: as [`std::sync::RwLock`], but who waits parks its greenlet, and it is fair: first come,
/// first served, where readers that come one behind the other are served together. What was handed
/// to one that was killed, timed out, cancelled or dropped goes to the next. A guard is not `Send`.
///
/// Not reentrant: who holds it to read and comes again to read waits behind a writer that came in
/// between, and that one waits for the first guard.
///
/// # Poison
///
/// As a [`Mutex`](super::Mutex)'s, but by write guards only: who reads leaves nothing half changed.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::RwLock, yield_now};
/// use std::rc::Rc;
/// run(|| {
///     let routes = Rc::new(RwLock::new(vec!["/"]));
///     let reader = || {
///         let routes = Rc::clone(&routes);
///         spawn(move || {
///             let routes = routes.read().unwrap();
///             yield_now(); // the others read, too
///             routes.len()
///         })
///     };
///     let (first, second) = (reader(), reader());
///     yield_now();
///     routes.write().unwrap().push("/about"); // waits for both
///     assert_eq!((first.join().unwrap(), second.join().unwrap()), (1, 1));
/// });
/// ```
///
/// Readers share the value, so threads share the lock only if they may share the value:
/// ```compile_fail,E0277
/// let lock = greenloop::sync::RwLock::new(std::cell::Cell::new(0));
/// std::thread::scope(|scope| {
///     scope.spawn(|| lock.read().unwrap().set(1));
/// });
/// ```
pub struct RwLock<T: ?Sized> {
    lane: Lane<Sharing>,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: Thread A writes and drops its guard, which takes the lane's lock; threads B and C then
// get their grants under the same lock, so they see what A wrote, and A has no guard any more
// (RW-1). B and C hold a `&T` at once, for which `T: Sync` is needed; whoever writes next may move
// the value to its thread, for which `T: Send` is.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

impl<T: ?Sized> Primitive for RwLock<T> {
    type Rule = Sharing;

    fn lane(&self) -> &Lane<Sharing> {
        &self.lane
    }
}

/// A grant, and the lock that it is of: given back when dropped.
struct Hold<L: Deref<Target = RwLock<T>>, T: ?Sized> {
    lock: L,
    way: Way,
    witness: Witness,
    /// It stays on its thread (`RW-2`), is `Sync` only if the value is, and invariant in `T`.
    lends: PhantomData<*mut T>,
}

// SAFETY: thread A has the guard, thread B a `&Guard`: all that B can do with it is to get a `&T`
// and to read `lock`, a `&RwLock<T>` or `Arc<RwLock<T>>`; the bounds ask for both to be `Sync`. B
// cannot drop the guard.
unsafe impl<L: Deref<Target = RwLock<T>> + Sync, T: ?Sized + Sync> Sync for Hold<L, T> {}

/// The lock of a [`RwLock`] to read, let go when dropped. Made in blocking style or by a future.
pub type RwLockReadGuard<'a, T> = ReadGuard<&'a RwLock<T>, T>;

/// As [`RwLockReadGuard`], but shares the lock: what a Deferred fires with.
pub type OwnedRwLockReadGuard<T> = ReadGuard<Arc<RwLock<T>>, T>;

/// The lock of a [`RwLock`] to write, let go when dropped. Made in blocking style or by a future.
pub type RwLockWriteGuard<'a, T> = WriteGuard<&'a RwLock<T>, T>;

/// As [`RwLockWriteGuard`], but shares the lock: what a Deferred fires with.
pub type OwnedRwLockWriteGuard<T> = WriteGuard<Arc<RwLock<T>>, T>;

/// The lock of a [`RwLock`] to read, let go when dropped. `L` is how it holds the lock: see
/// [`RwLockReadGuard`] and [`OwnedRwLockReadGuard`]. It stays on its thread.
#[must_use = "the lock is let go when it is dropped"]
pub struct ReadGuard<L: Deref<Target = RwLock<T>>, T: ?Sized>(Hold<L, T>);

/// The lock of a [`RwLock`] to write, let go when dropped. `L` is how it holds the lock: see
/// [`RwLockWriteGuard`] and [`OwnedRwLockWriteGuard`]. It stays on its thread.
#[must_use = "the lock is let go when it is dropped"]
pub struct WriteGuard<L: Deref<Target = RwLock<T>>, T: ?Sized>(Hold<L, T>);

/// The future of [`RwLock::read_async`]. Dropped, it leaves the line.
#[must_use = "futures do nothing unless awaited"]
pub struct Reading<'a, T: ?Sized>(Passing<&'a RwLock<T>>);

/// The future of [`RwLock::write_async`]. Dropped, it leaves the line.
#[must_use = "futures do nothing unless awaited"]
pub struct Writing<'a, T: ?Sized>(Passing<&'a RwLock<T>>);

impl<T> RwLock<T> {
    /// Makes a lock that nobody holds.
    pub const fn new(value: T) -> RwLock<T> {
        let free = Sharing { readers: 0, is_written: false, home: Home::none() };
        RwLock { lane: Lane::new(free), poison: Poison::none(), value: UnsafeCell::new(value) }
    }

    /// Takes the value out.
    ///
    /// # Errors
    ///
    /// The value in an error, if the lock is poisoned.
    pub fn into_inner(self) -> LockResult<T> {
        let is_poisoned = self.is_poisoned();
        let value = self.value.into_inner();
        tell(is_poisoned, value)
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes or waits, and locks it to read.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// The guard in an error, if the lock is poisoned.
    ///
    /// # Panics
    ///
    /// On the hub's own stack (in a `Waker`, or in a `Drop` that the hub runs), if it would wait.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel it is not held. Infallible: where a kill cannot
    /// unwind, the wait goes on.
    ///
    /// # Source
    ///
    /// std `RwLock::read`. A main greenlet that waits for itself is told that it would wait for
    /// ever, as by [`Mutex::lock`](super::Mutex::lock).
    #[track_caller]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        match wait(self, (Way::Read, asker()), Limit::Never, "RwLock::read") {
            Ok(way) => ReadGuard::new(self, way),
            Err(_) => unreachable!("a wait without a limit ends with a grant"),
        }
    }

    /// Waits until nobody holds it or waits, and locks it to write.
    ///
    /// # Errors, Panics, Cancellation
    ///
    /// As [`read`](Self::read).
    #[track_caller]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        match wait(self, (Way::Write, asker()), Limit::Never, "RwLock::write") {
            Ok(way) => WriteGuard::new(self, way),
            Err(_) => unreachable!("a wait without a limit ends with a grant"),
        }
    }

    /// As [`read`](Self::read), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` after `limit`; `Poisoned` as [`read`](Self::read).
    #[track_caller]
    pub fn read_timeout(&self, limit: Duration) -> TryLockResult<RwLockReadGuard<'_, T>> {
        let ask = (Way::Read, asker());
        match wait(self, ask, Limit::After(limit), "RwLock::read_timeout") {
            Ok(way) => ReadGuard::new(self, way).map_err(TryLockError::Poisoned),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// As [`write`](Self::write), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` after `limit`; `Poisoned` as [`read`](Self::read).
    #[track_caller]
    pub fn write_timeout(&self, limit: Duration) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        let ask = (Way::Write, asker());
        match wait(self, ask, Limit::After(limit), "RwLock::write_timeout") {
            Ok(way) => WriteGuard::new(self, way).map_err(TryLockError::Poisoned),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// Locks it to read if nobody writes or waits. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it would have to wait; `Poisoned` as [`read`](Self::read).
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        match self.lane.attempt((Way::Read, asker())) {
            Ok(way) => ReadGuard::new(self, way).map_err(TryLockError::Poisoned),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// Locks it to write if nobody holds it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if it would have to wait; `Poisoned` as [`read`](Self::read).
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        match self.lane.attempt((Way::Write, asker())) {
            Ok(way) => WriteGuard::new(self, way).map_err(TryLockError::Poisoned),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// Gives a future of the lock, to read. It joins the line when it is first polled.
    pub fn read_async(&self) -> Reading<'_, T> {
        Reading(Passing::new(self, (Way::Read, None)))
    }

    /// Gives a future of the lock, to write. It joins the line when it is first polled.
    pub fn write_async(&self) -> Writing<'_, T> {
        Writing(Passing::new(self, (Way::Write, None)))
    }

    /// Whether an unwind has poisoned it.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_there()
    }

    /// Says that the value is in order again.
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// The value: who has the only reference need not lock.
    ///
    /// # Errors
    ///
    /// The reference in an error, if the lock is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let is_poisoned = self.is_poisoned();
        let value = self.value.get_mut();
        tell(is_poisoned, value)
    }
}

impl<T: ?Sized + 'static> RwLock<T> {
    /// Gives a Deferred that fires with the lock, to read.
    ///
    /// Shape: it has fired when it is returned if nobody writes or waits. Else it is fired by a
    /// call of this thread's reactor, so its callbacks may block, and any number of Deferreds take
    /// turns without nesting.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait. The value of a poisoned lock
    /// comes in an error inside, as from [`read`](Self::read).
    ///
    /// # Cancellation
    ///
    /// Cancelling it leaves the line.
    pub fn read_deferred(self: &Arc<Self>) -> Deferred<LockResult<OwnedRwLockReadGuard<T>>> {
        defer(Arc::clone(self), (Way::Read, asker()), ReadGuard::new)
    }

    /// Gives a Deferred that fires with the lock, to write.
    ///
    /// # Shape, Errors, Cancellation
    ///
    /// As [`read_deferred`](Self::read_deferred).
    pub fn write_deferred(self: &Arc<Self>) -> Deferred<LockResult<OwnedRwLockWriteGuard<T>>> {
        defer(Arc::clone(self), (Way::Write, asker()), WriteGuard::new)
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> Hold<L, T> {
    /// INVARIANT: RW-1: a grant is used up for each hold.
    fn new(lock: L, way: Way) -> Hold<L, T> {
        Hold { lock, way, witness: Witness::new(), lends: PhantomData }
    }

    /// Poisons the lock if an unwind ends the writing.
    fn mark(&self) {
        if self.way == Way::Write {
            self.lock.poison.mark(&self.witness);
        }
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> Drop for Hold<L, T> {
    fn drop(&mut self) {
        self.mark();
        self.lock.lane.release(self.way);
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> ReadGuard<L, T> {
    fn new(lock: L, way: Way) -> LockResult<ReadGuard<L, T>> {
        debug_assert!(way == Way::Read);
        let is_poisoned = lock.is_poisoned();
        let guard = ReadGuard(Hold::new(lock, way));
        tell(is_poisoned, guard)
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> WriteGuard<L, T> {
    fn new(lock: L, way: Way) -> LockResult<WriteGuard<L, T>> {
        debug_assert!(way == Way::Write);
        let is_poisoned = lock.is_poisoned();
        let guard = WriteGuard(Hold::new(lock, way));
        tell(is_poisoned, guard)
    }

    /// Reads on what was written: nobody can write in between, and readers that are first in line
    /// go on at once. Never waits.
    ///
    /// Shape: called as `RwLockWriteGuard::downgrade(guard)`, as std's.
    ///
    /// # Source
    ///
    /// std `RwLockWriteGuard::downgrade`.
    pub fn downgrade(guard: WriteGuard<L, T>) -> ReadGuard<L, T> {
        let WriteGuard(mut hold) = guard;
        hold.mark();
        hold.lock.lane.with(Sharing::downgrade);
        hold.way = Way::Read;
        ReadGuard(hold)
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> Deref for ReadGuard<L, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: while this guard exists no write guard does (RW-1), so no `&mut` to the value.
        // Only this module makes guards, of `&RwLock` and `Arc<RwLock>`, which stay the same lock.
        unsafe { &*self.0.lock.value.get() }
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> Deref for WriteGuard<L, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the only guard (RW-1), so the only `&mut` is one borrowed from it.
        // Only this module makes guards, of `&RwLock` and `Arc<RwLock>`, which stay the same lock.
        unsafe { &*self.0.lock.value.get() }
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized> DerefMut for WriteGuard<L, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; it is borrowed mutably, so no reference of it exists.
        unsafe { &mut *self.0.lock.value.get() }
    }
}

impl<'a, T: ?Sized> Future for Reading<'a, T> {
    type Output = LockResult<RwLockReadGuard<'a, T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.0.primitive();
        Pin::new(&mut self.0).poll(cx).map(|way| ReadGuard::new(lock, way))
    }
}

impl<'a, T: ?Sized> Future for Writing<'a, T> {
    type Output = LockResult<RwLockWriteGuard<'a, T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lock = self.0.primitive();
        Pin::new(&mut self.0).poll(cx).map(|way| WriteGuard::new(lock, way))
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> RwLock<T> {
        RwLock::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => shown.field("value", &&*guard),
            Err(TryLockError::Poisoned(guard)) => shown.field("value", &&**guard.get_ref()),
            Err(TryLockError::WouldBlock) => shown.field("value", &format_args!("<locked>")),
        };
        shown.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized + fmt::Debug> fmt::Debug for ReadGuard<L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<L: Deref<Target = RwLock<T>>, T: ?Sized + fmt::Debug> fmt::Debug for WriteGuard<L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> fmt::Debug for Reading<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reading").field(&self.0).finish()
    }
}

impl<T: ?Sized> fmt::Debug for Writing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Writing").field(&self.0).finish()
    }
}
