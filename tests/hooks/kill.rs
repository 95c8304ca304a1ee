//! Kills and timeouts in every call that waits.

use std::{
    io::{Write, pipe},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, IntoRawFd, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use greenloop::{
    testing::{self, settle},
    thread, timeout,
};

use crate::{
    call::{connection, named_pipe, result},
    support::assert_ends,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A call that waits for ever, and its name.
type Waits = (&'static str, fn() -> Result<i64, i32>);

fn fill(fd: RawFd) {
    loop {
        // SAFETY: a live buffer of that length.
        let sent = unsafe { libc::send(fd, [0u8; 4096].as_ptr().cast(), 4096, libc::MSG_DONTWAIT) };
        if sent < 0 {
            return;
        }
    }
}

/// One end of a pair, whose other end is leaked: nothing ever comes.
fn silent() -> RawFd {
    let (end, other) = UnixStream::pair().unwrap();
    let _ = other.into_raw_fd();
    end.into_raw_fd()
}

fn full() -> RawFd {
    let fd = silent();
    fill(fd);
    fd
}

fn silent_pipe() -> (RawFd, RawFd) {
    let (reader, writer) = pipe().unwrap();
    (reader.into_raw_fd(), writer.into_raw_fd())
}

fn full_pipe() -> (RawFd, RawFd) {
    let (reader, writer) = silent_pipe();
    // SAFETY: a live buffer of that length: just what a pipe holds.
    assert_eq!(unsafe { libc::write(writer, vec![0u8; 65536].as_ptr().cast(), 65536) }, 65536);
    (reader, writer)
}

/// A file that somebody else has locked in both ways: another open file.
fn locked_file() -> RawFd {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("greenloop-lock-{}-{number}", std::process::id()));
    let open = || {
        let options = std::fs::File::options().read(true).write(true).create(true).to_owned();
        options.open(&path).unwrap().into_raw_fd()
    };
    let (ours, others) = (open(), open());
    std::fs::remove_file(&path).unwrap();
    // SAFETY: no memory is touched.
    assert_eq!(unsafe { libc::flock(others, libc::LOCK_EX) }, 0);
    // SAFETY: an all-zero lock is one: of the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    // SAFETY: a live lock.
    assert_eq!(unsafe { libc::fcntl(others, libc::F_OFD_SETLK, &raw const lock) }, 0);
    ours
}

fn header(part: &libc::iovec) -> libc::msghdr {
    // SAFETY: an all-zero header is one without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (ptr::from_ref(part).cast_mut(), 1);
    message
}

fn part(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
}

/// Every hooked call of libc's that can wait for a descriptor, or for time.
#[expect(clippy::undocumented_unsafe_blocks, reason = "the comment within is for all")]
fn calls() -> Vec<Waits> {
    // SAFETY, of all: buffers, headers, sets and times are live and as long as is said.
    vec![
        ("recv", || result(unsafe { libc::recv(silent(), [0u8; 4].as_mut_ptr().cast(), 4, 0) })),
        ("recv, all", || {
            let flags = libc::MSG_WAITALL;
            result(unsafe { libc::recv(silent(), [0u8; 4].as_mut_ptr().cast(), 4, flags) })
        }),
        ("recvfrom", || {
            let none = ptr::null_mut();
            let (fd, at) = (silent(), [0u8; 4].as_mut_ptr().cast());
            result(unsafe { libc::recvfrom(fd, at, 4, 0, none, none.cast()) })
        }),
        ("recvmsg", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            let mut message = header(&part);
            result(unsafe { libc::recvmsg(silent(), &raw mut message, 0) })
        }),
        ("recvmmsg", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            let mut message = libc::mmsghdr { msg_hdr: header(&part), msg_len: 0 };
            result(unsafe { libc::recvmmsg(silent(), &raw mut message, 1, 0, ptr::null_mut()) })
        }),
        ("read", || result(unsafe { libc::read(silent(), [0u8; 4].as_mut_ptr().cast(), 4) })),
        ("readv", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            result(unsafe { libc::readv(silent(), &raw const part, 1) })
        }),
        ("read, pipe", || {
            result(unsafe { libc::read(silent_pipe().0, [0u8; 4].as_mut_ptr().cast(), 4) })
        }),
        ("read, named pipe", || {
            let fd = named_pipe().into_raw_fd();
            result(unsafe { libc::read(fd, [0u8; 4].as_mut_ptr().cast(), 4) })
        }),
        ("send", || result(unsafe { libc::send(full(), [0u8; 4].as_ptr().cast(), 4, 0) })),
        ("sendto", || {
            let (fd, at) = (full(), [0u8; 4].as_ptr().cast());
            result(unsafe { libc::sendto(fd, at, 4, 0, ptr::null(), 0) })
        }),
        ("sendmsg", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            let message = header(&part);
            result(unsafe { libc::sendmsg(full(), &raw const message, 0) })
        }),
        ("sendmmsg", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            let mut message = libc::mmsghdr { msg_hdr: header(&part), msg_len: 0 };
            result(unsafe { libc::sendmmsg(full(), &raw mut message, 1, 0) })
        }),
        ("write", || result(unsafe { libc::write(full(), [0u8; 4].as_ptr().cast(), 4) })),
        ("writev", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            result(unsafe { libc::writev(full(), &raw const part, 1) })
        }),
        ("write, pipe", || {
            result(unsafe { libc::write(full_pipe().1, [0u8; 4].as_ptr().cast(), 4) })
        }),
        ("accept", || {
            let fd = TcpListener::bind("127.0.0.1:0").unwrap().into_raw_fd();
            result(unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) })
        }),
        ("connect", || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            // SAFETY: no memory is touched.
            assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
            let address = listener.local_addr().unwrap();
            let _ = listener.into_raw_fd();
            loop {
                match TcpStream::connect(address) {
                    Ok(stream) => drop(stream.into_raw_fd()),
                    Err(error) => return Err(error.raw_os_error().unwrap()),
                }
            }
        }),
        ("poll", || {
            let mut one = libc::pollfd { fd: silent(), events: libc::POLLIN, revents: 0 };
            result(unsafe { libc::poll(&raw mut one, 1, -1) })
        }),
        ("ppoll", || {
            let mut one = libc::pollfd { fd: silent(), events: libc::POLLRDHUP, revents: 0 };
            result(unsafe { libc::ppoll(&raw mut one, 1, ptr::null(), ptr::null()) })
        }),
        ("select", || {
            let none = ptr::null_mut();
            result(unsafe { libc::select(0, none, none, none, none.cast()) })
        }),
        ("epoll_wait", || {
            // SAFETY: no memory is touched.
            let set = unsafe { libc::epoll_create1(0) };
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            result(unsafe { libc::epoll_wait(set, &raw mut event, 1, -1) })
        }),
        ("sendfile", || {
            let file = std::fs::File::open("Cargo.toml").unwrap();
            result(unsafe { libc::sendfile(full(), file.as_raw_fd(), ptr::null_mut(), 10) })
        }),
        ("splice", || {
            let none = ptr::null_mut();
            let (from, to) = (silent_pipe().0, silent_pipe().1);
            result(unsafe { libc::splice(from, none, to, none, 10, 0) })
        }),
        ("splice, from a socket", || {
            let none = ptr::null_mut();
            result(unsafe { libc::splice(silent(), none, silent_pipe().1, none, 10, 0) })
        }),
        ("flock", || {
            let locked = locked_file();
            result(unsafe { libc::flock(locked, libc::LOCK_EX) })
        }),
        ("fcntl, lock", || {
            // SAFETY: an all-zero lock is one: of the whole file, for reading.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as i16;
            result(unsafe { libc::fcntl(locked_file(), libc::F_OFD_SETLKW, &raw const lock) })
        }),
        ("tee", || result(unsafe { libc::tee(silent_pipe().0, silent_pipe().1, 10, 0) })),
        ("vmsplice", || {
            let mut buffer = [0; 4];
            let part = part(&mut buffer);
            result(unsafe { libc::vmsplice(full_pipe().1, &raw const part, 1, 0) })
        }),
    ]
}

