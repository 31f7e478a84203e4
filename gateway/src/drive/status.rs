//! The cluster as its operator sees it: map and nodes, groups, degraded stripes.
//!
//! Invariant: a process that does not answer is shown as away; it never fails the whole.

use crate::drive::directory::node_peer;
use crate::drive::{Caller, Core, account};
use api::admin::{DiskRow, GroupRow, NodeRow, Status, StripeCounts};
use bytes::Bytes;
use futures_util::future::join_all;
use model::cluster::Membership;
use protocol::frame::{Call, Method, decode, encode};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Query, QueryAnswer};
use protocol::node::{DiskState, DiskStatus, NodeStatus, NodeStatusAnswer};
use protocol::wire_error::Failure;
use std::time::Duration;

const STATUS_DEADLINE: Duration = Duration::from_secs(2);

impl Core {
    /// The state of the cluster, for an admin. Costs one call a node.
    pub async fn status(&self, caller: &Caller) -> Result<Status, Failure> {
        account::require_admin(caller)?;
        let known = self.directory.refresh(caller.trace).await?;
        let asked = known
            .map
            .nodes
            .iter()
            .map(|(id, info)| self.ask_node(node_peer(*id, info.address), caller.trace));
        let answers = join_all(asked).await;
        let nodes = known.map.nodes.iter().zip(answers).map(|((id, info), answer)| {
            let disks = known.map.disks_of(*id).filter_map(|disk| {
                let told = answer
                    .as_ref()
                    .and_then(|answer| answer.disks.iter().find(|status| status.disk == disk));
                Some(disk_row(disk.0, known.map.disks.get(&disk)?.weight_bytes, told))
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
        let nodes = nodes.collect();
        let groups = match self
            .metadata
            .query(&Query::Control(ControlQuery::Groups), caller.trace)
            .await?
            .0
        {
            QueryAnswer::Groups(groups) => groups,
            _ => Vec::new(),
        };
        let groups = groups.into_iter().map(|group| GroupRow {
            id: group.group.0,
            leader: self.metadata.leader_of(group.group),
            voters: group.voters.iter().map(|voter| voter.0).collect(),
            applied: self.metadata.applied_of(group.group),
        });
        Ok(Status {
            nodes,
            groups: groups.collect(),
            stripes: StripeCounts::default(),
            metadata_volume_encrypted: None,
        })
    }

    async fn ask_node(&self, peer: rpc::transport::Peer, trace: u128) -> Option<NodeStatusAnswer> {
        let message = encode(&NodeStatus {}).ok()?;
        let call = Call {
            method: Method::NodeStatus,
            request_id: trace,
            message,
            payload: Bytes::new(),
        };
        let answer = self.seams.transport.call(&peer, call, STATUS_DEADLINE).await.ok()?;
        decode(&answer.message).ok()
    }
}

fn disk_row(id: u32, weight_bytes: u64, told: Option<&DiskStatus>) -> DiskRow {
    let state = match told.map(|status| &status.state) {
        None => "away",
        Some(DiskState::Ready) => "healthy",
        Some(DiskState::Full) => "full",
        Some(DiskState::ReadOnly(_)) => "read_only",
        Some(DiskState::Missing(_)) => "missing",
    };
    DiskRow {
        id,
        state: state.to_owned(),
        capacity_bytes: told.map_or(weight_bytes, |status| status.total_bytes),
        used_bytes: told.map(|status| status.used_bytes),
    }
}

fn membership(membership: Membership) -> &'static str {
    match membership {
        Membership::Active => "active",
        Membership::Draining => "draining",
        Membership::Out => "out",
    }
}
