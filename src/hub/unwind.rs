//! Unwinding: what kills and timeouts raise, and what is kept of a panic.
//!
//! Floor 4. Uses: std's panic hook. Used by: `park`, `join`, `timeout`, `scope`, `run`.
//!
//! A kill is an unwind with a private payload. `resume_unwind` raises it, so that no panic hook
//! runs and nothing is printed. Code that catches everything (`catch_unwind`) can recognise it with
//! [`is_kill`] and should raise it again.
//!
//! The panic hook that the first `run` of a process installs (in front of the one that is there)
//! notes where a greenlet panicked, because a caught payload does not say. It prints nothing for a
//! greenlet other than main: its panic reaches whoever joins it, or is reported once, with the
//! greenlet's name, when nobody can join it any more.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::Once,
};

use super::{
    Hub,
    control::{Ctl, Role},
    guest,
    join::JoinError,
};
use crate::{
    deferred::{PanicDetails, Unwinds},
    time::Deadline,
};

/// What our own unwinds carry. Private: nobody can forge one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    /// The greenlet was killed; caught at its root.
    Kill,
    /// The timeout with this number has elapsed; caught at its boundary.
    Timeout(u64),
}

/// One `timeout` that a greenlet is inside of.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) deadline: Deadline,
    pub(super) id: u64,
    /// Whether it was raised already: then somebody swallowed it.
    pub(super) raised: bool,
}

/// The outermost timeout that has elapsed and is not held back by a shield.
pub(super) fn elapsed_frame(ctl: Ctl, now: Deadline) -> Option<(u64, bool)> {
    ctl.rare(|rare| {
        let mut visible = rare.frames.iter_mut().skip(rare.shielded_frames);
        let frame = visible.find(|frame| frame.deadline <= now)?;
        Some((frame.id, std::mem::replace(&mut frame.raised, true)))
    })
}

/// Begins to unwind the current greenlet with a payload of our own.
pub(super) fn raise(ctl: Ctl, payload: Payload) -> ! {
    rethrow(Some(ctl), Box::new(payload))
}

/// The current greenlet, if one runs; a guest is none in its own code.
pub(super) fn here() -> Option<Ctl> {
    Hub::current().and_then(|hub| hub.current.get())
}

/// The current greenlet, if one runs, or the guest whose code this is.
pub(super) fn caller() -> Option<Ctl> {
    match Hub::current() {
        Some(hub) => hub.current.get(),
        None => guest::guest().map(guest::Guest::ctl),
    }
}

/// Goes on with an unwind that was caught.
pub(super) fn rethrow(ctl: Option<Ctl>, payload: Box<dyn Any + Send>) -> ! {
    if let Some(ctl) = ctl {
        ctl.unwinding.set(true);
    }
    panic::resume_unwind(payload)
}

/// Runs `f` and catches what it raises; the greenlet counts as unwinding no more.
pub(super) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let ctl = here();
    let before = ctl.map(|ctl| ctl.unwinding.get());
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    if result.is_err()
        && let (Some(ctl), Some(before)) = (ctl, before)
    {
        ctl.unwinding.set(before);
    }
    result
}

/// Whether a caught panic payload is a kill or a timeout of this crate on its way out.
///
/// Shape: pass what `catch_unwind` returned as its error. If the answer is `true`, clean up and
/// raise it again with [`std::panic::resume_unwind`]: a greenlet that swallows its kill is killed
/// again at its next cancellation point.
///
/// # Examples
///
/// ```
/// use std::{panic, time::Duration};
/// let ended = greenloop::run(|| {
///     let g = greenloop::spawn(|| {
///         let result = panic::catch_unwind(|| greenloop::sleep(Duration::from_secs(3600)));
///         if let Err(payload) = result {
///             assert!(greenloop::is_kill(&*payload));
///             panic::resume_unwind(payload);
///         }
///     });
///     greenloop::yield_now();
///     g.kill();
///     g.join()
/// });
/// assert!(ended.unwrap_err().is_killed());
/// ```
pub fn is_kill(payload: &(dyn Any + Send)) -> bool {
    payload.is::<Payload>()
}

