//! The kill harness of `testing`, and every primitive that blocks under it: cut short at each of
//! its suspensions, it leaves nothing behind, holds nothing, and loses nothing.

mod select;
mod server;
mod sync;

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt::Debug,
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use greenloop::{
    Deadline, Deferred, Failure, current,
    net::{TcpListener, TcpStream},
    reactor, scope, shield, sleep, spawn, spawn_later,
    sync::{Condvar, Event, Mutex, OnceCell, Semaphore, channel, unbounded},
    task::{Cooperator, LoopingCall, Pool},
    testing::{Case, KillEverywhere, assert_nothing_left, kill_everywhere},
    timeout, wait_for_deferred, wait_for_future, wait_for_greenlet, wait_readable, yield_now,
};

use crate::support::in_a_process_of_its_own;

const SECOND: Duration = Duration::from_secs(1);

/// The text with which `f` panics.
#[track_caller]
pub(crate) fn complaint_of<T: Debug>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("it does not complain");
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.unwrap_or_else(|| payload.downcast_ref::<String>().expect("a text").clone())
}

// The harness itself.

#[test]
fn the_target_is_cut_short_at_each_suspension_in_each_way() {
    let seen = RefCell::new(BTreeSet::new());
    let suspensions = kill_everywhere(|case| {
        let steps = Rc::new(Cell::new(0));
        let count = Rc::clone(&steps);
        let target = case.target(move || {
            for _ in 0..3 {
                sleep(SECOND);
                count.set(count.get() + 1);
            }
        });
        let ended = target.join();
        assert_eq!(ended.is_some(), steps.get() == 3);
        seen.borrow_mut().insert((steps.get(), format!("{case:?}")));
    });
    assert_eq!(suspensions, 3);
    let seen = seen.into_inner();
    let expected = [
        (0, "before it began"),
        (0, "killed in its suspension 1 (for a timer (sleep))"),
        (0, "timed out in its suspension 1"),
        (0, "killed after its suspension 1"),
        (0, "timed out after its suspension 1"),
        (1, "killed in its suspension 2"),
        (1, "timed out after its suspension 2"),
        (2, "killed after its suspension 3"),
        (2, "timed out in its suspension 3"),
        (3, "left alone"),
    ];
    for (steps, text) in expected {
        let found = seen.iter().any(|(count, case)| *count == steps && case.contains(text));
        assert!(found, "{steps} {text}: {seen:#?}");
    }
    // Left alone, unbegun, and four ways at each of three; the last four find nothing to cut.
    assert_eq!(seen.len(), 1 + 1 + 4 * 3 + 4);
}

#[test]
fn a_lock_that_stays_held_is_found() {
    let text = complaint_of(|| {
        kill_everywhere(|case| {
            let is_held = Rc::new(Cell::new(false));
            let lock = Rc::clone(&is_held);
            let target = case.target(move || {
                lock.set(true); // and no guard that lets it go
                yield_now();
                lock.set(false);
            });
            target.join();
            assert!(!is_held.get(), "it is held");
        });
    });
    assert!(text.contains("target killed in its suspension 1"), "{text}");
    assert!(text.contains("it is held"), "{text}");
}

#[test]
fn a_wait_that_nothing_ends_is_found() {
    let text = complaint_of(|| {
        kill_everywhere(|case| {
            let (sender, receiver) = channel(1);
            let target = case.target(move || {
                yield_now();
                sender.send(1).unwrap();
                std::mem::forget(sender);
            });
            receiver.recv().unwrap();
            target.join();
        });
    });
    assert!(text.contains("killed before it began"), "{text}");
    assert!(text.contains("RecvError"), "{text}");
    let text = complaint_of(|| {
        kill_everywhere(|case| {
            let (resolver, deferred) = Deferred::<()>::new();
            let target = case.target(move || {
                let resolver = std::mem::ManuallyDrop::new(resolver);
                yield_now();
                std::mem::ManuallyDrop::into_inner(resolver).callback(());
            });
            let _ = wait_for_deferred(deferred);
            target.join();
        });
    });
    assert!(text.contains("killed in its suspension 1"), "{text}");
    assert!(text.contains("main greenlet would wait for ever"), "{text}");
}

