//! The load: whole files of four sizes in and out, and a large folder page by page.
//!
//! Invariants: every file has its own seeded content, so that nothing is saved by dedup; every content that comes back is compared
//! by BLAKE3, every page by its names in order.

use super::calls::{Counter, repeated, spawned};
use super::figure::{Direction, Figure, Phase, Sample};
use super::metadata;
use super::watch::ClusterWatch;
use crate::content::SeededContent;
use crate::table;
use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use client_sdk::client::{Client, Target};
use futures_util::{StreamExt, TryStreamExt};
use std::sync::Arc;
use std::time::Instant;

/// Contents up to this length are sent as one buffer, longer ones as a stream.
const WHOLE_BYTES_MAX: u64 = 1 << 20;
const FOLDERS_AT_ONCE: usize = 64;
const PAGE_ENTRIES: usize = 1_000;
const SWEEPS: usize = 3;

/// Files of one size.
#[derive(Clone, Copy)]
pub(super) struct Workload {
    pub(super) length_bytes: u64,
    pub(super) files: usize,
    pub(super) at_once: usize,
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
/// One file that many read at once: after the first of them it is read from what the gateway keeps.
const HOT: Workload = Workload {
    length_bytes: 4 << 10,
    files: 1,
    at_once: 64,
};
const HOT_FOLDER: &str = "/bench/hot";
const HOT_READS: usize = 40_000;
const QUICK_HOT_READS: usize = 4_000;
const FULL_FOLDERS: usize = 20_000;
const QUICK_FOLDERS: usize = 2_000;

/// A file of the load.
#[derive(Clone)]
pub(super) struct Content {
    path: String,
    length_bytes: u64,
    parts: Arc<[Bytes]>,
    digest: blake3::Hash,
}

/// A file that was put, and its id.
pub(super) struct Stored {
    content: Content,
    id: String,
}

/// The sizes, the large file first.
fn workloads(quick: bool) -> [Workload; 4] {
    if quick { QUICK } else { FULL }
}

/// The row of whole files of this length going in.
pub(super) fn put_row(length_bytes: u64) -> String {
    format!("PUT {}", table::bytes(length_bytes))
}

/// The row of whole files of this length coming out.
pub(super) fn get_row(length_bytes: u64) -> String {
    format!("GET {}", table::bytes(length_bytes))
}

/// Runs every phase; an error when a call fails or something comes back wrong.
pub(super) async fn run(client: &Client, watch: &ClusterWatch, quick: bool, seed: u64) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (number, workload) in workloads(quick).into_iter().enumerate() {
        // Far apart, so that no file of one size has the seed of another.
        let first_seed = seed.wrapping_add((number as u64) << 32);
        figures.extend(put_and_get(client, watch, workload, first_seed).await?);
    }
    figures.push(hot(client, watch, if quick { QUICK_HOT_READS } else { HOT_READS }, seed).await?);
    figures.extend(make_and_list(client, watch, if quick { QUICK_FOLDERS } else { FULL_FOLDERS }).await?);
    Ok(figures)
}

/// The large file alone, in and out.
pub(super) async fn large_file(
    client: &Client,
    watch: &ClusterWatch,
    quick: bool,
    seed: u64,
) -> anyhow::Result<[Figure; 2]> {
    put_and_get(client, watch, workloads(quick)[0], seed).await
}

async fn put_and_get(
    client: &Client,
    watch: &ClusterWatch,
    workload: Workload,
    first_seed: u64,
) -> anyhow::Result<[Figure; 2]> {
    let contents = prepare(client, workload, first_seed).await?;
    let (put_figure, stored) = store(client, watch, workload, contents).await?;
    let get_figure = fetch(client, watch, workload, stored).await?;
    Ok([put_figure, get_figure])
}

/// Makes the folder and the contents of a workload.
pub(super) async fn prepare(client: &Client, workload: Workload, first_seed: u64) -> anyhow::Result<Vec<Content>> {
    let folder = format!("/bench/{}", workload.length_bytes);
    client
        .make_folder(&folder)
        .await
        .with_context(|| format!("make folder {folder}"))?;
    Ok(tokio::task::spawn_blocking(move || contents(&folder, workload, first_seed)).await?)
}

/// The PUT phase.
pub(super) async fn store(
    client: &Client,
    watch: &ClusterWatch,
    workload: Workload,
    contents: Vec<Content>,
) -> anyhow::Result<(Figure, Vec<Stored>)> {
    let name = put_row(workload.length_bytes);
    store_as(client, watch, name, workload.at_once, contents).await
}

/// The same of contents of any lengths.
pub(super) async fn store_as(
    client: &Client,
    watch: &ClusterWatch,
    name: String,
    at_once: usize,
    contents: Vec<Content>,
) -> anyhow::Result<(Figure, Vec<Stored>)> {
    let counter = Counter::start(&name, contents.len());
    let phase = Phase::begin(watch, name, Direction::Put, at_once)?;
    let put: Vec<(Stored, Sample)> = futures_util::stream::iter(contents)
        .map(|content| spawned(put(client.clone(), content), &counter))
        .buffer_unordered(at_once)
        .try_collect()
        .await?;
    let samples: Vec<Sample> = put.iter().map(|(_, sample)| *sample).collect();
    let figure = phase.end(&samples)?;
    counter.stop(&figure);
    Ok((figure, put.into_iter().map(|(stored, _)| stored).collect()))
}

