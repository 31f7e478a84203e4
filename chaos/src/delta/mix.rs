//! The mix of few large files and many small ones, sent in batches: what it takes on the disks above what its profile takes (C-7).
//!
//! The files are those of the bench, of noise, so that nothing is gained by compressing or finding them. All that fit go in by
//! batches, the large ones by uploads of their own; every file is read back and compared.
//! Not here: how quickly the mix goes in and comes out (`bench`), what a cold tier makes of it.

use super::finding::Finding;
use super::stored::{OfReplicas, Stored};
use crate::bench::mix::{FULL, lengths};
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::wide_folder::files::put_batch;
use anyhow::{Context, bail, ensure};
use api::entry::Entry;
use api::file_batch::{BatchFile, FileResult};
use client_sdk::client::{Client, Target};
use futures_util::StreamExt;
use model::limits::{BATCH_BYTES_MAX, BATCH_FILES_MAX};
use model::profile::Profile;

/// C-7: above k+m over k.
const OVER_PERCENT_MAX: f64 = 3.0;
/// Noise takes no less: where it does, files lie elsewhere or are not counted. A hundredth is room for those of a few bytes.
const UNDER_PERCENT_MAX: f64 = 1.0;
/// Longer ones go in alone.
const IN_BATCH_BYTES_MAX: u64 = 2 << 20;

/// What the mix takes, in bytes.
#[derive(Clone, Copy, Debug)]
struct Taken {
    logical: f64,
    /// Of the nodes' segments.
    used: f64,
    /// Of the fragments, as groups count them.
    fragments: f64,
    of_replicas: OfReplicas,
}

/// Puts the mix, looks what has come onto the disks, and reads it back.
pub(super) async fn measure(cluster: &DevCluster, seed: u64) -> anyhow::Result<Vec<Finding>> {
    let profile = cluster.facts.profile_id()?.profile();
    let client = cluster.client().await?;
    let lengths = lengths(FULL);
    let (before, replicas_before) = (Stored::settled(cluster).await?, OfReplicas::look(cluster.data_dir())?);
    let mut files = Vec::new();
    for batch in batches(&lengths) {
        files.extend(put(&client, &batch, &lengths, seed).await?);
    }
    let (after, replicas_after) = (Stored::settled(cluster).await?, OfReplicas::look(cluster.data_dir())?);
    ensure!(
        files.len() == lengths.len(),
        "{} of {} files went in",
        files.len(),
        lengths.len()
    );
    for (number, entry) in &files {
        read(&client, entry, seed.wrapping_add(*number as u64), lengths[*number]).await?;
    }
    let taken = Taken {
        logical: lengths.iter().sum::<u64>() as f64,
        used: after.used_bytes - before.used_bytes,
        fragments: after.fragment_bytes - before.fragment_bytes,
        of_replicas: replicas_after.since(replicas_before),
    };
    Ok(judge(&taken, profile))
}

