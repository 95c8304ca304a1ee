//! Sockets with std's names, signatures and errors, which park the greenlet instead of the thread.
//!
//! Take `use std::net::…` out of blocking code, put `use greenloop::net::…` in, and run it inside
//! [`run`](crate::run): a call that would have blocked its thread lets the other greenlets run.
//!
//! # Where this differs from std
//!
//! - An elapsed read or write timeout is the error kind `TimedOut` (std on Linux: `WouldBlock`). A
//!   timeout belongs to the handle; [`TcpStream::try_clone`] copies it.
//! - Both types have a `close`, which wakes whoever waits for the socket, with an error.
//! - [`TcpListener::accept`] waits out a shortage of descriptors or memory instead of failing.
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
//! greenlet. With the feature `futures-io` the type is an `AsyncRead` and `AsyncWrite` of the
//! futures crates, with the feature `hyper` a `hyper::rt::Read` and `Write`. To connect and to
//! accept are calls that park; async code awaits the greenlet that makes them: `spawn(move ||
//! listener.accept()).await`.
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
//!   more room: never of a read of 0 (the end), of a peek, or of what was cut to a system limit.
//! - `NET-3` No system call that sends is made without `MSG_NOSIGNAL`.
//!
//! # Source
//!
//! `std::net`; gevent `socket.py`; tcp(7), accept(2), connect(2).

mod address;
mod convert;
#[cfg(feature = "futures-io")]
mod futures_io;
#[cfg(feature = "hyper")]
mod hyper;
mod listener;
mod socket;
mod stream;

pub use std::net::{
    AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6,
};

pub use address::ToSocketAddrs;
pub use listener::{Incoming, TcpListener};
pub use stream::TcpStream;
