//! An echo server: one greenlet for each connection, written as if each had a thread.
//!
//! Run:    `cargo run --example echo_server 127.0.0.1:7000`
//! Poke:   `nc 127.0.0.1 7000`, as often as you like at once
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

use greenloop::{
    net::{TcpListener, TcpStream},
    sleep, spawn,
};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address] = &args[..] else { return usage("it takes one argument") };
    greenloop::run(|| match TcpListener::bind(address) {
        Ok(listener) => serve(listener),
        Err(error) => usage(&format!("cannot listen on {address}: {error}")),
    })
}

/// Serves whoever connects, for ever.
pub(crate) fn serve(listener: TcpListener) -> ! {
    if let Ok(address) = listener.local_addr() {
        println!("echo_server listens on {address}");
    }
    loop {
        match listener.accept() {
            Ok((stream, peer)) => drop(spawn(move || {
                if let Err(error) = echo(stream) {
                    eprintln!("{peer}: {error}");
                }
            })),
            Err(error) => {
                eprintln!("cannot accept: {error}");
                sleep(Duration::from_millis(100)); // Whatever it is, it may last: no busy loop.
            }
        }
    }
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
