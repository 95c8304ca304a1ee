//! TCP on loopback: real sockets, port 0, no outside network.
//!
//! No test sleeps to synchronise. [`parked`] spawns a greenlet and lets it run until it waits; what
//! crosses threads waits in a join. Every test that could hang does so inside [`bounded`].

use std::{
    cell::{Cell, RefCell},
    env, fs,
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net,
    os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd},
    process::Command,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use greenloop::{
    Greenlet,
    net::{Incoming, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs},
    reactor, run, sleep, spawn, timeout, yield_now,
};
use rustix::net::sockopt;

/// Longer than anything here takes, short enough to see which test hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `f` on a reactor, and fails instead of hanging.
#[track_caller]
pub(crate) fn bounded<T>(f: impl FnOnce() -> io::Result<T>) -> T {
    run(|| timeout(PATIENCE, f)).expect("the test would have hung").expect("no error")
}

/// Spawns `f` and lets it run until it waits for something.
pub(crate) fn parked<T: 'static>(f: impl FnOnce() -> T + 'static) -> Greenlet<T> {
    let greenlet = spawn(f);
    yield_now();
    assert!(!greenlet.is_finished(), "it was to wait");
    greenlet
}

/// Both ends of a connection.
fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    Ok((near, far))
}

/// One end as ours, the other as std's, for a peer on an OS thread.
fn half_pair() -> io::Result<(TcpStream, net::TcpStream)> {
    let (near, far) = pair()?;
    Ok((near, far.into()))
}

/// Fills both buffers between two ends, so that the next write blocks. Returns how much fits.
fn stuff(mut stream: &TcpStream) -> io::Result<usize> {
    stream.set_nonblocking(true)?;
    let mut total = 0;
    loop {
        match stream.write(&[7; 65536]) {
            Ok(n) => total += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    stream.set_nonblocking(false)?;
    Ok(total)
}

/// Runs `test` again in a process of its own, where it finds `GREENLOOP_CHILD` set: for what
/// concerns the whole process. Returns its output.
fn in_child(test: &str) -> String {
    let path =
        module_path!().split_once("::").map_or(String::new(), |(_, path)| format!("{path}::"));
    let output = Command::new(env::current_exe().unwrap())
        .args([&format!("{path}{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env("GREENLOOP_CHILD", test)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{text}", output.status);
    assert!(text.contains("1 passed"), "no such test: {text}");
    text.into_owned()
}

fn is_child() -> bool {
    env::var_os("GREENLOOP_CHILD").is_some()
}

/// Sockets go to other threads; the promise is in the docs.
#[test]
fn sockets_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<TcpStream>();
    check::<TcpListener>();
    check::<Incoming<'_>>();
}

/// Bytes, addresses, options: what a first program uses.
#[test]
fn an_echo_server_echoes() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let server = spawn(move || -> io::Result<SocketAddr> {
            let (mut stream, peer) = listener.accept()?;
            assert_eq!(stream.peer_addr()?, peer);
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            stream.write_all(text.to_uppercase().as_bytes())?;
            Ok(peer)
        });
        let mut stream = TcpStream::connect(address)?;
        assert_eq!(stream.peer_addr()?, address);
        stream.write_all(b"hello")?;
        stream.flush()?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        assert_eq!(text, "HELLO");
        assert_eq!(server.join().unwrap()?, stream.local_addr()?);
        Ok(())
    });
}

/// std's options are there and reach the socket.
#[test]
fn options_are_kept_by_the_socket() {
    bounded(|| {
        let (stream, _far) = pair()?;
        stream.set_nodelay(true)?;
        stream.set_ttl(17)?;
        let theirs = net::TcpStream::from(stream);
        assert!(theirs.nodelay()?);
        assert_eq!(theirs.ttl()?, 17);
        let ours = TcpStream::from(theirs);
        assert!(ours.nodelay()?);
        assert_eq!(ours.ttl()?, 17);
        assert!(ours.take_error()?.is_none());
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_ttl(18)?;
        assert_eq!(listener.ttl()?, 18);
        assert!(listener.take_error()?.is_none());
        assert!(sockopt::socket_reuseaddr(&listener)?);
        let shown = format!("{ours:?}");
        assert!(shown.contains("peer: 127.0.0.1:"), "{shown}");
        Ok(())
    });
}

