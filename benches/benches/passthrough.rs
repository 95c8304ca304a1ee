//! What the hooks cost those who never meet a virtual thread: each call by its hooked name beside
//! libc's own function of that name.
//!
//! `cargo bench --bench passthrough`
//!
//! Excluded: the way through the linker's table, which a library has with hooks as without: both
//! are called by an address. Calls are made a thousand at a time, hooked and bare by turns, and
//! what is printed is the median of the differences between neighbours.
//!
//! The limit: 2 ns for each call. A pair (lock and unlock) is two calls. A wake has a full fence
//! before it can know that nobody of ours waits (`QUEUE-1`), so it has a limit of its own.
//!
//! # Safety
//! libc's functions, called as their manual pages have it, by their names and by what `dlsym` finds
//! behind those.

#![expect(unsafe_code, reason = "C's functions")]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_int, c_long, c_void};
use std::fs::File;
use std::hint::black_box;
use std::io;
use std::mem;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use greenloop::thread;
use greenloop_benches::os;
use greenloop_benches::report::is_for_real;
use greenloop_benches::stats::Median;

greenloop::interpose!();

/// What a call may cost above a bare one, in nanoseconds.
const CALL_NS_MAX: f64 = 2.0;

/// What a wake may: the fence, a load, and the call.
const WAKE_NS_MAX: f64 = 12.0;

/// Calls between two looks at the clock.
const CALLS: u32 = 1_000;

/// How often hooked and bare calls take turns.
const ROUNDS: usize = 501;

type Read = unsafe extern "C" fn(c_int, *mut c_void, usize) -> isize;
type Write = unsafe extern "C" fn(c_int, *const c_void, usize) -> isize;
type Recv = unsafe extern "C" fn(c_int, *mut c_void, usize, c_int) -> isize;
type Poll = unsafe extern "C" fn(*mut libc::pollfd, libc::nfds_t, c_int) -> c_int;
type Close = unsafe extern "C" fn(c_int) -> c_int;
type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;
type OfMutex = unsafe extern "C" fn(*mut libc::pthread_mutex_t) -> c_int;
type OfRwLock = unsafe extern "C" fn(*mut libc::pthread_rwlock_t) -> c_int;
type OfSemaphore = unsafe extern "C" fn(*mut libc::sem_t) -> c_int;

/// libc's own function of this name.
///
/// # Safety
///
/// `F` is the type of a pointer to it.
unsafe fn bare<F: Copy>(name: &CStr) -> F {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>(), "a pointer to a function") };
    // SAFETY: looks for a name.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    assert!(!found.is_null(), "libc has no {name:?}");
    // SAFETY: the caller's promise.
    unsafe { mem::transmute_copy::<*mut c_void, F>(&found) }
}

