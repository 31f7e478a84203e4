//! Looks for answers from before a write at two gateways; see `chaos::stale`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::stale::run().await
}
