//! Waiting at a replica until a feed of its group goes on.
//!
//! Invariants: whoever waits is told by a leader that had its majority when the wait began, and is sent on when that leads no more;
//! a wait holds no thread and no place among queries.
//! Not here: what moved (`feed_watch`), how long a gateway waits and what it does then.

use super::{Group, GroupError};
use daemon::clock::{Clock, until_multiple};
use model::id::RaftId;
use openraft::async_runtime::watch::WatchReceiver;
use protocol::metadata::watch::WatchAnswer;
use std::time::Duration;

/// How often, at least, a leader that is waited at looks whether it still leads: a look at a number, no message. All who wait at a process
/// look at the same moment.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Group {
    /// What moved behind `after`, at once when something did, and at the latest after `wait`; without `after`, where this replica stands.
    ///
    /// # Errors
    /// `NotLeader` with a hint; `Recovering`; `Unavailable` when too few replicas answer.
    pub async fn watch_feed(
        &self,
        clock: &dyn Clock,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<WatchAnswer, GroupError> {
        let feed = self
            .feed
            .as_ref()
            .ok_or_else(|| self.unavailable("nothing is told of its feeds"))?;
        self.require_leading()?;
        let Some(after) = after else {
            self.linearize_as_leader().await?;
            return Ok(feed.behind(feed.index()));
        };
        let mut news = feed.news();
        let mut is_proven = false;
        let begun = clock.monotonic();
        loop {
            // Marked as seen before the look: what comes after it wakes.
            news.borrow_and_update();
            let told = feed.behind(after);
            let left = wait.saturating_sub(clock.monotonic().saturating_sub(begun));
            if !told.moved.is_empty() || !told.is_whole || left.is_zero() {
                return Ok(told);
            }
            if !is_proven || !self.hears_majority() {
                self.linearize_as_leader().await?;
                is_proven = true;
            }
            self.require_leading()?;
            tokio::select! {
                changed = news.changed() => changed.map_err(|_| self.unavailable("the replica has stopped"))?,
                () = clock.sleep(left.min(until_multiple(clock.wall(), LOOK_EVERY))) => {}
            }
        }
    }

    /// Whether a majority answered this leader within an election, as far as it knows without asking.
    fn hears_majority(&self) -> bool {
        let heard: Vec<RaftId> = self.successors();
        let watched = self.raft.metrics();
        let voters = watched.borrow_watched().membership_config.voter_ids().count();
        2 * (heard.len() + 1) > voters
    }
}
