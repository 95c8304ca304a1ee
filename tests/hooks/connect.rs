//! Connecting and accepting.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::AsRawFd,
        unix::net::{UnixListener, UnixStream},
    },
    ptr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use greenloop::{testing::settle, thread};

use crate::{
    call::{flags_of, on_a_virtual_thread, result, virtual_time_of},
    support::assert_ends,
};

/// An address at which nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// As many as the usual limit on open files allows.
#[test]
fn three_hundred_clients_and_their_server_on_one_thread() {
    assert_ends(|| {
        greenloop::run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let serves = thread::spawn(move || {
                (0..300)
                    .map(|_| {
                        let (mut stream, _) = listener.accept().unwrap();
                        thread::spawn(move || {
                            let mut request = [0; 4];
                            stream.read_exact(&mut request).unwrap();
                            stream.write_all(&request).unwrap();
                        })
                    })
                    .for_each(drop);
            });
            let clients: Vec<_> = (0..300u32)
                .map(|n| {
                    thread::spawn(move || {
                        let mut stream = TcpStream::connect(address).unwrap();
                        stream.write_all(&n.to_ne_bytes()).unwrap();
                        let mut answer = [0; 4];
                        stream.read_exact(&mut answer).unwrap();
                        assert_eq!(u32::from_ne_bytes(answer), n);
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
            serves.join().unwrap();
        });
    });
}

#[test]
fn a_refused_connection_is_refused() {
    on_a_virtual_thread(|| {
        let address = closed_port();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let refused = TcpStream::connect_timeout(&address, Duration::from_secs(60)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn connect_timeout_connects() {
    on_a_virtual_thread(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(60)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), address);
        assert!(!flags_of(&stream).contains(rustix::fs::OFlags::NONBLOCK));
    });
}

/// A listener whose queue is full answers nobody more.
#[test]
fn a_connection_that_nobody_answers_times_out() {
    on_a_virtual_thread(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: no memory is touched. A queue of none holds one.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let address = listener.local_addr().unwrap();
        let limit = Duration::from_millis(200);
        let mut waiting = Vec::new();
        let late = loop {
            let begun = std::time::Instant::now();
            match TcpStream::connect_timeout(&address, limit) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break (error.kind(), begun.elapsed() >= limit),
            }
            assert!(waiting.len() < 100);
        };
        assert_eq!(late, (ErrorKind::TimedOut, true));
    });
}

/// As the kernel has it, a blocking connect whose `SO_SNDTIMEO` is over is in progress still.
#[test]
fn a_connect_keeps_the_sockets_own_timeout() {
    on_a_virtual_thread(|| {
        let path = std::env::temp_dir().join(format!("greenloop-full-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        // SAFETY: no memory is touched.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let _first = UnixStream::connect(&path).unwrap();
        let connects = {
            let path = path.clone();
            thread::spawn(move || UnixStream::connect(path).unwrap())
        };
        thread::yield_now();
        // It is full, so this one waits; and gets in when there is room.
        let _accepted = listener.accept().unwrap();
        let second = connects.join().unwrap();
        // SAFETY: no memory is touched.
        let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) };
        let limit = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
        let size = size_of::<libc::timeval>() as u32;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_SNDTIMEO);
        // SAFETY: a live time of that size.
        let set =
            unsafe { libc::setsockopt(socket, level, option, (&raw const limit).cast(), size) };
        assert_eq!(set, 0);
        // SAFETY: an all-zero address is one.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as u16;
        for (to, from) in address.sun_path.iter_mut().zip(path.to_str().unwrap().bytes()) {
            *to = from as libc::c_char;
        }
        let size = size_of::<libc::sockaddr_un>() as u32;
        // SAFETY: a live address of that size.
        let full = unsafe { libc::connect(socket, (&raw const address).cast(), size) };
        assert_eq!(result(full), Err(libc::EAGAIN));
        // SAFETY: it is not used again.
        assert_eq!(unsafe { libc::close(socket) }, 0);
        drop(second);
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn accept_keeps_the_listeners_timeout() {
    let limit = Duration::from_secs(2);
    let time = virtual_time_of(move || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let time = libc::timeval { tv_sec: 2, tv_usec: 0 };
        let size = size_of::<libc::timeval>() as u32;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_RCVTIMEO);
        // SAFETY: a live time of that size.
        let set = unsafe {
            libc::setsockopt(listener.as_raw_fd(), level, option, (&raw const time).cast(), size)
        };
        assert_eq!(set, 0);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
    assert_eq!(time, limit);
}

/// Of those who are told that the listener is ready, one gets the connection; the rest wait on, and
/// do not block their thread. The OS thread among them, for which the listener is one in blocking
/// mode, never hears that there is nothing.
#[test]
fn a_connection_that_another_took_is_waited_for_anew() {
    const CONNECTIONS: u32 = 300;
    assert_ends(|| {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let taken = Arc::new(AtomicU32::new(0));
        // The last connections are one for each who accepts, to end it: they say so.
        let accept = move |listener: &TcpListener, taken: &AtomicU32| {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut word = [0];
                stream.read_exact(&mut word).unwrap();
                if word == *b"!" {
                    return;
                }
                taken.fetch_add(1, Ordering::Relaxed);
            }
        };
        let (shared, count) = (Arc::clone(&listener), Arc::clone(&taken));
        let os_thread = std::thread::spawn(move || accept(&shared, &count));
        greenloop::run(|| {
            let accepts: Vec<_> = (0..4)
                .map(|_| {
                    let (shared, count) = (Arc::clone(&listener), Arc::clone(&taken));
                    thread::spawn(move || accept(&shared, &count))
                })
                .collect();
            settle();
            thread::spawn(move || {
                let all = (0..CONNECTIONS).map(|_| b"?").chain((0..5).map(|_| b"!"));
                for word in all {
                    TcpStream::connect(address).unwrap().write_all(word).unwrap();
                    thread::yield_now();
                }
            })
            .join()
            .unwrap();
            accepts.into_iter().for_each(|accept| accept.join().unwrap());
        });
        os_thread.join().unwrap();
        assert_eq!(taken.load(Ordering::Relaxed), CONNECTIONS);
    });
}

#[test]
fn an_accepted_socket_has_the_mode_that_was_asked_for() {
    on_a_virtual_thread(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connects =
            thread::spawn(move || [(); 2].map(|()| TcpStream::connect(address).unwrap()));
        let accept = |flags| {
            // SAFETY: null: the address is not asked for.
            let fd = unsafe {
                libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags)
            };
            result(fd).unwrap() as i32
        };
        let (blocking, nonblocking) = (accept(0), accept(libc::SOCK_NONBLOCK));
        for (fd, expected) in [(blocking, 0), (nonblocking, libc::O_NONBLOCK)] {
            // SAFETY: no memory is touched.
            assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFL) } & libc::O_NONBLOCK, expected);
            // SAFETY: it is not used again.
            assert_eq!(unsafe { libc::close(fd) }, 0);
        }
        connects.join().unwrap();
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    });
}