/// The numbers of the files of each batch, in their order; a file that is too long for one stands alone.
fn batches(lengths: &[u64]) -> Vec<Vec<usize>> {
    let (mut batches, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
    for (number, length) in lengths.iter().enumerate() {
        if *length > IN_BATCH_BYTES_MAX {
            batches.push(vec![number]);
            continue;
        }
        if bytes + length > BATCH_BYTES_MAX as u64 || batch.len() == BATCH_FILES_MAX {
            batches.push(std::mem::take(&mut batch));
            bytes = 0;
        }
        batch.push(number);
        bytes += length;
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Puts the files of a batch, each with what it is now.
async fn put(client: &Client, batch: &[usize], lengths: &[u64], seed: u64) -> anyhow::Result<Vec<(usize, Entry)>> {
    let path = |number: usize| format!("/mix/{number:05}");
    let content = |number: usize| SeededContent::new(seed.wrapping_add(number as u64), lengths[number]);
    if let [number] = batch
        && lengths[*number] > IN_BATCH_BYTES_MAX
    {
        let target = Target::new_file(path(*number));
        let stream = content(*number).stream(|_| ());
        let put = client.put_stream(&target, lengths[*number], stream).await;
        let put = put.with_context(|| format!("put file {number}"))?;
        return Ok(vec![(*number, put.entry)]);
    }
    let file = |number: &usize| {
        let file = BatchFile {
            path: Some(path(*number)),
            parents: true,
            ..BatchFile::default()
        };
        (file, content(*number).whole())
    };
    let files: Vec<_> = batch.iter().map(file).collect();
    let mut stored = Vec::new();
    for (number, result) in batch.iter().zip(put_batch(client, &files).await?) {
        let FileResult::Stored(done) = result else {
            bail!("file {number} of a batch is not there: {result:?}");
        };
        stored.push((*number, done.entry));
    }
    Ok(stored)
}

async fn read(client: &Client, entry: &Entry, seed: u64, length: u64) -> anyhow::Result<()> {
    let mut stream = client.get(&entry.id, None).await?.bytes_stream();
    let mut found = blake3::Hasher::new();
    while let Some(part) = stream.next().await {
        found.update(&part.with_context(|| format!("read {}", entry.path))?);
    }
    let expected = tokio::task::spawn_blocking(move || SeededContent::new(seed, length).digest()).await?;
    ensure!(found.finalize() == expected, "{} came back altered", entry.path);
    Ok(())
}

/// Run by `make delta`.
fn judge(taken: &Taken, profile: Profile) -> Vec<Finding> {
    let of_profile = profile.fragments() as f64 / f64::from(profile.k);
    let over = |bytes: f64| bytes * 100.0 / (taken.logical * of_profile) - 100.0;
    let of_metadata = (taken.of_replicas.log_bytes + taken.of_replicas.state_bytes) as f64;
    vec![
        Finding::between(
            "mix in batches: on disks over what the profile takes",
            over(taken.used),
            "%",
            (-UNDER_PERCENT_MAX, OVER_PERCENT_MAX),
        ),
        Finding::told("mix: fragments over what the profile takes", over(taken.fragments), "%"),
        Finding::told("mix: disks of nodes of logical", taken.used / taken.logical, ""),
        Finding::told(
            "mix: logs and states of replicas of logical",
            of_metadata / taken.logical,
            "",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::super::stored::OfReplicas;
    use super::{BATCH_BYTES_MAX, BATCH_FILES_MAX, FULL, IN_BATCH_BYTES_MAX, Taken, batches, judge, lengths};
    use model::profile::ProfileId;

    /// For each byte of the mix what lies on the disks.
    fn check(logical: f64, of_logical: f64, expected: usize) {
        let taken = Taken {
            logical,
            used: logical * of_logical,
            fragments: logical * of_logical,
            of_replicas: OfReplicas::default(),
        };
        assert_eq!(
            missed(&judge(&taken, ProfileId::Dev.profile())).len(),
            expected,
            "{of_logical}"
        );
    }

    #[test]
    fn three_percent_above_the_profile_is_the_most_and_less_than_it_is_not_all() {
        check(1e9, 1.5, 0);
        check(1e9, 1.5449, 0);
        check(1e9, 1.5451, 1);
        check(1e9, 1.48, 1);
        check(1e9, 0.0, 1);
        check(0.0, 1.5, 1);
    }

    #[test]
    fn every_file_of_the_mix_is_in_one_batch_and_no_batch_is_too_large() {
        let lengths = lengths(FULL);
        let batches = batches(&lengths);
        let mut all: Vec<usize> = batches.concat();
        all.sort_unstable();
        assert_eq!(all, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let bytes: u64 = batch.iter().map(|number| lengths[*number]).sum();
            let is_alone = batch.len() == 1 && bytes > IN_BATCH_BYTES_MAX;
            let fits = bytes <= BATCH_BYTES_MAX as u64 && batch.len() <= BATCH_FILES_MAX;
            assert!(is_alone || fits, "{} files of {bytes} bytes", batch.len());
        }
        assert_eq!(batches.iter().filter(|batch| batch.len() == 1).count() as u64, FULL.1);
    }
}
