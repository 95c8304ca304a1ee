//! A whole tokio runtime on a virtual thread: its poller is waited for like any descriptor.

use std::time::Duration;

use greenloop::thread;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
};

use crate::{
    call::{Ticks, virtual_time_of},
    support::assert_ends,
};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Each `block_on` waits for another one, on the same OS thread.
#[test]
fn several_runtimes_share_a_thread() {
    assert_ends(|| {
        greenloop::run(|| {
            let ticks = Ticks::begin();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let serves = thread::spawn(move || {
                listener.set_nonblocking(true).unwrap();
                runtime().block_on(async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    for _ in 0..20 {
                        let (mut stream, _) = listener.accept().await.unwrap();
                        let mut question = [0; 4];
                        stream.read_exact(&mut question).await.unwrap();
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        stream.write_all(&question).await.unwrap();
                    }
                });
            });
            let clients: Vec<_> = (0..20u32)
                .map(|n| {
                    thread::spawn(move || {
                        runtime().block_on(async {
                            let mut stream = TcpStream::connect(address).await.unwrap();
                            stream.write_all(&n.to_ne_bytes()).await.unwrap();
                            let mut answer = [0; 4];
                            stream.read_exact(&mut answer).await.unwrap();
                            assert_eq!(u32::from_ne_bytes(answer), n);
                        });
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
            serves.join().unwrap();
            assert!(ticks.end() > 20);
        });
    });
}

/// tokio waits on the hub's clock, and looks at the real one: as often as it takes.
#[test]
fn its_sleeps_are_waits_of_the_hubs() {
    let time = virtual_time_of(|| {
        runtime().block_on(async { tokio::time::sleep(Duration::from_millis(3)).await });
    });
    assert!(!time.is_zero());
}
