//! One rate for a while, and what came of it.

use super::DEADLINE;
use crate::open_loop::usage::Cores;
use crate::open_loop::{End, Shot, percentile_ms};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// A window of an aftermath is normal when so much of what was asked is answered in time, ...
const NORMAL_GOOD: f64 = 0.95;
/// ... and p99 is at most so many times what it was before, ...
const NORMAL_P99_TIMES: f64 = 2.0;
/// ... or this: below it nobody notices a difference.
const NORMAL_P99_MS: f64 = 100.0;
/// So many normal windows in a row are the end of an overload.
const NORMAL_WINDOWS: usize = 3;

/// What a phase showed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Phase {
    pub(super) name: String,
    /// Requests a second that were to be sent, and were due.
    pub(super) rate_per_s: f64,
    pub(super) span_s: f64,
    pub(super) offered_per_s: f64,
    /// Answers 2xx within the deadline.
    pub(super) goodput_per_s: f64,
    pub(super) refused_429: usize,
    pub(super) refused_503: usize,
    /// Refusals that did not say when to come again: none may be.
    pub(super) refused_without_retry_after: usize,
    pub(super) late: usize,
    pub(super) broken: usize,
    /// Other answers by status: none may be.
    pub(super) wrong: BTreeMap<u16, usize>,
    /// Of good ones, from when they were due.
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Of refusals.
    pub(super) refusal_p50_ms: f64,
    pub(super) refusal_p99_ms: f64,
    pub(super) cluster_cores: f64,
    /// Cores that the load maker took away from the cluster.
    pub(super) load_cores: f64,
    pub(super) gateway_peak_bytes: u64,
}

impl Phase {
    pub(super) fn of(name: &str, rate_per_s: f64, span: Duration, shots: &[Shot], cores: Cores, peak: u64) -> Self {
        let took = |wanted: fn(End) -> bool| {
            let mut took: Vec<Duration> = shots
                .iter()
                .filter(|shot| wanted(shot.end))
                .map(|shot| shot.took)
                .collect();
            took.sort_unstable();
            took
        };
        let count = |wanted: fn(End) -> bool| shots.iter().filter(|shot| wanted(shot.end)).count();
        let (good, refused) = (took(is_good), took(|end| matches!(end, End::Refused { .. })));
        let mut wrong = BTreeMap::new();
        for shot in shots {
            if let End::Wrong(status) = shot.end {
                *wrong.entry(status).or_default() += 1;
            }
        }
        let span_s = span.as_secs_f64();
        Self {
            name: name.to_owned(),
            rate_per_s,
            span_s,
            offered_per_s: shots.len() as f64 / span_s,
            goodput_per_s: good.len() as f64 / span_s,
            refused_429: count(|end| matches!(end, End::Refused { status: 429, .. })),
            refused_503: count(|end| matches!(end, End::Refused { status: 503, .. })),
            refused_without_retry_after: count(|end| matches!(end, End::Refused { says_when: false, .. })),
            late: count(|end| end == End::Late),
            broken: count(|end| end == End::Broken),
            wrong,
            p50_ms: percentile_ms(&good, 50),
            p99_ms: percentile_ms(&good, 99),
            refusal_p50_ms: percentile_ms(&refused, 50),
            refusal_p99_ms: percentile_ms(&refused, 99),
            cluster_cores: cores.cluster,
            load_cores: cores.load,
            gateway_peak_bytes: peak,
        }
    }

    /// Good ones of those that were offered.
    pub(super) fn share(&self) -> f64 {
        self.goodput_per_s / self.offered_per_s.max(f64::EPSILON)
    }

    /// Late ones and broken ones of those that were offered: their senders learned nothing in time.
    pub(super) fn unanswered_share(&self) -> f64 {
        let offered = self.offered_per_s * self.span_s;
        (self.late + self.broken) as f64 / offered.max(f64::EPSILON)
    }
}

