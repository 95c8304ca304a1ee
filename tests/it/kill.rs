//! Kills: the table in the docs of `Greenlet::kill`, row by row, and what unwinds at awkward times.

use std::{
    cell::{Cell, RefCell},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    task::{Wake, Waker},
    time::{Duration, Instant},
};

use greenloop::{
    Builder, Deadline, Deferred, Greenlet, Killed, RunError, current, is_kill, reactor, run,
    shield, sleep, spawn,
    sync::{Event, Mutex},
    timeout, try_run, wait_for_deferred, wait_for_future, wait_readable, yield_now,
};

use crate::{
    hub::{AGES, MOMENT, OnDrop, Trace, message, note, reports_during},
    support::{poll, reports_of},
};

/// Kills `g` once it is parked, and checks that it ended by that, quietly.
fn kill_parked<T: std::fmt::Debug>(g: Greenlet<T>) {
    yield_now();
    yield_now();
    assert!(!g.is_finished());
    g.kill();
    assert!(!g.is_finished(), "kill returns at once");
    let error = g.join().unwrap_err();
    assert!(error.is_killed(), "{error}");
}

#[test]
fn a_greenlet_parked_in_any_call_unwinds_out_of_it_and_its_destructors_run() {
    type Park = (&'static str, fn());
    let parks: [Park; 8] = [
        ("sleep", || sleep(AGES)),
        ("join", || spawn(|| sleep(AGES)).join().unwrap()),
        ("join_timeout", || drop(spawn(|| sleep(AGES)).join_timeout(AGES))),
        ("wait_for_deferred", || {
            let (_resolver, deferred) = Deferred::<()>::new();
            drop(wait_for_deferred(deferred));
        }),
        ("wait_for_future", || wait_for_future(std::future::pending::<()>())),
        ("wait_readable", || {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let _ = wait_readable(ours.as_fd(), Deadline::NEVER);
        }),
        ("yield_now", || {
            loop {
                yield_now();
            }
        }),
        ("scope", || greenloop::scope(|s| drop(s.spawn(|| sleep(AGES))))),
    ];
    for (name, park) in parks {
        let reports = reports_during(|| {
            run(|| {
                let trace = Trace::default();
                let told = Rc::clone(&trace);
                kill_parked(spawn(move || {
                    let _first = OnDrop(|| note(&told, "first"));
                    let _second = OnDrop(|| note(&told, "second"));
                    park();
                    unreachable!("{name} returned");
                }));
                assert_eq!(*trace.borrow(), ["second", "first"], "{name}");
            });
        });
        assert_eq!(reports, [""; 0], "{name}");
    }
}

#[test]
fn a_killed_waiter_leaves_nothing_behind_that_wakes_its_successor_early() {
    run(|| {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let ours = Rc::new(ours);
        let fd = Rc::clone(&ours);
        kill_parked(spawn(move || drop(wait_readable(fd.as_fd(), Deadline::NEVER))));
        // In a debug build the first park at a place looks at its backtrace, which takes long.
        for duration in [AGES, 100 * MOMENT] {
            kill_parked(spawn(move || sleep(duration)));
        }
        // Takes the same slot, on the same stack.
        let begin = Instant::now();
        let next = spawn(move || {
            sleep(200 * MOMENT);
            begin.elapsed()
        });
        std::io::Write::write_all(&mut theirs, b"x").unwrap();
        assert!(next.join().unwrap() >= 200 * MOMENT);
        drop(ours);
    });
}

#[test]
fn a_kill_of_oneself_lands_at_the_next_cancellation_point() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let g = spawn(move || {
            current().kill();
            note(&told, "goes on");
            yield_now();
            note(&told, "not here");
        });
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(*trace.borrow(), ["goes on"]);
        // Without another cancellation point its value counts.
        let g = spawn(|| {
            current().kill();
            5
        });
        assert_eq!(g.join().unwrap(), 5);
    });
}

#[test]
fn a_kill_of_one_that_has_ended_does_nothing() {
    run(|| {
        let g = spawn(|| 5);
        yield_now();
        g.kill();
        g.as_ref().kill();
        assert_eq!(g.join().unwrap(), 5);
    });
}

