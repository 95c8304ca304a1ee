//! Calls that wait for several descriptors: poll(2), select(2), epoll_wait(2) and their variants.
//!
//! Floor 8. Uses: `call`, `descriptors`, `kernel`, `next`. Used by: the names that `interpose!()`
//! defines.
//!
//! What is ready is always for the kernel to say, by the same call with a timeout of zero: before
//! the wait, and after it. What the hub knows of a descriptor only ends the wait. Where that is not
//! precise enough (a wait for urgent data on a socket that can be read, say, or for a hangup
//! alone), it ends for nothing; from then on the call waits for an epoll set of its own, which has
//! just the events that were asked for, and tells of each once: epoll(7) always reports hangups,
//! which to select(2) are no answer to a question for exceptions.
//!
//! A mask of signals is in force while the kernel is asked. During a wait the OS thread's own is,
//! so with a mask the kernel is asked now and then.

#![expect(unsafe_code, reason = "C's signatures, and system calls with pointers of the user's")]
#![expect(clippy::missing_safety_doc, reason = "the contract of each is its manual page")]
//! # Safety
//!
//! Arguments are passed on as they came (`HOOK-1`): to the next definition, or to the system call
//! of the same name, which checks every pointer. What is read here, the kernel has read before.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    ptr,
    time::Duration,
};

use libc::{POLLIN, POLLNVAL, POLLOUT, POLLPRI};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
};

use super::{
    __c::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval},
    call::{self, Waited, may_go_on},
    descriptors::{self, Age, Watch},
    early::Word,
    kernel::{self, SIGNALS_BYTES, answer, fail, on},
    next,
};
use crate::{
    hub::{
        guest::{Guest, guest},
        io::Direction,
    },
    time::Deadline,
};

/// How often the kernel is asked for signals that a mask lets through.
const MASKED_EVERY: Duration = Duration::from_millis(10);

/// How often it is asked where no descriptor is left to wait with.
const BLIND_EVERY: Duration = Duration::from_millis(8);

/// poll(2).
pub unsafe extern "C-unwind" fn poll(fds: *mut pollfd, count: nfds_t, timeout_ms: c_int) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::poll(fds, count, timeout_ms) };
    };
    let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: HOOK-1.
    answer(unsafe { polled(guest, fds, count as usize, limit, ptr::null()) }) as c_int
}

/// poll(2), of programs that were built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __poll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout_ms: c_int,
    room: size_t,
) -> c_int {
    if guest().is_none() || room / size_of::<pollfd>() < count as usize {
        // SAFETY: HOOK-1.
        return unsafe { next::__poll_chk(fds, count, timeout_ms, room) };
    }
    // SAFETY: HOOK-1; the length was checked.
    unsafe { poll(fds, count, timeout_ms) }
}

/// ppoll(2).
pub unsafe extern "C-unwind" fn ppoll(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::ppoll(fds, count, timeout, mask) };
    };
    // SAFETY: HOOK-1.
    match unsafe { limit_of(timeout) } {
        // SAFETY: HOOK-1.
        Ok(limit) => answer(unsafe { polled(guest, fds, count as usize, limit, mask) }) as c_int,
        Err(error) => fail(error) as c_int,
    }
}

/// ppoll(2), of programs that were built with `_FORTIFY_SOURCE`.
pub unsafe extern "C-unwind" fn __ppoll_chk(
    fds: *mut pollfd,
    count: nfds_t,
    timeout: *const timespec,
    mask: *const sigset_t,
    room: size_t,
) -> c_int {
    if guest().is_none() || room / size_of::<pollfd>() < count as usize {
        // SAFETY: HOOK-1.
        return unsafe { next::__ppoll_chk(fds, count, timeout, mask, room) };
    }
    // SAFETY: HOOK-1; the length was checked.
    unsafe { ppoll(fds, count, timeout, mask) }
}

