//! Delta sync asked for what may not be: another's files and uploads, digests without bytes, lists that do not fit.
//!
//! Not here: tickets (gateway), the permission matrix of all routes (`permissions`).

use crate::entries::{METADATA, make_folder};
use crate::world::{Answer, World, noise};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::delta::{CutContent, DeltaTarget};
use model::entry::BlockRow;
use model::id::UploadId;
use reqwest::Method;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

async fn sync(world: &World, client: &Client, id: &str, wanted: &Value) -> Answer {
    let path = format!("/api/v1/files/{id}/sync");
    world.call_as(client, Method::POST, &path, Some(wanted)).await
}

async fn begun(world: &World, client: &Client, id: &str, wanted: &Value) -> Value {
    let answer = sync(world, client, id, wanted).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn commit(world: &World, client: &Client, id: &str, wanted: &Value) -> Answer {
    let path = format!("/api/v1/files/{id}/commit");
    world.call_as(client, Method::POST, &path, Some(wanted)).await
}

async fn put(world: &World, client: &Client, upload: &str, digest: &str, bytes: &[u8]) -> Answer {
    let path = format!("/api/v1/blocks/{digest}?upload_id={upload}");
    world
        .send(client.request(Method::PUT, &path).body(bytes.to_vec()))
        .await
}

async fn ticket(world: &World, client: &Client, upload: &str, digest: &str, size: usize) -> Answer {
    let wanted = json!({"upload_id": upload, "digest": digest, "size": size});
    let path = "/api/v1/blocks/upload-url";
    world.call_as(client, Method::POST, path, Some(&wanted)).await
}

fn nobody(seed: u64) -> String {
    blake3::hash(&seed.to_le_bytes()).to_hex().to_string()
}

/// An answer without what differs from request to request.
fn shape(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body.as_object_mut().unwrap().remove("request_id");
    (answer.status.as_u16(), body)
}

/// In a thief's own drive every digest of another's file is missing, as any other one is, at each door; the bytes that a thief has
/// go in as if nobody had them.
async fn tells_nothing_in_its_own_drive(world: &World, thief: &Client, own: &CutContent, digests: [&Vec<String>; 2]) {
    let known = world.metric("gateway_blocks_known_total").await;
    let mut tickets = Vec::new();
    for hashes in digests {
        let wanted = json!({"path": "/loot", "new_block_hashes": hashes});
        let answer = begun(world, thief, "new", &wanted).await;
        assert_eq!(answer["missing_blocks"], json!(hashes));
        let upload = answer["upload_id"].as_str().unwrap();
        let problem = commit(world, thief, "new", &json!({"upload_id": upload})).await;
        assert_eq!(
            problem.refused(409, "need_blocks").fields["missing_blocks"],
            json!(hashes)
        );
        // Even with the bytes: digests are another's, keyed by another drive.
        let block = &own.blocks[0];
        let kept = put(world, thief, upload, &hashes[0], block).await;
        kept.refused(422, "digest_mismatch");
        let given = ticket(world, thief, upload, &hashes[0], block.len()).await;
        assert_eq!(given.status, 200, "{given:?}");
        tickets.push(given.json()["url"].as_str().unwrap().to_owned());
    }
    let anonymous = Client::new(&world.cluster.facts.url).unwrap();
    for url in tickets {
        let kept = anonymous.request(Method::PUT, &url).body(own.blocks[0].clone());
        world.send(kept).await.refused(422, "digest_mismatch");
    }
    assert_eq!(thief.me().await.unwrap().usage.bytes, 0);
    let bytes = own.blocks.concat();
    let length = bytes.len() as u64;
    thief.put(&Target::new_file("/same"), bytes.into()).await.unwrap();
    assert_eq!(thief.me().await.unwrap().usage.bytes, length);
    let since = world.metric("gateway_blocks_known_total").await - known;
    assert_eq!(since, 0.0, "somebody's blocks were known to another drive");
}

/// Whoever has all digests of another's file, and even its bytes, gets nothing by them and cannot tell a hit from a miss.
///
/// Not here: an editor of another's file, of whom there is none before sharing.
///
/// shows: N7 side=stranger, I-05 side=contract
#[tokio::test]
async fn digests_of_anothers_blocks_open_nothing_and_tell_nothing() {
    let world = World::start().await;
    let (eve, _) = world.user("eve", 100 << 20).await;
    let content = Bytes::from(noise(1, 5 * MIB));
    let own = CutContent::of(content.clone(), &world.client.digest_key().await.unwrap());
    let target = DeltaTarget::New("/secret".to_owned());
    let sent = world.client.put_delta(&target, &own, None).await.unwrap();
    let id = sent.uploaded.entry.id.as_str();
    let hits: Vec<String> = own.rows.iter().map(|row| row.digest.to_hex()).collect();
    let misses: Vec<String> = (0..hits.len() as u64).map(nobody).collect();

    tells_nothing_in_its_own_drive(&world, &eve, &own, [&hits, &misses]).await;
    // Against the file itself, and against an upload to it, hits and misses look alike.
    let edit = json!({"current_version": 1, "new_block_hashes": [nobody(99)]});
    let upload = begun(&world, &world.client, id, &edit).await["upload_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut seen = Vec::new();
    for (at, hashes) in [&hits, &misses].into_iter().enumerate() {
        let wanted = json!({"current_version": 1, "new_block_hashes": hashes});
        let kept = json!({"current_version": 1, "splices": [{"keep": [0, 1]}]});
        let own_block = &own.blocks[0];
        let list = format!("/api/v1/files/{id}/blocks");
        let answers = [
            sync(&world, &eve, id, &wanted).await,
            sync(&world, &eve, id, &kept).await,
            commit(&world, &eve, id, &wanted).await,
            commit(&world, &eve, id, &json!({"upload_id": upload})).await,
            put(&world, &eve, &upload, &hashes[0], own_block).await,
            put(&world, &eve, &upload, &hashes[0], b"x").await,
            ticket(&world, &eve, &upload, &hashes[0], own_block.len()).await,
            world.call_as(&eve, Method::GET, &list, None).await,
        ];
        for answer in &answers {
            assert_eq!(answer.status, 404, "{at}: {answer:?}");
        }
        seen.push(answers.each_ref().map(shape));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(world.content(id, &[]).await.body, content);
}

type Case = (Value, u16, &'static str);

/// What cannot be said of a file of `count` blocks, one of which is `row`: a flat table.
fn unfit(count: usize, row: &BlockRow) -> Vec<Case> {
    let digest = row.digest.to_hex();
    let spliced = |splices: Value| json!({"current_version": 1, "splices": splices});
    let block = |digest: &str, size: u64| spliced(json!([{"blocks": [{"digest": digest, "size": size}]}]));
    let hashed = |hashes: Value| json!({"current_version": 1, "new_block_hashes": hashes});
    let and = |name: &str, value: Value| json!({"current_version": 1, "new_block_hashes": [], name: value});
    let based = |version: u64| json!({"current_version": version, "new_block_hashes": []});
    let often = |splice: Value| spliced(json!(vec![splice; 40_962]));
    let long = json!({"blocks": vec![json!({"digest": nobody(1), "size": 4 << 20}); 2561]});
    vec![
        (spliced(json!([{"keep": [0, count + 1]}])), 422, "bad_splices"),
        (spliced(json!([{"keep": [count, 1]}])), 422, "bad_splices"),
        (spliced(json!([{"keep": [0, 0]}])), 422, "bad_splices"),
        (spliced(json!([{"keep": [u64::MAX, 2]}])), 422, "bad_splices"),
        (spliced(json!([{"keep": [-1, 2]}])), 400, "bad_json"),
        (spliced(json!([{"keep": [0]}])), 400, "bad_json"),
        (spliced(json!([{"cut": [0, 1]}])), 400, "bad_json"),
        (block(&digest, 0), 422, "bad_splices"),
        (block(&digest, u64::from(row.size) + 1), 422, "size_mismatch"),
        (block(&digest, (4 << 20) + 1), 413, "block_too_large"),
        (block(&digest, 1 << 40), 400, "bad_json"),
        (block("abc", 1), 400, "bad_digest"),
        (hashed(json!([digest.to_uppercase()])), 400, "bad_digest"),
        (hashed(json!([1])), 400, "bad_json"),
        (json!({"current_version": 1}), 400, "bad_json"),
        (and("splices", json!([])), 400, "bad_json"),
        (and("path", json!("/x")), 400, "bad_json"),
        (and("more", json!(1)), 400, "bad_json"),
        (json!({"new_block_hashes": []}), 422, "base_version_missing"),
        (based(0), 409, "name_taken"),
        (based(2), 409, "version_conflict"),
        (hashed(json!(vec![digest; 40_962])), 413, "file_too_large"),
        (often(json!({"keep": [0, count]})), 413, "file_too_large"),
        (spliced(json!([long])), 413, "file_too_large"),
        (hashed(json!("x".repeat(5 << 20))), 413, "body_too_large"),
    ]
}

#[tokio::test]
async fn lists_that_do_not_fit_their_file_are_refused_with_a_reason() {
    let world = World::start().await;
    let (client, key) = (&world.client, world.client.digest_key().await.unwrap());
    let whole = CutContent::of(noise(1, 4 * MIB).into(), &key);
    let target = DeltaTarget::New("/f".to_owned());
    let sent = client.put_delta(&target, &whole, None).await.unwrap();
    let id = sent.uploaded.entry.id.as_str();
    let folder = make_folder(&world, "/folder").await;
    let trashed = world.put("/old", b"old").await.entry;
    client.trash(&trashed.id).await.unwrap();
    for (wanted, status, code) in unfit(whole.rows.len(), &whole.rows[0]) {
        sync(&world, client, id, &wanted).await.refused(status, code);
    }
    let list = json!({"current_version": 1, "new_block_hashes": [whole.rows[0].digest.to_hex()]});
    sync(&world, client, &folder.id, &list).await.refused(422, "not_a_file");
    sync(&world, client, &trashed.id, &list).await.refused(409, "in_trash");
    sync(&world, client, "x", &list).await.refused(400, "bad_id");
    for (query, status, code) in [
        ("?version=2", 404, "version_not_found"),
        ("?since=7", 404, "version_not_found"),
        ("?limit=0", 400, "bad_limit"),
        ("?limit=1001", 400, "bad_limit"),
        ("?page_token=abc", 400, "bad_page_token"),
        ("?x=1", 400, "bad_query"),
    ] {
        let path = format!("/api/v1/files/{id}/blocks{query}");
        world.call(Method::GET, &path, None).await.refused(status, code);
    }
    assert_eq!(world.content(id, &[]).await.body, whole.blocks.concat());
}

#[tokio::test]
async fn new_files_that_cannot_be_are_refused_with_a_reason() {
    let world = World::start().await;
    world.put("/f", b"file").await;
    let new = |name: &str, value: Value| json!({"new_block_hashes": [], name: value});
    let and = |name: &str, value: Value| json!({"new_block_hashes": [], "path": "/g", name: value});
    let cases: [Case; 6] = [
        (json!({"new_block_hashes": []}), 400, "bad_json"),
        (new("path", json!("/f")), 409, "name_taken"),
        (new("path", json!("/none/f")), 404, "parent_not_found"),
        (and("current_version", json!(1)), 404, "not_found"),
        (and("content_type", json!("x".repeat(256))), 400, "bad_header"),
        (json!({"path": "/g", "splices": [{"keep": [0, 1]}]}), 422, "bad_splices"),
    ];
    for (wanted, status, code) in cases {
        let refused = sync(&world, &world.client, "new", &wanted).await;
        refused.refused(status, code);
    }
    assert_eq!(world.tree().await, ["/f"]);
}

/// An upload of one block that is not there, to a file that is.
struct Begun {
    world: World,
    file: String,
    upload: String,
    digest: String,
    bytes: Bytes,
}

impl Begun {
    async fn new() -> Self {
        let world = World::start().await;
        let key = world.client.digest_key().await.unwrap();
        let whole = CutContent::of(noise(1, 2 * MIB).into(), &key);
        let digest = whole.rows[0].digest.to_hex();
        let file = world.put("/f", b"file").await.entry.id;
        let wanted = json!({"current_version": 1, "new_block_hashes": [digest]});
        let upload = begun(&world, &world.client, &file, &wanted).await["upload_id"].clone();
        Self {
            file,
            upload: upload.as_str().unwrap().to_owned(),
            digest,
            bytes: whole.blocks[0].clone(),
            world,
        }
    }

    /// The id of an upload that never was.
    fn unknown(&self) -> String {
        let mut id: UploadId = UploadId::parse(&self.upload).unwrap();
        id.number ^= 1;
        id.to_string()
    }
}

#[tokio::test]
async fn blocks_that_do_not_fit_their_upload_are_refused() {
    let begun = Begun::new().await;
    let (world, client, unknown) = (&begun.world, &begun.world.client, begun.unknown());
    let (upload, digest) = (begun.upload.as_str(), begun.digest.as_str());
    let long = vec![0; (4 << 20) + 1];
    for (upload, named, body, status, code) in [
        (upload, digest, &begun.bytes[1..], 422, "digest_mismatch"),
        (upload, digest, b"", 422, "size_mismatch"),
        (upload, "abc", &begun.bytes, 400, "bad_digest"),
        ("abc", digest, &begun.bytes, 400, "bad_id"),
        (&unknown, digest, &begun.bytes, 404, "session_not_found"),
        (upload, digest, &long, 413, "block_too_large"),
    ] {
        put(world, client, upload, named, body).await.refused(status, code);
    }
    let bare = client.request(Method::PUT, &format!("/api/v1/blocks/{digest}"));
    world.send(bare.body("x")).await.refused(400, "bad_query");
    for (upload, named, size, status, code) in [
        (upload, digest, 0, 422, "size_mismatch"),
        (upload, "abc", 1, 400, "bad_digest"),
        (&unknown, digest, 1, 404, "session_not_found"),
        (upload, digest, (4 << 20) + 1, 413, "block_too_large"),
    ] {
        ticket(world, client, upload, named, size).await.refused(status, code);
    }
}

#[tokio::test]
async fn commits_that_do_not_fit_their_upload_are_refused_and_leave_nothing() {
    let begun = Begun::new().await;
    let (world, client, file) = (&begun.world, &begun.world.client, begun.file.as_str());
    let by_upload = json!({"upload_id": begun.upload});
    let unknown = json!({"upload_id": begun.unknown()});
    for (id, wanted, status, code) in [
        ("new", by_upload.clone(), 404, "session_not_found"),
        (file, unknown, 404, "session_not_found"),
        (file, json!({"upload_id": 1}), 400, "bad_json"),
        (file, json!({}), 400, "bad_json"),
        (file, by_upload.clone(), 409, "need_blocks"),
    ] {
        commit(world, client, id, &wanted).await.refused(status, code);
    }
    // Neither under another name nor without its blocks was anything committed by the way.
    assert_eq!(world.content(file, &[]).await.body, b"file");
    // What was promised is judged again at the commit: the file is gone meanwhile, and comes back.
    let sent = put(world, client, &begun.upload, &begun.digest, &begun.bytes).await;
    assert_eq!(sent.status, 204);
    client.trash(file).await.unwrap();
    let refused = commit(world, client, file, &by_upload).await;
    refused.refused(409, "in_trash");
    let restore = format!("{METADATA}/{file}/restore");
    assert_eq!(world.call(Method::POST, &restore, None).await.status, 200);
    let done = commit(world, client, file, &by_upload).await.json();
    assert_eq!(done["entry"]["version"], 2, "{done}");
}

/// A repeat under one key begins one upload, another list under it is refused, and a list that was committed is committed once.
#[tokio::test]
async fn an_idempotency_key_begins_one_upload() {
    let world = World::start().await;
    let send = async |id: &str, what: &str, key: &str, wanted: &Value| {
        let path = format!("/api/v1/files/{id}/{what}");
        let request = world.client.request(Method::POST, &path);
        world.send(request.header("idempotency-key", key).json(wanted)).await
    };
    let new = |hashes: Value| json!({"path": "/f", "new_block_hashes": hashes});
    let list = new(json!([nobody(1), nobody(2)]));
    let first = send("new", "sync", "k", &list).await.json();
    assert_eq!(send("new", "sync", "k", &list).await.json(), first);
    let other = send("new", "sync", "k", &new(json!([nobody(3)]))).await;
    other.refused(422, "request_id_reused");

    let key = world.client.digest_key().await.unwrap();
    let whole = CutContent::of(noise(1, 300_000).into(), &key);
    let target = DeltaTarget::New("/g".to_owned());
    let sent = world.client.put_delta(&target, &whole, None).await.unwrap();
    let id = sent.uploaded.entry.id.as_str();
    let twice = [&whole.rows[..], &whole.rows].concat();
    let twice: Vec<String> = twice.iter().map(|row| row.digest.to_hex()).collect();
    let list = json!({"current_version": 1, "new_block_hashes": twice});
    let first = send(id, "commit", "c", &list).await;
    assert_eq!(
        (first.status.as_u16(), &first.json()["entry"]["version"]),
        (200, &json!(2))
    );
    assert_eq!(send(id, "commit", "c", &list).await.json(), first.json());
    let unkeyed = commit(&world, &world.client, id, &list).await;
    unkeyed.refused(409, "version_conflict");
    send(id, "commit", "d", &list).await.refused(409, "version_conflict");
}

/// What is sent counts against the quota until it is used or its grace is over, and nothing of a refused block stays.
///
/// shows: C-5 scale=1/2
#[tokio::test]
async fn blocks_over_the_quota_are_refused_and_none_is_leaked() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", 3 * MIB as u64).await;
    let key = ada.digest_key().await.unwrap();
    let blocks: Vec<CutContent> = (1..5)
        .map(|seed| CutContent::of(noise(seed, MIB).into(), &key))
        .collect();
    let content = CutContent {
        rows: blocks.iter().flat_map(|part| part.rows.clone()).collect(),
        blocks: blocks.iter().flat_map(|part| part.blocks.clone()).collect(),
    };
    let hashes: Vec<String> = content.rows.iter().map(|row| row.digest.to_hex()).collect();
    let wanted = json!({"path": "/f", "new_block_hashes": hashes});
    let upload = begun(&world, &ada, "new", &wanted).await["upload_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut held = 0;
    for (hash, bytes) in hashes.iter().zip(&content.blocks) {
        let answer = put(&world, &ada, &upload, hash, bytes).await;
        if held + bytes.len() > 3 * MIB {
            answer.refused(507, "quota_exceeded");
        } else {
            assert_eq!(answer.status, 204);
            held += bytes.len();
        }
        assert_eq!(ada.me().await.unwrap().usage.bytes, held as u64);
    }
    let problem = commit(&world, &ada, "new", &json!({"upload_id": upload})).await;
    problem.refused(409, "need_blocks");
    let told = json!({"path": "/g", "splices": [{"blocks": [{"digest": nobody(1), "size": 4 << 20}]}]});
    sync(&world, &ada, "new", &told).await.refused(507, "quota_exceeded");
    assert_eq!(ada.me().await.unwrap().usage.bytes, held as u64);
}
