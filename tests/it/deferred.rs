//! Deferreds with a clock, and combinators with greenlets. What needs neither is tested beside the
//! source. D31 to D36 are our numbers for what `DeferredAddTimeoutTests` upstream asks.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    Abandoned, Deferred, Elapsed, Failure, Resolver, RunError, first, gather_results, race,
    reactor, run, set_debugging, sleep, spawn, try_run, wait_for_deferred, wait_for_greenlet,
    yield_now,
};

use crate::support::{Trace, assert_ends, reports_of};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

fn broken() -> Failure {
    Failure::new(io::Error::other("broken"))
}

fn error_of<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
    result.expect_err("a failure").to_string()
}

/// Asserts that no timer is left: main would wait for ever, and is told so at once.
#[track_caller]
fn leaves_no_timer(f: impl FnOnce() + Send + 'static) {
    let ended = assert_ends(move || {
        let ended = try_run(|| {
            f();
            let (_resolver, never) = Deferred::<()>::new();
            let _ = wait_for_deferred(never);
        });
        matches!(ended, Err(RunError::WouldBlockForever(_)))
    });
    assert!(ended, "the run ended otherwise");
}

/// D31: timedOut.
#[test]
fn a_deferred_that_takes_too_long_is_cancelled_and_fails_with_elapsed() {
    run(|| {
        let trace = Trace::default();
        let noted = trace.adds("cancelled");
        let (resolver, deferred) = Deferred::<u32>::with_canceller(move |_| noted());
        let before = Instant::now();
        let failure = wait_for_deferred(deferred.add_timeout(SHORT)).unwrap_err();
        assert!(before.elapsed() >= SHORT);
        assert!(failure.is::<Elapsed>() && !failure.is_cancelled());
        assert!(resolver.is_cancelled());
        assert_eq!(trace.taken(), ["cancelled"]);
    });
}

/// D32: successResultBeforeTimeout, failureBeforeTimeout, each with and without a conversion.
#[test]
fn a_result_in_time_removes_the_timer_and_is_not_converted() {
    leaves_no_timer(|| {
        for result in [Ok(1), Err("broken")] {
            for custom in [false, true] {
                let (resolver, deferred) = Deferred::<u32>::new();
                let limited = match custom {
                    false => deferred.add_timeout(LONG),
                    true => deferred.add_timeout_with(LONG, |_| unreachable!("it came in time")),
                };
                resolver.fire(result.map_err(Failure::msg));
                let result = wait_for_deferred(limited).map_err(|failure| failure.to_string());
                assert_eq!(result, [Ok(1), Err("broken".to_owned())][usize::from(result.is_err())]);
            }
        }
    });
}

/// D31, D32: cancelBeforeTimeout, cancelBeforeTimeoutCustom.
#[test]
fn a_cancellation_in_time_removes_the_timer_and_stays_a_cancellation() {
    leaves_no_timer(|| {
        for custom in [false, true] {
            let (_resolver, deferred) = Deferred::<u32>::new();
            let limited = match custom {
                false => deferred.add_timeout(LONG),
                true => deferred.add_timeout_with(LONG, |_| unreachable!("it was cancelled")),
            };
            limited.cancel();
            assert!(wait_for_deferred(limited).unwrap_err().is_cancelled());
        }
    });
}

/// D32: a waiter that is killed cancels, and a producer that goes away abandons.
#[test]
fn a_limit_that_nobody_waits_for_any_more_leaves_no_timer() {
    leaves_no_timer(|| {
        let (_resolver, deferred) = Deferred::<u32>::new();
        let waiter = spawn(move || wait_for_deferred(deferred.add_timeout(LONG)));
        yield_now();
        waiter.kill();
        let _ = waiter.join();
        let (resolver, deferred) = Deferred::<u32>::new();
        let limited = deferred.add_timeout(LONG);
        drop(resolver);
        assert!(wait_for_deferred(limited).unwrap_err().is::<Abandoned>());
    });
}

/// D33: timedOutProvidedCancelSuccess, timedOutProvidedCancelFailure.
#[test]
fn what_a_canceller_fires_wins_over_elapsed() {
    run(|| {
        let (_resolver, deferred) = Deferred::with_canceller(|cancelling| cancelling.callback(5));
        assert_eq!(wait_for_deferred(deferred.add_timeout(SHORT)).ok(), Some(5));
        let (_resolver, deferred) = Deferred::<u32>::with_canceller(|c| c.errback(broken()));
        assert_eq!(error_of(wait_for_deferred(deferred.add_timeout(SHORT))), "broken");
    });
}

