//! What the names of libc do once a program has said `greenloop::interpose!()`.
//!
//! Floor 8. Uses: everything below; `thread`. Used by: the macro. Knows nothing of: who calls.
//!
//! # Map
//!
//! | file | what it is |
//! |---|---|
//! | `table` | the one list of hooked functions: names, aliases, signatures |
//! | `export` | the macros that define them in the final binary |
//! | `next` | the next definition of each, found when the program starts |
//! | `early` | what stands in for it until then |
//! | `elf` | the loaded objects and their symbols |
//! | `status` | who calls us: each loaded object, and whom it finds |
//! | `self_test` | whether the definitions are there, and win |
//! | `receive`, `send`, `accept`, `connect`, `poll`, `sleep` | calls that wait |
//! | `transfer`, `flock` | calls from one descriptor to another; locks on files |
//! | `close`, `create` | calls that change what a descriptor's number means |
//! | `call`, `descriptors`, `window` | one call of a virtual thread; who waits for which number; a moment without blocking |
//! | `kernel`, `parts`, `lock` | questions to the kernel; a buffer in parts; a lock for a few instructions |
//! | `marked`, `recall` | whether this is the process that it was; what is remembered of a socket, and until when |
//! | `futex`, `locks` | waiting for one another |
//! | `wait`, `queue`, `inside` | how these wait, and who waits where |
//! | `elsewhere` | calls of a guest that another OS thread makes, or on another base |
//! | `names`, `child`, `identity`, `thread` | resolver, child processes, users and groups, OS threads |
//!
//! # How a call comes here
//!
//! ```text
//! std, libpq.so, …  ──"recv"──▶  recv in the final binary  ──▶  __hooks::recv (in `receive`)
//!                                                                 │ no guest: next::recv ──▶ libc
//!                                                                 └ a guest: try, park, try again
//! ```
//!
//! The linker takes the binary's own definition for what is linked into it (std), and the loader
//! takes it for shared libraries, because the executable comes first and exports what libc exports.
//!
//! # Invariants
//!
//! - `HOOK-1` A hook is called as libc's function of that name would be, so its arguments meet the
//!   contract of that function's manual page, and it hands them to the next definition of the same
//!   name unchanged.
//! - `HOOK-2` The frames of a hook on the way to the next definition are plain: they drop nothing
//!   and catch nothing. So a thread that is cancelled, or that exits, in the next definition may be
//!   unwound through them (`extern "C-unwind"`). No panic leaves a hook.
//!
//! # Rules
//!
//! - What serves a guest makes its system calls by rustix or `early::kernel`, never by libc's
//!   names: those are ours. errno is set last, on the guest's own base.
//! - A call that waits is tried first, and waits only if it would block. A kill is `ECANCELED`, the
//!   end of a timeout around the call `ETIMEDOUT`; never an unwind, and never `EINTR`.
//! - Between the test for a guest and the next definition there is nothing: the way through costs
//!   one thread-local load, one load of an address, and a jump.
//! - A function that libc answers with the OS thread's own state is called on its base
//!   (`elsewhere::on_libcs_base`).
//!
//! # What this does not reach
//!
//! Whoever makes system calls without libc (rustix, Go), libc itself (`FILE` streams, its
//! resolver), and a call that began before there was a guest. [`status()`] tells of libraries; the
//! watchdog names what stops a hub.
//!
//! A library that is loaded later finds those names only that the program exports: the linker
//! exports what a library which the program is linked with, libc first of all, defines or asks for.
//! `__recv` and others, which libc has for itself or for programs of long ago, need the
//! linker's `--export-dynamic-symbol`.
//!
//! # Source
//!
//! ld.so(8), dlsym(3).

#[macro_use]
mod table;
#[macro_use]
mod export;

mod early;
mod elf;
mod elsewhere;
mod next;
mod self_test;
mod status;

mod accept;
mod call;
mod child;
mod close;
mod connect;
mod create;
mod descriptors;
mod flock;
mod futex;
mod identity;
mod inside;
mod kernel;
mod lock;
mod locks;
mod marked;
mod names;
mod parts;
mod poll;
mod queue;
mod recall;
mod receive;
mod send;
mod sleep;
mod thread;
mod transfer;
mod wait;
mod window;

/// The types in the list of hooked functions.
#[doc(hidden)]
pub mod __c {
    pub use libc::{
        FILE, addrinfo, c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void, clockid_t,
        epoll_event, fd_set, gid_t, hostent, id_t, idtype_t, iovec, loff_t, mmsghdr, msghdr,
        nfds_t, off_t, off64_t, pid_t, pollfd, pthread_attr_t, pthread_barrier_t, pthread_cond_t,
        pthread_mutex_t, pthread_rwlock_t, pthread_t, rusage, sem_t, siginfo_t, sigset_t, size_t,
        sockaddr, socklen_t, ssize_t, termios, timespec, timeval, uid_t, useconds_t, winsize,
    };

    pub use super::export::{Routine, Start, StartOfC11};
}

__hooked_functions! { hooks }

#[doc(hidden)]
pub use export::{__Definition, __begin};
pub use self_test::{Inactive, is_active};
pub use status::{ObjectStatus, Status, status};
