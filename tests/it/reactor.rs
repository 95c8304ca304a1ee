//! The reactor as users see it: timers, calls, readers and writers, other threads, stop.

use std::{
    cell::{Cell, RefCell},
    io::{PipeReader, Read, Write, pipe},
    panic,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Dropped, Trace, assert_ends, in_a_process_of_its_own, reports_of};
use greenloop::{
    Deadline, Deferred, DelayedCallError, Reactor, ReactorHandle, Resolver, RunError, Stopped,
    current, reactor, run, sleep, spawn, try_run, wait_for_deferred, wait_for_deferred_timeout,
    yield_now,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

/// Parks until `condition` holds, looking again after every turn.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_micros(200));
    }
}

/// Parks until everything that is due now has been called, and what that schedules at once.
///
/// Twice: in a debug build the first park at a place takes as long as to walk its backtrace.
fn settle() {
    for _ in 0..2 {
        let (resolver, deferred) = Deferred::new();
        reactor().call_when_running(move || resolver.callback(()));
        wait_for_deferred(deferred).unwrap();
        sleep(SHORT);
    }
}

// ---- delayed calls ----------------------------------------------------------------------------

/// Twisted `test_callLaterOrder`, `DelayedTests`.
#[test]
fn delayed_calls_run_in_the_order_of_their_times() {
    run(|| {
        let trace = Trace::default();
        for ms in [12, 3, 9, 6] {
            reactor().call_later(Duration::from_millis(ms), trace.adds(ms));
        }
        sleep(Duration::from_millis(20));
        settle();
        assert_eq!(trace.taken(), ["3", "6", "9", "12"]);
    });
}

/// Twisted sorts by time. What merges wakeups must not turn the order round.
#[test]
fn delayed_calls_that_share_a_wakeup_keep_the_order_of_their_times() {
    run(|| {
        let trace = Trace::default();
        let mut calls: Vec<_> = (0..100)
            .map(|n| {
                let wait = Duration::from_millis(90) + Duration::from_micros(7919 * n % 5000);
                (reactor().call_later(wait, trace.adds(n)).time(), n.to_string())
            })
            .collect();
        calls.sort();
        sleep(Duration::from_millis(110));
        settle();
        let expected: Vec<_> = calls.into_iter().map(|(_, n)| n).collect();
        assert_eq!(trace.taken(), expected);
    });
}

/// "Timers that are due, in the order of their deadlines", whoever waits for them.
#[test]
fn a_call_that_is_due_before_a_sleeper_is_made_before_it_wakes() {
    run(|| {
        let trace = Trace::default();
        reactor().call_later(SHORT, trace.adds("call"));
        let t = trace.clone();
        let sleeper = spawn(move || {
            sleep(2 * SHORT);
            t.add("sleeper");
        });
        yield_now();
        thread::sleep(5 * SHORT); // the loop is held up until both are due
        sleeper.join().unwrap();
        settle();
        assert_eq!(trace.taken(), ["call", "sleeper"]);
    });
}

/// Twisted `test_callLaterKeepsCallsOrdered`.
#[test]
fn delayed_calls_of_one_delay_run_in_the_order_of_their_making() {
    run(|| {
        let trace = Trace::default();
        for wait in [Duration::ZERO, SHORT] {
            (0..50).for_each(|n| drop(reactor().call_later(wait, trace.adds(n))));
            sleep(2 * wait);
            settle();
            let expected: Vec<_> = (0..50).map(|n| n.to_string()).collect();
            assert_eq!(trace.taken(), expected);
        }
    });
}

/// Twisted: "A call scheduled with 0 inside a timer runs in the next iteration."
#[test]
fn a_call_scheduled_in_a_call_comes_later_and_lets_others_run() {
    assert_ends(|| {
        run(|| {
            let trace = Trace::default();
            let t = trace.clone();
            reactor().call_later(Duration::ZERO, move || {
                reactor().call_later(Duration::ZERO, t.adds("inner"));
                t.add("outer");
            });
            reactor().call_later(Duration::ZERO, trace.adds("second"));
            settle();
            assert_eq!(trace.taken(), ["outer", "second", "inner"]);
            // Again and again for ever: everybody else still comes to their turn.
            fn again(stop: Rc<Cell<bool>>) {
                if !stop.get() {
                    reactor().call_later(Duration::ZERO, move || again(stop));
                }
            }
            let stop = Rc::new(Cell::new(false));
            again(Rc::clone(&stop));
            sleep(SHORT);
            stop.set(true);
        });
    });
}