#[test]
fn a_second_kill_during_the_unwind_changes_nothing() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let g = spawn(move || {
            let _slow = OnDrop(|| {
                sleep(MOMENT);
                note(&told, "cleaned up");
            });
            sleep(AGES);
        });
        yield_now();
        g.kill();
        g.kill();
        yield_now();
        assert!(!g.is_finished(), "it waits in its destructor");
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(*trace.borrow(), ["cleaned up"]);
    });
}

/// gevent G7: also from inside the tree that the greenlet waits for.
#[test]
fn a_child_may_kill_its_parent() {
    run(|| {
        let child_ended = Rc::new(Cell::new(false));
        let flag = Rc::clone(&child_ended);
        let parent = spawn(move || {
            let me = current();
            spawn(move || {
                me.kill();
                flag.set(true);
                "child"
            })
            .join()
            .unwrap();
            // The child's end came in the same turn: either is right, but the kill is not lost.
            yield_now();
            unreachable!()
        });
        assert!(parent.join().unwrap_err().is_killed());
        assert!(child_ended.get());
    });
}

#[test]
fn a_wake_that_came_before_the_kill_is_not_lost() {
    run(|| {
        let (resolver, deferred) = Deferred::<i32>::new();
        let seen = Rc::new(Cell::new(None));
        let out = Rc::clone(&seen);
        let g = spawn(move || {
            out.set(wait_for_deferred(deferred).ok());
            yield_now();
            unreachable!("the kill was lost");
        });
        yield_now();
        resolver.callback(5);
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(seen.get(), Some(5));
    });
}

#[test]
fn a_destructor_may_park_while_its_greenlet_unwinds_from_a_kill() {
    run(|| {
        let sum = Rc::new(Cell::new(0));
        let out = Rc::clone(&sum);
        kill_parked(spawn(move || {
            let _joins = OnDrop(|| out.set(out.get() + spawn(|| 1).join().unwrap()));
            let _sleeps = OnDrop(|| {
                sleep(MOMENT);
                out.set(out.get() + 10);
            });
            let _yields = OnDrop(|| {
                yield_now();
                out.set(out.get() + 100);
            });
            let _awaits = OnDrop(|| {
                out.set(out.get() + wait_for_future(async { spawn(|| 1000).await.unwrap() }));
            });
            let _catches = OnDrop(|| {
                assert!(catch_unwind(|| panic!("inside a destructor")).is_err());
                sleep(MOMENT);
                out.set(out.get() + 10_000);
            });
            sleep(AGES);
        }));
        assert_eq!(sum.get(), 11_111);
    });
}

#[test]
fn a_kill_that_comes_during_the_unwind_of_a_panic_does_not_replace_it() {
    run(|| {
        let fallible = Rc::new(Cell::new(None));
        let out = Rc::clone(&fallible);
        let g = spawn(move || {
            let _parks = OnDrop(|| {
                sleep(5 * MOMENT); // infallible: goes on
                let (_resolver, never) = Deferred::<()>::new();
                let failure = wait_for_deferred(never).unwrap_err();
                out.set(Some(failure.is::<Killed>()));
            });
            panic!("first");
        });
        yield_now();
        g.kill();
        let error = g.join().unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "first");
        assert_eq!(fallible.get(), Some(true), "a fallible call that would wait fails with Killed");
    });
}

/// What a killed waiter's canceller, or its errbacks, do may block like any destructor.
#[test]
fn a_canceller_may_park_when_its_waiter_is_killed() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let g = spawn(move || {
            let (_resolver, deferred) = Deferred::<()>::with_canceller(move |_| {
                note(&told, "cancelling");
                sleep(MOMENT);
                note(&told, "cancelled");
            });
            wait_for_deferred(deferred).unwrap();
        });
        kill_parked(g);
        assert_eq!(*trace.borrow(), ["cancelling", "cancelled"]);
        // The same for a timeout.
        let told = Rc::clone(&trace);
        let outcome = timeout(MOMENT, || {
            let (_resolver, deferred) = Deferred::<()>::with_canceller(move |_| {
                sleep(MOMENT);
                note(&told, "timed out");
            });
            wait_for_deferred(deferred).unwrap();
        });
        assert!(outcome.is_err());
        assert_eq!(trace.borrow().last().unwrap(), "timed out");
    });
}

