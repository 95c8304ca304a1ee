//! How a hooked call waits until an address is woken, without stopping the hub of its thread.
//!
//! Floor 8. Uses: `queue`, `hub::guest`. Used by: `futex`, `locks`.
//!
//! # Contract
//!
//! Three kinds of code call libc. A virtual thread parks. A hub, on a greenlet's stack or its own,
//! runs its virtual threads meanwhile, and only those: to them it is one more thread, and one of
//! them may hold what it waits for. Any other thread sleeps in the kernel, as without us: for those
//! [`Waiter::here`] is `None`, and the hook calls the next definition.
//!
//! Who changes a word that others may wait for says so afterwards, on every thread of the process:
//! [`wake`], or [`released`] where a lock was let go.
//!
//! # Cancellation
//!
//! Cancellation point: never. std's locks cannot fail, so nothing but a wake, the change, or the
//! call's own time ends such a wait; a kill stays pending, and the dump says why.
//!
//! # Invariants
//!
//! - `WAIT-1` An envelope lies in the frame of who waits, which does not end, be it in an unwind,
//!   before it is back (`Lent`). A virtual thread that is frozen for ever keeps its stack.
//!
//! - `WAIT-2` A virtual thread that is frozen for ever is in no line any more, and a wake that it
//!   was given and has not used goes to another one.
//!
//! # Source
//!
//! futex(2): a wait may end for no reason, and its caller looks again.

#![expect(unsafe_code, reason = "envelopes are pointed to; pthread_atfork is C")]
//! # Safety
//!
//! Envelopes are reached under `WAIT-1`. What is called in the child of a fork is alone there.

