//! The feed as a follower reads it: pages, the end, resets, and what goes when it is older than its age.

use super::{Bench, code, row};
use crate::state::keys;
use crate::state::waiting::{self, Sweep, Work};
use bytes::Bytes;
use model::id::{DriveId, EntryId, Incarnation, Slot};
use protocol::metadata::drive::{DriveCommand, FeedPosition};
use protocol::metadata::query::{ChangeType, DriveAsk, FeedPage};
use protocol::metadata::{Command, Query, QueryAnswer};
use protocol::wire_error::Failure;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;

fn bench() -> Bench {
    Bench::with_epoch(1 << 30, HOUR_MS)
}

fn page(bench: &Bench, after: Option<u64>, limit: u16) -> Result<FeedPage, Failure> {
    page_of(bench, after.map(|after| (Incarnation(1), after)), limit)
}

fn page_of(bench: &Bench, after: Option<(Incarnation, u64)>, limit: u16) -> Result<FeedPage, Failure> {
    let scope = bench.drive.root();
    match bench.ask(DriveAsk::Feed { scope, after, limit })? {
        QueryAnswer::Feed(page) => Ok(page),
        other => panic!("{other:?}"),
    }
}

fn end(bench: &Bench) -> u64 {
    page(bench, None, 1).unwrap().position.sequence
}

fn told(page: &FeedPage) -> Vec<(u64, ChangeType, EntryId)> {
    let changes = page.changes.iter().map(|told| &told.change);
    changes
        .map(|change| (change.sequence, change.change, change.entry))
        .collect()
}

/// Rows of the feed's ageing, for the golden file.
pub(super) fn aged_rows() -> Vec<(Bytes, Bytes)> {
    let mut bench = bench();
    bench.mkdir("/old").unwrap();
    bench.advance(31 * DAY_MS);
    bench.mkdir("/new").unwrap();
    sweep(&mut bench);
    bench.sound();
    let mut rows = bench.everything();
    rows.retain(|(key, _)| [keys::FEED_HOUR, keys::FEED_DROPPED].contains(&key[2]));
    rows
}

fn sweep(bench: &mut Bench) -> u32 {
    let drive = bench.drive;
    bench
        .sweep(Command::Drive(DriveCommand::SweepFeed { drive }))
        .unwrap()
        .operations
}

/// Whether the queue asks for a sweep of the feed now.
fn is_due(bench: &Bench) -> bool {
    let queue = waiting::queue(&bench.kv, None, 1_000).unwrap();
    let work = Work::of(bench.drive, Sweep::Feed);
    queue.due.iter().any(|(_, due)| *due == work)
}

/// shows: I-06 side=paging scale=1/2
#[test]
fn pages_tell_every_change_once_and_in_order_with_the_entry_as_it_is_now() {
    let mut bench = bench();
    let a = bench.mkdir("/a").unwrap();
    let f = bench.put("/a/f", None, &[row("x", 10)]).unwrap().view.entry.id;
    bench.put("/a/f", Some(1), &[row("y", 20)]).unwrap();
    bench.rename(a, "/b").unwrap();
    bench.trash(f).unwrap();
    bench.restore(f).unwrap();
    bench.purge(f).unwrap();
    let all = page(&bench, Some(0), 1000).unwrap();
    assert_eq!(
        told(&all),
        [
            (1, ChangeType::Created, a),
            (2, ChangeType::Created, f),
            (3, ChangeType::Updated, f),
            (4, ChangeType::Moved, a),
            (5, ChangeType::Trashed, f),
            (6, ChangeType::Restored, f),
            (7, ChangeType::Deleted, f),
        ]
    );
    assert_eq!((all.position.sequence, all.dropped, all.has_more), (7, 0, false));
    let paths: Vec<_> = all
        .changes
        .iter()
        .map(|told| told.view.as_ref().map(|view| view.path.as_str()))
        .collect();
    assert_eq!(
        paths,
        [Some("/b"), None, None, Some("/b"), None, None, None],
        "f is gone"
    );
    let mut after = 0;
    let mut seen = Vec::new();
    loop {
        let part = page(&bench, Some(after), 2).unwrap();
        assert!(part.changes.len() <= 2);
        seen.extend(told(&part));
        after = seen.last().unwrap().0;
        if !part.has_more {
            break;
        }
    }
    assert_eq!(seen, told(&all));
    assert!(page(&bench, Some(7), 10).unwrap().changes.is_empty());
    assert_eq!(code(page(&bench, Some(0), 0)), "bad_limit");
    assert_eq!(code(page(&bench, Some(0), 1001)), "bad_limit");
}

