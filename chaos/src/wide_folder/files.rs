//! Small files beside a wide folder: what a cluster has to keep, and to scrub, while nobody asks for anything.
//!
//! Invariant: every result of every batch is looked at, so a cluster that rests because the files never came is not measured.
//! Not here: how quickly batches go in (the bench).

use super::{FIRST_PAUSE, LONGEST_PAUSE, PATIENCE, name};
use crate::content::SeededContent;
use anyhow::{Context, ensure};
use api::file_batch::{BatchFile, FileResult};
use bytes::Bytes;
use client_sdk::client::Client;
use std::ops::Range;
use std::time::Instant;

/// They lie in stripes, as a batch stores them.
pub(crate) const FILE_BYTES: u64 = 4 << 10;
pub(crate) const BATCH_FILES: usize = 1_000;
/// All of them lie below it.
pub(super) const FOLDER: &str = "/files";
/// Decides the contents.
const SEED: u64 = 12;

/// Puts the files of these numbers, a thousand in each folder.
pub(super) async fn put(client: &Client, numbers: Range<usize>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (count, mut first) = (numbers.len(), numbers.start);
    while first < numbers.end {
        // No batch reaches into the next folder, wherever it begins.
        let batch = (BATCH_FILES - first % BATCH_FILES).min(numbers.end - first);
        put_some(client, first, batch).await?;
        first += batch;
    }
    println!(
        "{count} files of {FILE_BYTES} bytes in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// An error unless the first `count` files are all listed where they were put, and nothing else.
pub(super) async fn check(client: &Client, count: usize) -> anyhow::Result<()> {
    for first in (0..count).step_by(BATCH_FILES) {
        let folder = folder_of(first);
        let listing = client.list(&folder, BATCH_FILES, None).await?;
        let expected: Vec<String> = (first..count.min(first + BATCH_FILES)).map(name).collect();
        ensure!(
            listing.next_page_token.is_none() && listing.entries.iter().map(|entry| &entry.name).eq(&expected),
            "{folder} does not list its {} files",
            expected.len()
        );
    }
    Ok(())
}

fn folder_of(number: usize) -> String {
    format!("{FOLDER}/{:04}", number / BATCH_FILES)
}

/// Puts the files from `first` on in one batch, at most a thousand; every one is there on return.
pub(crate) async fn put_some(client: &Client, first: usize, count: usize) -> anyhow::Result<()> {
    let batch = tokio::task::spawn_blocking(move || batch(first, count)).await?;
    for result in put_batch(client, &batch).await? {
        let is_there = match &result {
            FileResult::Stored(stored) => stored.entry.size == FILE_BYTES,
            // A try before was applied though its answer did not come.
            FileResult::Refused(refused) => refused.problem.code == "name_taken",
        };
        ensure!(is_there, "a file of a batch is not there: {result:?}");
    }
    Ok(())
}

fn batch(first: usize, count: usize) -> Vec<(BatchFile, Bytes)> {
    let file = |number: usize| {
        let content = SeededContent::new(SEED.wrapping_add(number as u64), FILE_BYTES).next_part();
        let file = BatchFile {
            path: Some(format!("{}/{}", folder_of(first), name(number))),
            parents: true,
            ..BatchFile::default()
        };
        (file, content.unwrap_or_default())
    };
    (first..first + count).map(file).collect()
}

/// Puts the files of a batch, again when the server says so; gives the result of each.
pub(crate) async fn put_batch(client: &Client, batch: &[(BatchFile, Bytes)]) -> anyhow::Result<Vec<FileResult>> {
    let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        match client.create_batch(batch, false).await {
            Ok(results) => {
                ensure!(
                    results.len() == batch.len(),
                    "{} of {} results",
                    results.len(),
                    batch.len()
                );
                return Ok(results);
            }
            Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error).context("put a batch"),
        }
    }
}
