//! Virtual time: programs that wait for hours, tested in milliseconds, the same way each time.
//!
//! Floor 9. Uses: `hub`, `time`. Used by: users' tests, and this crate's own.
//!
//! A test that really sleeps is slow, and on a loaded machine it fails. Run the same code by
//! [`testing::run`](run) instead of [`greenloop::run`](crate::run): time then stands still while
//! anything runs, and jumps to the next deadline when everything is parked. That holds for all that
//! waits, for greenlets, Deferreds and futures alike: sleeps, timeouts, delayed calls, the limits
//! of reads and writes.
//!
//! ```
//! use greenloop::{Deadline, reactor, sleep, spawn, testing, timeout};
//! use std::time::Duration;
//! const HOUR: Duration = Duration::from_secs(3600);
//!
//! testing::run(|| {
//!     let sleeper = spawn(|| sleep(24 * HOUR));
//!     assert!(timeout(HOUR, || sleeper.join()).is_err());
//!     assert_eq!(reactor().now(), Deadline::ZERO + HOUR); // to the nanosecond
//! });
//! ```
//!
//! # Two clocks
//!
//! | | [`JumpingClock`], of [`run`] | [`ManualClock`] |
//! |---|---|---|
//! | time passes | when all is parked, to the next deadline | when somebody calls `advance` |
//! | how far | exactly there: each sleeper sees its own instant | by any step: who was due within it sees its end |
//! | a test reads as | straight-line code that sleeps itself | a script: advance, look, advance, look |
//! | Twisted has it as | (trio and tokio have it) | `task.Clock` |
//!
//! The second one, for what happens *at* a time rather than in the long run:
//!
//! ```
//! use greenloop::{reactor, testing::ManualClock};
//! use std::{cell::Cell, rc::Rc, time::Duration};
//! const SECOND: Duration = Duration::from_secs(1);
//!
//! let clock = ManualClock::new();
//! clock.run(|| {
//!     let rings = Rc::new(Cell::new(0));
//!     let bell = Rc::clone(&rings);
//!     reactor().call_later(2 * SECOND, move || bell.set(bell.get() + 1));
//!     clock.advance(SECOND);
//!     assert_eq!(rings.get(), 0);
//!     clock.advance(SECOND);
//!     assert_eq!(rings.get(), 1);
//! });
//! ```
//!
//! Both begin at [`Deadline::ZERO`](crate::Deadline::ZERO), so
//! [`reactor().now()`](crate::Reactor::now) says how much virtual time has passed.
//!
//! # Every order, and every place to die
//!
//! A test shows one order of events, and nobody dies in it. Two more try the rest, also in virtual
//! time:
//!
//! - [`seeds()`] runs a program in as many orders as one likes. Of those that are ready, any may be
//!   the next; a seed decides, and repeats what it decided. A failure tells its seed.
//! - [`kill_everywhere`] runs a scenario once for each place at which one greenlet of it, the
//!   *target*, suspends, and cuts it short just there, by a kill or a timeout.
//!
//! Both say what is left behind ([`assert_nothing_left`]). Together they ask of a primitive what
//! [`sync`](crate::sync) is asked:
//!
//! ```
//! use greenloop::{spawn, sync::channel, testing::KillEverywhere};
//! use std::{cell::Cell, rc::Rc};
//! KillEverywhere::new().seeds(0..20).run(|case| {
//!     let (sender, receiver) = channel(1);
//!     let (other, sum) = (receiver.clone(), Rc::new(Cell::new(0)));
//!     let shared = Rc::clone(&sum);
//!     let taker = case.target(move || {
//!         other.iter().for_each(|n: u32| shared.set(shared.get() + n));
//!     });
//!     let feeder = spawn(move || (1..=4).try_for_each(|n| sender.send(n)));
//!     taker.join();
//!     let rest: u32 = receiver.iter().sum(); // what the taker did not live to take
//!     assert_eq!(sum.get() + rest, 10, "an item is lost");
//!     assert!(feeder.join().unwrap().is_ok());
//! });
//! ```
//!
//! # What does not change
//!
//! - Who runs when. Two runs of one program make the same switches, as long as all that it waits
//!   for is in it.
//! - A main greenlet that nothing can wake is told so
//!   ([`WouldBlockForever`](crate::RunError::WouldBlockForever)): then there is nothing to jump to.
//!   By hand, only somebody who runs could move the clock: a sleeper is such a wait.
//! - Descriptors work, and take no time: before a jump the reactor looks for what has arrived. For
//!   peers outside of the program, see [`JumpingClock::patience`].
//! - OS threads that this crate asks for an answer (name lookups) are waited for in reality; time
//!   stands still meanwhile. A thread of your own that holds a
//!   [`ReactorHandle`](crate::ReactorHandle) or a `Waker` does not hold up time: it might never
//!   call.
//!
//! # What to know
//!
//! - Time does not pass while anything runs. A loop that yields until a time has come never ends;
//!   nor does anything that runs again and again for ever without waiting.
//! - `std`'s clocks and sleeps are the machine's, and so are `tokio`'s sockets and timers (the
//!   feature `tokio`): peers outside of the program, which any virtual time limit outruns unless
//!   [`JumpingClock::patience`] is longer than they take.
//!
//! # Source
//!
//! Twisted `task.Clock`; trio `testing.MockClock` and `wait_all_tasks_blocked`; tokio
//! `time::pause`.

