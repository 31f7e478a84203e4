//! Stripes less than half alive: which are found, what a switch does with their blocks, and what it leaves alone.

use super::collection::{CLOSED_MS, GRACE_MS, collection, forget, sweep_blocks, take_lease};
use super::{Bench, EPOCH_MS, PROFILE, code, request_key, row};
use crate::state::keys;
use crate::state::repacking;
use kv::seam::{Change, Kv};
use model::entry::{BlockPlace, BlockRow};
use model::id::{BlockId, EntryId, RowVersion};
use model::profile::ProfileId;
use model::stripe::StripeId;
use protocol::metadata::group::{GroupCommand, GroupSettings};
use protocol::metadata::query::{DriveAsk, ManifestBlock};
use protocol::metadata::repacking::{OldPlace, REPACKED_BLOCKS_MAX, Repackable, Repacked, Repacking};
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer, RequestLife};
use protocol::wire_error::Failure;

const LEASE: u64 = 9;
/// What a seal adds in a bench.
const SEAL_BYTES: u32 = 30;

pub(super) fn repackable(bench: &Bench, after: Option<(ProfileId, StripeId)>) -> Repackable {
    match bench.query(&Query::Repackable(after)).unwrap() {
        QueryAnswer::Repackable(found) => found,
        other => panic!("{other:?}"),
    }
}

/// The blocks that live in what was found, and where each lies.
pub(super) fn living(found: &Repackable) -> (Vec<BlockRow>, Vec<OldPlace>) {
    let mut rows: Vec<BlockRow> = Vec::new();
    let mut from = Vec::new();
    for stripe in &found.stripes {
        for block in &stripe.blocks {
            assert_eq!(block.sealed_bytes, block.row.size + SEAL_BYTES);
            rows.push(block.row);
            from.push(OldPlace {
                block: block.id,
                profile: stripe.facts.profile,
                stripe: stripe.facts.id,
                offset: block.offset,
            });
        }
    }
    (rows, from)
}

/// A new stripe of what was found, as a gateway writes it.
pub(super) fn gather(bench: &mut Bench, lease: u64, found: &Repackable) -> Repacking {
    let (rows, from) = living(found);
    Repacking {
        drive: bench.drive,
        lease,
        stripe: bench.stripe(&rows),
        from,
    }
}

pub(super) fn switch(bench: &mut Bench, repacking: &Repacking) -> Result<Repacked, Failure> {
    let command = UploadCommand::RepackBlocks(repacking.clone());
    match bench.run(Command::Upload(command))? {
        CommandAnswer::Repacked(repacked) => Ok(repacked),
        other => panic!("{other:?}"),
    }
}

/// A file of the first of these blocks, and another of all of them in one stripe, which is removed for good. Answers the stripe and
/// the file that is left.
fn share_first(bench: &mut Bench, at: &str, rows: &[BlockRow]) -> (StripeId, EntryId) {
    let content = bench.content(rows, rows);
    let stripe = content.stripes[0].id;
    let whole = bench.commit(&format!("{at}-whole"), None, content).unwrap();
    let content = bench.content(&rows[..1], &[]);
    let kept = bench.commit(at, None, content).unwrap().view.entry.id;
    bench.purge(whole.view.entry.id).unwrap();
    bench.reap();
    (stripe, kept)
}

/// A stripe of three blocks of which the first alone, of 100 bytes, is still wanted, with the file that wants it. Its birth epoch is
/// closed.
pub(super) fn thin(bench: &mut Bench) -> (StripeId, EntryId) {
    let made = share_first(bench, "/kept", &[row("a", 100), row("b", 200), row("c", 300)]);
    bench.advance(GRACE_MS);
    while !sweep_blocks(bench).is_done {}
    made
}

fn names(bench: &Bench) -> Vec<StripeId> {
    let stripes = repackable(bench, None).stripes.into_iter();
    stripes.map(|stripe| stripe.facts.id).collect()
}

fn removable(bench: &Bench) -> Vec<StripeId> {
    let stripes = collection(bench).removable.into_iter();
    stripes.map(|facts| facts.id).collect()
}

fn manifest(bench: &Bench, entry: EntryId) -> Vec<ManifestBlock> {
    let asked = DriveAsk::ReadManifest {
        entry,
        version: None,
        range: None,
    };
    match bench.ask(asked).unwrap() {
        QueryAnswer::Manifest(manifest) => manifest.blocks,
        other => panic!("{other:?}"),
    }
}