#[test]
fn a_kill_ends_every_call_and_every_later_one_at_once() {
    assert_ends(|| {
        greenloop::run(|| {
            for (name, call) in calls() {
                let (count, ends) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
                let (counted, ended) = (Arc::clone(&count), Arc::clone(&ends));
                let waits = thread::spawn(move || {
                    counted.store(1, Ordering::Relaxed);
                    assert_eq!(call(), Err(libc::ECANCELED), "{name}");
                    for _ in 0..10 {
                        assert_eq!(recv_nothing(), Err(libc::ECANCELED), "{name}, later");
                    }
                    ended.store(1, Ordering::Relaxed);
                });
                settle();
                assert_eq!(count.load(Ordering::Relaxed), 1);
                assert!(!waits.is_finished(), "{name} does not wait");
                waits.kill();
                let _ = waits.join();
                assert_eq!(ends.load(Ordering::Relaxed), 1, "{name}");
            }
        });
    });
}

/// Data is there: only a kill makes this fail.
fn recv_nothing() -> Result<i64, i32> {
    let (end, other) = UnixStream::pair().unwrap();
    rustix::io::write(&other, b"x").unwrap();
    // SAFETY: a live buffer of that length.
    result(unsafe { libc::recv(end.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, 0) })
}

#[test]
fn a_timeout_around_a_call_is_etimedout() {
    for (name, call) in calls() {
        assert_ends(move || {
            testing::run(move || {
                thread::spawn(move || {
                    let ended = timeout(Duration::from_secs(100), || {
                        assert_eq!(call(), Err(libc::ETIMEDOUT), "{name}");
                        assert_eq!(recv_nothing(), Err(libc::ETIMEDOUT), "{name}, later");
                    });
                    assert!(ended.is_ok(), "{name}: what ends by itself gives its value");
                    assert_eq!(recv_nothing(), Ok(1), "{name}, after it");
                })
                .join()
                .unwrap();
            });
        });
    }
}

