//! Forks whose child begins with the forking greenlet alone.
//!
//! Floor 6. Uses: `hub::fork`, `hub::io`. Used by: users.
//!
//! To start another program, use [`std::process::Command`], also from a greenlet: what it does in
//! the child (`pre_exec` and `exec` included) never meets this crate, and every descriptor of this
//! crate is closed by `exec`. [`fork`] is for children that go on in this program.
//!
//! However a process forks, by [`fork`], by `libc::fork` or otherwise: in the child the reactor of
//! the parent is gone before the call returns. Calls that need one say that there is none, and
//! [`run`](crate::run) begins a new one. No other greenlet runs there, none is unwound, and the
//! parent's sockets and timers are what they were.
//!
//! # Source
//!
//! gevent `os.py` (`fork_and_watch`, `waitpid`); fork(2), pidfd_open(2).

#![expect(unsafe_code, reason = "fork")]
//! # Safety
//!
//! Passed on: whoever forks vouches for what the child does.

use std::{
    cell::Cell,
    fmt, io,
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitStatus,
};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid},
};

use crate::hub::{
    fork as forks,
    io::{Direction, Moved, Source},
};

/// What a child that panics exits with: what a program of Rust does.
const EXIT_PANICKED: i32 = 101;

/// A child process made by [`fork`].
///
/// Dropped, it is not waited for: it goes on, and is a zombie from its end to that of this process,
/// as `std`'s is.
pub struct Child {
    pid: Pid,
    /// Readable when the child has ended. An error is for those who wait.
    ended: io::Result<Source>,
    status: Cell<Option<ExitStatus>>,
}

/// Forks this process; the child calls `child` and exits with what it returns.
///
/// Shape: in the child, `child` runs on the stack of the forking greenlet, off any reactor: it may
/// [`run`](crate::run) one. It never returns into what called `fork`, so no destructor runs there
/// but its own, and nothing is flushed: write what must be seen. A panic of it makes the exit code
/// 101. The parent goes on at once; [`Child::wait`] parks.
///
/// # Errors
///
/// Those of fork(2): no memory, or too many processes.
///
/// # Cancellation
///
/// Cancellation point: never.
///
/// # Safety
///
/// 1. If the process has other threads, they do not exist in the child, whatever locks they held.
///    So `child` calls only what needs no such lock until it execs or ends. (Memory may be
///    allocated: the C library sees to that.) The threads that look names up for this crate are not
///    meant: the child has new ones. The feature `tokio`'s is: there, futures that need tokio do
///    not work.
/// 2. `child` accepts that what other greenlets had begun is never ended in the child.
///
/// # Examples
///
/// ```
/// use greenloop::{process, run, sleep};
/// use std::time::Duration;
/// # fn main() -> std::io::Result<()> {
/// run(|| {
///     // SAFETY: this program has no other thread.
///     let child = unsafe {
///         process::fork(|| run(|| {
///             sleep(Duration::from_millis(1));
///             7
///         }))?
///     };
///     assert_eq!(child.wait()?.code(), Some(7));
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// gevent `fork_and_watch`. Differs: there, all greenlets go on in the child, too.
pub unsafe fn fork(child: impl FnOnce() -> i32) -> io::Result<Child> {
    forks::watch();
    // SAFETY: passed on. This crate's own part is FORK-1: there is no hub in the child.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or_else(|payload| {
                crate::report::discard(payload); // Its destructor may panic, too.
                EXIT_PANICKED
            });
            // SAFETY: it takes any number, and does not return.
            unsafe { libc::_exit(code) }
        }
        pid => {
            let pid = Pid::from_raw(pid).expect("a child has a number");
            // Never read, so its mode does not matter; to ask for one needs a newer kernel.
            let ended = pidfd_open(pid, PidfdFlags::empty());
            Ok(Child {
                pid,
                ended: ended.map(Source::new).map_err(io::Error::from),
                status: Cell::new(None),
            })
        }
    }
}

impl Child {
    /// Its process number.
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits for its end. May be asked again.
    ///
    /// # Errors
    ///
    /// `ECHILD` when somebody else has waited for it, or SIGCHLD is ignored; those of
    /// pidfd_open(2), which needs Linux 5.3; [`Killed`](crate::Killed) inside an error of kind
    /// `Other` where a kill cannot unwind; outside [`run`](crate::run), an error that says so.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always, but where the end is known. On cancel the child goes on, and may
    /// be waited for again.
    pub fn wait(&self) -> io::Result<ExitStatus> {
        if let Some(status) = self.status.get() {
            return Ok(status);
        }
        let ended = self.ended.as_ref().map_err(|error| {
            error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error)
        })?;
        ended.operate(Direction::Read, None, |_| {
            // Another greenlet may have been told while this one waited: the system says it once.
            if self.status.get().is_none() {
                let told = waitpid(Some(self.pid), WaitOptions::NOHANG)?;
                self.status.set(told.map(|(_, status)| ExitStatus::from_raw(status.as_raw())));
            }
            self.status.get().map(|status| (status, Moved::All)).ok_or(Errno::AGAIN)
        })
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).field("status", &self.status).finish()
    }
}
