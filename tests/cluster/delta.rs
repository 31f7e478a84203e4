//! Delta sync as a client does it: only what changed travels, what was committed reads back byte for byte, and the first writer wins.
//!
//! Not here: what is refused (`delta_refusals`), tickets by a clock that moves (gateway), separate processes (`child_processes`).

use crate::world::{World, noise};
use api::sync::{Block, BlocksQuery, Splice, SyncRequest};
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::delta::{CutContent, DeltaTarget, wire_splice};
use client_sdk::error::ClientError;
use codec::delta::splices;
use codec::keys::DigestKey;
use futures_util::future::join_all;
use model::entry::BlockRow;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Instant;

const MIB: usize = 1 << 20;

async fn download(client: &Client, id: &str, version: u64) -> Bytes {
    let path = format!("/api/v1/files/{id}/content?version={version}");
    let answer = client.request(Method::GET, &path).send().await.unwrap();
    answer.error_for_status().unwrap().bytes().await.unwrap()
}

fn known(id: &str, base_version: u64) -> DeltaTarget {
    DeltaTarget::Known {
        id: id.to_owned(),
        base_version,
    }
}

fn cut(content: &[u8], key: &DigestKey) -> CutContent {
    CutContent::of(Bytes::copy_from_slice(content), key)
}

fn row(block: &Block) -> BlockRow {
    BlockRow {
        digest: model::digest::Digest::from_hex(&block.digest).unwrap(),
        size: block.size,
    }
}

/// A version's whole list, in parts of `limit`.
async fn list(client: &Client, id: &str, limit: u32) -> Vec<BlockRow> {
    let mut query = BlocksQuery {
        limit: Some(limit),
        ..BlocksQuery::default()
    };
    let mut rows = Vec::new();
    loop {
        let part = client.blocks(id, &query).await.unwrap();
        let blocks = part.blocks.unwrap();
        assert!(blocks.len() <= limit as usize && part.splices.is_none());
        rows.extend(blocks.iter().map(row));
        query.page_token = part.next_page_token;
        if query.page_token.is_none() {
            return rows;
        }
    }
}

/// What each edit makes of a content; a name for what failed.
fn edits(content: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut changed = content.to_vec();
    changed[content.len() / 2] ^= 1;
    let mut shorter = content.to_vec();
    drop(shorter.drain(20 * MIB..20 * MIB + 1));
    vec![
        ("a changed byte", changed),
        ("a byte inserted in front", [b"x", content].concat()),
        ("a byte inserted inside", {
            let (before, behind) = content.split_at(30 * MIB + 5);
            [before, b"y", behind].concat()
        }),
        ("a deleted byte", shorter),
        ("a shorter file", content[..40 * MIB + 17].to_vec()),
        ("a longer file", [content, b"more".as_slice()].concat()),
    ]
}

