//! What was acknowledged is there after every end of the whole cluster: in order, by `kill -9`, and in the middle of uploads.

use crate::world::{World, noise};
use api::entry::{Entry, Kind};
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use reqwest::{Method, StatusCode};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

/// Inline, three copies, one block, several blocks, several stripes, and more than goes in without a session.
const LENGTHS: [usize; 8] = [0, 1, 4_096, 4_097, 300_000, 1_500_000, 5 << 20, 13 << 20];

/// A version that was acknowledged.
struct Version {
    entry: String,
    number: u64,
    bytes: Vec<u8>,
}

/// Every entry of the home drive, in the order of a walk by names.
async fn walk(client: &Client) -> Vec<Entry> {
    let mut found = Vec::new();
    let mut folders = vec!["/".to_owned()];
    while let Some(folder) = folders.pop() {
        // The tests of this file make no folder of more than a page.
        let page = client.list(&folder, 1000, None).await.unwrap();
        assert_eq!(page.next_page_token, None);
        for entry in page.entries {
            if entry.entry_type == Kind::Folder {
                folders.push(entry.path.clone());
            }
            found.push(entry);
        }
    }
    found
}

async fn read(client: &Client, entry: &str, number: u64) -> Vec<u8> {
    let path = format!("/api/v1/files/{entry}/content?version={number}");
    let answer = client.request(Method::GET, &path).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "version {number} of {entry}");
    answer.bytes().await.unwrap().to_vec()
}

async fn check_versions(client: &Client, versions: &[Version]) {
    for version in versions {
        let back = read(client, &version.entry, version.number).await;
        let length = version.bytes.len();
        assert!(
            back == version.bytes,
            "version {} of {length} bytes differs",
            version.number
        );
    }
}

/// Files of every length in three versions each, one renamed, one moved, one in the trash: those outside of it, and those in it.
async fn fill(world: &World, round: u64) -> (Vec<Version>, Vec<Version>) {
    let mut versions = Vec::new();
    for (at, length) in (0_u64..).zip(LENGTHS) {
        let path = format!("/round-{round}/{length}");
        for number in 1..=3 {
            let bytes = noise(round * 1000 + at * 10 + number, length + number as usize - 1);
            let base_version = (number > 1).then(|| number - 1);
            let target = Target {
                base_version,
                ..Target::new_file(path.clone())
            };
            let file = world.client.put(&target, bytes.clone().into()).await.unwrap();
            assert_eq!(file.entry.version, number);
            let entry = file.entry.id;
            versions.push(Version { entry, number, bytes });
        }
    }
    let change = async |entry: &str, body: serde_json::Value| {
        let path = format!("/api/v1/metadata/{entry}");
        let answer = world.call(Method::PATCH, &path, Some(&body)).await;
        assert_eq!(answer.status, StatusCode::OK);
    };
    change(&versions[0].entry, serde_json::json!({"name": "renamed"})).await;
    let folder = world
        .client
        .make_folder(&format!("/round-{round}/folder"))
        .await
        .unwrap();
    change(&versions[20].entry, serde_json::json!({"parent": folder.id})).await;
    let gone = versions[12].entry.clone();
    world.client.trash(&gone).await.unwrap();
    versions.into_iter().partition(|version| version.entry != gone)
}

/// The last change is answered right before the end, so nothing had time to reach a disk by itself.
#[tokio::test]
async fn everything_acknowledged_is_there_after_a_stop_and_after_a_kill() {
    let mut world = World::start().await;
    let (mut versions, mut trashed) = (Vec::new(), Vec::new());
    for round in 0..2 {
        let (open, hidden) = fill(&world, round).await;
        versions.extend(open);
        trashed.extend(hidden);
        let before = walk(&world.client).await;
        if round % 2 == 0 {
            world.restart().await;
        } else {
            world.kill_and_restart().await;
        }
        assert_eq!(walk(&world.client).await, before, "the tree of round {round}");
        check_versions(&world.client, &versions).await;
    }
    let entries: BTreeSet<&String> = trashed.iter().map(|version| &version.entry).collect();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        let restore = format!("/api/v1/metadata/{entry}/restore");
        assert_eq!(world.call(Method::POST, &restore, None).await.status, StatusCode::OK);
    }
    check_versions(&world.client, &trashed).await;
}

/// An upload as it was sent; its fate is what the answer said, or unknown.
struct Attempt {
    path: String,
    number: u64,
    seed: u64,
    length: usize,
    is_acknowledged: bool,
}

