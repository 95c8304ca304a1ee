//! What the tests of unmodified crates share: who runs them, how they overlap, and a slow server.
//!
//! The crates themselves are dev-dependencies, and the tests are in `tests/it`: one binary, which
//! says `interpose!()`. `tests/services.sh cargo test -p greenloop-unmodified` runs them all.

mod overlap;
mod slow;
mod suite;
pub mod threads;

pub use overlap::{OsThreads, overlap};
pub use slow::{Slow, listen};
pub use suite::{Test, main};
