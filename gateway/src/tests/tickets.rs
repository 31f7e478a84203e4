//! Blocks that are sent singly, over the wire: for what and how long a ticket holds, and that nothing but the promised block is kept.
//!
//! Not here: whole files by delta, other processes (tests/cluster), the ticket's text (`drive::ticket`).

use super::wire::{Line, Reply, exchange};
use super::world::{Wishes, World};
use codec::digest::block_digest;
use codec::keys::DigestKey;
use model::digest::Digest;
use serde_json::{Value, json};
use std::time::Duration;

const JSON: &str = "Content-Type: application/json\r\n";

async fn digest(world: &World, block: &[u8]) -> String {
    let key = world
        .core()
        .digest_key_hex(&world.caller, world.caller.home)
        .await
        .unwrap();
    let key = DigestKey::new(Digest::from_hex(&key).unwrap().0);
    block_digest(&key, block).to_hex()
}

async fn post(world: &World, path: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let headers = format!("{JSON}Content-Length: {}\r\n", body.len());
    world.request(&format!("POST {path}"), &headers, body.as_bytes()).await
}

fn json_of(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_slice(&reply.body).unwrap()
}

/// An upload of these blocks to `/f`.
async fn begun(world: &World, blocks: &[&[u8]]) -> String {
    let mut hashes = Vec::new();
    for block in blocks {
        hashes.push(digest(world, block).await);
    }
    let wanted = json!({"path": "/f", "new_block_hashes": hashes});
    let answer = json_of(&post(world, "/api/v1/files/new/sync", &wanted).await);
    assert_eq!(answer["missing_blocks"], json!(hashes));
    answer["upload_id"].as_str().unwrap().to_owned()
}

async fn ticket(world: &World, upload: &str, block: &[u8]) -> String {
    let wanted = json!({"upload_id": upload, "digest": digest(world, block).await, "size": block.len()});
    let answer = json_of(&post(world, "/api/v1/blocks/upload-url", &wanted).await);
    answer["url"].as_str().unwrap().to_owned()
}

