//! Spawning, joining, the life of a run, time, and what shared thread-locals cost.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, Stdio},
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    Builder, Deferred, Ending, Greenlet, GreenletRef, JoinError, RunError, current, reactor, run,
    scope, set_unhandled_hook, shield, sleep, spawn, spawn_later, timeout, try_run,
    wait_for_deferred, yield_now,
};

use crate::coro::guards_are_free;

/// Longer than any test: what waits for it waits for ever.
pub(crate) const AGES: Duration = Duration::from_secs(3600);

/// A moment, where time is the subject.
pub(crate) const MOMENT: Duration = Duration::from_millis(2);

/// What was done, in order.
pub(crate) type Trace = Rc<RefCell<Vec<String>>>;

/// Appends a line.
pub(crate) fn note(trace: &Trace, line: impl Into<String>) {
    trace.borrow_mut().push(line.into());
}

/// What is reported as unhandled on this thread while `f` runs.
pub(crate) fn reports_during(f: impl FnOnce()) -> Vec<String> {
    struct Restore(Option<greenloop::UnhandledHook>);
    impl Drop for Restore {
        fn drop(&mut self) {
            set_unhandled_hook(self.0.take());
        }
    }
    let trace = Trace::default();
    let told = Rc::clone(&trace);
    let _restore = Restore(set_unhandled_hook(Some(Box::new(move |u| note(&told, u.to_string())))));
    f();
    trace.take()
}

/// Calls `f` when it is dropped.
pub(crate) struct OnDrop<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The message of a caught panic.
pub(crate) fn message(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

/// Runs `body` in a process of its own, where nobody else maps memory or sets limits, and fails
/// if it fails there. `test` is the path of the calling test in this binary.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    const MARK: &str = "GREENLOOP_ALONE";
    if std::env::var(MARK).is_ok_and(|mark| mark == test) {
        return body();
    }
    let out = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(MARK, test)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{test} alone: {}\n{stdout}\n{stderr}", out.status);
    assert!(stdout.contains("1 passed"), "{test} did not run alone:\n{stdout}");
    eprint!("{stderr}");
}

// ---- spawning ----------------------------------------------------------------------------------

/// gevent `test__greenlet.TestBasic`; G1.
#[test]
fn spawn_returns_before_the_body_runs() {
    run(|| {
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        let g = spawn(move || flag.set(true));
        assert!(!ran.get());
        assert!(!g.is_finished());
        yield_now();
        assert!(ran.get());
        assert!(g.is_finished());
    });
}

/// gevent `test__order.py`.
#[test]
fn greenlets_start_in_the_order_in_which_they_were_spawned() {
    let trace = Trace::default();
    run(|| {
        for i in 0..1000 {
            let trace = Rc::clone(&trace);
            spawn(move || note(&trace, i.to_string()));
        }
        yield_now();
        // A batch is smaller than that: yielding once more sees the rest start.
        while trace.borrow().len() < 1000 {
            yield_now();
        }
    });
    let wanted: Vec<_> = (0..1000).map(|i| i.to_string()).collect();
    assert_eq!(*trace.borrow(), wanted);
}

#[test]
fn yielding_greenlets_take_turns() {
    let trace = Trace::default();
    run(|| {
        let both: Vec<_> = ["a", "b"]
            .map(|name| {
                let trace = Rc::clone(&trace);
                spawn(move || {
                    for i in 0..3 {
                        note(&trace, format!("{name}{i}"));
                        yield_now();
                    }
                })
            })
            .into();
        both.into_iter().for_each(|g| g.join().unwrap());
    });
    assert_eq!(*trace.borrow(), ["a0", "b0", "a1", "b1", "a2", "b2"]);
}

#[test]
fn greenlets_share_an_rc_and_a_ref_cell() {
    run(|| {
        let sum = Rc::new(RefCell::new(0));
        let all: Vec<_> = (0..100)
            .map(|i| {
                let sum = Rc::clone(&sum);
                spawn(move || {
                    let before = *sum.borrow();
                    *sum.borrow_mut() = before + i; // nobody runs between these two lines
                    yield_now();
                })
            })
            .collect();
        all.into_iter().for_each(|g| g.join().unwrap());
        assert_eq!(*sum.borrow(), 4950);
        assert_eq!(Rc::strong_count(&sum), 1, "ended greenlets keep their captures");
    });
}

/// Peer list, item 6: corosensei asserts that a closure is at most 1 KiB.
#[test]
fn closures_of_any_size_arrive_whole() {
    fn check<const N: usize>() {
        let mut capture = [0u8; N];
        capture.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 251) as u8);
        let back = spawn(move || {
            let kept = capture;
            yield_now();
            kept
        });
        assert!(back.join().unwrap() == capture, "{N} bytes");
    }
    run(|| {
        check::<0>();
        check::<300>();
        check::<500>();
        check::<512>();
        check::<520>();
        check::<1024>();
        check::<1032>();
        check::<{ 4 << 10 }>();
    });
    run(|| {
        // Debug builds copy a capture often on its way: both ends get room for that.
        let big = || Builder::new().stack_size(16 << 20);
        let outer = big().spawn(move || {
            let capture = [7u8; 100 << 10];
            let inner = big().spawn(move || {
                let kept = capture;
                yield_now();
                kept.iter().map(|byte| usize::from(*byte)).sum::<usize>()
            });
            inner.unwrap().join().unwrap()
        });
        assert_eq!(outer.unwrap().join().unwrap(), 7 * (100 << 10));
    });
}

#[test]
fn over_aligned_captures_are_aligned() {
    #[repr(align(256))]
    struct Aligned([u8; 256]);
    run(|| {
        let capture = Aligned([3; 256]);
        let g = spawn(move || {
            let kept = capture;
            yield_now();
            (std::ptr::from_ref(&kept).addr() % 256, kept.0[255])
        });
        assert_eq!(g.join().unwrap(), (0, 3));
    });
}

