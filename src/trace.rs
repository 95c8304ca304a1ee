//! What `tracing` is told: a span for each greenlet, and events of its life.
//!
//! Floor 0, only with the feature `tracing`. Uses: tracing. Used by: `hub`, where greenlets come,
//! go, and change places; `report`.
//!
//! A subscriber keeps, for each thread, a stack of the spans that are entered. Greenlets share
//! their thread, so the hub exits what a greenlet has entered whenever that lets go ([`leave`]),
//! and enters it again, in the same order, when it goes on ([`enter`]): its events carry its spans
//! and nobody else's, as with `tracing::Instrument` for futures.
//!
//! # Contract
//!
//! Subscribers are user code. Where greenlets come, go and change places nothing parks, and a panic
//! of theirs is reported. A subscriber that is set for a scope (`with_default`) is the thread's:
//! whoever sets one inside a greenlet must not park before the scope ends.
//!
//! # Source
//!
//! tracing `Instrument`; tracing-subscriber `Registry`, whose stack this unwinds.

use std::{
    panic::{AssertUnwindSafe, Location, catch_unwind},
    time::Duration,
};

use tracing::{Dispatch, Span, dispatcher::get_default, span::Id};

/// Spans that one greenlet may have entered at once; a subscriber that does not keep count of exits
/// would have us go on for ever.
const DEPTH_MAX: usize = 256;

/// The spans of a greenlet that is suspended.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// Its own. Kept so that it is not closed.
    own: Option<Span>,
    /// Those that it has entered, outermost first, and whose they are.
    entered: Vec<Id>,
    dispatch: Option<Dispatch>,
}

impl Trail {
    /// That of a greenlet that is spawned now; `None` when nobody wants to know.
    pub(crate) fn begin(
        id: u64,
        name: Option<&str>,
        place: &'static Location<'static>,
    ) -> Option<Trail> {
        guarded(|| {
            let own =
                tracing::info_span!(target: "greenloop", "greenlet", id, name, spawned_at = %place);
            tracing::debug!(target: "greenloop", id, name, spawned_at = %place, "spawned");
            let (id, dispatch) =
                own.with_subscriber(|(id, dispatch)| (id.clone(), dispatch.clone()))?;
            Some(Trail { own: Some(own), entered: vec![id], dispatch: Some(dispatch) })
        })
    }

    fn is_needed(&self) -> bool {
        self.own.is_some() || !self.entered.is_empty()
    }
}

/// Enters the spans of a greenlet that goes on. Returns what was entered on the thread before.
pub(crate) fn enter(trail: Option<&mut Trail>) -> Option<Id> {
    guarded(|| {
        let outer = current();
        if let Some(trail) = trail
            && let Some(dispatch) = trail.dispatch.take()
        {
            trail.entered.drain(..).for_each(|id| dispatch.enter(&id));
        }
        outer
    })
}

/// Exits the spans that a greenlet has entered, and returns what is to be kept of them.
pub(crate) fn leave(trail: Option<Trail>, outer: Option<&Id>) -> Option<Trail> {
    let mut trail = trail.unwrap_or_default();
    guarded(|| {
        get_default(|dispatch| {
            while let Some(id) = dispatch.current_span().id()
                && Some(id) != outer
                && trail.entered.len() < DEPTH_MAX
            {
                dispatch.exit(id);
                trail.entered.push(id.clone());
            }
            if !trail.entered.is_empty() {
                trail.dispatch = Some(dispatch.clone());
            }
        });
        None::<()>
    });
    trail.entered.reverse();
    trail.is_needed().then_some(trail)
}

/// A greenlet has ended; one without a number does not count.
pub(crate) fn ended(id: Option<u64>, trail: Option<Trail>) {
    guarded(|| {
        if let Some(id) = id {
            let span = trail.as_ref().and_then(|trail| trail.own.as_ref()?.id());
            tracing::debug!(target: "greenloop", parent: span, id, "ended");
        }
        drop(trail);
        None::<()>
    });
}

/// A greenlet was asked to end.
pub(crate) fn killed(id: u64) {
    guarded(|| {
        tracing::debug!(target: "greenloop", id, "killed");
        None::<()>
    });
}

/// The watchdog has found a greenlet that does not let go.
pub(crate) fn stuck(id: Option<u64>, thread: &str, time: Duration) {
    let seconds = time.as_secs_f64();
    guarded(|| {
        tracing::warn!(target: "greenloop", id, thread, seconds, "has not let go of its thread");
        None::<()>
    });
}

/// A failure that nobody handled.
pub(crate) fn unhandled(what: &str, message: &dyn std::fmt::Display) {
    guarded(|| {
        tracing::error!(target: "greenloop", what, error = %message, "unhandled failure");
        None::<()>
    });
}

/// The innermost span that is entered on this thread.
fn current() -> Option<Id> {
    get_default(|dispatch| dispatch.current_span().id().cloned())
}

/// Calls a subscriber where a panic must not pass.
fn guarded<T>(f: impl FnOnce() -> Option<T>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(payload) => {
            crate::report::discard(payload);
            crate::report::say("greenloop: a tracing subscriber panicked");
            None
        }
    }
}
