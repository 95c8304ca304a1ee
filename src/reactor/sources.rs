//! Sources: what a reactor knows of each descriptor, and who waits for it.
//!
//! Floor 3. Uses: `sys::Poller`. Used by: `reactor`. Knows nothing of: what a waiter is (`W`).
//!
//! The table is indexed by descriptor number. Each entry carries the identity of its registration,
//! because numbers are reused: an identity is drawn for every socket when it is made (they are
//! unique in the process, so a socket may move to another thread and register anew there), and for
//! every wait on a descriptor that this crate does not own.
//!
//! # States of one direction
//!
//! ```text
//! ready ──clear (EAGAIN; or a short read or write, unless closed)──▶ blocked
//!   ▲                                                                  │
//!   └──────────────────────── event from the poller ───────────────────┘  (wakes all waiters)
//! ```
//!
//! # Invariants
//!
//! - `SOURCE-1` An event counts only if its generation (the low half of the identity) is that of
//!   the entry: events of a closed descriptor are dropped.
//! - `SOURCE-2` Readiness is cleared only by whoever has just seen the operation block, on the
//!   reactor's own thread, before the next poll: an edge that comes later is reported later.
//! - `SOURCE-3` A waiter is in at most one list, and leaves it by an event, by `remove_waiter`, or
//!   when its registration ends.
//!
//! # Source
//!
//! tokio `scheduled_io.rs` for the short-read rule; Go `netpoll.go` for generations.

use std::{
    collections::VecDeque,
    io,
    num::NonZeroU64,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sys::{Event, Poller};

/// Which way data flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Towards us: recv, accept.
    Read,
    /// Away from us: send, connect.
    Write,
}

/// The identity of a registration, unique in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceId(NonZeroU64);

impl SourceId {
    /// An identity that no other source has.
    pub(crate) fn unique() -> SourceId {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        SourceId(NonZeroU64::new(id).expect("fewer than 2^64 sources"))
    }

    fn token(self, fd: RawFd) -> u64 {
        (self.0.get() << 32) | u64::from(fd as u32)
    }
}

/// Waiters in the order of their coming; one costs no allocation.
#[derive(Debug)]
struct Waiters<W> {
    first: Option<W>,
    #[expect(clippy::box_collection, reason = "one word an entry: hardly any has a second waiter")]
    rest: Option<Box<VecDeque<W>>>,
}

impl<W: Copy + PartialEq> Waiters<W> {
    const EMPTY: Waiters<W> = Waiters { first: None, rest: None };

    fn push(&mut self, waiter: W) {
        if self.first.is_none() {
            self.first = Some(waiter);
        } else {
            self.rest.get_or_insert_default().push_back(waiter);
        }
    }

    fn pop(&mut self) -> Option<W> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    /// Hands all of them to `each`, and returns how many there were.
    #[inline]
    fn drain(&mut self, each: &mut impl FnMut(W)) -> usize {
        let Some(first) = self.first.take() else { return 0 };
        each(first);
        let Some(rest) = &mut self.rest else { return 1 };
        let count = 1 + rest.len();
        rest.drain(..).for_each(each);
        count
    }

    fn remove(&mut self, waiter: W) -> bool {
        if self.first == Some(waiter) {
            self.pop();
            return true;
        }
        let Some(rest) = &mut self.rest else { return false };
        let Some(place) = rest.iter().position(|w| *w == waiter) else { return false };
        rest.remove(place);
        true
    }
}

/// A cache line, when `W` is what the hub uses.
#[derive(Debug)]
#[repr(align(64))]
struct Entry<W> {
    /// Whose registration this is; `None` when nobody's.
    id: Option<SourceId>,
    read_ready: bool,
    write_ready: bool,
    /// The peer's end or an error was reported: short reads prove nothing any more.
    closed: bool,
    readers: Waiters<W>,
    writers: Waiters<W>,
}

impl<W> Entry<W> {
    fn ready(&mut self, direction: Direction) -> &mut bool {
        match direction {
            Direction::Read => &mut self.read_ready,
            Direction::Write => &mut self.write_ready,
        }
    }

