//! Upload sessions: rows, pages, tails, commit, abort, age.

use super::{Bench, code, digest, place, row, survival};
use model::entry::BlockRow;
use model::id::UploadId;
use model::profile::Domain;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::{
    Committed, NewStripe, ResumableState, RowRun, SessionState, Survival, Tail, UploadCommand, UploadTarget,
};
use protocol::metadata::{Command, CommandAnswer, QueryAnswer};
use protocol::wire_error::Failure;

pub(super) fn session(bench: &mut Bench, command: UploadCommand) -> Result<SessionState, Failure> {
    match bench.run(Command::Upload(command))? {
        CommandAnswer::Session(state) => Ok(state),
        other => panic!("{other:?}"),
    }
}

pub(super) fn open(bench: &mut Bench, at: &str, base_version: Option<u64>) -> UploadId {
    let upload = bench.upload();
    try_open(bench, upload, at, base_version).unwrap();
    upload
}

pub(super) fn try_open(
    bench: &mut Bench,
    upload: UploadId,
    at: &str,
    base_version: Option<u64>,
) -> Result<SessionState, Failure> {
    let target = UploadTarget::Place {
        place: place(at),
        with_parents: false,
    };
    let principal = bench.owner;
    let command = UploadCommand::OpenSession {
        principal,
        upload,
        target,
        base_version,
        declared_bytes: None,
        is_resumable: false,
        content_type: Some("text/plain".to_owned()),
    };
    session(bench, command)
}

pub(super) fn append(
    bench: &mut Bench,
    upload: UploadId,
    position: u64,
    rows: &[BlockRow],
    page_end: Option<&str>,
) -> Result<SessionState, Failure> {
    let stripes = vec![bench.stripe(rows)];
    let runs = vec![RowRun {
        rows: rows.to_vec(),
        page_end: page_end.map(digest),
    }];
    append_runs(bench, upload, position, stripes, runs)
}

pub(super) fn append_runs(
    bench: &mut Bench,
    upload: UploadId,
    position: u64,
    stripes: Vec<NewStripe>,
    runs: Vec<RowRun>,
) -> Result<SessionState, Failure> {
    session(
        bench,
        UploadCommand::AppendRows {
            upload,
            position,
            stripes,
            runs,
        },
    )
}

pub(super) fn commit(bench: &mut Bench, upload: UploadId, size: u64, content: &str) -> Result<Committed, Failure> {
    let principal = bench.owner;
    let fresh = vec![bench.fresh()];
    let digest = digest(content);
    let command = UploadCommand::CommitSession {
        principal,
        upload,
        size,
        digest,
        fresh,
        survival: survival(),
    };
    match bench.run(Command::Upload(command))? {
        CommandAnswer::Committed(committed) => Ok(committed),
        other => panic!("{other:?}"),
    }
}

/// Leaves a session with a page, an open row and a tail.
pub(super) fn furnish(bench: &mut Bench) {
    let upload = open(bench, "/session", None);
    append(bench, upload, 0, &[row("s1", 10)], Some("session page")).unwrap();
    append(bench, upload, 1, &[row("s2", 20)], None).unwrap();
    let mut stripe = bench.stripe(&[]);
    stripe.form.stripe_bytes = 128;
    let tail = Tail {
        stripe: stripe.id,
        record: 7,
        sealed_bytes: 50,
        plain_bytes: 30,
    };
    session(
        bench,
        UploadCommand::SetTail {
            upload,
            tail: Some((tail, stripe)),
        },
    )
    .unwrap();
}

