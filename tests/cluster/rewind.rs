//! Rewinds through the API: a folder that something overwrote comes back byte for byte, what somebody changed meanwhile stays, and it can
//! be taken back.
//!
//! Not here: the rules step by step, large lists and instants at random (metadata-raft/src/state/tests/rewinds.rs).

use crate::entries::make_folder;
use crate::served::eventually;
use crate::world::{Answer, World, noise};
use api::entry::Entry;
use api::rewind::{JobQuery, JobReport, JobState, RewindAction, RewindItem, RewindJob, RewindOutcome};
use api::timestamp::Timestamp;
use client_sdk::client::{Client, Target};
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const METADATA: &str = "/api/v1/metadata";
/// Files of a test. With 10,000 the same takes minutes to prepare; `make rewind` measures that.
const FILES: u64 = 300;
const IN_FLIGHT: usize = 16;

/// Mostly small, one of several stripes, some of none.
fn content(number: u64, seed: u64) -> Vec<u8> {
    let length = match number % 50 {
        0 => 0,
        7 => 200_000,
        13 if number == 13 => (5 << 20) + 3,
        _ => 100 + usize::try_from(number).unwrap(),
    };
    noise(seed + number, length)
}

fn path(number: u64) -> String {
    format!("/work/{}/file {number}", number % 4)
}

/// Puts all files, each behind `base_version`; answers them by path.
async fn put_all(world: &World, seed: u64, base_version: Option<u64>) -> BTreeMap<String, Entry> {
    let put = async |number: u64| {
        let target = Target {
            base_version,
            ..Target::new_file(path(number))
        };
        // An empty file stays as it is: equal content makes no version.
        let put = world.client.put(&target, content(number, seed).into()).await.unwrap();
        (path(number), put.entry)
    };
    stream::iter(0..FILES)
        .map(put)
        .buffer_unordered(IN_FLIGHT)
        .collect()
        .await
}

/// An instant behind everything that was done: the clock has gone on when a folder made later shows it.
async fn instant(world: &World, name: &str) -> Timestamp {
    let first = make_folder(world, &format!("/{name}")).await.created_at;
    let mut again = 0;
    while make_folder(world, &format!("/{name} {again}")).await.created_at <= first {
        again += 1;
    }
    first
}

async fn begin(world: &World, id: &str, wanted: Value) -> RewindJob {
    let answer = world
        .call(Method::POST, &format!("{METADATA}/{id}/rewind"), Some(&wanted))
        .await;
    accepted(&answer)
}

fn accepted(answer: &Answer) -> RewindJob {
    assert_eq!(answer.status, 202, "{answer:?}");
    let job: RewindJob = serde_json::from_value(answer.json()).unwrap();
    let address = format!("/api/v1/jobs/{}", job.id);
    assert_eq!(answer.header("location"), Some(address.as_str()));
    job
}

/// Waits until a job has ended; answers it with its whole list.
async fn ended(client: &Client, id: &str, limit: u32) -> (RewindJob, Vec<RewindItem>) {
    let mut query = JobQuery {
        limit: Some(limit),
        page_token: None,
    };
    let first: JobReport = eventually("a rewind ends", async || {
        let report = client.job(id, &query).await.map_err(|error| error.to_string())?;
        match report.job.state {
            JobState::Looking | JobState::Working => Err(format!("{:?}", report.job)),
            _ => Ok(report),
        }
    })
    .await;
    let (job, mut items) = (first.job, first.items);
    query.page_token = first.next_page_token;
    while query.page_token.is_some() {
        let page = client.job(id, &query).await.unwrap();
        items.extend(page.items);
        query.page_token = page.next_page_token;
    }
    assert_eq!(items.len() as u64, job.listed);
    (job, items)
}

async fn read(world: &World, entry: &Entry) -> Vec<u8> {
    world.content(&entry.id, &[]).await.body
}

/// Asserts that every file has the bytes of `seed`, but those of `but`.
async fn compare(world: &World, files: &BTreeMap<String, Entry>, seed: u64, but: &[u64]) {
    let numbers = (0..FILES).filter(|number| !but.contains(number));
    let read = async |number: u64| {
        let bytes = read(world, &files[&path(number)]).await;
        assert!(bytes == content(number, seed), "file {number} came back altered");
    };
    stream::iter(numbers)
        .map(read)
        .buffer_unordered(IN_FLIGHT)
        .collect::<()>()
        .await;
}

