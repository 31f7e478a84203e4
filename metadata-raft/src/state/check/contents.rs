//! The contents' part of the check: a full mark from versions and sessions down to pages, blocks and stripes, against what is counted.

use super::copies;
use super::{Complaints, expect, first_u64, rows, table};
use crate::state::block::{BlockRecord, BlockStanding, StoredPlace};
use crate::state::collection;
use crate::state::content_counts::{self, ContentCounts};
use crate::state::drive::DriveRecord;
use crate::state::entry::{Standing, Walk};
use crate::state::job::{JobKind, JobRecord};
use crate::state::keys::{self, Key};
use crate::state::page::StoredRow;
use crate::state::repacking;
use crate::state::resumable::ResumableRecord;
use crate::state::session::SessionRecord;
use crate::state::store::{Outcome, list, load};
use crate::state::stripe;
use crate::state::stripe_counts;
use crate::state::usage;
use crate::state::version::{PageRef, VersionRecord};
use crate::state::waiting;
use bytes::Bytes;
use kv::seam::{KvRead, Scan};
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::{BlockId, DriveId, Slot};
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::metadata::query::StripeCounts;
use std::collections::{BTreeMap, BTreeSet};

/// Living bytes of stripes as marked from blocks and tails.
pub(super) type Living = BTreeMap<(ProfileId, StripeId), u64>;

/// What must stand in the queues of a group by what its slots' stripes are.
#[derive(Default)]
pub(super) struct QueuedStripes {
    removable: BTreeSet<Bytes>,
    repackable: BTreeSet<Bytes>,
}

fn digest_of(key: &[u8]) -> Digest {
    Digest(key.last_chunk::<32>().copied().unwrap_or_default())
}

/// Checks one drive's contents and adds what it keeps alive to `living`; answers what it adds to the counters of its slot.
pub(super) fn check(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    complaints: &mut Complaints,
    living: &mut Living,
) -> Outcome<ContentCounts> {
    let id = drive.drive;
    let mut held: BTreeMap<Digest, u64> = BTreeMap::new();
    mark_versions(kv, id, complaints, &mut held)?;
    let mut references: BTreeMap<BlockId, u64> = BTreeMap::new();
    let tails = mark_sessions(kv, id, complaints, (&mut held, &mut references), living)?;
    let logical_bytes = mark_pages(kv, id, complaints, &held, &mut references)?;
    check_blocks(kv, drive, complaints, &references, (living, tails))?;
    let counted = ContentCounts::of_drive(&usage::get(kv, id)?);
    Ok(counted.plus(ContentCounts::of_page(logical_bytes)))
}

/// Whether an entry is being purged: what a copy's job hides is whole.
fn is_going(walk: &Walk, copies: &BTreeSet<u64>) -> bool {
    let mut standings = walk.upwards().iter().map(|record| record.standing);
    let first = standings.find(|standing| *standing != Standing::Attached);
    matches!(first, Some(Standing::Detached { job }) if !copies.contains(&job))
}

fn mark_versions(
    kv: &dyn KvRead,
    id: DriveId,
    complaints: &mut Complaints,
    held: &mut BTreeMap<Digest, u64>,
) -> Outcome<()> {
    let mut current = BTreeSet::new();
    let copies = copies::jobs(kv, id)?;
    for (key, version) in table::<VersionRecord>(kv, id, keys::VERSION)? {
        let entry = first_u64(&key);
        let is_named = keys::last_u64(&key) == version.number;
        expect(complaints, is_named, || {
            format!("a version of entry {entry} lies under another number")
        });
        for page in &version.pages {
            *held.entry(page.digest).or_default() += 1;
        }
        let Some(walk) = Walk::new(kv, id, entry)? else {
            complaints.push(format!("version {} of entry {entry} is an orphan", version.number));
            continue;
        };
        if is_going(&walk, &copies) {
            continue;
        }
        let shown = &walk.record().shown;
        let bytes: u64 = version.pages.iter().map(|page| page.bytes).sum();
        expect(complaints, bytes == version.size, || {
            format!("entry {entry} has pages of another size")
        });
        expect(complaints, version.number <= shown.version, || {
            format!("entry {entry} has a version from ahead")
        });
        if version.number == shown.version {
            current.insert(entry);
            let is_same = shown.size == version.size && shown.digest == Some(version.digest);
            expect(complaints, is_same, || {
                format!("entry {entry} shows another content than its version")
            });
        }
    }
    for (_, dropped) in table::<VersionRecord>(kv, id, keys::DROPPED_VERSION)? {
        for page in &dropped.pages {
            *held.entry(page.digest).or_default() += 1;
        }
    }
    for record in crate::state::query::all_entries(kv, id)? {
        let number = record.shown.number;
        let is_gone = Walk::new(kv, id, number)?.is_some_and(|walk| is_going(&walk, &copies));
        let is_whole = record.is_folder() || is_gone || current.contains(&number);
        expect(complaints, is_whole, || format!("file {number} has no current version"));
    }
    Ok(())
}

