//! What other threads may see of a hub while it runs: whether it gets on.
//!
//! Floor 4. Uses: atomics that one thread writes. Used by: `run`, which beats; `watchdog` and
//! `dump`, which look.
//!
//! # Threads
//!
//! A hub lists its pulse when its run begins and strikes it off when that ends. The list belongs to
//! a process: a child of `fork` finds the list of its parent, whose lock may be held by a thread
//! that the child does not have, and makes a new one.
//!
//! # Invariants
//!
//! - `PULSE-1` An entry of the list points to the beats of a hub that runs: [`Listed`] borrows them
//!   from before it makes the entry until it has taken it off. Entries are seen under the list's
//!   lock only, and are not copied.

#![expect(unsafe_code, reason = "beats lie in the hub, where a resume finds them without a detour")]
//! # Safety
//!
//! Pointers are dereferenced under `PULSE-1`; and one to a box that is never freed.

use std::{
    ptr::{self, NonNull},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    process::{Pid, getpid},
};

use super::Message;
use crate::reactor::Inbox;

/// How many times a hub has resumed a greenlet. It alone writes, by a plain store.
#[derive(Default)]
pub(super) struct Beats(AtomicU64);

impl Beats {
    /// Counts a resume.
    #[inline(always)]
    pub(super) fn beat(&self) {
        self.0.store(self.count().wrapping_add(1), Ordering::Relaxed);
    }

    #[inline(always)]
    pub(super) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What does not change while a hub runs, and how long it is let do what it does.
pub(super) struct Pulse {
    /// How long a greenlet may keep the thread, in nanoseconds; 0 when nobody watches.
    limit_ns: AtomicU64,
    /// The hub's thread, as the kernel calls it.
    pub(super) tid: Pid,
    /// Its name.
    pub(super) thread: Option<String>,
    pub(super) inbox: Arc<Inbox<Message>>,
}

impl Pulse {
    pub(super) fn new(inbox: Arc<Inbox<Message>>) -> Pulse {
        Pulse {
            limit_ns: AtomicU64::new(0),
            tid: rustix::thread::gettid(),
            thread: std::thread::current().name().map(str::to_owned),
            inbox,
        }
    }

    /// How long a greenlet may keep the thread.
    pub(super) fn limit(&self) -> Option<Duration> {
        match self.limit_ns.load(Ordering::Relaxed) {
            0 => None,
            limit => Some(Duration::from_nanos(limit)),
        }
    }

    pub(super) fn set_limit(&self, limit: Option<Duration>) {
        let nanos = |limit: Duration| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.limit_ns.store(limit.map_or(0, nanos), Ordering::Relaxed);
    }

    /// The thread, for people.
    pub(super) fn thread_name(&self) -> String {
        match &self.thread {
            Some(name) => format!("thread '{name}'"),
            None => format!("thread {}", self.tid),
        }
    }
}

/// A hub on the list.
pub(super) struct Entry {
    pub(super) pulse: Arc<Pulse>,
    beats: NonNull<Beats>,
}

// SAFETY: the beats are shared: an atomic, which the hub's thread writes and whoever has the list's
// lock reads.
unsafe impl Send for Entry {}

impl Entry {
    /// How many times its hub has resumed a greenlet.
    pub(super) fn resumes(&self) -> u64 {
        // SAFETY: PULSE-1: whoever has an entry has the list's lock, so the hub still runs.
        unsafe { self.beats.as_ref() }.count()
    }
}

/// The pulses of a process, and who looks at them.
pub(super) struct Registry {
    pid: Pid,
    pulses: Mutex<Vec<Entry>>,
    /// Rung to have the watchdog look again: hubs or limits have changed, or a dump is asked for.
    bell: Option<std::os::fd::OwnedFd>,
    /// How many dumps signals have asked for.
    pub(super) asked: AtomicU64,
    /// Held while the watchdog thread is started: whether it was.
    pub(super) watched: Mutex<bool>,
    /// Held while a thread is asked who keeps it.
    pub(super) asking: Mutex<()>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

impl Registry {
    /// That of this process.
    pub(super) fn get() -> &'static Registry {
        // Read once: what is replaced below is what was found not to be of this process.
        let before = REGISTRY.load(Ordering::Acquire);
        // SAFETY: null, or a box that was leaked: stored once, never freed.
        let found: Option<&'static Registry> = unsafe { before.as_ref() };
        if let Some(registry) = found.filter(|found| found.pid == getpid()) {
            return registry;
        }
        let made = Box::into_raw(Box::new(Registry {
            pid: getpid(),
            pulses: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok(),
            asked: AtomicU64::new(0),
            watched: Mutex::new(false),
            asking: Mutex::new(()),
        }));
        match REGISTRY.compare_exchange(before, made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            // SAFETY: another thread was faster; ours is a box that nobody else knows.
            Err(_) => drop(unsafe { Box::from_raw(made) }),
        }
        Registry::existing().expect("it was stored above, or by whoever was faster")
    }

    /// The one that was made last, if any: what a signal handler may ask for.
    pub(super) fn existing() -> Option<&'static Registry> {
        // SAFETY: null, or a box that was leaked: stored once, never freed.
        unsafe { REGISTRY.load(Ordering::Acquire).as_ref() }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the pulses of all hubs. Whoever keeps one keeps the hub's descriptors.
    pub(super) fn with_pulses<T>(&self, f: impl FnOnce(&[Entry]) -> T) -> T {
        f(&self.lock())
    }

    /// What the watchdog sleeps on.
    pub(super) fn bell(&self) -> Option<&std::os::fd::OwnedFd> {
        self.bell.as_ref()
    }

    /// Wakes the watchdog. May be called by a signal handler.
    pub(super) fn ring(&self) {
        if let Some(bell) = &self.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }
}

/// A hub on the list, until this is dropped.
pub(super) struct Listed<'h> {
    pulse: &'h Arc<Pulse>,
    /// Borrowed, so that they stay where they are (`PULSE-1`).
    _beats: &'h Beats,
}

impl<'h> Listed<'h> {
    pub(super) fn new(pulse: &'h Arc<Pulse>, beats: &'h Beats) -> Listed<'h> {
        let entry = Entry { pulse: Arc::clone(pulse), beats: NonNull::from(beats) };
        Registry::get().lock().push(entry);
        Listed { pulse, _beats: beats }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        Registry::get().lock().retain(|entry| !Arc::ptr_eq(&entry.pulse, self.pulse));
    }
}