use std::{
    cell::Cell,
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use libc::c_long;
use rustix::time::{ClockId, Timespec, clock_gettime};

use super::{
    inside::within,
    next,
    queue::{Line, Place, Queue, Shard, Tell},
};
use crate::{
    hub::{
        Hub, Message,
        guest::{Enlisted, Guest, Listed, guest, guests_alive, serve_guests},
        park::{WaitOn, Wake},
    },
    latch::Latch,
    reactor::{Envelope, Inbox},
    time::Deadline,
};

/// Enough that a thousand waiters at addresses of their own are four to a shard. 16 KiB.
const SHARDS: usize = 256;

/// How long a change that passes no hook, made by another process, may go unnoticed.
const RECHECK: Duration = Duration::from_millis(10);

/// A wake that meets any waiter.
pub(super) const ANY: u32 = u32::MAX;

/// All who wait, in this process.
static QUEUE: Queue<Target, SHARDS> = Queue::new(
    [const { Shard::new(AtomicU32::new(0), AtomicBool::new(false), Latch::new(Line::new())) };
        SHARDS],
);

/// Who is to be told of a wake, and how.
struct Target {
    inbox: Arc<Inbox<Message>>,
    /// What ends the wait; a hub is only to look.
    wake: Option<Wake>,
    envelope: Given,
}

impl Tell for Target {
    fn tell(self) -> bool {
        let Target { inbox, wake, envelope } = self;
        let Some(wake) = wake else {
            inbox.nudge();
            return true;
        };
        match guest() {
            // In its own code, so the hub is not in the midst of anything, unless this is a signal
            // handler that has interrupted just this.
            Some(guest) if Arc::ptr_eq(guest.hub().inbox(), &inbox) => {
                let hub = guest.hub();
                let told = within(ptr::from_ref(hub).addr(), || hub.wake(wake));
                told.is_some() || envelope.send(&inbox, wake)
            }
            _ => envelope.send(&inbox, wake),
        }
    }
}

/// The envelope of somebody who waits, by which the wake comes: nothing is allocated for it, since
/// who wakes may be a signal handler. It is given back when it is dropped.
struct Given(NonNull<Envelope<Message>>);

// SAFETY: an envelope is for other threads to send; who has it is told by INBOX-3.
unsafe impl Send for Given {}

impl Given {
    fn new(envelope: &Envelope<Message>) -> Given {
        envelope.give_out();
        Given(envelope.into())
    }

    fn send(self, inbox: &Inbox<Message>, wake: Wake) -> bool {
        // SAFETY: WAIT-1.
        let envelope = unsafe { self.0.as_ref() };
        std::mem::forget(self); // The inbox gives it back.
        // SAFETY: it was given out, and we had it; it stays in place: WAIT-1.
        unsafe { inbox.send(envelope, Message::Wake(wake)) }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // SAFETY: WAIT-1.
        unsafe { self.0.as_ref() }.give_back();
    }
}

/// An envelope in the frame of who waits. Its drop waits until the envelope is back.
struct Lent {
    envelope: Envelope<Message>,
    owner: Waiter,
}

impl Drop for Lent {
    fn drop(&mut self) {
        // INVARIANT: WAIT-1. It is out for moments: somebody is telling, or the message has not
        // been taken out of the inbox, which is done by the hub that this lets run.
        while !self.envelope.is_back() {
            match self.owner {
                Waiter::Guest(guest) => guest.yield_now(),
                Waiter::Host(_) => rustix::thread::sched_yield(),
            }
        }
    }
}

/// When a wait is to end at the latest.
#[derive(Clone, Copy)]
pub(super) enum Limit {
    /// Never.
    Never,
    /// At this time of this clock.
    At(ClockId, Timespec),
    /// The time is not one.
    Invalid,
}

impl Limit {
    /// `time` of `clock`, which must be one that futex(2) has.
    pub(super) fn at(clock: libc::clockid_t, time: libc::timespec) -> Limit {
        let clock = match clock {
            libc::CLOCK_REALTIME => ClockId::Realtime,
            libc::CLOCK_MONOTONIC => ClockId::Monotonic,
            _ => return Limit::Invalid,
        };
        if !(0..1_000_000_000).contains(&time.tv_nsec) {
            return Limit::Invalid;
        }
        Limit::At(clock, Timespec { tv_sec: time.tv_sec, tv_nsec: time.tv_nsec })
    }

    /// `time` from now on.
    pub(super) fn within(time: libc::timespec) -> Limit {
        if !(0..1_000_000_000).contains(&time.tv_nsec) || time.tv_sec < 0 {
            return Limit::Invalid;
        }
        let now = clock_gettime(ClockId::Monotonic);
        let nanoseconds = now.tv_nsec + time.tv_nsec;
        let seconds = now.tv_sec.saturating_add(time.tv_sec);
        let at = Timespec {
            tv_sec: seconds.saturating_add(nanoseconds / 1_000_000_000),
            tv_nsec: nanoseconds % 1_000_000_000,
        };
        Limit::At(ClockId::Monotonic, at)
    }

    /// This limit, or that of the next look at what another process may have changed.
    pub(super) fn or_next_look(self) -> Limit {
        match self.left() {
            Some(left) if left <= RECHECK => self,
            _ => {
                Limit::within(libc::timespec { tv_sec: 0, tv_nsec: RECHECK.subsec_nanos().into() })
            }
        }
    }

    /// Whether it has passed.
    pub(super) fn has_passed(self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// When a sleep in the kernel is to end, by this clock, that looks again every so often.
    pub(super) fn next_look(self) -> (libc::clockid_t, libc::timespec) {
        let Limit::At(clock, at) = self.or_next_look() else { unreachable!("it has a time") };
        let is_realtime = matches!(clock, ClockId::Realtime);
        let clock = if is_realtime { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC };
        (clock, libc::timespec { tv_sec: at.tv_sec, tv_nsec: at.tv_nsec })
    }

    /// How much time is left; `None` for ever.
    fn left(self) -> Option<Duration> {
        let Limit::At(clock, at) = self else { return None };
        let now = clock_gettime(clock);
        let left_ns = i128::from(at.tv_sec - now.tv_sec) * 1_000_000_000
            + i128::from(at.tv_nsec - now.tv_nsec);
        Some(Duration::from_nanos(u64::try_from(left_ns.max(0)).unwrap_or(u64::MAX)))
    }
}

/// Where somebody waits, and for how long.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub(super) address: usize,
    /// The bits of which a wake must have one.
    pub(super) bits: u32,
    pub(super) limit: Limit,
    /// Whether another process may change what is there.
    pub(super) is_shared: bool,
}

/// How a wait has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// It was over before it began.
    AtOnce,
    /// It is over.
    Over,
    /// A wake has come.
    Woken,
    /// Its time has passed.
    TimedOut,
    /// It cannot be waited for here but in the kernel.
    Cannot,
}

