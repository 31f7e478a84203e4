//! What a group refuses before the first byte of a content, and what it leaves to the commit.

use super::{Bench, code, place, request_key, row};
use model::limits::FILE_BYTES_MAX;
use protocol::metadata::drive::DriveCommand;
use protocol::metadata::query::DriveAsk;
use protocol::metadata::upload::{UploadCommand, UploadTarget};
use protocol::metadata::{Command, QueryAnswer, RequestKey, RequestLife};
use protocol::wire_error::Failure;

const HOUR_MS: u64 = 3_600_000;

fn ask(at: &str, base_version: Option<u64>, declared_bytes: Option<u64>, request: Option<RequestKey>) -> DriveAsk {
    DriveAsk::Upload {
        target: UploadTarget::Place {
            place: place(at),
            with_parents: false,
        },
        base_version,
        declared_bytes,
        request,
    }
}

fn check(bench: &Bench, at: &str, base: Option<u64>, declared: Option<u64>) -> Result<(), Failure> {
    match bench.ask(ask(at, base, declared, None))? {
        QueryAnswer::Drive(facts) => {
            assert_eq!(facts.drive, bench.drive);
            Ok(())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_taken_name_a_missing_parent_and_a_length_over_the_quota_are_foreseen() {
    let mut bench = Bench::new(100);
    bench.put("/f", None, &[row("a", 60)]).unwrap();
    check(&bench, "/g", None, Some(100)).unwrap();
    assert_eq!(code(check(&bench, "/f", None, None)), "name_taken");
    assert_eq!(code(check(&bench, "/no/g", None, None)), "parent_not_found");
    assert_eq!(code(check(&bench, "/f/g", None, None)), "parent_not_folder");
    assert_eq!(code(check(&bench, "/g", Some(1), None)), "not_found");
    let failure = check(&bench, "/g", None, Some(101)).unwrap_err();
    assert_eq!(failure.code, "quota_exceeded");
    assert_eq!(failure.fields["quota_bytes"], "100");
    assert_eq!(failure.fields["used_bytes"], "60");
    let too_large = check(&bench, "/g", None, Some(FILE_BYTES_MAX + 1));
    assert_eq!(code(too_large), "file_too_large");
}

/// A content that fills the drive again may be the one that is there: what a version costs is known only when it was cut.
#[test]
fn a_full_drive_takes_a_content_that_it_has_already() {
    let mut bench = Bench::new(100);
    bench.put("/f", None, &[row("a", 100)]).unwrap();
    check(&bench, "/g", None, Some(100)).unwrap();
    bench.put("/g", None, &[row("a", 100)]).unwrap();
    assert_eq!(code(bench.put("/h", None, &[row("b", 1)])), "quota_exceeded");
}

#[test]
fn a_stale_base_version_is_foreseen_only_when_the_length_shows_another_content() {
    let mut bench = Bench::new(1 << 20);
    bench.put("/f", None, &[row("a", 10)]).unwrap();
    bench.put("/f", Some(1), &[row("b", 20)]).unwrap();
    check(&bench, "/f", Some(2), Some(5)).unwrap();
    let failure = check(&bench, "/f", Some(1), Some(5)).unwrap_err();
    assert_eq!(
        (failure.code.as_str(), failure.fields["version"].as_str()),
        ("version_conflict", "2")
    );
    check(&bench, "/f", Some(1), Some(20)).unwrap();
    check(&bench, "/f", Some(1), None).unwrap();
    assert!(!bench.put("/f", Some(1), &[row("b", 20)]).unwrap().is_new_version);
}

#[test]
fn a_repeat_under_a_request_id_is_let_in_until_its_row_is_gone() {
    let mut bench = Bench::new(1 << 20);
    let key = request_key(RequestLife::Hour);
    let content = bench.content(&[row("a", 10)], &[row("a", 10)]);
    let command = bench.commit_command("/f", None, content);
    let again = |bench: &Bench| bench.ask(ask("/f", None, Some(10), Some(key)));
    assert!(again(&bench).is_ok());
    let first = bench.apply(Some(key), command).unwrap();
    // The digest of what is asked is not known before the content is: only the commit can compare it.
    assert!(again(&bench).is_ok());
    let other = RequestKey { id: 3, ..key };
    assert_eq!(code(bench.ask(ask("/f", None, Some(10), Some(other)))), "name_taken");
    // A repeat that is too long for one command opens its session although the name is taken by its own first try.
    let upload = bench.upload();
    let open = UploadCommand::OpenSession {
        principal: bench.owner,
        upload,
        target: UploadTarget::Place {
            place: place("/f"),
            with_parents: false,
        },
        base_version: None,
        declared_bytes: None,
        is_resumable: false,
        content_type: None,
    };
    bench.run(Command::Upload(open)).unwrap();
    let commit = UploadCommand::CommitSession {
        principal: bench.owner,
        upload,
        size: 10,
        digest: super::digest("not looked at"),
        fresh: vec![9],
        survival: super::survival(),
    };
    assert_eq!(bench.apply(Some(key), Command::Upload(commit)).unwrap(), first);
    assert_eq!(code(bench.ask(DriveAsk::Session(upload))), "session_not_found");
    bench.advance(3 * 3_600_000);
    assert_eq!(code(again(&bench)), "name_taken");
    bench.sound();
}

/// The row lives for as long as the id may come again, whenever in its life it came first.
#[test]
fn an_id_that_tells_its_hour_gets_the_first_answer_or_a_refusal_and_is_never_done_again() {
    for life in [RequestLife::Hour, RequestLife::Day] {
        for waited in [0, life.hours()] {
            let mut bench = Bench::new(1 << 20);
            bench.advance(HOUR_MS / 2 + u64::from(waited) * HOUR_MS);
            let key = RequestKey {
                made_hour: Some(0),
                ..request_key(life)
            };
            let content = bench.content(&[row("a", 10)], &[row("a", 10)]);
            let command = bench.commit_command("/f", None, content);
            let again = |bench: &Bench| bench.ask(ask("/f", None, Some(10), Some(key)));
            assert!(again(&bench).is_ok(), "{life:?} made {waited} hours before it is sent");
            let first = bench.apply(Some(key), command.clone()).unwrap();
            for hour in waited..=waited + life.hours() {
                assert!(again(&bench).is_ok(), "{life:?} in hour {hour}");
                assert_eq!(
                    bench.apply(Some(key), command.clone()).unwrap(),
                    first,
                    "in hour {hour}"
                );
                bench.advance(HOUR_MS);
            }
            // Before and after the row is swept.
            for operations in [1, 0] {
                assert_eq!(code(again(&bench)), "outcome_unknown");
                assert_eq!(code(bench.apply(Some(key), command.clone())), "outcome_unknown");
                let drive = bench.drive;
                let sweep = Command::Drive(DriveCommand::SweepRequests { drive });
                assert_eq!(bench.sweep(sweep).unwrap().operations, operations);
            }
            let hour = waited + life.hours() + 1;
            let (now, ahead) = (Some(hour), Some(hour + 1));
            let other = |id, made_hour| RequestKey { id, made_hour, ..key };
            let content = bench.content(&[row("b", 10)], &[row("b", 10)]);
            let fresh = bench.commit_command("/f", None, content);
            let refused = bench.apply(Some(other(3, ahead)), fresh.clone());
            assert_eq!(code(refused), "outcome_unknown");
            assert_eq!(code(bench.apply(Some(other(4, now)), fresh)), "name_taken");
            bench.sound();
        }
    }
}
