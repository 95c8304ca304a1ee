//! Under valgrind, OS threads take the place of virtual ones.

use std::{env, io::ErrorKind, process::Command};

use greenloop::{
    reactor, run,
    thread::{self, Support},
};

/// Set in the child.
const INSIDE: &str = "GREENLOOP_UNDER_VALGRIND";

#[test]
fn slow_under_valgrind_os_threads_take_their_place() {
    if env::var_os(INSIDE).is_some() {
        assert!(matches!(thread::support(), Support::OsThreads(_)), "{}", thread::support());
        let sum = run(|| {
            // Where it looks for return addresses, not all of the stack has been written.
            reactor().set_watchdog(None).unwrap();
            let threads: Vec<_> = (0..4).map(|n| thread::spawn(move || n)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<i32>()
        });
        println!("they are {}, and give {sum}", thread::support());
        return;
    }
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--error-exitcode=9"]).arg(env::current_exe().unwrap());
    valgrind.args(["slow_under_valgrind", "--nocapture"]).env(INSIDE, "1");
    let out = match valgrind.output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: there is no valgrind here");
            return;
        }
        out => out.unwrap(),
    };
    let said = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}\n{errors}");
    assert!(said.contains("they are OS threads: ") && said.contains("and give 6"), "{said}");
}
