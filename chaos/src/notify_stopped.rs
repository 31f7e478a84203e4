//! Commits while the processes that notify run, and while every one of them is dead: how long they take, in pairs of turns, and that
//! followers are told of all of it afterwards (D-2.4).
//!
//! A folder is made every few milliseconds, far below what the cluster can do, so that what followers are told in between takes no
//! time of the next commit. Each turn begins when every follower has been told of all that was made before, or with a `kill -9`.
//! Invariant: each follower is told every change once and in the order of the commits, across all deaths.
//! Not here: what polls cost (`polls`), followers while metadata dies (tests/cluster).

use crate::dev_cluster::DevCluster;
use crate::pairs::Pairs;
use crate::percentile::percentile;
use crate::{process_attack, table};
use anyhow::{Context, bail, ensure};
use api::change::Change;
use clap::Parser;
use client_sdk::client::Client;
use client_sdk::follow::Course;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Arguments of `holdfast dev` for one gateway for everything else, and three that notify.
pub const OPTIONS: [&str; 13] = [
    "--processes",
    "--groups",
    "1",
    "--gateways",
    "4",
    "--functions",
    "api,block",
    "--functions",
    "notify",
    "--functions",
    "notify",
    "--functions",
    "notify",
];
const NOTIFIERS: [&str; 3] = ["gateway-2", "gateway-3", "gateway-4"];
const FOLDER: &str = "/told";
/// Each order of the two as often as the other.
const PAIRS: usize = 6;
/// At the beginning of each turn; they do not count.
const WARM_UP: usize = 50;
/// A commit takes a third of it. Guess.
const COMMIT_EVERY: Duration = Duration::from_millis(15);
/// What is unchanged.
const CHANGE_MAX: f64 = 0.10;
/// With more noise a run has no result. By simulation of normal ratios that differ by 10 % from each other (standard deviation), one run
/// of fifty of an unchanged p99 has none and one of thirty is called changed; a p99 that is longer by 15 % passes in one run of six, one
/// that is longer by a quarter in one of 250.
const NOISE_MAX: f64 = 0.05;
/// Of each poll; a follower whose gateway died comes again sooner.
const WAIT: Duration = Duration::from_secs(60);
/// A follower is back ten seconds after its gateway; who is not told by then has lost something.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Arguments of the measurement.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success.
    #[arg(long, default_value = "target/notify-stopped")]
    data_dir: PathBuf,
    /// Commits of each of the twelve turns.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..))]
    commits: u64,
    /// How many follow the drive, at each notifier as many.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    followers: u64,
}

/// Of the processes that notify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notifiers {
    Running,
    Dead,
}

/// How long the commits of a turn took.
#[derive(Clone, Copy, Debug)]
struct Turn {
    notifiers: Notifiers,
    p50: Duration,
    p99: Duration,
}

/// Takes all turns and judges; an error when commits take another time without notifiers, or a follower is not told of one.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let turns = DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &OPTIONS, async |cluster| {
        measure(cluster, &arguments).await
    })
    .await?;
    print!("{}", table::render(&rows(&turns)));
    let pairs = pairs(&turns)?;
    println!(
        "p99 of a commit without notifiers: {:.3} of that with them, {}",
        pairs.median,
        pairs.text()
    );
    judge(&pairs)?;
    println!("passed: commits take as long without notifiers, and nothing of them was missed");
    Ok(())
}

