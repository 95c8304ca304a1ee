//! What several files of tests need: traces, reports, and a bound for what must not hang.

use std::{
    cell::RefCell,
    future::Future,
    panic,
    pin::{Pin, pin},
    process::Command,
    rc::Rc,
    sync::{Arc, mpsc},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

use greenloop::set_unhandled_hook;

/// What happened, in order.
#[derive(Clone, Default)]
pub(crate) struct Trace(pub(crate) Rc<RefCell<Vec<String>>>);

impl Trace {
    pub(crate) fn add(&self, what: impl ToString) {
        self.0.borrow_mut().push(what.to_string());
    }

    /// A function that adds `what`.
    pub(crate) fn adds(&self, what: impl ToString) -> impl FnOnce() + 'static {
        let (trace, what) = (self.clone(), what.to_string());
        move || trace.add(what)
    }

    pub(crate) fn taken(&self) -> Vec<String> {
        self.0.take()
    }
}

/// Says so when it is dropped.
pub(crate) struct Dropped(pub(crate) Trace, pub(crate) &'static str);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.add(self.1);
    }
}

/// What was reported as unhandled on this thread while `f` ran.
pub(crate) fn reports_of<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    let seen = Trace::default();
    let sink = seen.clone();
    let before = set_unhandled_hook(Some(Box::new(move |report| sink.add(report))));
    let value = f();
    set_unhandled_hook(before);
    (value, seen.taken())
}

/// Runs `f` on a thread of its own, so that waiting for ever is a failure and not a hang.
#[track_caller]
pub(crate) fn assert_ends<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || done.send(f()));
    match ended.recv_timeout(Duration::from_secs(20)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            panic::resume_unwind(thread.join().expect_err("it sent nothing"))
        }
    }
}

/// Polls once.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// The simplest of executors, which knows nothing of ours: it blocks its thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unparks(thread::Thread);
    impl Wake for Unparks {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unparks(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Runs `body` in a process of its own, for what could abort: this test again, with a sign.
#[track_caller]
pub(crate) fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) {
    const SIGN: &str = "GREENLOOP_TEST_ALONE";
    if std::env::var_os(SIGN).is_some() {
        return body();
    }
    let mut alone = Command::new(std::env::current_exe().unwrap());
    alone.args([test, "--exact", "--nocapture"]).env(SIGN, "1");
    let output = alone.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{text}", output.status);
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no test {test}");
}