/// Code moved over from threads by mistake must learn what to do, not hang or panic.
#[test]
fn outside_a_run_what_could_block_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binding needs no reactor");
    let address = listener.local_addr().unwrap();
    let mut stream = TcpStream::from(net::TcpStream::connect(address).unwrap());
    let errors = [
        listener.accept().map(drop).unwrap_err(),
        TcpStream::connect(address).map(drop).unwrap_err(),
        TcpStream::connect_timeout(&address, PATIENCE).map(drop).unwrap_err(),
        stream.read(&mut [0]).map(drop).unwrap_err(),
        stream.write(&[0]).map(drop).unwrap_err(),
        stream.peek(&mut [0]).map(drop).unwrap_err(),
        TcpListener::bind("localhost:0").map(drop).unwrap_err(),
        "localhost:0".to_socket_addrs().map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("inside greenloop::run"), "{error}");
    }
    // One that was used before belongs to nobody now, and may be dropped here.
    let (near, far) = bounded(pair);
    drop((near, far));
}

/// Vectored calls count all buffers together, and take more of them than the kernel does at once.
#[test]
fn vectored_calls_fill_buffer_after_buffer() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b""), IoSlice::new(b"cdef")];
        assert_eq!(near.write_vectored(&slices)?, 6);
        let (mut first, mut second) = ([0; 4], [0; 4]);
        let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
        assert_eq!(far.read_vectored(&mut into)?, 6);
        assert_eq!((&first, &second[..2]), (b"abcd", &b"ef"[..]));
        let many = vec![IoSlice::new(b"x"); 3000];
        assert!((1..=3000).contains(&near.write_vectored(&many)?));
        // Blocked ones wait like the others.
        let reader = parked(move || {
            let mut buf = vec![0; 4000];
            let mut total = 0;
            while let n @ 1.. = far.read_vectored(&mut [IoSliceMut::new(&mut buf)]).unwrap() {
                total += n;
            }
            total
        });
        assert!(near.write_vectored(&many[..1024])? > 0);
        drop(near);
        assert!(reader.join().unwrap() > 1024);
        Ok(())
    });
}

/// A peer that has nothing more to say may still listen.
#[test]
fn a_half_closed_peer_can_still_be_written_to() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        let reader = parked(move || -> io::Result<TcpStream> {
            assert_eq!(near.read(&mut [0; 8])?, 0);
            assert_eq!(near.read(&mut [0; 8])?, 0, "the end stays the end");
            near.write_all(b"still here")?;
            Ok(near)
        });
        far.shutdown(Shutdown::Write)?;
        let _near = reader.join().unwrap()?;
        let mut buf = [0; 10];
        far.read_exact(&mut buf)?;
        assert_eq!(&buf, b"still here");
        Ok(())
    });
}

/// Every byte of a slow peer is a short read: none may stop the next from being seen.
#[test]
fn a_peer_that_trickles_single_bytes_is_read_to_the_end() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        far.set_nodelay(true)?;
        let writer = spawn(move || -> io::Result<()> {
            for byte in 0..=255u8 {
                far.write_all(&[byte])?;
                yield_now();
            }
            Ok(())
        });
        let mut all = Vec::new();
        near.read_to_end(&mut all)?;
        assert!(all.iter().copied().eq(0..=255));
        writer.join().unwrap()
    });
}

/// The data and the end come in one event; the short read of the data must not hide the end.
#[test]
fn a_short_read_does_not_lose_the_end_behind_it() {
    bounded(|| {
        // The end is there before the data is read.
        let (mut near, mut far) = pair()?;
        let reader = parked(move || {
            let mut buf = [0; 64];
            (near.read(&mut buf).unwrap(), near.read(&mut buf).unwrap())
        });
        far.write_all(b"abc")?;
        drop(far);
        assert_eq!(reader.join().unwrap(), (3, 0));
        // It comes after the short read, while nobody waits.
        let (mut near, mut far) = pair()?;
        let reader = parked(move || {
            let mut buf = [0; 64];
            let n = near.read(&mut buf).unwrap();
            (n, near)
        });
        far.write_all(b"abc")?;
        let (n, mut near) = reader.join().unwrap();
        drop(far);
        assert_eq!((n, near.read(&mut [0; 64])?), (3, 0));
        Ok(())
    });
}

/// A read stops at urgent data although more follows: a short read that proves nothing.
#[test]
fn a_short_read_before_urgent_data_does_not_lose_what_follows() {
    bounded(|| {
        let (near, mut far) = pair()?;
        let near = Rc::new(near);
        let reading = Rc::clone(&near);
        let reader = parked(move || {
            let mut text = Vec::new();
            while text != b"abcd" {
                let mut buf = [0; 64];
                let n = (&*reading).read(&mut buf).unwrap();
                text.extend_from_slice(&buf[..n]);
            }
        });
        // All of it is there before the reader runs, and nothing follows that could wake it.
        far.write_all(b"ab")?;
        rustix::net::send(&far, b"!", rustix::net::SendFlags::OOB)?;
        far.write_all(b"cd")?;
        near.set_read_timeout(Some(Duration::from_secs(1)))?;
        reader.join().unwrap();
        Ok(())
    });
}

