//! D43 to D49: lists and races (`DeferredListTests`, `RaceTests`, `test_gatherResults` upstream).

use super::super::{
    Abandoned, CancelHandle, Deferred, DeferredList, FailureGroup, FirstError, ListResult,
    Resolver, first, gather_results, race,
};
use super::{Trace, broken, error_of, reports_of, result_of, value_of};
use std::cell::RefCell;
use std::rc::Rc;

/// So many unfired Deferreds and what fires them.
fn unfired(count: usize) -> (Vec<Option<Resolver<u32>>>, Vec<Deferred<u32>>) {
    let ends = (0..count).map(|_| Deferred::new());
    ends.map(|(resolver, deferred)| (Some(resolver), deferred)).unzip()
}

fn fire(resolvers: &mut [Option<Resolver<u32>>], index: usize, value: u32) {
    resolvers[index].take().expect("it has not fired").callback(value);
}

fn fail(resolvers: &mut [Option<Resolver<u32>>], index: usize) {
    resolvers[index].take().expect("it has not fired").errback(broken());
}

/// A list's results as text.
fn texts(result: ListResult<u32>) -> Vec<String> {
    match result {
        ListResult::One { index, value } => vec![format!("one: {value} at {index}")],
        ListResult::All(results) => results
            .into_iter()
            .map(|result| result.map_or_else(|f| f.to_string(), |n| n.to_string()))
            .collect(),
    }
}

fn is_cancelled<T>(deferred: Deferred<T>) -> bool {
    result_of(deferred).is_err_and(|failure| failure.is_cancelled())
}

/// D43: DeferredList.
#[test]
fn a_list_gives_every_result_in_its_order() {
    let (mut resolvers, deferreds) = unfired(3);
    let list = DeferredList::new(deferreds).into_deferred();
    fire(&mut resolvers, 2, 3);
    fail(&mut resolvers, 0);
    assert!(!list.is_fired());
    fire(&mut resolvers, 1, 2);
    assert_eq!(texts(value_of(list)), ["broken", "2", "3"]);
}

/// D43: DeferredListWithAlreadyFiredDeferreds.
#[test]
fn a_list_takes_members_that_have_fired() {
    let (resolver, late) = Deferred::new();
    let members = [Deferred::fail(broken()), Deferred::succeed(1), late];
    let list = DeferredList::new(members).into_deferred();
    assert!(!list.is_fired());
    resolver.callback(2);
    assert_eq!(texts(value_of(list)), ["broken", "1", "2"]);
    let list = DeferredList::new([Deferred::succeed(1)]).into_deferred();
    assert!(list.is_fired());
}

/// D44: EmptyDeferredList, emptyDeferredListWith...; upstream hangs with `fireOnOneCallback`.
#[test]
fn an_empty_list_or_race_never_hangs() {
    let none = || DeferredList::<u32>::new([]);
    for list in [none(), none().fire_on_one_errback(), none().fire_on_one_callback()] {
        assert_eq!(texts(value_of(list.into_deferred())), [""; 0]);
    }
    assert_eq!(value_of(gather_results::<u32>([])), [0; 0]);
    for nobody in [race::<u32>([]), first::<u32>([])] {
        let failure = result_of(nobody).unwrap_err();
        assert_eq!(failure.to_string(), "there was no Deferred to wait for");
        assert!(failure.downcast_ref::<FailureGroup>().is_some_and(|g| g.failures.is_empty()));
        assert!(!failure.is_cancelled());
    }
}

/// D45: deferredListFireOnOneCallback... Others go on.
#[test]
fn a_list_may_fire_on_one_callback() {
    let (mut resolvers, deferreds) = unfired(3);
    let list = DeferredList::new(deferreds).fire_on_one_callback().into_deferred();
    fire(&mut resolvers, 1, 7);
    assert_eq!(texts(value_of(list)), ["one: 7 at 1"]);
    assert!(resolvers.iter().flatten().all(|resolver| !resolver.is_cancelled()));
    fire(&mut resolvers, 0, 1);
    fire(&mut resolvers, 2, 1);

    let (mut resolvers, deferreds) = unfired(2);
    let list = DeferredList::new(deferreds).fire_on_one_callback().into_deferred();
    (0..2).for_each(|index| fail(&mut resolvers, index));
    assert_eq!(texts(value_of(list)), ["broken", "broken"]);
}

