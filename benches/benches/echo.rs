//! An echo server: its processor time and its system calls per request of 64 bytes, over 100 and
//! 1,000 connections.
//!
//! `cargo bench --bench echo`
//!
//! Excluded: starting the server, accepting, the first requests of each connection. Included: all
//! processor time of the server's process, which is the kernel's share of sending and receiving
//! for nine tenths. The `echo_compare` program does the same with the numbers you choose.

use std::io;

use greenloop_benches::echo::ECHO;
use greenloop_benches::echo::compare::{Settings, compare};
use greenloop_benches::report::is_for_real;

fn main() -> io::Result<()> {
    let mut settings = Settings::parse(&ECHO, std::env::args().skip(1))?;
    if !is_for_real() {
        settings = Settings { connections: vec![10], rounds: 1, requests: 1_000, ..settings };
    }
    compare(&settings)?;
    compare(&Settings { strace: true, ..settings })
}