/// D34: timedOutCustom, providedCancelCalledBeforeTimeoutCustom.
#[test]
fn a_conversion_gets_what_the_elapsed_time_came_to() {
    run(|| {
        let (_resolver, deferred) = Deferred::<u32>::new();
        let limited = deferred.add_timeout_with(SHORT, |result| {
            assert!(result.unwrap_err().is_cancelled());
            Ok(1)
        });
        assert_eq!(wait_for_deferred(limited).ok(), Some(1));
        let (_resolver, deferred) = Deferred::with_canceller(|cancelling| cancelling.callback(5));
        let limited = deferred.add_timeout_with(SHORT, |result| Ok(result? + 1));
        assert_eq!(wait_for_deferred(limited).ok(), Some(6));
        let (_resolver, deferred) = Deferred::<u32>::new();
        let limited = deferred.add_timeout_with(SHORT, |_| Err(broken()));
        let failure = wait_for_deferred(limited).unwrap_err();
        assert!(failure.cause().expect("the cancellation").is_cancelled());
    });
}

/// D35: errbackAddedBeforeTimeout, ...SuppressesCancellation, ...Custom.
#[test]
fn an_errback_before_the_limit_may_suppress_the_cancellation() {
    run(|| {
        for custom in [false, true] {
            let (_resolver, deferred) = Deferred::<u32>::new();
            let deferred = deferred.add_errback(|failure| {
                assert!(failure.is_cancelled());
                Ok(7)
            });
            let limited = match custom {
                false => deferred.add_timeout(SHORT),
                true => deferred.add_timeout_with(SHORT, |result| Ok(result? + 1)),
            };
            assert_eq!(wait_for_deferred(limited).ok(), Some(7 + u32::from(custom)));
        }
    });
}

/// D35: callbackAddedToCancelerBeforeTimeout, ...Custom.
#[test]
fn a_callback_before_the_limit_gets_the_cancellers_value() {
    run(|| {
        let (_resolver, deferred) = Deferred::with_canceller(|cancelling| cancelling.callback(5));
        let limited = deferred.add_callback(|n| Ok(n * 2)).add_timeout(SHORT);
        assert_eq!(wait_for_deferred(limited).ok(), Some(10));
    });
}

/// D36.
#[test]
fn a_limit_reaches_the_inner_deferred_that_is_waited_for() {
    run(|| {
        let (resolver, deferred) = Deferred::<()>::new();
        let (inner_resolver, inner) = Deferred::<u32>::new();
        let limited = deferred.and_then(move |()| inner).add_timeout(SHORT);
        resolver.callback(());
        assert!(wait_for_deferred(limited).unwrap_err().is::<Elapsed>());
        assert!(inner_resolver.is_cancelled());
    });
}

/// D31, BRIDGE-9: "covers only callbacks added before it".
#[test]
fn a_limit_does_not_cover_what_is_added_after_it() {
    run(|| {
        let (resolver, deferred) = Deferred::<()>::new();
        let (inner_resolver, inner) = Deferred::<u32>::new();
        let end = deferred.add_timeout(SHORT).and_then(move |()| inner);
        resolver.callback(());
        sleep(SHORT * 2);
        assert!(!inner_resolver.is_cancelled());
        inner_resolver.callback(3);
        assert_eq!(wait_for_deferred(end).ok(), Some(3));
    });
}

/// BRIDGE-9: the result and the end of the time are due in one turn, and the result comes first.
#[test]
fn a_limit_that_is_due_with_the_result_cancels_nothing_that_comes_later() {
    run(|| {
        for _ in 0..2 {
            let (resolver, deferred) = Deferred::<()>::new();
            let (inner_resolver, inner) = Deferred::<u32>::new();
            reactor().call_later(SHORT, move || resolver.callback(()));
            let end = deferred.add_timeout_with(SHORT, |_| unreachable!("it came in time"));
            let end = end.and_then(move |()| inner);
            let due = Instant::now() + SHORT * 2;
            while Instant::now() < due {} // both are due when the reactor looks
            sleep(SHORT);
            assert!(!inner_resolver.is_cancelled());
            inner_resolver.callback(3);
            assert_eq!(wait_for_deferred(end).ok(), Some(3));
        }
    });
}

