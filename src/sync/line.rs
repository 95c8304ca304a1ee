//! The line: who waits for a primitive, first come first served, and what each was granted.
//!
//! Floor 5. Uses: `signal`, the hub. Used by: `lane`, which holds the lock around it, and the
//! primitives' rules.
//!
//! A line has a *home*: the hub of whoever joined it when it was empty. Its greenlets wait in the
//! cheap way: one that another greenlet of the same hub serves finds its grant in its own frame,
//! and is put into the run queue at once, so that it needs neither the lock again nor a reference
//! to the hub's inbox.
//!
//! # States
//!
//! Of one place in the line. Every edge is taken under the lock of its primitive, so each race
//! between them has one winner:
//! ```text
//!               ┌──────── leave: the ask is handed back ────────┐
//!               │                                               ▼
//! free ──join──▶ Waiting(ask) ──grant (by whoever releases)──▶ Granted(grant) ──▶ free
//!                    │  ▲ │                                      │         ▲
//!                    │  │ │                           collect: the waiter has it
//!                    │  │ │                           leave: the grant goes to the next in line
//!                    └──┘ └── grant, at home: into the waiter's frame ─────┘
//!     renew: another Waker
//! ```
//! | race | what happens |
//! |---|---|
//! | grant, then timeout or kill before the waiter ran | a timeout finds the grant and takes it; a kill unwinds only if it was noticed first, and leaves: the grant goes on |
//! | timeout, kill, dropped future, cancelled Deferred, then grant | the place is free: the grant goes to the next |
//! | grant, then the end of the waiter's hub | greenlets are unwound and Deferreds dropped: they leave |
//! | the signal comes before the waiter has parked | it is remembered (`PARK-2`; a flag, for a thread) |
//! | the signal comes after the waiter has left | its ticket is over: nothing (`WAKER-2`) |
//!
//! # Invariants
//!
//! - `LINE-1` A place belongs to one waiter from `join` until `collect` or `leave`, or until its
//!   frame was given the grant: nobody else names it, so it needs no number against reuse.
//! - `LINE-2` The list has exactly the places that are `Waiting`, in the order of their coming.
//!   What was granted is in no list, so one grant has one owner.
//! - `LINE-3` A grant puts the waiter's signal among those that are due. They are given when the
//!   lock is free again: no code of the user's runs under it, and no wake but one at home, which
//!   appends a greenlet to the run queue of this very thread.
//! - `LINE-4` A frame is written to by the thread of its own hub alone, while its place is
//!   `Waiting`; and its greenlet, which is of that thread too, leaves the line before the frame
//!   ends. So the frame is there, and nobody else looks at it.

#![expect(unsafe_code, reason = "a grant is written into the frame of its waiter")]
//! # Safety
//!
//! A frame is a raw pointer, written to under `LINE-4`.

use std::{cell::Cell, mem, ptr::NonNull, sync::Arc};

use super::signal::{Signal, Signals};
use crate::{
    hub::{Hub, Message, park::Wake},
    reactor::Inbox,
};

/// No place.
const NONE: u32 = u32::MAX;

/// A place in the line: its waiter's, and only its (`LINE-1`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key(u32);

/// How far a waiter is.
enum State<A, G> {
    Free,
    Waiting(A),
    Granted(G),
}

/// Where a greenlet that waits looks for its grant.
struct Frame<G>(NonNull<Cell<Option<G>>>);

// SAFETY: Thread A joins the line and leaves it, thread B moves the place about meanwhile, as part
// of the line; only A, the thread of the home, reads or writes what it points to (LINE-4).
unsafe impl<G: Send> Send for Frame<G> {}

/// How a waiter is told.
enum Teller<G> {
    /// It is not: it was.
    Told,
    /// A greenlet of the home.
    Home { slot: u32, ticket: u64, frame: Frame<G> },
    /// Anybody else.
    Other(Signal),
}

struct Place<A, G> {
    state: State<A, G>,
    teller: Teller<G>,
    /// The one before in the list of those who wait.
    before: u32,
    /// The one behind; the next free place, if this one is free.
    behind: u32,
}

