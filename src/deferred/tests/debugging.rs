//! D40, debug mode (`LogTests.errorLogDebugInfo`, `AlreadyCalledTests` with debugging).

use super::super::{Deferred, Failure, gather_results, set_debugging};
use super::{broken, reports_of, result_of};
use std::panic::Location;

/// Runs `run` in debug mode.
fn debugging<R>(run: impl FnOnce() -> R) -> R {
    assert!(!set_debugging(true), "off by default");
    let value = run();
    assert!(set_debugging(false), "still on");
    value
}

/// The line that it is called on, as a trail names it.
#[track_caller]
fn here() -> String {
    format!("{}:{}:", Location::caller().file(), Location::caller().line())
}

/// Asserts that `text` says `word`, then a place on that line.
#[track_caller]
fn names(text: &str, word: &str, place: &str) {
    assert!(text.contains(&format!("{word} at {place}")), "{word} at {place} is not in: {text}");
}

/// D40: errorLogDebugInfo.
#[test]
fn the_report_tells_where_the_deferred_was_made_and_fired() {
    let mut places = Vec::new();
    let reports = reports_of(|| {
        debugging(|| {
            let ((resolver, deferred), made) = (Deferred::<u32>::new(), here());
            let end = deferred.add_callback(|n| Ok(n + 1));
            let ((), fired) = (resolver.errback(broken()), here());
            places.extend([made, fired]);
            drop(end);
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].starts_with("unhandled failure in Deferred<u32>: broken; made at"));
    names(&reports[0], "made", &places[0]);
    names(&reports[0], "fired", &places[1]);
}

/// D40: errorLogNoDebugInfo, and switched off again.
#[test]
fn off_by_default_nothing_is_noted() {
    let (resolver, deferred) = Deferred::<u32>::new();
    assert!(!format!("{deferred:?}").contains("made at"));
    resolver.errback(broken());
    let failure = result_of(deferred).unwrap_err();
    assert!(!format!("{failure:?}").contains("fired at"));
}

/// Twisted: switchDebugging.
#[test]
fn it_may_be_switched_between_the_making_and_the_firing() {
    let (resolver, deferred) = Deferred::<u32>::new();
    let fired = debugging(|| (resolver.errback(broken()), here()).1);
    let text = format!("{:?}", result_of(deferred).unwrap_err());
    names(&text, "fired", &fired);
    assert!(!text.contains("made at"), "{text}");

    let ((resolver, deferred), made) = debugging(|| (Deferred::<u32>::new(), here()));
    let noted = format!("{deferred:?}");
    names(&noted, "made", &made);
    resolver.errback(broken());
    let text = format!("{:?}", result_of(deferred).unwrap_err());
    assert!(!text.contains("made at"), "debug mode is off: {text}");
}

#[test]
fn every_way_to_make_and_to_fire_is_noted() {
    debugging(|| {
        let of = |deferred: Deferred<u32>| format!("{:?}", result_of(deferred).unwrap_err());
        let (failed, made) = (Deferred::<u32>::fail(broken()), here());
        let text = of(failed);
        names(&text, "made", &made);
        names(&text, "fired", &made);

        // By a canceller.
        let fired = std::rc::Rc::new(std::cell::RefCell::new(String::new()));
        let at = std::rc::Rc::clone(&fired);
        let ((_resolver, deferred), made) = (
            Deferred::<u32>::with_canceller(move |cancelling| {
                let ((), place) = (cancelling.errback(broken()), here());
                *at.borrow_mut() = place;
            }),
            here(),
        );
        deferred.cancel();
        let text = of(deferred);
        assert!(text.contains("fired at"), "{text}");
        names(&text, "fired", &fired.borrow());
        assert!(text.contains("made at") && !made.is_empty());

        // By a drop: there is no place to tell.
        let ((resolver, deferred), made) = (Deferred::<u32>::new(), here());
        let end = deferred.add_callback(Ok);
        drop(resolver);
        let text = of(end);
        names(&text, "made", &made);
        assert!(!text.contains("fired at"), "{text}");

        // By another Deferred.
        let ((resolver, deferred), made) = (Deferred::<u32>::new(), here());
        let end = deferred.add_callback(|_| Err::<u32, _>(broken()));
        let ((), fired) = (Deferred::succeed(1).chain_deferred(resolver), here());
        let text = of(end);
        names(&text, "made", &made);
        names(&text, "fired", &fired);

        // A failure of a callback comes out of the chain it was added to.
        let ((resolver, deferred), made) = (Deferred::<u32>::new(), here());
        let end = deferred.add_callback(|_| Err::<u32, _>(broken()));
        let ((), fired) = (resolver.callback(1), here());
        let text = of(end);
        names(&text, "made", &made);
        names(&text, "fired", &fired);
    });
}

/// The trail is that of the chain in which the failure came up, wherever it goes then.
#[test]
fn a_failure_keeps_the_first_trail() {
    debugging(|| {
        let ((inner_resolver, inner), made) = (Deferred::<u32>::new(), here());
        let (resolver, outer) = Deferred::<()>::new();
        let outer = outer.and_then(move |()| inner);
        resolver.callback(());
        inner_resolver.errback(broken());
        names(&format!("{:?}", result_of(outer).unwrap_err()), "made", &made);
    });
}

#[test]
fn a_list_notes_where_it_was_made() {
    debugging(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let (list, made) = (gather_results([deferred]), here());
        names(&format!("{list:?}"), "made", &made);
        resolver.callback(1);
    });
}

/// DEBUG-1: what is dropped is forgotten, so that an address used again is another's.
#[test]
fn the_trail_of_a_dropped_deferred_is_forgotten() {
    debugging(|| {
        for _ in 0..100 {
            let (resolver, deferred) = Deferred::<u32>::new();
            resolver.callback(1);
            assert!(format!("{deferred:?}").contains("fired at"));
            drop(deferred);
            let (resolver, deferred) = Deferred::<u32>::new();
            assert!(!format!("{deferred:?}").contains("fired at"), "of one at the same address");
            resolver.callback(1);
        }
    });
}

#[test]
fn a_failure_outlives_debug_mode_and_crosses_threads_with_its_trail() {
    let (failure, made) = debugging(|| {
        let ((resolver, deferred), made) = (Deferred::<u32>::new(), here());
        resolver.errback(broken());
        (result_of(deferred).unwrap_err(), made)
    });
    let show = |failure: Failure| format!("{failure:?}");
    let text = std::thread::spawn(move || show(failure)).join().expect("it shows");
    names(&text, "made", &made);
}
