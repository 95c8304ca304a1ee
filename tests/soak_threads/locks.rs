//! Scenes at locks: std's and parking_lot's. Nothing here fails because of a kill, so a victim ends
//! where it calls greenloop, with its guards dropped.

use std::{
    sync::{
        Arc, Barrier, Condvar, LazyLock, Mutex, Once, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use greenloop::testing::Random;

use crate::{
    stage::{Party, mortal_pause, own, party, pause},
    watch::step,
};

/// Numbers behind locks, and how often each was added to.
#[derive(Default)]
struct Sums {
    std: Mutex<u64>,
    lot: parking_lot::Mutex<u64>,
    std_shared: RwLock<u64>,
    lot_shared: parking_lot::RwLock<u64>,
    added: [AtomicU64; 4],
}

impl Drop for Sums {
    fn drop(&mut self) {
        let added = self.added.each_mut().map(|count| *count.get_mut());
        let std = *self.std.get_mut().unwrap_or_else(PoisonError::into_inner);
        let std_shared = *self.std_shared.get_mut().unwrap_or_else(PoisonError::into_inner);
        let sums = [std, *self.lot.get_mut(), std_shared, *self.lot_shared.get_mut()];
        assert_eq!(sums, added, "two were inside of a lock");
    }
}

/// Adds one, in two steps with a pause between them.
fn add(sum: &mut u64, added: &AtomicU64, random: &Random) {
    let before = *sum;
    mortal_pause(random);
    *sum = before + 1;
    added.fetch_add(1, Ordering::Relaxed);
}

/// Reads, twice, with a pause between.
fn look(sum: &u64, random: &Random) {
    let before = *sum;
    mortal_pause(random);
    assert_eq!(*sum, before, "a writer was let in with a reader");
}

/// Everybody wants the same locks; a guard is kept across suspensions.
pub(crate) fn locks(random: &Random, _: bool) -> Vec<Party> {
    let sums = Arc::new(Sums::default());
    let one = |_| {
        let (sums, random) = (Arc::clone(&sums), own(random));
        party(move || {
            for _ in 0..15 {
                step();
                match random.below(6) {
                    0 => {
                        let mut held = sums.std.lock().unwrap_or_else(PoisonError::into_inner);
                        add(&mut held, &sums.added[0], &random);
                    }
                    1 => add(&mut sums.lot.lock(), &sums.added[1], &random),
                    2 => {
                        let held = sums.std_shared.write();
                        let mut held = held.unwrap_or_else(PoisonError::into_inner);
                        add(&mut held, &sums.added[2], &random);
                    }
                    3 => add(&mut sums.lot_shared.write(), &sums.added[3], &random),
                    4 => {
                        let held = sums.std_shared.read();
                        look(&held.unwrap_or_else(PoisonError::into_inner), &random);
                    }
                    _ => {
                        let limit = Duration::from_micros(random.below(500) as u64);
                        if let Some(held) = sums.lot_shared.try_read_for(limit) {
                            look(&held, &random);
                        }
                    }
                }
            }
        })
    };
    (0..2 + random.below(5)).map(one).collect()
}

/// A number of permits, by std's condition variable and by parking_lot's.
struct Permits {
    of_std: (Mutex<usize>, Condvar),
    of_lot: (parking_lot::Mutex<usize>, parking_lot::Condvar),
    count: usize,
}

impl Drop for Permits {
    fn drop(&mut self) {
        let std = *self.of_std.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((std, *self.of_lot.0.get_mut()), (self.count, self.count));
    }
}

/// A permit; it is given back when this is dropped.
struct Permit<'p>(&'p Permits, bool);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Permits { of_std, of_lot, .. } = self.0;
        if self.1 {
            *of_std.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            of_std.1.notify_one();
        } else {
            *of_lot.0.lock() += 1;
            of_lot.1.notify_one();
        }
    }
}

impl Permits {
    /// Waits for one, for as long as it takes, or for so long.
    fn take(&self, limit: Option<Duration>) -> Option<Permit<'_>> {
        let mut free = self.of_std.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            let Some(limit) = limit else {
                free = self.of_std.1.wait(free).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let waited = self.of_std.1.wait_timeout(free, limit);
            let waited = waited.unwrap_or_else(PoisonError::into_inner);
            free = waited.0;
            if *free == 0 && waited.1.timed_out() {
                return None;
            }
        }
        *free -= 1;
        Some(Permit(self, true))
    }

    fn take_of_lot(&self, limit: Option<Duration>) -> Option<Permit<'_>> {
        let mut free = self.of_lot.0.lock();
        while *free == 0 {
            match limit {
                None => self.of_lot.1.wait(&mut free),
                Some(limit) => {
                    let timed_out = self.of_lot.1.wait_for(&mut free, limit).timed_out();
                    if *free == 0 && timed_out {
                        return None;
                    }
                }
            }
        }
        *free -= 1;
        Some(Permit(self, false))
    }
}

