//! greenloop: greenlets of one `run`; between threads, of one `run` each.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use greenloop::sync::{Event, Mutex, Receiver, Sender, channel};
use greenloop::{run, spawn, yield_now};

use super::{Baton, CROWD, RIVALS, ROOM, on_two_cores, timed};
use crate::runtimes::scale;

/// Sends back what it receives.
fn echo((sender, receiver): (Sender<u64>, Receiver<u64>)) {
    for n in &receiver {
        sender.send(n).expect("the other end is there");
    }
}

/// Sends `trips` numbers, one after another, each when the last has come back.
fn ask((sender, receiver): (Sender<u64>, Receiver<u64>), trips: u64) -> Duration {
    timed(|| {
        for n in 0..trips {
            sender.send(n).expect("the other end is there");
            assert_eq!(receiver.recv(), Ok(n));
        }
    })
}

/// Two channels with room for one: the ends of one side, and those of the other.
fn two_ways() -> [(Sender<u64>, Receiver<u64>); 2] {
    let ((there, asked), (back, answered)) = (channel(1), channel(1));
    [(there, answered), (back, asked)]
}

/// Times `trips` there and back between two greenlets.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn round_trips(trips: u64) -> Duration {
    run(move || {
        let [near, far] = two_ways();
        spawn(move || echo(far));
        spawn(move || ask(near, trips)).join().expect("the greenlet ended")
    })
}

/// The same between two threads.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn round_trips_between_threads(trips: u64) -> Duration {
    let [near, far] = two_ways();
    on_two_cores(|| run(|| echo(far)), || run(|| ask(near, trips)))
}

/// Sends `items` numbers.
fn pour(sender: &Sender<u64>, items: u64) {
    (0..items).for_each(|n| sender.send(n).expect("the receiver is there"));
}

/// Receives `items` numbers.
fn drink(receiver: &Receiver<u64>, items: u64) -> Duration {
    timed(|| (0..items).for_each(|n| assert_eq!(receiver.recv(), Ok(n))))
}

/// Times `items` from one greenlet to another.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn stream(items: u64) -> Duration {
    run(move || {
        let (sender, receiver) = channel(ROOM);
        spawn(move || pour(&sender, items));
        spawn(move || drink(&receiver, items)).join().expect("the greenlet ended")
    })
}

/// The same between two threads.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn stream_between_threads(items: u64) -> Duration {
    let (sender, receiver) = channel(ROOM);
    on_two_cores(|| run(|| pour(&sender, items)), || run(|| drink(&receiver, items)))
}

/// Times `locks` of a mutex that nobody else uses.
///
/// # Panics
/// Never.
#[must_use]
pub fn uncontended(locks: u64) -> Duration {
    run(move || {
        let mutex = Mutex::new(0);
        timed(|| {
            for _ in 0..locks {
                *std::hint::black_box(&mutex).lock().expect("nobody panicked") += 1;
            }
        })
    })
}

/// Times `locks` of a mutex for which others wait.
///
/// # Panics
/// When a lock was not handed over.
#[must_use]
pub fn hand_overs(locks: u64) -> Duration {
    let turns = locks.div_ceil(RIVALS as u64);
    let time = run(move || {
        let baton = Rc::new(Mutex::new(Baton::default()));
        let first = baton.lock().expect("nobody panicked");
        let rivals: Vec<_> = (1..=RIVALS)
            .map(|who| {
                let baton = Rc::clone(&baton);
                spawn(move || {
                    for _ in 0..turns {
                        *baton.lock().expect("nobody panicked") += who;
                    }
                })
            })
            .collect();
        yield_now(); // All are in line.
        timed(|| {
            drop(first);
            rivals.into_iter().for_each(|rival| rival.join().expect("the greenlet ended"));
        })
    });
    scale(time, locks, turns * RIVALS as u64)
}

/// Times `wakes` of greenlets that wait for an event.
///
/// # Panics
/// When a greenlet does.
#[must_use]
pub fn wakes(wakes: u64) -> Duration {
    let rounds = wakes.div_ceil(CROWD as u64);
    let time = run(move || {
        let (event, woken) = (Rc::new(Event::new()), Rc::new(Cell::new(0)));
        for _ in 0..CROWD {
            let (event, woken) = (Rc::clone(&event), Rc::clone(&woken));
            spawn(move || {
                loop {
                    event.wait();
                    woken.set(woken.get() + 1);
                }
            });
        }
        yield_now(); // All wait.
        timed(|| {
            for _ in 0..rounds {
                event.set();
                event.clear();
                while woken.get() < CROWD {
                    yield_now();
                }
                woken.set(0);
            }
        })
    });
    scale(time, wakes, rounds * CROWD as u64)
}
