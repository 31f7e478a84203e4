//! How resumable uploads end: what their commit looks at once more, two that end one at once, and what was said at the start.
//!
//! Not here: sessions in the group (`metadata-raft`), their age (`gateway`), cuts and deaths (`resumable`, `long_upload`).

use crate::accounts::patch_user;
use crate::child_processes::url;
use crate::quota::falls_to;
use crate::world::{Answer, World, answer, noise, tree_of};
use api::upload::Uploaded;
use client_sdk::client::{Client, Target};
use client_sdk::delta::CutContent;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const START: &str = "/api/v1/files/upload?uploadType=resumable";
/// Bytes that are staged before the quota is lowered.
const STAGED: usize = 3 * MIB;
/// Bytes of the file that is in the way then.
const OLD: usize = 2 * MIB;

/// An account whose quota is lowered in the middle of an upload.
struct Account<'a> {
    world: &'a World,
    client: Client,
    id: String,
    old: String,
}

impl<'a> Account<'a> {
    async fn make(world: &'a World, name: &str) -> Self {
        let (client, id) = world.user(name, 10 * MIB as u64).await;
        let old = client.put(&Target::new_file("/old"), noise(1, OLD).into()).await;
        let old = old.unwrap().entry.id;
        Self { world, client, id, old }
    }

    async fn held(&self) -> usize {
        usize::try_from(self.client.me().await.unwrap().usage.bytes).unwrap()
    }

    async fn set_quota(&self, bytes: usize) {
        let changed = patch_user(self.world, &self.id, json!({"quota_bytes": bytes})).await;
        assert_eq!(changed.status, 200, "{changed:?}");
    }

    /// Leaves the quota too small for the file and what is staged together.
    async fn lower(&self) {
        assert_eq!(self.held().await, OLD + STAGED, "what is staged counts");
        self.set_quota(OLD + STAGED - 1).await;
    }

    /// Removes the file for good. What was staged is all there.
    async fn make_room(&self) {
        assert_eq!(tree_of(&self.client).await, ["/old"]);
        let path = format!("/api/v1/metadata/{}?permanent=true", self.old);
        let gone = self.world.call_as(&self.client, Method::DELETE, &path, None).await;
        assert_eq!(gone.status, 204, "{gone:?}");
        falls_to(&self.client, STAGED as u64).await;
    }

    /// The upload is the file `/new`, and nothing else is there.
    async fn has(&self, content: &[u8]) {
        let listed = self.client.list("/", 10, None).await.unwrap().entries;
        let [new] = &listed[..] else {
            panic!("{listed:?}");
        };
        assert_eq!((new.path.as_str(), new.version), ("/new", 1));
        let back = self.client.get(&new.id, None).await.unwrap().bytes().await.unwrap();
        assert!(back == content, "the content came back altered");
        assert_eq!(self.held().await, STAGED);
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.world.call_as(&self.client, Method::POST, path, Some(body)).await
    }

    async fn put(&self, path: &str, range: &str, body: &[u8]) -> Answer {
        let request = self.client.request(Method::PUT, path).header("content-range", range);
        self.world.send(request.body(body.to_vec())).await
    }
}

/// Begins an upload; the path of its address.
async fn begin(account: &Account<'_>, body: &Value) -> String {
    let begun = account.post(START, body).await;
    assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
    format!("/upload/{}", begun.json()["upload_id"].as_str().unwrap())
}

/// shows: C-5 scale=1/2
#[tokio::test]
async fn a_quota_that_was_lowered_is_noticed_by_the_last_chunk_and_the_upload_goes_on_when_there_is_room() {
    let world = World::start().await;
    let ada = Account::make(&world, "ada").await;
    let content = noise(2, STAGED);
    let path = begin(&ada, &json!({"name": "new"})).await;
    let range = format!("bytes 0-{}/*", STAGED - 1);
    let stored = ada.put(&path, &range, &content).await;
    assert_eq!(stored.status, StatusCode::PERMANENT_REDIRECT, "{stored:?}");
    ada.lower().await;
    let whole = format!("bytes */{STAGED}");
    for _ in 0..2 {
        let problem = ada.put(&path, &whole, b"").await.refused(507, "quota_exceeded");
        assert_eq!(problem.fields["wanted_bytes"], STAGED.to_string());
        let progress = world.call_as(&ada.client, Method::GET, &path, None).await;
        assert_eq!(progress.json()["size"], STAGED, "{progress:?}");
    }
    ada.make_room().await;
    let done = ada.put(&path, &whole, b"").await;
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    ada.has(&content).await;
}

