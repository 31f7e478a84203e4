//! A million small files sent in batches: what they take on the disks of nodes and replicas, for each byte of theirs (N9), and how
//! quickly they go in, at the beginning and on average.
//!
//! Invariant: every result of every batch is looked at, so files that never came do not look cheap.
//! Not here: files that come one by one.

use super::finding::Finding;
use super::stored::{OfReplicas, Stored};
use crate::dev_cluster::DevCluster;
use crate::wide_folder::files::{BATCH_FILES, FILE_BYTES, put_some};
use client_sdk::client::Client;
use futures_util::{StreamExt, TryStreamExt, stream};
use model::profile::Profile;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// N9. From so many files on what is there once, such as the log's segments, is lost among them.
pub(super) const FILES: usize = 1_000_000;
/// Above what the profile takes.
const MORE_MAX: f64 = 0.5;
/// N9: a thousand files a second.
const THOUSAND_S_MAX: f64 = 1.0;
/// As many as the bench puts: the figure of a batch is one of a cluster in which little is stored.
const BEGINNING_FILES: usize = 30 * BATCH_FILES;
/// Three thousand of those a second.
const BEGINNING_THOUSAND_S_MAX: f64 = 1.0 / 3.0;
/// One is sent while another is committed.
const AT_ONCE: usize = 2;
const SHOW_EACH: usize = 20 * BATCH_FILES;

/// What the files took.
#[derive(Clone, Copy, Debug)]
struct Taken {
    files: usize,
    took: Duration,
    /// The first of them.
    beginning_files: usize,
    beginning_took: Duration,
    /// Of the nodes' segments.
    used_bytes: f64,
    /// Of the fragments, as groups count them.
    fragment_bytes: f64,
    of_replicas: OfReplicas,
}

/// Puts the files and looks what has come onto the disks.
///
/// Run by `make delta`.
pub(super) async fn measure(cluster: &DevCluster, files: usize) -> anyhow::Result<Vec<Finding>> {
    let profile = cluster.facts.profile_id()?.profile();
    let client = cluster.client().await?;
    let (before, replicas_before) = (Stored::settled(cluster).await?, OfReplicas::look(cluster.data_dir())?);
    let beginning_files = files.min(BEGINNING_FILES);
    let beginning_took = put(&client, 0..beginning_files).await?;
    let took = beginning_took + put(&client, beginning_files..files).await?;
    let (after, replicas_after) = (Stored::settled(cluster).await?, OfReplicas::look(cluster.data_dir())?);
    let taken = Taken {
        files,
        took,
        beginning_files,
        beginning_took,
        used_bytes: after.used_bytes - before.used_bytes,
        fragment_bytes: after.fragment_bytes - before.fragment_bytes,
        of_replicas: replicas_after.since(replicas_before),
    };
    Ok(judge(&taken, profile))
}

/// Puts the files of these numbers; gives how long that took.
async fn put(client: &Client, numbers: Range<usize>) -> anyhow::Result<Duration> {
    let (begun, done) = (Instant::now(), AtomicUsize::new(0));
    let (end, all) = (numbers.end, numbers.len());
    let put = async |first: usize| {
        let count = BATCH_FILES.min(end - first);
        put_some(client, first, count).await?;
        let done = done.fetch_add(count, Ordering::Relaxed) + count;
        if done.is_multiple_of(SHOW_EACH) {
            let rate = done as f64 / begun.elapsed().as_secs_f64();
            println!("{done} of {all} files, {rate:.0} a second");
        }
        anyhow::Ok(())
    };
    let batches = stream::iter(numbers.step_by(BATCH_FILES)).map(put);
    batches.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    Ok(begun.elapsed())
}

/// How long a thousand of so many took; no number of none.
fn thousand_s(files: usize, took: Duration) -> f64 {
    took.as_secs_f64() * 1e3 / files as f64
}

