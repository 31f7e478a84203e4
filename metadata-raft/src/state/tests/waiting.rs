//! The queue of waiting work: who follows it alone misses nothing, and what an earlier release left is entered.

use super::{Bench, place, row, sessions, versions};
use crate::state::age;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys::{self, Key};
use crate::state::waiting::{self, AT_ONCE, Sweep, WaitingRecord, Work};
use crate::state::{purge, store};
use bytes::Bytes;
use kv::seam::{Change, Kv, KvRead, Scan};
use model::id::{DriveId, EntryId, Slot};
use model::time::Age;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use proptest::test_runner::Config;
use protocol::metadata::drive::{DriveCommand, Swept};
use protocol::metadata::group::{AdoptedSlot, GroupCommand};
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::UploadCommand;
use protocol::metadata::{Command, QueryAnswer, RequestKey, RequestLife};
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// The command that a piece of work asks for.
fn command(work: Work, job: u64) -> Command {
    let drive = work.drive;
    match work.sweep {
        Sweep::Job => Command::Drive(DriveCommand::SweepJob {
            drive,
            job: work.number,
        }),
        Sweep::Pages => Command::Drive(DriveCommand::ReapPages { drive }),
        Sweep::Trash => Command::Drive(DriveCommand::SweepTrash { drive, job }),
        Sweep::Sessions => Command::Upload(UploadCommand::SweepSessions { drive }),
        Sweep::Requests => Command::Drive(DriveCommand::SweepRequests { drive }),
        Sweep::Versions => Command::Drive(DriveCommand::SweepVersions { drive }),
        Sweep::Dropped => Command::Drive(DriveCommand::SweepDropped { drive }),
        Sweep::Blocks => Command::Drive(DriveCommand::SweepBlocks { drive }),
        Sweep::Feed => Command::Drive(DriveCommand::SweepFeed { drive }),
        Sweep::Rewinds => Command::Drive(DriveCommand::SweepRewinds { drive }),
    }
}

fn due(bench: &Bench) -> Vec<Work> {
    let queue = waiting::queue(&bench.kv, None, usize::MAX - 1).unwrap();
    queue.due.into_iter().map(|(_, work)| work).collect()
}

/// Sends a sweep at the time of the command before it, so that how many there were leaves no trace.
fn send(bench: &mut Bench, work: Work) -> Swept {
    let job = bench.fresh();
    bench.wall -= 1;
    bench.sweep(command(work, job)).unwrap()
}

/// Does what the queue says until nothing is due; answers the commands.
pub(super) fn follow(bench: &mut Bench) -> usize {
    let mut commands = 0;
    while let Some(work) = due(bench).first().copied() {
        send(bench, work);
        commands += 1;
        assert!(commands < 10_000, "{work:?} is never done");
    }
    commands
}

/// Sweeps everything until nothing is left, wherever it may be, as if there were no queue.
fn sweep_all(bench: &mut Bench) {
    let drive = bench.drive;
    loop {
        let QueryAnswer::Jobs(jobs) = bench.ask_as(None, DriveAsk::Jobs).unwrap() else {
            panic!()
        };
        let jobs = jobs.into_iter().map(|job| Work::job(drive, job.job));
        let others = [
            Sweep::Versions,
            Sweep::Dropped,
            Sweep::Pages,
            Sweep::Trash,
            Sweep::Sessions,
            Sweep::Requests,
            Sweep::Blocks,
            Sweep::Feed,
        ];
        let works: Vec<Work> = jobs.chain(others.map(|sweep| Work::of(drive, sweep))).collect();
        let mut is_done = true;
        for work in works {
            // What a sweep says of itself tells nothing of what it leaves to another.
            is_done &= send(bench, work).operations == 0 && work.sweep != Sweep::Job;
        }
        if is_done {
            return;
        }
    }
}

/// Everything but the queue, and which of the commands was the last.
fn rest(bench: &Bench) -> Vec<(Bytes, Bytes)> {
    let tables = [keys::WAITING, keys::DUE, keys::DUE_FILLED, keys::TOUCHED];
    let is_queue = |key: &[u8]| tables.contains(&key[2]);
    let rows = bench.everything().into_iter();
    rows.filter(|(key, _)| !is_queue(key)).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Put { at: u8, content: u8 },
    Write { at: u8, content: u8 },
    Keep { versions: u8, days: u8 },
    Folder { at: u8 },
    Trash { at: u8 },
    Restore { at: u8 },
    Purge { at: u8 },
    Open { at: u8, pages: u8 },
    Request { id: u8, is_day: bool },
    Age { hours: u8 },
    Work,
}

