//! Work that is done again and again, in steps, later, or many at a time.
//!
//! Floor 7. Uses: `hub`, `deferred`, `bridge`. Used by: users.
//!
//! | for | use |
//! |---|---|
//! | a function that is to be called at regular times | [`LoopingCall`] |
//! | a function that is to be called once, later | [`defer_later`] |
//! | many answers, some at a time | [`Pool`] |
//! | greenlets to be ended together, that come and go | [`Group`] |
//! | a long computation of your own | [`yield_if_due`](crate::yield_if_due) in its loop |
//! | many long computations, as iterators | [`cooperate`], [`coiterate`], [`Cooperator`] |
//! | the `main` of a program | [`react()`] |
//!
//! A straight-line loop with [`sleep`](crate::sleep) on a greenlet of its own does for many of
//! these. What [`LoopingCall`] adds is the grid: its calls do not drift by what they take.
//!
//! All of it goes by the clock of its run, so it can be tested in [virtual time](crate::testing).
//!
//! # Source
//!
//! Twisted `twisted.internet.task`; gevent `pool`.

mod cooperative;
mod cooperator;
mod delay;
mod imap;
mod looping;
mod pool;
mod react;
mod slots;
mod step;

pub use crate::hub::Group;
pub use cooperative::{CooperativeTask, TaskEnded, TaskPause};
pub use cooperator::{Cooperator, coiterate, cooperate};
pub use delay::defer_later;
pub use imap::Imap;
pub use looping::{Looping, LoopingCall};
pub use pool::{Pool, PoolSlot};
pub use react::react;
pub use step::Step;
