//! The arrows between the three styles: greenlets, Deferreds and futures wait for one another.
//!
//! Floor 7. Uses: `hub`, `deferred`. Used by: users.
//!
//! | from \ to | blocking style | Deferred | future |
//! |---|---|---|---|
//! | Deferred | [`wait_for_deferred`] | | `d.await` |
//! | greenlet | `g.join()` | [`wait_for_greenlet`] | `g.await` |
//! | future | [`wait_for_future`] | [`Deferred::from_future`](crate::Deferred::from_future) | |
//!
//! # Contract
//!
//! - `BRIDGE-1` Only the calling greenlet is suspended. Where nothing can be suspended, the call
//!   fails at once.
//! - `BRIDGE-2` What is waited for is taken by value: two waiters that steal from each other cannot
//!   be written.
//! - `BRIDGE-3` A waiter that is killed or timed out cancels what it waited for (inside `shield` it
//!   does not), and a late error of it is reported.
//! - `BRIDGE-4` Elapsed time and cancellation are different errors.
//! - `BRIDGE-5` Cancelling the Deferred of a greenlet kills the greenlet; a killed greenlet
//!   errbacks with `Cancelled`, or with `Killed` and the reason; a panic becomes a Failure with
//!   message, place and backtrace.
//! - `BRIDGE-6` Callbacks run in whoever fires them. A kill that unwinds through a callback goes
//!   on.
//! - `BRIDGE-7` A wait of main that nothing can end is reported, never a hang. What counts as able
//!   to end it: a timer; a descriptor that somebody waits for, also a future that was given up but
//!   whose stream is still there; a handle or a waker that may be elsewhere.
//! - `BRIDGE-8` There is one way to run a future on a greenlet of one's own, `wait_for_future`, and
//!   one to have it run, `Deferred::from_future`. The second makes of an `async` block what
//!   `inlineCallbacks` makes of a generator: a cancel reaches what the block awaits, and the block
//!   may catch it (`task`). A Deferred whose future is dropped is cancelled.
//! - `BRIDGE-9` A time limit of a Deferred covers what was added before it, and nothing after it.
//!
//! # What a future may do
//!
//! - **Wake from any thread, as often as it likes.** Between two polls all wakes are one. One that
//!   wakes itself at once, for ever, lets the other greenlets run before each poll, and IO and
//!   timers be looked at.
//! - **Call what parks**, of this crate: only its own greenlet waits, with all that it polls. It is
//!   polled in a [`shield`](crate::shield), so a kill lands between two polls.
//! - **Block the thread** (`std::thread::sleep`, another crate's `block_on`): then all greenlets of
//!   this thread wait. Nothing can preempt it.
//! - **Panic**: the panic goes to whoever waits; in `from_future` it becomes a Failure.
//! - **Be polled, woken and dropped on other threads**, if its type allows. What it registered with
//!   this hub ends with it when it is dropped on this thread; else when its source is ready, when
//!   the source's number is used again here, or with the hub (`KEPT-3`).
//!
//! # Source
//!
//! geventreactor `waitForDeferred`, `waitForGreenlet`; each line above mends one of their faults.

mod deferred;
mod future;
#[cfg(feature = "hyper")]
mod hyper;
pub mod select;
mod task;
mod timeout;
#[cfg(feature = "tokio")]
mod tokio;

pub use deferred::{
    DeferredFuture, wait_for_deferred, wait_for_deferred_timeout, wait_for_greenlet,
};
pub use future::{GreenletFuture, wait_for_future, wait_for_future_timeout};
#[cfg(feature = "hyper")]
pub use hyper::HyperRuntime;
pub use select::{select_all, select_all_timeout, try_select_all};
