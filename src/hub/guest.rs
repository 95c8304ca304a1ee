//! Guests: greenlets whose code runs on thread-locals of its own.
//!
//! Floor 4. Uses: `coro::base`, `park`. Used by: `thread`, whose virtual threads they are; `net`,
//! `sync` and `interpose`, where a guest waits.
//!
//! # Contract
//!
//! A guest's own code runs on a thread-local base that is not the hub's: there `Hub::current` is
//! `None`, as on any other thread, and [`guest`] says who runs. To wait, it *enters* the hub, as a
//! program enters the kernel: on the same stack, with the hub's base. There it is nothing but the
//! current greenlet, and all of this floor works as for any other. So no switch between greenlets
//! knows of bases, and a guest is never suspended on its own.
//!
//! ```text
//! its own code ──enter──▶ the hub's code, for it ──park──▶ others run
//!  (its base)  ◀─return──    (the hub's base)    ◀─resume──
//! ```
//!
//! # Invariants
//!
//! - `GUEST-1` `SEAT` is non-null exactly while a guest's code runs on the base that it is read on,
//!   but in the child of a fork, where no code is a guest's (`FORK-1`); it then points to a seat in
//!   a frame of that guest's stack, below all others that can read it.
//! - `GUEST-2` The hub of a seat outlives it: the guest is one of its greenlets (`HUB-2`), or is
//!   frozen, and never runs again.
//! - `GUEST-3` Nothing unwinds from one base to another: what is raised on one side is caught
//!   there, and raised again on the other.
//! - `GUEST-4` A `Guest` stays on its guest: it is `!Send`, and its code never migrates.
//! - `GUEST-5` Who is frozen leaves nobody waiting for it: from when it is spawned until its end it
//!   has a `Standing`, in which are those who await it, and the lines that it stands in. A place in
//!   a line lies in a frame that outlives its entry: `Listed` takes it out on every way out of it.

#![expect(unsafe_code, reason = "the base is changed, and seats are pointed to")]
//! # Safety
//!
//! Seats are read under `GUEST-1` and `GUEST-2`; bases are those of the hub's own thread, which
//! this code has just left, and what the caller of `host` vouches for.

use std::{
    any::Any,
    cell::Cell,
    ffi::c_void,
    marker::PhantomData,
    mem::ManuallyDrop,
    ops::RangeInclusive,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind},
    ptr,
    rc::Rc,
    sync::{
        Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    Hub, NotSend,
    control::{Birth, Body, Ctl, Kill, Role},
    io::Direction,
    park::{Interrupt, Mode, Wait, WaitOn, Wake},
    queue::RunQueue,
    spawn::{self, AbortOnUnwind, let_go},
};
use crate::{
    coro::{FloatControl, base},
    time::Deadline,
};

/// The numbers that the C library may think guests' thread ids are: no kernel's are so large.
pub(crate) const GUEST_TIDS: RangeInclusive<i32> = 1 << 22..=1 << 29;

/// Calls that may fail one after the other because of a kill before a guest waits for good.
const REFUSALS_MAX: u32 = 100;

/// How many guests are alive in this process.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The guest that runs on this base (`GUEST-1`). No destructor: reading it is one instruction.
    static SEAT: Cell<*const Seat> = const { Cell::new(ptr::null()) };
    /// In the child of a fork, where the code goes on that was a guest's: the base of its thread.
    static HOME: Cell<usize> = const { Cell::new(0) };
}

/// What a guest's code needs to enter its hub.
pub(super) struct Seat {
    hub: *const Hub,
    ctl: Ctl,
    /// The guest's own base, and that of the hub's thread.
    base: usize,
    home: usize,
    tid: i32,
    home_control: FloatControl,
    /// Hooked calls in a row that a kill has made fail.
    refusals: Cell<u32>,
    /// What it has read last that had nothing more, and the turn after which it did.
    drained: Cell<(RawFd, u64)>,
}

