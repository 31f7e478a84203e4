//! Blocks: found by digest, kept by number, counted by references.
//!
//! Invariants: references = rows of written pages and of open sessions that name the block; a block at zero references has a row in
//! the idle table under the age since when, an inline one with references in the table of those to be packed; a block of a stripe
//! has a row in that stripe's table.
//! A dead block has no row anywhere; its number is never used again.
//! Not here: when idle blocks die (`collection`).

use crate::state::age::Now;
use crate::state::collection;
use crate::state::drive::DriveRecord;
use crate::state::inline_bytes;
use crate::state::keys;
use crate::state::packing;
use crate::state::store::{Outcome, broken, load, require, save};
use crate::state::stripe;
use crate::state::usage;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::{BlockId, DriveId};
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::Age;
use protocol::codes;
use protocol::metadata::upload::InlineBlock;
use serde::{Deserialize, Serialize};

/// Where a block's sealed bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StoredPlace {
    /// In the inline table.
    Inline,
    /// In a stripe.
    Stripe {
        profile: ProfileId,
        stripe: StripeId,
        offset: u32,
        sealed_bytes: u32,
    },
}

/// What a block at zero references is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BlockStanding {
    /// Never referenced; counts against the quota while its grace runs.
    Fresh,
    /// Has references.
    Live,
    /// Lost its last reference.
    Released,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BlockRecord {
    pub(crate) row: BlockRow,
    pub(crate) place: StoredPlace,
    pub(crate) references: u64,
    pub(crate) standing: BlockStanding,
    /// Since when it has no reference.
    pub(crate) since: Age,
}

pub(crate) fn get(kv: &dyn KvRead, drive: DriveId, block: BlockId) -> Outcome<BlockRecord> {
    load(kv, &keys::block(drive, block))?.ok_or_else(|| broken("a named block is not there"))
}

fn put(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, record: &BlockRecord) -> Outcome<()> {
    save(tx, keys::block(drive, block), record)
}

/// The block of a digest.
pub(crate) fn find(kv: &dyn KvRead, drive: DriveId, digest: Digest) -> Outcome<Option<(BlockId, BlockRecord)>> {
    match load::<BlockId>(kv, &keys::by_digest(drive, keys::BLOCK_DIGEST, digest))? {
        Some(block) => Ok(Some((block, get(kv, drive, block)?))),
        None => Ok(None),
    }
}

/// The block of a digest, unless it lies in a damaged stripe.
pub(crate) fn find_whole(kv: &dyn KvRead, drive: DriveId, digest: Digest) -> Outcome<Option<(BlockId, BlockRecord)>> {
    let Some((block, record)) = find(kv, drive, digest)? else {
        return Ok(None);
    };
    if let StoredPlace::Stripe { profile, stripe, .. } = record.place
        && stripe::get(kv, profile, stripe)?.is_damaged
    {
        return Ok(None);
    }
    Ok(Some((block, record)))
}

/// Enters a block at a place. The first place stays unless its stripe is damaged; answers whether this place is the block's now.
pub(crate) fn enter(
    tx: &mut Overlay<'_>,
    now: &Now,
    drive: &mut DriveRecord,
    row: BlockRow,
    place: StoredPlace,
) -> Outcome<bool> {
    if let Some((block, known)) = find(&*tx, drive.drive, row.digest)? {
        require(known.row.size == row.size, &codes::MALFORMED_STRIPE)?;
        let StoredPlace::Stripe {
            profile,
            stripe,
            offset,
            sealed_bytes,
        } = known.place
        else {
            return Ok(false);
        };
        if !stripe::get(&*tx, profile, stripe)?.is_damaged {
            return Ok(false);
        }
        tx.delete(keys::stripe_block(stripe, offset));
        stripe::shift_living(tx, profile, stripe, -i64::from(sealed_bytes))?;
        replace_place(tx, drive.drive, block, known, place)?;
        return Ok(true);
    }
    let block = drive.next_block;
    drive.next_block = BlockId(
        block
            .0
            .checked_add(1)
            .ok_or_else(|| broken("block numbers are used up"))?,
    );
    let record = BlockRecord {
        row,
        place,
        references: 0,
        standing: BlockStanding::Fresh,
        since: now.age(),
    };
    save(tx, keys::by_digest(drive.drive, keys::BLOCK_DIGEST, row.digest), &block)?;
    put(tx, drive.drive, block, &record)?;
    collection::note_idle(tx, drive.drive, block, record.since)?;
    name_in_stripe(tx, drive.drive, block, place)?;
    usage::change(tx, drive.drive, |usage| {
        usage::shift(&mut usage.charged_bytes, i64::from(row.size))
    })?;
    Ok(true)
}

fn name_in_stripe(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, place: StoredPlace) -> Outcome<()> {
    match place {
        StoredPlace::Inline => Ok(()),
        StoredPlace::Stripe { stripe, offset, .. } => save(tx, keys::stripe_block(stripe, offset), &(drive, block)),
    }
}

/// Moves a block from one place to another, if it lives, is of this row and still lies there; answers whether it does now. The bytes
/// that live in the two stripes are the caller's to count.
pub(crate) fn switch(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    (block, row): (BlockId, BlockRow),
    was: StoredPlace,
    place: StoredPlace,
) -> Outcome<bool> {
    let known: Option<BlockRecord> = load(&*tx, &keys::block(drive, block))?;
    let Some(known) = known.filter(|known| known.place == was && known.row == row) else {
        return Ok(false);
    };
    if let StoredPlace::Stripe { stripe, offset, .. } = was {
        tx.delete(keys::stripe_block(stripe, offset));
    }
    replace_place(tx, drive, block, known, place)?;
    Ok(true)
}

