//! Copies by a job: whole or not there, and nothing left of one that ended before.
//!
//! Not here: sources that are changed meanwhile (`meanwhile`).

mod meanwhile;

use super::copies::{below, changes, copy};
use super::versions::{paged, rows_of, table};
use super::{Bench, code, place, row};
use crate::state::copy_job::CopyRecord;
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::store::{load, save};
use bytes::Bytes;
use kv::overlay::Overlay;
use kv::seam::Kv;
use model::authorize::Principal;
use model::id::{EntryId, ROOT_ENTRY, UserId};
use model::limits::{COPIES_KEPT_MAX, COPIES_UNDER_WAY_MAX, COPY_ENTRIES_MAX, PATH_BYTES_MAX};
use protocol::metadata::copy::{CopyFacts, CopyStage};
use protocol::metadata::drive::{DriveCommand, EntryRef, Place};
use protocol::metadata::query::{ChangeType, DriveAsk};
use protocol::metadata::user::UserCommand;
use protocol::metadata::{Command, CommandAnswer, QueryAnswer, RequestKey, RequestLife};
use protocol::wire_error::Failure;

fn answered(answer: Result<CommandAnswer, Failure>) -> Result<CopyFacts, Failure> {
    match answer? {
        CommandAnswer::Copy(facts) => Ok(facts),
        other => panic!("{other:?}"),
    }
}

fn command(bench: &mut Bench, entry: EntryId, to: Place, with_parents: bool) -> Command {
    let fresh = (0..5).map(|_| bench.fresh()).collect();
    let (seed, job) = (bench.fresh(), bench.fresh());
    Command::Drive(DriveCommand::BeginCopy {
        principal: bench.owner,
        entry,
        place: to,
        with_parents,
        fresh,
        seed,
        job,
    })
}

fn begin(bench: &mut Bench, entry: EntryId, to: &str) -> Result<CopyFacts, Failure> {
    let command = command(bench, entry, place(to), false);
    answered(bench.run(command))
}

fn cancel(bench: &mut Bench, job: u64) -> Result<CopyFacts, Failure> {
    let (principal, drive) = (bench.owner, bench.drive);
    answered(bench.run(Command::Drive(DriveCommand::CancelCopy { principal, drive, job })))
}

fn facts(bench: &Bench, job: u64) -> Result<CopyFacts, Failure> {
    match bench.ask(DriveAsk::Copy(job))? {
        QueryAnswer::Copy(facts) => Ok(facts),
        other => panic!("{other:?}"),
    }
}

/// One command of a job; whether it was the last.
fn step(bench: &mut Bench, job: u64) -> bool {
    let drive = bench.drive;
    let swept = bench
        .sweep(Command::Drive(DriveCommand::SweepJob { drive, job }))
        .unwrap();
    swept.is_done
}

fn steps(bench: &mut Bench, job: u64, count: usize) {
    for _ in 0..count {
        assert!(!step(bench, job), "the job was to have more to do");
        bench.sound();
    }
}

/// Works every job off, in turns, as a leader does.
fn settle(bench: &mut Bench) {
    loop {
        let QueryAnswer::Jobs(jobs) = bench.ask_as(None, DriveAsk::Jobs).unwrap() else {
            panic!("jobs were asked for");
        };
        if jobs.is_empty() {
            bench.sound();
            return;
        }
        for job in jobs {
            step(bench, job.job);
        }
    }
}

/// Where the root's feed stands.
fn told(bench: &Bench) -> u64 {
    let scope = EntryId {
        drive: bench.drive,
        number: ROOT_ENTRY,
    };
    let ask = DriveAsk::ScopeChanges {
        scope,
        after: u64::MAX,
        limit: 1,
    };
    match bench.ask(ask).unwrap() {
        QueryAnswer::Changes(changes) => changes.position.sequence,
        other => panic!("{other:?}"),
    }
}

fn stage(bench: &Bench, job: u64) -> CopyStage {
    facts(bench, job).unwrap().stage
}

fn stopped(code: &str) -> CopyStage {
    CopyStage::Stopped(code.to_owned())
}

