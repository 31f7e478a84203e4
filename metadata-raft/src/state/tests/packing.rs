//! Packing: when small contents are due, what moves and what does not, and everything that may happen between look and command.

use super::collection::{GRACE_MS, sweep_blocks, take_lease};
use super::contents::manifest;
use super::copies::copy;
use super::touched::Keeper;
use super::{Bench, EPOCH_MS, PROFILE, code, row};
use crate::state::age::Times;
use crate::state::check::check;
use crate::state::keys::{self, Key};
use crate::state::packing::{self, InlineCounts, PACK_AFTER_EPOCHS};
use crate::state::{block, drive, inline_bytes, stripe};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::{Change, Kv, KvRead, Scan};
use model::entry::{BlockPlace, BlockRow};
use model::id::{BlockId, EntryId, RowVersion};
use model::stripe::StripeId;
use model::time::WallTime;
use proptest::prelude::{Just, Strategy, prop_oneof, proptest};
use proptest::test_runner::Config;
use protocol::metadata::drive::Swept;
use protocol::metadata::query::{Packing, PackingAsk};
use protocol::metadata::upload::{InlineBlock, NewStripe, PackedContents, UploadCommand};
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::{BTreeMap, BTreeSet};

const LEASE: u64 = 9;
const SPAN_MS: u64 = PACK_AFTER_EPOCHS * EPOCH_MS;
/// Five of them are more than lies in three copies.
const BYTES: u32 = 4_000;
const WORTH: usize = 5;
const NOTHING: Swept = Swept {
    operations: 0,
    is_done: true,
};

fn rows(count: usize) -> Vec<BlockRow> {
    (0..count).map(|at| row(&format!("s{at}"), BYTES)).collect()
}

/// As long as `Bench::stripe` says of a block.
fn sealed(row: BlockRow, with: u8) -> Bytes {
    vec![with; row.size as usize + 30].into()
}

fn put(bench: &mut Bench, at: &str, base: Option<u64>, row: BlockRow, sealed: Bytes) -> EntryId {
    let mut content = bench.content(&[row], &[]);
    content.inline = Some(InlineBlock { row, sealed });
    bench.commit(at, base, content).unwrap().view.entry.id
}

fn put_all(bench: &mut Bench, rows: &[BlockRow]) -> Vec<EntryId> {
    let put = |(at, row): (usize, &BlockRow)| put(bench, &format!("/s{at}"), None, *row, sealed(*row, 1));
    rows.iter().enumerate().map(put).collect()
}

fn ask(bench: &Bench, ask: Option<PackingAsk>) -> Packing {
    match bench.query(&Query::Packing(ask)).unwrap() {
        QueryAnswer::Packing(packing) => packing,
        other => panic!("{other:?}"),
    }
}

fn is_due(bench: &Bench) -> bool {
    let packing = ask(bench, None);
    assert_eq!((packing.contents, packing.next), (Vec::new(), None));
    packing.drive.is_some_and(|facts| facts.drive == bench.drive)
}

/// What is due, page by page.
fn due(bench: &Bench) -> Vec<InlineBlock> {
    let mut all = Vec::new();
    let (drive, mut after) = (bench.drive, None);
    loop {
        let packing = ask(bench, Some(PackingAsk { drive, after }));
        all.extend(packing.contents);
        after = packing.next;
        if after.is_none() {
            return all;
        }
    }
}

fn due_rows(bench: &Bench) -> Vec<BlockRow> {
    due(bench).into_iter().map(|block| block.row).collect()
}

fn pack(bench: &mut Bench, lease: u64, stripe: Option<NewStripe>) -> Result<Swept, Failure> {
    let drive = bench.drive;
    let packed = PackedContents { drive, lease, stripe };
    bench.sweep(Command::Upload(UploadCommand::PackInline(packed)))
}

fn table(bench: &Bench, table: u8) -> usize {
    let prefix = Key::of_drive(bench.drive, table).done();
    bench.kv.scan(&Scan::prefix(&prefix, usize::MAX)).unwrap().len()
}

/// How often these files lie inline and how often in `stripe`.
fn places(bench: &Bench, files: &[EntryId], stripe: StripeId) -> (usize, usize) {
    let (mut inline, mut packed) = (0, 0);
    for file in files {
        match &manifest(bench, *file, None).blocks[0].block.place {
            BlockPlace::Inline(_) => inline += 1,
            BlockPlace::Stripe { stripe: lies, .. } => packed += usize::from(*lies == stripe),
        }
    }
    (inline, packed)
}

fn bench() -> Bench {
    let mut bench = Bench::new(1 << 30);
    take_lease(&mut bench, 1, LEASE).unwrap();
    bench
}

