//! Copying a folder of any size: a job that builds the copy out of sight and hangs it into its place by its last command.
//!
//! The copy's root is detached from the first command on, as what is purged is, so that neither a path nor an id leads to anything of
//! it. Its tree is built by `build`; what the source's tree becomes meanwhile is read from the drive's feed and done to the copy as
//! well by `follow`. The command that finds nothing left to do hangs the root into its folder: the copy is what the source is at
//! that instant, and followers are told of its root alone, as of a folder that is moved.
//! Invariants: a copy is there as a whole or not at all, and costs no quota; it acts in the name of whoever asked, and ends when that one
//! may no longer write, the source or the destination is gone, or the name is taken; what ends before it is whole is purged by the
//! same job. A copy has a row in `JOB` while it is under way or being removed, and one in `COPY` until newer ones take its place.
//! Not here: copies of one command (`copy`).

mod build;
mod follow;

use crate::state::age::Now;
use crate::state::change::{self, Actor};
use crate::state::children;
use crate::state::copy::{self, CopyTo};
use crate::state::drive;
use crate::state::entry::{self, EntryRecord, Shown, Standing, stored_name};
use crate::state::job;
use crate::state::keys::{self, Key};
use crate::state::store::{Outcome, attempt, broken, list, load, require, save};
use crate::state::tree::{self, NewPlace};
use crate::state::usage;
use build::Build;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::KvRead;
use model::authorize::{Action, Principal};
use model::entry::EntryType;
use model::id::{DriveId, EntryId, ROOT_ENTRY};
use model::limits::{COPIES_KEPT_MAX, COPIES_UNDER_WAY_MAX};
use model::time::WallTime;
use protocol::codes;
use protocol::metadata::copy::{CopyFacts, CopyStage};
use protocol::metadata::query::ChangeType;
use serde::{Deserialize, Serialize};

/// More copies of a drive than there can be at a time.
const COPIES_READ: usize = 8 * (COPIES_UNDER_WAY_MAX + COPIES_KEPT_MAX);
/// Stands where a folder's number stands while the copy's root hangs in none.
const NOWHERE: u64 = 0;
/// The name of the copy's root until it hangs in its folder and gets its own.
const HIDDEN_NAME: &str = "c";

/// A folder of the source on the way down to where the copy is built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Level {
    folder: u64,
    /// The name key of the last child copied; empty at the beginning.
    after: Bytes,
}

/// Where the copy goes when it is whole; empty once it has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Destination {
    /// The folder that was there.
    folder: u64,
    /// The folders to be made below it, with a number for each.
    parents: Vec<(String, u64)>,
    name: String,
}

/// One copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyRecord {
    pub(crate) source: EntryId,
    principal: Principal,
    begun: WallTime,
    pub(crate) stage: CopyStage,
    /// The number of the copy.
    pub(crate) root: u64,
    /// From which the numbers of what lies below it follow.
    seed: u64,
    to: Destination,
    /// Where it is built: the outermost folder first.
    path: Vec<Level>,
    /// The last change of the drive that was done to the copy as well, or came before it.
    followed: u64,
    pub(crate) files: u64,
    pub(crate) folders: u64,
    /// The how many-th of the drive's copies it was to end; 0 while it is under way.
    ended: u64,
    /// How many changes it was behind at least at the beginning of a command, since its first walk ended.
    least: Option<u64>,
}

/// What a command of a copy leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// More to do.
    On,
    /// Nothing: the copy is in its place.
    Over,
    /// What was built, to be removed.
    Undo { root: u64 },
}

impl CopyRecord {
    pub(crate) fn is_under_way(&self) -> bool {
        self.stage == CopyStage::Copying
    }

    fn facts(&self, job: u64) -> CopyFacts {
        CopyFacts {
            job,
            source: self.source,
            copy: EntryId {
                number: self.root,
                ..self.source
            },
            begun: self.begun,
            stage: self.stage.clone(),
            files: self.files,
            folders: self.folders,
        }
    }

    /// `ended` of this copy: behind all others.
    fn end(&mut self, ended: u64, stage: CopyStage) {
        self.stage = stage;
        self.ended = ended;
        self.path = Vec::new();
        // Names are told by nothing that outlives what bears them.
        self.to = Destination {
            folder: NOWHERE,
            parents: Vec::new(),
            name: String::new(),
        };
    }
}

/// The copies of a drive that are told of.
pub(crate) fn all(kv: &dyn KvRead, drive: DriveId) -> Outcome<Vec<(u64, CopyRecord)>> {
    let rows = list::<CopyRecord>(kv, &Key::of_drive(drive, keys::COPY).done(), None, COPIES_READ)?;
    Ok(rows
        .into_iter()
        .map(|(key, record)| (keys::last_u64(&key), record))
        .collect())
}

