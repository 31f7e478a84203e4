//! Directories, certificates and numbers in another process's place, and a damaged log: whoever has them says so and ends, the others go
//! on, and once everything is back all is as it was.
//!
//! Not here: what is wrong before a cluster ever ran (`startup`), bytes damaged in fragments (`tamper`).

use crate::insider::Insider;
use crate::separate_processes::{Cluster, accounts, check_all, put};
use crate::served::{Plan, eventually, set};
use crate::startup::{refused, says};
use crate::world::noise;
use client_sdk::client::Client;
use model::cluster::{Membership, NodeInfo};
use model::error_kind::ErrorKind;
use model::id::{DiskId, NodeId};
use protocol::metadata::control::{ControlCommand, NodeDisk};
use std::fs;
use std::path::{Path, PathBuf};

const GATEWAY: &str = "gateway-1";

type Files = Vec<(String, Vec<u8>)>;

fn swap(one: &Path, other: &Path) {
    let aside = one.with_extension("aside");
    fs::rename(one, &aside).unwrap();
    fs::rename(other, one).unwrap();
    fs::rename(&aside, other).unwrap();
}

/// What the process says when it is started and refuses; without what it said before.
async fn refusal(plan: &Plan, process: &str) -> String {
    let log = plan.path(&format!("{process}.log"));
    if log.exists() {
        fs::remove_file(log).unwrap();
    }
    refused(plan, process).await
}

/// Everything written so far reads back, and more goes in.
async fn serves(user: &Client, files: &mut Files) {
    check_all(user, files).await;
    let seed = files.len() as u64;
    let bytes = noise(seed, 300_000);
    files.push((put(user, &format!("/more/{seed}"), &bytes).await, bytes));
}

/// The disks of two nodes, then what the nodes know of their disks.
async fn disks_of_two_nodes(cluster: &mut Cluster, user: &Client, files: &mut Files) {
    let disk = |id| cluster.plan.disk(id);
    let disks = [(disk(1), disk(3)), (disk(2), disk(4))];
    for name in ["node-1", "node-2"] {
        cluster.kill(name);
    }
    disks.iter().for_each(|(one, other)| swap(one, other));
    for (name, words) in [
        (
            "node-1",
            [
                "no disk of the node works",
                "disk 1: disk 3 lies in its directory",
                "correct the paths",
            ],
        ),
        (
            "node-2",
            [
                "no disk of the node works",
                "disk 3: disk 1 lies in its directory",
                "correct the paths",
            ],
        ),
    ] {
        says(name, &refusal(&cluster.plan, name).await, &words);
    }
    serves(user, files).await;
    disks.iter().for_each(|(one, other)| swap(one, other));
    let registers = ["node-1", "node-2"].map(|name| cluster.plan.path(&format!("data/{name}")));
    swap(&registers[0], &registers[1]);
    for (name, word) in [
        ("node-1", "the data directory of node 1 belongs to node 2"),
        ("node-2", "the data directory of node 2 belongs to node 1"),
    ] {
        says(name, &refusal(&cluster.plan, name).await, &[word]);
    }
    swap(&registers[0], &registers[1]);
    for name in ["node-1", "node-2"] {
        cluster.start(name);
    }
    serves(user, files).await;
    cluster.check_running();
}

/// The directories of two replicas: without them there is no majority, so nothing is taken until they are back.
async fn directories_of_two_replicas(cluster: &mut Cluster, user: &Client, files: &mut Files) {
    let data = ["metadata-1", "metadata-2"].map(|name| cluster.plan.path(&format!("data/{name}")));
    for name in ["metadata-1", "metadata-2"] {
        cluster.kill(name);
    }
    swap(&data[0], &data[1]);
    for (name, found, wanted) in [("metadata-1", 2, 1), ("metadata-2", 1, 2)] {
        let text = refusal(&cluster.plan, name).await;
        says(
            name,
            &text,
            &["the metadata directory says", "correct metadata.data_dir"],
        );
        let said = |id: u64| format!(" {id}`");
        assert!(text.contains(&said(found)) && text.contains(&said(wanted)), "{text}");
    }
    swap(&data[0], &data[1]);
    for name in ["metadata-1", "metadata-2"] {
        cluster.start(name);
    }
    serves(user, files).await;
    cluster.check_running();
}

/// The certificates of two nodes, of a replica and a node, and those of the gateway with a node's and with a replica's. What was written
/// while two nodes were away survives one more; without the one gateway nobody is served until it is back.
async fn certificates_of_two_processes(cluster: &mut Cluster, user: &Client, files: &mut Files) {
    for (one, other) in [
        ("node-1", "node-3"),
        ("metadata-3", "node-5"),
        (GATEWAY, "node-2"),
        (GATEWAY, "metadata-1"),
    ] {
        let places = [one, other].map(|name| cluster.plan.identity(name));
        cluster.kill(one);
        cluster.kill(other);
        swap(&places[0], &places[1]);
        for (name, holds) in [(one, other), (other, one)] {
            // Which of them it is, a gateway takes from its certificate alone.
            let section = if name == GATEWAY { "a gateway" } else { name };
            let words = [
                format!("holds the identity of {holds}"),
                format!("the section is of {section}"),
                "correct identity_dir".to_owned(),
            ];
            let words = words.each_ref().map(String::as_str);
            says(name, &refusal(&cluster.plan, name).await, &words);
        }
        if one != GATEWAY {
            serves(user, files).await;
        }
        swap(&places[0], &places[1]);
        cluster.start(one);
        cluster.start(other);
        serves(user, files).await;
        cluster.check_running();
    }
}