/// One scenario for each thing that can be left behind: each is found when the target, left alone,
/// leaves it.
#[test]
fn whatever_is_left_behind_is_found() {
    type Leaving = fn();
    let cases: [(&str, Leaving); 6] = [
        ("greenlet #", || drop(spawn(|| sleep(SECOND)))),
        ("greenlet #", || drop(spawn_later(SECOND, || ()))),
        ("1 delayed", || drop(reactor().call_later(SECOND, || ()))),
        ("1 handle(s)", || std::mem::forget(reactor().handle())),
        ("1 delayed", || {
            let event = Arc::new(Event::new());
            std::mem::forget(event.wait_deferred());
        }),
        ("1 wait(s) for a descriptor", || {
            let (end, other) = UnixStream::pair().unwrap();
            spawn(move || {
                let _open = other;
                wait_readable(end.as_fd(), Deadline::NEVER)
            });
            yield_now();
        }),
    ];
    for (what, leave) in cases {
        let text = complaint_of(|| {
            kill_everywhere(|case| {
                case.target(move || {
                    leave();
                    yield_now();
                })
                .join();
            });
        });
        assert!(text.contains("left behind") && text.contains(what), "{what}: {text}");
    }
}

#[test]
fn a_scenario_without_a_suspension_or_a_target_is_refused() {
    let text = complaint_of(|| kill_everywhere(|case| case.target(|| ()).join().unwrap_or(())));
    assert!(text.contains("the target never suspends"), "{text}");
    let text = complaint_of(|| kill_everywhere(|_| ()));
    assert!(text.contains("the scenario has no target"), "{text}");
}

#[test]
fn a_panic_of_the_target_is_the_scenarios() {
    let text = complaint_of(|| {
        kill_everywhere(|case| {
            case.target(|| assert!(reactor().turns_count() == 77, "not as expected")).join();
        });
    });
    assert!(text.contains("target left alone: not as expected"), "{text}");
}

#[test]
fn what_holds_in_one_order_only_is_found_with_seeds() {
    let scenario = |case: &Case| {
        let trace = Rc::new(RefCell::new(Vec::new()));
        let (first, second) = (Rc::clone(&trace), Rc::clone(&trace));
        let target = case.target(move || {
            first.borrow_mut().push(1);
            yield_now();
        });
        let other = spawn(move || second.borrow_mut().push(2));
        other.join().unwrap();
        target.join();
        assert_ne!(*trace.borrow(), [2, 1], "out of turn");
    };
    assert_eq!(kill_everywhere(scenario), 1);
    let text = complaint_of(|| KillEverywhere::new().seeds(0..20).run(scenario));
    assert!(text.contains("GREENLOOP_SEED=") && text.contains("out of turn"), "{text}");
}

#[test]
fn a_descriptor_that_stays_open_is_found() {
    in_a_process_of_its_own("kills_everywhere::a_descriptor_that_stays_open_is_found", || {
        let text = complaint_of(|| {
            KillEverywhere::new().count_descriptors().run(|case| {
                let target = case.target(|| {
                    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                    yield_now();
                    std::mem::forget(listener);
                });
                target.join();
            });
        });
        assert!(text.contains("descriptors open before and after"), "{text}");
    });
}

/// A timeout that is made to elapse behind a shield is noticed right after it, as any.
#[test]
fn a_timeout_behind_a_shield_comes_after_it() {
    kill_everywhere(|case| {
        let steps = Rc::new(RefCell::new(Vec::new()));
        let trace = Rc::clone(&steps);
        let target = case.target(move || {
            shield(|| {
                sleep(SECOND);
                trace.borrow_mut().push("shielded");
            });
            sleep(SECOND);
            trace.borrow_mut().push("after");
        });
        let ended = target.join().is_some();
        let steps = steps.borrow();
        let unbegun = format!("{case}").contains("before it began");
        assert_eq!(steps.contains(&"shielded"), !unbegun);
        assert_eq!(steps.contains(&"after"), ended);
        assert!(reactor().now() <= Deadline::ZERO + 2 * SECOND, "{:?}", reactor().now());
    });
}

/// In the usual order, and in a few others. Returns the suspensions in the usual one.
#[track_caller]
fn everywhere(scenario: impl Fn(&Case)) -> u32 {
    KillEverywhere::new().seeds(0..20).run(&scenario);
    kill_everywhere(scenario)
}

// Greenlets and time.

