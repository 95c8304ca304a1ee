//! D22 to D30: cancellation.

use super::super::{CancelHandle, Cancelled, Deferred, Resolver};
use super::{Trace, broken, error_of, reports_of, result_of, value_of};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

fn is_cancelled<T>(deferred: Deferred<T>) -> bool {
    result_of(deferred).is_err_and(|failure| failure.is_cancelled() && failure.is::<Cancelled>())
}

/// D22: noCanceller.
#[test]
fn cancelling_an_unfired_deferred_fires_cancelled() {
    let (resolver, deferred) = Deferred::<()>::new();
    assert!(!resolver.is_cancelled());
    deferred.cancel();
    assert!(resolver.is_cancelled());
    assert!(is_cancelled(deferred));
}

/// D23, D25: raisesAfterCancelAndCallback, raisesAfterCancelAndErrback, noCancellerMultipleCancel.
/// Unlike upstream, the late result is swallowed with a canceller too.
#[test]
fn a_result_after_a_cancel_is_swallowed() {
    let reports = reports_of(|| {
        for late in [Ok(1), Err(broken())] {
            let (resolver, deferred) = Deferred::<u32>::new();
            deferred.cancel();
            deferred.cancel();
            resolver.fire(late);
            assert!(is_cancelled(deferred));
        }
        let (resolver, deferred) = Deferred::<u32>::with_canceller(|_| {});
        deferred.cancel();
        resolver.callback(1);
        assert!(is_cancelled(deferred));
        let (resolver, deferred) = Deferred::<u32>::new();
        deferred.cancel();
        drop(resolver); // no `Abandoned` either
        assert!(is_cancelled(deferred));
    });
    assert_eq!(reports, [""; 0]);
}

/// D24: simpleCanceller, cancellerMultipleCancel.
#[test]
fn a_canceller_is_called_once_and_leaves_cancelled() {
    let calls_count = Rc::new(Cell::new(0));
    let count = Rc::clone(&calls_count);
    let (resolver, deferred) = Deferred::<()>::with_canceller(move |_| count.set(count.get() + 1));
    deferred.cancel();
    deferred.cancel();
    assert_eq!(calls_count.get(), 1);
    assert!(resolver.is_cancelled());
    assert!(is_cancelled(deferred));
}

/// D24: cancellerArg, cancellerThatCallbacks, cancellerThatErrbacks.
#[test]
fn what_a_canceller_fires_is_the_result() {
    let (_resolver, deferred) = Deferred::with_canceller(|cancelling| cancelling.callback(3));
    deferred.cancel();
    assert_eq!(value_of(deferred), 3);
    let (_resolver, deferred) =
        Deferred::<()>::with_canceller(|cancelling| cancelling.errback(broken()));
    deferred.cancel();
    assert_eq!(error_of(deferred), "broken");
}

/// D24: the producer may be who fires while its canceller runs; a producer that is dropped there
/// does not turn `Cancelled` into `Abandoned`; and a cancel from inside does nothing.
#[test]
fn while_its_canceller_runs_a_producer_may_still_fire() {
    for fires in [true, false] {
        let producer = Rc::new(RefCell::new(None::<Resolver<u32>>));
        let handle = Rc::new(RefCell::new(None::<CancelHandle>));
        let (taken, again) = (Rc::clone(&producer), Rc::clone(&handle));
        let (resolver, deferred) = Deferred::with_canceller(move |cancelling| {
            again.borrow().as_ref().expect("set below").cancel();
            let resolver = taken.borrow_mut().take().expect("set below");
            assert!(!resolver.is_cancelled());
            if fires {
                resolver.callback(1);
                cancelling.callback(2); // too late
            } else {
                drop(resolver);
            }
        });
        *producer.borrow_mut() = Some(resolver);
        *handle.borrow_mut() = Some(deferred.canceller());
        deferred.cancel();
        match fires {
            true => assert_eq!(value_of(deferred), 1),
            false => assert!(is_cancelled(deferred)),
        }
    }
}

/// D26: cancelAfterCallback, cancelAfterErrback.
#[test]
fn cancelling_a_fired_deferred_does_nothing() {
    let (resolver, deferred) = Deferred::<u32>::with_canceller(|_| unreachable!("it has fired"));
    resolver.callback(1);
    deferred.cancel();
    assert_eq!(value_of(deferred), 1);
    let failed = Deferred::<()>::fail(broken());
    failed.cancel();
    assert_eq!(error_of(failed), "broken");
}

/// D27: cancelNestedDeferred.
#[test]
fn cancelling_a_waiting_deferred_cancels_the_inner_one_only() {
    let trace = Trace::default();
    let (of_inner, of_outer) = (trace.clone(), trace.clone());
    let (inner_resolver, inner) = Deferred::<u32>::with_canceller(move |_| of_inner.note("inner"));
    let (resolver, outer) = Deferred::<()>::with_canceller(move |_| of_outer.note("outer"));
    let outer = outer.and_then(move |()| inner);
    resolver.callback(());
    outer.cancel();
    trace.is(&["inner"]);
    assert!(inner_resolver.is_cancelled());
    assert!(is_cancelled(outer));
}

