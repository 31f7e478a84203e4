//! Processes paused in the middle of uploads' commits for longer than every deadline, and what must hold of each upload then.
//!
//! At every gateway three upload without a pause: what lies in the metadata, what takes one commit, and what takes a session. When
//! all of them are under way and some have sent their last byte and have no answer, the victims are stopped by SIGSTOP, and go on after
//! a while. Where no commit stands still for it they go on at once, and the next ones are waited for.
//! Invariants: what was acknowledged reads back byte for byte; what was not is there whole or not at all, and nothing else is; what
//! the drive is charged is what is there and at most what was sent without an answer; who works at a gateway that runs is served
//! meanwhile; afterwards everybody is.
//! Not here: how long writes stand still (`kills`).

use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::group_users;
use crate::process_attack;
use anyhow::{Context, bail, ensure};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Inline, one commit, a session.
const LENGTHS_BYTES: [u64; 3] = [3_000, 200_000, 13 << 20];
/// Between two uploads of a writer once the blow has come: enough to be seen, and few enough to read all back.
const PACE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// A commit that has no answer for so long after the blow stands still: an answer that was on its way is there long before.
const STANDS_STILL: Duration = Duration::from_millis(100);
/// Blows until one of them falls into a commit; most of the first do.
const BLOWS_MAX: usize = 200;
/// Far above what a loaded two-core machine needs to serve again.
const PATIENCE: Duration = Duration::from_secs(90);
/// A page of a listing.
const PAGE_ENTRIES: usize = 1_000;

/// What one pause showed; all of it above zero, or it proved nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Uploads that were under way when the victims were stopped.
    pub caught: usize,
    /// Of these, whose last byte was sent and whose commit stood still with the victims.
    pub in_commit: usize,
    /// Uploads that began and were acknowledged while they stood still, at gateways that ran.
    pub meanwhile: usize,
    /// Uploads that were acknowledged, at any time; all of them were read back.
    pub acknowledged: usize,
    /// Uploads whose outcome nobody told: refused for the moment, or cut off.
    pub unanswered: usize,
}

struct Upload {
    path: String,
    seed: u64,
    length_bytes: u64,
    begun: Instant,
    ended: Instant,
    is_acknowledged: bool,
}

impl Upload {
    fn content(&self) -> SeededContent {
        SeededContent::new(self.seed, self.length_bytes)
    }
}

/// What a writer and whoever watches it tell each other.
#[derive(Default)]
struct Signs {
    is_over: AtomicBool,
    is_struck: AtomicBool,
    is_under_way: AtomicBool,
    /// The seed of the present upload, and when its last byte was handed to the connection.
    present: Mutex<(u64, Option<Instant>)>,
    /// When the last upload that was acknowledged began.
    acknowledged: Mutex<Option<Instant>>,
}

impl Signs {
    fn present(&self) -> MutexGuard<'_, (u64, Option<Instant>)> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last byte of an upload was handed over; says nothing of one that has its answer already.
    fn set_sent(&self, seed: u64) {
        let mut present = self.present();
        if present.0 == seed {
            present.1 = Some(Instant::now());
        }
    }

    /// When the last byte was sent of an upload that has no answer.
    fn sent(&self) -> Option<Instant> {
        self.present().1
    }

    /// Whether an upload that began after `moment` was acknowledged.
    fn has_served_since(&self, moment: Instant) -> bool {
        let last = self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|begun| begun >= moment)
    }
}

struct Writer {
    client: Client,
    gateway: String,
    is_stopped_too: bool,
    folder: String,
    first_seed: u64,
    length_bytes: u64,
    signs: Arc<Signs>,
}

