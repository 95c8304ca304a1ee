//! Greenlet-locals and contexts: whose value is seen where, and when it is dropped.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use greenloop::{
    AccessError, Builder, Context, ContextVar, Deferred, Failure, greenlet_local, is_kill, reactor,
    run, scope, sleep, spawn, spawn_later, sync, testing, wait_for_deferred, wait_for_future,
    yield_now,
};

use crate::support::{Dropped, Trace, reports_of};

const MOMENT: Duration = Duration::from_millis(1);

greenlet_local! {
    static NUMBER: Cell<u32> = Cell::new(1);
    static LIST: RefCell<Vec<u32>> = RefCell::new(vec![1]);
}

/// gevent `local`: attributes set in one greenlet are not seen in another.
#[test]
fn each_greenlet_has_a_value_of_its_own_and_main_too() {
    run(|| {
        NUMBER.set(2);
        let others: Vec<_> = (10..13)
            .map(|n| {
                spawn(move || {
                    let first = NUMBER.replace(n);
                    yield_now();
                    (first, NUMBER.get())
                })
            })
            .collect();
        let seen: Vec<_> = others.into_iter().map(|other| other.join().unwrap()).collect();
        assert_eq!(seen, [(1, 10), (1, 11), (1, 12)]);
        assert_eq!(NUMBER.get(), 2);
    });
    run(|| assert_eq!(NUMBER.get(), 1, "another run has another main"));
}

#[test]
fn the_names_are_those_of_stds_local_key() {
    run(|| {
        assert_eq!((NUMBER.get(), NUMBER.take(), NUMBER.get()), (1, 1, 0));
        NUMBER.with(|cell| cell.set(7));
        assert_eq!(NUMBER.try_with(Cell::get), Ok(7));
        LIST.with_borrow_mut(|list| list.push(2));
        assert_eq!(LIST.with_borrow(Vec::len), 2);
        assert_eq!(LIST.replace(vec![5]), [1, 2]);
        assert_eq!(LIST.take(), [5]);
        LIST.set(vec![6]);
        assert_eq!(LIST.with(|list| list.borrow()[0]), 6);
    });
}

greenlet_local! {
    static UNCALLED: Cell<u32> = panic!("the initialiser was called");
}

#[test]
fn a_value_is_made_when_it_is_first_used_and_setting_it_first_needs_no_initialiser() {
    run(|| {
        UNCALLED.set(3);
        assert_eq!(UNCALLED.get(), 3);
        assert!(spawn(|| UNCALLED.get()).join().is_err_and(|e| e.panic().is_some()));
        assert_eq!(spawn(|| 4).join().unwrap(), 4, "who does not use it does not make it");
    });
}

thread_local! {
    /// Where the values of the tests below say what becomes of them.
    static SEEN: Trace = Trace::default();
}

fn seen() -> Trace {
    SEEN.with(Trace::clone)
}

greenlet_local! {
    static OLD: Dropped = Dropped(seen(), "old");
    static YOUNG: Dropped = Dropped(seen(), "young");
    /// Its destructor blocks, and looks at others.
    static BLOCKING: Blocking = Blocking;
}

struct Blocking;

impl Drop for Blocking {
    fn drop(&mut self) {
        assert_eq!(BLOCKING.try_with(|_| ()), Err(AccessError::Gone));
        OLD.with(|_| seen().add("blocking begins, old is there"));
        sleep(MOMENT);
        seen().add(match YOUNG.try_with(|_| ()) {
            Ok(()) => "blocking ends, young is there",
            Err(gone) => {
                assert_eq!(gone, AccessError::Gone);
                "blocking ends, young is gone"
            }
        });
    }
}

