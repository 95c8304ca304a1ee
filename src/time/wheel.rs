//! A timer wheel that is exact to the nanosecond.
//!
//! Floor 1. Uses: `deadline`, `forest`. Used by: `reactor`, `testing`. Knows nothing of: clocks,
//! what the values are, who waits for them.
//!
//! Time is cut into ticks of 2^16 ns. A timer whose tick has come is in the heap of the due; every
//! other one is in the slot of the highest group of six bits in which its tick differs from the
//! present one. Six-bit groups: a level's occupancy is one word. Ticks of 16 bits: eight levels of
//! six are the other 48, so the range of `u64` is covered with nothing over; a tick, 65.5 us, is
//! short enough that a hundred thousand timers in 100 ms share it by the sixties, and long enough
//! that they pass through two levels, not three (with ticks of 2^10 ns, timers of 100 s cost a
//! fifth more). Within a slot a pairing heap keeps the exact order.
//!
//! ```text
//!   tick     = | 6 | 6 | 6 | 6 | 6 | 6 | 6 | 6 |   then 16 bits within the tick
//!   level        7   6   5   4   3   2   1   0
//!   a slot is  9y  52d 20h 18m 17s .27s 4ms 65us   long
//! ```
//!
//! # States
//! ```text
//!              insert, reset             advance (never skips: stops at each slot's start)
//!   (outside) ---------------> slot, level n ---------> slot, lower level ---------> due
//!       ^            |               |  cancel, reset       |                         |
//!       |            +--- its tick has come: straight to due (a late one is earlier than the rest)
//!       +----------------------------+----------------------+-------- pop_due --------+
//! ```
//!
//! # Invariants
//! - `WHEEL-1` A timer in a slot has a later tick than the present one, shares with it all groups
//!   above its level, and has the slot's number in the group of its level. Hence every timer of a
//!   level is earlier than every timer of the levels above, and within a level slots are in order.
//! - `WHEEL-2` A timer is due exactly if its tick is not later than the present one; so all of the
//!   due are earlier than all of the slots.
//! - `WHEEL-3` A slot's bit is set exactly if it has a root.
//!
//! # Costs
//! `insert` (but for growth), `next_deadline`, `deadline`, `get`: O(1). `cancel`, `reset`: O(1) for
//! a timer that has none below it in its heap, else amortised O(log k), where k is how many share
//! the slot.
//! `pop_due`: amortised O(log k), and at most one re-filing for each level but the lowest in a
//! timer's life: one for most timers within 0.27 s, seven at the worst. n timers from `insert` to
//! `pop_due`, with `next_deadline` after each step: O(n log k). Nothing is scanned, so nothing is
//! quadratic.
//! Memory: 2 KiB, and 32 bytes and an `Option` of the value for each timer of the peak (FOREST-3).
//!
//! # Source
//! Varghese and Lauck, "Hashed and hierarchical timing wheels" (SOSP 1987), scheme 7. Differs: no
//! tick is ever visited that has nothing in it, and a slot is a heap instead of a list, because a
//! virtual clock jumps to the next deadline and must hit it.

use std::fmt;

use super::Deadline;
use super::forest::{Forest, Key, NIL};

/// The bits of a deadline below its tick: see the module's text for why sixteen.
const TICK_BITS: u32 = 16;
/// The bits of a group, so that 2^6 slots fill one word of occupancy.
const GROUP_BITS: u32 = 6;
/// The slots of a level.
const SLOTS: usize = 1 << GROUP_BITS;
/// The levels: as many groups as a tick has.
const LEVELS: usize = ((u64::BITS - TICK_BITS) / GROUP_BITS) as usize;
/// The home of the due, after those of the slots.
const DUE: usize = LEVELS * SLOTS;

const _: () =
    assert!(TICK_BITS + GROUP_BITS * LEVELS as u32 == u64::BITS, "the levels cover every deadline");

/// Timers of one clock, each with a value that is handed back when it is due.
pub(crate) struct Wheel<T> {
    /// The present tick: what WHEEL-1 and WHEEL-2 are relative to. Never goes back.
    tick: u64,
    /// The timers.
    forest: Forest<T>,
    /// For each level, which of its slots have a root (WHEEL-3).
    occupied: [u64; LEVELS],
    /// The roots of the slots, level by level from the lowest, and last that of the due.
    roots: [u32; DUE + 1],
}

