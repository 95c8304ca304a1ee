//! Waiting: the one way in which a greenlet stops until something wakes it.
//!
//! Floor 4. Uses: `control`, the reactor's timers. Used by: everything that blocks.
//!
//! # Contract
//!
//! ```text
//! let wait = Wait::begin(hub, WaitOn::Sleep)?;   // from here on a wake is remembered
//! somebody.tell(wait.wake());                    // a small Copy value; it may outlive the wait
//! wait.park(deadline, Mode::Fallible)?;          // Ok: woken. Err: timed out, or killed
//! ```
//!
//! Every wait draws a ticket that is never drawn again. A [`Wake`] carries it, so a wake that comes
//! too late (a waker kept by somebody else, an event of an earlier wait) finds another ticket or
//! none and does nothing: it can neither shorten a later wait nor touch a greenlet that has ended.
//!
//! # Invariants
//!
//! - `PARK-1` One call site of `suspend` in the crate: `leave`, for `Hub::switch_out` and `pose`.
//! - `PARK-2` An unpark that comes between `begin` and `park` is remembered: it clears the ticket,
//!   and `park` looks at the ticket first.
//! - `PARK-3` Nothing parks on the hub's own stack, in a `no_park` section, or outside `run`:
//!   `begin` refuses. (SOUND-6)
//! - `PARK-4` A kill or timeout unwinds only out of `interrupts`, hence only out of a call of this
//!   crate, and only where SOUND-7 allows. In a `no_park` section it is not noticed at all.

use std::{backtrace::Backtrace, fmt, io};

use super::{
    Hub,
    control::{Ctl, Kill, State},
    guest::{self, Enlisted, Listed},
    unwind,
};
use crate::time::Deadline;

/// What a greenlet waits for: shown in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitOn {
    /// It is not waiting.
    Nothing,
    /// A callback greenlet without work.
    Idle,
    /// `sleep`.
    Sleep,
    /// A descriptor to become readable.
    Readable(i32),
    /// A descriptor to become writable.
    Writable(i32),
    /// Nothing any more: its timer has fired.
    Elapsed,
    /// A wake of the word with this address, of which this is the lower half; or a lock of libc's.
    Word(u32),
    /// The end of the greenlet in this slot.
    Join(u32),
    /// So many greenlets to end, or one of them.
    Greenlets(u32),
    /// `wait_for_deferred`.
    Deferred,
    /// `wait_for_future`.
    Future,
    /// `select!`.
    Several,
    /// The children of a scope.
    Scope(u32),
    /// An answer of an OS thread. Whoever waits for one has said so by `Core::owe`.
    Offload,
    /// All others to be parked.
    Quiet,
    /// The Deferreds of a cooperator's tasks, or the end of their pauses.
    Tasks(u32),
    /// Permits of a semaphore.
    Permits,
    /// A mutex to be free.
    Mutex,
    /// Nobody to write what it wants to read, nor to have come before it.
    LockToRead,
    /// Nobody to hold what it wants to write, nor to have come before it.
    LockToWrite,
    /// The others at a barrier.
    Barrier,
    /// The works of a wait group to be done.
    Work,
    /// A watched value to change.
    Change,
    /// An event to be set.
    Event,
    /// A condition variable to be notified.
    Condition,
    /// A message in a channel.
    Message,
    /// Room in a channel.
    Room,
    /// A place in a pool.
    Place,
}

