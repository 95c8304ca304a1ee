//! Virtual time: what jumps, what is exact, and what must not move the clock.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read, Write},
    panic,
    rc::Rc,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::support::{Trace, assert_ends, in_a_process_of_its_own, reports_of};
use greenloop::{
    Deadline, Deferred, Failure, Resolver, RunError,
    net::{TcpListener, TcpStream},
    reactor, shield, sleep, spawn, spawn_later,
    testing::{self, JumpingClock, ManualClock},
    timeout, wait_for_deferred, wait_for_deferred_timeout, wait_for_future, wait_readable,
    yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// How long this run has lasted on its own clock.
fn elapsed() -> Duration {
    reactor().now().duration_since(Deadline::ZERO)
}

/// Two ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = spawn(move || TcpStream::connect(address).unwrap());
    (listener.accept().unwrap().0, client.join().unwrap())
}

// ---- jumps ------------------------------------------------------------------------------------

#[test]
fn a_day_of_sleeps_passes_at_once_and_to_the_nanosecond() {
    let begun = Instant::now();
    let slept = testing::run(|| {
        for _ in 0..24 * 60 {
            sleep(MINUTE);
        }
        elapsed()
    });
    assert_eq!(slept, 24 * HOUR);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// On a real clock, deadlines within 64 us of one another share a wakeup.
#[test]
fn every_sleeper_wakes_at_its_own_instant() {
    testing::run(|| {
        let woken: Rc<RefCell<Vec<Duration>>> = Rc::default();
        let waits: Vec<_> = (1..100).map(|n| Duration::from_nanos(n * n * 777)).collect();
        let sleepers = waits.iter().rev().map(|wait| {
            let (wait, woken) = (*wait, Rc::clone(&woken));
            spawn(move || {
                sleep(wait);
                woken.borrow_mut().push(elapsed());
            })
        });
        sleepers.collect::<Vec<_>>().into_iter().for_each(|sleeper| sleeper.join().unwrap());
        assert_eq!(woken.take(), waits);
    });
}

/// Each way to wait for a deadline, with what it says and when.
#[test]
fn all_that_waits_for_a_deadline_sees_it_at_its_instant() {
    fn at(expected: Duration, what: &str, f: impl FnOnce()) {
        let began = elapsed();
        f();
        assert_eq!(elapsed() - began, expected, "{what}");
    }
    testing::run(|| {
        at(HOUR, "sleep", || sleep(HOUR));
        at(HOUR, "timeout", || assert!(timeout(HOUR, || sleep(2 * HOUR)).is_err()));
        at(MINUTE, "a timeout that is not reached", || {
            timeout(HOUR, || sleep(MINUTE)).unwrap();
        });
        at(HOUR, "spawn_later", || spawn_later(HOUR, || ()).join().unwrap());
        at(HOUR, "join_timeout", || {
            assert!(spawn(|| sleep(2 * HOUR)).join_timeout(HOUR).is_err());
        });
        at(HOUR, "call_later", || {
            let (resolver, deferred) = Deferred::new();
            let call = reactor().call_later(SECOND, move || resolver.callback(()));
            call.reset(MINUTE).unwrap();
            call.delay(HOUR - MINUTE).unwrap();
            wait_for_deferred(deferred).unwrap();
        });
        at(HOUR, "wait_for_deferred_timeout", || {
            let (_resolver, deferred) = Deferred::<()>::new();
            let failure = wait_for_deferred_timeout(deferred, HOUR).unwrap_err();
            assert!(failure.is::<greenloop::Elapsed>());
        });
        at(HOUR, "a future that awaits a timer", || {
            wait_for_future(async {
                let (resolver, deferred) = Deferred::new();
                reactor().call_later(HOUR, move || resolver.callback(()));
                deferred.await.unwrap();
            });
        });
        at(HOUR, "the limit of a read", || {
            let (mut here, _there) = pair();
            here.set_read_timeout(Some(HOUR)).unwrap();
            let kind = here.read(&mut [0]).unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::TimedOut);
        });
        at(HOUR, "the deadline of a descriptor", || {
            use std::os::fd::AsFd;
            let (reader, _writer) = io::pipe().unwrap();
            let late = wait_readable(reader.as_fd(), reactor().now() + HOUR);
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        });
    });
}