impl<T> Wheel<T> {
    /// Makes an empty wheel whose present is `now`; allocates nothing.
    #[must_use]
    pub(crate) const fn new(now: Deadline) -> Self {
        Self {
            tick: now.as_nanos() >> TICK_BITS,
            forest: Forest::new(),
            occupied: [0; LEVELS],
            roots: [NIL; DUE + 1],
        }
    }

    /// Returns how many timers are filed.
    #[must_use]
    pub(crate) const fn len(&self) -> usize {
        self.forest.len()
    }

    /// Tells whether no timer is filed.
    #[cfg(test)]
    pub(crate) const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Files a timer and returns the key that cancels it. O(1).
    ///
    /// Shape: a deadline in the past is due at the next [`pop_due`](Self::pop_due), before all
    /// later ones. [`Deadline::NEVER`] is not for filing: whoever waits for ever needs no timer.
    ///
    /// # Panics
    /// With 2^32 - 1 timers; in debug builds, when `deadline` is `NEVER`.
    #[inline]
    pub(crate) fn insert(&mut self, deadline: Deadline, value: T) -> Key {
        debug_assert!(!deadline.is_never(), "never is not filed");
        let index = self.forest.add(deadline, value);
        self.file(index);
        self.forest.key(index)
    }

    /// Removes a timer and returns its value; `None` if it is gone already.
    #[inline]
    pub(crate) fn cancel(&mut self, key: Key) -> Option<T> {
        let index = self.forest.find(key)?;
        self.unfile(index);
        self.forest.take(index)
    }

    /// Files a timer anew, with another deadline or the same, as if it were inserted now; keeps
    /// its key and its value. Returns `false`, having done nothing, if the timer is gone.
    ///
    /// # Panics
    /// In debug builds, when `deadline` is [`Deadline::NEVER`].
    #[inline]
    pub(crate) fn reset(&mut self, key: Key, deadline: Deadline) -> bool {
        debug_assert!(!deadline.is_never(), "never is not filed");
        let Some(index) = self.forest.find(key) else {
            return false;
        };
        self.unfile(index);
        self.forest.redate(index, deadline);
        self.file(index);
        true
    }

    /// Returns when a timer is due; `None` if it is gone.
    #[cfg(test)]
    pub(crate) fn deadline(&self, key: Key) -> Option<Deadline> {
        Some(self.forest.deadline(self.forest.find(key)?))
    }

