//! The echo server on tokio's `current_thread` runtime: a task for each connection.
//!
//! `cargo run --release --bin echo_tokio -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`.

use std::io;

use greenloop_benches::echo::{BUFFER_SIZE, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let address = serve::prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(address).await?;
        serve::announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            drop(tokio::spawn(echo(stream)));
        }
    })
}

/// Echoes until the peer is gone.
async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; BUFFER_SIZE];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}
