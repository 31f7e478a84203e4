//! `dev.json`: what a dev cluster says about itself to scripts, the demo and `holdfast admin`.
//!
//! Invariant: it holds a password and a token, so it is written with mode 0600, whole or not at all.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
const FILE: &str = "dev.json";

/// What the file holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct DevFacts {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) admin_token: String,
    pub(crate) profile: String,
    pub(crate) processes: Vec<ProcessFacts>,
}

/// One role of the cluster.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ProcessFacts {
    pub(crate) role: String,
    pub(crate) id: u64,
    pub(crate) region: String,
    pub(crate) zone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) raft_id: Option<u64>,
    pub(crate) pid: u32,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: Option<PathBuf>,
}

impl DevFacts {
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

    /// Removes the file, so that nobody takes a stopped cluster for a running one.
    pub(crate) fn remove(data_dir: &Path) {
        // It may be gone already; nobody depends on it.
        drop(fs::remove_file(data_dir.join(FILE)));
    }
}