#[test]
fn sleeping_and_yielding() {
    let suspensions = everywhere(|case| {
        let target = case.target(|| {
            sleep(SECOND);
            yield_now();
            let _ = timeout(SECOND, || sleep(60 * SECOND));
            shield(|| sleep(SECOND));
            yield_now();
        });
        target.join();
    });
    assert_eq!(suspensions, 5);
}

#[test]
fn joining() {
    let suspensions = everywhere(|case| {
        let worker = spawn(|| {
            sleep(SECOND);
            7
        });
        let target = case.target(move || {
            let worker = worker.join_timeout(SECOND / 2).expect_err("it sleeps");
            worker.join().unwrap()
        });
        let joined = target.join();
        assert!(joined.is_none_or(|value| value == 7));
        sleep(SECOND); // the worker went on
    });
    assert_eq!(suspensions, 2);
}

#[test]
fn a_scope_whose_children_borrow_and_block() {
    let suspensions = everywhere(|case| {
        let ended = Rc::new(Cell::new(0));
        let count = Rc::clone(&ended);
        let target = case.target(move || {
            let (begun, over) = (Cell::new(0), Cell::new(0));
            struct Over<'a>(&'a Cell<u32>);
            impl Drop for Over<'_> {
                fn drop(&mut self) {
                    yield_now();
                    self.0.set(self.0.get() + 1);
                }
            }
            struct All<'a>(&'a Cell<u32>, &'a Cell<u32>, Rc<Cell<u32>>);
            impl Drop for All<'_> {
                fn drop(&mut self) {
                    assert_eq!(self.0, self.1, "a child outlived its scope");
                    self.2.set(1);
                }
            }
            let _all = All(&begun, &over, count);
            scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        begun.set(begun.get() + 1);
                        let _over = Over(&over);
                        sleep(SECOND);
                    });
                }
                let first = s.spawn(|| sleep(SECOND / 2));
                first.join().unwrap();
            });
        });
        let begun = !format!("{case}").contains("before it began");
        target.join();
        assert_eq!(ended.get(), u32::from(begun));
    });
    assert!(suspensions >= 2, "{suspensions}");
}

// The bridge.

#[test]
fn waiting_for_a_deferred() {
    let suspensions = everywhere(|case| {
        let was_cancelled = Rc::new(Cell::new(false));
        let notice = Rc::clone(&was_cancelled);
        let (resolver, deferred) = Deferred::with_canceller(move |_| notice.set(true));
        let target = case.target(move || wait_for_deferred(deferred).unwrap());
        reactor().call_later(SECOND, move || resolver.callback(5));
        let ended = target.join();
        assert!(ended.is_none_or(|value| value == 5));
        assert!(ended.is_none() || !was_cancelled.get());
        sleep(SECOND);
    });
    assert_eq!(suspensions, 1);
}

#[test]
fn waiting_for_a_greenlet_by_a_deferred() {
    everywhere(|case| {
        let worker = spawn(|| sleep(SECOND));
        let target = case.target(move || wait_for_deferred(wait_for_greenlet(worker)));
        let ended = target.join();
        assert!(ended.is_none_or(|ended| ended.is_ok()));
        sleep(SECOND);
    });
}

#[test]
fn waiting_for_a_future_of_several_kinds() {
    let suspensions = everywhere(|case| {
        let (sender, receiver) = channel(1);
        let (resolver, deferred) = Deferred::new();
        let worker = spawn(|| sleep(SECOND));
        let target = case.target(move || {
            wait_for_future(async {
                let got = receiver.recv_async().await.unwrap();
                let fired: u32 = deferred.await.unwrap();
                worker.await.unwrap();
                got + fired
            })
        });
        yield_now();
        let sent = sender.send(1);
        sleep(SECOND / 2);
        resolver.callback(2);
        let ended = target.join();
        assert!(ended.is_none_or(|sum| sum == 3 && sent.is_ok()));
        sleep(SECOND);
    });
    assert_eq!(suspensions, 3);
}

#[test]
fn an_async_block_as_a_deferred() {
    everywhere(|case| {
        let asleep = Arc::new(Event::new());
        let woken = Arc::clone(&asleep);
        let target = case.target(move || {
            wait_for_deferred(Deferred::from_future(async move {
                let slept = spawn(|| sleep(SECOND));
                woken.wait_deferred().await?;
                wait_for_greenlet(slept).await?;
                Ok::<_, Failure>(1)
            }))
        });
        yield_now();
        asleep.set();
        target.join();
        sleep(2 * SECOND);
    });
}

