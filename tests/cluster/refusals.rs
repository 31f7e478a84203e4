//! Requests that no route wants: wrong queries, bodies and heads, connections that dawdle, and commits that come second.
//!
//! Not here: methods and routes against their description (`contract`), names and paths (`names`).

use crate::quota::falls_to;
use crate::served::eventually;
use crate::wire::{Sender, head, read};
use crate::world::{Answer, World, noise, tree_of};
use client_sdk::client::{Client, Target};
use reqwest::Method;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use std::time::{Duration, Instant};

const METADATA: &str = "/api/v1/metadata";

#[tokio::test]
async fn parameters_that_a_call_does_not_know_are_refused_and_nothing_is_done() {
    let world = World::start().await;
    let put = world.put("/f", b"content").await;
    let id = put.entry.id;
    let folder = json!({"type": "folder", "path": "/made"});
    let get = |path: String| (Method::GET, path, None);
    let calls = [
        get("/api/v1/me?x=1".to_owned()),
        get(format!("{METADATA}?path=/&x=1")),
        get(format!("{METADATA}?path=/&path=/f")),
        get(format!("{METADATA}?path=/&id={id}")),
        get(format!("{METADATA}?path=/&limit=1&limit=2")),
        get(format!("{METADATA}?path=/&limit=many")),
        get(format!("/api/v1/files/{id}/content?version=1&x=1")),
        get(format!("/api/v1/files/{id}/content?version=one")),
        get("/api/v1/admin/status?x=1".to_owned()),
        (Method::POST, format!("{METADATA}?x=1"), Some(folder.clone())),
        (
            Method::PATCH,
            format!("{METADATA}/{id}?x=1"),
            Some(json!({"name": "g"})),
        ),
        (Method::DELETE, format!("{METADATA}/{id}?x=1"), None),
        (
            Method::DELETE,
            format!("{METADATA}/{id}?permanent=true&permanent=false"),
            None,
        ),
        (Method::POST, format!("{METADATA}/{id}/restore?x=1"), None),
        (
            Method::POST,
            "/api/v1/files/upload?uploadType=media&path=/x&colour=red".to_owned(),
            None,
        ),
        (
            Method::POST,
            "/api/v1/files/upload?uploadType=media&path=/x&path=/y".to_owned(),
            None,
        ),
        (
            Method::POST,
            "/api/v1/files/upload?uploadType=other&path=/x".to_owned(),
            None,
        ),
        (Method::POST, "/api/v1/files/upload?path=/x".to_owned(), None),
        (Method::POST, "/api/v1/files/upload?uploadType=media".to_owned(), None),
    ];
    for (method, path, body) in calls {
        let answer = world.call(method.clone(), &path, body.as_ref()).await;
        let code = answer.json()["code"].as_str().unwrap().to_owned();
        assert_eq!(
            (answer.status.as_u16(), code.as_str()),
            (400, "bad_query"),
            "{method} {path}"
        );
        answer.refused(400, "bad_query");
    }
    assert_eq!(world.tree().await, ["/f"]);
}

#[tokio::test]
async fn fields_that_a_call_does_not_know_or_lacks_are_refused_and_nothing_is_done() {
    let world = World::start().await;
    let id = world.put("/f", b"content").await.entry.id;
    for (method, path, body) in [
        (
            Method::POST,
            METADATA.to_owned(),
            json!({"type": "folder", "path": "/made", "colour": "red"}),
        ),
        (
            Method::POST,
            METADATA.to_owned(),
            json!({"type": "socket", "path": "/made"}),
        ),
        (Method::POST, METADATA.to_owned(), json!({"path": "/made"})),
        (
            Method::PATCH,
            format!("{METADATA}/{id}"),
            json!({"name": "g", "size": 5}),
        ),
        (Method::PATCH, format!("{METADATA}/{id}"), json!({})),
        (
            Method::POST,
            "/api/v1/me/password".to_owned(),
            json!({"old_password": "x"}),
        ),
    ] {
        world.call(method, &path, Some(&body)).await.refused(400, "bad_json");
    }
    assert_eq!(world.tree().await, ["/f"]);
}

async fn json_body(world: &World, media: Option<&str>, body: Vec<u8>) -> Answer {
    let request = world.client.request(Method::POST, METADATA).body(body);
    world
        .send(match media {
            Some(media) => request.header("content-type", media),
            None => request,
        })
        .await
}

#[tokio::test]
async fn a_json_body_of_another_media_type_or_too_long_or_too_deep_is_refused() {
    let world = World::start().await;
    let folder = br#"{"type":"folder","path":"/made"}"#;
    for media in [
        None,
        Some("text/plain"),
        Some("application/jsonx"),
        Some("application/x-www-form-urlencoded"),
    ] {
        json_body(&world, media, folder.to_vec())
            .await
            .refused(415, "unsupported_media");
    }
    const JSON: Option<&str> = Some("application/json; charset=UTF-8");
    let padded = |length: usize| {
        let mut body = folder.to_vec();
        body.resize(length, b' ');
        body
    };
    json_body(&world, JSON, padded((1 << 20) + 1))
        .await
        .refused(413, "body_too_large");
    let deep = [&b"{\"type\":"[..], &b"[".repeat(500_000)].concat();
    json_body(&world, JSON, deep).await.refused(400, "bad_json");
    assert_eq!(world.tree().await, [""; 0]);
    assert_eq!(json_body(&world, JSON, padded(1 << 20)).await.status, 201);
    assert_eq!(world.tree().await, ["/made"]);
}

