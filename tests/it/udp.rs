//! UDP on loopback.

use std::{
    io::{self, ErrorKind},
    net::{self, Ipv4Addr, Ipv6Addr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use crate::net::{bounded, parked};
use greenloop::{
    net::{SocketAddr, UdpSocket},
    run, spawn, testing, yield_now,
};

/// Two that know one another.
fn pair() -> io::Result<(UdpSocket, UdpSocket)> {
    let near = UdpSocket::bind("127.0.0.1:0")?;
    let far = UdpSocket::bind("127.0.0.1:0")?;
    near.connect(far.local_addr()?)?;
    far.connect(near.local_addr()?)?;
    Ok((near, far))
}

#[test]
fn datagrams_come_whole_one_by_one_with_their_sender() {
    bounded(|| {
        let server = UdpSocket::bind("127.0.0.1:0")?;
        let address = server.local_addr()?;
        let client = UdpSocket::bind("127.0.0.1:0")?;
        assert_eq!(client.send_to(b"first", address)?, 5);
        client.send_to(b"", address)?;
        client.send_to(b"cut off", ("localhost", address.port()))?;
        let mut buf = [0; 64];
        assert_eq!(server.peek_from(&mut buf)?, (5, client.local_addr()?));
        assert_eq!(server.peek(&mut buf)?, 5);
        assert_eq!(server.recv_from(&mut buf)?, (5, client.local_addr()?));
        assert_eq!(&buf[..5], b"first");
        assert_eq!(server.recv(&mut buf)?, 0, "an empty one is one");
        assert_eq!(server.recv(&mut buf[..3])?, 3);
        let none: &[SocketAddr] = &[];
        assert_eq!(client.send_to(b"", none).unwrap_err().kind(), ErrorKind::InvalidInput);
        Ok(())
    });
}

#[test]
fn a_receiver_parks_and_the_others_run() {
    bounded(|| {
        let (near, far) = pair()?;
        let receiver = parked(move || {
            let mut buf = [0; 64];
            let n = near.recv(&mut buf).unwrap();
            buf[..n].to_vec()
        });
        far.send(b"hello")?;
        assert_eq!(receiver.join().unwrap(), b"hello");
        Ok(())
    });
}

/// Nothing of a short datagram says that the queue is empty.
#[test]
fn a_short_datagram_hides_none_that_wait_behind_it() {
    bounded(|| {
        let (near, far) = pair()?;
        near.set_read_timeout(Some(Duration::from_millis(1)))?;
        assert!(near.recv(&mut [0]).is_err(), "its number is known to the poller now");
        near.set_read_timeout(None)?;
        for byte in 0..10 {
            far.send(&[byte])?;
        }
        let mut buf = [0; 64];
        for byte in 0..10 {
            assert_eq!(near.recv(&mut buf)?, 1);
            assert_eq!(buf[0], byte);
        }
        Ok(())
    });
}

#[test]
fn a_receive_timeout_elapses_and_is_kept_by_clones_and_conversions() {
    let limit = Some(Duration::from_secs(5));
    testing::run(|| {
        let (near, _far) = pair().unwrap();
        near.set_read_timeout(limit).unwrap();
        near.set_write_timeout(Some(Duration::from_secs(6))).unwrap();
        let begin = greenloop::reactor().now();
        assert_eq!(near.recv(&mut [0]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(Some(greenloop::reactor().now().duration_since(begin)), limit);
        assert_eq!(near.try_clone().unwrap().read_timeout().unwrap(), limit);
        let theirs = net::UdpSocket::from(near);
        assert_eq!(theirs.read_timeout().unwrap(), limit);
        let ours = UdpSocket::from(theirs);
        assert_eq!(ours.read_timeout().unwrap(), limit);
        assert_eq!(ours.write_timeout().unwrap(), Some(Duration::from_secs(6)));
    });
}

#[test]
fn a_socket_that_does_not_block_gives_way_and_says_so() {
    bounded(|| {
        let (near, far) = pair()?;
        near.set_nonblocking(true)?;
        let other = spawn(|| ());
        assert_eq!(near.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(other.is_finished(), "it ran meanwhile");
        near.set_nonblocking(false)?;
        far.send(b"x")?;
        assert_eq!(near.recv(&mut [0])?, 1);
        Ok(())
    });
}

#[test]
fn a_killed_receiver_leaves_the_datagram_to_the_next() {
    bounded(|| {
        let (near, far) = pair()?;
        let near = Rc::new(near);
        let waiting = Rc::clone(&near);
        let receiver = parked(move || waiting.recv(&mut [0]));
        receiver.kill();
        far.send(b"x")?;
        assert!(receiver.join().unwrap_err().is_killed());
        assert_eq!(near.recv(&mut [0])?, 1);
        Ok(())
    });
}

#[test]
fn close_wakes_a_receiver_here_and_on_another_thread() {
    bounded(|| {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0")?);
        let (there, waiting) = (Arc::clone(&near), Arc::clone(&near));
        let here = parked(move || waiting.recv(&mut [0]).map_err(|error| error.kind()));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            bounded(|| {
                let waiting = parked(move || there.recv(&mut [0]).map_err(|error| error.kind()));
                tell.send(()).unwrap();
                Ok(waiting.join().unwrap())
            })
        });
        told.recv().unwrap();
        near.close();
        assert_eq!(here.join().unwrap(), Err(ErrorKind::NotConnected));
        assert_eq!(thread.join().unwrap(), Err(ErrorKind::NotConnected));
        assert_eq!(near.send(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
        Ok(())
    });
}

/// Linux tells a connected socket that nobody was there.
#[test]
fn sending_to_nobody_is_told_by_the_next_call() {
    bounded(|| {
        let (near, far) = pair()?;
        drop(far);
        near.send(b"x")?;
        assert_eq!(near.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(near.take_error()?.is_none());
        Ok(())
    });
}

#[test]
fn options_reach_the_socket_and_std_sees_them() {
    let ours = UdpSocket::bind("127.0.0.1:0").expect("binding needs no reactor");
    ours.set_broadcast(true).unwrap();
    ours.set_ttl(17).unwrap();
    ours.set_multicast_loop_v4(false).unwrap();
    ours.set_multicast_ttl_v4(3).unwrap();
    assert_eq!((ours.broadcast().unwrap(), ours.ttl().unwrap()), (true, 17));
    assert_eq!((ours.multicast_loop_v4().unwrap(), ours.multicast_ttl_v4().unwrap()), (false, 3));
    let group = Ipv4Addr::new(224, 0, 0, 123);
    // A machine without a route for multicast refuses both.
    if ours.join_multicast_v4(&group, &Ipv4Addr::LOCALHOST).is_ok() {
        ours.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).unwrap();
    }
    assert!(ours.leave_multicast_v4(&group, &Ipv4Addr::LOCALHOST).is_err(), "it is no member");
    assert!(ours.join_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err(), "no group");
    assert!(ours.leave_multicast_v6(&Ipv6Addr::LOCALHOST, 0).is_err());
    assert!(format!("{ours:?}").starts_with("UdpSocket { addr: 127.0.0.1:"), "{ours:?}");
    let theirs = net::UdpSocket::from(ours);
    assert!(theirs.broadcast().unwrap() && theirs.ttl().unwrap() == 17);
    assert!(!theirs.multicast_loop_v4().unwrap() && theirs.multicast_ttl_v4().unwrap() == 3);
    if let Ok(six) = UdpSocket::bind("[::1]:0") {
        six.set_multicast_loop_v6(false).unwrap();
        assert!(!six.multicast_loop_v6().unwrap());
    }
}

#[test]
fn what_could_block_says_outside_a_run_what_to_do() {
    fn check<T: Send + Sync>() {}
    check::<UdpSocket>();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.connect(address).expect("a literal address needs no reactor");
    assert_eq!(socket.peer_addr().unwrap(), address);
    let errors = [
        socket.recv(&mut [0]).unwrap_err(),
        socket.recv_from(&mut [0]).map(drop).unwrap_err(),
        socket.send(&[0]).unwrap_err(),
        socket.send_to(&[0], address).unwrap_err(),
        socket.connect("localhost:1").unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("inside greenloop::run"), "{error}");
    }
    run(yield_now);
}
