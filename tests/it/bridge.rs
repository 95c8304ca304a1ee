//! The arrows between the three styles, each point of the contract in `src/bridge/mod.rs`.

use std::{
    cell::{Cell, RefCell},
    future::{Future, IntoFuture, poll_fn},
    panic,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Dropped, Trace, assert_ends, in_a_process_of_its_own, reports_of};
use greenloop::{
    Abandoned, Cancelled, Deferred, Elapsed, Failure, Killed, Resolver, RunError, current, is_kill,
    reactor, run, shield, sleep, spawn, testing, timeout, try_run, wait_for_deferred,
    wait_for_deferred_timeout, wait_for_future, wait_for_greenlet, yield_now,
};

/// Longer than any test may take.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

/// As [`assert_ends`], two times on one thread. In a debug build the first park at a place looks at
/// its backtrace, which takes so long that the other side comes first; the second one does not.
#[track_caller]
fn assert_ends_twice(f: impl Fn() + Send + 'static) {
    assert_ends(move || (0..2).for_each(|_| f()));
}

/// A Deferred that nobody fires but its canceller, which notes that it was called.
fn cancellable(trace: &Trace) -> (Resolver<u32>, Deferred<u32>) {
    let trace = trace.clone();
    Deferred::with_canceller(move |_| trace.add("cancelled"))
}

fn fire_soon<T: 'static>(resolver: Resolver<T>, value: T) {
    reactor().call_when_running(move || resolver.callback(value));
}

#[derive(Debug)]
struct Bad(&'static str);

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Bad {}

// ---- wait_for_deferred ------------------------------------------------------------------------

/// geventreactor `waitForDeferred`: "d already fired: returns at once, without switching".
/// corotwine `alreadyHasResult`.
#[test]
fn a_fired_deferred_gives_its_value_without_a_switch() {
    run(|| {
        let trace = Trace::default();
        let other = trace.clone();
        let _other = spawn(move || other.add("other"));
        assert_eq!(wait_for_deferred(Deferred::succeed(7)).unwrap(), 7);
        assert!(trace.taken().is_empty(), "the other greenlet ran");
    });
}

/// corotwine `alreadyHasFailure`.
#[test]
fn a_failed_deferred_gives_its_own_failure() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let failed = wait_for_deferred(Deferred::<u32>::fail(Bad("early"))).unwrap_err();
            assert_eq!(failed.downcast_ref::<Bad>().unwrap().0, "early");
            let (resolver, deferred) = Deferred::<u32>::new();
            reactor().call_when_running(move || resolver.errback(Bad("late")));
            let failed = wait_for_deferred(deferred).unwrap_err();
            assert_eq!(failed.downcast_ref::<Bad>().unwrap().0, "late");
        });
    });
    assert_eq!(reports, [""; 0], "the waiter took them");
}

/// BRIDGE-1. corotwine `simpleBlock`.
#[test]
fn an_unfired_deferred_parks_its_waiter_alone() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = Deferred::new();
        let t = trace.clone();
        let waiter = spawn(move || {
            t.add("waits");
            t.add(wait_for_deferred(deferred).unwrap());
        });
        yield_now();
        let t = trace.clone();
        spawn(move || t.add("another runs")).join().unwrap();
        resolver.callback(5);
        trace.add("the firer goes on"); // firing wakes, it does not switch
        waiter.join().unwrap();
        assert_eq!(trace.taken(), ["waits", "another runs", "the firer goes on", "5"]);
    });
}

#[test]
fn an_abandoned_deferred_fails_with_abandoned() {
    run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        reactor().call_when_running(move || drop(resolver));
        assert!(wait_for_deferred(deferred).unwrap_err().is::<Abandoned>());
        let (resolver, deferred) = Deferred::<u32>::new();
        drop(resolver);
        assert!(wait_for_deferred(deferred).unwrap_err().is::<Abandoned>());
    });
}

#[test]
fn a_deferred_that_is_cancelled_meanwhile_fails_with_cancelled() {
    run(|| {
        let trace = Trace::default();
        let (_resolver, deferred) = cancellable(&trace);
        let handle = deferred.canceller();
        reactor().call_when_running(move || handle.cancel());
        assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
        assert_eq!(trace.taken(), ["cancelled"]);
    });
}

#[test]
fn a_panic_in_the_chain_fails_the_wait_with_message_and_place() {
    run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let deferred = deferred.add_callback(|n| if n > 0 { panic!("no {n}") } else { Ok(n) });
        fire_soon(resolver, 3);
        let failure = wait_for_deferred(deferred).unwrap_err();
        assert_eq!(failure.panic_message(), Some("no 3"));
        assert!(failure.place().unwrap().contains("bridge.rs"), "{failure:?}");
    });
}

/// BRIDGE-1
#[test]
fn waiting_outside_run_is_an_error_at_once_and_cancels() {
    let trace = Trace::default();
    let (resolver, deferred) = cancellable(&trace);
    let failure = wait_for_deferred(deferred).unwrap_err();
    assert!(failure.to_string().contains("greenloop::run"), "{failure}");
    assert!(!failure.is_cancelled(), "the reason is another one");
    assert_eq!(trace.taken(), ["cancelled"]);
    assert!(resolver.is_cancelled());
    let failure = wait_for_deferred_timeout(cancellable(&trace).1, LONG).unwrap_err();
    assert!(!failure.is::<Elapsed>(), "{failure}");
}

#[test]
fn a_fired_deferred_needs_no_reactor() {
    assert_eq!(wait_for_deferred(Deferred::succeed(7)).unwrap(), 7);
    assert_eq!(wait_for_deferred_timeout(Deferred::succeed(8), SHORT).unwrap(), 8);
}

/// BRIDGE-1: a call that was never made is dropped by the hub, on its own stack.
#[test]
fn waiting_in_a_drop_on_the_hub_stack_is_an_error_at_once() {
    struct WaitsInDrop(Trace);
    impl Drop for WaitsInDrop {
        fn drop(&mut self) {
            let (_resolver, deferred) = cancellable(&self.0);
            let failure = wait_for_deferred(deferred).unwrap_err();
            self.0.add(failure.to_string().contains("hub's own stack"));
            self.0.add(wait_for_deferred(Deferred::succeed("fired")).unwrap());
            let (_resolver, deferred) = cancellable(&self.0);
            let failure = wait_for_deferred_timeout(deferred, LONG).unwrap_err();
            self.0.add(failure.to_string().contains("hub's own stack"));
        }
    }
    let trace = Trace::default();
    let waits = WaitsInDrop(trace.clone());
    run(move || drop(reactor().call_later(LONG, move || drop(waits))));
    assert_eq!(trace.taken(), ["cancelled", "true", "fired", "cancelled", "true"]);
}

