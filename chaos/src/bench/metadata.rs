//! Commits and linearizable reads: what metadata does alone, without content, for one caller and for many.
//!
//! A commit is a folder made over HTTP: one command through a group's log. A read is one folder looked up over HTTP: one query behind a
//! read-index. What the replicas counted meanwhile stands beside, so that the trip to the gateway can be told from the group's share.
//! Invariant: every folder is new, and every answer of a read is compared with what was made.

use super::calls::{Counter, repeated, spawned};
use super::figure::{Direction, Figure, Phase, Sample};
use super::read_pairs::ReadPairs;
use super::watch::ClusterWatch;
use crate::dev_cluster::DevCluster;
use crate::meter;
use crate::process_attack;
use anyhow::{Context, ensure};
use client_sdk::client::Client;
use futures_util::{StreamExt, TryStreamExt};
use serde::Serialize;
use std::ops::Range;
use std::time::Instant;

/// The row that the goal of a commit is held against.
pub(super) const COMMIT_ALONE: &str = "commit, 1 writer";
/// Reads by many at a replica that follows, and at the leader in turns with them.
pub(super) const READS_AT_NEAREST: &str = "linearizable read, 64 readers, nearest replica";
pub(super) const READS_IN_TURN: &str = "linearizable read, 64 readers, leader in turn";
/// Each order of the two as often as the other; `pairs` says what sixteen can tell.
pub(crate) const PAIRS: usize = 16;
/// One turn; with the gateway's new start some one and a half seconds on two cores. Guess.
const TURN_READS: usize = 3_000;
/// Before the clock of a turn starts, so that no connection and no session is first made within it.
const WARM_UP_READS: usize = 4 * AT_ONCE;
/// Below this the nearest replica was not asked as a follower, and nothing was compared.
pub(super) const PERCENT_AT_FOLLOWERS_MIN: f64 = 50.0;
const AT_ONCE: usize = 64;
const FOLDERS: &str = "/bench/commits";
const GATEWAY: &str = "gateway-1";

/// How many of each.
struct Counts {
    commits_alone: usize,
    commits: usize,
    reads_alone: usize,
    reads: usize,
}

const FULL: Counts = Counts {
    commits_alone: 1_000,
    commits: 10_000,
    reads_alone: 2_000,
    reads: 20_000,
};
const QUICK: Counts = Counts {
    commits_alone: 50,
    commits: 500,
    reads_alone: 100,
    reads: 1_000,
};

/// Whom the gateway asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asks {
    Leader,
    Nearest,
}

impl Asks {
    /// The line of the gateway's configuration.
    fn line(self) -> &'static str {
        match self {
            Self::Leader => "metadata_reads = \"leader\"",
            Self::Nearest => "metadata_reads = \"nearest\"",
        }
    }

    /// The row of the reads.
    fn row(self) -> &'static str {
        match self {
            Self::Leader => READS_IN_TURN,
            Self::Nearest => READS_AT_NEAREST,
        }
    }
}

/// What the replicas' own counters say of drive groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct GroupCalls {
    pub(super) commands: f64,
    /// From a command's arrival at the leader to its answer, on average.
    pub(super) command_mean_ms: f64,
    pub(super) queries: f64,
    /// From a query's arrival at a replica to its answer, read-index included, on average.
    pub(super) query_mean_ms: f64,
    /// Queries that followers answered, in percent.
    pub(super) percent_at_followers: f64,
}

/// Counters of all replicas, summed.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    commands: f64,
    command_s: f64,
    queries: f64,
    query_s: f64,
    follower_reads: f64,
}

impl Counted {
    async fn read(cluster: &DevCluster) -> anyhow::Result<Self> {
        let mut counted = Self::default();
        let replicas = cluster.facts_now()?.processes.into_iter();
        for replica in replicas.filter(|process| process.role == "metadata" && process.pid.is_some()) {
            let status = replica.status.context("a replica has a status port")?;
            counted.add(&Client::new(&format!("http://{status}"))?.text("/metrics").await?);
        }
        Ok(counted)
    }

    fn add(&mut self, page: &str) {
        let sum = |name: &str| meter::sum(page, &format!("{name}{{kind=\"drive\"}}")).unwrap_or(0.0);
        self.commands += sum("metadata_propose_seconds_count");
        self.command_s += sum("metadata_propose_seconds_sum");
        self.queries += sum("metadata_query_seconds_count");
        self.query_s += sum("metadata_query_seconds_sum");
        self.follower_reads += sum("metadata_follower_reads_total");
    }

