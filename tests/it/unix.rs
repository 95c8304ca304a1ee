//! Local sockets: connections, listeners, datagrams.

use std::{
    fs,
    future::poll_fn,
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{self, SocketAddr},
        },
    },
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::net::{bounded, parked};
use greenloop::{
    net::{Incoming, Shutdown, UnixDatagram, UnixListener, UnixStream},
    spawn, testing, timeout, wait_for_future,
};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketType, bind, connect, sendmsg, socket,
};

/// What `sun_path` has room for.
const PATH_BYTES_MAX: usize = 108;

/// A name for a socket in a folder of its own; removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("greenloop-{}-{number}", std::process::id());
        Place(std::env::temp_dir().join(name))
    }

    /// One whose path leaves no byte of a `sockaddr_un` free: the kernel takes it, std does not.
    fn longest() -> Place {
        let mut place = Place::new();
        let left = PATH_BYTES_MAX - place.0.as_os_str().as_bytes().len();
        place.0.as_mut_os_string().push("x".repeat(left));
        place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn an_echo_server_echoes_and_knows_the_addresses() {
    bounded(|| {
        let place = Place::new();
        let listener = UnixListener::bind(&place.0)?;
        assert_eq!(listener.local_addr()?.as_pathname(), Some(&*place.0));
        let server = spawn(move || -> io::Result<SocketAddr> {
            let (mut stream, peer) = listener.accept()?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            stream.write_all(text.to_uppercase().as_bytes())?;
            Ok(peer)
        });
        let mut stream = UnixStream::connect(&place.0)?;
        assert_eq!(stream.peer_addr()?.as_pathname(), Some(&*place.0));
        assert!(stream.local_addr()?.is_unnamed(), "{:?}", stream.local_addr());
        stream.write_all(b"hello")?;
        stream.shutdown(Shutdown::Write)?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        assert_eq!(text, "HELLO");
        assert!(server.join().unwrap()?.is_unnamed());
        Ok(())
    });
}

#[test]
fn abstract_names_and_paths_that_are_wrong() {
    bounded(|| {
        let name = format!("greenloop-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name)?;
        let listener = UnixListener::bind_addr(&address)?;
        assert_eq!(listener.local_addr()?.as_abstract_name(), Some(name.as_bytes()));
        let stream = UnixStream::connect_addr(&address)?;
        assert_eq!(stream.peer_addr()?.as_abstract_name(), Some(name.as_bytes()));
        assert!(format!("{stream:?}").contains(&name), "{stream:?}");
        let kind = |error: io::Error| error.kind();
        let long = "x".repeat(200);
        assert_eq!(UnixListener::bind(&long).map_err(kind).unwrap_err(), ErrorKind::InvalidInput);
        let nowhere = Place::new();
        assert_eq!(UnixStream::connect(&nowhere.0).map_err(kind).unwrap_err(), ErrorKind::NotFound);
        let _file = UnixListener::bind(&nowhere.0)?;
        assert_eq!(UnixListener::bind(&nowhere.0).map_err(kind).unwrap_err(), ErrorKind::AddrInUse);
        Ok(())
    });
}

/// Linux says `EAGAIN`, and no event tells when there is room: std's blocking connect waits.
#[test]
fn connect_waits_for_room_in_the_backlog() {
    bounded(|| {
        let place = Place::new();
        let listener = UnixListener::bind(&place.0)?;
        let theirs = net::UnixListener::from(listener);
        let mut waiting = Vec::new();
        // 128 and one more fit.
        for _ in 0..129 {
            waiting.push(UnixStream::connect(&place.0)?);
        }
        let path = place.0.clone();
        let late = parked(move || UnixStream::connect(path).map(drop));
        drop(theirs.accept()?);
        late.join().unwrap()?;
        // A kill and a time limit end the wait.
        let path = place.0.clone();
        let killed = parked(move || UnixStream::connect(path).map(drop));
        killed.kill();
        assert!(killed.join().unwrap_err().is_killed());
        assert!(timeout(Duration::from_millis(3), || UnixStream::connect(&place.0)).is_err());
        Ok(())
    });
}

#[test]
fn a_pair_talks_both_ways_and_peeks() {
    bounded(|| {
        let (mut near, far) = UnixStream::pair()?;
        let reader = parked(move || {
            let (mut first, mut all) = ([0; 2], [0; 4]);
            let peeked = far.peek(&mut first).unwrap();
            (&far).read_exact(&mut all).unwrap();
            (&far).write_all(b"pong").unwrap();
            (peeked, first, all)
        });
        near.write_all(b"ping")?;
        assert_eq!(reader.join().unwrap(), (2, *b"pi", *b"ping"));
        near.read_exact(&mut [0; 4])?;
        assert_eq!(near.read(&mut [0])?, 0, "the end");
        assert_eq!(near.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        Ok(())
    });
}

#[test]
fn a_writer_parks_when_the_buffers_are_full() {
    bounded(|| {
        let (mut near, mut far) = UnixStream::pair()?;
        let writer = parked(move || near.write_all(&vec![7; 4 << 20]));
        let mut data = Vec::new();
        far.read_to_end(&mut data)?;
        assert_eq!(data.len(), 4 << 20);
        writer.join().unwrap()?;
        Ok(())
    });
}

#[test]
fn close_wakes_an_accept_here_and_ends_incoming() {
    bounded(|| {
        let place = Place::new();
        let listener = Rc::new(UnixListener::bind(&place.0)?);
        let clone = listener.try_clone()?;
        assert_eq!(clone.local_addr()?.as_pathname(), Some(&*place.0));
        let waiting = Rc::clone(&listener);
        let acceptor = parked(move || {
            let incoming: Incoming<'_, UnixListener> = waiting.incoming();
            incoming.map(|stream| stream.map(drop).map_err(|e| e.kind())).collect::<Vec<_>>()
        });
        drop(UnixStream::connect(&place.0)?);
        // It runs when the poller has told of the connection.
        greenloop::sleep(Duration::from_millis(1));
        listener.close();
        assert_eq!(acceptor.join().unwrap(), [Ok(()), Err(ErrorKind::NotConnected)]);
        let refused = UnixStream::connect(&place.0).unwrap_err().kind();
        assert_eq!(refused, ErrorKind::ConnectionRefused, "{clone:?} is shut down with it");
        Ok(())
    });
}

#[test]
fn std_types_come_in_and_go_out() {
    bounded(|| {
        let (theirs, mut other) = net::UnixStream::pair()?;
        theirs.set_read_timeout(Some(Duration::from_secs(7)))?;
        let mut ours = UnixStream::from(theirs);
        assert_eq!(ours.read_timeout()?, Some(Duration::from_secs(7)));
        let reader = parked(move || {
            ours.read_exact(&mut [0; 3]).unwrap();
            ours
        });
        other.write_all(b"abc")?;
        let theirs = net::UnixStream::from(reader.join().unwrap());
        assert_eq!(theirs.read_timeout()?, Some(Duration::from_secs(7)));
        let flags = rustix::fs::fcntl_getfl(&theirs)?;
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK));
        let (theirs, _other) = net::UnixDatagram::pair()?;
        let ours = UnixDatagram::from(theirs);
        assert!(rustix::fs::fcntl_getfl(&ours)?.contains(rustix::fs::OFlags::NONBLOCK));
        drop(net::UnixDatagram::from(ours));
        Ok(())
    });
}

/// A socket that is bound to `here` and connected to `there`.
fn stranger(kind: SocketType, here: &Path, there: &Path) -> io::Result<OwnedFd> {
    let stranger = socket(AddressFamily::UNIX, kind, None)?;
    bind(&stranger, &SocketAddrUnix::new(here)?)?;
    connect(&stranger, &SocketAddrUnix::new(there)?)?;
    Ok(stranger)
}

/// The kernel tells such a path with one byte more than an address has. rustix panicked, so anybody
/// who could connect ended a server.
#[test]
fn a_peer_whose_path_leaves_no_byte_free_is_a_peer_without_a_name() {
    bounded(|| {
        let (place, peer) = (Place::new(), Place::longest());
        let listener = UnixListener::bind(&place.0)?;
        let stranger_fd = stranger(SocketType::STREAM, &peer.0, &place.0)?;
        let (stream, from) = listener.accept()?;
        assert!(from.is_unnamed(), "{from:?}");
        assert!(stream.peer_addr()?.is_unnamed());
        assert!(!format!("{stream:?}").is_empty());
        drop(stranger_fd);

        let (place, peer) = (Place::new(), Place::longest());
        let server = UnixDatagram::bind(&place.0)?;
        let stranger_fd = stranger(SocketType::DGRAM, &peer.0, &place.0)?;
        rustix::io::write(&stranger_fd, b"whole")?;
        let mut buf = [0; 64];
        let (n, from) = server.recv_from(&mut buf)?;
        assert_eq!(&buf[..n], b"whole");
        assert!(from.is_unnamed(), "{from:?}");
        Ok(())
    });
}

/// A read stops behind a message with descriptors, whatever is behind that: not for want of data.
#[test]
fn what_lies_behind_a_message_with_descriptors_is_not_waited_for() {
    type Reads = fn(&mut UnixStream, &mut [u8]) -> io::Result<usize>;
    let styles: [Reads; 3] = [
        |near, buf| near.read(buf),
        |near, buf| near.read_vectored(&mut [IoSliceMut::new(buf)]),
        |near, buf| wait_for_future(poll_fn(|cx| near.poll_read(cx, buf))),
    ];
    bounded(|| {
        for read in styles {
            let (mut near, mut far) = UnixStream::pair()?;
            let mut buf = [0; 64];
            let waiting = parked(move || read(&mut near, &mut buf).map(|n| (near, n)));
            far.write_all(b"wakes")?;
            let (mut near, n) = waiting.join().unwrap()?;
            assert_eq!(n, 5);

            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [far.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            sendmsg(&far, &[IoSlice::new(b"with one")], &mut control, SendFlags::empty())?;
            far.write_all(b"behind")?;
            assert_eq!(read(&mut near, &mut buf)?, 8);
            let behind = timeout(Duration::from_secs(2), || read(&mut near, &mut buf));
            assert_eq!(behind.expect("it is there already")?, 6);
        }
        Ok(())
    });
}

#[test]
fn datagrams_know_their_senders_by_path() {
    bounded(|| {
        let (here, there) = (Place::new(), Place::new());
        let server = UnixDatagram::bind(&here.0)?;
        let client = UnixDatagram::bind(&there.0)?;
        let receiver = parked(move || -> io::Result<SocketAddr> {
            let mut buf = [0; 64];
            let (n, from) = server.recv_from(&mut buf)?;
            server.send_to_addr(&buf[..n], &from)?;
            server.recv_from(&mut buf).map(|(_, from)| from)
        });
        assert_eq!(client.send_to(b"hello", &here.0)?, 5);
        let mut buf = [0; 64];
        assert_eq!(client.peek(&mut buf)?, 5);
        assert_eq!(client.recv(&mut buf)?, 5);
        UnixDatagram::unbound()?.send_to(b"from nobody", &here.0)?;
        assert!(receiver.join().unwrap()?.is_unnamed());
        client.connect(&here.0).unwrap_err();
        Ok(())
    });
}

/// The receiver's queue is full: no event tells the sender when it no longer is.
#[test]
fn a_sender_of_datagrams_waits_for_room_connected_or_not() {
    bounded(|| {
        let place = Place::new();
        let server = UnixDatagram::bind(&place.0)?;
        let client = Rc::new(UnixDatagram::unbound()?);
        client.set_nonblocking(true)?;
        let mut sent = 0;
        let error = loop {
            match client.send_to(b"x", &place.0) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        client.set_nonblocking(false)?;
        client.set_write_timeout(Some(Duration::from_millis(3)))?;
        let late = client.send_to(b"x", &place.0).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        client.set_write_timeout(None)?;
        let (sender, path) = (Rc::clone(&client), place.0.clone());
        let sender = parked(move || sender.send_to(b"late", path));
        for _ in 0..sent {
            assert_eq!(server.recv(&mut [0; 8])?, 1);
        }
        assert_eq!(sender.join().unwrap()?, 4);
        assert_eq!(server.recv(&mut [0; 8])?, 4);
        // A pair knows by an event when there is room.
        let (near, far) = UnixDatagram::pair()?;
        let sender = parked(move || {
            for _ in 0..1000 {
                near.send(b"x").unwrap();
            }
        });
        for _ in 0..1000 {
            far.recv(&mut [0])?;
        }
        sender.join().unwrap();
        Ok(())
    });
}

#[test]
fn timeouts_of_local_sockets_are_exact() {
    let limit = Duration::from_secs(5);
    testing::run(|| {
        let (stream, _far) = UnixStream::pair().unwrap();
        let (datagram, _other) = UnixDatagram::pair().unwrap();
        stream.set_read_timeout(Some(limit)).unwrap();
        datagram.set_read_timeout(Some(limit)).unwrap();
        let begin = greenloop::reactor().now();
        assert_eq!((&stream).read(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(datagram.recv(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(greenloop::reactor().now().duration_since(begin), 2 * limit);
    });
}

#[test]
fn what_could_block_says_outside_a_run_what_to_do() {
    fn check<T: Send + Sync>() {}
    check::<(UnixStream, UnixListener, UnixDatagram, Incoming<'_, UnixListener>)>();
    let place = Place::new();
    let listener = UnixListener::bind(&place.0).expect("binding needs no reactor");
    let (mut stream, _far) = UnixStream::pair().unwrap();
    let (datagram, _other) = UnixDatagram::pair().unwrap();
    let errors = [
        listener.accept().map(drop).unwrap_err(),
        UnixStream::connect(&place.0).map(drop).unwrap_err(),
        stream.read(&mut [0]).map(drop).unwrap_err(),
        datagram.send(&[0]).map(drop).unwrap_err(),
        datagram.send_to(&[0], &place.0).map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("inside greenloop::run"), "{error}");
    }
}

/// The traits of other crates are the same code for both kinds of streams.
#[cfg(feature = "futures-io")]
#[test]
fn futures_read_and_write_a_local_stream() {
    use futures_util::{AsyncReadExt, AsyncWriteExt};
    bounded(|| {
        let (mut near, mut far) = UnixStream::pair()?;
        let reader = parked(move || {
            greenloop::wait_for_future(async {
                let mut text = String::new();
                AsyncReadExt::read_to_string(&mut near, &mut text).await.map(|_| text)
            })
        });
        greenloop::wait_for_future(async {
            AsyncWriteExt::write_all(&mut far, b"polled").await?;
            AsyncWriteExt::close(&mut far).await
        })?;
        assert_eq!(reader.join().unwrap()?, "polled");
        Ok(())
    });
}
