//! The examples of this package, driven.

use std::{env, process::Command};

use greenloop_unmodified::threads;

const REQUESTS: usize = 100;

/// It compares the threads, and its answers are right: otherwise it fails.
pub(crate) fn unmodified() {
    let here = env::current_exe().unwrap();
    // `cargo test` builds it; `cargo test --test it` alone does not.
    let example = here.parent().unwrap().with_file_name("examples").join("unmodified");
    if !example.exists() {
        println!("    SKIPPED: {} is not built", example.display());
        return;
    }
    let output = Command::new(example).args([&REQUESTS.to_string(), "300"]).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&errors));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("ureq: 100 requests to http://127.0.0.1:"), "{text}");
    if threads::are_virtual() {
        assert!(
            lines[1].starts_with("  on virtual threads, 1 OS thread(s): all within "),
            "{text}"
        );
    }
    // Not all need be there when they are counted.
    assert!(lines[2].starts_with("  on OS threads, "), "{text}");
    assert!(lines[3].starts_with("postgres: "), "{text}");
    if env::var_os("GREENLOOP_POSTGRES_URL").is_some() {
        assert!(lines[5].starts_with("  on OS threads, "), "{text}");
    }
    for line in lines {
        println!("    {line}");
    }
}

/// It measures all three ways, whose answers are right: otherwise it fails.
pub(crate) fn queries(_url: &str) {
    let here = env::current_exe().unwrap();
    let example = here.parent().unwrap().with_file_name("examples").join("queries");
    if !example.exists() || !threads::are_virtual() {
        println!("    SKIPPED: {} is not built, or has no virtual threads", example.display());
        return;
    }
    let output = Command::new(example).args(["50", "1"]).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&errors));
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("select 1, by 50 clients at once"), "{text}");
    for (line, way) in lines[2..5].iter().zip(["virtual threads", "tokio-postgres", "OS threads"]) {
        assert!(line.trim_start().starts_with(way) && line.ends_with(" MiB"), "{text}");
    }
    assert!(lines[6].starts_with("virtual threads / OS threads: asked "), "{text}");
    for line in lines {
        println!("    {line}");
    }
}
