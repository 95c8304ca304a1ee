//! Measures hyper's servers beside one another.
//!
//! ```text
//! hyper_compare [--connections 100,1000] [--rounds 21] [--requests 30000]
//!               [--servers greenloop,tokio] [--json FILE] [--strace]
//! ```

use std::io;

use greenloop_benches::echo::HYPER;
use greenloop_benches::echo::compare::{Settings, compare};

fn main() -> io::Result<()> {
    compare(&Settings::parse(&HYPER, std::env::args().skip(1))?)
}
