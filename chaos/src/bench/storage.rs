//! What the data directory's disk and the page cache do.
//!
//! Invariants: everything is written below the given folder, which the caller wipes; the file of the page-cache copy lies in the
//! cache before it is timed, so the figure is the kernel's copy alone. A first touch costs more; the bound stays a bound without.

use super::limit::{self, Limit, LimitName, Unit};
use crate::content::SeededContent;
use crate::percentile::percentile;
use bytes::Bytes;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

const PASSES: usize = 3;
const WRITE_BYTES: usize = 1 << 20;
const APPEND_BYTES: usize = 4 << 10;
/// The low end of what decision 0021 saw.
const SEQUENTIAL_REFERENCE: f64 = 1.4e9;
const FDATASYNC_P50_REFERENCE_S: f64 = 0.2e-3;

/// Measures copy, sequential write and fdatasync.
pub(super) fn measure(folder: &Path, quick: bool, seed: u64) -> anyhow::Result<Vec<Limit>> {
    println!("measuring disk: sequential write, page-cache copy, fdatasync");
    let buffer: Bytes = {
        let mut content = SeededContent::new(seed, WRITE_BYTES as u64);
        let mut parts = Vec::with_capacity(WRITE_BYTES);
        while let Some(part) = content.next_part() {
            parts.extend_from_slice(&part);
        }
        parts.into()
    };
    let mut limits = vec![
        sequential_write(folder, if quick { 256 } else { 1024 }, &buffer)?,
        page_cache_copy(folder, if quick { 64 } else { 256 }, &buffer)?,
    ];
    limits.extend(fdatasync(
        folder,
        if quick { 200 } else { 1_000 },
        &buffer[..APPEND_BYTES],
    )?);
    Ok(limits)
}

/// New files, synced at the end; the sync is part of the time. The cost is that of pages which are new to the cache: where the machine
/// is a guest whose host takes idle memory back, that is many times a copy into pages that are there, and no part of the bound.
fn sequential_write(folder: &Path, writes: usize, buffer: &[u8]) -> anyhow::Result<Limit> {
    let (mut best, mut fastest_cpu_s) = (0.0_f64, f64::INFINITY);
    for pass in 0..PASSES {
        let path = folder.join(format!("sequential-{pass}"));
        let (begun, begun_cpu) = (Instant::now(), limit::thread_cpu());
        let mut file = File::create_new(&path)?;
        for _ in 0..writes {
            file.write_all(buffer)?;
        }
        fastest_cpu_s = fastest_cpu_s.min((limit::thread_cpu() - begun_cpu).as_secs_f64());
        file.sync_all()?;
        best = best.max((writes * buffer.len()) as f64 / begun.elapsed().as_secs_f64());
        drop(file);
        std::fs::remove_file(&path)?;
    }
    let title = "sequential write, fsync at end";
    let reference = Some(SEQUENTIAL_REFERENCE);
    Ok(Limit::new(
        LimitName::SequentialWrite,
        title,
        Unit::BytesPerSecond,
        best,
        "wall time",
        reference,
    )
    .costing(fastest_cpu_s * 1e9 / (writes * buffer.len()) as f64))
}

fn page_cache_copy(folder: &Path, writes: usize, buffer: &[u8]) -> anyhow::Result<Limit> {
    let path = folder.join("cached");
    let mut file = File::create_new(&path)?;
    for _ in 0..writes {
        file.write_all(buffer)?;
    }
    file.sync_all()?;
    let mut fastest_s = f64::INFINITY;
    for _ in 0..PASSES {
        let begun = limit::thread_cpu();
        for at in 0..writes {
            file.write_all_at(buffer, (at * buffer.len()) as u64)?;
        }
        fastest_s = fastest_s.min((limit::thread_cpu() - begun).as_secs_f64());
    }
    std::fs::remove_file(&path)?;
    let rate = (writes * buffer.len()) as f64 / fastest_s;
    let title = "page-cache copy";
    Ok(Limit::new(
        LimitName::PageCacheCopy,
        title,
        Unit::BytesPerSecond,
        rate,
        "one core",
        None,
    )
    .costing(1e9 / rate))
}

fn fdatasync(folder: &Path, appends: usize, record: &[u8]) -> anyhow::Result<[Limit; 2]> {
    let path = folder.join("appended");
    let mut file = File::create_new(&path)?;
    let mut samples = Vec::with_capacity(appends);
    for _ in 0..appends {
        let begun = Instant::now();
        file.write_all(record)?;
        file.sync_data()?;
        samples.push(begun.elapsed());
    }
    std::fs::remove_file(&path)?;
    samples.sort_unstable();
    let at = |percent| percentile(&samples, percent).as_secs_f64();
    let of = |name, title, value, reference| Limit::new(name, title, Unit::Seconds, value, "wall time", reference);
    Ok([
        of(
            LimitName::FdatasyncP50,
            "fdatasync of a 4 KiB append, p50",
            at(50),
            Some(FDATASYNC_P50_REFERENCE_S),
        ),
        of(
            LimitName::FdatasyncP99,
            "fdatasync of a 4 KiB append, p99",
            at(99),
            None,
        ),
    ])
}
