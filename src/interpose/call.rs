//! One hooked call of a virtual thread: may it go on, how long may it wait, and what ends it.
//!
//! Floor 8. Uses: `hub::guest`, `descriptors`, `kernel`, `recall`, `window`. Used by: the engines
//! of `interpose`.
//!
//! # Contract
//!
//! Every engine has the same shape. It runs in user mode and makes system calls by instruction;
//! only a real wait enters the hub.
//!
//! ```text
//! let mut call = Call::begin(guest, fd)?;                 // ECANCELED once a kill is pending
//! loop {
//!     match try_without_blocking() {                      // MSG_DONTWAIT, RWF_NOWAIT
//!         Err(Errno::AGAIN) => call.wait(direction)?,     // the error is the call's own
//!         done => return call.done(done),
//!     }
//! }
//! ```
//!
//! | ends the wait | the call says |
//! |---|---|
//! | the descriptor is ready | nothing: it tries again |
//! | the user's `O_NONBLOCK`; the end of `SO_RCVTIMEO` or `SO_SNDTIMEO` | `EAGAIN` |
//! | a [`timeout`](crate::timeout) around the call | `ETIMEDOUT` |
//! | a kill | `ECANCELED` |
//! | a close of the number, on whatever thread | `EBADF` |
//!
//! What was moved before counts for more than any of these: then the call returns how much.
//!
//! After a kill every further call that could wait fails at once. A loop that takes no notice stops
//! nobody: each time the others run, and after a hundred such calls it stands still for good
//! ([`Guest::interrupted`]).

use std::{os::fd::RawFd, pin::pin, time::Duration};

use rustix::io::Errno;

use super::{
    descriptors::{self, Age, Watch},
    kernel, recall,
    window::{self, Done, Shows},
};
use crate::{
    hub::{
        guest::{Ended, Guest},
        io::{Direction, Drained, Found},
    },
    time::Deadline,
};

/// The pauses of who waits for what no event tells: a local peer's queue to have room.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// Fails if the virtual thread is to end: to be asked first by every call that could wait.
#[inline]
pub(super) fn may_go_on(guest: Guest) -> Result<(), Errno> {
    match guest.interrupted() {
        None => Ok(()),
        Some(ended) => Err(error_of(ended)),
    }
}

/// The error that a wait's end is.
fn error_of(ended: Ended) -> Errno {
    match ended {
        Ended::Woken | Ended::TimedOut => Errno::AGAIN,
        Ended::Elapsed => Errno::TIMEDOUT,
        Ended::Killed => Errno::CANCELED,
        Ended::Refused(error) => error,
    }
}

/// Sleeps until `deadline`: fails as a wait does, but for the deadline, which is what it is for.
pub(super) fn sleep(guest: Guest, deadline: Deadline) -> Result<(), Errno> {
    match guest.sleep(deadline) {
        Ended::Woken | Ended::TimedOut => Ok(()),
        ended => Err(error_of(ended)),
    }
}

/// What poll(2) calls a direction.
pub(super) fn events_of(direction: Direction) -> i16 {
    match direction {
        Direction::Read => libc::POLLIN,
        Direction::Write => libc::POLLOUT,
    }
}

/// What ended a wait for several descriptors.
pub(super) enum Waited {
    /// One of them may be ready, or was closed.
    Ready,
    /// The deadline has passed.
    TimedOut,
}

/// Waits for one of `watches`, each in its direction.
///
/// # Errors
///
/// `ETIMEDOUT` and `ECANCELED` as said above; what epoll says of one that it refuses.
pub(super) fn wait_any(
    guest: Guest,
    fds: &[(RawFd, Direction)],
    watches: std::pin::Pin<&[Watch]>,
    deadline: Deadline,
) -> Result<Waited, Errno> {
    let mut listed = Vec::with_capacity(watches.len());
    let ended = guest.wait_fds(fds, deadline, |hub, wake| {
        listed.extend(descriptors::each(watches).map(|watch| watch.list(hub, wake)));
    });
    match ended {
        Ended::Woken => Ok(Waited::Ready),
        Ended::TimedOut => Ok(Waited::TimedOut),
        ended => Err(error_of(ended)),
    }
}

/// One call on one descriptor.
pub(super) struct Call {
    pub(super) guest: Guest,
    pub(super) fd: RawFd,
    age: Age,
    /// Until when it waits: known from the first wait on.
    limit: Option<Deadline>,
    /// Whether the user's mode is known to be blocking.
    may_block: bool,
    /// The next pause, when there was one.
    pause: Duration,
    waited: bool,
}

