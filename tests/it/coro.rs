//! Stacks, as seen from outside: how many there can be, what they cost, and that they go back.

use std::{cell::Cell, rc::Rc};

use greenloop::{Builder, Deferred, run, spawn, wait_for_deferred, yield_now};

use crate::hub::{Trace, alone, note};

/// How many mappings this process has.
fn mappings_count() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Whether a guarded stack costs no mapping here (`MADV_GUARD_INSTALL`, Linux 6.13).
pub(crate) fn guards_are_free() -> bool {
    run(|| {
        let before = mappings_count();
        let all: Vec<_> = (0..64).map(|_| spawn(yield_now)).collect();
        yield_now();
        let grown = mappings_count() - before;
        all.into_iter().for_each(|g| g.join().unwrap());
        grown < 32
    })
}

/// Runs `f` while `count` greenlets are parked.
fn with_parked(count: usize, f: impl FnOnce()) {
    let ended = Rc::new(Cell::new(0));
    let mut resolvers = Vec::with_capacity(count);
    let all: Vec<_> = (0..count)
        .map(|i| {
            let (resolver, deferred) = Deferred::<usize>::new();
            resolvers.push(resolver);
            let ended = Rc::clone(&ended);
            spawn(move || {
                let value = wait_for_deferred(deferred).unwrap();
                ended.set(ended.get() + 1);
                value == i
            })
        })
        .collect();
    // Greenlets start in their order: when this one has run, all before it have parked.
    spawn(|| ()).join().unwrap();
    f();
    for (i, resolver) in resolvers.into_iter().enumerate() {
        resolver.callback(i);
    }
    assert!(all.into_iter().all(|g| g.join().unwrap()));
    assert_eq!(ended.get(), count);
}

/// Peer list, item 5.
#[test]
fn slow_a_hundred_thousand_greenlets_park_under_the_default_limit_of_mappings() {
    alone(
        "coro::slow_a_hundred_thousand_greenlets_park_under_the_default_limit_of_mappings",
        || {
            let free = guards_are_free();
            let count = if free { 100_000 } else { 10_000 };
            if !free {
                eprintln!(
                    "SKIPPED: guards take mappings here, so {count} greenlets instead of 100,000"
                );
            }
            run(|| {
                let before = mappings_count();
                with_parked(count, || {
                    let grown = mappings_count() - before;
                    if free {
                        assert!(grown < 100, "{grown} mappings for {count} stacks");
                    }
                });
            });
        },
    );
}

/// Peer list, item 5: at most 4.2 KB each. The debug build's frames are larger than a page allows.
#[test]
#[cfg(not(debug_assertions))]
fn slow_a_parked_greenlet_costs_about_one_page() {
    alone("coro::slow_a_parked_greenlet_costs_about_one_page", || {
        /// Resident anonymous memory, in KiB.
        fn resident() -> usize {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        }
        let count = if guards_are_free() { 50_000 } else { 10_000 };
        run(|| {
            let before = resident();
            with_parked(count, || {
                let each = (resident() - before) as f64 / count as f64;
                eprintln!("{each:.2} KiB a parked greenlet, with its Deferred and handle");
                // One page of stack, and the Deferred, the join state and the slots on the heap.
                assert!(each < 5.0, "{each:.2} KiB each");
            });
        });
    });
}

#[test]
fn stacks_are_reused_last_in_first_out() {
    run(|| {
        fn place() -> usize {
            let local = 0u8;
            std::ptr::from_ref(&local).addr() >> 14
        }
        let first = spawn(place).join().unwrap();
        for _ in 0..100 {
            assert_eq!(spawn(place).join().unwrap(), first);
        }
        // Of two, the one that ended last is taken first.
        let trace = Trace::default();
        let both: Vec<_> = (0..2)
            .map(|_| {
                let trace = Rc::clone(&trace);
                spawn(move || note(&trace, place().to_string()))
            })
            .collect();
        both.into_iter().for_each(|g| g.join().unwrap());
        let last = trace.borrow()[1].clone();
        assert_eq!(spawn(place).join().unwrap().to_string(), last);
    });
}

#[test]
fn rounds_of_greenlets_do_not_add_mappings() {
    alone("coro::rounds_of_greenlets_do_not_add_mappings", || {
        run(|| {
            let round = || {
                let all: Vec<_> = (0..500).map(|_| spawn(yield_now)).collect();
                all.into_iter().for_each(|g| g.join().unwrap());
            };
            round();
            let before = mappings_count();
            for _ in 0..50 {
                round();
            }
            let grown = mappings_count().saturating_sub(before);
            assert!(grown <= 4, "{grown} mappings more after 50 rounds");
        });
    });
}

#[test]
fn the_end_of_a_run_gives_its_stacks_back() {
    alone("coro::the_end_of_a_run_gives_its_stacks_back", || {
        let round = || {
            run(|| {
                let sizes = [0, 1 << 20, 5 << 20];
                let all: Vec<_> = (0..300)
                    .map(|i| Builder::new().stack_size(sizes[i % 3]).spawn(yield_now).unwrap())
                    .collect();
                all.into_iter().for_each(|g| g.join().unwrap());
            });
        };
        let size = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').next().unwrap().parse::<usize>().unwrap() * 4
        };
        round();
        let (mappings, kib) = (mappings_count(), size());
        for _ in 0..20 {
            round();
        }
        let grown = mappings_count().saturating_sub(mappings);
        assert!(grown <= 4, "{grown} mappings more after 20 runs");
        let grown = size().saturating_sub(kib);
        assert!(grown < 64 << 10, "{grown} KiB of address space more after 20 runs");
    });
}

#[test]
fn stacks_of_different_sizes_do_not_get_mixed_up() {
    run(|| {
        /// Uses about `kib` KiB of stack.
        #[inline(never)]
        fn dive(kib: usize) -> usize {
            let pad = std::hint::black_box([1u8; 1024]);
            if kib == 0 { 0 } else { dive(kib - 1) + usize::from(pad[kib % 1024]) }
        }
        for _ in 0..3 {
            let small = Builder::new().stack_size(0).spawn(yield_now).unwrap();
            let large = Builder::new().stack_size(8 << 20).spawn(|| dive(2 << 10)).unwrap();
            let plain = spawn(|| dive(16));
            small.join().unwrap();
            assert_eq!(large.join().unwrap(), 2 << 10);
            assert_eq!(plain.join().unwrap(), 16);
        }
    });
}

#[test]
fn a_deep_stack_is_not_disturbed_by_a_hundred_others() {
    run(|| {
        fn fill(depth: u64, seed: u64) -> u64 {
            let pad = std::hint::black_box([seed ^ depth; 8]);
            if depth == 0 {
                yield_now();
                return seed;
            }
            let below = fill(depth - 1, seed);
            assert!(pad.iter().all(|word| *word == seed ^ depth));
            below
        }
        let all: Vec<_> = (0..100).map(|seed| spawn(move || fill(100, seed))).collect();
        for (seed, g) in all.into_iter().enumerate() {
            assert_eq!(g.join().unwrap(), seed as u64);
        }
    });
}
