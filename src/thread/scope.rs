//! Scopes: virtual threads that borrow from whoever waits for them.
//!
//! Floor 8. Uses: `spawn`, `handle`. Used by: users.
//!
//! # Invariants
//!
//! - `TSCOPE-1` `scope` returns or unwinds only when each of its threads has ended, and what it
//!   captured is gone: the last thing that a thread drops is its share of the count.

#![expect(unsafe_code, reason = "threads that borrow")]
//! # Safety
//!
//! What scoped threads borrow outlives the scope's frame, which waits for them (`TSCOPE-1`).

use std::{
    collections::BTreeMap,
    fmt, io,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{
    handle::{Joint, Killer, Thread},
    spawn::{Builder, Last, is_panic},
};
use crate::{
    hub::shield,
    sync::{WaitGroup, Work},
};

/// What a scope knows of its threads.
#[derive(Default)]
struct Data {
    threads: WaitGroup,
    /// Panics that nobody has joined.
    panics: AtomicUsize,
    living: Mutex<Living>,
}

/// The threads that have not ended.
#[derive(Default)]
struct Living {
    next_number: u64,
    /// By number, hence in the order of their births; none while a thread is being spawned.
    killers: BTreeMap<u64, Option<Killer>>,
    /// Whoever is born from now on is killed.
    are_killed: bool,
}

impl Data {
    fn living(&self) -> MutexGuard<'_, Living> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of a thread that is going to be spawned.
    fn share(self: &Arc<Self>) -> Share {
        let mut living = self.living();
        let number = living.next_number;
        living.next_number += 1;
        living.killers.insert(number, None);
        drop(living);
        Share { data: Arc::clone(self), number, _work: self.threads.add() }
    }

    /// A thread has been spawned; it may have ended already.
    fn spawned(&self, number: u64, killer: &Killer) {
        let mut living = self.living();
        let are_killed = living.are_killed;
        if let Some(place) = living.killers.get_mut(&number) {
            *place = Some(killer.clone());
            if are_killed {
                killer.kill();
            }
        }
    }

    fn kill(&self) {
        let mut living = self.living();
        living.are_killed = true;
        living.killers.values().flatten().for_each(Killer::kill);
    }
}

/// A scope in which threads are spawned; see [`scope`].
///
/// # Source
///
/// [`std::thread::Scope`].
pub struct Scope<'scope, 'env: 'scope> {
    data: Arc<Data>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// A thread's share of its scope: dropped when all else of it is gone.
struct Share {
    data: Arc<Data>,
    number: u64,
    _work: Work,
}

impl Drop for Share {
    fn drop(&mut self) {
        self.data.living().killers.remove(&self.number);
    }
}

impl Last for Share {
    const BORROWS: bool = true;

    fn panicked(&self) {
        self.data.panics.fetch_add(1, Ordering::AcqRel);
    }
}

/// Spawns virtual threads that may borrow, and waits for all of them.
///
/// Shape: as [`std::thread::scope`].
///
/// # Panics
///
/// When a thread that nobody joined has panicked; and with whatever `f` panics with.
///
/// # Cancellation
///
/// A kill that unwinds out of `f` kills the threads, too, and those that they spawn from then on.
/// The wait for them is not interrupted.
///
/// # Examples
///
/// ```
/// let numbers = vec![1, 2, 3];
/// let sum: i32 = greenloop::run(|| {
///     greenloop::thread::scope(|s| {
///         let half = s.spawn(|| numbers[0] + numbers[1]);
///         half.join().unwrap() + numbers[2]
///     })
/// });
/// assert_eq!(sum, 6);
/// ```
///
/// # Source
///
/// [`std::thread::scope`].
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let data = Arc::new(Data::default());
    let scope = Scope { data: Arc::clone(&data), scope: PhantomData, env: PhantomData };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    if result.as_ref().is_err_and(|payload| crate::is_kill(&**payload)) {
        data.kill();
    }
    let abort = AbortOnUnwind;
    shield(|| data.threads.wait()); // INVARIANT: TSCOPE-1
    std::mem::forget(abort);
    match result {
        Err(payload) => resume_unwind(payload),
        Ok(_) if data.panics.load(Ordering::Acquire) > 0 => {
            panic!("a scoped thread panicked")
        }
        Ok(value) => value,
    }
}

