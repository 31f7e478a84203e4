//! Pages at the size of the largest file: what they weigh, and how many of them a change writes.

use super::sessions::{append_runs, commit, open};
use super::{Bench, digest, row};
use crate::state::keys;
use kv::seam::{KvRead, Scan};
use model::entry::BlockRow;
use model::limits::{PAGE_BLOCKS_MAX, PAGE_BLOCKS_MIN, PAGE_END_BITS};
use protocol::metadata::upload::RowRun;
use std::collections::BTreeSet;

const BLOCKS: usize = 10_000;
/// 10 GiB over so many blocks.
const BLOCK_BYTES: u32 = 1_073_741;
/// Rows of a command: each costs a block entered and a row, of at most 1,000 operations.
const ROWS_AT_ONCE: usize = 300;
const STRIPE_BLOCKS: usize = 3;

/// Whether a page ends behind this block, once it has enough.
fn is_page_end(row: &BlockRow) -> bool {
    let low = u32::from_be_bytes([row.digest.0[28], row.digest.0[29], row.digest.0[30], row.digest.0[31]]);
    low.trailing_zeros() >= PAGE_END_BITS
}

/// The rows page by page, each page under a name that its content alone decides, as a gateway cuts them.
fn paged(rows: &[BlockRow]) -> Vec<RowRun> {
    let mut runs = vec![Vec::new()];
    for row in rows {
        let page: &mut Vec<BlockRow> = runs.last_mut().unwrap();
        page.push(*row);
        if page.len() == PAGE_BLOCKS_MAX || page.len() >= PAGE_BLOCKS_MIN && is_page_end(row) {
            runs.push(Vec::new());
        }
    }
    runs.retain(|page| !page.is_empty());
    let run = |rows: Vec<BlockRow>| RowRun {
        page_end: Some(digest(&format!("{rows:?}"))),
        rows,
    };
    runs.into_iter().map(run).collect()
}

/// Puts a file of these rows by a session, with the blocks that are `new`.
fn put(bench: &mut Bench, at: &str, rows: &[BlockRow], new: &[BlockRow]) {
    let upload = open(bench, at, None);
    let new: BTreeSet<_> = new.iter().map(|row| row.digest).collect();
    let mut position = 0;
    for page in paged(rows) {
        let mut left = &page.rows[..];
        while !left.is_empty() {
            let (part, behind) = left.split_at(left.len().min(ROWS_AT_ONCE));
            left = behind;
            let fresh: Vec<BlockRow> = part.iter().filter(|row| new.contains(&row.digest)).copied().collect();
            let stripes = fresh.chunks(STRIPE_BLOCKS).map(|blocks| bench.stripe(blocks)).collect();
            let run = RowRun {
                rows: part.to_vec(),
                page_end: if left.is_empty() { page.page_end } else { None },
            };
            append_runs(bench, upload, position, stripes, vec![run]).unwrap();
            position += part.len() as u64;
        }
    }
    let size = rows.iter().map(|row| u64::from(row.size)).sum();
    commit(bench, upload, size, at).unwrap();
}

/// The bytes of each stored page, by key.
fn stored(bench: &Bench) -> Vec<usize> {
    let prefix = keys::Key::of_drive(bench.drive, keys::PAGE_ROWS).done();
    let pages = bench.kv.scan(&Scan::prefix(&prefix, usize::MAX)).unwrap();
    pages.iter().map(|(key, rows)| key.len() + rows.len()).collect()
}

/// shows: DM-3
#[test]
fn ten_gib_weigh_at_most_200_kib_of_pages_and_a_changed_block_writes_its_page_alone() {
    let mut bench = Bench::new(1 << 40);
    let rows: Vec<BlockRow> = (0..BLOCKS)
        .map(|number| row(&format!("block {number}"), BLOCK_BYTES))
        .collect();
    put(&mut bench, "/large", &rows, &rows);
    let pages = paged(&rows);
    let weights = stored(&bench);
    assert_eq!(weights.len(), pages.len());
    let weight: usize = weights.iter().sum();
    assert!(weight <= 200 << 10, "{weight} bytes in {} pages", pages.len());
    assert!(weight >= BLOCKS, "fewer bytes than blocks: {weight}");

    // A page that ended by its last block's digest and not by its length.
    let ends: Vec<usize> = pages
        .iter()
        .scan(0, |rows, page| {
            *rows += page.rows.len();
            Some((*rows - 1, page.rows.len() < PAGE_BLOCKS_MAX))
        })
        .filter_map(|(end, is_by_digest)| is_by_digest.then_some(end))
        .collect();
    let end = ends[ends.len() / 2];
    let names = |rows: &[BlockRow]| -> BTreeSet<_> { paged(rows).iter().filter_map(|page| page.page_end).collect() };
    for (number, at, replaced) in [(1, end + 1, 1), (2, end, 2)] {
        let mut edited = rows.clone();
        edited[at] = row(&format!("edit {number}"), BLOCK_BYTES);
        assert!(!is_page_end(&edited[at]));
        let gone = names(&rows).difference(&names(&edited)).count();
        assert_eq!(gone, replaced, "block {at}");
        let before = stored(&bench).len();
        put(&mut bench, &format!("/edited {number}"), &edited, &edited[at..=at]);
        let written = stored(&bench).len() - before;
        assert!(
            (1..=replaced).contains(&written),
            "block {at}: {written} pages were written"
        );
    }
    bench.sound();
}
