//! Looping calls, cooperators, bounded maps, delays and `react`, in virtual time.

use std::{
    cell::{Cell, RefCell},
    io::{Read, Write},
    panic,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use crate::support::{Dropped, Trace, assert_ends, reports_of};
use greenloop::{
    Abandoned, Deadline, Deferred, Failure, Resolver, current,
    net::TcpListener,
    net::TcpStream,
    reactor, run, shield, sleep, spawn, spawn_later,
    task::{
        CooperativeTask, Cooperator, LoopingCall, Pool, Step, TaskEnded, TaskPause, coiterate,
        cooperate, defer_later, react,
    },
    testing::{self, ManualClock},
    timeout, try_run, wait_for_deferred, yield_if_due, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// How long this run has lasted on its own clock.
fn elapsed() -> Duration {
    reactor().now().duration_since(Deadline::ZERO)
}

/// Runs `f` on a clock that it moves by hand.
fn by_hand<T>(f: impl FnOnce(&ManualClock) -> T) -> T {
    let clock = ManualClock::new();
    clock.run(|| f(&clock))
}

/// Adds to `trace` what a Deferred fires with.
fn note<T: 'static>(trace: &Trace, deferred: Deferred<T>) {
    let trace = trace.clone();
    drop(deferred.add_both(move |result| {
        trace.add(match result {
            Ok(_) => "done".to_owned(),
            Err(failure) => format!("failed: {failure}"),
        });
        Ok(())
    }));
}

/// A looping call that notes when it is called.
fn ticker(trace: &Trace) -> LoopingCall {
    let trace = trace.clone();
    LoopingCall::new(move || trace.add(format_args!("{:?}", elapsed())))
}

/// The Resolvers of Deferreds that were given out, oldest first.
#[derive(Clone, Default)]
struct Pending(Rc<RefCell<Vec<Resolver<()>>>>);

impl Pending {
    fn give(&self) -> Deferred<()> {
        let (resolver, deferred) = Deferred::new();
        self.0.borrow_mut().push(resolver);
        deferred
    }

    fn fire(&self) {
        let resolver = self.0.borrow_mut().remove(0);
        resolver.callback(());
    }

    fn fail(&self, text: &str) {
        let resolver = self.0.borrow_mut().remove(0);
        resolver.errback(Failure::msg(text));
    }
}

// ---- LoopingCall ------------------------------------------------------------------------------

/// Twisted `LoopTests.test_basicFunction`.
#[test]
fn a_looping_call_is_made_at_the_start_and_after_each_interval() {
    by_hand(|clock| {
        let trace = Trace::default();
        let (looping, done) = ticker(&trace).start(SECOND);
        note(&trace, done);
        clock.pump([SECOND / 2; 5]);
        assert_eq!(trace.taken(), ["500ms", "1s", "2s"], "the first call waits for its turn");
        assert!(looping.is_running());
        assert!(looping.stop());
        assert!(!looping.is_running() && !looping.stop(), "stopped once");
        clock.advance(HOUR);
        assert_eq!(trace.taken(), ["done"]);
    });
}

/// Twisted `LoopTests.test_delayedStart`, `test_stoppingBeforeDelayedStart` (L1, L5).
#[test]
fn a_delayed_start_makes_the_first_call_after_one_interval_and_can_be_stopped_before() {
    by_hand(|clock| {
        let trace = Trace::default();
        drop(ticker(&trace).start_later(2 * SECOND));
        clock.pump([SECOND; 4]);
        assert_eq!(trace.taken(), ["2s", "4s"]);

        let (looping, done) = ticker(&Trace::default()).start_later(HOUR);
        note(&trace, done);
        clock.advance(SECOND / 2);
        looping.stop();
        testing::settle();
        assert_eq!(trace.taken(), ["done"]);
    });
}

/// Twisted `LoopTests.test_callbackTimeSkips`, `test_reactorTimeSkips` (L2).
#[test]
fn ticks_that_were_missed_are_skipped_and_the_grid_stays() {
    by_hand(|clock| {
        let trace = Trace::default();
        drop(ticker(&trace).start(SECOND));
        clock.advance(Duration::ZERO);
        clock.pump([Duration::from_millis(3500), Duration::from_millis(500), SECOND]);
        assert_eq!(trace.taken(), ["0ns", "3.5s", "4s", "5s"]);
    });
}

/// The same where the call itself takes long; it may block (L2, L3).
#[test]
fn a_call_that_takes_longer_than_the_interval_never_overlaps_and_keeps_to_the_grid() {
    testing::run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        let inside = Cell::new(false);
        let (looping, done) = LoopingCall::new(move || {
            assert!(!inside.replace(true), "overlap");
            t.add(format_args!("{:?}", elapsed()));
            sleep(SECOND * 5 / 2);
            inside.set(false);
        })
        .start(SECOND);
        sleep(7 * SECOND);
        looping.stop();
        wait_for_deferred(done).unwrap();
        assert_eq!(trace.taken(), ["0ns", "3s", "6s"]);
        assert_eq!(elapsed(), Duration::from_millis(8500));
    });
}

/// Twisted's times are floats: "if `when + untilNext == when` add one interval" (L9).
#[test]
fn a_hundred_thousand_ticks_do_not_drift_by_a_nanosecond() {
    testing::run(|| {
        let interval = SECOND / 3;
        let ticks = Rc::new(Cell::new(0u32));
        let count = Rc::clone(&ticks);
        let (_looping, done) = LoopingCall::new(move || {
            assert_eq!(elapsed(), interval * count.get());
            count.set(count.get() + 1);
        })
        .start(interval);
        assert!(timeout(interval * 99_999 + interval / 2, || wait_for_deferred(done)).is_err());
        assert_eq!(ticks.get(), 100_000);
    });
}

