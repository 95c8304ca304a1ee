//! The load: many connections, each with one message under way.
//!
//! Closed-loop and on one thread: a connection sends its next message as soon as the reply to the
//! last has come and is what it should be. Every message carries a number that no other has, and so
//! does its reply: one that is late, doubled or crossed over is an error and not a faster server.

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

/// Digits of the number that is in every message and its reply.
const NUMBER_SIZE: usize = 8;

/// What is said on a connection, again and again: a message, its reply, and where the number is in
/// each.
#[derive(Clone, Debug)]
pub struct Talk {
    /// What is sent.
    message: Vec<u8>,
    /// Where its number begins.
    message_number: usize,
    /// What comes back.
    reply: Vec<u8>,
    /// Where its number begins.
    reply_number: usize,
}

impl Talk {
    /// A message of `size` bytes that comes back as it is.
    ///
    /// # Panics
    /// When `size` has no room for a number of eight digits.
    #[must_use]
    pub fn echo(size: usize) -> Self {
        assert!(size >= NUMBER_SIZE, "a message carries its number");
        let message: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
        Self { reply: message.clone(), message, message_number: 0, reply_number: 0 }
    }

    /// A message and its reply, each with one `########` where the number is to be.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn new(message: &str, reply: &str) -> Self {
        let place = |text: &str| text.find(&"#".repeat(NUMBER_SIZE)).expect("room for a number");
        Self {
            message_number: place(message),
            message: message.into(),
            reply_number: place(reply),
            reply: reply.into(),
        }
    }

    /// Writes a number into both.
    fn set_number(&mut self, mut number: u64) {
        for digit in (0..NUMBER_SIZE).rev() {
            let ascii = b'0' + (number % 10) as u8;
            self.message[self.message_number + digit] = ascii;
            self.reply[self.reply_number + digit] = ascii;
            number /= 10;
        }
    }
}

/// A message under way, or the last one, whose reply has come.
#[derive(Debug)]
struct Connection {
    /// The socket, which never blocks.
    stream: TcpStream,
    /// What was sent, and what is to come.
    talk: Talk,
    /// How much of the reply has come.
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
    /// Opens `count` connections to `address` on which `talk` is said.
    ///
    /// # Errors
    /// When a connection fails, or there are not enough descriptors.
    pub fn connect(address: SocketAddr, count: usize, talk: &Talk) -> io::Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poller, &stream, data, epoll::EventFlags::IN | epoll::EventFlags::ET)?;
            connections.push(Connection { stream, talk: talk.clone(), received: 0 });
        }
        Ok(Self { poller, connections, number: 0 })
    }

    /// Sends `requests` messages, waits for every reply, and returns how long it took. Nothing is
    /// under way when it returns.
    ///
    /// # Errors
    /// `InvalidData` when a reply is not what it should be, `UnexpectedEof` when the server hangs
    /// up, `TimedOut` when it has not answered for ten seconds.
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
        let Connection { stream, talk, received } = &mut self.connections[index];
        talk.set_number(self.number);
        self.number += 1;
        *received = 0;
        // One message fits the socket's buffer, which is empty.
        let length = send(&*stream, &talk.message, SendFlags::NOSIGNAL)?;
        if length == talk.message.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Reads what has come and returns whether it ends the reply.
    fn receive(&mut self, index: usize) -> io::Result<bool> {
        let Connection { stream, talk, received } = &mut self.connections[index];
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
            if talk.reply.get(*received..*received + length) != Some(reply) {
                let text = format!("a reply was not true: {:?}", String::from_utf8_lossy(reply));
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            *received += length;
            if *received == talk.reply.len() {
                return Ok(true);
            }
            if length < 2 * MESSAGE_SIZE {
                return Ok(false);
            }
        }
    }
}
