//! Blocking code, callbacks and futures on one reactor.

mod coro;
mod deferred;
mod reactor;
mod report;
mod sys;
mod time;
