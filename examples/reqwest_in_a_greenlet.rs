//! A crate that cannot do without tokio, used from straight-line code: reqwest in greenlets.
//!
//! Run:    `cargo run --release --features tokio --example reqwest_in_a_greenlet [URL…]`
//! Poke:   give it URLs of your own (`http://…`: it is built without TLS)
//! Prints:
//!
//! ```text
//! A server on 127.0.0.1:36313 needs 100 ms for each answer.
//!
//!   http://127.0.0.1:36313/one      200 OK  Hello from /one
//!   http://127.0.0.1:36313/two      200 OK  Hello from /two
//!   http://127.0.0.1:36313/three    200 OK  Hello from /three
//!
//! 3 answers within 104 ms, on one thread and tokio's in the background.
//! ```

use std::{
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use greenloop::{Failure, net::TcpListener, sleep, spawn, wait_for_future};

const DELAY: Duration = Duration::from_millis(100);

fn main() -> Result<(), Failure> {
    let mut urls: Vec<String> = std::env::args().skip(1).collect();
    greenloop::run(|| {
        if urls.is_empty() {
            let address = serve(DELAY)?;
            let ms = DELAY.as_millis();
            println!("A server on {address} needs {ms} ms for each answer.\n");
            urls = ["one", "two", "three"].map(|path| format!("http://{address}/{path}")).to_vec();
        }
        let begun = Instant::now();
        let count = fetch_all(&urls)?.len();
        let ms = begun.elapsed().as_millis();
        println!("\n{count} answers within {ms} ms, on one thread and tokio's in the background.");
        Ok(())
    })
}

/// Fetches all at once, and returns the texts.
pub(crate) fn fetch_all(urls: &[String]) -> Result<Vec<String>, Failure> {
    let client = reqwest::Client::new();
    let fetch = |url: &String| {
        let (client, url) = (client.clone(), url.clone());
        spawn(move || -> Result<String, Failure> {
            // reqwest asks for tokio's reactor here, and finds one.
            let response = wait_for_future(async { client.get(&url).send().await })?;
            let status = response.status();
            let text = wait_for_future(response.text())?;
            println!("  {url:<30}  {status}  {}", text.lines().next().unwrap_or_default());
            Ok(text)
        })
    };
    let all: Vec<_> = urls.iter().map(fetch).collect();
    all.into_iter().map(|g| g.join()?).collect()
}

/// A server on the same thread, on greenloop's own sockets: one request a connection.
pub(crate) fn serve(delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    spawn(move || -> io::Result<()> {
        for stream in listener.incoming() {
            let stream = stream?;
            spawn(move || -> io::Result<()> {
                let mut lines = BufReader::new(&stream).lines();
                let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                sleep(delay);
                let text = format!("Hello from {}", first.split(' ').nth(1).unwrap_or("?"));
                let head = format!("content-length: {}\r\nconnection: close", text.len());
                write!(&stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n{text}")
            });
        }
        Ok(())
    });
    Ok(address)
}