/// Sessions of a drive are counted, where one was opened since a release that did not count.
fn check_count(kv: &dyn KvRead, id: DriveId, complaints: &mut Complaints, sessions: usize) -> Outcome<()> {
    let open: Option<u64> = load(kv, &keys::sessions_open(id))?;
    expect(complaints, open.is_none_or(|open| open == sessions as u64), || {
        format!("drive {id} has {sessions} open sessions, not {open:?}")
    });
    Ok(())
}

/// Lists that were announced for sessions: each of a session, without holes, and counted.
fn check_lists(
    kv: &dyn KvRead,
    id: DriveId,
    complaints: &mut Complaints,
    sessions: &BTreeMap<u64, (u64, u64)>,
) -> Outcome<()> {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for (key, rows) in table::<Vec<BlockRow>>(kv, id, keys::SESSION_LIST)? {
        let next = next.entry(first_u64(&key)).or_default();
        let is_owned = sessions.contains_key(&first_u64(&key)) && keys::last_u64(&key) == *next;
        expect(complaints, is_owned, || {
            format!("a list of session {} is an orphan or has a hole", first_u64(&key))
        });
        *next += rows.len() as u64;
    }
    let mut counted = 0;
    for (key, rows) in table::<u64>(kv, id, keys::SESSION_LISTED)? {
        counted += rows;
        let is_whole = next.get(&keys::last_u64(&key)) == Some(&rows);
        expect(complaints, is_whole, || {
            format!("the list of session {} has not {rows} rows", keys::last_u64(&key))
        });
    }
    let listed: u64 = load(kv, &keys::listed(id))?.unwrap_or_default();
    expect(complaints, listed == counted, || {
        format!("the lists of drive {id} have {counted} rows, not {listed}")
    });
    Ok(())
}

/// What sessions have taken of the quota: of each that is there, and no row where it is nothing.
fn check_taken(
    kv: &dyn KvRead,
    id: DriveId,
    complaints: &mut Complaints,
    sessions: &BTreeMap<u64, (u64, u64)>,
) -> Outcome<()> {
    for (key, taken) in table::<u64>(kv, id, keys::SESSION_TAKEN)? {
        let number = keys::last_u64(&key);
        expect(complaints, taken > 0 && sessions.contains_key(&number), || {
            format!("session {number} took {taken} bytes and is not there, or took none")
        });
    }
    Ok(())
}

