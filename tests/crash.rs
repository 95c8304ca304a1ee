//! What ends the process, or would if it were wrong: each test re-executes this binary.
//!
//! A case runs in a child of its own, with an environment variable that names it; the parent looks
//! at how the child ended and at what it wrote. A child that hangs is killed, and the test fails.

#![expect(unsafe_code, reason = "threads that C starts, and a null pointer to be read")]

use std::{
    cell::Cell,
    io::{BufRead, BufReader, PipeReader, Read, Write, pipe},
    os::unix::process::ExitStatusExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, ExitStatus, Stdio},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use greenloop::{
    Builder, Deferred, RunError, dump_on_sigquit, reactor, run, scope, shield, sleep, spawn,
    sync::Event, thread, timeout, try_run, wait_for_deferred, yield_now,
};

const AGES: Duration = Duration::from_secs(3600);
const MOMENT: Duration = Duration::from_millis(2);

/// Names the case that a child is to run.
const MARK: &str = "GREENLOOP_CRASH_CASE";

/// How a child ended.
#[derive(Debug)]
struct Outcome {
    status: ExitStatus,
    stderr: String,
}

impl Outcome {
    /// It aborted, and its last words have all of `texts`.
    #[track_caller]
    fn aborted_saying(&self, texts: &[&str]) {
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{self:#?}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {}", self.stderr);
        }
    }

    /// It came to the end of its case.
    #[track_caller]
    fn lived(&self) {
        assert_eq!(self.status.code(), Some(0), "{self:#?}");
    }
}

/// Runs `case` in a child process. `test` is the name of the calling test.
fn outcome(test: &str, case: fn()) -> Outcome {
    if std::env::var(MARK).is_ok_and(|mark| mark == test) {
        case();
        std::process::exit(0);
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(MARK, test)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let begin = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{test}: the child hangs; it wrote:\n{}", reader.join().unwrap());
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Outcome { status, stderr: reader.join().unwrap() }
}

/// Runs the case of this test in a child of its own.
macro_rules! in_a_child {
    ($test:ident, $case:expr) => {
        outcome(stringify!($test), $case)
    };
}

/// Uses up any stack.
#[inline(never)]
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn overflow(depth: usize) -> usize {
    let pad = std::hint::black_box([depth; 16]);
    overflow(depth + 1) + pad[0]
}

/// Calls `f` when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

// ---- stack overflow (SOUND-10) -----------------------------------------------------------------

/// Peer list, item 7.
#[test]
fn overflow_of_a_named_greenlet_says_its_name_and_its_place_of_birth() {
    const LINE: u32 = line!() + 4;
    let out = in_a_child!(
        overflow_of_a_named_greenlet_says_its_name_and_its_place_of_birth,
        || run(|| {
            let g = Builder::new().name("deep diver").spawn(|| overflow(0));
            g.unwrap().join().unwrap();
        })
    );
    let birth = format!("spawned at {}:{LINE}:", file!());
    out.aborted_saying(&["'deep diver'", &birth, "has overflowed its stack of 192 KiB"]);
}

#[test]
fn overflow_of_a_nameless_greenlet_with_a_large_stack_is_told() {
    let out =
        in_a_child!(overflow_of_a_nameless_greenlet_with_a_large_stack_is_told, || run(|| {
            let big = Builder::new().stack_size((1 << 20) + (64 << 10));
            big.spawn(|| overflow(0)).unwrap().join().unwrap();
        }));
    out.aborted_saying(&["greenlet #2, spawned at", "its stack of 1024 KiB"]);
}

#[test]
fn overflow_of_main_is_told() {
    let out = in_a_child!(overflow_of_main_is_told, || {
        run(|| overflow(0));
    });
    out.aborted_saying(&["'main'", "has overflowed its stack"]);
}

#[test]
fn overflow_of_an_os_thread_is_still_reported_by_std() {
    let out = in_a_child!(overflow_of_an_os_thread_is_still_reported_by_std, || {
        run(yield_now);
        let os = std::thread::Builder::new().name("plain os thread".into());
        let handle = os.spawn(|| {
            run(|| spawn(yield_now).join().unwrap());
            overflow(0)
        });
        handle.unwrap().join().unwrap();
    });
    out.aborted_saying(&["thread 'plain os thread'", "has overflowed its stack"]);
    assert!(!out.stderr.contains("greenloop:"), "{}", out.stderr);
}

#[test]
fn overflow_on_a_thread_that_c_started_is_told() {
    extern "C" fn body(_: *mut libc::c_void) -> *mut libc::c_void {
        run(|| {
            let g = Builder::new().name("on a C thread").spawn(|| overflow(0));
            g.unwrap().join().unwrap();
        });
        std::ptr::null_mut()
    }
    let out = in_a_child!(overflow_on_a_thread_that_c_started_is_told, || {
        let mut thread = 0;
        // SAFETY: `body` has the right signature and needs no argument; no attributes are asked
        // for; `thread` is written before it is read.
        let started = unsafe {
            libc::pthread_create(&raw mut thread, std::ptr::null(), body, std::ptr::null_mut())
        };
        assert_eq!(started, 0);
        // SAFETY: just created, and joined once.
        unsafe { libc::pthread_join(thread, std::ptr::null_mut()) };
    });
    out.aborted_saying(&["'on a C thread'", "has overflowed its stack"]);
}

#[test]
fn overflow_deep_in_a_destructor_of_a_killed_greenlet_is_told() {
    let out =
        in_a_child!(overflow_deep_in_a_destructor_of_a_killed_greenlet_is_told, || run(|| {
            let g = Builder::new().name("dying").spawn(|| {
                let _dive = OnDrop(|| {
                    overflow(0);
                });
                sleep(AGES);
            });
            yield_now();
            g.unwrap().kill();
            yield_now();
        }));
    out.aborted_saying(&["'dying'", "has overflowed its stack"]);
}

#[test]
fn a_fault_that_is_no_overflow_is_left_to_the_handler_before() {
    let out =
        in_a_child!(a_fault_that_is_no_overflow_is_left_to_the_handler_before, || run(|| {
            let null = std::hint::black_box(std::ptr::null::<u8>());
            // SAFETY: none: this is the fault that the test is about.
            let _ = std::hint::black_box(unsafe { null.read_volatile() });
        }));
    assert_eq!(out.status.signal(), Some(libc::SIGSEGV), "{out:#?}");
    assert!(!out.stderr.contains("overflowed"), "{out:#?}");
}

// ---- stacks and memory -------------------------------------------------------------------------

#[test]
fn without_address_space_spawn_is_an_io_error_and_the_rest_goes_on() {
    let out = in_a_child!(without_address_space_spawn_is_an_io_error_and_the_rest_goes_on, || {
        use rustix::process::{Resource, Rlimit, setrlimit};
        run(|| {
            let first = spawn(|| sleep(MOMENT));
            yield_now();
            let used = std::fs::read_to_string("/proc/self/statm").unwrap();
            let pages: u64 = used.split(' ').next().unwrap().parse().unwrap();
            let limit = pages * 4096 + (100 << 20);
            setrlimit(Resource::As, Rlimit { current: Some(limit), maximum: None }).unwrap();
            let mut kept = Vec::new();
            let error = loop {
                match Builder::new().spawn(|| sleep(10 * MOMENT)) {
                    Ok(g) => kept.push(g),
                    Err(error) => break error,
                }
                assert!(kept.len() < 100_000);
            };
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
            let used = format!("{} of this size are in use", kept.len() + 1);
            assert!(error.to_string().contains(&used), "{error}");
            // `spawn` panics with the same text; a scope's error leaves it usable.
            let caught = catch_unwind(|| spawn(|| ())).unwrap_err();
            let text = caught.downcast_ref::<String>().unwrap();
            assert!(text.contains("no stack for another greenlet"), "{text}");
            let value = 5;
            scope(|s| assert!(s.spawn_with(Builder::new(), || value).is_err()));
            // A call that finds no stack is reported and made once there is one.
            let (resolver, deferred) = Deferred::new();
            reactor().call_when_running(move || resolver.callback(7));
            yield_now();
            for g in kept {
                g.join().unwrap();
            }
            first.join().unwrap();
            assert_eq!(wait_for_deferred(deferred).unwrap(), 7);
            spawn(|| 1).join().unwrap();
        });
    });
    out.lived();
}

/// Safe code must not be able to make a stack whose top lies outside of its mapping.
#[test]
fn a_stack_size_that_cannot_be_is_an_error() {
    let out = in_a_child!(a_stack_size_that_cannot_be_is_an_error, || run(|| {
        for size in [usize::MAX, usize::MAX - 4096, 1 << 63, 1 << 60, (1 << 58) + 4096, 1 << 46] {
            let spawned = Builder::new().stack_size(size).spawn(|| ());
            let error = spawned.err().unwrap_or_else(|| panic!("a stack of {size:#x} bytes"));
            assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory, "{size:#x}: {error}");
        }
        assert_eq!(spawn(|| 1).join().unwrap(), 1);
    }));
    out.lived();
}

