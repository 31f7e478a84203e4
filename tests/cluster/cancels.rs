//! Uploads and downloads that go away anywhere, many at once: what was acknowledged is whole, and nothing is held for the others.
//!
//! A buffer given back to others while somebody still fills or sends it would show as wrong bytes in one of the files.
//! Not here: one cut at a time at chosen bytes (`cuts`), requests dropped inside (gateway/src/tests, on a clock that can be moved).

use crate::outside::text;
use crate::served::eventually;
use crate::wire::{Sender, head};
use crate::world::{World, noise, tree_of};
use chaos::meter;
use client_sdk::client::{Client, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::task::JoinSet;

const MIB: u64 = 1 << 20;
const JOBS: u64 = 200;
const AT_ONCE: usize = 16;
/// Files that are there before, for the downloads.
const BASE_FILES: u64 = 6;
const QUOTA: u64 = 4 << 30;

/// A number below `bound` that follows from the job and the question.
fn drawn(job: u64, question: u64, bound: u64) -> u64 {
    let bytes = noise(job << 8 | question, 8);
    u64::from_le_bytes(bytes.try_into().unwrap()) % bound
}

fn length(job: u64) -> u64 {
    MIB + drawn(job, 1, 5 * MIB)
}

fn content(job: u64) -> Vec<u8> {
    noise(job, length(job) as usize)
}

fn path(job: u64) -> String {
    format!("/{job:03}")
}

/// What a job left behind for the account.
enum Left {
    Nothing,
    /// The upload of this job was acknowledged as this entry.
    Acknowledged(u64, String),
    /// All of its bytes were sent and no answer was read.
    Unknown(u64),
}

/// An upload that ends at a drawn byte, by a reset: half-way, or behind the last byte and before the answer.
async fn cut_upload(world: Arc<World>, client: Client, job: u64) -> Left {
    let (bytes, line) = (
        content(job),
        format!("POST /api/v1/files/upload?uploadType=media&path={}", path(job)),
    );
    let sent = match drawn(job, 2, 10) {
        0 => bytes.len(),
        _ => drawn(job, 3, bytes.len() as u64) as usize,
    };
    let mut sender = Sender::open(&world).await;
    sender
        .send(&head(&client, &line, &format!("content-length: {}\r\n", bytes.len())))
        .await;
    sender.send(&bytes[..sent]).await;
    sender.reset();
    if sent == bytes.len() {
        Left::Unknown(job)
    } else {
        Left::Nothing
    }
}

async fn whole_upload(client: Client, job: u64) -> Left {
    let put = client.put(&Target::new_file(path(job)), content(job).into()).await;
    Left::Acknowledged(job, put.unwrap().entry.id)
}

/// A download of a file whose content is that of job `of`, up to a drawn byte or to its end.
async fn download(client: Client, id: String, of: u64, job: u64) -> Left {
    let expected = content(of);
    let upto = match drawn(job, 4, 2) {
        0 => expected.len(),
        _ => drawn(job, 5, expected.len() as u64) as usize,
    };
    let mut answer = client.get(&id, None).await.unwrap();
    let mut read = 0;
    while read < upto || upto == expected.len() {
        let Some(bytes) = answer.chunk().await.unwrap() else {
            break;
        };
        assert!(
            expected[read..].starts_with(&bytes),
            "job {job}: other bytes from {read} on"
        );
        read += bytes.len();
    }
    assert!(read >= upto, "job {job}: the body ends at {read} of {upto}");
    Left::Nothing
}

fn equal(found: f64, expected: f64) -> Result<(), String> {
    (found == expected)
        .then_some(())
        .ok_or_else(|| format!("{found} instead of {expected}"))
}

/// Neither promised bytes of the gateway's budget nor waiting requests of a replica are left.
async fn all_is_given_back(world: &World) {
    let whole = world.metric("gateway_budget_bytes").await;
    assert!(whole > 0.0);
    eventually("bytes of the budget stay promised", async || {
        equal(world.metric("gateway_budget_free_bytes").await, whole)
    })
    .await;
    let processes = world.cluster.facts.processes.iter();
    for process in processes.filter(|process| process.role == "metadata") {
        eventually("requests wait for their answer", async || {
            let page = text(process.status.unwrap(), "/metrics").await;
            equal(meter::sum(&page, "metadata_waiting_requests").unwrap_or(0.0), 0.0)
        })
        .await;
    }
}

/// shows: F21
#[tokio::test]
async fn uploads_and_downloads_that_go_away_anywhere_spoil_no_other() {
    let world = Arc::new(World::start().await);
    let (ada, _) = world.user("ada", QUOTA).await;
    let mut acknowledged = BTreeMap::new();
    for job in JOBS..JOBS + BASE_FILES {
        let Left::Acknowledged(job, id) = whole_upload(ada.clone(), job).await else {
            unreachable!("a whole upload is acknowledged or panics")
        };
        acknowledged.insert(job, id);
    }
    let base = acknowledged.clone();
    let (mut jobs, mut unknown, mut cut) = (JoinSet::new(), BTreeSet::new(), 0_u64);
    let mut next = 0;
    loop {
        while jobs.len() < AT_ONCE && next < JOBS {
            match drawn(next, 0, 4) {
                0 => drop(jobs.spawn(whole_upload(ada.clone(), next))),
                1 => {
                    cut += 1;
                    jobs.spawn(cut_upload(Arc::clone(&world), ada.clone(), next));
                }
                _ => {
                    let of = JOBS + drawn(next, 6, BASE_FILES);
                    cut += drawn(next, 4, 2);
                    jobs.spawn(download(ada.clone(), base[&of].clone(), of, next));
                }
            }
            next += 1;
        }
        let Some(left) = jobs.join_next().await else { break };
        match left.unwrap() {
            Left::Nothing => {}
            Left::Acknowledged(job, id) => drop(acknowledged.insert(job, id)),
            Left::Unknown(job) => drop(unknown.insert(job)),
        }
    }
    assert!(cut > JOBS / 3, "only {cut} were cut");
    all_is_given_back(&world).await;

    let tree = tree_of(&ada).await;
    let job_of = |path: &String| path.trim_start_matches('/').parse::<u64>().unwrap();
    let found: BTreeSet<u64> = tree.iter().map(job_of).collect();
    let must: BTreeSet<u64> = acknowledged.keys().copied().collect();
    assert!(must.is_subset(&found), "lost: {:?}", must.difference(&found));
    let extra: BTreeSet<u64> = found.difference(&must).copied().collect();
    assert!(extra.is_subset(&unknown), "half-sent and visible: {extra:?}");
    let held: u64 = found.iter().map(|job| length(*job)).sum();
    eventually("more is charged than is visible", async || {
        equal(ada.me().await.unwrap().usage.bytes as f64, held as f64)
    })
    .await;
    for entry in ada.list("/", 1000, None).await.unwrap().entries {
        let job = job_of(&entry.name);
        let back = ada.get(&entry.id, None).await.unwrap().bytes().await.unwrap();
        assert!(back == content(job), "the content of {job} came back altered");
    }
    println!(
        "{cut} of {JOBS} cut, {} acknowledged, {} unknown",
        must.len(),
        unknown.len()
    );
}