/// The stripes of a file's blocks.
fn places(bench: &Bench, entry: EntryId) -> Vec<StripeId> {
    let blocks = manifest(bench, entry).into_iter();
    let stripes = blocks.map(|block| match block.block.place {
        BlockPlace::Stripe { stripe, .. } => stripe,
        BlockPlace::Inline(_) => panic!("a block lies inline"),
    });
    stripes.collect()
}

fn set_damaged(bench: &mut Bench, stripe: StripeId, is_damaged: bool) {
    let set = UploadCommand::SetStripe {
        drive: bench.drive,
        profile: PROFILE,
        stripe,
        row_version: RowVersion(1),
        astray: Vec::new(),
        is_damaged,
    };
    bench.run(Command::Upload(set)).unwrap();
}

#[test]
fn living_blocks_move_to_a_new_stripe_and_the_old_one_is_dead() {
    let mut bench = Bench::new(1 << 30);
    let (old, kept) = thin(&mut bench);
    bench.sound();
    take_lease(&mut bench, 1, LEASE).unwrap();
    let found = repackable(&bench, None);
    assert_eq!(found.lease.map(|lease| lease.lease), Some(LEASE));
    assert_eq!(names(&bench), [old]);
    assert_eq!(found.stripes[0].blocks.len(), 1);
    assert_eq!(found.stripes[0].blocks[0].row, row("a", 100));
    assert_eq!(places(&bench, kept), [old]);
    let usage = bench.usage();
    let repacking = gather(&mut bench, LEASE, &found);
    let moved = switch(&mut bench, &repacking).unwrap();
    assert_eq!(moved, Repacked { blocks: 1, bytes: 130 });
    bench.sound();
    assert_eq!(places(&bench, kept), [repacking.stripe.id]);
    assert_eq!(bench.usage(), usage, "what counts against the quota is where it was");
    assert_eq!((names(&bench), removable(&bench)), (vec![], vec![old]));
    forget(&mut bench, LEASE, &[(old, vec![])]).unwrap();
    bench.sound();
    assert_eq!(manifest(&bench, kept).len(), 1);
}

#[test]
fn a_repeated_switch_gets_the_first_answer_and_one_without_an_id_changes_nothing() {
    let mut bench = Bench::new(1 << 30);
    thin(&mut bench);
    take_lease(&mut bench, 1, LEASE).unwrap();
    let found = repackable(&bench, None);
    let repacking = gather(&mut bench, LEASE, &found);
    let key = request_key(RequestLife::Hour);
    let command = || Command::Upload(UploadCommand::RepackBlocks(repacking.clone()));
    let first = bench.apply(Some(key), command()).unwrap();
    assert_eq!(first, CommandAnswer::Repacked(Repacked { blocks: 1, bytes: 130 }));
    let after = bench.everything();
    assert_eq!(bench.apply(Some(key), command()).unwrap(), first);
    assert_eq!(bench.everything(), after);
    assert_eq!(switch(&mut bench, &repacking).unwrap(), Repacked::default());
    bench.sound();
}

#[test]
fn a_stripe_of_which_half_lives_stays() {
    let mut bench = Bench::new(1 << 30);
    share_first(&mut bench, "/half", &[row("a", 100), row("b", 100)]);
    share_first(&mut bench, "/less", &[row("c", 100), row("d", 101)]);
    bench.advance(GRACE_MS);
    while !sweep_blocks(&mut bench).is_done {}
    bench.sound();
    let found = repackable(&bench, None);
    let rows: Vec<BlockRow> = found.stripes.iter().map(|stripe| stripe.blocks[0].row).collect();
    assert_eq!(rows, [row("c", 100)]);
}