/// Twisted `test_cancelDelayedCall`, `test_cancelCancelledDelayedCall`, `test_cancelCalled`.
#[test]
fn a_cancelled_call_is_never_made_and_drops_its_function_at_once() {
    run(|| {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "dropped");
        let call = reactor().call_later(SHORT, move || guard.0.add("called"));
        assert!(call.active());
        assert_eq!(call.cancel(), Ok(()));
        assert_eq!(trace.taken(), ["dropped"]);
        assert!(!call.active());
        sleep(3 * SHORT);
        settle();
        assert_eq!(trace.taken(), [""; 0]);
        assert_eq!(call.cancel(), Err(DelayedCallError::AlreadyCancelled));
        assert_eq!(call.reset(SHORT), Err(DelayedCallError::AlreadyCancelled));
        assert_eq!(call.delay(SHORT), Err(DelayedCallError::AlreadyCancelled));
    });
}

/// Twisted `test_cancelCalledDelayedCallSynchronous`, `...Asynchronous`.
#[test]
fn a_call_that_was_made_cannot_be_changed() {
    run(|| {
        let trace = Trace::default();
        let slot: Rc<RefCell<Option<greenloop::DelayedCall>>> = Rc::default();
        let (inside, t) = (Rc::clone(&slot), trace.clone());
        let call = reactor().call_later(SHORT, move || {
            let call = inside.take().unwrap();
            t.add(call.active());
            t.add(call.cancel().unwrap_err());
        });
        *slot.borrow_mut() = Some(call.clone());
        sleep(4 * SHORT);
        settle();
        assert_eq!(trace.taken(), ["false", "the delayed call was made already"]);
        assert_eq!(call.cancel(), Err(DelayedCallError::AlreadyCalled));
        assert_eq!(call.reset(SHORT), Err(DelayedCallError::AlreadyCalled));
        assert_eq!(call.delay(SHORT), Err(DelayedCallError::AlreadyCalled));
    });
}

/// Twisted `test_resetDelayedCall`, `test_delayDelayedCall`, `test_getTime`.
#[test]
fn reset_and_delay_move_the_time() {
    run(|| {
        let trace = Trace::default();
        let before = reactor().now();
        let call = reactor().call_later(LONG, trace.adds("called"));
        assert!(call.time() >= before + LONG);
        let time = call.time();
        call.delay(LONG).unwrap();
        assert_eq!(call.time(), time + LONG);
        call.reset(SHORT).unwrap();
        assert!(call.time() <= reactor().now() + SHORT);
        assert!(call.active());
        until(|| !call.active());
        assert!(reactor().now() >= call.time(), "too early");
        settle();
        assert_eq!(trace.taken(), ["called"]);

        let call = reactor().call_later(SHORT, trace.adds("later"));
        call.reset(LONG).unwrap();
        sleep(3 * SHORT);
        settle();
        assert_eq!((trace.taken(), call.active()), (vec![], true));
        call.cancel().unwrap();
    });
}

/// Twisted `test_distantDelayedCall` (issue 9411: an overflow).
#[test]
fn a_distant_call_costs_nothing_and_can_be_brought_near() {
    run(|| {
        let trace = Trace::default();
        let never = reactor().call_later(Duration::MAX, trace.adds("never"));
        let distant = reactor().call_later(Duration::from_secs(100 * 365 * 86_400), || ());
        assert_eq!(never.time(), Deadline::NEVER);
        let turns = reactor().turns_count();
        sleep(5 * SHORT);
        assert!(reactor().turns_count() - turns < 5, "it turns all the time");
        never.delay(SHORT).unwrap();
        assert_eq!(never.time(), Deadline::NEVER);
        never.reset(SHORT).unwrap();
        sleep(4 * SHORT);
        settle();
        assert_eq!(trace.taken(), ["never"]);
        distant.reset(Duration::MAX).unwrap();
        distant.cancel().unwrap();
    });
}

#[test]
fn a_call_for_never_does_not_keep_main_waiting() {
    assert_ends(|| {
        let ended = try_run(|| {
            reactor().call_later(Duration::MAX, || ());
            let (_resolver, deferred) = Deferred::<()>::new();
            wait_for_deferred(deferred).map_err(drop)
        });
        assert!(matches!(ended, Err(RunError::WouldBlockForever(_))));
    });
}

#[test]
fn a_delayed_call_of_an_ended_run_is_cancelled_and_dropped() {
    let trace = Trace::default();
    let guard = Dropped(trace.clone(), "dropped");
    let call = run(move || {
        let call = reactor().call_later(LONG, move || guard.0.add("called"));
        let t = Dropped(Trace::default(), "");
        reactor().call_when_running(move || drop(t));
        call
    });
    assert_eq!(trace.taken(), ["dropped"]);
    assert!(!call.active());
    assert_eq!(call.cancel(), Err(DelayedCallError::AlreadyCancelled));
    run(move || assert_eq!(call.reset(SHORT), Err(DelayedCallError::AlreadyCancelled)));
}

