//! What waits to be done by whoever leads: a row for each piece of work, and the group's queue of them by when they are due.
//!
//! Jobs, released pages, the trash, sessions, old versions and request ids each lie in tables of their own drive or slot. A leader that had to look
//! into all of them would read for ever; here every one is covered by a row that says when to come and where the last sweep ended.
//! `WAITING` lies in the slot, so it moves with it; `DUE` is the group's index over it, and one range of it is all that a leader reads.
//! Invariants: what waits is covered by a row that is due no later than it is; a row of one table has its row in the other; a row
//! that covers nothing any more is taken out by the sweep that it asked for.
//! Not here: what a sweep does (`job`, `page`, `session`, `request`, `retention`), who sends it and how fast (`worker::sweep`).

use crate::state::age;
use crate::state::collection;
use crate::state::filling::FilledTo;
use crate::state::keys::{self, Key};
use crate::state::retention;
use crate::state::store::{Outcome, broken, load, save};
use crate::state::stripe;
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{KvRead, Scan};
use model::id::{DriveId, SLOTS, Slot};
use model::limits::{COMMAND_OPERATIONS_MAX, FEED_AGE, TRASH_AGE};
use model::time::Age;
use serde::{Deserialize, Serialize};
use std::ops::Bound;
use std::time::Duration;

/// Due at once: before every age. Who comes now stands in the queue at the age of now (`note_now`), so that the oldest comes first and
/// tells for how long it has waited; what an earlier release left stands here until its next sweep.
pub(crate) const AT_ONCE: Age = Age(0);
const HOUR_MS: u64 = 3_600_000;
/// Of the feed's marks.
const HOUR: Duration = Duration::from_millis(HOUR_MS);

/// Which sweep a row asks for. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sweep {
    /// A job, by its number.
    Job = 1,
    /// Pages that nobody holds.
    Pages = 2,
    /// The trash.
    Trash = 3,
    /// Sessions.
    Sessions = 4,
    /// Request ids of a slot.
    Requests = 5,
    /// Versions whose age is over.
    Versions = 6,
    /// Pages of versions that were taken out.
    Dropped = 7,
    /// Changes of the feed.
    Feed = 8,
    /// Rewinds that have ended.
    Rewinds = 9,
    /// Blocks without references.
    Blocks = 16,
}

/// All but `Blocks`, which `fill_idle` fills in, with the tables that they work off. Positions are stored.
pub(crate) const SWEEPS: [(Sweep, u8); 9] = [
    (Sweep::Job, keys::JOB),
    (Sweep::Pages, keys::PAGE_RELEASE),
    (Sweep::Trash, keys::TRASH),
    (Sweep::Sessions, keys::SESSION_END),
    (Sweep::Requests, keys::REQUEST_END),
    (Sweep::Versions, keys::OLD_VERSION),
    (Sweep::Dropped, keys::DROPPED_VERSION),
    (Sweep::Feed, keys::FEED_HOUR),
    (Sweep::Rewinds, keys::REWIND_END),
];

/// Every sweep, by its stored number.
fn numbered(number: u8) -> Option<Sweep> {
    let sweeps = SWEEPS.iter().map(|(sweep, _)| *sweep).chain([Sweep::Blocks]);
    sweeps.into_iter().find(|sweep| *sweep as u8 == number)
}

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Work {
    /// Whose; of request ids, which are a slot's, the drive of number zero.
    pub(crate) drive: DriveId,
    /// What is to be sent.
    pub(crate) sweep: Sweep,
    /// A job's number, zero for the rest.
    pub(crate) number: u64,
}

/// When a piece of work is due, and where its last sweep ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WaitingRecord {
    /// By the slot's age.
    pub(crate) due: Age,
    /// Nothing is left of the swept table up to here: the end of a key, or nothing. Saves the next sweep what this one removed,
    /// which the store may have to step over for hours.
    pub(crate) after: Bytes,
}

/// How far the rows were made for what an earlier release left without them: everything before this place has its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Filled {
    slot: u16,
    /// Position in `SWEEPS`.
    sweep: u8,
    drive: u64,
}

impl Work {
    pub(crate) fn job(drive: DriveId, number: u64) -> Self {
        Self {
            drive,
            sweep: Sweep::Job,
            number,
        }
    }

    pub(crate) fn of(drive: DriveId, sweep: Sweep) -> Self {
        Self {
            drive,
            sweep,
            number: 0,
        }
    }

