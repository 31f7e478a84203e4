//! How fast a group commits: three replicas with real disks and RocksDB, wired in memory or by QUIC, all on this machine.
//!
//! `cargo run --release -p metadata-raft --example commits -- [memory|quic] [seconds]`. Prints one commit at a time, then 8, 64
//! and 256 at once: commits a second, p50, p99 and CPU time a commit. Not here: HTTP, gateways, what else a cluster does meanwhile.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be set up ends")]

mod shared;

use protocol::metadata::{Command, RequestKey, RequestLife};
use shared::drive::{Drive, GROUP};
use shared::measure::{argument, show};
use shared::world::{self, Wires, World};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The command and the request id that a gateway would give it.
fn folder(drive: Drive, number: u64) -> (RequestKey, Command) {
    let key = RequestKey {
        source: 1,
        id: u128::from(number),
        asked: [7; 32],
        life: RequestLife::Hour,
        made_hour: None,
    };
    (key, drive.folder(number))
}

async fn measure(world: &World, drive: Drive, next: &Arc<AtomicU64>, at_once: usize, span: Duration) {
    let leader = world.replica(world.leader(GROUP).await);
    let (next, service) = (next.clone(), leader.service.clone());
    let write = move || {
        let (next, service) = (next.clone(), service.clone());
        async move {
            let (key, command) = folder(drive, next.fetch_add(1, Ordering::Relaxed));
            world::propose(&service, GROUP, Some(key), &command).await.unwrap();
        }
    };
    show(at_once, span, ("commit", "commits"), write).await;
}

#[tokio::main]
async fn main() {
    let wires = match argument(1, "memory".to_owned()).as_str() {
        "quic" => Wires::quic(),
        _ => Wires::memory(),
    };
    let seconds = argument(2, 4);
    let mut world = World::up(wires, 3, 1).await;
    let all = world.numbers();
    let drive = Drive::create(&world).await;
    let next = Arc::new(AtomicU64::new(1));
    for at_once in [1, 8, 64, 256] {
        measure(&world, drive, &next, at_once, Duration::from_secs(seconds)).await;
    }
    for number in all {
        world.stop(number).await;
    }
}
