//! D2 to D9: firing, the two lines, re-entrancy; and what unwinds out of a callback.

use super::super::unwinds::{PanicDetails, UNWINDS_OF_TEST, Unwinds};
use super::super::{Abandoned, Deferred, Failure, Resolver};
use super::{Trace, broken, error_of, reports_of, result_of, value_of};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// D2: callbackWithoutArgs, callbackWithArgs, callbackTwoCallbacks, callbackOrderPreserved.
#[test]
fn callbacks_run_inside_the_firing_in_order_each_with_the_result_before() {
    let trace = Trace::default();
    let (resolver, deferred) = Deferred::<u32>::new();
    let (first, second) = (trace.clone(), trace.clone());
    let end = deferred
        .add_callback(move |n| {
            first.note(format!("first got {n}"));
            Ok(format!("{n}!"))
        })
        .add_callback(move |text| {
            second.note(format!("second got {text}"));
            Ok(())
        });
    trace.note("firing");
    resolver.callback(7);
    trace.note("fired");
    trace.is(&["firing", "first got 7", "second got 7!", "fired"]);
    value_of(end);
}

/// D3: immediateSuccess, immediateFailure, succeedMatchesManualSuccess.
#[test]
fn a_callback_added_to_a_fired_deferred_runs_at_once() {
    let trace = Trace::default();
    let (born, fired) = (trace.clone(), trace.clone());
    drop(Deferred::succeed(1).add_callback(move |n| {
        born.note(n);
        Ok(())
    }));
    let (resolver, deferred) = Deferred::new();
    resolver.callback(2);
    drop(deferred.add_callback(move |n: i32| {
        fired.note(n);
        Ok(())
    }));
    trace.is(&["1", "2"]);
    assert_eq!(error_of(Deferred::<()>::fail(broken()).add_callback(Ok)), "broken");
    assert_eq!(value_of(Deferred::<()>::fail(broken()).add_errback(|_| Ok(()))), ());
}

/// D3, with a handle about, which keeps the chain: the same, through a stage.
#[test]
fn a_callback_added_to_a_fired_deferred_with_a_handle_runs_at_once() {
    let (resolver, deferred) = Deferred::new();
    let handle = deferred.canceller();
    resolver.callback(2);
    assert!(deferred.is_fired());
    assert_eq!(value_of(deferred.add_callback(|n: i32| Ok(n + 1))), 3);
    handle.cancel();
}

/// D4: callbackErrors.
#[test]
fn an_error_goes_to_the_next_errback_and_a_value_of_that_back_to_the_callbacks() {
    let trace = Trace::default();
    let (skipped, errback, after) = (trace.clone(), trace.clone(), trace.clone());
    let (resolver, deferred) = Deferred::<u32>::new();
    let end = deferred
        .add_callback(|_| Err::<u32, _>(broken()))
        .add_callback(move |n| {
            skipped.note("skipped");
            Ok(n)
        })
        .add_errback(move |failure| {
            errback.note(failure);
            Ok(5)
        })
        .add_errback(|_| unreachable!("no failure is left"))
        .add_callback(move |n| {
            after.note(n);
            Ok(n)
        });
    resolver.callback(1);
    trace.is(&["broken", "5"]);
    assert_eq!(value_of(end), 5);
}

/// D5: addCallbacksNoneErrback, addCallbacksNoneCallbackArgs, and the rule they rest on.
#[test]
fn an_errback_of_one_level_does_not_see_the_error_of_its_callback() {
    let both = |deferred: Deferred<u32>| {
        deferred.add_callbacks(|_| Err::<u32, _>(broken()), |_| Ok(99)).add_errback(|failure| {
            assert_eq!(failure.to_string(), "broken");
            Ok(1)
        })
    };
    assert_eq!(value_of(both(Deferred::succeed(0))), 1);
    assert_eq!(value_of(both(Deferred::fail(broken()))), 99);
}

/// D6: callbackMaybeReturnsFailure, errbackWithArgs, and `fail`.
#[test]
fn errback_starts_on_the_errback_line() {
    let (resolver, deferred) = Deferred::<u32>::new();
    resolver.errback(std::io::Error::other("no disk"));
    assert_eq!(error_of(deferred), "no disk");
    let (resolver, deferred) = Deferred::<u32>::new();
    resolver.fire(Err(broken()));
    assert_eq!(error_of(deferred), "broken");
}

