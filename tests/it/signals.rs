//! Signals. Each test raises signals of its own kind, so that they may run at once.

use std::{
    io,
    rc::Rc,
    sync::mpsc,
    task::{Context, Waker},
    thread,
    time::Duration,
};

use greenloop::{
    Greenlet, run,
    signal::{Signal, Signals},
    sleep, spawn, testing, wait_for_deferred, wait_for_future, wait_for_greenlet, yield_now,
};
use rustix::process::Signal as Kind;

use crate::support::in_a_process_of_its_own;

/// To this thread, so that the handler has run when it returns.
#[expect(unsafe_code, reason = "raise(3)")]
fn raise(kind: Kind) {
    // SAFETY: it takes a number and nothing else.
    assert_eq!(unsafe { libc::raise(kind.as_raw()) }, 0);
}

fn waiting(signals: &Rc<Signals>) -> Greenlet<io::Result<Signal>> {
    let signals = Rc::clone(signals);
    let greenlet = spawn(move || signals.wait());
    yield_now();
    greenlet
}

/// Runs alone, since signals are the process's.
#[track_caller]
fn alone(test: &str, body: fn()) {
    in_a_process_of_its_own(&format!("signals::{test}"), || run(body));
}

/// The one thing that main waits for is no wait for ever.
#[test]
fn main_may_wait_for_a_signal_alone() {
    alone("main_may_wait_for_a_signal_alone", || {
        let signals = Signals::new([Signal::Interrupt, Signal::Terminate]).unwrap();
        let thread = thread::spawn(|| {
            thread::sleep(Duration::from_millis(20)); // Late enough for main to be asleep.
            raise(Kind::TERM);
        });
        assert_eq!(signals.wait().unwrap(), Signal::Terminate);
        thread.join().unwrap();
    });
}

#[test]
fn a_signal_between_two_waits_is_not_lost_and_several_are_one() {
    alone("a_signal_between_two_waits_is_not_lost_and_several_are_one", || {
        let signals = Signals::new([Signal::User1, Signal::Hangup, Signal::User1]).unwrap();
        assert_eq!(signals.try_wait(), None);
        raise(Kind::USR1);
        raise(Kind::HUP);
        raise(Kind::USR1);
        let soon = Duration::from_millis(1);
        assert_eq!(signals.wait().unwrap(), Signal::Hangup);
        assert_eq!(signals.wait_timeout(soon).unwrap(), Some(Signal::User1));
        assert_eq!(signals.wait_timeout(soon).unwrap(), None);
        raise(Kind::HUP);
        assert_eq!(signals.try_wait(), Some(Signal::Hangup));
        // The eventfd was left readable: that is no signal.
        assert_eq!(signals.wait_timeout(soon).unwrap(), None);
        assert_eq!(format!("{signals:?}"), "Signals([Hangup, User1])");
    });
}

#[test]
fn everybody_who_asked_is_told_also_on_other_hubs() {
    alone("everybody_who_asked_is_told_also_on_other_hubs", || {
        let (tell, told) = mpsc::channel();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let tell = tell.clone();
                thread::spawn(move || {
                    run(|| {
                        let signals = Signals::new([Signal::User1]).unwrap();
                        tell.send(()).unwrap();
                        signals.wait().unwrap()
                    })
                })
            })
            .collect();
        (0..3).for_each(|_| told.recv().unwrap());
        let here = [Signals::new([Signal::User1]).unwrap(), Signals::new([Signal::User1]).unwrap()];
        raise(Kind::USR1);
        for signals in here {
            assert_eq!(signals.wait().unwrap(), Signal::User1);
        }
        for thread in threads {
            assert_eq!(thread.join().unwrap(), Signal::User1);
        }
    });
}

#[test]
fn one_of_those_who_wait_by_the_same_signals_has_it() {
    alone("one_of_those_who_wait_by_the_same_signals_has_it", || {
        let signals = Rc::new(Signals::new([Signal::User1]).unwrap());
        let (first, second) = (waiting(&signals), waiting(&signals));
        raise(Kind::USR1);
        assert_eq!(first.join().unwrap().unwrap(), Signal::User1);
        assert!(!second.is_finished());
        // A kill takes none away.
        second.kill();
        raise(Kind::USR1);
        assert!(second.join().unwrap_err().is_killed());
        assert_eq!(signals.wait().unwrap(), Signal::User1);
    });
}

