//! The demo: real input, two nodes and a leader lost midway, every byte read back.
//!
//! A directory tree of the host and one large seeded file go in over HTTP, into a cluster of separate processes. At 30 % and 60 % of
//! the bytes a storage node of another region is killed, at 45 % the process that leads the group of the drive; they stay dead while
//! every file is read back and compared by hash, and names and counts by listing. With `--one-process` the nodes are stopped by
//! `admin` calls instead, and the leader stays.
//! Invariant: it fails on any difference, and also when no hand-off, degraded write, rebuilt read or election was seen, since then
//! it would have proven nothing.

use crate::content::SeededContent;
use crate::dev_cluster::{DevCluster, wipe};
use crate::meter;
use crate::process_attack;
use crate::table;
use crate::tree::{self, Tree, TreeFile};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use daemon::resources;
use futures_util::{StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TREE_FILES_MIN: usize = 10_000;
const TREE_BYTES_MIN: u64 = 500_000_000;
const NODES_AT_PERCENT: [u64; 2] = [30, 60];
const LEADER_AT_PERCENT: u64 = 45;
/// A blow that falls later than this after its mark shows another moment than the one that was asked for.
const LATE_PERCENT_MAX: u64 = 10;
/// Stored bytes for each byte in profile dev, hand-offs included, in percent.
const STORED_PERCENT: u64 = 160;
/// What journals, logs and segments take beside.
const BESIDE_BYTES: u64 = 4 << 30;
/// A shorter file is over before three blows have shown anything.
const BIG_BYTES_LEAST: u64 = 256 << 20;
const UPLOADS_AT_ONCE: usize = 16;
const TRIES: u32 = 8;
const BIG_FILE: &str = "/demo/seeded.bin";
const LIST_PAGE: usize = 1000;

/// Arguments of the demo.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before and after.
    #[arg(long, default_value = "target/demo")]
    data_dir: PathBuf,
    /// Length of the seeded file in bytes; by default 10 GiB, the largest that a drive takes.
    #[arg(long, default_value_t = 10 << 30)]
    big_bytes: u64,
    /// Runs all roles in one process; then nodes stop by `admin` calls, and no leader is killed.
    #[arg(long)]
    one_process: bool,
    /// Seed of the large file.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
    /// Fewest files of the tree.
    #[arg(long, default_value_t = TREE_FILES_MIN)]
    files: usize,
    /// Fewest bytes of the tree.
    #[arg(long, default_value_t = TREE_BYTES_MIN)]
    tree_bytes: u64,
}

struct Progress {
    sent_bytes: AtomicU64,
    total_bytes: u64,
}

impl Progress {
    fn percent(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed) * 100 / self.total_bytes.max(1)
    }
}

/// Runs the demo; an error on any difference or when a fault left no trace.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut input = Tree::default();
    for folder in tree::candidates() {
        let prefix = format!(
            "/demo/{}",
            folder.file_name().and_then(|name| name.to_str()).unwrap_or("root")
        );
        input.gather(&folder, &prefix, arguments.files, arguments.tree_bytes);
    }
    ensure!(
        input.files.len() >= arguments.files,
        "the host has no tree of {} files",
        arguments.files
    );
    ensure!(
        input.total_bytes() >= arguments.tree_bytes,
        "the host has no tree of {} bytes",
        arguments.tree_bytes
    );
    println!(
        "input: {} files, {} (left out {}), and one of {}",
        input.files.len(),
        table::bytes(input.total_bytes()),
        input.left_out,
        table::bytes(arguments.big_bytes)
    );
    wipe(&arguments.data_dir)?;
    check_space(&arguments, &input)?;
    // Nothing is served from memory: what is read back must come from the disks that are left.
    let form: &[&str] = match arguments.one_process {
        true => &["--cache-bytes", "0"],
        false => &["--cache-bytes", "0", "--processes", "--groups", "1"],
    };
    let mut cluster = DevCluster::start(&arguments.holdfast, &arguments.data_dir, form).await?;
    let outcome = attack(&arguments, &input, &cluster).await;
    cluster.stop()?;
    outcome?;
    wipe(&arguments.data_dir)?;
    println!("demo passed");
    Ok(())
}

