//! Group commit under many schedules: callers, closures, a stop and the journal's thread, switched wherever they meet.
//!
//! Level 3 of docs/testing.md. The source of `group_commit` is compiled here a second time, over shuttle's threads, lock and queue,
//! and every I/O of the simulated disk lets others run before and after it. A seed is one schedule and one set of callers:
//! `HOLDFAST_SCHEDULE_SEED=n cargo test --release -p disk schedules` replays it, `HOLDFAST_SCHEDULES=n` tries so many.
//! Checked: a positive answer means durable at that moment; each accepted submission is answered once, in order; what was refused
//! is nowhere; nothing waits for ever.
//! Not here: a full queue (32 MiB of drafts a schedule), and what relaxed atomics may do: the group commit has none.

#[expect(
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the same source again, over other threads: that is the point"
)]
#[allow(
    dead_code,
    reason = "a driven journal has no threads whose schedules could be chosen"
)]
#[path = "group_commit.rs"]
mod group_commit;
mod threads;

use self::group_commit::{Completion, GroupCommit, Submission};
use self::threads::Plant;
use crate::journal::{Draft, Journal, JournalError, JournalOptions, LimboScope, Place, Purpose, TailPolicy};
use crate::judged::{Io, JudgedDisk, Verdict};
use crate::seam::Disk;
use crate::sim::{SimDisk, Survivors};
use bytes::Bytes;
use schedules::{Explored, Schedule, Suite, lock};
use shuttle::future::block_on;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

const SUITE: Suite = Suite {
    package: env!("CARGO_PKG_NAME"),
    // Some seconds on one core.
    seeds: 10_000,
    // Each planted bug needs far fewer.
    seeds_to_catch: 1_000,
    free_per_seed: 1,
    prioritized_per_seed: 0,
    // The journal alone needs more than what shuttle gives a thread.
    stack_bytes: 512 << 10,
};
const CALLERS: u64 = 3;
const SUBMISSIONS: u64 = 4;
const KIND: u8 = 16;

/// Caller and number of a submission: its payload.
type Name = (u64, u64);

/// What happened in one schedule. Its lock is never held where threads are switched.
#[derive(Default)]
struct Ledger {
    accepted: BTreeSet<Name>,
    /// Nobody waits for these; they were handed over before that.
    abandoned: BTreeSet<Name>,
    refused: BTreeSet<Name>,
    /// In the order of the answers.
    answers: Vec<(Name, Result<Place, JournalError>)>,
    violations: Vec<String>,
    syncs: u64,
    tasks: u64,
}

type Shared = schedules::Shared<Ledger>;

/// What many schedules met: without each of these they prove little.
#[derive(Debug, Default)]
struct Seen {
    answers: u64,
    refusals: u64,
    abandoned: u64,
    /// Answers that came with another one in the same sync.
    shared_syncs: u64,
    tasks: u64,
}

impl schedules::Ledger for Ledger {
    type Seen = Seen;

    fn violations(&self) -> &[String] {
        &self.violations
    }

    fn count(self, seen: &mut Seen) {
        seen.answers += self.answers.len() as u64;
        seen.refusals += self.refused.len() as u64;
        seen.abandoned += self.abandoned.len() as u64;
        seen.tasks += self.tasks;
        let written = (self.answers.len() + self.abandoned.len()) as u64;
        seen.shared_syncs += u64::from(written > self.syncs);
    }
}

/// xorshift64 (Marsaglia 2003).
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn options() -> JournalOptions {
    JournalOptions {
        segment_bytes: 32 << 10,
        batch_bytes_max: 12 << 10,
        ..JournalOptions::new(TailPolicy::StopAtFirstBad, Arc::new(|| 7))
    }
}

fn draft((caller, number): Name) -> Draft {
    let len_bytes = 16 + (caller * 1_913 + number * 977) as usize % 5_000;
    let mut payload = vec![caller as u8; len_bytes];
    payload[..8].copy_from_slice(&caller.to_le_bytes());
    payload[8..16].copy_from_slice(&number.to_le_bytes());
    Draft::new(KIND, Bytes::from(payload))
}