#[test]
fn nothing_is_repacked_before_its_birth_epoch_is_closed() {
    let mut bench = Bench::new(1 << 30);
    let block_grace_ms = 5_000;
    bench.group(GroupCommand::Configure(GroupSettings {
        birth_epoch_ms: EPOCH_MS,
        block_grace_ms,
    }));
    let (old, kept) = share_first(&mut bench, "/kept", &[row("a", 100), row("b", 200)]);
    let stripe = bench.stripe(&[row("a", 100)]);
    bench.advance(block_grace_ms);
    while !sweep_blocks(&mut bench).is_done {}
    bench.sound();
    take_lease(&mut bench, 1, LEASE).unwrap();
    assert_eq!(names(&bench), []);
    let block = manifest(&bench, kept)[0].block.id;
    let early = Repacking {
        drive: bench.drive,
        lease: LEASE,
        stripe,
        from: vec![OldPlace {
            block,
            profile: PROFILE,
            stripe: old,
            offset: 0,
        }],
    };
    assert_eq!(code(switch(&mut bench, &early)), "malformed_command");
    bench.advance(CLOSED_MS - block_grace_ms - 1);
    assert_eq!(names(&bench), []);
    assert_eq!(code(switch(&mut bench, &early)), "malformed_command");
    bench.advance(1);
    assert_eq!(names(&bench), [old]);
    assert_eq!(
        code(switch(&mut bench, &early)),
        "birth_epoch_closed",
        "what was written that long ago may have been removed as an orphan"
    );
    bench.sound();
}

#[test]
fn a_block_that_lies_elsewhere_by_now_stays_there() {
    let mut bench = Bench::new(1 << 30);
    let (old, kept) = thin(&mut bench);
    take_lease(&mut bench, 1, LEASE).unwrap();
    let found = repackable(&bench, None);
    let (first, second) = (gather(&mut bench, LEASE, &found), gather(&mut bench, LEASE, &found));
    assert_eq!(switch(&mut bench, &first).unwrap().blocks, 1);
    assert_eq!(switch(&mut bench, &second).unwrap(), Repacked::default());
    bench.sound();
    assert_eq!(places(&bench, kept), [first.stripe.id]);
    assert_eq!(removable(&bench), [old]);
    bench.advance(CLOSED_MS);
    let mut dead = removable(&bench);
    dead.sort();
    let mut wanted = vec![old, second.stripe.id];
    wanted.sort();
    assert_eq!(dead, wanted, "the second new stripe goes as every dead one");
}

#[test]
fn a_block_that_died_meanwhile_is_not_brought_back() {
    let mut bench = Bench::new(1 << 30);
    let (old, kept) = thin(&mut bench);
    take_lease(&mut bench, 1, LEASE).unwrap();
    bench.purge(kept).unwrap();
    bench.reap();
    bench.advance(GRACE_MS - EPOCH_MS);
    let found = repackable(&bench, None);
    let repacking = gather(&mut bench, LEASE, &found);
    bench.advance(EPOCH_MS);
    while !sweep_blocks(&mut bench).is_done {}
    // The same content comes anew, in a stripe of its own: another block.
    let again = bench.put("/again", None, &[row("a", 100)]).unwrap().view.entry.id;
    let before = places(&bench, again);
    assert_eq!(switch(&mut bench, &repacking).unwrap(), Repacked::default());
    bench.sound();
    assert_eq!(places(&bench, again), before);
    assert_eq!(removable(&bench), [old]);
}

#[test]
fn blocks_that_wait_their_grace_move_with_the_others() {
    let mut bench = Bench::new(1 << 30);
    let (old, kept) = thin(&mut bench);
    take_lease(&mut bench, 1, LEASE).unwrap();
    bench.purge(kept).unwrap();
    bench.reap();
    let found = repackable(&bench, None);
    let repacking = gather(&mut bench, LEASE, &found);
    assert_eq!(switch(&mut bench, &repacking).unwrap().blocks, 1);
    bench.sound();
    let content = bench.content(&[row("a", 100)], &[]);
    let again = bench.commit("/again", None, content).unwrap().view.entry.id;
    assert_eq!(places(&bench, again), [repacking.stripe.id]);
    assert_eq!(removable(&bench), [old]);
}

#[test]
fn only_who_holds_the_lease_repacks() {
    let mut bench = Bench::new(1 << 30);
    thin(&mut bench);
    let found = repackable(&bench, None);
    assert_eq!(found.lease, None);
    let repacking = gather(&mut bench, LEASE, &found);
    assert_eq!(code(switch(&mut bench, &repacking)), "lease_lost");
    take_lease(&mut bench, 1, LEASE + 1).unwrap();
    assert_eq!(code(switch(&mut bench, &repacking)), "lease_lost");
    take_lease(&mut bench, 1, LEASE).unwrap();
    assert_eq!(switch(&mut bench, &repacking).unwrap().blocks, 1);
}

#[test]
fn a_damaged_stripe_cannot_be_read_and_is_not_found() {
    let mut bench = Bench::new(1 << 30);
    let (old, _) = thin(&mut bench);
    set_damaged(&mut bench, old, true);
    bench.sound();
    assert_eq!(names(&bench), []);
    set_damaged(&mut bench, old, false);
    bench.sound();
    assert_eq!(names(&bench), [old]);
}

