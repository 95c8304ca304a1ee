//! The same small talks and queues, given to each runtime's locks, events and channels.
//!
//! Each module has the same functions, and each does what a user of that runtime would write:
//!
//! - `round_trips(trips)`: two green threads send one another a number through two channels.
//! - `stream(items)`: one sends numbers, the other receives them, through a channel with room for
//!   [`ROOM`].
//! - `uncontended(locks)`: one locks a mutex that nobody else uses, adds one, lets it go.
//! - `hand_overs(locks)`: [`RIVALS`] lock one mutex in turn. Each goes to the end of the line as
//!   soon as it has let the mutex go, so every lock is handed over by the one before.
//! - `wakes(wakes)`: [`CROWD`] wait for one event, which another one sets again and again.
//! - `round_trips_between_threads(trips)`, `stream_between_threads(items)`: as above, each end on a
//!   thread, a core and a runtime of its own.
//!
//! All return wall time: on one core with nothing to wait for it is processor time. Starting and
//! ending the runtime and the green threads is never counted.

pub mod greenloop;
pub mod may;
pub mod std;
pub mod tokio;

use ::std::ops::AddAssign;
use ::std::thread;
use ::std::time::{Duration, Instant};

use crate::os;

/// Values that the channel of a stream has room for.
const ROOM: usize = 64;

/// Who share the mutex of `hand_overs`.
const RIVALS: usize = 10;

/// Who wait for the event of `wakes`.
const CROWD: usize = 1_000;

/// Who had a mutex last, and how often it was had.
#[derive(Debug, Default)]
struct Baton {
    last: usize,
    count: u64,
}

impl AddAssign<usize> for Baton {
    /// Takes it over, from somebody else: or it was no hand-over.
    fn add_assign(&mut self, who: usize) {
        assert_ne!(self.last, who, "nobody waited");
        self.last = who;
        self.count += 1;
    }
}

/// Runs `far` on a thread on the second core, where there is one, and `near` on this thread, with
/// the first.
fn on_two_cores(far: impl FnOnce() + Send, near: impl FnOnce() -> Duration) -> Duration {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = os::pin_to_core(1);
            far();
        });
        near()
    })
}

/// Times `f`.
fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}
