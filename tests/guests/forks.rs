//! Virtual threads in the child of a fork.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread as os,
};

use greenloop::{reactor, run, thread};

use crate::support::{assert_ends, in_a_process_of_its_own};

/// What another thread of the parent was about to do, nobody ends in the child.
#[test]
fn a_child_has_virtual_threads_whatever_others_were_doing() {
    const FORKS: usize = 200;
    let name = "forks::a_child_has_virtual_threads_whatever_others_were_doing";
    in_a_process_of_its_own(name, || {
        let (is_over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (over, count) = (Arc::clone(&is_over), Arc::clone(&rounds));
        let others = os::spawn(move || {
            run(|| {
                reactor().set_watchdog(None).unwrap(); // It takes backtraces, see below.
                while !over.load(Ordering::Relaxed) {
                    thread::spawn(|| ()).join().unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        // In a debug build the first wait at a place takes its backtrace, under a lock of std's,
        // which a fork would leave held.
        while rounds.load(Ordering::Relaxed) < 2 {
            os::yield_now();
        }
        assert_ends(|| {
            for n in 0..FORKS {
                // SAFETY: the child takes no lock but libc's, which a fork leaves free, and those
                // of the run that it begins.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: it ends the process if that hangs.
                    unsafe { libc::alarm(15) };
                    let sum = run(move || thread::spawn(move || n + 1).join().unwrap());
                    // SAFETY: it ends the process, and runs nothing of it.
                    unsafe { libc::_exit(if sum == n + 1 { 0 } else { 1 }) };
                }
                let mut status = -1;
                // SAFETY: room for a status.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                assert_eq!(status, 0);
            }
        });
        is_over.store(true, Ordering::Relaxed);
        others.join().unwrap();
    });
}

/// Forks; the child ends with what `in_the_child` gives. Gives what it ended with.
fn status_of(in_the_child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the children here take no locks but libc's, which a fork leaves free.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: it ends the process if something hangs.
        unsafe { libc::alarm(15) };
        // SAFETY: it ends the process, and runs nothing of it.
        unsafe { libc::_exit(in_the_child()) };
    }
    let mut status = -1;
    // SAFETY: room for a status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -status }
}

/// As daemons do it.
#[test]
fn the_child_of_a_virtual_thread_forks_in_its_turn() {
    let ended =
        assert_ends(|| run(|| thread::run(|| status_of(|| status_of(|| status_of(|| 3) + 2) + 2))));
    assert_eq!(ended, 7);
}

/// A reactor runs on a virtual thread, and one of its virtual threads forks.
#[test]
fn a_virtual_thread_inside_of_another_one_forks_and_so_does_its_child() {
    let ended = assert_ends(|| {
        run(|| thread::run(|| run(|| thread::run(|| status_of(|| status_of(|| 3) + 2)))))
    });
    assert_eq!(ended, 5);
}
