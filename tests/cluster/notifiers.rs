//! Several gateways that notify: who waits where, who is told of what, and where all go when one dies, stands still or is added.
//!
//! A balancer stands before them that gives each connection to the next one in turn, as one of an installation does.
//! Not here: what a waiting poll costs (`make polls`), followers while metadata dies (`followers`), bursts (`bursts`).

use crate::child_processes::url;
use crate::refusals::allow_files;
use crate::served::eventually;
use crate::world::{World, noise};
use api::change::PollAnswer;
use chaos::notify_stopped::OPTIONS;
use chaos::{meter, process_attack};
use client_sdk::client::Client;
use client_sdk::follow::{Course, PAUSE_MAX};
use futures_util::future::join_all;
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Longer than any of these tests lasts.
const WAIT: Duration = Duration::from_secs(480);

/// The three that notify, without a token.
fn notifiers(world: &World) -> [Client; 3] {
    [2, 3, 4].map(|number| Client::new(&url(world, number)).unwrap())
}

/// A counter or gauge of a gateway, as it says itself.
async fn metric(gateway: &Client, name: &str) -> f64 {
    let page = eventually("metrics", async || gateway.text("/metrics").await).await;
    meter::sum(&page, name).unwrap_or(0.0)
}

/// Until exactly so many polls wait at each of them.
pub(crate) async fn all_wait(gateways: &[&Client], polls: f64) {
    for gateway in gateways {
        let count = async || match metric(gateway, "gateway_polls_waiting").await {
            waiting if waiting == polls => Ok(()),
            waiting => Err(format!("{waiting} polls wait, not {polls}")),
        };
        eventually("polls", count).await;
    }
}

/// So many polls of `of` at each of them.
fn begin(of: &Client, cursor: &str, gateways: &[Client], each: usize) -> Vec<JoinHandle<PollAnswer>> {
    let mut polls = Vec::new();
    for gateway in gateways {
        for _ in 0..each {
            let (client, cursor) = (gateway.clone().with_token(of.token().unwrap()), cursor.to_owned());
            polls.push(tokio::spawn(async move { client.poll(&cursor, WAIT).await.unwrap() }));
        }
    }
    polls
}

/// All of them were told of this one entry and of nothing else.
async fn all_told(polls: Vec<JoinHandle<PollAnswer>>, id: &str) {
    for told in join_all(polls).await {
        let events = told.unwrap().events;
        let ids: Vec<&str> = events.iter().map(|event| event.file_id.as_str()).collect();
        assert_eq!(ids, [id]);
    }
}

/// Every poll that is open stands in the map of its gateway and no other does, and a change goes to those of its user.
///
/// shows: CMP-notif side=map, SCL-2 side=any
#[tokio::test]
async fn a_change_reaches_all_that_wait_for_its_user_at_any_notifier_and_nobody_else() {
    let world = World::start_with(&OPTIONS).await;
    let gateways = notifiers(&world);
    let all: [&Client; 3] = gateways.each_ref();
    let (ada, _) = world.user("ada", 1 << 20).await;
    let (eve, _) = world.user("eve", 1 << 20).await;
    let of_ada = ada.changes(None, 1, false).await.unwrap().cursor;
    let of_eve = eve.changes(None, 1, false).await.unwrap().cursor;
    let (ada_waits, eve_waits) = (begin(&ada, &of_ada, &gateways, 4), begin(&eve, &of_eve, &gateways, 2));
    let leaves = begin(&eve, &of_eve, &gateways, 1);
    all_wait(&all, 7.0).await;
    for poll in &leaves {
        poll.abort();
    }
    all_wait(&all, 6.0).await;

    let made = ada.make_folder("/of ada").await.unwrap();
    all_told(ada_waits, &made.id).await;
    all_wait(&all, 2.0).await;
    assert!(
        eve_waits.iter().all(|poll| !poll.is_finished()),
        "told of another's change"
    );
    for gateway in all {
        let told = metric(gateway, "gateway_polls_total{outcome=\"changes\"}").await;
        assert_eq!(told, 4.0);
    }
    let made = eve.make_folder("/of eve").await.unwrap();
    all_told(eve_waits, &made.id).await;
    all_wait(&all, 0.0).await;
}

/// Gives each connection to the next gateway in turn that takes one.
async fn balance(listener: TcpListener, gateways: Vec<SocketAddr>) {
    let mut turn = 0;
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut taken = None;
        for _ in &gateways {
            turn = (turn + 1) % gateways.len();
            taken = TcpStream::connect(gateways[turn]).await.ok();
            if taken.is_some() {
                break;
            }
        }
        if let Some(mut gateway) = taken {
            tokio::spawn(async move {
                // Either end may break off: the other one is told by its connection.
                drop(tokio::io::copy_bidirectional(&mut client, &mut gateway).await);
            });
        }
    }
}

/// What a device was told, and how long it paused after each failure.
struct Followed {
    names: Vec<String>,
    pauses: Vec<Duration>,
}

