//! Who waits at which address: virtual threads of any hub, and hubs.
//!
//! Floor 8. Uses: `latch`, `inside`. Used by: `wait`, which waits here; `futex`, `locks` and their
//! like, which wake.
//!
//! The kernel keeps such a list for threads that sleep in futex(2). This is the list for those that
//! must not: a wake is looked for here, on every thread of the process, beside the kernel's.
//!
//! # States
//!
//! ```text
//! wait ──enter──▶ in line ──wake──▶ taken ──(the waiter's frame ends)──▶ gone
//!                    └───────────────leave──────────────────────────────▶ gone
//! ```
//!
//! Both edges out of "in line" are taken under the latch, so a waiter is taken or leaves: one that
//! was taken has been woken, whatever else has ended its wait at the same moment.
//!
//! # Invariants
//!
//! - `QUEUE-1` No lost wake. Who waits counts itself, and then looks at its word; who wakes changes
//!   the word, and then looks at the count; a fence lies between the two on either side. So the
//!   waiter sees the change, or the waker sees the waiter counted. In the latter case it takes the
//!   latch: the waiter is in line by then, or comes later, and so looks at its word after the
//!   change.
//! - `QUEUE-2` A node lies in the frame of `wait`. It is linked from `enter` until it is taken or
//!   `Leave` is dropped, and nobody but the holder of the latch follows links. `wait` neither
//!   returns nor unwinds before one of the two has happened; who takes a node touches it last when
//!   it sets `is_taken`. A virtual thread that is frozen for ever keeps its stack, but its place is
//!   left (`Place::leave`): a wake would be lost on it.
//! - `QUEUE-3` Under a latch nothing is called but what is in this file, nothing is allocated, and
//!   nothing waits.
//!
//! # Source
//!
//! futex(2), Linux `kernel/futex/waitwake.c` (counts, then looks); Amanieu d'Antras,
//! `parking_lot_core`.

#![expect(unsafe_code, reason = "a list through the frames of those who wait")]
//! # Safety
//!
//! Links are followed under the latch of their shard: `QUEUE-2`.

use std::{cell::Cell, ptr};

use super::inside::within;
use crate::{
    atomics::{AtomicBool, AtomicU32, Ordering, fence},
    latch::Latch,
};

/// How many are taken out under one hold of a latch: they are told when it is free again.
const BATCH: usize = 16;

/// How a waiter is told that it is woken.
pub(super) trait Tell {
    /// Tells it. `false`: nobody is there any more, and the wake is for the next one.
    fn tell(self) -> bool;
}

/// All who wait, by the address that they wait at. `SHARDS` is a power of two.
pub(super) struct Queue<T, const SHARDS: usize> {
    shards: [Shard<T>; SHARDS],
}

/// Those whose addresses fall together. A cache line of its own.
#[repr(align(64))]
pub(super) struct Shard<T> {
    /// How many are in line, or about to be (`QUEUE-1`).
    waiting: AtomicU32,
    /// A signal handler could not wake whom it meant to: all are to look.
    is_owed: AtomicBool,
    line: Latch<Line<T>>,
}

/// A list, in the order in which they came.
pub(super) struct Line<T> {
    first: *const Node<T>,
    last: *const Node<T>,
    /// How many have ever come.
    came: u64,
}

/// One who waits. What is in cells belongs to the holder of the latch.
struct Node<T> {
    address: usize,
    /// A wake must have one of these bits.
    bits: u32,
    /// Its number among those that came.
    number: Cell<u64>,
    previous: Cell<*const Node<T>>,
    next: Cell<*const Node<T>>,
    /// Whom to tell; `None` before it has said so: it will look.
    told: Cell<Option<T>>,
    is_taken: AtomicBool,
}

/// Which of those in a shard.
#[derive(Clone, Copy)]
enum Which {
    /// Those who wait at this address for one of these bits.
    At(usize, u32),
    /// All.
    All,
}

// SAFETY: the pointers are followed by the holder of the latch alone, on whichever thread
// (QUEUE-2). Thread A puts its node in line and lets go of the latch; thread B takes the latch, and
// with it all that A wrote to the node. What B moves out of it is a `T`, hence `T: Send`.
unsafe impl<T: Send> Send for Line<T> {}

impl<T> Line<T> {
    pub(super) const fn new() -> Line<T> {
        Line { first: ptr::null(), last: ptr::null(), came: 0 }
    }

    /// Puts a node at the end.
    fn append(&mut self, node: &Node<T>) {
        self.came += 1;
        node.number.set(self.came);
        node.previous.set(self.last);
        // SAFETY: nodes in line are alive (QUEUE-2), and we hold the latch.
        match unsafe { self.last.as_ref() } {
            Some(last) => last.next.set(node),
            None => self.first = node,
        }
        self.last = node;
    }

