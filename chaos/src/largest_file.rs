//! One file of the largest length that is allowed: 10 GiB of bytes that do not repeat, put and read back.
//!
//! Shows the scale of C-4 that `make test` cannot afford. Passes when the upload is acknowledged whole, a healthy cluster stored it
//! without a degraded stripe, no gateway took more than 150 MB of memory for it, every byte comes back, and one byte more is refused.
//! The cluster runs as processes, since in one process a gateway's memory cannot be told from a node's.
//! Not here: how early what is too long is refused (gateway/src/tests/sizes.rs), and nodes that die meanwhile (the demo).

use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use crate::open_loop::usage::Usage;
use crate::table;
use anyhow::{Context, bail, ensure};
use clap::Parser;
use client_sdk::client::{Client, Target};
use client_sdk::error::ClientError;
use futures_util::StreamExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const PATH: &str = "/largest.bin";
/// Resident memory of a gateway over the whole upload; asked: 10 GiB with the gateway under 150 MB. Nobody signs in meanwhile: a password takes a gateway more than any upload.
const GATEWAY_BYTES_MAX: u64 = 150_000_000;

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
    let options = ["--processes"];
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &options, async |cluster| {
        // The one log-in of the run: what is measured begins behind it.
        let client = cluster.client().await?;
        there_and_back_and_no_longer(&client, &Usage::of(cluster), &arguments).await
    })
    .await
}

/// What the upload took of the gateways' memory.
#[derive(Clone, Copy, Debug)]
struct Memory {
    /// Resident bytes, of the gateway that took most.
    peak_bytes: u64,
    /// False where the kernel lets no peak begin again: then it is since the gateway's start, which is never less.
    is_of_upload: bool,
}

impl Memory {
    fn span(self) -> &'static str {
        match self.is_of_upload {
            true => "in the upload",
            false => "since its start",
        }
    }

    fn megabytes(self) -> String {
        format!("{:.1} MB", self.peak_bytes as f64 / 1e6)
    }

    fn table(self) -> String {
        let head = ["memory", "peak", "allowed"].map(str::to_owned).to_vec();
        let row = vec![
            format!("gateway, {}", self.span()),
            self.megabytes(),
            format!("{} MB", GATEWAY_BYTES_MAX / 1_000_000),
        ];
        table::render(&[head, row])
    }

    fn judge(self) -> anyhow::Result<()> {
        ensure!(
            self.peak_bytes <= GATEWAY_BYTES_MAX,
            "a gateway took {} {}, {} MB are allowed",
            self.megabytes(),
            self.span(),
            GATEWAY_BYTES_MAX / 1_000_000
        );
        Ok(())
    }
}

/// Run by `make largest-file`.
///
/// shows: C-4
async fn there_and_back_and_no_longer(client: &Client, usage: &Usage, arguments: &Arguments) -> anyhow::Result<()> {
    there_and_back(client, usage, arguments).await?;
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

async fn there_and_back(client: &Client, usage: &Usage, arguments: &Arguments) -> anyhow::Result<()> {
    let (seed, length) = (arguments.seed, arguments.bytes);
    let content = || SeededContent::new(seed, length);
    let is_of_upload = usage.reset_peaks();
    let begun = Instant::now();
    let done = client
        .put_stream(&Target::new_file(PATH), length, content().stream(|_| ()))
        .await
        .context("put the file")?;
    let put_time = begun.elapsed();
    let memory = Memory {
        peak_bytes: usage.largest_gateway_peak_bytes()?,
        is_of_upload,
    };
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
    println!("{}", memory.table());
    println!("every byte came back");
    memory.judge()
}

#[cfg(test)]
mod tests {
    use super::Memory;

    #[test]
    fn a_gateway_may_take_what_is_allowed_and_no_byte_more() {
        for is_of_upload in [true, false] {
            for (peak_bytes, is_allowed) in [(0, true), (150_000_000, true), (150_000_001, false)] {
                let memory = Memory {
                    peak_bytes,
                    is_of_upload,
                };
                assert_eq!(memory.judge().is_ok(), is_allowed, "{memory:?}");
            }
        }
    }

    #[test]
    fn the_table_says_what_was_taken_over_what_time_and_what_is_allowed() {
        let memory = |is_of_upload| Memory {
            peak_bytes: 98_760_000,
            is_of_upload,
        };
        let of_upload = memory(true).table();
        assert!(
            of_upload.contains("gateway, in the upload  98.8 MB  150 MB"),
            "{of_upload}"
        );
        let of_life = memory(false).table();
        assert!(
            of_life.contains("gateway, since its start  98.8 MB  150 MB"),
            "{of_life}"
        );
    }
}
