//! Names, child processes, OS threads and libraries, seen from virtual threads of a program that
//! says `interpose!()`.
//!
//! In most of these, one virtual thread waits for what another one does: a call that blocked the
//! hub would never return.

#![expect(unsafe_code, reason = "it calls C by its names")]

#[path = "guests/c.rs"]
mod c;
#[path = "guests/c11.rs"]
mod c11;
#[path = "guests/forks.rs"]
mod forks;
#[path = "guests/frozen.rs"]
mod frozen;
#[path = "guests/identity.rs"]
mod identity;
#[path = "guests/loading.rs"]
mod loading;
#[path = "guests/of.rs"]
mod of;
#[path = "guests/printing.rs"]
mod printing;
#[path = "guests/quiet.rs"]
mod quiet;
#[path = "it/support.rs"]
#[expect(dead_code, reason = "another binary needs the rest")]
mod support;
#[path = "guests/valgrind.rs"]
mod valgrind;

use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    io,
    mem::zeroed,
    net::{SocketAddr, ToSocketAddrs},
    os::{
        fd::AsRawFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{Child, Command, Stdio},
    ptr::{null, null_mut},
    sync::mpsc,
};

use greenloop::thread;

greenloop::interpose!();

/// Runs `waits` on a virtual thread, and then `does` on another one, which must run for the first
/// to end. Gives what the first gives.
fn while_one_waits<T: Send + 'static>(
    waits: impl FnOnce() -> T + Send + 'static,
    does: impl FnOnce() + Send + 'static,
) -> T {
    greenloop::run(|| {
        let waits = thread::spawn(waits);
        greenloop::yield_now();
        let does = thread::spawn(does);
        let result = waits.join().unwrap();
        does.join().unwrap();
        result
    })
}

/// A child that ends when its input does.
fn cat() -> Child {
    Command::new("cat").stdin(Stdio::piped()).process_group(0).spawn().unwrap()
}

#[test]
fn virtual_threads_are_supported_here() {
    assert_eq!(thread::support(), thread::Support::Virtual);
}

#[test]
fn a_wait_for_a_child_lets_others_run() {
    let mut child = cat();
    let input = child.stdin.take();
    let status = while_one_waits(move || child.wait().unwrap(), move || drop(input));
    assert!(status.success());
}

#[test]
fn waitpid_lets_others_run_for_one_child_and_for_a_group() {
    for sign in [1, -1] {
        let mut child = cat();
        let input = child.stdin.take();
        let pid = child.id() as c_int;
        let (ended, status) = while_one_waits(
            move || {
                let mut status = -1;
                // SAFETY: room for a status.
                (unsafe { libc::waitpid(sign * pid, &raw mut status, 0) }, status)
            },
            move || drop(input),
        );
        assert_eq!((ended, status), (pid, 0));
        // It is told once.
        assert_eq!(child.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD));
    }
}

#[test]
fn waitid_is_told_of_a_stop() {
    let mut child = cat();
    let pid = child.id();
    let stopped = while_one_waits(
        move || {
            // SAFETY: numbers, and zeroes are one.
            let mut info: libc::siginfo_t = unsafe { zeroed() };
            // SAFETY: room for the answer.
            let result = unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, libc::WSTOPPED) };
            assert_eq!(result, 0, "{}", io::Error::last_os_error());
            // SAFETY: what waitid answers has one.
            (unsafe { info.si_pid() }, info.si_code)
        },
        // SAFETY: a signal to our child.
        move || assert_eq!(unsafe { libc::kill(pid as c_int, libc::SIGSTOP) }, 0),
    );
    assert_eq!(stopped, (pid as c_int, libc::CLD_STOPPED));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn nothing_to_wait_for_is_an_error_at_once() {
    greenloop::run(|| {
        let error = thread::run(|| {
            let own = std::process::id() as c_int;
            // SAFETY: no place for a status.
            assert_eq!(unsafe { libc::waitpid(own, null_mut(), 0) }, -1);
            io::Error::last_os_error().raw_os_error()
        });
        assert_eq!(error, Some(libc::ECHILD));
    });
}

