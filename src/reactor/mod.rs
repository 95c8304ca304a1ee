//! The reactor: turns descriptor readiness, deadlines and messages from other threads into wakes.
//!
//! Floor 3. Uses: `sys`, `time`. Used by: `hub`. Knows nothing of: greenlets. What is woken is a
//! small copyable `W`, what other threads send is an `M`; both mean something only to the [`Sink`]
//! above.
//!
//! # Contract
//!
//! One [`Core::turn`] does, in this order:
//!
//! 1. **Poll**: not at all to be slept in when the hub is busy or a message is there; otherwise
//!    until the next deadline, or for ever. An idle reactor makes no system call until something
//!    happens. (Where the clock does not pass by itself, see `passing`.)
//! 2. **Events**: each fresh one marks its source ready and appends its waiters.
//! 3. **Clock**: read once; `now` stays the same until the next turn.
//! 4. **Timers** that are due, in the order of their deadlines.
//! 5. **Messages** of other threads, oldest first.
//!
//! # Invariants
//!
//! - `REACTOR-1` No user code runs inside a turn: it only appends, through [`Sink`].
//! - `REACTOR-2` No borrow of the core's cells is held while the sink runs, but those of the poller
//!   and the sources, which a sink never touches.
//!
//! # Threads
//!
//! The core belongs to one thread; [`Inbox`] is the only part that others reach.
//!
//! # Source
//!
//! libuv `design.rst` for the numbered turn; TigerBeetle for running at one's own pace.

mod inbox;
mod passing;
mod sources;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    fmt, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

pub(crate) use inbox::{Envelope, Inbox};
pub(crate) use sources::{Direction, Found, SourceId, Sources};

use crate::{
    sys::Poller,
    time::{Clock, Deadline, Key, Passing, Wheel},
};

/// The least time between two wakeups for timers, so that many deadlines close to one another share
/// them. A lone timer is not held up; the kernel's own slack is about as long.
const TIMERS_APART: Duration = Duration::from_micros(64);

/// What a reactor speaks to: the floor above.
pub(crate) trait Sink<W, M> {
    /// Something that `waiter` waited for has happened. Appends; runs nothing.
    fn wake(&self, waiter: W);
    /// Another thread has sent this. Appends; runs nothing.
    fn message(&self, message: M);
    /// Sleeps until `poller` has events, for `limit` at most, where the thread must not be stopped
    /// for it. `false`: it may be.
    fn rest(&self, _poller: BorrowedFd<'_>, _limit: Option<Duration>) -> bool {
        false
    }
    /// How many of the timers that are set are the floor above's own: no clock jumps for them.
    fn own_timers_count(&self) -> usize {
        0
    }
}

/// The state of one reactor.
pub(crate) struct Core<W, M: Send> {
    poller: RefCell<Poller>,
    sources: RefCell<Sources<W>>,
    timers: RefCell<Wheel<W>>,
    inbox: Arc<Inbox<M>>,
    clock: Box<dyn Clock>,
    now: Cell<Deadline>,
    /// When the last turn was.
    polled: Cell<Deadline>,
    /// When timers last fired.
    timers_fired: Cell<Deadline>,
    turns: Cell<u64>,
    /// How late a timer has fired at most.
    timer_lag_max: Cell<Duration>,
    /// How many answers OS threads owe to this one.
    owed: Rc<Cell<u32>>,
}

impl<W: Copy + PartialEq, M: Send> Core<W, M> {
    /// A reactor that watches nothing.
    ///
    /// # Errors
    ///
    /// No descriptor or no memory for a poller.
    pub(crate) fn new(clock: Box<dyn Clock>) -> io::Result<Core<W, M>> {
        let poller = Poller::new()?;
        let inbox = Arc::new(Inbox::new(poller.waker()));
        let now = clock.now();
        Ok(Core {
            poller: RefCell::new(poller),
            sources: RefCell::new(Sources::new()),
            timers: RefCell::new(Wheel::new(now)),
            inbox,
            clock,
            now: Cell::new(now),
            polled: Cell::new(now),
            timers_fired: Cell::new(Deadline::ZERO),
            turns: Cell::new(0),
            timer_lag_max: Cell::new(Duration::ZERO),
            owed: Rc::default(),
        })
    }

    /// One turn, as numbered above. `may_block`: whether it may sleep.
    pub(crate) fn turn(&self, may_block: bool, sink: &impl Sink<W, M>) -> io::Result<()> {
        self.turns.set(self.turns.get() + 1);
        let polled = self.poll(may_block, sink);
        self.now.set(self.clock.now());
        self.polled.set(self.now.get());
        if let Some(first) = self.timers.borrow().next_deadline().filter(|d| *d <= self.now.get()) {
            let lag = self.now.get().duration_since(first);
            self.timer_lag_max.set(self.timer_lag_max.get().max(lag));
        }
        loop {
            let due = self.timers.borrow_mut().pop_due(self.now.get());
            let Some(waiter) = due else { break };
            self.timers_fired.set(self.now.get());
            sink.wake(waiter);
        }
        self.inbox.drain(&mut |message| sink.message(message));
        polled
    }

