//! Upload sessions: they own the pages and rows that an upload has staged, and its tail.
//!
//! Invariants: each row of the open page holds one reference on its block, each ended page is counted once; the session's row in the
//! expiry table lies at the age at which it ends unless a command uses it before. Of a resumable one that was committed its answer
//! stays for that age. Open sessions of a drive are counted and bounded.

use crate::state::age::Now;
use crate::state::block;
use crate::state::change::Actor;
use crate::state::commit::{self, Goal, Intent};
use crate::state::drive::{self, DriveRecord};
use crate::state::job;
use crate::state::keys;
use crate::state::page::{self, StoredRow};
use crate::state::resumable;
use crate::state::staging;
use crate::state::store::{Outcome, broken, list, load, require, save};
use crate::state::stripe;
use crate::state::taken;
use crate::state::usage::{self, UsageRecord};
use crate::state::version::PageRef;
use crate::state::waiting::{self, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan, prefix_end};
use model::authorize::{Action, Principal};
use model::digest::Digest;
use model::id::{DriveId, UploadId};
use model::limits::{
    COMMAND_OPERATIONS_MAX, DRIVE_SESSIONS_MAX, FILE_BYTES_MAX, PAGE_BLOCKS_MAX, PLAIN_SESSION_AGE,
    RESUMABLE_SESSION_AGE,
};
use model::profile::ProfileId;
use model::time::Age;
use protocol::codes;
use protocol::metadata::drive::Swept;
use protocol::metadata::upload::{Committed, NewStripe, RowRun, SessionState, Survival, Tail, UploadTarget};
use serde::{Deserialize, Serialize};

/// Sessions that hold more pages than this leave them to a job when they end.
const PAGES_AT_ONCE: u32 = 256;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) principal: Principal,
    pub(crate) target: UploadTarget,
    pub(crate) base_version: Option<u64>,
    pub(crate) declared_bytes: Option<u64>,
    pub(crate) is_resumable: bool,
    pub(crate) content_type: Option<String>,
    pub(crate) rows: u64,
    pub(crate) row_bytes: u64,
    pub(crate) pages: u32,
    pub(crate) tail: Option<(ProfileId, Tail)>,
    pub(crate) ends_at: Age,
}

impl SessionRecord {
    /// Bytes of the content that need not be sent again.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let tail = self.tail.as_ref().map_or(0, |(_, tail)| u64::from(tail.plain_bytes));
        self.row_bytes.saturating_add(tail)
    }

    /// Refuses who goes on behind another row than the last: `wrong_position` with the true one.
    pub(crate) fn require_position(&self, position: u64) -> Outcome<()> {
        match position == self.rows {
            true => Ok(()),
            false => Err(codes::WRONG_POSITION.failure().with("position", self.rows).into()),
        }
    }
}

pub(crate) fn find(kv: &dyn KvRead, upload: UploadId) -> Outcome<Option<SessionRecord>> {
    load(kv, &keys::session(upload.drive, upload.number))
}

pub(crate) fn get(kv: &dyn KvRead, upload: UploadId) -> Outcome<SessionRecord> {
    find(kv, upload)?.ok_or_else(|| (&codes::SESSION_NOT_FOUND).into())
}

/// Keeps a session as it is now; it lives on from now.
pub(crate) fn put(tx: &mut Overlay<'_>, now: &Now, upload: UploadId, record: &mut SessionRecord) -> Outcome<()> {
    tx.delete(keys::session_end(upload.drive, record.ends_at.0, upload.number));
    let life = if record.is_resumable {
        RESUMABLE_SESSION_AGE
    } else {
        PLAIN_SESSION_AGE
    };
    record.ends_at = now.age().after(life);
    tx.put(
        keys::session_end(upload.drive, record.ends_at.0, upload.number),
        Bytes::new(),
    );
    waiting::note(tx, Work::of(upload.drive, Sweep::Sessions), record.ends_at)?;
    save(tx, keys::session(upload.drive, upload.number), record)
}

/// Refuses an unknown session; lets a known one live on from now.
pub(crate) fn touch(tx: &mut Overlay<'_>, now: &Now, upload: UploadId) -> Outcome<()> {
    let mut record = get(&*tx, upload)?;
    put(tx, now, upload, &mut record)
}

