//! The streaming cutter against the one-shot cut of the crate that its tables come from.

use crate::samples::noise;
use bytes::Bytes;
use codec::cut::Cutter;
use fastcdc::v2020::{FastCDC, Normalization};
use model::limits::{BLOCK_BYTES_AVG, BLOCK_BYTES_MAX, BLOCK_BYTES_MIN};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

fn one_shot(content: &[u8]) -> Vec<usize> {
    FastCDC::with_level(
        content,
        BLOCK_BYTES_MIN,
        BLOCK_BYTES_AVG,
        BLOCK_BYTES_MAX,
        Normalization::Level1,
    )
    .map(|chunk| chunk.length)
    .collect()
}

/// Cuts `content` in buffers that end at `edges` and compares lengths and bytes with the one-shot cut.
fn check(content: &Bytes, edges: &[usize]) {
    let mut edges: Vec<usize> = edges.iter().map(|edge| (*edge).min(content.len())).collect();
    edges.push(content.len());
    edges.sort_unstable();
    let mut cutter = Cutter::new();
    let mut blocks = Vec::new();
    let mut first = 0;
    for edge in edges {
        blocks.extend(cutter.push(content.slice(first..edge)));
        assert!(cutter.held_bytes() < BLOCK_BYTES_MAX, "a whole block is never held");
        first = edge;
    }
    blocks.extend(cutter.finish());
    assert_eq!(cutter.held_bytes(), 0);
    let lengths: Vec<usize> = blocks.iter().map(Bytes::len).collect();
    assert_eq!(lengths, one_shot(content));
    assert_eq!(&blocks.concat(), content);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_cuts_do_not_depend_on_how_the_content_came_in(
        seed in any::<u64>(),
        length in 0_usize..12 << 20,
        edges in prop::collection::vec(0_usize..12 << 20, 0..40),
    ) {
        check(&noise(seed, length), &edges);
    }

    #[test]
    fn long_runs_and_equal_buffers_are_cut_as_in_one_shot(seed in any::<u64>(), run in 0_usize..6 << 20, step in 3000_usize..300_000) {
        let content = Bytes::from([&noise(seed, 1 << 20)[..], &vec![7; run], &noise(seed ^ 1, 3 << 20)].concat());
        let edges: Vec<usize> = (0..content.len()).step_by(step).collect();
        check(&content, &edges);
    }
}

#[test]
fn lengths_at_the_edges_of_a_block_are_cut_as_in_one_shot() {
    for edge in [
        0,
        2,
        BLOCK_BYTES_MIN,
        BLOCK_BYTES_AVG,
        BLOCK_BYTES_MAX,
        2 * BLOCK_BYTES_MAX,
    ] {
        for length in edge.saturating_sub(2)..=edge + 2 {
            check(&noise(5, length), &[length / 2, length / 3]);
            check(&Bytes::from(vec![0; length]), &[length / 2, 1]);
        }
    }
}

#[test]
fn buffers_that_end_next_to_a_cut_do_not_move_it() {
    let content = noise(11, 24 << 20);
    let mut cut = 0;
    let mut straddled = 0;
    for length in one_shot(&content) {
        cut += length;
        for edge in cut - 2..=cut + 2 {
            check(&content, &[edge, edge + 1]);
        }
        straddled += usize::from(length % 2 == 0 && cut < content.len());
    }
    assert!(
        straddled > 0,
        "some cut lies at the first byte of a pair, so that its second came in a later buffer"
    );
}

#[test]
fn single_bytes_are_cut_as_in_one_shot() {
    let content = noise(3, 3 << 20);
    let edges: Vec<usize> = (0..content.len()).collect();
    check(&content, &edges);
}

#[test]
fn a_block_inside_one_buffer_is_a_slice_of_it() {
    let content = noise(2, 16 << 20);
    let blocks = Cutter::new().push(content.clone());
    assert!(blocks.len() > 4);
    let buffer = content.as_ptr_range();
    assert!(blocks.iter().all(|block| buffer.contains(&block.as_ptr())));
}

#[test]
fn an_insertion_in_front_moves_the_cuts_and_keeps_the_blocks() {
    let content = noise(21, 32 << 20);
    let longer = Bytes::from([b"x", &content[..]].concat());
    let cut = |content: &Bytes| -> Vec<Bytes> {
        let mut cutter = Cutter::new();
        let mut blocks = cutter.push(content.clone());
        blocks.extend(cutter.finish());
        blocks
    };
    let (old, new) = (cut(&content), cut(&longer));
    let shared = new.iter().filter(|block| old.contains(block)).count();
    assert!(shared + 3 >= old.len(), "{shared} of {} blocks are shared", old.len());
}