/// A reset is an error for whoever waits, with std's kinds.
#[test]
fn a_reset_wakes_the_reader_with_an_error() {
    bounded(|| {
        let (mut near, far) = pair()?;
        let reader = parked(move || {
            let read = near.read(&mut [0; 8]).map_err(|error| error.kind());
            (read, near)
        });
        sockopt::set_socket_linger(&far, Some(Duration::ZERO))?;
        drop(far);
        let (read, mut near) = reader.join().unwrap();
        assert_eq!(read, Err(ErrorKind::ConnectionReset));
        assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

/// std ignores SIGPIPE when a Rust main starts; a C program that uses the crate does not.
#[test]
#[expect(unsafe_code, reason = "restores the default action of a signal")]
fn writing_to_a_closed_peer_raises_no_sigpipe() {
    if !is_child() {
        in_child("writing_to_a_closed_peer_raises_no_sigpipe");
        return;
    }
    // SAFETY: the default action is no function of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    bounded(|| {
        let (mut near, far) = pair()?;
        drop(far);
        near.shutdown(Shutdown::Write)?;
        assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let written = near.write_vectored(&[IoSlice::new(b"x")]);
        assert_eq!(written.unwrap_err().kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

/// The most common error of a client keeps its kind through the non-blocking connect.
#[test]
fn a_refused_connection_says_so() {
    bounded(|| {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            listener.local_addr()?
        };
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let error = TcpStream::connect_timeout(&address, PATIENCE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        // The next address is tried, as std does.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let addresses = [address, listener.local_addr()?];
        let stream = TcpStream::connect(&addresses[..])?;
        assert_eq!(stream.peer_addr()?, addresses[1]);
        let nowhere: &[SocketAddr] = &[];
        assert_eq!(TcpStream::connect(nowhere).unwrap_err().kind(), ErrorKind::InvalidInput);
        Ok(())
    });
}

/// A listener whose backlog takes nobody any more; keep what is returned with it.
fn full_listener() -> io::Result<(TcpListener, SocketAddr, Vec<TcpStream>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&listener, 0)?;
    let address = listener.local_addr()?;
    let mut waiting = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            Ok(stream) => waiting.push(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => break,
            Err(error) => return Err(error),
        }
        assert!(waiting.len() < 64, "the backlog has no end");
    }
    Ok((listener, address, waiting))
}

/// A host that does not answer must not hold the caller for the kernel's two minutes.
#[test]
fn connect_timeout_gives_up_on_a_full_backlog() {
    bounded(|| {
        let (_listener, address, _waiting) = full_listener()?;
        let begun = Instant::now();
        let error = TcpStream::connect_timeout(&address, Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(20));
        let error = TcpStream::connect_timeout(&address, Duration::ZERO).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        Ok(())
    });
}

/// Half-open connections of killed greenlets would add up to a leak of descriptors.
#[test]
fn a_killed_connect_closes_its_socket() {
    if !is_child() {
        in_child("a_killed_connect_closes_its_socket");
        return;
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    bounded(|| {
        let (_listener, address, _waiting) = full_listener()?;
        let before = descriptors();
        let connecting = parked(move || TcpStream::connect(address));
        assert_eq!(descriptors(), before + 1);
        connecting.kill();
        assert!(connecting.join().unwrap_err().is_killed());
        assert_eq!(descriptors(), before);
        Ok(())
    });
}

/// A burst of clients: every connect is under way at the same time, every one is served.
#[test]
fn slow_a_thousand_connects_at_once_all_succeed() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    bounded(|| {
        // Two descriptors each, and some for the tests beside this one.
        let limits = getrlimit(Resource::Nofile);
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, ..limits });
        let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let count = (allowed.saturating_sub(400) / 2).clamp(100, 1000) as u32;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // std's backlog is 128; the rest of the burst would wait for the kernel's second try.
        rustix::net::listen(&listener, 1024)?;
        let address = listener.local_addr()?;
        let server = spawn(move || {
            for stream in listener.incoming().take(count as usize) {
                let mut stream = stream.unwrap();
                spawn(move || -> io::Result<()> {
                    let mut buf = [0; 4];
                    stream.read_exact(&mut buf)?;
                    stream.write_all(&buf)
                });
            }
        });
        let clients: Vec<_> = (0..count)
            .map(|number| {
                spawn(move || -> io::Result<bool> {
                    let mut stream = TcpStream::connect(address)?;
                    stream.write_all(&number.to_ne_bytes())?;
                    let mut buf = [0; 4];
                    stream.read_exact(&mut buf)?;
                    Ok(u32::from_ne_bytes(buf) == number)
                })
            })
            .collect();
        for client in clients {
            assert!(client.join().unwrap()?);
        }
        server.join().unwrap();
        Ok(())
    });
}

/// What was known of a number (blocked, ready, ended) must not be believed of its next owner.
#[test]
fn a_reused_descriptor_number_starts_afresh() {
    if !is_child() {
        in_child("a_reused_descriptor_number_starts_afresh");
        return;
    }
    bounded(|| {
        // Blocked, then closed: the next one has data that no further event announces.
        let (mut old, far) = pair()?;
        old.set_read_timeout(Some(Duration::from_millis(1)))?;
        assert_eq!(old.read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        let number = old.as_raw_fd();
        let (ours, mut theirs) = pair()?;
        theirs.write_all(b"a")?;
        // A duplicate elsewhere keeps the old file, and its events, alive.
        let kept = old.try_clone()?;
        thread::spawn(move || drop(old)).join().unwrap();
        let mut new = TcpStream::from(ours.as_fd().try_clone_to_owned()?);
        assert_eq!(new.as_raw_fd(), number, "the number was to be reused");
        new.read_exact(&mut [0])?;
        // Now it waits, and the old file's event comes under the same number.
        let reader = parked(move || new.read(&mut [0; 8]).unwrap());
        (&far).write_all(b"stale")?;
        yield_now();
        assert!(!reader.is_finished());
        theirs.write_all(b"fresh")?;
        assert_eq!(reader.join().unwrap(), 5);
        assert_eq!((&kept).read(&mut [0; 8])?, 5);
        Ok(())
    });
}

/// One stream, several greenlets: every byte is read once, nobody waits for ever.
#[test]
fn two_readers_and_a_writer_share_one_stream() {
    bounded(|| {
        let (near, far) = pair()?;
        let (near, far) = (Rc::new(near), Rc::new(far));
        let total = Rc::new(Cell::new(0));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (near, total) = (Rc::clone(&near), Rc::clone(&total));
                parked(move || {
                    let mut buf = [0; 7];
                    while let n @ 1.. = (&*near).read(&mut buf).unwrap() {
                        total.set(total.get() + n);
                    }
                })
            })
            .collect();
        let echo = Rc::clone(&far);
        let other_way = spawn(move || (&*echo).read_exact(&mut [0; 3000]));
        for _ in 0..1000 {
            (&*far).write_all(b"0123456789")?;
            (&*near).write_all(b"abc")?;
            if total.get().is_multiple_of(3) {
                yield_now();
            }
        }
        far.shutdown(Shutdown::Write)?;
        for reader in readers {
            reader.join().unwrap();
        }
        other_way.join().unwrap()?;
        assert_eq!(total.get(), 10_000);
        Ok(())
    });
}

