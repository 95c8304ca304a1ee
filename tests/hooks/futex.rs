//! futex(2), as libraries call it that are no part of std.

#![expect(unsafe_code, reason = "C's functions")]

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread as os,
    time::{Duration, Instant},
};

use greenloop::{run, thread};
use libc::{c_int, c_long, timespec};

use crate::{
    locks::{Trace, settle},
    support::assert_ends,
};

const FOREVER: *const timespec = ptr::null();

/// A word.
fn word() -> &'static AtomicU32 {
    Box::leak(Box::default())
}

/// What futex(2) gives, or errno.
fn futex(
    word: &AtomicU32,
    operation: c_int,
    value: u32,
    time: *const timespec,
    other: &AtomicU32,
    last: u32,
) -> Result<c_long, c_int> {
    // SAFETY: the words are alive, and so is the time, if there is one.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, time, other.as_ptr(), last)
    };
    if result == -1 {
        return Err(std::io::Error::last_os_error().raw_os_error().unwrap());
    }
    Ok(result)
}

fn wait(
    word: &AtomicU32,
    operation: c_int,
    time: *const timespec,
    bits: u32,
) -> Result<c_long, c_int> {
    futex(word, operation, word.load(Ordering::Relaxed), time, word, bits)
}

fn wake(word: &AtomicU32, operation: c_int, count: u32, bits: u32) -> Result<c_long, c_int> {
    futex(word, operation, count, FOREVER, word, bits)
}

const PRIVATE: c_int = libc::FUTEX_PRIVATE_FLAG;
const WAIT: c_int = libc::FUTEX_WAIT | PRIVATE;
const WAKE: c_int = libc::FUTEX_WAKE | PRIVATE;
const WAIT_BITSET: c_int = libc::FUTEX_WAIT_BITSET | PRIVATE;
const WAKE_BITSET: c_int = libc::FUTEX_WAKE_BITSET | PRIVATE;

#[test]
fn a_wake_wakes_as_many_as_it_says_in_their_order() {
    assert_ends(|| {
        run(|| {
            let (trace, word) = (Trace::default(), word());
            let waiter = |name: &'static str| {
                let trace = trace.clone();
                thread::spawn(move || {
                    assert_eq!(wait(word, WAIT, FOREVER, 0), Ok(0));
                    trace.add(name);
                })
            };
            let threads = ["a", "b", "c", "d"].map(waiter);
            settle();
            assert_eq!(wake(word, WAKE, 1, 0), Ok(1));
            settle();
            assert_eq!(trace.taken(), ["a"]);
            assert_eq!(wake(word, WAKE, 2, 0), Ok(2));
            settle();
            assert_eq!(trace.taken(), ["b", "c"]);
            assert_eq!(wake(word, WAKE, 100, 0), Ok(1));
            assert_eq!(wake(word, WAKE, 100, 0), Ok(0));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    });
}

#[test]
fn a_word_that_has_changed_is_not_waited_for() {
    assert_ends(|| {
        run(|| {
            let waits = thread::spawn(|| futex(word(), WAIT, 1, FOREVER, word(), 0));
            assert_eq!(waits.join().unwrap(), Err(libc::EAGAIN));
        });
    });
}

#[test]
fn times_are_absolute_or_relative_by_either_clock() {
    assert_ends(|| {
        run(|| {
            let waits = thread::spawn(|| {
                let ms = |clock| {
                    let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
                    // SAFETY: it is written.
                    unsafe { libc::clock_gettime(clock, &mut now) };
                    let ns = now.tv_nsec + 2_000_000;
                    timespec {
                        tv_sec: now.tv_sec + ns / 1_000_000_000,
                        tv_nsec: ns % 1_000_000_000,
                    }
                };
                let relative = timespec { tv_sec: 0, tv_nsec: 2_000_000 };
                let realtime = WAIT_BITSET | libc::FUTEX_CLOCK_REALTIME;
                for (operation, time) in [
                    (WAIT, relative),
                    (libc::FUTEX_WAIT, relative),
                    (WAIT_BITSET, ms(libc::CLOCK_MONOTONIC)),
                    (realtime, ms(libc::CLOCK_REALTIME)),
                    // Long ago.
                    (WAIT_BITSET, relative),
                ] {
                    let begun = Instant::now();
                    let waited = wait(word(), operation, &time, u32::MAX);
                    assert_eq!(waited, Err(libc::ETIMEDOUT));
                    if operation & libc::FUTEX_CMD_MASK == libc::FUTEX_WAIT {
                        assert!(begun.elapsed() >= Duration::from_millis(1), "{operation}");
                    }
                }
                let bad = timespec { tv_sec: 0, tv_nsec: -1 };
                assert_eq!(wait(word(), WAIT, &bad, 0), Err(libc::EINVAL));
                assert_eq!(wait(word(), WAIT_BITSET, FOREVER, 0), Err(libc::EINVAL));
            });
            waits.join().unwrap();
        });
    });
}

#[test]
fn bits_choose_who_is_woken() {
    assert_ends(|| {
        run(|| {
            let word = word();
            let waits = thread::spawn(move || wait(word, WAIT_BITSET, FOREVER, 2));
            settle();
            assert_eq!(wake(word, WAKE_BITSET, 1, 1), Ok(0));
            assert_eq!(wake(word, WAKE_BITSET, 1, 6), Ok(1));
            assert_eq!(waits.join().unwrap(), Ok(0));
        });
    });
}

#[test]
fn what_moves_waiters_or_changes_a_word_wakes_virtual_threads() {
    assert_ends(|| {
        run(|| {
            let (first, second) = (word(), word());
            let requeue = libc::FUTEX_CMP_REQUEUE | PRIVATE;
            // An argument that is a number in these.
            let one = ptr::without_provenance(1);
            let waits = thread::spawn(move || wait(first, WAIT, FOREVER, 0));
            settle();
            assert_eq!(futex(first, requeue, 1, one, second, 7), Err(libc::EAGAIN));
            settle();
            assert!(!waits.is_finished());
            assert_eq!(futex(first, requeue, 1, one, second, 0), Ok(1));
            assert_eq!(waits.join().unwrap(), Ok(0));
            let waits =
                [first, second].map(|word| thread::spawn(move || wait(word, WAIT, FOREVER, 0)));
            settle();
            let operation = libc::FUTEX_WAKE_OP | PRIVATE;
            let set = libc::FUTEX_OP(libc::FUTEX_OP_SET, 5, libc::FUTEX_OP_CMP_EQ, 0) as u32;
            assert_eq!(futex(first, operation, 1, one, second, set), Ok(2));
            assert_eq!(second.load(Ordering::Relaxed), 5);
            waits.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), Ok(0)));
        });
    });
}

