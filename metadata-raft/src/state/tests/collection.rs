//! The death of blocks, the removal of stripes, the lease, and what disks must still be told.

use super::{Bench, PROFILE, code, row};
use crate::state::collection;
use crate::state::keys::{self, Key};
use crate::state::stripe;
use crate::state::waiting::{self, AT_ONCE, Sweep, Work};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{Change, Kv, KvRead, Scan};
use model::entry::BlockRow;
use model::id::{DiskId, Slot};
use model::profile::ProfileId;
use model::stripe::StripeId;
use model::time::{Age, BirthEpoch};
use protocol::metadata::drive::{DriveCommand, Swept};
use protocol::metadata::group::{AdoptedSlot, ForgottenStripe, GroupCommand, GroupSettings};
use protocol::metadata::query::{COLLECTION_STRIPES_MAX, Collection, DriveAsk, StripeCounts};
use protocol::metadata::upload::{InlineBlock, UploadCommand};
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeSet;

pub(super) const GRACE_MS: u64 = 60_000;
/// A stripe born now is closed after so long.
pub(super) const CLOSED_MS: u64 = (BirthEpoch::OPEN_EPOCHS as u64 + 1) * super::EPOCH_MS;

pub(super) fn sweep_blocks(bench: &mut Bench) -> Swept {
    let drive = bench.drive;
    bench
        .sweep(Command::Drive(DriveCommand::SweepBlocks { drive }))
        .unwrap()
}

pub(super) fn collection(bench: &Bench) -> Collection {
    match bench.query(&Query::Collection(None)).unwrap() {
        QueryAnswer::Collection(collection) => collection,
        other => panic!("{other:?}"),
    }
}

pub(super) fn take_lease(bench: &mut Bench, holder: u64, lease: u64) -> Result<(), Failure> {
    let span_ms = 30_000;
    let take = GroupCommand::TakeLease { holder, lease, span_ms };
    bench.run(Command::Group(take)).map(drop)
}

pub(super) fn forget(bench: &mut Bench, lease: u64, stripes: &[(StripeId, Vec<DiskId>)]) -> Result<(), Failure> {
    let stripes = stripes.iter().map(|(stripe, untold)| ForgottenStripe {
        profile: PROFILE,
        stripe: *stripe,
        untold: untold.clone(),
    });
    let stripes = stripes.collect();
    bench
        .run(Command::Group(GroupCommand::ForgetStripes { lease, stripes }))
        .map(drop)
}

pub(super) fn forget_untold(bench: &mut Bench, lease: u64, disk: DiskId, stripes: Vec<(ProfileId, StripeId)>) {
    let forget = GroupCommand::ForgetUntold { lease, disk, stripes };
    bench.run(Command::Group(forget)).unwrap();
}

pub(super) fn orphans(bench: &Bench, stripes: &[StripeId]) -> Result<Vec<StripeId>, Failure> {
    let asked = stripes.iter().map(|stripe| (PROFILE, *stripe)).collect();
    match bench.query(&Query::Orphans(asked))? {
        QueryAnswer::Orphans(found) => Ok(found.into_iter().map(|(_, stripe)| stripe).collect()),
        other => panic!("{other:?}"),
    }
}

/// Which of these blocks the drive has.
pub(super) fn found(bench: &Bench, rows: &[BlockRow]) -> Vec<BlockRow> {
    let digests = rows.iter().map(|row| row.digest).collect();
    match bench.ask(DriveAsk::FindBlocks(digests)).unwrap() {
        QueryAnswer::Blocks(found) => found.found.into_iter().map(|block| block.row).collect(),
        other => panic!("{other:?}"),
    }
}

fn counts(bench: &Bench) -> StripeCounts {
    match bench.query(&Query::StripeCounts).unwrap() {
        QueryAnswer::StripeCounts(counts) => counts,
        other => panic!("{other:?}"),
    }
}

/// A file of these blocks in a stripe of their own, removed for good; its stripe.
fn put_and_purge(bench: &mut Bench, at: &str, rows: &[BlockRow]) -> StripeId {
    let content = bench.content(rows, rows);
    let stripe = content.stripes[0].id;
    let entry = bench.commit(at, None, content).unwrap().view.entry.id;
    bench.purge(entry).unwrap();
    bench.reap();
    stripe
}

/// Leaves a stripe that died later than its epoch was closed; its id.
pub(super) fn furnish_late(bench: &mut Bench) -> StripeId {
    let stripe = put_and_purge(bench, "/gone", &[row("gone", 10)]);
    bench.advance(GRACE_MS);
    sweep_blocks(bench);
    stripe
}