/// select(2). As on Linux, the timeout is what is left of it.
pub unsafe extern "C-unwind" fn select(
    count: c_int,
    readable: *mut fd_set,
    writable: *mut fd_set,
    exceptional: *mut fd_set,
    timeout: *mut timeval,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::select(count, readable, writable, exceptional, timeout) };
    };
    // SAFETY: HOOK-1: null, or a time.
    let limit = match (!timeout.is_null()).then(|| unsafe { timeout.read_unaligned() }) {
        None => None,
        Some(time) if time.tv_sec < 0 || time.tv_usec < 0 => return fail(Errno::INVAL) as c_int,
        Some(time) => {
            let fraction = Duration::from_micros(time.tv_usec as u64);
            Some(Duration::from_secs(time.tv_sec as u64).saturating_add(fraction))
        }
    };
    let begun = guest.now();
    let sets = [readable, writable, exceptional];
    // SAFETY: HOOK-1.
    let result = unsafe { selected(guest, count, sets, limit, ptr::null()) };
    if let Some(limit) = limit {
        let left = limit.saturating_sub(guest.now().duration_since(begun));
        let (tv_sec, tv_usec) = (kernel::timespec_of(left).tv_sec, left.subsec_micros().into());
        // SAFETY: HOOK-1: not null, and select(2) writes there.
        unsafe { timeout.write_unaligned(timeval { tv_sec, tv_usec }) };
    }
    answer(result) as c_int
}

/// pselect(2).
pub unsafe extern "C-unwind" fn pselect(
    count: c_int,
    readable: *mut fd_set,
    writable: *mut fd_set,
    exceptional: *mut fd_set,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::pselect(count, readable, writable, exceptional, timeout, mask) };
    };
    let sets = [readable, writable, exceptional];
    // SAFETY: HOOK-1.
    match unsafe { limit_of(timeout) } {
        // SAFETY: HOOK-1.
        Ok(limit) => answer(unsafe { selected(guest, count, sets, limit, mask) }) as c_int,
        Err(error) => fail(error) as c_int,
    }
}

/// epoll_wait(2).
pub unsafe extern "C-unwind" fn epoll_wait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout_ms: c_int,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::epoll_wait(epoll, events, count, timeout_ms) };
    };
    let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: HOOK-1.
    answer(unsafe { awaited(guest, epoll, events, count, limit, ptr::null()) }) as c_int
}

/// epoll_pwait(2).
pub unsafe extern "C-unwind" fn epoll_pwait(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout_ms: c_int,
    mask: *const sigset_t,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::epoll_pwait(epoll, events, count, timeout_ms, mask) };
    };
    let limit = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
    // SAFETY: HOOK-1.
    answer(unsafe { awaited(guest, epoll, events, count, limit, mask) }) as c_int
}

/// epoll_pwait2(2).
pub unsafe extern "C-unwind" fn epoll_pwait2(
    epoll: c_int,
    events: *mut epoll_event,
    count: c_int,
    timeout: *const timespec,
    mask: *const sigset_t,
) -> c_int {
    let Some(guest) = guest() else {
        // SAFETY: HOOK-1.
        return unsafe { next::epoll_pwait2(epoll, events, count, timeout, mask) };
    };
    // SAFETY: HOOK-1.
    match unsafe { limit_of(timeout) } {
        // SAFETY: HOOK-1.
        Ok(limit) => answer(unsafe { awaited(guest, epoll, events, count, limit, mask) }) as c_int,
        Err(error) => fail(error) as c_int,
    }
}

/// A timeout of the user's; null is none.
///
/// # Safety
///
/// Null, or a timespec.
unsafe fn limit_of(timeout: *const timespec) -> Result<Option<Duration>, Errno> {
    if timeout.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    kernel::duration(unsafe { timeout.read_unaligned() }).map(Some)
}

