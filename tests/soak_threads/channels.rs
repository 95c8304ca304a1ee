//! Scenes at channels: std's, and crossbeam's. A victim ends between two calls, where it calls
//! greenloop; the others see its end of the channel go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use crossbeam_channel as crossbeam;
use greenloop::testing::Random;

use crate::{
    stage::{Party, mortal_pause, own, party},
    watch::step,
};

const ITEMS: u64 = 40;

/// The sum of all items.
const SUM: u64 = ITEMS * (ITEMS - 1) / 2;

/// From one through another to a third, in order.
pub(crate) fn pipeline(random: &Random, is_calm: bool) -> Vec<Party> {
    let (first, from_first) = mpsc::sync_channel(random.below(3));
    let (second, from_second) = crossbeam::bounded(random.below(3));
    let randoms = [(); 3].map(|()| own(random));
    let [makes, relays, takes] = randoms;
    vec![
        party(move || {
            for n in 0..ITEMS {
                mortal_pause(&makes);
                if first.send(n).is_err() {
                    assert!(!is_calm, "the next one has gone");
                    return;
                }
            }
        }),
        party(move || {
            for n in from_first {
                mortal_pause(&relays);
                if second.send(n).is_err() {
                    assert!(!is_calm, "the next one has gone");
                    return;
                }
            }
        }),
        party(move || {
            let mut count = 0;
            for n in from_second {
                assert_eq!(n, count, "in order, and none is lost");
                count += 1;
                mortal_pause(&takes);
            }
            assert!(!is_calm || count == ITEMS, "{count} items");
        }),
    ]
}

/// What was sent for certain, and what was received.
struct Books {
    sent: AtomicU64,
    received: AtomicU64,
    is_calm: bool,
}

impl Drop for Books {
    fn drop(&mut self) {
        let (sent, received) = (*self.sent.get_mut(), *self.received.get_mut());
        assert!(received <= sent, "{received} received of {sent}");
        assert!(!self.is_calm || received == sent, "{received} received of {sent}");
    }
}

/// Many senders, many receivers, some of which have no patience.
pub(crate) fn crowd(random: &Random, is_calm: bool) -> Vec<Party> {
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let books = Arc::new(Books { sent, received, is_calm });
    let (sender, receiver) = match random.below(4) {
        0 => crossbeam::unbounded(),
        bound => crossbeam::bounded(bound - 1),
    };
    let limit = |random: &Random| Duration::from_micros(random.below(300) as u64);
    let senders = (0..1 + random.below(3)).map(|_| {
        let (books, sender, random) = (Arc::clone(&books), sender.clone(), own(random));
        party(move || {
            let mut n = 0;
            while n < ITEMS {
                mortal_pause(&random);
                let sent = match random.below(3) {
                    0 => sender.send_timeout(n, limit(&random)).map_err(|error| error.is_timeout()),
                    _ => sender.send(n).map_err(|_| false),
                };
                match sent {
                    Ok(()) => n += 1,
                    Err(true) => step(),
                    Err(false) => return assert!(!is_calm, "the receivers have gone"),
                }
            }
            // Not before: what is handed over may be received before this goes on.
            books.sent.fetch_add(n * (n - 1) / 2, Ordering::Relaxed);
        })
    });
    let mut parties: Vec<_> = senders.collect();
    for _ in 0..1 + random.below(3) {
        let (books, receiver, random) = (Arc::clone(&books), receiver.clone(), own(random));
        parties.push(party(move || {
            loop {
                let received = match random.below(3) {
                    0 => receiver.recv_timeout(limit(&random)).map_err(|error| error.is_timeout()),
                    _ => receiver.recv().map_err(|_| false),
                };
                match received {
                    // Of those that are killed nobody knows what they have sent.
                    Ok(n) if is_calm => drop(books.received.fetch_add(n, Ordering::Relaxed)),
                    Ok(_) => {}
                    Err(true) => step(),
                    Err(false) => return,
                }
                mortal_pause(&random);
            }
        }));
    }
    parties
}

/// Each request has a channel for its answer: there and back, again and again.
pub(crate) fn requests(random: &Random, is_calm: bool) -> Vec<Party> {
    type Request = (u64, mpsc::Sender<u64>);
    let (ask, asked) = mpsc::channel::<Request>();
    let answers = own(random);
    let mut parties = vec![party(move || {
        for (n, answer) in asked {
            mortal_pause(&answers);
            // Who has asked may be gone.
            let answered = answer.send(n + 1);
            assert!(!is_calm || answered.is_ok());
        }
    })];
    for _ in 0..1 + random.below(4) {
        let (ask, random) = (ask.clone(), own(random));
        parties.push(party(move || {
            for n in 0..20 {
                mortal_pause(&random);
                let (answer, answers) = mpsc::channel();
                let asked = ask.send((n, answer)).is_ok();
                match answers.recv() {
                    Ok(answer) => assert_eq!(answer, n + 1),
                    Err(_) => return assert!(!is_calm, "no answer ({asked})"),
                }
            }
        }));
    }
    parties
}

/// One who waits for several channels at once.
pub(crate) fn selection(random: &Random, is_calm: bool) -> Vec<Party> {
    let (one, from_one) = crossbeam::bounded(random.below(2));
    let (other, from_other) = crossbeam::bounded(random.below(3));
    let mut parties: Vec<_> = [one, other]
        .into_iter()
        .map(|sender| {
            let random = own(random);
            party(move || {
                for n in 0..ITEMS {
                    mortal_pause(&random);
                    if sender.send(n).is_err() {
                        return assert!(!is_calm, "the receiver has gone");
                    }
                }
            })
        })
        .collect();
    let random = own(random);
    parties.push(party(move || {
        let (mut sum, mut open) = (0, vec![from_one, from_other]);
        while !open.is_empty() {
            mortal_pause(&random);
            match receive(&open, &random) {
                None => {}
                Some((_, Ok(n))) => sum += n,
                Some((place, Err(_))) => drop(open.swap_remove(place)),
            }
        }
        assert!(!is_calm || sum == 2 * SUM, "{sum}");
    }));
    parties
}

/// Receives from any of these, or runs out of time.
fn receive(
    open: &[crossbeam::Receiver<u64>],
    random: &Random,
) -> Option<(usize, Result<u64, crossbeam::RecvError>)> {
    let mut select = crossbeam::Select::new();
    for receiver in open {
        select.recv(receiver);
    }
    let chosen = match random.below(3) {
        0 => select.select_timeout(Duration::from_micros(200)).ok()?,
        _ => select.select(),
    };
    let place = chosen.index();
    Some((place, chosen.recv(&open[place])))
}
