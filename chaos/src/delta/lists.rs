//! Long lists of blocks that a drive lacks: how soon a client is told which ones to send.
//!
//! Not here: lists of blocks that are there (`largest`).

use super::finding::{Finding, median, most};
use crate::dev_cluster::DevCluster;
use anyhow::{Context, ensure};
use api::sync::SyncRequest;
use client_sdk::client::Client;
use model::digest::Digest;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::time::{Duration, Instant};

/// Digests of one list.
const DIGESTS: usize = 10_000;
/// The first one meets cold caches and connections and does not count.
const ROUNDS: usize = 21;
const PROPOSE_MS_MAX: f64 = 100.0;

/// Proposes lists of blocks that nobody has.
pub(super) async fn measure(cluster: &DevCluster, seed: u64) -> anyhow::Result<Vec<Finding>> {
    let client = cluster.client().await?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let digests: Vec<String> = (0..DIGESTS).map(|_| digest(&mut random).to_hex()).collect();
        let (taken, missing, _) = propose(&client, &format!("/lists/{round}"), digests.clone()).await?;
        ensure!(
            missing == digests,
            "{} of {DIGESTS} made up blocks are missing",
            missing.len()
        );
        took.push(taken);
    }
    Ok(judge(took.get(1..).unwrap_or_default()))
}

fn digest(random: &mut ChaCha8Rng) -> Digest {
    let mut digest = Digest([0; 32]);
    random.fill_bytes(&mut digest.0);
    digest
}

/// Proposes a new file of these blocks; how long it took, which ones are missing, and the upload.
pub(super) async fn propose(
    client: &Client,
    path: &str,
    digests: Vec<String>,
) -> anyhow::Result<(Duration, Vec<String>, String)> {
    let wanted = SyncRequest {
        path: Some(path.to_owned()),
        parents: true,
        new_block_hashes: Some(digests),
        ..SyncRequest::default()
    };
    let begun = Instant::now();
    let answer = client
        .sync("new", &wanted)
        .await
        .with_context(|| format!("propose {path}"))?;
    Ok((begun.elapsed(), answer.missing_blocks, answer.upload_id))
}

/// Run by `make delta`; that the answer keeps the order and names each once is shown in tests/cluster.
fn judge(took: &[Duration]) -> Vec<Finding> {
    let ms = || took.iter().map(|took| took.as_secs_f64() * 1e3);
    let what = format!("propose of {DIGESTS} digests");
    vec![
        Finding::at_most(format!("{what}, median"), median(ms()), "ms", PROPOSE_MS_MAX),
        Finding::told(format!("{what}, slowest of {}", took.len()), most(ms()), "ms"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::finding::tests::missed;
    use super::judge;
    use std::time::Duration;

    fn check(took_ms: &[u64], expected: usize) {
        let took: Vec<Duration> = took_ms.iter().map(|ms| Duration::from_millis(*ms)).collect();
        assert_eq!(missed(&judge(&took)).len(), expected);
    }

    #[test]
    fn a_propose_that_takes_longer_than_a_tenth_of_a_second_as_a_rule_is_missed() {
        check(&[90, 100, 400], 0);
        check(&[90, 101, 102], 1);
        check(&[], 1);
    }
}
