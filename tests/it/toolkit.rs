//! What gevent's users reach for: kills with reasons, links, waits for many, scopes that fail as a
//! whole. `G` numbers are those of gevent's behaviours that a test ports.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    os::{fd::AsFd, unix::net::UnixStream},
    rc::Rc,
    time::Duration,
};

use greenloop::{
    Cancelled, Deadline, Deferred, Ending, Failure, Greenlet, JoinError, Killed, RunError,
    as_completed, current, joinall, joinall_timeout, killall, killall_timeout, reactor, shield,
    sleep, spawn, spawn_later, testing, timeout, try_run, try_scope, wait_for_deferred,
    wait_for_greenlet, wait_readable, yield_now,
};

use crate::support::{Dropped, Trace, reports_of};

const SECOND: Duration = Duration::from_secs(1);
const AGES: Duration = Duration::from_secs(1_000_000);

/// An error of the user's.
#[derive(Debug, PartialEq)]
struct Quota(u32);

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "quota of {} exceeded", self.0)
    }
}

impl Error for Quota {}

/// The quota for which somebody was killed.
#[track_caller]
fn quota(killed: &Killed) -> u32 {
    killed.reason().unwrap().downcast_ref::<Quota>().unwrap().0
}

#[track_caller]
fn quota_of<T: fmt::Debug>(ended: Result<T, JoinError>) -> u32 {
    quota(ended.unwrap_err().killed().unwrap())
}

/// G8: `kill(exception)` makes `get` raise it.
#[test]
fn the_reason_of_a_kill_reaches_the_joiner_as_the_value_that_it_is() {
    testing::run(|| {
        let g = spawn(|| sleep(AGES));
        yield_now();
        g.kill_with(Quota(3));
        let error = g.join().unwrap_err();
        assert!(error.is_killed());
        assert_eq!(error.to_string(), "the greenlet was killed: quota of 3 exceeded");
        assert_eq!(quota(error.killed().unwrap()), 3);
        assert!(error.panic().is_none());

        let g = spawn(|| sleep(AGES));
        g.as_ref().kill_with(Failure::msg("enough"));
        assert_eq!(g.join().unwrap_err().to_string(), "the greenlet was killed: enough");

        let g = spawn(|| sleep(AGES));
        g.kill();
        let error = g.join().unwrap_err();
        assert!(error.killed().unwrap().reason().is_none());
        assert_eq!(error.to_string(), "the greenlet was killed");
    });
}

/// G7: a kill is idempotent, also on one that runs or has ended.
#[test]
fn the_first_kill_counts_with_its_reason_or_without() {
    testing::run(|| {
        let g = spawn(|| sleep(AGES));
        yield_now();
        g.kill_with(Quota(1));
        g.kill_with(Quota(2));
        g.kill();
        assert_eq!(quota_of(g.join()), 1);

        let g = spawn(|| sleep(AGES));
        yield_now();
        g.kill();
        g.kill_with(Quota(1));
        assert!(g.join().unwrap_err().killed().unwrap().reason().is_none());

        let g = spawn(|| 5);
        yield_now();
        g.kill_with(Quota(1));
        assert_eq!(g.join().unwrap(), 5);
    });
}

/// A kill of oneself, and one whose target needs no further cancellation point: its value counts.
#[test]
fn a_value_that_comes_after_the_kill_counts_and_the_reason_is_dropped() {
    #[derive(Debug)]
    struct Reason(#[expect(dead_code, reason = "dropped")] std::sync::mpsc::Sender<()>);
    impl fmt::Display for Reason {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("?")
        }
    }
    impl Error for Reason {}
    testing::run(|| {
        let (sender, dropped) = std::sync::mpsc::channel();
        let g = spawn(move || {
            current().kill_with(Failure::new(Reason(sender)));
            5
        });
        assert_eq!(g.join().unwrap(), 5);
        assert_eq!(dropped.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected));
    });
}

