//! Futures that wait for sockets, and wakers of others: what is polled, kept, called and dropped.

use std::{
    cell::Cell,
    future::{Future, IntoFuture, poll_fn},
    io::{self, Read, Write},
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, future::join_all, stream::FuturesUnordered, stream::StreamExt};
use greenloop::{
    RunError,
    net::{TcpListener, TcpStream},
    reactor, run, sleep, spawn, try_run, wait_for_future, yield_now,
};

use crate::support::{Trace, assert_ends, reports_of};

const SHORT: Duration = Duration::from_millis(2);

/// Two ends of one connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = spawn(move || listener.accept().unwrap().0);
    (TcpStream::connect(address).unwrap(), accepted.join().unwrap())
}

/// Reads once.
async fn read(stream: &mut TcpStream, buf: &mut [u8]) -> io::Result<usize> {
    poll_fn(|context| stream.poll_read(context, buf)).await
}

/// Writes everything.
async fn write_all(stream: &mut TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        let n = poll_fn(|context| stream.poll_write(context, data)).await?;
        data = &data[n..];
    }
    Ok(())
}

/// Reads to the end.
async fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let (mut all, mut buf) = (Vec::new(), [0; 5000]);
    loop {
        match read(stream, &mut buf).await? {
            0 => return Ok(all),
            n => all.extend_from_slice(&buf[..n]),
        }
    }
}

/// A waker that does what it is told, and notes when it is dropped.
struct Does<F: Fn() + Send + Sync + 'static> {
    called: F,
    dropped: Arc<AtomicUsize>,
}

impl<F: Fn() + Send + Sync> Wake for Does<F> {
    fn wake(self: Arc<Self>) {
        (self.called)();
    }
}

