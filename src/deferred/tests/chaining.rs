//! D14 to D21: Deferreds that wait for Deferreds.

use super::super::Deferred;
use super::{Trace, broken, error_of, reports_of, result_of, value_of};
use std::cell::RefCell;
use std::rc::Rc;

/// D14: callbackReturnsDeferred, errbackReturnsDeferred, asynchronousImplicitChain,
/// asynchronousImplicitErrorChain.
#[test]
fn a_returned_deferred_holds_the_outer_one_until_it_has_a_result() {
    for result in [Ok(3), Err(broken())] {
        let is_error = result.is_err();
        let (inner_resolver, inner) = Deferred::<u32>::new();
        let (resolver, deferred) = Deferred::<()>::new();
        let outer = deferred.and_then(move |()| inner);
        resolver.callback(());
        assert!(!outer.is_fired());
        inner_resolver.fire(result);
        match is_error {
            true => assert_eq!(error_of(outer), "broken"),
            false => assert_eq!(value_of(outer), 3),
        }
    }
    let (inner_resolver, inner) = Deferred::<u32>::new();
    let outer = Deferred::fail(broken()).or_else(move |_| inner);
    assert!(!outer.is_fired());
    inner_resolver.callback(4);
    assert_eq!(value_of(outer), 4);
}

/// D14: synchronousImplicitChain, synchronousImplicitErrorChain.
#[test]
fn a_returned_deferred_that_has_its_result_holds_nothing() {
    for pending in [false, true] {
        let start = move || match pending {
            false => Deferred::succeed(()),
            true => {
                let (resolver, deferred) = Deferred::new();
                drop(deferred.canceller());
                resolver.callback(());
                deferred
            }
        };
        assert_eq!(value_of(start().and_then(|()| Deferred::succeed(1))), 1);
        assert_eq!(error_of(start().and_then(|()| Deferred::<()>::fail(broken()))), "broken");
        let (resolver, deferred) = Deferred::<()>::new();
        let end = deferred.and_then(move |()| start());
        resolver.callback(());
        value_of(end);
    }
}

/// D15: errorClearedByChaining, chainedErrorCleanup.
#[test]
fn the_failure_of_an_inner_deferred_is_the_outer_ones_to_handle() {
    let reports = reports_of(|| {
        let (resolver, inner) = Deferred::<()>::new();
        let outer = Deferred::succeed(()).and_then(move |()| inner);
        resolver.errback(broken());
        value_of(outer.add_errback(|_| Ok(())));
        value_of(
            Deferred::succeed(())
                .and_then(|()| Deferred::<()>::fail(broken()))
                .add_errback(|_| Ok(())),
        );
    });
    assert_eq!(reports, [""; 0]);
}

/// D16: innerCallbacksPreserved, continueCallbackNotFirst.
#[test]
fn callbacks_of_the_inner_deferred_run_before_the_outer_goes_on() {
    let trace = Trace::default();
    let (first, second, outside) = (trace.clone(), trace.clone(), trace.clone());
    let (inner_resolver, inner) = Deferred::<u32>::new();
    let inner = inner
        .add_callback(move |n| {
            first.note(n);
            Ok(n + 1)
        })
        .add_callback(move |n| {
            second.note(n);
            Ok(n + 1)
        });
    let (resolver, deferred) = Deferred::<()>::new();
    let end = deferred.and_then(move |()| inner).add_callback(move |n| {
        outside.note(n);
        Ok(())
    });
    resolver.callback(());
    inner_resolver.callback(1);
    trace.is(&["1", "2", "3"]);
    value_of(end);
}

/// D17: doubleAsynchronousImplicitChaining, nestedAsynchronousChainedDeferreds,
/// nestedAsynchronousChainedDeferredsWithExtraCallbacks.
#[test]
fn nested_deferreds_pass_their_result_outwards() {
    let (first_resolver, first) = Deferred::<Vec<u32>>::new();
    let (second_resolver, second) = Deferred::<()>::new();
    let (third_resolver, third) = Deferred::<()>::new();
    let note = |n| {
        move |mut seen: Vec<u32>| {
            seen.push(n);
            Ok(seen)
        }
    };
    let second = second.and_then(move |()| first.add_callback(note(1))).add_callback(note(2));
    let third = third.and_then(move |()| second).add_callback(note(3));
    third_resolver.callback(());
    second_resolver.callback(());
    assert!(!third.is_fired());
    first_resolver.callback(vec![0]);
    assert_eq!(value_of(third), [0, 1, 2, 3]);
}

