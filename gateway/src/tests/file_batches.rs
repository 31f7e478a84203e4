//! Batches of small files over the wire: results in order, wrong bodies, all or nothing, repeats, memory.
//!
//! Not here: what a group decides of each file (metadata-raft), reading the files back (tests/cluster).

use super::wire::{Reply, chunk, noise};
use super::world::{Wishes, World};
use crate::drive::budget::STRIPE_SHARE_BYTES;
use api::file_batch::{BatchAnswer, FileResult};
use serde_json::{Value, json};

const LINE: &str = "POST /api/v1/files/batch";
const RELATED: &str = "Content-Type: multipart/related; boundary=c\r\n";

fn related(list: &str, contents: &[u8]) -> Vec<u8> {
    let head = format!("--c\r\nContent-Type: application/json\r\n\r\n{list}\r\n--c\r\n\r\n");
    [head.as_bytes(), contents, b"\r\n--c--\r\n"].concat()
}

async fn post(world: &World, headers: &str, body: &[u8]) -> Reply {
    let headers = format!("{RELATED}{headers}Content-Length: {}\r\n", body.len());
    world.request(LINE, &headers, body).await
}

async fn send(world: &World, headers: &str, list: &Value, contents: &[u8]) -> Reply {
    post(world, headers, &related(&list.to_string(), contents)).await
}

fn results(reply: &Reply) -> Vec<FileResult> {
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice::<BatchAnswer>(&reply.body).unwrap().results
}

/// Status, and path or code.
fn told(reply: &Reply) -> Vec<(u16, String)> {
    let told = results(reply).into_iter().map(|result| match result {
        FileResult::Stored(stored) => {
            assert_eq!(stored.entry.id, stored.receipt.entry);
            assert_eq!(stored.entry.digest.as_ref(), Some(&stored.receipt.digest));
            (stored.status, stored.entry.path)
        }
        FileResult::Refused(refused) => {
            assert_eq!(refused.status, refused.problem.status);
            assert!(refused.problem.detail.len() > 10, "{refused:?}");
            (refused.status, refused.problem.code)
        }
    });
    told.collect()
}

fn expected(rows: &[(u16, &str)]) -> Vec<(u16, String)> {
    rows.iter()
        .map(|(status, word)| (*status, (*word).to_owned()))
        .collect()
}

#[tokio::test]
async fn files_of_a_batch_go_in_by_one_command_and_are_answered_in_order() {
    let world = World::start().await;
    let root = world.caller.home.root().to_string();
    let contents = noise(1, 10 + 5000 + 300_000 + 10);
    let list = json!({"files": [
        {"path": "/d/a", "size": 10, "parents": true, "content_type": "text/plain"},
        {"path": "/d/b", "size": 5000},
        {"parent": root, "name": "empty", "size": 0},
        {"parent": root, "name": "c", "size": 300_000},
        {"path": "/d/b", "size": 10},
    ]});
    let reply = send(&world, "", &list, &contents).await;
    assert_eq!(
        told(&reply),
        expected(&[
            (201, "/d/a"),
            (201, "/d/b"),
            (201, "/empty"),
            (201, "/c"),
            (409, "name_taken")
        ])
    );
    assert_eq!(world.commands(), ["CommitBatch"]);
    let done = results(&reply);
    let (FileResult::Stored(first), FileResult::Stored(second), FileResult::Refused(last)) =
        (&done[0], &done[1], &done[4])
    else {
        panic!("{done:?}")
    };
    assert_eq!(first.entry.content_type.as_deref(), Some("text/plain"));
    assert_eq!(
        (first.entry.size, first.entry.version, first.entry.revision),
        (10, 1, 1)
    );
    assert_eq!(last.problem.fields["existing_id"], second.entry.id);
    // The entries are what a listing shows, and a content has the digest that it has alone.
    for (path, bytes) in [("/d/a", &contents[..10]), ("/c", &contents[5010..305_010])] {
        let line = format!("GET /api/v1/metadata?path={path}");
        let listed: Value = serde_json::from_slice(&world.request(&line, "", b"").await.body).unwrap();
        let shown = done.iter().find_map(|result| match result {
            FileResult::Stored(stored) if stored.entry.path == path => {
                Some(serde_json::to_value(&stored.entry).unwrap())
            }
            _ => None,
        });
        assert_eq!(Some(&listed["entry"]), shown.as_ref());
        let line = "POST /api/v1/files/upload?uploadType=media&path=/alone".to_owned() + path;
        let line = line + "&parents=true";
        let length = format!("Content-Length: {}\r\n", bytes.len());
        let alone = world.request(&line, &length, bytes).await;
        let alone: Value = serde_json::from_slice(&alone.body).unwrap();
        assert_eq!(alone["entry"]["digest"], listed["entry"]["digest"]);
    }
}

