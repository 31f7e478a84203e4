//! `Idempotency-Key`: a repeat gets the first answer, another request under the same key is refused, and so is one from another time.
//!
//! Not here: a gateway's own retries (metadata-raft and gateway test them), repeats a day later (gateway/src/tests moves the age).

use crate::entries::{entry, multipart};
use crate::world::{Answer, PASSWORD, World, noise};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use client_sdk::request_id::RequestId;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const KEY: &str = "idempotency-key";

fn create(client: &Client, key: &str, wanted: &Value) -> RequestBuilder {
    client
        .request(Method::POST, "/api/v1/metadata")
        .header(KEY, key)
        .json(wanted)
}

fn media(client: &Client, key: &str, query: &[(&str, &str)], bytes: Vec<u8>) -> RequestBuilder {
    let request = client.request(Method::POST, "/api/v1/files/upload").header(KEY, key);
    request.query(&[("uploadType", "media")]).query(query).body(bytes)
}

fn same(first: &Answer, second: &Answer) {
    assert!(first.status.is_success(), "{first:?}");
    assert_eq!((first.status, first.json()), (second.status, second.json()));
}

/// shows: H-API-2
#[tokio::test]
async fn a_repeated_creation_gets_the_first_answer_and_makes_nothing_twice() {
    let mut world = World::start().await;
    for (key, kind) in [("k-folder", "folder"), ("k-file", "file")] {
        let wanted = json!({"type": kind, "path": format!("/{kind}/x"), "parents": true});
        let first = world.send(create(&world.client, key, &wanted)).await;
        assert_eq!(first.status, 201);
        same(&first, &world.send(create(&world.client, key, &wanted)).await);
        let other = json!({"type": kind, "path": format!("/{kind}/y"), "parents": true});
        world
            .send(create(&world.client, key, &other))
            .await
            .refused(422, "request_id_reused");
        let unkeyed = world.call(Method::POST, "/api/v1/metadata", Some(&wanted)).await;
        unkeyed.refused(409, "name_taken");
    }
    // The key of another sort of request is the same key.
    let query = [("path", "/up")];
    world
        .send(media(&world.client, "k-file", &query, noise(1, 10)))
        .await
        .refused(422, "request_id_reused");

    // Many at once are one.
    let wanted = json!({"type": "folder", "path": "/once"});
    let all = (0..8).map(|_| world.send(create(&world.client, "k-once", &wanted)));
    let answers = futures_util::future::join_all(all).await;
    answers.iter().for_each(|answer| same(&answers[0], answer));

    // What was refused was not done, so the key is still free.
    let wanted = json!({"type": "folder", "path": "/late/x"});
    world
        .send(create(&world.client, "k-late", &wanted))
        .await
        .refused(404, "parent_not_found");
    let parent = json!({"type": "folder", "path": "/late"});
    assert_eq!(
        world.call(Method::POST, "/api/v1/metadata", Some(&parent)).await.status,
        201
    );
    let made = world.send(create(&world.client, "k-late", &wanted)).await;
    assert_eq!(made.status, 201);

    // The same key of somebody else is another, and what one may no longer do is not repeated either.
    let (other, _) = world.user("other", 1 << 20).await;
    let theirs = world
        .send(create(&other, "k-late", &json!({"type": "folder", "path": "/late"})))
        .await;
    assert_eq!(theirs.status, 201);
    assert_ne!(entry(&theirs).drive, entry(&made).drive);

    for bad in ["", &"k".repeat(256), "k\u{e9}"] {
        let request = world.client.request(Method::POST, "/api/v1/metadata").json(&wanted);
        let request = request.header(KEY, reqwest::header::HeaderValue::from_bytes(bad.as_bytes()).unwrap());
        world.send(request).await.refused(400, "bad_idempotency_key");
    }
    let tree = world.tree().await;
    world.kill_and_restart().await;
    same(&made, &world.send(create(&world.client, "k-late", &wanted)).await);
    assert_eq!(world.tree().await, tree);
}