impl fmt::Display for WaitOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitOn::Nothing => write!(f, "nothing"),
            WaitOn::Idle => write!(f, "work"),
            WaitOn::Sleep => write!(f, "a timer (sleep)"),
            WaitOn::Readable(fd) => write!(f, "descriptor {fd} to become readable"),
            WaitOn::Writable(fd) => write!(f, "descriptor {fd} to become writable"),
            WaitOn::Word(address) => write!(
                f,
                "a lock, or another word, at ..{address:08x} (futex: it cannot fail, so no kill \
                 ends this wait)"
            ),
            WaitOn::Elapsed => write!(f, "nothing (its time is over)"),
            WaitOn::Join(slot) => write!(f, "the end of the greenlet in slot {slot}"),
            WaitOn::Greenlets(count) => write!(f, "{count} greenlet(s) to end"),
            WaitOn::Deferred => write!(f, "a Deferred to fire"),
            WaitOn::Future => write!(f, "a future to be ready"),
            WaitOn::Several => write!(f, "the first of several (select!)"),
            WaitOn::Scope(count) => write!(f, "{count} child(ren) of its scope"),
            WaitOn::Offload => write!(f, "an OS thread to answer"),
            WaitOn::Quiet => write!(f, "all others to be parked"),
            WaitOn::Permits => write!(f, "permits of a semaphore"),
            WaitOn::Mutex => write!(f, "a mutex to be free"),
            WaitOn::LockToRead => write!(f, "a lock, to read"),
            WaitOn::LockToWrite => write!(f, "a lock, to write"),
            WaitOn::Barrier => write!(f, "others at a barrier"),
            WaitOn::Change => write!(f, "a watched value to change"),
            WaitOn::Work => write!(f, "the works of a wait group to be done"),
            WaitOn::Event => write!(f, "an event to be set"),
            WaitOn::Condition => write!(f, "a condition variable to be notified"),
            WaitOn::Message => write!(f, "a message in a channel"),
            WaitOn::Room => write!(f, "room in a channel"),
            WaitOn::Place => write!(f, "a place in a pool"),
            WaitOn::Tasks(count) => write!(f, "{count} cooperative task(s), all of them paused"),
        }
    }
}

/// Whom to wake, and for what. It may be kept, copied and sent to other threads: a stale one does
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The wait with this ticket is over.
    Unpark {
        /// The greenlet's place in the hub's table.
        slot: u32,
        /// The wait's ticket.
        ticket: u64,
    },
    /// The deadline of the wait with this ticket, or of a timeout around it, has passed.
    Timer {
        /// As above.
        slot: u32,
        /// As above.
        ticket: u64,
    },
    /// Start the greenlet that was spawned for later.
    Start {
        /// As above.
        slot: u32,
        /// The greenlet's number.
        id: u64,
    },
    /// Run a delayed call.
    Call {
        /// Its place in the table of delayed calls.
        slot: u32,
        /// Its number.
        id: u64,
    },
    /// Make the call that waited for just this, even while the run ends.
    Granted {
        /// Its place in the table of delayed calls.
        slot: u32,
        /// Its number.
        id: u64,
    },
    /// Call the waker that is kept for a wait of a future.
    Waker {
        /// Where it is kept.
        slot: u32,
        /// The wait's number.
        number: u64,
    },
    /// Nobody: the reactor is to return from its poller.
    Nobody,
    /// Idle stacks may have kept their memory for long enough.
    Trim,
    /// Half of the time for an orderly shutdown is over.
    ShutdownHalfOver,
    /// All of it is.
    ShutdownOver,
}

const _: () = assert!(size_of::<Option<Wake>>() == 16, "two words, in every list of waiters");

/// Whether a call can say that it was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It returns an error where a kill cannot unwind.
    Fallible,
    /// It has no way to say so, and keeps waiting.
    Infallible,
    /// It never unwinds: a kill or timeout that would unwind ends the wait, and stays pending.
    Noticing,
    /// It never unwinds: a kill or timeout ends the wait with an error, also where an unwind is
    /// under way. What code of others calls that knows nothing of unwinds.
    Hooked,
    /// It never unwinds and never fails: it waits until it is woken.
    Uninterruptible,
}

/// Why a wait ended without being woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interrupt {
    /// Its own deadline passed.
    TimedOut,
    /// A kill that could not unwind.
    Killed,
}

impl From<Interrupt> for io::Error {
    fn from(interrupt: Interrupt) -> io::Error {
        match interrupt {
            Interrupt::TimedOut => io::Error::new(io::ErrorKind::TimedOut, super::Elapsed(())),
            Interrupt::Killed => io::Error::other(super::Killed::of_current()),
        }
    }
}

/// Why a call cannot wait here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CannotPark {
    /// No reactor runs on this thread.
    OutsideRun,
    /// On the hub's own stack: in a `Waker`, or in a `Drop` that the hub runs.
    HubStack,
    /// In a section where this crate forbids it.
    NoPark,
    /// On a virtual thread, which has no hub of its own.
    VirtualThread,
}

