//! No lost wake-up: many drives, several followers each, commits all the while, and processes killed meanwhile. Each follower is told
//! every change exactly once and in the order of the commits: folders and files that are made, written, renamed, moved, trashed and
//! restored.
//!
//! Every other follower takes what polls tell, where of several changes of an entry the last one stands for all; the others are only
//! woken by polls and read pages that leave nothing out.
//! `HOLDFAST_FOLLOWERS=100x10x10000` sets drives, followers of each and commits of all; `make followers` runs that size.

use crate::child_processes::url;
use crate::world::{PASSWORD, World};
use api::change::{Change, ChangeKind};
use bytes::Bytes;
use chaos::process_attack;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use client_sdk::request_id::RequestId;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Nobody makes no progress for so long: several elections and starts of processes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(100);
/// What is told of the commits of a round; the first makes a folder, all others are of one file, which is made in it.
const ROUND: [ChangeKind; 8] = [
    ChangeKind::Created,
    ChangeKind::Created,
    ChangeKind::Updated,
    ChangeKind::Moved,
    ChangeKind::Moved,
    ChangeKind::Trashed,
    ChangeKind::Restored,
    ChangeKind::Updated,
];

/// Drives, followers of each, commits to each.
fn sizes() -> (usize, usize, usize) {
    let text = std::env::var("HOLDFAST_FOLLOWERS").unwrap_or_else(|_| "4x3x800".to_owned());
    let sizes: Vec<usize> = text.split('x').map(|part| part.parse().unwrap()).collect();
    let [drives, followers, commits] = sizes[..] else {
        panic!("HOLDFAST_FOLLOWERS is drives x followers x commits");
    };
    (drives, followers, commits / drives)
}

/// One account at every gateway.
struct Account(Vec<Client>);

impl Account {
    async fn new(world: &World, number: usize, gateways: &[String]) -> Self {
        let name = format!("user-{number}");
        let admin = world.cluster.admin().unwrap();
        let wanted = json!({"username": name, "password": PASSWORD});
        admin.json(Method::POST, "/api/v1/users", Some(&wanted)).await.unwrap();
        let client = Client::new(&gateways[0]).unwrap().login(&name, PASSWORD).await.unwrap();
        let token = client.token().unwrap();
        let at = |url: &String| Client::new(url).unwrap().with_token(token);
        Self(gateways.iter().map(at).collect())
    }