/// `BeginCopy`.
pub(crate) fn begin(
    tx: &mut Overlay<'_>,
    actor: Actor<'_>,
    id: EntryId,
    to: &CopyTo<'_>,
    job: u64,
) -> Outcome<CopyFacts> {
    let drive = drive::authorised(&*tx, id.drive, actor.principal, Action::Write)?;
    let (source, place) = copy::ends(&*tx, id, to)?;
    // A file has no parts that could be copied one by one.
    require(source.is_folder(), &codes::COPY_TOO_LARGE)?;
    let root = to.fresh.get(place.parents.len()).copied();
    let root = root.filter(|root| *root > ROOT_ENTRY);
    let root = root.ok_or(&codes::MALFORMED_COMMAND)?;
    require(entry::find(&*tx, id.drive, root)?.is_none(), &codes::ID_TAKEN)?;
    require(tx.get(&keys::copy(id.drive, job))?.is_none(), &codes::ID_TAKEN)?;
    make_room(tx, id.drive)?;
    let parents = place.parents.iter().map(|name| name.as_str().to_owned());
    let record = CopyRecord {
        source: id,
        principal: *actor.principal,
        begun: actor.now.wall,
        stage: CopyStage::Copying,
        root,
        seed: to.seed,
        to: Destination {
            folder: place.folder.record().shown.number,
            parents: parents.zip(to.fresh.iter().copied()).collect(),
            name: place.name.as_str().to_owned(),
        },
        path: vec![Level {
            folder: id.number,
            after: Bytes::new(),
        }],
        followed: drive.sequence,
        files: 0,
        folders: 1,
        ended: 0,
        least: None,
    };
    put_root(tx, actor, &record, job, &source.shown)?;
    save(tx, keys::copy(id.drive, job), &record)?;
    job::begin_copy(tx, id.drive, job)?;
    Ok(record.facts(job))
}

/// Which copy of the drive the next one to end is.
fn next_end(kv: &dyn KvRead, drive: DriveId) -> Outcome<u64> {
    let ended = all(kv, drive)?.into_iter().map(|(_, record)| record.ended);
    Ok(ended.max().unwrap_or_default().saturating_add(1))
}

