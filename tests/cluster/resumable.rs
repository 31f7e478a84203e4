//! Resumable uploads over HTTP: chunks in every order and length, connections that break, gateways that die.
//!
//! Each resumed content is compared with its digest as uploaded at once: cutter, pages and tail went on where they stopped.
//! Not here: sessions in the group (`metadata-raft`), turns of one gateway (`gateway`).

use crate::entries::make_folder;
use crate::separate_processes::{Cluster, accounts};
use crate::served::{Plan, eventually};
use crate::wire::{Sender, taken_at};
use crate::world::{Answer, World, answer, noise};
use api::upload::{ResumableStarted, UploadProgress, Uploaded};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::oneshot;

const MIB: usize = 1 << 20;
const START: &str = "/api/v1/files/upload?uploadType=resumable";

/// Begins an upload; answers the path of its address.
async fn start(world: &World, body: &Value) -> String {
    let answer = world.call(Method::POST, START, Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let started: ResumableStarted = serde_json::from_value(answer.json()).unwrap();
    assert_eq!(answer.header("location"), Some(started.upload_url.as_str()));
    assert!(answer.header("x-upload-expires").is_some());
    let path = started.upload_url.strip_prefix(&world.cluster.facts.url).unwrap();
    assert_eq!(path, format!("/upload/{}", started.upload_id));
    path.to_owned()
}

/// A request to an upload's address, without a token.
fn to(client: &Client, method: Method, path: &str, range: Option<&str>, body: &[u8]) -> reqwest::RequestBuilder {
    let request = client.request(method, path).body(body.to_vec());
    match range {
        Some(range) => request.header("content-range", range),
        None => request,
    }
}

struct Sent<'a> {
    world: &'a World,
    anonymous: Client,
    path: String,
}

impl<'a> Sent<'a> {
    async fn start(world: &'a World, body: &Value) -> Self {
        Self {
            world,
            anonymous: Client::new(&world.cluster.facts.url).unwrap(),
            path: start(world, body).await,
        }
    }

    async fn put(&self, range: &str, body: &[u8]) -> Answer {
        self.world
            .send(to(&self.anonymous, Method::PUT, &self.path, Some(range), body))
            .await
    }

    async fn ask(&self) -> Answer {
        self.put("bytes */*", b"").await
    }

    async fn call(&self, method: Method) -> Answer {
        self.world
            .send(to(&self.anonymous, method, &self.path, None, b""))
            .await
    }
}

/// The answer says that so much is stored, in each of its forms.
#[track_caller]
fn stored(answer: &Answer, bytes: usize) {
    assert_eq!(answer.status, StatusCode::PERMANENT_REDIRECT, "{answer:?}");
    let range = bytes.checked_sub(1).map(|last| format!("bytes=0-{last}"));
    assert_eq!(answer.header("range"), range.as_deref());
    let progress: UploadProgress = serde_json::from_value(answer.json()).unwrap();
    assert_eq!(progress.size, bytes as u64);
    let expires = progress.expires.map(|end| end.to_string());
    assert!(expires.is_some(), "{answer:?}");
    assert_eq!(answer.header("x-upload-expires"), expires.as_deref());
}

fn uploaded(answer: &Answer) -> Uploaded {
    serde_json::from_value(answer.json()).unwrap()
}

/// The digest that this content has when it comes at once.
async fn digest_of(world: &World, content: &[u8]) -> String {
    let path = format!("/at once/{}", world.tree().await.len());
    world.put(&path, content).await.entry.digest.unwrap()
}