/// One destructor that panics must take nobody else with it.
#[test]
fn pending_calls_whose_destructors_panic_are_reported_each() {
    const NAME: &str = "reactor::pending_calls_whose_destructors_panic_are_reported_each";
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    in_a_process_of_its_own(NAME, || {
        let (calls, reports) = reports_of(|| {
            run(|| {
                [PanicsInDrop, PanicsInDrop]
                    .map(|panics| reactor().call_later(LONG, move || drop(panics)))
            })
        });
        assert_eq!(reports.len(), 2, "{reports:?}");
        assert!(calls.iter().all(|call| !call.active()));
    });
}

/// Rust peers, test 13: "timer reset/delay/cancel storm of 1M".
#[test]
fn slow_a_storm_of_a_million_timers_stays_cheap() {
    const COUNT: u32 = 1_000_000;
    run(|| {
        let begun = Instant::now();
        let called = Rc::new(Cell::new(0u32));
        let calls: Vec<_> = (0..COUNT)
            .map(|n| {
                let called = Rc::clone(&called);
                let wait = LONG + Duration::from_micros(u64::from(n.wrapping_mul(2_654_435_761)));
                reactor().call_later(wait, move || called.set(called.get() + 1))
            })
            .collect();
        for (n, call) in calls.iter().enumerate() {
            match n % 4 {
                0 => call.reset(2 * LONG).unwrap(),
                1 => call.delay(SHORT).unwrap(),
                2 => call.cancel().unwrap(),
                _ => {}
            }
        }
        // One of them again and again, as an idle timeout that each packet moves.
        (0..COUNT).for_each(|_| calls[0].reset(LONG).unwrap());
        calls.iter().step_by(1000).for_each(|call| {
            let _ = call.reset(Duration::ZERO);
        });
        let limit = reactor().now() + Duration::from_secs(5);
        until(|| called.get() >= COUNT / 1000 || reactor().now() > limit);
        settle();
        assert_eq!(called.get(), COUNT / 1000, "those that were brought near");
        drop(calls);
        let each = begun.elapsed() / (3 * COUNT);
        assert!(each < Duration::from_micros(20), "{each:?} an operation");
    });
}

// ---- call_when_running ------------------------------------------------------------------------

/// Twisted `test_callWhenRunningOrder`.
#[test]
fn calls_run_in_the_order_of_their_making_and_not_at_once() {
    run(|| {
        let trace = Trace::default();
        let (t1, t2) = (trace.clone(), trace.clone());
        reactor().call_when_running(move || {
            t1.add("first");
            reactor().call_when_running(t1.adds("third"));
        });
        reactor().call_when_running(move || t2.add("second"));
        trace.add("main");
        settle();
        assert_eq!(trace.taken(), ["main", "first", "second", "third"]);
    });
}

/// Design, section 3, point 6: "it may block: a parked greenlet, not a stopped loop".
#[test]
fn a_call_that_blocks_stops_neither_the_loop_nor_the_later_calls() {
    run(|| {
        let trace = Trace::default();
        let (resolver, deferred) = Deferred::new();
        let t = trace.clone();
        reactor().call_when_running(move || {
            t.add("blocks");
            t.add(wait_for_deferred(deferred).unwrap());
        });
        let t = trace.clone();
        reactor().call_when_running(move || {
            t.add("second");
            sleep(SHORT);
            t.add("slept");
            resolver.callback("unblocked");
        });
        reactor().call_when_running(trace.adds("third"));
        reactor().call_later(Duration::ZERO, trace.adds("timer"));
        until(|| trace.0.borrow().len() == 6);
        let order = trace.taken();
        assert_eq!(order[..3], ["blocks", "second", "third"]);
        assert_eq!(order[3..], ["timer", "slept", "unblocked"]);
    });
}

#[test]
fn a_thousand_calls_may_block_at_once() {
    run(|| {
        let count = Rc::new(Cell::new(0));
        let mut resolvers = Vec::new();
        for _ in 0..1000 {
            let (resolver, deferred) = Deferred::<()>::new();
            resolvers.push(resolver);
            let count = Rc::clone(&count);
            reactor().call_when_running(move || {
                wait_for_deferred(deferred).unwrap();
                count.set(count.get() + 1);
            });
        }
        settle();
        assert_eq!(count.get(), 0);
        resolvers.into_iter().for_each(|resolver| resolver.callback(()));
        settle();
        assert_eq!(count.get(), 1000);
    });
}

