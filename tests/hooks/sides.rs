//! A test's body on a virtual thread, with others on virtual threads of the same hub, and once more
//! with others on OS threads.

use greenloop::thread;

use crate::call::on_a_virtual_thread;

/// What the others of a test are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// Virtual threads of the same hub: whoever blocks it, blocks them.
    Virtual,
    Os,
}

/// Runs `f` on a virtual thread, with either kind of others. That it does not end is a failure.
#[track_caller]
pub(crate) fn with_others(f: impl Fn(Others) + Send + Copy + 'static) {
    for others in [Others::Virtual, Others::Os] {
        on_a_virtual_thread(move || f(others));
    }
}

/// One of the others.
pub(crate) enum Other<T> {
    Virtual(thread::JoinHandle<T>),
    Os(std::thread::JoinHandle<T>),
}

impl Others {
    pub(crate) fn spawn<T: Send + 'static>(
        self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Other<T> {
        match self {
            Others::Virtual => Other::Virtual(thread::spawn(f)),
            Others::Os => Other::Os(std::thread::spawn(f)),
        }
    }
}

impl<T> Other<T> {
    /// Its value, or that of its panic.
    pub(crate) fn join(self) -> std::thread::Result<T> {
        match self {
            Other::Virtual(thread) => thread.join(),
            Other::Os(thread) => thread.join(),
        }
    }

    /// Its value.
    #[track_caller]
    pub(crate) fn value(self) -> T {
        self.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }
}

/// Panics, and nothing is printed.
pub(crate) fn fail() -> ! {
    std::panic::resume_unwind(Box::new("as expected"))
}

/// Panics in `f`, as expected.
#[track_caller]
pub(crate) fn failed<T>(f: impl FnOnce() -> T) {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    let payload = caught.err().expect("it panics");
    assert_eq!(payload.downcast_ref(), Some(&"as expected"));
}
