//! Waits of futures: wakers that are kept here until a source is ready or a deadline has passed.
//!
//! Floor 4. Uses: `waker`, the reactor's sources and timers. Used by: `io`, for operations that are
//! polled; `futures`.
//!
//! # Contract
//!
//! A future that cannot go on leaves its `Waker` in a place of the hub's, and the [`Wake`] that
//! names the place stands in the list of a source's waiters, or with a timer, as a greenlet's
//! would. What the future itself has is a [`Kept`]: plain data, so it may be sent to another
//! thread, polled on another hub (where it begins another wait), and dropped anywhere.
//!
//! # Invariants
//!
//! - `KEPT-1` A foreign waker is user code: it is called by the loop, between two turns, on the
//!   hub's own stack, with nothing borrowed, and so is its destructor. (REACTOR-1) One that this
//!   hub lent to a future is not: it only makes its greenlet ready, so it is called at once.
//! - `KEPT-2` A place is taken for one wait and carries its number, which no other wait of the hub
//!   has; a `Kept` carries the number of its hub too, which no other hub of the process has. A
//!   stale one finds another number and does nothing.
//! - `KEPT-3` A wait is over when its waker was called, when its `Kept` is dropped on the hub's
//!   thread, or with its hub. One that was left behind on another thread wakes once more than it
//!   need, which every future must bear. It also stays in its list, until there is an event or the
//!   number of its descriptor is used again here: so long it counts as what could wake main.
//!
//! # Source
//!
//! tokio `scheduled_io.rs`, `time/entry.rs`, which keep the waker in what is shared.

use std::{
    cell::RefCell,
    os::fd::RawFd,
    sync::atomic::{AtomicU64, Ordering},
    task::Waker,
};

use super::{Hub, park::Wake, unwind, waker::KeptWaker};
use crate::{
    reactor::{Direction, SourceId},
    time::{Deadline, Key},
};

/// Where the wake of a wait stands.
#[derive(Debug, Clone, Copy)]
enum Listing {
    /// In the list of a source's waiters.
    Source(RawFd, Direction),
    /// With a timer.
    Timer(Key),
}

/// Room for one wait.
#[derive(Default)]
struct Place {
    /// The wait's number; 0 when there is none.
    number: u64,
    waker: Option<KeptWaker>,
    listing: Option<Listing>,
}

/// Every wait of futures on one hub.
pub(super) struct Keeper {
    /// This hub's number.
    hub: u64,
    places: RefCell<Vec<Place>>,
    free: RefCell<Vec<u32>>,
    /// Foreign wakers whose wait is over.
    due: RefCell<Vec<Waker>>,
}

impl Keeper {
    pub(super) fn new() -> Keeper {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Keeper {
            hub: NEXT.fetch_add(1, Ordering::Relaxed),
            places: RefCell::default(),
            free: RefCell::default(),
            due: RefCell::default(),
        }
    }

    /// How many waits are under way.
    pub(super) fn count(&self) -> usize {
        self.places.borrow().iter().filter(|place| place.number != 0).count()
    }

    /// Takes a place, to be filled by whoever asks, and gives its slot.
    fn take_place(&self) -> u32 {
        self.free.borrow_mut().pop().unwrap_or_else(|| {
            let mut places = self.places.borrow_mut();
            places.push(Place::default());
            u32::try_from(places.len() - 1).expect("fewer than 2^32 waits of futures")
        })
    }

    /// Puts another waker into the place of a wait, if it is still there and would wake another;
    /// hands one of the two back. `None`: the wait is over.
    fn replace(&self, kept: &Kept, waker: KeptWaker) -> Result<KeptWaker, KeptWaker> {
        let mut places = self.places.borrow_mut();
        match places.get_mut(kept.slot as usize) {
            Some(place) if kept.is_at(self, place) => {
                Ok(place.waker.replace(waker).expect("a place that is taken has a waker"))
            }
            _ => Err(waker),
        }
    }

    /// Whether a wait is under way that wakes whom `waker` wakes.
    fn will_wake(&self, kept: &Kept, waker: &Waker) -> bool {
        let places = self.places.borrow();
        places.get(kept.slot as usize).is_some_and(|place| {
            kept.is_at(self, place) && place.waker.as_ref().is_some_and(|k| k.will_wake(waker))
        })
    }

    /// Empties the place of a wait, if it is that wait's.
    fn vacate(&self, slot: u32, number: u64) -> Option<Place> {
        let mut places = self.places.borrow_mut();
        let place = places.get_mut(slot as usize).filter(|place| place.number == number)?;
        self.free.borrow_mut().push(slot);
        Some(std::mem::take(place))
    }

