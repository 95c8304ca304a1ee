//! Servers: of real sockets, and of listeners that say what a test wants.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    rc::Rc,
    time::Duration,
};

use crate::{
    net::{bounded, parked},
    support::{Dropped, Trace, assert_ends, reports_of},
};
use greenloop::{
    Deferred, Greenlet,
    net::{
        Accept, Datagram, Datagrams, Server, ServerHandle, SocketAddr, TcpListener, TcpStream,
        UdpSocket, UnixDatagram, UnixListener, UnixStream,
    },
    reactor, run, sleep, spawn,
    sync::{Event, Receiver, channel},
    testing, wait_for_deferred, yield_now,
};
use std::sync::Arc;

const AGES: Duration = Duration::from_secs(3600);

/// A listener that accepts what it was given, and then nothing more; it notes its own end.
struct Script {
    steps: RefCell<VecDeque<io::Result<u32>>>,
    trace: Trace,
    _dropped: Dropped,
}

impl Script {
    fn new(trace: &Trace, steps: impl IntoIterator<Item = io::Result<u32>>) -> Script {
        let steps = RefCell::new(steps.into_iter().collect());
        Script { steps, trace: trace.clone(), _dropped: Dropped(trace.clone(), "closed") }
    }
}

impl Accept for Script {
    type Connection = u32;

    fn accept(&self) -> io::Result<u32> {
        let step = self.steps.borrow_mut().pop_front();
        let Some(step) = step else {
            sleep(AGES * 1000);
            unreachable!("a test is over by then");
        };
        if step.is_err() {
            self.trace.add(format!("{} ms", reactor().now().as_nanos() / 1_000_000));
        }
        step
    }
}

fn os(code: i32) -> io::Result<u32> {
    Err(io::Error::from_raw_os_error(code))
}

/// Serves on a greenlet of its own.
fn serving<L, T, F>(server: Server<L, F>) -> (Greenlet<io::Result<()>>, ServerHandle)
where
    L: Accept + 'static,
    T: 'static,
    F: Fn(L::Connection) -> T + 'static,
{
    let handle = server.handle();
    (spawn(move || server.serve()), handle)
}

/// gevent `test__server.py`, `TestDefaultSpawn`.
#[test]
fn each_connection_has_a_greenlet_of_its_own() {
    bounded(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (serving, handle) =
            serving(Server::new(listener, |(mut stream, _): (TcpStream, _)| {
                let mut buf = [0; 64];
                while let n @ 1.. = stream.read(&mut buf)? {
                    stream.write_all(&buf[..n])?;
                }
                io::Result::Ok(())
            }));
        let idle = TcpStream::connect(address)?;
        for _ in 0..3 {
            let mut stream = TcpStream::connect(address)?;
            stream.write_all(b"hello")?;
            let mut echo = [0; 5];
            stream.read_exact(&mut echo)?;
            assert_eq!(&echo, b"hello");
        }
        drop(idle);
        handle.stop(AGES);
        serving.join().unwrap()?;
        // The listener is closed.
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        Ok(())
    });
}

#[test]
fn local_sockets_and_datagrams_are_served_as_well() {
    bounded(|| {
        let path = std::env::temp_dir().join(format!("greenloop-server-{}", std::process::id()));
        let welcome = |(mut stream, _): (UnixStream, _)| stream.write_all(b"welcome");
        let (local, stop_local) = serving(Server::new(UnixListener::bind(&path)?, welcome));
        let mut text = String::new();
        UnixStream::connect(&path)?.read_to_string(&mut text)?;
        std::fs::remove_file(&path)?;
        assert_eq!(text, "welcome");

        let socket = UdpSocket::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        let echo = |datagram: Datagram<UdpSocket, SocketAddr>| datagram.reply(&datagram.data);
        let (udp, stop_udp) = serving(Server::new(Datagrams::new(socket), echo));
        let client = UdpSocket::bind("127.0.0.1:0")?;
        let mut buf = [0; 64];
        for text in ["first", "second one"] {
            client.send_to(text.as_bytes(), address)?;
            let n = client.recv(&mut buf)?;
            assert_eq!(&buf[..n], text.as_bytes());
        }

        let back = path.with_extension("back");
        let echo = |datagram: Datagram<UnixDatagram, _>| datagram.reply(&datagram.data);
        let (datagrams, stop_datagrams) =
            serving(Server::new(Datagrams::new(UnixDatagram::bind(&path)?), echo));
        let client = UnixDatagram::bind(&back)?;
        client.send_to(b"local", &path)?;
        assert_eq!(client.recv(&mut buf)?, 5);
        std::fs::remove_file(&path)?;
        std::fs::remove_file(&back)?;

        for (serving, handle) in [(local, stop_local), (udp, stop_udp), (datagrams, stop_datagrams)]
        {
            handle.stop(Duration::ZERO);
            serving.join().unwrap()?;
        }
        Ok(())
    });
}

