//! Many writers of one file at two gateways, each a process of its own: the first wins, the others learn what is there, and no version
//! is lost.
//!
//! Not here: one gateway (`conflicts`, `refusals`).

use crate::child_processes::url;
use crate::entries::{UPLOAD, by_id, entry_of};
use crate::served::eventually;
use crate::world::{Answer, World, answer, noise};
use api::entry::Entry;
use chaos::process_attack::process;
use client_sdk::client::Client;
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Mutex;

const GATEWAYS: [&str; 5] = ["--processes", "--gateways", "2", "--groups", "1"];
const FILE: &str = "/f";

/// The demo user at both gateways, which share no memory.
fn at_both(world: &World) -> [Client; 2] {
    let pid = |name| process(&world.cluster, name).unwrap().pid.unwrap();
    assert_ne!(pid("gateway-1"), pid("gateway-2"));
    let token = crate::wire::token_of(&world.client);
    [1, 2].map(|number| Client::new(&url(world, number)).unwrap().with_token(&token))
}

/// Puts a content behind a base version; a gateway that has too much to do is asked again, since nothing was done then.
async fn put(client: &Client, base_version: u64, content: Vec<u8>) -> Answer {
    let base = base_version.to_string();
    let query = [("uploadType", "media"), ("path", FILE), ("base_version", &base)];
    let put = eventually("a version", async || {
        let request = client.request(Method::POST, UPLOAD).query(&query);
        let answer = answer(request.body(content.clone())).await;
        match answer.status.as_u16() {
            429 | 503 => Err(format!("{answer:?}")),
            _ => Ok(answer),
        }
    });
    put.await
}

/// What is there now, as the refused writer was told.
fn current(refused: &Answer) -> Entry {
    let problem = refused.refused(409, "version_conflict");
    serde_json::from_value(problem.fields["current"].clone()).unwrap()
}

fn written(done: &Answer) -> Entry {
    assert_eq!(done.status, StatusCode::OK, "{done:?}");
    serde_json::from_value(done.json()["entry"].clone()).unwrap()
}

/// Every version of the file reads back at either gateway as what its writer sent.
async fn check_history(clients: &[Client; 2], id: &str, versions: &BTreeMap<u64, Vec<u8>>) {
    for (version, content) in versions {
        let path = format!("/api/v1/files/{id}/content?version={version}");
        let client = &clients[(version % 2) as usize];
        let back = answer(client.request(Method::GET, &path)).await;
        assert!(back.body == *content, "version {version} came back altered");
    }
}

/// shows: US-2.3 side=server
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_gateways_that_commit_one_base_version_one_wins_each_of_a_thousand_times() {
    let world = World::start_with(&GATEWAYS).await;
    let clients = at_both(&world);
    let first = noise(0, 3_000);
    // All of them are read back.
    let drive = format!("/api/v1/drives/{}", world.client.me().await.unwrap().drive);
    let kept = world
        .call(Method::PATCH, &drive, Some(&json!({"versions_max": 2_000})))
        .await;
    assert_eq!(kept.status, StatusCode::OK, "{kept:?}");
    let id = world.put(FILE, &first).await.entry.id;
    let mut versions = BTreeMap::from([(1, first)]);
    let mut won = [0_u64; 2];
    for base in 1..=1_000 {
        // Mostly inline, at times in stripes; of one length, so that no early look can tell who will lose.
        let length = if base % 10 == 0 { 5_000 } else { 3_000 };
        let contents = [noise(2 * base, length), noise(2 * base + 1, length)];
        let [one, other] = [0, 1].map(|at| put(&clients[at], base, contents[at].clone()));
        let (one, other) = tokio::join!(one, other);
        let (winner, done, refused) = match (one.status.as_u16(), other.status.as_u16()) {
            (200, 409) => (0, one, other),
            (409, 200) => (1, other, one),
            both => panic!("trial {base} ended in {both:?}"),
        };
        let made = written(&done);
        assert_eq!(made.version, base + 1);
        assert_eq!(current(&refused), made, "trial {base}");
        versions.insert(made.version, contents[winner].clone());
        won[winner] += 1;
    }
    // Neither waits for the other, so each is first at times.
    assert!(won[0] > 0 && won[1] > 0, "{won:?}");
    assert_eq!(entry_of(&by_id(&world, &id).await).version, 1_001);
    check_history(&clients, &id, &versions).await;
}

/// Each repeats on the version that it was told until it wins. All of them are one account, so a refusal that named another modifier
/// than the winner would not be seen here: that needs a folder that several accounts share.
///
/// shows: QAS-014 side=one-winner
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_writers_on_one_file_each_wins_one_version_and_none_is_lost() {
    const WRITERS: u64 = 50;
    let world = World::start_with(&GATEWAYS).await;
    let clients = at_both(&world);
    let first = noise(0, 5_000);
    let entry = world.put(FILE, &first).await.entry;
    let versions = Mutex::new(BTreeMap::from([(1, first)]));
    let writers = (1..=WRITERS).map(|writer| {
        let (clients, versions, entry) = (&clients, &versions, &entry);
        async move {
            let client = &clients[(writer % 2) as usize];
            let content = noise(writer, 5_000);
            let (mut base, mut conflicts) = (1, 0_u64);
            loop {
                let answer = put(client, base, content.clone()).await;
                if answer.status == StatusCode::OK {
                    let made = written(&answer);
                    assert_eq!(made.version, base + 1);
                    let before = versions.lock().unwrap().insert(made.version, content);
                    assert!(before.is_none(), "two won version {}", made.version);
                    return conflicts;
                }
                let now = current(&answer);
                assert!(now.version > base, "writer {writer} on {base} was told {}", now.version);
                assert_eq!((&now.id, &now.modified_by), (&entry.id, &entry.modified_by));
                base = now.version;
                conflicts += 1;
            }
        }
    });
    let conflicts = futures_util::future::join_all(writers).await;
    // All began on the first version, and one of them won it.
    assert_eq!(
        conflicts.iter().filter(|count| **count == 0).count(),
        1,
        "{conflicts:?}"
    );
    let versions = versions.into_inner().unwrap();
    assert!(versions.keys().copied().eq(1..=WRITERS + 1));
    assert_eq!(entry_of(&by_id(&world, &entry.id).await).version, WRITERS + 1);
    check_history(&clients, &entry.id, &versions).await;
}
