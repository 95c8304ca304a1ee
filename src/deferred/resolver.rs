//! The firing end: [`Resolver`], the canceller and what it is handed, and the origin of a chain
//! that both fire.

use super::chain::{self, Chain, Firing, Head, Outlet, Output, Run, Source};
use super::debug;
use super::end::Deferred;
use super::failure::Failure;
use super::unwinds::catch;
use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;

/// The end of a Deferred that fires it.
///
/// Firing consumes it, so that a second result (Twisted's `AlreadyCalledError`) cannot be written:
/// ```compile_fail,E0382
/// # use greenloop::Deferred;
/// let (resolver, deferred) = Deferred::<u32>::new();
/// resolver.callback(1);
/// resolver.callback(2); // used after move
/// ```
/// Dropped unfired, it fires the error [`Abandoned`](super::Abandoned): whoever waits is told that
/// nothing will come. Once the Deferred was cancelled, firing and dropping it do nothing.
///
/// It stays on its thread, for firing runs the callbacks there:
/// ```compile_fail,E0277
/// # use greenloop::Deferred;
/// let (resolver, deferred) = Deferred::<u32>::new();
/// std::thread::spawn(move || resolver.callback(1)); // `Rc` cannot be sent
/// ```
#[must_use = "a Resolver that is dropped fires `Abandoned`"]
pub struct Resolver<T: 'static> {
    /// What it fires; none once it did.
    origin: Option<Rc<dyn Fire<T>>>,
}

impl<T: 'static> Resolver<T> {
    /// Fires the Deferred with a value. Its callbacks run before this returns, in order, each with
    /// the result of the one before.
    ///
    /// # Panics
    /// Never by a callback's panic, which becomes a Failure of the chain. A kill that unwinds out
    /// of a callback goes on from here, after the rest of the chain ran.
    #[track_caller]
    pub fn callback(self, value: T) {
        self.fire(Ok(value));
    }

    /// Fires the Deferred with an error: as [`callback`](Self::callback), on the errback line.
    #[track_caller]
    pub fn errback(self, failure: impl Into<Failure>) {
        self.fire(Err(failure.into()));
    }

    /// Fires the Deferred with a result of either kind: as [`callback`](Self::callback).
    #[track_caller]
    pub fn fire(mut self, result: Result<T, Failure>) {
        if let Some(origin) = self.origin.take() {
            if debug::is_on() {
                debug::note_fired(origin.head(), Location::caller());
            }
            origin.fire(result);
        }
    }

    /// Tells whether the Deferred was cancelled, so that firing it now would do nothing. A producer
    /// may stop its work then, if it was given no canceller.
    pub fn is_cancelled(&self) -> bool {
        self.origin.as_ref().is_none_or(|origin| origin.head().source() == Source::Fired)
    }

    /// Gives the origin, without firing it.
    pub(super) fn into_origin(mut self) -> Option<Rc<dyn Fire<T>>> {
        self.origin.take()
    }
}

impl<T: 'static> Drop for Resolver<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(origin) = self.origin.take() {
            abandon(origin);
        }
    }
}

/// Fires `Abandoned`, where it matters to somebody.
#[cold]
fn abandon<T: 'static>(origin: Rc<dyn Fire<T>>) {
    let is_heard = origin.outlet().has_next() || Rc::strong_count(&origin) > 1;
    // While its canceller runs, which may well drop the producer, the cancellation is the reason.
    if origin.head().source() == Source::Unfired && is_heard {
        origin.fire(Err(Failure::abandoned()));
    }
}

impl<T: 'static> fmt::Debug for Resolver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_cancelled() { "cancelled" } else { "unfired" };
        write!(f, "Resolver<{}>({state})", std::any::type_name::<T>())
    }
}

/// What a canceller is handed: the right to fire the Deferred that is being cancelled.
///
/// A canceller that does not use it leaves the Deferred to the error
/// [`Cancelled`](super::Cancelled). It may also let the producer fire its Resolver: until the
/// canceller returns, whoever fires first wins.
pub struct Cancelling<'a, T: 'static> {
    /// What is being cancelled.
    origin: &'a Rc<dyn Fire<T>>,
}

impl<T: 'static> Cancelling<'_, T> {
    /// Fires the Deferred with a value in place of `Cancelled`.
    #[track_caller]
    pub fn callback(self, value: T) {
        self.fire(Ok(value));
    }

    /// Fires the Deferred with this error in place of `Cancelled`.
    #[track_caller]
    pub fn errback(self, failure: impl Into<Failure>) {
        self.fire(Err(failure.into()));
    }

    /// Fires the Deferred with this result in place of `Cancelled`.
    #[track_caller]
    pub fn fire(self, result: Result<T, Failure>) {
        if debug::is_on() {
            debug::note_fired(self.origin.head(), Location::caller());
        }
        Rc::clone(self.origin).fire(result);
    }
}

impl<T: 'static> fmt::Debug for Cancelling<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cancelling<{}>", std::any::type_name::<T>())
    }
}

/// An origin of a chain without the type of its canceller.
pub(super) trait Fire<T>: Chain + Output<T> {
    /// Takes the result, if it is the first, and gives who is to run with it.
    fn begin(&self, result: Result<T, Failure>, firing: &mut Firing) -> Option<Rc<dyn Run>>;
    /// Takes the result, if it is the first, and runs the chain.
    fn fire(self: Rc<Self>, result: Result<T, Failure>);
    /// Calls the canceller. `origin` is this one.
    fn call_canceller(&self, origin: &Rc<dyn Fire<T>>);
}

