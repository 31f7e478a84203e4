//! Delta uploads: the list of blocks that a session's content will consist of, and blocks that are sent singly.
//!
//! Invariants: a list lies in parts without holes and goes with its session; all lists of a drive together are bounded; a list takes no
//! references, so what it names may be gone by the commit, which then asks for it (`need_blocks`); a block that was sent singly has no
//! reference and its grace runs.
//! Not here: the rows that a commit takes from the list (`session`).

use crate::state::age::Now;
use crate::state::block;
use crate::state::drive::{self, DriveRecord};
use crate::state::keys;
use crate::state::session;
use crate::state::store::{Outcome, broken, list, load, require, save};
use crate::state::stripe;
use crate::state::taken;
use crate::state::usage;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan, prefix_end};
use model::authorize::Principal;
use model::entry::BlockRow;
use model::id::{DriveId, UploadId};
use model::limits::{BLOCK_BYTES_MAX, COMMAND_OPERATIONS_MAX, DRIVE_LISTED_ROWS_MAX, FILE_BLOCKS_MAX};
use protocol::codes;
use protocol::metadata::query::Staging;
use protocol::metadata::upload::{ANNOUNCED_ROWS_MAX, NewStripe, SessionState};

/// How many rows were announced for a session.
fn announced(kv: &dyn KvRead, upload: UploadId) -> Outcome<u64> {
    let mut last = Scan::prefix(&keys::session_lists(upload.drive, upload.number).done(), 1);
    last.is_reverse = true;
    let Some((key, _)) = kv.scan(&last)?.into_iter().next() else {
        return Ok(0);
    };
    let rows: Vec<BlockRow> = load(kv, &key)?.unwrap_or_default();
    Ok(keys::last_u64(&key).saturating_add(rows.len() as u64))
}

/// `AnnounceRows`.
pub(crate) fn announce(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    position: u64,
    rows: &[BlockRow],
) -> Outcome<SessionState> {
    session::touch(tx, now, upload)?;
    let is_part = (1..=ANNOUNCED_ROWS_MAX).contains(&rows.len());
    require(
        is_part && rows.iter().all(|row| row.size as usize <= BLOCK_BYTES_MAX),
        &codes::MALFORMED_COMMAND,
    )?;
    let before = announced(&*tx, upload)?;
    if position != before {
        return Err(codes::WRONG_POSITION.failure().with("position", before).into());
    }
    let is_short = before.saturating_add(rows.len() as u64) <= FILE_BLOCKS_MAX as u64;
    require(is_short, &codes::FILE_TOO_LARGE)?;
    count(tx, upload, before, rows.len() as u64)?;
    let key = keys::session_lists(upload.drive, upload.number).u64(position).done();
    save(tx, key, &rows.to_vec())?;
    session::state(&*tx, upload, false)
}

/// Counts rows behind the first `before` of a session's list; refuses those that the drive's lists have no room for.
fn count(tx: &mut Overlay<'_>, upload: UploadId, before: u64, rows: u64) -> Outcome<()> {
    let key = keys::session_listed(upload.drive, upload.number);
    // A list that an earlier release began is counted from its start.
    let counted: u64 = load(&*tx, &key)?.unwrap_or_default();
    let of_session = before.saturating_add(rows);
    let of_drive = listed(&*tx, upload.drive)?.saturating_add(of_session.saturating_sub(counted));
    require(of_drive <= DRIVE_LISTED_ROWS_MAX, &codes::LISTS_FULL)?;
    save(tx, key, &of_session)?;
    save(tx, keys::listed(upload.drive), &of_drive)
}

/// Rows of all lists of a drive; of an earlier release's lists, none.
fn listed(kv: &dyn KvRead, drive: DriveId) -> Outcome<u64> {
    Ok(load(kv, &keys::listed(drive))?.unwrap_or_default())
}

/// Forgets the list of a session that ends.
pub(crate) fn forget(tx: &mut Overlay<'_>, upload: UploadId) -> Outcome<()> {
    let key = keys::session_listed(upload.drive, upload.number);
    if let Some(of_session) = load::<u64>(&*tx, &key)? {
        tx.delete(key);
        let left = listed(&*tx, upload.drive)?.checked_sub(of_session);
        match left.ok_or_else(|| broken("a drive's lists have fewer rows than one of them"))? {
            0 => tx.delete(keys::listed(upload.drive)),
            left => save(tx, keys::listed(upload.drive), &left)?,
        }
    }
    let prefix = keys::session_lists(upload.drive, upload.number).done();
    if let Some(behind) = prefix_end(&prefix) {
        tx.delete_range(prefix, behind);
    }
    Ok(())
}

/// The part of a session's list that holds the row `first`, from that row on, and whether more follows.
pub(crate) fn rows(kv: &dyn KvRead, upload: UploadId, first: u64) -> Outcome<(Vec<BlockRow>, bool)> {
    let parts: Vec<(Bytes, Vec<BlockRow>)> = list(
        kv,
        &keys::session_lists(upload.drive, upload.number).done(),
        None,
        usize::MAX,
    )?;
    let mut wanted = parts.into_iter().filter_map(|(key, rows)| {
        let skipped = usize::try_from(first.saturating_sub(keys::last_u64(&key))).ok()?;
        let rows = rows.get(skipped..).filter(|rows| !rows.is_empty())?;
        Some(rows.to_vec())
    });
    let part = wanted.next().unwrap_or_default();
    let has_more = wanted.next().is_some();
    Ok((part, has_more))
}

/// `StageStripes`.
pub(crate) fn stage(tx: &mut Overlay<'_>, now: &Now, upload: UploadId, stripes: &[NewStripe]) -> Outcome<SessionState> {
    session::touch(tx, now, upload)?;
    let operations: usize = stripes.iter().map(|stripe| 1 + stripe.blocks.len()).sum();
    require(operations <= COMMAND_OPERATIONS_MAX, &codes::COMMAND_TOO_LARGE)?;
    let mut drive = drive::get(&*tx, upload.drive)?;
    let before = usage::get(&*tx, upload.drive)?;
    for new in stripes {
        stripe::enter(tx, now, &mut drive, new)?;
    }
    drive::put(tx, &drive)?;
    usage::require_quota(&*tx, &drive, &before)?;
    taken::count(tx, upload, &before)?;
    session::state(&*tx, upload, false)
}

/// What a gateway needs to take a block of a session in. `principal` sends it; `None` when a ticket stands for that.
pub(crate) fn facts(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    principal: Option<&Principal>,
    upload: UploadId,
    row: BlockRow,
) -> Outcome<Staging> {
    require(upload.drive == drive.drive, &codes::SESSION_NOT_FOUND)?;
    let session = session::find(kv, upload)?.ok_or(&codes::SESSION_NOT_FOUND)?;
    let is_own = principal.is_none_or(|principal| principal.user == session.principal.user);
    require(is_own, &codes::SESSION_NOT_FOUND)?;
    let is_known = match block::find_whole(kv, drive.drive, row.digest)? {
        Some((_, record)) => {
            require(record.row.size == row.size || row.size == 0, &codes::SIZE_MISMATCH)?;
            true
        }
        None => {
            usage::require_room(kv, drive, u64::from(row.size))?;
            false
        }
    };
    Ok(Staging {
        drive: drive.facts(),
        principal: session.principal,
        is_known,
    })
}