/// A program of all three styles and of sockets, and who did what when.
fn traced() -> Vec<String> {
    testing::run(|| {
        let trace = Trace::default();
        let log = move |trace: &Trace, what: &str, n: u64| {
            trace.add(format_args!("{:?} {what} {n}", elapsed()));
        };
        let mut all = Vec::new();
        for n in 0..20_u64 {
            let (t, wait) = (trace.clone(), MINUTE * (n * 7 % 5) as u32);
            all.push(spawn(move || {
                sleep(wait);
                log(&t, "greenlet", n);
                let limit = SECOND * (n % 3) as u32;
                log(&t, if timeout(limit, || sleep(SECOND)).is_ok() { "slept" } else { "late" }, n);
            }));
            let (t, u) = (trace.clone(), trace.clone());
            reactor().call_later(wait, move || log(&t, "call", n));
            let (resolver, deferred) = Deferred::new();
            reactor().call_later(wait / 2, move || resolver.callback(()));
            all.push(spawn(move || {
                wait_for_future(async move {
                    deferred.await.unwrap();
                    log(&u, "future", n);
                })
            }));
        }
        let (mut here, mut there) = pair();
        let t = trace.clone();
        all.push(spawn(move || {
            let mut byte = [0];
            while here.read(&mut byte).unwrap() > 0 {
                log(&t, "byte", u64::from(byte[0]));
            }
        }));
        for n in 0..10 {
            sleep(MINUTE / 3);
            there.write_all(&[n]).unwrap();
        }
        drop(there);
        all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
        trace.taken()
    })
}

#[test]
fn the_same_program_makes_the_same_trace_each_time() {
    let first = traced();
    assert_eq!(first.len(), 20 * 4 + 10, "{first:#?}");
    for _ in 0..20 {
        assert_eq!(traced(), first);
    }
}

#[test]
fn a_clock_goes_on_where_its_last_run_left_it() {
    let clock = JumpingClock::new();
    clock.run(|| sleep(HOUR));
    clock.clone().run(|| sleep(MINUTE));
    assert_eq!(clock.run(elapsed), HOUR + MINUTE);
}

#[test]
fn time_stands_still_while_anything_runs() {
    testing::run(|| {
        spawn(|| sleep(SECOND));
        for _ in 0..10_000 {
            yield_now();
        }
        assert_eq!(elapsed(), Duration::ZERO);
    });
}

// ---- what comes from outside ------------------------------------------------------------------

/// Before each jump the poller is asked: what was written is read before any limit has passed.
#[test]
fn what_was_written_is_read_before_time_jumps() {
    testing::run(|| {
        let (mut here, mut there) = pair();
        here.set_read_timeout(Some(SECOND)).unwrap();
        let echo = spawn(move || -> io::Result<()> {
            let mut byte = [0];
            while there.read(&mut byte)? > 0 {
                there.write_all(&byte)?;
            }
            Ok(())
        });
        spawn(|| sleep(HOUR)); // always something to jump to
        for n in 0..1000_u32 {
            here.write_all(&[n as u8]).unwrap();
            let mut byte = [0];
            here.read_exact(&mut byte).unwrap();
            assert_eq!(byte[0], n as u8);
        }
        assert_eq!(elapsed(), Duration::ZERO);
        drop(here);
        echo.join().unwrap().unwrap();
    });
}

#[test]
fn an_answer_after_virtual_time_comes_within_a_longer_limit() {
    testing::run(|| {
        let (mut here, mut there) = pair();
        here.set_read_timeout(Some(HOUR)).unwrap();
        spawn(move || {
            sleep(HOUR - SECOND);
            there.write_all(b"!").unwrap();
        });
        here.read_exact(&mut [0]).unwrap();
        assert_eq!(elapsed(), HOUR - SECOND);
    });
}