fn open_rows(bench: &Bench, upload: UploadId) -> Vec<BlockRow> {
    match bench.ask(DriveAsk::Session(upload)) {
        Ok(QueryAnswer::Session(state)) => state.open_rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_stages_rows_and_pages_and_hands_them_to_the_version() {
    let mut bench = Bench::new(1 << 30);
    let upload = open(&mut bench, "/f", None);
    let state = append(&mut bench, upload, 0, &[row("a", 10), row("b", 20)], None).unwrap();
    assert_eq!((state.rows, state.row_bytes), (2, 30));
    assert_eq!(open_rows(&bench, upload), [row("a", 10), row("b", 20)]);
    bench.sound();
    let failure = append(&mut bench, upload, 0, &[row("c", 5)], None).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fields["position"].as_str()),
        ("wrong_position", "2")
    );
    assert_eq!(code(commit(&mut bench, upload, 30, "file")), "page_open");
    let state = append(&mut bench, upload, 2, &[row("c", 5)], Some("page one")).unwrap();
    assert_eq!((state.pages, open_rows(&bench, upload).len()), (1, 0));
    append(&mut bench, upload, 3, &[row("a", 10)], Some("page two")).unwrap();
    bench.sound();
    assert_eq!(code(commit(&mut bench, upload, 44, "file")), "size_mismatch");
    let QueryAnswer::Session(state) = bench.ask(DriveAsk::Session(upload)).unwrap() else {
        panic!()
    };
    assert_eq!(state.page_digests, [digest("page one"), digest("page two")]);
    let committed = commit(&mut bench, upload, 45, "file").unwrap();
    assert_eq!(
        (committed.version.size, committed.view.entry.content_type.as_deref()),
        (45, Some("text/plain"))
    );
    assert_eq!(code(commit(&mut bench, upload, 45, "file")), "session_not_found");
    bench.sound();
    assert_eq!(
        bench.usage().charged_bytes,
        35,
        "the block that comes twice is charged once"
    );
}

#[test]
fn a_page_that_is_there_takes_no_second_set_of_references() {
    let mut bench = Bench::new(1 << 30);
    for name in ["/f", "/g"] {
        let upload = open(&mut bench, name, None);
        append(&mut bench, upload, 0, &[row("a", 10), row("b", 20)], Some("page")).unwrap();
        bench.sound();
        commit(&mut bench, upload, 30, "file").unwrap();
    }
    bench.sound();
    let upload = open(&mut bench, "/f", Some(1));
    let failure = append(&mut bench, upload, 0, &[row("a", 10)], Some("page")).unwrap_err();
    assert_eq!(failure.code, "malformed_page");
}

#[test]
fn an_aborted_session_gives_everything_up() {
    let mut bench = Bench::new(1 << 30);
    let upload = open(&mut bench, "/f", None);
    append(&mut bench, upload, 0, &[row("a", 10)], Some("page")).unwrap();
    append(&mut bench, upload, 1, &[row("b", 20)], None).unwrap();
    let abort = Command::Upload(UploadCommand::AbortSession {
        principal: bench.owner,
        upload,
    });
    bench.run(abort.clone()).unwrap();
    bench.run(abort).unwrap();
    bench.sound();
    bench.reap();
    assert_eq!((bench.usage().charged_bytes, bench.usage().released_bytes), (0, 30));
    bench.sound();
}

#[test]
fn a_long_session_leaves_its_pages_to_a_job() {
    let mut bench = Bench::new(1 << 30);
    let upload = open(&mut bench, "/f", None);
    for at in 0..260 {
        append(
            &mut bench,
            upload,
            at,
            &[row(&format!("b{at}"), 10)],
            Some(&format!("p{at}")),
        )
        .unwrap();
    }
    bench
        .run(Command::Upload(UploadCommand::AbortSession {
            principal: bench.owner,
            upload,
        }))
        .unwrap();
    assert!(bench.writes < 20);
    bench.sound();
    bench.finish_job(upload.number);
    bench.reap();
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 0);
}

#[test]
fn sessions_end_by_age_and_use_keeps_them() {
    let mut bench = Bench::new(1 << 30);
    let (idle, used) = (open(&mut bench, "/f", None), open(&mut bench, "/g", None));
    append(&mut bench, idle, 0, &[row("a", 10)], None).unwrap();
    bench.wall += 86_400_000;
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    bench.sweep(sweep.clone()).unwrap();
    bench.advance(2_000_000);
    append(&mut bench, used, 0, &[row("b", 10)], None).unwrap();
    bench.advance(2_000_000);
    assert!(bench.sweep(sweep).unwrap().is_done);
    bench.sound();
    assert_eq!(code(bench.ask(DriveAsk::Session(idle))), "session_not_found");
    assert!(bench.ask(DriveAsk::Session(used)).is_ok());
}

