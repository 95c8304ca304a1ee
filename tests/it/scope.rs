//! Scopes: children that borrow, and every way in which a scope can end.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    Builder, Deferred, is_kill, run, scope, shield, sleep, spawn, testing, timeout,
    wait_for_deferred, yield_now,
};

use crate::hub::{AGES, MOMENT, OnDrop, Trace, message, note, reports_during};

/// Longer than a moment, and short enough to be waited for by a test that fails.
const WHILE: Duration = Duration::from_millis(300);

#[test]
fn children_borrow_from_their_parent_and_have_ended_when_the_scope_returns() {
    run(|| {
        let words = vec![String::from("green"), String::from("loop")];
        let mut lengths = [0; 2];
        let mut counter = 0;
        let value = scope(|s| {
            for (word, length) in words.iter().zip(&mut lengths) {
                s.spawn(move || {
                    sleep(MOMENT);
                    *length = word.len();
                });
            }
            s.spawn(|| counter += 1);
            "value"
        });
        assert_eq!((value, lengths, counter), ("value", [5, 4], 1));
        drop(words);
    });
}

#[test]
fn join_gives_a_borrowed_result() {
    run(|| {
        let text = String::from("long lived");
        let word = scope(|s| {
            let child = s.spawn(|| &text[..4]);
            assert!(!child.is_finished());
            child.join().unwrap()
        });
        assert_eq!(word, "long");
        assert_eq!(scope(|_| 5), 5, "no children");
    });
}

#[test]
fn a_child_may_spawn_into_the_scope_and_is_waited_for() {
    run(|| {
        let sum = Cell::new(0);
        scope(|s| {
            s.spawn(|| {
                sleep(MOMENT);
                s.spawn(|| {
                    sleep(MOMENT);
                    s.spawn(|| {
                        sleep(MOMENT);
                        sum.set(sum.get() + 1);
                    });
                    sum.set(sum.get() + 10);
                });
                sum.set(sum.get() + 100);
            });
        });
        assert_eq!(sum.get(), 111);
    });
}

#[test]
fn scopes_nest() {
    run(|| {
        let trace = RefCell::new(Vec::new());
        scope(|outer| {
            outer.spawn(|| {
                scope(|inner| {
                    inner.spawn(|| {
                        sleep(MOMENT);
                        trace.borrow_mut().push("inner");
                    });
                });
                trace.borrow_mut().push("after inner");
            });
        });
        trace.borrow_mut().push("after outer");
        assert_eq!(*trace.borrow(), ["inner", "after inner", "after outer"]);
    });
}

/// Peer list, item 14.
#[test]
fn a_childs_panic_kills_its_siblings_and_reaches_the_scope_with_its_payload() {
    run(|| {
        let trace = RefCell::new(Vec::new());
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    let _unwound = OnDrop(|| {
                        sleep(MOMENT);
                        trace.borrow_mut().push("sibling unwound");
                    });
                    sleep(AGES);
                });
                s.spawn(|| {
                    yield_now();
                    std::panic::panic_any(42u32);
                });
            });
        }));
        assert_eq!(*caught.unwrap_err().downcast::<u32>().unwrap(), 42);
        assert_eq!(*trace.borrow(), ["sibling unwound"]);
        yield_now();
    });
}

#[test]
fn the_place_of_a_childs_panic_survives_the_scope() {
    run(|| {
        let line = line!() + 1;
        let g = spawn(|| scope(|s| drop(s.spawn(|| panic!("in a child")))));
        let error = g.join().unwrap_err();
        let panic = error.panic().unwrap();
        assert_eq!(panic.message(), "in a child");
        let place = panic.place().expect("the place was lost on the way through the scope");
        assert!(place.contains(&format!("{}:{line}", file!())), "{place}");
    });
}