// sync.

#[test]
fn acquiring_permits() {
    let suspensions = everywhere(|case| {
        let semaphore = Rc::new(Semaphore::new(2));
        let (held, kept) = (semaphore.acquire(), semaphore.acquire());
        let shared = Rc::clone(&semaphore);
        let target = case.target(move || {
            let _two = shared.acquire_many(2);
            yield_now();
            let _none = shared.acquire_timeout(SECOND);
            yield_now();
        });
        let behind = Rc::clone(&semaphore);
        let behind = spawn(move || drop(behind.acquire()));
        yield_now();
        drop(held);
        yield_now();
        drop(kept);
        target.join();
        behind.join().unwrap();
        assert_eq!(semaphore.available_permits(), 2);
    });
    assert_eq!(suspensions, 4);
}

#[test]
fn acquiring_permits_by_deferreds_and_futures() {
    everywhere(|case| {
        let semaphore = Arc::new(Semaphore::new(1));
        let held = semaphore.acquire();
        let shared = Arc::clone(&semaphore);
        let target = case.target(move || {
            let permit = wait_for_deferred(shared.acquire_deferred(1)).unwrap();
            yield_now();
            drop(permit);
            let other = Arc::clone(&shared);
            let busy = spawn(move || {
                let _permit = other.acquire();
                yield_now();
            });
            yield_now();
            let permit = wait_for_future(shared.acquire_async(1));
            yield_now();
            drop(permit);
            busy.join().unwrap();
        });
        yield_now();
        drop(held);
        target.join();
        sleep(SECOND);
        assert_eq!(semaphore.available_permits(), 1);
    });
}

#[test]
fn locking_a_mutex_in_three_styles() {
    let suspensions = everywhere(|case| {
        let mutex = Arc::new(Mutex::new(()));
        let held = mutex.lock().unwrap();
        let shared = Arc::clone(&mutex);
        let target = case.target(move || {
            for round in 0..3 {
                let (guard, owned);
                let _held: &dyn Any = match round {
                    0 => {
                        guard = shared.lock().unwrap();
                        &*guard
                    }
                    1 => {
                        owned = wait_for_deferred(shared.lock_deferred()).unwrap().unwrap();
                        &*owned
                    }
                    _ => {
                        guard = wait_for_future(shared.lock_async()).unwrap();
                        &*guard
                    }
                };
                sleep(SECOND);
            }
        });
        let rival = Arc::clone(&mutex);
        let rival = spawn(move || {
            for _ in 0..3 {
                drop(rival.lock()); // poisoned, if the target died while it held it
                sleep(SECOND / 3);
            }
        });
        yield_now();
        drop(held);
        let ended = target.join();
        rival.join().unwrap();
        assert!(ended.is_none() || !mutex.is_poisoned());
        mutex.clear_poison();
        assert!(mutex.try_lock().is_ok(), "nobody holds it");
    });
    assert!(suspensions >= 5, "{suspensions}");
}

#[test]
fn waiting_for_an_event_and_for_a_once_cell() {
    everywhere(|case| {
        let event = Arc::new(Event::new());
        let cell = Arc::new(OnceCell::new());
        let (shared, filled) = (Arc::clone(&event), Arc::clone(&cell));
        let target = case.target(move || {
            assert!(!shared.wait_timeout(SECOND));
            shared.wait();
            wait_for_deferred(filled.wait_deferred()).unwrap();
            *filled.wait()
        });
        let other = spawn(move || {
            sleep(2 * SECOND);
            event.set();
            sleep(SECOND);
            cell.set(3).unwrap();
            *cell.wait()
        });
        assert!(target.join().is_none_or(|value| value == 3));
        assert_eq!(other.join().unwrap(), 3);
    });
}

/// Whoever makes the value may die while at it: another one makes it then.
#[test]
fn making_the_value_of_a_once_cell() {
    everywhere(|case| {
        let cell = Rc::new(OnceCell::new());
        let shared = Rc::clone(&cell);
        let target = case.target(move || {
            *shared.get_or_init(|| {
                sleep(SECOND);
                1
            })
        });
        let shared = Rc::clone(&cell);
        let other = spawn(move || {
            *shared.get_or_init(|| {
                sleep(SECOND);
                2
            })
        });
        let ended = target.join();
        let value = other.join().unwrap();
        assert_eq!(cell.get(), Some(&value));
        assert!(ended.is_none_or(|ended| ended == value));
    });
}