impl Call {
    /// Begins a call that could wait for `fd`.
    #[inline]
    pub(super) fn begin(guest: Guest, fd: RawFd) -> Result<Call, Errno> {
        may_go_on(guest)?;
        let age = descriptors::age_of(fd);
        Ok(Call {
            guest,
            fd,
            age,
            limit: None,
            may_block: false,
            pause: Duration::ZERO,
            waited: false,
        })
    }

    /// Waits until `fd` may be ready, if the user's flags allow it, and for as long as the socket's
    /// own timeout allows.
    #[cold]
    pub(super) fn wait(&mut self, direction: Direction) -> Result<(), Errno> {
        self.ask_mode()?;
        self.wait_blocking(direction)
    }

    /// Fails if the user wants no waits: asked before the first. A limit of the call's own is no
    /// answer to that.
    fn ask_mode(&mut self) -> Result<(), Errno> {
        if !self.may_block && window::is_nonblocking(self.fd)? {
            return Err(Errno::AGAIN);
        }
        self.may_block = true;
        Ok(())
    }

    /// As [`wait`](Self::wait), for a plain receive, which has found nothing after `turn`. Of a TCP
    /// socket without a timeout it is remembered what the kernel has said (`recall`).
    #[cold]
    pub(super) fn wait_to_receive(&mut self, turn: u64) -> Result<(), Errno> {
        let is_first = !self.may_block && self.limit.is_none();
        if let Some(waited) = self.wait_by_memory(Drained { turn, is_guess: false }) {
            return waited;
        }
        let found = recall::begin(self.age); // Before the kernel is asked.
        self.ask_mode()?;
        let is_usual = is_first && self.limit(Direction::Read).is_never();
        let is_kept = is_usual && self.is_plain_tcp();
        self.wait_noting(Direction::Read, is_kept.then_some(found))
    }

    /// Whether it is a TCP socket of which something may be remembered. Others are asked once.
    fn is_plain_tcp(&self) -> bool {
        if descriptors::was_other(self.fd) {
            return false;
        }
        let is_plain_tcp = kernel::is_plain_tcp(self.fd);
        if !is_plain_tcp {
            descriptors::note_other(self.fd);
        }
        is_plain_tcp
    }

    /// Before a plain receive is tried: waits if the last one has left nothing, as far as it and
    /// the poller know.
    #[inline]
    pub(super) fn wait_if_drained(&mut self) -> Result<(), Errno> {
        if !self.guest.is_drained(self.fd) {
            return Ok(());
        }
        let turn = self.guest.turn();
        self.wait_by_memory(Drained { turn, is_guess: true }).unwrap_or(Ok(()))
    }

    /// Waits by what is remembered of the descriptor; not at all if nothing is that counts.
    fn wait_by_memory(&mut self, why: Drained) -> Option<Result<(), Errno>> {
        let is_open = descriptors::is_open(self.fd, self.age) == Ok(true);
        if !is_open || !descriptors::is_a_guests(self.guest) {
            return None;
        }
        let noted = (self.fd, recall::found(self.age));
        let watch = pin!(Watch::new(self.fd, self.age));
        let watch = watch.as_ref();
        let mut listed = None;
        let ended = self.guest.wait_noted(noted, why, recall::LIMIT, |hub, wake| {
            listed = Some(watch.list(hub, wake));
        });
        drop(listed);
        if watch.is_closed() {
            return Some(Err(Errno::BADF));
        }
        match ended? {
            Ended::Woken | Ended::TimedOut => Some(Ok(())),
            ended => Some(Err(error_of(ended))),
        }
    }

    /// The same for a descriptor that is known to be in blocking mode.
    pub(super) fn wait_blocking(&mut self, direction: Direction) -> Result<(), Errno> {
        self.wait_noting(direction, None)
    }

    /// Waits; and if `found` says what was found of the descriptor, that is remembered.
    fn wait_noting(&mut self, direction: Direction, found: Option<Found>) -> Result<(), Errno> {
        self.may_block = true;
        let limit = self.limit(direction);
        if !descriptors::is_a_guests(self.guest) {
            let one = libc::pollfd { fd: self.fd, events: events_of(direction), revents: 0 };
            // A child that nobody was told of.
            return kernel::poll_for_real(&mut [one], None).map(drop);
        }
        if std::mem::replace(&mut self.waited, true) && self.is_said_ready(direction) {
            return self.pause(limit);
        }
        self.pause = Duration::ZERO;
        let watch = pin!(Watch::new(self.fd, self.age));
        let watch = watch.as_ref();
        let mut listed = None;
        let (fd, age) = (self.fd, self.age);
        let ended = self.guest.wait_fds(&[(fd, direction)], limit, |hub, wake| {
            listed = Some(watch.list(hub, wake));
            if let Some(found) = found
                && descriptors::is_counted(fd)
                && descriptors::is_open(fd, age) == Ok(true)
            {
                hub.note_found(fd, found);
            }
        });
        drop(listed);
        if watch.is_closed() {
            return Err(Errno::BADF);
        }
        match ended {
            Ended::Woken => Ok(()),
            ended => Err(error_of(ended)),
        }
    }