#[test]
fn values_are_dropped_newest_first_when_the_greenlet_ends_and_before_its_joiner_goes_on() {
    testing::run(|| {
        let g = spawn(|| {
            OLD.with(|_| ());
            BLOCKING.with(|_| ());
            YOUNG.with(|_| ());
            seen().add("body ends");
        });
        g.join().unwrap();
        seen().add("joined");
    });
    let order = [
        "body ends",
        "young",
        "blocking begins, old is there",
        "blocking ends, young is gone",
        "old",
        "joined",
    ];
    assert_eq!(seen().taken(), order);
}

#[test]
fn a_destructor_may_make_a_value_and_that_is_dropped_too() {
    testing::run(|| {
        let g = spawn(|| {
            OLD.with(|_| ());
            BLOCKING.with(|_| ()); // makes YOUNG when it is dropped
        });
        g.join().unwrap();
    });
    let order = ["blocking begins, old is there", "blocking ends, young is there", "young", "old"];
    assert_eq!(seen().taken(), order);
}

#[test]
fn the_values_of_a_killed_greenlet_are_dropped_on_its_stack_and_may_block() {
    testing::run(|| {
        let g = spawn(|| {
            OLD.with(|_| ());
            BLOCKING.with(|_| ());
            sleep(Duration::MAX);
        });
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
    });
    let order = ["blocking begins, old is there", "blocking ends, young is there", "young", "old"];
    assert_eq!(seen().taken(), order);
    // The main greenlet's, and those of one that panics, too.
    testing::run(|| {
        OLD.with(|_| ());
        let g = spawn(|| {
            YOUNG.with(|_| ());
            panic!("on purpose");
        });
        assert!(g.join().is_err());
        assert_eq!(seen().taken(), ["young"]);
    });
    assert_eq!(seen().taken(), ["old"]);
}

#[test]
fn a_child_of_a_scope_has_dropped_its_values_when_the_scope_returns() {
    testing::run(|| {
        scope(|s| {
            s.spawn(|| {
                OLD.with(|_| ());
                BLOCKING.with(|_| ());
            });
        });
        assert_eq!(seen().taken().last().map(String::as_str), Some("old"));
    });
}

/// A value that a call leaves is not there for the next call, although both run on one greenlet.
#[test]
fn each_call_of_the_reactor_begins_without_values() {
    run(|| {
        let found = Rc::new(RefCell::new(Vec::new()));
        for n in 0..3 {
            let found = Rc::clone(&found);
            reactor().call_when_running(move || {
                found.borrow_mut().push((n, NUMBER.replace(50)));
                OLD.with(|_| ());
            });
        }
        sleep(MOMENT);
        assert_eq!(*found.borrow(), [(0, 1), (1, 1), (2, 1)]);
        assert_eq!(seen().taken(), ["old"; 3]);
    });
}

greenlet_local! {
    static CIRCULAR: u32 = match CIRCULAR.try_with(|n| *n) {
        Err(AccessError::BeingMade) => 5,
        other => panic!("{other:?}"),
    };
    static FAILS_ONCE: u32 = {
        assert_ne!(NUMBER.replace(0), 1, "the first time");
        9
    };
    static SLOW: u32 = {
        sleep(MOMENT);
        NUMBER.get()
    };
}

#[test]
fn an_initialiser_that_asks_for_its_own_value_gets_an_error() {
    run(|| assert_eq!(CIRCULAR.with(|n| *n), 5));
}

#[test]
fn an_initialiser_that_panics_is_called_again() {
    run(|| {
        spawn(|| {
            let first = catch_unwind(AssertUnwindSafe(|| FAILS_ONCE.with(|n| *n)));
            assert!(first.is_err());
            assert_eq!(FAILS_ONCE.with(|n| *n), 9);
        })
        .join()
        .unwrap();
    });
}

/// What is undefined behaviour with `thread_local!`.
#[test]
fn an_initialiser_may_wait_while_another_greenlets_runs() {
    testing::run(|| {
        let two = [3, 4].map(|n| {
            spawn(move || {
                NUMBER.set(n);
                (SLOW.with(|n| *n), SLOW.with(|n| *n))
            })
        });
        assert_eq!(two.map(|g| g.join().unwrap()), [(3, 3), (4, 4)]);
    });
}

