//! A TCP proxy: two greenlets for each connection, one for each direction, that borrow both
//! sockets.
//!
//! Run:    `cargo run --features signal --example proxy 127.0.0.1:7001 example.org:80`
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

use std::{env, io, process::ExitCode, time::Duration};

use greenloop::{
    net::{Server, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    scope,
};

/// How long connections may go on when the proxy gets SIGINT or SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address, upstream] = &args[..] else { return usage("it takes two arguments") };
    greenloop::run(|| {
        if let Err(error) = upstream.to_socket_addrs() {
            return usage(&format!("cannot find {upstream}: {error}"));
        }
        let listener = match TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) => return usage(&format!("cannot listen on {address}: {error}")),
        };
        println!("proxy listens on {}", listener.local_addr().expect("it listens"));
        let served = server(listener, upstream).stop_on_signals(GRACE).and_then(Server::serve);
        if let Err(error) = served {
            eprintln!("proxy: {error}");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    })
}

/// Connects whoever connects with `upstream`.
pub(crate) fn server(
    listener: TcpListener,
    upstream: &str,
) -> Server<TcpListener, impl Fn((TcpStream, SocketAddr)) + use<>> {
    let upstream = upstream.to_owned();
    Server::new(listener, move |(client, peer): (TcpStream, _)| match forward(&client, &upstream) {
        Ok((up, down)) => println!("{peer}: {up} bytes up, {down} bytes down"),
        Err(error) => eprintln!("{peer}: {error}"),
    })
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
