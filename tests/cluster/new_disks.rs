//! Disks that nodes get while everybody writes: rows change, and what was written under the old ones is read where it lies.
//!
//! Nothing moves fragments to their new rows yet, so a whole region is killed in the end: with it two fragments of each stripe are gone,
//! and every other one must be found, also where the row names a disk that never got it.
//! Not here: changes of layout under every other fault (`chaos::world::draining`), what a planner decides (`placement`).

use crate::separate_processes::{Cluster, accounts, check_all, put};
use crate::served::{Plan, eventually, set};
use crate::world::noise;
use chaos::meter;
use client_sdk::client::Client;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toml::Table;

/// Coded, in one stripe.
const FILE_BYTES: usize = 100_000;
/// Between two files: enough of them are written meanwhile, and few enough to read all back.
const PACE: Duration = Duration::from_millis(20);
/// More than go to a disk outside of its rows, where everybody runs.
const STORED_MIN: f64 = 5.0;

/// Writes files until it is over.
async fn write(user: &Client, is_over: &AtomicBool) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let number = files.len() as u64;
        let bytes = noise(1_000 + number, FILE_BYTES);
        files.push((put(user, &format!("/meanwhile/{number}"), &bytes).await, bytes));
        tokio::time::sleep(PACE).await;
    }
    files
}

/// Gives a node one more disk, which it takes when it starts again.
fn add_disk(cluster: &mut Cluster, node: &str, id: usize) {
    let path = cluster.plan.disk(id);
    fs::create_dir_all(&path).unwrap();
    cluster.kill(node);
    cluster.plan.edit(node, |table| {
        let disks = table["node"]["disks"].as_array_mut().unwrap();
        let mut disk = disks[0].clone();
        let entry = disk.as_table_mut().unwrap();
        set(entry, "id", id as i64);
        set(entry, "path", path.to_str().unwrap());
        disks.push(disk);
    });
    cluster.start(node);
}

/// Fragments that a node has stored on one of its disks since its start.
async fn stored(plan: &Plan, node: &str, disk: usize) -> f64 {
    let table: Table = fs::read_to_string(plan.config(node)).unwrap().parse().unwrap();
    let client = Client::new(&format!("http://{}", table["status"]["listen"].as_str().unwrap())).unwrap();
    let page = eventually("metrics", async || client.text("/metrics").await).await;
    meter::sum(&page, &format!("node_fragments_stored_total{{disk=\"{disk}\"}}")).unwrap_or(0.0)
}

/// shows: F10 side=layout
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_come_in_under_writers_lose_nothing_and_a_region_may_go_behind_them() {
    let mut cluster = Cluster::of(Plan::make());
    cluster.start_all();
    cluster.ready().await;
    let (_, user) = accounts(&cluster.plan).await;
    let mut files = Vec::new();
    for number in 0..20 {
        let bytes = noise(number, FILE_BYTES);
        files.push((put(&user, &format!("/before/{number}"), &bytes).await, bytes));
    }
    let is_over = AtomicBool::new(false);
    let change = async {
        let added = [("node-1", 13), ("node-3", 14)];
        for (node, disk) in added {
            add_disk(&mut cluster, node, disk);
        }
        for (node, disk) in added {
            eventually("the new disk is in no row", async || {
                let stored = stored(&cluster.plan, node, disk).await;
                if stored >= STORED_MIN {
                    return Ok(());
                }
                Err(format!("{stored} fragments on disk {disk}"))
            })
            .await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let (written, ()) = tokio::join!(write(&user, &is_over), change);
    files.extend(written);
    check_all(&user, &files).await;
    for node in ["node-5", "node-6"] {
        cluster.kill(node);
    }
    check_all(&user, &files).await;
    cluster.check_running();
}
