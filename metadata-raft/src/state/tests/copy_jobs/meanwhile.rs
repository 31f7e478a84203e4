//! Copies by a job whose source is changed while they are made: each is what its source is at the instant at which it appears.

use super::{begin, furnished_bench, id_of, put, settle, stage, step, steps};
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::tests::copies::below;
use crate::state::tests::versions::{history, rows_of, table};
use crate::state::tests::{Bench, code, row};
use bytes::Bytes;
use kv::memory::MemoryKv;
use kv::overlay::Overlay;
use kv::seam::{KvError, KvRead, Scan};
use model::id::EntryId;
use model::limits::COMMAND_OPERATIONS_MAX;
use model::time::WallTime;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::Config;
use proptest::{prop_assert, prop_assert_eq, proptest};
use protocol::frame;
use protocol::metadata::copy::CopyStage;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::{Command, Envelope, QueryAnswer};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Works every job off: the copy is done then, and what its source is.
fn ends_as_its_source(bench: &mut Bench, job: u64, (copy, source): (&str, &str)) {
    settle(bench);
    assert_eq!(stage(bench, job), CopyStage::Done);
    assert_eq!(below(bench, copy), below(bench, source));
}

#[test]
fn a_copy_is_what_the_source_is_when_it_appears() {
    let (mut bench, a) = furnished_bench();
    let outside = bench.mkdir("/outside").unwrap();
    put(&mut bench, "/outside/in", None, "in");
    let job = begin(&mut bench, a, "/b").unwrap().job;
    steps(&mut bench, job, 2);
    // Written, replaced, renamed, exchanged, and moved from where the walk has not been to where it has been, and back.
    put(&mut bench, "/a/f00", Some(1), "written");
    let (one, two) = (id_of(&bench, "/a/f01"), id_of(&bench, "/a/f02"));
    bench.rename(one, "/a/held").unwrap();
    bench.rename(two, "/a/f01").unwrap();
    bench.rename(one, "/a/f02").unwrap();
    let three = id_of(&bench, "/a/f03");
    bench.trash(three).unwrap();
    put(&mut bench, "/a/f03", None, "replaced");
    let late = id_of(&bench, "/a/y/f00");
    bench.rename(late, "/a/from y").unwrap();
    let early = id_of(&bench, "/a/f04");
    bench.rename(early, "/a/y/to y").unwrap();
    // Folders: out, in with what lies in it, below each other the other way round, into the trash, and made.
    let (x, y) = (id_of(&bench, "/a/x"), id_of(&bench, "/a/y"));
    bench.rename(y, "/a/x/y").unwrap();
    bench.rename(id_of(&bench, "/a/x/y"), "/a/y").unwrap();
    bench.rename(x, "/a/y/x").unwrap();
    bench.rename(outside, "/a/inside").unwrap();
    bench.mkdir("/a/new").unwrap();
    put(&mut bench, "/a/new/file", None, "n");
    let f05 = id_of(&bench, "/a/f05");
    bench.purge(f05).unwrap();
    ends_as_its_source(&mut bench, job, ("/b", "/a"));
    // Another begins and its source is put about while the first part is made already.
    let job = begin(&mut bench, a, "/c").unwrap().job;
    steps(&mut bench, job, 3);
    bench.rename(x, "/x").unwrap();
    let inner = id_of(&bench, "/x/f00");
    bench.rename(inner, "/a/f00 of x").unwrap();
    let gone = id_of(&bench, "/a/inside");
    bench.trash(gone).unwrap();
    steps(&mut bench, job, 1);
    bench.rename(x, "/a/x").unwrap();
    bench.restore(gone).unwrap();
    ends_as_its_source(&mut bench, job, ("/c", "/a"));
    bench.reap();
    bench.sound();
}

