//! Old versions and copies through the API: read back byte for byte, restored and copied without moving data, gone by count, age and
//! purge with the space that they alone held.
//!
//! Not here: the rules themselves step by step (metadata-raft/src/state/tests), commits that race (writers).

use crate::entries::{METADATA, delete, entry, make_folder};
use crate::quota::falls_to;
use crate::served::eventually;
use crate::world::{Answer, World, noise};
use api::drive::ChangeDrive;
use api::metadata::CopyEntry;
use api::version::{FileVersion, VersionsQuery};
use client_sdk::client::{Client, Target};
use client_sdk::copies::Copied;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

const MIB: usize = 1 << 20;

fn behind(path: &str, base_version: u64) -> Target {
    Target {
        base_version: Some(base_version),
        ..Target::new_file(path)
    }
}

/// Puts the contents as versions 1, 2, ... of a file; answers its id.
async fn history(client: &Client, path: &str, contents: &[Vec<u8>]) -> String {
    let mut id = String::new();
    for (version, content) in (0_u64..).zip(contents) {
        let target = if version == 0 {
            Target::new_file(path)
        } else {
            behind(path, version)
        };
        let put = client.put(&target, content.clone().into()).await.unwrap();
        assert_eq!(put.entry.version, version + 1);
        id = put.entry.id;
    }
    id
}

/// All that are kept, the newest first, by pages of `limit`.
async fn list(client: &Client, id: &str, limit: u32) -> Vec<FileVersion> {
    let mut query = VersionsQuery {
        limit: Some(limit),
        ..VersionsQuery::default()
    };
    let mut all = Vec::new();
    loop {
        let part = client.versions(id, &query).await.unwrap();
        assert!(!part.versions.is_empty() && part.versions.len() <= limit as usize);
        all.extend(part.versions);
        query.page_token = part.next_page_token;
        if query.page_token.is_none() {
            return all;
        }
    }
}

async fn numbers(client: &Client, id: &str) -> Vec<u64> {
    let kept = list(client, id, 1000).await;
    kept.iter().map(|version| version.version).collect()
}

/// Reads a version as a whole and by a range, with the headers that belong to it.
pub(crate) async fn check(world: &World, id: &str, version: u64, content: &[u8]) {
    let path = format!("/api/v1/files/{id}/content?version={version}");
    let whole = world.call(Method::GET, &path, None).await;
    assert_eq!(whole.status, 200, "version {version}");
    assert!(whole.body == content, "version {version} came back altered");
    let tag = format!("\"{id}-{version}\"");
    assert_eq!(whole.header("etag"), Some(tag.as_str()));
    let Some(last) = content.len().checked_sub(1) else {
        return;
    };
    let (first, last) = (last / 3, last - last / 5);
    let range = format!("bytes={first}-{last}");
    let part = world
        .send(world.client.request(Method::GET, &path).header("range", range))
        .await;
    assert_eq!(part.status, 206);
    assert!(
        part.body == content[first..=last],
        "a range of version {version} came back altered"
    );
    assert_eq!(part.header("etag"), Some(tag.as_str()));
    let same = world.client.request(Method::GET, &path).header("if-none-match", tag);
    assert_eq!(world.send(same).await.status, 304);
}

/// Bytes in use on all disks, and how many stripes there are.
async fn stored(world: &World) -> (u64, u64) {
    let admin = world.cluster.admin().unwrap();
    let status = admin.json(Method::GET, "/api/v1/admin/status", None).await.unwrap();
    let disks = status["nodes"].as_array().unwrap().iter();
    let disks = disks.flat_map(|node| node["disks"].as_array().unwrap());
    let used = disks.map(|disk| disk["used_bytes"].as_u64().unwrap()).sum();
    (used, status["stripes"]["total"].as_u64().unwrap())
}

async fn restore(world: &World, id: &str, wanted: Value) -> Answer {
    let path = format!("/api/v1/files/{id}/restore");
    world.call(Method::POST, &path, Some(&wanted)).await
}

async fn copy(world: &World, id: &str, wanted: Value) -> Answer {
    let path = format!("{METADATA}/{id}/copy");
    world.call(Method::POST, &path, Some(&wanted)).await
}

