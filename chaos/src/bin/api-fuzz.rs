//! Sends made up requests to every operation of the OpenAPI document; see `chaos::api_fuzz`.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::api_fuzz::run().await
}