/// What an earlier release did not write.
const QUEUES: [u8; 6] = [
    keys::PACKABLE,
    keys::PACKING,
    keys::INLINE_COUNTS,
    keys::INLINE_BYTES,
    keys::PACKING_DUE,
    keys::PACKING_FILLED,
];

fn forget_rows(bench: &Bench) {
    let rows = bench.everything().into_iter();
    let rows = rows.filter(|(key, _)| QUEUES.contains(&key[2]));
    bench
        .kv
        .write(rows.map(|(key, _)| Change::Delete(key)).collect())
        .unwrap();
}

/// A group in the middle of entering what an earlier release left.
pub(super) fn half_filled() -> Bench {
    let mut bench = bench();
    put_all(&mut bench, &rows(300));
    forget_rows(&bench);
    bench.advance(1);
    assert!(!packing::is_filled(&bench.kv).unwrap());
    bench
}

#[test]
fn small_contents_are_packed_when_they_have_lain_for_long_enough_and_a_repeat_changes_nothing() {
    let mut bench = bench();
    let rows = rows(WORTH);
    let files = put_all(&mut bench, &rows);
    let usage = bench.usage();
    bench.sound();
    bench.advance(SPAN_MS - 1);
    assert!(!is_due(&bench));
    assert_eq!(due(&bench), []);
    bench.advance(1);
    assert!(is_due(&bench));
    let found = due(&bench);
    let wanted = rows.iter().map(|row| InlineBlock {
        row: *row,
        sealed: sealed(*row, 1),
    });
    assert_eq!(found, wanted.collect::<Vec<_>>());
    let stripe = bench.stripe(&rows);
    let done = Swept {
        operations: WORTH as u32,
        is_done: true,
    };
    assert_eq!(pack(&mut bench, LEASE, Some(stripe.clone())).unwrap(), done);
    bench.sound();
    assert_eq!(places(&bench, &files, stripe.id), (0, WORTH));
    assert_eq!((table(&bench, keys::INLINE), table(&bench, keys::PACKABLE)), (0, 0));
    assert_eq!(packing::counts_of_group(&bench.kv).unwrap(), InlineCounts::default());
    assert_eq!(inline_bytes::of_group(&bench.kv).unwrap(), Some(0));
    assert_eq!(bench.usage(), usage);
    assert!(!is_due(&bench));
    assert_eq!(pack(&mut bench, LEASE, Some(stripe)).unwrap(), NOTHING);
    assert_eq!(bench.writes, 0);
    bench.sound();
}

#[test]
fn what_changed_between_the_look_and_the_command_stays_as_it_is_by_then() {
    let mut bench = bench();
    let rows = rows(7);
    let files = put_all(&mut bench, &rows);
    bench.advance(SPAN_MS);
    assert_eq!(due_rows(&bench), rows);
    let stripe = bench.stripe(&rows);
    // Gone for good; gone and come again, sealed to another length; overwritten, with the old version kept; copied.
    bench.purge(files[0]).unwrap();
    bench.purge(files[1]).unwrap();
    bench.reap();
    bench.advance(GRACE_MS);
    assert_eq!(sweep_blocks(&mut bench).operations, 2);
    take_lease(&mut bench, 1, LEASE).unwrap();
    let again = put(&mut bench, "/again", None, rows[1], Bytes::from_static(b"otherwise"));
    let other = row("other", 10);
    put(&mut bench, "/s2", Some(1), other, sealed(other, 3));
    let copied = copy(&mut bench, files[3], "/copied").unwrap().view.entry.id;
    // The stripe's birth epoch is closed by now: it is written under another name.
    assert_eq!(
        code(pack(&mut bench, LEASE, Some(stripe.clone()))),
        "birth_epoch_closed"
    );
    let stripe = NewStripe {
        id: bench.stripe(&rows).id,
        ..stripe
    };
    assert_eq!(pack(&mut bench, LEASE, Some(stripe.clone())).unwrap().operations, 5);
    bench.sound();
    assert_eq!(places(&bench, &[again], stripe.id), (1, 0));
    assert_eq!(places(&bench, &[files[2]], stripe.id), (1, 0), "the new version");
    assert_eq!(
        places(&bench, &[files[3], copied, files[4], files[5], files[6]], stripe.id),
        (0, 5)
    );
    assert_eq!(table(&bench, keys::INLINE), 2);
}

