//! Measures what delta sync, batches and deduplication ask of the wire and of the disks; see `chaos::delta`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::delta::run().await
}
