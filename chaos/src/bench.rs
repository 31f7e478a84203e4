//! The bench, first form: figures of a dev cluster over HTTP, beside the limits of the machine measured in the same run.
//!
//! First the limits, while nothing else runs; from them the bound of a PUT and of a GET; then the cluster under load. A table
//! on the terminal, JSON beside it.
//! Invariants: no figure is judged, so a slow machine never fails a run; an error or a wrong byte always does. Contents and
//! their digests are made before a phase is timed, so that making them costs no figure anything.
//! Not here: `--processes` and the figures of single roles, metadata commits, idle cost.

mod bound;
mod cores;
mod figure;
mod limit;
mod load;
mod machine;
mod network;
mod report;
mod storage;
mod watch;

use crate::dev_cluster::DevCluster;
use anyhow::Context;
use bound::Bounds;
use clap::Parser;
use limit::Limit;
use machine::{Machine, Neighbours};
use model::profile::{Profile, ProfileId};
use report::Report;
use std::path::{Path, PathBuf};

/// Arguments of the bench.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before and after.
    #[arg(long, default_value = "target/bench/data")]
    data_dir: PathBuf,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench/report.json")]
    report: PathBuf,
    /// Smaller sizes: shows that it runs, not how fast.
    #[arg(long)]
    quick: bool,
    /// Measures the machine and starts no cluster.
    #[arg(long)]
    limits_only: bool,
    /// Seed of all contents.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
}

/// Runs the bench; an error when a call fails or a byte comes back wrong, never for a slow figure.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    wipe(&arguments.data_dir)?;
    let outcome = measure(&arguments).await;
    if outcome.is_ok() {
        // After a failure the cluster's data and log stay for whoever looks.
        wipe(&arguments.data_dir)?;
    }
    outcome
}

async fn measure(arguments: &Arguments) -> anyhow::Result<()> {
    let machine = Machine::observe();
    println!("machine: {}; seed {}", machine.text(), arguments.seed);
    let neighbours = Neighbours::watch();
    let limits = measure_limits(arguments).await?;
    let mut report = Report::new(arguments.quick, arguments.seed, machine, limits);
    report.neighbours_cores = neighbours.cores();
    report.print_limits();
    if arguments.limits_only {
        report.bounds = Some(bounds(&report, ProfileId::Dev.profile())?);
    } else {
        println!("starting {}", arguments.holdfast.display());
        let mut cluster = DevCluster::start(&arguments.holdfast, &arguments.data_dir, &[]).await?;
        let profile = ProfileId::parse(&cluster.facts.profile)
            .with_context(|| format!("unknown profile {}", cluster.facts.profile))?;
        report.bounds = Some(bounds(&report, profile.profile())?);
        let outcome = load::run(&cluster, arguments.quick, arguments.seed).await;
        let stopped = cluster.stop();
        // What the load met comes first: a cluster that failed under it may also not stop.
        report.figures = outcome?;
        stopped?;
    }
    report.hold_against_bounds();
    report.print();
    report.write(&arguments.report)
}

fn bounds(report: &Report, profile: Profile) -> anyhow::Result<Bounds> {
    Bounds::of(&report.limits, report.machine.cores, profile)
}

async fn measure_limits(arguments: &Arguments) -> anyhow::Result<Vec<Limit>> {
    let (quick, seed) = (arguments.quick, arguments.seed);
    let mut limits = tokio::task::spawn_blocking(move || cores::measure(quick, seed)).await??;
    limits.extend(network::measure(quick).await?);
    let folder = arguments.data_dir.join("limits");
    std::fs::create_dir_all(&folder)?;
    let measured_in = folder.clone();
    limits.extend(tokio::task::spawn_blocking(move || storage::measure(&measured_in, quick, seed)).await??);
    wipe(&folder)?;
    Ok(limits)
}

fn wipe(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("wipe {}", folder.display()))?;
    }
    Ok(())
}
