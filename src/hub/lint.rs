//! A debug lint: warns when a greenlet parks where shared thread-locals make it unsound.
//!
//! Floor 4, debug builds only. Uses: glibc's backtrace(3), std's symbolised one. Used by: `park`.
//!
//! See SOUND-11 in `ARCHITECTURE.md`: inside the initialiser of a `thread_local!`, and inside
//! guards that set a thread-local and restore it, a suspension breaks the nesting on which such
//! code relies. The lint walks the backtrace of each distinct place of parking once, and warns if
//! one of these frames is on it.

#![expect(unsafe_code, reason = "backtrace(3) fills a buffer")]
//! # Safety
//!
//! One call with a live buffer and its true length.

use std::{
    backtrace::Backtrace,
    cell::RefCell,
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use super::Hub;

/// Frames that must not be suspended above, and what they are.
const SUSPECTS: [(&str, &str); 4] = [
    ("thread_local::native::lazy::Storage", "the initialiser of a `thread_local!`"),
    ("scoped_tls::ScopedKey", "`scoped_tls::ScopedKey::set`"),
    ("better_scoped_tls", "a `better_scoped_tls` scope"),
    ("fluid_let", "a `fluid_let` scope"),
];

thread_local! {
    static SEEN: RefCell<HashSet<u64>> = RefCell::new(HashSet::new());
}

/// Looks at the backtrace of this park, if one like it was not seen before.
pub(super) fn walk() {
    let mut frames = [std::ptr::null_mut(); 64];
    // SAFETY: the buffer has room for as many addresses as we say.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), frames.len() as i32) };
    let mut hasher = DefaultHasher::new();
    frames[..count.max(0) as usize].hash(&mut hasher);
    let fresh = SEEN.try_with(|seen| seen.borrow_mut().insert(hasher.finish()));
    if !fresh.unwrap_or(false) {
        return;
    }
    let text = Backtrace::force_capture().to_string();
    if let Some((_, what)) = SUSPECTS.iter().find(|(frame, _)| text.contains(frame)) {
        let message = format!(
            "it parks inside {what}: greenlets share their thread's thread-locals, so another one \
             may find them half made or set for somebody else (this is unsound; see \"Safety \
             limits\" of greenloop::spawn). Do the blocking part before, or on a thread of its \
             own:\n{text}"
        );
        // The greenlet is about to park: what the hook of the reports does must not.
        let _no_park = Hub::current().map(Hub::forbid_park);
        crate::report::unhandled("a greenlet", &message, &());
    }
}