/// Each block is taken for what it was when the packer looked.
#[test]
fn a_packer_that_does_not_look_again_is_caught() {
    let mut bench = bench();
    let rows = rows(WORTH);
    let files = put_all(&mut bench, &rows);
    let seen = rows.iter().map(|row| {
        let found = block::find(&bench.kv, bench.drive, row.digest).unwrap();
        found.expect("it was put")
    });
    let seen: Vec<_> = seen.collect();
    bench.purge(files[0]).unwrap();
    bench.reap();
    bench.sound();
    let new = bench.stripe(&rows);
    let mut tx = Overlay::new(&bench.kv);
    let now = Times::default().now(&tx, bench.drive.slot(), WallTime(0)).unwrap();
    let mut record = drive::get(&tx, bench.drive).unwrap();
    let careless = stripe::enter_by(&mut tx, &now, &mut record, &new, |tx, drive, row, place| {
        let (id, known) = seen.iter().find(|(_, known)| known.row == row).cloned().unwrap();
        packing::leave(tx, drive.drive, id, known.since)?;
        tx.delete(keys::inline(drive.drive, id));
        block::replace_place(tx, drive.drive, id, known, place)?;
        Ok(true)
    });
    careless.unwrap();
    let batch = tx.into_batch();
    bench.kv.write(batch).unwrap();
    let complaints = check(&bench.kv).unwrap();
    assert!(
        complaints.iter().any(|told| told.contains("references")),
        "{complaints:?}"
    );
}

#[test]
fn what_somebody_else_packed_before_is_dead_weight() {
    let mut bench = bench();
    let rows = rows(WORTH);
    put_all(&mut bench, &rows);
    bench.advance(SPAN_MS);
    let (first, second) = (bench.stripe(&rows), bench.stripe(&rows));
    assert_eq!(pack(&mut bench, LEASE, Some(first)).unwrap().operations, 5);
    assert_eq!(pack(&mut bench, LEASE, Some(second)).unwrap(), NOTHING);
    bench.sound();
    let QueryAnswer::StripeCounts(counts) = bench.query(&Query::StripeCounts).unwrap() else {
        panic!()
    };
    assert_eq!((counts.total, counts.dying), (2, 1));
}

#[test]
fn too_little_is_asked_about_once_and_again_when_more_comes() {
    let mut bench = bench();
    let rows = rows(WORTH);
    put_all(&mut bench, &rows[..WORTH - 1]);
    bench.advance(SPAN_MS);
    assert!(is_due(&bench));
    assert_eq!(due_rows(&bench), rows[..WORTH - 1]);
    assert_eq!(pack(&mut bench, LEASE, None).unwrap(), NOTHING);
    bench.sound();
    bench.advance(5 * SPAN_MS);
    assert!(!is_due(&bench));
    put(&mut bench, "/more", None, rows[WORTH - 1], sealed(rows[WORTH - 1], 1));
    bench.sound();
    assert!(!is_due(&bench));
    bench.advance(SPAN_MS);
    assert!(is_due(&bench));
    assert_eq!(due_rows(&bench), rows);
}

#[test]
fn where_too_little_is_due_the_drive_is_asked_about_when_enough_is() {
    let mut bench = bench();
    let rows = rows(WORTH);
    put_all(&mut bench, &rows[..2]);
    bench.advance(EPOCH_MS);
    for (at, row) in rows.iter().enumerate().skip(2) {
        put(&mut bench, &format!("/late{at}"), None, *row, sealed(*row, 1));
    }
    bench.advance(SPAN_MS - EPOCH_MS);
    assert!(is_due(&bench));
    assert_eq!(due_rows(&bench), rows[..2]);
    assert_eq!(pack(&mut bench, LEASE, None).unwrap(), NOTHING);
    bench.sound();
    bench.advance(EPOCH_MS - 1);
    assert!(!is_due(&bench));
    bench.advance(1);
    assert!(is_due(&bench));
    assert_eq!(due_rows(&bench), rows);
}

#[test]
fn what_could_not_be_written_lets_others_go_first_and_comes_again() {
    let mut bench = bench();
    put_all(&mut bench, &rows(WORTH));
    bench.advance(SPAN_MS);
    assert_eq!(pack(&mut bench, LEASE, None).unwrap(), NOTHING);
    bench.sound();
    bench.advance(SPAN_MS - 1);
    assert!(!is_due(&bench));
    bench.advance(1);
    assert!(is_due(&bench));
}

#[test]
fn only_who_holds_the_lease_packs() {
    let mut bench = bench();
    let rows = rows(WORTH);
    put_all(&mut bench, &rows);
    bench.advance(SPAN_MS);
    let stripe = bench.stripe(&rows);
    assert_eq!(code(pack(&mut bench, LEASE + 1, Some(stripe.clone()))), "lease_lost");
    assert_eq!(code(pack(&mut bench, LEASE + 1, None)), "lease_lost");
    assert_eq!(due_rows(&bench), rows);
    let malformed = NewStripe {
        blocks: stripe.blocks.iter().rev().copied().collect(),
        ..stripe
    };
    assert_eq!(code(pack(&mut bench, LEASE, Some(malformed))), "malformed_stripe");
    bench.sound();
}

