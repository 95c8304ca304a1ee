//! Spawns, kills, timeouts, channel traffic and closing sockets, all by chance, for as long as one
//! likes; nothing may be left of it.
//!
//! `tests/soak.sh SECONDS [SEED]` runs it; as one test among others it soaks for a second. Each
//! round has a seed, by which it is told when it fails. Every other round is on the real clock, the
//! rest in virtual time and in an order that the seed decides. After a round nothing of it is alive
//! and no descriptor is open; the memory that is resident does not grow from round to round.

use std::{
    cell::Cell,
    env, fs,
    io::{Read, Write},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use greenloop::{
    Deferred, Failure, Greenlet,
    net::{TcpListener, TcpStream},
    reactor, scope, sleep, spawn,
    sync::{Mutex, Receiver, Semaphore, Sender, channel},
    testing::{self, Random, assert_nothing_left},
    timeout, wait_for_deferred, wait_for_future, wait_for_greenlet, yield_now,
};

/// Rounds before memory is first measured: caches and pools have grown by then.
const WARM_UP_ROUNDS: u64 = 20;

/// By how much resident memory may grow after that, over any number of rounds.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Greenlets in a round.
const CROWD: usize = 60;

fn main() {
    let number = |name: &str| {
        let text = env::var(name).ok()?;
        Some(text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}: no number")))
    };
    let limit = Duration::from_secs(number("GREENLOOP_SOAK_SECONDS").unwrap_or(1));
    let only = number("GREENLOOP_SEED");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let first = only.unwrap_or(now.as_nanos() as u64 >> 10);
    println!("soaking for {} s, from seed {first}", limit.as_secs());
    // With the feature `tokio`, its runtime starts here, and stays.
    greenloop::run(|| wait_for_future(async {}));
    let begun = Instant::now();
    let (mut told, mut resident) = (begun, None);
    for count in 0.. {
        let seed = first.wrapping_add(count);
        let open = open_descriptors();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| round(seed))) {
            eprintln!("round {count} has failed; `tests/soak.sh 0 {seed}` repeats it");
            resume_unwind(panic);
        }
        assert_eq!(open_descriptors(), open, "descriptors are open after seed {seed}");
        if count >= WARM_UP_ROUNDS {
            let now = resident_kib();
            let before = *resident.get_or_insert(now);
            let more = now.saturating_sub(before);
            assert!(more <= GROWTH_KIB_MAX, "{more} KiB more than after {WARM_UP_ROUNDS} rounds");
        }
        let is_over = only.is_some() || begun.elapsed() >= limit;
        if is_over || told.elapsed() >= Duration::from_secs(5) {
            told = Instant::now();
            println!(
                "{} s, {} rounds, {} KiB",
                begun.elapsed().as_secs(),
                count + 1,
                resident_kib()
            );
        }
        if is_over {
            return;
        }
    }
}

/// How many descriptors are open.
fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux lists them").count()
}

/// How much memory is resident.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
}

fn round(seed: u64) {
    match seed % 2 {
        0 => testing::seeds(seed..seed + 1, soak),
        _ => greenloop::run(|| soak(&Random::new(seed))),
    }
}

/// What the greenlets of a round share.
struct Shared {
    permits: Arc<Semaphore>,
    mutex: Mutex<()>,
    sender: Sender<u64>,
    receiver: Receiver<u64>,
    /// Where connections are accepted.
    address: SocketAddr,
    /// What was sent for certain, less what was received.
    under_way: Cell<i64>,
}

