//! An echo server: one greenlet for each connection, written as if each had a thread.
//!
//! Run:    `cargo run --features signal --example echo_server 127.0.0.1:7000`
//! Poke:   `nc 127.0.0.1 7000`, as often as you like at once; Ctrl-C ends it when the last client
//!         has gone, or after ten seconds; a second one at once
//! Prints:
//!
//! ```text
//! echo_server listens on 127.0.0.1:7000
//! 127.0.0.1:51312: Connection reset by peer (os error 104)      (only when a session fails)
//! ```

use std::{
    env,
    io::{self, Read, Write},
    process::ExitCode,
    time::Duration,
};

use greenloop::net::{Server, SocketAddr, TcpListener, TcpStream};

/// How long clients may go on when the server is told to stop.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address] = &args[..] else { return usage("it takes one argument") };
    let listener = match greenloop::run(|| TcpListener::bind(address)) {
        Ok(listener) => listener,
        Err(error) => return usage(&format!("cannot listen on {address}: {error}")),
    };
    let served = greenloop::run(|| {
        println!("echo_server listens on {}", listener.local_addr()?);
        server(listener).stop_on_signals(GRACE)?.serve()
    });
    if let Err(error) = served {
        eprintln!("echo_server: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Serves whoever connects.
pub(crate) fn server(
    listener: TcpListener,
) -> Server<TcpListener, impl Fn((TcpStream, SocketAddr))> {
    let session = |(stream, peer)| {
        if let Err(error) = echo(stream) {
            eprintln!("{peer}: {error}");
        }
    };
    Server::new(listener, session).max_connections(10_000)
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?; // parks this greenlet, not the thread
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("echo_server: {problem}\nusage: echo_server ADDR    for instance 127.0.0.1:7000");
    ExitCode::from(2)
}
