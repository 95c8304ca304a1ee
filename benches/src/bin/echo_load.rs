//! The load by itself, for a server of your own.
//!
//! ```text
//! echo_load ADDRESS [--connections N] [--requests M] [--size BYTES] [--core C]
//! ```

use std::env;
use std::io;
use std::net::SocketAddr;

use greenloop_benches::echo::load::{Load, Talk};
use greenloop_benches::echo::{LOAD_CORE, MESSAGE_SIZE};
use greenloop_benches::os;

fn main() -> io::Result<()> {
    let (mut address, mut connections, mut requests) = (None::<SocketAddr>, 100, 100_000);
    let (mut size, mut core) = (MESSAGE_SIZE, LOAD_CORE);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let number = arguments.next().and_then(|text| text.parse::<u64>().ok());
            number.ok_or_else(|| io::Error::other(format!("{argument} takes a number")))
        };
        match argument.as_str() {
            "--connections" => connections = number()? as usize,
            "--requests" => requests = number()?,
            "--size" => size = number()? as usize,
            "--core" => core = number()? as usize,
            text => address = Some(text.parse().map_err(io::Error::other)?),
        }
    }
    let address =
        address.ok_or_else(|| io::Error::other("echo_load ADDRESS [--connections N] …"))?;
    os::pin_to_core(core)?;
    os::raise_descriptor_limit()?;
    let mut load = Load::connect(address, connections, &Talk::echo(size))?;
    let time = load.run(requests)?;
    let each = time.as_nanos() as f64 / requests as f64;
    println!("{requests} requests over {connections} connections in {time:.3?}: {each:.0} ns each");
    Ok(())
}
