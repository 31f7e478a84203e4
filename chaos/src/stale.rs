//! Writes at one gateway, each read at once at the other, many thousand times: whether anybody is ever told what was before.
//!
//! Each account has one file in one of two folders. Each turn changes it (another content, another name, another folder, into the
//! trash and out of it) at one gateway, and once that is acknowledged looks at both folders and reads the content at the other one,
//! which has answered the same questions before; then reads it again, which a cache may serve. Each fifth turn reads where it wrote, so
//! that the writer's own cache is asked too; that turn is no pair and comes on top of those that are asked for.
//! Invariants: a read begins only after its write was acknowledged; an answer with anything from before counts as stale; a run in which
//! nothing came from a cache proves nothing and fails.
//! Not here: gateways that stand still and leaders that die (`tests/cluster/caches.rs`).

use crate::dev_cluster::DevCluster;
use crate::meter;
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use futures_util::future::try_join_all;
use reqwest::Method;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PASSWORD: &str = "a stale password";
/// Accounts at work at once: enough to keep two gateways busy, and each drive is still for long enough to be read from a cache.
pub const ACCOUNTS: usize = 8;
/// Of contents: one that lies in the metadata, and one in a stripe.
const LENGTHS_BYTES: [usize; 2] = [700, 20_000];
/// Of the turns of a file, the one that reads where it wrote.
const AT_HOME_EACH: usize = 5;
const RETRY_AFTER: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
/// A whole round of what can be done to a file, each with a read behind it.
const ROUND: [Step; 8] = [
    Step::Put,
    Step::Rename,
    Step::Put,
    Step::Move,
    Step::Put,
    Step::Trash,
    Step::Restore,
    Step::Put,
];

/// Arguments.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success.
    #[arg(long, default_value = "target/stale")]
    data_dir: PathBuf,
    /// Writes that are read at the other gateway.
    #[arg(long, default_value_t = 100_000)]
    pairs: usize,
}

/// What a run showed.
#[derive(Debug, Default)]
pub struct Shown {
    /// Writes that were read at the other gateway.
    pub pairs: usize,
    /// Writes that were read where they were made.
    pub at_home: usize,
    /// What was told although it was past, a line each.
    pub stale: Vec<String>,
    /// Answers and runs of blocks that came from a cache, at both gateways.
    pub hits: f64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put,
    Rename,
    Move,
    Trash,
    Restore,
}

/// Run by `make stale`: 100,000 pairs.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let options = ["--processes", "--gateways", "2", "--disk-capacity", "8G"];
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &options, async |cluster| {
        let begun = Instant::now();
        let shown = pairs(cluster, arguments.pairs).await?;
        println!(
            "{} pairs across gateways and {} writes read where they were made in {:.0} s, {} from caches, {} stale",
            shown.pairs,
            shown.at_home,
            begun.elapsed().as_secs_f64(),
            shown.hits,
            shown.stale.len()
        );
        Ok(())
    })
    .await
}

/// Writes at one of the cluster's first two gateways and reads at the other, `count` times in all.
///
/// Errors: something was stale; nothing came from a cache; a call was refused for good.
pub async fn pairs(cluster: &DevCluster, count: usize) -> anyhow::Result<Shown> {
    let gateways = gateways(cluster)?;
    let before = hits(&gateways).await?;
    let mut all = Vec::new();
    for number in 0..ACCOUNTS {
        let pairs = count / ACCOUNTS + usize::from(number < count % ACCOUNTS);
        all.push((pairs, Watched::begin(cluster, &gateways, number).await?));
    }
    let work = all.iter_mut().map(async |(pairs, watched)| {
        while watched.pairs < *pairs {
            watched.turn().await?;
        }
        anyhow::Ok(())
    });
    try_join_all(work).await?;
    let mut shown = Shown::default();
    for (_, watched) in all {
        shown.pairs += watched.pairs;
        shown.at_home += watched.turns - watched.pairs;
        shown.stale.extend(watched.stale);
    }
    shown.hits = hits(&gateways).await? - before;
    ensure!(shown.stale.is_empty(), "stale answers: {:?}", shown.stale);
    ensure!(shown.hits > 0.0, "nothing came from a cache, so this proved nothing");
    Ok(shown)
}

fn gateways(cluster: &DevCluster) -> anyhow::Result<[String; 2]> {
    let processes = cluster.facts_now()?.processes.into_iter();
    let urls = processes.filter_map(|process| process.url).collect::<Vec<_>>();
    match urls.as_slice() {
        [first, second, ..] => Ok([first.clone(), second.clone()]),
        _ => bail!("the cluster has no two gateways"),
    }
}

async fn hits(gateways: &[String; 2]) -> anyhow::Result<f64> {
    let mut all = 0.0;
    for url in gateways {
        let page = Client::new(url)?.text("/metrics").await?;
        all += meter::sum(&page, "gateway_kept_hits_total").unwrap_or(0.0);
    }
    Ok(all)
}

/// One file, and what must be seen of it.
struct Watched {
    clients: [Client; 2],
    folders: [(String, String); 2],
    /// In which of them it is.
    at: usize,
    name: String,
    id: String,
    version: u64,
    bytes: Bytes,
    is_trashed: bool,
    turns: usize,
    /// Turns that read at the other gateway.
    pairs: usize,
    stale: Vec<String>,
}

