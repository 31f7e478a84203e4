//! Reading and writing while storage nodes are away: within the profile's promise nobody notices, beyond it the refusal is typed.
//!
//! `dev` puts the k = 4 and m = 2 fragments of a stripe on the six nodes, one each, so that stopping nodes one by one, and two
//! by two, goes through every pattern of missing fragments that a stripe can have.

use crate::world::{World, noise};
use chaos::content::SeededContent;
use client_sdk::client::Target;
use reqwest::StatusCode;

/// A file and what it must read as.
struct Kept {
    id: String,
    bytes: Vec<u8>,
}

/// Numbers that a seed decides.
struct Dice(SeededContent, Vec<u8>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(SeededContent::new(seed, 1 << 20), Vec::new())
    }

    fn below(&mut self, end: usize) -> usize {
        if self.1.len() < 8 {
            self.1 = self
                .0
                .next_part()
                .expect("a megabyte of dice lasts for a test")
                .to_vec();
        }
        let drawn = self.1.split_off(self.1.len() - 8);
        (u64::from_le_bytes(drawn.try_into().unwrap()) % end as u64) as usize
    }
}

/// An inline file, one of three copies, one of a small stripe, and one of several stripes.
async fn put_all(world: &World) -> Vec<Kept> {
    let mut kept = Vec::new();
    for (seed, length) in (1_u64..).zip([900, 9_000, 300_000, (9 << 20) + 17]) {
        let bytes = noise(seed, length);
        let file = world.put(&format!("/{length}"), &bytes).await;
        assert!(!file.receipt.degraded);
        let id = file.entry.id;
        kept.push(Kept { id, bytes });
    }
    kept
}

/// Reads the whole, several ranges at once (which is answered with the whole), and `ranges` random ranges.
async fn check_reads(world: &World, kept: &[Kept], ranges: usize, dice: &mut Dice, pattern: &str) {
    for file in kept {
        let length = file.bytes.len();
        for headers in [&[][..], &[("range", "bytes=7-20,30-")]] {
            let back = world.content(&file.id, headers).await;
            assert_eq!(back.status, StatusCode::OK, "{pattern}, {length} bytes: {back:?}");
            assert!(back.body == file.bytes, "{pattern}: {length} bytes came back altered");
        }
        for _ in 0..ranges {
            let first = dice.below(length);
            // Half of the ranges are short, so that they lie inside of one fragment.
            let longest = if dice.below(2) == 0 { length } else { length.min(5_000) };
            let last = (first + dice.below(longest)).min(length - 1);
            let range = format!("bytes={first}-{last}");
            let back = world.content(&file.id, &[("range", &range)]).await;
            assert_eq!(back.status, StatusCode::PARTIAL_CONTENT, "{pattern}, {range}: {back:?}");
            let named = format!("bytes {first}-{last}/{length}");
            assert_eq!(back.header("content-range"), Some(named.as_str()));
            assert!(
                back.body == file.bytes[first..=last],
                "{pattern}: {range} of {length} bytes came back altered"
            );
        }
    }
}

/// Files of one stripe each, so many that every node holds data, and not parity alone, of some: of a stripe that spreads over all six
/// nodes, each node holds data with a chance of two in three, and misses it thirty times in a row once in 10^14 clusters.
const SCATTERED: u64 = 30;

/// shows: F28, FR-002
#[tokio::test]
async fn random_ranges_agree_with_the_model_whichever_single_fragment_is_missing() {
    let world = World::start_uncached().await;
    let kept = put_all(&world).await;
    let mut scattered = Vec::new();
    for seed in 0..SCATTERED {
        let bytes = noise(100 + seed, 300_000);
        let file = world.put(&format!("/scattered-{seed}"), &bytes).await;
        let id = file.entry.id;
        scattered.push(Kept { id, bytes });
    }
    let mut dice = Dice::new(28);
    // A fragment that comes late may be rebuilt instead; in a quiet pass nothing is.
    for pass in 1.. {
        let before = world.metric("gateway_rebuilt_reads_total").await;
        check_reads(&world, &kept, 12, &mut dice, "all nodes").await;
        if world.metric("gateway_rebuilt_reads_total").await == before {
            break;
        }
        assert!(pass < 10, "with all nodes something is rebuilt in every pass");
    }
    for node in world.nodes() {
        let before = world.metric("gateway_rebuilt_reads_total").await;
        let pattern = format!("without node {node}");
        world.stop_node(node).await;
        check_reads(&world, &kept, 12, &mut dice, &pattern).await;
        check_reads(&world, &scattered, 0, &mut dice, &pattern).await;
        world.start_node(node).await;
        let rebuilt = world.metric("gateway_rebuilt_reads_total").await - before;
        assert!(rebuilt > 0.0, "nothing was missing without node {node}");
    }
    check_reads(&world, &kept, 2, &mut dice, "all nodes again").await;
}

