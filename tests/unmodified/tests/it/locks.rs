//! Locks and what else threads wait for: std's and parking_lot's.

use std::{
    sync::{
        Arc, Barrier, Condvar, Mutex, OnceLock, RwLock, atomic::AtomicUsize,
        atomic::Ordering::SeqCst, mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use greenloop_unmodified::{overlap, threads};

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(300);

/// Runs `hold` on another thread, and returns once it says that it holds; it goes on for a moment,
/// and a little longer, because that is heard a little later.
fn held(hold: impl FnOnce(&mut dyn FnMut()) + Send + 'static) -> threads::JoinHandle<()> {
    let (holds, held) = mpsc::channel();
    let holder = threads::spawn(move || {
        hold(&mut || {
            holds.send(()).unwrap();
            thread::sleep(MOMENT + MOMENT / 10);
        })
    });
    held.recv().unwrap();
    holder
}

/// A mutex, a lock for readers and writers, and a cell whose initialiser takes its time.
pub(crate) fn std_locks() {
    let mutex = Arc::new(Mutex::new(0));
    let ours = Arc::clone(&mutex);
    let holder = held(move |a_moment| {
        let _guard = ours.lock().unwrap();
        a_moment();
    });
    let theirs = Arc::clone(&mutex);
    overlap(MANY, MOMENT, move |_| *theirs.lock().unwrap() += 1);
    holder.join().unwrap();
    assert_eq!(*mutex.lock().unwrap(), MANY);

    let lock = Arc::new(RwLock::new(0));
    let ours = Arc::clone(&lock);
    let reader = held(move |a_moment| {
        let _guard = ours.read().unwrap();
        a_moment();
    });
    assert!(lock.try_read().is_ok(), "two read at once");
    let theirs = Arc::clone(&lock);
    overlap(MANY, MOMENT, move |index| {
        if index % 2 == 0 { *theirs.write().unwrap() += 1 } else { drop(theirs.read().unwrap()) }
    });
    reader.join().unwrap();
    assert_eq!(*lock.read().unwrap(), MANY / 2);

    let (cell, count) = (OnceLock::new(), AtomicUsize::new(0));
    let initialise = move || {
        thread::sleep(MOMENT);
        count.fetch_add(1, SeqCst)
    };
    let seen = overlap(MANY, MOMENT, move |_| *cell.get_or_init(&initialise));
    assert!(seen.into_iter().all(|seen| seen == 0));
}

/// `park` and `unpark` by std's own handles, timeouts, condition variables, and a barrier.
pub(crate) fn std_park_and_barrier() {
    overlap(MANY, MOMENT, |_| {
        let (this, is_time) = (thread::current(), Arc::new(AtomicUsize::new(0)));
        let ours = Arc::clone(&is_time);
        let late = threads::spawn(move || {
            thread::sleep(MOMENT);
            ours.store(1, SeqCst);
            this.unpark();
        });
        while is_time.load(SeqCst) == 0 {
            thread::park();
        }
        late.join().unwrap();
        let begun = Instant::now();
        while begun.elapsed() < MOMENT / 10 {
            thread::park_timeout(MOMENT / 10);
        }
    });

    let barrier = Barrier::new(MANY);
    let leaders = overlap(MANY, MOMENT, move |index| {
        if index == MANY / 2 {
            thread::sleep(MOMENT);
        }
        barrier.wait().is_leader()
    });
    assert_eq!(leaders.into_iter().filter(|is_leader| *is_leader).count(), 1);

    let (count, changed) = (Mutex::new(0), Condvar::new());
    overlap(MANY, MOMENT, move |index| {
        if index == 0 {
            thread::sleep(MOMENT);
        }
        // In the order of the numbers, whoever is woken first.
        let begun = Instant::now();
        let guard = changed.wait_timeout(count.lock().unwrap(), Duration::ZERO).unwrap().0;
        let wait = changed.wait_timeout_while(guard, 100 * MOMENT, |count| *count != index);
        let (mut guard, result) = wait.unwrap();
        assert!(!result.timed_out(), "after {:?}", begun.elapsed());
        *guard += 1;
        changed.notify_all();
    });
}

/// A mutex, a reentrant one, which knows threads by their thread-locals, and readers and writers.
pub(crate) fn parking_lot_locks() {
    let mutex = Arc::new(parking_lot::Mutex::new(0));
    let ours = Arc::clone(&mutex);
    let holder = held(move |a_moment| {
        let _guard = ours.lock();
        a_moment();
    });
    let theirs = Arc::clone(&mutex);
    overlap(MANY, MOMENT, move |_| {
        assert!(theirs.try_lock_for(MOMENT / 10).is_none());
        *theirs.lock() += 1;
    });
    holder.join().unwrap();
    assert_eq!(*mutex.lock(), MANY);

    let mutex = Arc::new(parking_lot::ReentrantMutex::new(AtomicUsize::new(0)));
    let ours = Arc::clone(&mutex);
    let holder = held(move |a_moment| {
        let _guard = ours.lock();
        let again = ours.lock();
        a_moment();
        assert_eq!(again.load(SeqCst), 0, "another thread was let in");
    });
    let theirs = Arc::clone(&mutex);
    overlap(MANY, MOMENT, move |_| theirs.lock().fetch_add(1, SeqCst));
    holder.join().unwrap();
    assert_eq!(mutex.lock().load(SeqCst), MANY);

    let lock = Arc::new(parking_lot::RwLock::new(0));
    let ours = Arc::clone(&lock);
    let reader = held(move |a_moment| {
        let mut guard = ours.upgradable_read();
        a_moment();
        guard.with_upgraded(|count| *count += 1);
    });
    assert!(lock.try_read().is_some(), "two read at once");
    let theirs = Arc::clone(&lock);
    overlap(MANY, MOMENT, move |_| *theirs.write() += 1);
    reader.join().unwrap();
    assert_eq!(*lock.read(), MANY + 1);
}

pub(crate) fn parking_lot_condvars() {
    let state = Arc::new((parking_lot::Mutex::new(0), parking_lot::Condvar::new()));
    let ours = Arc::clone(&state);
    let answers = overlap(MANY, MOMENT, move |index| {
        let (count, changed) = &*state;
        let mut guard = count.lock();
        if index == 0 {
            let timed = changed.wait_until(&mut guard, Instant::now() + MOMENT);
            assert!(timed.timed_out(), "nobody is to notify before the first");
        }
        while *guard != index {
            changed.wait(&mut guard);
        }
        *guard += 1;
        changed.notify_all()
    });
    assert_eq!(*ours.0.lock(), MANY);
    assert!(answers[0] >= 1, "somebody waited for the first");
}
