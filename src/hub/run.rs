//! Running: the loop of a hub, from the first greenlet to the end of the last.
//!
//! Floor 4. Uses: all of `hub`. Used by: users.
//!
//! # States of a run
//!
//! ```text
//! running ──main ends──▶ ending ──every greenlet has ended──▶ over
//!    │                     └──shutdown deadline passes──▶ abort, with a list of who is left
//!    ├──stop()──▶ main is killed (Stopped) ─▶ ending
//!    └──nothing can wake main──▶ main is killed (WouldBlockForever) ─▶ ending
//! ```
//!
//! # Invariants
//!
//! - `RUN-1` `run` returns or unwinds only when no greenlet is alive (SOUND-3), and with them all
//!   that they borrowed from outside.
//! - `RUN-2` The loop itself never unwinds: user code that runs on the hub's stack is caught, and a
//!   panic of our own aborts.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    error::Error,
    fmt, io,
    panic::Location,
    rc::Rc,
    time::Duration,
};

use super::{
    BATCH, CURRENT, Hub, Killed, PACE_AFTER, POLL_AFTER_NS, POLL_EVERY, SHORT_QUEUE, alarm,
    control::{Ctl, Kill, Role, State},
    direct::Director,
    fork,
    join::JoinError,
    park::Wake,
    pulse::Listed,
    queue::Lookahead,
    report::{Backtraces, Report},
    spawn::{AbortOnUnwind, let_go},
    unwind, watchdog,
};
use crate::{
    coro::{AltStack, catch_overflows},
    time::{Clock, Passing, SystemClock},
};

/// How long greenlets may hold up the end of a run, if nothing else was set.
const SHUTDOWN_LIMIT_DEFAULT: Duration = Duration::from_secs(10);

thread_local! {
    /// The first numbers that no run of this thread has drawn yet: of greenlets (runs share them)
    /// and of tickets. Handles and wakers that outlive their run find nobody.
    pub(super) static UNDRAWN: Cell<(u64, u64)> = const { Cell::new((1, 1)) };
}

/// Why a run has no value.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// Somebody called `stop`.
    Stopped,
    /// The main greenlet was killed.
    Killed(Killed),
    /// The main greenlet waited, and nothing could ever have woken it. The report lists what was
    /// parked, on what, since when.
    WouldBlockForever(Report),
    /// No reactor could be made: no descriptor or no memory was left.
    Unavailable(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunError::Stopped => f.write_str("the reactor was stopped before main ended"),
            RunError::Killed(killed) => match killed.reason() {
                Some(reason) => write!(f, "the main greenlet was killed: {reason}"),
                None => f.write_str("the main greenlet was killed"),
            },
            RunError::WouldBlockForever(report) => write!(
                f,
                "the main greenlet would wait for ever: nothing that is left can wake it. \
                 Parked:\n{report}"
            ),
            RunError::Unavailable(error) => write!(f, "cannot make a reactor: {error}"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            RunError::Unavailable(error) => Some(error),
            _ => None,
        }
    }
}

/// How a run is to end, once that is known.
#[derive(Default)]
pub(super) struct Fate {
    run_id: Cell<u64>,
    main: Cell<Option<Ctl>>,
    main_ended: Cell<bool>,
    shutdown_limit: Cell<Option<Duration>>,
    /// How many timers are set for the end of an orderly shutdown.
    pub(super) shutdown_timers_count: Cell<usize>,
    /// Whether the time for an orderly shutdown is over.
    is_overdue: Cell<bool>,
    /// Why main was killed, if it was not by the user.
    verdict: RefCell<Option<RunError>>,
}

impl Fate {
    pub(super) fn run_id(&self) -> u64 {
        self.run_id.get()
    }

    pub(super) fn set_shutdown_limit(&self, limit: Duration) {
        self.shutdown_limit.set(Some(limit));
    }
}

