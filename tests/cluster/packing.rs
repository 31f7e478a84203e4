//! Small files leave the metadata for shared stripes once they have lain still, and whoever reads them sees nothing of it.
//!
//! Birth epochs are short here, so that a content is old after five seconds of its group's own age; each wait is for a state.
//! Not here: which contents are due and what moves, and in which orders (state machine's own tests).

use crate::entries::{METADATA, delete};
use crate::insider::Insider;
use crate::served::eventually;
use crate::versions::check;
use crate::world::{World, noise};
use chaos::meter;
use client_sdk::client::Target;
use futures_util::{StreamExt as _, stream};
use reqwest::{Method, StatusCode};
use serde_json::json;

const BYTES: usize = 4096;
const OPTIONS: [&str; 10] = [
    "--groups",
    "1",
    "--birth-epoch-ms",
    "200",
    "--block-grace-ms",
    "1500",
    "--limbo-s",
    "0",
    // Each read comes from where the bytes lie.
    "--cache-bytes",
    "0",
];
/// So many of 4 KiB are too few for a stripe, and stay.
const TOO_FEW: f64 = 3.0;
/// Metadata replicas of a dev cluster: each has what lies inline.
const REPLICAS: f64 = 3.0;

/// A file's id and content.
type File = (String, Vec<u8>);

async fn put_all(world: &World, count: usize) -> Vec<File> {
    world.client.make_folder("/small").await.unwrap();
    let put = |at: usize| async move {
        let bytes = noise(at as u64, BYTES);
        let put = world.put(&format!("/small/{at:04}"), &bytes).await;
        (put.entry.id, bytes)
    };
    stream::iter(0..count).map(put).buffered(16).collect().await
}

async fn read_back(world: &World, files: &[File]) {
    let read = |(id, bytes): &File| {
        let (id, bytes) = (id.clone(), bytes.clone());
        async move {
            let back = world.content(&id, &[]).await;
            assert_eq!(back.status, StatusCode::OK, "{id}");
            assert!(back.body == bytes, "{id} came back altered");
        }
    };
    let reads: Vec<_> = files.iter().map(read).collect();
    stream::iter(reads).buffer_unordered(16).collect::<Vec<()>>().await;
}

async fn purge_all(world: &World, files: &[File]) {
    for (id, _) in files {
        let gone = delete(world, id, "?permanent=true").await;
        assert_eq!(gone.status, StatusCode::NO_CONTENT);
    }
}

/// What is shown of small contents, all at one moment.
struct Shown {
    /// Contents in the metadata.
    inline: f64,
    /// Contents that left it.
    packed: f64,
    /// What contents take on disks and in the metadata, all copies and parity counted.
    kept_bytes: f64,
}

/// An error while the groups show no content at all.
async fn shown(world: &World) -> Result<Shown, String> {
    let page = world.client.text("/metrics").await.unwrap();
    let sum = |name: &str| meter::sum(&page, name).unwrap_or(0.0);
    let bytes = |kind: &str| sum(&format!("metadata_content_bytes{{kind=\"{kind}\"}}"));
    if bytes("logical") == 0.0 {
        return Err("no content is shown".to_owned());
    }
    Ok(Shown {
        inline: sum("metadata_inline_contents"),
        packed: sum("gateway_contents_packed_total"),
        kept_bytes: REPLICAS * bytes("inline") + bytes("stored"),
    })
}

/// Waits until so many contents lie in the metadata or have left it; answers what they take for each byte of theirs.
async fn all_known(world: &World, count: usize) -> f64 {
    let known = eventually("contents are missing", async || {
        let shown = shown(world).await?;
        match shown.inline + shown.packed == count as f64 {
            true => Ok(shown),
            false => Err(format!("{} inline, {} packed", shown.inline, shown.packed)),
        }
    })
    .await;
    known.kept_bytes / (count * BYTES) as f64
}

