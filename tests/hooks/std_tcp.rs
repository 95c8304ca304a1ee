//! What std promises of TCP, on virtual threads. Std's own tests were the list of behaviours.

use std::{
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    os::fd::AsRawFd,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use crate::{
    call::{connection, on_a_virtual_thread},
    sides::with_others,
};

const MOMENT: Duration = Duration::from_millis(20);

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn an_address_of_nobody_is_not_bound_and_a_taken_one_not_twice() {
    on_a_virtual_thread(|| {
        let nobodys = TcpListener::bind("192.0.2.1:0").unwrap_err();
        assert_eq!(nobodys.kind(), ErrorKind::AddrNotAvailable);
        let (_listener, address) = listen();
        assert_eq!(TcpListener::bind(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        // The first of several that works.
        let several = [address, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
        let second = TcpListener::bind(&several[..]).unwrap();
        assert_ne!(second.local_addr().unwrap(), address);
        let none: &[SocketAddr] = &[];
        assert_eq!(TcpListener::bind(none).unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn a_connection_that_nobody_wants_is_refused() {
    on_a_virtual_thread(|| {
        let (listener, address) = listen();
        drop(listener);
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let limited = TcpStream::connect_timeout(&address, Duration::from_secs(60));
        assert_eq!(limited.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let at_once = TcpStream::connect_timeout(&address, Duration::ZERO);
        assert_eq!(at_once.unwrap_err().kind(), ErrorKind::InvalidInput);
    });
}

#[test]
fn the_first_of_several_addresses_that_answers_is_connected() {
    on_a_virtual_thread(|| {
        let (refused, refuses) = listen();
        drop(refused);
        let (listener, address) = listen();
        let stream = TcpStream::connect(&[refuses, address][..]).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        let by_name = ("localhost", address.port()).to_socket_addrs().unwrap();
        assert!(by_name.into_iter().any(|found| found == address));
        TcpStream::connect(("localhost", address.port())).unwrap();
        drop(listener);
    });
}

/// A listener whose queue is full answers nobody.
#[test]
fn a_connection_that_nobody_answers_times_out() {
    on_a_virtual_thread(|| {
        let (listener, address) = listen();
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let mut queued = Vec::new();
        let error = loop {
            match TcpStream::connect_timeout(&address, MOMENT) {
                Ok(stream) => queued.push(stream),
                Err(error) => break error,
            }
            assert!(queued.len() < 20);
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    });
}

#[test]
fn both_ends_know_both_addresses_by_either_protocol() {
    with_others(|others| {
        for local in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
            let listener = match TcpListener::bind(local) {
                Ok(listener) => listener,
                // A machine without the newer protocol.
                Err(_) if local.is_ipv6() => continue,
                Err(error) => panic!("{error}"),
            };
            let address = listener.local_addr().unwrap();
            let client = others.spawn(move || TcpStream::connect(address).unwrap());
            let (server, from) = listener.accept().unwrap();
            let client = client.value();
            assert_eq!(server.local_addr().unwrap(), address);
            assert_eq!(client.peer_addr().unwrap(), address);
            assert_eq!(server.peer_addr().unwrap(), from);
            assert_eq!(client.local_addr().unwrap(), from);
            assert!(client.take_error().unwrap().is_none());
            assert!(listener.take_error().unwrap().is_none());
        }
    });
}

#[test]
fn what_is_written_is_read_in_pieces_of_any_size() {
    with_others(|others| {
        let (mut client, mut server) = connection();
        let reads = others.spawn(move || {
            let mut one = [0];
            for expected in b"abc" {
                assert_eq!(server.read(&mut one).unwrap(), 1);
                assert_eq!(one[0], *expected);
            }
            let (mut first, mut second) = ([0; 2], [0; 4]);
            let mut parts = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let count = server.read_vectored(&mut parts).unwrap();
            (count, first, second)
        });
        client.write_all(b"ab").unwrap();
        std::thread::yield_now();
        client.write_all(b"c").unwrap();
        std::thread::yield_now();
        let parts = [IoSlice::new(b""), IoSlice::new(b"de"), IoSlice::new(b"fgh")];
        assert_eq!(client.write_vectored(&parts).unwrap(), 5);
        assert_eq!(reads.value(), (5, *b"de", *b"fgh\0"));
    });
}

#[test]
fn an_empty_buffer_takes_nothing() {
    on_a_virtual_thread(|| {
        let (mut client, mut server) = connection();
        assert_eq!(client.write(b"").unwrap(), 0);
        assert_eq!(client.write_vectored(&[]).unwrap(), 0);
        // By readv(2), at once; recv(2) waits for something, here as anywhere.
        assert_eq!(client.read_vectored(&mut []).unwrap(), 0);
        server.write_all(b"x").unwrap();
        assert_eq!(client.read(&mut []).unwrap(), 0);
        assert_eq!(client.peek(&mut []).unwrap(), 0);
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1, "it is still there");
    });
}

#[test]
fn the_end_is_read_again_and_again() {
    with_others(|others| {
        let (client, mut server) = connection();
        let ends = others.spawn(move || drop(client));
        for _ in 0..3 {
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
        }
        assert_eq!(server.read_to_end(&mut Vec::new()).unwrap(), 0);
        ends.value();
    });
}

#[test]
fn writes_to_one_who_has_gone_fail_in_the_end() {
    with_others(|others| {
        let (mut client, server) = connection();
        let ends = others.spawn(move || drop(server));
        let error = loop {
            if let Err(error) = client.write(&[0; 100]) {
                break error;
            }
            std::thread::yield_now();
        };
        let gone = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(gone.contains(&error.kind()), "{error}");
        ends.value();
    });
}

/// More than both sockets hold, and who reads begins when the first has come.
#[test]
fn a_long_write_waits_for_who_reads() {
    with_others(|others| {
        const LONG: usize = 8 << 20;
        let (mut client, mut server) = connection();
        let reads = others.spawn(move || {
            server.peek(&mut [0]).unwrap();
            let mut all = Vec::new();
            server.read_to_end(&mut all).unwrap();
            all
        });
        let all: Vec<u8> = (0..LONG).map(|n| (n % 251) as u8).collect();
        client.write_all(&all).unwrap();
        drop(client);
        assert!(reads.value() == all);
    });
}

#[test]
fn one_after_the_other_is_accepted() {
    with_others(|others| {
        const COUNT: u8 = 20;
        let (listener, address) = listen();
        let connects = others.spawn(move || {
            for n in 0..COUNT {
                TcpStream::connect(address).unwrap().write_all(&[n]).unwrap();
            }
        });
        let accept = |stream: std::io::Result<TcpStream>| {
            let mut text = Vec::new();
            stream.unwrap().read_to_end(&mut text).unwrap();
            text
        };
        let accepted: Vec<_> = listener.incoming().take(COUNT.into()).map(accept).collect();
        assert_eq!(accepted, (0..COUNT).map(|n| vec![n]).collect::<Vec<_>>());
        connects.value();
    });
}

/// Each is opened while all before it are open, and served by a thread of its own; all write when
/// all are there, the last one first.
#[test]
fn many_are_open_at_once() {
    with_others(|others| {
        const COUNT: u8 = 12;
        let (listener, address) = listen();
        let serves = others.spawn(move || {
            let serve = |_| {
                let (mut stream, _) = listener.accept().unwrap();
                others.spawn(move || {
                    let mut text = [0];
                    stream.read_exact(&mut text).unwrap();
                    stream.write_all(&[text[0] + 100]).unwrap();
                })
            };
            (0..COUNT).map(serve).collect::<Vec<_>>().into_iter().for_each(|each| each.value());
        });
        let mut streams: Vec<_> =
            (0..COUNT).map(|_| TcpStream::connect(address).unwrap()).collect();
        for (n, stream) in streams.iter_mut().enumerate().rev() {
            stream.write_all(&[n as u8]).unwrap();
        }
        for (n, stream) in streams.iter_mut().enumerate() {
            let mut text = [0];
            stream.read_exact(&mut text).unwrap();
            assert_eq!(usize::from(text[0]), n + 100);
        }
        serves.value();
    });
}

#[test]
fn two_listeners_of_one_socket_accept_each_their_own() {
    with_others(|others| {
        let (listener, address) = listen();
        let twin = listener.try_clone().unwrap();
        let (tells, told) = mpsc::channel();
        let (twin_tells, last) = (tells.clone(), tells.clone());
        drop(tells);
        let accept = |listener: TcpListener, tells: mpsc::Sender<u16>| {
            others.spawn(move || {
                let (_stream, from) = listener.accept().unwrap();
                tells.send(from.port()).unwrap();
            })
        };
        let accepts = [accept(listener, last), accept(twin, twin_tells)];
        let streams = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let mut ports = streams.each_ref().map(|stream| stream.local_addr().unwrap().port());
        ports.sort_unstable();
        let mut seen: Vec<_> = told.iter().collect();
        seen.sort_unstable();
        assert_eq!(seen, ports);
        accepts.into_iter().for_each(|accept| accept.value());
    });
}

#[test]
fn clones_share_a_stream() {
    with_others(|others| {
        let (client, mut server) = connection();
        // Two write, on two threads.
        let writes = [1, 2].map(|n| {
            let mut twin = client.try_clone().unwrap();
            others.spawn(move || (0..20).for_each(|_| twin.write_all(&[n]).unwrap()))
        });
        let mut all = [0; 40];
        server.read_exact(&mut all).unwrap();
        assert_eq!(all.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 60);
        writes.into_iter().for_each(|write| write.value());
        // Two read, each a part.
        let reads = [(); 2].map(|()| {
            let mut twin = client.try_clone().unwrap();
            others.spawn(move || {
                let mut one = [0];
                twin.read_exact(&mut one).unwrap();
                one[0]
            })
        });
        server.write_all(&[3, 4]).unwrap();
        let mut read = reads.map(|read| read.value());
        read.sort_unstable();
        assert_eq!(read, [3, 4]);
        // The stream goes on when one of its owners has gone, and ends with the last.
        drop(client.try_clone().unwrap());
        server.write_all(&[5]).unwrap();
        assert_eq!((&client).read(&mut [0; 4]).unwrap(), 1);
        drop(client);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn a_clone_is_made_while_another_reads() {
    with_others(|others| {
        let (client, mut server) = connection();
        let mut reader = client.try_clone().unwrap();
        let reads = others.spawn(move || reader.read(&mut [0; 4]).unwrap());
        std::thread::yield_now();
        let mut twin = client.try_clone().unwrap();
        twin.write_all(b"?").unwrap();
        server.read_exact(&mut [0]).unwrap();
        server.write_all(b"!").unwrap();
        assert_eq!(reads.value(), 1);
    });
}

#[test]
fn a_shutdown_ends_one_direction_or_both_for_all_clones() {
    with_others(|others| {
        let (mut client, mut server) = connection();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
        server.write_all(b"late").unwrap();
        let mut text = [0; 4];
        client.read_exact(&mut text).unwrap();

        let (client, _server) = connection();
        let mut twin = client.try_clone().unwrap();
        let waits = others.spawn(move || twin.read(&mut [0]).unwrap());
        std::thread::yield_now();
        client.shutdown(Shutdown::Read).unwrap();
        assert_eq!(waits.value(), 0);
        assert_eq!((&client).write(b"x").unwrap(), 1);

        let (client, mut server) = connection();
        let mut twin = client.try_clone().unwrap();
        let waits = others.spawn(move || twin.read(&mut [0]).unwrap());
        std::thread::yield_now();
        client.shutdown(Shutdown::Both).unwrap();
        assert_eq!(waits.value(), 0);
        let mut late = client.try_clone().unwrap();
        assert_eq!(late.read(&mut [0]).unwrap(), 0);
        assert_eq!(late.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(server.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn timeouts_are_kept_and_elapse_and_harm_nothing() {
    on_a_virtual_thread(|| {
        let (mut client, mut server) = connection();
        assert_eq!(client.read_timeout().unwrap(), None);
        assert_eq!(client.write_timeout().unwrap(), None);
        for zero in [client.set_read_timeout(Some(Duration::ZERO)), {
            client.set_write_timeout(Some(Duration::ZERO))
        }] {
            assert_eq!(zero.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        client.set_read_timeout(Some(4 * MOMENT)).unwrap();
        client.set_write_timeout(Some(MOMENT)).unwrap();
        assert_eq!(client.read_timeout().unwrap(), Some(4 * MOMENT));
        assert_eq!(client.write_timeout().unwrap(), Some(MOMENT));
        let begun = Instant::now();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        // The kernel counts in ticks, of a hundredth of a second at most.
        assert!(begun.elapsed() >= 4 * MOMENT - Duration::from_millis(10), "{:?}", begun.elapsed());
        server.write_all(b"here").unwrap();
        let mut text = [0; 4];
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"here");
        let refused = loop {
            if let Err(error) = client.write(&[0; 1 << 20]) {
                break error;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
        client.set_read_timeout(None).unwrap();
        assert_eq!(client.read_timeout().unwrap(), None);
    });
}

#[test]
fn options_are_kept() {
    on_a_virtual_thread(|| {
        let (client, _server) = connection();
        assert!(!client.nodelay().unwrap());
        client.set_nodelay(true).unwrap();
        assert!(client.nodelay().unwrap());
        client.set_nodelay(false).unwrap();
        assert!(!client.nodelay().unwrap());
        client.set_ttl(100).unwrap();
        assert_eq!(client.ttl().unwrap(), 100);
        let (listener, _) = listen();
        listener.set_ttl(99).unwrap();
        assert_eq!(listener.ttl().unwrap(), 99);
    });
}

#[test]
fn who_asks_not_to_wait_does_not() {
    with_others(|others| {
        let (listener, address) = listen();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        listener.set_nonblocking(false).unwrap();
        let connects = others.spawn(move || TcpStream::connect(address).unwrap());
        // What is accepted waits, whatever its listener does.
        let (mut server, _) = listener.accept().unwrap();
        let mut client = connects.value();
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!(client.peek(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        while client.write(&[0; 1 << 20]).is_ok() {}
        let full = client.write(&[0]).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        client.set_nonblocking(false).unwrap();
        let answers = others.spawn(move || {
            std::thread::yield_now();
            server.write_all(b"x").unwrap();
            server
        });
        assert_eq!(client.read(&mut [0; 2]).unwrap(), 1);
        answers.value();
    });
}

#[test]
fn what_is_peeked_at_stays() {
    with_others(|others| {
        let (mut client, mut server) = connection();
        let writes = others.spawn(move || {
            std::thread::yield_now();
            server.write_all(b"look").unwrap();
            server
        });
        let mut text = [0; 4];
        for _ in 0..3 {
            assert!(client.peek(&mut text).unwrap() >= 1);
            assert_eq!(text[0], b'l');
        }
        let server = writes.value();
        client.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"look");
        drop(server);
        assert_eq!(client.peek(&mut text).unwrap(), 0);
    });
}

/// What is left of a connection does not keep its address from the next listener.
#[test]
fn an_address_is_bound_again_at_once() {
    with_others(|others| {
        let (listener, address) = listen();
        let connects = others.spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            // The server has closed first, so the address is the one that lingers.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        });
        drop(listener.accept().unwrap());
        connects.value();
        drop(listener);
        let again = TcpListener::bind(address).unwrap();
        let connects = others.spawn(move || TcpStream::connect(address).unwrap());
        again.accept().unwrap();
        connects.value();
    });
}

/// By references to one stream: std's are shared by threads.
#[test]
fn one_stream_is_read_and_written_at_once() {
    with_others(|others| {
        let (client, server) = connection();
        let client = Arc::new(client);
        let reader = Arc::clone(&client);
        let reads = others.spawn(move || {
            let mut text = [0; 3];
            (&*reader).read_exact(&mut text).unwrap();
            text
        });
        let echoes = others.spawn(move || {
            let mut text = [0; 3];
            (&server).read_exact(&mut text).unwrap();
            (&server).write_all(&text).unwrap();
        });
        std::thread::yield_now();
        (&*client).write_all(b"abc").unwrap();
        assert_eq!(reads.value(), *b"abc");
        echoes.value();
    });
}
