//! Deferreds: results that come later, chains of callbacks that wait for them, and cancellation.
//!
//! Floor 1. Uses: `report`. Used by: `bridge`, and everything that offers a callback-style result.
//! Knows nothing of: greenlets, the reactor, threads, clocks. It never blocks and never schedules:
//! a callback runs in whoever fires its chain, or in whoever adds it once the result is there.
//!
//! # States
//! A chain has a source (its Resolver's origin), any number of parts, and one end, a Deferred:
//! ```text
//!  Resolver ──► Origin ──► Stage ──► Stage ──► … ──► end ◄── Deferred
//!                 ▲ head                                        │
//!                 └─────────────────────────────────────────────┘ cancel, CancelHandle, pause
//!
//!  source   Unfired ──cancel──► Cancelling ──canceller returns, or fires──► Fired
//!              └───────Resolver::fire, drop (`Abandoned`)───────────────────►┘
//!  outlet   Open ──attach (add_…)──► Next ──deliver──► Open, and the part after it runs
//!             └────deliver──► Held ──attach, take──► Open
//!  waiting  a callback returned a Deferred without a result: `wait_for` sets the head's `inner`
//!  and
//!           attaches a Tail to the inner end, which clears it and goes on with the outer chain
//! ```
//! A Deferred that is born with its result (`succeed`, `fail`) has no chain and no allocation, and
//! callbacks on it run without one; it gets a chain when a handle or a pause needs something to
//! share.
//!
//! Several Deferreds become one by a chain whose source is its *members* (`several`, which draws
//! its states); `list` and `race` are rules for it.
//!
//! # Invariants
//! - CHAIN-1: each part runs once. A result is in one place: an outlet that is `Held` is the end of
//!   its chain, and nothing else of that chain is then running or waiting.
//! - CHAIN-2: no state of this floor is borrowed or half changed while user code runs. All of it is
//!   in `Cell`s, taken out and put back; so callbacks may use every Deferred, also their own
//!   chain's, and a callback may be suspended half way without harm to others.
//! - CHAIN-3: a callback's unwind ends at its part. A panic goes on as a Failure; a kill (see
//!   `Unwinds`) as `Cancelled`, and is resumed once everything that could run has run.
//! - CHAIN-4: a chain is owned by what may continue it: its Resolver, its end, a pause, or, while
//!   it waits, the end of the inner chain. Handles, and an outer chain's `inner`, are weak.
//! - CHAIN-5: nothing recurses by the length of a chain or by how many wait for one another:
//!   firing, cancelling, abandoning and dropping are loops, through lists and races inside one
//!   another too. What nests is user code that fires a Deferred in a callback, since it asks for
//!   the callbacks to have run when the call returns: [`Deferred::chain_deferred`] is the way
//!   without.
//! - FAIL-1: a failure is reported once, by the last place that held it, if nobody took it: not a
//!   cancellation, not one that was reported already. Taking it (an errback, a waiter, an outer
//!   Deferred) makes it theirs. A result that comes after a cancel is swallowed, not reported.
//!   FAIL-2 and FAIL-3, of causes, stand in `cause`; DEBUG-1 in `debug`; SEVERAL-1 to 3 in
//!   `several`.
//!
//! # Threads
//! Everything here but [`Failure`] is `!Send`: callbacks need not be `Send`, and run on one thread.
//!
//! # Source
//! Twisted's `twisted.internet.defer`. Deliberately different: one consumer and one result are
//! matters of type, so `AlreadyCalledError` has no counterpart, and a late result after a cancel is
//! swallowed with or without a canceller; `pause` holds back what is added after it; a canceller
//! that panics fires the Deferred; cancelling and `chainDeferred` do not recurse; what an errback
//! raises names what it was handling; members of lists and races are taken, so that a failure has
//! one place and a cancelled list leaves no reports; empty ones never wait.

mod cancel;
mod cause;
mod chain;
mod debug;
mod end;
mod failure;
mod list;
mod maybe;
mod nested;
mod race;
mod resolver;
mod several;
mod stage;
#[cfg(test)]
mod tests;
mod unwinds;

pub use cancel::{CancelHandle, PauseGuard};
pub(crate) use debug::mark_waited;
pub use debug::set_debugging;
pub use end::Deferred;
pub use failure::{Abandoned, Cancelled, Failure};
pub use list::{DeferredList, FirstError, ListResult, gather_results};
pub use maybe::{IntoDeferred, execute, maybe_deferred};
pub use race::{FailureGroup, first, race};
pub use resolver::{Cancelling, Resolver};
pub(crate) use stage::Arrival;
pub(crate) use unwinds::{PanicDetails, Unwinds};
