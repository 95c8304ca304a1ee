//! The run queue: an intrusive first-in, first-out list through the control blocks.
//!
//! Floor 4. Uses: `control`. Used by: `hub`. No allocation: a greenlet is in at most one queue.

use std::cell::Cell;

use super::control::{Ctl, State};

/// Greenlets that are ready, in the order in which they became so.
#[derive(Debug, Default)]
pub(super) struct RunQueue {
    ends: Cell<Option<(Ctl, Ctl)>>,
}

impl RunQueue {
    /// Puts a greenlet at the end. It must be in no queue.
    #[inline]
    pub(super) fn push(&self, ctl: Ctl) {
        ctl.next.set(None);
        let head = match self.ends.get() {
            None => ctl,
            Some((head, tail)) => {
                tail.next.set(Some(ctl));
                head
            }
        };
        self.ends.set(Some((head, ctl)));
    }

    /// Takes the first one.
    #[inline]
    pub(super) fn pop(&self) -> Option<Ctl> {
        let (head, tail) = self.ends.get()?;
        self.ends.set(head.next.get().map(|next| (next, tail)));
        Some(head)
    }

    /// Appends all of `other`, which is empty afterwards.
    #[inline]
    pub(super) fn append(&self, other: &RunQueue) {
        let Some((first, last)) = other.ends.take() else { return };
        let head = match self.ends.get() {
            None => first,
            Some((head, tail)) => {
                tail.next.set(Some(first));
                head
            }
        };
        self.ends.set(Some((head, last)));
    }

    /// How many there are, counted up to `most`.
    pub(super) fn len_up_to(&self, most: usize) -> usize {
        let first = self.ends.get().map(|(head, _)| head);
        std::iter::successors(first, |ctl| ctl.next.get()).take(most).count()
    }

    /// Takes the one that has `before` others before it; it must be there.
    pub(super) fn take(&self, before: usize) -> Ctl {
        let passed = RunQueue::default();
        (0..before).filter_map(|_| self.pop()).for_each(|ctl| passed.push(ctl));
        let taken = self.pop().expect("the queue is long enough");
        passed.append(self);
        self.ends.set(passed.ends.take());
        taken
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ends.get().is_none()
    }
}

/// How far ahead of the greenlet that is resumed others are prefetched.
const LOOKAHEAD: u32 = 4;

/// Prefetches the greenlets that come next in a run queue, a few resumes before their turn: first
/// the block, and, once that is here and says where it is, the stack. One that has yielded was here
/// a moment ago: only its page has to be looked up. One that was woken may have been away for long.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    /// The last one whose block was prefetched.
    scout: Option<Ctl>,
    /// How many places it is behind the one that runs.
    lead: u32,
}

impl Lookahead {
    /// `popped` has just been taken from the queue. Calls `fresh` for each of the next ones that
    /// has no stack yet, with its distance.
    #[inline(always)]
    pub(super) fn follow(&mut self, popped: Ctl, mut fresh: impl FnMut(u32)) {
        let mut scout = match self.scout {
            Some(scout) if self.lead > 0 => scout,
            _ => {
                self.lead = 1;
                popped
            }
        };
        self.lead -= 1;
        while self.lead < LOOKAHEAD {
            let Some(next) = scout.next.get() else { break };
            next.prefetch_block();
            if self.lead > 0 {
                match scout.state.get() {
                    State::New => fresh(self.lead),
                    State::Ready => scout.prefetch_stack(),
                    _ => scout.prefetch_base(),
                }
            }
            scout = next;
            self.lead += 1;
        }
        self.scout = Some(scout);
    }
}
