//! One test for each defect that was found after its floor was thought finished.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    Builder, Deferred, current, reactor, run, scope, set_unhandled_hook, shield, sleep, spawn,
    timeout, try_run, wait_for_deferred, yield_now,
};

const LONG: Duration = Duration::from_secs(3600);

/// The kill at the end of a run unwound out of the destructor of a result, past everything that
/// could catch it, and the process was aborted.
#[test]
fn a_result_whose_destructor_blocks_is_killed_like_anything_else() {
    struct Blocks;
    impl Drop for Blocks {
        fn drop(&mut self) {
            sleep(LONG);
        }
    }
    let begun = Instant::now();
    run(|| {
        drop(spawn(|| Blocks));
        yield_now();
    });
    assert!(begun.elapsed() < Duration::from_secs(5));
}

/// Removing a reader killed it in the midst of its call, if that had parked.
#[test]
fn a_reader_that_is_removed_while_it_blocks_ends_its_call() {
    run(|| {
        let (ended, begun) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (reader, mut writer) = std::io::pipe().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&reader);
        let (end, begin) = (Rc::clone(&ended), Rc::clone(&begun));
        let watched = reactor().add_reader(reader, move |_| {
            begin.set(true);
            sleep(Duration::from_millis(5));
            end.set(true);
        });
        watched.unwrap();
        std::io::Write::write_all(&mut writer, b"x").unwrap();
        while !begun.get() {
            yield_now();
        }
        assert!(reactor().remove_reader(&fd));
        sleep(Duration::from_millis(20));
        assert!(ended.get());
    });
}

/// What is reported while `f` runs.
fn reports_during(f: impl FnOnce()) -> Vec<String> {
    let reports = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&reports);
    let hook = set_unhandled_hook(Some(Box::new(move |report| {
        told.borrow_mut().push(report.to_string());
    })));
    f();
    set_unhandled_hook(hook);
    reports.take()
}

/// The name was freed with the result, and a hook that asked for it read freed memory.
#[test]
fn a_greenlet_has_its_name_until_its_result_is_gone() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a destructor");
        }
    }
    // While the hook runs, somebody beside us keeps the name that it is given.
    let name: Rc<str> = "a name of some length".into();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let (kept, told) = (Rc::clone(&name), Rc::clone(&seen));
    let hook = set_unhandled_hook(Some(Box::new(move |_| {
        let named = current().name() == Some(&*kept);
        told.borrow_mut().push((named, Rc::strong_count(&kept)));
    })));
    let given = Rc::clone(&name);
    run(move || {
        drop(Builder::new().name(given).spawn(|| Bomb).unwrap());
        yield_now();
    });
    set_unhandled_hook(hook);
    assert_eq!(*seen.borrow(), [(true, 3)], "ours, the hook's, and the greenlet's");
}

/// A scope inside of a shield took a timeout that began inside the shield for one outside of it.
#[test]
fn a_timeout_around_a_scope_strikes_inside_of_a_shield() {
    run(|| {
        let ended = shield(|| {
            timeout(Duration::from_millis(5), || scope(|s| drop(s.spawn(|| sleep(LONG)))))
        });
        assert!(ended.is_err());
    });
}

/// Callback greenlets are used again, and a call's number was kept until the next one began.
#[test]
fn a_reference_to_a_call_that_was_made_hits_nobody() {
    run(|| {
        let first = Rc::new(RefCell::new(None));
        let out = Rc::clone(&first);
        reactor().call_when_running(move || *out.borrow_mut() = Some(current()));
        sleep(Duration::from_millis(1));
        let first = first.take().unwrap();
        assert!(first.is_finished());
        let made = Rc::new(Cell::new(false));
        let out = Rc::clone(&made);
        reactor().call_when_running(move || {
            yield_now();
            out.set(true);
        });
        first.kill();
        sleep(Duration::from_millis(1));
        assert!(made.get());
    });
}

/// A join that was given up left its child marked as joined, and nobody got its panic.
#[test]
fn the_panic_of_a_child_whose_join_was_given_up_reaches_the_scope() {
    run(|| {
        let caught = std::panic::catch_unwind(|| {
            scope(|s| {
                let child = s.spawn(|| {
                    sleep(Duration::from_millis(10));
                    panic!("after the join");
                });
                assert!(timeout(Duration::from_millis(1), || child.join()).is_err());
            });
        });
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"after the join"));
    });
}

/// Reading the clock put the next poll off.
#[test]
fn greenlets_that_use_timeouts_and_yield_do_not_put_timers_off() {
    run(|| {
        let called = Rc::new(Cell::new(false));
        let out = Rc::clone(&called);
        reactor().call_later(Duration::from_millis(1), move || out.set(true));
        let mut rounds = 0;
        while !called.get() {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
            timeout(Duration::from_secs(1), || ()).unwrap();
            yield_now();
            rounds += 1;
        }
        assert!(rounds < 50, "{rounds} rounds of a millisecond each");
    });
}

/// The process was aborted although the call could say that it was killed.
#[test]
fn a_shielded_main_that_would_wait_for_ever_gets_an_error() {
    let ended = try_run(|| {
        shield(|| {
            let (_resolver, never) = Deferred::<()>::new();
            wait_for_deferred(never)
        })
    });
    let failure = ended.unwrap().unwrap_err();
    assert!(failure.is::<greenloop::Killed>(), "{failure}");
}

/// A timeout was compared with the time of the last turn, however long ago that was.
#[test]
fn a_cancellation_point_sees_a_timeout_that_elapsed_while_the_greenlet_computed() {
    run(|| {
        let ended = timeout(Duration::from_millis(2), || {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(4) {
                std::hint::spin_loop();
            }
            yield_now();
        });
        assert!(ended.is_err());
    });
}

/// The payload of a panic may panic when it is dropped: the process was aborted.
#[test]
fn a_payload_that_panics_when_it_is_dropped_stops_nobody() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a payload");
        }
    }
    let reports = reports_during(|| {
        run(|| {
            reactor().call_when_running(|| std::panic::panic_any(Bomb));
            sleep(Duration::from_millis(1));
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
}

/// An endless shutdown deadline was filed in the wheel, which knows no never.
#[test]
fn a_shutdown_deadline_may_be_endless() {
    run(|| reactor().set_shutdown_deadline(Duration::MAX));
}