#[test]
fn a_switch_is_bounded_and_pairs_each_block_with_its_old_place() {
    let mut bench = Bench::new(1 << 30);
    thin(&mut bench);
    take_lease(&mut bench, 1, LEASE).unwrap();
    let found = repackable(&bench, None);
    let good = gather(&mut bench, LEASE, &found);
    let unpaired = Repacking {
        from: vec![good.from[0]; 2],
        ..good.clone()
    };
    let empty = Repacking {
        stripe: bench.stripe(&[]),
        from: Vec::new(),
        ..good.clone()
    };
    let count = REPACKED_BLOCKS_MAX + 1;
    let rows: Vec<BlockRow> = (0..count).map(|at| row(&format!("m{at}"), 10)).collect();
    let old = OldPlace {
        block: BlockId(1),
        ..good.from[0]
    };
    let long = Repacking {
        stripe: bench.stripe(&rows),
        from: vec![old; count],
        ..good.clone()
    };
    let into_itself = Repacking {
        from: vec![OldPlace {
            stripe: good.stripe.id,
            ..good.from[0]
        }],
        ..good.clone()
    };
    for refused in [unpaired, empty, long, into_itself] {
        assert_eq!(code(switch(&mut bench, &refused)), "malformed_command");
    }
    assert_eq!(switch(&mut bench, &good).unwrap().blocks, 1);
    bench.sound();
}

#[test]
fn what_is_found_fits_one_stripe_and_one_command_and_goes_on_behind_a_name() {
    const STRIPES: usize = 5;
    const KEPT: usize = 200;
    let mut bench = Bench::new(1 << 30);
    for stripe in 0..STRIPES {
        let mut rows: Vec<BlockRow> = (0..KEPT).map(|at| row(&format!("k{stripe}-{at}"), 10)).collect();
        rows.push(row(&format!("large{stripe}"), 100_000));
        let content = bench.content(&rows, &rows);
        let whole = bench.commit(&format!("/w{stripe}"), None, content).unwrap();
        let content = bench.content(&rows[..KEPT], &[]);
        bench.commit(&format!("/k{stripe}"), None, content).unwrap();
        bench.purge(whole.view.entry.id).unwrap();
        bench.reap();
    }
    bench.advance(GRACE_MS);
    while !sweep_blocks(&mut bench).is_done {}
    bench.sound();
    let first = repackable(&bench, None);
    assert_eq!(first.stripes.len(), REPACKED_BLOCKS_MAX / KEPT);
    assert!(first.stripes.iter().all(|stripe| stripe.blocks.len() == KEPT));
    // What cannot be read is passed by.
    let mut seen = Vec::new();
    let mut behind = None;
    while let Some(next) = repackable(&bench, behind).stripes.first() {
        behind = Some((next.facts.profile, next.facts.id));
        seen.extend(behind);
    }
    assert_eq!(seen.len(), STRIPES);
    take_lease(&mut bench, 1, LEASE).unwrap();
    let mut moved = 0;
    loop {
        let found = repackable(&bench, None);
        if found.stripes.is_empty() {
            break;
        }
        let repacking = gather(&mut bench, LEASE, &found);
        moved += switch(&mut bench, &repacking).unwrap().blocks as usize;
        bench.sound();
    }
    assert_eq!(moved, STRIPES * KEPT);
    assert_eq!(removable(&bench).len(), STRIPES);
}

#[test]
fn what_an_earlier_release_left_less_than_half_alive_is_queued() {
    let mut bench = Bench::new(1 << 30);
    let (old, _) = thin(&mut bench);
    let is_new = |key: &[u8]| [keys::REPACKABLE, keys::REPACKABLE_FILLED].contains(&key[2]);
    let rows = bench.everything().into_iter().filter(|(key, _)| is_new(key));
    let taken: Vec<_> = rows.map(|(key, _)| Change::Delete(key)).collect();
    assert_eq!(taken.len(), 2, "a row in each of the two tables");
    bench.kv.write(taken).unwrap();
    assert!(!repacking::is_filled(&bench.kv).unwrap());
    bench.sound();
    assert_eq!(names(&bench), []);
    bench.advance(1);
    assert!(repacking::is_filled(&bench.kv).unwrap());
    assert_eq!(names(&bench), [old]);
    bench.sound();
}
