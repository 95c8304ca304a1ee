//! D41, improved: an error raised by an errback names the original as its cause (FAIL-2, FAIL-3).

use super::super::cause::CAUSES_MAX;
use super::super::{Abandoned, Deferred, Failure};
use super::{Trace, broken, error_of, reports_of, result_of, value_of};
use std::error::Error;
use std::fmt;

/// An error with a source: what `broken` became on purpose.
#[derive(Debug)]
struct Wrapped(Box<dyn Error + Send + Sync>);

impl fmt::Display for Wrapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrapped")
    }
}

impl Error for Wrapped {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// A Deferred that fails with `broken`, by a chain of its own or born with it.
fn failed(by_chain: bool) -> Deferred<u32> {
    if !by_chain {
        return Deferred::fail(broken());
    }
    let (resolver, deferred) = Deferred::<u32>::new();
    let deferred = deferred.add_callback(|n| Ok(n + 1));
    let handle = deferred.canceller();
    resolver.errback(broken());
    handle.cancel();
    deferred
}

#[test]
fn an_error_that_an_errback_raises_names_the_original() {
    for by_chain in [false, true] {
        let raised = failed(by_chain).add_errback(|_| Err(Failure::msg("cannot mend")));
        let failure = result_of(raised).unwrap_err();
        assert_eq!(failure.to_string(), "cannot mend; while handling: broken");
        let cause = failure.cause().expect("the original");
        assert_eq!(cause.to_string(), "broken");
        assert!(cause.cause().is_none());
        assert!(format!("{failure:?}").starts_with("Failure(cannot mend; while handling: broken"));
    }
}

/// Every way in which a failure is handled: before it fires, after, by each kind of errback.
#[test]
fn every_kind_of_errback_names_the_original() {
    type Add = fn(Deferred<u32>) -> Deferred<u32>;
    let kinds: [Add; 6] = [
        |d| d.add_errback(|_| Err(Failure::msg("new"))),
        |d| d.or_else(|_| Deferred::fail(Failure::msg("new"))),
        |d| d.add_callbacks(Ok, |_| Err(Failure::msg("new"))),
        |d| d.add_both(|_| Err(Failure::msg("new"))),
        |d| d.then(|_| Deferred::fail(Failure::msg("new"))),
        |d| {
            let (resolver, inner) = Deferred::<u32>::new();
            let waiting = d.or_else(move |_| inner);
            resolver.errback(Failure::msg("new"));
            waiting
        },
    ];
    for (kind, add) in kinds.into_iter().enumerate() {
        for by_chain in [false, true] {
            assert_eq!(error_of(add(failed(by_chain))), "new; while handling: broken", "{kind}");
        }
        let (resolver, deferred) = Deferred::<u32>::new();
        let end = add(deferred);
        resolver.errback(broken());
        assert_eq!(error_of(end), "new; while handling: broken", "{kind}");
    }
}

/// An inner Deferred that fails when the errback has long returned.
#[test]
fn a_deferred_that_an_errback_returns_names_the_original_when_it_fails_later() {
    for by_chain in [false, true] {
        let (resolver, inner) = Deferred::<u32>::new();
        let end = failed(by_chain).or_else(move |_| inner).add_callback(Ok);
        resolver.errback(Failure::msg("late"));
        assert_eq!(error_of(end), "late; while handling: broken");
    }
    let (resolver, inner) = Deferred::<u32>::new();
    let (outer, deferred) = Deferred::<u32>::new();
    let end = deferred.or_else(move |_| inner);
    outer.errback(broken());
    resolver.errback(Failure::msg("late"));
    assert_eq!(error_of(end), "late; while handling: broken");
}

#[test]
fn an_errback_that_panics_names_the_original() {
    for by_chain in [false, true] {
        let raised = failed(by_chain).add_errback(|_| panic!("in an errback"));
        assert_eq!(error_of(raised), "panicked: in an errback; while handling: broken");
    }
}

#[test]
fn a_failure_that_is_passed_on_kept_or_wrapped_is_nobodys_cause() {
    let passed = failed(true).add_errback(Err).add_callback(Ok).add_both(|result| result);
    let failure = result_of(passed).unwrap_err();
    assert!(failure.cause().is_none());
    assert_eq!(failure.to_string(), "broken");

    let wrapped = failed(true).add_errback(|failure| Err(Wrapped(failure.into()).into()));
    let failure = result_of(wrapped).unwrap_err();
    assert!(failure.cause().is_none());
    assert_eq!(failure.to_string(), "wrapped: broken");

    let (keep, kept) = std::sync::mpsc::channel();
    let other = failed(true).add_errback(move |failure| {
        keep.send(failure).expect("the test listens");
        Err(Failure::msg("other"))
    });
    assert_eq!(error_of(other), "other");
    assert_eq!(kept.recv().expect("the errback sent it").to_string(), "broken");
}

#[test]
fn a_failure_that_comes_to_a_value_leaves_no_cause_to_the_next_one() {
    let mended = failed(true).add_errback(|_| Ok(1)).add_callback(|_| Err::<u32, _>(broken()));
    let failure = result_of(mended).unwrap_err();
    assert!(failure.cause().is_none());
}

/// The report is one, with both; the original was handed over.
#[test]
fn an_unhandled_failure_is_reported_once_with_its_causes() {
    let reports = reports_of(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        drop(deferred.add_errback(|_| Err(Failure::msg("cannot mend"))));
        drop(resolver);
    });
    let abandoned = Abandoned.to_string();
    let report =
        format!("unhandled failure in Deferred<u32>: cannot mend; while handling: {abandoned}");
    assert_eq!(reports, [report]);
}