/// Delivery of a user's error: calls that can fail and cannot be unwound out of fail with it.
#[test]
fn inside_a_shield_a_call_that_fails_for_a_kill_has_the_reason() {
    testing::run(|| {
        let trace = Trace::default();
        let told = trace.clone();
        let g = spawn(move || {
            let _end = Dropped(told.clone(), "unwound");
            shield(|| {
                let (ours, _theirs) = UnixStream::pair().unwrap();
                let error = wait_readable(ours.as_fd(), Deadline::NEVER).unwrap_err();
                let killed = error.get_ref().unwrap().downcast_ref::<Killed>().unwrap();
                told.add(format!("wait_readable: {}", quota(killed)));
                let (_resolver, never) = Deferred::<()>::new();
                let failure = wait_for_deferred(never).unwrap_err();
                told.add(format!("wait_for_deferred: {}", quota(failure.downcast_ref().unwrap())));
            });
            told.add("after the shield");
            sleep(AGES);
            told.add("not here");
        });
        yield_now();
        g.kill_with(Quota(7));
        assert_eq!(quota_of(g.join()), 7);
        let seen = ["wait_readable: 7", "wait_for_deferred: 7", "after the shield", "unwound"];
        assert_eq!(trace.taken(), seen);
    });
}

/// G7: killed before it was switched to, it never runs, but its links are told exactly once. G2: a
/// kill cancels a delayed start.
#[test]
fn one_killed_before_it_starts_never_runs_and_its_links_are_told_once_and_why() {
    type Spawn = fn(Trace) -> Greenlet<()>;
    let spawns: [Spawn; 2] =
        [|t| spawn(move || t.add("ran")), |t| spawn_later(AGES, move || t.add("ran"))];
    for start in spawns {
        testing::run(|| {
            let trace = Trace::default();
            let g = start(trace.clone());
            for name in ["first", "second"] {
                let told = trace.clone();
                g.link(move |ending| {
                    let Ending::Killed(killed) = ending else { panic!("{ending:?}") };
                    told.add(format!("{name}: {}", quota(killed)));
                });
            }
            g.kill_with(Quota(1));
            g.kill();
            assert_eq!(quota_of(g.join()), 1);
            testing::settle();
            assert_eq!(trace.taken(), ["first: 1", "second: 1"]);
            assert_eq!(reactor().now(), Deadline::ZERO);
        });
    }
}

/// G9: a target may hold its kill up; whoever waits for a time is told, and may wait again.
#[test]
fn kill_and_wait_is_kill_and_join_for_a_time_if_need_be() {
    testing::run(|| {
        let g = spawn(|| {
            shield(|| sleep(2 * SECOND));
            sleep(AGES);
        });
        yield_now();
        g.kill_with(Quota(1));
        let g = g.join_timeout(SECOND).unwrap_err();
        assert!(!g.is_finished());
        let ended = g.join_timeout(2 * SECOND).unwrap();
        assert_eq!(quota_of(ended), 1);
        assert_eq!(reactor().now(), Deadline::ZERO + 2 * SECOND);
    });
}

/// G12: what ends by a kill is no error that somebody must be told of: the killer knows.
#[test]
fn a_kill_for_a_reason_is_not_reported_if_nobody_joins() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let g = spawn(|| sleep(AGES));
            yield_now();
            g.kill_with(Quota(1));
        });
    });
    assert_eq!(reports, [""; 0]);
}

#[test]
fn a_main_greenlet_killed_for_a_reason_ends_its_run_with_it() {
    let ended: Result<(), RunError> = testing::try_run(|| {
        let main = current();
        spawn(move || main.kill_with(Quota(4)));
        sleep(AGES);
    });
    let error = ended.unwrap_err();
    assert_eq!(error.to_string(), "the main greenlet was killed: quota of 4 exceeded");
    let RunError::Killed(killed) = error else { panic!("{error:?}") };
    assert_eq!(quota(&killed), 4);
}

#[test]
fn the_deferred_of_a_greenlet_fails_with_the_reason_and_with_cancelled_without_one() {
    testing::run(|| {
        let g = spawn(|| sleep(AGES));
        let target = g.as_ref();
        let deferred = wait_for_greenlet(g);
        target.kill_with(Quota(5));
        let failure = wait_for_deferred(deferred).unwrap_err();
        assert_eq!(quota(failure.downcast_ref().unwrap()), 5);

        let g = spawn(|| sleep(AGES));
        let target = g.as_ref();
        let deferred = wait_for_greenlet(g);
        target.kill();
        assert!(wait_for_deferred(deferred).unwrap_err().is::<Cancelled>());
    });
}