#[test]
fn a_tail_is_charged_and_replaced_and_dropped() {
    let mut bench = Bench::new(100);
    let upload = open(&mut bench, "/f", None);
    let tail = |bench: &mut Bench, plain_bytes: u32| {
        let tail = Some(new_tail(bench, plain_bytes));
        session(bench, UploadCommand::SetTail { upload, tail })
    };
    tail(&mut bench, 60).unwrap();
    assert_eq!(code(tail(&mut bench, 101)), "quota_exceeded");
    tail(&mut bench, 70).unwrap();
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 70);
    session(&mut bench, UploadCommand::SetTail { upload, tail: None }).unwrap();
    assert_eq!(bench.usage().charged_bytes, 0);
    tail(&mut bench, 50).unwrap();
    commit(&mut bench, upload, 0, "empty").unwrap();
    assert_eq!(bench.usage().charged_bytes, 0);
    bench.sound();
}

#[test]
fn the_commit_checks_the_base_version_again() {
    let mut bench = Bench::new(1 << 30);
    bench.put("/f", None, &[row("a", 10)]).unwrap();
    let (one, two) = (open(&mut bench, "/f", Some(1)), open(&mut bench, "/f", Some(1)));
    append(&mut bench, one, 0, &[row("x", 10)], Some("px")).unwrap();
    append(&mut bench, two, 0, &[row("y", 10)], Some("py")).unwrap();
    commit(&mut bench, one, 10, "x").unwrap();
    assert_eq!(code(commit(&mut bench, two, 10, "y")), "version_conflict");
    bench.sound();
    // The same content as what won is no conflict; the session ends.
    let three = open(&mut bench, "/f", Some(2));
    append(&mut bench, three, 0, &[row("x", 10)], Some("px")).unwrap();
    let same = commit(&mut bench, three, 10, "x").unwrap();
    assert_eq!((same.is_new_version, same.version.number), (false, 2));
    bench.sound();
}

pub(super) fn open_resumable(bench: &mut Bench, at: &str, base_version: Option<u64>) -> UploadId {
    let upload = bench.upload();
    let target = UploadTarget::Place {
        place: place(at),
        with_parents: false,
    };
    let command = UploadCommand::OpenSession {
        principal: bench.owner,
        upload,
        target,
        base_version,
        declared_bytes: None,
        is_resumable: true,
        content_type: None,
    };
    session(bench, command).unwrap();
    upload
}

pub(super) fn name_rows(
    bench: &mut Bench,
    upload: UploadId,
    position: u64,
    rows: &[BlockRow],
    page_end: Option<&str>,
) -> Result<SessionState, Failure> {
    let command = UploadCommand::NameRows {
        upload,
        position,
        stripes: vec![bench.stripe(rows)],
        runs: vec![RowRun {
            rows: rows.to_vec(),
            page_end: page_end.map(digest),
        }],
        survival: Some(Survival {
            survives: if position == 0 { Domain::Node } else { Domain::Region },
            is_degraded: position == 0,
        }),
    };
    session(bench, command)
}

/// A tail of so many bytes, in a stripe without blocks.
fn new_tail(bench: &mut Bench, plain_bytes: u32) -> (Tail, NewStripe) {
    let mut stripe = bench.stripe(&[]);
    stripe.form.stripe_bytes = 128;
    let tail = Tail {
        stripe: stripe.id,
        record: 7,
        sealed_bytes: plain_bytes + 20,
        plain_bytes,
    };
    (tail, stripe)
}

pub(super) fn keep_tail(
    bench: &mut Bench,
    upload: UploadId,
    position: u64,
    plain_bytes: u32,
) -> Result<SessionState, Failure> {
    let (tail, stripe) = new_tail(bench, plain_bytes);
    let command = UploadCommand::KeepTail {
        upload,
        position,
        tail,
        stripe,
    };
    session(bench, command)
}

fn resumable(bench: &Bench, upload: UploadId) -> Result<ResumableState, Failure> {
    match bench.ask(DriveAsk::Resumable(upload))? {
        QueryAnswer::Resumable(state) => Ok(state),
        other => panic!("{other:?}"),
    }
}