/// gevent `TestPoolSpawn`: a full pool stops accepting, and begins again without a busy loop.
#[test]
fn a_full_server_accepts_nobody_until_there_is_room() {
    testing::run(|| {
        let (trace, now) = (Trace::default(), Rc::new(Cell::new(0)));
        let (handled, at_once) = (trace.clone(), Rc::clone(&now));
        let server = Server::new(Script::new(&trace, (0..5).map(Ok)), move |number| {
            at_once.set(at_once.get() + 1);
            assert!(at_once.get() <= 2);
            handled.add(number);
            sleep(Duration::from_secs(10));
            at_once.set(at_once.get() - 1);
        });
        let (serving, handle) = serving(server.max_connections(2));
        sleep(Duration::from_secs(1));
        assert_eq!(trace.taken(), ["0", "1"]);
        let turns = reactor().turns_count();
        sleep(Duration::from_secs(8));
        assert!(reactor().turns_count() - turns < 10, "no busy loop");
        sleep(Duration::from_secs(2));
        assert_eq!(trace.taken(), ["2", "3"]);
        handle.stop(Duration::ZERO);
        serving.join().unwrap().unwrap();
        assert_eq!(trace.taken(), ["closed"]);
    });
}

/// gevent's pauses: 10 ms, doubled up to 1 s, and from the beginning after a success.
#[test]
fn a_shortage_is_reported_once_and_waited_out() {
    let short = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    let mut steps: Vec<_> = short.iter().cycle().take(9).map(|&code| os(code)).collect();
    steps.extend([Ok(1), os(libc::EMFILE), Ok(2)]);
    let ((), reports) = reports_of(|| {
        testing::run(|| {
            let trace = Trace::default();
            let handled = trace.clone();
            let served = move |number: u32| handled.add(number);
            let (serving, handle) = serving(Server::new(Script::new(&trace, steps), served));
            sleep(AGES);
            // 0 + 10 + 20 + 40 + 80 + 160 + 320 + 640 + 1000, then the first is served after 1000.
            let times = [0, 10, 30, 70, 150, 310, 630, 1270, 2270, 3270];
            let mut expected: Vec<_> = times.iter().map(|ms| format!("{ms} ms")).collect();
            expected.insert(10, "1".to_owned());
            expected.push("2".to_owned());
            let mut seen = trace.taken();
            // Whoever was accepted runs when the acceptor waits next.
            seen[9..].sort();
            expected[9..].sort();
            assert_eq!(seen, expected);
            handle.stop(Duration::ZERO);
            serving.join().unwrap().unwrap();
        });
    });
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("a server") && reports[0].contains("again"), "{reports:?}");
}

/// A client that went away while it waited in the backlog concerns nobody else.
#[test]
fn errors_of_one_connection_are_skipped_at_once() {
    let skipped = [
        libc::ECONNABORTED,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::ENETUNREACH,
    ];
    testing::run(|| {
        let trace = Trace::default();
        let own = io::Error::new(ErrorKind::ConnectionAborted, "no handshake");
        let steps = skipped.into_iter().map(os).chain([Err(own), Ok(7)]);
        let handled = trace.clone();
        let server = Server::new(Script::new(&trace, steps), move |n: u32| handled.add(n));
        let (serving, handle) = serving(server);
        sleep(Duration::from_millis(1));
        let mut expected = vec!["0 ms"; 9];
        expected.push("7");
        assert_eq!(trace.taken(), expected);
        handle.stop(Duration::ZERO);
        serving.join().unwrap().unwrap();
    });
}

