//! One file that is written again and again while leaders die, and readers at every gateway who hold each answer against what was known
//! before they asked.
//!
//! The first gateway asks the leader for what it reads, the others the replica nearest to them, and none keeps answers in memory.
//! Invariant: what was acknowledged, or told to any reader, before a read began is the oldest that it may be told.
//! Not here: whether every acknowledged file is there in the end (`kills`), what caches tell (`stale`).

use super::{RETRY_AFTER, WRITE_PATIENCE};
use crate::dev_cluster::DevCluster;
use crate::meter;
use crate::process_attack;
use anyhow::{Context, ensure};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const FOLDER: &str = "/kills-register";
const FILE: &str = "/kills-register/file";
/// At each gateway: one of them is always about to ask.
const READERS: usize = 2;
const READ_EVERY: Duration = Duration::from_millis(50);
const WRITE_EVERY: Duration = Duration::from_millis(50);
/// Until every gateway answers again; far above what a loaded two-core machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What was read in a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reads {
    /// Answers that were held against what was known, of each gateway.
    pub(super) by_gateway: Vec<(String, u64)>,
    /// The newest version.
    pub(super) version: u64,
    /// Queries that followers answered, as those replicas count that run in the end.
    pub(super) at_followers: f64,
    /// What nobody may be told, a line each.
    pub(super) faults: Vec<String>,
}

impl Reads {
    /// Answers of all gateways.
    pub(super) fn count(&self) -> u64 {
        self.by_gateway.iter().map(|(_, answers)| answers).sum()
    }
}

/// What all of them share.
#[derive(Default)]
struct Known {
    is_over: AtomicBool,
    /// The newest version that was acknowledged or read.
    version: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Known {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    fn accuse(&self, fault: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A gateway and what its readers were told.
struct Desk {
    gateway: String,
    client: Client,
    answers: AtomicU64,
    /// When the last read began that was answered.
    last: Mutex<Option<Instant>>,
}

impl Desk {
    fn has_answered_since(&self, moment: Instant) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|begun| begun >= moment)
    }
}

/// The file, its writer and its readers; dropping it ends them.
pub(super) struct Register {
    known: Arc<Known>,
    desks: Vec<Arc<Desk>>,
    tasks: JoinSet<()>,
}

impl Register {
    /// Makes the file, lets all gateways but the first read at the nearest replica, and begins.
    ///
    /// Errors: the file cannot be made; a gateway does not start again.
    pub(super) async fn begin(cluster: &DevCluster) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        let token = client.token().context("the writer is signed in")?.to_owned();
        client.make_folder(FOLDER).await?;
        let first = client.put(&Target::new_file(FILE), content(0).into()).await?;
        let known = Arc::new(Known::default());
        known.version.store(first.entry.version, Ordering::SeqCst);
        let mut desks = Vec::new();
        for process in cluster.facts_now()?.processes {
            if process.role != "gateway" {
                continue;
            }
            if !desks.is_empty() {
                let (leader, nearest) = ("metadata_reads = \"leader\"", "metadata_reads = \"nearest\"");
                process_attack::reconfigure(cluster, &process.name(), leader, nearest).await?;
            }
            let url = process.url.as_ref().context("a gateway has an address")?;
            desks.push(Arc::new(Desk {
                gateway: process.name(),
                client: Client::new(url)?.with_token(&token),
                answers: AtomicU64::new(0),
                last: Mutex::new(None),
            }));
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(write(client, Arc::clone(&known), first.entry.version));
        for desk in &desks {
            for _ in 0..READERS {
                tasks.spawn(read(Arc::clone(desk), Arc::clone(&known)));
            }
        }
        Ok(Self { known, desks, tasks })
    }

    /// Returns once every gateway has answered a read that began after `moment`.
    ///
    /// Errors: somebody was told what he may not be told; a gateway does not answer any more.
    pub(super) async fn answered_since(&self, moment: Instant) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let faults = self.known.faults();
            ensure!(faults.is_empty(), "{}", faults.join("\n"));
            let Some(silent) = self.desks.iter().find(|desk| !desk.has_answered_since(moment)) else {
                return Ok(());
            };
            ensure!(
                begun.elapsed() < PATIENCE,
                "{} answered no read in {PATIENCE:?}",
                silent.gateway
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends all of them; what was read.
    ///
    /// Errors: a replica does not tell its counters; a task panicked.
    pub(super) async fn end(mut self, cluster: &DevCluster) -> anyhow::Result<Reads> {
        self.known.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        let mut at_followers = 0.0;
        for replica in cluster.facts_now()?.processes {
            if replica.role == "metadata" && replica.pid.is_some() {
                let status = replica.status.context("a replica has a status port")?;
                let page = Client::new(&format!("http://{status}"))?.text("/metrics").await?;
                at_followers += meter::sum(&page, "metadata_follower_reads_total{kind=\"drive\"}").unwrap_or(0.0);
            }
        }
        let answers = |desk: &Arc<Desk>| (desk.gateway.clone(), desk.answers.load(Ordering::SeqCst));
        Ok(Reads {
            by_gateway: self.desks.iter().map(answers).collect(),
            version: self.known.version.load(Ordering::SeqCst),
            at_followers,
            faults: self.known.faults(),
        })
    }
}

fn content(number: u64) -> String {
    format!("write {number} of the register")
}

/// Whether the same may be asked again: refused for the moment, or nobody knows what became of it, which a repeat finds out.
fn is_open(error: &ClientError) -> bool {
    error.is_retryable() || matches!(error, ClientError::Refused { status: 504, .. })
}

async fn write(client: Client, known: Arc<Known>, mut version: u64) {
    let mut number = 0;
    while !known.is_over() {
        number += 1;
        let target = Target {
            path: FILE.to_owned(),
            base_version: Some(version),
            parents: false,
        };
        let begun = Instant::now();
        loop {
            match client.put(&target, content(number).into()).await {
                Ok(put) => {
                    version = put.entry.version;
                    known.version.fetch_max(version, Ordering::SeqCst);
                    break;
                }
                Err(error) if is_open(&error) && begun.elapsed() < WRITE_PATIENCE => {
                    tokio::time::sleep(RETRY_AFTER).await;
                }
                Err(error) => return known.accuse(format!("put {FILE} behind version {version}: {error}")),
            }
        }
        tokio::time::sleep(WRITE_EVERY).await;
    }
}

async fn read(desk: Arc<Desk>, known: Arc<Known>) {
    while !known.is_over() {
        let (oldest, begun) = (known.version.load(Ordering::SeqCst), Instant::now());
        match desk.client.list(FOLDER, 10, None).await {
            Ok(listing) => {
                let told = listing.entries.first().map(|entry| entry.version);
                if let Some(version) = told.filter(|version| *version >= oldest) {
                    known.version.fetch_max(version, Ordering::SeqCst);
                    desk.answers.fetch_add(1, Ordering::SeqCst);
                    *desk.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
                } else {
                    known.accuse(format!(
                        "{} told of version {told:?} when {oldest} was known already",
                        desk.gateway
                    ));
                }
            }
            Err(error) if is_open(&error) => {}
            Err(error) => known.accuse(format!("list {FOLDER} at {}: {error}", desk.gateway)),
        }
        tokio::time::sleep(READ_EVERY).await;
    }
}