/// Leaves a resumable session that is open and one that was committed.
pub(super) fn furnish_resumable(bench: &mut Bench) {
    for (at, is_committed) in [("/open", false), ("/committed", true)] {
        let upload = open_resumable(bench, at, None);
        name_rows(bench, upload, 0, &[row("r1", 10)], Some("resumed page")).unwrap();
        if is_committed {
            commit(bench, upload, 10, "resumed").unwrap();
        }
    }
}

#[test]
fn what_a_resumable_session_stores_grows_by_rows_and_tail_and_by_one_gateway_at_a_time() {
    let mut bench = Bench::new(1 << 30);
    let upload = open_resumable(&mut bench, "/f", None);
    let stored = |bench: &Bench| match resumable(bench, upload).unwrap() {
        ResumableState::Open {
            session,
            survival,
            tail,
        } => {
            let named = session.tail.as_ref().map(|tail| tail.stripe);
            assert_eq!(tail.map(|stripe| stripe.id), named);
            (session.stored_bytes(), survival)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(stored(&bench), (0, None));
    keep_tail(&mut bench, upload, 0, 60).unwrap();
    assert_eq!((stored(&bench).0, bench.usage().charged_bytes), (60, 60));
    // A block begins with the tail before it, so it is no shorter.
    assert_eq!(
        code(name_rows(&mut bench, upload, 0, &[row("short", 59)], None)),
        "size_mismatch"
    );
    name_rows(&mut bench, upload, 0, &[row("a", 70), row("b", 5)], None).unwrap();
    assert_eq!((stored(&bench).0, bench.usage().charged_bytes), (75, 75));
    // Another gateway went on meanwhile: its rows and its tail stay.
    assert_eq!(code(keep_tail(&mut bench, upload, 0, 60)), "wrong_position");
    keep_tail(&mut bench, upload, 2, 40).unwrap();
    // And so does what it kept of the same block, unless there is more.
    assert_eq!(code(keep_tail(&mut bench, upload, 2, 39)), "wrong_position");
    assert_eq!(
        code(name_rows(&mut bench, upload, 1, &[row("c", 50)], None)),
        "wrong_position"
    );
    bench.sound();
    assert_eq!((stored(&bench).0, bench.usage().charged_bytes), (115, 115));
    name_rows(&mut bench, upload, 2, &[row("c", 50)], Some("page")).unwrap();
    // The least of all commands.
    let least = Survival {
        survives: Domain::Node,
        is_degraded: true,
    };
    assert_eq!(stored(&bench), (125, Some(least)));
    bench.sound();
}

#[test]
fn a_committed_resumable_session_gives_its_answer_again_until_its_age_is_over() {
    let mut bench = Bench::new(1 << 30);
    let upload = open_resumable(&mut bench, "/f", None);
    name_rows(&mut bench, upload, 0, &[row("a", 10)], Some("page")).unwrap();
    let first = commit(&mut bench, upload, 10, "file").unwrap();
    assert_eq!(
        resumable(&bench, upload).unwrap(),
        ResumableState::Committed(first.clone())
    );
    assert_eq!(commit(&mut bench, upload, 10, "file").unwrap(), first, "finished twice");
    assert_eq!(
        code(name_rows(&mut bench, upload, 1, &[row("b", 10)], None)),
        "session_not_found"
    );
    assert_eq!(code(keep_tail(&mut bench, upload, 1, 10)), "session_not_found");
    bench.sound();
    // The same content as what is there: no version, and an answer all the same.
    let second = open_resumable(&mut bench, "/f", Some(1));
    name_rows(&mut bench, second, 0, &[row("a", 10)], Some("page")).unwrap();
    let unchanged = commit(&mut bench, second, 10, "file").unwrap();
    assert!(!unchanged.is_new_version);
    assert_eq!(resumable(&bench, second).unwrap(), ResumableState::Committed(unchanged));
    bench.sound();
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    let day = 24 * 3600 * 1000;
    bench.advance(6 * day);
    bench.sweep(sweep.clone()).unwrap();
    assert!(resumable(&bench, upload).is_ok());
    bench.advance(2 * day);
    assert!(bench.sweep(sweep).unwrap().is_done);
    assert_eq!(code(resumable(&bench, upload)), "session_not_found");
    bench.sound();
    assert_eq!(bench.usage().charged_bytes, 10);
}

#[test]
fn a_resumable_session_is_its_users_alone_and_no_plain_one() {
    let mut bench = Bench::new(1 << 30);
    let plain = open(&mut bench, "/f", None);
    assert_eq!(code(resumable(&bench, plain)), "session_not_found");
    let upload = open_resumable(&mut bench, "/g", None);
    assert!(resumable(&bench, upload).is_ok());
    bench.advance(2 * 3_600_000);
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    bench.sweep(sweep).unwrap();
    assert_eq!(code(bench.ask(DriveAsk::Session(plain))), "session_not_found");
    assert!(resumable(&bench, upload).is_ok(), "seven aged days, not one aged hour");
}

fn declare(bench: &mut Bench, upload: UploadId, bytes: u64) -> Result<(), Failure> {
    let principal = bench.owner;
    let command = UploadCommand::DeclareLength {
        principal,
        upload,
        bytes,
    };
    match bench.run(Command::Upload(command))? {
        CommandAnswer::Done => Ok(()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_length_that_comes_later_is_declared_once_and_stays() {
    let mut bench = Bench::new(1000);
    let upload = open_resumable(&mut bench, "/f", None);
    let declared = |bench: &Bench| match resumable(bench, upload).unwrap() {
        ResumableState::Open { session, .. } => session.declared_bytes,
        other => panic!("{other:?}"),
    };
    name_rows(&mut bench, upload, 0, &[row("a", 60)], Some("page")).unwrap();
    keep_tail(&mut bench, upload, 1, 30).unwrap();
    // As at the opening: a file's and the quota's bounds; and no less than what is there, the tail too.
    assert_eq!(code(declare(&mut bench, upload, (10 << 30) + 1)), "file_too_large");
    assert_eq!(code(declare(&mut bench, upload, 1001)), "quota_exceeded");
    assert_eq!(code(declare(&mut bench, upload, 89)), "size_mismatch");
    assert_eq!(declared(&bench), None);
    for _ in 0..2 {
        declare(&mut bench, upload, 100).unwrap();
        assert_eq!(declared(&bench), Some(100));
    }
    let failure = declare(&mut bench, upload, 99).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fields["declared_bytes"].as_str()),
        ("length_declared", "100")
    );
    assert_eq!(declared(&bench), Some(100));
    // The commit holds the client to it, and repeats behind it are answered as before it.
    name_rows(&mut bench, upload, 1, &[row("b", 30)], Some("page two")).unwrap();
    assert_eq!(code(commit(&mut bench, upload, 90, "file")), "size_mismatch");
    name_rows(&mut bench, upload, 2, &[row("c", 10)], Some("page three")).unwrap();
    commit(&mut bench, upload, 100, "file").unwrap();
    declare(&mut bench, upload, 100).unwrap();
    assert_eq!(code(declare(&mut bench, upload, 90)), "length_declared");
    bench.sound();
}

#[test]
fn a_length_is_declared_by_whoever_opened_a_resumable_session_and_keeps_it_alive() {
    let mut bench = Bench::new(1 << 30);
    let plain = open(&mut bench, "/f", None);
    assert_eq!(code(declare(&mut bench, plain, 5)), "session_not_found");
    let upload = open_resumable(&mut bench, "/g", None);
    let owner = bench.owner;
    bench.owner.user.0 += 1;
    assert_eq!(code(declare(&mut bench, upload, 5)), "not_found");
    bench.owner = owner;
    bench.advance(6 * 24 * 3_600_000);
    declare(&mut bench, upload, 5).unwrap();
    bench.advance(6 * 24 * 3_600_000);
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    bench.sweep(sweep).unwrap();
    assert!(resumable(&bench, upload).is_ok());
    let absent = bench.upload();
    assert_eq!(code(declare(&mut bench, absent, 5)), "session_not_found");
    bench.sound();
}
