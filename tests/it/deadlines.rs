//! Time limits: how they nest, how one travels down a call tree, and that every wait has one.
//!
//! gevent's T1 to T6 are here and in `hub.rs` (`a_timeout_…`, `nested_timeouts_…`,
//! `only_the_greenlet_inside_…`, `a_swallowed_timeout_…`).

use std::{
    cell::Cell,
    io::{self, Read},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    Deadline, Deferred, Elapsed, Failure, deadline, net, reactor, run, scope, select_all_timeout,
    shield, sleep, sleep_async, sleep_until, spawn,
    sync::{Condvar, Event, Mutex, OnceCell, Semaphore, channel},
    testing, timeout, timeout_at, wait_for_deferred_timeout, wait_for_future_timeout,
    wait_readable, yield_now,
};

const MOMENT: Duration = Duration::from_millis(1);
const AGES: Duration = Duration::from_secs(3600);

/// How long it is until the current deadline.
fn left() -> Duration {
    deadline().duration_since(reactor().now())
}

#[test]
fn the_deadline_is_the_earliest_of_the_timeouts_around_and_never_without_any() {
    assert!(deadline().is_never(), "where no greenlet runs");
    testing::run(|| {
        assert!(deadline().is_never());
        timeout(10 * MOMENT, || {
            assert_eq!(left(), 10 * MOMENT);
            timeout(AGES, || assert_eq!(left(), 10 * MOMENT, "a longer one inside"))?;
            timeout(3 * MOMENT, || assert_eq!(left(), 3 * MOMENT))?;
            sleep(MOMENT);
            assert_eq!(left(), 9 * MOMENT, "time has passed");
            shield(|| {
                assert!(deadline().is_never(), "held back");
                timeout(MOMENT, || assert_eq!(left(), MOMENT))
            })
        })
        .unwrap()
        .unwrap();
        assert!(deadline().is_never(), "it is left");
    });
}

/// One deadline for all that is called: each level passes on what is left.
#[test]
fn one_deadline_travels_down_a_call_tree() {
    fn request(trace: &Cell<u32>) {
        step(trace);
        step(trace);
        step(trace);
    }
    fn step(trace: &Cell<u32>) {
        // What a library does for a server that takes a limit.
        let answer = timeout(left().min(4 * MOMENT), || sleep(3 * MOMENT));
        assert_eq!(answer, Ok(()));
        trace.set(trace.get() + 1);
    }
    testing::run(|| {
        let (done, begin) = (Cell::new(0), reactor().now());
        assert!(timeout(7 * MOMENT, || request(&done)).is_err());
        assert_eq!((done.get(), reactor().now().duration_since(begin)), (2, 7 * MOMENT));
    });
}

#[test]
fn timeout_at_strikes_at_its_point_and_the_earlier_of_two_counts() {
    testing::run(|| {
        let now = reactor().now();
        assert!(timeout_at(now + MOMENT, || sleep(AGES)).is_err());
        assert_eq!(reactor().now(), now + MOMENT);
        assert_eq!(timeout_at(now, || 3), Ok(3), "it has passed, but nothing waits");
        assert!(timeout_at(now, yield_now).is_err());
        assert!(timeout_at(Deadline::ZERO, || sleep(AGES)).is_err());
        assert_eq!(timeout_at(Deadline::NEVER, || sleep(MOMENT)), Ok(()));
        // Each is told from the other by identity, though both are of one time.
        let at = reactor().now() + MOMENT;
        let outer = timeout_at(at, || timeout_at(at, || sleep(AGES)).is_err());
        assert!(outer.is_err(), "the outermost wins");
        let inner = timeout(AGES, || timeout_at(reactor().now() + MOMENT, || sleep(AGES)));
        assert!(inner.unwrap().is_err());
        let at = reactor().now() + MOMENT;
        sleep_until(at);
        assert_eq!(reactor().now(), at);
        let ran = Rc::new(Cell::new(false));
        let runs = Rc::clone(&ran);
        spawn(move || runs.set(true));
        sleep_until(Deadline::ZERO);
        assert!(ran.get() && reactor().now() == at, "it yields");
        assert!(timeout(MOMENT, || sleep_until(Deadline::NEVER)).is_err());
    });
}

