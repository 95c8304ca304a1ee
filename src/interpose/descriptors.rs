//! Who waits for which descriptor, in all threads: so that whoever closes one can tell them.
//!
//! Floor 8. Uses: `lock`, the hubs' inboxes. Used by: `call`, `poll`, `close`.
//!
//! To the kernel, a close ends nobody's wait, and the number may name another file the next
//! moment. So each number has an *age*, which every close adds to when it begins, and a list of who
//! waits for it.
//!
//! ```text
//! age n ──begin_close──▶ age n + 1, being closed ──the call, and the end──▶ age n + 1
//!         (those of age n get EBADF)                 (those of age n + 1 try again)
//! ```
//!
//! A hooked call remembers the age that it began at. It waits only while the number still has it;
//! a closer tells those in the list, *before* the number is free, and they end with `EBADF`.
//! A call that begins while the number is being closed may have found the old file or the next
//! one; so when the close has ended it tries again. What a descriptor is, the kernel is asked
//! (`kernel`); what is remembered of the answers stands under the age (`recall`).
//!
//! Closes that no hook sees change no age. Those who waited then wait for a file that is gone,
//! until another wait for the same number, which finds the file changed, sends them off
//! to try again.
//!
//! # Invariants
//!
//! - `NUMBER-1` A [`Watch`] is in its list only while the frame that has it waits: `Listed` takes
//!   it out when it is dropped. A virtual thread that is frozen for ever keeps its stack.
//! - `NUMBER-2` Lists are touched under their shard's lock alone.
//! - `NUMBER-3` Whoever waits counts itself, then looks at the age; whoever closes changes the age,
//!   then looks at the count: one of them sees the other.
//! - `NUMBER-4` The table belongs to one process. The child of a vfork, which shares it, changes
//!   nothing; the child of a fork begins anew.

#![expect(unsafe_code, reason = "lists through the frames of those who wait, and pages by mmap")]
//! # Safety
//!
//! Nodes live in frames (`NUMBER-1`), and neighbours are reached under a lock (`NUMBER-2`). Pages
//! of the table are never unmapped.

use std::{
    cell::UnsafeCell,
    marker::PhantomPinned,
    os::fd::RawFd,
    pin::Pin,
    ptr,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed, Release, SeqCst},
        atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize},
    },
};

use rustix::io::Errno;

use super::{
    kernel,
    lock::{Held, Owned},
    marked, window,
};
use crate::{
    hub::{Hub, Message, fork, guest::Guest, park::Wake},
    reactor::Inbox,
};

/// Numbers to a page of the table.
const PAGE: usize = 1024;

/// Pages: numbers from 2^24 on, which no limit on open files allows by default, are not watched.
const PAGES: usize = 16 * 1024;

/// Lists, each for the numbers that are equal modulo this.
const SHARDS: usize = 64;

/// One who is closing, in the low part of a number's state; its age is the part above.
const CLOSER: u64 = 1;
const AGE: u64 = 1 << 16;

/// Hints of a number.
const SOCKET: u8 = 1;
const OTHER: u8 = 2;

/// What is known of one number.
pub(super) struct Number {
    /// Its age, and how many are closing it just now.
    state: AtomicU64,
    /// How many watches are in its list, or about to be.
    waiting: AtomicU32,
    /// Whether it was a socket when last asked: then that is tried first, and found out if wrong.
    /// And whether it was not of the kind that `recall` knows: then nothing is remembered of it.
    hint: AtomicU8,
}

static TABLE: [AtomicPtr<Number>; PAGES] = [const { AtomicPtr::new(ptr::null_mut()) }; PAGES];

/// The first watch of each list.
static LISTS: [Owned<First>; SHARDS] = [const { Owned::new(First(ptr::null())) }; SHARDS];

/// A list: newest first.
struct First(*const Links);

// SAFETY: what it points to is touched under the lock alone (NUMBER-2), and lives as long as it is
// in the list (NUMBER-1).
unsafe impl Send for First {}

/// Whose table this is (`NUMBER-4`): 0 before the first wait.
static PROCESS: AtomicI32 = AtomicI32::new(0);
/// By how many forks that process came to be.
static FORKS: AtomicUsize = AtomicUsize::new(0);
/// A thread of it is about to make the table its own.
static FORKING: AtomicBool = AtomicBool::new(false);

/// How often a number had begun to be closed at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Age(u64);

impl Age {
    /// As a number to be compared.
    pub(super) fn word(self) -> u64 {
        self.0
    }
}

/// The age of `fd` now.
#[inline]
pub(super) fn age_of(fd: RawFd) -> Age {
    Age(state_of(fd) / AGE)
}

