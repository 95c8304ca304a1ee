//! The load: many connections, each with one message under way.
//!
//! Closed-loop and on one thread: a connection sends its next message as soon as the reply to the
//! last has come and is what was sent. Every message carries a number that no other has, so a
//! reply that is late, doubled or crossed over is an error and not a faster server.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::MESSAGE_SIZE;

/// How long the load waits for any reply before it gives the server up.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Readiness taken from the kernel at a time.
const EVENTS_MAX: usize = 1024;

/// A message under way, or the last one, whose reply has come.
#[derive(Debug)]
struct Connection {
    /// The socket, which never blocks.
    stream: TcpStream,
    /// What was sent.
    sent: Vec<u8>,
    /// How much of it has come back.
    received: usize,
}

/// Connections to one server.
#[derive(Debug)]
pub struct Load {
    /// Tells which connections have a reply; its data is the index into `connections`.
    poller: OwnedFd,
    /// All of them.
    connections: Vec<Connection>,
    /// The number that the next message carries.
    number: u64,
}

impl Load {
    /// Opens `count` connections to `address` that exchange messages of `size` bytes.
    ///
    /// # Errors
    /// When a connection fails, or there are not enough descriptors.
    /// # Panics
    /// When `size` has no room for a number of eight bytes.
    pub fn connect(address: SocketAddr, count: usize, size: usize) -> io::Result<Self> {
        assert!(size >= 8, "a message carries its number");
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poller, &stream, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
            let sent = (0..size).map(|byte| byte as u8).collect();
            connections.push(Connection { stream, sent, received: size });
        }
        Ok(Self { poller, connections, number: 0 })
    }

    /// Sends `requests` messages, waits for every reply, and returns how long it took. Nothing is
    /// under way when it returns.
    ///
    /// # Errors
    /// `InvalidData` when a reply is not what was sent, `UnexpectedEof` when the server hangs up,
    /// `TimedOut` when it has not answered for ten seconds.
    pub fn run(&mut self, requests: u64) -> io::Result<Duration> {
        let start = Instant::now();
        let mut unsent = requests;
        let mut unanswered = requests;
        for index in 0..self.connections.len() {
            if unsent > 0 {
                self.send(index)?;
                unsent -= 1;
            }
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while unanswered > 0 {
            events.clear();
            match epoll::wait(&self.poller, spare_capacity(&mut events), Some(&PATIENCE)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let index = event.data.u64() as usize;
                if self.receive(index)? {
                    unanswered -= 1;
                    if unsent > 0 {
                        self.send(index)?;
                        unsent -= 1;
                    }
                }
            }
        }
        Ok(start.elapsed())
    }

    /// Sends the next message on a connection that has none under way.
    fn send(&mut self, index: usize) -> io::Result<()> {
        let Connection { stream, sent, received } = &mut self.connections[index];
        sent[..8].copy_from_slice(&self.number.to_ne_bytes());
        self.number += 1;
        *received = 0;
        // One message fits the socket's buffer, which is empty.
        let length = send(&*stream, sent, SendFlags::NOSIGNAL)?;
        if length == sent.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads what has come and returns whether it ends the reply.
    fn receive(&mut self, index: usize) -> io::Result<bool> {
        let Connection { stream, sent, received } = &mut self.connections[index];
        let mut buffer = [MaybeUninit::<u8>::uninit(); 2 * MESSAGE_SIZE];
        loop {
            let reply = match recv(&*stream, &mut buffer, RecvFlags::empty()) {
                Ok(((reply, _), _)) => reply,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            if reply.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let length = reply.len();
            if sent.get(*received..*received + length) != Some(reply) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an echo was not true"));
            }
            *received += length;
            if *received == sent.len() {
                return Ok(true);
            }
            if length < 2 * MESSAGE_SIZE {
                return Ok(false);
            }
        }
    }
}