#[test]
fn names_and_birth_are_what_builder_and_caller_gave() {
    run(|| {
        let line = line!() + 1;
        let plain = spawn(|| current());
        let named = Builder::new().name("parser").spawn(|| current()).unwrap();
        assert_eq!(plain.name(), None);
        assert_eq!((plain.birth().file(), plain.birth().line()), (file!(), line));
        assert_eq!(named.name(), Some("parser"));
        assert_eq!(named.birth().line(), line + 1);
        let reference = named.as_ref();
        let seen = named.join().unwrap();
        assert_eq!(seen, reference);
        assert_eq!(seen.name(), Some("parser"));
        assert_eq!(seen.birth().line(), line + 1);
        assert!(reference.is_finished());
        let later = spawn_later(Duration::ZERO, || current());
        assert_eq!(later.birth().line(), line!() - 1);
        let id = later.id();
        assert_eq!(later.join().unwrap().id(), id);
        assert_eq!(current().name(), Some("main"));
        drop(plain);
    });
}

#[test]
fn ids_are_never_reused_on_a_thread() {
    let seen = RefCell::new(HashSet::new());
    for _ in 0..3 {
        run(|| {
            assert!(seen.borrow_mut().insert(current().id()));
            for _ in 0..100 {
                let g = spawn(|| ());
                assert!(seen.borrow_mut().insert(g.id()));
                g.join().unwrap();
            }
        });
    }
}

/// gevent `test__greenlet.TestStart`; G2.
#[test]
fn spawn_later_starts_after_its_delay_and_not_before() {
    run(|| {
        let begin = Instant::now();
        let delay = Duration::from_millis(5);
        let g = spawn_later(delay, Instant::now);
        yield_now();
        assert!(!g.is_finished());
        assert!(g.join().unwrap() - begin >= delay);
    });
}

#[test]
fn delayed_starts_come_in_the_order_of_their_deadlines() {
    let trace = Trace::default();
    run(|| {
        let all = [9, 3, 6, 0].map(|ms| {
            let trace = Rc::clone(&trace);
            spawn_later(Duration::from_millis(ms), move || note(&trace, ms.to_string()))
        });
        all.into_iter().for_each(|g| g.join().unwrap());
    });
    assert_eq!(*trace.borrow(), ["0", "3", "6", "9"]);
}

/// A captured value that records the greenlet on which it is dropped.
struct WhereDropped(Rc<Cell<Option<GreenletRef>>>);

impl Drop for WhereDropped {
    fn drop(&mut self) {
        self.0.set(Some(current()));
    }
}

/// gevent `test__greenlet.TestKill`; G7.
#[test]
fn a_greenlet_killed_before_it_started_never_runs_and_drops_its_closure_on_its_own_stack() {
    type Spawner = fn(Box<dyn FnOnce()>) -> Greenlet<()>;
    let spawners: [Spawner; 2] = [|f| spawn(f), |f| spawn_later(AGES, f)];
    for spawner in spawners {
        run(|| {
            let place = Rc::new(Cell::new(None));
            let capture = WhereDropped(Rc::clone(&place));
            let endings = Trace::default();
            let told = Rc::clone(&endings);
            let g = spawner(Box::new(move || {
                let _capture = &capture;
                unreachable!("it was killed before it started");
            }));
            g.link(move |ending| note(&told, format!("{ending:?}")));
            let reference = g.as_ref();
            g.kill();
            g.kill();
            assert!(!g.is_finished(), "kill returns at once");
            assert!(g.join().unwrap_err().is_killed());
            assert_eq!(place.take(), Some(reference));
            for _ in 0..5 {
                yield_now();
            }
            assert_eq!(
                *endings.borrow(),
                ["Killed(Killed { reason: None })"],
                "links are told, once"
            );
        });
    }
}

