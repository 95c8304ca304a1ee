//! Futures that need tokio's own reactor, on greenlets: the feature `tokio`.

use std::{
    cell::Cell,
    io::{Read, Write},
    rc::Rc,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use greenloop::{
    Deadline, Deferred, Failure, net::TcpListener, reactor, run, sleep, spawn, testing, timeout,
    wait_for_deferred, wait_for_future, yield_now,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Handle},
    sync::oneshot,
};

use crate::support::{Dropped, Trace, assert_ends, reports_of};

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn tokios_timers_wake_a_greenlet_and_others_run_meanwhile() {
    assert_ends(|| {
        run(|| {
            let ran = Rc::new(Cell::new(false));
            let out = Rc::clone(&ran);
            let _other = spawn(move || out.set(true));
            let begun = Instant::now();
            // Nothing else could wake this hub: a waker that tokio has is one from outside.
            wait_for_future(async { tokio::time::sleep(SHORT).await });
            assert!(begun.elapsed() >= SHORT && ran.get());
        });
    });
}

#[test]
fn tokios_sockets_work_in_both_entries() {
    assert_ends(|| {
        run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    spawn(move || -> std::io::Result<()> {
                        let mut buf = [0; 4];
                        stream.read_exact(&mut buf)?;
                        stream.write_all(&buf)
                    });
                }
            });
            let echo = move || async move {
                let mut stream = tokio::net::TcpStream::connect(address).await?;
                stream.write_all(b"echo").await?;
                let mut back = String::new();
                stream.read_to_string(&mut back).await?;
                std::io::Result::Ok(back)
            };
            assert_eq!(wait_for_future(echo()).unwrap(), "echo");
            let deferred = Deferred::from_future(echo());
            assert_eq!(wait_for_deferred(deferred).unwrap(), "echo");
        });
    });
}

/// tokio's scopes must be nested, and polls that park are not.
#[test]
fn polls_that_park_may_end_in_any_order() {
    assert_ends(|| {
        run(|| {
            let (resolver, fired) = Deferred::<()>::new();
            let first = spawn(|| {
                wait_for_future(async {
                    wait_for_deferred(fired).unwrap(); // parks in the poll
                    tokio::time::sleep(SHORT).await;
                });
            });
            yield_now();
            let second = spawn(|| {
                wait_for_future(async {
                    sleep(5 * SHORT); // as well
                    tokio::time::sleep(SHORT).await;
                });
            });
            yield_now();
            resolver.callback(());
            first.join().unwrap();
            second.join().unwrap();
        });
    });
}

#[test]
fn what_tokio_spawns_runs_in_the_background() {
    assert_ends(|| {
        let (here, there) = run(|| {
            wait_for_future(async {
                let there = tokio::spawn(async { thread::current().name().map(str::to_owned) });
                (thread::current().id(), there.await.unwrap())
            })
        });
        assert_eq!(here, thread::current().id());
        assert_eq!(there.as_deref(), Some("greenloop-tokio"));
    });
}

/// A cancelled, killed or elapsed wait takes its tokio timer along.
#[test]
fn a_wait_for_tokio_can_be_ended() {
    assert_ends(|| {
        run(|| {
            let long = || wait_for_future(async { tokio::time::sleep(LONG).await });
            assert!(timeout(SHORT, long).is_err());
            let trace = Trace::default();
            let guard = Dropped(trace.clone(), "dropped");
            let deferred = Deferred::<()>::from_future(async move {
                let _guard = guard;
                tokio::time::sleep(LONG).await;
                Ok::<_, Failure>(())
            });
            yield_now();
            deferred.cancel();
            assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
            assert_eq!(trace.taken(), ["dropped"]);
        });
    });
}

#[test]
fn a_wait_that_only_tokio_can_end_is_not_reported_as_one_for_ever() {
    assert_ends(|| {
        let (send, receive) = oneshot::channel();
        let value = run(|| {
            wait_for_future(async {
                tokio::spawn(async {
                    tokio::time::sleep(10 * SHORT).await;
                    send.send(7).unwrap();
                });
                receive.await.unwrap()
            })
        });
        assert_eq!(value, 7);
    });
}

