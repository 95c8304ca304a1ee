//! What holds of `select!` in whatever order greenlets run, with kills between.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

use greenloop::{
    select,
    sync::{Mutex, Semaphore, channel, unbounded},
    testing::{assert_nothing_left, seeds},
};

use super::{SECOND, crowd, kill_some, orders, pause};

/// What a select that lost, or died, was handed goes to another one: items and permits are neither
/// lost nor doubled, and whoever won holds what it won alone.
#[test]
fn what_one_select_lets_go_another_one_gets() {
    for bound in [0, 1] {
        seeds(orders(), |random| {
            let (sender, receiver) = channel(bound);
            let (answers, answered) = unbounded();
            let semaphore = Arc::new(Semaphore::new(2));
            let mutex = Arc::new(Mutex::new(()));
            let sent = Rc::new(RefCell::new(Vec::new()));
            let got = Rc::new(RefCell::new(Vec::new()));
            let (sink, taken) = (Rc::clone(&got), receiver.clone());
            let (permits, lock) = (Arc::clone(&semaphore), Arc::clone(&mutex));
            let takers = crowd(random, 3, move |place, random| {
                for round in 0..6 {
                    let own = (10 + place, round);
                    select! {
                        item = taken.recv_async(), if random.below(3) > 0 => match item {
                            Ok(item) => sink.borrow_mut().push(item),
                            Err(_) => return,
                        },
                        _permit = permits.acquire_async(1), if random.below(3) == 0 => {
                            pause(random);
                        }
                        _guard = lock.lock_async(), if random.below(3) == 0 => pause(random),
                        ended = answers.send_async(own), if random.below(3) == 0 => {
                            ended.unwrap();
                        }
                        default(SECOND / 3) => pause(random),
                    }
                }
            });
            let accepted = Rc::clone(&sent);
            let feeders = crowd(random, 3, move |place, random| {
                for number in 0..4 {
                    let item = (place, number);
                    select! {
                        ended = sender.send_async(item) => {
                            if ended.is_ok() {
                                accepted.borrow_mut().push(item);
                            }
                        }
                        default(SECOND / 2) => pause(random),
                    }
                    pause(random);
                }
            });
            kill_some(random, takers);
            kill_some(random, feeders);
            got.borrow_mut().extend(receiver.iter());
            assert_nothing_left();
            let (sent, got) = (sent.take(), got.take());
            let once: BTreeSet<_> = got.iter().copied().collect();
            assert_eq!(once.len(), got.len(), "doubled: {got:?}");
            assert!(sent.iter().all(|item| once.contains(item)), "lost: {sent:?} {got:?}");
            let own = Vec::from_iter(answered.iter());
            assert_eq!(BTreeSet::from_iter(&own).len(), own.len(), "doubled: {own:?}");
            assert_eq!(semaphore.available_permits(), 2);
            mutex.clear_poison();
            assert!(mutex.try_lock().is_ok());
        });
    }
}
