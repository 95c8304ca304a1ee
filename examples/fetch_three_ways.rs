//! The same HTTP fetches, a thousand at once on one thread, in blocking style (`ureq`, on a
//! transport of ours), with callbacks, and with async/await (hyper, on our sockets).
//!
//! Run:    `cargo run --release --features hyper --example fetch_three_ways [URL…]`
//! Poke:   give it URLs of your own (`http://…`), or change `FETCHES` and `DELAY`
//! Prints:
//!
//! ```text
//! 1000 fetches of http://127.0.0.1:40277/, which takes 100 ms for each, on one thread:
//!
//!  blocking style   1000 answers, 17000 bytes, in 365 ms
//!       callbacks   1000 answers, 17000 bytes, in 195 ms
//!     async/await   1000 answers, 17000 bytes, in 170 ms
//! ```

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use greenloop::{
    Deferred, Failure, HyperRuntime,
    net::{TcpListener, TcpStream},
    sleep, spawn, wait_for_deferred, wait_for_future, wait_for_greenlet,
};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, Uri,
    body::{Bytes, Incoming},
    client::conn::http1::{SendRequest, handshake},
    rt::Executor,
    server,
    service::service_fn,
};

const FETCHES: usize = 1000;
const DELAY: Duration = Duration::from_millis(100);

fn main() -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let urls: Vec<Uri> =
        std::env::args().skip(1).map(|url| url.parse()).collect::<Result<_, _>>()?;
    greenloop::run(|| match urls.is_empty() {
        true => {
            let url: Uri = format!("http://{}/", serve(DELAY)?).parse()?;
            let ms = DELAY.as_millis();
            println!("{FETCHES} fetches of {url}, which takes {ms} ms for each, on one thread:\n");
            tour(&vec![url; FETCHES])
        }
        false => tour(&urls),
    })
    .map(drop)
}

/// Fetches all at once, three times. Returns how many bytes came each time.
pub(crate) fn tour(urls: &[Uri]) -> Result<[usize; 3], Failure> {
    let agent = blocking::agent();
    let bytes = [
        timed("blocking style", || {
            let fetch = |url: &Uri| {
                let (agent, url) = (agent.clone(), url.clone());
                spawn(move || blocking::fetch(&agent, &url))
            };
            let all: Vec<_> = urls.iter().map(fetch).collect();
            all.into_iter().map(|g| g.join()?).collect()
        })?,
        timed("callbacks", || {
            let all: Vec<_> = urls.iter().map(fetch_by_callbacks).collect();
            all.into_iter().map(wait_for_deferred).collect()
        })?,
        timed("async/await", || wait_for_future(try_join_all(urls.iter().map(fetch_async))))?,
    ];
    Ok(bytes)
}

fn timed(
    style: &str,
    fetch_all: impl FnOnce() -> Result<Vec<usize>, Failure>,
) -> Result<usize, Failure> {
    let begun = Instant::now();
    let sizes = fetch_all()?;
    let (count, bytes, ms) = (sizes.len(), sizes.iter().sum(), begun.elapsed().as_millis());
    println!("{style:>15}   {count} answers, {bytes} bytes, in {ms} ms");
    Ok(bytes)
}

// Style 2: callbacks. Each step is a Deferred, and the next one is called with its result.

fn fetch_by_callbacks(url: &Uri) -> Deferred<usize> {
    let request = request(url);
    open(url)
        .and_then(|mut sender| Deferred::from_future(sender.send_request(request)))
        .and_then(|response| Deferred::from_future(response.into_body().collect()))
        .add_callback(|body| Ok(body.to_bytes().len()))
}

fn open(url: &Uri) -> Deferred<SendRequest<Empty<Bytes>>> {
    let authority = authority(url);
    wait_for_greenlet(spawn(move || TcpStream::connect(authority)))
        .add_callback(|connected| Ok(connected?))
        .and_then(|stream| Deferred::from_future(handshake(stream)))
        .add_callback(|(sender, connection)| {
            HyperRuntime.execute(connection);
            Ok(sender)
        })
}

// Style 3: async/await.

async fn fetch_async(url: &Uri) -> Result<usize, Failure> {
    let authority = authority(url);
    let connecting = spawn(move || TcpStream::connect(authority));
    let stream = connecting.await??;
    let (mut sender, connection) = handshake(stream).await?;
    HyperRuntime.execute(connection);
    let response = sender.send_request(request(url)).await?;
    Ok(response.into_body().collect().await?.to_bytes().len())
}

