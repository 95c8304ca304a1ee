//! Operations that wait: try first, park only if it would block.
//!
//! Floor 4. Uses: `park`, `kept`, the reactor's sources. Used by: `net`, and by users for
//! descriptors of their own ([`wait_readable`], [`wait_writable`]).
//!
//! # Contract
//!
//! [`Source::operate`] is the one loop that every blocking-looking operation goes through:
//!
//! 1. Notice a kill or an elapsed timeout. (Every operation is a cancellation point.)
//! 2. Try the operation, unless the source is known to block. No allocation, no registration.
//! 3. It would block: register the descriptor (once in its life), park until the poller reports
//!    it, and begin again.
//!
//! [`Source::poll`] is the same for futures: it has step 2 in common (`attempt`), and where a
//! greenlet would park it keeps the future's waker.
//!
//! Reads and writes that moved less than they could mark the source as blocked without another
//! system call, so a request costs a receive, a send, and its share of one poll.
//!
//! # Invariants
//!
//! - `IO-1` A waiter leaves the source's list before its frame does, on every way out: `Listed`
//!   removes it when it is dropped, the unwind of a kill included.
//! - `IO-2` After [`Source::close`] every operation fails, also those that are waiting.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use rustix::io::Errno;

use super::{
    Hub,
    guest::{self, Ended, Guest},
    kept::Kept,
    park::{CannotPark, Mode, Wait, WaitOn, Wake},
};
pub(crate) use crate::reactor::{Direction, Found};
use crate::{reactor::SourceId, sys::refill_return_predictor, time::Deadline};

/// A descriptor that this crate owns, in non-blocking mode.
///
/// It is `Send` and `Sync`: each hub that waits for it registers it with its own poller.
#[derive(Debug)]
pub(crate) struct Source {
    fd: OwnedFd,
    id: SourceId,
    /// Operations fail from now on (`IO-2`).
    closed: AtomicBool,
    /// The open file may be known under other numbers too.
    duplicated: AtomicBool,
}

/// What an operation did with what it was given.
pub(crate) enum Moved {
    /// All that was asked for, or something that does not come in parts.
    All,
    /// Less than asked for: the next try would block.
    Part,
}

impl Source {
    /// Takes over a descriptor, which must be in non-blocking mode and known nowhere else.
    pub(crate) fn new(fd: OwnedFd) -> Source {
        let closed = AtomicBool::new(false);
        Source { fd, id: SourceId::unique(), closed, duplicated: AtomicBool::new(false) }
    }

