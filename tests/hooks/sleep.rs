//! Sleeping and giving way.

use std::{
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use greenloop::{testing, thread};

use crate::{
    call::{on_a_virtual_thread, result, virtual_time_of},
    support::assert_ends,
};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn ten_thousand_sleep_at_once() {
    const COUNT: u32 = 10_000;
    let time = virtual_time_of(|| {
        let awake = Arc::new(AtomicU32::new(0));
        let sleepers: Vec<_> = (0..COUNT)
            .map(|n| {
                let awake = Arc::clone(&awake);
                thread::spawn(move || {
                    std::thread::sleep(SECOND + Duration::from_nanos(u64::from(n % 7)));
                    awake.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
        assert_eq!(awake.load(Ordering::Relaxed), COUNT);
    });
    assert!(time >= SECOND && time <= SECOND + Duration::from_millis(1), "{time:?}");
}

#[test]
fn every_kind_of_sleep_takes_its_time() {
    let times = [
        virtual_time_of(|| std::thread::sleep(Duration::new(1, 23))),
        virtual_time_of(|| {
            let time = libc::timespec { tv_sec: 1, tv_nsec: 23 };
            // SAFETY: a live time.
            assert_eq!(unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) }, 0);
        }),
        virtual_time_of(|| {
            let time = libc::timespec { tv_sec: 1, tv_nsec: 23 };
            let none = ptr::null_mut();
            // SAFETY: a live time.
            let slept =
                unsafe { libc::clock_nanosleep(libc::CLOCK_REALTIME, 0, &raw const time, none) };
            assert_eq!(slept, 0);
        }),
    ];
    assert_eq!(times, [Duration::new(1, 23); 3]);
    let time = virtual_time_of(|| {
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::sleep(3) }, 0);
    });
    assert_eq!(time, 3 * SECOND);
    let time = virtual_time_of(|| {
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::usleep(2_500_000) }, 0);
    });
    assert_eq!(time, SECOND * 5 / 2);
}

/// Real time, since a point of the system's clock is what is asked for.
#[test]
fn a_sleep_until_a_point_ends_there() {
    on_a_virtual_thread(|| {
        for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME, libc::CLOCK_BOOTTIME] {
            let mut point = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: room for a time.
            assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut point) }, 0);
            point.tv_nsec += 5_000_000;
            if point.tv_nsec >= 1_000_000_000 {
                point = libc::timespec {
                    tv_sec: point.tv_sec + 1,
                    tv_nsec: point.tv_nsec - 1_000_000_000,
                };
            }
            let begun = Instant::now();
            let absolute = libc::TIMER_ABSTIME;
            let none = ptr::null_mut();
            // SAFETY: a live time.
            let slept = unsafe { libc::clock_nanosleep(clock, absolute, &raw const point, none) };
            assert_eq!(slept, 0);
            // SAFETY: as above: it has passed.
            let slept = unsafe { libc::clock_nanosleep(clock, absolute, &raw const point, none) };
            assert_eq!(slept, 0);
            let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: room for a time.
            assert_eq!(unsafe { libc::clock_gettime(clock, &raw mut now) }, 0);
            assert!((now.tv_sec, now.tv_nsec) >= (point.tv_sec, point.tv_nsec));
            assert!(begun.elapsed() < 10 * SECOND);
        }
    });
}

#[test]
fn wrong_times_are_refused() {
    on_a_virtual_thread(|| {
        for (tv_sec, tv_nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
            let time = libc::timespec { tv_sec, tv_nsec };
            let none = ptr::null_mut();
            // SAFETY: a live time.
            let slept = result(unsafe { libc::nanosleep(&raw const time, none) });
            assert_eq!(slept, Err(libc::EINVAL));
            // SAFETY: as above.
            let slept =
                unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const time, none) };
            assert_eq!(slept, libc::EINVAL);
        }
        // SAFETY: the kernel finds nothing there.
        let slept = unsafe { libc::nanosleep(ptr::null(), ptr::null_mut()) };
        assert_eq!(result(slept), Err(libc::EFAULT));
    });
}

#[test]
fn who_spins_and_yields_lets_others_run() {
    assert_ends(|| {
        testing::run(|| {
            let turn = Arc::new(AtomicU32::new(0));
            let players = [0, 1, 2].map(|me| {
                let turn = Arc::clone(&turn);
                thread::spawn(move || {
                    for _ in 0..100 {
                        while turn.load(Ordering::Relaxed) % 3 != me {
                            std::thread::yield_now();
                        }
                        turn.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            players.into_iter().for_each(|player| player.join().unwrap());
            assert_eq!(turn.load(Ordering::Relaxed), 300);
        });
    });
}
