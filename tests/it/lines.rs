//! The line behind every primitive of `sync`: greenlets of several hubs in it, one after another
//! and at once.

use std::{sync::Arc, thread};

use crate::support::assert_ends;
use greenloop::{
    run, spawn,
    sync::{Event, Mutex, Receiver, channel},
    yield_now,
};

/// Until so many wait at the channel.
fn until_waiting(receiver: &Receiver<u32>, count: usize) {
    while !format!("{receiver:?}").contains(&format!("waiting: {count}")) {
        thread::yield_now();
    }
}

#[test]
fn a_line_serves_the_hubs_of_several_runs_one_after_another() {
    assert_ends(|| {
        let (sender, receiver) = channel(0);
        let mutex = Arc::new(Mutex::new(0));
        let one_run = || {
            run(|| {
                let (sender, theirs) = (sender.clone(), Arc::clone(&mutex));
                let held = mutex.lock().unwrap();
                let other = spawn(move || {
                    *theirs.lock().unwrap() += 1; // It waits.
                    sender.send(7).unwrap()
                });
                yield_now();
                drop(held);
                assert_eq!(receiver.recv(), Ok(7)); // It waits too.
                other.join().unwrap();
            });
        };
        one_run();
        one_run();
        thread::scope(|scope| scope.spawn(one_run).join().unwrap());
        one_run();
        assert_eq!(*mutex.lock().unwrap(), 4);
    });
}

#[test]
fn who_waits_in_a_later_run_is_served_by_a_thread_as_in_the_first() {
    assert_ends(|| {
        let (sender, receiver) = channel(0);
        for run_number in 0..3 {
            let theirs = receiver.clone();
            let waits = move || run(|| theirs.recv());
            let ended = thread::spawn(waits);
            until_waiting(&receiver, 1);
            sender.send(run_number).unwrap();
            assert_eq!(ended.join().unwrap(), Ok(run_number));
        }
    });
}

#[test]
fn greenlets_of_two_hubs_in_one_line_are_served_in_order_by_a_third_thread() {
    assert_ends(|| {
        let (sender, receiver) = channel(0);
        let begin = |place: usize| {
            let theirs = receiver.clone();
            let waits = move || [theirs.recv().unwrap(), theirs.recv().unwrap()];
            let ended = thread::spawn(move || run(waits));
            until_waiting(&receiver, place);
            ended
        };
        let (first, second) = (begin(1), begin(2));
        sender.send(1).unwrap();
        until_waiting(&receiver, 2); // The first is behind the second now.
        sender.send(2).unwrap();
        until_waiting(&receiver, 2);
        sender.send(3).unwrap();
        sender.send(4).unwrap();
        assert_eq!(first.join().unwrap(), [1, 3]);
        assert_eq!(second.join().unwrap(), [2, 4]);
    });
}

#[test]
fn an_event_that_a_greenlet_sets_wakes_those_of_its_own_hub_and_of_another() {
    assert_ends(|| {
        let (event, told) = (Arc::new(Event::new()), channel(2));
        let waits = |event: &Arc<Event>| {
            let (event, sender) = (Arc::clone(event), told.0.clone());
            move || {
                event.wait();
                sender.send(1).unwrap();
            }
        };
        let far = waits(&event);
        let ended = thread::spawn(move || run(far));
        while !format!("{event:?}").contains("waiting: 1") {
            thread::yield_now();
        }
        run(|| {
            let near = spawn(waits(&event));
            yield_now();
            event.set();
            near.join().unwrap();
        });
        ended.join().unwrap();
        assert_eq!([told.1.try_recv(), told.1.try_recv()], [Ok(1), Ok(1)]);
    });
}
