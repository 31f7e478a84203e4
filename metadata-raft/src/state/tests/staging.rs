//! Delta uploads: announced lists, blocks that were sent singly, pages that are taken by their digest.

use super::sessions::{append_runs, commit, open, session};
use super::{Bench, code, digest, row};
use crate::state::keys;
use kv::seam::{Change, Kv};
use model::authorize::Principal;
use model::entry::BlockRow;
use model::id::{UploadId, UserId};
use model::limits::DRIVE_LISTED_ROWS_MAX;
use protocol::metadata::query::{DriveAsk, Staging, VersionRows};
use protocol::metadata::upload::{ANNOUNCED_ROWS_MAX, NewStripe, RowRun, SessionState, UploadCommand};
use protocol::metadata::{Command, QueryAnswer};
use protocol::wire_error::Failure;

/// Leaves a session with a list.
pub(super) fn furnish(bench: &mut Bench) {
    let upload = open(bench, "/list", None);
    announce(bench, upload, 0, &[row("s1", 10), row("s9", 0)]).unwrap();
}

fn announce(bench: &mut Bench, upload: UploadId, position: u64, rows: &[BlockRow]) -> Result<SessionState, Failure> {
    let rows = rows.to_vec();
    session(bench, UploadCommand::AnnounceRows { upload, position, rows })
}

pub(super) fn stage(bench: &mut Bench, upload: UploadId, rows: &[BlockRow]) -> Result<SessionState, Failure> {
    let stripes = vec![bench.stripe(rows)];
    session(bench, UploadCommand::StageStripes { upload, stripes })
}

fn announced(bench: &Bench, upload: UploadId, first: u64) -> (Vec<BlockRow>, bool) {
    match bench.ask(DriveAsk::AnnouncedRows { upload, first }) {
        Ok(QueryAnswer::AnnouncedRows(rows, has_more)) => (rows, has_more),
        other => panic!("{other:?}"),
    }
}

fn staging(
    bench: &Bench,
    principal: Option<Principal>,
    upload: UploadId,
    wanted: BlockRow,
) -> Result<Staging, Failure> {
    match bench.ask_as(principal, DriveAsk::Staging { upload, row: wanted })? {
        QueryAnswer::Staging(staging) => Ok(staging),
        other => panic!("{other:?}"),
    }
}

pub(super) fn take(
    bench: &mut Bench,
    upload: UploadId,
    position: u64,
    rows: &[BlockRow],
    page: &str,
) -> Result<u64, Failure> {
    let run = RowRun {
        rows: rows.to_vec(),
        page_end: Some(digest(page)),
    };
    append_runs(bench, upload, position, Vec::<NewStripe>::new(), vec![run]).map(|state| state.rows)
}

fn sweep(bench: &mut Bench) {
    bench.advance(8 * 24 * 3_600_000);
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    bench.sweep(sweep).unwrap();
}

#[test]
fn a_list_is_announced_in_parts_and_goes_with_its_session() {
    let mut bench = Bench::new(1 << 30);
    let upload = open(&mut bench, "/f", None);
    let first: Vec<BlockRow> = (0..3).map(|at| row(&format!("b{at}"), 10 + at)).collect();
    announce(&mut bench, upload, 0, &first).unwrap();
    let failure = announce(&mut bench, upload, 0, &first).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fields["position"].as_str()),
        ("wrong_position", "3")
    );
    announce(&mut bench, upload, 3, &[row("c", 0)]).unwrap();
    bench.sound();
    assert_eq!(announced(&bench, upload, 0), (first.clone(), true));
    assert_eq!(announced(&bench, upload, 2), (first[2..].to_vec(), true));
    assert_eq!(announced(&bench, upload, 3), (vec![row("c", 0)], false));
    assert_eq!(announced(&bench, upload, 4), (vec![], false));
    assert_eq!(code(announce(&mut bench, upload, 4, &[])), "malformed_command");
    let long = vec![row("d", 1); ANNOUNCED_ROWS_MAX + 1];
    assert_eq!(code(announce(&mut bench, upload, 4, &long)), "malformed_command");
    let block = row("d", (4 << 20) + 1);
    assert_eq!(code(announce(&mut bench, upload, 4, &[block])), "malformed_command");
    assert_eq!(bench.usage().charged_bytes, 0, "a list holds nothing");
    let other = open(&mut bench, "/g", None);
    announce(&mut bench, other, 0, &[row("e", 1)]).unwrap();
    commit(&mut bench, upload, 0, "empty").unwrap();
    bench.sound();
    sweep(&mut bench);
    bench.sound();
    assert_eq!(
        code(announce(&mut bench, other, 1, &[row("e", 1)])),
        "session_not_found"
    );
}

