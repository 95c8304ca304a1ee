//! D50, D51: `maybe_deferred`, `execute` (`test_maybeDeferred…`, `test_execute…` upstream).

use super::super::{Deferred, Failure, execute, maybe_deferred};
use super::{broken, error_of, value_of};

/// D50: maybeDeferredSync, ...SyncWithArgs, ...SyncException, ...SyncFailure, ...Async,
/// ...AsyncError.
#[test]
fn maybe_deferred_makes_a_deferred_of_whatever_came() {
    let factor = 3;
    assert_eq!(value_of(maybe_deferred(|| Ok::<_, Failure>(2 * factor))), 6);
    assert_eq!(error_of(maybe_deferred(|| Err::<u32, _>(std::io::Error::other("no")))), "no");
    assert_eq!(error_of(maybe_deferred(|| Err::<u32, _>(broken()))), "broken");
    let panics = || -> Result<u32, Failure> { panic!("oh") };
    assert_eq!(error_of(maybe_deferred(panics)), "panicked: oh");
    assert_eq!(error_of(maybe_deferred(|| Deferred::<u32>::fail(broken()))), "broken");
    let (resolver, deferred) = Deferred::<u32>::new();
    let handle = deferred.canceller();
    let same = maybe_deferred(|| deferred);
    assert!(!same.is_fired());
    handle.cancel();
    assert!(resolver.is_cancelled() && same.is_fired());
}

/// D51: execute.
#[test]
fn execute_makes_a_deferred_of_a_value_or_a_panic() {
    let text = "seven".to_owned();
    assert_eq!(value_of(execute(|| text.len())), 5);
    assert_eq!(error_of(execute(|| panic!("oh"))), "panicked: oh".to_owned());
}