/// A device behind the balancer that follows until so many changes are told, each poll by a connection of its own.
async fn follow(number: u64, balancer: String, token: String, mut cursor: String, changes: usize) -> Followed {
    let mut followed = Followed {
        names: Vec::new(),
        pauses: Vec::new(),
    };
    let mut course = Course::new(1, number);
    while followed.names.len() < changes {
        let client = Client::new(&balancer).unwrap().with_token(&token);
        match client.poll(&cursor, WAIT).await {
            Ok(told) => {
                assert_eq!(
                    course.answered(&told),
                    Duration::ZERO,
                    "too few to be asked for a pause"
                );
                let names = told
                    .events
                    .iter()
                    .map(|event| event.entry.as_ref().unwrap().name.clone());
                followed.names.extend(names);
                cursor = told.cursor;
            }
            Err(error) => {
                let seed = number * 1_000 + followed.pauses.len() as u64;
                let drawn = u64::from_le_bytes(noise(seed, 8).try_into().unwrap());
                let pause = course.failed(&error, drawn);
                let pause = pause.unwrap_or_else(|| panic!("device {number}: {error}"));
                tokio::time::sleep(pause).await;
                followed.pauses.push(pause);
            }
        }
    }
    followed
}

/// An added gateway has its share as soon as devices come again; those of one that dies come to the others after pauses of their own;
/// and commits wait neither for a dead one nor for one that stands still.
///
/// shows: CMP-notif side=reconnect, SCL-2 side=rebalance
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_spread_over_an_added_notifier_and_come_to_the_others_when_one_dies() {
    const DEVICES: u64 = 30;
    const BESIDE: usize = 20;
    let world = World::start_with(&OPTIONS).await;
    let gateways = notifiers(&world);
    let [one, two, three] = gateways.each_ref();
    process_attack::stop(&world.cluster, "gateway-4").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let balancer = format!("http://{}", listener.local_addr().unwrap());
    let addresses: [SocketAddr; 3] =
        [2, 3, 4].map(|number| url(&world, number).trim_start_matches("http://").parse().unwrap());
    let balancing = tokio::spawn(balance(listener, addresses.to_vec()));

    let start = world.client.changes(None, 1, false).await.unwrap().cursor;
    let token = world.client.token().unwrap();
    let mut devices = JoinSet::new();
    for number in 0..DEVICES {
        let (balancer, token) = (balancer.clone(), token.to_owned());
        devices.spawn(follow(number, balancer, token, start.clone(), 2 + BESIDE));
    }
    all_wait(&[one, two], 15.0).await;
    process_attack::start(&world.cluster, "gateway-4").await.unwrap();
    world.client.make_folder("/added").await.unwrap();
    all_wait(&[one, two, three], 10.0).await;

    process_attack::kill(&world.cluster, "gateway-3").await.unwrap();
    all_wait(&[one, three], 15.0).await;
    world.client.make_folder("/died").await.unwrap();
    all_wait(&[one, three], 15.0).await;

    process_attack::signal(&world.cluster, "gateway-2", Signal::STOP).unwrap();
    for number in 0..BESIDE {
        world.client.make_folder(&format!("/{number}")).await.unwrap();
    }
    process_attack::signal(&world.cluster, "gateway-2", Signal::CONT).unwrap();
    let mut expected = vec!["added".to_owned(), "died".to_owned()];
    expected.extend((0..BESIDE).map(|number| number.to_string()));
    let mut pauses = BTreeSet::new();
    while let Some(followed) = devices.join_next().await {
        let followed = followed.unwrap();
        assert_eq!(followed.names, expected);
        pauses.extend(followed.pauses);
    }
    assert_eq!(pauses.len(), 10, "those of one gateway, each with a pause of its own");
    assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX), "{pauses:?}");
    balancing.abort();
}

/// An answer holds the change with its entry, so that nobody asks once more; and as many as that are asked to come again apart.
///
/// shows: N13
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_followers_know_a_change_by_one_request_each() {
    const FOLLOWERS: usize = 1_000;
    const AT_ONCE: usize = 50;
    allow_files(4_000);
    let world = World::start().await;
    let asked = async || {
        let page = world.client.text("/metrics").await.unwrap();
        let all = meter::sum(&page, "gateway_http_requests_total").unwrap_or(0.0);
        all - meter::sum(&page, "gateway_http_requests_total{route=\"/metrics\"}").unwrap_or(0.0)
    };
    let cursor = world.client.changes(None, 1, false).await.unwrap().cursor;
    let before = asked().await;
    let mut polls = JoinSet::new();
    while polls.len() < FOLLOWERS {
        for _ in 0..AT_ONCE {
            let (client, cursor) = (world.client.clone(), cursor.clone());
            polls.spawn(async move { client.poll(&cursor, WAIT).await.unwrap() });
        }
        all_wait(&[&world.client], polls.len() as f64).await;
    }
    let put = world.put("/f", b"what they know by then").await.entry;
    let mut pauses = BTreeSet::new();
    while let Some(told) = polls.join_next().await {
        let told = told.unwrap();
        let [event] = &told.events[..] else { panic!("{told:?}") };
        assert_eq!(event.entry.as_ref(), Some(&put));
        pauses.insert(told.backoff);
    }
    assert_eq!(
        asked().await - before,
        FOLLOWERS as f64 + 1.0,
        "one each, and the upload"
    );
    assert!(
        !pauses.contains(&None) && pauses.len() > 1,
        "they are to come again apart: {pauses:?}"
    );
}