/// Whether `fd` is what it was at `age`; `false` while somebody closes it just now.
///
/// # Errors
///
/// `EBADF`: it was closed since.
pub(super) fn is_open(fd: RawFd, age: Age) -> Result<bool, Errno> {
    let state = state_of(fd);
    if Age(state / AGE) == age { Ok(state.is_multiple_of(AGE)) } else { Err(Errno::BADF) }
}

/// Whether every close of `fd` is counted: not of a number that the table has no room for.
pub(super) fn is_counted(fd: RawFd) -> bool {
    known(fd).is_some()
}

fn state_of(fd: RawFd) -> u64 {
    known(fd).map_or(0, |number| number.state.load(SeqCst))
}

/// Whether `fd` was a socket when last asked.
#[inline]
pub(super) fn was_socket(fd: RawFd) -> bool {
    known(fd).is_some_and(|number| number.hint.load(Relaxed) & SOCKET != 0)
}

/// Remembers for the next call what to try first.
pub(super) fn note_socket(fd: RawFd, is_socket: bool) {
    if let Some(number) = number_of(fd) {
        number.hint.store(u8::from(is_socket) * SOCKET, Relaxed);
    }
}

/// Whether nothing is to be remembered of `fd`.
pub(super) fn was_other(fd: RawFd) -> bool {
    known(fd).is_some_and(|number| number.hint.load(Relaxed) & OTHER != 0)
}

/// Nothing is to be remembered of `fd`, until it is closed.
pub(super) fn note_other(fd: RawFd) {
    if let Some(number) = number_of(fd) {
        number.hint.fetch_or(OTHER, Relaxed);
    }
}

/// What the table has of `fd`, if its page was ever needed.
#[inline]
fn known(fd: RawFd) -> Option<&'static Number> {
    let at = usize::try_from(fd).ok()?;
    let page = TABLE.get(at / PAGE)?.load(Acquire);
    // SAFETY: null, or a page of `PAGE` numbers that is never unmapped; zeroes are a Number, and
    // it is changed through atomics alone.
    let page = unsafe { page.cast::<[Number; PAGE]>().as_ref() }?;
    Some(&page[at % PAGE])
}

/// What the table has of `fd`; its page is made if need be. By mmap, since this may be inside an
/// allocator's lock.
fn number_of(fd: RawFd) -> Option<&'static Number> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    if let Some(number) = known(fd) {
        return Some(number);
    }
    let place = TABLE.get(usize::try_from(fd).ok()? / PAGE)?;
    let bytes = size_of::<[Number; PAGE]>();
    // SAFETY: a new mapping, wherever there is room.
    let page = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            bytes,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let page = page.ok()?.cast::<Number>();
    if place.compare_exchange(ptr::null_mut(), page, Release, Relaxed).is_err() {
        // SAFETY: ours, and nobody has seen it: another thread was faster.
        let _ = unsafe { munmap(page.cast(), bytes) };
    }
    known(fd)
}

/// What is called when a number is closed.
struct Target {
    inbox: Arc<Inbox<Message>>,
    wake: Wake,
}

/// One watch's place in a list.
struct Links {
    fd: RawFd,
    /// Somebody closes the number: the wait is over.
    is_closed: AtomicBool,
    /// Somebody has closed it: what the wait is for is to be tried again.
    is_stale: AtomicBool,
    inner: UnsafeCell<Inner>,
}

/// What is touched under the lock (`NUMBER-2`).
struct Inner {
    next: *const Links,
    previous: *const Links,
    target: Option<Target>,
}

// SAFETY: thread A waits with it, thread B closes: `inner` is touched under a lock (NUMBER-2).
unsafe impl Sync for Links {}

/// A wait for one number at a given age: lives in the frame of who waits.
pub(super) struct Watch {
    links: Links,
    age: Age,
    /// The state when it was made.
    state: u64,
    _pinned: PhantomPinned,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("fd", &self.links.fd).field("age", &self.age).finish()
    }
}

impl Watch {
    /// A watch for `fd`, for a call that began at `age`; not in a list yet.
    pub(super) fn new(fd: RawFd, age: Age) -> Watch {
        let inner = Inner { next: ptr::null(), previous: ptr::null(), target: None };
        let (is_closed, is_stale) = (AtomicBool::new(false), AtomicBool::new(false));
        let links = Links { fd, is_closed, is_stale, inner: UnsafeCell::new(inner) };
        Watch { links, age, state: state_of(fd), _pinned: PhantomPinned }
    }

    pub(super) fn fd(&self) -> RawFd {
        self.links.fd
    }

    /// Whether the number has begun to be closed since the age that was given.
    pub(super) fn is_closed(&self) -> bool {
        self.links.is_closed.load(Acquire) || age_of(self.links.fd) != self.age
    }

