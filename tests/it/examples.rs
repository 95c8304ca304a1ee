//! Every example, driven by real clients: std's sockets on OS threads.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::support::Trace;
use greenloop::{ReactorHandle, RunError};

#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/echo_server.rs"]
mod echo_server;
#[cfg(feature = "hyper")]
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/fetch_three_ways.rs"]
mod fetch_three_ways;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/line_server.rs"]
mod line_server;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/parked.rs"]
mod parked;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/proxy.rs"]
mod proxy;
#[cfg(feature = "tokio")]
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/reqwest_in_a_greenlet.rs"]
mod reqwest_in_a_greenlet;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/retry_with_timeout.rs"]
mod retry_with_timeout;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/three_worlds.rs"]
mod three_worlds;

/// How long a client waits before it says that the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a reactor of its own, on a thread of its own.
struct Server {
    address: SocketAddr,
    reactor: ReactorHandle,
    thread: thread::JoinHandle<Result<(), RunError>>,
}

impl Server {
    fn start(serve: impl FnOnce(greenloop::net::TcpListener) + Send + 'static) -> Server {
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            greenloop::try_run(|| {
                let listener = greenloop::net::TcpListener::bind("127.0.0.1:0").unwrap();
                tell.send((listener.local_addr().unwrap(), greenloop::reactor().handle())).unwrap();
                serve(listener);
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

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

/// The built example, or none: `cargo test --test it` alone does not build them.
fn built(name: &str) -> Option<Command> {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.parent()?.parent()?.join("examples").join(name);
    if !path.exists() {
        // Not by `println!`, which libtest captures: a skipped test is to be seen.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: {} is not built; `cargo test` without `--test` builds it",
            path.display()
        );
        return None;
    }
    Some(Command::new(path))
}

fn output(name: &str, args: &[&str]) -> Option<Output> {
    Some(built(name)?.args(args).output().unwrap())
}

#[test]
fn echo_server_echoes_many_clients_at_once_and_an_idle_one_stops_nobody() {
    let server = Server::start(|listener| echo_server::serve(listener));
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
    let server = Server::start(|listener| echo_server::serve(listener));
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
    let server = Server::start(move |listener| proxy::serve(listener, &address));
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
    let server = Server::start(move |listener| proxy::serve(listener, &address));
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
    let server = Server::start(move |listener| proxy::serve(listener, &refusing));
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
    let server = Server::start(|listener| line_server::serve(listener));
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
    let server = Server::start(|listener| line_server::serve(listener));
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
    let server = Server::start(|listener| line_server::serve(listener));
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
fn three_worlds_wait_for_one_another_at_the_same_time() {
    let delay = Duration::from_millis(100);
    let took = greenloop::run(|| three_worlds::tour(delay)).unwrap();
    assert!(took >= delay && took < 8 * delay, "8 answers of {delay:?} took {took:?}");
}

#[test]
fn slow_three_worlds_ends_by_itself_and_says_what_happened() {
    let Some(output) = output("three_worlds", &[]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    for expected in [
        "straight-line code: apples, pears and plums cost 16",
        "callback code: figs, dates and limes cost 14",
        "async code: kiwis and grapes cost 11",
        "8 answers of 300 ms each came within",
        "callback code is told to withdraw the question about melons",
        "straight-line code: the time limit has elapsed",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn retry_with_timeout_lets_an_hour_pass_and_says_when_it_did_what() {
    let (lines, begun) = (Trace::default(), Instant::now());
    greenloop::testing::run(|| retry_with_timeout::run(|line| lines.add(line))).unwrap();
    let lines = lines.taken();
    assert_eq!(lines.len(), 10, "{lines:#?}");
    assert_eq!(lines[0], "     5 s  attempt 1: the time limit has elapsed; again in 10 s");
    assert_eq!(lines[8..], ["  2592 s  attempt 9: the answer is 42", "  3600 s  an hour is over"]);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn retry_with_timeout_prints_what_it_says() {
    let Some(output) = output("retry_with_timeout", &[]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.ends_with("  3600 s  an hour is over\n"), "{text}");
}

#[cfg(feature = "hyper")]
#[test]
fn fetch_three_ways_gets_all_answers_at_once_in_every_style() {
    let delay = Duration::from_millis(50);
    let begun = Instant::now();
    let bytes = greenloop::run(|| {
        let url = format!("http://{}/", fetch_three_ways::serve(delay)?).parse()?;
        fetch_three_ways::tour(&vec![url; 100])
    });
    let took = begun.elapsed();
    assert_eq!(bytes.unwrap(), [1700; 3]);
    assert!(3 * delay <= took && took < 100 * delay, "300 answers of {delay:?} took {took:?}");
}

/// The same over the network's own words: names, and a server that is not there.
#[cfg(feature = "hyper")]
#[test]
fn fetch_three_ways_says_which_fetch_failed() {
    let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://localhost:{}/", refusing.port()).parse().unwrap();
    let failure = greenloop::run(|| fetch_three_ways::tour(&[url])).unwrap_err();
    assert!(failure.to_string().to_lowercase().contains("refused"), "{failure}");
}

#[cfg(feature = "tokio")]
#[test]
fn reqwest_in_a_greenlet_gets_all_answers_at_once() {
    let delay = Duration::from_millis(50);
    let begun = Instant::now();
    let texts = greenloop::run(|| {
        let address = reqwest_in_a_greenlet::serve(delay)?;
        let urls: Vec<_> = (0..20).map(|n| format!("http://{address}/{n}")).collect();
        reqwest_in_a_greenlet::fetch_all(&urls)
    });
    let took = begun.elapsed();
    assert_eq!(texts.unwrap(), (0..20).map(|n| format!("Hello from /{n}")).collect::<Vec<_>>());
    assert!(delay <= took && took < 20 * delay, "20 answers of {delay:?} took {took:?}");
}

/// The number behind a key of the one line of JSON.
fn figure(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).expect(key);
    rest.split([',', '}']).next().unwrap().parse().expect(key)
}

#[test]
fn parked_measures_and_frees_every_greenlet() {
    let json = greenloop::run(|| parked::measure(2000)).unwrap();
    assert_eq!(figure(&json, "greenlets"), 2000.0);
    assert!(figure(&json, "finish_ns_each") > 0.0, "{json}");
}

#[test]
fn parked_prints_one_object_of_json_last() {
    let Some(output) = output("parked", &["10000"]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let json = text.lines().last().unwrap();
    assert!(json.starts_with('{') && json.ends_with('}'), "{json}");
    assert_eq!(figure(json, "greenlets"), 10_000.0);
    for key in ["spawn_ns_each", "finish_ns_each", "page_tables_kib_each", "mappings"] {
        assert!(figure(json, key) > 0.0, "{json}");
    }
    // One page and the little that is not on the stack. A debug build has larger frames, and the
    // lint that walks them.
    let resident = figure(json, "rss_kib_each");
    assert!(resident > 3.9 && (resident < 4.4 || cfg!(debug_assertions)), "{json}");
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

#[test]
fn examples_say_how_to_use_them_when_arguments_are_wrong() {
    let begun = Instant::now();
    let wrong: [(&str, &[&str]); 9] = [
        ("echo_server", &[]),
        ("echo_server", &["here"]),
        ("line_server", &[]),
        ("line_server", &["127.0.0.1:0", "2"]),
        ("proxy", &["127.0.0.1:0"]),
        ("proxy", &["127.0.0.1:0", "there"]),
        ("proxy", &["here", "127.0.0.1:80"]),
        ("parked", &[]),
        ("parked", &["many"]),
    ];
    for (name, args) in wrong {
        let Some(output) = output(name, args) else { return };
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(&format!("usage: {name} ")), "{name} {args:?}: {text}");
        assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {text}");
    }
    assert!(begun.elapsed() < PATIENCE);
}
