//! A mutex with std's shape, which is held by greenlets, futures, Deferreds and OS threads.
//!
//! Floor 5. Uses: `lane`, `home`, `poison`. Used by: users.
//!
//! # Invariants
//!
//! - `MUTEX-1` At most one guard exists: one is made only from a grant of the rule, which grants
//!   when nobody holds it, and gives its grant back when it is dropped.
//! - `MUTEX-2` A guard stays on its thread, which is what `home` stands on.
//!
//! # Source
//!
//! std `Mutex`, gevent `RLock` (here not reentrant), Twisted `DeferredLock`.

#![expect(unsafe_code, reason = "a mutex lends what it holds")]
//! # Safety
//!
//! The cell is touched through a guard (`MUTEX-1`) or through `&mut`.

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
    lane::{Lane, Limit, LineOf, Passing, Primitive, Rule, defer, wait, wait_on},
    poison::{Poison, Witness, tell},
};
use crate::{
    deferred::Deferred,
    hub::{Hub, park::WaitOn},
};

/// The rule: one at a time.
pub(super) struct Hold {
    is_held: bool,
    /// Who has touched it (`MUTEX-2`).
    home: Home,
}

/// The right to make a guard.
pub(super) struct Held;

impl Rule for Hold {
    type Ask = Asker;
    type Grant = Held;

    #[inline(always)]
    fn enter(&mut self, _: &mut LineOf<Self>, ask: Asker) -> Result<Held, Asker> {
        self.home.touch(ask);
        // While somebody waits it is held: it is handed over, not let go (MUTEX-1).
        if std::mem::replace(&mut self.is_held, true) { Err(ask) } else { Ok(Held) }
    }

    #[inline(always)]
    fn take_back(&mut self, line: &mut LineOf<Self>, held: Held) -> Option<Held> {
        if line.is_empty() {
            self.is_held = false;
        } else {
            line.grant(|_| held);
        }
        None
    }

    fn serve(&mut self, _: &mut LineOf<Self>) {}

    fn waits_on(_: &Asker) -> WaitOn {
        WaitOn::Mutex
    }

    fn is_open(&self) -> bool {
        self.home.is_open()
    }
}

/// A value that one at a time may use: a greenlet, a future, a Deferred's callbacks, an OS thread.
///
/// Shape: as [`std::sync::Mutex`], but who waits parks its greenlet, and it is fair: a lock is
/// handed to whoever waits longest, and goes on to the next if that one was killed, timed out,
/// cancelled or dropped. Not reentrant. A guard is not `Send`, as std's is not.
///
/// # Poison
///
/// As std's: a guard that is dropped by an unwind that began while it was held poisons the mutex,
/// and `lock` then returns the guard in an error. An unwind is a panic, and also a kill and an
/// elapsed [`timeout`](crate::timeout): all of them may leave the value half changed. What must not
/// be interrupted half way belongs into [`shield`](crate::shield). Whether an unwind is the guard's
/// is decided by its greenlet, not by the thread, where others may be unwinding.
///
/// # Examples
///
/// ```
/// use greenloop::{run, spawn, sync::Mutex, yield_now};
/// use std::rc::Rc;
/// let sum = Rc::new(Mutex::new(0));
/// run(|| {
///     for n in 1..=10 {
///         let sum = Rc::clone(&sum);
///         spawn(move || {
///             let mut sum = sum.lock().unwrap();
///             let before = *sum;
///             yield_now(); // the others wait
///             *sum = before + n;
///         });
///     }
///     while *sum.lock().unwrap() < 55 {
///         yield_now();
///     }
/// });
/// ```
pub struct Mutex<T: ?Sized> {
    lane: Lane<Hold>,
    poison: Poison,
    value: UnsafeCell<T>,
}

