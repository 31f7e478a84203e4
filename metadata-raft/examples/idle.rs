//! What groups cost that nobody uses: three replicas with real disks and RocksDB, by QUIC or in memory, all in this process.
//!
//! `cargo run --release -p metadata-raft --example idle -- [groups] [memory|quic] [seconds]`, by default 64 groups over QUIC for 10.
//! Prints CPU in percent of a core. Not here: gateways and nodes.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement on the real machine; what cannot be set up ends it"
)]

#[path = "../tests/replicas/drive.rs"]
#[allow(dead_code)]
mod drive;
#[path = "../tests/replicas/world.rs"]
#[allow(dead_code)]
mod world;

use std::time::Duration;
use world::{Wires, World};

/// User and system time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    );
    Duration::new(seconds, nanos)
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let groups = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let wires = match arguments.next().as_deref() {
        Some("memory") => Wires::memory(),
        _ => Wires::quic(),
    };
    let span = Duration::from_secs(arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10));
    let mut world = World::new(wires, 3, groups);
    let all = world.numbers();
    world.start(&all).await;
    world.caught_up(&all).await;
    // Slots are adopted and leaders spread.
    tokio::time::sleep(Duration::from_secs(5) + Duration::from_secs(1) * groups / 2).await;
    let before = cpu();
    tokio::time::sleep(span).await;
    let used = (cpu() - before).as_secs_f64() / span.as_secs_f64();
    println!("{groups} groups: {:.1} % of a core", used * 100.0);
    for number in all {
        world.stop(number).await;
    }
}
