//! Rewinds: what is listed, what is changed, what is left alone, and that each command of one is short.

use super::versions::{numbers, retain, rows_of};
use super::{Bench, code, row};
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use bytes::Bytes;
use model::authorize::Principal;
use model::digest::Digest;
use model::entry::EntryType;
use model::id::{EntryId, ROOT_ENTRY, UserId};
use model::limits::{REWIND_AGE, REWINDS_KEPT_MAX, VERSION_AGE_DEFAULT};
use model::time::WallTime;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::{prop_assert_eq, proptest};
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::{ChangeType, DriveAsk};
use protocol::metadata::rewind::{
    RewindAction, RewindFacts, RewindItem, RewindOrder, RewindOutcome, RewindPage, RewindStage,
};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer};
use protocol::wire_error::Failure;
use std::collections::BTreeMap;

/// As a user asks for it who says nothing more.
fn order(entry: EntryId, to: u64) -> RewindOrder {
    RewindOrder {
        entry,
        to: WallTime(to),
        keeps_created: false,
        is_dry_run: false,
    }
}

fn dry(entry: EntryId, to: u64) -> RewindOrder {
    RewindOrder {
        is_dry_run: true,
        ..order(entry, to)
    }
}

fn answered(answer: Result<CommandAnswer, Failure>) -> Result<RewindFacts, Failure> {
    match answer? {
        CommandAnswer::Rewind(facts) => Ok(facts),
        other => panic!("{other:?}"),
    }
}

fn begin(bench: &mut Bench, order: RewindOrder) -> Result<RewindFacts, Failure> {
    let (principal, job) = (bench.owner, bench.fresh());
    answered(bench.run(Command::Drive(DriveCommand::BeginRewind { principal, order, job })))
}

fn run(bench: &mut Bench, job: u64) -> Result<RewindFacts, Failure> {
    let (principal, drive) = (bench.owner, bench.drive);
    answered(bench.run(Command::Drive(DriveCommand::RunRewind { principal, drive, job })))
}

/// One command of the job; whether it was the last.
fn step(bench: &mut Bench, job: u64) -> bool {
    let drive = bench.drive;
    let swept = bench
        .sweep(Command::Drive(DriveCommand::SweepJob { drive, job }))
        .unwrap();
    bench.sound();
    swept.is_done
}

fn page(bench: &Bench, job: u64, first: u64, limit: u16) -> Result<RewindPage, Failure> {
    match bench.ask(DriveAsk::Rewind { job, first, limit })? {
        QueryAnswer::Rewind(page) => Ok(page),
        other => panic!("{other:?}"),
    }
}

/// Begins a rewind and works it off.
fn rewind(bench: &mut Bench, order: RewindOrder) -> RewindPage {
    let job = begin(bench, order).unwrap().job;
    while !step(bench, job) {}
    page(bench, job, 0, 1000).unwrap()
}

/// What was listed: path, action, outcome.
fn told(page: &RewindPage) -> Vec<(&str, RewindAction, RewindOutcome)> {
    let told = |item: &RewindItem| (item.action, item.outcome.clone());
    let paths = page.items.iter().map(|item| item.path.as_deref().unwrap_or("gone"));
    let told = paths.zip(page.items.iter().map(told));
    told.map(|(path, (action, outcome))| (path, action, outcome)).collect()
}

fn left(code: &str) -> RewindOutcome {
    RewindOutcome::Left(code.to_owned())
}

/// Every path with the digest of what is there, folders without one.
fn live(bench: &Bench) -> BTreeMap<String, Option<Digest>> {
    let mut found = BTreeMap::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in bench.list(&folder, 1000, None).unwrap().entries {
            let path = format!("{}/{}", folder.trim_end_matches('/'), entry.name);
            if entry.entry_type == EntryType::Folder {
                folders.push(path.clone());
            }
            found.insert(path, entry.digest);
        }
    }
    found
}

fn put(bench: &mut Bench, at: &str, base: Option<u64>, text: &str) -> EntryId {
    bench.put(at, base, &[row(text, 50)]).unwrap().view.entry.id
}

