//! The section `[metadata]` of a configuration: raw form, check, checked form.

use crate::group::LogBounds;
use daemon::config::Problem;
use model::id::{GroupId, RaftId};
use model::limits::{BIRTH_EPOCH, BIRTH_EPOCH_DEV, BLOCK_GRACE, QUOTA_BYTES_DEFAULT};
use model::profile::ProfileId;
use protocol::metadata::control::ClusterSettings;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What the file may say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawMetadata {
    /// The replica's id, given out when the cluster was made and never used again.
    pub id: u64,
    /// Where log and state are kept.
    pub data_dir: PathBuf,
    /// Every replica of the cluster, this one included.
    pub replicas: Vec<RawReplica>,
    /// Drive groups.
    #[serde(default = "groups_default")]
    pub groups: u32,
    /// How far apart the replicas are: `lan` or `wan`.
    #[serde(default)]
    pub timing: Timing,
    /// Whether leaders answer queries without asking a majority while their lease holds. Trusts clocks (decision 0034), so off.
    #[serde(default)]
    pub lease_reads: bool,
    /// Rows are planned for the first time once this many storage nodes have registered.
    #[serde(default = "nodes_expected_default")]
    pub nodes_expected: usize,
    /// Refuses to start when the data directory does not lie on an encrypted block device.
    #[serde(default)]
    pub require_encrypted_volume: bool,
    /// Length of a journal segment, in MiB.
    #[serde(default = "segment_mib_default")]
    pub segment_mib: u64,
    /// What the cluster is made with. Read when it is made and never again.
    #[serde(default)]
    pub founding: RawFounding,
}

/// A replica of the cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReplica {
    /// Its id.
    pub id: u64,
    /// Where the others reach its transport.
    pub address: SocketAddr,
    /// Its site.
    pub region: String,
    /// Its rack.
    #[serde(default = "zone_default")]
    pub zone: String,
}

/// What a cluster is made with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawFounding {
    /// Durability of drives that are made with nothing else said.
    pub default_profile: String,
    /// Bytes of such a drive, in GiB.
    pub default_quota_gib: u64,
    /// Length of a stripe's birth epoch, in seconds of age.
    pub birth_epoch_s: u64,
    /// How long a block without reference stays, in hours of age.
    pub block_grace_hours: u64,
}

impl Default for RawFounding {
    fn default() -> Self {
        Self {
            // Survives a region and one fragment more, where there are three regions.
            default_profile: "standard".to_owned(),
            default_quota_gib: QUOTA_BYTES_DEFAULT >> 30,
            birth_epoch_s: BIRTH_EPOCH.as_secs(),
            block_grace_hours: BLOCK_GRACE_HOURS_DEFAULT,
        }
    }
}

/// Decision 0018: a week, so that an upload that was cut off before a holiday finds its blocks after it.
const BLOCK_GRACE_HOURS_DEFAULT: u64 = BLOCK_GRACE.as_secs() / 3600;

/// Heartbeats and elections by distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// Heartbeat 180 ms, election 600 to 900 ms.
    #[default]
    Lan,
    /// Heartbeat 300 ms, election 1.4 to 2.1 s.
    Wan,
}

fn groups_default() -> u32 {
    64
}

fn nodes_expected_default() -> usize {
    3
}

fn zone_default() -> String {
    "z1".to_owned()
}

fn segment_mib_default() -> u64 {
    256
}

/// The checked form.
#[derive(Clone, Debug)]
pub struct Config {
    /// This replica.
    pub replica: RaftId,
    /// Where log and state are kept.
    pub data_dir: PathBuf,
    /// Every replica of the cluster with its address.
    pub replicas: Vec<(RaftId, SocketAddr)>,
    /// Where each of them stands, in the same order.
    pub sites: Vec<ReplicaSite>,
    /// What the cluster is made with.
    pub settings: ClusterSettings,
    /// Drive groups, without the control group.
    pub groups: Vec<GroupId>,
    /// Heartbeats and elections.
    pub timing: Timing,
    /// Whether leaders answer queries under their lease.
    pub lease_reads: bool,
    /// Rows are planned for the first time once this many storage nodes have registered.
    pub nodes_expected: usize,
    /// Whether an unencrypted volume is refused.
    pub require_encrypted_volume: bool,
    /// Length of a journal segment in bytes.
    pub segment_bytes: u64,
    /// How often leaders tell their groups the time.
    pub age_every: Duration,
    /// How long the logs get; no key of the file sets it.
    pub log_bounds: LogBounds,
}

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSite {
    /// Its site.
    pub region: String,
    /// Its rack.
    pub zone: String,
}