    /// Whether poll(2) says ready what has just said `EAGAIN`: then no event tells when to try.
    fn is_said_ready(&self, direction: Direction) -> bool {
        kernel::readiness(self.fd, events_of(direction)) != 0
    }

    /// Lets some time pass, each time longer.
    fn pause(&mut self, limit: Deadline) -> Result<(), Errno> {
        self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
        let until = self.guest.now() + self.pause;
        sleep(self.guest, until.min(limit))?;
        if descriptors::age_of(self.fd) != self.age {
            return Err(Errno::BADF);
        }
        if limit <= until { Err(Errno::AGAIN) } else { Ok(()) }
    }

    /// Pauses for what no event tells: a local peer's queue to have room, or more than what a
    /// `MSG_PEEK` has seen.
    pub(super) fn wait_paused(&mut self, direction: Direction) -> Result<(), Errno> {
        self.ask_mode()?;
        let limit = self.limit(direction);
        self.pause(limit)
    }

    /// Notes that `count` bytes or messages were moved: if the next try fails, it waits anew.
    pub(super) fn moved(&mut self, count: usize) -> usize {
        self.waited = false;
        count
    }

    /// The call waits no longer than until `deadline`.
    pub(super) fn limit_to(&mut self, direction: Direction, deadline: Deadline) {
        self.limit = Some(self.limit(direction).min(deadline));
    }

    /// Does `attempt`, which blocks, in a window in which it does not, once one can be opened. Also
    /// tells whether it is the user who wants it so.
    pub(super) fn in_window<T>(
        &mut self,
        direction: Direction,
        attempt: impl Fn() -> Result<T, Errno>,
    ) -> Result<Done<T>, Errno> {
        self.in_a_window(direction, Shows::Marked, attempt)
    }

    /// The same for splice(2), to which a window must not show.
    pub(super) fn in_unmarked_window<T>(
        &mut self,
        direction: Direction,
        attempt: impl Fn() -> Result<T, Errno>,
    ) -> Result<Done<T>, Errno> {
        self.in_a_window(direction, Shows::Unmarked, attempt)
    }

    fn in_a_window<T>(
        &mut self,
        direction: Direction,
        shows: Shows,
        attempt: impl Fn() -> Result<T, Errno>,
    ) -> Result<Done<T>, Errno> {
        loop {
            if let Some(done) = window::attempt((self.fd, self.age), shows, &attempt)? {
                return Ok(done);
            }
            // Not even to a user who wants no waits is that an answer.
            let limit = self.limit(direction);
            self.pause(limit)?;
        }
    }

    /// Does `attempt`, which blocks, with windows in which it does not.
    #[cold]
    pub(super) fn by_windows(
        &mut self,
        direction: Direction,
        attempt: impl Fn() -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        loop {
            match self.in_window(direction, &attempt)? {
                (_, Err(Errno::INTR)) => {}
                (false, Err(Errno::AGAIN)) => self.wait_blocking(direction)?,
                (_, done) => return self.done(0, done),
            }
        }
    }

    /// Does `attempt`, which blocks unless the descriptor is ready, when it is.
    #[cold]
    pub(super) fn when_ready(
        &mut self,
        direction: Direction,
        attempt: impl Fn() -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        loop {
            if kernel::readiness(self.fd, events_of(direction)) != 0
                || window::is_nonblocking(self.fd)?
            {
                return self.done(0, attempt());
            }
            match self.wait_blocking(direction) {
                Err(Errno::PERM) => return self.done(0, attempt()), // It cannot be polled.
                waited => waited?,
            }
        }
    }

    /// Until when this call waits: the socket's timeout from the first wait on, computed once.
    fn limit(&mut self, direction: Direction) -> Deadline {
        *self.limit.get_or_insert_with(|| match kernel::socket_timeout(self.fd, direction) {
            Some(timeout) => self.guest.now() + timeout,
            None => Deadline::NEVER,
        })
    }

    /// Ends the call: `moved` before counts for more than an error.
    #[inline]
    pub(super) fn done(&self, moved: usize, result: Result<usize, Errno>) -> Result<usize, Errno> {
        if self.limit.is_none() {
            self.guest.spend();
        }
        match result {
            Ok(more) => Ok(moved + more),
            Err(_) if moved > 0 => Ok(moved),
            Err(error) => Err(error),
        }
    }
}