/// Forgets the oldest ended copies beyond those that are told of, before a new one is begun.
fn make_room(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<()> {
    let all = all(&*tx, drive)?;
    let under_way = all.iter().filter(|(_, record)| record.is_under_way()).count();
    require(under_way < COPIES_UNDER_WAY_MAX, &codes::COPIES_RUNNING)?;
    let ended = all.iter().filter(|(_, record)| !record.is_under_way());
    let mut ended: Vec<(u64, u64)> = ended.map(|(job, record)| (record.ended, *job)).collect();
    ended.sort_unstable();
    let excess = ended.len().saturating_sub(COPIES_KEPT_MAX);
    for (_, job) in ended.into_iter().take(excess) {
        tx.delete(keys::copy(drive, job));
    }
    Ok(())
}

/// Makes the root of the copy, which hangs nowhere.
fn put_root(tx: &mut Overlay<'_>, actor: Actor<'_>, record: &CopyRecord, job: u64, source: &Shown) -> Outcome<()> {
    let wall = actor.now.wall;
    let shown = Shown {
        number: record.root,
        parent: NOWHERE,
        name: HIDDEN_NAME.to_owned(),
        entry_type: EntryType::Folder,
        size: 0,
        version: 0,
        revision: 1,
        digest: None,
        content_type: source.content_type.clone(),
        created_at: wall,
        modified_at: wall,
        modified_by: actor.principal.user,
    };
    let root = EntryRecord {
        shown,
        height: 0,
        is_scope: false,
        standing: Standing::Detached { job },
    };
    entry::put(tx, record.source.drive, &root)?;
    usage::change(tx, record.source.drive, |usage| usage::shift(&mut usage.folders, 1))
}

/// Part of a job: builds on, a bounded part of the copy. Answers what is left to do, and the sub-operations.
pub(crate) fn step(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, job: u64) -> Outcome<(Next, usize)> {
    let record: Option<CopyRecord> = load(&*tx, &keys::copy(drive, job))?;
    let mut record = record.ok_or_else(|| broken("a copy's job has no copy"))?;
    let before = record.clone();
    let (next, operations) = match attempt(tx, |own| advance(own, now, &mut record))? {
        Ok((true, operations)) => {
            record.end(next_end(&*tx, drive)?, CopyStage::Done);
            (Next::Over, operations)
        }
        Ok((false, operations)) => (Next::On, operations),
        Err(failure) => {
            record = before.clone();
            // What was built is removed: this is what is left to look at.
            if codes::BUG.is(&failure) {
                // Free text is told, not stored: replicas of two releases may word it differently.
                tracing::error!(%drive, job, detail = %failure.detail, "copy ended: the drive's records do not agree");
            }
            record.end(next_end(&*tx, drive)?, CopyStage::Stopped(failure.code));
            (Next::Undo { root: record.root }, 1)
        }
    };
    // While it waits for a purge, nothing is written and the drive is not touched.
    if record != before {
        save(tx, keys::copy(drive, job), &record)?;
    }
    Ok((next, operations))
}

/// Builds on, and hangs the copy into its place when it is whole; answers whether it is.
fn advance(tx: &mut Overlay<'_>, now: &Now, record: &mut CopyRecord) -> Outcome<(bool, usize)> {
    let (id, principal) = (record.source, record.principal);
    let mut drive = drive::authorised(&*tx, id.drive, &principal, Action::Write)?;
    require(!entry::walk(&*tx, id)?.is_in_trash(), &codes::IN_TRASH)?;
    // What can no longer end well need not go on.
    let place = destination(&*tx, record)?;
    // All of a copy was made when it was asked for: a rewind to an instant between would meet only a part of it.
    let then = Now {
        wall: record.begun,
        ..*now
    };
    let actor = Actor {
        principal: &principal,
        now: &then,
    };
    let (is_whole, operations) = Build::new(tx, &drive, actor, record).run()?;
    if !is_whole {
        return Ok((false, operations));
    }
    let actor = Actor { now, ..actor };
    let fresh: Vec<u64> = record.to.parents.iter().map(|(_, number)| *number).collect();
    // Those that somebody made meanwhile are the first ones.
    let fresh = &fresh[fresh.len() - place.parents.len()..];
    let folder = tree::create_parents(tx, &mut drive, actor, place.folder, (&place.parents, fresh))?;
    let root = entry::find(&*tx, id.drive, record.root)?;
    let mut root = root.ok_or_else(|| broken("a copy has no root"))?;
    children::require_room(&folder, &place.name, root.height)?;
    root.standing = Standing::Attached;
    root.shown.parent = folder.record().shown.number;
    root.shown.name = place.name.as_str().to_owned();
    entry::put(tx, id.drive, &root)?;
    children::attach(tx, id.drive, &folder, &root)?;
    let number = record.root;
    let walk = entry::walk(&*tx, EntryId { number, ..id })?;
    let scopes = walk.scopes();
    let shown = &walk.record().shown;
    change::record(tx, &mut drive, actor, ChangeType::Created, shown, (&[], &scopes))?;
    Ok((true, operations + 1 + place.parents.len()))
}

/// The place of the copy as it is now: its folder there and not below the source, its name free.
fn destination(kv: &dyn KvRead, record: &CopyRecord) -> Outcome<NewPlace> {
    let (id, to) = (record.source, &record.to);
    let number = to.folder;
    let mut folder = entry::walk_folder(kv, EntryId { number, ..id })?;
    let mut parents = Vec::new();
    for (name, _) in &to.parents {
        let name = stored_name(name)?;
        let at = folder.record().shown.number;
        // Somebody may have made some of the folders that were missing.
        let there = match parents.is_empty() {
            true => children::find(kv, id.drive, at, &name)?,
            false => None,
        };
        match there {
            Some(Shown { number, .. }) => folder = entry::walk_folder(kv, EntryId { number, ..id })?,
            None => parents.push(name),
        }
    }
    let name = stored_name(&to.name)?;
    if parents.is_empty() {
        children::require_free(kv, id.drive, folder.record().shown.number, &name, None)?;
    }
    require(!folder.holds(id.number), &codes::CYCLE)?;
    Ok(NewPlace { folder, parents, name })
}

/// A copy that this one asked for.
fn own(kv: &dyn KvRead, principal: &Principal, drive: DriveId, job: u64) -> Outcome<CopyRecord> {
    let record: Option<CopyRecord> = load(kv, &keys::copy(drive, job))?;
    let own = record.filter(|record| record.principal.user == principal.user);
    own.ok_or_else(|| (&codes::JOB_NOT_FOUND).into())
}

/// `CancelCopy`.
pub(crate) fn cancel(tx: &mut Overlay<'_>, actor: Actor<'_>, drive: DriveId, job: u64) -> Outcome<CopyFacts> {
    drive::authorised(&*tx, drive, actor.principal, Action::Write)?;
    let mut record = own(&*tx, actor.principal, drive, job)?;
    if record.is_under_way() {
        let ended = next_end(&*tx, drive)?;
        record.end(ended, CopyStage::Stopped(codes::COPY_CANCELLED.word.to_owned()));
        save(tx, keys::copy(drive, job), &record)?;
        job::undo_copy(tx, drive, job, record.root)?;
    }
    Ok(record.facts(job))
}

/// `DriveAsk::Copy`.
pub(crate) fn facts(kv: &dyn KvRead, principal: &Principal, drive: DriveId, job: u64) -> Outcome<CopyFacts> {
    own(kv, principal, drive, job).map(|record| record.facts(job))
}
