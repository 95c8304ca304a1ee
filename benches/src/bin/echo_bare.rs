//! The echo server with nothing between it and the kernel: what every other one is measured by.
//!
//! `cargo run --release --bin echo_bare -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.
//!
//! One thread, one edge-triggered epoll set, one registration for each connection. A request is
//! one `recv` and one `send`: a short read means that the socket is empty, so nobody asks again
//! to hear `EAGAIN`. `epoll_wait` is shared by the requests that came meanwhile.

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpListener;

use greenloop_benches::echo::{BUFFER_SIZE, serve};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, send, sockopt};

/// The listener's token; a connection's is its descriptor.
const LISTENER: u64 = u64::MAX;

/// A connection.
struct Connection {
    /// The socket, which never blocks.
    socket: OwnedFd,
    /// What was read and not yet written, because the peer does not read.
    unwritten: Vec<u8>,
}

/// What one turn on a connection came to.
#[derive(PartialEq)]
enum Outcome {
    /// Everything readable was echoed, or waits for room.
    Drained,
    /// The peer is gone.
    Closed,
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(serve::prepare()?)?;
    listener.set_nonblocking(true)?;
    let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let interest = EventFlags::IN | EventFlags::ET;
    epoll::add(&poller, &listener, EventData::new_u64(LISTENER), interest)?;
    serve::announce(listener.local_addr()?)?;

    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&poller, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            if event.data.u64() == LISTENER {
                accept_all(&listener, poller.as_fd(), &mut connections)?;
                continue;
            }
            let slot = &mut connections[event.data.u64() as usize];
            let Some(connection) = slot else { continue };
            if echo(connection, event.flags) == Outcome::Closed {
                *slot = None;
            }
        }
    }
}

/// Accepts until there is nobody left, and registers each connection once and for both ways.
fn accept_all(
    listener: &TcpListener,
    poller: BorrowedFd<'_>,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let socket = match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(socket) => socket,
            Err(Errno::AGAIN) => return Ok(()),
            Err(Errno::CONNABORTED | Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        sockopt::set_tcp_nodelay(&socket, true)?;
        let index = socket.as_raw_fd() as usize;
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(poller, &socket, EventData::new_u64(index as u64), interest)?;
        if connections.len() <= index {
            connections.resize_with(index + 1, || None);
        }
        connections[index] = Some(Connection { socket, unwritten: Vec::new() });
    }
}

/// Echoes what can be read now. `flags` are what the kernel said of the connection.
fn echo(connection: &mut Connection, flags: EventFlags) -> Outcome {
    // A peer that has hung up after its last message will cause no other edge: read to the end.
    let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
    if !connection.unwritten.is_empty() && write_rest(connection) == Outcome::Closed {
        return Outcome::Closed;
    }
    let mut buffer = [MaybeUninit::<u8>::uninit(); BUFFER_SIZE];
    // What the peer does not read, it may not make us keep: reading stops until it is written.
    while connection.unwritten.is_empty() {
        let read = match recv(&connection.socket, &mut buffer, RecvFlags::empty()) {
            Ok(((read, _), _)) => read,
            Err(Errno::AGAIN) => return Outcome::Drained,
            Err(_) => return Outcome::Closed,
        };
        if read.is_empty() {
            return Outcome::Closed;
        }
        let written = match send(&connection.socket, read, SendFlags::NOSIGNAL) {
            Ok(written) => written,
            Err(Errno::AGAIN) => 0,
            Err(_) => return Outcome::Closed,
        };
        connection.unwritten.extend_from_slice(&read[written..]);
        if read.len() < BUFFER_SIZE && !ends {
            return Outcome::Drained;
        }
    }
    Outcome::Drained
}

/// Writes what an earlier turn could not.
fn write_rest(connection: &mut Connection) -> Outcome {
    match send(&connection.socket, &connection.unwritten, SendFlags::NOSIGNAL) {
        Ok(written) => drop(connection.unwritten.drain(..written)),
        Err(Errno::AGAIN) => {}
        Err(_) => return Outcome::Closed,
    }
    Outcome::Drained
}
