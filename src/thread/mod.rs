//! Virtual threads: threads to all the code inside them, greenlets to their hub.
//!
//! [`spawn`](spawn()) has the contract of [`std::thread::spawn`]: a `Send` closure, thread-locals
//! of its own with destructors that run at its end, its own `errno`, panic count, `ThreadId` and
//! floating-point control. So what is right on a thread is right on a virtual thread, and any crate
//! that blocks may be used there, unmodified: where the program has
//! [`interpose!`](macro@crate::interpose), what blocks in the C library (a `recv`, a lock, a
//! `sleep`) parks the virtual thread, and its hub runs others. All virtual threads of a hub share
//! its OS thread, and each costs about two pages of memory.
//!
//! | for | use |
//! |---|---|
//! | your own code, many and small | [`greenloop::spawn`](crate::spawn) |
//! | a crate that blocks | `thread::spawn`; in a greenlet that waits for it, [`run`] |
//! | work for the processor | [`std::thread`] |
//!
//! # What it is not
//!
//! - It reaches the reactor, and greenlets, as any other thread does: by `Send` handles.
//!   [`reactor`](crate::reactor()), [`greenloop::spawn`](crate::spawn) and Deferreds belong to the
//!   hub, and are refused. `sleep`, `timeout`, `shield`, the sockets of [`net`](crate::net), and
//!   all of [`sync`](crate::sync) work as anywhere.
//! - The kernel knows the OS thread alone: signal masks, affinity, priorities, `prctl`, and what
//!   `gettid` says are shared. Locks that the kernel itself keeps for a thread (robust ones, those
//!   with priority inheritance, `flockfile` over a suspension) do not tell virtual threads apart.
//! - It gives way only where it waits. One that computes holds up the others of its hub.
//! - Its memory: with the system's allocator, all virtual threads of an OS thread share a cache.
//!   Allocators that keep a cache for each thread keep one for each virtual thread: 28 to 74 KiB
//!   with jemalloc, 82 and more with mimalloc.
//!
//! # Where it works
//!
//! With glibc from 2.34, on x86_64 (Linux 5.9) and aarch64. Elsewhere, under a sanitizer or
//! valgrind, and where the C library turns out not to be as expected, each spawn starts an OS
//! thread, which has a reactor of its own, so that all of this crate's calls work on it and
//! really block. [`support`] says which, and why.
//!
//! # Cancellation
//!
//! [`JoinHandle::kill`], and the end of a [`timeout`](crate::timeout) around it, unwind a virtual
//! thread out of a call of this crate. A call of the C library's fails instead, with `ECANCELED` or
//! `ETIMEDOUT`, for an unwind through frames of C is undefined behaviour. What cannot fail (std's
//! locks, channels and `park`) goes on waiting: such a virtual thread is frozen for ever when its
//! run's shutdown deadline is over, as std's detached threads are when a process ends.
//!
//! # Examples
//!
//! ```
//! let sum = greenloop::run(|| {
//!     let threads: Vec<_> = (0..10).map(|n| greenloop::thread::spawn(move || n * n)).collect();
//!     threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>()
//! });
//! assert_eq!(sum, 285);
//! ```
//!
//! Floor 8. Uses: `hub::guest`, `sync`. Used by: users, `interpose`.
//!
//! # Source
//!
//! `std::thread`, by whose names it goes; Java's virtual threads (JEP 444), for the idea that a
//! thread that is cheap needs no new contract.

mod block;
mod handle;
mod layout;
mod scope;
mod spawn;

pub(crate) use block::{begin_load, blocks_are_there, end_load};
pub use handle::{JoinHandle, Thread, current, park, park_timeout, sleep, yield_now};
pub use layout::Refusal;
pub use scope::{Scope, ScopedJoinHandle, run, scope};
pub use spawn::{Builder, spawn};

use std::fmt;

/// What [`spawn`](spawn()) makes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Support {
    /// Virtual threads.
    Virtual,
    /// OS threads, and why.
    OsThreads(Refusal),
}

/// What [`spawn`](spawn()) makes here: virtual threads, or OS threads and why. Found out at the
/// first call.
///
/// # Examples
///
/// ```
/// println!("{}", greenloop::thread::support());
/// ```
pub fn support() -> Support {
    layout::layout().map_or_else(Support::OsThreads, |_| Support::Virtual)
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = layout::c_library();
        match self {
            Support::Virtual => write!(f, "virtual threads (glibc {library})"),
            Support::OsThreads(refusal) => write!(f, "OS threads: {refusal} (glibc {library})"),
        }
    }
}