/// A kill takes one waiter out; neither the stream nor the other waiter notices.
#[test]
fn a_killed_reader_leaves_the_stream_to_others() {
    bounded(|| {
        let (near, mut far) = pair()?;
        let near = Rc::new(near);
        let read = |near: &Rc<TcpStream>| {
            let near = Rc::clone(near);
            parked(move || (&*near).read(&mut [0; 8]))
        };
        let (first, second) = (read(&near), read(&near));
        first.kill();
        assert!(first.join().unwrap_err().is_killed());
        far.write_all(b"abc")?;
        assert_eq!(second.join().unwrap()?, 3);
        // The same when the kill comes after the event: what it was woken for is not lost.
        let (first, second) = (read(&near), read(&near));
        far.write_all(b"defg")?;
        first.kill();
        let first = first.join().map_or(0, |read| read.unwrap());
        if first == 0 {
            assert_eq!(second.join().unwrap()?, 4);
        }
        Ok(())
    });
}

/// An elapsed timeout has read nothing, and what comes later is still there.
#[test]
fn data_that_comes_after_a_read_timeout_is_read() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        near.set_read_timeout(Some(Duration::from_millis(5)))?;
        let begun = Instant::now();
        assert_eq!(near.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= Duration::from_millis(5));
        let error = near.peek(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        far.write_all(b"late")?;
        let mut buf = [0; 8];
        assert_eq!(near.peek(&mut buf)?, 4);
        assert_eq!(near.read(&mut buf)?, 4);
        near.set_read_timeout(None)?;
        let reader = parked(move || near.read(&mut [0; 8]));
        far.write_all(b"later")?;
        assert_eq!(reader.join().unwrap()?, 5);
        Ok(())
    });
}