#[test]
fn the_smallest_stack_is_enough_to_park_to_panic_and_to_be_killed() {
    let out = in_a_child!(the_smallest_stack_is_enough_to_park_to_panic_and_to_be_killed, || {
        run(|| {
            let small = || Builder::new().stack_size(0);
            let g = small().spawn(|| {
                sleep(MOMENT);
                spawn(|| 5).join().unwrap()
            });
            assert_eq!(g.unwrap().join().unwrap(), 5);
            let g = small().spawn(|| {
                sleep(MOMENT);
                panic!("small {}", 1)
            });
            assert_eq!(g.unwrap().join().unwrap_err().panic().unwrap().message(), "small 1");
            let g = small().spawn(|| {
                let _slow = OnDrop(|| sleep(MOMENT));
                timeout(MOMENT, || sleep(AGES)).unwrap_err();
                sleep(AGES);
            });
            let g = g.unwrap();
            sleep(3 * MOMENT);
            g.kill();
            assert!(g.join().unwrap_err().is_killed());
            drop(small().spawn(|| panic!("reported")));
            yield_now();
        });
    });
    out.lived();
    assert!(out.stderr.contains("reported"), "{out:#?}");
}

/// Where a guard takes a mapping, the limit is `vm.max_map_count`, and the error must say so.
#[test]
fn slow_about_32_000_stacks_are_the_limit_and_the_error_names_the_sysctl() {
    let out =
        in_a_child!(slow_about_32_000_stacks_are_the_limit_and_the_error_names_the_sysctl, || {
            let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap();
            let limit: usize = limit.trim().parse().unwrap();
            if limit > 200_000 {
                eprintln!("SKIPPED: vm.max_map_count is {limit} here");
                return;
            }
            run(|| {
                let maps = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
                let before = maps();
                let mut kept: Vec<_> =
                    (0..64).map(|_| Builder::new().spawn(yield_now).unwrap()).collect();
                if maps() - before < 32 {
                    eprintln!("SKIPPED: guards take no mappings here");
                    return;
                }
                let error = loop {
                    match Builder::new().spawn(yield_now) {
                        Ok(g) => kept.push(g),
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
                assert!(error.to_string().contains("vm.max_map_count"), "{error}");
                let about = limit / 2;
                assert!((about - 1000..=about).contains(&kept.len()), "{} stacks", kept.len());
                for g in kept {
                    g.join().unwrap();
                }
                spawn(|| ()).join().unwrap();
            });
        });
    out.lived();
}

// ---- panics ------------------------------------------------------------------------------------

#[test]
fn a_panic_in_a_destructor_during_an_unwind_aborts_with_both_texts() {
    let out = in_a_child!(a_panic_in_a_destructor_during_an_unwind_aborts_with_both_texts, || {
        run(|| {
            let g = spawn(|| {
                let _second = OnDrop(|| panic!("the second one"));
                panic!("the first one");
            });
            drop(g.join());
        });
    });
    out.aborted_saying(&["the second one", "panic in a destructor during cleanup"]);
}

#[test]
fn a_panic_in_a_destructor_during_a_kill_aborts_with_its_text() {
    let out =
        in_a_child!(a_panic_in_a_destructor_during_a_kill_aborts_with_its_text, || run(|| {
            let g = spawn(|| {
                let _second = OnDrop(|| panic!("in the cleanup"));
                sleep(AGES);
            });
            yield_now();
            g.kill();
            yield_now();
        }));
    out.aborted_saying(&["in the cleanup"]);
}

#[test]
fn a_panic_in_main_is_printed_once() {
    let out = in_a_child!(a_panic_in_main_is_printed_once, || {
        let ended = std::thread::spawn(|| run(|| panic!("in main"))).join();
        assert!(ended.is_err());
    });
    out.lived();
    assert_eq!(out.stderr.matches("in main").count(), 1, "{out:#?}");
}

#[test]
fn an_unjoined_panic_is_written_to_standard_error_once_with_its_place() {
    let out =
        in_a_child!(an_unjoined_panic_is_written_to_standard_error_once_with_its_place, || {
            run(|| {
                drop(Builder::new().name("alone").spawn(|| panic!("nobody joins")));
                yield_now();
            });
        });
    out.lived();
    assert_eq!(out.stderr.matches("nobody joins").count(), 1, "{out:#?}");
    assert!(out.stderr.contains("'alone'") && out.stderr.contains("crash.rs:"), "{out:#?}");
}

/// The user of `scope` sees why the program ended: std's `thread::scope` prints it, too.
#[test]
fn a_panic_of_a_scoped_child_that_ends_the_run_is_printed() {
    let out = in_a_child!(a_panic_of_a_scoped_child_that_ends_the_run_is_printed, || {
        let ended = std::thread::spawn(|| {
            run(|| scope(|s| drop(s.spawn(|| panic!("in the child")))));
        });
        assert!(ended.join().is_err());
    });
    out.lived();
    assert_eq!(out.stderr.matches("in the child").count(), 1, "{out:#?}");
}

/// A panic that a greenlet catches itself is handled; one more must be treated alike.
#[test]
fn caught_panics_of_a_greenlet_are_all_printed_or_none() {
    let out = in_a_child!(caught_panics_of_a_greenlet_are_all_printed_or_none, || {
        run(|| {
            spawn(|| {
                for i in 0..3 {
                    assert!(catch_unwind(|| panic!("handled #{i}")).is_err());
                }
            })
            .join()
            .unwrap();
        });
    });
    out.lived();
    let printed = out.stderr.matches("handled #").count();
    assert!(printed == 0 || printed == 3, "{printed} of 3 were printed: {}", out.stderr);
}

#[test]
fn a_panic_of_a_results_destructor_is_reported_once() {
    let out = in_a_child!(a_panic_of_a_results_destructor_is_reported_once, || run(|| {
        drop(spawn(|| OnDrop(|| panic!("in a result"))));
        yield_now();
    }));
    out.lived();
    assert_eq!(out.stderr.matches("in a result").count(), 1, "{out:#?}");
}

// ---- kills and frames of C (SOUND-7) -----------------------------------------------------------

extern "C" fn called_from_c(protected: bool) {
    if protected {
        shield(|| sleep(5 * MOMENT));
    } else {
        sleep(AGES);
    }
}

#[test]
fn a_kill_through_a_frame_of_c_aborts() {
    let out = in_a_child!(a_kill_through_a_frame_of_c_aborts, || run(|| {
        let g = spawn(|| called_from_c(false));
        yield_now();
        g.kill();
        yield_now();
    }));
    out.aborted_saying(&["panic in a function that cannot unwind"]);
}

#[test]
fn a_shielded_frame_of_c_is_left_in_order_and_the_kill_lands_after_it() {
    let out =
        in_a_child!(a_shielded_frame_of_c_is_left_in_order_and_the_kill_lands_after_it, || {
            run(|| {
                let g = spawn(|| {
                    called_from_c(true);
                    yield_now();
                    unreachable!();
                });
                yield_now();
                g.kill();
                assert!(g.join().unwrap_err().is_killed());
            });
        });
    out.lived();
}

/// Calls `f` inside of `depth` shields.
fn shielded(depth: usize, f: &mut dyn FnMut()) {
    if depth == 0 { f() } else { shield(|| shielded(depth - 1, f)) }
}

/// SOUND-5: a scope's children borrow, so nothing may leave it before they have ended: no overflow
/// of a count of shields, in particular. (The children here borrow nothing: nothing dangles.)
#[test]
fn a_scope_inside_of_very_many_shields_is_left_only_after_its_children() {
    let out = in_a_child!(
        a_scope_inside_of_very_many_shields_is_left_only_after_its_children,
        || run(|| {
            use std::{cell::Cell, rc::Rc};
            for depth in [1, 254, 255, 256, 257, 300, 65_534, 65_535, 65_536] {
                let child_ended = Rc::new(Cell::new(false));
                let seen = Rc::new(Cell::new(None));
                let (ended, out) = (Rc::clone(&child_ended), Rc::clone(&seen));
                let large = Builder::new().stack_size(256 << 20);
                let g = large.spawn(move || {
                    shielded(depth, &mut || {
                        let (in_child, out, seen) = (Rc::clone(&ended), &out, Rc::clone(&ended));
                        let _left = OnDrop(move || out.set(Some(seen.get())));
                        scope(|s| {
                            s.spawn(move || {
                                let _ended = OnDrop(|| in_child.set(true));
                                shield(|| sleep(5 * MOMENT));
                            });
                        });
                    });
                });
                let g = g.unwrap();
                yield_now();
                yield_now();
                g.kill();
                let _ = g.join();
                // `None`: that many shields were refused before the scope began.
                let wanted: &[_] = if depth < 255 { &[Some(true)] } else { &[Some(true), None] };
                assert!(
                    wanted.contains(&seen.get()),
                    "{depth} shields: the scope was left before its child ended"
                );
            }
        })
    );
    out.lived();
}

// ---- the end of a run (SOUND-3) ----------------------------------------------------------------

#[test]
fn a_greenlet_that_swallows_its_kill_for_ever_makes_the_process_abort_and_is_named() {
    let out = in_a_child!(
        a_greenlet_that_swallows_its_kill_for_ever_makes_the_process_abort_and_is_named,
        || run(|| {
            reactor().set_shutdown_deadline(Duration::from_millis(50));
            let stubborn = Builder::new().name("stubborn").spawn(|| {
                loop {
                    let _ = catch_unwind(|| sleep(AGES));
                }
            });
            drop(stubborn);
            drop(Builder::new().name("obedient").spawn(|| sleep(AGES)));
            yield_now();
        })
    );
    out.aborted_saying(&[
        "shutdown deadline",
        "'stubborn'",
        "(killed)",
        "spawned at tests/crash.rs",
    ]);
    assert!(!out.stderr.contains("'obedient'"), "{out:#?}");
}

#[test]
fn a_destructor_that_blocks_for_ever_makes_the_process_abort_and_is_named() {
    let out = in_a_child!(
        a_destructor_that_blocks_for_ever_makes_the_process_abort_and_is_named,
        || run(|| {
            reactor().set_shutdown_deadline(Duration::from_millis(50));
            let stuck = Builder::new().name("stuck").spawn(|| {
                let _blocks = OnDrop(|| sleep(AGES));
                sleep(AGES);
            });
            drop(stuck);
            yield_now();
        })
    );
    out.aborted_saying(&["shutdown deadline", "'stuck'", "a timer (sleep)"]);
}

#[test]
fn a_destructor_that_asks_for_more_for_ever_makes_the_process_abort() {
    /// A call that is scheduled anew when it is dropped.
    struct Again;
    impl Drop for Again {
        fn drop(&mut self) {
            let again = Again;
            reactor().call_later(AGES, move || drop(again));
        }
    }
    let out = in_a_child!(
        a_destructor_that_asks_for_more_for_ever_makes_the_process_abort,
        || run(|| {
            reactor().set_shutdown_deadline(Duration::from_millis(50));
            let again = Again;
            reactor().call_later(AGES, move || drop(again));
        })
    );
    out.aborted_saying(&["shutdown deadline"]);
}

#[test]
fn a_shutdown_deadline_that_passes_as_the_last_greenlet_ends_is_kept() {
    let out = in_a_child!(
        a_shutdown_deadline_that_passes_as_the_last_greenlet_ends_is_kept,
        || run(|| {
            let limit = Duration::from_millis(5);
            reactor().set_shutdown_deadline(limit);
            spawn(move || {
                let _computes = OnDrop(move || {
                    let begun = Instant::now();
                    while begun.elapsed() < 2 * limit {}
                });
                sleep(AGES);
            });
            yield_now();
            reactor().call_later(AGES, || ());
        })
    );
    out.lived();
    assert_eq!(out.stderr, "");
}

#[test]
fn a_shield_that_blocks_for_ever_makes_the_process_abort_and_is_named() {
    let out = in_a_child!(
        a_shield_that_blocks_for_ever_makes_the_process_abort_and_is_named,
        || run(|| {
            reactor().set_shutdown_deadline(Duration::from_millis(50));
            drop(Builder::new().name("shielded").spawn(|| shield(|| sleep(AGES))));
            yield_now();
        })
    );
    out.aborted_saying(&["shutdown deadline", "'shielded'"]);
}

#[test]
fn main_that_waits_for_ever_in_a_shield_aborts_with_a_list_and_does_not_hang() {
    let out = in_a_child!(
        main_that_waits_for_ever_in_a_shield_aborts_with_a_list_and_does_not_hang,
        || {
            let _ = try_run(|| {
                drop(Builder::new().name("idler").spawn(|| {
                    let (_resolver, never) = Deferred::<()>::new();
                    drop(wait_for_deferred(never));
                }));
                shield(|| greenloop::wait_for_future(std::future::pending::<()>()))
            });
        }
    );
    out.aborted_saying(&["waits for ever", "'main'", "'idler'"]);
}

/// A scope's wait is shielded inside; main must still be told, by its unwind.
#[test]
fn main_whose_scoped_child_waits_for_ever_gets_the_report() {
    let out = in_a_child!(main_whose_scoped_child_waits_for_ever_gets_the_report, || {
        let ended = try_run(|| {
            scope(|s| {
                s.spawn(|| {
                    let (_resolver, never) = Deferred::<()>::new();
                    drop(wait_for_deferred(never));
                });
            });
        });
        assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
    });
    out.lived();
}

/// A link that blocks is a call like any other: the end of the run must end it.
#[test]
fn a_link_that_blocks_at_the_end_of_the_run_is_killed() {
    let out = in_a_child!(a_link_that_blocks_at_the_end_of_the_run_is_killed, || run(|| {
        reactor().set_shutdown_deadline(Duration::from_secs(1));
        for _ in 0..3 {
            let g = spawn(|| {
                let _slow = OnDrop(|| sleep(10 * MOMENT));
                sleep(AGES);
            });
            g.link(|_| sleep(AGES));
            let quick = spawn(|| sleep(AGES));
            quick.link(|_| sleep(AGES));
        }
        yield_now();
    }));
    out.lived();
}

/// What another greenlet's unwind hides must not make the end of the run hang.
#[test]
fn a_greenlet_that_caught_a_panic_ends_with_the_run_while_another_one_unwinds() {
    let out = in_a_child!(
        a_greenlet_that_caught_a_panic_ends_with_the_run_while_another_one_unwinds,
        || run(|| {
            reactor().set_shutdown_deadline(Duration::from_secs(4));
            spawn(|| {
                let _flush = OnDrop(|| sleep(Duration::from_secs(1)));
                panic!("unwinds slowly");
            });
            yield_now();
            spawn(|| {
                assert!(catch_unwind(|| panic!("caught")).is_err());
                sleep(AGES);
            });
            yield_now();
            yield_now();
        })
    );
    out.lived();
}

#[test]
fn a_run_inside_an_unwind_ends_greenlets_that_caught_a_panic() {
    let out = in_a_child!(a_run_inside_an_unwind_ends_greenlets_that_caught_a_panic, || {
        run(|| ()); // the panic hook cannot be installed during an unwind
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _cleanup = OnDrop(|| {
                run(|| {
                    reactor().set_shutdown_deadline(Duration::from_secs(1));
                    spawn(|| {
                        assert!(catch_unwind(|| panic!("caught")).is_err());
                        sleep(AGES);
                    });
                    yield_now();
                });
            });
            panic!("outer");
        }));
        assert!(caught.is_err());
    });
    out.lived();
}