#[test]
fn futures_and_deferreds_wait_for_signals() {
    alone("futures_and_deferreds_wait_for_signals", || {
        let mut signals = Signals::new([Signal::User1]).unwrap();
        // One that is polled and dropped has taken nothing.
        let mut context = Context::from_waker(Waker::noop());
        assert!(signals.poll_wait(&mut context).is_pending());
        spawn(|| raise(Kind::USR1));
        let got = wait_for_future(async { signals.wait_async().await });
        assert_eq!(got.unwrap(), Signal::User1);
        assert!(signals.poll_wait(&mut context).is_pending());
        raise(Kind::USR1);
        // Not before the poller has told of it: only a wake makes one look again.
        let again = wait_for_future(std::future::poll_fn(|cx| signals.poll_wait(cx)));
        assert_eq!(again.unwrap(), Signal::User1);
        let deferred = wait_for_greenlet(spawn(move || signals.wait()));
        yield_now();
        raise(Kind::USR1);
        assert!(matches!(wait_for_deferred(deferred), Ok(Ok(Signal::User1))));
    });
}

/// What the docs say of the time after: nothing happens, and others' handlers go on.
#[test]
fn after_the_last_has_gone_the_signal_does_nothing_and_others_are_still_called() {
    alone("after_the_last_has_gone_the_signal_does_nothing_and_others_are_still_called", || {
        use std::sync::atomic::{AtomicU32, Ordering};
        static CALLS: AtomicU32 = AtomicU32::new(0);
        extern "C" fn before(_: libc::c_int) {
            CALLS.fetch_add(1, Ordering::SeqCst);
        }
        // SAFETY: a handler that does one atomic operation.
        #[expect(unsafe_code, reason = "another handler of the process")]
        unsafe {
            libc::signal(libc::SIGUSR2, before as *const () as libc::sighandler_t)
        };
        let signals = Signals::new([Signal::User2, Signal::Terminate]).unwrap();
        raise(Kind::USR2);
        assert_eq!(signals.wait().unwrap(), Signal::User2);
        assert_eq!(CALLS.load(Ordering::SeqCst), 1);
        drop(signals);
        raise(Kind::TERM);
        raise(Kind::USR2);
        assert_eq!(CALLS.load(Ordering::SeqCst), 2);
        // Who asks now has what comes now.
        let signals = Signals::new([Signal::Terminate]).unwrap();
        assert_eq!(signals.try_wait(), None);
        raise(Kind::TERM);
        assert_eq!(signals.wait().unwrap(), Signal::Terminate);
    });
}

/// A dump at SIGQUIT takes the signal from nobody, whoever asked first, and however often.
#[test]
fn signals_that_dump_are_waited_for_as_well() {
    alone("signals_that_dump_are_waited_for_as_well", || {
        let before = Signals::new([Signal::Quit]).unwrap();
        greenloop::dump_on_sigquit().unwrap();
        let after = Signals::new([Signal::Quit]).unwrap();
        greenloop::dump_on_sigquit().unwrap();
        raise(Kind::QUIT);
        assert_eq!(after.try_wait(), Some(Signal::Quit));
        assert_eq!(before.try_wait(), Some(Signal::Quit));
    });
}

/// No handler is installed until somebody asks.
#[test]
fn a_run_alone_leaves_signals_to_their_default() {
    if std::env::var_os("GREENLOOP_TEST_SIGNAL").is_some() {
        run(yield_now);
        raise(Kind::TERM);
        unreachable!("it is the end of the process");
    }
    use std::os::unix::process::ExitStatusExt;
    let test = "signals::a_run_alone_leaves_signals_to_their_default";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env("GREENLOOP_TEST_SIGNAL", "1")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
}

#[test]
fn signals_are_send_and_work_in_virtual_time() {
    fn check<T: Send + Sync>() {}
    check::<Signals>();
    in_a_process_of_its_own("signals::signals_are_send_and_work_in_virtual_time", || {
        testing::run(|| {
            let signals = Signals::new([Signal::User1]).unwrap();
            let hour = Duration::from_secs(3600);
            assert_eq!(signals.wait_timeout(hour).unwrap(), None);
            spawn(move || {
                sleep(hour);
                raise(Kind::USR1);
            });
            assert_eq!(signals.wait_timeout(2 * hour).unwrap(), Some(Signal::User1));
        });
        let outside = Signals::new([Signal::User1]).unwrap();
        let error = outside.wait().unwrap_err();
        assert!(error.to_string().contains("inside greenloop::run"), "{error}");
    });
}