/// Who waits, if it must not sleep in the kernel.
#[derive(Clone, Copy)]
pub(super) enum Waiter {
    /// A virtual thread.
    Guest(Guest),
    /// A hub that has virtual threads.
    Host(&'static Hub),
}

impl Waiter {
    /// The caller. `None`: a thread without virtual threads.
    #[inline]
    pub(super) fn here() -> Option<Waiter> {
        if let Some(guest) = guest() {
            return Some(Waiter::Guest(guest));
        }
        // The first look is at a word that all threads share, and which hardly ever changes.
        if guests_alive() == 0 {
            return None;
        }
        Hub::current().filter(|hub| hub.has_guests()).map(Waiter::Host)
    }

    /// Whether it is a virtual thread.
    pub(super) fn is_guest(self) -> bool {
        matches!(self, Waiter::Guest(_))
    }

    /// The number that the C library has for this thread.
    pub(super) fn tid(self) -> i32 {
        match self {
            Waiter::Guest(guest) => guest.tid(),
            Waiter::Host(_) => rustix::thread::gettid().as_raw_nonzero().get(),
        }
    }

    /// Has a virtual thread leave a line should it be frozen (`WAIT-2`).
    fn enlist<'e>(self, enlisted: &'e Enlisted<'_>) -> Option<Listed<'e>> {
        match self {
            Waiter::Guest(guest) => enlisted.enter_for_guest(guest),
            Waiter::Host(_) => None,
        }
    }

    /// Whether it can wait at all but in the kernel.
    pub(super) fn can_wait(self) -> bool {
        match self {
            Waiter::Guest(_) => true,
            Waiter::Host(_) => serve_guests(None, &mut || true),
        }
    }

    /// Waits until `is_over` says so, a wake comes, or the time has passed.
    ///
    /// `is_over` is asked when the caller is already in line, so no change after that is missed;
    /// then after each pause that does not end the wait, and by a hub as often as it looks.
    pub(super) fn wait(self, at: At, is_over: &mut dyn FnMut() -> bool) -> Waited {
        self.wait_for_any(&[at.address], at, is_over).0
    }

    /// The same at several addresses; that in `at` counts for nothing. Gives the index of one that
    /// was woken, if one was.
    pub(super) fn wait_for_any(
        self,
        addresses: &[usize],
        at: At,
        is_over: &mut dyn FnMut() -> bool,
    ) -> (Waited, usize) {
        watch_forks();
        let (waited, behind) = self.line_up(addresses, None, at, is_over);
        (waited, addresses.len() - 1 - behind)
    }

