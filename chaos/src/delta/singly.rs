//! Many small files put one by one: what they take while they lie in the metadata, and once they have lain still and are packed (N9).
//!
//! In a cluster in one process, whose birth epochs are so long that nothing is packed before all are there, and no longer: what is due
//! after a day elsewhere is due here after some minutes.
//! Invariants: all files are counted in the metadata before any is packed; a part of them is read back afterwards and compared.
//! Not here: which contents are due and what moves (the state machine's own tests), files in batches (`batches`).

use super::batches;
use super::finding::Finding;
use super::stored::{OfReplicas, Stored, are_led, pages, sum};
use crate::bench::calls::repeated;
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::wide_folder::files::FILE_BYTES;
use anyhow::{Context, ensure};
use api::entry::Entry;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::profile::Profile;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// As many as are put and packed within twenty minutes; N9 names a million.
pub(super) const FILES: usize = 100_000;
/// N9: of three replicas, for each byte.
const SINGLY_MAX: f64 = 3.5;
/// N9: above what the profile takes.
const MORE_MAX: f64 = 0.5;
/// At least so many a second are put, or some are due before the last one is there. A guess.
const FILES_A_SECOND: u64 = 250;
/// Epochs after which a content that lies still is due (`metadata_raft`).
const DUE_EPOCHS: u64 = 24;
const EPOCH_MS_MIN: u64 = 200;
const EPOCH_MS_MAX: u64 = 60_000;
const AT_ONCE: usize = 64;
const FOLDER_FILES: usize = 1_000;
/// Of so many files one is read back.
const READ_EACH: usize = 50;
const SEED: u64 = 9;
/// The metadata tells what it holds a little later, and a group that has lost its leader has another one long before.
const TOLD_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Nothing is packed for so long: five of the longest looks, and the time until the first one is due.
const PATIENCE: Duration = Duration::from_secs(5 * 60 + DUE_EPOCHS * EPOCH_MS_MAX / 1_000);
/// Less than a stripe takes; what is left of a million is nothing.
const LEFT: f64 = 1_000.0;

/// What all files take at a time, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    /// Of the nodes' segments.
    used: f64,
    /// In the metadata, of one replica.
    inline: f64,
    of_replicas: OfReplicas,
}

/// Both looks.
#[derive(Clone, Copy, Debug)]
struct Seen {
    files: usize,
    replicas: usize,
    put: Duration,
    singly: Taken,
    packed: Taken,
    /// Files that stayed in the metadata.
    left: f64,
}

/// How long birth epochs of the cluster are, in milliseconds.
pub(super) fn epoch_ms(files: usize) -> u64 {
    (files as u64 * 1_000 / FILES_A_SECOND / DUE_EPOCHS).clamp(EPOCH_MS_MIN, EPOCH_MS_MAX)
}

/// Puts, looks, waits until they are packed, and looks again.
pub(super) async fn measure(cluster: &DevCluster, files: usize) -> anyhow::Result<Vec<Finding>> {
    let profile = cluster.facts.profile_id()?.profile();
    let client = cluster.client().await?;
    let before = Taken::look(cluster).await?;
    let begun = Instant::now();
    let entries = put_all(&client, files).await?;
    let put = begun.elapsed();
    println!("{files} files in {:.0} s", put.as_secs_f64());
    all_inline(cluster, files).await?;
    let singly = Taken::look(cluster).await?.since(&before);
    // Those that were packed during the look would make it a mixture.
    all_inline(cluster, files).await?;
    let left = until_packed(cluster, files).await?;
    let packed = Taken::look(cluster).await?.since(&before);
    read_back(&client, &entries).await?;
    let replicas = cluster.facts.processes.iter();
    let seen = Seen {
        files,
        replicas: replicas.filter(|process| process.role == "metadata").count(),
        put,
        singly,
        packed,
        left,
    };
    Ok(judge(&seen, profile))
}

