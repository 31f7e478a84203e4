//! How fast a group commits: three replicas with real disks and RocksDB, wired in memory or by QUIC, all on this machine.
//!
//! `cargo run --release -p metadata-raft --example commits -- [memory|quic] [seconds]`. Prints one commit at a time, then 8, 64
//! and 256 at once: commits a second, p50, p99 and CPU time a commit. Not here: HTTP, gateways, what else a cluster does meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement that cannot be set up ends, and it measures by the real clock"
)]

#[path = "../tests/replicas/drive.rs"]
#[allow(dead_code)]
mod drive;
#[path = "../tests/replicas/world.rs"]
#[allow(dead_code)]
mod world;

use drive::{Drive, GROUP};
use protocol::metadata::{Command, RequestKey, RequestLife};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{Wires, World};

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

/// User and system time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    );
    Duration::new(seconds, nanos)
}

async fn measure(world: &Arc<World>, drive: Drive, next: &Arc<AtomicU64>, at_once: usize, span: Duration) {
    let leader = world.replica(world.leader(GROUP).await);
    let (started, cpu_before) = (Instant::now(), cpu());
    let writers: Vec<_> = (0..at_once)
        .map(|_| {
            let (next, service) = (next.clone(), leader.service.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while started.elapsed() < span {
                    let (key, command) = folder(drive, next.fetch_add(1, Ordering::Relaxed));
                    let begun = Instant::now();
                    world::propose(&service, GROUP, Some(key), &command).await.unwrap();
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for writer in writers {
        times.extend(writer.await.unwrap());
    }
    let (elapsed, used) = (started.elapsed(), cpu() - cpu_before);
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{at_once:>4} at once: {:>7.0} commits/s  p50 {:>6.2} ms  p99 {:>6.2} ms  cpu {:>6.1} us a commit",
        times.len() as f64 / elapsed.as_secs_f64(),
        at(50),
        at(99),
        used.as_secs_f64() * 1e6 / times.len() as f64
    );
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let wires = match arguments.next().as_deref() {
        Some("quic") => Wires::quic(),
        _ => Wires::memory(),
    };
    let seconds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(4);
    let mut world = World::new(wires, 3, 1);
    let all = world.numbers();
    world.start(&all).await;
    world.caught_up(&all).await;
    let drive = Drive::create(&world).await;
    let world = Arc::new(world);
    let next = Arc::new(AtomicU64::new(1));
    for at_once in [1, 8, 64, 256] {
        measure(&world, drive, &next, at_once, Duration::from_secs(seconds)).await;
    }
    let Ok(mut world) = Arc::try_unwrap(world) else {
        panic!("every writer has ended")
    };
    for number in all {
        world.stop(number).await;
    }
}
