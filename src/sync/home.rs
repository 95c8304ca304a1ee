//! Who has touched a lock: one hub alone, or others too.
//!
//! Floor 5. Used by: `mutex`, `rwlock`.
//!
//! A guard stays on its thread. So while none but one hub has touched a lock, nobody but that hub's
//! greenlets can hold it, and main's wait for it is known to be for ever when none of them can run.

use crate::hub::Hub;

/// Who asks: the hub with this number; or somebody who is not known to stay on its thread.
pub(super) type Asker = Option<u64>;

pub(super) fn asker() -> Asker {
    Hub::current().map(Hub::number)
}

/// The hub that touched a lock first, and whether it was the only one.
pub(super) struct Home {
    /// 0 for none yet.
    hub: u64,
    is_open: bool,
}

impl Home {
    pub(super) const fn none() -> Home {
        Home { hub: 0, is_open: false }
    }

    #[inline(always)]
    pub(super) fn touch(&mut self, asker: Asker) {
        match asker {
            Some(hub) if self.hub == 0 => self.hub = hub,
            asker => self.is_open |= asker != Some(self.hub),
        }
    }

    /// Whether somebody else has touched it too.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }
}
