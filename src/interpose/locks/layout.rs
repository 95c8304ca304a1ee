//! What has to be read inside of libc's locks, and where it is.
//!
//! Floor 8. Uses: `next`. Used by: the locks.
//!
//! Who holds a mutex and of what kind it is no function of libc's tells. So a lock of each sort is
//! made in ways that differ in one thing, and the word that shows it is the one to be read. A libc
//! where no word does, or several do, is one whose locks are left alone: `None`.
//!
//! # Source
//!
//! glibc `sysdeps/nptl/bits/thread-shared-types.h`, `struct_mutex.h`, `struct_rwlock.h`;
//! `nptl/pthreadP.h` for the bits.

#![expect(unsafe_code, reason = "looks into libc's locks")]
//! # Safety
//!
//! The locks that are made here are locals, used by nobody else, and of libc's own types. Those of
//! users are read as words, by relaxed atomic loads, since others may be writing.

use std::{
    mem::MaybeUninit,
    ptr,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
};

use super::super::next;

/// A word of a lock: its index, in 32-bit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(usize);

impl Word {
    /// What it is just now.
    ///
    /// # Safety
    ///
    /// `lock` is a lock of the sort that the word is of.
    pub(super) unsafe fn read<T>(self, lock: *const T) -> u32 {
        // SAFETY: a word inside of it (`only` looked for it there).
        let word = unsafe { lock.cast::<u32>().add(self.0) };
        // SAFETY: valid for reads while the lock is, aligned as all of libc's locks are.
        unsafe { AtomicU32::from_ptr(word.cast_mut()) }.load(Ordering::Relaxed)
    }
}

/// A fact that is found out once: 0 is unknown, 1 that there is none, else the index and 2.
pub(super) struct Fact(AtomicU8);

impl Fact {
    pub(super) const fn new() -> Fact {
        Fact(AtomicU8::new(0))
    }

    /// What `look` finds. Two that look at once find the same.
    pub(super) fn get(&self, look: impl FnOnce() -> Option<Word>) -> Option<Word> {
        if self.0.load(Ordering::Relaxed) == 0 {
            let found = look().and_then(|word| u8::try_from(word.0 + 2).ok());
            self.0.store(found.unwrap_or(1), Ordering::Relaxed);
        }
        usize::from(self.0.load(Ordering::Relaxed)).checked_sub(2).map(Word)
    }
}

/// The only word of `lock` that is `value`.
fn only<T>(lock: &MaybeUninit<T>, value: u32) -> Option<Word> {
    let words = size_of::<T>() / size_of::<u32>();
    let read = |index| {
        // SAFETY: inside of the lock, which was zeroed when it was made.
        unsafe { Word(index).read(lock.as_ptr()) }
    };
    let mut found = (0..words).filter(|index| read(*index) == value);
    let first = found.next().map(Word)?;
    found.next().is_none().then_some(first)
}

/// Makes something of libc's by a function that gives 0 when it succeeds.
fn made<T>(make: impl FnOnce(*mut T) -> libc::c_int) -> Option<MaybeUninit<T>> {
    let mut made = MaybeUninit::zeroed();
    (make(made.as_mut_ptr()) == 0).then_some(made)
}

/// A mutex with these attributes.
fn mutex(
    set: impl FnOnce(*mut libc::pthread_mutexattr_t) -> libc::c_int,
) -> Option<MaybeUninit<libc::pthread_mutex_t>> {
    // SAFETY: a fresh one.
    let mut attributes = made(|it| unsafe { libc::pthread_mutexattr_init(it) })?;
    if set(attributes.as_mut_ptr()) != 0 {
        return None;
    }
    // SAFETY: both are fresh, and the attributes were made.
    made(|it| unsafe { libc::pthread_mutex_init(it, attributes.as_ptr()) })
}

/// Kinds of mutexes: the lower bits are those of `PTHREAD_MUTEX_ERRORCHECK` and its like.
pub(super) const KIND_MASK: u32 = 3;
/// The kernel is told of it, so that it can say that its owner has died.
pub(super) const ROBUST: u32 = 0x10;
/// Its owner inherits priorities.
pub(super) const INHERITS: u32 = 0x20;
/// Its owner has its priority.
pub(super) const PROTECTS: u32 = 0x40;
/// It is for several processes.
pub(super) const SHARED: u32 = 0x80;