#[test]
fn a_killed_wait_is_an_error_and_takes_nothing() {
    let mut child = cat();
    let pid = child.id() as c_int;
    greenloop::run(|| {
        let waits = thread::spawn(move || {
            // SAFETY: no place for a status.
            let result = unsafe { libc::waitpid(pid, null_mut(), 0) };
            (result, io::Error::last_os_error().raw_os_error())
        });
        greenloop::yield_now();
        waits.kill();
        assert_eq!(waits.join().unwrap(), (-1, Some(libc::ECANCELED)));
    });
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

unsafe extern "C" {
    fn vfork() -> libc::pid_t;
    fn gethostbyname(name: *const c_char) -> *mut libc::hostent;
    fn gethostbyname_r(
        name: *const c_char,
        entry: *mut libc::hostent,
        buffer: *mut c_char,
        length: usize,
        answer: *mut *mut libc::hostent,
        h_errno: *mut c_int,
    ) -> c_int;
}

#[test]
fn a_virtual_thread_forks() {
    for how in [libc::fork as unsafe extern "C" fn() -> c_int, vfork] {
        greenloop::run(|| {
            // A second one, which must not run in the child.
            let own = std::process::id();
            let other = thread::spawn(move || {
                thread::sleep(std::time::Duration::from_millis(5));
                if std::process::id() != own {
                    // SAFETY: it takes any number.
                    unsafe { libc::_exit(1) };
                }
            });
            let status = thread::run(move || {
                // SAFETY: the child allocates, waits for longer than the other, and ends.
                let child = unsafe { how() };
                if child == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    let number = format!("{}", 7).parse().unwrap();
                    // SAFETY: it takes any number.
                    unsafe { libc::_exit(number) };
                }
                let mut status = 0;
                // SAFETY: room for a status.
                assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
                status
            });
            assert_eq!(libc::WEXITSTATUS(status), 7);
            other.join().unwrap();
        });
    }
}

/// A fork that no handler of pthread_atfork(3) is told of: the child has a hub that is not its own,
/// and waits without it.
#[test]
fn a_virtual_thread_forks_past_libc() {
    greenloop::run(|| {
        let status = thread::run(|| {
            let (silent, _other) = UnixStream::pair().unwrap();
            let mut one = libc::pollfd { fd: silent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one live entry. The parent waits once, before.
            assert_eq!(unsafe { libc::poll(&raw mut one, 1, 1) }, 0);
            // It is ready to run, and must not in the child.
            let own = std::process::id();
            let other = thread::spawn(move || {
                if std::process::id() != own {
                    // SAFETY: it takes any number.
                    unsafe { libc::_exit(1) };
                }
            });
            let (signal, none) = (libc::c_long::from(libc::SIGCHLD), 0 as libc::c_long);
            // SAFETY: the child waits and ends. It has a copy of all memory, as of a fork(2).
            let child = unsafe { libc::syscall(libc::SYS_clone, signal, none, none, none, none) };
            if child == 0 {
                // SAFETY: one live entry.
                let ready = unsafe { libc::poll(&raw mut one, 1, 20) };
                // SAFETY: it takes any number.
                unsafe { libc::_exit(if ready == 0 { 7 } else { 2 }) };
            }
            other.join().unwrap();
            let (child, mut status) = (child as c_int, 0);
            // SAFETY: room for a status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            status
        });
        assert_eq!(libc::WEXITSTATUS(status), 7);
    });
}

/// A new FIFO; `cat` of it ends when somebody has opened it to write, and closed it.
fn fifo(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("greenloop-{}-{name}", std::process::id()));
    let path = path.to_str().unwrap().to_owned();
    let text = CString::new(path.as_str()).unwrap();
    // SAFETY: a string.
    assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
    path
}

#[test]
fn system_and_pclose_let_others_run() {
    let path = fifo("system");
    let text = CString::new(format!("cat {path}; exit 3")).unwrap();
    let writer = path.clone();
    let status = while_one_waits(
        // SAFETY: a string.
        move || unsafe { libc::system(text.as_ptr()) },
        move || drop(std::fs::OpenOptions::new().write(true).open(writer).unwrap()),
    );
    assert_eq!(libc::WEXITSTATUS(status), 3);
    let text = CString::new(format!("cat {path}; exit 4")).unwrap();
    let writer = path.clone();
    let status = while_one_waits(
        move || {
            // SAFETY: strings.
            let stream = unsafe { libc::popen(text.as_ptr(), c"r".as_ptr()) };
            assert!(!stream.is_null());
            // SAFETY: what popen gave, once.
            unsafe { libc::pclose(stream) }
        },
        move || drop(std::fs::OpenOptions::new().write(true).open(writer).unwrap()),
    );
    assert_eq!(libc::WEXITSTATUS(status), 4);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn names_are_looked_up() {
    greenloop::run(|| {
        let found = thread::run(|| {
            let found = ("localhost", 80).to_socket_addrs().unwrap();
            let literal = ("127.0.0.9", 80).to_socket_addrs().unwrap();
            found.chain(literal).collect::<Vec<SocketAddr>>()
        });
        assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert!(found.contains(&"127.0.0.9:80".parse().unwrap()), "{found:?}");
        assert!(found.len() >= 2);
        let missing = thread::run(|| ("no.such.name.invalid", 80).to_socket_addrs().map(drop));
        assert!(missing.is_err());
    });
}

/// The text of an entry's name, and its first address.
///
/// # Safety
///
/// An entry of gethostbyname(3).
unsafe fn read(entry: *const libc::hostent) -> (String, [u8; 4]) {
    // SAFETY: the caller's promise.
    let entry = unsafe { entry.as_ref() }.expect("it is found");
    assert_eq!((entry.h_addrtype, entry.h_length), (libc::AF_INET, 4));
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(entry.h_name) }.to_str().unwrap().to_owned();
    // SAFETY: as above.
    let first = unsafe { entry.h_addr_list.read() };
    // SAFETY: as above.
    (name, unsafe { first.cast::<[u8; 4]>().read() })
}