#[test]
fn files_overwritten_since_get_their_contents_back_as_new_versions() {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    let (f, g) = (
        put(&mut bench, "/a/f", None, "f1"),
        put(&mut bench, "/a/b/g", None, "g1"),
    );
    put(&mut bench, "/a/b/g", Some(1), "g2");
    put(&mut bench, "/a/same", None, "same");
    let outside = put(&mut bench, "/outside", None, "o1");
    let then = bench.wall;
    for version in 1..=3 {
        put(&mut bench, "/a/f", Some(version), &format!("lost {version}"));
    }
    put(&mut bench, "/a/b/g", Some(2), "lost");
    put(&mut bench, "/a/same", Some(1), "other");
    put(&mut bench, "/a/same", Some(2), "same");
    put(&mut bench, "/outside", Some(1), "o2");
    let (before, charged) = (live(&bench), bench.usage().charged_bytes);

    // A dry run lists and changes nothing but its own rows.
    let page = rewind(&mut bench, dry(folder, then));
    let content = |version| RewindAction::Content { version };
    let planned = |path, version| (path, content(version), RewindOutcome::Planned);
    assert_eq!(told(&page), [planned("/a/b/g", 2), planned("/a/f", 1)]);
    assert_eq!(
        (page.facts.stage.clone(), page.facts.counts.looked_at),
        (RewindStage::Planned, 4)
    );
    assert_eq!(live(&bench), before);

    let page = rewind(&mut bench, order(folder, then));
    let done = |path, version| (path, content(version), RewindOutcome::Done);
    assert_eq!(told(&page), [done("/a/b/g", 2), done("/a/f", 1)]);
    assert_eq!(
        (page.facts.counts.listed, page.facts.counts.done, page.facts.counts.left),
        (2, 2, 0)
    );
    assert_eq!(rows_of(&bench, f, 5).unwrap(), [row("f1", 50)]);
    assert_eq!(rows_of(&bench, g, 4).unwrap(), [row("g2", 50)]);
    assert_eq!(numbers(&bench, f), [5, 4, 3, 2, 1]);
    assert_eq!(numbers(&bench, outside), [2, 1]);
    assert_eq!(bench.usage().charged_bytes, charged, "pages only");
    // Each is a change of its own.
    let QueryAnswer::Changes(changes) = bench
        .ask(DriveAsk::ScopeChanges {
            scope: bench.drive.root(),
            after: 0,
            limit: 1000,
        })
        .unwrap()
    else {
        panic!("no changes");
    };
    let last: Vec<_> = changes
        .changes
        .iter()
        .rev()
        .take(2)
        .map(|change| (change.entry, change.change))
        .collect();
    assert_eq!(last, [(f, ChangeType::Updated), (g, ChangeType::Updated)]);

    // A single file, and back again: to the instant at which the rewind was asked for.
    let again = rewind(&mut bench, order(f, page.facts.begun.0));
    assert_eq!(told(&again), [done("/a/f", 4)]);
    assert_eq!(rows_of(&bench, f, 6).unwrap(), [row("lost 3", 50)]);
    bench.sound();
}

#[test]
fn what_was_made_since_goes_into_the_trash_or_stays_and_a_folder_with_what_stays_in_it() {
    for keeps_created in [false, true] {
        let mut bench = Bench::new(1 << 30);
        let folder = bench.mkdir("/a").unwrap();
        let old = put(&mut bench, "/a/old", None, "old");
        let then = bench.wall;
        put(&mut bench, "/a/new", None, "new");
        for path in ["/a/n", "/a/n/o", "/a/kept", "/a/empty"] {
            bench.mkdir(path).unwrap();
        }
        put(&mut bench, "/a/n/o/new", None, "new");
        put(&mut bench, "/a/kept/new", None, "new");
        bench.rename(old, "/a/kept/old").unwrap();
        let before = live(&bench);
        let page = rewind(
            &mut bench,
            RewindOrder {
                keeps_created,
                ..order(folder, then)
            },
        );
        if keeps_created {
            assert!(page.items.is_empty(), "{page:?}");
            assert_eq!(live(&bench), before);
            continue;
        }
        let trashed = |path| (path, RewindAction::Trash, RewindOutcome::Done);
        // The path of what is in the trash is the one that it had.
        let wanted = ["/a/empty", "/a/kept/new", "/a/n/o/new", "/a/n/o", "/a/n", "/a/new"].map(trashed);
        assert_eq!(told(&page), wanted);
        let names: Vec<String> = live(&bench).into_keys().collect();
        assert_eq!(
            names,
            ["/a", "/a/kept", "/a/kept/old"],
            "a name is not rewound, and its folder stays with it"
        );
    }
}