fn judge(taken: &Taken, profile: Profile) -> Vec<Finding> {
    let logical_bytes = taken.files as f64 * FILE_BYTES as f64;
    let of_logical = |bytes: f64| bytes / logical_bytes;
    let (log_bytes, state_bytes) = (taken.of_replicas.log_bytes as f64, taken.of_replicas.state_bytes as f64);
    let most = profile.fragments() as f64 / f64::from(profile.k) + MORE_MAX;
    let (what, stored) = match taken.files >= FILES {
        true => ("with metadata", taken.used_bytes + log_bytes + state_bytes),
        // Of few files the log is more than all they need.
        false => ("without metadata, since they are few", taken.used_bytes),
    };
    let what = format!("{} files of {FILE_BYTES} bytes: stored of logical, {what}", taken.files);
    vec![
        Finding::at_most(what, of_logical(stored), "", most),
        Finding::at_most(
            format!("a thousand of the first {} put within", taken.beginning_files),
            thousand_s(taken.beginning_files, taken.beginning_took),
            "s",
            BEGINNING_THOUSAND_S_MAX,
        ),
        Finding::at_most(
            "a thousand of all of them put within",
            thousand_s(taken.files, taken.took),
            "s",
            THOUSAND_S_MAX,
        ),
        Finding::told("of logical: fragments", of_logical(taken.fragment_bytes), ""),
        Finding::told("of logical: segments of nodes", of_logical(taken.used_bytes), ""),
        Finding::told("of logical: logs of replicas", of_logical(log_bytes), ""),
        Finding::told("of logical: states of replicas", of_logical(state_bytes), ""),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::super::stored::OfReplicas;
    use super::{BEGINNING_FILES, FILE_BYTES, Taken, judge};
    use model::profile::ProfileId;
    use std::time::Duration;

    /// Files, for each byte of theirs what lies in segments, in logs and in states, and how long the first of them and all took; of a
    /// cluster of 4+2.
    fn check(files: usize, of_logical: [f64; 3], (beginning_s, took_s): (u64, u64), expected: usize) {
        let logical_bytes = (files as u64 * FILE_BYTES) as f64;
        let [used_bytes, log_bytes, state_bytes] = of_logical.map(|part| part * logical_bytes);
        let taken = Taken {
            files,
            took: Duration::from_secs(took_s),
            beginning_files: files.min(BEGINNING_FILES),
            beginning_took: Duration::from_secs(beginning_s),
            used_bytes,
            fragment_bytes: used_bytes,
            of_replicas: OfReplicas {
                log_bytes: log_bytes as u64,
                state_bytes: state_bytes as u64,
            },
        };
        let findings = judge(&taken, ProfileId::Dev.profile());
        assert_eq!(missed(&findings).len(), expected, "{findings:?}");
    }

    #[test]
    fn a_half_more_than_the_profile_takes_is_the_most_and_metadata_counts_when_files_are_many() {
        check(1_000_000, [1.53, 0.05, 0.40], (10, 900), 0);
        check(1_000_000, [1.53, 0.05, 0.43], (10, 900), 1);
        check(1_000_000, [2.01, 0.0, 0.0], (10, 900), 1);
        // The log of a short run is longer than its files.
        check(10_000, [1.53, 3.0, 0.4], (3, 3), 0);
        check(10_000, [2.01, 3.0, 0.4], (3, 3), 1);
    }

    #[test]
    fn fewer_than_three_thousand_files_a_second_at_first_and_a_thousand_of_all_are_missed_and_so_are_none() {
        check(1_000_000, [1.53, 0.05, 0.40], (10, 1_000), 0);
        check(1_000_000, [1.53, 0.05, 0.40], (10, 1_001), 1);
        check(1_000_000, [1.53, 0.05, 0.40], (11, 1_000), 1);
        check(1_000_000, [1.53, 0.05, 0.40], (11, 1_001), 2);
        check(0, [1.53, 0.05, 0.40], (0, 0), 3);
    }
}
