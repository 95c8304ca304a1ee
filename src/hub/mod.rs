//! The hub: greenlets on a reactor, one hub a thread.
//!
//! Floor 4. Uses: `coro`, `time`, `reactor`. Used by: everything above. Knows nothing of: sockets,
//! Deferreds.
//!
//! # Contract
//!
//! Greenlets of one hub run one at a time, on one thread, and change only in calls of this crate:
//! between two suspensions nothing else runs. The loop in `run.rs` resumes those that are ready,
//! first come first served, then turns the reactor:
//!
//! 1. Call the wakers of futures whose wait is over (`kept`); resume what is ready, at most `BATCH`
//!    greenlets.
//! 2. See that somebody runs what the reactor wants to be called (`calls`).
//! 3. Those that only yielded come next. They wait for a poll, but not for one each: after
//!    `POLL_EVERY` resumes, or 50 us, the reactor is polled without sleeping.
//! 4. Nothing is ready: wake whoever waits for just that (`quiet`), or sleep in the reactor until
//!    something is. If nothing can ever be and main is waiting, main unwinds with
//!    `WouldBlockForever`.
//!
//! # Invariants
//!
//! - `HUB-1` The table has every live greenlet, and only those. Only the loop, on the hub's own
//!   stack, removes one.
//! - `HUB-2` A hub is reachable by [`Hub::current`] from the beginning of `run` until every
//!   greenlet has ended, and lives longer than that. (SOUND-3)
//! - `HUB-3` `current` is `None` exactly while the hub's own stack runs.
//!
//! # Threads
//!
//! A hub and all that belongs to it stay on the thread that called `run`. Other threads reach it
//! by a [`ReactorHandle`] and by wakers, through the inbox.
//!
//! # Source
//!
//! gevent `hub.py`, trio `_run.py`; tokio `current_thread` for a bounded number of resumes a poll.

mod alarm;
mod calls;
mod census;
mod completed;
mod context;
mod control;
mod direct;
mod dump;
pub(crate) mod fork;
mod futures;
mod group;
pub(crate) mod guest;
pub(crate) mod io;
mod join;
pub(crate) mod kept;
mod killed;
#[cfg(debug_assertions)]
mod lint;
mod locals;
mod metrics;
pub(crate) mod park;
mod pulse;
mod queue;
mod quiet;
mod report;
mod run;
mod scope;
mod slice;
mod spawn;
mod timeout;
mod try_scope;
mod unwind;
pub(crate) mod waker;
mod watchdog;