/// Stops `victims` for `span` while everybody uploads into `folder`, a new one, and judges what became of it.
///
/// The cluster has a gateway that is no victim. Errors: a promise is broken, or the pause proved nothing.
pub async fn strike(cluster: &DevCluster, victims: &[&str], span: Duration, folder: &str) -> anyhow::Result<Shown> {
    // Of this pause alone: his drive holds nothing else.
    let reader = group_users::user_named(cluster, folder.trim_matches('/')).await?;
    let writers = writers(cluster, &reader, victims, folder)?;
    let signs: Vec<Arc<Signs>> = writers.iter().map(|writer| Arc::clone(&writer.signs)).collect();
    let going_on = writers.iter().filter(|writer| !writer.is_stopped_too);
    let going_on: Vec<Arc<Signs>> = going_on.map(|writer| Arc::clone(&writer.signs)).collect();
    // A gateway that is stopped holds its own commits up, anybody else those of all gateways.
    let is_gateways_alone = victims.iter().all(|victim| victim.starts_with("gateway-"));
    let committing = writers
        .iter()
        .filter(|writer| !is_gateways_alone || writer.is_stopped_too);
    let committing: Vec<Arc<Signs>> = committing.map(|writer| Arc::clone(&writer.signs)).collect();
    let mut running = JoinSet::new();
    for writer in writers {
        running.spawn(writer.run());
    }
    let all = |has: &dyn Fn(&Signs) -> bool| signs.iter().all(|sign| has(sign.as_ref()));
    let (stopped_at, in_commit) = stop_in_a_commit(cluster, victims, &signs, &committing).await?;
    signs
        .iter()
        .for_each(|sign| sign.is_struck.store(true, Ordering::SeqCst));
    tokio::time::sleep(span).await;
    // On a slow machine it takes longer until the largest upload has gone round those that stand still.
    let meanwhile = |sign: &Arc<Signs>| sign.has_served_since(stopped_at);
    let served_meanwhile = wait("who goes on is served", || going_on.iter().all(meanwhile)).await;
    let resumed_at = Instant::now();
    for victim in victims {
        process_attack::signal(cluster, victim, Signal::CONT)?;
    }
    served_meanwhile?;
    let served_again = |sign: &Signs| sign.has_served_since(resumed_at);
    let again = wait("all writers are served again", || all(&served_again)).await;
    signs.iter().for_each(|sign| sign.is_over.store(true, Ordering::SeqCst));
    let mut uploads = Vec::new();
    let mut meanwhile = 0;
    while let Some(ended) = running.join_next().await {
        let (writer, of_writer) = ended??;
        let served = of_writer.iter().filter(|upload| {
            !writer.is_stopped_too && upload.is_acknowledged && upload.begun > stopped_at && upload.ended < resumed_at
        });
        let served = served.count();
        ensure!(
            writer.is_stopped_too || served > 0,
            "nothing of {} bytes was taken by {} in {span:?}",
            writer.length_bytes,
            writer.gateway
        );
        meanwhile += served;
        uploads.extend(of_writer);
    }
    again?;
    check(&reader, folder, &uploads).await?;
    let count = |has: &dyn Fn(&Upload) -> bool| uploads.iter().filter(|upload| has(upload)).count();
    let shown = Shown {
        caught: count(&|upload| upload.begun < stopped_at && upload.ended > stopped_at),
        in_commit,
        meanwhile,
        acknowledged: count(&|upload| upload.is_acknowledged),
        unanswered: count(&|upload| !upload.is_acknowledged),
    };
    ensure!(shown.caught > 0, "no upload was under way: {shown:?}");
    Ok(shown)
}

/// Stops the victims when all writers are under way, so that the commit of at least one of `committing` stands still with them.
/// Answers when they were stopped, and how many commits stand still.
///
/// Errors: no blow of so many fell into a commit.
async fn stop_in_a_commit(
    cluster: &DevCluster,
    victims: &[&str],
    signs: &[Arc<Signs>],
    committing: &[Arc<Signs>],
) -> anyhow::Result<(Instant, usize)> {
    for _ in 0..BLOWS_MAX {
        wait("all writers are under way, and one has sent all", || {
            let is_under_way = |sign: &Arc<Signs>| sign.is_under_way.load(Ordering::SeqCst);
            signs.iter().all(is_under_way) && committing.iter().any(|sign| sign.sent().is_some())
        })
        .await?;
        let stopped_at = Instant::now();
        for victim in victims {
            process_attack::signal(cluster, victim, Signal::STOP)?;
        }
        tokio::time::sleep(STANDS_STILL).await;
        let stands_still = |sign: &&Arc<Signs>| sign.sent().is_some_and(|sent| sent < stopped_at);
        let in_commit = committing.iter().filter(stands_still).count();
        if in_commit > 0 {
            return Ok((stopped_at, in_commit));
        }
        for victim in victims {
            process_attack::signal(cluster, victim, Signal::CONT)?;
        }
    }
    bail!("none of {BLOWS_MAX} blows to {victims:?} fell into a commit");
}

fn writers(cluster: &DevCluster, reader: &Client, victims: &[&str], folder: &str) -> anyhow::Result<Vec<Writer>> {
    let token = reader.token().context("the reader is signed in")?;
    let mut writers = Vec::new();
    let processes = cluster.facts_now()?.processes;
    for gateway in processes.iter().filter(|process| process.role == "gateway") {
        let url = gateway.url.as_ref().context("a gateway has an address")?;
        for length_bytes in LENGTHS_BYTES {
            writers.push(Writer {
                client: Client::new(url)?.with_token(token),
                gateway: gateway.name(),
                is_stopped_too: victims.contains(&gateway.name().as_str()),
                folder: format!("{folder}/{}-{length_bytes}", gateway.name()),
                first_seed: (writers.len() as u64 + 1) << 32,
                length_bytes,
                signs: Arc::default(),
            });
        }
    }
    Ok(writers)
}