#[test]
fn in_a_shield_fallible_waits_fail_infallible_ones_go_on_and_the_kill_lands_after_it() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let g = spawn(move || {
            shield(|| {
                let begin = Instant::now();
                sleep(5 * MOMENT);
                assert!(begin.elapsed() >= 5 * MOMENT, "the kill shortened a shielded sleep");
                note(&told, "slept");
                spawn(|| sleep(MOMENT)).join().unwrap();
                note(&told, "joined");
                yield_now();
                wait_for_future(async { spawn(|| ()).await.unwrap() });
                note(&told, "awaited");
                let (_resolver, never) = Deferred::<()>::new();
                assert!(wait_for_deferred(never).unwrap_err().is::<Killed>());
                note(&told, "Deferred failed");
                let (ours, _theirs) = UnixStream::pair().unwrap();
                let error = wait_readable(ours.as_fd(), Deadline::NEVER).unwrap_err();
                assert!(error.get_ref().is_some_and(|e| e.is::<Killed>()), "{error}");
                note(&told, "descriptor failed");
                let fired = Deferred::succeed(1);
                assert_eq!(wait_for_deferred(fired).unwrap(), 1, "what need not wait works");
            });
            note(&told, "outside");
            yield_now();
            unreachable!();
        });
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        let wanted =
            ["slept", "joined", "awaited", "Deferred failed", "descriptor failed", "outside"];
        assert_eq!(*trace.borrow(), wanted);
    });
}

#[test]
fn nested_shields_end_with_the_outermost() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let g = spawn(move || {
            shield(|| {
                shield(yield_now);
                yield_now();
                note(&told, "left the inner one");
            });
            let caught = catch_unwind(|| shield(|| panic!("leaves a shield")));
            assert!(caught.is_err());
            note(&told, "left the outer one");
            yield_now();
            note(&told, "not killed");
        });
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(*trace.borrow(), ["left the inner one", "left the outer one"]);
    });
}

#[test]
fn a_kill_does_not_get_through_any_number_of_shields() {
    fn shielded(depth: usize, f: &mut dyn FnMut()) {
        if depth == 0 { f() } else { shield(|| shielded(depth - 1, f)) }
    }
    run(|| {
        for depth in [1, 100, 254, 255, 256, 257, 1000] {
            let went_on = Rc::new(Cell::new(false));
            let flag = Rc::clone(&went_on);
            let large = Builder::new().stack_size(8 << 20);
            let g = large.spawn(move || {
                shielded(depth, &mut || {
                    sleep(MOMENT);
                    flag.set(true);
                });
                yield_now();
            });
            let g = g.unwrap();
            yield_now();
            g.kill();
            let error = g.join().unwrap_err();
            if depth > 255 && !went_on.get() {
                // More may be refused, but then in so many words and before anything ran.
                assert!(error.to_string().contains("shields are nested"), "{depth}: {error}");
                continue;
            }
            assert!(error.is_killed(), "{depth} shields: {error}");
            assert!(went_on.get(), "{depth} shields did not hold");
        }
    });
}

/// gevent G9, and corosensei's forced unwind, which would loop for ever.
#[test]
fn a_swallowed_kill_is_raised_again_and_the_others_still_run() {
    run(|| {
        let swallowed = Rc::new(Cell::new(0));
        let count = Rc::clone(&swallowed);
        let g = spawn(move || {
            for _ in 0..5 {
                let payload = catch_unwind(|| sleep(AGES)).unwrap_err();
                assert!(is_kill(&*payload));
                count.set(count.get() + 1);
            }
            "stubborn"
        });
        yield_now();
        g.kill();
        let mut turns = 0;
        while !g.is_finished() {
            turns += 1;
            yield_now();
        }
        assert_eq!(swallowed.get(), 5);
        assert!(turns >= 4, "the others had {turns} turns in between");
        assert_eq!(g.join().unwrap(), "stubborn", "it lived, so its value counts");
    });
}

