//! D18, CHAIN-5: nothing recurses, nothing is quadratic (boundedStackDepth, and what upstream
//! documents as its limits). Each test runs 100,000 of something on a stack of 128 KiB, where a
//! recursion of a few bytes a step would overflow.

use super::super::{Deferred, DeferredList, ListResult, Resolver, first, gather_results, race};
use super::{reports_of, result_of, value_of};
use std::cell::RefCell;
use std::rc::Rc;

/// How many: the length at which Twisted overflows is about 5,000.
const DEPTH_COUNT: u32 = 100_000;

/// The stack of the thread that runs a test, in bytes: about one byte for each step.
const STACK_SIZE_BYTES: usize = 128 * 1024;

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK_SIZE_BYTES).spawn(run);
    thread.expect("a thread").join().expect("the test on the small stack passes");
}

/// How a chain ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    Fire,
    Fail,
    Cancel,
    Abandon,
    DropEndThenFire,
    DropEndThenAbandon,
}

const ENDINGS: [Ending; 6] = [
    Ending::Fire,
    Ending::Fail,
    Ending::Cancel,
    Ending::Abandon,
    Ending::DropEndThenFire,
    Ending::DropEndThenAbandon,
];

/// Ends a chain whose callbacks add up to `DEPTH_COUNT` when it is fired with 0.
fn end(ending: Ending, resolver: Resolver<u32>, deferred: Deferred<u32>) {
    assert!(!deferred.is_fired());
    match ending {
        Ending::Fire => {
            resolver.callback(0);
            assert_eq!(value_of(deferred), DEPTH_COUNT);
        }
        Ending::Fail => {
            resolver.errback(super::broken());
            assert!(result_of(deferred).is_err());
        }
        Ending::Cancel => {
            deferred.cancel();
            assert!(resolver.is_cancelled());
            assert!(result_of(deferred).is_err());
        }
        Ending::Abandon => {
            drop(resolver);
            assert!(result_of(deferred).is_err());
        }
        Ending::DropEndThenFire => {
            drop(deferred);
            resolver.callback(0);
        }
        Ending::DropEndThenAbandon => {
            drop(deferred);
            assert_eq!(reports_of(|| drop(resolver)).len(), 1);
        }
    }
}

#[test]
fn a_long_chain_of_callbacks_does_not_recurse() {
    for ending in ENDINGS {
        on_a_small_stack(move || {
            let (resolver, mut deferred) = Deferred::<u32>::new();
            for _ in 0..DEPTH_COUNT {
                deferred = deferred.add_callback(|n| Ok(n + 1));
            }
            end(ending, resolver, deferred);
        });
    }
}

/// Each waits for the one before: built from the innermost outwards.
#[test]
fn many_deferreds_that_wait_for_one_another_do_not_recurse() {
    for ending in ENDINGS {
        on_a_small_stack(move || {
            let (innermost, mut deferred) = Deferred::<u32>::new();
            for _ in 0..DEPTH_COUNT {
                let (resolver, outer) = Deferred::<()>::new();
                let inner = deferred;
                deferred = outer.and_then(move |()| inner).add_callback(|n| Ok(n + 1));
                resolver.callback(());
            }
            end(ending, innermost, deferred);
        });
    }
}

/// Each is returned by a callback of the one before: a loop written with `and_then`.
#[test]
fn a_loop_written_as_nested_and_thens_does_not_recurse() {
    /// Where a step leaves its resolver for the test to fire.
    type Slot = Rc<RefCell<Option<Resolver<u32>>>>;

    fn step(slot: Slot, left_count: u32) -> Deferred<u32> {
        let (resolver, deferred) = Deferred::<u32>::new();
        *slot.borrow_mut() = Some(resolver);
        if left_count == 0 {
            return deferred;
        }
        deferred.and_then(move |_| step(slot, left_count - 1)).add_callback(|n| Ok(n + 1))
    }

    for ending in ENDINGS {
        on_a_small_stack(move || {
            let slot = Slot::default();
            let deferred = step(Rc::clone(&slot), DEPTH_COUNT);
            for _ in 0..DEPTH_COUNT {
                let resolver = slot.borrow_mut().take().expect("one for each step");
                resolver.callback(0);
            }
            let innermost = slot.borrow_mut().take().expect("the last step's");
            end(ending, innermost, deferred);
        });
    }
}

