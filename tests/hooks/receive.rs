//! Taking bytes in.

use std::{
    io::{ErrorKind, IoSliceMut, PipeReader, Read, Write, pipe},
    net::UdpSocket,
    os::{
        fd::AsRawFd,
        unix::net::{UnixDatagram, UnixStream},
    },
    ptr,
    time::Duration,
};

use greenloop::{
    testing::{self, settle},
    thread,
};

use crate::{
    call::{Ticks, connection, named_pipe, on_a_virtual_thread, result, terminal, virtual_time_of},
    support::assert_ends,
};

/// With each kind of socket that std has. Seconds as long as these have been taken for shorter ones
/// elsewhere: half a second for none, 66 s and 36 minutes by numbers that overflow.
#[test]
fn a_read_timeout_is_kept_to_the_nanosecond() {
    for ms in [100, 500, 70_000, 2_200_000] {
        let limit = Duration::from_millis(ms);
        let streams = virtual_time_of(move || {
            let (end, _other) = UnixStream::pair().unwrap();
            end.set_read_timeout(Some(limit)).unwrap();
            assert_eq!((&end).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        });
        assert_eq!(streams, limit);
        let datagrams = virtual_time_of(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(limit)).unwrap();
            assert_eq!(socket.recv_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        });
        assert_eq!(datagrams, limit);
    }
}

/// A timeout that was set on a duplicate is the same socket's; one that is taken back is none.
#[test]
fn a_read_timeout_belongs_to_the_socket() {
    let limit = Duration::from_secs(3);
    let time = virtual_time_of(move || {
        let (end, mut other) = UnixStream::pair().unwrap();
        let twin = end.try_clone().unwrap();
        twin.set_read_timeout(Some(limit)).unwrap();
        assert_eq!((&end).read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        end.set_read_timeout(None).unwrap();
        let writes = thread::spawn(move || {
            thread::sleep(10 * limit);
            other.write_all(b"x").unwrap();
        });
        assert_eq!((&twin).read(&mut [0]).unwrap(), 1);
        writes.join().unwrap();
    });
    assert_eq!(time, 11 * limit);
}

#[test]
fn without_a_timeout_a_read_waits_for_days() {
    let days = Duration::from_secs(100 * 24 * 3600);
    let time = virtual_time_of(move || {
        let (mut end, mut other) = UnixStream::pair().unwrap();
        let writes = thread::spawn(move || {
            thread::sleep(days);
            other.write_all(b"late").unwrap();
        });
        let mut buffer = [0; 10];
        assert_eq!(end.read(&mut buffer).unwrap(), 4);
        writes.join().unwrap();
    });
    assert_eq!(time, days);
}

/// One deadline for the whole call, not one for each part of it.
#[test]
fn waitall_waits_for_all_and_a_timeout_gives_a_part() {
    let second = Duration::from_secs(1);
    let time = virtual_time_of(move || {
        let (end, mut other) = UnixStream::pair().unwrap();
        let writes = thread::spawn(move || {
            for part in [&b"one"[..], b"two", b"three"] {
                thread::sleep(second);
                other.write_all(part).unwrap();
            }
            other
        });
        let mut buffer = [0u8; 16];
        let mut receive = |length| {
            let at = buffer.as_mut_ptr().cast();
            // SAFETY: a live buffer of at least that length.
            result(unsafe { libc::recv(end.as_raw_fd(), at, length, libc::MSG_WAITALL) })
        };
        assert_eq!(receive(6), Ok(6));
        end.set_read_timeout(Some(5 * second)).unwrap();
        assert_eq!(receive(6), Ok(5));
        assert_eq!(receive(6), Err(libc::EAGAIN));
        drop(writes.join().unwrap());
        assert_eq!(receive(6), Ok(0));
    });
    assert_eq!(time, (2 + 5 + 5) * second);
}

#[test]
fn a_message_in_parts_is_waited_for_as_a_whole() {
    on_a_virtual_thread(|| {
        let (end, other) = connection();
        let writes = thread::spawn(move || {
            for byte in b"abcdefgh" {
                (&other).write_all(&[*byte]).unwrap();
                thread::yield_now();
            }
        });
        let (mut first, mut second) = ([0u8; 3], [0u8; 5]);
        let mut parts = [
            libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: 3 },
            libc::iovec { iov_base: second.as_mut_ptr().cast(), iov_len: 5 },
        ];
        // SAFETY: an all-zero header is one without anything.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), 2);
        // SAFETY: a live header, with two live parts.
        let got = unsafe { libc::recvmsg(end.as_raw_fd(), &raw mut message, libc::MSG_WAITALL) };
        assert_eq!(result(got), Ok(8));
        assert_eq!((&first, &second), (b"abc", b"defgh"));
        writes.join().unwrap();
    });
}

