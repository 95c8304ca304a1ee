//! The echo server on std's sockets, unmodified: a virtual thread for each connection, all on one
//! OS thread.
//!
//! `cargo run --release --bin echo_vthreads -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.
//!
//! It differs from `echo_os_threads` in how it starts a thread, and in `interpose!()`.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

use greenloop::thread;
use greenloop_benches::echo::{BUFFER_SIZE, serve};

greenloop::interpose!();

fn main() -> io::Result<()> {
    let address = serve::prepare()?;
    greenloop::run(move || thread::run(move || serve_at(address)))
}

/// Accepts for ever. What it measures must be what it says: without virtual threads it fails.
fn serve_at(address: std::net::SocketAddr) -> io::Result<()> {
    if thread::support() != thread::Support::Virtual {
        return Err(io::Error::other(thread::support().to_string()));
    }
    greenloop::interpose::is_active().map_err(io::Error::other)?;
    let listener = TcpListener::bind(address)?;
    serve::announce(listener.local_addr()?)?;
    for stream in listener.incoming() {
        let stream = stream?;
        drop(thread::spawn(move || echo(stream)));
    }
    Ok(())
}

/// Echoes until the peer is gone.
fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; BUFFER_SIZE];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
