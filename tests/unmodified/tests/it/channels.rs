//! Channels: std's and crossbeam's.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{after, never, select, tick};
use greenloop_unmodified::{overlap, threads};

use crate::MANY;

const MOMENT: Duration = Duration::from_millis(300);

/// Each waits for its predecessor: all must be there at once. The first has nobody to wait for.
pub(crate) fn std_relay() {
    let (mut senders, mut receivers) = (vec![], vec![]);
    for _ in 0..=MANY {
        let (sender, receiver) = mpsc::channel::<usize>();
        senders.push(Mutex::new(Some(sender)));
        receivers.push(Mutex::new(receiver));
    }
    let last = receivers.pop().unwrap();
    let answers = overlap(MANY, MOMENT, move |index| {
        let steps = if index == 0 {
            thread::sleep(MOMENT);
            0
        } else {
            receivers[index].lock().unwrap().recv().unwrap()
        };
        let sender = senders[index + 1].lock().unwrap().take().unwrap();
        sender.send(steps + 1).unwrap();
        steps
    });
    assert!(answers.into_iter().eq(0..MANY));
    let last = last.into_inner().unwrap();
    assert_eq!((last.recv(), last.recv()), (Ok(MANY), Err(mpsc::RecvError)));
}

/// A channel of one place: a sender waits for a place, and a receiver no longer than it likes.
pub(crate) fn std_bounded() {
    overlap(MANY, MOMENT, |_| {
        let (sender, receiver) = mpsc::sync_channel::<usize>(1);
        let (asks, asked) = mpsc::channel();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let other = threads::spawn(move || {
            for number in 0..4 {
                sender.send(number).unwrap();
                count.fetch_add(1, SeqCst);
            }
            let () = asked.recv().unwrap();
            sender.send(4).unwrap();
        });
        thread::sleep(MOMENT / 2);
        assert!(sent.load(SeqCst) <= 1, "nobody waited for a place");
        assert!((0..4).eq(receiver.iter().take(4)));
        let begun = Instant::now();
        assert_eq!(receiver.recv_timeout(MOMENT / 2), Err(mpsc::RecvTimeoutError::Timeout));
        assert!(begun.elapsed() >= MOMENT / 2);
        asks.send(()).unwrap();
        assert_eq!(receiver.recv_timeout(100 * MOMENT), Ok(4));
        assert_eq!(receiver.recv_timeout(100 * MOMENT), Err(mpsc::RecvTimeoutError::Disconnected));
        other.join().unwrap();
    });
}

/// Each waits for one of three; the sender is another virtual thread.
pub(crate) fn crossbeam_select() {
    let answers = overlap(MANY, MOMENT, |index| {
        let (sender, wanted) = crossbeam_channel::unbounded();
        let (stays, silent) = crossbeam_channel::bounded::<usize>(0);
        let late = threads::spawn(move || {
            thread::sleep(MOMENT);
            sender.send(index).unwrap();
        });
        let (ticks, mut ticked) = (tick(MOMENT / 10), 0);
        let answer = loop {
            select! {
                recv(wanted) -> number => break number.unwrap(),
                recv(silent) -> _ => unreachable!("nobody sends"),
                recv(never::<()>()) -> _ => unreachable!("never"),
                recv(ticks) -> _ => ticked += 1,
                recv(after(100 * MOMENT)) -> _ => panic!("it is late"),
            }
        };
        drop(stays);
        late.join().unwrap();
        (answer, ticked)
    });
    for (index, (answer, ticked)) in answers.into_iter().enumerate() {
        assert_eq!(answer, index);
        assert!(ticked >= 1, "not one tick");
    }
}

/// A ring of channels without a place: a send waits for a receive.
pub(crate) fn crossbeam_bounded() {
    let ring: Vec<_> = (0..MANY).map(|_| crossbeam_channel::bounded::<usize>(0)).collect();
    let answers = overlap(MANY, MOMENT, move |index| {
        let (from, to) = (&ring[index].1, &ring[(index + 1) % MANY].0);
        if index == 0 {
            let nothing = from.recv_timeout(MOMENT);
            assert_eq!(nothing, Err(crossbeam_channel::RecvTimeoutError::Timeout));
            to.send(1).unwrap();
            from.recv().unwrap()
        } else {
            let number = from.recv().unwrap();
            to.send_timeout(number + 1, 100 * MOMENT).unwrap();
            number
        }
    });
    assert_eq!(answers[0], MANY);
    assert!(answers[1..].iter().copied().eq(1..MANY));
}
