//! The tree through the API: creating, renaming, moving, trashing, restoring, removing for good, and what stale requests get.
//!
//! Not here: which names are allowed (names), pages of listings (listing), contents (uploads, downloads).

use crate::world::{Answer, World, noise};
use api::entry::{Entry, Kind};
use api::upload::Uploaded;
use client_sdk::client::Client;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

pub(crate) const UPLOAD: &str = "/api/v1/files/upload";
pub(crate) const METADATA: &str = "/api/v1/metadata";

pub(crate) fn entry(answer: &Answer) -> Entry {
    assert!(answer.status.is_success(), "{answer:?}");
    serde_json::from_value(answer.json()).unwrap()
}

pub(crate) async fn make_folder(world: &World, path: &str) -> Entry {
    let wanted = json!({"type": "folder", "path": path});
    let made = world.call(Method::POST, METADATA, Some(&wanted)).await;
    assert_eq!(made.status, 201, "{made:?}");
    entry(&made)
}

pub(crate) async fn change(world: &World, id: &str, wanted: Value) -> Answer {
    world
        .call(Method::PATCH, &format!("{METADATA}/{id}"), Some(&wanted))
        .await
}

pub(crate) async fn delete(world: &World, id: &str, query: &str) -> Answer {
    world
        .call(Method::DELETE, &format!("{METADATA}/{id}{query}"), None)
        .await
}

async fn restore(world: &World, id: &str, wanted: Option<Value>) -> Answer {
    let path = format!("{METADATA}/{id}/restore");
    world.call(Method::POST, &path, wanted.as_ref()).await
}

pub(crate) async fn by_id(world: &World, id: &str) -> Answer {
    world.call(Method::GET, &format!("{METADATA}?id={id}"), None).await
}

fn media(client: &Client, query: &[(&str, &str)], body: impl Into<reqwest::Body>) -> RequestBuilder {
    let request = client.request(Method::POST, UPLOAD).query(&[("uploadType", "media")]);
    request.query(query).body(body)
}

pub(crate) fn multipart(client: &Client, named: &Value, bytes: &str, boundary: &str) -> RequestBuilder {
    let head = format!("--{boundary}\r\nContent-Type: application/json\r\n\r\n{named}\r\n--{boundary}\r\n");
    let body = format!("{head}Content-Type: text/plain\r\n\r\n{bytes}\r\n--{boundary}--\r\n");
    let request = client
        .request(Method::POST, UPLOAD)
        .query(&[("uploadType", "multipart")]);
    request
        .header("content-type", format!("multipart/related; boundary={boundary}"))
        .body(body)
}