/// A waker may be called where nothing can be suspended; wherever it is called, it does not hang.
#[test]
fn waiting_in_a_waker_ends() {
    struct Waits(Mutex<Option<bool>>);
    impl Wake for Waits {
        fn wake(self: Arc<Self>) {
            let (resolver, deferred) = Deferred::<u32>::new();
            reactor().call_later(SHORT, move || resolver.callback(1));
            let result = wait_for_deferred(deferred);
            let refused = |f: Failure| f.to_string().contains("hub's own stack");
            *self.0.lock().unwrap() = Some(result.map_or_else(refused, |n| n == 1));
        }
    }
    let ended = assert_ends(|| {
        run(|| {
            let waits = Arc::new(Waits(Mutex::new(None)));
            let waker = Waker::from(Arc::clone(&waits));
            let mut future = pin!(spawn(|| 1).into_future());
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            while waits.0.lock().unwrap().is_none() {
                sleep(SHORT);
            }
            let ended = *waits.0.lock().unwrap();
            assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
            ended
        })
    });
    assert_eq!(ended, Some(true));
}

// ---- kill, timeout, shield --------------------------------------------------------------------

/// BRIDGE-3. geventreactor leaves the Deferred alone, and swallows its error.
#[test]
fn a_killed_waiter_cancels_its_deferred() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = cancellable(&trace);
        let waiter = spawn(move || wait_for_deferred(deferred).map(drop));
        yield_now();
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["cancelled"]);
        assert!(resolver.is_cancelled());
    });
}

/// BRIDGE-3, for a kill that is there before the wait begins.
#[test]
fn a_waiter_that_was_killed_before_it_waits_cancels_its_deferred() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = cancellable(&trace);
        let waiter = spawn(move || {
            current().kill();
            wait_for_deferred(deferred).map(drop)
        });
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["cancelled"]);
        assert!(resolver.is_cancelled());
    });
}

/// BRIDGE-3
#[test]
fn a_timeout_around_the_wait_cancels_the_deferred() {
    run(|| {
        let trace = Trace::default();
        let (_resolver, deferred) = cancellable(&trace);
        assert_eq!(timeout(SHORT, || wait_for_deferred(deferred)).map(drop).map_err(drop), Err(()));
        assert_eq!(trace.taken(), ["cancelled"]);
    });
}

/// BRIDGE-3, for a timeout that has elapsed before the wait begins.
#[test]
fn a_timeout_that_has_elapsed_before_the_wait_cancels_the_deferred() {
    run(|| {
        let trace = Trace::default();
        let (_resolver, deferred) = cancellable(&trace);
        let result = timeout(Duration::ZERO, || wait_for_deferred(deferred));
        assert!(result.is_err());
        assert_eq!(trace.taken(), ["cancelled"]);
    });
}

/// BRIDGE-3: `shield` opts out; the wait itself cannot go on.
#[test]
fn a_shielded_waiter_that_is_killed_does_not_cancel_its_deferred() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let trace = Trace::default();
            let (resolver, deferred) = cancellable(&trace);
            let t = trace.clone();
            let waiter = spawn(move || {
                let failure = shield(|| wait_for_deferred(deferred)).unwrap_err();
                t.add(failure.is::<Killed>());
                yield_now();
                t.add("went on");
            });
            yield_now();
            waiter.kill();
            assert!(waiter.join().unwrap_err().is_killed());
            assert_eq!(trace.taken(), ["true"]);
            assert!(!resolver.is_cancelled());
            resolver.errback(Bad("too late"));
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("too late"));
}

#[test]
fn a_shield_holds_an_outer_timeout_back_until_the_deferred_has_fired() {
    run(|| {
        let (resolver, deferred) = Deferred::new();
        reactor().call_later(4 * SHORT, move || resolver.callback(1));
        let inside = Cell::new(0);
        let result = timeout(SHORT, || {
            inside.set(shield(|| wait_for_deferred(deferred)).unwrap());
            yield_now();
        });
        assert_eq!((result, inside.get()), (result, 1));
        assert!(result.is_err());
    });
}

/// BRIDGE-3: the chain of a cancelled Deferred may come to another failure, later.
#[test]
fn a_failure_after_the_kill_is_reported_once() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let (_resolver, deferred) = Deferred::<u32>::new();
            let (later, inner) = Deferred::<u32>::new();
            let deferred = deferred.or_else(move |_| inner);
            let waiter = spawn(move || wait_for_deferred(deferred).map(drop));
            yield_now();
            waiter.kill();
            assert!(waiter.join().unwrap_err().is_killed());
            later.errback(Bad("afterthought"));
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("afterthought"));
}

#[test]
fn a_value_after_the_kill_is_dropped_in_silence() {
    let trace = Trace::default();
    let t = trace.clone();
    let ((), reports) = reports_of(|| {
        run(|| {
            let (_resolver, deferred) = Deferred::<Dropped>::new();
            let (later, inner) = Deferred::new();
            let deferred = deferred.or_else(move |_| inner);
            let waiter = spawn(move || wait_for_deferred(deferred).map(drop));
            yield_now();
            waiter.kill();
            waiter.join().unwrap_err();
            later.callback(Dropped(t, "dropped"));
        });
    });
    assert_eq!((trace.taken(), reports), (vec!["dropped".to_owned()], vec![]));
}

/// "While a greenlet unwinds, its blocking calls may still block": so may a canceller.
#[test]
fn the_canceller_of_a_killed_waiter_may_block() {
    in_a_process_of_its_own("bridge::the_canceller_of_a_killed_waiter_may_block", || {
        run(|| {
            let trace = Trace::default();
            let t = trace.clone();
            let (_resolver, deferred) = Deferred::<u32>::with_canceller(move |_| {
                t.add("begins");
                sleep(SHORT);
                t.add("ends");
            });
            let t = trace.clone();
            let deferred = deferred.add_errback(move |failure| {
                yield_now();
                t.add("errback");
                Err(failure)
            });
            let waiter = spawn(move || wait_for_deferred(deferred).map(drop));
            yield_now();
            waiter.kill();
            assert!(waiter.join().unwrap_err().is_killed());
            assert_eq!(trace.taken(), ["begins", "ends", "errback"]);
        });
    });
}