/// What was moved before counts for more than what ended the wait.
#[test]
fn a_part_that_was_moved_counts_for_more() {
    assert_ends(|| {
        greenloop::run(|| {
            let waits = thread::spawn(|| {
                let (mut end, _other) = UnixStream::pair().unwrap();
                let sent = end.write(&vec![0; 8 << 20]).unwrap();
                assert!(sent > 0 && sent < 8 << 20);
                assert_eq!(end.write(&[0]).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
                sent
            });
            settle();
            waits.kill();
            let _ = waits.join();
            let waits = thread::spawn(|| {
                let (end, other) = connection();
                (&other).write_all(b"abc").unwrap();
                let flags = libc::MSG_WAITALL;
                let at = [0u8; 8].as_mut_ptr().cast();
                // SAFETY: a live buffer of that length.
                assert_eq!(result(unsafe { libc::recv(end.as_raw_fd(), at, 8, flags) }), Ok(3));
            });
            settle();
            waits.kill();
            let _ = waits.join();
        });
    });
}

/// A sleep ends as if a signal had come, with nothing left; std then goes on.
#[test]
fn a_sleep_that_is_killed_has_nothing_left() {
    assert_ends(|| {
        testing::run(|| {
            let ends = Arc::new(AtomicU32::new(0));
            let ended = Arc::clone(&ends);
            let sleeps = thread::spawn(move || {
                let day = libc::timespec { tv_sec: 24 * 3600, tv_nsec: 0 };
                let mut left = day;
                // SAFETY: two live times.
                let slept = unsafe { libc::nanosleep(&raw const day, &raw mut left) };
                assert_eq!((result(slept), left.tv_sec), (Err(libc::EINTR), 0));
                // SAFETY: as above: for what is left.
                let slept = unsafe { libc::nanosleep(&raw const left, &raw mut left) };
                assert_eq!(result(slept), Ok(0));
                left = day;
                let clock = libc::CLOCK_MONOTONIC;
                // SAFETY: two live times.
                let slept =
                    unsafe { libc::clock_nanosleep(clock, 0, &raw const day, &raw mut left) };
                assert_eq!((slept, left.tv_sec), (libc::EINTR, 0));
                // SAFETY: no memory is touched.
                assert_eq!(unsafe { libc::sleep(1000) }, 0);
                std::thread::sleep(DAY);
                ended.store(1, Ordering::Relaxed);
            });
            settle();
            let begun = greenloop::reactor().now();
            sleeps.kill();
            let _ = sleeps.join();
            assert_eq!(ends.load(Ordering::Relaxed), 1);
            assert_eq!(greenloop::reactor().now(), begun);
        });
    });
}

/// Code that takes no notice stops nobody; in the end it stands still, and the run ends without it.
#[test]
fn slow_a_loop_that_takes_no_notice_of_a_kill_stops_nobody() {
    assert_ends(|| {
        testing::run(|| {
            let count = Arc::new(AtomicU32::new(0));
            let counted = Arc::clone(&count);
            let loops = thread::spawn(move || {
                let (end, _other) = UnixStream::pair().unwrap();
                loop {
                    // SAFETY: a live buffer of that length.
                    unsafe { libc::recv(end.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, 0) };
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
            settle();
            loops.kill();
            settle();
            assert_eq!(count.load(Ordering::Relaxed), 100);
            assert!(!loops.is_finished());
        });
    });
}

/// What does not wait does not fail: a killed thread can still close what it has.
/// A file without a name.
fn tempfile() -> std::fs::File {
    let path = std::env::temp_dir().join(format!("greenloop-any-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

#[test]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "all for the same reason")]
fn what_never_waits_works_after_a_kill() {
    assert_ends(|| {
        greenloop::run(|| {
            let ends = Arc::new(AtomicU32::new(0));
            let ended = Arc::clone(&ends);
            let waits = thread::spawn(move || {
                let (end, other) = UnixStream::pair().unwrap();
                // SAFETY: a live buffer of that length.
                let got =
                    unsafe { libc::recv(end.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, 0) };
                assert_eq!(result(got), Err(libc::ECANCELED));
                let fd = end.into_raw_fd();
                // SAFETY: no memory is touched; it is not used again.
                unsafe {
                    assert!(libc::fcntl(fd, libc::F_GETFL) >= 0);
                    let twin = libc::dup(fd);
                    assert!(twin >= 0);
                    assert_eq!(libc::shutdown(twin, libc::SHUT_RDWR), 0);
                    assert_eq!(libc::close(twin), 0);
                    assert_eq!(libc::close(fd), 0);
                }
                // A file is written and read, and what a program prints to written, as ever.
                let mut file = tempfile();
                file.write_all(b"text").unwrap();
                let mut lock = libc::flock {
                    l_type: libc::F_UNLCK as i16,
                    l_whence: libc::SEEK_SET as i16,
                    l_start: 0,
                    l_len: 0,
                    l_pid: 0,
                };
                for command in [libc::F_SETLKW, libc::F_OFD_SETLKW] {
                    // SAFETY: a live lock.
                    let let_go = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
                    assert_eq!(let_go, 0, "{}", std::io::Error::last_os_error());
                }
                file.unlock().unwrap();
                std::fs::read("Cargo.toml").unwrap();
                // SAFETY: a live byte, of no length: it is printed to, and nothing printed.
                assert_eq!(result(unsafe { libc::write(2, b"".as_ptr().cast(), 0) }), Ok(0));
                drop(other);
                ended.store(1, Ordering::Relaxed);
            });
            settle();
            waits.kill();
            let _ = waits.join();
            assert_eq!(ends.load(Ordering::Relaxed), 1);
        });
    });
}

/// Its panic is printed, and reaches whoever joins it.
#[test]
fn a_panic_after_a_kill_ends_the_thread() {
    assert_ends(|| {
        greenloop::run(|| {
            let waits = thread::spawn(|| {
                let (end, _other) = UnixStream::pair().unwrap();
                // SAFETY: a live buffer of that length.
                unsafe { libc::recv(end.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, 0) };
                panic!("as expected, after a kill");
            });
            settle();
            waits.kill();
            let payload = waits.join().unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"as expected, after a kill"));
        });
    });
}
