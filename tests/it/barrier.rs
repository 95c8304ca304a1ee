//! Barriers and wait groups: who waits for others, in three styles, and what the dead count for.

use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    thread,
    time::Duration,
};

use crate::support::{Trace, assert_ends, block_on, poll};
use greenloop::{
    reactor, run, scope, sleep, spawn,
    sync::{Barrier, WaitGroup, unbounded},
    testing, wait_for_deferred, wait_for_future, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

// ---- Barrier ----------------------------------------------------------------------------------

#[test]
fn a_barrier_lets_so_many_on_at_once_and_is_empty_again() {
    let trace = Trace::default();
    testing::run(|| {
        let barrier = Rc::new(Barrier::new(3));
        scope(|scope| {
            for n in 0..3 {
                let (barrier, trace) = (Rc::clone(&barrier), trace.clone());
                scope.spawn(move || {
                    for round in 0..2 {
                        sleep(n * SECOND);
                        let leads = barrier.wait().is_leader();
                        trace
                            .add(format_args!("{round}: {n}{}", if leads { " leads" } else { "" }));
                    }
                });
            }
        });
        assert_eq!(format!("{barrier:?}"), "Barrier { size: 3, waiting: 0 }");
    });
    // The last to come does not wait, the others are woken in the order of their coming.
    let expected = ["0: 2 leads", "0: 0", "0: 1", "1: 2 leads", "1: 0", "1: 1"];
    assert_eq!(trace.taken(), expected);
}

#[test]
fn a_barrier_of_one_or_none_holds_nobody_up() {
    for size in [0, 1] {
        let barrier = Barrier::new(size);
        assert!(barrier.wait().is_leader());
        assert!(barrier.try_wait().is_some());
    }
}

/// The dead are not there, however they die: two of three must not go on.
#[test]
fn who_dies_at_a_barrier_does_not_count() {
    testing::run(|| {
        for how in ["kill", "limit", "future", "Deferred"] {
            let barrier = Arc::new(Barrier::new(3));
            let theirs = Arc::clone(&barrier);
            let dies = spawn(move || match how {
                "kill" => assert!(!theirs.wait().is_leader()),
                "limit" => assert!(theirs.wait_timeout(SECOND).is_none()),
                "future" => {
                    let mut future = theirs.wait_async();
                    assert!(poll(&mut future, Waker::noop()).is_pending());
                    sleep(SECOND);
                }
                _ => {
                    let deferred = theirs.wait_deferred();
                    sleep(SECOND);
                    deferred.cancel();
                    assert!(wait_for_deferred(deferred).unwrap_err().is_cancelled());
                }
            });
            yield_now();
            let theirs = Arc::clone(&barrier);
            let waits = spawn(move || theirs.wait().is_leader());
            yield_now();
            assert_eq!(format!("{barrier:?}"), "Barrier { size: 3, waiting: 2 }", "{how}");
            if how == "kill" {
                dies.kill();
            }
            sleep(2 * SECOND);
            assert!(dies.is_finished());
            assert!(barrier.try_wait().is_none(), "one is missing: {how}");
            assert!(barrier.wait_timeout(SECOND).is_none());
            let third = barrier.wait_deferred();
            assert!(!waits.is_finished() && !third.is_fired());
            assert!(barrier.wait().is_leader());
            assert!(!waits.join().unwrap());
            assert!(!wait_for_deferred(third).unwrap().is_leader());
        }
    });
}

/// It has passed: those who went on with it are not called back, and the next three are three.
#[test]
fn who_dies_after_the_barrier_has_opened_has_passed() {
    testing::run(|| {
        let barrier = Arc::new(Barrier::new(2));
        let mut passes = barrier.wait_async();
        assert!(poll(&mut passes, Waker::noop()).is_pending());
        assert!(barrier.wait().is_leader());
        drop(passes);
        let theirs = Arc::clone(&barrier);
        let killed = spawn(move || theirs.wait().is_leader());
        yield_now();
        killed.kill();
        assert!(barrier.try_wait().is_some(), "it was there when the last one came");
        let _ = killed.join();
        assert!(barrier.try_wait().is_none());
        assert_eq!(format!("{barrier:?}"), "Barrier { size: 2, waiting: 0 }");
    });
}

#[test]
fn greenlets_deferreds_futures_and_threads_meet_at_one_barrier() {
    const ROUNDS: usize = 50;
    assert_ends(|| {
        let barrier = Arc::new(Barrier::new(6));
        let leaders = Arc::new(AtomicUsize::new(0));
        let came = Arc::new(AtomicUsize::new(0));
        let round = |wait: &mut dyn FnMut() -> bool| {
            for n in 0..ROUNDS {
                came.fetch_add(1, Ordering::SeqCst);
                leaders.fetch_add(usize::from(wait()), Ordering::SeqCst);
                let all = came.load(Ordering::SeqCst);
                assert!(all >= 6 * (n + 1) && all <= 6 * (n + 2), "{all} in round {n}");
            }
        };
        thread::scope(|threads| {
            threads.spawn(|| round(&mut || barrier.wait().is_leader()));
            threads.spawn(|| round(&mut || block_on(barrier.wait_async()).is_leader()));
            threads.spawn(|| {
                run(|| {
                    scope(|scope| {
                        scope.spawn(|| round(&mut || barrier.wait().is_leader()));
                        scope.spawn(|| {
                            round(&mut || {
                                let deferred = barrier.wait_deferred();
                                wait_for_deferred(deferred).unwrap().is_leader()
                            });
                        });
                    });
                });
            });
            run(|| {
                scope(|scope| {
                    scope
                        .spawn(|| round(&mut || wait_for_future(barrier.wait_async()).is_leader()));
                    round(&mut || barrier.wait().is_leader());
                });
            });
        });
        assert_eq!(leaders.load(Ordering::SeqCst), ROUNDS);
    });
}

// ---- WaitGroup --------------------------------------------------------------------------------

/// gevent `test__queue.py` `TestJoinEmpty`, `TestQueue.test_task_done` (Q3).
#[test]
fn a_group_is_waited_for_until_its_last_work_is_dropped() {
    testing::run(|| {
        let group = WaitGroup::new();
        group.wait();
        assert!(group.wait_timeout(Duration::ZERO));
        let before = reactor().now();
        for n in 1..=3 {
            let work = group.add();
            drop(spawn(move || {
                sleep(n * SECOND);
                drop(work);
            }));
        }
        assert_eq!(group.left(), 3);
        assert!(!group.wait_timeout(SECOND * 3 / 2));
        assert_eq!(group.left(), 2);
        group.wait();
        assert_eq!(reactor().now().duration_since(before), 3 * SECOND);
        assert_eq!(format!("{group:?}"), "WaitGroup { left: 0, waiting: 0 }");
    });
}

/// gevent's `task_done` must be called in a `finally`; here the dead have done.
#[test]
fn work_whose_worker_is_killed_or_never_runs_is_done() {
    testing::run(|| {
        let group = WaitGroup::new();
        let (first, second) = (group.add(), group.add());
        let killed = spawn(move || {
            let _first = first;
            sleep(HOUR);
        });
        yield_now();
        let never_ran = spawn(move || drop(second));
        killed.kill();
        never_ran.kill();
        group.wait();
        assert_eq!(group.left(), 0);
    });
}

#[test]
fn who_waits_goes_on_if_all_was_done_for_a_moment() {
    run(|| {
        let group = WaitGroup::new();
        let work = group.add();
        let theirs = group.clone();
        let waits = spawn(move || theirs.wait());
        let deferred = group.wait_deferred();
        let mut future = group.wait_async();
        assert!(poll(&mut future, Waker::noop()).is_pending());
        yield_now();
        drop(work);
        let _more = group.add();
        waits.join().unwrap();
        wait_for_deferred(deferred).unwrap();
        assert_eq!(poll(&mut future, Waker::noop()), Poll::Ready(()));
        assert!(!group.wait_timeout(Duration::ZERO), "who comes later waits");
    });
}

/// gevent `JoinableQueue`: what is in the channel counts, and what a worker has taken.
#[test]
fn a_channel_of_values_with_their_works_can_be_joined() {
    let trace = Trace::default();
    testing::run(|| {
        let group = WaitGroup::new();
        let (sender, receiver) = unbounded();
        for n in 0..2 {
            let (receiver, trace) = (receiver.clone(), trace.clone());
            drop(spawn(move || {
                for (job, _work) in &receiver {
                    sleep(SECOND);
                    trace.add(format_args!("{n} did {job}"));
                }
            }));
        }
        for job in 0..3 {
            sender.send((job, group.add())).unwrap();
        }
        group.wait();
        assert_eq!(trace.taken(), ["0 did 0", "1 did 1", "0 did 2"]);
        // What is dropped with the channel is done, too.
        let (nowhere, gone) = unbounded();
        nowhere.send((3, group.add())).unwrap();
        assert_eq!(group.left(), 1);
        drop(gone);
        group.wait();
    });
}

#[test]
fn work_is_done_by_threads_and_waited_for_in_every_style_on_several_hubs() {
    assert_ends(|| {
        let group = WaitGroup::new();
        let done = AtomicUsize::new(0);
        let begin = Barrier::new(7);
        let all_done = || assert_eq!(done.load(Ordering::SeqCst), 3);
        thread::scope(|threads| {
            for _ in 0..3 {
                let work = group.add();
                threads.spawn(|| {
                    let _work = work;
                    begin.wait();
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            threads.spawn(|| {
                begin.wait();
                group.wait();
                all_done();
            });
            threads.spawn(|| {
                begin.wait();
                block_on(group.wait_async());
                all_done();
            });
            threads.spawn(|| {
                run(|| {
                    begin.wait();
                    group.wait();
                    all_done();
                });
            });
            run(|| {
                let deferred = group.wait_deferred();
                begin.wait();
                wait_for_deferred(deferred).unwrap();
                all_done();
            });
        });
    });
}