fn put(bench: &mut Bench, at: &str, base: Option<u64>, text: &str) -> EntryId {
    bench.put(at, base, &[row(text, 10)]).unwrap().view.entry.id
}

fn id_of(bench: &Bench, at: &str) -> EntryId {
    bench.get(at).unwrap().entry.id
}

/// `/a` with folders `x` and `y`, and as many files in each of the three as fill a command.
fn furnished_bench() -> (Bench, EntryId) {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/x").unwrap();
    bench.mkdir("/a/y").unwrap();
    for folder in ["/a", "/a/x", "/a/y"] {
        for at in 0..SWEEP_OPERATIONS_MAX / 2 {
            put(
                &mut bench,
                &format!("{folder}/f{at:02}"),
                None,
                &format!("{folder} {at}"),
            );
        }
    }
    (bench, a)
}

/// What a drive has when nothing is under way: entries, versions, bytes.
fn holdings(bench: &Bench) -> (usize, usize, u64, u64) {
    let usage = bench.usage();
    let counted = usage.files + usage.folders;
    (
        table(bench, keys::ENTRY),
        table(bench, keys::VERSION),
        usage.charged_bytes,
        counted,
    )
}

/// Asserts that a copy has ended for this reason and left nothing, with what was there before.
fn left_nothing(bench: &mut Bench, job: u64, reason: &str, before: (usize, usize, u64, u64)) {
    settle(bench);
    bench.reap();
    assert_eq!(stage(bench, job), stopped(reason));
    assert_eq!(holdings(bench), before);
    bench.sound();
}

#[test]
fn a_folder_that_passes_one_command_is_copied_out_of_sight_by_short_ones() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    let mut deep = "/a".to_owned();
    for at in 0..600 {
        if at % 20 == 0 {
            deep = format!("{deep}/d");
            bench.mkdir(&deep).unwrap();
        }
        bench
            .put(
                &format!("{deep}/f{at}"),
                None,
                &[row(&at.to_string(), 10), row("shared", 5)],
            )
            .unwrap();
    }
    assert_eq!(code(copy(&mut bench, a, "/b")), "copy_too_large");
    let (before, usage) = (below(&bench, "/a"), bench.usage());
    let before_it = told(&bench);
    let begun = begin(&mut bench, a, "/b").unwrap();
    assert_eq!((begun.stage, begun.source), (CopyStage::Copying, a));
    let mut commands = 0_usize;
    loop {
        assert_eq!(code(bench.get("/b")), "not_found");
        assert_eq!(code(bench.ask(DriveAsk::Get(EntryRef::Id(begun.copy)))), "not_found");
        assert_eq!(told(&bench), before_it, "nobody is told of a part");
        let done = step(&mut bench, begun.job);
        commands += 1;
        // Each writes a few rows for each of its sub-operations.
        assert!(bench.writes <= 12 * SWEEP_OPERATIONS_MAX, "{} writes", bench.writes);
        if commands.is_multiple_of(10) {
            bench.sound();
        }
        if done {
            break;
        }
    }
    assert!(commands > 1_200 / SWEEP_OPERATIONS_MAX, "{commands} commands");
    let ended = facts(&bench, begun.job).unwrap();
    assert_eq!((ended.stage, ended.files, ended.folders), (CopyStage::Done, 600, 31));
    assert_eq!(id_of(&bench, "/b"), begun.copy);
    assert_eq!((below(&bench, "/b"), below(&bench, "/a")), (before.clone(), before));
    let told = changes(&bench, before_it);
    let told: Vec<_> = told.iter().map(|change| (change.change, change.entry)).collect();
    assert_eq!(told, [(ChangeType::Created, begun.copy)]);
    let after = bench.usage();
    assert_eq!(
        (after.charged_bytes, after.files, after.folders),
        (usage.charged_bytes, usage.files + 600, usage.folders + 31)
    );
    bench.sound();
    // Its source can go, and it is a folder as any.
    bench.purge(a).unwrap();
    settle(&mut bench);
    bench.reap();
    bench.rename(begun.copy, "/c").unwrap();
    assert_eq!(bench.usage().charged_bytes, usage.charged_bytes);
    let file = id_of(&bench, &format!("{}/f599", deep.replacen("/a", "/c", 1)));
    assert_eq!(rows_of(&bench, file, 1).unwrap(), [row("599", 10), row("shared", 5)]);
    bench.sound();
}

