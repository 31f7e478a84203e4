//! What a gateway and its nodes do for a delta is what the blocks need that were sent: the client has cut and named the content.
//!
//! Work is counted in blocks, stripes and reads, so no time is measured. Not here: CPU time (`make delta`), what travels (`delta`).

use crate::world::{World, noise};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::delta::{CutContent, DeltaTarget};

const MIB: usize = 1 << 20;
const EDITS: usize = 4;
/// What is counted of the server's work, none of it by rows of lists.
const COUNTERS: [&str; 4] = [
    "node_reads_total",
    "gateway_blocks_new_total",
    "gateway_stripes_written_total",
    "gateway_uploaded_bytes_total",
];

async fn counted(world: &World) -> [f64; COUNTERS.len()] {
    let mut all = [0.0; COUNTERS.len()];
    for (value, name) in all.iter_mut().zip(COUNTERS) {
        *value = world.metric(name).await;
    }
    all
}

/// Puts a file that begins with the same bytes at every length, makes the same edits in these, and counts what they cost; the blocks
/// that were sent too.
async fn work(world: &World, client: &Client, length: usize) -> ([f64; COUNTERS.len()], usize) {
    let mut content = [noise(1, 8 * MIB), noise(2, length - 8 * MIB)].concat();
    let key = client.digest_key().await.unwrap();
    let target = Target::new_file("/f");
    let put = client.put(&target, content.clone().into()).await.unwrap();
    let mut rows = CutContent::of(Bytes::from(content.clone()), &key).rows;
    let (before, mut blocks) = (counted(world).await, 0);
    for edit in 0..EDITS {
        content[3 * MIB + edit] ^= 0x5a;
        let now = CutContent::of(Bytes::from(content.clone()), &key);
        let target = DeltaTarget::Known {
            id: put.entry.id.clone(),
            base_version: 1 + edit as u64,
        };
        let sent = client.put_delta(&target, &now, Some(&rows)).await.unwrap();
        assert!(sent.blocks > 0, "an edit of which everything is there shows nothing");
        blocks += sent.blocks;
        rows = now.rows;
    }
    let after = counted(world).await;
    let back = client.get(&put.entry.id, None).await.unwrap().bytes().await.unwrap();
    assert!(back == content, "the content came back altered");
    (std::array::from_fn(|at| after[at] - before[at]), blocks)
}

/// shows: D-2.3 scale=1/2
#[tokio::test]
async fn the_server_does_the_same_for_an_edit_whatever_the_files_length() {
    let world = World::start_uncached().await;
    let mut found = Vec::new();
    for length in [12 * MIB, 96 * MIB] {
        // A drive of its own: the other one's blocks would be there already.
        let (client, _) = world.user(&format!("of{length}"), 1 << 30).await;
        found.push(work(&world, &client, length).await);
    }
    assert_eq!(found[0], found[1]);
    let ([reads, new, ..], blocks) = found[0];
    assert_eq!(reads, 0.0, "no content is read for a delta");
    assert_eq!(new, blocks as f64, "what was sent is what was sealed and written");
}
