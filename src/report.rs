//! Reports of failures that nobody handled: one hook per thread, standard error by default.
//!
//! Floor 0. Uses: std. Used by: `deferred`, and every floor that ends something whose error nobody
//! took. Knows nothing of: what failed; it is handed a text, and the value for those who know its
//! type.
//!
//! # Contract
//! - REPORT-1: [`unhandled`] never panics and never blocks on anything but standard error, for it
//!   is called from destructors, some of them run by an unwind. A hook that panics is caught, and
//!   the report goes to standard error instead.
//! - REPORT-2: whoever calls [`unhandled`] calls it once for each failure. This module counts
//!   nothing.
//!
//! # Threads
//! The hook belongs to the thread that set it, since failures that it is shown may hold what only
//! that thread may touch. Another thread has its own hook, or the default.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a thread calls with each failure that nobody handled (see [`set_unhandled_hook`]).
pub type UnhandledHook = Box<dyn Fn(&Unhandled<'_>)>;

/// A failure that nobody handled.
///
/// Its `Display` is what the default hook writes: `unhandled failure in Deferred<u32>: broken
/// pipe`.
#[derive(Clone, Copy)]
pub struct Unhandled<'a> {
    /// What failed, in a few words: `Deferred<u32>`, `greenlet 7 (reader)`.
    what: &'a str,
    /// The failure as text.
    message: &'a dyn fmt::Display,
    /// The failure itself, for hooks that know its type.
    value: &'a dyn Any,
}

impl<'a> Unhandled<'a> {
    /// Names what failed, in a few words.
    pub fn what(&self) -> &'a str {
        self.what
    }

    /// Gives the text of the failure, usually one line with the causes.
    pub fn message(&self) -> &'a dyn fmt::Display {
        self.message
    }

    /// Gives the failure itself, if it is an `E`: a [`Failure`](crate::deferred::Failure) when it
    /// comes from a Deferred.
    pub fn value<E: 'static>(&self) -> Option<&'a E> {
        self.value.downcast_ref()
    }
}

impl fmt::Display for Unhandled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unhandled failure in {}: {}", self.what, self.message)
    }
}

impl fmt::Debug for Unhandled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unhandled")
            .field("what", &self.what)
            .field("message", &format_args!("{}", self.message))
            .finish_non_exhaustive()
    }
}

/// Where a thread's hook is.
enum Slot {
    /// None set: reports go to standard error.
    Default,
    /// Set and at rest.
    Set(UnhandledHook),
    /// Out of its slot, because it is running. A report made meanwhile goes to standard error.
    Running,
}

thread_local! {
    static HOOK: Cell<Slot> = const { Cell::new(Slot::Default) };
}

/// Replaces this thread's hook and returns the one before; `None` restores the default, which
/// writes the report to standard error.
///
/// Shape: a hook that fails itself does not call itself: what is reported while it runs goes to
/// standard error. It returns `None` for the hook before when that one is running.
/// # Panics
/// Never, and a panic of the hook ends there: its report is then written to standard error.
pub fn set_unhandled_hook(hook: Option<UnhandledHook>) -> Option<UnhandledHook> {
    match HOOK.replace(hook.map_or(Slot::Default, Slot::Set)) {
        Slot::Set(before) => Some(before),
        Slot::Default | Slot::Running => None,
    }
}

/// Reports a failure that nobody handled to this thread's hook, or to standard error.
///
/// Shape: `what` names what failed in a few words, `message` is its text, `value` the failure
/// itself ([`Unhandled::value`]).
/// # Panics
/// Never (REPORT-1).
pub(crate) fn unhandled(what: &str, message: &dyn fmt::Display, value: &dyn Any) {
    let report = Unhandled { what, message, value };
    #[cfg(feature = "tracing")]
    crate::trace::unhandled(what, message);
    // `try_with`: a destructor of another thread-local may report after ours is gone.
    let slot = HOOK.try_with(|hook| hook.replace(Slot::Running)).unwrap_or(Slot::Default);
    let shown = match &slot {
        Slot::Set(hook) => match catch_unwind(AssertUnwindSafe(|| hook(&report))) {
            Ok(()) => true,
            Err(payload) => {
                discard(payload);
                false
            }
        },
        Slot::Default | Slot::Running => false,
    };
    let replaced = HOOK.try_with(|hook| match hook.replace(Slot::Running) {
        // Nobody replaced it meanwhile: it goes back to where it was.
        Slot::Running => {
            hook.set(slot);
            None
        }
        new => {
            hook.set(new);
            Some(slot)
        }
    });
    discard(replaced); // what a hook captured is the user's own, too
    if !shown {
        let text =
            catch_unwind(AssertUnwindSafe(|| report.to_string())).unwrap_or_else(|payload| {
                discard(payload);
                format!("unhandled failure in {what}: its text panicked")
            });
        say(&text);
    }
}

/// Writes a line to standard error. An error has nowhere to go, for that is the last resort; and it
/// must not be a panic, as that of `eprintln` would be: nobody need read there.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Drops a value whose destructor may panic, as that of a panic's payload may. A panic ends here,
/// and what that one carried is leaked.
pub(crate) fn discard<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(payload);
    }
}
