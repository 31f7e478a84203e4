//! Batches of small files at a whole cluster: stored in shared stripes, read back after a crash, racing for names.
//!
//! Not here: wrong bodies and what is refused (gateway), what a group decides of each file (metadata-raft).

use crate::world::{Answer, World, noise};
use api::file_batch::{BatchAnswer, BatchFile, FileResult, StoredFile};
use api::receipt::Survives;
use client_sdk::client::Client;
use client_sdk::error::ClientError;
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const FILES: usize = 1000;
const FILE_BYTES: usize = 4096;

fn request(client: &Client, list: &Value, contents: &[u8]) -> RequestBuilder {
    let head = format!("--cut\r\nContent-Type: application/json\r\n\r\n{list}\r\n--cut\r\n\r\n");
    let body = [head.as_bytes(), contents, b"\r\n--cut--\r\n"].concat();
    let request = client.request(Method::POST, "/api/v1/files/batch");
    request
        .header("content-type", "multipart/related; boundary=cut")
        .body(body)
}

fn list(folder: &str, names: impl Iterator<Item = usize>) -> Value {
    let files: Vec<Value> = names
        .map(|name| json!({"path": format!("{folder}/{name:04}"), "size": FILE_BYTES, "parents": true}))
        .collect();
    json!({"files": files})
}

fn results(answer: &Answer) -> Vec<FileResult> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    serde_json::from_value::<BatchAnswer>(answer.json()).unwrap().results
}

fn stored(answer: &Answer) -> Vec<StoredFile> {
    let results = results(answer).into_iter().map(|result| match result {
        FileResult::Stored(stored) => *stored,
        FileResult::Refused(refused) => panic!("{refused:?}"),
    });
    results.collect()
}

/// shows: N9 side=batched scale=1/1000
#[tokio::test]
async fn a_thousand_files_lie_in_one_stripe_and_come_back_after_a_crash() {
    let mut world = World::start().await;
    let contents = noise(1, FILES * FILE_BYTES);
    let list = list("/many", 0..FILES);
    let keyed = |world: &World| request(&world.client, &list, &contents).header("idempotency-key", "once");
    let first = world.send(keyed(&world)).await;
    let files = stored(&first);
    assert_eq!(files.len(), FILES);
    for (number, file) in files.iter().enumerate() {
        assert_eq!(file.entry.path, format!("/many/{number:04}"));
        assert_eq!((file.status, file.entry.size), (201, FILE_BYTES as u64));
        assert_eq!(
            (file.receipt.survives, file.receipt.degraded),
            (Survives::Region, false)
        );
    }
    // 4 MiB and a thousand seals fill one stripe.
    assert_eq!(world.metric("gateway_stripes_written_total").await, 1.0);
    world.kill_and_restart().await;
    assert_eq!(world.tree().await.len(), FILES + 1);
    for number in (0..FILES).step_by(97) {
        let back = world.content(&files[number].entry.id, &[]).await;
        let expected = &contents[number * FILE_BYTES..][..FILE_BYTES];
        assert!(back.body == expected, "{number} came back altered");
    }
    let again = world.send(keyed(&world)).await;
    assert_eq!(again.json(), first.json());
    assert_eq!(world.tree().await.len(), FILES + 1);
}

#[tokio::test]
async fn a_batch_reaches_nobody_elses_folder_and_nothing_of_one_that_is_refused_is_there() {
    let world = World::start().await;
    let folder = world.client.make_folder("/mine").await.unwrap();
    let (other, _) = world.user("other", 1 << 20).await;
    let into = json!({"files": [{"parent": folder.id, "name": "x", "size": 3}]});
    world
        .send(request(&other, &into, b"abc"))
        .await
        .refused(404, "not_found");
    // Its quota is 1 MiB: all or nothing is nothing.
    let mut wanted = list("/n", 0..300);
    wanted["atomic"] = json!(true);
    let contents = noise(2, 300 * FILE_BYTES);
    let refused = world.send(request(&other, &wanted, &contents)).await;
    assert_eq!(refused.refused(507, "quota_exceeded").fields["item"], 256);
    assert_eq!(crate::world::tree_of(&other).await, [""; 0]);
    assert_eq!(other.me().await.unwrap().usage.bytes, 0);
    wanted["atomic"] = json!(false);
    let answer = world.send(request(&other, &wanted, &contents)).await;
    let refused = results(&answer)
        .into_iter()
        .filter(|result| matches!(result, FileResult::Refused(_)));
    assert_eq!(refused.count(), 300 - 256);
    assert_eq!(other.me().await.unwrap().usage.bytes, 1 << 20);
    assert_eq!(world.tree().await, ["/mine"]);
}

#[tokio::test]
async fn the_client_library_puts_batches_whatever_their_contents_look_like() {
    let world = World::start().await;
    let file = |path: &str| BatchFile {
        path: Some(path.to_owned()),
        parents: true,
        ..BatchFile::default()
    };
    let contents: [&[u8]; 3] = [b"\r\n--cut--\r\n", b"", b"--"];
    let paths = ["/sdk/a", "/sdk/b", "/sdk/c"];
    let files: Vec<_> = paths
        .iter()
        .zip(contents)
        .map(|(path, bytes)| (file(path), bytes.to_vec().into()))
        .collect();
    let done = world.client.create_batch(&files, true).await.unwrap();
    for (result, expected) in done.iter().zip(contents) {
        let FileResult::Stored(stored) = result else {
            panic!("{result:?}")
        };
        assert_eq!(world.content(&stored.entry.id, &[]).await.body, expected);
    }
    let again = world.client.create_batch(&files, true).await.unwrap_err();
    assert!(
        matches!(again, ClientError::Refused { status: 409, ref code, .. } if code == "name_taken"),
        "{again}"
    );
    assert_eq!(world.tree().await, ["/sdk", "/sdk/a", "/sdk/b", "/sdk/c"]);
}

#[tokio::test]
async fn of_batches_that_race_for_names_each_name_has_one_winner_and_its_bytes() {
    let world = World::start().await;
    let rivals: Vec<(Value, Vec<u8>)> = (0..4)
        .map(|rival| {
            let first = rival * 50;
            (
                list("/race", first..first + 100),
                noise(10 + rival as u64, 100 * FILE_BYTES),
            )
        })
        .collect();
    let sent = rivals
        .iter()
        .map(|(list, contents)| world.send(request(&world.client, list, contents)));
    let answers = join_all(sent).await;
    let mut winners = vec![None; 250];
    for (rival, answer) in answers.iter().enumerate() {
        for (at, result) in results(answer).into_iter().enumerate() {
            let name = rival * 50 + at;
            match result {
                FileResult::Stored(stored) => {
                    assert!(
                        winners[name].replace((rival, at, stored.entry.id)).is_none(),
                        "{name} was made twice"
                    );
                }
                FileResult::Refused(refused) => assert_eq!(refused.problem.code, "name_taken", "{name}"),
            }
        }
    }
    for (name, winner) in winners.iter().enumerate() {
        let (rival, at, id) = winner.as_ref().unwrap_or_else(|| panic!("{name} has no winner"));
        if name % 10 == 0 {
            let expected = &rivals[*rival].1[at * FILE_BYTES..][..FILE_BYTES];
            assert!(world.content(id, &[]).await.body == expected, "{name}");
        }
    }
}
