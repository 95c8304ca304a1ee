//! Async blocks as Deferreds: what Twisted's `inlineCallbacks` promises (D52 to D62, D69, D70).

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending},
    pin::Pin,
    rc::Rc,
};

use futures_util::{
    FutureExt,
    future::{join, join_all, select},
    pin_mut,
    stream::{FuturesUnordered, StreamExt},
};
use greenloop::{
    CancelHandle, Cancelled, Deferred, Failure, Killed, Resolver, run, sleep, spawn,
    wait_for_deferred, wait_for_future, yield_now,
};

use crate::support::{Dropped, Trace, reports_of};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// What the innermost Deferred fails with when it is cancelled, in the tests of translation.
#[derive(Debug, PartialEq)]
struct Untranslated;

/// What the block makes of it.
#[derive(Debug, PartialEq)]
struct Translated;

macro_rules! errors {
    ($($name:ident)+) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
        impl std::error::Error for $name {}
    )+};
}
errors!(Untranslated Translated);

/// Lets what is ready run, the callbacks of ended greenlets included.
fn settle() {
    for _ in 0..8 {
        yield_now();
    }
}

// ---- D52 to D56, D60, D62 ---------------------------------------------------------------------

/// D52, D56: Basics, BasicsAsync, ProducesException, StackedInlineCallbacksTests.
#[test]
fn a_block_awaits_values_and_failures_also_through_other_blocks() {
    run(|| {
        let (resolver, late) = Deferred::new();
        let inner = Deferred::from_future(async { late.await.map(|n: u32| n + 1) });
        let outer = Deferred::from_future(async {
            let failure = Deferred::<u32>::fail(Untranslated).await.unwrap_err();
            assert!(failure.is::<Untranslated>());
            Ok::<_, Failure>(inner.await? + Deferred::succeed(10).await?)
        });
        settle();
        assert!(!outer.is_fired());
        resolver.callback(100);
        assert_eq!(wait_for_deferred(outer).unwrap(), 111);
    });
}

/// D53: StackUsage, StackUsage2. With a frame for each, 256 KiB would not do for 100,000.
#[test]
fn the_stack_does_not_grow_by_what_is_fired_already() {
    run(|| {
        let sum = Deferred::from_future(async {
            let mut sum = 0;
            for _ in 0..100_000 {
                sum += Deferred::succeed(1).await?;
            }
            Ok::<u32, Failure>(sum)
        });
        assert_eq!(wait_for_deferred(sum).unwrap(), 100_000);
        let failures = Deferred::from_future(async {
            let mut count = 0;
            for _ in 0..100_000 {
                count += u32::from(Deferred::<()>::fail(Cancelled).await.is_err());
            }
            Ok::<u32, Failure>(count)
        });
        assert_eq!(wait_for_deferred(failures).unwrap(), 100_000);
    });
}

