//! Groups and pools: gevent's `P1` and `P2`, and what a pool does for calls that borrow.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use greenloop::{
    AccessError, Deadline, Failure, JoinError, Killed, RunError, current, reactor, shield, sleep,
    spawn,
    task::{Group, Pool},
    testing, timeout, yield_now,
};

use crate::support::{Dropped, Trace, reports_of};

const SECOND: Duration = Duration::from_secs(1);
const AGES: Duration = Duration::from_secs(1_000_000);

fn elapsed() -> Duration {
    reactor().now().duration_since(Deadline::ZERO)
}

/// Sleeps for so many seconds, and gives them.
fn slept(seconds: u32) -> u32 {
    sleep(seconds * SECOND);
    seconds
}

fn oks<T: fmt::Debug>(results: impl Iterator<Item = Result<T, JoinError>>) -> Vec<T> {
    results.map(Result::unwrap).collect()
}

// ---- groups -----------------------------------------------------------------------------------

/// P1: `join` waits until the group is empty, once.
#[test]
fn a_group_is_joined_when_it_is_empty_whoever_comes_next() {
    testing::run(|| {
        let group = Group::new();
        group.join(); // nobody is in it
        let again = group.clone();
        group.spawn(move || {
            sleep(SECOND);
            again.spawn(|| sleep(2 * SECOND));
        });
        let next = group.clone();
        let waiter = spawn(move || {
            group.join();
            (elapsed(), group.len())
        });
        sleep(4 * SECOND);
        assert_eq!(waiter.join().unwrap(), (3 * SECOND, 0));
        next.spawn(|| sleep(SECOND));
        assert!(!next.join_timeout(SECOND / 2));
        assert_eq!(next.len(), 1);
        assert!(next.join_timeout(AGES) && next.is_empty());
        assert_eq!(elapsed(), 5 * SECOND);
    });
}

/// Whoever waits is told of the emptiness, though another member came before it ran.
#[test]
fn empty_at_least_once_is_enough() {
    testing::run(|| {
        let group = Group::new();
        group.spawn(|| sleep(SECOND)).link({
            let group = group.clone();
            move |_| drop(group.spawn(|| sleep(AGES)))
        });
        assert!(group.join_timeout(AGES));
        assert_eq!((elapsed(), group.len()), (SECOND, 1));
    });
}

/// P1, `test_kill_fires_once`; and those who come meanwhile are killed too.
#[test]
fn a_kill_of_a_group_reaches_each_member_once_and_those_that_come_until_it_is_empty() {
    testing::run(|| {
        let trace = Trace::default();
        let group = Group::new();
        for _ in 0..2 {
            let (told, again) = (trace.clone(), group.clone());
            group.spawn(move || {
                let _end = Dropped(told.clone(), "ended");
                shield(|| sleep(SECOND));
                let late = told.clone();
                again.spawn(move || late.add("a late one ran"));
                sleep(AGES);
            });
        }
        let delayed = greenloop::spawn_later(AGES, trace.adds("a delayed one ran"));
        group.add(&delayed);
        yield_now();
        group.kill();
        group.kill();
        group.join();
        assert_eq!(elapsed(), SECOND);
        assert_eq!(trace.taken(), ["ended", "ended"]);
        assert!(delayed.join().unwrap_err().is_killed());
        // It is as new.
        assert_eq!(group.spawn(|| slept(1)).join().unwrap(), 1);
    });
}

#[test]
fn a_kill_of_an_empty_group_is_nothing() {
    testing::run(|| {
        let group = Group::new();
        group.kill_with(Failure::msg("nobody"));
        assert_eq!(group.spawn(|| slept(1)).join().unwrap(), 1);
    });
}

/// A reason whose destructor panics.
#[derive(Debug)]
struct Nasty;

impl fmt::Display for Nasty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closing time")
    }
}

impl std::error::Error for Nasty {}

impl Drop for Nasty {
    fn drop(&mut self) {
        panic!("in the destructor");
    }
}