/// Twisted: "Any exception from a call, timer or doRead is logged and the loop goes on."
#[test]
fn a_call_that_panics_is_reported_once_and_the_loop_goes_on() {
    let (trace, reports) = reports_of(|| {
        let trace = Trace::default();
        run(|| {
            reactor().call_when_running(|| panic!("soon"));
            reactor().call_when_running(trace.adds("next"));
            reactor().call_later(Duration::ZERO, || panic!("delayed"));
            let handle = reactor().handle();
            handle.call_from_thread(|| panic!("threaded")).unwrap();
            settle();
            reactor().call_when_running(trace.adds("last"));
            settle();
        });
        trace.taken()
    });
    assert_eq!(trace, ["next", "last"]);
    assert_eq!(reports.len(), 3, "{reports:?}");
    for text in ["soon", "delayed", "threaded"] {
        let mine: Vec<_> = reports.iter().filter(|report| report.contains(text)).collect();
        assert_eq!(mine.len(), 1, "{reports:?}");
        assert!(mine[0].contains("reactor.rs:"), "no place: {mine:?}");
    }
}

/// "Calls `f` soon: in the next turn of the loop": one that asks for itself again, too.
#[test]
fn a_call_that_asks_for_itself_again_starves_nobody() {
    fn again(left: u32, stop: Rc<Cell<bool>>, out: Rc<Cell<u32>>) {
        out.set(left);
        if left > 0 && !stop.get() {
            reactor().call_when_running(move || again(left - 1, stop, out));
        }
    }
    run(|| {
        let (stop, left) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        again(100_000, Rc::clone(&stop), Rc::clone(&left));
        sleep(Duration::from_micros(100));
        stop.set(true);
        assert!(left.get() > 0, "a sleep of 0.1 ms took 100,000 calls");
    });
}

/// A kill belongs to the call that it was meant for, not to the greenlet that is used again.
#[test]
fn a_call_that_is_killed_does_not_take_the_next_ones_with_it() {
    run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        reactor().call_when_running(move || {
            current().kill();
            t.add("killed itself");
        });
        let t = trace.clone();
        reactor().call_when_running(move || {
            yield_now();
            t.add("second");
        });
        settle();
        assert_eq!(trace.taken(), ["killed itself", "second"]);

        let victim = Rc::new(RefCell::new(None));
        let out = Rc::clone(&victim);
        reactor().call_when_running(move || {
            *out.borrow_mut() = Some(current());
            sleep(LONG);
        });
        settle();
        let victim = victim.take().unwrap();
        let t = trace.clone();
        reactor().call_when_running(move || {
            yield_now();
            t.add("third");
        });
        victim.kill();
        settle();
        assert_eq!(trace.taken(), ["third"]);
    });
}

/// SOUND-3: "run returns only after every greenlet has ended", callback greenlets included.
#[test]
fn a_call_that_blocks_for_long_does_not_hold_up_the_end_of_the_run() {
    const NAME: &str = "reactor::a_call_that_blocks_for_long_does_not_hold_up_the_end_of_the_run";
    in_a_process_of_its_own(NAME, || {
        let begun = Instant::now();
        run(|| {
            reactor().set_shutdown_deadline(Duration::from_secs(3));
            reactor().call_when_running(|| sleep(LONG)); // parked when main ends
            settle();
            let greenlet = spawn(|| sleep(LONG));
            greenlet.link(|_| sleep(LONG)); // called when main has ended
            yield_now();
            reactor().call_when_running(|| sleep(LONG)); // due when main ends
        });
        assert!(begun.elapsed() < Duration::from_secs(2));
    });
}

#[test]
fn calls_that_are_due_when_main_ends_are_dropped_or_made_but_not_leaked() {
    let trace = Trace::default();
    let guards = [(); 3].map(|()| Dropped(trace.clone(), "dropped"));
    run(move || {
        let [a, b, c] = guards;
        reactor().call_when_running(move || drop(a));
        reactor().call_later(LONG, move || drop(b));
        let greenlet = spawn(|| sleep(LONG));
        greenlet.link(move |_| drop(c));
    });
    assert_eq!(trace.taken(), ["dropped"; 3]);
}

#[test]
fn a_destructor_of_a_pending_call_may_spawn_and_schedule() {
    struct Spawns(Trace);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let guard = Dropped(self.0.clone(), "its closure");
            drop(spawn(move || guard.0.add("ran")));
            let guard = Dropped(self.0.clone(), "its call");
            reactor().call_later(LONG, move || guard.0.add("called"));
        }
    }
    let trace = Trace::default();
    let spawns = Spawns(trace.clone());
    run(move || {
        reactor().call_later(LONG, move || drop(spawns));
    });
    let mut dropped = trace.taken();
    dropped.sort();
    assert_eq!(dropped, ["its call", "its closure"]);
}

