//! Primitives against plain models of them: random programs of futures that are polled, dropped and
//! let go by hand, without any hub, so that each step has one outcome.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::Pin,
    task::{Poll, Waker},
};

use crate::support::poll;
use greenloop::sync::{
    Permit, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, channel, priority,
};
use proptest::{prelude::*, test_runner::TestCaseError};

/// A step of a program. Numbers are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Begins to wait, for so much, and polls once.
    Begin(u8),
    /// Polls the waiter of that number again.
    Poll(usize),
    /// Drops it: a waiter, or what it has got.
    Drop(usize),
    /// What only one primitive knows.
    Other,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Begin),
        3 => any::<usize>().prop_map(Step::Poll),
        4 => any::<usize>().prop_map(Step::Drop),
        1 => Just(Step::Other),
    ];
    prop::collection::vec(step, 0..60)
}

/// What has begun to wait, by number: a future, or what it came to.
enum Waiter<'a, G> {
    Waits(Pin<Box<dyn Future<Output = G> + 'a>>),
    Has(G),
}

/// All that have begun and not ended.
struct Waiters<'a, G> {
    all: BTreeMap<usize, Waiter<'a, G>>,
    count: usize,
}

impl<'a, G> Waiters<'a, G> {
    fn new() -> Waiters<'a, G> {
        Waiters { all: BTreeMap::new(), count: 0 }
    }

    /// The number of one of them.
    fn pick(&self, number: usize) -> Option<usize> {
        let at = number.checked_rem(self.all.len())?;
        self.all.keys().nth(at).copied()
    }

    /// Begins a wait. Gives its number, and whether it is over.
    fn begin(&mut self, future: impl Future<Output = G> + 'a) -> (usize, bool) {
        let number = self.count;
        self.count += 1;
        self.all.insert(number, Waiter::Waits(Box::pin(future)));
        (number, self.poll(number))
    }

    /// Whether it has what it waited for.
    fn poll(&mut self, number: usize) -> bool {
        let waiter = self.all.get_mut(&number).expect("it is there");
        if let Waiter::Waits(future) = waiter
            && let Poll::Ready(got) = poll(future, Waker::noop())
        {
            *waiter = Waiter::Has(got);
        }
        matches!(waiter, Waiter::Has(_))
    }
}

/// A model of a lock or semaphore: who waits for what, and who has it. What was granted and not
/// looked at yet counts as had.
struct Model<A> {
    line: VecDeque<(usize, A)>,
    has: BTreeMap<usize, A>,
}

impl<A: Copy> Model<A> {
    fn new() -> Model<A> {
        Model { line: VecDeque::new(), has: BTreeMap::new() }
    }

    /// Serves from the front as long as `fits` says so.
    fn serve(&mut self, mut fits: impl FnMut(&BTreeMap<usize, A>, A) -> bool) {
        while let Some(&(number, ask)) = self.line.front()
            && fits(&self.has, ask)
        {
            self.line.pop_front();
            self.has.insert(number, ask);
        }
    }

    fn end(&mut self, number: usize) {
        self.line.retain(|(other, _)| *other != number);
        self.has.remove(&number);
    }
}