fn step() -> impl Strategy<Value = Step> {
    let byte = any::<u8>;
    prop_oneof![
        6 => (byte(), byte()).prop_map(|(at, content)| Step::Put { at, content }),
        6 => (byte(), byte()).prop_map(|(at, content)| Step::Write { at, content }),
        1 => (1_u8..5, 1_u8..20).prop_map(|(versions, days)| Step::Keep { versions, days }),
        1 => byte().prop_map(|at| Step::Folder { at }),
        3 => byte().prop_map(|at| Step::Trash { at }),
        1 => byte().prop_map(|at| Step::Restore { at }),
        3 => byte().prop_map(|at| Step::Purge { at }),
        2 => (byte(), 0_u8..3).prop_map(|(at, pages)| Step::Open { at, pages }),
        3 => (byte(), any::<bool>()).prop_map(|(id, is_day)| Step::Request { id, is_day }),
        2 => (0_u8..30).prop_map(|hours| Step::Age { hours }),
        2 => proptest::strategy::Just(Step::Work),
    ]
}

/// A bench and what was made on it, by the path's number.
struct Run {
    bench: Bench,
    made: BTreeMap<u8, EntryId>,
}

impl Run {
    fn new() -> Self {
        let mut bench = Bench::with_epoch(1 << 40, HOUR_MS);
        // So that what is old at the end goes within the days that end everything else.
        versions::retain(&mut bench, Some(3), Some(20 * DAY_MS / 1000)).unwrap();
        Self {
            bench,
            made: BTreeMap::new(),
        }
    }

    fn path(at: u8) -> String {
        // Files of folders 0 and 1 make their purge a job.
        match at % 12 {
            folder @ 0..2 => format!("/d{folder}"),
            file @ 2..7 => format!("/d{}/f{file}", file % 2),
            file => format!("/f{file}"),
        }
    }

    /// One needed more numbers for its sweeps than the other: those of what comes next are the same again.
    fn meet(&mut self, other: &mut Self) {
        let next = self.bench.next.max(other.bench.next);
        (self.bench.next, other.bench.next) = (next, next);
    }

