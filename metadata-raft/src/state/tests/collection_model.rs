//! Collection against writers: a world of files and disks beside the state, in random order and in every order.
//!
//! The naive twin is what a user believes: these files, with these blocks. Disks hold a stripe from its writing to its tombstone.
//! Invariants: whatever happens in whatever order, every block of every file is found in a stripe that every disk holds; when all is
//! quiet for two graces, disks hold nothing but stripes of which half or more lives.
//! A worker that takes a page without looking at its count again is planted, one that takes a page and forgets its blocks, and a
//! repacking that does not look where a block lies now; all must be caught.

mod orders;

use super::collection::{
    CLOSED_MS, GRACE_MS, collection, forget, forget_untold, found, orphans, sweep_blocks, take_lease,
};
use super::repacking::{gather, repackable, switch};
use super::{Bench, row};
use crate::state::age::Times;
use crate::state::block::StoredPlace;
use crate::state::check::check;
use crate::state::keys::{self, Key};
use crate::state::{block, drive, page, stripe};
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::{Change, Kv, KvRead, Scan};
use model::digest::Digest;
use model::entry::{BlockPlace, BlockRow};
use model::id::{DiskId, EntryId};
use model::stripe::StripeId;
use model::time::WallTime;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use protocol::metadata::QueryAnswer;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::repacking::Repacking;
use protocol::metadata::upload::NewStripe;
use std::collections::{BTreeMap, BTreeSet};

pub(super) const DISKS: [DiskId; 2] = [DiskId(1), DiskId(2)];
const LEASE: u64 = 9;
pub(super) const BLOCKS: u8 = 6;

pub(super) fn blocks(mask: u8) -> Vec<BlockRow> {
    let named = (0..BLOCKS).filter(|at| mask >> at & 1 == 1);
    named.map(|at| row(&format!("b{at}"), 10 + u32::from(at))).collect()
}

/// A writer between its question and its commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    file: u8,
    mask: u8,
    /// The stripe of what the drive did not have, written to all disks already.
    stripe: Option<StripeId>,
    new: Vec<u8>,
}

