//! `holdfast admin` on a dev cluster of processes: has one stopped or started again, and waits until it is.
//!
//! Not here: who stops and starts it (the parent, `process_cluster`).

use super::control::{self, Request};
use super::facts::{DevFacts, ProcessFacts};
use anyhow::{Context, ensure};
use client_sdk::client::Client;
use std::path::Path;
use std::time::Duration;

/// A stop may take as long as the parent waits before it kills, a start as long as a replay on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Asks the process `name` to stop; on return it has ended.
pub(crate) async fn stop(data_dir: &Path, name: &str) -> anyhow::Result<()> {
    control::ask(data_dir, &Request::Stop(name.to_owned()))?;
    let wait = async {
        while facts_of(data_dir, name)?.pid.is_some() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("{name} goes on {PATIENCE:?} after it was asked to stop; `kill -9` ends it"))?
}

/// Starts the process `name` on its data; on return it is ready.
pub(crate) async fn start(data_dir: &Path, name: &str) -> anyhow::Result<()> {
    control::ask(data_dir, &Request::Start(name.to_owned()))?;
    let log = facts_of(data_dir, name)?.log.unwrap_or_default();
    let wait = async {
        loop {
            let facts = facts_of(data_dir, name)?;
            ensure!(
                facts.pid.is_some(),
                "{name} ended at its start; {} says why",
                log.display()
            );
            let status = facts.status.context("a process of its own has a status port")?;
            if Client::new(&format!("http://{status}"))?.text("/readyz").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("{name} runs and is not ready after {PATIENCE:?}; see {}", log.display()))?
}

fn facts_of(data_dir: &Path, name: &str) -> anyhow::Result<ProcessFacts> {
    let found = DevFacts::read(data_dir)?.processes.into_iter();
    let mut found = found.filter(|process| process.name() == name);
    found
        .next()
        .with_context(|| format!("the cluster is stopping: {name} is gone"))
}
