//! Scenes of child processes, forks, threads' threads, and libraries.

use std::{
    cell::RefCell,
    ffi::CStr,
    io::{Read, Write},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread as os,
};

use greenloop::{testing::Random, thread};

use crate::{
    stage::{Party, mortal_pause, own, party, pause},
    watch::step,
};

/// How many thread-locals with a destructor there are.
pub(crate) static LOCALS: AtomicUsize = AtomicUsize::new(0);

/// One of them; its end takes a while, in which it is used.
struct Local(Vec<u8>);

impl Local {
    fn new() -> Local {
        LOCALS.fetch_add(1, Ordering::Relaxed);
        Local(vec![1; 100])
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        os::yield_now();
        assert!(self.0.iter().all(|byte| *byte == self.0[0]));
        LOCALS.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    static LOCAL: RefCell<Local> = RefCell::new(Local::new());
}

/// Writes one's own mark on one's own thread-local, and finds it again.
fn mark(with: u8, random: &Random) {
    LOCAL.with_borrow_mut(|local| local.0.fill(with));
    for _ in 0..4 {
        mortal_pause(random);
        LOCAL.with_borrow(|local| assert!(local.0.iter().all(|byte| *byte == with)));
    }
}

/// Programs that are started, fed and waited for. Nobody would wait for a victim's.
pub(crate) fn children(random: &Random, _: bool) -> Vec<Party> {
    let random = own(random);
    let work = move || match random.below(3) {
        0 => assert!(Command::new("true").status().unwrap().success()),
        1 => {
            let mut cat = Command::new("cat");
            let cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            let mut child = cat.spawn().unwrap();
            step();
            child.stdin.take().unwrap().write_all(b"fed").unwrap();
            let mut text = String::new();
            child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "fed");
            assert!(child.wait().unwrap().success());
        }
        _ => {
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            pause(&random);
            child.kill().unwrap();
            assert!(!child.wait().unwrap().success());
        }
    };
    vec![party(work).immortal()]
}

/// A fork in the midst of everything, whose child allocates, and ends.
pub(crate) fn forks(random: &Random, _: bool) -> Vec<Party> {
    let status = 1 + random.below(100) as i32;
    let random = own(random);
    let work = move || {
        pause(&random);
        // SAFETY: the child does what may be done in one, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let text = std::hint::black_box(vec![status; 100]);
            os::yield_now();
            // SAFETY: it takes any number.
            unsafe { libc::_exit(text[99]) };
        }
        assert!(child > 0);
        let mut found = 0;
        // SAFETY: room for a status.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut found, 0) }, child);
        assert!(libc::WIFEXITED(found) && libc::WEXITSTATUS(found) == status, "{found:x}");
    };
    vec![party(work).immortal()]
}

/// Threads that spawn threads, virtual ones and others, with thread-locals; some are killed.
pub(crate) fn families(random: &Random, _: bool) -> Vec<Party> {
    let virtual_family = own(random);
    let os_family = own(random);
    let virtually = move || {
        let random = virtual_family;
        mark(1, &random);
        let child = |with| {
            let random = own(&random);
            thread::spawn(move || mark(with, &random))
        };
        let children = [2, 3, 4].map(child);
        children[random.below(3)].kill();
        pause(&random);
        for child in children {
            if let Err(payload) = child.join() {
                assert!(payload.is::<greenloop::Killed>());
            }
        }
        let own_number = random.below(1000);
        let sum = thread::scope(|scope| {
            let other = own(&random);
            let first = scope.spawn(|| own_number);
            let second = scope.spawn(move || {
                mark(5, &other);
                1
            });
            first.join().unwrap() + second.join().unwrap()
        });
        assert_eq!(sum, own_number + 1);
    };
    let really = move || {
        let random = os_family;
        mark(6, &random);
        let child = |with| {
            let random = own(&random);
            os::spawn(move || {
                mark(with, &random);
                with
            })
        };
        let children = [7, 8].map(child);
        let ends = children.map(|child| child.join().unwrap());
        assert_eq!(ends, [7, 8]);
        let (other, borrowed) = (own(&random), [1, 2]);
        let sum = os::scope(|scope| {
            let borrowed = &borrowed;
            let child = scope.spawn(move || {
                mark(9, &other);
                borrowed.iter().sum::<i32>()
            });
            child.join().unwrap()
        });
        assert_eq!(sum, 3);
    };
    // Killed, the first would leave its children behind; std asserts that its join succeeds, which
    // a kill prevents.
    vec![party(virtually).on_a_hub().immortal(), party(really).immortal()]
}

/// Loads a library, asks it something, and lets go of it.
pub(crate) fn libraries(random: &Random, _: bool) -> Vec<Party> {
    let random = own(random);
    vec![party(move || {
        for _ in 0..3 {
            // SAFETY: its constructors do no harm.
            let library = unsafe { libc::dlopen(c"libm.so.6".as_ptr(), libc::RTLD_NOW) };
            assert!(!library.is_null());
            pause(&random);
            // SAFETY: it is loaded.
            let found = unsafe { libc::dlsym(library, c"cbrt".as_ptr()) };
            assert!(!found.is_null());
            // SAFETY: C's function of this name and type.
            let cbrt: extern "C" fn(f64) -> f64 = unsafe { std::mem::transmute(found) };
            assert!((cbrt(27.0) - 3.0).abs() < 1e-9);
            // SAFETY: loaded once more than let go of.
            assert_eq!(unsafe { libc::dlclose(library) }, 0);
            pause(&random);
            // SAFETY: there is none of this name.
            let none = unsafe { libc::dlopen(c"libnowhere.so".as_ptr(), libc::RTLD_NOW) };
            assert!(none.is_null());
            pause(&random);
            // SAFETY: it takes nothing.
            let error = unsafe { libc::dlerror() };
            // SAFETY: a string, for there was an error on this thread.
            let text = unsafe { CStr::from_ptr(error) };
            assert!(text.to_string_lossy().contains("libnowhere"));
        }
    })]
}