/// Marks what sessions hold; answers the plain bytes of their tails.
fn mark_sessions(
    kv: &dyn KvRead,
    id: DriveId,
    complaints: &mut Complaints,
    marks: (&mut BTreeMap<Digest, u64>, &mut BTreeMap<BlockId, u64>),
    living: &mut Living,
) -> Outcome<u64> {
    let (held, references) = marks;
    let mut tails = 0;
    let mut sessions = BTreeMap::new();
    let mut ends = BTreeSet::new();
    for (key, session) in table::<SessionRecord>(kv, id, keys::SESSION)? {
        let number = keys::last_u64(&key);
        ends.insert(keys::session_end(id, session.ends_at.0, number));
        if let Some((profile, tail)) = &session.tail {
            tails += u64::from(tail.plain_bytes);
            *living.entry((*profile, tail.stripe)).or_default() += u64::from(tail.sealed_bytes);
        }
        sessions.insert(number, (session.rows, session.row_bytes));
    }
    for (key, kept) in table::<ResumableRecord>(kv, id, keys::SESSION_RESUMABLE)? {
        let number = keys::last_u64(&key);
        expect(
            complaints,
            kept.committed.is_some() != sessions.contains_key(&number),
            || format!("session {number} is open and committed, or neither"),
        );
        ends.extend(kept.committed.map(|kept| keys::session_end(id, kept.ends_at.0, number)));
    }
    let found: BTreeSet<Bytes> = rows(kv, id, keys::SESSION_END)?.into_iter().collect();
    expect(complaints, found == ends, || {
        format!("sessions of drive {id} end otherwise")
    });
    let jobs = table::<JobRecord>(kv, id, keys::JOB)?;
    let is_job = |number: u64| {
        jobs.iter()
            .any(|(_, job)| matches!(job.kind, JobKind::Pages { upload } if upload == number))
    };
    let mut sums: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (key, page) in table::<PageRef>(kv, id, keys::SESSION_PAGE)? {
        let number = first_u64(&key);
        *held.entry(page.digest).or_default() += 1;
        let sum = sums.entry(number).or_default();
        *sum = (sum.0 + u64::from(page.blocks), sum.1 + page.bytes);
        let is_owned = sessions.contains_key(&number) || is_job(number);
        expect(complaints, is_owned, || {
            format!("a page of session {number} is an orphan")
        });
    }
    for (key, (block, size)) in table::<StoredRow>(kv, id, keys::SESSION_ROW)? {
        let number = first_u64(&key);
        *references.entry(block).or_default() += 1;
        let sum = sums.entry(number).or_default();
        *sum = (sum.0 + 1, sum.1 + u64::from(size));
        expect(complaints, sessions.contains_key(&number), || {
            format!("a row of session {number} is an orphan")
        });
    }
    check_count(kv, id, complaints, sessions.len())?;
    check_lists(kv, id, complaints, &sessions)?;
    check_taken(kv, id, complaints, &sessions)?;
    for (number, counted) in sessions {
        let sum = sums.get(&number).copied().unwrap_or_default();
        expect(complaints, sum == counted, || {
            format!("session {number} has {sum:?} rows and bytes, not {counted:?}")
        });
    }
    Ok(tails)
}

/// Marks what pages hold; answers their plain bytes, each page as often as it is held.
fn mark_pages(
    kv: &dyn KvRead,
    id: DriveId,
    complaints: &mut Complaints,
    held: &BTreeMap<Digest, u64>,
    references: &mut BTreeMap<BlockId, u64>,
) -> Outcome<u64> {
    let pages: BTreeMap<Digest, u64> = table::<u64>(kv, id, keys::PAGE)?
        .into_iter()
        .map(|(key, count)| (digest_of(&key), count))
        .collect();
    for digest in held.keys() {
        expect(complaints, pages.contains_key(digest), || {
            format!("page {digest:?} is named and not there")
        });
    }
    let queued: BTreeSet<Digest> = rows(kv, id, keys::PAGE_RELEASE)?
        .iter()
        .map(|key| digest_of(key))
        .collect();
    for (digest, count) in &pages {
        let marked = held.get(digest).copied().unwrap_or_default();
        expect(complaints, marked == *count, || {
            format!("page {digest:?} is held {marked} times, not {count}")
        });
        let is_queued = queued.contains(digest) == (*count == 0);
        expect(complaints, is_queued, || {
            format!("page {digest:?} is wrongly queued for release")
        });
    }
    let all_rows = table::<Vec<StoredRow>>(kv, id, keys::PAGE_ROWS)?;
    let is_paired = all_rows.iter().map(|(key, _)| digest_of(key)).eq(pages.keys().copied());
    expect(complaints, is_paired, || {
        format!("pages and rows of drive {id} do not pair")
    });
    let mut logical_bytes = 0;
    for (key, rows) in all_rows {
        let times = pages.get(&digest_of(&key)).copied().unwrap_or_default();
        for (block, size) in rows {
            logical_bytes += u64::from(size) * times;
            *references.entry(block).or_default() += 1;
        }
    }
    Ok(logical_bytes)
}

