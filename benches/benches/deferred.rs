//! Deferreds: firing through callbacks, and waiting for one, beside the one-value channels that
//! futures have.
//!
//! `cargo bench --bench deferred`
//!
//! - *a stage*: firing goes through one more callback. Excluded: making the chains.
//! - *fire one callback*, beside *send and receive*: both ends are there already; the receiver is
//!   polled once. Excluded: making and dropping the ends.
//! - *a whole life*: making both ends, adding the callback, firing, dropping what is left.
//! - *waiting for a fired Deferred*, beside a plain call that returns the same.
//! - *waiting in another greenlet*: two of them in turn make a Deferred, fire the other's with its
//!   Resolver, and wait. tokio's tasks do the same with channels.

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use greenloop::{Deferred, Failure, Resolver, run, spawn, wait_for_deferred};
use greenloop_benches::os;
use greenloop_benches::report::{Contender, Limit, OURS, Table, is_for_real, measure_with};
use greenloop_benches::stats::Median;
use tokio::runtime::Builder;

/// What is fired at a time, prepared before the clock starts: few enough for the caches.
const BATCH: u64 = 100;

/// Callbacks of a chain whose stages are counted.
const DEPTH: u64 = 10;

/// The largest cost of a stage, in nanoseconds.
const STAGE_NS_MAX: f64 = 15.0;

/// What waiting for a fired Deferred may cost more than a plain call, in nanoseconds.
const WAIT_NS_MAX: f64 = 10.0;

fn main() {
    os::pin_to_core(0).expect("core 0 is ours");
    let stages = [Contender { name: OURS, run: stages }];
    let fires = [
        Contender { name: OURS, run: fire_one },
        Contender { name: "futures oneshot", run: send_and_receive },
    ];
    let lives = [
        Contender { name: OURS, run: whole_life },
        Contender { name: "futures oneshot", run: whole_channel },
    ];
    let calls = [
        Contender { name: OURS, run: wait_for_fired },
        Contender { name: "plain call", run: plain_call },
    ];
    let waits = [
        Contender { name: OURS, run: wait_in_turn },
        Contender { name: "tokio", run: |waits| receive_in_turn(true, waits) },
        Contender { name: "tokio without drivers", run: |waits| receive_in_turn(false, waits) },
    ];
    for (name, contenders) in [
        ("deferred/stage", &stages[..]),
        ("deferred/fire", &fires),
        ("deferred/life", &lives),
        ("deferred/fired", &calls),
        ("deferred/wait", &waits),
    ] {
        measure_with(name, contenders);
    }
    if !is_for_real() {
        return;
    }
    let as_fast = [Limit { peer: "futures oneshot", ratio: 1.0 }];
    let third = ["tokio", "tokio without drivers"].map(|peer| Limit { peer, ratio: 1.0 / 3.0 });
    let table = Table::contest("a stage", &stages, 1_000_000);
    table.print(&[]);
    print_verdict("a stage", Median::of(&table.entries[0].rounds_ns), STAGE_NS_MAX);
    Table::contest("fire one callback; send and receive", &fires, 500_000).print(&as_fast);
    Table::contest("a whole life", &lives, 500_000).print(&[]);
    let table = Table::contest("waiting for a fired Deferred", &calls, 2_000_000);
    table.print(&[]);
    let [ours, plain] = [0, 1].map(|index| &table.entries[index].rounds_ns);
    let more: Vec<f64> = ours.iter().zip(plain).map(|(ours, plain)| ours - plain).collect();
    print_verdict("more than a plain call", Median::of(&more), WAIT_NS_MAX);
    Table::contest("waiting in another greenlet or task", &waits, 300_000).print(&third);
}

/// Prints whether a figure of our own is within its limit.
fn print_verdict(what: &str, Median { value, low, high }: Median, limit_ns: f64) {
    let verdict = if value <= limit_ns { "within" } else { "OVER" };
    println!("{what}: {value:.1} ns ({low:.1} to {high:.1}), limit {limit_ns:.0}: {verdict}");
}

/// Makes a batch of chains, fires it by the clock, and drops what is left.
fn fire_batches(depth: u64, batches: u64) -> Duration {
    let mut time = Duration::ZERO;
    for _ in 0..batches {
        let chain = |_| {
            let (resolver, mut end) = Deferred::new();
            for _ in 0..depth {
                end = end.add_callback(|n: u64| Ok(n + 1));
            }
            (resolver, end)
        };
        let (resolvers, ends): (Vec<_>, Vec<_>) = (0..BATCH).map(chain).unzip();
        let start = Instant::now();
        resolvers.into_iter().for_each(|resolver| resolver.callback(1));
        time += start.elapsed();
        black_box(ends);
    }
    time
}

