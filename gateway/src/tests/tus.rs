//! Uploads in many requests, over the wire: lengths that come late, repeats of a creation, what is refused before its body is read, and
//! the budget of bodies and lists that are held whole.
//!
//! Not here: an upload that goes on behind a tail, whose bytes the shelves here forget (tests/cluster).

use super::wire::{Line, Reply};
use super::world::age::Leader;
use super::world::{Wishes, World};
use crate::drive::tree;
use crate::metrics;
use daemon::clock::Clock as _;
use model::digest::Digest;
use model::entry::BlockRow;
use model::id::UploadId;
use model::limits::{DRIVE_LISTED_ROWS_MAX, FILE_BLOCKS_MAX};
use protocol::metadata::upload::{ANNOUNCED_ROWS_MAX, UploadCommand, UploadTarget};
use protocol::metadata::{Command, CommandAnswer};
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

const CREATE: &str = "POST /api/v1/tus";
const SPOKEN: &str = "Tus-Resumable: 1.0.0\r\n";
const CHUNK: &str = "Content-Type: application/offset+octet-stream\r\n";
/// `path` and, in Base64, `/f`.
const TO_F: &str = "Upload-Metadata: path L2Y=\r\n";
/// The least that a gateway may have.
const SMALL_BUDGET: u64 = 16 << 20;

async fn create(world: &World, headers: &str, body: &[u8]) -> Reply {
    let place = if headers.contains("Upload-Metadata") { "" } else { TO_F };
    let headers = format!("{SPOKEN}{place}{headers}Content-Length: {}\r\n", body.len());
    world.request(CREATE, &headers, body).await
}

/// Where an upload that was created goes on.
fn path_of(created: &Reply) -> String {
    assert_eq!(created.status, 201, "{created:?}");
    let url = created.header("location").unwrap();
    url.strip_prefix("http://x").unwrap().to_owned()
}

async fn patch(world: &World, path: &str, offset: u64, headers: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let headers = format!("{SPOKEN}{CHUNK}Upload-Offset: {offset}\r\n{headers}Content-Length: {length}\r\n");
    world.request(&format!("PATCH {path}"), &headers, body).await
}

#[track_caller]
fn taken(reply: &Reply, offset: &str) {
    assert_eq!(
        (reply.status, reply.header("upload-offset")),
        (204, Some(offset)),
        "{reply:?}"
    );
}

/// What HEAD tells: the offset, the length, and whether that is still to come.
async fn head(world: &World, path: &str) -> (Option<u64>, Option<u64>, bool) {
    let told = world.request(&format!("HEAD {path}"), SPOKEN, b"").await;
    assert_eq!(told.status, 200, "{told:?}");
    let number = |name: &str| told.header(name).map(|text| text.parse().unwrap());
    let is_deferred = told.header("upload-defer-length") == Some("1");
    (number("upload-offset"), number("upload-length"), is_deferred)
}

fn free_bytes(world: &World) -> i64 {
    let free = world.core().seams.metrics.gauge(&metrics::BUDGET_FREE_BYTES);
    free.with_label_values::<&str>(&[]).get()
}

#[tokio::test]
async fn a_length_that_comes_later_is_told_from_then_on_and_never_changes() {
    let world = World::start_with(Wishes {
        quota_bytes: 1000,
        ..Wishes::default()
    })
    .await;
    let deferred = "Upload-Defer-Length: 1\r\n";
    let path = path_of(&create(&world, deferred, b"").await);
    assert_eq!(head(&world, &path).await, (Some(0), None, true));
    let told = |length: u64| format!("Upload-Length: {length}\r\n");
    taken(&patch(&world, &path, 0, "", b"").await, "0");
    // What is refused at the creation is refused here, and nothing is kept of it.
    let too_much = patch(&world, &path, 0, &told(1001), b"").await;
    too_much.refused(507, "quota_exceeded");
    let too_long = patch(&world, &path, 0, &told((10 << 30) + 1), b"").await;
    too_long.refused(413, "file_too_large");
    assert_eq!(head(&world, &path).await, (Some(0), None, true));
    // At another offset nothing is taken, the length neither.
    patch(&world, &path, 1, &told(3), b"")
        .await
        .refused(409, "offset_conflict");
    assert_eq!(head(&world, &path).await, (Some(0), None, true));
    taken(&patch(&world, &path, 0, &told(3), b"").await, "0");
    for _ in 0..2 {
        assert_eq!(head(&world, &path).await, (Some(0), Some(3), false));
        patch(&world, &path, 0, &told(4), b"").await.refused(400, "bad_header");
        patch(&world, &path, 0, "", b"four").await.refused(400, "bad_header");
        taken(&patch(&world, &path, 0, &told(3), b"").await, "0");
    }
    taken(&patch(&world, &path, 0, "", b"new").await, "3");
    assert_eq!(head(&world, &path).await, (Some(3), Some(3), false));
    assert!(world.has("/f").await);
    // Nothing at all is a content too, and the length says that it is whole.
    let path = path_of(&create(&world, "Upload-Defer-Length: 1\r\nUpload-Metadata: path L2c=\r\n", b"").await);
    taken(&patch(&world, &path, 0, &told(0), b"").await, "0");
    assert!(world.has("/g").await);
}

