//! What goes by age, over the wire: feeds after thirty days, uploads after seven; and places in feeds that never were.
//!
//! Age is the group's own: here it grows by months while the gateway's clock stands still, and that clock jumps while nothing ages.
//! Not here: what the state machine drops when (metadata-raft), wrong clocks of whole processes (tests/cluster).

use super::polls::{changes, make, poll, told};
use super::wire::{Reply, exchange};
use super::world::World;
use super::world::age::Leader;
use api::change::ChangesPage;
use api::metadata::Listing;
use api::timestamp::Timestamp;
use daemon::clock::Clock as _;
use model::id::Incarnation;
use model::time::WallTime;
use protocol::metadata::drive::FeedPosition;
use serde_json::Value;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The paths that a page tells of, in its order.
fn paths(page: &ChangesPage) -> Vec<&str> {
    let entries = page.changes.iter().map(|change| change.entry.as_ref().unwrap());
    entries.map(|entry| entry.path.as_str()).collect()
}

/// Every door of the feed, in both dialects, says that it does not go on from here.
async fn is_told_to_reset(world: &World, cursor: &str) {
    for line in [
        format!("GET /api/v1/changes/list?since_token={cursor}"),
        format!("GET /api/v1/changes?pageToken={cursor}"),
        format!("GET /api/v1/notifications/poll?cursor={cursor}&timeout=480"),
        format!("GET /api/v1/events?cursor={cursor}&timeout=480"),
    ] {
        let reply = world.while_time_passes(world.request(&line, "", b"")).await;
        reply.refused(410, "reset");
    }
}

/// shows: CMP-offline
#[tokio::test]
async fn a_device_that_was_away_goes_on_for_thirty_days_and_lists_everything_anew_after_them() {
    let world = World::start().await;
    let mut leader = Leader::of(&world);
    let left = changes(&world, "").await.cursor;
    let made = ["/0", "/1", "/2", "/3", "/4"];
    for path in made {
        make(&world, path).await;
    }
    leader.lead(30 * DAY);
    leader.sweep();
    let back = changes(&world, &format!("?since_token={left}")).await;
    assert_eq!((paths(&back), back.has_more), (made.to_vec(), false));
    let waited = told(&world.while_time_passes(poll(&world, &left, 480)).await);
    assert_eq!(waited.events, back.changes, "a poll tells the same at once");

    // Changes lie together by the hour in which they were made.
    leader.lead(2 * HOUR);
    leader.sweep();
    is_told_to_reset(&world, &left).await;
    let fresh = changes(&world, "").await.cursor;
    let whole = world.request("GET /api/v1/metadata?path=/", "", b"").await;
    assert_eq!(whole.status, 200, "{whole:?}");
    let whole: Listing = serde_json::from_slice(&whole.body).unwrap();
    let listed: Vec<&str> = whole.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(listed, made, "nothing but the feed has gone");
    make(&world, "/new").await;
    let on = changes(&world, &format!("?since_token={fresh}")).await;
    assert_eq!(paths(&on), ["/new"]);
    // Who knew all that went goes on without a reset.
    let on = changes(&world, &format!("?since_token={}", back.cursor)).await;
    assert_eq!(paths(&on), ["/new"]);
}

/// Cursors that were given out, by a drive whose history is another one by now.
///
/// shows: I-06 side=reset
#[tokio::test]
async fn a_cursor_of_another_history_or_from_ahead_of_the_feed_is_told_to_reset() {
    let world = World::start().await;
    make(&world, "/a").await;
    let (receipts, user) = (&world.core().receipts, world.caller.principal.user);
    let present = changes(&world, "").await.cursor;
    let [place] = receipts.read_cursor(user, &present).unwrap()[..] else {
        panic!("a cursor of one scope")
    };
    let (Incarnation(incarnation), sequence) = (place.incarnation, place.sequence);
    for (incarnation, sequence) in [
        (incarnation + 1, sequence),
        (incarnation + 1, 0),
        (incarnation - 1, sequence),
        (incarnation, sequence + 1),
        (incarnation, u64::MAX),
    ] {
        let wrong = FeedPosition {
            incarnation: Incarnation(incarnation),
            sequence,
            ..place
        };
        is_told_to_reset(&world, &receipts.cursor(user, &[wrong])).await;
    }
    // Nothing of it stays with those who come with a right one.
    make(&world, "/b").await;
    let on = told(&world.while_time_passes(poll(&world, &present, 480)).await);
    assert_eq!(on.events.len(), 1);
}

