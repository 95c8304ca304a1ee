//! Giving bytes out.

use std::{
    io::{ErrorKind, IoSlice, Read, Write, pipe},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::net::{UnixDatagram, UnixStream},
    },
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use greenloop::thread;

use crate::{
    call::{
        Ticks, allocations_of, connection, named_pipe, on_a_virtual_thread, result, virtual_time_of,
    },
    support::{assert_ends, in_a_process_of_its_own},
};

const MIB: usize = 1 << 20;

/// Reads all there is, a little at a time.
fn drain(mut from: impl Read) -> usize {
    let (mut buffer, mut total) = (vec![0; 10_000], 0);
    loop {
        match from.read(&mut buffer).unwrap() {
            0 => return total,
            got => total += got,
        }
        std::thread::yield_now();
    }
}

/// libc's own promise: on a descriptor in blocking mode one call sends all.
#[test]
fn one_call_sends_eight_mib_to_a_slow_reader_while_others_run() {
    assert_ends(|| {
        greenloop::run(|| {
            let ticks: Vec<_> = (0..10).map(|_| Ticks::begin()).collect();
            let (client, server) = thread::spawn(connection).join().unwrap();
            let reads = thread::spawn(move || drain(server));
            let sent = thread::spawn(move || {
                let all = vec![1; 8 * MIB];
                (&client).write(&all).unwrap()
            });
            assert_eq!(sent.join().unwrap(), 8 * MIB);
            assert_eq!(reads.join().unwrap(), 8 * MIB);
            assert!(ticks.into_iter().all(|ticks| ticks.end() > 100));
        });
    });
}

#[test]
fn parts_are_sent_whole_too() {
    on_a_virtual_thread(|| {
        let (client, server) = connection();
        let reads = thread::spawn(move || drain(server));
        let (one, two) = (vec![1; MIB + 1], vec![2; 3 * MIB]);
        let parts = [IoSlice::new(&one), IoSlice::new(&[]), IoSlice::new(&two)];
        assert_eq!((&client).write_vectored(&parts).unwrap(), 4 * MIB + 1);
        drop(client);
        assert_eq!(reads.join().unwrap(), 4 * MIB + 1);
    });
}