/// D45: deferredListFireOnOneError, ...WithAlreadyFiredDeferreds.
#[test]
fn a_list_may_fail_on_one_errback() {
    for fired_before in [false, true] {
        let (mut resolvers, mut deferreds) = unfired(2);
        let before = fired_before.then(|| Deferred::fail(broken()));
        let is_last = before.is_none();
        deferreds.extend(before);
        let list = DeferredList::new(deferreds).fire_on_one_errback().into_deferred();
        if is_last {
            fail(&mut resolvers, 1);
        }
        let error = result_of(list).unwrap_err().downcast::<FirstError>().unwrap();
        assert_eq!(
            (error.index, error.failure.to_string()),
            (2 - usize::from(is_last), "broken".into())
        );
        assert!(resolvers.iter().flatten().all(|resolver| !resolver.is_cancelled()));
        resolvers.into_iter().flatten().for_each(|resolver| resolver.callback(0));
    }
    let both = |d: Vec<Deferred<u32>>| {
        DeferredList::new(d).fire_on_one_errback().fire_on_one_callback().into_deferred()
    };
    let list = both(vec![Deferred::fail(broken()), Deferred::succeed(1)]);
    assert_eq!(error_of(list), "the Deferred at 0 failed first: broken");
    let list = both(vec![Deferred::succeed(1), Deferred::fail(broken()).add_errback(|_| Ok(1))]);
    assert_eq!(texts(value_of(list)), ["one: 1 at 0"]);
}

/// D45: FirstErrorTests, and that nothing of the failure is lost in it.
#[test]
fn a_first_error_tells_its_failure() {
    let error = |deferred| error_of(gather_results([Deferred::succeed(0), deferred]));
    let panicked = Deferred::succeed(1).add_callback(|_: u32| -> Result<u32, _> { panic!("oh") });
    assert_eq!(error(panicked), "the Deferred at 1 failed first: panicked: oh");
    let caused = Deferred::<u32>::fail(broken()).add_errback(|_| Err(broken()));
    assert_eq!(error(caused), "the Deferred at 1 failed first: broken; while handling: broken");
    let plain = std::io::Error::other("no disk");
    assert_eq!(error(Deferred::fail(plain)), "the Deferred at 1 failed first: no disk");
}

/// D46: DontConsumeErrors, ConsumeErrors. Here what is in the result is not reported besides.
#[test]
fn failures_that_are_in_no_result_are_reported_unless_the_list_consumes_them() {
    let run = |consumes: bool| {
        reports_of(move || {
            let flag =
                |list: DeferredList<u32>| if consumes { list.consume_errors() } else { list };
            // Those of the result are not.
            let (mut resolvers, deferreds) = unfired(2);
            let list = flag(DeferredList::new(deferreds)).into_deferred();
            (0..2).for_each(|index| fail(&mut resolvers, index));
            assert_eq!(texts(value_of(list)), ["broken", "broken"]);
            // After the first.
            let (mut resolvers, deferreds) = unfired(2);
            let list = flag(DeferredList::new(deferreds)).fire_on_one_errback().into_deferred();
            (0..2).for_each(|index| fail(&mut resolvers, index));
            assert_eq!(error_of(list), "the Deferred at 0 failed first: broken");
            // Before the value.
            let (mut resolvers, deferreds) = unfired(2);
            let list = flag(DeferredList::new(deferreds)).fire_on_one_callback().into_deferred();
            fail(&mut resolvers, 0);
            fire(&mut resolvers, 1, 1);
            assert_eq!(texts(value_of(list)), ["one: 1 at 1"]);
        })
    };
    let report = "unhandled failure in a Deferred whose result came too late for its list or race: \
                  broken";
    assert_eq!(run(false), [report, report]);
    assert_eq!(run(true), [""; 0]);
}