/// gevent: `EBADF`, `EINVAL`, `ENOTSOCK` are fatal.
#[test]
fn an_error_that_lasts_ends_it_when_the_handlers_have_ended() {
    testing::run(|| {
        for code in [libc::EBADF, libc::EINVAL, libc::ENOTSOCK, libc::EOPNOTSUPP] {
            let trace = Trace::default();
            let handled = trace.clone();
            let server = Server::new(Script::new(&trace, [Ok(3), Ok(600), os(code)]), move |s| {
                let _end = Dropped(handled.clone(), "end");
                sleep(Duration::from_secs(s.into()));
                handled.add("whole");
            });
            let begin = reactor().now();
            let error = server.serve().unwrap_err();
            assert_eq!(error.raw_os_error(), Some(code));
            // One ended in time, the other was killed after ten seconds.
            assert_eq!(trace.taken()[1..], ["closed", "whole", "end", "end"]);
            assert_eq!(reactor().now().duration_since(begin), Duration::from_secs(10));
        }
    });
}

#[test]
fn a_panic_and_an_error_of_a_handler_are_reported_and_end_nobody_else() {
    let (seen, reports) = reports_of(|| {
        testing::run(|| {
            let trace = Trace::default();
            let handled = trace.clone();
            let server = Server::new(Script::new(&trace, (0..4).map(Ok)), move |number| {
                assert_ne!(number, 1, "the handler's own");
                if number == 2 {
                    return Err(io::Error::other("went wrong"));
                }
                handled.add(number);
                Ok(())
            });
            let (serving, handle) = serving(server);
            sleep(Duration::from_secs(1));
            handle.stop(Duration::ZERO);
            serving.join().unwrap().unwrap();
            trace.taken()
        })
    });
    assert_eq!(seen, ["0", "3", "closed"]);
    assert_eq!(reports.len(), 2, "{reports:?}");
    assert!(reports[0].contains("the handler's own"), "{reports:?}");
    assert!(reports[1].contains("went wrong"), "{reports:?}");
}

/// gevent `BaseServer.stop(timeout)`.
#[test]
fn stop_closes_waits_and_then_kills() {
    testing::run(|| {
        let trace = Trace::default();
        let handled = trace.clone();
        let server = Server::new(Script::new(&trace, [Ok(3), Ok(600)]), move |seconds| {
            let _end = Dropped(handled.clone(), "end");
            sleep(Duration::from_secs(seconds.into()));
            handled.add("whole");
        });
        let (serving, handle) = serving(server);
        yield_now();
        sleep(Duration::from_secs(1));
        let begin = reactor().now();
        handle.stop(Duration::from_secs(5));
        serving.join().unwrap().unwrap();
        assert_eq!(trace.taken(), ["closed", "whole", "end", "end"]);
        assert_eq!(reactor().now().duration_since(begin), Duration::from_secs(5));
    });
}

#[test]
fn the_earlier_of_two_stops_counts_whoever_says_so() {
    testing::run(|| {
        let trace = Trace::default();
        let server = Server::new(Script::new(&trace, [Ok(1)]), |_| sleep(AGES));
        let (serving, handle) = serving(server);
        sleep(Duration::from_secs(1));
        let begin = reactor().now();
        handle.stop(Duration::from_secs(50));
        let (soon, later) = (handle.clone(), handle.clone());
        spawn(|| sleep(Duration::from_secs(3))).link(move |_| later.stop(AGES));
        let (resolver, deferred) = Deferred::new();
        reactor().call_later(Duration::from_secs(7), move || resolver.callback(()));
        wait_for_deferred(deferred.add_callback(move |()| {
            soon.stop(Duration::ZERO);
            Ok(())
        }))
        .unwrap();
        serving.join().unwrap().unwrap();
        assert_eq!(reactor().now().duration_since(begin), Duration::from_secs(7));
    });
}

#[test]
fn a_handler_may_stop_its_own_server_and_ends_in_time() {
    testing::run(|| {
        let (trace, slot) = (Trace::default(), Rc::new(RefCell::new(None::<ServerHandle>)));
        let (handled, own) = (trace.clone(), Rc::clone(&slot));
        let server = Server::new(Script::new(&trace, [Ok(1)]), move |_| {
            own.borrow().as_ref().unwrap().stop(AGES);
            sleep(Duration::from_secs(1));
            handled.add("whole");
        });
        *slot.borrow_mut() = Some(server.handle());
        server.serve().unwrap();
        assert_eq!(trace.taken(), ["closed", "whole"]);
    });
}