/// shows: I-08, I-09, D-3.5
#[tokio::test]
async fn a_content_in_chunks_of_any_length_is_the_content() {
    let world = World::start().await;
    let content = noise(1, 21 * MIB + 12_345);
    let total = content.len();
    let lengths = [262_144, 1, 5 * MIB, 262_144 * 3, 7 * MIB + 11, 4096, 100];
    for known in [true, false] {
        let name = format!("chunks {known}");
        let mut body = json!({"name": name, "mimeType": "video/mp4"});
        if known {
            body["size"] = json!(total);
        }
        let sent = Sent::start(&world, &body).await;
        stored(&sent.ask().await, 0);
        let mut at = 0;
        for length in lengths.iter().cycle() {
            let end = (at + length).min(total);
            let whole = if known || end == total {
                total.to_string()
            } else {
                "*".to_owned()
            };
            let range = format!("bytes {at}-{}/{whole}", end - 1);
            let answer = sent.put(&range, &content[at..end]).await;
            at = end;
            if at == total {
                assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
                break;
            }
            stored(&answer, at);
            let progress = sent.call(Method::GET).await;
            assert_eq!(progress.json()["saved_range"], format!("0-{}", at - 1));
        }
        // The lost answer is given again, by every question; a chunk that comes again changes nothing.
        let first = uploaded(&sent.ask().await);
        let again = sent.put(&format!("bytes 0-9/{total}"), &content[..10]).await;
        assert_eq!(uploaded(&again), first);
        assert_eq!(sent.call(Method::GET).await.json()["size"], total);
        assert_eq!(first.entry.name, name);
        assert_eq!(first.entry.content_type.as_deref(), Some("video/mp4"));
        assert!(!first.receipt.degraded);
        let digest = digest_of(&world, &content).await;
        assert_eq!(first.entry.digest.as_deref(), Some(digest.as_str()));
        assert!(world.content(&first.entry.id, &[]).await.body == content);
    }
    let held = world.client.me().await.unwrap().usage.bytes;
    assert_eq!(held, total as u64, "four files of one content, and no tail is left");
}

/// The two ways to begin, what is refused at once, and what a client may say in either.
///
/// shows: I-07
#[tokio::test]
async fn an_upload_begins_in_both_forms_and_what_can_never_go_in_is_refused_at_once() {
    let world = World::start().await;
    let alias = "/files/upload?resumable=true";
    for (at, body) in [
        (
            alias,
            json!({"name": "a", "size": 5, "kind": "drive#file", "parents": true}),
        ),
        ("/files/upload?resumable=true&path=/b/b&parents=true", json!({})),
        (START, json!({"path": "/c", "content_type": "text/plain"})),
    ] {
        let answer = world.call(Method::POST, at, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let path = format!("/upload/{}", answer.json()["upload_id"].as_str().unwrap());
        let done = world.send(to(&world.client, Method::PUT, &path, None, b"bytes")).await;
        assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    }
    assert_eq!(world.tree().await, ["/a", "/b", "/b/b", "/c"]);
    let post = async |path: &str, body: Value| world.call(Method::POST, path, Some(&body)).await;
    post("/files/upload?resumable=false", json!({"name": "x"}))
        .await
        .refused(400, "bad_query");
    post(START, json!({})).await.refused(400, "bad_json");
    post(START, json!({"path": "no"})).await.refused(400, "bad_name");
    post(START, json!({"path": "/no/such/folder"}))
        .await
        .refused(404, "parent_not_found");
    post(START, json!({"path": "/a"})).await.refused(409, "name_taken");
    post(START, json!({"path": "/a", "base_version": 7, "size": 6}))
        .await
        .refused(409, "version_conflict");
    for start in [START, alias] {
        post(start, json!({"name": "huge", "size": (10_u64 << 30) + 1}))
            .await
            .refused(413, "file_too_large");
    }
    let (small, _) = world.user("small", 1000).await;
    let body = json!({"name": "x", "size": 1001});
    world
        .call_as(&small, Method::POST, START, Some(&body))
        .await
        .refused(507, "quota_exceeded");
}

/// shows: I-08
#[tokio::test]
async fn chunks_out_of_place_are_told_where_the_upload_stands() {
    let world = World::start().await;
    let content = noise(2, 3 * MIB);
    let sent = Sent::start(&world, &json!({"name": "f"})).await;
    stored(&sent.put("bytes 100-199/*", &content[100..200]).await, 0);
    stored(&sent.put("bytes 0-999999/*", &content[..1_000_000]).await, 1_000_000);
    // Wholly known, overlapping, beyond.
    stored(&sent.put("bytes 0-999/*", &content[..1000]).await, 1_000_000);
    stored(
        &sent.put("bytes 500000-1499999/*", &content[500_000..1_500_000]).await,
        1_500_000,
    );
    stored(&sent.put("bytes 1500001-1500001/*", &content[..1]).await, 1_500_000);
    // By POST, and for those who take every 308 for a redirection, who also ask where it stands.
    let chunk = to(
        &sent.anonymous,
        Method::POST,
        &sent.path,
        Some("bytes 1500000-1599999/*"),
        &content[1_500_000..1_600_000],
    );
    let status = to(&sent.anonymous, Method::PUT, &sent.path, Some("bytes */*"), b"");
    for request in [chunk, status] {
        let answer = world.send(request.header("x-guploader-no-308", "yes")).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.header("x-http-status-code-override"), Some("308"));
        assert_eq!(answer.header("range"), Some("bytes=0-1599999"));
        assert!(answer.header("x-upload-expires").is_some());
    }
    for (range, body) in [
        ("bytes 1600000-1600009/1600005", &content[..10]),
        ("bytes 1600000-1600009/*", &content[..9]),
        ("bytes 0-9/100", &content[..10]),
        ("bytes */100", &content[..0]),
        ("bytes */*", &content[..9]),
        ("1-2", &content[..2]),
    ] {
        sent.put(range, body).await.refused(400, "bad_content_range");
    }
    for range in ["bytes 10737418240-10737418240/*", "bytes 1600000-1600000/10737418241"] {
        sent.put(range, &content[..1]).await.refused(413, "file_too_large");
    }
    let total = content.len();
    let rest = sent
        .put(&format!("bytes 1600000-{}/{total}", total - 1), &content[1_600_000..])
        .await;
    assert_eq!(rest.status, StatusCode::CREATED, "{rest:?}");
    assert!(world.content(&uploaded(&rest).entry.id, &[]).await.body == content);
}

