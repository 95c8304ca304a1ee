//! Reader-writer locks of libc's.
//!
//! Floor 8. Uses: `wait`, `layout`, `next`. Used by: the names that `interpose!()` defines. See
//! `locks` for how.
//!
//! Readers have no names, so who is refused parks whoever holds the lock; no allocator is known to
//! have one. All who wait look when it is let go, for all of them may be readers.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`); a lock is one, hence valid for `layout`.

use libc::{EBUSY, ETIMEDOUT, c_int, clockid_t, pthread_rwlock_t, timespec};

use super::{
    attempt_until,
    layout::{is_rwlock_shared, rwlock_writer},
};
use crate::interpose::{
    next,
    wait::{Limit, Waiter, released},
};

macro_rules! locks {
    ($attempt:ident, $(
        $doc:literal $name:ident ($($p:ident: $t:ty),*) $(until ($clock:expr, $deadline:expr))?;
    )*) => {$(
        #[doc = $doc]
        pub unsafe extern "C-unwind" fn $name(
            lock: *mut pthread_rwlock_t,
            $($p: $t,)*
        ) -> c_int {
            let Some(waiter) = Waiter::here() else {
                // SAFETY: HOOK-1.
                return unsafe { next::$name(lock, $($p),*) };
            };
            // SAFETY: HOOK-1.
            let attempt = || unsafe { next::$attempt(lock) };
            // SAFETY: HOOK-1.
            let real = || unsafe { next::$name(lock, $($p),*) };
            let limit = None;
            $(
                // SAFETY: HOOK-1.
                let limit = limit.or(Some(Limit::at($clock, unsafe { *$deadline })));
            )?
            // SAFETY: HOOK-1.
            unsafe { take(waiter, lock, limit.unwrap_or(Limit::Never), attempt, real) }
        }
    )*};
}

locks! { pthread_rwlock_tryrdlock,
    "pthread_rwlock_rdlock(3)." pthread_rwlock_rdlock ();
    "pthread_rwlock_timedrdlock(3)." pthread_rwlock_timedrdlock (deadline: *const timespec)
        until (libc::CLOCK_REALTIME, deadline);
    "pthread_rwlock_clockrdlock(3)." pthread_rwlock_clockrdlock (
        clock: clockid_t, deadline: *const timespec
    ) until (clock, deadline);
}

locks! { pthread_rwlock_trywrlock,
    "pthread_rwlock_wrlock(3)." pthread_rwlock_wrlock ();
    "pthread_rwlock_timedwrlock(3)." pthread_rwlock_timedwrlock (deadline: *const timespec)
        until (libc::CLOCK_REALTIME, deadline);
    "pthread_rwlock_clockwrlock(3)." pthread_rwlock_clockwrlock (
        clock: clockid_t, deadline: *const timespec
    ) until (clock, deadline);
}

/// pthread_rwlock_tryrdlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_tryrdlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_tryrdlock(lock) }
}

/// pthread_rwlock_trywrlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_trywrlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    unsafe { next::pthread_rwlock_trywrlock(lock) }
}

/// pthread_rwlock_unlock(3).
pub unsafe extern "C-unwind" fn pthread_rwlock_unlock(lock: *mut pthread_rwlock_t) -> c_int {
    // SAFETY: HOOK-1.
    let result = unsafe { next::pthread_rwlock_unlock(lock) };
    released(lock.addr(), usize::MAX); // LOCK-2: a number.
    result
}

/// Takes the lock by `attempt`, for who must not wait in libc. `real` is what libc does.
///
/// # Safety
///
/// `lock` is one.
unsafe fn take(
    waiter: Waiter,
    lock: *mut pthread_rwlock_t,
    limit: Limit,
    attempt: impl Fn() -> c_int,
    real: impl Fn() -> c_int,
) -> c_int {
    let result = attempt();
    if result != EBUSY {
        return result;
    }
    // SAFETY: the caller's promise.
    let is_own = unsafe { rwlock_writer(lock, waiter.tid()) } == Some(waiter.tid());
    if is_own {
        return real(); // Which says that it would wait for itself.
    }
    // SAFETY: the caller's promise.
    let is_shared = unsafe { is_rwlock_shared(lock) };
    let attempt = || Some(attempt()).filter(|result| *result != EBUSY);
    attempt_until(waiter, lock.addr(), limit, is_shared, attempt, || ETIMEDOUT, real)
}