/// The kind of a mutex, with its bits.
///
/// # Safety
///
/// `mutex` is one.
pub(super) unsafe fn mutex_kind(mutex: *const libc::pthread_mutex_t) -> Option<u32> {
    static KIND: Fact = Fact::new();
    let word = KIND.get(|| {
        let checking = mutex_of_kind(libc::PTHREAD_MUTEX_ERRORCHECK)?;
        let word = only(&checking, libc::PTHREAD_MUTEX_ERRORCHECK as u32)?;
        // SAFETY: a fresh set of attributes.
        let shared = self::mutex(|it| unsafe {
            libc::pthread_mutexattr_setpshared(it, libc::PTHREAD_PROCESS_SHARED)
        })?;
        // SAFETY: a mutex that was just made.
        (unsafe { word.read(shared.as_ptr()) } == SHARED).then_some(word)
    })?;
    // SAFETY: the caller's promise.
    Some(unsafe { word.read(mutex) })
}

fn mutex_of_kind(kind: libc::c_int) -> Option<MaybeUninit<libc::pthread_mutex_t>> {
    // SAFETY: a fresh set of attributes.
    mutex(|it| unsafe { libc::pthread_mutexattr_settype(it, kind) })
}

/// The number of the thread that holds a mutex; 0 when nobody does, or has not said so yet. `tid`
/// is the caller's.
///
/// # Safety
///
/// `mutex` is one.
pub(super) unsafe fn mutex_owner(mutex: *const libc::pthread_mutex_t, tid: i32) -> Option<i32> {
    static OWNER: Fact = Fact::new();
    let word = OWNER.get(|| {
        let mut held = mutex_of_kind(libc::PTHREAD_MUTEX_ERRORCHECK)?;
        // SAFETY: made just now, and ours alone.
        let is_held = unsafe { next::pthread_mutex_trylock(held.as_mut_ptr()) } == 0;
        let word = is_held.then(|| only(&held, tid as u32)).flatten();
        // SAFETY: we hold it.
        unsafe { next::pthread_mutex_unlock(held.as_mut_ptr()) };
        word
    })?;
    // SAFETY: the caller's promise.
    Some(unsafe { word.read(mutex) } as i32)
}

/// The number of the thread that holds a lock to write. `tid` is the caller's.
///
/// # Safety
///
/// `lock` is one.
pub(super) unsafe fn rwlock_writer(lock: *const libc::pthread_rwlock_t, tid: i32) -> Option<i32> {
    static WRITER: Fact = Fact::new();
    let word = WRITER.get(|| {
        // SAFETY: a fresh one, with the attributes that all have.
        let mut held = made(|it| unsafe { libc::pthread_rwlock_init(it, ptr::null()) })?;
        // SAFETY: made just now, and ours alone.
        let is_held = unsafe { next::pthread_rwlock_trywrlock(held.as_mut_ptr()) } == 0;
        let word = is_held.then(|| only(&held, tid as u32)).flatten();
        // SAFETY: we hold it.
        unsafe { next::pthread_rwlock_unlock(held.as_mut_ptr()) };
        word
    })?;
    // SAFETY: the caller's promise.
    Some(unsafe { word.read(lock) } as i32)
}

/// Whether a lock is for several processes.
///
/// # Safety
///
/// `lock` is one.
pub(super) unsafe fn is_rwlock_shared(lock: *const libc::pthread_rwlock_t) -> bool {
    static IS_SHARED: Fact = Fact::new();
    let word = IS_SHARED.get(|| {
        // SAFETY: a fresh one.
        let mut attributes = made(|it| unsafe { libc::pthread_rwlockattr_init(it) })?;
        // SAFETY: made just now.
        let set = unsafe {
            libc::pthread_rwlockattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            )
        };
        // SAFETY: a fresh one, and attributes that were made.
        let shared = made(|it| unsafe { libc::pthread_rwlock_init(it, attributes.as_ptr()) })?;
        differing(&shared).filter(|_| set == 0)
    });
    // SAFETY: the caller's promise.
    word.is_none_or(|word| unsafe { word.read(lock) } != 0)
}

/// The only word of `lock` that is not 0.
fn differing<T>(lock: &MaybeUninit<T>) -> Option<Word> {
    let words = size_of::<T>() / size_of::<u32>();
    let read = |index| {
        // SAFETY: inside of the lock, which was zeroed when it was made.
        unsafe { Word(index).read(lock.as_ptr()) }
    };
    let mut found = (0..words).filter(|index| read(*index) != 0);
    let first = found.next().map(Word)?;
    found.next().is_none().then_some(first)
}

/// Whether a semaphore is for several processes.
///
/// # Safety
///
/// `semaphore` is one.
pub(super) unsafe fn is_semaphore_shared(semaphore: *const libc::sem_t) -> bool {
    static IS_SHARED: Fact = Fact::new();
    let word = IS_SHARED.get(|| {
        // SAFETY: a fresh one.
        let shared = made(|it| unsafe { libc::sem_init(it, 1, 0) })?;
        // SAFETY: a fresh one.
        let private = made(|it| unsafe { libc::sem_init(it, 0, 0) })?;
        // One of the two has the kernel's flag, and the other has nothing.
        differing(&shared).filter(|_| differing(&private).is_none())
    });
    // SAFETY: the caller's promise.
    word.is_none_or(|word| unsafe { word.read(semaphore) } != 0)
}