impl<F: Fn() + Send + Sync> Drop for Does<F> {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// A waker that calls `called`, and the number of its drops.
fn waker(called: impl Fn() + Send + Sync + 'static) -> (Waker, Arc<AtomicUsize>) {
    let dropped = Arc::new(AtomicUsize::new(0));
    (Waker::from(Arc::new(Does { called, dropped: Arc::clone(&dropped) })), dropped)
}

/// Polls a read that has to wait.
fn begin_to_wait(stream: &mut TcpStream, waker: &Waker) {
    let polled = stream.poll_read(&mut Context::from_waker(waker), &mut [0; 8]);
    assert!(polled.is_pending(), "{polled:?}");
}

// ---- reading and writing ----------------------------------------------------------------------

#[test]
fn a_future_waits_for_its_socket_and_others_run_meanwhile() {
    run(|| {
        let (mut client, mut server) = pair();
        let trace = Trace::default();
        let noted = trace.clone();
        let reader = spawn(move || {
            let mut buf = [0; 8];
            let n = wait_for_future(read(&mut server, &mut buf)).unwrap();
            noted.add(String::from_utf8_lossy(&buf[..n]));
        });
        yield_now();
        trace.add("others run");
        client.write_all(b"bytes").unwrap();
        reader.join().unwrap();
        assert_eq!(trace.taken(), ["others run", "bytes"]);
    });
}

/// Bytes stay bytes under short reads, full buffers and edges, in both directions at once, and also
/// when greenlets read what futures write.
#[test]
fn large_transfers_are_whole_in_both_styles() {
    let data: Vec<u8> =
        (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let data = &data;
    run(|| {
        for (writes_polled, reads_polled) in [(true, true), (true, false), (false, true)] {
            let (mut out, mut back) = pair();
            greenloop::scope(|s| {
                s.spawn(move || {
                    match writes_polled {
                        true => wait_for_future(write_all(&mut out, data)).unwrap(),
                        false => out.write_all(data).unwrap(),
                    }
                    out.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let received = match reads_polled {
                    true => wait_for_future(read_all(&mut back)).unwrap(),
                    false => {
                        let mut all = Vec::new();
                        back.read_to_end(&mut all).unwrap();
                        all
                    }
                };
                assert!(received == *data, "{writes_polled} {reads_polled}");
            });
        }
    });
}

/// `FuturesUnordered` polls with wakers of its own.
#[test]
fn many_sockets_wait_in_one_future_by_foreign_wakers() {
    run(|| {
        let (mut clients, servers): (Vec<_>, Vec<_>) = (0..50).map(|_| pair()).unzip();
        let reads: FuturesUnordered<_> = servers
            .into_iter()
            .map(|mut server| async move {
                let mut buf = [0; 8];
                let n = read(&mut server, &mut buf).await.unwrap();
                buf[..n].to_vec()
            })
            .collect();
        spawn(move || {
            for client in clients.iter_mut().rev() {
                client.write_all(b"x").unwrap();
                yield_now();
            }
        });
        let all: Vec<_> = wait_for_future(reads.collect());
        assert_eq!(all.concat(), [b'x'; 50]);
    });
}

#[test]
fn the_newest_waker_counts() {
    run(|| {
        let (mut client, mut server) = pair();
        let calls: [Arc<AtomicUsize>; 2] = Default::default();
        for count in calls.clone() {
            let (waker, _) = waker(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            begin_to_wait(&mut server, &waker);
            begin_to_wait(&mut server, &waker);
        }
        client.write_all(b"x").unwrap();
        sleep(SHORT);
        assert_eq!(calls.map(|count| count.load(Ordering::SeqCst)), [0, 1]);
    });
}

#[test]
fn closing_ends_a_future_that_waits() {
    run(|| {
        let (_client, server) = pair();
        let mut handle = server.try_clone().unwrap();
        let closer = server.try_clone().unwrap();
        drop(server);
        let reader = spawn(move || wait_for_future(read(&mut handle, &mut [0; 8])));
        yield_now();
        closer.close();
        assert_eq!(reader.join().unwrap().unwrap(), 0, "another handle sees the end");
        let (_client, mut server) = pair();
        let called = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&called);
        let (waker, _) = waker(move || {
            count.fetch_add(1, Ordering::SeqCst);
        });
        begin_to_wait(&mut server, &waker);
        server.close();
        yield_now();
        assert_eq!(called.load(Ordering::SeqCst), 1);
        let failed = wait_for_future(read(&mut server, &mut [0; 8])).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::NotConnected);
    });
}

#[test]
fn a_socket_polled_outside_run_says_so() {
    let (mut client, _server) = run(pair);
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(error)) = client.poll_read(&mut context, &mut [0; 8]) else { panic!() };
    assert!(error.to_string().contains("greenloop::run"), "{error}");
}

// ---- fairness ---------------------------------------------------------------------------------

/// A future whose socket is always ready, and one that wakes itself for ever.
#[test]
fn a_future_that_never_waits_stops_neither_greenlets_nor_timers() {
    assert_ends(|| run(never_waits));
}

fn never_waits() {
    let (mut client, mut server) = pair();
    let done = Rc::new(Cell::new(false));
    let (seen, also) = (Rc::clone(&done), Rc::clone(&done));
    let _busy = spawn(move || {
        wait_for_future(poll_fn(|context| {
            // A ping-pong with itself: something is there at each try.
            loop {
                match client.poll_write(context, b"x") {
                    Poll::Pending => return Poll::Pending,
                    written => drop(written?),
                }
                match server.poll_read(context, &mut [0; 1]) {
                    Poll::Pending if also.get() => return Poll::Ready(io::Result::Ok(())),
                    Poll::Pending => return Poll::Pending,
                    read => drop(read?),
                }
            }
        }))
    });
    let _storm = spawn(|| {
        wait_for_future(poll_fn(|context| -> Poll<()> {
            context.waker().wake_by_ref();
            Poll::Pending
        }));
    });
    reactor().call_later(SHORT, move || done.set(true));
    let begun = Instant::now();
    while !seen.get() {
        yield_now();
        assert!(begun.elapsed() < Duration::from_secs(20), "the timer never fires");
    }
}

#[test]
fn a_storm_of_wakes_from_another_thread_stops_nobody() {
    assert_ends(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let (lend, lent) = mpsc::channel::<Waker>();
        let storm = thread::spawn(move || {
            let waker = lent.recv().unwrap();
            while !ended.load(Ordering::Relaxed) {
                waker.wake_by_ref();
            }
        });
        run(|| {
            let _waits = spawn(move || {
                wait_for_future(poll_fn(|context| -> Poll<()> {
                    let _ = lend.send(context.waker().clone());
                    Poll::Pending
                }));
            });
            let fired = Rc::new(Cell::new(0));
            let count = Rc::clone(&fired);
            spawn(move || {
                for _ in 0..20 {
                    sleep(Duration::from_micros(200));
                    count.set(count.get() + 1);
                }
            })
            .join()
            .unwrap();
            assert_eq!(fired.get(), 20);
        });
        stop.store(true, Ordering::Relaxed);
        storm.join().unwrap();
    });
}

/// What a waker does can end the wait of another one at once: it is called in the next turn.
#[test]
fn wakers_that_have_one_another_called_stop_nobody() {
    /// A waker whose every call begins a wait and ends it, until there were a thousand.
    struct Ring {
        calls: AtomicUsize,
        main: Waker,
    }
    impl Wake for Ring {
        fn wake(self: Arc<Self>) {
            if self.calls.fetch_add(1, Ordering::SeqCst) == 1000 {
                return self.main.wake_by_ref();
            }
            let (_client, mut next) = pair_outside();
            begin_to_wait(&mut next, &Waker::from(self));
            next.close();
        }
    }
    assert_ends(|| {
        run(|| {
            let mut ring = None;
            let began = Rc::new(Cell::new(0));
            wait_for_future(poll_fn(|context| match &ring {
                None => {
                    let (calls, main) = (AtomicUsize::new(0), context.waker().clone());
                    let own = Arc::new(Ring { calls, main });
                    let (seen, out) = (Arc::clone(&own), Rc::clone(&began));
                    Waker::from(Arc::clone(&own)).wake();
                    spawn(move || out.set(seen.calls.load(Ordering::SeqCst)));
                    ring = Some(own);
                    Poll::Pending
                }
                Some(ring) if ring.calls.load(Ordering::SeqCst) > 1000 => Poll::Ready(()),
                Some(_) => Poll::Pending,
            }));
            assert!((1..10).contains(&began.get()), "others ran after {} calls", began.get());
        });
    });
}

// ---- what user code may do in a waker, and in a poll ------------------------------------------

/// REACTOR-1: it runs on the hub's own stack, after the turn, where nothing can park.
#[test]
fn a_foreign_waker_that_blocks_is_refused_at_once() {
    run(|| {
        let (mut client, mut server) = pair();
        let (say, said) = mpsc::channel();
        let (waker, _) = waker(move || {
            let (_resolver, unfired) = greenloop::Deferred::<()>::new();
            say.send(greenloop::wait_for_deferred(unfired).unwrap_err().to_string()).unwrap();
        });
        begin_to_wait(&mut server, &waker);
        client.write_all(b"x").unwrap();
        sleep(SHORT);
        assert!(said.try_recv().unwrap().contains("hub's own stack"));
    });
}

#[test]
fn a_foreign_waker_that_panics_is_reported_and_the_others_are_called() {
    let (calls, reports) = reports_of(|| {
        run(|| {
            let calls = Arc::new(AtomicUsize::new(0));
            let mut pairs: Vec<_> = (0..3).map(|_| pair()).collect();
            for (n, (_, server)) in pairs.iter_mut().enumerate() {
                let calls = Arc::clone(&calls);
                let (waker, _) = waker(move || {
                    calls.fetch_add(1, Ordering::SeqCst);
                    assert_ne!(n, 1, "this waker panics");
                });
                begin_to_wait(server, &waker);
            }
            for (client, _) in &mut pairs {
                client.write_all(b"x").unwrap();
            }
            sleep(SHORT);
            calls.load(Ordering::SeqCst)
        })
    });
    assert_eq!(calls, 3);
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("Waker") && reports[0].contains("this waker panics"));
}

