//! How long writes stand still when the leader of a drive's group is killed or paused, many times over.
//!
//! A write is begun every few milliseconds; what is measured is the time from the signal to the first answer of one that was begun
//! after it, and to the answer of the last one that had to wait. Then the process is started again, or goes on, and all are well.
//! All the while three gateways are read at, two of them from the nearest replica (`register`), also when a leader wakes up that was
//! followed by another. The far timing is that of the replicas alone: nothing between them takes longer for it.
//! With several groups one blow costs some of them their leader, writers of each of these are timed, and the slowest group counts.
//! With `--long-pause` a gateway, that leader and a node are paused in the middle of uploads as well, one after the other (`long_pause`).
//! Invariants: the leader is another one after each round; it fails when a limit is passed, when a write is refused for good, when
//! somebody is told what was before, when what was acknowledged is not what is listed in the end, and when it did not do what was asked.
//! Not here: what all of it must come to (`verdict`); a simulated world, where such things are found by their thousands.

mod register;
mod verdict;

use crate::dev_cluster::{DevCluster, wipe};
use crate::group_users;
use crate::long_pause::{self, Shown};
use crate::process_attack;
use crate::table;
use anyhow::{Context, bail, ensure};
use clap::Parser;
use client_sdk::client::{Client, Target};
use model::id::GroupId;
use register::{Reads, Register};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const FOLDER: &str = "/kills";
/// Writes are begun this often: the times below are no finer.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// A write that has no answer after this has failed for good.
const WRITE_PATIENCE: Duration = Duration::from_secs(40);
const RETRY_AFTER: Duration = Duration::from_millis(50);
const PAGE_ENTRIES: usize = 1_000;

/// Arguments.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before and after.
    #[arg(long, default_value = "target/kills")]
    data_dir: PathBuf,
    /// Times that the leader is killed.
    #[arg(long, default_value_t = 50)]
    kills: usize,
    /// Times that it is paused by SIGSTOP.
    #[arg(long, default_value_t = 10)]
    pauses: usize,
    /// Seconds for which a gateway, the leader and a node are paused in the middle of uploads; 0 leaves that out.
    #[arg(long, default_value_t = 0)]
    long_pause: u64,
    /// Groups of drives. The process that leads most of them is struck, and writers of each that it leads are timed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256), conflicts_with = "long_pause")]
    groups: u32,
    /// Gives the replicas the timing of those that are far from each other first; they stay as near as they are.
    #[arg(long)]
    wan: bool,
}

impl Arguments {
    fn rounds(&self) -> usize {
        self.kills + self.pauses
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    Pause,
}

/// What one round showed.
struct Round {
    blow: Blow,
    victim: String,
    /// The groups that it led, at least one.
    struck: Vec<Struck>,
}

/// What one round showed of a group that lost its leader.
struct Struck {
    group: u32,
    successor: String,
    first: Duration,
    last: Duration,
    waited: usize,
    /// Files that were acknowledged.
    names: Vec<String>,
}

impl Round {
    /// How long all groups' writes took to go again: the slowest group's.
    fn first(&self) -> Duration {
        self.struck.iter().map(|struck| struck.first).max().unwrap_or_default()
    }
}

/// Whose files lie in a group.
struct Writer {
    group: u32,
    client: Client,
}

/// What was done, of what was asked.
#[derive(Default)]
struct Ran {
    rounds: Vec<Round>,
    /// Of the rounds; nothing when there was none.
    reads: Reads,
    /// Processes that stood still for long, and what each pause showed.
    long: Vec<(String, Shown)>,
}

/// Runs all rounds; an error when a limit is passed.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    wipe(&arguments.data_dir)?;
    // Rounds have a gateway in each region, long pauses one that is struck and one that goes on.
    let gateways = if arguments.rounds() > 0 { "3" } else { "2" };
    let groups = arguments.groups.to_string();
    let options = [
        "--processes",
        "--groups",
        &groups,
        "--disk-capacity",
        "2G",
        "--gateways",
        gateways,
        "--cache-bytes",
        "0",
    ];
    let mut cluster = DevCluster::start(&arguments.holdfast, &arguments.data_dir, &options).await?;
    let outcome = work(&arguments, &cluster).await;
    cluster.stop()?;
    let ran = outcome?;
    if !ran.rounds.is_empty() {
        println!("{}", table::render(&rows(&ran.rounds)));
    }
    if !ran.long.is_empty() {
        println!("{}", table::render(&rows_of_long(&ran.long)));
    }
    verdict::judge(&ran, &arguments)?;
    wipe(&arguments.data_dir)?;
    println!("{}", verdict::passed(&ran, &arguments));
    Ok(())
}

async fn work(arguments: &Arguments, cluster: &DevCluster) -> anyhow::Result<Ran> {
    let mut ran = Ran::default();
    if arguments.wan {
        take_distance(cluster).await?;
    }
    if arguments.rounds() > 0 {
        let register = Register::begin(cluster).await?;
        ran.rounds = rounds(arguments, cluster, &register).await?;
        ran.reads = register.end(cluster).await?;
    }
    if arguments.long_pause > 0 {
        ran.long = long_pauses(cluster, Duration::from_secs(arguments.long_pause)).await?;
    }
    Ok(ran)
}