impl RawFounding {
    fn check(&self, problems: &mut Vec<Problem>) -> ClusterSettings {
        let profile = ProfileId::parse(&self.default_profile);
        let mut say = |key: &str, what: &str, remedy: &str| {
            problems.push(Problem::new(format!("metadata.founding.{key}"), what, remedy));
        };
        if profile.is_none() {
            say("default_profile", "is no profile", "use standard, dev, single or solo");
        }
        if !(1..=1 << 24).contains(&self.default_quota_gib) {
            say("default_quota_gib", "is out of range", "set it to 1 to 16777216");
        }
        if !(BIRTH_EPOCH_DEV.as_secs()..=24 * 3600).contains(&self.birth_epoch_s) {
            say("birth_epoch_s", "is out of range", "set it to 2 to 86400");
        }
        if !(1..=366 * 24).contains(&self.block_grace_hours) {
            say("block_grace_hours", "is out of range", "set it to 1 to 8784");
        }
        ClusterSettings {
            default_profile: profile.unwrap_or(ProfileId::Standard),
            default_quota_bytes: self.default_quota_gib.saturating_mul(1 << 30),
            birth_epoch_ms: self.birth_epoch_s.saturating_mul(1000),
            block_grace_ms: self.block_grace_hours.saturating_mul(3_600_000),
        }
    }
}

impl RawMetadata {
    /// Checks values and their relations; keys in problems begin with `metadata.`.
    pub fn check(self) -> Result<Config, Vec<Problem>> {
        let mut problems = Vec::new();
        let ids: BTreeSet<u64> = self.replicas.iter().map(|replica| replica.id).collect();
        if ids.len() != self.replicas.len() {
            problems.push(Problem::new(
                "metadata.replicas",
                "names an id twice",
                "give every replica its own id",
            ));
        }
        if !ids.contains(&self.id) {
            problems.push(Problem::new(
                "metadata.replicas",
                "lacks this replica",
                "list every replica, this one included",
            ));
        }
        if !matches!(self.replicas.len(), 1 | 3 | 5) {
            problems.push(Problem::new(
                "metadata.replicas",
                "are neither 1 nor 3 nor 5",
                "list 1, 3 or 5 replicas",
            ));
        }
        if self.groups == 0 || self.groups > 256 {
            problems.push(Problem::new("metadata.groups", "is out of range", "set it to 1 to 256"));
        }
        if !(1..=1024).contains(&self.segment_mib) {
            problems.push(Problem::new(
                "metadata.segment_mib",
                "is out of range",
                "set it to 1 to 1024",
            ));
        }
        if !self.data_dir.is_absolute() {
            problems.push(Problem::new("metadata.data_dir", "is not absolute", "begin it with /"));
        }
        let settings = self.founding.check(&mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let site = |replica: &RawReplica| ReplicaSite {
            region: replica.region.clone(),
            zone: replica.zone.clone(),
        };
        Ok(Config {
            sites: self.replicas.iter().map(site).collect(),
            settings,
            replica: RaftId(self.id),
            data_dir: self.data_dir,
            replicas: self
                .replicas
                .iter()
                .map(|replica| (RaftId(replica.id), replica.address))
                .collect(),
            groups: (1..=self.groups).map(GroupId).collect(),
            timing: self.timing,
            lease_reads: self.lease_reads,
            nodes_expected: self.nodes_expected,
            require_encrypted_volume: self.require_encrypted_volume,
            segment_bytes: self.segment_mib << 20,
            age_every: Duration::from_secs(1),
            log_bounds: LogBounds::PRODUCTION,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Config, RawMetadata, Timing};
    use daemon::config::{Problem, RawConfig, parse};
    use serde::Deserialize;
    use std::path::Path;
    use std::time::Duration;

    /// A file that says nothing else.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        metadata: RawMetadata,
    }

    impl RawConfig for Section {
        type Checked = Config;

        fn check(self) -> Result<Config, Vec<Problem>> {
            self.metadata.check()
        }
    }

    /// What is read from the shortest section and `said`.
    fn read(said: &str) -> Config {
        let text = format!(
            "[metadata]\nid = 1\ndata_dir = \"/data\"\n{said}\n\
             [[metadata.replicas]]\nid = 1\naddress = \"127.0.0.1:7000\"\nregion = \"r1\"\n"
        );
        parse::<Section>(Path::new("metadata.toml"), &text).unwrap()
    }

    #[test]
    fn leaders_answer_under_leases_only_where_the_file_says_so() {
        assert!(!read("").lease_reads, "decision 0034");
        assert!(!read("lease_reads = false").lease_reads);
        assert!(read("lease_reads = true").lease_reads);
    }

    #[test]
    fn what_the_file_leaves_out_is_as_documented() {
        let read = read("");
        assert_eq!((read.groups.len(), read.nodes_expected), (64, 3));
        assert_eq!((read.timing, read.segment_bytes), (Timing::Lan, 256 << 20));
        assert_eq!(read.sites[0].zone, "z1");
        assert!(!read.require_encrypted_volume);
        let bounds = read.log_bounds;
        assert_eq!((bounds.entries_between_marks, bounds.entries_kept), (5_000, 2_000));
        assert_eq!(bounds.look_every, Duration::from_secs(10));
    }
}
