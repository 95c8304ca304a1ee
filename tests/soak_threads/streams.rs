//! Scenes at sockets and pipes: std's. A call of a victim fails, and its party returns.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::AsRawFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use greenloop::testing::Random;

use crate::{
    stage::{Party, mortal_pause, own, party},
    watch::step,
};

/// Those errors that a victim's calls give, and those of its peers.
fn allow(is_calm: bool, error: &io::Error) {
    assert!(!is_calm, "{error}");
    let known = matches!(
        error.kind(),
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionAborted
            | ErrorKind::NotConnected
            | ErrorKind::UnexpectedEof
            | ErrorKind::WriteZero
    );
    let killed = error.raw_os_error() == Some(libc::ECANCELED);
    assert!(known || killed, "{error}");
}

/// The byte at this place of every stream.
fn byte(place: usize) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16)) as u8
}

/// Writes so many bytes, in pieces.
fn write(mut to: impl Write, count: usize, random: &Random) -> io::Result<()> {
    let mut place = 0;
    while place < count {
        let size = (1 + random.below(30_000)).min(count - place);
        let piece: Vec<u8> = (place..place + size).map(byte).collect();
        to.write_all(&piece)?;
        place += size;
        mortal_pause(random);
    }
    Ok(())
}

/// Reads until the end, in pieces. Returns how many bytes there were.
fn read(mut from: impl Read, random: &Random) -> io::Result<usize> {
    let (mut place, mut piece) = (0, vec![0; 1 + random.below(20_000)]);
    loop {
        let size = from.read(&mut piece)?;
        if size == 0 {
            return Ok(place);
        }
        let is_right = |(n, found): (usize, &u8)| *found == byte(place + n);
        assert!(piece[..size].iter().enumerate().all(is_right), "other bytes than were written");
        place += size;
        mortal_pause(random);
    }
}

/// More than a pipe or a local socket holds, from one to another.
pub(crate) fn pipe(random: &Random, is_calm: bool) -> Vec<Party> {
    let count = random.below(200_000);
    let (writes, reads) = (own(random), own(random));
    let (from, to): (Box<dyn Read + Send>, Box<dyn Write + Send>) = match random.below(2) {
        0 => {
            let (from, to) = io::pipe().unwrap();
            (Box::new(from), Box::new(to))
        }
        _ => {
            let (from, to) = UnixStream::pair().unwrap();
            (Box::new(from), Box::new(to))
        }
    };
    vec![
        party(move || match write(to, count, &writes) {
            Ok(()) => {}
            Err(error) => allow(is_calm, &error),
        }),
        party(move || match read(from, &reads) {
            Ok(read) => assert!(!is_calm || read == count, "{read} of {count} bytes"),
            Err(error) => allow(is_calm, &error),
        }),
    ]
}

/// Counts down when it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server that accepts, and clients that write, shut down, and read it all back.
pub(crate) fn echo(random: &Random, is_calm: bool) -> Vec<Party> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let clients = 1 + random.below(4);
    let alive = Arc::new(AtomicUsize::new(clients));
    let (serves, clients_alive) = (own(random), Arc::clone(&alive));
    let mut parties = vec![party(move || {
        // Some clients never come.
        while clients_alive.load(Ordering::Relaxed) > 0 {
            if !is_readable_soon(&listener) {
                continue;
            }
            let (stream, _) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => return allow(is_calm, &error),
            };
            if let Err(error) = answer(stream, &serves) {
                allow(is_calm, &error);
            }
        }
    })];
    for _ in 0..clients {
        let (random, alive) = (own(random), Counted(Arc::clone(&alive)));
        parties.push(party(move || {
            let _alive = alive;
            let count = random.below(60_000);
            match ask(address, count, &random) {
                Ok(echoed) => assert!(!is_calm || echoed == count, "{echoed} of {count} bytes"),
                Err(error) => allow(is_calm, &error),
            }
        }));
    }
    parties
}

/// Whether something comes within a while: also false if this is to end.
fn is_readable_soon(listener: &TcpListener) -> bool {
    let mut one = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    let ready = unsafe { libc::poll(&raw mut one, 1, 5) };
    greenloop::thread::yield_now();
    ready == 1
}

/// Echoes all that comes, once it has ended.
fn answer(mut stream: TcpStream, random: &Random) -> io::Result<()> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    step();
    mortal_pause(random);
    stream.write_all(&text)
}

fn ask(address: SocketAddr, count: usize, random: &Random) -> io::Result<usize> {
    let stream = match random.below(2) {
        0 => TcpStream::connect(address)?,
        _ => TcpStream::connect_timeout(&address, Duration::from_secs(60))?,
    };
    mortal_pause(random);
    write(&stream, count, random)?;
    stream.shutdown(Shutdown::Write)?;
    read(&stream, random)
}

/// Questions and answers by datagrams, which a loopback does not lose.
pub(crate) fn datagrams(random: &Random, _: bool) -> Vec<Party> {
    let [one, other] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let (here, there) = (one.local_addr().unwrap(), other.local_addr().unwrap());
    let (asks, answers) = (own(random), own(random));
    const QUESTIONS: u8 = 20;
    let ask = move || {
        let mut text = [0; 8];
        for n in 0..QUESTIONS {
            one.send_to(&[n], there).unwrap();
            mortal_pause(&asks);
            let (count, from) = one.recv_from(&mut text).unwrap();
            assert_eq!((&text[..count], from), (&[n, n][..], there));
        }
    };
    let answer = move || {
        let mut text = [0; 8];
        for n in 0..QUESTIONS {
            assert_eq!(other.peek_from(&mut text).unwrap(), (1, here));
            assert_eq!(other.recv_from(&mut text).unwrap(), (1, here));
            assert_eq!(text[0], n);
            mortal_pause(&answers);
            other.send_to(&[n, n], here).unwrap();
        }
    };
    vec![party(ask).immortal(), party(answer).immortal()]
}

/// One reads from a stream that is shut down by another thread.
pub(crate) fn shutdown(random: &Random, _: bool) -> Vec<Party> {
    let (end, other) = UnixStream::pair().unwrap();
    let (shared, ends) = (Arc::new(end), own(random));
    let mut parties: Vec<_> = (0..1 + random.below(3))
        .map(|_| {
            let shared = Arc::clone(&shared);
            let read = move || match (&*shared).read(&mut [0; 8]) {
                Ok(read) => assert_eq!(read, 0),
                Err(error) => allow(false, &error),
            };
            party(read)
        })
        .collect();
    parties.push(
        party(move || {
            mortal_pause(&ends);
            shared.shutdown(Shutdown::Both).unwrap();
            drop(other);
        })
        .immortal(),
    );
    parties
}
