//! Reads at a follower against reads at the leader, in pairs of turns: the ratio of their rates.
//!
//! What so many pairs can tell, and what they hide: `pairs`.
//! Invariant: pure; the ratios are finite and at least one.
//! Not here: how the turns are taken (`metadata`).

use super::figure::Figure;
use crate::pairs::Pairs;
use anyhow::ensure;
use serde::Serialize;

/// What the pairs of turns showed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ReadPairs {
    /// Of each pair the rate at the nearest replica over the rate at the leader.
    #[serde(flatten)]
    pub(super) ratios: Pairs,
    /// Queries that followers answered in the turn in which they answered the least of them, in percent.
    pub(super) percent_at_followers_min: f64,
}

impl ReadPairs {
    /// Of the turns of each kind in the order of their pairs; an error when there is none, one has no partner or nothing was read.
    pub(super) fn of(nearest: &[Figure], leader: &[Figure]) -> anyhow::Result<Self> {
        ensure!(
            nearest.len() == leader.len(),
            "{} turns at the nearest replica and {} at the leader are no pairs",
            nearest.len(),
            leader.len()
        );
        let turns = nearest.iter().zip(leader);
        let ratios = turns.map(|(nearest, leader)| nearest.operations_per_s / leader.operations_per_s);
        let at_followers = nearest
            .iter()
            .map(|figure| figure.groups.map_or(0.0, |groups| groups.percent_at_followers));
        Ok(Self {
            ratios: Pairs::of(ratios.collect())?,
            percent_at_followers_min: at_followers.fold(100.0, f64::min),
        })
    }

    /// Whether the leader won more pairs than chance explains, and each of them by more than the noise of all.
    pub(super) fn is_slower(&self) -> bool {
        self.ratios.are_below(1.0)
    }

    /// The ratio and its spread.
    pub(super) fn text(&self) -> String {
        format!("{:.3} of the leader's rate, {}", self.ratios.median, self.ratios.text())
    }
}

#[cfg(test)]
mod tests {
    use super::ReadPairs;
    use crate::pairs::Pairs;

    #[test]
    fn the_text_has_the_ratio_and_its_spread() {
        let pairs = ReadPairs {
            ratios: Pairs::of(vec![0.5, 1.0, 0.5, 1.0]).unwrap(),
            percent_at_followers_min: 100.0,
        };
        let expected = "0.750 of the leader's rate, the median of 4 pairs from 0.500 to 1.000, noise 0.125";
        assert_eq!(pairs.text(), expected);
    }
}
