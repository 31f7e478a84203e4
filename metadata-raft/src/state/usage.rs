//! What a drive holds against its quota.
//!
//! Invariants: charged = plain bytes of blocks with a reference or never referenced, and of tails; released = plain bytes of blocks
//! that lost their last reference. `check` counts both again.

use crate::state::content_counts::{self, ContentCounts};
use crate::state::drive::DriveRecord;
use crate::state::keys;
use crate::state::store::{Outcome, Stop, broken, load, save};
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::id::DriveId;
use protocol::codes;
use serde::{Deserialize, Serialize};

/// Counters of one drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UsageRecord {
    pub(crate) charged_bytes: u64,
    pub(crate) released_bytes: u64,
    pub(crate) files: u64,
    pub(crate) folders: u64,
}

/// The counters of a drive.
pub(crate) fn get(kv: &dyn KvRead, drive: DriveId) -> Outcome<UsageRecord> {
    load(kv, &keys::usage(drive))?.ok_or_else(|| broken("a drive has no usage"))
}

/// Changes the counters; a counter that would fall below zero is `Bug`.
pub(crate) fn change(
    tx: &mut Overlay<'_>,
    drive: DriveId,
    step: impl FnOnce(&mut UsageRecord) -> Option<()>,
) -> Outcome<()> {
    let before = get(&*tx, drive)?;
    let mut usage = before;
    step(&mut usage).ok_or_else(|| broken("a usage counter would leave its range"))?;
    let of_drive = ContentCounts::of_drive;
    content_counts::replace(tx, drive.slot(), of_drive(&before), of_drive(&usage))?;
    save(tx, keys::usage(drive), &usage)
}

/// Adds to one counter and takes from another within `change`.
pub(crate) fn shift(counter: &mut u64, delta: i64) -> Option<()> {
    *counter = counter.checked_add_signed(delta)?;
    Some(())
}

/// Refuses what took more than `before` when the quota does not hold it. Called when all of a command's bytes are entered.
pub(crate) fn require_quota(kv: &dyn KvRead, drive: &DriveRecord, before: &UsageRecord) -> Outcome<()> {
    require_quota_without(kv, drive, before, 0)
}

/// As `require_quota`, without `bytes` that are charged and that nobody has taken yet, or that the command gives back.
pub(crate) fn require_quota_without(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    before: &UsageRecord,
    bytes: u64,
) -> Outcome<()> {
    let charged = get(kv, drive.drive)?.charged_bytes;
    let after = charged
        .checked_sub(bytes)
        .ok_or_else(|| broken("more waits to be taken than is charged"))?;
    if after <= before.charged_bytes || after <= drive.quota_bytes {
        return Ok(());
    }
    Err(exceeded(drive, before.charged_bytes, after - before.charged_bytes))
}

/// Refuses a content whose declared length alone passes the whole quota. How much of it the drive has already is not known yet, so
/// what is in use is not added: a version costs only what it changed.
pub(crate) fn require_declared(kv: &dyn KvRead, drive: &DriveRecord, declared_bytes: u64) -> Outcome<()> {
    if declared_bytes <= drive.quota_bytes {
        return Ok(());
    }
    let used = get(kv, drive.drive)?.charged_bytes;
    Err(exceeded(drive, used, declared_bytes))
}

/// Refuses `bytes` more when the quota does not hold them.
pub(crate) fn require_room(kv: &dyn KvRead, drive: &DriveRecord, bytes: u64) -> Outcome<()> {
    let used = get(kv, drive.drive)?.charged_bytes;
    if used.saturating_add(bytes) <= drive.quota_bytes {
        return Ok(());
    }
    Err(exceeded(drive, used, bytes))
}

fn exceeded(drive: &DriveRecord, used_bytes: u64, wanted_bytes: u64) -> Stop {
    codes::QUOTA_EXCEEDED
        .failure()
        .with("quota_bytes", drive.quota_bytes)
        .with("used_bytes", used_bytes)
        .with("wanted_bytes", wanted_bytes)
        .into()
}