/// Twisted `LoopTests.test_waitDeferred` (L3).
#[test]
fn a_deferred_is_waited_for_before_the_next_call_is_planned() {
    by_hand(|clock| {
        let (trace, pending) = (Trace::default(), Pending::default());
        let (t, p) = (trace.clone(), pending.clone());
        drop(
            LoopingCall::new(move || {
                t.add(format_args!("{:?}", elapsed()));
                p.give()
            })
            .start(SECOND),
        );
        clock.pump([SECOND / 4; 10]);
        assert_eq!(trace.taken(), ["250ms"]);
        pending.fire();
        clock.advance(SECOND / 4);
        assert_eq!(trace.taken(), [""; 0], "at 2.75 s: the next point is 3");
        clock.advance(SECOND / 4);
        assert_eq!(trace.taken(), ["3s"]);
    });
}

/// Twisted `LoopTests.test_failure`, `test_failurePropagation`, `DeferredLoopTests` (L4).
#[test]
fn an_error_a_panic_and_a_failed_deferred_end_the_loop_and_its_deferred() {
    fn ends_with<S: Step>(f: impl Fn() -> S + 'static) -> Failure {
        by_hand(|clock| {
            let calls = Rc::new(Cell::new(0));
            let count = Rc::clone(&calls);
            let call = LoopingCall::new(move || {
                count.set(count.get() + 1);
                f()
            });
            let (looping, done) = call.start(SECOND);
            clock.advance(HOUR);
            assert_eq!(calls.get(), 1);
            assert!(!looping.is_running() && !looping.stop() && !looping.reset());
            wait_for_deferred(done).unwrap_err()
        })
    }
    assert_eq!(ends_with(|| Err::<(), _>(Failure::msg("no"))).to_string(), "no");
    assert_eq!(ends_with(|| Deferred::fail(Failure::msg("late no"))).to_string(), "late no");
    let failure = ends_with(|| -> () { panic!("no luck") });
    assert_eq!(failure.panic_message(), Some("no luck"));
    assert!(failure.place().unwrap().contains("task.rs"));
}

#[test]
fn a_loop_that_fails_is_reported_once_if_nobody_has_its_deferred() {
    let (_, reports) = reports_of(|| {
        by_hand(|clock| {
            drop(LoopingCall::new(|| Err::<(), _>(Failure::msg("unheard"))).start(SECOND));
            clock.advance(SECOND);
        });
    });
    assert!(reports.len() == 1 && reports[0].contains("unheard"), "{reports:?}");
}

/// Twisted `LoopTests.test_stopAtOnce`, `test_stopAtOnceLater`, `DeferredLoopTests.test_stop` (L5).
#[test]
fn stop_waits_for_what_is_in_flight_and_does_not_cancel_it() {
    by_hand(|clock| {
        let (trace, pending) = (Trace::default(), Pending::default());
        let p = pending.clone();
        let (looping, done) = LoopingCall::new(move || p.give()).start(SECOND);
        note(&trace, done);
        clock.advance(SECOND);
        assert!(looping.stop() && !looping.is_running());
        clock.advance(SECOND);
        assert_eq!(trace.taken(), [""; 0]);
        pending.fire();
        testing::settle();
        assert_eq!(trace.taken(), ["done"]);

        // In the very step in which the next call is due.
        let (looping, done) = ticker(&trace).start_later(SECOND);
        note(&trace, done);
        let soon = SECOND - Duration::from_nanos(1);
        reactor().call_later(soon, move || assert!(looping.stop()));
        clock.advance(SECOND);
        assert_eq!(trace.taken(), ["done"]);

        // A call that stops its own loop, and one that fails after it (Twisted `FailAndStop`).
        let slot: Rc<RefCell<Option<greenloop::task::Looping>>> = Rc::default();
        for fails in [false, true] {
            let own = Rc::clone(&slot);
            let (looping, done) = LoopingCall::new(move || {
                assert!(own.borrow().as_ref().unwrap().stop());
                if fails { Err(Failure::msg("last words")) } else { Ok(()) }
            })
            .start(SECOND);
            slot.replace(Some(looping));
            note(&trace, done);
            clock.advance(SECOND);
        }
        assert_eq!(trace.taken(), ["done", "failed: last words"]);
    });
}

/// Twisted `LoopTests.test_reset` (L6).
#[test]
fn reset_skips_the_next_tick_and_begins_a_new_grid() {
    by_hand(|clock| {
        let trace = Trace::default();
        let t = trace.clone();
        let call = LoopingCall::with_count(move |n| t.add(format_args!("{:?}: {n}", elapsed())));
        let (looping, _done) = call.start_later(5 * SECOND);
        clock.advance(3 * SECOND);
        assert!(looping.reset());
        clock.pump([SECOND; 12]);
        assert_eq!(trace.taken(), ["8s: 1", "13s: 1"]);
        // In the midst of the very step in which it is due.
        let again = looping.clone();
        reactor().call_later(3 * SECOND - Duration::from_nanos(1), move || assert!(again.reset()));
        clock.advance(3 * SECOND);
        assert_eq!((elapsed(), trace.taken()), (18 * SECOND, vec![]));
        clock.pump([SECOND; 5]);
        assert_eq!(trace.taken(), ["23s: 1"]);
    });
}

