//! The section `[node]` of a configuration: raw form, check, checked form.
//!
//! Invariant: a checked `Config` has at least one disk, no disk id and no path twice, and a data directory that is on none of them.
//! Not here: addresses, certificates and the cluster id, which every role has and the process's wiring checks.

use daemon::config::Problem;
use model::id::{DiskId, NodeId};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Smallest segment: the longest stripe's single fragment with room for company.
pub const SEGMENT_MIB_MIN: u64 = 8;
/// Largest segment: compaction holds a whole one in reserve twice.
pub const SEGMENT_MIB_MAX: u64 = 4096;
const SEGMENT_MIB_DEFAULT: u64 = 256;
/// docs/durability.md: the scrub period is a durability parameter; a week keeps latent damage below the disk failure rate.
const SCRUB_DAYS_DEFAULT: u32 = 7;
const LIMBO_HOURS_DEFAULT: u32 = 24;

/// What the file may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawNode {
    /// The node's id, given out by the control group.
    pub id: u32,
    /// The node's own directory, on none of its disks: there it remembers which disks it has had.
    pub data_dir: PathBuf,
    /// Its disks.
    pub disks: Vec<RawDisk>,
    /// Length of a segment, in MiB.
    #[serde(default = "segment_mib_default")]
    pub segment_mib: u64,
    /// Days in which a scrub reads every fragment once.
    #[serde(default = "scrub_days_default")]
    pub scrub_days: u32,
    /// Hours of running for which a compacted segment is kept.
    #[serde(default = "limbo_hours_default")]
    pub limbo_hours: u32,
}

/// One disk as the file says it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDisk {
    /// Its id, given out by the control group.
    pub id: u32,
    /// The directory that is the disk.
    pub path: PathBuf,
    /// How much of it may be used, in bytes; without it, all that the file system has.
    pub capacity_bytes: Option<u64>,
}

fn segment_mib_default() -> u64 {
    SEGMENT_MIB_DEFAULT
}

fn scrub_days_default() -> u32 {
    SCRUB_DAYS_DEFAULT
}

fn limbo_hours_default() -> u32 {
    LIMBO_HOURS_DEFAULT
}

/// The checked form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's id.
    pub node: NodeId,
    /// The node's own directory.
    pub data_dir: PathBuf,
    /// Its disks, in the order of ids.
    pub disks: Vec<DiskConfig>,
    /// Length of a segment in bytes.
    pub segment_bytes: u64,
    /// A scrub reads every fragment once in this time.
    pub scrub_period: Duration,
    /// A compacted segment is kept for this long of running.
    pub limbo: Duration,
}

/// One checked disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Its id.
    pub disk: DiskId,
    /// The directory that is the disk.
    pub path: PathBuf,
    /// How much of it may be used; `None`: all that the file system has.
    pub capacity_bytes: Option<u64>,
}

impl RawNode {
    /// Checks values and their relations; keys in problems begin with `node.`.
    pub fn check(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut say = |key: String, what: &str, remedy: &str| problems.push(Problem::new(key, what, remedy));
        if !self.data_dir.is_absolute() {
            say("node.data_dir".to_owned(), "is not absolute", "begin it with /");
        }
        if self.disks.is_empty() {
            say(
                "node.disks".to_owned(),
                "is empty",
                "add a [[node.disks]] with id and path",
            );
        }
        self.check_disks(&mut say);
        if !(SEGMENT_MIB_MIN..=SEGMENT_MIB_MAX).contains(&self.segment_mib) {
            say("node.segment_mib".to_owned(), "is out of range", "set it to 8 to 4096");
        }
        if self.scrub_days == 0 {
            say("node.scrub_days".to_owned(), "is 0", "set it to at least 1");
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut disks: Vec<DiskConfig> = self
            .disks
            .into_iter()
            .map(|raw| DiskConfig {
                disk: DiskId(raw.id),
                path: raw.path,
                capacity_bytes: raw.capacity_bytes,
            })
            .collect();
        disks.sort_by_key(|config| config.disk);
        Ok(Config {
            node: NodeId(self.id),
            data_dir: self.data_dir,
            disks,
            segment_bytes: self.segment_mib << 20,
            scrub_period: Duration::from_secs(u64::from(self.scrub_days) * 24 * 3600),
            limbo: Duration::from_secs(u64::from(self.limbo_hours) * 3600),
        })
    }

    /// Checks the disks one by one and against each other.
    fn check_disks(&self, say: &mut impl FnMut(String, &str, &str)) {
        let (mut ids, mut paths) = (BTreeSet::new(), BTreeSet::new());
        for (number, disk) in self.disks.iter().enumerate() {
            if !ids.insert(disk.id) {
                say(
                    format!("node.disks.{number}.id"),
                    "is given twice",
                    "give every disk the id that the cluster gave it",
                );
            }
            if !paths.insert(disk.path.clone()) {
                say(
                    format!("node.disks.{number}.path"),
                    "is given twice",
                    "give every disk a directory of its own",
                );
            }
            if self.data_dir.starts_with(&disk.path) {
                say(
                    "node.data_dir".to_owned(),
                    "lies on a disk of the node",
                    "put it elsewhere: it remembers the disks when they are away",
                );
            }
            if !disk.path.is_absolute() {
                say(
                    format!("node.disks.{number}.path"),
                    "is not absolute",
                    "begin it with /",
                );
            }
            if disk.capacity_bytes == Some(0) {
                say(
                    format!("node.disks.{number}.capacity_bytes"),
                    "is 0",
                    "remove it or give the bytes that may be used",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{RawDisk, RawNode};
    use model::id::DiskId;

    fn raw(disks: &[(u32, &str)]) -> RawNode {
        RawNode {
            id: 1,
            data_dir: "/node".into(),
            disks: disks
                .iter()
                .map(|(id, path)| RawDisk {
                    id: *id,
                    path: path.into(),
                    capacity_bytes: None,
                })
                .collect(),
            segment_mib: 32,
            scrub_days: 7,
            limbo_hours: 24,
        }
    }

    #[test]
    fn disks_are_ordered_and_doubles_relative_paths_and_zeros_are_all_told() {
        let config = raw(&[(2, "/b"), (1, "/a")]).check().unwrap();
        assert_eq!(
            config.disks.iter().map(|disk| disk.disk).collect::<Vec<_>>(),
            [DiskId(1), DiskId(2)]
        );
        let mut bad = raw(&[(1, "/a"), (1, "/a"), (3, "c")]);
        bad.segment_mib = 1;
        bad.data_dir = "c/node".into();
        bad.scrub_days = 0;
        let keys: Vec<String> = bad
            .check()
            .unwrap_err()
            .into_iter()
            .map(|problem| problem.key)
            .collect();
        assert_eq!(
            keys,
            [
                "node.data_dir",
                "node.disks.1.id",
                "node.disks.1.path",
                "node.data_dir",
                "node.disks.2.path",
                "node.segment_mib",
                "node.scrub_days"
            ]
        );
        assert_eq!(raw(&[]).check().unwrap_err()[0].key, "node.disks");
    }
}
