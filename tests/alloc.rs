//! What must not allocate: the operations that a server does a million times a second.
//!
//! A binary of its own, for its global allocator. It counts by thread: what the test harness does
//! meanwhile is not ours. Every loop runs once to warm up: stacks, tables and lists may grow.

#![expect(unsafe_code, reason = "a global allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::poll_fn,
    io::{Read, Write, pipe},
    os::{fd::AsFd, unix::net::UnixStream},
    rc::Rc,
    task::Poll,
    time::Duration,
};

use greenloop::{
    ContextVar, Deadline, Deferred, greenlet_local, reactor, run, select, shield, sleep,
    sleep_async, spawn,
    sync::{Event, Mutex, channel},
    timeout, wait_for_deferred, wait_for_future, wait_readable, wait_readable_async, wait_writable,
    yield_now,
};

const SHORT: Duration = Duration::from_micros(50);
const ROUNDS: u64 = 100;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread asked for and did not give back.
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator, which keeps the contract; counting
// touches a thread-local without destructor, which never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get().wrapping_add(layout.size())));
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        let more = size.wrapping_sub(layout.size());
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get().wrapping_add(more)));
        // SAFETY: passed on.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let _ = BYTES.try_with(|bytes| bytes.set(bytes.get().wrapping_sub(layout.size())));
        // SAFETY: passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count() -> u64 {
    COUNT.get()
}

/// How many allocations this thread makes in `ROUNDS` rounds of `f`, after a warm-up of as many.
fn allocations_of(mut f: impl FnMut()) -> u64 {
    let mut before = 0;
    // One loop for both, so that the debug lint knows each backtrace when it counts.
    for round in 0..2 * ROUNDS {
        if round == ROUNDS {
            before = count();
        }
        f();
    }
    count() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_of(|| drop(std::hint::black_box(Box::new(1)))), ROUNDS);
    assert_eq!(allocations_of(|| ()), 0);
}

#[test]
fn a_yield_allocates_nothing() {
    run(|| {
        let stop = Rc::new(Cell::new(false));
        let seen = Rc::clone(&stop);
        let other = spawn(move || {
            while !seen.get() {
                yield_now();
            }
        });
        assert_eq!(allocations_of(yield_now), 0);
        stop.set(true);
        other.join().unwrap();
    });
}

#[test]
fn a_sleep_allocates_nothing() {
    run(|| assert_eq!(allocations_of(|| sleep(SHORT)), 0));
}

#[test]
fn a_timeout_and_a_shield_allocate_nothing() {
    run(|| {
        let limit = Duration::from_secs(3600);
        assert_eq!(allocations_of(|| timeout(limit, || sleep(SHORT)).unwrap()), 0);
        assert_eq!(allocations_of(|| shield(yield_now)), 0);
    });
}

#[test]
fn a_wait_for_a_descriptor_that_is_ready_allocates_nothing() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let wait = || wait_readable(reader.as_fd(), Deadline::NEVER).unwrap();
        assert_eq!(allocations_of(wait), 0);
    });
}

#[test]
fn a_wait_for_a_descriptor_that_parks_allocates_nothing() {
    run(|| {
        let (a, b) = UnixStream::pair().unwrap();
        let echo = spawn(move || {
            let mut byte = [0];
            loop {
                wait_readable(b.as_fd(), Deadline::NEVER).unwrap();
                if (&b).read(&mut byte).unwrap() == 0 {
                    return;
                }
                wait_writable(b.as_fd(), Deadline::NEVER).unwrap();
                (&b).write_all(&byte).unwrap();
            }
        });
        let mut byte = [0];
        let rounds = allocations_of(|| {
            (&a).write_all(b"x").unwrap();
            let limit = reactor().now() + Duration::from_secs(3600);
            wait_readable(a.as_fd(), limit).unwrap();
            (&a).read_exact(&mut byte).unwrap();
        });
        assert_eq!(rounds, 0);
        drop(a);
        echo.join().unwrap();
    });
}

#[test]
fn a_wait_for_a_future_and_its_polls_allocate_nothing() {
    run(|| {
        let polls_of = |polls: u64| {
            let mut left = polls;
            move || {
                wait_for_future(poll_fn(|cx| {
                    cx.waker().wake_by_ref();
                    left = left.checked_sub(1).unwrap_or(polls);
                    if left == polls { Poll::Ready(()) } else { Poll::Pending }
                }));
            }
        };
        let (few, many) = (allocations_of(polls_of(1)), allocations_of(polls_of(50)));
        assert_eq!((few, many), (0, 0));
    });
}

/// A spawned greenlet costs its join state, and the list entry of whoever waits for it.
#[test]
fn a_spawn_and_join_allocates_twice_at_most() {
    run(|| {
        let allocations = allocations_of(|| spawn(|| ()).join().unwrap());
        assert!(allocations <= 2 * ROUNDS, "{} each", allocations as f64 / ROUNDS as f64);
    });
}

#[test]
fn a_spawn_whose_greenlet_ends_before_it_is_joined_allocates_once() {
    run(|| {
        let allocations = allocations_of(|| {
            let greenlet = spawn(|| ());
            yield_now();
            greenlet.join().unwrap();
        });
        assert!(allocations <= ROUNDS, "{} each", allocations as f64 / ROUNDS as f64);
    });
}