/// D47: cancelDeferredList, cancelDeferredListCallback.
#[test]
fn cancelling_a_list_cancels_its_members_in_order_and_gives_what_they_came_to() {
    let trace = Trace::default();
    let member = |index: u32, value: Option<u32>| {
        let noted = trace.clone();
        Deferred::<u32>::with_canceller(move |cancelling| {
            noted.note(index);
            if let Some(value) = value {
                cancelling.callback(value);
            }
        })
    };
    let (_first, one) = member(0, None);
    let (_second, two) = member(1, Some(5));
    let (_third, three) = member(2, None);
    let list = DeferredList::new([one, Deferred::succeed(4), two, three]).into_deferred();
    list.cancel();
    trace.is(&["0", "1", "2"]);
    let results = texts(value_of(list));
    assert_eq!(results[1..3], ["4", "5"]);
    assert!(results[0].starts_with("cancelled") && results[3].starts_with("cancelled"));
}

/// D46, D47: upstream reports each member, and the `FirstError` of a cancellation.
#[test]
fn a_cancelled_combinator_cancels_its_members_and_leaves_no_report() {
    type Combine = fn(Vec<Deferred<u32>>) -> Deferred<()>;
    let kinds: [Combine; 7] = [
        |d| DeferredList::new(d).into_deferred().add_callback(|_| Ok(())),
        |d| DeferredList::new(d).fire_on_one_errback().into_deferred().add_callback(|_| Ok(())),
        |d| DeferredList::new(d).fire_on_one_callback().into_deferred().add_callback(|_| Ok(())),
        |d| gather_results(d).add_callback(|_| Ok(())),
        |d| race(d).add_callback(|_| Ok(())),
        |d| first(d).add_callback(|_| Ok(())),
        |d| gather_results([race(d), race([Deferred::succeed(1)])]).add_callback(|_| Ok(())),
    ];
    for (kind, combine) in kinds.into_iter().enumerate() {
        let reports = reports_of(|| {
            let (resolvers, deferreds) = unfired(3);
            let whole = combine(deferreds);
            whole.cancel();
            assert!(resolvers.iter().flatten().all(Resolver::is_cancelled), "{kind}");
            assert!(whole.is_fired(), "{kind}");
            if (3..7).contains(&kind) {
                assert!(is_cancelled(whole), "{kind}");
            }
        });
        assert_eq!(reports, [""; 0], "{kind}");
    }
}

/// D47: cancelFiredOnOneCallbackDeferredList, cancelFiredOnOneErrbackDeferredList.
#[test]
fn cancelling_a_list_that_has_fired_does_nothing() {
    for on_callback in [false, true] {
        let (mut resolvers, deferreds) = unfired(2);
        let list = DeferredList::new(deferreds).fire_on_one_callback().fire_on_one_errback();
        let list = list.into_deferred();
        if on_callback {
            fire(&mut resolvers, 0, 1)
        } else {
            fail(&mut resolvers, 0)
        }
        list.cancel();
        assert!(!resolvers[1].as_ref().expect("unfired").is_cancelled());
        fire(&mut resolvers, 1, 1);
        let _ = result_of(list);
    }
}

/// D47: cancelDeferredListWithException. The others are cancelled all the same.
#[test]
fn a_canceller_that_panics_ends_its_member_alone() {
    let (_resolver, panics) = Deferred::<u32>::with_canceller(|_| panic!("cannot cancel"));
    let (resolver, quiet) = Deferred::<u32>::new();
    let list = DeferredList::new([panics, quiet]).into_deferred();
    list.cancel();
    assert!(resolver.is_cancelled());
    assert_eq!(texts(value_of(list))[0], "panicked: cannot cancel");

    // Where the member's failure is in no result, it is reported.
    let reports = reports_of(|| {
        let (_resolver, panics) = Deferred::<u32>::with_canceller(|_| panic!("cannot cancel"));
        assert_eq!(value_of(race([panics, Deferred::succeed(1)])), (1, 1));
        let (_resolver, panics) = Deferred::<u32>::with_canceller(|_| panic!("cannot cancel"));
        let (resolver, quiet) = Deferred::<u32>::new();
        let both = gather_results([quiet, panics]);
        both.cancel();
        assert!(resolver.is_cancelled() && is_cancelled(both));
    });
    let report = "unhandled failure in a Deferred whose result came too late for its list or race: \
                  panicked: cannot cancel";
    assert_eq!(reports, [report, report]);
}