fn check_blocks(
    kv: &dyn KvRead,
    drive: &DriveRecord,
    complaints: &mut Complaints,
    references: &BTreeMap<BlockId, u64>,
    (living, tails): (&mut Living, u64),
) -> Outcome<()> {
    let id = drive.drive;
    let (mut charged, mut released) = (tails, 0);
    let mut idle = BTreeSet::new();
    let mut inline = BTreeSet::new();
    let blocks: BTreeMap<BlockId, BlockRecord> = table::<BlockRecord>(kv, id, keys::BLOCK)?
        .into_iter()
        .map(|(key, record)| (BlockId(keys::last_u64(&key)), record))
        .collect();
    for (block, record) in &blocks {
        let marked = references.get(block).copied().unwrap_or_default();
        let counted = record.references;
        expect(complaints, marked == counted, || {
            format!("block {block} has {marked} references, not {counted}")
        });
        let is_live = record.standing == BlockStanding::Live;
        expect(complaints, is_live == (counted > 0), || {
            format!("block {block} stands wrongly")
        });
        expect(complaints, *block < drive.next_block, || {
            format!("block {block} has a number from ahead")
        });
        if counted == 0 {
            idle.insert(keys::idle_block(id, record.since.0, *block));
        }
        let bytes = u64::from(record.row.size);
        if record.standing == BlockStanding::Released {
            released += bytes
        } else {
            charged += bytes
        }
        if record.place == StoredPlace::Inline {
            inline.insert(keys::inline(id, *block));
        }
        check_place(kv, id, *block, record, living, complaints)?;
    }
    for block in references.keys() {
        expect(complaints, blocks.contains_key(block), || {
            format!("block {block} is named and not there")
        });
    }
    let digests = rows(kv, id, keys::BLOCK_DIGEST)?.len();
    expect(complaints, digests == blocks.len(), || {
        format!("drive {id} finds {digests} blocks of {}", blocks.len())
    });
    let found: BTreeSet<Bytes> = rows(kv, id, keys::IDLE_BLOCK)?.into_iter().collect();
    expect(complaints, found == idle, || {
        format!("idle blocks of drive {id} are others")
    });
    let found: BTreeSet<Bytes> = rows(kv, id, keys::INLINE)?.into_iter().collect();
    expect(complaints, found == inline, || {
        format!("inline bytes of drive {id} are others")
    });
    let usage = usage::get(kv, id)?;
    let is_counted = (usage.charged_bytes, usage.released_bytes) == (charged, released);
    expect(complaints, is_counted, || {
        format!("drive {id} holds {charged} and {released} bytes, not {usage:?}")
    });
    Ok(())
}

/// Checks that a block is found by its digest and, in a stripe, by its offset; adds its bytes to the stripe's living ones.
fn check_place(
    kv: &dyn KvRead,
    id: DriveId,
    block: BlockId,
    record: &BlockRecord,
    living: &mut Living,
    complaints: &mut Complaints,
) -> Outcome<()> {
    match record.place {
        StoredPlace::Inline => {}
        StoredPlace::Stripe {
            profile,
            stripe,
            offset,
            sealed_bytes,
        } => {
            *living.entry((profile, stripe)).or_default() += u64::from(sealed_bytes);
            let named: Option<(DriveId, BlockId)> = load(kv, &keys::stripe_block(stripe, offset))?;
            let is_named = named == Some((id, block));
            expect(complaints, is_named, || {
                format!("block {block} is not in its stripe's table")
            });
        }
    }
    let indexed: Option<BlockId> = load(kv, &keys::by_digest(id, keys::BLOCK_DIGEST, record.row.digest))?;
    expect(complaints, indexed == Some(block), || {
        format!("block {block} is not found by its digest")
    });
    Ok(())
}