/// A delayed start that was called off must not look like something that can still wake main.
#[test]
fn a_killed_delayed_start_leaves_no_timer_behind() {
    let begin = Instant::now();
    let ended = try_run(|| {
        spawn_later(Duration::from_secs(5), || ()).kill();
        let (_resolver, never) = Deferred::<()>::new();
        wait_for_deferred(never)
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
    assert!(begin.elapsed() < Duration::from_secs(3), "took {:?}", begin.elapsed());
}

#[test]
fn outside_a_run_the_calls_say_what_to_do() {
    let error = Builder::new().spawn(|| ()).unwrap_err();
    assert!(error.to_string().contains("greenloop::run"), "{error}");
    let calls: [(&str, fn()); 6] = [
        ("spawn", || drop(spawn(|| ()))),
        ("sleep", || sleep(MOMENT)),
        ("yield_now", yield_now),
        ("timeout", || {
            let _ = timeout(MOMENT, || ());
        }),
        ("current", || drop(current())),
        ("scope", || scope(|_| ())),
    ];
    for (name, call) in calls {
        let text = message(&*catch_unwind(call).unwrap_err());
        assert!(text.contains(name) && text.contains("greenloop::run"), "{name}: {text}");
    }
    assert_eq!(shield(|| 1), 1, "a shield needs no reactor");
}

#[test]
fn a_large_stack_is_as_large_as_was_asked_for() {
    /// Uses at least a KiB of stack a level.
    #[inline(never)]
    fn dive(depth: usize) -> usize {
        let pad = std::hint::black_box([depth as u8; 1024]);
        if depth == 0 {
            pad[0].into()
        } else {
            dive(depth - 1) + usize::from(pad[1023] > 255u8 - 1)
        }
    }
    run(|| {
        let g = Builder::new().stack_size(16 << 20).spawn(|| {
            dive(4 << 10);
            yield_now();
            1
        });
        assert_eq!(g.unwrap().join().unwrap(), 1);
    });
}

// ---- joining -----------------------------------------------------------------------------------

#[test]
fn join_gives_the_value_before_and_after_the_end() {
    run(|| {
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
        let g = spawn(|| String::from("done"));
        yield_now();
        assert!(g.is_finished());
        assert_eq!(g.join().unwrap(), "done");
    });
}

/// gevent G5, G6.
#[test]
fn join_timeout_hands_the_handle_back_and_the_greenlet_goes_on() {
    run(|| {
        let (resolver, deferred) = Deferred::<i32>::new();
        let g = spawn(move || wait_for_deferred(deferred).unwrap());
        let begin = Instant::now();
        let g = g.join_timeout(MOMENT).unwrap_err();
        assert!(begin.elapsed() >= MOMENT);
        let g = g.join_timeout(Duration::ZERO).unwrap_err();
        assert!(!g.is_finished());
        resolver.callback(5);
        assert_eq!(g.join_timeout(AGES).unwrap().unwrap(), 5);
        let done = spawn(|| 6);
        yield_now();
        assert_eq!(done.join_timeout(Duration::ZERO).unwrap().unwrap(), 6);
    });
}

/// gevent `test_outer_timeout_is_not_lost`.
#[test]
fn an_outer_timeout_is_not_taken_for_the_end_of_a_join() {
    run(|| {
        let g = spawn(|| sleep(AGES));
        let reference = g.as_ref();
        assert!(timeout(MOMENT, || g.join_timeout(AGES).is_ok()).is_err());
        assert!(!reference.is_finished(), "the greenlet goes on, detached");
    });
}

/// gevent `TestLink`; G11.
#[test]
fn links_run_once_in_the_order_in_which_they_were_made() {
    let trace = Trace::default();
    run(|| {
        let g = spawn(|| 1);
        for i in 0..4 {
            let trace = Rc::clone(&trace);
            g.link(move |ending| note(&trace, format!("{i} {ending:?}")));
        }
        assert!(trace.borrow().is_empty());
        assert_eq!(g.join().unwrap(), 1);
        yield_now();
        yield_now();
    });
    assert_eq!(*trace.borrow(), ["0 Returned", "1 Returned", "2 Returned", "3 Returned"]);
}

#[test]
fn a_link_made_after_the_end_is_still_called_but_not_at_once() {
    let trace = Trace::default();
    run(|| {
        let g = spawn(|| panic!("oh"));
        yield_now();
        let told = Rc::clone(&trace);
        g.link(move |ending| note(&told, format!("{ending:?}")));
        assert!(trace.borrow().is_empty());
        yield_now();
        yield_now();
        assert_eq!(*trace.borrow(), [format!("{:?}", Ending::Panicked("oh".into()))]);
        assert!(g.join().unwrap_err().panic().is_some());
    });
}

#[test]
fn a_panicking_link_is_reported_and_stops_no_other() {
    let trace = Trace::default();
    let reports = reports_during(|| {
        run(|| {
            let g = spawn(|| ());
            g.link(|_| panic!("in a link"));
            let told = Rc::clone(&trace);
            g.link(move |_| note(&told, "second"));
            g.join().unwrap();
            yield_now();
            yield_now();
        });
    });
    assert_eq!(*trace.borrow(), ["second"]);
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("in a link") && reports[0].contains("hub.rs"), "{reports:?}");
}

#[test]
fn a_link_that_blocks_holds_up_neither_the_loop_nor_the_next_link() {
    let trace = Trace::default();
    run(|| {
        let (resolver, deferred) = Deferred::<()>::new();
        let g = spawn(|| ());
        let (first, second) = (Rc::clone(&trace), Rc::clone(&trace));
        g.link(move |_| {
            note(&first, "first begins");
            wait_for_deferred(deferred).unwrap();
            note(&first, "first ends");
        });
        g.link(move |_| {
            note(&second, "second");
            resolver.callback(());
        });
        g.join().unwrap();
        for _ in 0..6 {
            yield_now();
        }
    });
    assert_eq!(*trace.borrow(), ["first begins", "second", "first ends"]);
}

/// A link is called once when the greenlet has ended: also when the end of the run ends it.
#[test]
fn links_of_greenlets_that_the_end_of_the_run_kills_are_told() {
    for others in [0, 1] {
        let trace = Trace::default();
        run(|| {
            let told = Rc::clone(&trace);
            let g = spawn(|| sleep(AGES));
            g.link(move |ending| note(&told, format!("{ending:?}")));
            for _ in 0..others {
                // Takes a few turns longer to end.
                spawn(|| {
                    let _slow = OnDrop(|| sleep(MOMENT));
                    sleep(AGES);
                });
            }
            yield_now();
        });
        assert_eq!(
            *trace.borrow(),
            ["Killed(Killed { reason: None })"],
            "with {others} slower ones"
        );
    }
}

#[test]
fn a_panic_stays_in_its_greenlet_and_reaches_the_joiner_with_message_and_place() {
    let reports = reports_during(|| {
        run(|| {
            let line = line!() + 1;
            let g = spawn(|| -> u8 { panic!("number {}", 7) });
            let bystander = spawn(|| {
                yield_now();
                "fine"
            });
            let error = g.join().unwrap_err();
            assert!(!error.is_killed());
            assert!(error.to_string().contains("number 7"), "{error}");
            let panic = error.panic().unwrap();
            assert_eq!(panic.message(), "number 7");
            let place = panic.place().unwrap();
            assert!(place.starts_with(&format!("{}:{line}:", file!())), "{place}");
            assert_eq!(message(&*error.try_into_panic().unwrap()), "number 7");
            assert_eq!(bystander.join().unwrap(), "fine");
        });
    });
    assert_eq!(reports, [""; 0], "a joined panic is not reported");
}

#[test]
fn a_panic_payload_of_any_type_reaches_the_joiner() {
    run(|| {
        let g = spawn(|| std::panic::panic_any(42u64));
        let error: JoinError = g.join().unwrap_err();
        assert!(error.panic().unwrap().place().is_some());
        assert_eq!(*error.try_into_panic().unwrap().downcast::<u64>().unwrap(), 42);
        // Raised without the hook: there is no place, and an older one must not stand in for it.
        let g = spawn(|| {
            let _ = catch_unwind(|| panic!("older"));
            std::panic::resume_unwind(Box::new("newer"))
        });
        let error = g.join().unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "newer");
        assert_eq!(error.panic().unwrap().place(), None);
    });
}

