//! The cluster as its operator sees it: nodes and disks, groups and their replicas, stripes.
//!
//! Everybody is asked side by side and for a short time, so that the answer comes while a part of the cluster is away.
//! Invariant: a process that does not answer is shown as away; it never fails the whole, and nothing is shown that nobody told.

use crate::codes;
use crate::drive::directory::{Known, node_peer};
use crate::drive::{Caller, Core, account};
use api::admin::{DiskRow, GroupRow, NodeRow, ReplicaRow, Status, StripeCounts};
use bytes::Bytes;
use futures_util::future::join_all;
use model::cluster::Membership;
use model::id::{CONTROL_GROUP, GroupId, NodeId, RaftId};
use protocol::frame::{Call, Method, decode, encode};
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{DiskState, DiskStatus, NodeStatus, NodeStatusAnswer};
use protocol::status::{GroupStatus, MetadataStatus};
use protocol::wire_error::Failure;
use rpc::transport::Peer;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a node or replica may take to tell about itself.
const TELL_PATIENCE: Duration = Duration::from_secs(2);
/// How long the control group may take to tell what there is; then what is known from before is shown.
const REFRESH_PATIENCE: Duration = Duration::from_secs(3);

impl Core {
    /// The state of the cluster, for an admin. Costs a call a node and a replica, and a question to each drive group.
    ///
    /// Errors: `admin_only`; `metadata_unreachable` when nothing is known yet.
    pub async fn status(&self, caller: &Caller) -> Result<Status, Failure> {
        account::require_admin(caller)?;
        let refreshed = self
            .within(REFRESH_PATIENCE, self.directory.refresh(caller.trace))
            .await;
        let known = match refreshed {
            Some(Ok(known)) => known,
            _ => self
                .directory
                .last_known()
                .ok_or_else(|| codes::METADATA_UNREACHABLE.failure())?,
        };
        let (nodes, replicas, stripes) = futures_util::join!(
            self.nodes(&known, caller.trace),
            self.replicas(caller.trace),
            self.stripes(caller.trace)
        );
        let groups = self.metadata.groups();
        Ok(Status {
            nodes,
            groups: groups
                .into_iter()
                .map(|(id, voters)| group_row(id, &voters, &replicas))
                .collect(),
            stripes,
            metadata_volume_encrypted: encrypted(replicas.values()),
        })
    }

    async fn nodes(&self, known: &Known, trace: u128) -> Vec<NodeRow> {
        let map = &known.map;
        let asked = map.nodes.keys().map(|node| self.ask_node(known, *node, trace));
        let answers = join_all(asked).await;
        let rows = map.nodes.iter().zip(answers).map(|((id, info), answer)| {
            let disks = map.disks_of(*id).filter_map(|disk| {
                let told = answer
                    .as_ref()
                    .and_then(|answer| answer.disks.iter().find(|status| status.disk == disk));
                Some(disk_row(disk.0, map.disks.get(&disk)?.weight_bytes, told))
            });
            NodeRow {
                id: id.0,
                region: info.region.clone(),
                zone: info.zone.clone(),
                state: format!(
                    "{} {}",
                    if answer.is_some() { "up" } else { "away" },
                    membership(info.membership)
                ),
                disks: disks.collect(),
            }
        });
        rows.collect()
    }

    /// What a node tells about itself; its disks that work are used again.
    pub(crate) async fn ask_node(&self, known: &Known, node: NodeId, trace: u128) -> Option<NodeStatusAnswer> {
        let peer = node_peer(node, known.map.nodes.get(&node)?.address);
        let message = encode(&NodeStatus {}).ok()?;
        let told = self.tell(peer, Method::NodeStatus, message, trace).await?;
        self.hear_of(&told);
        Some(told)
    }

    /// What each replica told; those that did not answer are `None`.
    async fn replicas(&self, trace: u128) -> BTreeMap<u64, Option<MetadataStatus>> {
        let asked = self.metadata.replicas().into_iter().map(|peer| async move {
            let told = self.tell(peer, Method::MetadataStatus, Bytes::new(), trace).await;
            (peer.process.number, told)
        });
        join_all(asked).await.into_iter().collect()
    }

    async fn stripes(&self, trace: u128) -> StripeCounts {
        let groups = self.metadata.groups();
        let asked = groups.keys().filter(|group| **group != CONTROL_GROUP).map(|group| {
            let asked = self.metadata.query_group(*group, &Query::StripeCounts, trace);
            async { self.within(TELL_PATIENCE, asked).await }
        });
        let mut sum = StripeCounts {
            is_complete: groups.len() > 1,
            ..StripeCounts::default()
        };
        for answer in join_all(asked).await {
            match answer {
                Some(Ok(QueryAnswer::StripeCounts(counts))) => {
                    sum.total += counts.total;
                    sum.degraded += counts.degraded;
                    sum.astray += counts.astray;
                    sum.missing += counts.missing;
                    sum.damaged += counts.damaged;
                    sum.dying += counts.dying;
                }
                _ => sum.is_complete = false,
            }
        }
        sum
    }

    async fn tell<T: DeserializeOwned>(&self, peer: Peer, method: Method, message: Bytes, trace: u128) -> Option<T> {
        let call = Call {
            method,
            request_id: trace,
            message,
            payload: Bytes::new(),
        };
        let answer = self.seams.transport.call(&peer, call, TELL_PATIENCE).await.ok()?;
        decode(&answer.message).ok()
    }

    /// What `work` gives within `patience`; it is dropped after that.
    pub(crate) async fn within<T>(&self, patience: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            result = work => Some(result),
            () = self.seams.clock.sleep(patience) => None,
        }
    }
}