use std::{
    any::Any,
    backtrace::Backtrace,
    cell::{Cell, RefCell},
    fmt,
    os::fd::BorrowedFd,
    ptr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

pub use calls::{DelayedCall, DelayedCallError, Reactor, ReactorHandle, Stopped, reactor};
pub use completed::{
    AsCompleted, as_completed, joinall, joinall_timeout, killall, killall_timeout,
};
pub use context::{Context, ContextVar};
pub use dump::{dump, dump_on_sigquit};
pub use futures::{
    Readiness, Sleeping, sleep_async, sleep_until_async, wait_readable_async, wait_writable_async,
};
pub use group::Group;
pub use io::{wait_readable, wait_writable};
pub use join::{Ending, Greenlet, JoinError, Link, Panic};
pub use killed::Killed;
pub use locals::{AccessError, LocalKey};
pub use metrics::Metrics;
pub use report::{GreenletState, Parked, Report};
pub use run::{RunError, run, try_run};
pub use scope::{Scope, ScopedGreenlet, scope};
pub use slice::yield_if_due;
pub use spawn::{Builder, GreenletRef, current, spawn, spawn_later};
pub use timeout::{Elapsed, deadline, shield, sleep, sleep_until, timeout, timeout_at, yield_now};
pub use try_scope::{TryScope, try_scope};
pub use unwind::is_kill;

pub(crate) use calls::Message;
pub(crate) use direct::{Cut, Director};
pub(crate) use group::Member;
pub(crate) use quiet::settle;
pub(crate) use run::try_run_on;
pub(crate) use timeout::Shield;
pub(crate) use unwind::message_of;

use self::{
    calls::Calls,
    control::{Ctl, State, Table},
    kept::Keeper,
    park::Wake,
    pulse::{Beats, Pulse},
    queue::RunQueue,
};
use crate::{
    coro::StackPool,
    reactor::{Core, Inbox, Sink},
    time::{Clock, Deadline, Passing},
};

/// Greenlets resumed before the loop looks up. Bounds how long a due timer waits behind wakes.
const BATCH: u32 = 256;

/// Resumes in a batch before those that come next are prefetched: a short queue is in the cache.
const SHORT_QUEUE: u32 = 8;

/// Resumes between two polls while greenlets do nothing but yield. A poll costs as much as forty
/// yields; spread over 256 it adds one nanosecond to each.
const POLL_EVERY: u64 = 256;

/// Time between two polls while greenlets do nothing but yield, if their slices are long.
const POLL_AFTER_NS: u64 = 50_000;

/// Resumes after which their pace is first measured.
const PACE_AFTER: u64 = 8;

/// How long idle stacks keep their memory after a burst, and the pause between two trims.
const TRIM_INTERVAL: Duration = Duration::from_millis(100);

/// Operations that may succeed without parking before a greenlet must let the others run.
const SLICE_OPERATIONS: u32 = 128;

thread_local! {
    /// This thread's hub (`HUB-2`). No destructor: reading it is one instruction.
    static CURRENT: Cell<*const Hub> = const { Cell::new(ptr::null()) };
}

/// The scheduler of one thread.
pub(crate) struct Hub {
    pub(crate) reactor: Core<Wake, Message>,
    /// The running greenlet (`HUB-3`).
    current: Cell<Option<Ctl>>,
    /// Every live greenlet, by slot (`HUB-1`).
    table: RefCell<Table>,
    /// Woken ones: run before the next poll.
    ready: RunQueue,
    /// Yielded ones: run after it.
    yielded: RunQueue,
    /// One pool a stack size; the first is the default size.
    pools: RefCell<Vec<StackPool>>,
    calls: Calls,
    /// Wakers of futures that wait for a source or a deadline.
    kept: Keeper,
    /// What a higher floor keeps until the run has ended.
    #[cfg(feature = "tokio")]
    pub(crate) lodger: std::cell::OnceCell<Box<dyn Any>>,
    next_id: Cell<u64>,
    next_ticket: Cell<u64>,
    /// How many greenlets are parked in the midst of an unwind.
    unwinders: Cell<u32>,
    /// How often that number was set right: a greenlet that was counted before does not count now.
    unwinders_round: Cell<u64>,
    /// How many guests are alive.
    guests: Cell<usize>,
    /// Whether the reactor's turn is under way.
    is_turning: Cell<bool>,
    /// How many sections that forbid parking we are inside of.
    no_park: Cell<u32>,
    /// Operations that the current greenlet may still do before it must yield.
    slice: Cell<u32>,
    /// The slice of a greenlet that computes.
    slices: slice::Slices,
    /// Those who wait until nobody else runs.
    quiet: RefCell<Vec<Wake>>,
    /// What futures that were waited for were woken by, to be used again.
    spare_wakers: RefCell<Vec<std::sync::Arc<waker::Shared>>>,
    /// What directs the run, in a test that does.
    director: Option<Rc<dyn Director>>,
    /// How the run is to end, once that is known.
    fate: run::Fate,
    /// What other threads may see of it; and what they see of its resumes.
    pulse: Arc<Pulse>,
    beats: Beats,
    /// How many there were at the last poll.
    polled_at: Cell<u64>,
    /// At how many the clock is to be read.
    look_at: Cell<u64>,
    /// Whether a timer is set to trim idle stacks.
    trimming: Cell<bool>,
    /// Waits that another thread may end (`Outside`).
    outside_waits: Cell<usize>,
    /// The backtrace that a greenlet has just taken of itself.
    posed: Cell<Option<Backtrace>>,
}

impl Hub {
    fn new(clock: Box<dyn Clock>, director: Option<Rc<dyn Director>>) -> std::io::Result<Hub> {
        let reactor = Core::new(clock)?;
        let pulse = Arc::new(Pulse::new(Arc::clone(reactor.inbox())));
        Ok(Hub {
            reactor,
            current: Cell::new(None),
            table: RefCell::new(Table::default()),
            ready: RunQueue::default(),
            yielded: RunQueue::default(),
            pools: RefCell::new(vec![StackPool::new(crate::coro::STACK_BYTES_DEFAULT)]),
            calls: Calls::default(),
            kept: Keeper::new(),
            #[cfg(feature = "tokio")]
            lodger: std::cell::OnceCell::new(),
            next_id: Cell::new(1),
            next_ticket: Cell::new(1),
            unwinders: Cell::new(u32::from(std::thread::panicking())),
            unwinders_round: Cell::new(1),
            guests: Cell::new(0),
            is_turning: Cell::new(false),
            no_park: Cell::new(0),
            slice: Cell::new(0),
            slices: slice::Slices::default(),
            quiet: RefCell::default(),
            spare_wakers: RefCell::default(),
            director,
            fate: run::Fate::default(),
            pulse,
            beats: Beats::default(),
            polled_at: Cell::new(0),
            look_at: Cell::new(PACE_AFTER),
            trimming: Cell::new(false),
            outside_waits: Cell::new(0),
            posed: Cell::new(None),
        })
    }

    /// This thread's hub, if a reactor runs on it.
    ///
    /// Not inlined: the compiler would compute the address of the thread-local once for a whole
    /// loop of the user's, and keep it on the greenlet's stack across each switch, where it is slow
    /// to fetch, and all that follows waits for it. A call costs a nanosecond and waits for none.
    #[inline(never)]
    #[expect(unsafe_code, reason = "the pointer in the thread-local is live: HUB-2")]
    pub(crate) fn current() -> Option<&'static Hub> {
        // SAFETY: HUB-2: non-null only while the hub lives, and whoever asks is either one of its
        // greenlets, which end before it, or its own stack, or user code in a destructor that it
        // runs: none of them can keep the reference beyond the hub's life.
        unsafe { CURRENT.get().as_ref() }
    }

    /// The hub that the caller is on, be it a guest of it: for what needs no thread-local.
    pub(crate) fn of_caller() -> Option<&'static Hub> {
        Hub::current().or_else(|| guest::guest().map(guest::Guest::hub))
    }

    #[inline]
    fn next_ticket(&self) -> u64 {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket + 1);
        ticket
    }

    /// The live greenlet in this slot of the table.
    #[inline]
    fn at(&self, slot: u32) -> Option<Ctl> {
        self.table.borrow().at(slot)
    }

    /// The live greenlet with this slot and number.
    fn find(&self, slot: u32, id: u64) -> Option<Ctl> {
        self.at(slot).filter(|ctl| ctl.id() == id)
    }

    /// How many greenlets are alive.
    #[inline]
    fn live(&self) -> usize {
        self.table.borrow().live()
    }

    /// All live greenlets.
    fn all(&self) -> Vec<Ctl> {
        self.table.borrow().all()
    }

    /// Keeps something of a higher floor's with the current greenlet, until it ends.
    pub(crate) fn set_keepsake(&self, keepsake: Rc<dyn Any>) {
        if let Some(ctl) = self.current.get() {
            ctl.rare(|rare| rare.keepsake = Some(keepsake));
        }
    }

    /// What is kept with the current greenlet.
    pub(crate) fn keepsake(&self) -> Option<Rc<dyn Any>> {
        self.current.get()?.rare_if_any(|rare| rare.keepsake.clone())?
    }

    /// Enters a greenlet until it suspends or ends.
    #[inline]
    #[expect(unsafe_code, reason = "the one place that resumes")]
    fn resume(&self, ctl: Ctl) {
        debug_assert_eq!(self.current.get(), None);
        #[cfg(feature = "tracing")]
        let outer = enter_spans(ctl);
        let is_new = ctl.state.replace(State::Running) == State::New;
        self.slice.set(SLICE_OPERATIONS);
        self.current.set(Some(ctl));
        if self.unwinders.get() > 0 {
            self.uncount_unwinder(ctl);
        }
        if is_new {
            ctl.begin(|pool| self.pools.borrow_mut()[usize::from(pool)].take());
        }
        // SAFETY: we are the hub, on its own stack (`current` was None: HUB-3); the greenlet came
        // from a run queue, so it is suspended, and it has begun.
        let ended = unsafe { ctl.resume() };
        self.current.set(None);
        #[cfg(feature = "tracing")]
        leave_spans(ctl, outer.as_ref(), ended);
        if ended {
            self.reap(ctl);
        }
    }

    /// The backtrace of a parked greenlet, which takes it itself, on its own stack (`pose`).
    ///
    /// `current` stays who it is: what is entered neither is nor becomes the current greenlet.
    #[expect(unsafe_code, reason = "enters a greenlet that stays parked")]
    fn peek(&self, ctl: Ctl) -> Option<Backtrace> {
        // std locks for a backtrace. Who waits for that lock runs guests, and turns the reactor, by
        // which others may ask: also of one that is at it.
        if ctl.state.get() != State::Parked || ctl.is_peeked() {
            return None;
        }
        ctl.set_peeked(true);
        // SAFETY: this runs on the hub's stack or on that of the current greenlet, which is not
        // parked, hence another one; whoever enters a coroutine gets it back, so it need not be the
        // hub. The greenlet is suspended, in `Wait::park` (nothing else makes one `Parked`), so it
        // has begun, and nobody holds a reference to its coroutine, for it was not being peeked at
        // (CTL-2).
        let ended = unsafe { ctl.resume() };
        debug_assert!(!ended, "a greenlet that poses does not end");
        ctl.set_peeked(false);
        self.posed.take()
    }

    /// Removes a greenlet that has ended, and recycles its stack.
    #[expect(unsafe_code, reason = "ends the control block")]
    fn reap(&self, ctl: Ctl) {
        // SAFETY: it has ended; it was running, so no queue has it, and this is called once.
        let (stack, pool) = unsafe { ctl.reap() };
        self.table.borrow_mut().release(ctl);
        self.pools.borrow_mut()[usize::from(pool)].put(stack);
    }

    /// Gives the memory of idle stacks back, a little at a time, until few enough keep it.
    fn trim(&self) {
        self.trimming.set(false);
        self.pools.borrow_mut().iter_mut().for_each(StackPool::trim);
        self.trim_later();
    }

    /// Sees that idle stacks are trimmed if there are many. Called before the hub sleeps.
    ///
    /// Not where time is virtual: it would pass for a timer that is no part of the program.
    fn trim_later(&self) {
        if !self.trimming.get()
            && self.reactor.passing() == Passing::ByItself
            && self.pools.borrow().iter().any(StackPool::is_fat)
        {
            self.trimming.set(true);
            let deadline = self.reactor.now().saturating_add(TRIM_INTERVAL);
            self.reactor.add_timer(deadline, Wake::Trim);
        }
    }

    /// Forbids parking until the guard is dropped.
    pub(crate) fn forbid_park(&self) -> impl Drop + use<'_> {
        struct Guard<'h>(&'h Cell<u32>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.no_park.set(self.no_park.get() + 1);
        Guard(&self.no_park)
    }

    /// The inbox by which other threads reach this hub.
    pub(crate) fn inbox(&self) -> &Arc<Inbox<Message>> {
        self.reactor.inbox()
    }

    /// As an [`Outside`], for a greenlet of this hub, which it outlives.
    #[inline]
    pub(crate) fn count_outside(&self) -> impl Drop + use<'_> {
        struct Counted<'h>(&'h Cell<usize>);
        impl Drop for Counted<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.outside_waits.set(self.outside_waits.get() + 1);
        Counted(&self.outside_waits)
    }

    /// `duration` from now on the hub's clock; the clock is read for it.
    pub(crate) fn deadline_in(&self, duration: Duration) -> Deadline {
        self.reactor.fresh_now().saturating_add(duration)
    }
}

