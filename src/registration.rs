//! Making a process known to the cluster: where a storage node or gateway is, which disks a node has, which KEK a gateway.
//!
//! Every step may be repeated and says the same again after a restart, or a newer address. Metadata replicas, groups and slots are
//! made known by the control group's leader from its configuration.
//! Invariant: a disk that the cluster knows is never taken for a new one, whatever its directory looks like.
//! Not here: which disks a node has had as far as it remembers itself (`node::register`).

use crate::one_line::one_line;
use crate::roles::STORE_DIR;
use anyhow::{Context, bail};
use bytes::Bytes;
use daemon::clock::Clock;
use daemon::resources;
use gateway::drive::metadata_client::MetadataClient;
use model::cluster::{Membership, NodeInfo};
use model::error_kind::ErrorKind;
use model::id::{DiskId, NodeId};
use model::process::ProcessId;
use node::config::DiskConfig;
use node::store::identity::IDENTITY_FILE;
use protocol::frame::{Call, Method};
use protocol::metadata::control::{ControlCommand, NodeDisk};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use rpc::transport::{Peer, RpcError, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// One look whether a replica trusts us.
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// Between two looks for the metadata replicas.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Where a process stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) region: String,
    pub(crate) zone: String,
}

async fn control(client: &MetadataClient, command: ControlCommand) -> Result<(), Failure> {
    client.command(Command::Control(command), None, 0).await.map(drop)
}

/// Those of the `configured` disks that are `working`, as they are registered.
pub(crate) fn running_disks(working: &[DiskId], configured: &[DiskConfig]) -> anyhow::Result<Vec<NodeDisk>> {
    let disks = configured.iter().filter(|disk| working.contains(&disk.disk));
    disks.map(node_disk).collect()
}

/// Whether no disk bears an identity: the node has never run, or none of its disks is mounted.
pub(crate) fn is_new_node(configured: &[DiskConfig]) -> bool {
    configured.iter().all(is_nameless)
}

fn is_nameless(disk: &DiskConfig) -> bool {
    !disk.path.join(STORE_DIR).join(IDENTITY_FILE).exists()
}

/// What a process tells the cluster at its start.
#[derive(Clone, Debug)]
pub(crate) enum Registration {
    /// Where a storage node is and which disks it has.
    Node {
        node: NodeId,
        address: SocketAddr,
        site: Site,
        disks: Vec<NodeDisk>,
    },
    /// Where a gateway is and which KEK it has.
    Gateway {
        id: ProcessId,
        address: SocketAddr,
        site: Site,
        kek: String,
    },
}