#[test]
fn what_was_trashed_since_comes_back_with_its_content_of_then() {
    let mut bench = Bench::new(1 << 30);
    let (folder, inner) = (bench.mkdir("/a").unwrap(), bench.mkdir("/a/in").unwrap());
    let (f, g) = (
        put(&mut bench, "/a/in/f", None, "f1"),
        put(&mut bench, "/a/g", None, "g1"),
    );
    let (taken, before) = (
        put(&mut bench, "/a/t", None, "t1"),
        put(&mut bench, "/a/before", None, "b"),
    );
    let other = put(&mut bench, "/other", None, "other");
    bench.trash(before).unwrap();
    let then = bench.wall;
    put(&mut bench, "/a/in/f", Some(1), "f2");
    put(&mut bench, "/a/g", Some(1), "g2");
    let new = put(&mut bench, "/a/since", None, "x");
    for entry in [f, g, inner, taken, other, new] {
        bench.advance(1000);
        bench.trash(entry).unwrap();
    }
    bench.mkdir("/a/t").unwrap();
    let keeps = RewindOrder {
        keeps_created: true,
        ..order(folder, then)
    };
    let page = rewind(&mut bench, keeps);
    let done = |path, action| (path, action, RewindOutcome::Done);
    let wanted = [
        ("/a/t", RewindAction::Untrash, left("name_taken")),
        done("/a/in", RewindAction::Untrash),
        done("/a/g", RewindAction::Untrash),
        done("/a/g", RewindAction::Content { version: 1 }),
        done("/a/in/f", RewindAction::Untrash),
        done("/a/in/f", RewindAction::Content { version: 1 }),
    ];
    assert_eq!(told(&page), wanted);
    assert_eq!(page.facts.counts.left, 1);
    assert_eq!(rows_of(&bench, f, 3).unwrap(), [row("f1", 50)]);
    let names: Vec<String> = live(&bench).into_keys().collect();
    assert_eq!(names, ["/a", "/a/g", "/a/in", "/a/in/f", "/a/t"]);
    // With what was made since out of the way the place is free.
    rewind(&mut bench, order(folder, then));
    assert_eq!(bench.get("/a/t").unwrap().entry.id, taken);
}

#[test]
fn what_is_changed_after_it_was_listed_is_left_alone_and_told() {
    for is_dry_run in [true, false] {
        let mut bench = Bench::new(1 << 30);
        let folder = bench.mkdir("/a").unwrap();
        let names = ["/a/content", "/a/gone", "/a/moved", "/a/ok", "/a/trashed"];
        let files = names.map(|at| put(&mut bench, at, None, at));
        let then = bench.wall;
        for at in names {
            put(&mut bench, at, Some(1), "lost");
        }
        bench.mkdir("/a/new").unwrap();
        let job = begin(
            &mut bench,
            RewindOrder {
                is_dry_run,
                ..order(folder, then)
            },
        )
        .unwrap()
        .job;
        assert_eq!(step(&mut bench, job), is_dry_run);
        put(&mut bench, "/a/content", Some(2), "a person's");
        bench.purge(files[1]).unwrap();
        bench.rename(files[2], "/moved").unwrap();
        bench.trash(files[4]).unwrap();
        put(&mut bench, "/a/new/file", None, "a person's");
        if is_dry_run {
            let facts = run(&mut bench, job).unwrap();
            assert_eq!((facts.stage, facts.order.is_dry_run), (RewindStage::Working, false));
        }
        while !step(&mut bench, job) {}
        let page = page(&bench, job, 0, 1000).unwrap();
        let content = RewindAction::Content { version: 1 };
        let wanted = [
            ("/a/content", content, left("revision_conflict")),
            ("gone", content, left("not_found")),
            ("/moved", content, left("revision_conflict")),
            ("/a/new", RewindAction::Trash, left("folder_not_empty")),
            ("/a/ok", content, RewindOutcome::Done),
            ("/a/trashed", content, left("in_trash")),
        ];
        assert_eq!(told(&page), wanted);
        assert_eq!((page.facts.counts.done, page.facts.counts.left), (1, 5));
        assert_eq!(rows_of(&bench, files[0], 3).unwrap(), [row("a person's", 50)]);
        assert_eq!(code(run(&mut bench, job)), "rewind_not_planned");
    }
}