#[test]
fn an_unjoined_panic_is_reported_exactly_once_whenever_its_handle_goes() {
    type Case = (&'static str, fn());
    let cases: [Case; 4] = [
        ("dropped before the end", || run(|| drop(spawn(|| panic!("boom"))))),
        ("dropped after the end", || {
            run(|| {
                let g = spawn(|| panic!("boom"));
                yield_now();
                assert!(g.is_finished());
                drop(g);
            });
        }),
        ("outlives the run", || {
            drop(run(|| {
                let g = spawn(|| panic!("boom"));
                yield_now();
                g
            }));
        }),
        ("with a link", || {
            run(|| {
                spawn(|| panic!("boom")).link(|_| ());
                yield_now();
            });
        }),
    ];
    for (name, case) in cases {
        // In the first case main ends before the greenlet starts unless it is let run.
        let reports = reports_during(|| match name {
            "dropped before the end" => run(|| {
                drop(spawn(|| panic!("boom")));
                yield_now();
            }),
            _ => case(),
        });
        assert_eq!(reports.len(), 1, "{name}: {reports:?}");
        let place = format!("{}:", file!());
        assert!(reports[0].contains("boom") && reports[0].contains(&place), "{name}: {reports:?}");
    }
}

#[test]
fn an_unjoined_err_is_reported_once_and_names_the_greenlet() {
    #[derive(Debug)]
    struct Mine;
    let reports = reports_during(|| {
        run(|| {
            drop(Builder::new().name("io").spawn(|| -> Result<(), std::io::Error> {
                Err(std::io::Error::other("bad disk"))
            }));
            drop(Builder::new().name("mine").spawn(|| -> Result<u32, Mine> { Err(Mine) }));
            drop(spawn(|| -> Result<(), String> { Ok(()) }));
            drop(spawn(|| Some(5)));
            let joined = spawn(|| -> Result<(), String> { Err("joined".into()) });
            assert_eq!(joined.join().unwrap(), Err("joined".into()));
            yield_now();
        });
    });
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports[0].contains("'io'") && reports[0].contains("bad disk"), "{reports:?}");
    assert!(reports[1].contains("'mine'") && reports[1].contains("Err"), "{reports:?}");
}

#[test]
fn a_killed_greenlet_is_not_reported() {
    let reports = reports_during(|| {
        run(|| {
            spawn(|| sleep(AGES));
            let g = spawn(|| sleep(AGES));
            yield_now();
            g.kill();
            drop(g);
        });
    });
    assert_eq!(reports, [""; 0]);
}

#[test]
fn a_handle_that_outlives_its_run_still_gives_the_result() {
    let (value, killed, panicked) = run(|| {
        let value = spawn(|| vec![1, 2, 3]);
        let killed = spawn(|| sleep(AGES));
        let panicked = spawn(|| panic!("late"));
        yield_now();
        (value, killed, panicked)
    });
    assert!(value.is_finished() && killed.is_finished());
    killed.kill();
    value.link(|ending| assert_eq!(*ending, Ending::Returned));
    // Another run on the same thread must not take them for its own.
    run(|| {
        for _ in 0..10 {
            spawn(|| sleep(MOMENT));
        }
        yield_now();
        killed.kill();
        assert_eq!(value.join().unwrap(), [1, 2, 3]);
    });
    assert!(killed.join().unwrap_err().is_killed());
    assert_eq!(
        panicked.join_timeout(AGES).unwrap().unwrap_err().panic().unwrap().message(),
        "late"
    );
}

#[test]
fn a_stale_reference_kills_nobody_else() {
    run(|| {
        let old = spawn(|| ());
        let stale = old.as_ref();
        old.join().unwrap();
        // Takes the slot of the one that has ended.
        let new = spawn(|| {
            yield_now();
            1
        });
        stale.kill();
        assert!(stale.is_finished());
        assert_eq!(new.join().unwrap(), 1);
    });
}

#[test]
fn a_result_that_nobody_takes_is_dropped_on_its_own_greenlet_where_it_may_block() {
    run(|| {
        let place = Rc::new(Cell::new(None));
        let g = {
            let place = Rc::clone(&place);
            spawn(move || {
                OnDrop(move || {
                    sleep(MOMENT);
                    place.set(Some(current()));
                })
            })
        };
        let reference = g.as_ref();
        drop(g);
        while !reference.is_finished() {
            yield_now();
        }
        assert_eq!(place.take(), Some(reference));
    });
}

// ---- the life of a run -------------------------------------------------------------------------

#[test]
fn run_returns_only_after_every_greenlet_has_ended() {
    let alive = Rc::new(Cell::new(0));
    let counted = || {
        alive.set(alive.get() + 1);
        let alive = Rc::clone(&alive);
        OnDrop(move || alive.set(alive.get() - 1))
    };
    run(|| {
        let (a, b, c, d) = (counted(), counted(), counted(), counted());
        spawn(move || {
            let _a = a;
            sleep(AGES);
        });
        spawn(move || {
            let _b = b;
            let (_resolver, never) = Deferred::<()>::new();
            let _ = wait_for_deferred(never);
        });
        yield_now();
        spawn(move || drop(c)); // never started
        spawn_later(AGES, move || drop(d));
        assert_eq!(alive.get(), 4);
    });
    assert_eq!(alive.get(), 0);
}

#[test]
fn calls_that_were_not_made_are_dropped_before_run_returns() {
    let dropped = Trace::default();
    run(|| {
        let (a, b) = (Rc::clone(&dropped), Rc::clone(&dropped));
        let a = OnDrop(move || note(&a, "later"));
        let b = OnDrop(move || {
            // Dropped on the hub's own stack: it may spawn, and that is ended too.
            note(&b, "hub");
            let b = OnDrop({
                let b = Rc::clone(&b);
                move || note(&b, "spawned by a drop")
            });
            spawn(move || drop(b));
        });
        reactor().call_later(AGES, move || drop(a));
        reactor().call_later(AGES, move || drop(b));
    });
    assert_eq!(*dropped.borrow(), ["later", "hub", "spawned by a drop"]);
}

