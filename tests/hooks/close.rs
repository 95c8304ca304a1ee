//! Closing what others wait for.

use std::{
    fs::File,
    io::{Read, Write, pipe},
    net::TcpListener,
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    time::Duration,
};

use greenloop::{testing::settle, thread};

use crate::{
    call::{on_a_virtual_thread, result},
    support::assert_ends,
};

fn receive(fd: RawFd) -> Result<i64, i32> {
    // SAFETY: a live buffer of that length.
    result(unsafe { libc::recv(fd, [0u8; 8].as_mut_ptr().cast(), 8, 0) })
}

fn close(fd: RawFd) {
    // SAFETY: nobody has it but the numbers of this test.
    assert_eq!(unsafe { libc::close(fd) }, 0);
}

fn poll_one(fd: RawFd) -> (Result<i64, i32>, i16) {
    let mut one = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    let ready = result(unsafe { libc::poll(&raw mut one, 1, -1) });
    (ready, one.revents)
}

/// Every way to wait for a descriptor.
fn waits_for(fd: RawFd) -> Vec<thread::JoinHandle<Result<i64, i32>>> {
    vec![
        thread::spawn(move || receive(fd)),
        thread::spawn(move || {
            // SAFETY: a live buffer of that length.
            result(unsafe { libc::read(fd, [0u8; 8].as_mut_ptr().cast(), 8) })
        }),
        thread::spawn(move || {
            let (ready, events) = poll_one(fd);
            assert_eq!((ready, events), (Ok(1), libc::POLLNVAL));
            Err(libc::EBADF)
        }),
        thread::spawn(move || {
            // SAFETY: an all-zero set is an empty one.
            let mut set: libc::fd_set = unsafe { std::mem::zeroed() };
            // SAFETY: the number is small.
            unsafe { libc::FD_SET(fd, &raw mut set) };
            let none = ptr::null_mut();
            // SAFETY: a live set; no timeout.
            result(unsafe { libc::select(fd + 1, &raw mut set, none, none, none.cast()) })
        }),
    ]
}

#[test]
fn a_close_ends_every_wait_with_ebadf() {
    assert_ends(|| {
        greenloop::run(|| {
            let (end, _other) = UnixStream::pair().unwrap();
            let fd = end.into_raw_fd();
            let waits = waits_for(fd);
            settle();
            thread::spawn(move || close(fd)).join().unwrap();
            for (n, wait) in waits.into_iter().enumerate() {
                assert_eq!(wait.join().unwrap(), Err(libc::EBADF), "wait {n}");
            }
        });
    });
}

/// Also by an OS thread, by a number that comes to name another file, and by one of many.
#[test]
fn a_close_on_any_thread_and_by_any_call_ends_a_wait() {
    let closes: [fn(RawFd); 4] = [
        close,
        |fd| {
            let (reader, _writer) = pipe().unwrap();
            // SAFETY: both are open.
            assert_eq!(unsafe { libc::dup2(reader.as_raw_fd(), fd) }, fd);
        },
        |fd| {
            let (reader, _writer) = pipe().unwrap();
            // SAFETY: both are open.
            assert_eq!(unsafe { libc::dup3(reader.as_raw_fd(), fd, libc::O_CLOEXEC) }, fd);
        },
        |fd| {
            // SAFETY: a range of one.
            assert_eq!(unsafe { libc::close_range(fd as u32, fd as u32, 0) }, 0);
        },
    ];
    for (n, ends) in closes.into_iter().enumerate() {
        assert_ends(move || {
            greenloop::run(move || {
                let (end, _other) = UnixStream::pair().unwrap();
                let fd = end.into_raw_fd();
                let waits = waits_for(fd);
                settle();
                std::thread::spawn(move || ends(fd)).join().unwrap();
                for wait in waits {
                    assert_eq!(wait.join().unwrap(), Err(libc::EBADF), "way {n}");
                }
                // SAFETY: what a number was duplicated onto is nobody's but this test's.
                unsafe { libc::close(if n == 1 || n == 2 { fd } else { -1 }) };
            });
        });
    }
}