#[test]
fn a_list_has_no_more_rows_than_the_largest_file() {
    let mut bench = Bench::new(1 << 30);
    let upload = open(&mut bench, "/f", None);
    let part = vec![row("a", 1); ANNOUNCED_ROWS_MAX];
    for at in 0..5 {
        announce(&mut bench, upload, at * ANNOUNCED_ROWS_MAX as u64, &part).unwrap();
    }
    let all = 5 * ANNOUNCED_ROWS_MAX as u64;
    assert_eq!(code(announce(&mut bench, upload, all, &part[..2])), "file_too_large");
    announce(&mut bench, upload, all, &part[..1]).unwrap();
}

#[test]
fn all_lists_of_a_drive_together_are_bounded_and_each_end_of_a_session_makes_room() {
    let mut bench = Bench::new(1 << 30);
    let part = vec![row("a", 1); ANNOUNCED_ROWS_MAX];
    let parts = DRIVE_LISTED_ROWS_MAX / ANNOUNCED_ROWS_MAX as u64;
    let mut uploads = Vec::new();
    for at in 0..parts {
        let before = at % 4 * ANNOUNCED_ROWS_MAX as u64;
        if before == 0 {
            uploads.push(open(&mut bench, &format!("/f{at}"), None));
        }
        announce(&mut bench, *uploads.last().unwrap(), before, &part).unwrap();
    }
    let late = open(&mut bench, "/late", None);
    let refused = |bench: &mut Bench| code(announce(bench, late, 0, &part[..1]));
    assert_eq!(refused(&mut bench), "lists_full");
    bench.sound();
    // An abort makes room for as many rows as it gives up, and a commit too.
    let abort = Command::Upload(UploadCommand::AbortSession {
        principal: bench.owner,
        upload: uploads[0],
    });
    bench.run(abort).unwrap();
    bench.sound();
    for at in 0..4 {
        announce(&mut bench, late, at * ANNOUNCED_ROWS_MAX as u64, &part).unwrap();
    }
    let other = open(&mut bench, "/other", None);
    assert_eq!(code(announce(&mut bench, other, 0, &part[..1])), "lists_full");
    commit(&mut bench, uploads[1], 0, "empty").unwrap();
    announce(&mut bench, other, 0, &part[..1]).unwrap();
    bench.sound();
    sweep(&mut bench);
    bench.sound();
    let is_count = |key: &[u8]| [keys::SESSION_LISTED, keys::LISTED].contains(&key[2]);
    let counts = bench.everything().into_iter().filter(|(key, _)| is_count(key));
    assert_eq!(counts.count(), 0, "what has no list has no count");
}

#[test]
fn a_list_that_an_earlier_release_left_is_counted_when_it_goes_on() {
    let mut bench = Bench::new(1 << 30);
    let (ended, upload) = (open(&mut bench, "/e", None), open(&mut bench, "/f", None));
    for upload in [ended, upload] {
        announce(&mut bench, upload, 0, &[row("a", 1), row("b", 1)]).unwrap();
    }
    let is_count = |key: &[u8]| [keys::SESSION_LISTED, keys::LISTED].contains(&key[2]);
    let counts = bench.everything().into_iter().filter(|(key, _)| is_count(key));
    bench
        .kv
        .write(counts.map(|(key, _)| Change::Delete(key)).collect())
        .unwrap();
    bench.sound();
    announce(&mut bench, upload, 2, &[row("c", 1)]).unwrap();
    bench.sound();
    commit(&mut bench, ended, 0, "empty").unwrap();
    bench.sound();
}

