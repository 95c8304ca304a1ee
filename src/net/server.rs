//! Servers: a greenlet for whatever a listener accepts, so many at a time, until they are stopped.
//!
//! Floor 6. Uses: `accept`, `sync`, `hub`. Used by: users.
//!
//! # States
//!
//! ```text
//! serving ──stop, or accept fails for good──▶ draining ──the last handler ends──▶ over
//!                                                └──the time is over: all are killed──┘
//! ```
//!
//! # Invariants
//!
//! - `SERVER-1` A handler's [`Seat`] is dropped when it ends, however it ends, also if it is killed
//!   before it ran: so the number of seats that are taken is that of the handlers.
//! - `SERVER-2` When `serve` returns, no handler is alive, and the listener is closed. When it
//!   unwinds, all have been told to end.
//!
//! # Source
//!
//! gevent `baseserver.py`, `server.py`; Go `net/http` `Server.Shutdown`.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt, io,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use super::accept::{Accept, PAUSE_MIN, persist, report_shortage};
#[cfg(feature = "signal")]
use crate::signal::{Signal, Signals};
use crate::{
    hub::{Builder, Greenlet, GreenletRef, Hub, sleep},
    sync::{Event, Semaphore},
    time::Deadline,
};

/// How long handlers may go on when no connection can come any more: as long as a run's own
/// shutdown.
const LIMIT_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Accepts from a listener, and calls a handler on a greenlet of its own for each connection.
///
/// Shape: `L` is a [`TcpListener`](super::TcpListener), a [`UnixListener`](super::UnixListener),
/// [`Datagrams`](super::Datagrams) of a socket, or anything else that [accepts](Accept). The
/// handler is given what it accepts. What a handler returns, an error say, or its panic, is
/// reported as that of any greenlet that nobody joins
/// ([`set_unhandled_hook`](crate::set_unhandled_hook)), and ends nobody else.
///
/// # Examples
///
/// ```
/// use greenloop::net::{Server, TcpListener, TcpStream};
/// use std::{io::{Read, Write}, time::Duration};
/// # fn main() -> std::io::Result<()> {
/// greenloop::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let address = listener.local_addr()?;
///     let welcome = |(mut stream, _): (TcpStream, _)| stream.write_all(b"welcome");
///     let server = Server::new(listener, welcome).max_connections(1000);
///     let handle = server.handle();
///     let serving = greenloop::spawn(move || server.serve());
///     let mut text = String::new();
///     TcpStream::connect(address)?.read_to_string(&mut text)?;
///     assert_eq!(text, "welcome");
///     handle.stop(Duration::from_secs(5));
///     serving.join().unwrap()
/// })
/// # }
/// ```
///
/// # Source
///
/// gevent `StreamServer`, `DatagramServer`.
#[must_use = "it serves nobody until `serve` is called"]
pub struct Server<L, F> {
    listener: L,
    handler: F,
    connections_max: usize,
    asked: Arc<Asked>,
    #[cfg(feature = "signal")]
    signals: Option<(Signals, Duration)>,
}

/// Stops a [`Server`], from wherever it is: another greenlet, a handler, a callback, a thread.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    asked: Arc<Asked>,
}

/// What a server was asked, and has not noticed yet.
#[derive(Debug, Default)]
struct Asked {
    /// To stop, within this time.
    limit: Mutex<Option<Duration>>,
    /// There is something to be looked at: this, or the end of somebody.
    changed: Event,
}

