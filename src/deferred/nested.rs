//! Failures that hold failures: the errors of lists and races, which nest as those do.
//!
//! What fails comes out of a list in a [`FirstError`] and out of a race in a [`FailureGroup`], once
//! for each that it passes. Nothing here is deep for it: they are dropped and searched by a loop,
//! and a text names a few levels (CHAIN-5).

use super::failure::{Body, Failure};
use super::list::FirstError;
use super::race::FailureGroup;
use std::cell::Cell;
use std::fmt;

/// Drops a body, and the failures in it, one after the other.
pub(super) fn drop_flat(mut body: Body) {
    let mut left = Vec::new();
    loop {
        if let Some(cause) = &mut body.cause {
            left.extend(cause.take_to_drop());
        }
        if let Some(first) = body.error_mut::<FirstError>() {
            left.extend(first.failure.take_to_drop());
        } else if let Some(group) = body.error_mut::<FailureGroup>() {
            left.extend(group.failures.iter_mut().filter_map(Failure::take_to_drop));
        }
        drop(body);
        match left.pop() {
            Some(next) => body = next,
            None => return,
        }
    }
}

/// Tells whether it is a panic, or what lists and races made of one.
pub(super) fn holds_panic(failure: &Failure) -> bool {
    let mut left = vec![failure];
    while let Some(failure) = left.pop() {
        if failure.panic_message().is_some() {
            return true;
        }
        if let Some(first) = failure.downcast_ref::<FirstError>() {
            left.push(&first.failure);
        } else if let Some(group) = failure.downcast_ref::<FailureGroup>() {
            left.extend(&group.failures);
        }
    }
    false
}

/// How many levels of failures in one another a text names: more than a person reads.
const LEVELS_MAX: u32 = 16;

thread_local! {
    /// How many levels deep the text is that is being written.
    static LEVELS: Cell<u32> = const { Cell::new(0) };
}

/// The text of a failure inside another: dots, where it would be too deep.
pub(super) struct Inside<'a>(pub(super) &'a Failure);

impl fmt::Display for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Goes back up, also when the text of an error panics.
        struct Up;
        impl Drop for Up {
            fn drop(&mut self) {
                LEVELS.set(LEVELS.get() - 1);
            }
        }
        if LEVELS.get() >= LEVELS_MAX {
            return f.write_str("…");
        }
        LEVELS.set(LEVELS.get() + 1);
        let _up = Up;
        self.0.fmt(f)
    }
}
