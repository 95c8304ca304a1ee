//! What the kernel gives: one poller a reactor, and a way to wake it from other threads.
//!
//! Floor 2. Uses: rustix (its raw backend makes `syscall` instructions, which no interposed libc
//! name can catch). Used by: `reactor`. Knows nothing of: greenlets, timers, waiters.
//!
//! # Contract: what a poller must provide
//!
//! The seam to the floors above is the *operation*: receive, send, accept, connect, poll. Whoever
//! waits calls `hub::io`, which tries the operation first and only then waits; `net` never sees
//! readiness. So there are two kinds of poller that can stand here.
//!
//! A **readiness poller** (this one: epoll) provides
//!
//! | call | must |
//! |---|---|
//! | `add(fd, token)` | report at once if `fd` is ready already; from then on report every edge, in both directions, with `token` |
//! | `rearm(fd, token)` | for a descriptor that may be known or not: say whether it is; if so, report current readiness once more, with the new token |
//! | `delete(fd)` | report nothing more; needed only when the open file lives on under another number |
//! | `wait(timeout)` | sleep until an event, the timeout (nanoseconds honoured where the kernel can) or a wake; `None` sleeps for ever without a single wakeup in between |
//! | `waker()` | a `Send + Sync` handle whose `wake` ends a `wait`, also one that begins later |
//!
//! Events may be stale (the descriptor was closed, its number reused): the token carries a
//! generation, and the reactor drops events whose generation is not the current one. Events may be
//! spurious: whoever waits tries again.
//!
//! A **completion poller** (io_uring, IOCP) provides the operations themselves: submit with the
//! caller's borrowed buffer, and wake the caller when it is complete. The frame of a parked
//! greenlet cannot vanish, so the borrow is sound so long as a kill cancels the operation and waits
//! for its completion before it unwinds.
//!
//! # Source
//!
//! epoll(7), eventfd(2), epoll_pwait2(2); Go `runtime/netpoll.go` for writing the contract first.

mod epoll;
mod raw;

pub(crate) use epoll::{Event, Poller, PollerWaker};
pub(crate) use raw::{refill_return_predictor, syscall6};
