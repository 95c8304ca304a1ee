//! The inbox: no wake is lost, no message is lost or seen half written, handles are counted.

use loom::{cell::UnsafeCell, sync::Arc, thread};

use super::{Envelope, Inbox, serve};
use crate::{model, sys::PollerWaker};

/// A message whose content loom watches: a read that the write need not precede is an error.
struct Letter(UnsafeCell<u32>);

// SAFETY: a letter goes from one thread to another and is never shared: that is what is modelled.
#[expect(unsafe_code, reason = "loom's cells are not Send by themselves")]
unsafe impl Send for Letter {}

impl Letter {
    fn new(number: u32) -> Letter {
        let letter = Letter(UnsafeCell::new(0));
        // SAFETY: nobody else has it.
        #[expect(unsafe_code, reason = "a write that loom watches")]
        letter.0.with_mut(|content| unsafe { *content = number });
        letter
    }

    fn read(&self) -> u32 {
        // SAFETY: it was given to us; loom fails the model if that was not after the write.
        #[expect(unsafe_code, reason = "a read that loom watches")]
        self.0.with(|content| unsafe { *content })
    }
}

/// Takes letters until there are `count` of them, each read when it comes.
fn read(inbox: &Inbox<Letter>, waker: &PollerWaker, count: usize) -> Vec<u32> {
    let mut got = Vec::new();
    serve(inbox, waker, |letter| {
        got.extend(letter.map(|letter| letter.read()));
        got.len() == count
    });
    got
}

fn inbox() -> (Arc<Inbox<Letter>>, PollerWaker) {
    let waker = PollerWaker::default();
    (Arc::new(Inbox::new(waker.clone())), waker)
}

/// `INBOX-1`: a reactor that sleeps for ever would be a deadlock, which loom reports.
#[test]
fn a_reactor_that_falls_asleep_is_woken_by_each_message() {
    model(|| {
        let (inbox, waker) = inbox();
        let pushers = [1, 2].map(|number| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || assert!(inbox.push(Letter::new(number)).is_ok()))
        });
        assert_eq!(read(&inbox, &waker, 2).iter().sum::<u32>(), 3);
        pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    });
}

/// `INBOX-2`, and the order of one thread's messages.
#[test]
fn messages_of_a_thread_arrive_once_in_their_order_and_whole() {
    model(|| {
        let (inbox, waker) = inbox();
        let pusher = Arc::clone(&inbox);
        let pusher = thread::spawn(move || {
            for number in [1, 2] {
                assert!(pusher.push(Letter::new(number)).is_ok());
            }
        });
        assert_eq!(read(&inbox, &waker, 2), [1, 2]);
        pusher.join().unwrap();
    });
}

/// A message is taken by the close, or handed back to its sender: never neither, never both.
#[test]
fn a_push_beside_the_close_is_delivered_or_refused() {
    model(|| {
        let (inbox, _) = inbox();
        let other = Arc::clone(&inbox);
        let pusher = thread::spawn(move || match other.push(Letter::new(7)) {
            Ok(()) => 0,
            Err(letter) => letter.read(),
        });
        let mut taken = 0;
        inbox.close(&mut |letter: Letter| taken += letter.read());
        assert_eq!(taken + pusher.join().unwrap(), 7);
        assert!(inbox.push(Letter::new(1)).is_err());
    });
}

/// The last handle that goes is noticed by a reactor that sleeps, or is about to.
#[test]
fn the_last_handle_that_goes_is_noticed() {
    model(|| {
        let (inbox, waker) = inbox();
        inbox.add_handle();
        let holder = Arc::clone(&inbox);
        let holder = thread::spawn(move || holder.drop_handle());
        serve(&inbox, &waker, |_| !inbox.has_handles());
        holder.join().unwrap();
    });
}

/// `INBOX-3`: what is sent in an envelope is taken by the reactor or the close, and the envelope
/// comes back in either case, to be used again; or it is refused, and comes back at once.
#[test]
fn an_envelope_is_delivered_or_refused_and_comes_back() {
    model(|| {
        let (inbox, _) = inbox();
        // It stays in place until both are done with it.
        let envelope = Arc::new(Envelope::new());
        let other = Arc::clone(&inbox);
        envelope.give_out();
        let theirs = Arc::clone(&envelope);
        let sender = thread::spawn(move || {
            // SAFETY: it was given out to this thread, and lives as long as the model.
            #[expect(unsafe_code, reason = "the contract of `send`")]
            unsafe {
                other.send(&theirs, Letter::new(7))
            }
        });
        let mut taken = 0;
        inbox.drain(&mut |letter: Letter| taken += letter.read());
        // Its owner may write to it as soon as it is back.
        if envelope.is_back() {
            assert_eq!(taken, 7, "it has been taken out");
            envelope.give_out();
            // SAFETY: it is back, and was given out to this thread.
            #[expect(unsafe_code, reason = "the contract of `send`")]
            unsafe {
                assert!(inbox.send(&envelope, Letter::new(8)));
            }
            taken -= 7;
            inbox.close(&mut |letter: Letter| taken += letter.read());
            assert_eq!(taken, 8);
            assert!(sender.join().unwrap());
        } else {
            inbox.close(&mut |letter: Letter| taken += letter.read());
            assert_eq!(taken, if sender.join().unwrap() { 7 } else { 0 });
        }
        assert!(envelope.is_back());
    });
}

/// A nudge is noticed by a reactor that sleeps, or is about to.
#[test]
fn a_nudge_is_noticed() {
    model(|| {
        let (inbox, waker) = inbox();
        let is_time = Arc::new(crate::atomics::AtomicBool::new(false));
        let (other, tells) = (Arc::clone(&inbox), Arc::clone(&is_time));
        let nudger = thread::spawn(move || {
            tells.store(true, crate::atomics::Ordering::Relaxed);
            other.nudge();
        });
        serve(&inbox, &waker, |_| is_time.load(crate::atomics::Ordering::Relaxed));
        nudger.join().unwrap();
    });
}
