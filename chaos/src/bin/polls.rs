//! `make polls`: what polls cost a gateway while they wait, and how soon they are told.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::polls::run().await
}
