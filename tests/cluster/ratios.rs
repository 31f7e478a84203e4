//! What deduplication and compression save, as groups tell it to whoever watches the cluster.
//!
//! Not here: how much they save of which contents (`make delta`), what collection makes of the same figures (`collection`).

use crate::served::eventually;
use crate::world::World;
use chaos::meter;

/// The same text under two names: plain bytes count twice among versions and once against the quota, and sealed ones are fewer.
///
/// shows: C-7 side=ratios
#[tokio::test]
async fn what_contents_share_and_what_compressing_saves_is_told_by_metrics() {
    let world = World::start().await;
    let line = |number: u32| format!("line {number} says much of what the line before it has said\n");
    let text: String = (0..60_000).map(line).collect();
    for path in ["/one", "/two"] {
        world.put(path, text.as_bytes()).await;
    }
    let plain = text.len() as f64;
    eventually("what is told of contents", async || {
        let told = told(&world).await?;
        let is_shared = (told.logical, told.charged, told.deduplication_percent) == (2.0 * plain, plain, 200.0);
        let is_small = told.sealed > 0.0 && told.sealed == told.living && told.compression_percent <= 40.0;
        match is_shared && is_small && told.compression_percent == (told.sealed * 100.0 / plain).ceil() {
            true => Ok(()),
            false => Err(format!("{told:?} of {plain} put twice")),
        }
    })
    .await;

    // A small one lies in the metadata, and its bytes belong to what is sealed too.
    let small = &text.as_bytes()[..2_000];
    world.put("/small", small).await;
    eventually("what is told with a small content", async || {
        let told = told(&world).await?;
        let plain = plain + small.len() as f64;
        let is_whole = told.charged == plain && told.inline > 0.0 && told.sealed == told.living + told.inline;
        match is_whole && told.compression_percent == (told.sealed * 100.0 / plain).ceil() {
            true => Ok(()),
            false => Err(format!("{told:?} of {plain}")),
        }
    })
    .await;
}

/// The gauges of all groups.
#[derive(Debug)]
struct Told {
    logical: f64,
    charged: f64,
    living: f64,
    inline: f64,
    sealed: f64,
    deduplication_percent: f64,
    compression_percent: f64,
}

/// What the metrics say now; an error while one of them is not there.
async fn told(world: &World) -> Result<Told, String> {
    let page = world.client.text("/metrics").await.map_err(|error| error.to_string())?;
    let sum = |name: &str| meter::sum(&page, name).ok_or_else(|| format!("{name} is not shown"));
    let bytes = |kind: &str| sum(&format!("metadata_content_bytes{{kind=\"{kind}\"}}"));
    Ok(Told {
        logical: bytes("logical")?,
        charged: bytes("charged")?,
        living: bytes("living")?,
        inline: bytes("inline")?,
        sealed: bytes("sealed")?,
        deduplication_percent: sum("metadata_deduplication_percent")?,
        compression_percent: sum("metadata_compression_percent")?,
    })
}