#[test]
fn a_kill_inside_an_initialiser_leaves_no_value() {
    testing::run(|| {
        let g = spawn(|| {
            let killed = catch_unwind(AssertUnwindSafe(|| SLOW.with(|n| *n))).unwrap_err();
            assert!(is_kill(&*killed));
            greenloop::shield(|| assert_eq!(SLOW.with(|n| *n), 1));
        });
        yield_now();
        g.kill();
        g.join().unwrap();
    });
}

#[test]
fn where_no_greenlet_runs_there_is_no_value() {
    assert_eq!(NUMBER.try_with(|_| ()), Err(AccessError::NoGreenlet));
    let refused = catch_unwind(|| NUMBER.get()).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("greenloop::run"));
}

#[test]
fn a_destructor_that_panics_is_reported_and_the_others_run() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a local's destructor");
        }
    }
    greenlet_local! {
        static BOMB: Bomb = Bomb;
    }
    let ((), reports) = reports_of(|| {
        run(|| {
            let g = spawn(|| {
                OLD.with(|_| ());
                BOMB.with(|_| ());
                6
            });
            assert_eq!(g.join().unwrap(), 6);
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("greenlet-local") && reports[0].contains("a local's destructor"));
    assert_eq!(seen().taken(), ["old"]);
}

#[test]
fn a_local_that_the_destructor_of_a_detached_result_uses_is_dropped() {
    struct Uses;
    impl Drop for Uses {
        fn drop(&mut self) {
            ON_ITS_STACK.with(|_| seen().add("used"));
        }
    }
    struct OnItsStack;
    impl Drop for OnItsStack {
        fn drop(&mut self) {
            seen().add(NUMBER.try_with(Cell::get).map_or(0, |n| n));
        }
    }
    greenlet_local! {
        static ON_ITS_STACK: OnItsStack = OnItsStack;
    }
    run(|| {
        drop(spawn(|| Uses));
        yield_now();
        assert_eq!(seen().taken(), ["used", "1"]);
    });
}

static USER: ContextVar<&'static str> = ContextVar::new("user");
static DEPTH: ContextVar<Cell<u32>> = ContextVar::new("depth");

/// Says on which stack it is dropped, and uses a local there.
#[derive(Debug)]
struct Reason(std::sync::mpsc::Sender<&'static str>);

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a reason")
    }
}

impl std::error::Error for Reason {}

impl Drop for Reason {
    fn drop(&mut self) {
        let place = match NUMBER.try_with(|_| ()) {
            Err(AccessError::NoGreenlet) => "on the hub's stack",
            Ok(()) | Err(_) => "on a greenlet",
        };
        self.0.send(place).unwrap();
    }
}

greenlet_local! {
    static SLEEPY: Sleepy = Sleepy;
}

struct Sleepy;

impl Drop for Sleepy {
    fn drop(&mut self) {
        sleep(2 * MOMENT);
    }
}

/// A greenlet's number serves until its locals are gone: the reason was left to the hub then.
#[test]
fn the_reason_of_a_kill_that_meets_the_destructor_of_a_local_is_dropped_on_its_greenlet() {
    struct UsesSleepy;
    impl Drop for UsesSleepy {
        fn drop(&mut self) {
            SLEEPY.with(|_| ());
        }
    }
    let (seen, dropped) = std::sync::mpsc::channel();
    let kill_soon = |seen: &std::sync::mpsc::Sender<_>, target: greenloop::GreenletRef| {
        let reason = Reason(seen.clone());
        drop(spawn_later(MOMENT, move || target.kill_with(reason)));
    };
    testing::run(|| {
        let detached = spawn(|| UsesSleepy);
        kill_soon(&seen, detached.as_ref());
        drop(detached);
        sleep(3 * MOMENT);
        let of_call = seen.clone();
        reactor().call_when_running(move || {
            SLEEPY.with(|_| ());
            kill_soon(&of_call, greenloop::current());
        });
        sleep(3 * MOMENT);
        SLEEPY.with(|_| ());
        kill_soon(&seen, greenloop::current());
    });
    drop(seen);
    assert_eq!(dropped.into_iter().collect::<Vec<_>>(), ["on a greenlet"; 3]);
}

fn user() -> &'static str {
    USER.get().map_or("nobody", |user| *user)
}

