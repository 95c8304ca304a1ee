//! Forks and execs from greenlets, each in a process of its own: the peers' list, item 16.

#![expect(unsafe_code, reason = "fork")]

use std::{
    cell::Cell,
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Command, Stdio},
    rc::Rc,
    time::Duration,
};

use greenloop::{
    DelayedCallError, RunError,
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, fork},
    reactor, run, scope, sleep, spawn,
    task::{coiterate, cooperate},
    try_run, wait_for_deferred, yield_now,
};

use crate::support::{Dropped, Trace, in_a_process_of_its_own};

const AGES: Duration = Duration::from_secs(3600);

/// The exit code of a child whose assertions held.
const GOOD: i32 = 7;

fn forked(child: impl FnOnce()) -> Child {
    // SAFETY: the process has no thread but libtest's, which waits for this one and holds no lock.
    let forked = unsafe {
        fork(|| {
            child();
            GOOD
        })
    };
    forked.unwrap()
}

#[track_caller]
fn assert_good(child: &Child) {
    assert_eq!(child.wait().unwrap().code(), Some(GOOD), "{child:?}");
}

#[track_caller]
fn alone(test: &str, body: fn()) {
    in_a_process_of_its_own(&format!("fork::{test}"), body);
}

/// An echo over two sockets of a new reactor: it waits, spawns, sleeps.
fn use_a_reactor() {
    run(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        spawn(move || listener.accept()?.0.write_all(b"welcome"));
        let mut text = String::new();
        TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "welcome");
        sleep(Duration::from_millis(1));
        scope(|s| s.spawn(yield_now).join().unwrap());
    });
}

/// gevent's goes on with all of its greenlets in the child, which its users complain of.
#[test]
fn only_the_forking_greenlet_lives_on_in_the_child() {
    alone("only_the_forking_greenlet_lives_on_in_the_child", || {
        run(|| {
            let (trace, ran) = (Trace::default(), Rc::new(Cell::new(0)));
            let (unwound, counter) = (trace.clone(), Rc::clone(&ran));
            let other = spawn(move || {
                let _unwound = Dropped(unwound, "unwound");
                loop {
                    yield_now();
                    counter.set(counter.get() + 1);
                }
            });
            yield_now();
            yield_now();
            let before = ran.get();
            assert!(before > 0);
            let child = forked(|| {
                use_a_reactor();
                use_a_reactor();
                assert_eq!((ran.get(), trace.taken().len()), (before, 0));
            });
            assert_good(&child);
            assert!(ran.get() > before, "it runs while the parent waits");
            assert_good(&child);
            other.kill();
            assert!(other.join().unwrap_err().is_killed());
            assert_eq!(trace.taken(), ["unwound"]);
        });
    });
}

/// The child has the same epoll as the parent, and the same numbers of descriptors.
#[test]
fn the_parents_waits_and_timers_are_untouched() {
    alone("the_parents_waits_and_timers_are_untouched", || {
        run(|| {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let number = far.as_raw_fd();
            let reader = spawn(move || {
                let mut byte = [0];
                far.read_exact(&mut byte).map(|()| byte)
            });
            let sleeper = spawn(|| sleep(Duration::from_millis(20)));
            yield_now(); // Both wait, and the poller knows of one.
            let child = forked(|| {
                run(|| {
                    // SAFETY: in the child, nobody uses it any more.
                    unsafe { libc::close(number) };
                    let (mut near, mut far) = UnixStream::pair().unwrap();
                    assert!([near.as_raw_fd(), far.as_raw_fd()].contains(&number));
                    let waiting = spawn(move || near.read(&mut [0]).and(far.read(&mut [0])));
                    yield_now();
                    waiting.kill();
                });
                use_a_reactor();
            });
            assert_good(&child);
            assert!(!reader.is_finished());
            near.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), *b"x");
            sleeper.join().unwrap();
        });
    });
}