/// D54: HandledTerminalFailure, HandledTerminalAsyncFailure.
#[test]
fn a_failure_at_the_end_is_reported_only_if_nobody_takes_it() {
    let fails = || {
        Deferred::<()>::from_future(async {
            Deferred::succeed(()).await?;
            Err::<(), _>(Untranslated.into()).map_err(|f: Failure| f)
        })
    };
    let (handled, reports) = reports_of(|| run(|| wait_for_deferred(fails()).unwrap_err()));
    assert!(handled.is::<Untranslated>() && reports.is_empty(), "{reports:?}");
    let ((), reports) = reports_of(|| {
        run(|| {
            drop(fails());
            settle();
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("Untranslated"));
}

/// D60: inlineCallbacksNoCircularReference, coroutineNoCircularReference.
#[test]
fn nothing_of_a_block_is_left_when_it_has_ended() {
    run(|| {
        let trace = Trace::default();
        let (block, result) = (Dropped(trace.clone(), "block"), Dropped(trace.clone(), "result"));
        let (resolver, awaited) = Deferred::<u32>::new();
        let deferred = Deferred::from_future(async move {
            let _block = block;
            let _ = awaited.await;
            Ok::<_, Failure>(result)
        });
        settle();
        deferred.cancel();
        let resolver_is_done = resolver.is_cancelled();
        drop(wait_for_deferred(deferred));
        assert!(resolver_is_done);
        assert_eq!(trace.taken(), ["block", "result"]);
        // Not cancelled, and not waited for.
        let guard = Dropped(trace.clone(), "callback");
        let (resolver, awaited) = Deferred::<u32>::new();
        drop(Deferred::from_future(awaited.into_waiting()).add_callback(move |n| {
            drop(guard);
            Ok(n)
        }));
        settle();
        resolver.callback(1);
        settle();
        assert_eq!(trace.taken(), ["callback"]);
    });
}

/// Awaits in a block of its own.
trait IntoWaiting {
    fn into_waiting(self) -> Waiting;
}

type Waiting = Pin<Box<dyn Future<Output = Result<u32, Failure>>>>;

impl IntoWaiting for Deferred<u32> {
    fn into_waiting(self) -> Waiting {
        Box::pin(async { self.await })
    }
}

// ---- D58, D59: cancelling ---------------------------------------------------------------------

/// How the block comes to await the Deferred in question: Twisted's 26 cases are five behaviours,
/// each awaited in five ways, and one more.
const SHAPES: [(&str, Shape); 5] = [
    ("alone", |child, body| Deferred::from_future(body(child))),
    ("as the second one", |child, body| {
        Deferred::from_future(async move {
            Deferred::succeed(()).await?;
            body(child).await
        })
    }),
    ("after one that was fired later", |child, body| {
        let (resolver, first) = Deferred::new();
        let block = Deferred::from_future(async move {
            first.await?;
            body(child).await
        });
        settle();
        resolver.callback(());
        block
    }),
    ("in a block in a block", |child, body| {
        let inner = Deferred::from_future(body(child));
        Deferred::from_future(async { inner.await })
    }),
    ("in a block in a block, as the second one", |child, body| {
        let inner = Deferred::from_future(body(child));
        Deferred::from_future(async {
            Deferred::succeed(()).await?;
            inner.await
        })
    }),
];

type Body = fn(Deferred<u32>) -> Waiting;
type Shape = fn(Deferred<u32>, Body) -> Deferred<u32>;

/// The block of most cases: it lets everything pass but one error.
fn translates(child: Deferred<u32>) -> Waiting {
    Box::pin(async {
        match child.await {
            Err(failure) if failure.is::<Untranslated>() => Err(Translated.into()),
            result => result,
        }
    })
}

/// The block of the case in which an error becomes a value.
fn recovers(child: Deferred<u32>) -> Waiting {
    Box::pin(async {
        match child.await {
            Err(failure) if failure.is::<Untranslated>() => Ok(123),
            result => result,
        }
    })
}

/// CancellationTests: cascadeCancellingOnCancel.
#[test]
fn a_cancel_reaches_the_canceller_of_what_is_awaited() {
    for (shape, block_of) in SHAPES {
        run(|| {
            let trace = Trace::default();
            let noted = trace.clone();
            let (_resolver, child) = Deferred::with_canceller(move |_| noted.add("cancelled"));
            let block = block_of(child, translates);
            settle();
            block.cancel();
            assert_eq!(trace.taken(), ["cancelled"], "{shape}: at once, in `cancel`");
            assert!(wait_for_deferred(block).unwrap_err().is_cancelled(), "{shape}");
        });
    }
}

/// CancellationTests: errbackCancelledErrorOnCancel.
#[test]
fn a_block_that_does_not_catch_it_fails_with_cancelled() {
    for (shape, block_of) in SHAPES {
        run(|| {
            let (resolver, child) = Deferred::new();
            let block = block_of(child, translates);
            settle();
            block.cancel();
            assert!(resolver.is_cancelled(), "{shape}");
            assert!(wait_for_deferred(block).unwrap_err().is::<Cancelled>(), "{shape}");
        });
    }
}

/// CancellationTests: errorToErrorTranslation.
#[test]
fn the_cancellers_error_may_be_translated() {
    for (shape, block_of) in SHAPES {
        run(|| {
            let (_resolver, child) = Deferred::with_canceller(|c| c.errback(Untranslated));
            let block = block_of(child, translates);
            settle();
            block.cancel();
            assert!(wait_for_deferred(block).unwrap_err().is::<Translated>(), "{shape}");
        });
    }
}

/// CancellationTests: errorToSuccessTranslation.
#[test]
fn the_cancellers_error_may_become_a_value() {
    for (shape, block_of) in SHAPES {
        run(|| {
            let (_resolver, child) = Deferred::with_canceller(|c| c.errback(Untranslated));
            let block = block_of(child, recovers);
            settle();
            block.cancel();
            assert_eq!(wait_for_deferred(block).unwrap(), 123, "{shape}");
        });
    }
}

/// CancellationTests: asynchronousCancellation.
#[test]
fn a_cancellation_may_take_its_time() {
    for (shape, block_of) in SHAPES {
        run(|| {
            let (finish, cleaning) = Deferred::<u32>::new();
            let (_resolver, child) = Deferred::new();
            let block = block_of(child.or_else(|_| cleaning), translates);
            settle();
            block.cancel();
            settle();
            assert!(!block.is_fired(), "{shape}: it waits for the end of the cancellation");
            finish.errback(Untranslated);
            assert!(wait_for_deferred(block).unwrap_err().is::<Translated>(), "{shape}");
        });
    }
}

/// CancellationTests: inlineCallbacksCancelCaptured. D59: "a second cancel hits whatever it awaits
/// then".
#[test]
fn a_block_may_catch_the_cancellation_and_go_on() {
    run(|| {
        let (first, awaited) = Deferred::<()>::new();
        let (second, awaited_then) = Deferred::<()>::new();
        let block = Deferred::from_future(async {
            assert!(awaited.await.unwrap_err().is_cancelled());
            assert!(awaited_then.await.unwrap_err().is_cancelled());
            Ok::<_, Failure>("its own result")
        });
        settle();
        block.cancel();
        settle();
        assert!(first.is_cancelled() && !second.is_cancelled() && !block.is_fired());
        block.cancel();
        assert!(second.is_cancelled());
        assert_eq!(wait_for_deferred(block).unwrap(), "its own result");
    });
}

/// D59: the second cancel of an asynchronous cancellation reaches that.
#[test]
fn a_second_cancel_reaches_a_cancellation_that_takes_its_time() {
    run(|| {
        let (finish, cleaning) = Deferred::<u32>::new();
        let (_resolver, child) = Deferred::new();
        let block = Deferred::from_future(child.or_else(|_| cleaning).into_waiting());
        settle();
        block.cancel();
        settle();
        assert!(!finish.is_cancelled());
        block.cancel();
        assert!(finish.is_cancelled());
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
    });
}

/// Twisted runs a coroutine to its first `yield` at once, so there is always something awaited.
#[test]
fn a_cancel_before_the_first_poll_reaches_what_is_awaited_first() {
    run(|| {
        let trace = Trace::default();
        let noted = trace.clone();
        let (_resolver, child) = Deferred::<u32>::with_canceller(move |_| noted.add("cancelled"));
        let begun = trace.adds("begun");
        let block = Deferred::from_future(async {
            begun();
            child.await
        });
        block.cancel();
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
        assert_eq!(trace.taken(), ["begun", "cancelled"]);
    });
}

#[test]
fn a_cancel_between_a_result_and_the_block_reaches_what_is_awaited_next() {
    run(|| {
        let (first, awaited) = Deferred::<u32>::new();
        let (second, awaited_then) = Deferred::<u32>::new();
        let seen = Rc::new(Cell::new(0));
        let out = Rc::clone(&seen);
        let block = Deferred::from_future(async move {
            out.set(awaited.await?);
            awaited_then.await
        });
        settle();
        first.callback(7);
        block.cancel();
        block.cancel(); // One request: it has reached nothing yet.
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
        assert_eq!(seen.get(), 7, "what it awaited first was there");
        assert!(second.is_cancelled());
    });
}

#[test]
fn a_block_that_ends_without_awaiting_again_was_not_cancelled() {
    run(|| {
        let (first, awaited) = Deferred::<u32>::new();
        let block = Deferred::from_future(awaited.into_waiting());
        settle();
        first.callback(7);
        block.cancel();
        assert_eq!(wait_for_deferred(block).unwrap(), 7);
    });
}

#[test]
fn a_block_may_cancel_itself() {
    run(|| {
        let handle: Rc<RefCell<CancelHandle>> = Rc::default();
        let own = Rc::clone(&handle);
        let (resolver, awaited) = Deferred::<u32>::new();
        let block = Deferred::from_future(async move {
            own.borrow().cancel();
            let failure = awaited.await.unwrap_err();
            assert!(failure.is_cancelled());
            own.borrow().cancel();
            pending::<()>().await;
            Ok::<_, Failure>(1)
        });
        *handle.borrow_mut() = block.canceller();
        let failure = wait_for_deferred(block).unwrap_err();
        assert!(failure.is_cancelled() && resolver.is_cancelled());
    });
}

/// All that a block awaits at once, through combinators that have wakers of their own.
#[test]
fn a_cancel_reaches_every_deferred_that_is_awaited_at_once() {
    run(|| {
        let ends: [(Resolver<u32>, Deferred<u32>); 4] = std::array::from_fn(|_| Deferred::new());
        let (resolvers, deferreds): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        let mut deferreds = deferreds.into_iter().map(IntoWaiting::into_waiting);
        let pair = join(deferreds.next().unwrap(), deferreds.next().unwrap());
        let rest: FuturesUnordered<_> = deferreds.collect();
        let block = Deferred::from_future(async {
            let (pair, rest) = join(pair, rest.collect::<Vec<_>>()).await;
            assert!(pair.0.unwrap_err().is_cancelled() && pair.1.unwrap_err().is_cancelled());
            assert!(rest.into_iter().all(|r| r.unwrap_err().is_cancelled()));
            Ok::<_, Failure>("all")
        });
        settle();
        block.cancel();
        assert!(resolvers.iter().all(Resolver::is_cancelled));
        assert_eq!(wait_for_deferred(block).unwrap(), "all");
    });
}

#[test]
fn a_deferred_that_is_awaited_no_more_is_not_cancelled_for_the_block() {
    run(|| {
        let (kept, first) = Deferred::<u32>::new();
        let (_never, second) = Deferred::<u32>::new();
        let (ready, third) = Deferred::<u32>::new();
        let block = Deferred::from_future(async {
            let waits = first.into_waiting();
            pin_mut!(waits);
            // Polled once, then left alone: it is not awaited when its future is gone.
            assert!(waits.as_mut().now_or_never().is_none());
            let _ = select(waits.as_mut(), third.into_waiting()).await;
            second.await
        });
        settle();
        ready.callback(1);
        settle();
        block.cancel();
        // `waits` is still alive and waits: it is cancelled with the rest.
        assert!(kept.is_cancelled());
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());

        let trace = Trace::default();
        let noted = trace.clone();
        let (_first, dropped) = Deferred::<u32>::with_canceller(move |_| noted.add("dropped"));
        let (second, awaited) = Deferred::<u32>::new();
        let block = Deferred::from_future(async {
            assert!(dropped.into_waiting().now_or_never().is_none());
            awaited.await
        });
        settle();
        assert_eq!(trace.taken(), ["dropped"], "dropping a Deferred's future cancels it (D69)");
        block.cancel();
        assert_eq!(trace.taken(), [""; 0]);
        assert!(second.is_cancelled());
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
    });
}

/// D70: fromFutureDeferredCancelled. What cannot be cancelled is dropped.
#[test]
fn a_block_that_awaits_something_else_is_dropped() {
    run(|| {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "block");
        let noted = trace.clone();
        let block = Deferred::<u32>::from_future(async move {
            let _guard = guard;
            let greenlet = spawn(|| sleep(LONG));
            noted.add("awaits");
            greenlet.await?;
            Ok::<_, Failure>(1)
        });
        settle();
        assert_eq!(trace.taken(), ["awaits"]);
        block.cancel();
        assert!(!block.is_fired(), "it fires when the block has ended");
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
        assert_eq!(trace.taken(), ["block"]);
    });
}

#[test]
fn a_block_that_is_about_to_be_ready_when_it_is_cancelled_gives_its_result() {
    run(|| {
        let greenlet = spawn(|| 7);
        let block = Deferred::from_future(greenlet.into_future());
        settle();
        block.cancel();
        assert_eq!(wait_for_deferred(block).unwrap(), 7);
    });
}

#[test]
fn a_block_that_has_parked_in_a_call_is_killed_there() {
    run(|| {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "block");
        let noted = trace.clone();
        let (_resolver, unfired) = Deferred::<()>::new();
        let block = Deferred::<u32>::from_future(async move {
            let _guard = guard;
            let failure = wait_for_deferred(unfired).unwrap_err();
            assert!(failure.is::<Killed>());
            noted.add("the call failed");
            pending::<()>().await;
            Ok::<_, Failure>(1)
        });
        settle();
        block.cancel();
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
        assert_eq!(trace.taken(), ["the call failed", "block"]);
    });
}