fn semaphore_behaves(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let semaphore = Semaphore::new(3);
    let (mut all, mut added) = (3, 0);
    let mut model = Model::<usize>::new();
    let mut waiters = Waiters::<Permit<&Semaphore>>::new();
    for step in steps {
        match step {
            Step::Begin(n) => {
                let count = usize::from(n % 4);
                let (number, is_over) = waiters.begin(semaphore.acquire_async(count));
                model.line.push_back((number, count));
                model.serve(|has, ask| has.values().sum::<usize>() + ask <= all);
                prop_assert_eq!(is_over, model.has.contains_key(&number));
            }
            Step::Poll(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                prop_assert_eq!(waiters.poll(number), model.has.contains_key(&number));
            }
            Step::Drop(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                waiters.all.remove(&number);
                model.end(number);
            }
            Step::Other if added < 2 => {
                semaphore.add_permits(1);
                (all, added) = (all + 1, added + 1);
            }
            Step::Other => {
                let Some(number) = waiters.pick(0) else { continue };
                let Some(Waiter::Has(permit)) = waiters.all.remove(&number) else {
                    model.end(number);
                    model.serve(|has, ask| has.values().sum::<usize>() + ask <= all);
                    continue;
                };
                all -= permit.count();
                permit.forget();
                model.end(number);
            }
        }
        model.serve(|has, ask| has.values().sum::<usize>() + ask <= all);
        prop_assert_eq!(semaphore.available_permits(), all - model.has.values().sum::<usize>());
        let shown = format!("{:?}", semaphore);
        prop_assert!(shown.ends_with(&format!("waiting: {} }}", model.line.len())), "{}", shown);
        if all == 0 {
            break;
        }
    }
    Ok(())
}

