//! The threads that the tests run on: `greenloop`'s, by std's names.

pub use std::thread::{JoinHandle, scope, spawn};

/// Whether they are virtual: all on one OS thread.
pub fn are_virtual() -> bool {
    false
}

/// Runs what a program's `main` would be, on the first of them.
pub fn run<T: Send + 'static>(main: impl FnOnce() -> T + Send + 'static) -> T {
    main()
}
