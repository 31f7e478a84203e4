//! Tells drive groups what the control group decided: settings, slots, row versions.
//!
//! One for a process: it keeps the groups that are led here. The control group is asked, wherever it is led, only when this process's
//! replica of it has applied something since, or leads another group than before: a cluster in which nothing is decided asks nothing.
//! Invariants: a group adopts only slots that the control group gives it; owned ones keep their age. What is asked is never older
//! than what made it be asked, so no decision is passed by.

use super::control_reader::ControlReader;
use super::{WorkError, command, query};
use crate::group::Group;
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::worker::{Next, StepError, Worker};
use futures_util::future::join_all;
use model::id::{CONTROL_GROUP, GroupId, RowVersion, Slot};
use model::layout::Layout;
use model::profile::ProfileId;
use model::time::Age;
use protocol::metadata::control::{ClusterState, SlotRange};
use protocol::metadata::group::{AdoptedSlot, GroupCommand, GroupSettings, GroupState};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether another group is led here; the control group's own changes wake this worker.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Slots of one command: a sub-operation each.
const ADOPT_MAX: usize = 1000;

/// What the control group decided.
struct Decided {
    settings: GroupSettings,
    ranges: Vec<SlotRange>,
    layout: Layout,
}

/// Row versions by profile.
type Rows = BTreeMap<ProfileId, Vec<RowVersion>>;

/// What a group was told in a term of its leader here.
#[derive(Default)]
struct Told {
    term: u64,
    /// Of the control group: as of when everything is told; `None` before.
    applied: Option<u64>,
    rows: Rows,
}

/// Keeps drive groups in step with the control group.
pub struct GroupKeeper {
    groups: BTreeMap<GroupId, Arc<Group>>,
    own_control: Arc<Group>,
    control: ControlReader,
    clock: Arc<dyn Clock>,
    told: BTreeMap<GroupId, Told>,
}

impl GroupKeeper {
    /// Keeps the drive groups among `groups`. `own_control` is this process's replica of the control group.
    pub fn new(
        groups: BTreeMap<GroupId, Arc<Group>>,
        own_control: Arc<Group>,
        control: ControlReader,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let groups = groups.into_iter().filter(|(id, _)| *id != CONTROL_GROUP).collect();
        Self {
            groups,
            own_control,
            control,
            clock,
            told: BTreeMap::new(),
        }
    }

    /// The groups led here that were not told everything as of `applied`.
    fn untold(&mut self, applied: Option<u64>) -> Vec<(GroupId, Arc<Group>)> {
        let mut untold = Vec::new();
        for (id, group) in &self.groups {
            if !group.is_leader() {
                self.told.remove(id);
                continue;
            }
            let term = group.status().term;
            let told = self.told.entry(*id).or_default();
            if told.term != term {
                *told = Told {
                    term,
                    ..Told::default()
                };
            }
            if told.applied.is_none() || told.applied != applied {
                untold.push((*id, Arc::clone(group)));
            }
        }
        untold
    }

    /// `None` before the cluster is made.
    async fn ask(&self) -> Result<Option<Decided>, WorkError> {
        let cluster: ClusterState = match self.control.ask(ControlQuery::Cluster).await {
            Ok(QueryAnswer::Cluster(cluster)) => cluster,
            Err(WorkError::Refused(_)) => return Ok(None),
            Ok(_) => return Err(Failure::bug("asked for the cluster, was answered something else").into()),
            Err(error) => return Err(error),
        };
        let (QueryAnswer::Slots(ranges), QueryAnswer::Layout(layout)) = (
            self.control.ask(ControlQuery::Slots).await?,
            self.control.ask(ControlQuery::Layout(None)).await?,
        ) else {
            return Err(Failure::bug("asked for slots and layout, was answered something else").into());
        };
        let settings = GroupSettings {
            birth_epoch_ms: cluster.settings.birth_epoch_ms,
            block_grace_ms: cluster.settings.block_grace_ms,
        };
        Ok(Some(Decided {
            settings,
            ranges,
            layout,
        }))
    }

    async fn tell(&self, group: &Group, what: GroupCommand) -> Result<(), WorkError> {
        command(group, self.clock.as_ref(), Command::Group(what))
            .await
            .map(drop)
    }

    /// Tells a group that was told `rows` already; answers whether there is more to tell at once, and the rows told by then.
    async fn tell_all(
        &self,
        id: GroupId,
        group: &Arc<Group>,
        decided: &Decided,
        mut rows: Rows,
    ) -> Result<(bool, Rows), WorkError> {
        let QueryAnswer::Group(state) = query(group, &Query::Group).await? else {
            return Err(Failure::bug("asked for the group, was answered something else").into());
        };
        if state.settings != Some(decided.settings) {
            self.tell(group, GroupCommand::Configure(decided.settings)).await?;
        }
        for (profile, table) in &decided.layout.tables {
            let versions: Vec<RowVersion> = table.rows.iter().map(|row| row.version).collect();
            if rows.get(profile) != Some(&versions) {
                let told = GroupCommand::TellRows {
                    profile: *profile,
                    pg_bits: table.pg_bits,
                    versions: versions.clone(),
                };
                self.tell(group, told).await?;
                rows.insert(*profile, versions);
            }
        }
        // Slots come last: a group that serves a slot knows its settings and rows.
        let has_more = self.adopt(id, group, &decided.ranges, &state).await?;
        Ok((has_more, rows))
    }

    async fn adopt(
        &self,
        id: GroupId,
        group: &Group,
        ranges: &[SlotRange],
        state: &GroupState,
    ) -> Result<bool, WorkError> {
        let owned: BTreeSet<Slot> = state.slots.iter().copied().collect();
        let wanted = ranges
            .iter()
            .filter(|range| range.group == id)
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
        self.tell(group, GroupCommand::AdoptSlots { slots: missing }).await?;
        Ok(true)
    }
}

#[async_trait]
impl Worker for GroupKeeper {
    fn name(&self) -> String {
        "group-keeper".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        // Read before it is asked: what comes in between is told now and asked for once more.
        let applied = self.own_control.applied_index();
        let untold = self.untold(applied);
        if untold.is_empty() {
            return Ok(Next::Together(LOOK_EVERY));
        }
        let Some(decided) = self.ask().await? else {
            return Ok(Next::Together(LOOK_EVERY));
        };
        // All at once, so that one which cannot be told keeps nothing from the others.
        let telling = untold.iter().map(|(id, group)| {
            let rows = self.told.get(id).map(|told| told.rows.clone()).unwrap_or_default();
            self.tell_all(*id, group, &decided, rows)
        });
        let told = join_all(telling).await;
        let (mut has_more, mut failed) = (false, None);
        for ((id, _), told) in untold.iter().zip(told) {
            match told {
                Ok((is_more, rows)) => {
                    has_more |= is_more;
                    let told = self.told.entry(*id).or_default();
                    told.rows = rows;
                    told.applied = applied.filter(|_| !is_more);
                }
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None if has_more => Ok(Next::Now),
            None => Ok(Next::Together(LOOK_EVERY)),
        }
    }
}
