//! Rewinding a folder, or a file, to an instant: a job that first lists what it would change, then changes it entry by entry.
//!
//! Looking for it and changing it are bounded commands of one job. What is listed stands in `REWIND_ITEM` with the revision at which it
//! was seen; work passes by whatever has another one and says so. Each entry is a change of its own, made as a user would make it:
//! an old version becomes a new one, what was made since goes into the trash, what was trashed since comes back. So nothing is lost
//! by a rewind, and another one takes it back.
//! Invariants: one rewind a drive is under way at a time; it acts in the name of whoever asked, and stops when that one may no longer
//! write; a rewind has a row in `JOB` while it is under way, and one in `REWIND_END` from then on.
//! Not here: names and places of before, which nothing keeps.

mod look;
mod work;

use crate::state::age::Now;
use crate::state::change::Actor;
use crate::state::drive;
use crate::state::entry::{self, Walk};
use crate::state::job;
use crate::state::keys::{self, Key};
use crate::state::retention;
use crate::state::store::{Outcome, Stop, broken, list, load, require, save};
use crate::state::waiting::{self, AT_ONCE, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::authorize::{Action, Principal};
use model::id::{DriveId, EntryId};
use model::limits::{REWIND_AGE, REWINDS_KEPT_MAX};
use model::time::{Age, WallTime};
use protocol::codes;
use protocol::metadata::drive::Swept;
use protocol::metadata::rewind::{
    RewindAction, RewindCounts, RewindFacts, RewindItem, RewindOrder, RewindOutcome, RewindPage, RewindStage,
};
use serde::{Deserialize, Serialize};

/// Rows of a list that one command forgets: each is one key, where other sweeps touch several for each of their sub-operations.
const FORGOTTEN_AT_ONCE: usize = 200;
/// More rewinds of a drive than there can be at a time.
const REWINDS_READ: usize = 8 * REWINDS_KEPT_MAX;

/// A folder on the way down to where a rewind looks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Level {
    folder: u64,
    /// The name key of the last child looked at; empty at the beginning.
    after: Bytes,
    /// Whether something in it stays.
    keeps: bool,
}

impl Level {
    fn of(folder: u64) -> Self {
        Self {
            folder,
            after: Bytes::new(),
            keeps: false,
        }
    }
}

/// One rewind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RewindRecord {
    pub(crate) order: RewindOrder,
    pub(crate) principal: Principal,
    pub(crate) begun: WallTime,
    pub(crate) stage: RewindStage,
    pub(crate) counts: RewindCounts,
    /// Where it looks: the outermost folder first.
    path: Vec<Level>,
    /// The end of the key of the last entry of the trash looked at, empty at the beginning; `None` when nothing is left there.
    trash: Option<Bytes>,
    turn: work::Turn,
    /// Until when it is told of, once it has ended.
    kept_until: Age,
}

/// One entry of a rewind's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ItemRecord {
    entry: u64,
    /// At which its turn must find it.
    revision: u64,
    action: RewindAction,
    outcome: RewindOutcome,
}

impl RewindRecord {
    pub(crate) fn is_under_way(&self) -> bool {
        matches!(self.stage, RewindStage::Looking | RewindStage::Working)
    }

    fn facts(&self, job: u64) -> RewindFacts {
        RewindFacts {
            job,
            order: self.order,
            begun: self.begun,
            stage: self.stage.clone(),
            counts: self.counts,
        }
    }

    /// Adds to the list.
    fn list(
        &mut self,
        tx: &mut Overlay<'_>,
        job: u64,
        (entry, revision): (u64, u64),
        action: RewindAction,
    ) -> Outcome<()> {
        require(
            self.counts.listed < model::limits::REWIND_ITEMS_MAX,
            &codes::REWIND_TOO_LARGE,
        )?;
        let outcome = match action {
            RewindAction::Gone => RewindOutcome::Left(codes::VERSION_NOT_FOUND.word.to_owned()),
            _ => RewindOutcome::Planned,
        };
        self.counts.left += u64::from(outcome != RewindOutcome::Planned);
        let key = keys::rewind_item(self.order.entry.drive, job, self.counts.listed);
        self.counts.listed += 1;
        let item = ItemRecord {
            entry,
            revision,
            action,
            outcome,
        };
        save(tx, key, &item)
    }
}

/// The rewinds of a drive that are told of.
pub(crate) fn all(kv: &dyn KvRead, drive: DriveId) -> Outcome<Vec<(u64, RewindRecord)>> {
    let rows = list::<RewindRecord>(kv, &Key::of_drive(drive, keys::REWIND).done(), None, REWINDS_READ)?;
    Ok(rows
        .into_iter()
        .map(|(key, record)| (keys::last_u64(&key), record))
        .collect())
}