/// shows: I-06 side=reset scale=1/2
#[test]
fn a_place_of_another_incarnation_or_ahead_or_dropped_is_told_to_reset() {
    let mut bench = bench();
    bench.mkdir("/a").unwrap();
    assert_eq!(code(page(&bench, Some(2), 10)), "reset");
    assert_eq!(code(page(&bench, Some(u64::MAX), 10)), "reset");
    for other in [Incarnation(0), Incarnation(2)] {
        assert_eq!(code(page_of(&bench, Some((other, 1)), 10)), "reset");
    }
    assert!(page(&bench, Some(1), 10).unwrap().changes.is_empty());
    let nowhere = EntryId {
        drive: bench.drive,
        number: 77,
    };
    let elsewhere = DriveId::new(bench.drive.slot(), 99).root();
    for scope in [nowhere, elsewhere] {
        let ask = DriveAsk::Feed {
            scope,
            after: None,
            limit: 1,
        };
        assert_eq!(code(bench.ask(ask)), "not_found");
    }
    let mut stranger = bench.owner;
    stranger.user.0 += 1;
    let ask = DriveAsk::Feed {
        scope: bench.drive.root(),
        after: None,
        limit: 1,
    };
    assert_eq!(code(bench.ask_as(Some(stranger), ask)), "not_found");
}

/// shows: CMP-offline scale=1/2
#[test]
fn changes_stay_for_thirty_aged_days_and_then_go_with_their_scopes() {
    let mut bench = bench();
    bench.mkdir("/a").unwrap();
    bench.mkdir("/b").unwrap();
    bench.advance(10 * DAY_MS);
    bench.mkdir("/c").unwrap();
    bench.advance(20 * DAY_MS - HOUR_MS);
    assert!(!is_due(&bench));
    assert_eq!(sweep(&mut bench), 0, "nobody's say makes them older");
    assert_eq!(page(&bench, Some(0), 10).unwrap().changes.len(), 3);
    bench.advance(2 * HOUR_MS);
    assert!(is_due(&bench));
    assert!(sweep(&mut bench) > 0);
    bench.sound();
    assert!(!is_due(&bench));
    assert_eq!(code(page(&bench, Some(0), 10)), "reset");
    assert_eq!(code(page(&bench, Some(1), 10)), "reset");
    let rest = page(&bench, Some(2), 10).unwrap();
    assert_eq!((rest.dropped, rest.changes.len(), rest.position.sequence), (2, 1, 3));
    // The last ones go too, though nothing came after them.
    bench.advance(10 * DAY_MS + HOUR_MS);
    assert!(is_due(&bench));
    sweep(&mut bench);
    bench.sound();
    assert_eq!((end(&bench), code(page(&bench, Some(2), 10))), (3, "reset".to_owned()));
    assert!(
        page(&bench, Some(3), 10).unwrap().changes.is_empty(),
        "who knew all goes on"
    );
    bench.mkdir("/d").unwrap();
    assert_eq!(page(&bench, Some(3), 10).unwrap().changes.len(), 1);
    bench.sound();
}

#[test]
fn a_clock_that_jumps_drops_nothing() {
    let mut bench = bench();
    bench.mkdir("/a").unwrap();
    bench.wall += 60 * DAY_MS;
    bench.mkdir("/b").unwrap();
    assert_eq!(sweep(&mut bench), 0);
    assert_eq!(page(&bench, Some(0), 10).unwrap().changes.len(), 2);
}

#[test]
fn a_long_feed_goes_in_bounded_commands() {
    let mut bench = bench();
    for number in 0..120 {
        bench.mkdir(&format!("/{number}")).unwrap();
    }
    bench.advance(31 * DAY_MS);
    let mut commands = 0;
    while is_due(&bench) {
        let operations = sweep(&mut bench);
        assert!((1..=60).contains(&operations), "{operations}");
        bench.sound();
        commands += 1;
    }
    assert!(commands >= 3, "{commands}");
    assert_eq!(page(&bench, None, 1).unwrap().dropped, 120);
}

#[test]
fn the_ends_of_many_scopes_are_told_at_once_and_only_by_the_group_that_has_them() {
    let mut bench = bench();
    bench.mkdir("/a").unwrap();
    let (root, absent) = (bench.drive.root(), DriveId::new(bench.drive.slot(), 99).root());
    let ends = bench.query(&Query::FeedEnds(vec![absent, root])).unwrap();
    let end = FeedPosition {
        scope: root,
        incarnation: Incarnation(1),
        sequence: 1,
    };
    assert_eq!(ends, QueryAnswer::FeedEnds(vec![end]));
    let number = (bench.drive.slot().number() + 1) % model::id::SLOTS;
    let foreign = DriveId::new(Slot::new(number).unwrap(), 1).root();
    assert_eq!(code(bench.query(&Query::FeedEnds(vec![root, foreign]))), "not_mine");
    assert_eq!(code(bench.query(&Query::FeedEnds(vec![root; 1001]))), "bad_limit");
}
