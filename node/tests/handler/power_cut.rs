//! The power goes right after an answer: whatever the node acknowledged over its transport is there when it starts again.
//!
//! Several calls are under way at once; at each answer what the disks would hold after a cut just then is put aside, and a second
//! node starts on it and is asked for everything. Every failure names its seed.
//! Not here: cuts between two I/Os (`store::tests::crash`), the process killed under load (tests/cluster).

use crate::bench::{Bench, CAPACITY_BYTES, bench_on};
use bytes::Bytes;
use codec::erasure;
use disk::judged::{Io, Verdict};
use disk::sim::Survivors;
use disk::{Disk, JudgedDisk, SimDisk};
use kv::memory::MemoryKv;
use model::id::DiskId;
use model::profile::ProfileId;
use model::stripe::{FragmentName, StripeForm, StripeId};
use protocol::frame::Method;
use protocol::node::{ByteRange, FragmentRead, ReadFragment, RemoveStripe, StoreAnswer, StripeRemoved, code};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;

const SEEDS: u64 = 12;
const DISKS: u32 = 3;
const STRIPES: u64 = 30;
/// Calls under way at a time.
const AT_ONCE: usize = 6;

/// xorshift64 (Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A stripe of which the node holds the first fragment, on one of its disks.
#[derive(Clone)]
struct Sample {
    name: FragmentName,
    form: StripeForm,
    payload: Bytes,
    disk: u32,
}

fn sample(seed: u64, number: u64) -> Sample {
    let len_bytes = 1 + (seed * 7_919 + number * 104_729) % 90_000;
    let bytes: Vec<u8> = (0..len_bytes)
        .map(|place| (place.wrapping_mul(31 + number) >> 3) as u8 ^ number as u8)
        .collect();
    let (form, fragments) = erasure::encode(&Bytes::from(bytes), 1, 2).unwrap();
    let name = FragmentName {
        profile: ProfileId::Copies,
        stripe: StripeId(u128::from(number) << 64 | u128::from(seed)),
        index: 0,
    };
    Sample {
        name,
        form,
        payload: fragments[0].clone(),
        disk: 1 + (number % u64::from(DISKS)) as u32,
    }
}

/// The state of a sample as the caller knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    UnderWay,
    Stored,
    Removed,
}

/// The disks of a node with their indexes.
struct Machine {
    disks: BTreeMap<u32, (SimDisk, Arc<MemoryKv>)>,
}

impl Machine {
    fn new() -> Self {
        let disk = |number| (number, (SimDisk::new(CAPACITY_BYTES), Arc::new(MemoryKv::new())));
        Self {
            disks: (1..=DISKS).map(disk).collect(),
        }
    }

    /// What the power leaves if it goes now.
    fn cut(&self, rng: &mut Rng) -> Self {
        let mut cut = |(number, (disk, index)): (&u32, &(SimDisk, Arc<MemoryKv>))| {
            let survivors = match rng.below(3) {
                0 => Survivors::Seed(rng.below(u64::MAX)),
                _ => Survivors::None,
            };
            let kept = rng.below(index.unsynced_batches() as u64 + 1) as usize;
            (*number, (disk.crash(survivors), Arc::new(index.crash(kept))))
        };
        Self {
            disks: self.disks.iter().map(&mut cut).collect(),
        }
    }

    /// A node on these disks; with `lies` they answer a sync without doing it.
    fn start(&self, lies: bool) -> Bench {
        bench_on(self.disks.iter().map(|(number, (disk, index))| {
            let judge = move |io: Io<'_>| match io {
                Io::Sync(_) if lies => Verdict::Pretend,
                _ => Verdict::Pass,
            };
            let seam: Arc<dyn Disk> = Arc::new(JudgedDisk::new(Arc::new(disk.clone()), Arc::new(judge)));
            (*number, seam, Arc::clone(index))
        }))
    }
}

async fn put(bench: Bench, sample: Sample) -> (Sample, Known) {
    let stored = bench
        .store_as(sample.name, sample.form, sample.payload.clone(), sample.disk, 1)
        .await;
    assert!(matches!(stored, Ok(StoreAnswer::Stored(_))), "{stored:?}");
    (sample, Known::Stored)
}