/// A lookup is made by an OS thread, in its own time, which is none here.
#[test]
fn a_name_lookup_takes_no_virtual_time() {
    JumpingClock::new().patience(Duration::ZERO).run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // More than once: the first park at a place takes long in a debug build.
        for _ in 0..3 {
            let connect = || TcpStream::connect(("localhost", port));
            let connected = timeout(Duration::from_nanos(1), connect);
            assert!(connected.expect("time has passed").is_ok());
        }
        assert_eq!(elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_handle_that_another_thread_keeps_does_not_hold_up_time() {
    assert_ends(|| {
        let (tell, told) = mpsc::channel::<()>();
        JumpingClock::new().patience(Duration::ZERO).run(|| {
            let handle = reactor().handle();
            let thread = thread::spawn(move || {
                let _ = told.recv();
                drop(handle);
            });
            sleep(HOUR);
            assert_eq!(elapsed(), HOUR);
            drop(tell);
            thread.join().unwrap();
        });
    });
}

#[test]
fn patience_lets_another_thread_answer_within_a_limit() {
    JumpingClock::new().patience(MINUTE).run(|| {
        thread_local!(static SLOT: Cell<Option<Resolver<u32>>> = const { Cell::new(None) });
        let (resolver, deferred) = Deferred::new();
        SLOT.set(Some(resolver));
        let handle = reactor().handle();
        thread::spawn(move || {
            let fire = || SLOT.take().unwrap().callback(42);
            handle.call_from_thread(fire).unwrap();
        });
        assert_eq!(wait_for_deferred_timeout(deferred, SECOND).unwrap(), 42);
        assert_eq!(elapsed(), Duration::ZERO);
    });
}

// ---- nothing to jump to -----------------------------------------------------------------------

#[test]
fn a_main_greenlet_that_nothing_can_wake_is_told_so_when_no_deadline_is_left() {
    let ended = testing::try_run(|| {
        spawn(|| sleep(HOUR));
        let (_resolver, deferred) = Deferred::<()>::new();
        wait_for_deferred(deferred).map_err(drop)
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    assert_eq!(report.parked().len(), 1, "the sleeper had its hour: {report}");
    assert_eq!(report.parked()[0].since, HOUR);
}

#[test]
fn by_hand_a_main_greenlet_that_sleeps_is_told_that_nobody_can_wake_it() {
    let clock = ManualClock::new();
    let ended =
        assert_ends(|| ManualClock::new().try_run(|| sleep(SECOND)).map_err(|e| e.to_string()));
    let text = ended.unwrap_err();
    assert!(text.contains("a timer (sleep)"), "{text}");
    // While somebody can advance the clock, it is no such wait.
    let helper = clock.clone();
    clock.run(move || {
        spawn(move || helper.advance(SECOND));
        sleep(SECOND);
        assert_eq!(elapsed(), SECOND);
    });
}

// ---- what is not part of the program ----------------------------------------------------------

#[test]
fn trimming_idle_stacks_makes_no_turns_in_virtual_time() {
    testing::run(|| {
        (0..9000).map(|_| spawn(yield_now)).collect::<Vec<_>>().into_iter().for_each(|greenlet| {
            greenlet.join().unwrap();
        });
        let turns = reactor().turns_count();
        sleep(HOUR);
        let turns = reactor().turns_count() - turns;
        assert!(turns <= 2, "{turns} turns for one sleep");
        assert_eq!(elapsed(), HOUR);
    });
}

/// The shutdown deadline counts virtual time that somebody sleeps.
#[test]
fn a_destructor_may_sleep_for_less_than_the_shutdown_deadline() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(9 * SECOND);
        }
    }
    let clock = JumpingClock::new();
    let guard = Sleeps;
    clock.run(|| {
        spawn(move || {
            let _guard = guard;
            sleep(HOUR);
        });
        yield_now();
    });
    let now = clock.now();
    assert_eq!(now, Deadline::ZERO + 9 * SECOND);
}

/// Nobody sleeps, somebody waits for the world: the deadline must not come at once.
#[test]
fn the_shutdown_deadline_is_no_time_to_jump_to() {
    const NAME: &str = "testing::the_shutdown_deadline_is_no_time_to_jump_to";
    struct Reads(TcpStream, mpsc::Sender<()>);
    impl Drop for Reads {
        fn drop(&mut self) {
            self.1.send(()).unwrap();
            self.0.read_exact(&mut [0]).unwrap();
        }
    }
    in_a_process_of_its_own(NAME, || {
        JumpingClock::new().patience(Duration::ZERO).run(|| {
            let (here, there) = pair();
            let (tell, told) = mpsc::channel();
            thread::spawn(move || {
                told.recv().unwrap();
                (0..10_000).for_each(|_| thread::yield_now()); // the world is slow
                std::net::TcpStream::from(std::os::fd::OwnedFd::from(there)).write_all(b"!")
            });
            spawn(move || {
                let _guard = Reads(here, tell);
                sleep(HOUR);
            });
            yield_now();
        });
    });
}

#[test]
fn by_hand_what_is_killed_at_the_end_may_sleep_in_its_destructor() {
    struct Sleeps;
    impl Drop for Sleeps {
        fn drop(&mut self) {
            sleep(SECOND);
        }
    }
    assert_ends(|| {
        let clock = ManualClock::new();
        clock.run(|| {
            spawn(|| {
                let _guard = Sleeps;
                sleep(HOUR);
            });
            clock.advance(MINUTE);
        });
        assert_eq!(clock.now(), Deadline::ZERO + MINUTE + SECOND);
    });
}

/// The process was aborted, and a test that had failed with it.
#[test]
fn by_hand_a_main_greenlet_that_unwinds_may_sleep_in_its_destructors() {
    struct Sleeps(ManualClock);
    impl Drop for Sleeps {
        fn drop(&mut self) {
            let before = self.0.now();
            sleep(SECOND);
            assert_eq!(self.0.now(), before + SECOND);
        }
    }
    in_a_process_of_its_own(
        "testing::by_hand_a_main_greenlet_that_unwinds_may_sleep_in_its_destructors",
        || {
            let clock = ManualClock::new();
            let told = clock.try_run(|| {
                let _guard = Sleeps(clock.clone());
                sleep(HOUR);
            });
            assert!(matches!(told, Err(RunError::WouldBlockForever(_))), "{told:?}");
            let told = clock.try_run(|| {
                shield(|| sleep(HOUR));
                sleep(HOUR);
            });
            assert!(matches!(told, Err(RunError::WouldBlockForever(_))), "{told:?}");
            let begun = clock.now();
            let failed = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                clock.run(|| {
                    let _guard = Sleeps(clock.clone());
                    panic!("a test that fails");
                });
            }));
            let payload = failed.unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"a test that fails"));
            assert_eq!(clock.now(), begun + SECOND);
        },
    );
}

