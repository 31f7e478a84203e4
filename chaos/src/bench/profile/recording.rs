//! `perf record` beside a phase, and what it saw.
//!
//! Invariant: perf is a child that is ended by its own id, also when the phase fails.

use super::fold::{self, Folded};
use crate::bench::watch::ClusterWatch;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// Odd, so that it does not run in step with timers.
const SAMPLES_PER_S: &str = "499";
/// The program has no frame pointers, so perf copies so much of each stack and unwinds it later; deep ones of async code need it.
const CALL_GRAPH: &str = "dwarf,32768";
/// perf does not say when it has begun; it takes some ten milliseconds. Guess with room.
const BEGINNING: Duration = Duration::from_millis(700);
const LOAD: &str = "load";

/// There is no perf on this machine.
#[derive(Debug)]
pub struct PerfMissing;

impl fmt::Display for PerfMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("missing: perf (Debian: apt-get install -y linux-perf)")
    }
}

impl std::error::Error for PerfMissing {}

/// A recording under way.
pub(super) struct Recording {
    perf: Child,
    path: PathBuf,
    roles: BTreeMap<u32, String>,
}

/// Fails with `PerfMissing` where perf cannot be started.
pub(super) async fn look_for_perf() -> anyhow::Result<()> {
    let asked = Command::new("perf")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    match asked {
        Ok(status) if status.success() => Ok(()),
        _ => Err(PerfMissing.into()),
    }
}

impl Recording {
    /// Begins to record all processes of the cluster, and the load, which is this process.
    pub(super) async fn start(folder: &Path, name: &str, watch: &ClusterWatch) -> anyhow::Result<Self> {
        let path = folder.join(format!("{name}.perf"));
        let own = std::process::id();
        let pids: Vec<String> = watch
            .pids()
            .into_iter()
            .chain([own])
            .map(|pid| pid.to_string())
            .collect();
        let errors = std::fs::File::create(path.with_extension("err"))?;
        let perf = Command::new("perf")
            .args([
                "record",
                "-F",
                SAMPLES_PER_S,
                "-g",
                "--call-graph",
                CALL_GRAPH,
                "-e",
                "cpu-clock",
                "-o",
            ])
            .arg(&path)
            .args(["-p", &pids.join(",")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .context("start perf")?;
        let mut roles = watch.roles();
        roles.insert(own, LOAD.to_owned());
        let mut recording = Self { perf, path, roles };
        tokio::time::sleep(BEGINNING).await;
        if recording.perf.try_wait()?.is_some() {
            bail!("perf record does not run: {}", recording.errors());
        }
        Ok(recording)
    }

    /// Ends the recording and folds what it saw.
    pub(super) async fn stop(mut self) -> anyhow::Result<Folded> {
        let pid = self.perf.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(Pid::from_raw).context("perf has ended before the phase")?;
        kill_process(pid, Signal::INT).context("stop perf")?;
        self.perf.wait().await?;
        let script = Command::new("perf")
            .args(["script", "--no-inline", "-F", "comm,pid,tid,ip,sym", "-i"])
            .arg(&self.path)
            .stdin(Stdio::null())
            .output()
            .await
            .context("run perf script")?;
        if !script.status.success() {
            bail!(
                "perf script: {}{}",
                self.errors(),
                String::from_utf8_lossy(&script.stderr)
            );
        }
        let folded = fold::fold(&String::from_utf8_lossy(&script.stdout), &self.roles);
        // A minute of samples is a few hundred megabytes.
        std::fs::remove_file(&self.path)?;
        if folded.samples() == 0 {
            bail!("perf saw no sample: {}", self.errors());
        }
        Ok(folded)
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.path.with_extension("err")).unwrap_or_default()
    }
}
