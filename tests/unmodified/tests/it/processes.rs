//! `std::process::Command`: processes that are started, fed, read and waited for.

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use greenloop_unmodified::{overlap, threads};

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(300);

/// More than a pipe holds, so that who writes must wait for who reads.
const LONG: usize = 100_000;

/// A shell that runs `script`, in which `$0` is a number.
fn shell(script: &str, index: usize) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, &index.to_string()]);
    command
}

pub(crate) fn output() {
    let outputs = overlap(MANY, MOMENT, |index| {
        shell("sleep 0.3; echo out $0; echo err $0 >&2; exit $(($0 % 100))", index).output()
    });
    for (index, output) in outputs.into_iter().enumerate() {
        let output = output.unwrap();
        assert_eq!(output.stdout, format!("out {index}\n").into_bytes());
        assert_eq!(output.stderr, format!("err {index}\n").into_bytes());
        assert_eq!(output.status.code(), Some(i32::try_from(index % 100).unwrap()));
    }
}

/// What goes in by one pipe comes out by both, more than they hold; another thread feeds it.
pub(crate) fn both_pipes() {
    let checked = overlap(MANY, MOMENT, |index| {
        let mut child = shell("sleep 0.3; tee /dev/stderr", index)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let text = format!("{index:9} ").repeat(LONG / 10).into_bytes();
        let fed = text.clone();
        let feeder = threads::spawn(move || input.write_all(&fed));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        assert!(output.status.success());
        (output.stdout == text, output.stderr == text)
    });
    assert!(checked.into_iter().all(|checked| checked == (true, true)));
}

/// By `wait`, by `status`, by `try_wait`, and after a `kill`.
pub(crate) fn wait() {
    let codes = overlap(MANY, MOMENT, |index| {
        let mut command = shell("sleep 0.3; exit $(($0 % 100))", index);
        match index % 4 {
            0 => command.spawn().unwrap().wait().unwrap(),
            1 => command.status().unwrap(),
            2 => {
                let mut child = command.spawn().unwrap();
                loop {
                    match child.try_wait().unwrap() {
                        Some(status) => break status,
                        None => thread::sleep(Duration::from_millis(10)),
                    }
                }
            }
            _ => {
                // It would end with this process, whose pipe it reads.
                let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
                thread::sleep(MOMENT);
                child.kill().unwrap();
                child.wait().unwrap()
            }
        }
    });
    for (index, status) in codes.into_iter().enumerate() {
        if index % 4 == 3 {
            assert_eq!(status.signal(), Some(9));
        } else {
            assert_eq!(status.code(), Some(i32::try_from(index % 100).unwrap()));
        }
    }
}