async fn remove(bench: Bench, sample: Sample) -> (Sample, Known) {
    let request = RemoveStripe {
        profile: sample.name.profile,
        stripe: sample.name.stripe,
    };
    let removed: Result<(StripeRemoved, Bytes), String> =
        bench.call(Method::RemoveStripe, &request, Bytes::new()).await;
    assert!(matches!(removed, Ok((removed, _)) if removed.fragments == 1));
    (sample, Known::Removed)
}

/// What a node holds of a sample: its bytes, or nothing.
async fn held(bench: &Bench, sample: &Sample) -> Result<Option<Bytes>, String> {
    let request = ReadFragment {
        name: sample.name,
        disk: DiskId(sample.disk),
        ranges: vec![ByteRange {
            offset: 0,
            len: sample.payload.len() as u32,
        }],
    };
    let read: Result<(FragmentRead, Bytes), String> = bench.call(Method::ReadFragment, &request, Bytes::new()).await;
    match read {
        Ok((facts, _)) if facts.form != sample.form => Err("another form".to_owned()),
        Ok((_, bytes)) => Ok(Some(bytes)),
        Err(code) if code == code::NO_FRAGMENT => Ok(None),
        Err(code) => Err(code),
    }
}

/// Starts a node on what a cut left and compares; `Err` names what was acknowledged and is not so.
async fn compare(left: &Machine, known: &BTreeMap<u64, (Sample, Known)>) -> Result<(), String> {
    let bench = left.start(false);
    for (number, (sample, known)) in known {
        let is_kept = match (held(&bench, sample).await, known) {
            (Ok(Some(bytes)), Known::Stored | Known::UnderWay) => bytes == sample.payload,
            (Ok(None), Known::Removed | Known::UnderWay) => true,
            _ => false,
        };
        if !is_kept {
            return Err(format!("stripe {number} is {known:?} and not so after the cut"));
        }
    }
    Ok(())
}

/// Runs one seed; how many cuts were compared, or the first loss.
async fn check(seed: u64, lies: bool) -> Result<u64, String> {
    let (machine, mut rng) = (Machine::new(), Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    let bench = machine.start(lies);
    let (mut calls, mut known) = (JoinSet::new(), BTreeMap::new());
    let (mut next, mut cuts) = (0, 0);
    loop {
        while calls.len() < AT_ONCE && next < STRIPES {
            let sample = sample(seed, next);
            known.insert(next, (sample.clone(), Known::UnderWay));
            calls.spawn(put(bench.clone(), sample));
            next += 1;
        }
        let Some(answered) = calls.join_next().await else { break };
        let (sample, now) = answered.unwrap();
        // The cut comes right behind the answer, and nothing of this test runs in between.
        let left = machine.cut(&mut rng);
        let number = (sample.name.stripe.0 >> 64) as u64;
        known.insert(number, (sample.clone(), now));
        let compared = compare(&left, &known).await;
        compared.map_err(|lost| format!("seed {seed}, cut {cuts}: {lost}"))?;
        cuts += 1;
        if now == Known::Stored && rng.below(3) == 0 {
            known.insert(number, (sample.clone(), Known::UnderWay));
            calls.spawn(remove(bench.clone(), sample));
        }
    }
    Ok(cuts)
}

/// shows: F15
/// shows: F12
#[tokio::test]
async fn what_a_node_acknowledged_is_there_after_a_power_cut_right_behind_the_answer() {
    let mut cuts = 0;
    for seed in 1..=SEEDS {
        cuts += check(seed, false).await.unwrap_or_else(|lost| panic!("{lost}"));
    }
    println!("{cuts} cuts");
    assert!(cuts > SEEDS * STRIPES, "removals are among them");
}

#[tokio::test]
async fn the_cuts_catch_disks_that_answer_before_they_synced() {
    let mut found = Vec::new();
    for seed in 1..=SEEDS {
        found.push(check(seed, true).await.expect_err("the planted bug was not seen"));
    }
    // Of a stripe under way such a disk may keep a part; more often it is one that was acknowledged.
    assert!(found.iter().any(|lost| lost.contains("Stored")), "{found:?}");
}