    pub(crate) fn requests(slot: Slot) -> Self {
        Self::of(DriveId::new(slot, 0), Sweep::Requests)
    }

    fn waiting_key(&self) -> Bytes {
        let key = Key::of_drive(self.drive, keys::WAITING);
        key.u8(self.sweep as u8).u64(self.number).done()
    }

    fn due_key(&self, due_ms: u64) -> Bytes {
        let key = Key::of_group(keys::DUE).u64(due_ms);
        key.u64(self.drive.0).u8(self.sweep as u8).u64(self.number).done()
    }

    /// From the end of a key of either table.
    fn from_key(key: &[u8]) -> Outcome<Self> {
        /// Drive, sweep, number.
        const BYTES: usize = 8 + 1 + 8;
        let unread = || broken("a key of waiting work is none");
        let end = key.last_chunk::<BYTES>().ok_or_else(unread)?;
        Ok(Self {
            drive: DriveId(keys::u64_at(end, 0)),
            sweep: numbered(end[8]).ok_or_else(unread)?,
            number: keys::last_u64(end),
        })
    }
}

/// Whether a key is one of the queue's: whoever puts one has entered work.
pub(crate) fn is_due_key(key: &[u8]) -> bool {
    key.starts_with(&keys::WHOLE_GROUP.to_be_bytes()) && key.get(2) == Some(&keys::DUE)
}

fn get(kv: &dyn KvRead, work: Work) -> Outcome<Option<WaitingRecord>> {
    load(kv, &work.waiting_key())
}

/// The group's counter at a slot's age.
fn counter_at(kv: &dyn KvRead, work: Work, due: Age) -> Outcome<u64> {
    if due == AT_ONCE {
        return Ok(0);
    }
    age::counter_at(kv, work.drive.slot(), due)
}

/// Notes that work is due at this age of its slot, unless it is noted already for then or before.
pub(crate) fn note(tx: &mut Overlay<'_>, work: Work, due: Age) -> Outcome<()> {
    let known = get(&*tx, work)?;
    if known.as_ref().is_some_and(|known| known.due <= due) {
        return Ok(());
    }
    let after = match known {
        Some(known) => {
            let old = counter_at(&*tx, work, known.due)?;
            tx.delete(work.due_key(old));
            known.after
        }
        None => Bytes::new(),
    };
    let at = counter_at(&*tx, work, due)?;
    tx.put(work.due_key(at), Bytes::new());
    save(tx, work.waiting_key(), &WaitingRecord { due, after })
}

/// Notes that work is due at once, unless it is noted already.
pub(crate) fn note_now(tx: &mut Overlay<'_>, work: Work) -> Outcome<()> {
    let now = age::of_slot(&*tx, work.drive.slot())?;
    note(tx, work, now)
}

/// Where the next sweep begins.
pub(crate) fn after(kv: &dyn KvRead, work: Work) -> Outcome<Bytes> {
    Ok(get(kv, work)?.map(|known| known.after).unwrap_or_default())
}

/// Notes what a sweep has left: when the rest is due and where to go on, or nothing. A rest that is due at once goes on waiting since
/// when it did.
pub(crate) fn settle(tx: &mut Overlay<'_>, work: Work, rest: Option<(Age, Bytes)>) -> Outcome<()> {
    let known = get(&*tx, work)?;
    let wanted = match rest {
        Some((AT_ONCE, after)) => {
            let now = age::of_slot(&*tx, work.drive.slot())?;
            let since = known.as_ref().map(|known| known.due).filter(|due| *due != AT_ONCE);
            let due = since.map_or(now, |since| since.min(now));
            Some(WaitingRecord { due, after })
        }
        rest => rest.map(|(due, after)| WaitingRecord { due, after }),
    };
    if known == wanted {
        return Ok(());
    }
    let (was, is) = (known.map(|known| known.due), wanted.as_ref().map(|wanted| wanted.due));
    if was != is {
        if let Some(was) = was {
            let at = counter_at(&*tx, work, was)?;
            tx.delete(work.due_key(at));
        }
        if let Some(is) = is {
            let at = counter_at(&*tx, work, is)?;
            tx.put(work.due_key(at), Bytes::new());
        }
    }
    match wanted {
        Some(wanted) => save(tx, work.waiting_key(), &wanted),
        None => {
            tx.delete(work.waiting_key());
            Ok(())
        }
    }
}

