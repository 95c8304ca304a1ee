//! Numbers by chance that a seed repeats.
//!
//! Floor 9. Uses: nothing.
//!
//! # Source
//!
//! Steele, Lea and Flood's SplitMix64: every seed is a good one, neighbours too.

use std::cell::Cell;

/// A stream of numbers by chance, the same for the same seed on every machine.
///
/// For tests, where anybody may know the numbers.
///
/// # Examples
///
/// ```
/// use greenloop::testing::Random;
/// let (one, other) = (Random::new(7), Random::new(7));
/// assert_eq!(one.below(1000), other.below(1000));
/// ```
#[derive(Debug)]
pub struct Random {
    seed: u64,
    state: Cell<u64>,
}

impl Random {
    /// The stream of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random { seed, state: Cell::new(seed) }
    }

    /// The seed that it was made from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number below `bound`.
    ///
    /// # Panics
    ///
    /// When `bound` is zero.
    #[must_use]
    pub fn below(&self, bound: usize) -> usize {
        assert!(bound > 0, "greenloop::testing::Random::below: no number is below zero");
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let mixed = mixed ^ (mixed >> 31);
        // The high half of a product: spread as evenly as 64 bits can be.
        ((u128::from(mixed) * bound as u128) >> 64) as usize
    }
}
