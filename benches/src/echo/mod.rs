//! The echo server, six times over, and what is done to it; and hyper's server, twice.
//!
//! Each server is a program under `src/bin/` that answers what it reads, on one core. [`load`]
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

use compare::Contest;
use load::Talk;

use crate::report::{Limit, OURS};

/// The echo servers, measured by a bare epoll loop.
pub static ECHO: Contest = Contest {
    servers: &[
        ("bare", "echo_bare"),
        (OURS, "echo_greenloop"),
        ("bare again", "echo_bare"),
        ("tokio", "echo_tokio"),
        ("may", "echo_may"),
        (VIRTUAL_THREADS, "echo_vthreads"),
        (OS_THREADS, "echo_os_threads"),
    ],
    base: "bare",
    talk: || Talk::echo(MESSAGE_SIZE),
    limits: |connections| {
        let of_bare = if connections <= 100 { 1.03 } else { 1.05 };
        vec![
            (OURS, Limit { peer: "bare", ratio: of_bare }),
            (OURS, Limit { peer: "tokio", ratio: 1.0 }),
            (OURS, Limit { peer: "may", ratio: 1.0 }),
            (VIRTUAL_THREADS, Limit { peer: OURS, ratio: 1.1 }),
            (VIRTUAL_THREADS, Limit { peer: OS_THREADS, ratio: 1.0 }),
        ]
    },
};

/// std's sockets, unmodified, with a virtual thread for each connection.
pub const VIRTUAL_THREADS: &str = "vthreads";

/// The same code, with an OS thread for each.
pub const OS_THREADS: &str = "os-threads";

/// hyper's HTTP/1 server on two runtimes: the same crate, the same service.
pub static HYPER: Contest = Contest {
    servers: &[("tokio", "hyper_tokio"), (OURS, "hyper_greenloop"), ("tokio again", "hyper_tokio")],
    base: "tokio",
    talk: || {
        let request = "GET /######## HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n";
        Talk::new(request, "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n/########")
    },
    limits: |_| vec![(OURS, Limit { peer: "tokio", ratio: 1.05 })],
};

/// What is sent at a time, in bytes.
pub const MESSAGE_SIZE: usize = 64;

/// What a server reads at a time at most, in bytes: more than a message, so that a short read
/// tells it that the socket is empty, and it need not be told again by `EAGAIN`.
pub const BUFFER_SIZE: usize = 1024;

/// Where the servers run.
pub const SERVER_CORE: usize = 0;

/// Where the load runs.
pub const LOAD_CORE: usize = 1;
