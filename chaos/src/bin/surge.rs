//! Sends a cluster hundreds of small uploads a second for minutes; see `chaos::surge`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::surge::run().await
}
