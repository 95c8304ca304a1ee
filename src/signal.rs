//! Signals of the process, as something that greenlets and futures wait for.
//!
//! Floor 6. Uses: `hub::io`, the crate `signal-hook-registry`. Used by: users, `net::server`.
//!
//! Needs the feature `signal`. No handler is installed until somebody asks, by [`Signals::new`].
//!
//! # Contract
//!
//! - **Nothing is lost** that comes while a [`Signals`] exists, also between two waits. Several of
//!   one kind that come before they are waited for are one, as they are in the kernel.
//! - **Everybody is told.** Each `Signals` of the process, on whatever hub, has every signal once.
//!   Of several that wait by the same `Signals`, one has it.
//! - **Handlers of others** that were there before, and those of other crates that are there,
//!   tokio's for one, are called too.
//! - **The default action is gone for good** once somebody has asked for a signal: when the last
//!   `Signals` of a kind is dropped, the signal does nothing. The handler itself stays, since
//!   nobody can know who has put another one on top of it. A program that was started by `exec` has
//!   the default again.
//! - **A wait for a signal is no wait for ever**: main may do nothing else.
//! - In the child of a fork, a `Signals` of the parent's has none of the child's signals.
//!
//! | style | by |
//! |---|---|
//! | blocking | [`Signals::wait`], [`Signals::wait_timeout`]; [`Signals::try_wait`] never waits |
//! | a Deferred | [`wait_for_greenlet(spawn(move \|\| signals.wait()))`](crate::wait_for_greenlet) |
//! | a future | [`Signals::wait_async`], or [`Signals::poll_wait`] in a future of your own |
//!
//! # Invariants
//!
//! - `SIGNAL-1` The handler does what signal-safety(7) allows: an atomic operation, getpid(2), and
//!   write(2), as system calls that touch no `errno`. It never blocks.
//! - `SIGNAL-2` The handler sets the bit, then writes the eventfd; who waits looks at the bits,
//!   then reads the eventfd, then looks again. So a signal that comes between is seen by one of the
//!   two looks, or makes the eventfd readable.
//!
//! # Source
//!
//! gevent `signal_handler`; signal(7), eventfd(2); D. J. Bernstein's self-pipe.

#![expect(unsafe_code, reason = "a signal handler is registered")]
//! # Safety
//!
//! What is registered keeps `SIGNAL-1`.

use std::{
    ffi::c_int,
    fmt,
    future::poll_fn,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
    process::{Pid, getpid},
};
use signal_hook_registry::{SigId, register, unregister};

use crate::hub::{
    io::{Direction, Moved, Source},
    kept::Kept,
};

/// A signal that can be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Signal {
    /// The terminal has gone; by custom, to a server: read your configuration again.
    Hangup,
    /// Ctrl-C.
    Interrupt,
    /// Ctrl-\.
    Quit,
    /// For the program's own use.
    User1,
    /// For the program's own use.
    User2,
    /// A timer of alarm(2).
    Alarm,
    /// Please end: what `kill`, systemd and container runtimes send first.
    Terminate,
    /// A child process has ended or stopped.
    Child,
    /// It goes on after it was stopped.
    Continue,
    /// The terminal has another size.
    WindowChange,
}

impl Signal {
    /// Its number in this system.
    pub const fn number(self) -> i32 {
        match self {
            Signal::Hangup => libc::SIGHUP,
            Signal::Interrupt => libc::SIGINT,
            Signal::Quit => libc::SIGQUIT,
            Signal::User1 => libc::SIGUSR1,
            Signal::User2 => libc::SIGUSR2,
            Signal::Alarm => libc::SIGALRM,
            Signal::Terminate => libc::SIGTERM,
            Signal::Child => libc::SIGCHLD,
            Signal::Continue => libc::SIGCONT,
            Signal::WindowChange => libc::SIGWINCH,
        }
    }
}

/// What the handler and those who wait share.
struct Pending {
    /// An eventfd: readable when a signal has come since it was last read.
    source: Source,
    /// Those that have come, a bit each by their number in the set.
    bits: AtomicU64,
    /// The process whose signals these are.
    process: Pid,
}

impl Pending {
    /// What the handler does (`SIGNAL-1`).
    fn add(&self, bit: u32) {
        if getpid() == self.process {
            self.bits.fetch_or(1 << bit, Ordering::SeqCst);
            // Full after 2^64 signals that nobody read, and then it is readable.
            let _ = rustix::io::write(self.source.as_fd(), &1u64.to_ne_bytes());
        }
    }