/// shows: I-05 side=contract, US-2.2 scale=64/1024, D-2.1
#[tokio::test]
async fn of_a_changed_file_at_most_three_blocks_travel_each_way() {
    let world = World::start().await;
    let (client, key) = (&world.client, world.client.digest_key().await.unwrap());
    let content = noise(1, 64 * MIB);
    let put = client
        .put(&Target::new_file("/f"), content.clone().into())
        .await
        .unwrap();
    let id = put.entry.id.as_str();
    let first = cut(&content, &key);
    assert_eq!(
        list(client, id, 1000).await,
        first.rows,
        "both sides cut and name alike"
    );
    assert_eq!(list(client, id, 10).await, first.rows);

    for (at, (what, edited)) in edits(&content).into_iter().enumerate() {
        let (version, before) = (2 * at as u64 + 1, first.clone());
        let now = cut(&edited, &key);
        // Told by splices and by all digests in turn.
        let old = (at % 2 == 0).then_some(before.rows.as_slice());
        if let Some(old) = old {
            let told: Vec<_> = splices(old, &now.rows).iter().map(wire_splice).collect();
            let bytes = serde_json::to_vec(&json!({"splices": told})).unwrap().len();
            assert!(bytes < 2048, "{what}: {bytes} bytes tell it");
        }
        let sent = client.put_delta(&known(id, version), &now, old).await.unwrap();
        assert!(
            (1..=3).contains(&sent.blocks),
            "{what}: {} blocks were sent",
            sent.blocks
        );
        assert_eq!(sent.uploaded.entry.version, version + 1, "{what}");
        assert_eq!(sent.uploaded.entry.size, edited.len() as u64, "{what}");
        assert!(
            download(client, id, version + 1).await == edited,
            "{what} came back altered"
        );
        assert_eq!(list(client, id, 1000).await, now.rows, "{what}");
        // The other way, from the content before.
        let (newest, fetched, bytes) = client.get_delta(id, (version, &before), &key).await.unwrap();
        assert!(newest == version + 1 && fetched == edited, "{what} was fetched altered");
        assert!(bytes <= 12 * MIB as u64, "{what}: {bytes} bytes were fetched");
        // And back: nothing is sent at all.
        let back = client
            .put_delta(&known(id, version + 1), &before, Some(&now.rows))
            .await
            .unwrap();
        assert_eq!((back.blocks, back.uploaded.entry.version), (0, version + 2), "{what}");
        assert_eq!(back.uploaded.entry.digest, put.entry.digest, "{what}");
    }
    assert!(download(client, id, 13).await == content);
    let held = client.me().await.unwrap().usage.bytes;
    assert!(
        held < 64 * MIB as u64 + 6 * 12 * MIB as u64,
        "versions share what did not change: {held}"
    );
}

#[tokio::test]
async fn a_list_is_told_in_parts_against_that_of_an_older_version() {
    let world = World::start().await;
    let (client, key) = (&world.client, world.client.digest_key().await.unwrap());
    let mut content = noise(1, 12 * MIB);
    let put = world.put("/f", &content).await;
    let (id, old) = (put.entry.id.as_str(), cut(&content, &key).rows);
    content[6 * MIB] ^= 1;
    let new = cut(&content, &key);
    client.put_delta(&known(id, 1), &new, Some(&old)).await.unwrap();
    for limit in [1, 3, 1000] {
        let mut query = BlocksQuery {
            since: Some(1),
            limit: Some(limit),
            ..BlocksQuery::default()
        };
        let (mut rows, mut kept) = (Vec::new(), 0);
        loop {
            let part = client.blocks(id, &query).await.unwrap();
            assert_eq!((part.version, part.since, part.blocks), (2, Some(1), None));
            let before = rows.len();
            for splice in part.splices.unwrap() {
                match splice {
                    Splice::Keep([first, count]) => {
                        rows.extend_from_slice(&old[first as usize..][..count as usize]);
                        kept += count as usize;
                    }
                    Splice::Blocks(blocks) => rows.extend(blocks.iter().map(row)),
                }
            }
            assert!(rows.len() - before <= limit as usize, "{limit}");
            query.page_token = part.next_page_token;
            if query.page_token.is_none() {
                break;
            }
            // A part goes on as it was begun.
            let other = BlocksQuery {
                since: Some(2),
                ..query.clone()
            };
            let refused = client.blocks(id, &other).await;
            assert!(
                matches!(&refused, Err(ClientError::Refused { status: 400, code, .. }) if code == "bad_page_token"),
                "{refused:?}"
            );
        }
        assert_eq!(rows, new.rows, "{limit}");
        assert!(kept < rows.len() && kept + 3 >= rows.len(), "{kept} of {}", rows.len());
    }
}

