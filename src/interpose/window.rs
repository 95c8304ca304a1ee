//! For one system call at a time, a descriptor that does not block.
//!
//! Floor 8. Uses: `kernel`, `lock`, `descriptors`. Used by: `accept`, `connect`, `receive`, `send`,
//! `transfer`, `close`, by way of `call` where a virtual thread waits.
//!
//! `accept` and `connect` have no flag for one call, nor have pipes with a name. There, and nowhere
//! else, `O_NONBLOCK` is set: for the length of one system call that, because of it, does not
//! block. It belongs to the open file, which other threads and processes may have too; so it is
//! never left set, and a child that is started later finds it as the user has left it.
//!
//! # Who else sees it
//!
//! Other virtual threads, and whoever asks for the flags or changes them ([`truly`]), wait for the
//! moment to be over, in whatever process: the window's lock is one among threads and one among
//! processes, a record lock on a byte that no file has. Who does not get that in time comes again
//! later, so a process that is stopped in the midst stops no other's hub.
//!
//! A call of an OS thread that began in such a moment says `EAGAIN` where it would have blocked.
//! Its hook finds that the user's mode is blocking, and begins it again ([`outside`]).
//!
//! On a socket the flag comes with another one, `O_APPEND`, which means nothing there. Who finds
//! both, and has the lock, knows that a process was killed in the midst, and clears them.
//!
//! # Limits
//!
//! - A write of an OS thread that began in such a moment may write less than all.
//! - What a killed process has left of a pipe with a name, or of a socket that it moved a pipe's
//!   bytes to, stays.
//! - A pipe with a name that is open for reading alone takes no lock that keeps other processes
//!   out. A program without this crate, or one that has no virtual threads, does not wait to set
//!   the flags of a file that it shares. If a thread closes a duplicate of the file in such a
//!   moment, the kernel lets the lock among processes go.
//! - While a close of the number's last file lingers (`SO_LINGER`), a call on its new one that
//!   needs a window waits for the end of that.
//! - An OS thread's call on a socket with a timeout of its own may say in such a moment that its
//!   time is over, but for `accept` and `connect`.
//!
//! Rejected: to leave the flag set and to hide it. It shows in children, in duplicates that no hook
//! has seen and in processes that were sent the descriptor; and somebody would have to remember,
//! for each open file, whose flag it is.
//!
//! # Invariants
//!
//! - `WINDOW-1` The flag is set only by who holds the locks of the file's number, and cleared
//!   before it lets go. Whoever reads or writes the flags under them sees the user's.
//! - `WINDOW-2` What runs in a window is one system call, which does not block.
//! - `WINDOW-3` A window is open on the file that its call began with. Who opens it counts itself,
//!   then looks at the number's age; who closes a number changes its age, then looks at the count,
//!   and waits. After a close that no hook has seen, the flag is cleared only if the number still
//!   names the same file.
//!
//! # Source
//!
//! fcntl(2) on record locks: they belong to a process, not to an open file, so they tell apart the
//! processes that share one. locks.c takes them on sockets, too.

use std::{
    cell::Cell,
    os::fd::RawFd,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Instant,
};

use libc::{MSG_DONTWAIT, MSG_ERRQUEUE, MSG_OOB, O_APPEND, O_NONBLOCK, c_int};
use rustix::io::Errno;

use super::{
    descriptors::{self, Age},
    kernel::{self, Kind},
    lock::{Held, Owned},
};
use crate::hub::io::Direction;

/// Locks, each for the files whose numbers are equal modulo this.
const LOCKS: usize = 64;

/// How often who wants to open a window looks whether another process's is over.
const TRIES: u32 = 64;

/// The same for who wants to know the user's mode, and has nothing else to do meanwhile.
const TRIES_PATIENT: u32 = 4096;

/// The flags of a socket on which a window is open.
const OPEN: c_int = O_NONBLOCK | O_APPEND;

static WINDOWS: [Owned<()>; LOCKS] = [const { Owned::new(()) }; LOCKS];

/// How many have a lock, or are about to (`WINDOW-3`).
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// How a window shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shows {
    /// By a flag of its own, if it is a socket's.
    Marked,
    /// By `O_NONBLOCK` alone: splice(2) to what has `O_APPEND` fails.
    Unmarked,
}

