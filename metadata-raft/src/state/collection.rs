//! Removing what nobody wants any more: blocks after their grace, stripes without a living byte, and what disks must still be told.
//!
//! A block dies by one command, with its row in every table: from then on no proposal finds it, and the same digest comes in as a new
//! block. A stripe is dead when its last block died, and never lives again; its record stays until its birth epoch is closed, since a
//! late command could name it anew before. Then the gateway that holds the group's lease has the fragments removed and says so; disks
//! that it could not tell stand in a queue of their own, which needs no record of the stripe.
//! Invariants: no block with a reference dies, and none before its grace is over unless more than the quota waits; every command
//! looks again at what it removes; a stripe leaves the state only when it is dead and its epoch is closed.
//! Not here: stripes that live in part (`repacking`), who sends these commands (`worker::sweep`, the gateway's collector), tombstones
//! on disks (node).

use crate::state::age::{self, Now};
use crate::state::block::{self, BlockStanding};
use crate::state::drive;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, broken, load, require, save};
use crate::state::stripe;
use crate::state::usage;
use crate::state::waiting::{self, AT_ONCE, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::id::{BlockId, DiskId, DriveId};
use model::limits::COMMAND_OPERATIONS_MAX;
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::{Age, BirthEpoch};
use protocol::codes;
use protocol::metadata::drive::Swept;
use protocol::metadata::group::{ForgottenStripe, LEASE_MS_MAX, Lease};
use protocol::metadata::query::{COLLECTION_DISKS_MAX, COLLECTION_STRIPES_MAX, Collection};
use serde::{Deserialize, Serialize};
use std::ops::Bound;

/// Who removes the group's stripes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LeaseRecord {
    holder: u64,
    lease: u64,
    /// By the group's counter.
    ends_ms: u64,
}

/// When a block whose references ended at this age may die.
pub(crate) fn block_due(kv: &dyn KvRead, since: Age) -> Outcome<Age> {
    Ok(since.after(age::settings(kv)?.block_grace()))
}

/// Notes that a block lost its last reference, or came in without one.
pub(crate) fn note_idle(tx: &mut Overlay<'_>, drive: DriveId, block: BlockId, since: Age) -> Outcome<()> {
    tx.put(keys::idle_block(drive, since.0, block), Bytes::new());
    let due = block_due(&*tx, since)?;
    waiting::note(tx, Work::of(drive, Sweep::Blocks), due)
}

/// Has the oldest blocks die early where more waits than the quota would let live.
pub(crate) fn note_excess(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<()> {
    if has_excess(&*tx, drive)? {
        waiting::note_now(tx, Work::of(drive, Sweep::Blocks))?;
    }
    Ok(())
}

fn has_excess(kv: &dyn KvRead, drive: DriveId) -> Outcome<bool> {
    Ok(usage::get(kv, drive)?.released_bytes > drive::get(kv, drive)?.quota_bytes)
}

/// `SweepBlocks`: makes blocks dead whose grace is over, at most `SWEEP_OPERATIONS_MAX`, the oldest first.
pub(crate) fn sweep_blocks(tx: &mut Overlay<'_>, now: &Now, drive: DriveId) -> Outcome<Swept> {
    let prefix = Key::of_drive(drive, keys::IDLE_BLOCK).done();
    let mut operations = 0;
    for (key, _) in tx.scan(&Scan::prefix(&prefix, SWEEP_OPERATIONS_MAX))? {
        let (since, id) = (
            Age(keys::u64_at(&key, keys::DRIVE_PREFIX_BYTES)),
            BlockId(keys::last_u64(&key)),
        );
        let record = block::get(&*tx, drive, id)?;
        let is_over = block_due(&*tx, since)? <= now.age();
        if !is_over && (record.standing != BlockStanding::Released || !has_excess(&*tx, drive)?) {
            break;
        }
        if record.references != 0 || record.since != since {
            return Err(broken("a block with a reference is among the idle ones"));
        }
        block::die(tx, drive, id, &record)?;
        operations += 1;
    }
    let rest = match waiting::first(&*tx, &prefix, &[])? {
        None => None,
        // The oldest that waits was never referenced: then nothing behind it dies early either.
        Some(_) if operations > 0 && has_excess(&*tx, drive)? => Some(AT_ONCE),
        Some(key) => Some(block_due(&*tx, Age(keys::u64_at(&key, keys::DRIVE_PREFIX_BYTES)))?),
    };
    waiting::settle(tx, Work::of(drive, Sweep::Blocks), rest.map(|due| (due, Bytes::new())))?;
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done: rest.is_none_or(|due| due > now.age()),
    })
}

