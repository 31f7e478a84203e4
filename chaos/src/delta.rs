//! What delta sync asks of the wire, and contents of the disks: each figure beside what it may be at most.
//!
//! Each part has a cluster of its own, so that none pays for what another has left. Bytes on the wire are counted by a proxy, what is
//! stored by what nodes and groups tell of themselves; contents follow from a seed and are never held whole.
//! Invariants: what is sent, fetched or put is compared on the way; a figure that was not found fails as one that is too high does.
//! Not here: figures of other uploads and of the machine's limits (`bench`).

mod batches;
mod compression;
mod edit;
mod finding;
mod growth;
mod largest;
mod lists;
mod mix;
mod patched;
mod single_byte;
mod singly;
mod stored;
mod twice;
pub mod wire;

use crate::dev_cluster::{DevCluster, wipe};
use crate::{report, table};
use anyhow::ensure;
use clap::{Parser, ValueEnum};
use finding::{Finding, HEADING};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;

/// Edits of each kind of the large file.
const EDITS: usize = 10;
const LARGEST_BYTES: u64 = model::limits::FILE_BYTES_MAX;

/// What can be measured apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Part {
    /// Long lists of blocks that a drive lacks.
    Lists,
    /// One byte changed and one put in.
    SingleByte,
    /// A megabyte edited in files of all sizes.
    Growth,
    /// Text and what is compressed already.
    Compression,
    /// The same content twice.
    Twice,
    /// Many small files.
    Batches,
    /// The commit of the largest file.
    Largest,
    /// Many small files one by one.
    Singly,
    /// Few large files and many small ones.
    Mix,
}

/// Arguments.
#[derive(Debug, Parser)]
pub struct Arguments {
    /// The server binary.
    #[arg(long, default_value = "target/release/holdfast")]
    holdfast: PathBuf,
    /// Where clusters keep their data; wiped before, and after a success.
    #[arg(long, default_value = "target/delta/data")]
    data_dir: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/delta")]
    reports: PathBuf,
    /// What is measured, with commas; by default everything.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Length of the file of which one byte is changed.
    #[arg(long, default_value_t = single_byte::FILE_BYTES, value_parser = clap::value_parser!(u64).range(1..))]
    bytes: u64,
    /// Edits of each kind of that file.
    #[arg(long, default_value_t = EDITS)]
    edits: usize,
    /// Lengths of the files in which a megabyte is edited, in MB, from 10 on.
    #[arg(long, value_delimiter = ',', default_values_t = growth::SIZES_MB, value_parser = clap::value_parser!(u64).range(growth::SIZES_MB[0]..))]
    sizes: Vec<u64>,
    /// Edits of each of them.
    #[arg(long, default_value_t = growth::SEEDS, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Small files, in batches of a thousand.
    #[arg(long, default_value_t = batches::FILES)]
    files: usize,
    /// Small files that are put one by one and packed afterwards; a million take two hours.
    #[arg(long, default_value_t = singly::FILES)]
    singly: usize,
    /// Length of the largest file; takes half as much again on the disk.
    #[arg(long, default_value_t = LARGEST_BYTES, value_parser = clap::value_parser!(u64).range(1 << 20..=LARGEST_BYTES))]
    largest: u64,
    /// The folder whose sources and documents are the text to compress.
    #[arg(long, default_value = ".")]
    texts: PathBuf,
    /// Decides contents and places of edits.
    #[arg(long, default_value_t = 20_261_122)]
    seed: u64,
}

/// All that a run found.
#[derive(Debug, Serialize)]
struct Report {
    at_unix_s: u64,
    parts: Vec<Part>,
    seed: u64,
    single_byte_file_bytes: u64,
    edits: usize,
    sizes_mb: Vec<u64>,
    seeds: u64,
    files: usize,
    singly: usize,
    largest_bytes: u64,
    findings: Vec<Finding>,
    /// Parts that came to no end, and why.
    failures: Vec<String>,
}

/// Measures and judges; an error when something fails, comes back different, or is above its limit.
pub async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let parts = match arguments.only.as_slice() {
        [] => Part::value_variants().to_vec(),
        only => only.to_vec(),
    };
    wipe(&arguments.data_dir)?;
    let (mut findings, mut failures) = (Vec::new(), Vec::new());
    for part in &parts {
        let begun = Instant::now();
        println!("{part:?}");
        match measure(*part, &arguments).await {
            Ok(found) => {
                println!("{}", render(&found));
                findings.extend(found);
            }
            // The other parts do not depend on it.
            Err(error) => {
                println!("{part:?} failed: {error:#}");
                failures.push(format!("{part:?}: {error:#}"));
            }
        }
        println!("{part:?} took {:.0} s", begun.elapsed().as_secs_f64());
    }
    println!("\n{}", render(&findings));
    let report = Report {
        at_unix_s: report::unix_s()?,
        parts,
        seed: arguments.seed,
        single_byte_file_bytes: arguments.bytes,
        edits: arguments.edits,
        sizes_mb: arguments.sizes.clone(),
        seeds: arguments.seeds,
        files: arguments.files,
        singly: arguments.singly,
        largest_bytes: arguments.largest,
        findings,
        failures,
    };
    report::write(&arguments.reports, report.at_unix_s, &report)?;
    ensure!(report.failures.is_empty(), "failed: {}", report.failures.join("; "));
    finding::judge(&report.findings)?;
    if let Some(less) = less_than_asked(&arguments, &report.parts) {
        println!("less than was asked for: {less}");
    }
    println!("passed");
    Ok(())
}

