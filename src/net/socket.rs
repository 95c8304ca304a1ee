//! What all sockets share: a source, its two timeouts, its mode, how it is closed.
//!
//! Floor 6. Uses: `hub::io`. Used by: the types of `net`.

use std::{
    fmt, io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketType, sockopt, sockopt::Timeout},
};

use super::address;

use crate::hub::{
    io::{Direction, Moved, Source},
    kept::Kept,
};

/// The most that one call moves (`MAX_RW_COUNT` of the kernel, on 4 KiB pages): what is cut to this
/// says nothing about readiness (`NET-2`).
const MOVED_BYTES_MAX: usize = 0x7fff_f000;

/// Buffers that one vectored call takes at most (`UIO_MAXIOV`); more are an error, so they are cut.
pub(super) const BUFFERS_MAX: usize = 1024;

/// The first pause before a local peer's queue is tried again, and the longest: a peer that reads
/// has made room by then, and one that does not costs little.
const AGAIN_MIN: Duration = Duration::from_millis(1);
const AGAIN_MAX: Duration = Duration::from_millis(64);

/// A socket in non-blocking mode (`NET-1`).
pub(super) struct Socket {
    pub(super) source: Source,
    /// Nanoseconds; 0 for none.
    read_limit_ns: AtomicU64,
    /// Nanoseconds; 0 for none.
    write_limit_ns: AtomicU64,
    /// Whether an operation that would park says `WouldBlock` instead.
    nonblocking: AtomicBool,
    /// A listener's: a shortage was reported and is not over, so it is reported once.
    pub(super) short: AtomicBool,
}

impl Socket {
    /// Takes over a descriptor that was made here, in non-blocking mode.
    pub(super) fn new(fd: OwnedFd) -> Socket {
        Socket::from_source(Source::new(fd))
    }

    /// Makes a socket: in non-blocking mode, closed on exec.
    pub(super) fn open(family: AddressFamily, kind: SocketType) -> io::Result<Socket> {
        Ok(Socket::new(net::socket_with(family, kind, FLAGS, None)?))
    }

