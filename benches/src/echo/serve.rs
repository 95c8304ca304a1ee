//! What the echo servers have in common: how they are called, and how they end.
//!
//! ```text
//! echo_bare [ADDRESS] [--core N]
//! ```
//! The first line that a server prints is the address it is bound to (port 0 is the default). When
//! its standard input is closed or says anything, it prints `cpu_ns N`, the processor time it has
//! used, and ends.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;

use crate::os;

/// Reads the command line, goes to the core it names, and returns the address to bind.
///
/// # Errors
/// When the command line makes no sense, or the machine has no such core.
pub fn prepare() -> io::Result<SocketAddr> {
    let mut address = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--core" {
            let core = arguments.next().and_then(|text| text.parse().ok());
            os::pin_to_core(core.ok_or_else(|| io::Error::other("--core takes a number"))?)?;
        } else {
            address = argument.parse().map_err(io::Error::other)?;
        }
    }
    os::raise_descriptor_limit()?;
    Ok(address)
}

/// Prints the address a server is bound to, and from now on ends it when it is told.
///
/// # Errors
/// When standard output is closed.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    if let Err(error) = os::exit_when_stdin_speaks() {
        eprintln!("standard input cannot end this server ({error}); it runs until it is killed");
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{address}")?;
    stdout.flush()
}
