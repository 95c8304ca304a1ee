//! [`Killed`]: that a greenlet was asked to end, and why.
//!
//! Floor 4. Uses: `control`, `deferred` for its `Failure`. Used by: `join`, `park`, `run`, `spawn`,
//! `bridge`.
//!
//! A reason has one owner at first, whoever kills, and then many: the greenlet's own calls that
//! fail, its joiner, its links. So it is shared. The greenlet keeps its share with what is rare,
//! and lets go of it on its own stack, since a reason's destructor is code of the user's.

use std::{error::Error, fmt, sync::Arc};

use super::{
    Hub,
    control::{Ctl, Kill},
    kept::guard,
    timeout::shield,
    unwind,
};
use crate::Failure;

/// Why a greenlet was killed, shared by all who are told.
pub(super) type Reason = Arc<Failure>;

/// A greenlet was killed: what its joiner gets, and what its own fallible calls get where a kill
/// cannot unwind.
///
/// Two are equal if they are of the same kill, or both without a reason.
///
/// # Examples
///
/// ```
/// use greenloop::{Failure, JoinError, run, sleep, spawn, yield_now};
/// use std::time::Duration;
/// let ended = run(|| {
///     let session = spawn(|| sleep(Duration::from_secs(3600)));
///     yield_now();
///     session.kill_with(Failure::msg("logged in elsewhere"));
///     session.join()
/// });
/// let Err(JoinError::Killed(killed)) = ended else { panic!() };
/// assert_eq!(killed.to_string(), "the greenlet was killed: logged in elsewhere");
/// assert!(killed.reason().is_some());
/// ```
///
/// # Source
///
/// gevent `GreenletExit`, and the `exception` of its `kill`.
#[derive(Debug, Clone)]
pub struct Killed {
    reason: Option<Reason>,
}

impl Killed {
    /// A kill for no reason that was said.
    pub(crate) fn plain() -> Killed {
        Killed { reason: None }
    }

    /// A kill for this reason.
    pub(super) fn because(reason: impl Into<Failure>) -> Killed {
        Killed { reason: Some(Arc::new(reason.into())) }
    }

    /// How the current greenlet was killed.
    pub(crate) fn of_current() -> Killed {
        let reason = unwind::here().and_then(|ctl| ctl.rare_if_any(|rare| rare.reason.clone()));
        Killed { reason: reason.flatten() }
    }

    /// Lets go of the reason for which the current greenlet was killed, if there is one: at its
    /// end, for the destructor is code of the user's, and must not run where nothing can catch it.
    #[inline]
    pub(super) fn forget(ctl: Ctl) {
        if ctl.kill.get() != Kill::None
            && let Some(reason) = ctl.rare_if_any(|rare| rare.reason.take()).flatten()
        {
            Killed { reason: Some(reason) }.discard();
        }
    }

    /// Drops it where nobody can be told what the destructor of its reason panics with. As during
    /// the unwind of a kill, that may block all the same.
    pub(super) fn discard(self) {
        guard("the destructor of a kill's reason", || shield(|| drop(self)));
    }

    /// Why it was killed, if the killer said it: see [`Greenlet::kill_with`].
    ///
    /// [`Greenlet::kill_with`]: crate::Greenlet::kill_with
    pub fn reason(&self) -> Option<&Failure> {
        self.reason.as_deref()
    }
}

impl PartialEq for Killed {
    fn eq(&self, other: &Killed) -> bool {
        self.reason.as_ref().map(Arc::as_ptr) == other.reason.as_ref().map(Arc::as_ptr)
    }
}

impl Eq for Killed {}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the greenlet was killed")?;
        match self.reason() {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl Error for Killed {}

impl Hub {
    /// Asks a greenlet to end, and tells it why. The first kill counts, with its reason.
    pub(super) fn kill_as(&self, ctl: Ctl, killed: Killed) {
        let Killed { reason } = killed;
        if reason.is_some() && ctl.kill.get() == Kill::None {
            ctl.rare(|rare| rare.reason = reason);
        }
        self.kill(ctl);
    }
}
