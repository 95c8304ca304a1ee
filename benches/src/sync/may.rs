//! may: coroutines on its one worker. Its channels have no bound, whoever has let its mutex go may
//! have it again before those who wait, and it has no event that can be cleared.

use std::time::Duration;

use may::go;
use may::sync::Mutex;
use may::sync::mpsc::channel;

use super::timed;
use crate::runtimes::may::run;

/// Times `trips` there and back between two coroutines.
///
/// # Panics
/// When a coroutine does.
#[must_use]
pub fn round_trips(trips: u64) -> Duration {
    run(move || {
        let ((there, asked), (back, answered)) = (channel(), channel());
        go!(move || asked.iter().for_each(|n| back.send(n).expect("the other end is there")));
        timed(|| {
            for n in 0..trips {
                there.send(n).expect("the other end is there");
                assert_eq!(answered.recv(), Ok(n));
            }
        })
    })
}

/// Times `locks` of a mutex that nobody else uses.
///
/// # Panics
/// When a coroutine does.
#[must_use]
pub fn uncontended(locks: u64) -> Duration {
    run(move || {
        let mutex = Mutex::new(0);
        timed(|| {
            for _ in 0..locks {
                *std::hint::black_box(&mutex).lock().expect("nobody panicked") += 1;
            }
        })
    })
}