#[test]
fn all_members_share_a_reason_and_its_destructor_may_do_what_it_likes() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let group = Group::new();
            let members = [group.spawn(|| sleep(AGES)), group.spawn(|| sleep(AGES))];
            group.kill_with(Failure::msg("closing time"));
            let texts = members.map(|g| g.join().unwrap_err().to_string());
            assert_eq!(texts, ["the greenlet was killed: closing time"; 2]);

            let _detached = [group.spawn(|| sleep(AGES)), group.spawn(|| sleep(AGES))];
            let _ = _detached.map(drop);
            yield_now();
            group.kill_with(Nasty);
            group.join();
            testing::settle();
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("in the destructor"), "{reports:?}");
}

greenloop::greenlet_local! {
    static LATE: Late = Late;
}

thread_local! {
    /// What the value of `LATE` was told at its end.
    static TOLD: Cell<Option<AccessError>> = const { Cell::new(None) };
}

struct Late;

impl Drop for Late {
    fn drop(&mut self) {
        TOLD.set(LATE.try_with(|_| ()).err());
    }
}

/// Blocks in its destructor, and uses a local there.
#[derive(Debug)]
struct Thorough;

impl fmt::Display for Thorough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("thorough")
    }
}

impl std::error::Error for Thorough {}

impl Drop for Thorough {
    fn drop(&mut self) {
        sleep(SECOND);
        LATE.with(|_| ());
    }
}

/// The group's share was the last, and was dropped after all else of the last member.
#[test]
fn a_local_that_the_destructor_of_a_groups_reason_uses_is_dropped_on_the_members_stack() {
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let group = Group::new();
            drop(group.spawn(|| sleep(AGES)));
            yield_now();
            group.kill_with(Thorough);
            sleep(2 * SECOND);
        });
    });
    assert_eq!(reports, Vec::<String>::new());
    assert_eq!(TOLD.get(), Some(AccessError::Gone), "not where no greenlet runs");
}

#[test]
fn members_leave_on_every_way_out_and_one_may_be_added_later() {
    testing::run(|| {
        let group = Group::new();
        let returns = group.spawn(|| ());
        let panics = group.spawn(|| panic!("oh"));
        let unstarted = group.spawn(|| ());
        let (has_begun, goes_on) = (group.spawn(|| sleep(AGES)), spawn(|| sleep(SECOND)));
        group.add(&goes_on);
        unstarted.kill();
        assert_eq!(group.len(), 5);
        yield_now();
        yield_now();
        assert_eq!(group.len(), 2);
        has_begun.kill();
        group.join();
        assert_eq!(elapsed(), SECOND);
        group.add(&goes_on); // it has ended
        assert!(group.is_empty());
        returns.join().unwrap();
        assert!(panics.join().unwrap_err().panic().is_some());
        // The result is no part of it: a member has left when `join` returns.
        assert!(unstarted.join().is_err() && has_begun.join().is_err());
    });
}

#[test]
fn a_waiter_for_a_group_may_be_ended_at_any_suspension() {
    for kills in [true, false] {
        for half_seconds in 0..6 {
            testing::run(|| {
                let group = Group::new();
                let waited = group.clone();
                let limit = if kills { AGES } else { half_seconds * SECOND / 2 };
                let waiter = spawn(move || timeout(limit, || waited.join()).is_ok());
                for seconds in 1..3 {
                    group.spawn(move || slept(seconds));
                }
                sleep(half_seconds * SECOND / 2);
                if kills {
                    waiter.kill();
                }
                let _ = waiter.join();
                group.join();
                assert!(elapsed() >= half_seconds * SECOND / 2 && group.is_empty());
                assert!(half_seconds > 4 || elapsed() == 2 * SECOND, "{:?}", elapsed());
            });
        }
    }
}

// ---- places -----------------------------------------------------------------------------------