/// Twisted `LoopTests.test_withCount`, `test_deferredWithCount`, `test_countLengthyIntervalCounts`,
/// `test_withCountFloatingPointBoundary` (L7).
#[test]
fn with_count_tells_how_many_points_have_passed_since_the_last_call() {
    by_hand(|clock| {
        let (trace, pending) = (Trace::default(), Pending::default());
        let (t, p) = (trace.clone(), pending.clone());
        let call = LoopingCall::with_count(move |n| {
            t.add(n);
            if n == 4 { p.give() } else { Deferred::succeed(()) }
        });
        drop(call.start(SECOND / 10));
        clock.advance(Duration::ZERO);
        clock.pump([SECOND / 10, SECOND / 10, SECOND * 3 / 10, SECOND / 10]);
        assert_eq!(trace.taken(), ["1", "1", "1", "3", "1"]);
        clock.advance(SECOND * 4 / 10); // in flight from here on
        clock.pump([SECOND / 10; 7]);
        pending.fire();
        clock.advance(SECOND / 10);
        assert_eq!(trace.taken(), ["4", "8"]);
    });
}

/// Twisted `LoopTests.test_everyIteration`, `test_withCountIntervalZero` (L8).
#[test]
fn an_interval_of_zero_calls_once_a_turn_and_starves_nobody() {
    assert_ends(|| {
        run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let calls = Rc::new(Cell::new(0u64));
            let count = Rc::clone(&calls);
            let turns = reactor().turns_count();
            let call = LoopingCall::with_count(move |n| {
                assert_eq!(n, 1);
                count.set(count.get() + 1);
            });
            let (looping, done) = call.start(Duration::ZERO);
            let server = spawn(move || listener.accept().unwrap().0.write_all(b"served"));
            let mut text = String::new();
            TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "served");
            server.join().unwrap().unwrap();
            while calls.get() < 10 {
                sleep(Duration::from_nanos(1));
            }
            looping.stop();
            wait_for_deferred(done).unwrap();
            let turns = reactor().turns_count() - turns;
            assert!(calls.get() <= turns, "{} calls in {turns} turns", calls.get());
        });
    });
}

#[test]
fn a_loop_that_was_stopped_can_be_started_again_and_cannot_run_twice() {
    by_hand(|clock| {
        let trace = Trace::default();
        let (looping, done) = ticker(&trace).start_later(SECOND);
        clock.advance(SECOND);
        looping.stop();
        let (again, _done) = wait_for_deferred(done).unwrap().start_later(2 * SECOND);
        clock.pump([SECOND; 4]);
        assert_eq!(trace.taken(), ["1s", "3s", "5s"]);
        assert!(!looping.is_running() && again.is_running());
    });
}

#[test]
fn cancelling_its_deferred_ends_the_loop_and_cancels_what_it_waits_for() {
    by_hand(|clock| {
        let trace = Trace::default();
        let t = trace.clone();
        let call = LoopingCall::new(move || {
            let t = t.clone();
            let (resolver, deferred) = Deferred::<()>::with_canceller(move |_| t.add("withdrawn"));
            std::mem::forget(resolver);
            deferred
        });
        let (looping, done) = call.start(SECOND);
        clock.advance(SECOND);
        done.cancel();
        testing::settle();
        assert_eq!(trace.taken(), ["withdrawn"]);
        assert!(!looping.is_running());
        assert!(wait_for_deferred(done).unwrap_err().is_cancelled());
    });
}

#[test]
fn loops_and_tasks_that_run_when_main_ends_end_without_a_report() {
    let trace = Trace::default();
    let (_, reports) = reports_of(|| {
        by_hand(|clock| {
            let guard = Dropped(trace.clone(), "call dropped");
            let call = LoopingCall::new(move || drop(format!("{:p}", &guard)));
            drop(call.start(SECOND));
            let guard = Dropped(trace.clone(), "steps dropped");
            drop(coiterate(std::iter::repeat_with(move || drop(format!("{:p}", &guard))).map(
                |()| {
                    let (resolver, deferred) = Deferred::<()>::new();
                    std::mem::forget(resolver);
                    deferred
                },
            )));
            let guard = Dropped(trace.clone(), "paused dropped");
            let task = cooperate(std::iter::repeat_with(move || drop(format!("{:p}", &guard))));
            std::mem::forget(task.pause().unwrap());
            note(&trace, task.when_done());
            clock.advance(HOUR);
        });
    });
    assert_eq!(reports, [""; 0]);
    let mut seen = trace.taken();
    seen.sort();
    let cancelled = "failed: cancelled before it had a result; ask again if it is still wanted";
    assert_eq!(seen, ["call dropped", cancelled, "paused dropped", "steps dropped"]);
    // The thread's cooperator serves the next run too.
    run(|| wait_for_deferred(coiterate([(), ()])).unwrap());
}

// ---- Cooperator -------------------------------------------------------------------------------

/// Steps that note a name and a number.
fn steps(trace: &Trace, name: &'static str, count: u32) -> impl Iterator<Item = ()> + use<> {
    let trace = trace.clone();
    (0..count).map(move |n| trace.add(format_args!("{name}{n}")))
}

/// Twisted `CoiterateTests`, with several tasks (C1).
#[test]
fn tasks_make_a_step_each_in_turn_and_everybody_else_runs_between_slices() {
    testing::run(|| {
        let trace = Trace::default();
        let all = [("a", 3), ("b", 1), ("c", 2)].map(|(name, n)| coiterate(steps(&trace, name, n)));
        let t = trace.clone();
        let other = spawn(move || {
            for _ in 0..3 {
                t.add("other");
                yield_now();
            }
        });
        all.into_iter().for_each(|done| wait_for_deferred(done).unwrap());
        other.join().unwrap();
        let seen = trace.taken();
        let steps: Vec<_> = seen.iter().filter(|what| *what != "other").collect();
        assert_eq!(steps, ["a0", "b0", "c0", "a1", "c1", "a2"]);
        // In virtual time a slice is one step.
        assert_eq!(seen[..4], ["a0", "other", "b0", "other"]);
    });
}