    /// Takes the first of those that have come.
    fn take(&self) -> Option<u32> {
        let mut bits = self.bits.load(Ordering::SeqCst);
        while bits != 0 {
            let first = bits.trailing_zeros();
            bits = self.bits.fetch_and(!(1 << first), Ordering::SeqCst);
            if bits & (1 << first) != 0 {
                return Some(first);
            }
        }
        None
    }

    /// The operation that is tried, and waited for (`SIGNAL-2`).
    fn attempt(&self, fd: BorrowedFd<'_>) -> Result<(u32, Moved), Errno> {
        loop {
            if let Some(bit) = self.take() {
                return Ok((bit, Moved::All));
            }
            rustix::io::read(fd, &mut [0; 8])?;
        }
    }
}

/// Some signals, to be waited for again and again.
///
/// # Examples
///
/// ```
/// use greenloop::{run, signal::{Signal, Signals}, spawn, wait_for_greenlet};
/// # fn main() -> std::io::Result<()> {
/// run(|| {
///     let signals = Signals::new([Signal::User1, Signal::Hangup])?;
///     let this = std::process::id().to_string();
///     std::process::Command::new("kill").args(["-USR1", &this]).status()?;
///     assert_eq!(signals.wait()?, Signal::User1);
///     // The same for a Deferred:
///     let deferred = wait_for_greenlet(spawn(move || signals.wait()));
/// #   deferred.cancel();
///     Ok(())
/// })
/// # }
/// ```
pub struct Signals {
    /// The wait of a future. It ends before the source does.
    kept: Kept,
    pending: Arc<Pending>,
    /// What is waited for; the place in it is the number of a bit.
    set: Vec<Signal>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Asks for `signals`: from now on they do not do what they did, and are waited for here.
    ///
    /// Shape: works outside [`run`](crate::run), so that nothing is missed at the start.
    ///
    /// # Errors
    ///
    /// When no descriptor is left, or the system refuses a handler.
    pub fn new(signals: impl IntoIterator<Item = Signal>) -> io::Result<Signals> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (bits, process) = (AtomicU64::new(0), getpid());
        let pending = Arc::new(Pending { source: Source::new(fd), bits, process });
        let mut set: Vec<Signal> = signals.into_iter().collect();
        set.sort_unstable();
        set.dedup();
        let mut made = Signals { kept: Kept::default(), pending, set, registered: Vec::new() };
        for (bit, signal) in (0..).zip(made.set.clone()) {
            made.registered.push(made.register(signal.number(), bit)?);
        }
        Ok(made)
    }

    fn register(&self, number: c_int, bit: u32) -> io::Result<SigId> {
        let pending = Arc::clone(&self.pending);
        // SAFETY: SIGNAL-1: `add` is one atomic operation and two system calls by instructions of
        // rustix's own, which allocate nothing, take no lock, touch no `errno` and cannot panic.
        unsafe { register(number, move || pending.add(bit)) }
    }

    fn signal(&self, bit: u32) -> Signal {
        self.set[bit as usize]
    }

    /// Waits for one of them.
    ///
    /// # Errors
    ///
    /// [`Killed`](crate::Killed) inside an error of kind `Other` where a kill cannot unwind;
    /// outside [`run`](crate::run), an error that says so.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel no signal was taken.
    pub fn wait(&self) -> io::Result<Signal> {
        self.wait_within(None)
    }

    /// As [`wait`](Self::wait), but gives up after `limit`: then `None`.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    ///
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, limit: Duration) -> io::Result<Option<Signal>> {
        match self.wait_within(Some(limit)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(None),
            done => done.map(Some),
        }
    }

    fn wait_within(&self, limit: Option<Duration>) -> io::Result<Signal> {
        let pending = &self.pending;
        let bit = pending.source.operate(Direction::Read, limit, |fd| pending.attempt(fd))?;
        Ok(self.signal(bit))
    }

    /// Takes one that has come. Never waits; works anywhere.
    pub fn try_wait(&self) -> Option<Signal> {
        self.pending.take().map(|bit| self.signal(bit))
    }

    /// Waits for one of them, for a future: it may be dropped at any time, and has then taken none.
    ///
    /// # Errors
    ///
    /// Outside [`run`](crate::run), an error that says so.
    pub async fn wait_async(&mut self) -> io::Result<Signal> {
        poll_fn(|context| self.poll_wait(context)).await
    }

    /// The same as a `poll` function: the newest waker counts.
    ///
    /// # Errors
    ///
    /// As [`wait_async`](Self::wait_async).
    pub fn poll_wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Signal>> {
        let Signals { kept, pending, set, .. } = self;
        let polled = pending.source.poll(Direction::Read, kept, context, |fd| pending.attempt(fd));
        polled.map_ok(|bit| set[bit as usize])
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signals").field(&self.set).finish()
    }
}
