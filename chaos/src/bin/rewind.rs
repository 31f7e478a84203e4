//! `make rewind`: ten thousand files overwritten and rewound, and how long that takes.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::rewind::run().await
}