/// Runs `f` as the main greenlet of a new reactor on this thread, and returns its value.
///
/// Shape: `f` may borrow. When it has ended, every other greenlet is killed; `run` returns when all
/// have ended. It may be called again afterwards, and on several threads at once: each has a
/// reactor of its own.
///
/// The first call in a process installs a handler for SIGSEGV and SIGBUS that names a greenlet
/// whose stack overflows (and hands everything else to the handler that was there), and a panic
/// hook that notes where greenlets panic (and calls the one that was there). No other signal is
/// touched, but for a moment when a debug build's watchdog finds a greenlet that keeps the thread
/// ([`Reactor::set_watchdog`](crate::Reactor::set_watchdog)). In the child of a fork the reactor is
/// gone; see [`process`](crate::process).
///
/// # Panics
///
/// When `f` panics, with its payload. With the text of the [`RunError`] where [`try_run`] returns
/// one. When a reactor runs on this thread already.
///
/// A greenlet that does not end within the shutdown deadline (10 seconds unless
/// [`Reactor::set_shutdown_deadline`](crate::Reactor::set_shutdown_deadline) says otherwise),
/// because it swallows its kill or waits for ever in a destructor, makes the process abort, with a
/// list of who is left: it can neither be unwound nor be forgotten. So do destructors of what was
/// never called, if they ask for further calls each time; and so does a main greenlet that
/// nothing can wake while nothing can unwind it: in a call that cannot fail inside
/// [`shield`](crate::shield), or in a destructor during an unwind.
///
/// # Safety limits
///
/// Sound, with one known exception that every runtime with stackful coroutines has: greenlets share
/// their thread's thread-locals; see [`spawn`](crate::spawn#safety-limits).
///
/// # Examples
///
/// ```
/// let answer = greenloop::run(|| greenloop::spawn(|| 6 * 7).join().unwrap());
/// assert_eq!(answer, 42);
/// ```
///
/// # Source
///
/// Twisted `reactor.run` and `task.react`; gevent, where it is implicit.
#[track_caller]
pub fn run<T>(f: impl FnOnce() -> T) -> T {
    match try_run(f) {
        Ok(value) => value,
        Err(error) => panic!("greenloop::run: {error}"),
    }
}

/// As [`run`], but returns an error where it would panic for want of a value.
///
/// # Errors
///
/// [`RunError`], each variant with its cause.
///
/// # Panics
///
/// When `f` panics, with its payload. When a reactor runs on this thread already.
///
/// # Examples
///
/// ```
/// use greenloop::{Deferred, RunError};
/// let ended = greenloop::try_run(|| {
///     let (_resolver, deferred) = Deferred::<()>::new();
///     greenloop::wait_for_deferred(deferred) // nobody will ever fire it
/// });
/// let Err(RunError::WouldBlockForever(report)) = ended else { panic!() };
/// assert_eq!(report.parked()[0].waits_on, "a Deferred to fire");
/// ```
#[track_caller]
pub fn try_run<T>(f: impl FnOnce() -> T) -> Result<T, RunError> {
    try_run_on(Box::new(SystemClock::new()), None, f)
}

/// As [`try_run`], on a clock of the caller's, and as the director says if there is one.
#[track_caller]
pub(crate) fn try_run_on<T>(
    clock: Box<dyn Clock>,
    director: Option<Rc<dyn Director>>,
    f: impl FnOnce() -> T,
) -> Result<T, RunError> {
    let mut work = Some(f);
    let mut value = None;
    run_main(clock, director, &mut || value = work.take().map(|f| f()))?;
    Ok(value.expect("main has ended"))
}

