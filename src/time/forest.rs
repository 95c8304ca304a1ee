//! A slab of timers that are linked into pairing heaps, one for each slot of a wheel.
//!
//! Floor 1. Uses: `deadline`. Used by: `wheel` alone. Knows nothing of: slots, ticks, the present.
//!
//! A slot needs four things of what it holds: to add one, to remove any one, to name the earliest,
//! and to hand out all of them in order. A list does the first two and scans for the third; a
//! pairing heap does them all with the same three links an entry. So the wheel's answer to "when
//! next?" is exact at every moment, without a cache that somebody has to invalidate.
//!
//! # States
//! ```text
//!             add                 join                            join, merge_children
//!   (none) ---------> loose ---------------------> root <-----------------------------> inner
//!            ^          |  ^                         |                                    |
//!            | add      |  +------- detach ----------+------------------------------------+
//!            |          | take
//!            +-- free <-+          a root's `right` is its home; a free entry's is the next free
//! ```
//! The heap of a root A with the children B and C, newest first, and D below B:
//! ```text
//!   A --child--> B --right--> C        left of C is B, left of B is A (a first child's left is its
//!                |                     parent), left of A is NIL
//!                +--child--> D
//! ```
//!
//! # Invariants
//! - `FOREST-1` A child is not earlier than its parent, by (deadline, order): a root is the
//!   earliest of its heap. Orders are never equal, so the sequence is that of a stable sort.
//! - `FOREST-2` A key finds its own entry or nothing: a generation is never used twice by one
//!   index. An index that has used them all is retired: one entry for every 2^32 timers.
//! - `FOREST-3` Only `add` allocates, and only when no entry is free: the slab never outgrows the
//!   most timers that were pending at one time (and the retired).
//!
//! # Source
//! Fredman, Sedgewick, Sleator and Tarjan, "The pairing heap: a new form of self-adjusting heap"
//! (Algorithmica 1, 1986). Differs: an inner entry is replaced by its own children where it stood,
//! so that nobody has to know which heap it is in.

use std::fmt;
use std::num::NonZeroU32;

use super::Deadline;

/// No entry: the end of a list, an empty heap.
pub(super) const NIL: u32 = u32::MAX;

/// Names one timer of one wheel; outlives it harmlessly.
///
/// Eight bytes, and `Option<Key>` too.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Which entry of the slab.
    index: u32,
    /// Which of the timers that have lived there (FOREST-2).
    generation: NonZeroU32,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}#{})", self.index, self.generation)
    }
}

/// One place in the slab: 32 bytes and the value.
#[derive(Debug)]
struct Entry<T> {
    /// When it is due.
    deadline: Deadline,
    /// Which filing this was, counted over the whole forest: the tie-break of equal deadlines.
    order: u64,
    /// The first child, or `NIL`.
    child: u32,
    /// The sibling before this one, the parent if this is the first, `NIL` in a root.
    left: u32,
    /// The sibling after this one or `NIL`; in a root its home, in a free entry the next free one.
    right: u32,
    /// That of the timer that lives here or is the next to do so.
    generation: NonZeroU32,
    /// `None` in a free entry.
    value: Option<T>,
}

/// All the heaps of one wheel, which keeps their roots.
#[derive(Debug)]
pub(super) struct Forest<T> {
    /// Every entry that ever was, in use or free.
    entries: Vec<Entry<T>>,
    /// The first free entry, or `NIL`.
    free: u32,
    /// How many entries are in use.
    len: u32,
    /// The next filing's number. At one a nanosecond it lasts 584 years.
    order: u64,
}

