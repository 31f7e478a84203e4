//! What sessions have taken of their drive's quota, so that a quota that was lowered meanwhile is noticed by their commit.
//!
//! Invariants: what the commands of a session added to its drive's charge is counted under the session and goes with it, tails too;
//! what was charged already costs a session nothing and is not counted. A session of a release that did not count has taken nothing.
//! Not here: the charge itself (`usage`).

use crate::state::drive::DriveRecord;
use crate::state::keys;
use crate::state::session::SessionRecord;
use crate::state::store::{Outcome, load, save};
use crate::state::usage::{self, UsageRecord};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::UploadId;

fn get(kv: &dyn KvRead, upload: UploadId) -> Outcome<u64> {
    Ok(load(kv, &keys::session_taken(upload.drive, upload.number))?.unwrap_or_default())
}

/// Counts what a command of a session has changed in a drive that held `before` when the command began.
pub(crate) fn count(tx: &mut Overlay<'_>, upload: UploadId, before: &UsageRecord) -> Outcome<()> {
    let charged = usage::get(&*tx, upload.drive)?.charged_bytes;
    if charged == before.charged_bytes {
        return Ok(());
    }
    let taken = get(&*tx, upload)?.saturating_add(charged);
    let key = keys::session_taken(upload.drive, upload.number);
    match taken.saturating_sub(before.charged_bytes) {
        0 => tx.delete(key),
        taken => save(tx, key, &taken)?,
    }
    Ok(())
}

/// Refuses the commit of a session that took what the quota does not hold any more. A tail is given back by the commit.
pub(crate) fn require_quota(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    upload: UploadId,
    record: &SessionRecord,
) -> Outcome<()> {
    let mut before = usage::get(kv, drive.drive)?;
    before.charged_bytes = before.charged_bytes.saturating_sub(get(kv, upload)?);
    let tail_bytes = record.tail.as_ref().map_or(0, |(_, tail)| u64::from(tail.plain_bytes));
    usage::require_quota_without(kv, drive, &before, tail_bytes)
}

/// Forgets what a session that ends has taken.
pub(crate) fn forget(tx: &mut Overlay<'_>, upload: UploadId) {
    tx.delete(keys::session_taken(upload.drive, upload.number));
}
