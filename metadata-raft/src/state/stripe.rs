//! Stripes: named once, with all of their blocks; where their fragments are; which need repair and which are dead weight.
//!
//! Invariants: living bytes = sealed bytes of the blocks in the stripe's table, and of its tail; a stripe with an astray fragment is
//! in the degraded queue, one without a living byte in the dying queue, one less than half alive in the queue of those to be repacked;
//! the slot's counters count every stripe as it is.
//! A stripe that has lost its last living byte never gets another: no block is entered into a stripe that is known.
//! Not here: removing it (`collection`), moving its blocks (`repacking`) and repair (node).

use crate::state::age::{self, Now};
use crate::state::block::{self, StoredPlace};
use crate::state::collection;
use crate::state::content_counts;
use crate::state::drive::DriveRecord;
use crate::state::keys;
use crate::state::repacking;
use crate::state::store::{Outcome, broken, list, load, require, save};
use crate::state::stripe_counts;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::entry::{BlockRow, PlacedStripe};
use model::id::{DriveId, RowVersion, Slot};
use model::limits::{BLOCK_BYTES_MAX, COPIES_BYTES_MAX};
use model::profile::ProfileId;
use model::stripe::{Astray, STRIPE_BLOCKS_MAX, STRIPE_BYTES_MAX, StripeForm, StripeId};
use protocol::codes;
use protocol::metadata::query::StripeFacts;
use protocol::metadata::upload::NewStripe;
use serde::{Deserialize, Serialize};

/// One stripe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StripeRecord {
    pub(crate) drive: DriveId,
    pub(crate) form: StripeForm,
    pub(crate) row_version: RowVersion,
    pub(crate) astray: Vec<Astray>,
    pub(crate) living_bytes: u32,
    pub(crate) is_damaged: bool,
}

impl StripeRecord {
    /// How many more fragments may be lost; those astray are there.
    pub(crate) fn to_spare(&self) -> u8 {
        let missing = self.astray.iter().filter(|astray| astray.disk.is_none()).count();
        self.form.m.saturating_sub(u8::try_from(missing).unwrap_or(u8::MAX))
    }

    pub(crate) fn facts(&self, profile: ProfileId, id: StripeId) -> StripeFacts {
        StripeFacts {
            id,
            profile,
            drive: self.drive,
            form: self.form,
            row_version: self.row_version,
            astray: self.astray.clone(),
            is_damaged: self.is_damaged,
            living_bytes: self.living_bytes,
        }
    }

    pub(crate) fn placed(&self, profile: ProfileId, id: StripeId) -> PlacedStripe {
        PlacedStripe {
            id,
            profile,
            form: self.form,
            astray: self.astray.clone(),
        }
    }
}

pub(crate) fn find(kv: &dyn KvRead, profile: ProfileId, stripe: StripeId) -> Outcome<Option<StripeRecord>> {
    load(kv, &keys::stripe(profile, stripe))
}

pub(crate) fn get(kv: &dyn KvRead, profile: ProfileId, stripe: StripeId) -> Outcome<StripeRecord> {
    find(kv, profile, stripe)?.ok_or_else(|| broken("a named stripe is not there"))
}

/// Replaces a stripe's record by another or by none, with its rows in the queues and what is counted of it.
fn replace(
    tx: &mut Overlay<'_>,
    (profile, id): (ProfileId, StripeId),
    old: Option<&StripeRecord>,
    new: Option<&StripeRecord>,
) -> Outcome<()> {
    if let Some(old) = old {
        if !old.astray.is_empty() {
            tx.delete(keys::stripe_degraded(old.to_spare(), profile, id));
        }
        if old.living_bytes == 0 {
            tx.delete(keys::stripe_dying(profile, id));
            // What stays dead goes on waiting since when it did.
            if new.is_none_or(|new| new.living_bytes > 0) {
                collection::unqueue(tx, profile, id)?;
            }
        }
        if repacking::is_thin(old) {
            repacking::unqueue(tx, profile, id)?;
        }
    }
    stripe_counts::replace(tx, id.slot(), old, new)?;
    content_counts::replace_stripe(tx, id.slot(), old, new)?;
    let Some(new) = new else {
        tx.delete(keys::stripe(profile, id));
        return Ok(());
    };
    if !new.astray.is_empty() {
        tx.put(keys::stripe_degraded(new.to_spare(), profile, id), Bytes::new());
    }
    if new.living_bytes == 0 {
        tx.put(keys::stripe_dying(profile, id), Bytes::new());
        collection::queue(tx, profile, id)?;
    }
    if repacking::is_sparse(&*tx, id, new)? {
        repacking::queue(tx, profile, id)?;
    }
    save(tx, keys::stripe(profile, id), new)
}

