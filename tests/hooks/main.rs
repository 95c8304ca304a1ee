//! Blocking code, unmodified, on virtual threads: this binary has libc's names interposed.
//!
//! The suites are std's own sockets, pipes, files and sleeps, and libc's calls as C would make
//! them. Where time is the subject, it is virtual.

#![expect(unsafe_code, reason = "libc's calls, as C makes them")]

#[path = "../guests/of.rs"]
mod of;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "another binary needs the rest")]
mod support;

mod call;
mod close;
mod connect;
mod dump;
mod futex;
mod kill;
mod locks;
mod mode;
mod poll;
mod pthreads;
mod recall;
mod receive;
mod send;
mod shared;
mod sides;
mod sleep;
mod std_channels;
mod std_datagrams;
mod std_locks;
mod std_tcp;
mod std_threads;
mod tokio;
mod transfer;

greenloop::interpose!();