/// P2: `spawn` blocks when the pool is full.
#[test]
fn spawn_waits_for_room_and_those_who_wait_come_in_order() {
    testing::run(|| {
        let trace = Trace::default();
        let pool = Pool::new(2);
        let spawners: Vec<_> = (0..6)
            .map(|n| {
                let (pool, trace) = (pool.clone(), trace.clone());
                spawn(move || {
                    pool.spawn(move || {
                        trace.add(format!("{n} at {} s", elapsed().as_secs()));
                        sleep(SECOND);
                    });
                })
            })
            .collect();
        yield_now();
        assert_eq!((pool.size(), pool.free(), pool.len()), (2, 0, 2));
        greenloop::joinall(spawners);
        pool.join();
        let begun = ["0 at 0 s", "1 at 0 s", "2 at 1 s", "3 at 1 s", "4 at 2 s", "5 at 2 s"];
        assert_eq!(trace.taken(), begun);
        assert_eq!((pool.free(), pool.len(), elapsed()), (2, 0, 3 * SECOND));
    });
}

/// P2: `PoolFull`, without blocking and after a time.
#[test]
fn a_place_may_be_asked_for_without_waiting_for_a_time_and_kept() {
    testing::run(|| {
        let pool = Pool::new(1);
        let slot = pool.try_reserve().unwrap();
        assert_eq!((pool.free(), pool.len()), (0, 0));
        assert!(pool.try_reserve().is_none());
        assert!(pool.reserve_timeout(SECOND).is_none());
        assert_eq!(elapsed(), SECOND);
        let builder = greenloop::Builder::new().name("kept");
        let g = slot.spawn_with(builder, || slept(2)).unwrap();
        assert_eq!(g.name(), Some("kept"));
        let slot = pool.reserve_timeout(3 * SECOND).unwrap();
        assert_eq!(elapsed(), 3 * SECOND);
        drop(slot); // is given back
        assert_eq!(pool.reserve().spawn(|| 7).join().unwrap(), 7);
    });
}

/// P2: size 0 never admits; and a main greenlet that waits for it is told.
#[test]
fn a_pool_without_places_lets_nobody_in_and_main_is_told() {
    let ended: Result<(), RunError> = testing::try_run(|| {
        let pool = Pool::new(0);
        assert!(pool.try_reserve().is_none());
        assert!(pool.reserve_timeout(SECOND).is_none());
        assert!(catch_unwind(AssertUnwindSafe(|| pool.map([1], Ok::<_, Failure>))).is_err());
        pool.spawn(|| ());
    });
    let Err(RunError::WouldBlockForever(report)) = ended else { panic!("{ended:?}") };
    assert_eq!(report.parked()[0].waits_on, "a place in a pool");
}

/// A place that is given to a waiter at the moment of its end goes to the next.
#[test]
fn a_waiter_for_room_may_be_ended_at_any_suspension_and_no_place_is_lost() {
    for quarters in 0..16 {
        for kills in [true, false] {
            testing::run(|| {
                let pool = Pool::new(1);
                let trace = Trace::default();
                let at = quarters * SECOND / 4;
                let limit = if kills { AGES } else { at };
                let spawner = |name: &'static str, limit: Duration| {
                    let (pool, trace) = (pool.clone(), trace.clone());
                    spawn(move || {
                        let got = timeout(limit, || {
                            pool.spawn(|| sleep(SECOND));
                        });
                        trace.add(format!("{name} {}", got.is_ok()));
                    })
                };
                let _first = spawner("first", AGES);
                let dies = spawner("dies", limit);
                let last = spawner("last", AGES);
                sleep(at);
                if kills {
                    dies.kill();
                }
                last.join().unwrap();
                assert!(trace.taken().contains(&"last true".to_owned()));
                assert!(elapsed() <= 2 * SECOND || elapsed() == at, "{:?}", elapsed());
                pool.join();
                assert_eq!(pool.free(), 1, "{kills} {quarters}");
            });
        }
    }
}

/// Killed in the same turn in which it is granted a place: before it could run.
#[test]
fn a_place_granted_to_one_that_was_killed_meanwhile_goes_on() {
    testing::run(|| {
        let pool = Pool::new(1);
        let slot = pool.reserve();
        let waits = |pool: &Pool| {
            let pool = pool.clone();
            spawn(move || pool.spawn(|| 5).join().unwrap())
        };
        let (dies, lives) = (waits(&pool), waits(&pool));
        yield_now();
        drop(slot);
        dies.kill();
        assert_eq!(lives.join().unwrap(), 5);
        let _ = dies.join();
        assert_eq!(pool.free(), 1);
    });
}

