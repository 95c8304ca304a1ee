//! The threads that the tests run on: `greenloop`'s, by std's names.

use greenloop::{interpose, thread};

pub use greenloop::thread::{JoinHandle, scope, spawn};

/// Whether they are virtual, all on one OS thread, and the C library's calls park them.
pub fn are_virtual() -> bool {
    thread::support() == thread::Support::Virtual && interpose::is_active().is_ok()
}

/// Runs what a program's `main` would be, on the first of them.
pub fn run<T: Send + 'static>(main: impl FnOnce() -> T + Send + 'static) -> T {
    greenloop::run(|| thread::run(main))
}
