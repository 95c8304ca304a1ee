//! Datagrams for a server: each is accepted as a connection would be, and can be answered.
//!
//! Floor 6. Uses: `accept`, `udp`, `unix_datagram`. Used by: users, with `server`.

use std::{cell::Cell, fmt, io, net::SocketAddr, os::unix, rc::Rc};

use super::{Accept, UdpSocket, UnixDatagram};

/// The longest that a UDP datagram can be.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A socket whose datagrams are handled one by one, by a [`Server`](super::Server).
///
/// Shape: a datagram of more than 65,535 bytes, which only a local socket can have, is cut off.
///
/// # Examples
///
/// ```
/// use greenloop::net::{Datagram, Datagrams, Server, UdpSocket};
/// use std::time::Duration;
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let socket = UdpSocket::bind("127.0.0.1:0")?;
///     let address = socket.local_addr()?;
///     let echo = |datagram: Datagram<UdpSocket, _>| datagram.reply(&datagram.data);
///     let server = Server::new(Datagrams::new(socket), echo);
///     let handle = server.handle();
///     greenloop::spawn(move || server.serve());
///     let client = UdpSocket::bind("127.0.0.1:0")?;
///     client.send_to(b"hello", address)?;
///     let mut buf = [0; 64];
///     assert_eq!(client.recv(&mut buf)?, 5);
///     handle.stop(Duration::ZERO);
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// gevent `DatagramServer`.
pub struct Datagrams<S> {
    socket: Rc<S>,
    /// Where the next one is received; taken while somebody waits.
    buffer: Cell<Vec<u8>>,
}

impl<S> Datagrams<S> {
    /// Takes a socket over.
    pub fn new(socket: S) -> Datagrams<S> {
        Datagrams { socket: Rc::new(socket), buffer: Cell::default() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Datagrams<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Datagrams").field(&self.socket).finish()
    }
}

/// A datagram that a socket `S` has received from an address `A`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Datagram<S, A> {
    /// What it says.
    pub data: Vec<u8>,
    /// Who sent it.
    pub from: A,
    /// The socket that it came by.
    pub socket: Rc<S>,
}

macro_rules! accepting {
    ($($socket:ident from $address:path, by $send_to:ident;)+) => {$(
        impl Accept for Datagrams<$socket> {
            type Connection = Datagram<$socket, $address>;

            fn accept(&self) -> io::Result<Self::Connection> {
                let mut buffer = self.buffer.take();
                buffer.resize(DATAGRAM_BYTES_MAX, 0);
                let received = self.socket.recv_from(&mut buffer).map(|(n, from)| {
                    Datagram { data: buffer[..n].to_vec(), from, socket: Rc::clone(&self.socket) }
                });
                self.buffer.set(buffer);
                // What was sent before found nobody: that concerns whoever sent it.
                received.map_err(|error| match error.kind() {
                    io::ErrorKind::ConnectionRefused => io::ErrorKind::ConnectionAborted.into(),
                    _ => error,
                })
            }
        }

        impl Datagram<$socket, $address> {
            /// Sends a datagram to whom this one came from.
            ///
            /// # Errors
            ///
            /// Those of the socket's `send_to`.
            ///
            /// # Cancellation
            ///
            /// Cancellation point: always. On cancel nothing was sent.
            pub fn reply(&self, data: &[u8]) -> io::Result<usize> {
                self.socket.$send_to(data, &self.from)
            }
        }
    )+};
}

accepting! {
    UdpSocket from SocketAddr, by send_to;
    UnixDatagram from unix::net::SocketAddr, by send_to_addr;
}
