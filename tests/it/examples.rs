//! Every example, driven; the servers are in `servers`.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use greenloop::thread;

use crate::support::Trace;

#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/cpu_bound_starves_the_hub.rs"]
mod cpu_bound_starves_the_hub;
#[cfg(feature = "signal")]
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/echo_server.rs"]
mod echo_server;
#[cfg(feature = "hyper")]
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/fetch_three_ways.rs"]
mod fetch_three_ways;
#[cfg(feature = "signal")]
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/line_server.rs"]
mod line_server;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/parked.rs"]
mod parked;
#[cfg(feature = "signal")]
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
#[cfg(feature = "signal")]
mod servers;
#[expect(dead_code, reason = "its main function is for the command line")]
#[path = "../../examples/three_worlds.rs"]
mod three_worlds;

/// How long a client waits before it says that the server hangs.
const PATIENCE: Duration = Duration::from_secs(20);

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
    let refusing = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
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

#[test]
fn slow_cpu_bound_starves_the_hub_until_it_lets_go() {
    use cpu_bound_starves_the_hub::{WAYS, beats_while};
    let work = Duration::from_millis(300);
    let beats = greenloop::run(|| WAYS.map(|(_, way)| beats_while(way, work).unwrap()));
    assert_eq!(beats[0], 0, "somebody ran while a greenlet just computed");
    assert!(beats[1] > 0 && beats[2] > 0, "{beats:?}");
}

/// On a busy machine it has to compute for longer until it has had the thread for long enough.
#[test]
fn slow_cpu_bound_starves_the_hub_and_the_watchdog_says_who() {
    for seconds in ["1.5", "6", "30"] {
        let Some(output) = output("cpu_bound_starves_the_hub", &[seconds]) else { return };
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.lines().count() == 3, "{text}");
        let starved = text.lines().next().unwrap();
        assert!(
            starved.starts_with("it just computes: ") && starved.ends_with(" 0 times"),
            "{text}"
        );
        let said = String::from_utf8(output.stderr).unwrap();
        if said.is_empty() {
            continue;
        }
        let place = "examples/cpu_bound_starves_the_hub.rs:";
        for part in ["greenlet #", "'cruncher'", "has not let go", "yield_if_due", place] {
            assert!(said.contains(part), "no {part:?} in {said}");
        }
        assert_eq!(said.matches("has not let go").count(), 1, "of three ways, one: {said}");
        return;
    }
    panic!("the watchdog said nothing");
}

/// The number behind a key of the one line of JSON.
fn figure(json: &str, key: &str) -> f64 {
    let (_, rest) = json.split_once(&format!("\"{key}\":")).expect(key);
    rest.split([',', '}']).next().unwrap().parse().expect(key)
}

#[test]
fn parked_measures_and_frees_every_greenlet() {
    let json = greenloop::run(|| parked::measure(parked::Kind::Greenlets, 2000)).unwrap();
    assert_eq!(figure(&json, "greenlets"), 2000.0);
    assert!(figure(&json, "finish_ns_each") > 0.0, "{json}");
}

#[test]
fn parked_measures_and_frees_every_virtual_thread() {
    let measured = greenloop::run(|| parked::measure(parked::Kind::Threads, 2000));
    if thread::support() != thread::Support::Virtual {
        assert_eq!(measured.unwrap_err().to_string(), thread::support().to_string());
        return;
    }
    let json = measured.unwrap();
    assert_eq!(figure(&json, "threads"), 2000.0);
    assert!(figure(&json, "finish_ns_each") > 0.0, "{json}");
}

#[test]
fn parked_prints_one_object_of_json_last() {
    let resident = parked_prints("greenlets", &["10000"]);
    // One page and the little that is not on the stack. A debug build has larger frames, and the
    // lint that walks them.
    let Some((json, resident)) = resident else { return };
    assert!(resident > 3.9 && (resident < 4.4 || cfg!(debug_assertions)), "{json}");
}

#[test]
fn parked_says_that_a_virtual_thread_costs_a_page_its_thread_locals_and_little_else() {
    if thread::support() != thread::Support::Virtual {
        return;
    }
    let Some((json, resident)) = parked_prints("threads", &["10000", "threads"]) else { return };
    let tls = figure(&json, "static_tls_kib");
    assert!(tls > 2.0 && resident > 4.0 + tls / 2.0, "{json}");
    assert!(resident <= 4.0 + tls + 0.6 || cfg!(debug_assertions), "{json}");
}

/// Runs the example, looks at all that it prints, and returns the line of JSON and what was
/// resident for each of them, in KiB.
fn parked_prints(what: &str, args: &[&str]) -> Option<(String, f64)> {
    let output = output("parked", args)?;
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let json = text.lines().last().unwrap();
    assert!(json.starts_with('{') && json.ends_with('}'), "{json}");
    assert_eq!(figure(json, what), 10_000.0);
    for key in ["spawn_ns_each", "finish_ns_each", "page_tables_kib_each", "mappings"] {
        assert!(figure(json, key) > 0.0, "{json}");
    }
    Some((json.to_owned(), figure(json, "rss_kib_each")))
}

#[test]
fn examples_say_how_to_use_them_when_arguments_are_wrong() {
    let begun = Instant::now();
    let wrong: [(&str, &[&str]); 11] = [
        ("cpu_bound_starves_the_hub", &["long"]),
        ("parked", &[]),
        ("parked", &["many"]),
        ("parked", &["1", "many"]),
        ("echo_server", &[]),
        ("echo_server", &["here"]),
        ("line_server", &[]),
        ("line_server", &["127.0.0.1:0", "2"]),
        ("proxy", &["127.0.0.1:0"]),
        ("proxy", &["127.0.0.1:0", "there"]),
        ("proxy", &["here", "127.0.0.1:80"]),
    ];
    for (name, args) in wrong {
        let Some(output) = output(name, args) else { return };
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(&format!("usage: {name} ")), "{name} {args:?}: {text}");
        assert_eq!(output.status.code(), Some(2), "{name} {args:?}: {text}");
    }
    assert!(begun.elapsed() < PATIENCE);
}
