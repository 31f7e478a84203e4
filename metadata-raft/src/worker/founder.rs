//! Makes a new cluster known to itself: its id and settings, its replicas, its groups and who serves which slot.
//!
//! Runs where the control group is led, from the configuration that all replicas share, so no operator has to be there when the
//! replicas meet first. Everything is looked up before it is said, so a later leader says only what is missing, and an address that
//! was changed in the configuration.
//! Invariant: settings, groups and slots that are there are left alone: they are the operator's and the groups' own by then.
//! Not here: storage nodes and gateways, which register themselves under their certificates.

use super::{WorkError, command, query};
use crate::config::{Config, ReplicaSite};
use crate::group::Group;
use async_trait::async_trait;
use daemon::clock::Clock;
use daemon::worker::{Next, StepError, Worker};
use model::id::{CONTROL_GROUP, ClusterId, GroupId, RaftId, SLOTS, Slot};
use model::process::{ProcessId, Role};
use protocol::metadata::control::{ClusterSettings, ControlCommand, SlotRange};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How often a replica looks whether it leads by now, while nobody does: a new cluster waits this long at most.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The same where there is nothing to do: another leads, or all is said.
const REST: Duration = Duration::from_secs(1);

/// Founds the cluster and keeps the addresses of its replicas.
pub struct Founder {
    own: RaftId,
    control: Arc<Group>,
    clock: Arc<dyn Clock>,
    cluster: ClusterId,
    settings: ClusterSettings,
    replicas: Vec<(RaftId, SocketAddr)>,
    sites: Vec<ReplicaSite>,
    groups: u32,
    is_said: bool,
}

impl Founder {
    /// Founds `cluster` as `config` says.
    pub fn new(control: Arc<Group>, clock: Arc<dyn Clock>, cluster: ClusterId, config: &Config) -> Self {
        Self {
            own: config.replica,
            control,
            clock,
            cluster,
            settings: config.settings.clone(),
            replicas: config.replicas.clone(),
            sites: config.sites.clone(),
            groups: u32::try_from(config.groups.len()).unwrap_or(u32::MAX),
            is_said: false,
        }
    }

    async fn tell(&self, what: ControlCommand) -> Result<(), WorkError> {
        command(&self.control, self.clock.as_ref(), Command::Control(what))
            .await
            .map(drop)
    }

    async fn ask(&self, what: ControlQuery) -> Result<QueryAnswer, WorkError> {
        query(&self.control, &Query::Control(what)).await
    }

    async fn found(&self) -> Result<(), WorkError> {
        self.tell(ControlCommand::InitCluster {
            cluster: self.cluster,
            settings: self.settings.clone(),
        })
        .await?;
        self.register_replicas().await?;
        self.deal_slots().await
    }

    async fn register_replicas(&self) -> Result<(), WorkError> {
        let QueryAnswer::Processes(known) = self.ask(ControlQuery::Processes).await? else {
            return Err(unexpected().into());
        };
        for ((replica, address), site) in self.replicas.iter().zip(&self.sites) {
            let id = ProcessId {
                role: Role::Metadata,
                number: replica.0,
            };
            let is_known = known.iter().any(|process| {
                process.id == id
                    && process.address == *address
                    && process.region == site.region
                    && process.zone == site.zone
            });
            if !is_known {
                self.tell(ControlCommand::RegisterProcess {
                    id,
                    address: *address,
                    region: site.region.clone(),
                    zone: site.zone.clone(),
                })
                .await?;
            }
        }
        Ok(())
    }

    async fn deal_slots(&self) -> Result<(), WorkError> {
        let (QueryAnswer::Groups(groups), QueryAnswer::Slots(slots)) = (
            self.ask(ControlQuery::Groups).await?,
            self.ask(ControlQuery::Slots).await?,
        ) else {
            return Err(unexpected().into());
        };
        let voters: Vec<RaftId> = self.replicas.iter().map(|(replica, _)| *replica).collect();
        for group in std::iter::once(CONTROL_GROUP).chain((1..=self.groups).map(GroupId)) {
            if !groups.iter().any(|known| known.group == group) {
                self.tell(ControlCommand::SetGroup {
                    group,
                    voters: voters.clone(),
                })
                .await?;
            }
        }
        if slots.is_empty() {
            self.tell(ControlCommand::AssignSlots {
                ranges: equal_runs(self.groups),
            })
            .await?;
        }
        Ok(())
    }
}

fn unexpected() -> Failure {
    Failure::bug("asked for processes, groups and slots, was answered something else")
}

/// The slots dealt out over `groups` drive groups, 1 or more, in runs of equal length: a run for each group, in order.
#[must_use]
pub fn equal_runs(groups: u32) -> Vec<SlotRange> {
    let count = u32::from(SLOTS);
    let bound = |number: u32| u16::try_from(number * count / groups).unwrap_or(SLOTS);
    (0..groups)
        .filter_map(|number| {
            let (first, last) = (Slot::new(bound(number))?, Slot::new(bound(number + 1).checked_sub(1)?)?);
            Some(SlotRange {
                first,
                last,
                group: GroupId(number + 1),
            })
        })
        .collect()
}

#[async_trait]
impl Worker for Founder {
    fn name(&self) -> String {
        "founder".to_owned()
    }

    fn backlog(&self) -> u64 {
        0
    }

    async fn step(&mut self) -> Result<Next, StepError> {
        if self.control.is_leader() {
            if !self.is_said {
                self.found().await?;
                self.is_said = true;
            }
            return Ok(Next::Together(REST));
        }
        self.is_said = false;
        let is_led = self.control.status().leader.is_some_and(|leader| leader != self.own);
        Ok(if is_led {
            Next::Together(REST)
        } else {
            Next::After(LOOK_EVERY)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::equal_runs;
    use model::id::SLOTS;

    #[test]
    fn runs_cover_every_slot_once() {
        for groups in [1, 3, 4, 7, 256] {
            let runs = equal_runs(groups);
            assert_eq!(runs.len(), groups as usize);
            assert_eq!(runs[0].first.number(), 0);
            assert_eq!(runs[runs.len() - 1].last.number(), SLOTS - 1);
            assert!(
                runs.windows(2)
                    .all(|pair| pair[0].last.number() + 1 == pair[1].first.number())
            );
        }
    }
}
