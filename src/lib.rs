//! Blocking code, callbacks and futures on one reactor.

mod coro;
mod time;
