//! A transfer takes as long as its user's link does: the link is slow enough that the machine under the test does not matter.
//!
//! Not here: links as fast and far as is asked for, and HTTP/2 (`make links`).

use crate::world::{World, noise};
use chaos::links::link::{Link, Shape};
use client_sdk::client::{Client, Target};
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape {
    bits_per_s: 16_000_000,
    delay: Duration::from_millis(50),
};
const BYTES: usize = 5 << 20;
/// Of the time that a transfer takes, in percent, the link is busy for at least so much.
const BUSY_PERCENT_MIN: u32 = 80;

/// Asserts that the link was seldom idle.
fn was_busy(what: &str, took: Duration) {
    let busy = SHAPE.busy(BYTES as u64);
    assert!(took >= busy, "{what} was faster than its link: {took:?} of {busy:?}");
    assert!(
        took * BUSY_PERCENT_MIN <= busy * 100,
        "{what} left its link idle: {took:?} for what takes it {busy:?}"
    );
}

/// shows: NF-net scale=16/1000
#[tokio::test]
async fn a_put_and_a_get_at_once_keep_a_slow_and_far_link_busy_each_way() {
    let world = World::start().await;
    let stored = world.put("/down", &noise(1, BYTES)).await.entry.id;
    let link = Link::to(&world.cluster.facts.url, SHAPE).await.unwrap();
    let client = Client::new(&link.url())
        .unwrap()
        .with_token(world.client.token().unwrap());
    // Two connections that are there already.
    let (one, other) = tokio::join!(client.me(), client.me());
    assert_eq!(one.unwrap().id, other.unwrap().id);
    let up = async {
        let begun = Instant::now();
        let target = Target::new_file("/up");
        client.put(&target, noise(2, BYTES).into()).await.unwrap();
        begun.elapsed()
    };
    let down = async {
        let begun = Instant::now();
        let bytes = client.get(&stored, None).await.unwrap().bytes().await.unwrap();
        assert!(bytes == noise(1, BYTES), "the content came back altered");
        begun.elapsed()
    };
    let (up, down) = tokio::join!(up, down);
    was_busy("a put", up);
    was_busy("a get", down);
}