    /// Takes over a descriptor from outside: makes it non-blocking; it may have duplicates.
    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Source> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let source = Source::new(fd);
        source.duplicated.store(true, Ordering::Relaxed);
        Ok(source)
    }

    /// Another descriptor for the same open file.
    pub(crate) fn duplicate(&self) -> io::Result<Source> {
        let fd = self.fd.try_clone()?;
        self.duplicated.store(true, Ordering::Relaxed);
        let source = Source::new(fd);
        source.duplicated.store(true, Ordering::Relaxed);
        source.closed.store(self.closed.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(source)
    }

    /// Makes all operations fail, and wakes those of this thread that wait. Others are woken by
    /// what the caller does to the open file (`shutdown`).
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        if let Some(hub) = Hub::of_caller() {
            hub.reactor.evict(self.fd.as_raw_fd(), self.id, &mut |waiter| hub.wake(waiter));
        }
    }

    /// Gives the descriptor up, without closing it. Its non-blocking mode stays.
    pub(crate) fn into_fd(self) -> OwnedFd {
        let source = std::mem::ManuallyDrop::new(self);
        source.forget(true);
        take_fd(source)
    }

    fn forget(&self, duplicated: bool) {
        if let Some(hub) = Hub::of_caller() {
            let duplicated = duplicated || self.duplicated.load(Ordering::Relaxed);
            let wake = &mut |waiter| hub.wake(waiter);
            hub.reactor.forget(self.fd.as_fd(), self.id, duplicated, wake);
        }
    }

    /// Does `operation`, waiting for `direction` as often as it would block.
    ///
    /// Shape: `operation` must not park. `limit` bounds the waiting, if there is any.
    ///
    /// # Errors
    ///
    /// Those of `operation`; `TimedOut` after `limit`; `NotConnected` once the source was closed;
    /// [`Killed`](super::Killed) where a kill cannot unwind; and, outside `run` or on the hub's own
    /// stack, an error that says what to do.
    #[inline(always)]
    pub(crate) fn operate<T>(
        &self,
        direction: Direction,
        limit: Option<Duration>,
        mut operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> io::Result<T> {
        let Some(hub) = Hub::current() else {
            return self.operate_for_guest(direction, limit, operation);
        };
        let ctl = hub.may_park()?;
        // Failures count, too: a loop that ignores them must not stop the others.
        match hub.slice.get() {
            0 => hub.requeue(ctl),
            left => hub.slice.set(left - 1),
        }
        let mut deadline = None;
        loop {
            // Where a kill cannot unwind, what needs no waiting is still done; a wait fails.
            let _ = ctl.interrupts(Mode::Infallible);
            if let Some(value) = self.attempt(hub, direction, &mut operation)? {
                return Ok(value);
            }
            let deadline = *deadline.get_or_insert_with(|| {
                limit.map_or(Deadline::NEVER, |limit| hub.deadline_in(limit))
            });
            self.wait(hub, direction, deadline)?;
        }
    }

    /// As [`operate`](Self::operate), in the hub of the guest that calls.
    #[cold]
    fn operate_for_guest<T>(
        &self,
        direction: Direction,
        limit: Option<Duration>,
        operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> io::Result<T> {
        let guest = guest::guest().ok_or(CannotPark::OutsideRun)?;
        guest.enter(|_| self.operate(direction, limit, operation))
    }

    /// Does `operation` for a future: where it would block, `waker` is kept until it would not.
    ///
    /// Shape: `operation` must not park. One future at a time may wait by one `kept`; the newest
    /// waker counts. A future that has done many operations without waiting is told to wait, and
    /// woken at once, so that it stops nobody.
    ///
    /// # Errors
    ///
    /// Those of `operation`; `NotConnected` once the source was closed; outside `run`, an error
    /// that says what to do.
    #[inline(always)]
    pub(crate) fn poll<T>(
        &self,
        direction: Direction,
        kept: &mut Kept,
        context: &mut Context<'_>,
        mut operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> Poll<io::Result<T>> {
        let hub = Hub::current().ok_or_else(CannotPark::no_hub)?;
        match hub.slice.get() {
            // Not on the hub's own stack: a waker that polls at once would never come back.
            0 if hub.current.get().is_some() => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            left => hub.slice.set(left.saturating_sub(1)),
        }
        if let Some(value) = self.attempt(hub, direction, &mut operation)? {
            return Poll::Ready(Ok(value));
        }
        hub.reactor.register(self.fd.as_fd(), self.id, &mut |waiter| hub.wake(waiter))?;
        let number = self.fd.as_raw_fd();
        kept.until_ready(hub, (number, self.id), direction, context.waker());
        // Cloning the waker is code of others: if it has parked, an event may have come meanwhile
        // and found nobody in the list.
        if !hub.reactor.sources().is_blocked(number, self.id, direction) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Does `operation` once, unless it is known to block. `None`: it would.
    #[inline(always)]
    fn attempt<T>(
        &self,
        hub: &Hub,
        direction: Direction,
        operation: &mut impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> io::Result<Option<T>> {
        let number = self.fd.as_raw_fd();
        if self.closed.load(Ordering::Acquire) {
            return Err(closed_error());
        }
        if hub.reactor.sources().is_blocked(number, self.id, direction) {
            return Ok(None);
        }
        loop {
            let done = operation(self.fd.as_fd());
            refill_return_predictor();
            match done {
                Ok((value, moved)) => {
                    if let Moved::Part = moved {
                        hub.reactor.sources().clear_after_short(number, self.id, direction);
                    }
                    return Ok(Some(value));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    hub.reactor.sources().clear(number, self.id, direction);
                    return Ok(None);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Parks for `limit`, whatever the poller reports meanwhile; readiness stays as it is known.
    ///
    /// # Errors
    ///
    /// Those of [`operate`](Self::operate), but for the end of `limit`.
    pub(crate) fn pause(&self, direction: Direction, limit: Duration) -> io::Result<()> {
        let Ok(hub) = Hub::to_park() else {
            let guest = guest::guest().ok_or(CannotPark::OutsideRun)?;
            return guest.enter(|_| self.pause(direction, limit));
        };
        let deadline = hub.deadline_in(limit);
        while !self.closed.load(Ordering::Acquire) {
            match self.wait(hub, direction, deadline) {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(()),
                reported => reported?,
            }
        }
        Err(closed_error())
    }

    /// Parks until the poller reports `direction`, or readiness is known already.
    #[inline(always)]
    fn wait(&self, hub: &Hub, direction: Direction, deadline: Deadline) -> io::Result<()> {
        let number = self.fd.as_raw_fd();
        park_listed(hub, number, self.id, direction, deadline, || {
            hub.reactor.register(self.fd.as_fd(), self.id, &mut |waiter| hub.wake(waiter))
        })
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.forget(false);
    }
}

/// Moves the descriptor out of a source that is not to be dropped.
#[expect(unsafe_code, reason = "a field moves out of a type that implements Drop")]
fn take_fd(source: std::mem::ManuallyDrop<Source>) -> OwnedFd {
    // SAFETY: `source` is never dropped nor used again, so its descriptor has one owner: the copy.
    unsafe { std::ptr::read(&raw const source.fd) }
}

fn closed_error() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the socket was closed by this process")
}

/// A place in a source's list of waiters; left when dropped (`IO-1`).
struct Listed<'w, 'h> {
    wait: &'w Wait<'h>,
    hub: &'h Hub,
    number: RawFd,
    direction: Direction,
}

impl Drop for Listed<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Whoever woke it has taken it out (SOURCE-3).
        if !self.wait.is_woken() {
            let waiter = self.wait.wake();
            self.hub.reactor.sources().remove_waiter(self.number, self.direction, waiter);
        }
    }
}

/// Parks in the list of a source's waiters; `register` is called if there is none yet.
#[inline(always)]
fn park_listed(
    hub: &Hub,
    number: RawFd,
    id: SourceId,
    direction: Direction,
    deadline: Deadline,
    register: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let on = match direction {
        Direction::Read => WaitOn::Readable(number),
        Direction::Write => WaitOn::Writable(number),
    };
    let wait = Wait::begin(hub, on)?;
    if !hub.reactor.sources().add_waiter(number, id, direction, wait.wake()) {
        register()?;
        hub.reactor.sources().add_waiter(number, id, direction, wait.wake());
    }
    let _listed = Listed { wait: &wait, hub, number, direction };
    Ok(wait.park(deadline, Mode::Fallible)?)
}

/// Places in the lists of several sources; left when dropped (`IO-1`). Whoever has woken the wait
/// has taken it out of one list only.
struct ListedOften<'w, 'h> {
    wake: Wake,
    hub: &'h Hub,
    wanted: &'w [(RawFd, Direction)],
}

impl Drop for ListedOften<'_, '_> {
    fn drop(&mut self) {
        for &(number, direction) in self.wanted {
            self.hub.reactor.sources().remove_waiter(number, direction, self.wake);
        }
    }
}

/// A descriptor that is to be registered with the poller, by its number.
#[expect(unsafe_code, reason = "the numbers of descriptors that are others'")]
fn borrow(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!(number >= 0);
    // SAFETY: it is not -1. Whether it is open, the kernel says: the poller is all that uses it,
    // for one call, and its error is handed on.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// How it is known that there was nothing to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drained {
    /// It was seen after this turn.
    pub(crate) turn: u64,
    /// What was seen is a read that brought less than it could have.
    pub(crate) is_guess: bool,
}

impl Hub {
    /// Keeps what was found of a descriptor that is registered, for [`Guest::wait_noted`]. Where
    /// time does not pass by itself nothing is kept: a limit of ours would move it.
    pub(crate) fn note_found(&self, number: RawFd, found: Found) {
        if self.reactor.passes_by_itself() {
            self.reactor.sources().note(number, found);
        }
    }
}

impl Guest {
    /// Waits until one of these descriptors, which this crate does not own, may be ready, as
    /// [`Guest::wait`] does; `register` tells somebody else the wake, too. Each is registered anew,
    /// since a number may name another file than it did, unseen.
    ///
    /// # Errors
    ///
    /// [`Ended::Refused`] with the poller's error, before anything has waited: `PERM` for a file
    /// that is always ready, `BADF` for a number that names none.
    pub(crate) fn wait_fds(
        self,
        wanted: &[(RawFd, Direction)],
        deadline: Deadline,
        register: impl FnOnce(&Hub, Wake),
    ) -> Ended {
        self.enter(|hub| {
            let on = match wanted {
                [(number, Direction::Read)] => WaitOn::Readable(*number),
                [(number, Direction::Write)] => WaitOn::Writable(*number),
                _ => WaitOn::Several,
            };
            let Ok(wait) = Wait::begin(hub, on) else { return Ended::Refused(Errno::DEADLK) };
            let _listed = ListedOften { wake: wait.wake(), hub, wanted };
            for &(number, direction) in wanted {
                if number < 0 {
                    return Ended::Refused(Errno::BADF);
                }
                let registered = hub.reactor.register_foreign(borrow(number), &mut |waiter| {
                    hub.wake(waiter);
                });
                let id = match registered {
                    Ok(id) => id,
                    Err(error) => {
                        return Ended::Refused(
                            Errno::from_io_error(&error).unwrap_or(Errno::INVAL),
                        );
                    }
                };
                hub.reactor.sources().add_waiter(number, id, direction, wait.wake());
            }
            register(hub, wait.wake());
            self.park(&wait, deadline)
        })
    }

    /// As [`wait_fds`](Self::wait_fds), for one to be readable of which `noted` was noted; but the
    /// poller is not asked whether it still watches that file. So it waits for `limit` at most, and
    /// if nothing has come by then, what was noted is forgotten.
    ///
    /// `None`: it has not waited, since it is not registered, or something else was noted.
    pub(crate) fn wait_noted(
        self,
        noted: (RawFd, Found),
        why: Drained,
        limit: Duration,
        register: impl FnOnce(&Hub, Wake),
    ) -> Option<Ended> {
        self.enter(|hub| {
            let number = noted.0;
            let id = hub.reactor.sources().noted(number, noted.1)?;
            let is_closed = hub.reactor.sources().is_closed(number, id);
            if why.turn != self.turn() || why.is_guess && is_closed {
                // What has come since may have been told already.
                return Some(Ended::Woken);
            }
            let wait = Wait::begin(hub, WaitOn::Readable(number)).ok()?;
            let wanted = &[(number, Direction::Read)];
            let _listed = ListedOften { wake: wait.wake(), hub, wanted };
            hub.reactor.sources().add_waiter(number, id, Direction::Read, wait.wake());
            register(hub, wait.wake());
            let ended = self.park(&wait, hub.reactor.now() + limit);
            if ended == Ended::TimedOut {
                hub.reactor.sources().forget_found(number);
            }
            Some(ended)
        })
    }

    /// As [`wait_fds`](Self::wait_fds), for one.
    pub(crate) fn wait_fd(self, number: RawFd, direction: Direction, deadline: Deadline) -> Ended {
        self.wait_fds(&[(number, direction)], deadline, |_, _| ())
    }
}

/// Parks the current greenlet until `fd` is readable.
///
/// Shape: for descriptors that this crate does not own. Readiness is a hint: the next `read` may
/// still say `WouldBlock`, so the descriptor must be in non-blocking mode, and the caller loops.
/// Several greenlets may wait for one descriptor.
/// Units: `deadline` is absolute on the reactor's clock ([`Reactor::now`](crate::Reactor::now));
/// [`Deadline::NEVER`] waits for ever.
///
/// # Errors
///
/// `TimedOut` when `deadline` passes first; `PermissionDenied` for a file that cannot be polled (a
/// regular file: it is always ready); outside [`run`](crate::run), an error that says so.
///
/// # Panics
///
/// Never.
///
/// # Cancellation
///
/// Cancellation point: always, even when `fd` is ready at once. On cancel nothing was read.
///
/// # Source
///
/// gevent `socket.wait_read`; epoll(7). Differs: a deadline, several waiters.
pub fn wait_readable(fd: BorrowedFd<'_>, deadline: Deadline) -> io::Result<()> {
    wait_for(fd, Direction::Read, deadline)
}

/// Parks the current greenlet until `fd` is writable; otherwise as [`wait_readable`].
///
/// # Errors
///
/// As [`wait_readable`].
///
/// # Cancellation
///
/// As [`wait_readable`].
pub fn wait_writable(fd: BorrowedFd<'_>, deadline: Deadline) -> io::Result<()> {
    wait_for(fd, Direction::Write, deadline)
}

pub(super) fn wait_for(
    fd: BorrowedFd<'_>,
    direction: Direction,
    deadline: Deadline,
) -> io::Result<()> {
    let Some(hub) = Hub::current() else {
        let guest = guest::guest().ok_or(CannotPark::OutsideRun)?;
        return guest.enter(|_| wait_for(fd, direction, deadline));
    };
    let ctl = hub.may_park()?;
    ctl.interrupts(Mode::Fallible)?;
    let id = hub.reactor.register_foreign(fd, &mut |waiter| hub.wake(waiter))?;
    park_listed(hub, fd.as_raw_fd(), id, direction, deadline, || Ok(()))
}
