//! A thousand blocking requests at once, by crates that know nothing of greenloop: on virtual
//! threads, and on OS threads.
//!
//! Run:    `cargo run --release -p greenloop-unmodified --example unmodified [REQUESTS [MS]]`
//! Poke:   with queries, too: `tests/services.sh cargo run …`, or set `GREENLOOP_POSTGRES_URL`
//! Prints:
//!
//! ```text
//! ureq: 1000 requests to http://127.0.0.1:39127/, which takes 500 ms for each
//!   on virtual threads, 1 OS thread(s): all within 792 ms, 38.2 MiB
//!   on OS threads, 1001 OS thread(s): all within 850 ms, 45.3 MiB
//! ```
//!
//! Each line is from a process of its own. The memory is the most that was resident (`VmHWM`), less
//! what was so before; stacks in the kernel, 16 KiB for each OS thread, are not in it.

use std::{
    env, fs,
    process::{Command, ExitCode},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use greenloop_unmodified::{OsThreads, Slow, threads};

greenloop::interpose!();

/// Queries of 300 ms each, if there is a database: it has a process for every one of them.
const QUERIES: usize = 200;

const VIRTUAL: &str = "virtual threads";
const REAL: &str = "OS threads";

type Work = Arc<dyn Fn(usize) + Send + Sync>;

fn main() -> ExitCode {
    if Slow::serve() {
        return ExitCode::SUCCESS;
    }
    let args: Vec<String> = env::args().skip(1).collect();
    if let [role, on, what, url, count] = &args[..]
        && role == "--measure"
    {
        let on = if on == VIRTUAL { VIRTUAL } else { REAL };
        measure(on, work(what, url.clone()), count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let number = |at: usize, usual| args.get(at).map_or(Ok(usual), |text| text.parse::<u32>());
    let (Ok(requests), Ok(ms)) = (number(0, 1000), number(1, 500)) else {
        eprintln!("usage: unmodified [REQUESTS [MS]]    MS is what the server takes for each");
        return ExitCode::from(2);
    };
    let server = Slow::start(Duration::from_millis(ms.into())).expect("a server");
    let url = server.url();
    println!("ureq: {requests} requests to {url}, which takes {ms} ms for each");
    let mut is_right = compare("ureq", url, requests as usize);
    match env::var("GREENLOOP_POSTGRES_URL") {
        Ok(url) => {
            println!("postgres: {QUERIES} queries to {url} that take 300 ms each");
            is_right &= compare("postgres", &url, QUERIES);
        }
        Err(_) => println!("postgres: no queries, for there is no GREENLOOP_POSTGRES_URL"),
    }
    if is_right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Measures in a process each, which prints what it finds.
fn compare(what: &str, url: &str, count: usize) -> bool {
    [VIRTUAL, REAL].iter().all(|on| {
        let mut process = Command::new(env::current_exe().expect("this program"));
        let status = process.args(["--measure", on, what, url, &count.to_string()]).status();
        status.is_ok_and(|status| status.success())
    })
}

/// What each thread does: blocking code, as its crates' documentation has it.
fn work(what: &str, url: String) -> Work {
    let agent = ureq::Agent::new_with_defaults();
    match what {
        "ureq" => Arc::new(move |index| {
            let mut answer = agent.get(format!("{url}{index}")).call().expect("an answer");
            let text = answer.body_mut().read_to_string().expect("a text");
            assert_eq!(text, format!("Hello from /{index}"));
        }),
        _ => Arc::new(move |index| {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).expect("a database");
            let number = i64::try_from(index).expect("a small number");
            let row = client.query_one("select $1::int8 from pg_sleep(0.3)", &[&number]);
            assert_eq!(row.expect("a row").get::<_, i64>(0), number);
        }),
    }
}

fn measure(on: &'static str, work: Work, count: usize) {
    let before = resident("VmRSS");
    let begun = Instant::now();
    let at_once = move || {
        let all: Vec<_> = (0..count).map(|index| start(on, &work, index)).collect();
        let mut all = all.into_iter();
        // Counted when the first has ended: most of the others are on their way.
        all.next().into_iter().for_each(|join| join());
        let os_threads = OsThreads::now().count();
        all.for_each(|join| join());
        os_threads
    };
    let os_threads = if on == REAL { at_once() } else { threads::run(at_once) };
    let (took, mib) = (begun.elapsed().as_millis(), (resident("VmHWM") - before) / 1024.0);
    println!("  on {on}, {os_threads} OS thread(s): all within {took} ms, {mib:.1} MiB");
}

/// The one line that differs. Returns what waits for its end.
fn start(on: &str, work: &Work, index: usize) -> Box<dyn FnOnce() + Send> {
    let work = Arc::clone(work);
    let work = move || work(index);
    if on == REAL {
        let thread = thread::spawn(work);
        Box::new(move || thread.join().expect("an end without a panic"))
    } else {
        let thread = threads::spawn(work);
        Box::new(move || thread.join().expect("an end without a panic"))
    }
}

/// A figure of this process, in KiB; see proc_pid_status(5).
fn resident(key: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    number.expect("a number of KiB")
}
