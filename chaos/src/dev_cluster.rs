//! A `holdfast dev` cluster as a child process, for the demo, the bench and the tests; with `--processes` it has children of its own.
//!
//! Invariant: the child is ended by its id when the value is dropped, whatever happened in between; its own children end with it.
//! Not here: killing single processes (`process_attack`).

use anyhow::{Context, bail};
use client_sdk::client::Client;
use model::profile::ProfileId;
use serde::Deserialize;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a first start may take: keys, three elections, a demo user with argon2id. A guess with room for a loaded machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Gateways, nodes and each replica may take fifteen seconds before they are killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(80);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What `holdfast dev` writes about itself.
#[derive(Clone, Debug, Deserialize)]
pub struct DevFacts {
    /// Scheme, host and port of the gateway.
    pub url: String,
    /// The demo user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// For the admin calls.
    pub admin_token: String,
    /// The durability profile.
    pub profile: String,
    /// Every role that runs.
    pub processes: Vec<DevProcess>,
}

/// One role of the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct DevProcess {
    /// `node`, `metadata` or `gateway`.
    pub role: String,
    /// Its number within the role.
    pub id: u64,
    /// Its region.
    pub region: String,
    /// The process it runs in; none while it is dead.
    pub pid: Option<u32>,
    /// Its configuration file, when it is a process of its own.
    #[serde(default)]
    pub config: Option<PathBuf>,
    /// Scheme, host and port of a gateway.
    #[serde(default)]
    pub url: Option<String>,
    /// Where it answers `/metrics`, `/healthz` and `/readyz`.
    #[serde(default)]
    pub status: Option<SocketAddr>,
}

impl DevFacts {
    /// Which profile new drives have.
    ///
    /// Errors: the cluster names one that is not known here.
    pub fn profile_id(&self) -> anyhow::Result<ProfileId> {
        ProfileId::parse(&self.profile).with_context(|| format!("unknown profile {}", self.profile))
    }
}

impl DevProcess {
    /// Its name, such as `node-3`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.role, self.id)
    }
}

/// A running cluster.
pub struct DevCluster {
    child: Child,
    holdfast: PathBuf,
    data_dir: PathBuf,
    /// What it wrote about itself.
    pub facts: DevFacts,
}

impl DevCluster {
    /// Starts `holdfast dev` on `data_dir` and waits until it is ready for requests.
    ///
    /// Its standard output goes to `dev.out` in `data_dir`, its log to `dev.log`.
    pub async fn start(holdfast: &Path, data_dir: &Path, more: &[&str]) -> anyhow::Result<Self> {
        Self::start_logging(holdfast, data_dir, more, None).await
    }

    /// Does `work` with a fresh cluster and stops it; after a success nothing is left in `data_dir`.
    ///
    /// Errors: those of the work come first, since a cluster that failed under it may also not stop. After one the data and the log
    /// stay for whoever looks.
    pub async fn with_fresh<T>(
        holdfast: &Path,
        data_dir: &Path,
        more: &[&str],
        work: impl AsyncFnOnce(&Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        wipe(data_dir)?;
        let mut cluster = Self::start(holdfast, data_dir, more).await?;
        let outcome = work(&cluster).await;
        let stopped = cluster.stop();
        let found = outcome?;
        stopped?;
        wipe(data_dir)?;
        Ok(found)
    }

    /// As `start`, with another log filter than the built-in one.
    pub async fn start_logging(
        holdfast: &Path,
        data_dir: &Path,
        more: &[&str],
        filter: Option<&str>,
    ) -> anyhow::Result<Self> {
        fs::create_dir_all(data_dir)?;
        let facts_path = data_dir.join("dev.json");
        if facts_path.exists() {
            fs::remove_file(&facts_path)?;
        }
        let log_path: PathBuf = data_dir.join("dev.log");
        let append = |path: &Path| File::options().create(true).append(true).open(path);
        let child = Command::new(holdfast)
            .arg("dev")
            .arg("--data-dir")
            .arg(data_dir)
            .args(["--listen", "127.0.0.1:0"])
            .args(more)
            .envs(filter.map(|filter| ("HOLDFAST_LOG", filter)))
            .stdin(Stdio::null())
            .stdout(append(&data_dir.join("dev.out"))?)
            .stderr(append(&log_path)?)
            .spawn()
            .with_context(|| format!("start {}", holdfast.display()))?;
        let mut cluster = Self {
            child,
            holdfast: holdfast.to_owned(),
            data_dir: data_dir.to_owned(),
            facts: DevFacts {
                url: String::new(),
                user: String::new(),
                password: String::new(),
                admin_token: String::new(),
                profile: String::new(),
                processes: Vec::new(),
            },
        };
        let begun = Instant::now();
        loop {
            if let Some(status) = cluster.child.try_wait()? {
                bail!(
                    "holdfast dev ended with {status}; see {}:\n{}",
                    log_path.display(),
                    last_lines(&log_path)
                );
            }
            if let Some(facts) = read_facts(&facts_path) {
                let is_ready = Client::new(&facts.url)?.text("/readyz").await.is_ok();
                cluster.facts = facts;
                if is_ready {
                    return Ok(cluster);
                }
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!(
                    "holdfast dev is not ready after {START_TIMEOUT:?}; see {}:\n{}",
                    log_path.display(),
                    last_lines(&log_path)
                );
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The process id of the cluster.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The server binary that it runs.
    #[must_use]
    pub fn holdfast(&self) -> &Path {
        &self.holdfast
    }

    /// Where it keeps everything.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// What it says about itself now: processes that were killed have no pid any more, those started again another one.
    pub fn facts_now(&self) -> anyhow::Result<DevFacts> {
        let path = self.data_dir.join("dev.json");
        read_facts(&path).with_context(|| format!("read {}", path.display()))
    }

    /// A client signed in as the demo user.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.facts.url)?
            .login(&self.facts.user, &self.facts.password)
            .await?)
    }

    /// A client with the admin token.
    pub fn admin(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.facts.url)?.with_token(&self.facts.admin_token))
    }

    /// Asks the cluster to stop and waits for it.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        signal(&self.child, rustix::process::Signal::TERM);
        let begun = Instant::now();
        while self.child.try_wait()?.is_none() {
            if begun.elapsed() > STOP_TIMEOUT {
                self.child.kill()?;
                self.child.wait()?;
                bail!("holdfast dev did not stop within {STOP_TIMEOUT:?} of SIGTERM");
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl DevCluster {
    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // Nothing can be done about a failure while dropping; an ended child answers with one.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Removes the folder with all that is in it, where there is one.
///
/// Errors: something in it cannot be removed.
pub fn wipe(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("wipe {}", folder.display()))?;
    }
    Ok(())
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // A child that is gone already cannot be signalled, and that is what was wanted.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn read_facts(path: &Path) -> Option<DevFacts> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn last_lines(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
