//! A thousand queries at once: by `postgres` on virtual threads and on OS threads, and by
//! `tokio-postgres`.
//!
//! Run:    `tests/services.sh cargo run --release -p greenloop-unmodified --example queries`
//! Poke:   `… --example queries CLIENTS ROUNDS`, 1000 and 5 unless you say otherwise
//! Prints:
//!
//! ```text
//! select 1, by 1000 clients at once, each with a connection of its own: medians of 5 rounds
//!                      connected    asked      CPU for each     memory
//!   virtual threads       2710 ms    131 ms       44.7 us       21.1 MiB
//!   tokio-postgres        2684 ms    127 ms       41.2 us        9.3 MiB
//!   OS threads            2702 ms    139 ms       61.3 us       54.0 MiB
//! virtual threads / tokio-postgres: asked 1.031, CPU 1.085, memory 2.269
//! virtual threads / OS threads: asked 0.942, CPU 0.729, memory 0.391
//! ```
//!
//! Each measurement is a process of its own, and the three take turns. All connect, and wait for
//! one another; then each asks ten times, and all wait for one another after each. What is asked is
//! a query as one writes it: it is prepared and then executed, two round trips. The server's part
//! is in the times and not in the processor time, which is all of this process's for those queries.
//! The memory is the most that was resident (`VmHWM`), less what was so before; stacks in the
//! kernel, 16 KiB for each OS thread, are not in it.