#[tokio::test]
async fn a_creation_that_is_repeated_under_its_key_begins_no_second_upload() {
    let world = World::start().await;
    let keyed = "Idempotency-Key: k\r\nUpload-Length: 5\r\n";
    let first = path_of(&create(&world, keyed, b"").await);
    assert_eq!(path_of(&create(&world, keyed, b"").await), first);
    assert_ne!(path_of(&create(&world, "Upload-Length: 5\r\n", b"").await), first);
    let other = create(&world, "Idempotency-Key: k\r\nUpload-Length: 6\r\n", b"").await;
    other.refused(422, "request_id_reused");
    let empty = create(&world, "Idempotency-Key: \r\nUpload-Length: 5\r\n", b"").await;
    empty.refused(400, "bad_idempotency_key");
    // A repeat that brings the first bytes again, before and behind the commit, is told how far they go.
    let with_bytes = format!("{keyed}{CHUNK}");
    for _ in 0..2 {
        let again = create(&world, &with_bytes, b"bytes").await;
        assert_eq!(
            (path_of(&again), again.header("upload-offset")),
            (first.clone(), Some("5"))
        );
    }
    assert!(world.has("/f").await);
    assert_eq!(path_of(&create(&world, keyed, b"").await), first);
    assert_eq!(head(&world, &first).await, (Some(5), Some(5), false));
}

/// `Upload-Expires` in whole seconds behind the gateway's clock.
fn left(world: &World, reply: &Reply) -> Duration {
    let end = httpdate::parse_http_date(reply.header("upload-expires").unwrap()).unwrap();
    let now = Duration::from_secs(world.clock.wall().0 / 1000);
    end.duration_since(UNIX_EPOCH).unwrap() - now
}

#[tokio::test]
async fn the_end_of_an_upload_is_told_with_its_creation_and_each_patch() {
    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let world = World::start().await;
    let mut leader = Leader::of(&world);
    let keyed = "Idempotency-Key: k\r\nUpload-Length: 10\r\n";
    let created = create(&world, keyed, b"").await;
    assert_eq!(left(&world, &created), 7 * DAY - 2 * MINUTE);
    // A repeat is told of the upload that was begun before.
    leader.lead(DAY / 2);
    let again = create(&world, keyed, b"").await;
    let path = path_of(&created);
    assert_eq!(
        (path_of(&again), left(&world, &again)),
        (path.clone(), 13 * DAY / 2 - MINUTE)
    );
    leader.lead(11 * DAY / 2);
    leader.sweep();
    let empty = patch(&world, &path, 0, "", b"").await;
    taken(&empty, "0");
    assert_eq!(left(&world, &empty), DAY - MINUTE, "nothing came in");
    let chunk = patch(&world, &path, 0, "", b"bytes").await;
    taken(&chunk, "5");
    assert_eq!(left(&world, &chunk), 7 * DAY - 2 * MINUTE);
    // One that ended without a commit is begun by no repeat.
    let keyed = "Idempotency-Key: l\r\nUpload-Length: 10\r\n";
    let path = path_of(&create(&world, keyed, b"").await);
    let ended = world.request(&format!("DELETE {path}"), SPOKEN, b"").await;
    assert_eq!(ended.status, 204, "{ended:?}");
    create(&world, keyed, b"").await.refused(404, "session_not_found");
}

