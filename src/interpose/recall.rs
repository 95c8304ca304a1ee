//! What is remembered of a TCP socket from one receive to the next, and for how long that counts.
//!
//! Floor 8. Uses: `descriptors`, a clock of changes. Used by: `call`; `close`, which tells of
//! changes.
//!
//! A receive that finds nothing asks the kernel what its user wants (`O_NONBLOCK`, `SO_RCVTIMEO`),
//! and its poller whether it watches just this file. That is three system calls a wait, where the
//! wait itself is a share of one. So what was said is kept, for the most usual case alone: a TCP
//! socket in blocking mode, without a timeout, that is registered with the hub's poller.
//!
//! # Who may be wrong
//!
//! It is kept under the number's age and a count of changes. Every hooked call that closes a
//! number, or changes a mode, a timeout or what reads a socket, on whatever thread and by whatever
//! number, makes one of both another. What no hook sees (raw system calls, libc's own closes,
//! another process that has the same open file) changes neither.
//!
//! Therefore nobody waits by memory for longer than [`LIMIT`]. Who has waited that long forgets,
//! tries again, and asks the kernel everything. So a memory that is wrong makes one wait longer by
//! that, and no answer another: nothing is taken from the file, no error is made up, and no wake is
//! lost. A wait that is longer than the limit costs one try more.
//!
//! A receive that brings less than it could have has left nothing: until the next turn of the
//! reactor, the same guest's next one does not try, but waits at once. The peer's end, an error and
//! urgent data are events; after one of them every receive is tried.
//!
//! # Invariants
//!
//! - `RECALL-1` The count is read before the kernel is asked, and changed after what changes it is
//!   done: an answer of before never stands under a count of after.
//! - `RECALL-2` Who waits by memory has seen that there is nothing since the last turn, so that
//!   what comes is an event of a later one.
//!
//! # Source
//!
//! epoll(7) on edges; tcp(7). tokio `scheduled_io.rs` for short reads.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use super::descriptors::Age;
use crate::hub::io::Found;

/// How long a wait trusts: about as long as TCP holds an acknowledgement back.
pub(super) const LIMIT: Duration = Duration::from_millis(40);

/// How many calls have changed what is asked here.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Whether anything was ever kept: who has no virtual threads counts nothing.
static IS_USED: AtomicBool = AtomicBool::new(false);

/// What is found from now on is kept under this, if `age` is still that of the number.
pub(super) fn begin(age: Age) -> Found {
    if !IS_USED.load(SeqCst) {
        IS_USED.store(true, SeqCst);
    }
    found(age)
}

/// Under what it stands now.
#[inline]
pub(super) fn found(age: Age) -> Found {
    [age.word(), CHANGES.load(SeqCst)]
}

/// Something has just changed (`RECALL-1`).
#[inline]
pub(super) fn changed() {
    if IS_USED.load(SeqCst) {
        CHANGES.fetch_add(1, SeqCst);
    }
}