    /// Refusals are all right: both benches get the same.
    fn step(&mut self, step: &Step) {
        let bench = &mut self.bench;
        match step {
            Step::Put { at, content } => {
                let rows = [row(&format!("x{}", content % 5), 10), row(&format!("y{content}"), 7)];
                if let Ok(put) = bench.put(&Self::path(*at), None, &rows) {
                    self.made.insert(at % 12, put.view.entry.id);
                }
            }
            Step::Write { at, content } => {
                let path = Self::path(*at);
                if let Ok(view) = bench.get(&path) {
                    let rows = [row(&format!("w{}", content % 9), 10), row("shared", 7)];
                    drop(bench.put(&path, Some(view.entry.version), &rows));
                }
            }
            Step::Keep { versions, days } => {
                let age_s = u64::from(*days) * DAY_MS / 1000;
                versions::retain(bench, Some(u32::from(*versions)), Some(age_s)).unwrap();
            }
            Step::Folder { at } => {
                if let Ok(folder) = bench.mkdir(&format!("/d{}", at % 2)) {
                    self.made.insert(at % 2, folder);
                }
            }
            Step::Trash { at } => {
                self.made.get(&(at % 12)).map(|entry| bench.trash(*entry).is_ok());
            }
            Step::Restore { at } => {
                self.made.get(&(at % 12)).map(|entry| bench.restore(*entry).is_ok());
            }
            Step::Purge { at } => {
                self.made.get(&(at % 12)).map(|entry| bench.purge(*entry).is_ok());
            }
            Step::Open { at, pages } => {
                let upload = sessions::open(bench, &format!("/s{at}"), None);
                for page in 0..*pages {
                    let rows = [row(&format!("s{at}{page}"), 10)];
                    let end = format!("page {at} {page}");
                    drop(sessions::append(bench, upload, u64::from(page), &rows, Some(&end)));
                }
            }
            Step::Request { id, is_day } => {
                let fresh = vec![bench.fresh()];
                let key = RequestKey {
                    source: 1,
                    id: u128::from(*id),
                    asked: [3; 32],
                    life: if *is_day { RequestLife::Day } else { RequestLife::Hour },
                    made_hour: None,
                };
                let make = Command::Drive(DriveCommand::CreateFolder {
                    principal: bench.owner,
                    drive: bench.drive,
                    place: place(&format!("/r{id}")),
                    with_parents: false,
                    fresh,
                });
                drop(bench.apply(Some(key), make));
            }
            Step::Age { hours } => bench.advance(u64::from(*hours) * HOUR_MS / 4),
            Step::Work => {}
        }
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn who_follows_the_queue_alone_ends_where_a_sweep_of_everything_does(steps in proptest::collection::vec(step(), 1..120)) {
        let (mut one, mut other) = (Run::new(), Run::new());
        for step in &steps {
            one.step(step);
            other.step(step);
            one.bench.sound();
            if matches!(step, Step::Work) {
                follow(&mut one.bench);
                sweep_all(&mut other.bench);
                one.meet(&mut other);
                one.bench.sound();
                other.bench.sound();
                assert_eq!(rest(&one.bench), rest(&other.bench));
            }
        }
        // What the first sweeps change in the tree is in the feed until the second ones.
        // What was given up has its grace before it.
        for _ in 0..3 {
            for run in [&mut one, &mut other] {
                run.bench.advance(31 * DAY_MS);
            }
            follow(&mut one.bench);
            sweep_all(&mut other.bench);
            one.bench.sound();
            assert_eq!(rest(&one.bench), rest(&other.bench));
        }
        assert_eq!(waiting::of_slot(&one.bench.kv, one.bench.drive.slot()).unwrap(), []);
    }
}

#[test]
fn the_queue_tells_what_is_due_and_when_the_next_will_be() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    let look = |bench: &Bench| waiting::queue(&bench.kv, None, 10).unwrap();
    let nothing = waiting::Queue {
        due: Vec::new(),
        next_in: None,
    };
    assert_eq!(look(&bench), nothing);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    sessions::open(&mut bench, "/f", None);
    bench.advance(HOUR_MS - 1);
    let last = look(&bench);
    assert_eq!((last.due.len(), last.next_in), (0, Some(Duration::from_millis(1))));
    bench.advance(1);
    let job = bench.purge(a).unwrap().job.unwrap();
    let works: Vec<Work> = look(&bench).due.into_iter().map(|(_, work)| work).collect();
    let drive = bench.drive;
    assert_eq!(works, [Work::job(drive, job), Work::of(drive, Sweep::Sessions)]);
    // A piece at a time, each behind the one before.
    let first = waiting::queue(&bench.kv, None, 1).unwrap().due;
    let second = waiting::queue(&bench.kv, Some(&first[0].0), 1).unwrap().due;
    assert_eq!((first[0].1, second[0].1), (works[0], works[1]));
    assert_eq!(follow(&mut bench), 2);
    // What is left are the changes themselves.
    let last = look(&bench);
    assert_eq!(
        (last.due.len(), last.next_in),
        (0, Some(Duration::from_millis(30 * DAY_MS)))
    );
    bench.sound();
}

#[test]
fn a_slot_that_is_older_than_its_group_is_due_by_its_own_age() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    let slot = (0..)
        .map(|n| Slot::new(n).unwrap())
        .find(|slot| *slot != bench.drive.slot());
    let older = AdoptedSlot {
        slot: slot.unwrap(),
        age: Age(5 * HOUR_MS),
    };
    bench.group(GroupCommand::AdoptSlots { slots: vec![older] });
    let work = Work::of(DriveId::new(older.slot, 1), Sweep::Sessions);
    let mut tx = kv::overlay::Overlay::new(&bench.kv);
    waiting::note(&mut tx, work, Age(6 * HOUR_MS)).unwrap();
    // Later than noted already; before; and before the group itself began.
    for (age, in_hours) in [(7, 1), (6, 1)] {
        waiting::note(&mut tx, work, Age(age * HOUR_MS)).unwrap();
        let next_in = waiting::queue(&tx, None, 10).unwrap().next_in;
        assert_eq!(next_in, Some(Duration::from_millis(in_hours * HOUR_MS)));
    }
    waiting::note(&mut tx, work, Age(4 * HOUR_MS)).unwrap();
    assert_eq!(waiting::queue(&tx, None, 10).unwrap().due[0].1, work);
    waiting::settle(&mut tx, work, None).unwrap();
    assert!(waiting::queue(&tx, None, 10).unwrap().due.is_empty());
}

/// A state as an earlier release wrote it.
fn forget_queue(bench: &Bench) {
    let tables = [
        keys::WAITING,
        keys::DUE,
        keys::DUE_FILLED,
        keys::COLLECTION_FILLED,
        keys::REMOVABLE,
    ];
    let is_queue = |key: &[u8]| tables.contains(&key[2]);
    let rows = bench.everything().into_iter().filter(|(key, _)| is_queue(key));
    bench
        .kv
        .write(rows.map(|(key, _)| Change::Delete(key)).collect())
        .unwrap();
}

