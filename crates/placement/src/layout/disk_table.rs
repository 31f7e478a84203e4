//! The disks that a plan may use, numbered and sorted by failure domain.
//!
//! Invariants: sorted by (region, zone, node, disk), so every domain is a run of it; lost disks (declared out, or gone from the
//! map) are not in it; a draining disk is in it, since it still holds fragments, but is not usable.
//! Not here: how many fragments a domain may hold (margins.rs), how many places a disk gets (quota.rs).

use model::cluster::ClusterMap;
use model::id::DiskId;
use std::collections::BTreeMap;

/// A disk with the numbers of its domains; numbers are unique in the whole table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableDisk {
    pub(crate) id: DiskId,
    pub(crate) region: usize,
    pub(crate) zone: usize,
    pub(crate) node: usize,
    pub(crate) weight: u64,
    /// Takes new fragments: active, on an active node, with a weight.
    pub(crate) is_usable: bool,
}

/// All disks that hold or may take fragments.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskTable {
    pub(crate) disks: Vec<TableDisk>,
    /// How many regions there are; their numbers are smaller.
    pub(crate) regions: usize,
    by_id: BTreeMap<DiskId, usize>,
}

impl DiskTable {
    /// Numbers the disks of `map`. Cost O(disks log disks).
    pub(crate) fn of(map: &ClusterMap) -> Self {
        let mut sorted = BTreeMap::new();
        for (disk, info) in &map.disks {
            let Some(node) = map.nodes.get(&info.node) else {
                continue;
            };
            if map.holds(*disk) {
                sorted.insert((&node.region, &node.zone, info.node, *disk), info.weight_bytes);
            }
        }
        let mut table = Self::default();
        let (mut zones, mut nodes) = (0, 0);
        let mut last = None;
        for (key, weight) in sorted {
            let (is_new_region, is_new_zone, is_new_node) = match last {
                None => (true, true, true),
                Some((region, zone, node)) => (
                    key.0 != region,
                    (key.0, key.1) != (region, zone),
                    (key.0, key.1, key.2) != (region, zone, node),
                ),
            };
            table.regions += usize::from(is_new_region);
            zones += usize::from(is_new_zone);
            nodes += usize::from(is_new_node);
            last = Some((key.0, key.1, key.2));
            table.by_id.insert(key.3, table.disks.len());
            table.disks.push(TableDisk {
                id: key.3,
                region: table.regions - 1,
                zone: zones - 1,
                node: nodes - 1,
                weight,
                is_usable: map.is_active(key.3) && weight > 0,
            });
        }
        table
    }

    /// The number of `disk`; `None` when it is lost.
    pub(crate) fn number_of(&self, disk: DiskId) -> Option<usize> {
        self.by_id.get(&disk).copied()
    }

    /// Disks that take new fragments.
    pub(crate) fn usable(&self) -> usize {
        self.disks.iter().filter(|disk| disk.is_usable).count()
    }
}