fn name_in(payload: &Bytes) -> Name {
    let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

/// A disk that lets other threads run around every I/O, and with the plant does not sync.
fn judged(disk: &SimDisk, plant: Plant, ledger: &Shared) -> Arc<dyn Disk> {
    let ledger = Arc::clone(ledger);
    let judge = move |io: Io<'_>| {
        shuttle::thread::yield_now();
        let is_sync = matches!(io, Io::Sync(_));
        lock(&ledger).syncs += u64::from(is_sync);
        match plant {
            Plant::AnswerBeforeSync if is_sync => Verdict::Pretend,
            _ => Verdict::Pass,
        }
    };
    Arc::new(JudgedDisk::new(Arc::new(disk.clone()), Arc::new(judge)))
}

/// The names in a journal, in its order.
fn contents(disk: &SimDisk) -> Result<Vec<Name>, String> {
    let opened = Journal::open(Arc::new(disk.clone()), "j", options());
    let (journal, _) = opened.map_err(|error| format!("does not open: {error}"))?;
    let mut names = Vec::new();
    let visited = journal.reader().visit(None, LimboScope::With, &mut |record| {
        names.push(name_in(&record.checked));
        ControlFlow::Continue(())
    });
    match visited {
        Ok(damage) if damage.is_empty() => Ok(names),
        other => Err(format!("does not read: {other:?}")),
    }
}

/// Notes an answer, and whether the power may be cut right now.
fn note(ledger: &Shared, disk: &SimDisk, name: Name, answer: Result<Vec<Place>, JournalError>) {
    let durable = contents(&disk.crash(Survivors::None));
    let mut ledger = lock(ledger);
    if answer.is_ok() && !durable.as_ref().is_ok_and(|names| names.contains(&name)) {
        ledger
            .violations
            .push(format!("{name:?} is answered and not durable: {durable:?}"));
    }
    ledger.answers.push((name, answer.map(|places| places[0])));
}

fn completion(ledger: &Shared, disk: &SimDisk, name: Name) -> Completion {
    let (ledger, disk) = (Arc::clone(ledger), disk.clone());
    Box::new(move |answer| {
        shuttle::thread::yield_now();
        note(&ledger, &disk, name, answer);
    })
}

/// Hands over some submissions, in each of the ways there are.
fn call(journal: &GroupCommit, ledger: &Shared, disk: &SimDisk, caller: u64, seed: u64) {
    let mut rng = Rng::new(seed ^ (caller << 32));
    for number in 0..SUBMISSIONS {
        let name = (caller, number);
        let (drafts, purpose) = (vec![draft(name)], Purpose::Foreground);
        let result = match rng.below(5) {
            0 => {
                let done = completion(ledger, disk, name);
                journal.try_submit(Submission { drafts, purpose, done })
            }
            1 => {
                let done = completion(ledger, disk, name);
                block_on(journal.submit(Submission { drafts, purpose, done }))
            }
            2 => {
                // Polled once and dropped, as a caller does who goes away.
                let mut append = pin!(journal.append(drafts, purpose));
                match append.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    std::task::Poll::Ready(answer) => append_answered(journal, ledger, disk, name, answer),
                    std::task::Poll::Pending => {
                        lock(ledger).abandoned.insert(name);
                        continue;
                    }
                }
            }
            3 => {
                task(journal, ledger, caller);
                let answer = block_on(journal.append(drafts, purpose));
                append_answered(journal, ledger, disk, name, answer)
            }
            _ => {
                let answer = block_on(journal.append(drafts, purpose));
                append_answered(journal, ledger, disk, name, answer)
            }
        };
        let mut ledger = lock(ledger);
        match result {
            Ok(()) => ledger.accepted.insert(name),
            Err(JournalError::Stopped) => ledger.refused.insert(name),
            Err(error) => {
                ledger.violations.push(format!("{name:?}: {error}"));
                false
            }
        };
    }
}

fn append_answered(
    journal: &GroupCommit,
    ledger: &Shared,
    disk: &SimDisk,
    name: Name,
    answer: Result<Vec<Place>, JournalError>,
) -> Result<(), JournalError> {
    let told = answer.as_ref().map(|_| ()).map_err(Clone::clone);
    if let Ok(places) = &answer {
        let read = journal.reader().payload(places[0]);
        if read.as_ref().map(name_in) != Ok(name) {
            let what = format!("{name:?} is answered and does not read: {read:?}");
            lock(ledger).violations.push(what);
        }
        note(ledger, disk, name, answer);
    }
    told
}