    /// Whether a close that was under way when this was made has ended: it may watch a file that is
    /// gone.
    pub(super) fn is_stale(&self) -> bool {
        self.links.is_stale.load(Acquire) || state_of(self.links.fd) != self.state
    }

    /// Puts it in its list: from now on a closer sends `wake` to `hub`. If one came before, it is
    /// sent here.
    pub(super) fn list(self: Pin<&Self>, hub: &Hub, wake: Wake) -> Listed<'_> {
        let watch = self.get_ref();
        let listed = Listed { watch, number: number_of(watch.fd()) };
        let Some(number) = listed.number else { return listed };
        number.waiting.fetch_add(1, SeqCst);
        let target = Some(Target { inbox: Arc::clone(hub.inbox()), wake });
        if let Some(mut list) = list_of(watch.fd()) {
            let first = list.0;
            // SAFETY: NUMBER-2, and this one is in no list, so nobody else has its `inner`.
            unsafe {
                *watch.links.inner.get() = Inner { next: first, previous: ptr::null(), target }
            };
            // SAFETY: NUMBER-1: `first` is null or lives, since it is in the list; NUMBER-2.
            if let Some(first) = unsafe { first.as_ref() } {
                // SAFETY: NUMBER-2.
                unsafe { (*first.inner.get()).previous = &raw const watch.links };
            }
            list.0 = &raw const watch.links;
        }
        if watch.is_closed() || watch.is_stale() {
            hub.wake(wake); // NUMBER-3
        }
        listed
    }
}

/// The watches of a pinned slice, pinned.
pub(super) fn each(watches: Pin<&[Watch]>) -> impl Iterator<Item = Pin<&Watch>> {
    // SAFETY: what a pinned slice has is pinned with it.
    watches.get_ref().iter().map(|watch| unsafe { Pin::new_unchecked(watch) })
}

/// A watch is in its list, until this is dropped (`NUMBER-1`).
pub(super) struct Listed<'w> {
    watch: &'w Watch,
    number: Option<&'static Number>,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        let links = &raw const self.watch.links;
        let mut gone = None;
        if let Some(mut list) = list_of(self.watch.fd()) {
            // SAFETY: NUMBER-2.
            let inner = unsafe { &mut *self.watch.links.inner.get() };
            let (next, previous) = (inner.next, inner.previous);
            gone = inner.target.take();
            // SAFETY: NUMBER-1: neighbours in the list live.
            if let Some(next) = unsafe { next.as_ref() } {
                // SAFETY: NUMBER-2, and it is another watch than this one.
                unsafe { (*next.inner.get()).previous = previous };
            }
            // SAFETY: as for `next`.
            match unsafe { previous.as_ref() } {
                // SAFETY: as for `next`.
                Some(previous) => unsafe { (*previous.inner.get()).next = next },
                None if ptr::eq(list.0, links) => list.0 = next,
                None => {} // The child of a fork has begun a new list (NUMBER-4).
            }
        }
        drop(gone); // Not under the lock: it may be the last that keeps an inbox (OWNED-1).
        number.waiting.fetch_sub(1, SeqCst);
    }
}

/// The list of `fd`; `None` in a signal handler that came while this thread had it: then a close
/// wakes nobody.
fn list_of(fd: RawFd) -> Option<Held<'static, First>> {
    LISTS[fd as usize % SHARDS].take()
}

/// The same as [`is_ours`], for a guest that is about to wait; called before each wait.
#[inline]
pub(super) fn is_a_guests(_: Guest) -> bool {
    marked::is_marked() || is_ours_to_mark()
}

#[cold]
fn is_ours_to_mark() -> bool {
    let is_ours = is_ours();
    if is_ours {
        marked::mark();
    }
    is_ours
}

/// Whether the table is this process's own (`NUMBER-4`), to whoever calls.
///
/// The child of a vfork gets `false`, and has to do without.
pub(super) fn is_ours() -> bool {
    let (me, forks) = (kernel::process(), fork::generation());
    let owner = PROCESS.load(Relaxed);
    if owner == me {
        return true;
    }
    if owner != 0 && FORKS.load(Relaxed) == forks {
        return false;
    }
    // The first wait of this process: one of its threads makes the table its own.
    if FORKING.swap(true, SeqCst) {
        while PROCESS.load(Acquire) != me {
            std::hint::spin_loop();
        }
        return true;
    }
    // Another one may have done so since it was asked above, and wait by now.
    if PROCESS.load(Acquire) != me {
        begin_anew();
        FORKS.store(forks, Relaxed);
        PROCESS.store(me, Release);
    }
    FORKING.store(false, Release);
    true
}