/// On a real clock tasks run on until their slice is over, however many steps that is.
#[test]
fn a_slice_is_as_long_as_it_is_set() {
    /// How many steps were made before another greenlet ran.
    fn steps_in_a_slice(slice: Duration) -> u64 {
        assert_ends(move || {
            run(|| {
                let steps = Rc::new(Cell::new(0u64));
                let count = Rc::clone(&steps);
                let cooperator = Cooperator::new().slice(slice);
                let begun = Instant::now();
                drop(cooperator.cooperate(std::iter::repeat_with(move || {
                    count.set(count.get() + 1);
                })));
                yield_now(); // the driver is first in the queue
                assert!(begun.elapsed() >= slice);
                cooperator.stop();
                steps.get()
            })
        })
    }
    assert_eq!(steps_in_a_slice(Duration::ZERO), 1);
    assert!(steps_in_a_slice(Duration::from_millis(20)) > 1);
}

/// Twisted `test_cooperation`: "round-robin that continues where it stopped".
#[test]
fn a_task_that_is_added_later_takes_its_turn_after_the_others() {
    testing::run(|| {
        let trace = Trace::default();
        let (t, own) = (trace.clone(), trace.clone());
        let adder = (0..2).map(move |n| {
            own.add(format_args!("adder{n}"));
            if n == 0 {
                drop(coiterate(steps(&t, "new", 1)));
            }
        });
        let all = [coiterate(adder), coiterate(steps(&trace, "b", 2))];
        all.into_iter().for_each(|done| wait_for_deferred(done).unwrap());
        assert_eq!(trace.taken(), ["adder0", "b0", "new0", "adder1", "b1"]);
    });
}

/// Twisted `RunStateTests`, `test_yieldedDeferred` (C2).
#[test]
fn a_yielded_deferred_pauses_its_own_task_only() {
    testing::run(|| {
        let (trace, pending) = (Trace::default(), Pending::default());
        let (t, p) = (trace.clone(), pending.clone());
        let waiting = cooperate((0..2).map(move |n| {
            t.add(format_args!("waits{n}"));
            p.give()
        }));
        wait_for_deferred(coiterate(steps(&trace, "b", 3))).unwrap();
        assert_eq!(trace.taken(), ["waits0", "b0", "b1", "b2"]);
        pending.fire();
        testing::settle();
        assert_eq!(trace.taken(), ["waits1"]);
        pending.fire();
        wait_for_deferred(waiting.when_done()).unwrap();
    });
}

/// Twisted `test_taskFailed`, `UnexpectedError`, `...ActuallyLater`, `...NotActuallyLater`
/// (C2, C3).
#[test]
fn what_fails_in_a_task_ends_that_task_with_it_and_no_other() {
    testing::run(|| {
        let (trace, pending) = (Trace::default(), Pending::default());
        let p = pending.clone();
        let at_once = cooperate([Ok(()), Err(Failure::msg("an error"))]);
        let in_fired = cooperate([Deferred::fail(Failure::msg("a fired Deferred"))]);
        let in_later = cooperate(std::iter::once_with(move || p.give()));
        let in_panic = cooperate((0..5).map(|n| assert!(n < 2, "a panic")));
        let other = coiterate(steps(&trace, "b", 4));
        testing::settle();
        pending.fail("a later Deferred");
        wait_for_deferred(other).unwrap();
        for (task, text) in [
            (at_once, "an error"),
            (in_fired, "a fired Deferred"),
            (in_later, "a later Deferred"),
            (in_panic, "panicked: a panic"),
        ] {
            let Some(TaskEnded::Failed(failure)) = task.ended() else { panic!("{task:?}") };
            assert_eq!(failure.to_string(), text);
            // As often as it is asked.
            for _ in 0..2 {
                let told = wait_for_deferred(task.when_done()).unwrap_err();
                assert_eq!(told.to_string(), format!("the cooperative task failed: {text}"));
            }
            assert!(matches!(task.pause(), Err(TaskEnded::Failed(_))));
            assert!(matches!(task.stop(), Err(TaskEnded::Failed(_))));
        }
        let failure = wait_for_deferred(coiterate([Err::<(), _>(Abandoned)])).unwrap_err();
        assert!(failure.is::<Abandoned>(), "coiterate gives the failure itself");
    });
}

#[test]
fn the_failure_of_a_task_is_reported_once_if_nobody_asks() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            drop(cooperate([Err::<(), _>(Failure::msg("unheard"))]));
            drop(coiterate([Err::<(), _>(Failure::msg("of coiterate"))]));
            let told = cooperate([Err::<(), _>(Failure::msg("heard"))]);
            wait_for_deferred(told.when_done()).unwrap_err();
        });
    });
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports.iter().any(|report| report.contains("unheard")), "{reports:?}");
    assert!(reports.iter().any(|report| report.contains("of coiterate")), "{reports:?}");
}