/// The group's counter from which on no command can name a stripe of this id any more.
pub(crate) fn closes_at(kv: &dyn KvRead, stripe: StripeId) -> Outcome<u64> {
    let epoch_ms = age::settings(kv)?.birth_epoch_ms;
    let behind = u64::from(stripe.born().0) + u64::from(BirthEpoch::OPEN_EPOCHS) + 1;
    age::counter_at(kv, stripe.slot(), Age(behind.saturating_mul(epoch_ms)))
}

/// Whether no command can name a stripe of this id any more.
pub(crate) fn is_closed(kv: &dyn KvRead, stripe: StripeId) -> Outcome<bool> {
    Ok(closes_at(kv, stripe)? <= age::counter_ms(kv)?)
}

/// Queues a stripe that has no living byte. Its row tells since when it could be removed where that is later than its epoch's end.
pub(crate) fn queue(tx: &mut Overlay<'_>, profile: ProfileId, id: StripeId) -> Outcome<()> {
    let at = closes_at(&*tx, id)?;
    let key = keys::removable(at, profile, id);
    if tx.get(&key)?.is_some() {
        // Queued anew by `waiting::fill`: it has waited since before.
        return Ok(());
    }
    let now_ms = age::counter_ms(&*tx)?;
    let since = if now_ms > at {
        Bytes::copy_from_slice(&now_ms.to_be_bytes())
    } else {
        Bytes::new()
    };
    tx.put(key, since);
    Ok(())
}

/// Takes a stripe out of that queue.
pub(crate) fn unqueue(tx: &mut Overlay<'_>, profile: ProfileId, id: StripeId) -> Outcome<()> {
    let at = closes_at(&*tx, id)?;
    tx.delete(keys::removable(at, profile, id));
    Ok(())
}

fn lease_key() -> Bytes {
    Key::of_group(keys::LEASE).done()
}

/// `TakeLease`.
pub(crate) fn take_lease(tx: &mut Overlay<'_>, holder: u64, lease: u64, span_ms: u64) -> Outcome<()> {
    require((1..=LEASE_MS_MAX).contains(&span_ms), &codes::MALFORMED_COMMAND)?;
    let now_ms = age::counter_ms(&*tx)?;
    if let Some(known) = load::<LeaseRecord>(&*tx, &lease_key())? {
        // A gateway that was started again has the same number and nothing of what it was doing.
        let is_free = known.holder == holder || known.ends_ms <= now_ms;
        require(is_free, &codes::LEASE_TAKEN)?;
    }
    let ends_ms = now_ms.saturating_add(span_ms);
    let record = LeaseRecord { holder, lease, ends_ms };
    save(tx, lease_key(), &record)
}

/// Refuses whoever does not hold the lease.
pub(crate) fn require_lease(kv: &dyn KvRead, lease: u64) -> Outcome<()> {
    let known: Option<LeaseRecord> = load(kv, &lease_key())?;
    require(known.is_some_and(|known| known.lease == lease), &codes::LEASE_LOST)
}

/// Who has or had the lease.
pub(crate) fn lease(kv: &dyn KvRead) -> Outcome<Option<Lease>> {
    let now_ms = age::counter_ms(kv)?;
    let known: Option<LeaseRecord> = load(kv, &lease_key())?;
    Ok(known.map(|known| Lease {
        holder: known.holder,
        lease: known.lease,
        left_ms: known.ends_ms.saturating_sub(now_ms),
    }))
}

/// `ForgetStripes`.
pub(crate) fn forget_stripes(tx: &mut Overlay<'_>, lease: u64, stripes: &[ForgottenStripe]) -> Outcome<()> {
    require_lease(&*tx, lease)?;
    let operations: usize = stripes.iter().map(|stripe| 1 + stripe.untold.len()).sum();
    require(operations <= COMMAND_OPERATIONS_MAX, &codes::COMMAND_TOO_LARGE)?;
    for ForgottenStripe {
        profile,
        stripe: id,
        untold,
    } in stripes
    {
        let Some(record) = stripe::find(&*tx, *profile, *id)? else {
            continue;
        };
        let is_removable = record.living_bytes == 0 && is_closed(&*tx, *id)?;
        require(is_removable, &codes::MALFORMED_COMMAND)?;
        stripe::forget(tx, *profile, *id, &record)?;
        for disk in untold {
            tx.put(keys::untold(*disk, *profile, *id), Bytes::new());
        }
    }
    Ok(())
}