/// A disk's number in another node's configuration, over an empty directory: the disk is left out. Told to the control group without
/// that look at the directory, it is refused, and nothing of it happens.
async fn number_of_another_nodes_disk(cluster: &mut Cluster, user: &Client, files: &mut Files) {
    let name = "node-6";
    cluster.kill(name);
    let sound = fs::read(cluster.plan.config(name)).unwrap();
    let empty = cluster.plan.path("disks/again");
    fs::create_dir(&empty).unwrap();
    cluster.plan.edit(name, |table| {
        let disk = table["node"]["disks"][1].as_table_mut().unwrap();
        set(disk, "id", 1_i64);
        set(disk, "path", empty.to_str().unwrap());
    });
    let log = cluster.plan.path(&format!("{name}.log"));
    fs::remove_file(&log).unwrap();
    cluster.start(name);
    let started = eventually("the node serves with the other disk", async || {
        let text = fs::read_to_string(&log).map_err(|error| error.to_string())?;
        text.contains("serving").then(|| text.clone()).ok_or(text)
    });
    says(name, &started.await, &["the cluster has had disk 1", "under a new id"]);
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0, "its directory is left alone");

    let insider = Insider::of_plan(&cluster.plan, "node-2");
    let register = ControlCommand::RegisterNode {
        node: NodeId(2),
        info: NodeInfo {
            region: "r1".to_owned(),
            zone: "z1".to_owned(),
            address: ([127, 0, 0, 1], 1).into(),
            membership: Membership::Active,
        },
        disks: vec![NodeDisk {
            disk: DiskId(1),
            weight_bytes: 1 << 30,
        }],
    };
    let refused = insider.control(register).await.unwrap_err();
    assert_eq!(
        (refused.kind, refused.code.as_str()),
        (ErrorKind::Exists, "number_taken")
    );

    cluster.kill(name);
    fs::write(cluster.plan.config(name), sound).unwrap();
    cluster.start(name);
    serves(user, files).await;
    cluster.check_running();
}

/// The first segment of a replica's log.
fn first_segment(plan: &Plan, replica: &str) -> PathBuf {
    let log = plan.path(&format!("data/{replica}/log/raft"));
    let mut segments: Vec<PathBuf> = fs::read_dir(log).unwrap().map(|row| row.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    segments.sort();
    segments.remove(0)
}

/// A byte of the log below what is known to be synced: the replica ends and names the place; it does not run on an empty directory
/// either, since it could vote against what it had acknowledged.
async fn damaged_log(cluster: &mut Cluster, user: &Client, files: &mut Files) {
    let replica = "metadata-2";
    cluster.kill(replica);
    let segment = first_segment(&cluster.plan, replica);
    let sound = fs::read(&segment).unwrap();
    let mut damaged = sound.clone();
    // Inside of the first records, behind the header of the segment.
    damaged[4_096 + 100] ^= 0x10;
    fs::write(&segment, damaged).unwrap();
    let text = refusal(&cluster.plan, replica).await;
    let name = format!("raft/{}", segment.file_name().unwrap().to_str().unwrap());
    says(
        "damaged log",
        &text,
        &["read raft log: damaged", &name, "at byte", "must not vote again"],
    );
    serves(user, files).await;

    let (data, aside) = (
        cluster.plan.path("data/metadata-2"),
        cluster.plan.path("data/metadata-2.aside"),
    );
    fs::rename(&data, &aside).unwrap();
    fs::create_dir(&data).unwrap();
    let text = refusal(&cluster.plan, replica).await;
    says(
        "emptied directory",
        &text,
        &["holds no log", "must never run again under its old id"],
    );
    fs::remove_dir(&data).unwrap();
    fs::rename(&aside, &data).unwrap();
    serves(user, files).await;

    fs::write(&segment, sound).unwrap();
    cluster.start(replica);
    let plan = &cluster.plan;
    let serving = eventually("the replica runs again", async || {
        let text = fs::read_to_string(plan.path("metadata-2.log")).map_err(|error| error.to_string())?;
        text.contains("serving").then_some(()).ok_or(text)
    });
    serving.await;
    // Only with it is there a majority.
    cluster.kill("metadata-1");
    serves(user, files).await;
    cluster.start("metadata-1");
    serves(user, files).await;
    cluster.check_running();
}

/// shows: F6
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_in_another_process_s_place_or_is_damaged_is_refused_by_name_and_the_others_go_on() {
    let mut cluster = Cluster::of(Plan::make());
    cluster.start_all();
    cluster.ready().await;
    let (_, user) = accounts(&cluster.plan).await;
    let mut files = Vec::new();
    for (seed, length) in [(100, 10), (101, 100_000), (102, 5 << 20)] {
        let bytes = noise(seed, length);
        files.push((put(&user, &format!("/first/{seed}"), &bytes).await, bytes));
    }
    disks_of_two_nodes(&mut cluster, &user, &mut files).await;
    certificates_of_two_processes(&mut cluster, &user, &mut files).await;
    number_of_another_nodes_disk(&mut cluster, &user, &mut files).await;
    damaged_log(&mut cluster, &user, &mut files).await;
    directories_of_two_replicas(&mut cluster, &user, &mut files).await;
}
