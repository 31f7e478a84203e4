//! Which group serves a slot, which replicas a group has, which of them leads as far as one knows, in what order they are asked, and
//! the aged hour of a slot that was told last.
//!
//! Invariant: each change under the lock is complete on its own.
//! Not here: calls (`metadata_client`), when the routes are fetched anew (`directory`, and whoever is told `not_mine`).

use super::{MetadataClient, Target, unexpected};
use model::id::{CONTROL_GROUP, GroupId, Slot};
use model::process::{ProcessId, Role};
use protocol::frame::Method;
use protocol::metadata::control::{GroupInfo, ProcessInfo, SlotRange};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Query, QueryAnswer, SlotTime};
use protocol::wire_error::Failure;
use rpc::transport::Peer;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

/// What is known of groups and their replicas.
#[derive(Default)]
pub(super) struct Routes {
    /// What was fetched is as of this entry of the control group or a later one; `None` while nobody knows.
    as_of: Option<u64>,
    slots: Vec<SlotRange>,
    pub(super) groups: BTreeMap<GroupId, Vec<Peer>>,
    pub(super) processes: Vec<ProcessInfo>,
    pub(super) leaders: BTreeMap<GroupId, Peer>,
    applied: BTreeMap<GroupId, u64>,
    /// The aged hours of slots as the last answers told them; at most one for each slot that there is.
    hours: BTreeMap<Slot, u32>,
}

impl Routes {
    fn group_of(&self, slot: Slot) -> Option<GroupId> {
        self.slots
            .iter()
            .find(|range| range.first <= slot && slot <= range.last)
            .map(|range| range.group)
    }
}

impl MetadataClient {
    /// The metadata replicas with their addresses as last fetched, or the seeds before that.
    pub fn replicas(&self) -> Vec<Peer> {
        let routes = self.routes();
        let known: Vec<Peer> = routes
            .processes
            .iter()
            .filter(|process| process.id.role == Role::Metadata)
            .map(|process| Peer {
                process: process.id,
                address: process.address,
            })
            .collect();
        if known.is_empty() { self.seeds.clone() } else { known }
    }

    /// Fetches the routes anew from the control group; what it decided later is kept, should that have come meanwhile.
    pub async fn refresh_routes(&self, trace: u128) -> Result<(), Failure> {
        // Heard before anything is asked: whatever is answered is at least as new.
        let as_of = self.applied_of(CONTROL_GROUP);
        let ask = async |what| {
            Box::pin(self.query(&Query::Control(what), trace))
                .await
                .map(|(answer, _)| answer)
        };
        let (slots, groups, processes) = (
            ask(ControlQuery::Slots).await?,
            ask(ControlQuery::Groups).await?,
            ask(ControlQuery::Processes).await?,
        );
        let (QueryAnswer::Slots(slots), QueryAnswer::Groups(groups), QueryAnswer::Processes(processes)) =
            (slots, groups, processes)
        else {
            return Err(unexpected());
        };
        self.replace(Some(as_of), slots, &groups, processes);
        Ok(())
    }

    /// Replaces the routes by what nobody knows the age of.
    pub fn set_routes(&self, slots: Vec<SlotRange>, groups: &[GroupInfo], processes: Vec<ProcessInfo>) {
        self.replace(None, slots, groups, processes);
    }

    /// As of which entry of the control group, or a later one, the routes were fetched last; `None` when that is not known.
    pub fn routes_as_of(&self) -> Option<u64> {
        self.routes().as_of
    }

    /// Replaces the routes, unless `as_of` tells that they are older than those that are known.
    fn replace(&self, as_of: Option<u64>, slots: Vec<SlotRange>, groups: &[GroupInfo], processes: Vec<ProcessInfo>) {
        let peer = |number: u64| {
            let id = ProcessId {
                role: Role::Metadata,
                number,
            };
            let process = processes.iter().find(|process| process.id == id)?;
            Some(Peer {
                process: id,
                address: process.address,
            })
        };
        let peers = groups
            .iter()
            .map(|group| (group.group, group.voters.iter().filter_map(|id| peer(id.0)).collect()));
        let groups: BTreeMap<GroupId, Vec<Peer>> = peers.collect();
        let mut routes = self.routes();
        if as_of.is_some() && as_of < routes.as_of {
            return;
        }
        routes.as_of = as_of;
        routes.slots = slots;
        routes.groups = groups;
        routes.processes = processes;
    }