/// The hub looks whether handles exist, then falls asleep: the last one must not slip in between.
#[test]
fn slow_the_last_handle_is_never_dropped_unnoticed() {
    let out = in_a_child!(slow_the_last_handle_is_never_dropped_unnoticed, || {
        let (sender, receiver) = std::sync::mpsc::channel::<(greenloop::ReactorHandle, u32)>();
        let dropper = std::thread::spawn(move || {
            let mut next = receiver.try_recv();
            loop {
                match next {
                    Ok((handle, spins)) => {
                        for _ in 0..spins {
                            std::hint::spin_loop();
                        }
                        drop(handle);
                    }
                    Err(std::sync::mpsc::TryRecvError::Empty) => std::hint::spin_loop(),
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
                }
                next = receiver.try_recv();
            }
        });
        let begin = Instant::now();
        for i in 0..200_000 {
            let ended = try_run(|| {
                let (_resolver, never) = Deferred::<()>::new();
                sender.send((reactor().handle(), (i * 7) % 400)).unwrap();
                wait_for_deferred(never)
            });
            assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
            if begin.elapsed() > Duration::from_secs(5) {
                break;
            }
        }
        drop(sender);
        dropper.join().unwrap();
    });
    out.lived();
}

// ---- the watchdog, and SIGQUIT -----------------------------------------------------------------

