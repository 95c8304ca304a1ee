//! hyper's HTTP/1 server on greenloop: a greenlet for each connection, which waits for its future.
//!
//! `cargo run --release --bin hyper_greenloop -- 127.0.0.1:7000`, then `curl 127.0.0.1:7000/path`.

use std::convert::Infallible;
use std::io;

use greenloop::net::TcpListener;
use greenloop_benches::echo::serve;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};

fn main() -> io::Result<()> {
    let address = serve::prepare()?;
    greenloop::run(move || {
        let listener = TcpListener::bind(address)?;
        serve::announce(listener.local_addr()?)?;
        for stream in listener.incoming() {
            let stream = stream?;
            stream.set_nodelay(true)?;
            let mut http = http1::Builder::new();
            http.auto_date_header(false);
            let connection = http.serve_connection(stream, service_fn(answer));
            drop(greenloop::spawn(move || greenloop::wait_for_future(connection)));
        }
        Ok(())
    })
}

/// Sends back the path that was asked for.
async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(request.uri().path().to_owned()))
}
