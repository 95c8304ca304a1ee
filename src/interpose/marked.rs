//! A mark on this process's memory that no child of a fork has, however it was made.
//!
//! Floor 8. Uses: mmap(2), madvise(2). Used by: `descriptors`.
//!
//! pthread_atfork(3) tells of fork(3), and of nothing else: `_Fork`, and a clone(2) that a program
//! makes by itself, go past it. So the kernel is asked to clear the page that the mark stands on in
//! every child with memory of its own (`MADV_WIPEONFORK`). To look at the mark is one load, where
//! getpid(2) would be a system call.
//!
//! What it does not tell is a child that *shares* all memory. vfork(2) makes one, but not of a
//! guest, for which it is fork(2) (`child`). A clone(2) of the program's own with `CLONE_VM` and
//! without `CLONE_THREAD` could; whoever makes that in a guest has two processes on one set of
//! thread-locals, and must not call libc in both.
//!
//! # Invariants
//!
//! - `MARK-1` The mark is set in memory that the kernel clears in a child, or not at all.

#![expect(unsafe_code, reason = "a page by mmap")]
//! # Safety
//!
//! The page is never unmapped once others can see it; it is touched through an atomic alone.

use std::{
    ptr,
    sync::atomic::{
        AtomicPtr, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// The page; null before the first mark, and for ever where the kernel clears none.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());

/// Room for the mark: no page is larger.
const BYTES: usize = 64 * 1024;

/// Whether [`mark`] was called in this process, and not in one that it was forked from.
#[inline]
pub(super) fn is_marked() -> bool {
    // SAFETY: null, or a page that stays; zeroes are an atomic.
    unsafe { PAGE.load(Acquire).as_ref() }.is_some_and(|mark| mark.load(Acquire) != 0)
}

/// Marks this process's memory, where the kernel can.
pub(super) fn mark() {
    if PAGE.load(Acquire).is_null() {
        let Some(page) = wiped_page() else { return };
        if PAGE.compare_exchange(ptr::null_mut(), page, Release, Relaxed).is_err() {
            // SAFETY: ours, and nobody has seen it: another thread was faster.
            let _ = unsafe { munmap(page.cast(), BYTES) };
        }
    }
    // SAFETY: as for `is_marked`.
    if let Some(mark) = unsafe { PAGE.load(Acquire).as_ref() } {
        mark.store(1, Release);
    }
}

/// A new page that a child finds empty. By mmap, since this may be inside an allocator's lock.
fn wiped_page() -> Option<*mut AtomicU32> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping, wherever there is room.
    let page = unsafe { mmap_anonymous(ptr::null_mut(), BYTES, access, MapFlags::PRIVATE) }.ok()?;
    // SAFETY: the mapping above: in this process nothing changes. INVARIANT: MARK-1.
    if unsafe { madvise(page, BYTES, Advice::LinuxWipeOnFork) }.is_err() {
        // SAFETY: nobody has seen it.
        let _ = unsafe { munmap(page, BYTES) };
        return None;
    }
    Some(page.cast())
}