/// shows: US-1.3 scale=1/2, FR-002 scale=1/2
#[tokio::test]
async fn reads_survive_every_pair_of_missing_fragments() {
    let world = World::start_uncached().await;
    let kept = put_all(&world).await;
    let mut dice = Dice::new(13);
    let nodes = world.nodes();
    for (at, one) in nodes.iter().enumerate() {
        world.stop_node(*one).await;
        for other in &nodes[at + 1..] {
            world.stop_node(*other).await;
            let pattern = format!("without nodes {one} and {other}");
            // The three copies of a small stripe lie in three regions, so two nodes leave at least one.
            check_reads(&world, &kept[1..], 1, &mut dice, &pattern).await;
            world.start_node(*other).await;
        }
        world.start_node(*one).await;
    }
    assert!(world.metric("gateway_rebuilt_reads_total").await > 0.0);
    assert_eq!(world.metric("gateway_corrupt_fragments_total").await, 0.0);
}

/// shows: US-1.3 scale=1/2
#[tokio::test]
async fn writes_hand_off_while_a_node_is_away_and_read_back_before_and_after_its_return() {
    let world = World::start_uncached().await;
    let nodes = world.nodes();
    let mut kept = put_all(&world).await;
    let mut dice = Dice::new(5);
    world.stop_node(nodes[2]).await;
    for seed in 10..16 {
        let bytes = noise(seed, 5 << 20);
        let file = world.put(&format!("/handed-off-{seed}"), &bytes).await;
        assert_eq!(file.receipt.profile, "dev");
        assert!(file.receipt.degraded, "a fragment cannot be on the node that is away");
        kept.push(Kept {
            id: file.entry.id,
            bytes,
        });
    }
    assert!(world.metric("gateway_hand_offs_total").await >= 6.0);
    assert!(world.metric("gateway_stripes_written_total{degraded=\"true\"}").await >= 6.0);
    check_reads(&world, &kept, 2, &mut dice, "while the node is away").await;
    // A hand-off counts like any other fragment: one more node may go.
    world.stop_node(nodes[5]).await;
    check_reads(&world, &kept, 2, &mut dice, "and another one").await;
    world.start_node(nodes[2]).await;
    check_reads(&world, &kept, 2, &mut dice, "the first is back").await;
    world.start_node(nodes[5]).await;
    check_reads(&world, &kept, 2, &mut dice, "all are back").await;
    let hand_offs = world.metric("gateway_hand_offs_total").await;
    let whole = world.put("/whole", &noise(20, 5 << 20)).await;
    assert!(!whole.receipt.degraded);
    assert_eq!(world.metric("gateway_hand_offs_total").await, hand_offs);
}

#[tokio::test]
async fn what_is_beyond_the_promise_is_refused_by_type_and_is_whole_when_the_nodes_return() {
    let mut world = World::start_uncached().await;
    let kept = put_all(&world).await;
    let (inline, coded) = (&kept[0], &kept[2..]);
    let nodes = world.nodes();
    for node in &nodes[..3] {
        world.stop_node(*node).await;
    }
    for file in coded {
        let all = format!("bytes=-{}", file.bytes.len());
        for headers in [&[][..], &[("range", all.as_str())]] {
            let refused = world.content(&file.id, headers).await;
            refused.refused(503, "content_unreadable");
            let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds));
            assert_eq!(refused.header("etag"), None);
        }
        // Bytes that lie whole in a fragment that is left need no other.
        for first in (0..file.bytes.len()).step_by(file.bytes.len() / 3) {
            let range = format!("bytes={first}-{first}");
            let back = world.content(&file.id, &[("range", &range)]).await;
            match back.status {
                StatusCode::PARTIAL_CONTENT => assert_eq!(back.body, [file.bytes[first]], "{range}"),
                _ => drop(back.refused(503, "content_unreadable")),
            }
        }
    }
    assert!(world.content(&inline.id, &[]).await.body == inline.bytes);
    // Six disks are left: enough for a stripe on six disks, and for nothing better.
    let squeezed = world.put("/squeezed", &noise(30, 1 << 20)).await;
    assert!(squeezed.receipt.degraded);

    world.stop_node(nodes[3]).await;
    let target = Target::new_file("/too-much");
    let refused = world.client.put(&target, noise(31, 1 << 20).into()).await.unwrap_err();
    assert!(refused.is_retryable());
    assert!(refused.to_string().contains("503 too_few_disks"), "{refused}");
    assert!(world.metric("gateway_writes_below_floor_total").await > 0.0);
    // What is small enough for the metadata does not need them.
    world.put("/still-in", &noise(32, 4096)).await;
    let before = world.tree().await;
    assert!(!before.contains(&"/too-much".to_owned()));

    for node in &nodes[..4] {
        world.start_node(*node).await;
    }
    check_reads(&world, &kept, 4, &mut Dice::new(7), "all are back").await;
    assert!(world.content(&squeezed.entry.id, &[]).await.body == noise(30, 1 << 20));
    world.client.put(&target, noise(31, 1 << 20).into()).await.unwrap();
    world.restart().await;
    check_reads(&world, &kept, 4, &mut Dice::new(8), "after a restart").await;
}
