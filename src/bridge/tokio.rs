//! A tokio runtime in the background, for futures that cannot do without.
//!
//! Floor 7. Uses: the feature `tokio`. Used by: `future`.
//!
//! A future of `tokio::net` or `tokio::time` asks, when it is made or first polled, for the runtime
//! that its thread is *in*, registers with that one's reactor, and is woken from there: by a waker,
//! which with us may be called on any thread. So a hub's thread needs to be in a runtime, and need
//! not drive it.
//!
//! # Contract
//!
//! - The runtime is started by the first future that a run polls with this feature on, once in the
//!   process, and is never shut down: its one thread, `greenloop-tokio`, sleeps until one of its
//!   sockets or timers is due, and ends with the process. What `tokio::spawn` is given runs there.
//! - A hub's thread is in it from its first poll to the end of the run, not for each poll: a poll
//!   may park, others would begin theirs meanwhile, and tokio wants such scopes to be nested.
//! - A thread that is in a runtime already (`greenloop::run` inside of `spawn_blocking`) stays in
//!   that one, as long as it is in it: each poll looks.
//! - Scopes of the user's that are left in another order than they were entered in (greenlets that
//!   hold guards of `Handle::enter`, and are killed) are reported when the run has ended, if tokio
//!   has not said so before. The thread then stays in a runtime: tokio has no way back.
//! - Nothing of tokio's clock is ours: its timers run in real time.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
    thread,
};

use tokio::runtime::{Builder, EnterGuard, Handle};

use crate::hub::Hub;

/// Keeps a thread in the runtime until it is dropped, at the end of the run.
struct Lodging(Option<EnterGuard<'static>>);

impl Drop for Lodging {
    /// The guard panics if others are left in there. That must not take the place of what the run
    /// has to say.
    fn drop(&mut self) {
        let guard = self.0.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(guard))) {
            let text =
                "a scope of Handle::enter was not left before the run ended, or not in order";
            crate::report::unhandled("the tokio runtime in the background", &text, &());
            crate::report::discard(payload);
        }
    }
}

/// Puts this hub's thread into a tokio runtime until the run ends, if it is not in one.
/// Returns whether it is in one now.
pub(super) fn enter(hub: &'static Hub) -> bool {
    if hub.lodger.get().is_some() || Handle::try_current().is_ok() {
        return true;
    }
    match background() {
        // The handle lives as long as the process, so its guard may live as long as the hub.
        Ok(handle) => drop(hub.lodger.set(Box::new(Lodging(Some(handle.enter()))))),
        Err(error) => {
            // Futures that need it will say so, by tokio's own panic; others do not miss it.
            crate::report::unhandled("the tokio runtime in the background", &error, &());
            return false;
        }
    }
    true
}

/// The runtime that all hubs share.
fn background() -> io::Result<&'static Handle> {
    static STARTED: Mutex<Option<&'static Handle>> = Mutex::new(None);
    // Poisoned: whoever panicked in there has started nothing.
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = *started {
        return Ok(handle);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle: &'static Handle = Box::leak(Box::new(runtime.handle().clone()));
    let name = String::from("greenloop-tokio");
    thread::Builder::new()
        .name(name)
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    *started = Some(handle);
    Ok(handle)
}