/// std's rules for the values of timeouts, and for clones.
#[test]
fn timeouts_are_kept_and_zero_is_refused() {
    bounded(|| {
        let (near, _far) = pair()?;
        assert_eq!((near.read_timeout()?, near.write_timeout()?), (None, None));
        let (reading, writing) = (Duration::from_millis(7), Duration::from_secs(u64::MAX));
        near.set_read_timeout(Some(reading))?;
        near.set_write_timeout(Some(writing))?;
        assert_eq!(near.read_timeout()?, Some(reading));
        assert!(near.write_timeout()? > Some(Duration::from_secs(1 << 30)));
        let copy = near.try_clone()?;
        assert_eq!(copy.read_timeout()?, Some(reading));
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            let error = set(&near, Some(Duration::ZERO)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
        assert_eq!(near.read_timeout()?, Some(reading), "a refused value changes nothing");
        Ok(())
    });
}

/// A peer that does not read must stop the writer, not the loop; and for no longer than it said.
#[test]
fn a_write_waits_for_room_up_to_its_timeout() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        let stuffed = stuff(&near)?;
        near.set_write_timeout(Some(Duration::from_millis(5)))?;
        assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::TimedOut);
        near.set_write_timeout(None)?;
        let writer = parked(move || {
            let all = vec![8; 1 << 20];
            near.write_all(&all)
        });
        let mut all = Vec::new();
        far.read_to_end(&mut all)?;
        writer.join().unwrap()?;
        assert_eq!(all.len(), stuffed + (1 << 20));
        assert!(all[..stuffed].iter().all(|byte| *byte == 7));
        assert!(all[stuffed..].iter().all(|byte| *byte == 8));
        Ok(())
    });
}

/// `close` is how one greenlet ends what another waits for.
#[test]
fn close_wakes_whoever_waits_with_an_error() {
    bounded(|| {
        let (near, _far) = pair()?;
        let near = Rc::new(near);
        stuff(&near)?;
        let (read, write) = (Rc::clone(&near), Rc::clone(&near));
        let reader = parked(move || (&*read).read(&mut [0]).unwrap_err().kind());
        let writer = parked(move || (&*write).write(&[0]).unwrap_err().kind());
        near.close();
        assert_eq!(reader.join().unwrap(), ErrorKind::NotConnected);
        assert_eq!(writer.join().unwrap(), ErrorKind::NotConnected);
        assert_eq!((&*near).read(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!((&*near).write(&[0]).unwrap_err().kind(), ErrorKind::NotConnected);
        assert_eq!(near.peek(&mut [0]).unwrap_err().kind(), ErrorKind::NotConnected);

        let listener = Rc::new(TcpListener::bind("127.0.0.1:0")?);
        let accept = Rc::clone(&listener);
        let acceptor = parked(move || accept.accept().unwrap_err().kind());
        let accept = Rc::clone(&listener);
        let server = parked(move || accept.incoming().map(|s| s.unwrap_err().kind()).collect());
        listener.close();
        assert_eq!(acceptor.join().unwrap(), ErrorKind::NotConnected);
        // A loop over `incoming` ends, also one that ignores errors.
        let kinds: Vec<_> = server.join().unwrap();
        assert_eq!(kinds, [ErrorKind::NotConnected]);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::NotConnected);
        Ok(())
    });
}

/// The peer of a closed connection sees its end, before the handle is dropped.
#[test]
fn close_ends_the_connection_for_the_peer_and_for_clones() {
    bounded(|| {
        let (near, mut far) = pair()?;
        let mut copy = near.try_clone()?;
        let reader = parked(move || copy.read(&mut [0]));
        (&near).write_all(b"last words")?;
        near.close();
        let mut text = String::new();
        far.read_to_string(&mut text)?;
        assert_eq!(text, "last words");
        assert_eq!(reader.join().unwrap()?, 0);

        let listener = TcpListener::bind("127.0.0.1:0")?;
        let copy = listener.try_clone()?;
        let acceptor = parked(move || copy.incoming().map(|s| s.unwrap_err().kind()).collect());
        listener.close();
        let kinds: Vec<_> = acceptor.join().unwrap();
        assert_eq!(kinds, [ErrorKind::InvalidInput]);
        Ok(())
    });
}

/// Waiters on other threads' hubs are woken by the shutdown, and find the source closed.
#[test]
fn close_wakes_those_who_wait_on_other_threads() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    let (near, _far) = bounded(pair);
    let near = Arc::new(near);
    let (sender, receiver) = std::sync::mpsc::channel();
    let threads: Vec<_> = [true, false]
        .into_iter()
        .map(|accepts| {
            let (listener, near, sender) = (listener.clone(), near.clone(), sender.clone());
            thread::spawn(move || {
                bounded(|| {
                    let waiter = parked(move || match accepts {
                        true => listener.accept().unwrap_err().kind(),
                        false => (&*near).read(&mut [0]).unwrap_err().kind(),
                    });
                    sender.send(()).unwrap();
                    Ok(waiter.join().unwrap())
                })
            })
        })
        .collect();
    receiver.recv().unwrap();
    receiver.recv().unwrap();
    listener.close();
    near.close();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), ErrorKind::NotConnected);
    }
}