/// A call that was scheduled in the parent has a timer there, whose number is another's here.
#[test]
fn a_delayed_call_of_the_parent_touches_no_timer_of_the_childs() {
    alone("a_delayed_call_of_the_parent_touches_no_timer_of_the_childs", || {
        run(|| {
            let call = reactor().call_later(AGES, || ());
            let child = forked(|| {
                run(|| {
                    let sleeper = spawn(|| sleep(Duration::from_millis(2)));
                    yield_now(); // Its timer is the first one here.
                    assert_eq!(call.reset(AGES), Err(DelayedCallError::AlreadyCancelled));
                    assert_eq!(call.cancel(), Err(DelayedCallError::AlreadyCancelled));
                    sleeper.join().unwrap();
                });
            });
            assert_good(&child);
            assert_eq!(call.cancel(), Ok(()));
        });
    });
}

/// However a process forks: `libc::fork`, here.
#[test]
fn the_child_of_any_fork_has_no_reactor_and_may_run_one() {
    alone("the_child_of_any_fork_has_no_reactor_and_may_run_one", || {
        run(|| {
            let (mut stream, _far) = UnixStream::pair().unwrap();
            // SAFETY: as in `forked`; the child ends with `_exit`.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                let error = stream.read(&mut [0]).unwrap_err().to_string();
                assert!(error.contains("inside greenloop::run"), "{error}");
                use_a_reactor();
                // SAFETY: it takes any number.
                unsafe { libc::_exit(GOOD) };
            }
            let pid = rustix::process::Pid::from_raw(pid);
            let options = rustix::process::WaitOptions::empty();
            let (_, status) = rustix::process::waitpid(pid, options).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(GOOD));
        });
    });
}

#[test]
fn a_wait_for_a_child_parks_and_a_kill_leaves_the_child() {
    alone("a_wait_for_a_child_parks_and_a_kill_leaves_the_child", || {
        run(|| {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let child = Rc::new(forked(|| {
                run(|| far.read_exact(&mut [0])).unwrap();
            }));
            let waiting = Rc::clone(&child);
            let waiter = spawn(move || waiting.wait());
            sleep(Duration::from_millis(2));
            assert!(!waiter.is_finished());
            waiter.kill();
            assert!(waiter.join().unwrap_err().is_killed());
            near.write_all(b"x").unwrap();
            assert_good(&child);
            assert!(child.id() > 0);
            let signalled = forked(|| std::process::abort());
            assert_eq!(signalled.wait().unwrap().signal(), Some(libc::SIGABRT));
        });
        // Outside a run as well; there only the wait needs one.
        let child = forked(use_a_reactor);
        let error = child.wait().unwrap_err();
        assert!(error.to_string().contains("inside greenloop::run"), "{error}");
        run(|| assert_good(&child));
    });
}

#[test]
fn all_who_wait_for_a_child_are_told_how_it_ended() {
    alone("all_who_wait_for_a_child_are_told_how_it_ended", || {
        run(|| {
            let (mut near, mut far) = UnixStream::pair().unwrap();
            let child = Rc::new(forked(|| {
                run(|| far.read_exact(&mut [0])).unwrap();
            }));
            let waiters = [Rc::clone(&child), Rc::clone(&child)];
            let waiters = waiters.map(|child| spawn(move || child.wait()));
            yield_now();
            near.write_all(b"x").unwrap();
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap().unwrap().code(), Some(GOOD));
            }
        });
    });
}

/// What a child panics with may panic, too: that must not lead into the parent's frames.
#[test]
fn a_child_never_returns_whatever_it_panics_with() {
    struct Worse;
    impl Drop for Worse {
        fn drop(&mut self) {
            panic!("worse");
        }
    }
    alone("a_child_never_returns_whatever_it_panics_with", || {
        run(|| {
            let child = forked(|| std::panic::panic_any(Worse));
            assert_eq!(child.wait().unwrap().code(), Some(101));
        });
    });
}

#[test]
fn names_are_looked_up_in_the_child_and_in_its_child() {
    alone("names_are_looked_up_in_the_child_and_in_its_child", || {
        fn resolve() {
            use greenloop::net::ToSocketAddrs;
            assert!("localhost:80".to_socket_addrs().unwrap().next().is_some());
        }
        run(|| {
            resolve();
            let child = forked(|| {
                run(|| {
                    resolve();
                    assert_good(&forked(|| run(resolve)));
                });
            });
            assert_good(&child);
        });
    });
}

