//! Wall clocks of all processes set wrong by a day and by sixty, both ways, while they run: nothing is destroyed, and order holds.
//!
//! Versions, the trash, an upload under way, a follower's cursor and the id of a request outlast all of it.
//! Every process sees every offset, and neighbours never agree: they are up to 120 days apart. A process whose clock lies before its
//! certificate is refused, which has a test of its own here.
//! Not here: other faults at the same time (the simulated world has wrong clocks among its faults).

use crate::separate_processes::{Cluster, accounts, check_all, put};
use crate::served::{Plan, eventually};
use crate::startup::{refused_by_itself, says};
use crate::world::noise;
use api::change::ChangeKind;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use reqwest::Method;
use std::fs;
use std::time::Duration;
use tokio::sync::mpsc;

/// What stands for the right time: so far ahead of the certificates that none of the offsets lies before them.
const RIGHT_DAYS: i64 = 70;
const OFFSETS_DAYS: [i64; 5] = [1, -1, 60, -60, 0];
/// Parts of the upload that lasts from before the first offset to behind the last: after three it has a session.
const PART_BYTES: usize = 5 << 20;

/// The administrator, signed in by the gateway's present clock.
async fn sign_in(plan: &Plan) -> Client {
    let password = fs::read_to_string(plan.path("password")).unwrap();
    eventually("sign-in", async || plan.client().login("ann", &password).await).await
}

/// The next content of `/f`; its version follows the one before.
async fn write_version(client: &Client, base: u64, content: &[u8]) -> String {
    let target = Target {
        base_version: (base > 0).then_some(base),
        ..Target::new_file("/f")
    };
    // A repeat after an outcome that nobody told meets itself: equal content is no conflict.
    let put = eventually("a version", async || {
        client.put(&target, Bytes::copy_from_slice(content)).await
    });
    let entry = put.await.entry;
    assert_eq!(entry.version, base + 1, "{entry:?}");
    entry.id
}

async fn check_versions(client: &Client, id: &str, contents: &[Vec<u8>]) {
    for (at, content) in contents.iter().enumerate() {
        let path = format!("/api/v1/files/{id}/content?version={}", at + 1);
        let back = eventually("a version", async || {
            let answer = client.request(Method::GET, &path).send().await?.error_for_status()?;
            Ok::<_, ClientError>(answer.bytes().await?)
        });
        assert!(back.await == *content, "version {}", at + 1);
    }
    // Whoever comes with an older one is told, whatever the clocks say.
    let target = Target {
        base_version: Some(contents.len() as u64 - 1),
        ..Target::new_file("/f")
    };
    let stale = client.put(&target, "stale".into()).await;
    assert!(
        matches!(&stale, Err(ClientError::Refused { status: 409, code, .. }) if code == "version_conflict"),
        "{stale:?}"
    );
}

/// An upload whose parts are sent when the test says so.
struct SlowUpload {
    parts: mpsc::Sender<Bytes>,
    ended: tokio::task::JoinHandle<Result<String, ClientError>>,
    sent: Vec<u8>,
}

impl SlowUpload {
    fn begin(client: &Client, parts_count: usize) -> Self {
        let (parts, receiver) = mpsc::channel(1);
        let client = client.clone();
        let ended = tokio::spawn(async move {
            let stream = futures_util::stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
                let part = receiver.recv().await?;
                Some((Ok(part), receiver))
            });
            let length = (parts_count * PART_BYTES) as u64;
            let put = client.put_stream(&Target::new_file("/slow"), length, stream).await?;
            Ok(put.entry.id)
        });
        Self {
            parts,
            ended,
            sent: Vec::new(),
        }
    }

    async fn send(&mut self, seed: u64) {
        let part = noise(seed, PART_BYTES);
        self.sent.extend(&part);
        self.parts.send(part.into()).await.unwrap();
    }
}

/// Moves an entry in the trash back out, and in again.
async fn turn_in_trash(client: &Client, id: &str) {
    let restore = format!("/api/v1/metadata/{id}/restore");
    eventually("restore", async || client.json(Method::POST, &restore, None).await).await;
    eventually("trash", async || client.trash(id).await).await;
}

/// Who follows the drive from before the first offset on.
struct Follower {
    began_at: String,
    stands_at: String,
    told: Vec<(u64, ChangeKind, String)>,
}

impl Follower {
    async fn begin(client: &Client) -> Self {
        let end = eventually("the feed's end", async || client.changes(None, 1, false).await).await;
        Self {
            began_at: end.cursor.clone(),
            stands_at: end.cursor,
            told: Vec::new(),
        }
    }

