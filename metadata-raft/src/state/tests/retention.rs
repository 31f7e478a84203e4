//! Which old versions are kept: by count and age as the drive says, and gone with what they held.
//!
//! Not here: listing and restoring them (`versions`).

use super::versions::{history, numbers, paged, restore, retain, rows_of, table};
use super::{Bench, code, row, survival};
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::retention;
use crate::state::waiting::{self, Sweep, Work};
use kv::seam::{Change, Kv, KvRead};
use model::id::{EntryId, UserId};
use model::time::Age;
use protocol::metadata::drive::{DriveCommand, Retention, Swept};
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::{DirectContent, UploadCommand, UploadTarget};
use protocol::metadata::{Command, QueryAnswer};

const HOUR_S: u64 = 3_600;
const HOUR_MS: u64 = 1000 * HOUR_S;

fn retention_of(bench: &Bench) -> Retention {
    match bench.ask(DriveAsk::Retention).unwrap() {
        QueryAnswer::Retention(retention) => retention,
        other => panic!("{other:?}"),
    }
}

fn sweep_versions(bench: &mut Bench) -> Swept {
    let drive = bench.drive;
    bench
        .sweep(Command::Drive(DriveCommand::SweepVersions { drive }))
        .unwrap()
}

fn sweep_dropped(bench: &mut Bench) -> Swept {
    let drive = bench.drive;
    bench
        .sweep(Command::Drive(DriveCommand::SweepDropped { drive }))
        .unwrap()
}

/// shows: H-ver scale=1/2
#[test]
fn beyond_the_count_the_oldest_fall_away_and_their_space_comes_back() {
    let mut bench = Bench::new(1 << 30);
    assert_eq!(
        retention_of(&bench),
        Retention {
            versions_max: 100,
            version_age_s: 90 * 24 * HOUR_S
        }
    );
    retain(&mut bench, Some(3), None).unwrap();
    let id = history(&mut bench, "/f", 10);
    assert_eq!(numbers(&bench, id), [10, 9, 8]);
    assert_eq!(code(rows_of(&bench, id, 7)), "version_not_found");
    assert_eq!(code(restore(&mut bench, id, 7, None)), "version_not_found");
    bench.sound();
    bench.reap();
    let usage = bench.usage();
    assert_eq!((usage.charged_bytes, usage.released_bytes), (300, 700));
    // One is the least, and it is the current one.
    retain(&mut bench, Some(1), None).unwrap();
    bench.put("/f", Some(10), &[row("eleventh", 1)]).unwrap();
    assert_eq!(numbers(&bench, id), [11]);
    bench.put("/f", Some(11), &[row("twelfth", 1)]).unwrap();
    assert_eq!(numbers(&bench, id), [12]);
    bench.sound();
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 1);
}

#[test]
fn a_lowered_count_is_worked_off_by_a_job_in_short_commands() {
    let mut bench = Bench::new(1 << 30);
    let ids: Vec<EntryId> = (0..12)
        .map(|at| history(&mut bench, &format!("/f{at}"), 1 + at))
        .collect();
    let before = waiting::of_slot(&bench.kv, bench.drive.slot()).unwrap().len();
    retain(&mut bench, Some(4), None).unwrap();
    let queue = waiting::queue(&bench.kv, None, 10).unwrap().due;
    let work = queue[0].1;
    // Before it old versions and changes waited for their age, and blocks of such versions for their grace.
    assert_eq!((queue.len(), work.sweep, before), (1, Sweep::Job, 3));
    let sweep = Command::Drive(DriveCommand::SweepJob {
        drive: bench.drive,
        job: work.number,
    });
    loop {
        let swept = bench.sweep(sweep.clone()).unwrap();
        assert!(swept.operations as usize <= SWEEP_OPERATIONS_MAX, "{swept:?}");
        bench.sound();
        if swept.is_done {
            break;
        }
    }
    for (count, id) in (1_u64..).zip(&ids) {
        let first = count.saturating_sub(3).max(1);
        let kept: Vec<u64> = (first..=count).rev().collect();
        assert_eq!(numbers(&bench, *id), kept);
    }
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 100 * (1 + 2 + 3 + 9 * 4));
    // Raised again before the job comes by: it finds nothing to do.
    retain(&mut bench, Some(3), None).unwrap();
    retain(&mut bench, Some(30), None).unwrap();
    bench.sound();
    super::waiting::follow(&mut bench);
    assert_eq!(numbers(&bench, ids[11]), [12, 11, 10, 9]);
    bench.sound();
}

fn is_due(bench: &Bench) -> bool {
    let due = waiting::queue(&bench.kv, None, 10).unwrap().due;
    due.iter().any(|row| row.1 == Work::of(bench.drive, Sweep::Versions))
}

