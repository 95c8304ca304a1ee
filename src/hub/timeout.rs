//! Time for greenlets: sleeping, yielding, timeouts, and shields against both kill and timeout.
//!
//! Floor 4. Uses: `park`, `unwind`. Used by: users.
//!
//! A timeout is a deadline that every wait inside it takes into account: it costs no timer of its
//! own. It is recognised by identity, so nested ones never swallow each other.
//!
//! # Source
//!
//! trio's cancel scopes; gevent `Timeout`, `sleep`.

use std::{error::Error, fmt, time::Duration};

use super::{
    Hub,
    control::Ctl,
    guest,
    park::{CannotPark, Mode, Wait, WaitOn},
    unwind::{self, Frame, Payload},
};
use crate::time::Deadline;

/// The time given to something has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed(pub(super) ());

impl Elapsed {
    pub(crate) fn new() -> Elapsed {
        Elapsed(())
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time limit has elapsed")
    }
}

impl Error for Elapsed {}

/// The hub and the current greenlet, for calls that cannot fail.
#[track_caller]
#[inline(always)]
pub(super) fn here(name: &str) -> (&'static Hub, Ctl) {
    let Some(hub) = Hub::current() else { refuse(name, CannotPark::no_hub()) };
    (hub, may_park(hub, name))
}

/// As [`here`], also in the code of a guest: for calls that do not wait themselves.
#[track_caller]
pub(super) fn here_or_guest(name: &str) -> (&'static Hub, Ctl) {
    // On the thread-locals of a guest there may be a hub, whose greenlets come first.
    match guest::guest().filter(|_| Hub::current().is_none()) {
        Some(guest) => (guest.hub(), guest.ctl()),
        None => here(name),
    }
}

/// Makes the same call again in the hub of the guest that calls.
#[cold]
#[track_caller]
pub(super) fn enter_for<T>(name: &str, call: impl FnOnce() -> T) -> T {
    match guest::guest() {
        Some(guest) => guest.enter(|_| call()),
        None => refuse(name, CannotPark::OutsideRun),
    }
}

#[track_caller]
#[inline(always)]
fn may_park(hub: &Hub, name: &str) -> Ctl {
    match hub.may_park() {
        Ok(ctl) => ctl,
        Err(why) => refuse(name, why),
    }
}

#[cold]
#[track_caller]
fn refuse(name: &str, why: CannotPark) -> ! {
    panic!("greenloop::{name}: {why}");
}

/// Lets the other greenlets run before the current one goes on. While greenlets do nothing but
/// yield, IO and timers are looked at every 50 us or 256 yields.
///
/// # Panics
///
/// Outside [`run`](crate::run), and on the hub's own stack.
///
/// # Cancellation
///
/// Cancellation point: always. Infallible: where a kill cannot unwind, it stays pending.
///
/// # Source
///
/// gevent `sleep(0)`; [`std::thread::yield_now`].
#[inline(always)]
#[track_caller]
pub fn yield_now() {
    let Some(hub) = Hub::current() else { return enter_for("yield_now", yield_now) };
    let ctl = may_park(hub, "yield_now");
    let _ = ctl.interrupts(Mode::Infallible);
    hub.requeue(ctl);
    let _ = ctl.interrupts(Mode::Infallible);
}

/// Parks the current greenlet for `duration`.
///
/// Units: it never wakes early. It may wake late by about 0.1 ms, because near deadlines share a
/// wakeup, and by what the other greenlets take. Zero yields.
///
/// # Panics
///
/// Outside [`run`](crate::run), and on the hub's own stack.
///
/// # Cancellation
///
/// Cancellation point: always. Infallible: where a kill cannot unwind, it sleeps on.
///
/// # Source
///
/// gevent `sleep`; [`std::thread::sleep`].
#[inline]
#[track_caller]
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        return yield_now();
    }
    let Some(hub) = Hub::current() else { return enter_for("sleep", || sleep(duration)) };
    let ctl = may_park(hub, "sleep");
    let _ = ctl.interrupts(Mode::Infallible);
    let deadline = hub.deadline_in(duration);
    let wait = Wait::begin(hub, WaitOn::Sleep).expect("checked above");
    // Nobody has the wait's wake, so only the deadline ends it.
    let _ = wait.park(deadline, Mode::Infallible);
}

