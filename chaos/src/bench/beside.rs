//! Metadata beside uploads: 200 calls a second, listing, looking and renaming in turn, while files go in without a pause.
//!
//! Invariant: a call begins at its time, however many are under way, and its time is counted from when it was due; so a server that
//! makes callers wait is not asked less for it.
//! Not here: calls while content is rebuilt.

use super::calls::{Counter, repeated};
use super::figure::{Direction, Figure, Phase, Sample};
use super::watch::ClusterWatch;
use crate::content::SeededContent;
use anyhow::{Context, ensure};
use client_sdk::client::{Client, Target};
use reqwest::Method;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The row that the goal is held against.
pub(super) const NAME: &str = "list, look, rename beside uploads";
const A_SECOND: u32 = 200;
const FULL_LASTS: Duration = Duration::from_secs(20);
const QUICK_LASTS: Duration = Duration::from_secs(2);
const UPLOADERS: usize = 2;
const UPLOAD_BYTES: u64 = 16 << 20;
const PARENT: &str = "/bench/beside";
const FOLDERS: usize = 300;
const PAGE_ENTRIES: usize = 100;

/// The report holds the p99 against its goal of 100 ms; a bench that misses a goal says so, and fails where all are required. Where no
/// upload came to its end meanwhile, the figure has no bytes and says nothing of that goal.
///
/// shows: NF-meta side=beside-uploads scale=1/2
pub(super) async fn run(client: &Client, watch: &ClusterWatch, quick: bool, seed: u64) -> anyhow::Result<Figure> {
    client
        .make_folder(PARENT)
        .await
        .with_context(|| format!("make {PARENT}"))?;
    let mut ids = Vec::new();
    for number in 0..FOLDERS {
        ids.push(client.make_folder(&format!("{PARENT}/{number:05}")).await?.id);
    }
    let (mut uploads, uploaded) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    for number in 0..UPLOADERS {
        uploads.spawn(upload(client.clone(), number, seed, Arc::clone(&uploaded)));
    }
    let lasts = if quick { QUICK_LASTS } else { FULL_LASTS };
    let total = (lasts.as_secs_f64() * f64::from(A_SECOND)) as usize;
    let counter = Counter::start(NAME, total);
    let phase = Phase::begin(watch, NAME.to_owned(), Direction::Metadata, 1)?;
    let (begun, mut calls) = (Instant::now(), JoinSet::new());
    let uploaded_before = uploaded.load(Ordering::Relaxed);
    for number in 0..total {
        let due = Duration::from_secs(1) / A_SECOND * u32::try_from(number)?;
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
        let (client, id) = (client.clone(), ids[number % FOLDERS].clone());
        calls.spawn(async move {
            let repeats = call(&client, number, &id).await?;
            let took = begun.elapsed().saturating_sub(due);
            anyhow::Ok(Sample {
                took,
                bytes: 0,
                repeats,
            })
        });
    }
    let mut samples = Vec::new();
    while let Some(done) = calls.join_next().await {
        samples.push(done??);
        counter.count();
    }
    let mut figure = phase.end(&samples)?;
    figure.bytes = uploaded.load(Ordering::Relaxed) - uploaded_before;
    figure.bytes_per_s = figure.bytes as f64 / figure.wall_s;
    counter.stop(&figure);
    // They go on until they are stopped, so one that has ended has failed.
    if let Some(ended) = uploads.try_join_next() {
        ended??;
    }
    Ok(figure)
}

/// The call of this number; how often it was sent again.
async fn call(client: &Client, number: usize, id: &str) -> anyhow::Result<usize> {
    let at = number % FOLDERS;
    let repeats = match number % 3 {
        0 => {
            let (page, repeats) = repeated(|| client.list(PARENT, PAGE_ENTRIES, None))
                .await
                .context("list")?;
            ensure!(
                page.entries.len() == PAGE_ENTRIES,
                "a page of {} entries",
                page.entries.len()
            );
            repeats
        }
        1 => {
            let path = format!("{PARENT}/{at:05}");
            // Those whose number says so are never renamed.
            let (_, repeats) = repeated(|| client.list(&path, 1, None)).await.context("look")?;
            repeats
        }
        _ => {
            let wanted = json!({"name": format!("{at:05} {number}")});
            let path = format!("/api/v1/metadata/{id}");
            let (_, repeats) = repeated(|| client.json(Method::PATCH, &path, Some(&wanted)))
                .await
                .context("rename")?;
            repeats
        }
    };
    Ok(repeats)
}

/// Files of one uploader, one after the other; counts the bytes of those that are acknowledged.
async fn upload(client: Client, uploader: usize, seed: u64, uploaded: Arc<AtomicU64>) -> anyhow::Result<()> {
    for number in 0_u64.. {
        let target = Target::new_file(format!("{PARENT}-{uploader}/{number}"));
        let of_file = seed.wrapping_add(number << 8).wrapping_add(uploader as u64);
        let sent = repeated(|| {
            let content = SeededContent::new(of_file, UPLOAD_BYTES).stream(|_| ());
            client.put_stream(&target, UPLOAD_BYTES, content)
        });
        sent.await.context("put beside the calls")?;
        uploaded.fetch_add(UPLOAD_BYTES, Ordering::Relaxed);
    }
    Ok(())
}