/// Twisted `CooperativeTaskTests.test_pauseResume`, `test_resumeNotPaused` (C4).
#[test]
fn pauses_are_guards_and_add_up() {
    testing::run(|| {
        let (trace, pending) = (Trace::default(), Pending::default());
        let (t, p) = (trace.clone(), pending.clone());
        let task = cooperate((0..4).map(move |n| {
            t.add(n);
            if n == 1 { p.give() } else { Deferred::succeed(()) }
        }));
        let (one, two) = (task.pause().unwrap(), task.pause().unwrap());
        testing::settle();
        drop(one);
        testing::settle();
        assert_eq!(trace.taken(), [""; 0]);
        drop(two);
        testing::settle();
        assert_eq!(trace.taken(), ["0", "1"]);
        let pause = task.pause().unwrap(); // while it waits for a Deferred
        pending.fire();
        testing::settle();
        assert_eq!(trace.taken(), [""; 0]);
        drop(pause);
        wait_for_deferred(task.when_done()).unwrap();
        assert_eq!(trace.taken(), ["2", "3"]);
        assert!(matches!(task.pause(), Err(TaskEnded::Done)));
    });
}

#[test]
fn those_who_no_longer_want_to_know_of_a_tasks_end_do_not_pile_up() {
    testing::run(|| {
        let task = cooperate([()]);
        let listens = task.when_done();
        let given_up = std::iter::repeat_with(|| {
            let done = task.when_done();
            done.cancel();
            done.canceller()
        });
        let given_up: Vec<_> = given_up.take(1000).collect();
        let kept = given_up.iter().filter(|done| !format!("{done:?}").contains("gone"));
        assert!(kept.count() < 10);
        assert!(wait_for_deferred(listens).is_ok());
    });
}

/// Twisted `CooperativeTaskTests.test_stop`, `test_whenDone` (C4).
#[test]
fn stop_ends_a_task_at_once_and_drops_its_steps() {
    testing::run(|| {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "dropped");
        let task = cooperate(std::iter::repeat_with(move || drop(format!("{:p}", &guard))));
        let other = coiterate(steps(&trace, "b", 2));
        let all = [task.when_done(), task.when_done()];
        yield_now();
        assert!(task.ended().is_none());
        task.stop().unwrap();
        assert_eq!(trace.taken(), ["dropped"]);
        for done in all.into_iter().chain([task.when_done()]) {
            let failure = wait_for_deferred(done).unwrap_err();
            assert!(matches!(failure.downcast_ref(), Some(TaskEnded::Stopped)), "{failure}");
        }
        assert!(matches!(task.stop(), Err(TaskEnded::Stopped)));
        wait_for_deferred(other).unwrap();
    });
}

/// A destructor of its steps, the canceller of its Deferred, a callback of another task: whatever
/// blocks, and is unwound, keeps nobody else from being told.
#[test]
fn a_stop_that_is_unwound_by_a_timeout_ends_and_tells_all_the_same() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            sleep(HOUR);
        }
    }
    let is_told = |done: Deferred<()>| {
        matches!(
            wait_for_deferred(done).unwrap_err().downcast_ref(),
            Some(TaskEnded::Stopped | TaskEnded::CooperatorStopped)
        )
    };
    testing::run(|| {
        let slow = Slow;
        let task = cooperate(std::iter::repeat_with(move || drop(format!("{:p}", &slow))));
        let done = task.when_done();
        assert!(timeout(SECOND, || task.stop()).is_err());
        assert!(is_told(done));

        let task = cooperate(std::iter::once_with(|| {
            let (resolver, deferred) = Deferred::<()>::with_canceller(|_| sleep(HOUR));
            std::mem::forget(resolver);
            deferred
        }));
        let done = task.when_done();
        testing::settle();
        assert!(timeout(SECOND, || task.stop()).is_err());
        assert!(is_told(done));

        let cooperator = Cooperator::new();
        let tasks = [(); 3].map(|()| cooperator.cooperate(std::iter::repeat(())));
        drop(tasks[0].when_done().add_both(|_| {
            sleep(HOUR);
            Ok(())
        }));
        let others = [&tasks[0], &tasks[1], &tasks[2]].map(CooperativeTask::when_done);
        assert!(timeout(SECOND, || cooperator.stop()).is_err());
        assert!(others.into_iter().all(is_told));
    });
}

/// Upstream, a Deferred that fails after its task was stopped raises `AlreadyCalledError`.
#[test]
fn a_deferred_that_fails_after_its_task_was_stopped_ends_nothing_twice() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            for late in [true, false] {
                let (trace, slot) = (Trace::default(), Rc::new(Cell::new(None)));
                let (t, given) = (trace.clone(), Rc::clone(&slot));
                let task = cooperate(std::iter::once_with(move || {
                    let t = t.clone();
                    let (resolver, deferred) = Deferred::with_canceller(move |cancelling| {
                        t.add("withdrawn");
                        if late {
                            cancelling.errback(Failure::msg("late words"));
                        }
                    });
                    given.set(Some(resolver));
                    deferred
                }));
                let other = coiterate(steps(&trace, "b", 1));
                note(&trace, task.when_done());
                testing::settle();
                task.stop().unwrap();
                slot.take().unwrap().errback(Failure::msg("too late for anybody"));
                wait_for_deferred(other).unwrap();
                let stopped = "failed: the cooperative task was stopped";
                assert_eq!(trace.taken(), ["b0", "withdrawn", stopped]);
            }
        });
    });
    assert!(reports.len() == 1 && reports[0].contains("late words"), "{reports:?}");
}

