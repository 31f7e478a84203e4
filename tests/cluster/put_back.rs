//! Metadata that is put back from a copy: blocks are immutable, so every version that the copy lists is there, byte for byte, whatever
//! was done to the file since.
//!
//! The copy is of the directories of all replicas, taken while they stood still. Not here: copies that are taken while a cluster runs,
//! which are not built, and cursors that are older than what was put back (metadata-raft/src/state/tests/feed.rs).

use crate::world::{World, noise};
use api::version::VersionsQuery;
use client_sdk::client::Target;
use std::fs;
use std::path::{Path, PathBuf};

const VERSIONS: u64 = 100;
const CONTENT_BYTES: usize = 600_000;

/// The content of a version: each differs from the one before by a byte somewhere.
fn content(version: u64) -> Vec<u8> {
    let mut bytes = noise(1, CONTENT_BYTES);
    for edit in 2..=version as usize {
        bytes[edit * 104_729 % CONTENT_BYTES] ^= edit as u8;
    }
    bytes
}

fn version_of(path: &str, version: u64) -> Target {
    Target {
        base_version: version.checked_sub(1).filter(|base| *base > 0),
        ..Target::new_file(path)
    }
}

/// The directories of the replicas.
fn replicas(world: &World) -> Vec<PathBuf> {
    let processes = world.cluster.facts.processes.iter();
    let replicas = processes.filter(|process| process.role == "metadata");
    replicas.map(|process| world.data_dir().join(process.name())).collect()
}

/// Where a directory is kept meanwhile: outside of what the cluster knows.
fn aside(replica: &Path) -> PathBuf {
    let outside = replica.parent().and_then(Path::parent).unwrap();
    outside.join(replica.file_name().unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for row in fs::read_dir(from).unwrap() {
        let row = row.unwrap();
        let target = to.join(row.file_name());
        match row.file_type().unwrap().is_dir() {
            true => copy(&row.path(), &target),
            false => {
                fs::copy(row.path(), target).unwrap();
            }
        }
    }
}

async fn listed(world: &World, id: &str) -> Vec<u64> {
    let query = VersionsQuery {
        limit: Some(1000),
        ..VersionsQuery::default()
    };
    let page = world.client.versions(id, &query).await.unwrap();
    assert!(page.next_page_token.is_none());
    page.versions.iter().map(|version| version.version).collect()
}

async fn reads_back(world: &World, id: &str, version: u64) {
    let read = world.client.get_version(id, version, None).await.unwrap();
    let bytes = read.bytes().await.unwrap();
    assert!(bytes == content(version), "version {version} came back altered");
}

/// shows: D-2.5
#[tokio::test]
async fn any_of_a_hundred_versions_is_there_after_metadata_was_put_back() {
    let mut world = World::start_uncached().await;
    let mut id = String::new();
    for version in 1..=VERSIONS {
        let put = world
            .client
            .put(&version_of("/f", version), content(version).into())
            .await
            .unwrap();
        assert_eq!(put.entry.version, version);
        id = put.entry.id;
    }
    world.cluster.stop().unwrap();
    let replicas = replicas(&world);
    assert_eq!(replicas.len(), 3);
    for replica in &replicas {
        fs::rename(replica, aside(replica)).unwrap();
        copy(&aside(replica), replica);
    }

    // What comes then is forgotten: the oldest versions fall away, the file goes, others come.
    world.start_again().await;
    for version in VERSIONS + 1..=VERSIONS + 5 {
        let target = version_of("/f", version);
        let put = world.client.put(&target, noise(version, 300_000).into());
        put.await.unwrap();
    }
    assert_eq!(listed(&world, &id).await.len() as u64, VERSIONS);
    world.put("/later", &noise(7, 500_000)).await;
    world.client.trash(&id).await.unwrap();
    world.cluster.stop().unwrap();
    for replica in &replicas {
        fs::remove_dir_all(replica).unwrap();
        fs::rename(aside(replica), replica).unwrap();
    }

    world.start_again().await;
    assert_eq!(world.tree().await, ["/f"]);
    let wanted: Vec<u64> = (1..=VERSIONS).rev().collect();
    assert_eq!(listed(&world, &id).await, wanted);
    for version in 1..=VERSIONS {
        reads_back(&world, &id, version).await;
    }
    // And it goes on from there.
    let next = version_of("/f", VERSIONS + 1);
    let put = world.client.put(&next, content(VERSIONS + 1).into()).await.unwrap();
    assert_eq!(put.entry.version, VERSIONS + 1);
    reads_back(&world, &id, VERSIONS + 1).await;
}
