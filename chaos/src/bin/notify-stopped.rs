//! `make notify-stopped`: commits while every process that notifies is dead, beside commits while they run.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    chaos::notify_stopped::run().await
}