async fn measure(cluster: &DevCluster, arguments: &Arguments) -> anyhow::Result<Vec<Turn>> {
    let client = cluster.client().await?;
    let commits = usize::try_from(arguments.commits)?;
    let folder = client.make_folder(FOLDER).await?;
    let start = client.changes(None, 1, false).await?.cursor;
    let total = 2 * PAIRS * (WARM_UP + commits);
    let mut followers = Followers::begin(cluster, &client, arguments.followers, &start, total)?;
    let (mut turns, mut made, mut now) = (Vec::new(), 0, Notifiers::Running);
    for pair in 0..PAIRS {
        let mut both = [Notifiers::Running, Notifiers::Dead];
        both.rotate_left(pair % 2);
        for notifiers in both {
            change(cluster, now, notifiers).await?;
            now = notifiers;
            if now == Notifiers::Running {
                followers.reach(made).await?;
            }
            let told = followers.told();
            let turn = turn(&client, &folder.id, notifiers, made, commits).await?;
            ensure!(
                now == Notifiers::Dead || followers.told() > told,
                "nobody was told of anything during a turn with notifiers: it says nothing of them"
            );
            made += WARM_UP + commits;
            println!("{}", row(&turn).join(", "));
            turns.push(turn);
        }
    }
    change(cluster, now, Notifiers::Running).await?;
    followers.reach(total).await?;
    followers.end(&client).await?;
    println!("{} followers were told of {total} commits each", arguments.followers);
    Ok(turns)
}

/// Kills or starts every process that notifies, unless they are so already.
async fn change(cluster: &DevCluster, now: Notifiers, wanted: Notifiers) -> anyhow::Result<()> {
    if now == wanted {
        return Ok(());
    }
    for name in NOTIFIERS {
        match wanted {
            Notifiers::Running => process_attack::start(cluster, name).await?,
            Notifiers::Dead => {
                process_attack::kill(cluster, name).await?;
            }
        }
    }
    Ok(())
}