#[test]
fn the_bound_holds_whatever_ends_how() {
    testing::run(|| {
        let pool = Pool::new(3);
        let (now, most) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        struct Inside(Rc<Cell<u32>>);
        impl Drop for Inside {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        let ((), reports) = reports_of(|| {
            for n in 0..200_u32 {
                let (now, most) = (Rc::clone(&now), Rc::clone(&most));
                let g = pool.spawn(move || {
                    now.set(now.get() + 1);
                    most.set(most.get().max(now.get()));
                    let _inside = Inside(now);
                    sleep(n * 7919 % 13 * SECOND);
                    assert!(n % 10 != 3, "one that panics");
                });
                if n % 7 == 0 {
                    g.kill();
                }
            }
            pool.join();
        });
        assert_eq!((now.get(), most.get(), pool.free()), (0, 3, 3));
        assert!(reports.iter().all(|report| report.contains("one that panics")));
        assert!((10..=20).contains(&reports.len()), "{}", reports.len());
    });
}

// ---- apply ------------------------------------------------------------------------------------

/// P2: `apply` from inside its own worker does not wait for itself.
#[test]
fn apply_inside_a_worker_of_a_full_pool_is_made_in_its_place() {
    testing::run(|| {
        let pool = Pool::new(1);
        let inner = pool.clone();
        let depth = pool.apply(|| {
            let worker = current();
            inner.apply(|| {
                assert_eq!(current(), worker);
                assert!(inner.apply(|| panic!("a panic is an error")).is_err());
                inner.apply(|| 3).unwrap()
            })
        });
        assert_eq!(depth.unwrap().unwrap(), 3);
        // With room, it is a greenlet of its own.
        let wide = Pool::new(2);
        let differs = wide.apply(|| {
            let worker = current();
            wide.apply(|| current() != worker).unwrap()
        });
        assert!(differs.unwrap());
        assert_eq!((pool.free(), wide.free(), wide.len()), (1, 2, 0));
    });
}

#[test]
fn apply_gives_a_borrowed_value_a_panic_or_a_kill() {
    testing::run(|| {
        let pool = Pool::new(1);
        let word = String::from("borrowed");
        assert_eq!(pool.apply(|| word.as_str()).unwrap(), "borrowed");
        let error = pool.apply(|| -> () { panic!("oh") }).unwrap_err();
        assert_eq!(error.panic().unwrap().message(), "oh");
        let killer = pool.clone();
        spawn(move || killer.kill_with(Failure::msg("no more")));
        let error = pool.apply(|| sleep(AGES)).unwrap_err();
        assert_eq!(error.killed().and_then(Killed::reason).unwrap().to_string(), "no more");
    });
}

#[test]
fn a_killed_caller_of_apply_ends_the_call_first() {
    testing::run(|| {
        let trace = Trace::default();
        let (pool, told) = (Pool::new(1), trace.clone());
        let caller = pool.clone();
        let g = spawn(move || {
            let _end = Dropped(told.clone(), "caller");
            let _ = caller.apply(|| {
                let _end = Dropped(told.clone(), "call");
                sleep(AGES);
            });
        });
        sleep(SECOND);
        g.kill();
        assert!(g.join().is_err());
        assert_eq!(trace.taken(), ["call", "caller"]);
        assert_eq!((pool.free(), pool.len()), (1, 0));
    });
}

// ---- map --------------------------------------------------------------------------------------

#[test]
fn map_shares_its_places_with_the_others_of_the_pool() {
    testing::run(|| {
        let pool = Pool::new(2);
        pool.spawn(|| sleep(3 * SECOND));
        // One place for three seconds, then two.
        let mapped = pool.map([2, 2, 2, 2], |n| Ok::<_, Failure>((slept(n), elapsed().as_secs())));
        assert_eq!(mapped.unwrap(), [(2, 2), (2, 4), (2, 5), (2, 6)]);
    });
}

#[test]
fn map_inside_a_worker_of_a_full_pool_makes_the_calls_itself() {
    testing::run(|| {
        let pool = Pool::new(1);
        let sums = pool.map([1, 2], |n| {
            let inner = pool.map([10, 20, 30], |m| Ok::<_, Failure>(m + n))?;
            Ok::<u32, Failure>(inner.iter().sum())
        });
        assert_eq!(sums.unwrap(), [63, 66]);
        let failing = pool.map([1], |_| pool.map([1, 2], |n| if n == 2 { Err(n) } else { Ok(n) }));
        assert_eq!(failing, Err(2));
        assert_eq!((pool.free(), pool.len()), (1, 0));
    });
}

/// The caller is ended too: where it waits for a place, and where the input blocks.
#[test]
fn an_error_is_noticed_while_the_caller_waits_for_room_and_for_items() {
    testing::run(|| {
        let fails_at_2 = |n: u32| {
            sleep(n * SECOND);
            if n == 2 { Err("at 2") } else { Ok(n) }
        };
        let pool = Pool::new(3);
        pool.spawn(|| sleep(AGES)); // takes a place for ever
        let ended = pool.map([2, 9, 1, 1], fails_at_2);
        assert_eq!((ended, elapsed()), (Err("at 2"), 2 * SECOND));
        let slow = [2, 1, 1].into_iter().inspect(|n| sleep(if *n == 1 { AGES } else { SECOND }));
        let ended = pool.map(slow, fails_at_2);
        assert_eq!((ended, elapsed()), (Err("at 2"), 5 * SECOND));
        // Inside a shield nothing unwinds the caller; it makes no more calls all the same.
        let ended = shield(|| {
            pool.map([2].into_iter().chain(std::iter::repeat(0)), |n| {
                if n == 0 {
                    sleep(SECOND)
                }
                fails_at_2(n)
            })
        });
        assert_eq!(ended, Err("at 2"));
        assert!(elapsed() <= 9 * SECOND);
    });
}

#[test]
fn a_kill_of_the_pool_ends_a_map_which_misses_results() {
    testing::run(|| {
        let pool = Pool::new(2);
        let killer = pool.clone();
        spawn(move || {
            sleep(SECOND);
            killer.kill();
        });
        let caught = catch_unwind(AssertUnwindSafe(|| {
            pool.map(0.., |_: u32| {
                sleep(AGES);
                Ok::<_, Failure>(())
            })
        }));
        let payload = caught.unwrap_err();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap();
        assert!(text.contains("a call was killed"), "{text}");
        assert_eq!((elapsed(), pool.free(), pool.len()), (SECOND, 2, 0));
    });
}

#[test]
fn a_map_may_be_ended_at_any_suspension() {
    for quarters in 0..20 {
        for kills in [true, false] {
            testing::run(|| {
                let pool = Pool::new(2);
                let token = Rc::new(());
                let at = quarters * SECOND / 4;
                let limit = if kills { AGES } else { at };
                let (mapping, held) = (pool.clone(), Rc::clone(&token));
                let g = spawn(move || {
                    let result = timeout(limit, || {
                        mapping.map(0..5, |n| {
                            let _held = Rc::clone(&held);
                            sleep(SECOND);
                            Ok::<_, Failure>(n)
                        })
                    });
                    assert_eq!(Rc::strong_count(&held), 2, "the calls have ended");
                    result.map(|values| values.unwrap().len())
                });
                sleep(at);
                if kills {
                    g.kill();
                }
                if let Ok(Ok(count)) = g.join() {
                    assert_eq!(count, 5);
                    assert!(quarters >= 12);
                }
                assert_eq!((pool.free(), pool.len()), (2, 0));
                assert_eq!(Rc::strong_count(&token), 1);
            });
        }
    }
}

// ---- imap -------------------------------------------------------------------------------------

/// P2: `imap` keeps the order of the items; `imap_unordered` that of the ends.
#[test]
fn imap_gives_results_in_order_and_imap_unordered_as_they_come() {
    testing::run(|| {
        let pool = Pool::new(3);
        assert_eq!(oks(pool.imap([3, 1, 2, 1], slept)), [3, 1, 2, 1]);
        assert_eq!(elapsed(), 4 * SECOND);
        assert_eq!(oks(pool.imap_unordered([3, 1, 2, 4], slept)), [1, 2, 3, 4]);
        assert_eq!(elapsed(), 9 * SECOND);
        assert!(pool.imap(Vec::<u32>::new(), slept).next().is_none());
    });
}

/// P2, `maxsize`: who is slow to take holds the input up.
#[test]
fn no_more_is_begun_than_the_pool_has_places_for_until_results_are_taken() {
    testing::run(|| {
        for ordered in [true, false] {
            let asked = Rc::new(Cell::new(0));
            let counter = Rc::clone(&asked);
            let items = (0..10).inspect(move |_| counter.set(counter.get() + 1));
            let pool = Pool::new(3);
            let call = |n: u32| {
                sleep(SECOND);
                n
            };
            let mut results =
                if ordered { pool.imap(items, call) } else { pool.imap_unordered(items, call) };
            assert_eq!(asked.get(), 0, "nothing begins before it is asked for");
            assert_eq!(results.next().unwrap().unwrap(), 0);
            sleep(10 * SECOND); // a slow consumer
            assert_eq!(asked.get(), 3);
            assert_eq!(pool.free(), 3);
            results.next().unwrap().unwrap();
            assert_eq!(asked.get(), 4);
            assert_eq!(oks(results).len(), 8);
            assert_eq!(asked.get(), 10);
        }
    });
}

/// P2, `TestErrorInIterator`: it comes at its position, and nothing hangs.
#[test]
fn a_panic_of_the_input_comes_after_the_results_of_what_came_before_it() {
    testing::run(|| {
        for ordered in [true, false] {
            let pool = Pool::new(4);
            let items = [2, 1].into_iter().chain(std::iter::once_with(|| panic!("no more items")));
            let mut results =
                if ordered { pool.imap(items, slept) } else { pool.imap_unordered(items, slept) };
            let first = [results.next(), results.next()].map(|r| r.unwrap().unwrap());
            assert_eq!(first, if ordered { [2, 1] } else { [1, 2] });
            let caught = catch_unwind(AssertUnwindSafe(|| results.next().is_some()));
            assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"no more items"));
            assert!(results.next().is_none(), "and ends");
            assert_eq!((pool.free(), pool.len()), (4, 0));
        }
    });
}