/// Each closure owns the Deferred before it, and none has fired yet.
#[test]
fn closures_that_own_deferreds_drop_without_recursion_in_either_order() {
    for reversed in [false, true] {
        on_a_small_stack(move || {
            let (resolver, mut deferred) = Deferred::<u32>::new();
            let mut resolvers = vec![resolver];
            for _ in 0..DEPTH_COUNT {
                let (resolver, outer) = Deferred::<u32>::new();
                let inner = deferred;
                deferred = outer.and_then(move |_| inner);
                resolvers.push(resolver);
            }
            if reversed {
                resolvers.reverse();
            }
            reports_of(|| {
                drop(deferred);
                drop(resolvers);
            });
        });
    }
}

/// The results are there already: callbacks run as they are added.
#[test]
fn a_long_chain_on_a_fired_deferred_does_not_recurse() {
    on_a_small_stack(|| {
        let mut deferred = Deferred::succeed(0);
        let _handle = deferred.canceller(); // with a handle: through stages
        for _ in 0..DEPTH_COUNT {
            deferred = deferred.and_then(|n| Deferred::succeed(n + 1));
        }
        assert_eq!(value_of(deferred), DEPTH_COUNT);
    });
}

/// D18: upstream's `chainDeferred` overflows at 5,000.
#[test]
fn many_chain_deferred_do_not_recurse() {
    for ending in ENDINGS {
        if ending == Ending::Cancel {
            continue; // it does not forward cancellation (D20)
        }
        on_a_small_stack(move || {
            let (first, mut deferred) = Deferred::<u32>::new();
            for _ in 0..DEPTH_COUNT {
                let (resolver, next) = Deferred::<u32>::new();
                deferred.add_callback(|n| Ok(n + 1)).chain_deferred(resolver);
                deferred = next;
            }
            end(ending, first, deferred);
        });
    }
}

#[test]
fn many_pauses_end_without_recursion_in_either_order() {
    for reversed in [false, true] {
        on_a_small_stack(move || {
            let (resolver, mut deferred) = Deferred::<u32>::new();
            let mut pauses = Vec::new();
            for _ in 0..DEPTH_COUNT {
                pauses.push(deferred.pause());
                deferred = deferred.add_callback(|n| Ok(n + 1));
            }
            resolver.callback(0);
            if reversed {
                pauses.reverse();
            }
            drop(pauses);
            assert_eq!(value_of(deferred), DEPTH_COUNT);
        });
    }
}

/// Lists and races of many: neither deep nor quadratic.
#[test]
fn lists_and_races_of_many_members_do_not_recurse() {
    let many = || -> (Vec<_>, Vec<_>) { (0..DEPTH_COUNT).map(|_| Deferred::<u32>::new()).unzip() };
    on_a_small_stack(move || {
        let (resolvers, deferreds) = many();
        let all = gather_results(deferreds);
        resolvers.into_iter().rev().zip(0..).for_each(|(resolver, n)| resolver.callback(n));
        assert!(value_of(all).into_iter().eq((0..DEPTH_COUNT).rev()));
        assert_eq!(
            value_of(gather_results((0..DEPTH_COUNT).map(Deferred::succeed))).len(),
            100_000
        );
    });
    on_a_small_stack(move || {
        let (mut resolvers, deferreds) = many();
        let won = race(deferreds);
        resolvers.swap_remove(50_000).callback(7);
        assert!(resolvers.iter().all(Resolver::is_cancelled));
        assert_eq!(value_of(won), (50_000, 7));
    });
    on_a_small_stack(move || {
        let (resolvers, deferreds) = many();
        let lost = race(deferreds);
        resolvers.into_iter().for_each(|resolver| resolver.errback(super::broken()));
        assert!(result_of(lost).is_err());
    });
    for ending in [Ending::Cancel, Ending::Abandon, Ending::DropEndThenFire] {
        on_a_small_stack(move || {
            let (resolvers, deferreds) = many();
            let list = DeferredList::new(deferreds).into_deferred();
            match ending {
                Ending::Cancel => {
                    list.cancel();
                    let ListResult::All(results) = value_of(list) else { unreachable!() };
                    assert!(results.into_iter().all(|result| result.is_err()));
                }
                Ending::Abandon => {
                    drop(resolvers);
                    assert!(list.is_fired());
                }
                _ => {
                    drop(list);
                    resolvers.into_iter().for_each(|resolver| resolver.callback(1));
                }
            }
        });
    }
}

