//! Small contents that leave the metadata: which have lain there for long enough, and the command that has them lie in a stripe.
//!
//! A file of at most `INLINE_BYTES_MAX` comes in with its sealed block in the inline table of every replica. What is still wanted a
//! day later is laid into a stripe by a gateway, as it is sealed, and `PackInline` has the blocks lie there.
//! Invariants: an inline block with references stands in `PACKABLE` under the age at which it last had none, with its sealed length,
//! and no other block does; a drive with enough of them for a stripe is in the group's queue; a block moves only while its very bytes
//! lie in the inline table, and nothing else of it changes: pages, references, usage.
//! Not here: who writes the stripe (the gateway's collector), blocks without references (`collection`).

use crate::state::age::{self, Now};
use crate::state::block::{self, StoredPlace};
use crate::state::collection::{self, TABLE_PREFIX_BYTES};
use crate::state::drive;
use crate::state::filling::{self, Filled};
use crate::state::inline_bytes;
use crate::state::keys::{self, DRIVE_PREFIX_BYTES, Key};
use crate::state::store::{Outcome, broken, list, load, save};
use crate::state::stripe;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::entry::BlockRow;
use model::id::{BlockId, DriveId, Slot};
use model::limits::COPIES_BYTES_MAX;
use model::stripe::STRIPE_BLOCKS_MAX;
use model::time::Age;
use protocol::metadata::drive::Swept;
use protocol::metadata::query::{PACKING_BYTES_MAX, Packing, PackingAsk};
use protocol::metadata::upload::{InlineBlock, PackedContents};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A content is left alone for so many birth epochs, a day of production: most of what is written again is written again soon. Guess.
pub(crate) const PACK_AFTER_EPOCHS: u64 = 24;
/// A stripe that is no longer than this lies in three copies, which is what its contents take in the metadata.
const TOO_LITTLE_BYTES: u64 = COPIES_BYTES_MAX as u64;
/// Inline blocks of an earlier release that one command looks at: their bytes are read with them.
const FILLED_AT_ONCE: usize = 256;

/// What lies inline and is held by somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InlineCounts {
    pub(crate) contents: u64,
    pub(crate) sealed_bytes: u64,
}

fn span(kv: &dyn KvRead) -> Outcome<Duration> {
    let epoch_ms = age::settings(kv)?.birth_epoch_ms;
    Ok(Duration::from_millis(epoch_ms.saturating_mul(PACK_AFTER_EPOCHS)))
}

fn counts_key(slot: Slot) -> Bytes {
    Key::of_slot(slot, keys::INLINE_COUNTS).done()
}

/// The counters of a slot.
pub(crate) fn counts_of_slot(kv: &dyn KvRead, slot: Slot) -> Outcome<InlineCounts> {
    Ok(load(kv, &counts_key(slot))?.unwrap_or_default())
}

/// The counters of all slots that the group owns. Costs a look at each.
pub(crate) fn counts_of_group(kv: &dyn KvRead) -> Outcome<InlineCounts> {
    let mut sum = InlineCounts::default();
    for slot in age::owned_slots(kv)? {
        let counts = counts_of_slot(kv, slot)?;
        sum.contents = sum.contents.saturating_add(counts.contents);
        sum.sealed_bytes = sum.sealed_bytes.saturating_add(counts.sealed_bytes);
    }
    Ok(sum)
}

fn count(tx: &mut Overlay<'_>, slot: Slot, (contents, bytes): (i64, i64)) -> Outcome<()> {
    let counts = counts_of_slot(&*tx, slot)?;
    let shifted = |counter: u64, delta: i64| {
        let shifted = counter.checked_add_signed(delta);
        shifted.ok_or_else(|| broken("a counter of inline blocks would leave its range"))
    };
    let counts = InlineCounts {
        contents: shifted(counts.contents, contents)?,
        sealed_bytes: shifted(counts.sealed_bytes, bytes)?,
    };
    save(tx, counts_key(slot), &counts)
}

/// Notes that an inline block is held from now on; `since` is when it last was not.
pub(crate) fn enter(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    block: BlockId,
    since: Age,
    sealed_bytes: u32,
) -> Outcome<()> {
    save(tx, keys::packable(drive, since.0, block), &sealed_bytes)?;
    count(tx, drive.slot(), (1, i64::from(sealed_bytes)))?;
    let due = since.after(span(&*tx)?);
    let known = looked_at(&*tx, drive)?;
    if known.is_some_and(|known| known <= due) {
        return Ok(());
    }
    schedule(tx, drive, known, Some(due))
}