#[test]
fn a_greenlet_spawned_during_the_shutdown_is_born_killed() {
    let trace = Trace::default();
    let kept = Rc::new(Cell::new(None));
    run(|| {
        let (trace, kept) = (Rc::clone(&trace), Rc::clone(&kept));
        spawn(move || {
            let _last = OnDrop(move || {
                let inner = Rc::clone(&trace);
                let born = spawn(move || note(&inner, "ran"));
                let inner = Rc::clone(&trace);
                let later = spawn_later(AGES, move || note(&inner, "ran later"));
                let sum = u8::from(born.join().unwrap_err().is_killed())
                    + u8::from(later.join().unwrap_err().is_killed());
                kept.set(Some(sum));
            });
            sleep(AGES);
        });
        yield_now();
    });
    assert_eq!(kept.get(), Some(2));
    assert_eq!(*trace.borrow(), [""; 0]);
}

#[test]
fn a_panic_in_main_leaves_run_after_the_others_have_ended() {
    let trace = Trace::default();
    let caught = catch_unwind(AssertUnwindSafe(|| {
        run(|| {
            let told = Rc::clone(&trace);
            spawn(move || {
                let _told = OnDrop(move || {
                    sleep(MOMENT);
                    note(&told, "unwound");
                });
                sleep(AGES);
            });
            yield_now();
            std::panic::panic_any(77u8);
        })
    }));
    assert_eq!(*caught.unwrap_err().downcast::<u8>().unwrap(), 77);
    assert_eq!(*trace.borrow(), ["unwound"]);
    assert_eq!(run(|| 1), 1, "the thread may run a reactor again");
}

#[test]
fn run_may_borrow_and_be_called_again_and_again() {
    let mut sum = 0;
    for i in 0..50 {
        sum += run(|| {
            let g = spawn(move || {
                sleep(Duration::from_micros(50));
                i
            });
            sum += 1;
            g.join().unwrap()
        });
    }
    assert_eq!(sum, 50 + 1225);
}

#[test]
fn several_threads_run_reactors_at_once() {
    let threads: Vec<_> = (0..8)
        .map(|n| {
            std::thread::spawn(move || {
                run(|| {
                    let all: Vec<_> = (0..100)
                        .map(|i| {
                            spawn(move || {
                                sleep(Duration::from_micros(100));
                                i * n
                            })
                        })
                        .collect();
                    all.into_iter().map(|g| g.join().unwrap()).sum::<u32>()
                })
            })
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), 4950 * n as u32);
    }
}

#[test]
fn a_nested_run_panics_with_a_text_and_the_outer_goes_on() {
    run(|| {
        for g in [spawn(|| run(|| ())), spawn(|| drop(try_run(|| ())))] {
            let error = g.join().unwrap_err();
            let panic = error.panic().unwrap();
            assert!(panic.message().contains("runs on this thread already"), "{panic}");
        }
        sleep(MOMENT);
    });
}

/// gevent H1 (`LoopExit`).
#[test]
fn when_nothing_can_wake_main_the_report_lists_who_is_parked_on_what() {
    let begin = Instant::now();
    let mut lines = [0; 2];
    let ended = try_run(|| {
        let (_a, never) = Deferred::<()>::new();
        lines[0] = line!() + 1;
        let reader = Builder::new().name("reader").spawn(move || wait_for_deferred(never));
        let id = reader.as_ref().unwrap().id();
        lines[1] = line!() + 1;
        let joiner = spawn(move || drop(reader.unwrap().join()));
        assert_eq!(id + 1, joiner.id());
        drop(joiner.join());
        unreachable!("nobody wakes main");
    });
    let Err(RunError::WouldBlockForever(report)) = &ended else { panic!("{ended:?}") };
    let parked = report.parked();
    assert_eq!(parked.len(), 3, "{report}");
    assert_eq!(parked[0].name.as_deref(), Some("main"));
    assert_eq!(parked[0].waits_on, format!("the end of greenlet #{}", parked[2].id));
    assert_eq!(parked[1].name.as_deref(), Some("reader"));
    assert_eq!(parked[1].waits_on, "a Deferred to fire");
    assert_eq!((parked[1].birth.file(), parked[1].birth.line()), (file!(), lines[0]));
    assert_eq!(parked[2].waits_on, format!("the end of greenlet #{}", parked[1].id));
    assert_eq!(parked[2].birth.line(), lines[1]);
    assert!(parked.iter().all(|p| !p.killed && p.since < Duration::from_secs(5)));
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("'reader'") && text.contains("a Deferred to fire"), "{text}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn run_panics_with_the_report_where_try_run_returns_it() {
    let caught = catch_unwind(|| {
        run(|| {
            let (_resolver, never) = Deferred::<()>::new();
            wait_for_deferred(never)
        })
    });
    let text = message(&*caught.unwrap_err());
    assert!(text.contains("wait for ever") && text.contains("a Deferred to fire"), "{text}");
}

