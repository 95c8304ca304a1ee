//! Seeing inside: dumps, counters, and that looking changes nothing.

use std::{
    cell::Cell,
    io::{ErrorKind, pipe},
    os::fd::AsFd,
    panic::Location,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use greenloop::{
    Builder, GreenletState, Report, RunError, dump, reactor, run, sleep, spawn, spawn_later,
    sync::Event, testing, timeout, try_run, yield_now,
};

use crate::support::{Trace, assert_ends};

const HOUR: Duration = Duration::from_secs(3600);

/// The line of the tree that has `text`, with its indentation.
#[track_caller]
fn line_of<'a>(tree: &'a str, text: &str) -> &'a str {
    let found = tree.lines().find(|line| line.contains(text));
    found.unwrap_or_else(|| panic!("no {text:?} in\n{tree}"))
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[inline(never)]
fn where_the_sleeper_sleeps() {
    sleep(HOUR);
    std::hint::black_box(());
}

#[test]
fn a_dump_is_a_tree_of_who_spawned_whom() {
    testing::run(|| {
        let outer = Builder::new().name("outer").spawn(|| {
            Builder::new().name("inner").spawn(|| sleep(HOUR)).unwrap();
            sleep(HOUR);
        });
        let sibling = Builder::new().name("sibling").spawn(|| sleep(HOUR));
        yield_now();
        let report = dump();
        let id_of = |name| report.parked().iter().find(|g| g.name.as_deref() == Some(name));
        let (main, inner) = (id_of("main").unwrap(), id_of("inner").unwrap());
        assert_eq!(main.parent, None);
        assert_eq!(inner.parent, Some(outer.as_ref().unwrap().id()));
        assert_eq!(id_of("sibling").unwrap().parent, Some(main.id));
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        for (line, (indent, name)) in
            lines.iter().zip([(2, "main"), (4, "outer"), (6, "inner"), (4, "sibling")])
        {
            assert!(line.contains(&format!("'{name}'")), "{text}");
            assert_eq!(indent_of(line), indent, "{text}");
        }
        assert_eq!(lines.len(), 4, "{text}");
        drop((outer, sibling));
    });
}

#[test]
fn the_child_of_one_that_has_ended_is_a_root_that_names_it() {
    testing::run(|| {
        let parent = spawn(|| Builder::new().name("orphan").spawn(|| sleep(HOUR)).unwrap());
        let id = parent.id();
        parent.join().unwrap();
        yield_now();
        let report = dump();
        assert_eq!(report.parked()[1].parent, Some(id));
        assert_eq!(indent_of(line_of(&report.to_string(), "orphan")), 2, "{report}");
    });
}

#[test]
fn a_dump_says_what_each_does_and_since_when() {
    testing::run(|| {
        let event = Rc::new(Event::new());
        let waited = Rc::clone(&event);
        let waiter = Builder::new().name("waiter").spawn(move || waited.wait()).unwrap();
        yield_now();
        sleep(HOUR);
        let (line, fresh) = (line!(), Builder::new().name("fresh").spawn(|| ()));
        spawn_later(HOUR, || ());
        waiter.kill();
        let held = Builder::new().name("held").spawn(|| sleep(HOUR)).unwrap();
        let report = dump();
        let states: Vec<_> = report.parked().iter().map(|greenlet| greenlet.state).collect();
        use GreenletState::{Delayed, New, Ready, Running};
        assert_eq!(states, [Running, Ready, New, Delayed, New]);
        assert!(report.parked()[1].killed);
        let text = report.to_string();
        assert!(line_of(&text, "'waiter'").contains("(killed) is ready to run,"), "{text}");
        let birth = format!("spawned at {}:{line}:", file!());
        assert!(line_of(&text, "'fresh'").contains(&birth), "{text}");
        assert!(line_of(&text, "'main'").contains(" runs, "), "{text}");
        assert!(text.contains("waits for its delayed start"), "{text}");
        yield_now();
        sleep(HOUR / 2);
        let text = dump().to_string();
        let parked = "waits for a timer (sleep) since 1800.000 s";
        assert!(line_of(&text, "'held'").contains(parked), "{text}");
        drop((fresh, held));
    });
}

#[test]
fn a_dump_has_the_backtrace_of_each_that_is_parked_and_nothing_of_others() {
    testing::run(|| {
        Builder::new().name("sleeper").spawn(where_the_sleeper_sleeps).unwrap();
        spawn(|| ());
        yield_now();
        let report = dump();
        let sleeper = report.parked()[1].backtrace();
        assert!(sleeper.iter().any(|f| f.contains("where_the_sleeper_sleeps")), "{sleeper:#?}");
        let here = "a_dump_has_the_backtrace_of_each";
        assert!(!sleeper.iter().any(|frame| frame.contains(here)), "{sleeper:#?}");
        assert!(!sleeper.iter().any(|frame| frame.contains("corosensei")), "{sleeper:#?}");
        let main = report.parked()[0].backtrace();
        assert!(main[0].contains(here), "{main:#?}");
        let text = format!("{report:#}");
        assert!(text.contains("where_the_sleeper_sleeps"), "{text}");
        assert!(!report.to_string().contains("where_the_sleeper_sleeps"), "{report}");
    });
}

