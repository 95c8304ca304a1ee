//! What the handles of sockets share: clones, modes, limits, ends.
//!
//! Floor 6. Uses: `socket`. Used by: users, as methods of every type of `net`.

use std::{
    fmt, io,
    net::{Shutdown, SocketAddr},
    os::unix::net::SocketAddr as UnixSocketAddr,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{getpeername, getsockname, sockopt},
};

use super::{
    address::{internet_from, unix_from},
    socket::Socket,
    tcp::{TcpListener, TcpStream},
    udp::UdpSocket,
    unix::{UnixListener, UnixStream},
    unix_datagram::UnixDatagram,
};

macro_rules! handles {
    ($($ours:ident $(waits by $($kept:ident)+)?;)+) => {$(
        impl $ours {
            pub(super) fn from_socket(socket: Socket) -> $ours {
                $ours { $($($kept: Default::default(),)+)? socket }
            }

            /// Makes another handle for the same open socket.
            ///
            /// Shape: what arrives is shared, and so is a shutdown. Timeouts and
            /// [`set_nonblocking`](Self::set_nonblocking) are copied, and belong to each handle
            /// from then on.
            ///
            /// # Errors
            ///
            /// When no descriptor is left.
            pub fn try_clone(&self) -> io::Result<$ours> {
                Ok($ours::from_socket(self.socket.duplicate()?))
            }

            /// Ends the socket and every operation on this handle, those that wait included.
            ///
            /// Shape: they fail with `NotConnected`, on whatever thread they wait, and so does all
            /// that is tried later. What other handles of the socket
            /// ([`try_clone`](Self::try_clone)) see is a stream that is shut down in both
            /// directions, a TCP listener whose `accept` is `EINVAL`, a local one that nobody can
            /// connect to, a socket for datagrams that can send nothing. What was written before is
            /// still sent; connections that nobody has accepted are reset. The descriptor itself is
            /// closed, and the address free, when the last handle is dropped.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: never.
            ///
            /// # Source
            ///
            /// gevent's `socket.close`, which wakes its waiters with `EBADF`. Rust closes by
            /// dropping, and that needs that nobody uses the socket any more: hence a call of its
            /// own.
            pub fn close(&self) {
                self.socket.close();
            }

            /// Takes the error that is pending on the socket (`SO_ERROR`).
            ///
            /// # Errors
            ///
            /// Those of getsockopt(2).
            pub fn take_error(&self) -> io::Result<Option<io::Error>> {
                Ok(sockopt::socket_error(&self.socket.source)?.err().map(io::Error::from))
            }

            /// Has operations that would park say `WouldBlock`, or park again.
            ///
            /// Shape: such an operation first lets the other greenlets run and IO be looked at
            /// once, so a loop that tries again and again stops nobody. It concerns this handle
            /// only; the descriptor is in non-blocking mode always, and a handle made from a std
            /// type always begins by parking.
            ///
            /// # Errors
            ///
            /// Never; std's signature.
            pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
                self.socket.set_nonblocking(nonblocking);
                Ok(())
            }
        }

        impl fmt::Debug for $ours {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.socket.describe(stringify!($ours), f)
            }
        }
    )+};
}

handles! {
    TcpListener;
    TcpStream waits by reading writing;
    UdpSocket;
    UnixDatagram;
    UnixListener;
    UnixStream waits by reading writing;
}

macro_rules! limits {
    ($($ours:ident),+) => {$(
        impl $ours {
            /// Sets how long a receiving call waits; `None`: for ever.
            ///
            /// Shape: it counts from the moment when that call begins to wait. One that is waiting
            /// already keeps its limit.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_read_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
                self.socket.set_read_timeout(dur)
            }

            /// Sets how long a sending call waits; `None`: for ever. Otherwise as
            /// [`set_read_timeout`](Self::set_read_timeout).
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            pub fn set_write_timeout(&self, dur: Option<Duration>) -> io::Result<()> {
                self.socket.set_write_timeout(dur)
            }

            /// How long a receiving call waits.
            ///
            /// # Errors
            ///
            /// Never; std's signature.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.socket.read_timeout())
            }

            /// How long a sending call waits.
            ///
            /// # Errors
            ///
            /// Never; std's signature.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                Ok(self.socket.write_timeout())
            }
        }
    )+};
}

limits!(TcpStream, UdpSocket, UnixDatagram, UnixStream);

macro_rules! ends {
    ($($ours:ident),+) => {$(
        impl $ours {
            /// Ends one or both directions, for all handles of the socket.
            ///
            /// Shape: who waits for an ended direction is woken: a reader reads 0, a writer gets
            /// `BrokenPipe`.
            ///
            /// # Errors
            ///
            /// `NotConnected` when it has ended already, or never had a peer.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: never.
            pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
                self.socket.shutdown(how)
            }
        }
    )+};
}

ends!(TcpStream, UnixDatagram, UnixStream);

macro_rules! internet {
    ($($ours:ident),+) => {$(
        impl $ours {
            /// This end's address.
            ///
            /// # Errors
            ///
            /// Those of getsockname(2).
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                internet_from(getsockname(&self.socket.source)?)
            }

            /// The time to live of packets (`IP_TTL`), in hops; a listener's is inherited by its
            /// connections.
            ///
            /// # Errors
            ///
            /// Those of getsockopt(2).
            pub fn ttl(&self) -> io::Result<u32> {
                Ok(sockopt::ip_ttl(&self.socket.source)?)
            }

            /// Sets the time to live of packets, in hops.
            ///
            /// # Errors
            ///
            /// Those of setsockopt(2).
            pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
                Ok(sockopt::set_ip_ttl(&self.socket.source, ttl)?)
            }
        }
    )+};
}

internet!(TcpListener, TcpStream, UdpSocket);

macro_rules! locals {
    ($($ours:ident),+) => {$(
        impl $ours {
            /// This end's address.
            ///
            /// # Errors
            ///
            /// Those of getsockname(2).
            pub fn local_addr(&self) -> io::Result<UnixSocketAddr> {
                unix_from(getsockname(&self.socket.source)?)
            }
        }
    )+};
}

locals!(UnixDatagram, UnixListener, UnixStream);

macro_rules! peers {
    ($($ours:ident: $address:ident by $convert:expr;)+) => {$(
        impl $ours {
            /// The peer's address.
            ///
            /// # Errors
            ///
            /// `NotConnected` when there is no peer, or the connection has ended.
            pub fn peer_addr(&self) -> io::Result<$address> {
                let peer = getpeername(&self.socket.source)?.ok_or(Errno::NOTCONN)?;
                $convert(peer)
            }
        }
    )+};
}

peers! {
    TcpStream: SocketAddr by internet_from;
    UdpSocket: SocketAddr by internet_from;
    UnixDatagram: UnixSocketAddr by unix_from;
    UnixStream: UnixSocketAddr by unix_from;
}