    /// Takes in what has changed since the last time, and compares all of it with what is told to whoever begins anew.
    async fn follow(&mut self, client: &Client) {
        let behind = async |cursor: &str| {
            let page = eventually("changes", async || client.changes(Some(cursor), 1000, false).await).await;
            assert!(!page.has_more, "{page:?}");
            let changes = page.changes.into_iter();
            let changes = changes.map(|change| (change.sequence, change.kind, change.file_id));
            (changes.collect::<Vec<_>>(), page.cursor)
        };
        let (new, end) = behind(&self.stands_at).await;
        assert!(!new.is_empty(), "nothing changed behind {:?}", self.told.last());
        self.told.extend(new);
        self.stands_at = end;
        let (whole, _) = behind(&self.began_at).await;
        assert_eq!(whole, self.told, "the feed of the past is another one");
        let in_order = |pair: &[(u64, ChangeKind, String)]| pair[0].0 + 1 == pair[1].0;
        assert!(self.told.windows(2).all(in_order), "{:?}", self.told);
        let wait = Duration::from_secs(30);
        let polled = eventually("a poll", async || client.poll(&self.began_at, wait).await).await;
        assert!(polled.changes, "{polled:?}");
    }
}

/// shows: D-2.2 scale=1/2
/// shows: F10 side=clocks
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_wrong_by_days_destroy_nothing_and_change_no_order() {
    let mut cluster = Cluster::of(Plan::make());
    let names = cluster.plan.names();
    for name in &names {
        cluster.plan.set_clock(name, RIGHT_DAYS);
        let served = cluster.plan.start_with_clock(name);
        cluster.take_in(name, served);
    }
    cluster.ready().await;
    accounts(&cluster.plan).await;
    let client = sign_in(&cluster.plan).await;
    let mut follower = Follower::begin(&client).await;
    let id = client.request_id("once").await.unwrap();
    let make_once =
        async |client: &Client| eventually("a folder", async || client.make_folder_under(&id, "/once").await).await;
    let once = make_once(&client).await;
    let mut versions = vec![noise(0, 300_000)];
    let file = write_version(&client, 0, &versions[0]).await;
    let mut files = vec![(put(&client, "/first", &noise(1, 100_000)).await, noise(1, 100_000))];
    let trashed = put(&client, "/trashed", &noise(2, 10_000)).await;
    eventually("trash", async || client.trash(&trashed).await).await;
    let mut slow = SlowUpload::begin(&client, OFFSETS_DAYS.len() + 3);
    for seed in 10..13 {
        slow.send(seed).await;
    }
    for phase in 0..OFFSETS_DAYS.len() {
        for (at, name) in names.iter().enumerate() {
            let offset = OFFSETS_DAYS[(at + phase) % OFFSETS_DAYS.len()];
            cluster.plan.set_clock(name, RIGHT_DAYS + offset);
        }
        if phase == 2 {
            // Who starts with a wrong clock does the same.
            for name in ["metadata-2", "node-4"] {
                cluster.kill(name);
                let served = cluster.plan.start_with_clock(name);
                cluster.take_in(name, served);
            }
        }
        let client = sign_in(&cluster.plan).await;
        versions.push(noise(100 + phase as u64, 300_000));
        let base = versions.len() as u64 - 1;
        assert_eq!(write_version(&client, base, &versions[versions.len() - 1]).await, file);
        check_versions(&client, &file, &versions).await;
        let bytes = noise(200 + phase as u64, 100_000);
        files.push((put(&client, &format!("/file-{phase}"), &bytes).await, bytes));
        check_all(&client, &files).await;
        turn_in_trash(&client, &trashed).await;
        assert_eq!(make_once(&client).await, once, "a repeat gets the first answer");
        follower.follow(&client).await;
        slow.send(20 + phase as u64).await;
        cluster.check_running();
    }
    for name in &names {
        cluster.plan.set_clock(name, RIGHT_DAYS);
    }
    let SlowUpload { parts, ended, sent } = slow;
    drop(parts);
    let id = ended.await.unwrap().unwrap();
    files.push((id, sent));
    let client = sign_in(&cluster.plan).await;
    check_all(&client, &files).await;
    check_versions(&client, &file, &versions).await;
    let listing = client.list("/", 100, None).await.unwrap();
    // Beside those files `/f` and `/once`.
    assert_eq!(listing.entries.len(), files.len() + 2, "nothing more, nothing less");
    assert_eq!(make_once(&client).await, once);
    follower.follow(&client).await;
}

#[tokio::test]
async fn a_process_whose_clock_lies_before_its_certificate_says_so_and_ends() {
    let plan = Plan::make();
    for (name, days, words) in [("node-1", -1, "is not valid yet"), ("metadata-1", 800, "has expired")] {
        plan.set_clock(name, days);
        let text = refused_by_itself(plan.start_with_clock(name), name).await;
        says(name, &text, &[&format!("identities/{name}"), words]);
    }
}
