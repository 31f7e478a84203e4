//! What groups cost that nobody uses: three replicas with real disks and RocksDB, by QUIC or in memory, all in this process.
//!
//! `cargo run --release -p metadata-raft --example idle -- [groups] [memory|quic] [seconds]`, by default 64 groups over QUIC for 10.
//! Prints CPU in percent of a core. Not here: gateways and nodes.

mod shared;

use shared::measure::{argument, cpu};
use shared::world::{Wires, World};
use std::time::Duration;

#[tokio::main]
async fn main() {
    let groups: u32 = argument(1, 64);
    let wires = match argument(2, "quic".to_owned()).as_str() {
        "memory" => Wires::memory(),
        _ => Wires::quic(),
    };
    let span = Duration::from_secs(argument(3, 10));
    let mut world = World::up(wires, 3, groups).await;
    let all = world.numbers();
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
