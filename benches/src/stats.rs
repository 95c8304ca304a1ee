//! A median and the interval it lies in, by order statistics.
//!
//! Timings on a shared machine have a long upper tail and no known distribution, so a figure here
//! is never a mean. The interval needs no assumption but that the rounds are independent: the
//! number of samples below the true median is binomial with probability one half.

/// A median with an interval that holds the true one with at least 95 % confidence.
///
/// With fewer than six samples no interval has that confidence; it is then the whole range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Median {
    /// Half of the samples lie on either side of it.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

impl Median {
    /// Returns the median of `samples` and its interval.
    ///
    /// # Panics
    /// When `samples` is empty or holds a NaN: there is no median of nothing.
    #[must_use]
    pub fn of(samples: &[f64]) -> Self {
        assert!(!samples.is_empty(), "no samples");
        assert!(samples.iter().all(|sample| !sample.is_nan()), "a sample is not a number");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let value = f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]);
        let rank = rank_of_95_percent(count);
        Self { value, low: sorted[rank], high: sorted[count - 1 - rank] }
    }
}

/// How many samples may be left out at either end, so that the rest still covers the median with
/// 95 % confidence.
fn rank_of_95_percent(count: usize) -> usize {
    // The chance that at most `rank` of `count` samples lie below the median.
    let mut chance_of_exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut chance_of_at_most = 0.0;
    let mut rank = 0;
    loop {
        chance_of_at_most += chance_of_exactly;
        if chance_of_at_most > 0.025 || rank >= count / 2 {
            return rank.saturating_sub(1);
        }
        chance_of_exactly *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eleven_samples_leave_out_one_at_either_end() {
        let samples: Vec<f64> = (1..=11).map(f64::from).collect();
        assert_eq!(Median::of(&samples), Median { value: 6.0, low: 2.0, high: 10.0 });
    }

    #[test]
    fn an_even_count_has_its_median_between_two_samples() {
        assert_eq!(Median::of(&[4.0, 1.0, 3.0, 2.0]), Median { value: 2.5, low: 1.0, high: 4.0 });
    }

    #[test]
    fn one_sample_is_its_own_interval() {
        assert_eq!(Median::of(&[7.0]), Median { value: 7.0, low: 7.0, high: 7.0 });
    }
}