#[test]
fn the_destructor_of_a_reason_may_block_on_its_greenlet_and_its_panic_is_reported() {
    #[derive(Debug)]
    struct Nasty;
    impl fmt::Display for Nasty {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("nasty")
        }
    }
    impl Error for Nasty {}
    impl Drop for Nasty {
        fn drop(&mut self) {
            sleep(SECOND);
            panic!("in the destructor of a reason");
        }
    }
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let g = spawn(|| current().kill_with(Nasty));
            g.join().unwrap();
            sleep(2 * SECOND);
            // One that was told of its kill, and is detached.
            let g = spawn(|| sleep(AGES));
            yield_now();
            g.kill_with(Nasty);
            drop(g);
            sleep(2 * SECOND);
            // The same in a call of the reactor's, whose greenlet serves others.
            reactor().call_later(SECOND, || current().kill_with(Nasty));
            sleep(4 * SECOND);
        });
    });
    let what = "the destructor of a kill's reason: in the destructor of a reason";
    assert_eq!(reports.len(), 3, "{reports:?}");
    assert!(reports.iter().all(|report| report.contains(what)), "{reports:?}");
}

#[test]
fn the_reason_for_one_call_of_the_reactor_does_not_reach_the_next() {
    testing::run(|| {
        let seen: Rc<RefCell<Vec<Option<u32>>>> = Rc::default();
        for kills in [true, false] {
            let seen = Rc::clone(&seen);
            reactor().call_later(SECOND, move || {
                if kills {
                    current().kill_with(Quota(1));
                }
                let (_resolver, never) = Deferred::<()>::new();
                let ended = timeout(SECOND, || shield(|| wait_for_deferred_or_sleep(never, kills)));
                seen.borrow_mut().push(ended.unwrap_or(None));
            });
        }
        sleep(10 * SECOND);
        assert_eq!(*seen.borrow(), [Some(1), None]);
    });
}

/// The quota for which the caller is killed, if it is.
fn wait_for_deferred_or_sleep(never: Deferred<()>, wait: bool) -> Option<u32> {
    if !wait {
        let (resolver, deferred) = Deferred::new();
        reactor().call_later(SECOND, move || resolver.callback(()));
        return wait_for_deferred(deferred).err().map(|f| quota(f.downcast_ref().unwrap()));
    }
    let failure = wait_for_deferred(never).unwrap_err();
    Some(quota(failure.downcast_ref().unwrap()))
}

/// G11: `unlink`, before the end and between the end and the call.
#[test]
fn a_link_that_was_taken_back_is_not_called_and_what_it_captured_is_dropped() {
    testing::run(|| {
        let trace = Trace::default();
        let g = spawn(|| 5);
        let (first, second) = (Rc::new(()), Rc::new(()));
        let (held, told) = (Rc::clone(&first), trace.clone());
        let link = g.link(move |_| told.add(format!("{held:?}")));
        assert!(link.unlink());
        assert_eq!(Rc::strong_count(&first), 1);

        let (held, told) = (Rc::clone(&second), trace.clone());
        let link = g.link(move |_| told.add(format!("{held:?}")));
        while !g.is_finished() {
            yield_now();
        }
        // Made by hand, since the call of a link is due as soon as the greenlet has ended.
        let after = g.link(trace.clone().adds_for_link("after the end"));
        assert!(after.unlink());
        assert!(!link.unlink(), "it was called");
        assert_eq!(Rc::strong_count(&second), 1);
        testing::settle();
        assert_eq!(trace.taken(), ["()"]);
        assert_eq!(g.join().unwrap(), 5);
    });
}

