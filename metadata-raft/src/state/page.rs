//! Pages: runs of blocks, written once under their digest and counted.
//!
//! Invariants: count = versions and sessions that name the page, each time it is named; while the page is there it holds one
//! reference for each of its rows; a page at zero is in the release queue until it is reaped or counted up again.

use crate::state::age::Now;
use crate::state::block;
use crate::state::collection;
use crate::state::content_counts::{self, ContentCounts};
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::store::{Outcome, Stop, broken, load, require, save};
use crate::state::version::PageRef;
use crate::state::waiting::{self, AT_ONCE, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::{BlockId, DriveId};
use model::limits::PAGE_BLOCKS_MAX;
use protocol::codes;
use protocol::metadata::drive::Swept;
use std::collections::BTreeSet;

/// One row of a page or of a session's open page.
pub(crate) type StoredRow = (BlockId, u32);

fn count_key(drive: DriveId, digest: Digest) -> Bytes {
    keys::by_digest(drive, keys::PAGE, digest)
}

fn rows_key(drive: DriveId, digest: Digest) -> Bytes {
    keys::by_digest(drive, keys::PAGE_ROWS, digest)
}

fn release_key(drive: DriveId, digest: Digest) -> Bytes {
    keys::by_digest(drive, keys::PAGE_RELEASE, digest)
}

/// How often a page is held; `None` when it is not there.
pub(crate) fn count(kv: &dyn KvRead, drive: DriveId, digest: Digest) -> Outcome<Option<u64>> {
    load(kv, &count_key(drive, digest))
}

/// The rows of a page that is there.
pub(crate) fn rows(kv: &dyn KvRead, drive: DriveId, digest: Digest) -> Outcome<Vec<StoredRow>> {
    load(kv, &rows_key(drive, digest))?.ok_or_else(|| broken("a named page has no rows"))
}

/// Finds the blocks of rows; `need_blocks` with the digests of those absent or in a damaged stripe, each once.
pub(crate) fn find_blocks(kv: &dyn KvRead, drive: DriveId, rows: &[BlockRow]) -> Outcome<Vec<StoredRow>> {
    let mut found = Vec::with_capacity(rows.len());
    let mut needed = BTreeSet::new();
    for row in rows {
        match block::find_whole(kv, drive, row.digest)? {
            Some((id, record)) => {
                require(record.row.size == row.size, &codes::MALFORMED_PAGE)?;
                found.push((id, row.size));
            }
            None => {
                needed.insert(row.digest);
            }
        }
    }
    if needed.is_empty() {
        Ok(found)
    } else {
        Err(need_blocks(&needed))
    }
}

fn need_blocks(needed: &BTreeSet<Digest>) -> Stop {
    let list: Vec<String> = needed.iter().map(Digest::to_hex).collect();
    codes::NEED_BLOCKS.failure().with("blocks", list.join(",")).into()
}

/// Counts plain bytes that were held by one reference to a page and are by another.
fn count_held(tx: &mut Overlay<'_>, drive: DriveId, before: u64, after: u64) -> Outcome<()> {
    let of_page = ContentCounts::of_page;
    content_counts::replace(tx, drive.slot(), of_page(before), of_page(after))
}

/// The reference to a page of these rows.
pub(crate) fn reference(digest: Digest, rows: &[StoredRow]) -> Outcome<PageRef> {
    require(
        !rows.is_empty() && rows.len() <= PAGE_BLOCKS_MAX,
        &codes::MALFORMED_PAGE,
    )?;
    let bytes = rows.iter().map(|(_, size)| u64::from(*size)).sum();
    Ok(PageRef {
        digest,
        blocks: u16::try_from(rows.len()).unwrap_or(u16::MAX),
        bytes,
    })
}

/// Counts a page up, writing it when it is not there. `has_references`: the rows come with references of their own (of a session),
/// which the page takes over or which are given up where the page exists.
pub(crate) fn hold(
    tx: &mut Overlay<'_>,
    now: &Now,
    drive: DriveId,
    digest: Digest,
    rows: &[StoredRow],
    has_references: bool,
) -> Outcome<PageRef> {
    let reference = reference(digest, rows)?;
    let known = count(&*tx, drive, digest)?;
    match known {
        Some(_) => {
            let same = self::rows(&*tx, drive, digest)? == rows;
            require(same, &codes::MALFORMED_PAGE)?;
            hold_known(tx, drive, digest)?;
            if has_references {
                for (block, _) in rows {
                    block::give_up(tx, now, drive, *block)?;
                }
            }
        }
        None => {
            count_held(tx, drive, 0, reference.bytes)?;
            save(tx, count_key(drive, digest), &1_u64)?;
            save(tx, rows_key(drive, digest), &rows.to_vec())?;
            if !has_references {
                for (block, _) in rows {
                    block::take(tx, drive, *block)?;
                }
            }
        }
    }
    Ok(reference)
}

/// Counts a page up that is there; `page_not_found` for another.
pub(crate) fn hold_known(tx: &mut Overlay<'_>, drive: DriveId, digest: Digest) -> Outcome<PageRef> {
    let count = count(&*tx, drive, digest)?.ok_or(&codes::PAGE_NOT_FOUND)?;
    let reference = reference(digest, &rows(&*tx, drive, digest)?)?;
    if count == 0 {
        tx.delete(release_key(drive, digest));
    }
    count_held(tx, drive, 0, reference.bytes)?;
    let count = count
        .checked_add(1)
        .ok_or_else(|| broken("a page's count is used up"))?;
    save(tx, count_key(drive, digest), &count)?;
    Ok(reference)
}

/// Counts a page down; at zero it waits for `reap`.
pub(crate) fn release(tx: &mut Overlay<'_>, drive: DriveId, digest: Digest) -> Outcome<()> {
    let count = count(&*tx, drive, digest)?.and_then(|count| count.checked_sub(1));
    let count = count.ok_or_else(|| broken("a page is released twice"))?;
    let bytes = rows(&*tx, drive, digest)?
        .iter()
        .map(|(_, size)| u64::from(*size))
        .sum();
    count_held(tx, drive, bytes, 0)?;
    if count == 0 {
        tx.put(release_key(drive, digest), Bytes::new());
        waiting::note_now(tx, Work::of(drive, Sweep::Pages))?;
    }
    save(tx, count_key(drive, digest), &count)
}

/// Those of `digests` whose pages are there, in their order.
pub(crate) fn known(kv: &dyn KvRead, drive: DriveId, digests: &[Digest]) -> Outcome<Vec<Digest>> {
    let mut known = Vec::new();
    for digest in digests {
        if count(kv, drive, *digest)?.is_some() {
            known.push(*digest);
        }
    }
    Ok(known)
}

/// Whether `reap` has something to do.
pub(crate) fn has_released(kv: &dyn KvRead, drive: DriveId) -> Outcome<bool> {
    let prefix = keys::Key::of_drive(drive, keys::PAGE_RELEASE).done();
    Ok(!kv.scan(&Scan::prefix(&prefix, 1))?.is_empty())
}

/// `ReapPages`: takes pages at zero away with their references, from where the last sweep ended.
pub(crate) fn reap(tx: &mut Overlay<'_>, now: &Now, drive: DriveId) -> Outcome<Swept> {
    let work = Work::of(drive, Sweep::Pages);
    let prefix = keys::Key::of_drive(drive, keys::PAGE_RELEASE).done();
    let mut after = waiting::after(&*tx, work)?;
    let mut operations = 0;
    for (key, _) in tx.scan(&waiting::behind(&prefix, &after, SWEEP_OPERATIONS_MAX))? {
        let digest = key.last_chunk::<32>().map(|bytes| Digest(*bytes));
        let digest = digest.ok_or_else(|| broken("a queued page has no digest"))?;
        let rows = rows(&*tx, drive, digest)?;
        if operations > 0 && operations + rows.len() > SWEEP_OPERATIONS_MAX {
            break;
        }
        if count(&*tx, drive, digest)? != Some(0) {
            return Err(broken("a held page is in the release queue"));
        }
        for (block, _) in &rows {
            block::give_up(tx, now, drive, *block)?;
        }
        for key in [count_key(drive, digest), rows_key(drive, digest), key.clone()] {
            tx.delete(key);
        }
        after = key.slice(prefix.len()..);
        operations += rows.len();
    }
    // Digests have no order: what was released meanwhile may lie before.
    if waiting::first(&*tx, &prefix, &after)?.is_none() {
        after = Bytes::new();
    }
    let is_done = waiting::first(&*tx, &prefix, &after)?.is_none();
    waiting::settle(tx, work, (!is_done).then_some((AT_ONCE, after)))?;
    collection::note_excess(tx, drive)?;
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done,
    })
}