fn disk_row(id: u32, weight_bytes: u64, told: Option<&DiskStatus>) -> DiskRow {
    let (state, reason) = match told.map(|status| &status.state) {
        None => ("away", None),
        Some(DiskState::Ready) => ("healthy", None),
        Some(DiskState::Full) => ("full", None),
        Some(DiskState::ReadOnly(why)) => ("read_only", Some(why.clone())),
        Some(DiskState::Missing(why)) => ("missing", Some(why.clone())),
    };
    // A missing disk tells no figures of its own, so its capacity is the one that the cluster plans with.
    let figures = told.filter(|status| !matches!(status.state, DiskState::Missing(_)));
    DiskRow {
        id,
        state: state.to_owned(),
        reason,
        capacity_bytes: figures.map_or(weight_bytes, |status| status.total_bytes),
        used_bytes: figures.map(|status| status.used_bytes),
        damaged_fragments: figures.map(|status| status.damaged_total),
    }
}

fn group_row(id: GroupId, voters: &[RaftId], replicas: &BTreeMap<u64, Option<MetadataStatus>>) -> GroupRow {
    let told = |voter: &RaftId| -> Option<&GroupStatus> {
        let status = replicas.get(&voter.0)?.as_ref()?;
        status.groups.iter().find(|group| group.group == id)
    };
    let answers = || voters.iter().filter_map(told);
    let leader = voters
        .iter()
        .filter_map(|voter| told(voter).map(|status| (voter.0, status)))
        .filter(|(_, status)| status.has_quorum)
        .max_by_key(|(_, status)| status.term);
    let last_index = leader.map(|(_, status)| status.last_index);
    let row = |voter: &RaftId| {
        let status = told(voter);
        let stopped = status.and_then(|status| status.stopped.clone());
        let applied = status.map(|status| status.applied_index);
        ReplicaRow {
            id: voter.0,
            state: match (status, &stopped) {
                (None, _) => "away",
                (Some(_), Some(_)) => "stopped",
                (Some(_), None) => "up",
            }
            .to_owned(),
            reason: stopped,
            applied,
            behind: last_index
                .zip(applied)
                .map(|(last, applied)| last.saturating_sub(applied)),
        }
    };
    GroupRow {
        id: id.0,
        leader: leader.map(|(number, _)| number),
        term: leader
            .map(|(_, status)| status.term)
            .or_else(|| answers().map(|status| status.term).max()),
        voters: voters.iter().map(|voter| voter.0).collect(),
        applied: answers().map(|status| status.applied_index).max().unwrap_or(0),
        replicas: voters.iter().map(row).collect(),
    }
}

/// One replica that is known to be open makes it false; one that does not tell leaves it open whether all are encrypted.
fn encrypted<'a>(replicas: impl Iterator<Item = &'a Option<MetadataStatus>>) -> Option<bool> {
    let told: Vec<Option<bool>> = replicas
        .map(|status| status.as_ref().and_then(|status| status.is_volume_encrypted))
        .collect();
    if told.contains(&Some(false)) {
        return Some(false);
    }
    (!told.is_empty() && told.iter().all(Option::is_some)).then_some(true)
}

fn membership(membership: Membership) -> &'static str {
    match membership {
        Membership::Active => "active",
        Membership::Draining => "draining",
        Membership::Out => "out",
    }
}

#[cfg(test)]
mod tests {
    use super::{encrypted, group_row};
    use model::id::{GroupId, RaftId};
    use protocol::status::{GroupStatus, MetadataStatus};
    use std::collections::BTreeMap;

    fn told(replica: u64, applied_index: u64, has_quorum: bool) -> MetadataStatus {
        MetadataStatus {
            replica: RaftId(replica),
            groups: vec![GroupStatus {
                group: GroupId(1),
                leader: Some(RaftId(1)),
                term: 4,
                applied_index,
                last_index: 100,
                has_quorum,
                voters: Vec::new(),
                stopped: None,
            }],
            is_volume_encrypted: Some(true),
        }
    }

    #[test]
    fn a_group_shows_who_leads_and_how_far_the_others_are_behind() {
        let voters = [RaftId(1), RaftId(2), RaftId(3)];
        let replicas = BTreeMap::from([(1, Some(told(1, 100, true))), (2, Some(told(2, 90, false))), (3, None)]);
        let row = group_row(GroupId(1), &voters, &replicas);
        assert_eq!((row.leader, row.term, row.applied), (Some(1), Some(4), 100));
        let behind: Vec<_> = row.replicas.iter().map(|replica| replica.behind).collect();
        assert_eq!(behind, [Some(0), Some(10), None]);
        assert_eq!(row.replicas[2].state, "away");
    }

    #[test]
    fn a_leader_that_no_majority_confirms_is_none() {
        let replicas = BTreeMap::from([(1, Some(told(1, 100, false))), (2, None), (3, None)]);
        let row = group_row(GroupId(1), &[RaftId(1), RaftId(2), RaftId(3)], &replicas);
        assert_eq!((row.leader, row.term), (None, Some(4)));
        assert!(row.replicas.iter().all(|replica| replica.behind.is_none()));
    }

    #[test]
    fn the_volumes_are_encrypted_when_every_replica_says_so_and_not_when_one_says_no() {
        let says = |answer| {
            Some(MetadataStatus {
                is_volume_encrypted: answer,
                ..told(1, 1, true)
            })
        };
        let cases = [
            (vec![says(Some(true)), says(Some(true))], Some(true)),
            (vec![says(Some(true)), None], None),
            (vec![says(Some(true)), says(None)], None),
            (vec![says(Some(false)), None], Some(false)),
            (vec![], None),
        ];
        for (replicas, expected) in cases {
            assert_eq!(encrypted(replicas.iter()), expected, "{replicas:?}");
        }
    }
}