#[tokio::test]
async fn a_chunk_with_a_checksum_has_its_budget_before_its_body_is_read() {
    let world = World::start_with(Wishes {
        upload_budget_bytes: SMALL_BUDGET,
        ..Wishes::default()
    })
    .await;
    let full = free_bytes(&world);
    assert_eq!(full, SMALL_BUDGET as i64);
    let path = path_of(&create(&world, "Upload-Length: 5\r\n", b"").await);
    // Of "67890".
    let checksum = "Upload-Offset: 0\r\nUpload-Checksum: sha1 IwmRq8136Bc+2wrzkuHxESAFHik=\r\n";
    let line = format!("PATCH {path}");
    let bodiless = async |length: &str| {
        let mut sender = Line::open(world.address()).await;
        let headers = format!("{SPOKEN}{CHUNK}{checksum}{length}");
        sender.send(&world.with_token(&line, &headers, b"")).await;
        Reply::read(&sender.some().await)
    };
    let other = world.core().admit(None).unwrap();
    bodiless("Content-Length: 5\r\n").await.refused(503, "too_busy");
    drop(other);
    // As long as it may be it takes more than there is: the bytes themselves and what they become.
    bodiless("Transfer-Encoding: chunked\r\n")
        .await
        .refused(503, "too_busy");
    let path = path_of(&create(&world, "Upload-Defer-Length: 1\r\n", b"").await);
    let headers = format!("{SPOKEN}{CHUNK}{checksum}Content-Length: {}\r\n", (16 << 20) + 1);
    let mut sender = Line::open(world.address()).await;
    sender
        .send(&world.with_token(&format!("PATCH {path}"), &headers, b""))
        .await;
    Reply::read(&sender.some().await).refused(413, "body_too_large");
    let headers = format!("{SPOKEN}{CHUNK}{checksum}Content-Length: 5\r\n");
    taken(&world.request(&line, &headers, b"67890").await, "5");
    assert_eq!(free_bytes(&world), full);
}

#[tokio::test]
async fn a_list_of_blocks_keeps_its_budget_until_its_work_is_done() {
    let world = World::start().await;
    let full = free_bytes(&world);
    let body = json!({"path": "/f", "new_block_hashes": [Digest([7; 32]).to_hex()]}).to_string();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let held = world.hold_opening().await;
    let syncing = world.request("POST /api/v1/files/new/sync", &headers, body.as_bytes());
    tokio::pin!(syncing);
    tokio::select! {
        reply = &mut syncing => panic!("no session can have been opened: {reply:?}"),
        () = world.opening() => {}
    }
    assert!(free_bytes(&world) < full, "the list is read and in use");
    drop(held);
    assert_eq!(syncing.await.status, 200);
    assert_eq!(free_bytes(&world), full);
}

/// Without it the sender would be listened to until it falls silent.
#[tokio::test]
async fn a_chunk_that_says_that_it_passes_the_content_is_refused_before_its_body() {
    let world = World::start().await;
    let body = json!({"name": "f", "size": 10}).to_string();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let line = "POST /api/v1/files/upload?uploadType=resumable";
    let started = world.request(line, &headers, body.as_bytes()).await;
    assert_eq!(started.status, 200, "{started:?}");
    let path = started.header("location").unwrap().strip_prefix("http://x").unwrap();
    let put = format!("PUT {path}");
    let range = |range: &str, length: u64| format!("Content-Range: bytes {range}/*\r\nContent-Length: {length}\r\n");
    let mut sender = Line::open(world.address()).await;
    sender.send(&world.with_token(&put, &range("0-19", 20), b"")).await;
    Reply::read(&sender.some().await).refused(400, "bad_content_range");
    let whole = world.request(&put, &range("0-9", 10), b"ten bytes!").await;
    assert_eq!(whole.status, 201, "{whole:?}");
}