async fn rounds(arguments: &Arguments, cluster: &DevCluster, register: &Register) -> anyhow::Result<Vec<Round>> {
    let mut writers = Vec::new();
    for group in 1..=arguments.groups {
        let client = group_users::user_in(cluster, GroupId(group), arguments.groups, "kills").await?;
        client.make_folder(FOLDER).await?;
        writers.push(Writer { group, client });
    }
    let blows = std::iter::repeat_n(Blow::Kill, arguments.kills);
    let blows = blows.chain(std::iter::repeat_n(Blow::Pause, arguments.pauses));
    let mut rounds = Vec::new();
    for (number, blow) in blows.enumerate() {
        let round = strike(cluster, &writers, number, blow)
            .await
            .with_context(|| format!("round {number}"))?;
        println!(
            "{number:>3}  {}  {}, leader of {} groups of drives  first writes after {} ms",
            round.blow.word(),
            round.victim,
            round.struck.len(),
            round.first().as_millis()
        );
        rounds.push(round);
        // Also from whoever led before, now that it is back.
        register
            .answered_since(Instant::now())
            .await
            .with_context(|| format!("reads after round {number}"))?;
    }
    let mut files = 0;
    for writer in &writers {
        files += check_listed(writer, &rounds).await?;
    }
    println!("all {files} acknowledged files are there");
    Ok(rounds)
}

/// A writer's folder holds what was acknowledged to him; how many files that are.
async fn check_listed(writer: &Writer, rounds: &[Round]) -> anyhow::Result<usize> {
    let struck = rounds.iter().flat_map(|round| &round.struck);
    let acknowledged: BTreeSet<&str> = struck
        .filter(|struck| struck.group == writer.group)
        .flat_map(|struck| &struck.names)
        .map(String::as_str)
        .collect();
    let listed = listed(&writer.client).await?;
    // One that was never answered may be there too, but there is none: all writes are waited for.
    ensure!(
        listed.iter().map(String::as_str).eq(acknowledged.iter().copied()),
        "of group {}, {} files were acknowledged and {} are listed",
        writer.group,
        acknowledged.len(),
        listed.len()
    );
    Ok(listed.len())
}

/// Names in the folder, in order.
async fn listed(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let (mut names, mut token) = (BTreeSet::new(), None::<String>);
    loop {
        let page = client.list(FOLDER, PAGE_ENTRIES, token.as_deref()).await?;
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        token = page.next_page_token;
        if token.is_none() {
            return Ok(names);
        }
    }
}

/// Changes the timing of the replicas, one after the other.
async fn take_distance(cluster: &DevCluster) -> anyhow::Result<()> {
    for process in cluster.facts_now()?.processes {
        if process.role == "metadata" {
            process_attack::reconfigure(cluster, &process.name(), "timing = \"lan\"", "timing = \"wan\"").await?;
        }
    }
    Ok(())
}

async fn long_pauses(cluster: &DevCluster, span: Duration) -> anyhow::Result<Vec<(String, Shown)>> {
    let leader = process_attack::leader(cluster).await?;
    let mut all = Vec::new();
    for victim in ["gateway-1", &leader, "node-3"] {
        let shown = long_pause::strike(cluster, &[victim], span, &format!("/pause-of-{victim}"))
            .await
            .with_context(|| format!("pause {victim}"))?;
        println!("SIGSTOP for {span:?}  {victim}  {shown:?}");
        all.push((victim.to_owned(), shown));
    }
    Ok(all)
}

async fn strike(cluster: &DevCluster, writers: &[Writer], number: usize, blow: Blow) -> anyhow::Result<Round> {
    let groups = u32::try_from(writers.len())?;
    let leaders = process_attack::leaders_at_rest(cluster, groups).await?;
    let led_by = |process: &str| -> Vec<&Writer> {
        let is_led = |writer: &&Writer| leaders.get(&writer.group).is_some_and(|leader| leader == process);
        writers.iter().filter(is_led).collect()
    };
    let victim = leaders.values().max_by_key(|leader| led_by(leader.as_str()).len());
    let victim = victim.context("somebody leads")?.clone();
    let struck = led_by(&victim).into_iter();
    let mut lines: Vec<Line<'_>> = struck.map(|writer| Line::new(writer, number)).collect();
    // Some are under way when it happens.
    for _ in 0..5 {
        lines.iter_mut().for_each(Line::begin);
        tokio::time::sleep(WRITE_EVERY).await;
    }
    let signal = match blow {
        Blow::Kill => Signal::KILL,
        Blow::Pause => Signal::STOP,
    };
    let at = process_attack::signal(cluster, &victim, signal)?;
    let answered = lines.iter_mut().map(|line| line.until_answered(at));
    let answered = futures_util::future::try_join_all(answered).await?;
    if blow == Blow::Kill {
        process_attack::noted(cluster, &victim).await?;
    }
    let successors = process_attack::leaders(cluster, 1..=groups).await?;
    if blow == Blow::Pause {
        process_attack::signal(cluster, &victim, Signal::CONT)?;
    }
    process_attack::start(cluster, &victim).await?;
    let mut struck = Vec::new();
    for (line, (first, last)) in lines.into_iter().zip(answered) {
        let group = line.writer.group;
        let successor = successors[&group].clone();
        ensure!(successor != victim, "{victim} leads group {group} although it is away");
        struck.push(Struck {
            group,
            successor,
            first,
            last,
            waited: line.waited,
            names: line.names,
        });
    }
    Ok(Round { blow, victim, struck })
}

