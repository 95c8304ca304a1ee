//! What a joiner is told, as an error of its own.

use std::{cell::Cell, error::Error, panic, time::Duration};

use greenloop::{Failure, JoinError, Killed, run, sleep, spawn, yield_now};

/// `?`, into a Failure.
fn failure_of<T>(ended: Result<T, JoinError>) -> Failure {
    fn pass<T>(ended: Result<T, JoinError>) -> Result<T, Failure> {
        Ok(ended?)
    }
    pass(ended).err().expect("it has failed")
}

/// `?`, into what any program uses.
fn boxed<T>(ended: Result<T, JoinError>) -> Box<dyn Error + Send + Sync> {
    fn pass<T>(ended: Result<T, JoinError>) -> Result<T, Box<dyn Error + Send + Sync>> {
        Ok(ended?)
    }
    pass(ended).err().expect("it has failed")
}

fn killed_with(reason: Option<&'static str>) -> Result<(), JoinError> {
    let greenlet = spawn(|| sleep(Duration::from_secs(3600)));
    yield_now();
    match reason {
        Some(reason) => greenlet.kill_with(Failure::msg(reason)),
        None => greenlet.kill(),
    }
    greenlet.join()
}

/// As from a Deferred that waits for it, so that errbacks need not know which way it came.
#[test]
fn a_join_error_is_the_failure_that_it_tells_of() {
    run(|| {
        let panicked = failure_of(spawn(|| -> () { panic!("so much for that") }).join());
        assert_eq!(panicked.panic_message(), Some("so much for that"));
        assert!(panicked.place().unwrap().contains(file!()), "{panicked:?}");
        assert!(panicked.into_panic().unwrap().is::<&str>());

        let killed = failure_of(killed_with(None));
        assert!(killed.is_cancelled(), "{killed:?}");

        let killed = failure_of(killed_with(Some("logged in elsewhere")));
        let reason = killed.downcast_ref::<Killed>().and_then(Killed::reason);
        assert_eq!(reason.unwrap().to_string(), "logged in elsewhere");

        // By any of the ways that make a Failure.
        let killed = Failure::new(killed_with(None).unwrap_err());
        assert!(killed.is_cancelled(), "{killed:?}");
        let late: Result<(), Failure> = killed_with(None).map_err(Failure::from);
        assert!(late.unwrap_err().is_cancelled());
    });
}

/// It is `Sync` whatever its payload is, which comes out as it went in.
#[test]
fn a_join_error_is_an_error_that_may_go_anywhere() {
    run(|| {
        let boxed = boxed(spawn(|| -> () { panic::panic_any(Cell::new(7_u32)) }).join());
        let error = std::thread::spawn(move || boxed).join().unwrap();
        let error = error.downcast::<JoinError>().unwrap();
        let payload = error.try_into_panic().unwrap();
        assert_eq!(payload.downcast_ref::<Cell<u32>>().map(Cell::get), Some(7));
    });
    let error = run(|| boxed(killed_with(None)));
    assert_eq!(error.to_string(), "the greenlet was killed");
}