impl Trace {
    /// A link that adds `what`.
    fn adds_for_link(self, what: &'static str) -> impl FnOnce(&Ending) + 'static {
        move |_| self.add(what)
    }
}

/// G11: links run in the order of their making; an early one may unlink later ones, or add some.
#[test]
fn a_link_may_take_back_a_later_one_and_make_new_ones() {
    testing::run(|| {
        let trace = Trace::default();
        let g = Rc::new(spawn(|| ()));
        let later: Rc<Cell<Option<greenloop::Link>>> = Rc::default();
        let (told, victim, again) = (trace.clone(), Rc::clone(&later), Rc::clone(&g));
        g.link(move |_| {
            told.add("early");
            assert!(victim.take().unwrap().unlink());
            again.link(told.adds_for_link("new"));
        });
        later.set(Some(g.link(trace.clone().adds_for_link("later"))));
        g.link(trace.clone().adds_for_link("last"));
        sleep(SECOND);
        assert_eq!(trace.taken(), ["early", "last", "new"]);
    });
}

/// Nothing piles up in a greenlet that lives for long.
#[test]
fn links_that_come_and_go_leave_the_others_in_order() {
    testing::run(|| {
        let trace = Trace::default();
        let g = spawn(|| sleep(SECOND));
        for number in 0..100 {
            let link = g.link(trace.clone().adds_for_link("gone"));
            let told = trace.clone();
            if number % 10 == 0 {
                g.link(move |_| told.add(number));
            }
            link.unlink();
        }
        sleep(2 * SECOND);
        assert_eq!(trace.taken(), ["0", "10", "20", "30", "40", "50", "60", "70", "80", "90"]);
    });
}

/// A greenlet that ends after so many seconds, with their number.
fn sleeper(seconds: u32) -> Greenlet<u32> {
    spawn(move || {
        sleep(seconds * SECOND);
        seconds
    })
}

fn seconds(greenlets: impl IntoIterator<Item = Greenlet<u32>>) -> Vec<u32> {
    greenlets.into_iter().map(|g| g.join().unwrap()).collect()
}

fn elapsed() -> Duration {
    reactor().now().duration_since(Deadline::ZERO)
}

/// G16.
#[test]
fn greenlets_are_given_in_the_order_of_their_ends_each_when_it_ends() {
    testing::run(|| {
        let mut at = Vec::new();
        for g in as_completed([3, 1, 2].map(sleeper)) {
            assert!(g.is_finished());
            at.push((elapsed().as_secs(), g.join().unwrap()));
        }
        assert_eq!(at, [(1, 1), (2, 2), (3, 3)]);
        assert_eq!(seconds(joinall([6, 4, 5].map(sleeper))), [4, 5, 6]);
    });
}

#[test]
fn those_that_have_ended_come_first_in_the_order_in_which_they_are_passed() {
    testing::run(|| {
        let greenlets = [2, 1, 7, 3].map(sleeper);
        sleep(5 * SECOND);
        let mut set = as_completed(greenlets);
        let first: Vec<Greenlet<u32>> = set.by_ref().take(3).collect();
        assert_eq!(elapsed(), 5 * SECOND);
        assert_eq!(seconds(first), [2, 1, 3]);
        assert_eq!(seconds(set), [7]);
    });
}

/// G16, `count`: the rest goes on.
#[test]
fn a_part_of_them_may_be_waited_for_and_the_rest_goes_on() {
    testing::run(|| {
        let trace = Trace::default();
        let greenlets = [3, 1, 2].map(|n| {
            let told = trace.clone();
            spawn(move || {
                sleep(n * SECOND);
                told.add(n);
                n
            })
        });
        assert_eq!(seconds(as_completed(greenlets).take(2)), [1, 2]);
        assert_eq!(elapsed(), 2 * SECOND);
        sleep(2 * SECOND);
        assert_eq!(trace.taken(), ["1", "2", "3"]);
    });
}

/// G16, `raise_error`: the first failure comes out at once.
#[test]
fn the_first_that_fails_ends_a_collect_of_results() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let killed = sleeper(9);
            killed.kill_with(Quota(2));
            let failing = [sleeper(3), killed, sleeper(1)];
            let all: Result<Vec<u32>, JoinError> =
                as_completed(failing).map(|g| g.join()).collect();
            assert_eq!(quota_of(all), 2);
            assert_eq!(elapsed(), Duration::ZERO);

            let panics = spawn(|| {
                sleep(2 * SECOND);
                panic!("oh")
            });
            let failing = [sleeper(3), panics, sleeper(1)];
            let all: Result<Vec<u32>, JoinError> =
                as_completed(failing).map(|g| g.join()).collect();
            assert_eq!(all.unwrap_err().panic().unwrap().message(), "oh");
            assert_eq!(elapsed(), 2 * SECOND);
        });
    });
    assert_eq!(reports, [""; 0], "the panic was taken");
}

/// G16, `timeout`: a list that may be partial; G9 for those that remain.
#[test]
fn a_limit_tells_those_that_have_ended_from_those_that_have_not() {
    testing::run(|| {
        let (ended, rest) = joinall_timeout([9, 1, 2].map(sleeper), 5 * SECOND);
        assert_eq!(seconds(ended), [1, 2]);
        assert_eq!(elapsed(), 5 * SECOND);
        assert!(!rest[0].is_finished());
        // Each is as it was: it can be joined.
        assert_eq!(seconds(rest), [9]);
        assert_eq!(elapsed(), 9 * SECOND);

        let mut set = as_completed([sleeper(4)]);
        assert!(set.next_timeout(SECOND).is_err());
        assert!(set.try_next().is_none());
        assert_eq!(set.len(), 1);
        assert_eq!(set.next_timeout(4 * SECOND).unwrap().unwrap().join().unwrap(), 4);
        assert!(set.next_timeout(SECOND).unwrap().is_none() && set.is_empty());
    });
}

