//! What only private state shows: the inbox, the order within a turn, events that are stale.

use std::{
    cell::RefCell,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use super::{Core, Direction, Inbox, Sink, SourceId, Sources};
use crate::{
    sys::{Event, Poller},
    time::{Clock, SystemClock},
};

const THREADS: u64 = 8;

fn inbox() -> Arc<Inbox<(u64, u64)>> {
    Arc::new(Inbox::new(Poller::new().unwrap().waker()))
}

/// What the reactor told the floor above, in order.
#[derive(Debug, PartialEq)]
enum Told {
    Wake(u32),
    Message(u32),
}

#[derive(Default)]
struct Trace(RefCell<Vec<Told>>);

impl Sink<u32, u32> for Trace {
    fn wake(&self, waiter: u32) {
        self.0.borrow_mut().push(Told::Wake(waiter));
    }

    fn message(&self, message: u32) {
        self.0.borrow_mut().push(Told::Message(message));
    }
}

fn core() -> Core<u32, u32> {
    Core::new(Box::new(SystemClock::new())).unwrap()
}

/// Whether `f` ends: on a thread of its own, so that a lost wake is a failure, not a hang.
#[track_caller]
fn assert_ends(f: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        f();
        let _ = done.send(());
    });
    match ended.recv_timeout(Duration::from_secs(60)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn messages_of_a_thread_arrive_in_order_and_none_is_lost() {
    const EACH: u64 = 20_000;
    let inbox = inbox();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || (0..EACH).for_each(|n| inbox.push((number, n)).unwrap()))
        })
        .collect();
    let mut next = [0; THREADS as usize];
    while next.iter().sum::<u64>() < THREADS * EACH {
        inbox.drain(&mut |(number, n)| {
            assert_eq!(n, next[number as usize], "thread {number}");
            next[number as usize] += 1;
        });
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    inbox.drain(&mut |extra| panic!("{extra:?} came twice"));
    assert_eq!(inbox.wakes_count(), 0, "nobody slept, so nobody had to be woken");
}

/// INBOX-1: a push that comes while the reactor goes to sleep is seen by one of the two.
#[test]
fn no_wake_is_lost_between_pushers_and_a_sleeper() {
    no_wake_is_lost(1);
    no_wake_is_lost(THREADS);
}

