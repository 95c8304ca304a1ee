//! The clock arithmetic at its edges, and the wheel against a sorted list.
//!
//! `Pair` runs a [`Wheel`] and the naive model side by side and compares every answer; the named
//! tests and the random sequences are both written on it.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// A tick of the wheel in nanoseconds, restated: a test must not move with the constant.
const TICK_NS: u64 = 1 << 16;

fn at(nanos: u64) -> Deadline {
    Deadline::from_nanos(nanos)
}

/// A wheel and the list that it must equal.
struct Pair {
    wheel: Wheel<u64>,
    /// (deadline, order of filing, key), unsorted; the order is also found as the value.
    model: Vec<(Deadline, u64, Key)>,
    /// Every key that was ever given out, with its value.
    keys: Vec<(Key, u64)>,
    now: Deadline,
    filings_count: u64,
    checks_invariants: bool,
}

impl Pair {
    fn new(now: u64) -> Self {
        Self {
            wheel: Wheel::new(at(now)),
            model: Vec::new(),
            keys: Vec::new(),
            now: at(now),
            filings_count: 0,
            checks_invariants: true,
        }
    }

    /// The values are the first filing's order; a reset changes only the model's order.
    fn insert(&mut self, deadline: u64) -> Key {
        let value = self.keys.len() as u64;
        let key = self.wheel.insert(at(deadline), value);
        self.model.push((at(deadline), self.filings_count, key));
        self.filings_count += 1;
        self.keys.push((key, value));
        self.compare();
        key
    }

    fn position(&self, key: Key) -> Option<usize> {
        self.model.iter().position(|&(.., other)| other == key)
    }

    fn value_of(&self, key: Key) -> u64 {
        let found = self.keys.iter().find(|(other, _)| *other == key);
        found.expect("a key of this pair").1
    }

    fn cancel(&mut self, key: Key) {
        let expected = self.position(key).map(|i| {
            self.model.remove(i);
            self.value_of(key)
        });
        assert_eq!(self.wheel.cancel(key), expected);
        self.compare();
    }

    fn reset(&mut self, key: Key, deadline: u64) {
        let position = self.position(key);
        assert_eq!(self.wheel.reset(key, at(deadline)), position.is_some());
        if let Some(i) = position {
            self.model[i] = (at(deadline), self.filings_count, key);
            self.filings_count += 1;
        }
        self.compare();
    }

    /// Pops one, at `now`, which becomes the present.
    fn pop(&mut self, now: u64) -> Option<u64> {
        self.now = at(now);
        let first = self.model.iter().enumerate().min_by_key(|(_, entry)| (entry.0, entry.1));
        let expected = match first {
            Some((i, &(deadline, _, key))) if deadline <= self.now => {
                self.model.remove(i);
                Some(self.value_of(key))
            }
            _ => None,
        };
        assert_eq!(self.wheel.pop_due(self.now), expected, "at {:?}", self.now);
        self.compare();
        expected
    }

    fn expire(&mut self, now: u64) -> Vec<u64> {
        self.now = at(now);
        self.model.sort_by_key(|entry| (entry.0, entry.1));
        let due_len = self.model.partition_point(|entry| entry.0 <= self.now);
        let due: Vec<_> = self.model.drain(..due_len).collect();
        let expected: Vec<_> = due.iter().map(|entry| self.value_of(entry.2)).collect();
        let mut popped = Vec::new();
        self.wheel.expire(self.now, &mut |value| popped.push(value));
        assert_eq!(popped, expected, "at {:?}", self.now);
        self.compare();
        popped
    }

    fn compare(&self) {
        let earliest = self.model.iter().map(|entry| entry.0).min();
        assert_eq!(self.wheel.next_deadline(), earliest);
        assert_eq!(self.wheel.len(), self.model.len());
        assert_eq!(self.wheel.is_empty(), self.model.is_empty());
        if self.checks_invariants {
            self.wheel.check();
        }
    }

