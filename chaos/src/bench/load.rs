//! The load: whole files of four sizes in and out, and a large folder page by page.
//!
//! Invariants: every file has its own seeded content, so that nothing is saved by dedup; every content that comes back is compared
//! by BLAKE3, every page by its names in order. Only answers that the server calls repeatable are sent again, and counted.

use super::figure::{Direction, Figure, Phase, Sample};
use super::watch::ClusterWatch;
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::table;
use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use futures_util::{StreamExt, TryStreamExt};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const TRIES: u32 = 8;
/// Doubled from try to try, up to sixteen times; a Busy gateway frees a stripe's memory in some ten milliseconds. Guess.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Contents up to this length are sent as one buffer, longer ones as a stream.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
const FOLDERS_AT_ONCE: usize = 64;
const PAGE_ENTRIES: usize = 1_000;
const SWEEPS: usize = 3;
const SHOW_EACH: Duration = Duration::from_millis(500);

/// Files of one size.
#[derive(Clone, Copy)]
struct Workload {
    length_bytes: u64,
    files: usize,
    at_once: usize,
}

const FULL: [Workload; 4] = [
    Workload {
        length_bytes: 1 << 30,
        files: 1,
        at_once: 1,
    },
    Workload {
        length_bytes: 1 << 20,
        files: 512,
        at_once: 16,
    },
    Workload {
        length_bytes: 64 << 10,
        files: 2_000,
        at_once: 64,
    },
    Workload {
        length_bytes: 4 << 10,
        files: 5_000,
        at_once: 64,
    },
];
const QUICK: [Workload; 4] = [
    Workload {
        length_bytes: 64 << 20,
        files: 1,
        at_once: 1,
    },
    Workload {
        length_bytes: 1 << 20,
        files: 32,
        at_once: 16,
    },
    Workload {
        length_bytes: 64 << 10,
        files: 128,
        at_once: 64,
    },
    Workload {
        length_bytes: 4 << 10,
        files: 256,
        at_once: 64,
    },
];
const FULL_FOLDERS: usize = 20_000;
const QUICK_FOLDERS: usize = 2_000;

/// A file of the load.
#[derive(Clone)]
struct Content {
    path: String,
    length_bytes: u64,
    parts: Arc<[Bytes]>,
    digest: blake3::Hash,
}

/// Runs every phase; an error when a call fails or something comes back wrong.
pub(super) async fn run(cluster: &DevCluster, quick: bool, seed: u64) -> anyhow::Result<Vec<Figure>> {
    let client = cluster.client().await?;
    let watch = ClusterWatch::of(cluster);
    let mut figures = Vec::new();
    for (number, workload) in (if quick { QUICK } else { FULL }).into_iter().enumerate() {
        // Far apart, so that no file of one size has the seed of another.
        let first_seed = seed.wrapping_add((number as u64) << 32);
        figures.extend(put_and_get(&client, &watch, workload, first_seed).await?);
    }
    figures.extend(make_and_list(&client, &watch, if quick { QUICK_FOLDERS } else { FULL_FOLDERS }).await?);
    Ok(figures)
}

async fn put_and_get(
    client: &Client,
    watch: &ClusterWatch,
    workload: Workload,
    first_seed: u64,
) -> anyhow::Result<[Figure; 2]> {
    let folder = format!("/bench/{}", workload.length_bytes);
    client
        .make_folder(&folder)
        .await
        .with_context(|| format!("make folder {folder}"))?;
    let contents = tokio::task::spawn_blocking(move || contents(&folder, workload, first_seed)).await?;
    let size = table::bytes(workload.length_bytes);

    let name = format!("PUT {size}");
    let counter = Counter::start(&name, workload.files);
    let phase = Phase::begin(watch, name, Direction::Put, workload.at_once)?;
    let stored: Vec<(Content, String, Sample)> = futures_util::stream::iter(contents)
        .map(|content| spawned(put(client.clone(), content), &counter))
        .buffer_unordered(workload.at_once)
        .try_collect()
        .await?;
    let samples: Vec<Sample> = stored.iter().map(|(_, _, sample)| *sample).collect();
    let put_figure = phase.end(&samples)?;
    counter.stop(&put_figure);

    let name = format!("GET {size}");
    let counter = Counter::start(&name, workload.files);
    let phase = Phase::begin(watch, name, Direction::Get, workload.at_once)?;
    let samples: Vec<Sample> = futures_util::stream::iter(stored)
        .map(|(content, id, _)| spawned(get(client.clone(), content, id), &counter))
        .buffer_unordered(workload.at_once)
        .try_collect()
        .await?;
    let get_figure = phase.end(&samples)?;
    counter.stop(&get_figure);
    Ok([put_figure, get_figure])
}