#[test]
fn a_kill_does_not_unwind_out_of_a_waker_that_a_release_calls() {
    struct Counts(Mutex<u32>);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1; // A cancellation point, if it is one.
        }
    }
    static EVENT: Event = Event::new();
    let counts = Arc::new(Counts(Mutex::new(0)));
    let waker = Waker::from(Arc::clone(&counts));
    let mut waits = EVENT.wait_async();
    assert!(poll(&mut waits, &waker).is_pending());
    let ((), reports) = reports_of(|| {
        run(|| {
            let g = spawn(|| {
                current().kill();
                EVENT.set();
                sleep(AGES);
            });
            assert!(g.join().unwrap_err().is_killed());
        });
    });
    assert_eq!(*counts.0.lock().unwrap(), 1);
    assert_eq!(reports, [""; 0]);
}

#[test]
fn a_rethrown_kill_counts_as_a_kill() {
    run(|| {
        kill_parked(spawn(|| {
            let payload = catch_unwind(|| sleep(AGES)).unwrap_err();
            resume_unwind(payload)
        }));
    });
}

#[test]
fn a_kill_of_main_ends_the_run_as_killed() {
    let trace = Trace::default();
    let ended = try_run(|| {
        let main = current();
        let told = Rc::clone(&trace);
        let _told = OnDrop(move || note(&told, "main unwound"));
        spawn(move || main.kill());
        sleep(AGES);
    });
    assert!(matches!(ended, Err(RunError::Killed(_))), "{ended:?}");
    assert_eq!(*trace.borrow(), ["main unwound"]);
    let text = message(
        &*catch_unwind(|| {
            run(|| {
                current().kill();
                yield_now();
            })
        })
        .unwrap_err(),
    );
    assert!(text.contains("main greenlet was killed"), "{text}");
}

/// A destructor of a captured value is a destructor: it may block, as during any other unwind.
#[test]
fn what_a_never_started_greenlet_captured_may_block_when_it_is_dropped() {
    run(|| {
        let trace = Trace::default();
        let told = Rc::clone(&trace);
        let capture = OnDrop(move || {
            note(&told, "flushing");
            sleep(MOMENT);
            note(&told, "flushed");
        });
        let g = spawn(move || drop(capture));
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(*trace.borrow(), ["flushing", "flushed"]);
    });
}

// ---- other greenlets unwinding meanwhile -------------------------------------------------------

/// Parks in the midst of the unwind of a panic until the returned Deferred's other end is fired.
fn park_in_an_unwind() -> (Greenlet<()>, impl FnOnce()) {
    let (resolver, deferred) = Deferred::<()>::new();
    let deferred = Cell::new(Some(deferred));
    let g = spawn(move || {
        let _parks = OnDrop(move || drop(wait_for_deferred(deferred.take().unwrap())));
        panic!("unwinding");
    });
    yield_now();
    yield_now();
    assert!(std::thread::panicking(), "std counts panics per thread: the pollution is there");
    (g, move || resolver.callback(()))
}

#[test]
fn a_kill_lands_while_another_greenlet_is_parked_in_an_unwind() {
    run(|| {
        let victim = spawn(|| sleep(AGES));
        let late = {
            let (unwinder, release) = park_in_an_unwind();
            kill_parked(victim);
            // Also one that was born in the polluted state.
            kill_parked(spawn(|| sleep(AGES)));
            assert!(timeout(MOMENT, || sleep(AGES)).is_err(), "timeouts too");
            let panicked = spawn(|| panic!("another"));
            assert_eq!(panicked.join().unwrap_err().panic().unwrap().message(), "another");
            release();
            unwinder
        };
        assert_eq!(late.join().unwrap_err().panic().unwrap().message(), "unwinding");
        assert!(!std::thread::panicking(), "the count balances");
    });
}

#[test]
fn a_kill_during_ones_own_unwind_does_not_abort_while_another_unwinds_too() {
    run(|| {
        let (unwinder, release) = park_in_an_unwind();
        let (second, release_second) = park_in_an_unwind();
        // Both are parked in destructors: raising there would abort the process.
        unwinder.kill();
        second.kill();
        yield_now();
        yield_now();
        release();
        release_second();
        for g in [unwinder, second] {
            assert_eq!(g.join().unwrap_err().panic().unwrap().message(), "unwinding");
        }
    });
}

