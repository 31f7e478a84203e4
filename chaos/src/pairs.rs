//! Turns of two kinds in pairs, the ratio of each pair, and what all of them say together.
//!
//! The two turns of a pair stand side by side in time and each kind comes first as often, so that what drifts meets both. `are_below` is
//! a sign test: where both are alike in truth, one kind wins a pair with some chance p that the order of the turns may bend,
//! and one of the other order with 1 - p, so it wins half of the pairs on average, and at least so many of them with no more chance than
//! as many fair coins do (Hoeffding 1956), whatever the noise is made of. It must win so many that coins would do it in one
//! run of 64 at most: all of six pairs, thirteen of sixteen. Medians of a few turns held against each other would fail every other run of
//! two equal ones.
//! A pair that is won by less than the noise of all does not count; that is how far the median of the ratios is off by chance.
//! Price: where the turns of one kind differ by 10 % from each other (standard deviation), sixteen pairs show a deficit of 20 % in 96 runs
//! of a hundred (six showed it in 58), and where they differ by 15 %, in 67; the noise is told with the ratio, so that a run which could
//! have seen nothing is known as one. Where some difference is allowed that price is not to be paid: the median is held against what is
//! allowed (`notify_stopped`).
//! Invariant: pure; the ratios are finite and at least one.
//! Not here: what the turns are (`bench::read_pairs`, `notify_stopped`).

use anyhow::ensure;
use serde::Serialize;

/// Six wins of six are as rare.
const COINS_REACH_IT_ONCE_IN: f64 = 64.0;

/// What the pairs of turns showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Pairs {
    /// Of each pair, in their order.
    ratios: Vec<f64>,
    /// The one in the middle.
    pub(crate) median: f64,
    /// How far from the median half of the ratios are at most (the median absolute deviation, which one outlier does not move), over
    /// the square root of their number.
    pub(crate) noise: f64,
}

impl Pairs {
    /// Of the ratio of each pair, in their order; an error when there is none, or one is of turns in which nothing was done.
    pub(crate) fn of(ratios: Vec<f64>) -> anyhow::Result<Self> {
        ensure!(!ratios.is_empty(), "no pair of turns was taken");
        ensure!(
            ratios.iter().all(|ratio| ratio.is_finite()),
            "nothing was done in a turn: {ratios:?}"
        );
        let median = middle(&ratios);
        let distances: Vec<f64> = ratios.iter().map(|ratio| (ratio - median).abs()).collect();
        Ok(Self {
            noise: middle(&distances) / (ratios.len() as f64).sqrt(),
            ratios,
            median,
        })
    }

    /// Whether more ratios than chance explains lie below `limit`, each of them by more than the noise of all.
    pub(crate) fn are_below(&self, limit: f64) -> bool {
        let won = self.ratios.iter().filter(|ratio| limit - **ratio > self.noise);
        won.count() >= wins_asked(self.ratios.len())
    }

    /// How the ratios are spread.
    pub(crate) fn text(&self) -> String {
        let least = self.ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.ratios.iter().copied().fold(0.0, f64::max);
        format!(
            "the median of {} pairs from {least:.3} to {most:.3}, noise {:.3}",
            self.ratios.len(),
            self.noise
        )
    }
}

/// The fewest wins of so many pairs that fair coins reach in one run of `COINS_REACH_IT_ONCE_IN` at most; all of them where even those
/// are too few to say it.
fn wins_asked(pairs: usize) -> usize {
    let runs: f64 = (0..pairs).map(|_| 2.0).product();
    // Runs of the coins with just so many losses, and those with at most so many.
    let (mut with, mut up_to, mut wins) = (1.0, 0.0, pairs);
    for losses in 0..pairs {
        up_to += with;
        if up_to * COINS_REACH_IT_ONCE_IN > runs {
            break;
        }
        wins = pairs - losses;
        with = with * (pairs - losses) as f64 / (losses + 1) as f64;
    }
    wins
}

/// The value in the middle, of an even number the mean of the two there; `values` are not empty.
fn middle(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}

