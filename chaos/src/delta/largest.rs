//! A file of the largest length: how long its commit takes when all of it has been staged, by either way of staging.
//!
//! 1. A resumable upload that does not tell its length: chunks bring the content, and what is timed is the request that names the
//!    length and brings nothing.
//! 2. Lists of the same blocks in another order: nothing is sent, and what is timed is the commit. The first list makes each of its
//!    pages, the others find them in the drive.
//!
//! Invariant: a commit counts only when the file that it gives has the length that was meant.
//! Not here: whether so long a file comes back whole (`largest_file`).

use super::finding::{Finding, median};
use super::lists::propose;
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::table;
use anyhow::{Context, ensure};
use api::sync::BlocksQuery;
use api::upload::{UploadProgress, Uploaded};
use bytes::Bytes;
use client_sdk::client::Client;
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Bytes of one chunk.
const CHUNK_BYTES: u64 = 1 << 30;
/// Blocks of one page of a list.
const LIST_PAGE: u32 = 1_000;
/// Lists that are proposed and committed.
const LISTS: usize = 5;
const COMMIT_MS_MAX: f64 = 50.0;
const PROPOSE_MS_MAX: f64 = 100.0;
const PATH: &str = "/largest.bin";

/// What was timed.
#[derive(Clone, Debug, Default)]
struct Taken {
    resumable_commit: Duration,
    /// Of lists of blocks that are all there.
    proposes: Vec<Duration>,
    /// Of the list whose pages are new.
    first_commit: Duration,
    /// Of lists whose pages are there.
    commits: Vec<Duration>,
}

/// Stages `bytes`, commits, and commits lists of the same blocks.
///
/// Run by `make delta`.
pub(super) async fn measure(cluster: &DevCluster, bytes: u64, seed: u64) -> anyhow::Result<Vec<Finding>> {
    let client = cluster.client().await?;
    let (done, resumable_commit) = staged(&client, bytes, seed).await?;
    let mut blocks = blocks_of(&client, &done.entry.id).await?;
    // The last one may be shorter than a block within a content is.
    let last_bytes = u64::from(blocks.pop().context("a file has blocks")?.1);
    blocks.reverse();
    let digests: Vec<String> = blocks.into_iter().map(|(digest, _)| digest).collect();
    println!("{PATH} has {} blocks", digests.len() + 1);
    let mut taken = Taken {
        resumable_commit,
        ..Taken::default()
    };
    for number in 0..LISTS {
        let path = format!("/reversed-{number}.bin");
        let (took, missing, upload) = propose(&client, &path, digests.clone()).await?;
        ensure!(missing.is_empty(), "{} blocks of a file are missing", missing.len());
        taken.proposes.push(took);
        let begun = Instant::now();
        let done = client
            .commit("new", &upload)
            .await
            .with_context(|| format!("commit {path}"))?;
        let took = begun.elapsed();
        ensure!(done.entry.size == bytes - last_bytes, "{path} has another length");
        match number {
            0 => taken.first_commit = took,
            _ => taken.commits.push(took),
        }
    }
    Ok(judge(&table::bytes(bytes), &taken))
}

