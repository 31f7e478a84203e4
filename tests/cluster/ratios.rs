//! What deduplication and compression save, as groups tell it to whoever watches the cluster.
//!
//! Not here: how much they save of which contents (`make delta`), what collection makes of the same figures (`collection`).

use crate::served::eventually;
use crate::world::World;
use chaos::meter;

/// The same text under two names: plain bytes count twice among versions and once against the quota, and sealed ones are fewer.
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
        let page = world.client.text("/metrics").await.map_err(|error| error.to_string())?;
        let bytes = |kind: &str| meter::sum(&page, &format!("metadata_content_bytes{{kind=\"{kind}\"}}"));
        let [logical, charged, living] = ["logical", "charged", "living"].map(|kind| bytes(kind).unwrap_or(0.0));
        let percent = meter::sum(&page, "metadata_deduplication_percent").unwrap_or(0.0);
        let is_shared = (logical, charged, percent) == (2.0 * plain, plain, 200.0);
        match is_shared && living > 0.0 && living * 100.0 <= charged * 40.0 {
            true => Ok(()),
            false => Err(format!(
                "{logical} of versions, {charged} charged, {percent} %, {living} sealed of {plain} put twice"
            )),
        }
    })
    .await;
}
