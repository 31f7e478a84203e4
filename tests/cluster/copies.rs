//! Copies of large folders through the API: a job makes them, whatever happens meanwhile, and nobody sees anything of them before.
//!
//! Not here: copies of one command (versions), the rules step by step (metadata-raft/src/state/tests/copy_jobs.rs).

use crate::entries::{METADATA, change, delete, make_folder};
use crate::served::eventually;
use crate::world::{Answer, World, noise};
use api::change::ChangeKind;
use api::copy::{CopyJob, CopyState};
use api::file_batch::{BatchFile, FileResult};
use bytes::Bytes;
use reqwest::Method;
use serde_json::{Value, json};

const FOLDERS: usize = 3;
/// Of each folder, and of one batch.
const FILES: usize = 1000;
const FILE_BYTES: usize = 40;

fn content(folder: usize, number: usize) -> Vec<u8> {
    noise((folder * FILES + number) as u64, FILE_BYTES)
}

/// Makes a folder with a thousand files.
async fn fill(world: &World, path: &str, folder: usize) {
    make_folder(world, path).await;
    let file = |number: usize| {
        let file = BatchFile {
            path: Some(format!("{path}/{number:04}")),
            ..BatchFile::default()
        };
        (file, Bytes::from(content(folder, number)))
    };
    let files: Vec<_> = (0..FILES).map(file).collect();
    let results = world.client.create_batch(&files, false).await.unwrap();
    let is_stored = |result: &FileResult| matches!(result, FileResult::Stored(_));
    assert!(results.len() == FILES && results.iter().all(is_stored));
}

fn accepted(answer: &Answer) -> CopyJob {
    assert_eq!(answer.status, 202, "{answer:?}");
    let job: CopyJob = serde_json::from_value(answer.json()).unwrap();
    let address = format!("/api/v1/jobs/{}", job.id);
    assert_eq!(answer.header("location"), Some(address.as_str()));
    job
}

async fn begin(world: &World, id: &str, wanted: Value) -> CopyJob {
    let path = format!("{METADATA}/{id}/copy");
    accepted(&world.call(Method::POST, &path, Some(&wanted)).await)
}

/// Waits until a copy has ended.
async fn ended(world: &World, id: &str) -> CopyJob {
    eventually("a copy ends", async || {
        let job = world.client.copy_job(id).await.map_err(|error| error.to_string())?;
        match job.state {
            CopyState::Copying => Err(format!("{job:?}")),
            CopyState::Done | CopyState::Stopped => Ok(job),
        }
    })
    .await
}

/// Paths below a folder, from it on.
fn below(tree: &[String], folder: &str) -> Vec<String> {
    let rest = tree.iter().filter_map(|path| path.strip_prefix(folder));
    rest.filter(|rest| rest.starts_with('/')).map(str::to_owned).collect()
}

async fn read(world: &World, path: &str) -> Vec<u8> {
    let listed = world.client.list(path, 1, None).await.unwrap();
    world.content(&listed.entry.id, &[]).await.body
}