#[test]
fn a_file_of_many_pages_goes_alone_and_a_small_folder_needs_one_command() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    put(&mut bench, "/a/before", None, "b");
    let long = paged(&mut bench, "long", 3 * SWEEP_OPERATIONS_MAX);
    bench.commit("/a/long", None, long).unwrap();
    put(&mut bench, "/a/one", None, "o");
    let job = begin(&mut bench, a, "/b").unwrap().job;
    steps(&mut bench, job, 2);
    assert!(step(&mut bench, job));
    assert_eq!(below(&bench, "/b"), below(&bench, "/a"));
    bench.sound();
    let empty = bench.mkdir("/empty").unwrap();
    let job = begin(&mut bench, empty, "/empty too").unwrap().job;
    assert!(step(&mut bench, job));
    assert_eq!(stage(&bench, job), CopyStage::Done);
    bench.sound();
}

#[test]
fn what_stands_in_the_way_ends_a_copy_and_nothing_of_it_stays() {
    // What is done midway, and why the copy ends.
    type Meddling = fn(&mut Bench, EntryId);
    let cases: [(Meddling, &str); 6] = [
        (|bench, a| drop(bench.trash(a).unwrap()), "in_trash"),
        (
            |bench, _| {
                bench.mkdir("/to/b").unwrap();
            },
            "name_taken",
        ),
        (
            |bench, _| {
                let to = id_of(bench, "/to");
                bench.trash(to).unwrap();
            },
            "in_trash",
        ),
        (
            |bench, _| {
                let to = id_of(bench, "/to");
                bench.purge(to).unwrap();
            },
            "parent_not_found",
        ),
        (
            |bench, _| {
                let to = id_of(bench, "/to");
                bench.rename(to, "/a/to").unwrap();
            },
            "cycle",
        ),
        (|bench, a| drop(bench.rename(a, "/to/b").unwrap()), "name_taken"),
    ];
    for (meddle, reason) in cases {
        let (mut bench, a) = furnished_bench();
        bench.mkdir("/to").unwrap();
        let begun = begin(&mut bench, a, "/to/b").unwrap();
        steps(&mut bench, begun.job, 2);
        let built = table(&bench, keys::ENTRY);
        meddle(&mut bench, a);
        // The first command after it ends the copy, those behind it remove what was built.
        assert!(!step(&mut bench, begun.job));
        assert_eq!(stage(&bench, begun.job), stopped(reason));
        bench.sound();
        settle(&mut bench);
        bench.reap();
        assert!(table(&bench, keys::ENTRY) < built, "{reason}");
        assert_eq!(code(bench.ask(DriveAsk::Get(EntryRef::Id(begun.copy)))), "not_found");
        // The source and the destination, with what was made to be in the way.
        let usage = bench.usage();
        assert_eq!(usage.files as usize, 3 * (SWEEP_OPERATIONS_MAX / 2), "{reason}");
        assert!(usage.folders <= 5, "{reason}: {usage:?}");
        bench.sound();
    }
}

#[test]
fn a_source_that_is_purged_midway_ends_its_copy_and_gives_its_space_back() {
    let (mut bench, a) = furnished_bench();
    let begun = begin(&mut bench, a, "/b").unwrap();
    steps(&mut bench, begun.job, 2);
    bench.purge(a).unwrap();
    left_nothing(&mut bench, begun.job, "not_found", (1, 0, 0, 0));
}