#[test]
fn a_greenlet_that_waits_for_itself_is_reported_and_not_waited_for() {
    let ended = try_run(|| {
        let own = Rc::new(RefCell::new(None::<Greenlet<()>>));
        let handle = Rc::clone(&own);
        let g = spawn(move || {
            let me = handle.borrow_mut().take().unwrap();
            drop(me.join());
        });
        let reference = g.as_ref();
        *own.borrow_mut() = Some(g);
        let (_resolver, never) = Deferred::<()>::new();
        assert!(!reference.is_finished());
        wait_for_deferred(never)
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
}

#[test]
fn main_that_catches_the_report_may_still_return_a_value() {
    let ended = try_run(|| {
        let (_resolver, never) = Deferred::<()>::new();
        let caught = catch_unwind(AssertUnwindSafe(|| wait_for_deferred(never)));
        assert!(greenloop::is_kill(&*caught.unwrap_err()));
        5
    });
    assert_eq!(ended.unwrap(), 5);
}

#[test]
fn the_last_handle_dropped_by_another_thread_ends_the_wait_for_ever() {
    let ended = try_run(|| {
        let handle = reactor().handle();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            drop(handle);
        });
        let (_resolver, never) = Deferred::<()>::new();
        wait_for_deferred(never)
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
}

#[test]
fn stop_kills_main_and_the_run_says_so() {
    let trace = Trace::default();
    let ended = try_run(|| {
        let told = Rc::clone(&trace);
        let _told = OnDrop(move || note(&told, "main unwound"));
        spawn(|| reactor().stop());
        sleep(AGES);
    });
    assert!(matches!(ended, Err(RunError::Stopped)), "{ended:?}");
    assert_eq!(*trace.borrow(), ["main unwound"]);
    let text = message(
        &*catch_unwind(|| {
            run(|| {
                reactor().stop();
                yield_now();
            })
        })
        .unwrap_err(),
    );
    assert!(text.contains("stopped"), "{text}");
    // A main that returns all the same has its value returned.
    assert_eq!(
        try_run(|| {
            reactor().stop();
            6
        })
        .unwrap(),
        6
    );
}

#[test]
fn stop_from_another_thread_ends_a_sleeping_run_and_later_calls_are_refused() {
    let kept = Rc::new(Cell::new(None));
    let ended = try_run(|| {
        let handle = reactor().handle();
        kept.set(Some(reactor().handle()));
        let thread = std::thread::spawn(move || handle.stop());
        sleep(AGES);
        drop(thread);
    });
    assert!(matches!(ended, Err(RunError::Stopped)), "{ended:?}");
    let handle = kept.take().unwrap();
    assert!(handle.stop().is_err());
    assert!(handle.call_from_thread(|| ()).is_err());
    assert!(handle.spawn(|| ()).is_err());
}

#[test]
fn a_kept_reactor_serves_only_the_run_it_was_asked_in() {
    let old = run(reactor);
    run(|| {
        let text = message(&*catch_unwind(AssertUnwindSafe(|| old.stop())).unwrap_err());
        assert!(text.contains("has ended"), "{text}");
    });
}

/// A destructor that runs while an OS thread unwinds may use a reactor.
#[test]
fn a_run_inside_the_unwinding_of_its_thread_works() {
    let seen = Rc::new(Cell::new(None));
    let told = Rc::clone(&seen);
    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _cleanup = OnDrop(move || {
            let value = run(|| {
                let sleeper = spawn(|| sleep(AGES));
                let slow = timeout(MOMENT, || sleep(AGES));
                assert!(slow.is_err());
                sleeper.kill();
                assert!(sleeper.join().unwrap_err().is_killed());
                let g = spawn(|| panic!("inner"));
                assert!(g.join().unwrap_err().panic().is_some());
                spawn(|| sleep(AGES));
                9
            });
            told.set(Some(value));
        });
        panic!("outer");
    }));
    assert_eq!(message(&*caught.unwrap_err()), "outer");
    assert_eq!(seen.get(), Some(9));
}

// ---- callback greenlets ------------------------------------------------------------------------

/// A call that kills the greenlet it runs on must not take the reactor's other calls with it.
#[test]
fn a_call_that_kills_its_own_greenlet_does_not_stop_later_calls() {
    run(|| {
        let called = Rc::new(Cell::new(0));
        reactor().call_when_running(|| {
            current().kill();
            yield_now();
            unreachable!("killed");
        });
        yield_now();
        for _ in 0..3 {
            let called = Rc::clone(&called);
            reactor().call_when_running(move || called.set(called.get() + 1));
            for _ in 0..3 {
                yield_now();
            }
        }
        assert_eq!(called.get(), 3, "calls are not made any more");
    });
}

#[test]
fn a_kill_of_one_call_does_not_reach_the_next_one_on_the_same_greenlet() {
    run(|| {
        let finished = Rc::new(Cell::new(false));
        let flag = Rc::clone(&finished);
        reactor().call_when_running(|| {
            current().kill();
            yield_now();
        });
        reactor().call_when_running(move || {
            sleep(MOMENT);
            flag.set(true);
        });
        let begin = Instant::now();
        while !finished.get() && begin.elapsed() < Duration::from_secs(2) {
            sleep(MOMENT);
        }
        assert!(finished.get(), "the second call was killed for the first one");
    });
}

// ---- timeouts ----------------------------------------------------------------------------------

#[test]
fn a_timeout_unwinds_out_of_its_closure_and_runs_destructors() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let begin = Instant::now();
        let slow = timeout(MOMENT, move || {
            let _told = OnDrop(move || note(&told, "unwound"));
            sleep(AGES);
        });
        assert!(slow.is_err());
        assert!(begin.elapsed() >= MOMENT && begin.elapsed() < Duration::from_secs(5));
        assert_eq!(*trace.borrow(), ["unwound"]);
        assert_eq!(timeout(AGES, || 5), Ok(5));
        yield_now(); // an elapsed timeout is over: nothing is raised any more
    });
}

/// gevent T3.
#[test]
fn nested_timeouts_are_told_apart() {
    run(|| {
        let inner_first = timeout(AGES, || timeout(MOMENT, || sleep(AGES)).is_err());
        assert_eq!(inner_first, Ok(true));
        let outer_first = timeout(MOMENT, || timeout(AGES, || sleep(AGES)).is_err());
        assert!(outer_first.is_err(), "the outer one passes through the inner one");
        // Both have passed when the next cancellation point comes: the outermost wins.
        let both = timeout(MOMENT, || {
            timeout(Duration::ZERO, || {
                shield(|| sleep(3 * MOMENT));
                yield_now();
            })
            .is_err()
        });
        assert!(both.is_err());
        // After the inner one the outer one still counts.
        let later = timeout(3 * MOMENT, || {
            assert!(timeout(MOMENT, || sleep(AGES)).is_err());
            sleep(AGES);
        });
        assert!(later.is_err());
    });
}

#[test]
fn only_the_greenlet_inside_a_timeout_is_timed_out() {
    run(|| {
        let other = spawn(|| {
            sleep(5 * MOMENT);
            1
        });
        assert!(timeout(MOMENT, || sleep(AGES)).is_err());
        assert_eq!(other.join().unwrap(), 1);
    });
}