#[test]
fn a_reactor_handle_of_an_ended_run_is_refused() {
    let old: Reactor = run(reactor);
    run(move || {
        let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| old.stop())).unwrap_err();
        assert!(caught.downcast_ref::<&str>().unwrap().contains("has ended"));
    });
    let caught = panic::catch_unwind(reactor).unwrap_err();
    assert!(caught.downcast_ref::<String>().unwrap().contains("greenloop::run"));
}

// ---- other threads ----------------------------------------------------------------------------

/// Twisted `test_threadsAreRunInScheduledOrder`, `test_lotsOfThreadsAreScheduledCorrectly`.
#[test]
fn calls_from_threads_arrive_in_the_order_of_each_thread() {
    const THREADS: usize = 8;
    const EACH: usize = 1_000;
    assert_ends(|| {
        run(|| {
            let seen: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
            let threads: Vec<_> = (0..THREADS)
                .map(|number| {
                    let (handle, seen) = (reactor().handle(), Arc::clone(&seen));
                    thread::spawn(move || {
                        for n in 0..EACH {
                            let seen = Arc::clone(&seen);
                            let call = move || seen.lock().unwrap().push((number, n));
                            handle.call_from_thread(call).unwrap();
                        }
                    })
                })
                .collect();
            until(|| seen.lock().unwrap().len() == THREADS * EACH);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let seen = seen.lock().unwrap();
            for number in 0..THREADS {
                let of_one: Vec<_> = seen.iter().filter(|s| s.0 == number).map(|s| s.1).collect();
                assert!(of_one.is_sorted() && of_one.len() == EACH);
            }
            let (wakes, turns) = (reactor().wakes_count(), reactor().turns_count());
            assert!(wakes <= turns, "{wakes} eventfd writes, {turns} turns");
        });
    });
}

thread_local! {
    /// What a call from another thread finds on the reactor's own.
    static RESOLVER: Cell<Option<Resolver<&'static str>>> = const { Cell::new(None) };
}

#[test]
fn a_call_from_a_thread_runs_on_the_reactors_thread_and_may_block() {
    assert_ends(|| {
        run(|| {
            let (resolver, deferred) = Deferred::new();
            RESOLVER.set(Some(resolver));
            let handle = reactor().handle();
            let home = thread::current().id();
            let thread = thread::spawn(move || {
                handle
                    .call_from_thread(move || {
                        assert_eq!(thread::current().id(), home);
                        sleep(SHORT);
                        RESOLVER.take().unwrap().callback("called");
                    })
                    .unwrap();
            });
            assert_eq!(wait_for_deferred(deferred).unwrap(), "called");
            thread.join().unwrap();
        });
    });
}

/// A busy reactor looks into its inbox; nobody has to wake it.
#[test]
fn a_busy_reactor_is_not_woken_by_a_system_call() {
    assert_ends(|| {
        run(|| {
            let handle = reactor().handle();
            let came = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&came);
            let thread = thread::spawn(move || {
                for _ in 0..100 {
                    handle.call_from_thread(|| ()).unwrap();
                }
                handle.call_from_thread(move || flag.store(true, Ordering::SeqCst)).unwrap();
            });
            while !came.load(Ordering::SeqCst) {
                yield_now();
            }
            thread.join().unwrap();
            assert_eq!(reactor().wakes_count(), 0);
        });
    });
}

/// Twisted queues silently for ever.
#[test]
fn a_call_after_the_end_is_refused_with_stopped_and_dropped() {
    let handle: ReactorHandle = run(|| reactor().handle());
    let guard = Arc::new(());
    let held = Arc::clone(&guard);
    thread::spawn(move || {
        let refused: Stopped = handle.call_from_thread(move || drop(held)).unwrap_err();
        assert!(refused.to_string().contains("ended"));
        assert!(handle.spawn(|| ()).is_err());
        assert!(handle.stop().is_err());
        assert!(handle.clone().stop().is_err());
    })
    .join()
    .unwrap();
    assert_eq!(Arc::strong_count(&guard), 1);
}

/// Whatever a thread was told, its function is dropped or called, and exactly one of them.
#[test]
fn a_call_that_races_with_the_end_is_made_or_refused_or_dropped() {
    assert_ends(|| {
        for _ in 0..200 {
            let (send, handles) = mpsc::channel::<ReactorHandle>();
            let token = Arc::new(());
            let held = Arc::clone(&token);
            let thread = thread::spawn(move || {
                let handle = handles.recv().unwrap();
                while handle.call_from_thread({
                    let held = Arc::clone(&held);
                    move || drop(held)
                }) == Ok(())
                {}
            });
            run(|| {
                send.send(reactor().handle()).unwrap();
                yield_now();
            });
            thread.join().unwrap();
            assert_eq!(Arc::strong_count(&token), 1);
        }
    });
}