// SAFETY: Thread A locks, changes the value and drops the guard, which takes the lane's std lock;
// thread B then gets its grant under the same lock, so it sees A's changes, and A has no guard any
// more (MUTEX-1). So the mutex hands one `&mut T` from thread to thread, for which `T: Send` is
// what is needed; two threads never have a `&T` at once, so `T: Sync` is not.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T: ?Sized> Primitive for Mutex<T> {
    type Rule = Hold;

    fn lane(&self) -> &Lane<Hold> {
        &self.lane
    }
}

/// The lock of a [`Mutex`], let go when dropped. Locked in blocking style or by a future.
pub type MutexGuard<'a, T> = Guard<&'a Mutex<T>, T>;

/// As [`MutexGuard`], but shares the mutex: what a Deferred fires with.
pub type OwnedMutexGuard<T> = Guard<Arc<Mutex<T>>, T>;

/// The lock of a mutex, let go when dropped. `M` is how it holds the mutex: see [`MutexGuard`] and
/// [`OwnedMutexGuard`].
///
/// It stays on its thread:
/// ```compile_fail,E0277
/// let mutex = greenloop::sync::Mutex::new(0);
/// let guard = mutex.lock().unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(move || drop(guard));
/// });
/// ```
#[must_use = "the mutex is let go when it is dropped"]
pub struct Guard<M: Deref<Target = Mutex<T>>, T: ?Sized> {
    mutex: M,
    witness: Witness,
    /// It stays on its thread (`MUTEX-2`), is `Sync` only if the value is, and invariant in `T`, as
    /// the mutex is.
    lends: PhantomData<*mut T>,
}

// SAFETY: thread A has the guard, thread B a `&Guard`: all that B can do with it is to get a `&T`
// and to read `mutex`, a `&Mutex<T>` or `Arc<Mutex<T>>`, which are `Sync` for `T: Send`; the bounds
// ask for both. B cannot drop the guard.
unsafe impl<M: Deref<Target = Mutex<T>> + Sync, T: ?Sized + Sync> Sync for Guard<M, T> {}

/// The future of [`Mutex::lock_async`]. Dropped, it leaves the line.
#[must_use = "futures do nothing unless awaited"]
pub struct Lock<'a, T: ?Sized>(Passing<&'a Mutex<T>>);

impl<T> Mutex<T> {
    /// Makes a mutex that nobody holds.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex {
            lane: Lane::new(Hold { is_held: false, home: Home::none() }),
            poison: Poison::none(),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value out.
    ///
    /// # Errors
    ///
    /// The value in an error, if the mutex is poisoned.
    pub fn into_inner(self) -> LockResult<T> {
        let is_poisoned = self.is_poisoned();
        let value = self.value.into_inner();
        tell(is_poisoned, value)
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until nobody holds it, and locks it.
    ///
    /// Shape: parks the greenlet; off a hub it blocks the OS thread.
    ///
    /// # Errors
    ///
    /// The guard in an error, if the mutex is poisoned.
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
    /// std `Mutex::lock`. A main greenlet that locks what it holds is told that it would wait for
    /// ever ([`RunError::WouldBlockForever`](crate::RunError)), unless another thread, or a future,
    /// has touched the mutex too.
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let hub = Hub::current();
        match wait_on(hub, self, hub.map(Hub::number), Limit::Never, "Mutex::lock") {
            Ok(held) => Guard::new(self, held),
            Err(_) => unreachable!("a wait without a limit ends with a grant"),
        }
    }

    /// As [`lock`](Self::lock), but gives up after `limit`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` after `limit`; `Poisoned` as [`lock`](Self::lock).
    #[track_caller]
    pub fn lock_timeout(&self, limit: Duration) -> TryLockResult<MutexGuard<'_, T>> {
        match wait(self, asker(), Limit::After(limit), "Mutex::lock_timeout") {
            Ok(held) => Guard::new(self, held).map_err(TryLockError::Poisoned),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// Locks it if nobody holds it. Never waits.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if somebody holds it; `Poisoned` as [`lock`](Self::lock).
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        match self.lane.attempt(asker()) {
            Ok(held) => Guard::new(self, held).map_err(TryLockError::Poisoned),
            Err(_) => Err(TryLockError::WouldBlock),
        }
    }

