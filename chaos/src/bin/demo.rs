//! `make demo`: a real tree and a large file go in, nodes stop midway, everything is read back and compared.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::demo::run().await
}
