//! Tells drive groups what the control group decided: settings, slots, row versions.
//!
//! Runs where a drive group is led and asks the control group wherever that is led.
//! Invariant: a group adopts only slots that the control group gives it; owned ones keep their age.

use super::control_reader::ControlReader;
use super::{WorkError, command, query};
use crate::group::Group;
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::worker::{Next, StepError, Worker};
use model::id::{GroupId, RowVersion, Slot};
use model::profile::ProfileId;
use model::time::Age;
use protocol::metadata::control::SlotRange;
use protocol::metadata::group::{AdoptedSlot, GroupCommand, GroupSettings, GroupState};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Slots of one command: a sub-operation each.
const ADOPT_MAX: usize = 1000;

/// Keeps one drive group in step with the control group.
pub struct GroupKeeper {
    id: GroupId,
    group: Arc<Group>,
    control: ControlReader,
    clock: Arc<dyn Clock>,
    told: BTreeMap<ProfileId, Vec<RowVersion>>,
}

impl GroupKeeper {
    /// Keeps `group`, whose id is `id`.
    pub fn new(id: GroupId, group: Arc<Group>, control: ControlReader, clock: Arc<dyn Clock>) -> Self {
        Self {
            id,
            group,
            control,
            clock,
            told: BTreeMap::new(),
        }
    }

    async fn tell(&self, what: GroupCommand) -> Result<(), WorkError> {
        command(&self.group, self.clock.as_ref(), Command::Group(what))
            .await
            .map(drop)
    }

    /// True when there is more to tell at once.
    async fn look(&mut self) -> Result<bool, WorkError> {
        let cluster = match self.control.ask(ControlQuery::Cluster).await {
            Ok(QueryAnswer::Cluster(cluster)) => cluster,
            Err(WorkError::Refused(_)) => return Ok(false),
            Ok(_) => return Err(Failure::bug("asked for the cluster, was answered something else").into()),
            Err(error) => return Err(error),
        };
        let (QueryAnswer::Slots(ranges), QueryAnswer::Layout(layout), QueryAnswer::Group(state)) = (
            self.control.ask(ControlQuery::Slots).await?,
            self.control.ask(ControlQuery::Layout(None)).await?,
            query(self.id, &self.group, &Query::Group).await?,
        ) else {
            return Err(Failure::bug("asked for slots, layout and group, was answered something else").into());
        };
        let settings = GroupSettings {
            birth_epoch_ms: cluster.settings.birth_epoch_ms,
            block_grace_ms: cluster.settings.block_grace_ms,
        };
        if state.settings != Some(settings) {
            self.tell(GroupCommand::Configure(settings)).await?;
        }
        for (profile, table) in &layout.tables {
            let versions: Vec<RowVersion> = table.rows.iter().map(|row| row.version).collect();
            if self.told.get(profile) != Some(&versions) {
                self.tell(GroupCommand::TellRows {
                    profile: *profile,
                    pg_bits: table.pg_bits,
                    versions: versions.clone(),
                })
                .await?;
                self.told.insert(*profile, versions);
            }
        }
        // Slots come last: a group that serves a slot knows its settings and rows.
        self.adopt(&ranges, &state).await
    }

    async fn adopt(&self, ranges: &[SlotRange], state: &GroupState) -> Result<bool, WorkError> {
        let owned: BTreeSet<Slot> = state.slots.iter().copied().collect();
        let mine = ranges.iter().filter(|range| range.group == self.id);
        let wanted = mine
            .flat_map(|range| range.first.number()..=range.last.number())
            .filter_map(Slot::new);
        let missing: Vec<AdoptedSlot> = wanted
            .filter(|slot| !owned.contains(slot))
            .take(ADOPT_MAX)
            .map(|slot| AdoptedSlot { slot, age: Age(0) })
            .collect();
        if missing.is_empty() {
            return Ok(false);
        }
        self.tell(GroupCommand::AdoptSlots { slots: missing }).await?;
        Ok(true)
    }
}

#[async_trait]
impl Worker for GroupKeeper {
    fn name(&self) -> String {
        format!("group-keeper {}", self.id)
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if !self.group.is_leader() {
            self.told.clear();
            return Ok(Next::After(LOOK_EVERY));
        }
        Ok(if self.look().await? {
            Next::Now
        } else {
            Next::After(LOOK_EVERY)
        })
    }
}