/// A wake that was given before the kill wins: the value is not lost.
#[test]
fn a_deferred_that_fired_before_the_kill_gives_its_value() {
    run(|| {
        let (resolver, deferred) = Deferred::new();
        let got = Rc::new(Cell::new(0));
        let out = Rc::clone(&got);
        let waiter = spawn(move || {
            out.set(wait_for_deferred(deferred).unwrap());
            yield_now();
        });
        yield_now();
        resolver.callback(9);
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(got.get(), 9);
    });
}

// ---- wait_for_deferred_timeout ----------------------------------------------------------------

/// BRIDGE-4
#[test]
fn elapsed_is_not_cancelled() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = cancellable(&trace);
        let failure = wait_for_deferred_timeout(deferred, SHORT).unwrap_err();
        assert!(failure.is::<Elapsed>() && !failure.is_cancelled());
        assert_eq!(trace.taken(), ["cancelled"]);
        assert!(resolver.is_cancelled());

        let (_resolver, deferred) = cancellable(&trace);
        let handle = deferred.canceller();
        reactor().call_when_running(move || handle.cancel());
        let failure = wait_for_deferred_timeout(deferred, LONG).unwrap_err();
        assert!(failure.is::<Cancelled>() && !failure.is::<Elapsed>());
    });
}

/// Twisted's `addTimeout`: what the canceller fires counts.
#[test]
fn the_cancellers_own_result_wins_over_elapsed() {
    run(|| {
        let (_resolver, deferred) = Deferred::with_canceller(|c| c.callback("best so far"));
        assert_eq!(wait_for_deferred_timeout(deferred, SHORT).unwrap(), "best so far");
        let (_resolver, deferred) = Deferred::<u32>::with_canceller(|c| c.errback(Bad("mine")));
        let failure = wait_for_deferred_timeout(deferred, SHORT).unwrap_err();
        assert_eq!(failure.downcast_ref::<Bad>().unwrap().0, "mine");
        let (_resolver, deferred) = Deferred::<u32>::new();
        let deferred = deferred.add_errback(|_| Ok(4));
        assert_eq!(wait_for_deferred_timeout(deferred, SHORT).unwrap(), 4);
    });
}

#[test]
fn a_deferred_that_fires_in_time_knows_no_timeout() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = cancellable(&trace);
        fire_soon(resolver, 3);
        assert_eq!(wait_for_deferred_timeout(deferred, LONG).unwrap(), 3);
        assert_eq!(wait_for_deferred_timeout(Deferred::succeed(4), Duration::ZERO).unwrap(), 4);
        let (_resolver, deferred) = cancellable(&trace);
        assert!(wait_for_deferred_timeout(deferred, Duration::ZERO).unwrap_err().is::<Elapsed>());
        assert_eq!(trace.taken(), ["cancelled"]);
    });
}

#[test]
fn a_failure_after_the_time_has_elapsed_is_reported_once() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let (_resolver, deferred) = Deferred::<u32>::new();
            let (later, inner) = Deferred::<u32>::new();
            let deferred = deferred.or_else(move |_| inner);
            let failure = wait_for_deferred_timeout(deferred, SHORT).unwrap_err();
            assert!(failure.is::<Elapsed>());
            later.errback(Bad("afterthought"));
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("afterthought"));
}

/// A canceller that takes its time belongs to the wait.
#[test]
fn the_canceller_of_an_elapsed_wait_may_block() {
    run(|| {
        let (_resolver, deferred) = Deferred::<u32>::with_canceller(|cancelling| {
            sleep(SHORT);
            cancelling.callback(6);
        });
        assert_eq!(wait_for_deferred_timeout(deferred, SHORT).unwrap(), 6);
    });
}

// ---- wait_for_greenlet ------------------------------------------------------------------------

#[test]
fn a_greenlet_gives_its_value_to_its_deferred() {
    run(|| {
        assert_eq!(wait_for_deferred(wait_for_greenlet(spawn(|| 1))).unwrap(), 1);
        let ended = spawn(|| 2);
        yield_now();
        let deferred = wait_for_greenlet(ended);
        assert!(deferred.is_fired(), "it had ended already");
        assert_eq!(wait_for_deferred(deferred).unwrap(), 2);
    });
}

/// BRIDGE-5. geventreactor fires its *callback* with a `GreenletExit`.
#[test]
fn a_killed_greenlet_errbacks_with_cancelled() {
    let ((), reports) = reports_of(|| {
        run(|| {
            for started in [false, true] {
                let greenlet = spawn(|| sleep(LONG));
                let target = greenlet.as_ref();
                let deferred = wait_for_greenlet(greenlet);
                if started {
                    yield_now();
                }
                target.kill();
                assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
            }
            let killed = spawn(|| sleep(LONG));
            killed.kill();
            yield_now();
            assert!(wait_for_deferred(wait_for_greenlet(killed)).unwrap_err().is_cancelled());
        });
    });
    assert_eq!(reports, [""; 0]);
}

/// BRIDGE-5. geventreactor's `d.cancel()` lets the greenlet run on.
#[test]
fn cancelling_the_deferred_kills_the_greenlet() {
    run(|| {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "unwound");
        let greenlet = spawn(move || {
            let _guard = guard;
            sleep(LONG);
        });
        let target = greenlet.as_ref();
        yield_now();
        let t = trace.clone();
        let deferred = wait_for_greenlet(greenlet).add_errback(move |failure| {
            t.add(format!("cancelled: {}", failure.is_cancelled()));
            Ok(())
        });
        deferred.cancel();
        assert_eq!(trace.taken(), ["cancelled: true"]); // at once
        (0..100).for_each(|_| yield_now());
        assert!(target.is_finished(), "it runs on");
        assert_eq!(trace.taken(), ["unwound"]);
    });
}

