//! Calls of a guest that are made elsewhere: on its hub's base, or by another OS thread.
//!
//! Floor 8. Uses: `hub::guest`, `dns`. Used by: `names`, `child`, `thread`.
//!
//! Some functions of libc must find the OS thread's own control block: those that walk the list of
//! threads, or copy it into a child. Others block, and nothing can be tried first. Those are made
//! by another OS thread, while the guest is parked.
//!
//! # Invariants
//!
//! - `ELSEWHERE-1` What another OS thread works on is its own: it may go on when the guest that
//!   asked has been killed, and has returned from the frame that it asked in.

#![expect(unsafe_code, reason = "pointers go to other threads")]
//! # Safety
//!
//! Nothing here follows a pointer.

use libc::{EAGAIN, ECANCELED, EIO, ETIMEDOUT, c_int};

use super::early::{errno, set_errno};
use crate::{
    dns::Asked,
    hub::{
        Hub,
        guest::{self, Ended, Guest, guest},
        park::{WaitOn, Wake},
    },
    time::Deadline,
};

/// A value that may go to another thread, though it is made of pointers.
pub(super) struct Sent<T>(T);

// SAFETY: whoever makes one has promised it.
unsafe impl<T> Send for Sent<T> {}

impl<T> Sent<T> {
    /// # Safety
    ///
    /// Any thread may use the value as it will be used, and nobody does so at the same time.
    pub(super) unsafe fn new(value: T) -> Sent<T> {
        Sent(value)
    }

    pub(super) fn into_inner(self) -> T {
        self.0
    }
}

/// Makes `call` on the base of this OS thread, where libc finds the thread in its lists: from a
/// guest's base, from that of a guest whose hub runs inside another one, and from what either has
/// become in the child of a fork. errno goes there and comes back.
#[inline]
pub(super) fn on_libcs_base<R>(call: impl FnOnce() -> R) -> R {
    if guest::is_at_home() {
        return call(); // A plain frame: HOOK-2.
    }
    let (mut call, mut result) = (Some(call), None);
    go_home(&mut || result = call.take().map(|call| call()));
    result.expect("it has been called")
}

fn go_home(call: &mut dyn FnMut()) {
    if guest::is_at_home() {
        return call();
    }
    let (before, mut after) = (errno(), 0);
    let mut there = || {
        set_errno(before);
        go_home(call);
        after = errno();
    };
    match guest() {
        Some(guest) => guest.enter(|_| there()),
        None => guest::at_home(&mut there),
    }
    set_errno(after);
}

/// Which OS threads make calls for guests.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// The few that resolve names.
    Resolver,
    /// One that is started for the call, which may take as long as it likes.
    NewThread,
}

/// Has an OS thread make `call`, while the guest is parked.
///
/// # Errors
///
/// errno: `ECANCELED` of a guest that is killed, `ETIMEDOUT` when a timeout around the call has
/// elapsed; `EAGAIN` when no thread can be started; `EIO` if the call panics. The call may go on.
pub(super) fn by_another_thread<T: Send + 'static>(
    guest: Guest,
    by: By,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, c_int> {
    let mut asked = None;
    let _owed = guest.hub().reactor.owe();
    let ended = guest.wait(WaitOn::Offload, Deadline::NEVER, |hub, wake| {
        asked = Some(begin(by, hub, wake, call));
    });
    let asked = asked.unwrap_or(Err(EIO))?;
    check(ended)?;
    asked.take().ok_or(EIO)
}

/// As [`by_another_thread`], of a call that works on what is the guest's: nothing ends it early.
pub(super) fn by_another_thread_to_its_end<T: Send + 'static>(
    guest: Guest,
    by: By,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, c_int> {
    let mut asked = None;
    let _owed = guest.hub().reactor.owe();
    guest.wait_out(WaitOn::Offload, Deadline::NEVER, |hub, wake| {
        asked = Some(begin(by, hub, wake, call));
    });
    asked.unwrap_or(Err(EIO))?.take().ok_or(EIO)
}

/// Begins a call. If it cannot be begun, it is dropped, and with it the end that wakes: so nobody
/// waits for nothing.
fn begin<T: Send + 'static>(
    by: By,
    hub: &Hub,
    wake: Wake,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<Asked<T>, c_int> {
    let begun = match by {
        By::Resolver => Asked::of_resolver(hub, wake, call),
        By::NewThread => Asked::of_a_new_thread(hub, wake, call),
    };
    begun.map_err(|error| error.raw_os_error().unwrap_or(EAGAIN))
}

/// What errno says of a wait that was not for a time.
pub(super) fn check(ended: Ended) -> Result<(), c_int> {
    match ended {
        Ended::Woken => Ok(()),
        Ended::TimedOut | Ended::Elapsed => Err(ETIMEDOUT),
        Ended::Killed => Err(ECANCELED),
        Ended::Refused(error) => Err(error.raw_os_error()),
    }
}