/// The first key of a table behind the end of one that a sweep has kept.
pub(crate) fn first(kv: &dyn KvRead, prefix: &[u8], after: &[u8]) -> Outcome<Option<Bytes>> {
    let rows = kv.scan(&behind(prefix, after, 1))?;
    Ok(rows.into_iter().next().map(|(key, _)| key))
}

/// The rows of a table behind the end of a key that a sweep has kept.
pub(crate) fn behind(prefix: &[u8], after: &[u8], rows_max: usize) -> Scan {
    let scan = Scan::prefix(prefix, rows_max);
    if after.is_empty() {
        return scan;
    }
    scan.after(&[prefix, after].concat())
}

/// Work as a leader finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Due now, in order, with keys to go on behind.
    pub(crate) due: Vec<(Bytes, Work)>,
    /// When the first piece that is not due yet will be, if the group's time keeps up with the world's; `None` when nothing waits
    /// or not all that is due was read.
    pub(crate) next_in: Option<Duration>,
}

/// The group's counter at which the work of a key of the queue is due.
pub(crate) fn due_ms(key: &[u8]) -> u64 {
    keys::u64_at(key, collection::TABLE_PREFIX_BYTES)
}

/// For how long the first of the queue has been due, in milliseconds; zero when nothing is. Of what an earlier release left at zero
/// nobody knows when it came: it does not count before its next sweep.
pub(crate) fn oldest_ms(kv: &dyn KvRead) -> Outcome<u64> {
    let now_ms = age::counter_ms(kv)?;
    let mut scan = Scan::prefix(&Key::of_group(keys::DUE).done(), 1);
    scan.from = Bound::Included(Key::of_group(keys::DUE).u64(1).done());
    let first = kv.scan(&scan)?.into_iter().next();
    Ok(first.map_or(0, |(key, _)| now_ms.saturating_sub(due_ms(&key))))
}

/// At most `rows_max` pieces of work that are due, behind a key of an earlier answer.
pub(crate) fn queue(kv: &dyn KvRead, after: Option<&Bytes>, rows_max: usize) -> Outcome<Queue> {
    let mut scan = Scan::prefix(&Key::of_group(keys::DUE).done(), rows_max.saturating_add(1));
    if let Some(after) = after {
        scan = scan.after(after);
    }
    let now_ms = age::counter_ms(kv)?;
    let mut due = Vec::new();
    for (key, _) in kv.scan(&scan)? {
        let at_ms = due_ms(&key);
        if at_ms > now_ms {
            let next_in = Some(Duration::from_millis(at_ms - now_ms));
            return Ok(Queue { due, next_in });
        }
        if due.len() == rows_max {
            break;
        }
        let work = Work::from_key(&key)?;
        due.push((key, work));
    }
    Ok(Queue { due, next_in: None })
}

/// A group that is new has nothing to be filled in.
pub(crate) fn begin(tx: &mut Overlay<'_>) -> Outcome<()> {
    save(tx, idle_filled_key(), &FILLED)?;
    save(tx, filled_key(), &FILLED)
}

const FILLED: Filled = Filled {
    slot: SLOTS,
    sweep: 0,
    drive: 0,
};

fn filled_key() -> Bytes {
    Key::of_group(keys::DUE_FILLED).done()
}

/// How far idle blocks and dying stripes have their rows.
fn idle_filled_key() -> Bytes {
    Key::of_group(keys::COLLECTION_FILLED).done()
}

/// How far the dying stripes of the slot at which that stands, where one command could not take them all.
fn stripes_filled_key() -> Bytes {
    Key::of_group(keys::COLLECTION_FILLED).u8(1).done()
}

fn filled(kv: &dyn KvRead, key: &[u8]) -> Outcome<Filled> {
    let start = Filled {
        slot: 0,
        sweep: 0,
        drive: 0,
    };
    Ok(load(kv, key)?.unwrap_or(start))
}

/// Whether every piece of work has its row.
pub(crate) fn is_filled(kv: &dyn KvRead) -> Outcome<bool> {
    Ok(filled(kv, &filled_key())? == FILLED && filled(kv, &idle_filled_key())? == FILLED)
}

/// Has the rows of idle blocks made anew: with another grace they are due at another age.
pub(crate) fn fill_idle_again(tx: &mut Overlay<'_>) {
    tx.delete(idle_filled_key());
    tx.delete(stripes_filled_key());
}