struct World {
    bench: Bench,
    /// What a user believes: the blocks of each version of each file.
    files: BTreeMap<u8, (EntryId, BTreeMap<u64, u8>)>,
    pending: Vec<(Pending, Option<NewStripe>)>,
    /// Which disks hold a fragment.
    stored: BTreeMap<StripeId, BTreeSet<DiskId>>,
    /// Pages that a careless reaper has seen and will take whatever happens.
    looked: Vec<Digest>,
    /// What collectors have read and written anew, the oldest first.
    gathered: Vec<Repacking>,
    /// Graces that a search has let pass.
    ages: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ask {
        file: u8,
        mask: u8,
    },
    Finish,
    Purge {
        file: u8,
    },
    /// A gateway dies behind the writing of a stripe.
    Orphan,
    Age {
        ms: u64,
    },
    Reap,
    CarelessLook,
    CarelessTake,
    ForgetfulReap,
    Die,
    /// Removes what is named; a disk may be away, and the worker may die before it says so.
    Collect {
        is_away: bool,
        is_cut: bool,
    },
    TellUntold,
    Orphans,
    /// A collector reads what is to be repacked, and writes the new stripe.
    Gather,
    /// A collector has the places switched.
    Switch {
        is_newest: bool,
    },
    CarelessSwitch,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new(1 << 30);
        take_lease(&mut bench, 1, LEASE).unwrap();
        Self {
            bench,
            files: BTreeMap::new(),
            pending: Vec::new(),
            stored: BTreeMap::new(),
            looked: Vec::new(),
            gathered: Vec::new(),
            ages: 0,
        }
    }

    fn fork(&self) -> Self {
        let kv = MemoryKv::new();
        let rows = self.bench.everything().into_iter();
        kv.write(rows.map(|(key, value)| Change::Put(key, value)).collect())
            .unwrap();
        Self {
            bench: Bench { kv, ..self.bench },
            files: self.files.clone(),
            pending: self.pending.clone(),
            stored: self.stored.clone(),
            looked: self.looked.clone(),
            gathered: self.gathered.clone(),
            ages: self.ages,
        }
    }

    fn write(&mut self, rows: &[BlockRow]) -> NewStripe {
        let stripe = self.bench.stripe(rows);
        self.stored.insert(stripe.id, BTreeSet::from(DISKS));
        stripe
    }

    fn remove(&mut self, stripe: StripeId, disk: DiskId) {
        if let Some(disks) = self.stored.get_mut(&stripe) {
            disks.remove(&disk);
            if disks.is_empty() {
                self.stored.remove(&stripe);
            }
        }
    }

    fn ask(&mut self, file: u8, mask: u8) {
        let rows = blocks(mask);
        let known = found(&self.bench, &rows);
        let new: Vec<BlockRow> = rows.into_iter().filter(|row| !known.contains(row)).collect();
        let stripe = (!new.is_empty()).then(|| self.write(&new));
        let pending = Pending {
            file,
            mask,
            stripe: stripe.as_ref().map(|stripe| stripe.id),
            new: (0..BLOCKS).filter(|at| new.contains(&blocks(1 << at)[0])).collect(),
        };
        self.pending.push((pending, stripe));
    }

    /// Commits as a gateway does: what went away meanwhile is sent again.
    fn finish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let (pending, mut stripe) = self.pending.remove(0);
        let rows = blocks(pending.mask);
        for _ in 0..3 {
            let mut content = self.bench.content(&rows, &[]);
            content.stripes.extend(stripe.clone());
            let known = self.files.get(&pending.file);
            let base = known.and_then(|(_, versions)| versions.keys().last().copied());
            match self.bench.commit(&format!("/f{}", pending.file), base, content) {
                Ok(committed) => {
                    let entry = committed.view.entry.id;
                    let (_, versions) = self.files.entry(pending.file).or_insert((entry, BTreeMap::new()));
                    versions.insert(committed.view.entry.version, pending.mask);
                    return;
                }
                Err(refused) => {
                    assert!(
                        ["need_blocks", "birth_epoch_closed"].contains(&refused.code.as_str()),
                        "{refused}"
                    );
                    stripe = Some(self.write(&rows));
                }
            }
        }
        panic!("a commit that brings all of its blocks is refused");
    }

    fn collect(&mut self, is_away: bool, is_cut: bool) {
        let mut forgotten = Vec::new();
        for facts in collection(&self.bench).removable {
            let told = if is_away { &DISKS[..1] } else { &DISKS[..] };
            told.iter().for_each(|disk| self.remove(facts.id, *disk));
            forgotten.push((facts.id, DISKS[told.len()..].to_vec()));
        }
        if !is_cut && !forgotten.is_empty() {
            forget(&mut self.bench, LEASE, &forgotten).unwrap();
        }
    }

    fn tell_untold(&mut self) {
        for (disk, stripes) in collection(&self.bench).untold {
            stripes.iter().for_each(|(_, stripe)| self.remove(*stripe, disk));
            forget_untold(&mut self.bench, LEASE, disk, stripes);
        }
    }

    fn clear_orphans(&mut self) {
        let stored: Vec<StripeId> = self.stored.keys().copied().collect();
        for orphan in orphans(&self.bench, &stored).unwrap() {
            self.stored.remove(&orphan);
        }
    }

    /// The pages that are at zero now.
    fn released(&self) -> Vec<Digest> {
        let prefix = Key::of_drive(self.bench.drive, keys::PAGE_RELEASE).done();
        let rows = self.bench.kv.scan(&Scan::prefix(&prefix, usize::MAX)).unwrap();
        let digests = rows.iter().map(|(key, _)| Digest(*key.last_chunk().unwrap()));
        digests.collect()
    }

    /// What `page::reap` does, without asking whether the pages are still at zero; the references to their blocks are given up, or
    /// forgotten.
    fn take_pages(&mut self, pages: Vec<Digest>, gives_up: bool) {
        let drive = self.bench.drive;
        let mut tx = Overlay::new(&self.bench.kv);
        let now = Times::default().now(&tx, drive.slot(), WallTime(0)).unwrap();
        for digest in pages {
            let Ok(rows) = page::rows(&tx, drive, digest) else {
                continue;
            };
            for (block, _) in rows.into_iter().filter(|_| gives_up) {
                block::give_up(&mut tx, &now, drive, block).unwrap();
            }
            for table in [keys::PAGE, keys::PAGE_ROWS, keys::PAGE_RELEASE] {
                tx.delete(keys::by_digest(drive, table, digest));
            }
        }
        let batch = tx.into_batch();
        self.bench.kv.write(batch).unwrap();
    }

    fn gather(&mut self) {
        let found = repackable(&self.bench, None);
        if found.stripes.is_empty() {
            return;
        }
        let whole = BTreeSet::from(DISKS);
        for stripe in &found.stripes {
            assert_eq!(self.stored.get(&stripe.facts.id), Some(&whole), "it was removed");
        }
        let gathered = gather(&mut self.bench, LEASE, &found);
        self.stored.insert(gathered.stripe.id, BTreeSet::from(DISKS));
        self.gathered.push(gathered);
    }

    fn take_gathered(&mut self, is_newest: bool) -> Option<Repacking> {
        match (is_newest, self.gathered.len()) {
            (_, 0) => None,
            (true, _) => self.gathered.pop(),
            (false, _) => Some(self.gathered.remove(0)),
        }
    }

    fn switch(&mut self, is_newest: bool) {
        if let Some(gathered) = self.take_gathered(is_newest)
            && let Err(refused) = switch(&mut self.bench, &gathered)
        {
            assert_eq!(refused.code, "birth_epoch_closed", "{refused}");
        }
    }

    /// What `repacking::switch` does, without asking whether the blocks lie where they were read.
    fn careless_switch(&mut self) {
        let Some(Repacking { stripe: new, from, .. }) = self.take_gathered(false) else {
            return;
        };
        let id = self.bench.drive;
        let mut tx = Overlay::new(&self.bench.kv);
        let now = Times::default().now(&tx, id.slot(), WallTime(0)).unwrap();
        let drive = drive::get(&tx, id).unwrap();
        let Ok(Some(mut record)) = stripe::begin(&mut tx, &now, &drive, &new) else {
            return;
        };
        for (block, old) in new.blocks.iter().zip(&from) {
            let place = StoredPlace::Stripe {
                profile: new.profile,
                stripe: new.id,
                offset: block.offset,
                sealed_bytes: block.sealed_bytes,
            };
            let Ok(known) = block::get(&tx, id, old.block) else {
                continue;
            };
            block::switch(&mut tx, id, (old.block, block.row), known.place, place).unwrap();
            record.living_bytes += block.sealed_bytes;
            let was = stripe::find(&tx, old.profile, old.stripe).unwrap();
            if was.is_some_and(|was| was.living_bytes >= block.sealed_bytes) {
                let bytes = -i64::from(block.sealed_bytes);
                stripe::shift_living(&mut tx, old.profile, old.stripe, bytes).unwrap();
            }
        }
        stripe::settle(&mut tx, (new.profile, new.id), &record).unwrap();
        let batch = tx.into_batch();
        self.bench.kv.write(batch).unwrap();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Ask { file, mask } => self.ask(file, mask),
            Step::Finish => self.finish(),
            Step::Purge { file } => {
                if let Some((entry, _)) = self.files.remove(&file) {
                    self.bench.purge(entry).unwrap();
                }
            }
            Step::Orphan => drop(self.write(&blocks(1))),
            Step::Age { ms } => self.bench.advance(ms),
            Step::Reap => self.bench.reap(),
            Step::CarelessLook => self.looked = self.released(),
            Step::CarelessTake => {
                let looked = std::mem::take(&mut self.looked);
                self.take_pages(looked, true);
            }
            Step::ForgetfulReap => self.take_pages(self.released(), false),
            Step::Die => while !sweep_blocks(&mut self.bench).is_done {},
            Step::Collect { is_away, is_cut } => self.collect(is_away, is_cut),
            Step::TellUntold => self.tell_untold(),
            Step::Orphans => self.clear_orphans(),
            Step::Gather => self.gather(),
            Step::Switch { is_newest } => self.switch(is_newest),
            Step::CarelessSwitch => self.careless_switch(),
        }
        // So that equal states reached by other ways are equal.
        self.bench.wall = 1_700_000_000_000;
    }

    fn versions(&self) -> impl Iterator<Item = (u8, EntryId, u64, u8)> + '_ {
        let files = self.files.iter();
        files.flat_map(|(file, (entry, versions))| {
            let versions = versions.iter();
            versions.map(move |(version, mask)| (*file, *entry, *version, *mask))
        })
    }

    /// What a user misses.
    fn lost(&self) -> Option<String> {
        for (file, entry, version, mask) in self.versions() {
            let asked = DriveAsk::ReadManifest {
                entry,
                version: Some(version),
                range: None,
            };
            let manifest = match self.bench.ask(asked) {
                Ok(QueryAnswer::Manifest(manifest)) => manifest,
                other => return Some(format!("file {file} does not read: {other:?}")),
            };
            let rows: Vec<BlockRow> = manifest.blocks.iter().map(|found| found.block.row).collect();
            if rows != blocks(mask) {
                return Some(format!("file {file} has other blocks"));
            }
            for found in manifest.blocks {
                let BlockPlace::Stripe { stripe, .. } = found.block.place else {
                    return Some("a block lies elsewhere".to_owned());
                };
                if self.stored.get(&stripe) != Some(&BTreeSet::from(DISKS)) {
                    return Some(format!("file {file} names {stripe}, which was removed"));
                }
            }
        }
        None
    }

    /// What a user misses, and what the state says of itself that is not so.
    fn lost_or_unsound(&self) -> Option<String> {
        self.lost().or_else(|| check(&self.bench.kv).unwrap().pop())
    }

    /// What is left after two graces in which nobody writes.
    fn leaked(&mut self) -> Option<String> {
        self.pending.clear();
        self.gathered.clear();
        for _ in 0..2 {
            self.bench.reap();
            self.bench.advance(GRACE_MS.max(CLOSED_MS));
            self.step(Step::Die);
        }
        self.bench.advance(CLOSED_MS);
        while !repackable(&self.bench, None).stripes.is_empty() {
            self.gather();
            self.switch(true);
        }
        while !collection(&self.bench).removable.is_empty() {
            self.collect(false, false);
        }
        self.tell_untold();
        self.clear_orphans();
        let wanted = blocks(self.versions().fold(0, |all, (_, _, _, mask)| all | mask));
        let living = found(&self.bench, &blocks(u8::MAX));
        if living != wanted {
            return Some(format!("{living:?} live where {wanted:?} should"));
        }
        let digests = wanted.iter().map(|row| row.digest).collect();
        let QueryAnswer::Blocks(known) = self.bench.ask(DriveAsk::FindBlocks(digests)).unwrap() else {
            panic!()
        };
        let alive: BTreeSet<StripeId> = known.stripes.iter().map(|facts| facts.id).collect();
        let stored: BTreeSet<StripeId> = self.stored.keys().copied().collect();
        (stored != alive).then(|| format!("disks hold {stored:?}, alive are {alive:?}"))
    }
}