/// An upload whose list has no room is not left behind, unless a repeat may go on with it.
#[tokio::test]
async fn lists_of_blocks_that_pass_a_drives_bound_are_refused_and_leave_nothing() {
    let world = World::start().await;
    let core = world.core();
    let command = async |command: UploadCommand| {
        core.command(&world.caller, Command::Upload(command), None)
            .await
            .unwrap()
    };
    let mut number = 0;
    let mut left = DRIVE_LISTED_ROWS_MAX as usize;
    while left > 0 {
        number += 1;
        let upload = UploadId {
            drive: world.caller.home,
            number,
        };
        let opening = UploadCommand::OpenSession {
            principal: world.caller.principal,
            upload,
            target: target(),
            base_version: None,
            declared_bytes: None,
            is_resumable: true,
            content_type: None,
        };
        assert!(matches!(command(opening).await, CommandAnswer::Session(_)));
        let mut position = 0;
        while left > 0 && position < FILE_BLOCKS_MAX {
            let count = left.min(ANNOUNCED_ROWS_MAX).min(FILE_BLOCKS_MAX - position);
            let row = BlockRow {
                digest: Digest([7; 32]),
                size: 1,
            };
            let announce = UploadCommand::AnnounceRows {
                upload,
                position: position as u64,
                rows: vec![row; count],
            };
            command(announce).await;
            (position, left) = (position + count, left - count);
        }
    }
    let body = json!({"path": "/f", "new_block_hashes": [Digest([7; 32]).to_hex()]}).to_string();
    let headers = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let sync = "POST /api/v1/files/new/sync";
    let keyed = format!("{headers}Idempotency-Key: k\r\n");
    for (headers, is_ended) in [(&headers, true), (&keyed, false)] {
        let refused = world.request(sync, headers, body.as_bytes()).await;
        refused.refused(507, "lists_full");
        assert_eq!(world.commands().last() == Some(&"AbortSession"), is_ended);
    }
    let ended = UploadId {
        drive: world.caller.home,
        number,
    };
    command(UploadCommand::AbortSession {
        principal: world.caller.principal,
        upload: ended,
    })
    .await;
    assert_eq!(world.request(sync, &keyed, body.as_bytes()).await.status, 200);
}

fn target() -> UploadTarget {
    UploadTarget::Place {
        place: tree::place(Some("/listed"), None, None).unwrap(),
        with_parents: false,
    }
}

const SENT_BY_TUS: [&str; 10] = [
    "authorization",
    "content-type",
    "idempotency-key",
    "tus-resumable",
    "upload-checksum",
    "upload-defer-length",
    "upload-length",
    "upload-metadata",
    "upload-offset",
    "x-http-method-override",
];
const READ_BY_TUS: [&str; 11] = [
    "location",
    "upload-offset",
    "upload-length",
    "upload-defer-length",
    "upload-metadata",
    "upload-expires",
    "tus-version",
    "tus-resumable",
    "tus-max-size",
    "tus-extension",
    "tus-checksum-algorithm",
];

/// What a client of tus in a browser needs, and nothing for whoever was not named.
///
/// shows: F48 scale=1/2
#[tokio::test]
async fn a_page_of_a_named_origin_may_upload_from_a_browser_and_no_other() {
    let world = World::start().await;
    let (named, other) = (
        "Origin: https://app.example\r\n",
        "Origin: https://app.example.evil\r\n",
    );
    let question =
        "Access-Control-Request-Method: PATCH\r\nAccess-Control-Request-Headers: tus-resumable,upload-offset\r\n";
    let words = |reply: &Reply, name: &str| {
        let text = reply.header(name).unwrap_or_default().to_ascii_lowercase();
        text.split(',').map(|word| word.trim().to_owned()).collect::<Vec<_>>()
    };
    let line = "OPTIONS /api/v1/tus/any";
    let told = world.request(line, &format!("{named}{question}"), b"").await;
    assert_eq!(told.status, 204, "{told:?}");
    assert_eq!(told.header("access-control-allow-origin"), Some("https://app.example"));
    let methods = words(&told, "access-control-allow-methods");
    for method in ["post", "head", "patch", "delete"] {
        assert!(methods.contains(&method.to_owned()), "{method}");
    }
    let sent = words(&told, "access-control-allow-headers");
    for name in SENT_BY_TUS {
        assert!(sent.contains(&name.to_owned()), "{name}");
    }
    // The protocol's own question is another.
    let options = world.request("OPTIONS /api/v1/tus", named, b"").await;
    assert_eq!((options.status, options.header("tus-version")), (204, Some("1.0.0")));
    let created = create(&world, &format!("{named}Upload-Length: 5\r\n"), b"").await;
    let refused = world.request("GET /api/v1/nothing", named, b"").await;
    refused.refused(404, "route_not_found");
    for reply in [&options, &created, &refused] {
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(reply.header("access-control-allow-credentials"), None);
        assert_eq!(reply.header("vary"), Some("origin"));
        let read = words(reply, "access-control-expose-headers");
        for name in READ_BY_TUS {
            assert!(read.contains(&name.to_owned()), "{name}");
        }
    }
    for origin in [other, "Origin: null\r\n", ""] {
        world
            .request(line, &format!("{origin}{question}"), b"")
            .await
            .refused(405, "method_not_allowed");
        let created = create(&world, &format!("{origin}Upload-Length: 5\r\n"), b"").await;
        assert_eq!(created.status, 201);
        assert_eq!(created.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(created.header("vary"), Some("origin"));
    }
}
