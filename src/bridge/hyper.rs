//! Tasks and timers for hyper: [`HyperRuntime`].
//!
//! Floor 7. Uses: `wait_for_future`, the hub's timers. Used by: hyper. Its streams: `net`.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    time::{Duration, Instant},
};

use hyper::rt::{Executor, Sleep, Timer};

use super::wait_for_future;
use crate::{
    Deadline, Sleeping,
    hub::{Hub, park::CannotPark},
    sleep_async, sleep_until_async, spawn,
};

/// This thread's hub, as hyper asks for it: it runs tasks, each on a greenlet, and timers, on the
/// reactor's own clock.
///
/// For hyper's builders: `http1::Builder::new().timer(HyperRuntime)`,
/// `http2::Builder::new(HyperRuntime)`. Connections need no adapter: [`net::TcpStream`] is a
/// `hyper::rt::Read` and `Write`. Tasks need no `Send`. Any thread may have it; it serves the hub
/// of the thread that it is used on.
///
/// # Panics
///
/// Where hyper starts a task or a timer outside of [`run`](crate::run).
///
/// # Examples
///
/// ```
/// use greenloop::{HyperRuntime, net::TcpListener, net::TcpStream, spawn, wait_for_future};
/// use hyper::{Request, Response, body::Incoming, client, server, service::service_fn};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// greenloop::run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let address = listener.local_addr()?;
///     spawn(move || -> std::io::Result<()> {
///         let (stream, _) = listener.accept()?;
///         let hello = service_fn(async |_: Request<Incoming>| {
///             hyper::Result::Ok(Response::new("hello".to_owned()))
///         });
///         let mut http = server::conn::http1::Builder::new();
///         let serving = http.timer(HyperRuntime).serve_connection(stream, hello);
///         wait_for_future(serving).map_err(std::io::Error::other)
///     });
///     let stream = TcpStream::connect(address)?;
///     let (mut sender, connection) = wait_for_future(client::conn::http1::handshake(stream))?;
///     let connection = spawn(move || wait_for_future(connection));
///     let request = Request::get("/").header("host", "localhost").body(String::new())?;
///     let response = wait_for_future(sender.send_request(request))?;
///     assert_eq!(response.status(), 200);
///     drop((sender, response));
///     Ok(connection.join().unwrap()?)
/// })
/// # }
/// ```
///
/// [`net::TcpStream`]: crate::net::TcpStream
#[derive(Debug, Clone, Copy, Default)]
pub struct HyperRuntime;

impl<F> Executor<F> for HyperRuntime
where
    F: Future + 'static,
{
    #[track_caller]
    fn execute(&self, future: F) {
        let _detached = spawn(move || drop(wait_for_future(future)));
    }
}

impl Timer for HyperRuntime {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(sleep_async(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(until(deadline))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<Sleeping>() {
            // The wait for the old deadline ends, and the next poll begins another one.
            Some(mut sleep) => sleep.set(until(new_deadline)),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }

    fn now(&self) -> Instant {
        epoch() + hub().reactor.fresh_now().duration_since(Deadline::ZERO)
    }
}

fn hub() -> &'static Hub {
    Hub::current().unwrap_or_else(|| panic!("greenloop::HyperRuntime: {}", CannotPark::no_hub()))
}

/// The instant that this hub's clock began at, so that `Instant`s, which hyper counts in, name
/// times on it. It is fixed by the first question: another clock than the system's has a pace of
/// its own.
fn epoch() -> Instant {
    thread_local! {
        static EPOCH: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
    }
    let hub = hub();
    if let Some((number, epoch)) = EPOCH.get()
        && number == hub.number()
    {
        return epoch;
    }
    let now = Instant::now();
    let epoch = now.checked_sub(hub.reactor.fresh_now().duration_since(Deadline::ZERO));
    let epoch = epoch.unwrap_or(now);
    EPOCH.set(Some((hub.number(), epoch)));
    epoch
}

/// Ready at `instant`.
fn until(instant: Instant) -> Sleeping {
    sleep_until_async(Deadline::ZERO + instant.saturating_duration_since(epoch()))
}

impl Sleep for Sleeping {}