/// What an upload's address answers, to whoever has it.
async fn at(world: &World, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n"
    );
    exchange(world.address(), &[head.as_bytes(), body].concat()).await
}

/// Begins an upload of ten bytes; the answer, and the path of its address.
async fn begin(world: &World) -> (Reply, String) {
    let body = br#"{"name":"f","size":10}"#;
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let begun = world
        .request("POST /api/v1/files/upload?uploadType=resumable", &headers, body)
        .await;
    assert_eq!(begun.status, 200, "{begun:?}");
    let path = begun.header("location").unwrap().strip_prefix("http://x").unwrap();
    let path = path.to_owned();
    (begun, path)
}

/// The upload is gone, for whoever asks or goes on in either protocol.
async fn is_gone(world: &World, path: &str) {
    for (method, headers) in [
        ("GET", ""),
        ("PUT", "Content-Range: bytes */*\r\n"),
        ("PUT", "Content-Range: bytes */10\r\n"),
    ] {
        let answer = at(world, method, path, headers, b"").await;
        answer.refused(404, "session_not_found");
    }
    let path = path.replace("/upload/", "/api/v1/tus/");
    let spoken = "Tus-Resumable: 1.0.0\r\n";
    assert_eq!(at(world, "HEAD", &path, spoken, b"").await.status, 404);
    let chunk = format!("{spoken}Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n");
    let answer = at(world, "PATCH", &path, &chunk, b"12345").await;
    answer.refused(404, "session_not_found");
}

/// How far the end that an answer tells lies ahead of the gateway's clock; header and body tell the same.
fn left(world: &World, answer: &Reply) -> Duration {
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    if let Some(header) = answer.header("x-upload-expires") {
        assert_eq!(body["expires"], header);
    }
    let Timestamp(WallTime(at)) = serde_json::from_value(body["expires"].clone()).unwrap();
    Duration::from_millis(at - world.clock.wall().0)
}

#[tokio::test]
async fn an_upload_is_there_for_seven_aged_days_however_far_the_clock_jumps() {
    let world = World::start().await;
    let mut leader = Leader::of(&world);
    let (_, path) = begin(&world).await;
    let stands = async || {
        let told = at(&world, "GET", &path, "", b"").await;
        assert_eq!(told.status, 200, "{told:?}");
        let told: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(told["size"], 0);
    };
    let now = world.clock.wall().0;
    for jumped in [
        now + 60 * DAY.as_millis() as u64,
        now - 60 * DAY.as_millis() as u64,
        now,
    ] {
        world.clock.set_wall(WallTime(jumped));
        leader.sweep();
        stands().await;
    }
    leader.lead(7 * DAY - HOUR);
    leader.sweep();
    stands().await;
    leader.lead(HOUR);
    leader.sweep();
    is_gone(&world, &path).await;
}

/// Two minutes less than it lives: what its age may lag by, at its last use and when it is told.
#[tokio::test]
async fn an_uploads_end_is_told_as_it_is_and_only_what_comes_in_moves_it() {
    let world = World::start().await;
    let mut leader = Leader::of(&world);
    let (begun, path) = begin(&world).await;
    let just_used = 7 * DAY - 2 * MINUTE;
    assert_eq!(left(&world, &begun), just_used);
    leader.lead(6 * DAY);
    leader.sweep();
    for _ in 0..2 {
        for (method, headers, status) in [("GET", "", 200), ("PUT", "Content-Range: bytes */*\r\n", 308)] {
            let told = at(&world, method, &path, headers, b"").await;
            assert_eq!((told.status, left(&world, &told)), (status, DAY - MINUTE), "{told:?}");
        }
    }
    let chunk = at(&world, "PUT", &path, "Content-Range: bytes 0-4/10\r\n", b"12345").await;
    assert_eq!((chunk.status, left(&world, &chunk)), (308, just_used), "{chunk:?}");
    leader.lead(7 * DAY - HOUR);
    leader.sweep();
    let told = at(&world, "GET", &path, "", b"").await;
    assert_eq!((told.status, left(&world, &told)), (200, HOUR - MINUTE), "{told:?}");
    leader.lead(HOUR);
    leader.sweep();
    is_gone(&world, &path).await;
}
