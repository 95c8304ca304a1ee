//! TCP connections.
//!
//! Floor 6. Uses: `socket`, `address`. Used by: users, `listener`.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::BorrowedFd,
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, connect, getpeername, recv,
        recvmsg, send, sendmsg, sockopt,
    },
};

use super::{
    address::{ToSocketAddrs, each_address},
    socket::{BUFFERS_MAX, Socket, check_limit, moved},
};
use crate::hub::{
    Hub,
    io::{Direction, Moved},
    kept::Kept,
};

/// Never waits, also if somebody with a duplicate has put the open socket into blocking mode.
pub(super) const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;

/// The same, and no signal when the peer is gone (`NET-3`).
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);

/// A TCP connection: [`std::net::TcpStream`] that parks the greenlet instead of the thread.
///
/// Reads and writes through [`Read`] and [`Write`], of the type and of `&` of it, so several
/// greenlets may use one connection, through an `Rc`, say. Dropping the last handle closes it;
/// [`close`](Self::close) ends it for all who wait.
///
/// # Errors
///
/// A read, write or peek returns, besides what recv(2) and send(2) say: `TimedOut` when its
/// timeout has elapsed (what was not read stays there); `NotConnected` after
/// [`close`](Self::close); [`Killed`](crate::Killed) inside an error of kind `Other` where a kill
/// cannot unwind; outside [`run`](crate::run), an error that says so. A read of 0 is the peer's
/// end; writing to a connection that the peer has reset is `ConnectionReset` or `BrokenPipe`, never
/// a signal.
///
/// # Cancellation
///
/// Every read, write and peek is a cancellation point: always, also when it need not wait. On
/// cancel nothing was read or written by that call, and the connection is as good as before. (A
/// kill in the midst of `write_all` or `read_exact`, which are several calls, loses count of what
/// the earlier ones moved.) To succeed without waiting 128 times in a row makes a greenlet yield.
///
/// # Examples
///
/// ```
/// use greenloop::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let address = listener.local_addr()?;
///     let server = greenloop::spawn(move || {
///         let (mut stream, _) = listener.accept()?;
///         stream.write_all(b"welcome")
///     });
///     let mut text = String::new();
///     TcpStream::connect(address)?.read_to_string(&mut text)?;
///     assert_eq!(text, "welcome");
///     server.join().unwrap()
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::net::TcpStream`]; tcp(7).
pub struct TcpStream {
    /// The wait of a future that reads, and of one that writes. They end before the socket does.
    pub(super) reading: Kept,
    pub(super) writing: Kept,
    pub(super) socket: Socket,
}

impl TcpStream {
    pub(super) fn from_socket(socket: Socket) -> TcpStream {
        TcpStream { reading: Kept::default(), writing: Kept::default(), socket }
    }

    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    ///
    /// The error of the last address that was tried (`ConnectionRefused`, `TimedOut`, …); what the
    /// resolver says of a name; `InvalidInput` when there is no address; outside
    /// [`run`](crate::run), an error that says so.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the unfinished connection is closed.
    ///
    /// # Source
    ///
    /// [`std::net::TcpStream::connect`]; connect(2) under `EINPROGRESS`.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<TcpStream> {
        Hub::to_park()?;
        each_address(addr, |address| TcpStream::connect_within(&address, None))
    }

    /// Connects to one address, within `timeout`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect); `TimedOut` after `timeout`; `InvalidInput` when that is zero.
    ///
    /// # Cancellation
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        check_limit(Some(timeout))?;
        Hub::to_park()?;
        TcpStream::connect_within(addr, Some(timeout))
    }

    fn connect_within(address: &SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
        let socket = Socket::stream_for(address)?;
        let mut begun = false;
        let connected = socket.source.operate(Direction::Write, limit, |fd| {
            if begun {
                return poll_connected(fd);
            }
            begun = true;
            match connect(fd, address) {
                // It goes on without us.
                Err(Errno::INPROGRESS | Errno::INTR) => Err(Errno::AGAIN),
                // Not "try later": nothing has begun, so nothing would ever be reported.
                Err(Errno::AGAIN) => Ok((Err(Errno::AGAIN), Moved::All)),
                done => Ok((done, Moved::All)),
            }
        });
        connected??;
        Ok(TcpStream::from_socket(socket))
    }

    /// The peer's address.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection has ended.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.peer_addr()
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Ends one or both directions of the connection, for all its handles.
    ///
    /// Shape: who waits for an ended direction is woken: a reader reads 0, a writer gets
    /// `BrokenPipe`.
    ///
    /// # Errors
    ///
    /// `NotConnected` when it has ended already.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket.shutdown(how)
    }

    /// Ends the connection and every operation on this handle, those that wait included.
    ///
    /// Shape: they fail with `NotConnected`, on whatever thread they wait, and so does all that is
    /// tried later. Other handles of the connection ([`try_clone`](Self::try_clone)) see it
    /// [shut down](Self::shutdown). The descriptor itself is closed when the handle is dropped.
    /// What was written before is still sent.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    ///
    /// # Source
    ///
    /// gevent's `socket.close`, which wakes its waiters with `EBADF`. Rust closes by dropping, and
    /// that needs that nobody uses the socket any more: hence a call of its own.
    pub fn close(&self) {
        self.socket.close();
    }

    /// Makes another handle for the same connection.
    ///
    /// Shape: both directions, bytes and shutdown are shared. Timeouts and
    /// [`set_nonblocking`](Self::set_nonblocking) are copied, and belong to each handle from then
    /// on.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<TcpStream> {
        Ok(TcpStream::from_socket(self.socket.duplicate()?))
    }

    /// Sets how long a read or peek waits; `None`: for ever.
    ///
    /// Shape: it counts from the moment when that call begins to wait. A read that is waiting
    /// already keeps its limit.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(dur)
    }

    /// Sets how long a write waits; `None`: for ever. Otherwise as
    /// [`set_read_timeout`](Self::set_read_timeout).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
        self.socket.set_write_timeout(dur)
    }

    /// How long a read waits.
    ///
    /// # Errors
    ///
    /// Never; std's signature.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.socket.read_timeout())
    }

    /// How long a write waits.
    ///
    /// # Errors
    ///
    /// Never; std's signature.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.socket.write_timeout())
    }

    /// Reads without taking out of the connection what it reads.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing has changed.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        // Not `moved`: what was peeked at is still there, so nothing says that a read would block.
        self.socket
            .receive(|fd| Ok((recv(fd, &mut *buf, RECEIVE | RecvFlags::PEEK)?.0, Moved::All)))
    }

    /// Whether small writes are sent at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        Ok(sockopt::tcp_nodelay(&self.socket.source)?)
    }

    /// Has small writes sent at once, or not.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        Ok(sockopt::set_tcp_nodelay(&self.socket.source, nodelay)?)
    }

    /// The time to live of packets (`IP_TTL`), in hops.
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket.ttl()
    }

    /// Sets the time to live of packets, in hops.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket.set_ttl(ttl)
    }

    /// Takes the error that is pending on the connection (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Reads for a future: where [`read`](Read::read) would park, its waker is kept, and called
    /// when there is something to read.
    ///
    /// Shape: as a `poll` function of its own, it may be called by any future that is polled on a
    /// thread where [`run`](crate::run) runs, whoever polls it; the newest waker counts. The read
    /// timeout and [`set_nonblocking`](Self::set_nonblocking) concern calls that park, and do not
    /// count here. The stream may move to another thread between two calls. After 128 operations
    /// without waiting it lets the others run first: it wakes the future and is `Pending`, until
    /// the greenlet that polls has parked or yielded. (Another crate's `block_on` does neither.)
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never. A future that is dropped while it waits has read nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use greenloop::net::{TcpListener, TcpStream};
    /// use std::{future::poll_fn, io::Write};
    /// # fn main() -> std::io::Result<()> {
    /// greenloop::run(|| {
    ///     let listener = TcpListener::bind("127.0.0.1:0")?;
    ///     let mut stream = TcpStream::connect(listener.local_addr()?)?;
    ///     greenloop::spawn(move || listener.accept()?.0.write_all(b"hello"));
    ///     let mut buf = [0; 64];
    ///     let n = greenloop::wait_for_future(poll_fn(|cx| stream.poll_read(cx, &mut buf)))?;
    ///     assert_eq!(&buf[..n], b"hello");
    ///     Ok(())
    /// })
    /// # }
    /// ```
    ///
    /// # Source
    ///
    /// The `poll_read` of futures' `AsyncRead`, which needs the feature `futures-io`.
    #[inline]
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_receive(&mut self.reading, context, |fd| {
            let (n, _) = recv(fd, &mut *buf, RECEIVE)?;
            Ok(moved(n, buf.len()))
        })
    }

    /// Writes for a future; otherwise as [`poll_read`](Self::poll_read).
    ///
    /// # Errors
    ///
    /// As a write.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never. A future that is dropped while it waits has written nothing.
    #[inline]
    pub fn poll_write(&mut self, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket
            .poll_send(&mut self.writing, context, |fd| Ok(moved(send(fd, buf, SEND)?, buf.len())))
    }

    /// Writes out of several buffers; otherwise as [`poll_write`](Self::poll_write).
    ///
    /// # Errors
    ///
    /// As a write.
    pub fn poll_write_vectored(
        &mut self,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket.poll_send(&mut self.writing, context, |fd| send_from(fd, bufs))
    }

    /// Has operations that would park say `WouldBlock`, or park again.
    ///
    /// Shape: such an operation first lets the other greenlets run and IO be looked at once, so a
    /// loop that tries again and again stops nobody. It concerns this handle only; the descriptor
    /// is in non-blocking mode always, and a handle made from a std type always begins by parking.
    ///
    /// # Errors
    ///
    /// Never; std's signature.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }
}