/// One that ends at the very time of the limit is not lost, whoever comes first.
#[test]
fn an_end_at_the_time_of_the_limit_counts() {
    testing::run(|| {
        let (ended, rest) = joinall_timeout([1, 2].map(sleeper), 2 * SECOND);
        let (ended, rest) = (ended.len(), rest.len());
        assert_eq!((ended, rest), (2, 0));
        let (ended, rest) = joinall_timeout([sleeper(0)], Duration::ZERO);
        assert_eq!(ended.len() + rest.len(), 1);
    });
}

/// G6: a timeout that is not one's own goes through the wait.
#[test]
fn an_outer_timeout_goes_through_a_wait_for_many() {
    testing::run(|| {
        let outer = timeout(SECOND, || joinall_timeout([2, 3].map(sleeper), 5 * SECOND));
        assert!(outer.is_err());
        assert_eq!(elapsed(), SECOND);
        let outer = timeout(SECOND, || as_completed([2, 3].map(sleeper)).count());
        assert!(outer.is_err());
    });
}

#[test]
fn killall_waits_for_all_and_for_a_time_says_who_remains() {
    testing::run(|| {
        let stubborn = || {
            spawn(|| {
                shield(|| sleep(2 * SECOND));
                sleep(AGES);
            })
        };
        let mut greenlets = vec![stubborn(), spawn(|| sleep(AGES)), spawn(|| ())];
        yield_now();
        let ended = killall(greenlets.drain(..));
        assert_eq!(elapsed(), 2 * SECOND);
        let killed: Vec<bool> = ended.into_iter().map(|g| g.join().is_err()).collect();
        assert_eq!(killed, [false, true, true], "in the order of their ends");

        let greenlets = [stubborn(), spawn(|| sleep(AGES))];
        yield_now();
        let (ended, rest) = killall_timeout(greenlets, SECOND);
        assert_eq!((ended.len(), rest.len()), (1, 1));
        assert!(!rest[0].is_finished());
        assert_eq!(elapsed(), 3 * SECOND);
        // Without waiting.
        let quick = [sleeper(1), sleeper(2)];
        quick.iter().for_each(Greenlet::kill);
        assert!(!quick[0].is_finished());
    });
}

#[test]
fn more_may_be_waited_for_meanwhile_and_a_reason_is_shared_by_all_that_are_left() {
    testing::run(|| {
        let mut set = as_completed([sleeper(2)]);
        set.push(sleeper(1));
        assert_eq!(set.next().unwrap().join().unwrap(), 1);
        for n in 3..6 {
            set.push(sleeper(n));
        }
        assert_eq!((set.len(), set.size_hint()), (4, (4, Some(4))));
        assert_eq!(set.next().unwrap().join().unwrap(), 2);
        set.kill_with(Quota(8));
        let quotas: Vec<u32> = set.map(|g| quota_of(g.join())).collect();
        assert_eq!(quotas, [8, 8, 8]);
    });
}

/// Killed or timed out at any moment, a waiter leaves nothing behind, and the greenlets go on.
#[test]
fn a_waiter_for_many_may_be_ended_at_any_suspension() {
    for half_seconds in 0..10 {
        for kills in [true, false] {
            testing::run(|| {
                let trace = Trace::default();
                let token = Rc::new(());
                let (told, held) = (trace.clone(), Rc::clone(&token));
                let limit = if kills { AGES } else { half_seconds * SECOND / 2 };
                let waiter = spawn(move || {
                    let greenlets = [3, 1, 2, 4].map(|n| {
                        let (told, held) = (told.clone(), Rc::clone(&held));
                        spawn(move || {
                            sleep(n * SECOND);
                            told.add(format!("{n} ends"));
                            drop(held);
                        })
                    });
                    timeout(limit, || {
                        for g in as_completed(greenlets) {
                            g.join().unwrap();
                            told.add("given");
                        }
                    })
                });
                sleep(half_seconds * SECOND / 2);
                waiter.kill();
                let _ = waiter.join();
                sleep(10 * SECOND);
                let seen = trace.taken();
                let ends = seen.iter().filter(|s| s.contains("ends")).count();
                assert_eq!(ends, 4, "{kills}, {half_seconds}: {seen:?}");
                let given = seen.iter().filter(|s| *s == "given").count() as u32;
                let (before, by) = ((half_seconds.max(1) - 1) / 2, half_seconds / 2);
                assert!((before.min(4)..=by.min(4)).contains(&given), "{half_seconds}: {seen:?}");
                assert_eq!(Rc::strong_count(&token), 1);
            });
        }
    }
}