fn step() -> impl Strategy<Value = Step> {
    let mask = 1_u8..1 << BLOCKS;
    prop_oneof![
        6 => (0_u8..4, mask).prop_map(|(file, mask)| Step::Ask { file, mask }),
        6 => proptest::strategy::Just(Step::Finish),
        4 => (0_u8..4).prop_map(|file| Step::Purge { file }),
        1 => proptest::strategy::Just(Step::Orphan),
        3 => (0_u64..70).prop_map(|seconds| Step::Age { ms: seconds * 1_000 }),
        3 => proptest::strategy::Just(Step::Reap),
        3 => proptest::strategy::Just(Step::Die),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(is_away, is_cut)| Step::Collect { is_away, is_cut }),
        3 => proptest::strategy::Just(Step::Gather),
        3 => any::<bool>().prop_map(|is_newest| Step::Switch { is_newest }),
        1 => proptest::strategy::Just(Step::TellUntold),
        1 => proptest::strategy::Just(Step::Orphans),
    ]
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    /// shows: N8 scale=20000/1000000
    #[test]
    fn nothing_alive_is_removed_and_nothing_is_left_after_two_graces(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
            assert_eq!(world.lost(), None, "after {step:?}");
        }
        world.bench.sound();
        assert_eq!(world.leaked(), None);
        assert_eq!(world.lost(), None);
        world.bench.sound();
    }
}