impl Watched {
    async fn begin(cluster: &DevCluster, gateways: &[String; 2], number: usize) -> anyhow::Result<Self> {
        let name = format!("stale-{number}");
        let wanted = json!({"username": name, "password": PASSWORD});
        let admin = cluster.admin()?;
        admin.json(Method::POST, "/api/v1/users", Some(&wanted)).await?;
        let first = Client::new(&gateways[0])?.login(&name, PASSWORD).await?;
        let token = first.token().context("signed in")?.to_owned();
        let second = Client::new(&gateways[1])?.with_token(&token);
        let mut folders = Vec::new();
        for path in ["/a", "/b"] {
            folders.push((path.to_owned(), first.make_folder(path).await?.id));
        }
        let bytes = content(number, 0);
        let put = first.put(&Target::new_file("/a/f0"), bytes.clone()).await?;
        Ok(Self {
            clients: [first, second],
            folders: folders.try_into().ok().context("two folders")?,
            at: 0,
            name: "f0".to_owned(),
            id: put.entry.id,
            version: put.entry.version,
            bytes,
            is_trashed: false,
            turns: 0,
            pairs: 0,
            stale: Vec::new(),
        })
    }

    /// One write and its reads.
    async fn turn(&mut self) -> anyhow::Result<()> {
        self.turns += 1;
        let step = ROUND[self.turns % ROUND.len()];
        let writer = self.turns / 3 % 2;
        let is_pair = !self.turns.is_multiple_of(AT_HOME_EACH);
        let reader = if is_pair { 1 - writer } else { writer };
        self.pairs += usize::from(is_pair);
        self.write(step, writer)
            .await
            .with_context(|| format!("{step:?} in turn {}", self.turns))?;
        for look in ["first", "second"] {
            if let Some(seen) = self.look(reader).await? {
                let turn = self.turns;
                self.stale.push(format!("turn {turn}, {step:?}, {look} look: {seen}"));
            }
        }
        Ok(())
    }

    async fn write(&mut self, step: Step, writer: usize) -> anyhow::Result<()> {
        let client = self.clients[writer].clone();
        let entry = format!("/api/v1/metadata/{}", self.id);
        let patch = async |body: serde_json::Value| {
            eventually(async || client.json(Method::PATCH, &entry, Some(&body)).await).await
        };
        match step {
            Step::Put => {
                let bytes = content(self.turns, self.turns);
                let target = Target {
                    path: format!("{}/{}", self.folders[self.at].0, self.name),
                    base_version: Some(self.version),
                    parents: false,
                };
                let put = eventually(async || client.put(&target, bytes.clone()).await).await?;
                (self.version, self.bytes) = (put.entry.version, bytes);
            }
            Step::Rename => {
                let name = format!("f{}", self.turns);
                patch(json!({"name": name})).await?;
                self.name = name;
            }
            Step::Move => {
                let to = 1 - self.at;
                patch(json!({"parent": self.folders[to].1})).await?;
                self.at = to;
            }
            Step::Trash => {
                eventually(async || client.trash(&self.id).await).await?;
                self.is_trashed = true;
            }
            Step::Restore => {
                let path = format!("{entry}/restore");
                eventually(async || client.json(Method::POST, &path, Some(&json!({}))).await).await?;
                self.is_trashed = false;
            }
        }
        Ok(())
    }

    /// What is seen and is not so any more; `None` when all is as it was written last.
    async fn look(&self, reader: usize) -> anyhow::Result<Option<String>> {
        let client = &self.clients[reader];
        for (number, (path, _)) in self.folders.iter().enumerate() {
            let listing = eventually(async || client.list(path, 10, None).await).await?;
            let seen: Vec<(String, u64)> = listing
                .entries
                .into_iter()
                .map(|entry| (entry.name, entry.version))
                .collect();
            let is_here = number == self.at && !self.is_trashed;
            let wanted = is_here.then(|| (self.name.clone(), self.version));
            let wanted: Vec<(String, u64)> = wanted.into_iter().collect();
            if seen != wanted {
                return Ok(Some(format!("{path} has {seen:?} instead of {wanted:?}")));
            }
        }
        if self.is_trashed {
            return Ok(None);
        }
        let read = async || {
            client
                .get(&self.id, None)
                .await?
                .bytes()
                .await
                .map_err(ClientError::from)
        };
        let seen = eventually(read).await?;
        Ok(
            (seen != self.bytes)
                .then(|| format!("{} bytes that are not those of version {}", seen.len(), self.version)),
        )
    }
}

/// Bytes that tell from which turn they are.
fn content(seed: usize, turn: usize) -> Bytes {
    let mut bytes = vec![0; LENGTHS_BYTES[turn % LENGTHS_BYTES.len()]];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[seed.to_le_bytes(), turn.to_le_bytes()].concat());
    hasher.finalize_xof().fill(&mut bytes);
    Bytes::from(bytes)
}

/// Makes a call until it is answered or refused for good.
pub(crate) async fn eventually<T>(call: impl AsyncFn() -> Result<T, ClientError>) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_retryable() && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