/// Forgets what a fork has copied: it names threads and frames that are not in this process.
fn begin_anew() {
    window::release_in_child();
    LISTS.iter().for_each(Owned::release_in_child);
    LISTS.iter().filter_map(Owned::take).for_each(|mut list| list.0 = ptr::null());
    let pages = TABLE.iter().enumerate().filter(|(_, page)| !page.load(Relaxed).is_null());
    for fd in pages.flat_map(|(page, _)| page * PAGE..(page + 1) * PAGE) {
        if let Some(number) = known(fd as RawFd) {
            number.waiting.store(0, Relaxed);
            number.state.store(0, Relaxed);
        }
    }
}

/// Numbers are being closed, until this is dropped.
#[must_use]
#[expect(clippy::large_enum_variant, reason = "it lives in one frame, for one call")]
pub(super) enum Closing {
    One(RawFd, &'static Number),
    /// From the first to the last, in the pages that the table had at the beginning.
    Several(usize, usize, [u64; PAGES / 64]),
}

/// Says that `fd` is about to be closed, or to name another file: wakes all who wait for it. What
/// closes it comes next, then the drop. `None`: nobody could care.
pub(super) fn begin_close(fd: RawFd) -> Option<Closing> {
    if !is_owner() {
        return None;
    }
    let number = number_of(fd)?;
    begin_one(fd, number);
    window::await_none(fd);
    Some(Closing::One(fd, number))
}

/// The same for all numbers from `first` to `last`.
pub(super) fn begin_close_range(first: u32, last: u32) -> Option<Closing> {
    if !is_owner() || last < first {
        return None;
    }
    let mut pages = [0; PAGES / 64];
    let (first, last) = (first as usize, (last as usize).min(PAGES * PAGE - 1));
    for page in first / PAGE..=last / PAGE {
        if TABLE.get(page).is_some_and(|page| !page.load(Acquire).is_null()) {
            pages[page / 64] |= 1 << (page % 64);
        }
    }
    let closing = Closing::Several(first, last, pages);
    closing.each(begin_one);
    window::await_none_at_all();
    Some(closing)
}

fn begin_one(fd: RawFd, number: &Number) {
    number.state.fetch_add(AGE + CLOSER, SeqCst);
    number.hint.fetch_and(SOCKET, Relaxed);
    if number.waiting.load(SeqCst) != 0 {
        tell(fd, |links| &links.is_closed);
    }
}

/// Whether there is a table, and it is this process's own: asked by whoever closes (`NUMBER-4`).
fn is_owner() -> bool {
    let owner = PROCESS.load(Acquire);
    owner != 0 && owner == kernel::process()
}

impl Closing {
    /// Calls `f` with each number.
    fn each(&self, f: impl Fn(RawFd, &Number)) {
        let Closing::Several(first, last, pages) = self else { return };
        let has = |page: &usize| pages[page / 64] & 1 << (page % 64) != 0;
        for page in (first / PAGE..=last / PAGE).filter(has) {
            for fd in (page * PAGE).max(*first)..=(page * PAGE + PAGE - 1).min(*last) {
                if let Some(number) = known(fd as RawFd) {
                    f(fd as RawFd, number);
                }
            }
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let end = |fd, number: &Number| {
            number.state.fetch_sub(CLOSER, SeqCst);
            if number.waiting.load(SeqCst) != 0 {
                tell(fd, |links| &links.is_stale);
            }
        };
        match *self {
            Closing::One(fd, number) => end(fd, number),
            Closing::Several(..) => self.each(end),
        }
    }
}

/// Sets a flag of all who are in the list of `fd`, and wakes them. An inbox has a lock of its own,
/// so it is told when the list's lock is free again (`OWNED-1`).
fn tell(fd: RawFd, flag: impl Fn(&Links) -> &AtomicBool) {
    loop {
        let mut told: [Option<(Arc<Inbox<Message>>, Wake)>; 8] = [const { None }; 8];
        let mut count = 0;
        if let Some(list) = list_of(fd) {
            let mut at = list.0;
            // SAFETY: NUMBER-1, NUMBER-2: what is in the list lives while the lock is held.
            while let Some(links) = unsafe { at.as_ref() }
                && count < told.len()
            {
                // SAFETY: NUMBER-2.
                let inner = unsafe { &*links.inner.get() };
                if links.fd == fd
                    && !flag(links).swap(true, SeqCst)
                    && let Some(target) = &inner.target
                {
                    told[count] = Some((Arc::clone(&target.inbox), target.wake));
                    count += 1;
                }
                at = inner.next;
            }
        }
        for (inbox, wake) in told.into_iter().flatten() {
            // A hub that has ended has nobody who waits.
            let _ = inbox.push(Message::Wake(wake));
        }
        if count < 8 {
            return;
        }
    }
}
