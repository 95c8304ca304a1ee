//! FAIL-1: what is reported when nobody takes a failure (`LogTests` upstream).

use super::super::{Deferred, Failure};
use super::{Trace, broken, reports_of, result_of};
use crate::report::set_unhandled_hook;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

const REPORT: &str = "unhandled failure in Deferred<u32>: broken";

/// D37: errorLog, errorLogNoRepr.
#[test]
fn a_failure_that_nobody_took_is_reported_once() {
    // Born with it.
    assert_eq!(reports_of(|| drop(Deferred::<u32>::fail(broken()))), [REPORT]);
    // Fired with it, end dropped after and before.
    for end_first in [true, false] {
        let reports = reports_of(|| {
            let (resolver, deferred) = Deferred::<u32>::new();
            let end = deferred.add_callback(|n| Ok(n + 1));
            let end = (!end_first).then_some(end);
            resolver.errback(broken());
            drop(end);
        });
        assert_eq!(reports, [REPORT], "end first: {end_first}");
    }
    // The origin itself is the end.
    let reports = reports_of(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        resolver.errback(broken());
        drop(deferred);
    });
    assert_eq!(reports, [REPORT]);
    // Kept back for ever by nobody: behind a pause that ended.
    let reports = reports_of(|| drop(Deferred::<u32>::fail(broken()).pause()));
    assert_eq!(reports, [REPORT]);
}

/// D39: chainedErrorCleanup, and a failure that was taken.
#[test]
fn a_failure_that_somebody_took_is_not_reported() {
    let reports = reports_of(|| {
        drop(Deferred::<u32>::fail(broken()).add_errback(|_| Ok(1)));
        drop(Deferred::<u32>::fail(broken()).try_take());
        Deferred::<u32>::fail(broken()).observe(drop);
    });
    assert_eq!(reports, [""; 0]);
}

#[test]
fn a_cancellation_is_not_reported_and_an_abandonment_only_where_somebody_listens() {
    let reports = reports_of(|| {
        let (_resolver, deferred) = Deferred::<u32>::new();
        deferred.cancel();
        drop(deferred);
        // Nobody listens.
        let (resolver, deferred) = Deferred::<u32>::new();
        drop(deferred);
        drop(resolver);
    });
    assert_eq!(reports, [""; 0]);
    let reports = reports_of(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        drop(deferred.add_callback(|n| Ok(n + 1)));
        drop(resolver);
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("abandoned"), "{reports:?}");
}

#[test]
fn a_panic_of_an_observer_is_reported() {
    let reports = reports_of(|| {
        Deferred::succeed(1).observe(|_| panic!("in the observer"));
    });
    assert_eq!(reports, ["unhandled failure in Deferred<()>: panicked: in the observer"]);
}

/// REPORT-1, and that the hook sees the Failure itself.
#[test]
fn a_hook_sees_the_failure_and_may_panic_or_replace_itself() {
    let trace = Trace::default();
    let (noted, in_new_hook) = (trace.clone(), trace.clone());
    let none = set_unhandled_hook(Some(Box::new(move |report| {
        let failure = report.value::<Failure>().expect("of a Deferred");
        noted.note(format!("{}: {}", report.what(), failure));
        drop(Deferred::<()>::fail(broken())); // to standard error, not back in here
        let in_new_hook = in_new_hook.clone();
        let running = set_unhandled_hook(Some(Box::new(move |report| {
            in_new_hook.note(report.message());
            panic!("a hook may not, but does");
        })));
        assert!(running.is_none());
    })));
    assert!(none.is_none());
    drop(Deferred::<u32>::fail(broken()));
    drop(Deferred::<u32>::fail(broken()));
    assert!(set_unhandled_hook(None).is_some());
    trace.is(&["Deferred<u32>: broken", "broken"]);
}

/// An error whose text panics.
#[derive(Debug)]
struct Untold;

impl fmt::Display for Untold {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in a text")
    }
}

impl Error for Untold {}

/// REPORT-1: of what the user wrote, nothing unwinds out of a report.
#[test]
fn texts_and_what_a_hook_captured_may_panic() {
    drop(Deferred::<u32>::fail(Untold)); // to standard error

    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let captured = PanicsInDrop;
    let none = set_unhandled_hook(Some(Box::new(move |_| {
        let _ = &captured;
        set_unhandled_hook(None);
    })));
    assert!(none.is_none());
    drop(Deferred::<u32>::fail(broken()));
}

/// CHAIN-2: to show a Deferred takes nothing away, not even if that panics.
#[test]
fn a_deferred_whose_text_panics_still_has_its_result() {
    for by_chain in [false, true] {
        let (resolver, deferred) = Deferred::<u32>::new();
        let deferred = match by_chain {
            true => deferred,
            false => Deferred::fail(Untold),
        };
        resolver.errback(Untold);
        let shown = catch_unwind(AssertUnwindSafe(|| format!("{deferred:?}")));
        assert!(shown.is_err() && deferred.is_fired());
        assert!(result_of(deferred).unwrap_err().is::<Untold>());
    }
}