/// D17: resultOfDeferredResultOfDeferredOfFiredDeferredCalled.
#[test]
fn a_chain_that_waits_twice_goes_on_twice() {
    let (resolver, deferred) = Deferred::<()>::new();
    let (first_resolver, first) = Deferred::<u32>::new();
    let (second_resolver, second) = Deferred::<u32>::new();
    let end = deferred
        .and_then(move |()| first)
        .and_then(move |n| second.add_callback(move |m| Ok((n, m))));
    resolver.callback(());
    first_resolver.callback(1);
    assert!(!end.is_fired());
    second_resolver.callback(2);
    assert_eq!(value_of(end), (1, 2));
}

/// D19: circularChainWarning, circularChainException. Through a shared cell it can be written.
#[test]
fn a_deferred_that_would_wait_for_itself_fails_instead() {
    let own = Rc::new(RefCell::new(None::<Deferred<()>>));
    let taken = Rc::clone(&own);
    let (resolver, deferred) = Deferred::<()>::new();
    let end =
        deferred.and_then(move |()| taken.borrow_mut().take().expect("the end of this chain"));
    let seen = Trace::default();
    let noted = seen.clone();
    *own.borrow_mut() = Some(end.add_errback(move |failure| {
        noted.note(failure);
        Ok(())
    }));
    resolver.callback(());
    seen.is(&["a callback returned the Deferred that waits for it (D19)"]);

    let (resolver, deferred) = Deferred::<()>::new();
    let reports = reports_of(|| deferred.chain_deferred(resolver));
    assert_eq!(reports.len(), 1, "{reports:?}");
}

/// D19: a circle of two is not found out, never fires, and does no other harm: a cancellation of it
/// ends (Brent's walk in `cancel`).
#[test]
fn cancelling_a_circle_of_waiting_deferreds_ends() {
    let (one_resolver, one) = Deferred::<()>::new();
    let (two_resolver, two) = Deferred::<()>::new();
    let one_end = Rc::new(RefCell::new(None::<Deferred<()>>));
    let taken = Rc::clone(&one_end);
    let two = two.and_then(move |()| taken.borrow_mut().take().expect("the end of the first"));
    let one = one.and_then(move |()| two);
    let handle = one.canceller();
    *one_end.borrow_mut() = Some(one);
    one_resolver.callback(());
    two_resolver.callback(());
    handle.cancel();
}

/// D20: chainDeferredRecordsExplicitChain, explicitChainClearedWhenResolved.
#[test]
fn chain_deferred_fires_another_deferred_and_forwards_no_cancellation() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let (other_resolver, other) = Deferred::<u32>::new();
    deferred.chain_deferred(other_resolver);
    let other = other.add_callback(|n| Ok(n + 1));
    resolver.callback(1);
    assert_eq!(value_of(other), 2);

    let (resolver, deferred) = Deferred::<u32>::new();
    let (other_resolver, other) = Deferred::<u32>::new();
    deferred.chain_deferred(other_resolver);
    other.cancel();
    assert!(result_of(other).expect_err("cancelled").is_cancelled());
    assert!(!resolver.is_cancelled());
    resolver.callback(1); // swallowed by the other one

    // What the other chain then waits for is its own.
    let (resolver, deferred) = Deferred::<u32>::new();
    let (other_resolver, other) = Deferred::<u32>::new();
    let (inner_resolver, inner) = Deferred::<u32>::new();
    deferred.chain_deferred(other_resolver);
    let other = other.and_then(move |_| inner);
    resolver.callback(1);
    other.cancel();
    assert!(inner_resolver.is_cancelled());
    drop(other);

    let (other_resolver, other) = Deferred::<u32>::new();
    Deferred::succeed(3).chain_deferred(other_resolver);
    assert_eq!(value_of(other), 3);
}

/// D21: repr, reprWithResult, reprWithChaining.
#[test]
fn debug_tells_the_state_and_what_is_waited_for() {
    let text = |deferred: &Deferred<u32>| format!("{deferred:?}");
    assert_eq!(text(&Deferred::succeed(1)), "Deferred<u32>(has a value)");
    let failed = Deferred::fail(broken());
    assert_eq!(text(&failed), "Deferred<u32>(failed: broken)");
    let _ = failed.add_errback(|_| Ok(0));
    let (inner_resolver, inner) = Deferred::<u32>::new();
    let inner_text = text(&inner);
    assert!(inner_text.starts_with("Deferred<u32>(unfired, at 0x"), "{inner_text}");
    let place = inner_text.trim_start_matches("Deferred<u32>(unfired, at ").trim_end_matches(')');
    let (resolver, outer) = Deferred::<()>::new();
    let outer = outer.and_then(move |()| inner);
    resolver.callback(());
    let waiting = text(&outer);
    assert!(waiting.contains(&format!("waits for the one at {place}")), "{waiting}");
    inner_resolver.callback(1);
    assert!(text(&outer).contains("has a value"));
}
