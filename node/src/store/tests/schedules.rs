//! Puts, removals, reads and compaction under many schedules: switched before every I/O and every look into the index.
//!
//! Level 3 of docs/testing.md. The real writer, reader and core run on shuttle's threads, over a simulated disk and an index in
//! memory. A seed is eight schedules drawn freely and as many by priorities, each with other puts and removals.
//! `HOLDFAST_SCHEDULE_SEED=n cargo test --release -p node schedules` replays one, `HOLDFAST_SCHEDULES=n` tries so many.
//! Checked: what is acknowledged survives a power cut at that moment; a read gives what was acknowledged last, and where a write is
//! under way either; never damage, never other bytes; nothing waits for ever.
//! Not here: power cuts between the I/Os of one step (`crash`), the disk's own threads and RocksDB's.

use super::harness::{CAPACITY_BYTES, Rng, fragment, name, options, payload};
use super::switching::{Plant, SwitchingKv, switch, switching};
use crate::store::core::{Core, Write};
use crate::store::read::ReadFault;
use crate::store::tally::Tally;
use crate::store::writer::{Request, Requests, run_writer};
use crate::store::{CompactionStep, FragmentStore, StoreError};
use disk::SimDisk;
use disk::sim::Survivors;
use kv::memory::MemoryKv;
use model::id::DiskId;
use protocol::node::ByteRange;
use schedules::{Explored, Schedule, Suite, lock};
use shuttle::future::block_on;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const SUITE: Suite = Suite {
    package: env!("CARGO_PKG_NAME"),
    // Some seconds on one core.
    seeds: 60,
    seeds_to_catch: 120,
    free_per_seed: 8,
    prioritized_per_seed: 8,
    stack_bytes: 1 << 20,
};
const WRITERS: u8 = 2;
const IDS_A_WRITER: u8 = 4;
const IDS: u8 = WRITERS * IDS_A_WRITER;
const CHANGES: usize = 4;
const READERS: u64 = 2;
const READS: usize = 5;
const COMPACTIONS: usize = 16;

/// What is known of an id: every change of it comes from one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    is_there: bool,
    is_changing: bool,
    changes: u64,
}

/// What happened in one schedule. Its lock is never held where threads are switched.
#[derive(Debug, Default)]
struct Ledger {
    known: BTreeMap<u8, Known>,
    violations: Vec<String>,
    certain_reads: u64,
    emptied: u64,
    unlinked: u64,
}

type Shared = schedules::Shared<Ledger>;

impl schedules::Ledger for Ledger {
    type Seen = Self;

    fn violations(&self) -> &[String] {
        &self.violations
    }

    fn count(self, seen: &mut Self) {
        seen.certain_reads += self.certain_reads;
        seen.emptied += self.emptied;
        seen.unlinked += self.unlinked;
    }
}

/// The store's queue, with waits that the scheduler sees.
struct Waiting(mpsc::Receiver<Request>);

impl Requests for Waiting {
    fn wait(&mut self) -> Option<Request> {
        block_on(self.0.recv())
    }

    fn take(&mut self) -> Option<Request> {
        switch();
        self.0.try_recv().ok()
    }
}

/// A store with its disk and index, whose writer runs on a thread of the schedule.
#[derive(Clone)]
struct Stage {
    store: FragmentStore,
    disk: SimDisk,
    index: Arc<MemoryKv>,
    ledger: Shared,
}