/// G14: all descendants of a root share its spawn-tree locals; children of another have others.
#[test]
fn what_is_spawned_in_a_scope_inherits_its_variables_and_shares_their_values() {
    run(|| {
        let tree = |name| {
            USER.scope(name, || {
                DEPTH.scope(Cell::new(0), || {
                    spawn(move || {
                        let depth = DEPTH.get().unwrap();
                        depth.set(depth.get() + 1);
                        let child = spawn(|| {
                            let depth = DEPTH.get().unwrap();
                            depth.set(depth.get() + 1);
                            user()
                        });
                        (child.join().unwrap(), depth.get())
                    })
                })
            })
        };
        let (ada, eve) = (tree("ada"), tree("eve"));
        assert_eq!(ada.join().unwrap(), ("ada", 2));
        assert_eq!(eve.join().unwrap(), ("eve", 2));
        assert_eq!(user(), "nobody");
    });
}

#[test]
fn every_way_of_spawning_hands_the_context_down() {
    testing::run(|| {
        USER.scope("ada", || {
            assert_eq!(spawn_later(MOMENT, user).join().unwrap(), "ada");
            assert_eq!(Builder::new().name("x").spawn(user).unwrap().join().unwrap(), "ada");
            assert_eq!(scope(|s| s.spawn(user).join().unwrap()), "ada");
            let block = Deferred::from_future(async { Ok::<_, Failure>(user()) });
            assert_eq!(wait_for_deferred(block).ok(), Some("ada"));
        });
    });
}

#[test]
fn a_scope_puts_back_what_was_before_it_on_every_way_out() {
    run(|| {
        USER.scope("outer", || {
            assert_eq!(USER.scope("inner", user), "inner");
            assert_eq!(user(), "outer");
            let panicked = catch_unwind(|| USER.scope("inner", || panic!("out")));
            assert!(panicked.is_err());
            assert_eq!(user(), "outer");
        });
        assert_eq!(user(), "nobody");
        let g = spawn(|| {
            let killed = catch_unwind(|| USER.scope("inner", || sleep(Duration::MAX)));
            assert!(killed.is_err());
            user()
        });
        yield_now();
        g.kill();
        assert_eq!(g.join().unwrap(), "nobody");
    });
}

#[test]
fn a_child_keeps_what_it_inherited_when_the_scope_is_left_and_drops_it_at_its_end() {
    static KEPT: ContextVar<Dropped> = ContextVar::new("kept");
    run(|| {
        let child = KEPT.scope(Dropped(seen(), "dropped"), || {
            spawn(|| {
                sleep(MOMENT);
                seen().add(KEPT.get().is_some());
            })
        });
        assert!(KEPT.get().is_none() && seen().taken().is_empty());
        child.join().unwrap();
        assert_eq!(seen().taken(), ["true", "dropped"]);
    });
}

