//! Seeded schedules, and what holds of each primitive in whatever order greenlets run, with kills
//! and timeouts between.

mod select;
mod server;
mod sync;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    env,
    ops::Range,
    process::Command,
    rc::Rc,
    sync::{
        Arc, PoisonError, TryLockError,
        mpsc::{RecvTimeoutError, TryRecvError},
    },
    time::Duration,
};

use greenloop::{
    Deadline, Deferred, Failure, Greenlet, gather_results, reactor, scope, sleep, spawn,
    sync::{Condvar, Event, Mutex, OnceCell, Permit, Semaphore, channel, unbounded},
    task::Pool,
    testing::{Random, assert_nothing_left, seeds},
    timeout, wait_for_deferred, wait_for_future, wait_for_greenlet, yield_now,
};

use crate::kills_everywhere::complaint_of;

const SECOND: Duration = Duration::from_secs(1);

/// In what order three greenlets run that are spawned together.
fn order_with(seed: u64) -> Vec<u32> {
    let order = Rc::new(RefCell::new(Vec::new()));
    seeds(seed..seed + 1, |_| {
        for name in 0..3 {
            let order = Rc::clone(&order);
            drop(spawn(move || order.borrow_mut().push(name)));
        }
        sleep(SECOND);
    });
    order.take()
}

#[test]
fn a_seed_decides_the_order_and_repeats_it() {
    let orders: BTreeSet<_> = (0..60).map(order_with).collect();
    assert_eq!(orders.len(), 6, "all there are: {orders:?}");
    assert!((0..60).all(|seed| order_with(seed) == order_with(seed)));
}

#[test]
fn numbers_by_chance_are_spread_and_below_their_bound() {
    let random = Random::new(3);
    let mut counts = [0; 7];
    (0..7000).for_each(|_| counts[random.below(7)] += 1);
    assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    let again = Random::new(3);
    let other = Random::new(4);
    let draw = |random: &Random| Vec::from_iter((0..4).map(|_| random.below(1 << 60)));
    assert_eq!(draw(&again), draw(&Random::new(again.seed())));
    assert_ne!(draw(&again), draw(&other));
    assert!(complaint_of(|| random.below(0)).contains("no number is below zero"));
}

/// Runs on those that yield forever between others: nobody is passed over for good.
#[test]
fn whoever_is_ready_gets_a_turn() {
    seeds(0..20, |_| {
        let over = Rc::new(Cell::new(false));
        let flag = Rc::clone(&over);
        let busy = spawn(move || {
            while !flag.get() {
                yield_now();
            }
        });
        for _ in 0..100 {
            let last = spawn(yield_now);
            last.join().unwrap();
        }
        over.set(true);
        busy.join().unwrap();
    });
}

#[test]
fn a_seed_that_fails_is_told() {
    let fails = |random: &Random| {
        let first = Rc::new(Cell::new(0));
        for name in [1, 2] {
            let first = Rc::clone(&first);
            drop(spawn(move || first.set(if first.get() == 0 { name } else { first.get() })));
        }
        sleep(SECOND);
        assert_eq!(first.get(), 1, "seed {}", random.seed());
    };
    let text = complaint_of(|| seeds(0..100, fails));
    let seed = text.split("GREENLOOP_SEED=").nth(1).expect("it is told");
    let seed: u64 = seed.split(' ').next().unwrap().parse().unwrap();
    assert!(text.contains(&format!("seed {seed}\n")), "{text}");
    // It is the first one, and fails alone too.
    seeds(0..seed, fails);
    assert_eq!(complaint_of(|| seeds(seed..seed + 1, fails)), text);
}