#[test]
fn what_an_earlier_release_left_waiting_is_worked_off() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    let f = bench.put("/f", None, &[row("x", 10)]).unwrap().view.entry.id;
    let g = bench.put("/g", None, &[row("y", 10)]).unwrap().view.entry.id;
    super::contents::furnish(&mut bench);
    super::sessions::furnish(&mut bench);
    bench.trash(f).unwrap();
    bench.purge(g).unwrap();
    bench.purge(a).unwrap();
    let slot = bench.drive.slot();
    let mut before = waiting::of_slot(&bench.kv, slot).unwrap();
    assert_eq!(before.len(), 7, "one of each");
    let now = age::of_slot(&bench.kv, slot).unwrap();
    for (_, row) in before.iter_mut().filter(|(_, row)| row.due <= now) {
        // Nobody knows when it came.
        row.due = AT_ONCE;
    }
    forget_queue(&bench);
    assert!(!waiting::is_filled(&bench.kv).unwrap());
    bench.sound();
    bench.advance(1);
    assert!(waiting::is_filled(&bench.kv).unwrap());
    assert_eq!(waiting::of_slot(&bench.kv, bench.drive.slot()).unwrap(), before);
    bench.sound();
    bench.advance(31 * DAY_MS);
    follow(&mut bench);
    bench.sound();
    let usage = bench.usage();
    assert_eq!(
        (usage.files, usage.folders),
        (3, 0),
        "what furnishes has put three files"
    );
}