    /// What `call` gives at one of the gateways, however many are dead at present.
    async fn eventually<T>(&self, first: usize, call: impl AsyncFn(&Client) -> Result<T, ClientError>) -> T {
        let begun = Instant::now();
        for turn in first.. {
            match call(&self.0[turn % self.0.len()]).await {
                Ok(done) => return done,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("turns do not end")
    }

    /// Makes commits one after the other.
    async fn write(&self, commits: usize, done: &AtomicUsize) {
        let mut file = String::new();
        for number in 0..commits {
            if let Some(made) = self.commit(number, &file).await {
                file = made;
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes a commit, once however often it is tried; gives the id of a new file. `file` is that of the round.
    async fn commit(&self, number: usize, file: &str) -> Option<String> {
        let round = number / ROUND.len();
        let (folder, moved) = (format!("/{round}"), format!("/{round} moved"));
        let entry = format!("/api/v1/metadata/{file}");
        match number % ROUND.len() {
            0 => {
                let id = self.request_id(number).await;
                self.eventually(number, async |client: &Client| {
                    client.make_folder_under(&id, &folder).await
                })
                .await;
            }
            1 => return Some(self.put(number, format!("{folder}/a"), None).await),
            2 => drop(self.put(number, format!("{folder}/a"), Some(1)).await),
            3 => {
                self.call(number, Method::PATCH, &entry, Some(json!({"name": "b"})))
                    .await
            }
            4 => {
                self.call(number, Method::PATCH, &entry, Some(json!({"path": moved})))
                    .await
            }
            5 => self.call(number, Method::DELETE, &entry, None).await,
            6 => {
                let restore = format!("{entry}/restore");
                self.call(number, Method::POST, &restore, Some(json!({}))).await;
            }
            _ => drop(self.put(number, moved, Some(2)).await),
        }
        None
    }

    async fn request_id(&self, number: usize) -> RequestId {
        self.eventually(number, async |client: &Client| {
            client.request_id(format!("commit-{number}")).await
        })
        .await
    }

    /// Puts a content; gives the id of the file.
    async fn put(&self, number: usize, path: String, base_version: Option<u64>) -> String {
        let target = Target {
            path,
            base_version,
            parents: false,
        };
        let content = Bytes::from(format!("content of commit {number}"));
        let id = self.request_id(number).await;
        let put = self
            .eventually(number, async |client: &Client| {
                client.put_under(&id, &target, content.clone()).await
            })
            .await;
        put.entry.id
    }

    /// Renames, moves, trashes or restores, of which none can be done twice: a name and a folder that an entry has already are no change.
    async fn call(&self, number: usize, method: Method, path: &str, body: Option<Value>) {
        self.eventually(number, async |client: &Client| {
            match client.json(method.clone(), path, body.as_ref()).await {
                // An earlier try was answered too late.
                Err(ClientError::Refused { code, .. }) if code == "in_trash" || code == "not_in_trash" => Ok(()),
                answer => answer.map(drop),
            }
        })
        .await;
    }

    /// Follows from `cursor` until all commits are told.
    async fn follow(&self, number: usize, mut cursor: String, commits: usize) {
        let (mut told, mut turn, mut at) = (Told::default(), number, Instant::now());
        while told.last < commits {
            turn += 1;
            let answer = self
                .eventually(turn, async |client: &Client| {
                    client.poll(&cursor, Duration::from_secs(10)).await
                })
                .await;
            let before = told.last;
            if number.is_multiple_of(2) {
                told.take(&answer.events);
                cursor = answer.cursor;
            } else if answer.changes {
                let page = self
                    .eventually(turn, async |client: &Client| {
                        client.changes(Some(&cursor), 100, false).await
                    })
                    .await;
                assert_eq!(told.last + page.changes.len(), told.take(&page.changes), "left out");
                cursor = page.cursor;
            }
            if told.last > before {
                at = Instant::now();
            }
            assert!(at.elapsed() < PATIENCE, "told of {} of {commits}", told.last);
        }
        assert_eq!(told.last, commits, "told more than was committed");
        told.check();
        let rest = self
            .eventually(turn, async |client: &Client| {
                client.changes(Some(&cursor), 100, false).await
            })
            .await;
        assert!(rest.changes.is_empty(), "told more than was committed");
    }
}

/// The entry that a commit is of: its round, and whether it is the file.
fn entry_of(commit: usize) -> (usize, bool) {
    (commit / ROUND.len(), !commit.is_multiple_of(ROUND.len()))
}

/// What one follower was told.
#[derive(Default)]
struct Told {
    /// Changes from the first on, which are as many commits.
    last: usize,
    ids: BTreeMap<(usize, bool), String>,
}

impl Told {
    /// Takes in what one answer tells, in which a change may stand for earlier ones of its entry; gives the last change.
    fn take(&mut self, changes: &[Change]) -> usize {
        let mut stands_for = BTreeMap::new();
        let before = self.last;
        for change in changes {
            let sequence = usize::try_from(change.sequence).unwrap();
            assert!(sequence > self.last, "doubled or out of order: {change:?}");
            let commit = sequence - 1;
            assert_eq!(change.kind, ROUND[commit % ROUND.len()], "{change:?}");
            let id = self
                .ids
                .entry(entry_of(commit))
                .or_insert_with(|| change.file_id.clone());
            assert_eq!(*id, change.file_id, "of another entry: {change:?}");
            stands_for.insert(entry_of(commit), commit);
            self.last = sequence;
        }
        for commit in before..self.last {
            let last = stands_for.get(&entry_of(commit));
            assert!(
                last.is_some_and(|last| *last >= commit),
                "change {} is missing",
                commit + 1
            );
        }
        self.last
    }

    /// No two entries have one id.
    fn check(&self) {
        let ids: BTreeSet<&String> = self.ids.values().collect();
        assert_eq!(ids.len(), self.ids.len(), "one entry is told as two");
    }
}

/// Kills what leads the metadata and each gateway in turn, at moments that follow from how far the commits are.
async fn attack(world: &World, done: &AtomicUsize, commits: usize) {
    let until = async |part: usize| {
        while done.load(Ordering::Relaxed) < commits * part / 8 {
            tokio::time::sleep(PAUSE).await;
        }
    };
    for (part, victim) in [(1, None), (3, Some("gateway-2")), (5, None), (6, Some("gateway-1"))] {
        until(part).await;
        let victim = match victim {
            Some(name) => name.to_owned(),
            None => process_attack::leader(&world.cluster).await.unwrap(),
        };
        process_attack::kill(&world.cluster, &victim).await.unwrap();
        until(part + 1).await;
        process_attack::start(&world.cluster, &victim).await.unwrap();
    }
}

/// shows: N1 scale=800/10000, CMP-queue scale=1/2, CMP-meta side=events
#[tokio::test(flavor = "multi_thread")]
async fn no_follower_misses_a_change_while_leaders_and_gateways_are_killed() {
    let (drives, followers, commits) = sizes();
    let world = World::start_with(&["--processes", "--groups", "2", "--gateways", "2"]).await;
    let gateways = [url(&world, 1), url(&world, 2)];
    let mut accounts = Vec::new();
    for number in 0..drives {
        accounts.push(Account::new(&world, number, &gateways).await);
    }
    let done = AtomicUsize::new(0);
    let mut starts = Vec::new();
    for account in &accounts {
        starts.push(account.0[0].changes(None, 1, false).await.unwrap().cursor);
    }
    let writing = join_all(accounts.iter().map(|account| account.write(commits, &done)));
    let following = accounts
        .iter()
        .zip(&starts)
        .flat_map(|(account, start)| (0..followers).map(move |number| account.follow(number, start.clone(), commits)));
    tokio::join!(writing, join_all(following), attack(&world, &done, drives * commits));
    assert_eq!(done.into_inner(), drives * commits);
}
