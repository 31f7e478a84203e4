//! Moves the time of the drive groups on.
//!
//! A step tells each group that this replica leads for how long it has led in its term, by the monotonic clock; the state adds
//! what has grown since the last such command of the term and bounds it. So age can lag the world and never outrun it.
//! A group in which nothing was commanded since is told less often: nobody is there to see its age, and what waits for it waits
//! hours. Its next command finds it behind by one such pause at most.

use super::{WorkError, command};
use crate::group::Group;
use crate::state::{inline_bytes, packing, repacking, waiting};
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::worker::{Next, StepError, Worker};
use model::id::{CONTROL_GROUP, GroupId};
use protocol::metadata::Command;
use protocol::metadata::group::{AGE_STEP_EPOCHS_MAX, GroupCommand};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// An idle group's pause in steps. A step is half a birth epoch at most, so the pause is at most half of what one command may add.
pub(super) const IDLE_STEPS: u32 = AGE_STEP_EPOCHS_MAX as u32;

/// What this worker knows of a group that is led here.
struct Led {
    term: u64,
    since: Duration,
    /// When the group was told last.
    told_at: Duration,
    /// The entry that told it; `None` when others came between.
    told_by: Option<u64>,
}

/// Tells groups how long they have been led.
pub struct AgeWorker {
    groups: BTreeMap<GroupId, Arc<Group>>,
    clock: Arc<dyn Clock>,
    every: Duration,
    led: BTreeMap<GroupId, Led>,
}

impl AgeWorker {
    /// Steps each `every`, which should be at most half a birth epoch.
    pub fn new(groups: BTreeMap<GroupId, Arc<Group>>, clock: Arc<dyn Clock>, every: Duration) -> Self {
        Self {
            groups,
            clock,
            every,
            led: BTreeMap::new(),
        }
    }

    async fn tell(&mut self, id: GroupId, group: &Group) -> Result<(), WorkError> {
        let term = group.status().term;
        if !group.is_leader() {
            self.led.remove(&id);
            return Ok(());
        }
        let now = self.clock.monotonic();
        let led = self.led.entry(id).or_insert(Led {
            term,
            since: now,
            told_at: now,
            told_by: None,
        });
        if led.term != term {
            self.led.remove(&id);
            return Ok(());
        }
        let applied = group.applied_index();
        let is_idle = led.told_by.is_some() && led.told_by == applied;
        if is_idle && now.saturating_sub(led.told_at) < self.every * IDLE_STEPS && is_filled(group) {
            return Ok(());
        }
        let led_ms = u64::try_from(now.saturating_sub(led.since).as_millis()).unwrap_or(u64::MAX);
        let advance = Command::Group(GroupCommand::Advance { term, led_ms });
        command(group, self.clock.as_ref(), advance).await?;
        led.told_at = now;
        led.told_by = group
            .applied_index()
            .filter(|told| applied.is_some_and(|before| *told == before + 1));
        Ok(())
    }
}

/// Whether age commands have nothing to fill in any more. A state that cannot be read is told, and fails there.
fn is_filled(group: &Group) -> bool {
    let all = [
        waiting::is_filled,
        packing::is_filled,
        inline_bytes::is_filled,
        repacking::is_filled,
    ];
    group.read(|state| all.iter().all(|is_filled| is_filled(state).unwrap_or(false)))
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
        let mut failed = None;
        for (id, group) in drives {
            // One that cannot be told takes no time from the others.
            if let Err(error) = self.tell(id, &group).await {
                failed.get_or_insert(error);
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(Next::After(self.every)),
        }
    }
}
