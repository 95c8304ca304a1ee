//! tokio: tasks of one `current_thread` runtime; between threads, of one runtime each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::{Mutex, Notify};
use tokio::task::yield_now;

use super::{Baton, CROWD, RIVALS, ROOM, on_two_cores};
use crate::runtimes::scale;
use crate::runtimes::tokio::{Drivers, runtime};

/// Sends back what it receives.
async fn echo((sender, mut receiver): (Sender<u64>, Receiver<u64>)) {
    while let Some(n) = receiver.recv().await {
        sender.send(n).await.expect("the other end is there");
    }
}

/// Sends `trips` numbers, one after another, each when the last has come back.
async fn ask((sender, mut receiver): (Sender<u64>, Receiver<u64>), trips: u64) -> Duration {
    let start = Instant::now();
    for n in 0..trips {
        sender.send(n).await.expect("the other end is there");
        assert_eq!(receiver.recv().await, Some(n));
    }
    start.elapsed()
}

/// Two channels with room for one: the ends of one side, and those of the other.
fn two_ways() -> [(Sender<u64>, Receiver<u64>); 2] {
    let ((there, asked), (back, answered)) = (channel(1), channel(1));
    [(there, answered), (back, asked)]
}

/// Times `trips` there and back between two tasks.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn round_trips(drivers: Drivers, trips: u64) -> Duration {
    runtime(drivers).block_on(async {
        let [near, far] = two_ways();
        tokio::spawn(echo(far));
        tokio::spawn(ask(near, trips)).await.expect("the task ended")
    })
}

/// The same between two threads.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn round_trips_between_threads(trips: u64) -> Duration {
    let [near, far] = two_ways();
    on_two_cores(|| spawned(echo(far)), || spawned(ask(near, trips)))
}

/// Sends `items` numbers.
async fn pour(sender: Sender<u64>, items: u64) {
    for n in 0..items {
        sender.send(n).await.expect("the receiver is there");
    }
}

/// Receives `items` numbers.
async fn drink(mut receiver: Receiver<u64>, items: u64) -> Duration {
    let start = Instant::now();
    for n in 0..items {
        assert_eq!(receiver.recv().await, Some(n));
    }
    start.elapsed()
}

/// Times `items` from one task to another.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn stream(drivers: Drivers, items: u64) -> Duration {
    runtime(drivers).block_on(async {
        let (sender, receiver) = channel(ROOM);
        tokio::spawn(pour(sender, items));
        tokio::spawn(drink(receiver, items)).await.expect("the task ended")
    })
}

/// The same between two threads.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn stream_between_threads(items: u64) -> Duration {
    let (sender, receiver) = channel(ROOM);
    on_two_cores(|| spawned(pour(sender, items)), || spawned(drink(receiver, items)))
}

/// Runs a task on a runtime of this thread.
fn spawned<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> T {
    runtime(Drivers::All).block_on(async { tokio::spawn(task).await.expect("the task ended") })
}

/// Times `locks` of a mutex that nobody else uses.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn uncontended(locks: u64) -> Duration {
    spawned(async move {
        let mutex = Mutex::new(0);
        let start = Instant::now();
        for _ in 0..locks {
            *std::hint::black_box(&mutex).lock().await += 1;
        }
        start.elapsed()
    })
}

/// Times `locks` of a mutex for which others wait.
///
/// # Panics
/// When a lock was not handed over.
#[must_use]
pub fn hand_overs(drivers: Drivers, locks: u64) -> Duration {
    let turns = locks.div_ceil(RIVALS as u64);
    let time = runtime(drivers).block_on(async {
        let baton = Arc::new(Mutex::new(Baton::default()));
        let first = baton.lock().await;
        let rivals: Vec<_> = (1..=RIVALS)
            .map(|who| {
                let baton = Arc::clone(&baton);
                tokio::spawn(async move {
                    for _ in 0..turns {
                        *baton.lock().await += who;
                    }
                })
            })
            .collect();
        yield_now().await; // All are in line.
        let start = Instant::now();
        drop(first);
        for rival in rivals {
            rival.await.expect("the task ended");
        }
        start.elapsed()
    });
    scale(time, locks, turns * RIVALS as u64)
}

/// Times `wakes` of tasks that wait for a `Notify`.
///
/// # Panics
/// When a task does.
#[must_use]
pub fn wakes(drivers: Drivers, wakes: u64) -> Duration {
    let rounds = wakes.div_ceil(CROWD as u64);
    let time = runtime(drivers).block_on(async {
        let (notify, woken) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        for _ in 0..CROWD {
            let (notify, woken) = (Arc::clone(&notify), Arc::clone(&woken));
            tokio::spawn(async move {
                loop {
                    notify.notified().await;
                    woken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let setter = tokio::spawn(async move {
            yield_now().await; // All wait.
            let start = Instant::now();
            for _ in 0..rounds {
                notify.notify_waiters();
                while woken.load(Ordering::Relaxed) < CROWD {
                    yield_now().await;
                }
                woken.store(0, Ordering::Relaxed);
            }
            start.elapsed()
        });
        setter.await.expect("the task ended")
    });
    scale(time, wakes, rounds * CROWD as u64)
}
