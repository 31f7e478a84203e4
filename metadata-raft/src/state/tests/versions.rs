//! Old versions: listed, restored by their pages, kept by count and age as the drive says, and gone with what they held.

use super::{Bench, code, digest, row, survival};
use crate::state::job::SWEEP_OPERATIONS_MAX;
use crate::state::keys;
use crate::state::retention;
use crate::state::waiting::{self, Sweep, Work};
use bytes::Bytes;
use kv::seam::{Change, Kv, KvRead};
use model::authorize::Principal;
use model::entry::{BlockRow, Version};
use model::id::{EntryId, UserId};
use model::time::Age;
use protocol::metadata::drive::{DriveCommand, EntryChanged, Retention, Swept};
use protocol::metadata::query::{DriveAsk, VersionRows};
use protocol::metadata::upload::{DirectContent, InlineBlock, PageRows, UploadCommand, UploadTarget};
use protocol::metadata::{Command, QueryAnswer};
use protocol::wire_error::Failure;

const HOUR_S: u64 = 3_600;
const HOUR_MS: u64 = 1000 * HOUR_S;

/// A page of versions.
pub(super) fn page(bench: &Bench, entry: EntryId, before: Option<u64>, limit: u16) -> Result<Vec<Version>, Failure> {
    match bench.ask(DriveAsk::ListVersions { entry, before, limit })? {
        QueryAnswer::Versions(versions) => Ok(versions),
        other => panic!("{other:?}"),
    }
}

/// Numbers of the versions that are kept, the newest first.
pub(super) fn numbers(bench: &Bench, entry: EntryId) -> Vec<u64> {
    let versions = page(bench, entry, None, 1000).unwrap();
    versions.iter().map(|version| version.number).collect()
}

/// The rows of a version.
pub(super) fn rows_of(bench: &Bench, entry: EntryId, version: u64) -> Result<Vec<BlockRow>, Failure> {
    let ask = DriveAsk::ReadRows {
        entry,
        version: Some(version),
        first: 0,
    };
    match bench.ask(ask)? {
        QueryAnswer::VersionRows(VersionRows { rows, count, .. }) => {
            assert_eq!(rows.len() as u64, count);
            Ok(rows)
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn restore(
    bench: &mut Bench,
    entry: EntryId,
    version: u64,
    base: Option<u64>,
) -> Result<EntryChanged, Failure> {
    let principal = bench.owner;
    restore_as(bench, principal, entry, version, base)
}

fn restore_as(
    bench: &mut Bench,
    principal: Principal,
    entry: EntryId,
    version: u64,
    base_version: Option<u64>,
) -> Result<EntryChanged, Failure> {
    let command = Command::Upload(UploadCommand::RestoreVersion {
        principal,
        entry,
        version,
        base_version,
    });
    match bench.run(command)? {
        protocol::metadata::CommandAnswer::Entry(changed) => Ok(changed),
        other => panic!("{other:?}"),
    }
}

pub(super) fn retain(bench: &mut Bench, versions_max: Option<u32>, version_age_s: Option<u64>) -> Result<(), Failure> {
    let (principal, drive, job) = (bench.owner, bench.drive, bench.fresh());
    let command = DriveCommand::SetRetention {
        principal,
        drive,
        versions_max,
        version_age_s,
        job,
    };
    bench.run(Command::Drive(command)).map(drop)
}

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

/// Rows of a table of the drive.
fn table(bench: &Bench, table: u8) -> usize {
    bench.everything().iter().filter(|(key, _)| key[2] == table).count()
}

/// A file of as many versions, each of one block of its own; answers its id.
fn history(bench: &mut Bench, at: &str, versions: u64) -> EntryId {
    let mut id = None;
    for number in 1..=versions {
        let rows = [row(&format!("{at} {number}"), 100)];
        let put = bench.put(at, (number > 1).then_some(number - 1), &rows).unwrap();
        assert_eq!(put.version.number, number);
        id = Some(put.view.entry.id);
    }
    id.unwrap()
}

/// A content of as many pages, each of one block that names the content.
fn paged(bench: &mut Bench, name: &str, pages: usize) -> DirectContent {
    let rows: Vec<BlockRow> = (0..pages).map(|at| row(&format!("{name} {at}"), 10)).collect();
    let mut content = bench.content(&rows, &rows);
    let one = |row: &BlockRow| PageRows {
        digest: digest(&format!("page of {row:?}")),
        rows: vec![*row],
    };
    content.pages = rows.iter().map(one).collect();
    content
}

/// A told retention, an old version, and a dropped one that still holds pages.
pub(super) fn furnish(bench: &mut Bench) {
    retain(bench, Some(2), None).unwrap();
    let long = paged(bench, "long", 20);
    bench.commit("/f", None, long).unwrap();
    bench.advance(1_000);
    bench.put("/f", Some(1), &[row("second", 10)]).unwrap();
    bench.put("/f", Some(2), &[row("third", 10)]).unwrap();
}

/// shows: US-3.1 scale=1/2
/// shows: D-2.5 scale=1/2
#[test]
fn any_of_a_hundred_versions_is_listed_read_and_restored_by_its_pages() {
    let mut bench = Bench::new(1 << 30);
    let id = history(&mut bench, "/f", 100);
    assert_eq!(numbers(&bench, id), (1..=100).rev().collect::<Vec<u64>>());
    let first = page(&bench, id, None, 30).unwrap();
    assert_eq!(
        (first.len(), first[30].number),
        (31, 70),
        "one more than asked for: more follow"
    );
    let last = page(&bench, id, Some(31), 30).unwrap();
    assert_eq!((last.len(), last[0].number), (30, 30));
    let (charged, blocks) = (bench.usage().charged_bytes, table(&bench, keys::BLOCK));
    for wanted in [1, 57, 99] {
        let rows = [row(&format!("/f {wanted}"), 100)];
        assert_eq!(rows_of(&bench, id, wanted).unwrap(), rows);
        let old = page(&bench, id, Some(wanted + 1), 1).unwrap();
        let made = restore(&mut bench, id, wanted, None).unwrap();
        let newest = made.view.entry.version;
        assert_eq!(rows_of(&bench, id, newest).unwrap(), rows);
        assert_eq!(made.view.entry.digest, Some(old[0].digest));
        bench.sound();
    }
    let entry = bench.get("/f").unwrap().entry;
    assert_eq!((entry.version, entry.revision, entry.size), (103, 103, 100));
    assert_eq!(numbers(&bench, id), (4..=103).rev().collect::<Vec<u64>>());
    // The three oldest fell away with the restores, and what they alone held goes when it is reaped.
    assert_eq!(table(&bench, keys::BLOCK), blocks, "no block was made");
    bench.reap();
    let kept = charged - 2 * 100;
    assert_eq!(
        bench.usage().charged_bytes,
        kept,
        "version 1 was restored, so its block stays"
    );
    bench.sound();
}

#[test]
fn restoring_what_is_current_or_equal_changes_nothing() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 100), row("b", 50)];
    let id = bench.put("/f", None, &rows).unwrap().view.entry.id;
    bench.put("/f", Some(1), &rows[..1]).unwrap();
    restore(&mut bench, id, 1, None).unwrap();
    for (version, base) in [(3, None), (1, None), (1, Some(2)), (3, Some(3))] {
        let same = restore(&mut bench, id, version, base).unwrap();
        assert_eq!(
            (same.view.entry.version, bench.writes),
            (3, 0),
            "version {version} behind {base:?}"
        );
    }
    bench.sound();
}