/// Also the tries for a lock on a file, which know of no event: the next one would lock another
/// file.
#[test]
fn a_number_that_comes_to_name_another_file_ends_a_wait_for_a_lock() {
    type Lock = fn(RawFd) -> i32;
    let locks: [Lock; 2] = [
        // SAFETY: no memory is touched.
        |fd| unsafe { libc::flock(fd, libc::LOCK_EX) },
        |fd| {
            // SAFETY: an all-zero lock is one: of the whole file.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as i16;
            // SAFETY: a live lock.
            unsafe { libc::fcntl(fd, libc::F_OFD_SETLKW, &raw const lock) }
        },
    ];
    for lock in locks {
        on_a_virtual_thread(move || {
            let name = format!("greenloop-lock-{}", std::process::id());
            let [path, another] =
                ["a", "b"].map(|n| std::env::temp_dir().join(format!("{name}-{n}")));
            let options = File::options().read(true).write(true).create(true).to_owned();
            let [one, two] = [&path, &path].map(|path| options.open(path).unwrap());
            let three = options.open(&another).unwrap();
            for path in [path, another] {
                std::fs::remove_file(path).unwrap();
            }
            assert_eq!(lock(one.as_raw_fd()), 0);
            let fd = two.as_raw_fd();
            let waits = thread::spawn(move || result(lock(fd)));
            thread::sleep(Duration::from_millis(2));
            assert!(!waits.is_finished());
            // SAFETY: both are open.
            assert_eq!(unsafe { libc::dup2(three.as_raw_fd(), fd) }, fd);
            assert_eq!(waits.join().unwrap(), Err(libc::EBADF));
            assert_eq!(lock(three.as_raw_fd()), 0);
        });
    }
}

#[test]
fn a_close_of_another_number_ends_nothing() {
    on_a_virtual_thread(|| {
        let (end, mut other) = UnixStream::pair().unwrap();
        let twin = end.try_clone().unwrap();
        let reads = thread::spawn(move || (&end).read(&mut [0; 8]).unwrap());
        thread::yield_now();
        drop(twin);
        drop(pipe().unwrap());
        thread::yield_now();
        other.write_all(b"abc").unwrap();
        assert_eq!(reads.join().unwrap(), 3);
    });
}

#[test]
fn a_listener_that_is_closed_accepts_no_more() {
    assert_ends(|| {
        greenloop::run(|| {
            let fd = TcpListener::bind("127.0.0.1:0").unwrap().into_raw_fd();
            let accepts = thread::spawn(move || {
                // SAFETY: null: the address is not asked for.
                result(unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) })
            });
            settle();
            thread::spawn(move || close(fd)).join().unwrap();
            assert_eq!(accepts.join().unwrap(), Err(libc::EBADF));
        });
    });
}

/// Gives `number` to `new`, past all hooks: rustix makes the call itself.
fn replace_unseen(number: RawFd, new: impl Into<OwnedFd>) {
    // SAFETY: nobody has the number but this test; it is not closed here.
    let mut old = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup2(new.into(), &mut old).unwrap();
}

/// A file of the number, from which three bytes are read after a wait.
fn wait_for_three_bytes(number: RawFd, mut other: impl Write) {
    let reads = thread::spawn(move || {
        // SAFETY: a live buffer of that length.
        result(unsafe { libc::read(number, [0u8; 8].as_mut_ptr().cast(), 8) })
    });
    thread::yield_now();
    other.write_all(b"abc").unwrap();
    assert_eq!(reads.join().unwrap(), Ok(3));
}

/// The next file of the same number is waited for as if it were the first, of whatever kind it is.
#[test]
fn a_number_is_used_again() {
    on_a_virtual_thread(|| {
        let (end, other) = UnixStream::pair().unwrap();
        let number = end.into_raw_fd();
        wait_for_three_bytes(number, other);
        for _ in 0..50 {
            let (reader, writer) = pipe().unwrap();
            // SAFETY: both are open.
            assert_eq!(unsafe { libc::dup2(reader.as_raw_fd(), number) }, number);
            wait_for_three_bytes(number, writer);
            let (end, other) = UnixStream::pair().unwrap();
            // SAFETY: both are open.
            assert_eq!(unsafe { libc::dup2(end.as_raw_fd(), number) }, number);
            wait_for_three_bytes(number, other);
        }
        close(number);
    });
}

/// A close that passes no hook (libc's own, a raw call) is found out at the next wait.
#[test]
fn a_close_that_nobody_saw_is_survived() {
    on_a_virtual_thread(|| {
        let (end, other) = UnixStream::pair().unwrap();
        let number = end.into_raw_fd();
        wait_for_three_bytes(number, other);
        for _ in 0..50 {
            let (reader, writer) = pipe().unwrap();
            replace_unseen(number, reader);
            wait_for_three_bytes(number, writer);
            let (end, other) = UnixStream::pair().unwrap();
            replace_unseen(number, end);
            wait_for_three_bytes(number, other);
        }
        close(number);
    });
}