/// All of a run that does not depend on what main returns: compiled once.
#[track_caller]
fn run_main(
    clock: Box<dyn Clock>,
    director: Option<Rc<dyn Director>>,
    main: &mut dyn FnMut(),
) -> Result<(), RunError> {
    let birth = Location::caller();
    assert!(
        Hub::current().is_none(),
        "greenloop::run: a reactor runs on this thread already; spawn a greenlet instead, or call \
         run on a thread of its own"
    );
    catch_overflows();
    unwind::install_hook();
    fork::watch();
    let _alt_stack = AltStack::ensure();
    let hub = Hub::new(clock, director).map_err(RunError::Unavailable)?;
    let _listed = Listed::new(&hub.pulse, &hub.beats);
    let limit = watchdog::default_limit();
    hub.pulse.set_limit(limit);
    // The child of a fork has the handler of SIGQUIT, and no thread that serves it.
    if limit.is_some() || alarm::has_sigquit() {
        let _ = watchdog::wake(); // Without a thread nobody watches: no reason not to run.
    }
    let mut outcome: Option<Result<(), Box<dyn Any + Send>>> = None;
    hub.drive(birth, || outcome = Some(unwind::catch(main).map_err(say_what_was_not_said)))
        .map_err(RunError::Unavailable)?;
    match outcome.expect("main has ended") {
        Ok(()) => Ok(()),
        Err(payload) if unwind::is_kill(&*payload) => {
            Err(hub.fate.verdict.take().unwrap_or(RunError::Killed(Killed::plain())))
        }
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// A panic that ends main was printed when it happened, unless it came from another greenlet, by
/// way of a scope, or was raised without the panic hook. Of a kill, the reason is kept.
fn say_what_was_not_said(payload: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
    if unwind::is_kill(&*payload) {
        let hub = Hub::current().expect("main runs on a hub");
        let mut verdict = hub.fate.verdict.borrow_mut();
        verdict.get_or_insert_with(|| RunError::Killed(Killed::of_current()));
    } else {
        let message = unwind::message_of(&*payload);
        let note = unwind::here().and_then(unwind::take_note).filter(|note| note.is_of(&message));
        if !note.as_ref().is_some_and(|note| note.printed) {
            let error = JoinError::from_payload(payload, note);
            crate::report::unhandled("the main greenlet", &error, &());
            return error.try_into_panic().expect("it is not a kill");
        }
    }
    payload
}

impl Hub {
    /// Enters `main` as the main greenlet and runs until no greenlet is left.
    #[expect(unsafe_code, reason = "main borrows from the caller of `run`")]
    fn drive(&self, birth: &'static Location<'static>, main: impl FnOnce()) -> io::Result<()> {
        let (id, ticket) = UNDRAWN.get();
        self.fate.run_id.set(id);
        self.next_id.set(id);
        self.next_ticket.set(ticket);
        CURRENT.set(self);
        // From here on an unwind would leave greenlets behind that borrow from our caller (RUN-2).
        let abort = AbortOnUnwind;
        // SAFETY: RUN-1: this function returns only after the greenlet has ended, and what `main`
        // borrows outlives our caller's frame. `unwind::catch` in it lets nothing escape.
        let spawned = unsafe {
            self.spawn_bare(Role::Main, "main", birth, |ctl| {
                if ctl.kill.get() != Kill::None {
                    ctl.kill.set(Kill::Pending);
                }
                main();
                let_go(ctl);
                let hub = Hub::current().expect("a greenlet runs on a hub");
                hub.fate.main_ended.set(true);
            })
        };
        if let Ok(ctl) = spawned {
            self.fate.main.set(Some(ctl));
            match self.director {
                None => self.run_until_over(Hub::resume_batch),
                Some(_) => self.run_until_over(Hub::resume_directed),
            }
        }
        CURRENT.set(std::ptr::null());
        UNDRAWN.set((self.next_id.get(), self.next_ticket.get()));
        std::mem::forget(abort);
        spawned.map(drop)
    }

    /// `resume` is what resumes a batch of those that are ready.
    fn run_until_over(&self, resume: impl Fn(&Hub)) {
        while !self.fate.main_ended.get() {
            self.pass(&resume);
        }
        self.fate.main.set(None);
        let limit = self.fate.shutdown_limit.get().unwrap_or(SHUTDOWN_LIMIT_DEFAULT);
        let set = |limit, wake| {
            let deadline = self.deadline_in(limit);
            (!deadline.is_never()).then(|| self.reactor.add_timer(deadline, wake))
        };
        let mut timers = [set(limit / 2, Wake::ShutdownHalfOver), set(limit, Wake::ShutdownOver)];
        self.fate.shutdown_timers_count.set(timers.iter().flatten().count());
        loop {
            let was_overdue = self.fate.is_overdue.get();
            for ctl in self.all() {
                self.kill(ctl);
            }
            while self.live() > 0 {
                self.pass(&resume);
            }
            self.reactor.close_inbox(self);
            // Sees the shutdown deadline, however often destructors ask for more.
            if self.turn(false).is_err() {
                break;
            }
            // Dropping what was never called is user code too, and may spawn.
            let found = self.calls.clear() | self.kept.clear();
            if !found && self.live() == 0 {
                break;
            }
            if was_overdue {
                eprintln!(
                    "greenloop: the shutdown deadline is over, and what is dropped at the end of \
                     the run asks for more each time; aborting"
                );
                std::process::abort();
            }
            if self.fate.is_overdue.get() {
                // What was dropped now, and has asked for more, is given as much time once more.
                timers[1] = set(limit, Wake::ShutdownOver);
                self.fate.shutdown_timers_count.set(timers[1].iter().count());
            }
        }
        for timer in timers.into_iter().flatten() {
            self.reactor.cancel_timer(timer);
        }
    }

    /// Once around the loop: see the numbered steps in `hub/mod.rs`.
    fn pass(&self, resume: &impl Fn(&Hub)) {
        loop {
            self.kept.call_due();
            resume(self);
            if self.unwinders.get() > 0 {
                self.look_again();
            }
            self.dispatch_calls();
            if self.fate.main_ended.get() && (self.fate.main.get().is_some() || self.live() == 0) {
                return; // The caller begins the shutdown, or ends it.
            }
            let only_yielded = self.ready.is_empty() && !self.yielded.is_empty();
            if !only_yielded || self.is_poll_due() {
                break;
            }
            self.ready.append(&self.yielded);
        }
        let busy = !self.ready.is_empty() || !self.yielded.is_empty() || self.kept.has_due();
        if !busy && self.wake_the_quiet() {
            return;
        }
        if !busy && !self.can_be_woken() && self.condemn_main() {
            return;
        }
        if !busy {
            self.trim_later();
        }
        let resumes = self.beats.count();
        self.polled_at.set(resumes);
        self.look_at.set(resumes + PACE_AFTER);
        if let Err(error) = self.turn(!busy) {
            // epoll_wait fails only for a bad descriptor or address: somebody closed what is ours.
            panic!(
                "greenloop: the reactor cannot poll: {error}; has other code closed a descriptor \
                 that is not its own?"
            );
        }
        self.ready.append(&self.yielded);
    }

    /// Resumes what is ready, at most `BATCH` greenlets.
    #[inline(always)]
    fn resume_batch(&self) {
        let mut ahead = Lookahead::default();
        for place in 0..BATCH {
            let Some(ctl) = self.ready.pop() else { break };
            if place >= SHORT_QUEUE {
                ahead.follow(ctl, |distance| self.pools.borrow()[0].prefetch(distance));
            }
            self.beats.beat();
            self.resume(ctl);
        }
    }

    /// Whether greenlets have only yielded for long enough that IO must be looked at again: after
    /// `POLL_EVERY` resumes, or `POLL_AFTER`, if those were slow.
    ///
    /// The clock is read after `PACE_AFTER` resumes; their pace tells when it need be read next.
    #[inline(always)]
    fn is_poll_due(&self) -> bool {
        self.beats.count() >= self.look_at.get() && self.is_poll_due_by_clock()
    }

    #[cold]
    fn is_poll_due_by_clock(&self) -> bool {
        let unpolled = self.beats.count() - self.polled_at.get();
        let polled = self.reactor.polled();
        let elapsed = self.reactor.clock_now().duration_since(polled).as_nanos().max(1) as u64;
        if unpolled >= POLL_EVERY || elapsed >= POLL_AFTER_NS {
            return true;
        }
        let pace = unpolled * POLL_AFTER_NS / elapsed;
        self.look_at.set(self.polled_at.get() + pace.clamp(unpolled + 1, POLL_EVERY));
        false
    }

    /// One turn of the reactor.
    pub(super) fn turn(&self, may_block: bool) -> io::Result<()> {
        self.is_turning.set(true);
        let turned = self.reactor.turn(may_block, self);
        self.is_turning.set(false);
        turned
    }

    /// Whether anything could still make a greenlet ready.
    fn can_be_woken(&self) -> bool {
        let has_timers = self.reactor.timers_count() > usize::from(self.trimming.get());
        (has_timers && self.reactor.passing() != Passing::ByHand)
            || self.reactor.sources().waiting() > 0
            || self.kept.has_due()
            || self.outside_waits.get() > 0
            || self.inbox().has_handles()
    }

    /// Main waits and nothing can wake it: unwinds it with a report. Returns whether it could.
    fn condemn_main(&self) -> bool {
        let Some(main) = self.fate.main.get() else { return false };
        // A message may have come since the last turn.
        if self.turn(false).is_err() || !self.ready.is_empty() {
            return true;
        }
        self.dispatch_calls();
        if !self.ready.is_empty() || self.can_be_woken() {
            return true;
        }
        // It was told, and waits in a destructor, say: by hand, nobody else could move the clock.
        let by_hand = self.reactor.passing() == Passing::ByHand;
        if by_hand && main.kill.get() != Kill::None && self.reactor.jump() {
            return true;
        }
        if main.kill.get() != Kill::None || cfg!(panic = "abort") {
            eprintln!(
                "greenloop: the main greenlet waits for ever and cannot be unwound (it is in a \
                 shield, or unwinding already); aborting. Parked:\n{:#}",
                self.report(Backtraces::AsAsked)
            );
            std::process::abort();
        }
        let report = self.report(Backtraces::AsAsked);
        *self.fate.verdict.borrow_mut() = Some(RunError::WouldBlockForever(report));
        self.kill(main);
        true
    }

    /// Ends the run; see [`Reactor::stop`](crate::Reactor::stop).
    pub(super) fn stop(&self) {
        let Some(main) = self.fate.main.get() else { return };
        if main.kill.get() == Kill::None {
            *self.fate.verdict.borrow_mut() = Some(RunError::Stopped);
            self.kill(main);
        }
    }

    /// Whether main has ended: what is spawned now is born killed.
    pub(super) fn is_ending(&self) -> bool {
        self.fate.main_ended.get()
    }

    /// Half of the time for an orderly shutdown is over: whoever may be unwinding, so that its kill
    /// was held back, is taken not to be. If it is, Rust aborts, as we would.
    pub(super) fn insist(&self) {
        for ctl in self.all() {
            if ctl.kill.get() == Kill::Pending && ctl.state.get() == State::Parked {
                ctl.unwinding.set(false);
                self.make_ready(ctl);
            }
        }
    }

    /// The time for an orderly shutdown is over: guests are left as they are for ever, if they are
    /// all that is left and borrow nothing. Anybody else can be neither unwound nor forgotten.
    pub(super) fn give_up(&self) {
        self.fate.shutdown_timers_count.set(0);
        self.fate.is_overdue.set(true);
        let left = self.all();
        if left.is_empty() {
            return; // They have just ended. What is dropped now is looked at in `run_until_over`.
        }
        if left.iter().any(|ctl| !ctl.is_guest() || ctl.borrows()) {
            eprintln!(
                "greenloop: these greenlets did not end when they were killed, and the shutdown \
                 deadline is over; aborting, since they can be neither unwound nor \
                 forgotten:\n{:#}",
                self.report(Backtraces::AsAsked)
            );
            std::process::abort();
        }
        crate::report::say(&format!(
            "greenloop: these virtual threads did not end when they were killed (what they wait in \
             cannot fail), and the shutdown deadline is over; they are left as they are, with \
             their stacks and thread-locals:\n{:#}",
            self.report(Backtraces::AsAsked)
        ));
        while self.ready.pop().or_else(|| self.yielded.pop()).is_some() {}
        left.into_iter().for_each(|ctl| self.freeze(ctl));
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        debug_assert_eq!(self.live(), 0, "a hub was dropped before its greenlets ended");
    }
}