#[test]
fn a_greenlet_spawned_by_a_thread_is_one_like_any_other() {
    assert_ends(|| {
        run(|| {
            let (resolver, deferred) = Deferred::new();
            RESOLVER.set(Some(resolver));
            let handle = reactor().handle();
            let birth = Arc::new(Mutex::new(String::new()));
            let out = Arc::clone(&birth);
            let thread = thread::spawn(move || {
                handle.spawn(move || {
                    sleep(SHORT);
                    *out.lock().unwrap() = current().birth().file().to_owned();
                    RESOLVER.take().unwrap().callback("spawned");
                })
            });
            assert_eq!(wait_for_deferred(deferred).unwrap(), "spawned");
            thread.join().unwrap().unwrap();
            let birth = birth.lock().unwrap();
            assert!(birth.ends_with("tests/it/reactor.rs"), "it says it was spawned at {birth}");
        });
    });
}

// ---- readers and writers ----------------------------------------------------------------------

fn read_one(mut reader: &PipeReader) -> u8 {
    let mut byte = [0];
    reader.read_exact(&mut byte).unwrap();
    byte[0]
}

/// Twisted `test_addReader`: level-triggered.
#[test]
fn a_reader_is_called_as_long_as_there_is_something_to_read() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let trace = Trace::default();
        let t = trace.clone();
        reactor().add_reader(reader, move |r| t.add(read_one(r))).unwrap();
        settle();
        assert_eq!(trace.taken(), [""; 0]);
        writer.write_all(&[1, 2, 3]).unwrap();
        until(|| trace.0.borrow().len() == 3);
        settle();
        assert_eq!(trace.taken(), ["1", "2", "3"]);
        writer.write_all(&[4]).unwrap();
        settle();
        assert_eq!(trace.taken(), ["4"]);
        assert_eq!(reactor().remove_all(), 1);
    });
}

#[test]
fn a_writer_is_called_as_long_as_it_can_be_written_to() {
    run(|| {
        let (_reader, writer) = pipe().unwrap();
        let count = Rc::new(Cell::new(0));
        let calls = Rc::clone(&count);
        let copy = writer.try_clone().unwrap();
        reactor()
            .add_writer(writer, move |w| {
                calls.set(calls.get() + 1);
                if calls.get() == 3 {
                    assert!(reactor().remove_writer(w), "from within");
                }
            })
            .unwrap();
        until(|| count.get() == 3);
        settle();
        assert_eq!(count.get(), 3);
        assert!(!reactor().remove_writer(&copy), "that is another number");
    });
}

/// Design, section 3, point 6, for readers.
#[test]
fn a_reader_that_blocks_holds_up_itself_alone() {
    run(|| {
        let (slow, mut to_slow) = pipe().unwrap();
        let (fast, mut to_fast) = pipe().unwrap();
        let trace = Trace::default();
        let (resolver, gate) = Deferred::<()>::new();
        let (t, gate) = (trace.clone(), Cell::new(Some(gate)));
        let add = reactor().add_reader(slow, move |r| {
            t.add(format!("slow {}", read_one(r)));
            if let Some(gate) = gate.take() {
                wait_for_deferred(gate).unwrap();
                t.add("slow goes on");
            }
        });
        add.unwrap();
        let t = trace.clone();
        reactor().add_reader(fast, move |r| t.add(format!("fast {}", read_one(r)))).unwrap();
        to_slow.write_all(&[1]).unwrap();
        settle();
        to_slow.write_all(&[2]).unwrap();
        to_fast.write_all(&[3]).unwrap();
        settle();
        assert_eq!(trace.taken(), ["slow 1", "fast 3"]); // and slow is not called again meanwhile
        resolver.callback(());
        settle();
        assert_eq!(trace.taken(), ["slow goes on", "slow 2"]);
    });
}

#[test]
fn a_second_reader_replaces_the_first() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "the first is dropped");
        let add = reactor().add_reader(Rc::clone(&reader), move |_| guard.0.add("first"));
        add.unwrap();
        settle();
        let t = trace.clone();
        reactor().add_reader(Rc::clone(&reader), move |r| t.add(read_one(r))).unwrap();
        settle();
        assert_eq!(trace.taken(), ["the first is dropped"]);
        writer.write_all(&[7]).unwrap();
        settle();
        assert_eq!(trace.taken(), ["7"]);
        assert!(reactor().remove_reader(&*reader));
        assert!(!reactor().remove_reader(&*reader));
        settle();
        assert_eq!(Rc::strong_count(&reader), 1, "the reactor has let go of it");
    });
}

