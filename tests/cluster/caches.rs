//! What gateways keep in memory is never told once it is past: two gateways, one that stands still meanwhile, and new leaders.
//!
//! Not here: 100,000 pairs (`make stale`, `chaos::stale`), what is kept for how long (`gateway/src/drive/kept.rs`), which commands touch
//! a drive (`metadata-raft/src/state/tests/touched.rs`).

use crate::child_processes::url;
use crate::served::eventually;
use crate::world::{World, noise};
use chaos::{meter, process_attack, stale};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use reqwest::Method;
use rustix::process::Signal;
use serde_json::json;

/// Writes that are read at the other gateway; `make stale` makes fifty times as many.
const PAIRS: usize = 2_000;

/// shows: QAS-013 scale=2000/100000
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_at_one_gateway_is_read_at_the_other_at_once_each_time() {
    let world = World::start_with(&["--processes", "--gateways", "2", "--groups", "2"]).await;
    let shown = stale::pairs(&world.cluster, PAIRS).await.unwrap();
    assert_eq!((shown.pairs, shown.stale.len()), (PAIRS, 0), "{shown:?}");
    assert!(shown.at_home > 0, "the writer's own cache was never asked: {shown:?}");
}

/// A file that two gateways serve.
struct Shared {
    clients: [Client; 2],
    path: String,
    id: String,
    version: u64,
    bytes: Vec<u8>,
}

impl Shared {
    async fn write(&mut self, at: usize, seed: u64) {
        let bytes = noise(seed, 20_000);
        let target = Target {
            path: self.path.clone(),
            base_version: Some(self.version),
            parents: false,
        };
        // The content in place is no conflict, should an earlier try have come through.
        let put = eventually("write", async || {
            self.clients[at].put(&target, bytes.clone().into()).await
        })
        .await;
        (self.version, self.bytes) = (put.entry.version, bytes);
    }

    async fn check(&self, at: usize) {
        let client = &self.clients[at];
        let read = async || Ok::<_, ClientError>(client.get(&self.id, None).await?.bytes().await?);
        assert!(eventually("read", read).await == self.bytes, "a content of before");
        let folder = self.path.rsplit_once('/').unwrap().0;
        let listing = eventually("list", async || client.list(folder, 10, None).await).await;
        let seen: Vec<(String, u64)> = listing
            .entries
            .into_iter()
            .map(|entry| (entry.path, entry.version))
            .collect();
        assert_eq!(seen, [(self.path.clone(), self.version)], "a listing of before");
    }

    async fn hits(&self, at: usize) -> f64 {
        let page = self.clients[at].text("/metrics").await.unwrap();
        meter::sum(&page, "gateway_kept_hits_total").unwrap_or(0.0)
    }

    /// Reads until a manifest, a listing and a block have come from what the gateway keeps; sweepers touch the drive too.
    async fn warm(&self, at: usize) {
        let warm = async || {
            let before = self.hits(at).await;
            self.check(at).await;
            let hits = self.hits(at).await - before;
            if hits >= 3.0 {
                Ok(())
            } else {
                Err(format!("{hits} hits"))
            }
        };
        eventually("be served from what is kept", warm).await;
    }
}

/// shows: CMP-cache
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_stood_still_and_one_under_a_new_leader_tell_nothing_of_before() {
    let world = World::start_with(&["--processes", "--gateways", "2", "--groups", "1"]).await;
    let token = world.client.token().unwrap();
    let clients = [1, 2].map(|number| Client::new(&url(&world, number)).unwrap().with_token(token));
    let bytes = noise(1, 20_000);
    let put = world.put("/shared/f", &bytes).await;
    let mut shared = Shared {
        clients,
        path: "/shared/f".to_owned(),
        id: put.entry.id,
        version: put.entry.version,
        bytes,
    };

    // 1. A write while the second gateway stands still; who asks it before it goes on is answered with that.
    shared.warm(1).await;
    process_attack::signal(&world.cluster, "gateway-2", Signal::STOP).unwrap();
    shared.write(0, 2).await;
    tokio::join!(shared.check(1), async {
        process_attack::signal(&world.cluster, "gateway-2", Signal::CONT).unwrap();
    });

    // 2. Leaders that die: the mark is one of the log, which goes on.
    for seed in [3, 4] {
        shared.warm(1).await;
        let leader = process_attack::leader(&world.cluster).await.unwrap();
        process_attack::kill(&world.cluster, &leader).await.unwrap();
        shared.check(1).await;
        shared.write(0, seed).await;
        shared.check(1).await;
        process_attack::start(&world.cluster, &leader).await.unwrap();
        shared.warm(1).await;
    }

    // 3. Moved, removed for good: its bytes are still in the second gateway's memory, and nobody is told them.
    let entry = format!("/api/v1/metadata/{}", shared.id);
    let moved = json!({"path": "/elsewhere"});
    let patch = async || shared.clients[0].json(Method::PATCH, &entry, Some(&moved)).await;
    eventually("move", patch).await;
    let listing = eventually("list", async || shared.clients[1].list("/shared", 10, None).await).await;
    assert!(listing.entries.is_empty(), "{listing:?}");
    shared.path = "/elsewhere".to_owned();
    let purge = format!("{entry}?permanent=true");
    eventually("purge", async || {
        shared.clients[0].json(Method::DELETE, &purge, None).await
    })
    .await;
    let read = shared.clients[1].get(&shared.id, None).await;
    assert!(
        matches!(&read, Err(ClientError::Refused { status: 404, .. })),
        "{:?}",
        read.map(|answer| answer.status())
    );
}