/// D30, D59 for a list: a member may take its time to end, or refuse.
#[test]
fn a_cancelled_list_waits_for_members_that_take_their_time() {
    let (_resolver, member) = Deferred::<u32>::new();
    let (cleaned, clean_up) = Deferred::<u32>::new();
    let member = member.or_else(move |_| clean_up);
    let (_other_resolver, other) = Deferred::<u32>::new();
    let both = gather_results([member, other.add_errback(|_| Ok(2))]);
    both.cancel();
    assert!(!both.is_fired());
    cleaned.callback(1);
    assert_eq!(value_of(both), [1, 2]);

    // A second cancel reaches what they wait for then.
    let (_resolver, member) = Deferred::<u32>::new();
    let (cleaning, clean_up) = Deferred::<u32>::new();
    let list = gather_results([member.or_else(move |_| clean_up)]);
    list.cancel();
    list.cancel();
    assert!(cleaning.is_cancelled());
    assert!(is_cancelled(list));
}

/// One that ends at its cancellation has the others cancelled, which are so once, not twice: the
/// second time would reach their clean-up.
#[test]
fn cancelling_first_or_a_race_cancels_each_member_once() {
    for is_race in [false, true] {
        let (_resolver, generous) =
            Deferred::<u32>::with_canceller(|cancelling| cancelling.callback(6));
        let (other_resolver, other) = Deferred::<u32>::new();
        let (cleaning, clean_up) = Deferred::<u32>::new();
        let members = [generous, other.or_else(move |_| clean_up)];
        let whole = if is_race { race(members) } else { first(members) };
        whole.cancel();
        assert!(other_resolver.is_cancelled());
        assert!(!cleaning.is_cancelled(), "{is_race}");
        assert_eq!(value_of(whole), (0, 6));
    }
    let (_resolver, quick) = Deferred::<u32>::new();
    let (_other_resolver, other) = Deferred::<u32>::new();
    let (cleaning, clean_up) = Deferred::<u32>::new();
    let whole = first([quick, other.or_else(move |_| clean_up)]);
    whole.cancel();
    assert!(!cleaning.is_cancelled() && is_cancelled(whole));
}

/// A canceller that cancels the whole again must not start over.
#[test]
fn a_canceller_may_cancel_the_whole_again() {
    let trace = Trace::default();
    let handle = Rc::new(RefCell::new(CancelHandle::default()));
    let member = |index: u32| {
        let (noted, again) = (trace.clone(), Rc::clone(&handle));
        Deferred::<u32>::with_canceller(move |_| {
            noted.note(index);
            again.borrow().cancel();
        })
    };
    let ((_one, first_member), (_two, second_member)) = (member(1), member(2));
    let whole = gather_results([first_member, second_member]);
    *handle.borrow_mut() = whole.canceller();
    whole.cancel();
    trace.is(&["1", "2"]);
    assert!(is_cancelled(whole));
}

/// D48: gatherResults, gatherResultsWithConsumeErrors.
#[test]
fn gather_gives_the_values_in_order_or_the_first_error() {
    let (mut resolvers, deferreds) = unfired(3);
    let all = gather_results(deferreds);
    [(2, 30), (0, 10), (1, 20)].into_iter().for_each(|(i, n)| fire(&mut resolvers, i, n));
    assert_eq!(value_of(all), [10, 20, 30]);

    let (mut resolvers, deferreds) = unfired(2);
    let all = gather_results(deferreds);
    fire(&mut resolvers, 0, 10);
    fail(&mut resolvers, 1);
    assert_eq!(error_of(all), "the Deferred at 1 failed first: broken");
}