/// A panic that was caught is over: it must not make its greenlet deaf to kills.
#[test]
fn a_greenlet_that_caught_a_panic_is_killable_while_another_is_parked_in_an_unwind() {
    run(|| {
        let (unwinder, release) = park_in_an_unwind();
        let victim = spawn(|| {
            assert!(catch_unwind(|| panic!("caught")).is_err());
            sleep(AGES);
        });
        yield_now();
        yield_now();
        victim.kill();
        for _ in 0..5 {
            yield_now();
        }
        // At the latest when the other one has ended.
        release();
        assert!(unwinder.join().is_err());
        let ended = victim.join_timeout(Duration::from_millis(500));
        match ended {
            Ok(result) => assert!(result.unwrap_err().is_killed()),
            Err(victim) => {
                // Do not hold up the end of the run: wake it once more.
                victim.kill();
                victim.as_ref().kill();
                panic!("the kill was forgotten: {victim:?}");
            }
        }
    });
}

#[test]
fn a_timeout_strikes_after_a_caught_panic_while_another_is_parked_in_an_unwind() {
    run(|| {
        let (unwinder, release) = park_in_an_unwind();
        let victim = spawn(|| {
            assert!(catch_unwind(|| panic!("caught")).is_err());
            timeout(MOMENT, || sleep(Duration::from_secs(3))).is_err()
        });
        sleep(10 * MOMENT);
        release();
        assert!(unwinder.join().is_err());
        assert!(victim.join().unwrap(), "the timeout did not strike");
    });
}

/// The first panic of a greenlet that is not unwinding must not be printed as a second one, and
/// destructors see `panicking()` as std has it: documented pollution, without abort.
#[test]
fn panicking_is_polluted_by_a_parked_unwind_and_clean_after_it() {
    run(|| {
        let (unwinder, release) = park_in_an_unwind();
        let seen = spawn(std::thread::panicking).join().unwrap();
        assert!(seen, "if this fails the pollution is cured: say so in the docs");
        release();
        assert!(unwinder.join().is_err());
        assert!(!spawn(std::thread::panicking).join().unwrap());
    });
}

// ---- kills at the end of the run ---------------------------------------------------------------

#[test]
fn the_end_of_the_run_kills_what_a_destructor_waits_behind() {
    let trace = Trace::default();
    run(|| {
        let told = Rc::clone(&trace);
        spawn(move || {
            let inner = Rc::clone(&told);
            let waits = spawn(move || {
                let _said = OnDrop(|| note(&inner, "inner"));
                sleep(AGES);
            });
            let waits = Cell::new(Some(waits));
            let _joins = OnDrop(move || {
                assert!(waits.take().unwrap().join().unwrap_err().is_killed());
                note(&told, "outer");
            });
            sleep(AGES);
        });
        yield_now();
        yield_now();
    });
    assert_eq!(*trace.borrow(), ["inner", "outer"]);
}

#[test]
fn a_wait_in_a_destructor_at_the_end_of_the_run_is_waited_for() {
    let flushed = Rc::new(Cell::new(0));
    run(|| {
        for _ in 0..20 {
            let flushed = Rc::clone(&flushed);
            spawn(move || {
                let _flush = OnDrop(|| {
                    sleep(MOMENT);
                    flushed.set(flushed.get() + 1);
                });
                sleep(AGES);
            });
        }
        yield_now();
    });
    assert_eq!(flushed.get(), 20);
}

#[test]
fn killed_greenlets_give_their_stacks_back() {
    run(|| {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let place = Rc::new(Cell::new(0));
            let out = Rc::clone(&place);
            let g = spawn(move || {
                let local = 0u8;
                out.set(std::ptr::from_ref(&local).addr() >> 18);
                sleep(AGES);
            });
            kill_parked(g);
            seen.insert(place.get());
        }
        assert!(seen.len() <= 2, "{} stacks for one greenlet at a time", seen.len());
    });
}

#[test]
fn a_kill_from_a_callback_and_from_a_destructor_works() {
    run(|| {
        let g = spawn(|| sleep(AGES));
        let target = g.as_ref();
        reactor().call_later(MOMENT, move || target.kill());
        assert!(g.join().unwrap_err().is_killed());
        let g = Builder::new().name("from a destructor").spawn(|| sleep(AGES)).unwrap();
        let target = RefCell::new(Some(g.as_ref()));
        kill_parked(spawn(move || {
            let _kills = OnDrop(|| target.borrow_mut().take().unwrap().kill());
            sleep(AGES);
        }));
        assert!(g.join().unwrap_err().is_killed());
    });
}