fn request(url: &Uri) -> Request<Empty<Bytes>> {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header("host", authority(url)).header("connection", "close");
    request.body(Empty::new()).expect("a path and a host of a valid URL")
}

/// Host and port, as in `example.org:80`.
fn authority(url: &Uri) -> String {
    format!("{}:{}", url.host().unwrap_or("localhost"), url.port_u16().unwrap_or(80))
}

/// Style 1: blocking. A crate that is written for threads, with its transport replaced.
mod blocking {
    use super::{Failure, TcpStream, Uri};
    use greenloop::net::ToSocketAddrs;
    use std::io::{Read, Write};
    use ureq::{
        Agent, Error,
        config::Config,
        unversioned::{
            resolver::{ResolvedSocketAddrs, Resolver},
            transport::{
                Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
            },
        },
    };

    pub(crate) fn agent() -> Agent {
        Agent::with_parts(Config::default(), OurConnector, OurResolver)
    }

    pub(crate) fn fetch(agent: &Agent, url: &Uri) -> Result<usize, Failure> {
        let mut response = agent.get(url).header("connection", "close").call()?;
        Ok(response.body_mut().read_to_vec()?.len())
    }

    #[derive(Debug)]
    struct OurConnector;

    impl Connector for OurConnector {
        type Out = OurTransport;

        fn connect(
            &self,
            details: &ConnectionDetails<'_>,
            _: Option<()>,
        ) -> Result<Option<OurTransport>, Error> {
            let stream = TcpStream::connect(&details.addrs[..])?;
            let sizes = (details.config.input_buffer_size(), details.config.output_buffer_size());
            Ok(Some(OurTransport { stream, buffers: LazyBuffers::new(sizes.0, sizes.1) }))
        }
    }

    #[derive(Debug)]
    struct OurTransport {
        stream: TcpStream,
        buffers: LazyBuffers,
    }

    impl Transport for OurTransport {
        fn buffers(&mut self) -> &mut dyn Buffers {
            &mut self.buffers
        }

        fn transmit_output(&mut self, amount: usize, limit: NextTimeout) -> Result<(), Error> {
            self.stream.set_write_timeout(limit.not_zero().map(|limit| *limit))?;
            Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
        }

        fn await_input(&mut self, limit: NextTimeout) -> Result<bool, Error> {
            self.stream.set_read_timeout(limit.not_zero().map(|limit| *limit))?;
            let n = self.stream.read(self.buffers.input_append_buf())?;
            self.buffers.input_appended(n);
            Ok(n > 0)
        }

        /// Asked by the pool, which has locked itself: nothing may park here, so there is no look
        /// at the socket, and every connection is used once.
        fn is_open(&mut self) -> bool {
            false
        }
    }

    /// Looks names up off the loop.
    #[derive(Debug)]
    struct OurResolver;

    impl Resolver for OurResolver {
        fn resolve(
            &self,
            url: &Uri,
            _: &Config,
            _: NextTimeout,
        ) -> Result<ResolvedSocketAddrs, Error> {
            let mut found = self.empty();
            for address in super::authority(url).to_socket_addrs()?.take(16) {
                found.push(address);
            }
            Ok(found)
        }
    }
}

/// A server on the same thread, that takes its time. Returns where it listens.
pub(crate) fn serve(delay: Duration) -> Result<SocketAddr, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // A thousand connections may come before the first is accepted. Those that find no room in the
    // backlog, which has 128 places by default, are tried again by the kernel a second later.
    rustix::net::listen(&listener, 4096)?;
    let address = listener.local_addr()?;
    spawn(move || -> Result<(), Failure> {
        for stream in listener.incoming() {
            let stream = stream?;
            let answer = service_fn(move |_: Request<Incoming>| async move {
                sleep(delay); // parks this connection's greenlet
                Ok::<_, Infallible>(Response::new("It is about time.".to_owned()))
            });
            let connection = server::conn::http1::Builder::new().serve_connection(stream, answer);
            spawn(move || wait_for_future(connection));
        }
        Ok(())
    });
    Ok(address)
}

/// Two descriptors for each fetch, where many systems begin with 1024 in all.
fn raise_descriptor_limit() -> Result<(), Failure> {
    use rustix::process::{Resource::Nofile, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Nofile);
    Ok(setrlimit(Nofile, Rlimit { current: maximum, maximum })?)
}