fn contents(folder: &str, workload: Workload, first_seed: u64) -> Vec<Content> {
    (0..workload.files)
        .map(|number| {
            let mut seeded = SeededContent::new(first_seed.wrapping_add(number as u64), workload.length_bytes);
            let mut hasher = blake3::Hasher::new();
            let mut parts = Vec::new();
            while let Some(part) = seeded.next_part() {
                hasher.update(&part);
                parts.push(part);
            }
            if workload.length_bytes <= WHOLE_BYTES_MAX {
                let mut whole = BytesMut::new();
                parts.drain(..).for_each(|part| whole.extend_from_slice(&part));
                parts.push(whole.freeze());
            }
            let path = format!("{folder}/{number:05}");
            Content {
                path,
                length_bytes: workload.length_bytes,
                parts: parts.into(),
                digest: hasher.finalize(),
            }
        })
        .collect()
}

/// On a task of its own, so that the load uses every core as the cluster does.
async fn spawned<T: Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
    counter: &Counter,
) -> anyhow::Result<T> {
    let outcome = tokio::spawn(work).await?;
    counter.done.fetch_add(1, Ordering::Relaxed);
    outcome
}

async fn put(client: Client, content: Content) -> anyhow::Result<(Content, String, Sample)> {
    // The folder is there: looking for missing parents is not what is measured.
    let target = Target {
        path: content.path.clone(),
        base_version: None,
        parents: false,
    };
    let begun = Instant::now();
    let (uploaded, repeats) = repeated(|| async {
        match &*content.parts {
            [whole] => client.put(&target, whole.clone()).await,
            _ => {
                let parts = content.parts.clone();
                let stream = futures_util::stream::iter((0..parts.len()).map(move |at| Ok(parts[at].clone())));
                client.put_stream(&target, content.length_bytes, stream).await
            }
        }
    })
    .await
    .with_context(|| format!("put {}", content.path))?;
    let sample = Sample {
        took: begun.elapsed(),
        bytes: content.length_bytes,
        repeats,
    };
    let size = uploaded.entry.size;
    ensure!(
        size == content.length_bytes,
        "{} was stored with {size} bytes",
        content.path
    );
    Ok((content, uploaded.entry.id, sample))
}

async fn get(client: Client, content: Content, id: String) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let (answer, repeats) = repeated(|| client.get(&id, None))
        .await
        .with_context(|| format!("get {}", content.path))?;
    let mut stream = answer.bytes_stream();
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    while let Some(part) = stream.next().await {
        let part = part.with_context(|| format!("get {}", content.path))?;
        hasher.update(&part);
        bytes += part.len() as u64;
    }
    let took = begun.elapsed();
    let is_equal = hasher.finalize() == content.digest;
    ensure!(
        is_equal,
        "{} came back different: {bytes} of {} bytes",
        content.path,
        content.length_bytes
    );
    Ok(Sample { took, bytes, repeats })
}

