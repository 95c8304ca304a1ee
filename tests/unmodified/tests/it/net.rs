//! `std::net`, and its like for Unix sockets.

use std::{
    env, fs,
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket},
    os::unix::net::{UnixDatagram, UnixListener, UnixStream},
    process, thread,
    time::{Duration, Instant},
};

use greenloop_unmodified::{listen, overlap, threads};

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(300);

const ANY_PORT: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

/// A server with a virtual thread for each of `MANY` clients.
fn serve(answer: fn(TcpStream)) -> (SocketAddr, threads::JoinHandle<()>) {
    let listener = listen();
    let address = listener.local_addr().unwrap();
    let server = threads::spawn(move || {
        let accept = |_| {
            let (stream, from) = listener.accept().unwrap();
            assert_eq!(stream.peer_addr().unwrap(), from);
            threads::spawn(move || answer(stream))
        };
        for one in (0..MANY).map(accept).collect::<Vec<_>>() {
            one.join().unwrap();
        }
    });
    (address, server)
}

/// A question, a moment, an answer, the end. By several slices, and by a clone on another thread.
pub(crate) fn tcp() {
    let (address, server) = serve(|mut stream| {
        let (mut one, mut two) = ([0; 4], [0; 4]);
        let mut both = [IoSliceMut::new(&mut one), IoSliceMut::new(&mut two)];
        assert_eq!(stream.read_vectored(&mut both).unwrap(), 8);
        thread::sleep(MOMENT);
        let both = [IoSlice::new(&two), IoSlice::new(&one)];
        assert_eq!(stream.write_vectored(&both).unwrap(), 8);
    });
    let answers = overlap(MANY, MOMENT, move |index| {
        let stream = TcpStream::connect_timeout(&address, 100 * MOMENT).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut clone = stream.try_clone().unwrap();
        let reader = threads::spawn(move || {
            let mut answer = Vec::new();
            clone.read_to_end(&mut answer).map(|_| answer).unwrap()
        });
        let question = u64::try_from(index).unwrap().to_be_bytes();
        (&stream).write_all(&question).unwrap();
        reader.join().unwrap()
    });
    for (index, answer) in answers.into_iter().enumerate() {
        let swapped = u64::try_from(index).unwrap().rotate_left(32).to_be_bytes();
        assert_eq!(answer, swapped);
    }
    server.join().unwrap();
    let error = TcpStream::connect(address).expect_err("its listener is closed");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

/// A read that ends without an answer, and one that gets it.
pub(crate) fn tcp_timeouts() {
    let (address, server) = serve(|mut stream| {
        // Once the client has given up: it says so.
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"late").unwrap();
    });
    overlap(MANY, MOMENT, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(MOMENT)).unwrap();
        assert_eq!(stream.read_timeout().unwrap(), Some(MOMENT));
        let begun = Instant::now();
        let error = stream.read(&mut [0; 4]).expect_err("nothing was sent");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let took = begun.elapsed();
        assert!(took >= MOMENT - MOMENT / 10, "a timeout of {MOMENT:?} took {took:?}");
        stream.set_read_timeout(None).unwrap();
        stream.write_all(b"!").unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"late");
    });
    server.join().unwrap();
}

/// What was looked at is still there; a stream that is shut down ends for who reads it, and one
/// that is shut down by another thread while it is read ends, too.
pub(crate) fn tcp_peek_and_shutdown() {
    let (address, server) = serve(|mut stream| {
        thread::sleep(MOMENT / 2);
        stream.write_all(b"look").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        drop(stream);
    });
    overlap(MANY, MOMENT, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        let mut seen = [0; 4];
        let peeked = stream.peek(&mut seen).unwrap();
        assert_eq!((peeked, &seen), (4, b"look"));
        stream.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"look");
        let reader = stream.try_clone().unwrap();
        let reader = threads::spawn(move || (&reader).read(&mut seen).unwrap());
        thread::sleep(MOMENT / 2);
        stream.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap(), 0);
        assert_eq!(stream.write(b"?").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
    server.join().unwrap();
}

/// Whoever asked not to wait does not.
pub(crate) fn tcp_nonblocking() {
    let listener = TcpListener::bind(ANY_PORT).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let (address, server) = serve(|mut stream| {
        thread::sleep(MOMENT);
        stream.write_all(b"!").unwrap();
    });
    let refusals = overlap(MANY, MOMENT, move |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut refusals = 0;
        while let Err(error) = stream.read_exact(&mut [0]) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            refusals += 1;
            thread::sleep(MOMENT / 10);
        }
        stream.set_nonblocking(false).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        refusals
    });
    for refusals in refusals {
        assert!(refusals >= 1, "the first read waited");
    }
    server.join().unwrap();
}