/// shows: N6 scale=300/10000
#[tokio::test]
async fn a_folder_that_was_overwritten_comes_back_byte_for_byte_and_what_somebody_changed_since_stays() {
    let world = World::start().await;
    let files = put_all(&world, 0, None).await;
    let then = instant(&world, "then").await;
    put_all(&world, 1_000_000, Some(1)).await;
    // Two went into the trash, and a note was left in each folder.
    for number in [20, 21] {
        world.client.trash(&files[&path(number)].id).await.unwrap();
    }
    for folder in 0..4 {
        world.put(&format!("/work/{folder}/PAY"), b"or else").await;
    }
    let work = id_of(&world, "/work").await;
    let empty = (0..FILES).filter(|number| content(*number, 0).is_empty()).count() as u64;
    let charged = world.client.me().await.unwrap().usage.bytes;

    let planned = begin(&world, &work, json!({"to": then, "dry_run": true})).await;
    assert_eq!((planned.state, planned.dry_run), (JobState::Looking, true));
    let (planned, items) = ended(&world.client, &planned.id, 7).await;
    let count = |action: RewindAction| items.iter().filter(|item| item.action == action).count() as u64;
    assert_eq!(planned.state, JobState::Planned);
    assert_eq!(count(RewindAction::RestoreContent), FILES - empty);
    assert_eq!(
        (count(RewindAction::MoveToTrash), count(RewindAction::TakeOutOfTrash)),
        (4, 2)
    );
    assert!(items.iter().all(|item| item.outcome == RewindOutcome::Planned));
    let now = world.content(&files[&path(1)].id, &[]).await.body;
    assert!(now == content(1, 1_000_000), "a dry run changed something");

    // Somebody saves a file before the list is carried out.
    let target = Target {
        base_version: Some(2),
        ..Target::new_file(path(5))
    };
    world.client.put(&target, b"saved".to_vec().into()).await.unwrap();
    let running = accepted(
        &world
            .call(Method::POST, &format!("/api/v1/jobs/{}/run", planned.id), None)
            .await,
    );
    let (done, items) = ended(&world.client, &running.id, 1000).await;
    assert_eq!(
        (done.state, done.done, done.left),
        (JobState::Done, FILES - empty + 6 - 1, 1)
    );
    let left = items.iter().find(|item| item.outcome == RewindOutcome::Left).unwrap();
    assert_eq!(left.path.as_deref(), Some(path(5).as_str()));
    assert_eq!(left.reason.as_deref(), Some("revision_conflict"));
    compare(&world, &files, 0, &[5]).await;
    assert_eq!(read(&world, &files[&path(5)]).await, b"saved");
    let tree = world.tree().await;
    assert!(
        !tree.iter().any(|path| path.ends_with("PAY")) && tree.contains(&path(20)),
        "{tree:?}"
    );
    let after = world.client.me().await.unwrap().usage.bytes;
    assert_eq!(after, charged + 5, "only what was saved is charged");

    // And back: to when the rewind was asked for.
    let back = begin(&world, &work, json!({"to": done.begun_at, "created": "keep"})).await;
    let (back, _) = ended(&world.client, &back.id, 1000).await;
    assert_eq!((back.state, back.left), (JobState::Done, 0));
    compare(&world, &files, 1_000_000, &[5]).await;
    assert_eq!(
        world.tree().await.iter().filter(|path| path.ends_with("PAY")).count(),
        4
    );
}

async fn id_of(world: &World, path: &str) -> String {
    let listing = world.client.list(path, 1, None).await.unwrap();
    listing.entry.id
}

#[tokio::test]
async fn a_rewind_goes_on_after_everything_was_killed() {
    let mut world = World::start().await;
    let files = put_all(&world, 0, None).await;
    let then = instant(&world, "then").await;
    put_all(&world, 1_000_000, Some(1)).await;
    let work = id_of(&world, "/work").await;
    let job = begin(&world, &work, json!({"to": then})).await;
    world.kill_and_restart().await;
    let (done, _) = ended(&world.client, &job.id, 1000).await;
    assert_eq!((done.state, done.left), (JobState::Done, 0));
    compare(&world, &files, 0, &[]).await;
}

