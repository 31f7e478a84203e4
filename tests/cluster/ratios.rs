//! What deduplication and compression save and cost, as groups tell it to whoever watches the cluster.
//!
//! Not here: how much they save of which contents (`make delta`), what collection makes of the same figures (`collection`).

use crate::served::eventually;
use crate::world::World;
use chaos::compressed::{archive, picture};
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

/// Nothing of them is found twice, so what is sealed is what came in, headers, tags and compression that was tried in vain with it.
///
/// shows: QAS-011 scale=1/2, H-comp scale=1/2
#[tokio::test]
async fn a_jpeg_and_a_zip_take_at_most_a_thousandth_more_than_they_are() {
    let world = World::start().await;
    let line = |number: u64| {
        format!(
            "line {number} says {}\n",
            &blake3::hash(&number.to_le_bytes()).to_hex()[..20]
        )
    };
    let text: String = (0..20_000).map(line).collect();
    let zip = archive(text.as_bytes().chunks(64 << 10));
    let mut before: usize = 0;
    for (path, content) in [("/a.jpg", picture(3, 1_536, 1_024)), ("/a.zip", zip)] {
        world.put(path, &content).await;
        let plain = content.len();
        let sealed: usize = eventually("what is sealed is not what was put", async || {
            let living = world.metric("metadata_content_bytes{kind=\"living\"}").await as usize;
            // A tenth is room for what can be made smaller all the same; less was not counted.
            match living.checked_sub(before) {
                Some(sealed) if (plain * 9 / 10..=plain + plain / 1_000).contains(&sealed) => Ok(sealed),
                _ => Err(format!("{path}: {living} are sealed of {before} and {plain}")),
            }
        })
        .await;
        before += sealed;
    }
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