async fn attack(arguments: &Arguments, input: &Tree, cluster: &DevCluster) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let progress = Arc::new(Progress {
        sent_bytes: AtomicU64::new(0),
        total_bytes: input.total_bytes() + arguments.big_bytes,
    });
    let begun = Instant::now();
    let meter = tokio::spawn(show("put", progress.clone()));
    let (digests, big_digest, blows) = tokio::try_join!(
        put_tree(&client, input, &progress),
        put_big(&client, arguments, &progress),
        strike(cluster, arguments.one_process, &progress)
    )?;
    meter.abort();
    let put_time = begun.elapsed();
    println!(
        "\nput: {} in {:.1} s",
        table::bytes(progress.total_bytes),
        put_time.as_secs_f64()
    );

    let begun = Instant::now();
    let read = Arc::new(Progress {
        sent_bytes: AtomicU64::new(0),
        total_bytes: progress.total_bytes,
    });
    let meter = tokio::spawn(show("get", read.clone()));
    let listed = list_all(&client).await?;
    compare_names(input, &listed)?;
    compare_tree(&client, &digests, &listed, &read).await?;
    let big = listed.get(BIG_FILE).context("the large file is not listed")?;
    let found = digest_of(&client, &big.0, &read).await?;
    ensure!(found == big_digest, "the large file came back different");
    meter.abort();
    let get_time = begun.elapsed();
    println!(
        "\nget: {} in {:.1} s, all equal",
        table::bytes(read.total_bytes),
        get_time.as_secs_f64()
    );
    still_dead(cluster, arguments.one_process, &blows)?;
    report(&client, input, arguments, &blows, put_time, get_time).await
}

async fn report(
    client: &Client,
    input: &Tree,
    arguments: &Arguments,
    blows: &[Blow],
    put_time: Duration,
    get_time: Duration,
) -> anyhow::Result<()> {
    let page = client.text("/metrics").await?;
    let mut rows = vec![vec!["what".to_owned(), "seen".to_owned()]];
    rows.push(vec!["files compared".to_owned(), (input.files.len() + 1).to_string()]);
    rows.push(vec![
        "bytes compared".to_owned(),
        table::bytes(input.total_bytes() + arguments.big_bytes),
    ]);
    for blow in blows {
        rows.push(vec![
            format!("{} lost at", blow.victim),
            format!("{} %", blow.at_percent),
        ]);
    }
    rows.push(vec!["put".to_owned(), format!("{:.1} s", put_time.as_secs_f64())]);
    rows.push(vec!["get".to_owned(), format!("{:.1} s", get_time.as_secs_f64())]);
    let mut zeros = Vec::new();
    if !arguments.one_process {
        let elections = blows.iter().filter(|blow| blow.successor.is_some()).count();
        rows.push(vec!["elections".to_owned(), elections.to_string()]);
        if elections == 0 {
            zeros.push("elections");
        }
    }
    for (what, name) in [
        ("hand-offs", "gateway_hand_offs_total"),
        ("degraded writes", "gateway_stripes_written_total{degraded=\"true\"}"),
        ("rebuilt reads", "gateway_rebuilt_reads_total"),
    ] {
        let seen = meter::sum(&page, name).unwrap_or(0.0);
        rows.push(vec![what.to_owned(), format!("{seen:.0}")]);
        if seen == 0.0 {
            zeros.push(what);
        }
    }
    println!("{}", table::render(&rows));
    ensure!(
        zeros.is_empty(),
        "no {} were seen: the faults left no trace, so nothing was proven",
        zeros.join(", no ")
    );
    Ok(())
}

/// One node each of two regions that are not the gateway's.
fn victims(cluster: &DevCluster) -> anyhow::Result<Vec<String>> {
    let home = cluster
        .facts
        .processes
        .iter()
        .find(|process| process.role == "gateway")
        .map(|process| process.region.clone());
    let mut by_region: BTreeMap<&str, String> = BTreeMap::new();
    for process in cluster
        .facts
        .processes
        .iter()
        .filter(|process| process.role == "node" && Some(&process.region) != home.as_ref())
    {
        by_region.entry(&process.region).or_insert_with(|| process.name());
    }
    let victims: Vec<String> = by_region.into_values().take(NODES_AT_PERCENT.len()).collect();
    ensure!(
        victims.len() == NODES_AT_PERCENT.len(),
        "the cluster has too few regions"
    );
    Ok(victims)
}

/// Something that was taken away, and when.
struct Blow {
    victim: String,
    mark_percent: u64,
    at_percent: u64,
    /// Who led after it, where a leader was killed.
    successor: Option<String>,
}