/// Makes the rows of idle blocks and dying stripes that have none, of a bounded number of drives and stripes a command.
fn fill_idle(tx: &mut Overlay<'_>) -> Outcome<()> {
    let mut at = filled(&*tx, &idle_filled_key())?;
    if at == FILLED {
        return Ok(());
    }
    let begun = at.slot;
    let mut left = COMMAND_OPERATIONS_MAX;
    for slot in age::owned_slots(&*tx)?
        .into_iter()
        .filter(|slot| slot.number() >= begun)
    {
        if slot.number() > at.slot {
            at = Filled {
                slot: slot.number(),
                sweep: 0,
                drive: 0,
            };
        }
        loop {
            if left == 0 {
                return save(tx, idle_filled_key(), &at);
            }
            let (made, next) = fill_next(tx, slot, (Sweep::Blocks, keys::IDLE_BLOCK), at.drive, left)?;
            left -= made;
            match next {
                Some(drive) => at.drive = drive,
                None => break,
            }
        }
        match queue_dying(tx, slot, left)? {
            Some(rest) => left = rest,
            None => return save(tx, idle_filled_key(), &at),
        }
    }
    tx.delete(stripes_filled_key());
    save(tx, idle_filled_key(), &FILLED)
}

/// Queues at most `stripes_max` dying stripes of a slot, behind those that earlier commands queued. Answers how many more it might
/// have queued, or nothing when some are left.
fn queue_dying(tx: &mut Overlay<'_>, slot: Slot, stripes_max: usize) -> Outcome<Option<usize>> {
    let known: Option<FilledTo> = load(&*tx, &stripes_filled_key())?;
    let known = known.filter(|known| known.slot == slot.number());
    let mut after = known.map(|known| known.after).unwrap_or_default();
    let prefix = Key::of_slot(slot, keys::STRIPE_DYING).done();
    let rows = tx.scan(&behind(&prefix, &after, stripes_max.saturating_add(1)))?;
    for (key, _) in rows.iter().take(stripes_max) {
        let name = stripe::name_at_end(key).ok_or_else(|| broken("a dying stripe has no name"))?;
        collection::queue(tx, name.0, name.1)?;
        after = key.slice(prefix.len()..);
    }
    if let Some(rest) = stripes_max.checked_sub(rows.len()) {
        return Ok(Some(rest));
    }
    let slot = slot.number();
    save(tx, stripes_filled_key(), &FilledTo { slot, after })?;
    Ok(None)
}

/// Makes rows for what an earlier release left, a bounded part of it; nothing once all have theirs.
pub(crate) fn fill(tx: &mut Overlay<'_>) -> Outcome<()> {
    fill_idle(tx)?;
    let mut at = filled(&*tx, &filled_key())?;
    if at == FILLED {
        return Ok(());
    }
    let begun = at.slot;
    let slots = age::owned_slots(&*tx)?;
    let mut slots = slots.into_iter().filter(|slot| slot.number() >= begun).peekable();
    let mut left = COMMAND_OPERATIONS_MAX;
    while left > 0 {
        let Some(slot) = slots.peek().copied() else {
            at = FILLED;
            break;
        };
        if slot.number() > at.slot {
            at = Filled {
                slot: slot.number(),
                sweep: 0,
                drive: 0,
            };
        }
        let Some((sweep, table)) = SWEEPS.get(usize::from(at.sweep)).copied() else {
            at.slot += 1;
            at.sweep = 0;
            slots.next();
            left -= 1;
            continue;
        };
        let (made, next) = fill_next(tx, slot, (sweep, table), at.drive, left)?;
        left -= made;
        at = match next {
            Some(drive) => Filled { drive, ..at },
            None => Filled {
                sweep: at.sweep + 1,
                drive: 0,
                ..at
            },
        };
    }
    save(tx, filled_key(), &at)
}