/// Notes that an inline block is held by nobody, or does not lie inline any more.
pub(crate) fn leave(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, since: Age) -> Outcome<()> {
    let key = keys::packable(drive, since.0, block);
    let Some(sealed_bytes) = load::<u32>(&*tx, &key)? else {
        // Of an earlier release, and not looked at by `fill` yet.
        return Ok(());
    };
    tx.delete(key);
    count(tx, drive.slot(), (-1, -i64::from(sealed_bytes)))
}

/// At which age the drive is looked at next; `None` when it is not.
pub(crate) fn looked_at(kv: &dyn KvRead, drive: DriveId) -> Outcome<Option<Age>> {
    load(kv, &keys::packing(drive))
}

/// The key under which a drive that is looked at then stands in the group's queue.
pub(crate) fn queue_key(kv: &dyn KvRead, drive: DriveId, due: Age) -> Outcome<Bytes> {
    let counter_ms = age::counter_at(kv, drive.slot(), due)?;
    Ok(keys::packing_due(counter_ms, drive))
}

fn schedule(tx: &mut Overlay<'_>, drive: DriveId, known: Option<Age>, due: Option<Age>) -> Outcome<()> {
    if known == due {
        return Ok(());
    }
    if let Some(known) = known {
        let key = queue_key(&*tx, drive, known)?;
        tx.delete(key);
    }
    let Some(due) = due else {
        tx.delete(keys::packing(drive));
        return Ok(());
    };
    let key = queue_key(&*tx, drive, due)?;
    tx.put(key, Bytes::new());
    save(tx, keys::packing(drive), &due)
}

/// When as much of a drive is due as is worth a stripe; `None` while it has less.
pub(crate) fn worth_at(kv: &dyn KvRead, drive: DriveId) -> Outcome<Option<Age>> {
    let prefix = Key::of_drive(drive, keys::PACKABLE).done();
    let rows = list::<u32>(kv, &prefix, None, STRIPE_BLOCKS_MAX)?;
    let mut bytes = 0;
    for (at, (key, sealed_bytes)) in rows.iter().enumerate() {
        bytes += u64::from(*sealed_bytes);
        if bytes > TOO_LITTLE_BYTES || at + 1 == STRIPE_BLOCKS_MAX {
            return Ok(Some(since_of(key).after(span(kv)?)));
        }
    }
    Ok(None)
}

fn since_of(key: &[u8]) -> Age {
    Age(keys::u64_at(key, DRIVE_PREFIX_BYTES))
}

/// `PackInline`: blocks that still lie inline lie in the stripe from now on. Answers how many, and whether nothing more is due.
pub(crate) fn pack(tx: &mut Overlay<'_>, now: &Now, order: &PackedContents) -> Outcome<Swept> {
    collection::require_lease(&*tx, order.lease)?;
    let mut record = drive::get(&*tx, order.drive)?;
    let mut packed = 0;
    if let Some(new) = &order.stripe {
        stripe::enter_by(tx, now, &mut record, new, |tx, drive, row, place| {
            let is_packed = relocate(tx, drive.drive, row, place)?;
            packed += u32::from(is_packed);
            Ok(is_packed)
        })?;
    }
    let mut next = worth_at(&*tx, order.drive)?;
    if order.stripe.is_none() && next.is_some_and(|due| due <= now.age()) {
        // It could not be written as its profile asks: others come first.
        next = Some(now.age().after(span(&*tx)?));
    }
    let known = looked_at(&*tx, order.drive)?;
    schedule(tx, order.drive, known, next)?;
    Ok(Swept {
        operations: packed,
        is_done: next.is_none_or(|due| due > now.age()),
    })
}

