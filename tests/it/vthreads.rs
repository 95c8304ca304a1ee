//! Virtual threads: the contract of `std::thread`, on one OS thread.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use greenloop::{
    net::{TcpListener, TcpStream},
    run, sleep, spawn, sync, testing,
    thread::{self, Support, support},
    timeout, try_run, yield_now,
};

use crate::support::assert_ends;

/// Whether threads are virtual here: else what is their own cannot be told from what is an OS
/// thread's, and the tests hold all the same.
fn is_virtual() -> bool {
    support() == Support::Virtual
}

#[test]
fn this_system_has_virtual_threads() {
    let expected = cfg!(not(asan));
    assert_eq!(is_virtual(), expected, "{}", support());
}

#[test]
fn a_thread_runs_and_gives_its_value() {
    let handle = run(|| {
        let handle = thread::spawn(|| 6 * 7);
        handle.join().unwrap()
    });
    assert_eq!(handle, 42);
}

#[test]
fn threads_of_a_hub_share_its_os_thread() {
    let tids = run(|| {
        let own = rustix::thread::gettid();
        let threads: Vec<_> =
            (0..10).map(|_| thread::spawn(move || rustix::thread::gettid() == own)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<HashSet<_>>()
    });
    assert_eq!(tids, HashSet::from([is_virtual()]));
}

thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(7) };
    static TEXT: RefCell<String> = RefCell::new(String::from("fresh"));
}

#[test]
fn each_has_thread_locals_of_its_own_across_suspensions() {
    run(|| {
        NUMBER.set(1);
        TEXT.set("hub".to_owned());
        let threads: Vec<_> = (100..110)
            .map(|n| {
                thread::spawn(move || {
                    assert_eq!(NUMBER.get(), 7);
                    assert_eq!(TEXT.take(), "fresh");
                    NUMBER.set(n);
                    TEXT.set(n.to_string());
                    for _ in 0..5 {
                        thread::yield_now();
                        assert_eq!(NUMBER.get(), n);
                        assert_eq!(TEXT.with_borrow(|text| text.clone()), n.to_string());
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((NUMBER.get(), TEXT.take()), (1, "hub".to_owned()));
    });
}

#[test]
fn thread_ids_and_panics_are_its_own() {
    run(|| {
        let ids: HashSet<_> = (0..5)
            .map(|_| thread::spawn(|| std::thread::current().id()).join().unwrap())
            .chain([std::thread::current().id()])
            .collect();
        assert_eq!(ids.len(), 6);
        struct Witness;
        impl Drop for Witness {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                thread::sleep(Duration::from_millis(2)); // Others run in the midst of the unwind.
            }
        }
        let panics = thread::spawn(|| {
            let _witness = Witness;
            std::panic::resume_unwind(Box::new("as expected"));
        });
        let watches = thread::spawn(|| {
            for _ in 0..10 {
                assert!(!std::thread::panicking());
                thread::yield_now();
            }
        });
        assert_eq!(panics.join().unwrap_err().downcast_ref(), Some(&"as expected"));
        watches.join().unwrap();
        assert!(!std::thread::panicking());
    });
}

/// Says its name when it is dropped.
struct Named(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Drop for Named {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

thread_local! {
    static FIRST: RefCell<Option<Named>> = const { RefCell::new(None) };
    static SECOND: RefCell<Option<Named>> = const { RefCell::new(None) };
}

fn leave_names(said: &Arc<Mutex<Vec<&'static str>>>) {
    FIRST.set(Some(Named("first", Arc::clone(said))));
    SECOND.set(Some(Named("second", Arc::clone(said))));
}

#[test]
fn destructors_of_thread_locals_run_at_its_end_in_stds_order() {
    let std_said: Arc<Mutex<Vec<_>>> = Arc::default();
    let said = Arc::clone(&std_said);
    std::thread::spawn(move || leave_names(&said)).join().unwrap();
    let our_said: Arc<Mutex<Vec<_>>> = Arc::default();
    run(|| {
        let said = Arc::clone(&our_said);
        thread::spawn(move || leave_names(&said)).join().unwrap();
        assert_eq!(*our_said.lock().unwrap(), *std_said.lock().unwrap());
        // On a panic, too, and on a kill.
        our_said.lock().unwrap().clear();
        let said = Arc::clone(&our_said);
        let panics = thread::spawn(move || {
            leave_names(&said);
            std::panic::resume_unwind(Box::new(1));
        });
        panics.join().unwrap_err();
        assert_eq!(our_said.lock().unwrap().len(), 2);
        let said = Arc::clone(&our_said);
        let sleeps = thread::spawn(move || {
            leave_names(&said);
            thread::sleep(Duration::from_secs(3600));
        });
        sleep(Duration::from_millis(1));
        sleeps.kill();
        assert!(sleeps.join().unwrap_err().is::<greenloop::Killed>());
        assert_eq!(our_said.lock().unwrap().len(), 4);
    });
}

#[test]
fn ten_thousand_come_and_go() {
    static ENDED: AtomicU32 = AtomicU32::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            ENDED.fetch_add(1, Ordering::Relaxed);
        }
    }
    thread_local!(static COUNTED: Counted = const { Counted });
    run(|| {
        let count = if is_virtual() { 10_000 } else { 100 };
        let begun: Vec<_> = (0..count)
            .map(|n| {
                thread::spawn(move || {
                    COUNTED.with(|_| ());
                    let text = vec![n; 100];
                    thread::yield_now();
                    text.iter().sum::<u32>()
                })
            })
            .collect();
        for (n, thread) in begun.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), 100 * n as u32);
        }
        assert_eq!(ENDED.load(Ordering::Relaxed), count);
    });
}

#[test]
fn sockets_and_locks_of_this_crate_give_way() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            stream.write_all(&bytes).unwrap();
        });
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"ping").unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).unwrap();
            bytes
        });
        assert_eq!(client.join().unwrap(), *b"ping");
        server.join().unwrap();

        let lock = Arc::new(sync::Mutex::new(0));
        let threads: Vec<_> = (0..10)
            .map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    for _ in 0..10 {
                        let mut held = lock.lock().unwrap();
                        let before = *held;
                        thread::yield_now();
                        *held = before + 1;
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(*lock.lock().unwrap(), 100);
    });
}

