//! Runs tests, each in a process of its own: so its OS threads can be counted, and one that crashes
//! or hangs is one that failed.
//!
//! The arguments are those of libtest that one types: parts of names. `--exact NAME` runs one test
//! in this process, for a debugger.

use std::{
    env,
    process::{Child, Command, ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use crate::{Slow, threads};

/// How long a test may take before it is one that hangs. The slowest takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the slow server takes for an answer.
const DELAY: Duration = Duration::from_millis(300);

/// The exit status of a test that was not run.
const SKIPPED: u8 = 77;

/// A test: what it is called, and what it runs on the first virtual thread.
#[derive(Debug)]
pub struct Test {
    name: &'static str,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Alone(fn()),
    At(&'static str, fn(&str)),
    Slow(fn(&str, Duration)),
    Without(&'static str),
}

impl Test {
    /// One that needs nobody.
    pub const fn alone(name: &'static str, body: fn()) -> Self {
        Test { name, body: Body::Alone(body) }
    }

    /// One that needs the server whose URL is in an environment variable.
    pub const fn at(variable: &'static str, name: &'static str, body: fn(&str)) -> Self {
        Test { name, body: Body::At(variable, body) }
    }

    /// One that needs a server that answers after a while.
    pub const fn slow(name: &'static str, body: fn(&str, Duration)) -> Self {
        Test { name, body: Body::Slow(body) }
    }

    /// One that could not be built, for want of a library.
    pub const fn without(library: &'static str, name: &'static str) -> Self {
        Test { name, body: Body::Without(library) }
    }

    /// Runs it in this process.
    fn run(&self) -> ExitCode {
        match self.body {
            Body::Alone(body) => threads::run(body),
            Body::At(variable, body) => match env::var(variable) {
                Ok(url) => threads::run(move || body(&url)),
                Err(_) => return ExitCode::from(SKIPPED),
            },
            Body::Slow(body) => {
                let server = Slow::start(DELAY).unwrap();
                let url = server.url().to_owned();
                threads::run(move || body(&url, DELAY));
            }
            Body::Without(_) => return ExitCode::from(SKIPPED),
        }
        ExitCode::SUCCESS
    }

    /// What it is missing, if it was skipped.
    fn need(&self) -> &'static str {
        match self.body {
            Body::At(need, _) | Body::Without(need) => need,
            Body::Alone(_) | Body::Slow(_) => "nothing",
        }
    }
}

/// The `main` of a test binary without libtest's.
pub fn main(tests: &[Test]) -> ExitCode {
    if Slow::serve() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<String> = env::args().skip(1).collect();
    if let [exact, name] = &args[..]
        && exact == "--exact"
    {
        let test = tests.iter().find(|test| test.name == name).expect("a test of this name");
        return test.run();
    }
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted =
        |test: &&Test| wanted.is_empty() || wanted.iter().any(|part| test.name.contains(*part));
    let (mut ran, mut failed, mut skipped) = (0, Vec::new(), Vec::new());
    for test in tests.iter().filter(is_wanted) {
        println!("test {} ...", test.name);
        let begun = Instant::now();
        let verdict = outcome(test);
        let ms = begun.elapsed().as_millis();
        match verdict {
            Outcome::Passed => println!("    ok, in {ms} ms"),
            Outcome::Skipped => {
                println!("    SKIPPED: there is no {}", test.need());
                skipped.push(format!("{} ({})", test.name, test.need()));
                continue;
            }
            Outcome::Failed(how) => {
                println!("    FAILED: {how}");
                failed.push(test.name);
            }
        }
        ran += 1;
    }
    let kind = if threads::are_virtual() { "virtual threads" } else { "OS THREADS" };
    println!("\n{ran} tests ran on {kind}, {} failed: {}", failed.len(), failed.join(", "));
    if !skipped.is_empty() {
        println!("SKIPPED, for want of a server or a library: {}", skipped.join(", "));
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

enum Outcome {
    Passed,
    Skipped,
    Failed(String),
}

fn outcome(test: &Test) -> Outcome {
    let this = env::current_exe().unwrap();
    let child = Command::new(this).args(["--exact", test.name]).spawn().unwrap();
    match end_of(child) {
        None => Outcome::Failed(format!("it does not end within {PATIENCE:?}")),
        Some(status) if status.success() => Outcome::Passed,
        Some(status) if status.code() == Some(SKIPPED.into()) => Outcome::Skipped,
        Some(status) => Outcome::Failed(status.to_string()),
    }
}

/// Waits for a process, and kills it when it takes too long.
fn end_of(mut child: Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
