//! A server with sessions that sleep, count and end, none of which ever stops another.
//!
//! Run:    `cargo run --features signal --example line_server 127.0.0.1:8007`
//! Poke:   `nc 127.0.0.1 8007` in two windows; type `delay 10` in one and talk to the other
//! Prints:
//!
//! ```text
//! line_server listens on 127.0.0.1:8007
//! + 127.0.0.1:51312
//! - 127.0.0.1:51312
//! stopped: 127.0.0.1:51314 said die
//! ```
//!
//! It is the demo server of geventreactor's README (2013): there every session was a Twisted
//! protocol that might block in `lineReceived`; here it is a loop over lines.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use greenloop::{
    Greenlet, RunError,
    net::{Server, SocketAddr, TcpListener, TcpStream},
    reactor, sleep, spawn,
};

/// How long sessions may go on when the server gets SIGINT or SIGTERM.
const GRACE: Duration = Duration::from_secs(10);

const GREETING: &str = "\
count:   start a counter; the next line stops it
delay N: block this session, and no other, for N seconds
quit:    end this session
die:     stop the server
otherwise, echo
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let [address] = &args[..] else { return usage("it takes one argument") };
    let ended = greenloop::try_run(|| {
        let listener = match TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) => return Ok(usage(&format!("cannot listen on {address}: {error}"))),
        };
        println!("line_server listens on {}", listener.local_addr()?);
        server(listener).stop_on_signals(GRACE)?.serve().map(|()| ExitCode::SUCCESS)
    });
    match ended {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => fail(&error),
        Err(RunError::Stopped) => ExitCode::SUCCESS, // somebody said `die`
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("line_server: {error}");
    ExitCode::FAILURE
}

/// Serves whoever connects, until a session stops the reactor.
pub(crate) fn server(
    listener: TcpListener,
) -> Server<TcpListener, impl Fn((TcpStream, SocketAddr))> {
    Server::new(listener, |(stream, peer)| {
        println!("+ {peer}");
        match session(Rc::new(stream)) {
            Ok(Next::Listen) => println!("- {peer}"),
            Ok(Next::Die) => {
                println!("stopped: {peer} said die");
                reactor().stop();
            }
            Err(error) => eprintln!("- {peer}: {error}"),
        }
    })
}

/// What the server does when a session has ended.
enum Next {
    Listen,
    Die,
}

fn session(stream: Rc<TcpStream>) -> io::Result<Next> {
    let mut out = &*stream;
    out.write_all(GREETING.as_bytes())?;
    let mut counter = None;
    for line in BufReader::new(&*stream).lines() {
        let line = line?;
        drop(counter.take()); // Any line stops the counter.
        match line.trim().split_once(' ').unwrap_or((line.trim(), "")) {
            ("count", "") => counter = Some(Counter::start(Rc::clone(&stream))),
            ("delay", seconds) => match seconds.parse().map(Duration::try_from_secs_f64) {
                Ok(Ok(pause)) => {
                    out.write_all(format!("waiting {seconds} seconds\n").as_bytes())?;
                    sleep(pause); // parks this session; the others go on
                    out.write_all(b"hi again\n")?;
                }
                _ => out.write_all(b"delay how many seconds?\n")?,
            },
            ("quit", "") => {
                out.write_all(b"bye\n")?;
                break;
            }
            ("die", "") => {
                out.write_all(b"stopping the server\n")?;
                return Ok(Next::Die);
            }
            _ => out.write_all(format!("{line}\n").as_bytes())?,
        }
    }
    Ok(Next::Listen)
}

/// A greenlet that counts, until this is dropped: by the next line, or by the end of the session.
struct Counter(Greenlet<io::Result<()>>);

impl Counter {
    fn start(stream: Rc<TcpStream>) -> Counter {
        Counter(spawn(move || {
            for count in 0u64.. {
                (&*stream).write_all(format!("{count} from count\n").as_bytes())?;
                sleep(Duration::from_secs(1));
            }
            Ok(())
        }))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.kill();
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("line_server: {problem}\nusage: line_server ADDR    for instance 127.0.0.1:8007");
    ExitCode::from(2)
}
