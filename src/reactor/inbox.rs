//! The inbox: how other threads reach a reactor.
//!
//! Floor 3. Uses: one atomic list, one atomic byte, the poller's waker. Used by: `reactor`, and by
//! every `Send` handle.
//!
//! # Contract
//!
//! [`Inbox::push`] is one atomic push, and one eventfd write only if the reactor is really asleep.
//! Messages of one thread arrive in their order. After [`Inbox::close`] a push hands its message
//! back.
//!
//! # States
//!
//! ```text
//! AWAKE ──begin_sleep (finds the list empty)──▶ ASLEEP
//!   ▲ └─begin_sleep (finds a message: does not sleep)
//!   └──── end_sleep, or the first push that sees ASLEEP (it writes the eventfd) ────┘
//! ```
//!
//! # Invariants
//!
//! - `INBOX-1` No lost wake. The pusher writes the list, then reads the state; the sleeper writes
//!   the state, then reads the list; all four are sequentially consistent, so at least one of the
//!   two sees the other.
//! - `INBOX-2` A node is owned by the list from the successful exchange in `push` until `drain`
//!   or `close` takes the whole list; then by the taker alone. Nobody reads a node's `next` but its
//!   owner, so reuse of an address cannot be mistaken (no ABA).
//!
//! # Source
//!
//! R. K. Treiber's stack, taken whole and reversed; monoio's `awake` flag for the elided write.

#![expect(unsafe_code, reason = "an atomic list of boxes")]
//! # Safety
//!
//! Boxes become raw pointers in `push` and boxes again in `take_list`, each exactly once:
//! `INBOX-2`.

use std::ptr;

use crate::{
    atomics::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
    sys::PollerWaker,
};

struct Node<M> {
    next: *mut Node<M>,
    message: M,
}

/// A queue into a reactor, for messages from any thread.
pub(crate) struct Inbox<M: Send> {
    /// The newest message; [`closed`] when nobody will read any more.
    head: AtomicPtr<Node<M>>,
    asleep: AtomicBool,
    waker: PollerWaker,
    /// The last handle has gone, and the reactor has not noticed yet.
    nudged: AtomicBool,
    /// How many eventfd writes pushes have made.
    wakes: AtomicU64,
    /// How many handles exist that may push although no greenlet of this hub holds them.
    handles: AtomicU64,
}

/// A head that no box can have: the inbox is closed.
fn closed<M>() -> *mut Node<M> {
    ptr::without_provenance_mut(1)
}

impl<M: Send> Inbox<M> {
    pub(crate) fn new(waker: PollerWaker) -> Inbox<M> {
        Inbox {
            head: AtomicPtr::new(ptr::null_mut()),
            asleep: AtomicBool::new(false),
            waker,
            nudged: AtomicBool::new(false),
            wakes: AtomicU64::new(0),
            handles: AtomicU64::new(0),
        }
    }

    /// Appends `message` and wakes the reactor if it sleeps.
    ///
    /// # Errors
    ///
    /// Gives the message back when the inbox is closed.
    pub(crate) fn push(&self, message: M) -> Result<(), M> {
        let node = Box::into_raw(Box::new(Node { next: ptr::null_mut(), message }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                // SAFETY: the node was never published, so it is still ours alone.
                return Err(unsafe { Box::from_raw(node) }.message);
            }
            // SAFETY: as above: until the exchange succeeds nobody else knows the node.
            unsafe { (*node).next = head };
            match self.head.compare_exchange_weak(head, node, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.rouse();
        Ok(())
    }

    /// Wakes the reactor if it sleeps.
    fn rouse(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wakes.fetch_add(1, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// Announces that the reactor is about to sleep. `false`: there is a message, do not.
    pub(super) fn begin_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if self.is_quiet() {
            return true;
        }
        self.end_sleep();
        false
    }

    /// Whether there is no message, and nothing else that the reactor has not noticed yet.
    pub(super) fn is_quiet(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        let is_empty = head.is_null() || head == closed();
        is_empty && !self.nudged.swap(false, Ordering::SeqCst)
    }

    /// The reactor is awake again: pushes need not write any more.
    pub(super) fn end_sleep(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Hands every message so far to `sink`, oldest first.
    pub(super) fn drain(&self, sink: &mut impl FnMut(M)) {
        let head = self.head.load(Ordering::Relaxed);
        if head.is_null() || head == closed() {
            return;
        }
        self.take_list(ptr::null_mut(), sink);
    }

    /// Refuses further messages and hands out those that are there.
    pub(super) fn close(&self, sink: &mut impl FnMut(M)) {
        self.take_list(closed(), sink);
    }

    fn take_list(&self, leave: *mut Node<M>, sink: &mut impl FnMut(M)) {
        let mut newest = self.head.swap(leave, Ordering::AcqRel);
        if newest == closed() {
            return;
        }
        let mut oldest: *mut Node<M> = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: the swap made us the owner of the whole list (INBOX-2).
            let next = unsafe { (*newest).next };
            // SAFETY: as above.
            unsafe { (*newest).next = oldest };
            oldest = newest;
            newest = next;
        }
        while !oldest.is_null() {
            // SAFETY: ours, made by `Box::into_raw` in `push`, and left behind by this loop.
            let node = unsafe { Box::from_raw(oldest) };
            oldest = node.next;
            sink(node.message);
        }
    }

    /// Whether the reactor sleeps, or is about to.
    pub(crate) fn is_asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }

    /// How many eventfd writes pushes have made so far.
    pub(crate) fn wakes_count(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// Counts one more outside handle.
    pub(crate) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one outside handle less, and lets a sleeping reactor see it: it may have been the
    /// last one that could wake it.
    pub(crate) fn drop_handle(&self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            // As a message would: the reactor may be about to sleep, and have counted already.
            self.nudged.store(true, Ordering::SeqCst);
            self.rouse();
        }
    }

    /// Whether somebody outside may still push.
    pub(crate) fn has_handles(&self) -> bool {
        self.handles_count() > 0
    }

    /// How many handles may.
    pub(crate) fn handles_count(&self) -> usize {
        self.handles.load(Ordering::Acquire) as usize
    }
}

impl<M: Send> Drop for Inbox<M> {
    fn drop(&mut self) {
        self.close(&mut drop);
    }
}
