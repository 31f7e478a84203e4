//! More than a gateway takes on: who is sent away and how, who is not, and that all is served again afterwards.
//!
//! The only metadata replica is paused, so that whatever was let in stays in service for as long as the test wants; what waits and
//! what is in service is read from the gateway's metrics. Not here: how much is done in time under load (`make overload`).

use crate::world::{Answer, World};
use chaos::process_attack;
use client_sdk::client::Client;
use reqwest::Method;
use rustix::process::Signal;
use std::time::Duration;
use tokio::task::JoinHandle;

/// One replica, and nobody is sent away for having waited too long while a test looks.
const PATIENT: [&str; 7] = [
    "--processes",
    "--metadata",
    "1",
    "--groups",
    "1",
    "--request-wait-ms-max",
    "60000",
];
const REPLICA: &str = "metadata-1";
const LIST: &str = "/api/v1/metadata?path=/";
const IN_SERVICE: &str = "gateway_requests_in_service{gate=\"requests\"}";
const WAITING: &str = "gateway_requests_waiting{gate=\"requests\"}";

/// A cluster whose gateway has so few places.
async fn world(in_service_max: &str, held_max: &str) -> World {
    let places = [
        "--requests-in-service-max",
        in_service_max,
        "--requests-held-max",
        held_max,
    ];
    World::start_with(&[&PATIENT[..], &places].concat()).await
}

/// Clients whose tokens the gateway knows by now, each of another account.
async fn known<const COUNT: usize>(world: &World) -> [Client; COUNT] {
    let mut clients = Vec::new();
    for number in 0..COUNT {
        let (client, _) = world.user(&format!("user-{number}"), 1 << 20).await;
        client.me().await.unwrap();
        clients.push(client);
    }
    clients.try_into().unwrap_or_else(|_| panic!("as many as were made"))
}

fn pause(world: &World) {
    process_attack::signal(&world.cluster, REPLICA, Signal::STOP).unwrap();
}

fn go_on(world: &World) {
    process_attack::signal(&world.cluster, REPLICA, Signal::CONT).unwrap();
}

/// Begins a listing in the name of `client`.
pub(crate) fn begin(client: &Client) -> JoinHandle<Answer> {
    tokio::spawn(crate::world::answer(client.request(Method::GET, LIST)))
}

/// Returns once the gateway shows `value`.
async fn until(world: &World, name: &str, value: f64) {
    let wait = async {
        while (world.metric(name).await - value).abs() > 0.5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    waited.unwrap_or_else(|_| panic!("{name} never was {value}"));
}

fn seconds(refused: &Answer) -> u64 {
    refused.header("retry-after").unwrap().parse().unwrap()
}

/// shows: QAS-006 side=overload scale=1/480
#[tokio::test]
async fn beyond_what_is_held_all_are_told_when_to_come_again_health_answers_and_later_all_are_served() {
    let world = world("1", "4").await;
    let users: [Client; 5] = known(&world).await;
    pause(&world);
    let mut held = vec![begin(&users[0])];
    until(&world, IN_SERVICE, 1.0).await;
    for (number, user) in (1..).zip(&users[1..4]) {
        held.push(begin(user));
        until(&world, WAITING, f64::from(number)).await;
    }
    let refused = world.call_as(&users[4], Method::GET, LIST, None).await;
    refused.refused(503, "overloaded");
    assert!((1..=3).contains(&seconds(&refused)), "{refused:?}");
    // Whoever wants to put something is refused before the body is asked for, and a sign-in before any password is hashed.
    let body = vec![0; 1 << 20];
    let upload = "/api/v1/files/upload?uploadType=media&path=/f";
    let refused = world.send(users[4].request(Method::POST, upload).body(body)).await;
    refused.refused(503, "overloaded");
    let form = [("grant_type", "password"), ("username", "user-0"), ("password", "x")];
    let sign_in = Client::new(&world.cluster.facts.url).unwrap();
    let refused = world
        .send(sign_in.request(Method::POST, "/api/v1/auth/token").form(&form))
        .await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(seconds(&refused) >= 1);
    assert_eq!(world.metric("gateway_requests_refused_total{why=\"full\"}").await, 3.0);
    assert_eq!(world.client.text("/healthz").await.unwrap(), "ok\n");
    go_on(&world);
    for (number, answer) in held.into_iter().enumerate() {
        let answer = answer.await.unwrap();
        // Those who waited for long are told to come again, so that whoever comes now is served in time.
        if number == 0 || answer.status != 503 {
            assert_eq!(answer.status, 200, "{answer:?}");
        } else {
            answer.refused(503, "overloaded");
            assert!((1..=3).contains(&seconds(&answer)), "{answer:?}");
        }
    }
    for user in &users {
        let served = world.call_as(user, Method::GET, LIST, None).await;
        assert_eq!(served.status, 200, "{served:?}");
    }
    until(&world, IN_SERVICE, 0.0).await;
    assert_eq!(world.metric(WAITING).await, 0.0);
}

/// shows: QAS-006 side=overload scale=1/480
#[tokio::test]
async fn who_asks_for_everything_at_once_is_told_to_go_slower_while_others_are_served() {
    let world = world("2", "6").await;
    let [greedy, modest]: [Client; 2] = known(&world).await;
    pause(&world);
    let first = begin(&greedy);
    until(&world, IN_SERVICE, 1.0).await;
    let others = [begin(&greedy), begin(&greedy)];
    until(&world, WAITING, 2.0).await;
    for _ in 0..20 {
        let refused = world.call_as(&greedy, Method::GET, LIST, None).await;
        refused.refused(429, "rate_exceeded");
        assert!((1..=3).contains(&seconds(&refused)), "{refused:?}");
    }
    // The second place in service was left for whoever has none.
    let modest = begin(&modest);
    until(&world, IN_SERVICE, 2.0).await;
    go_on(&world);
    for served in [first, modest] {
        let answer = served.await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    for other in others {
        let answer = other.await.unwrap();
        assert!(matches!(answer.status.as_u16(), 200 | 503), "{answer:?}");
    }
    assert_eq!(
        world.metric("gateway_requests_refused_total{why=\"share\"}").await,
        20.0
    );
}
