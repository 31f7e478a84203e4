//! What contents take on the disks and in the metadata, by what nodes and groups tell of themselves.
//!
//! Not here: what of it may be how much (whoever looks twice and compares).

use crate::dev_cluster::DevCluster;
use crate::meter;
use crate::wide_folder::rest::bytes_below;
use anyhow::{Context, ensure};
use client_sdk::client::Client;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Where a replica keeps its log, below its directory; the rest is its state.
const LOG_DIR: &str = "log";
/// Between two looks; a fragment is on its way for less. A guess.
const SETTLE: Duration = Duration::from_secs(1);
/// Where something always changes the last look counts.
const LOOKS_MAX: usize = 30;
/// One leads the control group and one the drive group of a dev cluster.
const LEADERS: f64 = 2.0;

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stored {
    /// Of the segments of all disks.
    pub(super) used_bytes: f64,
    /// Sealed bytes of blocks that live.
    pub(super) living_bytes: f64,
    /// Of the fragments of all stripes that groups know.
    pub(super) fragment_bytes: f64,
    /// That nodes hold.
    pub(super) fragments: f64,
}

/// What every node and replica that runs tells of itself.
pub(super) async fn pages(cluster: &DevCluster) -> anyhow::Result<Vec<String>> {
    let mut pages = Vec::new();
    let processes = cluster.facts_now()?.processes.into_iter();
    for process in processes.filter(|process| process.role != "gateway" && process.pid.is_some()) {
        let status = process
            .status
            .with_context(|| format!("{} has no status port", process.name()))?;
        pages.push(Client::new(&format!("http://{status}"))?.text("/metrics").await?);
    }
    Ok(pages)
}

/// The sum over all pages.
pub(super) fn sum(pages: &[String], name: &str) -> f64 {
    pages.iter().filter_map(|page| meter::sum(page, name)).sum()
}

/// Whether every group has a leader: leaders alone tell of their groups, which would look empty without.
pub(super) fn are_led(pages: &[String]) -> bool {
    sum(pages, "metadata_leading") >= LEADERS
}

impl Stored {
    /// Asks every node and replica.
    pub(super) async fn look(cluster: &DevCluster) -> anyhow::Result<Self> {
        Self::of(&pages(cluster).await?)
    }

    /// Looks until two looks are the same: fragments that an acknowledgement did not wait for come a little later.
    pub(super) async fn settled(cluster: &DevCluster) -> anyhow::Result<Self> {
        let mut last = Self::look(cluster).await?;
        for _ in 0..LOOKS_MAX {
            tokio::time::sleep(SETTLE).await;
            let now = Self::look(cluster).await?;
            if now == last {
                break;
            }
            last = now;
        }
        Ok(last)
    }

    fn of(pages: &[String]) -> anyhow::Result<Self> {
        ensure!(are_led(pages), "a group has no leader to tell what it stores");
        Ok(Self {
            used_bytes: sum(pages, "node_disk_used_bytes"),
            living_bytes: sum(pages, "metadata_content_bytes{kind=\"living\"}"),
            fragment_bytes: sum(pages, "metadata_content_bytes{kind=\"stored\"}"),
            fragments: sum(pages, "node_fragments"),
        })
    }
}

/// Bytes below the directories of all replicas.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OfReplicas {
    pub(super) log_bytes: u64,
    pub(super) state_bytes: u64,
}

impl OfReplicas {
    /// Looks into the directory of a dev cluster.
    pub(super) fn look(data_dir: &Path) -> anyhow::Result<Self> {
        let (mut found, mut replicas) = (Self::default(), 0);
        for folder in fs::read_dir(data_dir)? {
            let folder = folder?;
            if !folder.file_name().to_string_lossy().starts_with("metadata-") {
                continue;
            }
            replicas += 1;
            let log = folder.path().join(LOG_DIR);
            let log_bytes = if log.is_dir() { bytes_below(&log)? } else { 0 };
            found.log_bytes += log_bytes;
            found.state_bytes += bytes_below(&folder.path())?.saturating_sub(log_bytes);
        }
        ensure!(replicas > 0, "no replica keeps its data below {}", data_dir.display());
        Ok(found)
    }

    /// What has come since; nothing where it has become less.
    pub(super) fn since(&self, before: Self) -> Self {
        Self {
            log_bytes: self.log_bytes.saturating_sub(before.log_bytes),
            state_bytes: self.state_bytes.saturating_sub(before.state_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stored;

    const NODE: &str =
        "node_disk_used_bytes{disk=\"1\"} 10\nnode_disk_used_bytes{disk=\"2\"} 5\nnode_fragments{disk=\"1\"} 3\n";
    const REPLICA: &str = "metadata_leading{group=\"0\"} 1\nmetadata_leading{group=\"1\"} 1\n\
        metadata_content_bytes{group=\"1\",kind=\"living\"} 70\nmetadata_content_bytes{group=\"1\",kind=\"stored\"} 120\n\
        metadata_content_bytes{group=\"1\",kind=\"dead\"} 9\n";
    const FOLLOWER: &str = "metadata_leading{group=\"0\"} 0\nmetadata_leading{group=\"1\"} 0\n\
        metadata_content_bytes{group=\"1\",kind=\"living\"} 0\n";

    #[test]
    fn what_nodes_and_leaders_tell_is_added_up_and_a_group_without_a_leader_is_an_error() {
        let pages = [NODE, REPLICA, NODE, FOLLOWER].map(str::to_owned);
        let expected = Stored {
            used_bytes: 30.0,
            living_bytes: 70.0,
            fragment_bytes: 120.0,
            fragments: 6.0,
        };
        assert_eq!(Stored::of(&pages).unwrap(), expected);
        assert!(Stored::of(&[NODE, FOLLOWER].map(str::to_owned)).is_err());
    }
}