/// Upstream, `stop` with five tasks ends tasks 0, 2 and 4, and a paused one only when it is
/// resumed (C5).
#[test]
fn stopping_a_cooperator_ends_each_of_its_tasks_the_paused_ones_too() {
    testing::run(|| {
        let trace = Trace::default();
        let cooperator = Cooperator::new();
        let tasks: Vec<CooperativeTask> =
            (0..5).map(|_| cooperator.cooperate(std::iter::repeat(()))).collect();
        let waiting = cooperator.coiterate(std::iter::once_with(|| {
            let (resolver, deferred) = Deferred::<()>::new();
            std::mem::forget(resolver);
            deferred
        }));
        let pauses: Vec<TaskPause> = tasks[1..3].iter().map(|task| task.pause().unwrap()).collect();
        tasks.iter().for_each(|task| note(&trace, task.when_done()));
        note(&trace, waiting);
        yield_now();
        assert!(cooperator.is_running());
        cooperator.stop();
        cooperator.stop();
        assert_eq!(trace.taken(), ["failed: the cooperator of the task was stopped"; 6]);
        assert!(
            tasks.iter().all(|task| matches!(task.ended(), Some(TaskEnded::CooperatorStopped)))
        );
        drop(pauses);
        testing::settle();
        assert!(!cooperator.is_running());
    });
}

/// Twisted `test_addToStopped`, `test_stopCooperatorReentrancy` (C5).
#[test]
fn a_stopped_cooperator_takes_nothing_and_may_be_stopped_by_a_step_or_a_callback() {
    testing::run(|| {
        let trace = Trace::default();
        let cooperator = Cooperator::new();
        let (own, t) = (cooperator.clone(), trace.clone());
        let stopper = cooperator.cooperate((0..3).map(move |n| {
            t.add(format_args!("step{n}"));
            own.stop();
        }));
        note(&trace, stopper.when_done());
        let (own, t) = (cooperator.clone(), trace.clone());
        let other = cooperator.cooperate(std::iter::repeat(()));
        drop(other.when_done().add_errback(move |_| {
            let guard = Dropped(t.clone(), "dropped unseen");
            let late = own.cooperate(std::iter::repeat_with(move || drop(format!("{:p}", &guard))));
            assert!(matches!(late.ended(), Some(TaskEnded::CooperatorStopped)));
            own.stop();
            Ok(())
        }));
        testing::settle();
        let stopped = "failed: the cooperator of the task was stopped";
        assert_eq!(trace.taken(), ["step0", stopped, "dropped unseen"]);
    });
}

/// Twisted `started=False` and `start()` (C5).
#[test]
fn a_held_cooperator_makes_no_step_until_it_is_started() {
    testing::run(|| {
        let trace = Trace::default();
        let cooperator = Cooperator::new().held();
        let done = cooperator.coiterate(steps(&trace, "a", 2));
        testing::settle();
        assert!(trace.taken().is_empty() && !cooperator.is_running());
        cooperator.start();
        cooperator.start();
        wait_for_deferred(done).unwrap();
        assert_eq!(trace.taken(), ["a0", "a1"]);
    });
}

/// Twisted: "removing the last task cancels the delayed call".
#[test]
fn a_cooperator_without_tasks_leaves_nothing_behind() {
    assert_ends(|| {
        let ended = try_run(|| {
            let task = cooperate(std::iter::repeat(()));
            yield_now();
            task.stop().unwrap();
            wait_for_deferred(coiterate([()])).unwrap();
            let (_resolver, deferred) = Deferred::<()>::new();
            wait_for_deferred(deferred).map_err(drop)
        });
        let Err(greenloop::RunError::WouldBlockForever(report)) = ended else { panic!() };
        assert_eq!(report.parked().len(), 1, "{report}");
    });
}

/// Those that the end of a run had met in the queue were looked at by the next run, a turn each.
#[test]
fn the_tasks_of_an_earlier_run_take_no_turns_of_a_later_one() {
    let traced = || {
        testing::run(|| {
            let trace = Trace::default();
            let done = coiterate(steps(&trace, "a", 3));
            let t = trace.clone();
            spawn(move || (0..6).for_each(|n| (t.add(n), yield_now()).1));
            wait_for_deferred(done).unwrap();
            testing::settle();
            trace.taken()
        })
    };
    let before = traced();
    testing::run(|| {
        (0..5).for_each(|_| drop(cooperate(std::iter::repeat(()))));
        (0..7).for_each(|_| yield_now());
    });
    assert_eq!(traced(), before);
}

