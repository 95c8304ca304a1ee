//! The echo server on std alone: an OS thread for each connection.
//!
//! `cargo run --release --bin echo_os_threads -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use greenloop_benches::echo::{BUFFER_SIZE, serve};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind(serve::prepare()?)?;
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