/// It was swallowed without a word: the panic hook only notes what a greenlet panics with.
#[test]
fn a_foreign_waker_that_panics_at_the_end_of_a_greenlet_is_reported() {
    let (ended, reports) = reports_of(|| {
        run(|| {
            let mut ending = pin!(spawn(|| 7).into_future());
            let (waker, _) = waker(|| panic!("this waker panics"));
            assert!(ending.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            yield_now();
            ending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        })
    });
    assert!(ended);
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(reports[0].contains("Waker") && reports[0].contains("this waker panics"));
}

/// Only wakers with a vtable of their own can: it parked between the try and the list.
#[test]
#[expect(unsafe_code, reason = "a waker whose clone parks")]
fn an_event_that_comes_while_a_waker_is_cloned_is_not_lost() {
    use std::task::{RawWaker, RawWakerVTable};
    static WRITTEN: AtomicBool = AtomicBool::new(false);
    static WOKEN: AtomicBool = AtomicBool::new(false);
    static PARKS: RawWakerVTable = RawWakerVTable::new(
        |_| {
            while !WRITTEN.load(Ordering::SeqCst) {
                yield_now();
            }
            sleep(SHORT); // The poller has reported it by then.
            RawWaker::new(std::ptr::null(), &PARKS)
        },
        |_| WOKEN.store(true, Ordering::SeqCst),
        |_| WOKEN.store(true, Ordering::SeqCst),
        |_| (),
    );
    run(|| {
        let (mut client, mut server) = pair();
        let writer = spawn(move || {
            let written = client.write_all(b"x");
            WRITTEN.store(true, Ordering::SeqCst);
            written.map(|()| client)
        });
        // SAFETY: the data is never looked at, and the functions may be called on any thread.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &PARKS)) };
        begin_to_wait(&mut server, &waker);
        sleep(SHORT);
        assert!(WOKEN.load(Ordering::SeqCst));
        drop(writer.join().unwrap().unwrap());
    });
}

/// As above: the greenlet ended between the look and the leaving of the waker.
#[test]
#[expect(unsafe_code, reason = "a waker whose clone parks")]
fn a_greenlet_that_ends_while_a_waker_is_cloned_is_not_waited_for() {
    use std::task::{RawWaker, RawWakerVTable};
    static PARKS: RawWakerVTable = RawWakerVTable::new(
        |_| {
            sleep(SHORT);
            RawWaker::new(std::ptr::null(), &PARKS)
        },
        |_| (),
        |_| (),
        |_| (),
    );
    run(|| {
        // SAFETY: the data is never looked at, and the functions may be called on any thread.
        let waker = unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &PARKS)) };
        let mut ending = pin!(spawn(|| 7).into_future());
        assert!(ending.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    });
}

