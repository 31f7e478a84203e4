//! Space comes back: what was removed for good leaves the disks, what somebody still wants stays, and what nobody ever named goes too.
//!
//! Birth epochs and the grace are short here, by options of `holdfast dev` that only tests know; time is the group's own age, so a
//! slow machine waits longer and nothing else. Each wait is for a state, never for a span.
//! Not here: when a block or stripe may go (state machine's own tests), orders of writers and collectors (there, too).

use crate::insider::Insider;
use crate::world::{World, answer, noise};
use api::upload::Uploaded;
use bytes::Bytes;
use client_sdk::client::Client;
use futures_util::{StreamExt as _, stream};
use reqwest::{Body, Method, StatusCode};
use std::convert::Infallible;
use std::fmt::Debug;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// An upload has 24 epochs to name a stripe; where a machine is too slow for that, the stripe is written again and one more goes.
pub(crate) const OPTIONS: [&str; 6] = ["--birth-epoch-ms", "500", "--block-grace-ms", "1500", "--limbo-s", "0"];

/// Ends a test that waits for what never comes; far above what any machine needs.
const GIVE_UP: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(crate) async fn eventually<E: Debug>(what: &str, mut ask: impl AsyncFnMut() -> Result<(), E>) {
    let begun = Instant::now();
    while let Err(error) = ask().await {
        assert!(begun.elapsed() < GIVE_UP, "{what}: {error:?}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn purge(world: &World, file: &Uploaded) {
    purge_entry(world, &file.entry.id).await;
}

pub(crate) async fn purge_entry(world: &World, id: &str) {
    purge_entry_as(world, &world.client, id).await;
}

/// The same as whoever `client` is signed in as.
pub(crate) async fn purge_entry_as(world: &World, client: &Client, id: &str) {
    let path = format!("/api/v1/metadata/{id}?permanent=true");
    let gone = world.call_as(client, Method::DELETE, &path, None).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
}

/// Fragments that disks hold, and stripes that groups know.
pub(crate) async fn held(world: &World, insider: &Insider) -> (u64, u64) {
    (
        world.metric("node_fragments").await as u64,
        insider.stripe_counts().await.total,
    )
}

/// Waits until groups know so many stripes and disks hold no more than these have. A disk that was too slow for a write may hold a
/// fragment beside the one that replaced it.
async fn comes_down_to(world: &World, insider: &Insider, stripes: u64) {
    eventually("space does not come back", async || {
        let (fragments, known) = held(world, insider).await;
        match known == stripes && fragments <= 7 * stripes {
            true => Ok(()),
            false => Err(format!("{fragments} fragments of {known} stripes, not of {stripes}")),
        }
    })
    .await;
}

async fn reads_back(world: &World, file: &Uploaded, bytes: &[u8]) {
    let read = world.content(&file.entry.id, &[]).await;
    assert!(read.status == StatusCode::OK && read.body == bytes);
}

/// shows: FR-007 scale=20/100, H-dedup scale=20/100
#[tokio::test]
async fn what_was_purged_leaves_the_disks_and_what_another_file_shares_stays() {
    let world = World::start_with(&OPTIONS).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    let content = noise(1, 20 * MIB);
    let first = world.put("/first", &content).await;
    let (fragments, one) = held(&world, &insider).await;
    assert!(
        one >= 5 && fragments > 4 * one,
        "{fragments} fragments of {one} stripes"
    );
    let again = world.put("/again", &content).await;
    assert_eq!(held(&world, &insider).await.1, one, "the same content takes nothing");
    let other = world.put("/other", &noise(2, 11 * MIB)).await;
    let both = held(&world, &insider).await.1;
    assert!(both >= one + 2);
    purge(&world, &first).await;
    purge(&world, &other).await;
    comes_down_to(&world, &insider, one).await;
    reads_back(&world, &again, &content).await;
    assert!(world.metric("gateway_stripes_removed_total").await as u64 >= both - one);
    purge(&world, &again).await;
    comes_down_to(&world, &insider, 0).await;
    assert_eq!(world.metric("metadata_dying_stripes").await, 0.0);
    let page = world.client.text("/metrics").await.unwrap();
    let bytes = page.lines().filter(|line| line.starts_with("metadata_content_bytes"));
    let left: Vec<&str> = bytes.filter(|line| !line.ends_with(" 0")).collect();
    assert_eq!(left, Vec::<&str>::new(), "nothing is counted any more");
}

/// The bytes themselves: segments that hold nothing any more are given back to the file system.
#[tokio::test]
async fn disks_give_the_bytes_of_removed_stripes_back() {
    let mut world = World::start_with(&OPTIONS).await;
    let used = async |world: &World| world.metric("node_disk_used_bytes").await as usize;
    let file = world.put("/large", &noise(1, 40 * MIB)).await;
    let kept = world.put("/kept", &noise(2, 5 * MIB)).await;
    assert!(used(&world).await >= 45 * MIB * 3 / 2);
    // A start begins new segments, and only those that are closed are emptied.
    world.restart().await;
    purge(&world, &file).await;
    eventually("disks keep the bytes", async || {
        let used = used(&world).await;
        if used < 30 * MIB { Ok(()) } else { Err(used) }
    })
    .await;
    reads_back(&world, &kept, &noise(2, 5 * MIB)).await;
}

#[tokio::test]
async fn a_content_that_comes_again_within_its_grace_is_not_written_again() {
    let mut options = OPTIONS.to_vec();
    // Long enough that the second upload is within it on any machine.
    options[3] = "600000";
    let world = World::start_with(&options).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    let content = noise(1, 6 * MIB);
    let first = world.put("/first", &content).await;
    let one = held(&world, &insider).await.1;
    purge(&world, &first).await;
    let again = world.put("/again", &content).await;
    assert_eq!(held(&world, &insider).await.1, one);
    reads_back(&world, &again, &content).await;
}

#[tokio::test]
async fn a_node_that_is_away_during_the_removal_is_told_when_it_is_back() {
    let world = World::start_with(&OPTIONS).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    let kept = world.put("/kept", &noise(1, 5 * MIB)).await;
    let before = held(&world, &insider).await.1;
    let gone = world.put("/gone", &noise(2, 12 * MIB)).await;
    let node = world.nodes()[0];
    world.stop_node(node).await;
    purge(&world, &gone).await;
    eventually("the groups do not forget", async || {
        let counts = insider.stripe_counts().await;
        if counts.total == before { Ok(()) } else { Err(counts) }
    })
    .await;
    assert!(world.metric("gateway_removals_untold_total").await > 0.0);
    world.start_node(node).await;
    comes_down_to(&world, &insider, before).await;
    reads_back(&world, &kept, &noise(1, 5 * MIB)).await;
}

/// A gateway that dies in an upload leaves stripes that nobody has named, and nobody can name them any more.
///
/// shows: N8 scale=1/1000000
#[tokio::test]
async fn stripes_that_a_dead_gateway_wrote_and_nobody_named_are_found_and_removed() {
    let mut world = World::start_with(&OPTIONS).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    let content = noise(1, 5 * MIB);
    let kept = world.put("/kept", &content).await;
    let (fragments, before) = held(&world, &insider).await;
    let body = stream::iter([Ok::<_, Infallible>(Bytes::from(noise(2, 14 * MIB)))]).chain(stream::pending());
    let path = "/api/v1/files/upload?uploadType=media&path=/cut";
    let sending = world.client.request(Method::POST, path).body(Body::wrap_stream(body));
    let is_written = eventually("nothing was written", async || {
        let held = world.metric("node_fragments").await as u64;
        if held > fragments { Ok(()) } else { Err(held) }
    });
    tokio::select! {
        answer = answer(sending) => panic!("the body has no end, and yet: {answer:?}"),
        () = is_written => {}
    }
    world.kill_and_restart().await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    comes_down_to(&world, &insider, before).await;
    assert!(world.metric("gateway_orphans_removed_total").await > 0.0);
    reads_back(&world, &kept, &content).await;
}
