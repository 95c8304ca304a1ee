//! Locks, events and channels: one set, for greenlets, futures, Deferreds and OS threads at once.
//!
//! All of it is `Send` and `Sync`, and works between greenlets of one hub, between hubs, and with
//! threads that have none: there a call blocks as std's would. Each operation that may wait comes
//! in the three styles, and by one scheme of names:
//!
//! | name | style |
//! |---|---|
//! | `acquire` | blocking: parks the greenlet, or blocks the OS thread |
//! | `acquire_timeout` | the same, for a time: on the hub's clock, or real time off a hub |
//! | `try_acquire` | never waits |
//! | `acquire_deferred` | a Deferred. What is waited for is shared by an `Arc` then |
//! | `acquire_async` | a future, for any executor |
//!
//! # Contract
//!
//! - **Fair.** First come, first served, whatever the style. What is let go is handed over to the
//!   first in line: nobody can come between, and nobody runs in it, so that neither the depth of
//!   the stack nor the time of the call grows with the number of those who wait.
//! - **Nothing is lost.** What was handed to a waiter that was killed, timed out, cancelled or
//!   dropped goes to the next. (A future that is kept and never polled again keeps what it was
//!   handed, as anywhere.)
//! - **Kills** unwind out of waits, and leave the line. All calls that wait are infallible: where a
//!   kill cannot unwind (inside [`shield`](crate::shield), during an unwind), they wait on.
//! - **Main's wait for ever** is found where it can be known that no other thread can end it: at a
//!   [`Mutex`] or an [`RwLock`] that only this hub has touched. Any other wait here may be ended by
//!   whatever thread has a reference, so main waits on, as for a
//!   [`ReactorHandle`](crate::ReactorHandle).
//!
//! Floor 5. Uses: `hub::park`, `deferred`. Used by: users. How it works: `lane`, `line`.
//!
//! # Source
//!
//! std `sync`, gevent `lock.py`, `event.py`, `queue.py`; Twisted `DeferredLock`,
//! `DeferredSemaphore`, `DeferredQueue`.

mod barrier;
pub mod broadcast;
mod channel;
mod condvar;
mod event;
mod group;
mod home;
mod lane;
mod line;
mod mutex;
mod once;
mod poison;
pub mod priority;
mod rwlock;
mod semaphore;
mod signal;
pub mod watch;

pub use barrier::{Barrier, BarrierWaitResult, WaitBarrier};
pub use channel::{Iter, Receiver, Receiving, Sender, Sending, channel, unbounded};
pub use condvar::Condvar;
pub use event::{Event, WaitEvent};
pub use group::{WaitGroup, WaitWork, Work};
pub use mutex::{Guard, Lock, Mutex, MutexGuard, OwnedMutexGuard};
pub use once::{OnceCell, WaitOnce};
pub use rwlock::{
    OwnedRwLockReadGuard, OwnedRwLockWriteGuard, ReadGuard, Reading, RwLock, RwLockReadGuard,
    RwLockWriteGuard, WriteGuard, Writing,
};
pub use semaphore::{Acquire, Permit, Semaphore};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