/// Only one panic can go on; the other must not vanish.
#[test]
fn a_second_childs_panic_is_reported() {
    let reports = reports_during(|| {
        run(|| {
            let caught = catch_unwind(|| {
                scope(|s| {
                    s.spawn(|| {
                        // Killed for the other one's panic, it panics instead of going quietly.
                        assert!(is_kill(&*catch_unwind(|| sleep(AGES)).unwrap_err()));
                        panic!("two");
                    });
                    s.spawn(|| panic!("one"));
                });
            });
            assert_eq!(message(&*caught.unwrap_err()), "one");
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("two"), "{reports:?}");
}

#[test]
fn a_childs_panic_is_reported_when_the_body_unwinds_with_another_one() {
    let reports = reports_during(|| {
        run(|| {
            let caught = catch_unwind(|| {
                scope(|s| {
                    s.spawn(|| panic!("in the child"));
                    yield_now();
                    yield_now();
                    panic!("in the body");
                })
            });
            assert_eq!(message(&*caught.unwrap_err()), "in the body");
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("in the child"), "{reports:?}");
}

#[test]
fn a_joined_childs_panic_stays_with_its_joiner() {
    let reports = reports_during(|| {
        run(|| {
            let slept = Cell::new(false);
            scope(|s| {
                s.spawn(|| {
                    sleep(MOMENT);
                    slept.set(true);
                });
                let error = s.spawn(|| panic!("joined")).join().unwrap_err();
                assert_eq!(error.panic().unwrap().message(), "joined");
                assert!(error.panic().unwrap().place().is_some());
            });
            assert!(slept.get(), "its siblings are left alone");
        });
    });
    assert_eq!(reports, [""; 0]);
}

/// It was lost: the join was over, so its child was no more the scope's, nor yet the joiner's.
#[test]
fn a_joined_childs_panic_is_reported_if_a_kill_of_the_joiner_comes_first() {
    let reports = reports_during(|| {
        testing::run(|| {
            let joiner = spawn(|| {
                scope(|s| {
                    let child = s.spawn(|| {
                        sleep(MOMENT);
                        panic!("of a child");
                    });
                    let _: Result<(), _> = child.join();
                });
            });
            let target = joiner.as_ref();
            spawn(move || {
                sleep(MOMENT);
                target.kill();
            });
            assert!(joiner.join().unwrap_err().is_killed());
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("of a child"), "{reports:?}");
}

#[test]
fn a_panic_that_came_before_the_join_went_to_the_scope_and_the_joiner_is_told() {
    run(|| {
        let caught = catch_unwind(|| {
            scope(|s| {
                let child = s.spawn(|| panic!("early"));
                yield_now();
                yield_now();
                let error = child.join().unwrap_err();
                assert!(error.to_string().contains("scope"), "{error}");
            });
        });
        assert_eq!(message(&*caught.unwrap_err()), "early");
    });
}

#[test]
fn a_killed_child_is_no_failure_of_the_scope() {
    run(|| {
        scope(|s| {
            let a = s.spawn(|| sleep(AGES));
            let b = s.spawn(|| sleep(AGES));
            yield_now();
            a.kill();
            assert!(a.join().unwrap_err().is_killed());
            b.kill();
        });
        scope(|s| s.spawn(|| sleep(AGES)).kill()); // before it started
    });
}

#[test]
fn a_panic_of_the_body_kills_the_children_waits_for_them_and_goes_on() {
    run(|| {
        let unwound = Cell::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                for _ in 0..3 {
                    s.spawn(|| {
                        let _unwound = OnDrop(|| {
                            sleep(MOMENT);
                            unwound.set(unwound.get() + 1);
                        });
                        sleep(AGES);
                    });
                }
                yield_now();
                panic!("body");
            })
        }));
        assert_eq!(message(&*caught.unwrap_err()), "body");
        assert_eq!(unwound.get(), 3);
    });
}

/// Peer list, item 14.
#[test]
fn a_killed_parent_kills_its_children_and_unwinds_once_they_have_ended() {
    for in_body in [false, true] {
        let trace = Trace::default();
        run(|| {
            let told = Rc::clone(&trace);
            let parent = spawn(move || {
                let kept = String::from("borrowed");
                let _parent = OnDrop(|| note(&told, "parent"));
                scope(|s| {
                    s.spawn(|| {
                        let _child = OnDrop(|| {
                            sleep(MOMENT);
                            note(&told, format!("child of {kept}"));
                        });
                        sleep(AGES);
                    });
                    if in_body {
                        sleep(AGES);
                    }
                });
                note(&told, "after the scope");
                yield_now();
                note(&told, "after a cancellation point");
            });
            yield_now();
            yield_now();
            parent.kill();
            assert!(parent.join().unwrap_err().is_killed());
        });
        assert_eq!(*trace.borrow(), ["child of borrowed", "parent"], "in_body: {in_body}");
    }
}

/// The docs: a timeout that comes while it waits kills them "and unwinds once they have ended".
/// A scope that returned its value as if its children had done their work would be a lie.
#[test]
fn a_timeout_around_a_scope_ends_the_children_and_says_elapsed() {
    for in_body in [false, true] {
        testing::run(|| {
            let ended = Cell::new(false);
            let outcome = timeout(MOMENT, || {
                scope(|s| {
                    s.spawn(|| {
                        let _ended = OnDrop(|| ended.set(true));
                        sleep(AGES);
                    });
                    if in_body {
                        sleep(AGES);
                    }
                    "done"
                })
            });
            assert!(ended.get());
            assert!(outcome.is_err(), "in_body: {in_body}: {outcome:?}");
        });
    }
}

/// A kill stays outside of a shield: what runs in it runs to its end.
#[test]
fn a_scope_in_a_shield_lets_its_children_finish() {
    run(|| {
        let done = Rc::new(Cell::new(0));
        let out = Rc::clone(&done);
        let g = spawn(move || {
            shield(|| {
                scope(|s| {
                    s.spawn(|| {
                        sleep(5 * MOMENT);
                        out.set(out.get() + 1);
                    });
                });
            });
            yield_now();
            unreachable!("the kill was lost");
        });
        yield_now();
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(done.get(), 1, "a shielded scope's child was killed");
    });
}

/// SOUND-8: a destructor may block during the unwind of a kill; in a scope, too.
#[test]
fn a_scope_in_a_destructor_of_a_killed_greenlet_lets_its_children_finish() {
    run(|| {
        let done = Rc::new(Cell::new(0));
        let out = Rc::clone(&done);
        let g = spawn(move || {
            let _cleanup = OnDrop(|| {
                scope(|s| {
                    for _ in 0..2 {
                        s.spawn(|| {
                            sleep(MOMENT);
                            out.set(out.get() + 1);
                        });
                    }
                });
            });
            sleep(AGES);
        });
        yield_now();
        g.kill();
        assert!(g.join().unwrap_err().is_killed());
        assert_eq!(done.get(), 2, "the children of the cleanup were killed");
    });
}

/// What a dying child starts must not outlast the kill.
#[test]
fn a_child_spawned_into_a_scope_that_is_being_killed_is_born_killed() {
    run(|| {
        let begin = Instant::now();
        let ran = Cell::new(false);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    let _respawns = OnDrop(|| {
                        s.spawn(|| {
                            ran.set(true);
                            sleep(WHILE);
                        });
                    });
                    sleep(AGES);
                });
                yield_now();
                panic!("body");
            })
        }));
        assert_eq!(message(&*caught.unwrap_err()), "body");
        assert!(begin.elapsed() < WHILE && !ran.get(), "it ran, for {:?}", begin.elapsed());
    });
}