/// Twisted: "effective at once, also for an event already polled in this iteration".
#[test]
fn a_removed_reader_is_not_called_for_an_event_that_was_seen_already() {
    run(|| {
        let (one, mut to_one) = pipe().unwrap();
        let (two, mut to_two) = pipe().unwrap();
        let (one, two) = (Rc::new(one), Rc::new(two));
        let calls = Rc::new(Cell::new(0));
        for (mine, other) in [(&one, &two), (&two, &one)] {
            let (other, calls) = (Rc::clone(other), Rc::clone(&calls));
            let add = reactor().add_reader(Rc::clone(mine), move |r| {
                calls.set(calls.get() + 1);
                read_one(r);
                assert!(reactor().remove_reader(&*other));
            });
            add.unwrap();
        }
        to_one.write_all(b"x").unwrap();
        to_two.write_all(b"x").unwrap(); // both events come from one poll
        settle();
        assert_eq!(calls.get(), 1);
        assert_eq!(reactor().remove_all(), 1);
    });
}

#[test]
fn a_reader_that_removes_itself_finishes_its_call_and_is_called_no_more() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "dropped");
        let add = reactor().add_reader(reader, move |r| {
            guard.0.add(reactor().remove_reader(r));
            yield_now();
            guard.0.add("finishes");
        });
        add.unwrap();
        writer.write_all(b"xx").unwrap();
        settle();
        assert_eq!(trace.taken(), ["true", "finishes", "dropped"]);
        assert_eq!(reactor().remove_all(), 0);
    });
}

#[test]
fn readers_and_writers_of_one_descriptor_are_two() {
    run(|| {
        let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
        let a = Rc::new(a);
        let (reads, writes) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (r, w) = (Rc::clone(&reads), Rc::clone(&writes));
        let add = reactor().add_reader(Rc::clone(&a), move |a| {
            r.set(r.get() + 1);
            assert_eq!((&**a).read(&mut [0; 8]).unwrap(), 1);
        });
        add.unwrap();
        reactor().add_writer(Rc::clone(&a), move |_| w.set(w.get() + 1)).unwrap();
        until(|| writes.get() > 2);
        assert_eq!(reads.get(), 0);
        assert!(reactor().remove_writer(&*a));
        let before = writes.get();
        (&b).write_all(b"x").unwrap();
        settle();
        assert_eq!((reads.get(), writes.get()), (1, before));
        assert_eq!(reactor().remove_all(), 1);
        (&b).write_all(b"x").unwrap();
        settle();
        assert_eq!(reads.get(), 1);
    });
}

#[test]
fn a_reader_that_panics_is_reported_once() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let (reader, mut writer) = pipe().unwrap();
            let add = reactor().add_reader(reader, |r| panic!("reader got {}", read_one(r)));
            add.unwrap();
            writer.write_all(b"AB").unwrap();
            settle();
            settle();
        });
    });
    let mine = reports.iter().filter(|report| report.contains("reader got 65")).count();
    assert_eq!(mine, 1, "{reports:?}");
}

/// The run ends although the reader would go on for ever.
#[test]
fn readers_end_with_the_run_and_give_their_sources_back() {
    let (reader, _writer) = pipe().unwrap();
    let source = Rc::new(reader);
    let kept = Rc::clone(&source);
    run(move || {
        reactor().add_reader(kept, |_| ()).unwrap();
        settle();
    });
    assert_eq!(Rc::strong_count(&source), 1);
}

// ---- stop -------------------------------------------------------------------------------------

#[test]
fn stop_ends_the_run_and_unwinds_main() {
    let trace = Trace::default();
    let t = trace.clone();
    let ended = try_run(move || {
        let _guard = Dropped(t.clone(), "main unwinds");
        reactor().call_later(SHORT, move || {
            reactor().stop();
            t.add("the caller finishes first");
        });
        sleep(LONG);
    });
    assert!(matches!(ended, Err(RunError::Stopped)));
    assert_eq!(trace.taken(), ["the caller finishes first", "main unwinds"]);
}

/// Twisted `test_stopWhenNotStarted` is an error there; here the reactor always runs.
#[test]
fn stop_before_anything_else_ends_the_run_at_mains_first_park() {
    let reached = Cell::new(false);
    let ended = try_run(|| {
        reactor().stop();
        reactor().stop();
        reached.set(true);
        yield_now();
        reached.set(false);
    });
    assert!(matches!(ended, Err(RunError::Stopped)) && reached.get());
    let value = try_run(|| {
        reactor().stop();
        7 // it never parks: its value counts
    });
    assert_eq!(value.unwrap(), 7);
    let text = panic::catch_unwind(|| {
        run(|| {
            reactor().stop();
            yield_now();
        });
    });
    let text = text.unwrap_err().downcast_ref::<String>().unwrap().clone();
    assert!(text.contains("stopped before main ended"), "{text}");
}

