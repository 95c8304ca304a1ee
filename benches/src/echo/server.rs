//! An echo server as a child process.

use std::env;
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::SERVER_CORE;
use crate::os;

/// How long a server that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A server that is running.
#[derive(Debug)]
pub struct Server {
    /// The server, or the program that watches it.
    child: Child,
    /// What it prints after its address.
    stdout: BufReader<ChildStdout>,
    /// Where it listens.
    address: SocketAddr,
}

impl Server {
    /// Starts `program`, one of `echo_bare` and its like, on [`SERVER_CORE`], after `wrapper` on
    /// the command line if that is not empty.
    ///
    /// # Errors
    /// When it cannot be started or does not print its address.
    pub fn start(program: &str, wrapper: &[String]) -> io::Result<Self> {
        let path = beside_this_program(program)?;
        let mut command = match wrapper {
            [] => Command::new(&path),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&path);
                command
            }
        };
        let mut child = command
            .args(["127.0.0.1:0", "--core", &SERVER_CORE.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let Ok(address) = line.trim().parse() else {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other(format!("{program} printed no address but {line:?}")));
        };
        Ok(Self { child, stdout, address })
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the processor time it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu(&self) -> io::Result<Duration> {
        // What follows the last reply (marking the socket empty, going to sleep) belongs to it.
        thread::sleep(Duration::from_millis(1));
        os::process_cpu_of(self.child.id())
    }

    /// Tells it to end, waits until it has, and returns the processor time that it says it used.
    ///
    /// # Errors
    /// When it does not end, and is killed, or does not say.
    pub fn stop(mut self) -> io::Result<Duration> {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Err(io::Error::other("a server did not end when its input was closed"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        let nanoseconds = rest.trim().strip_prefix("cpu_ns ").and_then(|text| text.parse().ok());
        nanoseconds
            .map(Duration::from_nanos)
            .ok_or_else(|| io::Error::other(format!("a server ended with {rest:?}")))
    }
}

/// Finds another program of this package: beside this one, or, for a bench, one folder up.
fn beside_this_program(name: &str) -> io::Result<PathBuf> {
    let this = env::current_exe()?;
    this.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            let hint = "build it with `cargo build --release --package greenloop-benches --bins`";
            io::Error::new(io::ErrorKind::NotFound, format!("{name}: {hint}"))
        })
}