// ---- by hand ----------------------------------------------------------------------------------

/// Twisted `ClockTests.test_seconds`, `test_advance`, `test_advanceCancel`.
#[test]
fn advance_sets_the_time_first_and_then_runs_what_is_due_in_order() {
    let clock = ManualClock::new();
    clock.run(|| {
        let trace = Trace::default();
        for seconds in [3, 1, 2, 5] {
            let t = trace.clone();
            reactor().call_later(seconds * SECOND, move || {
                t.add(format!("{seconds} at {:?}", elapsed()))
            });
        }
        let cancelled = reactor().call_later(SECOND, trace.adds("cancelled"));
        cancelled.cancel().unwrap();
        assert_eq!(elapsed(), Duration::ZERO);
        clock.advance(4 * SECOND);
        assert_eq!(trace.taken(), ["1 at 4s", "2 at 4s", "3 at 4s"]);
        clock.advance(SECOND);
        assert_eq!(trace.taken(), ["5 at 5s"]);
    });
}

/// Twisted `ClockTests.test_callLaterKeepsCallsOrdered`, `test_callLaterResortingNested`.
#[test]
fn advance_runs_what_is_added_meanwhile_when_that_is_due_too() {
    let clock = ManualClock::new();
    clock.run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        reactor().call_later(SECOND, move || {
            t.add("first");
            reactor().call_later(Duration::ZERO, t.adds("nested"));
            reactor().call_later(Duration::from_nanos(1), t.adds("not yet"));
        });
        reactor().call_later(SECOND, trace.adds("second"));
        clock.advance(2 * SECOND);
        assert_eq!(trace.taken(), ["first", "second", "nested"]);
        clock.advance(Duration::from_nanos(1));
        assert_eq!(trace.taken(), ["not yet"]);
    });
}

/// Twisted `ClockTests.test_pump`; and `advance` outside of its turn.
#[test]
fn pump_advances_step_by_step_and_greenlets_go_as_far_as_each_lets_them() {
    let clock = ManualClock::new();
    clock.run(|| {
        let trace = Trace::default();
        let t = trace.clone();
        spawn(move || {
            loop {
                sleep(SECOND);
                t.add(format!("{:?}", elapsed()));
            }
        });
        testing::settle(); // it sleeps from now on
        clock.pump([SECOND / 2; 5]);
        assert_eq!(trace.taken(), ["1s", "2s"]);
        clock.advance(10 * SECOND);
        // One sleep has ended; the next begins now.
        assert_eq!(trace.taken(), ["12.5s"]);
    });
}

