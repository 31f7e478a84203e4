//! `make largest-file`: a file of 10 GiB goes in and comes back.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::largest_file::run().await
}
