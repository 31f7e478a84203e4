//! Takes stock of a world at rest: which stripes the groups know, what still waits in their queues, and which fragments lie on disks.
//!
//! Reads the whole state of each drive group at the replica that has applied most, and asks every node for all names on its
//! disks. A fragment of a stripe that no group knows is a leak. In the end the gateway takes an inventory, which should miss nothing.
//! Not here: dead bytes in stripes of which half or more lives, which stay until more of it dies (decision 0045); how much may leak
//! (`oracle::collection`).

use crate::world::home::patiently;
use crate::world::processes::Ground;
use crate::world::shape;
use gateway::drive::Core;
use gateway::drive::collector::inventory::Inventory;
use gateway::metrics;
use kv::seam::{KvError, KvRead, Scan};
use metadata_raft::group::Group;
use metadata_raft::state::{check, keys};
use model::error_kind::ErrorKind;
use model::id::{DiskId, GroupId};
use model::process::ProcessId;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeId};
use protocol::frame::Method;
use protocol::node::{FragmentNames, FragmentRead, ListFragments, NodeStatus, NodeStatusAnswer, ReadFragment, code};
use protocol::wire_error::Failure;
use rpc::transport::RpcError;
use rpc::typed::{self, CallOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(4);
/// Leaks that are told one by one.
const TOLD_MAX: usize = 5;
/// Slot, table, profile and id.
const STRIPE_KEY_BYTES: usize = 2 + 1 + 1 + 16;
const TABLE_AT: usize = 2;
/// Tables in which nothing is left when nobody has done anything for two graces.
const QUEUES: [(u8, &str); 8] = [
    (keys::JOB, "jobs"),
    (keys::PAGE_RELEASE, "released pages"),
    (keys::DROPPED_VERSION, "dropped versions"),
    (keys::IDLE_BLOCK, "idle blocks"),
    (keys::STRIPE_DYING, "dying stripes"),
    (keys::REMOVABLE, "stripes to be removed"),
    (keys::UNTOLD, "disks to be told"),
    (keys::REPACKABLE, "stripes to be repacked"),
];

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Fragments on all disks.
    pub fragments: u64,
    /// Bytes of all records that live on them.
    pub living_bytes: u64,
    /// Bytes of fragments of stripes that no group knows.
    pub leaked_bytes: u64,
    /// The first of these fragments.
    pub leaks: Vec<String>,
    /// Fragments that groups count on and that lie on no disk, as the gateway's own inventory says.
    pub missing: u64,
    /// What does not agree in a group's state.
    pub complaints: Vec<String>,
    /// What waits in a group's queues.
    pub waiting: Vec<String>,
    /// Stripes that the gateway had removed in all of its life.
    pub stripes_removed: u64,
    /// Fragments that it found to be orphans.
    pub orphans_removed: u64,
    /// Stripes less than half alive whose blocks it had switched.
    pub stripes_repacked: u64,
}

type StripeName = (ProfileId, StripeId);

/// Takes stock now.
///
/// Errors: a group has no replica that runs, a store fails, or a node does not answer.
pub async fn take(core: &Core, ground: &Ground) -> Result<Census, String> {
    let counted = |definition| {
        core.seams
            .metrics
            .counter(definition)
            .with_label_values::<&str>(&[])
            .get()
    };
    let mut census = Census {
        stripes_removed: counted(&metrics::STRIPES_REMOVED),
        orphans_removed: counted(&metrics::ORPHANS_REMOVED),
        stripes_repacked: counted(&metrics::STRIPES_REPACKED),
        ..Census::default()
    };
    let mut lying = Vec::new();
    for node in shape::nodes() {
        let status: NodeStatusAnswer = ask(core, node, Method::NodeStatus, &NodeStatus {}).await?;
        census.living_bytes += status.disks.iter().map(|disk| disk.living_bytes).sum::<u64>();
        for disk in shape::disks(node) {
            let names = names(core, node, disk).await?;
            census.fragments += names.len() as u64;
            lying.extend(names.into_iter().map(|name| (node, disk, name)));
        }
    }
    // After the disks: what was named in between is known by then, and what was removed is asked for once more below.
    let mut known = BTreeSet::new();
    for group in shape::groups() {
        let replica = replica_of(ground, group).ok_or_else(|| format!("group {group} has no replica"))?;
        let read = replica.read(|kv| look(kv, group, &mut known, &mut census));
        read.map_err(|error| format!("the state of group {group} does not read: {error}"))?;
    }
    for (node, disk, name) in lying {
        if !known.contains(&(name.profile, name.stripe)) {
            note_leak(core, (node, disk, name), &mut census).await?;
        }
    }
    // Last, since it removes what it finds to be nobody's.
    let inventory = patiently(async || inventory(core).await).await;
    census.missing = inventory.map_err(|why| format!("no inventory: {why}"))?.missing;
    Ok(census)
}