/// Forgets a stripe whose fragments are removed.
pub(crate) fn forget(tx: &mut Overlay<'_>, profile: ProfileId, id: StripeId, record: &StripeRecord) -> Outcome<()> {
    replace(tx, (profile, id), Some(record), None)
}

/// Changes the living bytes.
pub(crate) fn shift_living(tx: &mut Overlay<'_>, profile: ProfileId, id: StripeId, delta: i64) -> Outcome<()> {
    let old = get(&*tx, profile, id)?;
    let living_bytes = i64::from(old.living_bytes)
        .checked_add(delta)
        .and_then(|living| u32::try_from(living).ok())
        .ok_or_else(|| broken("a stripe's living bytes would leave their range"))?;
    let new = StripeRecord {
        living_bytes,
        ..old.clone()
    };
    replace(tx, (profile, id), Some(&old), Some(&new))
}

/// Names a stripe and enters all of its blocks. Answers the sub-operations. The same stripe again changes nothing.
pub(crate) fn enter(tx: &mut Overlay<'_>, now: &Now, drive: &mut DriveRecord, new: &NewStripe) -> Outcome<usize> {
    enter_by(tx, now, drive, new, |tx, drive, row, place| {
        block::enter(tx, now, drive, row, place)
    })
}

/// As `enter`, with `take` to say of each block whether it lies there from now on.
pub(crate) fn enter_by(
    tx: &mut Overlay<'_>,
    now: &Now,
    drive: &mut DriveRecord,
    new: &NewStripe,
    mut take: impl FnMut(&mut Overlay<'_>, &mut DriveRecord, BlockRow, StoredPlace) -> Outcome<bool>,
) -> Outcome<usize> {
    let Some(mut record) = begin(tx, now, drive, new)? else {
        return Ok(1);
    };
    for block in &new.blocks {
        let place = StoredPlace::Stripe {
            profile: new.profile,
            stripe: new.id,
            offset: block.offset,
            sealed_bytes: block.sealed_bytes,
        };
        if take(tx, drive, block.row, place)? {
            record.living_bytes = record
                .living_bytes
                .checked_add(block.sealed_bytes)
                .ok_or_else(|| broken("a stripe's living bytes would leave their range"))?;
        }
    }
    settle(tx, (new.profile, new.id), &record)?;
    Ok(1 + new.blocks.len())
}

/// Begins to name a stripe: its record is there without a living byte, and in no queue or counter until `settle`. `None` when it is
/// known already.
pub(crate) fn begin(
    tx: &mut Overlay<'_>,
    now: &Now,
    drive: &DriveRecord,
    new: &NewStripe,
) -> Outcome<Option<StripeRecord>> {
    require_form(drive, new)?;
    if let Some(known) = find(&*tx, new.profile, new.id)? {
        require(
            known.drive == drive.drive && known.form == new.form,
            &codes::STRIPE_EXISTS,
        )?;
        return Ok(None);
    }
    require_born(now, new.id)?;
    age::require_row(&*tx, new.profile, new.id, new.row_version)?;
    let record = StripeRecord {
        drive: drive.drive,
        form: new.form,
        row_version: new.row_version,
        astray: new.astray.clone(),
        living_bytes: 0,
        is_damaged: false,
    };
    // Blocks look at the stripes of their places, so the record is there before them and gets its living bytes after.
    save(tx, keys::stripe(new.profile, new.id), &record)?;
    Ok(Some(record))
}

/// Keeps a stripe that was begun as it is with its blocks.
pub(crate) fn settle(tx: &mut Overlay<'_>, name: (ProfileId, StripeId), record: &StripeRecord) -> Outcome<()> {
    replace(tx, name, None, Some(record))
}

fn require_born(now: &Now, stripe: StripeId) -> Outcome<()> {
    if stripe.born().is_open(now.time.birth_epoch) {
        return Ok(());
    }
    let epoch = now.time.birth_epoch.0;
    Err(codes::BIRTH_EPOCH_CLOSED
        .failure()
        .with("birth_epoch", epoch)
        .with("stripe", stripe)
        .into())
}

fn require_astray(form: &StripeForm, astray: &[Astray]) -> Outcome<()> {
    let fragments = u16::from(form.k) + u16::from(form.m);
    let is_ascending = astray.windows(2).all(|pair| pair[0].index < pair[1].index);
    let is_inside = astray.iter().all(|astray| u16::from(astray.index) < fragments);
    require(is_ascending && is_inside, &codes::MALFORMED_STRIPE)
}

fn require_form(drive: &DriveRecord, new: &NewStripe) -> Outcome<()> {
    let profile = new.profile.profile();
    let bytes = new.form.stripe_bytes as usize;
    let is_profile = new.profile == drive.profile || (new.profile == ProfileId::Copies && bytes <= COPIES_BYTES_MAX);
    let is_form = new.form.k == profile.k && new.form.m == profile.m && bytes > 0 && bytes <= STRIPE_BYTES_MAX;
    let is_here = new.id.slot() == drive.drive.slot();
    require(is_profile && is_form && is_here, &codes::MALFORMED_STRIPE)?;
    require(new.blocks.len() <= STRIPE_BLOCKS_MAX, &codes::MALFORMED_STRIPE)?;
    require_astray(&new.form, &new.astray)?;
    let missing = new.astray.iter().filter(|astray| astray.disk.is_none()).count();
    require(missing <= usize::from(profile.m), &codes::MALFORMED_STRIPE)?;
    let mut end = 0_u64;
    for block in &new.blocks {
        let is_block = block.row.size > 0 && block.row.size as usize <= BLOCK_BYTES_MAX && block.sealed_bytes > 0;
        require(is_block && u64::from(block.offset) >= end, &codes::MALFORMED_STRIPE)?;
        end = u64::from(block.offset) + u64::from(block.sealed_bytes);
    }
    require(end <= u64::from(new.form.stripe_bytes), &codes::MALFORMED_STRIPE)
}

/// `SetStripe`: where the fragments are after a repair.
pub(crate) fn set(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    name: (ProfileId, StripeId),
    row_version: RowVersion,
    astray: &[Astray],
    is_damaged: bool,
) -> Outcome<()> {
    let (profile, id) = name;
    require(id.slot() == drive.slot(), &codes::STRIPE_NOT_FOUND)?;
    let record = find(&*tx, profile, id)?
        .filter(|record| record.drive == drive)
        .ok_or(&codes::STRIPE_NOT_FOUND)?;
    require_astray(&record.form, astray)?;
    require(row_version >= record.row_version, &codes::STALE_ROW)?;
    age::require_row(&*tx, profile, id, row_version)?;
    let new = StripeRecord {
        row_version,
        astray: astray.to_vec(),
        is_damaged,
        ..record.clone()
    };
    replace(tx, (profile, id), Some(&record), Some(&new))
}

/// The name that a key ends with.
pub(crate) fn name_at_end(key: &[u8]) -> Option<(ProfileId, StripeId)> {
    let (rest, id) = key.split_last_chunk::<16>()?;
    Some((ProfileId::from_number(*rest.last()?)?, StripeId::from_bytes(*id)))
}

/// The stripes of a queue (`STRIPE_DEGRADED` or `STRIPE_DYING`), in its order.
pub(crate) fn queue(kv: &dyn KvRead, slot: Slot, table: u8, limit: usize) -> Outcome<Vec<StripeFacts>> {
    let rows = kv.scan(&Scan::prefix(&keys::Key::of_slot(slot, table).done(), limit))?;
    let mut stripes = Vec::with_capacity(rows.len());
    for (key, _) in rows {
        let (profile, id) = name_at_end(&key).ok_or_else(|| broken("a queued stripe has no name"))?;
        stripes.push(get(kv, profile, id)?.facts(profile, id));
    }
    Ok(stripes)
}

/// All stripes of a slot, for `check`.
pub(crate) fn all(kv: &dyn KvRead, slot: Slot) -> Outcome<Vec<(ProfileId, StripeId, StripeRecord)>> {
    let rows = list::<StripeRecord>(kv, &keys::Key::of_slot(slot, keys::STRIPE).done(), None, usize::MAX)?;
    rows.into_iter()
        .map(|(key, record)| {
            let (profile, id) = name_at_end(&key).ok_or_else(|| broken("a stripe has no name"))?;
            Ok((profile, id, record))
        })
        .collect()
}