/// A notification of a waiter that dies goes to the next one.
#[test]
fn waiting_for_a_condition() {
    everywhere(|case| {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let take = |shared: &Rc<(Mutex<u32>, Condvar)>| {
            let shared = Rc::clone(shared);
            move || {
                let (mutex, condvar) = &*shared;
                let mut items = condvar.wait_while(mutex.lock().unwrap(), |n| *n == 0).unwrap();
                *items -= 1;
            }
        };
        let target = case.target(take(&shared));
        let other = spawn(take(&shared));
        yield_now();
        for _ in 0..2 {
            *shared.0.lock().unwrap() += 1;
            shared.1.notify_one();
            yield_now();
        }
        let taken = 1 + u32::from(target.join().is_some());
        other.join().unwrap();
        assert_eq!(*shared.0.try_lock().unwrap(), 2 - taken);
    });
}

/// What was sent is received, or still there: whichever end is cut short.
#[test]
fn sending_and_receiving_through_channels_of_any_bound() {
    for bound in [Some(0), Some(1), Some(3), None] {
        let pair = || match bound {
            Some(bound) => channel(bound),
            None => unbounded(),
        };
        let items = 5;
        let receiving = everywhere(|case| {
            let (sender, receiver) = pair();
            let (got, taken) = (Rc::new(RefCell::new(Vec::new())), receiver.clone());
            let sink = Rc::clone(&got);
            let target = case.target(move || {
                while let Ok(item) = taken.recv() {
                    sink.borrow_mut().push(item);
                }
            });
            let feeder = spawn(move || {
                for item in 0..items {
                    sender.send(item).unwrap();
                    yield_now();
                }
            });
            target.join();
            got.borrow_mut().extend(receiver.iter());
            feeder.join().unwrap();
            assert_eq!(*got.borrow(), Vec::from_iter(0..items), "all of them, in their order");
        });
        assert!(receiving >= 3, "{bound:?}: {receiving}");
        if bound.is_none() {
            continue; // Sending never waits.
        }
        let sending = everywhere(|case| {
            let (sender, receiver) = pair();
            let sent = Rc::new(Cell::new(0));
            let count = Rc::clone(&sent);
            let target = case.target(move || {
                for item in 0..items {
                    sender.send(item).unwrap();
                    count.set(item + 1);
                }
            });
            let mut got = Vec::new();
            while let Ok(item) = receiver.recv() {
                got.push(item);
                yield_now();
            }
            target.join();
            let sure = got.len();
            assert_eq!(got, Vec::from_iter(0..sure), "a prefix");
            // What was handed over while its sender died has arrived, and nobody told it.
            assert!(sure == sent.get() || sure == sent.get() + 1, "{sure} {}", sent.get());
        });
        assert!(sending >= 1, "{bound:?}: {sending}");
    }
}

#[test]
fn sending_and_receiving_by_deferreds_and_futures() {
    everywhere(|case| {
        let (sender, receiver) = channel(0);
        let taken = receiver.clone();
        let target = case.target(move || {
            let first = wait_for_deferred(taken.recv_deferred()).unwrap();
            let second = wait_for_future(taken.recv_async()).unwrap();
            (first, second)
        });
        let feeder = spawn(move || {
            wait_for_deferred(sender.send_deferred(1)).unwrap().unwrap();
            yield_now();
            wait_for_future(sender.send_async(2)).unwrap();
        });
        let ended = target.join();
        let left: Vec<u32> = receiver.iter().collect();
        feeder.join().unwrap();
        match ended {
            Some(both) => assert_eq!((both, left.len()), ((1, 2), 0)),
            None => assert!(left == [1, 2] || left == [2], "{left:?}"),
        }
    });
}

// task.