#[tokio::test]
async fn lengths_of_every_edge_commit_and_lies_about_them_do_not() {
    let world = World::start().await;
    for (at, length) in [0, 1, 4096, 262_144, 4 * MIB].into_iter().enumerate() {
        let content = noise(30 + at as u64, length);
        // In one request without a range.
        let sent = Sent::start(&world, &json!({"path": format!("/one/{length}"), "parents": true})).await;
        let answer = world
            .send(to(&sent.anonymous, Method::PUT, &sent.path, None, &content))
            .await;
        assert_eq!(answer.status, StatusCode::CREATED, "{length}: {answer:?}");
        assert!(world.content(&uploaded(&answer).entry.id, &[]).await.body == content);
        // Its end is told later than its last byte.
        let sent = Sent::start(&world, &json!({"path": format!("/two/{length}"), "parents": true})).await;
        if length > 0 {
            stored(&sent.put(&format!("bytes 0-{}/*", length - 1), &content).await, length);
        }
        let answer = sent.put(&format!("bytes */{length}"), b"").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{length}: {answer:?}");
        assert!(world.content(&uploaded(&answer).entry.id, &[]).await.body == content);
    }
    let sent = Sent::start(&world, &json!({"name": "declared", "size": 1000})).await;
    sent.put("bytes 0-99/999", &noise(1, 100))
        .await
        .refused(400, "bad_content_range");
    sent.put("bytes 0-1999/*", &noise(1, 2000))
        .await
        .refused(400, "bad_content_range");
    // A total that is told with a chunk stands from then on.
    let content = noise(2, 300);
    let sent = Sent::start(&world, &json!({"name": "told later"})).await;
    stored(&sent.put("bytes 0-99/300", &content[..100]).await, 100);
    assert_eq!(sent.call(Method::GET).await.json()["total"], 300);
    sent.put("bytes 100-199/200", &content[100..200])
        .await
        .refused(400, "bad_content_range");
    let answer = sent.put("bytes 100-299/*", &content[100..]).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert!(world.content(&uploaded(&answer).entry.id, &[]).await.body == content);
    let named = world
        .client
        .request(Method::POST, START)
        .header("x-upload-content-length", "5");
    let named = named.json(&json!({"name": "two lengths", "size": 6}));
    world.send(named).await.refused(400, "bad_header");
    let huge = json!({"name": "huge", "size": (10_u64 << 30) + 1});
    world
        .call(Method::POST, START, Some(&huge))
        .await
        .refused(413, "file_too_large");
}

