//! A storage node that accepts calls on its socket and never answers one: what that costs a write, by the gateway's own clock.
//!
//! The gateway's and the nodes' sockets are real, the time that the fan-out waits for is the test's.
//! Not here: the machine that decides (`drive::fanout`), deadlines of calls and breakers (rpc).

use super::wire::noise;
use super::world::{DEADLINE, Hole, Wishes, World};
use daemon::clock::Clock as _;
use std::sync::Arc;
use std::time::Duration;

/// What one silent node may cost a write: its own patience of two seconds, and as much again for whoever takes its place.
const STALL_BUDGET: Duration = Duration::from_secs(4);
const STEP: Duration = Duration::from_millis(100);
/// Of real time, in which the nodes that answer have long answered.
const BETWEEN_STEPS: Duration = Duration::from_millis(20);

async fn put(world: &World, name: &str, body: &[u8]) -> serde_json::Value {
    let line = format!("POST /api/v1/files/upload?uploadType=media&path=/{name}");
    let reply = world
        .request(&line, &format!("Content-Length: {}\r\n", body.len()), body)
        .await;
    assert_eq!(reply.status, 201, "{:?}", reply.body);
    serde_json::from_slice(&reply.body).unwrap()
}

/// shows: F30
#[tokio::test]
async fn a_node_that_accepts_and_never_answers_ends_no_write_later_than_its_budget_and_the_next_one_at_once() {
    let hole = Arc::new(Hole::default());
    let world = World::start_with(Wishes {
        hole: Some(Arc::clone(&hole)),
        ..Wishes::default()
    })
    .await;
    // Of one stripe, which has a fragment for every node.
    let body = noise(1, 300_000);
    let begun = world.clock.monotonic();
    let work = put(&world, "first", &body);
    tokio::pin!(work);
    let put_first = async {
        loop {
            if let Ok(done) = tokio::time::timeout(BETWEEN_STEPS, &mut work).await {
                return done;
            }
            // Until then the body comes in, and nobody waits for a node.
            if hole.taken() > 0 {
                world.clock.advance(STEP);
            }
        }
    };
    let first = tokio::time::timeout(DEADLINE, put_first).await.expect("the write ends");
    let took = world.clock.monotonic() - begun;
    assert!(hole.taken() > 0, "nobody called the node");
    assert!(took > Duration::ZERO && took <= STALL_BUDGET, "the write took {took:?}");
    assert_eq!(first["receipt"]["degraded"], true, "a node holds nothing: {first}");

    let (before, taken) = (world.clock.monotonic(), hole.taken());
    let second = tokio::time::timeout(DEADLINE, put(&world, "second", &noise(2, 300_000))).await;
    let second = second.expect("the next write does not wait for it");
    assert_eq!(world.clock.monotonic(), before);
    assert_eq!(hole.taken(), taken, "the node is spared");
    assert_eq!(second["receipt"]["degraded"], true, "{second}");
}
