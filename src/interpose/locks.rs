//! Locks of pthreads and POSIX semaphores.
//!
//! Floor 8. Uses: `next`. Used by: the names that `interpose!()` defines.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use super::{
    __c::{
        Routine, c_int, clockid_t, pthread_barrier_t, pthread_cond_t, pthread_mutex_t,
        pthread_rwlock_t, sem_t, timespec,
    },
    next,
};

/// pthread_mutex_lock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_lock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_mutex_lock(mutex) }
}

/// pthread_mutex_trylock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_trylock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_mutex_trylock(mutex) }
}

/// pthread_mutex_timedlock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_timedlock(
    mutex: *mut pthread_mutex_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_mutex_timedlock(mutex, deadline) }
}

/// pthread_mutex_clocklock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_clocklock(
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_mutex_clocklock(mutex, clock, deadline) }
}

/// pthread_mutex_unlock(3).
pub unsafe extern "C-unwind" fn pthread_mutex_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_mutex_unlock(mutex) }
}

/// pthread_cond_wait(3).
pub unsafe extern "C-unwind" fn pthread_cond_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_cond_wait(condition, mutex) }
}

/// pthread_cond_timedwait(3).
pub unsafe extern "C-unwind" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_cond_timedwait(condition, mutex, deadline) }
}

/// pthread_cond_clockwait(3).
pub unsafe extern "C-unwind" fn pthread_cond_clockwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_cond_clockwait(condition, mutex, clock, deadline) }
}

/// pthread_cond_signal(3).
pub unsafe extern "C-unwind" fn pthread_cond_signal(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_cond_signal(condition) }
}

/// pthread_cond_broadcast(3).
pub unsafe extern "C-unwind" fn pthread_cond_broadcast(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_cond_broadcast(condition) }
}

/// pthread_rwlock_rdlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_rdlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_rdlock(lock) }
}

/// pthread_rwlock_tryrdlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_tryrdlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_tryrdlock(lock) }
}

/// pthread_rwlock_timedrdlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_timedrdlock(
    lock: *mut pthread_rwlock_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_timedrdlock(lock, deadline) }
}

/// pthread_rwlock_clockrdlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_clockrdlock(
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_clockrdlock(lock, clock, deadline) }
}

/// pthread_rwlock_wrlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_wrlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_wrlock(lock) }
}

/// pthread_rwlock_trywrlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_trywrlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_trywrlock(lock) }
}

/// pthread_rwlock_timedwrlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_timedwrlock(
    lock: *mut pthread_rwlock_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_timedwrlock(lock, deadline) }
}

/// pthread_rwlock_clockwrlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_clockwrlock(
    lock: *mut pthread_rwlock_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_clockwrlock(lock, clock, deadline) }
}

/// pthread_rwlock_unlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_unlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_unlock(lock) }
}

/// sem_wait(3).
pub unsafe extern "C-unwind" fn sem_wait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sem_wait(semaphore) }
}

/// sem_trywait(3).
pub unsafe extern "C-unwind" fn sem_trywait(semaphore: *mut sem_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sem_trywait(semaphore) }
}

/// sem_timedwait(3).
pub unsafe extern "C-unwind" fn sem_timedwait(
    semaphore: *mut sem_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sem_timedwait(semaphore, deadline) }
}

/// sem_clockwait(3).
pub unsafe extern "C-unwind" fn sem_clockwait(
    semaphore: *mut sem_t,
    clock: clockid_t,
    deadline: *const timespec,
) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sem_clockwait(semaphore, clock, deadline) }
}

/// sem_post(3).
pub unsafe extern "C-unwind" fn sem_post(semaphore: *mut sem_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::sem_post(semaphore) }
}

/// pthread_once(3).
pub unsafe extern "C-unwind" fn pthread_once(once: *mut c_int, routine: Routine) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_once(once, routine) }
}

/// pthread_barrier_wait(3).
pub unsafe extern "C-unwind" fn pthread_barrier_wait(barrier: *mut pthread_barrier_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_barrier_wait(barrier) }
}