/// shows: H-ver scale=1/2
#[test]
fn a_version_goes_by_the_age_since_another_took_its_place() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    retain(&mut bench, None, Some(10 * HOUR_S)).unwrap();
    let id = bench.put("/f", None, &[row("first", 100)]).unwrap().view.entry.id;
    // How old the version itself is does not count: nobody could look at what was overwritten by mistake.
    bench.advance(30 * HOUR_MS);
    bench.put("/f", Some(1), &[row("second", 100)]).unwrap();
    bench.advance(4 * HOUR_MS);
    bench.put("/f", Some(2), &[row("third", 100)]).unwrap();
    // A wrong clock removes nothing.
    bench.wall += 1_000_000_000_000;
    assert_eq!(sweep_versions(&mut bench).operations, 0);
    bench.advance(6 * HOUR_MS - 1);
    assert!(!is_due(&bench));
    assert_eq!(sweep_versions(&mut bench).operations, 0);
    bench.advance(1);
    assert!(is_due(&bench));
    let swept = sweep_versions(&mut bench);
    assert_eq!((swept.operations, swept.is_done), (2, true), "a version and its page");
    assert_eq!(numbers(&bench, id), [3, 2]);
    bench.sound();
    bench.advance(4 * HOUR_MS);
    sweep_versions(&mut bench);
    assert_eq!(numbers(&bench, id), [3]);
    bench.advance(50 * HOUR_MS);
    sweep_versions(&mut bench);
    assert_eq!(numbers(&bench, id), [3], "the current version stays however old it is");
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 100);
    bench.sound();
    let left = waiting::of_slot(&bench.kv, bench.drive.slot()).unwrap();
    let is_of_versions = |work: &Work| [Sweep::Versions, Sweep::Dropped].contains(&work.sweep);
    assert!(!left.iter().any(|(work, _)| is_of_versions(work)), "{left:?}");
}

#[test]
fn another_age_counts_at_once_for_versions_that_are_old_already() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    bench.advance(HOUR_MS);
    let id = history(&mut bench, "/f", 3);
    let work = Work::of(bench.drive, Sweep::Versions);
    let due = |bench: &Bench| {
        let rows = waiting::of_slot(&bench.kv, bench.drive.slot()).unwrap();
        rows.into_iter().find(|(found, _)| *found == work).unwrap().1.due
    };
    assert_eq!(due(&bench), Age(HOUR_MS + 90 * 24 * HOUR_MS), "ninety days");
    retain(&mut bench, None, Some(5 * HOUR_S)).unwrap();
    assert_eq!(due(&bench), Age(6 * HOUR_MS));
    // Longer again: the row is early, and its sweep sets it right.
    retain(&mut bench, None, Some(9 * HOUR_S)).unwrap();
    bench.sound();
    bench.advance(6 * HOUR_MS);
    assert_eq!(sweep_versions(&mut bench).operations, 0);
    assert_eq!((due(&bench), numbers(&bench, id)), (Age(10 * HOUR_MS), vec![3, 2, 1]));
    retain(&mut bench, None, Some(1)).unwrap();
    assert_eq!(sweep_versions(&mut bench).operations, 4);
    assert_eq!(numbers(&bench, id), [3]);
    bench.sound();
}

#[test]
fn what_a_drive_cannot_keep_is_refused_and_only_its_owner_says_how_much() {
    let mut bench = Bench::new(1 << 30);
    let refused = [
        (Some(0), None),
        (Some(10_001), None),
        (None, Some(0)),
        (None, Some(315_360_001)),
    ];
    for (versions, age) in refused {
        assert_eq!(
            code(retain(&mut bench, versions, age)),
            "bad_retention",
            "{versions:?} {age:?}"
        );
    }
    retain(&mut bench, Some(10_000), Some(315_360_000)).unwrap();
    retain(&mut bench, None, None).unwrap();
    assert_eq!(bench.writes, 0);
    let known = retention_of(&bench);
    assert_eq!((known.versions_max, known.version_age_s), (10_000, 315_360_000));
    bench.owner.user = UserId::new(bench.drive.slot(), 9);
    bench.owner.is_admin = true;
    assert_eq!(code(retain(&mut bench, Some(1), None)), "not_found");
}