impl CannotPark {
    /// Why there is no hub here.
    #[cold]
    pub(crate) fn no_hub() -> CannotPark {
        match guest::guest() {
            Some(_) => CannotPark::VirtualThread,
            None => CannotPark::OutsideRun,
        }
    }
}

impl fmt::Display for CannotPark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CannotPark::OutsideRun => {
                "called outside a reactor: no greenloop reactor runs on this thread; call \
                 it inside greenloop::run"
            }
            CannotPark::HubStack => {
                "blocking call on the hub's own stack (in a Waker, or in a Drop that the hub \
                 runs): it would stop every greenlet of this thread; spawn a greenlet to do it"
            }
            CannotPark::VirtualThread => {
                "not on a virtual thread: the reactor, greenlets and Deferreds belong to the hub's \
                 own thread, and this is another one; reach them by a ReactorHandle, or by what is \
                 in greenloop::sync"
            }
            CannotPark::NoPark => {
                "blocking call where suspension is forbidden (in a panic hook, or a Waker that is \
                 called by a release); spawn a greenlet to do it"
            }
        })
    }
}

impl std::error::Error for CannotPark {}

impl From<CannotPark> for io::Error {
    fn from(why: CannotPark) -> io::Error {
        io::Error::other(why)
    }
}

/// A wait of the current greenlet that has begun: wakes count from now on.
#[derive(Debug)]
pub(crate) struct Wait<'h> {
    hub: &'h Hub,
    ctl: Ctl,
    ticket: u64,
    on: WaitOn,
}

impl<'h> Wait<'h> {
    /// Begins a wait of the current greenlet.
    ///
    /// # Errors
    ///
    /// Where nothing can be suspended (`PARK-3`).
    #[inline]
    pub(crate) fn begin(hub: &'h Hub, on: WaitOn) -> Result<Wait<'h>, CannotPark> {
        let ctl = hub.may_park()?;
        debug_assert_eq!(ctl.ticket.get(), 0, "two waits of one greenlet at once");
        let ticket = hub.next_ticket();
        ctl.ticket.set(ticket);
        Ok(Wait { hub, ctl, ticket, on })
    }

    /// What ends this wait.
    #[inline]
    pub(crate) fn wake(&self) -> Wake {
        Wake::Unpark { slot: self.ctl.slot, ticket: self.ticket }
    }

    /// The same for [`Hub::unpark`]: the slot and the ticket.
    #[inline]
    pub(crate) fn ticket(&self) -> (u32, u64) {
        (self.ctl.slot, self.ticket)
    }

    /// Has a guest leave a line should it be frozen while this wait lasts; see [`Enlisted`].
    #[inline(always)]
    pub(crate) fn enlist<'e>(&self, enlisted: &'e Enlisted<'_>) -> Option<Listed<'e>> {
        enlisted.enter(self.ctl)
    }

    /// Whether it was woken already.
    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.ctl.ticket.get() != self.ticket
    }

    /// Parks until woken, until `deadline`, or until interrupted.
    ///
    /// Units: `deadline` is absolute on the hub's clock; [`Deadline::NEVER`] waits for ever.
    ///
    /// # Cancellation
    ///
    /// A kill, and the end of a `timeout` around the call, unwind from here. A wake that was given
    /// already wins over both.
    #[inline(always)]
    pub(crate) fn park(&self, deadline: Deadline, mode: Mode) -> Result<(), Interrupt> {
        let (hub, ctl) = (self.hub, self.ctl);
        #[cfg(debug_assertions)]
        if !self.is_woken() {
            lint(ctl);
        }
        loop {
            if self.is_woken() {
                return Ok(());
            }
            ctl.interrupts(mode)?;
            let until = match ctl.frames_deadline() {
                // It has passed and cannot unwind now: it must not end every wait at once.
                passed if passed <= hub.reactor.now() => deadline,
                _ if mode == Mode::Uninterruptible => deadline,
                earliest => deadline.min(earliest),
            };
            let timer = (!until.is_never()).then(|| {
                hub.reactor.add_timer(until, Wake::Timer { slot: ctl.slot, ticket: self.ticket })
            });
            ctl.waits_on.set(self.on);
            ctl.since.set(hub.reactor.now());
            ctl.note_stack_pointer();
            hub.switch_out(ctl, State::Parked);
            if !self.is_woken() && ctl.is_peeked() {
                pose(ctl);
            }
            if let Some(key) = timer
                && ctl.waits_on.get() != WaitOn::Elapsed
            {
                hub.reactor.cancel_timer(key);
            }
            if !self.is_woken() && deadline <= hub.reactor.now() {
                ctl.interrupts(mode)?;
                return Err(Interrupt::TimedOut);
            }
        }
    }
}