/// What a guest has from when it is spawned until its end: whatever it is doing when it is frozen,
/// those whom it concerns can be told (`GUEST-5`).
pub(super) struct Standing {
    /// While its code runs, its seat.
    seat: Cell<*const Seat>,
    /// Who waits for its end.
    awaited: Weak<dyn Awaited>,
    /// The lines in which it stands, the last first.
    lines: Cell<*const Enlisted<'static>>,
}

/// Who waits for the end of a guest.
pub(crate) trait Awaited {
    /// It is frozen: it will never end. Called on the hub's stack.
    fn frozen(&self);
}

/// A place in a line, in the frame of who waits there. A guest that is frozen must leave it, and
/// pass on what it was handed: the frame, which would do it, never ends.
pub(crate) struct Enlisted<'f> {
    outer: Cell<*const Enlisted<'static>>,
    /// Leaves the line, for ever. Called on the hub's stack; calls nothing of the user's.
    leave: &'f (dyn Fn() + 'f),
}

/// The guest that runs here.
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    seat: &'static Seat,
    _stays: NotSend,
}

/// How a wait of a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was woken.
    Woken,
    /// Its own deadline has passed.
    TimedOut,
    /// A `timeout` around it has.
    Elapsed,
    /// It was killed.
    Killed,
    /// It could not begin.
    Refused(rustix::io::Errno),
}

/// The guest that runs on this base; `None` in a hub's own code, also in that which runs for a
/// guest, and on other threads.
#[inline]
pub(crate) fn guest() -> Option<Guest> {
    let seat = SEAT.get();
    // SAFETY: GUEST-1: if it is not null it is in a frame below ours, hence lives as long as we can
    // use it; GUEST-4 keeps the reference here.
    let seat = unsafe { seat.as_ref() }?;
    Some(Guest { seat, _stays: NotSend::default() })
}

/// How many guests are alive in this process, at most.
#[inline]
pub(crate) fn guests_alive() -> usize {
    ALIVE.load(Ordering::Relaxed)
}

