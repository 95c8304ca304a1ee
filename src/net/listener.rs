//! TCP listeners, and how accepting survives a shortage.
//!
//! Floor 6. Uses: `socket`, `address`. Used by: users.

use std::{
    fmt, io,
    iter::FusedIterator,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{acceptfrom_with, bind, listen, sockopt},
};

use super::{
    address::{ToSocketAddrs, each_address},
    socket::{FLAGS, Socket},
    stream::TcpStream,
};
use crate::hub::io::{Direction, Moved};

/// Connections that wait to be accepted, at most: std's number.
const BACKLOG: i32 = 128;

/// The first pause after a shortage: a descriptor that is about to be closed is closed by then.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest: a peer that waits finds that long enough, and a processor finds it nothing.
const PAUSE_MAX: Duration = Duration::from_secs(1);

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
    /// A shortage was reported and is not over: it is reported once.
    short: AtomicBool,
}

impl TcpListener {
    pub(super) fn from_socket(socket: Socket) -> TcpListener {
        TcpListener { socket, short: AtomicBool::new(false) }
    }

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
            let socket = Socket::stream_for(&address)?;
            sockopt::set_socket_reuseaddr(&socket.source, true)?;
            bind(&socket.source, &address)?;
            listen(&socket.source, BACKLOG)?;
            Ok(TcpListener::from_socket(socket))
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// Those of getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Makes another handle for the same listening socket.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<TcpListener> {
        let copy = TcpListener::from_socket(self.socket.duplicate()?);
        copy.short.store(self.short.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(copy)
    }

    /// Waits for a connection, and takes it.
    ///
    /// Shape: errors that concern one connection that is gone already (`ECONNABORTED`, `EPROTO` and
    /// the network errors that accept(2) lists) are skipped. When descriptors or memory run short
    /// (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), it is reported once
    /// ([`set_unhandled_hook`](crate::set_unhandled_hook)), connections stay in the backlog, and
    /// accepting is tried again: after 10 ms, then after twice as long each time, up to 1 s.
    ///
    /// # Errors
    ///
    /// `NotConnected` after [`close`](Self::close); `InvalidInput` (`EINVAL`) when another handle
    /// was closed; [`Killed`](crate::Killed) inside an error of kind `Other` where a kill cannot
    /// unwind; outside [`run`](crate::run), an error that says so.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel no connection was taken.
    ///
    /// # Source
    ///
    /// accept(2), section "Error handling"; the pauses are Go's `net/http`, longer and parked.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let mut pause = PAUSE_MIN;
        loop {
            let accepted = self.socket.receive(|fd| Ok((acceptfrom_with(fd, FLAGS)?, Moved::All)));
            let error = match accepted {
                Ok((fd, peer)) => {
                    if pause == PAUSE_MIN {
                        self.short.store(false, Ordering::Relaxed);
                    }
                    let stream = TcpStream::from_socket(Socket::new(fd));
                    // Linux always says who it is.
                    let peer = peer.map_or_else(|| stream.peer_addr(), |p| Ok(p.try_into()?))?;
                    return Ok((stream, peer));
                }
                Err(error) => error,
            };
            match Errno::from_io_error(&error) {
                Some(errno) if is_of_one_connection(errno) => {}
                Some(errno) if is_shortage(errno) && !self.socket.is_nonblocking() => {
                    self.report(&error);
                    self.socket.source.pause(Direction::Read, pause)?;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
                _ => return Err(error),
            }
        }
    }

    #[cold]
    fn report(&self, error: &io::Error) {
        if self.short.swap(true, Ordering::Relaxed) {
            return;
        }
        let what = self.local_addr().map_or_else(
            |_| String::from("a TcpListener"),
            |address| format!("the TcpListener on {address}"),
        );
        let message = format!(
            "accept: {error}; connections wait in its backlog, and it tries again and again, at \
             least once a second"
        );
        crate::report::unhandled(&what, &message, error);
    }

    /// Iterates over the connections that come: [`accept`](Self::accept), again and again.
    ///
    /// Shape: waits for each. Unlike std's it ends: an error after which no connection can come
    /// (the listener was closed, here or through another handle) is its last item.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self, ended: false }
    }

    /// Ends listening, and every operation on this handle, those that wait included.
    ///
    /// Shape: they fail with `NotConnected`, on whatever thread they wait, and so does all that is
    /// tried later; other handles of the socket ([`try_clone`](Self::try_clone)) get `EINVAL`.
    /// Connections that nobody has accepted are reset; the port is free when the last handle is
    /// dropped.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn close(&self) {
        self.socket.close();
    }

    /// The time to live of packets (`IP_TTL`), in hops; accepted connections inherit it.
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

    /// Takes the error that is pending on the socket (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    /// Has [`accept`](Self::accept) say `WouldBlock` where it would park, or park again; see
    /// [`TcpStream::set_nonblocking`]. In that mode a shortage is returned as the error it is.
    /// Accepted connections park.
    ///
    /// # Errors
    ///
    /// Never; std's signature.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.socket.set_nonblocking(nonblocking);
        Ok(())
    }
}

/// Whether accept(2) says so of a connection that is gone already. (Not `EOPNOTSUPP`, which it
/// lists too: Linux says that of sockets that can never accept.)
fn is_of_one_connection(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::CONNABORTED
            | Errno::PROTO
            | Errno::NETDOWN
            | Errno::NOPROTOOPT
            | Errno::HOSTDOWN
            | Errno::NONET
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
    )
}

/// Whether something ran short that others may give back.
fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.socket.describe("TcpListener", f)
    }
}

/// Iterates over the connections of a [`TcpListener`]; see [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
    /// No connection can come any more.
    ended: bool,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    /// Waits for the next connection.
    ///
    /// # Cancellation
    ///
    /// As [`TcpListener::accept`].
    fn next(&mut self) -> Option<io::Result<TcpStream>> {
        if self.ended {
            return None;
        }
        let accepted = self.listener.accept();
        if let Err(error) = &accepted {
            self.ended = error.kind() == io::ErrorKind::NotConnected
                || Errno::from_io_error(error) == Some(Errno::INVAL);
        }
        Some(accepted.map(|(stream, _)| stream))
    }
}

impl FusedIterator for Incoming<'_> {}
