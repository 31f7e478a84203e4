//! Uploads that break off, come malformed, or are longer than they said: each is refused by type and leaves nothing behind.
//!
//! Not here: senders that fall silent, and requests that are dropped inside (gateway/src/tests, on a clock that can be moved).

use crate::wire::{Sender, chunk, head};
use crate::world::{World, noise, tree_of};
use client_sdk::client::{Client, Target};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
const LENGTH: usize = 24 * MIB;
const LINE: &str = "POST /api/v1/files/upload?uploadType=media&path=/cut";
const MULTIPART: &str = "POST /api/v1/files/upload?uploadType=multipart";
const QUOTA: u64 = 1 << 30;

/// Waits until the drive holds as much as before: a session is ended behind a connection that went away.
async fn settles(client: &Client, bytes: u64, what: &str) {
    let begun = Instant::now();
    loop {
        let held = client.me().await.unwrap().usage.bytes;
        if held == bytes {
            return;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{what}: {held} bytes stay charged"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_upload_that_is_cut_anywhere_leaves_nothing_and_works_right_after() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", QUOTA).await;
    let content = noise(1, LENGTH);
    let declared = format!("content-length: {LENGTH}\r\n");
    // Before the first byte, in the first block, behind it, in the second stripe, in a session, and all but the last byte.
    let offsets = [0, 1_000, 4 * MIB + 17, 9 * MIB, 18 * MIB, LENGTH - 1];
    for sent in offsets {
        let mut half_closed = Sender::open(&world).await;
        half_closed.send(&head(&ada, LINE, &declared)).await;
        half_closed.send(&content[..sent]).await;
        half_closed.cut().await.refused(400, "body_cut");
        settles(&ada, 0, &format!("half-closed after {sent}")).await;

        let mut reset = Sender::open(&world).await;
        reset.send(&head(&ada, LINE, &declared)).await;
        reset.send(&content[..sent]).await;
        reset.reset();
        settles(&ada, 0, &format!("reset after {sent}")).await;
        assert_eq!(
            tree_of(&ada).await,
            [""; 0],
            "an upload cut after {sent} bytes left an entry"
        );
    }
    let put = ada
        .put(&Target::new_file("/cut"), content.clone().into())
        .await
        .unwrap();
    assert_eq!(put.entry.version, 1);
    let back = ada.get(&put.entry.id, None).await.unwrap().bytes().await.unwrap();
    assert!(back == content, "the content came back altered");
    settles(&ada, LENGTH as u64, "the whole file").await;
}

/// A cut new version of a file leaves the version before it.
#[tokio::test]
async fn a_cut_version_leaves_the_one_before_as_it_was() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", QUOTA).await;
    let first = ada.put(&Target::new_file("/cut"), noise(2, MIB).into()).await.unwrap();
    let line = format!("{LINE}&base_version=1");
    for sent in [500, 18 * MIB] {
        let mut sender = Sender::open(&world).await;
        sender
            .send(&head(&ada, &line, &format!("content-length: {LENGTH}\r\n")))
            .await;
        sender.send(&noise(3, LENGTH)[..sent]).await;
        sender.cut().await.refused(400, "body_cut");
        settles(&ada, MIB as u64, &format!("a version cut after {sent}")).await;
        let now = ada.list("/", 10, None).await.unwrap().entries.remove(0);
        assert_eq!((now.version, now.revision), (first.entry.version, first.entry.revision));
        let back = ada.get(&now.id, None).await.unwrap().bytes().await.unwrap();
        assert!(back == noise(2, MIB));
    }
}

#[tokio::test]
async fn chunks_that_are_cut_or_malformed_are_refused() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", QUOTA).await;
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    let good = chunk(&noise(4, 10_000));
    let bodies: [Vec<u8>; 8] = [
        Vec::new(),
        good.clone(),
        good[..5_000].to_vec(),
        b"27".to_vec(),
        [&good[..], b"zz\r\n"].concat(),
        [&good[..], b"-1\r\nx\r\n0\r\n\r\n"].concat(),
        [&good[..], b"ffffffffffffffffff\r\nx"].concat(),
        [&good[..good.len() - 2], b"xx0\r\n\r\n"].concat(),
    ];
    for body in bodies {
        let mut sender = Sender::open(&world).await;
        sender.send(&head(&ada, LINE, CHUNKED)).await;
        sender.send(&body).await;
        sender.cut().await.refused(400, "body_cut");
    }
    assert_eq!(
        (tree_of(&ada).await, ada.me().await.unwrap().usage.bytes),
        (Vec::new(), 0)
    );
    let mut sender = Sender::open(&world).await;
    sender.send(&head(&ada, LINE, CHUNKED)).await;
    sender.send(&[good, chunk(b"")].concat()).await;
    assert_eq!(sender.finish().await.status, 201);
    settles(&ada, 10_000, "the whole file").await;
}

