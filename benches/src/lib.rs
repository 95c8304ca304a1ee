//! What greenloop costs, beside its peers, measured in one run on one core.
//!
//! The targets under `benches/` print the figures; this library holds what they share. Reading
//! order: [`stats`] says what a figure is, [`report`] how figures are set beside one another,
//! [`runtimes`] what each runtime is asked to do, [`sync`] what is asked of its locks and channels,
//! [`echo`] the network server and its load, [`instructions`] what valgrind counts, and [`os`] what
//! is asked of the kernel. `README.md` holds the results and the command for each.

pub mod echo;
pub mod instructions;
pub mod os;
pub mod report;
pub mod runtimes;
pub mod stats;
pub mod sync;
