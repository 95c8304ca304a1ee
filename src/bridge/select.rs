//! Waiting for the first of several things: [`select!`](crate::select!), [`select_all`].
//!
//! Floor 7. Uses: `future`. Used by: users.
//!
//! # Contract
//!
//! - **What can be waited for is an [`IntoFuture`].** Each wait of this crate has a form that is
//!   one, and so has everybody else's. To register is to be polled, to be told is to be woken, to
//!   be unregistered is to be dropped: nothing else is asked of a waitable.
//! - **Nothing is lost.** The arms are polled in place, on the greenlet that selects. When one is
//!   ready, the others are dropped before its body runs: they leave their lines, and what they were
//!   handed meanwhile goes to the next in line. An arm that is to outlive the select is passed as
//!   `&mut`. They are dropped in a shield, so that one whose destructor waits cannot be where a
//!   kill takes away what the winner was handed.
//! - **The first arm that is ready wins, in the order in which they are written.** The same program
//!   does the same each time, and the arm that matters most is written first. An arm that is always
//!   ready starves those behind it.
//! - No greenlet is spawned, and nothing is allocated that the arms do not allocate.
//!
//! # Source
//!
//! crossbeam-channel and Go for what a body may do; tokio `select!`, which is at random unless
//! `biased`, for arms that are futures; gevent `rawlink`, `unlink`.