/// What follows the declared length is another request, and lengths that two readers could take differently are none.
#[tokio::test]
async fn a_body_is_as_long_as_its_one_declared_length() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", QUOTA).await;
    let mut sender = Sender::open(&world).await;
    sender.send(&head(&ada, LINE, "content-length: 5\r\n")).await;
    sender.send(b"helloDELETE everything").await;
    let put = sender.answer().await;
    assert_eq!(put.status, 201);
    let id = put.json()["entry"]["id"].as_str().unwrap().to_owned();
    assert_eq!(ada.get(&id, None).await.unwrap().bytes().await.unwrap(), &b"hello"[..]);
    let before = (tree_of(&ada).await, ada.me().await.unwrap().usage.bytes);
    let line = LINE.replace("/cut", "/other");
    for lengths in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: -5\r\n",
        "content-length: five\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, identity\r\n",
    ] {
        let mut sender = Sender::open(&world).await;
        sender.send(&head(&ada, &line, lengths)).await;
        sender.send(b"hello").await;
        let answer = sender.finish().await;
        assert_eq!(answer.status, 400, "{lengths}: {answer:?}");
        assert_eq!(
            (tree_of(&ada).await, ada.me().await.unwrap().usage.bytes),
            before,
            "{lengths}"
        );
    }
}

/// A multipart body of a JSON part with this text and a content part.
fn parts(json: &str) -> String {
    format!(
        "--b\r\nContent-Type: application/json\r\n\r\n{json}\r\n--b\r\nContent-Type: text/plain\r\n\r\ncontent\r\n--b--\r\n"
    )
}

#[tokio::test]
async fn a_multipart_body_that_is_wrong_in_any_way_is_refused_by_type() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", QUOTA).await;
    const RELATED: &str = "multipart/related; boundary=b";
    let good = parts(r#"{"path":"/multi"}"#);
    let split = good.find("--b\r\nContent-Type: text").unwrap();
    let (json_part, rest) = good.split_at(split);
    let (content_part, end) = rest.split_at(rest.len() - "--b--\r\n".len());
    let long = " ".repeat((1 << 20) + 1);
    let wrong: [(&str, String, u16, &str); 16] = [
        ("multipart/related", good.clone(), 415, "unsupported_media"),
        (
            "multipart/form-data; boundary=b",
            good.clone(),
            415,
            "unsupported_media",
        ),
        ("application/json", good.clone(), 415, "unsupported_media"),
        ("multipart/related; boundary=c", good.clone(), 400, "body_cut"),
        (RELATED, format!("{content_part}{json_part}{end}"), 400, "bad_multipart"),
        (RELATED, format!("{content_part}{end}"), 400, "bad_multipart"),
        (RELATED, format!("{json_part}{end}"), 400, "bad_multipart"),
        (
            RELATED,
            format!("{json_part}{content_part}{content_part}{end}"),
            400,
            "bad_multipart",
        ),
        (RELATED, format!("{json_part}{content_part}"), 400, "body_cut"),
        (RELATED, String::new(), 400, "body_cut"),
        (RELATED, parts("no json"), 400, "bad_json"),
        (RELATED, parts(r#"{"path":"/multi","colour":"red"}"#), 400, "bad_json"),
        (RELATED, parts(r#"{"path":"/multi","path":"/other"}"#), 400, "bad_json"),
        (RELATED, parts("{}"), 400, "bad_json"),
        (RELATED, parts(&long), 413, "body_too_large"),
        (
            RELATED,
            parts(r#"{"path":"/no/such/folder/f"}"#),
            404,
            "parent_not_found",
        ),
    ];
    let send = async |media: &str, body: &str| {
        let mut sender = Sender::open(&world).await;
        let headers = format!("content-type: {media}\r\ncontent-length: {}\r\n", body.len());
        sender.send(&head(&ada, MULTIPART, &headers)).await;
        sender.send(body.as_bytes()).await;
        sender.finish().await
    };
    for (media, body, status, code) in wrong {
        let answer = send(media, &body).await;
        let shown = &body[..body.len().min(200)];
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{media} {shown:?}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        answer.refused(status, code);
        assert_eq!(tree_of(&ada).await, [""; 0], "{media} {shown:?}");
    }
    assert_eq!(ada.me().await.unwrap().usage.bytes, 0);
    assert_eq!(send(RELATED, &good).await.status, 201);
    assert_eq!(tree_of(&ada).await, ["/multi"]);
}