/// D49: RaceTests.success.
#[test]
fn the_first_value_wins_the_race_and_the_losers_are_cancelled() {
    for winner in 0..3 {
        let (mut resolvers, deferreds) = unfired(3);
        let won = race(deferreds);
        let loser = (winner + 1) % 3;
        fail(&mut resolvers, loser);
        assert!(!won.is_fired());
        fire(&mut resolvers, winner, 9);
        assert!(resolvers.iter().flatten().all(Resolver::is_cancelled));
        assert_eq!(reports_of(|| drop(resolvers)), [""; 0]);
        assert_eq!(value_of(won), (winner, 9));
    }
}

/// D49: a winner that had fired before: those after it in the list lose too.
#[test]
fn a_race_that_is_won_before_it_begins_cancels_all_others() {
    let (resolvers, mut deferreds) = unfired(2);
    deferreds.insert(1, Deferred::succeed(8));
    assert_eq!(value_of(race(deferreds)), (1, 8));
    assert!(resolvers.iter().flatten().all(Resolver::is_cancelled));
}

/// D49: RaceTests.failure.
#[test]
fn a_race_that_all_lose_fails_with_the_failures_in_order() {
    let (mut resolvers, deferreds) = unfired(5);
    let lost = race(deferreds);
    let error = |n: usize| std::io::Error::other(n.to_string());
    for index in [3, 0, 4, 1] {
        resolvers[index].take().expect("unfired").errback(error(index));
    }
    assert!(!lost.is_fired());
    drop(resolvers[2].take());
    let failure = result_of(lost).unwrap_err();
    let text = format!("all 5 failed: 0; 1; {Abandoned}; and 2 more");
    assert_eq!(failure.to_string(), text);
    let group = failure.downcast::<FailureGroup>().unwrap();
    assert!(group.failures[2].is::<Abandoned>());
    let rest = [0, 1, 3, 4].map(|index| group.failures[index].to_string());
    assert_eq!(rest, ["0", "1", "3", "4"]);
}

/// D49: RaceTests.resultAfterCancel, resultFromCancel, cancel.
#[test]
fn a_cancelled_race_may_still_be_won_by_a_canceller() {
    let (mut resolvers, deferreds) = unfired(2);
    let won = race(deferreds);
    won.cancel();
    fire(&mut resolvers, 0, 1);
    assert!(is_cancelled(won));

    let (resolver, plain) = Deferred::<u32>::new();
    let (_other, generous) = Deferred::<u32>::with_canceller(|cancelling| cancelling.callback(6));
    let (last_resolver, last) = Deferred::<u32>::new();
    let won = race([plain, generous, last]);
    won.cancel();
    assert!(resolver.is_cancelled() && last_resolver.is_cancelled());
    assert_eq!(value_of(won), (1, 6));

    // One real failure among cancellations is told.
    let (_resolver, plain) = Deferred::<u32>::new();
    let (_other, fails) = Deferred::<u32>::with_canceller(|c| c.errback(broken()));
    let lost = race([plain, fails]);
    lost.cancel();
    let group = result_of(lost).unwrap_err().downcast::<FailureGroup>().unwrap();
    assert!(group.failures[0].is_cancelled() && group.failures[1].to_string() == "broken");
}

#[test]
fn the_first_result_of_either_kind_ends_first() {
    for fails in [false, true] {
        let (mut resolvers, deferreds) = unfired(3);
        let ended = first(deferreds);
        if fails {
            fail(&mut resolvers, 1)
        } else {
            fire(&mut resolvers, 1, 4)
        }
        assert!(resolvers.iter().flatten().all(Resolver::is_cancelled));
        match fails {
            true => assert_eq!(error_of(ended), "the Deferred at 1 failed first: broken"),
            false => assert_eq!(value_of(ended), (1, 4)),
        }
    }
}

#[test]
fn errors_of_losers_are_nobodys_concern_and_panics_are_reported() {
    let reports = reports_of(|| {
        let (_resolver, angry) = Deferred::<u32>::with_canceller(|c| c.errback(broken()));
        let panicked =
            Deferred::succeed(1).add_callback(|_: u32| -> Result<u32, _> { panic!("x") });
        let won = race([panicked, Deferred::fail(broken()), angry, Deferred::succeed(2)]);
        assert_eq!(value_of(won), (3, 2));
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].ends_with("panicked: x"), "{reports:?}");
}