use std::{
    env, fs, io,
    process::{Command, ExitCode, Stdio},
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use greenloop_unmodified::threads;
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

greenloop::interpose!();

const URL: &str = "GREENLOOP_POSTGRES_URL";

/// How often each client asks.
const TIMES: u32 = 10;

const WAYS: [&str; 3] = ["virtual threads", "tokio-postgres", "OS threads"];

/// What one process has measured.
#[derive(Clone, Copy)]
struct Figures {
    connected_ms: f64,
    /// For one query of each client.
    asked_ms: f64,
    /// For one query.
    cpu_us: f64,
    memory_mib: f64,
}

impl Figures {
    const NAMES: [&str; 3] = ["asked", "CPU", "memory"];

    fn compared(self) -> [f64; 3] {
        [self.asked_ms, self.cpu_us, self.memory_mib]
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let Ok(url) = env::var(URL) else {
        eprintln!("queries: there is no {URL}: `tests/services.sh cargo run …` sets it");
        return ExitCode::FAILURE;
    };
    // A client by `postgres` has five descriptors: its socket, and those of a tokio runtime.
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("it may be raised");
    if let [role, way, clients] = &args[..]
        && role == "--measure"
    {
        let Figures { connected_ms, asked_ms, cpu_us, memory_mib } =
            measure(way, url, clients.parse().expect("a number"));
        println!("{connected_ms} {asked_ms} {cpu_us} {memory_mib}");
        return ExitCode::SUCCESS;
    }
    let number = |at: usize, usual| args.get(at).map_or(Ok(usual), |text| text.parse::<usize>());
    let (Ok(clients @ 1..), Ok(rounds @ 1..)) = (number(0, 1000), number(1, 5)) else {
        eprintln!("usage: queries [CLIENTS [ROUNDS]]");
        return ExitCode::from(2);
    };
    match compare(clients, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("queries: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Has each measured in turn, and prints medians and ratios, which are taken within a round.
fn compare(clients: usize, rounds: usize) -> io::Result<()> {
    let mut all: [Vec<Figures>; 3] = Default::default();
    for round in 0..rounds {
        for turn in 0..WAYS.len() {
            let way = (round + turn) % WAYS.len();
            all[way].push(measured_apart(WAYS[way], clients)?);
        }
    }
    println!(
        "select 1, by {clients} clients at once, each with a connection of its own: \
         medians of {rounds} rounds"
    );
    println!("{:20} connected    asked      CPU for each     memory", "");
    for (way, figures) in WAYS.iter().zip(&all) {
        let of = |figure: fn(&Figures) -> f64| median(figures.iter().map(figure).collect());
        println!(
            "  {way:18} {:8.0} ms {:6.0} ms {:10.1} us {:10.1} MiB",
            of(|f| f.connected_ms),
            of(|f| f.asked_ms),
            of(|f| f.cpu_us),
            of(|f| f.memory_mib),
        );
    }
    for peer in 1..WAYS.len() {
        let ratios = std::array::from_fn::<_, 3, _>(|figure| {
            let both = all[0].iter().zip(&all[peer]);
            let ratios = both.map(|(a, b)| a.compared()[figure] / b.compared()[figure]);
            format!("{} {:.3}", Figures::NAMES[figure], median(ratios.collect()))
        });
        println!("{} / {}: {}", WAYS[0], WAYS[peer], ratios.join(", "));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let count = values.len();
    f64::midpoint(values[(count - 1) / 2], values[count / 2])
}

/// Measures in a process of its own.
fn measured_apart(way: &str, clients: usize) -> io::Result<Figures> {
    let mut process = Command::new(env::current_exe()?);
    process.args(["--measure", way, &clients.to_string()]).stderr(Stdio::inherit());
    let output = process.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    match numbers.as_deref() {
        Ok(&[connected_ms, asked_ms, cpu_us, memory_mib]) if output.status.success() => {
            Ok(Figures { connected_ms, asked_ms, cpu_us, memory_mib })
        }
        _ => Err(io::Error::other(format!("{way}: {} {text}", output.status))),
    }
}

/// What is measured between the steps that all take together.
struct Watch {
    before_kib: f64,
    begun: Instant,
    connected: Option<(Instant, Duration)>,
    clients: usize,
}

impl Watch {
    fn begin(clients: usize) -> Watch {
        Watch { before_kib: resident("VmRSS"), begun: Instant::now(), connected: None, clients }
    }

    fn all_are_connected(&mut self) {
        self.connected = Some((Instant::now(), cpu()));
    }

    fn all_have_asked(self) -> Figures {
        let (since, cpu_before) = self.connected.expect("they have connected");
        let asked = since.elapsed() / TIMES;
        let queries = self.clients as f64 * f64::from(TIMES);
        Figures {
            connected_ms: (since - self.begun).as_secs_f64() * 1e3,
            asked_ms: asked.as_secs_f64() * 1e3,
            cpu_us: (cpu() - cpu_before).as_secs_f64() * 1e6 / queries,
            memory_mib: (resident("VmHWM") - self.before_kib) / 1024.0,
        }
    }
}

fn measure(way: &str, url: String, clients: usize) -> Figures {
    match way {
        "virtual threads" => {
            assert!(threads::are_virtual(), "no virtual threads here");
            threads::run(move || {
                at_once(url, clients, |work| {
                    let thread = threads::spawn(work);
                    Box::new(move || thread.join().expect("an end without a panic"))
                })
            })
        }
        "OS threads" => at_once(url, clients, |work| {
            let thread = std::thread::spawn(work);
            Box::new(move || thread.join().expect("an end without a panic"))
        }),
        _ => as_tasks(&url, clients),
    }
}

type Work = Box<dyn FnOnce() + Send>;

/// Blocking code, on threads that `start` starts, and whose end is waited for by what it returns.
fn at_once(url: String, clients: usize, start: fn(Work) -> Work) -> Figures {
    let mut watch = Watch::begin(clients);
    let meet = Arc::new(Barrier::new(clients + 1));
    let ask = move |url: &str, meet: &Barrier| {
        let mut client = postgres::Client::connect(url, postgres::NoTls).expect("a database");
        meet.wait();
        for _ in 0..TIMES {
            let row = client.query_one("select 1", &[]).expect("a row");
            assert_eq!(row.get::<_, i32>(0), 1);
            meet.wait();
        }
    };
    let url = Arc::new(url);
    let all: Vec<Work> = (0..clients)
        .map(|_| {
            let (url, meet) = (Arc::clone(&url), Arc::clone(&meet));
            start(Box::new(move || ask(&url, &meet)))
        })
        .collect();
    meet.wait();
    watch.all_are_connected();
    for _ in 0..TIMES {
        meet.wait();
    }
    let figures = watch.all_have_asked();
    all.into_iter().for_each(|join| join());
    figures
}

/// The same by futures, on one OS thread.
fn as_tasks(url: &str, clients: usize) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let mut watch = Watch::begin(clients);
        let meet = Arc::new(tokio::sync::Barrier::new(clients + 1));
        let ask = async |url: String, meet: Arc<tokio::sync::Barrier>| {
            let connected = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
            let (client, connection) = connected.expect("a database");
            let connection = tokio::spawn(connection);
            meet.wait().await;
            for _ in 0..TIMES {
                let row = client.query_one("select 1", &[]).await.expect("a row");
                assert_eq!(row.get::<_, i32>(0), 1);
                meet.wait().await;
            }
            drop(client);
            connection.await.expect("no panic").expect("an orderly end");
        };
        let all: Vec<_> =
            (0..clients).map(|_| tokio::spawn(ask(url.to_owned(), Arc::clone(&meet)))).collect();
        meet.wait().await;
        watch.all_are_connected();
        for _ in 0..TIMES {
            meet.wait().await;
        }
        let figures = watch.all_have_asked();
        for task in all {
            task.await.expect("an end without a panic");
        }
        figures
    })
}

/// The processor time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A figure of this process, in KiB; see proc_pid_status(5).
fn resident(key: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    number.expect("a number of KiB")
}
