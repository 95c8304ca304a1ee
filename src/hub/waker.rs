//! The waker that a greenlet lends to a future: it may be called on any thread, at any time.
//!
//! Floor 4. Uses: the hub's inbox. Used by: `bridge`, which lends it; `kept`, which tells it from
//! others.
//!
//! # States
//!
//! ```text
//! idle ──wake──▶ woken ──the waiter polls──▶ idle
//! ```
//!
//! A wake that finds `woken` set does nothing more, so a storm of wakes sends one message a poll.
//!
//! # Invariants
//!
//! - `WAKER-1` No lost wake: the waker sets `woken`, then reads the ticket; the waiter publishes
//!   its ticket, then reads `woken`; all sequentially consistent.
//! - `WAKER-2` A waker that outlives its wait names a ticket that is over, or an inbox that is
//!   closed: it does nothing.
//! - `WAKER-3` Clones are counted as outside handles of the inbox; the waiter's own waker is not.
//!   So "nobody but the waiter has it" is known, and main's wait for ever is reported.

#![expect(unsafe_code, reason = "a waker that counts its clones needs its own vtable")]
//! # Safety
//!
//! A waker's data pointer is an `Arc<Shared>` in raw form: every waker owns one count of it.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    ptr,
    task::{RawWaker, RawWakerVTable, Waker},
};

use super::{Hub, Message, park::Wake};
use crate::{
    atomics::{Arc, AtomicBool, AtomicU64, Ordering},
    reactor::Inbox,
};

/// What the waiter and its wakers share.
pub(crate) struct Shared {
    inbox: Arc<Inbox<Message>>,
    woken: AtomicBool,
    /// The waiter's slot in the hub's table.
    slot: AtomicU64,
    /// The ticket of the waiter's wait; 0 while it does not wait.
    ticket: AtomicU64,
}

impl Shared {
    pub(crate) fn new(hub: &Hub) -> Arc<Shared> {
        Arc::new(Shared {
            inbox: Arc::clone(hub.inbox()),
            woken: AtomicBool::new(false),
            slot: AtomicU64::new(0),
            ticket: AtomicU64::new(0),
        })
    }

    /// One for a wait that begins now. A later wait uses it again, if nobody else has it by then: a
    /// wait whose wakers have all gone allocates nothing.
    pub(crate) fn lend(hub: &Hub) -> Lent<'_> {
        let mut spare = hub.spare_wakers.borrow_mut().pop();
        // A waker that somebody keeps names a wait that is over, and must not wake another.
        let spare = spare.take_if(|shared| Arc::get_mut(shared).is_some());
        Lent { hub, shared: Some(spare.unwrap_or_else(|| Shared::new(hub))) }
    }

    /// Forgets a wake. Returns whether there was one.
    pub(crate) fn take_wake(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// Publishes the wait that the next wake is to end. Returns whether one came before.
    pub(crate) fn publish(&self, wake: Wake) -> bool {
        if let Wake::Unpark { slot, ticket } = wake {
            self.slot.store(u64::from(slot), Ordering::Relaxed);
            self.ticket.store(ticket, Ordering::SeqCst);
        }
        self.woken.load(Ordering::SeqCst)
    }

    /// The wait is over.
    pub(crate) fn retract(&self) {
        self.ticket.store(0, Ordering::SeqCst);
    }

    pub(crate) fn wake(&self) {
        if self.woken.swap(true, Ordering::SeqCst) {
            return;
        }
        let ticket = self.ticket.load(Ordering::SeqCst);
        if ticket == 0 {
            return;
        }
        let slot = self.slot.load(Ordering::Relaxed) as u32;
        let wake = Wake::Unpark { slot, ticket };
        match Hub::current() {
            Some(hub) if Arc::ptr_eq(hub.inbox(), &self.inbox) => hub.wake(wake),
            _ => drop(self.inbox.push(Message::Wake(wake))),
        }
    }
}

/// How many are kept to be lent again.
const SPARE_MAX: usize = 32;

/// What a waiter and its wakers share, for one wait.
pub(crate) struct Lent<'h> {
    hub: &'h Hub,
    /// None once it was given back.
    shared: Option<Arc<Shared>>,
}

