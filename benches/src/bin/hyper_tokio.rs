//! hyper's HTTP/1 server on tokio's `current_thread` runtime: a task for each connection.
//!
//! `cargo run --release --bin hyper_tokio -- 127.0.0.1:7000`, then `curl 127.0.0.1:7000/path`.

use std::convert::Infallible;
use std::io;

use greenloop_benches::echo::serve;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

fn main() -> io::Result<()> {
    let address = serve::prepare()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let listener = TcpListener::bind(address).await?;
        serve::announce(listener.local_addr()?)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut http = http1::Builder::new();
            http.auto_date_header(false);
            let connection = http.serve_connection(TokioIo::new(stream), service_fn(answer));
            drop(tokio::spawn(connection));
        }
    })
}

/// Sends back the path that was asked for.
async fn answer(request: Request<Incoming>) -> Result<Response<String>, Infallible> {
    Ok(Response::new(request.uri().path().to_owned()))
}