async fn retain(client: &Client, versions_max: Option<u32>, version_age_s: Option<u64>) {
    let drive = client.me().await.unwrap().drive;
    let wanted = ChangeDrive {
        versions_max,
        version_age_s,
    };
    let changed = client.change_drive(&drive, &wanted).await.unwrap();
    assert!(versions_max.is_none_or(|wanted| changed.versions_max == wanted));
    assert!(version_age_s.is_none_or(|wanted| changed.version_age_s == wanted));
    assert_eq!(client.drive(&drive).await.unwrap(), changed);
}

/// An empty content, an inline one, one of a stripe, and edits of one of several stripes.
fn contents() -> Vec<Vec<u8>> {
    let long = noise(1, 9 * MIB + 17);
    let mut changed = long.clone();
    changed[4 * MIB] ^= 1;
    vec![
        Vec::new(),
        noise(2, 900),
        noise(3, 300_000),
        long.clone(),
        changed,
        [b"in front", long.as_slice()].concat(),
        long[..7 * MIB].to_vec(),
    ]
}

/// shows: US-3.1, FR-004, SC-in-5, D-2.5 scale=1/2
#[tokio::test]
async fn every_version_reads_back_byte_for_byte_and_with_a_node_away_too() {
    let world = World::start_uncached().await;
    let contents = contents();
    let id = history(&world.client, "/f", &contents).await;
    let many: Vec<Vec<u8>> = (0..100).map(|seed| noise(seed, 10 + seed as usize)).collect();
    let small = history(&world.client, "/small", &many).await;
    for limit in [1000, 7, 33] {
        let kept = list(&world.client, &small, limit).await;
        let told: Vec<(u64, u64)> = kept.iter().map(|version| (version.version, version.size)).collect();
        let wanted: Vec<(u64, u64)> = (0..100).rev().map(|seed| (seed + 1, seed + 10)).collect();
        assert_eq!(told, wanted, "pages of {limit}");
    }
    let me = world.client.me().await.unwrap();
    let kept = list(&world.client, &id, 3).await;
    assert!(
        kept.iter()
            .all(|version| version.created_by == me.id && version.device.is_none())
    );
    let digests: Vec<&str> = kept.iter().map(|version| version.digest.as_str()).collect();
    assert!((1..digests.len()).all(|at| !digests[at..].contains(&digests[at - 1])));
    let nodes = world.nodes();
    for away in [None, Some(nodes[0]), Some(nodes[3])] {
        if let Some(node) = away {
            world.stop_node(node).await;
        }
        for (version, content) in (1..).zip(&contents) {
            check(&world, &id, version, content).await;
        }
        for (version, content) in (1..).zip(&many).step_by(9) {
            check(&world, &small, version, content).await;
        }
        if let Some(node) = away {
            world.start_node(node).await;
        }
    }
}

/// shows: US-3.1, FR-004, SC-in-5
#[tokio::test]
async fn a_restored_version_is_a_new_one_and_moves_no_data() {
    let world = World::start().await;
    let contents = contents();
    let id = history(&world.client, "/f", &contents).await;
    let before = (world.client.me().await.unwrap().usage.bytes, stored(&world).await);
    let newest = contents.len() as u64;
    for (at, content) in (0_u64..).zip(&contents[..5]) {
        let old = world.client.get_version(&id, at + 1, None).await.unwrap();
        assert!(old.bytes().await.unwrap() == *content);
        let restored = restore(&world, &id, json!({"version": at + 1})).await;
        let now = entry(&restored);
        assert_eq!((now.version, now.size), (newest + at + 1, content.len() as u64));
        let tag = format!("\"{id}-{}\"", now.version);
        assert_eq!(restored.header("etag"), Some(tag.as_str()));
        check(&world, &id, now.version, content).await;
        assert!(world.content(&id, &[]).await.body == *content);
    }
    assert_eq!(
        world.client.me().await.unwrap().usage.bytes,
        before.0,
        "nothing is charged twice"
    );
    let after = stored(&world).await;
    assert_eq!(after.1, before.1.1, "a stripe was written");
    assert!(
        after.0 < before.1.0 + MIB as u64,
        "{} bytes were written",
        after.0 - before.1.0
    );
    let range = world.client.get_version(&id, 4, Some((5, 9))).await.unwrap();
    assert!(range.bytes().await.unwrap() == contents[3][5..=9]);
    // What is current already, by its number or by its content, stays as it is.
    for version in [12, 5] {
        let same = entry(&restore(&world, &id, json!({"version": version, "base_version": 12})).await);
        assert_eq!((same.version, same.revision), (12, 12));
    }
    let same = world.client.restore_version(&id, 5, Some(12)).await.unwrap();
    assert_eq!(same.version, 12);
    // A repeat under a key is told what the first was told.
    let path = format!("/api/v1/files/{id}/restore");
    let keyed = |version: u64| {
        let request = world
            .client
            .request(Method::POST, &path)
            .header("idempotency-key", "once");
        world.send(request.json(&json!({"version": version})))
    };
    let first = entry(&keyed(2).await);
    assert_eq!((first.version, entry(&keyed(2).await)), (13, first));
    keyed(3).await.refused(422, "request_id_reused");
}

