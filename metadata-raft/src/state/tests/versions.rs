//! Old versions: listed, and restored by their pages.
//!
//! Not here: which of them are kept (`retention`).

use super::{Bench, code, digest, row};
use crate::state::keys;
use bytes::Bytes;
use model::authorize::Principal;
use model::entry::{BlockRow, Version};
use model::id::{EntryId, UserId};
use protocol::metadata::drive::{DriveCommand, EntryChanged};
use protocol::metadata::query::{DriveAsk, VersionRows};
use protocol::metadata::upload::{DirectContent, InlineBlock, PageRows, UploadCommand};
use protocol::metadata::{Command, QueryAnswer};
use protocol::wire_error::Failure;

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

/// Rows of a table of the drive.
pub(super) fn table(bench: &Bench, table: u8) -> usize {
    bench.everything().iter().filter(|(key, _)| key[2] == table).count()
}

/// A file of as many versions, each of one block of its own; answers its id.
pub(super) fn history(bench: &mut Bench, at: &str, versions: u64) -> EntryId {
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
pub(super) fn paged(bench: &mut Bench, name: &str, pages: usize) -> DirectContent {
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
