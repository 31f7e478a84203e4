//! A folder with a million children: made one by one over HTTP, listed page by page, moved about as a whole, and left alone; all timed.
//!
//! Shows the scale of SC-in-3, N5, N12 and NF-scale-1 that `make test` cannot afford. Every page is compared with what must be in it,
//! so a page that is quick because it is wrong fails. A tree of files, put in by batches, is moved about too: once when it has ten
//! thousand, and at the end when it has a million, so that the cluster rests beside fewer. Passes when what `pages`, `whole` and `rest`
//! ask holds.
//! Not here: files in the wide folder (a listing shows both alike) and several readers at once (the bench).

pub(crate) mod files;
mod pages;
pub(crate) mod rest;
mod whole;

use crate::dev_cluster::DevCluster;
use crate::table;
use anyhow::{Context, ensure};
use api::entry::Entry;
use clap::Parser;
use client_sdk::client::Client;
use client_sdk::error::ClientError;
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const FOLDER: &str = "/wide";
const PAGE_ENTRIES: usize = 1_000;
/// Of the smaller tree that N5 and TST-4 name.
const MOVED_FILES: usize = 10_000;
/// The first sweep may meet cold caches, the second shows what stays.
const SWEEPS: usize = 2;
/// A cluster on a machine that has other work too refuses for a while; one that refuses for so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const SHOW_EACH: usize = 100_000;

/// Arguments of the measurement.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success.
    #[arg(long, default_value = "target/wide-folder")]
    data_dir: PathBuf,
    /// How many children the folder gets.
    #[arg(long, default_value_t = 1_000_000)]
    children: usize,
    /// How many of them are made at once.
    #[arg(long, default_value_t = 128)]
    at_once: usize,
    /// How many small files are there too while it rests; ten thousand at least.
    #[arg(long, default_value_t = 150_000)]
    files: usize,
    /// How many of them there are when their tree is moved about at the end; as many as N5 asks.
    #[arg(long, default_value_t = 1_000_000)]
    moved_files: usize,
    /// For how many seconds the cluster is watched at rest afterwards.
    #[arg(long, default_value_t = 600)]
    rest: u64,
}

/// Fills, lists and judges; an error when a call fails, a page is wrong or something takes longer or more than it may.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &[], async |cluster| {
        all(cluster, &cluster.client().await?, &arguments).await
    })
    .await
}

async fn all(cluster: &DevCluster, client: &Client, arguments: &Arguments) -> anyhow::Result<()> {
    let folder = measure(client, arguments).await?;
    println!("the folder of {} children as a whole", arguments.children);
    let rows = whole::measure(client, &folder, arguments.children).await?;
    print!("{}", table::render(&rows));
    // Whatever was done with the folder, all is still there.
    sweep(client, arguments.children).await?;
    rest::disk(cluster.data_dir(), arguments.children)?;
    files::put(client, 0..MOVED_FILES).await?;
    tree(client, MOVED_FILES).await?;
    files::put(client, MOVED_FILES..arguments.files).await?;
    rest::idle(cluster, Duration::from_secs(arguments.rest)).await?;
    let (there, moved) = (arguments.files.max(MOVED_FILES), arguments.moved_files);
    if moved <= there {
        println!("{moved} FILES ARE LESS THAN ARE THERE ALREADY: NO LARGER TREE IS MOVED ABOUT");
        return Ok(());
    }
    files::put(client, there..moved).await?;
    tree(client, moved).await
}

/// Does with the tree of so many files what can be done with one as a whole; all of them are there afterwards.
async fn tree(client: &Client, count: usize) -> anyhow::Result<()> {
    let folder = client.list(files::FOLDER, 1, None).await?.entry;
    println!("a tree of {count} files as a whole, beside the other one");
    print!("{}", table::render(&whole::measure(client, &folder, count).await?));
    files::check(client, count).await
}

