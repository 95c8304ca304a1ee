//! What std promises of UDP and of local sockets, on virtual threads. Std's own tests were the list
//! of behaviours.

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket},
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr as LocalAddr, UnixDatagram, UnixListener, UnixStream},
    },
    path::PathBuf,
    process,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    call::on_a_virtual_thread,
    sides::{Others, with_others},
};

const MOMENT: Duration = Duration::from_millis(60);

/// How early a socket's timeout may be: the kernel counts in ticks.
const TICK: Duration = Duration::from_millis(10);

fn bind() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn udp_datagrams_come_whole_and_from_whom_they_say() {
    with_others(|others| {
        let ((one, here), (other, there)) = (bind(), bind());
        let sends = others.spawn(move || {
            std::thread::yield_now();
            for text in [&b"first"[..], b"", b"third"] {
                assert_eq!(other.send_to(text, here).unwrap(), text.len());
            }
            other
        });
        let mut text = [0; 8];
        assert_eq!(one.peek_from(&mut text).unwrap(), (5, there));
        assert_eq!(one.recv_from(&mut text).unwrap(), (5, there));
        assert_eq!(&text[..5], b"first");
        assert_eq!(one.recv_from(&mut text).unwrap(), (0, there));
        // What does not fit is gone.
        assert_eq!(one.recv_from(&mut text[..2]).unwrap(), (2, there));
        let other = sends.value();
        other.send_to(b"x", here).unwrap();
        assert_eq!(one.recv_from(&mut text).unwrap(), (1, there));
    });
}