    fn waiters(&mut self, direction: Direction) -> &mut Waiters<W> {
        match direction {
            Direction::Read => &mut self.readers,
            Direction::Write => &mut self.writers,
        }
    }
}

/// What the floors above have found of the file that a number names: two numbers of theirs, which
/// are compared and mean nothing here.
pub(crate) type Found = [u64; 2];

/// What one reactor knows of its descriptors.
#[derive(Debug)]
pub(crate) struct Sources<W> {
    entries: Vec<Entry<W>>,
    /// What was found of a registration, by number; most never have any.
    found: Vec<Option<(SourceId, Found)>>,
    /// How many waiters are in all lists together.
    waiting: usize,
}

impl<W: Copy + PartialEq> Sources<W> {
    pub(super) const fn new() -> Sources<W> {
        Sources { entries: Vec::new(), found: Vec::new(), waiting: 0 }
    }

    /// How many waiters there are.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    fn entry(&mut self, fd: RawFd, id: SourceId) -> Option<&mut Entry<W>> {
        self.entries.get_mut(fd as usize).filter(|entry| entry.id == Some(id))
    }

    /// Whether an operation is known to block now, so that trying it would waste a system call.
    pub(crate) fn is_blocked(&mut self, fd: RawFd, id: SourceId, direction: Direction) -> bool {
        self.entry(fd, id).is_some_and(|entry| !*entry.ready(direction))
    }

    /// The operation was seen to block.
    pub(crate) fn clear(&mut self, fd: RawFd, id: SourceId, direction: Direction) {
        if let Some(entry) = self.entry(fd, id) {
            *entry.ready(direction) = false;
        }
    }

    /// The operation moved fewer bytes than asked for: the next one would block, unless the end
    /// is near.
    pub(crate) fn clear_after_short(&mut self, fd: RawFd, id: SourceId, direction: Direction) {
        if let Some(entry) = self.entry(fd, id)
            && !entry.closed
        {
            *entry.ready(direction) = false;
        }
    }

    /// Makes sure that the poller watches `fd` under `id`.
    ///
    /// The first time, both directions count as blocked until the poller reports: it does so at
    /// once for what is ready. Waiters of an earlier registration of the same number are handed to
    /// `orphan`: their descriptor is gone.
    pub(super) fn register(
        &mut self,
        poller: &Poller,
        fd: BorrowedFd<'_>,
        id: SourceId,
        orphan: &mut impl FnMut(W),
    ) -> io::Result<()> {
        if self.entry(fd.as_raw_fd(), id).is_some() {
            return Ok(());
        }
        self.occupy(fd.as_raw_fd(), id, orphan);
        let token = id.token(fd.as_raw_fd());
        let done = match poller.add(fd, token) {
            // The file is known under this number: its last owner here has given the descriptor
            // away, and it has come back.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                poller.rearm(fd, token).map(drop)
            }
            done => done,
        };
        if done.is_err() {
            self.entries[fd.as_raw_fd() as usize].id = None;
        }
        done
    }

    /// Starts a wait on a descriptor that this crate does not own.
    ///
    /// If the number still names the file that it named at the last wait, those who wait already go
    /// on waiting. If not, the registration is a new one, and they go to `orphan`.
    pub(super) fn register_foreign(
        &mut self,
        poller: &Poller,
        fd: BorrowedFd<'_>,
        orphan: &mut impl FnMut(W),
    ) -> io::Result<SourceId> {
        let number = fd.as_raw_fd();
        if let Some(entry) = self.entries.get_mut(number as usize)
            && let Some(id) = entry.id
            && poller.rearm(fd, id.token(number))?
        {
            (entry.read_ready, entry.write_ready) = (false, false);
            return Ok(id);
        }
        let id = SourceId::unique();
        self.register(poller, fd, id, orphan)?;
        Ok(id)
    }

    /// Keeps what was found of a descriptor, as long as its registration lasts.
    pub(crate) fn note(&mut self, fd: RawFd, found: Found) {
        let number = fd as usize;
        let Some(id) = self.entries.get(number).and_then(|entry| entry.id) else { return };
        if self.found.len() <= number {
            self.found.resize(number + 1, None);
        }
        self.found[number] = Some((id, found));
    }

    /// The registration of `fd`, if just this was found of it.
    pub(crate) fn noted(&self, fd: RawFd, found: Found) -> Option<SourceId> {
        let (id, noted) = (*self.found.get(fd as usize)?)?;
        let is_current = self.entries[fd as usize].id == Some(id);
        (is_current && noted == found).then_some(id)
    }

    /// Forgets what was found of `fd`.
    pub(crate) fn forget_found(&mut self, fd: RawFd) {
        if let Some(found) = self.found.get_mut(fd as usize) {
            *found = None;
        }
    }

    /// Whether the peer's end, an error or urgent data was reported: a short read proves nothing.
    pub(crate) fn is_closed(&mut self, fd: RawFd, id: SourceId) -> bool {
        self.entry(fd, id).is_none_or(|entry| entry.closed)
    }

    fn occupy(&mut self, fd: RawFd, id: SourceId, orphan: &mut impl FnMut(W)) {
        let number = fd as usize;
        while self.entries.len() <= number {
            self.entries.push(Entry {
                id: None,
                read_ready: false,
                write_ready: false,
                closed: false,
                readers: Waiters::EMPTY,
                writers: Waiters::EMPTY,
            });
        }
        self.vacate(number, orphan);
        self.entries[number].id = Some(id);
    }

    fn vacate(&mut self, number: usize, orphan: &mut impl FnMut(W)) {
        let entry = &mut self.entries[number];
        entry.id = None;
        (entry.read_ready, entry.write_ready, entry.closed) = (false, false, false);
        for direction in [Direction::Read, Direction::Write] {
            self.waiting -= entry.waiters(direction).drain(orphan);
        }
    }

    /// Ends a registration; its waiters go to `orphan`. Returns whether there was one.
    pub(super) fn forget(&mut self, fd: RawFd, id: SourceId, orphan: &mut impl FnMut(W)) -> bool {
        if self.entry(fd, id).is_none() {
            return false;
        }
        self.vacate(fd as usize, orphan);
        true
    }

    /// Takes every waiter of a source out, to be told that it is closing.
    pub(super) fn evict(&mut self, fd: RawFd, id: SourceId, orphan: &mut impl FnMut(W)) {
        let Some(entry) = self.entry(fd, id) else { return };
        (entry.read_ready, entry.write_ready, entry.closed) = (true, true, true);
        let evicted = entry.readers.drain(orphan) + entry.writers.drain(orphan);
        self.waiting -= evicted;
    }

    /// Puts a waiter at the end of the list. Returns whether there is one: whether the source is
    /// registered.
    #[inline]
    pub(crate) fn add_waiter(
        &mut self,
        fd: RawFd,
        id: SourceId,
        direction: Direction,
        waiter: W,
    ) -> bool {
        let Some(entry) = self.entry(fd, id) else { return false };
        entry.waiters(direction).push(waiter);
        self.waiting += 1;
        true
    }

    /// Takes a waiter out, if it is still there.
    pub(crate) fn remove_waiter(&mut self, fd: RawFd, direction: Direction, waiter: W) {
        let Some(entry) = self.entries.get_mut(fd as usize) else { return };
        if entry.waiters(direction).remove(waiter) {
            self.waiting -= 1;
        }
    }

    /// Applies an event of the poller; the waiters that it concerns go to `wake`, oldest first.
    pub(super) fn apply(&mut self, event: Event, wake: &mut impl FnMut(W)) {
        let fd = event.token as u32 as usize;
        let Some(entry) = self.entries.get_mut(fd) else { return };
        let current = entry.id.is_some_and(|id| id.token(fd as RawFd) == event.token);
        if !current {
            return; // SOURCE-1
        }
        entry.closed |= event.closed;
        let directions = [(Direction::Read, event.readable), (Direction::Write, event.writable)];
        for (direction, ready) in directions {
            if !ready {
                continue;
            }
            *entry.ready(direction) = true;
            self.waiting -= entry.waiters(direction).drain(wake);
        }
    }
}