/// Makes at most `rows_max` rows, which is not zero, of the first drive at or behind `drive` that has rows in `table`. Answers how many
/// they were, a look that made none counted as one, and the drive to go on with, which is the same one while it lacks more.
fn fill_next(
    tx: &mut Overlay<'_>,
    slot: Slot,
    what: (Sweep, u8),
    drive: u64,
    rows_max: usize,
) -> Outcome<(usize, Option<u64>)> {
    let (sweep, table) = what;
    let prefix = Key::of_slot(slot, table).done();
    if sweep == Sweep::Requests {
        if let Some(key) = first(&*tx, &prefix, &[])? {
            note(tx, Work::requests(slot), requests_due(&key))?;
        }
        return Ok((1, None));
    }
    let mut scan = Scan::prefix(&prefix, 1);
    scan.from = Bound::Included(Key::of_slot(slot, table).u64(drive).done());
    let Some((key, _)) = tx.scan(&scan)?.into_iter().next() else {
        return Ok((1, None));
    };
    let drive = DriveId(keys::u64_at(&key, 3));
    if sweep != Sweep::Job {
        let due = due_in(&*tx, drive, sweep, &key)?;
        note(tx, Work::of(drive, sweep), due)?;
        return Ok((1, drive.0.checked_add(1)));
    }
    let (made, is_done) = fill_jobs(tx, drive, rows_max)?;
    let next = if is_done { drive.0.checked_add(1) } else { Some(drive.0) };
    Ok((made.max(1), next))
}

/// Makes the rows of at most `rows_max` jobs of a drive that have none. Answers how many, and whether every job has its row now.
///
/// Each command looks past the jobs that have theirs again: a place among them would be stored for what hardly any drive has.
fn fill_jobs(tx: &mut Overlay<'_>, drive: DriveId, rows_max: usize) -> Outcome<(usize, bool)> {
    let prefix = Key::of_drive(drive, keys::JOB).done();
    let (mut made, mut after) = (0, Bytes::new());
    loop {
        let jobs = tx.scan(&behind(&prefix, &after, COMMAND_OPERATIONS_MAX))?;
        for (key, _) in &jobs {
            let work = Work::job(drive, keys::last_u64(key));
            if get(&*tx, work)?.is_some() {
                continue;
            }
            if made == rows_max {
                return Ok((made, false));
            }
            note(tx, work, AT_ONCE)?;
            made += 1;
        }
        match jobs.last() {
            Some((key, _)) if jobs.len() == COMMAND_OPERATIONS_MAX => after = key.slice(prefix.len()..),
            _ => return Ok((made, true)),
        }
    }
}

/// When a row of a sweep's table is due in this drive, which may have rules of its own.
pub(crate) fn due_in(kv: &dyn KvRead, drive: DriveId, sweep: Sweep, key: &[u8]) -> Outcome<Age> {
    match sweep {
        Sweep::Versions => Ok(retention::due(&retention::of(kv, drive)?, key)),
        Sweep::Blocks => collection::block_due(kv, due_of(sweep, key)),
        _ => Ok(due_of(sweep, key)),
    }
}

/// When a row of a sweep's table is due; of an old version, when it would be if none were kept, of an idle block the age at which its
/// grace began.
pub(crate) fn due_of(sweep: Sweep, key: &[u8]) -> Age {
    let age = Age(keys::u64_at(key, keys::DRIVE_PREFIX_BYTES));
    match sweep {
        Sweep::Job | Sweep::Pages | Sweep::Dropped => AT_ONCE,
        Sweep::Trash => age.after(TRASH_AGE),
        Sweep::Sessions | Sweep::Versions | Sweep::Rewinds | Sweep::Blocks => age,
        Sweep::Requests => requests_due(key),
        Sweep::Feed => age.after(HOUR).after(FEED_AGE),
    }
}

/// When a row of `REQUEST_END` is due: the hour of its end has begun.
fn requests_due(key: &[u8]) -> Age {
    let hour = key.get(3..).and_then(|rest| rest.first_chunk::<4>());
    hours(hour.map_or(u32::MAX, |bytes| u32::from_be_bytes(*bytes)))
}

/// The age at which an aged hour begins.
pub(crate) fn hours(hour: u32) -> Age {
    Age(u64::from(hour).saturating_mul(HOUR_MS))
}

/// The rows of a slot, for `check`.
pub(crate) fn of_slot(kv: &dyn KvRead, slot: Slot) -> Outcome<Vec<(Work, WaitingRecord)>> {
    let rows = crate::state::store::list(kv, &Key::of_slot(slot, keys::WAITING).done(), None, usize::MAX)?;
    rows.into_iter()
        .map(|(key, record)| Ok((Work::from_key(&key)?, record)))
        .collect()
}

/// The key under which a row must stand in the queue, for `check`.
pub(crate) fn queued_at(kv: &dyn KvRead, work: Work, due: Age) -> Outcome<Bytes> {
    Ok(work.due_key(counter_at(kv, work, due)?))
}