/// shows: US-2.3 side=server scale=1/2
#[tokio::test]
async fn of_two_that_restore_or_commit_on_one_version_the_first_wins() {
    let world = World::start().await;
    let contents: Vec<Vec<u8>> = (0..3).map(|seed| noise(seed, 2_000 + seed as usize)).collect();
    let id = history(&world.client, "/f", &contents).await;
    for round in 0_u64..20 {
        let base = 3 + round;
        let restores = [1, 2].map(|version| {
            let wanted = json!({"version": version, "base_version": base});
            let (world, id) = (&world, &id);
            async move { restore(world, id, wanted).await }
        });
        let upload = format!("/api/v1/files/upload?uploadType=media&path=/f&base_version={base}");
        let upload = world
            .client
            .request(Method::POST, &upload)
            .body(noise(100 + round, 3_000));
        let (restored, put) = futures_util::join!(join_all(restores), world.send(upload));
        let answers: Vec<Answer> = restored.into_iter().chain([put]).collect();
        // Exactly one made a version. A restore that finds its content there already, from a round before, is no conflict.
        assert_eq!(numbers(&world.client, &id).await[0], base + 1, "round {round}");
        let won = answers.iter().filter(|answer| answer.status.is_success()).count();
        assert!((1..=2).contains(&won), "{won} won round {round}");
        for late in answers.iter().filter(|answer| !answer.status.is_success()) {
            let problem = late.refused(409, "version_conflict");
            assert_eq!(problem.fields["current"]["version"], base + 1);
        }
    }
    let tag = |version: u64| format!("\"{id}-{version}\"");
    let path = format!("/api/v1/files/{id}/restore");
    let tagged = |tag: String| {
        let request = world.client.request(Method::POST, &path).header("if-match", tag);
        world.send(request.json(&json!({"version": 1})))
    };
    let put = world.client.put(&behind("/f", 23), noise(7, 50).into()).await.unwrap();
    for stale in [
        tag(23),
        tag(1),
        format!("{}, {}", tag(1), tag(2)),
        format!("W/{}", tag(24)),
    ] {
        let problem = tagged(stale).await.refused(412, "precondition_failed");
        assert_eq!(problem.fields["current"]["version"], put.entry.version);
    }
    assert_eq!(entry(&tagged(format!("{}, {}", tag(1), tag(24))).await).version, 25);
    assert_eq!(
        entry(&tagged("*".to_owned()).await).version,
        25,
        "it has that content already"
    );
}

#[tokio::test]
async fn what_cannot_be_listed_or_restored_is_refused_by_its_reason() {
    let world = World::start().await;
    let contents: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 100)).collect();
    let id = history(&world.client, "/f", &contents).await;
    let folder = make_folder(&world, "/folder").await.id;
    for wanted in [0, 5, u64::MAX] {
        let gone = restore(&world, &id, json!({"version": wanted})).await;
        gone.refused(404, "version_not_found");
    }
    restore(&world, &folder, json!({"version": 1}))
        .await
        .refused(422, "not_a_file");
    restore(&world, "x", json!({"version": 1})).await.refused(400, "bad_id");
    for malformed in [
        json!({}),
        json!({"version": -1}),
        json!({"version": 1, "more": 1}),
        json!({"version": "1"}),
    ] {
        restore(&world, &id, malformed).await.refused(400, "bad_json");
    }
    let get = async |id: &str, query: &str| {
        let path = format!("/api/v1/files/{id}/versions{query}");
        world.call(Method::GET, &path, None).await
    };
    get(&folder, "").await.refused(422, "not_a_file");
    get(&id, "?limit=0").await.refused(400, "bad_limit");
    get(&id, "?limit=1001").await.refused(400, "bad_limit");
    get(&id, "?version=1").await.refused(400, "bad_query");
    let page = get(&id, "?limit=2").await.json();
    let token = page["next_page_token"].as_str().unwrap();
    let first = if token.starts_with('A') { 'B' } else { 'A' };
    let altered = format!("{first}{}", &token[1..]);
    let blocks = world
        .call(
            Method::GET,
            &format!("/api/v1/files/{id}/blocks?page_token={token}"),
            None,
        )
        .await;
    blocks.refused(400, "bad_page_token");
    for token in [altered.as_str(), "x"] {
        get(&id, &format!("?page_token={token}"))
            .await
            .refused(400, "bad_page_token");
    }
    let other = history(&world.client, "/g", &contents[..3]).await;
    let foreign = get(&other, &format!("?page_token={token}")).await;
    foreign.refused(400, "bad_page_token");
    // Of a file in the trash the versions are told, and none is restored.
    assert_eq!(delete(&world, &id, "").await.status, 204);
    assert_eq!(get(&id, "").await.json()["versions"].as_array().unwrap().len(), 4);
    restore(&world, &id, json!({"version": 1}))
        .await
        .refused(409, "in_trash");
    assert_eq!(delete(&world, &id, "?permanent=true").await.status, 204);
    get(&id, "").await.refused(404, "not_found");
}