/// Warns if the current greenlet, which `ctl` must be, should not be suspended where it is.
///
/// The hook for warnings is code of the user's, and may wake or kill the greenlet: so this comes
/// before the last look at both.
#[cfg(debug_assertions)]
fn lint(ctl: Ctl) {
    if !ctl.is_guest() {
        super::lint::walk();
    }
}

/// Leaves the greenlet whose stack this runs on, which `ctl` must be; returns when it is resumed.
#[inline(always)]
#[expect(unsafe_code, reason = "the one suspension point of the crate (PARK-1)")]
fn leave(ctl: Ctl) {
    // SAFETY: `switch_out` is called by the current greenlet (asserted there; every caller has it
    // from `may_park`), `pose` by the one that `Hub::peek` has just entered: so this runs on the
    // greenlet's own stack.
    unsafe { ctl.suspend() };
}

/// Takes the backtrace of a parked greenlet as often as it is resumed for just that, and leaves it
/// again: still parked, with its ticket, its timer and all else as it was.
#[cold]
#[inline(never)]
fn pose(ctl: Ctl) {
    while ctl.is_peeked() {
        let hub = Hub::current().expect("a greenlet runs on a hub");
        hub.posed.set(Some(Backtrace::force_capture()));
        leave(ctl);
    }
}

impl Drop for Wait<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_woken() {
            self.ctl.ticket.set(0);
        }
    }
}

impl Ctl {
    /// Notices a kill or an elapsed timeout of the current greenlet, which this must be: the heart
    /// of every cancellation point.
    ///
    /// Unwinds if there is one and SOUND-7 allows it. Otherwise a fallible call gets the error, an
    /// infallible one `Ok`, and the kill stays pending.
    ///
    /// Not a method of the hub: what a greenlet keeps across a switch lies on its stack, and is
    /// slow to fetch. This needs the block alone, unless there is something to notice.
    #[inline(always)]
    pub(super) fn interrupts(self, mode: Mode) -> Result<(), Interrupt> {
        #[cold]
        fn look(ctl: Ctl, mode: Mode) -> Result<(), Interrupt> {
            Hub::current().map_or(Ok(()), |hub| hub.interrupt(ctl, mode))
        }
        if self.has_notice() { look(self, mode) } else { Ok(()) }
    }
}

impl Hub {
    /// The current greenlet, if it may be suspended here.
    #[inline]
    pub(super) fn may_park(&self) -> Result<Ctl, CannotPark> {
        match self.current.get() {
            None => Err(CannotPark::HubStack),
            Some(_) if self.no_park.get() > 0 => Err(CannotPark::NoPark),
            Some(ctl) => Ok(ctl),
        }
    }