/// Makes a call until it is answered or refused for good; also says how often it was sent again.
async fn repeated<T, F: Future<Output = Result<T, ClientError>>>(
    mut call: impl FnMut() -> F,
) -> Result<(T, usize), ClientError> {
    let mut repeats = 0;
    loop {
        match call().await {
            Ok(answer) => return Ok((answer, repeats as usize)),
            Err(error) if error.is_retryable() && repeats + 1 < TRIES => {
                tokio::time::sleep(FIRST_PAUSE * (1 << repeats.min(4))).await;
                repeats += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn make_and_list(client: &Client, watch: &ClusterWatch, folders: usize) -> anyhow::Result<[Figure; 2]> {
    let parent = "/bench/many";
    client
        .make_folder(parent)
        .await
        .with_context(|| format!("make folder {parent}"))?;
    let name = "make folder".to_owned();
    let counter = Counter::start(&name, folders);
    let phase = Phase::begin(watch, name, Direction::Metadata, FOLDERS_AT_ONCE)?;
    let samples: Vec<Sample> = futures_util::stream::iter(0..folders)
        .map(|number| spawned(make(client.clone(), folder_path(parent, number)), &counter))
        .buffer_unordered(FOLDERS_AT_ONCE)
        .try_collect()
        .await?;
    let made = phase.end(&samples)?;
    counter.stop(&made);

    let name = format!("page of {PAGE_ENTRIES} of {folders}");
    let counter = Counter::start(&name, SWEEPS * folders.div_ceil(PAGE_ENTRIES));
    let phase = Phase::begin(watch, name, Direction::Metadata, 1)?;
    let mut samples = Vec::new();
    for _ in 0..SWEEPS {
        samples.extend(sweep(client, parent, folders, &counter).await?);
    }
    let listed = phase.end(&samples)?;
    counter.stop(&listed);
    Ok([made, listed])
}

fn folder_path(parent: &str, number: usize) -> String {
    format!("{parent}/{number:05}")
}

async fn make(client: Client, path: String) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let (_, repeats) = repeated(|| client.make_folder(&path))
        .await
        .with_context(|| format!("make folder {path}"))?;
    Ok(Sample {
        took: begun.elapsed(),
        bytes: 0,
        repeats,
    })
}

/// Every page of the folder once, compared.
async fn sweep(client: &Client, parent: &str, folders: usize, counter: &Counter) -> anyhow::Result<Vec<Sample>> {
    let mut samples = Vec::new();
    let mut seen = 0;
    let mut page_token: Option<String> = None;
    loop {
        let begun = Instant::now();
        let call = || client.list(parent, PAGE_ENTRIES, page_token.as_deref());
        let (page, repeats) = repeated(call).await.with_context(|| format!("list {parent}"))?;
        samples.push(Sample {
            took: begun.elapsed(),
            bytes: 0,
            repeats,
        });
        for entry in &page.entries {
            let expected = folder_path("", seen);
            ensure!(
                expected[1..] == entry.name,
                "{} was listed where {} belongs",
                entry.name,
                &expected[1..]
            );
            seen += 1;
        }
        counter.done.fetch_add(1, Ordering::Relaxed);
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
        ensure!(!page.entries.is_empty(), "a page without entries names a next one");
    }
    ensure!(seen == folders, "{folders} folders were made, {seen} are listed");
    Ok(samples)
}

/// The line of a phase under way.
struct Counter {
    done: Arc<AtomicUsize>,
    shown: tokio::task::JoinHandle<()>,
}

impl Counter {
    fn start(name: &str, total: usize) -> Self {
        let done = Arc::new(AtomicUsize::new(0));
        let (name, counted) = (name.to_owned(), done.clone());
        let shown = tokio::spawn(async move {
            // A log file gets the finished line alone.
            while std::io::stdout().is_terminal() {
                print!("\r{name}: {} of {total}", counted.load(Ordering::Relaxed));
                // A terminal that is gone is no reason to fail.
                drop(std::io::stdout().flush());
                tokio::time::sleep(SHOW_EACH).await;
            }
        });
        Self { done, shown }
    }

    fn stop(self, figure: &Figure) {
        let rate = figure.operations_per_s;
        let (name, lead) = (&figure.name, if std::io::stdout().is_terminal() { "\r" } else { "" });
        println!(
            "{lead}{name}: {} in {:.1} s, {rate:.1} a second",
            figure.operations, figure.wall_s
        );
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.shown.abort();
    }
}