/// shows: H-ver, US-3.1, SC-in-5
#[tokio::test]
async fn beyond_count_and_age_versions_go_and_their_space_comes_back() {
    let world = World::start().await;
    let (ada, _) = world.user("ada", 100 * MIB as u64).await;
    let told = ada.drive(&ada.me().await.unwrap().drive).await.unwrap();
    assert_eq!((told.versions_max, told.version_age_s), (100, 90 * 24 * 3600));
    let contents: Vec<Vec<u8>> = (0..6).map(|seed| noise(seed, MIB)).collect();
    retain(&ada, Some(3), None).await;
    let id = history(&ada, "/f", &contents).await;
    assert_eq!(numbers(&ada, &id).await, [6, 5, 4]);
    let gone = format!("/api/v1/files/{id}/content?version=3");
    world
        .call_as(&ada, Method::GET, &gone, None)
        .await
        .refused(404, "version_not_found");
    falls_to(&ada, 3 * MIB as u64).await;
    // A lower count takes effect on files that nobody touches.
    retain(&ada, Some(2), None).await;
    falls_to(&ada, 2 * MIB as u64).await;
    assert_eq!(numbers(&ada, &id).await, [6, 5]);
    // A second after it was overwritten the last old one goes; the current one stays whatever its age.
    retain(&ada, None, Some(1)).await;
    falls_to(&ada, MIB as u64).await;
    assert_eq!(numbers(&ada, &id).await, [6]);
    let back = ada.get(&id, None).await.unwrap().bytes().await.unwrap();
    assert!(back == contents[5]);
    ada.put(&behind("/f", 6), contents[0].clone().into()).await.unwrap();
    eventually("the old version stays", async || {
        match numbers(&ada, &id).await.as_slice() {
            [7] => Ok(()),
            others => Err(format!("{others:?}")),
        }
    })
    .await;
    falls_to(&ada, MIB as u64).await;
    let drive = ada.me().await.unwrap().drive;
    let path = format!("/api/v1/drives/{drive}");
    for refused in [
        json!({"versions_max": 0}),
        json!({"versions_max": 10_001}),
        json!({"version_age_s": 0}),
    ] {
        let answer = world.call_as(&ada, Method::PATCH, &path, Some(&refused)).await;
        answer.refused(400, "bad_retention");
    }
    // Another account's drive is not there, not even for an administrator.
    for stranger in [&world.client, &world.cluster.admin().unwrap()] {
        world
            .call_as(stranger, Method::GET, &path, None)
            .await
            .refused(404, "not_found");
        let wanted = json!({"versions_max": 1});
        let answer = world.call_as(stranger, Method::PATCH, &path, Some(&wanted)).await;
        answer.refused(404, "not_found");
    }
    world
        .call(Method::GET, "/api/v1/drives/x", None)
        .await
        .refused(400, "bad_id");
}

/// shows: US-3.1 scale=1/2
#[tokio::test]
async fn a_purge_gives_back_what_all_versions_held() {
    let world = World::start().await;
    let id = history(&world.client, "/f", &contents()).await;
    let kept = noise(50, 2 * MIB);
    world.put("/other", &kept).await;
    let other = history(&world.client, "/g", &contents()[3..5]).await;
    assert_eq!(delete(&world, &id, "?permanent=true").await.status, 204);
    assert_eq!(delete(&world, &other, "?permanent=true").await.status, 204);
    falls_to(&world.client, kept.len() as u64).await;
}

