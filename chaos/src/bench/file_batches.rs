//! Batches of a thousand small files: how many files a second go in together.
//!
//! Invariant: every file has its own seeded content, and every result of every batch is looked at.

use super::calls::{Counter, repeated, spawned};
use super::figure::{Direction, Figure, Phase, Sample};
use super::watch::ClusterWatch;
use crate::content::SeededContent;
use anyhow::{Context, ensure};
use api::file_batch::{BatchFile, FileResult};
use bytes::Bytes;
use client_sdk::client::Client;
use futures_util::{StreamExt, TryStreamExt};
use std::time::Instant;

/// The row that the goal is held against.
pub(super) const BATCHED: &str = "files of 4.0 KiB, 1,000 a batch";
const FILE_BYTES: u64 = 4 << 10;
const BATCH_FILES: usize = 1_000;
const FULL_BATCHES: usize = 30;
const QUICK_BATCHES: usize = 2;
/// One is sent while another is committed.
const AT_ONCE: usize = 2;
const FOLDER: &str = "/bench/batches";

type Contents = Vec<(BatchFile, Bytes)>;

/// Puts the batches; a sample for each file, which took as long as its batch.
pub(super) async fn run(client: &Client, watch: &ClusterWatch, quick: bool, seed: u64) -> anyhow::Result<Figure> {
    client.make_folder(FOLDER).await.context("make the folder of batches")?;
    let count = if quick { QUICK_BATCHES } else { FULL_BATCHES };
    let batches = tokio::task::spawn_blocking(move || (0..count).map(|number| contents(number, seed)).collect());
    let batches: Vec<Contents> = batches.await?;
    let counter = Counter::start(BATCHED, count);
    let phase = Phase::begin(watch, BATCHED.to_owned(), Direction::Put, AT_ONCE)?;
    let taken: Vec<Vec<Sample>> = futures_util::stream::iter(batches)
        .map(|batch| spawned(put(client.clone(), batch), &counter))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let figure = phase.end(&taken.concat())?;
    counter.stop(&figure);
    Ok(figure)
}

fn contents(number: usize, seed: u64) -> Contents {
    let file = |at: usize| {
        let index = (number * BATCH_FILES + at) as u64;
        let content = SeededContent::new(seed.wrapping_add(index), FILE_BYTES).next_part();
        let file = BatchFile {
            path: Some(format!("{FOLDER}/{index:06}")),
            ..BatchFile::default()
        };
        (file, content.unwrap_or_default())
    };
    (0..BATCH_FILES).map(file).collect()
}

async fn put(client: Client, batch: Contents) -> anyhow::Result<Vec<Sample>> {
    let begun = Instant::now();
    let (results, repeats) = repeated(|| client.create_batch(&batch, false))
        .await
        .context("put a batch")?;
    let took = begun.elapsed();
    ensure!(
        results.len() == batch.len(),
        "{} of {} results",
        results.len(),
        batch.len()
    );
    for result in &results {
        match result {
            FileResult::Stored(stored) => ensure!(stored.entry.size == FILE_BYTES, "{stored:?}"),
            FileResult::Refused(refused) => anyhow::bail!("a file of a batch was refused: {refused:?}"),
        }
    }
    let sample = Sample {
        took,
        bytes: FILE_BYTES,
        repeats: 0,
    };
    let mut samples = vec![sample; results.len()];
    samples[0].repeats = repeats;
    Ok(samples)
}
