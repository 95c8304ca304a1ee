//! D11 to D13: pauses.

use super::super::Deferred;
use super::{broken, error_of, value_of};

/// D11: pausedFailure.
#[test]
fn a_paused_deferred_keeps_its_result_back_until_the_guard_is_dropped() {
    let deferred = Deferred::<u32>::fail(broken());
    let pause = deferred.pause();
    assert!(!deferred.is_fired());
    let end = deferred.add_errback(|failure| {
        assert_eq!(failure.to_string(), "broken");
        Ok(1)
    });
    assert!(!end.is_fired());
    drop(pause);
    assert_eq!(value_of(end), 1);
}

/// D11: unpauseBeforeCallback.
#[test]
fn a_pause_that_ended_before_the_firing_changes_nothing() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let pause = deferred.pause();
    let end = deferred.add_callback(|n| Ok(n + 1));
    drop(pause);
    assert!(!end.is_fired());
    resolver.callback(1);
    assert_eq!(value_of(end), 2);
}

/// D11: the counter. D13 has no counterpart: each guard ends its own pause.
#[test]
fn pauses_add_up() {
    for first_ends_first in [true, false] {
        let (resolver, deferred) = Deferred::<u32>::new();
        let (first, second) = (deferred.pause(), deferred.pause());
        resolver.callback(1);
        let (one, other) = if first_ends_first { (first, second) } else { (second, first) };
        drop(one);
        assert!(!deferred.is_fired());
        drop(other);
        assert!(deferred.is_fired());
        assert_eq!(value_of(deferred), 1);
    }
}

/// D12: chainedPausedDeferredWithResult, pausedDeferredChained.
#[test]
fn an_outer_deferred_waits_for_a_paused_inner_one() {
    let inner = Deferred::succeed(3);
    let pause = inner.pause();
    let (resolver, deferred) = Deferred::<()>::new();
    let outer = deferred.and_then(move |()| inner);
    resolver.callback(());
    outer.cancel(); // the result is there already, only kept back
    assert!(!outer.is_fired());
    drop(pause);
    assert_eq!(value_of(outer), 3);

    let (resolver, deferred) = Deferred::<()>::new();
    let outer = deferred.and_then(|()| Deferred::<u32>::fail(broken()));
    let pause = outer.pause();
    resolver.callback(());
    assert!(!outer.is_fired());
    drop(pause);
    assert_eq!(error_of(outer), "broken");
}

/// A pause inside of a callback of the same chain.
#[test]
fn a_pause_that_ends_while_its_chain_runs_loses_nothing() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let (keep, pauses) = std::sync::mpsc::channel();
    let deferred = deferred.add_callback(move |n| {
        drop(pauses.recv());
        Ok(n)
    });
    keep.send(deferred.pause()).expect("the callback has the other end");
    resolver.callback(1);
    assert_eq!(value_of(deferred), 1);
}
