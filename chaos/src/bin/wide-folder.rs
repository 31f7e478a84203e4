//! `make wide-folder`: a million children in one folder, and how long a page of them takes.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::wide_folder::run().await
}
