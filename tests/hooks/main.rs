//! What blocking code of others does on virtual threads: this binary defines libc's names.

greenloop::interpose!();

#[allow(dead_code, reason = "shared with the other binary")]
#[path = "../it/support.rs"]
mod support;

mod futex;
mod locks;
mod pthreads;