#[test]
fn children_of_a_scope_have_its_deadline_and_spawned_greenlets_have_none() {
    testing::run(|| {
        let (child, grandchild, spawned, inside) = timeout(10 * MOMENT, || {
            sleep(MOMENT);
            scope(|s| {
                let child = s.spawn(|| (left(), scope(|s| s.spawn(left).join().unwrap())));
                let own = s.spawn(|| {
                    let short = timeout(MOMENT, left).unwrap();
                    (short, shield(|| deadline().is_never()))
                });
                let (child, grandchild) = child.join().unwrap();
                let spawned = spawn(|| deadline().is_never()).join().unwrap();
                (child, grandchild, spawned, own.join().unwrap())
            })
        })
        .unwrap();
        assert_eq!((child, grandchild), (9 * MOMENT, 9 * MOMENT));
        assert!(spawned);
        assert_eq!(inside, (MOMENT, true));
        // It is that of who opened the scope, not of who spawns into it.
        scope(|s| {
            timeout(MOMENT, || {
                assert!(s.spawn(|| deadline().is_never()).join().unwrap());
            })
            .unwrap();
        });
    });
}

/// It is the scope that keeps the deadline of its children: they are killed, and unwind once.
#[test]
fn when_the_deadline_of_a_scope_passes_its_children_are_killed() {
    testing::run(|| {
        let seen = Rc::new(Cell::new(None));
        let sees = Rc::clone(&seen);
        let late = timeout(MOMENT, || {
            scope(|s| {
                s.spawn(|| {
                    let killed = catch_unwind(|| sleep(AGES)).unwrap_err();
                    sees.set(Some(reactor().now()));
                    std::panic::resume_unwind(killed)
                });
            });
        });
        assert!(late.is_err());
        assert_eq!(seen.get(), Some(reactor().now()));
    });
}

#[test]
fn a_deadline_is_handed_to_a_spawned_greenlet_explicitly() {
    testing::run(|| {
        let begin = reactor().now();
        let helper = timeout(5 * MOMENT, || {
            let deadline = deadline();
            spawn(move || {
                let late = timeout_at(deadline, || sleep(AGES)).is_err();
                (late, reactor().now().duration_since(begin))
            })
        });
        assert_eq!(helper.unwrap().join().unwrap(), (true, 5 * MOMENT));
    });
}

/// T3: leaving it in whatever way closes it.
#[test]
fn a_timeout_that_was_left_does_not_strike_later() {
    testing::run(|| {
        assert_eq!(timeout(MOMENT, || 1), Ok(1));
        sleep(2 * MOMENT);
        let panicked = catch_unwind(|| timeout(MOMENT, || panic!("out")));
        assert!(panicked.is_err());
        sleep(2 * MOMENT);
        // An outer one that unwinds through it.
        assert!(timeout(MOMENT, || timeout(2 * MOMENT, || sleep(AGES))).is_err());
        sleep(3 * MOMENT);
        assert!(deadline().is_never());
    });
}

/// T4: `test_timeout_calls_update_now`: time that was computed away before does not count. A
/// machine that is held up may fail once; a stale clock fails always.
#[test]
fn a_burst_of_computing_before_a_timeout_does_not_shorten_it() {
    let limit = Duration::from_millis(10);
    let in_time = || {
        run(|| {
            let begin = Instant::now();
            while begin.elapsed() < limit + MOMENT {}
            timeout(limit, yield_now).is_ok()
        })
    };
    assert!((0..10).any(|_| in_time()));
}

