//! How sessions end: by a commit that the quota still holds, and by their age, of which is told what is left.
//!
//! Not here: rows, pages and tails (`sessions`), lists (`staging`), how many are open (`open_sessions`).

use super::sessions::{append, commit, keep_tail, name_rows, open, open_resumable, session};
use super::staging::{stage, take};
use super::users::admin;
use super::{Bench, code, digest, row};
use model::id::UploadId;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::{RowRun, UploadCommand};
use protocol::metadata::user::UserCommand;
use protocol::metadata::{Command, QueryAnswer};
use protocol::wire_error::Failure;

const DAY_MS: u64 = 24 * 3_600_000;

fn set_quota(bench: &mut Bench, quota_bytes: u64) {
    let patch = UserCommand::PatchUser {
        principal: admin(bench),
        user: bench.owner.user,
        quota_bytes: Some(quota_bytes),
        is_disabled: None,
        password_hash: None,
    };
    bench.run(Command::User(patch)).unwrap();
}

fn purge(bench: &mut Bench, at: &str) {
    let entry = bench.get(at).unwrap().entry.id;
    if let Some(job) = bench.purge(entry).unwrap().job {
        bench.finish_job(job);
    }
    bench.reap();
}

/// Stages 40 bytes in one page.
type Stage = fn(&mut Bench, &str) -> UploadId;

/// The ways in which a session comes by its rows: of a plain upload, of a resumable one with a tail before, of a delta.
const WAYS: [Stage; 3] = [
    |bench, at| {
        let upload = open(bench, at, None);
        append(bench, upload, 0, &[row("new", 30), row("more", 10)], Some("page")).unwrap();
        upload
    },
    |bench, at| {
        let upload = open_resumable(bench, at, None);
        keep_tail(bench, upload, 0, 25).unwrap();
        keep_tail(bench, upload, 0, 30).unwrap();
        name_rows(bench, upload, 0, &[row("new", 40)], Some("page")).unwrap();
        upload
    },
    |bench, at| {
        let upload = open_resumable(bench, at, None);
        stage(bench, upload, &[row("new", 40)]).unwrap();
        take(bench, upload, 0, &[row("new", 40)], "page").unwrap();
        upload
    },
];

#[test]
fn a_quota_that_was_lowered_is_noticed_by_the_commit_and_nothing_is_lost() {
    for way in WAYS {
        let mut bench = Bench::new(100);
        bench.put("/old", None, &[row("old", 50)]).unwrap();
        let upload = way(&mut bench, "/new");
        bench.sound();
        assert_eq!(bench.usage().charged_bytes, 90, "what is staged counts");
        set_quota(&mut bench, 89);
        for _ in 0..2 {
            let failure = commit(&mut bench, upload, 40, "file").unwrap_err();
            let told = ["quota_bytes", "used_bytes", "wanted_bytes"].map(|field| failure.fields[field].as_str());
            assert_eq!((failure.code.as_str(), told), ("quota_exceeded", ["89", "50", "40"]));
            assert!(matches!(
                bench.ask(DriveAsk::Session(upload)),
                Ok(QueryAnswer::Session(_))
            ));
            bench.sound();
        }
        assert_eq!(code(bench.get("/new")), "not_found");
        purge(&mut bench, "/old");
        let committed = commit(&mut bench, upload, 40, "file").unwrap();
        assert_eq!((committed.version.size, committed.version.number), (40, 1));
        assert_eq!(bench.usage().charged_bytes, 40);
        bench.sound();
    }
}

#[test]
fn the_commit_of_what_is_staged_passes_to_the_last_byte_and_gives_its_tail_back_first() {
    for way in WAYS {
        let mut bench = Bench::new(100);
        bench.put("/old", None, &[row("old", 50)]).unwrap();
        let upload = way(&mut bench, "/new");
        set_quota(&mut bench, 90);
        commit(&mut bench, upload, 40, "file").unwrap();
        bench.sound();
    }
    let mut bench = Bench::new(100);
    let upload = open_resumable(&mut bench, "/empty", None);
    keep_tail(&mut bench, upload, 0, 60).unwrap();
    set_quota(&mut bench, 10);
    commit(&mut bench, upload, 0, "empty").unwrap();
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 0);
}

