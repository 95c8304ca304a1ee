//! The guide: pages to read, no code to call. All their code is compiled and run by `cargo test`.
//!
//! Floor 9. Used by: people.
//!
//! | page | what it answers |
//! |---|---|
//! | [`which_thread`] | greenlet, virtual thread, OS thread or future: which for what |
//! | [`timeouts_and_kills`] | how to limit and to end things, and what is left then |
//! | [`mixing_styles`] | straight-line code, callbacks, `async` code, tokio's crates, threads |
//! | [`finding_a_hang`] | what to do when it stands still, with a worked example |
//! | [`shutting_down`] | how a run, a server, a process ends in order |
//! | [`testing_programs`] | virtual time, every order, every place to die |
//! | [`soundness_and_limits`] | what is unsound, what does not work, where it ends |
//! | [`what_costs_what`] | nanoseconds and bytes, beside its peers |
//!
//! Names that you know, ours, and what differs: [`coming_from_threads`], [`coming_from_tokio`],
//! [`coming_from_gevent`], [`coming_from_twisted`], [`coming_from_may`].

/// Declares each page, whose text is the file of its name.
macro_rules! pages {
    ($($page:ident $text:literal)*) => {
        $(#[doc = include_str!($text)] pub mod $page {})*
    };
}

pages! {
    which_thread "which_thread.md"
    timeouts_and_kills "timeouts_and_kills.md"
    mixing_styles "mixing_styles.md"
    finding_a_hang "finding_a_hang.md"
    shutting_down "shutting_down.md"
    testing_programs "testing_programs.md"
    soundness_and_limits "soundness_and_limits.md"
    what_costs_what "what_costs_what.md"
    coming_from_threads "coming_from_threads.md"
    coming_from_tokio "coming_from_tokio.md"
    coming_from_gevent "coming_from_gevent.md"
    coming_from_twisted "coming_from_twisted.md"
    coming_from_may "coming_from_may.md"
}
