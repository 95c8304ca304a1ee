//! Scopes whose first error ends the rest.
//!
//! Floor 4. Uses: `scope`, `unwind` for its frames. Used by: users, `task`.
//!
//! The body is ended as by a timeout: its frame stands among the timeouts of its greenlet, with a
//! deadline that never comes, until a child fails and moves it to the past. So all that is said of
//! timeouts holds: where it lands, by whom it is recognised, what a shield does.
//!
//! # Source
//!
//! trio nurseries; `std::thread::scope` for the shape.

use std::{any::Any, cell::Cell, fmt, io, panic::Location, rc::Rc};

use super::{
    Hub,
    control::Ctl,
    scope::{Scope, ScopedGreenlet, begin},
    spawn::Builder,
    unwind::{self, Frame, Payload},
};
use crate::time::Deadline;

/// Spawns greenlets that may borrow what outlives the scope, and whose first error ends all; see
/// [`try_scope`].
pub struct TryScope<'scope, 'env: 'scope, E> {
    scope: Scope<'scope, 'env>,
    failed: Rc<Failed<E>>,
}

/// The first error of a scope.
struct Failed<E> {
    error: Cell<Option<E>>,
    has_failed: Cell<bool>,
}

impl<E> Failed<E> {
    /// Takes the error, if it is the first; hands a later one back. Its destructor is code of the
    /// user's, and may unwind.
    #[must_use = "where it is dropped matters"]
    fn put(&self, error: E) -> Option<E> {
        if self.has_failed.replace(true) {
            return Some(error);
        }
        self.error.set(Some(error));
        None
    }
}

/// As [`scope`](crate::scope), for children that return a `Result`: the first error ends all
/// others, and is what this returns.
///
/// Shape: the children end before it returns, whatever happens. It fails with the first error in
/// time:
/// * A child returns an error: its siblings are killed, and the body is unwound at its next
///   cancellation point, as by a [`timeout`](crate::timeout).
/// * The body returns an error: the children are killed.
/// * A child panics: as for an error; then this panics with the child's payload, which counts for
///   more than any error.
/// * The body panics, or is killed or timed out: the children are killed, and the unwind goes on.
///
/// For a limit to the whole, children and all: `timeout(limit, || try_scope(…))`.
///
/// # Errors
///
/// The first that a child or the body has returned. Later ones are dropped.
///
/// # Panics
///
/// Outside [`run`](crate::run), and as said above.
///
/// # Cancellation
///
/// Cancellation point: never by itself. A kill or timeout that comes while it waits for its
/// children kills them, and unwinds once they have ended. Where nothing can unwind the body (inside
/// a [`shield`](crate::shield), in a destructor during an unwind, with `panic = "abort"`) it goes
/// on, and may ask [`has_failed`](TryScope::has_failed).
///
/// # Examples
///
/// ```
/// use greenloop::{sleep, testing, try_scope};
/// use std::time::Duration;
/// let answer: Result<u32, &str> = testing::run(|| {
///     try_scope(|s| {
///         let page = s.spawn(|| {
///             sleep(Duration::from_secs(3600));
///             Ok(1)
///         });
///         s.spawn(|| -> Result<(), _> { Err("no such host") });
///         Ok(page.join().unwrap()) // is not waited for
///     })
/// });
/// assert_eq!(answer, Err("no such host"));
/// ```
///
/// # Source
///
/// trio's nurseries.
#[track_caller]
pub fn try_scope<'env, F, T, E>(f: F) -> Result<T, E>
where
    F: for<'scope> FnOnce(&'scope TryScope<'scope, 'env, E>) -> Result<T, E>,
{
    let (hub, ctl) = begin("try_scope");
    let failed = Failed { error: Cell::new(None), has_failed: Cell::new(false) };
    let scope = TryScope { scope: Scope::new(), failed: Rc::new(failed) };
    let body = Body::begin(hub, ctl);
    scope.scope.state.body.set(Some((ctl, body.id)));
    let result = unwind::catch(|| f(&scope));
    scope.scope.state.body.set(None);
    let mut late = None;
    let result = match result {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) => {
            late = scope.failed.put(error); // Kept until the children have ended: SCOPE-1.
            scope.scope.state.kill_all();
            Ok(None)
        }
        Err(payload) if body.was_ended(&*payload) => Ok(None),
        Err(payload) => Err(payload),
    };
    drop(body);
    let value = scope.scope.state.end(hub, ctl, result);
    drop(late);
    match (scope.failed.error.take(), value) {
        (Some(error), _) => Err(error),
        (None, Some(value)) => Ok(value),
        (None, None) => unreachable!("a body is ended for an error, or a panic that goes on"),
    }
}

/// The body of a scope, as a part of its greenlet's work that others may end.
struct Body {
    ctl: Ctl,
    id: u64,
    /// Whether there was such a part around it.
    is_within: bool,
}

impl Body {
    fn begin(hub: &Hub, ctl: Ctl) -> Body {
        let id = hub.next_ticket();
        ctl.rare(|rare| rare.frames.push(Frame { deadline: Deadline::NEVER, id, raised: false }));
        Body { ctl, id, is_within: ctl.set_endable(true) }
    }

    /// Whether this unwind is its end.
    fn was_ended(&self, payload: &(dyn Any + Send)) -> bool {
        payload.downcast_ref() == Some(&Payload::Timeout(self.id))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        let deadline = self.ctl.rare(|rare| {
            rare.frames.pop();
            rare.frames_deadline()
        });
        self.ctl.set_frames_deadline(deadline);
        self.ctl.set_endable(self.is_within);
    }
}

/// Ends a body: it unwinds from its next cancellation point.
pub(super) fn end_body(hub: &Hub, ctl: Ctl, id: u64) {
    let deadline = ctl.rare(|rare| {
        let frame = rare.frames.iter_mut().find(|frame| frame.id == id);
        if let Some(frame) = frame {
            frame.deadline = Deadline::ZERO;
        }
        rare.frames_deadline()
    });
    ctl.set_frames_deadline(deadline);
    hub.make_ready(ctl);
}

impl<'scope, E> TryScope<'scope, '_, E> {
    /// Spawns a greenlet that may borrow, and whose error ends all the others.
    ///
    /// Shape: who joins it gets its value. Its error is for the scope.
    ///
    /// # Panics
    ///
    /// When there is no memory for a stack: [`spawn_with`](Self::spawn_with) returns an error.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> ScopedGreenlet<'scope, T>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
    {
        let spawned = self.spawn_with(Builder::new(), f);
        spawned.unwrap_or_else(|error| panic!("TryScope::spawn: {error}"))
    }

    /// As [`spawn`](Self::spawn), with a name or a stack size.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` when no stack can be mapped.
    #[track_caller]
    pub fn spawn_with<F, T>(
        &'scope self,
        builder: Builder,
        f: F,
    ) -> io::Result<ScopedGreenlet<'scope, T>>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
    {
        let (failed, state) = (Rc::clone(&self.failed), Rc::clone(&self.scope.state));
        self.scope.spawn_child(builder, Location::caller(), move || {
            f().map_err(|error| {
                let late = failed.put(error);
                state.end_all();
                drop(late);
            })
            .ok()
        })
    }

    /// Whether a child has failed: then the others are ending.
    pub fn has_failed(&self) -> bool {
        self.scope.state.killed.get()
    }
}

impl<E> fmt::Debug for TryScope<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TryScope").field(&self.scope).finish()
    }
}
