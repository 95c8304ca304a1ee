//! The echo server on may, with one worker and default features: a coroutine for each connection.
//!
//! `cargo run --release --bin echo_may -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.

use std::io::{self, Read, Write};

use greenloop_benches::echo::{BUFFER_SIZE, serve};
use may::go;
use may::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let address = serve::prepare()?;
    may::config().set_workers(1);
    let server = go!(move || -> io::Result<()> {
        let listener = TcpListener::bind(address)?;
        serve::announce(listener.local_addr()?)?;
        for stream in listener.incoming() {
            let stream = stream?;
            drop(go!(move || echo(stream)));
        }
        Ok(())
    });
    server.join().expect("the server does not panic")
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