impl Registration {
    /// Says it until the cluster has taken it.
    ///
    /// Errors: the cluster refuses it for good, or the replicas and this process do not trust each other.
    pub(crate) async fn until_taken(
        self,
        client: &MetadataClient,
        transport: &dyn Transport,
        seeds: &[Peer],
        clock: &dyn Clock,
    ) -> anyhow::Result<()> {
        loop {
            match self.say(client).await {
                Ok(()) => return Ok(()),
                Err(failure) if is_passing(failure.kind) => wait_for_control(client, transport, seeds, clock).await?,
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Says it once.
    pub(crate) async fn say(&self, client: &MetadataClient) -> Result<(), Failure> {
        match self {
            Self::Node {
                node,
                address,
                site,
                disks,
            } => {
                let info = NodeInfo {
                    region: site.region.clone(),
                    zone: site.zone.clone(),
                    address: *address,
                    membership: Membership::Active,
                };
                let (node, disks) = (*node, disks.clone());
                control(client, ControlCommand::RegisterNode { node, info, disks }).await
            }
            Self::Gateway { id, address, site, kek } => {
                // The KEK first: a gateway with another one is none of this cluster's.
                control(client, ControlCommand::AdoptKek { kek: kek.clone() }).await?;
                let Site { region, zone } = site.clone();
                let (id, address) = (*id, *address);
                control(
                    client,
                    ControlCommand::RegisterProcess {
                        id,
                        address,
                        region,
                        zone,
                    },
                )
                .await
            }
        }
    }
}

fn is_passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Ambiguous)
}

/// Returns once the control group answers.
///
/// Errors: the replicas and this process do not trust each other.
pub(crate) async fn wait_for_control(
    client: &MetadataClient,
    transport: &dyn Transport,
    seeds: &[Peer],
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    let mut is_said = false;
    loop {
        if let Some(detail) = distrust(transport, seeds).await {
            bail!(
                "the metadata replicas and this process do not trust each other: {detail}; \
                 correct seeds, or put the identity of the right cluster into identity_dir"
            );
        }
        match client.query(&Query::Control(ControlQuery::Cluster), 0).await {
            Ok(_) => return Ok(()),
            Err(failure) => {
                if !is_said {
                    tracing::warn!(%failure, "the metadata replicas do not answer yet; waiting for them");
                }
                is_said = true;
                clock.sleep(LOOK_AGAIN).await;
            }
        }
    }
}

/// What is wrong between us and the seeds, when one was met and none of those that were is trusted and trusts us.
async fn distrust(transport: &dyn Transport, seeds: &[Peer]) -> Option<String> {
    let mut found = None;
    for seed in seeds {
        let call = Call {
            method: Method::Ping,
            request_id: 0,
            message: Bytes::new(),
            payload: Bytes::new(),
        };
        match transport.call(seed, call, PING_DEADLINE).await {
            Err(RpcError::Untrusted { peer, detail }) => found = Some(format!("{peer} at {}: {detail}", seed.address)),
            Err(RpcError::Unreachable { .. } | RpcError::DeadlineMissed { .. } | RpcError::BreakerOpen { .. }) => {}
            Ok(_) | Err(_) => return None,
        }
    }
    found
}

/// Disks that must not be used, each with the reason: their directories bear no identity although the cluster knows the disks.
///
/// When nobody can be asked, a directory without an identity is not used either: a new disk has time, a known one is not there.
pub(crate) async fn refused_disks(client: &MetadataClient, configured: &[DiskConfig]) -> BTreeMap<DiskId, String> {
    let nameless: Vec<DiskConfig> = configured.iter().filter(|disk| is_nameless(disk)).cloned().collect();
    if nameless.is_empty() {
        return BTreeMap::new();
    }
    let known = known_disks(client, &nameless).await;
    let reason = |disk: &DiskConfig| match &known {
        Ok(known) if known.contains(&disk.disk) => Some(format!(
            "the cluster has had disk {} and {} holds no disk; mount it and start the node again; \
             if it is lost, add a new disk under a new id",
            disk.disk,
            disk.path.display()
        )),
        Ok(_) => None,
        Err(error) => Some(format!(
            "nobody can be asked whether disk {} is new: {}; start the node again once the metadata replicas run",
            disk.disk,
            one_line(error)
        )),
    };
    nameless
        .iter()
        .filter_map(|disk| Some((disk.disk, reason(disk)?)))
        .collect()
}

/// The disks of `configured` that the cluster knows.
async fn known_disks(client: &MetadataClient, configured: &[DiskConfig]) -> anyhow::Result<BTreeSet<DiskId>> {
    match client.query(&Query::Control(ControlQuery::Cluster), 0).await?.0 {
        QueryAnswer::Cluster(cluster) => Ok(configured
            .iter()
            .map(|disk| disk.disk)
            .filter(|disk| cluster.map.disks.contains_key(disk))
            .collect()),
        other => bail!("asked for the cluster, was answered {other:?}"),
    }
}

/// The disk as it is registered, with the bytes that it can take.
fn node_disk(disk: &DiskConfig) -> anyhow::Result<NodeDisk> {
    let weight_bytes = match disk.capacity_bytes {
        Some(bytes) => bytes,
        None => {
            resources::space_of(&disk.path)
                .with_context(|| format!("look at {}", disk.path.display()))?
                .total
        }
    };
    Ok(NodeDisk {
        disk: disk.disk,
        weight_bytes,
    })
}