/// Run by `make wide-folder`; how deep a tree may be, and that a page is sorted and tagged, is shown in tests/cluster.
///
/// shows: SC-in-3, H-API-1
async fn measure(client: &Client, arguments: &Arguments) -> anyhow::Result<Entry> {
    let begun = Instant::now();
    let folder = fill(client, arguments).await?;
    let took = begun.elapsed().as_secs_f64();
    let rate = arguments.children as f64 / took;
    println!("{} children in {took:.0} s, {rate:.0} a second", arguments.children);
    let mut sweeps = Vec::new();
    for _ in 0..SWEEPS {
        sweeps.push(sweep(client, arguments.children).await?);
    }
    pages::judge(&sweeps)?;
    Ok(folder)
}

fn name(number: usize) -> String {
    format!("{number:08}")
}

/// Gives the folder.
async fn fill(client: &Client, arguments: &Arguments) -> anyhow::Result<Entry> {
    let folder = client.make_folder(FOLDER).await?;
    let (next, children) = (Arc::new(AtomicUsize::new(0)), arguments.children);
    let stride = stride(children);
    let makers = (0..arguments.at_once).map(|_| {
        let (client, parent, next) = (client.clone(), folder.id.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let turn = next.fetch_add(1, Ordering::Relaxed);
                if turn >= children {
                    return anyhow::Ok(());
                }
                // Not in the order of names, as no user makes them.
                make(&client, &parent, &name(turn * stride % children)).await?;
                if turn > 0 && turn.is_multiple_of(SHOW_EACH) {
                    println!("{turn} children");
                }
            }
        })
    });
    let makers: Vec<_> = makers.collect();
    for maker in makers {
        maker.await??;
    }
    Ok(folder)
}

/// A number that shares no factor with `children`, so that its multiples visit every remainder once.
fn stride(children: usize) -> usize {
    let shares_factor = |number: usize| {
        let (mut one, mut other) = (number, children);
        while other != 0 {
            (one, other) = (other, one % other);
        }
        one != 1
    };
    // Near the golden section, so that neighbours in time lie far apart in the folder.
    let first = (children * 618 / 1_000).max(1);
    (first..).find(|number| !shares_factor(*number)).unwrap_or(1)
}

async fn make(client: &Client, parent: &str, name: &str) -> anyhow::Result<()> {
    let wanted = json!({"type": "folder", "parent": parent, "name": name});
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let is_first = pause == FIRST_PAUSE;
        match client.json(Method::POST, "/api/v1/metadata", Some(&wanted)).await {
            Ok(_) => return Ok(()),
            // The first try was applied though its answer did not come.
            Err(ClientError::Refused { code, .. }) if !is_first && code == "name_taken" => return Ok(()),
            Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error).with_context(|| format!("make {name}")),
        }
    }
}

/// Every page of the folder once, compared; how long each took.
async fn sweep(client: &Client, children: usize) -> anyhow::Result<Vec<Duration>> {
    let (mut pages, mut seen) = (Vec::new(), 0);
    let mut token: Option<String> = None;
    loop {
        let begun = Instant::now();
        let page = client.list(FOLDER, PAGE_ENTRIES, token.as_deref()).await?;
        pages.push(begun.elapsed());
        for entry in &page.entries {
            ensure!(
                entry.name == name(seen),
                "{} is listed where {} belongs",
                entry.name,
                name(seen)
            );
            seen += 1;
        }
        token = page.next_page_token;
        if token.is_none() {
            break;
        }
    }
    ensure!(seen == children, "{children} children were made, {seen} are listed");
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::stride;
    use std::collections::BTreeSet;

    #[test]
    fn the_stride_visits_every_child_once() {
        for children in [1, 2, 10, 999, 1_000, 4_096] {
            let stride = stride(children);
            let visited: BTreeSet<usize> = (0..children).map(|turn| turn * stride % children).collect();
            assert_eq!(visited.len(), children);
        }
    }
}