#[test]
fn filling_the_queue_of_a_drive_with_many_jobs_is_bounded_commands() {
    const JOBS: u64 = 2_500;
    let mut bench = Bench::new(1 << 30);
    let drive = DriveId::new(bench.drive.slot(), 99);
    let jobs = (0..JOBS).map(|number| Change::Put(keys::job(drive, number), Bytes::new()));
    bench.kv.write(jobs.collect()).unwrap();
    forget_queue(&bench);
    let mut commands = 0;
    while !waiting::is_filled(&bench.kv).unwrap() {
        bench.advance(1);
        // Two for each job, and how far it came.
        assert!(bench.writes <= 2 * 1000 + 8, "{} writes", bench.writes);
        commands += 1;
        assert!(commands < 9, "it does not come to an end");
    }
    assert!(commands > 2, "{commands} commands");
    let found = waiting::of_slot(&bench.kv, drive.slot()).unwrap().into_iter();
    let found: Vec<Work> = found.map(|(work, _)| work).filter(|work| work.drive == drive).collect();
    let wanted: Vec<Work> = (0..JOBS).map(|number| Work::job(drive, number)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn filling_the_queue_of_many_drives_is_bounded_commands() {
    let mut bench = Bench::new(1 << 30);
    let slots: Vec<Slot> = (100..400).map(|slot| Slot::new(slot).unwrap()).collect();
    let adopted = slots.iter().map(|slot| AdoptedSlot {
        slot: *slot,
        age: Age(77),
    });
    let adopted = adopted.collect();
    bench.group(GroupCommand::AdoptSlots { slots: adopted });
    let mut wanted = Vec::new();
    for (at, slot) in slots.iter().enumerate() {
        for number in 0..(at % 9) as u64 {
            let drive = DriveId::new(*slot, number);
            let (job, trashed) = (Key::of_drive(drive, keys::JOB), Key::of_drive(drive, keys::TRASH));
            let rows = [job.u64(5).done(), trashed.u64(99).u64(number).done()];
            bench
                .kv
                .write(rows.map(|key| Change::Put(key, Bytes::new())).to_vec())
                .unwrap();
            wanted.extend([Work::job(drive, 5), Work::of(drive, Sweep::Trash)]);
        }
    }
    wanted.sort_unstable();
    forget_queue(&bench);
    let mut commands = 0;
    while !waiting::is_filled(&bench.kv).unwrap() {
        bench.advance(1);
        assert!(bench.writes <= 2 * 1000 + 2, "{} writes", bench.writes);
        commands += 1;
    }
    assert!((3..20).contains(&commands), "{commands} commands");
    let mut found = Vec::new();
    for slot in &slots {
        found.extend(
            waiting::of_slot(&bench.kv, *slot)
                .unwrap()
                .into_iter()
                .map(|(work, _)| work),
        );
    }
    found.sort_unstable();
    assert_eq!(found, wanted);
    bench.sound();
}

#[test]
fn a_purge_cut_anywhere_leaves_a_sound_state_and_goes_on() {
    for operations in [1, 2, 3, 7, 100] {
        let mut bench = Bench::new(1 << 40);
        let a = bench.mkdir("/a").unwrap();
        let emptied = bench.mkdir("/a/c").unwrap();
        let moved = bench.mkdir("/a/c/x").unwrap();
        bench.rename(moved, "/moved").unwrap();
        let trashed = bench.put("/a/t", None, &[row("t", 3)]).unwrap().view.entry.id;
        bench.trash(trashed).unwrap();
        for folder in ["/a/b", "/a/b/b", "/a/b/b/b", "/a/d", "/a/d/e"] {
            bench.mkdir(folder).unwrap();
            for at in 0..5 {
                bench.mkdir(&format!("{folder}/m{at}")).unwrap();
                let file = format!("{folder}/f{at}");
                bench.put(&file, None, &[row("same", 10)]).unwrap();
                let id = format!("{folder}{at}");
                bench.put(&file, Some(1), &[row(&id, 10), row("same", 10)]).unwrap();
            }
        }
        assert_eq!(bench.get("/a/c").unwrap().entry.id, emptied);
        bench.purge(a).unwrap();
        let mut place = purge::Place {
            root: a.number,
            at: a.number,
            after: Bytes::new(),
        };
        let mut rounds = 0;
        loop {
            let mut tx = kv::overlay::Overlay::new(&bench.kv);
            let (is_done, left) = purge::Purge::new(&mut tx, bench.drive, operations)
                .run(&mut place)
                .unwrap();
            let batch = tx.into_batch();
            bench.kv.write(batch).unwrap();
            rounds += 1;
            assert!(is_done || left == 0, "a command that is not done has done all it may");
            if is_done {
                break;
            }
        }
        assert!(rounds * operations >= 25 * 4 + 31, "{rounds} rounds of {operations}");
        // The folder's own job finds nothing to do any more.
        let usage = bench.usage();
        assert_eq!(
            (usage.files, usage.folders),
            (1, 1),
            "what was trashed and what was moved are left"
        );
        let entries = bench
            .kv
            .scan(&Scan::prefix(&Key::of_drive(bench.drive, keys::ENTRY).done(), 100));
        assert_eq!(entries.unwrap().len(), 3);
    }
}

#[test]
fn pages_released_while_they_are_reaped_are_found_wherever_their_digest_lies() {
    let mut bench = Bench::new(1 << 40);
    let put = |bench: &mut Bench, range: std::ops::Range<u32>| {
        range
            .map(|at| {
                bench
                    .put(&format!("/f{at}"), None, &[row(&format!("x{at}"), 10)])
                    .unwrap()
                    .view
                    .entry
                    .id
            })
            .collect::<Vec<_>>()
    };
    let (first, second) = (put(&mut bench, 0..250), put(&mut bench, 250..400));
    for file in first {
        bench.purge(file).unwrap();
    }
    let reap = Command::Drive(DriveCommand::ReapPages { drive: bench.drive });
    let swept = bench.sweep(reap.clone()).unwrap();
    assert_eq!(
        (swept.is_done, swept.operations as usize),
        (false, SWEEP_OPERATIONS_MAX)
    );
    let work = Work::of(bench.drive, Sweep::Pages);
    assert!(
        !waiting::after(&bench.kv, work).unwrap().is_empty(),
        "goes on where it ended"
    );
    for file in second {
        bench.purge(file).unwrap();
    }
    let commands = follow(&mut bench);
    let fewest = (400 - SWEEP_OPERATIONS_MAX).div_ceil(SWEEP_OPERATIONS_MAX);
    assert!(
        (fewest..=fewest + 2).contains(&commands),
        "{commands} commands, {fewest} would do"
    );
    assert_eq!(bench.usage().charged_bytes, 0);
    bench.sound();
}

#[test]
fn rows_of_waiting_work_have_their_golden_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let record = |due, after: &'static [u8]| WaitingRecord {
        due,
        after: Bytes::from_static(after),
    };
    let check = |record: WaitingRecord, golden: &str| {
        let bytes = store::encode(&record).unwrap();
        assert_eq!(hex(&bytes), golden);
        assert_eq!(store::decode::<WaitingRecord>(b"key", &bytes).unwrap(), record);
    };
    check(record(AT_ONCE, b""), "000000");
    check(record(Age(300), b"name"), "00ac02046e616d65");
    let numbers: Vec<u8> = waiting::SWEEPS.iter().map(|(sweep, _)| *sweep as u8).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
}
