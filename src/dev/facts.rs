//! `dev.json`: what a dev cluster says about itself to scripts, the demo and `holdfast admin`.
//!
//! Invariants: it holds a password and a token, so it is written with mode 0600, whole or not at all; it is there only from the
//! moment when the cluster is ready, and stays when it stops, because the login goes on, but without what ends with the cluster;
//! with processes of their own it is written anew whenever one of them ends or starts.
//! Whether one runs tells `DevDirectory::is_running`.

use super::accounts::DEMO_USER;
use super::plan::Plan;
use super::secrets::DevSecrets;
use crate::registration::Site;
use anyhow::Context;
use model::process::{ProcessId, Role};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
const FILE: &str = "dev.json";

/// What the file holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct DevFacts {
    /// Scheme, host and port of the first gateway that serves `api`.
    pub url: String,
    /// The demo user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// For the admin calls; drawn anew at each start, and empty after a stop.
    pub admin_token: String,
    /// The durability profile of new drives.
    pub profile: String,
    /// Every role that runs; none after a stop.
    pub processes: Vec<ProcessFacts>,
}

/// One role of the cluster.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ProcessFacts {
    /// `node`, `metadata` or `gateway`.
    pub role: String,
    /// Its number within the role.
    pub id: u64,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// The replica's Raft id, of a metadata process.
    pub raft_id: Option<u64>,
    /// The process it runs in; none while it is dead.
    pub pid: Option<u32>,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    /// Its log, when it has a file of its own.
    pub log: Option<PathBuf>,
    /// Its configuration file, when it is a process of its own: `holdfast serve --config FILE` runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Scheme, host and port of a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What a gateway serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Vec<String>>,
    /// Where it answers `/metrics`, `/healthz` and `/readyz`, over plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SocketAddr>,
}

impl ProcessFacts {
    /// What the plan tells of a process, before it runs.
    pub(crate) fn planned(plan: &Plan, process: ProcessId) -> Self {
        let Site { region, zone } = plan.site(process);
        let names = |at: usize| plan.functions.get(at).map(|functions| functions.names());
        let functions = usize::try_from(process.number - 1).ok().and_then(names);
        Self {
            role: process.role.as_str().to_owned(),
            id: process.number,
            region,
            zone,
            raft_id: (process.role == Role::Metadata).then_some(process.number),
            pid: None,
            data_dir: plan.data_dir_of(process),
            log: None,
            config: None,
            url: None,
            functions: functions.filter(|_| process.role == Role::Gateway),
            status: None,
        }
    }

    /// Its name, such as `node-3`.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.role, self.id)
    }
}

impl DevFacts {
    /// The facts of a cluster at whose first `api` gateway, at `front`, people sign in.
    pub(crate) fn of(
        plan: &Plan,
        secrets: &DevSecrets,
        front: SocketAddr,
        admin_token: String,
        processes: Vec<ProcessFacts>,
    ) -> Self {
        Self {
            url: plan.url(front),
            user: DEMO_USER.to_owned(),
            password: secrets.demo_password.clone(),
            admin_token,
            profile: plan.profile.to_string(),
            processes,
        }
    }

    /// Reads the file in `data_dir`.
    pub(crate) fn read(data_dir: &Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))
    }

    /// Writes the file into `data_dir`, replacing an older one.
    pub(crate) fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let (path, fresh) = (data_dir.join(FILE), data_dir.join("dev.json.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))?;
        File::open(data_dir)?.sync_all()?;
        Ok(())
    }

    /// Leaves in the file what outlives a stop: the login. The admin token and the processes of this run go.
    pub(crate) fn end(self, data_dir: &Path) {
        let kept = Self {
            admin_token: String::new(),
            processes: Vec::new(),
            ..self
        };
        if let Err(error) = kept.write(data_dir) {
            tracing::warn!(%error, "leave the login in dev.json");
            Self::remove(data_dir);
        }
    }

    /// Removes the file of an earlier start, so that nobody takes a cluster for ready that is starting.
    pub(crate) fn remove(data_dir: &Path) {
        // It may be gone already; nobody depends on it.
        drop(fs::remove_file(data_dir.join(FILE)));
    }
}
