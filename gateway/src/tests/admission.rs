//! What passes the gates and what does not, seen from the wire.

use super::wire::{Line, Reply, chunk};
use super::world::{DEADLINE, Wishes, World};
use crate::config::AdmissionLimits;
use std::time::Duration;

const UPLOAD: &str = "POST /api/v1/files/upload?uploadType=media&path=";
const LIST: &str = "GET /api/v1/metadata?path=/";

/// A world whose gateway knows by now whose token it is.
async fn world(admission: AdmissionLimits) -> World {
    let world = World::start_with(Wishes {
        admission,
        ..Wishes::default()
    })
    .await;
    assert_eq!(world.request(LIST, "", b"").await.status, 200);
    world
}

/// Returns once the gateway shows this line among its metrics.
async fn until(world: &World, line: &str) {
    let wait = async {
        while !world.core().seams.metrics.encode().contains(line) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, wait).await;
    waited.unwrap_or_else(|_| panic!("never came: {line}"));
}

/// A world whose one place for a short request has somebody who has sent two of the five bytes of `/slow`.
async fn with_a_sender(requests_held_max: usize) -> (World, Line) {
    let world = world(AdmissionLimits {
        requests_in_service_max: 1,
        requests_held_max,
        wait_max: Duration::from_secs(50),
        ..AdmissionLimits::default()
    })
    .await;
    let mut sender = Line::open(world.address()).await;
    let line = format!("{UPLOAD}/slow");
    sender
        .send(&world.with_token(&line, "Content-Length: 5\r\n", b"he"))
        .await;
    until(&world, "gateway_requests_in_service{gate=\"requests\"} 1").await;
    (world, sender)
}

/// Else whoever sends a byte now and then would keep everybody out.
#[tokio::test]
async fn while_a_sender_is_awaited_others_have_its_place() {
    let (world, mut sender) = with_a_sender(4).await;
    let lent = until(&world, "gateway_requests_in_service{gate=\"requests\"} 0");
    world.while_time_passes(lent).await;
    assert_eq!(world.request(LIST, "", b"").await.status, 200);
    sender.send(b"llo").await;
    assert_eq!(Reply::read(&sender.rest().await).status, 201);
    assert!(world.has("/slow").await);
    until(&world, "gateway_requests_in_service{gate=\"requests\"} 0").await;
}

/// A refusal of a long content is made from its head alone: who waits to be asked for the body is not asked.
#[tokio::test]
async fn long_contents_have_places_of_their_own_and_short_requests_do_not_wait_for_them() {
    let world = world(AdmissionLimits {
        transfers_max: 2,
        ..AdmissionLimits::default()
    })
    .await;
    let mut first = Line::open(world.address()).await;
    let chunked = "Transfer-Encoding: chunked\r\n";
    let line = format!("{UPLOAD}/long");
    first.send(&world.with_token(&line, chunked, &chunk(b"begun"))).await;
    until(&world, "gateway_requests_in_service{gate=\"transfers\"} 1").await;
    for headers in [
        "Content-Length: 1048577\r\nExpect: 100-continue\r\n",
        "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n",
    ] {
        let mut second = Line::open(world.address()).await;
        let line = format!("{UPLOAD}/other");
        second.send(&world.with_token(&line, headers, b"")).await;
        let answer = second.rest().await;
        assert!(!answer.starts_with(b"HTTP/1.1 100"), "was asked for its body");
        let refused = Reply::read(&answer);
        refused.refused(429, "rate_exceeded");
        assert!(refused.header("retry-after").is_some());
    }
    assert_eq!(world.request(LIST, "", b"").await.status, 200);
    let line = format!("{UPLOAD}/short");
    let short = world.request(&line, "Content-Length: 5\r\n", b"hello").await;
    assert_eq!(short.status, 201);
    first.send(b"0\r\n\r\n").await;
    assert_eq!(Reply::read(&first.rest().await).status, 201);
    until(&world, "gateway_requests_in_service{gate=\"transfers\"} 0").await;
}

#[tokio::test]
async fn what_watches_a_gateway_passes_no_gate() {
    let (world, _sender) = with_a_sender(2).await;
    world.request(LIST, "", b"").await.refused(429, "rate_exceeded");
    for path in ["/", "/healthz", "/readyz", "/metrics", "/api/v1/openapi.json"] {
        let reply = world.request(&format!("GET {path}"), "", b"").await;
        assert_eq!(reply.status, 200, "{path}");
    }
}
