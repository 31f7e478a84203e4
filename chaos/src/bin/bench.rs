//! `make bench`: what the cluster does, beside what the machine can do at best.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::bench::run().await
}
