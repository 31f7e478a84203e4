//! Where a fragment goes when its own disk is away.
//!
//! Pure and deterministic: gateways that see the same map and the same outages choose the same disk, and stripes spread over
//! the candidates by hash.
//! Invariants: only active disks; never a disk of the row, so never two fragments of a stripe on one disk.
//! Not here: who is away (rpc's breakers) and what the write then survives (ack.rs).

use model::cluster::ClusterMap;
use model::hash::stable_hash;
use model::id::{DiskId, NodeId};
use model::layout::Row;
use model::stripe::StripeId;
use std::collections::BTreeSet;

#[cfg(test)]
mod tests;

/// A fragment that needs another disk, and what is known when the choice is made.
#[derive(Clone, Copy, Debug)]
pub struct Handoff<'a> {
    /// The stripe.
    pub stripe: StripeId,
    /// The fragment index whose disk, `row.disks[index]`, is away.
    pub index: u8,
    /// The stripe's row.
    pub row: &'a Row,
    /// Disks not to be asked now: open breakers, refusals, full disks. When a node is away, all of its disks.
    pub avoided: &'a BTreeSet<DiskId>,
    /// Disks outside the row that already hold or are being sent a fragment of this stripe.
    pub used: &'a BTreeSet<DiskId>,
}

/// How good a candidate is, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    SameRegionFreshNode,
    SameRegionNodeInUse,
    OtherRegionFreshNode,
    OtherRegionNodeInUse,
}

/// Chooses the disk that takes the fragment instead; `None` when no disk is left.
///
/// Same region first: a node that holds nothing of the stripe, then another disk of one that does; then other regions in the same
/// order. Among equals the largest hash of (stripe, index, disk) wins, so a disk that comes or goes moves only its own choices.
/// Without its own region (the disk is no longer in the map) all regions are alike. Cost O(disks of the cluster).
#[must_use]
pub fn choose_handoff(wanted: &Handoff<'_>, map: &ClusterMap) -> Option<DiskId> {
    let away = wanted.row.disks.get(usize::from(wanted.index)).copied();
    let home = away
        .and_then(|disk| map.node_of(disk))
        .and_then(|node| map.nodes.get(&node))
        .map(|node| &node.region);
    let held = || wanted.row.disks.iter().chain(wanted.used);
    let nodes_in_use: BTreeSet<NodeId> = held().filter_map(|disk| map.node_of(*disk)).collect();
    map.disks
        .iter()
        .filter(|(disk, _)| {
            map.is_active(**disk) && !wanted.avoided.contains(disk) && !held().any(|held| held == *disk)
        })
        .map(|(disk, info)| {
            let is_home = home.is_none_or(|home| map.nodes.get(&info.node).is_some_and(|node| node.region == *home));
            (nearness(is_home, nodes_in_use.contains(&info.node)), *disk)
        })
        .min_by_key(|(nearness, disk)| (*nearness, u64::MAX - score(wanted, *disk), *disk))
        .map(|(_, disk)| disk)
}

fn nearness(is_home: bool, is_in_use: bool) -> Nearness {
    match (is_home, is_in_use) {
        (true, false) => Nearness::SameRegionFreshNode,
        (true, true) => Nearness::SameRegionNodeInUse,
        (false, false) => Nearness::OtherRegionFreshNode,
        (false, true) => Nearness::OtherRegionNodeInUse,
    }
}

/// Rendezvous hashing (Thaler, Ravishankar 1998) over the candidates.
fn score(wanted: &Handoff<'_>, disk: DiskId) -> u64 {
    let mut bytes = [0_u8; 21];
    bytes[..16].copy_from_slice(&wanted.stripe.to_bytes());
    bytes[16] = wanted.index;
    bytes[17..].copy_from_slice(&disk.0.to_be_bytes());
    stable_hash(&bytes)
}