#[test]
fn a_content_that_nobody_holds_waits_for_its_death_and_not_to_be_packed() {
    let mut bench = bench();
    let rows = rows(WORTH);
    let files = put_all(&mut bench, &rows);
    bench.advance(1);
    bench.purge(files[0]).unwrap();
    bench.reap();
    bench.sound();
    bench.advance(SPAN_MS);
    assert_eq!(due_rows(&bench), rows[1..]);
    // Within its grace somebody wants it again, and it has lain there since before.
    let content = bench.content(&rows[..1], &[]);
    bench.commit("/again", None, content).unwrap();
    bench.sound();
    assert_eq!(due_rows(&bench), [rows[1], rows[2], rows[3], rows[4], rows[0]]);
}

#[test]
fn a_content_that_comes_back_inline_for_a_damaged_stripe_is_packed_again() {
    let mut bench = bench();
    let rows = rows(WORTH);
    let files = put_all(&mut bench, &rows);
    bench.advance(SPAN_MS);
    let stripe = bench.stripe(&rows);
    pack(&mut bench, LEASE, Some(stripe.clone())).unwrap();
    let damaged = UploadCommand::SetStripe {
        drive: bench.drive,
        profile: PROFILE,
        stripe: stripe.id,
        row_version: RowVersion(1),
        astray: Vec::new(),
        is_damaged: true,
    };
    bench.run(Command::Upload(damaged)).unwrap();
    put(&mut bench, "/again", None, rows[0], sealed(rows[0], 2));
    bench.sound();
    assert_eq!(places(&bench, &files, stripe.id), (1, WORTH - 1));
    assert_eq!(due_rows(&bench), rows[..1]);
}

#[test]
fn what_an_earlier_release_left_inline_is_entered_a_bounded_number_a_command() {
    let mut bench = half_filled();
    bench.sound();
    assert!(table(&bench, keys::PACKABLE) < 300);
    // Two go meanwhile.
    let first = bench.get("/s0").unwrap().entry.id;
    let last = bench.get("/s299").unwrap().entry.id;
    for file in [first, last] {
        bench.purge(file).unwrap();
    }
    bench.reap();
    bench.sound();
    while !packing::is_filled(&bench.kv).unwrap() {
        bench.advance(1);
    }
    bench.sound();
    assert_eq!(table(&bench, keys::PACKABLE), 298);
    bench.advance(SPAN_MS);
    assert!(is_due(&bench));
    assert_eq!(due(&bench).len(), 298, "in several answers");
}

/// Replicas that were upgraded one after the other differ in how far `fill` has come, and in nothing else behind any command.
#[test]
fn a_command_moves_the_same_contents_whether_or_not_their_rows_are_there_yet() {
    let after = |is_filled: bool| {
        let mut bench = half_filled();
        while is_filled && !packing::is_filled(&bench.kv).unwrap() {
            let mut tx = Overlay::new(&bench.kv);
            packing::fill(&mut tx).unwrap();
            let batch = tx.into_batch();
            bench.kv.write(batch).unwrap();
        }
        assert_eq!(packing::is_filled(&bench.kv).unwrap(), is_filled);
        let new = bench.stripe(&rows(300));
        assert_eq!(pack(&mut bench, LEASE, Some(new)).unwrap().operations, 300);
        bench.sound();
        let all = bench.everything().into_iter();
        all.filter(|(key, _)| !QUEUES.contains(&key[2])).collect::<Vec<_>>()
    };
    assert!(
        after(true) == after(false),
        "replicas would differ in more than their queues"
    );
}

#[test]
fn drives_are_told_by_who_has_waited_longest_and_pages_end_where_nothing_is_due() {
    let mut bench = bench();
    let rows = rows(WORTH + 2);
    put_all(&mut bench, &rows[..WORTH]);
    bench.advance(EPOCH_MS);
    for (at, row) in rows.iter().enumerate().skip(WORTH) {
        put(&mut bench, &format!("/late{at}"), None, *row, sealed(*row, 1));
    }
    bench.advance(SPAN_MS - EPOCH_MS);
    let drive = bench.drive;
    let page = ask(&bench, Some(PackingAsk { drive, after: None }));
    assert_eq!(page.contents.len(), WORTH);
    assert_eq!(page.next, None, "the rest is not due");
    let lease = page.lease.map(|lease| (lease.holder, lease.lease));
    assert_eq!(lease, Some((1, LEASE)));
    let behind = PackingAsk {
        drive,
        after: Some((0, BlockId(2))),
    };
    assert_eq!(ask(&bench, Some(behind)).contents.len(), WORTH - 2);
}