/// `ForgetUntold`.
pub(crate) fn forget_untold(
    tx: &mut Overlay<'_>,
    lease: u64,
    disk: DiskId,
    stripes: &[(ProfileId, StripeId)],
) -> Outcome<()> {
    require_lease(&*tx, lease)?;
    require(stripes.len() <= COMMAND_OPERATIONS_MAX, &codes::COMMAND_TOO_LARGE)?;
    for (profile, id) in stripes {
        tx.delete(keys::untold(disk, *profile, *id));
    }
    Ok(())
}

/// What is to be removed, and disks behind `after` that must be told of what is removed already.
pub(crate) fn describe(kv: &dyn KvRead, after: Option<DiskId>) -> Outcome<Collection> {
    let now_ms = age::counter_ms(kv)?;
    let mut removable = Vec::new();
    for (key, _) in kv.scan(&Scan::prefix(
        &Key::of_group(keys::REMOVABLE).done(),
        COLLECTION_STRIPES_MAX,
    ))? {
        if keys::u64_at(&key, TABLE_PREFIX_BYTES) > now_ms {
            break;
        }
        let (profile, id) = named(&key)?;
        removable.push(stripe::get(kv, profile, id)?.facts(profile, id));
    }
    Ok(Collection {
        lease: lease(kv)?,
        removable,
        untold: untold(kv, after)?,
    })
}

/// Bytes before what a table of the whole group is ordered by.
pub(crate) const TABLE_PREFIX_BYTES: usize = 2 + 1;

/// The name of a queued stripe.
pub(crate) fn named(key: &[u8]) -> Outcome<(ProfileId, StripeId)> {
    stripe::name_at_end(key).ok_or_else(|| broken("a queued stripe has no name"))
}

/// A disk and stripes that it must be told of.
type Untold = (DiskId, Vec<(ProfileId, StripeId)>);

fn untold(kv: &dyn KvRead, after: Option<DiskId>) -> Outcome<Vec<Untold>> {
    let whole = Key::of_group(keys::UNTOLD).done();
    let mut next = after.map_or(Some(0), |disk| disk.0.checked_add(1));
    let mut untold = Vec::new();
    while let Some(from) = next.filter(|_| untold.len() < COLLECTION_DISKS_MAX) {
        let mut scan = Scan::prefix(&whole, 1);
        scan.from = Bound::Included(keys::untold_of(DiskId(from)).done());
        let Some((key, _)) = kv.scan(&scan)?.into_iter().next() else {
            break;
        };
        let disk = key.get(TABLE_PREFIX_BYTES..).and_then(|rest| rest.first_chunk::<4>());
        let disk = DiskId(disk.map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes)));
        let rows = kv.scan(&Scan::prefix(&keys::untold_of(disk).done(), COLLECTION_STRIPES_MAX))?;
        let stripes = rows.iter().map(|(key, _)| named(key)).collect::<Outcome<_>>()?;
        untold.push((disk, stripes));
        next = disk.0.checked_add(1);
    }
    Ok(untold)
}

/// Those of `stripes` that the group does not know and that no command can name any more. `not_mine` when one lies in a slot that
/// the group does not own: then it cannot know.
pub(crate) fn orphans(kv: &dyn KvRead, stripes: &[(ProfileId, StripeId)]) -> Outcome<Vec<(ProfileId, StripeId)>> {
    require(
        stripes.len() <= protocol::metadata::query::ROWS_MAX,
        &codes::COMMAND_TOO_LARGE,
    )?;
    let mut orphans = Vec::new();
    for (profile, id) in stripes {
        // Asked first: it refuses a slot that is another group's.
        if is_closed(kv, *id)? && stripe::find(kv, *profile, *id)?.is_none() {
            orphans.push((*profile, *id));
        }
    }
    Ok(orphans)
}

/// How long the oldest work of the sweeper has been due, or a stripe that could be removed has waited for it if that is longer, in
/// milliseconds by the group's counter. Of stripes, those count that come next.
pub(crate) fn oldest_waiting_ms(kv: &dyn KvRead) -> Outcome<u64> {
    let now_ms = age::counter_ms(kv)?;
    let mut oldest = waiting::oldest_ms(kv)?;
    let removable = Scan::prefix(&Key::of_group(keys::REMOVABLE).done(), COLLECTION_STRIPES_MAX);
    for (key, since) in kv.scan(&removable)? {
        let closed_ms = keys::u64_at(&key, TABLE_PREFIX_BYTES);
        if closed_ms > now_ms {
            break;
        }
        let since_ms = match since.first_chunk::<8>() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None if since.is_empty() => closed_ms,
            None => return Err(broken("a dying stripe does not tell since when")),
        };
        oldest = oldest.max(now_ms.saturating_sub(since_ms));
    }
    Ok(oldest)
}
