//! Repacking at a whole cluster: what still lives in stripes that are less than half alive moves, reads back all the while, and the
//! dead bytes beside it leave the disks.
//!
//! Epochs and the grace are those of `collection`; each wait is for a state, never for a span.
//! Not here: which blocks a command switches, and every order of it (the state machine's own tests).

use crate::collection::{OPTIONS, eventually, held, purge_entry};
use crate::inside::Inside;
use crate::insider::Insider;
use crate::world::{World, noise};
use api::file_batch::{BatchFile, FileResult};
use bytes::Bytes;
use client_sdk::client::Client;
use futures_util::StreamExt as _;
use gateway::drive::stripe_reader::StripeReading;
use model::id::EntryId;
use protocol::wire_error::Failure;
use reqwest::StatusCode;

/// Files of a batch, whose blocks fill most of one stripe.
const FILES: usize = 100;
const FILE_BYTES: usize = 30 << 10;
/// One file in so many is kept, so that less than half of each stripe lives.
const KEPT_EVERY: usize = 4;

/// What a seal adds at most.
const SEAL_BYTES: usize = 64;

/// A file by its id, and what it must read as.
pub(crate) type Known = (String, Vec<u8>);

/// Puts a batch that lies in one stripe.
pub(crate) async fn put_batch(client: &Client, seed: u64) -> Vec<Known> {
    let contents: Vec<Vec<u8>> = noise(seed, FILES * FILE_BYTES)
        .chunks(FILE_BYTES)
        .map(<[u8]>::to_vec)
        .collect();
    let files = contents.iter().enumerate().map(|(at, content)| {
        let file = BatchFile {
            path: Some(format!("/batch-{seed}/{at}")),
            parents: true,
            ..BatchFile::default()
        };
        (file, Bytes::from(content.clone()))
    });
    let files: Vec<_> = files.collect();
    let done = client.create_batch(&files, true).await.unwrap();
    let ids = done.into_iter().map(|result| match result {
        FileResult::Stored(stored) => stored.entry.id,
        FileResult::Refused(refused) => panic!("{refused:?}"),
    });
    ids.zip(contents).collect()
}

/// Removes all but one file in `KEPT_EVERY` for good; answers those that are left.
async fn thin_out(world: &World, files: Vec<Known>) -> Vec<Known> {
    let mut kept = Vec::new();
    for (at, file) in files.into_iter().enumerate() {
        if at % KEPT_EVERY == 0 {
            kept.push(file);
        } else {
            purge_entry(world, &file.0).await;
        }
    }
    kept
}

async fn check_reads(world: &World, files: &[Known]) {
    for (id, bytes) in files {
        let read = world.content(id, &[]).await;
        assert!(
            read.status == StatusCode::OK && read.body == *bytes,
            "{id}: {}",
            read.status
        );
    }
}

/// Bytes of all stripes, those that live and dead ones.
async fn stripe_bytes(world: &World) -> f64 {
    let page = world.client.text("/metrics").await.unwrap();
    let is_ours = |line: &&str| {
        let kinds = ["kind=\"living\"", "kind=\"dead\""];
        line.starts_with("metadata_content_bytes{") && kinds.iter().any(|kind| line.contains(kind))
    };
    let values = page
        .lines()
        .filter(is_ours)
        .map(|line| line.rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}

/// Whether stripes take what these files do, each of which has one seal, and no more.
async fn has_no_dead_bytes(world: &World, left: &[Known]) -> Result<(), String> {
    let plain: usize = left.iter().map(|(_, bytes)| bytes.len()).sum();
    let sealed = plain + SEAL_BYTES * left.len();
    let bytes = stripe_bytes(world).await;
    match (plain as f64..=sealed as f64).contains(&bytes) {
        true => Ok(()),
        false => Err(format!("stripes of {bytes} bytes for {plain} plain ones")),
    }
}

/// Waits until stripes have no dead byte and disks hold no more than the stripes that groups know. Files read back all the while.
async fn comes_to_rest(world: &World, insider: &Insider, left: &[Known]) {
    eventually("dead bytes stay", async || {
        check_reads(world, left).await;
        has_no_dead_bytes(world, left).await?;
        let (fragments, stripes) = held(world, insider).await;
        match fragments <= 7 * stripes {
            true => Ok(()),
            false => Err(format!("{fragments} fragments of {stripes} stripes")),
        }
    })
    .await;
    check_reads(world, left).await;
}

/// The reads come from the disks, not from what a gateway keeps in memory.
fn options() -> Vec<&'static str> {
    [&OPTIONS[..], &["--cache-bytes", "0"]].concat()
}

