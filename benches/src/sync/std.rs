//! std: what a lock costs that blocks its thread.

use std::sync::Mutex;
use std::time::Duration;

use super::timed;

/// Times `locks` of a mutex that nobody else uses.
///
/// # Panics
/// Never.
#[must_use]
pub fn uncontended(locks: u64) -> Duration {
    let mutex = Mutex::new(0);
    timed(|| {
        for _ in 0..locks {
            *std::hint::black_box(&mutex).lock().expect("nobody panicked") += 1;
        }
    })
}