#[test]
fn a_child_that_swallows_its_kill_holds_the_scope_up_until_it_ends() {
    run(|| {
        let swallowed = Cell::new(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                s.spawn(|| {
                    for _ in 0..4 {
                        let caught = catch_unwind(|| sleep(AGES));
                        assert!(is_kill(&*caught.unwrap_err()));
                        swallowed.set(swallowed.get() + 1);
                    }
                });
                yield_now();
                panic!("body");
            })
        }));
        assert!(caught.is_err());
        assert_eq!(swallowed.get(), 4);
    });
}

/// SCOPE-2.
#[test]
fn a_result_whose_destructor_parks_is_dropped_before_the_scope_returns() {
    struct Slow<'a>(&'a Cell<u32>);
    impl Drop for Slow<'_> {
        fn drop(&mut self) {
            sleep(MOMENT);
            self.0.set(self.0.get() + 1);
        }
    }
    run(|| {
        // A scope of its own each: no other child may hold it up.
        let dropped = Cell::new(0);
        scope(|s| drop(s.spawn(|| Slow(&dropped)))); // nobody takes it
        assert_eq!(dropped.get(), 1, "a result that nobody took");
        scope(|s| drop(s.spawn(|| Slow(&dropped)).join().unwrap()));
        assert_eq!(dropped.get(), 2, "a joined result");
        scope(|s| {
            let captured = Slow(&dropped);
            s.spawn(move || drop(captured));
        });
        assert_eq!(dropped.get(), 3, "a captured value");
        scope(|s| {
            let captured = Slow(&dropped);
            let child = s.spawn(move || {
                let _captured = captured;
                sleep(AGES);
            });
            yield_now();
            child.kill();
        });
        assert_eq!(dropped.get(), 4, "what a killed child captured");
        // Also on the panic path, and of a child that had ended with its handle alive.
        dropped.set(0);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            scope(|s| {
                let _kept = s.spawn(|| Slow(&dropped));
                yield_now();
                panic!("body");
            })
        }));
        assert!(caught.is_err());
        assert_eq!(dropped.get(), 1);
    });
}