/// A closure runs behind everything that its caller handed over before.
fn task(journal: &GroupCommit, ledger: &Shared, caller: u64) {
    let shared = Arc::clone(ledger);
    let waiting = block_on(journal.with(move |journal| {
        let ledger = lock(&shared);
        let own = |name: &&Name| name.0 == caller;
        let answered: BTreeSet<Name> = ledger.answers.iter().map(|(name, _)| *name).collect();
        let waiting = ledger.accepted.iter().filter(own).any(|name| !answered.contains(name));
        (waiting, journal.next_sequence())
    }));
    let mut ledger = lock(ledger);
    if let Ok((is_waiting, _)) = waiting {
        ledger.tasks += 1;
        if is_waiting {
            ledger
                .violations
                .push(format!("a closure of {caller} overtook its submissions"));
        }
    }
}

/// One schedule: callers and, by the seed, a stop in their midst; then what must hold when all is over.
fn scene(seed: u64, plant: Plant, ledger: &Shared) {
    threads::plant(plant);
    let disk = SimDisk::new(1 << 20);
    let (opened, _) = Journal::open(judged(&disk, plant, ledger), "j", options()).unwrap();
    let journal = Arc::new(GroupCommit::start(opened, "journal").unwrap());
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (journal, ledger, disk) = (Arc::clone(&journal), Arc::clone(ledger), disk.clone());
            shuttle::thread::spawn(move || call(&journal, &ledger, &disk, caller, seed))
        })
        .collect();
    let mut stops = Vec::new();
    if seed.is_multiple_of(2) {
        stops.push(journal.stop());
    }
    for caller in callers {
        caller.join().unwrap();
    }
    stops.extend([journal.stop(), journal.stop()]);
    let mut ledger = lock(ledger);
    if stops.iter().any(Result::is_err) {
        ledger.violations.push(format!("stopping answers {stops:?}"));
    }
    let violation = at_the_end(&ledger, &disk);
    ledger.violations.extend(violation);
}

/// The first broken promise when everything has ended.
fn at_the_end(ledger: &Ledger, disk: &SimDisk) -> Option<String> {
    let mut counts: BTreeMap<Name, u32> = BTreeMap::new();
    for (name, _) in &ledger.answers {
        *counts.entry(*name).or_default() += 1;
    }
    let answered: BTreeSet<Name> = counts.keys().copied().collect();
    if answered != ledger.accepted || counts.values().any(|count| *count > 1) {
        return Some(format!("accepted {:?}, answered {counts:?}", ledger.accepted));
    }
    if let Some(failed) = ledger.answers.iter().find(|(_, answer)| answer.is_err()) {
        return Some(format!("a healthy disk fails {failed:?}"));
    }
    let kept = match contents(&disk.crash(Survivors::None)) {
        Ok(kept) => kept,
        Err(broken) => return Some(broken),
    };
    let expected: BTreeSet<Name> = ledger.accepted.union(&ledger.abandoned).copied().collect();
    let found: BTreeSet<Name> = kept.iter().copied().collect();
    if found != expected || found.len() != kept.len() {
        return Some(format!("expected {expected:?}, found {kept:?}"));
    }
    let is_ordered = |caller: u64| kept.iter().filter(|name| name.0 == caller).is_sorted();
    (!(0..CALLERS).all(is_ordered)).then(|| format!("records out of order: {kept:?}"))
}

fn scene_with(plant: Plant) -> impl Fn(Schedule, &Shared) + Send + Sync + 'static {
    move |schedule, ledger| scene(schedule.seed, plant, ledger)
}

/// shows: F12
#[test]
fn in_every_schedule_an_answer_means_durable_and_everybody_gets_one() {
    let Explored { seen, is_replay } = SUITE.explore(scene_with(Plant::None));
    let counts = [
        seen.answers,
        seen.refusals,
        seen.abandoned,
        seen.tasks,
        seen.shared_syncs,
    ];
    assert!(is_replay || counts.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn the_schedules_catch_an_answer_before_its_sync() {
    let caught = SUITE.catch(scene_with(Plant::AnswerBeforeSync));
    assert!(caught.contains("not durable"), "{caught}");
}

#[test]
fn the_schedules_catch_a_lost_wake_up() {
    let caught = SUITE.catch(scene_with(Plant::LostWakeUp));
    assert!(caught.contains("waits for ever"), "{caught}");
}

#[test]
fn the_schedules_catch_a_command_that_comes_behind_the_stop() {
    let caught = SUITE.catch(scene_with(Plant::LateCommand));
    assert!(
        caught.contains("accepted") || caught.contains("out of order"),
        "{caught}"
    );
}
