//! Waiting for descriptors that the crate does not own.

use std::{
    cell::RefCell,
    fs::File,
    io::{ErrorKind, PipeReader, Read, Write, pipe},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use greenloop::{
    Deadline, Deferred, RunError, current, reactor, run, shield, sleep, spawn, timeout, try_run,
    wait_for_deferred, wait_readable, wait_writable, yield_now,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(2);

fn readable(fd: &impl AsFd) -> std::io::Result<()> {
    wait_readable(fd.as_fd(), Deadline::NEVER)
}

fn soon() -> Deadline {
    reactor().now() + SHORT
}

fn later() -> Deadline {
    reactor().now() + LONG
}

/// Fills a non-blocking socket until it takes no more; returns how much it took.
fn fill(mut socket: &UnixStream) -> usize {
    let (mut filled, chunk) = (0, [0; 4096]);
    loop {
        match socket.write(&chunk) {
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return filled,
            Err(error) => panic!("{error}"),
        }
    }
}

fn sockets() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

#[test]
fn wait_readable_parks_until_there_is_something_to_read() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let out = Rc::clone(&order);
        let waiter = spawn(move || {
            out.borrow_mut().push("waits");
            readable(&reader).unwrap();
            out.borrow_mut().push("readable");
            let mut buf = [0; 4];
            assert_eq!((&reader).read(&mut buf).unwrap(), 1);
        });
        yield_now();
        sleep(SHORT); // the reactor turns, and still has nothing to tell
        order.borrow_mut().push("writes");
        writer.write_all(b"x").unwrap();
        waiter.join().unwrap();
        assert_eq!(order.take(), ["waits", "writes", "readable"]);
    });
}

#[test]
fn what_is_ready_already_is_reported_again_and_again() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        for _ in 0..3 {
            wait_readable(reader.as_fd(), later()).unwrap();
            wait_writable(writer.as_fd(), later()).unwrap();
        }
    });
}

#[test]
fn the_end_of_a_pipe_is_readable_and_a_broken_one_writable() {
    run(|| {
        let (reader, writer) = pipe().unwrap();
        drop(writer);
        wait_readable(reader.as_fd(), later()).unwrap();
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        wait_writable(writer.as_fd(), later()).unwrap();
    });
}

#[test]
fn wait_writable_parks_until_the_peer_has_read() {
    run(|| {
        let (a, b) = sockets();
        let filled = fill(&a);
        assert_eq!(wait_writable(a.as_fd(), soon()).unwrap_err().kind(), ErrorKind::TimedOut);
        let drains = spawn(move || {
            let mut left = filled;
            let mut buf = vec![0; 1 << 16];
            while left > 0 {
                left -= (&b).read(&mut buf).unwrap();
            }
            b
        });
        wait_writable(a.as_fd(), later()).unwrap();
        assert_eq!((&a).write(b"more").unwrap(), 4);
        drop(drains.join().unwrap());
    });
}

#[test]
fn several_greenlets_may_wait_for_one_descriptor() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let waiters: Vec<_> = (0..5)
            .map(|_| {
                let reader = Rc::clone(&reader);
                spawn(move || readable(&*reader).unwrap())
            })
            .collect();
        sleep(SHORT);
        assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
        // One of them gives up, in the middle of the list.
        waiters[2].kill();
        yield_now();
        writer.write_all(b"x").unwrap();
        for (number, waiter) in waiters.into_iter().enumerate() {
            assert_eq!(waiter.join().is_err(), number == 2);
        }
    });
}

#[test]
fn the_two_directions_of_a_socket_do_not_wake_each_other() {
    run(|| {
        let (a, b) = sockets();
        fill(&a);
        let a = Rc::new(a);
        let (to_read, to_write) = (Rc::clone(&a), Rc::clone(&a));
        let reads = spawn(move || readable(&*to_read));
        let writes = spawn(move || wait_writable(to_write.as_fd(), Deadline::NEVER));
        sleep(SHORT);
        assert!(!reads.is_finished() && !writes.is_finished());
        (&b).write_all(b"x").unwrap();
        reads.join().unwrap().unwrap();
        assert!(!writes.is_finished(), "it is still full");
        let mut buf = vec![0; 1 << 20];
        while (&b).read(&mut buf).is_ok() {}
        writes.join().unwrap().unwrap();
    });
}

#[test]
fn a_deadline_ends_the_wait_and_not_before_its_time() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let deadline = soon();
        let error = wait_readable(reader.as_fd(), deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(reactor().now() >= deadline);
        // The wait has left nothing behind: the next one works, and so does an earlier deadline.
        assert!(wait_readable(reader.as_fd(), Deadline::ZERO).is_err());
        writer.write_all(b"x").unwrap();
        wait_readable(reader.as_fd(), later()).unwrap();
    });
}