impl Guest {
    /// Its hub, for what needs no thread-local: waking, the inbox, the reactor's state.
    #[inline]
    pub(crate) fn hub(self) -> &'static Hub {
        // SAFETY: GUEST-2.
        unsafe { &*self.seat.hub }
    }

    pub(super) fn ctl(self) -> Ctl {
        self.seat.ctl
    }

    /// The thread id that its control block has.
    #[inline]
    pub(crate) fn tid(self) -> i32 {
        self.seat.tid
    }

    /// Runs `f` in the hub, where the guest is the current greenlet. What `f` raises goes on here.
    pub(crate) fn enter<R>(self, f: impl FnOnce(&'static Hub) -> R) -> R {
        struct Call<F, R> {
            f: Option<F>,
            hub: &'static Hub,
            result: Option<Result<R, Box<dyn Any + Send>>>,
        }
        extern "C" fn run<F: FnOnce(&'static Hub) -> R, R>(call: *mut c_void) {
            // SAFETY: `enter` passes its own `Call` of just these types, and waits.
            let call = unsafe { &mut *call.cast::<Call<F, R>>() };
            if let Some(f) = call.f.take() {
                // INVARIANT: GUEST-3.
                call.result = Some(catch_unwind(AssertUnwindSafe(|| f(call.hub))));
            }
        }
        fn entry<F: FnOnce(&'static Hub) -> R, R>(_: &Call<F, R>) -> extern "C" fn(*mut c_void) {
            run::<F, R>
        }
        let Seat { ctl, home, home_control, .. } = *self.seat;
        ctl.set_guest_unwinding(std::thread::panicking());
        let control = FloatControl::current();
        home_control.replace(control);
        let mut call = Call { f: Some(f), hub: self.hub(), result: None };
        let run = entry(&call);
        // SAFETY: `home` is the base of this OS thread, from which the guest was entered; `run`
        // takes what it is given, and catches what it calls (GUEST-3).
        unsafe { base::call_on(home, run, (&raw mut call).cast()) };
        control.replace(home_control);
        match call.result {
            Some(Ok(value)) => value,
            Some(Err(payload)) => {
                ctl.unwinding.set(false);
                resume_unwind(payload)
            }
            None => unreachable!("it was called"),
        }
    }

    /// Parks until woken. `register` tells somebody the wake. Never unwinds: a kill or a `timeout`
    /// around it ends the wait, and every later one.
    pub(crate) fn wait(
        self,
        on: WaitOn,
        deadline: Deadline,
        register: impl FnOnce(&Hub, Wake),
    ) -> Ended {
        self.enter(|hub| {
            let wait = match Wait::begin(hub, on) {
                Ok(wait) => wait,
                Err(_) => return Ended::Refused(rustix::io::Errno::DEADLK),
            };
            register(hub, wait.wake());
            let _outside = hub.count_outside();
            self.park(&wait, deadline)
        })
    }

    /// As [`wait`](Self::wait), but nothing ends it before it is woken or `deadline` has passed:
    /// for waits that have no way to fail. Returns whether it was woken.
    pub(crate) fn wait_out(
        self,
        on: WaitOn,
        deadline: Deadline,
        register: impl FnOnce(&Hub, Wake),
    ) -> bool {
        self.enter(|hub| {
            let Ok(wait) = Wait::begin(hub, on) else { return false };
            register(hub, wait.wake());
            let _outside = hub.count_outside();
            wait.park(deadline, Mode::Uninterruptible).is_ok()
        })
    }

    /// Parks a wait that has begun, in the hub.
    pub(super) fn park(self, wait: &Wait<'_>, deadline: Deadline) -> Ended {
        let Guest { seat, .. } = self;
        let hub = self.hub();
        match wait.park(deadline, Mode::Hooked) {
            Ok(()) => {
                seat.refusals.set(0);
                return Ended::Woken;
            }
            Err(Interrupt::TimedOut) => return Ended::TimedOut,
            Err(Interrupt::Killed) => {}
        }
        if seat.ctl.kill.get() == Kill::None || seat.ctl.is_shielded() {
            return Ended::Elapsed;
        }
        // Code that goes on all the same must not stop the others; nor go on for ever.
        seat.ctl.kill.set(Kill::Raised);
        seat.refusals.set(seat.refusals.get() + 1);
        if seat.refusals.get() > REFUSALS_MAX {
            let _ = wait.park(Deadline::NEVER, Mode::Uninterruptible);
        } else {
            hub.requeue(seat.ctl);
        }
        Ended::Killed
    }

    /// What would end a wait before it begins: a kill, or a `timeout` around it whose time is over.
    /// For calls that could wait, and are to fail then also if they need not. As after a wait, the
    /// others run before this returns.
    #[inline]
    pub(crate) fn interrupted(self) -> Option<Ended> {
        let Seat { ctl, .. } = *self.seat;
        let quiet = ctl.kill.get() == Kill::None && ctl.frames_deadline().is_never();
        if quiet { None } else { self.interrupted_perhaps() }
    }

    #[cold]
    fn interrupted_perhaps(self) -> Option<Ended> {
        self.enter(|hub| {
            self.seat.ctl.interrupts(Mode::Hooked).err()?;
            let Ok(wait) = Wait::begin(hub, WaitOn::Nothing) else {
                return Some(Ended::Refused(rustix::io::Errno::DEADLK));
            };
            let ended = self.park(&wait, Deadline::NEVER);
            if ended == Ended::Elapsed {
                hub.requeue(self.seat.ctl);
            }
            Some(ended)
        })
    }

    /// Counts a call that did not wait: after many of them, the others run.
    #[inline]
    pub(crate) fn spend(self) {
        let hub = self.hub();
        match hub.slice.get() {
            0 => self.yield_now(),
            left => hub.slice.set(left - 1),
        }
    }

    /// Parks until `deadline`.
    pub(crate) fn sleep(self, deadline: Deadline) -> Ended {
        self.wait(WaitOn::Sleep, deadline, |_, _| ())
    }

    /// Lets the others run.
    #[inline]
    pub(crate) fn yield_now(self) {
        self.enter(|hub| hub.requeue(self.seat.ctl));
    }

    /// How many turns its hub has made. No event comes to be known before the next one.
    #[inline]
    pub(crate) fn turn(self) -> u64 {
        self.hub().reactor.turns()
    }

    /// Notes that nothing more was there of `fd` at some moment after `turn`.
    #[inline]
    pub(crate) fn note_drained(self, fd: RawFd, turn: u64) {
        self.seat.drained.set((fd, turn));
    }

    /// Whether that was noted of `fd` last, and there was no turn since.
    #[inline]
    pub(crate) fn is_drained(self, fd: RawFd) -> bool {
        self.seat.drained.get() == (fd, self.turn())
    }

    /// The hub's clock, read anew.
    pub(crate) fn now(self) -> Deadline {
        self.hub().reactor.clock_now()
    }
}