    /// Takes a node out that is in line.
    fn remove(&mut self, node: &Node<T>) {
        let (previous, next) = (node.previous.get(), node.next.get());
        // SAFETY: its neighbours are in line, hence alive (QUEUE-2), and we hold the latch.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.first = next,
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(previous),
            None => self.last = previous,
        }
    }

    /// Takes out the first that is one of `which` and is not among those that came after `limit`.
    /// Gives whom to tell; the waiter looks itself if that is nobody.
    fn take(&mut self, which: Which, limit: u64) -> Option<Option<T>> {
        let mut at = self.first;
        // SAFETY: nodes in line are alive (QUEUE-2), and we hold the latch.
        while let Some(node) = unsafe { at.as_ref() } {
            if node.number.get() > limit {
                return None;
            }
            let is_meant = match which {
                Which::At(address, bits) => node.address == address && node.bits & bits != 0,
                Which::All => true,
            };
            if is_meant {
                self.remove(node);
                let told = node.told.take();
                // INVARIANT: QUEUE-2: the last touch; its frame may end from here on.
                node.is_taken.store(true, Ordering::Release);
                return Some(told);
            }
            at = node.next.get();
        }
        None
    }
}

impl<T: Tell> Shard<T> {
    pub(super) const fn new(
        waiting: AtomicU32,
        is_owed: AtomicBool,
        line: Latch<Line<T>>,
    ) -> Shard<T> {
        Shard { waiting, is_owed, line }
    }

    /// Runs `f` under the latch. `None`: this is a signal handler that has interrupted the holder.
    fn with<R>(&self, f: impl FnOnce(&mut Line<T>) -> R) -> Option<R> {
        let result = within(ptr::from_ref(self).addr(), || f(&mut self.line.hold()))?;
        // A handler that came before that has left its note; one that comes now needs none.
        if self.is_owed.load(Ordering::Relaxed) {
            self.pay();
        }
        Some(result)
    }

    /// Wakes all, since whom a signal handler meant to wake is not known. They look, and those that
    /// were not meant wait again.
    #[cold]
    fn pay(&self) {
        if self.is_owed.swap(false, Ordering::Acquire) {
            self.wake(Which::All, usize::MAX);
        }
    }

    /// Takes up to `count` of them out and tells them. Returns how many there were.
    #[cold]
    fn wake(&self, which: Which, count: usize) -> usize {
        let mut woken = 0;
        let mut limit = None;
        while woken < count {
            let mut batch: [Option<T>; BATCH] = [const { None }; BATCH];
            let taken = self.with(|line| {
                // Who comes after the wake has begun is not for it.
                let limit = *limit.get_or_insert(line.came);
                let mut taken = 0;
                while taken < BATCH.min(count - woken) {
                    let Some(told) = line.take(which, limit) else { break };
                    self.waiting.fetch_sub(1, Ordering::Relaxed);
                    batch[taken] = told;
                    taken += 1;
                }
                taken
            });
            let Some(taken) = taken else {
                self.is_owed.store(true, Ordering::Release);
                return woken;
            };
            if taken == 0 {
                break;
            }
            let told = batch.into_iter().flatten().map(Tell::tell);
            woken += taken - told.filter(|is_there| !is_there).count();
        }
        woken
    }
}

impl<T: Tell, const SHARDS: usize> Queue<T, SHARDS> {
    pub(super) const fn new(shards: [Shard<T>; SHARDS]) -> Queue<T, SHARDS> {
        const { assert!(SHARDS.is_power_of_two(), "a shard is found by bits of the address") };
        Queue { shards }
    }

    #[inline]
    fn shard(&self, address: usize) -> &Shard<T> {
        // The odd number nearest to 2^64 divided by the golden ratio (Knuth, volume 3, 6.4); words
        // are four bytes apart, and neighbours should not meet.
        let spread = (address as u64 >> 2).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.shards[(spread >> 32) as usize & (SHARDS - 1)]
    }

    /// Whether somebody seems to wait at `address`, or at another one in its shard. One relaxed
    /// load.
    #[inline]
    pub(super) fn may_have(&self, address: usize) -> bool {
        self.shard(address).waiting.load(Ordering::Relaxed) != 0
    }

    /// Wakes up to `count` of those that wait at `address` for one of `bits`, first come first
    /// served. Returns how many. The caller has changed the word before.
    #[inline]
    pub(super) fn wake(&self, address: usize, bits: u32, count: usize) -> usize {
        fence(Ordering::SeqCst); // QUEUE-1
        self.wake_fenced(address, bits, count)
    }