#[test]
fn a_content_that_is_not_kept_any_more_is_told_and_one_of_many_versions_is_found() {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/a").unwrap();
    let f = put(&mut bench, "/a/f", None, "0");
    let mut instants = vec![bench.wall];
    for version in 1..40 {
        bench.wall += version % 3;
        put(&mut bench, "/a/f", Some(version), &version.to_string());
        instants.push(bench.wall);
    }
    for (version, instant) in (1..40).zip(&instants) {
        let page = rewind(&mut bench, dry(folder, *instant));
        assert_eq!(
            told(&page),
            [("/a/f", RewindAction::Content { version }, RewindOutcome::Planned)]
        );
    }
    retain(&mut bench, Some(10), None).unwrap();
    let trim = bench.next;
    bench.finish_job(trim);
    let oldest = *numbers(&bench, f).last().unwrap();
    assert_eq!(oldest, 31);
    let at = |version: u64| instants[usize::try_from(version).unwrap() - 1];
    let page = rewind(&mut bench, order(folder, at(oldest - 1)));
    assert_eq!(told(&page), [("/a/f", RewindAction::Gone, left("version_not_found"))]);
    // What a dry run has found may go before it is run.
    let plan = rewind(&mut bench, dry(folder, at(oldest)));
    let newest = numbers(&bench, f)[0];
    assert_eq!(plan.facts.counts.listed, 1);
    retain(&mut bench, Some(9), None).unwrap();
    let trim = bench.next;
    bench.finish_job(trim);
    assert_eq!(numbers(&bench, f)[0], newest);
    run(&mut bench, plan.facts.job).unwrap();
    while !step(&mut bench, plan.facts.job) {}
    let run = self::page(&bench, plan.facts.job, 0, 10).unwrap();
    assert_eq!(run.items[0].outcome, left("version_not_found"));
}