#[test]
fn what_is_ready_wins_over_a_deadline_that_has_passed() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        wait_readable(reader.as_fd(), Deadline::ZERO).unwrap();
    });
}

/// epoll refuses them; Twisted polls them without end.
#[test]
fn a_regular_file_is_refused_with_permission_denied() {
    run(|| {
        let file = File::open("/proc/self/exe").unwrap();
        for _ in 0..2 {
            let error = wait_readable(file.as_fd(), later()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            let error = wait_writable(file.as_fd(), later()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        }
        let error = reactor().add_reader(file, |_| panic!("called")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    });
}

#[test]
fn waiting_outside_run_is_an_error() {
    let (reader, _writer) = pipe().unwrap();
    let error = readable(&reader).unwrap_err();
    assert!(error.to_string().contains("greenloop::run"), "{error}");
}

#[test]
fn a_kill_ends_the_wait_and_leaves_nothing_behind() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let reader = Rc::new(reader);
        let shared = Rc::clone(&reader);
        let waiter = spawn(move || readable(&*shared));
        sleep(SHORT);
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        writer.write_all(b"x").unwrap();
        sleep(SHORT); // an event for nobody
        wait_readable(reader.as_fd(), later()).unwrap();
    });
}

/// "Cancellation point: always, even when `fd` is ready at once."
#[test]
fn a_kill_is_noticed_even_when_the_descriptor_is_ready() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        writer.write_all(b"x").unwrap();
        let waiter = spawn(move || {
            current().kill();
            readable(&reader)
        });
        assert!(waiter.join().unwrap_err().is_killed());
    });
}

#[test]
fn a_kill_inside_a_shield_is_an_error_of_the_wait() {
    run(|| {
        let (reader, _writer) = pipe().unwrap();
        let waiter = spawn(move || {
            let error = shield(|| readable(&reader)).unwrap_err();
            assert_eq!(error.to_string(), "the greenlet was killed");
        });
        sleep(SHORT);
        waiter.kill();
        waiter.join().unwrap();
    });
}

#[test]
fn a_timeout_around_the_wait_unwinds_it() {
    run(|| {
        let (reader, _writer) = pipe().unwrap();
        assert!(timeout(SHORT, || readable(&reader)).is_err());
        assert!(timeout(LONG, || wait_readable(reader.as_fd(), soon())).unwrap().is_err());
    });
}

#[test]
fn another_thread_may_do_the_writing() {
    run(|| {
        let (mut reader, mut writer) = pipe().unwrap();
        let thread = thread::spawn(move || {
            for n in 0..100u8 {
                writer.write_all(&[n]).unwrap();
            }
        });
        let (mut got, mut buf) = (0, [0; 16]);
        while got < 100 {
            readable(&reader).unwrap();
            got += reader.read(&mut buf).unwrap();
        }
        thread.join().unwrap();
    });
}

// ---- numbers that are used again --------------------------------------------------------------

/// A descriptor whose number stays while the file behind it changes.
struct Slot(OwnedFd);

impl Slot {
    fn new(file: &impl AsFd) -> Slot {
        Slot(rustix::io::dup(file).unwrap())
    }

