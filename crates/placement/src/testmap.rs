//! Cluster maps for tests: built by shape, drawn at random, or read from testdata.
//!
//! A testdata file is a list of lines of words; `#` begins a comment. `node <id> <region> <zone> [state]` and
//! `disk <id> <node> [state]` make the map, every other line belongs to the suite that reads the file.
//! Not here: anything that runs outside tests.

use model::cluster::{ClusterMap, DiskInfo, Membership, NodeInfo};
use model::hash::stable_hash;
use model::id::{DiskId, NodeId};

/// A generator that is a hash of a seed and a count.
pub(crate) struct Dice(u64, u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed, 0)
    }

    /// A number below `sides`.
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.1 += 1;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.1.to_be_bytes());
        stable_hash(&bytes) % sides
    }
}

pub(crate) fn add_node(map: &mut ClusterMap, node: u32, region: &str, zone: &str) {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let info = NodeInfo {
        region: region.into(),
        zone: zone.into(),
        address,
        membership: Membership::Active,
    };
    map.nodes.insert(NodeId(node), info);
}

pub(crate) fn add_disk(map: &mut ClusterMap, disk: u32, node: u32, weight_bytes: u64) {
    let info = DiskInfo {
        node: NodeId(node),
        weight_bytes,
        membership: Membership::Active,
    };
    map.disks.insert(DiskId(disk), info);
}

/// `regions` sites of `nodes` nodes of `disks` equal disks; disk ids are counted from 1 in the order of nodes.
pub(crate) fn grid(regions: u32, nodes: u32, disks: u32) -> ClusterMap {
    let mut map = ClusterMap::default();
    for node in 0..regions * nodes {
        add_node(&mut map, node + 1, &format!("region-{}", node / nodes), "zone");
        for disk in 0..disks {
            add_disk(&mut map, node * disks + disk + 1, node + 1, 1 << 40);
        }
    }
    map
}

/// A map of up to `disks_max` disks on up to as many nodes in up to four regions; weights differ by up to eight.
pub(crate) fn random(dice: &mut Dice, disks_max: u64) -> ClusterMap {
    let mut map = ClusterMap::default();
    let disks = 1 + dice.below(disks_max);
    let nodes = 1 + dice.below(disks);
    let regions = 1 + dice.below(4);
    let is_weighted = dice.below(2) == 0;
    for node in 1..=nodes as u32 {
        let (region, zone) = (dice.below(regions), dice.below(2));
        add_node(&mut map, node, &format!("region-{region}"), &format!("zone-{zone}"));
    }
    for disk in 1..=disks as u32 {
        let node = if u64::from(disk) <= nodes {
            disk
        } else {
            1 + dice.below(nodes) as u32
        };
        let weight = if is_weighted { 1 + dice.below(8) } else { 1 };
        add_disk(&mut map, disk, node, weight << 40);
    }
    map
}

/// Lines of words, without comments and empty lines.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .map(|line| {
            line.split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
        })
        .filter(|words| !words.is_empty())
}

/// Takes a `node` or `disk` line; false for any other.
pub(crate) fn read_map_line(map: &mut ClusterMap, words: &[&str]) -> bool {
    let membership = |word: Option<&&str>| match word.copied() {
        None => Membership::Active,
        Some("draining") => Membership::Draining,
        Some("out") => Membership::Out,
        Some(other) => panic!("{other} is no state"),
    };
    match words[0] {
        "node" => {
            let id = words[1].parse().unwrap();
            add_node(map, id, words[2], words[3]);
            map.nodes.get_mut(&NodeId(id)).unwrap().membership = membership(words.get(4));
        }
        "disk" => {
            let id = words[1].parse().unwrap();
            add_disk(map, id, words[2].parse().unwrap(), 1 << 40);
            map.disks.get_mut(&DiskId(id)).unwrap().membership = membership(words.get(3));
        }
        _ => return false,
    }
    true
}
