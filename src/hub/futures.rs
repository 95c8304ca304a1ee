//! The waits of the hub as futures: for a deadline, and for a descriptor.
//!
//! Floor 4. Uses: `kept`. Used by: users, in `async` code and as arms of
//! [`select!`](crate::select!); `bridge`, for hyper's timers.
//!
//! # Source
//!
//! tokio `time::sleep`, `AsyncFd::readable`.

use std::{
    fmt,
    future::Future,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use super::{Hub, io::Direction, kept::Kept, park::CannotPark};
use crate::{reactor::SourceId, time::Deadline};

/// The future of [`sleep_async`] and [`sleep_until_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleeping {
    deadline: Deadline,
    kept: Kept,
}

/// Gives a future that is ready after `duration`, counted from this call.
///
/// Shape: poll it on the thread that made it, whose clock it goes by. Dropped, it takes its timer
/// with it.
///
/// # Panics
///
/// Outside [`run`](crate::run), now and when it is polled.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// greenloop::run(|| {
///     let slept = async { greenloop::sleep_async(Duration::from_millis(1)).await };
///     greenloop::wait_for_future(slept);
/// });
/// ```
#[track_caller]
pub fn sleep_async(duration: Duration) -> Sleeping {
    let hub = Hub::current().unwrap_or_else(|| refuse());
    sleep_until_async(hub.deadline_in(duration))
}

/// Gives a future that is ready at `deadline`, on the reactor's clock; otherwise as
/// [`sleep_async`].
pub fn sleep_until_async(deadline: Deadline) -> Sleeping {
    Sleeping { deadline, kept: Kept::default() }
}

#[cold]
#[track_caller]
fn refuse() -> ! {
    panic!("greenloop::sleep_async: {}", CannotPark::no_hub())
}

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let hub = Hub::current().unwrap_or_else(|| refuse());
        let deadline = self.deadline;
        if hub.reactor.fresh_now() >= deadline {
            return Poll::Ready(());
        }
        self.kept.until(hub, deadline, cx.waker());
        Poll::Pending
    }
}

impl fmt::Debug for Sleeping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sleeping").field(&self.deadline).finish()
    }
}

/// The future of [`wait_readable_async`] and [`wait_writable_async`].
#[must_use = "futures do nothing unless awaited"]
pub struct Readiness<'a> {
    fd: BorrowedFd<'a>,
    direction: Direction,
    /// What the descriptor is registered under, once it is waited for.
    id: Option<SourceId>,
    kept: Kept,
}

/// Gives a future that is ready when `fd` is readable: [`wait_readable`](crate::wait_readable) for
/// `async` code.
///
/// Shape: readiness is a hint; the next `read` may still say `WouldBlock`. Several futures and
/// greenlets may wait for one descriptor.
///
/// # Errors
///
/// As [`wait_readable`](crate::wait_readable), but for a deadline.
///
/// # Examples
///
/// ```
/// use greenloop::{select, wait_readable_async};
/// use std::{io, os::{fd::AsFd, unix::net::UnixStream}, time::Duration};
/// # fn main() -> io::Result<()> {
/// greenloop::run(|| {
///     let (ours, _theirs) = UnixStream::pair()?;
///     select! {
///         ready = wait_readable_async(ours.as_fd()) => return ready,
///         default(Duration::from_millis(1)) => {} // they are silent
///     }
///     Ok(())
/// })
/// # }
/// ```
pub fn wait_readable_async(fd: BorrowedFd<'_>) -> Readiness<'_> {
    Readiness { fd, direction: Direction::Read, id: None, kept: Kept::default() }
}

/// Gives a future that is ready when `fd` is writable; otherwise as [`wait_readable_async`].
pub fn wait_writable_async(fd: BorrowedFd<'_>) -> Readiness<'_> {
    Readiness { fd, direction: Direction::Write, id: None, kept: Kept::default() }
}

impl Future for Readiness<'_> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let hub = Hub::current().ok_or_else(CannotPark::no_hub)?;
        let (number, direction) = (this.fd.as_raw_fd(), this.direction);
        let is_ready = |id| !hub.reactor.sources().is_blocked(number, id, direction);
        let id = match this.id {
            // It was woken; another wait for the descriptor may have begun since.
            Some(id) if is_ready(id) || !this.kept.is_under_way(hub) => {
                this.id = None;
                return Poll::Ready(Ok(()));
            }
            Some(id) => id,
            None => {
                let waiters = &mut |waiter| hub.wake(waiter);
                *this.id.insert(hub.reactor.register_foreign(this.fd, waiters)?)
            }
        };
        this.kept.until_ready(hub, (number, id), direction, cx.waker());
        // Cloning the waker is code of others: if it has parked, an event may have come meanwhile
        // and found nobody in the list.
        if is_ready(id) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl fmt::Debug for Readiness<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness")
            .field("fd", &self.fd)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}