    /// Makes a socket for what goes to or comes from an address of the internet.
    pub(super) fn for_address(address: &SocketAddr, kind: SocketType) -> io::Result<Socket> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        Socket::open(family, kind)
    }

    /// Makes two local sockets, connected to one another.
    pub(super) fn pair(kind: SocketType) -> io::Result<(Socket, Socket)> {
        let (near, far) = net::socketpair(AddressFamily::UNIX, kind, FLAGS, None)?;
        Ok((Socket::new(near), Socket::new(far)))
    }

    /// Takes over a descriptor from outside, with the timeouts that were set on it.
    ///
    /// # Panics
    ///
    /// When it cannot be put into non-blocking mode: it is no socket (`O_PATH`), or a filter of
    /// system calls forbids it.
    pub(super) fn adopt(fd: OwnedFd) -> Socket {
        let source = Source::adopt(fd).unwrap_or_else(|error| {
            panic!("greenloop::net: the descriptor cannot be made non-blocking: {error}")
        });
        let socket = Socket::from_source(source);
        for (timeout, ns) in socket.limits() {
            // An error: it is no socket. What is done with it later will say so.
            let limit = sockopt::socket_timeout(&socket.source, timeout).unwrap_or(None);
            ns.store(limit.map_or(0, nanos), Ordering::Relaxed);
        }
        socket
    }

    fn from_source(source: Source) -> Socket {
        Socket {
            source,
            read_limit_ns: AtomicU64::new(0),
            write_limit_ns: AtomicU64::new(0),
            nonblocking: AtomicBool::new(false),
            short: AtomicBool::new(false),
        }
    }

    fn limits(&self) -> [(Timeout, &AtomicU64); 2] {
        [(Timeout::Recv, &self.read_limit_ns), (Timeout::Send, &self.write_limit_ns)]
    }

    /// Another handle for the same open socket, with the same timeouts and mode.
    pub(super) fn duplicate(&self) -> io::Result<Socket> {
        let copy = Socket::from_source(self.source.duplicate()?);
        for ((_, from), (_, to)) in self.limits().into_iter().zip(copy.limits()) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        copy.set_nonblocking(self.is_nonblocking());
        copy.short.store(self.short.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(copy)
    }

    /// Gives the descriptor up, still in non-blocking mode.
    pub(super) fn into_fd(self) -> OwnedFd {
        self.source.into_fd()
    }

    /// Gives the descriptor up as std would have it: blocking, unless this handle was set to be
    /// non-blocking; with its timeouts.
    pub(super) fn into_std_fd(self) -> OwnedFd {
        let nonblocking = self.is_nonblocking();
        let limits = self.limits().map(|(timeout, ns)| (timeout, limit(ns)));
        let fd = self.into_fd();
        // These calls fail only for what is no socket, and std's own calls will say so.
        for (timeout, limit) in limits {
            if limit.is_some() {
                let _ = sockopt::set_socket_timeout(&fd, timeout, limit);
            }
        }
        let _ = rustix::io::ioctl_fionbio(&fd, nonblocking);
        fd
    }

    /// Does `operation`, which takes something in, waiting as often as it would block.
    #[inline(always)]
    pub(super) fn receive<T>(
        &self,
        operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> io::Result<T> {
        self.receive_within(None, operation)
    }

    /// As `receive`, for `limit` at most, whatever the socket's own is.
    #[inline(always)]
    pub(super) fn receive_within<T>(
        &self,
        limit: Option<Duration>,
        operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> io::Result<T> {
        let limit = match limit {
            Some(limit) if !self.is_nonblocking() => Some(limit),
            _ => self.limit_of(&self.read_limit_ns),
        };
        let result = self.source.operate(Direction::Read, limit, operation);
        result.map_err(|error| self.explain(error))
    }

    /// Does `operation`, which gives something away, waiting as often as it would block.
    #[inline(always)]
    pub(super) fn send<T>(
        &self,
        operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> io::Result<T> {
        let limit = self.limit_of(&self.write_limit_ns);
        let result = self.source.operate(Direction::Write, limit, operation);
        result.map_err(|error| self.explain(error))
    }

    /// Does `operation`, which gives something away, in spite of `EAGAIN` that no event will end: a
    /// local peer's queue is full, and the poller does not know of it. So it is tried again, after
    /// 1 ms at first, then after twice as long each time, up to 64 ms.
    pub(super) fn send_again_and_again<T>(
        &self,
        mut operation: impl FnMut(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let mut pause = AGAIN_MIN;
        let mut left = self.limit_of(&self.write_limit_ns);
        loop {
            let done = self.source.operate(Direction::Write, left, |fd| match operation(fd) {
                Err(Errno::AGAIN) => Ok((None, Moved::All)),
                done => Ok((Some(done?), Moved::All)),
            });
            if let Some(value) = done.map_err(|error| self.explain(error))? {
                return Ok(value);
            }
            if left == Some(Duration::ZERO) {
                let elapsed = io::ErrorKind::TimedOut;
                return Err(self.explain(elapsed.into()));
            }
            let this = left.map_or(pause, |left| left.min(pause));
            self.source.pause(Direction::Write, this)?;
            left = left.map(|left| left - this);
            pause = (pause * 2).min(AGAIN_MAX);
        }
    }

    /// Does `operation`, which takes something in, for a future that waits by `kept`.
    #[inline(always)]
    pub(super) fn poll_receive<T>(
        &self,
        kept: &mut Kept,
        context: &mut Context<'_>,
        operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> Poll<io::Result<T>> {
        self.source.poll(Direction::Read, kept, context, operation)
    }

    /// Does `operation`, which gives something away, for a future that waits by `kept`.
    #[inline(always)]
    pub(super) fn poll_send<T>(
        &self,
        kept: &mut Kept,
        context: &mut Context<'_>,
        operation: impl FnMut(BorrowedFd<'_>) -> Result<(T, Moved), Errno>,
    ) -> Poll<io::Result<T>> {
        self.source.poll(Direction::Write, kept, context, operation)
    }

    #[inline(always)]
    fn limit_of(&self, ns: &AtomicU64) -> Option<Duration> {
        if self.is_nonblocking() { Some(Duration::ZERO) } else { limit(ns) }
    }

    /// A socket that does not park has run into the limit of no time at all.
    #[cold]
    fn explain(&self, error: io::Error) -> io::Error {
        if self.is_nonblocking() && is_elapsed(&error) { Errno::AGAIN.into() } else { error }
    }

    pub(super) fn read_timeout(&self) -> Option<Duration> {
        limit(&self.read_limit_ns)
    }

    pub(super) fn write_timeout(&self) -> Option<Duration> {
        limit(&self.write_limit_ns)
    }

    pub(super) fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        set_limit(&self.read_limit_ns, limit)
    }

    pub(super) fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        set_limit(&self.write_limit_ns, limit)
    }

    #[inline(always)]
    pub(super) fn is_nonblocking(&self) -> bool {
        self.nonblocking.load(Ordering::Relaxed)
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        self.nonblocking.store(nonblocking, Ordering::Relaxed);
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let how = match how {
            Shutdown::Read => net::Shutdown::Read,
            Shutdown::Write => net::Shutdown::Write,
            Shutdown::Both => net::Shutdown::Both,
        };
        Ok(net::shutdown(&self.source, how)?)
    }

    /// Makes every operation fail from now on, here and on other threads, those that wait included.
    pub(super) fn close(&self) {
        self.source.close();
        // Other hubs see the shutdown as an event and then find the source closed. An error means
        // that the connection has ended already: then they have seen that.
        let _ = net::shutdown(&self.source, net::Shutdown::Both);
    }

    /// Its own address, to be read by people.
    pub(super) fn shown_addr(&self) -> String {
        let address = net::getsockname(&self.source).ok().and_then(address::shown);
        address.unwrap_or_else(|| format!("descriptor {}", self.source.as_fd().as_raw_fd()))
    }

    /// Writes the fields that std's types show.
    pub(super) fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(name);
        if let Some(address) = net::getsockname(&self.source).ok().and_then(address::shown) {
            shown.field("addr", &format_args!("{address}"));
        }
        if let Some(peer) = net::getpeername(&self.source).ok().flatten().and_then(address::shown) {
            shown.field("peer", &format_args!("{peer}"));
        }
        shown.field("fd", &self.source.as_fd().as_raw_fd()).finish()
    }
}

/// How descriptors are made: so that no other thread can leak one into a child, nor see it block.
pub(super) const FLAGS: net::SocketFlags =
    net::SocketFlags::CLOEXEC.union(net::SocketFlags::NONBLOCK);

/// What a call that moved `n` of `asked` bytes says about readiness (`NET-2`).
#[inline(always)]
pub(super) fn moved(n: usize, asked: usize) -> (usize, Moved) {
    let part = 0 < n && n < asked.min(MOVED_BYTES_MAX);
    (n, if part { Moved::Part } else { Moved::All })
}

/// Whether a limit of ours has elapsed, not one of the kernel's (`ETIMEDOUT`).
fn is_elapsed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::TimedOut && error.raw_os_error().is_none()
}

fn nanos(limit: Duration) -> u64 {
    // 584 years are for ever enough.
    limit.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[inline(always)]
fn limit(ns: &AtomicU64) -> Option<Duration> {
    match ns.load(Ordering::Relaxed) {
        0 => None,
        ns => Some(Duration::from_nanos(ns)),
    }
}

fn set_limit(ns: &AtomicU64, limit: Option<Duration>) -> io::Result<()> {
    check_limit(limit)?;
    ns.store(limit.map_or(0, nanos), Ordering::Relaxed);
    Ok(())
}

/// Refuses a limit of no time at all, as std does.
pub(super) fn check_limit(limit: Option<Duration>) -> io::Result<()> {
    if limit == Some(Duration::ZERO) {
        let text = "cannot set a 0 duration timeout";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}