#[track_caller]
fn no_wake_is_lost(count: u64) {
    assert_ends(move || {
        const EACH: u64 = 3_000;
        let mut poller = Poller::new().unwrap();
        let inbox = Arc::new(Inbox::new(poller.waker()));
        let (got, sleeps) = (Arc::new(AtomicUsize::new(0)), &mut 0u64);
        let threads: Vec<_> = (0..count)
            .map(|number| {
                let (inbox, got) = (Arc::clone(&inbox), Arc::clone(&got));
                thread::spawn(move || {
                    for n in 0..EACH {
                        let before = got.load(Ordering::Relaxed);
                        inbox.push((number, n)).unwrap();
                        // Half of them let the sleeper fall asleep between two messages.
                        while number % 2 == 0 && got.load(Ordering::Relaxed) == before {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        while got.load(Ordering::Relaxed) < (count * EACH) as usize {
            inbox.drain(&mut |_| _ = got.fetch_add(1, Ordering::Relaxed));
            if got.load(Ordering::Relaxed) == (count * EACH) as usize {
                break;
            }
            *sleeps += 1; // also one that is called off: a push may have seen it begin
            if inbox.begin_sleep() {
                poller.wait(None, &mut |_| ()).unwrap();
                inbox.end_sleep();
            }
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(inbox.wakes_count() <= *sleeps, "{} wakes", inbox.wakes_count());
    });
}

#[test]
fn a_sleep_is_not_begun_when_a_message_is_there() {
    let inbox = inbox();
    inbox.push((0, 0)).unwrap();
    assert!(!inbox.begin_sleep());
    inbox.push((0, 1)).unwrap();
    assert_eq!(inbox.wakes_count(), 0, "it did not sleep");
}

#[test]
fn only_the_first_push_into_a_sleep_writes_the_eventfd() {
    let inbox = inbox();
    assert!(inbox.begin_sleep());
    (0..5).for_each(|n| inbox.push((0, n)).unwrap());
    assert_eq!(inbox.wakes_count(), 1);
    inbox.end_sleep();
    inbox.push((0, 5)).unwrap();
    assert_eq!(inbox.wakes_count(), 1);
}

#[test]
fn a_closed_inbox_hands_out_what_is_there_and_takes_no_more() {
    let inbox = inbox();
    inbox.push((0, 0)).unwrap();
    let mut seen = Vec::new();
    inbox.close(&mut |message| seen.push(message));
    assert_eq!(seen, [(0, 0)]);
    assert_eq!(inbox.push((0, 1)), Err((0, 1)));
    inbox.close(&mut |_| panic!("closed twice"));
    assert_eq!(inbox.push((0, 2)), Err((0, 2)));
}

/// A hub may have to turn again after it closed its inbox: what is dropped then may spawn.
#[test]
fn a_closed_inbox_stays_closed_when_it_is_drained() {
    let inbox = inbox();
    inbox.close(&mut |_| ());
    inbox.drain(&mut |_| ());
    assert_eq!(inbox.push((0, 1)), Err((0, 1)));
}

/// Otherwise the hub polls without pause while it waits for its last greenlets.
#[test]
fn a_closed_inbox_does_not_keep_the_reactor_awake() {
    let inbox = inbox();
    inbox.close(&mut |_| ());
    assert!(inbox.begin_sleep(), "there is no message, and there will be none");
}

#[test]
fn messages_that_nobody_reads_are_dropped_with_the_inbox() {
    let inbox = Inbox::new(Poller::new().unwrap().waker());
    let message = Arc::new(());
    (0..3).for_each(|_| inbox.push(Arc::clone(&message)).unwrap());
    drop(inbox);
    assert_eq!(Arc::strong_count(&message), 1);
}

#[test]
fn the_last_handle_wakes_a_sleeper_when_it_goes() {
    let mut poller = Poller::new().unwrap();
    let inbox: Inbox<()> = Inbox::new(poller.waker());
    inbox.add_handle();
    inbox.add_handle();
    assert!(inbox.begin_sleep());
    inbox.drop_handle();
    let zero = Some(Duration::ZERO);
    assert!(!poller.wait(zero, &mut |_| ()).unwrap(), "one is left");
    inbox.drop_handle();
    assert!(!inbox.has_handles());
    assert!(poller.wait(zero, &mut |_| ()).unwrap(), "that was the last");
}

/// The numbered steps of a turn: events, then timers by deadline, then messages by age.
#[test]
fn a_turn_tells_of_events_then_timers_then_messages() {
    let (core, trace) = (core(), Trace::default());
    let (reader, mut writer) = std::io::pipe().unwrap();
    let now = core.fresh_now();
    core.inbox().push(30).unwrap();
    core.inbox().push(31).unwrap();
    core.add_timer(now, 21);
    core.add_timer(crate::Deadline::ZERO, 20);
    let id = core.register_foreign(reader.as_fd(), &mut |_| ()).unwrap();
    for waiter in [10, 11, 12] {
        core.sources().add_waiter(reader.as_raw_fd(), id, Direction::Read, waiter);
    }
    core.sources().remove_waiter(reader.as_raw_fd(), Direction::Read, 11);
    std::io::Write::write_all(&mut writer, b"x").unwrap();
    core.turn(true, &trace).unwrap();
    let told = trace.0.take();
    let expected = [
        Told::Wake(10), // the event, oldest waiter first
        Told::Wake(12),
        Told::Wake(20), // the timers, earliest first
        Told::Wake(21),
        Told::Message(30), // the messages, oldest first
        Told::Message(31),
    ];
    assert_eq!(told, expected);
    assert_eq!((core.sources().waiting(), core.turns()), (0, 1));
}

#[test]
fn a_turn_that_may_not_sleep_returns_at_once() {
    let (core, trace) = (core(), Trace::default());
    core.add_timer(core.fresh_now() + Duration::from_secs(3600), 1);
    core.turn(false, &trace).unwrap();
    assert_eq!(trace.0.take(), []);
    assert_eq!(core.timers_count(), 1);
}

#[test]
fn a_timer_ends_the_sleep_no_earlier_than_it_is_due() {
    let (core, trace) = (core(), Trace::default());
    let clock = SystemClock::new();
    for wait_us in [10, 300, 1_000, 2_500] {
        let due = clock.now() + Duration::from_micros(wait_us);
        core.add_timer(due, 1);
        while core.timers_count() > 0 {
            core.turn(true, &trace).unwrap();
        }
        assert!(clock.now() >= due);
    }
    assert!(core.turns() < 4 * 3, "{} turns for four timers", core.turns());
}

fn event(fd: i32, generation: u64) -> Event {
    let token = (generation << 32) | u64::from(fd as u32);
    Event { token, readable: true, writable: true, closed: false }
}

/// The number in a token; identities are unique in the process.
fn generation(id: SourceId) -> u64 {
    let text = format!("{id:?}");
    text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
}

/// SOURCE-1
#[test]
fn an_event_of_an_earlier_registration_is_dropped() {
    let poller = Poller::new().unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let fd = reader.as_raw_fd();
    let mut sources: Sources<u32> = Sources::new();
    let (old, new) = (SourceId::unique(), SourceId::unique());
    let mut orphans = Vec::new();
    sources.register(&poller, reader.as_fd(), old, &mut |w| orphans.push(w)).unwrap();
    sources.add_waiter(fd, old, Direction::Read, 1);
    sources.register(&poller, reader.as_fd(), new, &mut |w| orphans.push(w)).unwrap();
    assert_eq!(orphans, [1], "who waited for the old descriptor is told");
    sources.add_waiter(fd, new, Direction::Read, 2);
    sources.apply(event(fd, generation(old)), &mut |w| panic!("{w} was woken by a stale event"));
    assert!(sources.is_blocked(fd, new, Direction::Read));
    let mut woken = Vec::new();
    sources.apply(event(fd, generation(new)), &mut |w| woken.push(w));
    assert_eq!(woken, [2]);
    assert!(!sources.is_blocked(fd, new, Direction::Read));
}

/// SOURCE-1, for a descriptor of the user's: whose file it names may change between two waits.
#[test]
fn a_foreign_number_that_names_another_file_gets_another_generation() {
    let poller = Poller::new().unwrap();
    let (one, _w1) = std::io::pipe().unwrap();
    let (two, _w2) = std::io::pipe().unwrap();
    let _one_lives_on = one.try_clone().unwrap();
    let mut slot = rustix::io::dup(&one).unwrap();
    let mut sources: Sources<u32> = Sources::new();
    let mut orphans = Vec::new();
    let before = sources.register_foreign(&poller, slot.as_fd(), &mut |w| orphans.push(w)).unwrap();
    sources.add_waiter(slot.as_raw_fd(), before, Direction::Read, 1);
    let again = sources.register_foreign(&poller, slot.as_fd(), &mut |w| orphans.push(w)).unwrap();
    assert_eq!((again, orphans.len()), (before, 0), "the same file");
    rustix::io::dup2(&two, &mut slot).unwrap();
    let after = sources.register_foreign(&poller, slot.as_fd(), &mut |w| orphans.push(w)).unwrap();
    assert_ne!(after, before, "its events could not be told from those of the first file");
    assert_eq!(orphans, [1], "who waited for the first file is told");
}

#[test]
fn an_event_for_a_number_never_seen_is_dropped() {
    let mut sources: Sources<u32> = Sources::new();
    sources.apply(event(1 << 20, 1), &mut |w| panic!("{w} was woken"));
}

#[test]
fn waiters_of_the_other_direction_are_left_alone() {
    let poller = Poller::new().unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (fd, id) = (reader.as_raw_fd(), SourceId::unique());
    let mut sources: Sources<u32> = Sources::new();
    sources.register(&poller, reader.as_fd(), id, &mut |_| ()).unwrap();
    sources.add_waiter(fd, id, Direction::Read, 1);
    sources.add_waiter(fd, id, Direction::Write, 2);
    let mut woken = Vec::new();
    let readable = Event { writable: false, ..event(fd, generation(id)) };
    sources.apply(readable, &mut |w| woken.push(w));
    assert_eq!((woken, sources.waiting()), (vec![1], 1));
}

#[test]
fn a_short_read_blocks_unless_the_peer_has_closed() {
    let poller = Poller::new().unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (fd, id) = (reader.as_raw_fd(), SourceId::unique());
    let mut sources: Sources<u32> = Sources::new();
    sources.register(&poller, reader.as_fd(), id, &mut |_| ()).unwrap();
    sources.apply(event(fd, generation(id)), &mut |_| ());
    sources.clear_after_short(fd, id, Direction::Read);
    assert!(sources.is_blocked(fd, id, Direction::Read));
    let closed = Event { closed: true, ..event(fd, generation(id)) };
    sources.apply(closed, &mut |_| ());
    sources.clear_after_short(fd, id, Direction::Read);
    assert!(!sources.is_blocked(fd, id, Direction::Read), "the end is still to be read");
}

#[test]
fn a_registration_that_ends_hands_its_waiters_back() {
    let poller = Poller::new().unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let (fd, id) = (reader.as_raw_fd(), SourceId::unique());
    let mut sources: Sources<u32> = Sources::new();
    sources.register(&poller, reader.as_fd(), id, &mut |_| ()).unwrap();
    sources.add_waiter(fd, id, Direction::Read, 1);
    sources.add_waiter(fd, id, Direction::Read, 2);
    sources.add_waiter(fd, id, Direction::Write, 3);
    let mut orphans = Vec::new();
    assert!(sources.forget(fd, id, &mut |w| orphans.push(w)));
    assert_eq!((orphans, sources.waiting()), (vec![1, 2, 3], 0));
    assert!(!sources.forget(fd, id, &mut |w| panic!("{w} again")));
}
