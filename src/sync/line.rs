//! The line: who waits for a primitive, first come first served, and what each was granted.
//!
//! Floor 5. Uses: `signal`. Used by: `lane`, which holds the lock around it, and the primitives'
//! rules.
//!
//! # States
//!
//! Of one place in the line. Every edge is taken under the lock of its primitive, so each race
//! between them has one winner:
//! ```text
//!               ┌──────── leave: the ask is handed back ────────┐
//!               │                                               ▼
//! free ──join──▶ Waiting(ask) ──grant (by whoever releases)──▶ Granted(grant) ──▶ free
//!                    │  ▲                                        │
//!                    └──┘ renew: another Waker        collect: the waiter has it
//!                                                     leave: the grant goes to the next in line
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
//! - `LINE-1` A place belongs to one waiter from `join` until `collect` or `leave`: nobody else
//!   names it, so it needs no number against reuse.
//! - `LINE-2` The list has exactly the places that are `Waiting`, in the order of their coming.
//!   What was granted is in no list, so one grant has one owner.
//! - `LINE-3` A grant puts the waiter's signal among those that are due. They are given when the
//!   lock is free again: no wake, and no code of the user's, runs under it.

use super::signal::{Signal, Signals};

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

struct Place<A, G> {
    state: State<A, G>,
    /// How its waiter is told. None once it was.
    signal: Option<Signal>,
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
    /// Whom to tell when the lock is free again (`LINE-3`).
    due: Signals,
}

impl<A, G> Line<A, G> {
    pub(super) const fn new() -> Line<A, G> {
        Line { places: Vec::new(), free: NONE, first: NONE, last: NONE, due: Signals::new() }
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
    pub(super) fn join(&mut self, ask: A, signal: Signal) -> Key {
        let place = Place {
            state: State::Waiting(ask),
            signal: Some(signal),
            before: self.last,
            behind: NONE,
        };
        let at = match self.free {
            NONE => {
                self.places.push(place);
                u32::try_from(self.places.len() - 1).expect("fewer than 2^32 waiters")
            }
            at => {
                self.free = self.places[at as usize].behind;
                self.places[at as usize] = place;
                at
            }
        };
        match self.last {
            NONE => self.first = at,
            last => self.places[last as usize].behind = at,
        }
        self.last = at;
        Key(at)
    }

    /// Grants something to the first in line, who must be there, for what `decide` makes of what it
    /// asks.
    pub(super) fn grant(&mut self, decide: impl FnOnce(A) -> G) {
        let at = self.first;
        self.unlink(at);
        let place = &mut self.places[at as usize];
        let State::Waiting(ask) = std::mem::replace(&mut place.state, State::Free) else {
            unreachable!("LINE-2: who is in the list waits");
        };
        place.state = State::Granted(decide(ask));
        self.due.extend(place.signal.take());
    }

    /// Grants to the first in line as long as `serve` has something for what it asks.
    pub(super) fn serve(&mut self, mut serve: impl FnMut(&A) -> Option<G>) {
        while let Some(grant) = self.first().and_then(&mut serve) {
            self.grant(|_| grant);
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
        let Place { state, signal, .. } = self.vacate(key.0);
        // A Waker: dropping it is code of others.
        self.due.discard(signal);
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
        let old = self.places[key.0 as usize].signal.replace(signal);
        self.due.discard(old);
    }

    /// Whom to tell, and what to drop, once the lock is free.
    pub(super) fn take_due(&mut self) -> Signals {
        std::mem::replace(&mut self.due, Signals::new())
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
        let free = Place { state: State::Free, signal: None, before: NONE, behind: self.free };
        self.free = at;
        std::mem::replace(&mut self.places[at as usize], free)
    }
}
