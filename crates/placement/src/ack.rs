//! Which loss a set of durable fragments survives, and whether a write may be acknowledged.
//!
//! Pure: the answer depends only on the arguments, so every process computes the same one.
//! Invariants: a fragment taken under another row version does not count; two fragments on one disk count once; a fragment on a
//! disk that is not in the map, or was declared out, does not count.
//! Not here: whether a disk answers (rpc), where a missing fragment goes instead (handoff.rs).

use model::cluster::{ClusterMap, DomainKey};
use model::id::{DiskId, RowVersion};
use model::layout::Row;
use model::profile::{Domain, Profile};
use model::stripe::Astray;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// A fragment that is durable on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldFragment {
    /// Which fragment of its stripe, 0 to k+m-1.
    pub index: u8,
    /// The disk on which it is durable.
    pub disk: DiskId,
}

/// A durable fragment together with the row version that its disk knew when it answered.
///
/// The version is part of the type so that nobody can count a fragment without having asked under which row it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TakenFragment {
    /// The fragment and its disk.
    pub fragment: HeldFragment,
    /// The row version of the answer.
    pub row_version: RowVersion,
}

/// Whether a write may be acknowledged, and what the receipt says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The write counts.
    Acknowledged {
        /// The largest domain of which any one may be lost.
        survives: Domain,
        /// Whether the target is not reached, a fragment is missing, or two share a node against the profile.
        is_degraded: bool,
    },
    /// Less than the floor survives: the caller answers Unavailable.
    Refused,
}

/// Names the largest failure domain whose loss, any one of it, leaves `k` durable fragments.
///
/// `held` lists the durable fragments with their disks, in any order. An index that is listed twice counts once, by the smaller
/// disk id, so the answer never promises too much.
/// `None` when not even the loss of one disk is survived: such a write must not be acknowledged.
/// Cost O(fragments log fragments). Source: ours, see docs/decisions/0005; enumerated against a naive twin in tests.
#[must_use]
pub fn survives(held: &[HeldFragment], profile: Profile, map: &ClusterMap) -> Option<Domain> {
    let distinct = distinct(held, profile, map);
    let k = usize::from(profile.k);
    Domain::ALL
        .into_iter()
        .rev()
        .find(|domain| left_after_worst_loss(&distinct, *domain, map) >= k)
}

/// Decides a write from the fragments taken for it.
///
/// Only fragments taken under `row.version` count. When an index is durable on two disks, the row's own disk is the one counted.
/// Target and floor are cut to what the cluster has (`cut_domains`).
#[must_use]
pub fn ack(taken: &[TakenFragment], row: &Row, profile: Profile, map: &ClusterMap) -> Ack {
    let held = count_under(taken, row);
    let (target, floor) = cut_domains(profile, map);
    let Some(survives) = survives(&held, profile, map).filter(|domain| *domain >= floor) else {
        return Ack::Refused;
    };
    let distinct = distinct(&held, profile, map);
    let is_missing_one = distinct.len() < profile.fragments();
    let is_sharing = target >= Domain::Node && shares_a_node(&distinct, map);
    Ack::Acknowledged {
        survives,
        is_degraded: survives < target || is_missing_one || is_sharing,
    }
}

/// The fragments among `taken` that were taken under `row.version`, each index once, in the order of the indices.
///
/// Of an index on several disks the row's own disk is chosen, else the smallest disk id.
#[must_use]
pub fn count_under(taken: &[TakenFragment], row: &Row) -> Vec<HeldFragment> {
    let mut chosen: BTreeMap<u8, DiskId> = BTreeMap::new();
    let mut counted: Vec<HeldFragment> = taken
        .iter()
        .filter(|taken| taken.row_version == row.version)
        .map(|taken| taken.fragment)
        .collect();
    counted.sort_unstable_by_key(|held| (held.index, !is_in_its_place(held, row), held.disk));
    for held in counted {
        chosen.entry(held.index).or_insert(held.disk);
    }
    chosen
        .into_iter()
        .map(|(index, disk)| HeldFragment { index, disk })
        .collect()
}

/// The fragment indices that are missing or lie outside the row, in order; empty when the row is whole.
///
/// A stripe for which this is not empty is queued for repair at once.
#[must_use]
pub fn astray(taken: &[TakenFragment], row: &Row, profile: Profile) -> Vec<Astray> {
    let held: BTreeMap<u8, DiskId> = count_under(taken, row)
        .into_iter()
        .map(|held| (held.index, held.disk))
        .collect();
    (0..profile.k + profile.m)
        .filter_map(|index| match held.get(&index) {
            Some(disk) if row.disks.get(usize::from(index)) == Some(disk) => None,
            other => Some(Astray {
                index,
                disk: other.copied(),
            }),
        })
        .collect()
}

/// Target and floor of `profile`, cut to what the cluster has.
///
/// Node and disk in one region, disk and disk on one node. Nodes that are declared out or have no disk left do not count as had;
/// nodes that are away do, so an outage never lowers what a write must survive.
#[must_use]
pub fn cut_domains(profile: Profile, map: &ClusterMap) -> (Domain, Domain) {
    let nodes: BTreeSet<_> = map
        .disks
        .iter()
        .filter(|(disk, _)| map.holds(**disk))
        .map(|(_, info)| info.node)
        .collect();
    let regions: BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| map.nodes.get(node))
        .map(|node| node.region.as_str())
        .collect();
    if nodes.len() <= 1 {
        (Domain::Disk, Domain::Disk)
    } else if regions.len() <= 1 {
        (profile.target.min(Domain::Node), profile.floor.min(Domain::Disk))
    } else {
        (profile.target, profile.floor)
    }
}

fn is_in_its_place(held: &HeldFragment, row: &Row) -> bool {
    row.disks.get(usize::from(held.index)) == Some(&held.disk)
}

/// Drops what may not be counted: foreign indices, unknown and lost disks, second fragments of a disk, second disks of an index.
fn distinct(held: &[HeldFragment], profile: Profile, map: &ClusterMap) -> Vec<HeldFragment> {
    let mut sorted = held.to_vec();
    sorted.sort_unstable();
    let mut indices = BTreeSet::new();
    let mut disks = BTreeSet::new();
    sorted.retain(|held| {
        let is_new = !indices.contains(&held.index) && !disks.contains(&held.disk);
        let is_kept = is_new && usize::from(held.index) < profile.fragments() && map.holds(held.disk);
        if is_kept {
            indices.insert(held.index);
            disks.insert(held.disk);
        }
        is_kept
    });
    sorted
}

fn left_after_worst_loss(distinct: &[HeldFragment], domain: Domain, map: &ClusterMap) -> usize {
    let mut lost: BTreeMap<DomainKey<'_>, usize> = BTreeMap::new();
    for held in distinct {
        if let Some(key) = map.domain_of(held.disk, domain) {
            *lost.entry(key).or_default() += 1;
        }
    }
    distinct.len() - lost.values().copied().max().unwrap_or(0)
}

fn shares_a_node(distinct: &[HeldFragment], map: &ClusterMap) -> bool {
    let mut nodes = BTreeSet::new();
    distinct
        .iter()
        .filter_map(|held| map.node_of(held.disk))
        .any(|node| !nodes.insert(node))
}