/// Enters the spans of a greenlet that goes on.
#[cfg(feature = "tracing")]
fn enter_spans(ctl: Ctl) -> Option<tracing::Id> {
    // A subscriber may do as it likes: nothing of the block's is lent to it.
    let mut trail = ctl.rare_if_any(|rare| rare.trail.take()).flatten();
    let outer = crate::trace::enter(trail.as_mut());
    if trail.is_some() {
        ctl.rare(|rare| rare.trail = trail);
    }
    outer
}

/// Exits the spans of a greenlet that has let go, or has ended.
#[cfg(feature = "tracing")]
fn leave_spans(ctl: Ctl, outer: Option<&tracing::Id>, ended: bool) {
    let trail = ctl.rare_if_any(|rare| rare.trail.take()).flatten();
    let trail = crate::trace::leave(trail, outer);
    if ended {
        let id = Some(ctl.id()).filter(|_| ctl.birth().role != control::Role::Callback);
        crate::trace::ended(id, trail);
    } else if trail.is_some() {
        ctl.rare(|rare| rare.trail = trail);
    }
}

/// What the reactor speaks to.
impl Sink<Wake, Message> for Hub {
    fn wake(&self, wake: Wake) {
        Hub::wake(self, wake);
    }

    fn message(&self, message: Message) {
        match message {
            Message::Wake(wake) => Hub::wake(self, wake),
            Message::Call(call) => self.call_if_running(call),
            Message::Ask(question) => question(self),
            Message::Stop => self.stop(),
        }
    }