/// What was sent before the timeout counts; only a call that has sent nothing fails.
#[test]
fn a_write_timeout_gives_what_was_sent_and_then_fails() {
    let limit = Duration::from_millis(1500);
    let time = virtual_time_of(move || {
        let (end, _other) = UnixStream::pair().unwrap();
        end.set_write_timeout(Some(limit)).unwrap();
        let sent = (&end).write(&vec![0; 8 * MIB]).unwrap();
        assert!(sent > 0 && sent < 8 * MIB);
        assert_eq!((&end).write(&[0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
    assert_eq!(time, 2 * limit);
}

/// In a process of its own, for the signal's sake.
#[test]
fn a_broken_connection_is_told_once_what_was_sent() {
    static SIGNALS: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_: i32) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
    }
    let name = "send::a_broken_connection_is_told_once_what_was_sent";
    in_a_process_of_its_own(name, || {
        on_a_virtual_thread(|| {
            let count: extern "C" fn(i32) = count;
            // SAFETY: it adds to a number.
            unsafe { libc::signal(libc::SIGPIPE, count as libc::sighandler_t) };
            let (end, other) = UnixStream::pair().unwrap();
            let twin = end.try_clone().unwrap();
            let sends = thread::spawn(move || {
                let all = vec![0; 8 * MIB];
                let send = || {
                    // SAFETY: a live buffer of that length.
                    result(unsafe {
                        libc::send(twin.as_raw_fd(), all.as_ptr().cast(), all.len(), 0)
                    })
                };
                let sent = send().unwrap();
                assert!(sent > 0 && sent < all.len() as i64);
                assert_eq!(SIGNALS.load(Ordering::Relaxed), 0);
                // SAFETY: as above.
                let quiet = unsafe {
                    libc::send(twin.as_raw_fd(), all.as_ptr().cast(), 1, libc::MSG_NOSIGNAL)
                };
                assert_eq!(result(quiet), Err(libc::EPIPE));
                assert_eq!(SIGNALS.load(Ordering::Relaxed), 0);
                assert_eq!(send(), Err(libc::EPIPE));
                assert_eq!(SIGNALS.load(Ordering::Relaxed), 1);
            });
            for _ in 0..10 {
                thread::yield_now();
            }
            drop(other);
            sends.join().unwrap();
        })
    });
}

fn write_to_pipe(make: fn() -> (std::fs::File, std::fs::File)) {
    assert_ends(move || {
        greenloop::run(move || {
            let ticks = Ticks::begin();
            let (reader, mut writer) = make();
            let writes = thread::spawn(move || {
                let part = vec![3; MIB / 2];
                let parts = [IoSlice::new(&part), IoSlice::new(&part)];
                writer.write_vectored(&parts).unwrap() + writer.write(&part).unwrap()
            });
            let reads = thread::spawn(move || {
                let mut all = vec![0; MIB + MIB / 2];
                (&reader).read_exact(&mut all).unwrap();
            });
            assert_eq!(writes.join().unwrap(), MIB + MIB / 2);
            reads.join().unwrap();
            assert!(ticks.end() > 10);
        });
    });
}

#[test]
fn writing_to_a_pipe_gives_way() {
    write_to_pipe(|| {
        let (reader, writer) = pipe().unwrap();
        (std::os::fd::OwnedFd::from(reader).into(), std::os::fd::OwnedFd::from(writer).into())
    });
}

#[test]
fn writing_to_a_named_pipe_gives_way() {
    write_to_pipe(|| {
        let one = named_pipe();
        (one.try_clone().unwrap().into(), one.into())
    });
}

/// No event tells when the queue of a peer has room to whom one is not connected.
#[test]
fn a_full_queue_of_a_local_peer_is_tried_again() {
    let time = virtual_time_of(|| {
        let path = std::env::temp_dir().join(format!("greenloop-queue-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let receiver = UnixDatagram::bind(&path).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let sends = thread::spawn(move || {
            for _ in 0..500 {
                sender.send_to(b"x", &path).unwrap();
            }
            std::fs::remove_file(&path).unwrap();
        });
        thread::sleep(Duration::from_secs(1));
        (0..500).for_each(|_| assert_eq!(receiver.recv(&mut [0; 4]).unwrap(), 1));
        sends.join().unwrap();
    });
    assert!(time >= Duration::from_secs(1) && time < Duration::from_secs(11), "{time:?}");
}

#[test]
fn several_messages_go_out_in_one_call() {
    on_a_virtual_thread(|| {
        let (end, other) = UnixStream::pair().unwrap();
        let reads = thread::spawn(move || drain(other));
        let buffers = [vec![1u8; MIB], vec![2; 10], vec![3; MIB]];
        let mut parts = buffers.each_ref().map(|buffer| libc::iovec {
            iov_base: buffer.as_ptr().cast_mut().cast(),
            iov_len: buffer.len(),
        });
        let mut messages = parts.each_mut().map(|part| {
            // SAFETY: an all-zero header is one without anything.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (&raw mut *part, 1);
            message
        });
        // SAFETY: three live headers, each with a live part.
        let sent = unsafe { libc::sendmmsg(end.as_raw_fd(), messages.as_mut_ptr(), 3, 0) };
        assert_eq!(result(sent), Ok(3));
        assert_eq!(messages.map(|message| message.msg_len), [MIB as u32, 10, MIB as u32]);
        drop(end);
        assert_eq!(reads.join().unwrap(), 2 * MIB + 10);
    });
}

/// A message that goes at once needs no copy of its parts.
#[test]
fn what_is_sent_at_once_allocates_nothing() {
    on_a_virtual_thread(|| {
        let (client, _server) = connection();
        let (reader, writer) = pipe().unwrap();
        let fifo = std::fs::File::from(named_pipe());
        let parts = [IoSlice::new(b"one"), IoSlice::new(b"two")];
        let send = || {
            assert_eq!((&client).write_vectored(&parts).unwrap(), 6);
            assert_eq!((&writer).write_vectored(&parts).unwrap(), 6);
            assert_eq!((&fifo).write_vectored(&parts).unwrap(), 6);
        };
        send();
        assert_eq!(allocations_of(send), 0);
        drop(reader);
    });
}

/// Sends by the call that also connects.
fn open_fast(fd: RawFd, address: SocketAddr, all: &[u8], by_message: bool) -> Result<i64, i32> {
    let SocketAddr::V4(address) = address else { unreachable!("it was asked for") };
    let mut to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    let (at, length) = (&raw mut to, size_of::<libc::sockaddr_in>() as u32);
    let flags = libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL;
    if !by_message {
        let (bytes, count) = (all.as_ptr().cast(), all.len());
        // SAFETY: live bytes, and a live address.
        return result(unsafe { libc::sendto(fd, bytes, count, flags, at.cast(), length) });
    }
    let mut part = libc::iovec { iov_base: all.as_ptr().cast_mut().cast(), iov_len: all.len() };
    // SAFETY: an all-zero header is one without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    (message.msg_name, message.msg_namelen) = (at.cast(), length);
    // SAFETY: a live header, of a live part and a live address.
    result(unsafe { libc::sendmsg(fd, &raw const message, flags) })
}

/// As the kernel has it: blocking, it connects and sends all, or says why not.
#[test]
fn a_send_that_connects_waits_for_the_connection() {
    for by_message in [false, true] {
        on_a_virtual_thread(move || {
            let socket = || {
                // SAFETY: no memory is touched.
                let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) };
                // SAFETY: just opened.
                unsafe { OwnedFd::from_raw_fd(fd) }
            };
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let reads = thread::spawn(move || drain(listener.accept().unwrap().0));
            let (all, fd) = (vec![1; 4 * MIB], socket());
            let sent = open_fast(fd.as_raw_fd(), address, &all, by_message);
            assert_eq!(sent, Ok(4 * MIB as i64));
            drop(fd);
            assert_eq!(reads.join().unwrap(), 4 * MIB);
            // Nobody listens any more.
            let sent = open_fast(socket().as_raw_fd(), address, &all, by_message);
            assert_eq!(sent, Err(libc::ECONNREFUSED));
            // In non-blocking mode it is begun.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::from(socket());
            stream.set_nonblocking(true).unwrap();
            let address = listener.local_addr().unwrap();
            let sent = open_fast(stream.as_raw_fd(), address, &all, by_message);
            assert_eq!(sent, Err(libc::EINPROGRESS));
        });
    }
}