/// A panic stays one inside the error of a list or race that lost.
#[test]
fn panics_inside_losers_that_are_lists_or_races_are_reported() {
    let panics = || Deferred::succeed(1).add_callback(|_: u32| -> Result<u32, _> { panic!("x") });
    let reports = reports_of(|| {
        let listed = gather_results([panics()]).add_callback(|_| Ok(0));
        let raced = race([panics()]).add_callback(|_| Ok(0));
        let failed = gather_results([Deferred::fail(broken())]).add_callback(|_: Vec<u32>| Ok(0));
        let won = race([listed, raced, failed, Deferred::succeed(2)]);
        assert_eq!(value_of(won), (3, 2));
    });
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports.iter().all(|report| report.ends_with("panicked: x")), "{reports:?}");
}

/// FAIL-1 for the whole: its failure is the one that is reported.
#[test]
fn the_failure_of_a_combinator_that_nobody_took_is_reported_once() {
    let reports = reports_of(|| {
        let (mut resolvers, deferreds) = unfired(2);
        drop(gather_results(deferreds));
        fail(&mut resolvers, 1);
        fire(&mut resolvers, 0, 1);
        drop(race([Deferred::<u32>::fail(broken())]));
    });
    assert_eq!(
        reports,
        [
            "unhandled failure in Deferred<alloc::vec::Vec<u32>>: the Deferred at 1 failed first: \
             broken",
            "unhandled failure in Deferred<(usize, u32)>: all 1 failed: broken",
        ]
    );
}

/// Members that wait, are paused, or are waited for by the whole.
#[test]
fn members_may_be_chains_that_wait_and_pause() {
    let (inner_resolver, inner) = Deferred::<u32>::new();
    let waiting = Deferred::succeed(()).and_then(move |()| inner);
    let paused = Deferred::succeed(2);
    let pause = paused.pause();
    let all = gather_results([waiting, paused.add_callback(|n| Ok(n + 1))]);
    let end = Deferred::succeed(()).and_then(move |()| all);
    drop(pause);
    assert!(!end.is_fired());
    inner_resolver.callback(1);
    assert_eq!(value_of(end), [1, 3]);

    let (inner_resolver, inner) = Deferred::<u32>::new();
    let all = gather_results([Deferred::succeed(()).and_then(move |()| inner)]);
    let (resolver, outer) = Deferred::<()>::new();
    let outer = outer.and_then(move |()| all);
    resolver.callback(());
    outer.cancel();
    assert!(inner_resolver.is_cancelled() && is_cancelled(outer));
}

/// A circle through a list never fires, and a cancellation of it ends.
#[test]
fn cancelling_a_circle_through_a_list_ends() {
    let whole = Rc::new(RefCell::new(None::<Deferred<Vec<u32>>>));
    let taken = Rc::clone(&whole);
    let (resolver, member) = Deferred::<u32>::new();
    let member = member
        .and_then(move |_| taken.borrow_mut().take().expect("the whole"))
        .add_callback(|all| Ok(all[0]));
    let all = gather_results([member]);
    let handle = all.canceller();
    *whole.borrow_mut() = Some(all);
    resolver.callback(1);
    handle.cancel();
}

/// CHAIN-2: destructors of what is dropped are user code.
#[test]
fn a_value_that_comes_too_late_may_panic_when_it_is_dropped() {
    struct PanicsInDrop(bool);
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            assert!(!self.0, "dropped");
        }
    }
    let reports = reports_of(|| {
        let (resolver, late) = Deferred::new();
        let list = DeferredList::new([Deferred::succeed(PanicsInDrop(false)), late]);
        let list = list.fire_on_one_callback().into_deferred();
        resolver.callback(PanicsInDrop(true));
        drop(value_of(list));
        let both = [Deferred::succeed(PanicsInDrop(true)), Deferred::fail(broken())];
        let failure = result_of(gather_results(both)).map(|_| ()).unwrap_err();
        assert_eq!(failure.to_string(), "panicked: dropped");
    });
    assert_eq!(
        reports,
        ["unhandled failure in the destructor of a late result: panicked: dropped"]
    );
}
