//! No lost wake-up: many drives, several followers each, commits all the while, and processes killed meanwhile. Each follower is told
//! every change exactly once and in the order of the commits.
//!
//! `HOLDFAST_FOLLOWERS=100x10x10000` sets drives, followers of each and commits of all; `make followers` runs that size.

use crate::child_processes::url;
use crate::world::{PASSWORD, World};
use chaos::process_attack;
use client_sdk::client::Client;
use client_sdk::error::ClientError;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Nobody makes no progress for so long: several elections and starts of processes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
const PAUSE: Duration = Duration::from_millis(100);

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

    /// Makes folders one after the other; their names are in the order of their commits.
    async fn write(&self, commits: usize, done: &AtomicUsize) {
        for number in 0..commits {
            let path = format!("/{number}");
            self.eventually(number, async |client: &Client| match client.make_folder(&path).await {
                // An earlier try was answered too late.
                Err(ClientError::Refused { code, .. }) if code == "name_taken" => Ok(()),
                made => made.map(drop),
            })
            .await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Follows from `cursor` until all commits are told.
    async fn follow(&self, first: usize, mut cursor: String, commits: usize) {
        let (mut told, mut turn) = (0, first);
        while told < commits {
            turn += 1;
            let answer = self
                .eventually(turn, async |client: &Client| {
                    client.poll(&cursor, Duration::from_secs(10)).await
                })
                .await;
            for event in &answer.events {
                told += 1;
                assert_eq!(event.sequence, told as u64, "a change is missing or doubled");
                let name = event.entry.as_ref().map(|entry| entry.name.clone());
                assert_eq!(name, Some((told - 1).to_string()), "out of order");
            }
            cursor = answer.cursor;
        }
        let rest = self
            .eventually(turn, async |client: &Client| {
                client.changes(Some(&cursor), 100, false).await
            })
            .await;
        assert!(rest.changes.is_empty(), "told more than was committed");
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

/// shows: N1, CMP-queue scale=1/2, CMP-meta side=events
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