/// Prints what `call` costs with the hooked function (or functions), with the bare one, and the
/// difference.
fn compare<F: Copy>(name: &str, max_ns: f64, [hooked, bare]: [F; 2], call: impl Fn(F)) {
    let time_ns = |function: F| {
        let function = black_box(function);
        let start = Instant::now();
        for _ in 0..CALLS {
            call(function);
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    let (mut by_hook, mut by_none, mut above) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..if is_for_real() { ROUNDS } else { 3 } {
        let (one, other) = if round % 2 == 0 {
            let one = time_ns(hooked);
            (one, time_ns(bare))
        } else {
            let other = time_ns(bare);
            (time_ns(hooked), other)
        };
        by_hook.push(one);
        by_none.push(other);
        above.push(one - other);
    }
    let (by_hook, by_none) = (Median::of(&by_hook).value, Median::of(&by_none).value);
    let Median { value, low, high } = Median::of(&above);
    let verdict = if value <= max_ns { "within" } else { "OVER" };
    println!(
        "| {name} | {by_none:.1} | {by_hook:.1} | {value:.2} ({low:.2} to {high:.2}) | \
         {max_ns:.1}: {verdict} |"
    );
}

fn descriptors() -> io::Result<()> {
    let zero = File::open("/dev/zero")?;
    let null = File::options().write(true).open("/dev/null")?;
    let (silent, _other) = UnixDatagram::pair()?;
    let (zero, null, silent) = (zero.as_raw_fd(), null.as_raw_fd(), silent.as_raw_fd());
    let byte = UnsafeCell::new(0u8);
    let at = || byte.get().cast::<c_void>();

    // SAFETY: of this type.
    let functions = [libc::read as Read, unsafe { bare(c"read") }];
    compare("read, of a device", CALL_NS_MAX, functions, |read| {
        // SAFETY: one byte, for which there is room.
        unsafe { read(zero, at(), 1) };
    });
    // SAFETY: of this type.
    let functions = [libc::write as Write, unsafe { bare(c"write") }];
    compare("write, to a device", CALL_NS_MAX, functions, |write| {
        // SAFETY: one byte, which is there.
        unsafe { write(null, at(), 1) };
    });
    // SAFETY: of this type.
    let functions = [libc::recv as Recv, unsafe { bare(c"recv") }];
    compare("recv, of an empty socket", CALL_NS_MAX, functions, |recv| {
        // SAFETY: one byte, for which there is room.
        unsafe { recv(silent, at(), 1, libc::MSG_DONTWAIT) };
    });
    // SAFETY: of this type.
    let functions = [libc::poll as Poll, unsafe { bare(c"poll") }];
    compare("poll, of nothing", CALL_NS_MAX, functions, |poll| {
        // SAFETY: no descriptors, hence none is read.
        unsafe { poll(ptr::null_mut(), 0, 0) };
    });
    // SAFETY: of this type.
    let functions = [libc::close as Close, unsafe { bare(c"close") }];
    compare("close, of nothing", CALL_NS_MAX, functions, |close| {
        // SAFETY: no descriptor has this number.
        unsafe { close(-1) };
    });
    Ok(())
}

fn futexes() {
    let word = AtomicU32::new(0);
    // SAFETY: of this type.
    let functions = [libc::syscall as Syscall, unsafe { bare(c"syscall") }];
    compare("syscall, no futex", CALL_NS_MAX, functions, |syscall| {
        // SAFETY: takes nothing, and asks for a number.
        unsafe { syscall(libc::SYS_getppid) };
    });
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    compare("FUTEX_WAIT, too late", CALL_NS_MAX, functions, |syscall| {
        // SAFETY: a live word, which has not this value: it does not wait.
        unsafe { syscall(libc::SYS_futex, word.as_ptr(), operation, 1, ptr::null::<c_void>()) };
    });
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    compare("FUTEX_WAKE, nobody waits", WAKE_NS_MAX, functions, |syscall| {
        // An unlock, as std does it before it wakes.
        word.swap(0, Ordering::Release);
        // SAFETY: wakes whoever waits at the address of a live word.
        unsafe { syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
    });
}

fn locks() {
    let mutex = UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER);
    let hooked: [OfMutex; 2] = [libc::pthread_mutex_lock, libc::pthread_mutex_unlock];
    // SAFETY: both of this type.
    let next = [c"pthread_mutex_lock", c"pthread_mutex_unlock"].map(|name| unsafe { bare(name) });
    compare("a mutex locked and let go", 2.0 * CALL_NS_MAX, [hooked, next], |[lock, unlock]| {
        // SAFETY: a live mutex.
        unsafe { lock(mutex.get()) };
        // SAFETY: as above, held.
        unsafe { unlock(mutex.get()) };
    });
    let lock = UnsafeCell::new(libc::PTHREAD_RWLOCK_INITIALIZER);
    let hooked: [OfRwLock; 2] = [libc::pthread_rwlock_rdlock, libc::pthread_rwlock_unlock];
    let names = [c"pthread_rwlock_rdlock", c"pthread_rwlock_unlock"];
    // SAFETY: both of this type.
    let next = names.map(|name| unsafe { bare(name) });
    compare("a lock for readers", 2.0 * CALL_NS_MAX, [hooked, next], |[read, unlock]| {
        // SAFETY: a live lock.
        unsafe { read(lock.get()) };
        // SAFETY: as above, held.
        unsafe { unlock(lock.get()) };
    });
    let semaphore = UnsafeCell::new(mem::MaybeUninit::<libc::sem_t>::uninit());
    let semaphore = semaphore.get().cast::<libc::sem_t>();
    // SAFETY: room for a semaphore.
    unsafe { libc::sem_init(semaphore, 0, 0) };
    let hooked: [OfSemaphore; 2] = [libc::sem_post, libc::sem_wait];
    // SAFETY: both of this type.
    let next = [c"sem_post", c"sem_wait"].map(|name| unsafe { bare(name) });
    compare("a semaphore's post and wait", 2.0 * CALL_NS_MAX, [hooked, next], |[post, wait]| {
        // SAFETY: a live semaphore.
        unsafe { post(semaphore) };
        // SAFETY: as above, and it was posted to.
        unsafe { wait(semaphore) };
    });
}

fn table(title: &str) {
    println!("\n| {title} | bare, ns | hooked, ns | above, ns (95 %) | limit |");
    println!("|---|---|---|---|---|");
    descriptors().expect("devices and sockets");
    futexes();
    locks();
}

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    greenloop::interpose::is_active().expect("this program says `interpose!()`");
    table("no virtual thread anywhere");
    // One that waits, of a hub on another OS thread.
    let (tells, told) = mpsc::channel::<()>();
    let (begins, begun) = mpsc::channel();
    let elsewhere = std::thread::spawn(move || {
        greenloop::run(move || {
            let waits = thread::spawn(move || {
                begins.send(()).expect("main waits");
                told.recv()
            });
            drop(waits.join());
        });
    });
    begun.recv().expect("it begins");
    table("one waits on another OS thread");
    drop(tells);
    elsewhere.join().expect("it ends");
}