/// Nobody else opens a window on a file. A socket has one open file, so its inode's number stands
/// for that.
struct Alone {
    fd: RawFd,
    kind: Kind,
    file: u64,
    /// `None` in a signal handler that came while this thread had it.
    lock: Option<Held<'static, ()>>,
    processes: Processes,
    /// Whether the number was found to name another file.
    is_lost: Cell<bool>,
}

/// Whether other processes are kept out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Processes {
    KeptOut,
    /// They cannot be.
    Ignored,
    /// One of them has a window open.
    Inside,
}

impl Alone {
    fn with(fd: RawFd, tries: u32) -> Result<Alone, Errno> {
        // A thread that is not in this child of a fork may have had one.
        descriptors::is_ours();
        let (kind, file) = kernel::kind_of(fd)?;
        COUNT.fetch_add(1, SeqCst);
        let lock = WINDOWS[file as usize % LOCKS].take();
        let processes = match kind {
            Kind::Socket | Kind::Pipe if lock.is_some() => keep_out(fd, tries),
            _ => Processes::Ignored,
        };
        Ok(Alone { fd, kind, file, lock, processes, is_lost: Cell::new(false) })
    }

    /// The user's flags.
    fn flags(&self) -> Result<c_int, Errno> {
        kernel::status_flags(self.fd).map(|flags| users(self.kind, flags))
    }

    /// Clears what a killed process has left.
    fn mend(&self) {
        if self.processes == Processes::KeptOut
            && let Ok(flags) = kernel::status_flags(self.fd)
            && users(self.kind, flags) != flags
        {
            let _ = kernel::set_status_flags(self.fd, flags & !OPEN);
        }
    }

    /// Opens a window.
    fn open(&self, shows: Shows, flags: c_int) -> Result<(), Errno> {
        if self.is_marked(shows) && kernel::set_status_flags(self.fd, flags | OPEN).is_ok() {
            return Ok(());
        }
        kernel::set_nonblocking(self.fd, true)
    }

    fn is_marked(&self, shows: Shows) -> bool {
        self.kind == Kind::Socket && shows == Shows::Marked
    }

    /// Closes the window: on the file that it was opened on, or not at all (`WINDOW-3`).
    fn shut(&self, shows: Shows) {
        self.is_lost.set(kernel::kind_of(self.fd) != Ok((self.kind, self.file)));
        if self.is_lost.get() {
            return;
        }
        if self.is_marked(shows)
            && let Ok(flags) = kernel::status_flags(self.fd)
            && kernel::set_status_flags(self.fd, flags & !OPEN).is_ok()
        {
            return;
        }
        let _ = kernel::set_nonblocking(self.fd, false);
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if self.processes == Processes::KeptOut && !self.is_lost.get() {
            let _ = kernel::lock_record(self.fd, libc::F_UNLCK);
        }
        self.lock = None;
        COUNT.fetch_sub(1, SeqCst);
    }
}

/// Keeps other processes from opening a window on the file that `fd` names.
fn keep_out(fd: RawFd, tries: u32) -> Processes {
    for _ in 0..tries {
        match kernel::lock_record(fd, libc::F_WRLCK) {
            Ok(()) => return Processes::KeptOut,
            Err(Errno::AGAIN | Errno::ACCESS) => rustix::thread::sched_yield(),
            Err(_) => return Processes::Ignored,
        }
    }
    Processes::Inside
}

/// What the user has set of `flags`.
fn users(kind: Kind, flags: c_int) -> c_int {
    if kind == Kind::Socket && flags & OPEN == OPEN { flags & !OPEN } else { flags }
}

/// Makes all locks free: in the child of a fork, where nobody has one.
pub(super) fn release_in_child() {
    WINDOWS.iter().for_each(Owned::release_in_child);
    COUNT.store(0, SeqCst);
}

/// What a call came to, after whether the user wants it not to wait.
pub(super) type Done<T> = (bool, Result<T, Errno>);