/// What this process writes to standard error from now on, as it comes.
#[derive(Clone)]
struct Said(Arc<Mutex<String>>);

impl Said {
    /// Begins to listen. What is heard is passed on.
    fn listen() -> Said {
        let (reader, writer) = pipe().unwrap();
        let mut stderr = rustix::io::dup(rustix::stdio::stderr()).map(std::fs::File::from).unwrap();
        rustix::stdio::dup2_stderr(&writer).unwrap();
        let said = Said(Arc::default());
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).lines() {
                let line = line.unwrap() + "\n";
                stderr.write_all(line.as_bytes()).unwrap();
                *heard.0.lock().unwrap() += &line;
            }
        });
        said
    }

    fn count(&self, text: &str) -> usize {
        self.0.lock().unwrap().matches(text).count()
    }

    /// Keeps this thread busy until it was said.
    #[inline(never)]
    fn crunch_until(&self, text: &str) {
        while self.count(text) == 0 {
            // Whoever listens must get the lock.
            (0..10_000).for_each(|_| std::hint::spin_loop());
        }
        std::hint::black_box(());
    }

    /// Keeps this thread busy for so long.
    #[inline(never)]
    fn crunch_for(&self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            std::hint::spin_loop();
        }
        std::hint::black_box(());
    }
}