use std::{
    cell::OnceCell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use super::future::drive;
use crate::{
    Elapsed,
    hub::{Hub, Shield, park::WaitOn, waker::Shared},
};

/// Waits for the first of several things, and runs what is to be done with it.
///
/// Shape: `pattern = what => body`, in any number, then `default` if there is one:
///
/// ```text
/// pattern = future => body,               any IntoFuture; the pattern binds its output
/// pattern = future, if condition => body, waited for only if the condition holds
/// default => body                         nothing else is ready: never waits
/// default(duration) => body               nothing else was ready in that time
/// ```
///
/// All expressions are evaluated first, in order, also those whose condition is false. The first
/// arm that is ready, in the order in which they are written, wins. The others are dropped; then
/// the winner's body runs, where the macro stands: `return`, `break`, `continue` and `?` mean there
/// what they mean outside, and its value is that of the whole. Patterns must be irrefutable.
///
/// | to wait for | write |
/// |---|---|
/// | a channel | `receiver.recv_async()`, `sender.send_async(value)` |
/// | a lock, permits, an event, a cell | `lock_async()`, `acquire_async(n)`, `wait_async()` |
/// | a greenlet | its handle, which is detached if it loses; or `&mut future`, made by `handle.into_future()` |
/// | a Deferred | the Deferred, which is cancelled if it loses; or `&mut future`, made by `deferred.into_future()` |
/// | a time | [`sleep_async`](crate::sleep_async), [`sleep_until_async`](crate::sleep_until_async), `default(duration)` |
/// | a descriptor | [`wait_readable_async`](crate::wait_readable_async), [`wait_writable_async`](crate::wait_writable_async) |
/// | a socket's data | `poll_fn(\|cx\| stream.poll_read(cx, &mut buf))` |
/// | anything else | any future |
///
/// For a number of things that is known only when the program runs, see
/// [`select_all`].
///
/// # Panics
///
/// Where the caller cannot be suspended (outside [`run`](crate::run), on the hub's own stack); when
/// no arm is enabled and there is no `default`; with what an arm or a body panics with.
///
/// # Cancellation
///
/// Cancellation point: always. A kill or an elapsed [`timeout`](crate::timeout) drops all arms and
/// unwinds: nothing was taken. One that comes when an arm has won, while another one's destructor
/// waits, unwinds at the next cancellation point: the winner's body begins. Infallible: where a
/// kill cannot unwind, the wait goes on.
///
/// # Examples
///
/// ```
/// use greenloop::{run, select, spawn, sync::{Event, channel}};
/// use std::{rc::Rc, time::Duration};
///
/// run(|| {
///     let (sender, receiver) = channel(1);
///     let stop = Rc::new(Event::new());
///     let stopper = Rc::clone(&stop);
///     spawn(move || {
///         for n in 1..=3 {
///             sender.send(n).unwrap();
///         }
///         stopper.set();
///     });
///     let mut sum = 0;
///     loop {
///         select! {
///             received = receiver.recv_async() => match received {
///                 Ok(n) => sum += n,
///                 Err(_) => break,
///             },
///             () = stop.wait_async() => break,
///             default(Duration::from_secs(1)) => panic!("nothing for a second"),
///         }
///     }
///     assert_eq!(sum, 6);
/// });
/// ```
///
/// A greenlet that goes on although it lost:
/// ```
/// use greenloop::{select, sleep, spawn, testing};
/// use std::{future::IntoFuture, time::Duration};
///
/// let tries = testing::run(|| {
///     let mut job = spawn(|| sleep(Duration::from_millis(5))).into_future();
///     let mut tries = 0;
///     loop {
///         tries += 1;
///         select! {
///             done = &mut job => break done.map(|()| tries),
///             default(Duration::from_millis(1)) => println!("not yet"),
///         }
///     }
/// });
/// assert_eq!(tries.unwrap(), 5);
/// ```
///
/// # Source
///
/// Go `select`; tokio and futures `select!`; crossbeam-channel, for `default`.
#[macro_export]
macro_rules! select {
    ($($arms:tt)+) => { $crate::__select_parsed!(@arms [] $($arms)+) };
}

/// The steps of [`select!`](crate::select!): `@arms` and `@body` sort the arms into groups, `@pin`
/// evaluates and pins them one after another, `@match` runs the winner's body.
#[doc(hidden)]
#[macro_export]
macro_rules! __select_parsed {
    (@arms $arms:tt default => $body:expr $(,)?) => {
        match {
            let cover = $crate::__select::Cover::new();
            let selected = $crate::__select_parsed!(@pin try_wait cover [] $arms);
            selected
        } {
            ::std::option::Option::Some(selected) => {
                $crate::__select_parsed!(@match selected $arms)
            }
            ::std::option::Option::None => $body,
        }
    };
    (@arms [$($arms:tt)*] default($limit:expr) => $body:expr $(,)?) => {
        $crate::__select_parsed!(
            @arms [$($arms)* [(()) ($crate::sleep_async($limit)) (true) ($body)]]
        )
    };
    (@arms $arms:tt $pattern:pat = $future:expr, if $enabled:expr => $($rest:tt)+) => {
        $crate::__select_parsed!(@body $arms ($pattern) ($future) ($enabled) $($rest)+)
    };
    (@arms $arms:tt $pattern:pat = $future:expr => $($rest:tt)+) => {
        $crate::__select_parsed!(@body $arms ($pattern) ($future) (true) $($rest)+)
    };
    (@arms $arms:tt) => {
        match {
            let cover = $crate::__select::Cover::new();
            // The arms and their temporaries end with this statement, before the body runs.
            let selected = $crate::__select_parsed!(@pin wait cover [] $arms);
            selected
        } {
            selected => $crate::__select_parsed!(@match selected $arms),
        }
    };
    (@arms $arms:tt $($rest:tt)+) => {
        ::std::compile_error!(
            "select!: expected `pattern = future => body`, or at the end `default => body` or \
             `default(duration) => body`"
        )
    };

    (@body [$($arms:tt)*] $p:tt $f:tt $e:tt $body:block, $($rest:tt)*) => {
        $crate::__select_parsed!(@arms [$($arms)* [$p $f $e ($body)]] $($rest)*)
    };
    (@body [$($arms:tt)*] $p:tt $f:tt $e:tt $body:block $($rest:tt)*) => {
        $crate::__select_parsed!(@arms [$($arms)* [$p $f $e ($body)]] $($rest)*)
    };
    (@body [$($arms:tt)*] $p:tt $f:tt $e:tt $body:expr, $($rest:tt)*) => {
        $crate::__select_parsed!(@arms [$($arms)* [$p $f $e ($body)]] $($rest)*)
    };
    (@body [$($arms:tt)*] $p:tt $f:tt $e:tt $body:expr) => {
        $crate::__select_parsed!(@arms [$($arms)* [$p $f $e ($body)]])
    };

    (
        @pin $wait:ident $cover:ident [$($pinned:tt)*]
        [[$p:tt ($future:expr) ($enabled:expr) $b:tt] $($arms:tt)*]
    ) => {
        match (::std::future::IntoFuture::into_future($future), $enabled) {
            (future, enabled) => {
                let future = ::std::pin::pin!(future);
                $crate::__select_parsed!(
                    @pin $wait $cover [$($pinned)* (future, enabled)] [$($arms)*]
                )
            }
        }
    };
    (@pin $wait:ident $cover:ident [$($pinned:tt)*] []) => {
        $crate::__select::$wait(&$cover, $crate::__select_parsed!(@chain $($pinned)*))
    };

    (@chain ($future:ident, $enabled:ident) $($rest:tt)*) => {
        $crate::__select::Arm::new(
            $future,
            $enabled,
            $crate::__select_parsed!(@chain $($rest)*),
        )
    };
    (@chain) => { $crate::__select::End };

    (@match $selected:ident [[($pattern:pat) $f:tt $e:tt ($body:expr)] $($arms:tt)*]) => {
        match $selected {
            $crate::__select::Selected::This($pattern) => $body,
            $crate::__select::Selected::Later(selected) => {
                $crate::__select_parsed!(@match selected [$($arms)*])
            }
        }
    };
    (@match $selected:ident []) => { match $selected {} };
}

/// The arms of a select, from one on.
pub trait Arms {
    /// Which one was ready, and with what.
    type Output;

    /// Polls those that are enabled, until one is ready.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Self::Output>;

    /// Whether any is enabled.
    fn has_enabled(&self) -> bool;
}

/// Which arm was ready: this one, or one of those behind it.
#[derive(Debug)]
pub enum Selected<T, L> {
    /// This one, with its output.
    This(T),
    /// A later one.
    Later(L),
}

/// One arm, and those behind it.
#[derive(Debug)]
pub struct Arm<'f, F, A> {
    future: Pin<&'f mut F>,
    enabled: bool,
    rest: A,
}