/// The child's copy of the thread's cooperator said that somebody makes its steps.
#[test]
fn the_cooperator_of_the_thread_begins_anew_in_the_child() {
    alone("the_cooperator_of_the_thread_begins_anew_in_the_child", || {
        run(|| {
            let steps = Rc::new(Cell::new(0));
            let count = Rc::clone(&steps);
            let parents = cooperate(std::iter::repeat_with(move || count.set(count.get() + 1)));
            yield_now();
            assert!(steps.get() > 0);
            let child = forked(|| {
                let before = steps.get();
                let ended = try_run(|| wait_for_deferred(coiterate([(), ()])));
                assert!(ended.is_ok_and(|ended| ended.is_ok()));
                assert_eq!(steps.get(), before, "the parent's task is the parent's");
                assert!(parents.ended().is_none());
            });
            assert_good(&child);
            assert!(parents.ended().is_none());
        });
    });
}

#[test]
fn a_child_that_panics_or_would_wait_for_ever_says_so() {
    alone("a_child_that_panics_or_would_wait_for_ever_says_so", || {
        run(|| {
            spawn(|| sleep(AGES));
            yield_now();
            let child = forked(|| panic!("in the child"));
            assert_eq!(child.wait().unwrap().code(), Some(101));
            // The parent's timer is not the child's.
            let child = forked(|| {
                let (_resolver, deferred) = greenloop::Deferred::<()>::new();
                let ended = try_run(|| greenloop::wait_for_deferred(deferred));
                assert!(matches!(ended, Err(RunError::WouldBlockForever(_))));
            });
            assert_good(&child);
        });
    });
}

/// std's `Command` forks in C, and its child never meets a reactor.
#[test]
fn programs_are_started_from_greenlets_and_inherit_no_descriptor() {
    alone("programs_are_started_from_greenlets_and_inherit_no_descriptor", || {
        let list = || {
            let output = Command::new("ls").arg("/proc/self/fd").stdin(Stdio::null()).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let before = list();
        run(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let _open = (listener.accept().unwrap(), UnixStream::pair().unwrap(), stream);
            #[cfg(feature = "signal")]
            let _signals = greenloop::signal::Signals::new([greenloop::signal::Signal::User1]);
            let _child = forked(|| ());
            assert_eq!(spawn(list).join().unwrap(), before);
        });
    });
}

#[test]
fn pre_exec_and_exec_work_on_a_greenlet() {
    alone("pre_exec_and_exec_work_on_a_greenlet", || {
        run(|| {
            spawn(|| sleep(AGES));
            yield_now();
            let mut command = Command::new("sh");
            command.args(["-c", "exit 5"]);
            // SAFETY: a system call that allocates nothing.
            unsafe {
                command.pre_exec(|| rustix::process::chdir("/").map_err(io::Error::from));
            }
            assert_eq!(command.status().unwrap().code(), Some(5));
            let child = forked(|| {
                let error = Command::new("sh").args(["-c", "exit 6"]).exec();
                unreachable!("{error}");
            });
            assert_eq!(child.wait().unwrap().code(), Some(6));
            let turns = reactor().turns_count();
            yield_now();
            assert!(reactor().turns_count() >= turns, "the parent goes on");
        });
    });
}

/// A signal that the child gets is the child's.
#[cfg(feature = "signal")]
#[test]
fn signals_are_those_of_one_process() {
    use greenloop::signal::{Signal, Signals};
    alone("signals_are_those_of_one_process", || {
        run(|| {
            let signals = Signals::new([Signal::User1]).unwrap();
            let child = forked(|| {
                // SAFETY: it takes a number.
                unsafe { libc::raise(libc::SIGUSR1) };
                assert_eq!(signals.try_wait(), None);
                run(|| {
                    let own = Signals::new([Signal::User1]).unwrap();
                    // SAFETY: it takes a number.
                    unsafe { libc::raise(libc::SIGUSR1) };
                    assert_eq!(own.wait().unwrap(), Signal::User1);
                });
            });
            assert_good(&child);
            assert_eq!(signals.wait_timeout(Duration::from_millis(1)).unwrap(), None);
            // SAFETY: it takes a number.
            unsafe { libc::raise(libc::SIGUSR1) };
            assert_eq!(signals.wait().unwrap(), Signal::User1);
        });
    });
}