const STALL: &str = "has not let go of";
const LIMIT: Duration = Duration::from_millis(60);

/// Watches this reactor, after what the first park of a debug build takes.
fn watch(limit: Duration) {
    sleep(MOMENT);
    reactor().set_watchdog(Some(limit)).unwrap();
}

#[test]
fn a_greenlet_that_computes_is_named_once_with_its_backtrace() {
    const LINE: u32 = line!() + 10;
    let out =
        in_a_child!(a_greenlet_that_computes_is_named_once_with_its_backtrace, || run(|| {
            let said = Said::listen();
            let heard = said.clone();
            let cruncher = move || {
                heard.crunch_until(STALL);
                heard.crunch_for(LIMIT * 4);
            };
            watch(LIMIT);
            let g = Builder::new().name("cruncher").spawn(cruncher);
            g.unwrap().join().unwrap();
            assert_eq!(said.count(STALL), 1, "one report for each stall");
            said.crunch_until("'main'"); // Another stall, another report: that of main.
        }));
    out.lived();
    let birth = format!("greenlet #2 'cruncher' (spawned at {}:{LINE}:", file!());
    for part in [&*birth, "It computes", "yield_if_due", "crunch_until at ", "'main'"] {
        assert!(out.stderr.contains(part), "no {part:?} in {}", out.stderr);
    }
    assert!(!out.stderr.contains("corosensei"), "{}", out.stderr);
    assert!(!out.stderr.contains("snapshot"), "{}", out.stderr);
}