impl Taken {
    async fn look(cluster: &DevCluster) -> anyhow::Result<Self> {
        Ok(Self {
            used: Stored::settled(cluster).await?.used_bytes,
            inline: of_metadata(cluster, "metadata_content_bytes{kind=\"inline\"}").await?,
            of_replicas: OfReplicas::look(cluster.data_dir())?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            used: self.used - before.used,
            inline: self.inline - before.inline,
            of_replicas: self.of_replicas.since(before.of_replicas),
        }
    }
}

/// What leaders of groups tell of themselves; looks again while a group has none, since it would look empty.
async fn of_metadata(cluster: &DevCluster, name: &str) -> anyhow::Result<f64> {
    let begun = Instant::now();
    loop {
        let pages = pages(cluster).await?;
        if are_led(&pages) {
            return Ok(sum(&pages, name));
        }
        ensure!(begun.elapsed() < TOLD_WITHIN, "a group has no leader to tell {name}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn inline_files(cluster: &DevCluster) -> anyhow::Result<f64> {
    of_metadata(cluster, "metadata_inline_contents").await
}

fn content(number: usize) -> Bytes {
    SeededContent::new(SEED.wrapping_add(number as u64), FILE_BYTES).whole()
}

/// In the order of their numbers.
async fn put_all(client: &Client, files: usize) -> anyhow::Result<Vec<Entry>> {
    let done = AtomicUsize::new(0);
    let put = async |number: usize| {
        let target = Target::new_file(format!("/singly/{:04}/{number:07}", number / FOLDER_FILES));
        let bytes = content(number);
        let put = repeated(|| client.put(&target, bytes.clone())).await;
        let (put, _) = put.with_context(|| format!("put file {number}"))?;
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(10 * FOLDER_FILES) {
            println!("{done} of {files} files");
        }
        anyhow::Ok(put.entry)
    };
    stream::iter(0..files).map(put).buffered(AT_ONCE).try_collect().await
}

/// Returns once the metadata tells of all of them; an error when it does not, since then what they take would not be known.
async fn all_inline(cluster: &DevCluster, files: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let inline = inline_files(cluster).await?;
        if inline >= files as f64 {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < TOLD_WITHIN,
            "{inline} of {files} files lie in the metadata: some were packed before the last one was there"
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until no more are packed; how many are left in the metadata.
async fn until_packed(cluster: &DevCluster, files: usize) -> anyhow::Result<f64> {
    let (begun, mut last, mut least) = (Instant::now(), Instant::now(), files as f64);
    loop {
        let left = inline_files(cluster).await?;
        if left <= LEFT || last.elapsed() > PATIENCE {
            println!(
                "{left} of {files} are not packed after {:.0} s",
                begun.elapsed().as_secs_f64()
            );
            return Ok(left);
        }
        if left < least {
            (least, last) = (left, Instant::now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A part of the files, each compared.
async fn read_back(client: &Client, entries: &[Entry]) -> anyhow::Result<()> {
    for (number, entry) in entries.iter().enumerate().step_by(READ_EACH) {
        let bytes = client.get(&entry.id, None).await?.bytes().await?;
        ensure!(bytes == content(number), "file {number} came back altered");
    }
    Ok(())
}

/// Run by `make singly`, and by `make delta` with everything else.
fn judge(seen: &Seen, profile: Profile) -> Vec<Finding> {
    let logical_bytes = seen.files as f64 * FILE_BYTES as f64;
    let kept = |taken: &Taken| match seen.files >= batches::FILES {
        true => taken.used + (taken.of_replicas.log_bytes + taken.of_replicas.state_bytes) as f64,
        // Of few files the log, and what is merged later, are more than all they need.
        false => taken.used + taken.inline * seen.replicas as f64,
    };
    let what = match seen.files >= batches::FILES {
        true => "with metadata",
        false => "without metadata, since they are few",
    };
    let files = seen.files;
    let most = profile.fragments() as f64 / f64::from(profile.k) + MORE_MAX;
    let of_logical = |bytes: f64| bytes / logical_bytes;
    let told = |what: &str, bytes: f64| Finding::told(format!("of logical: {what}"), of_logical(bytes), "");
    vec![
        // Nothing takes less than it holds: the files are noise.
        Finding::between(
            format!("{files} files of {FILE_BYTES} bytes put singly: stored of logical, {what}"),
            of_logical(kept(&seen.singly)),
            "",
            (1.0, SINGLY_MAX),
        ),
        Finding::between(
            format!("the same once packed: stored of logical, {what}"),
            of_logical(kept(&seen.packed)),
            "",
            (1.0, most),
        ),
        Finding::at_most("not packed", seen.left, "files", LEFT),
        Finding::told("put a second", seen.files as f64 / seen.put.as_secs_f64(), "files"),
        told("logs of replicas, singly", seen.singly.of_replicas.log_bytes as f64),
        told("states of replicas, singly", seen.singly.of_replicas.state_bytes as f64),
        told("states of replicas, packed", seen.packed.of_replicas.state_bytes as f64),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::batches;
    use super::super::finding::tests::missed;
    use super::super::stored::OfReplicas;
    use super::{FILE_BYTES, Seen, Taken, epoch_ms, judge};
    use model::profile::ProfileId;
    use std::time::Duration;

    /// For each byte of the files what lies in segments, in one replica's metadata, and in all of what replicas have on their disks.
    fn check(files: usize, singly: [f64; 3], packed: [f64; 3], left: f64, expected: usize) {
        let logical_bytes = (files as u64 * FILE_BYTES) as f64;
        let taken = |of_logical: [f64; 3]| {
            let [used, inline, state_bytes] = of_logical.map(|part| part * logical_bytes);
            Taken {
                used,
                inline,
                of_replicas: OfReplicas {
                    log_bytes: 0,
                    state_bytes: state_bytes as u64,
                },
            }
        };
        let seen = Seen {
            files,
            replicas: 3,
            put: Duration::from_secs(100),
            singly: taken(singly),
            packed: taken(packed),
            left,
        };
        let findings = judge(&seen, ProfileId::Dev.profile());
        assert_eq!(missed(&findings).len(), expected, "{findings:?}");
    }

    #[test]
    fn what_is_three_and_a_half_times_as_much_singly_or_two_times_packed_is_the_most() {
        check(100_000, [0.0, 1.01, 9.0], [1.53, 0.01, 9.0], 3.0, 0);
        check(100_000, [1.53, 1.01, 0.0], [1.53, 0.01, 0.0], 3.0, 1);
        check(100_000, [0.0, 1.01, 0.0], [1.53, 0.2, 0.0], 3.0, 1);
        // Nothing was packed.
        check(100_000, [0.0, 1.01, 0.0], [0.0, 1.01, 0.0], 1e5, 2);
        // Nobody told what it takes.
        check(100_000, [0.0; 3], [0.0; 3], 0.0, 2);
        let many = batches::FILES;
        check(many, [0.0, 1.01, 3.4], [1.53, 0.0, 0.4], 3.0, 0);
        check(many, [0.0, 1.01, 3.6], [1.53, 0.0, 0.5], 3.0, 2);
        check(0, [0.0; 3], [0.0; 3], 0.0, 2);
    }

    #[test]
    fn epochs_are_so_long_that_all_files_are_there_before_one_is_due() {
        assert_eq!(epoch_ms(100_000) * 24 / 1_000, 399);
        assert_eq!(epoch_ms(10), 200);
        assert_eq!(epoch_ms(100_000_000), 60_000);
    }
}
