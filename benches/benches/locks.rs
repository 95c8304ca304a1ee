//! Locks that wait in libc, as virtual threads and as OS threads take them; and what the hooks on
//! them cost those who never meet a virtual thread.
//!
//! `cargo bench --bench locks`
//!
//! Excluded: starting and ending the runtime and the threads, but for what the last of them waits
//! for the other.
//!
//! A hand-over: two share a mutex, and each gives way while it has it, so that the other comes and
//! has to wait. OS threads do so on one core, as the virtual threads do.
//!
//! The budgets: 2 ns for each call that only passes through. A wake has a full fence before it can
//! know that nobody of ours waits (`QUEUE-1`), and an unlock a look at the queue.

#![expect(unsafe_code, reason = "C's functions")]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_void};
use std::hint::black_box;
use std::mem;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread as os_thread;
use std::time::{Duration, Instant};

use greenloop::thread;
use greenloop_benches::os;
use greenloop_benches::report::{Contender, Limit, OURS, ROUNDS, Table, is_for_real, measure_with};

greenloop::interpose!();

/// What a wake may cost above a bare one, in nanoseconds: a fence and a load.
const WAKE_NS_MAX: f64 = 12.0;

/// What locking and letting go may cost above the bare calls, in nanoseconds: 2 each, and the look
/// at the queue.
const LOCK_NS_MAX: f64 = 6.0;

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

/// libc's own function of this name.
fn bare(name: &CStr) -> *mut c_void {
    // SAFETY: looks for a name.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null(), "libc has it");
    found
}

type OfMutex = unsafe extern "C" fn(*mut libc::pthread_mutex_t) -> c_int;
type Syscall = unsafe extern "C" fn(libc::c_long, ...) -> libc::c_long;

/// libc's `pthread_mutex_lock` and `pthread_mutex_unlock`.
static BARE_MUTEX: LazyLock<[OfMutex; 2]> = LazyLock::new(|| {
    [c"pthread_mutex_lock", c"pthread_mutex_unlock"].map(|name| {
        // SAFETY: libc's function of that name has this type.
        unsafe { mem::transmute::<*mut c_void, OfMutex>(bare(name)) }
    })
});

/// libc's `syscall`.
static BARE_SYSCALL: LazyLock<Syscall> = LazyLock::new(|| {
    // SAFETY: libc's function of that name has this type.
    unsafe { mem::transmute::<*mut c_void, Syscall>(bare(c"syscall")) }
});

fn locks_by([lock, unlock]: [OfMutex; 2], locks: u64) -> Duration {
    let mutex = UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER);
    let start = Instant::now();
    for _ in 0..locks {
        // SAFETY: a mutex of this function's own.
        unsafe { lock(black_box(mutex.get())) };
        // SAFETY: as above, held.
        unsafe { unlock(black_box(mutex.get())) };
    }
    start.elapsed()
}

fn hooked_locks(locks: u64) -> Duration {
    locks_by([libc::pthread_mutex_lock, libc::pthread_mutex_unlock], locks)
}

fn bare_locks(locks: u64) -> Duration {
    locks_by(*BARE_MUTEX, locks)
}

fn wakes_by(syscall: Syscall, wakes: u64) -> Duration {
    let word = AtomicU32::new(0);
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    let start = Instant::now();
    for _ in 0..wakes {
        word.store(1, Ordering::Release);
        // SAFETY: wakes whoever waits at the address of a word.
        unsafe { syscall(libc::SYS_futex, black_box(word.as_ptr()), operation, 1) };
    }
    start.elapsed()
}

fn hooked_wakes(wakes: u64) -> Duration {
    wakes_by(libc::syscall, wakes)
}

fn bare_wakes(wakes: u64) -> Duration {
    wakes_by(*BARE_SYSCALL, wakes)
}

/// What `hooked` costs above `bare`, against a limit, in nanoseconds. Round by round.
fn print_difference(table: &Table, max_ns: f64) {
    let [hooked, bare] = &table.entries[..] else { return };
    let mut above: Vec<f64> =
        (0..ROUNDS).map(|round| hooked.rounds_ns[round] - bare.rounds_ns[round]).collect();
    above.sort_by(f64::total_cmp);
    let median = above[ROUNDS / 2];
    let verdict = if median <= max_ns { "within" } else { "MISSED" };
    println!("above the bare calls: {median:.1} ns   limit {max_ns:.1}: {verdict}");
}

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    let hand_overs = [
        Contender { name: OURS, run: virtual_hand_overs },
        Contender { name: "OS threads", run: os_hand_overs },
    ];
    let locks =
        [Contender { name: OURS, run: hooked_locks }, Contender { name: "bare", run: bare_locks }];
    let wakes =
        [Contender { name: OURS, run: hooked_wakes }, Contender { name: "bare", run: bare_wakes }];
    measure_with("locks/hand over", &hand_overs);
    measure_with("locks/uncontended", &locks);
    measure_with("locks/wake", &wakes);
    if !is_for_real() {
        return;
    }
    let table = Table::contest("hand a std Mutex over", &hand_overs, 40_000);
    table.print(&[Limit { peer: "OS threads", ratio: 0.1 }]);
    let table = Table::contest("lock and let go, nobody waits", &locks, 3_000_000);
    table.print(&[]);
    print_difference(&table, LOCK_NS_MAX);
    let table = Table::contest("FUTEX_WAKE, nobody waits", &wakes, 1_000_000);
    table.print(&[]);
    print_difference(&table, WAKE_NS_MAX);
    // The same while a virtual thread is alive elsewhere, and waits.
    let (tells, told) = std::sync::mpsc::channel::<()>();
    let (begins, begun) = std::sync::mpsc::channel();
    let elsewhere = os_thread::spawn(move || {
        greenloop::run(move || {
            let waits = thread::spawn(move || {
                begins.send(()).expect("main waits");
                told.recv()
            });
            drop(waits.join());
        });
    });
    begun.recv().expect("it begins");
    let table = Table::contest("lock and let go, beside a virtual thread", &locks, 3_000_000);
    table.print(&[]);
    print_difference(&table, LOCK_NS_MAX);
    drop(tells);
    elsewhere.join().expect("it ends");
}