/// The one thing that nothing can cure: nobody else runs meanwhile.
#[test]
fn a_future_that_blocks_the_thread_stops_its_hub_for_as_long() {
    run(|| {
        let ran = Rc::new(Cell::new(false));
        let out = Rc::clone(&ran);
        let other = spawn(move || out.set(true));
        let during = wait_for_future(async {
            thread::sleep(SHORT);
            ran.get()
        });
        assert!(!during);
        other.join().unwrap();
    });
}

/// What parks, parks its own greenlet, with everything that it polls.
#[test]
fn a_future_that_parks_in_its_poll_stops_its_own_greenlet_only() {
    run(|| {
        let trace = Trace::default();
        let other = trace.clone();
        let _other = spawn(move || other.add("another greenlet"));
        let first = async {
            sleep(SHORT);
            trace.add("first");
        };
        let second = async { trace.add("second") };
        wait_for_future(join_all([first.boxed_local(), second.boxed_local()]));
        assert_eq!(trace.taken(), ["another greenlet", "first", "second"]);
    });
}

// ---- what is dropped --------------------------------------------------------------------------

/// A registration ends with its stream: else this main would wait for a socket for ever.
#[test]
fn a_stream_that_is_dropped_while_it_waits_leaves_nothing_behind() {
    let ended = try_run(|| {
        let (client, mut server) = pair();
        let (waker, dropped) = waker(|| panic!("nobody waits any more"));
        begin_to_wait(&mut server, &waker);
        drop(waker);
        assert_eq!(dropped.load(Ordering::SeqCst), 0);
        drop(server);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        let (_resolver, unfired) = greenloop::Deferred::<()>::new();
        let ended = greenloop::wait_for_deferred(unfired);
        drop(client);
        ended
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
}

#[test]
fn a_future_that_is_killed_while_it_waits_for_a_socket_leaves_the_bytes() {
    run(|| {
        let (mut client, mut server) = pair();
        let mut copy = server.try_clone().unwrap();
        let reader = spawn(move || wait_for_future(read(&mut copy, &mut [0; 8])).map(drop));
        yield_now();
        reader.kill();
        assert!(reader.join().unwrap_err().is_killed());
        client.write_all(b"all of it").unwrap();
        drop(client);
        let mut text = String::new();
        server.read_to_string(&mut text).unwrap();
        assert_eq!(text, "all of it");
    });
}

/// KEPT-3: the hub takes them along.
#[test]
fn a_kept_waker_is_dropped_with_its_hub() {
    let (waker, dropped) = waker(|| ());
    let (_client, server) = run(move || {
        let (client, mut server) = pair();
        begin_to_wait(&mut server, &waker);
        (client, server)
    });
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    drop(server);
}

/// A waker whose destructor uses the reactor, at its very end.
#[test]
fn the_destructor_of_a_kept_waker_may_spawn() {
    let ran = Arc::new(AtomicBool::new(false));
    struct Spawns(Arc<AtomicBool>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let ran = Arc::clone(&self.0);
            spawn(|| ()).link(move |ending| {
                // It was born killed: the reactor is shutting down.
                ran.store(!matches!(ending, greenloop::Ending::Panicked(_)), Ordering::SeqCst);
            });
        }
    }
    let spawns = Spawns(Arc::clone(&ran));
    let (waker, _) = waker(move || {
        let _ = &spawns;
    });
    let kept = run(move || {
        let (client, mut server) = pair();
        begin_to_wait(&mut server, &waker);
        (client, server)
    });
    assert!(ran.load(Ordering::SeqCst));
    drop(kept);
}

// ---- several hubs -----------------------------------------------------------------------------

/// KEPT-2: a task that moves registers anew, and what it left behind harms nobody.
#[test]
fn a_stream_that_was_polled_on_one_hub_may_wait_on_another() {
    assert_ends(|| {
        let (give, given) = mpsc::channel();
        let (woken_here, _) = waker(|| ());
        let there = thread::spawn(move || {
            run(|| {
                let mut server: TcpStream = given.recv().unwrap();
                let mut buf = [0; 8];
                let n = wait_for_future(read(&mut server, &mut buf)).unwrap();
                buf[..n].to_vec()
            })
        });
        run(|| {
            let (mut client, mut server) = pair();
            begin_to_wait(&mut server, &woken_here);
            give.send(server).unwrap();
            // Places here are taken and left meanwhile, by others.
            for _ in 0..10 {
                let (_client, mut other) = pair();
                begin_to_wait(&mut other, Waker::noop());
            }
            client.write_all(b"moved").unwrap();
            sleep(SHORT);
        });
        assert_eq!(there.join().unwrap(), b"moved");
    });
}

/// A future that is polled on this thread and woken from here, for a hub elsewhere.
#[test]
fn a_waker_of_another_hub_is_a_foreign_one() {
    assert_ends(|| {
        let (lend, lent) = mpsc::channel::<Waker>();
        let other = thread::spawn(move || {
            run(|| {
                let polled = Cell::new(0);
                wait_for_future(poll_fn(|context| {
                    lend.send(context.waker().clone()).unwrap();
                    polled.set(polled.get() + 1);
                    if polled.get() == 2 { Poll::Ready(()) } else { Poll::Pending }
                }));
            });
        });
        run(|| {
            let (mut client, mut server) = pair();
            begin_to_wait(&mut server, &lent.recv().unwrap());
            client.write_all(b"x").unwrap();
            sleep(SHORT);
        });
        other.join().unwrap();
    });
}

#[test]
fn a_wait_for_a_socket_is_no_wait_for_ever() {
    run(|| {
        let (mut client, mut server) = pair_outside();
        let outside = thread::spawn(move || {
            thread::sleep(SHORT);
            client.write_all(b"x").map(|()| client)
        });
        // Nothing else could wake this hub.
        assert_eq!(wait_for_future(read(&mut server, &mut [0; 8])).unwrap(), 1);
        drop(outside.join().unwrap().unwrap());
    });
}

/// Two ends of a connection, made without waiting.
fn pair_outside() -> (std::net::TcpStream, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0.into())
}

