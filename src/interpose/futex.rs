//! syscall(2), by which std, parking_lot and others wait for locks: `SYS_futex`.
//!
//! Floor 8. Uses: `wait`, `next`. Used by: the names that `interpose!()` defines.
//!
//! A virtual thread that waits parks in our own line; everybody else sleeps in the kernel. So a
//! wake looks into both: first ours, since only then the kernel may be spared, then the kernel's
//! for as many as are left. That it may not starve those who sleep there, a wake that ours have
//! used up goes to the kernel, too, once in [`SHARE`] times: one more is woken than was asked for,
//! which futex(2) allows.
//!
//! # What is different in a virtual thread
//!
//! - A word that is not `PRIVATE` may be woken by another process, which passes no hook. It is
//!   looked at again every 10 ms; a wait without a limit then ends, as if it had been woken.
//! - `REQUEUE`, `CMP_REQUEUE` and `WAKE_OP` wake all of ours at the first word, or at both: none is
//!   moved. They find their word changed, or wait again.
//! - What has to do with priorities (`LOCK_PI` and its like) is refused with `ENOTSUP`: the kernel
//!   would take the virtual thread for its OS thread.
//!
//! # Source
//!
//! futex(2), futex_waitv(2); Linux `kernel/futex/syscalls.c`.

#![expect(unsafe_code, reason = "C's signatures")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`). A word that is waited for is valid for reads
//! until the wait has ended: so says the contract of futex(2).

use std::{
    ptr,
    sync::atomic::{AtomicU32, Ordering},
};

use libc::{
    EAGAIN, ENOTSUP, ETIMEDOUT, FUTEX_CLOCK_REALTIME, FUTEX_CMD_MASK, FUTEX_CMP_REQUEUE,
    FUTEX_PRIVATE_FLAG, FUTEX_REQUEUE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAKE,
    FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, SYS_futex, SYS_futex_waitv, c_int, c_long, timespec,
};

use super::{
    early::{errno, set_errno},
    next,
    wait::{ANY, At, Limit, Waited, Waiter, wake},
};

/// `FUTEX_LOCK_PI`, `UNLOCK_PI`, `TRYLOCK_PI`, `WAIT_REQUEUE_PI`, `CMP_REQUEUE_PI`, `LOCK_PI2`.
const WITH_PRIORITIES: [c_int; 6] = [6, 7, 8, 11, 12, 13];

/// Of so many wakes that went to virtual threads, one is the kernel's, too.
const SHARE: u32 = 16;

/// How many words futex_waitv(2) takes.
const WORDS_MAX: usize = 128;

/// syscall(2).
pub unsafe extern "C-unwind" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let arguments = [a, b, c, d, e, f];
    let done = if number == SYS_futex {
        // SAFETY: the caller's arguments (HOOK-1).
        unsafe { futex(arguments) }
    } else if number == SYS_futex_waitv {
        // SAFETY: as above.
        unsafe { futex_waitv(arguments) }
    } else {
        None
    };
    match done {
        Some(Ok(result)) => result,
        Some(Err(errno)) => {
            set_errno(errno);
            -1
        }
        // SAFETY: the caller's arguments (HOOK-1).
        None => unsafe { next::syscall(number, a, b, c, d, e, f) },
    }
}

/// futex(2): its result, or errno. `None` to pass it on.
///
/// # Safety
///
/// The contract of futex(2).
#[inline]
unsafe fn futex(arguments: [c_long; 6]) -> Option<Result<c_long, c_int>> {
    let operation = arguments[1] as c_int;
    match operation & FUTEX_CMD_MASK {
        // SAFETY: the caller's promise.
        FUTEX_WAKE => unsafe { wake_in_both(arguments, ANY) },
        // SAFETY: as above.
        FUTEX_WAKE_BITSET => unsafe { wake_in_both(arguments, arguments[5] as u32) },
        // SAFETY: as above.
        FUTEX_WAIT | FUTEX_WAIT_BITSET => unsafe { wait_here(arguments) },
        // SAFETY: as above.
        FUTEX_REQUEUE | FUTEX_CMP_REQUEUE | FUTEX_WAKE_OP => unsafe { wake_all_in_both(arguments) },
        with if WITH_PRIORITIES.contains(&with) && is_guest() => Some(Err(ENOTSUP)),
        _ => None,
    }
}

