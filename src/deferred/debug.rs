//! Debug mode: where Deferreds were made and fired, and where greenlets and `async` blocks waited.
//!
//! While it is on, the head of each chain that is made is noted in a table of this thread, with the
//! place, and so is the firing. A failure that comes out of a noted chain takes the [`Trail`] with
//! it, to wherever it is reported. While it is off, that costs a look at a flag at each making,
//! firing and failing, and no memory: the table is beside the chains, not in them.
//!
//! # Invariants
//! - DEBUG-1: a head that `is_noted` has an entry, and takes it away when it is dropped: an address
//!   that is used again does not find the trail of another.

use super::chain::{Chain, Head};
use super::failure::Failure;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

thread_local! {
    /// Whether debug mode is on.
    static DEBUGGING: Cell<bool> = const { Cell::new(false) };
    /// The trail of each head that is noted, by its address.
    static TRAILS: RefCell<HashMap<*const Head, Trail>> = RefCell::default();
}

/// Switches debug mode on or off for the Deferreds of this thread; returns whether it was on.
///
/// Shape: while it is on, each Deferred that is made or fired notes where. The report of an
/// unhandled failure and the `Debug` of Deferreds and Failures tell it:
/// `unhandled failure in Deferred<u32>: broken pipe; made at src/a.rs:7:24, fired at src/b.rs:9:5`.
/// Where the failure has come out of a [`wait_for_deferred`](crate::wait_for_deferred) or an
/// `.await`, that is told too, innermost first: the way that it took through the stacks of several
/// greenlets and blocks. The `Debug` of a Failure has backtraces of making and firing as well, when
/// `RUST_BACKTRACE` asks for them.
/// It may be switched at any time: what was made or fired while it was off is not told.
///
/// # Examples
/// ```
/// use greenloop::{Deferred, set_debugging};
/// set_debugging(true);
/// let (_resolver, deferred) = Deferred::<u32>::new();
/// assert!(format!("{deferred:?}").contains("made at "));
/// # set_debugging(false);
/// ```
/// # Source
/// Twisted's `setDebugging`, which is for the whole process.
pub fn set_debugging(on: bool) -> bool {
    DEBUGGING.replace(on)
}

/// Tells whether debug mode is on.
#[inline]
pub(super) fn is_on() -> bool {
    DEBUGGING.get()
}

/// Where a Deferred was made and fired.
#[derive(Clone, Default)]
pub(super) struct Trail {
    /// Where it was made; none while debug mode was off.
    made: Option<Arc<Spot>>,
    /// Where it was fired; none before that, while debug mode was off, and by a drop or a cancel.
    fired: Option<Arc<Spot>>,
    /// Where its failure came out of a wait, innermost first: the frames of a backtrace that goes
    /// through several stacks.
    waited: Vec<&'static Location<'static>>,
}

/// How many waits a failure tells: one that a loop hands on for ever must not grow.
const WAITED_MAX: usize = 16;

/// A place in the code, and how the thread came there.
struct Spot {
    /// The call.
    place: &'static Location<'static>,
    /// Disabled unless the environment asks for backtraces.
    backtrace: Backtrace,
}

impl Spot {
    fn new(place: &'static Location<'static>) -> Arc<Spot> {
        Arc::new(Spot { place, backtrace: Backtrace::capture() })
    }
}

impl Trail {
    /// Notes that the failure came out of a wait.
    pub(super) fn add_wait(&mut self, place: &'static Location<'static>) {
        if self.waited.len() < WAITED_MAX {
            self.waited.push(place);
        }
    }

    /// Says where backtraces were taken, and gives them.
    pub(super) fn write_backtraces(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, spot) in [("made", &self.made), ("fired", &self.fired)] {
            if let Some(Spot { place, backtrace }) = spot.as_deref()
                && backtrace.status() == BacktraceStatus::Captured
            {
                write!(f, "\n{what} at {place}:\n{backtrace}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.made, &self.fired) {
            (Some(made), Some(fired)) => {
                write!(f, "made at {}, fired at {}", made.place, fired.place)?;
            }
            (Some(made), None) => write!(f, "made at {}", made.place)?,
            (None, Some(fired)) => write!(f, "fired at {}", fired.place)?,
            (None, None) => f.write_str("made and fired while debug mode was off")?,
        }
        self.waited.iter().try_for_each(|place| write!(f, ", waited for at {place}"))
    }
}

/// Notes where a chain was made.
#[cold]
pub(super) fn note_made(head: &Head, place: &'static Location<'static>) {
    note(head, |trail| trail.made = Some(Spot::new(place)));
}

/// Notes where a chain was fired.
#[cold]
pub(super) fn note_fired(head: &Head, place: &'static Location<'static>) {
    note(head, |trail| trail.fired = Some(Spot::new(place)));
}

fn note(head: &Head, write: impl FnOnce(&mut Trail)) {
    // `try_with`: the destructor of another thread-local may fire a chain after ours is gone.
    let noted = TRAILS.try_with(|trails| write(trails.borrow_mut().entry(head).or_default()));
    head.set_noted(noted.is_ok());
}

/// Gives the trail of a chain, if it is noted.
pub(super) fn trail_of(head: &Head) -> Option<Trail> {
    let find = || TRAILS.try_with(|trails| trails.borrow().get(&std::ptr::from_ref(head)).cloned());
    head.is_noted().then(find)?.ok()?
}

/// Forgets a head that is being dropped (DEBUG-1).
#[cold]
pub(super) fn forget(head: &Head) {
    let _ = TRAILS.try_with(|trails| trails.borrow_mut().remove(&std::ptr::from_ref(head)));
}

/// Has a failure tell the trail of the chain that it comes out of.
#[inline]
pub(super) fn mark<T>(result: &mut Result<T, Failure>, chain: &(impl Chain + ?Sized)) {
    if let Err(failure) = result
        && is_on()
        && let Some(trail) = trail_of(chain.head())
    {
        failure.note(trail);
    }
}

/// Has a failure tell that it came out of a wait at `place`.
#[inline]
pub(crate) fn mark_waited<T>(result: &mut Result<T, Failure>, place: &'static Location<'static>) {
    if let Err(failure) = result
        && is_on()
    {
        failure.note_wait(place);
    }
}

/// Has a failure tell where the Deferred that is born with it was made.
#[inline]
#[track_caller]
pub(super) fn mark_born<T>(result: &mut Result<T, Failure>) {
    if let Err(failure) = result
        && is_on()
    {
        let spot = Spot::new(Location::caller());
        let made = Some(Arc::clone(&spot));
        failure.note(Trail { made, fired: Some(spot), waited: Vec::new() });
    }
}
