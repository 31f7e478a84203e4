//! Resumable sessions: what is kept of them beside the session itself, and after its commit.
//!
//! Invariants: a tail is how the block behind the last row begins, so the command that names that row drops it; the answer to a commit
//! stays for the age of a resumable session, under its number; a length that was declared stays as it is.
//! Not here: rows, pages and tails themselves (`session`).

use crate::state::age::Now;
use crate::state::change::Actor;
use crate::state::drive;
use crate::state::keys;
use crate::state::session;
use crate::state::store::{Outcome, load, require, save};
use crate::state::stripe;
use crate::state::usage;
use crate::state::waiting::{self, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::{Action, Principal};
use model::id::{UploadId, UserId};
use model::limits::{FILE_BYTES_MAX, RESUMABLE_SESSION_AGE};
use model::time::Age;
use protocol::codes;
use protocol::metadata::upload::{Committed, NewStripe, ResumableState, RowRun, SessionState, Survival, Tail};
use serde::{Deserialize, Serialize};

/// What is kept beside a resumable session, and longer than it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ResumableRecord {
    pub(crate) survival: Option<Survival>,
    pub(crate) committed: Option<CommittedSession>,
}

/// A session that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CommittedSession {
    pub(crate) principal: Principal,
    pub(crate) answer: Committed,
    pub(crate) ends_at: Age,
}

pub(crate) fn get(kv: &dyn KvRead, upload: UploadId) -> Outcome<ResumableRecord> {
    let found: Option<ResumableRecord> = load(kv, &keys::session_resumable(upload.drive, upload.number))?;
    Ok(found.unwrap_or(ResumableRecord {
        survival: None,
        committed: None,
    }))
}

fn put(tx: &mut Overlay<'_>, upload: UploadId, record: &ResumableRecord) -> Outcome<()> {
    save(tx, keys::session_resumable(upload.drive, upload.number), record)
}

/// Forgets what was kept.
pub(crate) fn forget(tx: &mut Overlay<'_>, upload: UploadId) {
    tx.delete(keys::session_resumable(upload.drive, upload.number));
}

/// A resumable session of `user`, or the answer to its commit.
pub(crate) fn state(kv: &dyn KvRead, upload: UploadId, user: UserId) -> Outcome<ResumableState> {
    let kept = get(kv, upload)?;
    if let Some(committed) = kept.committed {
        require(committed.principal.user == user, &codes::SESSION_NOT_FOUND)?;
        return Ok(ResumableState::Committed(committed.answer));
    }
    let session = session::state(kv, upload, true)?;
    let is_own = session.principal.user == user && session.is_resumable;
    require(is_own, &codes::SESSION_NOT_FOUND)?;
    let tail = match session::find(kv, upload)?.and_then(|record| record.tail) {
        Some((profile, tail)) => Some(stripe::get(kv, profile, tail.stripe)?.placed(profile, tail.stripe)),
        None => None,
    };
    let survival = kept.survival;
    Ok(ResumableState::Open {
        session,
        survival,
        tail,
    })
}

/// The age at which a resumable session of `user`, or the answer to its commit, ends unless a command uses it before.
pub(crate) fn ends_at(kv: &dyn KvRead, upload: UploadId, user: UserId) -> Outcome<Age> {
    if let Some(committed) = get(kv, upload)?.committed {
        require(committed.principal.user == user, &codes::SESSION_NOT_FOUND)?;
        return Ok(committed.ends_at);
    }
    let session = session::get(kv, upload)?;
    let is_own = session.principal.user == user && session.is_resumable;
    require(is_own, &codes::SESSION_NOT_FOUND)?;
    Ok(session.ends_at)
}