#[test]
fn a_value_that_comes_after_the_deadline_counts() {
    run(|| {
        let late = timeout(Duration::from_micros(1), || {
            let begin = Instant::now();
            while begin.elapsed() < MOMENT {
                std::hint::spin_loop();
            }
            "late"
        });
        assert_eq!(late, Ok("late"));
        yield_now();
    });
}

#[test]
fn a_swallowed_timeout_is_raised_again_at_every_cancellation_point() {
    run(|| {
        let swallowed = Cell::new(0);
        let other = Rc::new(Cell::new(0));
        let turns = Rc::clone(&other);
        spawn(move || {
            loop {
                turns.set(turns.get() + 1);
                yield_now();
            }
        });
        let outcome = timeout(MOMENT, || {
            for _ in 0..3 {
                let caught = catch_unwind(|| sleep(AGES));
                assert!(greenloop::is_kill(&*caught.unwrap_err()));
                swallowed.set(swallowed.get() + 1);
            }
            let before = other.get();
            let _ = catch_unwind(yield_now);
            assert!(other.get() > before, "the others run in between");
            sleep(AGES);
        });
        assert!(outcome.is_err());
        assert_eq!(swallowed.get(), 3);
    });
}

#[test]
fn a_timeout_outside_a_shield_waits_for_the_shield_and_one_inside_does_not() {
    run(|| {
        let trace = Trace::default();
        let outer = timeout(MOMENT, || {
            shield(|| {
                sleep(3 * MOMENT);
                note(&trace, "shielded sleep ended");
                assert!(timeout(MOMENT, || sleep(AGES)).is_err(), "inside, timeouts work");
                yield_now();
                note(&trace, "still shielded");
            });
            note(&trace, "outside");
            yield_now();
            unreachable!();
        });
        assert!(outer.is_err());
        assert_eq!(*trace.borrow(), ["shielded sleep ended", "still shielded", "outside"]);
    });
}

/// gevent T1.
#[test]
fn a_timeout_of_zero_strikes_at_the_first_cancellation_point() {
    run(|| {
        assert_eq!(timeout(Duration::ZERO, || 3), Ok(3));
        let reached = Cell::new(false);
        assert!(
            timeout(Duration::ZERO, || {
                reached.set(true);
                yield_now();
                unreachable!()
            })
            .is_err()
        );
        assert!(reached.get());
    });
}

#[test]
fn a_timeout_that_never_comes_costs_nothing_and_never_strikes() {
    run(|| {
        assert_eq!(
            timeout(Duration::MAX, || {
                sleep(MOMENT);
                1
            }),
            Ok(1)
        );
    });
}

/// A destructor that waits during a timeout's unwind does not spin on the passed deadline.
#[test]
fn a_wait_in_a_destructor_during_a_timeouts_unwind_does_not_spin() {
    run(|| {
        let turns = Rc::new(Cell::new(0));
        let count = Rc::clone(&turns);
        let outcome = timeout(MOMENT, move || {
            let _slow = OnDrop(move || {
                let before = reactor().turns_count();
                sleep(Duration::from_millis(30));
                count.set(reactor().turns_count() - before);
            });
            sleep(AGES);
        });
        assert!(outcome.is_err());
        assert!(turns.get() > 0 && turns.get() < 20, "{} turns for one sleep", turns.get());
    });
}

#[test]
fn a_kill_wins_over_a_timeout() {
    run(|| {
        // Longer than the lint of a debug build takes to look at where it sleeps.
        let limit = 100 * MOMENT;
        let g = spawn(move || timeout(limit, || sleep(AGES)).is_err());
        yield_now();
        shield(|| {
            let begin = Instant::now();
            while begin.elapsed() < 2 * limit {}
        });
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
    });
}

// ---- sleeping ----------------------------------------------------------------------------------

/// gevent `test__sleep0.py`.
#[test]
fn sleep_zero_lets_the_others_run_and_takes_no_time() {
    run(|| {
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        spawn(move || flag.set(true));
        sleep(Duration::ZERO);
        assert!(ran.get());
    });
}

/// Peer list, item 13.
#[test]
fn a_sleep_is_never_early() {
    run(|| {
        for us in [1, 7, 50, 300, 300, 300, 999, 1000, 1001, 4000] {
            let wanted = Duration::from_micros(us);
            let begin = Instant::now();
            sleep(wanted);
            let took = begin.elapsed();
            assert!(took >= wanted, "slept {took:?} for {wanted:?}");
        }
    });
}

/// A 300 us sleep that takes a millisecond is what `epoll_wait` alone could do.
#[test]
fn a_short_sleep_is_not_rounded_up_to_a_millisecond() {
    run(|| {
        let wanted = Duration::from_micros(300);
        let best = (0..50)
            .map(|_| {
                let begin = Instant::now();
                sleep(wanted);
                begin.elapsed()
            })
            .min()
            .unwrap();
        assert!(best < Duration::from_micros(900), "the best of 50 took {best:?}");
    });
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let trace = Trace::default();
    run(|| {
        // The first round takes what is slow but once: the lint of debug builds reads symbols.
        for unit in [Duration::ZERO + Duration::from_nanos(1), 5 * MOMENT] {
            trace.borrow_mut().clear();
            let all = [8, 2, 6, 4, 2].map(|units| {
                let trace = Rc::clone(&trace);
                spawn(move || {
                    sleep(units * unit);
                    note(&trace, units.to_string());
                })
            });
            all.into_iter().for_each(|g| g.join().unwrap());
        }
    });
    assert_eq!(*trace.borrow(), ["2", "2", "4", "6", "8"]);
}

#[test]
fn slow_a_hundred_thousand_sleepers_all_wake() {
    let count = if guards_are_free() { 100_000 } else { 8_000 };
    run(|| {
        let woken = Rc::new(Cell::new(0usize));
        let all: Vec<_> = (0..count)
            .map(|i| {
                let woken = Rc::clone(&woken);
                Builder::new().spawn(move || {
                    let wanted = Duration::from_micros(100 + (i as u64 * 7919) % 50_000);
                    let begin = Instant::now();
                    sleep(wanted);
                    assert!(begin.elapsed() >= wanted);
                    woken.set(woken.get() + 1);
                })
            })
            .map_while(|spawned| match spawned {
                Ok(g) => Some(g),
                // Where a stack takes two mappings, what else this process maps counts too.
                Err(error) if error.to_string().contains("vm.max_map_count") => {
                    eprintln!("SKIPPED a part: {error}");
                    None
                }
                Err(error) => panic!("{error}"),
            })
            .collect();
        let spawned = all.len();
        all.into_iter().for_each(|g| g.join().unwrap());
        assert_eq!(woken.get(), spawned);
    });
}