    /// This thread's hub, if its current greenlet may be suspended here.
    #[inline]
    pub(crate) fn to_park() -> Result<&'static Hub, CannotPark> {
        let hub = Hub::current().ok_or_else(CannotPark::no_hub)?;
        hub.may_park().map(|_| hub)
    }

    /// Whether the caller may wait: a greenlet, or a guest.
    pub(crate) fn may_wait() -> Result<(), CannotPark> {
        match guest::guest().filter(|_| Hub::current().is_none()) {
            Some(_) => Ok(()),
            None => Hub::to_park().map(drop),
        }
    }

    /// Leaves the current greenlet for the hub; returns when the hub resumes it.
    ///
    /// Inlined, as are the functions that call it, up to the user's: the processor predicts a
    /// return by the calls it has seen, and those of the frames that a switch skips are not there.
    /// Each frame between the switch and the user's code costs a misprediction a park.
    #[inline(always)]
    pub(super) fn switch_out(&self, ctl: Ctl, state: State) {
        debug_assert_eq!(self.current.get(), Some(ctl));
        ctl.state.set(state);
        if std::thread::panicking() || ctl.unwinding.get() || self.unwinders.get() > 0 {
            self.count_unwinder(ctl);
        }
        leave(ctl);
    }

    /// Counts a greenlet that is about to be suspended, if it is in the midst of an unwind.
    #[cold]
    fn count_unwinder(&self, ctl: Ctl) {
        // A guest's own unwind is none of the thread's.
        if !ctl.is_guest() && self.is_unwinding(ctl) {
            self.unwinders.set(self.unwinders.get() + 1);
            ctl.rare(|rare| rare.counted = self.unwinders_round.get());
        }
    }

    /// Undoes that, when the greenlet is about to go on.
    #[cold]
    pub(super) fn uncount_unwinder(&self, ctl: Ctl) {
        let counted = ctl.rare_if_any(|rare| std::mem::take(&mut rare.counted));
        if counted == Some(self.unwinders_round.get()) {
            self.unwinders.set(self.unwinders.get() - 1);
        }
    }

    /// Called by the loop between two greenlets, while some are thought to be parked in the midst
    /// of an unwind: if std says that nobody is unwinding, all that was not known is known again,
    /// and kills that were held back for want of it are not any more.
    #[cold]
    pub(super) fn look_again(&self) {
        if std::thread::panicking() {
            return;
        }
        self.unwinders.set(0);
        self.unwinders_round.set(self.unwinders_round.get() + 1);
        for ctl in self.all() {
            ctl.unwinding.set(false);
            if self.is_interrupted(ctl) {
                self.make_ready(ctl);
            }
        }
    }

    /// Goes to the back of the queue, behind a poll.
    #[inline(always)]
    pub(super) fn requeue(&self, ctl: Ctl) {
        #[cfg(debug_assertions)]
        lint(ctl);
        self.yielded.push(ctl);
        self.switch_out(ctl, State::Yielded);
    }

    #[cold]
    fn interrupt(&self, ctl: Ctl, mode: Mode) -> Result<(), Interrupt> {
        if !self.is_interrupted(ctl) {
            return Ok(());
        }
        // Whoever forbids parking calls code of others, under a lock or to wake somebody: a kill
        // would look like that code's panic, and to raise it again lets the others run first.
        if self.no_park.get() > 0 {
            return Ok(());
        }
        self.reactor.fresh_now();
        let unwinding = self.is_unwinding(ctl);
        let free = !unwinding && !ctl.is_shielded() && !cfg!(panic = "abort");
        match mode {
            Mode::Uninterruptible => return Ok(()),
            // What is pending is in force here, and not held back by a shield or an unwind.
            Mode::Noticing => {
                let killed = ctl.kill.get() != Kill::None && !ctl.is_shielded();
                // Those outside of the innermost shield are not in it.
                let elapsed = ctl.frames_deadline() <= self.reactor.now();
                let unwinds = !unwinding && !cfg!(panic = "abort") && (killed || elapsed);
                return if unwinds { Err(Interrupt::Killed) } else { Ok(()) };
            }
            Mode::Hooked => {
                let killed = ctl.kill.get() != Kill::None && !ctl.is_shielded();
                let elapsed = ctl.frames_deadline() <= self.reactor.now();
                return if killed || elapsed { Err(Interrupt::Killed) } else { Ok(()) };
            }
            Mode::Fallible | Mode::Infallible => {}
        }
        match ctl.kill.get() {
            Kill::None => {}
            Kill::Raised if unwinding => return Ok(()),
            Kill::Pending if free => {
                ctl.kill.set(Kill::Raised);
                unwind::raise(ctl, unwind::Payload::Kill);
            }
            // It was swallowed: raise it again, but let the others run first, so that a loop that
            // swallows it for ever does not stop them.
            Kill::Raised if free => {
                self.requeue(ctl);
                unwind::raise(ctl, unwind::Payload::Kill);
            }
            Kill::Pending | Kill::Raised if mode == Mode::Fallible => {
                return Err(Interrupt::Killed);
            }
            Kill::Pending | Kill::Raised => {}
        }
        if unwinding || cfg!(panic = "abort") {
            return Ok(());
        }
        let Some((id, again)) = unwind::elapsed_frame(ctl, self.reactor.now()) else {
            return Ok(());
        };
        if again {
            self.requeue(ctl);
        }
        unwind::raise(ctl, unwind::Payload::Timeout(id));
    }

    /// As `interrupts`, for the current greenlet, where the wait that follows would report it.
    #[inline]
    pub(crate) fn checkpoint(&self, mode: Mode) {
        if let Some(ctl) = self.current.get() {
            let _ = ctl.interrupts(mode);
        }
    }

    /// Whether a kill or an elapsed timeout waits to be noticed.
    #[inline]
    pub(super) fn is_interrupted(&self, ctl: Ctl) -> bool {
        if ctl.kill.get() != Kill::None {
            return true;
        }
        let deadline = ctl.frames_deadline();
        !deadline.is_never() && deadline <= self.reactor.clock_now()
    }

    /// Whether the current greenlet is unwinding.
    ///
    /// std counts panics per thread, and greenlets share theirs. When no other greenlet is parked
    /// in the midst of an unwind, the thread's answer is exactly this greenlet's. Otherwise we go
    /// by what was last known: our own raises and the panic hook keep it. (What is missed then is a
    /// `resume_unwind` of the user's own during which a `Drop` parks and is killed: Rust aborts.)
    #[inline]
    pub(super) fn is_unwinding(&self, ctl: Ctl) -> bool {
        if ctl.is_guest() {
            return ctl.is_guest_unwinding();
        }
        if self.unwinders.get() == 0 {
            ctl.unwinding.set(std::thread::panicking());
        }
        ctl.unwinding.get()
    }

    /// Ends the wait that `wake` names, if it is still under way. Appends to a queue; runs nothing.
    #[inline]
    pub(crate) fn wake(&self, wake: Wake) {
        match wake {
            Wake::Unpark { slot, ticket } => self.unpark((slot, ticket)),
            _ => self.wake_otherwise(wake),
        }
    }

    /// Ends the wait of the greenlet in this slot with this ticket, if it is still under way.
    #[inline]
    pub(crate) fn unpark(&self, (slot, ticket): (u32, u64)) {
        let Some(ctl) = self.at(slot).filter(|c| c.ticket.get() == ticket) else { return };
        ctl.ticket.set(0);
        self.make_ready(ctl);
    }

    fn wake_otherwise(&self, wake: Wake) {
        match wake {
            Wake::Unpark { .. } | Wake::Nobody => {}
            Wake::Timer { slot, ticket } => {
                let Some(ctl) = self.at(slot).filter(|c| c.ticket.get() == ticket) else { return };
                self.make_ready_because(ctl, WaitOn::Elapsed);
            }
            Wake::Start { slot, id } => {
                let Some(ctl) = self.at(slot).filter(|c| c.id() == id) else { return };
                self.start_delayed(ctl);
            }
            Wake::Call { slot, id } => {
                if let Some(call) = self.calls.fire_delayed(slot, id) {
                    self.call_if_running(call);
                }
            }
            Wake::Granted { slot, id } => {
                if let Some(call) = self.calls.fire_delayed(slot, id) {
                    self.call_soon(call);
                }
            }
            Wake::Waker { slot, number } => self.kept.end(slot, number),
            Wake::Trim => self.trim(),
            Wake::ShutdownHalfOver => {
                self.fate.shutdown_timers_count.set(1);
                self.insist();
            }
            Wake::ShutdownOver => self.give_up(),
        }
    }

    /// Puts a parked greenlet into the run queue. One that is not parked is left alone.
    #[inline]
    pub(super) fn make_ready(&self, ctl: Ctl) {
        self.make_ready_because(ctl, WaitOn::Nothing);
    }

    #[inline]
    fn make_ready_because(&self, ctl: Ctl, ended: WaitOn) {
        if ctl.state.get() == State::Parked {
            ctl.state.set(State::Ready);
            ctl.waits_on.set(ended);
            self.ready.push(ctl);
        }
    }
}