#[test]
fn a_looping_call_and_a_cooperator() {
    everywhere(|case| {
        let target = case.target(|| {
            let (looping, done) = LoopingCall::new(|| sleep(SECOND / 2)).start(SECOND);
            struct Stop(greenloop::task::Looping);
            impl Drop for Stop {
                fn drop(&mut self) {
                    self.0.stop();
                }
            }
            let stop = Stop(looping);
            sleep(3 * SECOND);
            drop(stop);
            drop(wait_for_deferred(done));
            let cooperator = Cooperator::new();
            let steps = (0..3).map(|_| wait_for_greenlet(spawn(|| sleep(SECOND))));
            let done = cooperator.coiterate(steps);
            wait_for_deferred(done).unwrap();
        });
        target.join();
        sleep(2 * SECOND);
    });
}

#[test]
fn mapping_concurrently() {
    let suspensions = everywhere(|case| {
        let running = Rc::new(Cell::new(0));
        let count = Rc::clone(&running);
        struct Running(Rc<Cell<u32>>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let target = case.target(move || {
            Pool::new(2)
                .map(0..5, |item| {
                    count.set(count.get() + 1);
                    assert!(count.get() <= 2);
                    let _running = Running(Rc::clone(&count));
                    sleep(SECOND);
                    Ok::<_, Failure>(item)
                })
                .unwrap()
        });
        let ended = target.join();
        assert!(ended.is_none_or(|items| items == [0, 1, 2, 3, 4]));
        assert_eq!(running.get(), 0);
    });
    assert!(suspensions >= 3, "{suspensions}");
}

// Sockets and names: in a process of their own, where descriptors can be counted.

fn with_descriptors(test: &str, scenario: impl Fn(&Case)) {
    in_a_process_of_its_own(&format!("kills_everywhere::{test}"), || {
        assert!(KillEverywhere::new().count_descriptors().run(scenario) > 0);
    });
}

#[test]
fn connecting_and_accepting() {
    with_descriptors("connecting_and_accepting", |case| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = case.target(move || {
            for _ in 0..2 {
                drop(listener.accept().unwrap());
            }
        });
        yield_now();
        for _ in 0..2 {
            let _ = TcpStream::connect(address); // refused, once the target has died
            sleep(SECOND);
        }
        target.join();
    });
    with_descriptors("connecting_and_accepting", |case| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let target = case.target(move || {
            let stream = TcpStream::connect(address).unwrap();
            yield_now();
            TcpStream::connect_timeout(&address, SECOND).unwrap();
            drop(stream);
        });
        target.join();
    });
}

#[test]
fn reading_and_writing() {
    with_descriptors("reading_and_writing", |case| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let target = case.target(move || {
            let mut text = [0; 5];
            server.read_exact(&mut text).unwrap();
            server.set_read_timeout(Some(SECOND)).unwrap();
            assert_eq!(server.read(&mut text).unwrap_err().kind(), io::ErrorKind::TimedOut);
            server.write_all(&vec![7; 8 << 20]).unwrap(); // more than fits the buffers
            server.shutdown(Shutdown::Write).unwrap();
            let _ = server.read_to_end(&mut Vec::new());
        });
        yield_now();
        let _ = client.write_all(b"hel"); // broken, once the target has died
        sleep(SECOND / 4);
        let _ = client.write_all(b"lo");
        let mut got = Vec::new();
        let read = client.read_to_end(&mut got);
        drop(client);
        assert!(target.join().is_none() || (read.is_ok() && got.len() == 8 << 20));
    });
}

#[test]
fn waiting_for_a_descriptor_of_others() {
    with_descriptors("waiting_for_a_descriptor_of_others", |case| {
        let (mut writer, reader) = UnixStream::pair().unwrap();
        let target = case.target(move || {
            let deadline = reactor().now() + SECOND;
            let late = wait_readable(reader.as_fd(), deadline).unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            wait_readable(reader.as_fd(), Deadline::NEVER).unwrap();
        });
        sleep(2 * SECOND);
        let _ = writer.write_all(b"x");
        target.join();
    });
}

#[test]
fn looking_up_a_name() {
    with_descriptors("looking_up_a_name", |case| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = case.target(move || TcpStream::connect(("localhost", port)).map(drop));
        target.join();
    });
}

#[test]
fn nothing_is_left_where_everything_is_over() {
    greenloop::run(|| {
        spawn(|| sleep(Duration::from_millis(1))).join().unwrap();
        wait_for_deferred(Deferred::<()>::from_future(async { Ok::<_, Failure>(()) })).unwrap();
        assert_eq!(current().name(), Some("main"));
        assert_nothing_left();
    });
}