#[test]
fn a_folder_that_leaves_and_comes_back_brings_what_changed_in_it() {
    let (mut bench, a) = furnished_bench();
    let job = begin(&mut bench, a, "/b").unwrap().job;
    steps(&mut bench, job, 3);
    put(&mut bench, "/a/y/late", None, "late");
    // More than a command copies, so that the next one comes to the file and not to its folder's leaving.
    for at in 0..COMMAND_OPERATIONS_MAX / 2 {
        put(&mut bench, &format!("/a/more {at}"), None, "more");
    }
    let y = id_of(&bench, "/a/y");
    bench.trash(y).unwrap();
    steps(&mut bench, job, 1);
    bench.restore(y).unwrap();
    // From when on it waits for the purge of what left, it writes nothing and touches nothing.
    steps(&mut bench, job, 2);
    let held = bench.everything();
    steps(&mut bench, job, 1);
    assert_eq!(bench.everything(), held);
    ends_as_its_source(&mut bench, job, ("/b", "/a"));
    bench.reap();
    bench.sound();
}

#[test]
fn a_part_of_the_source_that_is_purged_midway_is_no_part_of_the_copy() {
    let (mut bench, a) = furnished_bench();
    // Its versions go piece by piece while the copy is made.
    let many = history(&mut bench, "/a/y/many", 120);
    let job = begin(&mut bench, a, "/b").unwrap().job;
    steps(&mut bench, job, 1);
    let y = id_of(&bench, "/a/y");
    let purged = bench.purge(y).unwrap().job.unwrap();
    steps(&mut bench, purged, 1);
    steps(&mut bench, job, 1);
    ends_as_its_source(&mut bench, job, ("/b", "/a"));
    assert_eq!(code(rows_of(&bench, many, 120)), "not_found");
    bench.reap();
    bench.sound();
}

#[test]
fn what_left_the_source_may_be_purged_for_longer_than_the_folder_that_it_was_in() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    let p = bench.mkdir("/a/p").unwrap();
    let x = bench.mkdir("/a/p/x").unwrap();
    bench.mkdir("/a/z").unwrap();
    bench.mkdir("/o").unwrap();
    for at in 0..2 * SWEEP_OPERATIONS_MAX {
        put(&mut bench, &format!("/a/p/x/f{at}"), None, "f");
    }
    for at in 0..SWEEP_OPERATIONS_MAX {
        put(&mut bench, &format!("/a/z/f{at}"), None, "f");
    }
    let job = begin(&mut bench, a, "/b").unwrap().job;
    // All of the first folder is copied, and a part of the last.
    steps(&mut bench, job, 5);
    // The copy of the inner folder goes by a job of many commands, that of the outer one is empty then and goes at once.
    bench.rename(x, "/o/x").unwrap();
    bench.trash(p).unwrap();
    put(&mut bench, "/o/x/new", None, "new");
    ends_as_its_source(&mut bench, job, ("/b", "/a"));
    bench.reap();
    bench.sound();
}

#[test]
fn a_copy_ends_though_more_than_a_short_command_is_written_between_every_two_of_its_own() {
    const FILES: usize = SWEEP_OPERATIONS_MAX;
    let (mut bench, a) = furnished_bench();
    let job = begin(&mut bench, a, "/b").unwrap().job;
    let mut batches = 0;
    while stage(&bench, job) == CopyStage::Copying {
        batches += 1;
        assert!(batches <= 12, "the copy stays behind");
        // Ahead of where the first walk is: what is written behind that is met by the walk itself.
        for at in 0..FILES {
            put(&mut bench, &format!("/a/b{:02} {at}", 99 - batches), None, "b");
        }
        step(&mut bench, job);
    }
    assert_eq!(stage(&bench, job), CopyStage::Done);
    assert_eq!(below(&bench, "/b"), below(&bench, "/a"));
    bench.sound();
}

