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
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Far above an election on a loaded machine.
const LEADER_PATIENCE: Duration = Duration::from_secs(60);
/// Between a kill and the parent's noting it.
const NOTED_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The group of the demo user's drive: such a cluster is started with one drive group.
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

/// The metadata process that leads the drives' group, as it says itself; waits while none does.
pub async fn leader(cluster: &DevCluster) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        let found = leaders(cluster).await?;
        // Two claim it for a moment when one was paused; the next look shows which one is right.
        if let [leader] = found.as_slice() {
            return Ok(leader.clone());
        }
        if begun.elapsed() > LEADER_PATIENCE {
            bail!("no single leader of group {DRIVE_GROUP} after {LEADER_PATIENCE:?}: {found:?}");
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn leaders(cluster: &DevCluster) -> anyhow::Result<Vec<String>> {
    let leading = format!("metadata_leading{{group=\"{DRIVE_GROUP}\"}}");
    let mut found = Vec::new();
    let processes = cluster.facts_now()?.processes.into_iter();
    for process in processes.filter(|process| process.role == "metadata" && process.pid.is_some()) {
        let status = process.status.context("a process has a status port")?;
        // One that was paused or has just been killed does not answer, and does not lead.
        let asked = async { Client::new(&format!("http://{status}"))?.text("/metrics").await };
        let page = tokio::time::timeout(Duration::from_secs(1), asked).await;
        if let Ok(Ok(page)) = page
            && meter::sum(&page, &leading) == Some(1.0)
        {
            found.push(process.name());
        }
    }
    Ok(found)
}
