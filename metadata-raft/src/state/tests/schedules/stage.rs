//! Those who work with one replica and its disks: writers, readers, collectors, a gatherer and a marker, each as the product does it.
//!
//! Invariants: no lock of the stage is held where threads are switched; what was committed is in the ledger from its answer on, what is
//! purged is marked before it is asked for.
//! Not here: the replica's own threads (`replica`), how many there are of each and what many schedules must have met (`schedules`).

use super::replica::{Replica, restarted, stored};
use super::switching::{Plant, SwitchingKv, switch};
use crate::state::tests::collection_model::{BLOCKS, DISKS, blocks};
use crate::state::tests::repacking::living;
use crate::state::tests::{Bench, EPOCH_MS, PROFILE, commit_of, content_of, stripe_of};
use kv::memory::MemoryKv;
use model::authorize::Principal;
use model::entry::{BlockPlace, BlockRow};
use model::id::{DiskId, DriveId, EntryId};
use model::stripe::StripeId;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::group::{ForgottenStripe, GroupCommand};
use protocol::metadata::query::{DriveAsk, DriveQuery, FoundBlocks};
use protocol::metadata::repacking::Repacking;
use protocol::metadata::upload::{NewStripe, UploadCommand};
use protocol::metadata::{Command, CommandAnswer, Query, QueryAnswer};
use protocol::wire_error::Failure;
use schedules::lock;
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::thread::JoinHandle;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

const CHANGES: u64 = 4;
/// Blocks of a file come from the first three of all that there are, so that files share them.
const MASKS: u8 = 1 << 3;
/// How often a commit is tried of which blocks went away or whose stripe grew old.
const TRIES: usize = 4;
const READS: usize = 4;
/// How often a reader looks where a file lies by now.
const LOOKS: usize = 4;
const TURNS: u64 = 2;
const GATHERINGS: usize = 4;
const MARKS: usize = 2;
const LEASE_MS: u64 = 30_000;
/// A group's age goes on by so much a command at most: eight birth epochs.
const STEP_MS: u64 = 8 * EPOCH_MS;
/// A grace, and what closes a birth epoch.
const STEPS: usize = 4;
/// After so many turns and gatherings without writers nothing is left to do.
const ROUNDS: u64 = 5;
/// Who collects in the end.
const LAST: u64 = 9;

/// A file whose commit was answered.
#[derive(Clone, Copy, Debug)]
struct File {
    entry: EntryId,
    mask: u8,
    /// Its purge was asked for.
    is_going: bool,
}

/// What happened in one schedule, or in all of them. Its lock is never held where threads are switched.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    files: Vec<File>,
    violations: Vec<String>,
    pub(super) reads: u64,
    /// Commits of which a block went away, or whose stripe grew old.
    pub(super) overtaken: u64,
    pub(super) removed: u64,
    pub(super) orphans: u64,
    pub(super) moved: u64,
    /// Reads of a file whose stripe went away meanwhile.
    looks_again: u64,
}

pub(super) type Shared = schedules::Shared<Ledger>;

impl schedules::Ledger for Ledger {
    type Seen = Self;

    fn violations(&self) -> &[String] {
        &self.violations
    }

    fn count(self, seen: &mut Self) {
        seen.reads += self.reads;
        seen.overtaken += self.overtaken;
        seen.removed += self.removed;
        seen.orphans += self.orphans;
        seen.moved += self.moved;
        seen.looks_again += self.looks_again;
    }
}

/// Which disks hold a fragment.
type Disks = Arc<Mutex<BTreeMap<StripeId, BTreeSet<DiskId>>>>;

/// A replica with its disks and those who work with it.
#[derive(Clone)]
pub(super) struct Stage {
    replica: Replica,
    kv: Arc<MemoryKv>,
    disks: Disks,
    ledger: Shared,
    fresh: Arc<AtomicU64>,
    led_ms: Arc<AtomicU64>,
    owner: Principal,
    drive: DriveId,
    plant: Plant,
}

impl Stage {
    pub(super) fn set(plant: Plant, ledger: &Shared) -> (Self, JoinHandle<()>) {
        let bench = Bench::new(1 << 30);
        let kv = Arc::new(stored(&bench));
        let switching = SwitchingKv::new(Arc::clone(&kv), plant);
        let (replica, applier) = Replica::start(Arc::new(switching), bench.index);
        let stage = Self {
            replica,
            kv,
            disks: Disks::default(),
            ledger: Arc::clone(ledger),
            fresh: Arc::new(AtomicU64::new(bench.next)),
            led_ms: Arc::new(AtomicU64::new(bench.led_ms)),
            owner: bench.owner,
            drive: bench.drive,
            plant,
        };
        (stage, applier)
    }