#[test]
fn of_several_limits_the_shortest_elapses() {
    leaves_no_timer(|| {
        for (inner, outer) in [(SHORT, LONG), (LONG, SHORT)] {
            let (_resolver, deferred) = Deferred::<u32>::new();
            let limited = deferred
                .add_timeout_with(inner, |_| Err(Failure::msg("inner")))
                .add_timeout_with(outer, |result| result.or(Err(Failure::msg("outer"))));
            let expected = if inner == SHORT { "inner" } else { "outer" };
            let failure = wait_for_deferred(limited).unwrap_err();
            assert!(failure.to_string().starts_with(expected), "{failure}");
        }
    });
}

#[test]
fn the_canceller_of_an_elapsed_limit_may_block() {
    run(|| {
        let (_resolver, deferred) = Deferred::<u32>::with_canceller(|cancelling| {
            sleep(SHORT);
            cancelling.callback(4);
        });
        assert_eq!(wait_for_deferred(deferred.add_timeout(SHORT)).ok(), Some(4));
    });
}

#[test]
fn a_limit_outside_run_cancels_and_says_so_unless_there_is_a_result() {
    let ((), reports) = reports_of(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let limited = deferred.add_timeout(LONG);
        assert!(resolver.is_cancelled());
        let text = error_of(wait_for_deferred(limited));
        assert!(text.contains("outside a reactor"), "{text}");
        let fired = Deferred::succeed(2).add_timeout(LONG);
        assert_eq!(wait_for_deferred(fired).ok(), Some(2));
    });
    assert_eq!(reports, [""; 0]);
}

/// It is documented: nothing keeps time any more.
#[test]
fn a_limit_whose_run_has_ended_does_not_elapse() {
    let (resolver, limited) = run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        (resolver, deferred.add_timeout(Duration::ZERO))
    });
    assert!(!limited.is_fired() && !resolver.is_cancelled());
    resolver.callback(1);
    assert_eq!(wait_for_deferred(limited).ok(), Some(1));
}

// ---- combinators ------------------------------------------------------------------------------

/// D49 with greenlets: a loser is killed.
#[test]
fn the_losers_of_a_race_of_greenlets_are_killed() {
    run(|| {
        let slow = spawn(|| sleep(LONG));
        let loser = slow.as_ref();
        let fast = spawn(yield_now);
        let won = race([slow, fast].map(wait_for_greenlet));
        assert_eq!(wait_for_deferred(won).unwrap().0, 1);
        while !loser.is_finished() {
            yield_now();
        }
    });
}

/// D47 with greenlets, and a kill of the waiter: the whole tree goes.
#[test]
fn killing_who_waits_for_a_list_cancels_its_members() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let members = [spawn(|| sleep(LONG)), spawn(|| sleep(LONG))];
            let all = members.each_ref().map(|member| member.as_ref());
            let waiter = spawn(move || {
                wait_for_deferred(gather_results(members.map(wait_for_greenlet))).map(drop)
            });
            yield_now();
            waiter.kill();
            while all.iter().any(|member| !member.is_finished()) {
                yield_now();
            }
        });
    });
    assert_eq!(reports, [""; 0]);
}

/// A canceller of a loser may block, and be killed: the race has its result, and the kill goes on.
#[test]
fn a_kill_out_of_a_losers_canceller_goes_on_after_the_race_has_its_result() {
    run(|| {
        let trace = Trace::default();
        let (_stuck, first_loser) = Deferred::<u32>::with_canceller(|_| sleep(LONG));
        let noted = trace.adds("second loser");
        let (_other, second_loser) = Deferred::<u32>::with_canceller(move |_| noted());
        let (resolver, winner) = Deferred::<u32>::new();
        let won = race([first_loser, second_loser, winner]);
        let firing = spawn(move || resolver.callback(9));
        yield_now();
        assert!(!won.is_fired(), "the losers come first");
        firing.kill();
        assert!(firing.join().is_err());
        assert_eq!(trace.taken(), ["second loser"]);
        assert_eq!(wait_for_deferred(won).ok(), Some((2, 9)));
    });
}

