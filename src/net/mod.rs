//! Sockets with std's names, signatures and errors, which park the greenlet instead of the thread.
//!
//! Take `use std::net::…` out of blocking code, put `use greenloop::net::…` in, and run it inside
//! [`run`](crate::run): a call that would have blocked its thread lets the other greenlets run.
//!
//! # Where this differs from std
//!
//! - An elapsed read or write timeout is the error kind `TimedOut` (std on Linux: `WouldBlock`). A
//!   timeout belongs to the handle; [`TcpStream::try_clone`] copies it.
//! - Every type has a `close`, which wakes whoever waits for the socket, with an error.
//! - [`TcpListener::accept`] waits out a shortage of descriptors or memory instead of failing, and
//!   so does [`UnixListener::accept`].
//! - What std keeps in `std::os::unix::net` is here too, with the address of that module. A peer
//!   whose path fills its address to the last byte (108 of them) counts as one without a name.
//! - Names are looked up by other threads, so [`ToSocketAddrs`] is a trait of this module.
//! - `set_nonblocking(true)` makes calls give way once, instead of parking, before they say
//!   `WouldBlock`.
//! - Outside [`run`](crate::run) a call that could block returns an error that says so. Binding to
//!   a literal address, options and addresses of sockets work anywhere.
//! - Writing never raises `SIGPIPE`, whatever the process does with that signal.
//!
//! # Futures
//!
//! [`TcpStream::poll_read`] and its sisters do for a future what reads and writes do for a
//! greenlet. With the feature `futures-io` both streams are `AsyncRead` and `AsyncWrite` of the
//! futures crates, with the feature `hyper` `hyper::rt::Read` and `Write`. To connect and to
//! accept are calls that park, and so are those of datagrams; async code awaits the greenlet that
//! makes them: `spawn(move || listener.accept()).await`.
//!
//! ```
//! use greenloop::net::UnixStream;
//! use std::{future::poll_fn, io::Write};
//! # fn main() -> std::io::Result<()> {
//! greenloop::run(|| {
//!     let (mut stream, mut far) = UnixStream::pair()?;
//!     greenloop::spawn(move || far.write_all(b"hello"));
//!     let mut buf = [0; 64];
//!     let n = greenloop::wait_for_future(poll_fn(|cx| stream.poll_read(cx, &mut buf)))?;
//!     assert_eq!(&buf[..n], b"hello");
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # Threads
//!
//! Every type here is `Send` and `Sync`. A socket may move to the hub of another thread, or be
//! used by several at once; each registers it with its own poller when it first has to wait.
//!
//! # Invariants
//!
//! Floor 6. Uses: `hub::io`, whose `Source::operate` is the one loop that waits; `dns`. Knows
//! nothing of: readiness, waiters.
//!
//! - `NET-1` A descriptor in a `Socket` is in non-blocking mode. One that came from outside is put
//!   into it; one that leaves as a std type is put back into blocking mode.
//! - `NET-2` `Moved::Part` is said only of what stopped because the kernel had no more data or no
//!   more room: never of a read of 0 (the end), of a peek, of what was cut to a system limit, or of
//!   a local read that may have ended where a peer's descriptors came along.
//! - `NET-3` No system call that sends is made without `MSG_NOSIGNAL`.
//!
//! # Source
//!
//! `std::net`, `std::os::unix::net`; gevent `socket.py`; tcp(7), udp(7), unix(7), accept(2),
//! connect(2).

mod accept;
mod address;
mod convert;
mod datagram;
mod datagrams;
#[cfg(feature = "futures-io")]
mod futures_io;
mod handle;
#[cfg(feature = "hyper")]
mod hyper;
mod server;
mod socket;
mod stream;
mod tcp;
mod udp;
mod unix;
mod unix_datagram;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};

pub use accept::{Accept, Incoming};
pub use address::ToSocketAddrs;
pub use datagrams::{Datagram, Datagrams};
pub use server::{Server, ServerHandle};
pub use tcp::{TcpListener, TcpStream};
pub use udp::UdpSocket;
pub use unix::{UnixListener, UnixStream};
pub use unix_datagram::UnixDatagram;