/// BRIDGE-5
#[test]
fn a_panic_becomes_a_failure_with_message_and_place_and_is_reported_once() {
    let ((), reports) = reports_of(|| {
        run(|| {
            for ended in [false, true] {
                let word = String::from("expected");
                let greenlet = spawn(move || -> u32 { panic!("the {word} panic") });
                if ended {
                    yield_now();
                }
                let failure = wait_for_deferred(wait_for_greenlet(greenlet)).unwrap_err();
                assert_eq!(failure.panic_message(), Some("the expected panic"));
                assert!(failure.place().unwrap().contains("bridge.rs:"), "{failure:?}");
                let payload = failure.into_panic().unwrap();
                assert_eq!(payload.downcast_ref::<String>().unwrap(), "the expected panic");
            }
        });
    });
    assert_eq!(reports, [""; 0], "handled failures are not reported");
    let ((), reports) = reports_of(|| {
        run(|| {
            drop(wait_for_greenlet(spawn(|| panic!("nobody listens"))));
            sleep(SHORT);
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("nobody listens"));
}

#[test]
fn a_greenlet_that_panics_after_the_cancel_is_reported_once() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            let _ = panic::catch_unwind(|| sleep(Duration::ZERO));
        }
    }
    let ((), reports) = reports_of(|| {
        run(|| {
            let greenlet = spawn(|| {
                let killed = panic::catch_unwind(|| sleep(LONG)).unwrap_err();
                assert!(is_kill(&*killed));
                drop(PanicsInDrop);
                panic!("instead of ending");
            });
            let target = greenlet.as_ref();
            let deferred = wait_for_greenlet(greenlet);
            yield_now();
            deferred.cancel();
            assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
            (0..100).for_each(|_| yield_now());
            assert!(target.is_finished(), "it runs on");
            sleep(SHORT);
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("instead of ending"));
}

/// BRIDGE-6
#[test]
fn callbacks_of_a_greenlets_deferred_may_block() {
    run(|| {
        let trace = Trace::default();
        let (resolver, gate) = Deferred::new();
        let t = trace.clone();
        let deferred = wait_for_greenlet(spawn(|| 1)).add_callback(move |n| {
            t.add("blocks");
            let m: u32 = wait_for_deferred(gate)?;
            sleep(SHORT);
            Ok(n + m)
        });
        let t = trace.clone();
        reactor().call_later(SHORT, move || {
            t.add("the reactor runs");
            resolver.callback(10);
        });
        assert_eq!(wait_for_deferred(deferred).unwrap(), 11);
        assert_eq!(trace.taken(), ["blocks", "the reactor runs"]);
    });
}

/// Its documentation says: "Cancellation point: never."
#[test]
fn wait_for_greenlet_is_no_cancellation_point() {
    run(|| {
        let (came, greenlet) = (Rc::new(Cell::new(false)), spawn(|| 1));
        yield_now();
        let out = Rc::clone(&came);
        let killed = spawn(move || {
            current().kill();
            let deferred = wait_for_greenlet(greenlet);
            out.set(deferred.is_fired());
        });
        drop(killed.join());
        assert!(came.get(), "the kill unwound out of wait_for_greenlet");
    });
}

/// BRIDGE-5, at the end of a run: whoever runs the link was killed too.
#[test]
fn a_greenlet_that_ends_with_the_run_errbacks_with_cancelled() {
    let trace = Trace::default();
    let ((), reports) = reports_of(|| {
        let trace = trace.clone();
        run(move || {
            let greenlet = spawn(|| sleep(LONG));
            // A call that is parked: its callback greenlet will be killed together with `greenlet`.
            reactor().call_when_running(|| sleep(LONG));
            yield_now();
            sleep(SHORT);
            let noted = wait_for_greenlet(greenlet).add_both(move |result| {
                trace.add(result.unwrap_err().is_cancelled());
                Ok(())
            });
            drop(noted);
        });
    });
    assert_eq!((trace.taken(), reports), (vec!["true".to_owned()], vec![]));
}

// ---- kills through callbacks ------------------------------------------------------------------

/// BRIDGE-6
#[test]
fn a_kill_through_a_callback_gives_the_chain_cancelled_and_goes_on() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = Deferred::<u32>::new();
        let (t1, t2, t3) = (trace.clone(), trace.clone(), trace.clone());
        let chain = deferred
            .add_callback(move |n| {
                t1.add("parks");
                sleep(LONG);
                t1.add("never");
                Ok(n)
            })
            .add_errback(move |failure| {
                t2.add(format!("errback: cancelled {}", failure.is_cancelled()));
                Err(failure)
            });
        let firer = spawn(move || {
            let _guard = Dropped(t3.clone(), "unwound");
            resolver.callback(1);
            t3.add("never");
        });
        yield_now();
        firer.kill();
        assert!(firer.join().unwrap_err().is_killed());
        assert!(wait_for_deferred(chain).unwrap_err().is_cancelled());
        assert_eq!(trace.taken(), ["parks", "errback: cancelled true", "unwound"]);
    });
}

/// BRIDGE-6, for a callback that runs because it was added to a result that was there.
#[test]
fn a_kill_through_a_callback_added_late_goes_on() {
    run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        let adder = spawn(move || {
            let waiting = Deferred::succeed(1).add_callback(|n| {
                sleep(LONG);
                Ok(n)
            });
            t.add("never");
            drop(waiting);
        });
        yield_now();
        adder.kill();
        assert!(adder.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), [""; 0]);
    });
}

/// BRIDGE-6, for the other unwind of this crate.
#[test]
fn a_timeout_through_a_callback_gives_the_chain_cancelled_and_goes_on() {
    run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        let chain = deferred.add_callback(|n| {
            sleep(LONG);
            Ok(n)
        });
        let after = Cell::new(false);
        let result = timeout(SHORT, || {
            resolver.callback(1);
            after.set(true);
        });
        assert!(result.is_err() && !after.get());
        assert!(wait_for_deferred(chain).unwrap_err().is_cancelled());
        yield_now(); // nothing is left to be raised
    });
}