#[test]
fn a_set_that_is_dropped_lets_go_and_reports_the_panic_that_nobody_took_once() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let panics = spawn(|| panic!("nobody looks"));
            let set = as_completed([panics, spawn(|| sleep(SECOND))]);
            yield_now();
            drop(set);
            sleep(2 * SECOND);
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("nobody looks"));
}

/// No greenlet but those that are waited for, and whoever waits.
#[test]
fn a_wait_for_many_makes_no_greenlets_of_its_own_and_is_told_when_it_is_for_ever() {
    let ended = try_run(|| {
        let greenlets: Vec<Greenlet<()>> = (0..100)
            .map(|_| {
                spawn(|| {
                    let (_resolver, never) = Deferred::<()>::new();
                    let _ = wait_for_deferred(never);
                })
            })
            .collect();
        joinall(greenlets).len()
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    assert_eq!(report.parked().len(), 101);
    assert_eq!(report.parked()[0].waits_on, "100 greenlet(s) to end");
}

#[test]
fn outside_a_run_those_that_have_ended_are_given_and_none_is_waited_for() {
    let ended = testing::run(|| {
        let g = spawn(|| 5);
        yield_now();
        g
    });
    assert!(joinall([ended])[0].is_finished());
    assert_eq!(as_completed(Vec::<Greenlet<()>>::new()).count(), 0);
}

// ---- try_scope --------------------------------------------------------------------------------

/// trio: a nursery's first failure cancels the rest, the body too.
#[test]
fn the_first_error_of_a_child_ends_its_siblings_and_the_body_and_is_returned() {
    testing::run(|| {
        let trace = Trace::default();
        let ended: Result<(), Quota> = try_scope(|s| {
            let _end = Dropped(trace.clone(), "body");
            for seconds in [1, 2, 3] {
                let told = trace.clone();
                s.spawn(move || -> Result<(), Quota> {
                    let _end = Dropped(told, ["", "failing", "second", "third"][seconds as usize]);
                    sleep(seconds * SECOND);
                    Err(Quota(seconds))
                });
            }
            sleep(AGES);
            unreachable!("the body goes on");
        });
        assert_eq!(ended, Err(Quota(1)));
        assert_eq!(elapsed(), SECOND);
        assert_eq!(trace.taken(), ["failing", "second", "third", "body"]);
        // Nothing of it is left.
        sleep(SECOND);
        assert_eq!(elapsed(), 2 * SECOND);
    });
}

#[test]
fn without_an_error_it_gives_the_bodys_value_once_the_children_have_ended() {
    testing::run(|| {
        let mut words = vec![String::from("a")];
        let ended: Result<usize, Quota> = try_scope(|s| {
            let length = s.spawn(|| {
                sleep(2 * SECOND);
                words.push("b".into()); // borrows
                Ok(words.len())
            });
            let killed = s.spawn(|| {
                sleep(AGES);
                Ok(())
            });
            killed.kill(); // is no failure
            assert!(killed.join().unwrap_err().is_killed());
            s.spawn(|| {
                sleep(3 * SECOND);
                Ok(())
            });
            Ok(length.join().unwrap())
        });
        assert_eq!((ended, elapsed()), (Ok(2), 3 * SECOND));
    });
}

#[test]
fn an_error_of_the_body_ends_the_children_and_is_returned_when_they_have_ended() {
    testing::run(|| {
        let ended: Result<(), &str> = try_scope(|s| {
            s.spawn(|| {
                shield(|| sleep(2 * SECOND));
                sleep(AGES);
                Err::<(), _>("too late")
            });
            yield_now();
            Err("of the body")
        });
        assert_eq!((ended, elapsed()), (Err("of the body"), 2 * SECOND));
    });
}

#[test]
fn an_error_that_comes_while_the_scope_waits_for_its_children_ends_the_others() {
    testing::run(|| {
        let ended: Result<u32, &str> = try_scope(|s| {
            s.spawn(|| {
                sleep(AGES);
                Ok(())
            });
            s.spawn(|| {
                sleep(SECOND);
                Err::<(), _>("late")
            });
            Ok(5)
        });
        assert_eq!((ended, elapsed()), (Err("late"), SECOND));
    });
}

/// A join that ends because of it says nothing: body and sibling end, and the error is the scope's.
#[test]
fn whoever_joins_a_sibling_that_the_error_ends_is_ended_too() {
    testing::run(|| {
        let ended: Result<u32, &str> = try_scope(|s| {
            let page = s.spawn(|| Ok(slept_for(9)));
            let _joins = s.spawn(|| Ok(page.join().unwrap()));
            let other = s.spawn(|| Ok(slept_for(9)));
            s.spawn(|| -> Result<(), _> {
                sleep(SECOND);
                Err("no such host")
            });
            Ok(other.join().unwrap())
        });
        assert_eq!((ended, elapsed()), (Err("no such host"), SECOND));
    });
}

fn slept_for(seconds: u32) -> u32 {
    sleep(seconds * SECOND);
    seconds
}

#[test]
fn of_several_errors_the_first_in_time_counts() {
    testing::run(|| {
        let ended: Result<(), Quota> = try_scope(|s| {
            for seconds in [3, 1, 2] {
                s.spawn(move || {
                    shield(|| sleep(seconds * SECOND));
                    Err::<(), _>(Quota(seconds))
                });
            }
            shield(|| sleep(4 * SECOND));
            Err(Quota(4))
        });
        assert_eq!((ended, elapsed()), (Err(Quota(1)), 4 * SECOND));
    });
}

#[test]
fn a_panic_of_a_child_ends_all_and_counts_for_more_than_an_error() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let caught = std::panic::catch_unwind(|| {
                try_scope(|s| -> Result<(), &str> {
                    s.spawn(|| {
                        sleep(SECOND);
                        Err::<(), _>("an error")
                    });
                    s.spawn(|| -> Result<(), &str> {
                        let _ = std::panic::catch_unwind(|| sleep(AGES));
                        panic!("a panic")
                    });
                    sleep(AGES);
                    Ok(())
                })
            });
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"a panic"));
            assert_eq!(elapsed(), SECOND);
            let caught = std::panic::catch_unwind(|| {
                try_scope(|s| -> Result<(), &str> {
                    s.spawn(|| -> Result<(), &str> { panic!("first") });
                    sleep(AGES);
                    Ok(())
                })
            });
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"first"));
            assert_eq!(elapsed(), SECOND, "the body was ended");
        });
    });
    assert_eq!(reports.len(), 0, "{reports:?}");
}