/// Those who wait, and what was granted to whom.
pub(super) struct Line<A, G> {
    places: Vec<Place<A, G>>,
    free: u32,
    first: u32,
    last: u32,
    /// The number of the home; 0 before the first greenlet came.
    home: u64,
    /// How other threads reach it.
    inbox: Option<Arc<Inbox<Message>>>,
    /// Whom to tell when the lock is free again (`LINE-3`).
    due: Signals,
}

impl<A, G> Line<A, G> {
    pub(super) const fn new() -> Line<A, G> {
        Line {
            places: Vec::new(),
            free: NONE,
            first: NONE,
            last: NONE,
            home: 0,
            inbox: None,
            due: Signals::new(),
        }
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// What the first in line asks for.
    #[inline]
    pub(super) fn first(&self) -> Option<&A> {
        match &self.places.get(self.first as usize)?.state {
            State::Waiting(ask) => Some(ask),
            State::Free | State::Granted(_) => None,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        let behind = |at: &u32| self.places.get(*at as usize).map(|place| place.behind);
        std::iter::successors(Some(self.first), behind).take_while(|at| *at != NONE).count()
    }

    /// Goes to the end of the line.
    #[cold]
    pub(super) fn join(&mut self, ask: A, signal: Signal) -> Key {
        self.append(ask, Teller::Other(signal))
    }

    /// Goes to the end of the line as the current greenlet of `hub`, which is about to park. If a
    /// greenlet of the same hub serves it, its grant is in `frame`, and the place is nobody's.
    ///
    /// # Safety
    ///
    /// `frame` lives, where it is, until there is a grant in it or the place was left (`LINE-4`).
    #[inline(always)]
    pub(super) unsafe fn join_parking(
        &mut self,
        ask: A,
        hub: &Hub,
        (slot, ticket): (u32, u64),
        frame: &Cell<Option<G>>,
    ) -> Key {
        if self.home != hub.number() && !self.settle(hub) {
            return self.join(ask, Signal::hub(hub, Wake::Unpark { slot, ticket }));
        }
        self.append(ask, Teller::Home { slot, ticket, frame: Frame(NonNull::from(frame)) })
    }

    /// Makes `hub` the home, unless somebody waits.
    #[cold]
    fn settle(&mut self, hub: &Hub) -> bool {
        if !self.is_empty() {
            return false;
        }
        self.home = hub.number();
        let old = self.inbox.replace(Arc::clone(hub.inbox()));
        // It may be the last of an inbox: dropping that closes a descriptor.
        self.due.discard(old.map(Signal::Inbox));
        true
    }

    /// Field by field: a place that is put together elsewhere, and then copied, waits for itself.
    #[inline(always)]
    fn append(&mut self, ask: A, teller: Teller<G>) -> Key {
        if self.free == NONE {
            self.grow();
        }
        let at = self.free;
        let place = &mut self.places[at as usize];
        self.free = place.behind;
        // A free place has nothing that is to be dropped.
        mem::forget(mem::replace(&mut place.state, State::Waiting(ask)));
        mem::forget(mem::replace(&mut place.teller, teller));
        place.before = self.last;
        place.behind = NONE;
        match self.last {
            NONE => self.first = at,
            last => self.places[last as usize].behind = at,
        }
        self.last = at;
        Key(at)
    }

    /// Makes a free place.
    #[cold]
    fn grow(&mut self) {
        self.free = u32::try_from(self.places.len()).expect("fewer than 2^32 waiters");
        let (state, teller) = (State::Free, Teller::Told);
        self.places.push(Place { state, teller, before: NONE, behind: NONE });
    }

    /// This thread's hub, if it is the home.
    #[inline]
    fn here(&self) -> Option<&'static Hub> {
        Hub::current().filter(|hub| hub.number() == self.home)
    }

    /// Grants something to the first in line, who must be there, for what `decide` makes of what it
    /// asks.
    #[inline(always)]
    pub(super) fn grant(&mut self, decide: impl FnOnce(A) -> G) {
        self.grant_from(self.here(), decide);
    }

    /// The same, on the thread of `here`.
    #[inline(always)]
    fn grant_from(&mut self, here: Option<&Hub>, decide: impl FnOnce(A) -> G) {
        let at = self.first;
        let place = &mut self.places[at as usize];
        let State::Waiting(ask) = mem::replace(&mut place.state, State::Free) else {
            unreachable!("LINE-2: who is in the list waits");
        };
        let behind = place.behind;
        match (&place.teller, here) {
            (&Teller::Home { slot, ticket, frame: Frame(frame) }, Some(hub)) => {
                // SAFETY: the place was `Waiting` until just now, and this is the thread of its
                // hub: LINE-4.
                let frame = unsafe { frame.as_ref() };
                mem::forget(frame.replace(Some(decide(ask)))); // It was empty.
                place.behind = self.free;
                self.free = at;
                hub.unpark((slot, ticket));
            }
            _ => {
                place.state = State::Granted(decide(ask));
                let teller = mem::replace(&mut place.teller, Teller::Told);
                let signal = self.signal_of(teller);
                self.due.extend(signal);
            }
        }
        self.first = behind;
        match behind {
            NONE => self.last = NONE,
            behind => self.places[behind as usize].before = NONE,
        }
    }

    /// What tells this waiter from any thread.
    #[cold]
    fn signal_of(&self, teller: Teller<G>) -> Option<Signal> {
        match teller {
            Teller::Told => None,
            Teller::Home { slot, ticket, .. } => {
                let inbox = Arc::clone(self.inbox.as_ref()?);
                Some(Signal::Hub(inbox, Wake::Unpark { slot, ticket }))
            }
            Teller::Other(signal) => Some(signal),
        }
    }

    /// Grants to the first in line as long as `serve` has something for what it asks.
    pub(super) fn serve(&mut self, mut serve: impl FnMut(&A) -> Option<G>) {
        let here = self.here();
        while let Some(grant) = self.first().and_then(&mut serve) {
            self.grant_from(here, |_| grant);
        }
    }

    /// Takes what was granted, which frees the place; or hands the key back, if nothing was yet.
    pub(super) fn collect(&mut self, key: Key) -> Result<G, Key> {
        if matches!(self.places[key.0 as usize].state, State::Waiting(_)) {
            return Err(key);
        }
        match self.vacate(key.0).state {
            State::Granted(grant) => Ok(grant),
            State::Free | State::Waiting(_) => unreachable!("LINE-1: the place is the caller's"),
        }
    }

    /// Gives the place up: gives the ask back if nothing was granted, else the grant.
    pub(super) fn leave(&mut self, key: Key) -> Result<A, G> {
        if matches!(self.places[key.0 as usize].state, State::Waiting(_)) {
            self.unlink(key.0);
        }
        let Place { state, teller, .. } = self.vacate(key.0);
        if let Teller::Other(signal) = teller {
            // A Waker: dropping it is code of others.
            self.due.discard(Some(signal));
        }
        match state {
            State::Waiting(ask) => Ok(ask),
            State::Granted(grant) => Err(grant),
            State::Free => unreachable!("LINE-1: the place is the caller's"),
        }
    }

    /// Drops a signal that is not needed, when the lock is free again.
    pub(super) fn discard(&mut self, signal: Signal) {
        self.due.discard(Some(signal));
    }

    /// Has a waiter told by another signal. The old one is dropped when the lock is free again.
    pub(super) fn renew(&mut self, key: &Key, signal: Signal) {
        let place = &mut self.places[key.0 as usize];
        if let Teller::Other(old) = mem::replace(&mut place.teller, Teller::Other(signal)) {
            self.due.discard(Some(old));
        }
    }

    /// Whether somebody is to be told, or something dropped, once the lock is free.
    #[inline(always)]
    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whom to tell, and what to drop, once the lock is free.
    #[cold]
    pub(super) fn take_due(&mut self) -> Signals {
        mem::replace(&mut self.due, Signals::new())
    }

    fn unlink(&mut self, at: u32) {
        let Place { before, behind, .. } = self.places[at as usize];
        match before {
            NONE => self.first = behind,
            before => self.places[before as usize].behind = behind,
        }
        match behind {
            NONE => self.last = before,
            behind => self.places[behind as usize].before = before,
        }
    }

    fn vacate(&mut self, at: u32) -> Place<A, G> {
        let (state, teller) = (State::Free, Teller::Told);
        let free = Place { state, teller, before: NONE, behind: self.free };
        self.free = at;
        mem::replace(&mut self.places[at as usize], free)
    }
}