#[test]
fn a_greenlet_that_blocks_its_thread_is_told_what_to_use() {
    #[inline(never)]
    fn read_from(mut reader: PipeReader) {
        reader.read_exact(&mut [0]).unwrap();
        std::hint::black_box(());
    }
    let out = in_a_child!(a_greenlet_that_blocks_its_thread_is_told_what_to_use, || run(|| {
        let said = Said::listen();
        let (reader, mut writer) = pipe().unwrap();
        watch(LIMIT);
        std::thread::spawn(move || {
            said.crunch_until("read_from at ");
            writer.write_all(b"x").unwrap();
        });
        spawn(move || read_from(reader)).join().unwrap();
    }));
    out.lived();
    for part in ["greenlet #2 (spawned at", "It blocks the thread", "greenloop::net"] {
        assert!(out.stderr.contains(part), "no {part:?} in {}", out.stderr);
    }
}

#[test]
fn an_idle_loop_is_never_reported() {
    let out = in_a_child!(an_idle_loop_is_never_reported, || run(|| {
        watch(LIMIT / 3);
        sleep(LIMIT * 5);
        for _ in 0..100 {
            sleep(MOMENT);
        }
    }));
    out.lived();
    assert!(!out.stderr.contains(STALL), "{}", out.stderr);
}

#[test]
fn slow_the_time_for_which_a_process_is_stopped_does_not_count() {
    let out =
        in_a_child!(slow_the_time_for_which_a_process_is_stopped_does_not_count, || run(|| {
            watch(LIMIT * 30);
            std::thread::sleep(LIMIT * 10); // Now the watchdog knows that nobody gets on.
            let goes_on = format!("sleep 2; kill -CONT {}", std::process::id());
            let mut sh = Command::new("sh").args(["-c", &goes_on]).spawn().unwrap();
            // SAFETY: stops this process, which `sh` continues.
            unsafe { libc::raise(libc::SIGSTOP) };
            sh.wait().unwrap();
            std::thread::sleep(LIMIT * 9); // It looks once more.
        }));
    out.lived();
    assert!(!out.stderr.contains(STALL), "{}", out.stderr);
}

#[test]
fn a_watchdog_that_was_called_off_says_nothing() {
    let out = in_a_child!(a_watchdog_that_was_called_off_says_nothing, || run(|| {
        let said = Said::listen();
        watch(LIMIT);
        said.crunch_until(STALL);
        reactor().set_watchdog(None).unwrap();
        yield_now();
        said.crunch_for(LIMIT * 4);
        assert_eq!(said.count(STALL), 1);
    }));
    out.lived();
}

