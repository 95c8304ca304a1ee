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