    fn violation(&self, what: String) {
        lock(&self.ledger).violations.push(what);
    }

    fn fresh(&self) -> u64 {
        self.fresh.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn ask(&self, ask: DriveAsk) -> Result<QueryAnswer, Failure> {
        self.replica.query(&Query::Drive(DriveQuery {
            drive: self.drive,
            principal: Some(self.owner),
            ask,
        }))
    }

    /// What the drive has of these blocks, with their stripes.
    fn known(&self, rows: &[BlockRow]) -> FoundBlocks {
        let digests = rows.iter().map(|row| row.digest).collect();
        match self.ask(DriveAsk::FindBlocks(digests)) {
            Ok(QueryAnswer::Blocks(found)) => found,
            other => panic!("{other:?}"),
        }
    }

    /// Has a command applied that may be refused with one of these codes; what it answers when it is not.
    fn runs(&self, command: Command, refusals: &[&str]) -> Option<CommandAnswer> {
        match self.replica.run(command) {
            Ok(answer) => Some(answer),
            Err(refused) => {
                if !refusals.contains(&refused.code.as_str()) {
                    self.violation(format!("a command is refused: {refused}"));
                }
                None
            }
        }
    }

    /// Writes a stripe to every disk, as before its commit.
    fn store(&self, rows: &[BlockRow]) -> NewStripe {
        let slot = self.drive.slot();
        let born = match self.replica.query(&Query::Slot(slot)) {
            Ok(QueryAnswer::Time(time)) => time.birth_epoch,
            other => panic!("{other:?}"),
        };
        let id = StripeId::new(u128::from(self.fresh()) << 70, slot, born);
        for disk in DISKS {
            switch();
            lock(&self.disks).entry(id).or_default().insert(disk);
        }
        stripe_of(id, rows)
    }

    fn remove(&self, stripe: StripeId) {
        for disk in DISKS {
            switch();
            let mut disks = lock(&self.disks);
            if let Some(holders) = disks.get_mut(&stripe) {
                holders.remove(&disk);
                if holders.is_empty() {
                    disks.remove(&stripe);
                }
            }
        }
    }

    fn is_whole(&self, stripe: StripeId) -> bool {
        switch();
        let disks = lock(&self.disks);
        disks.get(&stripe).is_some_and(|holders| holders.len() == DISKS.len())
    }

    fn stored(&self) -> Vec<StripeId> {
        switch();
        lock(&self.disks).keys().copied().collect()
    }

    /// Asks, writes what is new and commits, as a gateway does; `None` when it was overtaken too often.
    fn put(&self, at: &str, mask: u8) -> Option<EntryId> {
        let rows = blocks(mask);
        let found = self.known(&rows).found;
        let is_new = |row: &&BlockRow| !found.iter().any(|known| known.row == **row);
        let new: Vec<BlockRow> = rows.iter().filter(is_new).copied().collect();
        let mut stripe = (!new.is_empty()).then(|| self.store(&new));
        for _ in 0..TRIES {
            let content = content_of(&rows, stripe.iter().cloned().collect());
            let command = commit_of(self.owner, self.drive, (at, None), self.fresh(), content);
            if let Some(answer) = self.runs(command, &["need_blocks", "birth_epoch_closed"]) {
                return Some(self.note(answer, mask));
            }
            lock(&self.ledger).overtaken += 1;
            stripe = Some(self.store(&rows));
        }
        None
    }

    /// From the answer on a file is there.
    fn note(&self, answer: CommandAnswer, mask: u8) -> EntryId {
        let entry = match answer {
            CommandAnswer::Committed(committed) => committed.view.entry.id,
            other => panic!("{other:?}"),
        };
        let is_going = false;
        lock(&self.ledger).files.push(File { entry, mask, is_going });
        entry
    }

    fn purge(&self, entry: EntryId) {
        for file in &mut lock(&self.ledger).files {
            file.is_going |= file.entry == entry;
        }
        let command = DriveCommand::PurgeEntry {
            principal: self.owner,
            entry,
            base_revision: None,
            job: self.fresh(),
        };
        self.runs(Command::Drive(command), &[]);
    }

    /// Puts files that share blocks with those of others, and takes some of them away.
    pub(super) fn write(&self, writer: u64) {
        let mut own = Vec::new();
        for number in 0..CHANGES {
            if !own.is_empty() && thread_rng().gen_range(0..2) == 0 {
                let at = thread_rng().gen_range(0..own.len());
                self.purge(own.swap_remove(at));
            } else {
                let mask = thread_rng().gen_range(1..MASKS);
                own.extend(self.put(&format!("/w{writer}-{number}"), mask));
            }
        }
    }

    /// Where a file lies by now, its blocks in their order.
    fn places(&self, file: File) -> Result<BTreeSet<StripeId>, String> {
        let asked = DriveAsk::ReadManifest {
            entry: file.entry,
            version: None,
            range: None,
        };
        let manifest = match self.ask(asked) {
            Ok(QueryAnswer::Manifest(manifest)) => manifest,
            other => return Err(format!("does not read: {other:?}")),
        };
        let rows: Vec<BlockRow> = manifest.blocks.iter().map(|found| found.block.row).collect();
        if rows != blocks(file.mask) {
            return Err("has other blocks".to_owned());
        }
        let places = manifest.blocks.iter().map(|found| match found.block.place {
            BlockPlace::Stripe { stripe, .. } => Ok(stripe),
            BlockPlace::Inline(_) => Err("has a block that lies inline".to_owned()),
        });
        places.collect()
    }

    /// Reads a file as a gateway does: where it lies, then the fragments, and anew where some went away. What is wrong with it.
    fn look(&self, file: File) -> Option<String> {
        let mut gone: Option<StripeId> = None;
        for _ in 0..LOOKS {
            let places = match self.places(file) {
                Ok(places) => places,
                Err(broken) => return Some(broken),
            };
            if let Some(gone) = gone.filter(|gone| places.contains(gone)) {
                return Some(format!("names {gone}, which was removed"));
            }
            gone = places.into_iter().find(|stripe| !self.is_whole(*stripe));
            if gone.is_none() {
                break;
            }
            lock(&self.ledger).looks_again += 1;
        }
        None
    }

    pub(super) fn read(&self) {
        for at in 0..READS {
            switch();
            let files = lock(&self.ledger).files.clone();
            let here: Vec<File> = files.into_iter().filter(|file| !file.is_going).collect();
            if !here.is_empty() {
                let file = here[thread_rng().gen_range(0..here.len())];
                let broken = self.look(file);
                let mut ledger = lock(&self.ledger);
                ledger.reads += 1;
                let mut going = ledger.files.iter().filter(|known| known.is_going);
                let is_going = going.any(|known| known.entry == file.entry);
                if let Some(broken) = broken.filter(|_| !is_going) {
                    ledger.violations.push(format!("{file:?} {broken}"));
                }
            }
            if at % 2 == 0 {
                self.complain("a reader's view");
            }
        }
    }

    fn complain(&self, of: &str) {
        if let Some(complaint) = self.replica.complaints().pop() {
            self.violation(format!("{of}: {complaint}"));
        }
    }

    /// A collector's turn: pages at zero, a grace, blocks that are over it, stripes of which nothing lives, and orphans.
    fn turn(&self, holder: u64, lease: u64) {
        let span_ms = LEASE_MS;
        let take = GroupCommand::TakeLease { holder, lease, span_ms };
        let has_lease = self.runs(Command::Group(take), &["lease_taken"]).is_some();
        let drive = self.drive;
        self.sweep(|| DriveCommand::ReapPages { drive });
        for _ in 0..STEPS {
            let led_ms = self.led_ms.fetch_add(STEP_MS, Ordering::Relaxed) + STEP_MS;
            self.runs(Command::Group(GroupCommand::Advance { term: 1, led_ms }), &[]);
        }
        self.sweep(|| DriveCommand::SweepBlocks { drive });
        if has_lease {
            self.clear_dead(lease);
        }
        self.clear_orphans();
    }

    fn sweep(&self, command: impl Fn() -> DriveCommand) {
        loop {
            match self.runs(Command::Drive(command()), &[]) {
                Some(CommandAnswer::Swept(swept)) if !swept.is_done => {}
                _ => return,
            }
        }
    }

    /// Has every disk remove what the group says is dead, and tells the group. Another may have the lease by now.
    fn clear_dead(&self, lease: u64) {
        let dead = match self.replica.query(&Query::Collection(None)) {
            Ok(QueryAnswer::Collection(collection)) => collection.removable,
            other => panic!("{other:?}"),
        };
        if dead.is_empty() {
            return;
        }
        dead.iter().for_each(|facts| self.remove(facts.id));
        lock(&self.ledger).removed += dead.len() as u64;
        let stripes = dead.iter().map(|facts| ForgottenStripe {
            profile: PROFILE,
            stripe: facts.id,
            untold: Vec::new(),
        });
        let stripes = stripes.collect();
        let forget = GroupCommand::ForgetStripes { lease, stripes };
        self.runs(Command::Group(forget), &["lease_lost"]);
    }

    /// Removes what the group does not know: listed first, asked for then, since what is written meanwhile may be committed.
    fn clear_orphans(&self) {
        let listed = self.stored();
        let orphans: Vec<StripeId> = if self.plant == Plant::YoungOrphans {
            let alive = self.alive();
            listed.into_iter().filter(|stripe| !alive.contains(stripe)).collect()
        } else {
            let asked = listed.into_iter().map(|stripe| (PROFILE, stripe)).collect();
            match self.replica.query(&Query::Orphans(asked)) {
                Ok(QueryAnswer::Orphans(found)) => found.into_iter().map(|(_, stripe)| stripe).collect(),
                other => panic!("{other:?}"),
            }
        };
        orphans.iter().for_each(|stripe| self.remove(*stripe));
        lock(&self.ledger).orphans += orphans.len() as u64;
    }

    /// The stripes of all blocks that the drive has.
    fn alive(&self) -> BTreeSet<StripeId> {
        let every = blocks((1_u8 << BLOCKS) - 1);
        self.known(&every).stripes.iter().map(|facts| facts.id).collect()
    }

    pub(super) fn collect(&self, holder: u64) {
        for turn in 0..TURNS {
            self.turn(holder, (holder + 1) * 100 + turn);
        }
    }

    pub(super) fn repack(&self) {
        (0..GATHERINGS).for_each(|_| self.gather());
    }

    /// Moves what lives in stripes less than half alive: reads it, writes it anew and has the places switched.
    fn gather(&self) {
        let found = match self.replica.query(&Query::Repackable(None)) {
            Ok(QueryAnswer::Repackable(found)) => found,
            other => panic!("{other:?}"),
        };
        let is_there = found.stripes.iter().all(|stripe| self.is_whole(stripe.facts.id));
        let Some(lease) = found.lease.filter(|_| is_there && !found.stripes.is_empty()) else {
            return;
        };
        let (rows, from) = living(&found);
        let repacking = Repacking {
            drive: self.drive,
            lease: lease.lease,
            stripe: self.store(&rows),
            from,
        };
        let command = Command::Upload(UploadCommand::RepackBlocks(repacking));
        if let Some(CommandAnswer::Repacked(moved)) = self.runs(command, &["lease_lost", "birth_epoch_closed"]) {
            lock(&self.ledger).moved += u64::from(moved.blocks);
        }
    }

    /// What a mark lets the log forget must be found by whoever starts after a power cut.
    pub(super) fn mark(&self) {
        for _ in 0..MARKS {
            let marked = self.replica.mark();
            let (found, complaints) = restarted(self.kv.crash(0));
            if found < marked || !complaints.is_empty() {
                self.violation(format!(
                    "after a power cut {found} is found where {marked} was marked: {complaints:?}"
                ));
            }
        }
    }

    /// Two graces and more in which nobody writes; what must hold then.
    pub(super) fn rest(&self) {
        for round in 0..ROUNDS {
            self.turn(LAST, (LAST + 1) * 100 + round);
            self.gather();
        }
        let files = lock(&self.ledger).files.clone();
        for file in files.into_iter().filter(|file| !file.is_going) {
            if let Some(broken) = self.look(file) {
                self.violation(format!("in the end {file:?} {broken}"));
            }
        }
        self.complain("the end");
        let (stored, alive) = (self.stored(), self.alive());
        if !stored.iter().eq(&alive) {
            self.violation(format!("in the end disks hold {stored:?}, alive are {alive:?}"));
        }
    }
}