#[test]
fn a_call_that_panics_or_is_killed_is_an_error_in_its_place_and_the_others_go_on() {
    testing::run(|| {
        let pool = Pool::new(2);
        let results = pool.imap(0..4, |n| {
            if n == 1 {
                current().kill_with(Failure::msg("one"));
            }
            sleep(SECOND);
            assert!(n != 2, "two");
            n
        });
        let texts: Vec<String> = results
            .map(|result| match result {
                Ok(n) => n.to_string(),
                Err(JoinError::Killed(killed)) => killed.reason().unwrap().to_string(),
                Err(JoinError::Panicked(panic)) => panic.message().to_owned(),
            })
            .collect();
        assert_eq!(texts, ["0", "one", "two", "3"]);
    });
}

#[test]
fn dropping_the_iterator_kills_the_calls_that_nobody_will_take() {
    testing::run(|| {
        for ordered in [true, false] {
            let trace = Trace::default();
            let pool = Pool::new(3);
            let told = trace.clone();
            let call = move |n: u32| {
                let _end = Dropped(told.clone(), "ended");
                sleep(n * SECOND);
                told.add("in time");
            };
            let items = [1, 1000, 2000];
            let mut results =
                if ordered { pool.imap(items, call) } else { pool.imap_unordered(items, call) };
            results.next().unwrap().unwrap();
            drop(results);
            pool.join();
            assert_eq!(trace.taken(), ["in time", "ended", "ended", "ended"]);
            assert!(elapsed() <= 2 * SECOND);
        }
    });
}