/// Does `attempt` on `fd`, which a call had at `age`, so that it does not block. Also tells whether
/// the user wants it so anyway: then `EAGAIN` is for the user.
///
/// `None`: it was not tried, since another process has a window open, or since a close that began
/// before the call did has not ended. The number was free for the call's file from the beginning of
/// that close on, which may take as long as the old file lingers.
pub(super) fn attempt<T>(
    (fd, age): (RawFd, Age),
    shows: Shows,
    attempt: impl FnOnce() -> Result<T, Errno>,
) -> Result<Option<Done<T>>, Errno> {
    // Before and after: so no close was between, and the locks are those of the file.
    let mut tries = 0;
    while !descriptors::is_open(fd, age)? {
        if tries == TRIES {
            return Ok(None);
        }
        tries += 1;
        rustix::thread::sched_yield();
    }
    let alone = Alone::with(fd, TRIES)?;
    if !descriptors::is_open(fd, age)? || alone.processes == Processes::Inside {
        return Ok(None);
    }
    let flags = alone.flags()?;
    if flags & O_NONBLOCK != 0 {
        return Ok(Some((true, attempt())));
    }
    alone.open(shows, flags)?;
    let done = attempt();
    alone.shut(shows);
    Ok(Some((false, done)))
}

/// Waits until no window is open on the file that `fd` names: called when no new one can be
/// (`WINDOW-3`).
pub(super) fn await_none(fd: RawFd) {
    if COUNT.load(SeqCst) != 0
        && let Ok((_, file)) = kernel::kind_of(fd)
    {
        drop(WINDOWS[file as usize % LOCKS].take());
    }
}

/// The same for whatever file.
pub(super) fn await_none_at_all() {
    if COUNT.load(SeqCst) != 0 {
        WINDOWS.iter().for_each(|lock| drop(lock.take()));
    }
}

/// Does `f`, which reads or writes the flags of `fd`, while no window is open (`WINDOW-1`).
pub(super) fn truly<T>(fd: RawFd, f: impl FnOnce() -> T) -> T {
    let alone = Alone::with(fd, TRIES_PATIENT);
    if let Ok(alone) = &alone {
        alone.mend();
    }
    f()
}

/// The user's flags of `fd`, as `ask` gives them, or -1.
pub(super) fn users_flags(fd: RawFd, ask: impl FnOnce() -> c_int) -> c_int {
    let flags = truly(fd, ask);
    match kernel::kind_of(fd) {
        Ok((kind, _)) if flags >= 0 => users(kind, flags),
        _ => flags,
    }
}

/// Whether the user has put `fd` in non-blocking mode.
pub(super) fn is_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    // A window only ever adds the flag.
    if kernel::status_flags(fd)? & O_NONBLOCK == 0 {
        return Ok(false);
    }
    let flags = truly(fd, || kernel::status_flags(fd))?;
    Ok(users(kernel::kind_of(fd)?.0, flags) & O_NONBLOCK != 0)
}

/// Whether a call of somebody who is no virtual thread, which has just failed because it would have
/// blocked, began while a window was open: then it is to begin again. It may also have had a
/// timeout of its own, if it is known when it began.
#[cold]
pub(super) fn was_in_one(fd: RawFd, direction: Direction, begun: Option<Instant>) -> bool {
    is_nonblocking(fd) == Ok(false)
        && kernel::socket_timeout(fd, direction)
            .is_none_or(|limit| begun.is_some_and(|begun| begun.elapsed() < limit))
}

/// Makes a call of somebody who is no virtual thread, which moves bytes; again, if it failed only
/// because it began while a window was open.
#[inline(always)]
pub(super) fn outside(
    fd: RawFd,
    flags: c_int,
    direction: Direction,
    next: impl Fn() -> isize,
) -> isize {
    loop {
        let done = next();
        if done >= 0 || !is_to_begin_again(fd, flags, direction) {
            return done;
        }
    }
}

#[cold]
fn is_to_begin_again(fd: RawFd, flags: c_int, direction: Direction) -> bool {
    if kernel::errno() != Errno::AGAIN || flags & (MSG_DONTWAIT | MSG_ERRQUEUE | MSG_OOB) != 0 {
        return false;
    }
    let waits = match kernel::kind_of(fd) {
        Ok((Kind::Pipe, _)) => true,
        // A datagram for which no port is left says the same, and never waits.
        Ok((Kind::Socket, _)) => direction == Direction::Read || kernel::is_connected_kind(fd),
        _ => false,
    };
    waits && was_in_one(fd, direction, None)
}