/// Ends the process if the wait for threads that borrow cannot be done.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        eprintln!("greenloop: a scope cannot wait for its threads, which borrow from it; aborting");
        std::process::abort();
    }
}

/// Runs `f` on a virtual thread and waits for it: for a call that blocks, in a greenlet.
///
/// Shape: `f` may borrow.
///
/// # Panics
///
/// With what `f` panics with; outside [`run`](crate::run).
///
/// # Cancellation
///
/// A kill, or the end of a [`timeout`](crate::timeout), kills the thread, and unwinds when that has
/// ended.
///
/// # Examples
///
/// ```
/// let text = String::from("4 2");
/// let sum = greenloop::run(|| {
///     greenloop::thread::run(|| text.split(' ').map(|n| n.parse::<u32>().unwrap()).sum::<u32>())
/// });
/// assert_eq!(sum, 6);
/// ```
#[track_caller]
pub fn run<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    let result = scope(|s| Builder::new().spawn_scoped(s, f).map(ScopedJoinHandle::join));
    match result {
        Ok(Ok(value)) => value,
        Ok(Err(payload)) => resume_unwind(payload),
        Err(error) => panic!("greenloop::thread::run: {error}"),
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Spawns a thread that may borrow what outlives the scope.
    ///
    /// # Panics
    ///
    /// As [`spawn`](super::spawn()).
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let spawned = Builder::new().spawn_scoped(self, f);
        spawned.unwrap_or_else(|error| panic!("greenloop::thread::Scope::spawn: {error}"))
    }
}

impl Builder {
    /// Spawns a thread in a scope, as [`Scope::spawn`].
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let share = scope.data.share();
        let number = share.number;
        // SAFETY: what `f` and `T` borrow outlives 'scope, hence the scope's frame, which waits
        // until the share has been dropped (TSCOPE-1).
        let joint = unsafe { self.spawn_unchecked(f, share) }?;
        scope.data.spawned(number, &joint.killer);
        let data = Arc::clone(&scope.data);
        Ok(ScopedJoinHandle { joint, data, scope: PhantomData })
    }
}

/// A scoped thread: to wait for its end before the scope does.
///
/// # Source
///
/// [`std::thread::ScopedJoinHandle`].
pub struct ScopedJoinHandle<'scope, T> {
    joint: Joint<T>,
    data: Arc<Data>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits for its end; see [`JoinHandle::join`](super::JoinHandle::join).
    ///
    /// # Errors
    ///
    /// What it panicked with, which the scope then does not panic with.
    ///
    /// # Cancellation
    ///
    /// As [`JoinHandle::join`](super::JoinHandle::join).
    pub fn join(self) -> std::thread::Result<T> {
        let result = self.joint.join();
        if result.as_ref().is_err_and(|payload| is_panic(&**payload)) {
            self.data.panics.fetch_sub(1, Ordering::AcqRel);
        }
        result
    }

    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.joint.thread
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.joint.outcome.is_set()
    }

    /// Asks it to end; see [`JoinHandle::kill`](super::JoinHandle::kill).
    pub fn kill(&self) {
        self.joint.killer.kill();
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("running", &self.data.threads.left()).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("thread", self.thread()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::scope;
    use crate::run;

    /// A server's scope is as long as its life, and has a thread for each connection.
    #[test]
    fn a_scope_forgets_its_threads_when_they_end() {
        run(|| {
            scope(|s| {
                for _ in 0..100 {
                    s.spawn(|| ()).join().unwrap();
                }
                assert!(s.data.living().killers.len() <= 1);
            });
        });
    }
}
