//! Waiting for the first of several: which one wins, what becomes of the others, and how it ends.

use std::{
    cell::{Cell, RefCell},
    future::{Future, IntoFuture, pending, poll_fn, ready},
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use greenloop::{
    Deferred, Elapsed, RunError, deadline, is_kill, net, reactor, run, scope, select, select_all,
    select_all_timeout, shield, sleep, sleep_async, sleep_until_async, spawn,
    sync::{Event, Mutex, OnceCell, Semaphore, channel},
    testing, timeout, try_run, try_select_all, wait_for_deferred, wait_for_future,
    wait_for_future_timeout, wait_readable_async, wait_writable_async, yield_now,
};

use crate::support::{Dropped, Trace, assert_ends, reports_of};

const MOMENT: Duration = Duration::from_millis(1);
const AGES: Duration = Duration::from_secs(3600);

/// G17: whatever can be waited for can be in one set.
#[test]
fn any_mix_of_waitables_may_be_the_arms_and_each_can_win() {
    let winner_of = |which: &'static str| {
        testing::run(move || {
            let (sender, receiver) = channel::<u32>(1);
            let (full, _kept) = channel::<u32>(1);
            full.send(0).unwrap();
            let (event, lock, permits) = (Event::new(), Mutex::new(5), Semaphore::new(0));
            let cell = OnceCell::new();
            let held = Cell::new(Some(lock.lock().unwrap()));
            let (resolver, deferred) = Deferred::<u32>::new();
            let resolver = Cell::new(Some(resolver));
            let (ours, theirs) = UnixStream::pair().unwrap();
            let g = spawn(|| sleep(AGES));
            let g_ref = g.as_ref();
            let time = if which == "a time" { MOMENT } else { AGES };
            scope(|s| {
                s.spawn(|| match which {
                    "a channel" => sender.send(1).unwrap(),
                    "room in a channel" => assert_eq!(_kept.recv(), Ok(0)),
                    "an event" => event.set(),
                    "a lock" => drop(held.take()),
                    "permits" => permits.add_permits(1),
                    "a cell" => cell.set(7).unwrap(),
                    "a greenlet" => g_ref.kill(),
                    "a Deferred" => resolver.take().unwrap().callback(3),
                    "a descriptor" => (&theirs).write_all(b"x").unwrap(),
                    _ => {}
                });
                select! {
                    value = receiver.recv_async() => {
                        assert_eq!(value, Ok(1));
                        "a channel"
                    }
                    sent = full.send_async(1) => {
                        assert_eq!(sent, Ok(()));
                        "room in a channel"
                    }
                    () = event.wait_async() => "an event",
                    guard = lock.lock_async() => if *guard.unwrap() == 5 { "a lock" } else { "" },
                    permit = permits.acquire_async(1) => {
                        assert_eq!(permit.count(), 1);
                        "permits"
                    },
                    value = cell.wait_async() => if *value == 7 { "a cell" } else { "" },
                    ended = g => if ended.unwrap_err().is_killed() { "a greenlet" } else { "" },
                    fired = deferred => if fired.is_ok_and(|n| n == 3) { "a Deferred" } else { "" },
                    () = sleep_async(time) => "a time",
                    readable = wait_readable_async(ours.as_fd()) => {
                        readable.unwrap();
                        "a descriptor"
                    }
                }
            })
        })
    };
    for which in [
        "a channel",
        "room in a channel",
        "an event",
        "a lock",
        "permits",
        "a cell",
        "a greenlet",
        "a Deferred",
        "a time",
        "a descriptor",
    ] {
        assert_eq!(winner_of(which), which);
    }
}

#[test]
fn the_first_that_is_ready_in_the_written_order_wins_each_time() {
    run(|| {
        for _ in 0..10 {
            let first = select! {
                () = pending() => 0,
                n = ready(1) => n,
                n = ready(2) => n,
            };
            assert_eq!(first, 1);
        }
        // Both come while it waits: still the written order, not that of their coming.
        let (early, late) = (Event::new(), Event::new());
        scope(|s| {
            s.spawn(|| {
                early.set();
                late.set();
            });
            let won = select! {
                () = late.wait_async() => "late",
                () = early.wait_async() => "early",
            };
            assert_eq!(won, "late");
        });
    });
}

