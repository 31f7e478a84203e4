//! Where the time goes: `perf` beside a cluster of processes during a PUT, a GET and commits, as flame graphs and tables of shares.
//!
//! Before it is recorded, each has run with little, so that connections, caches and the journals' first segments are there.
//! Invariant: perf is stopped by its own id before the next phase begins. Shares are of CPU time; waiting is not seen.
//! Not here: figures (the bench), since perf takes some of the cores that it looks at.

mod flame;
mod fold;
mod recording;
mod shares;

use super::figure::Figure;
use super::load::{self, Workload};
use super::metadata;
use super::watch::ClusterWatch;
use crate::dev_cluster::{DevCluster, wipe};
use anyhow::Context;
use clap::Parser;
use client_sdk::client::Client;
use fold::Folded;
use recording::Recording;
use std::path::PathBuf;

pub use recording::PerfMissing;

/// A larger picture is drawn again with fewer of the small frames.
const PICTURE_BYTES_MAX: usize = 300_000;
const WRITERS: usize = 64;
const SHARES_BEGIN: &str = "# Shares of CPU time\n\n\
    Written by `make profile`; not edited by hand. README.md says what was done about the largest.\n\
    Shares are of all CPU time of the cluster's processes and the load; a sample is of the first kind that one of its frames belongs to, \
    from the innermost outwards.\n";

/// Arguments of the profile.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data and perf its records; wiped before and after.
    #[arg(long, default_value = "target/profile")]
    data_dir: PathBuf,
    /// Where the flame graphs and the table of shares go.
    #[arg(long, default_value = "docs/profiles")]
    pictures: PathBuf,
    /// Smaller sizes: shows that it runs.
    #[arg(long)]
    quick: bool,
    /// Seed of all contents.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
}

/// Draws the three pictures and prints the largest shares of each; an error of type `PerfMissing` where there is no perf.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    recording::look_for_perf().await?;
    wipe(&arguments.data_dir)?;
    std::fs::create_dir_all(&arguments.pictures)?;
    let cluster_dir = arguments.data_dir.join("cluster");
    let mut cluster = DevCluster::start(&arguments.holdfast, &cluster_dir, &["--processes"]).await?;
    let outcome = phases(&arguments, &cluster).await;
    let stopped = cluster.stop();
    outcome?;
    stopped?;
    wipe(&arguments.data_dir)
}

async fn phases(arguments: &Arguments, cluster: &DevCluster) -> anyhow::Result<()> {
    let client = cluster.client().await?;
    let watch = ClusterWatch::of(&cluster.facts, cluster.pid());
    let workload = |large: bool| Workload {
        length_bytes: if large && !arguments.quick { 1 << 30 } else { 64 << 20 },
        files: 1,
        at_once: 1,
    };
    // Another length than the recorded one's: the folder is named after it.
    let (small, large) = (workload(false), workload(true));
    if !arguments.quick {
        let contents = load::prepare(&client, small, !arguments.seed).await?;
        let (_, stored) = load::store(&client, &watch, small, contents).await?;
        load::fetch(&client, &watch, small, stored).await?;
    }
    let mut page = SHARES_BEGIN.to_owned();
    let contents = load::prepare(&client, large, arguments.seed).await?;
    let recording = Recording::start(&arguments.data_dir, "put", &watch).await?;
    let (figure, stored) = load::store(&client, &watch, large, contents).await?;
    page.push_str(&draw(arguments, "put", &figure, &recording.stop().await?)?);

    let recording = Recording::start(&arguments.data_dir, "get", &watch).await?;
    let figure = load::fetch(&client, &watch, large, stored).await?;
    page.push_str(&draw(arguments, "get", &figure, &recording.stop().await?)?);

    commits(&client, &watch, "first", if arguments.quick { 200 } else { 2_000 }).await?;
    let recording = Recording::start(&arguments.data_dir, "commit", &watch).await?;
    let figure = commits(
        &client,
        &watch,
        "recorded",
        if arguments.quick { 1_000 } else { 20_000 },
    )
    .await?;
    page.push_str(&draw(arguments, "commit", &figure, &recording.stop().await?)?);

    let path = arguments.pictures.join("shares.md");
    std::fs::write(&path, &page).with_context(|| format!("write {}", path.display()))?;
    println!("\n{page}");
    Ok(())
}

async fn commits(client: &Client, watch: &ClusterWatch, part: &str, count: usize) -> anyhow::Result<Figure> {
    let parent = format!("/profile/{part}");
    metadata::make_folders(client, watch, "commit, 64 writers", &parent, count, WRITERS).await
}

/// Draws the picture of a phase; answers its part of the page of shares.
fn draw(arguments: &Arguments, name: &str, figure: &Figure, folded: &Folded) -> anyhow::Result<String> {
    let picture = flame::picture(&figure.name, folded, PICTURE_BYTES_MAX);
    let path = arguments.pictures.join(format!("{name}.svg"));
    std::fs::write(&path, &picture).with_context(|| format!("write {}", path.display()))?;
    println!("drawn: {}", path.display());
    let took = figure.cluster_cpu_s + figure.load_cpu_s;
    Ok(format!(
        "\n## {}\n\n[Flame graph]({name}.svg) of {} samples. {:.1} s with {:.1} CPU seconds, {:.1} of them the load's.\n\n{}",
        figure.name,
        folded.samples(),
        figure.wall_s,
        took,
        figure.load_cpu_s,
        shares::table(folded)
    ))
}
