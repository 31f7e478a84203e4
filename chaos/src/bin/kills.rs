//! Times how long writes stand still when a leader dies; see `chaos::kills`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::kills::run().await
}