/// An error that blocks when it is dropped: the kill goes on after the chain.
#[test]
fn a_kill_out_of_the_destructor_of_a_handled_error_goes_on_after_the_chain() {
    #[derive(Debug)]
    struct BlocksInDrop;
    impl Drop for BlocksInDrop {
        fn drop(&mut self) {
            sleep(LONG);
        }
    }
    impl std::fmt::Display for BlocksInDrop {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("blocks in drop")
        }
    }
    impl std::error::Error for BlocksInDrop {}

    run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let end = deferred.add_errback(|_| Ok(1));
        let firing = spawn(move || resolver.errback(BlocksInDrop));
        yield_now();
        assert!(!end.is_fired());
        firing.kill();
        assert!(firing.join().is_err());
        assert_eq!(wait_for_deferred(end).ok(), Some(1));
    });
}

/// The same for a list that is cancelled.
#[test]
fn a_kill_out_of_a_canceller_leaves_no_member_uncancelled() {
    run(|| {
        let (_stuck, stuck) = Deferred::<u32>::with_canceller(|_| sleep(LONG));
        let (resolver, other) = Deferred::<u32>::new();
        let both = gather_results([stuck, other]);
        let handle = both.canceller();
        let cancelling = spawn(move || handle.cancel());
        yield_now();
        cancelling.kill();
        assert!(cancelling.join().is_err());
        assert!(resolver.is_cancelled());
        assert!(wait_for_deferred(both).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_limit_of_a_combinator_cancels_its_members() {
    run(|| {
        let (resolvers, members): (Vec<_>, Vec<_>) = (0..3).map(|_| Deferred::<u32>::new()).unzip();
        let failure = wait_for_deferred(first(members).add_timeout(SHORT)).unwrap_err();
        assert!(failure.is::<Elapsed>());
        assert!(resolvers.iter().all(Resolver::is_cancelled));
    });
}

/// D40: the places that debug mode tells are the user's, not this crate's.
#[test]
fn debug_mode_tells_where_the_user_made_what_the_bridge_made() {
    let (shown, line) = run(|| {
        set_debugging(true);
        let (deferred, line) = (wait_for_greenlet(spawn(|| sleep(LONG))), line!());
        set_debugging(false);
        let shown = format!("{deferred:?}");
        deferred.cancel();
        (shown, line)
    });
    assert!(shown.contains(&format!("made at {}:{line}:", file!())), "{shown}");
    set_debugging(true);
    let (resolver, deferred) = Deferred::<u32>::new();
    let (failed, line) = (deferred.add_timeout(LONG), line!());
    set_debugging(false);
    let shown = format!("{:?}", wait_for_deferred(failed).unwrap_err());
    assert!(resolver.is_cancelled() && shown.contains(&format!("{}:{line}:", file!())), "{shown}");
}

// ---- bad use ----------------------------------------------------------------------------------

/// A Resolver that an unwind drops: who waits is told, and callbacks run and may panic there.
#[test]
fn a_resolver_that_a_panic_drops_fires_abandoned() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let (resolver, deferred) = Deferred::<u32>::new();
            let end = deferred.add_errback(|failure| {
                assert!(failure.is::<Abandoned>());
                panic!("in an errback that an unwind runs");
            });
            let producer = spawn(move || -> () {
                let _resolver = resolver;
                panic!("the producer");
            });
            let text = error_of(wait_for_deferred(end));
            assert!(text.starts_with("panicked: in an errback that an unwind runs"), "{text}");
            assert!(producer.join().unwrap_err().to_string().contains("the producer"));
        });
    });
    assert_eq!(reports, [""; 0]);
}

/// D8 with greenlets: a callback that is suspended half way; others use its chain meanwhile.
#[test]
fn a_chain_may_be_used_while_a_callback_of_it_is_parked() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = Deferred::<u32>::new();
        let (starts, ends) = (trace.adds("starts"), trace.adds("ends"));
        let end = Rc::new(RefCell::new(Some(deferred.add_callback(move |n| {
            starts();
            sleep(SHORT);
            ends();
            Ok(n + 1)
        }))));
        let firing = spawn(move || resolver.callback(1));
        yield_now();
        let added = Rc::new(Cell::new(0));
        let seen = Rc::clone(&added);
        let own = end.take().expect("the end");
        assert!(!own.is_fired());
        own.cancel(); // nothing is waited for
        trace.add("added");
        let own = own.add_callback(move |n| {
            seen.set(n);
            Ok(())
        });
        assert_eq!(added.get(), 0);
        wait_for_deferred(own).unwrap();
        firing.join().unwrap();
        assert_eq!(added.get(), 2);
        assert_eq!(trace.taken(), ["starts", "added", "ends"]);
    });
}
