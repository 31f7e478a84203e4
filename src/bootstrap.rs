//! Making a cluster known to itself: its settings, processes, groups, nodes and disks, by commands to the control group.
//!
//! Every step may be repeated: registrations carry the install number that a process keeps in its data directory, and answer
//! the same id again. Not here: rows, slots and settings of drive groups, which leaders take care of by themselves.

use anyhow::{Context, bail};
use gateway::drive::metadata_client::MetadataClient;
use model::cluster::{DiskInfo, NodeInfo};
use model::id::{CONTROL_GROUP, ClusterId, DiskId, GroupId, NodeId, RaftId, SLOTS, Slot};
use model::process::{ProcessId, Role};
use protocol::metadata::control::{ClusterSettings, ControlCommand, Registered, SlotRange};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer};
use std::net::SocketAddr;

/// Where a process stands.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) region: String,
    pub(crate) zone: String,
}

async fn control(client: &MetadataClient, command: ControlCommand) -> anyhow::Result<CommandAnswer> {
    let (answer, _) = client.command(Command::Control(command), None, 0).await?;
    Ok(answer)
}

/// Makes the cluster; the same again is no error.
pub(crate) async fn init_cluster(
    client: &MetadataClient,
    cluster: ClusterId,
    settings: ClusterSettings,
) -> anyhow::Result<()> {
    control(client, ControlCommand::InitCluster { cluster, settings })
        .await
        .context("make the cluster")?;
    Ok(())
}

/// Registers a metadata replica or gateway and answers its id.
pub(crate) async fn register_process(
    client: &MetadataClient,
    role: Role,
    install: u128,
    address: SocketAddr,
    site: &Site,
) -> anyhow::Result<ProcessId> {
    let (region, zone) = (site.region.clone(), site.zone.clone());
    match control(
        client,
        ControlCommand::RegisterProcess {
            install,
            role,
            address,
            region,
            zone,
        },
    )
    .await?
    {
        CommandAnswer::Registered(Registered::Process(id)) => Ok(id),
        other => bail!("registered a process, was answered {other:?}"),
    }
}

/// Registers a storage node, or its newer address, and answers its id.
pub(crate) async fn register_node(client: &MetadataClient, install: u128, info: NodeInfo) -> anyhow::Result<NodeId> {
    match control(client, ControlCommand::RegisterNode { install, info }).await? {
        CommandAnswer::Registered(Registered::Node(id)) => Ok(id),
        other => bail!("registered a node, was answered {other:?}"),
    }
}

/// Registers a disk, or its newer weight, and answers its id.
pub(crate) async fn register_disk(client: &MetadataClient, install: u128, info: DiskInfo) -> anyhow::Result<DiskId> {
    match control(client, ControlCommand::RegisterDisk { install, info }).await? {
        CommandAnswer::Registered(Registered::Disk(id)) => Ok(id),
        other => bail!("registered a disk, was answered {other:?}"),
    }
}

/// Names the groups' voters and deals the slots out over the drive groups in equal runs.
pub(crate) async fn assign_groups(client: &MetadataClient, groups: u32, voters: &[RaftId]) -> anyhow::Result<()> {
    let known = match client.query(&Query::Control(ControlQuery::Slots), 0).await?.0 {
        QueryAnswer::Slots(ranges) => ranges,
        other => bail!("asked for slots, was answered {other:?}"),
    };
    for group in std::iter::once(CONTROL_GROUP).chain((1..=groups).map(GroupId)) {
        control(
            client,
            ControlCommand::SetGroup {
                group,
                voters: voters.to_vec(),
            },
        )
        .await?;
    }
    if known.is_empty() {
        control(
            client,
            ControlCommand::AssignSlots {
                ranges: equal_runs(groups),
            },
        )
        .await?;
    }
    Ok(())
}

fn equal_runs(groups: u32) -> Vec<SlotRange> {
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