impl Stage {
    fn set(seed: u64, plant: Plant, ledger: &Shared) -> (Self, shuttle::thread::JoinHandle<()>) {
        let (disk, index, tally) = (
            SimDisk::new(CAPACITY_BYTES),
            Arc::new(MemoryKv::new()),
            Arc::new(Tally::default()),
        );
        let seam = switching(&disk, plant);
        let kv = Arc::new(SwitchingKv::new(Arc::clone(&index), plant));
        let (mut core, _) = Core::open(Arc::clone(&seam), kv.clone(), &options(), Arc::clone(&tally)).unwrap();
        fill(&mut core, seed, ledger);
        let mut reader = core.reader();
        if plant == Plant::OneLook {
            reader.lookups_max = 1;
        }
        let (requests, queue) = mpsc::channel(16);
        let options = options();
        let batch_bytes_max = options.batch_bytes_max;
        let writer = shuttle::thread::spawn(move || run_writer(core, Waiting(queue), batch_bytes_max));
        let store = FragmentStore {
            id: DiskId(1),
            disk: seam,
            index: kv,
            reader,
            tally,
            requests,
            segment_bytes: options.segment_bytes,
            writer: Arc::default(),
        };
        let stage = Self {
            store,
            disk,
            index,
            ledger: Arc::clone(ledger),
        };
        (stage, writer)
    }

    fn violation(&self, what: String) {
        lock(&self.ledger).violations.push(what);
    }

    /// Stores and removes the ids of one writer.
    fn write(&self, writer: u8, seed: u64) {
        let mut rng = Rng::new(seed ^ (u64::from(writer) << 40));
        for _ in 0..CHANGES {
            let id = writer * IDS_A_WRITER + rng.below(u64::from(IDS_A_WRITER)) as u8;
            let (stores, was_there) = (rng.below(2) == 0, self.begin(id));
            let answer = if stores {
                let (header, bytes) = fragment(id);
                block_on(self.store.store(header, bytes))
            } else {
                block_on(self.store.remove(name(id)))
            };
            // A store answers whether it was there before, a removal too.
            if answer != Ok(was_there) {
                self.violation(format!("{id} was there: {was_there}, answered {answer:?}"));
            }
            let left = (self.disk.crash(Survivors::None), self.index.crash(0));
            if let Some(broken) = differs(left, id, stores) {
                self.violation(format!("{id} after a cut at the answer: {broken}"));
            }
            self.end(id, stores);
        }
    }

    fn begin(&self, id: u8) -> bool {
        let mut ledger = lock(&self.ledger);
        let known = ledger.known.entry(id).or_default();
        known.is_changing = true;
        known.changes += 1;
        known.is_there
    }

    fn end(&self, id: u8, is_there: bool) {
        let mut ledger = lock(&self.ledger);
        let known = ledger.known.entry(id).or_default();
        (known.is_there, known.is_changing) = (is_there, false);
    }

    fn known(&self, id: u8) -> Known {
        lock(&self.ledger).known.get(&id).copied().unwrap_or_default()
    }

    /// Reads any id while others change it.
    fn read(&self, seed: u64) {
        let mut rng = Rng::new(!seed);
        for _ in 0..READS {
            let id = rng.below(u64::from(IDS)) as u8;
            let before = self.known(id);
            let found = self.store.reader.read(&name(id), &[whole(id)]);
            let is_certain = before == self.known(id) && !before.is_changing;
            lock(&self.ledger).certain_reads += u64::from(is_certain);
            let broken = match found {
                Ok(read) if read.payload != payload(id) => Some("other bytes".to_owned()),
                Ok(_) if is_certain && !before.is_there => Some("is back".to_owned()),
                Err(ReadFault::Store(StoreError::NotFound)) if is_certain && before.is_there => {
                    Some("is not found".to_owned())
                }
                Ok(_) | Err(ReadFault::Store(StoreError::NotFound)) => None,
                Err(fault) => Some(format!("does not read: {fault:?}")),
            };
            if let Some(broken) = broken {
                self.violation(format!("{id} {broken}"));
            }
        }
    }

    /// Compacts with a limbo of no time, so that segments go while they are read.
    fn compact(&self) {
        for _ in 0..COMPACTIONS {
            let step = block_on(self.store.compact(Duration::ZERO, Duration::ZERO));
            let mut ledger = lock(&self.ledger);
            match step {
                Ok(CompactionStep::Emptied(_)) => ledger.emptied += 1,
                Ok(CompactionStep::Unlinked(_)) => ledger.unlinked += 1,
                Ok(_) => {}
                Err(error) => ledger.violations.push(format!("compaction: {error}")),
            }
        }
    }
}