// ---- shared thread-locals ----------------------------------------------------------------------

/// Peer list, item 1: a thread must not run its thread-local destructors while a greenlet of it is
/// parked, or the scoped thread would read what they freed.
#[test]
fn a_greenlet_parked_inside_a_thread_scope_over_a_thread_local_is_unwound_before_the_thread_ends() {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    /// Says when it is destroyed.
    struct Kept(Arc<AtomicU32>);
    impl Drop for Kept {
        fn drop(&mut self) {
            self.0.store(0xdead, Ordering::SeqCst);
        }
    }
    thread_local!(static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) });
    let value = Arc::new(AtomicU32::new(5));
    let seen = Arc::new(AtomicU32::new(0));
    let (inner_value, inner_seen) = (Arc::clone(&value), Arc::clone(&seen));
    std::thread::spawn(move || {
        KEPT.with(|kept| *kept.borrow_mut() = Some(Kept(Arc::clone(&inner_value))));
        run(|| {
            let g = spawn(move || {
                let (stop, stopped) = std::sync::mpsc::channel::<()>();
                std::thread::scope(|threads| {
                    let (seen, value) = (&inner_seen, &inner_value);
                    threads.spawn(move || {
                        let _ = stopped.recv(); // until the frame below is unwound
                        seen.store(value.load(Ordering::SeqCst), Ordering::SeqCst);
                    });
                    let _stop = stop;
                    sleep(AGES);
                });
            });
            yield_now();
            std::mem::forget(g);
        });
    })
    .join()
    .unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 5, "the scoped thread outlived the thread-local");
    assert_eq!(value.load(Ordering::SeqCst), 0xdead);
}

/// SOUND-11, peer list item 2: what two interleaved initialisers of one `thread_local!` do. The
/// second value replaces the first, to which a reference is still held: std drops the first one.
/// Nothing dangles here, because the value is a number of a static that is never freed.
#[test]
fn two_interleaved_initialisers_of_a_thread_local_replace_a_value_that_is_in_use() {
    static VALUES: [&str; 2] = ["first", "second"];
    thread_local! {
        static MADE: Cell<usize> = const { Cell::new(0) };
        static DROPPED: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
        static LAZY: Value = {
            let number = MADE.get();
            MADE.set(number + 1);
            if number == 0 {
                sleep(MOMENT); // what SOUND-11 forbids
            }
            Value(VALUES[number])
        };
    }
    struct Value(&'static str);
    impl Drop for Value {
        fn drop(&mut self) {
            let _ = DROPPED.try_with(|dropped| dropped.borrow_mut().push(self.0));
        }
    }
    // A thread of its own: the values belong to it.
    let reports = std::thread::spawn(|| {
        reports_during(|| {
            run(|| {
                let a = spawn(|| LAZY.with(|value| value.0));
                let b = spawn(|| {
                    let before = LAZY.with(|value| value.0);
                    // Were the reference kept over this wait, it would now be to a dropped value.
                    sleep(5 * MOMENT);
                    (before, LAZY.with(|value| value.0))
                });
                assert_eq!(a.join().unwrap(), "first");
                assert_eq!(
                    b.join().unwrap(),
                    ("second", "first"),
                    "the hole is closed? update the docs"
                );
                assert_eq!(MADE.get(), 2, "one thread-local, two constructions");
                assert_eq!(DROPPED.take(), ["second"], "dropped while its thread still uses it");
            });
        })
    })
    .join()
    .unwrap();
    if cfg!(debug_assertions) {
        assert_eq!(reports.len(), 1, "{reports:#?}");
        assert!(reports[0].contains("parks inside the initialiser of a `thread_local!`"));
        assert!(reports[0].contains(file!()), "it shows where: {}", reports[0]);
    } else {
        assert_eq!(reports, [""; 0]);
    }
}

/// `yield_now` suspends too.
#[test]
#[cfg(debug_assertions)]
fn the_lint_sees_a_yield_inside_an_initialiser() {
    thread_local!(static LAZY: Vec<u8> = {
        yield_now();
        vec![1]
    });
    let reports = std::thread::spawn(|| {
        reports_during(|| {
            run(|| LAZY.with(Vec::len));
        })
    })
    .join()
    .unwrap();
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert!(reports[0].contains("parks inside the initialiser of a `thread_local!`"));
}

/// The hook for its warning is code of the user's, and may end the very wait that is warned of.
#[test]
#[cfg(debug_assertions)]
fn a_wait_that_is_ended_while_it_is_warned_of_is_not_begun() {
    use greenloop::sync::Event;
    static EVENT: Event = Event::new();
    thread_local!(static LAZY: Vec<u8> = {
        EVENT.wait();
        vec![1]
    });
    let length = crate::support::assert_ends(|| {
        set_unhandled_hook(Some(Box::new(|_| EVENT.set())));
        run(|| LAZY.with(Vec::len))
    });
    assert_eq!(length, 1);
}

#[test]
fn the_lint_is_silent_about_parks_that_are_sound() {
    thread_local!(static LAZY: RefCell<Vec<u8>> = RefCell::new(vec![1]));
    let reports = std::thread::spawn(|| {
        reports_during(|| {
            run(|| {
                LAZY.with(|value| value.borrow_mut().push(2));
                // Inside `with`, after the initialiser.
                LAZY.with(|_| sleep(MOMENT));
                spawn(|| sleep(MOMENT)).join().unwrap();
                scope(|s| {
                    s.spawn(yield_now);
                });
            });
        })
    })
    .join()
    .unwrap();
    assert_eq!(reports, [""; 0]);
}