#[tokio::test]
async fn new_files_are_made_of_blocks_and_equal_ones_are_not_sent_again() {
    let world = World::start().await;
    let (client, key) = (&world.client, world.client.digest_key().await.unwrap());
    for (at, length) in [0, 1, 4096, 100_000, 9 * MIB + 3].into_iter().enumerate() {
        let content = noise(at as u64 + 1, length);
        let whole = cut(&content, &key);
        let path = |which: &str| DeltaTarget::New(format!("/{length}/{which}"));
        let sent = client.put_delta(&path("a"), &whole, None).await.unwrap();
        assert_eq!((sent.blocks, sent.bytes), (whole.rows.len(), length as u64));
        let entry = &sent.uploaded.entry;
        assert_eq!((entry.version, entry.size), (1, length as u64));
        assert!(
            download(client, &entry.id, 1).await == content,
            "{length} bytes came back altered"
        );
        let again = client.put_delta(&path("b"), &whole, Some(&[])).await.unwrap();
        assert_eq!(again.blocks, 0, "{length}");
        let plain = world.put(&format!("/{length}/c"), &content).await;
        assert_eq!(
            plain.entry.digest, entry.digest,
            "one content has one digest, however it came"
        );
        assert_eq!(plain.receipt.survives, sent.uploaded.receipt.survives, "{length}");
    }
}

/// What a raw call of the API answers.
async fn sync(world: &World, id: &str, wanted: &SyncRequest) -> Value {
    let body = serde_json::to_value(wanted).unwrap();
    let answer = world
        .call(Method::POST, &format!("/api/v1/files/{id}/sync"), Some(&body))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn of_hashes(content: &CutContent, current_version: u64) -> SyncRequest {
    SyncRequest {
        current_version: Some(current_version),
        new_block_hashes: Some(content.rows.iter().map(|row| row.digest.to_hex()).collect()),
        ..SyncRequest::default()
    }
}

/// Begins an upload and sends all blocks.
async fn send(world: &World, id: &str, content: &CutContent, base: u64) -> String {
    let begun = sync(world, id, &of_hashes(content, base)).await;
    let upload = begun["upload_id"].as_str().unwrap().to_owned();
    for (row, bytes) in content.rows.iter().zip(&content.blocks) {
        world
            .client
            .put_block(&upload, &row.digest, bytes.clone())
            .await
            .unwrap();
    }
    upload
}

async fn commit(world: &World, id: &str, upload: &str) -> crate::world::Answer {
    let path = format!("/api/v1/files/{id}/commit");
    world
        .call(Method::POST, &path, Some(&json!({"upload_id": upload})))
        .await
}

/// shows: I-05 side=contract, D-2.2 scale=1/2
#[tokio::test]
async fn of_two_writers_on_one_version_one_wins_and_the_other_loses_nothing() {
    let world = World::start().await;
    let (client, key) = (&world.client, world.client.digest_key().await.unwrap());
    let put = world.put("/f", &noise(1, 3 * MIB)).await;
    let id = put.entry.id.as_str();
    let contents: Vec<CutContent> = (2..6).map(|seed| cut(&noise(seed, 3 * MIB), &key)).collect();
    let mut uploads = Vec::new();
    for content in &contents {
        uploads.push(send(&world, id, content, 1).await);
    }
    let answers = join_all(uploads.iter().map(|upload| commit(&world, id, upload))).await;
    let won: Vec<usize> = (0..4).filter(|at| answers[*at].status == 200).collect();
    let [won] = won[..] else { panic!("{answers:?}") };
    for (at, answer) in answers.iter().enumerate().filter(|(at, _)| *at != won) {
        let problem = answer.refused(409, "version_conflict");
        assert_eq!(problem.fields["current"]["version"], 2, "{at}");
    }
    let winner = contents[won].blocks.concat();
    assert!(download(client, id, 2).await == winner);
    // The others follow the new version; their blocks are still there.
    let mut version = 2;
    for (at, content) in contents.iter().enumerate().filter(|(at, _)| *at != won) {
        let stale = of_hashes(content, 1);
        let path = format!("/api/v1/files/{id}/sync");
        let refused = world
            .call(Method::POST, &path, Some(&serde_json::to_value(&stale).unwrap()))
            .await;
        assert_eq!(
            refused.refused(409, "version_conflict").fields["current"]["version"],
            version
        );
        let sent = client.put_delta(&known(id, version), content, None).await.unwrap();
        version += 1;
        assert_eq!((sent.blocks, sent.uploaded.entry.version), (0, version), "{at}");
        assert!(download(client, id, version).await == content.blocks.concat(), "{at}");
    }
    assert!(download(client, id, 2).await == winner);
    // Equal content is no conflict: both are told the one version.
    let content = cut(&noise(9, 2 * MIB), &key);
    let both = [
        send(&world, id, &content, version).await,
        send(&world, id, &content, version).await,
    ];
    let answers = join_all(both.iter().map(|upload| commit(&world, id, upload))).await;
    for answer in answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["entry"]["version"], version + 1);
    }
}