/// Also what is awaited by a `wait_for_future` in the block is awaited by the block.
#[test]
fn a_cancel_reaches_a_deferred_awaited_inside_a_call_of_the_block() {
    run(|| {
        let (resolver, awaited) = Deferred::<u32>::new();
        let block = Deferred::from_future(async {
            let result = wait_for_future(awaited.into_waiting());
            assert!(result.unwrap_err().is_cancelled());
            Ok::<_, Failure>("went on")
        });
        settle();
        block.cancel();
        assert!(resolver.is_cancelled());
        assert_eq!(wait_for_deferred(block).unwrap(), "went on");
    });
}

#[test]
fn a_greenlet_of_the_block_is_not_the_block() {
    run(|| {
        let (resolver, awaited) = Deferred::<u32>::new();
        let (own, awaited_too) = Deferred::<u32>::new();
        let block = Deferred::from_future(async {
            let _other = spawn(|| wait_for_future(awaited.into_waiting()));
            awaited_too.await
        });
        settle();
        block.cancel();
        assert!(own.is_cancelled() && !resolver.is_cancelled());
        assert!(wait_for_deferred(block).unwrap_err().is_cancelled());
        resolver.callback(1);
    });
}

#[test]
fn the_end_of_the_run_fails_a_block_with_cancelled() {
    let trace = Trace::default();
    let (guard, noted) = (Dropped(trace.clone(), "block"), trace.clone());
    run(|| {
        let (resolver, awaited) = Deferred::<u32>::new();
        drop(
            Deferred::from_future(async move {
                let _guard = guard;
                awaited.await
            })
            .add_errback(move |failure| {
                noted.add(failure.is_cancelled());
                Err(failure)
            }),
        );
        settle();
        std::mem::forget(resolver);
    });
    assert_eq!(trace.taken(), ["block", "true"]);
}