impl Writer {
    async fn run(self) -> anyhow::Result<(Self, Vec<Upload>)> {
        let mut uploads = Vec::new();
        while !self.signs.is_over.load(Ordering::SeqCst) {
            let upload = self.upload(uploads.len() as u64).await?;
            if upload.is_acknowledged {
                let mut last = self.signs.acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                *last = Some(upload.begun);
            }
            uploads.push(upload);
            if self.signs.is_struck.load(Ordering::SeqCst) {
                tokio::time::sleep(PACE).await;
            }
        }
        Ok((self, uploads))
    }

    async fn upload(&self, number: u64) -> anyhow::Result<Upload> {
        let (path, begun) = (format!("{}/{number}", self.folder), Instant::now());
        let seed = self.first_seed + number;
        let (signs, left_bytes) = (Arc::clone(&self.signs), AtomicU64::new(self.length_bytes));
        let content = SeededContent::new(seed, self.length_bytes).stream(move |bytes| {
            if left_bytes.fetch_sub(bytes, Ordering::SeqCst) == bytes {
                signs.set_sent(seed);
            }
        });
        *self.signs.present() = (seed, None);
        self.signs.is_under_way.store(true, Ordering::SeqCst);
        let target = Target::new_file(path.clone());
        let outcome = self.client.put_stream(&target, self.length_bytes, content).await;
        *self.signs.present() = (0, None);
        self.signs.is_under_way.store(false, Ordering::SeqCst);
        let is_acknowledged = match outcome {
            Ok(_) => true,
            Err(error) if error.is_retryable() => false,
            // Perhaps it happened: the cluster says so itself.
            Err(ClientError::Refused { status: 504, .. }) => false,
            Err(ClientError::Broken(_)) if self.is_stopped_too => false,
            Err(error) => bail!("put {path} at {}: {error}", self.gateway),
        };
        Ok(Upload {
            path,
            seed,
            length_bytes: self.length_bytes,
            begun,
            ended: Instant::now(),
            is_acknowledged,
        })
    }
}

/// Every upload is there whole or not at all, those acknowledged are, there is nothing else, and the drive is charged for these and
/// for no more than what may lie in sessions that nobody ended.
async fn check(reader: &Client, folder: &str, uploads: &[Upload]) -> anyhow::Result<()> {
    let (mut found, charged_bytes) = settled(reader, folder).await?;
    let (mut there_bytes, mut open_bytes) = (0, 0);
    for upload in uploads {
        let Some(id) = found.remove(&upload.path) else {
            ensure!(!upload.is_acknowledged, "{} was acknowledged and is lost", upload.path);
            open_bytes += upload.length_bytes;
            continue;
        };
        there_bytes += upload.length_bytes;
        let mut hasher = blake3::Hasher::new();
        let mut answer = reader
            .get(&id, None)
            .await
            .with_context(|| format!("get {}", upload.path))?;
        while let Some(part) = answer.chunk().await? {
            hasher.update(&part);
        }
        ensure!(
            hasher.finalize() == upload.content().digest(),
            "{} came back altered",
            upload.path
        );
    }
    ensure!(found.is_empty(), "nobody uploaded {:?}", found.keys());
    ensure!(
        (there_bytes..=there_bytes + open_bytes).contains(&charged_bytes),
        "{charged_bytes} bytes are charged, {there_bytes} are there and {open_bytes} were sent without an answer"
    );
    Ok(())
}

/// Paths and ids of all that lies there and what the drive is charged, once neither changes: a commit that nobody waits for any more
/// may still end.
async fn settled(reader: &Client, folder: &str) -> anyhow::Result<(BTreeMap<String, String>, u64)> {
    let begun = Instant::now();
    let mut before = None;
    loop {
        let mut found = BTreeMap::new();
        for writer in listed(reader, folder).await? {
            found.extend(listed(reader, &writer.0).await?);
        }
        let now = (found, reader.me().await?.usage.bytes);
        if before.as_ref() == Some(&now) {
            return Ok(now);
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "what lies in {folder} does not come to rest"
        );
        before = Some(now);
        tokio::time::sleep(STANDS_STILL).await;
    }
}

/// Paths and ids of what lies in a folder.
async fn listed(reader: &Client, folder: &str) -> anyhow::Result<Vec<(String, String)>> {
    let (mut found, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = reader.list(folder, PAGE_ENTRIES, token.as_deref()).await?;
        found.extend(page.entries.into_iter().map(|entry| (entry.path, entry.id)));
        token = page.next_page_token;
        if token.is_none() {
            return Ok(found);
        }
    }
}

async fn wait(what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so() {
        ensure!(begun.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}
