//! A TCP proxy: two greenlets for each connection, one for each direction, that borrow both
//! sockets.
//!
//! Run:    `cargo run --example proxy 127.0.0.1:7001 example.org:80`
//! Poke:   `curl -H 'Host: example.org' 127.0.0.1:7001`; or put it before a psql or an ssh server
//! Prints:
//!
//! ```text
//! proxy listens on 127.0.0.1:7001
//! 127.0.0.1:51312: 79 bytes up, 1591 bytes down
//! 127.0.0.1:51314: Connection refused (os error 111)
//! ```
//!
//! Half-closed connections work: when one side has said all, the other is told so, and may go on.

use std::{env, io, process::ExitCode, rc::Rc, time::Duration};

use greenloop::{
    net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs},
    scope, sleep, spawn,
};

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address, upstream] = &args[..] else { return usage("it takes two arguments") };
    greenloop::run(|| {
        if let Err(error) = upstream.to_socket_addrs() {
            return usage(&format!("cannot find {upstream}: {error}"));
        }
        match TcpListener::bind(address) {
            Ok(listener) => serve(listener, upstream),
            Err(error) => usage(&format!("cannot listen on {address}: {error}")),
        }
    })
}

/// Connects whoever connects with `upstream`, for ever.
pub(crate) fn serve(listener: TcpListener, upstream: &str) -> ! {
    if let Ok(address) = listener.local_addr() {
        println!("proxy listens on {address}");
    }
    let upstream: Rc<str> = upstream.into();
    loop {
        match listener.accept() {
            Ok((client, peer)) => {
                let upstream = Rc::clone(&upstream);
                spawn(move || match forward(&client, &upstream) {
                    Ok((up, down)) => println!("{peer}: {up} bytes up, {down} bytes down"),
                    Err(error) => eprintln!("{peer}: {error}"),
                });
            }
            Err(error) => {
                eprintln!("cannot accept: {error}");
                sleep(Duration::from_millis(100)); // Whatever it is, it may last: no busy loop.
            }
        }
    }
}

fn forward(client: &TcpStream, upstream: &str) -> io::Result<(u64, u64)> {
    let server = TcpStream::connect(upstream)?;
    let mut up = Ok(0);
    let down = scope(|s| {
        s.spawn(|| up = pump(client, &server));
        pump(&server, client)
    });
    Ok((up?, down?))
}

/// Copies until `from` has said all, and tells `to`. An error ends both directions.
fn pump(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<u64> {
    let copied = io::copy(&mut from, &mut to);
    // Whoever has gone already need not be told: the error is not news.
    let _ = match &copied {
        Ok(_) => to.shutdown(Shutdown::Write),
        Err(_) => to.shutdown(Shutdown::Both).and(from.shutdown(Shutdown::Both)),
    };
    copied
}

fn usage(problem: &str) -> ExitCode {
    eprintln!(
        "proxy: {problem}\nusage: proxy LISTEN UPSTREAM    for instance 127.0.0.1:7001 [::1]:80"
    );
    ExitCode::from(2)
}