/// shows: FR-007 scale=1/2
#[tokio::test]
async fn copies_are_whole_trees_that_move_no_data() {
    let world = World::start_uncached().await;
    let long = noise(1, 9 * MIB);
    let folder = make_folder(&world, "/a").await.id;
    let file = world.put("/a/b/long", &long).await.entry;
    world.put("/a/small", b"small").await;
    world.put("/a/empty", b"").await;
    let before = (world.client.me().await.unwrap().usage.bytes, stored(&world).await);
    let made = copy(&world, &file.id, json!({"path": "/copy"})).await;
    assert_eq!(made.status, 201);
    let made = entry(&made);
    assert_eq!((made.version, made.digest.as_ref()), (1, file.digest.as_ref()));
    assert!(world.content(&made.id, &[]).await.body == long);
    let to = CopyEntry {
        path: Some("/x/y/a".to_owned()),
        parents: true,
        ..CopyEntry::default()
    };
    let Copied::There(tree) = world.client.copy(&folder, &to).await.unwrap() else {
        panic!("a small folder is copied at once");
    };
    assert_eq!(tree.path, "/x/y/a");
    let wanted = ["", "/b", "/b/long", "/empty", "/small"].map(|below| format!("/x/y/a{below}"));
    let all = world.tree().await;
    assert!(wanted.iter().all(|path| all.contains(path)), "{all:?}");
    let inside = world.client.list("/x/y/a/b", 10, None).await.unwrap();
    assert!(world.content(&inside.entries[0].id, &[]).await.body == long);
    assert_eq!(world.client.me().await.unwrap().usage.bytes, before.0);
    let after = stored(&world).await;
    assert_eq!(after.1, before.1.1, "a stripe was written");
    // Its source can go.
    assert_eq!(delete(&world, &folder, "?permanent=true").await.status, 204);
    let node = world.nodes()[1];
    world.stop_node(node).await;
    assert!(world.content(&made.id, &[]).await.body == long);
    assert!(world.content(&inside.entries[0].id, &[]).await.body == long);
    world.start_node(node).await;
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_is_refused_and_a_repeat_makes_one() {
    let world = World::start().await;
    let folder = make_folder(&world, "/a").await.id;
    let file = world.put("/f", b"bytes").await.entry.id;
    let (_, other) = world.user("other", MIB as u64).await;
    let taken = copy(&world, &file, json!({"path": "/a"}))
        .await
        .refused(409, "name_taken");
    assert_eq!(taken.fields["existing"]["id"], json!(folder));
    copy(&world, &folder, json!({"path": "/a/b"}))
        .await
        .refused(422, "cycle");
    copy(&world, &file, json!({"path": "/no/g"}))
        .await
        .refused(404, "parent_not_found");
    copy(&world, &file, json!({"path": "/f/g"}))
        .await
        .refused(422, "parent_not_folder");
    copy(&world, &file, json!({"parent": other, "name": "g"}))
        .await
        .refused(400, "bad_id");
    copy(&world, &file, json!({"name": "g"})).await.refused(400, "bad_json");
    copy(&world, &file, json!({"path": "/g", "more": 1}))
        .await
        .refused(400, "bad_json");
    let root = world.client.list("/", 1, None).await.unwrap().entry.id;
    copy(&world, &root, json!({"path": "/g"}))
        .await
        .refused(422, "root_fixed");
    let (stranger, _) = world.user("stranger", MIB as u64).await;
    let theirs = stranger.make_folder("/theirs").await.unwrap().id;
    let into = copy(&world, &file, json!({"parent": theirs, "name": "g"})).await;
    into.refused(422, "cross_drive");
    let path = format!("{METADATA}/{file}/copy");
    let wanted = json!({"path": "/g"});
    let foreign = world.call_as(&stranger, Method::POST, &path, Some(&wanted)).await;
    foreign.refused(404, "not_found");
    let keyed = || {
        let request = world
            .client
            .request(Method::POST, &path)
            .header("idempotency-key", "once");
        world.send(request.json(&wanted))
    };
    let first = entry(&keyed().await);
    assert_eq!(entry(&keyed().await), first);
    copy(&world, &file, wanted.clone()).await.refused(409, "name_taken");
    assert_eq!(delete(&world, &file, "").await.status, 204);
    copy(&world, &file, json!({"path": "/h"}))
        .await
        .refused(409, "in_trash");
    assert_eq!(world.tree().await, ["/a", "/g"]);
}