    fn since(&self, before: &Self) -> GroupCalls {
        let (commands, queries) = (self.commands - before.commands, self.queries - before.queries);
        // Of nothing the mean is shown as zero.
        let mean_ms = |seconds: f64, count: f64| seconds * 1e3 / count.max(1.0);
        GroupCalls {
            commands,
            command_mean_ms: mean_ms(self.command_s - before.command_s, commands),
            queries,
            query_mean_ms: mean_ms(self.query_s - before.query_s, queries),
            percent_at_followers: (self.follower_reads - before.follower_reads) * 100.0 / queries.max(1.0),
        }
    }
}

/// Commits and reads, alone and together, as the cluster is.
pub(super) async fn run(
    cluster: &DevCluster,
    client: &Client,
    watch: &ClusterWatch,
    quick: bool,
) -> anyhow::Result<Vec<Figure>> {
    let counts = if quick { QUICK } else { FULL };
    let mut figures = Vec::new();
    for (name, folders, at_once) in [
        (COMMIT_ALONE, counts.commits_alone, 1),
        ("commit, 64 writers", counts.commits, AT_ONCE),
    ] {
        let before = Counted::read(cluster).await?;
        let parent = format!("{FOLDERS}-{at_once}");
        let mut figure = make_folders(client, watch, name, &parent, folders, at_once).await?;
        figure.groups = Some(Counted::read(cluster).await?.since(&before));
        figures.push(figure);
    }
    for (name, reads, at_once) in [
        ("linearizable read, 1 reader", counts.reads_alone, 1),
        ("linearizable read, 64 readers", counts.reads, AT_ONCE),
    ] {
        figures.push(read(cluster, client, watch, name, reads, at_once, counts.commits).await?);
    }
    Ok(figures)
}

/// The same reads while the gateway asks the nearest replica, which follows, and while it asks the leader, in pairs of turns; the
/// median of each, and what the pairs say. The watch of before has lost these processes then.
pub(super) async fn run_in_turns(cluster: &DevCluster, client: &Client, quick: bool) -> anyhow::Result<[Figure; 2]> {
    let (folders, reads, pairs) = if quick {
        (QUICK.commits, QUICK.reads, 1)
    } else {
        (FULL.commits, TURN_READS, PAIRS)
    };
    let (mut nearest, mut leader) = (Vec::new(), Vec::new());
    let_nearest_follow(cluster).await?;
    let mut asked = Asks::Leader;
    for pair in 0..pairs {
        let mut turns = [Asks::Nearest, Asks::Leader];
        turns.rotate_left(pair % 2);
        for asks in turns {
            start_asking(cluster, asked, asks).await?;
            asked = asks;
            let watch = ClusterWatch::of(&cluster.facts_now()?, cluster.pid());
            warm_up(client, reads, folders).await?;
            let figure = read(cluster, client, &watch, asks.row(), reads, AT_ONCE, folders).await?;
            match asks {
                Asks::Nearest => nearest.push(figure),
                Asks::Leader => leader.push(figure),
            }
        }
    }
    let pairs = ReadPairs::of(&nearest, &leader)?;
    let mut nearest = median(nearest)?;
    nearest.pairs = Some(pairs);
    Ok([nearest, median(leader)?])
}

/// Starts the gateway again, whether or not it asks another than before: every turn is one of a new gateway, which keeps no answers.
async fn start_asking(cluster: &DevCluster, asked: Asks, asks: Asks) -> anyhow::Result<()> {
    if asked != asks {
        return process_attack::reconfigure(cluster, GATEWAY, asked.line(), asks.line()).await;
    }
    start_gateway_again(cluster).await
}

/// A new gateway holds nothing of what others have done before. A watch of before has lost its process then.
pub(super) async fn start_gateway_again(cluster: &DevCluster) -> anyhow::Result<()> {
    process_attack::stop(cluster, GATEWAY).await?;
    process_attack::start(cluster, GATEWAY).await
}

/// Reads that count for nothing, of the folders after those of the turn.
async fn warm_up(client: &Client, reads: usize, folders: usize) -> anyhow::Result<()> {
    let counter = Counter::start("warm-up", WARM_UP_READS);
    look_at(client, &counter, reads..reads + WARM_UP_READS, AT_ONCE, folders).await?;
    Ok(())
}

/// The figure in the middle by its rate.
fn median(mut figures: Vec<Figure>) -> anyhow::Result<Figure> {
    figures.sort_by(|one, other| one.operations_per_s.total_cmp(&other.operations_per_s));
    ensure!(!figures.is_empty(), "no turn was measured");
    Ok(figures.swap_remove(figures.len() / 2))
}

