//! What a subscriber of `tracing` sees: spans stay with their greenlets.

#![cfg(feature = "tracing")]

use std::{
    cell::{Cell, RefCell},
    fmt::{Debug, Write},
    io,
    os::fd::AsFd,
    sync::Once,
    time::Duration,
};

use greenloop::{Builder, Deadline, sleep, spawn, testing, yield_now};
use tracing::{Event, Subscriber, field::Field, info, info_span, subscriber::set_global_default};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

const HOUR: Duration = Duration::from_secs(3600);

thread_local! {
    /// What was seen on this thread, while a test wants to know.
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    /// What the subscriber does first.
    static BEFORE: Cell<fn()> = const { Cell::new(|| ()) };
}

/// Has each thread keep its events, as `message [innermost span, ..., outermost]`.
///
/// One subscriber for the process: those that are set for a thread share a cache of who is
/// interested, in which tests that run side by side find one another's.
struct Seen;

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, "{value:?}").unwrap(),
            "error" => write!(self.0, ": {value:?}").unwrap(),
            _ => {}
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        BEFORE.get()();
        let mut text = Text(String::new());
        event.record(&mut text);
        let scope = context.event_scope(event).into_iter().flatten();
        let names: Vec<_> = scope.map(|span| span.name()).collect();
        let line = format!("{} [{}]", text.0, names.join(", "));
        SEEN.with_borrow_mut(|seen| seen.iter_mut().for_each(|seen| seen.push(line.clone())));
    }
}

/// What is seen while `f` runs.
fn seen_while(f: impl FnOnce()) -> Vec<String> {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| set_global_default(Registry::default().with(Seen)).unwrap());
    SEEN.set(Some(Vec::new()));
    f();
    SEEN.take().unwrap()
}

/// What is seen of `f`, which runs as main; without what the crate itself says, unless `all`.
fn seen_of(all: bool, f: impl FnOnce()) -> Vec<String> {
    let mut seen = seen_while(|| testing::run(f));
    let own = ["spawned", "ended", "killed", "unhandled"];
    seen.retain(|event| all || !own.iter().any(|own| event.starts_with(own)));
    seen
}