#[tokio::test]
async fn what_lives_in_half_dead_stripes_moves_and_waits_for_a_node_that_is_away() {
    let world = World::start_with(&options()).await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    let files = [put_batch(&world.client, 1).await, put_batch(&world.client, 2).await];
    let before = held(&world, &insider).await.1;
    let [first, second] = files;
    let mut left = thin_out(&world, first).await;
    let living = (left.len() * FILE_BYTES) as f64;
    left.extend(second.iter().cloned());
    comes_to_rest(&world, &insider, &left).await;
    assert!(world.metric("gateway_stripes_repacked_total").await >= 1.0);
    assert!(world.metric("gateway_repacked_bytes_total").await >= living);
    left.truncate(left.len() - second.len());
    let node = world.nodes()[0];
    world.stop_node(node).await;
    left.extend(thin_out(&world, second).await);
    let repacked = world.metric("gateway_stripes_repacked_total").await;
    eventually("nobody tries", async || {
        check_reads(&world, &left).await;
        match world.metric("gateway_stripes_put_off_total").await {
            0.0 => Err("no stripe was put off"),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(
        world.metric("gateway_stripes_repacked_total").await,
        repacked,
        "a whole stripe gave way to a degraded one"
    );
    world.start_node(node).await;
    comes_to_rest(&world, &insider, &left).await;
    assert!(held(&world, &insider).await.1 <= before);
}

#[tokio::test]
async fn a_gateway_that_is_killed_while_it_repacks_leaves_nothing_behind_and_loses_nothing() {
    let mut world = World::start_with(&options()).await;
    let mut kept = Vec::new();
    for seed in 1..=6 {
        let files = put_batch(&world.client, seed).await;
        kept.extend(thin_out(&world, files).await);
    }
    eventually("nothing is repacked", async || {
        let repacked = world.metric("gateway_stripes_repacked_total").await;
        if repacked > 0.0 { Ok(()) } else { Err(repacked) }
    })
    .await;
    world.kill_and_restart().await;
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    comes_to_rest(&world, &insider, &kept).await;
}

/// The manifest was made before the blocks were switched and their stripe removed.
#[tokio::test]
async fn a_reader_whose_places_are_old_asks_once_again() {
    let inside = Inside::start_with(&options()).await;
    let (core, (caller, _)) = (inside.core(), inside.demo().await);
    let mut files = put_batch(&inside.client, 1).await.into_iter();
    let (id, expected) = files.next().unwrap();
    let entry = EntryId::parse(&id).unwrap();
    let manifest = core.manifest(&caller, entry, None, None).await.unwrap();
    let old = manifest.stripes[0].clone();
    for (id, _) in files {
        let other = EntryId::parse(&id).unwrap();
        core.purge(&caller, other, None).await.unwrap();
    }
    eventually("the old stripe is still there", async || {
        let whole = (0, old.form.stripe_bytes);
        let mut reading = StripeReading::new(core, &old, whole, 1).await.unwrap();
        match reading.next().await {
            Err(failure) if failure.code == "content_unreadable" => Ok(()),
            other => Err(other.map(drop)),
        }
    })
    .await;
    let range = 0..manifest.version.size;
    let read: Vec<Result<Bytes, Failure>> = core.stream(caller, entry, manifest, range).collect().await;
    let read: Vec<Bytes> = read.into_iter().collect::<Result<_, _>>().unwrap();
    assert!(read.concat() == expected);
    let present = core.manifest(&caller, entry, None, None).await.unwrap();
    assert_ne!(present.stripes[0].id, old.id);
    drop(inside.stop().await);
}
