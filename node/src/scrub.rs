//! Scrub: every fragment is read and checked once in a period, spread evenly.
//!
//! Place in the picture: latent damage is found here before a second fault makes it a loss (docs/durability.md: the period is a
//! durability parameter). Damage goes on the disk's persistent list.
//! Invariants: pacing is pure; a scrub that fell behind catches up at a bounded rate and never bursts.
//! Not here: repair.

use crate::store::{FragmentStore, StoreError};
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::worker::{Next, StepError, Worker};
use model::id::DiskId;
use model::stripe::FragmentName;
use std::sync::Arc;
use std::time::Duration;

/// Fragments of one step: about a second of a slow disk at one MiB each. Guess.
const STEP_FRAGMENTS_MAX: u64 = 64;
/// Shortest pause between steps, so that a scrub never takes more than a share of the disk.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest pause, so that new fragments and a smaller backlog are noticed.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// How much a step checks and how long it rests after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Fragments to check now.
    pub fragments: u64,
    /// Rest before the next step.
    pub pause: Duration,
}

/// The pace that checks `fragments` in what is left of `period` after `elapsed` with `done` of them checked. Pure.
///
/// Late: more a step, up to a bound; early: longer rests, up to a bound. Zero fragments: nothing and the longest rest.
#[must_use]
pub fn pace(fragments: u64, done: u64, elapsed: Duration, period: Duration) -> Pace {
    let left = fragments.saturating_sub(done);
    if left == 0 {
        return Pace {
            fragments: 0,
            pause: PAUSE_MAX,
        };
    }
    let time_left = period.saturating_sub(elapsed);
    let each = time_left / u32::try_from(left).unwrap_or(u32::MAX);
    if each >= PAUSE_MIN {
        return Pace {
            fragments: 1,
            pause: each.min(PAUSE_MAX),
        };
    }
    let each_ns = each.as_nanos().max(1);
    let batch = u64::try_from(PAUSE_MIN.as_nanos() / each_ns).unwrap_or(u64::MAX);
    Pace {
        fragments: batch.clamp(1, STEP_FRAGMENTS_MAX).min(left),
        pause: PAUSE_MIN,
    }
}

/// The worker that scrubs one disk.
pub struct Scrub {
    disk: DiskId,
    store: FragmentStore,
    clock: Arc<dyn Clock>,
    period: Duration,
    after: Option<FragmentName>,
    done: u64,
    began: Duration,
}

impl Scrub {
    /// A scrub of `store` that passes over every fragment once a `period`.
    #[must_use]
    pub fn new(disk: DiskId, store: FragmentStore, clock: Arc<dyn Clock>, period: Duration) -> Self {
        let began = clock.monotonic();
        Self {
            disk,
            store,
            clock,
            period,
            after: None,
            done: 0,
            began,
        }
    }

    fn fragments(&self) -> u64 {
        self.store.fragments()
    }
}

#[async_trait]
impl Worker for Scrub {
    fn name(&self) -> String {
        format!("scrub disk-{}", self.disk)
    }

    fn backlog(&self) -> u64 {
        self.fragments().saturating_sub(self.done)
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        let elapsed = self.clock.monotonic().saturating_sub(self.began);
        let mut pace = pace(self.fragments(), self.done, elapsed, self.period);
        if self.done == 0 && self.after.is_none() {
            pace.fragments = pace.fragments.max(1);
        }
        let names = self
            .store
            .names_after(self.after.as_ref(), pace.fragments.max(1) as usize)?;
        if names.is_empty() {
            // The pass is over; the next one begins when this one's period ends.
            let rest = self.period.saturating_sub(elapsed);
            if rest > Duration::ZERO && self.done > 0 {
                return Ok(Next::After(rest.min(PAUSE_MAX)));
            }
            (self.after, self.done, self.began) = (None, 0, self.clock.monotonic());
            return Ok(Next::After(PAUSE_MAX.min(self.period)));
        }
        for name in names {
            match self.store.scrub(name).await {
                Ok(()) | Err(StoreError::Damaged | StoreError::Fault(_)) => {}
                Err(error) => return Err(error.into()),
            }
            self.after = Some(name);
            self.done += 1;
        }
        Ok(Next::After(pace.pause))
    }
}

#[cfg(test)]
mod tests {
    use super::{PAUSE_MAX, PAUSE_MIN, STEP_FRAGMENTS_MAX, pace};
    use proptest::prelude::proptest;
    use std::time::Duration;

    proptest! {
        /// A pass that keeps the pace ends within its period, unless the bound on the rate forbids it.
        #[test]
        fn a_pass_ends_in_its_period(fragments in 1_u64..2_000, period_s in 1_u64..100_000) {
            let period = Duration::from_secs(period_s);
            let (mut done, mut elapsed) = (0, Duration::ZERO);
            while done < fragments {
                let step = pace(fragments, done, elapsed, period);
                assert!(step.fragments >= 1 && step.fragments <= STEP_FRAGMENTS_MAX);
                assert!(step.pause >= PAUSE_MIN && step.pause <= PAUSE_MAX);
                done += step.fragments;
                elapsed += step.pause;
            }
            let fastest = PAUSE_MIN * u32::try_from(fragments.div_ceil(STEP_FRAGMENTS_MAX)).unwrap();
            assert!(elapsed <= period.max(fastest) + 2 * PAUSE_MIN, "{elapsed:?} of {period:?}");
        }
    }

    #[test]
    fn an_empty_disk_is_looked_at_rarely() {
        assert_eq!(pace(0, 0, Duration::ZERO, Duration::from_secs(1)).pause, PAUSE_MAX);
    }
}
