//! The readiness poller on epoll: edge-triggered, one registration a descriptor.
//!
//! Floor 2. Uses: epoll(7), eventfd(2). Used by: `reactor`.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, Timespec, epoll, eventfd},
    io::Errno,
};

use super::raw;

/// The token of the waker's own descriptor: no descriptor has this number.
const WAKER_TOKEN: u64 = u64::MAX;

/// Events taken from the kernel at a time. A larger batch only delays those who are ready already.
const EVENTS_MAX: usize = 512;

/// What the kernel said of one descriptor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// The token it was registered with.
    pub(crate) token: u64,
    /// Reading may succeed, fail or see the end.
    pub(crate) readable: bool,
    /// Writing may succeed or fail.
    pub(crate) writable: bool,
    /// The peer has closed its writing side, or the descriptor is in error, or there is urgent
    /// data: a short read does not mean that nothing is left to be seen.
    pub(crate) closed: bool,
}

/// An epoll instance with its waker.
pub(crate) struct Poller {
    epoll: OwnedFd,
    waker: PollerWaker,
    events: Vec<epoll::Event>,
    has_pwait2: bool,
}

/// Ends a [`Poller::wait`] from any thread.
#[derive(Debug, Clone)]
pub(crate) struct PollerWaker(Arc<OwnedFd>);

impl PollerWaker {
    /// Makes the current or next `wait` return at once.
    ///
    /// Never fails for the caller: the only error of an eventfd is a full counter, and then a wake
    /// is pending already.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Poller {
    /// A poller that watches nothing but its waker.
    ///
    /// # Errors
    ///
    /// Those of epoll_create1(2) and eventfd(2): no descriptor is left, or no memory.
    pub(crate) fn new() -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Edge-triggered, every write is an event: the counter is never read, which saves a call
        // a wake. It would overflow after 2^64 of them.
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &waker, epoll::EventData::new_u64(WAKER_TOKEN), flags)?;
        Ok(Poller {
            epoll,
            waker: PollerWaker(Arc::new(waker)),
            events: Vec::with_capacity(EVENTS_MAX),
            has_pwait2: true,
        })
    }

    /// A handle that wakes this poller.
    pub(crate) fn waker(&self) -> PollerWaker {
        self.waker.clone()
    }

    /// Watches `fd` in both directions; reports at once if it is ready already.
    ///
    /// # Errors
    ///
    /// `EEXIST` when it is watched already, `EPERM` for files that cannot be polled, `ENOSPC` at
    /// the limit of `/proc/sys/fs/epoll/max_user_watches`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), BOTH)?)
    }

    /// Reports current readiness of `fd` once more, with `token` from now on. Returns whether it
    /// was watched at all: the file that this number names, not one that it named before.
    ///
    /// # Errors
    ///
    /// As [`add`](Self::add), without `EEXIST`.
    pub(crate) fn rearm(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<bool> {
        match epoll::modify(&self.epoll, fd, epoll::EventData::new_u64(token), BOTH) {
            Err(Errno::NOENT) => Ok(false),
            done => Ok(done.map(|()| true)?),
        }
    }

    /// Watches `fd` no longer. One that was not watched is not an error.
    pub(crate) fn delete(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Waits for events and hands each to `sink`; returns whether the waker was among them.
    ///
    /// Units: `None` waits for ever. Nanoseconds are honoured where the kernel has
    /// `epoll_pwait2`, otherwise milliseconds, rounded up. A signal ends the wait early.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        sink: &mut impl FnMut(Event),
    ) -> io::Result<bool> {
        match self.wait_raw(timeout) {
            Ok(()) => {}
            Err(Errno::INTR) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let mut woken = false;
        for event in &self.events {
            let token = event.data.u64();
            if token == WAKER_TOKEN {
                woken = true;
                continue;
            }
            let flags = event.flags;
            let failed = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            // Urgent data counts too: a read stops in front of it, although more may follow.
            let closed = failed | epoll::EventFlags::RDHUP | epoll::EventFlags::PRI;
            sink(Event {
                token,
                readable: flags.intersects(epoll::EventFlags::IN | closed),
                writable: flags.intersects(epoll::EventFlags::OUT | failed),
                closed: flags.intersects(closed),
            });
        }
        Ok(woken)
    }

    fn wait_raw(&mut self, timeout: Option<Duration>) -> Result<(), Errno> {
        let timeout = timeout.map(|t| Timespec {
            tv_sec: t.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        if let Some(precise) = timeout.filter(|t| self.has_pwait2 && t.tv_nsec % 1_000_000 != 0) {
            match raw::epoll_pwait2(self.epoll.as_fd(), &mut self.events, &precise) {
                Err(Errno::NOSYS) => self.has_pwait2 = false,
                done => return done.map(drop),
            }
        }
        self.events.clear();
        // At most 24 days, so that it fits the milliseconds of the older call; the reactor asks
        // again.
        let coarse = timeout.map(|t| Timespec { tv_sec: t.tv_sec.min(2_000_000), ..t });
        epoll::wait(&self.epoll, spare_capacity(&mut self.events), coarse.as_ref()).map(drop)
    }
}

const BOTH: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::ET);