#[test]
fn what_is_written_far_down_elsewhere_does_not_keep_a_copy_of_a_quiet_folder_from_ending() {
    const BACKLOG: usize = COMMAND_OPERATIONS_MAX + 2 * SWEEP_OPERATIONS_MAX;
    const FILES: usize = 2 * SWEEP_OPERATIONS_MAX;
    let (mut bench, a) = furnished_bench();
    bench.mkdir("/o").unwrap();
    let mut deep = "/o".to_owned();
    for at in 1..=8 {
        deep = format!("{deep}/{at}");
        bench.mkdir(&deep).unwrap();
    }
    let job = begin(&mut bench, a, "/b").unwrap().job;
    for at in 0..BACKLOG {
        put(&mut bench, &format!("{deep}/before {at}"), None, "o");
    }
    let mut batches = 0;
    while stage(&bench, job) == CopyStage::Copying {
        batches += 1;
        assert!(batches <= 20, "the copy stays behind");
        for at in 0..FILES {
            put(&mut bench, &format!("{deep}/{batches} {at}"), None, "o");
        }
        step(&mut bench, job);
    }
    assert_eq!(stage(&bench, job), CopyStage::Done);
    assert_eq!(below(&bench, "/b"), below(&bench, "/a"));
    bench.sound();
}

/// A store that counts how often it is read.
struct CountedKv<'a> {
    inner: &'a MemoryKv,
    reads: AtomicUsize,
}

impl KvRead for CountedKv<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.get(key)
    }

    fn scan(&self, scan: &Scan) -> Result<Vec<(Bytes, Bytes)>, KvError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.inner.scan(scan)
    }
}

/// How often the next command of a job would read the store.
fn reads(bench: &Bench, job: u64) -> usize {
    let counted = CountedKv {
        inner: &bench.kv,
        reads: AtomicUsize::new(0),
    };
    let drive = bench.drive;
    let envelope = frame::encode(&Envelope {
        request_id: None,
        wall: WallTime(bench.wall),
        command: Command::Drive(DriveCommand::SweepJob { drive, job }),
    });
    let mut overlay = Overlay::new(&counted);
    bench
        .state
        .apply(&mut overlay, bench.index + 1, &envelope.unwrap())
        .unwrap();
    counted.reads.load(Ordering::Relaxed)
}

#[test]
fn a_change_far_down_costs_walks_up_and_not_one_for_each_folder_above_it() {
    const DEPTH: usize = 90;
    const CHANGES: usize = 60;
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    let mut deep = "/a".to_owned();
    for _ in 0..DEPTH {
        deep = format!("{deep}/d");
        bench.mkdir(&deep).unwrap();
    }
    let file = format!("{deep}/f");
    put(&mut bench, &file, None, "first");
    let job = begin(&mut bench, a, "/b").unwrap().job;
    steps(&mut bench, job, 1);
    for at in 0..CHANGES {
        put(&mut bench, &file, Some(at as u64 + 1), &format!("text {at}"));
    }
    // The rest of the folders is made by one command more, which follows the changes as well: each of them walks some four times.
    let reads = reads(&bench, job);
    let wanted = 5 * DEPTH * (CHANGES + DEPTH);
    assert!(reads <= wanted, "{reads} reads, not {wanted}");
    assert!(step(&mut bench, job), "the command that was counted is the last one");
    assert_eq!(stage(&bench, job), CopyStage::Done);
    assert_eq!(below(&bench, "/b"), below(&bench, "/a"));
    bench.sound();
}

/// What somebody does while a copy is made.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Write(u8, u8),
    Folder(u8),
    Move(u8, u8),
    Trash(u8),
    Restore(u8),
    Purge(u8),
    /// The copy's job goes on by a command.
    Step,
    /// Every job goes on by a command.
    Turn,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let byte = any::<u8>;
    prop_oneof![
        3 => (byte(), byte()).prop_map(|(at, text)| Deed::Write(at, text)),
        1 => byte().prop_map(Deed::Folder),
        6 => (byte(), byte()).prop_map(|(from, to)| Deed::Move(from, to)),
        2 => byte().prop_map(Deed::Trash),
        2 => byte().prop_map(Deed::Restore),
        1 => byte().prop_map(Deed::Purge),
        2 => proptest::strategy::Just(Deed::Step),
        1 => proptest::strategy::Just(Deed::Turn),
    ]
}