impl Asked {
    fn take(&self) -> Option<Duration> {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ServerHandle {
    /// Tells the server to stop: it accepts nobody any more, lets its handlers go on for at most
    /// `limit`, and then kills them.
    ///
    /// Shape: returns at once. [`Server::serve`] returns when all is over; who wants to wait joins
    /// the greenlet that serves. Told again, the earlier of the two ends counts: `Duration::ZERO`
    /// kills at once. Before `serve` was called, it is noticed then.
    pub fn stop(&self, limit: Duration) {
        let mut asked = self.asked.limit.lock().unwrap_or_else(PoisonError::into_inner);
        *asked = Some(asked.map_or(limit, |before| before.min(limit)));
        drop(asked);
        self.asked.changed.set();
    }
}

impl<L: Accept + 'static, T: 'static, F: Fn(L::Connection) -> T + 'static> Server<L, F> {
    /// Makes a server. It does nothing before it [serves](Self::serve).
    pub fn new(listener: L, handler: F) -> Server<L, F> {
        Server {
            listener,
            handler,
            connections_max: usize::MAX,
            asked: Arc::default(),
            #[cfg(feature = "signal")]
            signals: None,
        }
    }

    /// Serves at most so many at once: when that many are there, it accepts nobody until one of
    /// them has ended. Who comes meanwhile waits in the listener's backlog; datagrams in the
    /// socket's buffer, where those that find no room are lost.
    ///
    /// # Panics
    ///
    /// For 0.
    pub fn max_connections(mut self, count: usize) -> Server<L, F> {
        assert!(count > 0, "greenloop::net::Server::max_connections: 0 would serve nobody");
        self.connections_max = count;
        self
    }

    /// Has SIGINT and SIGTERM stop it: the first as [`ServerHandle::stop`] with `limit`, the second
    /// at once.
    ///
    /// Shape: from now on these signals do not end the process any more; see
    /// [`signal`](crate::signal) for what is left of that afterwards.
    ///
    /// # Errors
    ///
    /// Those of [`Signals::new`].
    #[cfg(feature = "signal")]
    pub fn stop_on_signals(mut self, limit: Duration) -> io::Result<Server<L, F>> {
        self.signals = Some((Signals::new([Signal::Interrupt, Signal::Terminate])?, limit));
        Ok(self)
    }

    /// What stops it.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { asked: Arc::clone(&self.asked) }
    }

    /// Serves on the calling greenlet, until it is stopped.
    ///
    /// Shape: when it returns, the listener is closed and every handler has ended.
    ///
    /// # Errors
    ///
    /// What [`Accept::accept`] fails with for good: then it has stopped by itself, with a limit of
    /// 10 seconds. Outside [`run`](crate::run), an error that says so.
    ///
    /// # Panics
    ///
    /// With the panic of `accept`, if it is a listener of your own that has one. A handler that
    /// goes on after it was killed keeps it from returning.
    ///
    /// # Cancellation
    ///
    /// Cancellation point: always. On cancel the listener is closed and every handler killed, and
    /// none is waited for.
    ///
    /// # Source
    ///
    /// gevent `BaseServer.serve_forever`.
    pub fn serve(self) -> io::Result<()> {
        Hub::to_park()?;
        let asked = Arc::clone(&self.asked);
        #[cfg(feature = "signal")]
        let _watch = self.signals.map(|signals| watch(signals, &asked)).transpose()?;
        let hall = Rc::new(Hall::new(self.connections_max, Arc::clone(&asked)));
        // Whatever unwinds from here on takes all down with it (SERVER-2).
        let _closing = KillAll(&hall);
        let (listener, handler, guests) = (self.listener, self.handler, Rc::clone(&hall));
        let accept = move || accept_all(&listener, &Rc::new(handler), &guests);
        let door = KillOnDrop(Some(Builder::new().name("accept").spawn(accept)?));
        let ended = Arc::clone(&asked);
        door.greenlet().link(move |_| ended.changed.set());
        let limit = loop {
            asked.changed.clear();
            match asked.take() {
                Some(limit) => break Some(limit),
                None if door.greenlet().is_finished() => break None,
                None => asked.changed.wait(),
            }
        };
        let failed = door.end();
        hall.drain(limit.unwrap_or(LIMIT_AFTER_FAILURE));
        // Once it was stopped, an error is no news.
        if limit.is_some() { Ok(()) } else { failed }
    }
}

/// Has signals stop the server, until it is dropped.
#[cfg(feature = "signal")]
fn watch((signals, limit): (Signals, Duration), asked: &Arc<Asked>) -> io::Result<impl Drop> {
    let handle = ServerHandle { asked: Arc::clone(asked) };
    let watch = move || -> io::Result<()> {
        signals.wait()?;
        handle.stop(limit);
        loop {
            signals.wait()?;
            handle.stop(Duration::ZERO);
        }
    };
    Ok(KillOnDrop(Some(Builder::new().name("signals").spawn(watch)?)))
}

