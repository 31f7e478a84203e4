//! Ten thousand files overwritten, as by something that encrypts them, and rewound: how long that takes, and every byte compared.
//!
//! Shows the scale of N6 that `make test` cannot afford. Passes when the rewind takes at most `REWIND_MAX` from its order to its end as
//! a client sees it. Files are of all sizes from none that a stripe knows to several stripes, since those of the metadata and those of
//! the disks come back on different ways.
//! Not here: what a rewind leaves alone and lists (tests/cluster).

use crate::bench::calls::repeated;
use crate::content::SeededContent;
use crate::dev_cluster::DevCluster;
use anyhow::{Context, bail, ensure};
use api::entry::Entry;
use api::rewind::{CreatedSince, JobQuery, JobState, Rewind, RewindJob};
use api::timestamp::Timestamp;
use bytes::Bytes;
use clap::Parser;
use client_sdk::client::{Client, Target};
use futures_util::{StreamExt, TryStreamExt, stream};
use model::limits::INLINE_BYTES_MAX;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const FOLDER: &str = "/work";
/// What N6 asks.
const REWIND_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A rewind that takes as long is broken, not slow.
const PATIENCE: Duration = Duration::from_secs(600);
/// Folders within a millisecond of the cluster's clock; one takes longer than that.
const LATER_MAX: u64 = 1_000;
/// Small ones, those that share a stripe with nobody, and one of several stripes among so many.
const LARGE_EACH: u64 = 500;
const LARGE_BYTES: u64 = (9 << 20) + 7;

/// What a file holds at a time.
#[derive(Clone, Copy)]
enum Age {
    Precious,
    Scrambled,
}

/// Arguments of the measurement.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where the cluster keeps its data; wiped before, and after a success.
    #[arg(long, default_value = "target/rewind")]
    data_dir: PathBuf,
    /// How many files are overwritten.
    #[arg(long, default_value_t = 10_000)]
    files: u64,
    /// How many of them are written at once.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
}

/// Writes, overwrites, rewinds, compares and judges.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    DevCluster::with_fresh(&arguments.holdfast, &arguments.data_dir, &[], async |cluster| {
        measure(&cluster.client().await?, &arguments).await
    })
    .await
}

/// Run by `make rewind`.
///
/// shows: N6
async fn measure(client: &Client, arguments: &Arguments) -> anyhow::Result<()> {
    let begun = Instant::now();
    let files = write(client, arguments, Age::Precious, None).await?;
    let then = instant(client).await?;
    write(client, arguments, Age::Scrambled, Some(1)).await?;
    let in_stripes = files.iter().filter(|(_, entry)| entry.size > INLINE_BYTES_MAX as u64);
    println!(
        "{} files, {} of them in stripes, written and overwritten in {:.0} s",
        arguments.files,
        in_stripes.count(),
        begun.elapsed().as_secs_f64()
    );
    let folder = client.list(FOLDER, 1, None).await?.entry;
    let begun = Instant::now();
    let job = rewind(client, &folder, then).await?;
    let took = begun.elapsed();
    println!(
        "rewound in {:.2} s: {} looked at, {} listed, {} done, {} left",
        took.as_secs_f64(),
        job.looked_at,
        job.listed,
        job.done,
        job.left
    );
    ensure!(
        job.state == JobState::Done && job.done == arguments.files,
        "not all was rewound: {job:?}"
    );
    let compare = async |(number, entry): (u64, Entry)| {
        let bytes = client.get(&entry.id, None).await?.bytes().await?;
        ensure!(
            bytes == content(Age::Precious, number),
            "file {number} came back altered"
        );
        Ok(())
    };
    let all = stream::iter(files).map(compare).buffer_unordered(arguments.at_once);
    all.try_collect::<()>().await?;
    ensure!(took <= REWIND_MAX, "the rewind took over {REWIND_MAX:?}");
    println!("passed: every byte is back, within {REWIND_MAX:?}");
    Ok(())
}

/// Of ten files seven lie in the metadata.
fn length_bytes(number: u64) -> u64 {
    match number % 10 {
        0 if number.is_multiple_of(LARGE_EACH) => LARGE_BYTES,
        0 => 64 << 10,
        // One byte too many for the metadata, and as many as they take.
        3 => INLINE_BYTES_MAX as u64 + 1,
        6 => (16 << 10) + number,
        9 => INLINE_BYTES_MAX as u64,
        // Long enough that no two of them are the same by chance.
        _ => 16 + number % 1_000,
    }
}

/// Noise of the same length at either age, so that no block is found that was there before.
fn content(age: Age, number: u64) -> Bytes {
    SeededContent::new(2 * number + age as u64, length_bytes(number)).whole()
}

/// Writes every file; answers each with its number.
async fn write(
    client: &Client,
    arguments: &Arguments,
    age: Age,
    base_version: Option<u64>,
) -> anyhow::Result<Vec<(u64, Entry)>> {
    let put = async |number: u64| {
        let target = Target {
            base_version,
            ..Target::new_file(format!("{FOLDER}/{}/{number}", number % 100))
        };
        let bytes = content(age, number);
        let put = repeated(|| client.put(&target, bytes.clone())).await;
        let (put, _) = put.with_context(|| format!("write file {number}"))?;
        anyhow::Ok((number, put.entry))
    };
    let all = stream::iter(0..arguments.files).map(put);
    all.buffer_unordered(arguments.at_once).try_collect().await
}

/// An instant behind all that was written: the clock has gone on when a folder made later shows it.
async fn instant(client: &Client) -> anyhow::Result<Timestamp> {
    let first = client.make_folder("/then").await?.created_at;
    for again in 0..LATER_MAX {
        if client.make_folder(&format!("/then {again}")).await?.created_at > first {
            return Ok(first);
        }
    }
    bail!("the cluster's clock stands still at {first:?}")
}

/// Rewinds and waits for the end.
async fn rewind(client: &Client, folder: &Entry, to: Timestamp) -> anyhow::Result<RewindJob> {
    let wanted = Rewind {
        to,
        created: CreatedSince::Keep,
        dry_run: false,
    };
    let begun = Instant::now();
    let id = client.rewind(&folder.id, &wanted).await?.id;
    let query = JobQuery {
        limit: Some(1),
        page_token: None,
    };
    loop {
        let job = client.job(&id, &query).await?.job;
        if !matches!(job.state, JobState::Looking | JobState::Working) {
            return Ok(job);
        }
        ensure!(begun.elapsed() < PATIENCE, "the rewind does not end: {job:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Age, LARGE_BYTES, content, length_bytes};
    use model::limits::INLINE_BYTES_MAX;

    #[test]
    fn some_files_lie_in_the_metadata_some_in_one_stripe_and_some_in_several() {
        let lengths: Vec<u64> = (0..10_000).map(length_bytes).collect();
        let many = |is_so: &dyn Fn(u64) -> bool| lengths.iter().filter(|length| is_so(**length)).count();
        let inline = INLINE_BYTES_MAX as u64;
        assert_eq!(many(&|length| length <= inline), 7_000);
        assert_eq!(many(&|length| length == inline), 1_000);
        assert_eq!(many(&|length| length == inline + 1), 1_000);
        assert_eq!(many(&|length| length == LARGE_BYTES), 20);
        assert!(lengths.iter().all(|length| *length >= 16));
    }

    #[test]
    fn a_file_that_was_overwritten_holds_something_else_of_the_same_length() {
        for number in (0..40).chain([500]) {
            let [then, now] = [Age::Precious, Age::Scrambled].map(|age| content(age, number));
            assert_eq!(then.len(), now.len());
            assert!(then != now, "{number}");
        }
    }
}