/// One notice for each permit that is given back: if it is lost, somebody waits for ever.
pub(crate) fn permits(random: &Random, _: bool) -> Vec<Party> {
    let count = 1 + random.below(2);
    let permits = Arc::new(Permits {
        of_std: (Mutex::new(count), Condvar::new()),
        of_lot: (parking_lot::Mutex::new(count), parking_lot::Condvar::new()),
        count,
    });
    let one = |_| {
        let (permits, random) = (Arc::clone(&permits), own(random));
        party(move || {
            for _ in 0..15 {
                step();
                let limit = Duration::from_micros(random.below(500) as u64);
                let limit = (random.below(3) == 0).then_some(limit);
                let permit = match random.below(2) {
                    0 => permits.take(limit),
                    _ => permits.take_of_lot(limit),
                };
                mortal_pause(&random);
                drop(permit);
            }
        })
    };
    (0..2 + random.below(5)).map(one).collect()
}

/// A seat in a ring: whose turn it is, and who sits there.
#[derive(Default)]
struct Seat {
    has_turn: AtomicBool,
    sitter: OnceLock<thread::Thread>,
}

/// A turn goes round by std's `park` and `unpark`. A kill ends none of these waits.
pub(crate) fn ring(random: &Random, _: bool) -> Vec<Party> {
    const ROUNDS: usize = 12;
    let count = 2 + random.below(4);
    let seats: Arc<[Seat]> = (0..count).map(|_| Seat::default()).collect();
    seats[0].has_turn.store(true, Ordering::Relaxed);
    let one = |place: usize| {
        let (seats, random) = (Arc::clone(&seats), own(random));
        party(move || {
            let (seat, next) = (&seats[place], &seats[(place + 1) % seats.len()]);
            seat.sitter.set(thread::current()).expect("each place is one party's");
            for _ in 0..ROUNDS {
                while !seat.has_turn.swap(false, Ordering::AcqRel) {
                    match random.below(4) {
                        0 => thread::park_timeout(Duration::from_micros(100)),
                        _ => thread::park(),
                    }
                }
                pause(&random);
                // The first time, the next one may not have come.
                next.has_turn.store(true, Ordering::Release);
                if let Some(next) = next.sitter.get() {
                    next.unpark();
                }
            }
        })
    };
    // One who is killed before it has begun never has its turn.
    (0..count).map(|place| one(place).immortal()).collect()
}

/// Leaders of a barrier, one each time.
struct Meeting(Barrier, AtomicUsize);

pub(crate) fn barrier(random: &Random, _: bool) -> Vec<Party> {
    const TIMES: usize = 6;
    let count = 2 + random.below(4);
    let meeting = Arc::new(Meeting(Barrier::new(count), AtomicUsize::new(0)));
    let one = |_| {
        let (meeting, random) = (Arc::clone(&meeting), own(random));
        party(move || {
            for time in 0..TIMES {
                pause(&random);
                if meeting.0.wait().is_leader() {
                    meeting.1.fetch_add(1, Ordering::Relaxed);
                }
                meeting.0.wait();
                assert_eq!(meeting.1.load(Ordering::Relaxed), time + 1, "a time has one leader");
                meeting.0.wait();
            }
        })
    };
    (0..count).map(|place| one(place).immortal()).collect()
}

static LAZY: LazyLock<u64> = LazyLock::new(|| {
    thread::sleep(Duration::from_micros(200));
    7
});

/// All want what one of them makes, with pauses.
pub(crate) fn once(random: &Random, _: bool) -> Vec<Party> {
    struct Shared {
        once: Once,
        cell: OnceLock<usize>,
        made: AtomicUsize,
    }
    let shared =
        Arc::new(Shared { once: Once::new(), cell: OnceLock::new(), made: AtomicUsize::new(0) });
    let one = |_| {
        let (shared, random) = (Arc::clone(&shared), own(random));
        party(move || {
            pause(&random);
            let make = || {
                pause(&random);
                shared.made.fetch_add(1, Ordering::Relaxed);
                pause(&random);
            };
            shared.once.call_once(make);
            assert!(shared.once.is_completed());
            let number = || {
                make();
                5
            };
            assert_eq!(*shared.cell.get_or_init(number), 5);
            assert_eq!(*LAZY, 7);
            assert_eq!(shared.made.load(Ordering::Relaxed), 2, "each is made once");
        })
    };
    (0..2 + random.below(5)).map(one).collect()
}