/// The writes of one round at a group that loses its leader.
struct Line<'a> {
    writer: &'a Writer,
    round: usize,
    writes: JoinSet<anyhow::Result<Answered>>,
    count: usize,
    waited: usize,
    names: Vec<String>,
}

impl<'a> Line<'a> {
    fn new(writer: &'a Writer, round: usize) -> Self {
        Self {
            writer,
            round,
            writes: JoinSet::new(),
            count: 0,
            waited: 0,
            names: Vec::new(),
        }
    }

    fn begin(&mut self) {
        let name = format!("{}-{}", self.round, self.count);
        self.writes.spawn(write(self.writer.client.clone(), name));
        self.count += 1;
    }

    /// Begins more until one is answered that was begun after the blow, and waits for all. How long after the blow the first of them
    /// was answered, and the last of all.
    async fn until_answered(&mut self, at: Instant) -> anyhow::Result<(Duration, Duration)> {
        let (mut first, mut last) = (None, Duration::ZERO);
        let mut ticks = tokio::time::interval(WRITE_EVERY);
        while first.is_none() || !self.writes.is_empty() {
            tokio::select! {
                _ = ticks.tick(), if first.is_none() => self.begin(),
                Some(joined) = self.writes.join_next(), if !self.writes.is_empty() => {
                    let answered = joined??;
                    let after = answered.at.saturating_duration_since(at);
                    if answered.begun >= at {
                        first = Some(first.map_or(after, |first: Duration| first.min(after)));
                        self.waited += 1;
                    }
                    last = last.max(after);
                    self.names.push(answered.name);
                }
            }
        }
        Ok((first.context("a write was answered")?, last))
    }
}

struct Answered {
    name: String,
    begun: Instant,
    at: Instant,
}

/// Writes a new file, again after every answer that says so.
async fn write(client: Client, name: String) -> anyhow::Result<Answered> {
    let (begun, path) = (Instant::now(), format!("{FOLDER}/{name}"));
    loop {
        let outcome = client.put(&Target::new_file(path.clone()), "a small file".into()).await;
        match outcome {
            Ok(_) => {
                return Ok(Answered {
                    name,
                    begun,
                    at: Instant::now(),
                });
            }
            Err(error) if error.is_retryable() && begun.elapsed() < WRITE_PATIENCE => {
                tokio::time::sleep(RETRY_AFTER).await;
            }
            Err(error) => bail!("put {path}: {error}"),
        }
    }
}

impl Blow {
    fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Pause => "SIGSTOP",
        }
    }
}

fn rows(rounds: &[Round]) -> Vec<Vec<String>> {
    let heading = [
        "round",
        "blow",
        "leader",
        "of group",
        "next leader",
        "first write ms",
        "last waiting ms",
        "writes that waited",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (number, round) in rounds.iter().enumerate() {
        for struck in &round.struck {
            rows.push(vec![
                number.to_string(),
                round.blow.word().to_owned(),
                round.victim.clone(),
                struck.group.to_string(),
                struck.successor.clone(),
                struck.first.as_millis().to_string(),
                struck.last.as_millis().to_string(),
                struck.waited.to_string(),
            ]);
        }
    }
    for blow in [Blow::Kill, Blow::Pause] {
        let times = sorted(rounds, blow);
        if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
            rows.push(vec![
                String::new(),
                blow.word().to_owned(),
                "median, longest".to_owned(),
                String::new(),
                String::new(),
                format!("{}, {}", median.as_millis(), longest.as_millis()),
                String::new(),
                String::new(),
            ]);
        }
    }
    rows
}

fn rows_of_long(long: &[(String, Shown)]) -> Vec<Vec<String>> {
    let heading = [
        "stopped",
        "under way",
        "in their commit",
        "served meanwhile",
        "acknowledged",
        "unanswered",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (victim, shown) in long {
        let numbers = [
            shown.caught,
            shown.in_commit,
            shown.meanwhile,
            shown.acknowledged,
            shown.unanswered,
        ];
        rows.push(
            std::iter::once(victim.clone())
                .chain(numbers.map(|number| number.to_string()))
                .collect(),
        );
    }
    rows
}

/// How long each blow of a sort stopped the writes of the groups that it cost their leader, in order.
fn sorted(rounds: &[Round], blow: Blow) -> Vec<Duration> {
    let of_blow = rounds.iter().filter(|round| round.blow == blow);
    let mut times: Vec<Duration> = of_blow.map(Round::first).collect();
    times.sort();
    times
}