    /// Waits at `addresses`, and where it is in line already. Gives how many lie behind that which
    /// was woken.
    fn line_up(
        self,
        addresses: &[usize],
        places: Option<&Places<'_>>,
        at: At,
        is_over: &mut dyn FnMut() -> bool,
    ) -> (Waited, usize) {
        let Some((&address, rest)) = addresses.split_first() else {
            let Some(places) = places else { return (Waited::Cannot, 0) };
            let waited = match self {
                Waiter::Guest(guest) => park(guest, places, at, is_over),
                Waiter::Host(hub) => serve(hub, places, at, is_over),
            };
            return (waited, 0);
        };
        let waited = {
            // INVARIANT: WAIT-2: while the envelope is waited for.
            let was_woken = Cell::new(false);
            let leave = || {
                if was_woken.get() {
                    pass_on(address, at);
                }
            };
            let enlisted = Enlisted::new(&leave);
            let _listed = self.enlist(&enlisted);
            let lent = Lent { envelope: Envelope::new(), owner: self }; // Never moved: WAIT-1.
            let waited = QUEUE.wait(address, at.bits, |place| {
                let places = Places { place, envelope: &lent.envelope, others: places };
                // INVARIANT: WAIT-2: in line.
                let leave = || {
                    if !place.leave() {
                        pass_on(address, at);
                    }
                };
                let enlisted = Enlisted::new(&leave);
                let _listed = self.enlist(&enlisted);
                self.line_up(rest, Some(&places), at, is_over)
            });
            was_woken.set(waited.is_some_and(|(_, was_woken)| was_woken));
            waited
        };
        let Some(((waited, behind), was_woken)) = waited else { return (Waited::Cannot, 0) };
        match waited {
            _ if !was_woken => (waited, behind),
            Waited::AtOnce | Waited::Over => {
                wake(address, at.bits, 1); // It was for one that needs it.
                (waited, behind)
            }
            _ => (Waited::Woken, rest.len()),
        }
    }
}

/// Wakes another one who waits at `address`, in place of one that was woken and is frozen: a
/// virtual thread, or one that sleeps in the kernel.
fn pass_on(address: usize, At { bits, is_shared, .. }: At) {
    if wake(address, bits, 1) > 0 {
        return;
    }
    let private = if is_shared { 0 } else { libc::FUTEX_PRIVATE_FLAG };
    let operation = c_long::from(libc::FUTEX_WAKE_BITSET | private);
    // SAFETY: wakes whoever sleeps at an address; looks at no memory.
    unsafe {
        next::syscall(libc::SYS_futex, address as c_long, operation, 1, 0, 0, c_long::from(bits));
    }
}

/// Where the caller is in line.
struct Places<'a> {
    place: &'a Place<'a, Target>,
    envelope: &'a Envelope<Message>,
    others: Option<&'a Places<'a>>,
}

impl Places<'_> {
    /// Says at each whom to tell. `false`: it was woken before.
    ///
    /// What was said before has been taken back.
    fn arm(&self, hub: &Hub, wake: Option<Wake>) -> bool {
        // INVARIANT: WAIT-1: who has taken the node may still have the envelope. If nobody has yet,
        // nobody will get it from before: it was taken back.
        if self.place.is_woken() {
            return false;
        }
        let inbox = Arc::clone(hub.inbox());
        let is_armed = self.place.arm(Target { inbox, wake, envelope: Given::new(self.envelope) });
        is_armed && self.others.is_none_or(|others| others.arm(hub, wake))
    }

    /// Takes back what was said.
    fn disarm(&self) {
        self.place.disarm();
        self.others.iter().for_each(|others| others.disarm());
    }

    /// Whether it was woken at one of them.
    fn is_woken(&self) -> bool {
        self.place.is_woken() || self.others.is_some_and(Places::is_woken)
    }
}

/// How long to wait now: for the rest of the time, or until the next look at what is shared.
fn pause(left: Option<Duration>, is_shared: bool) -> Option<Duration> {
    if is_shared { Some(left.map_or(RECHECK, |left| left.min(RECHECK))) } else { left }
}

/// Waits as a virtual thread: parks.
fn park(guest: Guest, places: &Places<'_>, at: At, is_over: &mut dyn FnMut() -> bool) -> Waited {
    if is_over() {
        return Waited::AtOnce;
    }
    loop {
        let left = at.limit.left();
        let pause = pause(left, at.is_shared);
        let deadline = pause.map_or(Deadline::NEVER, |pause| guest.now().saturating_add(pause));
        let mut has_begun = false;
        let on = WaitOn::Word(at.address as u32);
        let is_woken = guest.wait_out(on, deadline, |hub, wake| {
            has_begun = true;
            if !places.arm(hub, Some(wake)) {
                hub.wake(wake); // It came before.
            }
        });
        if !has_begun {
            return Waited::Cannot;
        }
        if is_woken || places.is_woken() {
            return Waited::Woken;
        }
        if is_over() {
            return Waited::Over;
        }
        if pause == left {
            return Waited::TimedOut;
        }
        places.disarm();
    }
}