/// How a condition was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// The clock of its times.
    pub(super) clock: libc::clockid_t,
    /// Whether it is for several processes.
    pub(super) is_shared: bool,
}

/// How a condition was made. `None` if that cannot be told.
///
/// # Safety
///
/// `condition` is one.
pub(super) unsafe fn condition(condition: *const libc::pthread_cond_t) -> Option<Condition> {
    static FLAGS: Fact = Fact::new();
    let word = FLAGS.get(|| {
        // SAFETY: a fresh one.
        let mut attributes = made(|it| unsafe { libc::pthread_condattr_init(it) })?;
        let it = attributes.as_mut_ptr();
        // SAFETY: made just now.
        let set = unsafe { libc::pthread_condattr_setclock(it, libc::CLOCK_MONOTONIC) };
        // SAFETY: a fresh one, and attributes that were made.
        let timed = made(|it| unsafe { libc::pthread_cond_init(it, attributes.as_ptr()) })?;
        // SAFETY: as above.
        let shared = unsafe {
            libc::pthread_condattr_setpshared(attributes.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED)
        };
        // SAFETY: as above.
        let both = made(|it| unsafe { libc::pthread_cond_init(it, attributes.as_ptr()) })?;
        let word = differing(&timed)?;
        // SAFETY: a condition that was just made.
        let timed = unsafe { word.read(timed.as_ptr()) };
        // SAFETY: as above.
        let both = unsafe { word.read(both.as_ptr()) };
        (set == 0 && shared == 0 && timed == MONOTONIC && both == MONOTONIC | PROCESSES)
            .then_some(word)
    })?;
    // SAFETY: the caller's promise.
    let bits = unsafe { word.read(condition) };
    let is_monotonic = bits & MONOTONIC != 0;
    let clock = if is_monotonic { libc::CLOCK_MONOTONIC } else { libc::CLOCK_REALTIME };
    Some(Condition { clock, is_shared: bits & PROCESSES != 0 })
}

/// Bits of a condition.
const MONOTONIC: u32 = 2;
const PROCESSES: u32 = 1;

/// The words of a barrier. The first stands at its address.
#[derive(Debug, Clone, Copy)]
pub(super) struct Barrier<'a> {
    /// How many have come, since the numbers began.
    pub(super) entered: &'a AtomicU32,
    /// How many of those may leave.
    pub(super) round: &'a AtomicU32,
    /// How many a round is.
    pub(super) count: u32,
    /// How many have left.
    pub(super) left: &'a AtomicU32,
    /// Whether it is for several processes.
    pub(super) is_shared: bool,
}

/// The words of a barrier, in glibc's order since 2.25: entered, round, count, shared, left.
///
/// # Safety
///
/// `barrier` is one, and stays one while the words are used.
pub(super) unsafe fn barrier<'a>(barrier: *mut libc::pthread_barrier_t) -> Option<Barrier<'a>> {
    static IS_KNOWN: Fact = Fact::new();
    IS_KNOWN.get(|| {
        // SAFETY: a fresh one, with the attributes that all have.
        let mut alone = made(|it| unsafe { libc::pthread_barrier_init(it, ptr::null(), 1) })?;
        let word = |index| {
            // SAFETY: inside of the barrier, which was just made.
            unsafe { Word(index).read(alone.as_ptr()) }
        };
        if [0, 1, 2, 4].map(word) != [0, 0, 1, 0] {
            return None;
        }
        // SAFETY: it waits for nobody else.
        unsafe { next::pthread_barrier_wait(alone.as_mut_ptr()) };
        let word = |index| {
            // SAFETY: as above.
            unsafe { Word(index).read(alone.as_ptr()) }
        };
        // It was entered, a round was full, and it was left.
        ([0, 1, 2, 4].map(word) == [1, 1, 1, 1]).then_some(Word(0))
    })?;
    let word = |index: usize| {
        // SAFETY: inside of the barrier: the caller's promise.
        let word = unsafe { barrier.cast::<u32>().add(index) };
        // SAFETY: valid while the barrier is, aligned, and changed by atomic accesses alone.
        unsafe { AtomicU32::from_ptr(word) }
    };
    let count = word(2).load(Ordering::Relaxed);
    let is_shared = word(3).load(Ordering::Relaxed) != 0;
    let (entered, round, left) = (word(0), word(1), word(4));
    (count != 0).then_some(Barrier { entered, round, count, left, is_shared })
}
