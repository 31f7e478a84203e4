//! The bench: figures of a dev cluster over HTTP, beside the limits of the machine measured in the same run, and beside the goals.
//!
//! First the limits, while nothing else runs; from them the bound of a PUT and of a GET; then a cluster of separate processes, idle and
//! under load; then one in one process, idle and with the large file. Tables on the terminal, JSON beside them.
//! Invariants: a slow machine fails no run that does not require its goals, since figures are held against them and no miss is more than
//! told, but one: reads at a follower against reads at the leader, in pairs of turns (`metadata::judge`). An error or a wrong byte always
//! fails. A goal whose figure is missing is told as such.
//! Contents and their digests are made before a phase is timed, so that making them costs no figure anything; the 10 GiB upload alone
//! makes them meanwhile, since they would not fit the memory.
//! Not here: where the time goes (`profile`), a folder of a million entries (`wide_folder`), overload.

mod beside;
mod bound;
pub(crate) mod calls;
mod cores;
mod figure;
mod file_batches;
mod goal;
mod idle;
mod limit;
mod load;
mod machine;
pub(crate) mod metadata;
pub(crate) mod mix;
mod network;
pub mod profile;
mod read_pairs;
mod report;
mod storage;
mod watch;

use crate::dev_cluster::{DevCluster, wipe};
use anyhow::Context;
use bound::Bounds;
use clap::Parser;
use client_sdk::client::Client;
use figure::Figure;
use idle::{Idle, ONE_PROCESS, PROCESSES};
use limit::Limit;
use machine::{Machine, Neighbours};
use model::profile::{Profile, ProfileId};
use report::Report;
use std::path::PathBuf;
use watch::ClusterWatch;

/// Length of the upload of `--largest-upload`.
const LARGEST_UPLOAD_BYTES: u64 = 10 << 30;
const QUICK_LARGEST_UPLOAD_BYTES: u64 = 256 << 20;

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
    /// Runs all roles in one process, as figures before 2026-11-22 were measured, and no cluster of processes.
    #[arg(long)]
    one_process: bool,
    /// Also puts one file of 10 GiB and holds the gateway's peak memory in it against its goal. A minute and 16 GiB of disk more.
    #[arg(long)]
    largest_upload: bool,
    /// Fails unless every goal is measured and reached, as a quiet machine of two cores should; asks for the largest upload too.
    #[arg(long, requires = "largest_upload")]
    require_goals: bool,
    /// Measures the machine and starts no cluster.
    #[arg(long)]
    limits_only: bool,
    /// Seed of all contents.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
}

impl Arguments {
    fn form(&self) -> &'static str {
        if self.one_process { ONE_PROCESS } else { PROCESSES }
    }
}

/// Runs the bench; an error when a call fails or a byte comes back wrong, and of full sizes when reads at a follower are slower than
/// at the leader; for another slow figure only where all goals are required.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    wipe(&arguments.data_dir)?;
    let outcome = measure(&arguments).await;
    if outcome.is_ok() {
        // After a failure the cluster's data and log stay for whoever looks.
        wipe(&arguments.data_dir)?;
    }
    let report = outcome?;
    if arguments.require_goals {
        report.require_goals()?;
    }
    let takes_turns = !(arguments.quick || arguments.limits_only || arguments.one_process);
    match takes_turns {
        true => metadata::judge(&report.figures),
        false => Ok(()),
    }
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Report> {
    let machine = Machine::observe();
    println!("machine: {}; seed {}", machine.text(), arguments.seed);
    let neighbours = Neighbours::watch();
    let limits = measure_limits(arguments).await?;
    let mut report = Report::new(arguments.quick, arguments.seed, machine, limits, arguments.form());
    report.neighbours_cores = neighbours.cores();
    report.print_limits();
    let mut profile = ProfileId::Dev;
    if !arguments.limits_only {
        let (found, idle, figures) = at_cluster(arguments, arguments.form()).await?;
        profile = found;
        report.figures = figures;
        report.idle.push(idle);
        if !arguments.one_process {
            wipe(&arguments.data_dir)?;
            let (_, idle, figures) = at_cluster(arguments, ONE_PROCESS).await?;
            report.one_process_figures = figures;
            report.idle.push(idle);
        }
    }
    report.bounds = Some(bounds(&report, profile.profile())?);
    report.judge();
    report.print();
    report.write(&arguments.report)?;
    Ok(report)
}

/// Starts a cluster, measures at it, and stops it.
async fn at_cluster(arguments: &Arguments, form: &'static str) -> anyhow::Result<(ProfileId, Idle, Vec<Figure>)> {
    println!("starting {}, {form}", arguments.holdfast.display());
    let options: &[&str] = if form == PROCESSES { &["--processes"] } else { &[] };
    let mut cluster = DevCluster::start(&arguments.holdfast, &arguments.data_dir, options).await?;
    let profile = cluster.facts.profile_id()?;
    let outcome = under_load(arguments, form, &cluster).await;
    let stopped = cluster.stop();
    // What the load met comes first: a cluster that failed under it may also not stop.
    let (idle, figures) = outcome?;
    stopped?;
    Ok((profile, idle, figures))
}

/// Everything that is measured at one cluster; at the second one, which is not of the form that was asked for, the large file alone.
async fn under_load(
    arguments: &Arguments,
    form: &'static str,
    cluster: &DevCluster,
) -> anyhow::Result<(Idle, Vec<Figure>)> {
    let (quick, seed) = (arguments.quick, arguments.seed);
    let watch = ClusterWatch::of(&cluster.facts, cluster.pid());
    let idle = idle::watch(&watch, form, quick).await?;
    // The one log-in of the run: a password takes the gateway more memory than any upload.
    let client = cluster.client().await?;
    if form != arguments.form() {
        let figures = load::large_file(&client, &watch, quick, seed).await?;
        return Ok((idle, figures.into()));
    }
    let mut figures = load::run(&client, &watch, quick, seed).await?;
    figures.extend(mix::run(&client, &watch, quick, seed.wrapping_add(1 << 41)).await?);
    figures.push(file_batches::run(&client, &watch, quick, seed.wrapping_add(1 << 40)).await?);
    figures.extend(metadata::run(cluster, &client, &watch, quick).await?);
    figures.push(beside::run(&client, &watch, quick, seed).await?);
    if arguments.largest_upload {
        figures.push(largest_upload(arguments, form, cluster, &client, watch).await?);
    }
    if form == PROCESSES {
        figures.extend(metadata::run_in_turns(cluster, &client, quick).await?);
    }
    Ok((idle, figures))
}

/// The largest upload, at a gateway that has not logged anybody in and keeps nothing of the phases before: its memory is judged.
async fn largest_upload(
    arguments: &Arguments,
    form: &'static str,
    cluster: &DevCluster,
    client: &Client,
    mut watch: ClusterWatch,
) -> anyhow::Result<Figure> {
    if form == PROCESSES {
        metadata::start_gateway_again(cluster).await?;
        watch = ClusterWatch::of(&cluster.facts_now()?, cluster.pid());
        // Connections to the gateway of before are found to be broken here, where a call can be sent again.
        calls::repeated(|| client.list("/", 1, None))
            .await
            .context("ask a gateway that was started again")?;
    }
    let length_bytes = match arguments.quick {
        true => QUICK_LARGEST_UPLOAD_BYTES,
        false => LARGEST_UPLOAD_BYTES,
    };
    load::largest_upload(client, &watch, length_bytes, !arguments.seed).await
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
