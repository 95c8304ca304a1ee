//! hyper's HTTP/1 server on greenloop and on tokio: processor time and system calls per request,
//! over 100 and 1,000 connections.
//!
//! `cargo bench --bench hyper`
//!
//! Excluded: starting the server, accepting, the first requests of each connection. Included: all
//! processor time of the server's process, hyper's own share with it. The `hyper_compare` program
//! does the same with the numbers you choose.

use std::io;

use greenloop_benches::echo::HYPER;
use greenloop_benches::echo::compare::{Settings, compare};
use greenloop_benches::report::is_for_real;

fn main() -> io::Result<()> {
    let mut settings = Settings::parse(&HYPER, std::env::args().skip(1))?;
    if !is_for_real() {
        settings = Settings { connections: vec![10], rounds: 1, requests: 1_000, ..settings };
    }
    compare(&settings)?;
    compare(&Settings { strace: true, ..settings })
}