/// In the child of a fork, in the hub that was its thread's: if a guest has forked, its code goes
/// on as nobody's, and so does that of a hub inside of it. `on_its_base` is called there.
pub(super) fn abandon(hub: &Hub, on_its_base: fn()) {
    extern "C" fn run(told: *mut c_void) {
        // SAFETY: `abandon` passes what it has in its own frame.
        let (home, on_its_base) = unsafe { *told.cast::<(usize, fn())>() };
        SEAT.set(ptr::null());
        HOME.set(home);
        on_its_base();
    }
    let Some(ctl) = hub.current.get() else { return };
    // SAFETY: null, or in a frame below ours: the current guest waits for this call.
    let Some(seat) = (unsafe { ctl.seat().as_ref() }) else { return };
    let mut told = (seat.home, on_its_base);
    // SAFETY: the guest's own base, which this OS thread has left to come here; `run` takes what it
    // is given, and what it calls writes a few thread-locals.
    unsafe { base::call_on(seat.base, run, (&raw mut told).cast()) };
}

/// Whether the base here is that of an OS thread, as the C library has it in its lists.
#[inline]
pub(crate) fn is_at_home() -> bool {
    SEAT.get().is_null() && HOME.get() == 0
}

/// Calls `f` on the base that the code here, which was a guest's before a fork, came from; or on
/// this one. `f` must not unwind.
pub(crate) fn at_home(mut f: &mut dyn FnMut()) {
    extern "C" fn run(f: *mut c_void) {
        let abort = AbortOnUnwind;
        // SAFETY: `at_home` passes its own argument.
        let f = unsafe { &mut *f.cast::<&mut dyn FnMut()>() };
        f();
        std::mem::forget(abort);
    }
    match HOME.get() {
        0 => f(),
        // SAFETY: the base of this OS thread's, or of the guest whose hub ran here: no code runs on
        // it in this process any more, but what is called so. `run` takes what it is given.
        home => unsafe { base::call_on(home, run, (&raw mut f).cast()) },
    }
}

impl Standing {
    /// Has a guest that is frozen leave all lines that it stands in.
    fn leave_lines(&self) {
        let mut at = self.lines.replace(ptr::null());
        // SAFETY: in a frame of a stack that stays (GUEST-5).
        while let Some(enlisted) = unsafe { at.as_ref() } {
            (enlisted.leave)();
            at = enlisted.outer.get();
        }
    }
}

/// Freezes the guests of a hub that runs inside a guest which is being frozen.
fn freeze_inside(seat: &Seat) {
    extern "C" fn run(_: *mut c_void) {
        let Some(hub) = Hub::current() else { return };
        hub.all().into_iter().filter(|ctl| ctl.is_guest()).for_each(|ctl| hub.freeze(ctl));
    }
    // SAFETY: the guest's own base, on which nobody runs while it is suspended; this OS thread has
    // left it. What is called does not unwind: it is `extern "C"`.
    unsafe { base::call_on(seat.base, run, ptr::null_mut()) };
}

