//! What every such run is told, the cluster and the load that follow from it, and what its report says of it.
//!
//! Not here: how much is sent and for how long (`overload`, `surge`).

use super::{Load, Uploads, senders};
use crate::dev_cluster::{DevCluster, wipe};
use crate::report;
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments.
#[derive(Debug, Args)]
pub(crate) struct Orders {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Accounts that send.
    #[arg(long, default_value_t = 4)]
    users: usize,
    /// Decides what is sent and when.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Passed on to `holdfast dev`, such as --gateways=2.
    #[arg(last = true)]
    cluster: Vec<String>,
}

/// What a report says of its run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Head {
    pub(crate) at_unix_s: u64,
    cluster: Vec<String>,
    users: usize,
    seed: u64,
}

impl Orders {
    /// A fresh cluster on `data_dir`, with `options` and those that were ordered.
    pub(crate) async fn start(&self, data_dir: &Path, options: &[&str]) -> anyhow::Result<DevCluster> {
        wipe(data_dir)?;
        let ordered = self.cluster.iter().map(String::as_str);
        let options: Vec<&str> = options.iter().copied().chain(ordered).collect();
        DevCluster::start(&self.holdfast, data_dir, &options).await
    }

    /// A load for `cluster`, in the name of accounts that are new there.
    pub(crate) async fn load(&self, cluster: &DevCluster, uploads: Uploads) -> anyhow::Result<Arc<Load>> {
        let tokens = senders::sign_up(cluster, self.users, uploads.folder).await?;
        let host = cluster.facts.url.trim_start_matches("http://");
        Ok(Arc::new(Load::new(host, tokens, uploads)?))
    }

    /// The head of a report that is made now.
    pub(crate) fn head(&self) -> anyhow::Result<Head> {
        Ok(Head {
            at_unix_s: report::unix_s()?,
            cluster: self.cluster.clone(),
            users: self.users,
            seed: self.seed,
        })
    }
}