/// Leaves a lease and a disk that must be told of a removed stripe.
pub(super) fn furnish(bench: &mut Bench) {
    let stripe = furnish_late(bench);
    take_lease(bench, 1, 2).unwrap();
    forget(bench, 2, &[(stripe, vec![DiskId(7)])]).unwrap();
}

#[test]
fn a_block_dies_after_its_grace_and_comes_in_anew() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50)];
    let stripe = put_and_purge(&mut bench, "/f", &rows);
    let usage = bench.usage();
    assert_eq!((usage.charged_bytes, usage.released_bytes), (0, 150));
    bench.advance(GRACE_MS - 1);
    let none = Swept {
        operations: 0,
        is_done: true,
    };
    assert_eq!(sweep_blocks(&mut bench), none);
    assert_eq!(found(&bench, &rows), rows);
    bench.advance(1);
    let both = Swept { operations: 2, ..none };
    assert_eq!(sweep_blocks(&mut bench), both);
    bench.sound();
    assert_eq!(found(&bench, &rows), []);
    assert_eq!(bench.usage().released_bytes, 0);
    assert_eq!(counts(&bench).dying, 1);
    let without_bytes = bench.content(&rows, &[]);
    assert_eq!(code(bench.commit("/g", None, without_bytes)), "need_blocks");
    let again = bench.put("/g", None, &rows).unwrap();
    assert_ne!(collection(&bench).removable.first().map(|facts| facts.id), None);
    assert_eq!(collection(&bench).removable[0].id, stripe);
    assert_eq!(again.view.entry.size, 150);
    bench.advance(10 * GRACE_MS);
    assert_eq!(sweep_blocks(&mut bench), none);
    assert_eq!(found(&bench, &rows), rows);
    bench.sound();
}

#[test]
fn a_commit_within_the_grace_keeps_the_blocks_alive() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50)];
    put_and_purge(&mut bench, "/f", &rows);
    bench.advance(GRACE_MS - 1);
    // Only one of them is named again, by the name alone.
    let content = bench.content(&rows[..1], &[]);
    bench.commit("/g", None, content).unwrap();
    bench.advance(1);
    assert_eq!(sweep_blocks(&mut bench).operations, 1);
    bench.sound();
    assert_eq!(found(&bench, &rows), rows[..1]);
    assert_eq!(counts(&bench).dying, 0, "one of its blocks lives");
    assert_eq!(bench.usage().charged_bytes, 100);
    bench.advance(10 * GRACE_MS);
    assert_eq!(sweep_blocks(&mut bench).operations, 0);
    bench.sound();
}

#[test]
fn a_page_that_was_counted_up_again_is_passed_by() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50)];
    let f = bench.put("/f", None, &rows).unwrap().view.entry.id;
    bench.purge(f).unwrap();
    // The same content has the same page, which waits for the reaper.
    let content = bench.content(&rows, &[]);
    bench.commit("/g", None, content).unwrap();
    bench.reap();
    bench.advance(2 * GRACE_MS);
    assert_eq!(sweep_blocks(&mut bench).operations, 0);
    assert_eq!(found(&bench, &rows), rows);
    bench.sound();
}

#[test]
fn blocks_that_came_in_and_were_never_named_die_as_well_with_inline_ones() {
    let mut bench = Bench::new(1 << 30);
    let upload = super::sessions::open(&mut bench, "/f", None);
    let stripe = bench.stripe(&[row("single", 70)]);
    let stage = UploadCommand::StageStripes {
        upload,
        stripes: vec![stripe],
    };
    bench.run(Command::Upload(stage)).unwrap();
    let mut content = bench.content(&[row("tiny", 5)], &[]);
    content.inline = Some(InlineBlock {
        row: row("tiny", 5),
        sealed: Bytes::from_static(b"sealed"),
    });
    let tiny = bench.commit("/tiny", None, content).unwrap().view.entry.id;
    bench.purge(tiny).unwrap();
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 70);
    bench.advance(GRACE_MS);
    assert_eq!(sweep_blocks(&mut bench).operations, 2);
    bench.sound();
    let usage = bench.usage();
    assert_eq!((usage.charged_bytes, usage.released_bytes), (0, 0));
    let inline = Key::of_drive(bench.drive, keys::INLINE).done();
    assert_eq!(bench.kv.scan(&Scan::prefix(&inline, 1)).unwrap(), []);
}