#[test]
fn each_virtual_thread_keeps_its_last_host() {
    greenloop::run(|| {
        let ask = |name: &'static CStr| {
            thread::spawn(move || {
                // SAFETY: a string.
                let entry = unsafe { gethostbyname(name.as_ptr()) };
                thread::yield_now();
                // SAFETY: nobody has asked since, on this thread.
                unsafe { read(entry) }
            })
        };
        let (a, b) = (ask(c"localhost"), ask(c"127.0.0.7"));
        assert_eq!(a.join().unwrap(), ("localhost".into(), [127, 0, 0, 1]));
        assert_eq!(b.join().unwrap(), ("127.0.0.7".into(), [127, 0, 0, 7]));
    });
}

#[test]
fn a_host_lies_in_the_callers_buffer() {
    greenloop::run(|| {
        for skipped in 0..9 {
            let told = thread::run(move || {
                // SAFETY: pointers and numbers, for which zeroes do.
                let mut entry: libc::hostent = unsafe { zeroed() };
                let (mut room, mut answer, mut h_errno) = ([0_u64; 64], null_mut(), 0);
                let start = (&raw mut room).cast::<c_char>().wrapping_add(skipped);
                // SAFETY: room of the length that is said.
                let error = unsafe {
                    gethostbyname_r(
                        c"localhost".as_ptr(),
                        &raw mut entry,
                        start,
                        500,
                        &raw mut answer,
                        &raw mut h_errno,
                    )
                };
                assert_eq!((error, answer), (0, &raw mut entry));
                let inside =
                    (&raw const room).addr()..(&raw const room).addr() + size_of_val(&room);
                for pointer in [entry.h_name.addr(), entry.h_addr_list.addr()] {
                    assert!(inside.contains(&pointer));
                }
                // SAFETY: what it has just answered.
                unsafe { read(answer) }
            });
            assert_eq!(told, ("localhost".into(), [127, 0, 0, 1]));
        }
        // Without room, it says so.
        let error = thread::run(|| {
            // SAFETY: pointers and numbers, for which zeroes do.
            let mut entry: libc::hostent = unsafe { zeroed() };
            let (mut room, mut answer, mut h_errno) = ([0; 8], null_mut(), 0);
            // SAFETY: room of the length that is said.
            unsafe {
                gethostbyname_r(
                    c"localhost".as_ptr(),
                    &raw mut entry,
                    room.as_mut_ptr(),
                    room.len(),
                    &raw mut answer,
                    &raw mut h_errno,
                )
            }
        });
        assert_eq!(error, libc::ERANGE);
    });
}

#[test]
fn a_join_of_an_os_thread_lets_others_run() {
    let (send, receive) = mpsc::channel();
    let value = while_one_waits(
        || std::thread::spawn(move || receive.recv().unwrap()).join().unwrap(),
        move || send.send(7).unwrap(),
    );
    assert_eq!(value, 7);
}

/// Blocks until the channel is closed; gives its argument.
extern "C" fn until_closed(receiver: *mut c_void) -> *mut c_void {
    // SAFETY: a boxed receiver, which is this thread's.
    let receiver = unsafe { Box::from_raw(receiver.cast::<mpsc::Receiver<()>>()) };
    let _ = receiver.recv();
    null_mut::<c_void>().wrapping_byte_add(5)
}