/// The same while somebody waits for what is gone: it tries again when the next wait for that
/// number finds out, and then it waits for what the number names now.
#[test]
fn who_waits_for_a_file_that_is_gone_unseen_is_not_stuck_for_ever() {
    assert_ends(|| {
        greenloop::run(|| {
            let (end, _other) = UnixStream::pair().unwrap();
            let number = end.into_raw_fd();
            let stuck = thread::spawn(move || receive(number));
            settle();
            let (new, mut writer) = UnixStream::pair().unwrap();
            replace_unseen(number, new);
            let reads = thread::spawn(move || receive(number));
            settle();
            thread::spawn(move || {
                writer.write_all(b"a").unwrap();
                drop(writer);
            })
            .join()
            .unwrap();
            let mut got = [stuck.join().unwrap(), reads.join().unwrap()];
            got.sort_unstable();
            assert_eq!(got, [Ok(0), Ok(1)]);
            close(number);
        });
    });
}

/// Two hubs, each with threads that wait for the same descriptor; a third party closes it.
#[test]
fn waits_of_several_hubs_end() {
    assert_ends(|| {
        let (end, _other) = UnixStream::pair().unwrap();
        let fd = end.into_raw_fd();
        let (waiting, all_wait) = std::sync::mpsc::channel();
        let hubs = [(); 2].map(|()| {
            let waiting = waiting.clone();
            std::thread::spawn(move || {
                greenloop::run(|| {
                    let waits = waits_for(fd);
                    settle();
                    waiting.send(()).unwrap();
                    waits.into_iter().for_each(|wait| {
                        assert_eq!(wait.join().unwrap(), Err(libc::EBADF));
                    });
                });
            })
        });
        all_wait.recv().unwrap();
        all_wait.recv().unwrap();
        close(fd);
        hubs.into_iter().for_each(|hub| hub.join().unwrap());
    });
}

/// The child of a vfork has all memory of the parent's, and descriptors of its own: what it closes
/// is none of the parent's business.
#[test]
fn what_a_vforked_child_closes_stays_open() {
    assert_ends(|| {
        greenloop::run(|| {
            let (end, mut other) = UnixStream::pair().unwrap();
            let fd = end.as_raw_fd();
            let reads = thread::spawn(move || (&end).read(&mut [0; 8]).unwrap());
            settle();
            // By hand, as shells do: a clone that shares memory, whose parent waits for its end. It
            // runs on a stack of its own, so that it cannot spoil the parent's.
            extern "C" fn child(fd: *mut libc::c_void) -> i32 {
                // SAFETY: the child's own descriptor.
                unsafe { libc::close(fd.addr() as i32) }
            }
            let mut stack = vec![0u128; 4096];
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            let top = stack.as_mut_ptr_range().end.cast();
            let argument = ptr::without_provenance_mut(fd as usize);
            // SAFETY: the stack is live until the child has ended, for which the parent waits.
            let pid = unsafe { libc::clone(child, top, flags, argument) };
            assert!(pid > 0);
            let mut status = -1;
            // SAFETY: room for the status.
            assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
            assert_eq!(status, 0);
            settle();
            assert!(!reads.is_finished());
            thread::spawn(move || other.write_all(b"abc").unwrap()).join().unwrap();
            assert_eq!(reads.join().unwrap(), 3);
        });
    });
}

/// `close` while it waits itself is legal: on a duplicate, it is another number.
#[test]
fn closing_wakes_only_in_time_for_the_next_owner() {
    let rounds = 200;
    assert_ends(move || {
        greenloop::run(move || {
            for _ in 0..rounds {
                let (end, other) = UnixStream::pair().unwrap();
                let fd = end.into_raw_fd();
                let waits = thread::spawn(move || receive(fd));
                settle();
                // An OS thread closes and opens again at once: the wait is not for the new file.
                let opened = std::thread::spawn(move || {
                    close(fd);
                    UnixStream::pair().unwrap()
                });
                assert_eq!(waits.join().unwrap(), Err(libc::EBADF));
                drop((opened.join().unwrap(), other));
            }
        });
    });
}