#[tokio::test]
async fn an_uploads_address_is_its_secret_and_its_end() {
    let world = World::start().await;
    let sent = Sent::start(&world, &json!({"name": "f"})).await;
    let chunk = noise(3, 300_000);
    stored(&sent.put("bytes 0-299999/*", &chunk).await, 300_000);
    let mut altered = sent.path.clone();
    let last = altered.pop().unwrap();
    altered.push(if last == '0' { '1' } else { '0' });
    for path in [altered.as_str(), "/upload/x", "/upload/a.b.c"] {
        for method in [Method::PUT, Method::POST, Method::GET, Method::DELETE] {
            let request = to(&sent.anonymous, method, path, None, b"");
            world.send(request).await.refused(404, "upload_url_invalid");
        }
    }
    // A token is not needed; another user's is one too many.
    let (other, id) = world.user("other", 1 << 30).await;
    world
        .send(to(&other, Method::GET, &sent.path, None, b""))
        .await
        .refused(404, "upload_url_invalid");
    stored(
        &world
            .send(to(&world.client, Method::PUT, &sent.path, Some("bytes */*"), b""))
            .await,
        300_000,
    );
    assert_eq!(world.client.me().await.unwrap().usage.bytes, 300_000);
    assert_eq!(sent.call(Method::DELETE).await.status, StatusCode::NO_CONTENT);
    assert_eq!(sent.call(Method::DELETE).await.status, StatusCode::NO_CONTENT);
    sent.ask().await.refused(404, "session_not_found");
    sent.put("bytes 300000-300000/*", b"x")
        .await
        .refused(404, "session_not_found");
    assert_eq!(world.client.me().await.unwrap().usage.bytes, 0);
    assert!(world.tree().await.is_empty());
    // Of an account that was disabled, no address works.
    let begun = world
        .call_as(&other, Method::POST, START, Some(&json!({"name": "g"})))
        .await;
    let path = format!("/upload/{}", begun.json()["upload_id"].as_str().unwrap());
    let disabled = json!({"disabled": true});
    let admin = world.cluster.admin().unwrap();
    let changed = world
        .call_as(&admin, Method::PATCH, &format!("/api/v1/users/{id}"), Some(&disabled))
        .await;
    assert_eq!(changed.status, StatusCode::OK);
    world
        .send(to(&sent.anonymous, Method::PUT, &path, Some("bytes 0-0/*"), b"x"))
        .await
        .refused(403, "user_disabled");
}

#[tokio::test]
async fn the_first_version_wins_and_the_second_gets_a_conflict() {
    let world = World::start().await;
    let before = world.put("/f", b"one").await.entry;
    let taken = json!({"name": "f"});
    world
        .call(Method::POST, START, Some(&taken))
        .await
        .refused(409, "name_taken");
    let wanted = json!({"name": "f", "base_version": 1});
    let (one, two) = (Sent::start(&world, &wanted).await, Sent::start(&world, &wanted).await);
    let (mine, theirs) = (noise(5, 3 * MIB), noise(6, 3 * MIB));
    stored(&one.put("bytes 0-1048575/*", &mine[..MIB]).await, MIB);
    stored(&two.put("bytes 0-1048575/*", &theirs[..MIB]).await, MIB);
    let range = format!("bytes {MIB}-{}/{}", 3 * MIB - 1, 3 * MIB);
    let won = one.put(&range, &mine[MIB..]).await;
    assert_eq!(
        won.status,
        StatusCode::OK,
        "a new version of a file that was there: {won:?}"
    );
    assert_eq!(uploaded(&won).entry.version, 2);
    let lost = two.put(&range, &theirs[MIB..]).await;
    let problem = lost.refused(409, "version_conflict");
    assert_eq!(problem.fields["current"]["version"], 2);
    // What can never succeed holds nothing.
    two.ask().await.refused(404, "session_not_found");
    assert_eq!(world.client.me().await.unwrap().usage.bytes, 3 + 3 * MIB as u64);
    assert!(world.content(&before.id, &[]).await.body == mine);
}