/// A client of tus takes an upload for done that stands at its length.
///
/// shows: C-5 scale=1/2
#[tokio::test]
async fn a_quota_that_was_lowered_keeps_an_upload_of_tus_from_its_length_until_there_is_room() {
    let world = World::start().await;
    let ada = Account::make(&world, "ada").await;
    let content = noise(2, STAGED);
    let spoken = |method, path: &str| ada.client.request(method, path).header("tus-resumable", "1.0.0");
    let create = spoken(Method::POST, "/api/v1/tus").header("upload-defer-length", "1");
    // `/new` in Base64.
    let created = answer(create.header("upload-metadata", "path L25ldw==")).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let path = created.header("location").unwrap();
    let path = path.strip_prefix(&world.cluster.facts.url).unwrap();
    let patch = |offset: usize, body: Vec<u8>| {
        let request = spoken(Method::PATCH, path).header("upload-offset", offset.to_string());
        request
            .header("content-type", "application/offset+octet-stream")
            .body(body)
    };
    let head = async || answer(spoken(Method::HEAD, path)).await;
    let taken = answer(patch(0, content.clone())).await;
    assert_eq!(taken.status, StatusCode::NO_CONTENT, "{taken:?}");
    ada.lower().await;
    let last = patch(STAGED, Vec::new()).header("upload-length", STAGED.to_string());
    answer(last).await.refused(507, "quota_exceeded");
    answer(patch(STAGED, Vec::new())).await.refused(507, "quota_exceeded");
    let refused = head().await;
    assert_eq!(refused.status, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(refused.header("upload-offset"), None);
    ada.make_room().await;
    let told = head().await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    assert_eq!(told.header("upload-offset"), Some(STAGED.to_string().as_str()));
    ada.has(&content).await;
}

/// shows: C-5 scale=1/2
#[tokio::test]
async fn a_quota_that_was_lowered_is_noticed_by_a_deltas_commit_which_succeeds_when_there_is_room() {
    let world = World::start().await;
    let ada = Account::make(&world, "ada").await;
    let content = noise(2, STAGED);
    let cut = CutContent::of(content.clone().into(), &ada.client.digest_key().await.unwrap());
    let hashes: Vec<String> = cut.rows.iter().map(|row| row.digest.to_hex()).collect();
    let wanted = json!({"path": "/new", "new_block_hashes": hashes});
    let begun = ada.post("/api/v1/files/new/sync", &wanted).await.json();
    let upload = begun["upload_id"].as_str().unwrap();
    for (hash, block) in hashes.iter().zip(&cut.blocks) {
        let path = format!("/api/v1/blocks/{hash}?upload_id={upload}");
        let sent = world
            .send(ada.client.request(Method::PUT, &path).body(block.to_vec()))
            .await;
        assert_eq!(sent.status, StatusCode::NO_CONTENT, "{sent:?}");
    }
    ada.lower().await;
    let commit = async || {
        ada.post("/api/v1/files/new/commit", &json!({"upload_id": upload}))
            .await
    };
    for _ in 0..2 {
        commit().await.refused(507, "quota_exceeded");
    }
    ada.make_room().await;
    let done = commit().await;
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    ada.has(&content).await;
}

/// Nobody said how long it would be, so nothing could be refused at its start.
///
/// shows: C-5 scale=1/2
#[tokio::test]
async fn an_upload_of_unknown_length_that_passes_the_quota_keeps_what_fits_and_goes_on_when_there_is_room() {
    let world = World::start().await;
    let ada = Account::make(&world, "ada").await;
    let content = noise(2, STAGED);
    ada.set_quota(OLD + 2 * MIB).await;
    let path = begin(&ada, &json!({"name": "new"})).await;
    let first = ada.put(&path, &format!("bytes 0-{}/*", MIB - 1), &content[..MIB]).await;
    assert_eq!(first.header("range"), Some(format!("bytes=0-{}", MIB - 1).as_str()));
    let size = async || {
        let told = ada.put(&path, "bytes */*", b"").await;
        assert_eq!(told.status, StatusCode::PERMANENT_REDIRECT, "{told:?}");
        usize::try_from(told.json()["size"].as_u64().unwrap()).unwrap()
    };
    let mut at = MIB;
    for _ in 0..2 {
        let range = format!("bytes {at}-{}/*", STAGED - 1);
        let refused = ada.put(&path, &range, &content[at..]).await;
        refused.refused(507, "quota_exceeded");
        let kept = size().await;
        assert!((at..=2 * MIB).contains(&kept), "{kept} of {at} are kept");
        at = kept;
        assert_eq!(ada.held().await, OLD + at, "what was refused counts");
    }
    assert_eq!(tree_of(&ada.client).await, ["/old"]);
    ada.set_quota(OLD + STAGED).await;
    let range = format!("bytes {at}-{}/{STAGED}", STAGED - 1);
    let done = ada.put(&path, &range, &content[at..]).await;
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    let old = format!("/api/v1/metadata/{}?permanent=true", ada.old);
    let gone = world.call_as(&ada.client, Method::DELETE, &old, None).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    falls_to(&ada.client, STAGED as u64).await;
    ada.has(&content).await;
}

/// Two requests bring the last chunk to two gateways at once: one version, whoever was first, and nobody is told that the upload is
/// gone.
#[tokio::test]
async fn an_upload_that_two_gateways_finish_at_once_is_one_version_and_both_are_told_of_it() {
    let world = World::start_with(&["--gateways", "2", "--groups", "1"]).await;
    let gateways = [1, 2].map(|number| Client::new(&url(&world, number)).unwrap());
    // With the length from the start and without; a last chunk of one block, and of several in several commands.
    for (round, (length, is_known)) in [(MIB, true), (MIB, false), (6 * MIB, true), (6 * MIB, false)]
        .into_iter()
        .enumerate()
    {
        let (name, half) = (format!("f{round}"), length / 2);
        let content = noise(10 + round as u64, length);
        let mut wanted = json!({"name": name});
        if is_known {
            wanted["size"] = json!(length);
        }
        let begun = world.call(Method::POST, START, Some(&wanted)).await;
        let path = format!("/upload/{}", begun.json()["upload_id"].as_str().unwrap());
        let put = async |gateway: usize, range: String, body: &[u8]| {
            let request = gateways[gateway].request(Method::PUT, &path);
            answer(request.header("content-range", range).body(body.to_vec())).await
        };
        let begin = put(0, format!("bytes 0-{}/*", half - 1), &content[..half]).await;
        assert_eq!(begin.status, StatusCode::PERMANENT_REDIRECT, "{begin:?}");
        let last = format!("bytes {half}-{}/{length}", length - 1);
        let (one, two) = tokio::join!(
            put(0, last.clone(), &content[half..]),
            put(1, last.clone(), &content[half..])
        );
        let mut told: Vec<Uploaded> = Vec::new();
        for (gateway, ended) in [one, two].into_iter().enumerate() {
            // Whoever was overtaken is told how far the other one came, and asks again.
            let ended = match ended.status {
                StatusCode::PERMANENT_REDIRECT => {
                    let size = usize::try_from(ended.json()["size"].as_u64().unwrap()).unwrap();
                    assert!((half..=length).contains(&size), "{ended:?}");
                    let range = match size == length {
                        true => format!("bytes */{length}"),
                        false => format!("bytes {size}-{}/{length}", length - 1),
                    };
                    put(gateway, range, &content[size..]).await
                }
                _ => ended,
            };
            assert_eq!(ended.status, StatusCode::CREATED, "{ended:?}");
            told.push(serde_json::from_value(ended.json()).unwrap());
        }
        assert_eq!(told[0], told[1]);
        let entry = &told[0].entry;
        assert_eq!((entry.name.as_str(), entry.version), (name.as_str(), 1));
        assert!(world.content(&entry.id, &[]).await.body == content);
        let versions = format!("/api/v1/files/{}/versions", entry.id);
        let versions = world.call(Method::GET, &versions, None).await.json();
        assert_eq!(versions["versions"].as_array().unwrap().len(), 1);
        // No tail of either is left.
        assert_eq!(world.client.me().await.unwrap().usage.bytes, length as u64);
        let path = format!("/api/v1/metadata/{}?permanent=true", entry.id);
        assert_eq!(world.call(Method::DELETE, &path, None).await.status, 204);
        falls_to(&world.client, 0).await;
    }
}

/// As clients of Google's drive say in headers what the content will be.
///
/// shows: I-07
#[tokio::test]
async fn the_length_and_the_type_that_a_start_says_in_headers_are_the_uploads() {
    let world = World::start().await;
    let start = world.client.request(Method::POST, START);
    let start = start
        .header("x-upload-content-type", "image/png")
        .header("x-upload-content-length", "10");
    let begun = world.send(start.json(&json!({"name": "typed"}))).await;
    assert_eq!(begun.status, StatusCode::OK, "{begun:?}");
    let path = format!("/upload/{}", begun.json()["upload_id"].as_str().unwrap());
    assert_eq!(world.call(Method::GET, &path, None).await.json()["total"], 10);
    let put = async |range: &str, body: &'static [u8]| {
        let request = world.client.request(Method::PUT, &path);
        world.send(request.header("content-range", range).body(body)).await
    };
    put("bytes 0-4/11", b"01234").await.refused(400, "bad_content_range");
    put("bytes 0-10/*", b"0123456789x")
        .await
        .refused(400, "bad_content_range");
    let half = put("bytes 0-4/*", b"01234").await;
    assert_eq!(half.status, StatusCode::PERMANENT_REDIRECT, "{half:?}");
    // The length is known, so the last byte ends it whatever the range says.
    let done = put("bytes 5-9/*", b"56789").await;
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    let done: Uploaded = serde_json::from_value(done.json()).unwrap();
    assert_eq!(done.entry.content_type.as_deref(), Some("image/png"));
    let content = world.content(&done.entry.id, &[]).await;
    assert_eq!(
        (content.header("content-type"), &content.body[..]),
        (Some("image/png"), &b"0123456789"[..])
    );
}
