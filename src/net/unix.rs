//! Local sockets (AF_UNIX): connections and listeners.
//!
//! Floor 6. Uses: `socket`, `address`. Used by: users. What streams share is in `stream`, how
//! accepting survives a shortage in `accept`.

use std::{io, os::unix::net::SocketAddr, path::Path};

use rustix::net::{AddressFamily, SocketType, bind, connect, listen};

use super::{address::unix_into, socket::Socket, tcp::BACKLOG};
use crate::hub::{Hub, kept::Kept};

/// A local connection: [`std::os::unix::net::UnixStream`] that parks the greenlet instead of the
/// thread.
///
/// All that is said of reads and writes of a [`TcpStream`](super::TcpStream) holds for it.
///
/// # Examples
///
/// ```
/// use greenloop::net::UnixStream;
/// use std::io::{Read, Write};
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let (mut near, mut far) = UnixStream::pair()?;
///     greenloop::spawn(move || far.write_all(b"from next door"));
///     let mut text = String::new();
///     near.read_to_string(&mut text)?;
///     assert_eq!(text, "from next door");
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::os::unix::net::UnixStream`]; unix(7).
pub struct UnixStream {
    /// The wait of a future that reads, and of one that writes. They end before the socket does.
    pub(super) reading: Kept,
    pub(super) writing: Kept,
    pub(super) socket: Socket,
}

impl UnixStream {
    /// Connects to the socket that listens at `path`.
    ///
    /// Shape: where its backlog is full, it waits for room, as std does.
    ///
    /// # Errors
    ///
    /// Those of connect(2) (`NotFound`, `ConnectionRefused`, `PermissionDenied`, …); `InvalidInput`
    /// for a path that is too long; outside [`run`](crate::run), an error that says so.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the socket is closed.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<UnixStream> {
        UnixStream::connect_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Connects to the socket that listens at an address; otherwise as [`connect`](Self::connect).
    ///
    /// # Errors, Cancellation
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_addr(address: &SocketAddr) -> io::Result<UnixStream> {
        Hub::may_wait()?;
        let address = unix_into(address)?;
        let socket = Socket::open(AddressFamily::UNIX, SocketType::STREAM)?;
        socket.send_again_and_again(|fd| connect(fd, &address))?;
        Ok(UnixStream::from_socket(socket))
    }

    /// Makes two that are connected to one another.
    ///
    /// # Errors
    ///
    /// When no descriptor is left.
    pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
        let (near, far) = Socket::pair(SocketType::STREAM)?;
        Ok((UnixStream::from_socket(near), UnixStream::from_socket(far)))
    }
}

/// A local socket that listens: [`std::os::unix::net::UnixListener`] that parks the greenlet
/// instead of the thread.
///
/// Its file stays when it is dropped, as std's does: whoever binds there again removes it first.
///
/// # Examples
///
/// ```
/// use greenloop::net::{UnixListener, UnixStream};
/// use std::io::{Read, Write};
/// # fn main() -> std::io::Result<()> {
/// # let path = std::env::temp_dir().join(format!("greenloop-doc-{}", std::process::id()));
/// greenloop::run(|| {
///     let listener = UnixListener::bind(&path)?;
///     greenloop::spawn(move || listener.accept()?.0.write_all(b"welcome"));
///     let mut text = String::new();
///     UnixStream::connect(&path)?.read_to_string(&mut text)?;
///     assert_eq!(text, "welcome");
///     std::fs::remove_file(&path)
/// })
/// # }
/// ```
///
/// # Source
///
/// [`std::os::unix::net::UnixListener`]; unix(7).
pub struct UnixListener {
    pub(super) socket: Socket,
}

impl UnixListener {
    /// Makes a socket at `path`, and listens.
    ///
    /// Shape: as std: with a backlog of 128. Works outside [`run`](crate::run).
    ///
    /// # Errors
    ///
    /// Those of bind(2) (`AddrInUse` when there is a file of this name, `PermissionDenied`, …);
    /// `InvalidInput` for a path that is too long.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: never.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<UnixListener> {
        UnixListener::bind_addr(&SocketAddr::from_pathname(path)?)
    }

    /// Listens at an address, which may be abstract; otherwise as [`bind`](Self::bind).
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    pub fn bind_addr(address: &SocketAddr) -> io::Result<UnixListener> {
        let socket = Socket::open(AddressFamily::UNIX, SocketType::STREAM)?;
        bind(&socket.source, &unix_into(address)?)?;
        listen(&socket.source, BACKLOG)?;
        Ok(UnixListener::from_socket(socket))
    }
}