/// How a connection that was begun stands: `AGAIN` while nothing is known.
fn poll_connected(fd: BorrowedFd<'_>) -> Result<(Result<(), Errno>, Moved), Errno> {
    let result = match sockopt::socket_error(fd)? {
        // No error, which is also so while it is under way: only a connected socket has a peer.
        // (A wake that comes too early would be needed to see that; no test can make one.)
        Ok(()) => match getpeername(fd) {
            Err(Errno::NOTCONN) => return Err(Errno::AGAIN),
            known => known.map(drop),
        },
        Err(failed) => Err(failed),
    };
    Ok((result, Moved::All))
}

/// Receives into several buffers.
pub(super) fn receive_into(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
) -> Result<(usize, Moved), Errno> {
    let count = bufs.len().min(BUFFERS_MAX);
    let bufs = &mut bufs[..count];
    let asked = bufs.iter().map(|buf| buf.len()).sum();
    let received = recvmsg(fd, bufs, &mut RecvAncillaryBuffer::default(), RECEIVE)?;
    Ok(moved(received.bytes, asked))
}

/// Sends out of several buffers.
fn send_from(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>]) -> Result<(usize, Moved), Errno> {
    let bufs = &bufs[..bufs.len().min(BUFFERS_MAX)];
    let asked = bufs.iter().map(|buf| buf.len()).sum();
    let sent = sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), SEND)?;
    Ok(moved(sent, asked))
}

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.receive(|fd| {
            let (n, _) = recv(fd, &mut *buf, RECEIVE)?;
            Ok(moved(n, buf.len()))
        })
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.socket.receive(|fd| receive_into(fd, bufs))
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.send(|fd| Ok(moved(send(fd, buf, SEND)?, buf.len())))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.socket.send(|fd| send_from(fd, bufs))
    }

    /// Does nothing: what was written is the kernel's.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.describe("TcpStream", f)
    }
}
