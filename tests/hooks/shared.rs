//! Open files that several processes and threads have, while calls of virtual threads wait for
//! them.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use greenloop::{testing::settle, thread};
use rustix::fs::OFlags;

use crate::{
    call::{flags_of, result},
    support::{assert_ends, in_a_process_of_its_own},
};

/// The exit code of a child that was told to end.
const GOOD: i32 = 7;

/// What a client says that wants an echo, and one that wants the process to end.
const ECHO: u8 = b'e';
const END: u8 = b'q';

/// Serves from `listener` on a few virtual threads until told to end. A call that fails is an exit
/// code of its own.
fn serve(listener: &TcpListener) -> i32 {
    greenloop::run(|| {
        let serves: Vec<_> = (0..3)
            .map(|_| {
                let listener = listener.try_clone().unwrap();
                thread::spawn(move || {
                    loop {
                        let mut stream = match listener.accept() {
                            Ok((stream, _)) => stream,
                            Err(error) => exit(error.raw_os_error().unwrap_or(1) + 100),
                        };
                        let mut said = [0];
                        stream.read_exact(&mut said).unwrap();
                        if said[0] == END {
                            exit(GOOD);
                        }
                        stream.write_all(&said).unwrap();
                    }
                })
            })
            .collect();
        serves.into_iter().for_each(|serves| serves.join().unwrap());
    });
    1
}

fn exit(code: i32) -> ! {
    // SAFETY: it ends the process, and runs nothing of it.
    unsafe { libc::_exit(code) }
}

/// A child of this process, which has a copy of all of it.
fn forked(child: impl FnOnce() -> i32) -> libc::pid_t {
    // SAFETY: the process has no thread but libtest's, which waits for this one and holds no lock.
    match unsafe { libc::fork() } {
        0 => exit(child()),
        pid => pid,
    }
}

#[track_caller]
fn ended_well(child: libc::pid_t) {
    let mut status = 0;
    // SAFETY: a live int.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, GOOD));
}

fn ask(address: SocketAddr, what: u8) -> io::Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(&[what])?;
    stream.read(&mut [0])
}

/// Each looks at the mode of the same open file, and changes it, all the time.
#[test]
fn several_processes_accept_from_one_listener() {
    let name = "shared::several_processes_accept_from_one_listener";
    in_a_process_of_its_own(name, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let children: Vec<_> = (0..4).map(|_| forked(|| serve(&listener))).collect();
        let clients: Vec<_> = (0..6)
            .map(|_| {
                std::thread::spawn(move || {
                    (0..400).for_each(|n| assert_eq!(ask(address, ECHO).unwrap(), 1, "{n}"));
                })
            })
            .collect();
        let clients: Vec<_> = clients.into_iter().map(std::thread::JoinHandle::join).collect();
        // Each ends one of them, whose end closes the connection.
        children.iter().for_each(|_| drop(ask(address, END)));
        children.into_iter().for_each(ended_well);
        assert!(clients.iter().all(Result::is_ok));
        assert!(!flags_of(&listener).intersects(OFlags::NONBLOCK | OFlags::APPEND));
    });
}

/// A process that is killed in the midst of a call leaves the file in a mode that is not its
/// user's. Whoever comes next finds out.
#[test]
fn the_mode_that_a_killed_process_has_left_is_mended() {
    assert_ends(|| {
        greenloop::run(|| {
            let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
            let address = listener.local_addr().unwrap();
            let left = flags_of(&*listener) | OFlags::NONBLOCK | OFlags::APPEND;
            let leave = || rustix::fs::fcntl_setfl(&*listener, left).unwrap();
            // By a virtual thread.
            leave();
            let accepts = {
                let listener = Arc::clone(&listener);
                thread::spawn(move || listener.accept().map(drop))
            };
            settle();
            assert!(!accepts.is_finished());
            let _client = TcpStream::connect(address).unwrap();
            accepts.join().unwrap().unwrap();
            assert!(!flags_of(&*listener).intersects(OFlags::NONBLOCK | OFlags::APPEND));
            // By who asks for the flags.
            leave();
            // SAFETY: no memory is touched.
            let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
            assert_eq!(flags & (libc::O_NONBLOCK | libc::O_APPEND), 0);
            // By an OS thread.
            leave();
            let accepts = {
                let listener = Arc::clone(&listener);
                std::thread::spawn(move || listener.accept().map(drop))
            };
            while flags_of(&*listener).intersects(OFlags::NONBLOCK | OFlags::APPEND) {
                std::thread::yield_now();
            }
            let _client = TcpStream::connect(address).unwrap();
            accepts.join().unwrap().unwrap();
        });
    });
}

/// OS threads, which begin before there is a virtual thread, and go on after.
#[test]
fn an_os_thread_that_accepts_never_hears_eagain() {
    const THREADS: usize = 2;
    const CONNECTIONS: usize = 600;
    assert_ends(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let accept_some = |listener: &TcpListener, count: &AtomicU32| {
            while count.load(Ordering::SeqCst) < CONNECTIONS as u32 {
                listener.accept().unwrap();
                count.fetch_add(1, Ordering::SeqCst);
            }
        };
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (listener, count) = (Arc::clone(&listener), Arc::clone(&count));
                std::thread::spawn(move || accept_some(&listener, &count))
            })
            .collect();
        let connects = {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                while count.load(Ordering::SeqCst) < CONNECTIONS as u32 {
                    TcpStream::connect(address).unwrap();
                }
                // For those that wait still.
                (0..2 * THREADS).for_each(|_| drop(TcpStream::connect(address).unwrap()));
            })
        };
        greenloop::run(|| {
            let accepts: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (listener, count) = (Arc::clone(&listener), Arc::clone(&count));
                    thread::spawn(move || accept_some(&listener, &count))
                })
                .collect();
            accepts.into_iter().for_each(|accepts| accepts.join().unwrap());
        });
        connects.join().unwrap();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(!flags_of(&*listener).contains(OFlags::NONBLOCK));
    });
}