/// Makes folders from number `first` on, the first ones to warm up, each when it is due or as soon as the one before is there.
async fn turn(
    client: &Client,
    parent: &str,
    notifiers: Notifiers,
    first: usize,
    commits: usize,
) -> anyhow::Result<Turn> {
    let mut pace = tokio::time::interval(COMMIT_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut took = Vec::new();
    for number in first..first + WARM_UP + commits {
        pace.tick().await;
        let begun = Instant::now();
        let path = format!("{FOLDER}/{}", name(number));
        let made = client
            .make_folder(&path)
            .await
            .with_context(|| format!("make {path}"))?;
        took.push(begun.elapsed());
        ensure!(made.parent.as_deref() == Some(parent), "{path} lies elsewhere");
    }
    let mut took = took.split_off(WARM_UP);
    took.sort_unstable();
    Ok(Turn {
        notifiers,
        p50: percentile(&took, 50),
        p99: percentile(&took, 99),
    })
}

fn name(number: usize) -> String {
    format!("{number:06}")
}

/// All who follow the drive.
struct Followers(Vec<Follower>);

/// One of them.
struct Follower {
    /// Ends with the cursor behind the last commit.
    following: JoinHandle<anyhow::Result<String>>,
    /// Of how many commits it was told.
    told: Arc<AtomicUsize>,
}

impl Followers {
    /// Begins behind `start`; each ends when it was told of `total` commits.
    fn begin(cluster: &DevCluster, client: &Client, count: u64, start: &str, total: usize) -> anyhow::Result<Self> {
        let token = client.token().context("who has signed in has a token")?;
        let mut gateways = Vec::new();
        for name in NOTIFIERS {
            let url = process_attack::process(cluster, name)?.url;
            let url = url.with_context(|| format!("{name} has no URL"))?;
            gateways.push(Client::new(&url)?.with_token(token));
        }
        let follower = |number: u64| {
            let told = Arc::new(AtomicUsize::new(0));
            let following = follow(gateways.clone(), number, start.to_owned(), Arc::clone(&told), total);
            Follower {
                following: tokio::spawn(following),
                told,
            }
        };
        Ok(Self((0..count).map(follower).collect()))
    }

    /// Of how many commits all of them together were told.
    fn told(&self) -> usize {
        self.0
            .iter()
            .map(|follower| follower.told.load(Ordering::Acquire))
            .sum()
    }

    /// Returns once every one was told of so many commits; an error when one has ended before, or is not told for too long.
    async fn reach(&mut self, commits: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let lacks = |follower: &Follower| follower.told.load(Ordering::Acquire) < commits;
            let Some(at) = self.0.iter().position(lacks) else {
                return Ok(());
            };
            if self.0[at].following.is_finished() {
                let ended = self.0.swap_remove(at).following.await?;
                bail!("a follower ended before it was told of {commits} commits: {ended:?}");
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "a follower was told of {} of {commits} commits",
                self.0[at].told.load(Ordering::Acquire)
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Behind where each stands nothing more is told.
    async fn end(self, client: &Client) -> anyhow::Result<()> {
        for follower in self.0 {
            let cursor = follower.following.await??;
            let rest = client.changes(Some(&cursor), 1, false).await?.changes;
            ensure!(rest.is_empty(), "more is told than was done: {rest:?}");
        }
        Ok(())
    }
}

/// Polls at one notifier after the other until it was told of `total` commits; gives the cursor behind them.
async fn follow(
    gateways: Vec<Client>,
    number: u64,
    mut cursor: String,
    told: Arc<AtomicUsize>,
    total: usize,
) -> anyhow::Result<String> {
    let mut random = ChaCha8Rng::seed_from_u64(number);
    let mut course = Course::new(gateways.len(), number);
    let mut sequence = None;
    while told.load(Ordering::Acquire) < total {
        let pause = match gateways[course.gateway()].poll(&cursor, WAIT).await {
            Ok(answer) => {
                take(&answer.events, &told, &mut sequence).with_context(|| format!("follower {number}"))?;
                let pause = course.answered(&answer);
                cursor = answer.cursor;
                pause
            }
            Err(error) => {
                let pause = course.failed(&error, random.next_u64());
                pause.with_context(|| format!("follower {number} is refused: {error}"))?
            }
        };
        tokio::time::sleep(pause).await;
    }
    Ok(cursor)
}

/// Takes events in; an error when one is not of the next commit.
fn take(events: &[Change], told: &AtomicUsize, sequence: &mut Option<u64>) -> anyhow::Result<()> {
    for event in events {
        let number = told.load(Ordering::Acquire);
        let (found, expected) = (event.entry.as_ref().map(|entry| &entry.name), name(number));
        ensure!(
            found == Some(&expected),
            "told of {found:?} where {expected} is the next"
        );
        let is_next = sequence.is_none_or(|before| event.sequence == before + 1);
        ensure!(is_next, "{expected} is change {} behind {sequence:?}", event.sequence);
        *sequence = Some(event.sequence);
        told.store(number + 1, Ordering::Release);
    }
    Ok(())
}

/// Of each pair p99 without notifiers over p99 with them.
fn pairs(turns: &[Turn]) -> anyhow::Result<Pairs> {
    let of = |notifiers: Notifiers| turns.iter().filter(move |turn| turn.notifiers == notifiers);
    let both = of(Notifiers::Dead).zip(of(Notifiers::Running));
    Pairs::of(
        both.map(|(dead, running)| dead.p99.as_secs_f64() / running.p99.as_secs_f64())
            .collect(),
    )
}

/// Run by `make notify-stopped`. The median is judged and not each pair: a tenth more or less is allowed already, and of pairs that
/// must all be over it one that is not would let pass whatever the others say. Noise adds nothing to what is allowed: where it is large
/// there is no result, neither a good one nor a bad one.
fn judge(pairs: &Pairs) -> anyhow::Result<()> {
    ensure!(
        pairs.noise <= NOISE_MAX,
        "no result: the pairs differ too much from each other to say anything of {CHANGE_MAX}: {}; measure again on a machine without \
         other work, or with more --commits",
        pairs.text()
    );
    ensure!(
        pairs.median <= 1.0 + CHANGE_MAX,
        "commits take longer while nobody notifies: by more than {CHANGE_MAX}"
    );
    ensure!(
        pairs.median >= 1.0 - CHANGE_MAX,
        "commits wait for those who notify: by more than {CHANGE_MAX}"
    );
    Ok(())
}

fn rows(turns: &[Turn]) -> Vec<Vec<String>> {
    let heading = ["notifiers", "commit p50", "commit p99"].map(str::to_owned);
    std::iter::once(heading.to_vec()).chain(turns.iter().map(row)).collect()
}

fn row(turn: &Turn) -> Vec<String> {
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    vec![format!("{:?}", turn.notifiers), ms(turn.p50), ms(turn.p99)]
}

#[cfg(test)]
mod tests {
    use super::{Duration, Notifiers, PAIRS, Turn, judge, pairs};

    /// What a run with nothing to say says.
    const NO_RESULT: &str = "no result";

    /// Turns whose commits take so long with notifiers, and without, and what is said of them: nothing of those that pass.
    fn check(with_ms: [u64; PAIRS], without_ms: [u64; PAIRS], expected: &str) {
        let turn = |notifiers: Notifiers, ms: u64| Turn {
            notifiers,
            p50: Duration::ZERO,
            p99: Duration::from_millis(ms),
        };
        let mut turns = Vec::new();
        for (number, (with, without)) in with_ms.into_iter().zip(without_ms).enumerate() {
            let mut both = [turn(Notifiers::Running, with), turn(Notifiers::Dead, without)];
            both.rotate_left(number % 2);
            turns.extend(both);
        }
        let pairs = pairs(&turns).unwrap();
        let said = judge(&pairs).map_or_else(|error| error.to_string(), |()| String::new());
        assert!(
            said.starts_with(expected) && said.is_empty() == expected.is_empty(),
            "{pairs:?}: {said}"
        );
    }

    #[test]
    fn less_than_a_tenth_more_or_less_is_unchanged_and_over_it_in_most_pairs_is_not() {
        let (longer, shorter) = ("commits take longer", "commits wait");
        check([20; PAIRS], [20; PAIRS], "");
        check([200; PAIRS], [219; PAIRS], "");
        check([200; PAIRS], [181; PAIRS], "");
        check([200; PAIRS], [221; PAIRS], longer);
        check([200; PAIRS], [179; PAIRS], shorter);
        // One pair that is not over it saves nothing, and one that is spoils nothing.
        check([20, 20, 20, 20, 20, 30], [25; PAIRS], longer);
        check([20, 20, 20, 20, 20, 30], [20; PAIRS], "");
        check([200, 220, 190, 210, 200, 195], [205, 210, 200, 200, 198, 200], "");
        check([20, 22, 18, 21, 20, 19], [40, 41, 39, 44, 42, 40], longer);
    }

    #[test]
    fn noise_adds_nothing_to_the_tenth() {
        // A median of 1.12, and of 0.88, with a noise of 0.024.
        let longer = [210, 238, 224, 212, 236, 224];
        check([200; PAIRS], longer, "commits take longer");
        check([200; PAIRS], longer.map(|ms| ms - 48), "commits wait");
    }

    #[test]
    fn pairs_that_differ_too_much_have_no_result_whatever_their_median_is() {
        check([20; PAIRS], [15, 26, 20, 14, 27, 20], NO_RESULT);
        check([20; PAIRS], [30, 52, 40, 28, 54, 40], NO_RESULT);
        check([20; PAIRS], [18, 22, 20, 18, 22, 20], "");
    }

    #[test]
    fn turns_of_one_kind_are_no_pairs() {
        let turn = Turn {
            notifiers: Notifiers::Running,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
        };
        assert!(pairs(&[turn]).is_err() && pairs(&[]).is_err());
        let dead = Turn {
            notifiers: Notifiers::Dead,
            ..turn
        };
        assert!(pairs(&[turn, dead]).is_err(), "nothing was measured");
    }
}