impl<T> Forest<T> {
    /// Makes a forest without entries; allocates nothing.
    pub(super) const fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, len: 0, order: 0 }
    }

    /// Returns how many entries are in use.
    pub(super) const fn len(&self) -> usize {
        self.len as usize
    }

    /// Returns how many entries the slab has, in use or not.
    #[cfg(test)]
    pub(super) const fn slab_len(&self) -> usize {
        self.entries.len()
    }

    /// Adds a loose entry and returns its index.
    ///
    /// # Panics
    /// With 2^32 - 1 entries in the slab.
    #[inline]
    pub(super) fn add(&mut self, deadline: Deadline, value: T) -> u32 {
        let order = self.next_order();
        self.len += 1;
        let index = self.free;
        if index == NIL {
            return self.grow(deadline, order, value);
        }
        let entry = &mut self.entries[index as usize];
        self.free = entry.right;
        entry.deadline = deadline;
        entry.order = order;
        entry.value = Some(value);
        index
    }

    /// The rare half of [`add`](Self::add): a new place at the end of the slab.
    #[cold]
    fn grow(&mut self, deadline: Deadline, order: u64, value: T) -> u32 {
        assert!(self.entries.len() < NIL as usize, "fewer than 2^32 timers");
        self.entries.push(Entry {
            deadline,
            order,
            child: NIL,
            left: NIL,
            right: NIL,
            generation: NonZeroU32::MIN,
            value: Some(value),
        });
        (self.entries.len() - 1) as u32
    }

    /// Frees a loose entry and returns its value; its key finds nothing from now on.
    #[inline]
    pub(super) fn take(&mut self, index: u32) -> Option<T> {
        let entry = &mut self.entries[index as usize];
        let value = entry.value.take();
        self.len -= 1;
        // FOREST-2: where no generation is left, the place is not given out again.
        if let Some(generation) = entry.generation.checked_add(1) {
            entry.generation = generation;
            entry.right = self.free;
            self.free = index;
        }
        value
    }

    /// Returns the key of an entry in use.
    #[inline]
    pub(super) fn key(&self, index: u32) -> Key {
        let generation = self.entries[index as usize].generation;
        Key { index, generation }
    }

    /// Returns the index that `key` names, unless its timer is gone.
    #[inline]
    pub(super) fn find(&self, key: Key) -> Option<u32> {
        let entry = self.entries.get(key.index as usize)?;
        let is_live = entry.generation == key.generation && entry.value.is_some();
        is_live.then_some(key.index)
    }

    /// Returns when an entry is due.
    #[inline]
    pub(super) fn deadline(&self, index: u32) -> Deadline {
        self.entries[index as usize].deadline
    }

    /// Returns what an entry in use holds.
    #[cfg(test)]
    pub(super) fn value(&self, index: u32) -> Option<&T> {
        self.entries[index as usize].value.as_ref()
    }

    /// Gives a loose entry another deadline, as if it had been added now.
    #[inline]
    pub(super) fn redate(&mut self, index: u32, deadline: Deadline) {
        let order = self.next_order();
        let entry = &mut self.entries[index as usize];
        entry.deadline = deadline;
        entry.order = order;
    }

    /// Adds a loose entry to the heap of `root` (or `NIL`) and returns the heap's root, which
    /// remembers `home`. O(1).
    #[inline]
    pub(super) fn join(&mut self, root: u32, index: u32, home: u32) -> u32 {
        debug_assert_eq!(self.entries[index as usize].child, NIL);
        let root = if root == NIL { index } else { self.merge(root, index) };
        self.crown(root, home);
        root
    }

    /// Makes an entry the root of the heap that `home` keeps.
    #[inline]
    pub(super) fn crown(&mut self, index: u32, home: u32) {
        let entry = &mut self.entries[index as usize];
        entry.left = NIL;
        entry.right = home;
    }

    /// Takes an entry out of whichever heap it is in, and leaves it loose.
    ///
    /// Shape: if it was a root, returns its home and the root that follows it there (or `NIL`),
    /// which the caller must store; `None` if the roots are as they were. O(1) for an entry
    /// without children, which most are until something is popped; else O(log n), amortised.
    #[inline]
    pub(super) fn detach(&mut self, index: u32) -> Option<(u32, u32)> {
        let Entry { left, right, .. } = self.entries[index as usize];
        let heir = self.merge_children(index);
        if left == NIL {
            if heir != NIL {
                self.crown(heir, right);
            }
            return Some((right, heir));
        }
        // FOREST-1: the heir is not earlier than the entry was, so neither than its parent.
        let next = if heir == NIL { right } else { heir };
        let before = &mut self.entries[left as usize];
        if before.child == index {
            before.child = next;
        } else {
            before.right = next;
        }
        if heir != NIL {
            let entry = &mut self.entries[heir as usize];
            entry.left = left;
            entry.right = right;
        }
        if right != NIL {
            self.entries[right as usize].left = if heir == NIL { left } else { heir };
        }
        None
    }

    /// Takes a heap apart: calls `visit` with every entry, which is loose by then. O(n).
    ///
    /// The order of the visits is nobody's business: FOREST-1 holds in whatever they are put.
    pub(super) fn dissolve(&mut self, root: u32, mut visit: impl FnMut(&mut Self, u32)) {
        // The entries still to be visited, linked by `right`: a stack in the links of the tree.
        let mut pending = root;
        if root != NIL {
            self.entries[root as usize].right = NIL;
        }
        while pending != NIL {
            let index = pending;
            let entry = &mut self.entries[index as usize];
            pending = entry.right;
            let mut child = std::mem::replace(&mut entry.child, NIL);
            while child != NIL {
                let right = std::mem::replace(&mut self.entries[child as usize].right, pending);
                pending = child;
                child = right;
            }
            visit(self, index);
        }
    }

    /// Merges the children of an entry into one heap, leaves the entry without any, and returns
    /// the heap's root (links to be set by the caller), or `NIL`.
    ///
    /// In pairs from the left, then all from the right: the order of the two passes is what makes
    /// n pops cost O(n log n) and not O(n^2).
    #[inline]
    fn merge_children(&mut self, index: u32) -> u32 {
        let first = std::mem::replace(&mut self.entries[index as usize].child, NIL);
        if first == NIL {
            return NIL;
        }
        let mut pairs = NIL;
        let mut next = first;
        while next != NIL {
            let one = next;
            let two = self.entries[one as usize].right;
            let winner = if two == NIL {
                next = NIL;
                one
            } else {
                next = self.entries[two as usize].right;
                self.merge(one, two)
            };
            self.entries[winner as usize].right = pairs;
            pairs = winner;
        }
        let mut root = pairs;
        let mut next = self.entries[root as usize].right;
        while next != NIL {
            let pair = next;
            next = self.entries[pair as usize].right;
            root = self.merge(root, pair);
        }
        root
    }

    /// Makes the later of two roots the first child of the earlier one, which is returned.
    ///
    /// INVARIANT: FOREST-1, the only place where an entry gets a parent by comparison.
    #[inline]
    fn merge(&mut self, one: u32, two: u32) -> u32 {
        let is_one = self.rank(one) < self.rank(two);
        let (winner, loser) = if is_one { (one, two) } else { (two, one) };
        let first = std::mem::replace(&mut self.entries[winner as usize].child, loser);
        let entry = &mut self.entries[loser as usize];
        entry.left = winner;
        entry.right = first;
        if first != NIL {
            self.entries[first as usize].left = loser;
        }
        winner
    }

    /// Returns what heaps compare: the order of filing breaks the ties of deadlines (FOREST-1).
    #[inline]
    fn rank(&self, index: u32) -> (Deadline, u64) {
        let entry = &self.entries[index as usize];
        (entry.deadline, entry.order)
    }

    /// Counts one filing.
    #[inline]
    fn next_order(&mut self) -> u64 {
        let order = self.order;
        self.order += 1;
        order
    }

    /// Pretends that `key`'s entry has lived through all generations but one, and returns its key.
    #[cfg(test)]
    pub(super) fn age(&mut self, key: Key) -> Key {
        self.entries[key.index as usize].generation = NonZeroU32::MAX;
        self.key(key.index)
    }

    /// Returns how many entries the heap of `root` has, having checked its links and FOREST-1.
    #[cfg(test)]
    pub(super) fn check(&self, root: u32, home: u32, seen: &mut dyn FnMut(Deadline)) -> usize {
        let entry = &self.entries[root as usize];
        assert_eq!((entry.left, entry.right), (NIL, home), "a root knows its home");
        let (mut stack, mut count) = (vec![root], 0);
        while let Some(index) = stack.pop() {
            let entry = &self.entries[index as usize];
            count += 1;
            seen(entry.deadline);
            assert!(entry.value.is_some(), "a heap has no free entry");
            let (mut left, mut child) = (index, entry.child);
            while child != NIL {
                let below = &self.entries[child as usize];
                assert_eq!(below.left, left, "left is the way back");
                let is_later = (entry.deadline, entry.order) < (below.deadline, below.order);
                assert!(is_later, "FOREST-1");
                stack.push(child);
                (left, child) = (child, below.right);
            }
        }
        count
    }
}
