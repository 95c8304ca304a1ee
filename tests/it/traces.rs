//! Joined traces: in debug mode a failure tells the way that it took through several stacks.

use greenloop::{
    Deferred, Failure, run, set_debugging, spawn, wait_for_deferred, wait_for_deferred_timeout,
    yield_now,
};

/// Runs `f` in debug mode.
fn debugging<T>(f: impl FnOnce() -> T) -> T {
    let before = set_debugging(true);
    let value = run(f);
    set_debugging(before);
    value
}

/// The lines of this file that a failure names as waits, in order.
fn waits(failure: &Failure) -> Vec<u32> {
    let text = format!("{failure:?}");
    let places = text.split("waited for at ").skip(1);
    places
        .map(|place| {
            assert!(place.starts_with(file!()), "{text}");
            place[file!().len() + 1..].split(':').next().unwrap().parse().unwrap()
        })
        .collect()
}

async fn inner(deferred: Deferred<u32>) -> Result<u32, Failure> {
    deferred.await
}

fn middle(deferred: Deferred<u32>) -> Deferred<u32> {
    Deferred::from_future(async move {
        let n = inner(deferred).await?;
        Ok::<_, Failure>(n + 1)
    })
}

/// D57: `ForwardTraceBackTests.test_forwardTracebacks`, `test_forwardLotsOfTracebacks`: the trace
/// goes through every block that the error came through.
#[test]
fn a_failure_names_each_await_that_it_came_through_innermost_first() {
    debugging(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let outer = Deferred::from_future(async move {
            let begin = line!();
            let n = middle(deferred).await;
            assert_eq!(waits(n.as_ref().unwrap_err()).last(), Some(&(begin + 1)));
            n
        });
        yield_now();
        resolver.errback(Failure::msg("broken"));
        let (result, here) = (wait_for_deferred(outer), line!());
        let failure = result.unwrap_err();
        let ways = waits(&failure);
        assert_eq!(ways.len(), 3, "{failure:?}");
        assert!(ways[0] < ways[1] && ways[1] < ways[2] && ways[2] == here, "{ways:?} {here}");
        let text = format!("{failure:?}");
        assert!(text.find("made at").unwrap() < text.find("waited for at").unwrap(), "{text}");
    });
}

/// D57: `test_reraiseTracebacksFromDeferred`: also an error that is handed on by another Deferred.
#[test]
fn the_way_goes_through_greenlets_and_other_deferreds() {
    debugging(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let (again, outer) = Deferred::<u32>::new();
        spawn(move || again.fire(wait_for_deferred(deferred)));
        yield_now();
        resolver.errback(Failure::msg("broken"));
        let limit = std::time::Duration::from_secs(3600);
        let failure = wait_for_deferred_timeout(outer, limit).unwrap_err();
        assert_eq!(waits(&failure), [line!() - 5, line!() - 1], "{failure:?}");
    });
}

#[test]
fn the_way_is_not_noted_while_debug_mode_is_off_and_does_not_grow_for_ever() {
    run(|| {
        let failure = wait_for_deferred(Deferred::<u32>::fail(Failure::msg("x"))).unwrap_err();
        assert_eq!(waits(&failure), Vec::<u32>::new());
    });
    debugging(|| {
        let mut result = Err(Failure::msg("x"));
        for _ in 0..100 {
            result = wait_for_deferred(Deferred::<u32>::from_result(result));
        }
        assert_eq!(waits(&result.unwrap_err()).len(), 16);
    });
}