/// shows: DM-1
/// shows: DM-2 scale=1/2
/// shows: FR-003 scale=1/2
/// shows: H-API-2
#[tokio::test]
async fn a_file_keeps_its_id_and_every_version_wherever_it_is_moved() {
    let world = World::start().await;
    let me = world.client.me().await.unwrap();
    let wanted = json!({"type": "folder", "path": "/a/b/c", "parents": true});
    let made = world.call(Method::POST, METADATA, Some(&wanted)).await;
    let c = entry(&made);
    assert_eq!(
        (made.status.as_u16(), c.path.as_str(), c.entry_type),
        (201, "/a/b/c", Kind::Folder)
    );
    assert_eq!(made.header("etag"), Some(format!("\"{}-1\"", c.id).as_str()));
    assert_eq!(world.tree().await, ["/a", "/a/b", "/a/b/c"]);

    let wanted = json!({"type": "file", "parent": c.id, "name": "f"});
    let made = world.call(Method::POST, METADATA, Some(&wanted)).await;
    let empty = entry(&made);
    assert_eq!(made.status, 201);
    assert_eq!((empty.size, empty.version, empty.revision), (0, 1, 1));
    assert_eq!(
        (&empty.drive, &empty.modified_by, &empty.parent),
        (&me.drive, &me.id, &Some(c.id.clone()))
    );
    let (second, third) = (noise(1, 9_000), noise(2, 300));
    for (base, bytes) in [("1", &second), ("2", &third)] {
        let query = [("path", "/a/b/c/f"), ("base_version", base)];
        let answer = world.send(media(&world.client, &query, bytes.clone())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let uploaded: Uploaded = serde_json::from_value(answer.json()).unwrap();
        assert_eq!(
            (&uploaded.entry.id, uploaded.entry.version.to_string()),
            (&empty.id, (base.parse::<u64>().unwrap() + 1).to_string())
        );
    }

    let renamed = entry(&change(&world, &empty.id, json!({"name": "g"})).await);
    assert_eq!(
        (renamed.path.as_str(), renamed.version, renamed.revision),
        ("/a/b/c/g", 3, 4)
    );
    let root = entry_of(&by_path(&world, "/").await);
    assert_eq!((root.parent, root.name.as_str(), &root.drive), (None, "", &me.drive));
    let moved = entry(&change(&world, &empty.id, json!({"parent": root.id})).await);
    assert_eq!((moved.path.as_str(), moved.parent.as_ref()), ("/g", Some(&root.id)));
    let moved = entry(&change(&world, &empty.id, json!({"path": "/a/h"})).await);
    assert_eq!(
        (moved.path.as_str(), &moved.id, moved.version, moved.revision),
        ("/a/h", &empty.id, 3, 6)
    );
    let unchanged = entry(&change(&world, &empty.id, json!({"name": "h"})).await);
    assert_eq!(unchanged, moved, "what is so already is no change");
    by_path(&world, "/a/b/c/f").await.refused(404, "not_found");

    for (version, bytes) in [(1, &b""[..]), (2, &second), (3, &third)] {
        let path = format!("/api/v1/files/{}/content?version={version}", empty.id);
        let answer = world.send(world.client.request(Method::GET, &path)).await;
        assert!(answer.body == bytes, "version {version}");
        assert_eq!(
            answer.header("etag"),
            Some(format!("\"{}-{version}\"", empty.id).as_str())
        );
        assert!(answer.header("holdfast-committed-at").unwrap().ends_with('Z'));
    }
    let missing = format!("/api/v1/files/{}/content?version=4", empty.id);
    world
        .call(Method::GET, &missing, None)
        .await
        .refused(404, "version_not_found");
}

async fn by_path(world: &World, path: &str) -> Answer {
    let request = world.client.request(Method::GET, METADATA).query(&[("path", path)]);
    world.send(request).await
}

/// The entry of a listing's answer.
pub(crate) fn entry_of(answer: &Answer) -> Entry {
    serde_json::from_value(answer.json()["entry"].clone()).unwrap()
}

#[tokio::test]
async fn no_move_makes_a_cycle_overwrites_or_leaves_the_tree() {
    let world = World::start().await;
    let a = make_folder(&world, "/a").await;
    let b = make_folder(&world, "/a/b").await;
    let c = make_folder(&world, "/a/b/c").await;
    let file = world.put("/a/f", b"x").await.entry;
    let before = world.tree().await;
    for under in [&a, &b, &c] {
        change(&world, &a.id, json!({"parent": under.id}))
            .await
            .refused(422, "cycle");
    }
    change(&world, &a.id, json!({"path": "/a/b/c/a"}))
        .await
        .refused(422, "cycle");
    let problem = change(&world, &c.id, json!({"path": "/a/f"}))
        .await
        .refused(409, "name_taken");
    assert_eq!(problem.fields["existing"]["id"], file.id);
    let problem = change(&world, &file.id, json!({"name": "b"}))
        .await
        .refused(409, "name_taken");
    assert_eq!(problem.fields["existing"]["id"], b.id);
    change(&world, &c.id, json!({"parent": file.id}))
        .await
        .refused(422, "parent_not_folder");
    change(&world, &c.id, json!({"path": "/a/f/c"}))
        .await
        .refused(422, "parent_not_folder");
    change(&world, &c.id, json!({"path": "/none/c"}))
        .await
        .refused(404, "parent_not_found");
    let nothing = entry_that_never_was(&c);
    change(&world, &c.id, json!({"parent": nothing}))
        .await
        .refused(404, "parent_not_found");
    change(&world, &nothing, json!({"name": "x"}))
        .await
        .refused(404, "not_found");
    change(&world, &c.id, json!({})).await.refused(400, "bad_json");
    change(&world, &c.id, json!({"path": "/x", "name": "y"}))
        .await
        .refused(400, "bad_json");
    change(&world, &c.id, json!({"nmae": "y"}))
        .await
        .refused(400, "bad_json");
    change(&world, "short", json!({"name": "y"}))
        .await
        .refused(400, "bad_id");
    change(&world, "%ff", json!({"name": "y"})).await.refused(400, "bad_id");
    let root = entry_of(&by_path(&world, "/").await);
    change(&world, &root.id, json!({"name": "y"}))
        .await
        .refused(422, "root_fixed");
    change(&world, &c.id, json!({"path": "/"}))
        .await
        .refused(422, "root_fixed");
    delete(&world, &root.id, "").await.refused(422, "root_fixed");
    delete(&world, &root.id, "?permanent=true")
        .await
        .refused(422, "root_fixed");
    assert_eq!(world.tree().await, before);
}

/// shows: DM-4
#[tokio::test]
async fn of_two_crossing_moves_at_once_exactly_one_succeeds() {
    let world = World::start().await;
    for round in 0..20 {
        let (x, y) = (format!("/x{round}"), format!("/y{round}"));
        let (x, y) = (make_folder(&world, &x).await, make_folder(&world, &y).await);
        let answers = tokio::join!(
            change(&world, &x.id, json!({"parent": y.id})),
            change(&world, &y.id, json!({"parent": x.id})),
        );
        let (won, lost) = if answers.0.status == 200 {
            answers
        } else {
            (answers.1, answers.0)
        };
        assert_eq!(won.status, 200, "{won:?}");
        lost.refused(422, "cycle");
    }
    assert_eq!(world.tree().await.len(), 40, "every folder still hangs below the root");
}

/// An id of the same drive that no entry has.
pub(crate) fn entry_that_never_was(of: &Entry) -> String {
    let mut id = model::id::EntryId::parse(&of.id).unwrap();
    id.number ^= 1 << 40;
    id.to_string()
}

/// shows: FR-003 scale=1/2
/// shows: SC-in-2
#[tokio::test]
async fn a_deleted_folder_is_one_change_and_comes_back_whole() {
    let world = World::start().await;
    let folder = make_folder(&world, "/work").await;
    let mut files = Vec::new();
    for number in 0..30 {
        files.push(
            world
                .put(&format!("/work/deep/{number}"), &noise(number, 500))
                .await
                .entry,
        );
    }
    let whole = world.tree().await;
    let before = world.put("/m1", b"x").await.receipt.cursor;
    assert_eq!(delete(&world, &folder.id, "").await.status, 204);
    let after = world.put("/m2", b"x").await.receipt.cursor;
    let page = world.client.changes(Some(&before), 100, false).await.unwrap();
    let told: Vec<&str> = page.changes.iter().map(|change| change.file_id.as_str()).collect();
    assert_eq!(told.len(), 2, "one change and the second upload's own: {told:?}");
    assert_eq!(told[0], folder.id);
    assert!(
        world
            .client
            .changes(Some(&after), 100, false)
            .await
            .unwrap()
            .changes
            .is_empty()
    );
    assert_eq!(world.tree().await, ["/m1", "/m2"]);
    by_path(&world, "/work").await.refused(404, "not_found");
    assert!(entry_of(&by_id(&world, &folder.id).await).trashed_at.is_some());

    delete(&world, &folder.id, "").await.refused(409, "in_trash");
    change(&world, &folder.id, json!({"name": "x"}))
        .await
        .refused(409, "in_trash");
    change(&world, &files[0].id, json!({"name": "x"}))
        .await
        .refused(409, "in_trash");
    restore(&world, &files[0].id, None).await.refused(409, "not_in_trash");
    let wanted = json!({"type": "folder", "parent": folder.id, "name": "x"});
    world
        .call(Method::POST, METADATA, Some(&wanted))
        .await
        .refused(409, "in_trash");

    let back = restore(&world, &folder.id, None).await;
    let back = entry(&back);
    assert_eq!(
        (back.id.as_str(), back.path.as_str(), back.trashed_at),
        (folder.id.as_str(), "/work", None)
    );
    restore(&world, &folder.id, None).await.refused(409, "not_in_trash");
    let now: Vec<String> = world
        .tree()
        .await
        .into_iter()
        .filter(|path| !path.starts_with("/m"))
        .collect();
    assert_eq!(now, whole);
    for (number, file) in files.iter().enumerate() {
        let content = world.content(&file.id, &[]).await;
        assert!(content.body == noise(number as u64, 500), "{}", file.path);
        assert_eq!(content.header("etag"), Some(format!("\"{}-1\"", file.id).as_str()));
    }
}

#[tokio::test]
async fn what_cannot_come_back_to_its_place_comes_back_to_another() {
    let world = World::start().await;
    let a = make_folder(&world, "/a").await;
    let (f, g) = (
        world.put("/a/f", b"old").await.entry,
        world.put("/a/g", b"g").await.entry,
    );
    assert_eq!(delete(&world, &f.id, "").await.status, 204);
    let new = world.put("/a/f", b"new").await.entry;
    let problem = restore(&world, &f.id, None).await.refused(409, "name_taken");
    assert_eq!(problem.fields["existing"]["id"], new.id);
    restore(&world, &f.id, Some(json!({"name": "a/b"})))
        .await
        .refused(400, "bad_name");
    restore(&world, &f.id, Some(json!({"parent": g.id})))
        .await
        .refused(422, "parent_not_folder");
    restore(&world, &f.id, Some(json!({"path": "/x"})))
        .await
        .refused(400, "bad_json");
    let back = entry(&restore(&world, &f.id, Some(json!({"name": "f (1)"}))).await);
    assert_eq!(back.path, "/a/f (1)");
    assert_eq!(world.content(&f.id, &[]).await.body, b"old");

    // The folder itself in the trash, then gone.
    assert_eq!(delete(&world, &f.id, "").await.status, 204);
    assert_eq!(delete(&world, &a.id, "").await.status, 204);
    restore(&world, &f.id, None).await.refused(409, "in_trash");
    assert_eq!(delete(&world, &a.id, "?permanent=true").await.status, 204);
    for id in [&a.id, &g.id, &new.id] {
        by_id(&world, id).await.refused(404, "not_found");
        restore(&world, id, None).await.refused(404, "not_found");
    }
    world.content(&g.id, &[]).await.refused(404, "not_found");
    restore(&world, &f.id, None).await.refused(404, "parent_not_found");
    let root = entry_of(&by_path(&world, "/").await);
    let back = entry(&restore(&world, &f.id, Some(json!({"parent": root.id, "name": "saved"}))).await);
    assert_eq!(back.path, "/saved");
    assert_eq!(world.content(&f.id, &[]).await.body, b"old");
    assert_eq!(world.tree().await, ["/saved"]);
}

#[tokio::test]
async fn a_large_folder_is_removed_for_good_at_once_and_its_space_comes_back() {
    let world = World::start().await;
    let folder = make_folder(&world, "/large").await;
    let writes = (0..1_200).map(|number| {
        let query = [("path", format!("/large/{number}"))];
        let request = world
            .client
            .request(Method::POST, UPLOAD)
            .query(&[("uploadType", "media")]);
        world.send(request.query(&query).body(number.to_string()))
    });
    let mut files = Vec::new();
    for batch in in_batches(writes, 64).await {
        assert_eq!(batch.status, 201, "{batch:?}");
        files.push(batch.json()["entry"]["id"].as_str().unwrap().to_owned());
    }
    let full = world.client.me().await.unwrap().usage.bytes;
    assert!(full > 0);
    assert_eq!(delete(&world, &folder.id, "?permanent=true").await.status, 204);
    by_id(&world, &folder.id).await.refused(404, "not_found");
    by_id(&world, files.last().unwrap()).await.refused(404, "not_found");
    world.content(&files[700], &[]).await.refused(404, "not_found");
    make_folder(&world, "/large").await;
    assert_eq!(world.tree().await, ["/large"]);
    let begun = Instant::now();
    while world.client.me().await.unwrap().usage.bytes > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the job does not end");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Runs requests, at most `at_once` at a time.
pub(crate) async fn in_batches<F: Future<Output = Answer>>(
    calls: impl Iterator<Item = F>,
    at_once: usize,
) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut calls = calls.peekable();
    while calls.peek().is_some() {
        let batch: Vec<F> = calls.by_ref().take(at_once).collect();
        answers.extend(futures_util::future::join_all(batch).await);
    }
    answers
}

/// Every way to make an entry, into `place` (fields of a request).
async fn attempts(world: &World, place: &Value) -> Vec<Answer> {
    let mut answers = Vec::new();
    for kind in ["folder", "file"] {
        let mut wanted = place.clone();
        wanted["type"] = json!(kind);
        answers.push(world.call(Method::POST, METADATA, Some(&wanted)).await);
    }
    answers.push(world.send(multipart(&world.client, place, "small", "cut")).await);
    let large = String::from_utf8(vec![b'x'; 200_000]).unwrap();
    answers.push(world.send(multipart(&world.client, place, &large, "cut")).await);
    // A query names a path alone.
    if let Some(path) = place["path"].as_str().filter(|_| place.get("parent").is_none()) {
        for bytes in [vec![], noise(3, 100), noise(4, 300_000)] {
            answers.push(world.send(media(&world.client, &[("path", path)], bytes)).await);
        }
    }
    answers
}

#[tokio::test]
async fn a_refused_creation_leaves_nothing_behind() {
    let world = World::start().await;
    let folder = make_folder(&world, "/folder").await;
    let file = world.put("/folder/file", b"kept").await.entry;
    assert_eq!(
        delete(&world, &make_folder(&world, "/gone").await.id, "").await.status,
        204
    );
    let usage = world.client.me().await.unwrap().usage;
    let before = world.tree().await;
    let nothing = entry_that_never_was(&folder);
    let cases = [
        (json!({"path": "/folder"}), 409, "name_taken"),
        (json!({"path": "/folder/file"}), 409, "name_taken"),
        (json!({"path": "/"}), 409, "name_taken"),
        (json!({"parent": folder.id, "name": "file"}), 409, "name_taken"),
        (json!({"path": "/none/x"}), 404, "parent_not_found"),
        (json!({"path": "/gone/x"}), 404, "parent_not_found"),
        (json!({"parent": nothing, "name": "x"}), 404, "parent_not_found"),
        (json!({"path": "/folder/file/x"}), 422, "parent_not_folder"),
        (json!({"path": "/folder/file/x/y"}), 422, "parent_not_folder"),
        (json!({"parent": file.id, "name": "x"}), 422, "parent_not_folder"),
        (json!({"path": "/x", "parent": folder.id, "name": "x"}), 400, "bad_json"),
        (json!({"parent": folder.id}), 400, "bad_json"),
        (json!({"parent": "short", "name": "x"}), 400, "bad_id"),
    ];
    for (place, status, code) in cases {
        for answer in attempts(&world, &place).await {
            let problem = answer.refused(status, code);
            if code == "name_taken" {
                let existing: Entry = serde_json::from_value(problem.fields["existing"].clone()).unwrap();
                assert_eq!(existing.path, place["path"].as_str().unwrap_or("/folder/file"));
            }
        }
    }
    // Asked to make the parents, it makes none when the rest fails.
    let wanted = json!({"path": "/folder/file/x", "parents": true, "type": "folder"});
    world
        .call(Method::POST, METADATA, Some(&wanted))
        .await
        .refused(422, "parent_not_folder");
    let stale = [("path", "/new/x"), ("parents", "true"), ("base_version", "3")];
    world
        .send(media(&world.client, &stale, "x"))
        .await
        .refused(404, "not_found");
    assert_eq!(world.tree().await, before);
    assert_eq!(world.client.me().await.unwrap().usage, usage, "and nothing is charged");
}