#[test]
fn one_of_several_words_ends_a_wait_for_all() {
    #[repr(C)]
    struct Word(u64, u64, u32, u32);
    assert_ends(|| {
        run(|| {
            let all = [word(), word(), word()];
            let waits = thread::spawn(move || {
                let words = all.map(|word| Word(0, word.as_ptr() as u64, 2 | 128, 0));
                // SAFETY: the words are alive.
                unsafe { libc::syscall(libc::SYS_futex_waitv, &words, 3, 0, 0, 0) }
            });
            settle();
            assert_eq!(wake(all[1], WAKE, 1, 0), Ok(1));
            assert_eq!(waits.join().unwrap(), 1);
            assert_eq!(wake(all[0], WAKE, 1, 0), Ok(0));
        });
    });
}

#[test]
fn what_the_kernel_keeps_by_thread_is_refused() {
    assert_ends(|| {
        run(|| {
            let lock = libc::FUTEX_LOCK_PI | PRIVATE;
            let locks = thread::spawn(move || futex(word(), lock, 0, FOREVER, word(), 0));
            assert_eq!(locks.join().unwrap(), Err(libc::ENOTSUP));
        });
    });
}

/// A wake that passes no hook, as of another process, reaches who waits for a shared word.
#[test]
fn a_shared_word_is_looked_at_again() {
    assert_ends(|| {
        run(|| {
            let word = word();
            let waits = thread::spawn(move || {
                let time = timespec { tv_sec: 10, tv_nsec: 0 };
                let timed = wait(word, libc::FUTEX_WAIT, &time, 0);
                // It changes and changes back: so the caller looks.
                (timed, wait(word, libc::FUTEX_WAIT, FOREVER, 0))
            });
            settle();
            word.store(1, Ordering::Relaxed);
            assert_eq!(waits.join().unwrap(), (Ok(0), Ok(0)));
        });
    });
}

/// A wake goes to the kernel, too, at times, though virtual threads have used it up.
#[test]
fn who_sleeps_in_the_kernel_is_not_starved() {
    assert_ends(|| {
        let (word, tells) = (word(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&tells);
        let sleeps = os::spawn(move || {
            let waited = wait(word, WAIT, FOREVER, 0);
            told.store(true, Ordering::Release);
            waited
        });
        let is_woken = Arc::clone(&tells);
        run(|| {
            let is_over = Arc::clone(&tells);
            let always = thread::spawn(move || {
                while !is_over.load(Ordering::Acquire) {
                    assert_eq!(wait(word, WAIT, FOREVER, 0), Ok(0));
                }
            });
            while !is_woken.load(Ordering::Acquire) {
                settle();
                wake(word, WAKE, 1, 0).unwrap();
            }
            wake(word, WAKE, 1, 0).unwrap();
            always.join().unwrap();
        });
        assert_eq!(sleeps.join().unwrap(), Ok(0));
    });
}
