//! Repacking: living blocks of stripes that are less than half alive move into a new stripe, and one command switches their places.
//!
//! A gateway that holds the group's lease reads the blocks, writes the new stripe and sends the command. Until then the new stripe is
//! one that nobody has named, and goes as such; behind it the old one has no living byte and goes as every dead stripe.
//! Invariants: a block is switched only while it lives and lies where it was read; no stripe is repacked before its birth epoch is
//! closed; a stripe with blocks of which less than half lives, and which is not damaged, stands in the queue, and no other does.
//! Not here: reading and writing (the gateway's collector), what has no living byte (`collection`).

use crate::state::age::{self, Now};
use crate::state::block::{self, BlockRecord, StoredPlace};
use crate::state::collection::{self, TABLE_PREFIX_BYTES};
use crate::state::drive;
use crate::state::filling::{self, FilledTo};
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, list, load, require, save};
use crate::state::stripe::{self, StripeRecord};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::id::{BlockId, DriveId, SLOTS};
use model::limits::COMMAND_OPERATIONS_MAX;
use model::profile::ProfileId;
use model::stripe::{STRIPE_TARGET_BYTES, StripeId};
use protocol::codes;
use protocol::metadata::query::COLLECTION_STRIPES_MAX;
use protocol::metadata::repacking::{LivingBlock, REPACKED_BLOCKS_MAX, Repackable, Repacked, Repacking, SparseStripe};
use std::collections::BTreeMap;

const _: () = assert!(
    REPACKED_BLOCKS_MAX < COMMAND_OPERATIONS_MAX,
    "a stripe and its blocks are the sub-operations of one command"
);

/// Whether less than half of a stripe lives and somebody may still read it.
pub(crate) fn is_thin(record: &StripeRecord) -> bool {
    let (living, whole) = (u64::from(record.living_bytes), u64::from(record.form.stripe_bytes));
    !record.is_damaged && living > 0 && 2 * living < whole
}

/// Whether a stripe is to be repacked: it is thin and has blocks. A tail is a stripe without one, and ends with its session.
pub(crate) fn is_sparse(kv: &dyn KvRead, id: StripeId, record: &StripeRecord) -> Outcome<bool> {
    if !is_thin(record) {
        return Ok(false);
    }
    Ok(!kv.scan(&Scan::prefix(&keys::stripe_blocks(id).done(), 1))?.is_empty())
}

/// Queues a stripe that is less than half alive.
pub(crate) fn queue(tx: &mut Overlay<'_>, profile: ProfileId, id: StripeId) -> Outcome<()> {
    let at = collection::closes_at(&*tx, id)?;
    tx.put(keys::repackable(at, profile, id), Bytes::new());
    Ok(())
}

/// Takes a stripe out of that queue, if it is there.
pub(crate) fn unqueue(tx: &mut Overlay<'_>, profile: ProfileId, id: StripeId) -> Outcome<()> {
    let at = collection::closes_at(&*tx, id)?;
    tx.delete(keys::repackable(at, profile, id));
    Ok(())
}

/// Stripes of one drive that may be repacked together, behind `after` in the queue. Looks at `COLLECTION_STRIPES_MAX` of them.
pub(crate) fn describe(kv: &dyn KvRead, after: Option<(ProfileId, StripeId)>) -> Outcome<Repackable> {
    let now_ms = age::counter_ms(kv)?;
    let mut scan = Scan::prefix(&Key::of_group(keys::REPACKABLE).done(), COLLECTION_STRIPES_MAX);
    if let Some((profile, id)) = after {
        scan = scan.after(&keys::repackable(collection::closes_at(kv, id)?, profile, id));
    }
    let mut stripes: Vec<SparseStripe> = Vec::new();
    let (mut bytes_left, mut blocks_left) = (STRIPE_TARGET_BYTES, REPACKED_BLOCKS_MAX);
    for (key, _) in kv.scan(&scan)? {
        if keys::u64_at(&key, TABLE_PREFIX_BYTES) > now_ms {
            break;
        }
        let (profile, id) = collection::named(&key)?;
        let facts = stripe::get(kv, profile, id)?.facts(profile, id);
        if stripes.first().is_some_and(|first| first.facts.drive != facts.drive) {
            continue;
        }
        let mut blocks = living(kv, id, blocks_left + 1)?;
        let fits = facts.living_bytes as usize <= bytes_left && blocks.len() <= blocks_left;
        if !fits && !stripes.is_empty() {
            break;
        }
        blocks.truncate(blocks_left);
        bytes_left = bytes_left.saturating_sub(facts.living_bytes as usize);
        blocks_left -= blocks.len();
        stripes.push(SparseStripe { facts, blocks });
    }
    let lease = collection::lease(kv)?;
    Ok(Repackable { lease, stripes })
}