#[test]
fn a_cancelled_copy_leaves_nothing_and_one_that_ended_stays_as_it_is() {
    let (mut bench, a) = furnished_bench();
    let before = holdings(&bench);
    let begun = begin(&mut bench, a, "/b").unwrap();
    steps(&mut bench, begun.job, 3);
    let owner = bench.owner;
    bench.owner.user = UserId::new(bench.drive.slot(), 9);
    assert_eq!(code(cancel(&mut bench, begun.job)), "not_found");
    bench.owner = owner;
    assert_eq!(code(cancel(&mut bench, 77)), "job_not_found");
    assert_eq!(code(facts(&bench, 77)), "job_not_found");
    let cancelled = cancel(&mut bench, begun.job).unwrap();
    assert_eq!(cancelled.stage, stopped("copy_cancelled"));
    bench.sound();
    assert_eq!(cancel(&mut bench, begun.job).unwrap(), cancelled);
    left_nothing(&mut bench, begun.job, "copy_cancelled", before);
    // The name is free, and before the first command a copy can be cancelled as well.
    let begun = begin(&mut bench, a, "/b").unwrap();
    cancel(&mut bench, begun.job).unwrap();
    left_nothing(&mut bench, begun.job, "copy_cancelled", before);
    let begun = begin(&mut bench, a, "/b").unwrap();
    settle(&mut bench);
    assert_eq!(cancel(&mut bench, begun.job).unwrap().stage, CopyStage::Done);
    assert_eq!(below(&bench, "/b"), below(&bench, "/a"));
    bench.sound();
}

#[test]
fn who_may_no_longer_write_has_no_copy_made() {
    let (mut bench, a) = furnished_bench();
    let before = holdings(&bench);
    let begun = begin(&mut bench, a, "/b").unwrap();
    steps(&mut bench, begun.job, 1);
    let principal = Principal {
        user: UserId::new(bench.drive.slot(), 9),
        device: None,
        is_admin: true,
    };
    let user = bench.owner.user;
    let disable = |is_disabled| {
        Command::User(UserCommand::PatchUser {
            principal,
            user,
            quota_bytes: None,
            is_disabled: Some(is_disabled),
            password_hash: None,
        })
    };
    bench.run(disable(true)).unwrap();
    settle(&mut bench);
    bench.run(disable(false)).unwrap();
    left_nothing(&mut bench, begun.job, "user_disabled", before);
}

#[test]
fn two_copies_at_once_go_their_ways_and_the_first_has_the_name() {
    let (mut bench, a) = furnished_bench();
    let first = begin(&mut bench, a, "/b").unwrap();
    let second = begin(&mut bench, a, "/b").unwrap();
    let third = begin(&mut bench, a, "/c").unwrap();
    settle(&mut bench);
    let stages = [first, second, third].map(|begun| stage(&bench, begun.job));
    assert_eq!(stages, [CopyStage::Done, stopped("name_taken"), CopyStage::Done]);
    assert_eq!(
        (below(&bench, "/b"), below(&bench, "/c")),
        (below(&bench, "/a"), below(&bench, "/a"))
    );
    // One into the other's source: it is there when the other appears, or it is not.
    let (b, c) = (id_of(&bench, "/b"), id_of(&bench, "/c"));
    let into_c = begin(&mut bench, b, "/c/b").unwrap();
    let into_b = begin(&mut bench, c, "/b/c").unwrap();
    settle(&mut bench);
    for begun in [into_c, into_b] {
        assert_eq!(stage(&bench, begun.job), CopyStage::Done);
    }
    assert_eq!(below(&bench, "/c/b"), below(&bench, "/a"));
    let with_b = below(&bench, "/b/c").len();
    assert_eq!(with_b, 2 * below(&bench, "/a").len() + 1);
    bench.sound();
}

