//! Points in time, the clocks that tell them, and the wheel that keeps what is to happen at them.
//!
//! Floor 1. Uses: nothing of the crate. Used by: `reactor`, `hub`, `testing`, and every `_timeout`
//! wrapper. Knows nothing of: greenlets, descriptors, wakes.
//!
//! # Contract
//! - A [`Deadline`] means something only together with the [`Clock`] that it was computed from.
//!   Whoever owns a wheel owns one clock and compares nothing else.
//! - A `Wheel` is exact: it hands out each value neither before its deadline nor after a later
//!   one, and equal deadlines in the order in which they were filed. What is late on a real clock
//!   is made late by the reactor, which bounds how often it wakes for timers.
//!
//! # Invariants
//! Stated where they are upheld: `FOREST-1` to `FOREST-3` in `forest.rs`, `WHEEL-1` to `WHEEL-3` in
//! `wheel.rs`.
//!
//! # Threads
//! Plain data: no globals, no interior mutability, no system call but the reading of the clock. A
//! wheel belongs to one hub; it is `Send` when its values are.
//!
//! # Source
//! Varghese and Lauck, "Hashed and hierarchical timing wheels" (1987); Fredman, Sedgewick, Sleator
//! and Tarjan, "The pairing heap" (1986); clock_gettime(2).

mod clock;
mod deadline;
mod forest;
mod wheel;

#[cfg(test)]
mod tests;

pub(crate) use clock::{Clock, Passing, SystemClock};
pub use deadline::Deadline;
pub(crate) use forest::Key;
pub(crate) use wheel::Wheel;