/// A guest of this thread's hub is gone.
fn count_out() {
    ALIVE.fetch_sub(1, Ordering::Relaxed);
    if let Some(hub) = Hub::current() {
        hub.guests.set(hub.guests.get() - 1);
    }
}

impl Ctl {
    /// Where the seat of a guest is, whose code runs; or null.
    fn seat(self) -> *const Seat {
        self.standing().map_or(ptr::null(), |standing| standing.seat.get())
    }
}

impl<'f> Enlisted<'f> {
    /// A place that `leave` leaves: for a guest that is frozen.
    #[inline(always)]
    pub(crate) fn new(leave: &'f (dyn Fn() + 'f)) -> Enlisted<'f> {
        Enlisted { outer: Cell::new(ptr::null()), leave }
    }

    /// Enters it for the current greenlet, which `ctl` must be, if that is a guest.
    #[inline(always)]
    pub(super) fn enter(&self, ctl: Ctl) -> Option<Listed<'_>> {
        if ctl.is_guest() { self.enter_for(ctl) } else { None }
    }

    /// Enters it for a guest.
    pub(crate) fn enter_for_guest(&self, guest: Guest) -> Option<Listed<'_>> {
        self.enter_for(guest.seat.ctl)
    }

    #[cold]
    fn enter_for(&self, ctl: Ctl) -> Option<Listed<'_>> {
        let lines = &ctl.standing()?.lines;
        self.outer.set(lines.get());
        // INVARIANT: GUEST-5: `Listed` borrows it, and takes it out.
        lines.set(ptr::from_ref(self).cast());
        Some(Listed { place: self.outer.get(), ctl, _entered: PhantomData })
    }
}

/// That a guest stands in a line: ends when it is dropped.
pub(crate) struct Listed<'e> {
    place: *const Enlisted<'static>,
    ctl: Ctl,
    _entered: PhantomData<&'e ()>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        if let Some(standing) = self.ctl.standing() {
            standing.lines.set(self.place);
        }
    }
}

/// What a guest is made of: who it is, and what it does in the hub before its own code begins.
struct GuestBody<F> {
    birth: Birth<'static>,
    name: Option<Box<str>>,
    work: Cell<Option<F>>,
    standing: Standing,
}

impl<F: FnOnce(Host)> Body for GuestBody<F> {
    fn run(self: Rc<Self>, ctl: Ctl) {
        let abort = AbortOnUnwind;
        let work = self.work.take().expect("a body runs once");
        work(Host { ctl, _stays: NotSend::default() });
        ctl.unwinding.set(false);
        let_go(ctl);
        ctl.forget_name();
        ctl.forget_standing();
        count_out();
        std::mem::forget(abort);
    }

    fn birth(&self) -> Birth<'_> {
        Birth { name: self.name.as_deref(), ..self.birth }
    }

    fn standing(&self) -> Option<&Standing> {
        Some(&self.standing)
    }
}

/// A greenlet that is about to be a guest.
pub(crate) struct Host {
    ctl: Ctl,
    _stays: NotSend,
}

impl Host {
    /// Whether it was killed before it began.
    pub(crate) fn is_killed(&self) -> bool {
        self.ctl.kill.get() != Kill::None
    }

