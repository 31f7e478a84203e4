//! Moves the time of the drive groups on.
//!
//! A step tells each group that this replica leads for how long it has led in its term, by the monotonic clock; the state adds
//! what has grown since the last such command of the term and bounds it. So age can lag the world and never outrun it.

use super::{WorkError, command};
use crate::group::Group;
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::worker::{Next, StepError, Worker};
use model::id::{CONTROL_GROUP, GroupId};
use protocol::metadata::Command;
use protocol::metadata::group::GroupCommand;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Tells groups how long they have been led.
pub struct AgeWorker {
    groups: BTreeMap<GroupId, Arc<Group>>,
    clock: Arc<dyn Clock>,
    every: Duration,
    led_since: BTreeMap<GroupId, (u64, Duration)>,
}

impl AgeWorker {
    /// Steps each `every`, which should be at most half a birth epoch.
    pub fn new(groups: BTreeMap<GroupId, Arc<Group>>, clock: Arc<dyn Clock>, every: Duration) -> Self {
        Self {
            groups,
            clock,
            every,
            led_since: BTreeMap::new(),
        }
    }

    async fn tell(&mut self, id: GroupId, group: &Group) -> Result<(), WorkError> {
        let status = group.status();
        if !group.is_leader() {
            self.led_since.remove(&id);
            return Ok(());
        }
        let now = self.clock.monotonic();
        let (term, since) = *self.led_since.entry(id).or_insert((status.term, now));
        if term != status.term {
            self.led_since.insert(id, (status.term, now));
            return Ok(());
        }
        let led_ms = u64::try_from(now.saturating_sub(since).as_millis()).unwrap_or(u64::MAX);
        command(
            group,
            self.clock.as_ref(),
            Command::Group(GroupCommand::Advance { term, led_ms }),
        )
        .await
        .map(drop)
    }
}

#[async_trait]
impl Worker for AgeWorker {
    fn name(&self) -> String {
        "age".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        let drives: Vec<_> = self
            .groups
            .iter()
            .filter(|(id, _)| **id != CONTROL_GROUP)
            .map(|(id, group)| (*id, group.clone()))
            .collect();
        for (id, group) in drives {
            self.tell(id, &group).await?;
        }
        Ok(Next::After(self.every))
    }
}
