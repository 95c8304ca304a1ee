//! The inbox: how other threads reach a reactor.
//!
//! Floor 3. Uses: one atomic list, one atomic byte, the poller's waker. Used by: `reactor`, and by
//! every `Send` handle.
//!
//! # Contract
//!
//! [`Inbox::push`] is one atomic push, and one eventfd write only if the reactor is really asleep.
//! Messages of one thread arrive in their order. After [`Inbox::close`] a push hands its message
//! back. [`Inbox::send`] does the same with a place that the sender provides: it allocates and
//! frees nothing, so a signal handler may.
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
//! - `INBOX-3` The node of an envelope belongs to its owner until it is given out, then to whoever
//!   sends it, then to the list. The last to have it says that it is back, and does nothing more
//!   with it. The owner keeps it in place until then.
//!
//! # Source
//!
//! R. K. Treiber's stack, taken whole and reversed; monoio's `awake` flag for the elided write.

#![expect(unsafe_code, reason = "an atomic list of boxes")]
//! # Safety
//!
//! Boxes become raw pointers in `push` and boxes again in `take_list`, each exactly once:
//! `INBOX-2`. Envelopes are pointed to while they are out: `INBOX-3`.

use std::{cell::UnsafeCell, ptr};

use crate::{
    atomics::{AtomicBool, AtomicPtr, AtomicU64, Ordering},
    sys::PollerWaker,
};

struct Node<M> {
    next: *mut Node<M>,
    /// There until it is taken out.
    message: Option<M>,
    /// The envelope that it is in; null if it is in a box.
    envelope: *const Envelope<M>,
}

/// A place for one message at a time, which belongs to its sender.
pub(crate) struct Envelope<M> {
    node: UnsafeCell<Node<M>>,
    /// Whether its owner has it (`INBOX-3`).
    is_back: AtomicBool,
}

impl<M> Envelope<M> {
    pub(crate) fn new() -> Envelope<M> {
        let node = Node { next: ptr::null_mut(), message: None, envelope: ptr::null() };
        Envelope { node: UnsafeCell::new(node), is_back: AtomicBool::new(true) }
    }

    /// Its owner gives it to somebody who is to send it, or to give it back.
    pub(crate) fn give_out(&self) {
        self.is_back.store(false, Ordering::Relaxed);
    }

    /// Whoever has it gives it back: the last that he does with it.
    pub(crate) fn give_back(&self) {
        self.is_back.store(true, Ordering::Release); // INVARIANT: INBOX-3
    }

    /// Whether its owner has it.
    pub(crate) fn is_back(&self) -> bool {
        self.is_back.load(Ordering::Acquire)
    }
}

/// A queue into a reactor, for messages from any thread.
pub(crate) struct Inbox<M: Send> {
    /// The newest message; [`closed`] when nobody will read any more.
    head: AtomicPtr<Node<M>>,
    asleep: AtomicBool,
    waker: PollerWaker,
    /// It is to look around, since the last handle has gone, say, and has not noticed yet.
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
        let node = Node { next: ptr::null_mut(), message: Some(message), envelope: ptr::null() };
        let node = Box::into_raw(Box::new(node));
        // SAFETY: just made, and known to nobody else.
        if unsafe { self.append(node) } {
            return Ok(());
        }
        // SAFETY: it was not published, so it is still ours alone.
        let message = unsafe { Box::from_raw(node) }.message;
        message.map_or(Ok(()), Err)
    }

    /// As `push`, in a place that is the sender's. Returns whether it was sent. The envelope comes
    /// back, now or when the message was taken out.
    ///
    /// # Safety
    ///
    /// `envelope` was given out to the caller, and stays in place until it is back (`INBOX-3`).
    pub(crate) unsafe fn send(&self, envelope: &Envelope<M>, message: M) -> bool {
        let node = envelope.node.get();
        // SAFETY: ours alone, since it was given out to us; nothing is dropped, for an envelope
        // that was back is empty.
        unsafe { node.write(Node { next: ptr::null_mut(), message: Some(message), envelope }) };
        // SAFETY: as above.
        let is_sent = unsafe { self.append(node) };
        if !is_sent {
            // SAFETY: it was not published, so it is still ours alone.
            unsafe { (*node).message = None };
            envelope.give_back();
        }
        is_sent
    }

    /// Puts a node on the list and wakes the reactor if it sleeps. `false`: nobody will read it.
    ///
    /// # Safety
    ///
    /// The node is the caller's alone, and the list's from now on, if it is put there (`INBOX-2`).
    unsafe fn append(&self, node: *mut Node<M>) -> bool {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == closed() {
                return false;
            }
            // SAFETY: until the exchange succeeds nobody else knows the node.
            unsafe { (*node).next = head };
            match self.head.compare_exchange_weak(head, node, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        self.rouse();
        true
    }

    /// Has the reactor look around soon, without a message. Allocates nothing.
    pub(crate) fn nudge(&self) {
        // As a message would: the reactor may be about to sleep, and have looked already.
        self.nudged.store(true, Ordering::SeqCst);
        self.rouse();
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
            // SAFETY: ours (INBOX-2), and left behind by this loop.
            let node = unsafe { &mut *oldest };
            let message = node.message.take();
            let this = std::mem::replace(&mut oldest, node.next);
            // SAFETY: an envelope that is out stays in place (INBOX-3).
            match unsafe { node.envelope.as_ref() } {
                Some(envelope) => envelope.give_back(),
                // SAFETY: made by `Box::into_raw` in `push`, and ours.
                None => drop(unsafe { Box::from_raw(this) }),
            }
            message.into_iter().for_each(&mut *sink);
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
            self.nudge();
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