/// The rows behind the last page that ended.
pub(crate) fn open_rows(kv: &dyn KvRead, upload: UploadId) -> Outcome<Vec<(Bytes, StoredRow)>> {
    list(
        kv,
        &keys::session_rows(upload.drive, upload.number).done(),
        None,
        PAGE_BLOCKS_MAX + 1,
    )
}

/// Every ended page of a session, in order.
pub(crate) fn pages(kv: &dyn KvRead, upload: UploadId, rows_max: usize) -> Outcome<Vec<(Bytes, PageRef)>> {
    list(
        kv,
        &keys::session_pages(upload.drive, upload.number).done(),
        None,
        rows_max,
    )
}

/// The session as told to gateways; the rows of its open page and the digests of the others only when asked for.
pub(crate) fn state(kv: &dyn KvRead, upload: UploadId, with_rows: bool) -> Outcome<SessionState> {
    let record = get(kv, upload)?;
    let (mut rows, mut digests) = (Vec::new(), Vec::new());
    if with_rows {
        for (_, (block, _)) in open_rows(kv, upload)? {
            rows.push(block::get(kv, upload.drive, block)?.row);
        }
        let ended = pages(kv, upload, usize::MAX)?;
        digests.extend(ended.into_iter().map(|(_, page)| page.digest));
    }
    Ok(SessionState {
        upload,
        principal: record.principal,
        target: record.target,
        base_version: record.base_version,
        declared_bytes: record.declared_bytes,
        is_resumable: record.is_resumable,
        content_type: record.content_type,
        rows: record.rows,
        row_bytes: record.row_bytes,
        pages: record.pages,
        open_rows: rows,
        page_digests: digests,
        tail: record.tail.map(|(_, tail)| tail),
    })
}

/// What a session is opened with.
pub(crate) struct Opening<'a> {
    pub(crate) target: &'a UploadTarget,
    pub(crate) base_version: Option<u64>,
    pub(crate) declared_bytes: Option<u64>,
    pub(crate) is_resumable: bool,
    pub(crate) content_type: Option<&'a str>,
}

/// `OpenSession`.
pub(crate) fn open(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    upload: UploadId,
    opening: &Opening<'_>,
) -> Outcome<SessionState> {
    let drive = drive::authorised(&*tx, upload.drive, actor.principal, Action::Write)?;
    require(
        find(&*tx, upload)?.is_none()
            && resumable::get(&*tx, upload)?.committed.is_none()
            && !job::is_known(&*tx, upload.drive, upload.number)?,
        &codes::ID_TAKEN,
    )?;
    let declared = opening.declared_bytes.unwrap_or(0);
    require(declared <= FILE_BYTES_MAX, &codes::FILE_TOO_LARGE)?;
    usage::require_declared(&*tx, &drive, declared)?;
    count_in(tx, upload.drive)?;
    let mut record = SessionRecord {
        principal: *actor.principal,
        target: opening.target.clone(),
        base_version: opening.base_version,
        declared_bytes: opening.declared_bytes,
        is_resumable: opening.is_resumable,
        content_type: opening.content_type.map(str::to_owned),
        rows: 0,
        row_bytes: 0,
        pages: 0,
        tail: None,
        ends_at: actor.now.age(),
    };
    put(tx, actor.now, upload, &mut record)?;
    state(&*tx, upload, false)
}