/// Whoever takes SIGURG keeps it; the report is shorter then.
#[test]
fn a_handler_of_the_programs_own_is_left_alone() {
    extern "C" fn theirs(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = theirs;
    let out = in_a_child!(a_handler_of_the_programs_own_is_left_alone, || run(|| {
        let handler: extern "C" fn(libc::c_int) = theirs;
        // SAFETY: a handler that does nothing.
        unsafe { libc::signal(libc::SIGURG, handler as usize) };
        let said = Said::listen();
        watch(LIMIT);
        spawn(move || said.crunch_until(STALL)).join().unwrap();
        // SAFETY: asks, and sets the same.
        assert_eq!(unsafe { libc::signal(libc::SIGURG, handler as usize) }, handler as usize);
    }));
    let _ = handler;
    out.lived();
    assert!(out.stderr.contains("a greenlet has not let go of thread"), "{}", out.stderr);
}

#[test]
fn sigquit_dumps_every_reactor_of_the_process() {
    #[inline(never)]
    fn where_it_sleeps() {
        sleep(AGES);
        std::hint::black_box(());
    }
    let out = in_a_child!(sigquit_dumps_every_reactor_of_the_process, || {
        let said = Said::listen();
        dump_on_sigquit().unwrap();
        let (heard, stuck) = (said.clone(), std::thread::Builder::new().name("stuck hub".into()));
        let stuck = stuck.spawn(move || {
            run(|| {
                reactor().set_watchdog(None).unwrap();
                Builder::new().name("stuck").spawn(move || heard.crunch_until("'stuck'")).unwrap();
                yield_now();
            });
        });
        run(|| {
            Builder::new().name("sleeper").spawn(where_it_sleeps).unwrap();
            sleep(MOMENT);
            let pid = std::process::id().cast_signed();
            // SAFETY: a signal to this process, which has a handler for it.
            unsafe { libc::kill(pid, libc::SIGQUIT) };
            while said.count("where_it_sleeps at ") == 0 || said.count("'stuck'") == 0 {
                sleep(MOMENT);
            }
        });
        stuck.unwrap().join().unwrap();
    });
    out.lived();
    for part in
        ["the greenlets of thread '", "'sleeper' waits for a timer", "of thread 'stuck hub'"]
    {
        assert!(out.stderr.contains(part), "no {part:?} in {}", out.stderr);
    }
}

#[test]
fn the_watchdog_lives_on_when_nobody_reads_standard_error() {
    let out = in_a_child!(the_watchdog_lives_on_when_nobody_reads_standard_error, || run(|| {
        let stderr = rustix::io::dup(rustix::stdio::stderr()).unwrap();
        rustix::stdio::dup2_stderr(&pipe().unwrap().1).unwrap();
        watch(LIMIT);
        std::thread::sleep(LIMIT * 4); // It says so to nobody.
        rustix::stdio::dup2_stderr(&stderr).unwrap();
        yield_now();
        Said::listen().crunch_until(STALL);
    }));
    out.lived();
}

/// A fork may come in the midst of a question, which then nobody ends in the child.
#[test]
fn the_watchdog_of_a_child_asks_whatever_that_of_its_parent_was_asking() {
    fn is_asking() -> bool {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null action asks only; there is room for the answer.
        unsafe { libc::sigaction(libc::SIGURG, std::ptr::null(), action.as_mut_ptr()) };
        // SAFETY: zeroed at first, and filled in.
        unsafe { action.assume_init() }.sa_sigaction != libc::SIG_DFL
    }
    let out =
        in_a_child!(the_watchdog_of_a_child_asks_whatever_that_of_its_parent_was_asking, || {
            let deaf = std::thread::spawn(|| {
                let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
                // SAFETY: all-zero is an empty set.
                unsafe { libc::sigaddset(set.as_mut_ptr(), libc::SIGURG) };
                // SAFETY: this thread answers no question from now on.
                unsafe {
                    libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())
                };
                run(|| {
                    watch(LIMIT);
                    std::thread::sleep(LIMIT * 10);
                });
            });
            while !is_asking() {
                std::thread::sleep(Duration::from_millis(1));
            }
            // SAFETY: the other threads wait, and hold no lock but the one that this is about.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                run(|| {
                    watch(LIMIT);
                    let blocks = || std::thread::sleep(LIMIT * 20);
                    Builder::new().name("the child's").spawn(blocks).unwrap().join().unwrap();
                });
                // SAFETY: ends the child.
                unsafe { libc::_exit(0) };
            }
            // SAFETY: waits for the child.
            unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            deaf.join().unwrap();
        });
    out.lived();
    assert!(out.stderr.contains("'the child's'"), "{}", out.stderr);
}

// ---- small stacks, and standard output ---------------------------------------------------------

/// Peer list, item 17: whoever installs a handler without `SA_ONSTACK` has it run on the stack of
/// the greenlet that is interrupted, where the kernel also saves all vector registers.
#[test]
fn a_signal_handler_has_room_on_the_smallest_stack() {
    static RAN_AT: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: libc::c_int) {
        let room = std::hint::black_box([1u8; 8 << 10]);
        RAN_AT.store(room.as_ptr().addr() + usize::from(room[9] - 1), Ordering::Relaxed);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    fn raise_with_full_registers() -> bool {
        use std::arch::x86_64::{_mm512_cmpeq_epi64_mask, _mm512_set1_epi64};
        let before = std::hint::black_box(_mm512_set1_epi64(7));
        // SAFETY: a signal to this thread, which has a handler for it.
        unsafe { libc::raise(libc::SIGUSR1) };
        _mm512_cmpeq_epi64_mask(before, std::hint::black_box(_mm512_set1_epi64(7))) == 0xff
    }
    let out = in_a_child!(a_signal_handler_has_room_on_the_smallest_stack, || run(|| {
        let handler: extern "C" fn(libc::c_int) = handler;
        // SAFETY: a handler that only writes to an atomic; without SA_ONSTACK, on purpose.
        unsafe { libc::signal(libc::SIGUSR1, handler as usize) };
        let small = Builder::new().stack_size(0).spawn(|| {
            let used = std::hint::black_box([0u8; 4 << 10]);
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx512f") {
                // SAFETY: the processor has it.
                assert!(unsafe { raise_with_full_registers() });
            }
            // SAFETY: a signal to this thread, which has a handler for it.
            unsafe { libc::raise(libc::SIGUSR1) };
            let distance = used.as_ptr().addr().abs_diff(RAN_AT.load(Ordering::Relaxed));
            assert!(distance < 32 << 10, "it ran elsewhere, {distance} bytes away");
        });
        small.unwrap().join().unwrap();
    }));
    out.lived();
}