/// Upstream, coiterate's Deferred cannot be cancelled.
#[test]
fn cancelling_the_deferred_of_coiterate_stops_its_task() {
    testing::run(|| {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "dropped");
        let done = coiterate(std::iter::repeat_with(move || drop(format!("{:p}", &guard))));
        yield_now();
        done.cancel();
        assert_eq!(trace.taken(), ["dropped"]);
        assert!(wait_for_deferred(done).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_step_that_kills_its_greenlet_ends_the_tasks_of_its_cooperator_but_not_later_ones() {
    testing::run(|| {
        let trace = Trace::default();
        let cooperator = Cooperator::new();
        let killer = cooperator.coiterate(std::iter::once_with(|| {
            current().kill();
            yield_now();
        }));
        let other = cooperator.coiterate(std::iter::repeat(()));
        assert!(wait_for_deferred(killer).unwrap_err().is_cancelled());
        assert!(wait_for_deferred(other).unwrap_err().is_cancelled());
        wait_for_deferred(cooperator.coiterate(steps(&trace, "a", 1))).unwrap();
        assert_eq!(trace.taken(), ["a0"]);
    });
}

#[test]
#[should_panic(expected = "Cooperator::cooperate: called outside a reactor")]
fn cooperating_outside_a_run_says_so() {
    drop(cooperate([()]));
}

// ---- yield_if_due -----------------------------------------------------------------------------

#[test]
fn a_loop_that_computes_yields_when_its_slice_is_over_and_not_before() {
    assert_ends(|| {
        run(|| {
            for _ in 0..3 {
                let has_run = Rc::new(Cell::new(false));
                let other = Rc::clone(&has_run);
                spawn(move || other.set(true));
                let begun = Instant::now();
                yield_if_due(); // the slice begins
                let mut calls = 0u32;
                while !has_run.get() {
                    calls += 1;
                    yield_if_due();
                }
                assert!(begun.elapsed() >= Duration::from_millis(1), "after {calls} calls");
            }
        });
    });
}

#[test]
fn in_virtual_time_each_call_yields() {
    testing::run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        let other = spawn(move || {
            (0..3).for_each(|n| {
                t.add(format_args!("b{n}"));
                yield_if_due();
            });
        });
        (0..3).for_each(|n| {
            trace.add(format_args!("a{n}"));
            yield_if_due();
        });
        other.join().unwrap();
        assert_eq!(trace.taken(), ["a0", "b0", "a1", "b1", "a2", "b2"]);
    });
}

#[test]
fn yield_if_due_notices_a_kill_and_a_timeout() {
    testing::run(|| {
        let endless = spawn(|| {
            loop {
                yield_if_due();
            }
        });
        yield_now();
        endless.kill();
        assert!(endless.join().unwrap_err().is_killed());
    });
    assert_ends(|| {
        run(|| {
            let limit = Duration::from_millis(1);
            assert!(
                timeout(limit, || loop {
                    yield_if_due()
                })
                .is_err()
            );
        });
    });
}

#[test]
#[should_panic(expected = "greenloop::yield_if_due: called outside a reactor")]
fn yield_if_due_outside_a_run_says_so() {
    yield_if_due();
}

// ---- Pool::map --------------------------------------------------------------------------------

#[test]
fn a_pool_maps_with_at_most_so_many_calls_at_once_and_keeps_the_order() {
    testing::run(|| {
        let (now, most) = (Cell::new(0), Cell::new(0));
        let waits = [5, 1, 4, 2, 3, 1];
        let results = Pool::new(2).map(&waits, |wait| {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            sleep(SECOND * *wait);
            now.set(now.get() - 1);
            Ok::<_, Failure>((*wait, elapsed()))
        });
        let at = |wait, seconds| (wait, SECOND * seconds);
        // One takes 5 and 3, the other 1, 4, 2 and 1.
        let expected = [at(5, 5), at(1, 1), at(4, 5), at(2, 7), at(3, 8), at(1, 8)];
        assert_eq!(results.unwrap(), expected);
        assert_eq!((now.get(), most.get()), (0, 2));
        let none: Result<Vec<u32>, Failure> = Pool::new(3).map([], |n: u32| Ok(n));
        assert_eq!(none.unwrap(), Vec::<u32>::new());
    });
}

#[test]
fn the_next_item_is_asked_for_when_there_is_room_and_by_the_caller() {
    testing::run(|| {
        let trace = Trace::default();
        let caller = current();
        let items = (0..3).inspect(|n| {
            assert_eq!(current(), caller);
            trace.add(format_args!("item {n} at {:?}", elapsed()));
            sleep(SECOND); // it may block: others go on
        });
        let call = |_| {
            sleep(10 * SECOND);
            Ok::<_, Failure>(())
        };
        Pool::new(1).map(items, call).unwrap();
        assert_eq!(trace.taken(), ["item 0 at 0ns", "item 1 at 11s", "item 2 at 22s"]);
    });
}

#[test]
fn the_first_error_kills_the_others_and_nothing_more_begins() {
    testing::run(|| {
        let trace = Trace::default();
        let result = Pool::new(3).map(0.., |n: u64| {
            let _ended = Dropped(trace.clone(), "ended");
            trace.add(format_args!("begun {n}"));
            sleep(SECOND * (10 - n as u32));
            trace.add("failing");
            Err::<(), _>(n)
        });
        assert_eq!(result, Err(2));
        assert_eq!(elapsed(), 8 * SECOND);
        let expected = ["begun 0", "begun 1", "begun 2", "failing", "ended", "ended", "ended"];
        assert_eq!(trace.taken(), expected);
    });
}

#[test]
fn an_error_of_the_last_call_is_noticed_while_the_others_run() {
    testing::run(|| {
        let result = Pool::new(5).map([3600, 1], |seconds: u64| {
            sleep(Duration::from_secs(seconds));
            if seconds == 1 { Err("early") } else { Ok(()) }
        });
        assert_eq!((result, elapsed()), (Err("early"), SECOND));
    });
}

#[test]
fn a_panic_kills_the_others_and_reaches_the_caller() {
    testing::run(|| {
        let trace = Trace::default();
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            Pool::new(2).map(0.., |n: u32| {
                let _ended = Dropped(trace.clone(), "ended");
                sleep(SECOND * (5 + n));
                assert!(n != 0, "no luck");
                Ok::<_, Failure>(())
            })
        }));
        let payload = caught.unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"no luck"));
        assert_eq!((elapsed(), trace.taken()), (5 * SECOND, vec!["ended".into(), "ended".into()]));
    });
}

#[test]
fn a_kill_or_timeout_of_the_caller_ends_every_call_first() {
    testing::run(|| {
        let trace = Trace::default();
        let call = |_| {
            let _ended = Dropped(trace.clone(), "ended");
            shield(|| sleep(10 * SECOND));
            sleep(HOUR);
            Ok::<_, Failure>(())
        };
        assert!(timeout(SECOND, || Pool::new(2).map(0..5, call)).is_err());
        assert_eq!((elapsed(), trace.taken().len()), (10 * SECOND, 2));
    });
}