#[test]
fn a_timeout_out_of_next_loses_nothing() {
    testing::run(|| {
        for ordered in [true, false] {
            let pool = Pool::new(2);
            let items = [3, 2, 4, 1];
            let mut results =
                if ordered { pool.imap(items, slept) } else { pool.imap_unordered(items, slept) };
            let mut taken = Vec::new();
            loop {
                match timeout(SECOND / 2, || results.next()) {
                    Ok(Some(result)) => taken.push(result.unwrap()),
                    Ok(None) => break,
                    Err(_) => {}
                }
            }
            assert_eq!(taken, if ordered { [3, 2, 4, 1] } else { [2, 3, 1, 4] });
        }
    });
}

#[test]
fn imap_inside_a_worker_of_a_full_pool_makes_the_calls_itself() {
    testing::run(|| {
        let pool = Pool::new(1);
        let inner = pool.clone();
        let all = pool.apply(|| {
            let worker = current();
            let calls: BTreeSet<u64> =
                oks(inner.imap(0..3, |_| current().id())).into_iter().collect();
            assert_eq!(calls, BTreeSet::from([worker.id()]));
            oks(inner.imap_unordered([3, 1, 2], slept))
        });
        assert_eq!(all.unwrap(), [3, 1, 2]);
    });
}

/// Two that share a pool too small for both neither wait for each other nor starve.
#[test]
fn iterators_that_share_a_pool_both_end() {
    testing::run(|| {
        let pool = Pool::new(2);
        let consumers = [true, false].map(|ordered| {
            let pool = pool.clone();
            spawn(move || {
                let calls = |n: u32| slept(n % 3);
                match ordered {
                    true => oks(pool.imap(0..20, calls)).len(),
                    false => oks(pool.imap_unordered(0..20, calls)).len(),
                }
            })
        });
        assert_eq!(consumers.map(|g| g.join().unwrap()), [20, 20]);
        assert_eq!((pool.free(), pool.len()), (2, 0));
    });
}