/// Reads one file after the other until as many are packed as can be.
async fn becomes_packed(world: &World, files: &[File]) {
    let mut turn = files.chunks(20).cycle();
    eventually("small contents are not packed", async || {
        read_back(world, turn.next().unwrap_or_default()).await;
        let left = shown(world).await?.inline;
        match left <= TOO_FEW {
            true => Ok(()),
            false => Err(format!("{left} lie in the metadata")),
        }
    })
    .await;
}

/// shows: N9 side=singly scale=1/1000
/// shows: N9 side=packed scale=1/1000
#[tokio::test]
async fn a_thousand_small_files_take_what_their_profile_says_once_they_are_packed() {
    const FILES: usize = 1000;
    let world = World::start_with(&OPTIONS).await;
    let files = put_all(&world, FILES).await;
    let singly = all_known(&world, FILES).await;
    assert!(singly <= 3.5, "{singly} times what they hold");
    let used = world.client.me().await.unwrap().usage.bytes;
    assert_eq!(used, (FILES * BYTES) as u64);
    becomes_packed(&world, &files).await;
    let packed = all_known(&world, FILES).await;
    assert!((1.5..=2.0).contains(&packed), "{packed} times what they hold");
    assert_eq!(world.client.me().await.unwrap().usage.bytes, used);
    read_back(&world, &files).await;
    let node = world.nodes()[0];
    world.stop_node(node).await;
    read_back(&world, &files).await;
    world.start_node(node).await;
}

/// Contents that are overwritten, copied, trashed and purged before and while they are packed, and a `kill -9` of everything as soon as
/// the first stripe of them is written.
#[tokio::test]
async fn whatever_becomes_of_small_files_and_their_gateway_meanwhile_they_read_back() {
    const FILES: usize = 300;
    let mut world = World::start_with(&OPTIONS).await;
    let mut files = put_all(&world, FILES).await;
    let gone = files.split_off(FILES - 20);
    purge_all(&world, &gone).await;
    let old = files[..20].to_vec();
    for (at, (_, bytes)) in files[..20].iter_mut().enumerate() {
        *bytes = noise(10_000 + at as u64, BYTES);
        let target = Target {
            base_version: Some(1),
            ..Target::new_file(format!("/small/{at:04}"))
        };
        world.client.put(&target, bytes.clone().into()).await.unwrap();
    }
    let copied = files[20..60].to_vec();
    for (at, (id, bytes)) in copied.iter().enumerate() {
        let path = format!("{METADATA}/{id}/copy");
        let wanted = json!({"path": format!("/small/copy {at}")});
        let copy = world.call(Method::POST, &path, Some(&wanted)).await;
        assert_eq!(copy.status, StatusCode::CREATED, "{copy:?}");
        let copy = copy.json()["id"].as_str().unwrap().to_owned();
        files.push((copy, bytes.clone()));
    }
    eventually("no stripe is written", async || {
        match world.metric("gateway_stripes_written_total").await {
            written if written > 0.0 => Ok(()),
            written => Err(format!("{written} stripes")),
        }
    })
    .await;
    world.kill_and_restart().await;
    read_back(&world, &files).await;
    becomes_packed(&world, &files).await;
    // The first of a copied pair goes; the copy keeps the block.
    purge_all(&world, &copied).await;
    drop(files.drain(20..60));
    read_back(&world, &files).await;
    for (id, bytes) in &old {
        check(&world, id, 1, bytes).await;
    }
    for (id, _) in gone.iter().chain(&copied) {
        assert_eq!(world.content(id, &[]).await.status, StatusCode::NOT_FOUND);
    }
    // And all that was packed goes from the disks as everything else does.
    let insider = Insider::of_dev(&world.data_dir(), "gateway-1");
    assert!(insider.stripe_counts().await.total > 0);
    let folder = world.client.list("/small", 1, None).await.unwrap().entry.id;
    delete(&world, &folder, "?permanent=true").await;
    eventually("space does not come back", async || {
        let counts = insider.stripe_counts().await;
        match counts.total {
            0 => Ok(()),
            _ => Err(format!("{counts:?}")),
        }
    })
    .await;
}