/// shows: D-2.2 scale=1/2
#[test]
fn the_first_of_a_restore_and_a_commit_on_one_base_wins() {
    let mut bench = Bench::new(1 << 30);
    let id = history(&mut bench, "/f", 3);
    let late = |result: Result<EntryChanged, Failure>, present: &str| {
        let failure = result.unwrap_err();
        assert_eq!(
            (failure.code.as_str(), failure.fields["version"].as_str()),
            ("version_conflict", present)
        );
    };
    restore(&mut bench, id, 1, Some(3)).unwrap();
    for stale in [0, 3, 5] {
        late(restore(&mut bench, id, 2, Some(stale)), "4");
    }
    assert_eq!(code(bench.put("/f", Some(3), &[row("late", 1)])), "version_conflict");
    bench.put("/f", Some(4), &[row("fifth", 1)]).unwrap();
    // A clock that is years behind changes nothing of who was first.
    bench.wall -= 1_000_000_000_000;
    late(restore(&mut bench, id, 1, Some(4)), "5");
    restore(&mut bench, id, 1, Some(5)).unwrap();
    assert_eq!(bench.get("/f").unwrap().entry.version, 6);
    bench.sound();
}

#[test]
fn inline_and_empty_contents_are_restored_too() {
    let mut bench = Bench::new(1 << 30);
    let mut content = bench.content(&[row("tiny", 5)], &[]);
    content.inline = Some(InlineBlock {
        row: row("tiny", 5),
        sealed: Bytes::from_static(b"sealed"),
    });
    let id = bench.commit("/f", None, content).unwrap().view.entry.id;
    let empty = bench.content(&[], &[]);
    bench.commit("/f", Some(1), empty).unwrap();
    restore(&mut bench, id, 1, None).unwrap();
    restore(&mut bench, id, 2, None).unwrap();
    assert_eq!(rows_of(&bench, id, 3).unwrap(), [row("tiny", 5)]);
    let entry = bench.get("/f").unwrap().entry;
    assert_eq!((entry.version, entry.size), (4, 0));
    assert_eq!((bench.usage().charged_bytes, table(&bench, keys::INLINE)), (5, 1));
    bench.sound();
}

#[test]
fn what_cannot_be_restored_is_refused_by_its_reason() {
    let mut bench = Bench::new(1 << 30);
    let id = history(&mut bench, "/f", 2);
    let folder = bench.mkdir("/d").unwrap();
    let none = EntryId { number: 77, ..id };
    assert_eq!(code(restore(&mut bench, folder, 1, None)), "not_a_file");
    assert_eq!(code(restore(&mut bench, none, 1, None)), "not_found");
    for version in [0, 3, u64::MAX] {
        assert_eq!(code(restore(&mut bench, id, version, None)), "version_not_found");
    }
    let stranger = Principal {
        user: UserId::new(bench.drive.slot(), 9),
        device: None,
        is_admin: true,
    };
    assert_eq!(code(restore_as(&mut bench, stranger, id, 1, None)), "not_found");
    let list = DriveAsk::ListVersions {
        entry: id,
        before: None,
        limit: 1,
    };
    assert_eq!(code(bench.ask_as(Some(stranger), list)), "not_found");
    assert_eq!(code(bench.ask_as(Some(stranger), DriveAsk::Retention)), "not_found");
    assert_eq!(code(page(&bench, id, None, 0)), "bad_limit");
    assert_eq!(code(page(&bench, folder, None, 1)), "not_a_file");
    bench.trash(id).unwrap();
    assert_eq!(code(restore(&mut bench, id, 1, None)), "in_trash");
    assert_eq!(
        numbers(&bench, id),
        [2, 1],
        "what lies in the trash still tells its versions"
    );
    bench.purge(id).unwrap();
    assert_eq!(code(restore(&mut bench, id, 1, None)), "not_found");
    bench.sound();
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
