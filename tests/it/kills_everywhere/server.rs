//! `net::Server` under the kill harness: whatever it is doing when it is cut short, its listener is
//! closed and its handlers end.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, Read, Write},
    rc::Rc,
    time::Duration,
};

use greenloop::{
    net::{Accept, Server, TcpListener, TcpStream},
    sleep, spawn,
};

use super::{SECOND, everywhere, with_descriptors};

/// A listener to which a few come, a while apart, and then nobody for a long time.
struct Visitors {
    pauses: RefCell<VecDeque<Duration>>,
    open: Rc<Cell<usize>>,
}

impl Visitors {
    fn new(open: &Rc<Cell<usize>>, count: usize) -> Visitors {
        open.set(open.get() + 1);
        let pauses = (0..count).map(|place| SECOND / 4 * (place % 3) as u32);
        Visitors { pauses: RefCell::new(pauses.collect()), open: Rc::clone(open) }
    }
}

impl Accept for Visitors {
    type Connection = ();

    fn accept(&self) -> io::Result<()> {
        let pause = self.pauses.borrow_mut().pop_front();
        sleep(pause.unwrap_or(1000 * SECOND));
        Ok(())
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

/// Counts who is inside.
struct Inside(Rc<Cell<usize>>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[test]
fn serving_whoever_comes() {
    let suspensions = everywhere(|case| {
        let (open, inside) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let served = Rc::new(Cell::new(0));
        let (guests, count) = (Rc::clone(&inside), Rc::clone(&served));
        let server = Server::new(Visitors::new(&open, 5), move |()| {
            guests.set(guests.get() + 1);
            assert!(guests.get() <= 2, "{} are inside", guests.get());
            let _inside = Inside(Rc::clone(&guests));
            sleep(SECOND);
            count.set(count.get() + 1);
        });
        let server = server.max_connections(2);
        let handle = server.handle();
        let target = case.target(move || server.serve());
        let stopping = spawn(move || {
            sleep(2 * SECOND);
            handle.stop(SECOND / 2);
        });
        let ended = target.join();
        if let Some(ended) = &ended {
            assert_eq!((open.get(), inside.get()), (0, 0), "SERVER-2");
            ended.as_ref().unwrap();
        }
        // One that unwound has told all to end, and waited for nobody.
        sleep(SECOND / 4);
        assert_eq!((open.get(), inside.get()), (0, 0));
        assert!(ended.is_none() || (2..=4).contains(&served.get()), "{}", served.get());
        stopping.join().unwrap();
    });
    assert!(suspensions >= 3, "{suspensions}");
}

/// A handler that goes on while it is killed keeps the server, and nothing more.
#[test]
fn stopping_while_handlers_take_their_time() {
    let suspensions = everywhere(|case| {
        let (open, inside) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let guests = Rc::clone(&inside);
        struct Slow(#[expect(dead_code, reason = "it is dropped")] Inside);
        impl Drop for Slow {
            fn drop(&mut self) {
                sleep(SECOND);
            }
        }
        let server = Server::new(Visitors::new(&open, 3), move |()| {
            guests.set(guests.get() + 1);
            let _slow = Slow(Inside(Rc::clone(&guests)));
            sleep(1000 * SECOND);
        });
        let handle = server.handle();
        let target = case.target(move || server.serve());
        sleep(SECOND);
        handle.stop(SECOND);
        sleep(SECOND / 2);
        handle.stop(Duration::ZERO);
        let ended = target.join();
        if ended.is_some() {
            assert_eq!((open.get(), inside.get()), (0, 0), "SERVER-2");
        }
        sleep(2 * SECOND);
        assert_eq!((open.get(), inside.get()), (0, 0));
    });
    assert!(suspensions >= 3, "{suspensions}");
}

#[test]
fn serving_connections() {
    with_descriptors("server::serving_connections", |case| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::new(listener, |(mut stream, _): (TcpStream, _)| {
            let mut text = [0; 2];
            if stream.read_exact(&mut text).is_ok() {
                let _ = stream.write_all(&text);
            }
        });
        let handle = server.handle();
        let target = case.target(move || server.serve());
        let clients = [1, 2].map(|place| {
            spawn(move || -> io::Result<Vec<u8>> {
                let mut stream = TcpStream::connect(address)?; // refused, once it has died
                stream.write_all(b"h")?;
                sleep(SECOND * place);
                stream.write_all(b"i")?;
                let mut answer = Vec::new();
                stream.read_to_end(&mut answer)?;
                Ok(answer)
            })
        });
        sleep(3 * SECOND);
        handle.stop(SECOND);
        let ended = target.join();
        let answers = clients.map(|client| client.join().unwrap());
        if let Some(ended) = ended {
            ended.unwrap();
            assert!(answers.iter().all(|answer| answer.as_deref().is_ok_and(|a| a == b"hi")));
        }
        assert!(TcpStream::connect(address).is_err(), "it listens still");
        sleep(SECOND);
    });
}
