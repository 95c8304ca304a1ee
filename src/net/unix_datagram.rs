//! Local datagrams (AF_UNIX).
//!
//! Floor 6. Uses: `socket`, `address`. Used by: users. What it shares with UDP is in `datagram`.

use std::{io, os::unix::net::SocketAddr, path::Path};

use rustix::net::{AddressFamily, SocketType, bind, connect, sendto};

use super::{
    address::{unix_from, unix_into},
    datagram::receive_from,
    socket::Socket,
    stream::{RECEIVE, SEND},
};

/// A local socket for datagrams: [`std::os::unix::net::UnixDatagram`] that parks the greenlet
/// instead of the thread.
///
/// # Examples
///
/// ```
/// use greenloop::net::UnixDatagram;
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let (near, far) = UnixDatagram::pair()?;
///     greenloop::spawn(move || far.send(b"whole"));
///     let mut buf = [0; 64];
///     let n = near.recv(&mut buf)?;
///     assert_eq!(&buf[..n], b"whole");
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::os::unix::net::UnixDatagram`]; unix(7).
pub struct UnixDatagram {
    pub(super) socket: Socket,
}

impl UnixDatagram {
    /// Makes a socket at `path`.
    ///
    /// # Errors
    ///
    /// Those of bind(2); `InvalidInput` for a path that is too long.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixDatagram> {
        UnixDatagram::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Makes a socket at an address, which may be abstract.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixDatagram> {
        let made = UnixDatagram::unbound()?;
        bind(&made.socket.source, &unix_into(address)?)?;
        Ok(made)
    }

    /// Makes a socket that nobody can send to.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn unbound() -> io::Result<UnixDatagram> {
        Ok(UnixDatagram::from_socket(Socket::open(AddressFamily::UNIX, SocketType::DGRAM)?))
    }

    /// Makes two that are connected to one another.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(UnixDatagram, UnixDatagram)> {
        let (near, far) = Socket::pair(SocketType::DGRAM)?;
        Ok((UnixDatagram::from_socket(near), UnixDatagram::from_socket(far)))
    }

    /// Sends to, and receives from, the socket at `path` alone from now on.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// As [`connect`](Self::connect), by address.
    ///
    /// # Errors
    ///
    /// Those of connect(2).
    pub fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        Ok(connect(&self.socket.source, &unix_into(address)?)?)
    }

    /// Waits for a datagram, and who sent it.
    ///
    /// Shape: what does not fit into `buf` is cut off and lost.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing was received.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (n, from) = receive_from(&self.socket, buf, RECEIVE)?;
        Ok((n, from.map_or_else(|| SocketAddr::from_pathname(""), unix_from)?))
    }

    /// Sends a datagram to the socket at `path`; otherwise as [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send); those of the path.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing was sent.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_addr(buf, &SocketAddr::from_pathname(path)?)
    }

    /// As [`send_to`](Self::send_to), by address.
    ///
    /// # Errors
    ///
    /// As [`send_to`](Self::send_to).
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel nothing was sent.
    pub fn send_to_addr(&self, buf: &[u8], address: &SocketAddr) -> io::Result<usize> {
        let address = unix_into(address)?;
        self.socket.send_again_and_again(|fd| sendto(fd, buf, SEND, &address))
    }
}
