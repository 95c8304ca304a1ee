//! `select!` under the kill harness: what an arm that lost was handed, and what one that won was,
//! when the greenlet is cut short, goes to the next in line.

use std::{
    cell::{Cell, RefCell},
    future::{Future, IntoFuture},
    pin::Pin,
    rc::Rc,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
};

use greenloop::{
    Deferred, select, select_all, sleep, spawn,
    sync::{Event, Mutex, RwLock, Semaphore, channel, unbounded},
    wait_for_deferred, wait_for_future_timeout, yield_now,
};

use super::{SECOND, everywhere};

#[test]
fn the_first_of_several_things_in_line() {
    const ITEMS: u32 = 4;
    let suspensions = everywhere(|case| {
        let (sender, receiver) = channel(1);
        let (urgent, hurried) = unbounded();
        let semaphore = Rc::new(Semaphore::new(0));
        let mutex = Rc::new(Mutex::new(()));
        let lock = Rc::new(RwLock::new(()));
        let over = Rc::new(Event::new());
        let got = Rc::new(RefCell::new(Vec::new()));
        let held = (mutex.lock().unwrap(), lock.write().unwrap());
        let (taken, hurry, sink) = (receiver.clone(), hurried.clone(), Rc::clone(&got));
        let theirs = (semaphore.clone(), mutex.clone(), lock.clone(), over.clone());
        let target = case.target(move || {
            let (semaphore, mutex, lock, over) = theirs;
            let mut is_urgent = true;
            loop {
                select! {
                    item = hurry.recv_async(), if is_urgent => match item {
                        Ok(item) => sink.borrow_mut().push(item),
                        Err(_) => is_urgent = false,
                    },
                    item = taken.recv_async() => match item {
                        Ok(item) => sink.borrow_mut().push(item),
                        Err(_) => break,
                    },
                    _permit = semaphore.acquire_async(1) => sleep(SECOND / 4),
                    _guard = mutex.lock_async() => sleep(SECOND / 2),
                    _guard = lock.read_async() => sleep(SECOND / 2),
                    () = over.wait_async() => break,
                    default(SECOND) => yield_now(),
                }
            }
        });
        let feeder = spawn(move || {
            for item in 0..ITEMS {
                sender.send(item).unwrap();
                urgent.send(item + ITEMS).unwrap();
                sleep(SECOND / 3);
            }
        });
        let rival = Rc::clone(&semaphore);
        let rival = spawn(move || drop(rival.acquire()));
        yield_now();
        semaphore.add_permits(1);
        sleep(SECOND);
        drop(held);
        sleep(2 * SECOND);
        over.set();
        target.join();
        got.borrow_mut().extend(receiver.iter());
        got.borrow_mut().extend(hurried.iter());
        feeder.join().unwrap();
        rival.join().unwrap();
        let mut got = got.take();
        got.sort_unstable();
        assert_eq!(got, Vec::from_iter(0..2 * ITEMS), "each of them once");
        assert_eq!(semaphore.available_permits(), 1);
        drop(mutex.try_lock().map_err(|_| ()));
        mutex.clear_poison();
        lock.clear_poison();
        assert!(mutex.try_lock().is_ok() && lock.try_write().is_ok(), "somebody holds one");
    });
    assert!(suspensions >= 5, "{suspensions}");
}

/// Arms of other styles: a greenlet is detached, a Deferred is cancelled, and nothing is left.
#[test]
fn the_first_of_several_styles() {
    let suspensions = everywhere(|case| {
        let (resolver, deferred) = Deferred::new();
        let was_cancelled = Rc::new(Cell::new(false));
        let count = Rc::clone(&was_cancelled);
        let (_never, other) = Deferred::<()>::with_canceller(move |_| count.set(true));
        let worker = spawn(|| {
            sleep(2 * SECOND);
            2
        });
        let target = case.target(move || {
            let mut deferred = deferred.into_future();
            let mut worker = worker.into_future();
            select! {
                fired = &mut deferred => assert_eq!(fired.unwrap(), 1),
                done = &mut worker => panic!("{done:?} is too early"),
                _ = other => panic!("it never fires"),
            }
            let mut racers = [3, 2].map(|n| {
                let racer = spawn(move || {
                    sleep(n * SECOND);
                    n
                });
                racer.into_future()
            });
            let first = select_all(&mut racers).unwrap();
            assert_eq!(first.1.unwrap(), 2);
            select! {
                done = worker => assert_eq!(done.unwrap(), 2),
            }
        });
        sleep(SECOND);
        resolver.callback(1);
        let begun = !format!("{case}").contains("before it began");
        target.join();
        assert_eq!(was_cancelled.get(), begun);
        sleep(4 * SECOND);
    });
    assert_eq!(suspensions, 2);
}

/// A body is outside the wait: it may suspend, and holds what it was given.
#[test]
fn a_body_that_waits_in_its_turn() {
    everywhere(|case| {
        let mutex = Arc::new(Mutex::new(0));
        let (sender, receiver) = unbounded();
        let (theirs, taken) = (Arc::clone(&mutex), receiver.clone());
        let target = case.target(move || {
            select! {
                guard = theirs.lock_async() => {
                    let mut guard = guard.unwrap_or_else(PoisonError::into_inner);
                    let other = wait_for_deferred(taken.recv_deferred()).unwrap();
                    select! {
                        item = taken.recv_async() => *guard = item.unwrap() + other,
                        default(60 * SECOND) => panic!("it is late"),
                    }
                }
                default => panic!("nobody has it"),
            }
        });
        sleep(SECOND);
        sender.send(1).unwrap();
        sleep(SECOND);
        sender.send(2).unwrap();
        drop(sender);
        let lived = target.join().is_some();
        let left: Vec<u32> = receiver.iter().collect();
        mutex.clear_poison();
        let sum = *mutex.try_lock().unwrap();
        assert_eq!(lived, sum == 3 && left.is_empty() && sum > 0, "{sum} {left:?}");
    });
}

/// An arm that never wins, and takes its time to go.
struct Slow;

impl Future for Slow {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        sleep(SECOND);
    }
}

/// While the destructor of an arm that lost waits, the greenlet is killed: the winner's body has
/// what it won all the same.
#[test]
fn what_the_winner_was_handed_is_not_lost_with_the_losers() {
    let suspensions = everywhere(|case| {
        let (sender, receiver) = unbounded();
        let got = Rc::new(RefCell::new(Vec::new()));
        let (taken, sink) = (receiver.clone(), Rc::clone(&got));
        let target = case.target(move || {
            select! {
                item = taken.recv_async() => sink.borrow_mut().push(item.unwrap()),
                () = Slow => unreachable!("it never wins"),
            }
            select! {
                () = Slow => unreachable!("it never wins"),
                item = taken.recv_async() => sink.borrow_mut().push(item.unwrap()),
                default => panic!("there is one"),
            }
            let item = wait_for_future_timeout(taken.recv_async(), SECOND).unwrap();
            sink.borrow_mut().push(item.unwrap());
        });
        yield_now();
        (1..=3).for_each(|item| sender.send(item).unwrap());
        drop(sender);
        target.join();
        got.borrow_mut().extend(receiver.iter());
        assert_eq!(*got.borrow(), [1, 2, 3], "all of them, in their order");
    });
    assert_eq!(suspensions, 3);
}