/// An inventory in which everybody answered.
async fn inventory(core: &Core) -> Result<Inventory, Failure> {
    let found = core.take_inventory().await?;
    if found.is_whole && found.silent_disks == 0 {
        return Ok(found);
    }
    Err(Failure::new(ErrorKind::Unavailable, "no_answer", format!("{found:?}")))
}

/// The replica of a group that has applied most.
fn replica_of(ground: &Ground, group: GroupId) -> Option<Arc<Group>> {
    let running = ground.running();
    let replicas = running.values().filter_map(|service| service.groups().get(&group));
    replicas.max_by_key(|replica| replica.applied_index()).cloned()
}

fn look(kv: &dyn KvRead, group: GroupId, known: &mut BTreeSet<StripeName>, census: &mut Census) -> Result<(), KvError> {
    let complaints = check::check(kv)?.into_iter();
    census
        .complaints
        .extend(complaints.map(|complaint| format!("group {group}: {complaint}")));
    let rows = kv.scan(&Scan::prefix(&[], usize::MAX))?;
    known.extend(rows.iter().filter_map(|(key, _)| stripe_of(key)));
    for (table, what) in QUEUES {
        let count = rows.iter().filter(|(key, _)| key.get(TABLE_AT) == Some(&table)).count();
        if count > 0 {
            census.waiting.push(format!("group {group}: {count} {what}"));
        }
    }
    Ok(())
}

fn stripe_of(key: &[u8]) -> Option<StripeName> {
    if key.len() != STRIPE_KEY_BYTES || key[TABLE_AT] != keys::STRIPE {
        return None;
    }
    let id = key.last_chunk::<16>()?;
    Some((ProfileId::from_number(key[TABLE_AT + 1])?, StripeId::from_bytes(*id)))
}

async fn names(core: &Core, node: ProcessId, disk: DiskId) -> Result<Vec<FragmentName>, String> {
    let mut all: Vec<FragmentName> = Vec::new();
    loop {
        let after = all.last().copied();
        let request = ListFragments { disk, after };
        let listed: FragmentNames = ask(core, node, Method::ListFragments, &request).await?;
        if listed.names.is_empty() {
            return Ok(all);
        }
        all.extend(listed.names);
    }
}

async fn note_leak(
    core: &Core,
    (node, disk, name): (ProcessId, DiskId, FragmentName),
    census: &mut Census,
) -> Result<(), String> {
    let request = ReadFragment {
        name,
        disk,
        ranges: Vec::new(),
    };
    let read = patiently(
        async || match tell::<FragmentRead>(core, node, Method::ReadFragment, &request).await {
            // Found by the gateway since it was listed.
            Err(failure) if failure.code == code::NO_FRAGMENT => Ok(None),
            read => read.map(Some),
        },
    );
    let Some(read) = read.await? else { return Ok(()) };
    census.leaked_bytes += read.form.fragment_bytes() as u64;
    if census.leaks.len() < TOLD_MAX {
        let (stripe, index, born) = (name.stripe, name.index, name.stripe.born().0);
        census.leaks.push(format!(
            "{node} disk {disk}: fragment {index} of stripe {stripe}, born in epoch {born}"
        ));
    }
    Ok(())
}

async fn tell<T: DeserializeOwned>(
    core: &Core,
    node: ProcessId,
    method: Method,
    request: &(impl Serialize + Sync),
) -> Result<T, Failure> {
    let (peer, options) = (shape::peer(node), CallOptions::within(DEADLINE));
    match typed::ask(core.seams.transport.as_ref(), &peer, method, request, options).await {
        Ok((answer, _)) => Ok(answer),
        Err(RpcError::Refused(failure)) => Err(failure),
        Err(error) => Err(Failure::new(ErrorKind::Unavailable, "no_answer", error.to_string())),
    }
}

async fn ask<T: DeserializeOwned>(
    core: &Core,
    node: ProcessId,
    method: Method,
    request: &(impl Serialize + Sync),
) -> Result<T, String> {
    let asked = patiently(async || tell(core, node, method, request).await);
    asked.await.map_err(|why| format!("{node} does not answer: {why}"))
}
