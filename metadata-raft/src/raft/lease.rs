//! Leases: what lets a leader answer a query without asking the others first, and what a voter does so that it may.
//!
//! A follower that answers a leader votes for nobody else for an election's longest silence (openraft). So a leader whom a majority
//! has answered lately knows that nobody else leads yet, by clocks alone (decision 0034).
//! Invariants: a lease is shorter than what voters promise, by a third of an election's shortest silence; one that a suspended
//! machine may have slept through counts for nothing; a voter that starts again keeps what it may have promised before.
//! Not here: reads that ask a majority (`read_rounds`), openraft's own promise, whether leases are used at all (`config`).

use crate::raft::network::GroupRaft;
use crate::raft::types::TypeConfig;
use daemon::clock::Clock;
use openraft::LinearizerOption;
use openraft::storage::{RaftLogReader, RaftLogStorage};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A suspend that is longer is noticed. It may also be a pause of the thread between two looks at the clock, which then costs one
/// round trip.
const SUSPEND_NOTICED: Duration = Duration::from_millis(1);

/// What is known of the machine's sleep.
struct Seen {
    /// The clock's word at the last look.
    suspended: Duration,
    /// Monotonic time from which on nothing was slept through.
    awake_since: Duration,
}

/// A leader's lease on one group.
pub struct Lease {
    raft: GroupRaft,
    clock: Arc<dyn Clock>,
    longest: Duration,
    seen: Mutex<Seen>,
}

/// How long a lease holds, for elections that begin after a silence of `election_min` at the shortest: two thirds of it. A voter's
/// clock may run half as fast again as its leader's. With heartbeats each quarter of `election_min`, one may be lost.
#[must_use]
pub fn longest(election_min: Duration) -> Duration {
    election_min * 2 / 3
}

impl Lease {
    /// Leases of `longest`, from now on, by `clock`, which must be the machine's own.
    #[must_use]
    pub fn new(raft: GroupRaft, clock: Arc<dyn Clock>, longest: Duration) -> Self {
        let seen = Seen {
            suspended: clock.suspended(),
            awake_since: clock.monotonic(),
        };
        Self {
            raft,
            clock,
            longest,
            seen: Mutex::new(seen),
        }
    }

    /// How old a majority's answer may be: as long as the lease, and not from before the machine slept.
    fn age_max(&self) -> Duration {
        let (now, suspended) = (self.clock.monotonic(), self.clock.suspended());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if suspended > seen.suspended + SUSPEND_NOTICED {
            seen.awake_since = now;
        }
        seen.suspended = suspended;
        now.saturating_sub(seen.awake_since).min(self.longest)
    }

    /// Up to which entry a state must have been applied to answer whoever asked before this call; `None` where this replica does not
    /// lead or no majority has answered it lately. Sends nothing.
    pub async fn read_index(&self) -> Option<u64> {
        let age_max = self.age_max();
        if age_max.is_zero() {
            return None;
        }
        let option = LinearizerOption::new(Some(age_max), false).with_wait_timeout(Duration::ZERO);
        let confirmed = self.raft.get_read_linearizer(option).await.ok()?;
        Some(confirmed.read_log_id().index())
    }
}

/// What a voter may have promised a leader before its process ended: openraft forgets it, and a second leader could be elected
/// while the first one's lease still holds.
pub struct OldPromise {
    clock: Arc<dyn Clock>,
    until: Option<Duration>,
}

impl OldPromise {
    /// Of a process that starts now on the log of a replica.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn of<L: RaftLogStorage<TypeConfig>>(
        store: &mut L,
        clock: Arc<dyn Clock>,
        election_min: Duration,
    ) -> Result<Self, io::Error> {
        let vote = store.get_log_reader().await.read_vote().await?;
        // Committed: it has followed a leader, or was one.
        Ok(Self::new(clock, vote.is_some_and(|vote| vote.committed), election_min))
    }

    /// Of a process that starts now: binding for `election_min` when it `followed` a leader at its end.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, followed: bool, election_min: Duration) -> Self {
        let until = followed.then(|| clock.monotonic() + election_min);
        Self { clock, until }
    }

    /// Whether it still forbids to vote for anybody whom the leader has not named itself.
    #[must_use]
    pub fn binds(&self) -> bool {
        self.until.is_some_and(|until| self.clock.monotonic() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::{OldPromise, longest};
    use crate::group::Timing;
    use daemon::clock::ManualClock;
    use model::time::WallTime;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_promise_binds_whoever_followed_for_an_election_s_silence() {
        let clock = Arc::new(ManualClock::new(WallTime(0)));
        let silence = Duration::from_millis(600);
        let promise = |followed| OldPromise::new(clock.clone(), followed, silence);
        let (bound, free) = (promise(true), promise(false));
        assert!(bound.binds() && !free.binds());
        clock.advance(silence - Duration::from_millis(1));
        assert!(bound.binds());
        clock.advance(Duration::from_millis(1));
        assert!(!bound.binds());
    }

    /// A voter waits at least `election_min` after the last word of its leader, whatever its process did meanwhile.
    #[test]
    fn a_lease_ends_before_a_voter_s_promise_also_by_a_slow_clock() {
        for timing in [Timing::LAN, Timing::WAN] {
            let lease = longest(timing.election_min);
            assert!(lease * 3 / 2 <= timing.election_min && timing.election_min <= timing.election_max);
            assert!(lease > timing.heartbeat * 2, "one lost heartbeat must not end it");
        }
    }
}