/// Each is a member of the next, as a fold makes them.
#[test]
fn lists_and_races_inside_one_another_do_not_recurse() {
    type Fold = fn(Deferred<u32>, Deferred<u32>) -> Deferred<u32>;
    let folds: [Fold; 6] = [
        |all, one| gather_results([all, one]).add_callback(|both| Ok(both[0] + both[1])),
        |all, one| gather_results([one, all]).add_callback(|both| Ok(both[0] + both[1])),
        |all, one| race([all, one]).add_callback(|(_, n)| Ok(n)),
        |all, one| race([one, all]).add_callback(|(_, n)| Ok(n)),
        |all, one| first([all, one]).add_callback(|(_, n)| Ok(n)),
        |all, one| first([one, all]).add_callback(|(_, n)| Ok(n)),
    ];
    for (kind, fold) in folds.into_iter().enumerate() {
        for ending in [Ending::Fire, Ending::Cancel, Ending::DropEndThenFire] {
            on_a_small_stack(move || {
                let (resolver, mut all) = Deferred::<u32>::new();
                let mut resolvers = vec![resolver];
                for _ in 0..DEPTH_COUNT {
                    let (resolver, one) = Deferred::<u32>::new();
                    all = fold(all, one);
                    resolvers.push(resolver);
                }
                let fire = |resolvers: Vec<Resolver<u32>>| {
                    resolvers.into_iter().rev().for_each(|resolver| resolver.callback(1));
                };
                match ending {
                    Ending::Fire => {
                        fire(resolvers);
                        assert_eq!(value_of(all), if kind < 2 { DEPTH_COUNT + 1 } else { 1 });
                    }
                    Ending::Cancel => {
                        all.cancel();
                        assert!(resolvers.iter().all(Resolver::is_cancelled));
                        assert!(result_of(all).is_err_and(|failure| failure.is_cancelled()));
                    }
                    _ => {
                        drop(all);
                        fire(resolvers);
                    }
                }
            });
        }
    }
}

/// What fails nests as deep as the lists do, in errors that hold errors.
#[test]
fn errors_of_lists_and_races_inside_one_another_do_not_recurse() {
    type Wrap = fn(Deferred<u32>) -> Deferred<u32>;
    let wraps: [Wrap; 4] = [
        |one| gather_results([one]).add_callback(|all| Ok(all[0])),
        |one| race([one]).add_callback(|(_, n)| Ok(n)),
        |one| race([gather_results([one])]).add_callback(|(_, all)| Ok(all[0])),
        |one| first([one]).add_callbacks(|(_, n)| Ok(n), |_| Err(super::broken())),
    ];
    for wrap in wraps {
        for in_errback in [false, true] {
            on_a_small_stack(move || {
                let failed = (0..DEPTH_COUNT).fold(Deferred::fail(super::broken()), |d, _| wrap(d));
                let reports = reports_of(|| match in_errback {
                    true => drop(failed.add_errback(|_| Ok(1))),
                    false => drop(failed),
                });
                assert_eq!(reports.len(), usize::from(!in_errback));
            });
        }
    }
}

/// Every errback raises a new error, which names the one before.
#[test]
fn many_causes_do_not_pile_up() {
    on_a_small_stack(|| {
        let (resolver, mut deferred) = Deferred::<u32>::new();
        for _ in 0..DEPTH_COUNT {
            deferred = deferred.add_errback(|_| Err(super::broken()));
        }
        resolver.errback(super::broken());
        assert!(result_of(deferred).is_err());
    });
}
