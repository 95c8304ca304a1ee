//! What holds of `net::Server` in whatever order greenlets run, with kills between.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    rc::Rc,
    time::Duration,
};

use greenloop::{
    net::{Accept, Server},
    sleep, spawn,
    testing::{Random, assert_nothing_left, seeds},
};

use super::{Counted, SECOND, orders, pause};

/// A listener to which a few come, and then nobody for a long time; or one that then fails.
struct Visitors {
    pauses: RefCell<VecDeque<Duration>>,
    fails: bool,
    _open: Counted,
}

impl Accept for Visitors {
    type Connection = u64;

    fn accept(&self) -> io::Result<u64> {
        let pause = self.pauses.borrow_mut().pop_front();
        sleep(pause.unwrap_or(if self.fails { SECOND } else { 1000 * SECOND }));
        match pause {
            None if self.fails => Err(io::Error::other("the door is jammed")),
            _ => Ok(pause.unwrap_or_default().as_millis() as u64),
        }
    }
}

/// Nobody is inside, and the door is closed, once a server has returned; there are never more than
/// it may have; and one that was killed leaves nobody for long.
#[test]
fn a_server_ends_with_all_that_it_serves() {
    seeds(orders(), |random| {
        let (open, inside) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let places = 1 + random.below(3);
        let pauses = (0..5).map(|_| SECOND / 4 * random.below(4) as u32);
        let visitors = Visitors {
            pauses: RefCell::new(pauses.collect()),
            fails: random.below(3) == 0,
            _open: Counted::new(&open, 1),
        };
        let (guests, seed) = (Rc::clone(&inside), random.below(1000) as u64);
        let server = Server::new(visitors, move |visit| {
            let _guest = Counted::new(&guests, 1);
            assert!(guests.get() <= places, "{} are inside", guests.get());
            let random = Random::new(seed + visit);
            (0..3).for_each(|_| pause(&random));
        });
        let server = server.max_connections(places);
        let handle = server.handle();
        let serving = spawn(move || server.serve());
        for _ in 0..random.below(3) {
            pause(random);
            match random.below(4) {
                0 => serving.kill(),
                1 => handle.stop(Duration::ZERO),
                _ => handle.stop(SECOND),
            }
        }
        pause(random);
        handle.stop(2 * SECOND);
        match serving.join() {
            Ok(_) => assert_eq!((open.get(), inside.get()), (0, 0), "SERVER-2"),
            Err(error) => assert!(error.is_killed(), "{error}"),
        }
        sleep(SECOND / 4); // One that was killed has told all to end, and waited for nobody.
        assert_eq!((open.get(), inside.get()), (0, 0));
        assert_nothing_left();
    });
}