#[test]
fn what_belongs_to_the_hub_is_refused() {
    run(|| {
        if !is_virtual() {
            return;
        }
        let refused = thread::spawn(|| {
            let reactor = catch_unwind(greenloop::reactor).is_err();
            let greenlet = greenloop::Builder::new().spawn(|| ()).is_err();
            let (_resolver, deferred) = greenloop::Deferred::<()>::new();
            let waits = greenloop::wait_for_deferred(deferred).is_err();
            (reactor, greenlet, waits)
        });
        assert_eq!(refused.join().unwrap(), (true, true, true));
    });
}

#[test]
fn a_timeout_unwinds_a_call_of_this_crate() {
    run(|| {
        let thread = thread::spawn(|| {
            let slow = timeout(Duration::from_millis(2), || thread::sleep(Duration::MAX));
            let quick = timeout(Duration::from_secs(3600), || 5);
            (slow.is_err(), quick.unwrap())
        });
        assert_eq!(thread.join().unwrap(), (true, 5));
    });
}

#[test]
fn the_end_of_a_run_kills_them() {
    let dropped = Arc::new(AtomicU32::new(0));
    let witness = Arc::clone(&dropped);
    struct Witness(Arc<AtomicU32>);
    impl Drop for Witness {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    run(move || {
        for _ in 0..3 {
            let witness = Witness(Arc::clone(&witness));
            thread::spawn(move || {
                let _witness = witness;
                thread::sleep(Duration::MAX);
            });
        }
        // One is killed before it has begun.
        yield_now();
        let witness = Witness(witness);
        thread::spawn(move || drop(witness));
    });
    if is_virtual() {
        assert_eq!(dropped.load(Ordering::Relaxed), 4);
    }
}

#[test]
fn scopes_borrow_and_wait_and_carry_panics_out() {
    run(|| {
        let mut numbers = vec![1, 2, 3];
        let sum = thread::scope(|s| {
            let first = s.spawn(|| numbers[0]);
            let rest = s.spawn(|| numbers[1..].iter().sum::<i32>());
            first.join().unwrap() + rest.join().unwrap()
        });
        numbers.push(sum);
        assert_eq!(numbers, [1, 2, 3, 6]);

        let ended = AtomicU32::new(0);
        thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    thread::yield_now();
                    ended.fetch_add(1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(ended.load(Ordering::Relaxed), 3);

        let panicked = catch_unwind(AssertUnwindSafe(|| {
            thread::scope(|s| {
                s.spawn(|| std::panic::resume_unwind(Box::new(1)));
            });
        }));
        assert!(panicked.is_err());
        let joined =
            thread::scope(|s| s.spawn(|| std::panic::resume_unwind(Box::new(1))).join().is_err());
        assert!(joined, "a panic that was joined is not the scope's");
        assert_eq!(thread::run(|| numbers.len()), 4);
    });
}

#[test]
fn a_kill_of_who_waits_in_run_kills_the_thread() {
    assert_ends(|| {
        run(|| {
            let waits = spawn(|| thread::run(|| thread::sleep(Duration::MAX)));
            sleep(Duration::from_millis(2));
            waits.kill();
            assert!(waits.join().unwrap_err().is_killed());
        });
    });
}

/// What is born while its scope is being killed ends with it.
#[test]
fn a_killed_scope_does_not_wait_for_who_was_spawned_afterwards() {
    assert_ends(|| {
        run(|| {
            let (tell, told) = std::sync::mpsc::channel();
            let opens = spawn(move || {
                thread::scope(|s| {
                    let parent = s.spawn(|| {
                        thread::park();
                        s.spawn(|| thread::sleep(Duration::MAX));
                    });
                    tell.send(parent.thread().clone()).unwrap();
                    sleep(Duration::MAX);
                });
            });
            sleep(Duration::from_millis(2));
            // In this order: the parent is woken already when it is told to end, and goes on.
            opens.kill();
            told.recv().unwrap().unpark();
            assert!(opens.join().unwrap_err().is_killed());
        });
    });
}

#[test]
fn park_and_unpark_by_handle() {
    run(|| {
        let threads: Vec<_> = (0..5)
            .map(|n| {
                thread::spawn(move || {
                    thread::park();
                    n
                })
            })
            .collect();
        yield_now();
        for thread in threads.iter().rev() {
            assert!(!thread.is_finished());
            thread.thread().unpark();
        }
        let ended: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert_eq!(ended, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_reactor_runs_inside_of_a_thread_and_the_outer_one_goes_on() {
    if !is_virtual() {
        return; // An OS thread in its place has a reactor already.
    }
    assert_ends(|| {
        run(|| {
            let ticks = Arc::new(AtomicU32::new(0));
            let ticking = Arc::clone(&ticks);
            let ticker = spawn(move || {
                loop {
                    sleep(Duration::from_millis(1));
                    ticking.fetch_add(1, Ordering::Relaxed);
                }
            });
            let inner = thread::spawn(move || {
                run(|| {
                    let before = ticks.load(Ordering::Relaxed);
                    let waits = spawn(move || {
                        while ticks.load(Ordering::Relaxed) < before + 3 {
                            sleep(Duration::from_micros(100));
                        }
                    });
                    waits.join().unwrap();
                    5
                })
            });
            assert_eq!(inner.join().unwrap(), 5);
            ticker.kill();
        });
    });
}

#[test]
fn greenlets_of_a_reactor_inside_of_a_thread_wait_by_themselves() {
    if !is_virtual() {
        return; // An OS thread in its place has a reactor already.
    }
    assert_ends(|| {
        let inner = || {
            run(|| {
                let ticker = spawn(|| {
                    loop {
                        yield_now();
                    }
                });
                // Each of these would stop the whole thread, ticker and all, or be refused.
                let late = timeout(Duration::from_millis(2), || sleep(Duration::MAX)).is_err();
                greenloop::wait_for_future(greenloop::sleep_async(Duration::from_millis(1)));
                let threads = thread::spawn(|| thread::spawn(|| 5).join().unwrap());
                let nested = threads.join().unwrap();
                ticker.kill();
                (late, nested)
            })
        };
        assert_eq!(run(move || thread::spawn(inner).join().unwrap()), (true, 5));
    });
}

#[test]
fn a_future_is_polled_on_its_thread_and_woken_from_any() {
    run(|| {
        let thread = thread::spawn(|| {
            NUMBER.set(11);
            let mut polls = 0;
            let polled = std::future::poll_fn(|context| {
                assert_eq!(NUMBER.get(), 11);
                polls += 1;
                if polls > 1 {
                    return std::task::Poll::Ready(polls);
                }
                let waker = context.waker().clone();
                std::thread::spawn(move || waker.wake());
                std::task::Poll::Pending
            });
            greenloop::wait_for_future(polled)
        });
        assert_eq!(thread.join().unwrap(), 2);
    });
}

#[test]
fn virtual_time_counts_for_them() {
    // An OS thread has a clock of its own.
    if !run(is_virtual) {
        return;
    }
    let elapsed = testing::run(|| {
        let begun = greenloop::reactor().now();
        let sleeps = thread::spawn(|| thread::sleep(Duration::from_secs(3600)));
        sleeps.join().unwrap();
        greenloop::reactor().now().duration_since(begun)
    });
    assert_eq!(elapsed, Duration::from_secs(3600));
}

#[test]
fn outside_of_a_run_spawning_is_refused() {
    let refused = thread::Builder::new().spawn(|| ());
    assert!(refused.unwrap_err().to_string().contains("greenloop::run"));
    assert!(try_run(|| thread::Builder::new().spawn(|| ()).map(drop)).unwrap().is_ok());
}
