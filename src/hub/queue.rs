//! The run queue: an intrusive first-in, first-out list through the control blocks.
//!
//! Floor 4. Uses: `control`. Used by: `hub`. No allocation: a greenlet is in at most one queue.

use std::cell::Cell;

use super::control::Ctl;

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

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.ends.get().is_none()
    }
}

/// How many greenlets are prefetched at a time.
const LOOKAHEAD: u32 = 8;

/// Prefetches the greenlets that come next in a run queue, some at a time: each is on a page of its
/// own, and the processor translates several addresses at once if it meets them together.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    /// How many of the next ones were prefetched.
    done: u32,
}

impl Lookahead {
    /// `popped` has just been taken from the queue. Returns how many of the next ones, that were
    /// not looked at before, have no stack yet.
    #[inline(always)]
    pub(super) fn follow(&mut self, popped: Ctl) -> u32 {
        if self.done > 0 {
            self.done -= 1;
            return 0;
        }
        let mut fresh = 0;
        let mut at = popped;
        while self.done < LOOKAHEAD {
            let Some(next) = at.next.get() else { break };
            if next.is_fresh() {
                fresh += 1;
            } else {
                next.prefetch();
            }
            at = next;
            self.done += 1;
        }
        fresh
    }
}