mod jumping;
mod kills;
mod manual;
mod random;
mod seeds;

pub use jumping::JumpingClock;
pub use kills::{Case, KillEverywhere, Target, kill_everywhere};
pub use manual::ManualClock;
pub use random::Random;
pub use seeds::seeds;

use std::time::Duration;

use crate::{RunError, hub::Hub};

/// Runs `f` as [`greenloop::run`](crate::run) does, in virtual time: on a [`JumpingClock`].
///
/// # Panics
///
/// As [`greenloop::run`](crate::run).
///
/// # Examples
///
/// ```
/// use greenloop::{sleep, spawn, testing};
/// use std::time::Duration;
/// let slept = testing::run(|| {
///     let long = spawn(|| sleep(Duration::from_secs(3600)));
///     sleep(Duration::from_secs(3599));
///     let early = long.is_finished();
///     sleep(Duration::from_secs(1));
///     (early, long.join().is_ok())
/// });
/// assert_eq!(slept, (false, true));
/// ```
#[track_caller]
pub fn run<T>(f: impl FnOnce() -> T) -> T {
    JumpingClock::new().run(f)
}

/// As [`run`], but returns an error where it would panic for want of a value.
///
/// # Errors
///
/// As [`greenloop::try_run`](crate::try_run).
///
/// # Panics
///
/// As [`greenloop::try_run`](crate::try_run).
#[track_caller]
pub fn try_run<T>(f: impl FnOnce() -> T) -> Result<T, RunError> {
    JumpingClock::new().try_run(f)
}

/// Parks the current greenlet until every other one is parked.
///
/// Shape: what is due now has then been done, with all that it set off, and what had arrived was
/// seen. No time passes, on no clock but the machine's. An OS thread that owes an answer is waited
/// for. Several greenlets that wait for this are woken together.
///
/// # Panics
///
/// Outside [`run`](crate::run), and on the hub's own stack.
///
/// # Cancellation
///
/// Cancellation point: always. Infallible: where a kill cannot unwind, it stays pending.
///
/// # Examples
///
/// ```
/// use greenloop::{current, spawn, testing, yield_now};
/// testing::run(|| {
///     let busy = spawn(|| (0..100).for_each(|_| yield_now()));
///     testing::settle();
///     assert!(busy.is_finished());
/// });
/// ```
///
/// # Source
///
/// trio `testing.wait_all_tasks_blocked`.
#[track_caller]
pub fn settle() {
    crate::hub::settle("testing::settle");
}

/// How long a look at what other threads hold is put off, in real time, and how often.
const THREADS_WAIT: Duration = Duration::from_millis(1);

/// As above: a second in all.
const THREADS_WAITS_MAX: u32 = 1000;

/// Parks as [`settle`] does, and then sees that the program has left nothing behind.
///
/// Shape: that is, no greenlet but main and the caller, no timer, delayed call or reserved one, no
/// wait for a descriptor, no waker that this reactor's greenlets have lent, no
/// [`ReactorHandle`](crate::ReactorHandle). To be called by main when all should be over: in
/// [`run`](crate::run) as well as in virtual time. A thread that has one of these, such as the
/// answer to what nobody asks any more, is given a second of real time to drop it.
///
/// # Panics
///
/// When there is any, with a list; and as [`settle`].
///
/// # Cancellation
///
/// As [`settle`].
///
/// # Examples
///
/// ```should_panic
/// use greenloop::{sleep, spawn, testing};
/// use std::time::Duration;
/// testing::run(|| {
///     spawn(|| sleep(Duration::from_secs(3600)));
///     testing::assert_nothing_left();
/// });
/// ```
#[track_caller]
pub fn assert_nothing_left() {
    let mut waits_left = THREADS_WAITS_MAX;
    loop {
        crate::hub::settle("testing::assert_nothing_left");
        let census = Hub::current().expect("it has just settled").census();
        if census.is_clear() {
            return;
        }
        let comes = census.is_clear_but_for_threads() && waits_left > 0;
        assert!(comes, "greenloop::testing::assert_nothing_left: left behind: {census}");
        waits_left -= 1;
        std::thread::sleep(THREADS_WAIT);
    }
}

/// What a run on a clock panics with where it has no value.
#[track_caller]
fn unwrap<T>(ended: Result<T, RunError>) -> T {
    ended.unwrap_or_else(|error| panic!("greenloop::testing: {error}"))
}