#[test]
fn more_than_the_quota_does_not_wait_and_the_oldest_goes_first() {
    let mut bench = Bench::new(100);
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        put_and_purge(&mut bench, &format!("/{name}"), &[row(name, 60)]);
        bench.advance(1_000);
        let due = waiting::queue(&bench.kv, None, 10).unwrap().due;
        let is_due = due.iter().any(|(_, work)| work.sweep == Sweep::Blocks);
        assert_eq!(is_due, at == 1, "120 bytes wait where 100 may");
        sweep_blocks(&mut bench);
        bench.sound();
        if at == 1 {
            assert_eq!(found(&bench, &[row("a", 60), row("b", 60)]), [row("b", 60)]);
            put_and_purge(&mut bench, "/small", &[row("small", 10)]);
        }
        let waiting = bench.usage().released_bytes;
        assert!(waiting <= 100, "{waiting} bytes wait");
        if at == 1 {
            bench.advance(GRACE_MS);
            sweep_blocks(&mut bench);
        }
    }
}

#[test]
fn a_stripe_leaves_the_state_when_it_is_dead_and_its_epoch_is_closed() {
    let mut bench = Bench::new(1 << 30);
    let kept = bench.content(&[row("kept", 10)], &[row("kept", 10)]);
    let alive = kept.stripes[0].id;
    bench.commit("/kept", None, kept).unwrap();
    // Nothing of this one is new, so it is dead from the start.
    let content = bench.content(&[row("kept", 10)], &[row("kept", 10)]);
    let (dead, repeated) = (content.stripes[0].id, content.stripes[0].clone());
    bench.commit("/again", None, content).unwrap();
    bench.sound();
    assert_eq!(counts(&bench).dying, 1);
    bench.advance(CLOSED_MS - 2 * super::EPOCH_MS);
    assert_eq!(collection(&bench).removable, []);
    take_lease(&mut bench, 1, 5).unwrap();
    assert_eq!(code(forget(&mut bench, 5, &[(dead, vec![])])), "malformed_command");
    // A late repeat of the command that named it changes nothing while it is known.
    let mut content = bench.content(&[row("kept", 10)], &[]);
    content.stripes.push(repeated.clone());
    bench.commit("/late", None, content).unwrap();
    bench.advance(2 * super::EPOCH_MS);
    let removable = collection(&bench).removable;
    let ids: Vec<StripeId> = removable.iter().map(|facts| facts.id).collect();
    assert_eq!(ids, [dead]);
    assert_eq!(code(forget(&mut bench, 5, &[(alive, vec![])])), "malformed_command");
    let both = [(dead, vec![DiskId(3), DiskId(4)])];
    for _ in 0..2 {
        // A repeat finds nothing to do.
        forget(&mut bench, 5, &both).unwrap();
        bench.sound();
    }
    assert_eq!(counts(&bench).total, 1);
    assert_eq!(collection(&bench).removable, []);
    let name = (PROFILE, dead);
    assert_eq!(
        collection(&bench).untold,
        [(DiskId(3), vec![name]), (DiskId(4), vec![name])]
    );
    let QueryAnswer::Collection(behind) = bench.query(&Query::Collection(Some(DiskId(3)))).unwrap() else {
        panic!()
    };
    assert_eq!(behind.untold, [(DiskId(4), vec![name])]);
    forget_untold(&mut bench, 5, DiskId(3), vec![name]);
    assert_eq!(collection(&bench).untold, [(DiskId(4), vec![name])]);
    // Its id can never be named again.
    let mut content = bench.content(&[row("kept", 10)], &[]);
    content.stripes.push(repeated);
    assert_eq!(code(bench.commit("/later", None, content)), "birth_epoch_closed");
}