    fn put(&mut self, file: &impl AsFd) {
        rustix::io::dup2(file, &mut self.0).unwrap();
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[test]
fn a_number_that_names_another_file_is_waited_for_anew() {
    run(|| {
        let (one, mut write_one) = pipe().unwrap();
        let (two, mut write_two) = pipe().unwrap();
        let mut slot = Slot::new(&one);
        drop(one);
        write_one.write_all(b"x").unwrap();
        wait_readable(slot.fd(), later()).unwrap();
        slot.put(&two); // the first file is gone for good
        assert!(wait_readable(slot.fd(), soon()).is_err(), "there is nothing in the second");
        write_two.write_all(b"x").unwrap();
        wait_readable(slot.fd(), later()).unwrap();
    });
}

/// SOURCE-1: the first file lives on elsewhere, and so does what the poller knows of it.
#[test]
fn an_event_of_a_file_that_had_the_number_before_wakes_nobody() {
    run(|| {
        let (one, mut write_one) = pipe().unwrap();
        let (two, mut write_two) = pipe().unwrap();
        let mut slot = Slot::new(&one);
        assert!(wait_readable(slot.fd(), soon()).is_err());
        slot.put(&two);
        let slot = Rc::new(slot);
        let shared = Rc::clone(&slot);
        let waiter = spawn(move || wait_readable(shared.fd(), Deadline::NEVER).unwrap());
        sleep(SHORT);
        write_one.write_all(b"x").unwrap(); // of `one`, which is still open
        sleep(SHORT);
        assert!(!waiter.is_finished(), "an event of the first file woke who waits for the second");
        write_two.write_all(b"x").unwrap();
        waiter.join().unwrap();
        drop(one);
    });
}

#[test]
fn a_wait_for_the_next_file_of_a_number_takes_the_earlier_waiters_along() {
    run(|| {
        let (one, _write_one) = pipe().unwrap();
        let (two, mut write_two) = pipe().unwrap();
        let mut slot = Slot::new(&one);
        let number = slot.0.as_raw_fd();
        let stuck = spawn(move || {
            wait_for_number(number);
        });
        yield_now();
        drop(one);
        slot.put(&two);
        write_two.write_all(b"x").unwrap();
        wait_readable(slot.fd(), later()).unwrap();
        // It waited for a file that is gone. That it is woken is a hint, and it may look again.
        let _ = stuck.join_timeout(SHORT).map_err(|stuck| stuck.kill());
    });
}

/// Waits for a number that its caller keeps open.
#[expect(unsafe_code, reason = "its owner replaces the file meanwhile")]
fn wait_for_number(number: i32) {
    // SAFETY: the caller keeps the number open until this greenlet has ended.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    wait_readable(fd, Deadline::NEVER).unwrap();
}

#[test]
fn a_file_may_be_waited_for_under_two_numbers() {
    run(|| {
        let (reader, mut writer) = pipe().unwrap();
        let copy = reader.try_clone().unwrap();
        let waiters = [
            spawn(move || wait_readable(copy.as_fd(), Deadline::NEVER).map(|()| copy)),
            spawn(move || wait_readable(reader.as_fd(), Deadline::NEVER).map(|()| reader)),
        ];
        sleep(SHORT);
        writer.write_all(b"x").unwrap();
        for waiter in waiters {
            waiter.join().unwrap().unwrap();
        }
    });
}

#[test]
fn numbers_come_and_go_without_end() {
    run(|| {
        for round in 0..200 {
            let (reader, mut writer) = pipe().unwrap();
            if round % 3 == 0 {
                assert!(wait_readable(reader.as_fd(), Deadline::ZERO).is_err());
            }
            writer.write_all(b"x").unwrap();
            wait_readable(reader.as_fd(), later()).unwrap();
            let (a, b) = sockets();
            wait_writable(a.as_fd(), later()).unwrap();
            (&b).write_all(b"x").unwrap();
            wait_readable(a.as_fd(), later()).unwrap();
        }
    });
}

#[test]
fn a_descriptor_that_another_run_knew_is_known_anew() {
    let (reader, mut writer) = pipe().unwrap();
    run(|| assert!(wait_readable(reader.as_fd(), soon()).is_err()));
    writer.write_all(b"x").unwrap();
    run(|| wait_readable(reader.as_fd(), later()).unwrap());
}

/// Two reactors may watch one file, each for its own waiters.
#[test]
fn two_threads_may_wait_for_one_file() {
    let (reader, mut writer) = pipe().unwrap();
    let copy = reader.try_clone().unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let wait = |reader: PipeReader, ready: std::sync::mpsc::Sender<()>| {
        thread::spawn(move || {
            run(|| {
                ready.send(()).unwrap();
                wait_readable(reader.as_fd(), later()).unwrap();
            });
        })
    };
    let threads = [wait(reader, ready.clone()), wait(copy, ready)];
    is_ready.iter().take(2).for_each(drop);
    writer.write_all(b"x").unwrap();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_wait_for_a_descriptor_is_not_reported_as_endless() {
    let ended = try_run(|| {
        let (reader, _writer) = pipe().unwrap();
        let begun = Instant::now();
        let deadline = reactor().now() + 5 * SHORT;
        let result = wait_readable(reader.as_fd(), deadline);
        (result.unwrap_err().kind(), begun.elapsed() >= 5 * SHORT)
    });
    assert_eq!(ended.unwrap(), (ErrorKind::TimedOut, true));
}

/// IO-1: a wait that was killed counts no more, or main's own would never be reported.
#[test]
fn a_wait_that_was_killed_is_forgotten() {
    let ended = try_run(|| {
        let (reader, _writer) = pipe().unwrap();
        let waiter = spawn(move || readable(&reader));
        sleep(SHORT);
        waiter.kill();
        assert!(waiter.join().unwrap_err().is_killed());
        let (_resolver, deferred) = Deferred::<()>::new();
        wait_for_deferred(deferred).map_err(drop)
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))));
}
