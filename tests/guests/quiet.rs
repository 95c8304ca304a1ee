//! Hubs without virtual threads wait as any thread does.

use std::{sync::mpsc, thread as os, time::Duration};

use greenloop::{run, sync::Event, thread};

use crate::{c::settle, support::assert_ends};

/// How often this thread has let go of its processor to wait.
fn waits() -> i64 {
    // SAFETY: numbers, for which zeroes do.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) }, 0);
    usage.ru_nvcsw
}

#[test]
fn a_hub_without_virtual_threads_does_not_look_again_and_again() {
    assert_ends(|| {
        run(|| {
            let lets_go = std::sync::Arc::new(Event::new());
            let is_let_go = std::sync::Arc::clone(&lets_go);
            let alive = thread::spawn(move || is_let_go.wait());
            settle();
            // Time is the subject: so many looks would fit into it, at 10 ms each.
            let count = os::spawn(|| {
                run(|| {
                    let (_tell, told) = mpsc::channel::<()>();
                    let before = waits();
                    told.recv_timeout(Duration::from_millis(300)).unwrap_err();
                    waits() - before
                })
            });
            let count = count.join().unwrap();
            lets_go.set();
            alive.join().unwrap();
            assert!(count < 10, "{count} waits in place of one");
        });
    });
}