#[test]
fn stop_from_another_thread_wakes_a_sleeping_reactor() {
    assert_ends(|| {
        let ended = try_run(|| {
            let handle = reactor().handle();
            thread::spawn(move || {
                thread::sleep(5 * SHORT); // it sleeps by then; if not, all the same
                handle.stop().unwrap();
            });
            sleep(LONG);
        });
        assert!(matches!(ended, Err(RunError::Stopped)));
    });
}

#[test]
fn stop_kills_all_greenlets_and_run_may_be_called_again() {
    for _ in 0..3 {
        let trace = Trace::default();
        let guard = Dropped(trace.clone(), "unwound");
        let ended = try_run(move || {
            let _greenlet = spawn(move || {
                let _guard = guard;
                sleep(LONG);
            });
            yield_now();
            reactor().stop();
            sleep(LONG);
        });
        assert!(matches!(ended, Err(RunError::Stopped)));
        assert_eq!(trace.taken(), ["unwound"]);
    }
}

#[test]
fn stop_while_the_run_ends_does_nothing() {
    struct Stops;
    impl Drop for Stops {
        fn drop(&mut self) {
            reactor().stop();
        }
    }
    let ended = try_run(|| {
        let _greenlet = spawn(|| {
            let _stops = Stops;
            sleep(LONG);
        });
        yield_now();
        reactor().call_later(LONG, {
            let stops = Stops;
            move || drop(stops)
        });
        5
    });
    assert_eq!(ended.unwrap(), 5);
}

// ---- idle -------------------------------------------------------------------------------------

/// Rust peers, test 11: "idle hub makes 0 wakeups/s (may: 100/s)".
#[test]
fn an_idle_reactor_makes_no_turn() {
    [false, true].into_iter().for_each(is_idle);
}

/// Measures an idle reactor, with timers that are far away, or none.
#[track_caller]
fn is_idle(has_timers: bool) {
    const IDLE: Duration = Duration::from_millis(120);
    assert_ends(move || {
        run(|| {
            let (reader, _writer) = pipe().unwrap();
            reactor().add_reader(reader, |_| panic!("nothing is there")).unwrap();
            if has_timers {
                reactor().call_later(LONG, || ());
                drop(spawn(|| sleep(LONG)));
            }
            settle();
            let (resolver, deferred) = Deferred::new();
            RESOLVER.set(Some(resolver));
            let handle = reactor().handle();
            let thread = thread::spawn(move || {
                thread::sleep(IDLE); // the time that is measured
                handle.call_from_thread(|| RESOLVER.take().unwrap().callback("over")).unwrap();
            });
            let (begun, turns) = (Instant::now(), reactor().turns_count());
            let wakes = reactor().wakes_count();
            assert_eq!(wait_for_deferred(deferred).unwrap(), "over");
            assert!(begun.elapsed() >= IDLE / 2);
            let turns = reactor().turns_count() - turns;
            assert!(turns <= 3, "{turns} turns in {IDLE:?} without anything to do");
            assert_eq!(reactor().wakes_count() - wakes, 1);
            thread.join().unwrap();
        });
    });
}

#[test]
fn a_sleep_costs_a_few_turns_whatever_its_length() {
    run(|| {
        for wait in [Duration::from_micros(100), SHORT, 15 * SHORT] {
            let (begun, turns) = (Instant::now(), reactor().turns_count());
            sleep(wait);
            assert!(begun.elapsed() >= wait, "too early");
            let turns = reactor().turns_count() - turns;
            assert!(turns <= 4, "{turns} turns for a sleep of {wait:?}");
        }
    });
}

/// Rust peers, test 11: "always-ready echo peer does not starve timers".
#[test]
fn a_descriptor_that_is_always_ready_does_not_starve_timers_and_calls() {
    run(|| {
        let (_reader, writer) = pipe().unwrap();
        reactor().add_writer(writer, |_| ()).unwrap();
        let _spins = spawn(|| {
            loop {
                yield_now();
            }
        });
        let (resolver, deferred) = Deferred::new();
        reactor().call_later(SHORT, move || resolver.callback(1));
        let limit = Duration::from_secs(5);
        assert_eq!(wait_for_deferred_timeout(deferred, limit).unwrap(), 1);
    });
}