    /// What a wait was for has happened. Runs no user code (`KEPT-1`).
    pub(super) fn end(&self, slot: u32, number: u64) {
        match self.vacate(slot, number).and_then(|place| place.waker) {
            None => {}
            Some(KeptWaker::Ours(shared)) => shared.wake(),
            Some(KeptWaker::Other(waker)) => self.due.borrow_mut().push(waker),
        }
    }

    /// Whether foreign wakers are to be called.
    #[inline]
    pub(super) fn has_due(&self) -> bool {
        !self.due.borrow().is_empty()
    }

    /// Calls the foreign wakers whose wait was over before: those that come meanwhile have to wait
    /// for the next turn.
    #[inline]
    pub(super) fn call_due(&self) {
        if self.has_due() {
            self.due.take().into_iter().for_each(|waker| guard("a Waker", || waker.wake()));
        }
    }

    /// Drops every waker. Returns whether there was any.
    pub(super) fn clear(&self) -> bool {
        let due = self.due.take();
        let kept: Vec<KeptWaker> =
            self.places.take().into_iter().filter_map(|place| place.waker).collect();
        self.free.borrow_mut().clear();
        let found = !due.is_empty() || !kept.is_empty();
        due.into_iter().for_each(|waker| guard("the destructor of a Waker", || drop(waker)));
        kept.into_iter().for_each(|waker| guard("the destructor of a Waker", || drop(waker)));
        found
    }
}

impl Hub {
    /// Its number: no other hub of the process has it.
    pub(crate) fn number(&self) -> u64 {
        self.kept.hub
    }
}

/// Runs user code where nobody can be told of its panic: that is reported.
pub(crate) fn guard(what: &str, f: impl FnOnce()) {
    if let Err(payload) = unwind::catch(f) {
        crate::report::unhandled(what, &unwind::message_of(&*payload), &());
        crate::report::discard(payload);
    }
}

/// A wait of a future, or none: what the future has of it. Dropped on its hub's thread, it ends.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The hub's number; 0 for no wait.
    hub: u64,
    slot: u32,
    number: u64,
}

impl Kept {
    fn is_at(&self, keeper: &Keeper, place: &Place) -> bool {
        self.hub == keeper.hub && self.number == place.number
    }

    /// Whether the wait is under way on this hub, and not over.
    pub(super) fn is_under_way(&self, hub: &Hub) -> bool {
        let places = hub.kept.places.borrow();
        places.get(self.slot as usize).is_some_and(|place| self.is_at(&hub.kept, place))
    }

    /// Has `waker` called when the source is ready, unless it is to be already. The source must be
    /// registered.
    pub(super) fn until_ready(
        &mut self,
        hub: &Hub,
        (fd, id): (RawFd, SourceId),
        direction: Direction,
        waker: &Waker,
    ) {
        self.begin(hub, waker, |wake| {
            hub.reactor.sources().add_waiter(fd, id, direction, wake);
            Some(Listing::Source(fd, direction))
        });
    }

    /// Has `waker` called at `deadline`, on the hub's clock, unless it is to be already.
    pub(super) fn until(&mut self, hub: &Hub, deadline: Deadline, waker: &Waker) {
        self.begin(hub, waker, |wake| {
            (!deadline.is_never()).then(|| Listing::Timer(hub.reactor.add_timer(deadline, wake)))
        });
    }

    fn begin(&mut self, hub: &Hub, waker: &Waker, list: impl FnOnce(Wake) -> Option<Listing>) {
        let keeper = &hub.kept;
        if keeper.will_wake(self, waker) {
            return;
        }
        // Cloning and dropping a waker may run code of others: nothing is borrowed meanwhile.
        let waker = match keeper.replace(self, KeptWaker::keep(waker)) {
            Ok(old) => return drop(old),
            Err(waker) => waker,
        };
        let slot = keeper.take_place();
        let number = hub.next_ticket();
        *self = Kept { hub: keeper.hub, slot, number };
        let listing = list(Wake::Waker { slot, number });
        keeper.places.borrow_mut()[slot as usize] = Place { number, waker: Some(waker), listing };
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(hub) = Hub::current().filter(|hub| hub.kept.hub == self.hub) else { return };
        let (slot, number) = (self.slot, self.number);
        let Some(place) = hub.kept.vacate(slot, number) else { return };
        match place.listing {
            None => {}
            Some(Listing::Source(fd, direction)) => {
                hub.reactor.sources().remove_waiter(fd, direction, Wake::Waker { slot, number });
            }
            Some(Listing::Timer(key)) => drop(hub.reactor.cancel_timer(key)),
        }
    }
}