/// Q1: an item that was handed to a waiter that did not take it is not lost.
#[test]
fn what_a_loser_was_handed_goes_to_the_next_in_order() {
    run(|| {
        let (sender, receiver) = channel(0);
        let won = Event::new();
        scope(|s| {
            let g = s.spawn(|| {
                select! {
                    () = won.wait_async() => "event",
                    n = receiver.recv_async() => panic!("{n:?}"),
                }
            });
            yield_now();
            sender.send(1).unwrap(); // It is handed over: the receiver waits.
            won.set();
            assert_eq!(g.join().unwrap(), "event");
            assert_eq!(receiver.recv(), Ok(1));
        });
        let permits = Semaphore::new(0);
        scope(|s| {
            let g = s.spawn(|| {
                select! {
                    () = won.wait_async() => {}
                    _permit = permits.acquire_async(1) => unreachable!(),
                }
            });
            permits.add_permits(1);
            g.join().unwrap();
        });
        assert_eq!(permits.available_permits(), 1);
    });
}

#[test]
fn losers_leave_their_lines_before_the_body_runs() {
    run(|| {
        let trace = Trace::default();
        let lock = Mutex::new(1);
        let guard = lock.lock().unwrap();
        let loser = Dropped(trace.clone(), "the loser is dropped");
        let loses = async {
            let _held = &loser;
            let _guard = lock.lock_async().await;
        };
        let mut text = String::from("borrowed");
        let changes = async {
            let _ = &mut text;
            pending::<()>().await;
        };
        select! {
            () = loses => unreachable!(),
            () = changes => unreachable!(),
            () = ready(()) => {
                text.push_str(" again");
                drop(guard);
                assert!(lock.try_lock().is_ok(), "nobody is in line");
            }
        }
        let owned = Dropped(trace.clone(), "owned by the loser");
        select! {
            () = async move { let _owned = owned; pending().await } => {}
            () = ready(()) => trace.add("body"),
        }
        assert_eq!(trace.taken(), ["owned by the loser", "body"]);
    });
}

#[test]
fn a_deferred_that_loses_is_cancelled_unless_it_is_passed_by_reference() {
    run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        select! {
            _fired = deferred => unreachable!(),
            () = ready(()) => {}
        }
        assert!(resolver.is_cancelled());
        let (resolver, deferred) = Deferred::<u32>::new();
        let mut future = deferred.into_future();
        select! {
            _fired = &mut future => unreachable!(),
            () = ready(()) => {}
        }
        assert!(!resolver.is_cancelled());
        resolver.callback(4);
        assert_eq!(wait_for_future(future).ok(), Some(4));
    });
}

#[test]
fn a_greenlet_that_loses_goes_on_and_one_by_reference_can_be_waited_for_again() {
    testing::run(|| {
        let seen = Trace::default();
        let sees = seen.clone();
        select! {
            _ended = spawn(move || { sleep(MOMENT); sees.add("detached") }) => unreachable!(),
            () = ready(()) => {}
        }
        let mut job = spawn(|| {
            sleep(3 * MOMENT);
            9
        })
        .into_future();
        let mut rounds = 0;
        let value = loop {
            rounds += 1;
            select! {
                ended = &mut job => break ended.unwrap(),
                default(2 * MOMENT) => {}
            }
        };
        assert_eq!((value, rounds, seen.taken().len()), (9, 2, 1));
    });
}

#[test]
fn bodies_return_break_continue_and_ask_as_where_they_stand() {
    fn answer(deferred: Deferred<u32>) -> Result<u32, greenloop::Failure> {
        select! {
            fired = deferred => {
                let n = fired?;
                return Ok(n + 1);
            }
            () = sleep_async(AGES) => {}
        }
        unreachable!()
    }
    testing::run(|| {
        assert_eq!(answer(Deferred::succeed(1)).ok(), Some(2));
        let failed = answer(Deferred::fail(io::Error::other("asked")));
        assert_eq!(failed.unwrap_err().to_string(), "asked");
        let (mut left, mut odd) = (5, Vec::new());
        let last = 'outer: loop {
            for _ in 0..10 {
                select! {
                    n = ready(left) => match n {
                        0 => break 'outer n,
                        n => {
                            left -= 1;
                            if n % 2 == 0 {
                                continue;
                            }
                            odd.push(n);
                        }
                    },
                }
            }
        };
        assert_eq!((last, odd), (0, vec![5, 3, 1]));
    });
}