    fn rest(&self, poller: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
        self.rest_as_guest(poller, limit)
    }

    fn own_timers_count(&self) -> usize {
        usize::from(self.trimming.get()) + self.fate.shutdown_timers_count.get()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("greenlets", &self.live())
            .field("current", &self.current.get())
            .field("reactor", &self.reactor)
            .finish_non_exhaustive()
    }
}

/// A wait on this thread that another thread may end. While there is one, main's own wait is not
/// one for ever. As an outside handle of the inbox, but costs no atomic operation.
#[derive(Debug)]
pub(crate) struct Outside {
    hub: u64,
    thread: NotSend,
}

impl Outside {
    pub(crate) fn new(hub: &Hub) -> Outside {
        hub.outside_waits.set(hub.outside_waits.get() + 1);
        Outside { hub: hub.number(), thread: NotSend::default() }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // Its hub may have ended, and another one run here.
        if let Some(hub) = Hub::current().filter(|hub| hub.number() == self.hub) {
            hub.outside_waits.set(hub.outside_waits.get() - 1);
        }
    }
}

/// Whether the caller is unwinding: its greenlet, if it is on one; else its thread.
#[inline]
pub(crate) fn is_unwinding() -> bool {
    /// Somebody on this thread is; whether it is the caller, the hub must say.
    #[cold]
    fn look() -> bool {
        let Some(hub) = Hub::current() else { return true };
        hub.current.get().is_none_or(|ctl| hub.is_unwinding(ctl))
    }
    std::thread::panicking() && look()
}

/// A marker that keeps a type on its thread.
type NotSend = std::marker::PhantomData<Rc<()>>;