/// Checks the stripes of a slot against what its drives keep alive; `contents` is what the drives add to the slot's counters.
pub(super) fn check_stripes(
    kv: &dyn KvRead,
    slot: Slot,
    (living, mut contents): (&Living, ContentCounts),
    queued: &mut QueuedStripes,
    complaints: &mut Complaints,
) -> Outcome<()> {
    let mut degraded = BTreeSet::new();
    let mut dying = BTreeSet::new();
    let stripes = stripe::all(kv, slot)?;
    let known: BTreeSet<(ProfileId, StripeId)> = stripes.iter().map(|(profile, id, _)| (*profile, *id)).collect();
    for name in living.keys() {
        expect(complaints, known.contains(name), || {
            format!("stripe {} is named and not there", name.1)
        });
    }
    let mut counts = StripeCounts::default();
    for (profile, id, record) in stripes {
        counts = counts.plus(&stripe_counts::of_stripe(&record));
        contents = contents.plus(ContentCounts::of_stripe(&record));
        let marked = living.get(&(profile, id)).copied().unwrap_or_default();
        let counted = u64::from(record.living_bytes);
        expect(complaints, marked == counted, || {
            format!("stripe {id} has {marked} living bytes, not {counted}")
        });
        if !record.astray.is_empty() {
            degraded.insert(keys::stripe_degraded(record.to_spare(), profile, id));
        }
        if counted == 0 {
            dying.insert(keys::stripe_dying(profile, id));
            let key = keys::removable(collection::closes_at(kv, id)?, profile, id);
            queued.removable.insert(key);
        }
        if repacking::is_sparse(kv, id, &record)? {
            let key = keys::repackable(collection::closes_at(kv, id)?, profile, id);
            queued.repackable.insert(key);
        }
        let blocks = list::<(DriveId, BlockId)>(kv, &keys::stripe_blocks(id).done(), None, usize::MAX)?;
        for (key, (drive, block)) in blocks {
            let place = load::<BlockRecord>(kv, &keys::block(drive, block))?.map(|record| record.place);
            let is_there = matches!(place, Some(StoredPlace::Stripe { stripe, offset, .. })
                if keys::stripe_block(stripe, offset) == key);
            expect(complaints, is_there, || {
                format!("stripe {id} names block {block}, which lies elsewhere")
            });
        }
    }
    let counted = stripe_counts::of_slot(kv, slot)?;
    expect(complaints, counted == counts, || {
        format!("slot {} has stripes as {counts:?}, not {counted:?}", slot.number())
    });
    let counted = content_counts::of_slot(kv, slot)?;
    expect(complaints, counted == contents, || {
        format!("slot {} has contents of {contents:?}, not {counted:?}", slot.number())
    });
    for (table, wanted) in [(keys::STRIPE_DEGRADED, degraded), (keys::STRIPE_DYING, dying)] {
        let rows = kv.scan(&Scan::prefix(&Key::of_slot(slot, table).done(), usize::MAX))?;
        let found: BTreeSet<Bytes> = rows.into_iter().map(|(key, _)| key).collect();
        expect(complaints, found == wanted, || {
            format!("queue {table:#x} of slot {} lists others", slot.number())
        });
    }
    Ok(())
}

/// Checks that the group's queues of stripes are what its slots' stripes say.
pub(super) fn check_queued(kv: &dyn KvRead, wanted: &QueuedStripes, complaints: &mut Complaints) -> Outcome<()> {
    let queues = [
        (keys::REMOVABLE, &wanted.removable, waiting::is_filled(kv)?, "removed"),
        (
            keys::REPACKABLE,
            &wanted.repackable,
            repacking::is_filled(kv)?,
            "repacked",
        ),
    ];
    for (table, wanted, is_filled, what) in queues {
        let rows = kv.scan(&Scan::prefix(&Key::of_group(table).done(), usize::MAX))?;
        let found: BTreeSet<Bytes> = rows.into_iter().map(|(key, _)| key).collect();
        expect(complaints, found == *wanted || !is_filled, || {
            format!("the queue of stripes to be {what} lists others than it should")
        });
    }
    Ok(())
}