fn is_guest() -> bool {
    Waiter::here().is_some_and(Waiter::is_guest)
}

/// A wait for one word.
///
/// # Safety
///
/// The contract of futex(2).
unsafe fn wait_here(
    [word, operation, value, time, _, bits]: [c_long; 6],
) -> Option<Result<c_long, c_int>> {
    let waiter = Waiter::here()?;
    let operation = operation as c_int;
    let is_absolute = operation & FUTEX_CMD_MASK == FUTEX_WAIT_BITSET;
    let bits = if is_absolute { bits as u32 } else { ANY };
    let is_realtime = operation & FUTEX_CLOCK_REALTIME != 0;
    let clock = if is_realtime { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC };
    let time = ptr::with_exposed_provenance::<timespec>(time as usize);
    // SAFETY: null or valid: the contract of futex(2).
    let limit = match unsafe { time.as_ref() } {
        None => Limit::Never,
        Some(time) if is_absolute => Limit::at(clock, *time),
        Some(time) => Limit::within(*time),
    };
    let is_shared = operation & FUTEX_PRIVATE_FLAG == 0;
    if bits == 0 || !is_word(word as usize) || matches!(limit, Limit::Invalid) {
        return None; // The kernel says what is wrong.
    }
    // A word may be what it was, though somebody was to be woken: so the caller is to look, unless
    // it counts its time, which must go on.
    let is_looking = is_shared && matches!(limit, Limit::Never);
    let limit = if is_looking { limit.or_next_look() } else { limit };
    let at = At { address: word as usize, bits, limit, is_shared };
    // SAFETY: the contract of futex(2).
    match waiter.wait(at, &mut || unsafe { load(at.address) } != value as u32) {
        Waited::AtOnce => Some(Err(EAGAIN)),
        Waited::Over | Waited::Woken => Some(Ok(0)),
        Waited::TimedOut if is_looking => Some(Ok(0)),
        Waited::TimedOut => Some(Err(ETIMEDOUT)),
        // SAFETY: as above.
        Waited::Cannot => Some(unsafe { sleep(at, operation, value) }),
    }
}

/// Sleeps in the kernel, on a thread that has virtual threads, where they cannot be run.
///
/// One of those may wait for the same word, have been woken, and not be able to act on it before
/// this thread goes on: the kernel knows nothing of that wake. So the word is looked at again.
///
/// # Safety
///
/// The contract of futex(2).
unsafe fn sleep(at: At, operation: c_int, value: c_long) -> Result<c_long, c_int> {
    loop {
        let (clock, time) = at.limit.next_look();
        let is_realtime = clock == libc::CLOCK_REALTIME;
        let operation = FUTEX_WAIT_BITSET
            | operation & FUTEX_PRIVATE_FLAG
            | if is_realtime { FUTEX_CLOCK_REALTIME } else { 0 };
        let word = at.address as c_long;
        let until = (&raw const time).expose_provenance() as c_long;
        let bits = c_long::from(at.bits);
        // SAFETY: the caller's promise; the time is a local.
        let result = unsafe {
            next::syscall(SYS_futex, word, c_long::from(operation), value, until, 0, bits)
        };
        if result >= 0 {
            return Ok(result);
        }
        let errno = errno();
        if errno != ETIMEDOUT {
            return Err(errno);
        }
        // SAFETY: the caller's promise.
        if unsafe { load(at.address) } != value as u32 {
            return Ok(0);
        }
        if at.limit.has_passed() {
            return Err(ETIMEDOUT);
        }
    }
}

/// Whether there may be a word at this address.
fn is_word(address: usize) -> bool {
    address != 0 && address.is_multiple_of(align_of::<AtomicU32>())
}

/// The word that is waited for.
///
/// # Safety
///
/// It is valid for reads.
unsafe fn load(address: usize) -> u32 {
    let word = ptr::with_exposed_provenance_mut::<u32>(address);
    // SAFETY: aligned (`is_word`), and valid for as long as this takes: the caller's promise.
    unsafe { AtomicU32::from_ptr(word) }.load(Ordering::Relaxed)
}

