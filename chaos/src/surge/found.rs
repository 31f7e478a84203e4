//! What came of the uploads of a surge, as counts and times.
//!
//! Invariant: each upload is counted as one kind of end; times are those of all uploads, however they ended.
//! Not here: what is allowed (`surge`).

use crate::open_loop::{End, Shot, percentile_ms};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// An upload that is begun so soon after it was due was begun when it was due. A guess: a tenth of what p99 may be.
pub(super) const PUNCTUAL_WITHIN: Duration = Duration::from_millis(50);

/// How many answers had a status.
pub(super) type ByStatus = BTreeMap<u16, usize>;

/// All uploads of a surge.
#[derive(Debug, Default, Serialize)]
pub(super) struct Found {
    pub(super) offered: usize,
    /// Begun when they were due.
    pub(super) punctual: usize,
    pub(super) good: usize,
    pub(super) refused_429: usize,
    pub(super) refused_503: usize,
    pub(super) other_5xx: ByStatus,
    /// Neither 2xx nor 429 nor 5xx.
    pub(super) others: ByStatus,
    /// No answer while anybody waited for it.
    pub(super) unanswered: usize,
    pub(super) broken: usize,
    /// From when they were due.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// From when one was due until it was begun, at most.
    pub(super) delay_max_ms: f64,
}

impl Found {
    pub(super) fn of(shots: &[Shot]) -> Self {
        let mut found = Self::default();
        for shot in shots {
            found.count(shot);
        }
        let mut took: Vec<Duration> = shots.iter().map(|shot| shot.took).collect();
        took.sort_unstable();
        (found.p50_ms, found.p99_ms) = (percentile_ms(&took, 50), percentile_ms(&took, 99));
        found.max_ms = percentile_ms(&took, 100);
        let delay = shots.iter().map(|shot| shot.delay).max().unwrap_or_default();
        found.delay_max_ms = delay.as_secs_f64() * 1e3;
        found
    }

    fn count(&mut self, shot: &Shot) {
        self.offered += 1;
        self.punctual += usize::from(shot.delay <= PUNCTUAL_WITHIN);
        match shot.end {
            End::Good => self.good += 1,
            End::Refused { status: 429, .. } => self.refused_429 += 1,
            End::Refused { .. } => self.refused_503 += 1,
            End::Wrong(status @ 500..=599) => *self.other_5xx.entry(status).or_default() += 1,
            End::Wrong(status) => *self.others.entry(status).or_default() += 1,
            End::Late => self.unanswered += 1,
            End::Broken => self.broken += 1,
        }
    }

    /// Of what was offered; 0 of nothing.
    pub(super) fn punctual_share(&self) -> f64 {
        self.punctual as f64 / self.offered.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::Found;
    use crate::open_loop::{End, Shot};
    use std::time::Duration;

    #[test]
    fn every_upload_is_counted_as_one_kind_of_end_and_its_time_counts_however_it_ended() {
        let refused = |status| End::Refused {
            status,
            says_when: true,
        };
        let ends = [
            End::Good,
            End::Good,
            refused(429),
            refused(503),
            End::Wrong(500),
            End::Wrong(409),
            End::Late,
            End::Broken,
        ];
        let shots: Vec<Shot> = ends
            .into_iter()
            .zip(1..)
            .map(|(end, number)| Shot {
                number,
                due: Duration::from_secs(number),
                delay: Duration::from_millis(number * 10),
                took: Duration::from_millis(number * 100),
                end,
            })
            .collect();
        let found = Found::of(&shots);
        assert_eq!((found.offered, found.good, found.punctual), (8, 2, 5));
        assert_eq!((found.refused_429, found.refused_503), (1, 1));
        assert_eq!((found.other_5xx[&500], found.others[&409]), (1, 1));
        assert_eq!((found.other_5xx.len(), found.others.len()), (1, 1));
        assert_eq!((found.unanswered, found.broken), (1, 1));
        for (time, expected) in [
            (found.p50_ms, 400.0),
            (found.p99_ms, 800.0),
            (found.max_ms, 800.0),
            (found.delay_max_ms, 80.0),
        ] {
            assert!((time - expected).abs() < 1e-6, "{time} instead of {expected}");
        }
    }
}