#[cfg(test)]
mod tests {
    use super::{Pairs, middle, wins_asked};
    use crate::bench::metadata::PAIRS;
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};

    /// One ratio for each bit: `truth`, above it by `noise` where the bit is set, below it where it is not.
    fn scattered(bits: u32, truth: f64, noise: f64) -> Vec<f64> {
        let sign = |pair: u32| if bits & (1 << pair) == 0 { -1.0 } else { 1.0 };
        (0..6).map(|pair| truth * (1.0 + sign(pair) * noise)).collect()
    }

    fn is_slower(ratios: &[f64]) -> bool {
        Pairs::of(ratios.to_vec()).unwrap().are_below(1.0)
    }

    #[test]
    fn only_a_leader_that_wins_every_pair_beyond_their_noise_makes_a_follower_slower() {
        for (what, ratios, expected) in [
            ("equal", [1.0; 6], false),
            ("faster", [1.2; 6], false),
            ("a fifth slower", [0.8; 6], true),
            ("a fifth slower with noise", [0.72, 0.86, 0.79, 0.81, 0.9, 0.75], true),
            ("noisy and equal", [0.9, 1.08, 0.97, 1.02, 0.94, 1.11], false),
            ("equal but for one bad pair", [1.0, 1.01, 0.3, 0.99, 1.02, 0.98], false),
            (
                "equal but for one good pair",
                [0.99, 0.99, 0.98, 0.97, 0.99, 1.5],
                false,
            ),
            (
                "a fifth slower and one worse pair",
                [0.8, 0.82, 0.2, 0.79, 0.78, 0.81],
                true,
            ),
            (
                "a little slower each time",
                [0.98, 0.981, 0.979, 0.98, 0.982, 0.978],
                true,
            ),
            (
                "lost each time, once by less than the noise",
                [0.999, 0.95, 0.92, 0.9, 0.97, 0.94],
                false,
            ),
        ] {
            assert_eq!(is_slower(&ratios), expected, "{what}: {ratios:?}");
        }
    }

    #[test]
    fn of_all_ways_in_which_chance_spreads_equal_ones_less_than_a_twentieth_fails() {
        for noise in [0.001, 0.05, 0.3] {
            let failed = (0..64).filter(|bits| is_slower(&scattered(*bits, 1.0, noise))).count();
            assert_eq!(failed, 1, "the one in which the leader wins each: {noise}");
        }
    }

    #[test]
    fn a_fifth_slower_fails_in_whichever_way_chance_spreads_it() {
        for noise in [0.0, 0.02, 0.1, 0.15] {
            for bits in 0..64 {
                let ratios = scattered(bits, 0.8, noise);
                assert!(is_slower(&ratios), "{ratios:?}");
            }
        }
    }

    #[test]
    fn so_many_pairs_must_be_won_that_coins_do_it_once_in_64_runs_at_most() {
        for (pairs, expected) in [(1, 1), (5, 5), (6, 6), (8, 8), (10, 9), (12, 11), (16, 13)] {
            assert_eq!(wins_asked(pairs), expected, "of {pairs}");
        }
    }

    /// How far one turn is from the next in a noisy run of the bench, as was measured (standard deviation).
    const TURNS_DIFFER_BY: f64 = 0.1;
    const RUNS: usize = 1_000;

    /// Around zero, with a standard deviation of one: the sum of twelve even ones, less six.
    fn scatter(random: &mut ChaCha8Rng) -> f64 {
        let even = (0..12).map(|_| f64::from(random.next_u32()) / f64::from(u32::MAX));
        even.sum::<f64>() - 6.0
    }

    /// Of so many runs of the bench those that find a follower slower, which reads at `truth` of the leader's rate.
    fn found_slower(truth: f64, seed: u64) -> usize {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut turn = || 1.0 + TURNS_DIFFER_BY * scatter(&mut random);
        let mut run = || is_slower(&(0..PAIRS).map(|_| truth * turn() / turn()).collect::<Vec<f64>>());
        (0..RUNS).filter(|_| run()).count()
    }

    #[test]
    fn a_noisy_run_shows_a_deficit_of_a_fifth_nine_times_of_ten_and_none_where_there_is_none() {
        let (slower, equal) = (found_slower(0.8, 1), found_slower(1.0, 2));
        assert!(slower * 10 >= RUNS * 9, "{slower} of {RUNS} runs saw it");
        assert!(equal * 64 <= RUNS, "{equal} of {RUNS} runs saw what is not there");
    }

    #[test]
    fn the_middle_of_an_even_number_is_between_two() {
        assert_eq!(middle(&[3.0]), 3.0);
        assert_eq!(middle(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(middle(&[9.0, 1.0, 4.0, 2.0]), 3.0);
    }

    #[test]
    fn no_pair_and_a_turn_in_which_nothing_was_done_are_errors() {
        for wrong in [vec![], vec![1.0, f64::INFINITY], vec![f64::NAN]] {
            assert!(Pairs::of(wrong).is_err());
        }
    }
}