enum Guard<'a> {
    Reads(RwLockReadGuard<'a, u32>),
    Writes(RwLockWriteGuard<'a, u32>),
}

/// `true` is a writer.
fn fits(has: &BTreeMap<usize, bool>, writes: bool) -> bool {
    if writes { has.is_empty() } else { !has.values().any(|writes| *writes) }
}

fn rwlock_behaves(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (lock, mut writes) = (RwLock::new(0), 0);
    let mut model = Model::<bool>::new();
    let mut waiters = Waiters::<Guard<'_>>::new();
    for step in steps {
        match step {
            Step::Begin(n) => {
                let (number, is_over) = if n % 3 == 0 {
                    waiters.begin(async { Guard::Writes(lock.write_async().await.unwrap()) })
                } else {
                    waiters.begin(async { Guard::Reads(lock.read_async().await.unwrap()) })
                };
                model.line.push_back((number, n % 3 == 0));
                model.serve(fits);
                prop_assert_eq!(is_over, model.has.contains_key(&number));
            }
            Step::Poll(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                let is_over = waiters.poll(number);
                prop_assert_eq!(is_over, model.has.contains_key(&number));
                match waiters.all.get_mut(&number) {
                    Some(Waiter::Has(Guard::Writes(guard))) => {
                        **guard += 1;
                        writes += 1;
                    }
                    Some(Waiter::Has(Guard::Reads(guard))) => prop_assert_eq!(**guard, writes),
                    _ => {}
                }
            }
            Step::Drop(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                waiters.all.remove(&number);
                model.end(number);
            }
            Step::Other => {
                let is_writer =
                    |w: &Waiter<'_, Guard<'_>>| matches!(w, Waiter::Has(Guard::Writes(_)));
                let number = waiters.all.iter().find(|(_, w)| is_writer(w)).map(|(n, _)| *n);
                let Some(number) = number else { continue };
                if let Some(Waiter::Has(Guard::Writes(guard))) = waiters.all.remove(&number) {
                    let reads = Guard::Reads(RwLockWriteGuard::downgrade(guard));
                    waiters.all.insert(number, Waiter::Has(reads));
                    model.has.insert(number, false);
                }
            }
        }
        model.serve(fits);
        let (is_free, may_read) =
            (model.has.is_empty(), model.line.is_empty() && fits(&model.has, false));
        prop_assert_eq!(lock.try_write().is_ok(), is_free);
        prop_assert_eq!(lock.try_read().is_ok(), may_read);
    }
    Ok(())
}

/// What a sender, or a receiver, that has begun came to.
#[derive(Debug, PartialEq)]
enum Came {
    In,
    Out(u8),
}

/// The model of a plain channel: those who wait are all senders, or all receivers.
#[derive(Default)]
struct Plain {
    /// With the number by which each was handed out, of those that have come back.
    values: VecDeque<(u64, u8)>,
    senders: VecDeque<(usize, u8)>,
    receivers: VecDeque<usize>,
    granted: BTreeMap<usize, Came>,
    handed: BTreeMap<usize, u64>,
    handed_count: u64,
}

const NEVER_HANDED: u64 = u64::MAX;

impl Plain {
    fn send(&mut self, number: usize, value: u8, bound: usize) {
        if let Some(receiver) = self.receivers.pop_front() {
            self.granted.insert(receiver, Came::Out(value));
            self.handed_count += 1;
            self.handed.insert(receiver, self.handed_count);
        } else if self.values.len() < bound {
            self.values.push_back((NEVER_HANDED, value));
        } else {
            return self.senders.push_back((number, value));
        }
        self.granted.insert(number, Came::In);
    }

    fn receive(&mut self, number: usize, bound: usize) {
        let mut next = self.values.pop_front();
        if (next.is_none() || self.values.len() < bound)
            && let Some((sender, value)) = self.senders.pop_front()
        {
            self.granted.insert(sender, Came::In);
            self.values.push_back((NEVER_HANDED, value));
            next = next.or_else(|| self.values.pop_front());
        }
        match next {
            Some((_, value)) => drop(self.granted.insert(number, Came::Out(value))),
            None => self.receivers.push_back(number),
        }
    }

    /// It was dropped before it knew what it came to.
    fn die(&mut self, number: usize) {
        self.senders.retain(|(other, _)| *other != number);
        self.receivers.retain(|other| *other != number);
        if let Some(Came::Out(value)) = self.granted.remove(&number) {
            let turn = self.handed.remove(&number).expect("it waited");
            if let Some(next) = self.receivers.pop_front() {
                self.granted.insert(next, Came::Out(value));
                self.handed.insert(next, turn);
            } else {
                let place = self.values.partition_point(|(before, _)| *before < turn);
                self.values.insert(place, (turn, value));
            }
        }
    }
}

fn channel_behaves(steps: Vec<Step>, bound: usize) -> Result<(), TestCaseError> {
    let (sender, receiver) = channel(bound);
    let mut model = Plain::default();
    let mut waiters = Waiters::<Came>::new();
    for step in steps {
        let number = match step {
            Step::Begin(n) if n % 2 == 0 => {
                let sends = sender.send_async(n);
                let (number, _) = waiters.begin(async {
                    sends.await.unwrap();
                    Came::In
                });
                model.send(number, n, bound);
                number
            }
            Step::Begin(_) => {
                let (number, _) =
                    waiters.begin(async { Came::Out(receiver.recv_async().await.unwrap()) });
                model.receive(number, bound);
                number
            }
            Step::Poll(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                waiters.poll(number);
                number
            }
            Step::Drop(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                waiters.all.remove(&number);
                model.die(number);
                continue;
            }
            Step::Other => {
                let came = receiver.try_recv().ok();
                model.receive(usize::MAX, bound);
                model.receivers.retain(|number| *number != usize::MAX);
                prop_assert_eq!(came.map(Came::Out), model.granted.remove(&usize::MAX));
                continue;
            }
        };
        // What it has come to, it has: it is gone then.
        let came = match waiters.all.get(&number) {
            Some(Waiter::Has(_)) => waiters.all.remove(&number),
            _ => None,
        };
        let came = came.map(|waiter| match waiter {
            Waiter::Has(came) => came,
            Waiter::Waits(_) => unreachable!("it was looked at"),
        });
        prop_assert_eq!(came, model.granted.remove(&number));
    }
    let rest: Vec<u8> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
    let there = model.values.iter().map(|(_, value)| *value);
    // Those that wait to receive get nothing, and those that were granted keep it.
    let left: Vec<u8> = there.chain(model.senders.iter().map(|(_, value)| *value)).collect();
    prop_assert_eq!(rest, left);
    Ok(())
}

/// The model of a priority channel: room and items are handed out in turn, the value is taken when
/// its receiver is polled.
struct Ranked {
    values: Vec<(u8, usize)>,
    room: Turns,
    items: Turns,
    sends: BTreeMap<usize, u8>,
    count: usize,
}

#[derive(Default)]
struct Turns {
    free: usize,
    line: VecDeque<usize>,
    granted: Vec<usize>,
}

impl Turns {
    fn add(&mut self) {
        self.free += 1;
        self.serve();
    }

    fn come(&mut self, number: usize) {
        self.line.push_back(number);
        self.serve();
    }

    fn serve(&mut self) {
        while self.free > 0
            && let Some(next) = self.line.pop_front()
        {
            self.free -= 1;
            self.granted.push(next);
        }
    }

    /// Whether it had been granted something, which it has no more.
    fn use_up(&mut self, number: usize) -> bool {
        let before = self.granted.len();
        self.granted.retain(|other| *other != number);
        self.granted.len() < before
    }

    fn die(&mut self, number: usize) {
        self.line.retain(|other| *other != number);
        if self.use_up(number) {
            self.add();
        }
    }
}

impl Ranked {
    fn poll(&mut self, number: usize) -> Option<Came> {
        if self.room.use_up(number) {
            self.count += 1;
            self.values.push((self.sends[&number], self.count));
            self.items.add();
            return Some(Came::In);
        }
        if !self.items.use_up(number) {
            return None;
        }
        let least = *self.values.iter().min()?;
        self.values.retain(|value| *value != least);
        self.room.add();
        Some(Came::Out(least.0))
    }
}

fn priority_behaves(steps: Vec<Step>, bound: usize) -> Result<(), TestCaseError> {
    let (sender, receiver) = priority::channel(bound);
    let mut model = Ranked {
        values: Vec::new(),
        room: Turns { free: bound, ..Turns::default() },
        items: Turns::default(),
        sends: BTreeMap::new(),
        count: 0,
    };
    let mut waiters = Waiters::<Came>::new();
    for step in steps {
        let number = match step {
            Step::Begin(n) if n % 2 == 0 => {
                let sends = sender.send_async(n % 16);
                let (number, _) = waiters.begin(async {
                    sends.await.unwrap();
                    Came::In
                });
                model.sends.insert(number, n % 16);
                model.room.come(number);
                number
            }
            Step::Begin(_) => {
                let (number, _) =
                    waiters.begin(async { Came::Out(receiver.recv_async().await.unwrap()) });
                model.items.come(number);
                number
            }
            Step::Poll(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                waiters.poll(number);
                number
            }
            Step::Drop(n) => {
                let Some(number) = waiters.pick(n) else { continue };
                waiters.all.remove(&number);
                model.room.die(number);
                model.items.die(number);
                continue;
            }
            Step::Other => {
                let came = receiver.try_recv().ok().map(Came::Out);
                model.items.come(usize::MAX);
                let expected = model.poll(usize::MAX);
                model.items.die(usize::MAX);
                prop_assert_eq!(came, expected);
                continue;
            }
        };
        let came = match waiters.all.remove(&number) {
            Some(Waiter::Has(came)) => Some(came),
            Some(waits) => {
                waiters.all.insert(number, waits);
                None
            }
            None => None,
        };
        prop_assert_eq!(came, model.poll(number));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// More of all of them: `PROPTEST_CASES=100000 cargo test --test it models`.
    #[test]
    fn slow_random_programs_find_a_semaphore_to_be_as_its_model(steps in steps()) {
        semaphore_behaves(steps)?;
    }

    #[test]
    fn slow_random_programs_find_a_reader_writer_lock_to_be_as_its_model(steps in steps()) {
        rwlock_behaves(steps)?;
    }

    #[test]
    fn slow_random_programs_find_a_channel_to_be_as_its_model(
        steps in steps(),
        bound in 0_usize..4,
    ) {
        channel_behaves(steps, bound)?;
    }

    #[test]
    fn slow_random_programs_find_a_priority_channel_to_be_as_its_model(
        steps in steps(),
        bound in 1_usize..4,
    ) {
        priority_behaves(steps, bound)?;
    }
}
