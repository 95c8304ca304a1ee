//! Blocking code, callbacks and futures on one reactor.

mod coro;
mod deferred;
mod report;
mod time;