/// T5: the value in place of a result is for this time limit only.
#[test]
fn a_value_in_place_of_a_result_is_for_its_own_limit_only() {
    testing::run(|| {
        assert_eq!(timeout(MOMENT, || sleep(AGES)).map_or("late", |()| "in time"), "late");
        let outer = timeout(MOMENT, || timeout(AGES, || sleep(AGES)).map_or(1, |()| 2));
        assert_eq!(outer.unwrap_or(3), 3);
    });
}

/// What one wait with a limit says: whether its own limit has passed.
type Wait<'a> = (&'static str, Box<dyn Fn(Duration) -> bool + 'a>);

/// Runs `f` with every wait that takes a limit, none of which can end in another way.
fn with_every_wait(f: impl FnOnce(Vec<Wait<'_>>)) {
    let (sender, receiver) = channel::<u32>(0);
    let (event, permits, cell) = (Event::new(), Semaphore::new(0), OnceCell::<u32>::new());
    let (lock, condvar, free) = (Mutex::new(()), Condvar::new(), Mutex::new(()));
    let guard = lock.lock().unwrap();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = net::TcpStream::connect(address).unwrap();
    let _accepted = listener.accept().unwrap();
    let is_late = |error: io::Error| error.kind() == io::ErrorKind::TimedOut;
    let waits: Vec<Wait<'_>> = vec![
        ("recv", Box::new(|limit| receiver.recv_timeout(limit).is_err())),
        ("send", Box::new(|limit| sender.send_timeout(1, limit).is_err())),
        ("lock", Box::new(|limit| lock.lock_timeout(limit).is_err())),
        ("acquire", Box::new(|limit| permits.acquire_timeout(limit).is_none())),
        ("event", Box::new(|limit| !event.wait_timeout(limit))),
        ("cell", Box::new(|limit| cell.wait_timeout(limit).is_none())),
        (
            "condvar",
            Box::new(|limit| {
                let guard = free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                !condvar.wait_timeout(guard, limit).unwrap().1
            }),
        ),
        (
            "condvar, a condition",
            Box::new(|limit| {
                let guard = free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                !condvar.wait_timeout_while(guard, limit, |()| true).unwrap().1
            }),
        ),
        (
            "deferred",
            Box::new(|limit| {
                let (_resolver, deferred) = Deferred::<()>::new();
                wait_for_deferred_timeout(deferred, limit).unwrap_err().is::<Elapsed>()
            }),
        ),
        (
            "future",
            Box::new(|limit| wait_for_future_timeout(std::future::pending::<()>(), limit).is_err()),
        ),
        (
            "select_all",
            Box::new(|limit| select_all_timeout(&mut [sleep_async(AGES)], limit).is_err()),
        ),
        (
            "join",
            Box::new(|limit| {
                let handle = spawn(|| sleep(AGES));
                handle.join_timeout(limit).is_err()
            }),
        ),
        (
            "join of a child",
            Box::new(|limit| {
                scope(|s| {
                    let child = s.spawn(|| sleep(AGES));
                    child.join_timeout(limit).map_err(|child| child.kill()).is_err()
                })
            }),
        ),
        (
            "readable",
            Box::new(|limit| {
                wait_readable(ours.as_fd(), reactor().now() + limit).is_err_and(is_late)
            }),
        ),
        ("accept", Box::new(|limit| silent.accept_timeout(limit).is_err_and(is_late))),
        (
            "read",
            Box::new(|limit| {
                stream.set_read_timeout(Some(limit)).unwrap();
                (&stream).read(&mut [0]).is_err_and(is_late)
            }),
        ),
    ];
    f(waits);
    drop(guard);
}

/// T6, and G5: each wait takes a limit, and says that it was that which has passed.
#[test]
fn every_wait_has_a_form_with_a_limit() {
    testing::run(|| {
        with_every_wait(|waits| {
            for (name, wait) in waits {
                let begin = reactor().now();
                let late = timeout(AGES, || wait(3 * MOMENT));
                assert_eq!(late, Ok(true), "{name}");
                let took = reactor().now().duration_since(begin);
                assert!(took >= 3 * MOMENT && took < AGES, "{name} took {took:?}");
            }
        });
    });
}