/// Without descriptors a listener that tried at once again would spin, and one that failed would
/// end most servers. It waits, says so once, and recovers by itself.
#[test]
fn accepting_survives_a_shortage_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    if !is_child() {
        let text = in_child("accepting_survives_a_shortage_of_descriptors");
        assert_eq!(text.matches("unhandled failure in the TcpListener on 127.0.0.1").count(), 1);
        return;
    }
    bounded(|| {
        let listener = Rc::new(TcpListener::bind("127.0.0.1:0")?);
        let address = listener.local_addr()?;
        let mut client = TcpStream::connect(address)?;
        let highest = fs::File::open("/dev/null")?.as_raw_fd() as u64;
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(highest), ..before })?;
        let accept = Rc::clone(&listener);
        let acceptor = parked(move || accept.accept());
        let turns = reactor().turns_count();
        // 10, 20, 40, 80 ms: five tries and their turns, not a hundred thousand.
        sleep(Duration::from_millis(200));
        assert!(!acceptor.is_finished());
        let turns = reactor().turns_count() - turns;
        assert!((1..50).contains(&turns), "{turns} turns");
        setrlimit(Resource::Nofile, before)?;
        // No further connection comes that could announce itself.
        let (mut stream, _) = acceptor.join().unwrap()?;
        stream.write_all(b"at last")?;
        client.read_exact(&mut [0; 7])?;

        // A close ends the pause; a kill as well.
        let _client = TcpStream::connect(address)?;
        setrlimit(Resource::Nofile, Rlimit { current: Some(highest), ..before })?;
        let accept = |listener: &Rc<TcpListener>| {
            let listener = Rc::clone(listener);
            parked(move || listener.accept().map(drop).map_err(|error| error.kind()))
        };
        let (first, second, third) = (accept(&listener), accept(&listener), accept(&listener));
        let accepted = {
            listener.set_nonblocking(true)?;
            listener.accept().map(drop)
        };
        assert_eq!(accepted.unwrap_err().raw_os_error(), Some(libc::EMFILE));
        listener.set_nonblocking(false)?;
        first.kill();
        assert!(first.join().unwrap_err().is_killed());
        // What the killed one had tried to take is left to the others.
        setrlimit(Resource::Nofile, before)?;
        assert_eq!(second.join().unwrap(), Ok(()));
        listener.close();
        assert_eq!(third.join().unwrap(), Err(ErrorKind::NotConnected));
        Ok(())
    });
}

/// A socket may go to another thread's reactor, also after this one has registered it.
#[test]
fn a_stream_moves_to_another_threads_reactor() {
    let (near, mut far) = bounded(|| {
        let (mut near, far) = pair()?;
        near.set_read_timeout(Some(Duration::from_millis(1)))?;
        assert!(near.read(&mut [0]).is_err(), "it is registered here now");
        near.set_read_timeout(None)?;
        Ok((near, far))
    });
    bounded(|| {
        let (back, received) = std::sync::mpsc::channel();
        let there = thread::spawn(move || {
            bounded(|| {
                let mut near = near;
                let reader = parked(move || {
                    let mut buf = [0; 4];
                    near.read_exact(&mut buf).unwrap();
                    (buf, near)
                });
                back.send(()).unwrap();
                Ok(reader.join().unwrap())
            })
        });
        received.recv().unwrap();
        far.write_all(b"over")?;
        let (buf, mut near) = there.join().unwrap();
        assert_eq!(&buf, b"over");
        // And back again, where its number is known already.
        let reader = parked(move || near.read(&mut [0; 8]));
        far.write_all(b"back")?;
        assert_eq!(reader.join().unwrap()?, 4);
        Ok(())
    });
}

/// A peer that is always ready never makes its reader wait; others must run all the same.
#[test]
fn an_always_ready_peer_starves_neither_timers_nor_greenlets() {
    bounded(|| {
        let (mut near, mut far) = half_pair()?;
        far.write_all(&[1; 4096])?;
        let peer = thread::spawn(move || while far.write_all(&[1; 65536]).is_ok() {});
        let due = Rc::new(Cell::new(false));
        let flag = Rc::clone(&due);
        reactor().call_later(Duration::from_millis(1), move || flag.set(true));
        let begun = Instant::now();
        while !due.get() && begun.elapsed() < PATIENCE {
            near.read_exact(&mut [0])?;
        }
        assert!(due.get(), "the timer was starved");
        // The same for an operation that fails at once, for ever, and is tried again for ever.
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        spawn(move || flag.set(true));
        near.close();
        while !ran.get() && begun.elapsed() < PATIENCE {
            assert!(near.read(&mut [0]).is_err());
        }
        assert!(ran.get(), "the greenlet was starved");
        drop(near);
        peer.join().unwrap();
        Ok(())
    });
}