/// std counts unwinds per thread, and another greenlet's is none of this one's business.
#[test]
fn a_kill_through_a_callback_goes_on_while_another_greenlet_unwinds() {
    struct BlocksInDrop(Option<Deferred<()>>);
    impl Drop for BlocksInDrop {
        fn drop(&mut self) {
            let _ = wait_for_deferred(self.0.take().unwrap());
        }
    }
    assert_ends(|| {
        run(|| {
            let trace = Trace::default();
            let (release, gate) = Deferred::new();
            let unwinding = spawn(move || {
                let _blocks = BlocksInDrop(Some(gate));
                sleep(LONG);
            });
            let (resolver, deferred) = Deferred::<u32>::new();
            let _chain = deferred.add_callback(|n| {
                sleep(LONG);
                Ok(n)
            });
            let t = trace.clone();
            let firer = spawn(move || {
                resolver.callback(1);
                t.add("went on");
                yield_now();
                t.add("and on");
            });
            yield_now();
            unwinding.kill();
            yield_now();
            firer.kill();
            sleep(SHORT);
            let ended = firer.is_finished();
            release.callback(());
            assert!(unwinding.join().is_err());
            assert!(firer.join().unwrap_err().is_killed());
            assert_eq!(trace.taken(), [""; 0]);
            assert!(ended, "its kill waited for the other one's unwind");
        });
    });
}

// ---- Deferred::from_future --------------------------------------------------------------------

#[test]
fn a_future_gives_its_result_to_its_deferred() {
    run(|| {
        let ok = Deferred::from_future(async { Ok::<_, Failure>(1) });
        assert_eq!(wait_for_deferred(ok).unwrap(), 1);
        let bad = Deferred::<u32>::from_future(async { Err(Bad("future")) });
        let failure = wait_for_deferred(bad).unwrap_err();
        assert_eq!(failure.downcast_ref::<Bad>().unwrap().0, "future");
        let panics = Deferred::<u32>::from_future(async {
            if true {
                panic!("in a future");
            }
            Ok::<_, Failure>(1)
        });
        let failure = wait_for_deferred(panics).unwrap_err();
        assert_eq!(failure.panic_message(), Some("in a future"));
        assert!(failure.place().is_some());
    });
}

#[test]
fn cancelling_the_deferred_of_a_future_drops_the_future() {
    run(|| {
        for polled in [false, true] {
            let trace = Trace::default();
            let guard = Dropped(trace.clone(), "dropped");
            let deferred = Deferred::<u32>::from_future(async move {
                let _guard = guard;
                std::future::pending::<()>().await;
                Ok::<_, Failure>(1)
            });
            if polled {
                yield_now();
            }
            deferred.cancel();
            assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
            yield_now();
            yield_now();
            assert_eq!(trace.taken(), ["dropped"]);
        }
    });
}

#[test]
fn a_future_outside_run_fails_its_deferred() {
    let deferred = Deferred::<u32>::from_future(async { Ok::<_, Failure>(1) });
    let failure = wait_for_deferred(deferred).unwrap_err();
    assert!(failure.to_string().contains("greenloop::run"), "{failure}");
}

// ---- d.await, g.await -------------------------------------------------------------------------

#[test]
fn deferreds_and_greenlets_can_be_awaited() {
    run(|| {
        let (resolver, deferred) = Deferred::new();
        reactor().call_later(SHORT, move || resolver.callback(1));
        let sum = wait_for_future(async {
            let late = deferred.await?;
            let fired = Deferred::succeed(10).await?;
            let greenlet = spawn(|| {
                sleep(SHORT);
                100
            });
            let ended = spawn(|| 1000);
            let late = late + greenlet.await.unwrap();
            Ok::<_, Failure>(late + fired + ended.await.unwrap())
        });
        assert_eq!(sum.unwrap(), 1111);
    });
}

#[test]
fn awaiting_gives_failures_panics_and_kills() {
    run(|| {
        wait_for_future(async {
            let failure = Deferred::<u32>::fail(Bad("awaited")).await.unwrap_err();
            assert_eq!(failure.downcast_ref::<Bad>().unwrap().0, "awaited");
            let panicked = spawn(|| panic!("awaited panic")).await.unwrap_err();
            assert_eq!(panicked.panic().unwrap().message(), "awaited panic");
            let killed = spawn(|| sleep(LONG));
            killed.kill();
            assert!(killed.await.unwrap_err().is_killed());
            let (resolver, deferred) = Deferred::<u32>::new();
            reactor().call_when_running(move || drop(resolver));
            assert!(deferred.await.unwrap_err().is::<Abandoned>());
        });
    });
}

#[test]
fn dropping_an_awaited_deferred_cancels_it() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = cancellable(&trace);
        drop(deferred.into_future()); // never polled
        assert_eq!(trace.taken(), ["cancelled"]);
        assert!(resolver.is_cancelled());
        let (_resolver, deferred) = cancellable(&trace);
        let waiter = spawn(|| wait_for_future(deferred.into_future()).map(drop));
        yield_now();
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["cancelled"]);
    });
}

#[test]
fn a_failure_that_an_awaited_deferred_is_dropped_with_is_reported_once() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let (resolver, deferred) = Deferred::<u32>::new();
            let future = deferred.into_future();
            resolver.errback(Bad("unseen"));
            drop(future);
            let (_resolver, deferred) = Deferred::<u32>::new();
            let (later, inner) = Deferred::<u32>::new();
            drop(deferred.or_else(move |_| inner).into_future());
            later.errback(Bad("unheard"));
        });
    });
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports[0].contains("unseen") && reports[1].contains("unheard"));
}

#[test]
fn dropping_an_awaited_greenlet_detaches_it() {
    greenloop::testing::run(|| {
        let done = Rc::new(Cell::new(false));
        let out = Rc::clone(&done);
        let mut future = pin!(Some(
            spawn(move || {
                sleep(SHORT);
                out.set(true);
            })
            .into_future()
        ));
        let mut context = Context::from_waker(Waker::noop());
        assert!(future.as_mut().as_pin_mut().unwrap().poll(&mut context).is_pending());
        future.set(None);
        sleep(4 * SHORT);
        assert!(done.get());
    });
}

/// The newest waker counts, as the contract of `Future` has it.
#[test]
fn an_awaited_deferred_wakes_the_last_waker() {
    struct Counts(AtomicUsize);
    impl Wake for Counts {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let counts = [0, 1].map(|_| Arc::new(Counts(AtomicUsize::new(0))));
    let wakers = counts.clone().map(Waker::from);
    let (resolver, deferred) = Deferred::new();
    let mut future = pin!(deferred.into_future());
    for waker in &wakers {
        assert!(future.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    resolver.callback(1);
    assert_eq!(counts.map(|c| c.0.load(Ordering::Relaxed)), [0, 1]);
    let ready = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(1))));
}

// ---- wait_for_future --------------------------------------------------------------------------

