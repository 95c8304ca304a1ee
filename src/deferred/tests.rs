//! What Twisted's own tests ask of a Deferred, and what this crate adds. A test names the upstream
//! tests that it answers (all of `twisted.test.test_defer`, classes `DeferredTests` and
//! `DeferredCancellerTests` unless it says otherwise); D1 to D30 are our numbers for the
//! behaviours.
//!
//! What has no test, because ownership leaves nothing to test: D1 and D25, a second result
//! (`AlreadyCalledTests`: a compile_fail doctest of `Resolver`); D7, `errback()` without argument;
//! D9, that every add returns a Deferred (the types say so); D13, an unpause without a pause.

mod cancelling;
mod causes;
mod chaining;
mod debugging;
mod depth;
mod failures;
mod firing;
mod maybe;
mod model;
mod pausing;
mod several;
mod unhandled;

use super::{Deferred, Failure};
use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;

/// What happened, in order.
#[derive(Clone, Default)]
struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    fn note(&self, entry: impl Display) {
        self.0.borrow_mut().push(entry.to_string());
    }

    fn is(&self, entries: &[&str]) {
        assert_eq!(*self.0.borrow(), entries);
    }
}

/// The failure of these tests.
fn broken() -> Failure {
    Failure::msg("broken")
}

/// Takes the result of a Deferred that must have it.
fn result_of<T>(deferred: Deferred<T>) -> Result<T, Failure> {
    deferred.try_take().expect("it has its result")
}

/// Takes the value of a Deferred that must have one.
fn value_of<T>(deferred: Deferred<T>) -> T {
    result_of(deferred).expect("a value")
}

/// Takes the text of the failure of a Deferred that must have one.
fn error_of<T>(deferred: Deferred<T>) -> String {
    match result_of(deferred) {
        Ok(_) => panic!("a value in place of a failure"),
        Err(failure) => failure.to_string(),
    }
}

/// The reports of unhandled failures that `run` causes on this thread.
fn reports_of(run: impl FnOnce()) -> Vec<String> {
    let reports = Trace::default();
    let hook = reports.clone();
    let before = crate::report::set_unhandled_hook(Some(Box::new(move |report| hook.note(report))));
    run();
    crate::report::set_unhandled_hook(before);
    reports.0.take()
}
