//! A std `Mutex` that two want, handed over between virtual threads and between OS threads.
//!
//! `cargo bench --bench locks`
//!
//! Excluded: starting and ending the runtime and the threads, but for what the last of them waits
//! for the other.
//!
//! Each of the two gives way while it has the mutex, so that the other comes and has to wait. OS
//! threads do so on one core, as the virtual threads do.

use std::sync::{Arc, Mutex};
use std::thread as os_thread;
use std::time::{Duration, Instant};

use greenloop::thread;
use greenloop_benches::os;
use greenloop_benches::report::{Contender, Limit, OURS, Table, is_for_real, measure_with};

greenloop::interpose!();

/// Takes the mutex so often, giving way each time.
fn take(mutex: &Mutex<u64>, locks: u64, give_way: fn()) {
    for _ in 0..locks {
        let mut held = mutex.lock().expect("nobody panics");
        *held += 1;
        give_way();
    }
}

/// Two virtual threads hand a mutex over.
fn virtual_hand_overs(locks: u64) -> Duration {
    greenloop::run(move || {
        let mutex = Arc::new(Mutex::new(0));
        let start = Instant::now();
        let threads = [(); 2].map(|()| {
            let mutex = Arc::clone(&mutex);
            thread::spawn(move || take(&mutex, locks / 2, thread::yield_now))
        });
        for thread in threads {
            thread.join().expect("it ends");
        }
        start.elapsed()
    })
}

/// Two OS threads do.
fn os_hand_overs(locks: u64) -> Duration {
    let mutex = Mutex::new(0);
    let start = Instant::now();
    os_thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| take(&mutex, locks / 2, os_thread::yield_now));
        }
    });
    start.elapsed()
}

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    let contenders = [
        Contender { name: OURS, run: virtual_hand_overs },
        Contender { name: "OS threads", run: os_hand_overs },
    ];
    measure_with("locks/hand over", &contenders);
    if is_for_real() {
        let table = Table::contest("hand a std Mutex over", &contenders, 40_000);
        table.print(&[Limit { peer: "OS threads", ratio: 0.1 }]);
    }
}
