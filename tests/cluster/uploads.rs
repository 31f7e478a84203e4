//! Simple uploads and downloads of every size, as `curl` sends them.

use crate::world::{World, noise};
use client_sdk::client::Target;

const MIB: usize = 1 << 20;

/// shows: US-1.1
#[tokio::test]
async fn files_of_every_edge_length_come_back_as_they_were() {
    let world = World::start().await;
    for (seed, length) in [0, 1, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 100 * MIB]
        .into_iter()
        .enumerate()
    {
        let bytes = noise(seed as u64, length);
        let target = Target::new_file(format!("/sizes/{length}"));
        let uploaded = world.client.put(&target, bytes.clone().into()).await.unwrap();
        assert_eq!(uploaded.entry.version, 1);
        let back = world
            .client
            .get(&uploaded.entry.id, None)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert!(back == bytes, "{length} bytes came back as {} or altered", back.len());
    }
    assert_eq!(world.tree().await.len(), 7);
}
