//! Behaviour, floor by floor: one binary, so that it links once.

mod barrier;
mod blocks;
mod bridge;
mod broadcast;
mod condvar;
mod coro;
mod deadlines;
mod deferred;
mod examples;
mod fork;
mod futures;
mod hub;
#[cfg(feature = "hyper")]
mod hyper;
mod inside;
mod io;
mod join;
mod kill;
mod kills_everywhere;
mod lines;
mod locals;
mod models;
mod net;
mod pages;
mod pool;
mod priority;
mod reactor;
mod regressions;
mod rwlock;
mod scope;
mod seeds;
mod select;
mod server;
#[cfg(feature = "signal")]
mod signals;
mod support;
mod sync;
mod task;
mod testing;
mod threads;
mod tidy;
#[cfg(feature = "tokio")]
mod tokio;
mod toolkit;
mod traces;
mod udp;
mod unix;
mod vthreads;
mod waits;