/// SOUND-2: a forgotten handle leaks the result, and nothing dangles.
#[test]
fn forgotten_handles_do_not_let_children_outlive_the_scope() {
    run(|| {
        let mut buffer = vec![0u8; 64];
        scope(|s| {
            for byte in &mut buffer {
                std::mem::forget(s.spawn(move || {
                    yield_now();
                    sleep(MOMENT);
                    *byte = 1;
                    Box::new(byte)
                }));
            }
        });
        assert!(buffer.iter().all(|byte| *byte == 1));
        drop(buffer);
    });
}

#[test]
fn a_sibling_may_join_a_sibling() {
    run(|| {
        let text = String::from("borrowed");
        let length = scope(|s| {
            let first = s.spawn(|| {
                sleep(MOMENT);
                &text
            });
            let second = s.spawn(move || first.join().unwrap().len());
            second.join().unwrap()
        });
        assert_eq!(length, 8);
    });
}

#[test]
fn children_have_the_name_and_the_stack_that_were_asked_for() {
    run(|| {
        scope(|s| {
            let builder = Builder::new().name("child").stack_size(1 << 20);
            let child = s.spawn_with(builder, || {
                let me = greenloop::current();
                (me.name().map(str::to_owned), me.birth().file())
            });
            let (name, file) = child.unwrap().join().unwrap();
            assert_eq!((name.as_deref(), file), (Some("child"), file!()));
        });
    });
}

#[test]
fn a_scope_on_the_callback_of_a_reactor_works() {
    run(|| {
        let (resolver, deferred) = Deferred::<u32>::new();
        greenloop::reactor().call_later(MOMENT, move || {
            let numbers = [1, 2, 3];
            let sum = scope(|s| {
                let parts: Vec<_> = numbers.iter().map(|n| s.spawn(move || n * 10)).collect();
                parts.into_iter().map(|part| part.join().unwrap()).sum()
            });
            resolver.callback(sum);
        });
        assert_eq!(wait_for_deferred(deferred).unwrap(), 60);
    });
}

/// The end of the run kills a scope's owner and its children in any order.
#[test]
fn the_end_of_the_run_ends_scopes_in_the_right_order() {
    let trace = Trace::default();
    run(|| {
        let told = Rc::clone(&trace);
        spawn(move || {
            let kept = String::from("kept");
            let _owner = OnDrop(|| note(&told, "owner"));
            scope(|s| {
                for i in 0..2 {
                    let (told, kept) = (&told, &kept);
                    s.spawn(move || {
                        let _child = OnDrop(|| {
                            sleep((2 - i) * MOMENT);
                            note(told, format!("child {i} of {kept}"));
                        });
                        sleep(AGES);
                    });
                }
            });
        });
        yield_now();
        yield_now();
    });
    let mut trace = trace.take();
    assert_eq!(trace.pop().as_deref(), Some("owner"), "{trace:?} came after it");
    trace.sort();
    assert_eq!(trace, ["child 0 of kept", "child 1 of kept"]);
}