fn stages(stages: u64) -> Duration {
    let batches = stages.div_ceil(BATCH * DEPTH);
    let time = fire_batches(DEPTH, batches);
    time.mul_f64(stages as f64 / (batches * BATCH * DEPTH) as f64)
}

fn fire_one(fires: u64) -> Duration {
    let batches = fires.div_ceil(BATCH);
    fire_batches(1, batches).mul_f64(fires as f64 / (batches * BATCH) as f64)
}

/// Polls a receiver that has its value.
fn receive(receiver: &mut oneshot::Receiver<u64>) -> u64 {
    match Pin::new(receiver).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        other => panic!("nothing was sent: {other:?}"),
    }
}

fn send_and_receive(sends: u64) -> Duration {
    let batches = sends.div_ceil(BATCH);
    let mut time = Duration::ZERO;
    for _ in 0..batches {
        let ends = (0..BATCH).map(|_| oneshot::channel());
        let (senders, mut receivers): (Vec<_>, Vec<_>) = ends.unzip();
        let start = Instant::now();
        for (sender, receiver) in senders.into_iter().zip(&mut receivers) {
            sender.send(1).expect("the receiver is there");
            black_box(receive(receiver));
        }
        time += start.elapsed();
    }
    time.mul_f64(sends as f64 / (batches * BATCH) as f64)
}

fn whole_life(lives: u64) -> Duration {
    let sum = Rc::new(Cell::new(0));
    let start = Instant::now();
    for _ in 0..lives {
        let (resolver, deferred) = Deferred::new();
        let added = Rc::clone(&sum);
        drop(deferred.add_callback(move |n: u64| {
            added.set(added.get() + n);
            Ok(())
        }));
        black_box(resolver).callback(1);
    }
    let time = start.elapsed();
    assert_eq!(sum.get(), lives);
    time
}

fn whole_channel(lives: u64) -> Duration {
    let mut sum = 0;
    let start = Instant::now();
    for _ in 0..lives {
        let (sender, mut receiver) = oneshot::channel();
        black_box(sender).send(1).expect("the receiver is there");
        sum += receive(&mut receiver);
    }
    let time = start.elapsed();
    assert_eq!(sum, lives);
    time
}

fn wait_for_fired(waits: u64) -> Duration {
    run(move || {
        let start = Instant::now();
        for n in 0..waits {
            let _ = black_box(wait_for_deferred(Deferred::succeed(black_box(n))));
        }
        start.elapsed()
    })
}

fn plain_call(calls: u64) -> Duration {
    #[inline(never)]
    fn result_of(n: u64) -> Result<u64, Failure> {
        Ok(n)
    }
    run(move || {
        let start = Instant::now();
        for n in 0..calls {
            let _ = black_box(result_of(black_box(n)));
        }
        start.elapsed()
    })
}

/// What the two greenlets hand each other: how to answer, unless it is the last one.
struct Ball(Option<Resolver<Ball>>);

fn wait_in_turn(waits: u64) -> Duration {
    fn turns(turns: u64, mut waiting: Deferred<Ball>) {
        for turn in 1..=turns {
            let Ok(Ball(Some(answer))) = wait_for_deferred(waiting) else { return };
            if turn == turns {
                return answer.callback(Ball(None));
            }
            let (resolver, deferred) = Deferred::new();
            answer.callback(Ball(Some(resolver)));
            waiting = deferred;
        }
    }
    run(move || {
        let turns_each = waits.div_ceil(2);
        let (serve, serving) = Deferred::new();
        let (answer, answering) = Deferred::new();
        let start = Instant::now();
        let other = spawn(move || turns(turns_each, serving));
        serve.callback(Ball(Some(answer)));
        turns(turns_each, answering);
        other.join().expect("the greenlet ended");
        start.elapsed()
    })
}

/// As [`Ball`].
struct Sent(tokio::sync::oneshot::Sender<Sent>);

fn receive_in_turn(with_drivers: bool, waits: u64) -> Duration {
    async fn turns(turns: u64, mut waiting: tokio::sync::oneshot::Receiver<Sent>) {
        for _ in 0..turns {
            let Ok(Sent(answer)) = waiting.await else { return };
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let _ = answer.send(Sent(sender));
            waiting = receiver;
        }
    }
    let mut builder = Builder::new_current_thread();
    if with_drivers {
        builder.enable_all();
    }
    let runtime = builder.build().expect("a runtime starts");
    let turns_each = waits.div_ceil(2);
    runtime.block_on(async {
        let (serve, serving) = tokio::sync::oneshot::channel();
        let (answer, answering) = tokio::sync::oneshot::channel();
        let start = Instant::now();
        let other = tokio::spawn(turns(turns_each, serving));
        let one = tokio::spawn(turns(turns_each, answering));
        let _ = serve.send(Sent(answer));
        other.await.expect("the task ended");
        one.await.expect("the task ended");
        start.elapsed()
    })
}
