//! A gateway whose map of slots is not the present one: the group that it asks says `not_mine`, it fetches the map and goes on, and its
//! clients notice nothing.
//!
//! The groups and the gateway of a dev cluster over QUIC; only the map in the gateway's memory is set back. A slot stays with its
//! group (`slot_owned`), so what is planted is what only a move could make, and a map from before a slot was given to anybody.
//! Not here: which replica of a group is asked (gateway/src/drive/metadata_client/tests.rs).

use crate::inside::Inside;
use crate::served::eventually;
use crate::world::PASSWORD;
use bytes::Bytes;
use client_sdk::client::{Client, Target};
use gateway::drive::metadata_client::MetadataClient;
use gateway::metrics::METADATA_RETRIES;
use model::id::{GroupId, Slot};
use protocol::metadata::control::{GroupInfo, ProcessInfo, SlotRange};
use protocol::metadata::query::ControlQuery;
use protocol::metadata::{Query, QueryAnswer};
use reqwest::Method;
use serde_json::json;

/// What the control group says.
struct Truth {
    slots: Vec<SlotRange>,
    groups: Vec<GroupInfo>,
    processes: Vec<ProcessInfo>,
}

impl Truth {
    async fn fetch(metadata: &MetadataClient) -> Self {
        let ask = async |what| metadata.query(&Query::Control(what), 1).await.unwrap().0;
        let (slots, groups, processes) = (
            ask(ControlQuery::Slots).await,
            ask(ControlQuery::Groups).await,
            ask(ControlQuery::Processes).await,
        );
        match (slots, groups, processes) {
            (QueryAnswer::Slots(slots), QueryAnswer::Groups(groups), QueryAnswer::Processes(processes)) => Self {
                slots,
                groups,
                processes,
            },
            other => panic!("{other:?}"),
        }
    }

    /// Has the gateway believe in these owners of slots.
    fn replace(&self, metadata: &MetadataClient, slots: Vec<SlotRange>) {
        metadata.set_routes(slots, &self.groups, self.processes.clone());
    }
}

/// How often the gateway was told that a slot is another group's.
fn refusals(inside: &Inside) -> u64 {
    let retries = inside.core().seams.metrics.counter(&METADATA_RETRIES);
    retries.with_label_values(&["not_mine"]).get()
}

/// The demo user and one whose slot the other group serves.
async fn users(inside: &Inside) -> Vec<(Slot, Client)> {
    let metadata = &inside.core().metadata;
    let facts = inside.facts();
    let of_demo = Slot::of_username(&facts.user);
    let names = (0..).map(|number| format!("user{number}"));
    let mut elsewhere = names.filter(|name| metadata.group_of(Slot::of_username(name)) != metadata.group_of(of_demo));
    let name = elsewhere.next().unwrap();
    let admin = Client::new(&facts.url).unwrap().with_token(&facts.admin_token);
    let wanted = json!({"username": name, "password": PASSWORD, "quota_bytes": 1 << 30});
    admin.json(Method::POST, "/api/v1/users", Some(&wanted)).await.unwrap();
    let other = Client::new(&facts.url).unwrap().login(&name, PASSWORD).await.unwrap();
    vec![(of_demo, inside.client.clone()), (Slot::of_username(&name), other)]
}

async fn names(client: &Client) -> Vec<String> {
    let listing = client.list("/", 100, None).await.unwrap();
    listing.entries.into_iter().map(|entry| entry.name).collect()
}

/// shows: D-3.9 side=refresh
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_with_an_old_map_is_told_not_mine_and_goes_on_with_the_new_one() {
    let inside = Inside::start_with(&["--groups", "2"]).await;
    let metadata = &inside.core().metadata;
    let truth = Truth::fetch(metadata).await;
    let other = |group: GroupId| GroupId(3 - group.0);
    let swapped = truth.slots.iter().map(|range| SlotRange {
        group: other(range.group),
        ..*range
    });
    let swapped: Vec<SlotRange> = swapped.collect();
    let users = users(&inside).await;
    assert_ne!(metadata.group_of(users[0].0), metadata.group_of(users[1].0));
    for (slot, client) in &users {
        let owner = metadata.group_of(*slot).unwrap();
        let mut made = names(client).await;
        for number in 0..2 {
            // A turn in which the gateway looked for itself just now proves nothing.
            eventually("a refusal", async || {
                let before = refusals(&inside);
                truth.replace(metadata, swapped.clone());
                let listed = names(client).await;
                assert_eq!(listed, made, "read by an old map");
                assert_eq!(metadata.group_of(*slot), Some(owner));
                match refusals(&inside) - before {
                    0 => Err("the map was fetched before it was used"),
                    _ => Ok(()),
                }
            })
            .await;
            truth.replace(metadata, swapped.clone());
            let name = format!("written by an old map {number}");
            let target = Target::new_file(format!("/{name}"));
            let put = client.put(&target, Bytes::from_static(b"content")).await.unwrap();
            assert_eq!(put.entry.version, 1);
            assert_eq!(metadata.group_of(*slot), Some(owner));
            made.push(name);
            made.sort();
            assert_eq!(names(client).await, made);
        }
    }

    // The map of a gateway that learned it before these slots were given to anybody.
    for (slot, client) in &users {
        let owner = metadata.group_of(*slot).unwrap();
        let before = truth.slots.iter().flat_map(|range| without(range, *slot)).collect();
        truth.replace(metadata, before);
        client.make_folder("/made by an older map").await.unwrap();
        assert_eq!(metadata.group_of(*slot), Some(owner));
    }
    inside.stop().await;
}

/// The parts of a range beside one slot.
fn without(range: &SlotRange, slot: Slot) -> Vec<SlotRange> {
    let (first, last, at) = (range.first.number(), range.last.number(), slot.number());
    if !(first..=last).contains(&at) {
        return vec![*range];
    }
    let part = |first: u16, last: u16| SlotRange {
        first: Slot::new(first).unwrap(),
        last: Slot::new(last).unwrap(),
        group: range.group,
    };
    let below = (first < at).then(|| part(first, at - 1));
    let above = (at < last).then(|| part(at + 1, last));
    below.into_iter().chain(above).collect()
}