/// What many of them cost: the origin and one callback, which remembers a pointer's worth.
#[test]
fn an_unfired_deferred_with_one_callback_takes_128_bytes_at_most() {
    let before = BYTES.get();
    let boxed = std::hint::black_box(Box::new([0_u8; 100]));
    assert_eq!(BYTES.get() - before, 100, "the counter counts bytes");
    drop(boxed);
    assert_eq!(BYTES.get(), before);
    let seen = 7_u64;
    let (resolver, deferred) = Deferred::<u64>::new();
    let end = deferred.add_callback(move |n| Ok(n + seen));
    let bytes = BYTES.get() - before;
    assert!((1..=128).contains(&bytes), "{bytes} bytes");
    resolver.callback(1);
    drop(end);
    assert_eq!(BYTES.get(), before);
}

/// The origin of the chain, the arrival of its result, and the call that fires it.
#[test]
fn a_wait_for_a_deferred_allocates_a_handful() {
    run(|| {
        assert_eq!(allocations_of(|| assert!(wait_for_deferred(Deferred::succeed(1)).is_ok())), 0);
        let allocations = allocations_of(|| {
            let (resolver, deferred) = Deferred::new();
            reactor().call_when_running(move || resolver.callback(1));
            wait_for_deferred(deferred).unwrap();
        });
        assert!(allocations <= 3 * ROUNDS, "{} each", allocations as f64 / ROUNDS as f64);
    });
}

#[test]
fn a_select_allocates_nothing() {
    run(|| {
        let (sender, receiver) = channel(1);
        let (event, (reader, _writer)) = (Event::new(), pipe().unwrap());
        let at_once = allocations_of(|| {
            sender.try_send(1).unwrap();
            select! {
                () = event.wait_async() => unreachable!(),
                n = receiver.recv_async() => assert_eq!(n, Ok(1)),
            }
        });
        assert_eq!(at_once, 0);
        let other = spawn(move || while sender.send(2).is_ok() {});
        let parked = allocations_of(|| {
            select! {
                () = event.wait_async() => unreachable!(),
                ready = wait_readable_async(reader.as_fd()) => ready.unwrap(),
                () = sleep_async(Duration::MAX) => unreachable!(),
                n = receiver.recv_async() => assert_eq!(n, Ok(2)),
            }
        });
        assert_eq!(parked, 0);
        let timed = allocations_of(|| {
            select! {
                () = event.wait_async() => unreachable!(),
                default(SHORT) => {}
            }
        });
        assert_eq!(timed, 0);
        drop(receiver);
        other.join().unwrap();
    });
}

#[test]
fn a_greenlet_local_allocates_once_a_greenlet_and_a_context_nothing_to_be_read() {
    greenlet_local! {
        static NUMBER: Cell<u32> = Cell::new(0);
    }
    static VARIABLE: ContextVar<u32> = ContextVar::new("variable");
    run(|| {
        NUMBER.set(1);
        VARIABLE.scope(1, || {
            let both = || NUMBER.set(NUMBER.get() + *VARIABLE.get().unwrap());
            assert_eq!(allocations_of(both), 0);
        });
    });
}

#[test]
fn a_timer_that_is_moved_allocates_nothing() {
    run(|| {
        let hour = Duration::from_secs(3600);
        let call = reactor().call_later(hour, || ());
        assert_eq!(allocations_of(|| call.reset(hour).unwrap()), 0);
        assert_eq!(allocations_of(|| call.delay(hour).unwrap()), 0);
    });
}

#[test]
fn an_echo_over_tcp_allocates_nothing() {
    use greenloop::net::{TcpListener, TcpStream};
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buf = [0; 64];
            while let Ok(n @ 1..) = stream.read(&mut buf) {
                stream.write_all(&buf[..n]).unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let mut buf = [0; 64];
        let rounds = allocations_of(|| {
            stream.write_all(b"0123456789").unwrap();
            stream.read_exact(&mut buf[..10]).unwrap();
        });
        assert_eq!(rounds, 0);
        drop(stream);
        echo.join().unwrap();
    });
}

/// The same by futures: one wait for a future, in which every read waits for its socket.
#[test]
fn an_echo_by_futures_allocates_nothing() {
    use greenloop::net::{TcpListener, TcpStream};
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buf = [0; 64];
            wait_for_future(async {
                while let Ok(n @ 1..) = poll_fn(|cx| stream.poll_read(cx, &mut buf)).await {
                    poll_fn(|cx| stream.poll_write(cx, &buf[..n])).await.unwrap();
                }
            });
        });
        let mut stream = TcpStream::connect(address).unwrap();
        let mut buf = [0; 64];
        let rounds = allocations_of(|| {
            stream.write_all(b"0123456789").unwrap();
            stream.read_exact(&mut buf[..10]).unwrap();
        });
        assert_eq!(rounds, 0);
        drop(stream);
        echo.join().unwrap();
    });
}

#[test]
fn waiting_for_channels_locks_and_events_allocates_nothing() {
    run(|| {
        let ((there, asked), (back, answered)) = (channel(1), channel(1));
        let lock = Rc::new((Mutex::new(0), Event::new()));
        let theirs = Rc::clone(&lock);
        spawn(move || {
            for n in &asked {
                *theirs.0.lock().unwrap() += n; // It waits.
                theirs.1.set();
                back.send(n).unwrap();
            }
        });
        let round = || {
            lock.1.clear();
            let held = lock.0.lock().unwrap();
            there.send(1).unwrap();
            yield_now();
            drop(held);
            lock.1.wait();
            answered.recv().unwrap();
        };
        assert_eq!(allocations_of(round), 0);
        assert_eq!(*lock.0.lock().unwrap(), 2 * ROUNDS);
    });
}
