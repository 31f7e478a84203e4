//! One of many samples that says how most of them are.
//!
//! Not here: what the samples are of.

use std::time::Duration;

/// The smallest sample that at least `percent` of `sorted` do not exceed (nearest rank); zero of none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::percentile;
    use std::time::Duration;

    fn check(count: u64, percent: usize, expected: u64) {
        let samples: Vec<Duration> = (1..=count).map(Duration::from_millis).collect();
        assert_eq!(
            percentile(&samples, percent),
            Duration::from_millis(expected),
            "p{percent} of {count}"
        );
    }

    #[test]
    fn a_percentile_is_a_sample_by_nearest_rank() {
        check(0, 50, 0);
        check(1, 50, 1);
        check(1, 99, 1);
        check(4, 50, 2);
        check(100, 99, 99);
        check(1_000, 99, 990);
        check(50, 99, 50);
    }
}