/// The GET phase.
pub(super) async fn fetch(
    client: &Client,
    watch: &ClusterWatch,
    workload: Workload,
    stored: Vec<Stored>,
) -> anyhow::Result<Figure> {
    let name = get_row(workload.length_bytes);
    fetch_as(client, watch, name, workload.at_once, stored).await
}

/// The same of contents of any lengths.
pub(super) async fn fetch_as(
    client: &Client,
    watch: &ClusterWatch,
    name: String,
    at_once: usize,
    stored: Vec<Stored>,
) -> anyhow::Result<Figure> {
    let counter = Counter::start(&name, stored.len());
    let phase = Phase::begin(watch, name, Direction::Get, at_once)?;
    let samples: Vec<Sample> = futures_util::stream::iter(stored)
        .map(|stored| spawned(get(client.clone(), stored.content, stored.id), &counter))
        .buffer_unordered(at_once)
        .try_collect()
        .await?;
    let figure = phase.end(&samples)?;
    counter.stop(&figure);
    Ok(figure)
}

/// One file of `length_bytes` whose content is made while it is sent, so that it needs no memory here.
pub(super) async fn largest_upload(
    client: &Client,
    watch: &ClusterWatch,
    length_bytes: u64,
    seed: u64,
) -> anyhow::Result<Figure> {
    let name = put_row(length_bytes);
    let counter = Counter::start(&name, 1);
    let phase = Phase::begin(watch, name, Direction::Put, 1)?;
    let begun = Instant::now();
    let content = SeededContent::new(seed, length_bytes).stream(|_| ());
    let done = client
        .put_stream(&Target::new_file("/bench/largest"), length_bytes, content)
        .await
        .context("put the largest file")?;
    ensure!(
        done.entry.size == length_bytes,
        "{} of {length_bytes} bytes are acknowledged",
        done.entry.size
    );
    let sample = Sample {
        took: begun.elapsed(),
        bytes: length_bytes,
        repeats: 0,
    };
    let figure = phase.end(&[sample])?;
    counter.stop(&figure);
    Ok(figure)
}

fn contents(folder: &str, workload: Workload, first_seed: u64) -> Vec<Content> {
    (0..workload.files)
        .map(|number| {
            let path = format!("{folder}/{number:05}");
            content(path, workload.length_bytes, first_seed.wrapping_add(number as u64))
        })
        .collect()
}

/// Makes a content that `seed` decides.
pub(super) fn content(path: String, length_bytes: u64, seed: u64) -> Content {
    let mut seeded = SeededContent::new(seed, length_bytes);
    let mut hasher = blake3::Hasher::new();
    let mut parts = Vec::new();
    while let Some(part) = seeded.next_part() {
        hasher.update(&part);
        parts.push(part);
    }
    if length_bytes <= WHOLE_BYTES_MAX {
        let mut whole = BytesMut::new();
        parts.drain(..).for_each(|part| whole.extend_from_slice(&part));
        parts.push(whole.freeze());
    }
    Content {
        path,
        length_bytes,
        parts: parts.into(),
        digest: hasher.finalize(),
    }
}

async fn put(client: Client, content: Content) -> anyhow::Result<(Stored, Sample)> {
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
    let id = uploaded.entry.id;
    Ok((Stored { content, id }, sample))
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

/// One file, read over and over.
async fn hot(client: &Client, watch: &ClusterWatch, reads: usize, seed: u64) -> anyhow::Result<Figure> {
    client
        .make_folder(HOT_FOLDER)
        .await
        .with_context(|| format!("make folder {HOT_FOLDER}"))?;
    let made = contents(HOT_FOLDER, HOT, !seed).pop().context("one content")?;
    let (stored, _) = put(client.clone(), made).await?;
    let name = format!("GET {}, one file", table::bytes(HOT.length_bytes));
    let counter = Counter::start(&name, reads);
    let phase = Phase::begin(watch, name, Direction::Get, HOT.at_once)?;
    let samples: Vec<Sample> = futures_util::stream::iter(0..reads)
        .map(|_| spawned(get(client.clone(), stored.content.clone(), stored.id.clone()), &counter))
        .buffer_unordered(HOT.at_once)
        .try_collect()
        .await?;
    let figure = phase.end(&samples)?;
    counter.stop(&figure);
    Ok(figure)
}

async fn make_and_list(client: &Client, watch: &ClusterWatch, folders: usize) -> anyhow::Result<[Figure; 2]> {
    let parent = "/bench/many";
    let made = metadata::make_folders(client, watch, "make folder", parent, folders, FOLDERS_AT_ONCE).await?;

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
            let expected = metadata::folder_path("", seen);
            ensure!(
                expected[1..] == entry.name,
                "{} was listed where {} belongs",
                entry.name,
                &expected[1..]
            );
            seen += 1;
        }
        counter.count();
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
        ensure!(!page.entries.is_empty(), "a page without entries names a next one");
    }
    ensure!(seen == folders, "{folders} folders were made, {seen} are listed");
    Ok(samples)
}