#[cfg(feature = "futures-io")]
mod traits {
    use super::*;
    use futures_util::io::{AsyncReadExt, AsyncWriteExt};

    /// Combinators of a crate that knows nothing of us: split, copy, close.
    #[test]
    fn streams_are_what_the_futures_crates_ask_for() {
        run(|| {
            let (client, server) = pair();
            let echo = spawn(move || {
                let (mut reader, mut writer) = AsyncReadExt::split(server);
                wait_for_future(async {
                    let copied = futures_util::io::copy(&mut reader, &mut writer).await?;
                    writer.close().await?;
                    io::Result::Ok(copied)
                })
            });
            let back = wait_for_future(async {
                let (mut reader, mut writer) = AsyncReadExt::split(client);
                let parts = [io::IoSlice::new(b"some "), io::IoSlice::new(b"bytes")];
                assert_eq!(writer.write_vectored(&parts).await?, 10);
                writer.flush().await?;
                writer.close().await?;
                let (mut one, mut two) = ([0; 3], [0; 3]);
                let mut parts = [io::IoSliceMut::new(&mut one), io::IoSliceMut::new(&mut two)];
                let n = reader.read_vectored(&mut parts).await?;
                let mut back = [one, two].concat();
                back.truncate(n);
                reader.read_to_end(&mut back).await?;
                io::Result::Ok(back)
            });
            assert_eq!(back.unwrap(), b"some bytes");
            assert_eq!(echo.join().unwrap().unwrap(), 10);
        });
    }
}

/// A future may be polled by hand, on a greenlet or not.
#[test]
fn a_read_that_is_polled_by_hand_needs_no_greenlet_of_its_own() {
    run(|| {
        let (mut client, mut server) = pair();
        let mut context = Context::from_waker(Waker::noop());
        let mut buf = [0; 8];
        let mut future: Pin<&mut dyn Future<Output = _>> = pin!(read(&mut server, &mut buf));
        assert!(future.as_mut().poll(&mut context).is_pending());
        client.write_all(b"x").unwrap();
        sleep(SHORT);
        let Poll::Ready(Ok(1)) = future.as_mut().poll(&mut context) else { panic!() };
    });
}