/// Dropped before the children have ended, it would let the scope be left while they borrow.
#[test]
fn an_error_that_panics_when_it_is_dropped_ends_no_scope_before_its_children() {
    struct Bomb(bool);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(!self.0, "an error is dropped");
        }
    }
    testing::run(|| {
        let trace = Trace::default();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            try_scope(|s| -> Result<(), Bomb> {
                let told = trace.clone();
                s.spawn(move || {
                    let _end = Dropped(told, "child");
                    shield(|| sleep(SECOND));
                    Ok(())
                });
                s.spawn(|| Err::<(), _>(Bomb(false)));
                shield(yield_now);
                Err(Bomb(true))
            })
        }));
        assert_eq!(trace.taken(), ["child"]);
        assert_eq!(elapsed(), SECOND);
        let payload = caught.map(|ended| ended.is_ok()).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"an error is dropped"));
    });
}

/// Calls `f` when it is dropped.
fn scopeguard(f: impl FnMut()) -> impl Drop {
    struct Guard<F: FnMut()>(F);
    impl<F: FnMut()> Drop for Guard<F> {
        fn drop(&mut self) {
            (self.0)();
        }
    }
    Guard(f)
}

#[test]
fn a_deadline_for_a_whole_scope_is_a_timeout_around_it() {
    testing::run(|| {
        let trace = Trace::default();
        let ended = timeout(2 * SECOND, || {
            try_scope(|s| -> Result<(), Quota> {
                s.spawn(|| {
                    let _end = Dropped(trace.clone(), "child");
                    sleep(AGES);
                    Ok(())
                });
                Ok(())
            })
        });
        assert!(ended.is_err());
        assert_eq!((elapsed(), trace.taken()), (2 * SECOND, vec!["child".to_owned()]));
    });
}