/// Parks the current greenlet until `deadline`; one that has passed yields.
///
/// Units: `deadline` is absolute on the reactor's clock ([`Reactor::now`](crate::Reactor::now)).
///
/// # Panics, Cancellation
///
/// As [`sleep`].
///
/// # Source
///
/// trio `sleep_until`.
#[track_caller]
pub fn sleep_until(deadline: Deadline) {
    let Some(hub) = Hub::current() else {
        return enter_for("sleep_until", || sleep_until(deadline));
    };
    let ctl = may_park(hub, "sleep_until");
    if deadline <= hub.reactor.fresh_now() {
        return yield_now();
    }
    let _ = ctl.interrupts(Mode::Infallible);
    let wait = Wait::begin(hub, WaitOn::Sleep).expect("checked above");
    let _ = wait.park(deadline, Mode::Infallible);
}

/// Runs `f`, and unwinds out of it when it takes longer than `limit`.
///
/// Shape: the first cancellation point inside `f` that is reached or waited in after the deadline
/// unwinds up to here. If `f` returns, its value counts, however late.
///
/// # Errors
///
/// [`Elapsed`]: this time limit, and no other, has passed. Nested ones are told apart: the
/// outermost that has passed wins.
///
/// # Panics
///
/// Outside [`run`](crate::run); and with whatever `f` panics with.
///
/// # Cancellation
///
/// Destructors in `f` run. `f` must not be relied on to have done anything half: per-call limits
/// (`set_read_timeout`, `connect_timeout`, `wait_for_deferred_timeout`) say exactly what was done.
/// Inside [`shield`] an outer timeout is held back. With `panic = "abort"` a timeout cannot unwind,
/// and only per-call limits work.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// greenloop::run(|| {
///     let slow = greenloop::timeout(Duration::from_millis(5), || {
///         greenloop::sleep(Duration::from_secs(3600))
///     });
///     assert!(slow.is_err());
/// });
/// ```
///
/// # Source
///
/// gevent `with_timeout`; trio `fail_after`.
#[track_caller]
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    let (hub, ctl) = here_or_guest("timeout");
    limited(hub, ctl, hub.deadline_in(limit), f)
}

/// Runs `f`, and unwinds out of it when it has not ended at `deadline`: [`timeout`] for a point in
/// time that is known already, from [`deadline`](deadline()) or a caller.
///
/// Shape: of it and the time limits around it, the earliest counts.
/// Units: `deadline` is absolute on the reactor's clock ([`Reactor::now`](crate::Reactor::now)).
/// One that has passed strikes at the first cancellation point.
///
/// # Errors, Panics, Cancellation
///
/// As [`timeout`].
///
/// # Examples
///
/// A greenlet that is spawned is on its own; this one is given its spawner's deadline:
/// ```
/// use greenloop::{deadline, sleep, spawn, timeout, timeout_at};
/// use std::time::Duration;
/// greenloop::run(|| {
///     let helper = timeout(Duration::from_millis(5), || {
///         let deadline = deadline();
///         spawn(move || timeout_at(deadline, || sleep(Duration::MAX)).is_err())
///     });
///     assert!(helper.unwrap().join().unwrap());
/// });
/// ```
///
/// # Source
///
/// trio `fail_at`, `move_on_at`; Go `context.WithDeadline`.
#[track_caller]
pub fn timeout_at<T>(deadline: Deadline, f: impl FnOnce() -> T) -> Result<T, Elapsed> {
    let (hub, ctl) = here_or_guest("timeout_at");
    limited(hub, ctl, deadline, f)
}

fn limited<T>(
    hub: &Hub,
    ctl: Ctl,
    deadline: Deadline,
    f: impl FnOnce() -> T,
) -> Result<T, Elapsed> {
    let id = hub.next_ticket();
    ctl.rare(|rare| rare.frames.push(Frame { deadline, id, raised: false }));
    ctl.set_frames_deadline(ctl.frames_deadline().min(deadline));
    let result = unwind::catch(f);
    // Not what it was before: a scope around this may have ended its body.
    let outer = ctl.rare(|rare| {
        rare.frames.pop();
        rare.frames_deadline()
    });
    ctl.set_frames_deadline(outer);
    match result {
        Ok(value) => Ok(value),
        Err(payload) if payload.downcast_ref() == Some(&Payload::Timeout(id)) => Err(Elapsed(())),
        Err(payload) => unwind::rethrow(Some(ctl), payload),
    }
}