    /// The same for a caller that has a full fence after the change (`QUEUE-1`).
    #[inline]
    pub(super) fn wake_fenced(&self, address: usize, bits: u32, count: usize) -> usize {
        let shard = self.shard(address);
        if shard.waiting.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        shard.wake(Which::At(address, bits), count)
    }

    /// Forgets all who are in line, in the child of a fork: they are not there, though their frames
    /// are, as copies.
    ///
    /// # Safety
    ///
    /// No other thread is using the queue, nor is what this call has interrupted.
    pub(super) unsafe fn abandon(&self) {
        for shard in &self.shards {
            shard.waiting.store(0, Ordering::Relaxed);
            shard.is_owed.store(false, Ordering::Relaxed);
            // SAFETY: the caller's promise.
            unsafe { shard.line.renew(Line::new()) };
        }
    }

    /// Puts the caller in line at `address` and runs `f`, which looks at the word and waits. Gives
    /// what `f` returns, and whether the caller was woken, be it while `f` returned.
    ///
    /// `None` when it cannot be put in line: in a signal handler, at a bad moment.
    pub(super) fn wait<R>(
        &self,
        address: usize,
        bits: u32,
        f: impl FnOnce(&Place<'_, T>) -> R,
    ) -> Option<(R, bool)> {
        let shard = self.shard(address);
        let node = Node {
            address,
            bits,
            number: Cell::new(0),
            previous: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            told: Cell::new(None),
            is_taken: AtomicBool::new(false),
        };
        shard.waiting.fetch_add(1, Ordering::Relaxed); // QUEUE-1: counted first.
        if shard.with(|line| line.append(&node)).is_none() {
            shard.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        // INVARIANT: QUEUE-2: from here on every way out of this frame drops `leave`.
        let leave = Leave(Place { shard, node: &node });
        fence(Ordering::SeqCst); // QUEUE-1
        let result = f(&leave.0);
        drop(leave);
        Some((result, node.is_taken.load(Ordering::Relaxed)))
    }
}

/// The caller's place in line, while it waits.
pub(super) struct Place<'q, T: Tell> {
    shard: &'q Shard<T>,
    node: &'q Node<T>,
}

impl<T: Tell> Place<'_, T> {
    /// Whether the caller was woken. It may read all that the waker wrote.
    pub(super) fn is_woken(&self) -> bool {
        self.node.is_taken.load(Ordering::Acquire)
    }

    /// Says whom to tell of a wake. `false`: it has come before, and nobody will be told.
    pub(super) fn arm(&self, told: T) -> bool {
        let mut told = Some(told);
        // What was said before is dropped when the latch is free again (QUEUE-3).
        let before = self.shard.with(|_| {
            if self.node.is_taken.load(Ordering::Relaxed) {
                return None;
            }
            Some(self.node.told.replace(told.take()))
        });
        matches!(before, Some(Some(_)))
    }

    /// Takes back what was said, unless a wake has come.
    pub(super) fn disarm(&self) {
        drop(self.shard.with(|_| self.node.told.take()));
    }

    /// Takes the caller out of line for ever, though its frame does not end. `false`: it was taken
    /// before, by a wake that it has not used.
    pub(super) fn leave(&self) -> bool {
        // What was said is dropped when the latch is free again (QUEUE-3).
        let told = self.shard.with(|line| {
            if self.node.is_taken.load(Ordering::Relaxed) {
                return None;
            }
            line.remove(self.node);
            self.shard.waiting.fetch_sub(1, Ordering::Relaxed);
            // INVARIANT: QUEUE-2: `Leave` finds nothing to do, if it is ever dropped.
            let told = self.node.told.take();
            self.node.is_taken.store(true, Ordering::Release);
            Some(told)
        });
        matches!(told, Some(Some(_)))
    }
}

/// Takes a node out of its line when it is dropped, if nobody else has.
struct Leave<'q, T: Tell>(Place<'q, T>);

impl<T: Tell> Drop for Leave<'_, T> {
    fn drop(&mut self) {
        let Place { shard, node } = self.0;
        if self.0.is_woken() {
            return;
        }
        let told = shard.with(|line| {
            if node.is_taken.load(Ordering::Relaxed) {
                return None;
            }
            line.remove(node);
            shard.waiting.fetch_sub(1, Ordering::Relaxed);
            node.told.take()
        });
        if told.is_none() {
            // A node that stays in line when its frame ends would be read as garbage (QUEUE-2). It
            // cannot be: whoever is in line got the latch here before, with the same frames below.
            std::process::abort();
        }
    }
}