/// Datagrams come whole, from whom they say, or in time not at all.
pub(crate) fn udp() {
    overlap(MANY, MOMENT, |index| {
        let [one, two] = [0, 1].map(|_| UdpSocket::bind(ANY_PORT).unwrap());
        let (from, to) = (one.local_addr().unwrap(), two.local_addr().unwrap());
        let late = threads::spawn(move || {
            thread::sleep(MOMENT / 2);
            one.send_to(format!("to {index}").as_bytes(), to).unwrap();
            one
        });
        let mut text = [0; 16];
        assert_eq!(two.peek_from(&mut text).unwrap(), (3 + index.to_string().len(), from));
        let (len, source) = two.recv_from(&mut text).unwrap();
        assert_eq!((&text[..len], source), (format!("to {index}").as_bytes(), from));

        let one = late.join().unwrap();
        one.connect(to).unwrap();
        two.connect(from).unwrap();
        two.set_read_timeout(Some(MOMENT / 2)).unwrap();
        let begun = Instant::now();
        assert_eq!(two.recv(&mut text).unwrap_err().kind(), ErrorKind::WouldBlock);
        let took = begun.elapsed();
        assert!(took >= MOMENT / 2 - MOMENT / 20, "a timeout of {:?} took {took:?}", MOMENT / 2);
        assert_eq!(one.send(b"again").unwrap(), 5);
        assert_eq!(two.recv(&mut text).unwrap(), 5);
        assert_eq!(&text[..5], b"again");
    });
}

/// More than a socket holds, so that who writes must wait for who reads, or gives up.
pub(crate) fn unix() {
    const LONG: usize = 300_000;
    let path = env::temp_dir().join(format!("greenloop-{}.socket", process::id()));
    let listener = UnixListener::bind(&path).unwrap();
    let server = threads::spawn(move || {
        let answer = |stream: UnixStream| {
            thread::sleep(MOMENT / 2);
            let mut text = Vec::new();
            (&stream).read_to_end(&mut text).unwrap();
            (&stream).write_all(&text).unwrap();
        };
        let accept = |_| {
            let (stream, _) = listener.accept().unwrap();
            threads::spawn(move || answer(stream))
        };
        for one in (0..MANY).map(accept).collect::<Vec<_>>() {
            one.join().unwrap();
        }
    });
    let socket = path.clone();
    let checked = overlap(MANY, MOMENT, move |index| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        let text = format!("{index:9} ").repeat(LONG / 10).into_bytes();
        stream.write_all(&text).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();

        let (mut full, _reads_nothing) = UnixStream::pair().unwrap();
        full.set_write_timeout(Some(MOMENT / 2)).unwrap();
        let begun = Instant::now();
        let error = full.write_all(&text).expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let took = begun.elapsed();
        assert!(took >= MOMENT / 2 - MOMENT / 20, "a timeout of {:?} took {took:?}", MOMENT / 2);
        answer == text
    });
    assert!(checked.into_iter().all(|is_same| is_same));
    server.join().unwrap();
    fs::remove_file(path).unwrap();
}

/// A pair for each: one is late with its datagram, and has no second one.
pub(crate) fn unix_datagram() {
    overlap(MANY, MOMENT, |index| {
        let (one, two) = UnixDatagram::pair().unwrap();
        let late = threads::spawn(move || {
            thread::sleep(MOMENT / 2);
            one.send(index.to_string().as_bytes()).unwrap();
            one
        });
        let mut text = [0; 16];
        let (len, _) = two.recv_from(&mut text).unwrap();
        assert_eq!(&text[..len], index.to_string().as_bytes());
        let _one = late.join().unwrap();
        two.set_read_timeout(Some(MOMENT / 2)).unwrap();
        let begun = Instant::now();
        assert_eq!(two.recv(&mut text).unwrap_err().kind(), ErrorKind::WouldBlock);
        let took = begun.elapsed();
        assert!(took >= MOMENT / 2 - MOMENT / 20, "a timeout of {:?} took {took:?}", MOMENT / 2);
    });
}

/// The system's resolver, without a name server: the machine knows itself.
pub(crate) fn names() {
    let found = overlap(MANY, MOMENT, |index| {
        thread::sleep(MOMENT);
        let port = u16::try_from(1000 + index).unwrap();
        let found: Vec<_> = ("localhost", port).to_socket_addrs().unwrap().collect();
        found.into_iter().all(|address| address.ip().is_loopback() && address.port() == port)
    });
    assert!(found.into_iter().all(|is_right| is_right));
}
