// Where the README's links to files go in the docs, where no files lie beside it. The first of two
// definitions of a link counts.
#![doc = concat!("[ARCHITECTURE]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/ARCHITECTURE.md")]
#![doc = concat!("[CHANGELOG]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/CHANGELOG.md")]
#![doc = concat!("[CONTRIBUTING]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/CONTRIBUTING.md")]
#![doc = concat!("[asm-notes]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/asm-notes/README.md")]
#![doc = concat!("[benches]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/benches/README.md")]
#![doc = concat!("[echo]: ", env!("CARGO_PKG_REPOSITORY"), "/raw/main/benches/charts/echo.svg")]
#![doc = concat!("[examples]: ", env!("CARGO_PKG_REPOSITORY"), "/blob/main/examples/README.md")]
#![doc = concat!("[memory]: ", env!("CARGO_PKG_REPOSITORY"), "/raw/main/benches/charts/memory.svg")]
#![doc = concat!("[yield]: ", env!("CARGO_PKG_REPOSITORY"), "/raw/main/benches/charts/yield.svg")]
#![doc = "\n"]
#![doc = include_str!("../README.md")]

/// Either all of it, or one error and nothing after it. Of this name and shape because rustfmt
/// looks for modules in no other macro.
macro_rules! cfg_if {
    (if #[cfg($here:meta)] { $($all:item)* } else { $error:item }) => {
        $(#[cfg($here)] $all)*
        #[cfg(not($here))]
        $error
    };
}

cfg_if! {
    // `.ci/elsewhere` says `--cfg elsewhere`, for the floors that would compile there.
    if #[cfg(any(
        elsewhere,
        all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))
    ))] {
        // In reading order, from the lowest floor up: see ARCHITECTURE.md.
        mod atomics;
        mod bridge;
        mod coro;
        mod deferred;
        mod dns;
        mod hub;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        pub mod interpose;
        mod latch;
        pub mod net;
        pub mod process;
        mod reactor;
        mod report;
        #[cfg(feature = "signal")]
        pub mod signal;
        pub mod sync;
        mod sys;
        pub mod task;
        pub mod testing;
        pub mod thread;

        pub mod guide;
        mod time;
        #[cfg(feature = "tracing")]
        mod trace;

        #[cfg(feature = "hyper")]
        pub use bridge::HyperRuntime;
        #[doc(hidden)]
        pub use bridge::select as __select;
        pub use bridge::{
            DeferredFuture, GreenletFuture, select_all, select_all_timeout, try_select_all,
            wait_for_deferred, wait_for_deferred_timeout, wait_for_future, wait_for_future_timeout,
            wait_for_greenlet,
        };
        pub use deferred::{
            Abandoned, CancelHandle, Cancelled, Cancelling, Deferred, DeferredList, Failure,
            FailureGroup, FirstError, IntoDeferred, ListResult, PauseGuard, Resolver, execute,
            first, gather_results, maybe_deferred, race, set_debugging,
        };
        pub use hub::{
            AccessError, AsCompleted, Builder, Context, ContextVar, DelayedCall, DelayedCallError,
            Elapsed, Ending, Greenlet, GreenletRef, GreenletState, JoinError, Killed, Link,
            LocalKey, Metrics, Panic, Parked, Reactor, ReactorHandle, Readiness, Report, RunError,
            Scope, ScopedGreenlet, Sleeping, Stopped, TryScope, as_completed, current, deadline,
            dump, dump_on_sigquit, is_kill, joinall, joinall_timeout, killall, killall_timeout,
            reactor, run, scope, shield, sleep, sleep_async, sleep_until, sleep_until_async, spawn,
            spawn_later, timeout, timeout_at, try_run, try_scope, wait_readable,
            wait_readable_async, wait_writable, wait_writable_async, yield_if_due, yield_now,
        };
        pub use report::{Unhandled, UnhandledHook, set_unhandled_hook};
        pub use time::Deadline;
    } else {
        compile_error!(
            "greenloop runs on Linux, on x86_64 and aarch64. Another system needs a poller in \
             `src/sys`, whose contract is written there, and a few flags of system calls \
             elsewhere; another processor needs its system call instruction in `src/sys/raw.rs`."
        );
    }
}
