//! TCP: connections and listeners.
//!
//! Floor 6. Uses: `socket`, `address`. Used by: users. What streams share is in `stream`, how
//! accepting survives a shortage in `listener`.

use std::{io, net::SocketAddr, os::fd::BorrowedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{SocketType, bind, connect, getpeername, listen, sockopt},
};

use super::{
    address::{ToSocketAddrs, each_address},
    socket::{Socket, check_limit},
};
use crate::hub::{
    Hub,
    io::{Direction, Moved},
    kept::Kept,
};

/// Connections that wait to be accepted, at most: std's number.
pub(super) const BACKLOG: i32 = 128;

/// A TCP connection: [`std::net::TcpStream`] that parks the greenlet instead of the thread.
///
/// Reads and writes through [`Read`](io::Read) and [`Write`](io::Write), of the type and of `&` of
/// it, so several greenlets may use one connection, through an `Rc`, say. Dropping the last handle
/// closes it; [`close`](Self::close) ends it for all who wait.
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
        Hub::may_wait()?;
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
        Hub::may_wait()?;
        TcpStream::connect_within(addr, Some(timeout))
    }

    fn connect_within(address: &SocketAddr, limit: Option<Duration>) -> io::Result<TcpStream> {
        let socket = Socket::for_address(address, SocketType::STREAM)?;
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

/// A TCP socket that listens: [`std::net::TcpListener`] that parks the greenlet instead of the
/// thread.
///
/// Several greenlets, also of several threads, may accept from one listener.
///
/// # Examples
///
/// ```
/// use greenloop::net::{TcpListener, TcpStream};
/// use std::io::{Read, Write};
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let listener = TcpListener::bind(("127.0.0.1", 0))?;
///     let address = listener.local_addr()?;
///     greenloop::spawn(move || {
///         for stream in listener.incoming() {
///             let Ok(mut stream) = stream else { return };
///             greenloop::spawn(move || {
///                 let mut buf = [0; 64];
///                 while let Ok(n @ 1..) = stream.read(&mut buf) {
///                     stream.write_all(&buf[..n])?;
///                 }
///                 std::io::Result::Ok(())
///             });
///         }
///     });
///     let mut echo = [0; 5];
///     let mut stream = TcpStream::connect(address)?;
///     stream.write_all(b"hello")?;
///     stream.read_exact(&mut echo)?;
///     assert_eq!(&echo, b"hello");
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::net::TcpListener`]; accept(2), whose advice on errors [`accept`](Self::accept) follows.
pub struct TcpListener {
    pub(super) socket: Socket,
}

impl TcpListener {
    /// Binds to the first of the addresses that can be had, and listens.
    ///
    /// Shape: as std: with `SO_REUSEADDR` and a backlog of 128. Works outside
    /// [`run`](crate::run), unless a name must be looked up.
    ///
    /// # Errors
    ///
    /// The error of the last address that was tried (`AddrInUse`, `AddrNotAvailable`,
    /// `PermissionDenied`, …); what the resolver says of a name; `InvalidInput` when there is no
    /// address.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: for names, always; otherwise never.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<TcpListener> {
        each_address(addr, |address| {
            let socket = Socket::for_address(&address, SocketType::STREAM)?;
            sockopt::set_socket_reuseaddr(&socket.source, true)?;
            bind(&socket.source, &address)?;
            listen(&socket.source, BACKLOG)?;
            Ok(TcpListener::from_socket(socket))
        })
    }
}