#[tokio::test]
async fn what_cannot_be_rewound_is_refused_by_its_reason() {
    let world = World::start().await;
    let folder = make_folder(&world, "/a").await;
    let file = world.put("/a/f", b"1").await.entry;
    let then = instant(&world, "then").await;
    let rewind = format!("{METADATA}/{}/rewind", folder.id);
    let refused = async |path: &str, body: Value, status: u16, code: &str| {
        let answer = world.call(Method::POST, path, Some(&body)).await;
        answer.refused(status, code);
    };
    refused(
        &rewind,
        json!({"to": "2999-01-01T00:00:00.000Z"}),
        422,
        "rewind_in_future",
    )
    .await;
    refused(
        &rewind,
        json!({"to": "2001-01-01T00:00:00.000Z"}),
        422,
        "rewind_too_old",
    )
    .await;
    for body in [
        json!({}),
        json!({"to": "yesterday"}),
        json!({"to": "2026-11-21T14:43:41Z"}),
        json!({"to": 7}),
        json!({"to": then, "created": "burn"}),
        json!({"to": then, "more": 1}),
    ] {
        refused(&rewind, body, 400, "bad_json").await;
    }
    let body = json!({"to": then});
    refused(&format!("{METADATA}/x/rewind"), body.clone(), 400, "bad_id").await;
    refused(&format!("{rewind}?x=1"), body.clone(), 400, "bad_query").await;
    let asked = async |method: Method, path: &str| world.call(method, path, None).await;
    for never in [&file.id, &folder.id] {
        let job = format!("/api/v1/jobs/{never}");
        asked(Method::GET, &job).await.refused(404, "job_not_found");
        asked(Method::POST, &format!("{job}/run"))
            .await
            .refused(404, "job_not_found");
    }
    asked(Method::GET, "/api/v1/jobs/x").await.refused(400, "bad_id");
}

#[tokio::test]
async fn a_job_is_begun_once_under_a_key_and_is_there_for_whoever_asked_alone() {
    let world = World::start().await;
    let folder = make_folder(&world, "/a").await;
    let body = json!({"to": instant(&world, "then").await});
    let rewind = format!("{METADATA}/{}/rewind", folder.id);
    let asked = async |method: Method, path: &str| world.call(method, path, None).await;
    let keyed = async |body: &Value| {
        let request = world
            .client
            .request(Method::POST, &rewind)
            .header("idempotency-key", "once");
        world.send(request.json(body)).await
    };
    let first = accepted(&keyed(&body).await);
    assert_eq!(accepted(&keyed(&body).await).id, first.id);
    keyed(&json!({"to": body["to"], "dry_run": true}))
        .await
        .refused(422, "request_id_reused");
    let job = format!("/api/v1/jobs/{}", first.id);
    let (done, items) = ended(&world.client, &first.id, 10).await;
    assert_eq!((done.state, done.listed, items.len()), (JobState::Done, 0, 0));
    asked(Method::POST, &format!("{job}/run"))
        .await
        .refused(409, "rewind_not_planned");
    asked(Method::DELETE, &job).await.refused(409, "job_not_cancellable");
    asked(Method::GET, &format!("{job}?limit=1001"))
        .await
        .refused(400, "bad_limit");
    asked(Method::GET, &format!("{job}?page_token=x"))
        .await
        .refused(400, "bad_page_token");
    let (other, _) = world.user("other", 1 << 20).await;
    world
        .call_as(&other, Method::GET, &job, None)
        .await
        .refused(404, "job_not_found");
    let run = world.call_as(&other, Method::POST, &format!("{job}/run"), None).await;
    run.refused(404, "job_not_found");
    let body = Some(&body);
    world
        .call_as(&other, Method::POST, &rewind, body)
        .await
        .refused(404, "not_found");
    world.client.trash(&folder.id).await.unwrap();
    world.call(Method::POST, &rewind, body).await.refused(409, "in_trash");
}
