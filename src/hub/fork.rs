//! What a fork leaves of a hub in the child: nothing.
//!
//! Floor 4. Uses: pthread_atfork(3). Used by: `run`, which has it watched for; `dns`.
//!
//! The child of a fork has the one thread that forked, and copies of all memory, but epoll and
//! eventfd are shared with the parent: a child that went on turning the reactor would change what
//! the parent watches, and take its events. Nor may the greenlets of the parent run twice.
//!
//! # Invariants
//!
//! - `FORK-1` In the child the hub of its thread is abandoned before fork(2) returns there, whoever
//!   called it: [`Hub::current`] finds none. So nothing parks, nothing is registered, and no
//!   greenlet is resumed or unwound; their stacks are leaked. A new [`run`](crate::run) may begin.
//!   A guest that has forked is none in the child, nor is a hub that runs inside of it one.
//! - `FORK-2` Numbers go on: what is left of the parent's hub, stale wakes in lists of `sync`, say,
//!   finds nobody in a hub of the child's.
//!
//! # Source
//!
//! gevent `fork` and `reinit`, after which all greenlets go on in the child, too, which its users
//! and its author regret; tornado, asyncio, which forbid it.

#![expect(unsafe_code, reason = "pthread_atfork is C")]
//! # Safety
//!
//! What is called in the child is a few reads and writes of memory.

use std::sync::{
    Once,
    atomic::{AtomicUsize, Ordering},
};

use super::{CURRENT, Hub, guest, run::UNDRAWN};

/// How many forks there are between this process and the first one that ran a reactor.
static GENERATION: AtomicUsize = AtomicUsize::new(0);

/// How many forks there are between this process and the first one that ran a reactor.
pub(crate) fn generation() -> usize {
    GENERATION.load(Ordering::Relaxed)
}

/// Has every fork of this process noticed in its child.
pub(crate) fn watch() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // SAFETY: `abandon` stays loaded, takes nothing, does not unwind, and does what
        // signal-safety(7) allows: it reads and writes memory of the process and of its thread.
        unsafe { libc::pthread_atfork(None, None, Some(abandon)) };
    });
}

/// Runs in the child, on the thread that forked, before fork(2) returns (`FORK-1`).
extern "C" fn abandon() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    abandon_hub();
}

/// Abandons the hub on whose thread-locals this runs; and, if one of its guests has forked, all
/// that is on that guest's own.
fn abandon_hub() {
    if let Some(hub) = Hub::current() {
        UNDRAWN.set((hub.next_id.get(), hub.next_ticket.get())); // FORK-2
        CURRENT.set(std::ptr::null());
        guest::abandon(hub, abandon_hub);
    }
}
