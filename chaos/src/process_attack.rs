//! Killing, pausing and starting single processes of a `holdfast dev --processes` cluster.
//!
//! Invariant: a signal goes only to a process that the cluster names as its own at that moment.
//! Not here: what must hold while they are away (whoever attacks).

use crate::dev_cluster::{DevCluster, DevProcess};
use crate::meter;
use crate::proc;
use anyhow::{Context, bail, ensure};
use client_sdk::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Far above an election on a loaded machine.
const LEADER_PATIENCE: Duration = Duration::from_secs(60);
/// Between a kill and the parent's noting it.
const NOTED_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The group of the demo user's drive in a cluster that is started with one drive group.
pub const DRIVE_GROUP: u32 = 1;

/// A process of the cluster by its name, as things stand.
pub fn process(cluster: &DevCluster, name: &str) -> anyhow::Result<DevProcess> {
    let mut processes = cluster.facts_now()?.processes.into_iter();
    processes
        .find(|process| process.name() == name)
        .with_context(|| format!("the cluster has no {name}"))
}

/// Sends `signal` to a process; answers when it was sent. A process that was stopped stands still on return: threads of it may run on
/// for some milliseconds on a busy machine, and serve what should find it stopped.
pub fn signal(cluster: &DevCluster, name: &str, signal: Signal) -> anyhow::Result<Instant> {
    let pid = process(cluster, name)?
        .pid
        .with_context(|| format!("{name} does not run"))?;
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let at = Instant::now();
    kill_process(raw.with_context(|| format!("{name} has no pid"))?, signal)
        .with_context(|| format!("signal {name}"))?;
    while signal == Signal::STOP && !proc::is_stopped(pid)? {
        ensure!(at.elapsed() < NOTED_PATIENCE, "{name} was stopped and runs on");
        std::thread::yield_now();
    }
    Ok(at)
}

/// `kill -9`; on return the cluster has noted that the process is dead. Answers when it was killed.
pub async fn kill(cluster: &DevCluster, name: &str) -> anyhow::Result<Instant> {
    let at = signal(cluster, name, Signal::KILL)?;
    noted(cluster, name).await?;
    Ok(at)
}

/// Returns once the cluster has noted that the process has ended.
pub async fn noted(cluster: &DevCluster, name: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    while process(cluster, name)?.pid.is_some() {
        ensure!(begun.elapsed() < NOTED_PATIENCE, "dev.json still says that {name} runs");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Starts a dead process again on its data, as an operator would; on return it is ready.
pub async fn start(cluster: &DevCluster, name: &str) -> anyhow::Result<()> {
    ask(cluster, "start", name).await
}

/// Stops a process in good order, as an operator would; on return it has ended.
pub async fn stop(cluster: &DevCluster, name: &str) -> anyhow::Result<()> {
    ask(cluster, "stop", name).await
}

async fn ask(cluster: &DevCluster, what: &str, name: &str) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(cluster.holdfast())
        .args(["admin", "--data-dir"])
        .arg(cluster.data_dir())
        .args(["process", what, name])
        .stdin(Stdio::null())
        .output()
        .await
        .context("run holdfast admin")?;
    ensure!(
        output.status.success(),
        "{what} {name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Puts `new` in the place of `old` in the configuration of a process, which is stopped and started with it.
pub async fn reconfigure(cluster: &DevCluster, name: &str, old: &str, new: &str) -> anyhow::Result<()> {
    let config = process(cluster, name)?.config;
    let config = config.with_context(|| format!("{name} has no configuration file"))?;
    let text = std::fs::read_to_string(&config).with_context(|| format!("read {}", config.display()))?;
    let changed = text.replace(old, new);
    ensure!(changed != text, "{} does not say {old}", config.display());
    std::fs::write(&config, changed)?;
    stop(cluster, name).await?;
    start(cluster, name).await
}

/// The metadata process that leads the demo user's group, as it says itself; waits while none does.
pub async fn leader(cluster: &DevCluster) -> anyhow::Result<String> {
    let leaders = leaders(cluster, DRIVE_GROUP..=DRIVE_GROUP).await?;
    leaders.into_values().next().context("one group was asked for")
}

/// The metadata process that leads each of these groups, as it says itself; waits while one of them has no single leader.
pub async fn leaders(cluster: &DevCluster, groups: RangeInclusive<u32>) -> anyhow::Result<BTreeMap<u32, String>> {
    let begun = Instant::now();
    loop {
        let led = led(cluster).await?;
        // Two claim one for a moment when a process was paused; the next look shows which one is right.
        let leader = |group| Some((group, single_leader(&led, group)?.to_owned()));
        let found: Option<BTreeMap<u32, String>> = groups.clone().map(leader).collect();
        if let Some(found) = found {
            return Ok(found);
        }
        if begun.elapsed() > LEADER_PATIENCE {
            bail!("no single leader of each of the groups {groups:?} after {LEADER_PATIENCE:?}: {led:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The same of the control group and `groups` drive groups, once their leaders are spread over all metadata processes, which hand them
/// to each other no more then; all processes must run.
pub async fn leaders_at_rest(cluster: &DevCluster, groups: u32) -> anyhow::Result<BTreeMap<u32, String>> {
    let begun = Instant::now();
    let processes = cluster.facts_now()?.processes.into_iter();
    let replicas = processes.filter(|process| process.role == "metadata").count();
    loop {
        let led = led(cluster).await?;
        let counts = || led.values().map(BTreeSet::len);
        let (most, least) = (counts().max().unwrap_or(0), counts().min().unwrap_or(0));
        if led.len() == replicas && most <= least + 1 {
            let leader = |group| Some((group, single_leader(&led, group)?.to_owned()));
            let found: Option<BTreeMap<u32, String>> = (0..=groups).map(leader).collect();
            if let Some(found) = found {
                return Ok(found);
            }
        }
        if begun.elapsed() > LEADER_PATIENCE {
            bail!("leaders of {groups} groups are not spread after {LEADER_PATIENCE:?}: {led:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn single_leader(led: &BTreeMap<String, BTreeSet<u32>>, group: u32) -> Option<&str> {
    let mut leaders = led.iter().filter(|(_, groups)| groups.contains(&group));
    let (leader, _) = leaders.next()?;
    leaders.next().is_none().then_some(leader.as_str())
}

/// The groups that each metadata process leads, as it says itself; the control group is 0. One that was paused or has just been
/// killed does not answer, and is not there.
pub async fn led(cluster: &DevCluster) -> anyhow::Result<BTreeMap<String, BTreeSet<u32>>> {
    let mut found = BTreeMap::new();
    let processes = cluster.facts_now()?.processes.into_iter();
    for process in processes.filter(|process| process.role == "metadata" && process.pid.is_some()) {
        let status = process.status.context("a process has a status port")?;
        let asked = async { Client::new(&format!("http://{status}"))?.text("/metrics").await };
        let page = tokio::time::timeout(Duration::from_secs(1), asked).await;
        if let Ok(Ok(page)) = page {
            let shown = meter::by_label(&page, "metadata_leading", "group").into_iter();
            let led = shown.filter(|(_, leads)| *leads > 0.0);
            let led: Result<BTreeSet<u32>, _> = led.map(|(group, _)| group.parse()).collect();
            found.insert(process.name(), led.context("groups have numbers")?);
        }
    }
    Ok(found)
}