#[test]
fn a_rewind_is_refused_outside_of_what_is_kept_and_beside_another() {
    let mut bench = Bench::new(1 << 30);
    let root = bench.drive.root();
    let made = bench.wall;
    let folder = bench.mkdir("/a").unwrap();
    let then = bench.wall;
    put(&mut bench, "/a/f", None, "f");
    let ahead = bench.wall + 1000;
    assert_eq!(code(begin(&mut bench, order(root, ahead))), "rewind_in_future");
    assert_eq!(code(begin(&mut bench, order(folder, then - 1))), "rewind_too_old");
    assert_eq!(code(begin(&mut bench, order(root, 0))), "rewind_too_old");
    let nowhere = EntryId { number: 99_999, ..root };
    assert_eq!(code(begin(&mut bench, order(nowhere, then))), "not_found");
    assert_eq!(code(run(&mut bench, 4)), "job_not_found");
    assert_eq!(code(page(&bench, 4, 0, 10)), "job_not_found");

    let job = begin(&mut bench, order(folder, then)).unwrap().job;
    let refusal = begin(&mut bench, order(root, then)).unwrap_err();
    let running = EntryId { number: job, ..root }.to_string();
    assert_eq!(
        (refusal.code.as_str(), &refusal.fields["job"]),
        ("rewind_running", &running)
    );
    assert_eq!(code(run(&mut bench, job)), "rewind_not_planned");
    // Another's job is none, and the right to write is asked for again by every command.
    let eve = Principal {
        user: UserId::new(bench.drive.slot(), 99),
        ..bench.owner
    };
    assert!(
        bench
            .ask_as(
                Some(eve),
                DriveAsk::Rewind {
                    job,
                    first: 0,
                    limit: 10
                }
            )
            .is_err()
    );
    bench.trash(folder).unwrap();
    assert!(step(&mut bench, job));
    let stopped = page(&bench, job, 0, 10).unwrap().facts;
    assert_eq!(stopped.stage, RewindStage::Stopped("in_trash".to_owned()));
    assert_eq!(code(begin(&mut bench, order(folder, then))), "in_trash");

    bench.wall += u64::try_from(VERSION_AGE_DEFAULT.as_millis()).unwrap();
    assert_eq!(code(begin(&mut bench, order(root, made))), "rewind_too_old");
    assert_eq!(code(begin(&mut bench, order(root, u64::MAX))), "rewind_in_future");
    bench.sound();
}

#[test]
fn every_command_of_a_large_rewind_is_short_and_another_leader_goes_on_from_any() {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/a").unwrap();
    let files = 420_u64;
    let at = |number: u64| format!("/a/f{number:03}");
    for number in 0..files {
        if number % 100 == 50 {
            bench.mkdir(&format!("/a/d{number:03}")).unwrap();
        }
        put(&mut bench, &at(number), None, &at(number));
    }
    let then = bench.wall;
    let wanted = live(&bench);
    for number in 0..files {
        put(&mut bench, &at(number), Some(1), "lost");
    }
    let job = begin(&mut bench, order(folder, then)).unwrap().job;
    let (mut commands, mut most) = (0, 0);
    loop {
        let drive = bench.drive;
        let sweep = Command::Drive(DriveCommand::SweepJob { drive, job });
        let is_done = bench.sweep(sweep).unwrap().is_done;
        commands += 1;
        most = most.max(bench.writes);
        if is_done {
            break;
        }
    }
    // 425 entries are looked at 200 a command, and each content counts for itself and its page.
    let works = files.div_ceil(SWEEP_OPERATIONS_MAX as u64 / 2);
    assert_eq!(commands, 3 + works);
    assert!(most <= 20 * SWEEP_OPERATIONS_MAX, "{most} rows in one command");
    assert_eq!(live(&bench), wanted);
    bench.sound();
    // Its list by pages.
    let mut indexes = Vec::new();
    loop {
        let page = page(&bench, job, indexes.len() as u64, 97).unwrap();
        indexes.extend(page.items.iter().map(|item| item.index));
        if !page.has_more {
            break;
        }
    }
    assert!(indexes.into_iter().eq(0..files));
}

#[test]
fn ended_rewinds_are_forgotten_with_their_lists_by_age_and_the_oldest_beyond_eight() {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/a").unwrap();
    for number in 0..300 {
        put(&mut bench, &format!("/a/{number}"), None, &number.to_string());
    }
    let then = bench.wall;
    for number in 0..300 {
        put(&mut bench, &format!("/a/{number}"), Some(1), "lost");
    }
    let rows = |bench: &Bench, table| bench.everything().iter().filter(|(key, _)| key[2] == table).count();
    let drive = bench.drive;
    let forget = Command::Drive(DriveCommand::SweepRewinds { drive });
    let mut jobs = Vec::new();
    for _ in 0..=REWINDS_KEPT_MAX {
        bench.advance(1000);
        jobs.push(rewind(&mut bench, dry(folder, then)).facts.job);
    }
    assert_eq!(code(page(&bench, jobs[0], 0, 1)), "job_not_found");
    assert_eq!(code(run(&mut bench, jobs[0])), "job_not_found");
    assert_eq!(rows(&bench, keys::REWIND_ITEM), 300 * (REWINDS_KEPT_MAX + 1));
    while !bench.sweep(forget.clone()).unwrap().is_done {
        bench.sound();
    }
    assert_eq!(rows(&bench, keys::REWIND_ITEM), 300 * REWINDS_KEPT_MAX);
    assert!(page(&bench, jobs[1], 0, 1).is_ok());
    let day_ms = u64::try_from(REWIND_AGE.as_millis()).unwrap();
    bench.advance(day_ms - 10_000);
    assert_eq!(bench.sweep(forget.clone()).unwrap().operations, 0);
    bench.advance(20_000);
    while !bench.sweep(forget.clone()).unwrap().is_done {
        bench.sound();
    }
    for table in [keys::REWIND, keys::REWIND_ITEM, keys::REWIND_END] {
        assert_eq!(rows(&bench, table), 0);
    }
    bench.sound();
}

