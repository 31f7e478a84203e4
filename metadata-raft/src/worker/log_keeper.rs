//! Syncs the state and lets the log go up to what it covers.
//!
//! The state is written without sync; this worker syncs it now and then, and only then the log below is purged, never by
//! openraft's own choice. A crash before the sync replays the log; one behind it has nothing to replay.

use crate::group::Group;
use crate::raft::log_store::RaftLog;
use async_trait::async_trait;
use daemon::worker::{Next, StepError, Worker};
use model::id::GroupId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Full segments that stay, so that a follower that was away shortly is fed from the log. A guess.
const SEGMENTS_KEPT: usize = 2;

/// Keeps the logs of all groups short.
pub struct LogKeeper {
    groups: BTreeMap<GroupId, Arc<Group>>,
    log: Arc<RaftLog>,
    every: Duration,
}

impl LogKeeper {
    /// For all groups of a process and their log; looks so often.
    pub fn new(groups: BTreeMap<GroupId, Arc<Group>>, log: Arc<RaftLog>, every: Duration) -> Self {
        Self { groups, log, every }
    }
}

#[async_trait]
impl Worker for LogKeeper {
    fn name(&self) -> String {
        "log-keeper".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        for group in self.groups.values() {
            group.mark_if_due(false).await?;
        }
        let released = self.log.release_segments(SEGMENTS_KEPT).await?;
        if released > 0 {
            tracing::info!(released, "raft log segments let go");
        }
        Ok(Next::After(self.every))
    }
}