/// It has results to give: it does not stand in line for a place meanwhile.
#[test]
fn who_has_calls_of_its_own_does_not_wait_for_a_place_that_others_come_first_for() {
    testing::run(|| {
        let pool = Pool::new(2);
        pool.spawn(|| sleep(AGES));
        let mut results = pool.imap([1, 1].into_iter().inspect(|_| sleep(SECOND)), slept);
        let other = pool.clone();
        let in_line = spawn(move || {
            sleep(SECOND / 2);
            other.spawn(|| sleep(AGES));
        });
        let first = timeout(AGES / 2, || results.next().unwrap().unwrap());
        assert_eq!((first, elapsed()), (Ok(1), 2 * SECOND));
        in_line.join().unwrap();
        assert_eq!((pool.free(), pool.len()), (0, 2));
    });
}

#[test]
fn an_imap_may_be_ended_at_any_suspension() {
    for quarters in 0..20 {
        for ordered in [true, false] {
            testing::run(|| {
                let pool = Pool::new(2);
                let taken: Rc<RefCell<Vec<u32>>> = Rc::default();
                let (mapping, told) = (pool.clone(), Rc::clone(&taken));
                let consumer = spawn(move || {
                    let items = (1..6).inspect(|_| sleep(SECOND / 2));
                    let call = |n: u32| slept(n % 3);
                    let results = match ordered {
                        true => mapping.imap(items, call),
                        false => mapping.imap_unordered(items, call),
                    };
                    results.for_each(|result| told.borrow_mut().push(result.unwrap()));
                });
                sleep(quarters * SECOND / 4);
                consumer.kill();
                let _ = consumer.join();
                let end = elapsed();
                pool.join();
                assert_eq!(elapsed(), end, "the calls were killed");
                assert_eq!((pool.free(), pool.len()), (2, 0));
                assert_eq!(Rc::strong_count(&taken), 1);
            });
        }
    }
}
