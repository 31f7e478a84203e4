//! One file of the largest length that is allowed: 10 GiB of bytes that do not repeat, put and read back.
//!
//! Shows the scale of C-4 that `make test` cannot afford. Passes when the upload is acknowledged whole, a healthy cluster stored it
//! without a degraded stripe, every byte comes back, and one byte more is refused.
//! Not here: how early what is too long is refused (gateway/src/tests/sizes.rs), and nodes that die meanwhile (the demo).

use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::table;
use anyhow::{Context, bail, ensure};
use clap::Parser;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use futures_util::StreamExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATH: &str = "/largest.bin";

/// Arguments of the check.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success. Takes half as much again as the file.
    #[arg(long, default_value = "target/largest-file")]
    data_dir: PathBuf,
    /// Length of the file in bytes.
    #[arg(long, default_value_t = model::limits::FILE_BYTES_MAX)]
    bytes: u64,
    /// Seed of its content.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
}

/// Puts, reads and compares; an error when a call fails or a byte differs.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &[], async |cluster| {
        there_and_back_and_no_longer(&cluster.client().await?, &arguments).await
    })
    .await
}

/// Run by `make largest-file`.
///
/// shows: C-4
async fn there_and_back_and_no_longer(client: &Client, arguments: &Arguments) -> anyhow::Result<()> {
    there_and_back(client, arguments).await?;
    let length = model::limits::FILE_BYTES_MAX + 1;
    let content = SeededContent::new(arguments.seed, length).stream(|_| ());
    match client
        .put_stream(&Target::new_file("/longer.bin"), length, content)
        .await
    {
        Err(ClientError::Refused { status: 413, code, .. }) if code == "file_too_large" => {}
        other => bail!("{length} bytes were to be refused as file_too_large: {other:?}"),
    }
    println!("one byte more than a file may have is refused");
    Ok(())
}

async fn there_and_back(client: &Client, arguments: &Arguments) -> anyhow::Result<()> {
    let (seed, length) = (arguments.seed, arguments.bytes);
    let content = || SeededContent::new(seed, length);
    let begun = Instant::now();
    let done = client
        .put_stream(&Target::new_file(PATH), length, content().stream(|_| ()))
        .await
        .context("put the file")?;
    let put_time = begun.elapsed();
    ensure!(
        done.entry.size == length,
        "{} of {length} bytes are acknowledged",
        done.entry.size
    );
    ensure!(!done.receipt.degraded, "a healthy cluster stored it degraded");
    let begun = Instant::now();
    let mut stream = client.get(&done.entry.id, None).await?.bytes_stream();
    let mut found = blake3::Hasher::new();
    while let Some(part) = stream.next().await {
        found.update(&part.context("read the file")?);
    }
    let get_time = begun.elapsed();
    let expected = tokio::task::spawn_blocking(move || SeededContent::new(seed, length).digest()).await?;
    ensure!(found.count() == length, "{} of {length} bytes came back", found.count());
    ensure!(found.finalize() == expected, "the file came back different");
    let row = |what: &str, time: Duration| {
        let rate = length as f64 / time.as_secs_f64() / 1e6;
        vec![
            what.to_owned(),
            format!("{:.1} s", time.as_secs_f64()),
            format!("{rate:.0} MB/s"),
        ]
    };
    let head = [table::bytes(length).as_str(), "time", "rate"]
        .map(str::to_owned)
        .to_vec();
    println!("{}", table::render(&[head, row("put", put_time), row("get", get_time)]));
    println!("every byte came back");
    Ok(())
}