/// Many cancels of a block that will not end: each is one request, and none nests.
#[test]
fn a_block_survives_any_number_of_cancels() {
    run(|| {
        let count = Rc::new(Cell::new(0));
        let counted = Rc::clone(&count);
        let block = Deferred::from_future(async move {
            while counted.get() < 1_000 {
                let (_resolver, awaited) = Deferred::<()>::new();
                assert!(awaited.await.unwrap_err().is_cancelled());
                counted.set(counted.get() + 1);
            }
            Ok::<_, Failure>("enough")
        });
        let handle = block.canceller();
        while count.get() < 1_000 {
            handle.cancel();
            yield_now();
        }
        assert_eq!(wait_for_deferred(block).unwrap(), "enough");
    });
}

#[test]
fn blocks_by_the_thousand_wait_at_once() {
    run(|| {
        let (resolvers, deferreds): (Vec<_>, Vec<_>) =
            (0..1000).map(|_| Deferred::<u32>::new()).unzip();
        let blocks = deferreds.into_iter().map(|d| Deferred::from_future(d.into_waiting()));
        let all = Deferred::from_future(
            join_all(blocks.map(IntoWaiting::into_waiting)).map(Ok::<_, Failure>),
        );
        settle();
        for (n, resolver) in resolvers.into_iter().enumerate() {
            resolver.callback(n as u32);
        }
        let sum: u32 = wait_for_deferred(all).unwrap().into_iter().map(Result::unwrap).sum();
        assert_eq!(sum, 499_500);
    });
}
