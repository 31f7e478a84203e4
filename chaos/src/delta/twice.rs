//! The same large content put twice, and both removed: what the second one adds, and what comes back (FR-007).
//!
//! At a cluster in one process, since only there a block's grace can be made short.
//! Invariant: the content that stays is read back whole behind the removal of the other one.
//! Not here: orders of writers and collectors (the state machine's own tests), segments that are emptied (tests/cluster).

use super::finding::Finding;
use super::stored::Stored;
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use anyhow::{Context, ensure};
use api::entry::Entry;
use client_sdk::client::{Client, Target};
use futures_util::StreamExt;
use reqwest::Method;
use std::time::{Duration, Instant};

/// Options of the cluster: short birth epochs and a short grace.
pub(super) const OPTIONS: [&str; 4] = ["--birth-epoch-ms", "1000", "--block-grace-ms", "2000"];
/// FR-007.
const FILE_BYTES: u64 = 100 << 20;
/// Its removal shows that the collector has been round.
const OTHER_BYTES: u64 = 20 << 20;
const ADDED_PERCENT_MAX: f64 = 1.0;
const LEFT_PERCENT_MAX: f64 = 1.0;
/// Epochs, grace and the collector's round take about a minute; a collector that takes as long is broken, not slow.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What was there when.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    empty: Stored,
    once: Stored,
    twice: Stored,
    removed: Stored,
}

/// Puts, puts again, removes one, reads the other, and removes it too.
///
/// Run by `make delta`.
pub(super) async fn measure(cluster: &DevCluster, seed: u64) -> anyhow::Result<Vec<Finding>> {
    let client = cluster.client().await?;
    let mut seen = Seen {
        empty: Stored::settled(cluster).await?,
        ..Seen::default()
    };
    let first = put(&client, "/first", seed, FILE_BYTES).await?;
    seen.once = Stored::settled(cluster).await?;
    let again = put(&client, "/again", seed, FILE_BYTES).await?;
    seen.twice = Stored::settled(cluster).await?;
    let other = put(&client, "/other", !seed, OTHER_BYTES).await?;
    remove(&client, &first).await?;
    remove(&client, &other).await?;
    let fragments_once = seen.twice.fragments;
    wait(cluster, "the other file is removed", |now| {
        now.fragments <= fragments_once
    })
    .await?;
    read(&client, &again, seed).await?;
    println!("one of two was removed, and the other one reads back");
    remove(&client, &again).await?;
    let limit = (seen.once.fragments - seen.empty.fragments) * LEFT_PERCENT_MAX / 100.0;
    let is_gone = |now: &Stored| now.fragments - seen.empty.fragments <= limit;
    seen.removed = wait(cluster, "both are removed", is_gone).await?;
    Ok(judge(&seen))
}

async fn put(client: &Client, path: &str, seed: u64, bytes: u64) -> anyhow::Result<Entry> {
    let content = SeededContent::new(seed, bytes).stream(|_| ());
    let done = client
        .put_stream(&Target::new_file(path), bytes, content)
        .await
        .with_context(|| format!("put {path}"))?;
    ensure!(done.entry.size == bytes, "{path} has another length");
    Ok(done.entry)
}

async fn remove(client: &Client, entry: &Entry) -> anyhow::Result<()> {
    let path = format!("/api/v1/metadata/{}?permanent=true", entry.id);
    let removed = client.json(Method::DELETE, &path, None).await;
    removed.map(drop).with_context(|| format!("remove {}", entry.path))
}

async fn read(client: &Client, entry: &Entry, seed: u64) -> anyhow::Result<()> {
    let mut stream = client.get(&entry.id, None).await?.bytes_stream();
    let mut found = blake3::Hasher::new();
    while let Some(part) = stream.next().await {
        found.update(&part.context("read what stays")?);
    }
    let expected = tokio::task::spawn_blocking(move || SeededContent::new(seed, FILE_BYTES).digest()).await?;
    ensure!(found.finalize() == expected, "{} came back altered", entry.path);
    Ok(())
}

/// Looks until it is so, or for as long as anybody would wait, and answers the last look: how much is left is judged, not time.
async fn wait(cluster: &DevCluster, what: &str, is_so: impl Fn(&Stored) -> bool) -> anyhow::Result<Stored> {
    let begun = Instant::now();
    loop {
        let now = Stored::look(cluster).await?;
        if is_so(&now) || begun.elapsed() > PATIENCE {
            println!(
                "{what}: {} fragments after {:.0} s",
                now.fragments,
                begun.elapsed().as_secs_f64()
            );
            return Ok(now);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn judge(seen: &Seen) -> Vec<Finding> {
    let percent = |of: fn(&Stored) -> f64, now: &Stored, then: &Stored| {
        let once = of(&seen.once) - of(&seen.empty);
        (of(now) - of(then)) * 100.0 / once
    };
    let used: fn(&Stored) -> f64 = |stored| stored.used_bytes;
    let counted: fn(&Stored) -> f64 = |stored| stored.fragment_bytes;
    let fragments: fn(&Stored) -> f64 = |stored| stored.fragments;
    vec![
        Finding::at_most(
            "100 MiB again: added on disks",
            percent(used, &seen.twice, &seen.once),
            "%",
            ADDED_PERCENT_MAX,
        ),
        Finding::at_most(
            "100 MiB again: added to stripes",
            percent(counted, &seen.twice, &seen.once),
            "%",
            ADDED_PERCENT_MAX,
        ),
        Finding::at_most(
            "both removed: left of stripes",
            percent(counted, &seen.removed, &seen.empty),
            "%",
            LEFT_PERCENT_MAX,
        ),
        Finding::at_most(
            "both removed: left of fragments",
            percent(fragments, &seen.removed, &seen.empty),
            "%",
            LEFT_PERCENT_MAX,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::super::stored::Stored;
    use super::{Seen, judge};

    /// Bytes on disks, bytes of stripes and fragments, for each of the four looks.
    fn check(looks: [[f64; 3]; 4], expected: &[&str]) {
        let [empty, once, twice, removed] = looks.map(|[used_bytes, fragment_bytes, fragments]| Stored {
            used_bytes,
            fragment_bytes,
            fragments,
            living_bytes: 0.0,
        });
        let seen = Seen {
            empty,
            once,
            twice,
            removed,
        };
        assert_eq!(missed(&judge(&seen)), expected);
    }

    #[test]
    fn a_second_copy_that_takes_room_and_room_that_does_not_come_back_are_missed() {
        let (empty, once) = ([50.0, 0.0, 0.0], [1_050.0, 1_000.0, 600.0]);
        check([empty, once, once, empty], &[]);
        check([empty, once, [1_060.0, 1_010.0, 606.0], [1_060.0, 10.0, 6.0]], &[]);
        let added = ["100 MiB again: added on disks", "100 MiB again: added to stripes"];
        check([empty, once, [1_061.0, 1_000.0, 600.0], empty], &added[..1]);
        check([empty, once, [2_050.0, 2_000.0, 1_200.0], empty], &added);
        let left = ["both removed: left of stripes", "both removed: left of fragments"];
        check([empty, once, once, [1_050.0, 11.0, 0.0]], &left[..1]);
        check([empty, once, once, once], &left);
        // A content that never came.
        assert_eq!(missed(&judge(&Seen::default())).len(), 4);
    }
}
