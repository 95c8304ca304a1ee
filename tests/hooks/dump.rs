//! Dumps of virtual threads, which go on while what a backtrace needs is held elsewhere.

use std::{
    io::{PipeReader, Read, pipe},
    os::fd::AsRawFd,
    panic::catch_unwind,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use greenloop::{dump, run, sleep, thread, yield_now};

use crate::support::in_a_process_of_its_own;

const MOMENT: Duration = Duration::from_millis(1);

/// Makes standard error a pipe. Gives its other end, and the number of what it was.
fn take_stderr() -> (PipeReader, i32) {
    // SAFETY: a number. It ends a process that hangs.
    unsafe { libc::alarm(60) };
    let (reader, writer) = pipe().unwrap();
    // SAFETY: numbers of open descriptors.
    let stderr = unsafe { libc::dup(2) };
    // SAFETY: as above.
    unsafe { libc::dup2(writer.as_raw_fd(), 2) };
    (reader, stderr)
}

fn drain(mut reader: PipeReader) {
    while reader.read(&mut [0; 4096]).unwrap() > 0 {}
}

/// std has a lock for backtraces, which a thread that panics holds while it writes its message.
#[test]
fn virtual_threads_run_and_end_while_one_waits_to_take_its_backtrace() {
    static IS_OVER: AtomicBool = AtomicBool::new(false);
    const NAME: &str = "dump::virtual_threads_run_and_end_while_one_waits_to_take_its_backtrace";
    in_a_process_of_its_own(NAME, || {
        let (reader, stderr) = take_stderr();
        let panicking = std::thread::spawn(|| {
            while !IS_OVER.load(Ordering::Relaxed) {
                catch_unwind(|| panic!("{}", "x".repeat(4 << 20))).unwrap_err();
            }
        });
        let draining = std::thread::spawn(|| drain(reader));
        run(|| {
            let tick = || {
                while !IS_OVER.load(Ordering::Relaxed) {
                    thread::sleep(MOMENT);
                }
            };
            let ticking = [tick; 4].map(thread::spawn);
            for _ in 0..20 {
                let ending = [(); 4].map(|()| thread::spawn(|| thread::sleep(MOMENT)));
                yield_now();
                assert!(dump().parked().len() >= ticking.len());
                ending.into_iter().for_each(|ending| ending.join().unwrap());
            }
            IS_OVER.store(true, Ordering::Relaxed);
            ticking.into_iter().for_each(|ticking| ticking.join().unwrap());
            while !panicking.is_finished() {
                sleep(MOMENT);
            }
        });
        // SAFETY: numbers of open descriptors.
        unsafe { libc::dup2(stderr, 2) };
        draining.join().unwrap();
    });
}