    /// The replica that answered last for `group` as its leader.
    pub fn leader_of(&self, group: GroupId) -> Option<u64> {
        self.routes().leaders.get(&group).map(|peer| peer.process.number)
    }

    /// The greatest log index that an answer of `group` reflected.
    pub fn applied_of(&self, group: GroupId) -> u64 {
        self.routes().applied.get(&group).copied().unwrap_or(0)
    }

    pub(super) fn note(&self, group: GroupId, peer: &Peer, method: Method, log_index: u64) {
        let mut routes = self.routes();
        if method != Method::QueryReplica {
            routes.leaders.insert(group, *peer);
        }
        let applied = routes.applied.entry(group).or_default();
        *applied = log_index.max(*applied);
    }

    /// The aged hour of a slot, as the last answer told it; the slot's own is the same or a later one.
    pub fn age_hour(&self, slot: Slot) -> Option<u32> {
        self.routes().hours.get(&slot).copied()
    }

    pub(super) fn note_time(&self, target: &Target, time: Option<SlotTime>) {
        if let (Target::Slot(slot), Some(time)) = (target, time) {
            self.routes().hours.insert(*slot, time.age_hour);
        }
    }

    /// The group of a slot, as last fetched.
    pub fn group_of(&self, slot: Slot) -> Option<GroupId> {
        self.routes().group_of(slot)
    }

    /// The processes of the voters of a slot's group, for receipts.
    pub fn voters_of(&self, slot: Slot) -> Vec<ProcessInfo> {
        let routes = self.routes();
        let Some(peers) = routes.group_of(slot).and_then(|group| routes.groups.get(&group)) else {
            return Vec::new();
        };
        let known = |peer: &Peer| {
            routes
                .processes
                .iter()
                .find(|process| process.id == peer.process)
                .cloned()
        };
        peers.iter().filter_map(known).collect()
    }

    pub(super) fn routes(&self) -> MutexGuard<'_, Routes> {
        // Each change under the lock is complete on its own, so a panic elsewhere leaves nothing half done.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group's replicas in the order in which they are asked.
    pub(super) fn peers(&self, group: GroupId, method: Method) -> Vec<Peer> {
        let routes = self.routes();
        let mut peers = routes.groups.get(&group).cloned().unwrap_or_default();
        if peers.is_empty() && group == CONTROL_GROUP {
            peers.clone_from(&self.seeds);
        }
        if method == Method::QueryReplica {
            let own = ProcessId {
                role: Role::Gateway,
                number: self.source,
            };
            nearest_first(&mut peers, own, &routes.processes);
        } else if let Some(leader) = routes.leaders.get(&group) {
            peers.retain(|peer| peer.process != leader.process);
            peers.insert(0, *leader);
        }
        peers
    }

    /// `None` while the slot has no group, as in a cluster that has just begun.
    pub(super) async fn group_for(&self, target: &Target, trace: u128) -> Result<Option<GroupId>, Failure> {
        match target {
            Target::Group(group) => Ok(Some(*group)),
            Target::Slot(slot) => {
                let known = self.group_of(*slot);
                if known.is_some() {
                    return Ok(known);
                }
                self.refresh_routes(trace).await?;
                Ok(self.group_of(*slot))
            }
        }
    }
}

/// Orders replicas by how far they stand from `own`: the same rack, the same site, elsewhere. Of equal ones gateways begin with
/// different ones, so that no replica has all.
pub(super) fn nearest_first(peers: &mut [Peer], own: ProcessId, processes: &[ProcessInfo]) {
    let site = |id: ProcessId| {
        let process = processes.iter().find(|process| process.id == id)?;
        Some((process.region.as_str(), process.zone.as_str()))
    };
    let here = site(own);
    let distance = |peer: &Peer| match (here, site(peer.process)) {
        (Some(here), Some(there)) if here == there => 0,
        (Some((here, _)), Some((there, _))) if here == there => 1,
        _ => 2,
    };
    if let Some(turns) = usize::try_from(own.number)
        .ok()
        .and_then(|number| number.checked_rem(peers.len()))
    {
        peers.rotate_left(turns);
    }
    peers.sort_by_key(distance);
}
