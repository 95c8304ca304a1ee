//! The waker that a greenlet lends, on a model of a hub: the thread that has none wakes by the
//! inbox.

pub(crate) mod park {
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Wake {
        Unpark { slot: u32, ticket: u64 },
        Trim,
    }
}

#[path = "../../../src/hub/waker.rs"]
pub(crate) mod waker;

use std::cell::RefCell;

use loom::{sync::Arc, thread};

use self::{park::Wake, waker::Shared};
use crate::{
    model,
    reactor::{Inbox, drain, serve},
    sys::PollerWaker,
};

pub(crate) enum Message {
    Wake(Wake),
}

/// Every thread of a model wakes as another thread would: by the inbox.
pub(crate) struct Hub {
    inbox: Arc<Inbox<Message>>,
    spare_wakers: RefCell<Vec<Arc<Shared>>>,
}

impl Hub {
    pub(crate) fn current() -> Option<&'static Hub> {
        None
    }

    pub(crate) fn inbox(&self) -> &Arc<Inbox<Message>> {
        &self.inbox
    }

    pub(crate) fn wake(&self, _: Wake) {
        unreachable!("no thread of a model has a hub");
    }
}

/// Waits as `wait_for_future` does: publishes a ticket, parks unless a wake came before, retracts.
/// Returns whether the inbox was needed.
fn park(hub: &Hub, waker: &PollerWaker, shared: &Shared, ticket: u64) -> bool {
    let mut was_needed = false;
    if !shared.publish(Wake::Unpark { slot: 3, ticket }) {
        was_needed = true;
        // A stale one names a ticket that is over (`WAKER-2`).
        let awaited = Wake::Unpark { slot: 3, ticket };
        serve(&hub.inbox, waker, |message| {
            message.is_some_and(|Message::Wake(wake)| wake == awaited)
        });
    }
    shared.retract();
    assert!(shared.take_wake(), "a wait ends with a wake");
    was_needed
}

fn hub() -> (Hub, PollerWaker) {
    let waker = PollerWaker::default();
    let inbox = Arc::new(Inbox::new(waker.clone()));
    (Hub { inbox, spare_wakers: RefCell::default() }, waker)
}

/// `WAKER-1`: a wait that nothing ends would be a deadlock, which loom reports.
#[test]
fn a_wake_beside_the_publishing_of_a_wait_is_not_lost() {
    model(|| {
        let (hub, poller) = hub();
        let shared = Shared::new(&hub);
        let theirs = Arc::clone(&shared);
        let other = thread::spawn(move || theirs.wake());
        park(&hub, &poller, &shared, 1);
        other.join().unwrap();
    });
}

/// Two wakes of one wait: the second may be one for the next wait, and is never lost to it.
#[test]
fn a_wake_that_comes_late_ends_a_later_wait_or_none() {
    model(|| {
        let (hub, poller) = hub();
        let shared = Shared::new(&hub);
        let others = [(); 2].map(|()| {
            let theirs = Arc::clone(&shared);
            thread::spawn(move || theirs.wake())
        });
        park(&hub, &poller, &shared, 1);
        others.into_iter().for_each(|other| other.join().unwrap());
        // Whatever is still in the inbox names the first wait; a new one needs a new wake.
        let has_wake = shared.take_wake();
        assert!(!shared.publish(Wake::Unpark { slot: 3, ticket: 2 }));
        drain(&hub.inbox, |Message::Wake(wake)| {
            assert!(has_wake || wake == Wake::Unpark { slot: 3, ticket: 1 });
        });
        shared.retract();
    });
}

/// What is lent for a second wait is the first one's, if its wakers have gone, and a wake that they
/// gave late ends nothing; else it is another one.
#[test]
fn what_a_wait_shares_is_lent_again_when_nobody_else_has_it() {
    model(|| {
        let (hub, poller) = hub();
        let lent = Shared::lend(&hub);
        let theirs = Arc::clone(&lent);
        let other = thread::spawn(move || theirs.wake());
        park(&hub, &poller, &lent, 1);
        drop(lent);
        let lent = Shared::lend(&hub);
        assert!(!lent.publish(Wake::Unpark { slot: 3, ticket: 2 }), "a wake of the first wait");
        lent.retract();
        drop(lent);
        other.join().unwrap();
        drain(&hub.inbox, |Message::Wake(wake)| {
            assert_eq!(wake, Wake::Unpark { slot: 3, ticket: 1 });
        });
    });
}