    /// Runs `f` as the guest's own code, on `base`. `f` must not unwind.
    ///
    /// # Safety
    ///
    /// `base` is a control block of the C library's that this OS thread may use now, that nobody
    /// else uses meanwhile, and on which `SEAT` is null; and this processor allows the change of
    /// bases.
    pub(crate) unsafe fn host<F: FnOnce()>(&self, base: usize, tid: i32, f: F) {
        struct Visit<'s, F> {
            seat: &'s Seat,
            f: Option<F>,
        }
        extern "C" fn run<F: FnOnce()>(visit: *mut c_void) {
            // SAFETY: `host` passes its own `Visit` of just this type, and waits.
            let visit = unsafe { &mut *visit.cast::<Visit<'_, F>>() };
            let abort = AbortOnUnwind; // GUEST-3
            SEAT.set(visit.seat);
            if let Some(f) = visit.f.take() {
                f();
            }
            SEAT.set(ptr::null());
            std::mem::forget(abort);
        }
        let hub = Hub::current().expect("a greenlet runs on a hub");
        let home_control = FloatControl::current();
        let seat = Seat {
            hub,
            ctl: self.ctl,
            base,
            home: base::current(),
            tid,
            home_control,
            refusals: Cell::new(0),
            drained: Cell::new((-1, 0)),
        };
        let standing = self.ctl.standing().expect("a guest has one until it ends");
        standing.seat.set(&raw const seat);
        let mut visit = Visit { seat: &seat, f: Some(f) };
        // SAFETY: the caller vouches for the base; `run` takes what it is given and does not
        // unwind. The seat is in this frame, which stays while the guest's code runs (GUEST-1).
        unsafe { base::call_on(base, run::<F>, (&raw mut visit).cast()) };
        home_control.replace(FloatControl::current());
        standing.seat.set(ptr::null());
        self.ctl.set_guest_unwinding(false);
    }
}

/// How long the hub's side waits before it looks again whether a wait of its own is over.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// On the hub's side, in code of others that would stop this thread until something changes that a
/// guest may have to do: runs guests, and nobody else, until `is_over` or `deadline`.
///
/// To its guests, a hub with all its greenlets is one more thread. A greenlet that wants a lock
/// which a suspended guest holds would stop both for ever.
///
/// `false`: it has done nothing. There is no hub here, it has no guests, or this is a guest's wait.
pub(crate) fn serve_guests(deadline: Option<Instant>, is_over: &mut dyn FnMut() -> bool) -> bool {
    let may_serve = |hub: &&Hub| {
        // A guest in the hub's code, or somebody who has begun a wait: a wake that comes before it
        // has parked is remembered only if nobody runs in between (PARK-2).
        let in_midst = hub.current.get().is_some_and(|ctl| ctl.is_guest() || ctl.ticket.get() != 0);
        // Where nothing may park, others' locks may be held, which guests may want.
        let may_park = hub.no_park.get() == 0;
        hub.guests.get() > 0 && !in_midst && may_park && !hub.is_turning.get()
    };
    let Some(hub) = Hub::current().filter(may_serve) else { return false };
    let outer = hub.current.take();
    let others = RunQueue::default();
    while !is_over() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        hub.ready.append(&hub.yielded);
        let mut has_run = false;
        while let Some(ctl) = hub.ready.pop() {
            // One that takes its backtrace may be what waits: it is entered already (CTL-2).
            if !ctl.is_guest() || ctl.is_peeked() {
                others.push(ctl);
                continue;
            }
            has_run = true;
            hub.beats.beat();
            hub.resume(ctl);
            if is_over() {
                break;
            }
        }
        let at = hub.deadline_in(LOOK_AGAIN);
        let timer = (!has_run).then(|| hub.reactor.add_timer(at, Wake::Nobody));
        // It fails only if the poller was closed by others; the loop around this finds out.
        let _ = hub.turn(!has_run);
        if let Some(timer) = timer {
            hub.reactor.cancel_timer(timer);
        }
    }
    others.append(&hub.ready);
    hub.ready.append(&others);
    hub.current.set(outer);
    true
}