fn whole(id: u8) -> ByteRange {
    ByteRange {
        offset: 0,
        len: payload(id).len() as u32,
    }
}

/// Fills some segments of which little lives, and notes what does.
fn fill(core: &mut Core, seed: u64, ledger: &Shared) {
    for id in 0..IDS {
        let (header, payload) = fragment(id);
        core.commit(vec![Write::Store { header, payload }]);
    }
    for id in (0..IDS).filter(|id| !(u64::from(*id) + seed).is_multiple_of(3)) {
        core.commit(vec![Write::Remove { name: name(id) }]);
    }
    let mut ledger = lock(ledger);
    for id in 0..IDS {
        let is_there = (u64::from(id) + seed).is_multiple_of(3);
        ledger.known.insert(
            id,
            Known {
                is_there,
                ..Known::default()
            },
        );
    }
}

/// What is wrong with `id` in a store that starts on what a cut left.
fn differs((disk, index): (SimDisk, MemoryKv), id: u8, is_there: bool) -> Option<String> {
    let opened = Core::open(Arc::new(disk), Arc::new(index), &options(), Arc::new(Tally::default()));
    let (core, _) = match opened {
        Ok(opened) => opened,
        Err(error) => return Some(format!("does not open: {error}")),
    };
    match core.reader().read(&name(id), &[whole(id)]) {
        Ok(read) if read.payload != payload(id) => Some("other bytes".to_owned()),
        Ok(_) => (!is_there).then(|| "is back".to_owned()),
        Err(ReadFault::Store(StoreError::NotFound)) => is_there.then(|| "is lost".to_owned()),
        Err(fault) => Some(format!("does not read: {fault:?}")),
    }
}

/// One schedule, and what must hold when all is over.
fn scene(seed: u64, plant: Plant, ledger: &Shared) {
    let (stage, writer) = Stage::set(seed, plant, ledger);
    let mut threads = Vec::new();
    for number in 0..WRITERS {
        let stage = stage.clone();
        threads.push(shuttle::thread::spawn(move || stage.write(number, seed)));
    }
    for number in 0..READERS {
        let stage = stage.clone();
        threads.push(shuttle::thread::spawn(move || stage.read(seed ^ (number << 50))));
    }
    let compacting = stage.clone();
    threads.push(shuttle::thread::spawn(move || compacting.compact()));
    for thread in threads {
        thread.join().unwrap();
    }
    block_on(stage.store.stop());
    writer.join().unwrap();
    for id in 0..IDS {
        let left = (stage.disk.crash(Survivors::None), stage.index.crash(0));
        if let Some(broken) = differs(left, id, stage.known(id).is_there) {
            stage.violation(format!("{id} after the stop: {broken}"));
        }
    }
}

fn scene_with(plant: Plant) -> impl Fn(Schedule, &Shared) + Send + Sync + 'static {
    move |schedule, ledger| scene(schedule.seed * 1_000 + schedule.number, plant, ledger)
}

/// shows: F12
/// shows: F14
#[test]
fn in_every_schedule_compaction_takes_nothing_from_puts_reads_and_removals() {
    let Explored { seen, is_replay } = SUITE.explore(scene_with(Plant::None));
    assert!(is_replay || (seen.certain_reads > 0 && seen.emptied > 0 && seen.unlinked > 0));
}

#[test]
fn the_schedules_catch_an_answer_before_its_sync() {
    let caught = SUITE.catch(scene_with(Plant::AnswerBeforeSync));
    assert!(caught.contains("after a cut at the answer"), "{caught}");
}

/// The index is pointed to the copies some time after compaction looked whether their old places are unchanged.
#[test]
fn the_schedules_catch_an_index_swapped_although_the_place_changed_meanwhile() {
    SUITE.catch(scene_with(Plant::LateSwap));
}

/// A segment that is gone means that the fragment moved, so it is looked up once more.
#[test]
fn the_schedules_catch_a_reader_that_does_not_look_again() {
    let caught = SUITE.catch(scene_with(Plant::OneLook));
    assert!(caught.contains("does not read"), "{caught}");
}