/// Takes away what is to be lost, each at its time.
async fn strike(cluster: &DevCluster, one_process: bool, progress: &Progress) -> anyhow::Result<Vec<Blow>> {
    let mut nodes = victims(cluster)?.into_iter().map(Some);
    let [early, late] = NODES_AT_PERCENT;
    // No name: the leader of that moment.
    let mut plan = vec![(early, nodes.next().flatten()), (late, nodes.next().flatten())];
    if !one_process {
        plan.insert(1, (LEADER_AT_PERCENT, None));
    }
    let mut blows = Vec::new();
    for (percent, node) in plan {
        while progress.percent() < percent {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let at_percent = progress.percent();
        let (victim, successor) = match node {
            Some(node) if one_process => {
                let number = node.trim_start_matches("node-");
                let path = format!("/api/v1/admin/nodes/{number}/stop");
                let stopping = cluster.admin()?.json(reqwest::Method::POST, &path, None).await;
                stopping.context("stop a node")?;
                (node, None)
            }
            Some(node) => {
                process_attack::kill(cluster, &node).await?;
                (node, None)
            }
            None => {
                let leader = process_attack::leader(cluster).await?;
                process_attack::kill(cluster, &leader).await?;
                let successor = process_attack::leader(cluster).await?;
                (leader, Some(successor))
            }
        };
        let after = successor
            .as_ref()
            .map_or_else(String::new, |next| format!(", {next} leads"));
        println!("\n{victim} lost at {at_percent} % of the bytes{after}");
        blows.push(Blow {
            victim,
            mark_percent: percent,
            at_percent,
            successor,
        });
    }
    in_time(&blows)?;
    Ok(blows)
}

/// Each blow fell while the bytes of its mark were on their way.
fn in_time(blows: &[Blow]) -> anyhow::Result<()> {
    for blow in blows {
        let (mark, at) = (blow.mark_percent, blow.at_percent);
        ensure!(
            (mark..=mark + LATE_PERCENT_MAX).contains(&at),
            "{} was lost at {at} % of the bytes, not at {mark}; a longer --big-bytes leaves more time",
            blow.victim
        );
    }
    Ok(())
}

/// What was killed must not have come back before everything was read.
fn still_dead(cluster: &DevCluster, one_process: bool, blows: &[Blow]) -> anyhow::Result<()> {
    for blow in blows.iter().filter(|_| !one_process) {
        let process = process_attack::process(cluster, &blow.victim)?;
        ensure!(process.pid.is_none(), "{} was started again", blow.victim);
    }
    Ok(())
}

/// Says what the run takes, and refuses it where there is not so much.
fn check_space(arguments: &Arguments, input: &Tree) -> anyhow::Result<()> {
    std::fs::create_dir_all(&arguments.data_dir)?;
    let free = resources::space_of(&arguments.data_dir)
        .with_context(|| format!("look at {}", arguments.data_dir.display()))?
        .available;
    let needed = (input.total_bytes() + arguments.big_bytes) / 100 * STORED_PERCENT + BESIDE_BYTES;
    println!(
        "disk: about {} needed in {}, {} free",
        table::bytes(needed),
        arguments.data_dir.display(),
        table::bytes(free)
    );
    ensure!(
        free >= needed,
        "too little disk is free; give another --data-dir, or a shorter file with --big-bytes (at least {} for a proof)",
        table::bytes(BIG_BYTES_LEAST)
    );
    Ok(())
}

async fn put_tree(
    client: &Client,
    input: &Tree,
    progress: &Arc<Progress>,
) -> anyhow::Result<BTreeMap<String, blake3::Hash>> {
    let folders: BTreeSet<&str> = input
        .files
        .iter()
        .filter_map(|file| file.drive_path.rsplit_once('/').map(|(folder, _)| folder))
        .collect();
    for folder in folders {
        client
            .make_folder(folder)
            .await
            .map(drop)
            .or_else(|error| match error {
                ClientError::Refused { ref code, .. } if code == "name_taken" => Ok(()),
                error => Err(error),
            })?;
    }
    let digests: Vec<(String, blake3::Hash)> =
        futures_util::stream::iter(input.files.iter().map(|file| put_file(client, file, progress)))
            .buffer_unordered(UPLOADS_AT_ONCE)
            .try_collect()
            .await?;
    Ok(digests.into_iter().collect())
}

async fn put_file(client: &Client, file: &TreeFile, progress: &Progress) -> anyhow::Result<(String, blake3::Hash)> {
    let bytes = Bytes::from(
        tokio::fs::read(&file.host_path)
            .await
            .with_context(|| file.host_path.display().to_string())?,
    );
    let digest = blake3::hash(&bytes);
    let target = Target::new_file(file.drive_path.clone());
    for attempt in 1..=TRIES {
        match client.put(&target, bytes.clone()).await {
            Ok(_) => break,
            // An answer that was lost may have been a yes; whether these bytes are there is seen when they are read back.
            Err(ClientError::Refused { ref code, .. }) if code == "name_taken" && attempt > 1 => break,
            Err(error) if may_repeat(&error) && attempt < TRIES => {
                tokio::time::sleep(Duration::from_millis(200 << attempt.min(4))).await
            }
            Err(error) => bail!("put {}: {error}", file.drive_path),
        }
    }
    progress.sent_bytes.fetch_add(file.length_bytes, Ordering::Relaxed);
    Ok((file.drive_path.clone(), digest))
}

/// Whether a small file may be put again: also after an unknown outcome, since nobody else writes there.
fn may_repeat(error: &ClientError) -> bool {
    error.is_retryable() || matches!(error, ClientError::Refused { status: 504, .. })
}

async fn put_big(client: &Client, arguments: &Arguments, progress: &Arc<Progress>) -> anyhow::Result<blake3::Hash> {
    let content = SeededContent::new(arguments.seed, arguments.big_bytes);
    let counted = progress.clone();
    let stream = content.stream(move |length| {
        counted.sent_bytes.fetch_add(length, Ordering::Relaxed);
    });
    client
        .put_stream(&Target::new_file(BIG_FILE), arguments.big_bytes, stream)
        .await
        .context("put the large file")?;
    let (seed, length) = (arguments.seed, arguments.big_bytes);
    Ok(tokio::task::spawn_blocking(move || SeededContent::new(seed, length).digest()).await?)
}

/// Every file below /demo by path: its id and length.
async fn list_all(client: &Client) -> anyhow::Result<BTreeMap<String, (String, u64)>> {
    let mut files = BTreeMap::new();
    let mut folders = vec!["/demo".to_owned()];
    while let Some(folder) = folders.pop() {
        let mut page_token: Option<String> = None;
        loop {
            let page = client.list(&folder, LIST_PAGE, page_token.as_deref()).await?;
            for entry in page.entries {
                let path = format!("{folder}/{}", entry.name);
                match entry.entry_type {
                    api::entry::Kind::Folder => folders.push(path),
                    _ => drop(files.insert(path, (entry.id, entry.size))),
                }
            }
            page_token = page.next_page_token;
            if page_token.is_none() {
                break;
            }
        }
    }
    Ok(files)
}

fn compare_names(input: &Tree, listed: &BTreeMap<String, (String, u64)>) -> anyhow::Result<()> {
    ensure!(
        listed.len() == input.files.len() + 1,
        "{} files went in, {} are listed",
        input.files.len() + 1,
        listed.len()
    );
    for file in &input.files {
        let (_, size) = listed
            .get(&file.drive_path)
            .with_context(|| format!("{} is not listed", file.drive_path))?;
        ensure!(
            *size == file.length_bytes,
            "{} has {size} bytes, not {}",
            file.drive_path,
            file.length_bytes
        );
    }
    Ok(())
}

async fn compare_tree(
    client: &Client,
    digests: &BTreeMap<String, blake3::Hash>,
    listed: &BTreeMap<String, (String, u64)>,
    read: &Arc<Progress>,
) -> anyhow::Result<()> {
    futures_util::stream::iter(digests.iter().map(|(path, digest)| async move {
        let (id, _) = listed.get(path).with_context(|| format!("{path} is not listed"))?;
        let found = digest_of(client, id, read)
            .await
            .with_context(|| format!("read {path}"))?;
        ensure!(found == *digest, "{path} came back different");
        anyhow::Ok(())
    }))
    .buffer_unordered(UPLOADS_AT_ONCE)
    .try_collect()
    .await
}

async fn digest_of(client: &Client, id: &str, read: &Progress) -> anyhow::Result<blake3::Hash> {
    let mut stream = client.get(id, None).await?.bytes_stream();
    let mut hasher = blake3::Hasher::new();
    while let Some(part) = stream.next().await {
        let part = part?;
        hasher.update(&part);
        read.sent_bytes.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    Ok(hasher.finalize())
}

async fn show(what: &str, progress: Arc<Progress>) {
    const BAR: u64 = 40;
    loop {
        let done = progress.percent().min(100) * BAR / 100;
        let bar: String = (0..BAR).map(|step| if step < done { '#' } else { '.' }).collect();
        print!("\r{what} [{bar}] {:>3} %", progress.percent());
        // A terminal that is gone is no reason to fail.
        drop(std::io::stdout().flush());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Blow, in_time};

    #[test]
    fn a_blow_that_falls_long_after_its_mark_fails_the_demo() {
        let check = |at: [u64; 3]| {
            let marks = [30, 45, 60].into_iter().zip(at);
            let blows: Vec<Blow> = marks
                .map(|(mark_percent, at_percent)| Blow {
                    victim: "node-1".to_owned(),
                    mark_percent,
                    at_percent,
                    successor: None,
                })
                .collect();
            in_time(&blows).is_ok()
        };
        assert!(check([30, 45, 60]) && check([40, 55, 70]));
        assert!(!check([41, 45, 60]) && !check([30, 56, 60]) && !check([30, 45, 95]) && !check([29, 45, 60]));
    }
}
