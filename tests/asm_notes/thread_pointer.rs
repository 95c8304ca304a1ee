//! The gate between two thread pointers: the page against the built code, and what it keeps apart.

use greenloop::thread::{self, Support, support};

use crate::{block, built, page};

/// The operands that the compiler chooses.
const CHOSEN: [&str; 2] = ["BASE", "FUNCTION"];

/// The instructions of the gate on the page, without their comments.
fn gate(architecture: &str) -> Vec<String> {
    let page = page("thread-pointer.md");
    let lines = block(&page, &format!("gate {architecture}"));
    lines.iter().map(|line| line.split(';').next().unwrap_or_default().trim().to_owned()).collect()
}

/// Whether the line of objdump's is this one of the page's.
fn is(built: &str, wanted: &str) -> bool {
    let normal = built.replace(',', ", ").replace(",  ", ", ");
    let (mut built, mut wanted) = (normal.split_whitespace(), wanted.split_whitespace());
    loop {
        match (built.next(), wanted.next()) {
            (None, None) => return true,
            (Some(_), Some(wanted)) if CHOSEN.contains(&wanted) => {}
            (Some(built), Some(wanted)) if built == wanted => {}
            _ => return false,
        }
    }
}

fn found_in(code: &[String], gate: &[String]) -> bool {
    code.windows(gate.len()).any(|w| w.iter().zip(gate).all(|(built, wanted)| is(built, wanted)))
}

#[test]
fn the_gate_on_the_page_is_what_was_built() {
    let Some(symbols) = built::ask("nm", &["-C".into(), "-S".into()]) else { return };
    let line = symbols.lines().find(|line| line.ends_with("greenloop::coro::base::call_on"));
    let line = line.expect("the gate is a function of its own");
    let mut words = line.split_whitespace().map(|word| usize::from_str_radix(word, 16));
    let (start, len) = (words.next().unwrap().unwrap(), words.next().unwrap().unwrap());
    let code = built::disassembly_in_file(start, len).expect("nm was there, so is objdump");
    let architecture = if cfg!(target_arch = "x86_64") { "x86_64" } else { "aarch64" };
    let gate = gate(architecture);
    assert!(found_in(&code, &gate), "{gate:#?} is not in {code:#?}");
    let changes = code.iter().filter(|line| line.starts_with("wrfsbase") || line.contains("msr "));
    assert_eq!(changes.count(), 2, "{code:#?}");
}

#[test]
fn the_reading_of_gates_can_fail() {
    for architecture in ["x86_64", "aarch64"] {
        let gate = gate(architecture);
        assert_eq!(gate.len(), 4);
        let chosen = gate.iter().map(|line| line.replace("BASE", "r9").replace("FUNCTION", "r8"));
        let mut code: Vec<_> = chosen.collect();
        assert!(found_in(&code, &gate));
        code.swap(1, 2);
        assert!(!found_in(&code, &gate));
    }
}

/// Runs `f` on two virtual threads, the second in the midst of the first: what it gave before and
/// after that, and what the second gave.
fn interleaved<T: Send + 'static>(
    set: impl Fn(bool) + Send + Copy + 'static,
    get: fn() -> T,
) -> Option<[T; 3]> {
    if support() != Support::Virtual {
        crate::skipped(&format!("virtual threads: {}", support()));
        return None;
    }
    Some(greenloop::run(move || {
        let first = thread::spawn(move || {
            set(true);
            let before = get();
            thread::yield_now();
            let after = get();
            set(false);
            (before, after)
        });
        let second = thread::spawn(get);
        let (before, after) = first.join().unwrap();
        [before, after, second.join().unwrap()]
    }))
}

#[test]
fn a_virtual_thread_has_an_errno_of_its_own() {
    fn errno() -> *mut i32 {
        // SAFETY: it has no preconditions.
        unsafe { libc::__errno_location() }
    }
    // SAFETY: a live variable of this thread.
    let set = |set: bool| unsafe { errno().write(if set { libc::EXDEV } else { 0 }) };
    // SAFETY: as above.
    let Some(seen) = interleaved(set, || unsafe { errno().read() }) else { return };
    assert_eq!(seen, [libc::EXDEV, libc::EXDEV, 0]);
}

#[test]
fn a_virtual_thread_has_a_rounding_of_its_own() {
    #[cfg(target_arch = "x86_64")]
    fn rounding(set: Option<bool>) -> u64 {
        let mut value = 0u32;
        // SAFETY: stores four bytes to a live variable.
        unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack)) };
        if let Some(set) = set {
            let value = if set { value | 3 << 13 } else { value & !(3 << 13) };
            // SAFETY: the value that was there, with another direction of rounding.
            unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack)) };
        }
        u64::from(value >> 13 & 3)
    }
    #[cfg(target_arch = "aarch64")]
    fn rounding(set: Option<bool>) -> u64 {
        let value: u64;
        // SAFETY: reads a register that every thread may read.
        unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value, options(nostack, nomem)) };
        if let Some(set) = set {
            let value = if set { value | 3 << 22 } else { value & !(3 << 22) };
            // SAFETY: the value that was there, with another direction of rounding.
            unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack, nomem)) };
        }
        value >> 22 & 3
    }
    let set = |set: bool| _ = rounding(Some(set));
    let Some(seen) = interleaved(set, || rounding(None)) else { return };
    assert_eq!(seen, [3, 3, 0]);
    assert_eq!(rounding(None), 0, "nor is it the hub's");
}