#[test]
fn a_call_that_is_killed_alone_leaves_no_hole() {
    testing::run(|| {
        let caught = panic::catch_unwind(|| {
            Pool::new(2).map([1, 2], |n| {
                if n == 1 {
                    current().kill();
                }
                sleep(SECOND);
                Ok::<_, Failure>(n)
            })
        });
        let payload = caught.unwrap_err();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied());
        assert!(text.unwrap().contains("a call was killed"), "{text:?}");
    });
}

/// Twice the limit was counted with.
#[test]
fn any_limit_is_one_even_the_largest() {
    testing::run(|| {
        let all = Pool::new(usize::MAX).map(0..100, |n| {
            sleep(SECOND);
            Ok::<u32, Failure>(n)
        });
        assert!(all.unwrap().into_iter().eq(0..100));
        assert_eq!(elapsed(), SECOND);
    });
}

// ---- defer_later ------------------------------------------------------------------------------

/// Twisted `DeferLaterTests.test_callback`, `test_errback`, `test_noCallback`.
#[test]
fn defer_later_fires_after_the_delay_with_what_the_function_gives() {
    by_hand(|clock| {
        let trace = Trace::default();
        note(&trace, defer_later(SECOND, || Ok(())));
        note(&trace, defer_later::<()>(2 * SECOND, || Err(Failure::msg("no"))));
        note(&trace, defer_later::<()>(3 * SECOND, || panic!("never")));
        clock.advance(SECOND - Duration::from_nanos(1));
        assert_eq!(trace.taken(), [""; 0]);
        clock.pump([Duration::from_nanos(1), SECOND, SECOND]);
        assert_eq!(trace.taken(), ["done", "failed: no", "failed: panicked: never"]);
        let blocks = defer_later(SECOND, || {
            sleep(SECOND);
            Ok(42)
        });
        clock.pump([SECOND, SECOND]);
        assert_eq!(wait_for_deferred(blocks).unwrap(), 42);
    });
}

/// Twisted `DeferLaterTests.test_cancel`.
#[test]
fn cancelling_defer_later_removes_the_timer_and_drops_the_function() {
    let ended = assert_ends(|| {
        let ended = testing::try_run(|| {
            let trace = Trace::default();
            let guard = Dropped(trace.clone(), "dropped");
            let deferred = defer_later(HOUR, move || {
                guard.0.add("called");
                Ok(())
            });
            deferred.cancel();
            assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
            assert_eq!(trace.taken(), ["dropped"]);
            let (_resolver, never) = Deferred::<()>::new();
            wait_for_deferred(never).map_err(drop)
        });
        ended.map_err(|error| error.to_string())
    });
    let text = ended.unwrap_err();
    assert!(text.contains("would wait for ever") && text.contains("since 0.000 s"), "{text}");
}

// ---- react ------------------------------------------------------------------------------------

/// Twisted `ReactTests.test_runsUntilAsyncCallback`, `test_exitWithDefinedCode`.
#[test]
fn react_gives_zero_for_a_value_and_a_code_of_its_own_for_one() {
    assert_eq!(react(|| wait_for_deferred(Deferred::succeed(()))), ExitCode::SUCCESS);
    let later = react(|| {
        let (resolver, deferred) = Deferred::new();
        reactor().call_when_running(move || resolver.callback(ExitCode::from(42)));
        wait_for_deferred(deferred)
    });
    assert_eq!(later, ExitCode::from(42));
}

/// Twisted `ReactTests.test_runsUntilAsyncErrback`, `test_runsUntilSyncErrback`.
#[test]
fn react_gives_one_for_a_failure_and_reports_it_once() {
    let fails: [fn() -> Result<(), Failure>; 3] = [
        || Err(Failure::msg("bad luck")),
        || {
            let (resolver, deferred) = Deferred::<()>::new();
            reactor().call_when_running(move || resolver.errback(Failure::msg("bad luck")));
            wait_for_deferred(deferred)
        },
        || {
            let (_resolver, deferred) = Deferred::<()>::new();
            wait_for_deferred(deferred)
        },
    ];
    for (fail, text) in fails.into_iter().zip(["bad luck", "bad luck", "would wait for ever"]) {
        let (code, reports) = reports_of(|| react(fail));
        assert_eq!(code, ExitCode::FAILURE);
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].starts_with("unhandled failure in the main function"), "{reports:?}");
        assert!(reports[0].contains(text), "{reports:?}");
    }
}

/// Twisted `ReactTests.test_synchronousStop`, `test_asynchronousStop`, `test_singleStopCallback`,
/// `test_singleStopErrback`.
#[test]
fn react_ends_once_when_somebody_else_stops_the_reactor() {
    let stopped = || {
        reactor().stop();
        sleep(HOUR);
        Ok(())
    };
    let (code, reports) = reports_of(|| react(stopped));
    assert_eq!((code, reports), (ExitCode::SUCCESS, vec![]));
    let stopped_later = || {
        spawn_later(Duration::ZERO, || reactor().stop());
        sleep(HOUR);
        Ok(ExitCode::from(3))
    };
    assert_eq!(react(stopped_later), ExitCode::SUCCESS);
    // It was stopped, and had its result all the same.
    let ends = || {
        reactor().stop();
        reactor().stop();
        Err::<(), _>(Failure::msg("last words"))
    };
    let (code, reports) = reports_of(|| react(ends));
    assert_eq!(code, ExitCode::FAILURE);
    assert!(reports.len() == 1 && reports[0].contains("last words"), "{reports:?}");
}

#[test]
#[should_panic(expected = "main has no luck")]
fn react_hands_on_a_panic() {
    react::<()>(|| panic!("main has no luck"));
}