/// Modules whose names end as those of ours do.
mod my_hub {
    pub(super) mod dump {
        #[inline(never)]
        pub(in super::super) fn waits() {
            super::super::where_the_sleeper_sleeps();
            std::hint::black_box(());
        }
    }
}

#[test]
fn a_dump_leaves_no_frame_of_the_users_out_whatever_its_name() {
    testing::run(|| {
        spawn(my_hub::dump::waits);
        yield_now();
        let frames = dump().parked()[1].backtrace();
        assert!(frames.iter().any(|f| f.contains("where_the_sleeper_sleeps")), "{frames:#?}");
        assert!(frames.iter().any(|f| f.contains("my_hub::dump::waits")), "{frames:#?}");
    });
}

/// What is parked stays parked: its wait, its deadline, its timeout, its place among equals.
#[test]
fn looking_changes_nothing() {
    testing::run(|| {
        let trace = Trace::default();
        for n in 0..4 {
            let trace = trace.clone();
            spawn(move || {
                sleep(HOUR); // All at the same time: in the order of their coming.
                trace.add(format!("slept {n}"));
            });
        }
        let elapses = trace.clone();
        spawn(move || {
            let ended = timeout(2 * HOUR, || sleep(3 * HOUR));
            elapses.add(format!("timeout {:?}", ended.is_err()));
        });
        let event = Rc::new(Event::new());
        let (waited, woken) = (Rc::clone(&event), trace.clone());
        let waiter = spawn(move || {
            waited.wait();
            woken.add("woken");
        });
        let killed = spawn(|| sleep(HOUR));
        yield_now();
        for _ in 0..3 {
            assert_eq!(dump().parked().iter().filter(|g| !g.backtrace().is_empty()).count(), 8);
        }
        sleep(HOUR / 2);
        dump();
        event.set();
        yield_now();
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        waiter.join().unwrap();
        sleep(2 * HOUR);
        let slept: Vec<_> = (0..4).map(|n| format!("slept {n}")).collect();
        assert_eq!(
            trace.taken(),
            [vec!["woken".into()], slept, vec!["timeout true".into()]].concat()
        );
    });
}

/// Also one that is parked in a destructor, in the midst of an unwind.
#[test]
fn one_that_is_parked_in_an_unwind_can_be_looked_at() {
    testing::run(|| {
        struct Sleeps;
        impl Drop for Sleeps {
            fn drop(&mut self) {
                where_the_sleeper_sleeps();
            }
        }
        let dying = spawn(|| {
            let _sleeps = Sleeps;
            sleep(HOUR);
        });
        yield_now();
        dying.kill();
        yield_now();
        let frames = dump().parked()[1].backtrace();
        assert!(frames.iter().any(|f| f.contains("where_the_sleeper_sleeps")), "{frames:#?}");
        assert!(dying.join().unwrap_err().is_killed());
    });
}

#[test]
fn a_dump_from_a_destructor_during_a_panic_works() {
    testing::run(|| {
        struct Dumps(Rc<Cell<usize>>);
        impl Drop for Dumps {
            fn drop(&mut self) {
                self.0.set(dump().parked()[1].backtrace().len());
            }
        }
        spawn(|| sleep(HOUR));
        yield_now();
        let count = Rc::new(Cell::new(0));
        let dumps = Dumps(Rc::clone(&count));
        let ended = spawn(move || {
            let _dumps = dumps;
            panic!("on purpose");
        });
        assert!(ended.join().is_err());
        assert!(count.get() > 0);
    });
}

#[test]
fn a_dump_as_json_has_all_of_it() {
    testing::run(|| {
        let name = "quote \" backslash \\ line\n";
        Builder::new().name(name).spawn(where_the_sleeper_sleeps).unwrap();
        yield_now();
        sleep(Duration::from_millis(1500));
        let json: serde_json::Value = serde_json::from_str(&dump().to_json()).unwrap();
        let (main, sleeper) = (&json["greenlets"][0], &json["greenlets"][1]);
        assert_eq!(main["state"], "running");
        assert!(main["parent"].is_null());
        assert_eq!(sleeper["name"], name);
        assert_eq!(sleeper["parent"], main["id"]);
        assert_eq!(sleeper["state"], "parked");
        assert_eq!(sleeper["waits_on"], "a timer (sleep)");
        assert_eq!(sleeper["since_ns"], 1_500_000_000u64);
        assert_eq!(sleeper["killed"], false);
        assert!(sleeper["birth"].as_str().unwrap().starts_with(file!()));
        let frames = sleeper["backtrace"].as_array().unwrap();
        let has = |part| frames.iter().any(|frame| frame.as_str().unwrap().contains(part));
        assert!(has("where_the_sleeper_sleeps"), "{frames:#?}");
    });
}