/// Every form of the grammar, with and without commas.
#[test]
fn patterns_blocks_commas_conditions_and_values_are_taken_as_in_a_match() {
    run(|| {
        let pair = select! { (a, _) = ready((1, 2)) => a };
        let block = select! { n = ready(3) => { n } };
        let two = select! {
            Point { x, .. } = ready(Point { x: 4, _y: 0 }) => { x }
            _ = pending::<()>() => 0
        };
        let disabled = select! {
            n = ready(5), if pair == 2 => n,
            n = ready(6), if pair == 1 => n,
            default => 7,
        };
        let mut sum = 0;
        select! {
            mut n = ready(8) => { n += 1; sum += n },
            default => {}
        }
        let temporary = select! { n = channel_with(9).1.recv_async() => n };
        assert_eq!((pair, block, two, disabled, sum, temporary), (1, 3, 4, 6, 9, Ok(9)));
    });
    struct Point {
        x: u32,
        _y: u32,
    }
    fn channel_with(n: u32) -> (greenloop::sync::Sender<u32>, greenloop::sync::Receiver<u32>) {
        let (sender, receiver) = channel(1);
        sender.send(n).unwrap();
        (sender, receiver)
    }
}

#[test]
fn a_default_never_waits() {
    run(|| {
        let (sender, receiver) = channel(1);
        let other = Rc::new(Cell::new(false));
        let ran = Rc::clone(&other);
        spawn(move || ran.set(true));
        let poll = || {
            select! {
                n = receiver.recv_async() => n.ok(),
                default => None,
            }
        };
        assert_eq!(poll(), None);
        sender.try_send(1).unwrap();
        assert_eq!(poll(), Some(1));
        assert!(!other.get(), "nobody else has run");
        select! { default => {} }
    });
}

#[test]
fn a_default_with_a_time_comes_when_the_time_is_over() {
    testing::run(|| {
        let begin = reactor().now();
        let (_sender, receiver) = channel::<u32>(1);
        let late = select! {
            _n = receiver.recv_async() => false,
            default(AGES) => true,
        };
        assert!(late);
        assert_eq!(reactor().now().duration_since(begin), AGES);
        let at = reactor().now() + MOMENT;
        select! {
            () = sleep_until_async(at + MOMENT) => unreachable!(),
            () = sleep_until_async(at) => {}
        }
        assert_eq!(reactor().now(), at);
    });
}

#[test]
fn with_no_arm_enabled_it_panics_instead_of_waiting_for_ever() {
    run(|| {
        let on = false;
        let refused = catch_unwind(|| {
            select! { () = pending(), if on => {} }
        });
        let text = *refused.unwrap_err().downcast::<&'static str>().unwrap();
        assert!(text.contains("no arm is enabled"), "{text}");
    });
}

#[test]
fn where_nothing_can_be_suspended_it_says_what_to_do() {
    let refused = catch_unwind(|| select! { n = ready(1) => n }).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("select!: called outside"));
}