/// shows: I-05 side=contract
#[tokio::test]
async fn a_commit_asks_for_what_is_missing_and_answers_the_same_however_often_it_is_sent() {
    let mut world = World::start().await;
    let key = world.client.digest_key().await.unwrap();
    let content = cut(&noise(1, 9 * MIB), &key);
    let wanted = SyncRequest {
        path: Some("/a/b".to_owned()),
        parents: true,
        content_type: Some("text/x-a".to_owned()),
        new_block_hashes: of_hashes(&content, 0).new_block_hashes,
        ..SyncRequest::default()
    };
    let begun = sync(&world, "new", &wanted).await;
    let hashes = wanted.new_block_hashes.clone().unwrap();
    assert_eq!(begun["missing_blocks"], json!(hashes));
    let upload = begun["upload_id"].as_str().unwrap().to_owned();
    let put = async |world: &World, at: usize| {
        let (row, bytes) = (&content.rows[at], content.blocks[at].clone());
        world.client.put_block(&upload, &row.digest, bytes).await.unwrap();
    };
    put(&world, 1).await;
    let problem = commit(&world, "new", &upload).await.refused(409, "need_blocks");
    let left: Vec<&String> = hashes
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != 1)
        .map(|(_, hash)| hash)
        .collect();
    assert_eq!(problem.fields["missing_blocks"], json!(left));
    assert_eq!(world.tree().await, [""; 0]);
    // What was announced and sent outlives every process.
    world.kill_and_restart().await;
    for at in 2..content.rows.len() {
        put(&world, at).await;
    }
    let problem = commit(&world, "new", &upload).await.refused(409, "need_blocks");
    assert_eq!(problem.fields["missing_blocks"], json!([hashes[0]]));
    put(&world, 0).await;
    let answers = join_all((0..8).map(|_| commit(&world, "new", &upload))).await;
    let first = answers[0].json();
    for answer in &answers {
        assert_eq!((answer.status.as_u16(), answer.json()), (201, first.clone()));
    }
    assert_eq!(first["entry"]["path"], "/a/b");
    assert_eq!(first["entry"]["content_type"], "text/x-a");
    let id = first["entry"]["id"].as_str().unwrap().to_owned();
    assert!(download(&world.client, &id, 1).await == content.blocks.concat());
    // A later version does not change what the first commit answered.
    let edited = cut(&noise(2, MIB), &key);
    world.client.put_delta(&known(&id, 1), &edited, None).await.unwrap();
    assert_eq!(commit(&world, "new", &upload).await.json(), first);
}