/// When the time of the current greenlet is over: the earliest deadline of the [`timeout`]s around
/// the caller, on the reactor's clock.
///
/// Shape: [`Deadline::NEVER`] without any, and where no greenlet runs. What is held back by a
/// [`shield`] does not count. A child of a [`scope`](crate::scope) has the deadline of the greenlet
/// that opened the scope, which ends its children when that passes; a greenlet that is
/// [spawned](crate::spawn) has none, for it may outlive its spawner: hand it over, as
/// [`timeout_at`] shows.
///
/// # Examples
///
/// What is left of it, for a server that is to know:
/// ```
/// use std::time::Duration;
/// greenloop::run(|| {
///     let limit = Duration::from_secs(5);
///     let left = greenloop::timeout(limit, || {
///         greenloop::deadline().duration_since(greenloop::reactor().now())
///     });
///     assert!(left.unwrap() <= limit);
///     assert!(greenloop::deadline().is_never());
/// });
/// ```
///
/// # Source
///
/// trio `current_effective_deadline`; Go `Context.Deadline`.
pub fn deadline() -> Deadline {
    let Some(ctl) = unwind::caller() else { return Deadline::NEVER };
    let inherited = match ctl.is_shielded() {
        true => None,
        false => ctl.rare_if_any(|rare| rare.inherited).flatten(),
    };
    inherited.unwrap_or(Deadline::NEVER).min(ctl.frames_deadline())
}

/// Gives the current greenlet, which is a child that begins, the deadline of its scope: somebody
/// else sees that it is kept.
pub(super) fn inherit(deadline: Option<Deadline>) {
    let deadline = deadline.filter(|deadline| !deadline.is_never());
    if let (Some(ctl), Some(_)) = (unwind::here(), deadline) {
        ctl.rare(|rare| rare.inherited = deadline);
    }
}

/// Runs `f` where neither a kill nor an outer timeout unwinds.
///
/// Shape: a kill that comes meanwhile stays pending and unwinds at the first cancellation point
/// after `f`. Until then, calls that can fail (reads, writes, `wait_for_deferred`) and would have
/// to wait fail with [`Killed`](super::Killed); those that cannot fail (`sleep`, `yield_now`,
/// `wait_for_future`) go on waiting. Timeouts that begin inside `f` work as usual. Outside
/// [`run`](crate::run) it just calls `f`.
///
/// A Rust function that C code calls must do its waiting inside `shield`: an unwind must not cross
/// C frames, and Rust aborts the process when one tries to.
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Source
///
/// trio's shielded scopes; Python's `asyncio.shield` for Deferreds.
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    let _shield = Shield::raise();
    f()
}

/// What [`shield`] is made of: as long as it lives, neither a kill nor an outer timeout unwinds its
/// greenlet. Those of one greenlet go in the reverse of the order in which they came.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub(crate) struct Shield(Option<Restore>);

/// What was, before a shield.
#[derive(Debug)]
struct Restore {
    ctl: Ctl,
    shielded: bool,
    endable: bool,
    /// How many timeouts were held back before; none if there is nothing to restore.
    frames: Option<usize>,
}

impl Shield {
    /// Begins one around what the current greenlet does from now on. None is needed elsewhere.
    pub(crate) fn raise() -> Shield {
        let Some(ctl) = unwind::caller() else { return Shield(None) };
        // Without a timeout around it (nearly always) there is nothing to hold back.
        let is_timed = !ctl.set_frames_deadline(Deadline::NEVER).is_never();
        let endable = ctl.set_endable(false);
        let frames = (is_timed || endable).then(|| {
            ctl.rare(|rare| std::mem::replace(&mut rare.shielded_frames, rare.frames.len()))
        });
        Shield(Some(Restore { ctl, shielded: ctl.set_shielded(true), endable, frames }))
    }
}

impl Drop for Shield {
    fn drop(&mut self) {
        let Some(Restore { ctl, shielded, endable, frames }) = self.0.take() else { return };
        ctl.set_shielded(shielded);
        if let Some(frames) = frames {
            let deadline = ctl.rare(|rare| {
                rare.shielded_frames = frames;
                rare.frames_deadline()
            });
            ctl.set_frames_deadline(deadline);
            ctl.set_endable(endable);
        }
    }
}

impl Hub {
    /// Has the outermost timeout that a greenlet is inside of elapse now, if there is one.
    pub(super) fn elapse(&self, ctl: Ctl) {
        let now = self.reactor.fresh_now();
        let earliest = ctl.rare(|rare| {
            if let Some(outermost) = rare.frames.first_mut() {
                outermost.deadline = now;
            }
            rare.frames_deadline()
        });
        ctl.set_frames_deadline(earliest);
        self.make_ready(ctl);
    }
}