/// The frame of all these calls: asks, waits, and asks again, until `ask` gives a number other than
/// zero, or the time is over.
///
/// `ask` looks without waiting. `wait` waits until the deadline at most.
fn until_ready(
    guest: Guest,
    limit: Option<Duration>,
    is_masked: bool,
    mut ask: impl FnMut() -> Result<usize, Errno>,
    mut wait: impl FnMut(Deadline) -> Result<Waited, Errno>,
) -> Result<usize, Errno> {
    may_go_on(guest)?;
    let mut deadline = None;
    loop {
        let count = ask()?;
        if count != 0 || limit == Some(Duration::ZERO) {
            guest.spend();
            return Ok(count);
        }
        let deadline = *deadline.get_or_insert_with(|| match limit {
            Some(limit) => guest.now() + limit,
            None => Deadline::NEVER,
        });
        let until = if is_masked { deadline.min(guest.now() + MASKED_EVERY) } else { deadline };
        if let Waited::TimedOut = wait(until)?
            && until == deadline
        {
            return ask();
        }
    }
}

/// poll(2), with a mask of signals or without.
///
/// # Safety
///
/// As ppoll(2).
unsafe fn polled(
    guest: Guest,
    fds: *mut pollfd,
    count: usize,
    limit: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    // SAFETY: the caller's promise: an array of `count`, which the kernel has read, for `ask` comes
    // first. By pointers: C's array may lie unaligned.
    let entry = |n| unsafe { fds.wrapping_add(n).read_unaligned() };
    let mut waiting: Option<Waiting> = None;
    let closed = std::cell::RefCell::new(Vec::new());
    let ask = || {
        // SAFETY: the caller's promise.
        let mut ready = unsafe { kernel::poll_now(fds, count, mask) }?;
        for n in (0..count).filter(|_| !closed.borrow().is_empty()) {
            let mut fd = entry(n);
            if closed.borrow().contains(&fd.fd) {
                ready += usize::from(fd.revents == 0);
                fd.revents = POLLNVAL;
                // SAFETY: the caller's promise; the kernel writes there, too.
                unsafe { fds.wrapping_add(n).write_unaligned(fd) };
            }
        }
        Ok(ready)
    };
    let wait = |deadline| {
        let waiting = waiting.get_or_insert_with(|| {
            Waiting::new(guest, (0..count).map(entry).map(|fd| (fd.fd, fd.events)))
        });
        let waited = waiting.wait(deadline)?;
        closed.borrow_mut().extend(waiting.closed());
        Ok(waited)
    };
    until_ready(guest, limit, !mask.is_null(), ask, wait)
}