/// Waits as a hub: runs its virtual threads.
fn serve(hub: &Hub, places: &Places<'_>, at: At, is_over: &mut dyn FnMut() -> bool) -> Waited {
    if is_over() {
        return Waited::AtOnce;
    }
    if !places.arm(hub, None) {
        return Waited::Woken;
    }
    loop {
        let left = at.limit.left();
        let pause = pause(left, at.is_shared);
        let mut waited = Waited::TimedOut;
        let deadline = pause.map(|pause| Instant::now() + pause);
        let is_served = serve_guests(deadline, &mut || {
            if places.is_woken() {
                waited = Waited::Woken;
            } else if is_over() {
                waited = Waited::Over;
            }
            waited != Waited::TimedOut
        });
        if !is_served {
            return Waited::Cannot;
        }
        if waited != Waited::TimedOut || pause == left {
            return waited;
        }
    }
}

/// Wakes up to `count` of those that wait at `address`, where something was changed.
#[inline]
pub(super) fn wake(address: usize, bits: u32, count: usize) -> usize {
    QUEUE.wake(address, bits, count)
}

/// As [`wake`], after a function of libc's has let go of a lock or posted: one relaxed load if
/// nobody waits.
#[inline]
pub(super) fn released(address: usize, count: usize) {
    // The fence between the change and the look (QUEUE-1). On x86_64 libc changes the word by a
    // locked instruction, which is one, and the compiler cannot look into libc. (While it knows of
    // one thread only it uses a plain store; then no two threads can be in this at once.)
    #[cfg(not(target_arch = "x86_64"))]
    std::sync::atomic::fence(Ordering::SeqCst);
    signalled(address, count);
}

/// As [`released`], where a lock around it orders what the waiter and the caller have done.
#[inline]
pub(super) fn signalled(address: usize, count: usize) {
    if QUEUE.may_have(address) {
        QUEUE.wake_fenced(address, ANY, count);
    }
}

/// Has the child of a fork begin with nobody in line: those who wait are not there, and a latch may
/// be held by a thread that is not.
#[inline]
fn watch_forks() {
    static IS_WATCHED: AtomicBool = AtomicBool::new(false);
    if !IS_WATCHED.load(Ordering::Relaxed) && !IS_WATCHED.swap(true, Ordering::Relaxed) {
        // SAFETY: `abandon` stays loaded, takes nothing, and only writes memory of the process, as
        // signal-safety(7) allows.
        unsafe { libc::pthread_atfork(None, None, Some(abandon)) };
    }
}

/// Runs in the child, before fork(2) returns there.
extern "C" fn abandon() {
    // SAFETY: no other thread exists in the child, and this one was in fork(2), not in the queue.
    unsafe { QUEUE.abandon() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_that_is_under_way_is_not_taken_for_one_that_is_back() {
        static QUEUE: Queue<Target, 1> = Queue::new([Shard::new(
            AtomicU32::new(0),
            AtomicBool::new(false),
            Latch::new(Line::new()),
        )]);
        crate::run(|| {
            let hub = Hub::current().unwrap();
            let envelope = Envelope::new();
            let was_woken = QUEUE.wait(1, ANY, |place| {
                let places = Places { place, envelope: &envelope, others: None };
                assert!(places.arm(hub, Some(Wake::Nobody)));
                // It lies in the inbox until the hub turns. Meanwhile the pause of a wait for a
                // shared word ends.
                assert_eq!(QUEUE.wake(1, ANY, 1), 1);
                places.disarm();
                assert!(!places.arm(hub, Some(Wake::Nobody)));
                assert!(!envelope.is_back());
            });
            assert!(was_woken.is_some_and(|((), was_woken)| was_woken));
            while !envelope.is_back() {
                crate::yield_now();
            }
        });
    }
}