async fn measure(part: Part, arguments: &Arguments) -> anyhow::Result<Vec<Finding>> {
    let epoch_ms = singly::epoch_ms(arguments.singly).to_string();
    let of_singly = ["--birth-epoch-ms", epoch_ms.as_str()];
    let options: &[&str] = match part {
        Part::Twice => &twice::OPTIONS,
        Part::Singly => &of_singly,
        _ => &["--processes"],
    };
    let data_dir = arguments.data_dir.join(format!("{part:?}"));
    DevCluster::with_fresh(&arguments.holdfast, &data_dir, options, async |cluster| {
        at(cluster, part, arguments).await
    })
    .await
}

async fn at(cluster: &DevCluster, part: Part, arguments: &Arguments) -> anyhow::Result<Vec<Finding>> {
    let seed = arguments.seed;
    match part {
        Part::Lists => lists::measure(cluster, seed).await,
        Part::SingleByte => single_byte::measure(cluster, arguments.bytes, arguments.edits, seed).await,
        Part::Growth => growth::measure(cluster, &arguments.sizes, arguments.seeds, seed).await,
        Part::Compression => compression::measure(cluster, &arguments.texts, seed).await,
        Part::Twice => twice::measure(cluster, seed).await,
        Part::Batches => batches::measure(cluster, arguments.files).await,
        Part::Largest => largest::measure(cluster, arguments.largest, seed).await,
        Part::Singly => singly::measure(cluster, arguments.singly).await,
        Part::Mix => mix::measure(cluster, seed).await,
    }
}

fn render(findings: &[Finding]) -> String {
    let mut rows = vec![HEADING.map(str::to_owned).to_vec()];
    rows.extend(findings.iter().map(Finding::row));
    table::render(&rows)
}

/// What of a run is smaller than the requirements are.
fn less_than_asked(arguments: &Arguments, parts: &[Part]) -> Option<String> {
    let whole = [
        (
            Part::SingleByte,
            arguments.bytes >= single_byte::FILE_BYTES && arguments.edits >= EDITS,
        ),
        (
            Part::Growth,
            arguments.seeds >= growth::SEEDS && growth::SIZES_MB.iter().all(|size| arguments.sizes.contains(size)),
        ),
        (Part::Batches, arguments.files >= batches::FILES),
        (Part::Largest, arguments.largest >= LARGEST_BYTES),
        (Part::Singly, arguments.singly >= batches::FILES),
    ];
    let missing = Part::value_variants().iter().filter(|part| !parts.contains(part));
    let small = whole
        .iter()
        .filter(|(part, is_whole)| parts.contains(part) && !is_whole);
    let less: Vec<String> = missing
        .chain(small.map(|(part, _)| part))
        .map(|part| format!("{part:?}"))
        .collect();
    (!less.is_empty()).then(|| less.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{Arguments, Part, less_than_asked};
    use clap::{Parser, ValueEnum};

    fn check(options: &[&str], parts: &[Part], expected: Option<&str>) {
        let arguments = Arguments::try_parse_from([&["delta"][..], options].concat()).unwrap();
        let less = less_than_asked(&arguments, parts);
        assert_eq!(less.as_deref(), expected, "{options:?}");
    }

    #[test]
    fn a_run_that_leaves_parts_out_or_makes_them_smaller_says_so() {
        let all = Part::value_variants();
        check(&["--singly", "1000000"], all, None);
        check(&[], all, Some("Singly"));
        check(&["--files", "10000"], all, Some("Batches, Singly"));
        check(
            &["--sizes", "10,1000", "--edits", "3"],
            all,
            Some("SingleByte, Growth, Singly"),
        );
        check(&["--largest", "1073741824"], &all[..6], Some("Largest, Singly, Mix"));
        check(
            &["--seeds", "1"],
            &[Part::Growth],
            Some("Lists, SingleByte, Compression, Twice, Batches, Largest, Singly, Mix, Growth"),
        );
        for wrong in [
            "--sizes=5",
            "--seeds=0",
            "--bytes=0",
            "--largest=10737418241",
            "--only=all",
        ] {
            assert!(Arguments::try_parse_from(["delta", wrong]).is_err(), "{wrong}");
        }
    }
}