    fn poll(&self, may_block: bool, sink: &impl Sink<W, M>) -> io::Result<()> {
        if may_block && self.clock.passing() != Passing::ByItself {
            return self.poll_and_jump(sink);
        }
        let next = if may_block { self.timers.borrow_mut().next_deadline() } else { None };
        let timeout = match next {
            _ if !may_block => Some(Duration::ZERO),
            Some(deadline) => {
                let until = deadline.max(self.timers_fired.get().saturating_add(TIMERS_APART));
                Some(until.duration_since(self.clock.now()))
            }
            None => None,
        };
        self.wait(timeout, sink).map(drop)
    }

    /// Waits for events, and hands them on. Returns how many there were.
    #[inline]
    fn wait(&self, timeout: Option<Duration>, sink: &impl Sink<W, M>) -> io::Result<u32> {
        let sleeps = timeout.is_none_or(|t| !t.is_zero());
        let timeout =
            if sleeps && !self.inbox.begin_sleep() { Some(Duration::ZERO) } else { timeout };
        let rested = sleeps && timeout.is_none_or(|t| !t.is_zero()) && {
            let poller = self.poller.borrow();
            sink.rest(poller.as_fd(), timeout)
        };
        let timeout = if rested { Some(Duration::ZERO) } else { timeout };
        let mut sources = self.sources.borrow_mut();
        let mut count = 0;
        let polled = self.poller.borrow_mut().wait(timeout, &mut |event| {
            count += 1;
            sources.apply(event, &mut |waiter| sink.wake(waiter));
        });
        if sleeps {
            self.inbox.end_sleep();
        }
        polled.map(|_| count)
    }

    /// The time of the current turn.
    #[inline]
    pub(crate) fn now(&self) -> Deadline {
        self.now.get()
    }

    /// When the last turn was.
    pub(crate) fn polled(&self) -> Deadline {
        self.polled.get()
    }

    /// Reads the clock, and leaves `now` as it is.
    pub(crate) fn clock_now(&self) -> Deadline {
        self.clock.now()
    }

    /// Reads the clock: what a deadline that begins now must be counted from.
    pub(crate) fn fresh_now(&self) -> Deadline {
        self.now.set(self.clock.now());
        self.now.get()
    }

    /// How late a timer has fired at most.
    pub(crate) fn timer_lag_max(&self) -> Duration {
        self.timer_lag_max.get()
    }

    /// Whether its time is that of the world.
    pub(crate) fn passes_by_itself(&self) -> bool {
        self.clock.passing() == Passing::ByItself
    }

    /// How many turns were made.
    pub(crate) fn turns(&self) -> u64 {
        self.turns.get()
    }

    /// The inbox, to be shared with other threads.
    pub(crate) fn inbox(&self) -> &Arc<Inbox<M>> {
        &self.inbox
    }

    /// Refuses messages from now on; those that are there go to `sink`.
    pub(crate) fn close_inbox(&self, sink: &impl Sink<W, M>) {
        self.inbox.close(&mut |message| sink.message(message));
    }

    /// Wakes `waiter` at `deadline`. Timers fire in the order of their deadlines.
    #[inline]
    pub(crate) fn add_timer(&self, deadline: Deadline, waiter: W) -> Key {
        self.timers.borrow_mut().insert(deadline, waiter)
    }

    /// Forgets a timer; `false` when it has fired.
    #[inline]
    pub(crate) fn cancel_timer(&self, key: Key) -> bool {
        self.timers.borrow_mut().cancel(key).is_some()
    }

    /// Moves a timer; `false` when it has fired.
    pub(crate) fn reset_timer(&self, key: Key, deadline: Deadline) -> bool {
        self.timers.borrow_mut().reset(key, deadline)
    }

    /// How many timers are set.
    pub(crate) fn timers_count(&self) -> usize {
        self.timers.borrow().len()
    }

    /// What is known of descriptors.
    #[inline]
    pub(crate) fn sources(&self) -> std::cell::RefMut<'_, Sources<W>> {
        self.sources.borrow_mut()
    }

    /// See [`Sources::register`].
    pub(crate) fn register(
        &self,
        fd: BorrowedFd<'_>,
        id: SourceId,
        orphan: &mut impl FnMut(W),
    ) -> io::Result<()> {
        self.sources.borrow_mut().register(&self.poller.borrow(), fd, id, orphan)
    }

    /// See [`Sources::register_foreign`].
    pub(crate) fn register_foreign(
        &self,
        fd: BorrowedFd<'_>,
        orphan: &mut impl FnMut(W),
    ) -> io::Result<SourceId> {
        self.sources.borrow_mut().register_foreign(&self.poller.borrow(), fd, orphan)
    }

    /// Ends the registration of a descriptor that is about to be closed.
    ///
    /// `duplicated`: its open file may live on under another number, and then the poller would go
    /// on reporting it; a sole owner's close makes the kernel forget it without a call of ours.
    pub(crate) fn forget(
        &self,
        fd: BorrowedFd<'_>,
        id: SourceId,
        duplicated: bool,
        orphan: &mut impl FnMut(W),
    ) {
        let known = self.sources.borrow_mut().forget(fd.as_raw_fd(), id, orphan);
        if known && duplicated {
            self.poller.borrow().delete(fd);
        }
    }

    /// Wakes all who wait for a source that is being closed.
    pub(crate) fn evict(&self, fd: RawFd, id: SourceId, orphan: &mut impl FnMut(W)) {
        self.sources.borrow_mut().evict(fd, id, orphan);
    }
}

impl<W, M: Send> fmt::Debug for Core<W, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("now", &self.now.get())
            .field("turns", &self.turns.get())
            .finish_non_exhaustive()
    }
}