#[test]
fn missing_folders_above_a_copy_are_made_when_it_appears() {
    let (mut bench, a) = furnished_bench();
    assert_eq!(code(begin(&mut bench, a, "/p/q/r/b")), "parent_not_found");
    let asked = command(&mut bench, a, place("/p/q/r/b"), true);
    let begun = answered(bench.run(asked)).unwrap();
    steps(&mut bench, begun.job, 1);
    assert_eq!(code(bench.get("/p")), "not_found");
    bench.mkdir("/p").unwrap();
    let before_it = told(&bench);
    settle(&mut bench);
    assert_eq!(below(&bench, "/p/q/r/b"), below(&bench, "/a"));
    let told: Vec<_> = changes(&bench, before_it).iter().map(|change| change.entry).collect();
    let wanted = ["/p/q", "/p/q/r", "/p/q/r/b"].map(|at| id_of(&bench, at));
    assert_eq!(told, wanted);
    // A file in their place ends the copy.
    let asked = command(&mut bench, a, place("/s/b"), true);
    let begun = answered(bench.run(asked)).unwrap();
    put(&mut bench, "/s", None, "s");
    settle(&mut bench);
    assert_eq!(stage(&bench, begun.job), stopped("parent_not_folder"));
}

#[test]
fn paths_below_a_copy_may_be_longer_than_any_of_its_source() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    let part = "p".repeat(255);
    let mut deep = "/a".to_owned();
    for _ in 0..(PATH_BYTES_MAX - deep.len()) / (part.len() + 1) {
        deep = format!("{deep}/{part}");
        bench.mkdir(&deep).unwrap();
    }
    put(&mut bench, &format!("{deep}/{}", "f".repeat(250)), None, "f");
    let long = format!("/{}", "l".repeat(255));
    assert_eq!(code(copy(&mut bench, a, &long)), "path_too_long");
    let begun = begin(&mut bench, a, &long).unwrap();
    settle(&mut bench);
    assert_eq!(stage(&bench, begun.job), CopyStage::Done);
    assert_eq!(id_of(&bench, &long), begun.copy);
    bench.rename(begun.copy, "/b").unwrap();
    assert_eq!(below(&bench, "/b"), below(&bench, "/a"));
    bench.sound();
}

#[test]
fn a_copy_that_cannot_be_made_is_not_begun() {
    let (mut bench, a) = furnished_bench();
    let f = put(&mut bench, "/f", None, "f");
    let root = EntryId {
        number: ROOT_ENTRY,
        ..a
    };
    let mut deep = "/e".to_owned();
    for _ in 0..98 {
        bench.mkdir(&deep).unwrap();
        deep.push_str("/e");
    }
    let before = bench.everything();
    assert_eq!(code(begin(&mut bench, f, "/g")), "copy_too_large");
    assert_eq!(code(begin(&mut bench, a, "/f")), "name_taken");
    assert_eq!(code(begin(&mut bench, a, "/a/x/b")), "cycle");
    assert_eq!(code(begin(&mut bench, root, "/b")), "root_fixed");
    assert_eq!(code(begin(&mut bench, EntryId { number: 77, ..a }, "/b")), "not_found");
    assert_eq!(code(begin(&mut bench, a, &deep)), "too_deep");
    assert_eq!(bench.everything(), before);
    bench.trash(a).unwrap();
    assert_eq!(code(begin(&mut bench, a, "/b")), "in_trash");
}

#[test]
fn a_drive_has_eight_copies_under_way_and_tells_of_the_last_sixteen() {
    let mut bench = Bench::new(1 << 30);
    let a = bench.mkdir("/a").unwrap();
    let mut jobs = Vec::new();
    for at in 0..COPIES_UNDER_WAY_MAX {
        jobs.push(begin(&mut bench, a, &format!("/b{at}")).unwrap().job);
    }
    assert_eq!(code(begin(&mut bench, a, "/more")), "copies_running");
    settle(&mut bench);
    // All of them end at the same age, and their numbers say nothing about their order.
    for at in 0..2 * COPIES_KEPT_MAX {
        let mut asked = command(&mut bench, a, place(&format!("/c{at}")), false);
        if let Command::Drive(DriveCommand::BeginCopy { job, .. }) = &mut asked {
            *job = u64::MAX - *job;
        }
        let begun = answered(bench.run(asked)).unwrap();
        settle(&mut bench);
        // Whoever begins a copy may still ask for those that ended before.
        for job in jobs.iter().rev().take(COPIES_KEPT_MAX) {
            assert_eq!(stage(&bench, *job), CopyStage::Done);
        }
        jobs.push(begun.job);
    }
    // One was begun behind the last sixteen.
    let (old, new) = jobs.split_at(jobs.len() - COPIES_KEPT_MAX - 1);
    for job in old {
        assert_eq!(code(facts(&bench, *job)), "job_not_found");
    }
    for job in new {
        assert_eq!(stage(&bench, *job), CopyStage::Done);
    }
    assert_eq!(table(&bench, keys::COPY), COPIES_KEPT_MAX + 1);
    bench.sound();
}