/// shows: US-1.2 scale=20/10240
#[tokio::test]
async fn nothing_that_came_in_is_sent_again_after_a_connection_broke() {
    let world = World::start().await;
    let content = noise(7, 20 * MIB);
    let total = content.len();
    let sent = Sent::start(&world, &json!({"name": "f", "size": total})).await;
    let (_, port) = world.cluster.facts.url.rsplit_once(':').unwrap();
    let port = port.parse().unwrap();
    let (mut at, mut left_open) = (0, Vec::new());
    for (number, more) in [1000, 3 * MIB + 1, 6 * MIB, 1, 2 * MIB, 3 * MIB, 7, MIB]
        .into_iter()
        .enumerate()
    {
        let mut sender = Sender::open(&world).await;
        let (path, last) = (&sent.path, total - 1);
        let head = format!(
            "PUT {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\ncontent-range: bytes {at}-{last}/{total}\r\n\r\n",
            total - at
        );
        sender.send(&[head.as_bytes(), &content[at..at + more]].concat()).await;
        // The gateway has all of it, in whatever hands.
        taken_at(port).await;
        match number % 3 {
            0 => drop(sender.cut_silently().await),
            // Long ones: of a few bytes nobody could tell whether the request has begun.
            1 => sender.reset(),
            _ => left_open.push(sender),
        }
        at += more;
        stored(&sent.ask().await, at);
    }
    let rest = sent
        .put(&format!("bytes {at}-{}/{total}", total - 1), &content[at..])
        .await;
    assert_eq!(rest.status, StatusCode::CREATED, "{rest:?}");
    let file = uploaded(&rest).entry;
    assert!(world.content(&file.id, &[]).await.body == content);
    assert_eq!(file.digest, Some(digest_of(&world, &content).await));
}

/// A client that comes again while its first connection still seems to live takes the upload over.
#[tokio::test]
async fn the_newest_request_goes_on_and_the_one_before_stops() {
    let world = World::start().await;
    let content = noise(8, 6 * MIB);
    let total = content.len();
    let sent = Sent::start(&world, &json!({"name": "f", "size": total})).await;
    let mut silent = Sender::open(&world).await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: h\r\ncontent-length: {total}\r\ncontent-range: bytes 0-{}/{total}\r\n\r\n",
        sent.path,
        total - 1
    );
    silent.send(&[head.as_bytes(), &content[..2 * MIB]].concat()).await;
    eventually("the first request stores nothing", async || {
        // It is saved after a second without more, which no other request has asked for.
        let progress = sent.call(Method::GET).await.json()["size"].clone();
        if progress == 2 * MIB { Ok(()) } else { Err(progress) }
    })
    .await;
    stored(&sent.ask().await, 2 * MIB);
    stored(&silent.answer().await, 2 * MIB);
    let rest = sent
        .put(&format!("bytes {}-{}/{total}", 2 * MIB, total - 1), &content[2 * MIB..])
        .await;
    assert_eq!(rest.status, StatusCode::CREATED, "{rest:?}");
    assert!(world.content(&uploaded(&rest).entry.id, &[]).await.body == content);
}