    fn compare_keys(&self) {
        for &(key, value) in &self.keys {
            let found = self.position(key).map(|i| self.model[i].0);
            assert_eq!(self.wheel.deadline(key), found);
            assert_eq!(self.wheel.get(key), found.map(|_| &value));
        }
    }
}

#[derive(Clone, Debug)]
enum When {
    /// So long after the present.
    In(u64),
    /// So long before it.
    Ago(u64),
    /// Where another timer is, and so many nanoseconds further.
    Beside(usize, u64),
    /// At a multiple of 2^n, first after the present, and one nanosecond to either side.
    Edge(u32, u64),
    /// So long before the end of time.
    FromEnd(u64),
}

#[derive(Clone, Debug)]
enum Op {
    Insert(When),
    Cancel(usize),
    Reset(usize, When),
    Pop(When),
    Expire(When),
    /// To the exact deadline of the next, or a nanosecond short of it.
    ExpireNext(bool),
}

fn when() -> impl Strategy<Value = When> {
    prop_oneof![
        3 => (0..200_u64).prop_map(When::In),
        4 => (0..500_000_u64).prop_map(When::In),
        6 => (0..300_000_000_u64).prop_map(When::In),
        2 => (0..200 * 3_600_000_000_000_u64).prop_map(When::In),
        1 => (0..u64::MAX).prop_map(When::In),
        2 => (0..2_000_000_u64).prop_map(When::Ago),
        4 => (any::<usize>(), 0..2_u64).prop_map(|(i, further)| When::Beside(i, further)),
        3 => (0..64_u32, 0..3_u64).prop_map(|(bits, side)| When::Edge(bits, side)),
        1 => (1..100_000_u64).prop_map(When::FromEnd),
    ]
}

/// Where time goes: mostly a little forward, seldom to the end, where it would stay.
fn jump() -> impl Strategy<Value = When> {
    prop_oneof![
        4 => (0..200_000_u64).prop_map(When::In),
        4 => (0..30_000_000_u64).prop_map(When::In),
        2 => (0..20 * 3_600_000_000_000_u64).prop_map(When::In),
        4 => (any::<usize>(), 0..2_u64).prop_map(|(i, further)| When::Beside(i, further)),
        2 => (0..44_u32, 0..3_u64).prop_map(|(bits, side)| When::Edge(bits, side)),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        10 => when().prop_map(Op::Insert),
        3 => any::<usize>().prop_map(Op::Cancel),
        3 => (any::<usize>(), when()).prop_map(|(i, when)| Op::Reset(i, when)),
        5 => jump().prop_map(Op::Pop),
        1 => jump().prop_map(Op::Expire),
        1 => any::<bool>().prop_map(Op::ExpireNext),
    ]
}

impl Pair {
    fn resolve(&self, when: &When) -> u64 {
        let now = self.now.as_nanos();
        let nanos = match *when {
            When::In(wait) => now.saturating_add(wait),
            When::Ago(wait) => now.saturating_sub(wait),
            When::Beside(_, further) if self.model.is_empty() => now + further,
            When::Beside(i, further) => {
                let deadline = self.model[i % self.model.len()].0;
                deadline.as_nanos().saturating_add(further)
            }
            When::Edge(bits, side) => {
                ((now >> bits) + 1).saturating_mul(1 << bits).saturating_add(side).saturating_sub(1)
            }
            When::FromEnd(wait) => u64::MAX - wait,
        };
        nanos.min(u64::MAX - 1)
    }

    /// The present never goes back, whatever the jump says.
    fn resolve_jump(&self, when: &When) -> u64 {
        self.resolve(when).max(self.now.as_nanos())
    }