#[test]
fn a_shield_in_the_body_holds_its_end_back_and_timeouts_in_it_are_their_own() {
    testing::run(|| {
        let trace = Trace::default();
        let ended: Result<(), Quota> = try_scope(|s| {
            s.spawn(|| Err::<(), _>(Quota(1)));
            shield(|| {
                sleep(SECOND);
                assert!(s.has_failed());
                assert!(timeout(SECOND, || sleep(AGES)).is_err());
                trace.add("shielded");
            });
            trace.add("after it");
            let inner = timeout(AGES, || sleep(AGES));
            unreachable!("{inner:?}");
        });
        assert_eq!((ended, elapsed()), (Err(Quota(1)), 2 * SECOND));
        assert_eq!(trace.taken(), ["shielded", "after it"]);
        // The same when a timeout inside the body has been left meanwhile.
        let ended: Result<(), Quota> = try_scope(|s| {
            s.spawn(|| Err::<(), _>(Quota(2)));
            assert!(timeout(AGES, || shield(|| sleep(SECOND))).is_ok());
            sleep(AGES);
            Ok(())
        });
        assert_eq!((ended, elapsed()), (Err(Quota(2)), 3 * SECOND));
    });
}

/// T3: identity. Whatever stands between, the end of a body is taken by its own scope.
#[test]
fn the_end_of_a_body_goes_through_timeouts_and_scopes_inside_it() {
    testing::run(|| {
        let trace = Trace::default();
        let outer = timeout(10 * SECOND, || {
            let ended: Result<(), Quota> = try_scope(|s| {
                s.spawn(|| {
                    sleep(SECOND);
                    Err::<(), _>(Quota(1))
                });
                let inner = timeout(5 * SECOND, || {
                    try_scope(|s| -> Result<(), Quota> {
                        s.spawn(|| {
                            let _end = Dropped(trace.clone(), "grandchild");
                            sleep(AGES);
                            Ok(())
                        });
                        sleep(AGES);
                        Ok(())
                    })
                });
                unreachable!("{inner:?}");
            });
            assert_eq!((ended, elapsed()), (Err(Quota(1)), SECOND));
            // An inner one that fails is nothing to the outer one.
            let ended: Result<u32, Quota> = try_scope(|s| {
                s.spawn(|| {
                    sleep(SECOND);
                    Ok(())
                });
                let inner: Result<(), Quota> = try_scope(|s| {
                    s.spawn(|| Err::<(), _>(Quota(2)));
                    sleep(AGES);
                    Ok(())
                });
                assert_eq!(inner, Err(Quota(2)));
                sleep(3 * SECOND);
                Ok(7)
            });
            assert_eq!((ended, elapsed()), (Ok(7), 4 * SECOND));
            sleep(AGES);
        });
        assert!(outer.is_err());
        assert_eq!(elapsed(), 10 * SECOND, "the timeout around them all stands");
        assert_eq!(trace.taken(), ["grandchild"]);
    });
}

#[test]
fn a_body_that_is_unwinding_already_goes_on_and_may_ask() {
    testing::run(|| {
        let trace = Trace::default();
        let told = trace.clone();
        let g = spawn(move || {
            let _end = scopeguard(move || {
                let ended: Result<(), Quota> = try_scope(|s| {
                    s.spawn(|| Err::<(), _>(Quota(1)));
                    sleep(SECOND);
                    told.add(s.has_failed());
                    Ok(())
                });
                told.add(format!("{ended:?}"));
            });
            sleep(AGES);
        });
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(trace.taken(), ["true", "Err(Quota(1))"]);
    });
}

/// Kill and timeout at any moment: the children have ended, and nothing is left.
#[test]
fn a_failing_scope_may_be_ended_at_any_suspension() {
    for half_seconds in 0..12 {
        for kills in [true, false] {
            testing::run(|| {
                let token = Rc::new(());
                let held = Rc::clone(&token);
                let limit = if kills { AGES } else { half_seconds * SECOND / 2 };
                let parent = spawn(move || {
                    let ended = timeout(limit, || {
                        try_scope(|s| -> Result<(), Quota> {
                            for n in 1..=4 {
                                let held = Rc::clone(&held);
                                s.spawn(move || {
                                    sleep(n * SECOND);
                                    let _held = held;
                                    if n == 3 { Err(Quota(n)) } else { Ok(()) }
                                });
                            }
                            sleep(2 * SECOND);
                            Ok(())
                        })
                    });
                    assert_eq!(Rc::strong_count(&held), 2, "the children have ended");
                    if let Ok(ended) = ended {
                        assert_eq!(ended, Err(Quota(3)));
                    }
                    // Neither limit nor scope is felt any more.
                    sleep(SECOND);
                    elapsed()
                });
                sleep(half_seconds * SECOND / 2);
                if kills {
                    parent.kill();
                }
                match parent.join() {
                    Ok(ended) => assert!(ended >= SECOND, "{ended:?}"),
                    Err(error) => assert!(kills && error.is_killed()),
                }
                assert_eq!(Rc::strong_count(&token), 1);
            });
        }
    }
}