#[test]
fn what_was_peeked_at_is_still_there() {
    on_a_virtual_thread(|| {
        let (client, server) = connection();
        let writes = thread::spawn(move || (&server).write_all(b"hello").unwrap());
        let mut buffer = [0; 8];
        assert_eq!(client.peek(&mut buffer).unwrap(), 5);
        assert_eq!((&client).read(&mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"hello");
        writes.join().unwrap();
    });
}

/// No event tells when there is more than what is there already.
#[test]
fn peeking_at_all_waits_for_all_or_the_end() {
    let time = virtual_time_of(|| {
        let (end, mut other) = UnixStream::pair().unwrap();
        let writes = thread::spawn(move || {
            other.write_all(b"abc").unwrap();
            thread::sleep(Duration::from_secs(1));
            other.write_all(b"def").unwrap();
            other
        });
        let mut buffer = [0u8; 8];
        let mut peek = |length| {
            let flags = libc::MSG_WAITALL | libc::MSG_PEEK;
            let at = buffer.as_mut_ptr().cast();
            // SAFETY: a live buffer of at least that length.
            result(unsafe { libc::recv(end.as_raw_fd(), at, length, flags) })
        };
        assert_eq!(peek(6), Ok(6));
        drop(writes.join().unwrap());
        assert_eq!(peek(8), Ok(6));
    });
    // The second part is seen at the first look after it came.
    assert!(time >= Duration::from_secs(1) && time <= Duration::from_millis(1064), "{time:?}");
}

#[test]
fn a_call_that_never_waits_says_so_at_once() {
    on_a_virtual_thread(|| {
        let (end, other) = connection();
        let receive = |flags| {
            // SAFETY: no byte is written to no buffer.
            result(unsafe { libc::recv(end.as_raw_fd(), [0u8; 4].as_mut_ptr().cast(), 4, flags) })
        };
        assert_eq!(receive(libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        assert_eq!(receive(libc::MSG_ERRQUEUE), Err(libc::EAGAIN));
        assert_eq!(receive(libc::MSG_OOB), Err(libc::EINVAL));
        // SAFETY: one live byte.
        let sent = unsafe { libc::send(other.as_raw_fd(), b"!".as_ptr().cast(), 1, libc::MSG_OOB) };
        assert_eq!(result(sent), Ok(1));
        let mut urgent = libc::pollfd { fd: end.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
        // SAFETY: one live entry.
        assert_eq!(result(unsafe { libc::poll(&raw mut urgent, 1, -1) }), Ok(1));
        assert_eq!(receive(libc::MSG_OOB), Ok(1));
        end.set_nonblocking(true).unwrap();
        assert_eq!(receive(0), Err(libc::EAGAIN));
        assert_eq!(receive(libc::MSG_WAITALL), Err(libc::EAGAIN));
    });
}

#[test]
fn two_read_from_duplicates_of_one_socket() {
    on_a_virtual_thread(|| {
        let (mut end, other) = connection();
        let readers = [other.try_clone().unwrap(), other].map(|mut own| {
            thread::spawn(move || {
                let mut all = Vec::new();
                own.read_to_end(&mut all).unwrap();
                all.len()
            })
        });
        for _ in 0..100 {
            end.write_all(&[7; 100]).unwrap();
            thread::yield_now();
        }
        drop(end);
        assert_eq!(readers.map(|reader| reader.join().unwrap()).iter().sum::<usize>(), 10_000);
    });
}

#[test]
fn a_shutdown_ends_a_read_on_another_thread() {
    on_a_virtual_thread(|| {
        let (client, _server) = connection();
        let mut twin = client.try_clone().unwrap();
        let reads = thread::spawn(move || twin.read(&mut [0; 8]).unwrap());
        thread::yield_now();
        client.shutdown(std::net::Shutdown::Both).unwrap();
        assert_eq!(reads.join().unwrap(), 0);
    });
}

/// Bytes come through `pipe`, and others run meanwhile.
fn read_from_pipe(make: fn() -> (std::fs::File, std::fs::File)) {
    assert_ends(move || {
        greenloop::run(move || {
            let ticks = Ticks::begin();
            let (mut reader, mut writer) = make();
            let reads = thread::spawn(move || {
                let (mut one, mut two) = ([0; 4], [0; 4]);
                let first = reader.read(&mut one).unwrap();
                let mut parts = [IoSliceMut::new(&mut one[first..]), IoSliceMut::new(&mut two)];
                let second = reader.read_vectored(&mut parts).unwrap();
                (first, second)
            });
            settle_beside(&ticks);
            thread::spawn(move || {
                writer.write_all(b"abc").unwrap();
                for _ in 0..3 {
                    thread::yield_now();
                }
                writer.write_all(b"defg").unwrap();
                writer
            })
            .join()
            .unwrap();
            assert_eq!(reads.join().unwrap(), (3, 4));
            assert!(ticks.end() > 3);
        });
    });
}

/// Lets the others run until they wait.
fn settle_beside(_ticks: &Ticks) {
    for _ in 0..10 {
        greenloop::yield_now();
    }
}

fn as_file(pipe: (PipeReader, std::io::PipeWriter)) -> (std::fs::File, std::fs::File) {
    (std::os::fd::OwnedFd::from(pipe.0).into(), std::os::fd::OwnedFd::from(pipe.1).into())
}

#[test]
fn reading_from_a_pipe_gives_way() {
    read_from_pipe(|| as_file(pipe().unwrap()));
}

#[test]
fn reading_from_a_named_pipe_gives_way() {
    read_from_pipe(|| {
        let one = named_pipe();
        (one.try_clone().unwrap().into(), one.into())
    });
}

/// A terminal is read from when it is ready: by line.
#[test]
fn reading_from_a_terminal_gives_way() {
    assert_ends(|| {
        greenloop::run(|| {
            let (master, mut line_end) = terminal();
            let reads = thread::spawn(move || {
                let mut line = [0; 16];
                let length = line_end.read(&mut line).unwrap();
                String::from_utf8(line[..length].to_vec()).unwrap()
            });
            settle();
            let writes = thread::spawn(move || {
                let mut master = master;
                master.write_all(b"a line\n").unwrap();
                master
            });
            let _master = writes.join().unwrap();
            assert_eq!(reads.join().unwrap(), "a line\n");
        });
    });
}

/// Events and timers by descriptor; and what none of them has.
#[test]
#[expect(clippy::multiple_unsafe_ops_per_block, reason = "all for the same reason")]
fn events_and_timers_are_read_when_they_come() {
    on_a_virtual_thread(|| {
        // SAFETY: no memory is touched.
        let event = unsafe { libc::eventfd(0, 0) };
        let mut number = 0u64;
        let at = (&raw mut number).cast();
        let writes = thread::spawn(move || {
            let five = 5u64;
            // SAFETY: eight live bytes.
            assert_eq!(unsafe { libc::write(event, (&raw const five).cast(), 8) }, 8);
        });
        // SAFETY: room for eight bytes.
        assert_eq!(unsafe { libc::read(event, at, 8) }, 8);
        assert_eq!(number, 5);
        writes.join().unwrap();
        // SAFETY: no memory is touched.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, 0) };
        let soon = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let once = libc::itimerspec { it_interval: never, it_value: soon };
        // SAFETY: a live time.
        assert_eq!(unsafe { libc::timerfd_settime(timer, 0, &raw const once, ptr::null_mut()) }, 0);
        // SAFETY: room for eight bytes.
        assert_eq!(unsafe { libc::read(timer, at, 8) }, 8);
        assert_eq!(number, 1);
        // SAFETY: none of these is used again; and the last is none.
        let closed = unsafe { (libc::close(event), libc::close(timer), libc::close(-1)) };
        assert_eq!(closed, (0, 0, -1));
        // SAFETY: no byte is written without a descriptor.
        assert_eq!(result(unsafe { libc::read(-1, at, 8) }), Err(libc::EBADF));
    });
}

#[test]
fn several_datagrams_come_in_one_call() {
    on_a_virtual_thread(|| {
        let (end, other) = UnixDatagram::pair().unwrap();
        let writes = thread::spawn(move || {
            for text in [&b"a"[..], b"bb", b"ccc"] {
                other.send(text).unwrap();
                thread::yield_now();
            }
            other
        });
        let mut buffers = [[0u8; 4]; 3];
        let mut parts = buffers.each_mut().map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        });
        let mut messages = parts.each_mut().map(|part| {
            // SAFETY: an all-zero header is one without anything.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (&raw mut *part, 1);
            message
        });
        let fd = end.as_raw_fd();
        let mut receive = |count, flags, timeout| {
            // SAFETY: three live headers, each with a live part; a live time, or null.
            result(unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), count, flags, timeout) })
        };
        assert_eq!(receive(2, 0, ptr::null_mut()), Ok(2));
        let got = receive(3, libc::MSG_WAITFORONE, ptr::null_mut());
        assert_eq!(got, Ok(1));
        assert_eq!(receive(3, libc::MSG_DONTWAIT, ptr::null_mut()), Err(libc::EAGAIN));
        // The time is looked at after each message, also while the next one is waited for.
        let other = writes.join().unwrap();
        other.send(b"d").unwrap();
        let mut short = libc::timespec { tv_sec: 0, tv_nsec: 2_000_000 };
        assert_eq!(receive(3, 0, &raw mut short), Ok(1));
        assert_eq!((short.tv_sec, short.tv_nsec), (0, 0));
        assert_eq!(&buffers[0][..1], b"d");
    });
}

