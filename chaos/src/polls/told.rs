//! How soon waiting polls are told of a change: one after another among a thousand that wait for others, and a thousand at once.
//!
//! Not here: what polls cost while nothing happens (`polls`).

use super::crowd::{Crowd, Way};
use super::{accounts, wait_for};
use crate::dev_cluster::DevCluster;
use anyhow::{Context, bail, ensure};
use client_sdk::client::Client;
use futures_util::stream::{FuturesUnordered, TryStreamExt};
use reqwest::Method;
use serde_json::json;
use std::fmt;
use std::time::{Duration, Instant};

const IDLE: usize = 1_000;
const COMMITS: usize = 200;
const CLIENTS: usize = 1_000;
const WAIT: Duration = Duration::from_secs(60);
const SEEN_P50_MAX: Duration = Duration::from_millis(15);
const SEEN_P99_MAX: Duration = Duration::from_millis(100);
const ALL_P99_MAX: Duration = Duration::from_secs(1);

/// Spans from the call that changes something, so with the commit itself, to the poll's answer at its client.
#[derive(Debug)]
pub(super) struct Told {
    /// Of one poll, each time; ascending.
    seen: Vec<Duration>,
    /// Of a thousand that were told of one change; ascending.
    all: Vec<Duration>,
}

/// Measures both in a fresh cluster.
pub(super) async fn measure(cluster: &DevCluster) -> anyhow::Result<Told> {
    let people = accounts(cluster, 2).await?;
    let idle = vec![people[0].clone()];
    let mut crowd = Crowd::new(&cluster.facts.url, idle, Way::Http1, 480).await?;
    crowd.grow(IDLE).await?;
    wait_for(cluster, IDLE).await?;
    let (token, cursor) = &people[1];
    let client = Client::new(&cluster.facts.url)?.with_token(token);
    let (seen, cursor) = seen(cluster, &client, token, cursor.clone()).await?;
    let all = all(cluster, &client, token, &cursor).await?;
    crowd.is_well()?;
    Ok(Told { seen, all })
}

/// One change after the other, each with a poll that waits for it.
async fn seen(
    cluster: &DevCluster,
    client: &Client,
    token: &str,
    mut cursor: String,
) -> anyhow::Result<(Vec<Duration>, String)> {
    let waiting = Client::new(&cluster.facts.url)?.with_token(token);
    let mut spans = Vec::new();
    for number in 0..COMMITS {
        let (poller, behind) = (waiting.clone(), cursor.clone());
        let poll = tokio::spawn(async move {
            let told = poller.poll(&behind, WAIT).await;
            told.map(|told| (told, Instant::now()))
        });
        wait_for(cluster, IDLE + 1).await?;
        let begun = Instant::now();
        client.make_folder(&format!("/told {number}")).await?;
        let (told, at) = poll.await?.context("poll")?;
        ensure!(told.changes, "a poll slept through a change");
        spans.push(at.saturating_duration_since(begun));
        cursor = told.cursor;
    }
    spans.sort_unstable();
    Ok((spans, cursor))
}

/// A thousand clients of one drive, and one rename.
async fn all(cluster: &DevCluster, client: &Client, token: &str, cursor: &str) -> anyhow::Result<Vec<Duration>> {
    let folder = client.list("/told 0", 1, None).await?.entry;
    let mut polls = FuturesUnordered::new();
    for _ in 0..CLIENTS {
        let (poller, behind) = (Client::new(&cluster.facts.url)?.with_token(token), cursor.to_owned());
        polls.push(tokio::spawn(async move {
            let told = poller.poll(&behind, WAIT).await;
            told.map(|told| (told.changes, Instant::now()))
        }));
    }
    tokio::select! {
        all_wait = wait_for(cluster, IDLE + CLIENTS) => all_wait?,
        ended = polls.try_next() => bail!("a poll ended before anything changed: {ended:?}"),
    }
    let begun = Instant::now();
    let entry = format!("/api/v1/metadata/{}", folder.id);
    client
        .json(Method::PATCH, &entry, Some(&json!({"name": "told all"})))
        .await?;
    let mut spans = Vec::new();
    while let Some(answer) = polls.try_next().await? {
        let (changes, at) = answer?;
        ensure!(changes, "a poll slept through a change");
        spans.push(at.saturating_duration_since(begun));
    }
    spans.sort_unstable();
    Ok(spans)
}

fn part(spans: &[Duration], percent: usize) -> Duration {
    let at = (spans.len() * percent).div_ceil(100).saturating_sub(1);
    spans.get(at).copied().unwrap_or(Duration::MAX)
}

impl Told {
    /// Run by `make polls`.
    ///
    /// shows: QAS-012, NF-sync, US-3.3 side=in-time
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        ensure!(
            part(&self.seen, 50) <= SEEN_P50_MAX && part(&self.seen, 99) <= SEEN_P99_MAX,
            "polls were told later than p50 {SEEN_P50_MAX:?}, p99 {SEEN_P99_MAX:?}"
        );
        ensure!(
            part(&self.all, 99) <= ALL_P99_MAX,
            "a thousand were told later than {ALL_P99_MAX:?}"
        );
        Ok(())
    }
}

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |spans: &[Duration], percent| part(spans, percent).as_secs_f64() * 1_000.0;
        write!(
            formatter,
            "from a call that changes something to the answer of a poll, {IDLE} others waiting: p50 {:.1} ms, p99 {:.1} ms (15, 100)\n\
             {CLIENTS} clients of one drive told of one change: p50 {:.0} ms, p99 {:.0} ms (1,000)",
            ms(&self.seen, 50),
            ms(&self.seen, 99),
            ms(&self.all, 50),
            ms(&self.all, 99),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Told, part};

    #[test]
    fn parts_are_of_the_sorted_spans_and_slow_ones_are_not_passed() {
        let spans: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(part(&spans, 50), Duration::from_millis(50));
        assert_eq!(part(&spans, 99), Duration::from_millis(99));
        let quick = vec![Duration::from_millis(5); 100];
        let told = |seen: &Vec<Duration>, all: Vec<Duration>| Told {
            seen: seen.clone(),
            all,
        };
        told(&quick, spans.clone()).judge().unwrap();
        told(&spans, quick.clone()).judge().unwrap_err();
        told(&quick, vec![Duration::from_secs(2)]).judge().unwrap_err();
        told(&quick, Vec::new()).judge().unwrap_err();
    }
}