/// At most `rows_max` blocks of a stripe, ascending by offset.
fn living(kv: &dyn KvRead, id: StripeId, rows_max: usize) -> Outcome<Vec<LivingBlock>> {
    let named = list::<(DriveId, BlockId)>(kv, &keys::stripe_blocks(id).done(), None, rows_max)?;
    let mut blocks = Vec::with_capacity(named.len());
    for (_, (drive, id)) in named {
        let BlockRecord { row, place, .. } = block::get(kv, drive, id)?;
        if let StoredPlace::Stripe {
            offset, sealed_bytes, ..
        } = place
        {
            blocks.push(LivingBlock {
                id,
                row,
                offset,
                sealed_bytes,
            });
        }
    }
    Ok(blocks)
}

/// `RepackBlocks`: names a new stripe and switches those of its blocks that live and lie where they were read.
pub(crate) fn switch(tx: &mut Overlay<'_>, now: &Now, asked: &Repacking) -> Outcome<Repacked> {
    let Repacking {
        drive,
        lease,
        stripe: new,
        from,
    } = asked;
    collection::require_lease(&*tx, *lease)?;
    let drive = drive::get(&*tx, *drive)?;
    let is_paired = !from.is_empty() && from.len() == new.blocks.len() && from.len() <= REPACKED_BLOCKS_MAX;
    require(is_paired, &codes::MALFORMED_COMMAND)?;
    for old in from {
        let is_old = old.stripe != new.id && collection::is_closed(&*tx, old.stripe)?;
        require(is_old, &codes::MALFORMED_COMMAND)?;
    }
    let Some(mut record) = stripe::begin(tx, now, &drive, new)? else {
        return Ok(Repacked::default());
    };
    let mut repacked = Repacked::default();
    let mut left: BTreeMap<(ProfileId, StripeId), i64> = BTreeMap::new();
    for (block, old) in new.blocks.iter().zip(from) {
        let place_in = |profile, stripe, offset| StoredPlace::Stripe {
            profile,
            stripe,
            offset,
            sealed_bytes: block.sealed_bytes,
        };
        let was = place_in(old.profile, old.stripe, old.offset);
        let place = place_in(new.profile, new.id, block.offset);
        if block::switch(tx, drive.drive, (old.block, block.row), was, place)? {
            *left.entry((old.profile, old.stripe)).or_default() += i64::from(block.sealed_bytes);
            repacked.blocks += 1;
            // Within a stripe's length, which its form was held against.
            repacked.bytes += block.sealed_bytes;
        }
    }
    record.living_bytes = repacked.bytes;
    stripe::settle(tx, (new.profile, new.id), &record)?;
    for ((profile, id), bytes) in left {
        stripe::shift_living(tx, profile, id, -bytes)?;
    }
    Ok(repacked)
}

fn filled_key() -> Bytes {
    Key::of_group(keys::REPACKABLE_FILLED).done()
}

/// How far the stripes of an earlier release were queued; the slot behind the last one when all were.
fn filled(kv: &dyn KvRead) -> Outcome<FilledTo> {
    Ok(load(kv, &filled_key())?.unwrap_or(FilledTo::begin_of(0)))
}

/// Whether every stripe that is to be repacked stands in the queue.
pub(crate) fn is_filled(kv: &dyn KvRead) -> Outcome<bool> {
    Ok(filled(kv)?.slot == SLOTS)
}

/// A group that is new has nothing to be filled in.
pub(crate) fn begin(tx: &mut Overlay<'_>) -> Outcome<()> {
    save(tx, filled_key(), &FilledTo::begin_of(SLOTS))
}

/// Queues what an earlier release left, by a look at a bounded number of slots and stripes a command; nothing once all were looked at.
pub(crate) fn fill(tx: &mut Overlay<'_>) -> Outcome<()> {
    let at = filled(&*tx)?;
    if at.slot == SLOTS {
        return Ok(());
    }
    let rest = filling::go_on(tx, at, keys::STRIPE, COMMAND_OPERATIONS_MAX, |tx, key, _| {
        let (profile, id) = collection::named(key)?;
        let record = stripe::get(&*tx, profile, id)?;
        if is_sparse(&*tx, id, &record)? {
            queue(tx, profile, id)?;
        }
        Ok(())
    })?;
    match rest {
        Some(at) => save(tx, filled_key(), &at),
        None => begin(tx),
    }
}
