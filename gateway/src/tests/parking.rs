//! Polls over HTTP/1.1, whose connections are parked while they wait: a client sees nothing of it, whatever it does meanwhile.

use super::polls::{changes, make, poll, shown, told, waiting};
use super::wire::{Line, Reply};
use super::world::{DEADLINE, World};
use serde_json::json;

const HEALTH: &str = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
const ID: &str = "0123456789abcdef0123456789abcdef";

/// A poll on a connection that goes on.
fn head(world: &World, cursor: &str, timeout_s: u64) -> String {
    format!(
        "GET /api/v1/notifications/poll?cursor={cursor}&timeout={timeout_s} HTTP/1.1\r\nHost: x\r\nX-Request-Id: {ID}\r\n\
         Authorization: Bearer {}\r\n\r\n",
        world.token
    )
}

/// The same by a body.
fn post(world: &World, cursor: &str) -> String {
    let body = json!({"cursor": cursor, "timeout": 480}).to_string();
    format!(
        "POST /api/v1/events HTTP/1.1\r\nHost: x\r\nX-Request-Id: {ID}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Authorization: Bearer {}\r\n\r\n{body}",
        body.len(),
        world.token
    )
}

async fn parked(world: &World, connections: usize) {
    shown(world, &format!("gateway_connections_parked {connections}")).await;
}

/// Once; everything that is counted of polls and connections.
fn assert_counted(world: &World, lines: &[&str]) {
    let page = world.core().seams.metrics.encode();
    for line in lines {
        assert!(page.contains(&format!("{line}\n")), "{line} is missing in {page}");
    }
}

#[tokio::test]
async fn a_poll_that_was_parked_is_answered_as_any_and_its_connection_goes_on() {
    let world = World::start().await;
    let mut cursor = changes(&world, "").await.cursor;
    let mut line = Line::open(world.address()).await;
    for by_body in [false, true] {
        let request = if by_body {
            post(&world, &cursor)
        } else {
            head(&world, &cursor, 480)
        };
        line.send(request.as_bytes()).await;
        parked(&world, 1).await;
        make(&world, &format!("/{by_body}")).await;
        let reply = world.while_time_passes(line.answer()).await;
        let answer = told(&reply);
        assert!(answer.changes && answer.events.len() == 1, "{answer:?}");
        assert_eq!(reply.header("x-request-id"), Some(ID));
        parked(&world, 0).await;
        // What waits for nothing is never parked.
        line.send(head(&world, &cursor, 480).as_bytes()).await;
        let at_once = world.while_time_passes(line.answer()).await;
        assert_eq!((at_once.names(), &at_once.body), (reply.names(), &reply.body));
        cursor = answer.cursor;
    }
    line.send(HEALTH.as_bytes()).await;
    assert_eq!(line.answer().await.status, 200);
    let route = "route=\"/api/v1/notifications/poll\",status=\"200\"";
    assert_counted(
        &world,
        &[
            "gateway_polls_waiting 0",
            "gateway_polls_total{outcome=\"changes\"} 4",
            &format!("gateway_http_requests_total{{method=\"GET\",{route}}} 3"),
        ],
    );
}

#[tokio::test]
async fn a_parked_poll_that_nothing_wakes_ends_in_time_and_may_come_again() {
    let world = World::start().await;
    let cursor = changes(&world, "").await.cursor;
    let mut line = Line::open(world.address()).await;
    for _ in 0..3 {
        line.send(head(&world, &cursor, 5).as_bytes()).await;
        parked(&world, 1).await;
        let answer = told(&world.while_time_passes(line.answer()).await);
        assert!(!answer.changes && answer.cursor == cursor);
    }
    assert_counted(&world, &["gateway_polls_total{outcome=\"silence\"} 3"]);
}

#[tokio::test]
async fn a_client_that_goes_while_its_poll_is_parked_gives_its_place_back_at_once() {
    let world = World::start().await;
    let cursor = changes(&world, "").await.cursor;
    for is_reset in [false, true] {
        let mut line = Line::open(world.address()).await;
        line.send(head(&world, &cursor, 480).as_bytes()).await;
        parked(&world, 1).await;
        if is_reset {
            line.reset();
        } else {
            drop(line);
        }
        // The clock stands still.
        waiting(&world, 0).await;
        parked(&world, 0).await;
        shown(&world, "gateway_connections 0").await;
    }
}

/// Before the poll waits, in one piece with it; and afterwards, when part of it has come.
#[tokio::test]
async fn requests_behind_a_parked_poll_are_answered_behind_it() {
    let world = World::start().await;
    let mut cursor = changes(&world, "").await.cursor;
    let mut line = Line::open(world.address()).await;
    for split in [HEALTH.len(), 0, 9] {
        let (early, late) = HEALTH.split_at(split);
        line.send(format!("{}{early}", head(&world, &cursor, 480)).as_bytes())
            .await;
        parked(&world, 1).await;
        line.send(format!("{late}{HEALTH}").as_bytes()).await;
        make(&world, &format!("/{split}")).await;
        let answer = told(&world.while_time_passes(line.answer()).await);
        assert!(answer.changes && answer.events.len() == 1, "{answer:?}");
        cursor = answer.cursor;
        for _ in 0..2 {
            assert_eq!(line.answer().await.status, 200);
        }
    }
}

/// Whenever the change comes: before the poll is entered, while its connection is being taken apart, or later.
#[tokio::test]
async fn a_poll_that_is_woken_while_it_is_being_parked_is_answered() {
    let world = World::start().await;
    let mut cursor = changes(&world, "").await.cursor;
    let mut line = Line::open(world.address()).await;
    for number in 0..60 {
        line.send(head(&world, &cursor, 480).as_bytes()).await;
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
        make(&world, &format!("/{number}")).await;
        let answer = told(&world.while_time_passes(line.answer()).await);
        assert!(answer.changes && answer.events.len() == 1, "{number}: {answer:?}");
        cursor = answer.cursor;
    }
    parked(&world, 0).await;
}

#[tokio::test]
async fn a_gateway_that_stops_answers_parked_polls_and_closes_their_connections() {
    let world = World::start().await;
    let cursor = changes(&world, "").await.cursor;
    let mut lines = Vec::new();
    for number in 1..=3 {
        let mut line = Line::open(world.address()).await;
        line.send(head(&world, &cursor, 480).as_bytes()).await;
        parked(&world, number).await;
        lines.push(line);
    }
    world.stop();
    // The clock stands still.
    for line in lines {
        let reply = Reply::read(&tokio::time::timeout(DEADLINE, line.rest()).await.unwrap());
        assert!(!told(&reply).changes);
        assert_eq!(reply.header("connection"), Some("close"));
    }
    parked(&world, 0).await;
}

#[tokio::test]
async fn a_connection_that_was_to_close_behind_its_poll_does_when_it_was_parked() {
    let world = World::start().await;
    let cursor = changes(&world, "").await.cursor;
    let work = futures_util::future::join(poll(&world, &cursor, 480), async {
        parked(&world, 1).await;
        make(&world, "/a").await;
    });
    // The whole answer is read until the other side closes.
    let (reply, ()) = world.while_time_passes(work).await;
    assert!(told(&reply).changes);
    assert_eq!(reply.header("connection"), Some("close"));
}
