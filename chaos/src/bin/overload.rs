//! Drives a cluster at three times the load that saturates it; see `chaos::overload`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::overload::run().await
}