#[test]
fn a_ready_future_parks_nobody() {
    run(|| {
        let trace = Trace::default();
        let other = trace.clone();
        let _other = spawn(move || other.add("other"));
        assert_eq!(wait_for_future(async { 7 }), 7);
        assert_eq!(trace.taken(), [""; 0]);
    });
}

#[test]
fn a_future_need_not_be_send_nor_static() {
    run(|| {
        let text = String::from("borrowed");
        let local = Rc::new(Cell::new(0));
        let length = wait_for_future(async {
            local.set(1);
            spawn(|| ()).await.unwrap();
            text.len() + local.get()
        });
        assert_eq!(length, 9);
    });
}

#[test]
fn waiting_for_a_future_outside_run_panics_and_says_so() {
    let caught = panic::catch_unwind(|| wait_for_future(async { 1 })).unwrap_err();
    let text = caught.downcast_ref::<String>().unwrap();
    assert!(text.contains("wait_for_future") && text.contains("greenloop::run"), "{text}");
}

#[test]
fn a_panic_of_the_future_goes_to_whoever_waits() {
    run(|| {
        let caught = panic::catch_unwind(|| {
            wait_for_future(poll_fn(|_| -> Poll<()> { panic::resume_unwind(Box::new("mine")) }))
        });
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"mine"));
        sleep(SHORT); // and this greenlet is as good as before
    });
}

#[test]
fn a_wake_during_the_poll_is_not_lost() {
    run(|| {
        let mut polls = 0;
        let polled = wait_for_future(poll_fn(move |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 3 { Poll::Ready(polls) } else { Poll::Pending }
        }));
        assert_eq!(polled, 3);
    });
}

#[test]
fn a_wake_from_another_thread_during_the_poll_is_not_lost() {
    assert_ends(|| {
        run(|| {
            let mut polls = 0;
            wait_for_future(poll_fn(move |cx| {
                polls += 1;
                if polls == 50 {
                    return Poll::Ready(());
                }
                let waker = cx.waker().clone();
                thread::spawn(move || waker.wake()).join().unwrap();
                Poll::Pending
            }));
        });
    });
}

/// Rust peers, test 10: wakes from eight threads.
#[test]
fn no_wake_is_lost_in_a_storm_of_eight_threads() {
    const THREADS: usize = 8;
    const EACH: usize = 2_000;
    assert_ends(|| {
        run(|| {
            let count = Arc::new(AtomicUsize::new(0));
            let slot: Arc<Mutex<Option<Waker>>> = Arc::default();
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (count, slot) = (Arc::clone(&count), Arc::clone(&slot));
                    thread::spawn(move || {
                        for _ in 0..EACH {
                            count.fetch_add(1, Ordering::SeqCst);
                            let waker = slot.lock().unwrap().clone();
                            if let Some(waker) = waker {
                                waker.wake_by_ref();
                                waker.wake();
                            }
                        }
                    })
                })
                .collect();
            wait_for_future(poll_fn(|cx| {
                *slot.lock().unwrap() = Some(cx.waker().clone());
                match count.load(Ordering::SeqCst) {
                    all if all == THREADS * EACH => Poll::Ready(()),
                    _ => Poll::Pending,
                }
            }));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let (wakes, turns) = (reactor().wakes_count(), reactor().turns_count());
            assert!(wakes <= turns, "{wakes} eventfd writes, but only {turns} turns");
        });
    });
}

/// Keeps the waker of one wait, for after its end.
fn waker_of_a_wait() -> Waker {
    let mut kept = None;
    wait_for_future(poll_fn(|cx| {
        if kept.is_some() {
            return Poll::Ready(());
        }
        kept = Some(cx.waker().clone());
        cx.waker().wake_by_ref();
        Poll::Pending
    }));
    kept.unwrap()
}

/// SOUND-12
#[test]
fn a_waker_of_an_ended_wait_does_not_shorten_a_later_one() {
    run(|| {
        let stale = waker_of_a_wait();
        let here = stale.clone();
        reactor().call_when_running(move || here.wake());
        let from_thread = thread::spawn(move || stale.wake());
        let begun = Instant::now();
        sleep(5 * SHORT);
        assert!(begun.elapsed() >= 5 * SHORT);
        from_thread.join().unwrap();

        let stale = waker_of_a_wait();
        let mut polls = 0;
        let (resolver, deferred) = Deferred::new();
        let mut deferred = pin!(deferred.into_future());
        reactor().call_when_running(move || {
            stale.wake();
            yield_now();
            resolver.callback(1);
        });
        wait_for_future(poll_fn(|cx| {
            polls += 1;
            deferred.as_mut().poll(cx)
        }))
        .unwrap();
        assert_eq!(polls, 2, "a waker of another wait woke this one");
    });
}

/// SOUND-12, PARK-2: a wake that is on its way when its wait ends by a kill.
#[test]
fn a_wake_that_arrives_after_its_wait_does_not_shorten_the_next_one() {
    run(|| {
        let slot: Rc<RefCell<Option<Waker>>> = Rc::default();
        let slept = Rc::new(Cell::new(Duration::ZERO));
        let (given, out) = (Rc::clone(&slot), Rc::clone(&slept));
        let waiter = spawn(move || {
            let killed = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                wait_for_future(poll_fn(|cx| -> Poll<()> {
                    *given.borrow_mut() = Some(cx.waker().clone());
                    Poll::Pending
                }));
            }));
            assert!(is_kill(&*killed.unwrap_err()));
            let begun = Instant::now();
            shield(|| sleep(20 * SHORT));
            out.set(begun.elapsed());
        });
        yield_now();
        let waker = slot.take().unwrap();
        thread::spawn(move || waker.wake()).join().unwrap(); // it lies in the inbox now
        waiter.kill(); // and the waiter runs before the inbox is read
        drop(waiter.join());
        assert!(slept.get() >= 20 * SHORT, "{:?}", slept.get());
    });
}

/// SOUND-12
#[test]
fn a_waker_of_a_greenlet_that_has_ended_wakes_nobody() {
    run(|| {
        let stale = spawn(waker_of_a_wait).join().unwrap();
        // Whoever comes next is likely to have the same slot and the same stack.
        let sleeper = spawn(|| {
            let begun = Instant::now();
            sleep(5 * SHORT);
            begun.elapsed()
        });
        yield_now();
        stale.wake_by_ref();
        thread::spawn(move || stale.wake()).join().unwrap();
        assert!(sleeper.join().unwrap() >= 5 * SHORT);
    });
}