/// Starts the replica of the gateway's region again, which hands over what it leads when it stops: as a leader it would be asked
/// either way.
async fn let_nearest_follow(cluster: &DevCluster) -> anyhow::Result<()> {
    let region = process_attack::process(cluster, GATEWAY)?.region;
    let mut processes = cluster.facts_now()?.processes.into_iter();
    let replica = processes.find(|process| process.role == "metadata" && process.region == region);
    let replica = replica.context("the gateway's region has no replica")?.name();
    process_attack::stop(cluster, &replica).await?;
    process_attack::start(cluster, &replica).await
}

/// Reading at a follower is to be no slower than at the leader: one machine and one run, so no machine is too slow for it. Also fails a
/// run that was to measure both and did not.
///
/// shows: D-3.3 side=no-slower, SCL-1 side=no-slower
pub(super) fn judge(figures: &[Figure]) -> anyhow::Result<()> {
    let name = READS_AT_NEAREST;
    let nearest = figures.iter().find(|figure| figure.name == name);
    let pairs = nearest.and_then(|figure| figure.pairs.as_ref());
    let pairs = pairs.with_context(|| format!("`{name}` was not measured in pairs of turns"))?;
    ensure!(
        pairs.percent_at_followers_min >= PERCENT_AT_FOLLOWERS_MIN,
        "followers answered {:.0} % of a turn of `{name}`: the nearest replica led, so nothing was compared; run it again",
        pairs.percent_at_followers_min
    );
    ensure!(!pairs.is_slower(), "`{name}` is slower: {}", pairs.text());
    Ok(())
}

/// Makes `folders` new folders in `parent`.
pub(super) async fn make_folders(
    client: &Client,
    watch: &ClusterWatch,
    name: &str,
    parent: &str,
    folders: usize,
    at_once: usize,
) -> anyhow::Result<Figure> {
    client
        .make_folder(parent)
        .await
        .with_context(|| format!("make folder {parent}"))?;
    let counter = Counter::start(name, folders);
    let phase = Phase::begin(watch, name.to_owned(), Direction::Metadata, at_once)?;
    let samples: Vec<Sample> = futures_util::stream::iter(0..folders)
        .map(|number| spawned(make(client.clone(), folder_path(parent, number)), &counter))
        .buffer_unordered(at_once)
        .try_collect()
        .await?;
    let made = phase.end(&samples)?;
    counter.stop(&made);
    Ok(made)
}

/// The path of a folder that was made; names sort by their numbers.
pub(super) fn folder_path(parent: &str, number: usize) -> String {
    format!("{parent}/{number:05}")
}

async fn make(client: Client, path: String) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let (_, repeats) = repeated(|| client.make_folder(&path))
        .await
        .with_context(|| format!("make folder {path}"))?;
    Ok(Sample {
        took: begun.elapsed(),
        bytes: 0,
        repeats,
    })
}

/// Looks up the folders of the commit phase, `folders` of them, over and over.
async fn read(
    cluster: &DevCluster,
    client: &Client,
    watch: &ClusterWatch,
    name: &str,
    reads: usize,
    at_once: usize,
    folders: usize,
) -> anyhow::Result<Figure> {
    let before = Counted::read(cluster).await?;
    let counter = Counter::start(name, reads);
    let phase = Phase::begin(watch, name.to_owned(), Direction::Metadata, at_once)?;
    let samples = look_at(client, &counter, 0..reads, at_once, folders).await?;
    let mut figure = phase.end(&samples)?;
    figure.groups = Some(Counted::read(cluster).await?.since(&before));
    counter.stop(&figure);
    Ok(figure)
}

/// Looks with these numbers, each at the folder of its number.
async fn look_at(
    client: &Client,
    counter: &Counter,
    numbers: Range<usize>,
    at_once: usize,
    folders: usize,
) -> anyhow::Result<Vec<Sample>> {
    let parent = format!("{FOLDERS}-{AT_ONCE}");
    futures_util::stream::iter(numbers)
        .map(|number| spawned(look(client.clone(), folder_path(&parent, number % folders)), counter))
        .buffer_unordered(at_once)
        .try_collect()
        .await
}

async fn look(client: Client, path: String) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let (listing, repeats) = repeated(|| client.list(&path, 1, None))
        .await
        .with_context(|| format!("look up {path}"))?;
    ensure!(
        path.ends_with(&format!("/{}", listing.entry.name)),
        "{} was answered for {path}",
        listing.entry.name
    );
    ensure!(listing.entries.is_empty(), "{path} is not empty");
    Ok(Sample {
        took: begun.elapsed(),
        bytes: 0,
        repeats,
    })
}