/// Sends a head as it is and reads the answer.
async fn ask(world: &World, text: &str) -> Answer {
    let mut sender = Sender::open(world).await;
    sender.send(text.as_bytes()).await;
    sender.finish().await
}

/// shows: C-1 side=ignored
#[tokio::test]
async fn heads_of_every_odd_form_are_answered_or_refused_and_never_upgraded() {
    let world = World::start().await;
    let token = crate::wire::token_of(&world.client);
    let bearer = format!("authorization: Bearer {token}\r\n");
    let me = "/api/v1/me";

    // One host, no more and no less; HTTP/1.0 needs none; a proxy's form of the target is the same target.
    ask(&world, &format!("GET {me} HTTP/1.1\r\n{bearer}\r\n"))
        .await
        .refused(400, "bad_header");
    let two = format!("GET {me} HTTP/1.1\r\nhost: a\r\nhost: b\r\n{bearer}\r\n");
    ask(&world, &two).await.refused(400, "bad_header");
    assert_eq!(
        ask(&world, &format!("GET {me} HTTP/1.0\r\n{bearer}\r\n")).await.status,
        200
    );
    let absolute = format!("GET http://somewhere.example{me} HTTP/1.1\r\nhost: h\r\n{bearer}\r\n");
    assert_eq!(ask(&world, &absolute).await.status, 200);

    // Nothing of these is HTTP, or it is more than a head may be.
    let flood: String = (0..2_000).map(|number| format!("x-{number}: y\r\n")).collect();
    let long = "y".repeat(17 << 10);
    for (text, status) in [
        (format!("GET {me} HTTP/1.1\r\nhost: h\r\n{flood}\r\n"), 431),
        (format!("GET {me} HTTP/1.1\r\nhost: h\r\nx: {long}\r\n\r\n"), 431),
        (format!("GET {me} HTTP/3.7\r\nhost: h\r\n\r\n"), 400),
        (format!("GET  {me} HTTP/1.1\r\nhost: h\r\n\r\n"), 400),
        (format!("GET {me} HTTP/1.1\r\nhost: h\r\nbroken\r\n\r\n"), 400),
        (format!("GET {me} HTTP/1.1\r\nhost: h\r\nx : y\r\n\r\n"), 400),
        ("\u{1}\u{2}\u{3}\r\n\r\n".to_owned(), 400),
    ] {
        let mut sender = Sender::open(&world).await;
        sender.send(text.as_bytes()).await;
        assert_eq!(
            read(&sender.rest().await).status,
            status,
            "{}",
            &text[..text.len().min(80)]
        );
    }

    // An upgrade is not taken: the request is answered as any other.
    for upgrade in [
        "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
    ] {
        for path in [me, "/", "/api/v1/notifications/poll?timeout=1"] {
            let answer = ask(
                &world,
                &format!("GET {path} HTTP/1.1\r\nhost: h\r\n{bearer}{upgrade}\r\n"),
            )
            .await;
            assert_ne!(answer.status, 101, "{path}");
            assert_eq!(answer.header("upgrade"), None, "{path}");
        }
    }
    ask(&world, &format!("CONNECT h:80 HTTP/1.1\r\nhost: h\r\n{bearer}\r\n"))
        .await
        .refused(404, "route_not_found");
}

/// This process's own files and, since the cluster is its child, the cluster's.
pub(crate) fn allow_files(count: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        limit.current = Some(limit.maximum.map_or(count, |most| most.min(count)));
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    assert!(
        getrlimit(Resource::Nofile)
            .current
            .is_none_or(|current| current >= count),
        "too few files are allowed"
    );
}