#[test]
fn a_block_that_was_sent_singly_is_charged_and_waits_without_a_reference_for_the_commit() {
    let mut bench = Bench::new(100);
    let upload = open(&mut bench, "/f", None);
    let (a, b) = (row("a", 60), row("b", 30));
    assert!(!staging(&bench, Some(bench.owner), upload, a).unwrap().is_known);
    stage(&mut bench, upload, &[a]).unwrap();
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 60);
    assert!(staging(&bench, None, upload, a).unwrap().is_known);
    assert_eq!(code(staging(&bench, None, upload, row("x", 41))), "quota_exceeded");
    assert_eq!(code(stage(&mut bench, upload, &[row("x", 41)])), "quota_exceeded");
    assert_eq!(code(staging(&bench, None, upload, row("a", 61))), "size_mismatch");
    let failure = take(&mut bench, upload, 0, &[a, b], "page").unwrap_err();
    assert_eq!(failure.code, "need_blocks");
    assert_eq!(failure.fields["blocks"], b.digest.to_hex());
    stage(&mut bench, upload, &[b]).unwrap();
    assert_eq!(take(&mut bench, upload, 0, &[a, b], "page").unwrap(), 2);
    bench.sound();
    commit(&mut bench, upload, 90, "file").unwrap();
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 90);
    for refused in [
        stage(&mut bench, upload, &[row("c", 1)]).map(drop),
        staging(&bench, None, upload, a).map(drop),
    ] {
        assert_eq!(code(refused), "session_not_found");
    }
}

/// shows: N7 side=stranger scale=1/2
#[test]
fn nobody_but_its_owner_learns_what_a_session_or_a_drive_holds() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/known", None, &[row("a", 10)]).unwrap();
    let upload = open(&mut bench, "/f", None);
    let stranger = Principal {
        user: UserId(bench.owner.user.0 + 1),
        device: None,
        is_admin: true,
    };
    for wanted in [row("a", 10), row("b", 10)] {
        assert_eq!(code(staging(&bench, Some(stranger), upload, wanted)), "not_found");
        let ask = DriveAsk::FindPages(vec![wanted.digest]);
        assert_eq!(code(bench.ask_as(Some(stranger), ask.clone())), "not_found");
        assert_eq!(code(bench.ask_as(None, ask)), "denied");
    }
    let ask = DriveAsk::AnnouncedRows { upload, first: 0 };
    assert_eq!(code(bench.ask_as(Some(stranger), ask.clone())), "not_found");
    assert_eq!(code(bench.ask_as(None, ask)), "denied");
}

#[test]
fn a_page_that_is_there_is_taken_by_its_digest_alone() {
    let mut bench = Bench::new(1 << 30);
    let rows = [row("a", 10), row("b", 20)];
    bench.put("/f", None, &rows).unwrap();
    let (page, absent) = (format!("page {rows:?}"), "nowhere");
    let ask = DriveAsk::FindPages(vec![digest(absent), digest(&page)]);
    let QueryAnswer::Pages(known) = bench.ask(ask).unwrap() else {
        panic!()
    };
    assert_eq!(known, [digest(&page)]);
    let upload = open(&mut bench, "/g", None);
    assert_eq!(code(take(&mut bench, upload, 0, &[], absent)), "page_not_found");
    assert_eq!(take(&mut bench, upload, 0, &[], &page).unwrap(), 2);
    assert_eq!(take(&mut bench, upload, 2, &[], &page).unwrap(), 4);
    bench.sound();
    let made = commit(&mut bench, upload, 60, "twice").unwrap();
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 30);
    let read = |first| match bench.ask(DriveAsk::ReadRows {
        entry: made.view.entry.id,
        version: None,
        first,
    }) {
        Ok(QueryAnswer::VersionRows(VersionRows { count, rows, .. })) => (count, rows),
        other => panic!("{other:?}"),
    };
    assert_eq!(read(0), (4, [rows, rows].concat()));
    assert_eq!(read(3), (4, vec![rows[1]]));
    assert_eq!(read(4), (4, vec![]));
    // One that nobody holds any more and that was not reaped yet comes back to life.
    let old = bench.get("/f").unwrap().entry.id;
    for entry in [old, made.view.entry.id] {
        let purged = bench.purge(entry).unwrap();
        if let Some(job) = purged.job {
            bench.finish_job(job);
        }
    }
    let upload = open(&mut bench, "/h", None);
    take(&mut bench, upload, 0, &[], &page).unwrap();
    bench.sound();
    bench.reap();
    commit(&mut bench, upload, 30, "again").unwrap();
    bench.sound();
}