/// `NameRows`. A page that somebody else has ended since the caller looked is not named once more.
pub(crate) fn name_rows(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    position: u64,
    (stripes, runs, survival): (&[NewStripe], &[RowRun], Option<Survival>),
) -> Outcome<SessionState> {
    let mut record = session::get(&*tx, upload)?;
    record.require_position(position)?;
    // The end of a page moves no position, and a page that the drive has is named by no such upload.
    let is_end_alone = runs.first().is_some_and(|run| run.rows.is_empty());
    if is_end_alone && session::open_rows(&*tx, upload)?.is_empty() {
        return Err(codes::WRONG_POSITION.failure().with("position", record.rows).into());
    }
    let before = usage::get(&*tx, upload.drive)?;
    let first = runs.iter().flat_map(|run| &run.rows).next();
    if let (Some((_, tail)), Some(row)) = (&record.tail, first) {
        // A tail is how the next block begins.
        require(row.size >= tail.plain_bytes, &codes::SIZE_MISMATCH)?;
        session::drop_tail(tx, upload.drive, &mut record)?;
    }
    let mut kept = get(&*tx, upload)?;
    kept.survival = kept.survival.into_iter().chain(survival).reduce(Survival::least);
    put(tx, upload, &kept)?;
    session::append_to(tx, now, upload, (record, before), stripes, runs)
}

/// `KeepTail`. A tail goes back for nobody: a gateway that was left by its client may have received less of the block than the one that
/// the client went to.
pub(crate) fn keep_tail(
    tx: &mut Overlay<'_>,
    now: &Now,
    upload: UploadId,
    position: u64,
    tail: &(Tail, NewStripe),
) -> Outcome<SessionState> {
    let record = session::get(&*tx, upload)?;
    record.require_position(position)?;
    let kept = record.tail.as_ref().map_or(0, |(_, kept)| kept.plain_bytes);
    if tail.0.plain_bytes < kept {
        return Err(codes::WRONG_POSITION.failure().with("position", record.rows).into());
    }
    session::set_tail(tx, now, upload, Some(tail))
}

/// `DeclareLength`.
pub(crate) fn declare(tx: &mut Overlay<'_>, actor: Actor<'_>, upload: UploadId, bytes: u64) -> Outcome<()> {
    let drive = drive::authorised(&*tx, upload.drive, actor.principal, Action::Write)?;
    if let Some(committed) = get(&*tx, upload)?.committed {
        let is_own = committed.principal.user == actor.principal.user;
        require(is_own, &codes::SESSION_NOT_FOUND)?;
        return require_length(committed.answer.version.size, bytes);
    }
    let mut record = session::get(&*tx, upload)?;
    let is_own = record.principal.user == actor.principal.user && record.is_resumable;
    require(is_own, &codes::SESSION_NOT_FOUND)?;
    match record.declared_bytes {
        Some(declared) => require_length(declared, bytes)?,
        None => {
            require(bytes <= FILE_BYTES_MAX, &codes::FILE_TOO_LARGE)?;
            usage::require_declared(&*tx, &drive, bytes)?;
            require(bytes >= record.stored_bytes(), &codes::SIZE_MISMATCH)?;
        }
    }
    record.declared_bytes = Some(bytes);
    session::put(tx, actor.now, upload, &mut record)
}

fn require_length(declared: u64, bytes: u64) -> Outcome<()> {
    match declared == bytes {
        true => Ok(()),
        false => Err(codes::LENGTH_DECLARED.failure().with("declared_bytes", declared).into()),
    }
}

/// Whoever lost the answer to the commit of a resumable session asks for it by the session.
pub(crate) fn keep_answer(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    upload: UploadId,
    is_resumable: bool,
    answer: Committed,
) -> Outcome<Committed> {
    if is_resumable {
        let ends_at = actor.now.age().after(RESUMABLE_SESSION_AGE);
        tx.put(keys::session_end(upload.drive, ends_at.0, upload.number), Bytes::new());
        waiting::note(tx, Work::of(upload.drive, Sweep::Sessions), ends_at)?;
        let committed = CommittedSession {
            principal: *actor.principal,
            answer: answer.clone(),
            ends_at,
        };
        let kept = ResumableRecord {
            survival: None,
            committed: Some(committed),
        };
        put(tx, upload, &kept)?;
    }
    Ok(answer)
}