/// Uploads all of a content, then commits it; how long that took.
async fn staged(client: &Client, bytes: u64, seed: u64) -> anyhow::Result<(Uploaded, Duration)> {
    let begin = "/api/v1/files/upload?uploadType=resumable";
    let begun = client.json(Method::POST, begin, Some(&json!({"path": PATH}))).await?;
    let upload = begun.get("upload_id").and_then(Value::as_str);
    let address = format!("/upload/{}", upload.context("an upload that has begun has an id")?);
    let mut first = 0;
    while first < bytes {
        let length = CHUNK_BYTES.min(bytes - first);
        let content = SeededContent::new(seed.wrapping_add(first), length).stream(|_| ());
        let begun = Instant::now();
        let answer = client
            .request(Method::PUT, &address)
            .header(CONTENT_RANGE, format!("bytes {first}-{}/*", first + length - 1))
            .header(CONTENT_LENGTH, length)
            // 200 instead of 308, which a client of HTTP may take for an address to go to.
            .header("X-GUploader-No-308", "yes")
            .body(reqwest::Body::wrap_stream(content))
            .send()
            .await?;
        let progress: UploadProgress = answer.error_for_status().context("stage a chunk")?.json().await?;
        first += length;
        ensure!(progress.size == first, "{} of {first} bytes are staged", progress.size);
        println!(
            "{} of {} staged, {:.0} MB/s",
            table::bytes(first),
            table::bytes(bytes),
            length as f64 / begun.elapsed().as_secs_f64() / 1e6
        );
    }
    let begun = Instant::now();
    let answer = client
        .request(Method::PUT, &address)
        .header(CONTENT_RANGE, format!("bytes */{bytes}"))
        .header(CONTENT_LENGTH, 0)
        .body(Bytes::new())
        .send()
        .await?;
    let done: Uploaded = answer
        .error_for_status()
        .context("commit what was staged")?
        .json()
        .await?;
    let took = begun.elapsed();
    ensure!(done.entry.size == bytes, "{PATH} has another length");
    Ok((done, took))
}

/// Digests and lengths, in order.
async fn blocks_of(client: &Client, id: &str) -> anyhow::Result<Vec<(String, u32)>> {
    let mut query = BlocksQuery {
        limit: Some(LIST_PAGE),
        ..BlocksQuery::default()
    };
    let mut blocks = Vec::new();
    loop {
        let part = client.blocks(id, &query).await.context("list blocks")?;
        let told = part.blocks.context("a list has blocks")?;
        blocks.extend(told.into_iter().map(|block| (block.digest, block.size)));
        query.page_token = part.next_page_token;
        if query.page_token.is_none() {
            return Ok(blocks);
        }
    }
}

fn judge(length: &str, taken: &Taken) -> Vec<Finding> {
    let ms = |took: &Duration| took.as_secs_f64() * 1e3;
    let commit = |said: &str, ms: f64| {
        let what = format!("commit of {length} after staging, {said}");
        Finding::at_most(what, ms, "ms", COMMIT_MS_MAX)
    };
    vec![
        commit("resumable", ms(&taken.resumable_commit)),
        commit("by a list, every page new", ms(&taken.first_commit)),
        commit(
            "by a list, every page known, median",
            median(taken.commits.iter().map(ms)),
        ),
        Finding::at_most(
            format!("propose of the blocks of {length}, median"),
            median(taken.proposes.iter().map(ms)),
            "ms",
            PROPOSE_MS_MAX,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::{Taken, judge};
    use std::time::Duration;

    /// Milliseconds of the resumable commit, of the first list's, of the others', of the proposes.
    fn check(taken_ms: (u64, u64, &[u64], &[u64]), expected: &[&str]) {
        let all = |ms: &[u64]| ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        let taken = Taken {
            resumable_commit: Duration::from_millis(taken_ms.0),
            first_commit: Duration::from_millis(taken_ms.1),
            commits: all(taken_ms.2),
            proposes: all(taken_ms.3),
        };
        assert_eq!(missed(&judge("it", &taken)), expected);
    }

    #[test]
    fn each_commit_and_each_propose_is_held_against_its_limit() {
        let resumable = "commit of it after staging, resumable";
        let first = "commit of it after staging, by a list, every page new";
        let known = "commit of it after staging, by a list, every page known, median";
        let propose = "propose of the blocks of it, median";
        check((50, 50, &[50, 50, 300], &[100, 100, 300]), &[]);
        check((51, 50, &[50], &[100]), &[resumable]);
        check((50, 51, &[50], &[100]), &[first]);
        check((50, 50, &[50, 51], &[100]), &[known]);
        check((50, 50, &[50], &[101]), &[propose]);
        check((0, 0, &[], &[]), &[known, propose]);
    }
}
