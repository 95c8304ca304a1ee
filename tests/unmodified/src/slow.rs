//! An HTTP server that takes its time, in a process of its own: its threads are none of the test's.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// A listener on a free port of the loopback, for a thousand clients at once: std's has 128 places,
/// and who finds none tries again a second later.
pub fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 4096).unwrap();
    listener
}

/// The first argument of a process that is such a server.
const ROLE: &str = "--slow-server";

/// A server that answers `GET /path` by `Hello from /path`, some time later; to `/silence` it says
/// nothing until the client goes.
#[derive(Debug)]
pub struct Slow {
    /// It ends with its standard input, whoever closes that.
    process: Child,
    url: String,
}

impl Slow {
    /// Starts it on a free port of the loopback. The binary's `main` must call [`Slow::serve`].
    pub fn start(delay: Duration) -> io::Result<Slow> {
        let mut process = Command::new(env::current_exe()?)
            .args([ROLE, &delay.as_millis().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        let output = process.stdout.as_mut().expect("it is a pipe");
        BufReader::new(output).read_line(&mut url)?;
        Ok(Slow { process, url: url.trim_end().to_owned() })
    }

    /// Where it is: `http://127.0.0.1:12345/`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// If this process was started to be a server, it is one until its input ends.
    pub fn serve() -> bool {
        let mut args = env::args().skip(1);
        if args.next().as_deref() != Some(ROLE) {
            return false;
        }
        let delay = args.next().and_then(|ms| ms.parse().ok()).expect("a number of milliseconds");
        let listener = listen();
        println!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let answers = move || answer(&stream, Duration::from_millis(delay));
                // A client may go at any time.
                thread::Builder::new().stack_size(64 * 1024).spawn(answers).unwrap();
            }
        });
        let _ = io::stdin().read_to_end(&mut Vec::new());
        true
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// One request after another, as long as the client wants.
fn answer(stream: &TcpStream, delay: Duration) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        let path = first.split(' ').nth(1).unwrap_or("?");
        if path == "/silence" {
            continue;
        }
        thread::sleep(delay);
        let text = format!("Hello from {path}");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        // In one piece: nothing waits for an acknowledgement.
        (&*stream).write_all(answer.as_bytes())?;
    }
    Ok(())
}