#[test]
fn a_stop_before_the_beginning_and_from_another_thread() {
    fn check<T: Send + Sync>() {}
    check::<ServerHandle>();
    let trace = Trace::default();
    run(|| {
        let server = Server::new(Script::new(&trace, []), |_| ());
        server.handle().stop(AGES);
        server.serve().unwrap();
    });
    assert_eq!(trace.taken(), ["closed"]);
    assert_ends(|| {
        run(|| {
            let server = Server::new(Script::new(&Trace::default(), [Ok(1)]), |_| sleep(AGES));
            let handle = server.handle();
            let thread = std::thread::spawn(move || {
                handle.stop(AGES);
                handle.stop(Duration::ZERO);
            });
            server.serve().unwrap();
            thread.join().unwrap();
        })
    });
}

/// gevent: `serve_forever` stops on a kill.
#[test]
fn a_killed_server_closes_and_kills_its_handlers() {
    testing::run(|| {
        let trace = Trace::default();
        let handled = trace.clone();
        let server = Server::new(Script::new(&trace, [Ok(1), Ok(2)]), move |_| {
            let _end = Dropped(handled.clone(), "end");
            sleep(AGES);
        });
        let serving = parked(move || server.serve());
        sleep(Duration::from_secs(1));
        serving.kill();
        assert!(serving.join().unwrap_err().is_killed());
        yield_now();
        let mut seen = trace.taken();
        seen.sort();
        assert_eq!(seen, ["closed", "end", "end"]);
    });
}

/// What was granted to the accepting greenlet before it was told to end is accepted nevertheless.
#[test]
fn a_killed_server_has_no_handler_for_what_it_accepts_last() {
    struct Handed(Receiver<u32>);
    impl Accept for Handed {
        type Connection = u32;

        fn accept(&self) -> io::Result<u32> {
            self.0.recv().map_err(|_| ErrorKind::NotConnected.into())
        }
    }
    testing::run(|| {
        let trace = Trace::default();
        let handled = trace.clone();
        let (sender, receiver) = channel(1);
        let server = Server::new(Handed(receiver), move |n: u32| handled.add(n));
        let serving = parked(move || server.serve());
        yield_now();
        serving.kill();
        sender.send(1).unwrap(); // It is the acceptor's before the server unwinds.
        assert!(serving.join().unwrap_err().is_killed());
        testing::settle();
        assert_eq!(trace.taken(), [""; 0]);
    });
}

/// A seat is given back also by a handler that is killed before it ran.
#[test]
fn handlers_that_never_ran_count_as_ended() {
    testing::run(|| {
        let trace = Trace::default();
        let gate = Arc::new(Event::new());
        let opener = Arc::clone(&gate);
        struct Gate(Script, Arc<Event>);
        impl Accept for Gate {
            type Connection = u32;
            fn accept(&self) -> io::Result<u32> {
                let accepted = self.0.accept();
                self.1.set();
                accepted
            }
        }
        let handled = trace.clone();
        let listener = Gate(Script::new(&trace, [Ok(1)]), gate);
        let server = Server::new(listener, move |_| handled.add("ran"));
        let handle = server.handle();
        // Runs after the acceptor has spawned the handler's greenlet, and before that one.
        let killer = spawn(move || {
            opener.wait();
            handle.stop(Duration::ZERO);
        });
        server.serve().unwrap();
        killer.join().unwrap();
        assert_eq!(trace.taken().last().unwrap(), "closed");
    });
}

#[test]
fn the_panic_of_a_listener_is_the_servers() {
    struct Broken;
    impl Accept for Broken {
        type Connection = ();
        fn accept(&self) -> io::Result<()> {
            panic!("a broken listener")
        }
    }
    let caught = std::panic::catch_unwind(|| run(|| Server::new(Broken, |()| ()).serve()));
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"a broken listener"));
}

#[test]
fn serving_outside_a_run_says_what_to_do() {
    let server = Server::new(Script::new(&Trace::default(), []), |_| ());
    let error = server.serve().unwrap_err();
    assert!(error.to_string().contains("inside greenloop::run"), "{error}");
}