/// Enters the block of a small file; its bytes are kept only when the drive has no other place for it.
pub(crate) fn enter_inline(
    tx: &mut Overlay<'_>,
    now: &Now,
    drive: &mut DriveRecord,
    inline: &InlineBlock,
) -> Outcome<()> {
    let is_small = inline.row.size > 0 && inline.row.size as usize <= model::limits::INLINE_BYTES_MAX;
    // A seal adds some tens of bytes; twice the plain limit leaves room for every form.
    let is_sealed_small = inline.sealed.len() <= 2 * model::limits::INLINE_BYTES_MAX;
    require(is_small && is_sealed_small, &codes::MALFORMED_COMMAND)?;
    if enter(tx, now, drive, inline.row, StoredPlace::Inline)? {
        let (block, record) =
            find(&*tx, drive.drive, inline.row.digest)?.ok_or_else(|| broken("a new block is not there"))?;
        tx.put(keys::inline(drive.drive, block), inline.sealed.clone());
        inline_bytes::enter(tx, drive.drive, block)?;
        if record.references > 0 {
            // It lay in a stripe that is damaged.
            packing::enter(tx, drive.drive, block, record.since, inline_bytes(&inline.sealed))?;
        }
    }
    Ok(())
}

fn inline_bytes(sealed: &[u8]) -> u32 {
    u32::try_from(sealed.len()).unwrap_or(u32::MAX)
}

/// The sealed bytes of a block that lies in the inline table.
pub(crate) fn inline(kv: &dyn KvRead, drive: DriveId, block: BlockId) -> Outcome<Bytes> {
    let sealed = kv.get(&keys::inline(drive, block))?;
    sealed.ok_or_else(|| broken("an inline block has no bytes"))
}

/// The sealed length of a block that lies in the inline table.
pub(crate) fn inline_length(kv: &dyn KvRead, drive: DriveId, block: BlockId) -> Outcome<u32> {
    Ok(inline_bytes(&inline(kv, drive, block)?))
}

/// Has a block lie at another place from now on. What it left there is the caller's.
pub(crate) fn replace_place(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    block: BlockId,
    known: BlockRecord,
    place: StoredPlace,
) -> Outcome<()> {
    put(tx, drive, block, &BlockRecord { place, ..known })?;
    name_in_stripe(tx, drive, block, place)
}

/// Takes a reference.
pub(crate) fn take(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId) -> Outcome<()> {
    let mut record = get(&*tx, drive, block)?;
    let size = i64::from(record.row.size);
    if record.references == 0 {
        tx.delete(keys::idle_block(drive, record.since.0, block));
        if record.place == StoredPlace::Inline {
            let sealed_bytes = inline_length(&*tx, drive, block)?;
            packing::enter(tx, drive, block, record.since, sealed_bytes)?;
        }
    }
    if record.standing == BlockStanding::Released {
        usage::change(tx, drive, |usage| {
            usage::shift(&mut usage.released_bytes, -size)?;
            usage::shift(&mut usage.charged_bytes, size)
        })?;
    }
    record.references = record
        .references
        .checked_add(1)
        .ok_or_else(|| broken("references are used up"))?;
    record.standing = BlockStanding::Live;
    put(tx, drive, block, &record)
}

/// Gives up a reference; at zero the block waits its grace.
pub(crate) fn give_up(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, block: BlockId) -> Outcome<()> {
    let mut record = get(&*tx, drive, block)?;
    record.references = record
        .references
        .checked_sub(1)
        .ok_or_else(|| broken("a reference is given up twice"))?;
    if record.references == 0 {
        let size = i64::from(record.row.size);
        if record.place == StoredPlace::Inline {
            packing::leave(tx, drive, block, record.since)?;
        }
        record.standing = BlockStanding::Released;
        record.since = now.age();
        collection::note_idle(tx, drive, block, record.since)?;
        usage::change(tx, drive, |usage| {
            usage::shift(&mut usage.charged_bytes, -size)?;
            usage::shift(&mut usage.released_bytes, size)
        })?;
    }
    put(tx, drive, block, &record)
}

/// Removes a block without references, and its bytes from what lives in its stripe. Final: the same digest comes in as a new block.
pub(crate) fn die(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, record: &BlockRecord) -> Outcome<()> {
    if record.references != 0 {
        return Err(broken("a block dies with a reference"));
    }
    let size = i64::from(record.row.size);
    usage::change(tx, drive, |usage| match record.standing {
        BlockStanding::Released => usage::shift(&mut usage.released_bytes, -size),
        BlockStanding::Fresh | BlockStanding::Live => usage::shift(&mut usage.charged_bytes, -size),
    })?;
    match record.place {
        StoredPlace::Inline => {
            inline_bytes::leave(tx, drive, block)?;
            tx.delete(keys::inline(drive, block));
        }
        StoredPlace::Stripe {
            profile,
            stripe,
            offset,
            sealed_bytes,
        } => {
            tx.delete(keys::stripe_block(stripe, offset));
            stripe::shift_living(tx, profile, stripe, -i64::from(sealed_bytes))?;
        }
    }
    tx.delete(keys::idle_block(drive, record.since.0, block));
    tx.delete(keys::by_digest(drive, keys::BLOCK_DIGEST, record.row.digest));
    tx.delete(keys::block(drive, block));
    Ok(())
}
