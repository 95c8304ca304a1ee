//! The echo server, four times over, and what is done to it.
//!
//! Each server is a program under `src/bin/` that sends back what it reads, on one core. [`load`]
//! keeps one message under way on each of many connections. [`compare`] measures the servers
//! beside one another, and [`strace`] counts the system calls of each. [`serve`] is what the
//! server programs have in common, and [`server`] how the others start them.
//!
//! Loopback on one machine measures the load as well as the server, so the two have a core each,
//! and what is compared is the processor time of the server per request, not requests per second.

pub mod compare;
pub mod load;
pub mod serve;
pub mod server;
pub mod strace;

/// What is sent at a time, in bytes.
pub const MESSAGE_SIZE: usize = 64;

/// What a server reads at a time at most, in bytes: more than a message, so that a short read
/// tells it that the socket is empty, and it need not be told again by `EAGAIN`.
pub const BUFFER_SIZE: usize = 1024;

/// Where the servers run.
pub const SERVER_CORE: usize = 0;

/// Where the load runs.
pub const LOAD_CORE: usize = 1;