fn is_good(end: End) -> bool {
    end == End::Good
}

/// Seconds after the start of `shots` from which all is as in `before` again; `None` when that never came.
pub(super) fn recovery_s(shots: &[Shot], before: &Phase, span: Duration) -> Option<u64> {
    let p99_max_ms = (before.p99_ms * NORMAL_P99_TIMES)
        .max(NORMAL_P99_MS)
        .min(DEADLINE.as_secs_f64() * 1e3);
    let normal: Vec<bool> = (0..span.as_secs())
        .map(|second| {
            let of_window = shots.iter().filter(|shot| shot.due.as_secs() == second);
            let (mut due, mut good) = (0_usize, Vec::new());
            for shot in of_window {
                due += 1;
                good.extend(is_good(shot.end).then_some(shot.took));
            }
            good.sort_unstable();
            good.len() as f64 >= due as f64 * NORMAL_GOOD && percentile_ms(&good, 99) <= p99_max_ms
        })
        .collect();
    let first = normal
        .windows(NORMAL_WINDOWS)
        .position(|windows| windows.iter().all(|is_normal| *is_normal))?;
    Some(first as u64)
}

#[cfg(test)]
mod tests {
    use super::{Phase, recovery_s};
    use crate::open_loop::usage::Cores;
    use crate::open_loop::{End, Shot};
    use std::time::Duration;

    const CORES: Cores = Cores {
        cluster: 0.0,
        load: 0.0,
    };

    fn shots(seconds: u64, end: impl Fn(u64) -> (End, u64)) -> Vec<Shot> {
        let each = |at: u64| {
            let (end, took_ms) = end(at / 10);
            Shot {
                number: at,
                delay: Duration::ZERO,
                due: Duration::from_millis(at * 100),
                took: Duration::from_millis(took_ms),
                end,
            }
        };
        (0..seconds * 10).map(each).collect()
    }

    #[test]
    fn everything_that_was_due_is_counted_once_and_only_what_is_good_is_goodput() {
        let refused = |status, says_when| End::Refused { status, says_when };
        let ends = [
            (End::Good, 10),
            (refused(429, true), 1),
            (refused(503, true), 1),
            (refused(503, false), 1),
            (End::Late, 500),
            (End::Broken, 3),
            (End::Wrong(500), 3),
        ];
        let shots = shots(7, |second| ends[second as usize]);
        let phase = Phase::of("x", 10.0, Duration::from_secs(7), &shots, CORES, 0);
        assert_eq!(
            (phase.refused_429, phase.refused_503, phase.refused_without_retry_after),
            (10, 20, 10)
        );
        assert_eq!((phase.late, phase.broken, phase.wrong[&500]), (10, 10, 10));
        assert!((phase.offered_per_s - 10.0).abs() < 1e-9 && (phase.share() - 1.0 / 7.0).abs() < 1e-9);
        assert!((phase.p99_ms - 10.0).abs() < 1e-9 && (phase.refusal_p99_ms - 1.0).abs() < 1e-9);
    }

    #[test]
    fn recovery_is_when_three_windows_in_a_row_are_as_before() {
        let span = Duration::from_secs(10);
        let before = Phase::of("before", 10.0, span, &shots(10, |_| (End::Good, 60)), CORES, 0);
        let slow = shots(10, |second| {
            (End::Good, if second < 4 || second == 5 { 300 } else { 60 })
        });
        assert_eq!(recovery_s(&slow, &before, span), Some(6));
        let refused = shots(10, |second| match second {
            0..3 => (End::Late, 500),
            _ => (End::Good, 119),
        });
        assert_eq!(recovery_s(&refused, &before, span), Some(3));
        assert_eq!(recovery_s(&shots(10, |_| (End::Late, 500)), &before, span), None);
        assert_eq!(recovery_s(&shots(10, |_| (End::Good, 60)), &before, span), Some(0));
    }
}