#[test]
fn a_kill_leaves_every_line_and_takes_nothing() {
    run(|| {
        let (sender, receiver) = channel::<u32>(1);
        let (receiver, event) = (Rc::new(receiver), Rc::new(Event::new()));
        let (fds, _other) = UnixStream::pair().unwrap();
        let (resolver, deferred) = Deferred::<u32>::new();
        let (r, e) = (Rc::clone(&receiver), Rc::clone(&event));
        let g = spawn(move || {
            select! {
                n = r.recv_async() => n.unwrap(),
                () = e.wait_async() => 0,
                ready = wait_readable_async(fds.as_fd()) => ready.map(|()| 0).unwrap(),
                n = deferred => n.unwrap(),
                () = sleep_async(AGES) => 0,
            }
        });
        yield_now();
        assert!(format!("{receiver:?}{event:?}").matches("waiting: 1").count() == 2);
        g.kill();
        // It was handed a value after the kill, before it ran: the kill counts.
        sender.send(5).unwrap();
        assert!(g.join().unwrap_err().is_killed());
        assert!(format!("{receiver:?}{event:?}").matches("waiting: 0").count() == 2);
        assert!(resolver.is_cancelled());
        assert_eq!(receiver.try_recv(), Ok(5));
        assert_eq!(Rc::strong_count(&receiver), 1);
    });
    // Neither timer nor descriptor is waited for any more: main's wait is known to be for ever.
    let waited = waits_for_ever_after(|| {
        let (fds, _other) = UnixStream::pair().unwrap();
        let g = spawn(move || {
            select! {
                ready = wait_writable_async(fds.as_fd()), if false => ready.unwrap(),
                ready = wait_readable_async(fds.as_fd()) => ready.unwrap(),
                () = sleep_async(AGES) => {}
            }
        });
        yield_now();
        g.kill();
        let _ = g.join();
    });
    assert_eq!(waited, Duration::ZERO);
}

/// Has main wait for what never comes after `f`; how long it did until that was known.
fn waits_for_ever_after(f: impl FnOnce()) -> Duration {
    let ended = testing::try_run(|| {
        f();
        let (_resolver, deferred) = Deferred::<()>::new();
        wait_for_deferred(deferred)
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    report.parked()[0].since
}

#[test]
fn a_timeout_around_it_leaves_every_line_and_says_elapsed() {
    testing::run(|| {
        let lock = Mutex::new(());
        let guard = lock.lock().unwrap();
        let late = timeout(MOMENT, || {
            select! {
                _guard = lock.lock_async() => false,
                () = sleep_async(AGES) => false,
            }
        });
        assert!(late.is_err());
        drop(guard);
        assert!(lock.try_lock().is_ok());
    });
}

#[test]
fn a_shield_lets_it_wait_on_and_the_kill_comes_afterwards() {
    testing::run(|| {
        let seen = Trace::default();
        let sees = seen.clone();
        let g = spawn(move || {
            shield(|| {
                select! {
                    () = pending() => {}
                    () = sleep_async(MOMENT) => sees.add("slept"),
                }
            });
            yield_now();
            unreachable!()
        });
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(seen.taken(), ["slept"]);
    });
}

#[test]
fn an_arm_that_panics_drops_the_others_and_the_panic_goes_on() {
    run(|| {
        let event = Event::new();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            select! {
                () = event.wait_async() => {}
                () = async { panic!("in an arm") } => {}
            }
        }));
        let payload = panicked.unwrap_err();
        assert!(!is_kill(&*payload));
        assert_eq!(payload.downcast_ref(), Some(&"in an arm"));
        assert!(format!("{event:?}").contains("waiting: 0"));
        // One that fails to be made drops those that were made before it.
        let made = Rc::new(());
        let held = Rc::clone(&made);
        let failed = catch_unwind(AssertUnwindSafe(|| {
            select! {
                () = async move { drop(held); pending().await } => {}
                () = unmade() => {}
            }
        }));
        assert!(failed.is_err());
        assert_eq!(Rc::strong_count(&made), 1);
    });
    fn unmade() -> std::future::Ready<()> {
        panic!("it is not made")
    }
}

#[test]
fn another_thread_may_end_it() {
    assert_ends(|| {
        run(|| {
            let (sender, receiver) = channel(0);
            let event = Arc::new(Event::new());
            let setter = Arc::clone(&event);
            let thread = thread::spawn(move || {
                sender.send(1).unwrap();
                setter.set();
            });
            let mut left = (true, true);
            while left.0 || left.1 {
                select! {
                    n = receiver.recv_async(), if left.0 => {
                        assert_eq!(n, Ok(1));
                        left.0 = false;
                    }
                    () = event.wait_async(), if left.1 => left.1 = false,
                }
            }
            thread.join().unwrap();
        });
    });
}

