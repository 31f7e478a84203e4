//! How fast a group's leader answers queries: three replicas with real disks and RocksDB, wired in memory or by QUIC, all on this
//! machine.
//!
//! `cargo run --release -p metadata-raft --example reads -- [memory|quic] [majority|lease] [seconds]`. Prints one query at a
//! time, then 64 and 256 at once: queries a second, p50, p99 and CPU time a query. Not here: HTTP, gateways, followers.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be set up ends")]

mod shared;

use protocol::frame::{Method, encode};
use protocol::metadata::{Query, QueryRequest};
use shared::drive::{Drive, GROUP};
use shared::measure::{argument, show};
use shared::world::{self, Wires, World};
use std::time::Duration;

async fn measure(world: &World, drive: Drive, at_once: usize, span: Duration) {
    let service = world.replica(world.leader(GROUP).await).service.clone();
    let query = encode(&Query::Slot(drive.drive.slot())).unwrap();
    let message = encode(&QueryRequest { group: GROUP, query }).unwrap();
    let read = move || {
        let (service, message) = (service.clone(), message.clone());
        async move {
            world::call(&service, Method::Query, message).await.unwrap();
        }
    };
    show(at_once, span, ("query", "queries"), read).await;
}

#[tokio::main]
async fn main() {
    let wires = match argument(1, "memory".to_owned()).as_str() {
        "quic" => Wires::quic(),
        _ => Wires::memory(),
    };
    let seconds = argument(3, 4);
    let mut world = World::new(wires, 3, 1);
    world.lease_reads = argument(2, "majority".to_owned()) == "lease";
    let all = world.numbers();
    world.start(&all).await;
    world.caught_up(&all).await;
    let drive = Drive::create(&world).await;
    for at_once in [1, 64, 256] {
        measure(&world, drive, at_once, Duration::from_secs(seconds)).await;
    }
    for number in all {
        world.stop(number).await;
    }
}
