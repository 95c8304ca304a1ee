//! Accepting: what listeners share, and how it survives a shortage.
//!
//! Floor 6. Uses: `socket`. Used by: users, by the listeners of `net`; `server`.

use std::{
    io,
    iter::FusedIterator,
    net::SocketAddr,
    os::{fd::BorrowedFd, unix::net::SocketAddr as UnixSocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{SocketAddrAny, acceptfrom_with},
};

use super::{
    address::{internet_from, unix_from},
    socket::{FLAGS, Socket},
    tcp::{TcpListener, TcpStream},
    unix::{UnixListener, UnixStream},
};
use crate::{
    hub::{
        Hub,
        io::{Direction, Moved},
        park::Interrupt,
    },
    time::Deadline,
};

/// The first pause after a shortage: a descriptor that is about to be closed is closed by then.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest: a peer that waits finds that long enough, and a processor finds it nothing.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Something that connections come from: a listener, or one of your own around it.
///
/// Shape: what a [`Server`](super::Server) and [`Incoming`] need. Connections are whatever
/// [`accept`](Self::accept) gives; those of this module are a stream and its peer's address.
///
/// # Examples
///
/// One that greets each client before anybody serves it:
///
/// ```
/// use greenloop::net::{Accept, SocketAddr, TcpListener, TcpStream};
/// use std::io::{self, Write};
/// struct Greeting(TcpListener);
/// impl Accept for Greeting {
///     type Connection = (TcpStream, SocketAddr);
///     fn accept(&self) -> io::Result<Self::Connection> {
///         let (mut stream, peer) = self.0.accept()?;
///         stream.write_all(b"hello\n").map_err(|_| io::ErrorKind::ConnectionAborted)?;
///         Ok((stream, peer))
///     }
/// }
/// ```
///
/// What may take long, a TLS handshake say, is better done by the handler: here it would keep
/// others from being accepted.
pub trait Accept {
    /// What comes.
    type Connection: 'static;

    /// Waits for the next one.
    ///
    /// # Errors
    ///
    /// Of the kind `ConnectionAborted`, or one that accept(2) lists for a connection that is gone
    /// already: concerns this one connection, and the next may be asked for at once. A shortage
    /// (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`): may pass. Any other: no connection can come any
    /// more.
    ///
    /// # Cancellation
    ///
    /// It must be a cancellation point where it waits, so that whoever waits here can be stopped.
    fn accept(&self) -> io::Result<Self::Connection>;
}

/// Accepts until there is a connection, or none can come any more.
///
/// Shape: errors of one connection are skipped. In a shortage `report` is called, unless `short`
/// says that it was reported; then `pause`, for twice as long each time; and it is tried again. The
/// `impatient` get it as an error.
pub(super) fn persist<T>(
    short: &AtomicBool,
    impatient: bool,
    mut accept: impl FnMut() -> io::Result<T>,
    mut pause: impl FnMut(Duration) -> io::Result<()>,
    report: impl Fn(&io::Error),
) -> io::Result<T> {
    let mut next_pause = PAUSE_MIN;
    loop {
        let error = match accept() {
            Ok(connection) => {
                if next_pause == PAUSE_MIN {
                    short.store(false, Ordering::Relaxed);
                }
                return Ok(connection);
            }
            Err(error) => error,
        };
        match Errno::from_io_error(&error) {
            _ if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Some(errno) if is_of_one_connection(errno) => {}
            Some(errno) if is_shortage(errno) && !impatient => {
                if !short.swap(true, Ordering::Relaxed) {
                    report(&error);
                }
                pause(next_pause)?;
                next_pause = (next_pause * 2).min(PAUSE_MAX);
            }
            _ => return Err(error),
        }
    }
}

/// Says of `what` accepts that something has run short.
#[cold]
pub(super) fn report_shortage(what: &str, error: &io::Error) {
    let message = format!(
        "accept: {error}; connections wait in its backlog, and it tries again and again, at least \
         once a second"
    );
    crate::report::unhandled(what, &message, error);
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

/// Waits for a connection on a listening socket, until a deadline if there is one.
fn accept_on(
    name: &str,
    socket: &Socket,
    deadline: Option<Deadline>,
) -> io::Result<(Socket, Option<SocketAddrAny>)> {
    let left = || {
        let now = Hub::of_caller().map_or(Deadline::NEVER, |hub| hub.reactor.clock_now());
        deadline.map(|deadline| deadline.duration_since(now))
    };
    let accept = || {
        let accept = |fd: BorrowedFd<'_>| Ok((acceptfrom_with(fd, FLAGS)?, Moved::All));
        let (fd, peer) = socket.receive_within(left(), accept)?;
        Ok((Socket::new(fd), peer))
    };
    let pause = |pause: Duration| match left() {
        Some(Duration::ZERO) => Err(Interrupt::TimedOut.into()),
        left => socket.source.pause(Direction::Read, left.map_or(pause, |left| pause.min(left))),
    };
    let report = |error: &io::Error| {
        report_shortage(&format!("the {name} on {}", socket.shown_addr()), error);
    };
    persist(&socket.short, socket.is_nonblocking(), accept, pause, report)
}

macro_rules! listeners {
    ($($ours:ident gives $stream:ident from $address:path, by $convert:expr;)+) => {$(
        impl $ours {
            /// Waits for a connection, and takes it.
            ///
            /// Shape: errors that concern one connection that is gone already (`ECONNABORTED`,
            /// `EPROTO` and the network errors that accept(2) lists) are skipped. When descriptors
            /// or memory run short (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), it is reported once
            /// ([`set_unhandled_hook`](crate::set_unhandled_hook)), connections stay in the
            /// backlog, and accepting is tried again: after 10 ms, then after twice as long each
            /// time, up to 1 s. After [`set_nonblocking`](Self::set_nonblocking), a shortage is
            /// returned as the error it is. Connections themselves always park.
            ///
            /// # Errors
            ///
            /// `NotConnected` after [`close`](Self::close); where TCP's, `InvalidInput` (`EINVAL`)
            /// when another handle was closed; [`Killed`](crate::Killed) inside an error of kind
            /// `Other` where a kill cannot unwind; outside [`run`](crate::run), an error that says
            /// so.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: always. On cancel no connection was taken.
            ///
            /// # Source
            ///
            /// accept(2), section "Error handling"; the pauses are Go's `net/http`, longer and
            /// parked.
            pub fn accept(&self) -> io::Result<($stream, $address)> {
                self.accept_until(None)
            }

            /// As [`accept`](Self::accept), but gives up after `limit`.
            ///
            /// Shape: one that is there is taken, also within a limit of zero.
            ///
            /// # Errors
            ///
            /// As [`accept`](Self::accept); `TimedOut` after `limit`.
            ///
            /// # Cancellation
            ///
            /// As [`accept`](Self::accept).
            pub fn accept_timeout(&self, limit: Duration) -> io::Result<($stream, $address)> {
                self.accept_until(Hub::of_caller().map(|hub| hub.deadline_in(limit)))
            }

            fn accept_until(&self, deadline: Option<Deadline>) -> io::Result<($stream, $address)> {
                let (socket, peer) = accept_on(stringify!($ours), &self.socket, deadline)?;
                let stream = $stream::from_socket(socket);
                // Linux always says who it is.
                let peer = peer.map_or_else(|| stream.peer_addr(), $convert)?;
                Ok((stream, peer))
            }

            /// Iterates over the connections that come: [`accept`](Self::accept), again and again.
            ///
            /// Shape: waits for each. Unlike std's it ends: an error after which no connection can
            /// come (the listener was closed, here or through another handle) is its last item.
            pub fn incoming(&self) -> Incoming<'_, $ours> {
                Incoming { listener: self, ended: false }
            }
        }

        impl Accept for $ours {
            type Connection = ($stream, $address);

            fn accept(&self) -> io::Result<Self::Connection> {
                $ours::accept(self)
            }
        }

        impl Iterator for Incoming<'_, $ours> {
            type Item = io::Result<$stream>;

            /// Waits for the next connection.
            ///
            /// # Cancellation
            ///
            /// As the listener's `accept`.
            fn next(&mut self) -> Option<Self::Item> {
                self.next_connection().map(|accepted| Ok(accepted?.0))
            }
        }

        impl FusedIterator for Incoming<'_, $ours> {}
    )+};
}

listeners! {
    TcpListener gives TcpStream from SocketAddr, by internet_from;
    UnixListener gives UnixStream from UnixSocketAddr, by unix_from;
}

/// Iterates over the connections of a listener; see [`TcpListener::incoming`].
#[derive(Debug)]
#[must_use = "iterators are lazy and do nothing unless consumed"]
pub struct Incoming<'a, L = TcpListener> {
    listener: &'a L,
    /// No connection can come any more.
    ended: bool,
}

impl<L: Accept> Incoming<'_, L> {
    fn next_connection(&mut self) -> Option<io::Result<L::Connection>> {
        if self.ended {
            return None;
        }
        let accepted = self.listener.accept();
        if let Err(error) = &accepted {
            self.ended = error.kind() == io::ErrorKind::NotConnected
                || Errno::from_io_error(error) == Some(Errno::INVAL);
        }
        Some(accepted)
    }
}
