//! How a waiter is told that it was granted something: four kinds of waiter, one word to each.
//!
//! Floor 5. Uses: the hub's inbox. Used by: `line`, `lane`.
//!
//! # Threads
//!
//! A signal may be given on any thread. One for a hub names a ticket or a call that is never drawn
//! again, so a late one does nothing.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    task::Waker,
    time::Instant,
};

use crate::{
    hub::{Hub, Message, kept, park::Wake},
    reactor::Inbox,
};

/// Whom to tell.
pub(super) enum Signal {
    /// A greenlet that is parked, or a call that fires a Deferred.
    Hub(Arc<Inbox<Message>>, Wake),
    /// An OS thread.
    Thread(Arc<Parker>),
    /// A future.
    Waker(Waker),
    /// Nobody: a reference that is to be dropped.
    Inbox(Arc<Inbox<Message>>),
}

impl Signal {
    pub(super) fn hub(hub: &Hub, wake: Wake) -> Signal {
        Signal::Hub(Arc::clone(hub.inbox()), wake)
    }

    fn give(self) {
        match self {
            Signal::Hub(inbox, wake) => match Hub::current() {
                Some(hub) if Arc::ptr_eq(hub.inbox(), &inbox) => hub.wake(wake),
                // It fails when that hub has ended: its waiters have left, or are about to.
                _ => drop(inbox.push(Message::Wake(wake))),
            },
            Signal::Thread(parker) => parker.unpark(),
            Signal::Waker(waker) => as_code_of_others("a Waker", || waker.wake()),
            Signal::Inbox(inbox) => drop(inbox),
        }
    }
}

/// Its panic must not keep the next one from being told; and it must not park, since the greenlet
/// that happens to run it may have begun a wait of its own.
fn as_code_of_others(what: &str, f: impl FnOnce()) {
    let _no_park = Hub::current().map(Hub::forbid_park);
    kept::guard(what, f);
}

/// Signals that are to be given, in order; most often none or one.
pub(super) struct Signals {
    first: Option<Signal>,
    rest: Vec<Signal>,
    /// What is only to be dropped.
    old: Option<Signal>,
}

impl Signals {
    pub(super) const fn new() -> Signals {
        Signals { first: None, rest: Vec::new(), old: None }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.old.is_none()
    }

    pub(super) fn extend(&mut self, signal: Option<Signal>) {
        match signal {
            Some(signal) if self.first.is_some() => self.rest.push(signal),
            Some(signal) => self.first = Some(signal),
            None => {}
        }
    }

    /// Has the lock's holder drop a signal when it has let go of the lock. One a lock.
    pub(super) fn discard(&mut self, signal: Option<Signal>) {
        debug_assert!(self.old.is_none(), "each step under the lock discards one at most");
        self.old = signal;
    }

    /// Gives them all.
    pub(super) fn give(self) {
        let Signals { first, rest, old } = self;
        if let Some(first) = first {
            first.give();
        }
        rest.into_iter().for_each(Signal::give);
        if let Some(old) = old {
            as_code_of_others("the destructor of a Waker", || drop(old));
        }
    }
}

/// One wait of an OS thread. Not `thread::park`: its token may be meant for somebody else.
#[derive(Default)]
pub(super) struct Parker {
    is_woken: Mutex<bool>,
    woken: Condvar,
}

impl Parker {
    fn unpark(&self) {
        *self.is_woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.woken.notify_one();
    }

    /// Blocks the thread until it is woken or `deadline` has passed.
    pub(super) fn park(&self, deadline: Option<Instant>) {
        let mut is_woken = self.is_woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_woken {
            let Some(deadline) = deadline else {
                is_woken = self.woken.wait(is_woken).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.woken.wait_timeout(is_woken, left);
            is_woken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