/// Rows of all tables of rewinds and a job of one, for the golden bytes.
pub(super) fn furnished() -> Vec<(Bytes, Bytes)> {
    let mut bench = Bench::new(1 << 30);
    let folder = bench.mkdir("/a").unwrap();
    bench.mkdir("/a/b").unwrap();
    let g = put(&mut bench, "/a/b/g", None, "g1");
    put(&mut bench, "/a/f", None, "f1");
    let then = bench.wall;
    put(&mut bench, "/a/f", Some(1), "f2");
    put(&mut bench, "/a/n", None, "n1");
    bench.trash(g).unwrap();
    rewind(&mut bench, dry(folder, then));
    let job = begin(&mut bench, order(folder, then)).unwrap().job;
    assert!(!step(&mut bench, job));
    let mut rows = bench.everything();
    rows.retain(|(key, _)| [keys::JOB, keys::REWIND, keys::REWIND_ITEM, keys::REWIND_END].contains(&key[2]));
    rows
}

/// A step of somebody's work: files and folders are made, written and trashed, and nothing is moved.
#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8),
    Folder(u8),
    Trash(u8),
}

const PATHS: [&str; 7] = ["/a", "/b", "/d/a", "/d/b", "/d/e/a", "/e/a", "/e/b"];
const FOLDERS: [&str; 3] = ["/d", "/d/e", "/e"];

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => any::<u8>().prop_map(Step::Write),
        2 => any::<u8>().prop_map(Step::Folder),
        2 => any::<u8>().prop_map(Step::Trash),
    ]
}

fn take(bench: &mut Bench, number: usize, step: Step) {
    match step {
        Step::Write(which) => {
            let at = PATHS[usize::from(which) % PATHS.len()];
            let base = bench.get(at).ok().map(|view| view.entry.version);
            // Where the folder is not there nothing is written.
            drop(bench.put(at, base, &[row(&(number % 5).to_string(), 50)]));
        }
        Step::Folder(which) => drop(bench.mkdir(FOLDERS[usize::from(which) % FOLDERS.len()])),
        Step::Trash(which) => {
            let all = [&PATHS[..], &FOLDERS[..]].concat();
            if let Ok(view) = bench.get(all[usize::from(which) % all.len()]) {
                bench.trash(view.entry.id).unwrap();
            }
        }
    }
}

proptest! {
    #[test]
    fn the_tree_is_what_it_was_at_any_instant(steps in proptest::collection::vec(any_step(), 1..60), at in any::<u16>()) {
        let mut bench = Bench::new(1 << 30);
        let mut seen = vec![(bench.wall, live(&bench))];
        for (number, step) in steps.into_iter().enumerate() {
            take(&mut bench, number, step);
            seen.push((bench.wall, live(&bench)));
        }
        let (then, wanted) = seen.swap_remove(usize::from(at) % seen.len());
        let root = EntryId { drive: bench.drive, number: ROOT_ENTRY };
        let page = rewind(&mut bench, order(root, then));
        prop_assert_eq!(page.facts.counts.left, 0, "{:?}", page);
        prop_assert_eq!(live(&bench), wanted);
    }
}
