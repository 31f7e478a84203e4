//! The part of the check that is about packing: inline blocks that are held, found the long way, against what stands among those to be
//! packed, the queue of drives, and what all inline blocks take.

use super::{Complaints, expect, table};
use crate::state::block::{self, BlockRecord, StoredPlace};
use crate::state::collection::TABLE_PREFIX_BYTES;
use crate::state::inline_bytes;
use crate::state::keys::{self, Key};
use crate::state::packing::{self, InlineCounts};
use crate::state::store::Outcome;
use bytes::Bytes;
use kv::seam::{KvRead, Scan};
use model::id::{BlockId, DriveId, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// Checks one drive, adds its rows to what its slot must have `counted` and its place to what the group must have `queued`.
pub(super) fn check(
    kv: &dyn KvRead,
    drive: DriveId,
    complaints: &mut Complaints,
    counted: &mut InlineCounts,
    queued: &mut BTreeSet<Bytes>,
) -> Outcome<()> {
    let found: BTreeMap<Bytes, u32> = table::<u32>(kv, drive, keys::PACKABLE)?.into_iter().collect();
    let mut wanted = BTreeMap::new();
    for (key, record) in table::<BlockRecord>(kv, drive, keys::BLOCK)? {
        let id = BlockId(keys::last_u64(&key));
        if record.place == StoredPlace::Inline && record.references > 0 {
            let row = keys::packable(drive, record.since.0, id);
            wanted.insert(row, block::inline_length(kv, drive, id)?);
        }
    }
    let is_same = if packing::is_filled(kv)? {
        found == wanted
    } else {
        found.iter().all(|(key, length)| wanted.get(key) == Some(length))
    };
    expect(complaints, is_same, || {
        format!("others of drive {drive} are to be packed than lie inline and are held")
    });
    counted.contents += found.len() as u64;
    counted.sealed_bytes += found.values().map(|length| u64::from(*length)).sum::<u64>();
    let looked_at = packing::looked_at(kv, drive)?;
    let is_covered = looked_at.is_some() || packing::worth_at(kv, drive)?.is_none();
    expect(complaints, is_covered, || {
        format!("drive {drive} has a stripe full of small contents and is not looked at")
    });
    if let Some(due) = looked_at {
        queued.insert(packing::queue_key(kv, drive, due)?);
    }
    Ok(())
}

/// Checks the counters of a slot against what its drives have.
pub(super) fn check_counts(
    kv: &dyn KvRead,
    slot: Slot,
    wanted: InlineCounts,
    complaints: &mut Complaints,
) -> Outcome<()> {
    let counted = packing::counts_of_slot(kv, slot)?;
    expect(complaints, counted == wanted, || {
        format!("slot {} has {wanted:?}, not {counted:?}", slot.number())
    });
    Ok(())
}

/// Checks what a slot counts of its inline table, held or not, as far as its count covers it.
pub(super) fn check_bytes(kv: &dyn KvRead, slot: Slot, complaints: &mut Complaints) -> Outcome<()> {
    let rows = kv.scan(&Scan::prefix(&Key::of_slot(slot, keys::INLINE).done(), usize::MAX))?;
    let mut wanted = 0;
    for (key, sealed) in rows {
        let drive = DriveId(keys::u64_at(&key, TABLE_PREFIX_BYTES));
        if inline_bytes::is_covered(kv, drive, BlockId(keys::last_u64(&key)))? {
            wanted += sealed.len() as u64;
        }
    }
    let counted = inline_bytes::of_slot(kv, slot)?;
    expect(complaints, counted == wanted, || {
        format!(
            "slot {} has {wanted} bytes of inline blocks, not {counted}",
            slot.number()
        )
    });
    Ok(())
}

/// Checks that the group's queue of drives is what the drives say.
pub(super) fn check_queue(kv: &dyn KvRead, wanted: &BTreeSet<Bytes>, complaints: &mut Complaints) -> Outcome<()> {
    let rows = kv.scan(&Scan::prefix(&Key::of_group(keys::PACKING_DUE).done(), usize::MAX))?;
    let found: BTreeSet<Bytes> = rows.into_iter().map(|(key, _)| key).collect();
    expect(complaints, found == *wanted, || {
        "the queue of drives with small contents lists others than the drives".to_owned()
    });
    Ok(())
}