/// Twisted: an exception propagates out of `advance`, and the rest stays pending.
#[test]
fn a_call_that_panics_is_reported_and_the_rest_of_the_step_still_runs() {
    let clock = ManualClock::new();
    let (_, reports) = reports_of(|| {
        clock.run(|| {
            let trace = Trace::default();
            reactor().call_later(SECOND, || panic!("in a call"));
            reactor().call_later(2 * SECOND, trace.adds("next"));
            clock.advance(2 * SECOND);
            assert_eq!(trace.taken(), ["next"]);
        });
    });
    assert!(reports.len() == 1 && reports[0].contains("in a call"), "{reports:?}");
}

#[test]
fn by_hand_time_does_not_jump_however_long_the_wait() {
    let clock = ManualClock::new();
    clock.run(|| {
        let (mut here, mut there) = pair();
        here.set_read_timeout(Some(SECOND)).unwrap();
        let reader = spawn(move || here.read(&mut [0]).map_err(|error| error.kind()));
        clock.advance(SECOND - Duration::from_nanos(1));
        assert!(!reader.is_finished());
        there.write_all(b"!").unwrap();
        assert_eq!(reader.join().unwrap(), Ok(1));
    });
}

#[test]
fn advance_notices_a_kill_and_any_greenlet_may_advance() {
    let clock = ManualClock::new();
    clock.run(|| {
        let own = clock.clone();
        let helper = spawn(move || {
            greenloop::current().kill();
            own.advance(SECOND);
        });
        assert!(helper.join().unwrap_err().is_killed());
        let own = clock.clone();
        spawn(move || own.advance(MINUTE)).join().unwrap();
        clock.advance(SECOND);
        assert_eq!(elapsed(), MINUTE + 2 * SECOND, "who is killed in it has set the time");
    });
}

// ---- settle -----------------------------------------------------------------------------------

#[test]
fn settle_waits_for_all_that_can_run_and_for_what_has_arrived() {
    testing::run(|| {
        let trace = Trace::default();
        let (mut here, mut there) = pair();
        let t = trace.clone();
        spawn(move || {
            here.read_exact(&mut [0]).unwrap();
            (0..300).for_each(|_| yield_now());
            t.add("read");
            sleep(SECOND);
            t.add("slept");
        });
        reactor().call_when_running(trace.adds("called"));
        there.write_all(b"!").unwrap();
        testing::settle();
        let mut seen = trace.taken();
        seen.sort();
        assert_eq!(seen, ["called", "read"]);
        assert_eq!(elapsed(), Duration::ZERO);
    });
}

#[test]
fn settle_and_advance_wait_for_an_answer_that_an_os_thread_owes() {
    assert_ends(|| {
        let clock = ManualClock::new();
        clock.run(|| {
            let waits: [&dyn Fn(); 2] = [&testing::settle, &|| clock.advance(SECOND)];
            for wait in waits {
                let lookup = spawn(|| TcpListener::bind(("localhost", 0)).is_ok());
                wait();
                assert!(lookup.is_finished());
                assert!(lookup.join().unwrap());
            }
        });
    });
}

#[test]
fn several_who_settle_are_woken_in_the_order_of_their_coming() {
    greenloop::run(|| {
        let trace = Trace::default();
        let all: Vec<_> = (1..4)
            .map(|n| {
                let t = trace.clone();
                spawn(move || {
                    testing::settle();
                    t.add(n);
                })
            })
            .collect();
        all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
        assert_eq!(trace.taken(), ["1", "2", "3"]);
    });
}

#[test]
fn settle_notices_a_kill_and_leaves_nothing_behind() {
    testing::run(|| {
        let settler = spawn(testing::settle);
        yield_now();
        settler.kill();
        assert!(settler.join().unwrap_err().is_killed());
        testing::settle();
    });
}

#[test]
#[should_panic(expected = "testing::settle: called outside a reactor")]
fn settle_outside_a_run_says_so() {
    testing::settle();
}

#[test]
#[should_panic(expected = "greenloop::testing: the reactor was stopped")]
fn a_virtual_run_without_a_value_panics_with_its_reason() {
    testing::run(|| {
        reactor().stop();
        sleep(HOUR);
    });
}

/// `Failure` and `?` as in any run; the value comes out.
#[test]
fn a_virtual_run_returns_what_main_returns() {
    let value: Result<u32, Failure> = testing::run(|| wait_for_deferred(Deferred::succeed(42)));
    assert_eq!(value.ok(), Some(42));
}