/// One round: a crowd does what chance says, and some of it is killed meanwhile.
fn soak(random: &Random) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (sender, receiver) = channel(random.below(4));
    let shared = Rc::new(Shared {
        permits: Arc::new(Semaphore::new(3)),
        mutex: Mutex::new(()),
        sender,
        receiver,
        address: listener.local_addr().unwrap(),
        under_way: Cell::new(0),
    });
    let server = spawn(move || serve(&listener));
    let mut crowd: Vec<Greenlet<()>> = Vec::new();
    for _ in 0..CROWD {
        let (shared, own) = (Rc::clone(&shared), Random::new(random.below(1 << 60) as u64));
        crowd.push(spawn(move || (0..3).for_each(|_| act(&shared, &own))));
        if random.below(3) == 0 {
            pause(random);
            crowd[random.below(crowd.len())].kill();
        }
    }
    for greenlet in crowd {
        // Two wait for one another across the channel, maybe, when all others have ended.
        if let Err(greenlet) = greenlet.join_timeout(Duration::from_millis(50)) {
            greenlet.kill();
            let ended = greenlet.join();
            assert!(ended.err().is_none_or(|error| error.is_killed()));
        }
    }
    let left = std::iter::from_fn(|| shared.receiver.try_recv().ok()).count() as i64;
    // What was handed over while its sender was killed arrives, and nobody counted it.
    assert!(shared.under_way.get() <= left, "{} items lost", shared.under_way.get() - left);
    server.kill();
    assert!(server.join().is_err());
    sleep(Duration::from_millis(5)); // The calls that are still to be made.
    assert_eq!(shared.permits.available_permits(), 3);
    shared.mutex.clear_poison();
    assert!(shared.mutex.try_lock().is_ok());
    assert_nothing_left();
}

/// Echoes one read of each connection, each on a greenlet of its own.
fn serve(listener: &TcpListener) {
    scope(|s| {
        loop {
            let Ok((mut stream, _)) = listener.accept() else { continue };
            s.spawn(move || {
                let mut bytes = [0; 64];
                let count = stream.read(&mut bytes).unwrap_or(0);
                let _ = stream.write_all(&bytes[..count]);
            });
        }
    });
}

/// A while, by chance.
fn pause(random: &Random) {
    match random.below(3) {
        0 => {}
        1 => yield_now(),
        _ => sleep(Duration::from_micros(random.below(2000) as u64)),
    }
}

/// Something, by chance.
fn act(shared: &Rc<Shared>, random: &Random) {
    let limit = Duration::from_micros(1 + random.below(3000) as u64);
    match random.below(9) {
        0 => {
            let _permit = shared.permits.acquire_many(1 + random.below(3));
            pause(random);
        }
        1 => {
            let permit = wait_for_deferred(shared.permits.acquire_deferred(1));
            pause(random);
            drop(permit);
        }
        2 => {
            let _guard = shared.mutex.lock_timeout(limit);
            pause(random);
        }
        3 => {
            if wait_for_future(shared.sender.send_async(1)).is_ok() {
                shared.under_way.set(shared.under_way.get() + 1);
            }
        }
        4 => {
            if shared.receiver.recv_timeout(limit).is_ok() {
                shared.under_way.set(shared.under_way.get() - 1);
            }
        }
        5 => drop(timeout(limit, || talk(shared.address, random))),
        6 => {
            let own = Random::new(random.below(1 << 60) as u64);
            let child = spawn(move || pause(&own));
            if random.below(2) == 0 {
                child.kill();
            }
            drop(wait_for_deferred(wait_for_greenlet(child)));
        }
        7 => scope(|s| {
            let children = [(); 3].map(|()| s.spawn(|| sleep(limit)));
            children[random.below(3)].kill();
            pause(random);
        }),
        _ => {
            let (resolver, deferred) = Deferred::<()>::new();
            reactor().call_later(limit, move || resolver.callback(()));
            let both = Deferred::from_future(async move {
                deferred.await?;
                Ok::<_, Failure>(())
            });
            if random.below(2) == 0 {
                drop(wait_for_deferred(both));
            }
        }
    }
}

/// Connects, writes, and perhaps reads what comes back.
fn talk(address: SocketAddr, random: &Random) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    pause(random);
    let _ = stream.write_all(b"something");
    if random.below(2) == 0 {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(["", "something"].contains(&text.as_str()), "{text}");
    }
}