#[test]
fn another_thread_gets_a_dump_through_the_handle() {
    let report: Report = assert_ends(|| {
        let (send, receive) = mpsc::channel();
        let hub = thread::Builder::new().name("the hub".into()).spawn(move || {
            run(|| {
                Builder::new().name("sleeper").spawn(where_the_sleeper_sleeps).unwrap();
                let done = Event::new();
                let handle = reactor().handle();
                send.send(handle).unwrap();
                done.wait(); // for ever: until the handle stops it
            });
        });
        let handle = receive.recv().unwrap();
        let report = handle.dump(Duration::from_secs(10)).unwrap();
        handle.stop().unwrap();
        assert!(hub.unwrap().join().is_err());
        let error = handle.dump(Duration::from_secs(10)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected);
        report
    });
    assert_eq!(report.thread(), Some("the hub"));
    let sleeper = report.parked()[1].backtrace();
    assert!(sleeper.iter().any(|f| f.contains("where_the_sleeper_sleeps")), "{sleeper:#?}");
}

#[test]
fn a_hub_that_does_not_let_go_does_not_answer_in_time() {
    run(|| {
        let handle = reactor().handle();
        let asks = thread::spawn(move || {
            let error = handle.dump(Duration::from_millis(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        });
        asks.join().unwrap(); // blocks this thread, and with it the hub
    });
}

#[test]
fn a_handle_asked_on_its_own_thread_answers_at_once() {
    run(|| {
        let report = reactor().handle().dump(Duration::ZERO).unwrap();
        assert_eq!(report.parked()[0].state, GreenletState::Running);
    });
}

#[test]
fn main_that_would_wait_for_ever_gets_a_tree() {
    let ended = try_run(|| {
        Builder::new().name("also").spawn(|| sleep(HOUR * 24 * 365)).unwrap().kill();
        let (_resolver, deferred) = greenloop::Deferred::<()>::new();
        let _ = greenloop::wait_for_deferred(deferred);
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    let text = report.to_string();
    assert!(line_of(&text, "'main'").starts_with("  greenlet #"), "{text}");
    assert!(text.contains("waits for a Deferred to fire since"), "{text}");
    let _: &Location<'_> = report.parked()[0].birth;
}

#[test]
fn counters_say_what_there_is_and_what_was() {
    testing::run(|| {
        let before = reactor().metrics();
        assert_eq!((before.greenlets, before.parked, before.ready), (1, 0, 0));
        let sleepers: Vec<_> = (0..10).map(|_| spawn(|| sleep(HOUR))).collect();
        spawn_later(HOUR * 9, || ());
        let spawned = reactor().metrics();
        assert_eq!((spawned.greenlets, spawned.ready, spawned.delayed), (12, 10, 1));
        yield_now();
        let parked = reactor().metrics();
        assert_eq!((parked.parked, parked.ready, parked.timers), (10, 0, 11));
        assert_eq!(parked.switches, before.switches + 11, "ten, and main again");
        assert_eq!((parked.stacks, parked.stacks_max), (12, 12));
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        let joined = reactor().metrics();
        assert_eq!((joined.stacks, joined.stacks_max), (2, 12));
        assert_eq!((joined.parked, joined.timers), (0, 1));
        assert!(joined.turns > parked.turns);
    });
}

#[test]
fn the_lag_of_timers_is_that_of_the_loop() {
    let clock = testing::ManualClock::new();
    clock.run(|| {
        spawn(|| sleep(HOUR));
        yield_now();
        assert_eq!(reactor().metrics().timer_lag_max, Duration::ZERO);
        clock.advance(HOUR + Duration::from_secs(7));
        assert_eq!(reactor().metrics().timer_lag_max, Duration::from_secs(7));
    });
}

#[test]
fn a_wait_for_a_descriptor_is_counted() {
    run(|| {
        let (reader, _writer) = pipe().unwrap();
        let waiter = spawn(move || {
            let _ = greenloop::wait_readable(reader.as_fd(), greenloop::Deadline::NEVER);
        });
        yield_now();
        assert_eq!(reactor().metrics().io_waits, 1);
        waiter.kill();
        yield_now();
        assert_eq!(reactor().metrics().io_waits, 0);
    });
}

#[test]
fn another_thread_gets_counters_through_the_handle() {
    let metrics = assert_ends(|| {
        run(|| {
            let handle = reactor().handle();
            let done = Arc::new(Event::new());
            let tells = Arc::clone(&done);
            let asks = thread::spawn(move || {
                let metrics = handle.metrics(Duration::from_secs(10));
                tells.set();
                metrics
            });
            done.wait();
            asks.join().unwrap().unwrap()
        })
    });
    assert_eq!((metrics.greenlets, metrics.parked), (1, 1));
}