/// shows: I-05 side=contract
#[tokio::test]
async fn a_list_is_committed_at_once_where_every_block_is_there() {
    let world = World::start().await;
    let key = world.client.digest_key().await.unwrap();
    let content = cut(&noise(1, 5 * MIB), &key);
    let target = DeltaTarget::New("/f".to_owned());
    let sent = world.client.put_delta(&target, &content, None).await.unwrap();
    let id = sent.uploaded.entry.id;
    let shorter = CutContent {
        rows: content.rows[1..].to_vec(),
        blocks: content.blocks[1..].to_vec(),
    };
    let list = serde_json::to_value(of_hashes(&shorter, 1)).unwrap();
    let path = format!("/api/v1/files/{id}/commit");
    let listed = world.call(Method::POST, &path, Some(&list)).await;
    assert_eq!(
        (listed.status.as_u16(), &listed.json()["entry"]["version"]),
        (200, &json!(2))
    );
    assert!(download(&world.client, &id, 2).await == shorter.blocks.concat());
    let other = cut(&noise(3, MIB / 2), &key);
    let list = serde_json::to_value(of_hashes(&other, 2)).unwrap();
    let lacking = world.call(Method::POST, &path, Some(&list)).await;
    let problem = lacking.refused(409, "need_blocks");
    let upload = problem.fields["upload_id"].as_str().unwrap().to_owned();
    for (row, bytes) in other.rows.iter().zip(&other.blocks) {
        let put = world.client.put_block(&upload, &row.digest, bytes.clone());
        put.await.unwrap();
    }
    assert_eq!(commit(&world, &id, &upload).await.json()["entry"]["version"], 3);
}

/// shows: I-05 side=contract
#[tokio::test]
async fn ten_thousand_digests_come_back_in_order_and_each_once() {
    let world = World::start().await;
    let key = world.client.digest_key().await.unwrap();
    let there = cut(&noise(1, 20 * MIB), &key);
    let target = DeltaTarget::New("/there".to_owned());
    world.client.put_delta(&target, &there, None).await.unwrap();
    let mut hashes: Vec<String> = (0..10_000_u64)
        .map(|seed| blake3::hash(&seed.to_le_bytes()).to_hex().to_string())
        .collect();
    let missing = hashes.clone();
    hashes.extend(missing[..100].iter().rev().cloned());
    for (at, row) in there.rows.iter().enumerate() {
        hashes.insert(at * 500, row.digest.to_hex());
    }
    let wanted = SyncRequest {
        path: Some("/wide".to_owned()),
        new_block_hashes: Some(hashes),
        ..SyncRequest::default()
    };
    let begun = Instant::now();
    let answer = sync(&world, "new", &wanted).await;
    println!("10,000 digests: {:?}", begun.elapsed());
    assert!(
        answer["missing_blocks"] == json!(missing),
        "other blocks, or in another order"
    );
    let upload = answer["upload_id"].as_str().unwrap();
    let lacking = world.client.commit("new", upload).await;
    assert!(
        matches!(&lacking, Err(ClientError::Refused { status: 409, code, .. }) if code == "need_blocks"),
        "{lacking:?}"
    );
    // The same digest ten thousand times over is one block ten thousand times over.
    let block = cut(&noise(2, 300_000), &key);
    let wanted = SyncRequest {
        path: Some("/often".to_owned()),
        new_block_hashes: Some(vec![block.rows[0].digest.to_hex(); 10_000]),
        ..SyncRequest::default()
    };
    let answer = sync(&world, "new", &wanted).await;
    assert_eq!(answer["missing_blocks"], json!([block.rows[0].digest.to_hex()]));
    let upload = answer["upload_id"].as_str().unwrap();
    let (row, bytes) = (&block.rows[0], block.blocks[0].clone());
    let put = world.client.put_block(upload, &row.digest, bytes.clone());
    put.await.unwrap();
    let begun = Instant::now();
    let made = world.client.commit("new", upload).await.unwrap();
    println!("a commit of 10,000 new rows: {:?}", begun.elapsed());
    assert_eq!(made.entry.size, 3_000_000_000);
    let last = Some((2_999_700_000, 2_999_999_999));
    let answer = world.client.get(&made.entry.id, last).await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    // All pages but the last are known by now.
    let edit = SyncRequest {
        current_version: Some(1),
        splices: Some(vec![Splice::Keep([0, 9_999])]),
        ..SyncRequest::default()
    };
    let answer = sync(&world, &made.entry.id, &edit).await;
    let begun = Instant::now();
    let edited = world
        .client
        .commit(&made.entry.id, answer["upload_id"].as_str().unwrap())
        .await;
    println!("a commit of 9,999 rows in known pages: {:?}", begun.elapsed());
    assert_eq!(edited.unwrap().entry.size, 2_999_700_000);
}