/// A drive over its quota takes nothing more, and a version costs only what it changed.
#[test]
fn a_session_that_took_nothing_commits_in_a_drive_that_is_over_its_quota() {
    let mut bench = Bench::new(100);
    let rows = [row("a", 60)];
    bench.put("/old", None, &rows).unwrap();
    let taking = open(&mut bench, "/old", Some(1));
    append(&mut bench, taking, 0, &[row("b", 20)], Some("other page")).unwrap();
    set_quota(&mut bench, 10);
    let known = open(&mut bench, "/copy", None);
    take(&mut bench, known, 0, &rows, "page").unwrap();
    commit(&mut bench, known, 60, "copy").unwrap();
    // Equal content makes no version, so it costs nothing whatever was staged for it.
    let same = commit(&mut bench, taking, 20, &format!("file {rows:?}")).unwrap();
    assert!(!same.is_new_version);
    bench.sound();
    let late = open(&mut bench, "/late", None);
    assert_eq!(
        code(append(&mut bench, late, 0, &[row("c", 1)], Some("late page"))),
        "quota_exceeded"
    );
    bench.sound();
}

/// Two gateways find all rows there and end the page at once. The end of a page moves no position.
#[test]
fn a_page_that_another_gateway_has_ended_is_not_named_once_more() {
    let mut bench = Bench::new(100);
    let upload = open_resumable(&mut bench, "/f", None);
    name_rows(&mut bench, upload, 0, &[row("a", 30), row("b", 10)], None).unwrap();
    let end = UploadCommand::NameRows {
        upload,
        position: 2,
        stripes: Vec::new(),
        runs: vec![RowRun {
            rows: Vec::new(),
            page_end: Some(digest("page")),
        }],
        survival: None,
    };
    session(&mut bench, end.clone()).unwrap();
    let late = session(&mut bench, end).unwrap_err();
    assert_eq!(
        (late.code.as_str(), late.fields["position"].as_str()),
        ("wrong_position", "2")
    );
    bench.sound();
    let committed = commit(&mut bench, upload, 40, "file").unwrap();
    assert_eq!((committed.version.size, bench.usage().charged_bytes), (40, 40));
    bench.sound();
}

fn life(bench: &Bench, upload: UploadId) -> Result<u64, Failure> {
    match bench.ask(DriveAsk::SessionLife(upload))? {
        QueryAnswer::SessionLife(left_ms) => Ok(left_ms),
        other => panic!("{other:?}"),
    }
}

fn sweep(bench: &mut Bench) {
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    assert!(bench.sweep(sweep).unwrap().is_done);
}

#[test]
fn what_is_left_of_a_session_is_told_and_only_what_it_brings_prolongs_it() {
    let mut bench = Bench::with_epoch(100, 60_000);
    let (idle, used) = (
        open_resumable(&mut bench, "/f", None),
        open_resumable(&mut bench, "/g", None),
    );
    assert_eq!(life(&bench, idle).unwrap(), 7 * DAY_MS);
    bench.advance(6 * DAY_MS);
    keep_tail(&mut bench, used, 0, 60).unwrap();
    for _ in 0..2 {
        assert_eq!(life(&bench, idle).unwrap(), DAY_MS, "asking prolongs nothing");
    }
    assert_eq!(life(&bench, used).unwrap(), 7 * DAY_MS);
    // What is refused prolongs nothing either.
    bench.advance(1_000);
    assert_eq!(code(keep_tail(&mut bench, used, 0, 101)), "quota_exceeded");
    assert_eq!(life(&bench, used).unwrap(), 7 * DAY_MS - 1_000);
    bench.advance(DAY_MS - 1_000 - 1);
    sweep(&mut bench);
    assert_eq!(life(&bench, idle).unwrap(), 1);
    bench.advance(1);
    assert_eq!(life(&bench, idle).unwrap(), 0);
    sweep(&mut bench);
    assert_eq!(code(life(&bench, idle)), "session_not_found");
    // The answer to a commit lives as long, from the commit on.
    name_rows(&mut bench, used, 0, &[row("a", 60)], Some("page")).unwrap();
    bench.advance(DAY_MS);
    commit(&mut bench, used, 60, "file").unwrap();
    assert_eq!(life(&bench, used).unwrap(), 7 * DAY_MS);
    commit(&mut bench, used, 60, "file").unwrap();
    bench.advance(DAY_MS);
    commit(&mut bench, used, 60, "file").unwrap();
    assert_eq!(life(&bench, used).unwrap(), 6 * DAY_MS, "a repeat prolongs nothing");
    bench.sound();
}

#[test]
fn a_life_is_told_to_whoever_opened_a_resumable_session_alone() {
    let mut bench = Bench::new(1 << 30);
    let plain = open(&mut bench, "/f", None);
    assert_eq!(code(life(&bench, plain)), "session_not_found");
    let upload = open_resumable(&mut bench, "/g", None);
    let ask = DriveAsk::SessionLife(upload);
    assert_eq!(code(bench.ask_as(Some(admin(&bench)), ask.clone())), "not_found");
    assert_eq!(code(bench.ask_as(None, ask)), "denied");
    let absent = bench.upload();
    assert_eq!(code(life(&bench, absent)), "session_not_found");
}
