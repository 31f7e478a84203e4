//! Uploads that pause for longer than the grace of blocks that nobody names: what went is asked for again, and no hole is committed.
//!
//! The grace is short here, by an option of `holdfast dev` that only tests know; it passes by the group's own age, so a slow machine
//! waits longer and nothing else.
//! Not here: sessions that are too old (gateway, on an age that the test moves), when a block goes (state machine).

use crate::served::eventually;
use crate::world::{World, answer, noise};
use bytes::Bytes;
use client_sdk::delta::CutContent;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const OPTIONS: [&str; 4] = ["--birth-epoch-ms", "500", "--block-grace-ms", "2000"];

/// Bytes that the drive is charged for.
async fn charged(world: &World) -> u64 {
    world.client.me().await.unwrap().usage.bytes
}

/// Begins an upload in chunks and sends this part of it; where it goes on.
async fn begin_in_chunks(world: &World, name: &str, total: usize, part: &[u8]) -> String {
    let start = "/api/v1/files/upload?uploadType=resumable";
    let wanted = json!({"name": name, "size": total});
    let begun = world.call(Method::POST, start, Some(&wanted)).await.json();
    let path = format!("/upload/{}", begun["upload_id"].as_str().unwrap());
    let range = format!("bytes 0-{}/{total}", part.len() - 1);
    let request = world.client.request(Method::PUT, &path).header("content-range", range);
    let told = answer(request.body(part.to_vec())).await;
    assert_eq!(told.status, StatusCode::PERMANENT_REDIRECT, "{told:?}");
    path
}

fn digests(missing: &Value) -> Vec<String> {
    serde_json::from_value(missing.clone()).unwrap()
}

#[tokio::test]
async fn an_upload_that_paused_beyond_the_grace_is_asked_for_what_went_and_has_no_hole() {
    let world = World::start_with(&OPTIONS).await;
    let in_chunks = noise(1, 9 * MIB);
    let chunks = begin_in_chunks(&world, "chunks", in_chunks.len(), &in_chunks[..6 * MIB]).await;
    let content: Bytes = noise(2, 5 * MIB).into();
    let cut = CutContent::of(content.clone(), &world.client.digest_key().await.unwrap());
    let hashes: Vec<String> = cut.rows.iter().map(|row| row.digest.to_hex()).collect();
    let wanted = json!({"path": "/blocks", "new_block_hashes": hashes});
    let begun = world
        .call(Method::POST, "/api/v1/files/new/sync", Some(&wanted))
        .await
        .json();
    let upload = begun["upload_id"].as_str().unwrap();
    for (row, bytes) in cut.rows.iter().zip(&cut.blocks) {
        let sent = world.client.put_block(upload, &row.digest, bytes.clone()).await;
        sent.unwrap();
    }

    // Blocks that no list and no file names go when their grace is over; what an upload in chunks has stored is named.
    eventually("the grace does not end", async || match charged(&world).await {
        bytes if bytes == 6 * MIB as u64 => Ok(()),
        bytes => Err(format!("{bytes} bytes are charged")),
    })
    .await;
    let commit = async || {
        let wanted = json!({"upload_id": upload});
        world
            .call(Method::POST, "/api/v1/files/new/commit", Some(&wanted))
            .await
    };
    let lacking = commit().await.refused(409, "need_blocks");
    assert_eq!(digests(&lacking.fields["missing_blocks"]), hashes, "all of them went");
    assert_eq!(world.tree().await, Vec::<String>::new());
    let done = eventually("blocks go as fast as they come", async || {
        let told = commit().await;
        if told.status == StatusCode::CREATED {
            return Ok(told.json());
        }
        let missing = digests(&told.refused(409, "need_blocks").fields["missing_blocks"]);
        for (row, bytes) in cut.rows.iter().zip(&cut.blocks) {
            if missing.contains(&row.digest.to_hex()) {
                let sent = world.client.put_block(upload, &row.digest, bytes.clone()).await;
                sent.unwrap();
            }
        }
        Err(format!("{} blocks were missing", missing.len()))
    })
    .await;
    let id = done["entry"]["id"].as_str().unwrap();
    assert!(world.content(id, &[]).await.body == content);

    let range = format!("bytes {}-{}/{}", 6 * MIB, in_chunks.len() - 1, in_chunks.len());
    let request = world
        .client
        .request(Method::PUT, &chunks)
        .header("content-range", range);
    let done = answer(request.body(in_chunks[6 * MIB..].to_vec())).await;
    assert_eq!(done.status, StatusCode::CREATED, "{done:?}");
    let id = done.json()["entry"]["id"].as_str().unwrap().to_owned();
    assert!(world.content(&id, &[]).await.body == in_chunks);
}