#[test]
fn main_is_told_when_nothing_can_end_it() {
    let ended = try_run(|| {
        let (_resolver, deferred) = Deferred::<()>::new();
        select! {
            _fired = deferred => {}
            () = pending() => {}
        }
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    assert_eq!(report.parked()[0].waits_on, "the first of several (select!)");
}

#[test]
fn sockets_are_read_and_accepted_from_by_arms() {
    run(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = spawn(move || {
            let mut stream = net::TcpStream::connect(address).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut end = Vec::new();
            stream.read_to_end(&mut end).unwrap()
        });
        select! {
            ready = wait_readable_async(listener.as_fd()) => ready.unwrap(),
            default(AGES) => unreachable!(),
        }
        let (mut stream, _) = listener.accept_timeout(Duration::ZERO).unwrap();
        let mut buf = [0; 16];
        let read = select! {
            read = poll_fn(|cx| stream.poll_read(cx, &mut buf)) => read.unwrap(),
            default(AGES) => 0,
        };
        assert_eq!(&buf[..read], b"hello");
        drop(stream);
        assert_eq!(client.join().unwrap(), 0);
    });
}

/// Each registration of a descriptor asks the poller anew: none takes another's event.
#[test]
fn futures_and_greenlets_that_wait_for_one_descriptor_all_go_on() {
    run(|| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let seen = Cell::new(0);
        scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    select! {
                        ready = wait_readable_async(ours.as_fd()) => ready.unwrap(),
                        () = pending() => {}
                    }
                    seen.set(seen.get() + 1);
                });
            }
            s.spawn(|| {
                greenloop::wait_readable(ours.as_fd(), deadline()).unwrap();
                seen.set(seen.get() + 1);
            });
            yield_now();
            assert_eq!(seen.get(), 0);
            (&theirs).write_all(b"x").unwrap();
        });
        assert_eq!(seen.get(), 4);
        wait_for_future(wait_writable_async(ours.as_fd())).unwrap();
        let file = std::fs::File::open("Cargo.toml").unwrap();
        let refused = wait_for_future(wait_readable_async(file.as_fd())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn timers_of_arms_that_lose_are_removed() {
    let waited = waits_for_ever_after(|| {
        let begin = reactor().now();
        for _ in 0..3 {
            select! {
                () = ready(()) => {}
                default(AGES) => unreachable!(),
            }
            select! {
                () = sleep_async(AGES) => unreachable!(),
                () = sleep_async(MOMENT) => {}
            }
        }
        assert_eq!(reactor().now().duration_since(begin), 3 * MOMENT);
    });
    assert_eq!(waited, Duration::ZERO, "no timer was left to wait for");
}

#[test]
fn an_arm_that_parks_while_it_is_polled_delays_only_its_own_select() {
    testing::run(|| {
        let seen = Trace::default();
        let sees = seen.clone();
        let g = spawn(move || {
            select! {
                () = async { sleep(2 * MOMENT) } => sees.add("parked in its poll"),
                () = sleep_async(MOMENT) => sees.add("time"),
            }
        });
        let other = seen.clone();
        spawn(move || {
            sleep(MOMENT);
            other.add("another");
        });
        g.join().unwrap();
        assert_eq!(seen.taken(), ["another", "parked in its poll"]);
    });
}

#[test]
fn selects_nest_in_arms_and_in_bodies() {
    run(|| {
        let n = select! {
            n = async { select! { n = ready(1) => n + 1 } } => select! {
                m = ready(10) => n + m,
            },
            default => 0,
        };
        assert_eq!(n, 12);
    });
}

/// A waker that outlives its select is spent: it neither wakes a later one nor is used by it.
#[test]
fn a_waker_that_somebody_keeps_does_not_wake_a_later_wait() {
    testing::run(|| {
        let kept = RefCell::new(None);
        let keeps = poll_fn(|cx| {
            *kept.borrow_mut() = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        select! {
            () = keeps => {}
            () = ready(()) => {}
        }
        let polls = Cell::new(0);
        let counts = poll_fn(|_| {
            polls.set(polls.get() + 1);
            Poll::<()>::Pending
        });
        scope(|s| {
            s.spawn(|| kept.take().unwrap().wake());
            select! {
                () = counts => {}
                () = sleep_async(MOMENT) => {}
            }
        });
        assert_eq!(polls.get(), 2, "at the beginning and at the end");
    });
}

type Any<'a> = Pin<Box<dyn Future<Output = &'static str> + 'a>>;

#[test]
fn a_set_of_any_size_is_waited_for_one_by_one() {
    testing::run(|| {
        let event = Event::new();
        let sleeps = |n: u32, name| -> Any<'_> {
            Box::pin(async move {
                sleep_async(n * MOMENT).await;
                name
            })
        };
        let mut set: Vec<Any<'_>> = vec![sleeps(3, "c"), sleeps(1, "a"), sleeps(2, "b")];
        set.push(Box::pin(async {
            event.wait_async().await;
            "event"
        }));
        assert_eq!(try_select_all(&mut set), None);
        assert_eq!(select_all_timeout(&mut set, Duration::ZERO).unwrap_err(), elapsed());
        let mut order = Vec::new();
        while let Some((index, name)) = select_all(&mut set) {
            drop(set.remove(index));
            order.push(name);
            if name == "b" {
                event.set();
            }
        }
        assert_eq!(order, ["a", "b", "event", "c"]);
        assert_eq!(select_all_timeout(&mut set, MOMENT), Ok(None));
        assert_eq!(try_select_all(&mut set), None);
    });
}

fn elapsed() -> Elapsed {
    timeout(Duration::ZERO, yield_now).unwrap_err()
}

#[test]
fn the_first_of_a_set_that_is_ready_wins_and_the_others_stay() {
    run(|| {
        let (sender, receiver) = channel(4);
        for n in 0..3 {
            sender.send(n).unwrap();
        }
        let mut set = vec![receiver.recv_async(), receiver.recv_async()];
        assert_eq!(select_all(&mut set), Some((0, Ok(0))));
        drop(set.remove(0));
        assert_eq!(select_all_timeout(&mut set, AGES), Ok(Some((0, Ok(1)))));
        assert_eq!(receiver.recv(), Ok(2), "the second had taken nothing");
    });
}

#[test]
fn a_kill_in_a_select_of_a_set_unwinds_and_the_set_is_its_owners() {
    run(|| {
        let g = spawn(|| {
            let event = Event::new();
            let mut set = vec![event.wait_async(), event.wait_async()];
            let killed = catch_unwind(AssertUnwindSafe(|| select_all(&mut set)));
            assert!(is_kill(&*killed.unwrap_err()));
            event.set();
            shield(|| select_all(&mut set).map(|(index, ())| index))
        });
        yield_now();
        g.kill();
        assert_eq!(g.join().unwrap(), Some(0));
    });
}

#[test]
fn a_future_is_waited_for_up_to_a_limit() {
    testing::run(|| {
        assert_eq!(wait_for_future_timeout(ready(1), Duration::ZERO), Ok(1), "ready counts");
        let begin = reactor().now();
        let mut slow = sleep_async(3 * MOMENT);
        assert!(wait_for_future_timeout(&mut slow, MOMENT).is_err());
        assert_eq!(reactor().now().duration_since(begin), MOMENT);
        assert_eq!(wait_for_future_timeout(slow, AGES), Ok(()));
        assert_eq!(reactor().now().duration_since(begin), 3 * MOMENT);
    });
}

/// A stream of values and a ticker, for long: nothing is lost, nothing piles up.
#[test]
fn many_steps_of_select_lose_nothing_and_pile_nothing_up() {
    let ((), reports) = reports_of(|| {
        run(|| {
            let (sender, receiver) = channel(8);
            let producer = spawn(move || {
                for n in 0..20_000_u32 {
                    sender.send(n).unwrap();
                }
            });
            let (mut next, stop) = (0, Event::new());
            loop {
                select! {
                    () = stop.wait_async() => unreachable!(),
                    n = receiver.recv_async() => match n {
                        Ok(n) => {
                            assert_eq!(n, next);
                            next += 1;
                        }
                        Err(_) => break,
                    },
                    default(AGES) => unreachable!(),
                }
            }
            assert_eq!(next, 20_000);
            assert!(format!("{stop:?}").contains("waiting: 0"));
            producer.join().unwrap();
        });
    });
    assert!(reports.is_empty(), "{reports:?}");
}