#[test]
fn events_carry_the_span_of_their_greenlet_across_suspensions() {
    let seen = seen_of(false, || {
        info!("in main");
        let g = spawn(|| {
            info!("before");
            sleep(HOUR);
            info!("after");
        });
        yield_now();
        info!("main again");
        g.join().unwrap();
        info!("main at last");
    });
    let main = "[greenlet]";
    // The span of a greenlet is inside the one in which it was spawned.
    let inner = "[greenlet, greenlet]";
    let expected = [
        format!("in main {main}"),
        format!("before {inner}"),
        format!("main again {main}"),
        format!("after {inner}"),
        format!("main at last {main}"),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_span_that_a_greenlet_has_entered_is_not_entered_for_others() {
    let seen = seen_of(false, || {
        let worker = |name: &'static str| {
            spawn(move || {
                let outer = info_span!("outer").entered();
                for _ in 0..3 {
                    let _inner = info_span!("inner").entered();
                    info!("{name} works");
                    yield_now();
                }
                drop(outer);
                yield_now();
                info!("{name} is done");
            })
        };
        let both = [worker("a"), worker("b")];
        for _ in 0..2 {
            yield_now();
            info!("main");
        }
        both.into_iter().for_each(|worker| worker.join().unwrap());
    });
    for event in &seen {
        let spans = match event.split_once(" [").unwrap().0 {
            "main" => "greenlet]",
            text if text.ends_with("works") => "inner, outer, greenlet, greenlet]",
            _ => "greenlet, greenlet]",
        };
        assert!(event.ends_with(&format!("[{spans}")), "{seen:#?}");
    }
    assert_eq!(seen.len(), 10, "{seen:#?}");
}

/// Entered twice, left in another order than entered, left by an unwind: no trace of it elsewhere.
#[test]
fn what_a_greenlet_leaves_entered_goes_with_it() {
    let seen = seen_of(false, || {
        let twice = spawn(|| {
            let span = info_span!("twice");
            let first = span.clone().entered();
            let second = span.clone().entered();
            sleep(HOUR);
            info!("entered twice");
            drop(first);
            sleep(HOUR);
            info!("entered once");
            drop(second);
            std::mem::forget(info_span!("forgotten").entered());
        });
        let panics = spawn(|| {
            let _span = info_span!("panics").entered();
            sleep(HOUR);
            panic!("on purpose");
        });
        let killed = spawn(|| {
            let _span = info_span!("killed").entered();
            sleep(HOUR);
        });
        yield_now();
        killed.kill();
        assert!(killed.join().is_err());
        info!("main");
        assert!(panics.join().is_err());
        info!("main");
        twice.join().unwrap();
        info!("main");
    });
    let expected = [
        "main [greenlet]",
        "main [greenlet]",
        "entered twice [twice, greenlet, greenlet]",
        "entered once [twice, greenlet, greenlet]",
        "main [greenlet]",
    ];
    let mut seen_sorted = seen.clone();
    let mut expected_sorted: Vec<_> = expected.map(str::to_owned).into();
    seen_sorted.sort();
    expected_sorted.sort();
    assert_eq!(seen_sorted, expected_sorted, "{seen:#?}");
}

#[test]
fn spawn_end_kill_and_what_nobody_handled_are_events() {
    let seen = seen_of(true, || {
        drop(spawn(|| panic!("on purpose")));
        let g = Builder::new().name("sleeper").spawn(|| sleep(HOUR)).unwrap();
        yield_now();
        g.kill();
        assert!(g.join().is_err());
    });
    let count = |text: &str| seen.iter().filter(|event| event.starts_with(text)).count();
    assert_eq!(count("spawned"), 3, "{seen:#?}");
    assert_eq!(count("ended"), 3, "{seen:#?}");
    assert_eq!(count("killed"), 1, "{seen:#?}");
    assert_eq!(count("unhandled failure: panicked"), 1, "{seen:#?}");
}

/// It would leave a greenlet that never runs behind, or end the process.
#[test]
fn a_subscriber_that_panics_stops_nobody_from_being_spawned_and_killed() {
    BEFORE.set(|| panic!("a subscriber, on purpose"));
    let mut killed = false;
    let seen = seen_while(|| {
        testing::run(|| {
            let sleeper = spawn(|| sleep(HOUR));
            yield_now();
            sleeper.kill();
            spawn(|| sleep(HOUR)); // Killed by the end of the run.
            yield_now();
            killed = sleeper.join().unwrap_err().is_killed();
        });
    });
    assert!(seen.is_empty(), "{seen:?}");
    assert!(killed);
}

/// Who is killed, and what is in the midst of killing, relies on it.
#[test]
fn a_subscriber_may_not_park() {
    BEFORE.set(|| {
        let error = greenloop::wait_readable(io::stdin().as_fd(), Deadline::ZERO).unwrap_err();
        SEEN.with_borrow_mut(|seen| seen.iter_mut().for_each(|seen| seen.push(error.to_string())));
    });
    let mut said = seen_while(|| testing::run(|| spawn(|| ()).kill()));
    said.retain(|event| !event.ends_with(']'));
    assert!(said.len() >= 3, "{said:?}");
    assert!(said.iter().all(|error| error.starts_with("blocking call")), "{said:#?}");
}

#[test]
fn a_run_leaves_the_spans_of_its_thread_as_they_were() {
    let mut seen = seen_while(|| {
        let _outside = info_span!("outside").entered();
        testing::run(|| {
            let _inside = info_span!("inside").entered();
            yield_now();
            info!("inside");
        });
        info!("outside");
    });
    seen.retain(|event| event.contains("side ["));
    assert_eq!(seen, ["inside [inside, greenlet, outside]", "outside [outside]"]);
}