#[test]
fn udp_addresses_that_cannot_be_had_are_errors() {
    on_a_virtual_thread(|| {
        let nobodys = UdpSocket::bind("192.0.2.1:0").unwrap_err();
        assert_eq!(nobodys.kind(), ErrorKind::AddrNotAvailable);
        let (socket, address) = bind();
        assert_eq!(UdpSocket::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(socket.send(b"x").is_err(), "to whom?");
        assert!(socket.peer_addr().is_err());
    });
}

#[test]
fn udp_clones_share_a_socket() {
    with_others(|others| {
        let ((one, here), (other, there)) = (bind(), bind());
        let twins = [1, 2].map(|n| {
            let twin = other.try_clone().unwrap();
            others.spawn(move || {
                for _ in 0..5 {
                    twin.send_to(&[n], here).unwrap();
                }
            })
        });
        let mut sum = 0;
        for _ in 0..10 {
            let mut text = [0; 2];
            assert_eq!(one.recv_from(&mut text).unwrap(), (1, there));
            sum += u32::from(text[0]);
        }
        assert_eq!(sum, 15);
        twins.into_iter().for_each(|twin| twin.value());
        // Two wait for one socket; each has one datagram.
        let reads = [(); 2].map(|()| {
            let twin = one.try_clone().unwrap();
            others.spawn(move || {
                let mut text = [0; 2];
                twin.recv(&mut text).unwrap();
                text[0]
            })
        });
        std::thread::yield_now();
        for n in 3..=4 {
            other.send_to(&[n], here).unwrap();
        }
        let mut read = reads.map(|read| read.value());
        read.sort_unstable();
        assert_eq!(read, [3, 4]);
    });
}

#[test]
fn a_connected_udp_socket_hears_its_peer_alone() {
    with_others(|others| {
        let ((one, here), (other, there), (third, _)) = (bind(), bind(), bind());
        one.connect(there).unwrap();
        assert_eq!(one.peer_addr().unwrap(), there);
        third.send_to(b"noise", here).unwrap();
        let sends = others.spawn(move || {
            std::thread::yield_now();
            other.connect(here).unwrap();
            other.send(b"word").unwrap();
            let mut text = [0; 8];
            let count = other.recv(&mut text).unwrap();
            text[..count].to_vec()
        });
        let mut text = [0; 8];
        assert_eq!(one.peek(&mut text).unwrap(), 4);
        assert_eq!(one.recv(&mut text).unwrap(), 4);
        assert_eq!(&text[..4], b"word");
        one.send(b"answer").unwrap();
        assert_eq!(sends.value(), b"answer");
    });
}

#[test]
fn a_udp_peer_that_is_not_there_refuses() {
    on_a_virtual_thread(|| {
        let ((one, _), (gone, there)) = (bind(), bind());
        drop(gone);
        one.connect(there).unwrap();
        one.send(b"x").unwrap();
        assert_eq!(one.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn udp_timeouts_and_options_are_kept() {
    on_a_virtual_thread(|| {
        let (socket, here) = bind();
        assert_eq!(socket.read_timeout().unwrap(), None);
        let zero = socket.set_read_timeout(Some(Duration::ZERO)).unwrap_err();
        assert_eq!(zero.kind(), ErrorKind::InvalidInput);
        let zero = socket.set_write_timeout(Some(Duration::ZERO)).unwrap_err();
        assert_eq!(zero.kind(), ErrorKind::InvalidInput);
        socket.set_read_timeout(Some(MOMENT)).unwrap();
        assert_eq!(socket.read_timeout().unwrap(), Some(MOMENT));
        let begun = Instant::now();
        assert_eq!(socket.recv_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(socket.peek_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(begun.elapsed() >= 2 * (MOMENT - TICK), "{:?}", begun.elapsed());
        socket.send_to(b"x", here).unwrap();
        assert_eq!(socket.recv_from(&mut [0]).unwrap(), (1, here));
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv_from(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        socket.set_ttl(77).unwrap();
        assert_eq!(socket.ttl().unwrap(), 77);
        socket.set_broadcast(true).unwrap();
        assert!(socket.broadcast().unwrap());
        assert!(socket.take_error().unwrap().is_none());
    });
}

/// A path that nobody has.
fn path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("greenloop-std-{}-{number}", process::id()))
}

#[test]
fn local_streams_go_by_paths() {
    with_others(|others| {
        let path = path();
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(UnixListener::bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(&*path));
        let there = path.clone();
        let connects = others.spawn(move || {
            let mut stream = UnixStream::connect(&there).unwrap();
            assert_eq!(stream.peer_addr().unwrap().as_pathname(), Some(&*there));
            stream.write_all(b"hello").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let (mut stream, from) = listener.accept().unwrap();
        assert!(from.is_unnamed());
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        stream.write_all(b"world").unwrap();
        drop(stream);
        assert_eq!((&text, &*connects.value()), (b"hello", "world"));
        drop(listener);
        assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        fs::remove_file(path).unwrap();
        let long = "x".repeat(200);
        assert_eq!(UnixListener::bind(&long).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(UnixStream::connect(long).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn local_streams_go_by_names_of_no_file() {
    with_others(|others| {
        let name = path().display().to_string();
        let address = LocalAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let there = address.clone();
        let connects = others.spawn(move || {
            let stream = UnixStream::connect_addr(&there).unwrap();
            stream.peer_addr().unwrap().as_abstract_name().map(<[u8]>::to_vec)
        });
        listener.accept().unwrap();
        assert_eq!(connects.value().as_deref(), Some(name.as_bytes()));
    });
}

#[test]
fn local_listeners_accept_many_and_do_not_wait_if_asked() {
    with_others(|others| {
        const COUNT: usize = 12;
        let path = path();
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.set_nonblocking(false).unwrap();
        let there = path.clone();
        let connects = others.spawn(move || {
            let streams: Vec<_> =
                (0..COUNT).map(|_| UnixStream::connect(&there).unwrap()).collect();
            for (n, mut stream) in streams.into_iter().enumerate() {
                stream.write_all(&[n as u8]).unwrap();
            }
        });
        for (n, stream) in listener.incoming().take(COUNT).enumerate() {
            let mut text = Vec::new();
            stream.unwrap().read_to_end(&mut text).unwrap();
            assert_eq!(text, [n as u8]);
        }
        connects.value();
        fs::remove_file(path).unwrap();
    });
}

#[test]
fn local_pairs_are_cloned_shut_down_and_run_out_of_time() {
    with_others(|others| {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        assert!(one.local_addr().unwrap().is_unnamed());
        let mut twin = one.try_clone().unwrap();
        let reads = others.spawn(move || {
            let mut text = [0; 3];
            twin.read_exact(&mut text).unwrap();
            assert_eq!(twin.read(&mut text).unwrap(), 0);
            text
        });
        other.write_all(b"abc").unwrap();
        other.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reads.value(), *b"abc");
        assert_eq!(other.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);

        assert_eq!(other.read_timeout().unwrap(), None);
        for zero in [other.set_read_timeout(Some(Duration::ZERO)), {
            other.set_write_timeout(Some(Duration::ZERO))
        }] {
            assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        other.set_read_timeout(Some(MOMENT)).unwrap();
        assert_eq!(other.read_timeout().unwrap(), Some(MOMENT));
        let begun = Instant::now();
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(begun.elapsed() >= MOMENT - TICK, "{:?}", begun.elapsed());
        one.write_all(b"x").unwrap();
        assert_eq!(other.read(&mut [0; 2]).unwrap(), 1);
        other.set_nonblocking(true).unwrap();
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(other.take_error().unwrap().is_none());
    });
}

#[test]
fn local_datagrams_go_by_paths_and_in_pairs() {
    with_others(|others| {
        let (here, there) = (path(), path());
        let one = UnixDatagram::bind(&here).unwrap();
        assert_eq!(one.send_to(b"x", &there).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(one.send(b"x").is_err(), "to whom?");
        let other = UnixDatagram::bind(&there).unwrap();
        let to = here.clone();
        let sends = others.spawn(move || {
            std::thread::yield_now();
            other.send_to(b"named", &to).unwrap();
            UnixDatagram::unbound().unwrap().send_to(b"nameless", &to).unwrap();
            other.connect(&to).unwrap();
            other.send(b"connected").unwrap();
            let mut text = [0; 8];
            let count = other.recv(&mut text).unwrap();
            text[..count].to_vec()
        });
        let mut text = [0; 16];
        let (count, from) = one.recv_from(&mut text).unwrap();
        assert_eq!((&text[..count], from.as_pathname()), (&b"named"[..], Some(&*there)));
        let (count, from) = one.recv_from(&mut text).unwrap();
        assert_eq!((&text[..count], from.is_unnamed()), (&b"nameless"[..], true));
        let count = one.recv(&mut text).unwrap();
        assert_eq!(&text[..count], b"connected");
        one.send_to(b"back", &there).unwrap();
        assert_eq!(sends.value(), b"back");
        fs::remove_file(here).unwrap();
        fs::remove_file(there).unwrap();

        let (one, _other) = UnixDatagram::pair().unwrap();
        one.shutdown(Shutdown::Both).unwrap();
        assert_eq!(one.send(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

/// As many as fit, and one more, which waits until one is taken.
#[test]
fn a_local_datagram_waits_for_room() {
    with_others(|others: Others| {
        let (one, other) = UnixDatagram::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let mut count = 0;
        while one.send(&[1; 1000]).is_ok() {
            count += 1;
        }
        one.set_nonblocking(false).unwrap();
        let sends = others.spawn(move || one.send(&[2; 7]).unwrap());
        std::thread::yield_now();
        let mut text = [0; 1000];
        for _ in 0..count {
            assert_eq!(other.recv(&mut text).unwrap(), 1000);
        }
        assert_eq!(other.recv(&mut text).unwrap(), 7);
        assert_eq!(sends.value(), 7);
    });
}

/// As read(2) and writev(2) have it: no bytes are no datagram, and no error either.
#[test]
fn nothing_is_read_and_written_without_touching_the_socket() {
    on_a_virtual_thread(|| {
        let (one, other) = UnixDatagram::pair().unwrap();
        one.send(b"text").unwrap();
        let mut byte = 0_u8;
        let fd = other.as_raw_fd();
        // SAFETY: a live byte, of which none is asked for.
        assert_eq!(unsafe { libc::read(fd, (&raw mut byte).cast(), 0) }, 0);
        let none = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 0 };
        // SAFETY: as above.
        assert_eq!(unsafe { libc::readv(fd, &raw const none, 1) }, 0);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::writev(fd, &raw const none, 1) }, 0);
        let mut buffer = [0; 8];
        assert_eq!(other.recv(&mut buffer).unwrap(), 4);
        one.set_nonblocking(true).unwrap();
        assert_eq!(one.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}