#[test]
fn the_environment_names_the_one_seed_to_try() {
    const VARIABLE: &str = "GREENLOOP_SEED";
    if std::env::var_os(VARIABLE).is_some() {
        let seen = RefCell::new(Vec::new());
        seeds(0..3, |random| seen.borrow_mut().push(random.seed()));
        return assert_eq!(seen.into_inner(), [17]);
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["seeds::the_environment_names_the_one_seed_to_try", "--exact"]);
    let output = again.env(VARIABLE, "17").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_wait_that_never_ends_is_told_with_its_seed() {
    let text = complaint_of(|| {
        seeds(0..1, |_| {
            let (_resolver, deferred) = Deferred::<()>::new();
            let _ = wait_for_deferred(deferred);
        });
    });
    assert!(text.contains("seed 0") && text.contains("would wait for ever"), "{text}");
}

// The primitives.

/// The orders that are tried of each: 300, or as many as `GREENLOOP_SEEDS` says.
fn orders() -> Range<u64> {
    0..env::var("GREENLOOP_SEEDS").map_or(300, |count| count.parse().expect("a number of seeds"))
}

/// A while, by chance.
fn pause(random: &Random) {
    match random.below(3) {
        0 => {}
        1 => yield_now(),
        _ => sleep(SECOND / 4 * random.below(5) as u32),
    }
}

/// Kills some of them by chance, between pauses, and waits for the end of all. Returns the values
/// of those that lived.
fn kill_some<T: 'static>(random: &Random, greenlets: Vec<Greenlet<T>>) -> Vec<T> {
    for _ in 0..random.below(4) {
        pause(random);
        greenlets[random.below(greenlets.len())].kill();
    }
    let ended = greenlets.into_iter().map(Greenlet::join);
    ended
        .filter_map(|ended| ended.map_err(|error| assert!(error.is_killed(), "{error}")).ok())
        .collect()
}

/// Spawns `count` greenlets, each with a stream of chance of its own.
fn crowd<T: 'static>(
    random: &Random,
    count: usize,
    f: impl Fn(usize, &Random) -> T + 'static,
) -> Vec<Greenlet<T>> {
    let f = Rc::new(f);
    let spawned = (0..count).map(|place| {
        let (f, random) = (Rc::clone(&f), Random::new(random.below(usize::MAX) as u64));
        spawn(move || f(place, &random))
    });
    spawned.collect()
}

/// Counts itself while it lives.
struct Counted(Rc<Cell<usize>>, usize);

impl Counted {
    fn new(count: &Rc<Cell<usize>>, weight: usize) -> Counted {
        count.set(count.get() + weight);
        Counted(Rc::clone(count), weight)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - self.1);
    }
}

#[test]
fn no_more_permits_are_out_than_there_are_and_all_come_back() {
    seeds(orders(), |random| {
        let semaphore = Arc::new(Semaphore::new(3));
        let (shared, out) = (Arc::clone(&semaphore), Rc::new(Cell::new(0)));
        let users = crowd(random, 6, move |_, random| {
            for _ in 0..3 {
                let count = 1 + random.below(3);
                let work = |_permit| {
                    let _out = Counted::new(&out, count);
                    assert!(out.get() <= 3, "{} are out", out.get());
                    pause(random);
                };
                match random.below(4) {
                    0 => work(Held::Borrowed(shared.acquire_many(count))),
                    1 => {
                        let limit = SECOND / 2;
                        shared
                            .acquire_many_timeout(count, limit)
                            .map(Held::Borrowed)
                            .map_or((), work)
                    }
                    2 => {
                        let permit = wait_for_deferred(shared.acquire_deferred(count));
                        work(Held::Owned(permit.unwrap()));
                    }
                    _ => work(Held::Borrowed(wait_for_future(shared.acquire_async(count)))),
                }
            }
        });
        kill_some(random, users);
        assert_nothing_left();
        assert_eq!(semaphore.available_permits(), 3);
    });
}