/// D9: what matches neither line passes by.
#[test]
fn each_line_passes_the_other_kind_by_and_both_takes_either() {
    let passed = Deferred::succeed(3).add_errback(|_| Ok(0)).or_else(|_| Deferred::succeed(0));
    assert_eq!(value_of(passed), 3);
    let passed = Deferred::<u32>::fail(broken()).add_callback(Ok).and_then(Deferred::succeed);
    assert_eq!(error_of(passed), "broken");
    assert!(value_of(Deferred::<u32>::fail(broken()).add_both(|r| Ok(r.is_err()))));
    assert!(!value_of(Deferred::succeed(1).add_both(|r| Ok(r.is_err()))));
    assert!(value_of(Deferred::succeed(1).then(|r| Deferred::succeed(r.is_ok()))));
}

/// D8: reentrantRunCallbacks, nonReentrantCallbacks, reentrantRunCallbacksWithFailure.
#[test]
fn a_callback_added_while_one_of_its_chain_runs_comes_after_it() {
    for fails in [false, true] {
        let trace = Trace::default();
        let end = Rc::new(RefCell::new(None::<Deferred<()>>));
        let (own_end, inside, added) = (Rc::clone(&end), trace.clone(), trace.clone());
        let (resolver, deferred) = Deferred::<()>::new();
        let first = deferred.add_callback(move |()| {
            inside.note("first starts");
            let own = own_end.borrow_mut().take().expect("the end of this very chain");
            assert!(!own.is_fired());
            *own_end.borrow_mut() = Some(own.add_both(move |result| {
                added.note(if result.is_ok() { "added got a value" } else { "added got an error" });
                Ok(())
            }));
            inside.note("first ends");
            if fails { Err(broken()) } else { Ok(()) }
        });
        *end.borrow_mut() = Some(first);
        resolver.callback(());
        let last = if fails { "added got an error" } else { "added got a value" };
        trace.is(&["first starts", "first ends", last]);
        let end = end.borrow_mut().take();
        value_of(end.expect("the new end"));
    }
}

/// D8: what a callback does to another chain happens inside of it.
#[test]
fn a_callback_that_fires_another_chain_runs_it_inside() {
    let trace = Trace::default();
    let (outer, inner, of_inner) = (trace.clone(), trace.clone(), Deferred::<()>::new());
    let (inner_resolver, inner_deferred) = of_inner;
    drop(inner_deferred.add_callback(move |()| {
        inner.note("inner");
        Ok(())
    }));
    let (resolver, deferred) = Deferred::<()>::new();
    drop(deferred.add_callback(move |()| {
        inner_resolver.callback(());
        outer.note("outer");
        Ok(())
    }));
    resolver.callback(());
    trace.is(&["inner", "outer"]);
}

/// Ours: a dropped Resolver.
#[test]
fn a_resolver_dropped_unfired_fires_abandoned() {
    let (resolver, deferred) = Deferred::<()>::new();
    let end = deferred.add_errback(|failure| {
        assert!(failure.is::<Abandoned>());
        Ok(())
    });
    drop(resolver);
    value_of(end);
}

/// Ours: the fast ways of upper floors.
#[test]
fn try_take_gives_an_unfired_deferred_back_and_observe_ends_a_chain() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let deferred = deferred.try_take().expect_err("it is unfired");
    let trace = Trace::default();
    let observed = trace.clone();
    let handle = deferred.observe(move |result| observed.note(result.expect("a value")));
    trace.is(&[]);
    resolver.callback(4);
    trace.is(&["4"]);
    handle.cancel();
    let observed = trace.clone();
    Deferred::succeed(5).observe(move |result| observed.note(result.expect("a value")));
    trace.is(&["4", "5"]);
}

/// D4 in Rust: a panic is an exception.
#[test]
fn a_panic_in_a_callback_reaches_the_next_errback_with_its_message() {
    let check = |deferred: Deferred<u32>| {
        deferred.add_callback(|n| if n == 1 { panic!("number {n}") } else { Ok(n) }).add_errback(
            |failure| {
                assert_eq!(failure.panic_message(), Some("number 1"));
                assert_eq!(failure.to_string(), "panicked: number 1");
                Ok(0)
            },
        )
    };
    assert_eq!(value_of(check(Deferred::succeed(1))), 0);
    let (resolver, deferred) = Deferred::new();
    let end = check(deferred);
    resolver.callback(1);
    assert_eq!(value_of(end), 0);
}