impl Deref for Lent<'_> {
    type Target = Arc<Shared>;

    fn deref(&self) -> &Arc<Shared> {
        self.shared.as_ref().expect("it is given back at the end")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // What was waited for may still be there, with wakers: that is looked at when it is lent.
        let mut spare = self.hub.spare_wakers.borrow_mut();
        if spare.len() < SPARE_MAX {
            spare.extend(self.shared.take());
        }
    }
}

/// A waker that stays on its thread: in the future of a Deferred or a greenlet, or kept by the hub.
///
/// If it is one of ours, it does not count as an outside handle: what will call it is on this
/// thread too, so it cannot wake a reactor that has nothing else to wait for (`WAKER-3`).
pub(crate) enum KeptWaker {
    Ours(Arc<Shared>),
    Other(Waker),
}

impl KeptWaker {
    pub(crate) fn keep(waker: &Waker) -> KeptWaker {
        if !ptr::eq(waker.vtable(), &VTABLE) {
            return KeptWaker::Other(waker.clone());
        }
        let data: *const Shared = waker.data().cast();
        // SAFETY: the vtable is ours, so the data is an `Arc` in raw form, alive while the waker is
        // borrowed.
        let inbox = unsafe { &*data }.inbox.clone();
        if !Hub::current().is_some_and(|hub| Arc::ptr_eq(hub.inbox(), &inbox)) {
            return KeptWaker::Other(waker.clone()); // Lent by a hub of another thread.
        }
        // SAFETY: the vtable is ours, so the data is an `Arc` in raw form, alive while the waker is
        // borrowed; the count that is added is ours.
        unsafe { Arc::increment_strong_count(data) };
        // SAFETY: as above.
        KeptWaker::Ours(unsafe { Arc::from_raw(data) })
    }

    /// Whether it wakes whom `waker` wakes.
    pub(super) fn will_wake(&self, waker: &Waker) -> bool {
        match self {
            KeptWaker::Ours(shared) => {
                ptr::eq(waker.vtable(), &VTABLE) && waker.data() == Arc::as_ptr(shared).cast()
            }
            KeptWaker::Other(kept) => kept.will_wake(waker),
        }
    }

    pub(crate) fn wake(self) {
        match self {
            KeptWaker::Ours(shared) => shared.wake(),
            KeptWaker::Other(waker) => waker.wake(),
        }
    }
}

/// The waiter's own waker, which does not count as an outside one.
pub(crate) struct OwnWaker(ManuallyDrop<Waker>);

impl OwnWaker {
    pub(crate) fn new(shared: &Arc<Shared>) -> OwnWaker {
        let data = Arc::into_raw(Arc::clone(shared)).cast();
        // SAFETY: the vtable's functions keep RawWaker's contract: `data` owns one count of the
        // Arc, and `Shared` may be used from any thread.
        OwnWaker(ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(data, &VTABLE)) }))
    }
}

impl Deref for OwnWaker {
    type Target = Waker;

    fn deref(&self) -> &Waker {
        &self.0
    }
}

impl Drop for OwnWaker {
    fn drop(&mut self) {
        let data: *const Shared = self.0.data().cast();
        // SAFETY: made by `Arc::into_raw` in `new`, and given back once: the waker itself is never
        // dropped.
        drop(unsafe { Arc::from_raw(data) });
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, discard);

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the waker that is being cloned owns a count, so the Arc is alive.
    let shared = unsafe { &*data.cast::<Shared>() };
    shared.inbox.add_handle();
    // SAFETY: as above; the new waker owns the count that is added.
    unsafe { Arc::increment_strong_count(data.cast::<Shared>()) };
    RawWaker::new(data, &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker is consumed: its count is ours now.
    let shared = unsafe { Arc::from_raw(data.cast::<Shared>()) };
    shared.wake();
    shared.inbox.drop_handle();
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the waker owns a count and is borrowed meanwhile.
    unsafe { &*data.cast::<Shared>() }.wake();
}

unsafe fn discard(data: *const ()) {
    // SAFETY: the waker is dropped: its count is ours now.
    let shared = unsafe { Arc::from_raw(data.cast::<Shared>()) };
    shared.inbox.drop_handle();
}