    fn key_at(&self, i: usize) -> Option<Key> {
        // Half of the picks among the living, half among all that ever were.
        let living = (i.is_multiple_of(2) && !self.model.is_empty())
            .then(|| self.model[i / 2 % self.model.len()].2);
        living.or_else(|| self.keys.get(i / 2 % self.keys.len().max(1)).map(|pair| pair.0))
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Insert(when) => {
                self.insert(self.resolve(when));
            }
            Op::Cancel(i) => {
                if let Some(key) = self.key_at(*i) {
                    self.cancel(key);
                }
            }
            Op::Reset(i, when) => {
                if let Some(key) = self.key_at(*i) {
                    self.reset(key, self.resolve(when));
                }
            }
            Op::Pop(when) => {
                self.pop(self.resolve_jump(when));
            }
            Op::Expire(when) => {
                self.expire(self.resolve_jump(when));
            }
            Op::ExpireNext(exactly) => {
                let next = self.wheel.next_deadline().unwrap_or(self.now).as_nanos();
                let target = next.saturating_sub(u64::from(!exactly));
                self.expire(target.max(self.now.as_nanos()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn slow_wheel_equals_a_sorted_list(
        start in prop_oneof![
            Just(0),
            0..u64::MAX / 2,
            (0..64_u32).prop_map(|bits| (1 << bits) - 1),
        ],
        ops in prop::collection::vec(op(), 0..150),
    ) {
        let mut pair = Pair::new(start);
        for op in &ops {
            pair.run(op);
        }
        pair.compare_keys();
        pair.expire(u64::MAX);
        prop_assert!(pair.wheel.is_empty());
        pair.compare_keys();
    }
}

#[test]
fn never_is_later_than_everything_and_stays() {
    assert!(Deadline::NEVER > at(u64::MAX - 1));
    assert!(Deadline::NEVER.is_never() && !at(u64::MAX - 1).is_never());
    assert_eq!(Deadline::NEVER + Duration::from_secs(1), Deadline::NEVER);
    assert_eq!(Deadline::NEVER + Duration::MAX, Deadline::NEVER);
    assert_eq!(Deadline::ZERO + Duration::MAX, Deadline::NEVER);
    assert_eq!(at(u64::MAX - 5) + Duration::from_nanos(5), Deadline::NEVER);
    assert_eq!(at(u64::MAX - 5) + Duration::from_nanos(4), at(u64::MAX - 1));
    assert_eq!(Deadline::NEVER.min(at(7)), at(7));
}

#[test]
fn deadline_arithmetic_saturates_at_both_ends() {
    assert_eq!(at(5) + Duration::new(2, 7), at(2_000_000_012));
    assert_eq!(at(9).duration_since(at(4)), Duration::from_nanos(5));
    assert_eq!(at(4).duration_since(at(9)), Duration::ZERO);
    assert_eq!(Deadline::NEVER.duration_since(Deadline::ZERO).as_nanos(), u128::from(u64::MAX));
}

#[test]
fn deadline_prints_as_seconds_without_hiding_anything() {
    assert_eq!(format!("{:?}", at(1_250_000_000)), "Deadline(1.250s)");
    assert_eq!(format!("{:?}", at(1_250_000_001)), "Deadline(1.250000001s)");
    assert_eq!(format!("{:?}", Deadline::ZERO), "Deadline(0.000s)");
    assert_eq!(format!("{:?}", Deadline::NEVER), "Deadline(never)");
}

#[test]
fn system_clocks_agree_and_never_go_back() {
    let (one, two) = (SystemClock::new(), SystemClock::default());
    let (a, b, c) = (one.now(), two.now(), one.now());
    assert!(Deadline::ZERO < a && a <= b && b <= c);
}

#[test]
fn timers_at_level_boundaries_come_to_the_nanosecond() {
    for start in [0, TICK_NS - 1, 63 * TICK_NS, 4095 * TICK_NS + 7, (1 << 40) - 1] {
        for bits in 0..64 {
            let mut pair = Pair::new(start);
            let edge = 1_u64 << bits;
            for deadline in [edge - 1, edge, edge + 1, start.saturating_add(edge)] {
                pair.insert(deadline);
            }
            for now in [edge - 1, edge, edge + 1] {
                pair.expire(now.max(start));
            }
            pair.expire(u64::MAX - 1);
        }
    }
}

#[test]
fn nothing_is_early_within_its_tick() {
    let mut pair = Pair::new(0);
    pair.insert(TICK_NS + 100);
    assert_eq!(pair.pop(TICK_NS + 99), None);
    assert_eq!(pair.wheel.next_deadline(), Some(at(TICK_NS + 100)));
    assert_eq!(pair.pop(TICK_NS + 100), Some(0));
}

#[test]
fn equal_deadlines_come_in_the_order_of_filing() {
    let mut pair = Pair::new(0);
    let deadline = 20_000 * TICK_NS + 5;
    let first = pair.insert(deadline);
    for _ in 0..50 {
        pair.insert(deadline);
    }
    // Time passes, so that the later ones are filed on other levels than the first.
    for now in [4096 * TICK_NS, 19_990 * TICK_NS, 20_000 * TICK_NS] {
        pair.expire(now);
        pair.insert(deadline);
    }
    // Filed again, the first is the last.
    pair.reset(first, deadline);
    let expected: Vec<u64> = (1..54).chain([0]).collect();
    assert_eq!(pair.expire(deadline), expected);
}

#[test]
fn a_due_timer_can_still_be_cancelled_and_reset() {
    let mut pair = Pair::new(0);
    let keys: Vec<Key> = (0..20).map(|i| pair.insert(5 * TICK_NS + i % 7)).collect();
    assert_eq!(pair.pop(5 * TICK_NS + 100), Some(0));
    for i in [7, 1, 13, 19] {
        pair.cancel(keys[i]);
        pair.cancel(keys[i]);
    }
    pair.reset(keys[2], 9 * TICK_NS);
    pair.reset(keys[3], 0);
    pair.reset(keys[0], 0);
    assert_eq!(pair.pop(5 * TICK_NS + 100), Some(3));
    assert_eq!(pair.expire(5 * TICK_NS + 100).len(), 13);
    assert_eq!(pair.expire(9 * TICK_NS), [2]);
}

#[test]
fn a_timer_filed_between_pops_overtakes_the_due() {
    let mut pair = Pair::new(0);
    pair.insert(100 * TICK_NS + 10);
    pair.insert(100 * TICK_NS + 20);
    assert_eq!(pair.pop(200 * TICK_NS), Some(0));
    pair.insert(100 * TICK_NS + 15);
    pair.insert(3);
    pair.insert(150 * TICK_NS);
    assert_eq!(pair.expire(200 * TICK_NS), [3, 2, 1, 4]);
}

#[test]
fn a_jump_of_years_skips_nothing() {
    let mut pair = Pair::new(12_345);
    for bits in 0..64 {
        pair.insert((1 << bits) + 77);
        pair.insert((1 << bits) + 76);
    }
    assert_eq!(pair.expire(u64::MAX - 1).len(), 128);
    pair.insert(5);
    pair.insert(u64::MAX - 1);
    assert_eq!(pair.expire(u64::MAX - 1), [128, 129]);
}

#[test]
fn a_clock_that_goes_back_yields_less_and_harms_nothing() {
    let mut pair = Pair::new(1 << 40);
    pair.insert((1 << 40) + 500);
    pair.insert((1 << 40) + 9 * TICK_NS);
    assert_eq!(pair.pop(1 << 30), None);
    pair.insert(1 << 35);
    assert_eq!(pair.pop(1 << 34), None);
    assert_eq!(pair.expire(1 << 41), [2, 0, 1]);
}

#[test]
fn a_stale_key_finds_nothing_after_its_place_is_reused() {
    let mut pair = Pair::new(0);
    let old = pair.insert(10);
    pair.cancel(old);
    let new = pair.insert(20);
    assert_ne!(old, new);
    assert_eq!(pair.wheel.slab_len(), 1, "the place is reused");
    pair.cancel(old);
    pair.reset(old, 1);
    pair.compare_keys();
    assert_eq!(pair.expire(20), [1]);
    pair.cancel(new);
}

/// FOREST-2.
#[test]
fn a_place_without_generations_left_is_retired() {
    let mut wheel = Wheel::new(Deadline::ZERO);
    let key = wheel.insert(at(10), 'a');
    let last = wheel.age(key);
    assert_eq!(wheel.cancel(key), None);
    assert_eq!(wheel.cancel(last), Some('a'));
    assert_eq!(wheel.cancel(last), None);
    let fresh = wheel.insert(at(10), 'b');
    assert_eq!(wheel.slab_len(), 2);
    assert_eq!(wheel.get(last), None);
    assert_eq!(wheel.get(fresh), Some(&'b'));
    wheel.check();
}

/// FOREST-3.
#[test]
fn a_storm_of_inserts_and_cancels_leaves_no_trace() {
    let mut wheel = Wheel::new(Deadline::ZERO);
    let mut window = std::collections::VecDeque::new();
    let mut seed = 1_u64;
    for i in 0..1_000_000_u64 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        window.push_back((wheel.insert(at(seed >> 30), i), i));
        if window.len() == 100 {
            let (key, value) = window.pop_front().expect("a hundred keys");
            assert_eq!(wheel.cancel(key), Some(value));
        }
    }
    for (key, value) in window {
        assert_eq!(wheel.cancel(key), Some(value));
    }
    assert!(wheel.is_empty());
    assert_eq!(wheel.next_deadline(), None);
    assert_eq!(wheel.pop_due(Deadline::NEVER), None);
    assert_eq!(wheel.slab_len(), 100, "no growth beyond the peak");
    wheel.check();
}

/// Ten thousand connections that push back their timeouts in turn, so that the earliest one is
/// reset every time and the next must be found: quadratic with a list that is scanned.
#[test]
fn resetting_the_earliest_for_ever_stays_exact() {
    const COUNT: u64 = 10_000;
    const TIMEOUT_NS: u64 = 30_000_000_000;
    let mut wheel = Wheel::new(Deadline::ZERO);
    let keys: Vec<Key> = (0..COUNT).map(|i| wheel.insert(at(TIMEOUT_NS + i), i)).collect();
    for i in 0..20 * COUNT {
        assert_eq!(wheel.next_deadline(), Some(at(TIMEOUT_NS + i)));
        assert!(wheel.reset(keys[(i % COUNT) as usize], at(TIMEOUT_NS + COUNT + i)));
    }
    assert_eq!(wheel.len() as u64, COUNT);
    wheel.check();
}

#[test]
fn a_hundred_thousand_timers_come_in_order() {
    let mut wheel = Wheel::new(Deadline::ZERO);
    let mut seed = 7_u64;
    let mut expected: Vec<(Deadline, u64)> = Vec::new();
    for i in 0..100_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let deadline = at((seed >> 33) % 100_000_000);
        wheel.insert(deadline, i);
        expected.push((deadline, i));
    }
    expected.sort_unstable();
    let mut popped = Vec::new();
    while let Some(next) = wheel.next_deadline() {
        wheel.expire(next, &mut |value| popped.push((next, value)));
    }
    assert_eq!(popped, expected);
}

#[test]
fn small_things_stay_small() {
    assert_eq!(size_of::<Option<Key>>(), 8);
    assert!(size_of::<Wheel<u64>>() < 2300);
    let mut wheel = Wheel::new(at(1));
    wheel.insert(at(2), "x");
    assert_eq!(
        format!("{wheel:?}"),
        "Wheel { len: 1, next_deadline: Some(Deadline(0.000000002s)), .. }"
    );
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "never is not filed")]
fn filing_never_is_a_mistake() {
    Wheel::new(Deadline::ZERO).insert(Deadline::NEVER, ());
}