#[test]
fn only_what_can_never_be_named_is_an_orphan() {
    let mut bench = Bench::new(1 << 30);
    let known = bench.content(&[row("a", 10)], &[row("a", 10)]);
    let named = known.stripes[0].id;
    bench.commit("/a", None, known).unwrap();
    let unnamed = bench.stripe(&[row("b", 10)]).id;
    let ahead = StripeId::new(1 << 60, bench.drive.slot(), BirthEpoch(1_000));
    let all = [named, unnamed, ahead];
    bench.advance(CLOSED_MS - super::EPOCH_MS);
    assert_eq!(orphans(&bench, &all).unwrap(), []);
    bench.advance(super::EPOCH_MS);
    assert_eq!(orphans(&bench, &all).unwrap(), [unnamed]);
    let elsewhere = (0..).filter_map(Slot::new).find(|slot| *slot != bench.drive.slot());
    let foreign = StripeId::new(1, elsewhere.unwrap(), BirthEpoch(0));
    assert_eq!(code(orphans(&bench, &[unnamed, foreign])), "not_mine");
    // What was removed and not told to everybody is an orphan to whoever still has it.
    let gone = put_and_purge(&mut bench, "/gone", &[row("gone", 10)]);
    bench.advance(GRACE_MS);
    sweep_blocks(&mut bench);
    assert_eq!(orphans(&bench, &[gone]).unwrap(), []);
    take_lease(&mut bench, 1, 5).unwrap();
    forget(&mut bench, 5, &[(gone, vec![DiskId(1)])]).unwrap();
    assert_eq!(orphans(&bench, &[gone]).unwrap(), [gone]);
}

#[test]
fn one_gateway_at_a_time_removes_and_a_dead_ones_lease_ends_by_age() {
    let mut bench = Bench::new(1 << 30);
    assert_eq!(code(forget(&mut bench, 0, &[])), "lease_lost");
    take_lease(&mut bench, 1, 10).unwrap();
    assert_eq!(code(take_lease(&mut bench, 2, 20)), "lease_taken");
    bench.advance(29_999);
    assert_eq!(collection(&bench).lease.unwrap().left_ms, 1);
    take_lease(&mut bench, 1, 10).unwrap();
    bench.advance(29_999);
    assert_eq!(code(take_lease(&mut bench, 2, 20)), "lease_taken");
    bench.advance(1);
    let over = collection(&bench).lease.unwrap();
    assert_eq!((over.holder, over.left_ms), (1, 0));
    // Nobody took it meanwhile.
    forget(&mut bench, 10, &[]).unwrap();
    take_lease(&mut bench, 2, 20).unwrap();
    assert_eq!(code(forget(&mut bench, 10, &[])), "lease_lost");
    forget(&mut bench, 20, &[]).unwrap();
    // The same gateway after a new start does not wait for itself.
    take_lease(&mut bench, 2, 21).unwrap();
    assert_eq!(code(forget(&mut bench, 20, &[])), "lease_lost");
    let forever = GroupCommand::TakeLease {
        holder: 2,
        lease: 22,
        span_ms: u64::MAX,
    };
    assert_eq!(code(bench.run(Command::Group(forever))), "malformed_command");
}

#[test]
fn what_is_to_be_removed_comes_in_pieces_and_the_oldest_first() {
    let mut bench = Bench::new(1 << 30);
    let count = COLLECTION_STRIPES_MAX + 3;
    let mut born = Vec::new();
    for at in 0..count {
        born.push(put_and_purge(&mut bench, "/f", &[row(&format!("b{at}"), 10)]));
        bench.advance(super::EPOCH_MS);
    }
    bench.advance(GRACE_MS + CLOSED_MS);
    let mut swept = 0;
    loop {
        let step = sweep_blocks(&mut bench);
        swept += step.operations as usize;
        if step.is_done {
            break;
        }
    }
    assert_eq!(swept, count);
    take_lease(&mut bench, 1, 1).unwrap();
    let mut removed = Vec::new();
    while let found @ [_, ..] = collection(&bench).removable.as_slice() {
        let names: Vec<_> = found.iter().map(|facts| (facts.id, vec![])).collect();
        assert!(names.len() <= COLLECTION_STRIPES_MAX);
        forget(&mut bench, 1, &names).unwrap();
        removed.extend(names.into_iter().map(|(id, _)| id));
    }
    assert_eq!(removed, born);
    bench.sound();
}

#[test]
fn a_shorter_grace_holds_for_what_waits_already() {
    let mut bench = Bench::new(1 << 30);
    put_and_purge(&mut bench, "/f", &[row("a", 10)]);
    let settings = GroupSettings {
        birth_epoch_ms: super::EPOCH_MS,
        block_grace_ms: 5_000,
    };
    bench.group(GroupCommand::Configure(settings));
    bench.advance(5_000);
    bench.sound();
    let due = waiting::queue(&bench.kv, None, 10).unwrap().due;
    let due: Vec<Work> = due.into_iter().map(|(_, work)| work).collect();
    assert_eq!(due, [Work::of(bench.drive, Sweep::Blocks)]);
    assert_eq!(sweep_blocks(&mut bench).operations, 1);
    bench.sound();
}

