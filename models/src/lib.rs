//! Models of what greenloop's threads share: each is run in every order that the memory model
//! allows, by loom.
//!
//! The files under test are greenloop's own, included by path. Around them stand models of what they
//! use: a poller that sleeps until it is woken, a hub that notes its wakes. Run them by
//! `cargo test --release -p greenloop-models`.

#![cfg(test)]

mod atomics;

/// A poller that sleeps until it is woken; a wake that comes before is remembered, as epoll does
/// with an eventfd.
mod sys {
    use loom::sync::{Arc, Condvar, Mutex};

    #[derive(Clone, Default)]
    pub(crate) struct PollerWaker(Arc<(Mutex<bool>, Condvar)>);

    impl PollerWaker {
        pub(crate) fn wake(&self) {
            *self.0.0.lock().unwrap() = true;
            self.0.1.notify_one();
        }

        pub(crate) fn sleep(&self) {
            let mut is_woken = self.0.0.lock().unwrap();
            while !*is_woken {
                is_woken = self.0.1.wait(is_woken).unwrap();
            }
            *is_woken = false;
        }
    }
}

mod reactor {
    #[path = "../../../src/reactor/inbox.rs"]
    mod inbox;
    pub(crate) use inbox::{Envelope, Inbox};
    mod models;

    use crate::sys::PollerWaker;

    /// What a reactor does: hands what is there to `take`, and sleeps while there is nothing, until
    /// `take` says that it is enough; it is asked with `None` too, before each sleep.
    pub(crate) fn serve<M: Send>(
        inbox: &Inbox<M>,
        waker: &PollerWaker,
        mut take: impl FnMut(Option<M>) -> bool,
    ) {
        loop {
            let mut is_enough = false;
            inbox.drain(&mut |message| is_enough |= take(Some(message)));
            if is_enough || take(None) {
                return;
            }
            if inbox.begin_sleep() {
                waker.sleep();
                inbox.end_sleep();
            }
        }
    }

    /// What a reactor does that does not sleep.
    pub(crate) fn drain<M: Send>(inbox: &Inbox<M>, mut take: impl FnMut(M)) {
        inbox.drain(&mut take);
    }
}

mod hub;

/// A lock for moments: loom cannot wait by spinning.
mod latch {
    use loom::sync::{Mutex, MutexGuard};

    pub(crate) struct Latch<T>(Mutex<T>);

    impl<T> Latch<T> {
        pub(crate) fn new(value: T) -> Latch<T> {
            Latch(Mutex::new(value))
        }

        pub(crate) fn hold(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }

        /// No model forks.
        #[expect(unsafe_code, reason = "as greenloop's own")]
        pub(crate) unsafe fn renew(&self, _: T) {
            unreachable!()
        }
    }
}

mod interpose;

/// Runs `f` in every order in which threads are interrupted at most three times: what loom's authors
/// found to be enough for nearly all that goes wrong. All orders would take hours.
fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}