#[tokio::test]
async fn a_folder_of_three_thousand_files_is_copied_whole_while_it_is_used_and_the_cluster_is_killed() {
    let mut world = World::start().await;
    let big = make_folder(&world, "/big").await.id;
    for folder in 0..FOLDERS {
        fill(&world, &format!("/big/{folder}"), folder).await;
    }
    let cursor = world.client.changes(None, 1, true).await.unwrap().cursor;
    let bytes = world.client.me().await.unwrap().usage.bytes;
    let begun = begin(&world, &big, json!({"path": "/copies/big", "parents": true})).await;
    assert_eq!((begun.entry.as_str(), begun.state), (big.as_str(), CopyState::Copying));
    // From the folder that comes last into the one that comes first, and something new.
    let late = world.client.list("/big/2/0000", 1, None).await.unwrap().entry;
    assert_eq!(
        change(&world, &late.id, json!({"path": "/big/0/from 2"})).await.status,
        200
    );
    world.put("/big/1/new", b"new").await;
    world.kill_and_restart().await;
    let done = ended(&world, &begun.id).await;
    assert_eq!((done.state, &done.reason), (CopyState::Done, &None));
    let tree = world.tree().await;
    let copied = below(&tree, "/copies/big");
    assert_eq!(copied.len(), FOLDERS + FOLDERS * FILES + 1);
    assert_eq!(copied, below(&tree, "/big"));
    let listed = world.client.list("/copies/big", 1, None).await.unwrap();
    assert_eq!(listed.entry.id, begun.copy);
    assert_eq!(world.client.me().await.unwrap().usage.bytes, bytes + 3);
    // Followers were told of the copy once, with the folder above it, and of nothing in it.
    let told = world.client.changes(Some(&cursor), 1000, false).await.unwrap();
    assert!(!told.has_more);
    let of_copy = told.changes.iter().filter(|change| {
        let path = change.entry.as_ref().map(|entry| entry.path.as_str());
        path.is_some_and(|path| path.starts_with("/copies"))
    });
    let of_copy: Vec<_> = of_copy.map(|change| (change.kind, change.file_id.as_str())).collect();
    assert_eq!(of_copy.len(), 2, "{of_copy:?}");
    assert_eq!(of_copy[1], (ChangeKind::Created, begun.copy.as_str()));
    // Its source can go.
    assert_eq!(delete(&world, &big, "?permanent=true").await.status, 204);
    assert!(read(&world, "/copies/big/0/0000").await == content(0, 0));
    assert!(read(&world, "/copies/big/0/from 2").await == content(2, 0));
    assert!(read(&world, "/copies/big/2/0999").await == content(2, 999));
}

#[tokio::test]
async fn a_copy_is_begun_once_under_a_key_and_can_be_cancelled_by_whoever_asked_alone() {
    let world = World::start().await;
    fill(&world, "/a", 0).await;
    let folder = world.client.list("/a", 1, None).await.unwrap().entry.id;
    let (other, _) = world.user("other", 1 << 20).await;
    let path = format!("{METADATA}/{folder}/copy");
    let keyed = async |wanted: Value| {
        let request = world
            .client
            .request(Method::POST, &path)
            .header("idempotency-key", "once");
        world.send(request.json(&wanted)).await
    };
    let begun = accepted(&keyed(json!({"path": "/b"})).await);
    let job = format!("/api/v1/jobs/{}", begun.id);
    let asked = async |method: Method, path: &str| world.call(method, path, None).await;
    let cancelled = asked(Method::DELETE, &job).await;
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    let cancelled: CopyJob = serde_json::from_value(cancelled.json()).unwrap();
    let is_there = world.tree().await.iter().any(|path| path == "/b");
    match cancelled.state {
        CopyState::Stopped => assert_eq!(cancelled.reason.as_deref(), Some("copy_cancelled")),
        // It was quicker.
        CopyState::Done => {}
        CopyState::Copying => panic!("{cancelled:?}"),
    }
    assert_eq!(is_there, cancelled.state == CopyState::Done);
    assert_eq!(world.client.cancel_copy(&begun.id).await.unwrap(), cancelled);
    assert_eq!(world.client.copy_job(&begun.id).await.unwrap(), cancelled);
    // The key stands for this copy, whatever became of it.
    assert_eq!(accepted(&keyed(json!({"path": "/b"})).await).id, begun.id);
    keyed(json!({"path": "/c"})).await.refused(422, "request_id_reused");
    for method in [Method::GET, Method::DELETE] {
        let answer = world.call_as(&other, method, &job, None).await;
        answer.refused(404, "job_not_found");
    }
    asked(Method::POST, &format!("{job}/run"))
        .await
        .refused(404, "job_not_found");
    let never = format!("/api/v1/jobs/{folder}");
    asked(Method::DELETE, &never).await.refused(404, "job_not_found");
    asked(Method::DELETE, &format!("{job}?x=1"))
        .await
        .refused(400, "bad_query");
    // Asked without a key it is another copy.
    let again = begin(&world, &folder, json!({"path": "/again"})).await;
    assert_eq!(ended(&world, &again.id).await.state, CopyState::Done);
    let tree = world.tree().await;
    assert_eq!(below(&tree, "/again"), below(&tree, "/a"));
}