/// FAIL-3: retrying for ever.
#[test]
fn only_the_newest_causes_are_kept() {
    let mut deferred = failed(true);
    for n in 0..1_000 {
        deferred = deferred.add_errback(move |_| Err(Failure::msg(n)));
    }
    let failure = result_of(deferred).unwrap_err();
    let numbers: Vec<_> = std::iter::successors(Some(&failure), |failure| failure.cause())
        .map(|failure| failure.error().expect("a text").to_string())
        .collect();
    let newest: Vec<_> = (0..1_000).rev().take(CAUSES_MAX + 1).map(|n| n.to_string()).collect();
    assert_eq!(numbers, newest);
}

#[test]
fn a_new_failure_with_causes_of_its_own_keeps_them_before_the_original() {
    let raised = failed(true).add_errback(|_| {
        let inner = Deferred::<u32>::fail(Failure::msg("first"));
        Err(result_of(inner.add_errback(|_| Err(Failure::msg("second")))).unwrap_err())
    });
    assert_eq!(error_of(raised), "second; while handling: first; while handling: broken");
}

/// An errback may fire other chains while it handles its failure, and hand that one to them.
#[test]
fn nested_errbacks_do_not_mix_their_failures_up() {
    let trace = Trace::default();
    let inside = trace.clone();
    let end = failed(true).add_errback(move |outer| {
        let inner = Deferred::<u32>::fail(Failure::msg("inner"));
        let inner = inner.add_errback(|_| Err(Failure::msg("from inner")));
        inside.note(error_of(inner));
        // What the outer one was handling goes to another chain, and is that one's from now on.
        let handed = Deferred::<u32>::fail(outer).add_errback(|_| Err(Failure::msg("handed")));
        inside.note(error_of(handed));
        Err(Failure::msg("outer"))
    });
    trace.is(&["from inner; while handling: inner", "handed; while handling: broken"]);
    assert_eq!(error_of(end), "outer");
}

#[test]
fn a_failure_may_be_dropped_on_another_thread_while_it_is_handled() {
    let raised = failed(true).add_errback(|failure| {
        std::thread::spawn(move || drop(failure)).join().expect("it drops");
        Err(Failure::msg("new"))
    });
    assert_eq!(error_of(raised), "new; while handling: broken");
}

#[test]
fn a_boxed_error_leads_to_the_causes_by_its_sources() {
    let raised = failed(true).add_errback(|failure| Err(Wrapped(failure.into()).into()));
    let raised = raised.add_errback(|_| panic!("in an errback"));
    let boxed: Box<dyn Error + Send + Sync> = result_of(raised).unwrap_err().into();
    assert_eq!(boxed.to_string(), "panicked: in an errback");
    let wrapped = boxed.source().expect("the cause");
    assert!(wrapped.is::<Wrapped>());
    assert_eq!(wrapped.source().expect("its source").to_string(), "broken");
}

/// What `downcast` does not take goes on as it was, cause and all.
#[test]
fn trap_and_check_leave_the_rest_of_a_failure_as_it_was() {
    let raised = failed(true).add_errback(|_| Err(std::io::Error::other("no disk").into()));
    let failure = result_of(raised).unwrap_err();
    assert!(failure.is::<std::io::Error>() && !failure.is::<Abandoned>());
    let failure = failure.downcast::<Abandoned>().unwrap_err().into_panic().unwrap_err();
    assert_eq!(failure.to_string(), "no disk; while handling: broken");
    let trapped = Deferred::<u32>::fail(failure).add_errback(|failure| {
        assert_eq!(failure.downcast::<std::io::Error>()?.to_string(), "no disk");
        Ok(3)
    });
    assert_eq!(value_of(trapped), 3);
}

/// CHAIN-3: the failure is dropped when the errback has returned; its destructor is user code.
#[test]
fn an_error_that_panics_when_it_is_dropped_does_not_stop_the_chain() {
    #[derive(Debug)]
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    impl fmt::Display for PanicsInDrop {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("panics in drop")
        }
    }
    impl Error for PanicsInDrop {}

    let reports = reports_of(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let end = deferred.add_errback(|_| Ok(1)).add_callback(|n| Ok(n + 1));
        resolver.errback(PanicsInDrop);
        assert_eq!(value_of(end), 2);
        let end = Deferred::<u32>::fail(PanicsInDrop).add_errback(|_| Ok(1));
        assert_eq!(value_of(end), 1);
        let (resolver, inner) = Deferred::<u32>::new();
        let end = Deferred::<u32>::fail(PanicsInDrop).or_else(move |_| inner);
        resolver.callback(1);
        assert_eq!(value_of(end), 1);
        // Swallowed, for the other was cancelled.
        let (resolver, deferred) = Deferred::<u32>::new();
        let (other_resolver, other) = Deferred::<u32>::new();
        deferred.chain_deferred(other_resolver);
        other.cancel();
        resolver.errback(PanicsInDrop);
    });
    let report = "unhandled failure in the destructor of an error: panicked: dropped";
    let late = "unhandled failure in the destructor of a late result: panicked: dropped";
    assert_eq!(reports, [report, report, report, late]);
}
