//! For one system call at a time, a descriptor that does not block.
//!
//! Floor 8. Uses: `kernel`, `lock`. Used by: `accept`, `connect`, `receive`, `send`, `transfer`,
//! `control`.
//!
//! `accept` and `connect` have no flag for one call, nor have pipes with a name. There, and nowhere
//! else, `O_NONBLOCK` is set: for the length of one system call that, because of it, does not
//! block. It belongs to the open file, which other threads and processes may have too; so it is
//! never left set, and a child that is started later finds it as the user has left it.
//!
//! Other threads of this process are kept from seeing it ([`truly`] for whoever asks for the
//! flags or changes them). A call of theirs that began in such a moment says `EAGAIN` where it
//! would have blocked; its hook finds that the user's mode is blocking, and begins it again.
//!
//! Rejected: to leave the flag set and to hide it. It shows in children, in duplicates that no hook
//! has seen and in processes that were sent the descriptor; and somebody would have to remember,
//! for each open file, whose flag it is.
//!
//! # Invariants
//!
//! - `WINDOW-1` The flag is set only by who holds the lock of the file's number, and cleared before
//!   it lets go. Whoever reads or writes the flags under that lock sees the user's.
//! - `WINDOW-2` What runs in a window is one system call, which does not block.

use std::os::fd::RawFd;

use rustix::io::Errno;

use super::{
    descriptors,
    kernel::{self, Kind},
    lock::{Held, Owned},
};
use crate::hub::guest::guests_alive;

/// Locks, each for the files whose numbers are equal modulo this.
const LOCKS: usize = 64;

static WINDOWS: [Owned<()>; LOCKS] = [const { Owned::new(()) }; LOCKS];

/// Keeps others from opening a window on the file that `fd` names. A socket has one open file, so
/// its inode's number stands for that.
fn lock_of(fd: RawFd) -> Result<Option<Held<'static, ()>>, Errno> {
    // A thread that is not in this child of a fork may have had one.
    descriptors::is_ours();
    let (_, file) = kernel::kind_of(fd)?;
    Ok(WINDOWS[file as usize % LOCKS].take())
}

/// Makes all locks free: in the child of a fork, where nobody has one.
pub(super) fn release_in_child() {
    WINDOWS.iter().for_each(Owned::release_in_child);
}

/// Does `attempt` on `fd` so that it does not block. Also tells whether the user wants it so
/// anyway: then `EAGAIN` is for the user.
pub(super) fn attempt<T>(
    fd: RawFd,
    attempt: impl FnOnce() -> Result<T, Errno>,
) -> Result<(bool, Result<T, Errno>), Errno> {
    let _lock = lock_of(fd)?;
    if kernel::status_flags(fd)? & libc::O_NONBLOCK != 0 {
        return Ok((true, attempt()));
    }
    kernel::set_nonblocking(fd, true)?;
    let done = attempt();
    kernel::set_nonblocking(fd, false)?;
    Ok((false, done))
}

/// Does `f`, which reads or writes the flags of `fd`, while no window is open (`WINDOW-1`).
pub(super) fn truly<T>(fd: RawFd, f: impl FnOnce() -> T) -> T {
    let _lock = lock_of(fd);
    f()
}

/// Whether the user has put `fd` in non-blocking mode.
pub(super) fn is_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    // A window only ever adds the flag.
    if kernel::status_flags(fd)? & libc::O_NONBLOCK == 0 {
        return Ok(false);
    }
    let flags = truly(fd, || kernel::status_flags(fd))?;
    Ok(flags & libc::O_NONBLOCK != 0)
}

/// Whether a call of somebody who is no virtual thread, which has just failed, said `EAGAIN` only
/// because it began while a window was open: then it is to begin again.
#[cold]
pub(super) fn was_in_one(fd: RawFd) -> bool {
    guests_alive() != 0
        && kernel::errno() == Errno::AGAIN
        && kernel::kind_of(fd).is_ok_and(|(kind, _)| kind == Kind::Pipe)
        && is_nonblocking(fd) == Ok(false)
}