/// A payload that the hooks of this file's tests take for a kill.
struct TestKill;

fn with_kills<R>(run: impl FnOnce() -> R) -> R {
    UNWINDS_OF_TEST.set(Some(Unwinds {
        is_kill: |payload| payload.is::<TestKill>(),
        resume_kill: |kill| {
            if !std::thread::panicking() {
                std::panic::resume_unwind(kill);
            }
        },
        panic_details: || PanicDetails {
            place: Some("there.rs:1:2".to_owned()),
            backtrace: Some("frame by frame".to_owned()),
        },
        take_failure: |_| None,
    }));
    let outcome = run();
    UNWINDS_OF_TEST.set(None);
    outcome
}

/// Asserts that `run` is ended by a kill.
fn is_killed(run: impl FnOnce()) {
    let ended = catch_unwind(AssertUnwindSafe(run));
    assert!(ended.expect_err("the kill goes on").is::<TestKill>());
}

/// Ours: a kill belongs to the greenlet that runs the callback.
#[test]
fn a_kill_passes_through_while_the_chain_gets_cancelled_and_runs_on() {
    with_kills(|| {
        let trace = Trace::default();
        let (errback, after, late) = (trace.clone(), trace.clone(), trace.clone());
        let (inner_resolver, inner) = Deferred::<()>::new();
        let inner = inner.add_callback(|()| -> Result<(), Failure> {
            resume_unwind(Box::new(TestKill));
        });
        let inner = inner.add_errback(move |failure| {
            errback.note(failure.is_cancelled());
            Err(failure)
        });
        let outer = Deferred::succeed(()).and_then(move |()| inner);
        let outer = outer.add_both(move |result| {
            after.note(format!("after, {}", result.is_err()));
            Ok(1)
        });
        is_killed(|| inner_resolver.callback(()));
        trace.is(&["true", "after, true"]);
        assert_eq!(value_of(outer), 1);
        is_killed(|| {
            drop(Deferred::succeed(()).add_callback(move |()| -> Result<(), Failure> {
                late.note("at once");
                resume_unwind(Box::new(TestKill))
            }));
        });
        trace.is(&["true", "after, true", "at once"]);
    });
}

/// Ours: the same for a kill that comes out of a canceller, and none is lost or reported.
#[test]
fn a_kill_out_of_a_canceller_leaves_the_deferred_cancelled() {
    let reports = reports_of(|| {
        with_kills(|| {
            let (resolver, deferred): (Resolver<()>, _) =
                Deferred::with_canceller(|_| resume_unwind(Box::new(TestKill)));
            is_killed(|| deferred.cancel());
            assert!(result_of(deferred).expect_err("cancelled").is_cancelled());
            resolver.callback(());
        });
    });
    assert_eq!(reports, [""; 0]);
}

/// CHAIN-3: a destructor of a canceller's captures is user code too.
#[test]
fn a_kill_or_a_panic_out_of_a_dropped_canceller_leaves_the_chain_its_result() {
    struct UnwindsInDrop(bool);
    impl Drop for UnwindsInDrop {
        fn drop(&mut self) {
            if self.0 {
                resume_unwind(Box::new(TestKill));
            }
            panic!("in a destructor");
        }
    }
    let start = |kills: bool| {
        let bomb = UnwindsInDrop(kills);
        let (resolver, deferred) = Deferred::<u32>::with_canceller(move |_| drop(bomb));
        (resolver, deferred.add_callback(|n| Ok(n + 1)))
    };
    let reports = reports_of(|| {
        with_kills(|| {
            let (resolver, deferred) = start(true);
            is_killed(|| resolver.callback(1));
            assert_eq!(value_of(deferred), 2);
            let (resolver, deferred) = start(false);
            resolver.callback(1);
            assert_eq!(value_of(deferred), 2);
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("the destructor of a canceller: panicked: in a destructor"));
}

/// D10: the place and the backtrace that a panic hook noted.
#[test]
fn a_panic_keeps_what_the_panic_hook_noted() {
    with_kills(|| {
        let failed = Deferred::succeed(()).add_callback(|()| -> Result<(), Failure> {
            panic!("ours, and caught");
        });
        let failure = result_of(failed).expect_err("a panic");
        assert_eq!(failure.place(), Some("there.rs:1:2"));
        let debug = format!("{failure:?}");
        assert!(debug.contains("there.rs:1:2") && debug.contains("frame by frame"), "{debug}");
    });
}
