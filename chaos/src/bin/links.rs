//! `make links`: transfers over links of a known rate and delay.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::links::run().await
}
