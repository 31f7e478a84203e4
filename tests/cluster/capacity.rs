//! Disks that have no room left, and the door for the largest file.
//!
//! Not here: a file of 10 GiB itself (`make largest-file`), and what is one byte longer (refusals.rs).

use crate::world::{World, noise};
use client_sdk::client::Target;
use client_sdk::error::ClientError;
use reqwest::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const MIB: usize = 1 << 20;
const GIB: u64 = 1 << 30;

/// One node with four small disks: what fits on three of them is soon written.
const SMALL: [&str; 10] = [
    "--profile",
    "solo",
    "--regions",
    "1",
    "--nodes-per-region",
    "1",
    "--disks-per-node",
    "4",
    "--disk-capacity",
    "256M",
];

/// Puts files of `length` bytes until one is refused; answers what went in and the refusal.
async fn fill(world: &World, length: usize, kept: &mut Vec<(String, u64, usize)>) -> ClientError {
    for turn in 0_u64.. {
        let path = format!("/{length}/{turn}");
        let seed = length as u64 + turn;
        let target = Target::new_file(path);
        match world.client.put(&target, noise(seed, length).into()).await {
            Ok(file) => kept.push((file.entry.id, seed, length)),
            Err(refusal) => return refusal,
        }
    }
    unreachable!("disks end")
}

async fn check_reads(world: &World, kept: &[(String, u64, usize)]) {
    for (id, seed, length) in kept {
        let back = world.content(id, &[]).await;
        assert_eq!(back.status, StatusCode::OK, "{back:?}");
        assert!(back.body == noise(*seed, *length), "{length} bytes came back altered");
    }
}

/// How many files there are of those that `fill` puts, which lie in folders.
async fn filled(world: &World) -> usize {
    let tree = world.tree().await;
    tree.iter().filter(|path| path.matches('/').count() == 2).count()
}

fn check_refusal(refusal: &ClientError) {
    let ClientError::Refused { status, code, detail } = refusal else {
        panic!("{refusal}");
    };
    assert_eq!((*status, code.as_str()), (507, "storage_full"), "{detail}");
}

#[tokio::test]
async fn full_disks_refuse_by_type_and_everything_else_goes_on() {
    let mut world = World::start_with(&SMALL).await;
    let mut kept = Vec::new();
    for length in [16 * MIB, MIB] {
        check_refusal(&fill(&world, length, &mut kept).await);
    }
    // Four disks of 256 MiB less two segments of 32 MiB each, half as much again for parity.
    let stored: usize = kept.iter().map(|(_, _, length)| length).sum();
    assert!((300 * MIB..=512 * MIB).contains(&stored), "{stored} bytes went in");
    assert!(world.metric("node_refusals_total{code=\"disk_full\"}").await > 0.0);
    let admin = world.cluster.admin().unwrap();
    let status = admin.json(Method::GET, "/api/v1/admin/status", None).await.unwrap();
    let disks = status["nodes"][0]["disks"].as_array().unwrap();
    assert!(disks.iter().any(|disk| disk["state"] == "full"), "{status}");
    assert_eq!(filled(&world).await, kept.len(), "a refused file left an entry");
    check_reads(&world, &kept).await;

    // Small contents lie in the metadata; changes of the tree need no room on the disks.
    let small = world.put("/small", &noise(1, 4096)).await.entry;
    kept.push((small.id, 1, 4096));
    let (last, ..) = kept[0].clone();
    world.client.trash(&last).await.unwrap();
    let restore = format!("/api/v1/metadata/{last}/restore");
    assert_eq!(world.call(Method::POST, &restore, None).await.status, StatusCode::OK);
    let (gone, ..) = kept.remove(1);
    let delete = format!("/api/v1/metadata/{gone}?permanent=true");
    assert_eq!(
        world.call(Method::DELETE, &delete, None).await.status,
        StatusCode::NO_CONTENT
    );
    world.content(&gone, &[]).await.refused(404, "not_found");

    for is_killed in [false, true] {
        if is_killed {
            world.kill_and_restart().await;
        } else {
            world.restart().await;
        }
        check_reads(&world, &kept).await;
        // Another length, so that the names are new.
        check_refusal(&fill(&world, 16 * MIB + 1 + usize::from(is_killed), &mut kept).await);
        // One of those kept lies in the metadata.
        assert_eq!(filled(&world).await, kept.len() - 1, "a refused file left an entry");
    }
}

/// The head alone decides whether a body is wanted: at the limit it is.
#[tokio::test]
async fn a_declared_length_at_the_limit_is_asked_for_its_body() {
    let world = World::start().await;
    let head = world
        .client
        .request(Method::POST, "/api/v1/files/upload?uploadType=media&path=/largest")
        .build()
        .unwrap();
    let token = head.headers()["authorization"].to_str().unwrap();
    let text = format!(
        "POST /api/v1/files/upload?uploadType=media&path=/largest HTTP/1.1\r\nhost: holdfast\r\nauthorization: {token}\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        10 * GIB
    );
    let mut stream = world.connect().await;
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    drop(stream);
    assert_eq!(world.tree().await, Vec::<String>::new());
}