/// SOUND-12
#[test]
fn a_waker_of_an_ended_run_does_nothing() {
    let stale = run(waker_of_a_wait);
    stale.wake_by_ref();
    let other = stale.clone();
    run(move || {
        other.wake_by_ref();
        let begun = Instant::now();
        reactor().call_when_running(move || other.wake());
        sleep(5 * SHORT);
        assert!(begun.elapsed() >= 5 * SHORT);
    });
    thread::spawn(move || stale.wake()).join().unwrap();
}

#[test]
fn a_future_that_wakes_itself_lets_the_others_run() {
    run(|| {
        let done = Rc::new(Cell::new(false));
        let out = Rc::clone(&done);
        let _other = spawn(move || {
            sleep(SHORT); // needs the reactor, too
            out.set(true);
        });
        wait_for_future(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if done.get() { Poll::Ready(()) } else { Poll::Pending }
        }));
    });
}

/// A future that notes its polls and its drop.
struct Noted {
    trace: Trace,
    in_poll: fn(&Trace),
}

impl Future for Noted {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.trace.add("poll");
        (self.in_poll)(&self.trace);
        Poll::Pending
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.trace.add("drop");
    }
}

#[test]
fn a_kill_between_two_polls_drops_the_future() {
    run(|| {
        let trace = Trace::default();
        let noted = Noted { trace: trace.clone(), in_poll: |_| () };
        let waiter = spawn(|| wait_for_future(noted));
        yield_now();
        assert_eq!(trace.taken(), ["poll"]);
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["drop"]);
    });
}

/// SOUND-7: "While `wait_for_future` polls, it is shielded: the kill lands at its own park."
#[test]
fn a_kill_during_a_poll_lands_after_it() {
    run(|| {
        let trace = Trace::default();
        let in_poll = |trace: &Trace| {
            sleep(5 * SHORT); // infallible: it goes on
            trace.add("slept");
            let (_resolver, unfired) = Deferred::<()>::new();
            trace.add(wait_for_deferred(unfired).unwrap_err()); // fallible: it fails
        };
        let noted = Noted { trace: trace.clone(), in_poll };
        let waiter = spawn(|| wait_for_future(noted));
        yield_now();
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["poll", "slept", "the greenlet was killed", "drop"]);
    });
}

#[test]
fn a_timeout_drops_the_future() {
    // In virtual time, which does not pass before the future has been polled.
    testing::run(|| {
        let trace = Trace::default();
        let noted = Noted { trace: trace.clone(), in_poll: |_| () };
        assert!(timeout(SHORT, || wait_for_future(noted)).is_err());
        assert_eq!(trace.taken(), ["poll", "drop"]);
    });
}

#[test]
fn a_future_that_was_killed_before_it_was_polled_is_dropped_unpolled() {
    run(|| {
        let trace = Trace::default();
        let noted = Noted { trace: trace.clone(), in_poll: |_| () };
        let waiter = spawn(move || {
            current().kill();
            wait_for_future(noted);
        });
        assert!(waiter.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["drop"]);
    });
}

#[test]
fn futures_may_be_waited_for_inside_a_poll() {
    run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        let outer = wait_for_future(async move {
            t.add("outer");
            let greenlet = spawn(|| {
                sleep(SHORT);
                1
            });
            let inner = wait_for_future(async {
                let n = wait_for_future(async { 10 });
                n + greenlet.await.unwrap()
            });
            t.add(inner);
            spawn(|| 100).await.unwrap() + inner // the outer waker still works
        });
        assert_eq!((outer, trace.taken()), (111, vec!["outer".to_owned(), "11".to_owned()]));
    });
}

#[test]
fn a_future_may_hold_a_greenlet_that_holds_the_waker() {
    run(|| {
        let slot: Rc<RefCell<Option<Waker>>> = Rc::default();
        let shared = Rc::clone(&slot);
        let greenlet = spawn(move || {
            while shared.borrow().is_none() {
                yield_now();
            }
            shared.take().unwrap().wake();
            sleep(LONG);
        });
        let mut polls = 0;
        wait_for_future(poll_fn(|cx| {
            polls += 1;
            if polls == 2 {
                greenlet.kill();
                return Poll::Ready(());
            }
            *slot.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        }));
        assert!(greenlet.join().unwrap_err().is_killed());
    });
}

// ---- WouldBlockForever ------------------------------------------------------------------------