    /// Gives a future of the lock. It joins the line when it is first polled.
    pub fn lock_async(&self) -> Lock<'_, T> {
        Lock(Passing::new(self, None))
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
    /// The reference in an error, if the mutex is poisoned.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let is_poisoned = self.is_poisoned();
        let value = self.value.get_mut();
        tell(is_poisoned, value)
    }
}

impl<T: ?Sized + 'static> Mutex<T> {
    /// Gives a Deferred that fires with the lock.
    ///
    /// Shape: it has fired when it is returned if nobody holds the mutex. Else it is fired by a
    /// call of this thread's reactor, so its callbacks may block, and any number of Deferreds take
    /// turns without nesting. The lock is let go when the guard is dropped: by the callback that it
    /// is given to, or by whoever that passes it to.
    ///
    /// # Errors
    ///
    /// It fails outside [`run`](crate::run), if it would have to wait. The value of a poisoned
    /// mutex comes in an error inside, as from [`lock`](Self::lock).
    ///
    /// # Cancellation
    ///
    /// Cancelling it leaves the line.
    ///
    /// # Source
    ///
    /// Twisted `DeferredLock.acquire`, `run`.
    pub fn lock_deferred(self: &Arc<Self>) -> Deferred<LockResult<OwnedMutexGuard<T>>> {
        defer(Arc::clone(self), asker(), Guard::new)
    }
}

impl<M: Deref<Target = Mutex<T>>, T: ?Sized> Guard<M, T> {
    /// INVARIANT: MUTEX-1: a grant is used up for each guard.
    #[inline]
    fn new(mutex: M, held: Held) -> LockResult<Guard<M, T>> {
        let Held = held;
        let is_poisoned = mutex.is_poisoned();
        let guard = Guard { mutex, witness: Witness::new(), lends: PhantomData };
        tell(is_poisoned, guard)
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The mutex that it locks.
    pub(super) fn mutex(&self) -> &'a Mutex<T> {
        self.mutex
    }
}

impl<T: ?Sized> OwnedMutexGuard<T> {
    /// The mutex that it locks.
    pub(super) fn shared_mutex(&self) -> Arc<Mutex<T>> {
        Arc::clone(&self.mutex)
    }
}

impl<M: Deref<Target = Mutex<T>>, T: ?Sized> Drop for Guard<M, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.mark(&self.witness);
        self.mutex.lane.release(Held);
    }
}

impl<M: Deref<Target = Mutex<T>>, T: ?Sized> Deref for Guard<M, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this is the only guard (MUTEX-1), so the only `&mut` is one borrowed from it.
        // Only this module makes guards, of `&Mutex` and `Arc<Mutex>`, which stay the same mutex.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<M: Deref<Target = Mutex<T>>, T: ?Sized> DerefMut for Guard<M, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; it is borrowed mutably, so no reference of it exists.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<'a, T: ?Sized> Future for Lock<'a, T> {
    type Output = LockResult<MutexGuard<'a, T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mutex = self.0.primitive();
        Pin::new(&mut self.0).poll(cx).map(|held| Guard::new(mutex, held))
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Mutex<T> {
        Mutex::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => shown.field("value", &&*guard),
            Err(TryLockError::Poisoned(guard)) => shown.field("value", &&**guard.get_ref()),
            Err(TryLockError::WouldBlock) => shown.field("value", &format_args!("<locked>")),
        };
        shown.field("poisoned", &self.is_poisoned()).finish_non_exhaustive()
    }
}

impl<M: Deref<Target = Mutex<T>>, T: ?Sized + fmt::Debug> fmt::Debug for Guard<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized> fmt::Debug for Lock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lock").field(&self.0).finish()
    }
}
