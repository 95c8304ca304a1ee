//! Locks of <threads.h>.
//!
//! Floor 8. Uses: `mutex`, `condition`, `once`, `next`. Used by: the names that `interpose!()`
//! defines.
//!
//! In glibc they are the locks of <pthread.h> under other names, with results of their own; but it
//! calls those by names that nobody can define. So who must not wait in libc is served here as
//! there, and whoever lets go of one, or tells, does so by both.
//!
//! # Source
//!
//! ISO C11, 7.26; glibc 2.36 `sysdeps/pthread/mtx_lock.c` and its neighbours, `thrd_priv.h`.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`).

use libc::{EBUSY, ENOMEM, ETIMEDOUT, c_int, pthread_cond_t, pthread_mutex_t, timespec};

use super::{
    condition::{pthread_cond_timedwait, pthread_cond_wait},
    mutex::{pthread_mutex_lock, pthread_mutex_timedlock, pthread_mutex_trylock},
    once,
};
use crate::interpose::{
    __c::Routine,
    early::THRD_ERROR,
    next,
    wait::{ANY, Waiter, released, signalled, wake},
};

/// `thrd_busy`, `thrd_nomem`, `thrd_timedout`.
const THRD_BUSY: c_int = 1;
const THRD_NOMEM: c_int = 3;
const THRD_TIMEDOUT: c_int = 4;

/// What <threads.h> says for an error of <pthread.h>.
fn thrd_of(error: c_int) -> c_int {
    match error {
        0 => 0,
        EBUSY => THRD_BUSY,
        ENOMEM => THRD_NOMEM,
        ETIMEDOUT => THRD_TIMEDOUT,
        _ => THRD_ERROR,
    }
}

/// mtx_lock(3).
pub unsafe extern "C-unwind" fn mtx_lock(mutex: *mut pthread_mutex_t) -> c_int {
    if Waiter::here().is_none() {
        // SAFETY: HOOK-1.
        return unsafe { next::mtx_lock(mutex) };
    }
    // SAFETY: HOOK-1; it is one.
    thrd_of(unsafe { pthread_mutex_lock(mutex) })
}

/// mtx_trylock(3).
pub unsafe extern "C-unwind" fn mtx_trylock(mutex: *mut pthread_mutex_t) -> c_int {
    if Waiter::here().is_none() {
        // SAFETY: HOOK-1.
        return unsafe { next::mtx_trylock(mutex) };
    }
    // SAFETY: HOOK-1; it is one.
    thrd_of(unsafe { pthread_mutex_trylock(mutex) })
}

/// mtx_timedlock(3).
pub unsafe extern "C-unwind" fn mtx_timedlock(
    mutex: *mut pthread_mutex_t,
    deadline: *const timespec,
) -> c_int {
    if Waiter::here().is_none() {
        // SAFETY: HOOK-1.
        return unsafe { next::mtx_timedlock(mutex, deadline) };
    }
    // SAFETY: HOOK-1; it is one.
    thrd_of(unsafe { pthread_mutex_timedlock(mutex, deadline) })
}

/// mtx_unlock(3).
pub unsafe extern "C-unwind" fn mtx_unlock(mutex: *mut pthread_mutex_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::mtx_unlock(mutex) };
    released(mutex.addr(), 1); // LOCK-2: a number.
    result
}

/// cnd_wait(3).
pub unsafe extern "C-unwind" fn cnd_wait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
) -> c_int {
    if Waiter::here().is_none() {
        // SAFETY: HOOK-1.
        return unsafe { next::cnd_wait(condition, mutex) };
    }
    // SAFETY: HOOK-1; they are one of each.
    thrd_of(unsafe { pthread_cond_wait(condition, mutex) })
}

/// cnd_timedwait(3).
pub unsafe extern "C-unwind" fn cnd_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    deadline: *const timespec,
) -> c_int {
    if Waiter::here().is_none() {
        // SAFETY: HOOK-1.
        return unsafe { next::cnd_timedwait(condition, mutex, deadline) };
    }
    // SAFETY: HOOK-1; they are one of each.
    thrd_of(unsafe { pthread_cond_timedwait(condition, mutex, deadline) })
}

/// cnd_signal(3).
pub unsafe extern "C-unwind" fn cnd_signal(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::cnd_signal(condition) };
    signalled(condition.addr(), 1); // As pthread_cond_signal(3).
    result
}

/// cnd_broadcast(3).
pub unsafe extern "C-unwind" fn cnd_broadcast(condition: *mut pthread_cond_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::cnd_broadcast(condition) };
    signalled(condition.addr(), usize::MAX);
    result
}

/// call_once(3).
pub unsafe extern "C-unwind" fn call_once(once: *mut c_int, routine: Routine) {
    // SAFETY: HOOK-1; it is as one of pthread_once's.
    if unsafe { once::wait_while_it_runs(once) } {
        return;
    }
    // SAFETY: HOOK-1.
    unsafe { next::call_once(once, routine) };
    wake(once.addr(), ANY, usize::MAX);
}
