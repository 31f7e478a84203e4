//! As many groups of drives as a configuration has that names no number: all are led and served, also when the metadata process that
//! leads most of them is killed.
//!
//! Not here: how long their users wait (`make kills`), which of two processes is handed a group (`metadata-raft`).

use crate::served::eventually;
use crate::world::{World, noise};
use bytes::Bytes;
use chaos::{group_users, process_attack};
use client_sdk::client::{Client, Target};
use model::id::GroupId;
use reqwest::Method;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The default of `metadata.groups`.
const GROUPS: u32 = 64;
/// Users of these are served: the first, the last, and some between.
const OF_USERS: [u32; 4] = [1, 23, 42, GROUPS];
/// So many of them handed to the process that came back are a spread that has begun; each of the others hands one over in a second.
const HANDED: usize = 4;

/// A user and what he wrote, by the ids of the files.
struct User {
    client: Client,
    files: Vec<(String, Bytes)>,
}

impl User {
    async fn write(&mut self, path: &str, seed: u64) {
        let content = Bytes::from(noise(seed, 20_000));
        let target = Target::new_file(path);
        let put = eventually("a write", async || self.client.put(&target, content.clone()).await).await;
        self.files.push((put.entry.id, content));
    }

    async fn check(&self) {
        for (id, content) in &self.files {
            let back = self.client.get(id, None).await.unwrap().bytes().await.unwrap();
            assert!(back == *content, "{id} came back altered");
        }
        let listed = self.client.list("/", 100, None).await.unwrap().entries;
        assert_eq!(listed.len(), self.files.len());
    }
}

/// The groups that each process leads that leads any; every group, the control group too, is led by exactly one.
async fn led(world: &World) -> BTreeMap<String, BTreeSet<u32>> {
    let leaders = process_attack::leaders(&world.cluster, 0..=GROUPS).await.unwrap();
    let mut led: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for (group, leader) in leaders {
        led.entry(leader).or_default().insert(group);
    }
    led
}

/// Every group has a leader that a majority confirms and answers a query, as an operator sees it.
async fn all_served(admin: &Client) -> Result<(), String> {
    let status = admin.json(Method::GET, "/api/v1/admin/status", None).await;
    let status = status.map_err(|error| error.to_string())?;
    let groups = status["groups"].as_array().unwrap();
    assert_eq!(groups.len(), GROUPS as usize + 1, "{status}");
    let unled = groups.iter().find(|group| group["leader"].as_u64().is_none());
    match (unled, &status["stripes"]["is_complete"]) {
        (None, Value::Bool(true)) => Ok(()),
        _ => Err(format!("{unled:?} {}", status["stripes"])),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_groups_lead_and_serve_again_and_spread_when_the_leader_of_most_is_killed() {
    let world = World::start_with(&["--processes", "--groups", &GROUPS.to_string()]).await;
    let admin = world.cluster.admin().unwrap();
    let mut users = Vec::new();
    for (seed, group) in (0..).zip(OF_USERS) {
        let client = group_users::user_in(&world.cluster, GroupId(group), GROUPS, "user").await;
        let mut user = User {
            client: client.unwrap(),
            files: Vec::new(),
        };
        user.write("/before", seed).await;
        users.push(user);
    }
    let before = led(&world).await;
    let (victim, lost) = before.iter().max_by_key(|(_, groups)| groups.len()).unwrap();
    assert!(lost.len() >= 22, "65 groups over three processes: {before:?}");

    process_attack::kill(&world.cluster, victim).await.unwrap();
    for (seed, user) in (10..).zip(&mut users) {
        user.write("/without", seed).await;
    }
    eventually("leaders at both that are left", async || {
        let led = led(&world).await;
        match (led.len(), led.get(victim)) {
            (2, None) => Ok(()),
            _ => Err(format!("{led:?} without {victim}")),
        }
    })
    .await;
    eventually("answers of all groups", async || all_served(&admin).await).await;

    process_attack::start(&world.cluster, victim).await.unwrap();
    eventually("groups at the process that came back", async || {
        let led = led(&world).await;
        match (led.len(), led.get(victim).map_or(0, BTreeSet::len)) {
            (3, HANDED..) => Ok(()),
            _ => Err(format!("{led:?} with {victim} again")),
        }
    })
    .await;
    eventually("answers of all groups again", async || all_served(&admin).await).await;
    for (seed, user) in (20..).zip(&mut users) {
        user.write("/after", seed).await;
        user.check().await;
    }
}