/// Peer list, item 15: std's standard output is not ours. A write to a full pipe blocks the thread,
/// under std's lock; no other greenlet runs meanwhile, so none can meet that lock.
#[test]
fn printing_to_a_full_pipe_never_parks() {
    let out = in_a_child!(printing_to_a_full_pipe_never_parks, || {
        let (mut reader, writer) = pipe().unwrap();
        rustix::stdio::dup2_stdout(&writer).unwrap();
        drop(writer);
        let drain = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"the end\n") {
                let mut some = [0; 1 << 10];
                let n = reader.read(&mut some).unwrap();
                bytes.extend_from_slice(&some[..n]);
            }
            bytes.len()
        });
        run(|| {
            let printing = Rc::new(Cell::new(false));
            let line = "x".repeat((16 << 10) - 1);
            let all: Vec<_> = (0..64)
                .map(|_| {
                    let (printing, line) = (Rc::clone(&printing), line.clone());
                    spawn(move || {
                        assert!(!printing.replace(true), "another one parked while it printed");
                        println!("{line}");
                        printing.set(false);
                        yield_now();
                    })
                })
                .collect();
            all.into_iter().for_each(|greenlet| greenlet.join().unwrap());
        });
        println!("the end");
        assert_eq!(drain.join().unwrap(), (1 << 20) + 8);
    });
    out.lived();
}

/// Whether threads are virtual here; where they are not, what is tested does not exist.
fn has_virtual_threads() -> bool {
    thread::support() == thread::Support::Virtual
}

#[test]
fn a_virtual_thread_that_cannot_be_killed_is_left_as_it_is() {
    let out = in_a_child!(a_virtual_thread_that_cannot_be_killed_is_left_as_it_is, || {
        if !has_virtual_threads() {
            eprintln!("'waiter', (killed), left as they are");
            return;
        }
        struct Loud;
        impl Drop for Loud {
            fn drop(&mut self) {
                eprintln!("DROPPED");
            }
        }
        let (tell, told) = std::sync::mpsc::channel();
        run(move || {
            reactor().set_shutdown_deadline(Duration::from_millis(50));
            let waiter = thread::Builder::new().name("waiter".into()).spawn(|| {
                let _loud = Loud;
                shield(|| Event::new().wait());
            });
            tell.send(waiter.unwrap()).unwrap();
            sleep(MOMENT);
        });
        let joined = told.recv().unwrap().join();
        assert!(joined.unwrap_err().is::<greenloop::Killed>());
        // Others run as before.
        assert_eq!(run(|| thread::spawn(|| 5).join().unwrap()), 5);
    });
    out.lived();
    for part in ["'waiter'", "(killed)", "left as they are"] {
        assert!(out.stderr.contains(part), "no {part:?} in {}", out.stderr);
    }
    assert!(!out.stderr.contains("DROPPED"), "{}", out.stderr);
}

#[test]
fn a_scoped_virtual_thread_that_cannot_be_killed_ends_the_process() {
    let out = in_a_child!(a_scoped_virtual_thread_that_cannot_be_killed_ends_the_process, || {
        if !has_virtual_threads() {
            eprintln!("virtual thread #, shutdown deadline is over");
            std::process::abort();
        }
        run(|| {
            reactor().set_shutdown_deadline(Duration::from_millis(50));
            spawn(|| {
                let borrowed = 1;
                thread::scope(|s| {
                    s.spawn(|| {
                        shield(|| Event::new().wait());
                        borrowed
                    });
                });
            });
            sleep(MOMENT);
        });
    });
    out.aborted_saying(&["virtual thread #", "shutdown deadline is over"]);
}

#[test]
fn a_virtual_thread_whose_stack_overflows_is_named() {
    let out = in_a_child!(a_virtual_thread_whose_stack_overflows_is_named, || run(|| {
        if !has_virtual_threads() {
            eprintln!("'deep' spawned at {} overflowed its stack", file!());
            std::process::abort();
        }
        let deep = thread::Builder::new().name("deep".into()).spawn(|| overflow(0));
        let _ = deep.unwrap().join();
    }));
    out.aborted_saying(&["'deep'", "spawned at", file!(), "overflowed its stack"]);
}

#[test]
fn a_virtual_thread_that_blocks_its_thread_is_named() {
    #[inline(never)]
    fn read_raw(reader: PipeReader) {
        // By a system call that no hook sees.
        rustix::io::read(&reader, &mut [0]).unwrap();
        std::hint::black_box(());
    }
    let out = in_a_child!(a_virtual_thread_that_blocks_its_thread_is_named, || run(|| {
        if !has_virtual_threads() {
            eprintln!("virtual thread #2 'stuck' (spawned at interpose read_raw at");
            return;
        }
        let said = Said::listen();
        let (reader, mut writer) = pipe().unwrap();
        watch(LIMIT);
        std::thread::spawn(move || {
            said.crunch_until("read_raw at ");
            writer.write_all(b"x").unwrap();
        });
        let stuck = thread::Builder::new().name("stuck".into()).spawn(move || read_raw(reader));
        stuck.unwrap().join().unwrap();
    }));
    out.lived();
    for part in ["virtual thread #2 'stuck' (spawned at", "interpose", "read_raw at"] {
        assert!(out.stderr.contains(part), "no {part:?} in {}", out.stderr);
    }
}
