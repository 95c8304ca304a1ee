//! hyper on our sockets, tasks and timers: the feature `hyper`.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    io,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use greenloop::{
    HyperRuntime, RunError,
    net::{TcpListener, TcpStream},
    run, spawn, try_run, wait_for_future, yield_now,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client, rt,
    rt::{Executor, Timer},
    server,
    service::service_fn,
};

use crate::support::assert_ends;

const SHORT: Duration = Duration::from_millis(2);
const LONG: Duration = Duration::from_secs(3600);

/// Serves one connection: every request gets its own body back, twice.
fn serve(stream: TcpStream) -> hyper::Result<()> {
    let twice = |request: Request<Incoming>| async {
        let body = request.into_body().collect().await?.to_bytes();
        hyper::Result::Ok(Response::new(Full::new(Bytes::from([&body[..], &body[..]].concat()))))
    };
    let mut http = server::conn::http1::Builder::new();
    wait_for_future(http.timer(HyperRuntime).serve_connection(stream, service_fn(twice)))
}

fn server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            spawn(move || serve(stream));
        }
    });
    address
}

#[test]
fn a_server_and_its_clients_share_one_thread() {
    assert_ends(|| {
        run(|| {
            let address = server();
            let clients = (0..20).map(|n: usize| {
                spawn(move || {
                    let stream = TcpStream::connect(address).unwrap();
                    wait_for_future(async {
                        let (mut sender, connection) =
                            client::conn::http1::handshake(stream).await.unwrap();
                        HyperRuntime.execute(connection);
                        // From less than a buffer to much more than the socket takes at once.
                        for size in [0, 1, 1000 * n, 1_000_000] {
                            let body = Bytes::from(vec![n as u8; size]);
                            let request = Request::post("/").header("host", "localhost");
                            let request = request.body(Full::new(body)).unwrap();
                            let response = sender.send_request(request).await.unwrap();
                            let back = response.into_body().collect().await.unwrap().to_bytes();
                            assert!(back == vec![n as u8; 2 * size], "{n} {size}");
                        }
                    });
                })
            });
            clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
        });
    });
}

/// hyper's own timeout, by our timers: a client that never sends its header.
#[test]
fn a_timer_of_hyper_runs_on_the_reactor() {
    assert_ends(|| {
        run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _silent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let none = |_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::new())))
            };
            let mut http = server::conn::http1::Builder::new();
            http.timer(HyperRuntime).header_read_timeout(SHORT);
            let begun = Instant::now();
            let ended = wait_for_future(http.serve_connection(stream, service_fn(none)));
            assert!(ended.unwrap_err().is_timeout());
            assert!(begun.elapsed() >= SHORT);
        });
    });
}

#[test]
fn a_sleep_ends_at_its_deadline_and_not_before() {
    run(|| {
        let kinds = [
            || HyperRuntime.sleep(SHORT),
            || HyperRuntime.sleep_until(Instant::now() + SHORT),
            || HyperRuntime.sleep_until(HyperRuntime.now() + SHORT),
        ];
        for sleep in kinds {
            let begun = Instant::now();
            wait_for_future(sleep());
            assert!(begun.elapsed() >= SHORT);
        }
        wait_for_future(HyperRuntime.sleep_until(Instant::now() - SHORT));
    });
}

#[test]
fn hypers_clock_is_the_systems_under_the_systems_clock() {
    run(|| {
        let (before, now, after) = (Instant::now(), HyperRuntime.now(), Instant::now());
        let slack = Duration::from_millis(1);
        assert!(before <= now + slack && now <= after + slack);
    });
}

#[test]
fn a_sleep_may_be_reset_to_earlier_and_to_later() {
    assert_ends(|| {
        run(|| {
            let mut sleep = HyperRuntime.sleep(LONG);
            assert!(is_pending(&mut sleep));
            HyperRuntime.reset(&mut sleep, Instant::now() + SHORT);
            wait_for_future(&mut sleep);
            let mut sleep = HyperRuntime.sleep(SHORT);
            assert!(is_pending(&mut sleep));
            let later = Instant::now() + 5 * SHORT;
            HyperRuntime.reset(&mut sleep, later);
            wait_for_future(&mut sleep);
            assert!(Instant::now() >= later);
        });
    });
}

/// Polls a sleep on a greenlet of its own, which ends before the sleep does.
fn is_pending(sleep: &mut Pin<Box<dyn rt::Sleep>>) -> bool {
    wait_for_future(std::future::poll_fn(|context| {
        std::task::Poll::Ready(sleep.as_mut().poll(context).is_pending())
    }))
}

/// Else main would wait for its timer: an hour, in place of this report.
#[test]
fn a_sleep_that_is_dropped_leaves_no_timer() {
    let ended = assert_ends(|| {
        try_run(|| {
            let mut sleep = HyperRuntime.sleep(LONG);
            assert!(is_pending(&mut sleep));
            drop(sleep);
            let (_resolver, unfired) = greenloop::Deferred::<()>::new();
            drop(greenloop::wait_for_deferred(unfired));
        })
    });
    assert!(matches!(ended, Err(RunError::WouldBlockForever(_))), "{ended:?}");
}

#[test]
fn a_task_runs_on_a_greenlet_of_its_own_and_needs_no_send() {
    run(|| {
        let (ran, by) = (Rc::new(Cell::new(false)), Rc::new(RefCell::new(None)));
        let (out, who) = (Rc::clone(&ran), Rc::clone(&by));
        HyperRuntime.execute(async move {
            *who.borrow_mut() = Some(greenloop::current().id());
            out.set(true);
        });
        assert!(!ran.get());
        yield_now();
        assert!(ran.get() && *by.borrow() != Some(greenloop::current().id()));
    });
}

#[test]
#[should_panic(expected = "greenloop::run")]
fn a_timer_outside_run_panics_and_says_so() {
    drop(HyperRuntime.sleep(SHORT));
}

/// What a client that goes away in the midst of a body leaves is an error, not a wait.
#[test]
fn a_connection_that_breaks_is_an_error() {
    assert_ends(|| {
        run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().unwrap();
            let server = spawn(move || serve(stream));
            io::Write::write_all(&mut client, b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nhal")
                .unwrap();
            yield_now();
            drop(client);
            assert!(server.join().unwrap().is_err());
        });
    });
}