#[test]
fn a_thread_is_in_the_runtime_no_longer_than_its_run() {
    assert_ends(|| {
        assert!(Handle::try_current().is_err());
        for _ in 0..2 {
            run(|| {
                assert!(Handle::try_current().is_err(), "nothing was polled yet");
                wait_for_future(async { Handle::current() });
                assert!(Handle::try_current().is_ok());
            });
            assert!(Handle::try_current().is_err());
        }
    });
}

#[test]
fn a_thread_that_is_in_a_runtime_stays_in_that_one() {
    assert_ends(|| {
        let own = Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = own.enter();
        let id = run(|| wait_for_future(async { Handle::current().id() }));
        assert_eq!(id, own.handle().id());
    });
}

/// It was entered once a future, so that this one found no runtime at its second poll.
#[test]
fn a_future_that_began_in_another_runtime_may_outlast_the_threads_stay_there() {
    assert_ends(|| {
        let own = Builder::new_current_thread().enable_all().build().unwrap();
        run(|| {
            let entered = own.enter();
            let (resolver, left) = Deferred::<()>::new();
            let waits = spawn(|| {
                wait_for_future(async {
                    left.await.unwrap();
                    tokio::time::sleep(SHORT).await;
                });
            });
            yield_now();
            drop(entered);
            resolver.callback(());
            waits.join().unwrap();
        });
    });
}

/// tokio's guard panicked in place of what the run had returned.
#[test]
fn scopes_that_are_left_in_disorder_are_reported_and_the_run_keeps_its_value() {
    assert_ends(|| {
        let own = Builder::new_current_thread().enable_all().build().unwrap();
        let handle: &'static Handle = Box::leak(Box::new(own.handle().clone()));
        let (value, reports) = reports_of(|| {
            run(|| {
                wait_for_future(async {});
                for _ in 0..2 {
                    spawn(|| {
                        let _entered = handle.enter();
                        sleep(LONG);
                    });
                }
                yield_now();
                7 // Both are killed, the first one first.
            })
        });
        assert_eq!(value, 7);
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].contains("tokio"));
    });
}

/// A limitation: it is the thread that ought to drive it.
#[test]
fn a_runtime_of_one_thread_is_not_driven_from_inside_its_block_on() {
    assert_ends(|| {
        let own = Builder::new_current_thread().enable_all().build().unwrap();
        own.block_on(async {
            run(|| {
                let waits = || wait_for_future(async { tokio::time::sleep(SHORT).await });
                assert!(timeout(20 * SHORT, waits).is_err());
            });
        });
        // On another thread than the one that drives it, all is well.
        let there = own.spawn_blocking(|| {
            run(|| wait_for_future(async { tokio::time::sleep(SHORT).await }));
        });
        own.block_on(there).unwrap();
    });
}

/// Its timers are real: virtual time outruns them, unless it has the patience.
#[test]
fn in_virtual_time_tokio_is_a_peer_outside_of_the_program() {
    assert_ends(|| {
        let limited = || timeout(LONG, || wait_for_future(tokio_sleep()));
        assert!(testing::run(limited).is_err());
        let patient = testing::JumpingClock::new().patience(LONG);
        let (waited, now) = patient.run(|| (limited(), reactor().now()));
        assert!(waited.is_ok());
        assert_eq!(now, Deadline::ZERO);
    });
}

async fn tokio_sleep() {
    tokio::time::sleep(20 * SHORT).await;
}

#[test]
fn several_hubs_share_the_runtime() {
    assert_ends(|| {
        let (tell, told) = mpsc::channel();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let tell = tell.clone();
                thread::spawn(move || {
                    let id = run(|| {
                        wait_for_future(async {
                            tokio::time::sleep(SHORT).await;
                            Handle::current().id()
                        })
                    });
                    tell.send(id).unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(tell);
        let ids: Vec<_> = told.iter().collect();
        assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    });
}