/// D27, later in the chain's life, and by a handle taken before the chain existed.
#[test]
fn a_handle_reaches_whatever_the_chain_waits_for() {
    for is_born_fired in [true, false] {
        let (resolver, deferred) = Deferred::<()>::new();
        let deferred = if is_born_fired { Deferred::succeed(()) } else { deferred };
        let handle = deferred.canceller();
        resolver.callback(());
        let (inner_resolver, inner) = Deferred::<u32>::new();
        let (late_resolver, late) = Deferred::<u32>::new();
        let trace = Trace::default();
        let observed = trace.clone();
        deferred
            .and_then(move |()| inner)
            .or_else(move |_| late)
            .observe(move |result| observed.note(result.expect_err("cancelled")));
        handle.cancel();
        assert!(inner_resolver.is_cancelled() && !late_resolver.is_cancelled());
        trace.is(&[]);
        handle.clone().cancel();
        assert!(late_resolver.is_cancelled());
        assert_eq!(trace.0.borrow().len(), 1);
        handle.cancel();
        assert_eq!(format!("{handle:?}"), "CancelHandle(gone)");
    }
}

/// Ours: the handle that a waiter keeps.
#[test]
fn the_handle_of_an_observer_cancels_and_keeps_nothing_alive() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let alive = Rc::new(());
    let (watched, trace) = (Rc::downgrade(&alive), Trace::default());
    let observed = trace.clone();
    let handle = deferred.observe(move |result| {
        let _alive = alive;
        observed.note(result.expect_err("cancelled").is_cancelled());
    });
    handle.cancel();
    trace.is(&["true"]);
    assert_eq!(watched.strong_count(), 0);
    assert!(resolver.is_cancelled());
}

/// D28: upstream lets the exception out and leaves the Deferred unfired (#6676, #9534); not so
/// here.
#[test]
fn a_canceller_that_panics_fires_the_deferred_with_its_panic() {
    let (resolver, deferred) = Deferred::<()>::with_canceller(|_| panic!("cannot cancel"));
    deferred.cancel();
    assert!(resolver.is_cancelled());
    assert_eq!(error_of(deferred), "panicked: cannot cancel");

    let reports = reports_of(|| {
        let (_resolver, deferred) = Deferred::with_canceller(|cancelling| {
            cancelling.callback(1);
            panic!("too late");
        });
        deferred.cancel();
        assert_eq!(value_of(deferred), 1);
    });
    assert_eq!(reports, ["unhandled failure in a canceller: panicked: too late"]);
}

/// D29: cancellerCircularReferenceCallback, ...Errback, ...NonFinalResult.
#[test]
fn a_canceller_is_dropped_when_its_deferred_fires() {
    let alive = Rc::new(());
    let watched = Rc::downgrade(&alive);
    let (resolver, deferred) = Deferred::<()>::with_canceller(move |_| drop(alive));
    let end = deferred.add_callback(move |()| Ok(watched.strong_count()));
    resolver.callback(());
    assert_eq!(value_of(end), 0);
}

/// D30: a cancellation is a request.
#[test]
fn an_errback_may_turn_a_cancellation_into_a_value() {
    let (_resolver, deferred) = Deferred::<u32>::new();
    let (resolver, slow) = Deferred::<u32>::new();
    let deferred = deferred.or_else(move |failure| {
        assert!(failure.is_cancelled());
        slow
    });
    deferred.cancel();
    assert!(!deferred.is_fired());
    resolver.callback(5);
    assert_eq!(value_of(deferred), 5);
}

/// A cancel from inside a callback of its own chain finds nothing that is waited for.
#[test]
fn a_callback_that_cancels_its_own_chain_changes_nothing() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let handle = deferred.canceller();
    let end = deferred.add_callback(move |n| {
        handle.cancel();
        Ok(n)
    });
    resolver.callback(1);
    assert_eq!(value_of(end), 1);
}

/// D27: whether the outer one had fired when the callback was added makes no difference.
#[test]
fn a_handle_to_an_inner_deferred_does_not_reach_what_the_outer_one_waits_for_next() {
    for fired_before in [false, true] {
        let (inner_resolver, inner) = Deferred::<u32>::new();
        let handle = inner.canceller();
        let (resolver, outer) = Deferred::<()>::new();
        let mut resolver = Some(resolver);
        if fired_before {
            resolver.take().expect("unfired").callback(());
        }
        let (next_resolver, next) = Deferred::<u32>::new();
        let end = outer.and_then(move |()| inner).or_else(move |_| next);
        if let Some(resolver) = resolver {
            resolver.callback(());
        }
        handle.cancel();
        assert!(inner_resolver.is_cancelled());
        handle.cancel();
        assert!(!next_resolver.is_cancelled(), "fired before: {fired_before}");
        end.cancel();
        assert!(next_resolver.is_cancelled() && is_cancelled(end));
    }
}
