//! What a gateway and its nodes do for a delta is what the blocks need that were sent: the client has cut and named the content. What
//! travels is these blocks too.
//!
//! Work is counted in blocks, stripes and reads, and what travels in bytes by a proxy, so no time is measured. Not here: CPU time, many
//! edits of large files (`make delta`), which blocks travel (`delta`).

use crate::world::{World, noise};
use bytes::Bytes;
use chaos::delta::wire::Wire;
use client_sdk::client::{Client, Target};
use client_sdk::delta::{CutContent, DeltaTarget};

const MIB: usize = 1 << 20;
const EDITS: usize = 4;
/// Files of which one block is changed.
const LENGTHS_BYTES: [usize; 2] = [10_000_000, 60_000_000];
/// QAS-010: 10^-4 of a byte for each byte that the file is longer.
const MORE_BYTES_MAX: u64 = (LENGTHS_BYTES[1] - LENGTHS_BYTES[0]) as u64 / 10_000;
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

/// Changes one byte of a file that begins with the same bytes at every length; what the wire has carried to send the change, and to fetch
/// it.
async fn travels(wire: &Wire, client: &Client, length: usize) -> [u64; 2] {
    let counted = Client::new(&wire.url()).unwrap().with_token(client.token().unwrap());
    let mut content = [noise(1, 8 * MIB), noise(2, length - 8 * MIB)].concat();
    let key = client.digest_key().await.unwrap();
    let target = Target::new_file("/f");
    let put = client.put(&target, content.clone().into()).await.unwrap();
    let before = CutContent::of(Bytes::from(content.clone()), &key);
    content[3 * MIB] ^= 0x5a;
    let now = CutContent::of(Bytes::from(content.clone()), &key);
    let target = DeltaTarget::Known {
        id: put.entry.id.clone(),
        base_version: 1,
    };
    let begun = wire.passed();
    let sent = counted.put_delta(&target, &now, Some(&before.rows)).await.unwrap();
    let sent_bytes = (wire.passed() - begun).total();
    assert!((1..=3).contains(&sent.blocks), "{} blocks of one byte", sent.blocks);
    assert!(sent_bytes > sent.bytes, "the blocks did not go over the wire");
    let begun = wire.passed();
    let (_, fetched, block_bytes) = counted.get_delta(&put.entry.id, (1, &before), &key).await.unwrap();
    let fetched_bytes = (wire.passed() - begun).total();
    assert!(fetched == content, "the change came back altered");
    assert!(fetched_bytes > block_bytes && block_bytes > 0, "nothing was fetched");
    [sent_bytes, fetched_bytes]
}

/// shows: QAS-010 scale=60/1000
#[tokio::test]
async fn what_travels_for_a_changed_block_does_not_grow_with_the_file() {
    let world = World::start().await;
    let wire = Wire::to(&world.cluster.facts.url).await.unwrap();
    let mut found = Vec::new();
    for length in LENGTHS_BYTES {
        let (client, _) = world.user(&format!("of{length}"), 1 << 30).await;
        found.push(travels(&wire, &client, length).await);
    }
    for (what, way) in [("sent", 0), ("fetched", 1)] {
        let (short, long) = (found[0][way], found[1][way]);
        assert!(long <= short + MORE_BYTES_MAX, "{what}: {short} and {long} bytes");
    }
}