/// Accepts, and seats who comes, until that fails for good.
fn accept_all<L, F, T>(listener: &L, handler: &Rc<F>, hall: &Rc<Hall>) -> io::Result<()>
where
    L: Accept,
    F: Fn(L::Connection) -> T + 'static,
    T: 'static,
{
    let short = AtomicBool::new(false);
    loop {
        // Parks while the hall is full. A kill that comes before the seat is taken gives it back.
        let place = hall.places.acquire();
        let pause = |pause| {
            sleep(pause);
            Ok(())
        };
        let report = |error: &io::Error| report_shortage("a server", error);
        let connection = persist(&short, false, || listener.accept(), pause, report)?;
        place.forget();
        let seat = Seat::take(hall);
        let (number, handler) = (seat.number, Rc::clone(handler));
        let serve = move || {
            let _seat = seat;
            handler(connection)
        };
        match Builder::new().spawn(serve) {
            Ok(greenlet) => {
                if hall.is_closed.get() {
                    greenlet.kill(); // It was granted to us before we were told to end.
                }
                hall.guests.borrow_mut().insert(number, greenlet.as_ref());
            }
            Err(error) => {
                crate::report::unhandled("a connection, for want of a greenlet", &error, &error);
                sleep(PAUSE_MIN);
            }
        }
    }
}

/// Where the handlers are.
struct Hall {
    /// A permit for each that may still come.
    places: Semaphore,
    /// Every handler that has not ended, by the number of its seat.
    guests: RefCell<HashMap<u64, GreenletRef>>,
    next_number: Cell<u64>,
    /// All were told to end, because the server unwinds: so is who comes yet.
    is_closed: Cell<bool>,
    asked: Arc<Asked>,
}

impl Hall {
    fn new(places: usize, asked: Arc<Asked>) -> Hall {
        let places = Semaphore::new(places);
        Hall {
            places,
            guests: RefCell::default(),
            next_number: Cell::new(0),
            is_closed: Cell::new(false),
            asked,
        }
    }

    /// Waits until all have ended; kills them when `limit` is over.
    fn drain(&self, limit: Duration) {
        let hub = Hub::current().expect("a server serves on a hub");
        let mut deadline = hub.deadline_in(limit);
        loop {
            self.asked.changed.clear();
            if self.guests.borrow().is_empty() {
                return;
            }
            if let Some(limit) = self.asked.take() {
                deadline = deadline.min(hub.deadline_in(limit));
            }
            let left = deadline.duration_since(hub.reactor.fresh_now());
            if deadline.is_never() {
                self.asked.changed.wait();
            } else if left.is_zero() {
                self.kill_all();
                deadline = Deadline::NEVER;
            } else {
                self.asked.changed.wait_timeout(left);
            }
        }
    }

    fn kill_all(&self) {
        // Killing runs nobody, so the table stays as it is.
        self.guests.borrow().values().for_each(GreenletRef::kill);
    }
}

/// A handler's seat (`SERVER-1`).
struct Seat {
    number: u64,
    hall: Rc<Hall>,
}

impl Seat {
    fn take(hall: &Rc<Hall>) -> Seat {
        let number = hall.next_number.get();
        hall.next_number.set(number + 1);
        Seat { number, hall: Rc::clone(hall) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hall.guests.borrow_mut().remove(&self.number);
        self.hall.places.add_permits(1);
        self.hall.asked.changed.set();
    }
}

/// Tells all handlers to end, and those that come yet.
struct KillAll<'h>(&'h Hall);

impl Drop for KillAll<'_> {
    fn drop(&mut self) {
        self.0.is_closed.set(true);
        self.0.kill_all();
    }
}

/// A greenlet that ends with its owner.
struct KillOnDrop<T>(Option<Greenlet<T>>);

impl<T> KillOnDrop<T> {
    fn greenlet(&self) -> &Greenlet<T> {
        self.0.as_ref().expect("it is there until `end`")
    }
}

impl KillOnDrop<io::Result<()>> {
    /// Kills it, and waits for it. `Ok`: the kill has ended it.
    fn end(mut self) -> io::Result<()> {
        let greenlet = self.0.take().expect("it ends once");
        greenlet.kill();
        match greenlet.join() {
            Ok(ended) => ended,
            Err(error) => match error.try_into_panic() {
                Ok(payload) => std::panic::resume_unwind(payload),
                Err(_) => Ok(()),
            },
        }
    }
}

impl<T> Drop for KillOnDrop<T> {
    fn drop(&mut self) {
        if let Some(greenlet) = &self.0 {
            greenlet.kill();
        }
    }
}

impl<L: fmt::Debug, F> fmt::Debug for Server<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listener", &self.listener)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}