/// Wakes some who wait for one word.
///
/// # Safety
///
/// The contract of futex(2).
#[inline]
unsafe fn wake_in_both(arguments: [c_long; 6], bits: u32) -> Option<Result<c_long, c_int>> {
    let [word, operation, count, d, e, f] = arguments;
    // The kernel wakes one before it looks at the number.
    let wanted = usize::try_from(count as c_int).unwrap_or(0).max(1);
    let woken = wake(word as usize, bits, wanted);
    if woken == 0 {
        return None;
    }
    let left = if woken < wanted {
        (wanted - woken) as c_long
    } else if is_the_kernels_turn() {
        1
    } else {
        return Some(Ok(woken as c_long));
    };
    // SAFETY: the caller's arguments but for the number.
    let others = unsafe { next::syscall(SYS_futex, word, operation, left, d, e, f) };
    Some(Ok(woken as c_long + others.max(0)))
}

/// Whether a wake that virtual threads have used up is to go to the kernel, too.
fn is_the_kernels_turn() -> bool {
    static WAKES: AtomicU32 = AtomicU32::new(0);
    WAKES.fetch_add(1, Ordering::Relaxed) % SHARE == SHARE - 1
}

/// Has the kernel do what moves waiters or changes a word, and wakes all of ours.
///
/// # Safety
///
/// The contract of futex(2).
unsafe fn wake_all_in_both(arguments: [c_long; 6]) -> Option<Result<c_long, c_int>> {
    let [word, operation, c, d, other, f] = arguments;
    // SAFETY: the caller's arguments (HOOK-1).
    let result = unsafe { next::syscall(SYS_futex, word, operation, c, d, other, f) };
    if result < 0 {
        return Some(Ok(result)); // errno is set.
    }
    let mut woken = wake(word as usize, ANY, usize::MAX);
    if operation as c_int & FUTEX_CMD_MASK == FUTEX_WAKE_OP {
        woken += wake(other as usize, ANY, usize::MAX);
    }
    Some(Ok(result + woken as c_long))
}

/// An element of what futex_waitv(2) takes.
#[repr(C)]
#[derive(Clone, Copy)]
struct Word {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// `FUTEX2_SIZE_U32`, the only size that there is.
const SIZE_U32: u32 = 2;
const SIZE_MASK: u32 = 3;

/// futex_waitv(2): waits until one of several words is woken. Gives its index.
///
/// # Safety
///
/// The contract of futex_waitv(2).
unsafe fn futex_waitv(
    [words, count, flags, time, clock, _]: [c_long; 6],
) -> Option<Result<c_long, c_int>> {
    let waiter = Waiter::here()?;
    let (words, count) = (ptr::with_exposed_provenance::<Word>(words as usize), count as u32);
    if words.is_null() || !(1..=WORDS_MAX).contains(&(count as usize)) || flags != 0 {
        return None; // The kernel says what is wrong.
    }
    // SAFETY: that many are there: the contract of futex_waitv(2).
    let words = unsafe { std::slice::from_raw_parts(words, count as usize) };
    let time = ptr::with_exposed_provenance::<timespec>(time as usize);
    // SAFETY: null or valid: as above.
    let limit = match unsafe { time.as_ref() } {
        None => Limit::Never,
        Some(time) => Limit::at(clock as libc::clockid_t, *time),
    };
    let is_right = |word: &Word| {
        is_word(word.address as usize) && word.flags & SIZE_MASK == SIZE_U32 && word.reserved == 0
    };
    if !words.iter().all(is_right) || matches!(limit, Limit::Invalid) {
        return None;
    }
    let is_shared = words.iter().any(|word| word.flags & FUTEX_PRIVATE_FLAG as u32 == 0);
    let addresses: [usize; WORDS_MAX] =
        std::array::from_fn(|i| words.get(i).map_or(0, |word| word.address as usize));
    let has_changed = &mut || {
        // SAFETY: the words are valid: the contract of futex_waitv(2).
        words.iter().any(|word| unsafe { load(word.address as usize) } != word.value as u32)
    };
    let at = At { address: 0, bits: ANY, limit, is_shared };
    match waiter.wait_for_any(&addresses[..words.len()], at, has_changed) {
        (Waited::AtOnce, _) => Some(Err(EAGAIN)),
        (Waited::Over | Waited::Woken, index) => Some(Ok(index as c_long)),
        (Waited::TimedOut, _) => Some(Err(ETIMEDOUT)),
        (Waited::Cannot, _) => None,
    }
}