/// Counts a session that is opened; refuses it when the drive has as many as it may have.
fn count_in(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<()> {
    let key = keys::sessions_open(drive);
    let open: u64 = match load(&*tx, &key)? {
        Some(open) => open,
        // An earlier release did not count: once for each drive, and no further than to the bound, behind which all are refused.
        None => {
            let rows_max = usize::try_from(DRIVE_SESSIONS_MAX).unwrap_or(usize::MAX);
            let prefix = keys::Key::of_drive(drive, keys::SESSION).done();
            tx.scan(&Scan::prefix(&prefix, rows_max))?.len() as u64
        }
    };
    require(open < DRIVE_SESSIONS_MAX, &codes::SESSIONS_FULL)?;
    save(tx, key, &(open + 1))
}

/// Counts a session that ended. The row stays at zero too: without it the next one would be counted from what is stored, past all
/// sessions that were removed.
fn count_out(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<()> {
    let key = keys::sessions_open(drive);
    let Some(open) = load::<u64>(&*tx, &key)? else {
        return Ok(());
    };
    let left = open.checked_sub(1);
    let left = left.ok_or_else(|| broken("a drive has fewer sessions than one"))?;
    save(tx, key, &left)
}

fn require_size(runs: &[RowRun], stripes: &[NewStripe]) -> Outcome<()> {
    let rows: usize = runs.iter().map(|run| run.rows.len()).sum();
    let blocks: usize = stripes.iter().map(|stripe| 1 + stripe.blocks.len()).sum();
    let ends = runs.iter().filter(|run| run.page_end.is_some()).count();
    require(
        rows + blocks + ends <= COMMAND_OPERATIONS_MAX,
        &codes::COMMAND_TOO_LARGE,
    )
}

/// `AppendRows`.
pub(crate) fn append(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    position: u64,
    stripes: &[NewStripe],
    runs: &[RowRun],
) -> Outcome<SessionState> {
    let record = get(&*tx, upload)?;
    record.require_position(position)?;
    let before = usage::get(&*tx, upload.drive)?;
    append_to(tx, now, upload, (record, before), stripes, runs)
}

/// Appends to a session as it is in `record`, in a drive that held `before` when the command began.
pub(crate) fn append_to(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    (mut record, before): (SessionRecord, UsageRecord),
    stripes: &[NewStripe],
    runs: &[RowRun],
) -> Outcome<SessionState> {
    require_size(runs, stripes)?;
    let mut drive = drive::get(&*tx, upload.drive)?;
    for new in stripes {
        stripe::enter(tx, now, &mut drive, new)?;
    }
    drive::put(tx, &drive)?;
    for run in runs {
        append_run(tx, now, upload, &mut record, run)?;
    }
    require(record.row_bytes <= FILE_BYTES_MAX, &codes::FILE_TOO_LARGE)?;
    put(tx, now, upload, &mut record)?;
    usage::require_quota(&*tx, &drive, &before)?;
    taken::count(tx, upload, &before)?;
    state(&*tx, upload, false)
}

fn append_run(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    record: &mut SessionRecord,
    run: &RowRun,
) -> Outcome<()> {
    if let (Some(digest), true) = (run.page_end, run.rows.is_empty())
        && open_rows(&*tx, upload)?.is_empty()
    {
        let held = page::hold_known(tx, upload.drive, digest)?;
        record.rows = record.rows.saturating_add(u64::from(held.blocks));
        record.row_bytes = record.row_bytes.saturating_add(held.bytes);
        return keep_page(tx, upload, record, &held);
    }
    for (block, size) in page::find_blocks(&*tx, upload.drive, &run.rows)? {
        require(size > 0, &codes::SIZE_MISMATCH)?;
        block::take(tx, upload.drive, block)?;
        let key = keys::session_rows(upload.drive, upload.number).u64(record.rows).done();
        save(tx, key, &(block, size))?;
        record.rows = record.rows.saturating_add(1);
        record.row_bytes = record.row_bytes.saturating_add(u64::from(size));
    }
    let Some(digest) = run.page_end else {
        // The open page never holds more than a page; the gateway cut it wrongly.
        return require(
            open_rows(&*tx, upload)?.len() <= PAGE_BLOCKS_MAX,
            &codes::MALFORMED_PAGE,
        );
    };
    let open = open_rows(&*tx, upload)?;
    let rows: Vec<StoredRow> = open.iter().map(|(_, row)| *row).collect();
    let held = page::hold(tx, now, upload.drive, digest, &rows, true)?;
    for (key, _) in open {
        tx.delete(key);
    }
    keep_page(tx, upload, record, &held)
}

fn keep_page(tx: &mut Overlay<'_>, upload: UploadId, record: &mut SessionRecord, held: &PageRef) -> Outcome<()> {
    let key = keys::session_pages(upload.drive, upload.number)
        .u32(record.pages)
        .done();
    save(tx, key, held)?;
    record.pages = record
        .pages
        .checked_add(1)
        .ok_or_else(|| broken("a session's pages are used up"))?;
    Ok(())
}

/// `SetTail`.
pub(crate) fn set_tail(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    tail: Option<&(Tail, NewStripe)>,
) -> Outcome<SessionState> {
    let mut record = get(&*tx, upload)?;
    let mut drive = drive::get(&*tx, upload.drive)?;
    let before = usage::get(&*tx, upload.drive)?;
    drop_tail(tx, upload.drive, &mut record)?;
    if let Some((tail, new)) = tail {
        let fits = new.blocks.is_empty() && new.id == tail.stripe && tail.sealed_bytes <= new.form.stripe_bytes;
        let is_new = stripe::find(&*tx, new.profile, new.id)?.is_none();
        require(
            fits && is_new && tail.plain_bytes > 0 && tail.sealed_bytes > 0,
            &codes::MALFORMED_STRIPE,
        )?;
        stripe::enter(tx, now, &mut drive, new)?;
        stripe::shift_living(tx, new.profile, new.id, i64::from(tail.sealed_bytes))?;
        usage::change(tx, upload.drive, |usage| {
            usage::shift(&mut usage.charged_bytes, i64::from(tail.plain_bytes))
        })?;
        record.tail = Some((new.profile, tail.clone()));
    }
    put(tx, now, upload, &mut record)?;
    usage::require_quota(&*tx, &drive, &before)?;
    taken::count(tx, upload, &before)?;
    state(&*tx, upload, false)
}

pub(crate) fn drop_tail(tx: &mut Overlay<'_>, drive: DriveId, record: &mut SessionRecord) -> Outcome<()> {
    let Some((profile, tail)) = record.tail.take() else {
        return Ok(());
    };
    stripe::shift_living(tx, profile, tail.stripe, -i64::from(tail.sealed_bytes))?;
    usage::change(tx, drive, |usage| {
        usage::shift(&mut usage.charged_bytes, -i64::from(tail.plain_bytes))
    })
}

fn forget(tx: &mut Overlay<'_>, upload: UploadId, record: &SessionRecord) -> Outcome<()> {
    tx.delete(keys::session_end(upload.drive, record.ends_at.0, upload.number));
    tx.delete(keys::session(upload.drive, upload.number));
    count_out(tx, upload.drive)?;
    resumable::forget(tx, upload);
    taken::forget(tx, upload);
    staging::forget(tx, upload)
}

/// What a session's commit says of the content.
pub(crate) struct Ending<'a> {
    pub(crate) size: u64,
    pub(crate) digest: Digest,
    pub(crate) fresh: &'a [u64],
    pub(crate) survival: Survival,
}

/// `CommitSession`: the version takes the session's pages over. A refusal leaves the session as it is.
pub(crate) fn commit(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    upload: UploadId,
    ending: &Ending<'_>,
) -> Outcome<Committed> {
    let mut drive = drive::authorised(&*tx, upload.drive, actor.principal, Action::Write)?;
    if let Some(committed) = resumable::get(&*tx, upload)?.committed {
        require(
            committed.principal.user == actor.principal.user,
            &codes::SESSION_NOT_FOUND,
        )?;
        return Ok(committed.answer);
    }
    let mut record = get(&*tx, upload)?;
    require(record.principal.user == actor.principal.user, &codes::SESSION_NOT_FOUND)?;
    require(open_rows(&*tx, upload)?.is_empty(), &codes::PAGE_OPEN)?;
    require(record.row_bytes == ending.size, &codes::SIZE_MISMATCH)?;
    require(
        record.declared_bytes.is_none_or(|declared| declared == ending.size),
        &codes::SIZE_MISMATCH,
    )?;
    let target = record.target.clone();
    let content_type = record.content_type.clone();
    let intent = Intent {
        drive: upload.drive,
        target: &target,
        base_version: record.base_version,
        fresh: ending.fresh,
        content_type: content_type.as_deref(),
        survival: ending.survival,
        size: ending.size,
        digest: ending.digest,
    };
    let goal = commit::goal(&*tx, upload.drive, &target, record.base_version, Some(ending.digest))?;
    if let Goal::Known(walk) = &goal
        && walk.record().shown.digest == Some(ending.digest)
    {
        end(tx, actor.now, upload)?;
        let drive: DriveRecord = drive::get(&*tx, upload.drive)?;
        let committed = commit::unchanged(&*tx, &drive, actor, &intent, walk)?;
        return resumable::keep_answer(tx, actor, upload, record.is_resumable, committed);
    }
    taken::require_quota(&*tx, &drive, upload, &record)?;
    let held: Vec<PageRef> = pages(&*tx, upload, usize::MAX)?
        .into_iter()
        .map(|(_, page)| page)
        .collect();
    drop_tail(tx, upload.drive, &mut record)?;
    forget(tx, upload, &record)?;
    let prefix = keys::session_pages(upload.drive, upload.number).done();
    if let Some(behind) = prefix_end(&prefix) {
        tx.delete_range(prefix, behind);
    }
    let committed = commit::finish(tx, &mut drive, actor, &intent, goal, held)?;
    resumable::keep_answer(tx, actor, upload, record.is_resumable, committed)
}

/// `AbortSession`.
pub(crate) fn abort(tx: &mut Overlay<'_>, actor: Actor<'_>, upload: UploadId) -> Outcome<()> {
    drive::authorised(&*tx, upload.drive, actor.principal, Action::Write)?;
    match find(&*tx, upload)? {
        Some(record) if record.principal.user == actor.principal.user => end(tx, actor.now, upload).map(|_| ()),
        Some(_) => Err((&codes::SESSION_NOT_FOUND).into()),
        None => Ok(()),
    }
}

/// Ends a session and gives up what it holds; many pages are left to a job of the session's number. Answers the sub-operations.
pub(crate) fn end(tx: &mut Overlay<'_>, now: &Now, upload: UploadId) -> Outcome<usize> {
    let mut record = get(&*tx, upload)?;
    let mut operations = 1;
    for (key, (block, _)) in open_rows(&*tx, upload)? {
        block::give_up(tx, now, upload.drive, block)?;
        tx.delete(key);
        operations += 1;
    }
    drop_tail(tx, upload.drive, &mut record)?;
    forget(tx, upload, &record)?;
    if record.pages > PAGES_AT_ONCE {
        job::begin_pages(tx, upload)?;
    } else {
        operations += release_pages(tx, upload, PAGES_AT_ONCE as usize)?;
    }
    Ok(operations)
}

/// Counts at most `rows_max` pages of an ended session down. Answers how many.
pub(crate) fn release_pages(tx: &mut Overlay<'_>, upload: UploadId, rows_max: usize) -> Outcome<usize> {
    let held = pages(&*tx, upload, rows_max)?;
    for (key, page) in &held {
        page::release(tx, upload.drive, page.digest)?;
        tx.delete(key.clone());
    }
    Ok(held.len())
}

/// `SweepSessions`: ends those whose age is over.
pub(crate) fn sweep(tx: &mut Overlay<'_>, now: &Now, drive: DriveId) -> Outcome<Swept> {
    /// What one session may take.
    const MOST: usize = 1 + PAGE_BLOCKS_MAX + PAGES_AT_ONCE as usize;
    let mut operations = 0;
    let prefix = keys::Key::of_drive(drive, keys::SESSION_END).done();
    let rest = loop {
        let Some(key) = waiting::first(&*tx, &prefix, &[])? else {
            break None;
        };
        let due = waiting::due_of(Sweep::Sessions, &key);
        if due > now.age() || operations + MOST > COMMAND_OPERATIONS_MAX {
            break Some(due);
        }
        let number = keys::last_u64(&key);
        let upload = UploadId { drive, number };
        operations += match resumable::get(&*tx, upload)?.committed {
            Some(committed) => {
                tx.delete(keys::session_end(drive, committed.ends_at.0, number));
                resumable::forget(tx, upload);
                1
            }
            None => end(tx, now, upload)?,
        };
    };
    let work = Work::of(drive, Sweep::Sessions);
    waiting::settle(tx, work, rest.map(|due| (due, Bytes::new())))?;
    Ok(Swept {
        operations: u32::try_from(operations).unwrap_or(u32::MAX),
        is_done: rest.is_none_or(|due| due > now.age()),
    })
}