/// G6, `test_outer_timeout_is_not_lost`, which gevent runs for every wait.
#[test]
fn an_outer_timeout_is_not_lost_in_any_wait_with_a_limit() {
    testing::run(|| {
        with_every_wait(|waits| {
            for (name, wait) in waits {
                let begin = reactor().now();
                let outer = timeout(3 * MOMENT, || wait(AGES));
                assert!(outer.is_err(), "{name} has swallowed it");
                assert_eq!(reactor().now().duration_since(begin), 3 * MOMENT, "{name}");
            }
        });
    });
}

#[test]
fn accept_takes_what_is_there_within_any_limit() {
    run(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let accepted = listener.accept_timeout(Duration::ZERO);
        assert_eq!(accepted.unwrap().1, client.local_addr().unwrap());
        let late = listener.accept_timeout(MOMENT).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let later = spawn({
            let address = listener.local_addr().unwrap();
            move || net::TcpStream::connect(address).unwrap()
        });
        assert!(listener.accept_timeout(AGES).is_ok(), "one that comes meanwhile");
        drop(later.join());
    });
    let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(listener.accept_timeout(MOMENT).unwrap_err().to_string().contains("greenloop::run"));
}

#[test]
fn a_condition_is_waited_for_up_to_a_limit_over_all_notifications() {
    testing::run(|| {
        let (lock, condvar) = (Mutex::new(0), Condvar::new());
        scope(|s| {
            s.spawn(|| {
                for _ in 0..3 {
                    sleep(MOMENT);
                    *lock.lock().unwrap() += 1;
                    condvar.notify_all();
                }
            });
            let begin = reactor().now();
            let guard = lock.lock().unwrap();
            let (guard, met) = condvar.wait_timeout_while(guard, AGES, |n| *n < 2).unwrap();
            assert_eq!((*guard, met), (2, true));
            let (guard, met) = condvar.wait_timeout_while(guard, 2 * MOMENT, |n| *n < 9).unwrap();
            assert_eq!((*guard, met), (3, false));
            assert_eq!(reactor().now().duration_since(begin), 4 * MOMENT, "one limit for all");
            let (_guard, met) = condvar.wait_timeout_while(guard, MOMENT, |_| false).unwrap();
            assert!(met, "it need not wait");
        });
    });
}

#[test]
fn a_child_that_ends_in_time_gives_its_result_and_one_that_does_not_its_handle() {
    testing::run(|| {
        scope(|s| {
            let child = s.spawn(|| {
                sleep(2 * MOMENT);
                7
            });
            let child = child.join_timeout(MOMENT).expect_err("it has not ended");
            assert_eq!(child.join_timeout(AGES).unwrap().unwrap(), 7);
            let panics = s.spawn(|| {
                sleep(MOMENT);
                panic!("joined")
            });
            let joined: Result<(), _> = panics.join_timeout(AGES).expect("it has ended");
            assert_eq!(joined.unwrap_err().panic().unwrap().message(), "joined");
        });
        // A panic while nobody joins goes to the scope, although somebody had joined before.
        let scoped = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let child = s.spawn(|| {
                    sleep(2 * MOMENT);
                    panic!("for the scope")
                });
                let child = child.join_timeout(MOMENT).map(drop).unwrap_err();
                sleep(AGES);
                drop::<greenloop::ScopedGreenlet<'_, ()>>(child);
            });
        }));
        assert_eq!(scoped.unwrap_err().downcast_ref(), Some(&"for the scope"));
    });
}

#[test]
fn a_block_that_fails_late_is_told_apart_from_one_that_is_late() {
    testing::run(|| {
        let failing = async {
            sleep_async(MOMENT).await;
            Err::<(), _>(Failure::msg("failed"))
        };
        let failed = wait_for_future_timeout(failing, AGES).unwrap();
        assert_eq!(failed.unwrap_err().to_string(), "failed");
    });
}