/// Permits of two kinds.
enum Held<'a> {
    Borrowed(#[expect(dead_code, reason = "it is held")] Permit<&'a Semaphore>),
    Owned(#[expect(dead_code, reason = "it is held")] Permit<Arc<Semaphore>>),
}

#[test]
fn one_at_a_time_has_a_mutex_and_none_afterwards() {
    seeds(orders(), |random| {
        let mutex = Arc::new(Mutex::new(()));
        let (shared, inside) = (Arc::clone(&mutex), Rc::new(Cell::new(0)));
        let users = crowd(random, 5, move |_, random| {
            for _ in 0..3 {
                let work = || {
                    let _inside = Counted::new(&inside, 1);
                    assert_eq!(inside.get(), 1, "they are together");
                    pause(random);
                };
                match random.below(4) {
                    0 => {
                        let _held = shared.lock().unwrap_or_else(PoisonError::into_inner);
                        work();
                    }
                    1 => match shared.lock_timeout(SECOND / 2) {
                        Err(TryLockError::WouldBlock) => {}
                        _held => work(),
                    },
                    2 => {
                        let _held = wait_for_deferred(shared.lock_deferred()).unwrap();
                        work();
                    }
                    _ => {
                        let _held = wait_for_future(shared.lock_async());
                        work();
                    }
                }
            }
        });
        kill_some(random, users);
        assert_nothing_left();
        mutex.clear_poison();
        assert!(mutex.try_lock().is_ok());
    });
}

/// Each item that a `send` accepted is received once, those of one sender in their order, and what
/// a sender died with arrives at most once.
#[test]
fn items_are_neither_lost_nor_doubled_nor_out_of_order() {
    for bound in [Some(0), Some(1), Some(3), None] {
        seeds(orders(), |random| {
            let (sender, receiver) = bound.map_or_else(unbounded, channel);
            let sent = Rc::new(RefCell::new(Vec::new()));
            let got = Rc::new(RefCell::new(Vec::new()));
            let (accepted, sink) = (Rc::clone(&sent), Rc::clone(&got));
            let shared = receiver.clone();
            let takers = crowd(random, 2, move |_, random| {
                loop {
                    let item = match random.below(4) {
                        0 => shared.recv().ok(),
                        1 => match shared.recv_timeout(SECOND / 3) {
                            Err(RecvTimeoutError::Timeout) => continue,
                            ended => ended.ok(),
                        },
                        2 => wait_for_future(shared.recv_async()).ok(),
                        _ => match shared.try_recv() {
                            Err(TryRecvError::Empty) => {
                                sleep(SECOND / 5);
                                continue;
                            }
                            ended => ended.ok(),
                        },
                    };
                    match item {
                        Some(item) => sink.borrow_mut().push(item),
                        None => return,
                    }
                    pause(random);
                }
            });
            let feeders = crowd(random, 3, move |place, random| {
                let sender = sender.clone();
                for number in 0..4 {
                    let item = (place, number);
                    let was_sent = match random.below(4) {
                        0 => sender.send(item).is_ok(),
                        1 => sender.send_timeout(item, SECOND / 3).is_ok(),
                        2 => wait_for_future(sender.send_async(item)).is_ok(),
                        _ => sender.try_send(item).is_ok(),
                    };
                    if was_sent {
                        accepted.borrow_mut().push(item);
                    }
                    pause(random);
                }
            });
            kill_some(random, feeders);
            kill_some(random, takers);
            got.borrow_mut().extend(receiver.iter());
            assert_nothing_left();
            let (sent, got) = (sent.take(), got.take());
            let once: BTreeSet<_> = got.iter().copied().collect();
            assert_eq!(once.len(), got.len(), "doubled: {got:?}");
            assert!(sent.iter().all(|item| once.contains(item)), "lost: {sent:?} {got:?}");
        });
    }
}

#[test]
fn whoever_waits_for_an_event_or_a_value_sees_it() {
    seeds(orders(), |random| {
        let (event, cell) = (Arc::new(Event::new()), Arc::new(OnceCell::new()));
        let (set, filled) = (Arc::clone(&event), Arc::clone(&cell));
        let made = Rc::new(Cell::new(0));
        let count = Rc::clone(&made);
        let waiters = crowd(random, 5, move |place, random| {
            pause(random);
            match random.below(3) {
                0 => set.wait(),
                1 => wait_for_deferred(set.wait_deferred()).unwrap(),
                _ => while !set.wait_timeout(SECOND / 3) {},
            }
            assert!(set.is_set());
            let value = filled.get_or_init(|| {
                pause(random);
                count.set(count.get() + 1);
                place
            });
            assert_eq!(filled.get(), Some(value));
            *value
        });
        pause(random);
        event.set();
        let values = kill_some(random, waiters);
        assert!(values.iter().all(|value| cell.get() == Some(value)));
        assert_eq!(made.get(), usize::from(cell.get().is_some()), "made once, or never");
        assert_nothing_left();
    });
}

/// As many are let through as were notified and lived.
#[test]
fn a_notification_wakes_one_who_lives() {
    seeds(orders(), |random| {
        let shared = Rc::new((Mutex::new(0), Condvar::new()));
        let used = Rc::clone(&shared);
        let waiters = crowd(random, 4, move |_, random| {
            let (mutex, condvar) = &*used;
            let items = mutex.lock().unwrap_or_else(PoisonError::into_inner);
            let items = condvar.wait_while(items, |items| *items == 0);
            *items.unwrap_or_else(PoisonError::into_inner) -= 1;
            pause(random);
        });
        let giver = Rc::clone(&shared);
        let giver = spawn(move || {
            for _ in 0..4 {
                *giver.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                giver.1.notify_one();
                yield_now();
            }
        });
        kill_some(random, waiters); // Nobody waits for ever: there are as many items as waiters.
        giver.join().unwrap();
        assert_nothing_left();
    });
}

/// Each limit that elapses is its own, whatever is inside and around it.
#[test]
fn nested_limits_do_not_swallow_one_another() {
    seeds(orders(), |random| {
        let sleepers = crowd(random, 4, |_, random| {
            let [outer, inner, nap] = [(); 3].map(|()| SECOND * (1 + random.below(6) as u32));
            let begun = reactor().now();
            let ended = timeout(outer, || {
                let ended = timeout(inner, || sleep(nap));
                (ended.is_ok(), reactor().now())
            });
            let at = |span: Duration| begun + span;
            match ended {
                Err(_) => assert!(outer <= inner.min(nap) && reactor().now() == at(outer)),
                Ok((true, now)) => assert!(nap <= inner && nap <= outer && now == at(nap)),
                Ok((false, now)) => assert!(inner <= nap && inner <= outer && now == at(inner)),
            }
        });
        kill_some(random, sleepers);
        assert_nothing_left();
    });
}

#[test]
fn no_child_outlives_its_scope() {
    seeds(orders(), |random| {
        let parents = crowd(random, 3, |_, random| {
            let running = Rc::new(Cell::new(0));
            struct Over(Rc<Cell<usize>>);
            impl Drop for Over {
                fn drop(&mut self) {
                    assert!(self.0.get() == 0 || std::thread::panicking(), "a child lives");
                }
            }
            let _over = Over(Rc::clone(&running));
            let seeds = [(); 4].map(|()| random.below(1000) as u64);
            scope(|s| {
                let children = seeds.map(|seed| {
                    let running = &running;
                    s.spawn(move || {
                        let _running = Counted::new(running, 1);
                        let random = Random::new(seed);
                        (0..3).for_each(|_| pause(&random));
                    })
                });
                pause(random);
                children[random.below(4)].kill();
                if random.below(2) == 0 {
                    let items = Pool::new(2).map(0..3, |item| {
                        yield_now();
                        Ok::<usize, Failure>(item)
                    });
                    assert_eq!(items.unwrap(), [0, 1, 2]);
                }
            });
            assert_eq!(running.get(), 0);
        });
        kill_some(random, parents);
        assert_nothing_left();
    });
}

/// A chain of each style waits for the one before it; one of them is killed.
#[test]
fn all_three_styles_end_together() {
    seeds(orders(), |random| {
        let (resolver, source) = Deferred::new();
        let worker = spawn(move || wait_for_deferred(source).unwrap());
        let seed = random.below(1000) as u64;
        let middle = Deferred::from_future(async move {
            let number: u32 = wait_for_greenlet(worker).await?;
            let napping = spawn(move || pause(&Random::new(seed)));
            wait_for_greenlet(napping).await?;
            Ok::<_, Failure>(number + 1)
        });
        let both = gather_results([middle, wait_for_greenlet(spawn(|| 5))]);
        let last = spawn(move || wait_for_deferred(both));
        let begun = reactor().now();
        pause(random);
        let is_killed = random.below(2) == 0;
        if is_killed {
            last.kill();
        }
        pause(random);
        resolver.callback(1);
        match last.join() {
            Ok(numbers) => assert_eq!(numbers.unwrap(), [2, 5]),
            Err(error) => assert!(is_killed && error.is_killed(), "{error}"),
        }
        sleep(SECOND * 2); // What was cancelled ends by itself.
        assert!(reactor().now() >= begun && begun >= Deadline::ZERO);
        assert_nothing_left();
    });
}