#[test]
fn a_join_that_is_killed_or_times_out_leaves_the_thread_joinable() {
    let (send, receive) = mpsc::channel::<()>();
    let mut os_thread = 0;
    let argument = Box::into_raw(Box::new(receive)).cast::<c_void>();
    greenloop::run(|| {
        os_thread = thread::run({
            let argument = argument.expose_provenance();
            move || {
                let argument = std::ptr::with_exposed_provenance_mut(argument);
                let mut id = 0;
                // SAFETY: the function takes what it is given.
                let error =
                    unsafe { libc::pthread_create(&raw mut id, null(), until_closed, argument) };
                assert_eq!(error, 0);
                id
            }
        });
        let joins = thread::spawn(move || {
            // SAFETY: it has not been joined.
            unsafe { libc::pthread_join(os_thread, null_mut()) }
        });
        greenloop::yield_now();
        joins.kill();
        assert_eq!(joins.join().unwrap(), libc::ECANCELED);
        let timed_out = thread::run(move || {
            let past = libc::timespec { tv_sec: 1, tv_nsec: 0 };
            unsafe extern "C" {
                fn pthread_timedjoin_np(
                    thread: libc::pthread_t,
                    value: *mut *mut c_void,
                    deadline: *const libc::timespec,
                ) -> c_int;
            }
            // SAFETY: it has not been joined.
            unsafe { pthread_timedjoin_np(os_thread, null_mut(), &raw const past) }
        });
        assert_eq!(timed_out, libc::ETIMEDOUT);
    });
    drop(send);
    let mut value = null_mut();
    // SAFETY: it has not been joined.
    assert_eq!(unsafe { libc::pthread_join(os_thread, &raw mut value) }, 0);
    assert_eq!(value.addr(), 5);
}

#[test]
fn nobody_joins_a_virtual_thread_by_its_handle() {
    greenloop::run(|| {
        let (own, other) = thread::run(|| {
            // SAFETY: it only tells who calls.
            let own = unsafe { libc::pthread_self() };
            // SAFETY: it is alive.
            let error = unsafe { libc::pthread_join(own, null_mut()) };
            // SAFETY: it is alive, and waits for us.
            let other = thread::run(move || unsafe { libc::pthread_join(own, null_mut()) });
            (error, other)
        });
        assert_eq!((own, other), (libc::EDEADLK, libc::EINVAL));
    });
}

#[test]
fn pthread_exit_ends_a_virtual_thread_alone() {
    unsafe extern "C-unwind" {
        fn pthread_exit(value: *mut c_void) -> !;
    }
    struct Dropped(mpsc::Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    let (send, receive) = mpsc::channel();
    greenloop::run(|| {
        let ended = thread::spawn(move || {
            let _dropped = Dropped(send);
            // SAFETY: what is in these frames is dropped.
            unsafe { pthread_exit(null_mut()) };
        });
        assert!(ended.join().is_err());
    });
    receive.recv().expect("its frames were unwound");
}

#[test]
fn a_virtual_thread_knows_its_stack() {
    greenloop::run(|| {
        thread::run(|| {
            // SAFETY: a structure of C's that is about to be written.
            let mut attributes: libc::pthread_attr_t = unsafe { zeroed() };
            // SAFETY: it only tells who calls.
            let own = unsafe { libc::pthread_self() };
            // SAFETY: the calling thread, and room for its attributes.
            assert_eq!(unsafe { libc::pthread_getattr_np(own, &raw mut attributes) }, 0);
            let (mut lowest, mut size) = (null_mut(), 0);
            // SAFETY: they were just written.
            let error = unsafe {
                libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut size)
            };
            assert_eq!(error, 0);
            let stack = lowest.addr()..lowest.addr() + size;
            assert!(stack.contains(&(&raw const attributes).addr()), "{stack:x?}");
            assert!(size < 4 << 20, "{size}: that of an OS thread");
        });
    });
}

#[test]
fn a_virtual_thread_loads_libraries_and_is_told_errors() {
    greenloop::run(|| {
        thread::run(|| {
            // SAFETY: libm has no constructor that does harm.
            let library = unsafe { libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null());
            // SAFETY: there is no such library.
            let none = unsafe { libc::dlopen(c"libnowhere.so".as_ptr(), libc::RTLD_NOW) };
            assert!(none.is_null());
            thread::yield_now();
            // SAFETY: it takes nothing.
            let error = unsafe { libc::dlerror() };
            // SAFETY: a string, for there was an error.
            let error = unsafe { CStr::from_ptr(error) };
            assert!(error.to_string_lossy().contains("libnowhere.so"), "{error:?}");
            // SAFETY: told once.
            assert!(unsafe { libc::dlerror() }.is_null());
        });
    });
}
