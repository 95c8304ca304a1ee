//! Condition variables that are waited for as a Deferred and as a future. For the blocking style
//! see `sync`.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use crate::support::poll;
use greenloop::{
    sleep, spawn,
    sync::{Condvar, Mutex},
    testing, timeout, wait_for_deferred, wait_for_future, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_deferred_and_a_future_wait_for_a_notification_and_have_the_lock_then() {
    testing::run(|| {
        let pair = (Arc::new(Mutex::new(0)), Arc::new(Condvar::new()));
        let guard = wait_for_deferred(pair.0.lock_deferred()).unwrap().unwrap();
        let fires = pair.1.wait_deferred(guard);
        assert!(pair.0.try_lock().is_ok(), "the mutex was let go");
        let theirs = (Arc::clone(&pair.0), Arc::clone(&pair.1));
        let awaits = spawn(move || {
            wait_for_future(async {
                let mut guard = theirs.0.lock_async().await.unwrap();
                while *guard < 2 {
                    guard = theirs.1.wait_async(guard).await.unwrap();
                }
                *guard
            })
        });
        yield_now();
        assert_eq!(format!("{:?}", pair.1), "Condvar { waiting: 2 }");
        *pair.0.lock().unwrap() = 1;
        pair.1.notify_one();
        let guard = wait_for_deferred(fires).unwrap().unwrap();
        assert_eq!(*guard, 1);
        assert!(pair.0.try_lock().is_err(), "it has the lock");
        let mut guard = guard;
        *guard = 2;
        drop(guard);
        pair.1.notify_all();
        assert_eq!(awaits.join().unwrap(), 2);
    });
}

#[test]
fn a_notification_for_a_deferred_or_future_that_dies_goes_to_the_next() {
    testing::run(|| {
        for locks_meanwhile in [false, true] {
            let pair = (Arc::new(Mutex::new(())), Arc::new(Condvar::new()));
            let lock = || wait_for_deferred(pair.0.lock_deferred()).unwrap().unwrap();
            let fires = pair.1.wait_deferred(lock());
            let (mutex, condvar) = (&*pair.0, &*pair.1);
            let mut awaits = Box::pin(async move {
                let guard = mutex.lock_async().await.unwrap();
                drop(condvar.wait_async(guard).await);
            });
            assert!(poll(&mut awaits, Waker::noop()).is_pending());
            let last = pair.1.wait_deferred(lock());
            let held = lock();
            pair.1.notify_one();
            pair.1.notify_one();
            if locks_meanwhile {
                sleep(SECOND); // they have the notifications, and wait for the mutex
                assert!(poll(&mut awaits, Waker::noop()).is_pending());
            }
            fires.cancel();
            assert!(wait_for_deferred(fires).unwrap_err().is_cancelled());
            drop(awaits);
            drop(held);
            let last = timeout(SECOND, || wait_for_deferred(last).unwrap());
            drop(last.expect("it was notified").unwrap_or_else(PoisonError::into_inner));
            assert!(pair.0.try_lock().is_ok());
        }
    });
}

#[test]
fn a_deferred_wait_outside_a_run_fails_and_lets_the_mutex_go() {
    let (mutex, condvar) = (Arc::new(Mutex::new(())), Arc::new(Condvar::new()));
    let noted = Rc::new(Cell::new(false));
    let held = mutex.lock_deferred();
    let waited = held.and_then(move |guard| condvar.wait_deferred(guard.unwrap()));
    let seen = Rc::clone(&noted);
    drop(waited.add_both(move |result| {
        seen.set(result.is_err() && mutex.try_lock().is_ok());
        Ok(())
    }));
    assert!(noted.get());
}

/// It stands in line, and lets others run before the kill is raised again.
#[test]
fn a_notification_of_one_whose_swallowed_kill_is_raised_again_goes_to_the_next() {
    testing::run(|| {
        let pair = Arc::new((Mutex::new(()), Condvar::new()));
        let theirs = Arc::clone(&pair);
        let dies = spawn(move || {
            let guard = theirs.0.lock().unwrap();
            let swallowed = catch_unwind(AssertUnwindSafe(|| sleep(SECOND)));
            assert!(swallowed.is_err());
            drop(theirs.1.wait(guard));
        });
        yield_now();
        dies.kill();
        yield_now();
        let mut next = Box::pin(pair.1.wait_async(pair.0.try_lock().unwrap()));
        assert!(poll(&mut next, Waker::noop()).is_pending());
        assert_eq!(format!("{:?}", pair.1), "Condvar { waiting: 2 }");
        pair.1.notify_one();
        assert_eq!(format!("{:?}", pair.1), "Condvar { waiting: 1 }", "the first has it");
        assert!(dies.join().unwrap_err().is_killed());
        assert!(matches!(poll(&mut next, Waker::noop()), Poll::Ready(Ok(_))));
    });
}