fn report_of<T>(ended: Result<T, RunError>) -> Vec<String> {
    match ended {
        Err(RunError::WouldBlockForever(report)) => {
            report.parked().iter().map(|parked| parked.waits_on.clone()).collect()
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it has a value"),
    }
}

/// BRIDGE-7. gevent's `LoopExit`.
#[test]
fn a_deferred_that_nobody_fires_is_reported_with_all_who_are_parked() {
    let ended = try_run(|| {
        let (_resolver, deferred) = Deferred::<u32>::new();
        let (_other, waits) = Deferred::<u32>::new();
        let _greenlet =
            greenloop::Builder::new().name("helper").spawn(|| wait_for_deferred(waits).map(drop));
        wait_for_deferred(deferred).map(drop)
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    let parked = report.parked();
    assert_eq!(parked.len(), 2, "{report}");
    assert_eq!(parked[0].name.as_deref(), Some("main"));
    assert_eq!(parked[1].name.as_deref(), Some("helper"));
    for parked in parked {
        assert_eq!(parked.waits_on, "a Deferred to fire");
        assert!(parked.birth.file().ends_with("bridge.rs"), "{report}");
    }
}

/// The report unwinds main: what it waited for is cancelled.
#[test]
fn who_would_wait_for_ever_cancels_its_deferred() {
    let trace = Trace::default();
    let t = trace.clone();
    let ended = try_run(move || {
        let (_resolver, deferred) = cancellable(&t);
        wait_for_deferred(deferred).map(drop)
    });
    assert_eq!(report_of(ended), ["a Deferred to fire"]);
    assert_eq!(trace.taken(), ["cancelled"]);
}

#[test]
fn a_future_that_nobody_can_wake_is_reported() {
    assert_ends(|| {
        let ended = try_run(|| wait_for_future(std::future::pending::<()>()));
        assert_eq!(report_of(ended), ["a future to be ready"]);
    });
}

/// BRIDGE-7: the waker lies in the Deferred, which nobody can fire.
#[test]
fn an_awaited_deferred_that_nobody_fires_is_reported() {
    assert_ends(|| {
        let ended = try_run(|| {
            wait_for_future(async {
                let (_resolver, deferred) = Deferred::<()>::new();
                deferred.await.map_err(drop)
            })
        });
        assert_eq!(report_of(ended), ["a future to be ready"]);
    });
}

/// BRIDGE-7: the waker lies in the greenlet, which nobody can wake.
#[test]
fn an_awaited_greenlet_that_nobody_wakes_is_reported() {
    assert_ends(|| {
        let ended = try_run(|| {
            let (_resolver, deferred) = Deferred::<()>::new();
            let greenlet = spawn(|| wait_for_deferred(deferred).map_err(drop));
            wait_for_future(async { drop(greenlet.await) })
        });
        assert_eq!(report_of(ended), ["a future to be ready", "a Deferred to fire"]);
    });
}

/// A future that was dropped wants no wake any more.
#[test]
fn a_dropped_future_of_a_greenlet_keeps_no_waker() {
    assert_ends(|| {
        let ended = try_run(|| {
            let (_resolver, deferred) = Deferred::<()>::new();
            let mut future =
                Some(spawn(|| wait_for_deferred(deferred).map_err(drop)).into_future());
            wait_for_future(poll_fn(move |cx| {
                let polled = Pin::new(future.as_mut().unwrap()).poll(cx).is_pending();
                assert!(polled);
                future = None;
                Poll::Ready(())
            }));
            wait_for_deferred(Deferred::<()>::new().0.into_waiting())
        });
        assert_eq!(report_of(ended), ["a Deferred to fire", "a Deferred to fire"]);
    });
}

/// Turns a Resolver into something that waits for it for ever.
trait IntoWaiting {
    fn into_waiting(self) -> Deferred<()>;
}

impl IntoWaiting for Resolver<()> {
    fn into_waiting(self) -> Deferred<()> {
        drop(self);
        let (resolver, deferred) = Deferred::new();
        std::mem::forget(resolver);
        deferred
    }
}

#[test]
fn a_wait_that_another_thread_can_end_is_not_reported() {
    assert_ends_twice(|| {
        let fired = try_run(|| {
            let handle = reactor().handle();
            let (resolver, deferred) = Deferred::<u32>::new();
            thread_local!(static RESOLVER: Cell<Option<Resolver<u32>>> = const { Cell::new(None) });
            RESOLVER.set(Some(resolver));
            let thread = thread::spawn(move || {
                thread::sleep(10 * SHORT); // whatever is reported too early is so by then
                handle.call_from_thread(|| RESOLVER.take().unwrap().callback(5)).unwrap();
            });
            let value = wait_for_deferred(deferred).unwrap();
            thread.join().unwrap();
            value
        });
        assert_eq!(fired.unwrap(), 5);
    });
}

#[test]
fn a_future_whose_waker_another_thread_has_is_not_reported() {
    assert_ends_twice(|| {
        let woken = try_run(|| {
            let ready = Arc::new(AtomicBool::new(false));
            let mut thread = None;
            wait_for_future(poll_fn(|cx| {
                if ready.load(Ordering::SeqCst) {
                    return Poll::Ready(());
                }
                let (waker, ready) = (cx.waker().clone(), Arc::clone(&ready));
                thread = Some(thread::spawn(move || {
                    thread::sleep(10 * SHORT);
                    ready.store(true, Ordering::SeqCst);
                    waker.wake();
                }));
                Poll::Pending
            }));
            thread.unwrap().join().unwrap();
        });
        woken.unwrap();
    });
}

#[test]
fn a_wait_is_reported_when_the_last_handle_goes_while_the_reactor_sleeps() {
    assert_ends_twice(|| {
        let ended = try_run(|| {
            let handle = reactor().handle();
            thread::spawn(move || {
                let copy = handle.clone();
                drop(handle);
                thread::sleep(10 * SHORT); // it sleeps by then; if not, all the same
                drop(copy);
            });
            wait_for_deferred(Deferred::<()>::new().0.into_waiting()).map_err(drop)
        });
        assert_eq!(report_of(ended), ["a Deferred to fire"]);
    });
}

#[test]
fn a_wait_is_reported_when_the_last_waker_goes_while_the_reactor_sleeps() {
    assert_ends_twice(|| {
        let ended = try_run(|| {
            let mut given = false;
            wait_for_future(poll_fn(|cx| -> Poll<()> {
                if !std::mem::replace(&mut given, true) {
                    let waker = cx.waker().clone();
                    thread::spawn(move || {
                        thread::sleep(10 * SHORT);
                        drop(waker);
                    });
                }
                Poll::Pending
            }))
        });
        assert_eq!(report_of(ended), ["a future to be ready"]);
    });
}

/// The last handle may go at any moment, also between the look at it and the sleep.
#[test]
fn slow_a_last_handle_that_goes_while_the_reactor_falls_asleep_is_noticed() {
    assert_ends(|| {
        let begun = Instant::now();
        for round in 0..10_000u32 {
            // Where two threads share a processor, each round waits for the end of a spin.
            if begun.elapsed() > Duration::from_secs(8) {
                break;
            }
            let ended = try_run(|| {
                let handle = reactor().handle();
                let parks = Arc::new(AtomicBool::new(false));
                let seen = Arc::clone(&parks);
                PARTNER.with(|partner| partner.send((handle, seen, round % 200)).unwrap());
                parks.store(true, Ordering::Release);
                wait_for_deferred(Deferred::<()>::new().0.into_waiting()).map_err(drop)
            });
            assert_eq!(report_of(ended).len(), 1);
        }
    });
    type Handed = (greenloop::ReactorHandle, Arc<AtomicBool>, u32);
    thread_local! {
        /// A thread that drops what it is handed, some spins after its owner is about to park.
        static PARTNER: mpsc::Sender<Handed> = {
            let (sender, handed) = mpsc::channel::<Handed>();
            thread::spawn(move || {
                for (handle, parks, spins) in handed {
                    while !parks.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    (0..spins * 8).for_each(|_| std::hint::spin_loop());
                    drop(handle);
                }
            });
            sender
        };
    }
}