#[test]
fn what_an_earlier_release_left_idle_or_dying_is_queued() {
    let mut bench = Bench::new(1 << 30);
    put_and_purge(&mut bench, "/f", &[row("a", 10)]);
    let content = bench.content(&[row("k", 10)], &[row("k", 10)]);
    bench.commit("/k", None, content).unwrap();
    let content = bench.content(&[row("k", 10)], &[row("k", 10)]);
    let dying = content.stripes[0].id;
    bench.commit("/l", None, content).unwrap();
    let is_new = |key: &[u8]| {
        let waits = [keys::WAITING, keys::DUE].contains(&key[2]) && key[key.len() - 9] == Sweep::Blocks as u8;
        waits || [keys::COLLECTION_FILLED, keys::REMOVABLE].contains(&key[2])
    };
    let rows = bench.everything().into_iter().filter(|(key, _)| is_new(key));
    let taken: Vec<_> = rows.map(|(key, _)| Change::Delete(key)).collect();
    assert_eq!(taken.len(), 4, "a row in each of the four tables");
    bench.kv.write(taken).unwrap();
    bench.sound();
    bench.advance(1);
    assert!(waiting::is_filled(&bench.kv).unwrap());
    bench.sound();
    bench.advance(CLOSED_MS);
    let removable = collection(&bench).removable;
    assert!(removable.iter().any(|facts| facts.id == dying));
    assert!(collection::oldest_waiting_ms(&bench.kv).unwrap() > 0);
}

fn oldest_ms(bench: &Bench) -> u64 {
    collection::oldest_waiting_ms(&bench.kv).unwrap()
}

#[test]
fn a_reaper_and_a_job_that_stand_still_are_told_of() {
    let mut bench = Bench::new(1 << 30);
    bench.advance(500);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    let f = bench.put("/f", None, &[row("x", 10)]).unwrap().view.entry.id;
    let g = bench.put("/g", None, &[row("y", 10)]).unwrap().view.entry.id;
    assert_eq!(oldest_ms(&bench), 0, "nothing is due");
    bench.purge(f).unwrap();
    bench.advance(5_000);
    assert_eq!(oldest_ms(&bench), 5_000, "pages wait for the reaper");
    // What comes later hides nothing, and is no older than it is.
    let job = bench.purge(a).unwrap().job.unwrap();
    bench.purge(g).unwrap();
    bench.advance(2_000);
    assert_eq!(oldest_ms(&bench), 7_000);
    bench.reap();
    assert_eq!(oldest_ms(&bench), 2_000, "the job");
    bench.finish_job(job);
    assert_eq!(oldest_ms(&bench), 0);
    bench.sound();
}

#[test]
fn what_an_earlier_release_left_at_zero_is_not_as_old_as_the_group() {
    let mut bench = Bench::new(1 << 30);
    bench.advance(500);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    let f = bench.put("/f", None, &[row("x", 10)]).unwrap().view.entry.id;
    let job = bench.purge(a).unwrap().job.unwrap();
    let mut tx = Overlay::new(&bench.kv);
    waiting::note(&mut tx, Work::job(bench.drive, job), AT_ONCE).unwrap();
    let batch = tx.into_batch();
    bench.kv.write(batch).unwrap();
    bench.advance(3_000);
    assert_eq!(oldest_ms(&bench), 0);
    bench.purge(f).unwrap();
    bench.advance(2_000);
    assert_eq!(oldest_ms(&bench), 2_000, "it hides nothing");
    bench.finish_job(job);
    bench.reap();
    assert_eq!(oldest_ms(&bench), 0);
    bench.sound();
}

#[test]
fn a_job_is_as_old_as_it_is_while_it_goes_on() {
    let mut bench = Bench::new(1 << 30);
    bench.advance(500);
    let a = bench.mkdir("/a").unwrap();
    for at in 0..100 {
        bench.mkdir(&format!("/a/{at}")).unwrap();
    }
    let job = bench.purge(a).unwrap().job.unwrap();
    bench.advance(3_000);
    let drive = bench.drive;
    let one = Command::Drive(DriveCommand::SweepJob { drive, job });
    assert!(!bench.sweep(one).unwrap().is_done);
    bench.sound();
    bench.advance(4_000);
    assert_eq!(oldest_ms(&bench), 7_000);
    bench.finish_job(job);
    assert_eq!(oldest_ms(&bench), 0);
    bench.sound();
}