/// shows: I-09, CMP-block side=another scale=1/2, US-1.2 scale=64/10240
#[tokio::test]
async fn after_a_gateways_death_at_most_sixteen_mib_are_sent_again() {
    let mut cluster = Cluster::of(Plan::make());
    cluster.start_all();
    cluster.ready().await;
    let (_, user) = accounts(&cluster.plan).await;
    let content = noise(9, 64 * MIB);
    let total = content.len();
    let begun = user
        .json(Method::POST, START, Some(&json!({"name": "f", "size": total})))
        .await
        .unwrap();
    let path = format!("/upload/{}", begun["upload_id"].as_str().unwrap());
    let anonymous = cluster.plan.client();
    let mut at = 0;
    for sent in [20 * MIB, 25 * MIB] {
        let parts = content[at..at + sent].chunks(64 << 10);
        let parts: Vec<_> = parts
            .map(|part| Ok::<_, Infallible>(Bytes::copy_from_slice(part)))
            .collect();
        // What would follow is asked for when everything before it has been sent.
        let (behind, all_sent) = oneshot::channel();
        let end = stream::once(async move {
            behind.send(()).unwrap();
            std::future::pending::<Result<Bytes, Infallible>>().await
        });
        let body = stream::iter(parts).chain(end);
        let request = anonymous
            .request(Method::PUT, &path)
            .header("content-range", format!("bytes {at}-{}/{total}", total - 1))
            .body(Body::wrap_stream(body));
        let sending = request.send();
        tokio::pin!(sending);
        let enough = (at + sent - 16 * MIB) as u64;
        let taken = async {
            all_sent.await.unwrap();
            taken_at(cluster.plan.https.port()).await;
        };
        // It dies when it has taken the last byte, however much is durable by then.
        tokio::select! {
            answer = &mut sending => panic!("the body has no end, and yet: {answer:?}"),
            () = taken => {}
        }
        cluster.kill("gateway-1");
        cluster.start("gateway-1");
        cluster.ready().await;
        let progress = user.json(Method::GET, &path, None).await.unwrap();
        let size = progress["size"].as_u64().unwrap() as usize;
        assert!(
            size as u64 >= enough && size <= at + sent,
            "{size} of {} are durable",
            at + sent
        );
        at = size;
    }
    let range = format!("bytes {at}-{}/{total}", total - 1);
    let rest = answer(to(&anonymous, Method::PUT, &path, Some(&range), &content[at..])).await;
    assert_eq!(rest.status, StatusCode::CREATED, "{rest:?}");
    let file = uploaded(&rest).entry;
    let back = user.get(&file.id, None).await.unwrap().bytes().await.unwrap();
    assert!(back == content);
    let whole = user.put(&Target::new_file("/whole"), content.into()).await.unwrap();
    assert_eq!(whole.entry.digest, file.digest);
}

/// As clients of Google's drive replace a file and name a folder: `PATCH` or `PUT` to the file, `parents` a list.
///
/// shows: I-07
#[tokio::test]
async fn an_upload_replaces_a_file_by_its_id_and_goes_into_the_folder_that_parents_names() {
    let world = World::start().await;
    let folder = make_folder(&world, "/theirs").await.id;
    let sent = Sent::start(&world, &json!({"name": "f", "parents": [folder], "size": 10})).await;
    let first = uploaded(&sent.put("bytes 0-9/10", b"0123456789").await).entry;
    assert_eq!((first.parent.as_deref(), first.version), (Some(folder.as_str()), 1));
    let two = json!({"name": "g", "parents": [folder, folder]});
    let refused = world.call(Method::POST, START, Some(&two)).await;
    refused.refused(400, "bad_json");
    let mut version = first.version;
    for method in [Method::PATCH, Method::PUT] {
        let begin = format!("/api/v1/files/{}?uploadType=resumable", first.id);
        let started = world.call(method, &begin, Some(&json!({"size": 3}))).await;
        assert_eq!(started.status, StatusCode::OK, "{started:?}");
        let started: ResumableStarted = serde_json::from_value(started.json()).unwrap();
        let path = started
            .upload_url
            .strip_prefix(&world.cluster.facts.url)
            .unwrap()
            .to_owned();
        let sent = Sent {
            world: &world,
            anonymous: Client::new(&world.cluster.facts.url).unwrap(),
            path,
        };
        let progress: UploadProgress = serde_json::from_value(sent.call(Method::GET).await.json()).unwrap();
        assert_eq!(progress.expires.map(|at| at >= started.expires), Some(true));
        let content = [b'a' + u8::try_from(version).unwrap(); 3];
        let entry = uploaded(&sent.put("bytes 0-2/3", &content).await).entry;
        version += 1;
        assert_eq!((entry.id.as_str(), entry.version), (first.id.as_str(), version));
        let bytes = world.client.get(&first.id, None).await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, content.as_slice());
    }
    // Based on what is not there any more: the first version wins.
    let stale = format!("/api/v1/files/{}?uploadType=resumable&base_version=1", first.id);
    let answer = world.call(Method::PATCH, &stale, Some(&json!({"size": 1}))).await;
    answer.refused(409, "version_conflict");
    let media = format!("/api/v1/files/{}?uploadType=media", first.id);
    let answer = world.call(Method::PATCH, &media, None).await;
    answer.refused(400, "bad_query");
}