/// A canceller, or none, in its place.
pub(super) trait Cancels<T>: 'static {
    /// Calls the canceller, the first time.
    fn call(&self, origin: &Rc<dyn Fire<T>>);
    /// Drops the canceller uncalled (D29).
    fn discard(&self, firing: &mut Firing);
}

/// No canceller.
pub(super) struct Without;

impl<T: 'static> Cancels<T> for Without {
    fn call(&self, _: &Rc<dyn Fire<T>>) {}
    fn discard(&self, _: &mut Firing) {}
}

/// A canceller, until it is called or dropped.
pub(super) struct With<F>(Cell<Option<F>>);

impl<T: 'static, F: FnOnce(Cancelling<'_, T>) + 'static> Cancels<T> for With<F> {
    fn call(&self, origin: &Rc<dyn Fire<T>>) {
        if let Some(canceller) = self.0.take() {
            canceller(Cancelling { origin });
        }
    }

    fn discard(&self, firing: &mut Firing) {
        if let Some(canceller) = self.0.take()
            && let Err(caught) = catch(|| drop(canceller))
        {
            // The chain has its result already: nobody waits for this failure.
            firing.failure_of(caught).report_unhandled("the destructor of a canceller");
        }
    }
}

/// The first part of a chain and its head, in one allocation.
pub(super) struct Origin<T, C> {
    /// The state of the chain.
    head: Head,
    /// Where the first result goes.
    outlet: Outlet<T>,
    /// The canceller, or none. By type: a chain without one does not pay for it.
    canceller: C,
}

impl<T: 'static> Origin<T, Without> {
    pub(super) fn unfired() -> Rc<Self> {
        let head = Head::new(Source::Unfired);
        Rc::new(Origin { head, outlet: Outlet::new(), canceller: Without })
    }

    /// An origin that has fired and passed its result on.
    pub(super) fn passed() -> Rc<Self> {
        let head = Head::new(Source::Fired);
        Rc::new(Origin { head, outlet: Outlet::new(), canceller: Without })
    }

    pub(super) fn fired(result: Result<T, Failure>) -> Rc<Self> {
        let head = Head::new(Source::Fired);
        Rc::new(Origin { head, outlet: Outlet::holding(result), canceller: Without })
    }
}

impl<T: 'static, F: FnOnce(Cancelling<'_, T>) + 'static> Origin<T, With<F>> {
    pub(super) fn with_canceller(canceller: F) -> Rc<Self> {
        let canceller = With(Cell::new(Some(canceller)));
        Rc::new(Origin { head: Head::new(Source::Unfired), outlet: Outlet::new(), canceller })
    }
}

/// Makes the two ends of an unfired origin.
#[inline]
#[track_caller]
pub(super) fn ends<T: 'static, C: Cancels<T>>(
    origin: Rc<Origin<T, C>>,
) -> (Resolver<T>, Deferred<T>) {
    if debug::is_on() {
        debug::note_made(&origin.head, Location::caller());
    }
    let resolver = Resolver { origin: Some(Rc::clone(&origin) as Rc<dyn Fire<T>>) };
    (resolver, Deferred::linked(Rc::clone(&origin) as Rc<dyn Chain>, origin))
}

impl<T, C> Output<T> for Origin<T, C> {
    fn outlet(&self) -> &Outlet<T> {
        &self.outlet
    }
}

impl<T: 'static, C: Cancels<T>> Fire<T> for Origin<T, C> {
    fn begin(&self, mut result: Result<T, Failure>, firing: &mut Firing) -> Option<Rc<dyn Run>> {
        if self.head.source() == Source::Fired {
            // The destructor of what came too late is user code too.
            if let Err(caught) = catch(|| drop(result)) {
                firing.failure_of(caught).report_unhandled("the destructor of a late result");
            }
            return None;
        }
        self.head.set_source(Source::Fired);
        self.canceller.discard(firing);
        debug::mark(&mut result, self);
        self.outlet.deliver(result)
    }

    fn fire(self: Rc<Self>, result: Result<T, Failure>) {
        let chain: Rc<dyn Chain> = self.clone();
        chain::drive_from(chain, |firing| self.begin(result, firing));
    }

    fn call_canceller(&self, origin: &Rc<dyn Fire<T>>) {
        self.canceller.call(origin);
    }
}

impl<T: 'static, C: Cancels<T>> Chain for Origin<T, C> {
    fn head(&self) -> &Head {
        &self.head
    }

    fn cancel_source(self: Rc<Self>, firing: &mut Firing) -> Option<Rc<dyn Run>> {
        self.head.set_source(Source::Cancelling);
        let origin: Rc<dyn Fire<T>> = self;
        let failure = match catch(|| origin.call_canceller(&origin)) {
            Ok(()) => Failure::cancelled(),
            Err(caught) => firing.failure_of(caught),
        };
        if origin.head().source() == Source::Fired {
            failure.report_unhandled("a canceller"); // not a cancellation: a panic
            return None;
        }
        origin.begin(Err(failure), firing)
    }
}
