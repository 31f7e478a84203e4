//! How many fragments of a stripe each failure domain may hold in a given cluster, and which profiles a cluster can hold.
//!
//! Margins are nested counts (disk one, then node, zone, region), so whether a row exists is a sum down the tree.
//! Invariants: what is found is feasible; a region holds as few as possible when the loss of one can be survived at all, so that
//! `standard` over three regions survives a region and one more fragment; two fragments share a node only in a region that has
//! fewer nodes than it must hold fragments.
//! Not here: the rows (layout.rs), what a given write survives (ack.rs).

use crate::ack::cut_domains;
use crate::layout::disk_table::DiskTable;
use model::cluster::{ClusterMap, DomainKey};
use model::id::DiskId;
use model::profile::{Domain, Profile, ProfileId};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// The most fragments of one row in each kind of domain; a disk holds at most one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Margins {
    pub(crate) region_max: usize,
    pub(crate) zone_max: usize,
    /// By region number of the `DiskTable`.
    pub(crate) node_max: Vec<usize>,
    /// The largest domain, up to the target, whose loss every row that keeps these margins survives.
    pub(crate) reach: Domain,
}

/// Usable disks of each node, by zone, by region.
type Tree = Vec<BTreeMap<usize, BTreeMap<usize, usize>>>;

impl Margins {
    /// The margins for `profile` when its target is `target`; `None` when there are not even enough disks.
    pub(crate) fn of(table: &DiskTable, profile: Profile, target: Domain) -> Option<Self> {
        let tree = tree_of(table);
        let fragments = profile.fragments();
        let m = usize::from(profile.m);
        let is_enough = |margins: &Self| capacity(&tree, margins) >= fragments;
        let open = |region_max, zone_max| Self {
            region_max,
            zone_max,
            node_max: vec![fragments; tree.len()],
            reach: Domain::Disk,
        };
        if !is_enough(&open(fragments, fragments)) {
            return None;
        }
        let by_region = (1..=m)
            .map(|region_max| open(region_max, fragments))
            .find(|margins| is_enough(margins));
        let by_zone = Some(open(fragments, m)).filter(|margins| is_enough(margins));
        let mut margins = by_region
            .filter(|_| target >= Domain::Region)
            .or(by_zone.filter(|_| target >= Domain::Zone))
            .unwrap_or(open(fragments, fragments));
        margins.node_max = (1..=fragments)
            .flat_map(|shared| {
                [
                    shared_where_needed(&tree, margins.region_max, shared),
                    vec![shared; tree.len()],
                ]
            })
            .find(|node_max| {
                is_enough(&Self {
                    node_max: node_max.clone(),
                    ..margins.clone()
                })
            })
            .expect("as many a node as the row has fragments was found enough above");
        margins.reach = if margins.region_max <= m {
            Domain::Region
        } else if margins.zone_max <= m {
            Domain::Zone
        } else if margins.node_max.iter().all(|node_max| *node_max <= m) {
            Domain::Node
        } else {
            Domain::Disk
        };
        margins.reach = margins.reach.min(target);
        Some(margins)
    }
}

/// The largest domain, up to the target cut to the cluster, that rows of `profile` can be made to survive with the disks that are
/// active now; `None` when there are fewer such disks than fragments.
#[must_use]
pub fn reach(profile: Profile, map: &ClusterMap) -> Option<Domain> {
    Margins::of(&DiskTable::of(map), profile, cut_domains(profile, map).0).map(|margins| margins.reach)
}

/// Whether rows of `profile` can be made that survive at least its floor: below that the planner refuses.
#[must_use]
pub fn can_hold(profile: Profile, map: &ClusterMap) -> bool {
    reach(profile, map).is_some_and(|reach| reach >= cut_domains(profile, map).1)
}

/// The profiles whose rows reach their whole target (cut to the cluster), in the order of their numbers.
#[must_use]
pub fn fitting(map: &ClusterMap) -> Vec<ProfileId> {
    let fits = |id: &ProfileId| reach(id.profile(), map) == Some(cut_domains(id.profile(), map).0);
    ProfileId::ALL.into_iter().filter(fits).collect()
}

/// How many fragments could be placed with no more than m in any one floor domain: at least k+m exactly when `can_hold`.
#[must_use]
pub fn places_found(profile: Profile, map: &ClusterMap) -> usize {
    let floor = cut_domains(profile, map).1;
    let most = if floor == Domain::Disk {
        1
    } else {
        usize::from(profile.m)
    };
    groups(map, floor, |disk| map.is_active(disk))
        .values()
        .map(|disks| (*disks).min(most))
        .sum()
}

/// Whether writes of `profile` go on, at least degraded, after the loss of any one `domain` and before any repair.
///
/// True when the active disks that are left can hold so many of the fragments that the floor is survived: what `status` advises
/// on at start. In `dev` without a region this takes two disks a node or eight nodes.
#[must_use]
pub fn writes_go_on_without(domain: Domain, profile: Profile, map: &ClusterMap) -> bool {
    let floor = cut_domains(profile, map).1;
    let domains: BTreeSet<DomainKey<'_>> = map
        .disks
        .keys()
        .filter_map(|disk| map.domain_of(*disk, domain))
        .collect();
    domains.iter().all(|lost| {
        let is_left = |disk| map.is_active(disk) && map.domain_of(disk, domain).as_ref() != Some(lost);
        let left = groups(map, floor, is_left);
        (1..=profile.fragments()).any(|most| {
            let held: usize = left.values().map(|disks| (*disks).min(most)).sum();
            held.min(profile.fragments()) >= usize::from(profile.k) + most
        })
    })
}

fn groups(map: &ClusterMap, domain: Domain, is_counted: impl Fn(DiskId) -> bool) -> BTreeMap<DomainKey<'_>, usize> {
    let mut groups = BTreeMap::new();
    for disk in map.disks.keys().filter(|disk| is_counted(**disk)) {
        if let Some(key) = map.domain_of(*disk, domain) {
            *groups.entry(key).or_default() += 1;
        }
    }
    groups
}

fn tree_of(table: &DiskTable) -> Tree {
    let mut tree: Tree = vec![BTreeMap::new(); table.regions];
    for disk in table.disks.iter().filter(|disk| disk.is_usable) {
        *tree[disk.region]
            .entry(disk.zone)
            .or_default()
            .entry(disk.node)
            .or_default() += 1;
    }
    tree
}

/// The most fragments that a row can have within the margins.
fn capacity(tree: &Tree, margins: &Margins) -> usize {
    let in_zone = |nodes: &BTreeMap<usize, usize>, node_max: usize| -> usize {
        nodes
            .values()
            .map(|disks| (*disks).min(node_max))
            .sum::<usize>()
            .min(margins.zone_max)
    };
    tree.iter()
        .zip(&margins.node_max)
        .map(|(zones, node_max)| {
            zones
                .values()
                .map(|nodes| in_zone(nodes, *node_max))
                .sum::<usize>()
                .min(margins.region_max)
        })
        .sum()
}

/// One fragment a node in regions that have nodes enough, `shared` in the others.
fn shared_where_needed(tree: &Tree, region_max: usize, shared: usize) -> Vec<usize> {
    tree.iter()
        .map(|zones| {
            if zones.values().map(BTreeMap::len).sum::<usize>() >= region_max {
                1
            } else {
                shared
            }
        })
        .collect()
}