#[tokio::test]
async fn a_batch_brings_new_versions_and_what_is_there_already() {
    let world = World::start().await;
    let contents = noise(1, 10 + 5000 + 20);
    let list = json!({"files": [
        {"path": "/d/a", "size": 10, "parents": true},
        {"path": "/d/b", "size": 5000},
        {"path": "/c", "size": 20},
    ]});
    assert_eq!(told(&send(&world, "", &list, &contents).await).len(), 3);
    // A new version, the same again, and a stale one.
    let list = json!({"files": [
        {"path": "/d/a", "size": 10, "base_version": 1},
        {"path": "/d/b", "size": 5000, "base_version": 7},
        {"path": "/c", "size": 10, "base_version": 7},
    ]});
    let again = [&noise(2, 10), &contents[10..5010], &noise(3, 10)[..]].concat();
    let reply = send(&world, "", &list, &again).await;
    assert_eq!(
        told(&reply),
        expected(&[(200, "/d/a"), (200, "/d/b"), (409, "version_conflict")])
    );
    let versions = results(&reply).into_iter().map(|result| match result {
        FileResult::Stored(stored) => stored.receipt.version,
        FileResult::Refused(_) => 0,
    });
    assert_eq!(versions.collect::<Vec<_>>(), [2, 1, 0]);
}