#[cfg(test)]
mod tests {
    use super::{Counted, Figure, GroupCalls, READS_AT_NEAREST, READS_IN_TURN, ReadPairs, judge, median};
    use crate::bench::figure::tests::figure as bare;

    const BEFORE: &str = "metadata_propose_seconds_count{kind=\"drive\",process=\"metadata-1\"} 10\n\
        metadata_propose_seconds_sum{kind=\"drive\",process=\"metadata-1\"} 1\n\
        metadata_propose_seconds_count{kind=\"control\",process=\"metadata-1\"} 900\n";
    const AFTER: &str = "metadata_propose_seconds_count{kind=\"drive\",process=\"metadata-1\"} 30\n\
        metadata_propose_seconds_sum{kind=\"drive\",process=\"metadata-1\"} 1.1\n\
        metadata_query_seconds_count{kind=\"drive\",process=\"metadata-1\"} 8\n\
        metadata_query_seconds_sum{kind=\"drive\",process=\"metadata-1\"} 0.4\n\
        metadata_follower_reads_total{kind=\"drive\",process=\"metadata-1\"} 2\n";

    #[test]
    fn what_groups_counted_is_the_difference_of_their_pages() {
        let mut before = Counted::default();
        before.add(BEFORE);
        let mut after = Counted::default();
        after.add(AFTER);
        let calls = after.since(&before);
        assert_eq!((calls.commands, calls.queries), (20.0, 8.0));
        assert!((calls.command_mean_ms - 5.0).abs() < 1e-9, "{}", calls.command_mean_ms);
        assert!((calls.query_mean_ms - 50.0).abs() < 1e-9, "{}", calls.query_mean_ms);
        assert_eq!(calls.percent_at_followers, 25.0);
    }

    fn figure(name: &str, operations_per_s: f64, percent_at_followers: f64) -> Figure {
        Figure {
            operations_per_s,
            groups: Some(GroupCalls {
                percent_at_followers,
                ..GroupCalls::default()
            }),
            ..bare(name)
        }
    }

    /// A run of turns at the nearest replica, with the part that followers answered, beside turns at the leader.
    fn run(nearest: &[(f64, f64)], leader: &[f64]) -> anyhow::Result<[Figure; 2]> {
        let turns: Vec<Figure> = nearest
            .iter()
            .map(|(rate, percent)| figure(READS_AT_NEAREST, *rate, *percent))
            .collect();
        let in_turn: Vec<Figure> = leader.iter().map(|rate| figure(READS_IN_TURN, *rate, 0.0)).collect();
        let pairs = ReadPairs::of(&turns, &in_turn)?;
        let mut nearest = median(turns)?;
        nearest.pairs = Some(pairs);
        Ok([nearest, median(in_turn)?])
    }

    #[test]
    fn a_follower_is_no_slower_than_the_leader_or_the_run_fails_and_says_so() {
        for (nearest, percent, expected) in [
            ([100.0, 250.0, 90.0], 100.0, ""),
            ([99.0, 201.0, 99.0], 50.0, ""),
            ([80.0, 160.0, 80.0], 100.0, "is slower: 0.800 of the leader's rate"),
            ([200.0, 400.0, 200.0], 49.0, "followers answered 49 %"),
        ] {
            let turns = [(nearest[0], 100.0), (nearest[1], percent), (nearest[2], 100.0)];
            let both = run(&turns, &[100.0, 200.0, 100.0]).unwrap();
            match (judge(&both), expected) {
                (Ok(()), "") => {}
                (Err(error), expected) if !expected.is_empty() => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (judged, _) => panic!("{nearest:?} {percent}: {judged:?}"),
            }
            assert!(judge(&both[1..]).is_err(), "nothing to compare");
        }
    }

    #[test]
    fn turns_without_a_partner_or_without_a_read_are_no_pairs() {
        assert!(run(&[(1.0, 100.0)], &[]).is_err());
        assert!(run(&[], &[]).is_err());
        assert!(run(&[(1.0, 100.0)], &[0.0]).is_err());
        assert!(run(&[(1.0, 100.0)], &[1.0]).is_ok());
    }

    #[test]
    fn of_three_turns_the_middle_one_counts() {
        let turns = [3.0, 1.0, 2.0].map(|rate| figure("x", rate, 0.0));
        assert_eq!(median(turns.into()).unwrap().operations_per_s, 2.0);
        assert!(median(Vec::new()).is_err());
    }

    #[test]
    fn of_nothing_counted_every_mean_is_zero() {
        let calls = Counted::default().since(&Counted::default());
        assert_eq!(
            (calls.command_mean_ms, calls.query_mean_ms, calls.percent_at_followers),
            (0.0, 0.0, 0.0)
        );
    }
}
