//! Who waits at an address: no wake is lost, and one that was taken has woken somebody.

/// No signals in a model.
mod inside {
    pub(super) fn within<R>(_: usize, f: impl FnOnce() -> R) -> Option<R> {
        Some(f())
    }
}

#[path = "../../../src/interpose/queue.rs"]
mod queue;

use loom::thread;

use self::queue::{Line, Queue, Shard, Tell};
use crate::{
    atomics::{Arc, AtomicBool, AtomicU32, Ordering},
    latch::Latch,
    model,
    sys::PollerWaker,
};

/// The address of the word that all wait at: a number, for the queue.
const WORD: usize = 0x1000;

/// Any bit.
const ANY: u32 = u32::MAX;

/// One who waits: it sleeps until it is told.
struct Target {
    poller: PollerWaker,
    /// Nobody is there any more.
    is_gone: bool,
}

impl Tell for Target {
    fn tell(self) -> bool {
        self.poller.wake();
        !self.is_gone
    }
}

/// A word, and the queue of those who wait for it to change.
struct Shared {
    queue: Queue<Target, 1>,
    word: AtomicU32,
}

impl Shared {
    fn new() -> Arc<Shared> {
        let shard = Shard::new(AtomicU32::new(0), AtomicBool::new(false), Latch::new(Line::new()));
        Arc::new(Shared { queue: Queue::new([shard]), word: AtomicU32::new(0) })
    }

    /// Waits as a virtual thread does, while the word is 0. Returns whether it was woken.
    fn wait(&self, bits: u32) -> bool {
        let waited = self.queue.wait(WORD, bits, |place| {
            if self.word.load(Ordering::Relaxed) != 0 {
                return;
            }
            let poller = PollerWaker::default();
            if place.arm(Target { poller: poller.clone(), is_gone: false }) {
                poller.sleep();
            }
        });
        waited.expect("no signals in a model").1
    }

    /// Waits as one whose time is over just then. Returns whether it was woken.
    fn wait_in_vain(&self) -> bool {
        let waited = self.queue.wait(WORD, ANY, |place| {
            place.arm(Target { poller: PollerWaker::default(), is_gone: false });
        });
        waited.expect("no signals in a model").1
    }
}

/// `QUEUE-1`: a wait that nothing ends would be a deadlock, which loom reports.
#[test]
fn a_wake_beside_a_wait_is_not_lost() {
    model(|| {
        let shared = Shared::new();
        let theirs = Arc::clone(&shared);
        let waker = thread::spawn(move || {
            theirs.word.store(1, Ordering::Relaxed);
            theirs.queue.wake(WORD, ANY, 1);
        });
        shared.wait(ANY);
        waker.join().unwrap();
        assert!(!shared.queue.may_have(WORD), "who has left is not counted");
    });
}

/// As std's lock does it: each of two waiters is woken by a wake of its own, which a waiter whose
/// time is over beside it must not swallow unnoticed.
#[test]
fn a_wake_goes_to_one_who_notices_it() {
    model(|| {
        let shared = Shared::new();
        let theirs = Arc::clone(&shared);
        let other = thread::spawn(move || theirs.wait_in_vain());
        let theirs = Arc::clone(&shared);
        let waker = thread::spawn(move || theirs.queue.wake(WORD, ANY, 1));
        let was_woken = shared.wait_in_vain();
        let others = [was_woken, other.join().unwrap()].map(usize::from).iter().sum();
        assert_eq!(waker.join().unwrap(), others, "as many were woken as the waker was told");
        assert!(!shared.queue.may_have(WORD), "who has left is not counted");
    });
}

/// All that wait are woken by one wake for all, also when one is about to come.
#[test]
fn a_wake_for_all_reaches_all() {
    model(|| {
        let shared = Shared::new();
        let theirs = Arc::clone(&shared);
        let other = thread::spawn(move || theirs.wait(ANY));
        let theirs = Arc::clone(&shared);
        let waker = thread::spawn(move || {
            theirs.word.store(1, Ordering::Relaxed);
            theirs.queue.wake(WORD, ANY, usize::MAX);
        });
        shared.wait(ANY);
        other.join().unwrap();
        waker.join().unwrap();
    });
}

/// Who waits for other bits is passed over.
#[test]
fn a_wake_for_some_bits_passes_over_who_waits_for_others() {
    model(|| {
        let shared = Shared::new();
        let theirs = Arc::clone(&shared);
        let waker = thread::spawn(move || {
            theirs.word.store(1, Ordering::Relaxed);
            (theirs.queue.wake(WORD, 2, 1), theirs.queue.wake(WORD, 1, 1))
        });
        let was_woken = shared.wait(1);
        let (for_others, for_it) = waker.join().unwrap();
        assert_eq!(for_others, 0);
        assert_eq!(for_it, usize::from(was_woken));
    });
}

/// A hub that has ended takes no wake away from who still waits.
#[test]
fn a_wake_is_not_for_the_dead() {
    model(|| {
        let shared = Shared::new();
        let theirs = Arc::clone(&shared);
        shared.queue.wait(WORD, ANY, |dead| {
            assert!(dead.arm(Target { poller: PollerWaker::default(), is_gone: true }));
            let waker = thread::spawn(move || {
                theirs.word.store(1, Ordering::Relaxed);
                theirs.queue.wake(WORD, ANY, 1)
            });
            let was_woken = shared.wait(ANY);
            assert_eq!(waker.join().unwrap(), usize::from(was_woken));
        });
    });
}
