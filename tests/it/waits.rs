//! Every wait of `sync` in blocking style: it can be killed and timed out, and a kill that comes
//! inside a shield is held back until it is over.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use greenloop::{
    shield, sleep, spawn,
    sync::{
        Barrier, Condvar, Event, Mutex, OnceCell, RwLock, Semaphore, WaitGroup, broadcast, channel,
        priority, unbounded, watch,
    },
    testing, timeout, yield_now,
};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Waits for what never comes.
type Wait = Box<dyn Fn()>;

/// Calls `check` with each wait, none of which ever ends by itself.
fn each_wait(check: impl Fn(&str, Rc<Wait>)) {
    let mutex: &'static Mutex<()> = Box::leak(Box::default());
    std::mem::forget(mutex.lock());
    let lock: &'static RwLock<()> = Box::leak(Box::default());
    std::mem::forget(lock.write());
    let pair: &'static (Mutex<()>, Condvar) = Box::leak(Box::default());
    let (sender, receiver) = channel(1);
    sender.send(0).unwrap();
    let (idle, empty) = unbounded::<u8>();
    let (ranks, ranked) = priority::channel(1);
    ranks.send(0).unwrap();
    let (calm, none) = priority::unbounded::<u8>();
    let (casts, hears) = broadcast::channel::<u8>(1);
    let hears = RefCell::new(hears);
    let (shows, looks) = watch::channel(0);
    let watches = looks.clone();
    let (semaphore, event, cell) = (Semaphore::new(0), Event::new(), OnceCell::<u8>::new());
    let (barrier, group) = (Barrier::new(2), WaitGroup::new());
    let work = group.add();
    let waits: Vec<(&str, Wait)> = vec![
        ("Mutex", Box::new(|| drop(mutex.lock()))),
        ("RwLock to read", Box::new(|| drop(lock.read()))),
        ("RwLock to write", Box::new(|| drop(lock.write()))),
        ("Condvar", Box::new(|| drop(pair.1.wait(pair.0.lock().unwrap())))),
        ("Semaphore", Box::new(move || drop(semaphore.acquire()))),
        ("Event", Box::new(move || event.wait())),
        ("OnceCell", Box::new(move || assert_eq!(*cell.wait(), 0))),
        ("Barrier", Box::new(move || assert!(barrier.wait().is_leader()))),
        ("WaitGroup", Box::new(move || group.wait())),
        ("send", Box::new(move || sender.send(1).unwrap())),
        ("recv", Box::new(move || assert!(empty.recv().is_err()))),
        ("priority send", Box::new(move || ranks.send(1).unwrap())),
        ("priority recv", Box::new(move || assert!(none.recv().is_err()))),
        ("broadcast recv", Box::new(move || assert!(hears.borrow_mut().recv().is_err()))),
        ("watch changed", Box::new(move || looks.changed().unwrap())),
        ("watch wait_for", Box::new(move || drop(watches.wait_for(|n| *n == 1)))),
    ];
    for (name, wait) in waits {
        check(name, Rc::new(wait));
    }
    drop((receiver, idle, ranked, calm, casts, shows, work));
}

#[test]
fn every_wait_can_be_killed() {
    testing::run(|| {
        each_wait(|name, wait| {
            let greenlet = spawn(move || wait());
            yield_now();
            assert!(!greenlet.is_finished(), "{name}");
            greenlet.kill();
            assert!(greenlet.join().unwrap_err().is_killed(), "{name}");
        });
    });
}

#[test]
fn every_wait_can_be_timed_out() {
    testing::run(|| {
        each_wait(|name, wait| {
            assert!(timeout(SECOND, || wait()).is_err(), "{name}");
            assert!(timeout(SECOND, || wait()).is_err(), "{name}, again");
        });
    });
}

/// The wait is infallible: it can neither unwind there nor say that it was interrupted.
#[test]
fn every_wait_inside_a_shield_waits_on_when_it_is_killed() {
    testing::run(|| {
        each_wait(|name, wait| {
            let passed = Rc::new(Cell::new(false));
            let flag = Rc::clone(&passed);
            let greenlet = spawn(move || {
                shield(|| {
                    // The limit is the only end that it has.
                    let _ = timeout(SECOND, || wait());
                    flag.set(true);
                });
                sleep(HOUR);
            });
            yield_now();
            greenlet.kill();
            sleep(SECOND / 2);
            assert!(!greenlet.is_finished(), "{name}");
            sleep(SECOND);
            assert!(passed.get(), "{name}");
            assert!(greenlet.join().unwrap_err().is_killed(), "{name}");
        });
    });
}