#[tokio::test]
async fn two_thousand_connections_that_dawdle_hold_no_other_user_up() {
    const DAWDLERS: usize = 2_000;
    allow_files(4_000);
    let world = World::start().await;
    world.client.me().await.unwrap();
    let mut dawdlers = Vec::with_capacity(DAWDLERS);
    for number in 0..DAWDLERS {
        let mut sender = Sender::open(&world).await;
        // Nothing; half a head; a head whose body is missing. Those of the last kind are refused beyond the share of their user.
        match number % 3 {
            0 => {}
            1 => sender.send(b"GET /api/v1/me HTTP/1.1\r\nhost: h\r\nx: ").await,
            _ => {
                let length = "content-type: application/json\r\ncontent-length: 100\r\n";
                sender.send(&head(&world.client, "POST /api/v1/metadata", length)).await;
            }
        }
        dawdlers.push(sender);
    }
    // Whoever has so much under way is told to go slower; nobody else is. Some of them were told so for having waited too long.
    eventually("the share is never full", async || {
        let own = world.call(Method::GET, "/api/v1/me", None).await;
        if own.status == 429 {
            own.refused(429, "rate_exceeded");
            return Ok(());
        }
        let mut sender = Sender::open(&world).await;
        let length = "content-type: application/json\r\ncontent-length: 100\r\n";
        sender.send(&head(&world.client, "POST /api/v1/metadata", length)).await;
        dawdlers.push(sender);
        Err(own.status)
    })
    .await;
    let (other, _) = world.user("other", 1 << 30).await;
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let begun = Instant::now();
        let fresh = Client::new(&world.cluster.facts.url)
            .unwrap()
            .with_token(&crate::wire::token_of(&other));
        let path = format!("/f{number}");
        let put = fresh
            .put(&Target::new_file(&path), noise(number, 10_000).into())
            .await
            .unwrap();
        assert_eq!(put.entry.version, 1);
        slowest = slowest.max(begun.elapsed());
    }
    // Half of what dawdlers are given; whoever waited for one of them would wait for all of it.
    assert!(slowest < Duration::from_secs(30), "an upload took {slowest:?}");
    assert_eq!(tree_of(&other).await.len(), 20);
    assert!(dawdlers.len() >= DAWDLERS);
}

async fn put(client: &Client, path: &str, base_version: u64, content: Vec<u8>) -> Answer {
    let request = client.request(Method::POST, "/api/v1/files/upload").query(&[
        ("uploadType", "media"),
        ("path", path),
        ("base_version", &base_version.to_string()),
    ]);
    crate::world::answer(request.body(content)).await
}

/// shows: US-2.3 side=server scale=100/1000
#[tokio::test]
async fn of_two_writers_on_one_base_version_exactly_one_wins_each_time() {
    let world = World::start().await;
    let first = world.put("/f", &noise(0, 5_000)).await;
    for trial in 1..=100 {
        // Of one length, so that no early look can tell who will lose, and longer than what lies inline.
        let contents = [noise(2 * trial, 5_000), noise(2 * trial + 1, 5_000)];
        let [one, other] = contents.clone().map(|content| put(&world.client, "/f", trial, content));
        let (one, other) = tokio::join!(one, other);
        let (won, lost, content) = match (one.status.as_u16(), other.status.as_u16()) {
            (200, 409) => (one, other, &contents[0]),
            (409, 200) => (other, one, &contents[1]),
            both => panic!("trial {trial} ended in {both:?}"),
        };
        assert_eq!(won.json()["entry"]["version"], trial + 1);
        let problem = lost.refused(409, "version_conflict");
        assert_eq!(problem.fields["current"]["version"], trial + 1);
        assert_eq!(problem.fields["current"]["digest"], won.json()["entry"]["digest"]);
        let back = world.content(&first.entry.id, &[]).await;
        assert!(back.body == *content, "trial {trial} keeps the loser's bytes");
    }
}

/// What a refused commit wrote is in no drive: it waits for collection, and counts for nobody.
///
/// shows: D-2.7 scale=1/2
#[tokio::test]
async fn a_commit_that_comes_second_leaves_nothing_and_tells_what_is_there() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", 1 << 30).await;
    const LENGTH: usize = 14 << 20;
    ada.put(&Target::new_file("/f"), noise(0, LENGTH).into()).await.unwrap();
    let mut expected = LENGTH as u64;
    for round in 0..3 {
        let contents = [noise(10 + round, LENGTH), noise(20 + round, LENGTH)];
        let [one, other] = contents.map(|content| put(&ada, "/f", round + 1, content));
        let (one, other) = tokio::join!(one, other);
        let lost = if one.status == 200 { &other } else { &one };
        assert_eq!(one.status.as_u16() + other.status.as_u16(), 200 + 409);
        let problem = lost.refused(409, "version_conflict");
        assert_eq!(problem.fields["current"]["version"], round + 2);
        expected += LENGTH as u64;
        falls_to(&ada, expected).await;
    }
    // The same content on a stale version is no conflict, also when it is too long for one command.
    let same = put(&ada, "/f", 1, noise(0, LENGTH)).await;
    same.refused(409, "version_conflict");
    let entry = ada.list("/", 10, None).await.unwrap().entries.remove(0);
    let now = ada.get(&entry.id, None).await.unwrap().bytes().await.unwrap();
    let same = put(&ada, "/f", 1, now.to_vec()).await;
    assert_eq!(
        (same.status.as_u16(), same.json()["entry"]["version"].clone()),
        (200, json!(4))
    );

    // A taken name is refused before the body.
    let mut sender = Sender::open(&world).await;
    let length = format!("content-length: {LENGTH}\r\n");
    sender
        .send(&head(
            &ada,
            "POST /api/v1/files/upload?uploadType=media&path=/f",
            &length,
        ))
        .await;
    let problem = sender.answer().await.refused(409, "name_taken");
    assert_eq!(problem.fields["existing"]["id"], entry.id);
    assert_eq!(tree_of(&ada).await, ["/f"]);
    falls_to(&ada, expected).await;
}