/// How many bits of a set select(2) touches: no more than the process has room for descriptors.
/// Some programs say as many as the limit allows, of sets that are shorter.
fn bits_touched(count: c_int) -> c_int {
    const USUAL: c_int = libc::FD_SETSIZE as c_int;
    if count <= USUAL {
        return count;
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let room = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    count.min(room.and_then(|room| room.trim().parse().ok()).unwrap_or(USUAL))
}

/// select(2), with a mask of signals or without.
///
/// # Safety
///
/// As pselect(2).
unsafe fn selected(
    guest: Guest,
    count: c_int,
    sets: [*mut fd_set; 3],
    limit: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    if count < 0 {
        return Err(Errno::INVAL);
    }
    // Sets are arrays of words; the kernel overwrites them.
    let count = bits_touched(count);
    let words = (count as usize).div_ceil(64);
    let sets = sets.map(|set| set.cast::<u64>());
    let read = |set: *mut u64| {
        // SAFETY: the caller's promise: if not null, so many words, unaligned perhaps.
        let word = |n| unsafe { set.wrapping_add(n).read_unaligned() };
        if set.is_null() { Vec::new() } else { (0..words).map(word).collect::<Vec<u64>>() }
    };
    let asked = sets.map(read);
    let mut found = asked.clone();
    let mut waiting: Option<Waiting> = None;
    let mask_and_size = [mask.word(), SIGNALS_BYTES];
    let ask = || {
        found.clone_from(&asked);
        let [r, w, e] = found.each_mut().map(|set| match set.is_empty() {
            true => 0,
            false => set.as_mut_ptr().word(),
        });
        let mut zero = timespec { tv_sec: 0, tv_nsec: 0 };
        let (zero, pair) = ((&raw mut zero).word(), (&raw const mask_and_size).word());
        // SAFETY: our own copies of the sets, as long as `count` says; the mask is the caller's.
        unsafe { kernel::call(libc::SYS_pselect6, [count.word(), r, w, e, zero, pair]) }
    };
    let wait = |deadline| {
        let waiting = waiting.get_or_insert_with(|| {
            let events = [POLLIN, POLLOUT, POLLPRI];
            let fds = asked.iter().zip(events).flat_map(|(set, events)| {
                let has = |fd: &i32| {
                    set.get(*fd as usize / 64).is_some_and(|word| word >> (fd % 64) & 1 != 0)
                };
                (0..count).filter(has).map(move |fd| (fd, events))
            });
            Waiting::new(guest, fds)
        });
        let waited = waiting.wait(deadline)?;
        // select(2) has no word for one that is closed meanwhile but to fail.
        if waiting.closed().next().is_some() { Err(Errno::BADF) } else { Ok(waited) }
    };
    let ready = until_ready(guest, limit, !mask.is_null(), ask, wait)?;
    for (set, found) in sets.into_iter().zip(&found) {
        for (n, word) in found.iter().enumerate() {
            // SAFETY: the caller's promise: not null, or `found` would be empty.
            unsafe { set.wrapping_add(n).write_unaligned(*word) };
        }
    }
    Ok(ready)
}

/// epoll_wait(2), with a mask of signals or without: an epoll set can be waited for like any
/// descriptor.
///
/// # Safety
///
/// As epoll_pwait(2).
unsafe fn awaited(
    guest: Guest,
    epoll: RawFd,
    events: *mut epoll_event,
    count: c_int,
    limit: Option<Duration>,
    mask: *const sigset_t,
) -> Result<usize, Errno> {
    let mut waiting: Option<Waiting> = None;
    let rest = [events.word(), count.word(), 0, mask.word(), SIGNALS_BYTES];
    // SAFETY: the caller's promise; the third is the timeout.
    let ask = || unsafe { on(epoll, libc::SYS_epoll_pwait, rest) };
    let wait = |deadline| {
        let waiting = waiting.get_or_insert_with(|| Waiting::new(guest, [(epoll, POLLIN)]));
        let waited = waiting.wait(deadline)?;
        if waiting.closed().next().is_some() { Err(Errno::BADF) } else { Ok(waited) }
    };
    until_ready(guest, limit, !mask.is_null(), ask, wait)
}

/// What a call waits for.
struct Waiting {
    guest: Guest,
    /// What was asked for, without negative numbers; each number once.
    asked: Vec<(RawFd, i16, Age)>,
    /// The same, as the hub knows it.
    directions: Vec<(RawFd, Direction)>,
    how: How,
    closed: Vec<RawFd>,
}

/// How it waits.
enum How {
    /// By the hub's own registrations; not at all yet.
    Fresh,
    /// The same; once it ended for nothing, or it was refused.
    Roughly,
    /// By an epoll set with just the events asked for, each of which it tells once: what is ready
    /// at all, the kernel has been asked before.
    Precisely(OwnedFd),
    /// By looking, where no set can be made.
    Blindly,
}

impl Waiting {
    fn new(guest: Guest, fds: impl IntoIterator<Item = (RawFd, i16)>) -> Waiting {
        let mut asked: Vec<(RawFd, i16, Age)> = fds
            .into_iter()
            .filter(|(fd, _)| *fd >= 0)
            .map(|(fd, events)| (fd, events, descriptors::age_of(fd)))
            .collect();
        asked.sort_unstable_by_key(|(fd, ..)| *fd);
        asked.dedup_by(|later, first| {
            first.1 |= if later.0 == first.0 { later.1 } else { 0 };
            later.0 == first.0
        });
        let mut directions = Vec::with_capacity(asked.len());
        for (fd, events, _) in &asked {
            // A hangup is reported in both directions, whatever is asked for.
            if events & POLLOUT != 0 {
                directions.push((*fd, Direction::Write));
            }
            if events & !POLLOUT != 0 || events & POLLOUT == 0 {
                directions.push((*fd, Direction::Read));
            }
        }
        Waiting { guest, asked, directions, how: How::Fresh, closed: Vec::new() }
    }

    /// The numbers that were closed during a wait.
    fn closed(&self) -> impl Iterator<Item = RawFd> {
        self.closed.iter().copied()
    }

    /// Waits until one of them may be ready. Each wait after the first one follows one that ended
    /// for nothing.
    fn wait(&mut self, deadline: Deadline) -> Result<Waited, Errno> {
        if !descriptors::is_a_guests(self.guest) {
            return self.wait_for_real(deadline); // A child that nobody was told of.
        }
        let watches: Vec<Watch> =
            self.asked.iter().map(|(fd, _, age)| Watch::new(*fd, *age)).collect();
        let watches = watches.into_boxed_slice();
        let watches = Box::into_pin(watches);
        let set;
        let fds = match &self.how {
            How::Fresh => &self.directions[..],
            How::Roughly => {
                self.how = self.made_precise();
                return self.wait(deadline);
            }
            How::Precisely(epoll) => {
                set = [(epoll.as_raw_fd(), Direction::Read)];
                &set
            }
            How::Blindly => {
                let until = deadline.min(self.guest.now() + BLIND_EVERY);
                call::sleep(self.guest, until)?;
                return Ok(if until == deadline { Waited::TimedOut } else { Waited::Ready });
            }
        };
        let waited = call::wait_any(self.guest, fds, watches.as_ref(), deadline);
        if let How::Precisely(epoll) = &self.how {
            self.take_told(epoll); // Before the kernel is asked: what comes after is told again.
        }
        self.closed.extend(watches.iter().filter(|watch| watch.is_closed()).map(Watch::fd));
        // What was registered may be a file that is gone.
        let is_stale = watches.iter().any(Watch::is_stale);
        if is_stale || matches!(self.how, How::Fresh) {
            self.how = How::Roughly;
        }
        match waited {
            // A number that is not open, a file that cannot be polled: poll(2) has a word for it.
            Err(Errno::BADF | Errno::PERM | Errno::NOSPC | Errno::NOMEM | Errno::LOOP) => {
                Ok(Waited::Ready)
            }
            waited => waited,
        }
    }

    /// An epoll set with just what was asked for.
    fn made_precise(&self) -> How {
        let Ok(set) = epoll::create(epoll::CreateFlags::CLOEXEC) else { return How::Blindly };
        for (fd, events, _) in &self.asked {
            let events = epoll::EventFlags::from_bits_retain(u32::from(*events as u16));
            let events = events | epoll::EventFlags::ET;
            // SAFETY: the number is the user's, and passed to one call.
            let fd = unsafe { kernel::borrowed(*fd) };
            match epoll::add(&set, fd, epoll::EventData::new_u64(0), events) {
                // One that cannot be polled is never ready for what it was not ready for at once.
                Ok(()) | Err(Errno::PERM | Errno::BADF) => {}
                Err(_) => return How::Blindly,
            }
        }
        How::Precisely(set)
    }

    /// Takes out of the set what it has told.
    fn take_told(&self, epoll: &OwnedFd) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut told = Vec::with_capacity(self.asked.len().max(1));
        // If it fails, the set tells it again.
        let _ = epoll::wait(epoll, spare_capacity(&mut told), Some(&zero));
    }

    /// Blocks the OS thread: it is all that such a child has.
    fn wait_for_real(&self, deadline: Deadline) -> Result<Waited, Errno> {
        let entry =
            |(fd, events, _): &(RawFd, i16, Age)| pollfd { fd: *fd, events: *events, revents: 0 };
        let mut fds: Vec<pollfd> = self.asked.iter().map(entry).collect();
        let left = (!deadline.is_never()).then(|| deadline.duration_since(self.guest.now()));
        match kernel::poll_for_real(&mut fds, left)? {
            0 => Ok(Waited::TimedOut),
            _ => Ok(Waited::Ready),
        }
    }
}

// The events of poll(2) and epoll(7) have the same bits.
const _: () = assert!(POLLIN as i32 == libc::EPOLLIN && POLLPRI as i32 == libc::EPOLLPRI);
const _: () = assert!(POLLOUT as i32 == libc::EPOLLOUT);
