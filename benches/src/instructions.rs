//! How many instructions an operation takes, counted by valgrind.
//!
//! The bench runs itself under valgrind's `cachegrind`, twice for each contender; what differs is
//! as many operations as the second time has more. The count depends on the compiler and not on
//! the machine or on what else it does. Instructions of the kernel are not in it.

use std::env;
use std::process::Command;

use crate::report::Contender;

/// Tells a bench which contender to run, and how often, instead of measuring.
const MARK: &str = "GREENLOOP_BENCH_COUNTED";

/// Operations of the shorter run: whatever grows by doubling has grown.
const FEW: u64 = 20_000;

/// Operations that the longer run has more.
const MORE: u64 = 100_000;

/// Whether this process is one that is being counted; it has then done its operations.
///
/// # Panics
/// When it is asked for a contender that is not among `contenders`.
#[must_use]
pub fn is_counting(contenders: &[Contender]) -> bool {
    let Ok(asked) = env::var(MARK) else { return false };
    let (operations, name) = asked.split_once(' ').expect("a number and a name");
    let contender = contenders.iter().find(|c| c.name == name).expect("a contender's name");
    (contender.run)(operations.parse().expect("a number"));
    true
}

/// Returns the instructions of one operation of the contender with that `name`.
///
/// # Errors
/// What kept it from being counted: valgrind is missing, or could not run the program.
pub fn of(name: &str) -> Result<f64, String> {
    let few = counted(name, FEW)?;
    let many = counted(name, FEW + MORE)?;
    Ok((many as f64 - few as f64) / MORE as f64)
}

/// Prints a table of them, or why there is none.
pub fn print(title: &str, contenders: &[Contender]) {
    println!("\n| {title} | instructions |\n|---|---|");
    for contender in contenders {
        match of(contender.name) {
            Ok(count) => println!("| {} | {count:.1} |", contender.name),
            Err(error) => println!("| {} | SKIPPED, NOT COUNTED: {error} |", contender.name),
        }
    }
}

/// The instructions of a whole process that does `operations`.
fn counted(name: &str, operations: u64) -> Result<u64, String> {
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(this)
        .env(MARK, format!("{operations} {name}"))
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said.lines().find_map(|line| line.split_once("I ")?.1.trim().strip_prefix("refs:"));
    let total = total.and_then(|number| number.trim().replace(',', "").parse().ok());
    total.filter(|_| output.status.success()).ok_or_else(|| {
        let last = said.lines().last().unwrap_or("it says nothing");
        format!("valgrind: {}: {last}", output.status)
    })
}
