//! Measures the echo servers beside one another.
//!
//! ```text
//! echo_compare [--connections 100,1000] [--rounds 21] [--requests 30000]
//!              [--servers bare,greenloop,tokio,may,vthreads,os-threads] [--json FILE] [--strace]
//! ```

use std::io;

use greenloop_benches::echo::ECHO;
use greenloop_benches::echo::compare::{Settings, compare};

fn main() -> io::Result<()> {
    compare(&Settings::parse(&ECHO, std::env::args().skip(1))?)
}
