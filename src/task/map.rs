//! [`map_concurrent`]: many calls at a time, but not too many.
//!
//! Floor 7. Uses: `hub::scope`, `hub::park`.

use std::cell::{Cell, RefCell};

use crate::{
    ScopedGreenlet,
    hub::{
        Hub,
        park::{Mode, Wait, WaitOn, Wake},
    },
    scope,
    time::Deadline,
};

/// Calls `f` with each of `items`, on at most `limit` greenlets at a time, and returns the results
/// in the order of the items.
///
/// Shape: items, results and `f` may borrow. `items` is asked for the next one on the calling
/// greenlet, when there is room for it: an endless iterator of work is fine until something fails.
/// As with [`scope`], all calls have ended when this returns, whatever happens:
/// * A call fails: the others are killed, no more are made, and its error is returned. If others
///   fail as well, the first in time counts.
/// * A call panics: the same, and this panics with its payload.
/// * The caller is killed or timed out: all calls are killed, and the unwind goes on.
///
/// # Errors
///
/// The first error of `f`.
///
/// # Panics
///
/// When `limit` is zero. Outside [`run`](crate::run). With what `f` panics with; and when a call
/// was killed by anybody else, so that a result is missing.
///
/// # Cancellation
///
/// Cancellation point: whenever it waits for a call to end. On cancel as said above.
///
/// # Examples
///
/// ```
/// use greenloop::{Deadline, Failure, reactor, sleep, task::map_concurrent, testing};
/// use std::time::Duration;
/// # fn main() -> Result<(), Failure> {
/// testing::run(|| {
///     let lengths = map_concurrent(2, ["a", "few", "words"], |word| {
///         sleep(Duration::from_secs(60)); // as if it asked somebody
///         Ok::<_, Failure>(word.len())
///     })?;
///     assert_eq!(lengths, [1, 3, 5]);
///     assert_eq!(reactor().now(), Deadline::ZERO + Duration::from_secs(120));
///     Ok(())
/// })
/// # }
/// ```
///
/// # Source
///
/// What Twisted's `Cooperator` is mostly used for; rayon and `futures` `buffered`.
#[track_caller]
pub fn map_concurrent<I, T, E, F>(limit: usize, items: I, f: F) -> Result<Vec<T>, E>
where
    I: IntoIterator,
    F: Fn(I::Item) -> Result<T, E>,
{
    assert!(limit > 0, "task::map_concurrent: a limit of zero lets nothing begin");
    let hub = Hub::to_park().unwrap_or_else(|why| panic!("task::map_concurrent: {why}"));
    let calls = Calls {
        running: Cell::new(0),
        has_failed: Cell::new(false),
        results: RefCell::default(),
        error: Cell::new(None),
        waiter: Cell::new(None),
    };
    scope(|s| {
        let mut greenlets: Vec<ScopedGreenlet<'_, ()>> = Vec::new();
        let mut items = items.into_iter();
        loop {
            calls.wait_for_fewer_than(limit, hub);
            if calls.has_failed.get() {
                break;
            }
            let Some(item) = items.next() else { break };
            let (call, f) = (Call::begin(&calls), &f);
            if greenlets.len() / 2 > limit {
                greenlets.retain(|greenlet| !greenlet.is_finished());
            }
            greenlets.push(s.spawn(move || call.end(f(item))));
        }
        calls.wait_for_fewer_than(1, hub);
        if calls.has_failed.get() {
            greenlets.iter().for_each(ScopedGreenlet::kill);
        }
    });
    if let Some(error) = calls.error.take() {
        return Err(error);
    }
    let results: Option<Vec<T>> = calls.results.take().into_iter().collect();
    Ok(results.expect("task::map_concurrent: a call was killed before it had a result"))
}

/// What the calls and their caller share.
struct Calls<T, E> {
    running: Cell<usize>,
    /// Whether a call has ended without a value.
    has_failed: Cell<bool>,
    /// A place for each call that was begun.
    results: RefCell<Vec<Option<T>>>,
    /// The first error.
    error: Cell<Option<E>>,
    /// The caller, while it waits for a call to end.
    waiter: Cell<Option<Wake>>,
}

impl<T, E> Calls<T, E> {
    /// Parks until fewer than `limit` calls are running, or one has failed.
    fn wait_for_fewer_than(&self, limit: usize, hub: &'static Hub) {
        while self.running.get() >= limit && !self.has_failed.get() {
            let on = WaitOn::Scope(self.running.get() as u32);
            let wait = Wait::begin(hub, on).expect("it could park when it was called");
            self.waiter.set(Some(wait.wake()));
            let _ = wait.park(Deadline::NEVER, Mode::Infallible);
            self.waiter.set(None);
        }
    }
}

/// One call. Dropped before it has ended in order, by a panic or a kill, it has failed.
struct Call<'a, T, E> {
    calls: &'a Calls<T, E>,
    /// Its place in the results.
    place: usize,
    is_done: bool,
}

impl<'a, T, E> Call<'a, T, E> {
    fn begin(calls: &'a Calls<T, E>) -> Call<'a, T, E> {
        calls.running.set(calls.running.get() + 1);
        let mut results = calls.results.borrow_mut();
        results.push(None);
        Call { calls, place: results.len() - 1, is_done: false }
    }

    fn end(mut self, result: Result<T, E>) {
        match result {
            Ok(value) => {
                self.calls.results.borrow_mut()[self.place] = Some(value);
                self.is_done = true;
            }
            Err(error) => match self.calls.error.take() {
                None => self.calls.error.set(Some(error)),
                first => self.calls.error.set(first),
            },
        }
    }
}

impl<T, E> Drop for Call<'_, T, E> {
    fn drop(&mut self) {
        let calls = self.calls;
        calls.running.set(calls.running.get() - 1);
        if !self.is_done {
            calls.has_failed.set(true);
        }
        if let (Some(hub), Some(wake)) = (Hub::current(), calls.waiter.take()) {
            hub.wake(wake);
        }
    }
}