/// No arm.
#[derive(Debug)]
pub struct End;

impl<'f, F, A> Arm<'f, F, A> {
    /// An arm in front of others.
    pub fn new(future: Pin<&'f mut F>, enabled: bool, rest: A) -> Arm<'f, F, A> {
        Arm { future, enabled, rest }
    }
}

impl<F: Future, A: Arms> Arms for Arm<'_, F, A> {
    type Output = Selected<F::Output, A::Output>;

    #[inline]
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.enabled
            && let Poll::Ready(output) = self.future.as_mut().poll(context)
        {
            return Poll::Ready(Selected::This(output));
        }
        self.rest.poll(context).map(Selected::Later)
    }

    fn has_enabled(&self) -> bool {
        self.enabled || self.rest.has_enabled()
    }
}

impl Arms for End {
    type Output = Infallible;

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<Infallible> {
        Poll::Pending
    }

    fn has_enabled(&self) -> bool {
        false
    }
}

/// From the moment at which an arm has won until it is dropped, after the arms, neither a kill nor
/// a timeout unwinds: the destructor of one that lost may wait.
#[derive(Debug, Default)]
pub struct Cover(OnceCell<Shield>);

impl Cover {
    /// Covers nothing yet.
    pub fn new() -> Cover {
        Cover::default()
    }

    fn begin(&self) {
        self.0.get_or_init(Shield::raise);
    }
}