#[test]
fn a_version_of_many_pages_is_gone_at_once_and_counted_down_in_parts() {
    let mut bench = Bench::new(1 << 30);
    retain(&mut bench, Some(1), None).unwrap();
    let pages = 3 * SWEEP_OPERATIONS_MAX + 7;
    let long = paged(&mut bench, "long", pages);
    let id = bench.commit("/f", None, long.clone()).unwrap().view.entry.id;
    bench.put("/f", Some(1), &[row("short", 1)]).unwrap();
    assert_eq!(
        (numbers(&bench, id), table(&bench, keys::DROPPED_VERSION)),
        (vec![2], 1)
    );
    assert_eq!(table(&bench, keys::PAGE_RELEASE), 0);
    bench.sound();
    // Who brings the same content meanwhile finds its pages, and their count is right whoever comes first.
    let again = DirectContent {
        stripes: Vec::new(),
        ..long
    };
    bench.commit("/again", None, again).unwrap();
    let mut commands = 1;
    while !sweep_dropped(&mut bench).is_done {
        bench.sound();
        commands += 1;
    }
    assert_eq!((commands, table(&bench, keys::DROPPED_VERSION)), (4, 0));
    bench.sound();
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 1 + 10 * pages as u64);
    // A purge of the file leaves what was taken out of it before to its own sweep.
    let again = bench.get("/again").unwrap().entry.id;
    bench.put("/again", Some(1), &[row("shorter", 2)]).unwrap();
    bench.purge(again).unwrap();
    bench.sound();
    while !sweep_dropped(&mut bench).is_done {}
    bench.reap();
    assert_eq!((bench.usage().charged_bytes, bench.usage().files), (1, 1));
    bench.sound();
}

#[test]
fn the_versions_of_a_purged_file_leave_nothing_behind() {
    let mut bench = Bench::new(1 << 30);
    let id = history(&mut bench, "/f", 5);
    bench.put("/g", None, &[row("g", 10)]).unwrap();
    bench.put("/g", Some(1), &[row("h", 10)]).unwrap();
    bench.purge(id).unwrap();
    let tables = [keys::OLD_VERSION, keys::OLD_SINCE, keys::VERSION];
    assert_eq!(
        tables.map(|number| table(&bench, number)),
        [1, 1, 2],
        "those of the other file"
    );
    bench.sound();
    bench.reap();
    assert_eq!(bench.usage().charged_bytes, 20);
    bench.sound();
}

#[test]
fn versions_of_an_earlier_release_go_with_the_next_one_that_does() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    let id = history(&mut bench, "/f", 12);
    let is_new = |key: &[u8]| [keys::OLD_VERSION, keys::OLD_SINCE].contains(&key[2]);
    let rows = bench.everything().into_iter().filter(|(key, _)| is_new(key));
    bench
        .kv
        .write(rows.map(|(key, _)| Change::Delete(key)).collect())
        .unwrap();
    bench.sound();
    retain(&mut bench, None, Some(HOUR_S)).unwrap();
    bench.advance(5 * HOUR_MS);
    sweep_versions(&mut bench);
    assert_eq!(numbers(&bench, id).len(), 12, "nobody knows since when they are old");
    bench.put("/f", Some(12), &[row("next", 10)]).unwrap();
    bench.sound();
    bench.advance(HOUR_MS);
    while !sweep_versions(&mut bench).is_done {
        bench.sound();
    }
    assert_eq!(numbers(&bench, id), [13]);
    bench.sound();
}

#[test]
fn a_row_that_covers_no_version_holds_nothing_up() {
    let mut bench = Bench::with_epoch(1 << 30, HOUR_MS);
    let id = history(&mut bench, "/f", 3);
    let (drive, number) = (bench.drive, id.number);
    let gone = keys::version(drive, number, 1);
    let held = bench.kv.get(&gone).unwrap().unwrap();
    bench.kv.write(vec![Change::Delete(gone.clone())]).unwrap();
    retain(&mut bench, None, Some(1)).unwrap();
    bench.advance(HOUR_MS);
    assert!(sweep_versions(&mut bench).is_done);
    assert_eq!(numbers(&bench, id), [3]);
    // The version that had lost its row in between still names its page: no other row was harmed.
    bench.kv.write(vec![Change::Put(gone, held)]).unwrap();
    bench.sound();
}

/// Commits by sessions and restores prune alike, since all go through one place.
#[test]
fn a_file_made_by_its_id_prunes_as_well() {
    let mut bench = Bench::new(1 << 30);
    retain(&mut bench, Some(2), None).unwrap();
    let id = history(&mut bench, "/f", 2);
    let content = bench.content(&[row("third", 9)], &[row("third", 9)]);
    let fresh = vec![bench.fresh()];
    let command = Command::Upload(UploadCommand::CommitUpload {
        principal: bench.owner,
        drive: bench.drive,
        target: UploadTarget::Entry(id),
        base_version: Some(2),
        fresh,
        content,
        content_type: None,
        survival: survival(),
    });
    bench.run(command).unwrap();
    assert_eq!(numbers(&bench, id), [3, 2]);
    restore(&mut bench, id, 2, Some(3)).unwrap();
    assert_eq!(numbers(&bench, id), [4, 3]);
    bench.sound();
    bench.reap();
    assert_eq!(
        bench.usage().charged_bytes,
        109,
        "the second content is back, the first one gone"
    );
    assert_eq!(retention::of(&bench.kv, bench.drive).unwrap().versions_max, 2);
    bench.sound();
}