fn require_none_under_way(kv: &dyn KvRead, drive: DriveId) -> Outcome<()> {
    let all = all(kv, drive)?;
    match all.iter().find(|(_, record)| record.is_under_way()) {
        Some((number, _)) => {
            let job = EntryId { drive, number: *number };
            Err(codes::REWIND_RUNNING.failure().with("job", job).into())
        }
        None => Ok(()),
    }
}

/// `BeginRewind`.
pub(crate) fn begin(tx: &mut Overlay<'_>, actor: Actor<'_>, order: &RewindOrder, job: u64) -> Outcome<RewindFacts> {
    let drive = order.entry.drive;
    drive::authorised(&*tx, drive, actor.principal, Action::Write)?;
    let walk = entry::walk(&*tx, order.entry)?;
    require(!walk.is_in_trash(), &codes::IN_TRASH)?;
    let wall = actor.now.wall;
    require(order.to <= wall, &codes::REWIND_IN_FUTURE)?;
    let kept_ms = retention::of(&*tx, drive)?.version_age_s.saturating_mul(1000);
    let shown = walk.into_record().shown;
    // An instant before the folder was made would move all of it into the trash: a slip of the pen, and nobody's wish.
    let is_kept = order.to >= shown.created_at && wall.0.saturating_sub(order.to.0) <= kept_ms;
    require(is_kept, &codes::REWIND_TOO_OLD)?;
    require_none_under_way(&*tx, drive)?;
    require(tx.get(&keys::rewind(drive, job))?.is_none(), &codes::ID_TAKEN)?;
    make_room(tx, drive)?;
    let is_folder = shown.entry_type == model::entry::EntryType::Folder;
    let mut record = RewindRecord {
        order: *order,
        principal: *actor.principal,
        begun: wall,
        stage: RewindStage::Looking,
        counts: RewindCounts::default(),
        path: if is_folder {
            vec![Level::of(shown.number)]
        } else {
            Vec::new()
        },
        trash: is_folder.then(Bytes::new),
        turn: work::Turn::default(),
        kept_until: Age(0),
    };
    if !is_folder {
        record.counts.looked_at = 1;
        look::file(tx, job, &mut record, &shown, shown.revision)?;
    }
    save(tx, keys::rewind(drive, job), &record)?;
    job::begin_rewind(tx, drive, job)?;
    Ok(record.facts(job))
}

/// Gives the place of the oldest ended rewind to a new one.
fn make_room(tx: &mut Overlay<'_>, drive: DriveId) -> Outcome<()> {
    let rows = tx.scan(&Scan::prefix(
        &Key::of_drive(drive, keys::REWIND_END).done(),
        REWINDS_READ,
    ))?;
    let mut kept = rows
        .into_iter()
        .map(|(key, _)| key)
        .filter(|key| waiting::due_of(Sweep::Rewinds, key) > AT_ONCE);
    let oldest = kept.next();
    if let Some(oldest) = oldest
        && kept.count() + 1 >= REWINDS_KEPT_MAX
    {
        let job = keys::last_u64(&oldest);
        tx.delete(oldest);
        tx.delete(keys::rewind(drive, job));
        tx.put(keys::rewind_end(drive, AT_ONCE.0, job), Bytes::new());
        waiting::note_now(tx, Work::of(drive, Sweep::Rewinds))?;
    }
    Ok(())
}

/// A rewind that this one asked for.
fn own(kv: &dyn KvRead, principal: &Principal, drive: DriveId, job: u64) -> Outcome<RewindRecord> {
    let record: Option<RewindRecord> = load(kv, &keys::rewind(drive, job))?;
    let own = record.filter(|record| record.principal.user == principal.user);
    own.ok_or_else(|| (&codes::JOB_NOT_FOUND).into())
}

/// `RunRewind`.
pub(crate) fn run(tx: &mut Overlay<'_>, actor: Actor<'_>, drive: DriveId, job: u64) -> Outcome<RewindFacts> {
    drive::authorised(&*tx, drive, actor.principal, Action::Write)?;
    let mut record = own(&*tx, actor.principal, drive, job)?;
    require(record.stage == RewindStage::Planned, &codes::REWIND_NOT_PLANNED)?;
    require_none_under_way(&*tx, drive)?;
    tx.delete(keys::rewind_end(drive, record.kept_until.0, job));
    record.order.is_dry_run = false;
    record.principal = *actor.principal;
    record.begun = actor.now.wall;
    record.stage = RewindStage::Working;
    save(tx, keys::rewind(drive, job), &record)?;
    job::begin_rewind(tx, drive, job)?;
    Ok(record.facts(job))
}