#[tokio::test]
async fn a_repeated_upload_is_known_by_its_target_and_its_bytes() {
    let world = World::start().await;
    for (number, length) in [0, 100, 300_000].into_iter().enumerate() {
        let (key, path) = (format!("m{number}"), format!("/media/{number}"));
        let query = [("path", path.as_str()), ("parents", "true")];
        let send = |query: &[(&str, &str)], bytes| world.send(media(&world.client, &key, query, bytes));
        let first = send(&query, noise(1, length)).await;
        assert_eq!(first.status, 201);
        same(&first, &send(&query, noise(1, length)).await);
        if length > 0 {
            send(&query, noise(2, length)).await.refused(422, "request_id_reused");
        }
        let elsewhere = [("path", "/media/x"), ("parents", "true")];
        send(&elsewhere, noise(1, length))
            .await
            .refused(422, "request_id_reused");
        // The first answer stays the first, also when more has happened since.
        let next = [("path", path.as_str()), ("base_version", "1")];
        let request = world.client.request(Method::POST, "/api/v1/files/upload");
        let request = request.query(&[("uploadType", "media")]).query(&next).body("next");
        assert_eq!(world.send(request).await.status, 200);
        same(&first, &send(&query, noise(1, length)).await);

        let key = format!("p{number}");
        let text = "t".repeat(length);
        let named = |name: &str| json!({"path": format!("/parts/{name}{number}"), "parents": true});
        let send = |boundary: &str, named: Value, text: &str| {
            world.send(multipart(&world.client, &named, text, boundary).header(KEY, key.as_str()))
        };
        let first = send("cut", named("a"), &text).await;
        assert_eq!(first.status, 201);
        same(&first, &send("another", named("a"), &text).await);
        send("cut", named("b"), &text).await.refused(422, "request_id_reused");
        send("cut", named("a"), &format!("{text}!"))
            .await
            .refused(422, "request_id_reused");
    }
    assert_eq!(world.tree().await.len(), 8, "three files in each of two folders");
}

/// The library tells of each id when it was made, and nothing is done under one from an hour that has not come yet.
#[tokio::test]
async fn an_id_of_the_library_tells_the_hour_that_the_cluster_told() {
    let world = World::start().await;
    let client = &world.client;
    let told = |answer: &Answer| answer.header("holdfast-age-hour").and_then(|text| text.parse().ok());
    let me = world.call(Method::GET, "/api/v1/me", None).await;
    let hour: u32 = told(&me).unwrap();
    let (folder, file) = (
        client.request_id("folder").await.unwrap(),
        client.request_id("file").await.unwrap(),
    );
    // The hour may end while the test runs.
    assert!((hour..=hour + 1).contains(&folder.made_hour), "{folder:?} after {hour}");
    let (target, bytes) = (Target::new_file("/a/f"), bytes::Bytes::from(noise(1, 100_000)));
    let made = client.make_folder_under(&folder, "/a").await.unwrap();
    let put = client.put_under(&file, &target, bytes.clone()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.make_folder_under(&folder, "/a").await.unwrap(), made);
        assert_eq!(
            client.put_under(&file, &target, bytes.clone()).await.unwrap().entry,
            put.entry
        );
    }
    let ahead = RequestId {
        key: "ahead".to_owned(),
        made_hour: folder.made_hour + 2,
    };
    for refused in [
        client.make_folder_under(&ahead, "/b").await.map(drop),
        client
            .put_under(&ahead, &Target::new_file("/b/f"), bytes)
            .await
            .map(drop),
    ] {
        assert!(
            matches!(&refused, Err(ClientError::Refused { status: 504, code, .. }) if code == "outcome_unknown"),
            "{refused:?}"
        );
    }
    let wanted = json!({"type": "folder", "path": "/b"});
    let wrong = create(client, "wrong", &wanted).header("holdfast-age-hour", "soon");
    world.send(wrong).await.refused(400, "bad_header");
    assert_eq!(world.tree().await.len(), 2);

    // An account lies in a slot of its own, in which another hour may be.
    let account = json!({"username": "made", "password": PASSWORD, "quota_bytes": 1 << 20});
    let admin = world.cluster.admin().unwrap();
    let request = admin.request(Method::POST, "/api/v1/users").json(&account);
    let made = world.send(ahead.on(request)).await;
    assert_eq!(made.status, 201, "{made:?}");
}