/// Without any token.
async fn put_at(world: &World, url: &str, block: &[u8]) -> Reply {
    let length = block.len();
    let head = format!("PUT {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    exchange(world.address(), &[head.as_bytes(), block].concat()).await
}

async fn put(world: &World, upload: &str, digest: &str, block: &[u8]) -> Reply {
    let line = format!("PUT /api/v1/blocks/{digest}?upload_id={upload}");
    let length = format!("Content-Length: {}\r\n", block.len());
    world.request(&line, &length, block).await
}

async fn commit(world: &World, upload: &str) -> Reply {
    post(world, "/api/v1/files/new/commit", &json!({"upload_id": upload})).await
}

fn stripes(world: &World) -> u64 {
    let written = world.core().seams.metrics.counter(&crate::metrics::STRIPES_WRITTEN);
    written.with_label_values(&["false"]).get() + written.with_label_values(&["true"]).get()
}

/// shows: H-API-4, H-P5
#[tokio::test]
async fn a_ticket_stands_for_a_token_for_fifteen_minutes() {
    let world = World::start().await;
    let (one, two) = (vec![1; 300_000], vec![2; 70_000]);
    let upload = begun(&world, &[&one, &two]).await;
    let (first, second) = (ticket(&world, &upload, &one).await, ticket(&world, &upload, &two).await);
    world.clock.advance(Duration::from_millis(15 * 60 * 1000 - 1));
    assert_eq!(put_at(&world, &first, &one).await.status, 204);
    assert_eq!(
        put_at(&world, &first, &one).await.status,
        204,
        "and as often as it is sent"
    );
    world.clock.advance(Duration::from_millis(1));
    put_at(&world, &second, &two).await.refused(403, "ticket_expired");
    put_at(&world, &first, &one).await.refused(403, "ticket_expired");
    let lacking = commit(&world, &upload).await.refused(409, "need_blocks");
    assert_eq!(lacking.fields["missing_blocks"], json!([digest(&world, &two).await]));
    assert_eq!(lacking.fields["upload_id"], json!(upload));
    let again = ticket(&world, &upload, &two).await;
    assert_eq!(put_at(&world, &again, &two).await.status, 204);
    assert_eq!(commit(&world, &upload).await.status, 201);
    put_at(&world, &again, &two).await.refused(404, "session_not_found");
    assert_eq!(world.usage().await.charged_bytes, 370_000);
}

/// shows: H-API-4
#[tokio::test]
async fn a_ticket_that_was_altered_in_any_field_is_refused_and_nothing_is_kept() {
    let world = World::start().await;
    let (one, two) = (vec![1; 300_000], vec![2; 300_000]);
    let upload = begun(&world, &[&one, &two]).await;
    let other = begun(&world, &[&two]).await;
    let url = ticket(&world, &upload, &one).await;
    let (path, text) = url.split_once("?ticket=").unwrap();
    let fields: Vec<&str> = text.split('.').collect();
    let [id, size, expires, mac] = fields[..] else {
        panic!("{text}")
    };
    let longer = (expires.parse::<u64>().unwrap() + 60_000).to_string();
    let wrong_mac = mac.replace('0', "1");
    let altered = [
        format!("{other}.{size}.{expires}.{mac}"),
        format!("{id}.300001.{expires}.{mac}"),
        format!("{id}.{size}.{longer}.{mac}"),
        format!("{id}.{size}.{expires}.{}", &mac[1..]),
        format!("{id}.{size}.{expires}.x{wrong_mac}"),
        format!("{id}.{size}.{expires}"),
        String::new(),
        "x".repeat(5000),
    ];
    for altered in altered {
        let body = vec![1; if altered.contains("300001") { 300_001 } else { 300_000 }];
        let refused = put_at(&world, &format!("{path}?ticket={altered}"), &body).await;
        refused.refused(403, "ticket_invalid");
    }
    let elsewhere = format!("/api/v1/blocks/{}?ticket={text}", digest(&world, &two).await);
    put_at(&world, &elsewhere, &two).await.refused(403, "ticket_invalid");
    // Other bytes, a byte more, a byte less, none.
    put_at(&world, &url, &two).await.refused(422, "digest_mismatch");
    for length in [300_001, 299_999, 0] {
        put_at(&world, &url, &vec![1; length])
            .await
            .refused(422, "size_mismatch");
    }
    put_at(&world, path, &one).await.refused(401, "unauthenticated");
    let both = format!("{url}&upload_id={upload}");
    put_at(&world, &both, &one).await.refused(400, "bad_query");
    assert_eq!((stripes(&world), world.usage().await.charged_bytes), (0, 0));
    assert_eq!(put_at(&world, &url, &one).await.status, 204);
}

#[tokio::test]
async fn a_block_is_stored_once_and_its_bytes_are_looked_at_all_the_same() {
    let world = World::start().await;
    let (block, other) = (vec![1; 300_000], vec![2; 300_000]);
    let upload = begun(&world, &[&block]).await;
    let named = digest(&world, &block).await;
    put(&world, &upload, &named, &other)
        .await
        .refused(422, "digest_mismatch");
    assert_eq!(stripes(&world), 0);
    assert_eq!(put(&world, &upload, &named, &block).await.status, 204);
    let commands = world.commands().len();
    assert_eq!(put(&world, &upload, &named, &block).await.status, 204);
    assert_eq!((stripes(&world), world.commands().len()), (1, commands));
    // Who names a digest that the drive has must have the bytes too.
    put(&world, &upload, &named, &other)
        .await
        .refused(422, "digest_mismatch");
    put(&world, &upload, &named, b"").await.refused(422, "size_mismatch");
    put(&world, &upload, &named, b"x").await.refused(422, "size_mismatch");
    assert_eq!((stripes(&world), world.commands().len()), (1, commands));
}

#[tokio::test]
async fn a_block_over_the_quota_or_over_four_mebibytes_is_refused_before_its_body() {
    let quota_bytes = 500_000;
    let world = World::start_with(Wishes {
        quota_bytes,
        ..Wishes::default()
    })
    .await;
    let (one, two) = (vec![1; 300_000], vec![2; 300_000]);
    let upload = begun(&world, &[&one, &two]).await;
    assert_eq!(
        put(&world, &upload, &digest(&world, &one).await, &one).await.status,
        204
    );
    let named = digest(&world, &two).await;
    for (length, status, code) in [
        (300_000, 507, "quota_exceeded"),
        ((4 << 20) + 1, 413, "block_too_large"),
    ] {
        let line = format!("PUT /api/v1/blocks/{named}?upload_id={upload}");
        let mut sender = Line::open(world.address()).await;
        let head = world.with_token(&line, &format!("Content-Length: {length}\r\n"), b"");
        sender.send(&head).await;
        Reply::read(&sender.some().await).refused(status, code);
    }
    let wanted = json!({"upload_id": upload, "digest": named, "size": 300_000});
    let refused = post(&world, "/api/v1/blocks/upload-url", &wanted).await;
    refused.refused(507, "quota_exceeded");
    let wanted = json!({"upload_id": upload, "digest": named, "size": (4 << 20) + 1});
    let refused = post(&world, "/api/v1/blocks/upload-url", &wanted).await;
    refused.refused(413, "block_too_large");
    // A body of unknown length shows it late.
    let line = format!("PUT /api/v1/blocks/{named}?upload_id={upload}");
    let chunked = [b"493e0\r\n".as_slice(), &two, b"\r\n0\r\n\r\n"].concat();
    let late = world.request(&line, "Transfer-Encoding: chunked\r\n", &chunked).await;
    late.refused(507, "quota_exceeded");
    assert_eq!(world.usage().await.charged_bytes, 300_000);
    // What is told with its length is refused as a whole, before anything of it is sent.
    let block = json!({"digest": named, "size": 500_001});
    let wanted = json!({"path": "/g", "splices": [{"blocks": [block]}]});
    let refused = post(&world, "/api/v1/files/new/sync", &wanted).await;
    refused.refused(507, "quota_exceeded");
}