/// The usual way to split a connection: one handle to read, one to write.
#[test]
fn the_halves_of_a_cloned_stream_work_at_once() {
    bounded(|| {
        let (near, far) = pair()?;
        let (mut reading, mut writing) = (near.try_clone()?, near);
        let (mut echo_in, mut echo_out) = (far.try_clone()?, far);
        let echo = spawn(move || -> io::Result<u64> {
            let copied = io::copy(&mut echo_in, &mut echo_out)?;
            echo_out.shutdown(Shutdown::Write)?;
            Ok(copied)
        });
        let size = 4 << 20;
        let writer = spawn(move || -> io::Result<()> {
            writing.write_all(&vec![3; size])?;
            writing.shutdown(Shutdown::Write)
        });
        let mut all = Vec::new();
        reading.read_to_end(&mut all)?;
        writer.join().unwrap()?;
        assert_eq!((all.len(), echo.join().unwrap()?), (size, size as u64));
        Ok(())
    });
}

/// What std's users get blocks, as they expect; what comes from them parks, as ours do.
#[test]
fn std_types_come_in_and_go_out() {
    let is_nonblocking = |fd: &dyn AsFd| {
        let flags = rustix::fs::fcntl_getfl(fd.as_fd()).unwrap();
        flags.contains(rustix::fs::OFlags::NONBLOCK)
    };
    bounded(|| {
        let listener = net::TcpListener::bind("127.0.0.1:0")?;
        let client = net::TcpStream::connect(listener.local_addr()?)?;
        let limit = Some(Duration::from_secs(7));
        client.set_read_timeout(limit)?;
        let sibling = client.try_clone()?;

        let listener = TcpListener::from(listener);
        let (server, _) = listener.accept()?;
        assert!(!is_nonblocking(&net::TcpListener::from(listener)));
        let mut ours = TcpStream::from(client);
        assert_eq!((ours.read_timeout()?, ours.write_timeout()?), (limit, None));
        // It parks: the writer below runs on the same thread.
        let reader = parked(move || {
            let mut buf = [0; 2];
            ours.read_exact(&mut buf).unwrap();
            ours
        });
        (&server).write_all(b"hi")?;
        let ours = reader.join().unwrap();
        assert!(is_nonblocking(&ours) && is_nonblocking(&sibling));
        ours.set_write_timeout(Some(Duration::from_secs(9)))?;
        let theirs = net::TcpStream::from(ours);
        assert!(!is_nonblocking(&theirs));
        assert_eq!(theirs.read_timeout()?, limit);
        assert_eq!(theirs.write_timeout()?, Some(Duration::from_secs(9)));

        // A duplicate that somebody makes blocking does not make ours block the thread.
        let mut ours = TcpStream::from(sibling);
        rustix::io::ioctl_fionbio(&ours, false)?;
        let begun = Instant::now();
        let reader = parked(move || ours.read(&mut [0; 8]));
        assert!(begun.elapsed() < Duration::from_secs(5), "the kernel waited, for its 7 seconds");
        (&server).write_all(b"again")?;
        assert_eq!(reader.join().unwrap()?, 5);
        Ok(())
    });
}

/// Raw descriptors go out and come back, and nothing that was known of them is believed.
#[test]
#[expect(unsafe_code, reason = "from_raw_fd")]
fn raw_descriptors_go_out_and_come_back() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        near.set_read_timeout(Some(Duration::from_millis(1)))?;
        assert!(near.read(&mut [0]).is_err(), "it is registered now");
        far.write_all(b"abc")?;
        let number = near.as_raw_fd();
        let raw = near.into_raw_fd();
        assert_eq!(raw, number);
        // SAFETY: it was just given up.
        let mut near = unsafe { TcpStream::from_raw_fd(raw) };
        let mut buf = [0; 3];
        near.read_exact(&mut buf)?;
        let fd = OwnedFd::from(near);
        let mut near = TcpStream::from(fd);
        assert_eq!(near.as_fd().as_raw_fd(), number);
        let reader = parked(move || near.read(&mut [0; 8]));
        far.write_all(b"de")?;
        assert_eq!(reader.join().unwrap()?, 2);
        let listener = TcpListener::from(OwnedFd::from(TcpListener::bind("127.0.0.1:0")?));
        let _client = TcpStream::connect(listener.local_addr()?)?;
        listener.accept()?;
        Ok(())
    });
}

/// A name server may take its time: the loop does not.
#[test]
fn names_resolve_while_other_greenlets_run() {
    bounded(|| {
        let listener = TcpListener::bind("localhost:0")?;
        let port = listener.local_addr()?.port();
        assert!(listener.local_addr()?.ip().is_loopback());
        let ran = Rc::new(Cell::new(false));
        let flag = Rc::clone(&ran);
        let resolver = spawn(move || {
            let other = spawn(move || flag.set(true));
            let mut addresses = ("localhost", port).to_socket_addrs().unwrap();
            assert!(ran.get(), "the other one was to run meanwhile");
            other.join().unwrap();
            addresses.all(|address| address.ip().is_loopback())
        });
        assert!(resolver.join().unwrap());
        let stream = TcpStream::connect(("localhost", port))?;
        assert!(stream.peer_addr()?.ip().is_loopback());
        let error = TcpStream::connect("no port here").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let error = TcpStream::connect("localhost:99999").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(TcpStream::connect((String::from("name\0with nul"), 1)).is_err());
        Ok(())
    });
}

