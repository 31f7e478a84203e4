//! What inline blocks take and what compressing saves: counted from a block's commit to its death, and for what an earlier release left.

use super::collection::{GRACE_MS, sweep_blocks};
use super::packing::half_filled;
use super::{Bench, row};
use crate::state::content_counts::{self, ContentCounts};
use crate::state::inline_bytes;
use crate::state::packing::{self, InlineCounts};
use bytes::Bytes;
use model::id::EntryId;
use protocol::metadata::upload::InlineBlock;

const SEALED: &[u8] = b"sealed";

/// A file of five plain bytes that lie inline as six.
fn put(bench: &mut Bench, at: &str) -> EntryId {
    let tiny = row("tiny", 5);
    let mut content = bench.content(&[tiny], &[]);
    content.inline = Some(InlineBlock {
        row: tiny,
        sealed: Bytes::from_static(SEALED),
    });
    bench.commit(at, None, content).unwrap().view.entry.id
}

fn counted(bench: &Bench) -> Option<u64> {
    inline_bytes::of_group(&bench.kv).unwrap()
}

fn percent(bench: &Bench, sealed_bytes: u64) -> u64 {
    let counts = content_counts::of_group(&bench.kv).unwrap();
    counts.compression_percent(sealed_bytes + counts.living_bytes)
}

#[test]
fn an_inline_block_is_counted_once_until_it_dies_whether_or_not_somebody_holds_it() {
    let mut bench = Bench::new(1 << 30);
    assert_eq!(counted(&bench), Some(0));
    let files = ["/once", "/twice"].map(|at| put(&mut bench, at));
    bench.sound();
    assert_eq!((counted(&bench), percent(&bench, 6)), (Some(6), 120));
    for file in files {
        bench.purge(file).unwrap();
    }
    bench.reap();
    bench.sound();
    // Nobody holds it, and its plain and its sealed bytes are both there for as long as it waits.
    assert_eq!(packing::counts_of_group(&bench.kv).unwrap(), InlineCounts::default());
    assert_eq!((counted(&bench), percent(&bench, 6)), (Some(6), 120));
    bench.advance(GRACE_MS);
    assert_eq!(sweep_blocks(&mut bench).operations, 1);
    bench.sound();
    assert_eq!((counted(&bench), percent(&bench, 0)), (Some(0), 0));
}

#[test]
fn what_an_earlier_release_left_is_counted_once_and_no_part_of_it_is_told() {
    let mut bench = half_filled();
    assert_eq!(counted(&bench), None);
    bench.sound();
    // Behind the place to which counting has come: counted when it comes there, and not twice.
    put(&mut bench, "/late");
    bench.sound();
    assert_eq!(counted(&bench), None);
    while !inline_bytes::is_filled(&bench.kv).unwrap() {
        bench.advance(1);
    }
    bench.sound();
    assert_eq!(counted(&bench), Some(300 * 4_030 + 6));
}

#[test]
fn the_share_that_compressing_leaves_is_of_all_plain_bytes_and_rounded_up() {
    for (charged_bytes, released_bytes, sealed_bytes, expected) in [
        (0, 0, 0, 0),
        (0, 0, 7, 0),
        (100, 0, 40, 40),
        (60, 40, 40, 40),
        (0, 100, 40, 40),
        (1_000, 0, 400, 40),
        (1_000, 0, 401, 41),
        (1_000, 0, 1_001, 101),
        (3, 0, u64::MAX, u64::MAX.div_ceil(3)),
    ] {
        let counts = ContentCounts {
            charged_bytes,
            released_bytes,
            ..ContentCounts::default()
        };
        assert_eq!(
            counts.compression_percent(sealed_bytes),
            expected,
            "{sealed_bytes} of {charged_bytes} and {released_bytes}"
        );
    }
}