impl Hub {
    /// Sleeps in the poller of a hub that runs inside a guest: through the hub of that guest.
    pub(super) fn rest_as_guest(&self, poller: BorrowedFd<'_>, limit: Option<Duration>) -> bool {
        let Some(guest) = guest() else { return false };
        let deadline = limit.map_or(Deadline::NEVER, |limit| guest.now().saturating_add(limit));
        match guest.wait_fd(poller.as_raw_fd(), Direction::Read, deadline) {
            Ended::Killed | Ended::Elapsed => self.stop(),
            Ended::Woken | Ended::TimedOut | Ended::Refused(_) => {}
        }
        true
    }

    /// Spawns a guest: `work` runs in the hub, on the stack of a new greenlet, and is to call
    /// [`Host::host`]. It must not unwind. Returns its number. One that `borrows` is never frozen;
    /// of any other, `awaited` is told if it is.
    ///
    /// # Safety
    ///
    /// What `work` borrows must outlive the guest; nothing, if it does not say that it borrows. The
    /// type that `awaited` hides may borrow the same, and `awaited` itself is dropped later.
    pub(crate) unsafe fn spawn_guest(
        &self,
        name: Option<Box<str>>,
        stack_size: Option<usize>,
        place: &'static Location<'static>,
        borrows: bool,
        awaited: Weak<dyn Awaited + '_>,
        work: impl FnOnce(Host),
    ) -> std::io::Result<(u32, u64)> {
        let (ctl, pool) = self.reserve(stack_size)?;
        let birth = Birth { id: self.draw_id(), role: Role::Guest, place, name: None, pool };
        let parent = self.current.get().map_or(0, |current| current.id());
        // SAFETY: only the lifetime bound of the type changes. Nobody calls what it points to if
        // that borrows (`freeze`), and to drop a share that is weak frees memory alone.
        let awaited = unsafe {
            std::mem::transmute::<Weak<dyn Awaited + '_>, Weak<dyn Awaited + 'static>>(awaited)
        };
        let (seat, lines) = (Cell::new(ptr::null()), Cell::new(ptr::null()));
        let standing = Standing { seat, awaited, lines };
        let body: Rc<dyn Body + '_> =
            Rc::new(GuestBody { birth, name, work: Cell::new(Some(work)), standing });
        // SAFETY: passed on.
        ctl.occupy(unsafe { spawn::forget_lifetime(body) }, parent);
        ctl.set_guest(borrows);
        if self.is_ending() {
            ctl.kill.set(Kill::Pending);
        }
        ALIVE.fetch_add(1, Ordering::Relaxed);
        self.guests.set(self.guests.get() + 1);
        self.ready.push(ctl);
        Ok((ctl.slot, birth.id))
    }

    /// Lets a guest be that waits and cannot be unwound, for ever: its stack and its thread-locals
    /// stay as they are, and it never runs again. It borrows nothing (`GUEST-2`).
    pub(super) fn freeze(&self, ctl: Ctl) {
        // SAFETY: null, or in a frame of a stack that stays.
        if let Some(seat) = unsafe { ctl.seat().as_ref() } {
            freeze_inside(seat);
        }
        // INVARIANT: GUEST-5.
        if let Some(standing) = ctl.standing() {
            standing.leave_lines();
            // Our share of it is never dropped, be it the last: a result is of the user's. Who
            // borrows is frozen only inside of another one, with whoever may wait for it.
            let awaited = standing.awaited.upgrade().map(ManuallyDrop::new);
            if let Some(awaited) = awaited.filter(|_| !ctl.borrows()) {
                awaited.frozen();
            }
        }
        // SAFETY: it is parked, in no queue, and nothing resumes a block that is not in the table.
        unsafe { ctl.abandon() };
        self.table.borrow_mut().forget(ctl);
        count_out();
    }

    /// Whether a guest of this hub is alive.
    #[inline]
    pub(crate) fn has_guests(&self) -> bool {
        self.guests.get() > 0
    }

    /// Kills the guest with this number, if it is alive.
    pub(crate) fn kill_guest(&self, (slot, id): (u32, u64)) {
        if let Some(ctl) = self.find(slot, id) {
            self.kill(ctl);
        }
    }
}