/// A world of files with one small content each, a packer, and collection.
struct World {
    bench: Bench,
    files: BTreeMap<u8, (EntryId, u64, u8)>,
    /// Written to disks, with the command that the packer has not sent yet.
    looked: Option<NewStripe>,
    stored: BTreeSet<StripeId>,
    seals: u8,
    /// Somebody who keeps answers about the drive and asks whether they hold.
    keeper: Keeper,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put { file: u8, content: u8 },
    Copy { from: u8, to: u8 },
    Purge { file: u8 },
    Age { ms: u64 },
    Reap,
    Die,
    Look,
    Pack,
}

impl World {
    fn new() -> Self {
        Self {
            bench: bench(),
            files: BTreeMap::new(),
            looked: None,
            stored: BTreeSet::new(),
            seals: 0,
            keeper: Keeper::default(),
        }
    }

    fn put(&mut self, file: u8, content: u8) {
        self.seals = self.seals.wrapping_add(1);
        let row = rows(8)[usize::from(content)];
        let known = self.files.get(&file).map(|(_, version, _)| *version);
        let entry = put(
            &mut self.bench,
            &format!("/f{file}"),
            known,
            row,
            sealed(row, self.seals),
        );
        let version = self.bench.get(&format!("/f{file}")).unwrap().entry.version;
        self.files.insert(file, (entry, version, content));
    }

    fn copy(&mut self, from: u8, to: u8) {
        if let Some((entry, _, content)) = self.files.get(&from).copied()
            && !self.files.contains_key(&to)
        {
            let made = copy(&mut self.bench, entry, &format!("/f{to}")).unwrap();
            let (id, version) = (made.view.entry.id, made.view.entry.version);
            self.files.insert(to, (id, version, content));
        }
    }

    fn look(&mut self) {
        let rows = due_rows(&self.bench);
        if !rows.is_empty() {
            let stripe = self.bench.stripe(&rows);
            self.stored.insert(stripe.id);
            self.looked = Some(stripe);
        }
    }

    fn pack(&mut self) {
        let Some(stripe) = self.looked.take() else {
            return;
        };
        let before = self.bench.usage();
        self.keeper.look(&self.bench);
        take_lease(&mut self.bench, 1, LEASE).unwrap();
        if let Err(refused) = pack(&mut self.bench, LEASE, Some(stripe)) {
            assert_eq!(refused.code, "birth_epoch_closed");
        }
        assert_eq!(self.bench.usage(), before, "packing costs nobody anything");
        self.keeper.look(&self.bench);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Put { file, content } => self.put(file, content),
            Step::Copy { from, to } => self.copy(from, to),
            Step::Purge { file } => {
                if let Some((entry, _, _)) = self.files.remove(&file) {
                    self.bench.purge(entry).unwrap();
                }
            }
            Step::Age { ms } => self.bench.advance(ms),
            Step::Reap => self.bench.reap(),
            Step::Die => while !sweep_blocks(&mut self.bench).is_done {},
            Step::Look => self.look(),
            Step::Pack => self.pack(),
        }
    }

    /// Every file has its content, in the metadata or in a stripe that was written.
    fn check(&self) {
        let wanted = rows(8);
        for (file, (entry, _, content)) in &self.files {
            let block = manifest(&self.bench, *entry, None).blocks[0].block.clone();
            assert_eq!(block.row, wanted[usize::from(*content)], "file {file}");
            match block.place {
                BlockPlace::Inline(sealed) => assert_eq!(sealed.len(), BYTES as usize + 30),
                BlockPlace::Stripe { stripe, .. } => assert!(self.stored.contains(&stripe)),
            }
        }
        self.bench.sound();
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..6, 0_u8..8).prop_map(|(file, content)| Step::Put { file, content }),
        2 => (0_u8..6, 0_u8..6).prop_map(|(from, to)| Step::Copy { from, to }),
        3 => (0_u8..6).prop_map(|file| Step::Purge { file }),
        3 => (0_u64..60).prop_map(|seconds| Step::Age { ms: seconds * 1_000 }),
        2 => Just(Step::Reap),
        2 => Just(Step::Die),
        3 => Just(Step::Look),
        3 => Just(Step::Pack),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn whatever_is_packed_in_whatever_order_every_file_keeps_its_content(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            world.check();
        }
    }
}