#[test]
fn what_is_due_later_counts_from_then_and_not_from_when_it_was_noted() {
    let mut bench = Bench::new(1 << 30);
    put_and_purge(&mut bench, "/f", &[row("a", 10)]);
    bench.advance(GRACE_MS);
    assert_eq!(oldest_ms(&bench), 0);
    bench.advance(9_000);
    assert_eq!(oldest_ms(&bench), 9_000, "the block's grace is over so long");
    // Its stripe's epoch was closed long before, and it died now.
    sweep_blocks(&mut bench);
    assert_eq!(oldest_ms(&bench), 0);
    bench.advance(4_000);
    assert_eq!(oldest_ms(&bench), 4_000);
    // Entered anew, as by a shorter grace, it is no younger.
    bench.group(GroupCommand::Configure(settings(20_000)));
    bench.advance(1_000);
    assert_eq!(oldest_ms(&bench), 5_000);
    bench.sound();
}

#[test]
fn a_stripe_that_died_before_its_epoch_was_closed_waits_from_then() {
    let mut bench = Bench::new(1 << 30);
    bench.group(GroupCommand::Configure(settings(1_000)));
    put_and_purge(&mut bench, "/f", &[row("a", 10)]);
    bench.advance(1_000);
    sweep_blocks(&mut bench);
    bench.advance(CLOSED_MS - 1_000);
    assert_eq!((collection(&bench).removable.len(), oldest_ms(&bench)), (1, 0));
    bench.advance(6_000);
    assert_eq!(oldest_ms(&bench), 6_000);
    bench.sound();
}

/// More than two commands may queue, in each of two slots.
const DYING: u128 = 2_500;

/// A group after the first of the commands that queue the dying stripes of an earlier release.
pub(super) fn half_queued() -> Bench {
    let mut bench = Bench::new(1 << 30);
    let other = (0..)
        .map(|n| Slot::new(n).unwrap())
        .find(|slot| *slot != bench.drive.slot());
    let adopted = AdoptedSlot {
        slot: other.unwrap(),
        age: Age(0),
    };
    bench.group(GroupCommand::AdoptSlots { slots: vec![adopted] });
    for slot in [adopted.slot, bench.drive.slot()] {
        let names = (0..DYING).map(|n| StripeId::new(n, slot, BirthEpoch(0)));
        let rows = names.map(|id| Change::Put(keys::stripe_dying(ProfileId::Dev, id), Bytes::new()));
        bench.kv.write(rows.collect()).unwrap();
    }
    let filled = Key::of_group(keys::COLLECTION_FILLED).done();
    bench.kv.write(vec![Change::Delete(filled)]).unwrap();
    bench.advance(1);
    bench
}

#[test]
fn dying_stripes_of_an_earlier_release_are_queued_a_bounded_number_a_command() {
    let mut bench = half_queued();
    let queued = |bench: &Bench| {
        let rows = bench.everything().into_iter().map(|(key, _)| key);
        let queued: BTreeSet<_> = rows.filter(|key| key[2] == keys::REMOVABLE).collect();
        queued
    };
    let mut before = 0;
    loop {
        let now = queued(&bench).len();
        assert!((1..=1_000).contains(&(now - before)), "{before}, then {now}");
        before = now;
        if waiting::is_filled(&bench.kv).unwrap() {
            break;
        }
        bench.advance(1);
    }
    let dying = bench.everything().into_iter().map(|(key, _)| key);
    let dying = dying.filter(|key| key[2] == keys::STRIPE_DYING);
    let wanted: BTreeSet<_> = dying
        .map(|key| {
            let (profile, id) = stripe::name_at_end(&key).unwrap();
            keys::removable(collection::closes_at(&bench.kv, id).unwrap(), profile, id)
        })
        .collect();
    assert_eq!(wanted.len() as u128, 2 * DYING);
    assert_eq!(queued(&bench), wanted);
    // Asked for again in the middle, it begins anew and ends as well.
    bench.group(GroupCommand::Configure(settings(30_000)));
    bench.advance(1);
    bench.group(GroupCommand::Configure(settings(20_000)));
    while !waiting::is_filled(&bench.kv).unwrap() {
        bench.advance(1);
    }
    assert_eq!(queued(&bench), wanted);
}

fn settings(block_grace_ms: u64) -> GroupSettings {
    GroupSettings {
        birth_epoch_ms: super::EPOCH_MS,
        block_grace_ms,
    }
}