#[test]
fn files_are_read_whole() {
    testing::run(|| {
        thread::spawn(|| {
            let text = std::fs::read_to_string("Cargo.toml").unwrap();
            assert!(text.contains("name = \"greenloop\""));
            let length = std::fs::metadata("Cargo.toml").unwrap().len();
            assert_eq!(text.len() as u64, length);
        })
        .join()
        .unwrap();
    });
}

/// Hundreds of reads without a wait let others run in between.
#[test]
fn reads_that_never_wait_still_give_way() {
    assert_ends(|| {
        greenloop::run(|| {
            let (mut end, mut other) = UnixStream::pair().unwrap();
            other.write_all(&[1; 5000]).unwrap();
            let ticks = Ticks::begin();
            thread::spawn(move || (0..5000).for_each(|_| end.read_exact(&mut [0]).unwrap()))
                .join()
                .unwrap();
            assert!(ticks.end() > 20);
        });
    });
}

/// A time for all messages does not make a socket blocking that is not.
#[test]
fn a_time_for_several_datagrams_leaves_the_mode_as_it_is() {
    let time = virtual_time_of(|| {
        let (end, other) = UnixDatagram::pair().unwrap();
        end.set_nonblocking(true).unwrap();
        other.send(b"a").unwrap();
        let mut buffer = [0u8; 4];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all-zero headers are such without anything.
        let mut messages: [libc::mmsghdr; 2] = unsafe { std::mem::zeroed() };
        (messages[0].msg_hdr.msg_iov, messages[0].msg_hdr.msg_iovlen) = (&raw mut part, 1);
        let (fd, mut long) = (end.as_raw_fd(), libc::timespec { tv_sec: 9, tv_nsec: 0 });
        // SAFETY: two live headers, the first with a live part; a live time.
        let got = unsafe { libc::recvmmsg(fd, messages.as_mut_ptr(), 2, 0, &raw mut long) };
        assert_eq!(result(got), Ok(1));
    });
    assert_eq!(time, Duration::ZERO);
}