/// Uploads without pause until the cluster is gone; each third content is a second version of the file before.
async fn upload_until_the_end(client: Client, round: u64, worker: u64, answered: mpsc::Sender<()>) -> Vec<Attempt> {
    let mut attempts: Vec<Attempt> = Vec::new();
    for turn in 0_u64.. {
        let again = turn % 3 == 2;
        let path = format!("/kill-{round}/{worker}/{}", if again { turn - 1 } else { turn });
        let seed = (round * 100 + worker) * 10_000 + turn;
        let length = LENGTHS[((turn + worker * 3 + round) % LENGTHS.len() as u64) as usize];
        let target = Target {
            base_version: again.then_some(1),
            ..Target::new_file(path.clone())
        };
        attempts.push(Attempt {
            path,
            number: if again { 2 } else { 1 },
            seed,
            length,
            is_acknowledged: false,
        });
        match client.put(&target, noise(seed, length).into()).await {
            Ok(_) => {
                attempts[turn as usize].is_acknowledged = true;
                // Whoever counts the answers is gone once the kill has begun.
                let _ = answered.send(()).await;
            }
            Err(ClientError::Broken(_)) => break,
            Err(refused) => panic!("a healthy cluster refused: {refused}"),
        }
    }
    attempts
}

/// What was acknowledged is there, the rest is wholly there or wholly absent, and nothing else is.
async fn check_attempts(client: &Client, below: &str, attempts: &[Attempt]) -> usize {
    let mut by_path: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in attempts {
        by_path.entry(&attempt.path).or_default().push(attempt);
    }
    let files: BTreeMap<String, Entry> = walk(client)
        .await
        .into_iter()
        .filter(|entry| entry.entry_type == Kind::File && entry.path.starts_with(below))
        .map(|entry| (entry.path.clone(), entry))
        .collect();
    let unknown: Vec<&String> = files
        .keys()
        .filter(|path| !by_path.contains_key(path.as_str()))
        .collect();
    assert!(unknown.is_empty(), "nobody put {unknown:?}");
    let mut uncertain = 0;
    for (path, attempts) in by_path {
        let acknowledged = attempts.iter().filter(|attempt| attempt.is_acknowledged).count() as u64;
        let there = files.get(path).map_or(0, |entry| entry.version);
        assert!(
            there >= acknowledged,
            "{path} has {there} versions, {acknowledged} were acknowledged"
        );
        assert!(there <= attempts.len() as u64, "{path} has {there} versions");
        uncertain += attempts.len() - acknowledged as usize;
        for attempt in attempts.iter().filter(|attempt| attempt.number <= there) {
            let back = read(client, &files[path].id, attempt.number).await;
            assert!(
                back == noise(attempt.seed, attempt.length),
                "version {} of {path} differs",
                attempt.number
            );
        }
    }
    uncertain
}

#[tokio::test]
async fn ten_kills_during_uploads_lose_nothing_acknowledged_and_leave_nothing_half() {
    const WORKERS: u64 = 6;
    let mut world = World::start().await;
    let mut attempts = Vec::new();
    let mut uncertain = 0;
    for round in 0..10 {
        let (answered, mut answers) = mpsc::channel(1);
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                tokio::spawn(upload_until_the_end(
                    world.client.clone(),
                    round,
                    worker,
                    answered.clone(),
                ))
            })
            .collect();
        // Each round ends after another number of answers, so the kills meet other moments.
        for _ in 0..3 + round * 4 {
            answers.recv().await.expect("workers go on until the kill");
        }
        drop(answers);
        world.kill_and_restart().await;
        let mut sent = Vec::new();
        for worker in workers {
            sent.extend(worker.await.unwrap());
        }
        let paths: BTreeSet<&String> = sent.iter().map(|attempt| &attempt.path).collect();
        assert!(paths.len() >= WORKERS as usize);
        uncertain += check_attempts(&world.client, &format!("/kill-{round}/"), &sent).await;
        attempts.extend(sent);
    }
    assert!(uncertain >= 10, "the kills came when nothing was under way");
    let before = walk(&world.client).await;
    world.restart().await;
    assert_eq!(walk(&world.client).await, before);
    check_attempts(&world.client, "/", &attempts).await;
}

/// shows: US-1.3 scale=1/2
#[tokio::test]
async fn a_download_cut_by_a_kill_is_seen_as_cut_and_goes_on_after_the_restart() {
    let mut world = World::start().await;
    let bytes = noise(1, 60 << 20);
    let file = world.put("/file", &bytes).await.entry;
    let mut response = world.client.get(&file.id, None).await.unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let mut have = response.chunk().await.unwrap().unwrap().to_vec();
    world.kill_and_restart().await;
    let cut = loop {
        match response.chunk().await {
            Ok(Some(part)) => have.extend_from_slice(&part),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(cut && have.len() < bytes.len(), "the body ended as if it were whole");
    assert!(bytes.starts_with(&have));
    let range = format!("bytes={}-", have.len());
    let rest = world.content(&file.id, &[("range", &range), ("if-range", &tag)]).await;
    assert_eq!(rest.status, StatusCode::PARTIAL_CONTENT);
    have.extend_from_slice(&rest.body);
    assert!(have == bytes);
}
