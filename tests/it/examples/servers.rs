//! The server examples, driven by real clients, and stopped by real signals.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use greenloop::{ReactorHandle, RunError};
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, built, echo_server, line_server, proxy};

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// A server on a reactor of its own, on a thread of its own.
struct Server {
    address: SocketAddr,
    reactor: ReactorHandle,
    thread: thread::JoinHandle<Result<(), RunError>>,
}

impl Server {
    fn start<F>(serve: F) -> Server
    where
        F: FnOnce(greenloop::net::TcpListener) -> io::Result<()> + Send + 'static,
    {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            greenloop::try_run(|| {
                let listener = greenloop::net::TcpListener::bind("127.0.0.1:0").unwrap();
                tell.send((listener.local_addr().unwrap(), greenloop::reactor().handle())).unwrap();
                serve(listener).expect("it serves until the reactor is stopped");
            })
        });
        let (address, reactor) = told.recv().unwrap();
        Server { address, reactor, thread }
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// Stops it. It must have served until now.
    fn stop(self) {
        self.reactor.stop().expect("the server has ended before it was stopped");
        assert!(matches!(self.thread.join().unwrap(), Err(RunError::Stopped)));
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `data`, then the end, and returns all that comes back.
fn exchange(stream: &TcpStream, data: &[u8]) -> io::Result<Vec<u8>> {
    thread::scope(|s| {
        s.spawn(move || {
            let mut out = stream;
            out.write_all(data).and_then(|()| out.shutdown(Shutdown::Write))
        });
        let (mut back, mut input) = (Vec::new(), stream);
        input.read_to_end(&mut back).map(|_| back)
    })
}

/// Bytes that show if any are lost, doubled or out of place.
fn noise(count: u32, seed: u32) -> Vec<u8> {
    (0..count).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Closes with a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn echo_server_echoes_many_clients_at_once_and_an_idle_one_stops_nobody() {
    let server = Server::start(|listener| echo_server::server(listener).serve());
    let idle = server.connect();
    thread::scope(|s| {
        for seed in 0..16 {
            let stream = server.connect();
            s.spawn(move || {
                let data = noise(1 << 20, seed);
                assert!(exchange(&stream, &data).unwrap() == data, "client {seed}");
            });
        }
    });
    assert_eq!(exchange(&idle, b"still there?").unwrap(), b"still there?");
    server.stop();
}

#[test]
fn echo_server_survives_sessions_that_fail() {
    let server = Server::start(|listener| echo_server::server(listener).serve());
    for _ in 0..10 {
        let mut stream = server.connect();
        stream.write_all(b"x").unwrap();
        reset(stream);
    }
    assert_eq!(exchange(&server.connect(), b"next").unwrap(), b"next");
    server.stop();
}

#[test]
fn proxy_passes_both_directions_whole_and_half_closes() {
    // An upstream that answers only when it has been told the end of the question.
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let answers = thread::spawn(move || {
        for _ in 0..3 {
            let mut stream = upstream.accept().unwrap().0;
            let mut question = Vec::new();
            stream.read_to_end(&mut question).unwrap();
            question.reverse();
            stream.write_all(&question).unwrap();
        }
    });
    let server = Server::start(move |listener| proxy::server(listener, &address).serve());
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    for (seed, client) in clients.drain(..).enumerate() {
        let question = noise(1 << 20, seed as u32);
        let mut answer = exchange(&client, &question).unwrap();
        answer.reverse();
        assert!(answer == question, "client {seed}");
    }
    answers.join().unwrap();
    server.stop();
}

#[test]
fn proxy_tells_one_side_when_the_other_has_gone() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let server = Server::start(move |listener| proxy::server(listener, &address).serve());
    let mut client = server.connect();
    let mut peer = upstream.accept().unwrap().0;
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    reset(client);
    // The end or an error, and no wait for ever.
    let ended = peer.read(&mut [0]);
    assert!(!matches!(&ended, Ok(1..)), "{ended:?}");
    assert!(!ended.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
    server.stop();
}

#[test]
fn proxy_without_an_upstream_closes_and_goes_on() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let server = Server::start(move |listener| proxy::server(listener, &refusing).serve());
    for _ in 0..3 {
        assert_eq!(server.connect().read(&mut [0]).unwrap(), 0);
    }
    server.stop();
}

/// A client of the line server that has read the greeting.
struct Session {
    reader: BufReader<TcpStream>,
}

impl Session {
    fn open(server: &Server) -> Session {
        let mut reader = BufReader::new(server.connect());
        while !line(&mut reader).starts_with("otherwise") {}
        Session { reader }
    }

    fn say(&mut self, what: &str) {
        self.reader.get_mut().write_all(format!("{what}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self, what: &str) {
        assert_eq!(line(&mut self.reader), what);
    }
}

#[test]
fn line_server_delays_one_session_and_no_other() {
    let server = Server::start(|listener| line_server::server(listener).serve());
    let (mut sleeper, mut other) = (Session::open(&server), Session::open(&server));
    sleeper.say("delay 1000");
    sleeper.hear("waiting 1000 seconds");
    other.say("Hello there");
    other.hear("Hello there");
    other.say("delay 0.01");
    other.hear("waiting 0.01 seconds");
    other.hear("hi again");
    for nonsense in ["delay", "delay -1", "delay soon", "delay 1e300"] {
        other.say(nonsense);
        other.hear("delay how many seconds?");
    }
    other.say("quit");
    other.hear("bye");
    other.hear("");
    server.stop();
}

#[test]
fn slow_line_server_stops_the_counter_at_the_next_line() {
    let server = Server::start(|listener| line_server::server(listener).serve());
    let mut session = Session::open(&server);
    session.say("count");
    session.hear("0 from count");
    session.say("delay 1.1"); // Its next number was due after one second.
    session.hear("waiting 1.1 seconds");
    session.hear("hi again");
    server.stop();
}

#[test]
fn line_server_dies_when_it_is_told_and_ends_every_session() {
    let server = Server::start(|listener| line_server::server(listener).serve());
    let (mut sleeper, mut counter) = (Session::open(&server), Session::open(&server));
    sleeper.say("delay 1000");
    sleeper.hear("waiting 1000 seconds");
    counter.say("count");
    counter.hear("0 from count");
    let mut killer = Session::open(&server);
    killer.say("die");
    killer.hear("stopping the server");
    killer.hear("");
    sleeper.hear("");
    counter.hear("");
    assert!(matches!(server.thread.join().unwrap(), Err(RunError::Stopped)));
}

#[test]
fn echo_server_says_where_it_listens_and_which_session_failed() {
    let Some(mut command) = built("echo_server") else { return };
    command.arg("127.0.0.1:0").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let said = line(&mut BufReader::new(child.stdout.take().unwrap()));
    let address = said.rsplit(' ').next().unwrap().parse().unwrap();
    let echoed = exchange(&connect(address), b"hello");
    reset(connect(address));
    let complaint = line(&mut BufReader::new(child.stderr.take().unwrap()));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(echoed.unwrap(), b"hello");
    assert!(complaint.starts_with("127.0.0.1:") && complaint.contains("os error"), "{complaint}");
}

/// Starts a built server on a free port, and connects to it.
fn started(name: &str, args: &[&str]) -> Option<(Child, impl BufRead, TcpStream)> {
    let mut command = built(name)?;
    command.arg("127.0.0.1:0").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let address = line(&mut output).rsplit(' ').next().unwrap().parse().unwrap();
    Some((child, output, connect(address)))
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// The listener is closed at once; who is there is served to the end.
#[test]
fn echo_server_lets_its_clients_go_on_when_it_is_terminated() {
    let Some((mut child, _output, mut stream)) = started("echo_server", &[]) else { return };
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    send(&child, Signal::TERM);
    while TcpStream::connect(stream.peer_addr().unwrap()).is_ok() {
        thread::yield_now();
    }
    assert_eq!(exchange(&stream, b"still here").unwrap(), b"still here");
    let status = child.wait().unwrap();
    assert!(status.success(), "{status}");
}

/// Whoever is impatient says so twice.
#[test]
fn servers_end_at_once_at_the_second_signal() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let servers: [(&str, &[&str]); 3] =
        [("echo_server", &[]), ("line_server", &[]), ("proxy", &[&address])];
    for (name, args) in servers {
        let begun = Instant::now();
        let Some((mut child, _output, mut idle)) = started(name, args) else { return };
        let server = idle.peer_addr().unwrap();
        // What the backlog holds is reset: the session must have begun.
        let _far = match name {
            "proxy" => Some(upstream.accept().unwrap()),
            _ => {
                idle.write_all(b"x\n").unwrap();
                idle.read_exact(&mut [0]).unwrap();
                None
            }
        };
        send(&child, Signal::INT);
        while TcpStream::connect(server).is_ok() {
            thread::yield_now();
        }
        assert!(child.try_wait().unwrap().is_none(), "{name}: the session goes on");
        send(&child, Signal::INT);
        let status = child.wait().unwrap();
        assert!(status.success(), "{name}: {status}");
        assert!(begun.elapsed() < Duration::from_secs(9), "{name} took its time");
        let mut rest = Vec::new();
        let _ = idle.read_to_end(&mut rest);
    }
}