/// The number comes to name another file in the midst of a call, again and again: neither file is
/// left in another mode than its user's.
#[test]
fn a_number_that_comes_to_name_another_file_takes_no_mode_with_it() {
    // The last round has it name what nobody waits for.
    const ROUNDS: u32 = 1001;
    assert_ends(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (other, _end) = UnixStream::pair().unwrap();
        other.set_nonblocking(true).unwrap();
        let number = OwnedFd::from(listener.try_clone().unwrap()).into_raw_fd();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let changes = std::thread::spawn(move || {
            let files = [listener.as_raw_fd(), other.as_raw_fd()];
            let mut changed = 0;
            for n in 0..ROUNDS as usize {
                // SAFETY: both are open, and the number is this test's.
                assert_eq!(unsafe { libc::dup2(files[1 - n % 2], number) }, number);
                let left = flags_of(&files[n % 2]).contains(OFlags::NONBLOCK);
                changed += u32::from(left != (n % 2 != 0));
                std::thread::yield_now();
            }
            is_over.store(true, Ordering::SeqCst);
            changed
        });
        greenloop::run(move || {
            thread::spawn(move || {
                let null = std::ptr::null_mut();
                while !over.load(Ordering::SeqCst) {
                    // SAFETY: no address is asked for.
                    let accepted = result(unsafe { libc::accept(number, null, null.cast()) });
                    let errors = [libc::EBADF, libc::EINVAL, libc::EAGAIN];
                    assert!(accepted.is_err_and(|error| errors.contains(&error)), "{accepted:?}");
                }
            })
            .join()
            .unwrap();
        });
        assert_eq!(changes.join().unwrap(), 0);
        // SAFETY: nobody has it any more.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    });
}

/// A number is free for a new file before the close of the old one has ended: that lingers.
#[test]
fn a_number_whose_last_file_lingers_is_a_new_files_already() {
    let name = "shared::a_number_whose_last_file_lingers_is_a_new_files_already";
    in_a_process_of_its_own(name, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        greenloop::run(move || {
            // Nobody looks at what is closed before somebody has waited.
            let accepts = thread::spawn(move || (listener.accept().unwrap().0, listener));
            settle();
            let lingers = TcpStream::connect(address).unwrap();
            let (mut peer, _listener) = accepts.join().unwrap();
            // More than the two of them hold, and a minute to send it.
            lingers.set_nonblocking(true).unwrap();
            while (&lingers).write(&[0; 65536]).is_ok() {}
            let minute = libc::linger { l_onoff: 1, l_linger: 60 };
            let (at, size) = ((&raw const minute).cast(), size_of::<libc::linger>() as u32);
            let number = lingers.into_raw_fd();
            // SAFETY: a live option of that size.
            let set =
                unsafe { libc::setsockopt(number, libc::SOL_SOCKET, libc::SO_LINGER, at, size) };
            assert_eq!(set, 0);
            let connects = thread::spawn(move || {
                // SAFETY: the number is this test's.
                let closes = std::thread::spawn(move || unsafe { libc::close(number) });
                // SAFETY: no memory is touched.
                while unsafe { libc::fcntl(number, libc::F_GETFD) } != -1 {
                    std::thread::yield_now();
                }
                // In non-blocking mode, with a wait of std's own.
                let connected = TcpStream::connect_timeout(&address, Duration::from_secs(60));
                assert_eq!(connected.unwrap().as_raw_fd(), number, "the lowest that is free");
                assert_eq!(closes.join().unwrap(), 0);
            });
            settle();
            // What lingers is read, and the close ends.
            std::thread::spawn(move || io::copy(&mut peer, &mut io::sink()).unwrap());
            connects.join().unwrap();
        });
    });
}

/// Another process has such a moment on the same listener, and is stopped in it.
#[test]
fn the_moment_of_another_process_is_not_the_users_mode() {
    let name = "shared::the_moment_of_another_process_is_not_the_users_mode";
    in_a_process_of_its_own(name, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let (told, mut tell) = io::pipe().unwrap();
        let (mut ready, say) = io::pipe().unwrap();
        let child = forked(|| {
            // SAFETY: an all-zero lock is one.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            (lock.l_type, lock.l_start, lock.l_len) = (libc::F_WRLCK as i16, i64::MAX - 1, 1);
            // SAFETY: a live lock.
            let locked =
                unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_SETLK, &raw const lock) };
            assert_eq!(locked, 0);
            let flags = flags_of(&*listener);
            rustix::fs::fcntl_setfl(&*listener, flags | OFlags::NONBLOCK | OFlags::APPEND).unwrap();
            (&say).write_all(b"!").unwrap();
            (&told).read_exact(&mut [0]).unwrap();
            rustix::fs::fcntl_setfl(&*listener, flags).unwrap();
            GOOD
        });
        ready.read_exact(&mut [0]).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        greenloop::run(|| {
            let accepts = {
                let listener = Arc::clone(&listener);
                thread::spawn(move || listener.accept().map(drop))
            };
            settle();
            assert!(!accepts.is_finished());
            // SAFETY: no memory is touched.
            let flags = unsafe { libc::fcntl(listener.as_raw_fd(), libc::F_GETFL) };
            assert_eq!(flags & libc::O_NONBLOCK, 0);
            tell.write_all(b"!").unwrap();
            accepts.join().unwrap().unwrap();
        });
        ended_well(child);
        assert!(!flags_of(&*listener).intersects(OFlags::NONBLOCK | OFlags::APPEND));
    });
}
