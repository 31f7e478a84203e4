//! What inline blocks take, sealed, as a counter of each slot: what compressing saves must not cost a scan.
//!
//! Invariants: the counter of a slot is the sum of the lengths in its inline table, of blocks that somebody holds and of others, up to
//! the place to which `fill` has come; what lies behind that place is counted when it comes there. `check` counts again.
//! No command fails by the counter and no answer depends on it: replicas that were upgraded one after the other may differ in it.
//! Not here: how many of them somebody holds (`packing`), what lies in stripes (`content_counts`).

use crate::state::age;
use crate::state::collection::TABLE_PREFIX_BYTES;
use crate::state::filling::{self, Filled};
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, load, save};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::{BlockId, DriveId, Slot};

/// Inline blocks of an earlier release that one command looks at: their bytes are read with them.
const COUNTED_AT_ONCE: usize = 256;

fn key(slot: Slot) -> Bytes {
    Key::of_slot(slot, keys::INLINE_BYTES).done()
}

fn filled_key() -> Bytes {
    Key::of_group(keys::PACKING_FILLED).u8(1).done()
}

/// The counter of a slot.
pub(crate) fn of_slot(kv: &dyn KvRead, slot: Slot) -> Outcome<u64> {
    Ok(load(kv, &key(slot))?.unwrap_or_default())
}

/// The counters of all slots that the group owns; `None` while some of what an earlier release left is not counted. Costs a look at
/// each slot.
pub(crate) fn of_group(kv: &dyn KvRead) -> Outcome<Option<u64>> {
    if !is_filled(kv)? {
        return Ok(None);
    }
    let mut sum = 0_u64;
    for slot in age::owned_slots(kv)? {
        sum = sum.saturating_add(of_slot(kv, slot)?);
    }
    Ok(Some(sum))
}

/// Whether a block's place in the inline table is one that the counter covers.
pub(crate) fn is_covered(kv: &dyn KvRead, drive: DriveId, block: BlockId) -> Outcome<bool> {
    let Filled::UpTo(at) = Filled::under(kv, &filled_key())? else {
        return Ok(true);
    };
    let slot = drive.slot().number();
    let end = keys::inline(drive, block).slice(TABLE_PREFIX_BYTES..);
    Ok(slot < at.slot || (slot == at.slot && end <= at.after))
}

/// Counts the bytes that now lie in the inline table for a block.
pub(crate) fn enter(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId) -> Outcome<()> {
    shift(tx, drive, block, u64::saturating_add)
}

/// Counts without the bytes that still lie in the inline table for a block.
pub(crate) fn leave(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId) -> Outcome<()> {
    shift(tx, drive, block, u64::saturating_sub)
}

fn shift(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, by: fn(u64, u64) -> u64) -> Outcome<()> {
    let Some(sealed) = tx.get(&keys::inline(drive, block))? else {
        return Ok(());
    };
    if !is_covered(&*tx, drive, block)? {
        return Ok(());
    }
    let bytes = by(of_slot(&*tx, drive.slot())?, sealed.len() as u64);
    save(tx, key(drive.slot()), &bytes)
}

/// A group that is new has nothing to be counted.
pub(crate) fn begin(tx: &mut Overlay<'_>) -> Outcome<()> {
    save(tx, filled_key(), &Filled::Whole)
}

/// Whether every inline block is counted.
pub(crate) fn is_filled(kv: &dyn KvRead) -> Outcome<bool> {
    Ok(Filled::under(kv, &filled_key())? == Filled::Whole)
}

/// Counts inline blocks that an earlier release left, a bounded number of blocks and slots a command; nothing once all are counted.
pub(crate) fn fill(tx: &mut Overlay<'_>) -> Outcome<()> {
    let Filled::UpTo(at) = Filled::under(&*tx, &filled_key())? else {
        return Ok(());
    };
    let rest = filling::go_on(tx, at, keys::INLINE, COUNTED_AT_ONCE, |tx, key_of_block, sealed| {
        let slot = DriveId(keys::u64_at(key_of_block, TABLE_PREFIX_BYTES)).slot();
        let bytes = of_slot(&*tx, slot)?.saturating_add(sealed.len() as u64);
        save(tx, key(slot), &bytes)
    })?;
    match rest {
        Some(at) => save(tx, filled_key(), &Filled::UpTo(at)),
        None => begin(tx),
    }
}
