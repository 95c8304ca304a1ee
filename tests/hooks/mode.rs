//! The mode of a descriptor is the user's, whatever happens beneath.

use std::{
    fs::File,
    io::{Read, Write, pipe},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use greenloop::{testing::settle, thread};
use rustix::fs::OFlags;

use crate::{
    call::{Ticks, connection, flags_of, named_pipe, on_a_virtual_thread, result},
    support::assert_ends,
};

#[test]
fn a_hundred_operations_leave_the_mode_as_it_is() {
    on_a_virtual_thread(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let fifo = File::from(named_pipe());
        let reads = {
            let fifo = fifo.try_clone().unwrap();
            thread::spawn(move || (0..100).for_each(|_| (&fifo).read_exact(&mut [0; 2]).unwrap()))
        };
        let accepts = thread::spawn(move || {
            (0..100).for_each(|_| (&listener.accept().unwrap().0).write_all(b"!").unwrap());
            listener
        });
        for _ in 0..100 {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.read_exact(&mut [0]).unwrap();
            assert!(!flags_of(&stream).contains(OFlags::NONBLOCK));
            (&fifo).write_all(b"ab").unwrap();
        }
        let listener = accepts.join().unwrap();
        reads.join().unwrap();
        for flags in [flags_of(&listener), flags_of(&fifo)] {
            assert!(!flags.contains(OFlags::NONBLOCK), "{flags:?}");
        }
    });
}

/// A thread that looks at the flags, or sets them, never sees those of a call in between.
#[test]
fn no_thread_sees_a_mode_that_the_user_has_not_set() {
    const ROUNDS: u32 = 2000;
    assert_ends(|| {
        let fifo = Arc::new(File::from(named_pipe()));
        let over = Arc::new(AtomicBool::new(false));
        let looks = {
            let (fifo, over) = (Arc::clone(&fifo), Arc::clone(&over));
            std::thread::spawn(move || {
                let (fd, mut looks) = (fifo.as_raw_fd(), 0u32);
                while !over.load(Ordering::Relaxed) || looks < 100 {
                    // SAFETY: no memory is touched.
                    let flags = result(unsafe { libc::fcntl(fd, libc::F_GETFL) }).unwrap() as i32;
                    assert_eq!(flags & libc::O_NONBLOCK, 0);
                    // SAFETY: as above: the flags that it has.
                    assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFL, flags) }, 0);
                    looks += 1;
                }
            })
        };
        // An OS thread that reads and writes the same pipe blocks, and never hears EAGAIN.
        let echoes = {
            let fifo = Arc::clone(&fifo);
            std::thread::spawn(move || {
                for _ in 0..ROUNDS {
                    (&*fifo).read_exact(&mut [0]).unwrap();
                }
            })
        };
        let shared = Arc::clone(&fifo);
        greenloop::run(move || {
            let reads = {
                let fifo = Arc::clone(&shared);
                thread::spawn(move || {
                    (0..ROUNDS).for_each(|_| (&*fifo).read_exact(&mut [0]).unwrap());
                })
            };
            thread::spawn(move || {
                for _ in 0..2 * ROUNDS {
                    (&*shared).write_all(b"x").unwrap();
                    thread::yield_now();
                }
            })
            .join()
            .unwrap();
            reads.join().unwrap();
        });
        echoes.join().unwrap();
        over.store(true, Ordering::Relaxed);
        looks.join().unwrap();
        assert!(!flags_of(&*fifo).contains(OFlags::NONBLOCK));
    });
}

