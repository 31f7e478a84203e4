//! How many sessions of a drive are open: counted, bounded, and counted anew where an earlier release did not.

use super::sessions::{commit, open, try_open};
use super::{Bench, code};
use crate::state::keys;
use crate::state::store::{encode, load};
use kv::seam::{Change, Kv};
use model::id::UploadId;
use model::limits::DRIVE_SESSIONS_MAX;
use protocol::metadata::Command;
use protocol::metadata::upload::{SessionState, UploadCommand};
use protocol::wire_error::Failure;

/// Makes the state say that so many sessions are open; `None` as a release leaves it that does not count.
fn say_open(bench: &Bench, open: Option<u64>) {
    let key = keys::sessions_open(bench.drive);
    let change = match open {
        Some(open) => Change::Put(key, encode(&open).unwrap()),
        None => Change::Delete(key),
    };
    bench.kv.write(vec![change]).unwrap();
}

fn counted(bench: &Bench) -> Option<u64> {
    load(&bench.kv, &keys::sessions_open(bench.drive)).unwrap()
}

fn open_late(bench: &mut Bench) -> Result<SessionState, Failure> {
    let upload = bench.upload();
    try_open(bench, upload, "/late", None)
}

fn abort(bench: &mut Bench, upload: UploadId) {
    let principal = bench.owner;
    let abort = Command::Upload(UploadCommand::AbortSession { principal, upload });
    bench.run(abort).unwrap();
}

#[test]
fn open_sessions_of_a_drive_are_bounded_and_each_end_makes_room() {
    let mut bench = Bench::new(1 << 30);
    let uploads = ["/a", "/b"].map(|at| open(&mut bench, at, None));
    bench.sound();
    assert_eq!(counted(&bench), Some(2));
    say_open(&bench, Some(DRIVE_SESSIONS_MAX - 1));
    open_late(&mut bench).unwrap();
    assert_eq!(code(open_late(&mut bench)), "sessions_full");
    // One that is gone already makes no room again.
    for _ in 0..2 {
        abort(&mut bench, uploads[0]);
    }
    open_late(&mut bench).unwrap();
    assert_eq!(code(open_late(&mut bench)), "sessions_full");
    commit(&mut bench, uploads[1], 0, "empty").unwrap();
    open_late(&mut bench).unwrap();
    assert_eq!(code(open_late(&mut bench)), "sessions_full");
    assert_eq!(counted(&bench), Some(DRIVE_SESSIONS_MAX));
    // The three that are there; their age makes room too.
    say_open(&bench, Some(3));
    bench.sound();
    bench.advance(8 * 24 * 3_600_000);
    let sweep = Command::Upload(UploadCommand::SweepSessions { drive: bench.drive });
    bench.sweep(sweep).unwrap();
    bench.sound();
    assert_eq!(counted(&bench), Some(0));
}

#[test]
fn sessions_that_an_earlier_release_left_are_counted_with_the_next_one() {
    let mut bench = Bench::new(1 << 30);
    let [gone, left] = ["/a", "/b"].map(|at| open(&mut bench, at, None));
    say_open(&bench, None);
    bench.sound();
    abort(&mut bench, gone);
    bench.sound();
    assert_eq!(counted(&bench), None);
    open_late(&mut bench).unwrap();
    bench.sound();
    assert_eq!(counted(&bench), Some(2), "the one that was left, and the new one");
    abort(&mut bench, left);
    bench.sound();
    assert_eq!(counted(&bench), Some(1));
}