/// Each generation puts its variable in place of its parent's: the context does not grow.
#[test]
fn a_long_line_of_descendants_does_not_pile_up_contexts() {
    fn generation(left: u32) {
        match left {
            0 => seen().add(format!("{:?}", Context::current())),
            _ => DEPTH.scope(Cell::new(left), || drop(spawn(move || generation(left - 1)))),
        }
    }
    testing::run(|| {
        generation(2_000);
        sleep(MOMENT);
        assert_eq!(seen().taken(), [r#"["depth"]"#]);
    });
}

#[test]
fn where_no_greenlet_runs_variables_have_no_value_and_scopes_are_refused() {
    assert!(USER.get().is_none());
    let refused = catch_unwind(|| USER.scope("ada", || ())).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("greenloop::run"));
}

/// D61: `CoroutineContextVarsTests.test_withInlineCallbacks`, `test_contextvarsWithAsyncAwait`: the
/// context is that of the call, and is in force again after each wait.
#[test]
fn an_async_block_keeps_the_context_of_its_caller_across_its_awaits() {
    run(|| {
        let (resolver, question) = Deferred::<()>::new();
        let block = USER.scope("ada", || {
            Deferred::from_future(async move {
                let before = user();
                question.await?;
                Ok::<_, Failure>((before, user()))
            })
        });
        yield_now();
        USER.scope("eve", || resolver.callback(()));
        assert_eq!(wait_for_deferred(block).ok(), Some(("ada", "ada")));
    });
}

/// D61: `test_resetWithInlineCallbacks`: what is set inside is not seen outside.
#[test]
fn what_an_async_block_or_a_child_sets_does_not_reach_the_caller() {
    run(|| {
        USER.scope("ada", || {
            let block = Deferred::from_future(async {
                Ok::<_, Failure>(USER.scope("eve", || {
                    yield_now();
                    user()
                }))
            });
            yield_now();
            assert_eq!(user(), "ada");
            assert_eq!(wait_for_deferred(block).ok(), Some("eve"));
            assert_eq!(user(), "ada");
        });
    });
}

/// D61: `test_asyncWithLock`, `test_asyncWithSemaphore`, `test_asyncWithLockException`.
#[test]
fn an_async_block_keeps_its_context_across_a_lock_and_a_semaphore() {
    run(|| {
        let lock = Arc::new(sync::Mutex::new(()));
        let permits = Arc::new(sync::Semaphore::new(0));
        let held = lock.lock().unwrap();
        let blocks: Vec<_> = ["ada", "eve"]
            .map(|name| {
                let (lock, permits) = (Arc::clone(&lock), Arc::clone(&permits));
                USER.scope(name, || {
                    Deferred::from_future(async move {
                        let guard = lock.lock_async().await.unwrap();
                        let locked = user();
                        drop(guard);
                        let _permit = permits.acquire_async(1).await;
                        assert_eq!(user(), locked);
                        Err::<(), _>(Failure::msg(locked))
                    })
                })
            })
            .into();
        sleep(MOMENT);
        drop(held);
        permits.add_permits(2);
        let failed = blocks.into_iter().map(|b| wait_for_deferred(b).unwrap_err().to_string());
        assert_eq!(failed.collect::<Vec<_>>(), ["ada", "eve"]);
    });
}

/// D61: plain callbacks do not carry the context (Twisted #9807); a captured one does.
#[test]
fn a_callback_sees_the_context_of_whoever_fires_it_unless_it_captured_another() {
    run(|| {
        let (resolver, deferred) = Deferred::<()>::new();
        let both = USER.scope("ada", || {
            let context = Context::current();
            deferred.add_callback(move |()| Ok((user(), context.run(user), user())))
        });
        USER.scope("eve", || resolver.callback(()));
        assert_eq!(wait_for_deferred(both).ok(), Some(("eve", "ada", "eve")));
        let called = Rc::new(Cell::new(("", "")));
        USER.scope("ada", || {
            let (called, context) = (Rc::clone(&called), Context::current());
            reactor().call_when_running(move || called.set((user(), context.run(user))));
        });
        sleep(MOMENT);
        assert_eq!(called.get(), ("nobody", "ada"));
    });
}

#[test]
fn a_future_sees_the_context_of_the_greenlet_that_polls_it() {
    run(|| {
        let future = async { user() };
        assert_eq!(USER.scope("ada", || wait_for_future(future)), "ada");
    });
}
