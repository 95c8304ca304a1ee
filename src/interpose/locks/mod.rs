//! Locks of libc's, between virtual threads, the hubs of their threads, and other threads.
//!
//! Floor 8. Uses: `wait`, `next`. Used by: the names that `interpose!()` defines.
//!
//! # How
//!
//! libc's own wait would stop the hub with all its virtual threads, one of which may have to let go
//! of the lock. So a virtual thread only ever tries, in its own name, since libc takes its thread
//! number from its control block; when it is refused it parks until somebody lets go. Whoever lets
//! go calls libc first, and then wakes those who wait here: on every thread, one relaxed load when
//! nobody does. Any other thread waits in libc, whose wakes reach it as ever.
//!
//! | what | who holds it | a virtual thread that is refused |
//! |---|---|---|
//! | mutex | a virtual thread, or its own OS thread | parks until it is unlocked |
//! | mutex | any other thread | waits in libc (`LOCK-1`) |
//! | mutex with priorities, robust | – | `ENOTSUP`, also to try: the kernel keeps these by OS thread |
//! | rwlock, semaphore, once | anybody | parks |
//! | condition, barrier | – | parks; nothing is tried |
//!
//! A hub that waits runs its virtual threads meanwhile (`wait`).
//!
//! # Invariants
//!
//! - `LOCK-1` Nobody parks inside an allocator. The hub itself allocates, in the midst of its work,
//!   where nothing can park: it must never find a lock that a parked virtual thread holds. An
//!   allocator's mutex is held for moments and by running code, so its holder is no virtual thread
//!   unless one was parked inside; and a virtual thread parks for a mutex only if another one
//!   holds it, or its own OS thread, which then was left at a wait of its own. So the first one
//!   never is.
//! - `LOCK-2` After libc has let go of a lock its memory may be anybody's: its address is a number.
//! - `LOCK-3` What is read of a lock's inside is where `layout` has seen it, by facts.
//!
//! # Cancellation
//!
//! Cancellation point: never. A kill waits until the lock is got; calls with a time end by it.
//!
//! # Source
//!
//! pthread_mutex_lock(3) and its neighbours; glibc `nptl/pthread_mutex_lock.c`,
//! `pthread_cond_wait.c`, `pthread_rwlock_common.c`, `sem_waitcommon.c`, `pthread_barrier_wait.c`.

mod barrier;
mod c11;
mod condition;
mod layout;
mod mutex;
mod once;
mod rwlock;
mod semaphore;

pub use barrier::{pthread_barrier_destroy, pthread_barrier_wait};
pub use c11::{
    call_once, cnd_broadcast, cnd_signal, cnd_timedwait, cnd_wait, mtx_lock, mtx_timedlock,
    mtx_trylock, mtx_unlock,
};
pub use condition::{
    pthread_cond_broadcast, pthread_cond_clockwait, pthread_cond_signal, pthread_cond_timedwait,
    pthread_cond_wait,
};
pub use mutex::{
    pthread_mutex_clocklock, pthread_mutex_lock, pthread_mutex_timedlock, pthread_mutex_trylock,
    pthread_mutex_unlock,
};
pub use once::pthread_once;
pub use rwlock::{
    pthread_rwlock_clockrdlock, pthread_rwlock_clockwrlock, pthread_rwlock_rdlock,
    pthread_rwlock_timedrdlock, pthread_rwlock_timedwrlock, pthread_rwlock_tryrdlock,
    pthread_rwlock_trywrlock, pthread_rwlock_unlock, pthread_rwlock_wrlock,
};
pub use semaphore::{sem_clockwait, sem_post, sem_timedwait, sem_trywait, sem_wait};

use super::wait::{ANY, At, Limit, Waited, Waiter};

/// Tries until it is not refused, waiting at `address` in between.
///
/// `attempt` gives `None` when it is refused. What it gives else is given back; or what `late` or
/// `stuck` gives, when the time has passed, or nothing can be waited for here.
fn attempt_until<R>(
    waiter: Waiter,
    address: usize,
    limit: Limit,
    is_shared: bool,
    mut attempt: impl FnMut() -> Option<R>,
    late: impl FnOnce() -> R,
    stuck: impl FnOnce() -> R,
) -> R {
    if let Some(done) = attempt() {
        return done;
    }
    if matches!(limit, Limit::Invalid) {
        return stuck(); // libc says what is wrong.
    }
    loop {
        let mut done = None;
        let at = At { address, bits: ANY, limit, is_shared };
        let waited = waiter.wait(at, &mut || {
            done = attempt();
            done.is_some()
        });
        match (done, waited) {
            (Some(done), _) => return done,
            (None, Waited::TimedOut) => return late(),
            (None, Waited::Cannot) => return stuck(),
            // It is somebody's turn, be it ours.
            (None, Waited::Woken | Waited::AtOnce | Waited::Over) => {}
        }
    }
}