/// Where and how a greenlet panicked.
#[derive(Debug)]
pub(super) struct PanicNote {
    pub(super) message: String,
    pub(super) place: Option<String>,
    pub(super) backtrace: Option<Backtrace>,
    /// Whether it was printed when it happened.
    pub(super) printed: bool,
    /// Whether the greenlet was unwinding already.
    pub(super) was_unwinding: bool,
}

/// What the hook notes for a payload that is not text.
const NOT_TEXT: &str = "(a panic payload that is not a string)";

impl PanicNote {
    /// Whether it is of the panic with this message.
    pub(super) fn is_of(&self, message: &str) -> bool {
        self.message == message
    }
}

/// What the hook noted of the last panic of this greenlet.
pub(super) fn take_note(ctl: Ctl) -> Option<Box<PanicNote>> {
    ctl.rare(|rare| rare.panic.take())
}

/// The text of a panic payload.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        NOT_TEXT.to_owned()
    }
}

/// Installs the panic hook, once per process.
pub(super) fn install_hook() {
    static INSTALL: Once = Once::new();
    if std::thread::panicking() {
        return; // std forbids it now; the next `run` does it.
    }
    INSTALL.call_once(|| {
        let take_failure = JoinError::take_failure;
        Unwinds { is_kill, resume_kill, panic_details, take_failure }.install();
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let hub = Hub::current();
            // What the hooks do must not park: std forbids a second panic meanwhile (SOUND-6).
            let _no_park = hub.map(Hub::forbid_park);
            if !note(hub, info) {
                previous(info);
            }
        }));
    });
}

/// Goes on with a kill that a Deferred's callback has stopped.
///
/// It was raised in this greenlet, which therefore was not unwinding; nor is it now, since the
/// kill was caught. Only where no greenlet runs, std's word is all we have.
fn resume_kill(kill: Box<dyn Any + Send>) {
    match here() {
        Some(ctl) => rethrow(Some(ctl), kill),
        None if std::thread::panicking() => {}
        None => rethrow(None, kill),
    }
}

/// What the hook noted of the panic that was just caught: for the failures of callbacks.
fn panic_details() -> PanicDetails {
    let Some(ctl) = here() else { return PanicDetails::default() };
    let note = take_note(ctl);
    if let Some(note) = &note {
        ctl.unwinding.set(note.was_unwinding); // It was caught.
    }
    let Some(note) = note else { return PanicDetails::default() };
    let captured = note.backtrace.filter(|b| b.status() == BacktraceStatus::Captured);
    PanicDetails { place: note.place, backtrace: captured.map(|b| b.to_string()) }
}

/// Notes a panic of the current greenlet. Returns whether it need not be printed now.
fn note(hub: Option<&Hub>, info: &PanicHookInfo<'_>) -> bool {
    let Some(ctl) = hub.and_then(|hub| hub.current.get()) else { return false };
    let message = info.payload_as_str().unwrap_or(NOT_TEXT).to_owned();
    let was_unwinding = ctl.unwinding.replace(true);
    if CANNOT_UNWIND.iter().any(|text| message.starts_with(text)) {
        // The process is about to be aborted, and nobody will join the panic that led to it.
        if let Some(first) = take_note(ctl).filter(|note| !note.printed) {
            let place = first.place.as_deref().unwrap_or("?");
            eprintln!("greenlet #{} panicked at {place}: {}", ctl.id(), first.message);
        }
        return false;
    }
    let quiet = ctl.birth().role != Role::Main && !cfg!(panic = "abort");
    let backtrace = Some(Backtrace::capture());
    let place = info.location().map(ToString::to_string);
    let note = PanicNote { message, place, backtrace, printed: !quiet, was_unwinding };
    ctl.rare(|rare| rare.panic = Some(Box::new(note)));
    quiet
}

/// What std says when it aborts because a panic met a place that must not unwind.
const CANNOT_UNWIND: [&str; 2] =
    ["panic in a destructor during cleanup", "panic in a function that cannot unwind"];