#[test]
fn a_copy_of_too_many_entries_ends_and_leaves_nothing() {
    let (mut bench, a) = furnished_bench();
    let before = holdings(&bench);
    let begun = begin(&mut bench, a, "/b").unwrap();
    steps(&mut bench, begun.job, 1);
    let key = keys::copy(bench.drive, begun.job);
    let mut record: CopyRecord = load(&bench.kv, &key).unwrap().unwrap();
    // As if there had been so many: room for a last one is left.
    record.files = COPY_ENTRIES_MAX - record.folders - 1;
    let mut tx = Overlay::new(&bench.kv);
    save(&mut tx, key, &record).unwrap();
    let batch = tx.into_batch();
    bench.kv.write(batch).unwrap();
    left_nothing(&mut bench, begun.job, "copy_too_large", before);
}

#[test]
fn copies_that_end_together_are_all_told_of_while_others_are_begun() {
    let (mut bench, a) = furnished_bench();
    let mut all: Vec<u64> = Vec::new();
    for round in 0..3 {
        let begun: Vec<u64> = (0..COPIES_UNDER_WAY_MAX)
            .map(|at| begin(&mut bench, a, &format!("/b{round}{at}")).unwrap().job)
            .collect();
        all.extend(&begun);
        for job in begun {
            cancel(&mut bench, job).unwrap();
        }
        for job in all.iter().rev().take(COPIES_KEPT_MAX) {
            assert_eq!(stage(&bench, *job), stopped("copy_cancelled"));
        }
    }
    settle(&mut bench);
}

#[test]
fn a_repeat_gets_the_first_answer_whichever_command_brings_it() {
    let (mut bench, a) = furnished_bench();
    let key = RequestKey {
        source: 1,
        id: 2,
        asked: [3; 32],
        life: RequestLife::Day,
        made_hour: None,
    };
    let asked = command(&mut bench, a, place("/b"), false);
    let first = bench.apply(Some(key), asked).unwrap();
    let asked = command(&mut bench, a, place("/b"), false);
    assert_eq!(bench.apply(Some(key), asked).unwrap(), first);
    settle(&mut bench);
    // A gateway asks for a copy by one command first.
    let small = Command::Drive(DriveCommand::CopyEntry {
        principal: bench.owner,
        entry: a,
        place: place("/b"),
        with_parents: false,
        fresh: vec![bench.fresh()],
        seed: 5,
    });
    assert_eq!(bench.apply(Some(key), small).unwrap(), first);
    assert_eq!(table(&bench, keys::COPY), 1);
    bench.sound();
}

#[test]
fn all_of_a_copy_bears_the_time_at_which_it_was_asked_for() {
    let (mut bench, a) = furnished_bench();
    let begun = begin(&mut bench, a, "/b").unwrap();
    settle(&mut bench);
    for at in ["/b", "/b/x", "/b/y/f00"] {
        assert_eq!(bench.get(at).unwrap().entry.created_at, begun.begun, "{at}");
    }
}

/// Rows of a copy under way and its job, for the golden bytes.
pub(super) fn furnished() -> Vec<(Bytes, Bytes)> {
    let (mut bench, a) = furnished_bench();
    let asked = command(&mut bench, a, place("/p/b"), true);
    let job = answered(bench.run(asked)).unwrap().job;
    steps(&mut bench, job, 2);
    let mut rows = bench.everything();
    rows.retain(|(key, _)| [keys::JOB, keys::COPY].contains(&key[2]));
    rows
}