/// Waits for the first arm that is ready.
#[track_caller]
pub fn wait<A: Arms>(cover: &Cover, mut arms: A) -> A::Output {
    assert!(
        arms.has_enabled(),
        "greenloop::select!: no arm is enabled, so it would wait for ever; add `default => …`"
    );
    let output = first("select!", |context| arms.poll(context), || false);
    cover.begin();
    output.expect("it is never given up")
}

/// Polls each arm once.
#[track_caller]
pub fn try_wait<A: Arms>(cover: &Cover, mut arms: A) -> Option<A::Output> {
    let output = first("select!", |context| arms.poll(context), || true);
    cover.begin();
    output
}

/// Polls until something is ready, or, after a poll, given up.
#[track_caller]
fn first<T>(
    name: &str,
    poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    is_over: impl Fn() -> bool,
) -> Option<T> {
    let hub = Hub::to_park().unwrap_or_else(|why| panic!("greenloop::{name}: {why}"));
    let shared = Shared::lend(hub);
    drive(hub, &shared, WaitOn::Several, pin!(poll_fn(poll)), |_| (), is_over)
}

/// Waits for the first of `futures` that is ready: the form of [`select!`](crate::select!) for a
/// number of them that is known only when the program runs.
///
/// Shape: returns its index and its output, or `None` if there are no futures. The first in the
/// slice wins. The others stay as they are, and may be waited for again; the one that was ready
/// must not be: take it out. Each wake polls all of them. Futures of different types go into one
/// slice as `Pin<Box<dyn Future<Output = T>>>`.
///
/// # Panics
///
/// Where the caller cannot be suspended. With what a future panics with.
///
/// # Cancellation
///
/// As [`select!`](crate::select!), but the futures are the caller's: they are dropped with whatever
/// has them.
///
/// # Examples
///
/// ```
/// use greenloop::{select_all, sleep, spawn, testing};
/// use std::{future::IntoFuture, time::Duration};
///
/// let order = testing::run(|| {
///     let mut racers: Vec<_> = [3, 1, 2]
///         .map(|n| spawn(move || { sleep(n * Duration::from_millis(5)); n }).into_future())
///         .into();
///     let mut order = Vec::new();
///     while let Some((index, result)) = select_all(&mut racers) {
///         racers.remove(index);
///         order.push(result.unwrap());
///     }
///     order
/// });
/// assert_eq!(order, [1, 2, 3]);
/// ```
///
/// # Source
///
/// crossbeam-channel `Select`; futures `select_all`; gevent `wait(objects, count=1)`.
#[track_caller]
pub fn select_all<F>(futures: &mut [F]) -> Option<(usize, F::Output)>
where
    F: Future + Unpin,
{
    if futures.is_empty() {
        return None;
    }
    first("select_all", |context| poll_all(futures, context), || false)
}

/// As [`select_all`], but gives up after `limit`.
///
/// # Errors
///
/// [`Elapsed`] after `limit`; the futures stay as they are.
#[track_caller]
pub fn select_all_timeout<F>(
    futures: &mut [F],
    limit: Duration,
) -> Result<Option<(usize, F::Output)>, Elapsed>
where
    F: Future + Unpin,
{
    if futures.is_empty() {
        return Ok(None);
    }
    let any = poll_fn(|context| poll_all(futures, context));
    super::wait_for_future_timeout(any, limit).map(Some)
}

/// As [`select_all`], but never waits: `None` if no future is ready.
#[track_caller]
pub fn try_select_all<F>(futures: &mut [F]) -> Option<(usize, F::Output)>
where
    F: Future + Unpin,
{
    first("try_select_all", |context| poll_all(futures, context), || true)
}

fn poll_all<F>(futures: &mut [F], context: &mut Context<'_>) -> Poll<(usize, F::Output)>
where
    F: Future + Unpin,
{
    for (index, future) in futures.iter_mut().enumerate() {
        if let Poll::Ready(output) = Pin::new(future).poll(context) {
            return Poll::Ready((index, output));
        }
    }
    Poll::Pending
}
