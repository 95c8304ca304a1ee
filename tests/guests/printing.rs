//! Printing suspends nobody, also while nobody reads what is printed.

use std::{
    env,
    io::Read,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
};

use greenloop::{run, thread};

/// Set in the child.
const INSIDE: &str = "GREENLOOP_PRINTS";
const THREADS: usize = 10;
const LINES: usize = 20;
/// More than a pipe holds, in all.
const LINE_BYTES: usize = 1000;

#[test]
fn printing_into_a_full_pipe_suspends_nobody() {
    if env::var_os(INSIDE).is_some() {
        return print();
    }
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["printing_into_a_full_pipe", "--nocapture"]).env(INSIDE, "1");
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    // Nothing is read before it is full, but for less than a line.
    while rustix::io::ioctl_fionread(&output).unwrap() < 60_000 {
        std::thread::yield_now();
    }
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "two have printed at once");
    let whole = text.lines().filter(|line| line.len() == LINE_BYTES).count();
    assert_eq!(whole, THREADS * LINES);
}

fn print() {
    static PRINTS: AtomicBool = AtomicBool::new(false);
    println!();
    run(|| {
        let print = || {
            for _ in 0..LINES {
                assert!(!PRINTS.swap(true, Ordering::Relaxed));
                println!("{}", "x".repeat(LINE_BYTES));
                PRINTS.store(false, Ordering::Relaxed);
                thread::yield_now();
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| thread::spawn(print)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