/// A literal address must not even look at a thread: it works where nothing can park.
#[test]
fn literal_addresses_never_leave_the_thread() {
    let v4 = SocketAddr::from(([127, 0, 0, 1], 80));
    let all = [
        "127.0.0.1:80".to_socket_addrs().unwrap().next(),
        String::from("127.0.0.1:80").to_socket_addrs().unwrap().next(),
        ("127.0.0.1", 80).to_socket_addrs().unwrap().next(),
        (String::from("127.0.0.1"), 80).to_socket_addrs().unwrap().next(),
        (v4.ip(), 80).to_socket_addrs().unwrap().next(),
        (net::Ipv4Addr::LOCALHOST, 80).to_socket_addrs().unwrap().next(),
        v4.to_socket_addrs().unwrap().next(),
        (&&[v4][..]).to_socket_addrs().unwrap().next(),
    ];
    assert_eq!(all, [Some(v4); 8]);
    let v6 = SocketAddr::from((net::Ipv6Addr::LOCALHOST, 80));
    assert_eq!("[::1]:80".to_socket_addrs().unwrap().next(), Some(v6));
    assert_eq!(("::1", 80).to_socket_addrs().unwrap().next(), Some(v6));
    assert_eq!((net::Ipv6Addr::LOCALHOST, 80).to_socket_addrs().unwrap().next(), Some(v6));
}

/// Whoever waits for a name can be killed; the answer that comes later hurts nobody.
#[test]
fn a_killed_lookup_drops_its_answer() {
    bounded(|| {
        for _ in 0..20 {
            let lookup = spawn(|| TcpListener::bind("localhost:0"));
            yield_now();
            // It may have been quick: `dns/tests.rs` has the slow ones.
            lookup.kill();
            assert!(lookup.join().map_or_else(|error| error.is_killed(), |bound| bound.is_ok()));
        }
        let elapsed = timeout(Duration::ZERO, || TcpListener::bind("localhost:0").map(drop));
        assert!(elapsed.is_err());
        // The same greenlet waits for other things, and for names, as before.
        sleep(Duration::from_millis(1));
        TcpListener::bind("localhost:0")?;
        Ok(())
    });
}

/// IPv6 is the same code with another family.
#[test]
fn ipv6_works_where_the_machine_has_it() {
    if net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 loopback here");
        return;
    }
    bounded(|| {
        let listener = TcpListener::bind("[::1]:0")?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, peer) = listener.accept()?;
        assert_eq!(peer, near.local_addr()?);
        near.write_all(b"six")?;
        far.read_exact(&mut [0; 3])
    });
}

/// Code written for non-blocking sockets sees what it expects, and spins without stopping others.
#[test]
fn a_nonblocking_handle_says_would_block_and_gives_way() {
    bounded(|| {
        let (mut near, mut far) = pair()?;
        near.set_nonblocking(true)?;
        assert_eq!(near.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
        let writer = spawn(move || far.write_all(b"abc").map(|()| far));
        let n = loop {
            match near.read(&mut [0; 8]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => break read?,
            }
        };
        assert_eq!(n, 3);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let _client = TcpStream::connect(listener.local_addr()?)?;
        listener.accept()?;
        near.set_nonblocking(false)?;
        let _far = writer.join().unwrap()?;
        parked(move || near.read(&mut [0])).kill();
        Ok(())
    });
}

/// A cancellation point notices a kill also when it need not wait.
#[test]
fn reads_and_writes_that_need_not_wait_notice_a_kill() {
    bounded(|| {
        let (near, mut far) = pair()?;
        far.write_all(&[1; 100])?;
        let near = Rc::new(near);
        let done = Rc::new(RefCell::new(Vec::new()));
        for (name, reads) in [("read", true), ("write", false)] {
            let (near, done) = (Rc::clone(&near), Rc::clone(&done));
            let greenlet = spawn(move || {
                greenloop::shield(yield_now);
                let moved = if reads { (&*near).read(&mut [0]) } else { (&*near).write(&[0]) };
                done.borrow_mut().push((name, moved.is_ok()));
            });
            yield_now();
            greenlet.kill();
            assert!(greenlet.join().unwrap_err().is_killed());
        }
        assert!(done.borrow().is_empty(), "{:?}", done.borrow());
        assert_eq!(near.peek(&mut [0; 200])?, 100, "nothing was read");
        Ok(())
    });
}