    /// Returns a timer's value; `None` if it is gone.
    #[cfg(test)]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.forest.value(self.forest.find(key)?)
    }

    /// Returns the earliest deadline of all, exactly, or `None` without timers. O(1), no scan: the
    /// root of the due, else that of the first occupied slot (WHEEL-1, WHEEL-2, FOREST-1).
    #[must_use]
    #[inline]
    pub(crate) fn next_deadline(&self) -> Option<Deadline> {
        let home = if self.roots[DUE] == NIL { self.first_slot()? } else { DUE };
        Some(self.forest.deadline(self.roots[home]))
    }

    /// Removes the earliest timer, if its deadline is not later than `now`, and returns its value.
    ///
    /// Shape: called until `None`, it yields all that are due, by deadline, equal ones in the order
    /// of their filing. Timers may be filed and cancelled between the calls; one filed with a
    /// deadline before the present is yielded next.
    /// Units: `now` is on the clock of the deadlines. It may be any time later than the last one;
    /// an earlier one yields less and harms nothing.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Deadline) -> Option<T> {
        while self.roots[DUE] == NIL {
            if !self.advance(now.as_nanos() >> TICK_BITS) {
                return None;
            }
        }
        let root = self.roots[DUE];
        if self.forest.deadline(root) > now {
            return None;
        }
        self.unfile(root);
        self.forest.take(root)
    }

    /// Hands to `sink` everything that is due, in the order of [`pop_due`](Self::pop_due).
    ///
    /// # Panics
    /// When `sink` does: the timer that it was given is gone, all others are as they were.
    #[cfg(test)]
    pub(crate) fn expire(&mut self, now: Deadline, sink: &mut impl FnMut(T)) {
        while let Some(value) = self.pop_due(now) {
            sink(value);
        }
    }

    /// Moves the present to the first occupied slot, if that starts by `now_tick`, and files its
    /// timers anew, lower; else moves it to `now_tick` and returns `false`.
    ///
    /// To be called when nothing is due. WHEEL-1 survives both: between the old present and the
    /// new one there is no timer, so no timer's highest differing group changes, except for those
    /// of the slot, which are filed anew.
    fn advance(&mut self, now_tick: u64) -> bool {
        debug_assert_eq!(self.roots[DUE], NIL, "WHEEL-2: the due are handed out first");
        let first = self.first_slot();
        let Some((home, start)) = first.map(|home| (home, self.start_of(home))) else {
            self.tick = self.tick.max(now_tick);
            return false;
        };
        if start > now_tick {
            self.tick = self.tick.max(now_tick);
            return false;
        }
        self.tick = start;
        let root = self.roots[home];
        self.set_root(home, NIL);
        if home < SLOTS {
            // A slot of the lowest level is one tick long: its heap is that of the due.
            self.forest.crown(root, DUE as u32);
            self.roots[DUE] = root;
        } else {
            self.spread(root);
        }
        true
    }

    /// Files every timer of a heap anew.
    fn spread(&mut self, root: u32) {
        let (tick, roots, occupied) = (self.tick, &mut self.roots, &mut self.occupied);
        self.forest.dissolve(root, |forest, index| {
            let home = home_of(tick, forest.deadline(index));
            roots[home] = forest.join(roots[home], index, home as u32);
            if let Some(word) = occupied.get_mut(home / SLOTS) {
                *word |= 1 << (home % SLOTS);
            }
        });
    }

    /// Puts a loose entry where it belongs.
    #[inline]
    fn file(&mut self, index: u32) {
        let home = home_of(self.tick, self.forest.deadline(index));
        let root = self.forest.join(self.roots[home], index, home as u32);
        self.set_root(home, root);
    }

    /// Takes an entry from where it is, and leaves it loose.
    #[inline]
    fn unfile(&mut self, index: u32) {
        if let Some((home, root)) = self.forest.detach(index) {
            self.set_root(home as usize, root);
        }
    }

    /// Stores the root of a home.
    ///
    /// INVARIANT: WHEEL-3. The due have no bit: `occupied` ends before them.
    #[inline]
    fn set_root(&mut self, home: usize, root: u32) {
        self.roots[home] = root;
        if let Some(word) = self.occupied.get_mut(home / SLOTS) {
            let bit = 1 << (home % SLOTS);
            *word = if root == NIL { *word & !bit } else { *word | bit };
        }
    }

    /// Returns the occupied slot with the earliest timers: the first of the lowest level.
    #[inline]
    fn first_slot(&self) -> Option<usize> {
        let level = self.occupied.iter().position(|&word| word != 0)?;
        Some(level * SLOTS + self.occupied[level].trailing_zeros() as usize)
    }

    /// Returns the first tick of a slot: the groups above its level are the present's (WHEEL-1).
    #[inline]
    fn start_of(&self, home: usize) -> u64 {
        let shift = GROUP_BITS * (home / SLOTS) as u32;
        let slot_mask = (SLOTS as u64 - 1) << shift;
        let below_mask = (1 << shift) - 1;
        (self.tick & !slot_mask & !below_mask) | ((home % SLOTS) as u64) << shift
    }

    /// Returns how many places the slab has: the peak of `len`.
    #[cfg(test)]
    pub(super) fn slab_len(&self) -> usize {
        self.forest.slab_len()
    }

    /// Pretends that `key`'s place in the slab has one generation left, and returns its key.
    #[cfg(test)]
    pub(super) fn age(&mut self, key: Key) -> Key {
        self.forest.age(key)
    }

    /// Checks every invariant of the module by brute force.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut count = 0;
        for (home, &root) in self.roots.iter().enumerate() {
            if let Some(word) = self.occupied.get(home / SLOTS) {
                let is_occupied = word & 1 << (home % SLOTS) != 0;
                assert_eq!(is_occupied, root != NIL, "WHEEL-3");
            }
            if root != NIL {
                count += self.forest.check(root, home as u32, &mut |deadline| {
                    assert_eq!(home_of(self.tick, deadline), home, "WHEEL-1, WHEEL-2");
                });
            }
        }
        assert_eq!(count, self.len(), "every timer is in one heap");
    }
}

/// Returns the home of a deadline, as seen from the tick `present` (WHEEL-1, WHEEL-2).
#[inline]
fn home_of(present: u64, deadline: Deadline) -> usize {
    let tick = deadline.as_nanos() >> TICK_BITS;
    if tick <= present {
        return DUE;
    }
    let level = (tick ^ present).ilog2() / GROUP_BITS;
    let slot = (tick >> (GROUP_BITS * level)) as usize % SLOTS;
    level as usize * SLOTS + slot
}

impl<T> fmt::Debug for Wheel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}