/// Has a block lie in a stripe, when its very bytes lie inline and somebody holds it.
fn relocate(tx: &mut Overlay<'_>, drive: DriveId, row: BlockRow, place: StoredPlace) -> Outcome<bool> {
    let StoredPlace::Stripe { sealed_bytes, .. } = place else {
        return Ok(false);
    };
    let Some((block, known)) = block::find(&*tx, drive, row.digest)? else {
        return Ok(false);
    };
    // Not by its row in `PACKABLE`: while `fill` has not been through, replicas may differ in those, and they must not in this.
    let is_wanted = known.row == row && known.references > 0 && known.place == StoredPlace::Inline;
    if !is_wanted || block::inline_length(&*tx, drive, block)? != sealed_bytes {
        return Ok(false);
    }
    leave(tx, drive, block, known.since)?;
    inline_bytes::leave(tx, drive, block)?;
    tx.delete(keys::inline(drive, block));
    block::replace_place(tx, drive, block, known, place)?;
    Ok(true)
}

/// What a gateway asks before it packs: which drive has waited longest, or what is due of one.
pub(crate) fn describe(kv: &dyn KvRead, ask: Option<&PackingAsk>) -> Outcome<Packing> {
    let mut packing = Packing {
        lease: collection::lease(kv)?,
        drive: None,
        contents: Vec::new(),
        next: None,
    };
    let Some(ask) = ask else {
        let queue = kv.scan(&Scan::prefix(&Key::of_group(keys::PACKING_DUE).done(), 1))?;
        let now_ms = age::counter_ms(kv)?;
        if let Some((key, _)) = queue
            .first()
            .filter(|(key, _)| keys::u64_at(key, TABLE_PREFIX_BYTES) <= now_ms)
        {
            packing.drive = Some(drive::get(kv, DriveId(keys::last_u64(key)))?.facts());
        }
        return Ok(packing);
    };
    // Asked first: it refuses a slot that is another group's.
    let now = age::of_slot(kv, ask.drive.slot())?;
    packing.drive = Some(drive::get(kv, ask.drive)?.facts());
    let span = span(kv)?;
    let prefix = Key::of_drive(ask.drive, keys::PACKABLE).done();
    let after = ask.after.map(|(since, block)| keys::packable(ask.drive, since, block));
    let mut bytes = 0;
    for (key, sealed_bytes) in list::<u32>(kv, &prefix, after.as_deref(), STRIPE_BLOCKS_MAX)? {
        let (since, id) = (since_of(&key), BlockId(keys::last_u64(&key)));
        if since.after(span) > now {
            packing.next = None;
            return Ok(packing);
        }
        let sealed = kv.get(&keys::inline(ask.drive, id))?;
        packing.contents.push(InlineBlock {
            row: block::get(kv, ask.drive, id)?.row,
            sealed: sealed.ok_or_else(|| broken("a block to be packed has no bytes"))?,
        });
        packing.next = Some((since.0, id));
        bytes += sealed_bytes as usize;
        if bytes >= PACKING_BYTES_MAX {
            break;
        }
    }
    Ok(packing)
}

fn filled_key() -> Bytes {
    Key::of_group(keys::PACKING_FILLED).done()
}

/// A group that is new has nothing to be filled in.
pub(crate) fn begin(tx: &mut Overlay<'_>) -> Outcome<()> {
    save(tx, filled_key(), &Filled::Whole)
}

/// Whether every inline block that is held has its row.
pub(crate) fn is_filled(kv: &dyn KvRead) -> Outcome<bool> {
    Ok(Filled::under(kv, &filled_key())? == Filled::Whole)
}

/// Enters inline blocks that an earlier release left, a bounded number of blocks and slots a command; nothing once all have rows.
pub(crate) fn fill(tx: &mut Overlay<'_>) -> Outcome<()> {
    let Filled::UpTo(at) = Filled::under(&*tx, &filled_key())? else {
        return Ok(());
    };
    let rest = filling::go_on(tx, at, keys::INLINE, FILLED_AT_ONCE, |tx, key, sealed| {
        let drive = DriveId(keys::u64_at(key, TABLE_PREFIX_BYTES));
        enter_missing(tx, drive, BlockId(keys::last_u64(key)), sealed.len())
    })?;
    match rest {
        Some(at) => save(tx, filled_key(), &Filled::UpTo(at)),
        None => begin(tx),
    }
}

fn enter_missing(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, sealed_bytes: usize) -> Outcome<()> {
    let record = block::get(&*tx, drive, block)?;
    let is_there = tx.get(&keys::packable(drive, record.since.0, block))?.is_some();
    if record.references == 0 || is_there {
        return Ok(());
    }
    let sealed_bytes = u32::try_from(sealed_bytes).unwrap_or(u32::MAX);
    enter(tx, drive, block, record.since, sealed_bytes)
}