/// Part of a job: looks on or works on, a bounded part of it. Answers whether the job is done, and the sub-operations.
pub(crate) fn step(tx: &mut Overlay<'_>, now: &Now, drive: DriveId, job: u64) -> Outcome<(bool, usize)> {
    let record: Option<RewindRecord> = load(&*tx, &keys::rewind(drive, job))?;
    let mut record = record.ok_or_else(|| broken("a rewind's job has no rewind"))?;
    // What it changes is behind what it was asked at, also where clocks disagree: another rewind to then takes it back.
    let wall = now.wall.max(WallTime(record.begun.0.saturating_add(1)));
    let now = Now { wall, ..*now };
    let (operations, ended) = match advance(tx, &now, job, &mut record) {
        Ok((operations, is_over)) => (operations, is_over.then(|| over(&mut record)).flatten()),
        Err(Stop::Refused(failure)) => (1, Some(RewindStage::Stopped(failure.code))),
        Err(stop @ Stop::Store(_)) => return Err(stop),
    };
    let is_done = ended.is_some();
    if let Some(stage) = ended {
        end(tx, &now, drive, job, (&mut record, stage))?;
    }
    save(tx, keys::rewind(drive, job), &record)?;
    Ok((is_done, operations))
}

fn advance(tx: &mut Overlay<'_>, now: &Now, job: u64, record: &mut RewindRecord) -> Outcome<(usize, bool)> {
    let (principal, root) = (record.principal, record.order.entry);
    drive::authorised(&*tx, root.drive, &principal, Action::Write)?;
    if record.stage == RewindStage::Looking {
        require(!entry::walk(&*tx, root)?.is_in_trash(), &codes::IN_TRASH)?;
        return look::run(tx, job, record);
    }
    let actor = Actor {
        principal: &principal,
        now,
    };
    work::run(tx, actor, job, record)
}

/// What follows on a stage that is over; `None` when the job goes on.
fn over(record: &mut RewindRecord) -> Option<RewindStage> {
    match record.stage {
        RewindStage::Looking if record.order.is_dry_run => Some(RewindStage::Planned),
        RewindStage::Looking => {
            record.stage = RewindStage::Working;
            None
        }
        _ => Some(RewindStage::Done),
    }
}

fn end(
    tx: &mut Overlay<'_>,
    now: &Now,
    drive: DriveId,
    job: u64,
    (record, stage): (&mut RewindRecord, RewindStage),
) -> Outcome<()> {
    record.stage = stage;
    record.path = Vec::new();
    record.kept_until = now.age().after(REWIND_AGE);
    tx.put(keys::rewind_end(drive, record.kept_until.0, job), Bytes::new());
    waiting::note(tx, Work::of(drive, Sweep::Rewinds), record.kept_until)
}

/// `DriveAsk::Rewind`: a rewind and its list from the item `first` on.
pub(crate) fn page(
    kv: &dyn KvRead,
    principal: &Principal,
    (drive, job): (DriveId, u64),
    first: u64,
    limit: usize,
) -> Outcome<RewindPage> {
    let record = own(kv, principal, drive, job)?;
    let prefix = keys::rewind_items(drive, job).done();
    let after = first.checked_sub(1).map(|last| keys::rewind_item(drive, job, last));
    let mut rows = list::<ItemRecord>(kv, &prefix, after.as_deref(), limit + 1)?;
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let mut items = Vec::with_capacity(rows.len());
    for (key, item) in rows {
        let walk = Walk::new(kv, drive, item.entry)?.filter(|walk| !walk.is_detached());
        items.push(RewindItem {
            index: keys::last_u64(&key),
            entry: EntryId {
                drive,
                number: item.entry,
            },
            path: walk.map(|walk| walk.path_text()),
            action: item.action,
            outcome: item.outcome,
        });
    }
    Ok(RewindPage {
        facts: record.facts(job),
        items,
        has_more,
    })
}

/// `SweepRewinds`: forgets rewinds whose time is over, the record first, so that nobody runs what is half forgotten.
pub(crate) fn sweep(tx: &mut Overlay<'_>, now: &Now, drive: DriveId) -> Outcome<Swept> {
    let prefix = Key::of_drive(drive, keys::REWIND_END).done();
    let mut left = FORGOTTEN_AT_ONCE;
    let rest = loop {
        let Some(key) = waiting::first(&*tx, &prefix, &[])? else {
            break None;
        };
        let due = waiting::due_of(Sweep::Rewinds, &key);
        if due > now.age() || left == 0 {
            break Some(due);
        }
        let job = keys::last_u64(&key);
        tx.delete(keys::rewind(drive, job));
        let items = tx.scan(&Scan::prefix(&keys::rewind_items(drive, job).done(), left))?;
        left -= items.len();
        for (item, _) in items {
            tx.delete(item);
        }
        if left > 0 {
            tx.delete(key);
            left -= 1;
        }
    };
    let work = Work::of(drive, Sweep::Rewinds);
    waiting::settle(tx, work, rest.map(|due| (due, Bytes::new())))?;
    Ok(Swept {
        operations: u32::try_from(FORGOTTEN_AT_ONCE - left).unwrap_or(u32::MAX),
        is_done: rest.is_none_or(|due| due > now.age()),
    })
}