#[tokio::test]
async fn wrong_bodies_are_refused_and_commit_nothing() {
    let world = World::start().await;
    let file = |at: usize, size: u64| json!({"path": format!("/{at}"), "size": size});
    let list = |files: Vec<Value>| json!({"files": files}).to_string();
    let two = list(vec![file(0, 3), file(1, 3)]);
    let many = |count: usize| list((0..count).map(|at| file(at, 0)).collect());
    let whole = |list: &str, contents: &[u8]| related(list, contents);
    let right = whole(&two, b"123456");
    // One byte of its closing boundary is there.
    let cut = &right[..right.len() - 8];
    let bodies = [
        (whole(&list(Vec::new()), b""), 400, "bad_json"),
        (whole("{}", b""), 400, "bad_json"),
        (whole("[]", b""), 400, "bad_json"),
        (whole(r#"{"files":[{"path":"/a"}]}"#, b""), 400, "bad_json"),
        (whole(r#"{"files":[{"path":"/a","size":-1}]}"#, b""), 400, "bad_json"),
        (
            whole(r#"{"files":[{"path":"/a","size":0,"x":1}]}"#, b""),
            400,
            "bad_json",
        ),
        (whole(&many(1001), b""), 413, "batch_too_large"),
        (whole(&list(vec![file(0, (12 << 20) + 1)]), b""), 413, "batch_too_large"),
        (
            whole(&list(vec![file(0, u64::MAX), file(1, u64::MAX)]), b""),
            413,
            "batch_too_large",
        ),
        (whole(&two, b"12345"), 422, "size_mismatch"),
        (whole(&two, b"1234567"), 422, "size_mismatch"),
        (whole(&two, b""), 422, "size_mismatch"),
        (whole(&many(1), b"1"), 422, "size_mismatch"),
        (cut.to_vec(), 400, "body_cut"),
        ([&right[..], &[b'x'; 2000]].concat(), 400, "bad_multipart"),
        (whole(&two, b"123\r\n--c\r\n\r\n456"), 400, "bad_multipart"),
    ];
    for (body, status, code) in &bodies {
        let what = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
        let declared = post(&world, "", body).await;
        assert_eq!(declared.status, *status, "{what}");
        declared.refused(*status, code);
        let headers = format!("{RELATED}Transfer-Encoding: chunked\r\n");
        let pieces: Vec<u8> = body.chunks(60_000).flat_map(chunk).chain(chunk(b"")).collect();
        world.request(LINE, &headers, &pieces).await.refused(*status, code);
    }
    let body = right;
    let json = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    world
        .request(LINE, &json, &body)
        .await
        .refused(415, "unsupported_media");
    let query = format!("{LINE}?atomic=true");
    let headers = format!("{RELATED}Content-Length: {}\r\n", body.len());
    world.request(&query, &headers, &body).await.refused(400, "bad_query");
    let headers = format!("{RELATED}Content-Length: {}\r\nExpect: 100-continue\r\n", 20 << 20);
    world.request(LINE, &headers, b"").await.refused(413, "batch_too_large");
    assert_eq!(world.commands(), [""; 0]);
    // The same six bytes as they should be, and as many files as may be.
    assert_eq!(
        told(&post(&world, "", &body).await),
        expected(&[(201, "/0"), (201, "/1")])
    );
    let most = list((2..1002).map(|at| file(at, 0)).collect());
    assert_eq!(results(&post(&world, "", &whole(&most, b"")).await).len(), 1000);
}

#[tokio::test]
async fn a_place_that_is_none_refuses_its_file_or_all_as_asked() {
    let world = World::start().await;
    let other = model::id::DriveId(world.caller.home.0 ^ 1).root().to_string();
    let files = json!([
        {"path": "/a", "size": 1},
        {"path": "relative", "size": 2},
        {"path": "/a/../b", "size": 3},
        {"parent": "x", "name": "n", "size": 4},
        {"parent": other, "name": "n", "size": 5},
        {"name": "n", "size": 6},
        {"path": "/b", "size": 7, "content_type": "t".repeat(256)},
        {"path": "/missing/c", "size": 8},
        {"path": "/z", "size": 9},
    ]);
    let contents = noise(1, 45);
    let mut list = json!({"atomic": true, "files": files});
    let problem = send(&world, "", &list, &contents).await.refused(400, "bad_name");
    assert_eq!(problem.fields["item"], 1);
    assert_eq!(world.commands(), [""; 0], "nobody was asked");
    list["atomic"] = json!(false);
    let words = [
        (201, "/a"),
        (400, "bad_name"),
        (400, "bad_name"),
        (400, "bad_id"),
        (422, "cross_drive"),
        (400, "bad_json"),
        (400, "bad_header"),
        (404, "parent_not_found"),
        (201, "/z"),
    ];
    let reply = send(&world, "", &list, &contents).await;
    assert_eq!(told(&reply), expected(&words));
    // What was passed over shifted nobody's bytes.
    let FileResult::Stored(last) = &results(&reply)[8] else {
        panic!()
    };
    let line = "POST /api/v1/files/upload?uploadType=media&path=/z9";
    let alone = world.request(line, "Content-Length: 9\r\n", &contents[36..]).await;
    let alone: Value = serde_json::from_slice(&alone.body).unwrap();
    assert_eq!(alone["entry"]["digest"].as_str(), last.entry.digest.as_deref());
    let none = json!({"files": [{"path": "x", "size": 3}]});
    assert_eq!(
        told(&send(&world, "", &none, b"123").await),
        expected(&[(400, "bad_name")])
    );
}

#[tokio::test]
async fn a_batch_that_is_all_or_nothing_is_nothing_when_one_file_is_refused() {
    let world = World::start().await;
    let list = |last: &str| {
        json!({"atomic": true, "files": [
            {"path": "/new/a", "size": 5000, "parents": true},
            {"path": "/new/b", "size": 5000, "parents": true},
            {"path": last, "size": 5000},
        ]})
    };
    let contents = noise(1, 15_000);
    let before = world.usage().await;
    let problem = send(&world, "", &list("/new/a"), &contents)
        .await
        .refused(409, "name_taken");
    assert_eq!(problem.fields["item"], 2);
    assert!(
        !problem.fields.contains_key("existing"),
        "what stood in the way is not there"
    );
    let problem = send(&world, "", &list("/no/c"), &contents)
        .await
        .refused(404, "parent_not_found");
    assert_eq!(problem.fields["item"], 2);
    assert!(!world.has("/new").await);
    assert_eq!(world.usage().await, before);
    let done = send(&world, "", &list("/c"), &contents).await;
    assert_eq!(told(&done), expected(&[(201, "/new/a"), (201, "/new/b"), (201, "/c")]));
    let taken = send(&world, "", &list("/c"), &contents)
        .await
        .refused(409, "name_taken");
    assert_eq!(
        (&taken.fields["item"], &taken.fields["existing"]["path"]),
        (&json!(0), &json!("/new/a"))
    );
}

/// Results without what is each request's own.
fn lasting(reply: &Reply) -> Vec<Value> {
    let results = results(reply)
        .into_iter()
        .map(|result| serde_json::to_value(result).unwrap());
    let mut results: Vec<Value> = results.collect();
    for result in &mut results {
        if let Some(problem) = result.get_mut("problem") {
            problem["request_id"] = Value::Null;
        }
    }
    results
}

#[tokio::test]
async fn names_that_pass_one_command_are_several_and_a_repeat_gets_the_first_answers() {
    let world = World::start().await;
    let deep = format!("/{}", "n".repeat(255)).repeat(3);
    let file = |at: usize| json!({"path": format!("{deep}/{at}"), "size": 10, "parents": true});
    let mut files: Vec<Value> = (0..1000).map(file).collect();
    files[999] = json!({"path": format!("{deep}/0"), "size": 10});
    let contents = noise(1, 10_000);
    let mut list = json!({"atomic": true, "files": files});
    let refused = send(&world, "", &list, &contents).await;
    refused.refused(413, "batch_too_large");
    assert_eq!(world.commands(), [""; 0]);
    list["atomic"] = json!(false);
    let key = "Idempotency-Key: k\r\n";
    let first = send(&world, key, &list, &contents).await;
    let words = told(&first);
    assert!(words[..999].iter().all(|(status, _)| *status == 201));
    assert_eq!(words[999], (409, "name_taken".to_owned()));
    let commands = world.commands();
    assert!(
        commands.len() > 1 && commands.iter().all(|name| *name == "CommitBatch"),
        "{commands:?}"
    );
    let again = send(&world, key, &list, &contents).await;
    assert_eq!(lasting(&again), lasting(&first));
    let mut other = contents.clone();
    other[9_985] ^= 1;
    send(&world, key, &list, &other).await.refused(422, "request_id_reused");
    list["files"][5]["base_version"] = json!(1);
    send(&world, key, &list, &contents)
        .await
        .refused(422, "request_id_reused");
    // Without the key it is another request.
    list["files"] = json!([file(0), file(1000)]);
    let words = told(&send(&world, "", &list, &contents[..20]).await);
    assert_eq!((words[0].0, words[1].0), (409, 201));
}

#[tokio::test]
async fn memory_for_the_contents_is_promised_before_they_are_read() {
    let world = World::start_with(Wishes {
        upload_budget_bytes: 2 * STRIPE_SHARE_BYTES,
        ..Wishes::default()
    })
    .await;
    let list = |bytes: usize| json!({"files": [{"path": format!("/{bytes}"), "size": bytes}]});
    let (two, three) = (8 << 20, (8 << 20) + 1);
    let refused = send(&world, "", &list(three), &noise(1, three)).await;
    let problem = refused.refused(503, "too_busy");
    assert!(refused.header("retry-after").is_some(), "{problem:?}");
    assert_eq!(
        told(&send(&world, "", &list(two), &noise(1, two)).await),
        expected(&[(201, "/8388608")])
    );
    assert_eq!(world.commands(), ["CommitBatch"]);
}

#[tokio::test]
async fn the_quota_refuses_the_files_that_pass_it() {
    let world = World::start_with(Wishes {
        quota_bytes: 10_000,
        ..Wishes::default()
    })
    .await;
    let file = |name: &str, size: u64| json!({"path": name, "size": size});
    let list = json!({"files": [file("/a", 6000), file("/b", 5000), file("/c", 4000), file("/d", 1)]});
    let reply = send(&world, "", &list, &noise(1, 15_001)).await;
    let words = [
        (201, "/a"),
        (507, "quota_exceeded"),
        (201, "/c"),
        (507, "quota_exceeded"),
    ];
    assert_eq!(told(&reply), expected(&words));
    assert_eq!(world.usage().await.charged_bytes, 10_000);
}