#[test]
fn the_users_own_mode_is_kept_and_obeyed() {
    on_a_virtual_thread(|| {
        let (client, _server) = connection();
        let fd = client.as_raw_fd();
        // SAFETY: no memory is touched.
        let flags = || result(unsafe { libc::fcntl(fd, libc::F_GETFL) }).unwrap() as i32;
        client.set_nonblocking(true).unwrap();
        assert_ne!(flags() & libc::O_NONBLOCK, 0);
        assert_eq!((&client).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        let all = vec![0; 32 << 20];
        assert!((&client).write(&all).unwrap() < all.len());
        assert_eq!((&client).write(&all).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        // SAFETY: no memory is touched.
        let set = unsafe { libc::fcntl(fd, libc::F_SETFL, flags() & !libc::O_NONBLOCK) };
        assert_eq!(result(set), Ok(0));
        assert_eq!(flags() & libc::O_NONBLOCK, 0);
        let (reader, writer) = pipe().unwrap();
        for fd in [reader.as_raw_fd(), writer.as_raw_fd()] {
            let on = 1;
            // SAFETY: a live number.
            assert_eq!(result(unsafe { libc::ioctl(fd, libc::FIONBIO, &raw const on) }), Ok(0));
        }
        assert_eq!((&reader).read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert!((&writer).write(&all).unwrap() < all.len());
        assert_eq!((&writer).write(&all).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    });
}

/// Commands that this crate knows nothing of come through with their argument.
#[test]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "all for the same reason")]
fn other_commands_pass_through() {
    on_a_virtual_thread(|| {
        let (reader, writer) = pipe().unwrap();
        // SAFETY: no memory is touched by any of these.
        unsafe {
            assert!(libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, 1 << 17) >= 1 << 17);
            assert!(libc::fcntl(reader.as_raw_fd(), libc::F_GETPIPE_SZ) >= 1 << 17);
            let twin = libc::fcntl(reader.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 100);
            assert!(twin >= 100);
            assert_eq!(libc::fcntl(twin, libc::F_GETFD), libc::FD_CLOEXEC);
            assert_eq!(libc::close(twin), 0);
            assert_eq!(result(libc::fcntl(-1, libc::F_GETFL)), Err(libc::EBADF));
        }
    });
}

/// What a child inherits while somebody waits for it here is in the user's mode.
#[test]
fn a_child_finds_its_input_in_blocking_mode() {
    assert_ends(|| {
        greenloop::run(|| {
            let (reader, writer) = pipe().unwrap();
            let fifo = named_pipe();
            let inputs = [OwnedFd::from(reader), fifo];
            let waits: Vec<_> = inputs
                .iter()
                .map(|fd| {
                    let mut file = File::from(fd.try_clone().unwrap());
                    thread::spawn(move || file.read(&mut [0; 8]).unwrap())
                })
                .collect();
            settle();
            for input in &inputs {
                let mut child = Command::new("cat");
                child.arg("/proc/self/fdinfo/0").stdin(Stdio::from(input.try_clone().unwrap()));
                let output = child.output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                let flags = text.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
                assert_eq!(flags & libc::O_NONBLOCK, 0, "{text}");
            }
            thread::spawn({
                let ends = [OwnedFd::from(writer), inputs[1].try_clone().unwrap()];
                move || ends.map(|end| File::from(end).write_all(b"abc").unwrap())
            })
            .join()
            .unwrap();
            waits.into_iter().for_each(|wait| assert_eq!(wait.join().unwrap(), 3));
        });
    });
}

#[test]
fn a_commands_output_is_read_from_both_pipes_while_others_run() {
    assert_ends(|| {
        greenloop::run(|| {
            let ticks = Ticks::begin();
            let output = thread::spawn(|| {
                let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; exit 3";
                Command::new("sh").args(["-c", script]).output().unwrap()
            })
            .join()
            .unwrap();
            assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
            assert_eq!(output.status.code(), Some(3));
            assert!(ticks.end() > 10);
        });
    });
}

/// Writing to what a program prints to suspends nobody, but for a socket.
#[test]
fn printing_suspends_nobody() {
    assert_ends(|| {
        greenloop::run(|| {
            let ticks = Ticks::begin();
            let turns = thread::spawn(|| {
                for _ in 0..1000 {
                    // SAFETY: no byte is written.
                    assert_eq!(unsafe { libc::write(2, b"".as_ptr().cast(), 0) }, 0);
                }
            });
            turns.join().unwrap();
            assert!(ticks.end() < 100);
        });
    });
}