/// Places that deeds are about: few, so that they meet, inside of the source and outside.
const PLACES: [&str; 14] = [
    "/a/x", "/a/y", "/a/x/y", "/a/y/x", "/a/x/f00", "/a/x/f01", "/a/y/f00", "/a/y/f01", "/a/f00", "/a/f01", "/a/z",
    "/o", "/o/x", "/o/f00",
];

fn at(which: u8) -> &'static str {
    PLACES[usize::from(which) % PLACES.len()]
}

/// Does a deed where it can be done.
fn work(bench: &mut Bench, job: u64, trashed: &mut Vec<EntryId>, deed: Deed) {
    match deed {
        Deed::Write(which, text) => {
            let base = bench.get(at(which)).ok().map(|view| view.entry.version);
            drop(bench.put(at(which), base, &[row(&format!("t{}", text % 4), 10)]));
        }
        Deed::Folder(which) => drop(bench.mkdir(at(which))),
        Deed::Move(from, to) => {
            if let Ok(view) = bench.get(at(from)) {
                drop(bench.rename(view.entry.id, at(to)));
            }
        }
        Deed::Trash(which) => {
            if let Ok(view) = bench.get(at(which)) {
                bench.trash(view.entry.id).unwrap();
                trashed.push(view.entry.id);
            }
        }
        Deed::Restore(which) => {
            if let Some(entry) = trashed.get(usize::from(which) % trashed.len().max(1)) {
                drop(bench.restore(*entry));
            }
        }
        Deed::Purge(which) => {
            if let Ok(view) = bench.get(at(which)) {
                bench.purge(view.entry.id).unwrap();
            }
        }
        Deed::Step => {
            if stage(bench, job) == CopyStage::Copying {
                step(bench, job);
            }
        }
        Deed::Turn => {
            let QueryAnswer::Jobs(jobs) = bench.ask_as(None, DriveAsk::Jobs).unwrap() else {
                panic!("jobs were asked for");
            };
            for job in jobs {
                step(bench, job.job);
            }
        }
    }
}

proptest! {
    #![proptest_config(Config::with_cases(100))]

    #[test]
    fn whatever_is_done_meanwhile_a_copy_is_what_its_source_is(deeds in proptest::collection::vec(any_deed(), 1..60)) {
        let (mut bench, a) = furnished_bench();
        bench.mkdir("/o").unwrap();
        let job = begin(&mut bench, a, "/b").unwrap().job;
        let mut trashed = Vec::new();
        let mut seen = None;
        for deed in deeds {
            let before = below(&bench, "/a");
            let was_under_way = stage(&bench, job) == CopyStage::Copying;
            work(&mut bench, job, &mut trashed, deed);
            if was_under_way && stage(&bench, job) == CopyStage::Done {
                seen = Some((before, below(&bench, "/b")));
            }
        }
        settle(&mut bench);
        prop_assert_eq!(stage(&bench, job), CopyStage::Done);
        let (wanted, copied) = seen.unwrap_or_else(|| (below(&bench, "/a"), below(&bench, "/b")));
        prop_assert_eq!(copied, wanted);
        bench.reap();
        bench.sound();
        // And nothing of what it took out again is left: copied and purged, only the copy's entries more are there.
        let (b, entries) = (id_of(&bench, "/b"), table(&bench, keys::ENTRY));
        let own = below(&bench, "/b").len();
        bench.purge(b).unwrap();
        settle(&mut bench);
        prop_assert!(table(&bench, keys::ENTRY) + own < entries);
        bench.sound();
    }
}
